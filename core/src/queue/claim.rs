//! Which due jobs go next: pure choice among those shown. Claims nothing.

use alloc::vec::Vec;

use crate::id::JobId;
use crate::policy::Waiting;

/// A due job and whether it waited so long that no score may hold it back.
#[derive(Clone, Debug)]
pub(super) struct Due {
    /// As policies see it.
    pub(super) shown: Waiting,
    /// It waited longer than `limits::WAIT_MAX`.
    pub(super) overdue: bool,
}

/// The built-in order: by approval, the oldest first.
pub(super) fn built_in(due: &[Due]) -> Vec<i64> {
    due.iter().map(|d| i64::try_from(d.shown.age_ms).unwrap_or(i64::MAX)).collect()
}

/// The best `free` jobs: overdue ones first, then by score, ties by number.
pub(super) fn choose(due: &[Due], scores: &[i64], free: usize) -> Vec<JobId> {
    assert_eq!(due.len(), scores.len(), "an order has one score per job");
    let mut ranked: Vec<_> = due
        .iter()
        .zip(scores)
        .map(|(d, score)| {
            // Among overdue jobs a score has no say: longest in the queue first.
            let score = if d.overdue { i64::MAX } else { *score };
            (!d.overdue, core::cmp::Reverse(score), JobId(d.shown.job))
        })
        .collect();
    ranked.sort_unstable();
    ranked.into_iter().take(free).map(|(_, _, job)| job).collect()
}
