//! Messages of uploaders, and the frames we send them.

use alloc::string::String;
use alloc::vec::Vec;
use minicbor::{Decode, Encode};

use crate::digest::Sha256;
use crate::fact::TransferFrame;
use crate::wire::quoted;

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
    /// Whether `upload_mode` is `mcap_only`: there is no sidecar.
    #[n(4)]
    pub mcap_only: bool,
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
    }
}
