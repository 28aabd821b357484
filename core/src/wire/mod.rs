//! The device protocol: tolerant decoding, exact encoding. The only user of `serde_json` in the core.
//!
//! Decoding never fails on a wrong type: a field that is not what it should be counts as absent, and what is no
//! JSON object is [`Unusable`]. Encoding writes one object with its keys in a fixed order and a newline, as the
//! predecessor did.

pub mod params;
pub mod recorder;
#[cfg(test)]
mod recorder_tests;
pub mod transfer;

use alloc::string::{String, ToString};
use serde_json::{Map, Value};

pub use recorder::RecorderMessage;
pub use transfer::TransferMessage;

/// A frame that is no JSON object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unusable;

/// Reads a JSON object. Depth is bounded by the parser (128), size by the link.
pub fn object(bytes: &[u8]) -> Result<Map<String, Value>, Unusable> {
    match serde_json::from_slice(bytes) {
        Ok(Value::Object(map)) => Ok(map),
        // The predecessor took `null` for an object without fields.
        Ok(Value::Null) => Ok(Map::new()),
        Ok(_) | Err(_) => Err(Unusable),
    }
}

/// A text cut to at most `bytes` bytes. A cut one ends in `…`, so that it is never mistaken for an id.
#[must_use]
pub fn shortened(text: &str, bytes: usize) -> String {
    if text.len() <= bytes {
        return text.to_string();
    }
    let mut end = bytes.saturating_sub('…'.len_utf8());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    alloc::format!("{}…", &text[..end])
}

/// A text as a JSON string, with its quotes.
#[must_use]
pub fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// A text field; blank, absent and wrongly typed are all `None`.
#[must_use]
pub fn text(map: &Map<String, Value>, field: &str) -> Option<String> {
    let text = map.get(field)?.as_str()?.trim();
    if text.is_empty() { None } else { Some(text.to_string()) }
}

/// A non-negative whole number, also one written as a decimal fraction or text.
#[must_use]
pub fn number(map: &Map<String, Value>, field: &str) -> Option<u64> {
    match map.get(field)? {
        Value::Number(n) => n.as_u64().or_else(|| n.as_f64().filter(|f| *f >= 0.0).map(|f| f as u64)),
        Value::String(s) => s.trim().parse().ok(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

/// An object field.
#[must_use]
pub fn inner<'a>(map: &'a Map<String, Value>, field: &str) -> Option<&'a Map<String, Value>> {
    map.get(field)?.as_object()
}
