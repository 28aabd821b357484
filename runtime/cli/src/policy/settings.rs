//! Settings of modules on the command line: `key=value`, fitted to what the module says of itself where that is known.

use std::str::FromStr;

use serde_json::{Map, Value};
use tidegate_core::policy::SettingValue;

/// One setting as it was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Given {
    pub(crate) key: String,
    /// The value as it was written.
    raw: String,
    /// What it looks like: a flag, a number, else a text.
    pub(crate) value: SettingValue,
}

impl Given {
    /// A setting of a JSON object.
    ///
    /// # Errors
    /// If the value is neither a truth, nor a whole number, nor a text.
    pub(crate) fn of(key: &str, value: &Value) -> Result<Given, String> {
        let value = match value {
            Value::Bool(on) => SettingValue::Flag(*on),
            Value::String(text) => SettingValue::Text(text.clone()),
            Value::Number(number) if number.is_i64() => SettingValue::Int(number.as_i64().unwrap_or(0)),
            _ => return Err(format!("setting {key} must be true, false, a whole number or a text")),
        };
        let raw = match &value {
            SettingValue::Text(text) => format!("\"{text}\""),
            SettingValue::Flag(_) | SettingValue::Int(_) => value_text(&value),
        };
        Ok(Given { key: key.to_owned(), raw, value })
    }

    /// As it was written.
    pub(crate) fn written(&self) -> String {
        format!("{}={}", self.key, self.raw)
    }
}

impl FromStr for Given {
    type Err = String;

    fn from_str(text: &str) -> Result<Given, String> {
        let (key, raw) = text.split_once('=').ok_or("write it as KEY=VALUE, for instance uploads=4")?;
        if key.is_empty() {
            return Err("the key before = is missing".to_owned());
        }
        let value = match raw {
            "true" => SettingValue::Flag(true),
            "false" => SettingValue::Flag(false),
            _ => match raw.parse::<i64>() {
                Ok(number) => SettingValue::Int(number),
                Err(_) => SettingValue::Text(unquoted(raw)),
            },
        };
        Ok(Given { key: key.to_owned(), raw: raw.to_owned(), value })
    }
}

/// A text in double quotes is what stands between them: so can a text look like a number.
fn unquoted(raw: &str) -> String {
    let inner = raw.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    inner.unwrap_or(raw).to_owned()
}

/// The settings as the API takes them. Later ones win.
pub(crate) fn to_json(given: &[Given]) -> Value {
    let mut map = Map::new();
    for setting in given {
        map.insert(setting.key.clone(), value_json(&setting.value));
    }
    Value::Object(map)
}

/// The value of a setting as JSON.
pub(crate) fn value_json(value: &SettingValue) -> Value {
    match value {
        SettingValue::Flag(on) => Value::Bool(*on),
        SettingValue::Int(number) => Value::from(*number),
        SettingValue::Text(text) => Value::String(text.clone()),
    }
}

/// The value of a setting for people.
pub(crate) fn value_text(value: &SettingValue) -> String {
    match value {
        SettingValue::Flag(on) => on.to_string(),
        SettingValue::Int(number) => number.to_string(),
        SettingValue::Text(text) => format!("{text:?}"),
    }
}

/// The settings in the types that the module documents, sorted by key. Later ones win.
///
/// # Errors
/// If the module knows no such setting, or it is of another type: the text says which, and what would do.
pub(crate) fn fitted(
    given: &[Given],
    documented: &[(String, SettingValue)],
) -> Result<Vec<(String, SettingValue)>, String> {
    let mut settings: Vec<(String, SettingValue)> = Vec::new();
    for setting in given {
        let Some((_, default)) = documented.iter().find(|(key, _)| *key == setting.key) else {
            return Err(unknown(&setting.key, documented));
        };
        let value = match (default, &setting.value) {
            (SettingValue::Flag(_), SettingValue::Flag(_)) | (SettingValue::Int(_), SettingValue::Int(_)) => {
                setting.value.clone()
            }
            (SettingValue::Text(_), _) => SettingValue::Text(unquoted(&setting.raw)),
            (SettingValue::Flag(_), _) => {
                return Err(format!(
                    "setting {} is true or false (default {}), not {:?}",
                    setting.key,
                    value_text(default),
                    setting.raw
                ));
            }
            (SettingValue::Int(_), _) => {
                return Err(format!(
                    "setting {} is a whole number (default {}), not {:?}",
                    setting.key,
                    value_text(default),
                    setting.raw
                ));
            }
        };
        settings.retain(|(key, _)| *key != setting.key);
        settings.push((setting.key.clone(), value));
    }
    settings.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(settings)
}

fn unknown(key: &str, documented: &[(String, SettingValue)]) -> String {
    if documented.is_empty() {
        return format!("there is no setting {key}: the module has none");
    }
    match nearest(key, documented.iter().map(|(key, _)| key.as_str())) {
        Some(near) => format!("there is no setting {key}; did you mean {near}?"),
        None => {
            let keys: Vec<&str> = documented.iter().map(|(key, _)| key.as_str()).collect();
            format!("there is no setting {key}; the module has {}", keys.join(", "))
        }
    }
}

/// The word that was meant, if one is near enough.
pub(crate) fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate))
        .filter(|(distance, _)| *distance <= 1.max(word.len() / 3))
        .min()
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(text: &str) -> Given {
        text.parse().expect("a setting")
    }

    #[test]
    fn a_value_is_a_flag_a_number_or_a_text() {
        let cases = [
            ("a=true", SettingValue::Flag(true)),
            ("a=false", SettingValue::Flag(false)),
            ("a=-5", SettingValue::Int(-5)),
            ("a=", SettingValue::Text(String::new())),
            ("a=b=c", SettingValue::Text("b=c".to_owned())),
            ("a=\"5\"", SettingValue::Text("5".to_owned())),
            ("a=1.5", SettingValue::Text("1.5".to_owned())),
            ("a=99999999999999999999", SettingValue::Text("99999999999999999999".to_owned())),
        ];
        for (text, value) in cases {
            assert_eq!(given(text).value, value, "{text}");
        }
        assert!("uploads".parse::<Given>().is_err_and(|why| why.contains("KEY=VALUE")));
        assert!("=5".parse::<Given>().is_err_and(|why| why.contains("key")));
    }

    #[test]
    fn the_last_of_equal_keys_wins() {
        assert_eq!(
            to_json(&[given("a=1"), given("b=x"), given("a=2")]),
            serde_json::json!({"a": 2, "b": "x"})
        );
        let documented =
            [("a".to_owned(), SettingValue::Int(0)), ("b".to_owned(), SettingValue::Text(String::new()))];
        assert_eq!(
            fitted(&[given("b=7"), given("a=1"), given("a=2")], &documented),
            Ok(vec![
                ("a".to_owned(), SettingValue::Int(2)),
                ("b".to_owned(), SettingValue::Text("7".to_owned()))
            ])
        );
    }

    #[test]
    fn a_wrong_setting_is_named_with_what_would_do() {
        let documented = [
            ("from-hour".to_owned(), SettingValue::Int(22)),
            ("metered".to_owned(), SettingValue::Flag(false)),
        ];
        let why = |text: &str| fitted(&[given(text)], &documented).expect_err("it does not fit");
        assert_eq!(why("from-hours=3"), "there is no setting from-hours; did you mean from-hour?");
        assert_eq!(why("colour=red"), "there is no setting colour; the module has from-hour, metered");
        assert_eq!(why("from-hour=late"), "setting from-hour is a whole number (default 22), not \"late\"");
        assert_eq!(why("metered=1"), "setting metered is true or false (default false), not \"1\"");
        assert_eq!(
            fitted(&[given("a=1")], &[]),
            Err("there is no setting a: the module has none".to_owned())
        );
    }
}
