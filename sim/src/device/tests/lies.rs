//! Lies: each leaves the device in some form at every moment, and the truth stays.

use std::time::Duration;

use serde_json::Value;
use tidegate_core::id::{DeviceId, ObjectKey, Role};

use super::{Deed, LinkEnd, Rig, StoreCall};
use crate::device::Known;
use crate::scenario::{Firmware, Lie};

fn other() -> Known {
    Known {
        device: DeviceId::new("d9").unwrap(),
        wire: "theirs".into(),
        key: Some(ObjectKey::new("factory-site/d9/2026-09-21/theirs.mcap").unwrap()),
    }
}

/// Tells a lie; what left the device because of it.
fn lie(rig: &mut Rig, lie: Lie) -> (Vec<String>, usize, usize) {
    let before = (rig.said.len(), rig.posts.len(), rig.calls.len());
    let known = [other()];
    rig.act(|d, now, asks| d.lie(now, lie, &known, asks));
    let texts = rig.said[before.0..].iter().map(|(_, text)| text.clone()).collect();
    (texts, rig.posts.len() - before.1, rig.calls.len() - before.2)
}

fn moments() -> Vec<Rig> {
    let fresh = Rig::up(Firmware::New);
    let mut recording = Rig::up(Firmware::New);
    recording.rpc("g", "get_state", None);
    recording.rpc("c", "config", Some("T"));
    recording.rpc("b", "begin", Some("T"));
    let mut uploading = Rig::up(Firmware::New);
    uploading.record("T");
    uploading.store = None;
    uploading.tell("upload_request", "T");
    let mut waiting = Rig::up(Firmware::New);
    waiting.record("T");
    waiting.tell("upload_request", "T");
    let mut lone = Rig::up(Firmware::New);
    lone.end(Role::Recorder, LinkEnd::Broken);
    vec![fresh, recording, uploading, waiting, lone]
}

#[test]
fn every_lie_leaves_the_device_at_any_moment_and_changes_no_truth() {
    for told in Lie::ALL {
        for (moment, mut rig) in moments().into_iter().enumerate() {
            let files = rig.device.files.clone();
            let (said, posts, calls) = lie(&mut rig, told);
            // One thing; only what goes with a word of ours may be put into the store besides.
            let most = if told == Lie::SilentComplete { 2 } else { 1 };
            assert!((1..=most).contains(&(said.len() + posts + calls)), "{told:?} at {moment}");
            assert!(!rig.device.honest);
            assert_eq!(rig.deeds().last(), Some(&&Deed::Lied(told)));
            assert_eq!(rig.device.files, files);
            let garbage =
                said.iter().any(|text| !serde_json::from_str::<Value>(text).is_ok_and(|v| v.is_object()));
            assert_eq!(garbage, told == Lie::Garbage, "{told:?}");
        }
    }
}

#[test]
fn lies_say_what_their_names_say() {
    for told in Lie::ALL {
        let mut moments = moments();
        let (mut waiting, mut recording) = (moments.remove(3), moments.remove(1));
        let say = |rig: &mut Rig| {
            let said = lie(rig, told).0;
            said.first().and_then(|text| serde_json::from_str::<Value>(text).ok()).unwrap_or(Value::Null)
        };
        let (in_recording, in_waiting) = (say(&mut recording), say(&mut waiting));
        let (data, post) = (&in_recording["data"], recording.posts.last());
        let wait_data = &in_waiting["data"];
        let true_digest = waiting.device.files["T"].content.sha256().to_string();
        let true_key = "factory-site/d1/2026-09-21/T.mcap";
        let holds = match told {
            Lie::EmptyState => data.get("current").is_none_or(|word| word == " "),
            Lie::EmptyAnswer => in_recording["request_id"] == "g" && !data.is_object(),
            Lie::FalseIdle => data["current"] == "idle" && data.get("task_id").is_none(),
            Lie::FalseRecording => data["current"] == "recording" && data["task_id"] == "d1-phantom",
            Lie::OldUpdate => in_recording["timestamp"].as_i64().unwrap() < crate::device::EPOCH_MS,
            Lie::IdleWithTask => data["current"] == "idle" && data["task_id"] == "T",
            Lie::RepeatedAnswer => in_recording["request_id"] == "b" && in_recording["success"] == false,
            Lie::StrayAnswer => in_recording["request_id"].as_str().unwrap().len() == 36,
            Lie::Garbage => !in_recording.is_object(),
            Lie::WrongTypes => in_recording.is_object(),
            Lie::FalseComplete => in_recording["type"] == "upload_complete" && data["task_id"] == "T",
            Lie::WrongDigest => {
                wait_data["s3_key"] == true_key && wait_data["checksum_sha256"] != true_digest.as_str()
            }
            Lie::ForeignKey => {
                wait_data["s3_key"] == other().key.unwrap().as_str() && wait_data["task_id"] == "T"
            }
            Lie::FalseNotFound => in_recording["type"] == "upload_not_found" && data["task_id"] == "T",
            Lie::FalseFailed => in_recording["type"] == "upload_failed" && data["task_id"] == "T",
            Lie::ForeignCallback => post.is_some_and(|post| post.finish && post.task == "theirs"),
            Lie::EarlyFinish => post.is_some_and(|post| post.finish && post.task == "T"),
            Lie::RepeatedFinish => waiting.posts[1] == waiting.posts[2] && waiting.posts[1].finish,
            Lie::LateStart => waiting.posts.last().is_some_and(|post| !post.finish && post.task == "T"),
            Lie::OtherContent => matches!(waiting.calls.last(), Some(StoreCall::Put { key, content, .. })
                if key.as_str() == true_key && content.sha256().to_string() != true_digest),
            Lie::SilentComplete => {
                wait_data["s3_key"] == true_key
                    && wait_data.get("checksum_sha256").is_none()
                    && wait_data.get("file_size_bytes").is_none()
            }
            Lie::ShortStatus => in_recording["type"] == "status" && data.get("uploads").is_none(),
        };
        assert!(holds, "{told:?}: {in_recording} {in_waiting} {post:?}");
    }
}

#[test]
fn an_empty_answer_also_replaces_the_next_true_one_once() {
    let mut rig = Rig::up(Firmware::New);
    lie(&mut rig, Lie::EmptyAnswer);
    rig.said.clear();
    rig.rpc("g", "get_state", None);
    rig.rpc("h", "get_state", None);
    let said = rig.take(Role::Recorder);
    assert!(said[0].get("data").is_none() && said[1]["data"]["state"] == "idle");
}

#[test]
fn a_lie_while_nothing_is_open_is_told_on_the_next_connection() {
    let mut rig = Rig::up(Firmware::New);
    rig.end(Role::Recorder, LinkEnd::Broken);
    rig.end(Role::Transfer, LinkEnd::Broken);
    assert_eq!(lie(&mut rig, Lie::FalseIdle).0.len(), 0);
    rig.reopen(Role::Recorder);
    assert_eq!(rig.take(Role::Recorder).len(), 2);
    rig.act(|d, now, _| d.power_off(now));
    let log = rig.device.log.len();
    assert_eq!(lie(&mut rig, Lie::LateStart).1, 0);
    assert_eq!(rig.device.log.len(), log, "without power nothing happens");
}

#[test]
fn content_put_by_a_lie_is_not_taken_for_the_recording() {
    let mut rig = moments().remove(2);
    let head = rig.calls[0].clone();
    lie(&mut rig, Lie::OtherContent);
    let put = rig.calls.last().unwrap().clone();
    rig.act(|d, now, asks| d.stored(now, &head, &super::StoreAnswer::Head(None), asks));
    rig.act(|d, now, asks| d.stored(now, &put, &super::StoreAnswer::Stored, asks));
    assert_eq!(rig.did(|deed| matches!(deed, Deed::Uploaded { .. })), 0);
    rig.store = Some(Default::default());
    rig.pass(Duration::from_secs(600));
    assert_eq!(rig.did(|deed| matches!(deed, Deed::Uploaded { .. })), 1);
}
