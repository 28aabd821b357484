//! Owns what an uploader remembers over restarts: one row per recording it ever took on, in one JSON file.
//! Rows are never removed, as with real uploaders.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tidegate_runtime::seam::{Blocking, Clock, Disk, DiskFile, Open, Seams};
use tokio::sync::Mutex;

use crate::device::Env;
use crate::events::DeviceEvent;
use crate::recording::write_file;
use crate::s3::timestamp;

/// ```text
/// Pending -> Active -> WaitAck -> Completed
///              | ^
///              v |
///           RetryWait        Active -> Failed, for good
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Status {
    #[serde(rename = "pending")]
    Pending,
    #[serde(rename = "active")]
    Active,
    #[serde(rename = "retry-wait")]
    RetryWait,
    #[serde(rename = "uploaded_wait_ack")]
    WaitAck,
    #[serde(rename = "completed")]
    Completed,
    #[serde(rename = "failed")]
    Failed,
}

impl Status {
    pub(crate) const ALL: [Self; 6] =
        [Self::Pending, Self::Active, Self::RetryWait, Self::WaitAck, Self::Completed, Self::Failed];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Active => "active",
            Self::RetryWait => "retry-wait",
            Self::WaitAck => "uploaded_wait_ack",
            Self::Completed => "completed",
            Self::Failed => "failed",
        }
    }

    /// Whether a restart queues it again.
    pub(crate) fn is_unfinished(self) -> bool {
        matches!(self, Self::Pending | Self::Active | Self::RetryWait)
    }
}

/// One recording's way to the store.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Row {
    pub task_id: String,
    pub status: Status,
    pub mcap: PathBuf,
    pub json: Option<PathBuf>,
    pub s3_key: String,
    pub file_bytes: u64,
    pub sha256: String,
    pub retry_count: u32,
    pub last_error: String,
    pub last_error_category: String,
    pub next_retry_at: Option<String>,
    pub updated_at: String,
    pub completed_at: Option<String>,
    pub delete_retry_count: u32,
    pub delete_last_error: String,
}

impl Row {
    pub(crate) fn mode(&self) -> &'static str {
        if self.json.is_some() { "mcap_json" } else { "mcap_only" }
    }

    /// The entry in `uploads` of a status.
    pub(crate) fn shown(&self) -> Value {
        let delete_category = if self.delete_last_error.is_empty() { "" } else { "local_file" };
        json!({
            "checksum_sha256": self.sha256,
            "completed_at": self.completed_at,
            "delete_last_error": self.delete_last_error,
            "delete_last_error_category": delete_category,
            "delete_next_retry_at": null,
            "delete_retry_count": self.delete_retry_count,
            "file_path": self.mcap,
            "file_size_bytes": self.file_bytes,
            "json_path": self.json,
            "last_error": self.last_error,
            "last_error_category": self.last_error_category,
            "next_retry_at": self.next_retry_at,
            "object_key": self.s3_key,
            "retry_count": self.retry_count,
            "s3_key": self.s3_key,
            "status": self.status.name(),
            "task_id": self.task_id,
            "updated_at": self.updated_at,
            "upload_mode": self.mode(),
        })
    }
}

/// The rows of one uploader, by task id.
pub(crate) struct Rows<S: Seams> {
    env: Env<S>,
    path: PathBuf,
    table: Arc<Mutex<BTreeMap<String, Row>>>,
}

impl<S: Seams> Clone for Rows<S> {
    fn clone(&self) -> Self {
        Self { env: self.env.clone(), path: self.path.clone(), table: Arc::clone(&self.table) }
    }
}

impl<S: Seams> Rows<S> {
    /// Reads what an earlier run left.
    pub(crate) async fn open(env: Env<S>) -> Self {
        let path = env.config.state_dir.join("state.json");
        let (disk, dir, file) = (env.seams.disk().clone(), env.config.state_dir.clone(), path.clone());
        let read = env.seams.blocking().run(move || {
            disk.create_dir_all(&dir)?;
            let file = match disk.open(&file, Open::Read) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
                opened => opened?,
            };
            let mut bytes = vec![0; usize::try_from(file.len()?).map_err(io::Error::other)?];
            file.read_exact_at(&mut bytes, 0)?;
            serde_json::from_slice(&bytes).map_err(io::Error::other)
        });
        let table = read.await.unwrap_or_else(|error: io::Error| {
            env.log.push(DeviceEvent::Trouble { what: format!("uploader state is unreadable: {error}") });
            BTreeMap::new()
        });
        Self { env, path, table: Arc::new(Mutex::new(table)) }
    }

    pub(crate) fn path(&self) -> &PathBuf {
        &self.path
    }

    /// All rows, by task id.
    pub(crate) async fn all(&self) -> Vec<Row> {
        self.table.lock().await.values().cloned().collect()
    }

    pub(crate) async fn row(&self, task_id: &str) -> Option<Row> {
        self.table.lock().await.get(task_id).cloned()
    }

    /// Adds a row, durably; an existing one stays and makes this `false`.
    pub(crate) async fn insert(&self, row: Row) -> bool {
        let mut table = self.table.lock().await;
        if table.contains_key(&row.task_id) {
            return false;
        }
        let (task_id, status) = (row.task_id.clone(), row.status.name());
        table.insert(task_id.clone(), row);
        self.save(&table).await;
        self.env.log.push(DeviceEvent::Upload { task_id, status });
        true
    }

    /// Changes a row, durably; gives the row after the change.
    pub(crate) async fn update(&self, task_id: &str, change: impl FnOnce(&mut Row)) -> Option<Row> {
        let mut table = self.table.lock().await;
        let row = table.get_mut(task_id)?;
        let before = row.status;
        change(row);
        row.updated_at = timestamp(self.env.seams.clock().now().wall.0, SECONDS);
        let row = row.clone();
        self.save(&table).await;
        if row.status != before {
            let status = row.status.name();
            self.env.log.push(DeviceEvent::Upload { task_id: task_id.to_owned(), status });
        }
        Some(row)
    }

    /// Writes all rows while they are locked, so that the file never goes back in time.
    async fn save(&self, table: &BTreeMap<String, Row>) {
        let saved = match serde_json::to_vec(table) {
            Ok(bytes) => {
                let (disk, path) = (self.env.seams.disk().clone(), self.path.clone());
                self.env.seams.blocking().run(move || write_file(&disk, &path, &bytes)).await
            }
            Err(error) => Err(io::Error::other(error)),
        };
        if let Err(error) = saved {
            self.env.log.push(DeviceEvent::Trouble { what: format!("uploader state not saved: {error}") });
        }
    }
}

/// Times in rows: whole seconds, UTC.
pub(crate) const SECONDS: &str = "%Y-%m-%dT%H:%M:%SZ";
