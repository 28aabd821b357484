//! Recorders: order of frames, what survives a link and what survives the program.

use std::time::Duration;

use serde_json::Value;
use tidegate_core::id::Role;
use tidegate_core::input::Action;
use tidegate_core::wire::{RecorderMessage, recorder};

use super::{Deed, LinkEnd, Rig, Wake, kinds, states};
use crate::scenario::Firmware;

fn word(frame: &Value) -> String {
    let text = |field: &str| frame[field].as_str().unwrap_or("-").to_string();
    match frame["type"].as_str() {
        Some("rpc_response") => format!("{} {}", text("request_id"), frame["success"]),
        _ => text("type"),
    }
}

#[test]
fn within_one_command_the_configuration_comes_first_and_the_answer_last() {
    let mut rig = Rig::up(Firmware::New);
    rig.rpc("c", "config", Some("T"));
    let said = rig.take(Role::Recorder);
    assert_eq!(kinds(&said), ["config_applied", "state_update", "rpc_response"]);
    rig.rpc("c2", "config", Some("U"));
    assert_eq!(kinds(&rig.take(Role::Recorder)), ["config_applied", "rpc_response"]);
    let configured = |deed: &Deed| matches!(deed, Deed::Configured { .. });
    assert_eq!(rig.did(configured), 2);
    rig.rpc("b", "begin", Some("T"));
    let said = rig.take(Role::Recorder);
    assert_eq!(said[0]["message"], "task_id mismatch: expected 'U' but got 'T'");
    let refused = |deed: &Deed| matches!(deed, Deed::Ran { action: Action::Begin, wire: Some(wire), effective: false } if wire == "T");
    assert_eq!(rig.did(refused), 1);
}

#[test]
fn the_core_reads_what_a_recorder_says() {
    let mut rig = Rig::up(Firmware::New);
    rig.rpc("c", "config", Some("T"));
    rig.rpc("b", "begin", Some("T"));
    rig.rpc("g", "get_state", None);
    let read: Vec<_> =
        rig.said.iter().map(|(_, text)| recorder::decode(text.as_bytes()).expect("an object")).collect();
    let RecorderMessage::StateUpdate { timestamp_ms, current, task, .. } = &read[1] else {
        panic!("{read:?}")
    };
    assert_eq!(*timestamp_ms, Some(crate::device::EPOCH_MS));
    assert_eq!((current.as_deref(), task.as_deref()), (Some("ready"), Some("T")));
    let RecorderMessage::Response { success: true, state, task, .. } = &read[5] else { panic!("{read:?}") };
    assert_eq!((state.as_deref(), task.as_deref()), (Some("recording"), Some("T")));
}

#[test]
fn what_could_not_be_said_is_said_first_on_the_next_connection() {
    let mut rig = Rig::up(Firmware::New);
    rig.rpc("c", "config", Some("T"));
    rig.rpc("b", "begin", Some("T"));
    rig.rpc("f", "finish", Some("T"));
    rig.take(Role::Recorder);
    let dials = rig.dials.len();
    rig.end(Role::Recorder, LinkEnd::Broken);
    rig.settle();
    assert_eq!(rig.dials.len(), dials, "a blocked program does not notice");
    rig.reopen(Role::Recorder);
    let said = rig.take(Role::Recorder);
    let words: Vec<_> = said.iter().map(word).collect();
    assert_eq!(words, ["f true", "state_update"], "the frame that met the broken link is lost");
    assert_eq!(states(&said), ["idle>idle T"], "the last task is still named");
}

#[test]
fn what_came_before_a_polite_close_is_done_and_what_was_unread_at_a_reset_is_not() {
    for (end, paused) in [(LinkEnd::Closed(1001), 1), (LinkEnd::Broken, 0)] {
        let mut rig = Rig::up(Firmware::New);
        rig.rpc("c", "config", Some("T"));
        rig.rpc("b", "begin", Some("T"));
        rig.rpc("f", "finish", Some("T"));
        rig.rpc("c2", "config", Some("U"));
        rig.end(Role::Recorder, end);
        rig.settle();
        assert_eq!(rig.did(|deed| matches!(deed, Deed::Configured { wire } if wire == "U")), paused);
    }
}

#[test]
fn redials_back_off_to_a_minute_and_begin_again_after_a_success() {
    let mut rig = Rig::new(Firmware::New);
    rig.act(|d, now, asks| d.power_on(now, asks));
    let wait = |rig: &mut Rig| {
        rig.act(|d, now, asks| d.declined(now, Role::Recorder, asks));
        let ((at, _), wake) = rig.wakes.pop_last().expect("a wake to redial");
        assert!(matches!(wake, Wake::Redial(Role::Recorder, _)));
        let waited = at - rig.now;
        rig.act(|d, now, asks| d.woke(now, wake, asks));
        waited
    };
    for base in [1, 2, 4, 8, 16, 32, 60, 60, 60] {
        let waited = wait(&mut rig).as_secs_f64();
        let base = f64::from(base);
        assert!((0.8 * base..=1.2 * base).contains(&waited), "{waited} for {base}");
    }
    rig.open(Role::Recorder);
    rig.end(Role::Recorder, LinkEnd::Broken);
    rig.reopen(Role::Recorder);
    rig.end(Role::Recorder, LinkEnd::Broken);
    let next = *rig.wakes.last_key_value().expect("a wake to redial").0;
    assert!(next.0 - rig.now <= Duration::from_millis(1200));
}

#[test]
fn a_killed_recorder_has_no_task_and_what_it_recorded_is_lost() {
    for power in [false, true] {
        let mut rig = Rig::up(Firmware::New);
        rig.rpc("c", "config", Some("T"));
        rig.rpc("b", "begin", Some("T"));
        rig.rpc("f", "finish", Some("T"));
        if power {
            rig.act(|d, now, _| d.power_off(now));
            rig.pass(Duration::from_secs(100));
            rig.act(|d, now, asks| d.power_on(now, asks));
        } else {
            rig.act(|d, now, asks| d.crash(now, Role::Recorder, asks));
        }
        rig.take(Role::Recorder);
        rig.open(Role::Recorder);
        rig.pass(Duration::from_secs(100));
        assert_eq!(states(&rig.take(Role::Recorder)), ["idle>idle -"]);
        assert!(rig.held().is_empty());
        assert!(matches!(rig.deeds().last(), Some(Deed::Dropped { wire }) if wire == "T"));
        rig.tell("upload_request", "T");
        assert!(rig.calls.is_empty());
    }
}

#[test]
fn a_recorder_that_is_told_to_end_keeps_the_file_closes_and_starts_again_without_a_task() {
    let mut rig = Rig::up(Firmware::New);
    rig.rpc("c", "config", Some("T"));
    rig.rpc("b", "begin", Some("T"));
    rig.rpc("q", "quit", None);
    let said = rig.take(Role::Recorder);
    assert_eq!(word(said.last().unwrap()), "q true", "answered before it is done");
    assert!(rig.held().is_empty() && rig.closes.is_empty());
    rig.settle();
    assert_eq!((rig.held(), rig.closes.as_slice()), (vec!["T"], &[Role::Recorder][..]));
    rig.end(Role::Recorder, LinkEnd::Closed(1000));
    rig.take(Role::Recorder);
    rig.reopen(Role::Recorder);
    assert_eq!(states(&rig.take(Role::Recorder)), ["idle>idle -"]);

    rig.rpc("c", "config", Some("U"));
    rig.rpc("b", "begin", Some("U"));
    rig.rpc("f", "finish", Some("U"));
    rig.act(|d, now, asks| d.stop_recorder(now, asks));
    rig.settle();
    assert_eq!((rig.held(), rig.closes.len()), (vec!["T", "U"], 2), "after the finish that was running");
    assert_eq!(rig.posts.iter().filter(|post| post.finish).count(), 1);
}

#[test]
fn the_oldest_say_nothing_on_connect_and_show_no_configuration() {
    let mut rig = Rig::new(Firmware::Old);
    rig.act(|d, now, asks| d.power_on(now, asks));
    rig.open(Role::Recorder);
    assert!(rig.take(Role::Recorder).is_empty());
    rig.rpc("c", "config", Some("T"));
    assert_eq!(kinds(&rig.take(Role::Recorder)), ["state_update", "rpc_response"]);
}

#[test]
fn a_recording_is_as_the_scenario_says_of_its_task_whatever_the_attempt() {
    let mut rig = Rig::up(Firmware::New);
    rig.script("a.b", 1234, true);
    rig.script("a", 99, false);
    for (wire, bytes, bare) in [("a.b", 1234, true), ("a.b.2", 1234, true), ("a.3", 99, false)] {
        rig.record(wire);
        let file = &rig.device.files[wire];
        assert_eq!((file.content.len, file.sidecar.is_none()), (bytes, bare), "{wire}");
    }
    let file = &rig.device.files["a.3"];
    let facts = file.sidecar.as_ref().and_then(|sidecar| sidecar.facts.clone()).expect("it says something");
    assert_eq!((facts.sha256, facts.len), (Some(file.content.sha256()), Some(99)));
    assert!(facts.duration_ms >= Some(10_000));
    let ids: Vec<u64> = rig.device.files.values().map(|file| file.content.id).collect();
    assert!(ids[0] != ids[1] && ids[1] != ids[2] && ids[0] != ids[2]);
}
