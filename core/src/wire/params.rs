//! Parameters of commands: which task they name, and what `config` sends. Must not decide whether a command is sent.

use alloc::string::{String, ToString};
use serde_json::{Map, Value};

use crate::limits;

/// Whether a text is a JSON object of at most `limits::CONFIG_BYTES`.
#[must_use]
pub fn is_config(text: &str) -> bool {
    text.len() <= limits::CONFIG_BYTES && parse(Some(text)).is_some()
}

/// Parameters that name the task by this wire id, wherever they named it; keys sorted. What is no JSON object
/// counts as no parameters.
#[must_use]
pub fn name_task(params: Option<&str>, wire: &str) -> String {
    let mut map = parse(params).unwrap_or_default();
    let nested = map.get_mut("task_config").and_then(Value::as_object_mut);
    let only_nested = match nested {
        Some(config) if config.contains_key("task_id") => {
            config.insert("task_id".to_string(), wire.into());
            !map.contains_key("task_id")
        }
        Some(_) | None => false,
    };
    if !only_nested {
        map.insert("task_id".to_string(), wire.into());
    }
    Value::Object(map).to_string()
}

/// What `config` sends.
#[derive(Clone, Copy, Debug)]
pub struct Config<'a> {
    /// The request's parameters.
    pub params: Option<&'a str>,
    /// The task's own configuration: defaults for what the request's `task_config` leaves out.
    pub stored: Option<&'a str>,
    /// The attempt to configure.
    pub wire: &'a str,
    /// Filled in as `device_id` if nobody named one.
    pub device: &'a str,
    /// Overwrites the callback addresses, if known.
    pub public_url: Option<&'a str>,
}

impl Config<'_> {
    /// The parameters, keys sorted. Whatever is not named here is passed on untouched.
    #[must_use]
    pub fn build(&self) -> String {
        let mut map = parse(self.params).unwrap_or_default();
        let mut config = match map.remove("task_config") {
            Some(Value::Object(config)) => config,
            Some(_) | None => Map::new(),
        };
        for (key, value) in parse(self.stored).unwrap_or_default() {
            config.entry(key).or_insert(value);
        }
        config.insert("task_id".to_string(), self.wire.into());
        if super::text(&config, "device_id").is_none() {
            config.insert("device_id".to_string(), self.device.into());
        }
        if let Some(base) = self.public_url {
            for which in ["start", "finish"] {
                let url = alloc::format!("{base}/api/v1/callbacks/{which}");
                config.insert(alloc::format!("{which}_callback_url"), url.into());
            }
        }
        map.insert("task_config".to_string(), Value::Object(config));
        Value::Object(map).to_string()
    }
}

fn parse(text: Option<&str>) -> Option<Map<String, Value>> {
    super::object(text?.as_bytes()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_overrides_the_stored_configuration_and_the_rest_is_passed_on() {
        let sent = Config {
            params: Some(
                r#"{"zeta":1,"task_config":{"scene":"lab","user_token":"tidegate-secret:4","x":[1,2]}}"#,
            ),
            stored: Some(r#"{"scene":"hall","topics":["/a"],"task_id":"other"}"#),
            wire: "T.2",
            device: "d1",
            public_url: Some("http://site:8080"),
        };
        assert_eq!(
            sent.build(),
            concat!(
                r#"{"task_config":{"device_id":"d1","finish_callback_url":"http://site:8080/api/v1/callbacks/finish","#,
                r#""scene":"lab","start_callback_url":"http://site:8080/api/v1/callbacks/start","task_id":"T.2","#,
                r#""topics":["/a"],"user_token":"tidegate-secret:4","x":[1,2]},"zeta":1}"#
            )
        );
    }

    #[test]
    fn without_a_public_address_callbacks_and_a_named_device_are_left_alone() {
        let sent = Config {
            params: Some(r#"{"task_config":{"device_id":"d2","start_callback_url":"http://x/"}}"#),
            stored: None,
            wire: "T",
            device: "d1",
            public_url: None,
        };
        assert_eq!(
            sent.build(),
            r#"{"task_config":{"device_id":"d2","start_callback_url":"http://x/","task_id":"T"}}"#
        );
    }

    #[test]
    fn a_task_is_renamed_where_it_was_named() {
        assert_eq!(name_task(None, "T"), r#"{"task_id":"T"}"#);
        assert_eq!(name_task(Some(r#"{"b":1,"task_id":"x"}"#), "T"), r#"{"b":1,"task_id":"T"}"#);
        assert_eq!(
            name_task(Some(r#"{"task_config":{"task_id":"x"}}"#), "T"),
            r#"{"task_config":{"task_id":"T"}}"#
        );
        assert_eq!(name_task(Some("[1]"), "T"), r#"{"task_id":"T"}"#);
    }

    #[test]
    fn a_configuration_is_a_bounded_object() {
        assert!(is_config("{}"));
        assert!(!is_config("[]"));
        assert!(!is_config(r#"{"a":"#));
        let long = alloc::format!(r#"{{"a":"{}"}}"#, "x".repeat(limits::CONFIG_BYTES));
        assert!(!is_config(&long));
    }
}
