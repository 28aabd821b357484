//! Owns what rows and views look like as JSON. Field names are the predecessor's; absent fields are left out.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use tidegate_core::digest::Sha256;
use tidegate_core::effect::{ConflictView, RecorderView};
use tidegate_core::id::{EpisodeId, ObjectKey, PolicySetId, Role, TaskId, WireId};
use tidegate_core::knobs::Room;
use tidegate_core::object::McapFacts;
use tidegate_core::outcome::Fault;
use tidegate_core::row::{
    Cause, Doubt, EarlierAttempt, EpisodeRow, FinalWhy, Inspection, JobRow, JobState, ParkWhy, SyncMark,
    TaskRow, TaskState,
};
use tidegate_core::time::Wall;
use tidegate_core::wire::transfer::{Status, UploadEntry, UploadStatus};

use crate::board::{DestinationSeen, DeviceSeen, ProgressSeen, Space, TransferSeen};
use crate::ingest::Gate;

/// A moment nobody has seen, as the predecessor wrote it.
pub const NEVER: &str = "0001-01-01T00:00:00Z";

/// A JSON object whose absent fields are left out.
#[derive(Clone, Debug, Default)]
pub struct Object(Map<String, Value>);

impl Object {
    /// Without fields.
    #[must_use]
    pub fn new() -> Object {
        Object::default()
    }

    /// With a field.
    #[must_use]
    pub fn put(mut self, field: &str, value: impl Into<Value>) -> Object {
        self.0.insert(field.to_owned(), value.into());
        self
    }

    /// With a field, if there is a value.
    #[must_use]
    pub fn maybe(self, field: &str, value: Option<impl Into<Value>>) -> Object {
        match value {
            Some(value) => self.put(field, value),
            None => self,
        }
    }

    /// With the fields of another; its values win.
    #[must_use]
    pub fn all(mut self, fields: Map<String, Value>) -> Object {
        self.0.extend(fields);
        self
    }

    /// The fields.
    #[must_use]
    pub fn fields(self) -> Map<String, Value> {
        self.0
    }
}

impl From<Object> for Value {
    fn from(object: Object) -> Value {
        Value::Object(object.0)
    }
}

/// RFC 3339 in UTC, milliseconds only where there are any.
#[must_use]
pub fn moment(at: Wall) -> String {
    Timestamp::from_millisecond(at.0).map_or_else(|_| NEVER.to_owned(), |at| at.to_string())
}

/// RFC 3339 in UTC, whole seconds: the sync routes.
#[must_use]
pub fn second(at: Wall) -> String {
    moment(Wall(at.0.div_euclid(1000) * 1000))
}

/// The id of a set of policies: 64 hexadecimal digits.
#[must_use]
pub fn set_id(set: PolicySetId) -> String {
    Sha256(set.0).to_string()
}

/// A module as metrics and logs name it: the first twelve digits of its hash.
#[must_use]
pub fn short(module: Sha256) -> String {
    module.to_string().chars().take(12).collect()
}

/// A JSON text of ours, back as JSON.
#[must_use]
pub fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_default()
}

/// The state of a recorder, all fields of the predecessor's and ours.
#[must_use]
pub fn recorder_state(view: &RecorderView, age_ms: u64) -> Map<String, Value> {
    Object::new()
        .put("device_id", view.device.as_str())
        .put("connected", view.connected)
        .put("current_state", view.state.as_str())
        .put("previous_state", view.previous.as_str())
        .put("task_id", view.task.as_str())
        .put("updated_at", moment(view.updated_at))
        .put("state_synced", view.synced)
        .put("syncing", view.connected && !view.synced)
        .put("fresh", view.fresh)
        .put("age_ms", age_ms)
        .put("source", view.source.as_str())
        .put("state_version", view.version)
        .put("confidence", view.confidence)
        .put("generation", view.generation)
        .maybe("error", view.error.as_deref())
        .fields()
}

/// An uploader's status; zeros and nulls before the first.
#[must_use]
pub fn transfer_status(seen: Option<&TransferSeen>) -> Value {
    let none = Status::default();
    let status = seen.map_or(&none, |seen| &seen.status);
    let uploads = status.uploads.as_ref().map(|list| list.iter().map(upload_entry).collect::<Vec<_>>());
    json!({
        "version": status.version.as_deref().unwrap_or_default(),
        "pending_count": status.pending,
        "active_count": status.active,
        "uploading_count": status.uploading,
        "retry_wait_count": status.retry_wait,
        "waiting_ack_count": status.waiting_ack,
        "waiting_ack_task_ids": status.waiting_ack_tasks,
        "completed_count": status.completed,
        "failed_count": status.failed,
        "pending_bytes": status.pending_bytes,
        "bytes_per_sec": status.bytes_per_sec,
        "uploads": uploads,
        "updated_at": seen.map_or_else(|| NEVER.to_owned(), |seen| moment(seen.at)),
    })
}

fn upload_entry(entry: &UploadEntry) -> Value {
    let status = match entry.status {
        UploadStatus::Pending => "pending",
        UploadStatus::Active => "active",
        UploadStatus::RetryWait => "retry-wait",
        UploadStatus::WaitAck => "uploaded_wait_ack",
        UploadStatus::Completed => "completed",
        UploadStatus::Failed => "failed",
        UploadStatus::Unknown => "unknown",
    };
    let said = &entry.announced;
    Object::new()
        .put("task_id", said.task.as_str())
        .put("status", status)
        .put("s3_key", said.key.as_deref().unwrap_or_default())
        .put("object_key", said.key.as_deref().unwrap_or_default())
        .put("file_size_bytes", said.len.unwrap_or_default())
        .put("checksum_sha256", said.sha256.map_or_else(String::new, |digest| digest.to_string()))
        .put("upload_mode", if said.mcap_only == Some(true) { "mcap_only" } else { "mcap_json" })
        .put("last_error", entry.last_error.as_deref().unwrap_or_default())
        .into()
}

/// A task.
#[must_use]
pub fn task(row: &TaskRow) -> Value {
    let recording = row.recording.as_ref().map(|said| {
        Object::new()
            .maybe("started_at", said.started_at.map(moment))
            .maybe("finished_at", said.finished_at.map(moment))
            .maybe("duration_ms", said.duration_ms)
            .maybe("message_count", said.messages)
            .maybe("file_size_bytes", said.len)
            .maybe("output_path", said.path.as_deref())
            .maybe("error", said.error.as_deref())
            .maybe("status", said.status.as_deref())
    });
    let earlier =
        row.earlier.as_ref().map(|all| all.iter().map(|it| attempt(row, it)).collect::<Vec<Value>>());
    Object::new()
        .put("task_id", row.id.as_str())
        .put("device_id", row.device.as_str())
        .put("attempt", row.attempt)
        .put("wire_id", row.wire.as_str())
        .put("status", row.state.name())
        .maybe("config", row.config.as_deref().map(parsed))
        .put("created_at", moment(row.created_at))
        .put("updated_at", moment(row.updated_at))
        .maybe("ready_at", row.ready_at.map(moment))
        .maybe("started_at", row.started_at.map(moment))
        .maybe("completed_at", row.completed_at.map(moment))
        .maybe("error_message", row.error.as_deref())
        .maybe("uploading_since", row.uploading_at.map(moment))
        .maybe("recording", recording)
        .maybe("earlier", earlier)
        .into()
}

/// An attempt that was given up, or called off.
fn attempt(row: &TaskRow, it: &EarlierAttempt) -> Value {
    Object::new()
        .put("attempt", it.attempt)
        .put("wire_id", WireId::of_attempt(&row.id, it.attempt).as_str())
        .maybe("started_at", it.started_at.map(moment))
        .put("left_at", moment(it.left_at))
        .put("owed", it.owed)
        .into()
}

/// What a recorder holds against its records.
#[must_use]
pub fn conflict(view: &ConflictView) -> Map<String, Value> {
    Object::new()
        .put("kind", view.kind.name())
        .put("device_state", view.device_state.as_str())
        .put("device_task_id", view.device_task.as_str())
        .maybe("task_id", view.task.as_ref().map(TaskId::as_str))
        .maybe("wire_id", view.wire.as_ref().map(WireId::as_str))
        .maybe("task_status", view.status.map(TaskState::name))
        .put("since", moment(view.since))
        .fields()
}

/// A task, and whether its recording is overdue at this moment.
#[must_use]
pub fn task_now(row: &TaskRow, now: Wall, deadline: Option<Duration>) -> Value {
    let mut shape = task(row);
    shape["overdue"] = is_overdue(row, now, deadline).into();
    shape
}

/// Whether a task's recording is overdue: past `deadline`, or known to be nowhere.
#[must_use]
pub fn is_overdue(row: &TaskRow, now: Wall, deadline: Option<Duration>) -> bool {
    let late = |since: Wall| deadline.is_some_and(|deadline| since.after(deadline) <= now);
    let nowhere = row.error.as_deref().is_some_and(|error| error.starts_with("recording_missing"));
    row.state == TaskState::Uploading && (row.uploading_at.is_some_and(late) || nowhere)
}

/// Who fights over the links of a device, one per program: `closed_until` only while nobody may take over.
#[must_use]
pub fn contests(seen: &DeviceSeen, now: Wall) -> Vec<Value> {
    let contests = [Role::Recorder, Role::Transfer].into_iter().filter_map(|role| {
        let contest = seen.contest(role)?;
        let closed = contest.closed_until.filter(|until| *until > now);
        let told = Object::new()
            .put("role", role.name())
            .put("addresses", contest.owners.to_vec())
            .put("takeovers", contest.takeovers)
            .put("since", moment(contest.since))
            .maybe("closed_until", closed.map(moment));
        Some(Value::from(told))
    });
    contests.collect()
}

/// An episode and the word for how far it is; `bucket` is the edge's.
#[must_use]
pub fn episode(row: &EpisodeRow, sync_status: &str, bucket: &str) -> Value {
    let (job, synced) = match &row.sync {
        SyncMark::NotStarted => (None, None),
        SyncMark::Queued(job) | SyncMark::Failed(job) => (Some(job.0), None),
        SyncMark::Synced { job, key, at } => (Some(job.0), Some((key, *at))),
    };
    Object::new()
        .put("id", row.id.0)
        .put("episode_id", row.public_id.as_str())
        .put("device_id", row.device.as_str())
        .put("task_id", row.task.as_str())
        .put("wire_id", row.wire.as_str())
        .put("mcap_path", at_edge(bucket, &row.key))
        .maybe("sidecar_path", row.sidecar.as_ref().map(|sidecar| at_edge(bucket, &sidecar.key)))
        .put("file_size_bytes", row.len)
        .put("checksum", row.sha256.to_string())
        .maybe("duration_sec", row.duration_ms.map(|ms| ms as f64 / 1000.0))
        .maybe("message_count", row.messages)
        .maybe("recorded_at", row.recorded_at.map(moment))
        .put("created_at", moment(row.ingested_at))
        .put("qa_status", row.qa.name())
        .maybe("qa_reason", row.qa_reason.as_deref())
        .maybe("qa_at", row.qa_at.map(moment))
        .put("sync_status", sync_status)
        .maybe("sync_job_id", job)
        .put("cloud_synced", synced.is_some())
        .maybe("cloud_synced_at", synced.map(|(_, at)| second(at)))
        .maybe("cloud_mcap_path", synced.map(|(key, _)| key.as_str()))
        .put("cloud_processed", false)
        .put("late", row.late)
        .maybe("inspection", row.inspection.as_ref().map(inspection))
        .maybe("edge_removed_at", row.removed_at.map(moment))
        .maybe("recorder_version", row.recorder_version.as_deref())
        .into()
}

/// What the check of a recording's content came to.
fn inspection(found: &Inspection) -> Value {
    let facts = found.facts.as_ref();
    Object::new()
        .put("checked_at", moment(found.at))
        .put("sound", found.doubt.is_none())
        .maybe("reason", found.doubt.map(Doubt::code))
        .maybe("detail", found.doubt.map(Doubt::text))
        .maybe("message_count", facts.map(|facts| facts.messages))
        .maybe("channel_count", facts.map(|facts| facts.channels))
        .maybe("chunk_count", facts.map(|facts| facts.chunks))
        .maybe("duration_sec", facts.and_then(McapFacts::duration_ms).map(|ms| ms as f64 / 1000.0))
        .into()
}

fn at_edge(bucket: &str, key: &ObjectKey) -> String {
    format!("{bucket}/{key}")
}

/// How a job's state reads on the wire.
#[must_use]
pub fn job_status(state: &JobState) -> &'static str {
    match state {
        JobState::Pending { cause: Cause::Retry(_) | Cause::Destination(_) | Cause::Disk(_), .. } => "failed",
        JobState::Pending {
            cause: Cause::Queued | Cause::Asked | Cause::Returned | Cause::Policy, ..
        }
        | JobState::Parked { .. } => "pending",
        JobState::Claimed { .. } => "in_progress",
        JobState::Completed { .. } => "completed",
        JobState::Failed { .. } => "failed",
    }
}

/// When a job started, as the predecessor counted: its queueing until it is claimed.
#[must_use]
pub fn job_started_at(row: &JobRow) -> Wall {
    match &row.state {
        JobState::Claimed { since, .. } => *since,
        JobState::Pending { .. }
        | JobState::Parked { .. }
        | JobState::Completed { .. }
        | JobState::Failed { .. } => row.first_claimed_at.unwrap_or(row.queued_at),
    }
}

/// A job; `public_id` is its episode's, `bucket` the edge's.
#[must_use]
pub fn job(row: &JobRow, public_id: Option<&str>, bucket: &str, progress: Option<&ProgressSeen>) -> Object {
    let claimed = matches!(row.state, JobState::Claimed { .. });
    let (reason, error, ended, next) = match &row.state {
        JobState::Pending {
            due,
            cause: Cause::Retry(fault) | Cause::Destination(fault) | Cause::Disk(fault),
        } => (Some(fault.code()), Some(fault_text(fault)), row.last_ended_at, Some(*due)),
        JobState::Pending { cause: Cause::Policy, .. } => (Some("policy"), None, None, None),
        JobState::Pending { cause: Cause::Queued | Cause::Asked | Cause::Returned, .. }
        | JobState::Claimed { .. } => (None, None, None, None),
        JobState::Parked { why, .. } => {
            let panic = match why {
                ParkWhy::Quarantined(reason) => Some(reason.clone()),
                ParkWhy::NoDestination | ParkWhy::Fault(_) | ParkWhy::Policy => None,
            };
            (Some(why.code()), panic.or_else(|| row.last_fault.as_ref().map(fault_text)), None, None)
        }
        JobState::Completed { at } => (None, None, Some(*at), None),
        JobState::Failed { why, at } => (Some(why.code()), Some(final_text(why)), Some(*at), None),
    };
    let completed = matches!(row.state, JobState::Completed { .. });
    let started = row.first_claimed_at.filter(|_| !claimed);
    let uploaded = progress.filter(|seen| claimed && seen.job == row.id).map(|seen| seen.uploaded);
    Object::new()
        .put("id", row.id.0)
        .put("episode_id", row.episode.0)
        .maybe("episode_public_id", public_id)
        .maybe("source_path", (row.claims > 0).then(|| at_edge(bucket, &row.source.key)))
        .maybe("destination_path", completed.then(|| row.key.as_str()))
        .put("status", job_status(&row.state))
        .maybe("bytes_transferred", completed.then_some(row.source.len))
        .maybe("duration_sec", started.zip(ended).map(|(from, to)| from.until(to).as_secs()))
        .maybe("error_message", error)
        // The attempt that runs, or the one that succeeded, counts beside those that were spent.
        .put("attempt_count", row.spent + u32::from(claimed || completed))
        .maybe("next_retry_at", next.map(second))
        .put("started_at", second(job_started_at(row)))
        .maybe("completed_at", ended.map(second))
        .maybe("reason", reason)
        .put("key", row.key.as_str())
        .put("device_id", row.device.as_str())
        .put("bytes_sent", row.bytes_sent)
        .maybe("uploaded_bytes", uploaded)
        .maybe("note", row.note.as_deref())
}

/// What stands for a job where there is none.
#[must_use]
pub fn no_job(episode: EpisodeId, public_id: &str) -> Object {
    Object::new()
        .put("id", 0)
        .put("episode_id", episode.0)
        .put("episode_public_id", public_id)
        .put("status", "not_started")
        .put("attempt_count", 0)
}

/// How far an upload is. Only `completed` means 100 percent.
#[must_use]
pub fn progress(seen: &ProgressSeen) -> Option<Value> {
    let uploaded = seen.uploaded.min(seen.total);
    let percent = (u128::from(uploaded) * 100).checked_div(u128::from(seen.total))?.min(99);
    Some(json!({
        "uploaded_bytes": uploaded,
        "total_bytes": seen.total,
        "percent": u64::try_from(percent).unwrap_or(99),
        "updated_at": second(seen.at),
    }))
}

/// How the way to the cloud is.
#[must_use]
pub fn destination(seen: &DestinationSeen) -> Value {
    Object::new()
        .put("streak", seen.streak)
        .maybe("fault", seen.fault)
        .maybe("next_try_at", seen.next_try.map(second))
        .into()
}

/// The disk of the site, and whether devices may upload to it.
#[must_use]
pub fn edge((gate, space): &(Gate, Option<Space>)) -> Value {
    let (word, reason) = match gate {
        Gate::Open => ("open", None),
        Gate::Closed(reason) => ("closed", Some(reason.as_str())),
        Gate::Full => ("full", None),
    };
    let room = space.map(|space| match space.room {
        Room::None => "none",
        Room::Short => "short",
        Room::Enough => "enough",
    });
    Object::new()
        .put("gate", word)
        .maybe("reason", reason)
        .maybe("free_bytes", space.map(|space| space.free))
        .maybe("room", room)
        .into()
}

fn fault_text(fault: &Fault) -> String {
    match fault {
        Fault::Offline => "the store cannot be reached".to_owned(),
        Fault::Throttled { .. } => "the store asks to slow down".to_owned(),
        // No store says these of itself: somebody between us and it did.
        Fault::Unavailable { status: status @ (0..=399 | 401 | 403 | 404 | 407) } => {
            format!("something else answered in the store's place: {status}")
        }
        Fault::Unavailable { status } => format!("the store answered {status}"),
        Fault::Auth => "the store refuses the credentials".to_owned(),
        Fault::ClockSkew => "the store finds the clock of this machine wrong".to_owned(),
        Fault::NoDestination => "no bucket to send to".to_owned(),
        Fault::Vanished(what) => format!("{what:?} vanished").to_lowercase(),
        Fault::Damaged(what) => format!("{what:?} is not what was verified").to_lowercase(),
        Fault::Rejected(code) => format!("the store rejects the request: {code}"),
        Fault::Local(word) => format!("the disk of this machine: {word}"),
    }
}

fn final_text(why: &FinalWhy) -> String {
    match why {
        FinalWhy::Exhausted(fault) => format!("attempts used up: {}", fault_text(fault)),
        FinalWhy::GivenUp(fault) => format!("given up: {}", fault_text(fault)),
        FinalWhy::Foreign => "another object stands at its key".to_owned(),
        FinalWhy::Cancelled => "cancelled".to_owned(),
        FinalWhy::SourceLost(fault) => format!("the recording at the edge is lost: {}", fault_text(fault)),
    }
}
