//! Questions to policies and their verdicts, in core vocabulary. Integers only.

use alloc::string::String;
use minicbor::{Decode, Encode};

use crate::id::{DeviceId, EpisodeId, JobId, PolicySetId};
use crate::outcome::Fault;

/// A hook that a policy may serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub enum Slot {
    /// [`crate::policy::Policies::select`]
    #[n(0)]
    AutoScan,
    /// [`crate::policy::Policies::retry`]
    #[n(1)]
    Retry,
    /// [`crate::policy::Policies::limits`]
    #[n(2)]
    Concurrency,
    /// [`crate::policy::Policies::budget`]
    #[n(3)]
    Bandwidth,
    /// [`crate::policy::Policies::score`]
    #[n(4)]
    Order,
}

impl Slot {
    /// The word in configuration, API and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Slot::AutoScan => "auto-scan",
            Slot::Retry => "retry",
            Slot::Concurrency => "concurrency",
            Slot::Bandwidth => "bandwidth",
            Slot::Order => "order",
        }
    }
}

/// A verdict and who gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ruling<T> {
    /// The verdict, not yet clamped.
    pub verdict: T,
    /// Who gave it.
    pub by: Author,
}

/// Who gave a verdict.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Author {
    /// The active set.
    #[n(0)]
    Set(#[n(0)] PolicySetId),
    /// The built-in reference, because the active set could not.
    #[n(1)]
    Builtin {
        /// The set that should have answered.
        #[n(0)]
        instead_of: PolicySetId,
        /// What went wrong.
        #[n(1)]
        why: PolicyFault,
    },
}

impl Author {
    /// The set whose turn it was.
    #[must_use]
    pub fn set(&self) -> PolicySetId {
        match self {
            Author::Set(set) => *set,
            Author::Builtin { instead_of, .. } => *instead_of,
        }
    }
}

/// What went wrong inside a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum PolicyFault {
    /// It trapped.
    #[n(0)]
    Trap,
    /// It ran out of its budget of instructions or memory.
    #[n(1)]
    Exhausted,
    /// Its answer has the wrong shape.
    #[n(2)]
    Shape,
    /// The set is not loaded.
    #[n(3)]
    Missing,
}

/// One verdict as the journal keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Ruled {
    /// The question.
    #[n(0)]
    pub slot: Slot,
    /// Who answered.
    #[n(1)]
    pub by: Author,
    /// The verdict after clamping, as a short text for people.
    #[n(2)]
    pub verdict: String,
}

/// The site as policies see it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Situation {
    /// Wall time, milliseconds since 1970.
    pub wall_ms: i64,
    /// Jobs that wait and are due.
    pub due: u32,
    /// Jobs that wait for a later time.
    pub waiting: u32,
    /// Jobs being uploaded.
    pub uploading: u32,
    /// Jobs parked.
    pub parked: u32,
    /// Devices that record right now.
    pub recording: u32,
    /// Failures of the way in a row, 0 when it works.
    pub streak: u32,
}

/// An approved episode without a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The episode.
    pub episode: EpisodeId,
    /// Whose recording.
    pub device: DeviceId,
    /// Bytes.
    pub len: u64,
    /// Milliseconds since it was approved.
    pub approved_ago_ms: u64,
}

/// What to do with a candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// Queue it.
    Enqueue,
    /// Ask again at the next scan.
    Later,
}

/// An attempt that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryQuery {
    /// The job.
    pub job: JobId,
    /// Why it failed.
    pub fault: Fault,
    /// Attempts spent, this one included.
    pub spent: u32,
    /// Bytes of the object.
    pub len: u64,
    /// A seed of this question alone, for jitter.
    pub seed: u64,
}

/// What to do after a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryVerdict {
    /// Try again.
    After {
        /// Milliseconds from now.
        delay_ms: u64,
    },
    /// Wait for an operator.
    Park,
    /// Give up.
    GiveUp(GiveUp),
}

/// Why a policy gives up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GiveUp {
    /// Attempts used up.
    Exhausted,
    /// This fault never passes.
    Hopeless,
}

/// How many uploads at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UploadLimits {
    /// Uploads at once.
    pub uploads: u32,
}

/// How fast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bandwidth {
    /// Bytes per second over all uploads; `None` is no limit.
    pub bytes_per_second: Option<u64>,
}

/// A job that is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// The job.
    pub job: JobId,
    /// Whose recording.
    pub device: DeviceId,
    /// Bytes.
    pub len: u64,
    /// Attempts spent.
    pub spent: u32,
    /// Milliseconds since it was queued.
    pub queued_ago_ms: u64,
    /// Milliseconds since the episode was approved.
    pub approved_ago_ms: u64,
}
