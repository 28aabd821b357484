//! The recorder codec against frames captured from Axon recorders (Mulan PSL v2; long ones shortened), and nonsense.

use alloc::string::{String, ToString};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::Unusable;
use super::recorder::{RecorderMessage, decode, encode_rpc, names, naming};
use crate::limits;

fn read(frame: &str) -> RecorderMessage {
    decode(frame.as_bytes()).expect("a JSON object")
}

fn some(text: &str) -> Option<String> {
    Some(text.to_string())
}

#[test]
fn a_captured_push_on_connect_is_read() {
    let frame = r#"{"data":{"current":"idle","previous":"idle","task_id":"a1"},"timestamp":1795225451888,"type":"state_update"}"#;
    let expected = RecorderMessage::StateUpdate {
        timestamp_ms: Some(1_795_225_451_888),
        previous: some("idle"),
        current: some("idle"),
        task: some("a1"),
    };
    assert_eq!(read(frame), expected);
}

#[test]
fn a_captured_config_applied_names_its_task() {
    let frame = r#"{"data":{"data_collector_id":"dc-7","device_id":"dev-a","factory":"factory-site","operator_name":"op","order_id":"ord-1","scene":"kitchen","skills":["pick","place"],"subscene":"sink","task_id":"task-001","topics":["/imu/data","/camera0/rgb"]},"timestamp":1795224870086,"type":"config_applied"}"#;
    assert_eq!(read(frame), RecorderMessage::ConfigApplied { task: some("task-001") });
    assert_eq!(names(&read(frame)), Some("task-001"));
}

#[test]
fn a_captured_get_state_answer_takes_its_task_from_the_configuration_and_keeps_its_data() {
    let data = r#"{"bytes_written":0,"duration_sec":0.0,"message_count":0,"running":false,"state":"ready","task_config":{"device_id":"dev-a","skills":["pick","place"],"task_id":"task-001"},"version":"0.4.0"}"#;
    let frame = alloc::format!(
        r#"{{"data":{data},"message":"State retrieved successfully","request_id":"41233874-7391-46e7-8f22-00e5b92dba22","success":true,"type":"rpc_response"}}"#
    );
    let expected = RecorderMessage::Response {
        request_id: "41233874-7391-46e7-8f22-00e5b92dba22".to_string(),
        success: true,
        message: some("State retrieved successfully"),
        state: some("ready"),
        task: some("task-001"),
        data: some(data),
    };
    assert_eq!(read(&frame), expected);
    assert_eq!(names(&expected), Some("task-001"), "an answer's task is looked up before the step");
}

#[test]
fn a_captured_refusal_keeps_its_message_and_its_validation_errors() {
    let frame = r#"{"data":{"state":"idle","validation_errors":[{"code":"empty","field":"task_id","message":"task_id must not be empty"}]},"message":"Task configuration validation failed","request_id":"b3b5e61f-5bad-4720-89a9-15bbc7c6db76","success":false,"type":"rpc_response"}"#;
    let RecorderMessage::Response { success, message, state, data, .. } = read(frame) else {
        panic!("not a response")
    };
    assert!(!success);
    assert_eq!(message, some("Task configuration validation failed"));
    assert_eq!(state, some("idle"));
    assert!(data.is_some_and(|data| data.contains("task_id must not be empty")));
}

#[test]
fn a_captured_answer_to_an_unknown_action_has_no_data() {
    let frame =
        r#"{"message":"Unknown action: bogus","request_id":"x2","success":false,"type":"rpc_response"}"#;
    let expected = RecorderMessage::Response {
        request_id: "x2".to_string(),
        success: false,
        message: some("Unknown action: bogus"),
        state: None,
        task: None,
        data: None,
    };
    assert_eq!(read(frame), expected);
}

#[test]
fn the_first_state_and_task_that_are_not_blank_count() {
    let check = |data: Value, state: Option<&str>, task: Option<&str>| {
        let frame = json!({"type": "rpc_response", "request_id": "r", "success": true, "data": data});
        match read(&frame.to_string()) {
            RecorderMessage::Response { state: s, task: t, .. } => {
                assert_eq!((s.as_deref(), t.as_deref()), (state, task), "{data}");
            }
            other => panic!("{other:?}"),
        }
    };
    check(json!({"state": "a", "current": "b", "current_state": "c"}), Some("a"), None);
    check(json!({"state": " ", "current": "b", "current_state": "c"}), Some("b"), None);
    check(json!({"state": 1, "current": "", "current_state": "c"}), Some("c"), None);
    check(json!({"task_id": "t", "task_config": {"task_id": "u"}}), None, Some("t"));
    check(json!({"task_id": "", "task_config": {"task_id": "u"}}), None, Some("u"));
    check(json!({"task_config": "u"}), None, None);
    check(json!({}), None, None);
}

#[test]
fn a_push_knows_only_current_and_the_task_beside_it() {
    let frame = r#"{"type":"state_update","data":{"current_state":"idle","task_config":{"task_id":"t"}}}"#;
    let expected =
        RecorderMessage::StateUpdate { timestamp_ms: None, previous: None, current: None, task: None };
    assert_eq!(read(frame), expected);
    assert_eq!(read(r#"{"type":"state_update","data":[1],"timestamp":"x"}"#), expected);
    assert_eq!(read(r#"{"type":"state_update"}"#), expected);
}

#[test]
fn a_wrong_type_counts_as_absent() {
    let frame =
        r#"{"type":"rpc_response","request_id":7,"success":"true","message":{},"data":[{"state":"idle"}]}"#;
    let expected = RecorderMessage::Response {
        request_id: String::new(),
        success: false,
        message: None,
        state: None,
        task: None,
        data: None,
    };
    assert_eq!(read(frame), expected);
}

#[test]
fn what_is_no_object_is_unusable_and_null_is_an_object_without_fields() {
    for frame in ["", "{", "[]", "\"x\"", "7", "true", "{\"type\":\"state_update\"} tail", "\u{0}"] {
        assert_eq!(decode(frame.as_bytes()), Err(Unusable), "{frame}");
    }
    assert_eq!(decode(&[0xff, 0xfe]), Err(Unusable));
    assert_eq!(decode("[".repeat(5_000).as_bytes()), Err(Unusable));
    assert_eq!(read("null"), RecorderMessage::Other(String::new()));
    assert_eq!(read(r#"{"type":"connected","data":{}}"#), RecorderMessage::Other("connected".to_string()));
}

#[test]
fn data_over_the_limit_is_replaced_by_its_digest() {
    let long = "x".repeat(limits::RPC_DATA_BYTES);
    let frame = json!({"type": "rpc_response", "request_id": "r", "data": {"state": "idle", "note": long}});
    let RecorderMessage::Response { state, data: Some(data), .. } = read(&frame.to_string()) else {
        panic!("no data")
    };
    assert_eq!(state, some("idle"), "the state is read before the data is dropped");
    let data: Value = serde_json::from_str(&data).expect("JSON");
    assert_eq!(data["truncated"], true);
    assert_eq!(data["bytes"], long.len() + r#"{"note":"","state":"idle"}"#.len());
    assert_eq!(data["sha256"].as_str().map(str::len), Some(64));
}

#[test]
fn no_token_that_a_device_repeats_is_carried() {
    let data = json!({
        "state": "ready", "user_token": "hidden-1", "User_Token": {"a": "hidden-2"},
        "task_config": {"task_id": "t", "user_token": "hidden-3", "list": [[{"USER_TOKEN": "hidden-4", "b": 1}]]},
    });
    let frame = json!({"type": "rpc_response", "request_id": "r", "success": true, "data": data});
    let RecorderMessage::Response { data: Some(data), .. } = read(&frame.to_string()) else {
        panic!("no data")
    };
    assert_eq!(data, r#"{"state":"ready","task_config":{"list":[[{"b":1}]],"task_id":"t"}}"#);
}

#[test]
fn words_are_cut_and_an_id_that_is_too_long_counts_as_absent() {
    let long = "a".repeat(10_000);
    let frame = json!({"type": "state_update", "data": {"current": long, "previous": long, "task_id": long}});
    let RecorderMessage::StateUpdate { current: Some(current), previous: Some(previous), task: None, .. } =
        read(&frame.to_string())
    else {
        panic!("no push")
    };
    assert!(current.len() <= limits::WORD_BYTES && previous.len() <= limits::WORD_BYTES);
    let longest = "a".repeat(limits::WIRE_BYTES);
    let frame = json!({"type": "config_applied", "data": {"task_id": longest}}).to_string();
    assert_eq!(names(&read(&frame)), Some(longest.as_str()), "a wire id may be longer than a task id");
    let frame = json!({"type": "config_applied", "data": {"task_id": longest + "a"}}).to_string();
    assert_eq!(names(&read(&frame)), None);
    let other = json!({"type": long}).to_string();
    assert!(matches!(read(&other), RecorderMessage::Other(kind) if kind.len() <= limits::WORD_BYTES));
}

#[test]
fn an_rpc_is_one_line_with_its_keys_in_order() {
    let check = |params: Option<&str>, expected: &str| {
        assert_eq!(encode_rpc("7f0c", "config", params, 1_781_000_000_000), expected);
    };
    let bare = "{\"type\":\"rpc_request\",\"request_id\":\"7f0c\",\"action\":\"config\",\"timestamp_ms\":1781000000000}\n";
    check(None, bare);
    check(Some("{}"), bare);
    check(Some("null"), bare);
    check(
        Some(r#"{ "z": 1, "task_config": {"user_token": "tidegate-secret:9", "a": [2.5, {"y":1,"b":2}]} }"#),
        "{\"type\":\"rpc_request\",\"request_id\":\"7f0c\",\"action\":\"config\",\"params\":{\"task_config\":{\"a\":[2.5,{\"b\":2,\"y\":1}],\"user_token\":\"tidegate-secret:9\"},\"z\":1},\"timestamp_ms\":1781000000000}\n",
    );
}

#[test]
fn parameters_are_made_to_name_the_task_as_devices_do() {
    assert_eq!(naming(None, "T.2"), Ok(r#"{"task_id":"T.2"}"#.to_string()));
    assert_eq!(naming(Some(r#"{"task_id":"T","a":1}"#), "T.2"), Ok(r#"{"a":1,"task_id":"T.2"}"#.to_string()));
    assert_eq!(naming(Some("[1]"), "T"), Err(Unusable));
}

proptest! {
    #[test]
    fn no_frame_makes_the_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode(&bytes);
    }

    #[test]
    fn what_was_decoded_survives_the_journal(
        kind in prop_oneof![Just("state_update"), Just("config_applied"), Just("rpc_response"), Just("x")],
        state in ".{0,80}", task in ".{0,140}", success in any::<bool>(), timestamp in any::<i64>(),
    ) {
        let frame = json!({
            "type": kind, "timestamp": timestamp, "request_id": state, "success": success, "message": task,
            "data": {"current": state, "previous": task, "task_id": task},
        });
        let message = read(&frame.to_string());
        let bytes = minicbor::to_vec(&message).expect("memory is writable");
        prop_assert_eq!(minicbor::decode::<RecorderMessage>(&bytes).expect("our own bytes"), message);
    }

    #[test]
    fn an_rpc_is_read_back_as_it_was_meant(id in ".{0,40}", key in "[a-z\"\n]{1,8}", value in ".{0,40}", at in any::<i64>()) {
        let params = json!({ key.clone(): value });
        let text = encode_rpc(&id, "begin", Some(&params.to_string()), at);
        prop_assert!(text.ends_with('\n') && text.matches('\n').count() == 1, "one line: {text}");
        let frame: Value = serde_json::from_str(&text).expect("JSON");
        let expected = json!({
            "type": "rpc_request", "request_id": id, "action": "begin", "params": params, "timestamp_ms": at,
        });
        prop_assert_eq!(frame, expected);
    }
}
