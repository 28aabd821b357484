//! Messages of recorders, and the one frame we send them.

use alloc::string::String;
use minicbor::{Decode, Encode};
use serde_json::{Map, Value};

use crate::digest::Sha256;
use crate::limits;
use crate::wire::{Unusable, inner, object, quoted, shortened, text};

/// What a recorder says.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum RecorderMessage {
    /// `state_update`
    #[n(0)]
    StateUpdate {
        /// Its clock, milliseconds since 1970.
        #[n(0)]
        timestamp_ms: Option<i64>,
        /// `data.previous`
        #[n(1)]
        previous: Option<String>,
        /// `data.current`; `None` if blank.
        #[n(2)]
        current: Option<String>,
        /// `data.task_id`
        #[n(3)]
        task: Option<String>,
    },
    /// `config_applied`
    #[n(1)]
    ConfigApplied {
        /// `data.task_id`
        #[n(0)]
        task: Option<String>,
    },
    /// `rpc_response`
    #[n(2)]
    Response {
        /// Which RPC it answers.
        #[n(0)]
        request_id: String,
        /// Its word; anything but `true` is no.
        #[n(1)]
        success: bool,
        /// Its message.
        #[n(2)]
        message: Option<String>,
        /// `data.state`, else `data.current`, else `data.current_state`: the first that is not blank.
        #[n(3)]
        state: Option<String>,
        /// `data.task_id`, else `data.task_config.task_id`.
        #[n(4)]
        task: Option<String>,
        /// `data` as a JSON object with sorted keys; one larger than the limit is replaced by its digest.
        #[n(5)]
        data: Option<String>,
    },
    /// Anything else; its type, shortened.
    #[n(3)]
    Other(#[n(0)] String),
}

/// The task a message names.
#[must_use]
pub fn names(message: &RecorderMessage) -> Option<&str> {
    match message {
        RecorderMessage::StateUpdate { task, .. }
        | RecorderMessage::ConfigApplied { task }
        | RecorderMessage::Response { task, .. } => task.as_deref(),
        RecorderMessage::Other(_) => None,
    }
}

/// Reads a frame. A field of the wrong type counts as absent; what is no JSON object is [`Unusable`].
pub fn decode(bytes: &[u8]) -> Result<RecorderMessage, Unusable> {
    let frame = object(bytes)?;
    let kind = text(&frame, "type").unwrap_or_default();
    let nothing = Map::new();
    let data = inner(&frame, "data").unwrap_or(&nothing);
    let message = match kind.as_str() {
        "state_update" => RecorderMessage::StateUpdate {
            timestamp_ms: timestamp(&frame),
            previous: word(data, "previous"),
            current: word(data, "current"),
            task: task(data),
        },
        "config_applied" => RecorderMessage::ConfigApplied { task: task(data) },
        "rpc_response" => RecorderMessage::Response {
            request_id: word(&frame, "request_id").unwrap_or_default(),
            success: frame.get("success").and_then(Value::as_bool).unwrap_or(false),
            message: text(&frame, "message").map(|t| shortened(&t, limits::RPC_MESSAGE_BYTES)),
            state: word(data, "state")
                .or_else(|| word(data, "current"))
                .or_else(|| word(data, "current_state")),
            task: task(data).or_else(|| task(inner(data, "task_config")?)),
            data: frame.get("data").filter(|data| data.is_object()).map(carried),
        },
        other => RecorderMessage::Other(shortened(other, limits::WORD_BYTES)),
    };
    Ok(message)
}

/// Writes an RPC: keys in the order `type`, `request_id`, `action`, `params`, `timestamp_ms`, and a newline.
///
/// `params` is a JSON object; its keys are sorted. None, an empty one, and what is no object are left out. The
/// timestamp is ours: recorders compare it with their own clock.
#[must_use]
pub fn encode_rpc(request_id: &str, action: &str, params: Option<&str>, timestamp_ms: i64) -> String {
    let params = params.and_then(|text| object(text.as_bytes()).ok()).filter(|map| !map.is_empty());
    let params = match params {
        Some(map) => alloc::format!(",\"params\":{}", sorted(Value::Object(map))),
        None => String::new(),
    };
    alloc::format!(
        "{{\"type\":\"rpc_request\",\"request_id\":{},\"action\":{}{params},\"timestamp_ms\":{timestamp_ms}}}\n",
        quoted(request_id),
        quoted(action),
    )
}

/// Parameters that name a task as devices name it: `task_id` is set, everything else stays. None is an empty object.
pub fn naming(params: Option<&str>, task: &str) -> Result<String, Unusable> {
    let mut map = params.map_or_else(|| Ok(Map::new()), |text| object(text.as_bytes()))?;
    map.insert(String::from("task_id"), Value::from(task));
    Ok(sorted(Value::Object(map)))
}

fn word(map: &Map<String, Value>, field: &str) -> Option<String> {
    text(map, field).map(|t| shortened(&t, limits::WORD_BYTES))
}

/// The task that is named. One that is longer than a wire id can be names nothing of ours: it counts as absent.
fn task(map: &Map<String, Value>) -> Option<String> {
    text(map, "task_id").filter(|id| id.len() <= limits::WIRE_BYTES)
}

fn timestamp(frame: &Map<String, Value>) -> Option<i64> {
    let number = frame.get("timestamp")?;
    number.as_i64().or_else(|| number.as_f64().map(|f| f as i64))
}

/// `data` as we carry and journal it: a device may repeat the configuration it was given, and the token in it is none
/// of anybody's business.
fn carried(data: &Value) -> String {
    let mut data = data.clone();
    drop_tokens(&mut data);
    let text = sorted(data);
    if text.len() <= limits::RPC_DATA_BYTES {
        return text;
    }
    let sha256 = Sha256::of(text.as_bytes());
    alloc::format!("{{\"bytes\":{},\"sha256\":\"{sha256}\",\"truncated\":true}}", text.len())
}

/// Removes every `user_token`, at any depth, however it is capitalised; the parser bounds the depth.
fn drop_tokens(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|field, _| !field.eq_ignore_ascii_case("user_token"));
            map.values_mut().for_each(drop_tokens);
        }
        Value::Array(list) => list.iter_mut().for_each(drop_tokens),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Compact, with sorted keys, whatever order the JSON library keeps.
fn sorted(mut value: Value) -> String {
    value.sort_all_objects();
    alloc::format!("{value}")
}
