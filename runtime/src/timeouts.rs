//! Owns how a timeout is told: one line in the log and one counter, wherever in the process it happened. Ends nothing
//! itself.

use std::fmt::Display;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;

/// What took too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// A device did not answer a command.
    Rpc,
    /// A peer did not take what was written to it.
    Write,
    /// A device was not heard any more, its pongs included.
    Ping,
    /// The site did not say whether a link is admitted.
    Knock,
    /// A device did not follow the answer to its handshake.
    Upgrade,
    /// A client did not finish its TLS handshake.
    Tls,
    /// The head of a request began and did not end. A connection on which nothing was said is closed without a word.
    Head,
    /// The body of a request did not arrive.
    Body,
    /// The core did not answer a request.
    Answer,
    /// The store did not answer a request.
    StoreAttempt,
    /// There was no connection to the store.
    StoreConnect,
    /// A connection to the store fell silent in the middle of a request.
    StoreSilence,
    /// What was under way did not end when the site was told to stop.
    Drain,
}

impl Op {
    /// All of them.
    pub const ALL: [Op; 13] = [
        Op::Rpc,
        Op::Write,
        Op::Ping,
        Op::Knock,
        Op::Upgrade,
        Op::Tls,
        Op::Head,
        Op::Body,
        Op::Answer,
        Op::StoreAttempt,
        Op::StoreConnect,
        Op::StoreSilence,
        Op::Drain,
    ];

    /// Its word in logs and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Op::Rpc => "rpc",
            Op::Write => "write",
            Op::Ping => "ping",
            Op::Knock => "knock",
            Op::Upgrade => "upgrade",
            Op::Tls => "tls",
            Op::Head => "head",
            Op::Body => "body",
            Op::Answer => "answer",
            Op::StoreAttempt => "store_attempt",
            Op::StoreConnect => "store_connect",
            Op::StoreSilence => "store_silence",
            Op::Drain => "drain",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct OpLabels {
    operation: &'static str,
}

/// Counts the timeouts of a site. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Timeouts(Family<OpLabels, Counter>);

impl Default for Timeouts {
    fn default() -> Timeouts {
        let family = Family::default();
        for op in Op::ALL {
            // Whoever watches for a rise needs the zero before it.
            drop(family.get_or_create(&OpLabels { operation: op.name() }));
        }
        Timeouts(family)
    }
}

impl Timeouts {
    /// Tells of a timeout: what was waited for from whom, how long it may take, and how long it took so far. `target` is
    /// shown: no secret and no address with one in it.
    pub fn out(&self, op: Op, target: &dyn Display, budget: Duration, elapsed: Duration) {
        self.0.get_or_create(&OpLabels { operation: op.name() }).inc();
        let ms = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
        let (operation, budget_ms, elapsed_ms) = (op.name(), ms(budget), ms(elapsed));
        match op {
            // Devices are switched off, and strangers come and go: that is no fault of anybody here.
            Op::Ping | Op::Upgrade | Op::Tls | Op::Head | Op::Body | Op::Drain => {
                tracing::info!(operation, %target, budget_ms, elapsed_ms, "timed out");
            }
            Op::Rpc
            | Op::Write
            | Op::Knock
            | Op::Answer
            | Op::StoreAttempt
            | Op::StoreConnect
            | Op::StoreSilence => tracing::warn!(operation, %target, budget_ms, elapsed_ms, "timed out"),
        }
    }

    /// How many there were.
    #[must_use]
    pub fn count(&self, op: Op) -> u64 {
        self.0.get_or_create(&OpLabels { operation: op.name() }).get()
    }

    pub(crate) fn family(&self) -> Family<OpLabels, Counter> {
        self.0.clone()
    }
}

/// A timeout that an answer tells of. In the extensions of the response, for the one who knows the route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TimedOut {
    pub(crate) op: Op,
    pub(crate) budget: Duration,
    pub(crate) elapsed: Duration,
}
