//! The record of a sync job: the duty to carry one episode to the cloud.

use alloc::string::String;
use minicbor::{Decode, Encode};

use crate::id::{DeviceId, EpisodeId, Fence, JobId, ObjectKey, PolicySetId};
use crate::outcome::Fault;
use crate::policy::Memo;
use crate::row::Source;
use crate::time::Wall;

/// Where a job stands.
///
/// ```text
/// Pending ─► Claimed ─► Completed
///  ▲  ▲ ▲      │ │ └──► Failed ─► (a retry is a new job: docs/decisions/0011)
///  │  │ └──────┘ ▼
///  │  └─────► Parked        Claimed ─► Claimed with a newer boot, after a crash
///
/// Pending, Parked ─► Failed(cancelled), once an operator can cancel a job
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum JobState {
    /// Waits for its turn, not before `due`.
    #[n(0)]
    Pending {
        /// Earliest time.
        #[n(0)]
        due: Wall,
        /// Why it waits.
        #[n(1)]
        cause: Cause,
    },
    /// Being uploaded by the holder of the fence.
    #[n(1)]
    Claimed {
        /// The claim.
        #[n(0)]
        fence: Fence,
        /// Since when, in this claim.
        #[n(1)]
        since: Wall,
    },
    /// Waits for an operator.
    #[n(2)]
    Parked {
        /// For what.
        #[n(0)]
        why: ParkWhy,
        /// Since when.
        #[n(1)]
        since: Wall,
    },
    /// The object is in the cloud, verified.
    #[n(3)]
    Completed {
        /// When.
        #[n(0)]
        at: Wall,
    },
    /// Gave up.
    #[n(4)]
    Failed {
        /// Why.
        #[n(0)]
        why: FinalWhy,
        /// When.
        #[n(1)]
        at: Wall,
    },
}

impl JobState {
    /// Whether nothing changes it any more.
    #[must_use]
    pub fn is_final(&self) -> bool {
        matches!(self, JobState::Completed { .. } | JobState::Failed { .. })
    }
}

/// Why a job waits.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Cause {
    /// It is new.
    #[n(0)]
    Queued,
    /// An attempt failed.
    #[n(1)]
    Retry(#[n(0)] Fault),
    /// The way is down; no attempt was spent.
    #[n(2)]
    Destination(#[n(0)] Fault),
    /// An operator asked for it now.
    #[n(3)]
    Asked,
    /// Put back by the site itself: unparked, or stopped in an orderly way.
    #[n(4)]
    Returned,
    /// A policy parked it, and another one rules failed attempts now.
    #[n(5)]
    Policy,
    /// The site's own disk failed; no attempt was spent.
    #[n(6)]
    Disk(#[n(0)] Fault),
}

/// Why a job is parked.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum ParkWhy {
    /// No cloud is configured.
    #[n(0)]
    NoDestination,
    /// The fault wants an operator.
    #[n(1)]
    Fault(#[n(0)] Fault),
    /// A policy parked it.
    #[n(2)]
    Policy,
    /// Going on with it made the core panic too often; how it panicked.
    #[n(3)]
    Quarantined(#[n(0)] String),
}

impl ParkWhy {
    /// A short stable word.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            ParkWhy::NoDestination => "no_destination",
            ParkWhy::Fault(fault) => fault.code(),
            ParkWhy::Policy => "policy",
            ParkWhy::Quarantined(_) => "quarantined",
        }
    }
}

/// Why a job gave up.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum FinalWhy {
    /// Attempts used up; the last fault.
    #[n(0)]
    Exhausted(#[n(0)] Fault),
    /// A policy gave up at this fault.
    #[n(1)]
    GivenUp(#[n(0)] Fault),
    /// Another object stands at its key.
    #[n(2)]
    Foreign,
    /// An operator cancelled it.
    #[n(3)]
    Cancelled,
    /// Attempts used up, and at the last one the recording at the edge was not what was verified.
    #[n(4)]
    SourceLost(#[n(0)] Fault),
}

impl FinalWhy {
    /// A short stable word.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            FinalWhy::Exhausted(_) => "attempts_exhausted",
            FinalWhy::GivenUp(_) => "given_up",
            FinalWhy::Foreign => "foreign_object",
            FinalWhy::Cancelled => "cancelled",
            FinalWhy::SourceLost(_) => "source_lost",
        }
    }
}

/// A sync job.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct JobRow {
    /// Number.
    #[n(0)]
    pub id: JobId,
    /// What it carries.
    #[n(1)]
    pub episode: EpisodeId,
    /// Whose recording.
    #[n(2)]
    pub device: DeviceId,
    /// Where it stands.
    #[n(3)]
    pub state: JobState,
    /// Claims so far: the attempt of the next fence is one more.
    #[n(4)]
    pub claims: u32,
    /// Attempts that counted against its budget.
    #[n(5)]
    pub spent: u32,
    /// What to send.
    #[n(6)]
    pub source: Source,
    /// Where to in the cloud, fixed when it was queued.
    #[n(7)]
    pub key: ObjectKey,
    /// When it was queued.
    #[n(8)]
    pub queued_at: Wall,
    /// When the episode was approved, for the order of jobs.
    #[n(9)]
    pub approved_at: Wall,
    /// The last fault, kept through retries.
    #[n(10)]
    pub last_fault: Option<Fault>,
    /// When the last attempt ended.
    #[n(11)]
    pub last_ended_at: Option<Wall>,
    /// Which policies decided last.
    #[n(12)]
    pub ruled_by: Option<PolicySetId>,
    /// Bytes the store acknowledged over all attempts, including parts sent again.
    #[n(13)]
    pub bytes_sent: u64,
    /// When the first claim was made.
    #[n(14)]
    pub first_claimed_at: Option<Wall>,
    /// A note in words for people, for instance why an upload was begun again.
    #[n(15)]
    pub note: Option<String>,
    /// What the retry policy noted at its last failure.
    #[n(16)]
    pub memo: Option<Memo>,
    /// Milliseconds that the retry policy last let it wait; `None` if none did since it was queued or asked for.
    #[n(17)]
    pub retry_delay_ms: Option<u64>,
}
