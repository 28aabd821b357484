//! Frames of devices, and the parameters that we send them.

use minicbor::{Decode, Encode};
use serde_json::Value;
use tidegate_core::limits;
use tidegate_core::wire::{RecorderMessage, params, recorder, transfer};

/// Bytes that a decoded message may have beyond those of its frame: lengths, numbers and what stands for a text that
/// was too long.
const OVERHEAD: usize = 512;

/// A frame of a recorder.
pub(crate) fn recorder(bytes: &[u8]) {
    let decoded = recorder::decode(bytes);
    assert_eq!(decoded, recorder::decode(bytes), "decoding is a function of the bytes");
    let Ok(message) = decoded else { return };
    let size = carried(&message);
    assert!(size <= 6 * bytes.len() + OVERHEAD, "{size} bytes of message from {} of frame", bytes.len());
    if let Some(task) = recorder::names(&message) {
        assert!((1..=limits::WIRE_BYTES).contains(&task.len()), "a task that no attempt can have: {task:?}");
    }
    if let RecorderMessage::Response { data: Some(data), .. } = &message {
        let data: Value = serde_json::from_str(data).expect("carried data is JSON");
        assert!(!has_token(&data), "a token is carried on: {data}");
    }
}

fn has_token(value: &Value) -> bool {
    match value {
        Value::Object(map) => {
            map.iter().any(|(field, value)| field.eq_ignore_ascii_case("user_token") || has_token(value))
        }
        Value::Array(list) => list.iter().any(has_token),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

/// A frame of an uploader.
pub(crate) fn transfer(bytes: &[u8]) {
    let decoded = transfer::decode(bytes);
    assert_eq!(decoded, transfer::decode(bytes), "decoding is a function of the bytes");
    let Ok(message) = decoded else { return };
    let size = carried(&message);
    assert!(size <= 6 * bytes.len() + OVERHEAD, "{size} bytes of message from {} of frame", bytes.len());
}

/// A message survives being journalled. Its bytes.
fn carried<T: Encode<()> + for<'b> Decode<'b, ()> + PartialEq + std::fmt::Debug>(message: &T) -> usize {
    let bytes = minicbor::to_vec(message).expect("writing to a vector cannot fail");
    let read: T = minicbor::decode(&bytes).expect("what was written is read");
    assert_eq!(read, *message, "a message is read as it was written");
    bytes.len()
}

/// Parameters of a command as an operator wrote them, and what becomes of them.
pub(crate) fn params(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let object = |text: &str| match serde_json::from_str(text) {
        Ok(Value::Object(map)) => map,
        other => panic!("no JSON object: {other:?}"),
    };
    let map = object(&params::name_task(Some(text), "T.2"));
    let nested = map.get("task_config").and_then(|config| config.get("task_id"));
    assert!(map.get("task_id").or(nested).is_some_and(|id| id == "T.2"), "the task is not named: {map:?}");
    assert!(nested.is_none_or(|id| id == "T.2"), "two tasks are named: {map:?}");
    for (request, stored) in [(Some(text), None), (None, Some(text)), (Some(text), Some(text))] {
        let config = params::Config {
            params: request,
            stored,
            wire: "T.2",
            device: "d1",
            public_url: Some("http://s"),
        };
        let built = config.build();
        let map = object(&built);
        let config = map.get("task_config").and_then(Value::as_object).expect("a configuration");
        assert!(config.get("task_id").is_some_and(|id| id == "T.2"), "{built}");
        for field in ["device_id", "start_callback_url", "finish_callback_url"] {
            assert!(config.get(field).is_some_and(Value::is_string), "{field}: {built}");
        }
    }
    let frame = recorder::encode_rpc("id", "config", Some(text), 7);
    assert!(frame.ends_with('\n') && !frame[..frame.len() - 1].contains('\n'), "one line: {frame:?}");
    assert_eq!(object(&frame).get("action").and_then(Value::as_str), Some("config"));
    if let Ok(named) = recorder::naming(Some(text), "T.2") {
        assert!(object(&named).get("task_id").is_some_and(|id| id == "T.2"), "{named}");
    }
}
