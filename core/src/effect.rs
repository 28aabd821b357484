//! The closed set of things we may ask for. Released only after what they say is durable.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use crate::digest::Sha256;
use crate::id::{
    ConnId, DeviceId, EpisodeId, JobId, ObjectKey, RequestId, Role, SecretRef, SocketId, Ticket,
};
use crate::input::Action;
use crate::object::ObjectOp;
use crate::policy::{Binding, PolicyNews, PolicySet, PolicyView, Slot};
use crate::refusal::Refusal;
use crate::row::{DeviceRow, EpisodeRow, Scope, TaskRow, TaskState, TokenRow};
use crate::time::Wall;

/// Everything we can ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// This socket is now that link.
    Admit {
        /// The socket.
        socket: SocketId,
        /// Its link.
        conn: ConnId,
    },
    /// This socket is not wanted.
    TurnAway {
        /// The socket.
        socket: SocketId,
        /// Why.
        refusal: Refusal,
    },
    /// Send a frame.
    Send {
        /// On which link.
        conn: ConnId,
        /// What.
        frame: Frame,
    },
    /// Close a link.
    Close {
        /// Which.
        conn: ConnId,
        /// Why.
        why: CloseWhy,
    },
    /// Do something with an object; the outcome comes back under the ticket.
    Object {
        /// Names the operation.
        ticket: Ticket,
        /// What.
        op: ObjectOp,
    },
    /// Answer a request.
    Reply {
        /// Which.
        to: RequestId,
        /// With what.
        answer: Result<Response, Refusal>,
    },
    /// Something that viewers should know.
    Publish(Notice),
    /// Whether devices may upload.
    Gate(Gate),
    /// From now on no device may change the object under this key of the edge store. Freezing twice is freezing once.
    /// Whoever looks at the object after this was released sees what stays.
    Freeze {
        /// Which.
        key: ObjectKey,
    },
    /// Devices may write under this key again.
    Thaw {
        /// Which.
        key: ObjectKey,
    },
    /// Do something with modules; the outcome comes back under the ticket as [`crate::input::Input::Policy`]. Two at
    /// once are done in this order, or as if.
    Policy {
        /// Names the operation.
        ticket: Ticket,
        /// What.
        op: PolicyOp,
    },
    /// From now on this token is good for the API. Said of each at every boot.
    Grant {
        /// Its SHA-256.
        token: Sha256,
        /// For what.
        scope: Scope,
    },
    /// This token is good for nothing any more.
    Bar {
        /// Its SHA-256.
        token: Sha256,
    },
}

/// What to do with modules. Bytes are named by their hash and lie in the site's own store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PolicyOp {
    /// Look at a module. → `Admitted`, `Rejected`
    Admit {
        /// Which.
        module: Sha256,
    },
    /// Make a set ready to be asked, and keep it until another set counts. → `Prepared`, `Rejected`
    Prepare {
        /// Which.
        set: Box<PolicySet>,
    },
    /// Remove a module's bytes; gone already is done. → `Done`
    Retire {
        /// Which.
        module: Sha256,
    },
    /// Let this module decide beside the set, in the place of another one that does; `None` lets none. A rejected one
    /// changes nothing. → `Done`, `Rejected`
    Shadow(Option<(Slot, Binding)>),
}

impl PolicyOp {
    /// A short stable word for logs and metrics.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            PolicyOp::Admit { .. } => "admit",
            PolicyOp::Prepare { .. } => "prepare",
            PolicyOp::Retire { .. } => "retire",
            PolicyOp::Shadow(_) => "shadow",
        }
    }
}

/// A text frame for a device. Secrets stand in it as `"tidegate-secret:<handle>"` and are written in by the edge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// One JSON object and a newline.
    pub text: String,
    /// The secret that stands in it.
    pub secret: Option<SecretRef>,
}

/// Why we close a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseWhy {
    /// A newer connection of the same program took over: close code 4001.
    Replaced,
    /// The site stops: close code 1001.
    GoingAway,
    /// What it said, or what would be done about it, made the core panic too often: close code 4002.
    Quarantined,
    /// What proved it was revoked, or its device may have no link: close code 4003.
    Revoked,
}

/// Whether devices may upload to the embedded S3 endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// They may.
    Open,
    /// The disk is nearly full: what is left is for the records of what is here already.
    Full,
    /// The site is stopping.
    Stopping,
}

/// The answer to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Response {
    /// What a recorder answered to a command, whatever it was.
    Rpc {
        /// The RPC's id.
        request_id: String,
        /// Its word.
        success: bool,
        /// Its message.
        message: Option<String>,
        /// Its data, a JSON object.
        data: Option<String>,
    },
    /// The state of a recorder.
    State(RecorderView),
    /// A start callback was heard; whether it moved the task.
    Started {
        /// Whether this call moved the task to `in_progress`.
        moved: bool,
    },
    /// A finish callback was heard.
    Finished {
        /// Where the task stands now.
        state: TaskState,
        /// What came of it.
        handled: Finish,
    },
    /// The records follow the device.
    Resolved {
        /// Whose.
        device: DeviceId,
        /// What it still holds against them.
        left: Option<ConflictView>,
    },
    /// The task.
    Task(TaskRow),
    /// The episode.
    Episode(Box<EpisodeRow>),
    /// The episode is queued, durably.
    SyncAccepted {
        /// Which.
        episode: EpisodeId,
    },
    /// So many episodes are queued, durably.
    BatchAccepted {
        /// How many.
        count: u32,
    },
    /// Modules and the set of policies as they are now.
    Policy(Box<PolicyView>),
    /// It is on its way to the device, which need not answer.
    Sent,
    /// The device.
    Device(Box<DeviceRow>),
    /// The token: as it is now, or as it was when it was revoked.
    Token(Box<TokenRow>),
    /// Registration is open for as long as was asked.
    Window,
}

/// What came of a finish callback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// The device was asked to upload.
    Requested,
    /// Its uploader is not connected; it is asked when it comes.
    TransferOffline,
    /// The callback was heard before.
    Repeated,
}

/// A recorder as viewers see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecorderView {
    /// Whose.
    pub device: DeviceId,
    /// Whether a recorder link is up.
    pub connected: bool,
    /// The last state reported, in the device's own spelling; `unknown` if none.
    pub state: String,
    /// The state before it.
    pub previous: String,
    /// The task it names, by wire id; empty if none.
    pub task: String,
    /// When it was reported.
    pub updated_at: Wall,
    /// Whether it is confirmed.
    pub synced: bool,
    /// Whether this very answer was just asked for or is young enough.
    pub fresh: bool,
    /// What reported it: `state_update`, `get_state`, `rpc_response:<action>`, `rpc_timeout:<action>` or nothing.
    pub source: String,
    /// `unknown`, `syncing`, `confirmed` or `stale`.
    pub confidence: &'static str,
    /// The link's number; 0 if there is none.
    pub generation: u64,
    /// Counts changes that viewers were told of, per device and boot.
    pub version: u64,
    /// Milliseconds since it was reported, at the moment of this view.
    pub age_ms: u64,
    /// What went wrong at the last try to confirm.
    pub error: Option<String>,
    /// When it was last asked for its state, if it was not confirmed since.
    pub asked_at: Option<Wall>,
    /// What it said, as a JSON object in its own words; `None` if nothing, or more than anybody wants to read.
    pub raw: Option<String>,
}

/// A link as viewers see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkView {
    /// Its number.
    pub generation: u64,
    /// Where it comes from.
    pub remote: String,
    /// Since when.
    pub connected_at: Wall,
}

/// Two programs that fight over one id, as viewers see them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContestView {
    /// Where they come from: address and, if it is known, port. The older owner first.
    pub owners: [String; 2],
    /// How often one replaced the other.
    pub takeovers: u32,
    /// Since when.
    pub since: Wall,
    /// Until when nobody may take over; `None` if somebody may.
    pub closed_until: Option<Wall>,
}

/// What a recorder holds against its records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConflictKind {
    /// A task that is not in the records, or another device's.
    UnknownTask,
    /// One task, while another of its tasks is begun.
    OtherTask,
    /// An attempt that the records gave up.
    OldAttempt,
    /// A task whose recording ended, as far as the records know.
    Over,
}

impl ConflictKind {
    /// Every kind.
    pub const ALL: [ConflictKind; 4] =
        [ConflictKind::UnknownTask, ConflictKind::OtherTask, ConflictKind::OldAttempt, ConflictKind::Over];

    /// A short stable word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            ConflictKind::UnknownTask => "unknown_task",
            ConflictKind::OtherTask => "other_task",
            ConflictKind::OldAttempt => "old_attempt",
            ConflictKind::Over => "over",
        }
    }
}

/// A recorder that contradicts its records, as viewers see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConflictView {
    /// How.
    pub kind: ConflictKind,
    /// What the recorder does.
    pub device_state: String,
    /// The task it names, by wire id.
    pub device_task: String,
    /// The task of the records that it is about, if any.
    pub task: Option<crate::id::TaskId>,
    /// That task's current wire id.
    pub wire: Option<crate::id::WireId>,
    /// Where that task stands.
    pub status: Option<TaskState>,
    /// Since when.
    pub since: Wall,
}

/// Something that viewers should know. The last one per subject is what reads over HTTP answer with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A recorder's state, or what we believe of it, changed.
    Recorder(RecorderView),
    /// A link came or went; `None` is down.
    Link {
        /// Whose.
        device: DeviceId,
        /// Which program.
        role: Role,
        /// What it is now.
        link: Option<LinkView>,
        /// If it went, why: a short stable word.
        why: Option<&'static str>,
        /// The number of this change, per device and boot.
        version: u64,
    },
    /// A link took the place of an older one of the same program. Told before [`Notice::Link`] of the new one.
    Takeover {
        /// Whose.
        device: DeviceId,
        /// Which program.
        role: Role,
        /// The link that was replaced.
        old: LinkView,
        /// The one that is current.
        new: LinkView,
    },
    /// Two programs fight over one id; `None` is over.
    Contest {
        /// Whose.
        device: DeviceId,
        /// Which program.
        role: Role,
        /// How it stands.
        contest: Option<ContestView>,
    },
    /// What a recorder holds contradicts its records, and a person should decide; `None` is settled.
    Conflict {
        /// Whose.
        device: DeviceId,
        /// How it stands.
        conflict: Option<ConflictView>,
    },
    /// The end of a command is unknown.
    OperationUnknown {
        /// Whose.
        device: DeviceId,
        /// Which.
        action: Action,
        /// The task it named.
        task: Option<String>,
        /// How long it could take, in milliseconds.
        budget_ms: u64,
        /// How long ago it was sent, in milliseconds.
        elapsed_ms: u64,
        /// The number of this change, per device and boot.
        version: u64,
    },
    /// A recorder did not answer in time, to whatever. Told before [`Notice::OperationUnknown`].
    Timeout {
        /// Whose.
        device: DeviceId,
        /// What was asked.
        action: Action,
        /// How long it could take, in milliseconds.
        budget_ms: u64,
        /// How long ago it was sent, in milliseconds.
        elapsed_ms: u64,
    },
    /// An uploader told its status.
    Transfer {
        /// Whose.
        device: DeviceId,
        /// What it said.
        status: crate::wire::transfer::Status,
        /// The number of this change, per device and boot.
        version: u64,
    },
    /// A task moved, or its trouble changed.
    Task {
        /// What it is now.
        row: Box<TaskRow>,
        /// Where it stood; `None` if it was made now.
        from: Option<TaskState>,
        /// The change: a short stable word, as in logs.
        change: &'static str,
    },
    /// A recording was verified: it is an episode.
    Recording {
        /// The episode.
        row: Box<EpisodeRow>,
    },
    /// A task waits for its recording for longer than it should: a person should look. Once per task and boot.
    Overdue {
        /// The task.
        row: Box<TaskRow>,
    },
    /// Bytes acknowledged by the cloud.
    Progress {
        /// Of which episode.
        episode: EpisodeId,
        /// By which job.
        job: JobId,
        /// Acknowledged bytes of the recording.
        uploaded: u64,
        /// All its bytes.
        total: u64,
        /// When the last part was acknowledged.
        at: Wall,
    },
    /// No upload runs for this episode any more.
    ProgressEnded {
        /// Which episode.
        episode: EpisodeId,
    },
    /// How the way to the cloud is.
    Destination {
        /// Failures in a row; 0 is fine.
        streak: u32,
        /// The last one's word.
        fault: Option<&'static str>,
        /// When the next try is.
        next_try: Option<Wall>,
    },
    /// A device's message was refused; for logs and counters.
    Refused {
        /// Whose.
        device: DeviceId,
        /// A short stable word.
        code: &'static str,
        /// In words.
        detail: String,
    },
    /// A multipart upload may have been left behind that nobody can see: the store refuses to list them, and the
    /// site stopped looking. An operator may look, or let the bucket expire unfinished uploads.
    StrayUnseen {
        /// Whose upload it may be.
        job: JobId,
        /// At which key of the cloud.
        key: crate::id::ObjectKey,
        /// Why nobody can see it.
        fault: &'static str,
    },
    /// How many jobs are where.
    Queue(QueueCounts),
    /// Something happened to modules or to the set of policies. Told at every boot as well.
    Policy {
        /// What.
        news: PolicyNews,
        /// Everything as it is now.
        view: Box<PolicyView>,
    },
}

/// How many jobs are where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueCounts {
    /// Due now.
    pub due: u32,
    /// Later.
    pub waiting: u32,
    /// Being uploaded.
    pub uploading: u32,
    /// Waiting for an operator.
    pub parked: u32,
}

/// What a step asks for, and what it changed. Reused by the driver, which clears it.
#[derive(Debug, Default)]
pub struct Output {
    /// Changes, in order.
    pub changes: Vec<crate::change::Change>,
    /// What the touched records are now; `None` is removed. Sorted by key.
    pub rows: Vec<(crate::row::Key, Option<crate::row::Row>)>,
    /// Effects, in order.
    pub effects: Vec<Effect>,
    /// Verdicts of policies, in order.
    pub rulings: Vec<crate::policy::Ruled>,
    /// The same verdicts with their questions, for the record of recent decisions.
    pub decisions: Vec<crate::policy::Decision>,
}

impl Output {
    /// Empties it.
    pub fn clear(&mut self) {
        self.changes.clear();
        self.rows.clear();
        self.effects.clear();
        self.rulings.clear();
        self.decisions.clear();
    }
}
