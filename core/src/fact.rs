//! What one machine tells the others inside a step. Never leaves the step; delivered in order by `route`.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use crate::change::UploadEnd;
use crate::digest::Sha256;
use crate::id::{ConnId, DeviceId, EpisodeId, Fence, JobId, ObjectKey, RequestId, Role, SocketId, WireId};
use crate::input::Command;
use crate::policy::{PolicyFault, Slot};
use crate::row::{FinalWhy, JobRow, Source};
use crate::time::Wall;
use crate::wire::TransferMessage;

/// What one machine tells the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    // roster → hub
    /// Somebody who asks for a link has proven what must be proven.
    KnockCleared {
        /// The socket.
        socket: SocketId,
        /// Who it is.
        device: DeviceId,
        /// Which of its programs.
        role: Role,
        /// Where it comes from, for people.
        remote: String,
        /// From which port, if that is known.
        port: Option<u16>,
        /// By what.
        proof: Proof,
    },
    /// Tokens of a device were taken back: close what they proved.
    TokensRevoked {
        /// Whose.
        device: DeviceId,
        /// The tokens that it still has. A link that was proven by another one goes, also by one that was rotated away.
        left: Vec<Sha256>,
        /// Whether all links of the device are meant, also those that were proven by their address; else only those of
        /// its uploader.
        all: bool,
    },
    /// A device may have no link any more.
    DeviceDisabled {
        /// Which.
        device: DeviceId,
    },
    // hub → tasks, roster
    /// A link is up; if it took over, the one before it is gone already.
    LinkUp {
        /// Whose.
        device: DeviceId,
        /// Which program.
        role: Role,
        /// The link.
        conn: ConnId,
        /// Where it comes from.
        remote: String,
        /// What proved it.
        proof: Proof,
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
        /// On which link.
        conn: ConnId,
        /// What it is.
        report: Report,
        /// Whether no command that changes the device is out on this link: what it says is not about to change by
        /// our own doing.
        calm: bool,
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
            Fact::KnockCleared { .. } => "knock_cleared",
            Fact::TokensRevoked { .. } => "tokens_revoked",
            Fact::DeviceDisabled { .. } => "device_disabled",
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

/// What proved that a program is its device's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// Nothing, and nothing had to.
    Nothing,
    /// A token, by its SHA-256.
    Token(Sha256),
    /// It came from where the device's recorder proved itself.
    Address,
}

/// A recorder's state as the tasks need it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// What it does.
    pub state: Reported,
    /// The task it names, by wire id. Idle never carries one.
    pub task: Option<WireId>,
    /// The same in its own word, also if no task of ours can have that name; empty if it names none.
    pub said: String,
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

    /// The word on the wire.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Reported::Idle => "idle",
            Reported::Ready => "ready",
            Reported::Recording => "recording",
            Reported::Paused => "paused",
            Reported::Other => "other",
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
    /// Upload everything you have.
    UploadAll,
    /// Do not upload this recording.
    Cancel {
        /// By wire id.
        task: WireId,
    },
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
