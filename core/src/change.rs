//! Everything that can become durable. State changes only by applying one of these, in life and in replay.

mod policy;
mod roster;

pub use policy::PolicyChange;
pub use roster::RosterChange;

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use minicbor::{Decode, Encode};

use crate::digest::Sha256;
use crate::id::{
    Boot, DeviceId, ETag, EpisodeId, Fence, JobId, ObjectKey, PartNo, PolicySetId, Seq, TaskId, UploadId,
    WireId,
};
use crate::input::Input;
use crate::object::PartFacts;
use crate::outcome::Fault;
use crate::policy::{Memo, Ruled};
use crate::row::{
    Cause, EpisodeRow, FinalWhy, Inspection, JobRow, Key, ParkWhy, Qa, RecordingFacts, Row, UploadRow,
};
use crate::time::{Now, Wall};

/// Everything that can become durable.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Change {
    /// Of a task.
    #[n(0)]
    Task(#[n(0)] TaskChange),
    /// Of an episode or of a key's owner.
    #[n(1)]
    Episode(#[n(0)] EpisodeChange),
    /// Of a job.
    #[n(2)]
    Job(#[n(0)] JobChange),
    /// Of an upload session.
    #[n(3)]
    Upload(#[n(0)] UploadChange),
    /// Of modules and of the set of policies.
    #[n(4)]
    Policy(#[n(0)] PolicyChange),
    /// Of registered devices and tokens.
    #[n(5)]
    Roster(#[n(0)] RosterChange),
}

/// What moved a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum TaskCause {
    /// The answer to a command.
    #[n(0)]
    Answer,
    /// The recorder's report.
    #[n(1)]
    Report,
    /// `config_applied`
    #[n(2)]
    ConfigApplied,
    /// A callback.
    #[n(3)]
    Callback,
    /// What the uploader names, or the store has: its recording has ended.
    #[n(4)]
    Transfer,
    /// An operator.
    #[n(5)]
    Operator,
    /// Its recording was verified.
    #[n(6)]
    Verified,
    /// Its recorder stayed away for the whole grace.
    #[n(7)]
    Absent,
    /// A person settled a conflict between its device and the records.
    #[n(8)]
    Resolved,
}

/// A change of a task. `at` is when.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[expect(missing_docs, reason = "fields are those of TaskRow")]
pub enum TaskChange {
    /// → pending
    #[n(0)]
    Created {
        #[n(0)]
        task: TaskId,
        #[n(1)]
        device: DeviceId,
        #[n(2)]
        config: Option<String>,
        #[n(3)]
        at: Wall,
    },
    /// `config` is about to be sent; the digest of its `user_token`.
    #[n(1)]
    ConfigSent {
        #[n(0)]
        task: TaskId,
        #[n(1)]
        token_sha256: Option<Sha256>,
        #[n(2)]
        at: Wall,
    },
    /// pending → ready
    #[n(2)]
    Readied {
        #[n(0)]
        task: TaskId,
        #[n(1)]
        cause: TaskCause,
        #[n(2)]
        at: Wall,
    },
    /// `begin` is about to be sent: this wire id is never begun again.
    #[n(3)]
    BeginSent {
        #[n(0)]
        task: TaskId,
        #[n(1)]
        at: Wall,
    },
    /// pending, ready → in_progress
    #[n(4)]
    Started {
        #[n(0)]
        task: TaskId,
        #[n(1)]
        cause: TaskCause,
        #[n(2)]
        at: Wall,
    },
    /// pending, ready, in_progress → uploading
    #[n(5)]
    Finished {
        #[n(0)]
        task: TaskId,
        #[n(1)]
        cause: TaskCause,
        #[n(2)]
        facts: Option<RecordingFacts>,
        #[n(3)]
        at: Wall,
        /// Whether the row says since when it waits for its recording. Rows of before format 4 do not.
        #[n(4)]
        #[cbor(default)]
        timed: bool,
    },
    /// any state that is not final → completed
    #[n(6)]
    Completed {
        #[n(0)]
        task: TaskId,
        #[n(1)]
        at: Wall,
        #[n(2)]
        episode: Option<EpisodeId>,
    },
    /// in_progress, uploading → failed
    #[n(7)]
    Failed {
        #[n(0)]
        task: TaskId,
        #[n(1)]
        reason: String,
        #[n(2)]
        at: Wall,
    },
    /// ready, in_progress → pending; a new attempt under a new wire id if `begin` was ever sent. Then also from
    /// pending, and the attempt before is remembered: it is owed unless an answer said that there is no recording.
    #[n(8)]
    Returned {
        #[n(0)]
        task: TaskId,
        #[n(1)]
        attempt: u32,
        #[n(2)]
        wire: WireId,
        #[n(3)]
        cause: TaskCause,
        #[n(4)]
        at: Wall,
        /// Whether the row remembers the attempt that is left. Rows of before format 4 do not.
        #[n(5)]
        #[cbor(default)]
        remembered: bool,
    },
    /// pending, ready, in_progress → cancelled
    #[n(9)]
    Cancelled {
        #[n(0)]
        task: TaskId,
        #[n(1)]
        at: Wall,
    },
    /// The text of its trouble changed, or its recorder told of a recording whose end was known already; its state did not
    /// change.
    #[n(10)]
    Noted {
        #[n(0)]
        task: TaskId,
        #[n(1)]
        error: Option<String>,
        #[n(2)]
        at: Wall,
        /// What the finish callback said, if that is the news.
        #[n(3)]
        facts: Option<RecordingFacts>,
    },
    /// pending, ready → in_progress: the device still records an earlier attempt, and the current one was never begun.
    #[n(11)]
    Resumed {
        #[n(0)]
        task: TaskId,
        #[n(1)]
        attempt: u32,
        #[n(2)]
        wire: WireId,
        #[n(3)]
        cause: TaskCause,
        #[n(4)]
        at: Wall,
    },
    /// Whether the recording of an attempt that was given up is still to be asked for. The state does not move.
    #[n(12)]
    Owed {
        #[n(0)]
        task: TaskId,
        #[n(1)]
        attempt: u32,
        #[n(2)]
        owed: bool,
        #[n(3)]
        asked: u8,
        #[n(4)]
        at: Wall,
    },
}

/// A change of an episode or of a key's owner.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[expect(missing_docs, reason = "fields are those of EpisodeRow and BindingRow")]
pub enum EpisodeChange {
    /// A key at the edge now belongs to this attempt; or it does already, and something else was said of what is there.
    #[n(0)]
    Bound {
        #[n(0)]
        key: ObjectKey,
        #[n(1)]
        task: TaskId,
        #[n(2)]
        wire: WireId,
        #[n(3)]
        len: Option<u64>,
        #[n(4)]
        sha256: Option<Sha256>,
    },
    /// A recording was verified: it is an episode, and its key names it.
    #[n(1)]
    Recorded(#[n(0)] Box<EpisodeRow>),
    /// Approved, rejected, or put aside for a person.
    #[n(2)]
    Judged {
        #[n(0)]
        episode: EpisodeId,
        #[n(1)]
        qa: Qa,
        #[n(2)]
        reason: Option<String>,
        #[n(3)]
        at: Wall,
    },
    /// A job works on it.
    #[n(3)]
    Queued {
        #[n(0)]
        episode: EpisodeId,
        #[n(1)]
        job: JobId,
    },
    /// It is in the cloud, verified.
    #[n(4)]
    Synced {
        #[n(0)]
        episode: EpisodeId,
        #[n(1)]
        job: JobId,
        #[n(2)]
        key: ObjectKey,
        #[n(3)]
        at: Wall,
    },
    /// Its job gave up.
    #[n(5)]
    SyncFailed {
        #[n(0)]
        episode: EpisodeId,
        #[n(1)]
        job: JobId,
        #[n(2)]
        tries: Option<u32>,
    },
    /// The copy at the edge is gone.
    #[n(6)]
    Removed {
        #[n(0)]
        episode: EpisodeId,
        #[n(1)]
        at: Wall,
    },
    /// Its content was checked. Once.
    #[n(7)]
    Inspected {
        #[n(0)]
        episode: EpisodeId,
        #[n(1)]
        inspection: Box<Inspection>,
    },
}

/// A change of a job.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[expect(missing_docs, reason = "fields are those of JobRow and JobState")]
pub enum JobChange {
    /// It is there, pending or parked.
    #[n(0)]
    Queued(#[n(0)] Box<JobRow>),
    /// Pending → Claimed
    #[n(1)]
    Claimed {
        #[n(0)]
        fence: Fence,
        #[n(1)]
        at: Wall,
        #[n(2)]
        ruled_by: PolicySetId,
    },
    /// Claimed → Claimed with a newer boot, after a crash. Costs no attempt.
    #[n(2)]
    Reclaimed {
        #[n(0)]
        fence: Fence,
        #[n(1)]
        at: Wall,
    },
    /// Claimed, Parked, Pending → Pending. `spent` is the new count.
    #[n(3)]
    Returned {
        #[n(0)]
        job: JobId,
        #[n(1)]
        due: Wall,
        #[n(2)]
        cause: Cause,
        #[n(3)]
        spent: u32,
        #[n(4)]
        at: Wall,
        #[n(5)]
        ruled_by: Option<PolicySetId>,
        #[n(6)]
        memo: Option<Memo>,
    },
    /// Claimed, Pending → Parked
    #[n(4)]
    Parked {
        #[n(0)]
        job: JobId,
        #[n(1)]
        why: ParkWhy,
        #[n(2)]
        spent: u32,
        #[n(3)]
        at: Wall,
        #[n(4)]
        fault: Option<Fault>,
        #[n(5)]
        ruled_by: Option<PolicySetId>,
        #[n(6)]
        memo: Option<Memo>,
    },
    /// Claimed → Completed
    #[n(5)]
    Completed {
        #[n(0)]
        fence: Fence,
        #[n(1)]
        at: Wall,
    },
    /// Claimed → Failed (Pending, Parked → Failed by a cancel)
    #[n(6)]
    Failed {
        #[n(0)]
        job: JobId,
        #[n(1)]
        why: FinalWhy,
        #[n(2)]
        spent: u32,
        #[n(3)]
        at: Wall,
        #[n(4)]
        ruled_by: Option<PolicySetId>,
    },
    /// Bytes were acknowledged by the store.
    #[n(7)]
    Sent {
        #[n(0)]
        job: JobId,
        #[n(1)]
        bytes: u64,
    },
    /// A note for people.
    #[n(8)]
    Noted {
        #[n(0)]
        job: JobId,
        #[n(1)]
        note: String,
    },
}

/// A change of an upload session.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[expect(missing_docs, reason = "fields are those of UploadRow and Phase")]
pub enum UploadChange {
    /// It is there, in phase Planned.
    #[n(0)]
    Planned(#[n(0)] Box<UploadRow>),
    /// Another claim works on it.
    #[n(1)]
    Refenced {
        #[n(0)]
        fence: Fence,
    },
    /// The sidecar is in the cloud.
    #[n(2)]
    SidecarStored {
        #[n(0)]
        job: JobId,
    },
    /// `Create` is about to be asked: from now on one may be open that we do not know.
    #[n(3)]
    Creating {
        #[n(0)]
        job: JobId,
    },
    /// Planned → Open. `stray`: an earlier `Create` may still come through, so look again before the end.
    #[n(4)]
    Opened {
        #[n(0)]
        job: JobId,
        #[n(1)]
        upload: UploadId,
        #[n(2)]
        stray: bool,
    },
    /// A part is in the cloud.
    #[n(5)]
    PartStored {
        #[n(0)]
        job: JobId,
        #[n(1)]
        part: PartNo,
        #[n(2)]
        facts: PartFacts,
    },
    /// A part we counted is not there (any more). Sealing → Open
    #[n(6)]
    PartLost {
        #[n(0)]
        job: JobId,
        #[n(1)]
        part: PartNo,
    },
    /// Open → Sealing
    #[n(7)]
    Sealing {
        #[n(0)]
        job: JobId,
    },
    /// Planned, Open, Sealing → Sealed
    #[n(8)]
    Sealed {
        #[n(0)]
        job: JobId,
        #[n(1)]
        etag: ETag,
    },
    /// Open, Sealing, Sealed → Planned, without parts: the store lost it.
    #[n(9)]
    Restarted {
        #[n(0)]
        job: JobId,
    },
    /// any phase → Abandoning: over, but something may be left behind in the store.
    #[n(10)]
    Abandoning {
        #[n(0)]
        job: JobId,
    },
    /// Nothing of it is left; its rows go.
    #[n(11)]
    Ended {
        #[n(0)]
        job: JobId,
    },
    /// The source was not what was verified while parts were sent: no part counts any more. Open → Open
    #[n(12)]
    Distrusted {
        #[n(0)]
        job: JobId,
    },
}

impl Change {
    /// A short stable word for logs and coverage.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Change::Task(change) => match change {
                TaskChange::Created { .. } => "task.created",
                TaskChange::ConfigSent { .. } => "task.config_sent",
                TaskChange::Readied { .. } => "task.readied",
                TaskChange::BeginSent { .. } => "task.begin_sent",
                TaskChange::Started { .. } => "task.started",
                TaskChange::Finished { .. } => "task.finished",
                TaskChange::Completed { .. } => "task.completed",
                TaskChange::Failed { .. } => "task.failed",
                TaskChange::Returned { .. } => "task.returned",
                TaskChange::Cancelled { .. } => "task.cancelled",
                TaskChange::Noted { .. } => "task.noted",
                TaskChange::Resumed { .. } => "task.resumed",
                TaskChange::Owed { .. } => "task.owed",
            },
            Change::Episode(change) => match change {
                EpisodeChange::Bound { .. } => "episode.bound",
                EpisodeChange::Recorded(_) => "episode.recorded",
                EpisodeChange::Judged { .. } => "episode.judged",
                EpisodeChange::Queued { .. } => "episode.queued",
                EpisodeChange::Synced { .. } => "episode.synced",
                EpisodeChange::SyncFailed { .. } => "episode.sync_failed",
                EpisodeChange::Removed { .. } => "episode.removed",
                EpisodeChange::Inspected { .. } => "episode.inspected",
            },
            Change::Job(change) => match change {
                JobChange::Queued(_) => "job.queued",
                JobChange::Claimed { .. } => "job.claimed",
                JobChange::Reclaimed { .. } => "job.reclaimed",
                JobChange::Returned { .. } => "job.returned",
                JobChange::Parked { .. } => "job.parked",
                JobChange::Completed { .. } => "job.completed",
                JobChange::Failed { .. } => "job.failed",
                JobChange::Sent { .. } => "job.sent",
                JobChange::Noted { .. } => "job.noted",
            },
            Change::Upload(change) => match change {
                UploadChange::Planned(_) => "upload.planned",
                UploadChange::Refenced { .. } => "upload.refenced",
                UploadChange::SidecarStored { .. } => "upload.sidecar_stored",
                UploadChange::Creating { .. } => "upload.creating",
                UploadChange::Opened { .. } => "upload.opened",
                UploadChange::PartStored { .. } => "upload.part_stored",
                UploadChange::PartLost { .. } => "upload.part_lost",
                UploadChange::Sealing { .. } => "upload.sealing",
                UploadChange::Sealed { .. } => "upload.sealed",
                UploadChange::Restarted { .. } => "upload.restarted",
                UploadChange::Abandoning { .. } => "upload.abandoning",
                UploadChange::Ended { .. } => "upload.ended",
                UploadChange::Distrusted { .. } => "upload.distrusted",
            },
            Change::Policy(change) => match change {
                PolicyChange::Staged { .. } => "policy.staged",
                PolicyChange::Admitted { .. } => "policy.admitted",
                PolicyChange::Rejected { .. } => "policy.rejected",
                PolicyChange::Activated { .. } => "policy.activated",
                PolicyChange::Probed { .. } => "policy.probed",
                PolicyChange::Faulted(_) => "policy.faulted",
                PolicyChange::Reverted { .. } => "policy.reverted",
                PolicyChange::Quarantined { .. } => "policy.quarantined",
                PolicyChange::Released { .. } => "policy.released",
                PolicyChange::Shadowed(_) => "policy.shadowed",
                PolicyChange::ShadowEnded => "policy.shadow_ended",
                PolicyChange::Retired { .. } => "policy.retired",
            },
            Change::Roster(change) => change.name(),
        }
    }
}

impl Change {
    /// The existing records that it alters or consults: with these (and [`Key::Meta`]) in memory it can be applied.
    /// A change of an upload session consults the parts of the same job as well.
    #[must_use]
    pub fn keys(&self) -> Vec<Key> {
        match self {
            Change::Task(change) => vec![Key::Task(crate::task::task_of(change).clone())],
            Change::Episode(change) => match change {
                EpisodeChange::Bound { key, .. } => vec![Key::Binding(key.clone())],
                EpisodeChange::Recorded(row) => vec![Key::Binding(row.key.clone())],
                EpisodeChange::Judged { episode, .. }
                | EpisodeChange::Queued { episode, .. }
                | EpisodeChange::Synced { episode, .. }
                | EpisodeChange::SyncFailed { episode, .. }
                | EpisodeChange::Removed { episode, .. }
                | EpisodeChange::Inspected { episode, .. } => vec![Key::Episode(*episode)],
            },
            Change::Job(change) => vec![Key::Job(crate::queue::job_of(change))],
            Change::Upload(change) => vec![Key::Upload(crate::upload::job_of(change))],
            Change::Policy(change) => change.touches(),
            Change::Roster(change) => change.touches(),
        }
    }
}

/// One step, as the journal keeps it: enough to repeat it with nothing else, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct JournalEntry {
    /// Its place.
    #[n(0)]
    pub seq: Seq,
    /// Both clocks.
    #[n(1)]
    pub now: Now,
    /// The boot it happened in.
    #[n(2)]
    pub boot: Boot,
    /// What happened.
    #[n(3)]
    pub input: Input,
    /// Which policies were asked.
    #[n(4)]
    pub policies: PolicySetId,
    /// What they ruled.
    #[n(5)]
    pub rulings: Vec<Ruled>,
    /// Records that were not in memory and were consulted; `None` was not there.
    #[n(6)]
    pub cold: Vec<(Key, Option<Row>)>,
    /// What became durable.
    #[n(7)]
    pub changes: Vec<Change>,
}

/// Why an attempt ended, in the words of an upload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UploadEnd {
    /// The object is in the cloud, verified.
    Done {
        /// Its tag.
        etag: ETag,
    },
    /// This fault; what was sent stays for the next attempt.
    Failed(Fault),
    /// Another object stands at the key.
    Foreign,
    /// The recording at the edge is not what was verified, as far as this attempt saw: the next one looks again.
    SourceLost(Fault),
    /// Going on with it made the core panic too often; how it panicked.
    Quarantined(String),
}
