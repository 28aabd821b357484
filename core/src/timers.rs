//! Deadlines that say whom they wake and why. A key is armed at most once.

use alloc::collections::{BTreeMap, BTreeSet};

use crate::id::{ConnId, DeviceId, JobId, Ticket, WireId};
use crate::time::Mono;

/// Whom a deadline wakes, and why.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TimerKey {
    /// Ask this link for its state again.
    Sync(ConnId),
    /// This RPC has waited long enough.
    Call(Ticket),
    /// Look at this recording again.
    Verify(DeviceId, WireId),
    /// Remove edge copies whose time has come.
    Remove,
    /// Check the content of recordings that nobody checked yet.
    Inspect,
    /// A job may be due, or the way may be tried again.
    Queue,
    /// Ask the auto-scan policy.
    Scan,
    /// This upload may go on: a repeated question, or its share of the bandwidth.
    Upload(JobId),
    /// An abandoned multipart upload is still to be given up.
    Janitor(JobId),
}

/// Armed deadlines.
#[derive(Clone, Debug, Default)]
pub struct Timers {
    at: BTreeMap<TimerKey, Mono>,
    order: BTreeSet<(Mono, TimerKey)>,
}

impl Timers {
    /// Arms `key` for `at`, replacing an earlier arming.
    pub fn set(&mut self, key: TimerKey, at: Mono) {
        self.stop(&key);
        self.order.insert((at, key.clone()));
        self.at.insert(key, at);
    }

    /// Disarms `key`.
    pub fn stop(&mut self, key: &TimerKey) {
        if let Some(at) = self.at.remove(key) {
            self.order.remove(&(at, key.clone()));
        }
    }

    /// When `key` goes off.
    #[must_use]
    pub fn armed(&self, key: &TimerKey) -> Option<Mono> {
        self.at.get(key).copied()
    }

    /// The next deadline, and why.
    #[must_use]
    pub fn next(&self) -> Option<(Mono, &TimerKey)> {
        self.order.first().map(|(at, key)| (*at, key))
    }

    /// Takes one deadline that is due.
    pub fn take_due(&mut self, now: Mono) -> Option<TimerKey> {
        let (at, _) = self.order.first()?;
        if *at > now {
            return None;
        }
        let (_, key) = self.order.pop_first()?;
        self.at.remove(&key);
        Some(key)
    }

    /// Deadlines armed.
    #[must_use]
    pub fn len(&self) -> usize {
        self.at.len()
    }

    /// Whether none is armed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.at.is_empty()
    }

    /// Every armed key.
    pub fn keys(&self) -> impl Iterator<Item = &TimerKey> {
        self.at.keys()
    }
}
