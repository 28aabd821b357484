//! Keyed random streams: every chance of a world is drawn from a stream named by what it concerns, so that taking one
//! fault or one device away shifts nothing that concerns the others. Must not be drawn from in an order that another
//! entity could change.

use std::time::Duration;

use tidegate_core::chance::Chance;

/// A stream of chances that follows from a seed and a name.
#[derive(Clone, Debug)]
pub struct Stream {
    chance: Chance,
}

impl Stream {
    /// The stream of `name` and `n` (an index within the name: a device, a message, a try) under a seed.
    #[must_use]
    pub fn new(seed: u64, name: &str, n: u64) -> Stream {
        // FNV-1a over the name, then two rounds of the generator's own mixing: names that differ in one letter, and
        // neighbouring numbers, give unrelated streams.
        let mut hash = 0xcbf2_9ce4_8422_2325_u64 ^ seed;
        for byte in name.bytes() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        let mut outer = Chance::new(hash ^ seed.rotate_left(32));
        let mut inner = Chance::new(outer.next_u64() ^ n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        Stream { chance: Chance::new(inner.next_u64()) }
    }

    /// The next number.
    pub fn next_u64(&mut self) -> u64 {
        self.chance.next_u64()
    }

    /// A number in `0..bound`; 0 if the bound is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.chance.below(bound)
    }

    /// A number in `low..=high`; `low` if there is none between.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        if high <= low { low } else { low + self.below(high - low + 1) }
    }

    /// True so many times in a thousand.
    pub fn permille(&mut self, share: u64) -> bool {
        self.below(1000) < share
    }

    /// True once in so many times.
    pub fn one_in(&mut self, times: u64) -> bool {
        self.below(times.max(1)) == 0
    }

    /// One of these.
    ///
    /// # Panics
    /// If there is none.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        let at = usize::try_from(self.below(from.len() as u64)).expect("below a length");
        &from[at]
    }

    /// A duration between two, in whole microseconds.
    pub fn duration(&mut self, low: Duration, high: Duration) -> Duration {
        let micros = |d: Duration| u64::try_from(d.as_micros()).unwrap_or(u64::MAX / 2);
        Duration::from_micros(self.between(micros(low), micros(high)))
    }

    /// A duration with this mean and a long tail: each doubling is half as likely, at most 64 times the mean.
    pub fn tail(&mut self, mean: Duration) -> Duration {
        let micros = u64::try_from(mean.as_micros()).unwrap_or(u64::MAX / 256);
        let mut scale = micros / 2;
        while scale < micros.saturating_mul(64) && self.below(2) == 0 {
            scale = scale.saturating_mul(2);
        }
        Duration::from_micros(self.between(scale / 2, scale))
    }

    /// Puts them into some order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for at in (1..items.len()).rev() {
            let other = usize::try_from(self.below(at as u64 + 1)).expect("below a length");
            items.swap(at, other);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Stream;

    #[test]
    fn streams_of_other_names_numbers_and_seeds_differ() {
        let first = |seed, name, n| Stream::new(seed, name, n).next_u64();
        let all = [first(1, "a", 0), first(1, "a", 1), first(1, "b", 0), first(2, "a", 0), first(0, "", 0)];
        for (at, one) in all.iter().enumerate() {
            assert!(!all[..at].contains(one));
        }
        assert_eq!(first(1, "a", 0), first(1, "a", 0));
    }
}
