//! Every reason we say no to an operator or a device. The edge turns a reason into a status and a body, in one table.

use alloc::boxed::Box;
use alloc::string::String;

use crate::digest::Sha256;
use crate::effect::{ConflictView, RecorderView};
use crate::id::{DeviceId, EpisodeId};
use crate::input::Action;
use crate::policy::Slot;
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
    /// The device's uploader is not connected, and something is to be said to it.
    NoUploader(DeviceId),
    /// The recorder's state is not confirmed yet.
    StateSyncing,
    /// The recorder's state could not be refreshed.
    RefreshFailed {
        /// Whether it did not answer in time.
        timeout: bool,
        /// What we believe of it.
        view: Box<RecorderView>,
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
    /// The command names a task, and the recorder holds another one: it would drop that.
    HoldsAnother {
        /// Its state.
        state: String,
        /// What it holds, in its own word.
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
    /// Two programs fight over this id: for a while nobody takes over from the one that has the link.
    Contested {
        /// For how many milliseconds more.
        retry_after_ms: u64,
    },
    /// The site stops.
    Stopping,
    /// No such task.
    TaskNotFound(String),
    /// A task or attempt of that id exists.
    TaskExists(String),
    /// The task is past being called off.
    NotCancellable(TaskState),
    /// The task does not wait for its recording: there is nothing to settle.
    NotResolvable(TaskState),
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
    /// The device holds nothing against its records.
    NoConflict(DeviceId),
    /// The device holds something else than the caller saw.
    ConflictChanged(Box<ConflictView>),
    /// The records cannot follow the device: it must be told to end or to drop what it holds.
    ConflictNeedsCommand(Box<ConflictView>),
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
    /// What was sent does not prove what must be proven: no token, a wrong one, or one of another.
    Unauthorized,
    /// Nobody may register now.
    RegistrationClosed,
    /// No such registered device.
    DeviceNotFound(DeviceId),
    /// The device may have no link, so it gets no token.
    DeviceDisabled(DeviceId),
    /// No such token.
    TokenNotFound(u64),
    /// No more devices, tokens, factories or types.
    RosterFull,
    /// A wish about policies cannot be met; nothing was changed.
    Policy(PolicyRefusal),
}

/// Why a wish about policies cannot be met. The set that decides is what it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PolicyRefusal {
    /// No such module.
    UnknownModule(Sha256),
    /// Nobody looked at the module yet.
    NotAdmitted(Sha256),
    /// The host does not take the module, or not with these settings.
    Rejected {
        /// Which.
        module: Sha256,
        /// The host's word for why.
        code: String,
        /// The same for people.
        why: String,
    },
    /// The module may not be used.
    Quarantined {
        /// Which.
        module: Sha256,
        /// A short word for why.
        code: String,
    },
    /// The module does not serve the slot.
    HookMissing {
        /// Which.
        module: Sha256,
        /// Which slot.
        slot: Slot,
    },
    /// The settings are not what settings must be.
    BadSettings(&'static str),
    /// Another set is being prepared, or too many wait for the same module.
    Busy,
    /// The set changed while the one that was asked for was being prepared, or a module in it was quarantined.
    Overtaken,
    /// No more modules, and each is in use or quarantined.
    Full,
    /// No such generation in the history.
    UnknownGeneration(u64),
    /// The module is in use.
    InUse {
        /// Which.
        module: Sha256,
        /// By what.
        by: &'static str,
    },
    /// The host did not say how it ended.
    Unanswered(String),
    /// The site was told to run no modules.
    Native,
}

impl From<PolicyRefusal> for Refusal {
    fn from(refusal: PolicyRefusal) -> Refusal {
        Refusal::Policy(refusal)
    }
}

impl PolicyRefusal {
    /// A short stable word for the API.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            PolicyRefusal::UnknownModule(_) => "policy_unknown_module",
            PolicyRefusal::NotAdmitted(_) => "policy_not_admitted",
            PolicyRefusal::Rejected { .. } => "policy_rejected",
            PolicyRefusal::Quarantined { .. } => "policy_quarantined",
            PolicyRefusal::HookMissing { .. } => "policy_hook_missing",
            PolicyRefusal::BadSettings(_) => "policy_bad_settings",
            PolicyRefusal::Busy => "policy_busy",
            PolicyRefusal::Overtaken => "policy_overtaken",
            PolicyRefusal::Full => "policy_full",
            PolicyRefusal::UnknownGeneration(_) => "policy_unknown_generation",
            PolicyRefusal::InUse { .. } => "policy_in_use",
            PolicyRefusal::Unanswered(_) => "policy_unanswered",
            PolicyRefusal::Native => "policies_native",
        }
    }
}

impl core::fmt::Display for PolicyRefusal {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            PolicyRefusal::UnknownModule(module) => {
                write!(f, "no module {module}: load its bytes first")
            }
            PolicyRefusal::NotAdmitted(module) => {
                write!(f, "module {module} is still being looked at: ask again in a moment, or load it again")
            }
            PolicyRefusal::Rejected { module, code, why } => write!(f, "module {module}: {code}: {why}"),
            PolicyRefusal::Quarantined { module, code } => write!(
                f,
                "module {module} is quarantined ({code}): mend it and load the new bytes, or unquarantine it"
            ),
            PolicyRefusal::HookMissing { module, slot } => {
                write!(f, "module {module} does not serve {}: choose a slot that it exports", slot.name())
            }
            PolicyRefusal::BadSettings(must) => write!(f, "settings must be {must}"),
            PolicyRefusal::Busy => {
                write!(f, "another change of policies is under way: ask again in a moment")
            }
            PolicyRefusal::Overtaken => {
                write!(f, "the policies changed while this change was being prepared: look, and ask again")
            }
            PolicyRefusal::Full => write!(
                f,
                "the site keeps {} modules, and each is in use or quarantined: unquarantine and remove one",
                crate::limits::MODULES_MAX
            ),
            PolicyRefusal::UnknownGeneration(generation) => write!(
                f,
                "no generation {generation} among the last {}: see the history",
                crate::limits::POLICY_HISTORY
            ),
            PolicyRefusal::InUse { module, by } => write!(f, "module {module} is in use: {by}"),
            PolicyRefusal::Unanswered(why) => {
                write!(f, "nobody knows how it ended, nothing was changed: {why}; ask again")
            }
            PolicyRefusal::Native => {
                write!(
                    f,
                    "this site runs no policy modules: remove policies.native from its configuration (if it is not \
                     there, see the log of its start)"
                )
            }
        }
    }
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
