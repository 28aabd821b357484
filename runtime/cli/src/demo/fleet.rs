//! The demo's fleet: devices that speak the real protocols, and the operator who gives them tasks. Survives a site
//! that goes away for a while, as real operators and devices do.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tidegate_device::{Device, DeviceConfig, DeviceEvent, Http, Reconnect, RecordPlan, S3Config};
use tidegate_runtime::real::{RealNet, RealSeams};

use super::site::Place;
use crate::Failure;
use crate::show::Way;

/// How long one step may take before the demo gives up, a restart of the site included.
const STEP: Duration = Duration::from_secs(120);
/// How often the operator looks again.
const LOOK: Duration = Duration::from_millis(150);

/// One recording that is in the cloud, as the device and the site tell it.
#[derive(Clone, Debug)]
pub(crate) struct Delivered {
    pub(crate) device: String,
    pub(crate) task: String,
    pub(crate) episode: u64,
    /// Key in the cloud.
    pub(crate) key: String,
    /// Bytes, by the device's word.
    pub(crate) len: u64,
    /// SHA-256 in hexadecimal digits, by the device's word.
    pub(crate) sha256: String,
    /// Attempts the site spent on it.
    pub(crate) attempts: u64,
}

/// Starts a device that records `size` bytes per task.
pub(crate) fn device(place: &Place, dir: &Path, number: u32, size: u64) -> Result<Device, Failure> {
    let name = format!("robot-{number:02}");
    let s3 = S3Config {
        host: "127.0.0.1".to_string(),
        port: place.s3_port,
        access_key: place.edge_key.id.clone(),
        secret_key: place.edge_key.secret.clone(),
        bucket: "edge-demo".to_string(),
        region: "us-east-1".to_string(),
        factory_id: "demo".to_string(),
        request_timeout: Duration::from_secs(30),
    };
    let base = format!("ws://127.0.0.1:{}", place.api_port);
    let recorder = format!("{base}/recorder/{name}");
    let mut config =
        DeviceConfig::new(name.clone(), recorder, format!("{base}/transfer"), dir.join(&name), s3);
    config.seed = u64::from(number);
    config.record = RecordPlan {
        target_bytes: size,
        image_bytes: 256 << 10,
        step_messages: 8,
        step_every: Duration::from_millis(40),
        ..RecordPlan::default()
    };
    config.reconnect = Reconnect {
        initial: Duration::from_millis(300),
        max: Duration::from_secs(3),
        ..Reconnect::default()
    };
    Device::spawn(RealSeams::new(), config).map_err(Failure::failed)
}

/// An operator of one device.
pub(crate) struct Operator<'a> {
    pub(crate) http: Http<RealNet>,
    pub(crate) device: &'a Device,
    pub(crate) way: &'a Way,
}

impl Operator<'_> {
    fn name(&self) -> &str {
        &self.device.config().device_id
    }

    /// Gives the device a task, lets it record, approves the recording, and waits until it is in the cloud.
    pub(crate) async fn deliver(&self, task: &str) -> Result<Delivered, Failure> {
        let give_up = Failure::failed(format!(
            "{}: no end of task {task} within {STEP:?} of its last step",
            self.name()
        ));
        self.way.stage("waiting for its device");
        self.device.connected(STEP).await.map_err(Failure::failed)?;
        self.create(task).await?;
        self.way.stage("recording");
        let config = json!({"task_config": {
            "task_id": task, "device_id": self.name(), "scene": "demo", "topics": ["/sensor", "/camera"],
        }});
        self.command(task, "config", &config, &["ready", "in_progress", "uploading", "completed"]).await?;
        self.command(task, "begin", &json!({"task_id": task}), &["in_progress", "uploading", "completed"])
            .await?;
        tokio::time::sleep(Duration::from_millis(500)).await;
        self.command(task, "finish", &json!({}), &["uploading", "completed"]).await?;
        self.way.stage("device to edge");
        let (len, sha256) = self.announced(task).await?;
        self.task_reaches(task, "completed").await?;
        let episode = self.episode_of(task).await?;
        self.acked(task).await?;
        self.way.stage("approved");
        self.accept(&format!("/api/v1/episodes/{episode}/approve"), &[]).await?;
        self.accept(&format!("/api/v1/sync/episodes/{episode}"), &[409]).await?;
        self.way.stage("edge to cloud");
        let looking = async {
            loop {
                if let Some(status) = self.read(&format!("/api/v1/sync/episodes/{episode}/status")).await {
                    match status["status"].as_str() {
                        Some("completed") => return Ok(status),
                        Some("failed") if status["next_retry_at"].is_null() => {
                            return Err(Failure::failed(format!("episode {episode} failed: {status}")));
                        }
                        _ => {}
                    }
                    if let Some(uploaded) = status["progress"]["uploaded_bytes"].as_u64() {
                        self.way.uploaded(uploaded, len);
                    }
                }
                tokio::time::sleep(LOOK).await;
            }
        };
        let status = tokio::time::timeout(STEP, looking).await.map_err(|_| give_up)??;
        self.way.done(len);
        Ok(Delivered {
            device: self.name().to_string(),
            task: task.to_string(),
            episode,
            key: status["destination_path"].as_str().unwrap_or_default().to_string(),
            len,
            sha256,
            attempts: status["attempt_count"].as_u64().unwrap_or(0),
        })
    }

    async fn create(&self, task: &str) -> Result<(), Failure> {
        let body = json!({"task_id": task, "device_id": self.name()});
        self.until(&format!("creation of task {task}"), async || {
            match self.http.post("/api/v1/tasks", &body).await {
                // 409: an earlier try got through although its answer did not.
                Ok((201 | 409, _, _)) => Step::Done(()),
                Ok((status, _, body)) if status < 500 => Step::Broken(format!("{status} {body}")),
                Ok(_) | Err(_) => Step::Again,
            }
        })
        .await
    }

    /// Sends a command until it was done, or the task shows that it was.
    async fn command(&self, task: &str, action: &str, body: &Value, past: &[&str]) -> Result<(), Failure> {
        let path = format!("/api/v1/recorder/{}/{action}", self.name());
        self.until(&format!("{action} of task {task}"), async || match self.http.post(&path, body).await {
            Ok((200, _, answer)) if answer["success"] == Value::Bool(true) => Step::Done(()),
            Ok((200, _, answer)) => Step::Broken(answer.to_string()),
            Ok((404 | 409 | 503 | 504, _, _)) | Err(_) => {
                match self.read(&format!("/api/v1/tasks/{task}")).await {
                    Some(row) if past.contains(&row["status"].as_str().unwrap_or("")) => Step::Done(()),
                    _ => Step::Again,
                }
            }
            Ok((status, _, answer)) => Step::Broken(format!("{status} {answer}")),
        })
        .await
    }

    async fn accept(&self, path: &str, also: &[u16]) -> Result<(), Failure> {
        self.until(path, async || match self.http.post(path, &json!({})).await {
            Ok((status, _, _)) if (200..300).contains(&status) || also.contains(&status) => Step::Done(()),
            Ok((status, _, body)) if status < 500 => Step::Broken(format!("{status} {body}")),
            Ok(_) | Err(_) => Step::Again,
        })
        .await
    }

    async fn task_reaches(&self, task: &str, state: &str) -> Result<(), Failure> {
        self.until(&format!("task {task} to be {state}"), async || {
            match self.read(&format!("/api/v1/tasks/{task}")).await {
                Some(row) if row["status"] == state => Step::Done(()),
                Some(row) if row["status"] == "failed" => Step::Broken(row.to_string()),
                _ => Step::Again,
            }
        })
        .await
    }

    async fn episode_of(&self, task: &str) -> Result<u64, Failure> {
        let path = format!("/api/v1/episodes?device_id={}&limit=100", self.name());
        self.until(&format!("the episode of task {task}"), async || {
            let list = self.read(&path).await.unwrap_or(Value::Null);
            let found =
                list["items"].as_array().and_then(|all| all.iter().find(|e| e["task_id"] == task).cloned());
            match found.and_then(|episode| episode["id"].as_u64()) {
                Some(id) => Step::Done(id),
                None => Step::Again,
            }
        })
        .await
    }

    /// What the device itself says of its recording.
    async fn announced(&self, task: &str) -> Result<(u64, String), Failure> {
        self.device
            .wait_for(&format!("upload of task {task}"), STEP, |events| {
                events.iter().rev().find_map(|event| match event {
                    DeviceEvent::Sent { frame, .. }
                        if frame["type"] == "upload_started" && frame["data"]["task_id"] == task =>
                    {
                        let data = &frame["data"];
                        Some((
                            data["file_size_bytes"].as_u64()?,
                            data["checksum_sha256"].as_str()?.to_string(),
                        ))
                    }
                    _ => None,
                })
            })
            .await
            .map_err(Failure::failed)
    }

    /// Waits until the device deleted its copy, as it was told.
    async fn acked(&self, task: &str) -> Result<(), Failure> {
        let file = format!("{task}.mcap");
        self.device
            .wait_for(&format!("deletion of {file} on the device"), STEP, |events| {
                let deleted = |event: &DeviceEvent| matches!(event, DeviceEvent::FileDeleted { path } if path.ends_with(&file));
                events.iter().any(deleted).then_some(())
            })
            .await
            .map_err(Failure::failed)
    }

    async fn read(&self, path: &str) -> Option<Value> {
        match self.http.get(path).await {
            Ok((200, _, body)) => Some(body),
            Ok(_) | Err(_) => None,
        }
    }

    async fn until<T>(&self, what: &str, mut try_it: impl AsyncFnMut() -> Step<T>) -> Result<T, Failure> {
        let trying = async {
            loop {
                match try_it().await {
                    Step::Done(value) => return Ok(value),
                    Step::Broken(why) => {
                        return Err(Failure::failed(format!("{}: {what}: {why}", self.name())));
                    }
                    Step::Again => tokio::time::sleep(LOOK).await,
                }
            }
        };
        match tokio::time::timeout(STEP, trying).await {
            Ok(result) => result,
            Err(_) => Err(Failure::failed(format!("{}: {what}: no success within {STEP:?}", self.name()))),
        }
    }
}

enum Step<T> {
    Done(T),
    Again,
    Broken(String),
}
