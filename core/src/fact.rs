//! What one machine tells the others inside a step. Never leaves the step; delivered in order by `route`.

use alloc::boxed::Box;
use alloc::string::String;

use crate::change::UploadEnd;
use crate::id::{ConnId, DeviceId, EpisodeId, Fence, JobId, ObjectKey, RequestId, Role, WireId};
use crate::input::Command;
use crate::policy::{PolicyFault, Slot};
use crate::row::{FinalWhy, JobRow, Source};
use crate::time::Wall;
use crate::wire::TransferMessage;

/// What one machine tells the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    // hub → tasks
    /// A link is up; if it took over, the one before it is gone already.
    LinkUp {
        /// Whose.
        device: DeviceId,
        /// Which program.
        role: Role,
        /// The link.
        conn: ConnId,
    },
    /// A link is down, and none took its place.
    LinkDown {
        /// Whose.
        device: DeviceId,
        /// Which program.
        role: Role,
    },
    /// A recorder's report was accepted as its state.
    RecorderReported {
        /// Whose.
        device: DeviceId,
        /// What it is.
        report: Report,
    },
    /// A recorder says it took a configuration.
    ConfigApplied {
        /// Whose.
        device: DeviceId,
        /// Of which task, as the device names it.
        task: String,
    },
    /// A current uploader link said something.
    TransferSaid {
        /// Whose.
        device: DeviceId,
        /// The link.
        conn: ConnId,
        /// What.
        message: Box<TransferMessage>,
    },
    /// `config`, or a command that waited for a fresh state, passed the gates of the hub: do the tasks allow it?
    CommandGated(Command),
    /// The command is on its way in this very step.
    CommandSent(Command),
    /// A command ended.
    CommandEnded {
        /// Which.
        command: Command,
        /// How.
        end: CallEnd,
    },
    // tasks → hub
    /// The tasks have no objection: send it (after the gates of the hub, if it did not pass them yet).
    CommandCleared(Command),
    /// Say this to a device's uploader, if it is connected.
    TransferFrame {
        /// Whose.
        device: DeviceId,
        /// What.
        frame: TransferFrame,
    },
    // tasks → queue
    /// Carry this episode to the cloud.
    EpisodeWanted(Box<Wanted>),
    /// Somebody wants this job to go on now.
    JobWanted {
        /// Which.
        job: JobId,
        /// Of which episode.
        episode: EpisodeId,
        /// Who waits for an answer.
        reply: RequestId,
    },
    // queue → tasks
    /// A job works on the episode.
    JobQueued {
        /// Which.
        job: JobId,
        /// Of which episode.
        episode: EpisodeId,
    },
    /// A job is over.
    JobEnded {
        /// Which.
        job: JobId,
        /// Of which episode.
        episode: EpisodeId,
        /// How.
        end: JobEnd,
    },
    // queue → uploads
    /// Upload this, under this fence.
    JobClaimed {
        /// The claim.
        fence: Fence,
        /// The job.
        row: Box<JobRow>,
    },
    /// The job gave up or was called off: leave nothing behind in the store.
    JobAbandoned {
        /// Which.
        job: JobId,
    },
    // queue, tasks, uploads → policies
    /// The built-in rules answered in the place of a slot's policy.
    PolicyFaulted {
        /// Which slot.
        slot: Slot,
        /// What went wrong.
        why: PolicyFault,
    },
    /// A slot's policy put everything off for longer than it may: the built-in rules answered in its place.
    PolicyStalled {
        /// Which slot.
        slot: Slot,
    },
    // uploads → queue
    /// A part was acknowledged: the way works.
    PartAcknowledged {
        /// Of which claim.
        fence: Fence,
        /// Its bytes.
        bytes: u64,
    },
    /// The store lost an upload, and it was begun again.
    UploadRestarted {
        /// Of which claim.
        fence: Fence,
    },
    /// The store does not say which multipart uploads are open: one left behind may stay there unseen.
    UploadBlind {
        /// Of which claim.
        fence: Fence,
    },
    /// An attempt ended.
    UploadEnded {
        /// Which.
        fence: Fence,
        /// How.
        end: UploadEnd,
    },
}

impl Fact {
    /// A short stable word for coverage.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Fact::LinkUp { .. } => "link_up",
            Fact::LinkDown { .. } => "link_down",
            Fact::RecorderReported { .. } => "recorder_reported",
            Fact::ConfigApplied { .. } => "config_applied",
            Fact::TransferSaid { .. } => "transfer_said",
            Fact::CommandGated(_) => "command_gated",
            Fact::CommandSent(_) => "command_sent",
            Fact::CommandEnded { .. } => "command_ended",
            Fact::CommandCleared(_) => "command_cleared",
            Fact::TransferFrame { .. } => "transfer_frame",
            Fact::EpisodeWanted(_) => "episode_wanted",
            Fact::JobWanted { .. } => "job_wanted",
            Fact::JobQueued { .. } => "job_queued",
            Fact::PolicyFaulted { .. } => "policy_faulted",
            Fact::PolicyStalled { .. } => "policy_stalled",
            Fact::JobEnded { .. } => "job_ended",
            Fact::JobClaimed { .. } => "job_claimed",
            Fact::JobAbandoned { .. } => "job_abandoned",
            Fact::PartAcknowledged { .. } => "part_acknowledged",
            Fact::UploadRestarted { .. } => "upload_restarted",
            Fact::UploadBlind { .. } => "upload_blind",
            Fact::UploadEnded { .. } => "upload_ended",
        }
    }
}

/// A recorder's state as the tasks need it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// What it does.
    pub state: Reported,
    /// The task it names, by wire id. Idle never carries one.
    pub task: Option<WireId>,
}

/// What a recorder does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reported {
    /// Nothing.
    Idle,
    /// Holds a configuration.
    Ready,
    /// Records.
    Recording,
    /// Records, paused.
    Paused,
    /// Something else: neither idle nor ready.
    Other,
}

impl Reported {
    /// Reads a device's word, in any case and with blanks around it.
    #[must_use]
    pub fn of(text: &str) -> Reported {
        let text = text.trim();
        if text.eq_ignore_ascii_case("idle") {
            Reported::Idle
        } else if text.eq_ignore_ascii_case("ready") {
            Reported::Ready
        } else if text.eq_ignore_ascii_case("recording") {
            Reported::Recording
        } else if text.eq_ignore_ascii_case("paused") {
            Reported::Paused
        } else {
            Reported::Other
        }
    }

    /// Whether a task belongs to it.
    #[must_use]
    pub fn holds_task(self) -> bool {
        matches!(self, Reported::Ready | Reported::Recording | Reported::Paused)
    }
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallEnd {
    /// The device did it.
    Done,
    /// The device refused.
    Refused,
    /// Nobody knows.
    Unknown,
}

/// Frames for uploaders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TransferFrame {
    /// Upload this recording.
    UploadRequest {
        /// By wire id.
        task: WireId,
        /// Ignored by known uploaders.
        priority: u32,
    },
    /// The recording is safe here: you may delete your copy.
    UploadAck {
        /// By wire id.
        task: WireId,
    },
    /// Tell your status.
    StatusQuery,
}

/// An episode for the queue, with everything it needs to know of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Which.
    pub episode: EpisodeId,
    /// Whose.
    pub device: DeviceId,
    /// What to send.
    pub source: Source,
    /// Where to in the cloud: `{site}/{device}/{UTC date of recording}/{wire}.mcap`.
    pub key: ObjectKey,
    /// When it was approved.
    pub approved_at: Wall,
    /// Who waits for an answer.
    pub reply: Option<RequestId>,
}

/// How a job ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobEnd {
    /// The object is in the cloud at this key, verified.
    Completed {
        /// Key in the cloud.
        key: ObjectKey,
    },
    /// It gave up.
    Failed(FinalWhy),
}
