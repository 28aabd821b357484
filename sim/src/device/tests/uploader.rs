//! Uploaders: what they store where, what they do when it fails, and what survives them.

use std::time::Duration;

use serde_json::Value;
use tidegate_core::id::Role;
use tidegate_core::wire::transfer::UploadStatus;
use tidegate_core::wire::{TransferMessage, transfer};

use super::{Deed, LinkEnd, Rig, StoreAnswer, StoreCall, kinds};
use crate::scenario::Firmware;

const HOUR: Duration = Duration::from_secs(3600);

fn texts(rig: &Rig) -> Vec<String> {
    let text = |call: &StoreCall| match call {
        StoreCall::Head(key) => format!("HEAD {key}"),
        StoreCall::Put { key, content, .. } => format!("PUT {key} {}", content.len),
    };
    rig.calls.iter().map(text).collect()
}

#[test]
fn keys_name_factory_device_day_and_recording() {
    let mut rig = Rig::up(Firmware::New);
    rig.script("T", 77, false);
    rig.script("B", 78, true);
    rig.record("T");
    rig.pass(24 * HOUR);
    rig.record("B");
    rig.tell("upload_request", "T");
    rig.tell("upload_request", "B");
    let sidecar = rig.device.files["T"].sidecar.as_ref().expect("not bare").len;
    assert_eq!(
        texts(&rig),
        [
            "HEAD factory-site/d1/2026-09-22/T.mcap".to_string(),
            "PUT factory-site/d1/2026-09-22/T.mcap 77".to_string(),
            format!("PUT factory-site/d1/2026-09-22/T.json {sidecar}"),
            "HEAD factory-site/d1/2026-09-22/B.mcap".to_string(),
            "PUT factory-site/d1/2026-09-22/B.mcap 78".to_string(),
        ],
        "the day is that of the request"
    );
    let said = rig.take(Role::Transfer);
    assert_eq!(said[3]["data"]["upload_mode"], "mcap_only");
}

#[test]
fn the_core_reads_what_an_uploader_says() {
    let mut rig = Rig::up(Firmware::New);
    rig.record("T");
    rig.record("U");
    rig.tell("upload_request", "T");
    rig.store = None;
    rig.tell("upload_request", "U");
    rig.hear(Role::Transfer, r#"{"type":"status_query"}"#);
    let read: Vec<_> = (rig.said.iter().filter(|(role, _)| *role == Role::Transfer))
        .map(|(_, text)| transfer::decode(text.as_bytes()).expect("an object"))
        .collect();
    let [
        TransferMessage::UploadStarted(started),
        TransferMessage::UploadComplete(complete),
        TransferMessage::UploadStarted(_),
        TransferMessage::Status(status),
    ] = read.as_slice()
    else {
        panic!("{read:?}")
    };
    assert_eq!(started, complete);
    let file = &rig.device.files["T"].content;
    assert_eq!((complete.len, complete.sha256), (Some(file.len), Some(file.sha256())));
    assert_eq!((status.active, status.waiting_ack), (1, 1));
    assert_eq!(status.waiting_ack_tasks.as_deref(), Some(&["T".to_string()][..]));
    let uploads: Vec<_> = status.uploads.iter().flatten().map(|entry| entry.status).collect();
    assert_eq!(uploads, [UploadStatus::Active, UploadStatus::WaitAck]);
}

#[test]
fn what_is_there_already_is_not_sent_again() {
    let mut rig = Rig::up(Firmware::New);
    rig.record("T");
    rig.store = None;
    rig.tell("upload_request", "T");
    let content = rig.device.files["T"].content.clone();
    rig.answer(&StoreAnswer::Head(Some(content)));
    assert!(matches!(rig.calls.as_slice(), [StoreCall::Head(_), StoreCall::Put { key, .. }]
        if key.as_str().ends_with(".json")));
}

#[test]
fn failures_are_retried_four_times_and_then_never() {
    let mut rig = Rig::up(Firmware::New);
    rig.record("T");
    rig.store = None;
    rig.tell("upload_request", "T");
    rig.take(Role::Transfer);
    for (n, base) in [2.0, 4.0, 8.0, 16.0].into_iter().enumerate() {
        let calls = rig.calls.len();
        let since = rig.now;
        let error = if n % 2 == 0 { StoreAnswer::Unknown } else { StoreAnswer::Refused { again: true } };
        rig.answer(&error);
        assert!(rig.take(Role::Transfer).is_empty(), "retries are silent");
        while rig.calls.len() == calls {
            let (at, _) = *rig.wakes.first_key_value().expect("a wake to try again").0;
            rig.pass(at - rig.now);
        }
        let waited = (rig.now - since).as_secs_f64();
        assert!((0.5 * base..=1.5 * base).contains(&waited), "{waited} for {base}");
    }
    rig.answer(&StoreAnswer::Unknown);
    let said = rig.take(Role::Transfer);
    assert_eq!(kinds(&said), ["upload_failed"]);
    assert_eq!(
        (&said[0]["data"]["retry_count"], &said[0]["data"]["next_retry_at"]),
        (&5.into(), &Value::Null)
    );
    assert_eq!(rig.did(|deed| matches!(deed, Deed::GaveUp { .. })), 1);

    let calls = rig.calls.len();
    rig.store = Some(Default::default());
    rig.act(|d, now, asks| d.crash(now, Role::Transfer, asks));
    rig.open(Role::Transfer);
    rig.tell("upload_request", "T");
    rig.tell("upload_all", "");
    rig.pass(HOUR);
    assert_eq!((rig.calls.len(), rig.device.files.len()), (calls, 0), "moved away, for ever");
    assert_eq!(rig.held(), ["T"], "and still nobody else has it");
}

#[test]
fn a_request_that_nobody_answers_is_given_up_and_tried_again() {
    let mut rig = Rig::up(Firmware::New);
    rig.record("T");
    rig.store = None;
    rig.tell("upload_request", "T");
    rig.pass(HOUR);
    assert_eq!(rig.calls.len(), 5);
    assert_eq!(rig.did(|deed| matches!(deed, Deed::GaveUp { .. })), 1);
}

#[test]
fn a_refusal_for_good_is_given_up_at_once() {
    let mut rig = Rig::up(Firmware::New);
    rig.record("T");
    rig.store = None;
    rig.tell("upload_request", "T");
    rig.answer(&StoreAnswer::Head(None));
    rig.answer(&StoreAnswer::Refused { again: false });
    assert_eq!(kinds(&rig.take(Role::Transfer)), ["upload_started", "upload_failed"]);
}

#[test]
fn rows_survive_a_kill_and_what_was_unfinished_goes_on_by_itself() {
    for power in [false, true] {
        let mut rig = Rig::up(Firmware::New);
        for wire in ["A", "B", "C", "D", "E"] {
            rig.record(wire);
        }
        rig.tell("upload_request", "A");
        rig.store = None;
        // Two at once: the third waits its turn. The last is still being hashed.
        for wire in ["B", "C", "D"] {
            rig.tell("upload_request", wire);
        }
        assert_eq!(texts(&rig).iter().filter(|call| call.starts_with("HEAD")).count(), 3);
        rig.hear(Role::Transfer, r#"{"type":"upload_request","task_id":"E"}"#);
        rig.take(Role::Transfer);
        rig.store = Some(Default::default());
        if power {
            rig.act(|d, now, _| d.power_off(now));
            rig.act(|d, now, asks| d.power_on(now, asks));
        } else {
            rig.act(|d, now, asks| d.crash(now, Role::Transfer, asks));
        }
        rig.pass(HOUR);
        let uploaded: Vec<_> = (rig.deeds().iter())
            .filter_map(|deed| match deed {
                Deed::Uploaded { wire, .. } => Some(wire.as_str()),
                _ => None,
            })
            .collect();
        assert_eq!(uploaded, ["A", "B", "C", "D"]);
        rig.open(Role::Transfer);
        let said = rig.take(Role::Transfer);
        let expected = ["upload_complete", "upload_complete", "upload_complete", "connected"];
        assert_eq!(kinds(&said), expected, "said when there is somebody to say it to");
        rig.tell("upload_request", "E");
        assert_eq!(kinds(&rig.take(Role::Transfer)), ["upload_started", "upload_complete"]);
    }
}

#[test]
fn everything_without_a_row_is_taken_on_at_once_and_answered_in_short() {
    let mut rig = Rig::up(Firmware::New);
    for wire in ["Z", "A", "M"] {
        rig.record(wire);
    }
    rig.tell("upload_request", "A");
    rig.take(Role::Transfer);
    rig.tell("upload_all", "");
    let said = rig.take(Role::Transfer);
    assert_eq!(kinds(&said), ["status", "upload_complete", "upload_complete"]);
    assert_eq!(said[0]["data"]["pending_count"], 2);
    assert!(said[0]["data"].get("waiting_ack_task_ids").is_none());
    assert_eq!((&said[1]["data"]["task_id"], &said[2]["data"]["task_id"]), (&"Z".into(), &"M".into()));
}

#[test]
fn generations_differ_in_what_they_say() {
    let fields =
        |value: &Value| value["data"].as_object().expect("an object").keys().cloned().collect::<Vec<_>>();
    for firmware in [Firmware::Old, Firmware::Middle, Firmware::New] {
        let mut rig = Rig::up(firmware);
        for wire in ["T", "U"] {
            rig.record(wire);
            rig.tell("upload_request", wire);
        }
        rig.tell("upload_ack", "T");
        let said = rig.take(Role::Transfer);
        let complete = fields(said.iter().find(|frame| frame["type"] == "upload_complete").expect("said"));
        rig.hear(Role::Transfer, r#"{"type":"status_query"}"#);
        let status = rig.take(Role::Transfer).remove(0);
        assert_eq!(status["data"]["waiting_ack_task_ids"][0], "U");
        let uploads = status["data"].get("uploads").map(|uploads| uploads.as_array().expect("a list").len());
        rig.end(Role::Transfer, LinkEnd::Broken);
        rig.reopen(Role::Transfer);
        let connected = rig.take(Role::Transfer).remove(0);
        let lists = connected["data"].get("uploads").is_some();
        let has = |field: &str| complete.iter().any(|name| name == field);
        let seen = (has("s3_key"), has("object_key"), has("upload_mode"), uploads, lists);
        let expected = match firmware {
            Firmware::Old => (false, false, false, None, false),
            Firmware::Middle => (true, false, false, Some(1), false),
            Firmware::New => (true, true, true, Some(2), true),
        };
        assert_eq!(seen, expected, "{firmware:?}");
        if firmware == Firmware::Old {
            let counts = [
                "completed_count",
                "device_id",
                "failed_count",
                "pending_count",
                "uploading_count",
                "version",
                "waiting_ack_count",
            ];
            assert_eq!(fields(&connected), counts);
        }
    }
}

#[test]
fn uploaders_of_a_fleet_come_back_at_the_same_offsets() {
    let offsets = |id: &str| {
        let mut rig = Rig::new(Firmware::New);
        let mut spec = rig.device.spec.clone();
        spec.id = id.to_string();
        rig = Rig::of(&spec, 7);
        rig.act(|d, now, asks| d.power_on(now, asks));
        for role in [Role::Recorder, Role::Transfer] {
            rig.act(|d, now, asks| d.declined(now, role, asks));
        }
        rig.pass(HOUR);
        let of = |role| rig.dials.iter().filter(|(_, by)| *by == role).map(|(at, _)| *at).collect::<Vec<_>>();
        (of(Role::Recorder), of(Role::Transfer))
    };
    let (one, two) = (offsets("d1"), offsets("d2"));
    assert_ne!(one.0, two.0);
    assert_eq!(one.1, two.1);
}
