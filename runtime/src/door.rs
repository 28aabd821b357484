//! Owns what happens when a connection cannot be accepted: it is counted and told, seldom, and accepting goes on. Must not
//! keep a connection waiting that could be answered.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::figures::Gauge;
use crate::seam::{Listener, Trouble};

/// A listener whose `accept` never fails: it goes on until there is a connection.
#[derive(Debug)]
pub struct Door<L> {
    listener: L,
    complaints: Complaints,
    /// Until when nothing is accepted, because nobody knows what is wrong.
    rest: Option<Instant>,
}

/// What all doors of a site count together, and when it was last told. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Complaints {
    gauge: Gauge,
    told: Arc<Mutex<Told>>,
}

#[derive(Debug, Default)]
struct Told {
    at: Option<Instant>,
    since: u64,
}

impl Complaints {
    /// Counts into these figures.
    #[must_use]
    pub fn new(gauge: Gauge) -> Complaints {
        Complaints { gauge, told: Arc::default() }
    }

    fn note(&self, trouble: Trouble, error: &io::Error) {
        let kind = trouble.word();
        self.gauge.update(|figures| *figures.accept_errors.entry(kind).or_default() += 1);
        if trouble == Trouble::Aborted {
            // The client's own doing, and nothing to be mended here.
            return tracing::debug!(%error, "a client went before it was accepted");
        }
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.since += 1;
        let now = Instant::now();
        if told.at.is_none_or(|at| now >= at + TELL_AGAIN) {
            let missed = std::mem::take(&mut told.since);
            told.at = Some(now);
            tracing::warn!(
                kind, %error, connections = missed,
                "connections cannot be accepted; if descriptors are used up, raise the limit of open files (limits.files)"
            );
        }
    }
}

impl<L: Listener> Door<L> {
    /// A door before this listener.
    #[must_use]
    pub fn new(listener: L, complaints: Complaints) -> Door<L> {
        Door { listener, complaints, rest: None }
    }
}

impl<L: Listener> Listener for Door<L> {
    type Stream = L::Stream;

    /// The next connection; never an error. May be dropped and called again.
    async fn accept(&mut self) -> io::Result<(L::Stream, SocketAddr)> {
        loop {
            if let Some(until) = self.rest {
                sleep_until(until).await;
                self.rest = None;
            }
            let error = match self.listener.accept().await {
                Ok(accepted) => return Ok(accepted),
                Err(error) => error,
            };
            let trouble = L::trouble(&error);
            self.complaints.note(trouble, &error);
            match trouble {
                // Something was done about it already: the next in line is not kept waiting.
                Trouble::ProcessFull | Trouble::SystemFull | Trouble::Aborted => {}
                Trouble::Other => self.rest = Some(Instant::now() + REST),
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    fn trouble(error: &io::Error) -> Trouble {
        L::trouble(error)
    }
}

/// Rest after an error that nobody knows: it may be there again at once, and a loop without a pause would do nothing else.
const REST: Duration = Duration::from_millis(100);
/// How often it is told that connections are not accepted.
const TELL_AGAIN: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests;
