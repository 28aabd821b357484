//! Makes a golden directory: two sites in as many states as there are, as they lie on the disk after the end of their
//! process, and what each of them said last.
//!
//! `sending` was killed while it sent a recording in parts; `waiting` never had a cloud and was stopped in order.

use std::path::Path;

use serde_json::{Value, json};
use tidegate_device::{Payload, S3, S3Config};
use tidegate_runtime::real::RealSeams;

use crate::cloud::{self, Cloud};
use crate::golden::{command, pack};
use crate::rig::{PART, Plan, STEP, Site, noise, sha256, until};
use crate::script::{Recorder, Take, Uploader};

/// Writes `<folder>/<site>/data` and `<folder>/<site>/expected.json` for both sites. What was there is removed.
pub async fn all(folder: &Path) {
    for site in ["sending", "waiting"] {
        let old = folder.join(site);
        if old.exists() {
            std::fs::remove_dir_all(&old).expect("the earlier one goes");
        }
    }
    sending(&folder.join("sending")).await;
    waiting(&folder.join("waiting")).await;
}

/// The settings of both sites.
pub fn settings(plan: Plan) -> Plan {
    plan.set("sync.uploads", 1).set("journal.limit", "1MiB").set("log.format", "text")
}

/// A recording that compresses to next to nothing.
fn take(device: &str, task: &str, seed: u64, len: usize) -> Take {
    let mut take = Take::new(device, task, seed, 0);
    take.mcap = noise(seed, 1024).into_iter().cycle().take(len).collect();
    let (digest, len) = (take.sha256(), take.mcap.len());
    let recording = take.sidecar.as_mut().and_then(|sidecar| sidecar.get_mut("recording"));
    let recording = recording.expect("a sidecar tells of its recording");
    recording["checksum_sha256"] = json!(digest);
    recording["file_size_bytes"] = json!(len);
    take
}

async fn sending(folder: &Path) {
    let cloud = Cloud::start().await;
    let mut site = settings(Plan::with_cloud(&cloud)).start().await;
    outgrow_the_journal(&site).await;
    settled(&site, &cloud).await;
    site.stop().await;

    site.start().await;
    let (_recorders, _uploaders) = tasks(&site).await;
    let mut uploader = Uploader::connect(&site, "robot-1").await;
    let half = half_sent_to_the_edge(&site, &mut uploader).await;
    let stored = take("robot-1", "stored-not-announced", 11, 30_000);
    begin(&site, &mut uploader, &stored).await;
    stored.upload(&site).await;

    let interrupted = take("robot-1", "interrupted", 12, (11 << 20) + 77);
    let sent = uploader.deliver(&site, &interrupted).await;
    let queued = take("robot-1", "queued", 13, 20_000).mcap_only();
    let next = uploader.deliver(&site, &queued).await;
    cloud.watcher.hold("UploadPart", 1);
    site.approve_and_sync(sent).await;
    cloud.watcher.held(1).await;
    until("the acknowledged part to be known", STEP, async || {
        let status = site.sync_status(sent).await;
        (status["progress"]["uploaded_bytes"].as_u64() == Some(PART)).then_some(())
    })
    .await;
    site.approve_and_sync(next).await;
    assert_eq!(site.sync_status(next).await["status"], "pending", "one at a time");

    let mut expected = seen(&site).await;
    expected["half_sent"] = half;
    expected["stored"] = json!({
        "task_id": stored.task,
        "device_id": stored.device,
        "key": stored.key,
        "sha256": stored.sha256(),
        "len": stored.mcap.len(),
        "seed": 11,
    });
    site.kill();
    cloud.watcher.release();
    keep(&site, folder, &expected);
    replays_from_a_base(folder);
}

async fn waiting(folder: &Path) {
    let mut site = settings(Plan::new()).start().await;
    let mut uploader = Uploader::connect(&site, "robot-1").await;
    let homeless = uploader.deliver(&site, &take("robot-1", "homeless", 21, 25_000)).await;
    site.approve_and_sync(homeless).await;
    until("the job to be parked", STEP, async || {
        (site.sync_status(homeless).await["reason"] == "no_destination").then_some(())
    })
    .await;
    uploader.deliver(&site, &take("robot-1", "not-asked-for", 22, 9_000).mcap_only()).await;
    site.create_task("robot-9", "never-seen").await;
    let (status, body) = site.post("/api/v1/devices/robot-1/token", &json!({"name": "left arm"})).await;
    assert_eq!(status, 201, "{body}");
    let expected = seen(&site).await;
    site.stop().await;
    keep(&site, folder, &expected);
}

/// Tasks whose configurations fill the journal until its oldest entries have left for the base.
async fn outgrow_the_journal(site: &Site) {
    for number in 0..28 {
        let task = format!("filler-{number:02}");
        let config = json!({"scene": "hall ".repeat(6_000)});
        let body = json!({"task_id": task, "device_id": "robot-8", "config": config});
        let (status, body) = site.post("/api/v1/tasks", &body).await;
        assert_eq!(status, 201, "{body}");
        let (status, body) = site.post(&format!("/api/v1/tasks/{task}/cancel"), &json!({})).await;
        assert_eq!(status, 200, "{body}");
    }
}

/// Episodes that nothing will happen to any more.
async fn settled(site: &Site, cloud: &Cloud) {
    let mut uploader = Uploader::connect(site, "robot-1").await;
    let synced = uploader.deliver(site, &take("robot-1", "synced", 1, 40_000)).await;
    site.approve_and_sync(synced).await;
    site.synced(synced).await;

    let foreign = take("robot-1", "foreign", 2, 10_000);
    let failed = uploader.deliver(site, &foreign).await;
    let into_the_cloud = S3Config {
        host: "127.0.0.1".to_owned(),
        port: cloud.port,
        access_key: cloud::KEY.to_owned(),
        secret_key: cloud::SECRET.to_owned(),
        bucket: cloud::BUCKET.to_owned(),
        ..site.edge_config()
    };
    let cloud = S3::new(RealSeams::new(), into_the_cloud);
    let put = cloud.put(&foreign.cloud_key(), "somebody else's", "application/octet-stream").await;
    put.unwrap_or_else(|error| panic!("a foreign object: {error}"));
    site.approve_and_sync(failed).await;
    until("the job to give up", STEP, async || {
        let status = site.sync_status(failed).await;
        (status["status"] == "failed" && status["next_retry_at"].is_null()).then_some(())
    })
    .await;

    uploader.deliver(site, &take("robot-1", "not-judged", 3, 12_000)).await;
    let rejected = uploader.deliver(site, &take("robot-1", "rejected", 4, 8_000).mcap_only()).await;
    let (status, body) =
        site.post(&format!("/api/v1/episodes/{rejected}/reject"), &json!({"reason": "blurred"})).await;
    assert_eq!(status, 200, "{body}");
}

/// A task in every state it can be left in. The links stay: what a device does when it goes is another matter.
async fn tasks(site: &Site) -> (Vec<Recorder>, Vec<Uploader>) {
    site.create_task("robot-2", "pending").await;
    site.create_task("robot-2", "cancelled").await;
    let (status, body) = site.post("/api/v1/tasks/cancelled/cancel", &json!({})).await;
    assert_eq!(status, 200, "{body}");

    let (mut recorders, mut uploaders) = (Vec::new(), Vec::new());
    for (device, task, begin) in [("robot-3", "ready", false), ("robot-4", "in-progress", true)] {
        site.create_task(device, task).await;
        uploaders.push(Uploader::connect(site, device).await);
        let mut recorder = Recorder::connect(site, device).await;
        let config = json!({"task_config": {
            "task_id": task, "device_id": device, "scene": "kitchen", "user_token": "a-token-of-nobody",
        }});
        let (status, body, _) = recorder.obey(site, "config", &config, "ready").await;
        assert_eq!(status, 200, "{body}");
        site.task_reaches(task, "ready").await;
        if begin {
            let (status, body, _) =
                recorder.obey(site, "begin", &json!({"task_id": task}), "recording").await;
            assert_eq!(status, 200, "{body}");
            site.task_reaches(task, "in_progress").await;
        }
        recorders.push(recorder);
    }

    let mut uploader = Uploader::connect(site, "robot-5").await;
    let failed = take("robot-5", "failed", 5, 7_000).mcap_only();
    begin(site, &mut uploader, &failed).await;
    let why =
        json!({"task_id": failed.task, "reason": "AccessDenied", "retry_count": 5, "next_retry_at": null});
    uploader.say("upload_failed", &why).await;
    site.task_reaches(&failed.task, "failed").await;
    uploaders.push(uploader);
    (recorders, uploaders)
}

async fn begin(site: &Site, uploader: &mut Uploader, take: &Take) {
    site.create_task(&take.device, &take.task).await;
    uploader.say("upload_started", &take.started()).await;
    site.task_reaches(&take.task, "uploading").await;
}

/// An upload at the embedded S3 endpoint that has one of its two parts.
async fn half_sent_to_the_edge(site: &Site, uploader: &mut Uploader) -> Value {
    let half = take("robot-1", "half-sent", 10, usize::try_from(PART).expect("a part") + 5_000);
    begin(site, uploader, &half).await;
    let edge = site.edge();
    let headers = [("content-type", "application/octet-stream")];
    let upload = edge.multipart_create(&half.key, &headers).await.expect("an upload");
    let first = half.mcap[..usize::try_from(PART).expect("a part")].to_vec();
    let etag = edge.upload_part(&half.key, &upload, 1, Payload::Bytes(first.into())).await.expect("a part");
    json!({
        "task_id": half.task,
        "key": half.key,
        "upload_id": upload,
        "first_etag": etag,
        "sha256": half.sha256(),
        "len": half.mcap.len(),
        "seed": 10,
    })
}

/// A recording of `robot-1` that [`sending`] tells of in what is expected.
pub fn told(expected: &Value) -> Take {
    let number = |field: &str| expected[field].as_u64().unwrap_or_else(|| panic!("{field} in {expected}"));
    let task = expected["task_id"].as_str().unwrap_or_else(|| panic!("task_id in {expected}"));
    let take = take("robot-1", task, number("seed"), usize::try_from(number("len")).expect("a length"));
    assert_eq!(take.sha256(), expected["sha256"], "recordings are made as they were");
    assert_eq!(take.key, expected["key"], "recordings are made as they were");
    take
}

/// What a site says of its records. Long configurations are told by their digest.
pub async fn seen(site: &Site) -> Value {
    let items = async |path: &str| {
        let body = site.read(path).await;
        body["items"].as_array().unwrap_or_else(|| panic!("a list has items: {body}")).clone()
    };
    let mut tasks = items("/api/v1/tasks?limit=100").await;
    for task in &mut tasks {
        if let Some(config) = task.get_mut("config") {
            *config = json!(sha256(config.to_string().as_bytes()));
        }
    }
    let episodes = items("/api/v1/episodes?limit=100").await;
    let mut jobs = Vec::new();
    for episode in &episodes {
        let id = episode["id"].as_u64().expect("episode ids are numbers");
        jobs.push(site.sync_status(id).await);
    }
    let (devices, tokens) = (items("/api/v1/devices").await, items("/api/v1/tokens").await);
    json!({"tasks": tasks, "episodes": episodes, "jobs": jobs, "devices": devices, "tokens": tokens})
}

fn keep(site: &Site, folder: &Path, expected: &Value) {
    pack::pack(&site.data_dir(), &folder.join("data"));
    let text = serde_json::to_string_pretty(expected).expect("it is JSON");
    std::fs::write(folder.join("expected.json"), text + "\n").expect("what is expected");
}

/// The journal that is kept must have a base, or nothing shows that one can be read.
fn replays_from_a_base(folder: &Path) {
    let aside = tempfile::tempdir().expect("a temporary directory");
    let data = aside.path().join("data");
    pack::unpack(&folder.join("data"), &data);
    let (code, said) = command(&["replay", "--verify", "--data-dir", &data.display().to_string()]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("from the base at"), "the journal was not outgrown: {said}");
}
