//! Links and their limits: takeover, timeouts, large and broken frames, and requests that are no links.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use tidegate_device::{Incoming, Opcode, WsError};
use tidegate_runtime::real::RealNet;
use tidegate_runtime::seam::Net;
use tokio::net::{TcpSocket, TcpStream};

use crate::rig::{Plan, Raw, STEP, Site, free_port, run, until};
use crate::script::{Recorder, Take, Uploader, status, synced};

const DEVICE: &str = "robot-1";

async fn state(site: &Site) -> Value {
    site.read(&format!("/api/v1/recorder/{DEVICE}/state")).await
}

/// Connects from an address of its own.
#[derive(Clone, Copy)]
struct Source(&'static str);

impl Net for Source {
    type Stream = TcpStream;
    type Listener = <RealNet as Net>::Listener;

    async fn bind(&self, addr: SocketAddr) -> io::Result<Self::Listener> {
        RealNet.bind(addr).await
    }

    async fn connect(&self, host: &str, port: u16) -> io::Result<TcpStream> {
        let own = format!("{}:0", self.0).parse().map_err(io::Error::other)?;
        let socket = TcpSocket::new_v4()?;
        socket.bind(own)?;
        socket.connect(format!("{host}:{port}").parse().map_err(io::Error::other)?).await
    }
}

const TWINS: [&str; 2] = ["127.0.0.1", "127.0.0.2"];

/// One of two programs dials the recorder link of the device.
async fn twin(site: &Site, n: usize) -> Result<Raw, WsError> {
    let path = format!("/recorder/{DEVICE}");
    Raw::dial(&Source(TWINS[n % 2]), "127.0.0.1", site.api, &path, &[]).await
}

/// What is told to whoever is turned away because of a fight.
fn contested(answer: Result<Raw, WsError>) -> (Option<String>, Value) {
    match answer {
        Err(WsError::Declined { status: 503, headers, body }) => {
            let wait = headers.into_iter().find(|(name, _)| name == "retry-after").map(|(_, value)| value);
            (wait, serde_json::from_str(&body).unwrap_or_default())
        }
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("the newest wins in the midst of a fight"),
    }
}

async fn metrics(site: &Site) -> String {
    let answer = site.send(http::Method::GET, "/metrics").await;
    String::from_utf8_lossy(&answer.body).into_owned()
}

/// The predecessor let two programs displace each other for as long as both dialled, and nobody was told.
#[test]
fn w33_two_programs_that_fight_over_one_id_are_shown_with_both_addresses_and_slowed() {
    run(async {
        let site = Plan::new().set("devices.contest_pause", "1m").start().await;
        let mut third = Recorder::connect(&site, "robot-2").await;
        let mut links = Vec::new();
        let refused = loop {
            match twin(&site, links.len()).await {
                Ok(link) => links.push(link),
                refused @ Err(_) => break refused,
            }
            assert!(links.len() < 40, "nobody is ever turned away");
        };
        let (wait, body) = contested(refused);
        assert_eq!(body["code"], "contested_id", "{body}");
        assert!(!body.to_string().contains("127.0.0."), "who else is there is for the operator: {body}");
        let wait: u32 = wait.expect("it says when to come back").parse().expect("seconds");
        assert!((1..=60).contains(&wait), "{wait}");

        let shown = site.read(&format!("/api/v1/devices/{DEVICE}/connection")).await;
        let contest = &shown["contests"][0];
        assert_eq!((&contest["role"], &shown["contests"][1]), (&json!("recorder"), &Value::Null), "{shown}");
        let of = |twin: &str| {
            let addresses = contest["addresses"].as_array().expect("both addresses");
            addresses
                .iter()
                .filter(|a| a.as_str().is_some_and(|a| a.starts_with(&format!("{twin}:"))))
                .count()
        };
        assert_eq!(TWINS.map(of), [1, 1], "{contest}");
        let takeovers = links.len() - 1;
        assert!(contest["takeovers"].as_u64() >= Some(4), "{contest}");
        assert!(contest["closed_until"].is_string(), "{contest}");
        assert!(site.log().contains("two programs fight over one device id"));
        let text = metrics(&site).await;
        for line in [
            "tidegate_contests{role=\"recorder\"} 1".to_owned(),
            "tidegate_contests{role=\"transfer\"} 0".to_owned(),
            format!("tidegate_takeovers_total{{role=\"recorder\"}} {takeovers}"),
        ] {
            assert!(text.contains(&line), "{line} is not in {text}");
        }

        // Whoever has the link keeps it, and neither the uploader nor another device has anything to do with it.
        for n in 0..4 {
            contested(twin(&site, n).await);
        }
        let mut winner = links.pop().expect("somebody has it");
        let request = winner.next_json(STEP).await.expect("an open link");
        assert_eq!(request["action"], "get_state", "{request}");
        assert_eq!(state(&site).await["connected"], true);
        let _uploader = Uploader::connect(&site, DEVICE).await;
        let (status, body, _) = third.obey(&site, "quit", &json!({}), "idle").await;
        assert_eq!((status, &body["success"]), (200, &json!(true)), "{body}");

        // Nobody has the link: whoever comes gets it at once, long before the pause is over.
        winner.send_close(1000, "bye").await.expect("an open link");
        until("the link to be free", STEP, async || twin(&site, 1).await.ok()).await;
        let shown = site.read(&format!("/api/v1/devices/{DEVICE}/connection")).await;
        assert_eq!(shown["contests"], json!([]), "{shown}");
    });
}

/// The predecessor kept the calls of all links in one table: whoever knew the id of one could end it.
#[test]
fn w20_an_answer_counts_only_on_the_link_that_was_asked() {
    run(async {
        let site = Plan::new().start().await;
        let mut asked = Recorder::connect(&site, DEVICE).await;
        let mut other = Recorder::connect(&site, "robot-2").await;
        let path = format!("/api/v1/recorder/{DEVICE}/pause");
        let empty = json!({});
        let play = async {
            let request = asked.request("pause").await;
            other.answer(&request, false, "not yours", json!({"state": "recording"})).await;
            // What came on the other link before this push was read.
            other.push_state("maintenance").await;
            until("the push of the other recorder", STEP, async || {
                let state = site.read("/api/v1/recorder/robot-2/state").await;
                (state["current_state"] == "maintenance").then_some(())
            })
            .await;
            asked.answer(&request, true, "mine", json!({})).await;
        };
        let ((status, body), ()) = tokio::join!(site.post(&path, &empty), play);
        assert_eq!((status, &body["message"]), (200, &json!("mine")), "{body}");

        // Nor does it on the link that took over from the one that was asked.
        let waiting = site.post(&path, &empty);
        let takeover = async {
            let request = asked.request("pause").await;
            (request, Recorder::dial(&site, DEVICE).await)
        };
        let ((status, body), (pause, mut new)) = tokio::join!(waiting, takeover);
        assert_eq!((status, &body["result_unknown"]), (404, &json!(true)), "{body}");
        let get_state = new.request("get_state").await;
        new.answer(&pause, true, "late", json!({"state": "paused", "task_id": "somebodys"})).await;
        new.answer_state(&get_state).await;
        synced(&site, DEVICE).await;
        assert_eq!(state(&site).await["current_state"], "idle");
    });
}

#[test]
fn k36_an_answer_with_an_id_that_nobody_asked_with_is_ignored() {
    run(async {
        let site = Plan::new().start().await;
        let mut recorder = Recorder::connect(&site, DEVICE).await;
        let before = state(&site).await;
        for id in [json!("no-such-request"), json!(""), json!(7), Value::Null] {
            let bogus = json!({"request_id": id});
            recorder.answer(&bogus, true, "done", json!({"state": "recording", "task_id": "t"})).await;
        }
        let (status, body, _) = recorder.obey(&site, "quit", &json!({}), "idle").await;
        assert_eq!((status, &body["success"]), (200, &json!(true)), "the link serves as before: {body}");
        let after = state(&site).await;
        for field in ["current_state", "task_id", "state_synced", "generation"] {
            assert_eq!(after[field], before[field], "{field}: {after}");
        }
    });
}

#[test]
fn k40_a_recorder_that_refuses_get_state_is_asked_again_and_its_greeting_counts() {
    run(async {
        let site = Plan::new().start().await;
        site.create_task(DEVICE, "asked-twice").await;
        let _uploader = Uploader::connect(&site, DEVICE).await;
        let config = json!({"task_config": {"task_id": "asked-twice", "device_id": DEVICE}});
        let path = format!("/api/v1/recorder/{DEVICE}/config");

        // One that says nothing of itself is asked until it answers.
        let mut recorder = Recorder::dial(&site, DEVICE).await;
        for _ in 0..2 {
            let request = recorder.next().await;
            assert_eq!(request["action"], "get_state", "{request}");
            recorder.answer(&request, false, "not now", json!({})).await;
            let (status, body) = site.post(&path, &config).await;
            assert_eq!((status, &body["code"]), (409, &json!("recorder_state_syncing")), "{body}");
        }
        until("what it said to be shown", STEP, async || {
            let list = site.read("/api/v1/recorder/devices").await;
            let shown = &list["devices"][0];
            let error = shown["state"]["last_sync_error"] == "not now";
            let asked = shown["state"]["last_sync_attempt_at"] != "0001-01-01T00:00:00Z";
            (error && asked && shown["syncing"] == true && shown["confidence"] == "stale").then_some(())
        })
        .await;
        let request = recorder.next().await;
        recorder.answer_state(&request).await;
        synced(&site, DEVICE).await;
        let list = site.read("/api/v1/recorder/devices").await;
        let told = &list["devices"][0]["state"];
        assert_eq!(
            (&told["raw"]["state"], &told["raw"]["version"]),
            (&json!("idle"), &json!("0.4.0")),
            "{told}"
        );
        assert_eq!(told["last_sync_attempt_at"], "0001-01-01T00:00:00Z", "{told}");

        // One that greeted before it refused has said enough.
        let mut recorder = Recorder::dial(&site, DEVICE).await;
        let request = recorder.next().await;
        recorder.push_state("idle").await;
        recorder.answer(&request, false, "never", json!({})).await;
        synced(&site, DEVICE).await;
        assert_eq!(state(&site).await["source"], "state_update");
        // The site asks for a fresh state before it sends a configuration, unless it was told one just now.
        recorder.push_state("idle").await;
        let (status, body, _) = recorder.obey(&site, "config", &config, "ready").await;
        assert_eq!((status, &body["success"]), (200, &json!(true)), "{body}");
    });
}

#[test]
fn the_newest_recorder_wins_and_the_old_one_is_told_so_and_changes_nothing_any_more() {
    run(async {
        let site = Plan::new().start().await;
        site.create_task(DEVICE, "held").await;
        let mut old = Recorder::connect(&site, DEVICE).await;
        let path = format!("/api/v1/recorder/{DEVICE}/pause");
        let empty = json!({});
        let waiting = site.post(&path, &empty);
        let takeover = async {
            // The command is at the old recorder, unanswered, when the new one comes.
            let request = old.request("pause").await;
            let new = Recorder::dial(&site, DEVICE).await;
            (request, new)
        };
        let ((code, body), (pause, mut new)) = tokio::join!(waiting, takeover);
        assert_eq!(code, 404, "{body}");
        assert_eq!(body["error"], "recorder not connected", "{body}");
        assert_eq!(body["result_unknown"], true, "the command may have run: {body}");

        // Late words of the old one. Its socket may be closed by now, which is as good.
        old.task = Some("held".to_owned());
        let late = [
            json!({"type": "rpc_response", "request_id": pause["request_id"], "success": true, "data": {"state": "paused"}}),
            json!({"type": "state_update", "timestamp": 1, "data": {"previous": "idle", "current": "recording", "task_id": "held"}}),
            json!({"type": "config_applied", "timestamp": 1, "data": {"task_id": "held"}}),
        ];
        for frame in &late {
            let _ = old.link.send_json(frame).await;
        }
        let closed = old.link.closed(STEP).await.expect("the old link is closed");
        assert_eq!(closed, Some((4001, "replaced by a newer connection".to_owned())));

        let request = new.request("get_state").await;
        let state_now = state(&site).await;
        assert_eq!(state_now["connected"], true, "{state_now}");
        assert_eq!(state_now["state_synced"], false, "a new link starts unconfirmed: {state_now}");
        assert_ne!(state_now["current_state"], "recording", "{state_now}");
        new.answer_state(&request).await;
        synced(&site, DEVICE).await;
        assert_eq!(state(&site).await["current_state"], "idle");
        assert_eq!(site.task_status("held").await, "pending");
        let (status, body, _) = new.obey(&site, "quit", &json!({}), "idle").await;
        assert_eq!((status, &body["success"]), (200, &json!(true)), "the new link serves: {body}");
    });
}

#[test]
fn a_replaced_transfer_link_is_told_so_and_its_words_count_no_more() {
    run(async {
        let site = Plan::new().start().await;
        let take = Take::new(DEVICE, "twice", 1, 50_000).mcap_only();
        site.create_task(DEVICE, &take.task).await;
        let mut old = Uploader::connect(&site, DEVICE).await;
        old.say("upload_started", &take.started()).await;
        site.task_reaches(&take.task, "uploading").await;
        let mut new = Uploader::dial(&site, DEVICE).await;
        let failed = json!({"type": "upload_failed", "timestamp": "", "data": {"task_id": take.task, "reason": "late"}});
        let _ = old.link.send_json(&failed).await;
        let closed = old.link.closed(STEP).await.expect("the old link is closed");
        assert_eq!(closed, Some((4001, "replaced by a newer connection".to_owned())));
        take.upload(&site).await;
        new.say("connected", &status(DEVICE, &[take.row("active")])).await;
        new.say("upload_complete", &take.complete()).await;
        new.ack(&take.task).await;
        site.task_reaches(&take.task, "completed").await;
    });
}

#[test]
fn a_command_that_is_not_answered_ends_unknown_and_the_site_asks_for_the_state() {
    run(async {
        let site = Plan::new().set("devices.rpc_timeout", "5s").start().await;
        let mut recorder = Recorder::connect(&site, DEVICE).await;
        let path = format!("/api/v1/recorder/{DEVICE}/pause");
        let empty = json!({});
        let ((code, body), pause) = tokio::join!(site.post(&path, &empty), recorder.request("pause"));
        assert_eq!(code, 504, "{body}");
        assert_eq!(body["error"], "recorder rpc timeout", "{body}");
        assert_eq!(body["result_unknown"], true, "{body}");
        assert_eq!(body["action"], "pause", "{body}");
        let request = recorder.request("get_state").await;
        assert_eq!(state(&site).await["state_synced"], false, "what the device does is not known");
        // The late answer belongs to a command that is over.
        recorder.answer(&pause, true, "paused", json!({"state": "paused"})).await;
        recorder.answer_state(&request).await;
        synced(&site, DEVICE).await;
        let state = state(&site).await;
        assert_eq!(
            (&state["current_state"], &state["source"]),
            (&json!("idle"), &json!("get_state")),
            "{state}"
        );
    });
}

#[test]
fn an_unanswered_first_get_state_keeps_commands_away_until_a_snapshot_comes() {
    run(async {
        let site = Plan::new().set("devices.rpc_timeout", "5s").start().await;
        site.create_task(DEVICE, "patient").await;
        let mut recorder = Recorder::dial(&site, DEVICE).await;
        let _uploader = Uploader::connect(&site, DEVICE).await;
        let first = recorder.next().await;
        assert_eq!(first["action"], "get_state", "{first}");
        let config = json!({"task_config": {"task_id": "patient", "device_id": DEVICE}});
        let path = format!("/api/v1/recorder/{DEVICE}/config");
        let (status, body) = site.post(&path, &config).await;
        assert_eq!((status, &body["code"]), (409, &json!("recorder_state_syncing")), "{body}");
        assert_eq!(body["error"], "recorder state is syncing; retry after initial state snapshot", "{body}");
        recorder.silence().await;

        until("the first get_state to be given up", STEP, async || {
            let list = site.read("/api/v1/recorder/devices").await;
            let error = list["devices"][0]["state"]["last_sync_error"].as_str().unwrap_or("").to_owned();
            (!error.is_empty()).then_some(())
        })
        .await;
        assert_eq!(state(&site).await["state_synced"], false);

        // Ready without a task is no snapshot.
        recorder.push_state("ready").await;
        let (status, body) = site.post(&path, &config).await;
        assert_eq!((status, &body["code"]), (409, &json!("recorder_state_syncing")), "{body}");
        recorder.push_state("idle").await;
        synced(&site, DEVICE).await;
        let (status, body, _) = recorder.obey(&site, "config", &config, "ready").await;
        assert_eq!((status, &body["success"]), (200, &json!(true)), "{body}");
        site.task_reaches("patient", "ready").await;
    });
}

#[test]
fn a_recorder_that_comes_back_recording_brings_its_task_along() {
    run(async {
        let site = Plan::new().start().await;
        site.create_task(DEVICE, "carried-on").await;
        let mut recorder = Recorder::dial(&site, DEVICE).await;
        recorder.state = "recording".to_owned();
        recorder.task = Some("carried-on".to_owned());
        let request = recorder.request("get_state").await;
        recorder.answer_state(&request).await;
        site.task_reaches("carried-on", "in_progress").await;
        let state = state(&site).await;
        assert_eq!(
            (&state["current_state"], &state["task_id"]),
            (&json!("recording"), &json!("carried-on")),
            "{state}"
        );
        let (status, body, request) =
            recorder.obey(&site, "cancel", &json!({"task_id": "carried-on"}), "idle").await;
        assert_eq!((status, &body["success"]), (200, &json!(true)), "{body}");
        assert_eq!(request["params"], json!({"task_id": "carried-on"}), "{request}");
        site.task_reaches("carried-on", "pending").await;
    });
}

fn uploads(status: &str, count: usize) -> Vec<Value> {
    (0..count).map(|n| Take::new(DEVICE, &format!("old-{n}"), n as u64, 16).row(status)).collect()
}

#[test]
fn a_status_over_32_kib_in_fragments_is_read_to_its_end() {
    run(async {
        let site = Plan::new().start().await;
        let take = Take::new(DEVICE, "after-many", 5, 50_000).mcap_only();
        site.create_task(DEVICE, &take.task).await;
        take.upload(&site).await;
        let mut uploader = Uploader::dial(&site, DEVICE).await;
        // What has to be seen stands at the very end.
        let mut all = uploads("completed", 400);
        all.push(take.row("uploaded_wait_ack"));
        let data = status(DEVICE, &all);
        assert!(data.to_string().len() > 200_000, "{}", data.to_string().len());
        uploader.say("connected", &data).await;
        uploader.ack(&take.task).await;
        site.task_reaches(&take.task, "completed").await;

        // Once more in fragments of a few bytes, with a ping between them.
        let frame =
            json!({"type": "status", "timestamp": "x", "data": status(DEVICE, &uploads("failed", 12))})
                .to_string();
        let bytes = frame.as_bytes();
        uploader.link.send_frame(false, Opcode::Text, &bytes[..1]).await.expect("an open link");
        for (at, piece) in bytes[1..].chunks(97).enumerate() {
            uploader.link.send_frame(false, Opcode::Continuation, piece).await.expect("an open link");
            if at == 3 {
                uploader.link.send_frame(true, Opcode::Ping, b"still here?").await.expect("an open link");
            }
        }
        uploader.link.send_frame(true, Opcode::Continuation, b"").await.expect("an open link");
        until("the short status", STEP, async || {
            let list = site.read("/api/v1/transfer/devices").await;
            let uploads = list["devices"][0]["status"]["uploads"].as_array().map(Vec::len);
            (uploads == Some(12)).then_some(())
        })
        .await;
    });
}

#[test]
fn broken_and_odd_frames_harm_no_link() {
    run(async {
        let site = Plan::new().start().await;
        let mut recorder = Recorder::connect(&site, DEVICE).await;
        let mut uploader = Uploader::connect(&site, DEVICE).await;
        let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
        let garbage = [
            "",
            "{",
            "null",
            "[]",
            "7",
            "\"text\"",
            "{\"type\":",
            "{\"type\":17}",
            "{\"type\":\"no_such_type\",\"data\":{}}",
            "{\"type\":\"state_update\"}",
            "{\"type\":\"state_update\",\"data\":[]}",
            "{\"type\":\"rpc_response\",\"request_id\":5,\"success\":\"true\"}",
            "{\"type\":\"rpc_response\",\"request_id\":\"nobody asked\",\"success\":true,\"data\":{\"state\":\"recording\"}}",
            "{\"type\":\"upload_complete\",\"data\":{\"task_id\":{}}}",
            "{\"type\":\"upload_started\",\"data\":{\"task_id\":\"../../x\"}}",
            "{\"type\":\"status\",\"data\":{\"uploads\":[null,7,{}],\"pending_count\":\"many\",\"waiting_ack_task_ids\":5}}",
            "{\"type\":\"connected\",\"data\":{\"pending_bytes\":1e400}}",
            deep.as_str(),
        ];
        for text in garbage {
            recorder.link.send_text(text).await.expect("the recorder link stays open");
            uploader.link.send_text(text).await.expect("the transfer link stays open");
        }
        recorder.link.send_binary(b"\xff\xfe\x00").await.expect("the recorder link stays open");
        // What a stock uploader sends of a text whose memory it has freed.
        let half = status(DEVICE, &uploads("completed", 10)).to_string();
        let garbled = format!("{}{}", &half[..4096], "~#".repeat(900));
        uploader.link.send_text(&garbled).await.expect("the transfer link stays open");

        // A binary frame with JSON counts as text.
        let update = json!({"type": "state_update", "timestamp": 1, "data": {"previous": "idle", "current": "maintenance"}});
        recorder.link.send_binary(update.to_string().as_bytes()).await.expect("the recorder link stays open");
        until("the state of the binary frame", STEP, async || {
            (state(&site).await["current_state"] == "maintenance").then_some(())
        })
        .await;
        let take = Take::new(DEVICE, "after-garbage", 9, 20_000).mcap_only();
        uploader.deliver(&site, &take).await;
    });
}

#[test]
fn pings_of_devices_are_answered_with_their_payload_and_a_close_is_echoed() {
    run(async {
        let site = Plan::new().start().await;
        let mut link = site.dial(&format!("/transfer/{DEVICE}")).await.expect("a link");
        link.send_frame(true, Opcode::Ping, b"payload").await.expect("an open link");
        let pong = link.next(STEP).await.expect("an open link");
        assert_eq!(pong, Some(Incoming::Pong(b"payload".to_vec())));
        link.send_close(1000, "bye").await.expect("an open link");
        let closed = link.closed(STEP).await.expect("an end");
        assert_eq!(closed.map(|(code, _)| code), Some(1000));
    });
}

#[test]
fn a_silent_device_is_noticed_and_forgotten() {
    run(async {
        let site = Plan::new()
            // Long enough for one that answers, however busy the machine.
            .set("devices.ping_interval", "1s")
            .set("devices.ping_timeout", "4s")
            // It owes the answer to `get_state` as well.
            .set("devices.busy_patience", "4s")
            .start()
            .await;
        let mut mute = site.dial("/recorder/mute").await.expect("a link");
        mute.answer_pings(false);
        let mut alive = site.dial("/recorder/alive").await.expect("a link");
        let breathing = async {
            loop {
                alive.next(Duration::from_secs(1)).await.expect("a link that answers pings stays");
            }
        };
        let noticed = until("the mute recorder to be gone", STEP, async || {
            let state = site.read("/api/v1/recorder/mute/state").await;
            (state["connected"] == false).then_some(())
        });
        tokio::select! {
            biased;
            () = noticed => {}
            never = breathing => never,
        }
        let state = site.read("/api/v1/recorder/alive/state").await;
        assert_eq!(state["connected"], true, "{state}");
    });
}

#[test]
fn requests_that_are_no_upgrade_and_ids_that_are_no_id_are_refused() {
    run(async {
        let site = Plan::new().start().await;
        for path in ["/recorder/robot-1", "/transfer/robot-1"] {
            let answer = site.send(http::Method::GET, path).await;
            assert_eq!(answer.status.as_u16(), 426, "{path}");
            let upgrade = answer.headers.get("upgrade").and_then(|value| value.to_str().ok());
            assert_eq!(
                upgrade.map(str::to_ascii_lowercase).as_deref(),
                Some("websocket"),
                "{:?}",
                answer.headers
            );
        }
        for path in ["/recorder/", "/transfer/"] {
            refused(&site, path, 400).await;
        }
        let long = format!("/recorder/{}", "x".repeat(129));
        for path in [
            "/recorder/..",
            "/recorder/a%20b",
            "/recorder/a%2Fb",
            "/transfer/%00",
            "/transfer/r%C3%B6bot",
            &long,
        ] {
            refused(&site, path, 400).await;
        }
        refused(&site, "/no/such/path", 404).await;
        let longest = format!("/recorder/{}", "x".repeat(128));
        site.dial(&longest).await.expect("an id of 128 characters is one");
        site.dial("/transfer/Robot_7.left-arm").await.expect("dots, dashes and underscores are fine");
    });
}

async fn refused(site: &Site, path: &str, expected: u16) {
    match site.dial(path).await {
        Err(WsError::Declined { status, .. }) => assert_eq!(status, expected, "{path}"),
        Err(error) => panic!("{path}: {error}"),
        Ok(_) => panic!("{path} was accepted"),
    }
}

#[test]
fn recorders_and_uploaders_have_ports_of_their_own_if_asked() {
    run(async {
        let (recorder_port, transfer_port) = (free_port(), free_port());
        let site = Plan::new()
            .set("listen.recorder", format!("127.0.0.1:{recorder_port}"))
            .set("listen.transfer", format!("127.0.0.1:{transfer_port}"))
            .start()
            .await;
        let path = format!("/recorder/{DEVICE}");
        let mut recorder = Raw::dial(&RealNet, "127.0.0.1", recorder_port, &path, &[]).await.expect("a link");
        let frame = recorder.next_json(STEP).await.expect("a frame");
        assert_eq!(frame["action"], "get_state", "{frame}");
        let path = format!("/transfer/{DEVICE}");
        let _transfer = Raw::dial(&RealNet, "127.0.0.1", transfer_port, &path, &[]).await.expect("a link");
        until("both links", STEP, async || {
            let recorders = site.read("/api/v1/recorder/devices").await;
            let transfers = site.read("/api/v1/transfer/devices").await;
            let both = recorders["devices"][0]["device_id"] == DEVICE
                && transfers["devices"][0]["device_id"] == DEVICE;
            both.then_some(())
        })
        .await;
    });
}
