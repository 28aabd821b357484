//! The check of a recording's content, and the verdict that a site gives by itself.

use std::collections::BTreeMap;
use std::io::Cursor;

use mcap::records::MessageHeader;
use mcap::{Compression, WriteOptions};
use serde_json::{Value, json};

use crate::cloud::Cloud;
use crate::fleet;
use crate::rig::{Plan, STEP, Site, run, sha256, until};
use crate::script::{Take, Uploader};

const DEVICE: &str = "robot-1";

fn recording(messages: u32) -> Vec<u8> {
    let options = WriteOptions::new().compression(Some(Compression::Zstd)).chunk_size(Some(4 << 10));
    let mut writer = options.create(Cursor::new(Vec::new())).expect("a file in memory");
    let channel = writer.add_channel(0, "/imu/data", "json", &BTreeMap::new()).expect("a channel");
    for sequence in 0..messages {
        let time = 1_772_668_799_500_000_000 + u64::from(sequence) * 10_000_000;
        let header = MessageHeader { channel_id: channel, sequence, log_time: time, publish_time: time };
        let payload = crate::rig::noise(sequence.into(), 300);
        writer.write_to_known_channel(&header, &payload).expect("a message");
    }
    writer.finish().expect("an end");
    writer.into_inner().into_inner()
}

/// A recording of these bytes, whose sidecar says the truth of its length and digest and announces so many messages.
fn take(task: &str, mcap: Vec<u8>, messages: u32) -> Take {
    let mut take = Take::new(DEVICE, task, 1, 1);
    let sidecar = take.sidecar.as_mut().expect("a sidecar");
    sidecar["recording"]["checksum_sha256"] = json!(sha256(&mcap));
    sidecar["recording"]["file_size_bytes"] = json!(mcap.len());
    sidecar["recording"]["message_count"] = json!(messages);
    take.mcap = mcap;
    take
}

/// The episode, once it was checked.
async fn checked(site: &Site, episode: u64) -> Value {
    until(&format!("episode {episode} to be checked"), STEP, async || {
        let row = site.read(&format!("/api/v1/episodes/{episode}")).await;
        row.get("inspection").is_some().then_some(row)
    })
    .await
}

async fn status_of(site: &Site) -> String {
    let mut command = Site::program();
    command.args(["status", "--api", &format!("http://127.0.0.1:{}", site.api)]);
    let mut command = tokio::process::Command::from(command);
    command.kill_on_drop(true);
    let ended = tokio::time::timeout(STEP, command.output()).await;
    let output = ended.expect("the command ends by itself").expect("the binary under test");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

async fn sync_all(site: &Site) -> u64 {
    let (status, body) = site.post("/api/v1/sync/episodes", &json!({})).await;
    assert_eq!(status, 202, "{body}");
    body["enqueued_count"].as_u64().expect("a number")
}

#[test]
fn a_sound_recording_of_a_device_is_approved_by_itself_and_goes_when_somebody_asks() {
    run(async {
        let cloud = Cloud::start().await;
        let site = Plan::with_cloud(&cloud).argument("--set").argument("qa.auto_approve=true").start().await;
        let device = fleet::spawn(&site, "robot-9", 6 << 20, true);
        let (len, sum) = fleet::record(&site, &device, "take-1").await;
        let episode = site.episode("robot-9", "take-1").await;
        let row = checked(&site, episode).await;
        assert_eq!(row["inspection"]["sound"], true, "{row}");
        assert_eq!(row["inspection"]["message_count"], row["message_count"], "{row}");
        assert_eq!(row["inspection"]["channel_count"], 2, "{row}");
        assert_eq!((&row["qa_status"], &row["sync_status"]), (&json!("approved"), &json!("not_started")));
        let reason = row["qa_reason"].as_str().expect("the site says why");
        assert!(reason.starts_with("automatic: sound, "), "{reason}");
        assert_eq!(sync_all(&site).await, 1, "a verdict starts nothing by itself");
        let status = site.synced(episode).await;
        let key = status["destination_path"].as_str().expect("a key");
        assert_eq!(cloud.digest(key).await, (sum, len));
        device.stop(STEP).await;
    });
}

#[test]
fn a_damaged_recording_is_acknowledged_and_put_aside_with_its_reason_until_a_person_lets_it_go() {
    run(async {
        let cloud = Cloud::start().await;
        let site = Plan::with_cloud(&cloud).set("qa.auto_approve", true).start().await;
        let mut uploader = Uploader::connect(&site, DEVICE).await;
        let sound = recording(200);
        let mut flipped = sound.clone();
        let last = flipped.len() - 9;
        flipped[last] ^= 1;
        let truncated = sound[..sound.len() / 2].to_vec();
        let cases = [
            ("whole", sound.clone(), 200, None),
            ("flipped", flipped, 200, Some("summary_crc")),
            ("truncated", truncated, 200, Some("truncated")),
            ("noise", crate::rig::noise(3, 70_000), 0, Some("bad_magic")),
            ("short", sound, 201, Some("message_count_differs")),
            ("nothing", Vec::new(), 0, Some("empty")),
        ];
        let mut aside = Vec::new();
        for (task, bytes, messages, reason) in cases {
            let take = take(task, bytes, messages);
            // It ends with the acknowledgement, whatever is in it.
            let episode = uploader.deliver(&site, &take).await;
            let row = checked(&site, episode).await;
            assert_eq!(row["inspection"]["sound"], reason.is_none(), "{row}");
            assert_eq!(row["inspection"].get("reason").and_then(Value::as_str), reason, "{row}");
            let Some(reason) = reason else {
                assert_eq!(row["qa_status"], "approved", "{row}");
                continue;
            };
            assert_eq!(row["qa_status"], "needs_inspection", "{row}");
            let why = row["qa_reason"].as_str().expect("the site says why");
            assert!(why.starts_with(&format!("automatic: {reason}: ")), "{why}");
            let shown = status_of(&site).await;
            let line = shown.lines().find(|line| line.contains(why)).unwrap_or_else(|| panic!("{shown}"));
            assert!(line.contains(task), "{line}");
            let (status, body) = site.post(&format!("/api/v1/sync/episodes/{episode}"), &json!({})).await;
            assert_eq!((status, &body["code"]), (400, &json!("qa_not_approved")), "{body}");
            aside.push((episode, take));
        }
        assert_eq!(sync_all(&site).await, 1, "only the sound one goes");
        for (episode, take) in aside {
            site.approve_and_sync(episode).await;
            site.synced(episode).await;
            let row = site.read(&format!("/api/v1/episodes/{episode}")).await;
            assert_eq!(row["qa_status"], "inspector_approved", "{row}");
            assert_eq!(row["inspection"]["sound"], false, "what was found stays visible: {row}");
            assert_eq!(cloud.digest(&take.cloud_key()).await, (take.sha256(), take.mcap.len() as u64));
        }
    });
}

#[test]
fn without_the_setting_a_recording_is_checked_and_left_to_a_person_also_after_a_restart() {
    run(async {
        let mut site = Plan::new().start().await;
        let mut uploader = Uploader::connect(&site, DEVICE).await;
        let first = uploader.deliver(&site, &take("first", recording(50), 50)).await;
        let before = checked(&site, first).await;
        assert_eq!(
            (&before["qa_status"], &before["inspection"]["sound"]),
            (&json!("pending_qa"), &json!(true))
        );
        drop(uploader);
        site.kill();
        site.start().await;
        let after = checked(&site, first).await;
        assert_eq!(before["inspection"], after["inspection"], "it is made once");
        // Told to judge only now, it judges what it checked before.
        site.stop().await;
        let mut site = site.with_setting("qa.auto_approve", "true");
        site.start().await;
        until("the verdict", STEP, async || {
            let row = site.read(&format!("/api/v1/episodes/{first}")).await;
            (row["qa_status"] == "approved").then_some(())
        })
        .await;
    });
}
