//! Reads values out of JSON and says where something is wrong and what would be right. Knows no record of the contract.

use serde_json::{Map, Value};

use super::words::Words;

/// Something in a JSON text is not what it must be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {why}")]
pub struct JsonError {
    /// Where, like `batch[2].labels`.
    pub path: String,
    /// What is wrong, and what would be right.
    pub why: String,
}

/// "Expected this, found that."
pub(super) fn expected(path: &str, what: &str, found: &Value) -> JsonError {
    const SHOWN: usize = 60;
    let text = found.to_string();
    let mut shown: String = text.chars().take(SHOWN).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    let path = if path.is_empty() { String::from("input") } else { path.to_owned() };
    JsonError { path, why: format!("expected {what}, found {shown}") }
}

/// A value that can be read out of JSON.
pub(super) trait Field: Sized {
    /// Reads it; `path` is for the error.
    fn read(path: &str, value: &Value) -> Result<Self, JsonError>;
}

/// The fields of an object, each taken once.
pub(super) struct Fields<'a> {
    path: String,
    map: &'a Map<String, Value>,
    known: Vec<&'static str>,
}

impl<'a> Fields<'a> {
    pub(super) fn of(path: &str, value: &'a Value) -> Result<Fields<'a>, JsonError> {
        let map = value.as_object().ok_or_else(|| expected(path, "an object", value))?;
        Ok(Fields { path: path.to_owned(), map, known: Vec::new() })
    }

    fn path(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// The field, or this if it is not given.
    pub(super) fn or<T: Field>(&mut self, key: &'static str, neutral: T) -> Result<T, JsonError> {
        self.known.push(key);
        match self.map.get(key) {
            None => Ok(neutral),
            Some(value) => T::read(&self.path(key), value),
        }
    }

    /// The field, or its type's default.
    pub(super) fn or_default<T: Field + Default>(&mut self, key: &'static str) -> Result<T, JsonError> {
        self.or(key, T::default())
    }

    /// The field, which must be there.
    pub(super) fn required<T: Field>(&mut self, key: &'static str) -> Result<T, JsonError> {
        self.known.push(key);
        match self.map.get(key) {
            None => Err(JsonError { path: self.path(key), why: String::from("is missing") }),
            Some(value) => T::read(&self.path(key), value),
        }
    }

    /// Nothing else may stand there: it would be a misspelt field that is silently neutral.
    pub(super) fn done(self) -> Result<(), JsonError> {
        match self.map.keys().find(|key| !self.known.contains(&key.as_str())) {
            None => Ok(()),
            Some(key) => {
                let why = format!("is no field here; there are {}", self.known.join(", "));
                Err(JsonError { path: self.path(key), why })
            }
        }
    }
}

macro_rules! whole_numbers {
    ($($int:ty),*) => {$(
        impl Field for $int {
            fn read(path: &str, value: &Value) -> Result<$int, JsonError> {
                let what = || format!("a whole number from {} to {}", <$int>::MIN, <$int>::MAX);
                let number = value.as_i64().map(i128::from).or_else(|| value.as_u64().map(i128::from));
                number
                    .and_then(|number| <$int>::try_from(number).ok())
                    .ok_or_else(|| expected(path, &what(), value))
            }
        }
    )*};
}

whole_numbers!(u16, u32, u64, i64);

impl Field for String {
    fn read(path: &str, value: &Value) -> Result<String, JsonError> {
        value.as_str().map(str::to_owned).ok_or_else(|| expected(path, "a text", value))
    }
}

impl<T: Words> Field for T {
    fn read(path: &str, value: &Value) -> Result<T, JsonError> {
        let case = value.as_str().and_then(|text| T::WORDS.iter().find(|(_, word)| *word == text));
        case.map(|(case, _)| *case).ok_or_else(|| {
            let words: Vec<_> = T::WORDS.iter().map(|(_, word)| *word).collect();
            expected(path, &format!("one of {}", words.join(", ")), value)
        })
    }
}

impl Field for Option<u64> {
    fn read(path: &str, value: &Value) -> Result<Option<u64>, JsonError> {
        if value.is_null() { Ok(None) } else { u64::read(path, value).map(Some) }
    }
}

/// Marks what may stand in a list.
pub(super) trait Item: Field {}
impl Item for i64 {}
impl Item for tidegate_core::policy::Candidate {}
impl Item for tidegate_core::policy::Waiting {}
impl Item for tidegate_core::policy::Chosen {}

impl<T: Item> Field for Vec<T> {
    fn read(path: &str, value: &Value) -> Result<Vec<T>, JsonError> {
        let items = value.as_array().ok_or_else(|| expected(path, "a list", value))?;
        items.iter().enumerate().map(|(n, item)| T::read(&format!("{path}[{n}]"), item)).collect()
    }
}

/// Labels: a list of pairs, or, written by hand, an object.
impl Field for Vec<(String, String)> {
    fn read(path: &str, value: &Value) -> Result<Vec<(String, String)>, JsonError> {
        match value {
            Value::Object(map) => map
                .iter()
                .map(|(key, value)| Ok((key.clone(), String::read(&format!("{path}.{key}"), value)?)))
                .collect(),
            Value::Array(pairs) => pairs
                .iter()
                .enumerate()
                .map(|(n, pair)| {
                    let path = format!("{path}[{n}]");
                    match pair.as_array().map(Vec::as_slice) {
                        Some([key, value]) => Ok((String::read(&path, key)?, String::read(&path, value)?)),
                        Some(_) | None => Err(expected(&path, "a pair of texts", pair)),
                    }
                })
                .collect(),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                Err(expected(path, "a list of pairs of texts", value))
            }
        }
    }
}
