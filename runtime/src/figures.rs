//! Figures of the driver for metrics: written after each batch, read at any time. Nothing is decided by them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tidegate_core::machine::Stats;

use crate::policies::Clamps;

/// Upper bounds of the buckets of [`Figures::commit_buckets`], in nanoseconds: from a fast disk's flush to a stall
/// that somebody should look into.
pub const COMMIT_BUCKETS_NS: [u64; 8] =
    [500_000, 1_000_000, 2_500_000, 5_000_000, 10_000_000, 50_000_000, 250_000_000, 1_000_000_000];

/// Figures since the boot.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// Counters of the core.
    pub machine: Stats,
    /// Number of the boot.
    pub boot: u64,
    /// Letters taken.
    pub letters: u64,
    /// Batches stepped.
    pub batches: u64,
    /// Steps of the largest batch.
    pub batch_largest: u64,
    /// Commits.
    pub commits: u64,
    /// Time spent in commits, nanoseconds.
    pub commit_ns: u64,
    /// The slowest commit, nanoseconds.
    pub commit_slowest_ns: u64,
    /// Commits no slower than each of [`COMMIT_BUCKETS_NS`] and slower than the one before; the last place is slower
    /// than all.
    pub commit_buckets: [u64; COMMIT_BUCKETS_NS.len() + 1],
    /// Bytes of the journal's entries.
    pub journal_bytes: u64,
    /// Number of the next journal entry.
    pub journal_next: u64,
    /// Frames that were not sent because their secret was lost.
    pub frames_dropped: u64,
    /// Links closed because they did not take what was sent.
    pub links_stuck: u64,
    /// Links with a mailbox.
    pub links: u64,
    /// Links that there are descriptors for.
    pub links_capacity: u64,
    /// Connections that could not be accepted, by what was in the way.
    pub accept_errors: BTreeMap<&'static str, u64>,
    /// Object operations handed to the stores.
    pub object_operations: u64,
    /// How often the core did otherwise than the active set said.
    pub clamps: Clamps,
    /// Decisions that were too large to be recorded.
    pub unrecorded: u64,
    /// Inputs that are quarantined, by their crashes before this boot.
    pub quarantined: u64,
    /// Tasks of whose recordings people were told that they do not come.
    pub overdue: u64,
}

/// Shares the figures. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Gauge(Arc<Mutex<Figures>>);

impl Gauge {
    /// The figures now.
    #[must_use]
    pub fn read(&self) -> Figures {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn update(&self, change: impl FnOnce(&mut Figures)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Figures {
    pub(crate) fn count_commit(&mut self, ns: u64) {
        self.commits += 1;
        self.commit_ns += ns;
        self.commit_slowest_ns = self.commit_slowest_ns.max(ns);
        let place =
            COMMIT_BUCKETS_NS.iter().position(|bound| ns <= *bound).unwrap_or(COMMIT_BUCKETS_NS.len());
        self.commit_buckets[place] += 1;
    }
}
