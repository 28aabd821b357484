//! Every reason we say no to an operator or a device. The edge turns a reason into a status and a body, in one table.

use alloc::string::String;

use crate::effect::RecorderView;
use crate::id::EpisodeId;
use crate::input::Action;
use crate::row::{JobState, Qa, TaskState};

/// Why we say no.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The recorder is not connected.
    RecorderOffline,
    /// The link was lost or replaced while the command was out: it may have run.
    LinkLost {
        /// Which command.
        action: Action,
    },
    /// The uploader is not connected, and `config` wants it.
    TransferOffline,
    /// The recorder's state is not confirmed yet.
    StateSyncing,
    /// The recorder's state could not be refreshed.
    RefreshFailed {
        /// Whether it did not answer in time.
        timeout: bool,
        /// What we believe of it.
        view: RecorderView,
        /// Whether a command was refused for it, or only the state was asked for.
        command: bool,
    },
    /// The recorder is not idle.
    RecorderBusy {
        /// Its state.
        state: String,
        /// Its task.
        task: String,
    },
    /// The command must name a task. Holds the name of the field.
    TaskIdRequired(&'static str),
    /// The task cannot be configured on this device now; `None` is not found or not the device's.
    NotConfigurable(Option<TaskState>),
    /// The task cannot be begun on this device now; `None` is not found or not the device's.
    NotBeginable(Option<TaskState>),
    /// The recorder is not ready for this task.
    NotReadyForTask {
        /// Where the task stands.
        state: TaskState,
        /// Where the recorder stands.
        recorder_state: String,
        /// Its task.
        recorder_task: String,
    },
    /// The task named is not this device's.
    NotOwned,
    /// Another command that changes the device is out.
    CommandInFlight(Action),
    /// Too many commands are out on this link.
    TooManyCalls,
    /// The recorder did not answer in time: the command may have run.
    RpcTimeout(Action),
    /// No more links.
    TooManyLinks,
    /// The site stops.
    Stopping,
    /// No such task.
    TaskNotFound(String),
    /// A task or attempt of that id exists.
    TaskExists(String),
    /// The task is past being called off.
    NotCancellable(TaskState),
    /// A finish callback for a task that is not the device's, or not there.
    NotUploadable {
        /// Whether the device owns it.
        owned: bool,
    },
    /// A field is not what it must be.
    BadField {
        /// Its name.
        field: &'static str,
        /// What it must be.
        must: &'static str,
    },
    /// No such episode.
    EpisodeNotFound(EpisodeId),
    /// The episode is not approved.
    NotApproved(Qa),
    /// The episode is in the cloud already.
    AlreadySynced(EpisodeId),
    /// A job works on the episode already.
    SyncActive(EpisodeId),
    /// The episode cannot be judged any more: it is queued or synced.
    NotJudgeable(EpisodeId),
    /// It made the core panic too often and is not looked at any more; nothing was changed. Says how it panicked.
    Quarantined(String),
    /// An internal rule was broken; nothing was changed.
    Internal(&'static str),
}

/// A change that is not legal in a state; a bug if it ever happens in life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Illegal {
    /// What the state was.
    pub state: String,
    /// What the change was.
    pub change: &'static str,
}

impl Illegal {
    /// A job in this state cannot take this change.
    #[must_use]
    pub fn job(state: Option<&JobState>, change: &'static str) -> Illegal {
        Illegal { state: alloc::format!("{state:?}"), change }
    }
}

/// An invariant that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Its id, for instance `I11`.
    pub invariant: &'static str,
    /// What was seen.
    pub saw: String,
}
