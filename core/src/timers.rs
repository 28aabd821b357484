//! Deadlines that say whom they wake and why. A key is armed at most once.

use alloc::collections::{BTreeMap, BTreeSet};
use minicbor::{Decode, Encode};

use crate::id::{ConnId, DeviceId, JobId, TaskId, Ticket, WireId};
use crate::time::Mono;

/// Whom a deadline wakes, and why.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub enum TimerKey {
    /// Ask this link for its state again.
    #[n(0)]
    Sync(#[n(0)] ConnId),
    /// This RPC has waited long enough.
    #[n(1)]
    Call(#[n(0)] Ticket),
    /// Look at this recording again.
    #[n(2)]
    Verify(#[n(0)] DeviceId, #[n(1)] WireId),
    /// Remove edge copies whose time has come.
    #[n(3)]
    Remove,
    /// Check the content of recordings that nobody checked yet.
    #[n(8)]
    Inspect,
    /// A job may be due, or the way may be tried again.
    #[n(4)]
    Queue,
    /// Ask the auto-scan policy.
    #[n(5)]
    Scan,
    /// This upload may go on: a repeated question, or its share of the bandwidth.
    #[n(6)]
    Upload(#[n(0)] JobId),
    /// An abandoned multipart upload is still to be given up.
    #[n(7)]
    Janitor(#[n(0)] JobId),
    /// A probation of policies is over, or what the host did not answer is to be asked again.
    #[n(9)]
    Policy,
    /// Nobody fought over this link for a long time.
    #[n(10)]
    Contest(#[n(0)] ConnId),
    /// This device's recorder was away for as long as it may.
    #[n(11)]
    Grace(#[n(0)] DeviceId),
    /// Nobody explained in time why a device does not do what this task's record says.
    #[n(12)]
    Settle(#[n(0)] TaskId),
    /// Ask this uploader what became of its recordings.
    #[n(13)]
    Uploader(#[n(0)] DeviceId),
    /// A recording is overdue.
    #[n(14)]
    Overdue,
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

    /// Every deadline that is due, in the order they would be taken.
    pub fn due(&self, now: Mono) -> impl Iterator<Item = &TimerKey> {
        self.order.iter().take_while(move |(at, _)| *at <= now).map(|(_, key)| key)
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
