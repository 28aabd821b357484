//! Owns one upload from queue to store, with its attempts. Rows and frames tell of it; it is told nothing.

use std::sync::PoisonError;

use serde_json::json;
use tidegate_runtime::seam::{Blocking, Clock, Disk, Seams};

use crate::config::PART_SIZE_MIN;
use crate::events::DeviceEvent;
use crate::recording::marker_of;
use crate::rows::{Row, SECONDS, Status};
use crate::s3::timestamp;
use crate::s3_error::S3Error;
use crate::uploader::Uploader;

impl<S: Seams> Uploader<S> {
    /// Runs attempts until one succeeds, one cannot be repeated, or they are used up.
    pub(crate) async fn upload(&self, task_id: &str) {
        let plan = &self.env.config.upload;
        loop {
            let permit = self.permits.acquire().await;
            let begun = self.rows.update(task_id, |row| {
                row.status = Status::Active;
                row.next_retry_at = None;
            });
            let Some(row) = begun.await else { return };
            let started_ms = self.env.seams.clock().now().wall.0;
            let outcome = self.attempt(&row).await;
            drop(permit);
            let error = match outcome {
                Ok(()) => return self.succeed(&row, started_ms).await,
                Err(error) => error,
            };
            let failed = DeviceEvent::AttemptFailed { task_id: task_id.to_owned(), error: error.to_string() };
            self.env.log.push(failed);
            let attempts = row.retry_count + 1;
            if !error.is_retryable() || attempts >= plan.max_attempts {
                return self.give_up(&row, &error).await;
            }
            let doubled = plan.retry_initial.saturating_mul(1 << (attempts - 1).min(16));
            let spread = 0.5 + self.rng.lock().unwrap_or_else(PoisonError::into_inner).f64();
            let delay = doubled.mul_f64(spread);
            let due = self.env.seams.clock().now().wall.after(delay);
            self.rows
                .update(task_id, |row| {
                    row.status = Status::RetryWait;
                    row.retry_count = attempts;
                    row.last_error = error.to_string();
                    row.last_error_category = error.category().to_owned();
                    row.next_retry_at = Some(timestamp(due.0, SECONDS));
                })
                .await;
            tokio::time::sleep(delay).await;
        }
    }

    /// HEAD, PUT unless the same content is there, HEAD twice (ETag, metadata), PUT sidecar, HEAD sidecar.
    async fn attempt(&self, row: &Row) -> Result<(), S3Error> {
        let (s3, plan) = (&self.s3, &self.env.config.upload);
        let present = s3.head(&row.s3_key).await?;
        if present.and_then(|head| head.checksum_sha256).as_ref() != Some(&row.sha256) {
            let file = s3.file(&row.mcap).await?;
            let part_size = plan.part_size.max(PART_SIZE_MIN);
            let kind = "application/octet-stream";
            let checksum = Some(row.sha256.as_str());
            s3.put_file(&row.s3_key, file, checksum, kind, part_size, plan.parallel_parts).await?;
        }
        let missing = || S3Error::Wrong(format!("{} is not there after the upload", row.s3_key));
        s3.head(&row.s3_key).await?.ok_or_else(missing)?;
        let head = s3.head(&row.s3_key).await?.ok_or_else(missing)?;
        if head.checksum_sha256.as_ref() != Some(&row.sha256) {
            let got = head.checksum_sha256;
            return Err(S3Error::Wrong(format!("checksum metadata: expected {}, got {got:?}", row.sha256)));
        }
        if let Some(json) = &row.json {
            let key = sidecar_key(&row.s3_key);
            let file = s3.file(json).await?;
            s3.put_file(&key, file, None, "application/json", u64::MAX, 1).await?;
            let absent = || S3Error::Wrong(format!("{key} is not there after the upload"));
            s3.head(&key).await?.ok_or_else(absent)?;
        }
        Ok(())
    }

    async fn succeed(&self, row: &Row, started_ms: i64) {
        let took_ms = (self.env.seams.clock().now().wall.0 - started_ms).max(1) as u64;
        {
            let mut speed = self.speed.lock().unwrap_or_else(PoisonError::into_inner);
            speed.bytes_uploaded += row.file_bytes;
            speed.bytes_per_sec = row.file_bytes * 1000 / took_ms;
        }
        let waiting = self.rows.update(&row.task_id, |row| {
            row.status = Status::WaitAck;
            row.last_error.clear();
            row.last_error_category.clear();
        });
        let Some(row) = waiting.await else { return };
        // Said once. If it is lost, only `waiting_ack_task_ids` of a later status tells.
        let data = json!({
            "bytes_uploaded": 0,
            "checksum_sha256": row.sha256,
            "duration_ms": 0,
            "file_size_bytes": row.file_bytes,
            "object_key": row.s3_key,
            "s3_key": row.s3_key,
            "status": row.status.name(),
            "task_id": row.task_id,
            "upload_mode": row.mode(),
        });
        self.send("upload_complete", &data);
    }

    /// The files move aside, the row stays `failed`: nothing on the wire revives it.
    async fn give_up(&self, row: &Row, error: &S3Error) {
        let (disk, aside) = (self.env.seams.disk().clone(), self.env.config.state_dir.join("failed"));
        let names = [Some(row.mcap.clone()), row.json.clone(), Some(marker_of(&row.mcap))];
        let moving = self.env.seams.blocking().run(move || {
            disk.create_dir_all(&aside)?;
            for from in names.into_iter().flatten() {
                let Some(name) = from.file_name() else { continue };
                match disk.rename(&from, &aside.join(name)) {
                    // A file that is gone may be why this failed.
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
                    Ok(()) | Err(_) => {}
                }
            }
            Ok(())
        });
        if let Err(error) = moving.await {
            self.env.log.push(DeviceEvent::Trouble { what: format!("failed upload not moved: {error}") });
        }
        let retry_count = row.retry_count + 1;
        self.rows
            .update(&row.task_id, |row| {
                row.status = Status::Failed;
                row.retry_count = retry_count;
                row.last_error = error.to_string();
                row.last_error_category = error.category().to_owned();
            })
            .await;
        let data = json!({
            "next_retry_at": null,
            "reason": error.to_string(),
            "retry_count": retry_count,
            "task_id": row.task_id,
        });
        self.send("upload_failed", &data);
    }
}

/// The key of the sidecar beside a recording.
fn sidecar_key(mcap_key: &str) -> String {
    format!("{}.json", mcap_key.strip_suffix(".mcap").unwrap_or(mcap_key))
}
