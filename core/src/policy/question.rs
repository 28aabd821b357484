//! Questions to policies and their verdicts. Integers and texts only, the same as in `policies/wit/policy.wit`: this file
//! and `builtin.rs` are also compiled into the default guest, so it uses nothing but the language and `alloc`.

use alloc::string::String;
use alloc::vec::Vec;

/// How the site reaches the cloud.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LinkKind {
    /// Nobody said.
    #[default]
    Unknown,
    /// There is no way out.
    None,
    /// A cable.
    Ethernet,
    /// A wireless network.
    Wifi,
    /// A mobile network.
    Cellular,
    /// A satellite.
    Satellite,
    /// Something else.
    Other,
}

/// A yes or no that nobody may have told us.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Known {
    /// Nobody said.
    #[default]
    Unknown,
    /// No.
    No,
    /// Yes.
    Yes,
}

/// What the site runs on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Power {
    /// Nobody said.
    #[default]
    Unknown,
    /// The mains.
    Mains,
    /// A battery.
    Battery,
    /// A battery that is nearly empty.
    BatteryLow,
}

/// [`Situation::disk_free`] when nobody measured it.
pub const DISK_UNKNOWN: u16 = 1001;

/// The site as policies see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Situation {
    /// How the site reaches the cloud.
    pub link: LinkKind,
    /// Whether bytes cost money.
    pub metered: Known,
    /// What the site runs on.
    pub power: Power,
    /// Local time: Monday 00:00 is 0.
    pub minute_of_week: u16,
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
    /// Bytes per second that the store acknowledged in the last minute.
    pub goodput: u64,
    /// Free space of the disk in thousandths; [`DISK_UNKNOWN`] if nobody measured it.
    pub disk_free: u16,
    /// What this policy returned last time under this hook, 0 at first. Concurrency and bandwidth only.
    pub memo: u64,
    /// A seed of this question alone.
    pub seed: u64,
}

impl Default for Situation {
    fn default() -> Self {
        Situation {
            link: LinkKind::Unknown,
            metered: Known::Unknown,
            power: Power::Unknown,
            minute_of_week: 0,
            due: 0,
            waiting: 0,
            uploading: 0,
            parked: 0,
            recording: 0,
            streak: 0,
            goodput: 0,
            disk_free: DISK_UNKNOWN,
            memo: 0,
            seed: 0,
        }
    }
}

/// An approved episode without a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The episode.
    pub episode: u64,
    /// Whose recording.
    pub device: String,
    /// Bytes.
    pub size: u64,
    /// Milliseconds since it was approved.
    pub age_ms: u64,
    /// Jobs that already failed for it.
    pub tries: u32,
    /// Labels of its device, from the configuration.
    pub labels: Vec<(String, String)>,
}

/// What to do with a candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// Queue it.
    Enqueue,
    /// Ask again at the next scan.
    Later,
    /// Do not ask again for a day, or until policies or settings change.
    Skip,
}

/// A choice and its reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// What to do.
    pub choice: Choice,
    /// Why: an index into the author's words, 0 is unspecified.
    pub reason: u16,
}

/// What an error is like. Others cost no attempt and are not asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorClass {
    /// Something is not there any more.
    Vanished,
    /// Something is not what it must be.
    Damaged,
    /// The store refused the request as it is.
    Rejected,
    /// Anything else.
    Other,
}

/// What an error concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// The object.
    Object,
    /// The multipart upload.
    Upload,
    /// A part.
    Part,
    /// The bytes at the edge.
    Source,
}

/// An attempt that failed at the cost of its job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryQuery {
    /// The job.
    pub job: u64,
    /// Attempts spent, this one included.
    pub spent: u32,
    /// What the error is like.
    pub class: ErrorClass,
    /// What it concerns.
    pub subject: Subject,
    /// The store's own code for a rejection, else the site's word for the error.
    pub code: String,
    /// Milliseconds since the job was first claimed.
    pub elapsed_ms: u64,
    /// The delay before this attempt in milliseconds, 0 if there was none.
    pub last_delay_ms: u64,
    /// Bytes of the object.
    pub size: u64,
    /// Bytes the store acknowledged over all attempts.
    pub sent: u64,
    /// How the site reaches the cloud.
    pub link: LinkKind,
    /// Whether bytes cost money.
    pub metered: Known,
    /// What this policy returned after the job's last failure, 0 at first.
    pub memo: u64,
    /// A seed of this question alone, for jitter.
    pub seed: u64,
}

/// What to do after a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryAction {
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

/// A retry verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryVerdict {
    /// What to do.
    pub action: RetryAction,
    /// Comes back with the job's next failure.
    pub memo: u64,
    /// Why.
    pub reason: u16,
}

/// How many uploads at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UploadLimits {
    /// Uploads at once.
    pub uploads: u32,
    /// Ask again after so many milliseconds while jobs wait; 0 is the default.
    pub recheck_ms: u64,
    /// Comes back with the next question.
    pub memo: u64,
    /// Why.
    pub reason: u16,
}

/// How fast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bandwidth {
    /// Bytes per second over all uploads; `None` is no limit.
    pub bytes_per_second: Option<u64>,
    /// Ask again after so many milliseconds; 0 is the default.
    pub recheck_ms: u64,
    /// Comes back with the next question.
    pub memo: u64,
    /// Why.
    pub reason: u16,
}

/// A job that is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// The job.
    pub job: u64,
    /// Whose recording.
    pub device: String,
    /// Bytes.
    pub size: u64,
    /// Attempts spent.
    pub spent: u32,
    /// Milliseconds since it was queued.
    pub queued_ms: u64,
    /// Milliseconds since the episode was approved.
    pub age_ms: u64,
    /// Labels of its device, from the configuration.
    pub labels: Vec<(String, String)>,
}

/// Scores, one per job; the highest goes first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ordering {
    /// One per job, in order.
    pub scores: Vec<i64>,
    /// Why.
    pub reason: u16,
}
