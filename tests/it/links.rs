//! Links and their limits: takeover, timeouts, large and broken frames, and requests that are no links.

use std::time::Duration;

use serde_json::{Value, json};
use tidegate_device::{Incoming, Opcode, WsError};
use tidegate_runtime::real::RealNet;

use crate::rig::{Plan, Raw, STEP, Site, free_port, run, until};
use crate::script::{Recorder, Take, Uploader, status, synced};

const DEVICE: &str = "robot-1";

async fn state(site: &Site) -> Value {
    site.read(&format!("/api/v1/recorder/{DEVICE}/state")).await
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
