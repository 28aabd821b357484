//! Devices whose every frame a test decides: a recorder, an uploader, and the recordings they claim to have.

use std::time::Duration;

use serde_json::{Value, json};
use tidegate_device::Incoming;
use tidegate_runtime::real::RealClock;
use tidegate_runtime::seam::Clock as _;

use crate::rig::{Raw, SILENCE, SITE, STEP, Site, noise, sha256, until, utc_date};

/// A recorder link with a state that `get_state` is answered with.
pub struct Recorder {
    pub link: Raw,
    pub device: String,
    pub state: String,
    pub task: Option<String>,
    /// Actions that arrived, in order.
    pub seen: Vec<String>,
}

impl Recorder {
    /// Opens the link and answers nothing yet.
    pub async fn dial(site: &Site, device: &str) -> Recorder {
        let link = site.dial(&format!("/recorder/{device}")).await;
        let link = link.unwrap_or_else(|error| panic!("recorder link of {device}: {error}"));
        Recorder { link, device: device.to_owned(), state: "idle".to_owned(), task: None, seen: Vec::new() }
    }

    /// Opens the link, answers `get_state` with idle and waits until the site believes it.
    pub async fn connect(site: &Site, device: &str) -> Recorder {
        let mut recorder = Recorder::dial(site, device).await;
        let request = recorder.next().await;
        assert_eq!(request["action"], "get_state", "the first frame: {request}");
        recorder.answer_state(&request).await;
        synced(site, device).await;
        recorder
    }

    /// The next frame as text.
    pub async fn text(&mut self) -> String {
        next_text(&mut self.link).await
    }

    /// The next frame.
    pub async fn next(&mut self) -> Value {
        let text = self.text().await;
        let frame: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text:?}"));
        self.seen.push(frame["action"].as_str().unwrap_or("?").to_owned());
        frame
    }

    /// The next request that is not `get_state`; those are answered with the state.
    pub async fn request(&mut self, action: &str) -> Value {
        loop {
            let request = self.next().await;
            if request["action"] == "get_state" && action != "get_state" {
                self.answer_state(&request).await;
                continue;
            }
            assert_eq!(request["type"], "rpc_request", "{request}");
            assert_eq!(request["action"], action, "{request}");
            return request;
        }
    }

    /// Answers a request.
    pub async fn answer(&mut self, request: &Value, success: bool, message: &str, data: Value) {
        let frame = json!({
            "type": "rpc_response",
            "request_id": request["request_id"],
            "success": success,
            "message": message,
            "data": data,
        });
        self.link.send_json(&frame).await.expect("an open link");
    }

    /// Answers `get_state` as real recorders do.
    pub async fn answer_state(&mut self, request: &Value) {
        let mut data = json!({"version": "0.4.0", "state": self.state, "running": self.state == "recording"});
        if let Some(task) = self.task.as_ref().filter(|_| self.state != "idle") {
            data["task_config"] = json!({"task_id": task, "device_id": self.device});
        }
        self.answer(request, true, "State retrieved successfully", data).await;
    }

    /// Pushes a change of state.
    pub async fn push_state(&mut self, current: &str) {
        let mut data = json!({"previous": self.state, "current": current});
        if let Some(task) = &self.task {
            data["task_id"] = json!(task);
        }
        self.state = current.to_owned();
        let frame = json!({"type": "state_update", "timestamp": 1_781_000_000_000_u64, "data": data});
        self.link.send_json(&frame).await.expect("an open link");
    }

    /// Posts an action while playing the recorder: the request is answered with success and the new state. Gives the
    /// HTTP status, its body, and the request as it arrived.
    pub async fn obey(
        &mut self,
        site: &Site,
        action: &str,
        body: &Value,
        state: &str,
    ) -> (u16, Value, Value) {
        let path = format!("/api/v1/recorder/{}/{action}", self.device);
        let play = async {
            let request = self.request(action).await;
            if let Some(task) = request.pointer("/params/task_config/task_id").and_then(Value::as_str) {
                self.task = Some(task.to_owned());
                let applied = json!({
                    "type": "config_applied",
                    "timestamp": 1_781_000_000_000_u64,
                    "data": {"task_id": task, "device_id": self.device},
                });
                self.link.send_json(&applied).await.expect("an open link");
            }
            self.push_state(state).await;
            let mut data = json!({"state": state});
            if let Some(task) = &self.task {
                data["task_id"] = json!(task);
            }
            self.answer(&request, true, "done", data).await;
            request
        };
        let ((status, answer), request) = tokio::join!(site.post(&path, body), play);
        (status, answer, request)
    }

    /// Asserts that no frame but `get_state` comes for a while; those stay unanswered.
    pub async fn silence(&mut self) {
        while let Some(text) = text_within(&mut self.link, SILENCE).await {
            assert!(text.contains("\"get_state\""), "an unexpected frame: {text}");
        }
    }
}

/// Waits until the site has a confirmed state of a device.
pub async fn synced(site: &Site, device: &str) {
    until(&format!("a confirmed state of {device}"), STEP, async || {
        let state = site.read(&format!("/api/v1/recorder/{device}/state")).await;
        (state["state_synced"] == true).then_some(())
    })
    .await;
}

/// An uploader's link.
pub struct Uploader {
    pub link: Raw,
    pub device: String,
}

impl Uploader {
    /// Opens the link and says nothing.
    pub async fn dial(site: &Site, device: &str) -> Uploader {
        let link = site.dial(&format!("/transfer/{device}")).await;
        let link = link.unwrap_or_else(|error| panic!("transfer link of {device}: {error}"));
        Uploader { link, device: device.to_owned() }
    }

    /// Opens the link and says `connected` with no uploads.
    pub async fn connect(site: &Site, device: &str) -> Uploader {
        let mut uploader = Uploader::dial(site, device).await;
        uploader.say("connected", &status(device, &[])).await;
        // The frame and HTTP travel apart: wait until the site has seen the link.
        until(&format!("the transfer link of {device}"), STEP, async || {
            let list = site.read("/api/v1/transfer/devices").await;
            let devices = list["devices"].as_array().expect("a list of devices").clone();
            devices.iter().any(|d| d["device_id"] == device).then_some(())
        })
        .await;
        uploader
    }

    /// Sends a frame.
    pub async fn say(&mut self, kind: &str, data: &Value) {
        let frame = json!({"type": kind, "timestamp": "2026-03-05T00:00:00.000Z", "data": data});
        self.link.send_json(&frame).await.expect("an open link");
    }

    /// The next frame as text.
    pub async fn text(&mut self) -> String {
        next_text(&mut self.link).await
    }

    /// Expects the acknowledgement of a task, exactly as it is on the wire.
    pub async fn ack(&mut self, task: &str) {
        let text = self.text().await;
        assert_eq!(text, format!("{{\"task_id\":\"{task}\",\"type\":\"upload_ack\"}}\n"));
    }

    /// Asserts that nothing comes for a while.
    pub async fn silence(&mut self, why: &str) {
        if let Some(text) = text_within(&mut self.link, SILENCE).await {
            panic!("{why}: nothing may be sent, but {text} was");
        }
    }

    /// Uploads a recording and has it acknowledged; the episode.
    pub async fn deliver(&mut self, site: &Site, take: &Take) -> u64 {
        site.create_task(&self.device, &take.task).await;
        self.say("upload_started", &take.started()).await;
        take.upload(site).await;
        self.say("upload_complete", &take.complete()).await;
        self.ack(&take.task).await;
        site.task_reaches(&take.task, "completed").await;
        site.episode(&self.device, &take.task).await
    }
}

/// The data of a full status.
pub fn status(device: &str, uploads: &[Value]) -> Value {
    let of = |status: &str| uploads.iter().filter(|upload| upload["status"] == status).count();
    let waiting: Vec<&Value> = uploads
        .iter()
        .filter(|upload| upload["status"] == "uploaded_wait_ack")
        .map(|upload| &upload["task_id"])
        .collect();
    json!({
        "version": "0.1.0",
        "device_id": device,
        "pending_count": of("pending"),
        "active_count": of("active"),
        "uploading_count": of("active"),
        "retry_wait_count": of("retry-wait"),
        "waiting_ack_count": waiting.len(),
        "waiting_ack_task_ids": waiting,
        "completed_count": of("completed"),
        "failed_count": of("failed"),
        "pending_bytes": 0,
        "bytes_per_sec": 0,
        "uploads": uploads,
    })
}

/// One recording on a device's disk.
#[derive(Clone, Debug)]
pub struct Take {
    pub device: String,
    pub task: String,
    /// Key in the edge bucket.
    pub key: String,
    pub mcap: Vec<u8>,
    /// `None` is the mode without a sidecar.
    pub sidecar: Option<Value>,
}

/// 2026-03-04 23:59:59.5 UTC: half a second before midnight, so that a date taken from anything else is another one.
pub const RECORDED_AT: i64 = 1_772_668_799_500;

impl Take {
    /// A recording of `len` bytes with a sidecar.
    pub fn new(device: &str, task: &str, seed: u64, len: usize) -> Take {
        let mcap = noise(seed, len);
        let sidecar = json!({
            "version": "1.0",
            "mcap_file": format!("{task}.mcap"),
            "device": {"device_id": device, "hostname": device, "ros_distro": "humble"},
            "task": {"task_id": task, "scene": "kitchen"},
            "recording": {
                "checksum_sha256": sha256(&mcap),
                "duration_sec": 12.5,
                "file_size_bytes": mcap.len(),
                "message_count": 321,
                "recorder_version": "0.4.0",
                "recording_started_at": RECORDED_AT,
                "recording_finished_at": RECORDED_AT + 12_500,
                "topics_recorded": ["/imu/data"],
            },
            "topics_summary": [],
        });
        let key = format!("{SITE}/{device}/2026-03-06/{task}.mcap");
        Take { device: device.to_owned(), task: task.to_owned(), key, mcap, sidecar: Some(sidecar) }
    }

    /// The same without a sidecar.
    pub fn mcap_only(mut self) -> Take {
        self.sidecar = None;
        self
    }

    /// SHA-256 in hexadecimal digits.
    pub fn sha256(&self) -> String {
        sha256(&self.mcap)
    }

    /// Key of the sidecar in the edge bucket.
    pub fn sidecar_key(&self) -> String {
        format!("{}.json", self.key.strip_suffix(".mcap").expect("keys of recordings end in .mcap"))
    }

    /// Key in the cloud: by the sidecar's word, or, where nobody said when it was recorded, by the day it came in.
    pub fn cloud_key(&self) -> String {
        let recorded = self.sidecar.as_ref().map(|_| RECORDED_AT);
        let date = utc_date(recorded.unwrap_or_else(|| RealClock::default().now().wall.0));
        format!("{SITE}/{}/{date}/{}.mcap", self.device, self.task)
    }

    fn mode(&self) -> &'static str {
        if self.sidecar.is_some() { "mcap_json" } else { "mcap_only" }
    }

    /// The data of `upload_started`.
    pub fn started(&self) -> Value {
        json!({
            "task_id": self.task,
            "files": [format!("{}.mcap", self.task)],
            "total_bytes": self.mcap.len(),
            "file_size_bytes": self.mcap.len(),
            "checksum_sha256": self.sha256(),
            "upload_mode": self.mode(),
            "status": "pending",
            "s3_key": self.key,
            "object_key": self.key,
        })
    }

    /// The data of `upload_complete`.
    pub fn complete(&self) -> Value {
        json!({
            "task_id": self.task,
            "bytes_uploaded": 0,
            "duration_ms": 0,
            "status": "uploaded_wait_ack",
            "s3_key": self.key,
            "object_key": self.key,
            "file_size_bytes": self.mcap.len(),
            "checksum_sha256": self.sha256(),
            "upload_mode": self.mode(),
        })
    }

    /// Its row in a status.
    pub fn row(&self, status: &str) -> Value {
        json!({
            "task_id": self.task,
            "status": status,
            "upload_mode": self.mode(),
            "file_path": format!("/recordings/{}.mcap", self.task),
            "json_path": self.sidecar.as_ref().map(|_| format!("/recordings/{}.json", self.task)),
            "s3_key": self.key,
            "object_key": self.key,
            "file_size_bytes": self.mcap.len(),
            "checksum_sha256": self.sha256(),
            "retry_count": 0,
            "last_error": "",
            "last_error_category": "",
            "next_retry_at": null,
            "updated_at": "2026-03-06T00:00:00Z",
            "completed_at": null,
            "delete_retry_count": 0,
            "delete_next_retry_at": null,
            "delete_last_error": "",
            "delete_last_error_category": "",
        })
    }

    /// Puts the recording (in parts if it is large), then its sidecar.
    pub async fn upload(&self, site: &Site) {
        self.upload_mcap(site).await;
        self.upload_sidecar(site).await;
    }

    /// Puts the recording alone.
    pub async fn upload_mcap(&self, site: &Site) {
        let edge = site.edge();
        let path = site.dir().join(format!("{}.mcap", self.task));
        std::fs::write(&path, &self.mcap).expect("the recording");
        let slice = edge.file(&path).await.expect("the recording");
        let put = edge
            .put_file(&self.key, slice, Some(&self.sha256()), "application/octet-stream", 5 << 20, 2)
            .await;
        put.unwrap_or_else(|error| panic!("{} is not taken in: {error}", self.key));
        std::fs::remove_file(&path).expect("the recording");
    }

    /// Puts the sidecar, if there is one.
    pub async fn upload_sidecar(&self, site: &Site) {
        let Some(sidecar) = &self.sidecar else { return };
        let put = site.edge().put(&self.sidecar_key(), sidecar.to_string(), "application/json").await;
        put.unwrap_or_else(|error| panic!("{} is not taken in: {error}", self.sidecar_key()));
    }
}

async fn next_text(link: &mut Raw) -> String {
    match text_within(link, STEP).await {
        Some(text) => text,
        None => panic!("no frame within {STEP:?}"),
    }
}

/// The next text, pings and pongs passed over; `None` if nothing came.
pub async fn text_within(link: &mut Raw, deadline: Duration) -> Option<String> {
    let end = tokio::time::Instant::now() + deadline;
    loop {
        let left = end.saturating_duration_since(tokio::time::Instant::now());
        match link.next(left).await {
            Ok(Some(Incoming::Text(text))) => return Some(text),
            Ok(Some(Incoming::Ping(_) | Incoming::Pong(_))) => {}
            Ok(None) => return None,
            Ok(Some(other)) => panic!("expected text, got {other:?}"),
            Err(error) => panic!("the link ended: {error}"),
        }
    }
}
