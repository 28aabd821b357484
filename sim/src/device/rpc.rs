//! What a recorder reads from the wire: requests and task configurations. Decides nothing.

use std::borrow::Cow;
use std::fmt::Write as _;

use serde::Deserialize;
use serde_json::Value;
use tidegate_core::input::Action;

use super::frame::{push_name, push_quoted, push_text};

/// A request, as far as a recorder looks at it.
#[derive(Debug, Deserialize)]
pub(super) struct Request<'a> {
    #[serde(borrow)]
    pub(super) request_id: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) action: Cow<'a, str>,
    #[serde(default)]
    params: Value,
}

impl<'a> Request<'a> {
    /// Reads a frame. What is no request gets no answer.
    pub(super) fn read(text: &'a str) -> Option<Request<'a>> {
        // A list would pass for an object with its members in order.
        if !text.trim_start().starts_with('{') {
            return None;
        }
        serde_json::from_str(text).ok()
    }

    /// The task it names.
    pub(super) fn task(&self) -> Option<&str> {
        self.params.get("task_id").and_then(Value::as_str)
    }

    /// The configuration it brings.
    pub(super) fn config(&self) -> Option<&Value> {
        self.params.get("task_config")
    }
}

/// The action of this name.
pub(super) fn action(name: &str) -> Option<Action> {
    Some(match name {
        "get_state" => Action::GetState,
        "get_stats" | "get_status" => Action::GetStats,
        "config" => Action::Config,
        "begin" => Action::Begin,
        "finish" => Action::Finish,
        "pause" => Action::Pause,
        "resume" => Action::Resume,
        "cancel" => Action::Cancel,
        "clear" => Action::Clear,
        "quit" => Action::Quit,
        _ => return None,
    })
}

/// A task's configuration.
#[derive(Clone, Debug)]
pub(super) struct Task {
    /// The id it goes by.
    pub(super) wire: String,
    /// The device that callbacks name.
    pub(super) device: String,
    /// Whether the start of a recording is told.
    pub(super) start_callback: bool,
    /// Whether its end is told.
    pub(super) finish_callback: bool,
    /// What is said back of it: a JSON object.
    pub(super) shown: String,
}

impl Task {
    /// Reads `params.task_config`.
    ///
    /// # Errors
    /// The list of `validation_errors`, as JSON.
    pub(super) fn read(config: &Value) -> Result<Task, String> {
        let mut errors = String::from("[");
        let wire = required(config, "task_id", &mut errors);
        let device = required(config, "device_id", &mut errors);
        for field in ["data_collector_id", "order_id", "operator_name", "scene", "subscene", "factory"] {
            optional(config, field, &mut errors);
        }
        for field in ["start_callback_url", "finish_callback_url", "user_token"] {
            optional(config, field, &mut errors);
        }
        for (field, must) in [
            ("skills", "an array of strings"),
            ("topics", "an array of strings or objects"),
            ("topic_qos", "an array of objects"),
        ] {
            if !matches!(config.get(field), None | Some(Value::Null | Value::Array(_))) {
                wrong(&mut errors, field, "invalid_type", "must be ", must);
            }
        }
        if errors.len() > 1 {
            errors.push(']');
            return Err(errors);
        }
        let calls_back = |field| config.get(field).and_then(Value::as_str).is_some_and(|url| !url.is_empty());
        Ok(Task {
            wire: wire.to_string(),
            device: device.to_string(),
            start_callback: calls_back("start_callback_url"),
            finish_callback: calls_back("finish_callback_url"),
            shown: shown(config),
        })
    }
}

/// What is not empty, without addresses and token, in alphabetical order.
fn shown(config: &Value) -> String {
    let mut out = String::from("{");
    for field in SHOWN {
        match config.get(field) {
            Some(Value::String(text)) if !text.is_empty() => push_text(&mut out, field, text),
            Some(Value::Array(items)) if !items.is_empty() => {
                push_name(&mut out, field);
                out.push('[');
                for (n, item) in items.iter().enumerate() {
                    if n > 0 {
                        out.push(',');
                    }
                    let named = item.get("name").or_else(|| item.get("topic")).and_then(Value::as_str);
                    match named.filter(|_| field == "topics").or_else(|| item.as_str()) {
                        Some(text) => push_quoted(&mut out, text),
                        None => write!(out, "{item}").expect("a string takes everything"),
                    }
                }
                out.push(']');
            }
            _ => {}
        }
    }
    out.push('}');
    out
}

fn required<'a>(config: &'a Value, field: &str, errors: &mut String) -> &'a str {
    match config.get(field) {
        None | Some(Value::Null) => wrong(errors, field, "missing_required", "is required", ""),
        Some(Value::String(text)) if text.is_empty() => {
            wrong(errors, field, "empty", "must not be empty", "")
        }
        Some(Value::String(text)) => return text,
        Some(_) => wrong(errors, field, "invalid_type", "must be a string", ""),
    }
    ""
}

fn optional(config: &Value, field: &str, errors: &mut String) {
    if !matches!(config.get(field), None | Some(Value::Null | Value::String(_))) {
        wrong(errors, field, "invalid_type", "must be a string", "");
    }
}

fn wrong(errors: &mut String, field: &str, code: &str, what: &str, more: &str) {
    if errors.len() > 1 {
        errors.push(',');
    }
    write!(errors, "{{\"code\":\"{code}\",\"field\":\"{field}\",\"message\":\"{field} {what}{more}\"}}")
        .expect("a string takes everything");
}

const SHOWN: [&str; 11] = [
    "data_collector_id",
    "device_id",
    "factory",
    "operator_name",
    "order_id",
    "scene",
    "skills",
    "subscene",
    "task_id",
    "topic_qos",
    "topics",
];
