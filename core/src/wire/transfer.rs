//! Messages of uploaders, and the frames we send them.

use alloc::string::String;
use alloc::vec::Vec;
use minicbor::{Decode, Encode};
use serde_json::{Map, Value};

use crate::digest::Sha256;
use crate::fact::TransferFrame;
use crate::limits;
use crate::row::shorten;
use crate::wire::{Unusable, inner, number, object, quoted, text};

/// What an uploader says.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum TransferMessage {
    /// `connected` or `status`
    #[n(0)]
    Status(#[n(0)] Status),
    /// `upload_started`
    #[n(1)]
    UploadStarted(#[n(0)] Announced),
    /// `upload_complete`
    #[n(2)]
    UploadComplete(#[n(0)] Announced),
    /// `upload_failed`
    #[n(3)]
    UploadFailed {
        /// Which recording, by wire id.
        #[n(0)]
        task: String,
        /// Its words.
        #[n(1)]
        reason: Option<String>,
    },
    /// `upload_not_found`
    #[n(4)]
    UploadNotFound {
        /// Which recording, by wire id.
        #[n(0)]
        task: String,
        /// Its words.
        #[n(1)]
        detail: Option<String>,
    },
    /// Anything else; its type, shortened.
    #[n(5)]
    Other(#[n(0)] String),
}

/// What an uploader says of one recording. A claim, not a proof.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Announced {
    /// Which, by wire id.
    #[n(0)]
    pub task: String,
    /// `s3_key`, else `object_key`: where it put it in the edge bucket.
    #[n(1)]
    pub key: Option<String>,
    /// `file_size_bytes`
    #[n(2)]
    pub len: Option<u64>,
    /// `checksum_sha256`
    #[n(3)]
    pub sha256: Option<Sha256>,
    /// Whether `upload_mode` is `mcap_only`: there is no sidecar. `None` does not say; older programs leave it out of
    /// `upload_complete`.
    #[n(4)]
    pub mcap_only: Option<bool>,
}

/// An uploader's status. Absent is not empty: the short form has no lists.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Status {
    /// Whether it is the `connected` message.
    #[n(0)]
    pub connected: bool,
    /// `version`
    #[n(1)]
    pub version: Option<String>,
    /// `pending_count`
    #[n(2)]
    pub pending: u64,
    /// `active_count`
    #[n(3)]
    pub active: u64,
    /// `uploading_count`
    #[n(4)]
    pub uploading: u64,
    /// `retry_wait_count`
    #[n(5)]
    pub retry_wait: u64,
    /// `waiting_ack_count`
    #[n(6)]
    pub waiting_ack: u64,
    /// `completed_count`
    #[n(7)]
    pub completed: u64,
    /// `failed_count`
    #[n(8)]
    pub failed: u64,
    /// `pending_bytes`
    #[n(9)]
    pub pending_bytes: u64,
    /// `bytes_per_sec`
    #[n(10)]
    pub bytes_per_sec: u64,
    /// `waiting_ack_task_ids`; `None` if it did not say.
    #[n(11)]
    pub waiting_ack_tasks: Option<Vec<String>>,
    /// `uploads` that are not completed, at most as many as the limit; `None` if it did not say.
    #[n(12)]
    pub uploads: Option<Vec<UploadEntry>>,
    /// Entries of `uploads` left out because they are completed or too many: how many, and a digest of them.
    #[n(13)]
    pub left_out: Option<(u64, Sha256)>,
}

/// One entry of `uploads`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct UploadEntry {
    /// Where it stands.
    #[n(0)]
    pub status: UploadStatus,
    /// What it says of the recording.
    #[n(1)]
    pub announced: Announced,
    /// `last_error`
    #[n(2)]
    pub last_error: Option<String>,
}

/// Where a recording stands at the uploader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum UploadStatus {
    /// `pending`
    #[n(0)]
    Pending,
    /// `active`
    #[n(1)]
    Active,
    /// `retry-wait` or `retry_wait`
    #[n(2)]
    RetryWait,
    /// `uploaded_wait_ack`
    #[n(3)]
    WaitAck,
    /// `completed`
    #[n(4)]
    Completed,
    /// `failed`
    #[n(5)]
    Failed,
    /// Anything else.
    #[n(6)]
    Unknown,
}

/// Reads a message. Only what is no JSON object is refused; anything else that is unknown is [`TransferMessage::Other`].
pub fn decode(bytes: &[u8]) -> Result<TransferMessage, Unusable> {
    let map = object(bytes)?;
    let kind = text(&map, "type").unwrap_or_default();
    let other = || TransferMessage::Other(shorten(&kind, limits::TYPE_BYTES));
    let Some(data) = inner(&map, "data") else { return Ok(other()) };
    let task = task(data);
    let reason = |field| text(data, field).map(|t| shorten(&t, limits::REASON_BYTES));
    Ok(match (kind.as_str(), task) {
        ("connected", _) => TransferMessage::Status(status(data, true)),
        ("status", _) => TransferMessage::Status(status(data, false)),
        ("upload_started", Some(task)) => TransferMessage::UploadStarted(announced(data, task)),
        ("upload_complete", Some(task)) => TransferMessage::UploadComplete(announced(data, task)),
        ("upload_failed", Some(task)) => TransferMessage::UploadFailed { task, reason: reason("reason") },
        ("upload_not_found", Some(task)) => {
            TransferMessage::UploadNotFound { task, detail: reason("detail") }
        }
        _ => other(),
    })
}

/// Writes a frame: one object, keys in alphabetical order, and a newline.
#[must_use]
pub fn encode(frame: &TransferFrame) -> String {
    match frame {
        TransferFrame::UploadRequest { task, priority } => alloc::format!(
            "{{\"priority\":{priority},\"task_id\":{},\"type\":\"upload_request\"}}\n",
            quoted(task.as_str())
        ),
        TransferFrame::UploadAck { task } => {
            alloc::format!("{{\"task_id\":{},\"type\":\"upload_ack\"}}\n", quoted(task.as_str()))
        }
        TransferFrame::StatusQuery => String::from("{\"type\":\"status_query\"}\n"),
        TransferFrame::UploadAll => String::from("{\"type\":\"upload_all\"}\n"),
        TransferFrame::Cancel { task } => {
            alloc::format!("{{\"task_id\":{},\"type\":\"cancel\"}}\n", quoted(task.as_str()))
        }
    }
}

fn status(data: &Map<String, Value>, connected: bool) -> Status {
    let count = |field| number(data, field).unwrap_or(0);
    // Byte counts are numbers only: a text in their place counts as nothing.
    let bytes = |field| if data.get(field).is_some_and(Value::is_number) { count(field) } else { 0 };
    let (uploads, mut left_out) = match data.get("uploads").and_then(Value::as_array) {
        Some(listed) => {
            let (kept, left_out) = entries(listed);
            (Some(kept), left_out)
        }
        None => (None, None),
    };
    let waiting_ack_tasks = data.get("waiting_ack_task_ids").and_then(Value::as_array).map(|ids| {
        let (kept, more) = waiting(ids);
        left_out = both(left_out, more);
        kept
    });
    Status {
        connected,
        version: text(data, "version").map(|v| shorten(&v, limits::TYPE_BYTES)),
        pending: count("pending_count"),
        active: count("active_count"),
        uploading: count("uploading_count"),
        retry_wait: count("retry_wait_count"),
        waiting_ack: count("waiting_ack_count"),
        completed: count("completed_count"),
        failed: count("failed_count"),
        pending_bytes: bytes("pending_bytes"),
        bytes_per_sec: bytes("bytes_per_sec"),
        waiting_ack_tasks,
        uploads,
        left_out,
    }
}

/// The recordings that wait for their acknowledgement, and how many there are beyond our bound with a digest of them.
fn waiting(listed: &[Value]) -> (Vec<String>, Option<(u64, Sha256)>) {
    let ids = listed.iter().filter_map(Value::as_str).map(str::trim);
    let mut ids = ids.filter(|id| !id.is_empty() && id.len() <= limits::WIRE_BYTES);
    let kept = ids.by_ref().take(limits::STATUS_UPLOADS).map(String::from).collect();
    let (mut left_out, mut rest) = (0, Vec::new());
    for id in ids {
        left_out += 1;
        rest.extend_from_slice(id.as_bytes());
        rest.push(b'\n');
    }
    (kept, (left_out > 0).then(|| (left_out, Sha256::of(&rest))))
}

/// What two lists left out: the sum, and a digest of both digests.
fn both(one: Option<(u64, Sha256)>, other: Option<(u64, Sha256)>) -> Option<(u64, Sha256)> {
    match (one, other) {
        (Some((n, a)), Some((m, b))) => Some((n + m, Sha256::of(&[a.0, b.0].concat()))),
        (one, None) => one,
        (None, other) => other,
    }
}

/// The entries worth keeping, and how many others there are with a digest of them: a device lists every upload it
/// ever made, and all of that would stand in the journal again with every status.
fn entries(listed: &[Value]) -> (Vec<UploadEntry>, Option<(u64, Sha256)>) {
    let mut kept = Vec::new();
    let mut rest = Vec::new();
    let mut left_out = 0;
    for value in listed {
        let Some(map) = value.as_object() else { continue };
        let Some(task) = task(map) else { continue };
        let status = upload_status(text(map, "status").as_deref().unwrap_or_default());
        if status == UploadStatus::Completed || kept.len() >= limits::STATUS_UPLOADS {
            left_out += 1;
            rest.extend_from_slice(alloc::format!("{value}\n").as_bytes());
            continue;
        }
        let last_error = text(map, "last_error").map(|t| shorten(&t, limits::REASON_BYTES));
        kept.push(UploadEntry { status, announced: announced(map, task), last_error });
    }
    (kept, (left_out > 0).then(|| (left_out, Sha256::of(&rest))))
}

fn announced(map: &Map<String, Value>, task: String) -> Announced {
    Announced {
        task,
        key: key(map, "s3_key").or_else(|| key(map, "object_key")),
        len: number(map, "file_size_bytes"),
        sha256: text(map, "checksum_sha256").and_then(|hex| Sha256::from_hex(&hex)),
        mcap_only: text(map, "upload_mode").map(|mode| mode == "mcap_only"),
    }
}

/// The recording that is named. One that is longer than a wire id can be names nothing of ours: it counts as absent.
fn task(map: &Map<String, Value>) -> Option<String> {
    text(map, "task_id").filter(|id| id.len() <= limits::WIRE_BYTES)
}

/// A key; one that is longer than a key can be counts as absent.
fn key(map: &Map<String, Value>, field: &str) -> Option<String> {
    text(map, field).filter(|key| key.len() <= limits::KEY_BYTES)
}

fn upload_status(word: &str) -> UploadStatus {
    match word {
        "pending" => UploadStatus::Pending,
        "active" => UploadStatus::Active,
        "retry-wait" | "retry_wait" => UploadStatus::RetryWait,
        "uploaded_wait_ack" => UploadStatus::WaitAck,
        "completed" => UploadStatus::Completed,
        "failed" => UploadStatus::Failed,
        _ => UploadStatus::Unknown,
    }
}

#[cfg(test)]
#[path = "transfer_tests.rs"]
mod tests;
