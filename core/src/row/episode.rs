//! The record of an episode: one verified recording that the site holds.

use alloc::string::String;
use minicbor::{Decode, Encode};

use crate::digest::Sha256;
use crate::id::{DeviceId, EpisodeId, JobId, ObjectKey, TaskId, WireId};
use crate::object::{Flaw, McapFacts};
use crate::row::SidecarSource;
use crate::time::Wall;

/// Verdict of quality assurance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub enum Qa {
    /// Nobody looked yet.
    #[n(0)]
    Pending,
    /// May go to the cloud.
    #[n(1)]
    Approved,
    /// A person must look.
    #[n(2)]
    NeedsInspection,
    /// A person looked; may go to the cloud.
    #[n(3)]
    InspectorApproved,
    /// Stays here.
    #[n(4)]
    Rejected,
}

impl Qa {
    /// Every verdict.
    pub const ALL: [Qa; 5] =
        [Qa::Pending, Qa::Approved, Qa::NeedsInspection, Qa::InspectorApproved, Qa::Rejected];

    /// The word on the wire.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Qa::Pending => "pending_qa",
            Qa::Approved => "approved",
            Qa::NeedsInspection => "needs_inspection",
            Qa::InspectorApproved => "inspector_approved",
            Qa::Rejected => "rejected",
        }
    }

    /// Reads the word on the wire.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Qa> {
        Self::ALL.into_iter().find(|q| q.name() == name)
    }

    /// Whether it may go to the cloud.
    #[must_use]
    pub fn is_approved(self) -> bool {
        matches!(self, Qa::Approved | Qa::InspectorApproved)
    }
}

/// How far an episode is on its way to the cloud.
///
/// ```text
/// NotStarted ─► Queued(job) ─► Synced
///                 ▲   └─► Failed(job) ─┐
///                 └────────────────────┘ a new job, on demand
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum SyncMark {
    /// No job was ever made.
    #[n(0)]
    NotStarted,
    /// A job works on it.
    #[n(1)]
    Queued(#[n(0)] JobId),
    /// It is in the cloud, verified.
    #[n(2)]
    Synced {
        /// The job that did it.
        #[n(0)]
        job: JobId,
        /// Its key in the cloud.
        #[n(1)]
        key: ObjectKey,
        /// When.
        #[n(2)]
        at: Wall,
    },
    /// Its last job gave up.
    #[n(3)]
    Failed(#[n(0)] JobId),
}

/// An episode.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct EpisodeRow {
    /// Number.
    #[n(0)]
    pub id: EpisodeId,
    /// Public name: a UUID.
    #[n(1)]
    pub public_id: String,
    /// Whose recording.
    #[n(2)]
    pub device: DeviceId,
    /// Of which task.
    #[n(3)]
    pub task: TaskId,
    /// Of which attempt of it.
    #[n(4)]
    pub wire: WireId,
    /// Key at the edge.
    #[n(5)]
    pub key: ObjectKey,
    /// Its sidecar at the edge; `None` if the device sent none (`mcap_only`).
    #[n(6)]
    pub sidecar: Option<SidecarSource>,
    /// Bytes.
    #[n(7)]
    pub len: u64,
    /// Computed by us from the stored bytes.
    #[n(8)]
    pub sha256: Sha256,
    /// When recording began: the sidecar's word, else the finish callback's. `None` if nobody said.
    #[n(9)]
    pub recorded_at: Option<Wall>,
    /// Milliseconds.
    #[n(10)]
    pub duration_ms: Option<u64>,
    /// Messages.
    #[n(11)]
    pub messages: Option<u64>,
    /// When it was verified and committed.
    #[n(12)]
    pub ingested_at: Wall,
    /// Verdict.
    #[n(13)]
    pub qa: Qa,
    /// Why, in the words of whoever judged.
    #[n(14)]
    pub qa_reason: Option<String>,
    /// When.
    #[n(15)]
    pub qa_at: Option<Wall>,
    /// On its way to the cloud.
    #[n(16)]
    pub sync: SyncMark,
    /// It arrived although its task had failed or was cancelled, or is of an earlier attempt.
    #[n(17)]
    pub late: bool,
    /// When the copy at the edge was removed.
    #[n(18)]
    pub removed_at: Option<Wall>,
    /// Version of the recorder, from the sidecar.
    #[n(19)]
    pub recorder_version: Option<String>,
    /// What the check of its content came to; `None` if nobody looked yet.
    #[n(20)]
    pub inspection: Option<Inspection>,
    /// Jobs that failed for it. Records without a failure look as they always did.
    #[n(21)]
    #[cbor(skip_if = "is_zero")]
    pub tries: u32,
}

fn is_zero(tries: &u32) -> bool {
    *tries == 0
}

/// What the check of a recording's content came to. It is made once, after the acknowledgement, and decides nothing by
/// itself.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Inspection {
    /// When.
    #[n(0)]
    pub at: Wall,
    /// Why a person should look at it; `None` is sound.
    #[n(1)]
    pub doubt: Option<Doubt>,
    /// What was read; `None` if there was nothing to read any more.
    #[n(2)]
    pub facts: Option<McapFacts>,
}

/// Why a person should look at a recording. An ordinal is never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub enum Doubt {
    /// The file itself.
    #[n(0)]
    Flaw(#[n(0)] Flaw),
    /// It is sound and has no messages.
    #[n(1)]
    NoMessages,
    /// The sidecar, or the finish callback, says another number of messages.
    #[n(2)]
    MessageCountDiffers,
    /// The copy at the edge is not what was verified and acknowledged.
    #[n(3)]
    CopyDiffers,
    /// There is no copy at the edge any more, and we did not remove it.
    #[n(4)]
    CopyGone,
}

impl Doubt {
    /// A short stable word for the API, logs and metrics.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Doubt::Flaw(flaw) => flaw.code(),
            Doubt::NoMessages => "no_messages",
            Doubt::MessageCountDiffers => "message_count_differs",
            Doubt::CopyDiffers => "copy_differs",
            Doubt::CopyGone => "copy_gone",
        }
    }

    /// The same in a sentence for people.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Doubt::Flaw(flaw) => flaw.text(),
            Doubt::NoMessages => "there is no message in it",
            Doubt::MessageCountDiffers => "it does not have as many messages as its recorder announced",
            Doubt::CopyDiffers => "the copy at this site is not what the device delivered",
            Doubt::CopyGone => "the copy at this site is gone",
        }
    }
}

/// To whom a key at the edge belongs: a key belongs to exactly one attempt of one task.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct BindingRow {
    /// The task.
    #[n(0)]
    pub task: TaskId,
    /// The attempt.
    #[n(1)]
    pub wire: WireId,
    /// The episode, once verified.
    #[n(2)]
    pub episode: Option<EpisodeId>,
    /// How many bytes the uploader announced last, while there is no episode.
    #[n(3)]
    pub len: Option<u64>,
    /// Which SHA-256 the uploader announced last, while there is no episode.
    #[n(4)]
    pub sha256: Option<Sha256>,
}

impl BindingRow {
    /// A key that belongs to this attempt, of which nobody said anything more.
    #[must_use]
    pub fn new(task: TaskId, wire: WireId) -> BindingRow {
        BindingRow { task, wire, episode: None, len: None, sha256: None }
    }

    /// Whether it belongs to this attempt.
    #[must_use]
    pub fn is_of(&self, task: &TaskId, wire: &WireId) -> bool {
        (&self.task, &self.wire) == (task, wire)
    }
}
