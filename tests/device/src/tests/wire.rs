//! The links themselves: what a cut loses, how long a dial waits, how large frames are cut up.

use std::time::Duration;

use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use super::floor::Floor;
use super::servers::{PATIENCE, Peer, RECORDER_PORT, TRANSFER_PORT, config};
use crate::{Device, DeviceEvent, FRAGMENT_BYTES, Incoming, Link, Opcode, RawLink, WsError};

#[tokio::test(start_paused = true)]
async fn frames_left_over_from_a_connection_come_before_the_snapshot_of_the_next() {
    let floor = Floor::new();
    let mut door = floor.net.open(RECORDER_PORT);
    let mut config = config();
    config.record.target_bytes = 1 << 20;
    // Finishing takes a while, so that the cut comes first.
    let device = Device::spawn(floor.clone(), config).unwrap();
    let (_, mut peer) = Peer::accept(&mut door).await;
    let task = json!({"task_config": {"task_id": "t1", "device_id": "dev-a"}});
    peer.send(json!({"action": "config", "request_id": "1", "params": task}).to_string()).await;
    for expected in ["state_update", "config_applied", "state_update", "rpc_response"] {
        assert_eq!(peer.json().await["type"], expected);
    }
    peer.send(json!({"action": "begin", "request_id": "2", "params": {"task_id": "t1"}}).to_string()).await;
    for expected in ["state_update", "rpc_response"] {
        assert_eq!(peer.json().await["type"], expected);
    }
    peer.send(json!({"action": "finish", "request_id": "3", "params": {"task_id": "t1"}}).to_string()).await;
    drop(peer);
    let (_, mut peer) = Peer::accept(&mut door).await;
    let first = peer.json().await;
    assert_eq!(
        first["request_id"], "3",
        "the transition being written at the cut is lost, the answer is not"
    );
    let snapshot = peer.json().await;
    assert_eq!(snapshot["data"], json!({"current": "idle", "previous": "idle", "task_id": "t1"}));
    device.kill().await;
}

#[tokio::test(start_paused = true)]
async fn a_status_of_many_uploads_leaves_in_fragments_of_4096_bytes() {
    let floor = Floor::new();
    let row = |n: usize| {
        json!({
            "task_id": format!("t{n}"), "status": "completed", "mcap": format!("/data/rec/t{n}.mcap"),
            "json": null, "s3_key": "k", "file_bytes": 1, "sha256": "00", "retry_count": 0, "last_error": "",
            "last_error_category": "", "next_retry_at": null, "updated_at": "", "completed_at": null,
            "delete_retry_count": 0, "delete_last_error": "",
        })
    };
    let rows: serde_json::Map<String, Value> = (0..40).map(|n| (format!("t{n}"), row(n))).collect();
    floor.disk.put("/data/rec/transfer/state.json", Value::Object(rows).to_string().as_bytes());
    let mut door = floor.net.open(TRANSFER_PORT);
    let device = Device::spawn(floor.clone(), config()).unwrap();
    let mut stream = door.next().await;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    let key = head.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: ")).unwrap();
    let accept = crate::ws::accept(key);
    let answer = format!("HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: {accept}\r\n\r\n");
    stream.write_all(answer.as_bytes()).await.unwrap();

    let (mut text, mut frames) = (Vec::new(), Vec::new());
    loop {
        let (first, second) = (stream.read_u8().await.unwrap(), stream.read_u8().await.unwrap());
        assert_eq!(second & 0x80, 0x80, "a client masks");
        let len = match second & 0x7f {
            126 => usize::from(stream.read_u16().await.unwrap()),
            127 => panic!("a fragment of 64 KiB or more"),
            len => usize::from(len),
        };
        let mask = stream.read_u32().await.unwrap().to_be_bytes();
        let mut payload = vec![0; len];
        stream.read_exact(&mut payload).await.unwrap();
        text.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        frames.push((first, len));
        if first & 0x80 != 0 {
            break;
        }
    }
    let frame: Value = serde_json::from_slice(&text).unwrap();
    assert_eq!(frame["data"]["uploads"].as_array().unwrap().len(), 40);
    let (last, whole) = frames.split_last().unwrap();
    assert!(frames.len() > 4, "{frames:?}");
    assert_eq!(whole[0], (0x01, FRAGMENT_BYTES));
    assert!(whole[1..].iter().all(|frame| *frame == (0x00, FRAGMENT_BYTES)), "{frames:?}");
    assert_eq!(last.0, 0x80);
    device.kill().await;
}

#[tokio::test(start_paused = true)]
async fn a_declined_dial_is_repeated_with_growing_delays() {
    let floor = Floor::new();
    let mut door = floor.net.open(RECORDER_PORT);
    let device = Device::spawn(floor.clone(), config()).unwrap();
    let mut dials = Vec::new();
    for _ in 0..4 {
        let mut stream = door.next().await;
        dials.push(Instant::now());
        stream.write_all(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n").await.unwrap();
    }
    let delays: Vec<f64> = dials.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64()).collect();
    for (delay, nominal) in delays.iter().zip([1.0, 2.0, 4.0]) {
        assert!((nominal * 0.79..nominal * 1.21).contains(delay), "{delays:?}");
    }
    let declined = DeviceEvent::Declined { link: Link::Recorder, status: 401 };
    assert!(device.log().all().contains(&declined));
    device.kill().await;
}

#[tokio::test(start_paused = true)]
async fn a_device_pings_and_leaves_a_link_that_does_not_answer() {
    let floor = Floor::new();
    let mut door = floor.net.open(RECORDER_PORT);
    let device = Device::spawn(floor.clone(), config()).unwrap();
    let (_, mut peer) = Peer::accept(&mut door).await;
    let opened = Instant::now();
    assert!(peer.0.next().await.unwrap().unwrap().is_text());
    assert!(peer.0.next().await.unwrap().unwrap().is_ping());
    // Reading the ping has queued its answer; keeping the stream without polling it never sends that.
    let closed = device.wait_for("loss of the link", PATIENCE, |events| {
        events.iter().find(|event| matches!(event, DeviceEvent::Closed { link: Link::Recorder, .. })).cloned()
    });
    let Ok(DeviceEvent::Closed { code, reason, .. }) = closed.await else { panic!("no close") };
    assert_eq!((code, reason.as_str()), (None, "no pong"));
    assert_eq!(opened.elapsed().as_secs(), 40);
    device.kill().await;
}

#[tokio::test(start_paused = true)]
async fn a_close_is_seen_with_its_code_and_reason() {
    let floor = Floor::new();
    let mut door = floor.net.open(RECORDER_PORT);
    let device = Device::spawn(floor.clone(), config()).unwrap();
    let (_, mut peer) = Peer::accept(&mut door).await;
    peer.json().await;
    peer.close(1008, "replaced").await;
    let expected =
        DeviceEvent::Closed { link: Link::Recorder, code: Some(1008), reason: "replaced".to_owned() };
    let seen = device.wait_for("close", PATIENCE, |events| events.contains(&expected).then_some(()));
    seen.await.unwrap();
    device.kill().await;
}

#[tokio::test(start_paused = true)]
async fn a_garbled_frame_keeps_its_first_fragment_and_loses_the_rest() {
    let floor = Floor::new();
    let mut door = floor.net.open(RECORDER_PORT);
    let mut config = config();
    config.garbled_frames_percent = 100;
    let device = Device::spawn(floor.clone(), config).unwrap();
    let (_, mut peer) = Peer::accept(&mut door).await;
    peer.json().await;
    let echo = "x".repeat(9000);
    let request = json!({"action": "test", "request_id": "1", "params": {"echo": echo}});
    peer.send(request.to_string()).await;
    let text = peer.text().await;
    assert!(serde_json::from_str::<Value>(&text).is_err());
    assert!(text.starts_with(r#"{"data":{"echo":"xxxx"#));
    assert!(text[..FRAGMENT_BYTES].ends_with('x') && !text[FRAGMENT_BYTES..].starts_with("xxxxxxxx"));
    device.kill().await;
}

#[tokio::test(start_paused = true)]
async fn a_raw_link_sends_what_it_is_told_and_sees_how_it_ends() {
    let floor = Floor::new();
    let mut door = floor.net.open(RECORDER_PORT);
    let serving = tokio::spawn(async move {
        let (head, mut peer) = Peer::accept(&mut door).await;
        assert_eq!(head.headers["x-test"], "1");
        assert_eq!(peer.text().await, "a split text: \u{e9}");
        assert_eq!(peer.0.next().await.unwrap().unwrap().as_payload().len(), 3);
        peer.send(r#"{"a":1}"#).await;
        peer.close(4001, "enough").await;
        door.next()
            .await
            .write_all(b"HTTP/1.1 503 Busy\r\nRetry-After: 5\r\nContent-Length: 2\r\n\r\nno")
            .await
            .unwrap();
    });
    let net = &floor.net;
    let mut link = RawLink::dial(net, "gate", RECORDER_PORT, "/x", &[("X-Test", "1")]).await.unwrap();
    // The border between the fragments cuts a character in two.
    link.send_fragments(&[b"a split text: \xc3", b"\xa9"]).await.unwrap();
    link.send_frame(true, Opcode::Binary, b"abc").await.unwrap();
    assert_eq!(link.next_json(PATIENCE).await.unwrap(), json!({"a": 1}));
    assert_eq!(link.closed(PATIENCE).await.unwrap(), Some((4001, "enough".to_owned())));
    link.send_close(4001, "").await.unwrap();
    assert_eq!(link.closed(PATIENCE).await.unwrap(), None);
    let declined = RawLink::dial(net, "gate", RECORDER_PORT, "/x", &[]).await;
    let Err(WsError::Declined { status, headers, body }) = declined else { panic!("{declined:?}") };
    assert_eq!((status, body.as_str()), (503, "no"));
    assert!(headers.contains(&("retry-after".to_owned(), "5".to_owned())));
    serving.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_raw_link_reports_silence_as_nothing() {
    let floor = Floor::new();
    let mut door = floor.net.open(RECORDER_PORT);
    let accepting = tokio::spawn(async move { Peer::accept(&mut door).await });
    let mut link = RawLink::dial(&floor.net, "gate", RECORDER_PORT, "/", &[]).await.unwrap();
    let (_, mut peer) = accepting.await.unwrap();
    assert_eq!(link.next(Duration::from_secs(3)).await.unwrap(), None);
    peer.send("late").await;
    assert_eq!(link.next(PATIENCE).await.unwrap(), Some(Incoming::Text("late".to_owned())));
}

#[tokio::test(start_paused = true)]
async fn the_log_hides_the_token_of_a_task_and_debug_output_the_keys() {
    let floor = Floor::new();
    let mut door = floor.net.open(RECORDER_PORT);
    let mut config = config();
    config.recorder_token = Some("token-of-device".to_owned());
    let device = Device::spawn(floor.clone(), config).unwrap();
    let (_, mut peer) = Peer::accept(&mut door).await;
    let task = json!({"task_config": {"task_id": "t1", "device_id": "dev-a", "user_token": "token-of-task"}});
    peer.send(json!({"action": "config", "request_id": "1", "params": task}).to_string()).await;
    for _ in 0..4 {
        peer.json().await;
    }
    let shown = format!("{device:?} {:?} {:?}", device.config().s3, device.log().all());
    assert!(shown.contains("(hidden)") && shown.contains("edge-axon"), "{shown}");
    for secret in ["token-of-device", "token-of-task", "\"secret\""] {
        assert!(!shown.contains(secret), "{secret} is shown");
    }
    device.kill().await;
}
