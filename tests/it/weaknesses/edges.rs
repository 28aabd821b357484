//! Weaknesses of sockets, memory and answers.

use serde_json::{Value, json};
use tidegate_device::{Incoming, Opcode, WsError};
use tidegate_runtime::real::RealNet;

use super::DEVICE;
use crate::limits::metric;
use crate::rig::{Plan, Raw, STEP, Site, run, until};
use crate::script::{Recorder, Take, Uploader};

// W4: the predecessor verified an upload on the task that read the socket; pings of the device went unanswered meanwhile,
// and a healthy device was dropped. Here reading never waits for a disk.
#[test]
fn w04_while_a_large_recording_is_digested_pings_and_commands_are_answered() {
    run(async {
        let site = Plan::new().start().await;
        let mut recorder = Recorder::connect(&site, DEVICE).await;
        let mut uploader = Uploader::connect(&site, DEVICE).await;
        let take = Take::new(DEVICE, "large", 4, 96 << 20).mcap_only();
        site.create_task(DEVICE, &take.task).await;
        uploader.say("upload_started", &take.started()).await;
        take.upload(&site).await;
        uploader.say("upload_complete", &take.complete()).await;
        uploader.link.send_frame(true, Opcode::Ping, b"still here?").await.expect("an open link");
        match uploader.link.next(STEP).await {
            Ok(Some(Incoming::Pong(payload))) => assert_eq!(payload, b"still here?"),
            other => panic!("the pong comes before the acknowledgement, not {other:?}"),
        }
        let (code, body, _) = recorder.obey(&site, "quit", &json!({}), "idle").await;
        assert_eq!((code, &body["success"]), (200, &json!(true)), "{body}");
        uploader.ack(&take.task).await;
        site.task_reaches(&take.task, "completed").await;
    });
}

fn memory(site: &Site) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{}/status", site.process())).ok()?;
    let line = text.lines().find(|line| line.starts_with("VmRSS"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

// W28: the predecessor remembered every id that ever connected, and 10,000 payloads of each connection. Here what is kept
// of strangers is bounded.
#[test]
fn w28_strangers_that_come_and_go_cost_no_memory() {
    run(async {
        let site = Plan::new().start().await;
        let round = async |first: u32| {
            for n in first..first + 1_000 {
                let link = site.dial(&format!("/recorder/stranger-{n}")).await.expect("a link");
                drop(link);
            }
            until("the strangers to be gone", STEP, async || {
                let list: Value = site.read("/api/v1/recorder/devices").await;
                list["devices"].as_array()?.is_empty().then_some(())
            })
            .await;
            memory(&site)
        };
        let (Some(before), Some(after)) = (round(0).await, round(1_000).await) else {
            crate::skip::cannot_be_had("w28", "the system tells no memory of processes");
            return;
        };
        assert!(after.saturating_sub(before) < 32 << 10, "{before} KiB became {after} KiB");
    });
}

// W36: the predecessor named errors `error` here and `error_msg` there, without codes, and mixed local times with UTC.
// Here every refusal has `error` and `code`, and every time is UTC.
#[test]
fn w36_refusals_have_one_shape_and_times_are_utc() {
    run(async {
        let site = Plan::new().start().await;
        site.create_task(DEVICE, "timed").await;
        let _recorder = Recorder::connect(&site, DEVICE).await;
        for path in [
            "/api/v1/tasks/none",
            "/api/v1/episodes/999",
            "/api/v1/no-such-route",
            "/api/v1/recorder/none/stats",
        ] {
            let (code, body) = site.get(path).await;
            if code == 200 {
                assert_eq!(path, "/api/v1/recorder/none/stats", "{body}");
                continue;
            }
            assert!(body["error"].is_string() && body["code"].is_string(), "{path}: {code} {body}");
        }
        for (path, body) in [
            ("/api/v1/recorder/none/config", super::config("timed")),
            ("/api/v1/recorder/none/begin", json!({})),
            ("/api/v1/recorder/none/pause", json!({})),
            ("/api/v1/tasks", json!({})),
            ("/api/v1/callbacks/finish", json!({})),
        ] {
            let (code, body) = site.post(path, &body).await;
            assert!((400..500).contains(&code), "{path}: {code} {body}");
            assert!(body["error"].is_string() && body["code"].is_string(), "{path}: {code} {body}");
        }
        let task = site.read("/api/v1/tasks/timed").await;
        let state = site.read("/api/v1/recorder/robot-1/state").await;
        for (row, key) in [(&task, "created_at"), (&task, "updated_at"), (&state, "updated_at")] {
            assert!(row[key].as_str().is_some_and(|time| time.ends_with('Z')), "{key} of {row}");
        }
    });
}

// W27: everybody was let in at the predecessor, a takeover needed only the id of a device, and a token that was revoked
// left its link. Here a stranger displaces nobody where tokens are asked for, and a link goes with its token.
#[test]
fn w27_a_stranger_displaces_nobody_where_tokens_are_asked_for() {
    run(async {
        let site = Plan::new().set("auth.devices", "tokens").start().await;
        let path = format!("/recorder/{DEVICE}");
        let dial = async |token: Option<&str>| {
            let bearer = token.map(|token| format!("Bearer {token}"));
            let headers: Vec<(&str, &str)> =
                bearer.iter().map(|value| ("Authorization", value.as_str())).collect();
            Raw::dial(&RealNet, "127.0.0.1", site.api, &path, &headers).await
        };
        let mut tokens = Vec::new();
        for device in [DEVICE, "robot-2"] {
            let (code, made) = site.post(&format!("/api/v1/devices/{device}/token"), &json!({})).await;
            assert_eq!(code, 201, "{made}");
            tokens.push(made["token"].as_str().expect("shown once").to_owned());
        }
        let mut own = dial(Some(&tokens[0])).await.expect("its own token");
        for stranger in [None, Some("kws_v1_made-up"), Some(tokens[1].as_str())] {
            match dial(stranger).await {
                Err(WsError::Declined { status, .. }) => assert_eq!(status, 401),
                other => panic!("not a refusal: {:?}", other.err()),
            }
        }
        let first = own.next_json(STEP).await.expect("an open link");
        assert_eq!(first["action"], "get_state", "{first}");
        own.send_frame(true, Opcode::Ping, b"mine").await.expect("an open link");
        assert_eq!(own.next(STEP).await.expect("an open link"), Some(Incoming::Pong(b"mine".to_vec())));
        let revoke = format!("/api/v1/devices/{DEVICE}/token");
        assert_eq!(site.send(http::Method::DELETE, &revoke).await.status.as_u16(), 200);
        assert_eq!(own.closed(STEP).await.expect("closed"), Some((4003, "token revoked".to_owned())));
    });
}

// W34: nothing of the predecessor's links was counted. Here links, takeovers, timeouts and what is refused are metrics.
#[test]
fn w34_links_takeovers_and_timeouts_are_counted() {
    run(async {
        let site = Plan::new().set("devices.rpc_timeout", "1s").start().await;
        let old = Recorder::dial(&site, DEVICE).await;
        let _uploader = Uploader::connect(&site, DEVICE).await;
        // It answers what it is asked, but for the pause: no other timeout can be taken for that one.
        let mut recorder = Recorder::connect(&site, DEVICE).await;
        drop(old);
        recorder.link.send_text("no JSON").await.expect("an open link");
        let timeouts = "tidegate_timeouts_total{operation=\"rpc\"}";
        let before = metric(&site, timeouts).await.expect("it is there before the first one");
        let path = format!("/api/v1/recorder/{DEVICE}/pause");
        assert_eq!(site.post(&path, &json!({})).await.0, 504);
        for (sample, least) in [
            (timeouts, before + 1),
            ("tidegate_links{role=\"recorder\"}", 1),
            ("tidegate_links{role=\"transfer\"}", 1),
            ("tidegate_takeovers_total{role=\"recorder\"}", 1),
            ("tidegate_dropped_frames_total{role=\"recorder\"}", 1),
            ("tidegate_unknown_operations_total{action=\"pause\"}", 1),
        ] {
            until(sample, STEP, async || metric(&site, sample).await.filter(|value| *value >= least)).await;
        }
    });
}
