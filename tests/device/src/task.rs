//! Owns a task's configuration as a recorder reads it from the wire and says it back.

use serde_json::{Map, Value, json};

/// What `config` told the recorder.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct TaskConfig {
    pub task_id: String,
    pub device_id: String,
    pub data_collector_id: String,
    pub order_id: String,
    pub operator_name: String,
    pub scene: String,
    pub subscene: String,
    pub factory: String,
    pub start_callback_url: String,
    pub finish_callback_url: String,
    pub user_token: String,
    pub skills: Vec<String>,
    pub topics: Vec<String>,
    /// `{name, qos}` each.
    pub topic_qos: Vec<Value>,
}

impl TaskConfig {
    /// Reads `params.task_config`; otherwise the list of `validation_errors`.
    pub(crate) fn parse(config: &Value) -> Result<Self, Vec<Value>> {
        let mut task = Self::default();
        let mut errors = Vec::new();
        let texts: [(&str, bool, &mut String); 11] = [
            ("task_id", true, &mut task.task_id),
            ("device_id", true, &mut task.device_id),
            ("data_collector_id", false, &mut task.data_collector_id),
            ("order_id", false, &mut task.order_id),
            ("operator_name", false, &mut task.operator_name),
            ("scene", false, &mut task.scene),
            ("subscene", false, &mut task.subscene),
            ("factory", false, &mut task.factory),
            ("start_callback_url", false, &mut task.start_callback_url),
            ("finish_callback_url", false, &mut task.finish_callback_url),
            ("user_token", false, &mut task.user_token),
        ];
        for (field, required, place) in texts {
            match config.get(field) {
                None | Some(Value::Null) if required => {
                    errors.push(wrong(field, "missing_required", "is required"));
                }
                None | Some(Value::Null) => {}
                Some(Value::String(text)) if required && text.is_empty() => {
                    errors.push(wrong(field, "empty", "must not be empty"));
                }
                Some(Value::String(text)) => place.clone_from(text),
                Some(_) => errors.push(wrong(field, "invalid_type", "must be a string")),
            }
        }
        let name = |item: &Value, keys: &[&str]| match item {
            Value::String(text) => Some(text.clone()),
            other => keys.iter().find_map(|key| other.get(key)?.as_str().map(str::to_owned)),
        };
        match list(config, "skills", |item| name(item, &[])) {
            Some(skills) => task.skills = skills,
            None => errors.push(wrong("skills", "invalid_type", "must be an array of strings")),
        }
        match list(config, "topics", |item| name(item, &["name", "topic"])) {
            Some(topics) => task.topics = topics,
            None => errors.push(wrong("topics", "invalid_type", "must be an array of strings or objects")),
        }
        match list(config, "topic_qos", |item| item.is_object().then(|| item.clone())) {
            Some(qos) => task.topic_qos = qos,
            None => errors.push(wrong("topic_qos", "invalid_type", "must be an array of objects")),
        }
        if errors.is_empty() { Ok(task) } else { Err(errors) }
    }

    /// The fields that `config_applied` and `get_state` show: those that are not empty, without URLs and token.
    pub(crate) fn shown(&self) -> Value {
        let mut shown = Map::new();
        let texts = [
            ("task_id", &self.task_id),
            ("device_id", &self.device_id),
            ("data_collector_id", &self.data_collector_id),
            ("order_id", &self.order_id),
            ("operator_name", &self.operator_name),
            ("scene", &self.scene),
            ("subscene", &self.subscene),
            ("factory", &self.factory),
        ];
        for (field, text) in texts {
            if !text.is_empty() {
                shown.insert(field.to_owned(), json!(text));
            }
        }
        for (field, list) in [("skills", &self.skills), ("topics", &self.topics)] {
            if !list.is_empty() {
                shown.insert(field.to_owned(), json!(list));
            }
        }
        if !self.topic_qos.is_empty() {
            shown.insert("topic_qos".to_owned(), json!(self.topic_qos));
        }
        Value::Object(shown)
    }
}

/// `None` if the field is there but is not a list of what `item` takes.
fn list<T>(config: &Value, field: &str, item: impl Fn(&Value) -> Option<T>) -> Option<Vec<T>> {
    match config.get(field) {
        None | Some(Value::Null) => Some(Vec::new()),
        Some(Value::Array(items)) => items.iter().map(item).collect(),
        Some(_) => None,
    }
}

fn wrong(field: &str, code: &str, what: &str) -> Value {
    json!({"code": code, "field": field, "message": format!("{field} {what}")})
}
