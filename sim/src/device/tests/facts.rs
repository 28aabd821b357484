//! The oddities of real programs that shape a server, one test each.

use std::time::Duration;

use serde_json::Value;
use tidegate_core::id::Role;

use super::{Deed, LinkEnd, Rig, StoreAnswer, kinds, states};
use crate::device::Device;
use crate::scenario::Firmware;
use crate::time::SimTime;

const HOUR: Duration = Duration::from_secs(3600);

fn uploads(status: &Value) -> Vec<String> {
    let entry = |entry: &Value| {
        format!("{} {}", entry["task_id"].as_str().unwrap(), entry["status"].as_str().unwrap())
    };
    status["data"]["uploads"].as_array().unwrap().iter().map(entry).collect()
}

#[test]
fn nothing_is_uploaded_that_nobody_asked_for_not_even_after_a_restart() {
    let mut rig = Rig::up(Firmware::New);
    rig.record("T");
    rig.pass(HOUR);
    rig.act(|d, now, asks| d.crash(now, Role::Transfer, asks));
    rig.open(Role::Transfer);
    rig.pass(HOUR);
    assert!(rig.calls.is_empty());
    rig.tell("upload_request", "T");
    assert_eq!(rig.calls.len(), 3, "head, recording, sidecar");
}

#[test]
fn a_completed_upload_is_said_once_and_then_only_listed() {
    let mut rig = Rig::up(Firmware::New);
    rig.record("T");
    rig.tell("upload_request", "T");
    assert_eq!(kinds(&rig.take(Role::Transfer)), ["upload_started", "upload_complete"]);
    for _ in 0..3 {
        rig.end(Role::Transfer, LinkEnd::Broken);
        rig.reopen(Role::Transfer);
        rig.pass(HOUR);
        let said = rig.take(Role::Transfer);
        assert_eq!(kinds(&said), ["connected"]);
        assert_eq!(said[0]["data"]["waiting_ack_task_ids"][0], "T");
        assert_eq!(uploads(&said[0]), ["T uploaded_wait_ack"]);
    }
}

#[test]
fn a_known_recording_is_not_found_whatever_became_of_it() {
    let mut rig = Rig::up(Firmware::New);
    let asked_again = |rig: &mut Rig, wire: &str| {
        rig.take(Role::Transfer);
        rig.tell("upload_request", wire);
        let said = rig.take(Role::Transfer);
        assert_eq!(kinds(&said), ["upload_not_found"], "{wire}");
        assert!(said[0]["data"]["detail"].as_str().unwrap().starts_with("No MCAP file matching"));
    };
    asked_again(&mut rig, "never-seen");
    rig.record("T");
    rig.store = None;
    rig.tell("upload_request", "T");
    asked_again(&mut rig, "T");
    rig.answer(&StoreAnswer::Unknown);
    asked_again(&mut rig, "T");
    rig.store = Some(Default::default());
    rig.pass(HOUR);
    asked_again(&mut rig, "T");
    rig.tell("upload_ack", "T");
    asked_again(&mut rig, "T");
    rig.record("U");
    rig.store = None;
    rig.tell("upload_request", "U");
    rig.answer(&StoreAnswer::Refused { again: false });
    asked_again(&mut rig, "U");
    assert_eq!(rig.held(), ["U"], "not found is not lost");
}

#[test]
fn an_acknowledgement_deletes_only_what_waits_for_it_and_gets_no_reply() {
    let mut rig = Rig::up(Firmware::New);
    rig.record("T");
    rig.store = None;
    rig.tell("upload_request", "T");
    rig.take(Role::Transfer);
    rig.tell("upload_ack", "T");
    assert!(rig.take(Role::Transfer).is_empty());
    assert_eq!(rig.held(), ["T"], "not uploaded yet");
    rig.store = Some(Default::default());
    rig.answer(&StoreAnswer::Head(None));
    assert_eq!(kinds(&rig.take(Role::Transfer)), ["upload_complete"]);
    rig.tell("cancel", "T");
    assert_eq!(rig.held(), ["T"], "cancel does nothing");
    for _ in 0..2 {
        rig.tell("upload_ack", "T");
        assert!(rig.take(Role::Transfer).is_empty());
        assert!(rig.held().is_empty());
    }
    assert_eq!(rig.did(|deed| matches!(deed, Deed::Deleted { .. })), 1);
    rig.tell("upload_ack", "never-seen");
    let said = rig.take(Role::Transfer);
    assert_eq!(said[0]["data"]["detail"], "ACK for unknown task_id");
}

#[test]
fn callbacks_are_one_post_each() {
    let mut rig = Rig::up(Firmware::New);
    rig.script("T", 4711, false);
    rig.record("T");
    rig.end(Role::Recorder, LinkEnd::Broken);
    rig.reopen(Role::Recorder);
    rig.rpc("f", "finish", Some("T"));
    rig.pass(HOUR);
    let posts: Vec<_> = rig.posts.iter().map(|post| (post.finish, post.task.as_str(), post.len)).collect();
    assert_eq!(posts, [(false, "T", None), (true, "T", Some(4711))]);
    assert_eq!(rig.posts[0].device, "d1");
    assert_eq!(rig.posts[0].started_ms, rig.posts[1].started_ms);
}

#[test]
fn a_recording_under_an_id_that_was_uploaded_before_is_stranded() {
    let mut rig = Rig::up(Firmware::New);
    for _ in 0..2 {
        rig.record("T");
        rig.tell("upload_request", "T");
        rig.tell("upload_ack", "T");
    }
    assert_eq!(rig.held(), ["T"]);
    assert_eq!(rig.did(|deed| matches!(deed, Deed::Finished { .. })), 2);
    assert_eq!(rig.did(|deed| matches!(deed, Deed::Uploaded { .. })), 1);
}

#[test]
fn the_end_of_a_recording_looks_the_same_however_it_ended() {
    let ends: [fn(&mut Rig); 4] = [
        |rig| rig.rpc("e", "finish", Some("T")),
        |rig| rig.rpc("e", "cancel", None),
        |rig| rig.rpc("e", "quit", None),
        |rig| rig.act(|d, now, asks| d.stop_recorder(now, asks)),
    ];
    let kept = [true, false, true, true];
    for (end, kept) in ends.iter().zip(kept) {
        let mut rig = Rig::up(Firmware::New);
        rig.rpc("c", "config", Some("T"));
        rig.rpc("b", "begin", Some("T"));
        rig.take(Role::Recorder);
        end(&mut rig);
        rig.settle();
        assert_eq!(states(&rig.take(Role::Recorder)), ["recording>idle T"]);
        assert_eq!(!rig.held().is_empty(), kept);
        let calls_back =
            rig.did(|deed| matches!(deed, Deed::Ran { action: tidegate_core::input::Action::Finish, .. }));
        assert_eq!(rig.posts.len(), 1 + calls_back, "only a finish command calls back");
    }
}

#[test]
fn every_upload_ever_made_is_listed_for_ever() {
    let mut rig = Rig::up(Firmware::New);
    for n in 0..20 {
        let wire = format!("T{n}");
        rig.record(&wire);
        rig.tell("upload_request", &wire);
        rig.tell("upload_ack", &wire);
    }
    rig.said.clear();
    let mut longest = 0;
    for _ in 0..10 {
        rig.hear(Role::Transfer, r#"{"type":"status_query"}"#);
        let (_, text) = rig.said.pop().unwrap();
        if let Ok(status) = serde_json::from_str::<Value>(&text) {
            assert_eq!(uploads(&status).len(), 20);
            longest = longest.max(text.len());
        }
    }
    assert!(longest > 4096);
}

#[test]
fn large_frames_of_an_uploader_are_garbage_now_and_then_and_small_ones_never() {
    let mut rig = Rig::up(Firmware::New);
    let garbage = |rig: &mut Rig| {
        rig.said.clear();
        for _ in 0..300 {
            rig.hear(Role::Transfer, r#"{"type":"status_query"}"#);
        }
        rig.said.iter().filter(|(_, text)| serde_json::from_str::<Value>(text).is_err()).count()
    };
    assert_eq!(garbage(&mut rig), 0);
    for n in 0..20 {
        let wire = format!("T{n}");
        rig.record(&wire);
        rig.tell("upload_request", &wire);
    }
    let bad = garbage(&mut rig);
    assert!((1..150).contains(&bad), "{bad} of 300");
}

#[test]
fn a_hanging_handshake_hangs_until_the_world_ends_it() {
    let mut rig = Rig::new(Firmware::New);
    rig.act(|d, now, asks| d.power_on(now, asks));
    rig.pass(24 * HOUR);
    assert_eq!(rig.dials.len(), 2, "one attempt of each program");
    rig.act(|d, now, asks| d.declined(now, Role::Recorder, asks));
    rig.pass(HOUR);
    assert_eq!(rig.dials.len(), 3);
}

#[test]
fn after_a_silent_cut_a_device_comes_back_late_and_still_records() {
    let mut late = 0;
    for seed in 0..20 {
        let mut rig = Rig::seeded(Firmware::New, seed);
        rig.act(|d, now, asks| d.power_on(now, asks));
        rig.open(Role::Recorder);
        rig.rpc("c", "config", Some("T"));
        rig.rpc("b", "begin", Some("T"));
        rig.take(Role::Recorder);
        let cut = rig.now;
        rig.end(Role::Recorder, LinkEnd::Silent);
        rig.reopen(Role::Recorder);
        late += u32::from(rig.now - cut > Duration::from_secs(5));
        assert_eq!(states(&rig.take(Role::Recorder)), ["recording>recording T"]);
    }
    assert!(late > 10, "{late} of 20");
}

#[test]
fn while_a_program_closes_or_hashes_it_reads_nothing() {
    let mut rig = Rig::up(Firmware::New);
    rig.script("T", 4 << 30, false);
    rig.rpc("c", "config", Some("T"));
    rig.rpc("b", "begin", Some("T"));
    rig.take(Role::Recorder);
    rig.rpc("f", "finish", Some("T"));
    rig.rpc("g", "get_state", None);
    rig.rpc("p", "pause", None);
    assert!(rig.device.busy(Role::Recorder) && rig.said.is_empty());
    rig.settle();
    let said = rig.take(Role::Recorder);
    let answers: Vec<_> = said.iter().filter_map(|frame| frame["request_id"].as_str()).collect();
    assert_eq!(answers, ["f", "g", "p"], "in order");
    assert_eq!(said.last().unwrap()["success"], false);

    rig.hear(Role::Transfer, r#"{"type":"upload_request","task_id":"T"}"#);
    rig.hear(Role::Transfer, r#"{"type":"status_query"}"#);
    assert!(rig.device.busy(Role::Transfer) && rig.said.is_empty());
    rig.settle();
    let said = rig.take(Role::Transfer);
    assert_eq!(kinds(&said), ["upload_started", "status", "upload_complete"]);
}

#[test]
fn events_that_are_late_or_doubled_change_nothing() {
    let mut rig = Rig::up(Firmware::New);
    rig.record("T");
    rig.tell("upload_request", "T");
    let stale: Vec<_> = rig.wakes.values().copied().collect();
    let said = rig.said.len();
    let log = rig.device.log.clone();
    for role in [Role::Recorder, Role::Transfer] {
        rig.open(role);
        rig.act(|d, now, asks| d.declined(now, role, asks));
    }
    let answered = rig.calls.clone();
    for call in &answered {
        rig.act(|d, now, asks| d.stored(now, call, &StoreAnswer::Unknown, asks));
    }
    for wake in stale {
        rig.act(|d, now, asks| d.woke(now, wake, asks));
    }
    rig.act(|d, now, asks| d.power_on(now, asks));
    assert_eq!((rig.said.len(), &rig.device.log), (said, &log));
    rig.act(|d, now, _| d.power_off(now));
    let check = |d: &mut Device, now: SimTime, asks: &mut Vec<_>| {
        d.opened(now, Role::Recorder, asks);
        d.heard(now, Role::Recorder, r#"{"request_id":"x","action":"get_state"}"#, asks);
        d.ended(now, Role::Transfer, LinkEnd::Broken, asks);
        d.crash(now, Role::Recorder, asks);
        d.stop_recorder(now, asks);
        assert!(asks.is_empty(), "without power");
    };
    rig.act(check);
}
