//! Durations and sizes as people write them.

use std::time::Duration;

/// Reads `500ms`, `15s`, `2m`, `1h`, `1d`, or `0`.
///
/// # Errors
/// What a duration looks like.
pub fn parse_duration(text: &str) -> Result<Duration, &'static str> {
    const MUST: &str = "must be a duration such as \"500ms\", \"15s\", \"2m\", \"1h\" or \"1d\"";
    let (number, unit) = split(text).ok_or(MUST)?;
    let ms: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        "" if number == 0 => 1,
        _ => return Err(MUST),
    };
    number.checked_mul(ms).map(Duration::from_millis).ok_or(MUST)
}

/// Reads a number of bytes with an optional unit: `8MiB`, `50MB`, `64KiB`, `1024`.
///
/// # Errors
/// What a size looks like.
pub fn parse_size(text: &str) -> Result<u64, &'static str> {
    const MUST: &str = "must be a size such as 1048576, \"8MiB\" or \"50MB\"";
    let (number, unit) = split(text).ok_or(MUST)?;
    let bytes: u64 = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        _ => return Err(MUST),
    };
    number.checked_mul(bytes).ok_or(MUST)
}

/// A duration the way [`parse_duration`] reads it, in the largest unit that is exact.
#[must_use]
pub fn duration_text(duration: Duration) -> String {
    let ms = duration.as_millis();
    for (unit, size) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)] {
        if ms > 0 && ms.is_multiple_of(size) {
            return format!("{}{unit}", ms / size);
        }
    }
    if ms == 0 { "0s".to_owned() } else { format!("{ms}ms") }
}

/// A size the way [`parse_size`] reads it, in the largest binary unit that is exact.
#[must_use]
pub fn size_text(bytes: u64) -> String {
    for (unit, size) in [("GiB", 1u64 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)] {
        if bytes > 0 && bytes.is_multiple_of(size) {
            return format!("{}{unit}", bytes / size);
        }
    }
    bytes.to_string()
}

fn split(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    Some((number.parse().ok()?, unit.trim_start()))
}
