//! Whole devices: the recorder and the uploader that demo and worlds use, end to end.

use std::path::Path;
use std::time::Duration;

use serde_json::json;
use tidegate_device::{Device, DeviceConfig, DeviceEvent, Link, Reconnect, RecordPlan};
use tidegate_runtime::real::RealSeams;

use crate::cloud::Cloud;
use crate::rig::{Plan, STEP, Site, run, until, utc_date};

/// A device that records so many bytes, with or without a sidecar.
pub fn spawn(site: &Site, name: &str, size: u64, sidecar: bool) -> Device {
    let base = format!("ws://127.0.0.1:{}", site.api);
    let dir = site.dir().join("devices").join(name);
    let mut config = DeviceConfig::new(
        name,
        format!("{base}/recorder/{name}"),
        format!("{base}/transfer"),
        dir,
        site.edge_config(),
    );
    config.record = RecordPlan {
        target_bytes: size,
        image_bytes: 256 << 10,
        step_every: Duration::from_millis(10),
        sidecar,
        ..RecordPlan::default()
    };
    config.reconnect = Reconnect {
        initial: Duration::from_millis(200),
        max: Duration::from_secs(1),
        ..Reconnect::default()
    };
    Device::spawn(RealSeams::new(), config).expect("addresses that can be read")
}

async fn command(site: &Site, device: &str, action: &str, body: &serde_json::Value) {
    let path = format!("/api/v1/recorder/{device}/{action}");
    until(&format!("{action} of {device}"), STEP, async || {
        let (status, body) = site.post(&path, body).await;
        assert!(matches!(status, 200 | 404 | 409), "{status} {body}");
        (status == 200 && body["success"] == true).then_some(())
    })
    .await;
}

/// Records one task and waits until the device deleted its copy; length and SHA-256 by the device's word.
pub async fn record(site: &Site, device: &Device, task: &str) -> (u64, String) {
    let name = device.config().device_id.clone();
    device.connected(STEP).await.expect("both links");
    site.create_task(&name, task).await;
    let config = json!({"task_config": {"task_id": task, "device_id": name, "scene": "test", "topics": ["/imu/data"]}});
    command(site, &name, "config", &config).await;
    command(site, &name, "begin", &json!({"task_id": task})).await;
    site.task_reaches(task, "in_progress").await;
    command(site, &name, "finish", &json!({})).await;
    let file = format!("{task}.mcap");
    device
        .wait_for("deletion of the device's copy", STEP, |events| {
            let deleted = events
                .iter()
                .any(|e| matches!(e, DeviceEvent::FileDeleted { path } if path.ends_with(&file)));
            deleted.then_some(())
        })
        .await
        .expect("an acknowledgement");
    site.task_reaches(task, "completed").await;
    device
        .wait_for("upload_started", STEP, |events| {
            events.iter().find_map(|event| match event {
                DeviceEvent::Sent { link: Link::Transfer, frame }
                    if frame["type"] == "upload_started" && frame["data"]["task_id"] == task =>
                {
                    let data = &frame["data"];
                    Some((data["file_size_bytes"].as_u64()?, data["checksum_sha256"].as_str()?.to_owned()))
                }
                _ => None,
            })
        })
        .await
        .expect("it announced its recording")
}

fn recorded_at(device: &Device, task: &str) -> i64 {
    let started = device.log().all().into_iter().find_map(|event| match event {
        DeviceEvent::Callback { url, body, status: Some(200) }
            if url.ends_with("/start") && body["task_id"] == task =>
        {
            body["started_at"].as_str().map(str::to_owned)
        }
        _ => None,
    });
    let text = started.expect("a start callback that was answered with 200");
    let number = |span: std::ops::Range<usize>| text[span].parse::<i64>().expect("digits");
    // Only the date is wanted, and only to the day: walk the calendar until it matches.
    let (year, month, day) = (number(0..4), number(5..7), number(8..10));
    let wanted = format!("{year:04}-{month:02}-{day:02}");
    (0..40_000)
        .map(|days| days * 86_400_000)
        .find(|ms| utc_date(*ms) == wanted)
        .expect("a date of this century")
}

async fn end_to_end(sidecar: bool) {
    let cloud = Cloud::start().await;
    let site = Plan::with_cloud(&cloud).start().await;
    let device = spawn(&site, "robot-9", 12 << 20, sidecar);
    let (len, sha256) = record(&site, &device, "take-1").await;
    let episode = site.episode("robot-9", "take-1").await;
    site.approve_and_sync(episode).await;
    let status = site.synced(episode).await;
    let key = format!("it/robot-9/{}/take-1.mcap", utc_date(recorded_at(&device, "take-1")));
    assert_eq!(status["destination_path"], key, "{status}");
    assert_eq!(cloud.digest(&key).await, (sha256, len));
    let mut expected = vec![key.clone()];
    if sidecar {
        expected.insert(0, key.replace(".mcap", ".json"));
    }
    assert_eq!(cloud.keys(), expected);

    // A second task on the same links.
    let (len, sha256) = record(&site, &device, "take-2").await;
    let episode = site.episode("robot-9", "take-2").await;
    site.approve_and_sync(episode).await;
    let status = site.synced(episode).await;
    assert_eq!(cloud.digest(status["destination_path"].as_str().expect("a key")).await, (sha256, len));
    let left = until("the device's copies to be gone", STEP, async || {
        let left = recordings(&device.config().data_dir);
        left.is_empty().then_some(left)
    })
    .await;
    assert!(left.is_empty());
    device.stop(Duration::from_secs(5)).await;
}

fn recordings(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).expect("the device's directory");
    let names = entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned());
    names.filter(|name| name.ends_with(".mcap")).collect()
}

#[test]
fn a_device_records_uploads_and_deletes_and_its_recordings_reach_the_cloud() {
    run(end_to_end(true));
}

#[test]
fn a_device_without_sidecars_does_the_same() {
    run(end_to_end(false));
}

#[test]
fn a_device_finds_its_site_again_after_a_restart_and_finishes_what_it_began() {
    run(async {
        let cloud = Cloud::start().await;
        let mut site = Plan::with_cloud(&cloud).start().await;
        let device = spawn(&site, "robot-9", 12 << 20, true);
        device.connected(STEP).await.expect("both links");
        site.create_task("robot-9", "through-a-restart").await;
        let config = json!({"task_config": {"task_id": "through-a-restart", "device_id": "robot-9"}});
        command(&site, "robot-9", "config", &config).await;
        command(&site, "robot-9", "begin", &json!({"task_id": "through-a-restart"})).await;
        site.task_reaches("through-a-restart", "in_progress").await;
        site.kill();
        site.start().await;
        // The recording went on; its state comes back with the recorder.
        until("the recorder to be back", STEP, async || {
            let state = site.read("/api/v1/recorder/robot-9/state").await;
            (state["state_synced"] == true && state["current_state"] == "recording").then_some(())
        })
        .await;
        assert_eq!(site.task_status("through-a-restart").await, "in_progress");
        command(&site, "robot-9", "finish", &json!({"task_id": "through-a-restart"})).await;
        site.task_reaches("through-a-restart", "completed").await;
        let episode = site.episode("robot-9", "through-a-restart").await;
        site.approve_and_sync(episode).await;
        site.synced(episode).await;
        device.stop(Duration::from_secs(5)).await;
    });
}
