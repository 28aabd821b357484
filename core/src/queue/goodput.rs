//! Bytes that the store acknowledged lately, second by second. Volatile; for policies.

use alloc::collections::VecDeque;

use crate::time::Mono;

/// Seconds that count.
const WINDOW_S: u64 = 60;
const NANOS: u64 = 1_000_000_000;

/// Bytes by the second in which they were acknowledged, the oldest first: at most [`WINDOW_S`] and one more.
#[derive(Debug, Default)]
pub(super) struct Goodput {
    seconds: VecDeque<(u64, u64)>,
}

impl Goodput {
    /// The store acknowledged bytes.
    pub(super) fn add(&mut self, now: Mono, bytes: u64) {
        let second = now.0 / NANOS;
        while self.seconds.front().is_some_and(|(old, _)| old.saturating_add(WINDOW_S) < second) {
            self.seconds.pop_front();
        }
        match self.seconds.back_mut() {
            Some((last, sum)) if *last == second => *sum = sum.saturating_add(bytes),
            Some(_) | None => self.seconds.push_back((second, bytes)),
        }
    }

    /// Bytes per second over the last minute.
    pub(super) fn rate(&self, now: Mono) -> u64 {
        let second = now.0 / NANOS;
        let counts = |(at, _): &&(u64, u64)| at.saturating_add(WINDOW_S) > second;
        let sum =
            self.seconds.iter().filter(counts).fold(0_u64, |sum, (_, bytes)| sum.saturating_add(*bytes));
        sum / WINDOW_S
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Mono {
        Mono(seconds * NANOS + 7)
    }

    #[test]
    fn the_rate_is_that_of_the_last_minute_and_what_is_kept_is_bounded() {
        let mut goodput = Goodput::default();
        assert_eq!(goodput.rate(at(5)), 0);
        for second in 0..1_000 {
            goodput.add(at(second), 30);
            goodput.add(at(second), 90);
            assert!(goodput.seconds.len() <= 61, "{}", goodput.seconds.len());
        }
        assert_eq!(goodput.rate(at(999)), 120);
        assert_eq!(goodput.rate(at(999 + 30)), 60, "half of the minute is over");
        assert_eq!(goodput.rate(at(999 + 60)), 0);
        goodput.add(at(2_000), u64::MAX);
        goodput.add(at(2_000), u64::MAX);
        assert_eq!(goodput.rate(at(2_000)), u64::MAX / 60, "a number too large is no panic");
    }
}
