//! What a server said to real recorders, said to ours; the answers must be the recorded ones. Ids of requests are
//! the recorded ones too; times and counters are compared by kind, not by value.

use serde_json::{Value, json};

use super::floor::Floor;
use super::servers::{Peer, RECORDER_PORT, callbacks, config};
use crate::Device;

/// Numbers become zeros: sizes, counts and times differ by nature. Paths become their file names.
fn normal(value: &Value) -> Value {
    match value {
        Value::Number(_) => json!(0),
        Value::Array(items) => items.iter().map(normal).collect(),
        Value::Object(fields) => fields
            .iter()
            .map(|(name, value)| (name.clone(), normal(value)))
            .collect::<serde_json::Map<_, _>>()
            .into(),
        Value::String(text) if text.starts_with('/') && text.contains("rec/") => {
            json!(text.rsplit('/').next())
        }
        Value::String(text) if text.len() == 20 && text.ends_with('Z') => json!("time"),
        other => other.clone(),
    }
}

#[track_caller]
fn compare(seq: &Value, text: &str, recorded: &Value) {
    let frame: Value = serde_json::from_str(text).unwrap();
    assert_eq!(frame.to_string(), text, "line {seq}: keys are not in alphabetical order");
    let (ours, theirs) = (normal(&frame), normal(recorded));
    if theirs["data"]["buffer_pool"].is_object() {
        // Statistics: ours lack the counters of buffers we do not have; the rest must agree.
        for (name, value) in ours["data"].as_object().unwrap() {
            let recorded = &theirs["data"][name];
            assert!(!recorded.is_null(), "line {seq}: real recorders do not report {name}");
            assert_eq!(value.is_object(), recorded.is_object(), "line {seq}: {name}");
        }
        return;
    }
    assert_eq!(ours, theirs, "line {seq}");
}

async fn replay(lines: &str, callback_status: u16) {
    let floor = Floor::new();
    let arrived = callbacks(&floor, callback_status);
    let mut door = floor.net.open(RECORDER_PORT);
    let mut config = config();
    config.recorder_token = Some("kws_v1_example-token".to_owned());
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    config.record.sidecar = !lines
        .iter()
        .any(|line| line["kind"] == "http-finish" && line["body"]["body"]["sidecar_enabled"] == json!(false));
    let device = Device::spawn(floor.clone(), config).unwrap();
    let mut peer: Option<Peer> = None;
    let (mut compared, mut recorded_callbacks) = (0, Vec::new());
    for line in &lines {
        let word = |name: &str| line[name].as_str().unwrap_or_default();
        match (word("role"), word("dir"), word("kind")) {
            ("recorder", "event", "handshake") => {
                let (head, accepted) = Peer::accept(&mut door).await;
                peer = Some(accepted);
                let recorded = line["body"]["headers"].as_object().unwrap();
                assert_eq!(head.headers.len(), recorded.len(), "{:?}", head.headers);
                assert_eq!(head.headers["authorization"], recorded["Authorization"].as_str().unwrap());
                assert!(!head.headers["host"].to_str().unwrap().contains(':'), "{:?}", head.headers);
            }
            ("recorder", "event", "server-drop") if line["body"] == "close" => {
                peer.take().unwrap().close(1001, "going away").await;
            }
            ("recorder", "event", "server-drop") => peer = None,
            ("recorder", "server->device", "json") => {
                peer.as_mut().unwrap().send(line["body"].to_string()).await;
            }
            ("recorder", "server->device", "raw") => {
                peer.as_mut().unwrap().send(line["body"].as_str().unwrap()).await;
            }
            ("recorder", "device->server", "json") => {
                let text = peer.as_mut().unwrap().text().await;
                compare(&line["seq"], &text, &line["body"]);
                compared += 1;
            }
            ("recorder", "device->server", "frame") if word("body").starts_with("CLOSE 1000") => {
                use futures_util::StreamExt;
                let message = peer.as_mut().unwrap().0.next().await.unwrap().unwrap();
                assert_eq!(message.as_close().map(|(code, _)| u16::from(code)), Some(1000));
            }
            ("callback", "device->server", _) => recorded_callbacks.push(&line["body"]),
            // Pings, the uploader's frames, and what the recording server noted about itself.
            _ => {}
        }
    }
    assert!(compared > 2, "the transcript has no answers");
    let waits = recorded_callbacks.len();
    let done = device.wait_for("callbacks", super::servers::PATIENCE, |events| {
        let answered = events.iter().filter(|event| matches!(event, crate::DeviceEvent::Callback { .. }));
        (answered.count() >= waits).then_some(())
    });
    done.await.unwrap();
    let arrived = arrived.lock().unwrap();
    assert_eq!(arrived.len(), recorded_callbacks.len(), "a callback is sent once, whatever the answer");
    for (ours, recorded) in arrived.iter().zip(recorded_callbacks) {
        let body: Value = serde_json::from_slice(&ours.body).unwrap();
        assert_eq!(normal(&body), normal(&recorded["body"]));
        for (name, value) in recorded["headers"].as_object().unwrap() {
            let got = ours.headers.get(name).unwrap_or_else(|| panic!("no {name}")).to_str().unwrap();
            assert!(name == "Content-Length" || value == got, "{name}: {got}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_first_session_is_answered_as_the_real_recorder_answered() {
    replay(include_str!("../../../transcripts/recorder-basic.jsonl"), 200).await;
}

#[tokio::test(start_paused = true)]
async fn garbage_and_reconnections_are_answered_as_the_real_recorder_answered() {
    replay(include_str!("../../../transcripts/transfer-basic-and-recorder-garbage.jsonl"), 200).await;
}

#[tokio::test(start_paused = true)]
async fn cancel_clear_quit_and_a_refused_callback_go_as_with_the_real_recorder() {
    replay(include_str!("../../../transcripts/cancel-clear-quit-callback500-mcaponly.jsonl"), 500).await;
}

#[tokio::test(start_paused = true)]
async fn a_cut_after_a_recording_is_followed_by_the_recorded_snapshot() {
    replay(include_str!("../../../transcripts/reconnect-after-rst.jsonl"), 200).await;
}
