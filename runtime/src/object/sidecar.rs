//! Owns how a recording's sidecar is read into facts. What it says is a claim; nothing here believes it.

use serde_json::{Map, Value};
use tidegate_core::digest::Sha256;
use tidegate_core::limits;
use tidegate_core::object::SidecarFacts;
use tidegate_core::time::Wall;

/// The facts that a sidecar states. `None` if it is no JSON object. A field that is missing or makes no sense is
/// `None` in the facts: one bad field does not hide the others.
#[must_use]
pub fn facts(text: &[u8]) -> Option<SidecarFacts> {
    let Ok(Value::Object(top)) = serde_json::from_slice(text) else { return None };
    let Some(recording) = top.get("recording").and_then(Value::as_object) else {
        return Some(SidecarFacts::default());
    };
    Some(SidecarFacts {
        sha256: word(recording, "checksum_sha256").and_then(Sha256::from_hex),
        len: recording.get("file_size_bytes").and_then(Value::as_u64),
        duration_ms: recording.get("duration_sec").and_then(Value::as_f64).and_then(millis),
        messages: recording.get("message_count").and_then(Value::as_u64),
        started_at: recording.get("recording_started_at").and_then(moment),
        recorder_version: word(recording, "recorder_version").map(short),
    })
}

/// A text that says something.
fn word<'a>(of: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    of.get(name).and_then(Value::as_str).map(str::trim).filter(|text| !text.is_empty())
}

/// A version becomes a label: it is bounded like an id and fits one line.
fn short(version: &str) -> String {
    let mut out = String::new();
    for c in version.chars().filter(|c| !c.is_control()) {
        if out.len() + c.len_utf8() > limits::ID_BYTES {
            break;
        }
        out.push(c);
    }
    out
}

fn millis(seconds: f64) -> Option<u64> {
    let millis = (seconds * 1000.0).round();
    // 2^53: the whole numbers that a double can tell apart.
    let whole = (0.0..9_007_199_254_740_992.0).contains(&millis);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked above: a whole number that fits"
    )]
    whole.then_some(millis as u64)
}

/// Milliseconds since 1970, or RFC 3339.
fn moment(value: &Value) -> Option<Wall> {
    match value {
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(ms), _) => Some(Wall(ms)),
            (None, Some(ms)) => millis(ms / 1000.0).and_then(|ms| i64::try_from(ms).ok()).map(Wall),
            (None, None) => None,
        },
        Value::String(text) => {
            text.trim().parse::<jiff::Timestamp>().ok().map(|at| Wall(at.as_millisecond()))
        }
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_complete_sidecar_gives_every_fact() {
        let sum = "ab".repeat(32);
        let text = format!(
            r#"{{"version":"1.0","recording":{{"checksum_sha256":"{sum}","file_size_bytes":12345,
            "duration_sec":1.2345,"message_count":7,"recording_started_at":1700000000123,
            "recorder_version":"0.3.1"}}}}"#
        );
        let found = facts(text.as_bytes()).unwrap();
        assert_eq!(found.sha256, Some(Sha256([0xab; 32])));
        assert_eq!((found.len, found.duration_ms, found.messages), (Some(12345), Some(1235), Some(7)));
        assert_eq!(found.started_at, Some(Wall(1_700_000_000_123)));
        assert_eq!(found.recorder_version.as_deref(), Some("0.3.1"));
    }

    #[test]
    fn a_start_may_be_written_as_a_date() {
        let text = br#"{"recording":{"recording_started_at":"2023-11-14T22:13:20.5Z"}}"#;
        assert_eq!(facts(text).unwrap().started_at, Some(Wall(1_700_000_000_500)));
    }

    #[test]
    fn a_field_that_makes_no_sense_does_not_hide_the_others() {
        let text = br#"{"recording":{"checksum_sha256":"xyz","file_size_bytes":-1,"duration_sec":-2,
            "message_count":"many","recording_started_at":"yesterday","recorder_version":" v2\n"}}"#;
        let expected = SidecarFacts { recorder_version: Some("v2".to_owned()), ..SidecarFacts::default() };
        assert_eq!(facts(text), Some(expected));
    }

    #[test]
    fn what_is_no_json_object_has_no_facts() {
        for text in [&b""[..], b"[1]", b"\"recording\"", b"{\"recording\":", &[0xff, 0xfe]] {
            assert_eq!(facts(text), None, "{text:?}");
        }
        assert_eq!(facts(b"{}"), Some(SidecarFacts::default()));
        assert_eq!(facts(b"{\"recording\":5}"), Some(SidecarFacts::default()));
    }

    #[test]
    fn a_version_is_cut_to_the_length_of_an_id() {
        let text = format!(r#"{{"recording":{{"recorder_version":"{}"}}}}"#, "é".repeat(500));
        assert_eq!(facts(text.as_bytes()).unwrap().recorder_version.unwrap().len(), limits::ID_BYTES);
    }
}
