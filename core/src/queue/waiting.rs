//! Jobs that wait, by the moment they are due. Volatile: a moment is monotonic, so a stepped wall clock moves none.

use alloc::collections::{BTreeMap, BTreeSet};

use crate::id::JobId;
use crate::time::Mono;

/// Jobs that wait, by the moment they are due.
#[derive(Debug, Default)]
pub(super) struct Waitlist {
    order: BTreeSet<(Mono, JobId)>,
    at: BTreeMap<JobId, Mono>,
}

impl Waitlist {
    /// Puts a job in, or moves it.
    pub(super) fn put(&mut self, job: JobId, due: Mono) {
        self.take(job);
        self.order.insert((due, job));
        self.at.insert(job, due);
    }

    /// Takes a job out.
    pub(super) fn take(&mut self, job: JobId) {
        if let Some(due) = self.at.remove(&job) {
            self.order.remove(&(due, job));
        }
    }

    /// When a job is due.
    pub(super) fn due(&self, job: JobId) -> Option<Mono> {
        self.at.get(&job).copied()
    }

    /// Due jobs, the one that waits longest first.
    pub(super) fn due_at(&self, now: Mono) -> impl Iterator<Item = JobId> {
        self.order.iter().take_while(move |(due, _)| *due <= now).map(|(_, job)| *job)
    }

    /// When the next job becomes due that is not due yet.
    pub(super) fn next_after(&self, now: Mono) -> Option<Mono> {
        let later = (Mono(now.0.saturating_add(1)), JobId(0));
        self.order.range(later..).next().map(|(due, _)| *due)
    }

    /// How many are due, and how many are not. Walks from both ends at once, because one of them is short: a
    /// backlog is due, and few wait for a retry.
    pub(super) fn split(&self, now: Mono) -> (usize, usize) {
        let (mut early, mut late) = (self.order.iter(), self.order.iter().rev());
        let all = self.order.len();
        for walked in 0.. {
            if early.next().is_none_or(|(due, _)| *due > now) {
                return (walked, all - walked);
            }
            if late.next().is_none_or(|(due, _)| *due <= now) {
                return (all - walked, walked);
            }
        }
        (0, all)
    }

    /// Jobs that wait.
    pub(super) fn jobs(&self) -> impl Iterator<Item = JobId> {
        self.at.keys().copied()
    }
}
