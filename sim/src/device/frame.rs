//! Writing what devices say: JSON text with keys in alphabetical order, as real ones write it. Knows no state.

use std::fmt::Write as _;

/// Appends a text as a JSON string.
pub(super) fn push_quoted(out: &mut String, text: &str) {
    // Ids, keys and states are plain; only what a person typed may need escapes.
    if text.bytes().all(|b| (b' '..=b'~').contains(&b) && b != b'"' && b != b'\\') {
        out.push('"');
        out.push_str(text);
        out.push('"');
    } else {
        out.push_str(&serde_json::Value::from(text).to_string());
    }
}

/// Appends `"name":number`, after a comma unless the object has just been opened.
pub(super) fn push_number(out: &mut String, name: &str, number: u64) {
    push_name(out, name);
    write!(out, "{number}").expect("a string takes everything");
}

/// Appends `"name":"text"`, after a comma unless the object has just been opened.
pub(super) fn push_text(out: &mut String, name: &str, text: &str) {
    push_name(out, name);
    push_quoted(out, text);
}

/// Appends `"name":`, after a comma unless the object has just been opened.
pub(super) fn push_name(out: &mut String, name: &str) {
    if !out.ends_with('{') {
        out.push(',');
    }
    out.push('"');
    out.push_str(name);
    out.push_str("\":");
}

/// A recorder's `state_update`.
pub(super) fn state_update(previous: &str, current: &str, task: Option<&str>, at_ms: i64) -> String {
    let mut out = String::with_capacity(140);
    out.push_str("{\"data\":{");
    push_text(&mut out, "current", current);
    push_text(&mut out, "previous", previous);
    if let Some(task) = task {
        push_text(&mut out, "task_id", task);
    }
    write!(out, "}},\"timestamp\":{at_ms},\"type\":\"state_update\"}}").expect("a string takes everything");
    out
}

/// A recorder's answer; `data` is JSON.
pub(super) fn rpc_response(request: &str, success: bool, message: &str, data: Option<&str>) -> String {
    let mut out = String::with_capacity(128 + request.len() + message.len() + data.map_or(0, str::len));
    out.push('{');
    if let Some(data) = data {
        push_name(&mut out, "data");
        out.push_str(data);
    }
    push_text(&mut out, "message", message);
    push_text(&mut out, "request_id", request);
    push_name(&mut out, "success");
    out.push_str(if success { "true" } else { "false" });
    push_text(&mut out, "type", "rpc_response");
    out.push('}');
    out
}

/// An uploader's message; `data` is a JSON object without its closing brace.
pub(super) fn transfer(kind: &str, data: &str, at_ms: i64) -> String {
    let mut out = String::with_capacity(data.len() + kind.len() + 70);
    out.push_str("{\"data\":");
    out.push_str(data);
    out.push_str("},\"timestamp\":\"");
    push_moment(&mut out, at_ms);
    out.push_str("\",\"type\":\"");
    out.push_str(kind);
    out.push_str("\"}");
    out
}

/// Appends `2026-11-21T01:39:06.423Z`.
fn push_moment(out: &mut String, at_ms: i64) {
    push_day(out, at_ms);
    let ms = at_ms.rem_euclid(DAY_MS);
    let (h, m, s) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60);
    write!(out, "T{h:02}:{m:02}:{s:02}.{:03}Z", ms % 1000).expect("a string takes everything");
}

/// Appends the UTC date of a wall clock's milliseconds since 1970, as in `2026-11-21`.
pub(super) fn push_day(out: &mut String, at_ms: i64) {
    // Howard Hinnant's days-to-civil, with years that begin in March.
    let days = at_ms.div_euclid(DAY_MS) + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    write!(out, "{year:04}-{month:02}-{day:02}").expect("a string takes everything");
}

const DAY_MS: i64 = 86_400_000;

#[cfg(test)]
mod tests {
    use super::{push_day, push_moment, push_quoted};

    #[test]
    fn moments_are_written_in_utc() {
        let moment = |ms| {
            let mut out = String::new();
            push_moment(&mut out, ms);
            out
        };
        assert_eq!(moment(1_795_225_146_423), "2026-11-21T01:39:06.423Z");
        assert_eq!(moment(951_782_400_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(moment(-1), "1969-12-31T23:59:59.999Z");
        let mut day = String::new();
        push_day(&mut day, crate::device::EPOCH_MS);
        assert_eq!(day, "2026-09-21");
    }

    #[test]
    fn texts_are_quoted_as_json_wants_it() {
        for text in ["plain-1.2", "", "with \"quotes\" and \\", "línea\n\u{1}"] {
            let mut out = String::new();
            push_quoted(&mut out, text);
            assert_eq!(serde_json::from_str::<String>(&out).unwrap(), text);
        }
    }
}
