//! Simulated time, and durations as people write them. Knows no clock.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

/// A moment: nanoseconds since the world began. True time, which no node of the world can read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SimTime(pub u64);

impl SimTime {
    /// The beginning.
    pub const ZERO: SimTime = SimTime(0);

    /// Since the beginning.
    #[must_use]
    pub fn since_start(self) -> Duration {
        Duration::from_nanos(self.0)
    }

    /// Milliseconds since the beginning.
    #[must_use]
    pub fn millis(self) -> u64 {
        self.0 / 1_000_000
    }
}

impl Add<Duration> for SimTime {
    type Output = SimTime;

    fn add(self, d: Duration) -> SimTime {
        SimTime(self.0.saturating_add(u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl Sub for SimTime {
    type Output = Duration;

    fn sub(self, earlier: SimTime) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Display for SimTime {
    /// `1h02m03.456s`, always with three decimals, so that columns align within a run of less than an hour.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.millis();
        let (h, m, s) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60);
        if h > 0 {
            write!(f, "{h}h{m:02}m{s:02}.{:03}s", ms % 1000)
        } else {
            write!(f, "{m:02}m{s:02}.{:03}s", ms % 1000)
        }
    }
}

/// Writes a duration as [`parse`] reads it: `1h30m`, `2m5s`, `250ms`, `0s`.
#[must_use]
pub fn text(d: Duration) -> String {
    let ms = d.as_millis();
    if ms == 0 {
        return "0s".to_string();
    }
    let mut out = String::new();
    for (unit, size) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)] {
        let left = ms - taken(&out, ms);
        if left / size > 0 {
            out.push_str(&format!("{}{unit}", left / size));
        }
    }
    out
}

fn taken(out: &str, ms: u128) -> u128 {
    parse(out).map_or(0, |d| d.as_millis()).min(ms)
}

/// Reads `1d`, `1h30m`, `2m5s`, `250ms`. At least one unit; larger units first.
///
/// # Errors
/// What is wrong, in words.
pub fn parse(text: &str) -> Result<Duration, String> {
    let bad = || format!("`{text}` is no duration; write for example 1h30m, 2m5s or 250ms");
    let mut rest = text.trim();
    let mut sum = Duration::ZERO;
    let mut last = u64::MAX;
    if rest.is_empty() {
        return Err(bad());
    }
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 = rest[..digits].parse().map_err(|_| bad())?;
        rest = &rest[digits..];
        let letters = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
        let unit: u64 = match &rest[..letters] {
            "d" => 86_400_000,
            "h" => 3_600_000,
            "m" => 60_000,
            "s" => 1_000,
            "ms" => 1,
            _ => return Err(bad()),
        };
        if unit >= last {
            return Err(bad());
        }
        last = unit;
        rest = &rest[letters..];
        sum += Duration::from_millis(number.checked_mul(unit).ok_or_else(bad)?);
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::{parse, text};
    use std::time::Duration;

    #[test]
    fn durations_are_read_as_they_are_written() {
        for ms in [0, 1, 250, 1000, 61_001, 3_600_000, 90_061_001, 86_400_000 * 40] {
            let d = Duration::from_millis(ms);
            assert_eq!(parse(&text(d)), Ok(d), "{}", text(d));
        }
        for bad in ["", "5", "s", "5x", "1s1m", "-1s", "1 s"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
