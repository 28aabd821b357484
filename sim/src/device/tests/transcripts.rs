//! Frames recorded from real programs, against ours for the same input: same order, same fields, same words. Values that
//! depend on the moment are not compared, and neither are fields that nobody reads and we leave out.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;
use tidegate_core::id::Role;

use super::{LinkEnd, Rig};
use crate::scenario::{DeviceSpec, Firmware};

const BASIC: &str = include_str!("../../../../tests/transcripts/transfer-basic-and-recorder-garbage.jsonl");
const ENDS: &str = include_str!("../../../../tests/transcripts/cancel-clear-quit-callback500-mcaponly.jsonl");
const RESET: &str = include_str!("../../../../tests/transcripts/reconnect-after-rst.jsonl");

/// Actions that the core never sends and we do not know.
const UNKNOWN: [&str; 2] = ["list_tasks", "test"];
/// What we leave out.
const LEFT_OUT: [&str; 14] = [
    "destination",
    "status_counts",
    "recovered_from_state",
    "state_db_path",
    "completed_at",
    "delete_last_error",
    "file_path",
    "json_path",
    "last_error_category",
    "next_retry_at",
    "updated_at",
    "delete_last_error_category",
    "delete_next_retry_at",
    "delete_retry_count",
];
/// Compared by value: whatever follows from the input alone.
const WORDS: [&str; 16] = [
    "type",
    "message",
    "request_id",
    "success",
    "state",
    "previous",
    "current",
    "task_id",
    "device_id",
    "status",
    "upload_mode",
    "files",
    "running",
    "bytes_uploaded",
    "waiting_ack_task_ids",
    "task_config",
];

fn check(name: &str, recorded: &str, bare: &str) {
    let lines: Vec<Value> = recorded.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let device = lines.iter().find_map(|line| line["device"].as_str()).expect("a device");
    let latency = Duration::from_millis(5);
    let spec = DeviceSpec { id: device.into(), site: 0, firmware: Firmware::New, latency, speed: 10 << 20 };
    let mut rig = Rig::of(&spec, 3);
    rig.store = Some(Default::default());
    rig.script(bare, 2556, true);
    rig.act(|d, now, asks| d.power_on(now, asks));
    let mut theirs: [Vec<Value>; 2] = Default::default();
    let mut skipped = BTreeSet::new();
    let mut opened = [false; 2];
    let mut posts = Vec::new();
    for line in &lines {
        let role = match line["role"].as_str() {
            Some("recorder") => Role::Recorder,
            Some("transfer") => Role::Transfer,
            Some("callback") => {
                posts.push(line["kind"] == "http-finish");
                continue;
            }
            _ => continue,
        };
        let at = usize::from(role == Role::Transfer);
        let body = &line["body"];
        match (line["dir"].as_str().unwrap(), line["kind"].as_str().unwrap()) {
            ("event", "handshake") if opened[at] => rig.reopen(role),
            ("event", "handshake") => {
                opened[at] = true;
                rig.open(role);
            }
            ("event", "closed") => rig.end(role, LinkEnd::Broken),
            ("server->device", "json" | "raw") => {
                let text = body.as_str().map_or_else(|| body.to_string(), str::to_string);
                let request: Value = serde_json::from_str(&text).unwrap_or(Value::Null);
                if request["action"].as_str().is_some_and(|action| UNKNOWN.contains(&action)) {
                    skipped.insert(request["request_id"].clone().to_string());
                    continue;
                }
                rig.hear(role, &text);
                rig.settle();
            }
            ("device->server", "json") if !skipped.contains(&body["request_id"].to_string()) => {
                theirs[at].push(body.clone());
            }
            _ => {}
        }
    }
    for text in rig.said.iter().map(|(_, text)| text) {
        let sorted: Value = serde_json::from_str(text).unwrap();
        assert_eq!(&sorted.to_string(), text, "{name}: fields are in alphabetical order");
    }
    for (role, theirs) in [Role::Recorder, Role::Transfer].into_iter().zip(theirs) {
        let ours = rig.take(role);
        assert!(theirs.len() > usize::from(role == Role::Recorder), "{name}: something was recorded");
        for (n, (ours, theirs)) in ours.iter().zip(&theirs).enumerate() {
            compare(&format!("{name} {} {n}", role.name()), ours, theirs);
        }
        assert_eq!(ours.len(), theirs.len(), "{name} {}", role.name());
    }
    assert_eq!(rig.posts.iter().map(|post| post.finish).collect::<Vec<_>>(), posts, "{name}");
}

fn compare(at: &str, ours: &Value, theirs: &Value) {
    if let (Some(our), Some(their)) = (ours.as_array(), theirs.as_array()) {
        assert_eq!(our.len(), their.len(), "{at}");
        return our.iter().zip(their).for_each(|(our, their)| compare(at, our, their));
    }
    let (Some(our), Some(their)) = (ours.as_object(), theirs.as_object()) else {
        return assert_eq!(ours.is_array(), theirs.is_array(), "{at}");
    };
    for field in our.keys() {
        assert!(their.contains_key(field), "{at}: real ones have no {field}");
    }
    // Counters are ours to choose from; `get_stats` has dozens.
    let counters = theirs.get("queue_depths").is_some() || at.ends_with("metadata");
    for (field, their) in their {
        let Some(our) = our.get(field) else {
            assert!(counters || LEFT_OUT.contains(&field.as_str()), "{at}: {field} is missing");
            continue;
        };
        if WORDS.contains(&field.as_str()) && !(field == "bytes_uploaded" && at.ends_with("progress")) {
            assert_eq!(our, their, "{at}: {field}");
        }
        compare(&format!("{at} {field}"), our, their);
    }
}

#[test]
fn a_recorder_and_an_uploader_say_what_real_ones_said() {
    check("basic", BASIC, "none");
}

#[test]
fn cancelled_cleared_and_quit_recorders_say_what_real_ones_said() {
    check("ends", ENDS, "m1");
}

#[test]
fn reconnected_devices_say_what_real_ones_said() {
    check("reset", RESET, "none");
}
