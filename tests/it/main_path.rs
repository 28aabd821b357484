//! The main path of the device protocol, frame by frame, with a scripted recorder and uploader.

use serde_json::{Value, json};

use crate::cloud::Cloud;
use crate::rig::{PART, Plan, SITE, STEP, Site, run, sha256, until};
use crate::script::{Recorder, Take, Uploader, synced};

fn keys(value: &Value) -> Vec<&str> {
    let mut keys: Vec<&str> = value.as_object().expect("an object").keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

fn is_lower_uuid_v4(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() == 36
        && bytes[14] == b'4'
        && matches!(bytes[19], b'8' | b'9' | b'a' | b'b')
        && bytes.iter().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => *byte == b'-',
            _ => byte.is_ascii_digit() || (b'a'..=b'f').contains(byte),
        })
}

/// Fields of an RPC request that the protocol knows; a time stamp is a known harmless addition.
fn check_request(text: &str, action: &str, with_params: bool) -> Value {
    assert!(text.ends_with('\n') && !text[..text.len() - 1].contains('\n'), "one line and its end: {text:?}");
    let frame: Value = serde_json::from_str(text).expect("JSON");
    assert_eq!(frame["type"], "rpc_request", "{text}");
    assert_eq!(frame["action"], action, "{text}");
    assert!(is_lower_uuid_v4(frame["request_id"].as_str().unwrap_or("")), "a lower-case UUID v4: {text}");
    assert_eq!(frame.get("params").is_some(), with_params, "params are absent when empty: {text}");
    for key in keys(&frame) {
        let known = ["type", "request_id", "action", "params", "timestamp", "timestamp_ms", "server_time_ms"];
        assert!(known.contains(&key), "an unknown field {key}: {text}");
    }
    let at = |key: &str| text.find(&format!("\"{key}\":"));
    assert!(at("type") < at("request_id") && at("request_id") < at("action"), "order of keys: {text}");
    frame
}

pub fn finish_callback(device: &str, task: &str) -> Value {
    json!({
        "task_id": task,
        "device_id": device,
        "status": "finished",
        // A day after the sidecar's word, which goes before this.
        "started_at": "2026-03-05T00:00:01Z",
        "finished_at": "2026-03-05T00:00:13Z",
        "duration_sec": 12.5,
        "message_count": 321,
        "file_size_bytes": 1,
        "output_path": format!("/recordings/{task}.mcap"),
        "sidecar_path": format!("/recordings/{task}.json"),
        "sidecar_enabled": true,
        "sidecar_generated": true,
        "topics": ["/imu/data"],
        "metadata": {"scene": "kitchen", "subscene": "", "skills": [], "factory": "f"},
        "error": null,
    })
}

fn task_config(device: &str, task: &str) -> Value {
    json!({"task_config": {
        "task_id": task,
        "device_id": device,
        "scene": "kitchen <&> hall",
        "topics": ["/imu/data"],
        "start_callback_url": "http://wrong.invalid/start",
        "user_token": "token-of-a-user",
        "an_unknown_key": {"kept": [1, 2]},
    }})
}

#[test]
fn a_recording_goes_from_connect_to_upload_ack_and_into_the_cloud_frame_by_frame() {
    run(async {
        let cloud = Cloud::start().await;
        let site = Plan::with_cloud(&cloud).start().await;
        let (device, task) = ("robot-1", "task_20260304_235959_500_01_0badcafe");
        site.create_task(device, task).await;
        let config = task_config(device, task);
        let config_path = format!("/api/v1/recorder/{device}/config");

        before_anyone_connects(&site, device, &config).await;
        let mut recorder = connect_recorder(&site, device, &config).await;
        let mut uploader = Uploader::dial(&site, device).await;

        // Transfer is there, the state is not: config waits for the first snapshot.
        until("config to see the transfer link", STEP, async || {
            let (status, body) = site.post(&config_path, &config).await;
            assert_eq!(status, 409, "{body}");
            (body["code"] == "recorder_state_syncing").then_some(())
        })
        .await;
        let request = recorder.link_request.take().expect("the first request");
        let mut recorder = recorder.recorder;
        uploader.silence("the server is silent until an uploader speaks").await;
        recorder.answer(&request, true, "ok", json!({"state": "idle"})).await;
        synced(&site, device).await;
        let state = site.read(&format!("/api/v1/recorder/{device}/state")).await;
        assert_eq!(state["current_state"], "idle", "{state}");
        assert_eq!(state["syncing"], false, "{state}");
        assert_eq!(state["source"], "get_state", "{state}");

        config_and_begin(&site, &mut recorder, task, &config).await;
        callbacks_and_finish(&site, &mut recorder, &mut uploader, task).await;

        // Device to edge.
        let take = Take::new(device, task, 7, 17 << 20);
        uploader.say("upload_started", &take.started()).await;
        take.upload(&site).await;
        assert_eq!(site.task_status(task).await, "uploading", "stored is not announced");
        uploader.say("upload_complete", &take.complete()).await;
        uploader.ack(task).await;
        site.task_reaches(task, "completed").await;

        let episode = judge(&site, &take).await;
        edge_to_cloud(&site, &cloud, &take, episode).await;
        uploader.silence("one acknowledgement is enough").await;
    });
}

async fn before_anyone_connects(site: &Site, device: &str, config: &Value) {
    let state = site.read(&format!("/api/v1/recorder/{device}/state")).await;
    for (key, value) in [
        ("connected", json!(false)),
        ("current_state", json!("unknown")),
        ("source", json!("disconnected")),
        ("state_synced", json!(false)),
        ("syncing", json!(false)),
        ("fresh", json!(false)),
        ("age_ms", json!(0)),
    ] {
        assert_eq!(state[key], value, "{key} of {state}");
    }
    for key in ["previous_state", "task_id", "updated_at", "state_version"] {
        assert!(state.get(key).is_some(), "{key} is always there: {state}");
    }
    // 409 of the transfer link goes before 404 of the recorder.
    let (status, body) = site.post(&format!("/api/v1/recorder/{device}/config"), config).await;
    assert_eq!((status, &body["code"]), (409, &json!("transfer_not_connected")), "{body}");
    assert_eq!(body["error"], "transfer is not connected; config is rejected", "{body}");
    let (status, body) = site.post(&format!("/api/v1/recorder/{device}/finish"), &json!({})).await;
    assert_eq!((status, &body["error"]), (404, &json!("recorder not connected")), "{body}");
}

struct Unanswered {
    recorder: Recorder,
    link_request: Option<Value>,
}

async fn connect_recorder(site: &Site, device: &str, config: &Value) -> Unanswered {
    let mut recorder = Recorder::dial(site, device).await;
    let text = recorder.text().await;
    let request = check_request(&text, "get_state", false);
    let state = site.read(&format!("/api/v1/recorder/{device}/state")).await;
    assert_eq!(state["connected"], true, "{state}");
    assert_eq!(state["current_state"], "unknown", "{state}");
    assert_eq!(state["state_synced"], false, "{state}");
    assert_eq!(state["syncing"], true, "{state}");
    let (status, body) = site.post(&format!("/api/v1/recorder/{device}/config"), config).await;
    assert_eq!((status, &body["code"]), (409, &json!("transfer_not_connected")), "{body}");
    Unanswered { recorder, link_request: Some(request) }
}

async fn config_and_begin(site: &Site, recorder: &mut Recorder, task: &str, config: &Value) {
    let device = recorder.device.clone();
    let config_path = format!("/api/v1/recorder/{device}/config");
    let begin_path = format!("/api/v1/recorder/{device}/begin");

    let (status, body) = site.post(&config_path, &json!([1])).await;
    assert_eq!((status, &body["error"]), (400, &json!("invalid request body")), "{body}");
    let answers_state = async {
        // The snapshot may be older than a second by now.
        let request = recorder.request("get_state").await;
        recorder.answer_state(&request).await;
    };
    let no_task = async {
        let (status, body) = site.post(&config_path, &json!({"task_config": {"device_id": device}})).await;
        assert_eq!((status, &body["code"]), (400, &json!("task_id_required")), "{body}");
        assert_eq!(body["error"], "task_config.task_id is required", "{body}");
    };
    tokio::select! {
        biased;
        () = no_task => {}
        () = async { answers_state.await; std::future::pending::<()>().await } => {}
    }
    let (status, body) = site.post(&begin_path, &json!({})).await;
    assert_eq!((status, &body["code"]), (400, &json!("task_id_required")), "{body}");
    let (status, body) = site.post(&begin_path, &json!({"task_id": "task_that_nobody_made"})).await;
    assert_eq!((status, &body["code"]), (409, &json!("task_not_beginable")), "{body}");
    assert_eq!(body["current_status"], "not_found", "{body}");

    let (status, body, request) = recorder.obey(site, "config", config, "ready").await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(
        keys(&body),
        ["data", "message", "request_id", "success", "type"],
        "the device's answer: {body}"
    );
    assert_eq!(body["success"], true, "{body}");
    assert_eq!(body["request_id"], request["request_id"], "{body}");
    assert_eq!(body["data"]["state"], "ready", "{body}");
    let sent = &request["params"]["task_config"];
    let base = format!("http://127.0.0.1:{}/api/v1/callbacks", site.api);
    assert_eq!(sent["start_callback_url"], format!("{base}/start"), "{sent}");
    assert_eq!(sent["finish_callback_url"], format!("{base}/finish"), "{sent}");
    for key in ["task_id", "device_id", "scene", "topics", "user_token", "an_unknown_key"] {
        assert_eq!(sent[key], config["task_config"][key], "{key} is forwarded untouched: {sent}");
    }
    site.task_reaches(task, "ready").await;

    let (status, body, request) = recorder.obey(site, "begin", &json!({"task_id": task}), "recording").await;
    assert_eq!((status, &body["success"]), (200, &json!(true)), "{body}");
    assert_eq!(request["params"], json!({"task_id": task}), "{request}");
    site.task_reaches(task, "in_progress").await;
}

async fn callbacks_and_finish(site: &Site, recorder: &mut Recorder, uploader: &mut Uploader, task: &str) {
    let device = recorder.device.clone();
    let started = json!({
        "task_id": task, "device_id": device, "status": "recording", "started_at": "2026-03-04T23:59:59Z", "topics": [],
    });
    let (status, body) = site.post("/api/v1/callbacks/start", &started).await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(keys(&body), ["acknowledged_at", "status", "task_status"], "{body}");
    assert_eq!(body["status"], "acknowledged", "{body}");
    assert_eq!(body["task_status"], "unknown", "begin moved it already: {body}");
    let (status, body) = site.post("/api/v1/callbacks/start", &json!({"device_id": device})).await;
    assert_eq!((status, &body["error_msg"]), (400, &json!("Missing required field: task_id")), "{body}");

    let (status, body, request) = recorder.obey(site, "finish", &json!({}), "idle").await;
    assert_eq!((status, &body["success"]), (200, &json!(true)), "{body}");
    assert_eq!(
        request["params"],
        json!({"task_id": task}),
        "finish names the task of the recorder: {request}"
    );
    assert_eq!(site.task_status(task).await, "in_progress", "finish alone changes no task");

    uploader.say("connected", &crate::script::status(&device, &[])).await;
    let finished = finish_callback(&device, task);
    for missing in ["task_id", "output_path", "device_id"] {
        let mut body = finished.clone();
        body.as_object_mut().expect("an object").remove(missing);
        let (status, body) = site.post("/api/v1/callbacks/finish", &body).await;
        assert_eq!(status, 400, "{body}");
        assert_eq!(body["error_msg"], format!("Missing required field: {missing}"), "{body}");
    }
    let mut foreign = finished.clone();
    foreign["device_id"] = json!("robot-2");
    let (status, body) = site.post("/api/v1/callbacks/finish", &foreign).await;
    assert_eq!(status, 409, "{body}");
    assert_eq!(body["error_msg"], "task is not owned by device or is not uploadable", "{body}");

    let (status, body) = site.post("/api/v1/callbacks/finish", &finished).await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(body["success"], true, "{body}");
    assert_eq!(body["message"], "Upload triggered successfully", "{body}");
    assert_eq!(body["task_status"], "uploading", "{body}");
    assert_eq!(body["upload_request_sent"], true, "{body}");
    let text = uploader.text().await;
    assert_eq!(text, format!("{{\"priority\":1,\"task_id\":\"{task}\",\"type\":\"upload_request\"}}\n"));
    assert_eq!(site.task_status(task).await, "uploading");

    let (status, body) = site.post("/api/v1/callbacks/finish", &finished).await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(body["message"], "Recording finish callback already handled", "{body}");
    assert_eq!(body["upload_request_sent"], false, "{body}");
    let (status, body) =
        site.post(&format!("/api/v1/recorder/{device}/begin"), &json!({"task_id": task})).await;
    assert_eq!((status, &body["code"]), (409, &json!("task_not_beginable")), "{body}");
    assert_eq!(body["current_status"], "uploading", "{body}");
}

/// What an episode says, and that only approval opens the way.
async fn judge(site: &Site, take: &Take) -> u64 {
    let episode = site.episode(&take.device, &take.task).await;
    let row = site.read(&format!("/api/v1/episodes/{episode}")).await;
    assert_eq!(row["task_id"], take.task, "{row}");
    assert_eq!(row["device_id"], take.device, "{row}");
    assert_eq!(row["qa_status"], "pending_qa", "{row}");
    assert_eq!(row["file_size_bytes"], take.mcap.len(), "{row}");
    assert!(row.to_string().contains(&take.sha256()), "an episode tells its SHA-256: {row}");

    let sync = format!("/api/v1/sync/episodes/{episode}");
    let (status, body) = site.post(&sync, &json!({})).await;
    assert_eq!(status, 400, "{body}");
    assert_eq!(
        body["error"], "episode qa_status is \"pending_qa\", must be approved or inspector_approved",
        "{body}"
    );
    let (status, body) = site.post("/api/v1/sync/episodes/999999", &json!({})).await;
    assert_eq!((status, &body["error"]), (404, &json!("episode not found")), "{body}");
    let (status, body) = site.post("/api/v1/sync/episodes/0", &json!({})).await;
    assert_eq!((status, &body["error"]), (400, &json!("invalid episode id")), "{body}");

    let (status, body) = site.post(&format!("/api/v1/episodes/{episode}/approve"), &json!({})).await;
    assert_eq!(status, 200, "{body}");
    let row = site.read(&format!("/api/v1/episodes/{episode}")).await;
    assert_eq!(row["qa_status"], "approved", "{row}");
    let status = site.sync_status(episode).await;
    assert_eq!(status["status"], "not_started", "approval alone starts nothing: {status}");
    assert_eq!((&status["id"], &status["attempt_count"]), (&json!(0), &json!(0)), "{status}");
    assert_eq!(status["cloud_synced"], false, "{status}");
    episode
}

async fn edge_to_cloud(site: &Site, cloud: &Cloud, take: &Take, episode: u64) {
    cloud.watcher.hold("UploadPart", 1);
    let sync = format!("/api/v1/sync/episodes/{episode}");
    let (status, body) = site.post(&sync, &json!({})).await;
    assert_eq!(status, 202, "{body}");
    let accepted =
        json!({"status": "accepted", "episode_id": episode, "message": "episode enqueued for cloud sync"});
    assert_eq!(body, accepted);
    cloud.watcher.held(1).await;
    let (status, body) = site.post(&sync, &json!({})).await;
    assert_eq!((status, &body["status"]), (409, &json!("already_queued")), "{body}");
    assert_eq!(body["error"], format!("sync already in progress for episode {episode}"), "{body}");

    let total = take.mcap.len() as u64;
    let status = until("progress of the acknowledged part", STEP, async || {
        let status = site.sync_status(episode).await;
        status["progress"]["uploaded_bytes"].as_u64().filter(|bytes| *bytes > 0).map(|_| status)
    })
    .await;
    assert_eq!(status["status"], "in_progress", "{status}");
    assert_eq!(status["attempt_count"], 1, "{status}");
    assert_eq!(status["progress"]["total_bytes"], total, "{status}");
    assert_eq!(status["progress"]["uploaded_bytes"], PART, "exactly the acknowledged part counts: {status}");
    assert_eq!(status["progress"]["percent"], PART * 100 / total, "{status}");
    assert!(status["progress"]["updated_at"].is_string(), "{status}");
    let batch = site.read(&format!("/api/v1/sync/episode-statuses?ids={episode},424242,{episode}")).await;
    assert_eq!(batch["items"].as_array().map(Vec::len), Some(1), "duplicates are dropped: {batch}");
    assert_eq!(batch["items"][0]["progress"]["uploaded_bytes"], PART, "{batch}");
    assert_eq!(batch["errors"], json!([{"episode_id": 424_242, "error": "episode not found"}]), "{batch}");

    cloud.watcher.release();
    let status = site.synced(episode).await;
    assert_eq!(status["destination_path"], take.cloud_key(), "{status}");
    assert_eq!(status["attempt_count"], 1, "{status}");
    assert_eq!(status["cloud_synced"], true, "{status}");
    assert!(status.get("progress").is_none(), "progress ends with the upload: {status}");
    assert!(status["completed_at"].is_string(), "{status}");
    let (code, body) = site.post(&sync, &json!({})).await;
    assert_eq!((code, &body["error"]), (409, &json!("episode already synced to cloud")), "{body}");

    let sidecar_key = take.cloud_key().replace(".mcap", ".json");
    let mut keys = cloud.keys();
    keys.sort();
    assert_eq!(keys, [sidecar_key.clone(), take.cloud_key()], "the recording and its sidecar beside it");
    assert_eq!(cloud.digest(&take.cloud_key()).await, (take.sha256(), total));
    let sidecar = take.sidecar.as_ref().expect("a sidecar").to_string();
    assert_eq!(cloud.digest(&sidecar_key).await.0, sha256(sidecar.as_bytes()), "the sidecar, byte for byte");
    assert_eq!(cloud.open_uploads(), Vec::<String>::new());
    assert!(take.cloud_key().starts_with(&format!("{SITE}/robot-1/2026-03-04/")), "{}", take.cloud_key());
    // The sidecar goes first, so that a recording in the cloud always has one.
    let puts = cloud.watcher.received("PutObject");
    let completes = cloud.watcher.received("CompleteMultipartUpload");
    assert_eq!((puts.len(), completes.len()), (1, 1), "{:?}", cloud.watcher.summary());
    let order: Vec<String> = cloud.watcher.summary();
    let at = |word: &str| order.iter().position(|line| line.starts_with(word));
    assert!(at("PutObject") < at("CompleteMultipartUpload"), "{order:?}");

    until("the edge copy to be gone", STEP, async || {
        let edge = site.edge();
        let mcap = edge.head(&take.key).await.expect("an answer");
        let sidecar = edge.head(&take.sidecar_key()).await.expect("an answer");
        (mcap.is_none() && sidecar.is_none()).then_some(())
    })
    .await;
}

#[test]
fn a_start_callback_moves_a_task_and_finish_without_a_transfer_link_is_made_up_for_later() {
    run(async {
        let site = Plan::new().start().await;
        let (device, task) = ("robot-1", "early-callback");
        site.create_task(device, task).await;
        let start = json!({"task_id": task, "device_id": device, "status": "recording", "topics": []});
        let foreign = json!({"task_id": task, "device_id": "robot-2", "status": "recording", "topics": []});
        let (status, body) = site.post("/api/v1/callbacks/start", &foreign).await;
        assert_eq!(
            site.task_status(task).await,
            "pending",
            "another device's callback moves nothing ({status} {body})"
        );
        let (status, body) = site.post("/api/v1/callbacks/start", &start).await;
        assert_eq!((status, &body["task_status"]), (200, &json!("in_progress")), "{body}");
        assert_eq!(site.task_status(task).await, "in_progress");

        let (status, body) = site.post("/api/v1/callbacks/finish", &finish_callback(device, task)).await;
        assert_eq!(status, 200, "{body}");
        assert_eq!(
            body["message"], "Recording finished; upload_request not sent because transfer is disconnected",
            "{body}"
        );
        assert_eq!(body["upload_request_sent"], false, "{body}");
        assert_eq!(body["task_status"], "uploading", "{body}");

        let mut uploader = Uploader::connect(&site, device).await;
        let text = uploader.text().await;
        assert_eq!(text, format!("{{\"priority\":1,\"task_id\":\"{task}\",\"type\":\"upload_request\"}}\n"));
    });
}

#[test]
fn a_refusal_of_the_device_is_passed_through_and_moves_no_task() {
    run(async {
        let site = Plan::new().start().await;
        let (device, task) = ("robot-1", "refused");
        site.create_task(device, task).await;
        let mut recorder = Recorder::connect(&site, device).await;
        let _uploader = Uploader::connect(&site, device).await;
        let path = format!("/api/v1/recorder/{device}/config");
        let play = async {
            let request = recorder.request("config").await;
            let data = json!({"state": "idle", "validation_errors": [{"field": "scene", "code": "empty", "message": "x"}]});
            recorder.answer(&request, false, "Task configuration validation failed", data).await;
        };
        let config = task_config(device, task);
        let ((status, body), ()) = tokio::join!(site.post(&path, &config), play);
        assert_eq!((status, &body["success"]), (200, &json!(false)), "{body}");
        assert_eq!(body["message"], "Task configuration validation failed", "{body}");
        assert_eq!(body["data"]["validation_errors"][0]["field"], "scene", "{body}");
        assert_eq!(site.task_status(task).await, "pending");

        // Busy with something else: no command leaves.
        recorder.task = Some("another".to_owned());
        recorder.push_state("recording").await;
        until("the pushed state", STEP, async || {
            let state = site.read(&format!("/api/v1/recorder/{device}/state")).await;
            (state["current_state"] == "recording").then_some(())
        })
        .await;
        let answering = async {
            loop {
                let request = recorder.request("get_state").await;
                recorder.answer_state(&request).await;
            }
        };
        let (status, body) = tokio::select! {
            biased;
            answer = site.post(&path, &config) => answer,
            never = answering => never,
        };
        assert_eq!((status, &body["code"]), (409, &json!("recorder_busy")), "{body}");
        assert_eq!(body["error"], "recorder is not idle; config is rejected", "{body}");
        assert_eq!(
            (&body["current_state"], &body["task_id"]),
            (&json!("recording"), &json!("another")),
            "{body}"
        );
        assert_eq!(site.task_status(task).await, "pending");
        let configs = recorder.seen.iter().filter(|action| *action == "config").count();
        assert_eq!(configs, 1, "no command leaves for a busy recorder: {:?}", recorder.seen);
    });
}
