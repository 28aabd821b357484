//! Owns what events of the stream look like: their names, their fields, their frame. Field names are the predecessor's
//! where it had the event.

use serde_json::{Map, Value};
use tidegate_core::digest::Sha256;
use tidegate_core::effect::{LinkView, Notice, QueueCounts, RecorderView};
use tidegate_core::id::{DeviceId, EpisodeId, JobId, Role};
use tidegate_core::policy::{PolicyNews, PolicyView, Slot};
use tidegate_core::row::{Blame, TaskRow, Turn, TurnWhat};
use tidegate_core::time::Wall;

use super::EventId;
use crate::api::shapes::{self, Object, moment};
use crate::board::{Board, DestinationSeen, TransferSeen};

macro_rules! kinds {
    ($($(#[doc = $doc:literal])+ $kind:ident = $name:literal,)+) => {
        /// What an event is about.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Kind {
            $($(#[doc = $doc])+ $kind,)+
        }

        impl Kind {
            /// All of them.
            pub const ALL: &[Kind] = &[$(Kind::$kind,)+];

            /// Its name on the wire.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Kind::$kind => $name,)+
                }
            }
        }
    };
}

kinds! {
    /// A link came or went.
    DeviceConnection = "device_connection",
    /// The state of a recorder, confirmed, or gone with its link.
    RecorderState = "recorder_state",
    /// The state of a recorder as far as it is known, while it is not confirmed.
    RecorderSyncing = "recorder_syncing",
    /// Nobody knows how a command ended.
    RecorderOperationUnknown = "recorder_operation_unknown",
    /// A recorder did not answer in time.
    RpcTimeout = "rpc_timeout",
    /// A link took the place of an older one.
    DeviceTakeover = "device_takeover",
    /// Two programs fight over one id, or do no longer.
    DeviceConflict = "device_conflict",
    /// A recorder contradicts its records, or does no longer.
    TaskConflict = "task_conflict",
    /// A task moved.
    TaskState = "task_state",
    /// A task waits for its recording for too long.
    TaskOverdue = "task_overdue",
    /// An uploader told its status.
    TransferStatus = "transfer_status",
    /// A recording was verified.
    Recording = "recording",
    /// Bytes acknowledged by the cloud.
    UploadProgress = "upload_progress",
    /// No upload runs for an episode any more.
    UploadEnded = "upload_ended",
    /// How the way to the cloud is.
    Destination = "destination",
    /// How many jobs are where.
    Queue = "queue",
    /// An unfinished upload may be left in the cloud.
    StrayUnseen = "stray_unseen",
    /// A message of a device was refused.
    MessageRefused = "message_refused",
    /// Something happened to modules or to the set of policies.
    Policy = "policy",
}

impl Kind {
    /// The kind of a name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Kind> {
        Kind::ALL.iter().copied().find(|kind| kind.name() == name)
    }
}

/// An event before it has a number.
#[derive(Debug)]
pub(super) struct Event {
    pub(super) kind: Kind,
    /// Whose it is, if it is about a device.
    pub(super) device: Option<DeviceId>,
    pub(super) fields: Map<String, Value>,
}

/// The event of a notice that the board has taken. `suppressed` is how many like it were not told.
pub(super) fn of(board: &Board, now: Wall, notice: &Notice, suppressed: u64) -> Event {
    let (kind, device, object) = match notice {
        Notice::Recorder(view) => (recorder_kind(view), Some(&view.device), recorder(view)),
        Notice::Link { device, role, link, why, version } => {
            let mut object = Object::new()
                .all(links(board, device))
                .put("source", source(*role, link.is_some()))
                .put("state_version", *version)
                .maybe("why", *why);
            if let Some(link) = link {
                object = object.all(of_link(link));
            }
            (Kind::DeviceConnection, Some(device), object)
        }
        Notice::OperationUnknown { device, action, task, budget_ms, elapsed_ms, version } => {
            let object = Object::new()
                .put("action", action.name())
                .put("error", "recorder rpc timeout")
                .put("result_unknown", true)
                .put("source", format!("rpc_timeout:{}", action.name()))
                .put("state_version", *version)
                .put("task_id", task.as_deref().unwrap_or_default())
                .put("timeout", timeout(*budget_ms))
                .put("timeout_ms", *budget_ms)
                .put("elapsed_ms", *elapsed_ms);
            (Kind::RecorderOperationUnknown, Some(device), object)
        }
        Notice::Timeout { device, action, budget_ms, elapsed_ms } => {
            let object = Object::new()
                .put("action", action.name())
                .put("timeout_ms", *budget_ms)
                .put("elapsed_ms", *elapsed_ms);
            (Kind::RpcTimeout, Some(device), object)
        }
        Notice::Takeover { device, role, old, new } => {
            let object = Object::new()
                .put("role", role.name())
                .put("old", Value::Object(of_link(old)))
                .put("new", Value::Object(of_link(new)));
            (Kind::DeviceTakeover, Some(device), object)
        }
        Notice::Contest { device, role, contest } => {
            let mut object = Object::new().put("role", role.name()).put("contested", contest.is_some());
            if let Some(view) = contest {
                object = object
                    .put("addresses", view.owners.to_vec())
                    .put("takeovers", view.takeovers)
                    .put("since", moment(view.since))
                    .maybe("closed_until", view.closed_until.map(moment));
            }
            (Kind::DeviceConflict, Some(device), object)
        }
        Notice::Conflict { device, conflict } => {
            let mut object = Object::new().put("conflicting", conflict.is_some());
            if let Some(view) = conflict {
                object = object
                    .put("conflict", view.kind.name())
                    .put("device_state", view.device_state.as_str())
                    .put("device_task_id", view.device_task.as_str())
                    .maybe("task_id", view.task.as_ref().map(|task| task.as_str()))
                    .maybe("wire_id", view.wire.as_ref().map(|wire| wire.as_str()))
                    .maybe("status", view.status.map(|status| status.name()))
                    .put("since", moment(view.since));
            }
            (Kind::TaskConflict, Some(device), object)
        }
        Notice::Transfer { device, status, version } => {
            let seen = TransferSeen { status: status.clone(), at: now };
            let object = Object::new().all(transfer(&seen)).put("state_version", *version);
            (Kind::TransferStatus, Some(device), object)
        }
        Notice::Task { row, from, change } => {
            let object = Object::new()
                .all(task(row))
                .put("to", row.state.name())
                .maybe("from", from.map(|from| from.name()))
                .put("cause", *change);
            (Kind::TaskState, Some(&row.device), object)
        }
        Notice::Overdue { row } => {
            let object = Object::new().all(task(row)).maybe("since", row.uploading_at.map(moment));
            (Kind::TaskOverdue, Some(&row.device), object)
        }
        Notice::Recording { row } => {
            let object = Object::new()
                .put("episode_id", row.id.0)
                .put("public_id", row.public_id.as_str())
                .put("task_id", row.task.as_str())
                .put("wire_id", row.wire.as_str())
                .put("s3_key", row.key.as_str())
                .put("file_size_bytes", row.len)
                .put("checksum_sha256", row.sha256.to_string())
                .put("late", row.late)
                .put("updated_at", moment(row.ingested_at));
            (Kind::Recording, Some(&row.device), object)
        }
        Notice::Progress { episode, job, uploaded, total, at } => {
            let object = Object::new().all(progress(*episode, *job, *uploaded, *total, *at));
            (Kind::UploadProgress, None, object)
        }
        Notice::ProgressEnded { episode } => {
            (Kind::UploadEnded, None, Object::new().put("episode_id", episode.0))
        }
        Notice::Destination { streak, fault, next_try } => {
            let seen = DestinationSeen { streak: *streak, fault: *fault, next_try: *next_try };
            (Kind::Destination, None, Object::new().all(destination(&seen)))
        }
        Notice::Queue(counts) => (Kind::Queue, None, Object::new().all(queue(counts))),
        Notice::StrayUnseen { job, key, fault } => {
            let object = Object::new().put("job_id", job.0).put("s3_key", key.as_str()).put("fault", *fault);
            (Kind::StrayUnseen, None, object)
        }
        Notice::Refused { device, code, detail } => {
            let object =
                Object::new().put("code", *code).put("detail", detail.as_str()).put("suppressed", suppressed);
            (Kind::MessageRefused, Some(device), object)
        }
        Notice::Policy { news, view } => (Kind::Policy, None, policy(news, view)),
    };
    let mut fields = object.fields();
    if let Some(device) = device {
        fields.insert("device_id".to_owned(), device.as_str().into());
    }
    fields.entry("updated_at").or_insert_with(|| moment(now).into());
    Event { kind, device: device.cloned(), fields }
}

fn recorder_kind(view: &RecorderView) -> Kind {
    if view.connected && !view.synced { Kind::RecorderSyncing } else { Kind::RecorderState }
}

fn recorder(view: &RecorderView) -> Object {
    let object = Object::new().all(shapes::recorder_state(view, view.age_ms));
    match recorder_kind(view) {
        Kind::RecorderSyncing => object.put("error", view.error.as_deref().unwrap_or_default()),
        _ => object,
    }
}

/// Which links of a device are up.
pub(crate) fn links(board: &Board, device: &DeviceId) -> Map<String, Value> {
    let (recorder, transfer) = board.links_of(device);
    Object::new()
        .put("device_id", device.as_str())
        .put("connected", recorder && transfer)
        .put("recorder_connected", recorder)
        .put("transfer_connected", transfer)
        .fields()
}

fn of_link(link: &LinkView) -> Map<String, Value> {
    Object::new()
        .put("generation", link.generation)
        .put("remote_ip", link.remote.as_str())
        .put("connected_at", moment(link.connected_at))
        .fields()
}

fn source(role: Role, up: bool) -> &'static str {
    match (role, up) {
        (Role::Recorder, true) => "recorder_connected",
        (Role::Recorder, false) => "recorder_disconnected",
        (Role::Transfer, true) => "transfer_connected",
        (Role::Transfer, false) => "transfer_disconnected",
    }
}

/// An uploader's status without its list of uploads.
pub(crate) fn transfer(seen: &TransferSeen) -> Map<String, Value> {
    let mut fields = match shapes::transfer_status(Some(&seen.without_uploads())) {
        Value::Object(fields) => fields,
        _ => Map::new(),
    };
    fields.remove("uploads");
    fields
}

/// A task without its configuration and without what its recorder said of the recording.
pub(crate) fn task(row: &TaskRow) -> Map<String, Value> {
    Object::new()
        .put("task_id", row.id.as_str())
        .put("device_id", row.device.as_str())
        .put("attempt", row.attempt)
        .put("wire_id", row.wire.as_str())
        .put("status", row.state.name())
        .put("updated_at", moment(row.updated_at))
        .maybe("error_message", row.error.as_deref())
        .fields()
}

/// How far an upload is.
pub(crate) fn progress(
    episode: EpisodeId,
    job: JobId,
    uploaded: u64,
    total: u64,
    at: Wall,
) -> Map<String, Value> {
    Object::new()
        .put("episode_id", episode.0)
        .put("job_id", job.0)
        .put("uploaded_bytes", uploaded)
        .put("total_bytes", total)
        .put("updated_at", moment(at))
        .fields()
}

/// How the way to the cloud is.
pub(crate) fn destination(seen: &DestinationSeen) -> Map<String, Value> {
    Object::new()
        .put("streak", seen.streak)
        .maybe("fault", seen.fault)
        .maybe("next_try_at", seen.next_try.map(moment))
        .fields()
}

/// How many jobs are where.
pub(crate) fn queue(counts: &QueueCounts) -> Map<String, Value> {
    Object::new()
        .put("due", counts.due)
        .put("waiting", counts.waiting)
        .put("uploading", counts.uploading)
        .put("parked", counts.parked)
        .fields()
}

fn policy(news: &PolicyNews, view: &PolicyView) -> Object {
    let (slot, module) = subject(news, view);
    Object::new()
        .put("news", news.name())
        .put("text", news.to_string())
        .maybe("slot", slot.map(Slot::name))
        .maybe("module", module.map(|module| module.to_string()))
        .put("generation", view.generation)
        .put("set", shapes::set_id(view.set))
        .maybe("reason", reason(news))
}

/// The slot and the module that news are about.
fn subject(news: &PolicyNews, view: &PolicyView) -> (Option<Slot>, Option<Sha256>) {
    match news {
        PolicyNews::Booted
        | PolicyNews::Prepared
        | PolicyNews::Unprepared(_)
        | PolicyNews::Probed
        | PolicyNews::ShadowEnded => (None, None),
        PolicyNews::Admitted(module)
        | PolicyNews::Rejected { module, .. }
        | PolicyNews::Released(module)
        | PolicyNews::Retired(module) => (None, Some(*module)),
        PolicyNews::Turned(turn) => turned(turn, view),
        PolicyNews::Faulted(mark) => (Some(mark.slot), Some(mark.module)),
        PolicyNews::Quarantined { module, slot, .. } => (*slot, Some(*module)),
        PolicyNews::Shadowed { slot, module } => (Some(*slot), Some(*module)),
    }
}

fn turned(turn: &Turn, view: &PolicyView) -> (Option<Slot>, Option<Sha256>) {
    match &turn.what {
        TurnWhat::Configured | TurnWhat::RolledBack { .. } => (None, None),
        TurnWhat::Activated { slot } => {
            let chosen = turn.slots.iter().find(|(at, _)| at == slot);
            (Some(*slot), chosen.map(|(_, binding)| binding.module))
        }
        TurnWhat::Reset { slot } => (Some(*slot), view.default),
        TurnWhat::Ejected { module, .. } => (None, Some(*module)),
    }
}

/// Why, as a word, where something went wrong.
fn reason(news: &PolicyNews) -> Option<String> {
    let blamed = |blame: &Blame| blame.code().to_owned();
    match news {
        PolicyNews::Rejected { code, .. } => Some(code.clone()),
        PolicyNews::Faulted(mark) => Some(mark.fault.code().to_owned()),
        PolicyNews::Quarantined { blame, .. } => Some(blamed(blame)),
        PolicyNews::Turned(Turn { what: TurnWhat::Ejected { blame, .. }, .. }) => Some(blamed(blame)),
        PolicyNews::Unprepared(why) => Some(why.clone()),
        PolicyNews::Booted
        | PolicyNews::Admitted(_)
        | PolicyNews::Turned(_)
        | PolicyNews::Prepared
        | PolicyNews::Probed
        | PolicyNews::Released(_)
        | PolicyNews::Shadowed { .. }
        | PolicyNews::ShadowEnded
        | PolicyNews::Retired(_) => None,
    }
}

/// A time as the predecessor wrote it: `15s`, `1.5s`, `2m0s`, `250ms`.
pub(super) fn timeout(ms: u64) -> String {
    if ms < 1000 {
        return format!("{ms}ms");
    }
    let (hours, minutes, seconds, rest) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60, ms % 1000);
    let rest = if rest == 0 { String::new() } else { format!(".{rest:03}").trim_end_matches('0').to_owned() };
    match (hours, minutes) {
        (0, 0) => format!("{seconds}{rest}s"),
        (0, minutes) => format!("{minutes}m{seconds}{rest}s"),
        (hours, minutes) => format!("{hours}h{minutes}m{seconds}{rest}s"),
    }
}

/// The frame of an event, and the place in it where a follower with a filter is told of the one before: there its keys
/// stay in order.
pub(super) fn encode(id: EventId, kind: Kind, mut fields: Map<String, Value>) -> (String, usize) {
    fields.insert("seq".to_owned(), id.seq.into());
    fields.insert("type".to_owned(), kind.name().into());
    let mut text = format!("id: {id}\nevent: {}\ndata: {{", kind.name());
    let mut prev_at = None;
    for (key, value) in &fields {
        if key.as_str() > PREV && prev_at.is_none() {
            prev_at = Some(text.len());
        }
        // JSON of ours has no line break outside of strings, and in them it is escaped.
        text.push_str(&format!("{}:{value},", Value::from(key.as_str())));
    }
    text.pop();
    text.push_str("}\n\n");
    (text, prev_at.expect("`type` comes after `prev`"))
}

/// The key under which a follower with a filter is told of the event before.
const PREV: &str = "prev";

/// A frame that is no event of the window: parts of snapshots, and what is said of the stream itself.
pub(crate) fn frame(name: &str, id: Option<EventId>, fields: Map<String, Value>) -> String {
    let id = id.map(|id| format!("id: {id}\n")).unwrap_or_default();
    let fields = Object::new().all(fields).put("type", name);
    format!("{id}event: {name}\ndata: {}\n\n", Value::from(fields))
}
