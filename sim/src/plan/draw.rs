//! Ways to draw that a plan needs. Durations are whole milliseconds, so that a scenario file can say them.

use std::time::Duration;

use crate::stream::Stream;

/// A duration between two numbers of milliseconds.
pub(super) fn span(chance: &mut Stream, low_ms: u64, high_ms: u64) -> Duration {
    Duration::from_millis(chance.between(low_ms, high_ms))
}

/// A number between two, each order of magnitude as likely as another. `low` is above 0.
pub(super) fn scaled(chance: &mut Stream, low: u64, high: u64) -> u64 {
    let doublings = (high / low).max(1).ilog2();
    let from = low << chance.below(u64::from(doublings) + 1);
    chance.between(from, from.saturating_mul(2).min(high))
}

/// A duration between two numbers of milliseconds, each order of magnitude as likely as another.
pub(super) fn scaled_span(chance: &mut Stream, low_ms: u64, high_ms: u64) -> Duration {
    Duration::from_millis(scaled(chance, low_ms, high_ms))
}

/// A duration with a mean and a long tail, at least a millisecond and at most `max`.
pub(super) fn tail(chance: &mut Stream, mean: Duration, max: Duration) -> Duration {
    let drawn = chance.tail(mean).min(max).max(Duration::from_millis(1));
    whole(drawn)
}

/// Some of them, at least one if there is any: the share is drawn first, so that there are seeds with one kind and seeds
/// with most.
pub(super) fn subset<T: Copy>(chance: &mut Stream, all: &[T]) -> Vec<T> {
    let share = *chance.pick(&[80, 160, 320, 640]);
    let some: Vec<T> = all.iter().copied().filter(|_| chance.permille(share)).collect();
    if some.is_empty() && !all.is_empty() { vec![*chance.pick(all)] } else { some }
}

/// An index of something of this length; 0 if it is empty.
pub(super) fn index(chance: &mut Stream, len: usize) -> usize {
    usize::try_from(chance.below(len as u64)).unwrap_or(0)
}

/// Whole milliseconds of a duration.
pub(super) fn millis(d: Duration) -> u64 {
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX)
}

/// Cut down to whole milliseconds.
pub(super) fn whole(d: Duration) -> Duration {
    Duration::from_millis(millis(d))
}
