//! The closed set of things that can happen to us. Nothing else changes state. Never holds a secret.

mod roster;

use alloc::string::String;
use minicbor::{Decode, Encode};

use crate::digest::Sha256;
use crate::id::{
    Boot, ConnId, DeviceId, EpisodeId, ObjectKey, PolicySetId, RequestId, Role, SecretRef, SocketId, TaskId,
    Ticket,
};
use crate::knobs::Knobs;
use crate::object::ObjectReply;
use crate::outcome::Outcome;
use crate::policy::{Binding, ModuleFacts, Slot, Surroundings};
use crate::quarantine::Subject;
use crate::row::{RecordingFacts, TaskState};
use crate::wire::{RecorderMessage, TransferMessage};

pub use roster::RosterRequest;

/// Everything that can happen to us.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Input {
    /// The process started. Always the first input of a boot: everything volatile is forgotten, and what the
    /// rows leave open is taken up again.
    #[n(0)]
    Boot {
        /// Number of the boot.
        #[n(0)]
        boot: Boot,
        /// Seed of the boot's chances.
        #[n(1)]
        seed: u64,
        /// Configuration.
        #[n(2)]
        knobs: Knobs,
    },
    /// Some deadline may be due.
    #[n(1)]
    Wake,
    /// A device's program asks for a link. Answered by `Admit` or `TurnAway`.
    #[n(2)]
    Knock {
        /// The socket.
        #[n(0)]
        socket: SocketId,
        /// Who it says it is.
        #[n(1)]
        device: DeviceId,
        /// Which of its programs.
        #[n(2)]
        role: Role,
        /// Where it comes from, for people.
        #[n(3)]
        remote: String,
        /// SHA-256 of its bearer token, if it sent one.
        #[n(4)]
        credential: Option<Sha256>,
        /// Port it comes from, to tell two programs at one address apart.
        #[n(5)]
        port: Option<u16>,
        /// What it must prove.
        #[n(6)]
        #[cbor(default)]
        demand: Demand,
    },
    /// A message of a recorder.
    #[n(3)]
    Recorder {
        /// The link.
        #[n(0)]
        conn: ConnId,
        /// The message.
        #[n(1)]
        message: RecorderMessage,
    },
    /// A message of an uploader.
    #[n(4)]
    Transfer {
        /// The link.
        #[n(0)]
        conn: ConnId,
        /// The message.
        #[n(1)]
        message: TransferMessage,
    },
    /// A link is gone.
    #[n(5)]
    Lost {
        /// The link.
        #[n(0)]
        conn: ConnId,
        /// Why.
        #[n(1)]
        why: LostWhy,
    },
    /// Somebody asks over HTTP. Answered by exactly one `Reply`.
    #[n(6)]
    Request {
        /// The request.
        #[n(0)]
        id: RequestId,
        /// What they want.
        #[n(1)]
        request: Request,
    },
    /// An object operation ended.
    #[n(7)]
    Object {
        /// The ticket of the operation.
        #[n(0)]
        ticket: Ticket,
        /// How.
        #[n(1)]
        outcome: Outcome<ObjectReply>,
    },
    /// The embedded S3 endpoint took a whole object: a hint, `Head` is the truth.
    #[n(8)]
    Stored {
        /// Its key in the edge bucket.
        #[n(0)]
        key: ObjectKey,
        /// Bytes.
        #[n(1)]
        len: u64,
        /// Of those bytes.
        #[n(2)]
        sha256: Sha256,
    },
    /// The process is asked to stop: finish what is in flight, begin nothing.
    #[n(9)]
    Shutdown,
    /// Something happened that made the core panic too often, in this boot or an earlier one: it is not stepped, and
    /// this is stepped in its place.
    #[n(10)]
    Quarantined {
        /// What is left out.
        #[n(0)]
        subject: Subject,
        /// Where and how it panicked, for people.
        #[n(1)]
        reason: String,
    },
    /// The free space of the disk under the data directory became another [`crate::knobs::Room`].
    #[n(11)]
    Space {
        /// Bytes.
        #[n(0)]
        free: u64,
    },
    /// An operation on policies ended.
    #[n(12)]
    Policy {
        /// The ticket of the operation.
        #[n(0)]
        ticket: Ticket,
        /// How.
        #[n(1)]
        outcome: Outcome<PolicyReply>,
    },
    /// What surrounds the site is now this, as far as anybody knows.
    #[n(13)]
    Surroundings(#[n(0)] Surroundings),
}

impl Input {
    /// A short stable word for logs, metrics and coverage.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Input::Boot { .. } => "boot",
            Input::Wake => "wake",
            Input::Knock { .. } => "knock",
            Input::Recorder { .. } => "recorder",
            Input::Transfer { .. } => "transfer",
            Input::Lost { .. } => "lost",
            Input::Request { .. } => "request",
            Input::Object { .. } => "object",
            Input::Stored { .. } => "stored",
            Input::Shutdown => "shutdown",
            Input::Quarantined { .. } => "quarantined",
            Input::Space { .. } => "space",
            Input::Policy { .. } => "policy",
            Input::Surroundings(_) => "surroundings",
        }
    }
}

/// What a device's program must prove to get a link. The listener it knocks at says so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub enum Demand {
    /// Nothing.
    #[default]
    #[n(0)]
    Nothing,
    /// A token of the device, for this role.
    #[n(1)]
    Token,
    /// The same, or (uploaders) the address from which the device's recorder proved itself: known uploaders cannot
    /// send a header.
    #[n(2)]
    TokenOrAddress,
}

/// How a person settles a conflict between a device and the records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub enum Resolve {
    /// The records follow the device: tasks that it does not hold are put back.
    #[n(0)]
    Release,
    /// The device ends what it records, and keeps the recording.
    #[n(1)]
    Finish,
    /// The device drops what it holds. What it recorded is destroyed there.
    #[n(2)]
    Drop,
}

impl Resolve {
    /// Every way.
    pub const ALL: [Resolve; 3] = [Resolve::Release, Resolve::Finish, Resolve::Drop];

    /// The word on the wire.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Resolve::Release => "release",
            Resolve::Finish => "finish",
            Resolve::Drop => "drop",
        }
    }

    /// Reads the word on the wire.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Resolve> {
        Self::ALL.into_iter().find(|how| how.name() == name)
    }
}

/// Why a link is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum LostWhy {
    /// The device closed it.
    #[n(0)]
    Closed,
    /// The socket broke.
    #[n(1)]
    Broken,
    /// It no longer answers pings.
    #[n(2)]
    Silent,
    /// It does not take what we send.
    #[n(3)]
    Stuck,
    /// It broke the rules of the protocol.
    #[n(4)]
    Protocol,
}

impl LostWhy {
    /// A short stable word for logs and events.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            LostWhy::Closed => "closed",
            LostWhy::Broken => "broken",
            LostWhy::Silent => "silent",
            LostWhy::Stuck => "stuck",
            LostWhy::Protocol => "protocol",
        }
    }
}

/// A command for a recorder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub enum Action {
    /// Report your state.
    #[n(0)]
    GetState,
    /// Report your counters.
    #[n(1)]
    GetStats,
    /// Take this configuration.
    #[n(2)]
    Config,
    /// Record.
    #[n(3)]
    Begin,
    /// Stop recording and keep the file.
    #[n(4)]
    Finish,
    /// Pause.
    #[n(5)]
    Pause,
    /// Go on.
    #[n(6)]
    Resume,
    /// Stop recording and drop the file.
    #[n(7)]
    Cancel,
    /// Drop the configuration.
    #[n(8)]
    Clear,
    /// End the program.
    #[n(9)]
    Quit,
}

impl Action {
    /// Every action.
    pub const ALL: [Action; 10] = [
        Action::GetState,
        Action::GetStats,
        Action::Config,
        Action::Begin,
        Action::Finish,
        Action::Pause,
        Action::Resume,
        Action::Cancel,
        Action::Clear,
        Action::Quit,
    ];

    /// The word on the wire.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Action::GetState => "get_state",
            Action::GetStats => "get_stats",
            Action::Config => "config",
            Action::Begin => "begin",
            Action::Finish => "finish",
            Action::Pause => "pause",
            Action::Resume => "resume",
            Action::Cancel => "cancel",
            Action::Clear => "clear",
            Action::Quit => "quit",
        }
    }

    /// Whether it changes the device. One at a time per device.
    #[must_use]
    pub fn mutates(self) -> bool {
        !matches!(self, Action::GetState | Action::GetStats)
    }
}

/// A command on its way to a recorder.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Command {
    /// To whom.
    #[n(0)]
    pub device: DeviceId,
    /// What.
    #[n(1)]
    pub action: Action,
    /// The task it names, as the caller wrote it (public or wire id); later its wire id.
    #[n(2)]
    pub task: Option<String>,
    /// Parameters as a JSON object, secrets replaced by their handles.
    #[n(3)]
    pub params: Option<String>,
    /// The `user_token` inside the parameters.
    #[n(4)]
    pub token: Option<SecretRef>,
    /// Who waits for the answer.
    #[n(5)]
    pub reply: Option<RequestId>,
    /// Where the task stood when the tasks cleared the command; absent before.
    #[n(6)]
    pub task_state: Option<TaskState>,
}

/// What somebody asks over HTTP.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Request {
    /// Send a command to a recorder and pass its answer on. `reply` is filled from the request's id.
    #[n(0)]
    Command(#[n(0)] Command),
    /// The state of a recorder, no older than this.
    #[n(1)]
    RefreshState {
        /// Whose.
        #[n(0)]
        device: DeviceId,
        /// Milliseconds.
        #[n(1)]
        max_age_ms: u64,
    },
    /// A recorder says that it began to record.
    #[n(2)]
    CallbackStart {
        /// Task, as the device names it.
        #[n(0)]
        task: String,
        /// Who says so.
        #[n(1)]
        device: Option<DeviceId>,
        /// SHA-256 of the token it sent, if it sent one.
        #[n(2)]
        credential: Option<Sha256>,
    },
    /// A recorder says that it ended a recording.
    #[n(3)]
    CallbackFinish {
        /// Task, as the device names it.
        #[n(0)]
        task: String,
        /// Who says so.
        #[n(1)]
        device: DeviceId,
        /// What it says.
        #[n(2)]
        facts: RecordingFacts,
        /// SHA-256 of the token it sent, if it sent one.
        #[n(3)]
        credential: Option<Sha256>,
    },
    /// Make a task.
    #[n(4)]
    CreateTask {
        /// Its id; one is made if absent.
        #[n(0)]
        task: Option<TaskId>,
        /// Whose.
        #[n(1)]
        device: DeviceId,
        /// Configuration as a JSON object, without secrets.
        #[n(2)]
        config: Option<String>,
    },
    /// Call a task off.
    #[n(5)]
    CancelTask {
        /// Public or wire id.
        #[n(0)]
        task: String,
    },
    /// Judge an episode.
    #[n(6)]
    Judge {
        /// Which.
        #[n(0)]
        episode: EpisodeId,
        /// Approve or reject.
        #[n(1)]
        approve: bool,
        /// Why.
        #[n(2)]
        reason: Option<String>,
    },
    /// Carry an episode to the cloud.
    #[n(7)]
    Sync {
        /// Which.
        #[n(0)]
        episode: EpisodeId,
    },
    /// Carry approved episodes that have no job to the cloud, oldest first, at most a batch.
    #[n(8)]
    SyncBatch,
    /// Change modules or the set of policies.
    #[n(9)]
    Policy(#[n(0)] PolicyRequest),
    /// Settle what a device holds against its records.
    #[n(10)]
    Resolve {
        /// Whose.
        #[n(0)]
        device: DeviceId,
        /// How.
        #[n(1)]
        how: Resolve,
        /// The task that the caller saw the device hold, by wire id.
        #[n(2)]
        holds: String,
    },
    /// Say something to a device's uploader.
    #[n(11)]
    Transfer {
        /// Whose.
        #[n(0)]
        device: DeviceId,
        /// What.
        #[n(1)]
        ask: TransferAsk,
    },
    /// Settle a task whose recording does not come.
    #[n(12)]
    ResolveTask {
        /// Public or wire id.
        #[n(0)]
        task: String,
        /// Where to: `Failed`, or `Pending` to record it once more.
        #[n(1)]
        to: TaskState,
        /// Why, for people.
        #[n(2)]
        reason: Option<String>,
    },
    /// Change registered devices or tokens.
    #[n(13)]
    Roster(#[n(0)] RosterRequest),
}

/// What an operator has said to an uploader.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum TransferAsk {
    /// Upload this recording.
    #[n(0)]
    Upload {
        /// Public or wire id.
        #[n(0)]
        task: String,
        /// Ignored by known uploaders.
        #[n(1)]
        priority: u32,
    },
    /// Upload everything you have.
    #[n(1)]
    UploadAll,
    /// Tell your status.
    #[n(2)]
    StatusQuery,
    /// Do not upload this recording. Known uploaders do nothing then.
    #[n(3)]
    Cancel {
        /// Public or wire id.
        #[n(0)]
        task: String,
    },
}

impl TransferAsk {
    /// The word on the wire.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            TransferAsk::Upload { .. } => "upload_request",
            TransferAsk::UploadAll => "upload_all",
            TransferAsk::StatusQuery => "status_query",
            TransferAsk::Cancel { .. } => "cancel",
        }
    }
}

/// What somebody asks of policies. Answered by the state that came of it, once it is durable.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum PolicyRequest {
    /// Look at a module whose bytes lie under this hash already, durably.
    #[n(0)]
    Admit {
        /// Of its bytes.
        #[n(0)]
        module: Sha256,
        /// Bytes.
        #[n(1)]
        size: u64,
    },
    /// Put a module into a slot.
    #[n(1)]
    Activate {
        /// Which slot.
        #[n(0)]
        slot: Slot,
        /// Who.
        #[n(1)]
        binding: Binding,
    },
    /// Give a slot back to the site's default.
    #[n(2)]
    Reset {
        /// Which slot.
        #[n(0)]
        slot: Slot,
    },
    /// Let a module decide beside the set, without effect. It takes the place of another one that does.
    #[n(3)]
    Shadow {
        /// Which slot.
        #[n(0)]
        slot: Slot,
        /// Who.
        #[n(1)]
        binding: Binding,
    },
    /// Let none decide beside the set.
    #[n(4)]
    ShadowEnd,
    /// Go back to an earlier set.
    #[n(5)]
    Rollback {
        /// Of which generation; `None` is the last that passed its probation.
        #[n(0)]
        to: Option<u64>,
    },
    /// Take a module out of every slot and never use it again.
    #[n(6)]
    Quarantine {
        /// Which.
        #[n(0)]
        module: Sha256,
        /// Why, for people.
        #[n(1)]
        reason: String,
    },
    /// Let a module be used again.
    #[n(7)]
    Unquarantine {
        /// Which.
        #[n(0)]
        module: Sha256,
    },
    /// Forget a module that nothing uses.
    #[n(8)]
    Remove {
        /// Which.
        #[n(0)]
        module: Sha256,
    },
}

impl PolicyRequest {
    /// A short stable word for logs, metrics and coverage.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            PolicyRequest::Admit { .. } => "admit policy",
            PolicyRequest::Activate { .. } => "activate policy",
            PolicyRequest::Reset { .. } => "reset policy",
            PolicyRequest::Shadow { .. } => "shadow policy",
            PolicyRequest::ShadowEnd => "end shadow policy",
            PolicyRequest::Rollback { .. } => "roll policies back",
            PolicyRequest::Quarantine { .. } => "quarantine policy",
            PolicyRequest::Unquarantine { .. } => "unquarantine policy",
            PolicyRequest::Remove { .. } => "remove policy",
        }
    }
}

/// What became of an operation on policies.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum PolicyReply {
    /// To `Admit`: the host takes the module.
    #[n(0)]
    Admitted(#[n(0)] ModuleFacts),
    /// To `Admit`, `Prepare` and `Shadow`: the host does not take it. Not for failures of the site's own disk that
    /// may pass: those are [`Outcome::Failed`].
    #[n(1)]
    Rejected {
        /// To `Prepare`: in which slot. A module in several slots is named by the first.
        #[n(0)]
        slot: Option<Slot>,
        /// A short stable word; `unreadable` if the bytes are not there or do not have their hash.
        #[n(1)]
        code: String,
        /// The same for people.
        #[n(2)]
        why: String,
    },
    /// To `Prepare`: whoever asks for this set from now on gets it.
    #[n(2)]
    Prepared(#[n(0)] PolicySetId),
    /// To `Shadow` and `Retire`.
    #[n(3)]
    Done,
}
