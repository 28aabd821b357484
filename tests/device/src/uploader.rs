//! Owns the uploader: what each frame does, and what it reports. It uploads nothing that it was not told to.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tidegate_runtime::seam::{Blocking, Clock, Disk, DiskFile, Open, Seams};
use tokio::sync::Semaphore;

use crate::device::Env;
use crate::events::{DeviceEvent, Link};
use crate::link::{Next, Outbox, Program};
use crate::recording::marker_of;
use crate::rows::{Row, Rows, SECONDS, Status};
use crate::s3::{S3, hash, timestamp};

/// The uploader program; clones share everything.
pub(crate) struct Uploader<S: Seams> {
    pub(crate) env: Env<S>,
    pub(crate) outbox: Outbox,
    pub(crate) rows: Rows<S>,
    pub(crate) s3: S3<S>,
    pub(crate) permits: Arc<Semaphore>,
    pub(crate) rng: Arc<Mutex<fastrand::Rng>>,
    pub(crate) speed: Arc<Mutex<Speed>>,
    recovered: usize,
}

/// What was uploaded since the start.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Speed {
    pub bytes_uploaded: u64,
    /// Of the latest upload.
    pub bytes_per_sec: u64,
}

impl<S: Seams> Clone for Uploader<S> {
    fn clone(&self) -> Self {
        Self {
            env: self.env.clone(),
            outbox: self.outbox.clone(),
            rows: self.rows.clone(),
            s3: self.s3.clone(),
            permits: Arc::clone(&self.permits),
            rng: Arc::clone(&self.rng),
            speed: Arc::clone(&self.speed),
            recovered: self.recovered,
        }
    }
}

impl<S: Seams> Uploader<S> {
    /// Reads the rows and queues again what was unfinished.
    pub(crate) async fn start(env: Env<S>, outbox: Outbox, rng: fastrand::Rng) -> Self {
        let rows = Rows::open(env.clone()).await;
        let unfinished: Vec<Row> =
            rows.all().await.into_iter().filter(|row| row.status.is_unfinished()).collect();
        let uploader = Self {
            s3: S3::new(env.seams.clone(), env.config.s3.clone()),
            permits: Arc::new(Semaphore::new(env.config.upload.parallel_uploads.max(1))),
            rng: Arc::new(Mutex::new(rng)),
            speed: Arc::default(),
            recovered: unfinished.len(),
            env,
            outbox,
            rows,
        };
        for row in unfinished {
            uploader.rows.update(&row.task_id, |row| row.status = Status::Pending).await;
            uploader.spawn_upload(row.task_id);
        }
        uploader
    }

    pub(crate) fn now(&self, format: &str) -> String {
        timestamp(self.env.seams.clock().now().wall.0, format)
    }

    pub(crate) fn send(&self, kind: &str, data: &Value) {
        self.outbox.push(&self.frame(kind, data));
    }

    fn frame(&self, kind: &str, data: &Value) -> Value {
        json!({"data": data, "timestamp": self.now("%Y-%m-%dT%H:%M:%S.%3fZ"), "type": kind})
    }

    fn not_found(&self, task_id: &str, detail: String) {
        self.send("upload_not_found", &json!({"detail": detail, "task_id": task_id}));
    }

    /// An upload ends with itself or with the program; a later start takes it up again.
    fn spawn_upload(&self, task_id: String) {
        let uploader = self.clone();
        self.env.life.spawn(async move {
            let life = uploader.env.life.clone();
            tokio::select! {
                biased;
                () = life.stopping() => {}
                () = uploader.upload(&task_id) => {}
            }
        });
    }

    async fn on_upload_request(&self, task_id: &str) {
        let dir = &self.env.config.data_dir;
        let mcap = dir.join(format!("{task_id}.mcap"));
        // A recording with a row of any status counts as not found: the answer does not mean that it is lost.
        if self.rows.row(task_id).await.is_some() || !self.is_ready(&mcap).await {
            let detail = format!("No MCAP file matching {task_id} in {}", dir.display());
            return self.not_found(task_id, detail);
        }
        match self.enqueue(task_id, mcap).await {
            Ok(row) => {
                let mut files = vec![name_of(&row.mcap)];
                files.extend(row.json.as_deref().map(name_of));
                self.send(
                    "upload_started",
                    &json!({
                        "checksum_sha256": row.sha256,
                        "file_size_bytes": row.file_bytes,
                        "files": files,
                        "object_key": row.s3_key,
                        "s3_key": row.s3_key,
                        "status": row.status.name(),
                        "task_id": row.task_id,
                        "total_bytes": row.file_bytes,
                        "upload_mode": row.mode(),
                    }),
                );
                self.spawn_upload(row.task_id);
            }
            Err(error) => {
                let reason = format!("upload enqueue rejected: {error}");
                self.send(
                    "upload_failed",
                    &json!({"next_retry_at": null, "reason": reason, "retry_count": 0, "task_id": task_id}),
                );
            }
        }
    }

    /// Whether the file is there with a sentinel that is no older, in whole seconds.
    async fn is_ready(&self, mcap: &Path) -> bool {
        let sentinel = self.sentinel(mcap);
        let (disk, mcap) = (self.env.seams.disk().clone(), mcap.to_owned());
        let ready = self.env.seams.blocking().run(move || {
            let (mcap, sentinel) = (disk.meta(&mcap)?, disk.meta(&sentinel)?);
            io::Result::Ok(!mcap.is_dir && sentinel.modified_ms / 1000 >= mcap.modified_ms / 1000)
        });
        ready.await.unwrap_or(false)
    }

    fn sentinel(&self, mcap: &Path) -> PathBuf {
        if self.env.config.record.sidecar { mcap.with_extension("json") } else { marker_of(mcap) }
    }

    async fn enqueue(&self, task_id: &str, mcap: PathBuf) -> io::Result<Row> {
        let (disk, path) = (self.env.seams.disk().clone(), mcap.clone());
        let hashed = self.env.seams.blocking().run(move || {
            let file = disk.open(&path, Open::Read)?;
            let len = file.len()?;
            io::Result::Ok((len, hash(&file, 0, len)?))
        });
        let (file_bytes, sha256) = hashed.await?;
        let config = &self.env.config;
        let day = self.now("%Y-%m-%d");
        let row = Row {
            task_id: task_id.to_owned(),
            status: Status::Pending,
            json: config.record.sidecar.then(|| mcap.with_extension("json")),
            mcap,
            s3_key: format!("{}/{}/{day}/{task_id}.mcap", config.s3.factory_id, config.device_id),
            file_bytes,
            sha256,
            retry_count: 0,
            last_error: String::new(),
            last_error_category: String::new(),
            next_retry_at: None,
            updated_at: self.now(SECONDS),
            completed_at: None,
            delete_retry_count: 0,
            delete_last_error: String::new(),
        };
        if !self.rows.insert(row.clone()).await {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        Ok(row)
    }

    /// Enqueues every ready recording without a row, oldest first, and answers with the short status.
    async fn on_upload_all(&self) {
        let (disk, root) = (self.env.seams.disk().clone(), self.env.config.data_dir.clone());
        let skip = self.env.config.state_dir.clone();
        let found = self.env.seams.blocking().run(move || {
            let mut found = Vec::new();
            scan(&disk, &root, &skip, SCAN_DEPTH, &mut found);
            found.sort();
            found
        });
        let mut enqueued = 0;
        for (_, mcap) in found.await {
            let task_id = mcap.file_stem().map(|stem| stem.to_string_lossy().into_owned());
            let task_id = task_id.unwrap_or_default();
            if self.rows.row(&task_id).await.is_none()
                && self.is_ready(&mcap).await
                && self.enqueue(&task_id, mcap).await.is_ok()
            {
                enqueued += 1;
                self.spawn_upload(task_id);
            }
        }
        let rows = self.rows.all().await;
        let count = |status| rows.iter().filter(|row| row.status == status).count();
        self.send(
            "status",
            &json!({
                "active_count": count(Status::Active),
                "completed_count": count(Status::Completed),
                "failed_count": count(Status::Failed),
                // In this answer alone: those just enqueued.
                "pending_count": enqueued,
                "retry_wait_count": count(Status::RetryWait),
                "uploading_count": count(Status::Active),
            }),
        );
    }

    async fn on_upload_ack(&self, task_id: &str) {
        match self.rows.row(task_id).await {
            None => self.not_found(task_id, "ACK for unknown task_id".to_owned()),
            Some(row) if row.status == Status::WaitAck => {
                if let Err((path, error)) = self.clean_up(&row).await {
                    let uploader = self.clone();
                    self.env.life.spawn(async move { uploader.retry_clean_up(row, path, error).await });
                }
            }
            // Dropped without a word: an acknowledgement in a wrong state, or a second one.
            Some(_) => {}
        }
    }

    /// Deletes the files and completes the row; otherwise which file stays, and why.
    async fn clean_up(&self, row: &Row) -> Result<(), (PathBuf, String)> {
        if self.env.config.upload.delete_after_upload {
            for path in [Some(&row.mcap), row.json.as_ref()].into_iter().flatten() {
                let (disk, doomed) = (self.env.seams.disk().clone(), path.clone());
                match self.env.seams.blocking().run(move || disk.remove_file(&doomed)).await {
                    Ok(()) => self.env.log.push(DeviceEvent::FileDeleted { path: path.clone() }),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err((path.clone(), error.to_string())),
                }
            }
        }
        self.complete(&row.task_id).await;
        Ok(())
    }

    async fn complete(&self, task_id: &str) {
        let completed_at = Some(self.now(SECONDS));
        self.rows
            .update(task_id, |row| {
                row.status = Status::Completed;
                row.completed_at = completed_at;
            })
            .await;
    }

    async fn retry_clean_up(&self, row: Row, mut path: PathBuf, mut error: String) {
        for _ in 0..CLEANUP_RETRIES {
            let noted = error.clone();
            self.rows
                .update(&row.task_id, |row| {
                    row.delete_retry_count += 1;
                    row.delete_last_error = noted;
                })
                .await;
            tokio::time::sleep(CLEANUP_DELAY).await;
            match self.clean_up(&row).await {
                Ok(()) => return,
                Err(again) => (path, error) = again,
            }
        }
        self.complete(&row.task_id).await;
        let data = json!({
            "file_path": path,
            "reason": error,
            "retry_count": CLEANUP_RETRIES,
            "task_id": row.task_id,
        });
        self.send("local_cleanup_failed", &data);
    }

    /// The full status, as `connected` and the answer to `status_query` carry it.
    async fn status(&self) -> Value {
        let rows = self.rows.all().await;
        let of = |status| rows.iter().filter(move |row| row.status == status);
        let count = |status| of(status).count();
        let bytes = |status| of(status).map(|row| row.file_bytes).sum::<u64>();
        let speed = *self.speed.lock().unwrap_or_else(PoisonError::into_inner);
        let config = &self.env.config;
        let waiting: Vec<&str> = of(Status::WaitAck).map(|row| row.task_id.as_str()).collect();
        let uploads: Vec<Value> = Status::ALL.into_iter().flat_map(of).map(Row::shown).collect();
        json!({
            "active_count": count(Status::Active),
            "bytes_per_sec": speed.bytes_per_sec,
            "completed_count": count(Status::Completed),
            "destination": {
                "bucket": config.s3.bucket,
                "endpoint_url": format!("http://{}:{}", config.s3.host, config.s3.port),
                "region": config.s3.region,
            },
            "failed_count": count(Status::Failed),
            "pending_bytes": bytes(Status::Pending),
            "pending_count": count(Status::Pending),
            "progress": {
                "active_bytes": bytes(Status::Active),
                "bytes_uploaded": speed.bytes_uploaded,
                "completed_bytes": bytes(Status::Completed),
                "current_bytes_per_sec": speed.bytes_per_sec,
                "failed_bytes": bytes(Status::Failed),
                "pending_bytes": bytes(Status::Pending),
                "retry_wait_bytes": bytes(Status::RetryWait),
                "tracked_bytes": rows.iter().map(|row| row.file_bytes).sum::<u64>(),
                "waiting_ack_bytes": bytes(Status::WaitAck),
            },
            "recovery": {
                "incomplete_count": rows.iter().filter(|row| row.status.is_unfinished()).count(),
                "recovered_count": self.recovered,
                "recovered_from_state": self.recovered > 0,
                "state_db_path": self.rows.path(),
            },
            "retry_wait_count": count(Status::RetryWait),
            "status_counts": {
                "active": count(Status::Active),
                "completed": count(Status::Completed),
                "failed": count(Status::Failed),
                "pending": count(Status::Pending),
                "retry_wait": count(Status::RetryWait),
                "uploaded_wait_ack": count(Status::WaitAck),
            },
            "uploading_count": count(Status::Active),
            "uploads": uploads,
            "waiting_ack_count": waiting.len(),
            "waiting_ack_task_ids": waiting,
        })
    }
}

impl<S: Seams> Program for Uploader<S> {
    const LINK: Link = Link::Transfer;

    async fn snapshot(&mut self) -> String {
        let mut data = self.status().await;
        data["device_id"] = json!(self.env.config.device_id);
        data["version"] = json!("0.1.0");
        self.frame("connected", &data).to_string()
    }

    async fn on_text(&mut self, text: &str) -> Next {
        let Ok(frame) = serde_json::from_str::<Value>(text) else { return Next::Stay };
        let field = |name| frame.get(name).and_then(Value::as_str);
        match (field("type"), field("task_id")) {
            (Some("upload_request"), Some(task_id)) => self.on_upload_request(task_id).await,
            (Some("upload_ack"), Some(task_id)) => self.on_upload_ack(task_id).await,
            (Some("upload_all"), _) => self.on_upload_all().await,
            (Some("status_query"), _) => {
                let status = self.status().await;
                self.send("status", &status);
            }
            // `cancel` does nothing and gets no answer, like everything unknown.
            _ => {}
        }
        Next::Stay
    }

    async fn leave(&mut self) {}
}

fn name_of(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Collects `(modified, path)` of every MCAP file below `dir`, except below `skip`.
fn scan(disk: &impl Disk, dir: &Path, skip: &Path, depth: u32, found: &mut Vec<(i64, PathBuf)>) {
    let names = if dir == skip || depth == 0 { Vec::new() } else { disk.list(dir).unwrap_or_default() };
    for name in names {
        let path = dir.join(&name);
        match disk.meta(&path) {
            Ok(meta) if meta.is_dir => scan(disk, &path, skip, depth - 1, found),
            Ok(meta) if name.ends_with(".mcap") => found.push((meta.modified_ms, path)),
            // Another kind of file, or one that has just gone.
            Ok(_) | Err(_) => {}
        }
    }
}

/// Deeper directories hold no recordings.
const SCAN_DEPTH: u32 = 8;
/// Further attempts to delete a file that would not go.
const CLEANUP_RETRIES: u32 = 3;
const CLEANUP_DELAY: Duration = Duration::from_secs(2);
