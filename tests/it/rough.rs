//! Links over bad networks and with rough peers: a peer that is dead without a word, bytes one at a time, and messages far
//! beyond the bound.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tidegate_device::{Incoming, Opcode, WsError};
use tidegate_runtime::real::RealNet;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::rig::{Plan, Raw, STEP, Site, run, until};
use crate::script::{Recorder, Take, Uploader, synced};
use crate::stream::Follower;

const DEVICE: &str = "robot-1";

/// A relay of one connection that can swallow all that comes from either side, the ends of streams included, and later
/// let it through.
struct Hole {
    port: u16,
    closed: Arc<watch::Sender<bool>>,
}

impl Hole {
    async fn to(server: u16) -> Hole {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a socket");
        let port = listener.local_addr().expect("its address").port();
        let closed = Arc::new(watch::Sender::new(false));
        let gate = Arc::clone(&closed);
        tokio::spawn(async move {
            let (client, _) = listener.accept().await.expect("a client");
            let server = TcpStream::connect(("127.0.0.1", server)).await.expect("the site");
            for socket in [&client, &server] {
                socket.set_nodelay(true).expect("a socket");
            }
            let (from_client, to_client) = client.into_split();
            let (from_server, to_server) = server.into_split();
            tokio::join!(
                carry(from_client, to_server, gate.subscribe()),
                carry(from_server, to_client, gate.subscribe())
            );
        });
        Hole { port, closed }
    }

    /// From now on nothing passes.
    fn close(&self) {
        self.closed.send_replace(true);
    }

    /// What waits passes, and all that comes.
    fn open(&self) {
        self.closed.send_replace(false);
    }
}

/// Carries bytes one way; holds back what came while the hole is closed, the end too.
async fn carry(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    mut closed: watch::Receiver<bool>,
) {
    let mut buffer = vec![0; 16 << 10];
    loop {
        let got = from.read(&mut buffer).await.unwrap_or(0);
        if closed.wait_for(|closed| !closed).await.is_err() {
            return;
        }
        if got == 0 {
            let _ = to.shutdown().await;
            return;
        }
        if to.write_all(&buffer[..got]).await.is_err() {
            return;
        }
    }
}

#[test]
fn a_device_that_is_cut_off_without_a_word_comes_back_and_its_old_link_changes_nothing_when_it_revives() {
    run(async {
        let site = Plan::new().start().await;
        site.create_task(DEVICE, "through").await;
        let hole = Hole::to(site.api).await;
        let path = format!("/recorder/{DEVICE}");
        let link = Raw::dial(&RealNet, "127.0.0.1", hole.port, &path, &[]).await.expect("a link");
        let mut old = Recorder {
            link,
            device: DEVICE.to_owned(),
            state: "recording".to_owned(),
            task: Some("through".to_owned()),
            seen: Vec::new(),
        };
        let request = old.request("get_state").await;
        old.answer_state(&request).await;
        site.task_reaches("through", "in_progress").await;

        hole.close();
        // What it says now, and that it goes, reaches nobody yet.
        old.push_state("idle").await;
        old.link
            .send_json(&json!({"type": "config_applied", "timestamp": 1, "data": {"task_id": "through"}}))
            .await
            .expect("a socket");

        // The device is back on another way before anybody missed it.
        let mut new = Recorder::dial(&site, DEVICE).await;
        new.state = "recording".to_owned();
        new.task = Some("through".to_owned());
        let request = new.request("get_state").await;
        new.answer_state(&request).await;
        synced(&site, DEVICE).await;

        // The old way heals.
        hole.open();
        let closed = old.link.closed(STEP).await.expect("the old link ends");
        assert_eq!(closed, Some((4001, "replaced by a newer connection".to_owned())));
        let (code, body, _) = new.obey(&site, "pause", &json!({}), "paused").await;
        assert_eq!((code, &body["success"]), (200, &json!(true)), "{body}");
        let state = site.read(&format!("/api/v1/recorder/{DEVICE}/state")).await;
        assert_eq!(
            (&state["current_state"], &state["state_synced"]),
            (&json!("paused"), &json!(true)),
            "{state}"
        );
        assert_eq!(site.task_status("through").await, "in_progress");
    });
}

#[test]
fn a_peer_that_died_without_a_word_is_noticed_and_its_device_can_come_back() {
    run(async {
        let site = Plan::new()
            .set("devices.ping_interval", "500ms")
            .set("devices.ping_timeout", "1s")
            // It owes an answer: it was asked for its state.
            .set("devices.busy_patience", "2s")
            .start()
            .await;
        let hole = Hole::to(site.api).await;
        let path = format!("/recorder/{DEVICE}");
        let link = Raw::dial(&RealNet, "127.0.0.1", hole.port, &path, &[]).await.expect("a link");
        hole.close();
        // The process is gone: its end is swallowed as well.
        drop(link);
        until("the dead recorder to be gone", STEP, async || {
            let state = site.read(&format!("/api/v1/recorder/{DEVICE}/state")).await;
            (state["connected"] == false).then_some(())
        })
        .await;
        let new = Recorder::connect(&site, DEVICE);
        new.await;
        hole.open();
    });
}

#[test]
fn a_handshake_and_frames_that_come_byte_by_byte_are_read() {
    run(async {
        let site = Plan::new().start().await;
        let mut stream = TcpStream::connect(("127.0.0.1", site.api)).await.expect("the site");
        stream.set_nodelay(true).expect("a socket");
        let handshake = format!(
            "GET /recorder/{DEVICE} HTTP/1.1\r\nHost: site\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        );
        for byte in handshake.as_bytes() {
            stream.write_all(&[*byte]).await.expect("an open socket");
            tokio::task::yield_now().await;
        }
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.expect("an answer"));
        }
        let head = String::from_utf8(head).expect("text");
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        // The first frame of ours: short length, or 16 bits of it; never masked.
        assert_eq!(stream.read_u8().await.expect("a frame"), 0x81);
        let len = match stream.read_u8().await.expect("a frame") {
            126 => usize::from(stream.read_u16().await.expect("a frame")),
            short => usize::from(short),
        };
        let mut payload = vec![0; len];
        stream.read_exact(&mut payload).await.expect("a frame");
        let request: serde_json::Value = serde_json::from_slice(&payload).expect("JSON");
        assert_eq!(request["action"], "get_state", "{request}");
        let answer = json!({
            "type": "rpc_response", "request_id": request["request_id"], "success": true,
            "message": "State retrieved successfully".repeat(8), "data": {"state": "idle", "version": "0.4.0"},
        })
        .to_string();
        let mask = [1, 2, 3, 250];
        let mut frame = vec![0x81, 0x80 | 126];
        frame.extend_from_slice(&u16::try_from(answer.len()).expect("short").to_be_bytes());
        frame.extend_from_slice(&mask);
        frame.extend(answer.bytes().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        assert!(answer.len() > 126);
        for byte in &frame {
            stream.write_all(&[*byte]).await.expect("an open socket");
            tokio::task::yield_now().await;
        }
        synced(&site, DEVICE).await;
    });
}

/// KiB of memory at its peak, where the system tells.
fn peak(site: &Site) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{}/status", site.process())).ok()?;
    let line = text.lines().find(|line| line.starts_with("VmHWM"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// A message four times over the bound, sent to its end: whole, or in pieces.
async fn far_too_large(role: &str, fragment: usize) {
    let site = Plan::new().start().await;
    let before = peak(&site);
    let bytes = vec![b'x'; 32 << 20];
    let mut link = site.dial(&format!("/{role}/{DEVICE}")).await.expect("a link");
    let last = bytes.len().div_ceil(fragment) - 1;
    for (at, piece) in bytes.chunks(fragment).enumerate() {
        let opcode = if at == 0 { Opcode::Text } else { Opcode::Continuation };
        // The site hangs up before the end; what it still takes is not looked at.
        if link.send_frame(at == last, opcode, piece).await.is_err() {
            break;
        }
    }
    match link.closed(STEP).await {
        Ok(Some((code, reason))) => {
            assert_eq!(code, 1009, "{reason}");
            assert!(reason.contains(&(8 << 20).to_string()), "{reason}");
        }
        other => panic!("no Close but {other:?}"),
    }
    if let (Some(before), Some(after)) = (before, peak(&site)) {
        assert!(after - before < 64 << 10, "{before} KiB became {after} KiB");
    }
    let text = String::from_utf8(site.send(http::Method::GET, "/metrics").await.body.to_vec()).expect("text");
    let counted = format!("tidegate_oversize_messages_total{{role=\"{role}\"}} 1");
    assert!(text.contains(&counted), "{text}");
    until("the warning", STEP, async || {
        let log = site.log();
        log.lines()
            .any(|line| line.contains("WARN") && line.contains("max_message") && line.contains(DEVICE))
            .then_some(())
    })
    .await;
    // The next link of the device works.
    let mut recorder = Recorder::connect(&site, DEVICE).await;
    let mut uploader = Uploader::connect(&site, DEVICE).await;
    uploader.deliver(&site, &Take::new(DEVICE, "after", 1, 10_000).mcap_only()).await;
    let (code, body, _) = recorder.obey(&site, "quit", &json!({}), "idle").await;
    assert_eq!((code, &body["success"]), (200, &json!(true)), "{body}");
}

#[test]
fn a_frame_of_32_mib_ends_its_link_costs_little_and_is_told() {
    run(far_too_large("recorder", 32 << 20));
}

#[test]
fn a_message_of_32_mib_in_fragments_ends_its_link_costs_little_and_is_told() {
    run(far_too_large("transfer", 64 << 10));
}

#[test]
fn two_programs_at_one_address_take_turns_until_they_are_slowed_and_told_of_and_nobody_else_notices() {
    run(async {
        let site = Plan::new().set("devices.contest_pause", "1m").start().await;
        let mut third = Recorder::connect(&site, "robot-3").await;
        let mut viewer = Follower::follow(&site, "?types=device_takeover,device_conflict").await;
        let mut last = Recorder::connect(&site, DEVICE).await;
        let mut turns: u64 = 0;
        let (headers, body) = loop {
            match site.dial(&format!("/recorder/{DEVICE}")).await {
                Ok(link) => {
                    let closed = last.link.closed(STEP).await.expect("the old link ends");
                    assert_eq!(closed, Some((4001, "replaced by a newer connection".to_owned())));
                    last.link = link;
                    turns += 1;
                }
                Err(WsError::Declined { status: 503, headers, body }) => break (headers, body),
                Err(error) => panic!("{error}"),
            }
            assert!(turns < 40, "nobody is ever turned away");
        };
        assert!(turns >= 6, "it might have been one robot with a bad network: {turns}");
        assert!(body.contains("\"code\":\"contested_id\""), "{body}");
        let wait = headers.iter().find(|(name, _)| name == "retry-after").map(|(_, value)| value);
        let wait: u32 = wait.expect("it says when to come back").parse().expect("seconds");
        assert!((1..=60).contains(&wait), "{wait}");

        // Who it is about is told to operators: on the site and in the stream.
        let told = viewer.upto("the fight", |told| told.name == "device_conflict").await;
        let (conflict, takeovers) = told.split_last().expect("events");
        assert_eq!(takeovers.len() as u64, turns, "{takeovers:?}");
        for takeover in takeovers {
            let (old, new) = (&takeover.data["old"], &takeover.data["new"]);
            assert!(new["generation"].as_u64() > old["generation"].as_u64(), "{takeover:?}");
        }
        assert_eq!(conflict.data["contested"], true, "{conflict:?}");
        let shown = site.read(&format!("/api/v1/devices/{DEVICE}/connection")).await;
        let contest = &shown["contests"][0];
        assert_eq!(contest["addresses"], conflict.data["addresses"], "{shown}");
        assert!(contest["closed_until"].is_string(), "{shown}");
        let mut addresses: Vec<&str> =
            contest["addresses"].as_array().expect("both").iter().filter_map(|at| at.as_str()).collect();
        addresses.dedup();
        assert_eq!(addresses.len(), 2, "their ports tell them apart: {shown}");
        assert!(addresses.iter().all(|at| at.starts_with("127.0.0.1:")), "{shown}");

        // Whoever has the link keeps it, and works.
        last.state = "idle".to_owned();
        let request = last.request("get_state").await;
        last.answer_state(&request).await;
        synced(&site, DEVICE).await;
        let (code, body, _) = last.obey(&site, "quit", &json!({}), "idle").await;
        assert_eq!((code, &body["success"]), (200, &json!(true)), "{body}");
        let (code, body, _) = third.obey(&site, "quit", &json!({}), "idle").await;
        assert_eq!((code, &body["success"]), (200, &json!(true)), "{body}");
        let quiet = third.link.next(Duration::from_millis(1)).await;
        assert!(matches!(quiet, Ok(None | Some(Incoming::Ping(_)))), "{quiet:?}");
    });
}
