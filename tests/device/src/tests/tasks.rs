//! A task from configuration to acknowledgement, with its losses.

use std::time::Duration;

use serde_json::{Value, json};
use sha2::Digest;

use super::floor::Floor;
use super::servers::{PATIENCE, Peer, RECORDER_PORT, Store, TRANSFER_PORT, callbacks, config};
use crate::sigv4::hex;
use crate::{Device, DeviceConfig, DeviceEvent, S3};

const MCAP: &str = "/data/rec/t1.mcap";
const JSON: &str = "/data/rec/t1.json";
const KEY: &str = "factory-site/dev-a/2026-11-21/t1.mcap";

async fn ask(recorder: &mut Peer, action: &str, params: Value) -> Value {
    recorder.send(json!({"action": action, "params": params, "request_id": action}).to_string()).await;
    loop {
        let frame = recorder.json().await;
        if frame["type"] == "rpc_response" {
            assert_eq!(frame["request_id"], action);
            return frame;
        }
    }
}

async fn begin(floor: &Floor) -> Peer {
    let mut door = floor.net.open(RECORDER_PORT);
    let (_, mut recorder) = Peer::accept(&mut door).await;
    let task = json!({"task_id": "t1", "device_id": "dev-a", "scene": "kitchen"});
    assert_eq!(ask(&mut recorder, "config", json!({"task_config": task})).await["success"], true);
    assert_eq!(ask(&mut recorder, "begin", json!({"task_id": "t1"})).await["success"], true);
    recorder
}

async fn record(floor: &Floor) -> Peer {
    let mut recorder = begin(floor).await;
    assert_eq!(ask(&mut recorder, "finish", json!({"task_id": "t1"})).await["success"], true);
    recorder
}

async fn transfer(floor: &Floor) -> (Peer, Value) {
    let mut door = floor.net.open(TRANSFER_PORT);
    let (head, mut peer) = Peer::accept(&mut door).await;
    assert_eq!(head.uri.path(), "/transfer/dev-a");
    assert_eq!(head.headers["host"], format!("gate:{TRANSFER_PORT}").as_str());
    let first = peer.json().await;
    (peer, first)
}

async fn request_upload(peer: &mut Peer) {
    peer.send(json!({"type": "upload_request", "task_id": "t1", "priority": 1}).to_string()).await;
}

fn spawn(floor: &Floor, config: DeviceConfig) -> Device {
    Device::spawn(floor.clone(), config).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_recording_is_a_whole_mcap_file_that_its_sidecar_describes() {
    let floor = Floor::new();
    let device = spawn(&floor, config());
    let _recorder = record(&floor).await;

    let bytes = floor.disk.bytes(MCAP).unwrap();
    let sidecar: Value = serde_json::from_slice(&floor.disk.bytes(JSON).unwrap()).unwrap();
    let recording = &sidecar["recording"];
    let messages: Vec<_> = mcap::MessageStream::new(&bytes).unwrap().map(Result::unwrap).collect();
    assert_eq!(recording["message_count"], json!(messages.len()));
    assert_eq!(recording["file_size_bytes"], json!(bytes.len()));
    assert_eq!(recording["checksum_sha256"], json!(hex(&sha2::Sha256::digest(&bytes))));
    let payload: usize = messages.iter().map(|message| message.data.len()).sum();
    assert!(payload >= 200 << 10, "{payload} bytes of payload");
    for topic in sidecar["topics_summary"].as_array().unwrap() {
        let count = messages.iter().filter(|message| topic["topic"] == message.channel.topic.as_str());
        assert_eq!(topic["message_count"], json!(count.count()));
    }
    let summary = mcap::Summary::read(&bytes).unwrap().unwrap();
    let names: Vec<_> = summary.metadata_indexes.iter().map(|index| index.name.as_str()).collect();
    assert_eq!(names, ["axon.task", "axon.device", "axon.recording", "axon.topics", "axon.sidecar"]);
    assert_eq!(floor.disk.bytes("/data/rec/t1.mcap.done").as_deref(), Some(b"done\n".as_slice()));
    device.kill().await;
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_records_the_same_bytes_and_another_seed_does_not() {
    let mut files = Vec::new();
    for seed in [5, 5, 6] {
        let floor = Floor::new();
        let mut config = config();
        config.seed = seed;
        let device = spawn(&floor, config);
        let _recorder = record(&floor).await;
        files.push(floor.disk.bytes(MCAP).unwrap());
        device.kill().await;
    }
    assert!(files[0] == files[1]);
    assert!(files[0] != files[2]);
}

#[tokio::test(start_paused = true)]
async fn an_upload_goes_through_the_recorded_requests_and_an_ack_deletes_the_files() {
    let floor = Floor::new();
    let store = Store::open(&floor);
    let device = spawn(&floor, config());
    let (mut peer, connected) = transfer(&floor).await;
    assert_eq!(connected["type"], "connected");
    assert_eq!(connected["data"]["version"], "0.1.0");
    let _recorder = record(&floor).await;
    let (bytes, sidecar) = (floor.disk.bytes(MCAP).unwrap(), floor.disk.bytes(JSON).unwrap());

    request_upload(&mut peer).await;
    let started = peer.json().await;
    assert_eq!(started["type"], "upload_started");
    assert_eq!(started["data"]["files"], json!(["t1.mcap", "t1.json"]));
    let complete = peer.json().await;
    assert_eq!(complete["type"], "upload_complete");
    assert_eq!(complete["data"]["s3_key"], KEY);
    let sha256 = hex(&sha2::Sha256::digest(&bytes));
    assert_eq!(complete["data"]["checksum_sha256"], json!(sha256));
    let (mcap, json_path) =
        (format!("/edge-axon/{KEY}"), format!("/edge-axon/{}", KEY.replace(".mcap", ".json")));
    {
        let shelves = store.0.lock().unwrap();
        let expected = ["HEAD", "PUT", "HEAD", "HEAD"].map(|verb| format!("{verb} {mcap}"));
        let expected = expected.into_iter().chain(["PUT", "HEAD"].map(|verb| format!("{verb} {json_path}")));
        assert_eq!(shelves.requests, expected.collect::<Vec<_>>());
        assert!(shelves.objects[&mcap] == (bytes.into(), sha256.clone()));
        assert!(shelves.objects[&json_path].0 == sidecar);
    }
    let s3 = S3::new(floor.clone(), config().s3);
    assert_eq!(s3.get_sha256(KEY).await.unwrap().unwrap().1, sha256);
    assert_eq!(s3.get_sha256("nothing").await.unwrap(), None);
    assert_eq!(s3.list("").await.unwrap().len(), 2);

    request_upload(&mut peer).await;
    let again = peer.json().await;
    assert_eq!(again["type"], "upload_not_found", "a known recording counts as not found");
    assert_eq!(again["data"]["detail"], "No MCAP file matching t1 in /data/rec");

    for _ in 0..2 {
        peer.send(json!({"type": "upload_ack", "task_id": "t1"}).to_string()).await;
    }
    peer.send(json!({"type": "upload_ack", "task_id": "other"}).to_string()).await;
    peer.send(json!({"type": "cancel", "task_id": "t1"}).to_string()).await;
    let unknown = peer.json().await;
    assert_eq!(unknown["data"]["detail"], "ACK for unknown task_id", "acks of known recordings get no reply");
    peer.send(json!({"type": "status_query"}).to_string()).await;
    let status = peer.json().await;
    assert_eq!(status["data"]["uploads"][0]["status"], "completed");
    assert_eq!(status["data"]["status_counts"]["completed"], 1);
    assert_eq!(floor.disk.names(), ["/data/rec/t1.mcap.done", "/data/rec/transfer/state.json"]);
    device.stop(PATIENCE).await;
}

#[tokio::test(start_paused = true)]
async fn a_large_recording_goes_up_in_parts_and_arrives_whole() {
    let floor = Floor::new();
    let store = Store::open(&floor);
    let mut config = config();
    config.record.target_bytes = 12 << 20;
    let device = spawn(&floor, config);
    let (mut peer, _) = transfer(&floor).await;
    let _recorder = record(&floor).await;
    request_upload(&mut peer).await;
    assert_eq!(peer.json().await["type"], "upload_started");
    assert_eq!(peer.json().await["type"], "upload_complete");
    let shelves = store.0.lock().unwrap();
    let parts = shelves.requests.iter().filter(|request| request.contains("partNumber"));
    assert_eq!(parts.count(), 3);
    let object = &shelves.objects[&format!("/edge-axon/{KEY}")];
    assert!(object.0 == floor.disk.bytes(MCAP).unwrap());
    assert_eq!(object.1, hex(&sha2::Sha256::digest(&object.0)));
    drop(device);
}

#[tokio::test(start_paused = true)]
async fn after_a_kill_only_the_status_tells_of_an_upload_that_waits_for_its_ack() {
    let floor = Floor::new();
    let store = Store::open(&floor);
    let device = spawn(&floor, config());
    let (mut peer, _) = transfer(&floor).await;
    let _recorder = record(&floor).await;
    request_upload(&mut peer).await;
    assert_eq!(peer.json().await["type"], "upload_started");
    assert_eq!(peer.json().await["type"], "upload_complete");
    device.kill().await;
    let requests = store.0.lock().unwrap().requests.len();

    let device = spawn(&floor, config());
    let (mut peer, connected) = transfer(&floor).await;
    assert_eq!(connected["data"]["waiting_ack_task_ids"], json!(["t1"]));
    peer.send(json!({"type": "upload_ack", "task_id": "t1"}).to_string()).await;
    peer.send(json!({"type": "status_query"}).to_string()).await;
    assert_eq!(peer.json().await["data"]["completed_count"], 1);
    assert_eq!(store.0.lock().unwrap().requests.len(), requests, "nothing was uploaded twice");
    device.kill().await;
}

#[tokio::test(start_paused = true)]
async fn an_upload_cut_short_by_a_kill_is_taken_up_again_without_being_asked() {
    let floor = Floor::new();
    let device = spawn(&floor, config());
    let (mut peer, _) = transfer(&floor).await;
    let _recorder = record(&floor).await;
    // No store is listening: the first attempt fails and the second is some seconds away.
    request_upload(&mut peer).await;
    assert_eq!(peer.json().await["type"], "upload_started");
    let retrying = device.wait_for("a wait for a retry", PATIENCE, |events| {
        events
            .iter()
            .any(|event| matches!(event, DeviceEvent::Upload { status: "retry-wait", .. }))
            .then_some(())
    });
    retrying.await.unwrap();
    device.kill().await;

    let store = Store::open(&floor);
    let device = spawn(&floor, config());
    // The upload may end before the link is up: what it says then precedes `connected`.
    let (mut peer, first) = transfer(&floor).await;
    let second = peer.json().await;
    let of = |kind: &str| [&first, &second].into_iter().find(|frame| frame["type"] == kind).cloned();
    assert_eq!(of("connected").unwrap()["data"]["recovery"]["recovered_count"], 1);
    assert_eq!(of("upload_complete").unwrap()["data"]["status"], "uploaded_wait_ack");
    assert_eq!(store.0.lock().unwrap().objects.len(), 2);
    device.kill().await;
}

#[tokio::test(start_paused = true)]
async fn a_kill_while_recording_leaves_a_partial_file_without_marker_and_an_idle_recorder() {
    let floor = Floor::new();
    let mut slow = config();
    slow.record.target_bytes = 64 << 20;
    let device = spawn(&floor, slow);
    let mut recorder = begin(&floor).await;
    loop {
        let state = ask(&mut recorder, "get_state", Value::Null).await;
        if state["data"]["bytes_written"].as_u64().unwrap() > 3 << 20 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    device.kill().await;
    let partial = floor.disk.bytes(MCAP).unwrap();
    assert!(mcap::Summary::read(&partial).is_err(), "the file was completed after the kill");
    assert!(!floor.disk.names().iter().any(|name| name.ends_with(".done") || name.ends_with("t1.json")));

    let device = spawn(&floor, config());
    let mut door = floor.net.open(RECORDER_PORT);
    let (_, mut recorder) = Peer::accept(&mut door).await;
    assert_eq!(recorder.json().await["data"], json!({"current": "idle", "previous": "idle"}));
    device.kill().await;
}

#[tokio::test(start_paused = true)]
async fn a_stop_while_recording_completes_the_files_without_a_callback() {
    let floor = Floor::new();
    let arrived = callbacks(&floor, 200);
    let device = spawn(&floor, config());
    let mut recorder = begin(&floor).await;
    let stopping = tokio::spawn(device.stop(PATIENCE));
    let update = recorder.json().await;
    assert_eq!(update["data"], json!({"current": "idle", "previous": "recording", "task_id": "t1"}));
    use futures_util::StreamExt;
    let close = recorder.0.next().await.unwrap().unwrap();
    assert_eq!(close.as_close().map(|(code, _)| u16::from(code)), Some(1000));
    stopping.await.unwrap();
    assert!(mcap::Summary::read(&floor.disk.bytes(MCAP).unwrap()).unwrap().is_some());
    assert!(floor.disk.bytes("/data/rec/t1.mcap.done").is_some());
    assert!(arrived.lock().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_upload_is_given_up_at_once_or_after_five_attempts_depending_on_the_refusal() {
    for (status, code, attempts) in [(403, "AccessDenied", 1), (404, "NoSuchBucket", 1), (503, "SlowDown", 5)]
    {
        let floor = Floor::new();
        let store = Store::open(&floor);
        let device = spawn(&floor, config());
        let (mut peer, _) = transfer(&floor).await;
        let _recorder = record(&floor).await;
        store.0.lock().unwrap().refusals = vec![(status, code); 20];
        request_upload(&mut peer).await;
        assert_eq!(peer.json().await["type"], "upload_started");
        let failed = peer.json().await;
        assert_eq!(failed["type"], "upload_failed", "{code}");
        assert_eq!(failed["data"]["retry_count"], attempts, "{code}");
        let names = floor.disk.names();
        assert!(names.contains(&"/data/rec/transfer/failed/t1.mcap".to_owned()), "{names:?}");
        assert!(!names.contains(&MCAP.to_owned()), "{names:?}");
        request_upload(&mut peer).await;
        assert_eq!(peer.json().await["type"], "upload_not_found", "nothing revives a failed row");
        device.kill().await;
    }
}

#[tokio::test(start_paused = true)]
async fn upload_all_takes_what_is_ready_and_answers_in_short() {
    let floor = Floor::new();
    let _store = Store::open(&floor);
    let device = spawn(&floor, config());
    let (mut peer, _) = transfer(&floor).await;
    let _recorder = record(&floor).await;
    floor.disk.put("/data/rec/unfinished.mcap", b"no sentinel");
    peer.send(json!({"type": "upload_all"}).to_string()).await;
    let status = peer.json().await;
    assert_eq!(status["data"]["pending_count"], 1);
    assert_eq!(status["data"].get("uploads"), None);
    assert_eq!(peer.json().await["type"], "upload_complete", "no upload_started after upload_all");
    device.kill().await;
}
