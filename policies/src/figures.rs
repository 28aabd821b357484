//! Counts per seat: decisions by reason, faults by kind, fuel and time. Kept beside the decisions; nothing depends on them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tidegate_core::digest::Sha256;
use tidegate_core::policy::{PolicyFault, Slot, UNSPECIFIED, Verdict};

use crate::call::Asked;
use crate::engine::Level;
use crate::shadow::ShadowFigures;

/// Seats that are counted at once; the one that was silent the longest makes room for a new one.
pub const SEATS_MAX: usize = 64;
/// Lines of logs that wait to be fetched; the oldest are dropped.
const SAID_MAX: usize = 256;

/// Upper bounds of fuel.
const FUEL: [u64; 10] =
    [300, 1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000, 3_000_000, 10_000_000];
/// Upper bounds of microseconds.
const MICROS: [u64; 12] = [10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 50_000, 250_000];

/// A distribution over fixed bounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram {
    /// Upper bounds, ascending; one more bucket is above the last.
    pub bounds: &'static [u64],
    /// How many fell into each bucket, not cumulative.
    pub counts: Vec<u64>,
    /// Of all values.
    pub sum: u64,
}

impl Histogram {
    /// An empty distribution.
    #[must_use]
    pub fn new(bounds: &'static [u64]) -> Histogram {
        Histogram { bounds, counts: vec![0; bounds.len() + 1], sum: 0 }
    }

    /// Of fuel.
    #[must_use]
    pub fn fuel() -> Histogram {
        Histogram::new(&FUEL)
    }

    /// Of microseconds.
    #[must_use]
    pub fn micros() -> Histogram {
        Histogram::new(&MICROS)
    }

    /// Counts a value.
    pub fn add(&mut self, value: u64) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        if let Some(count) = self.counts.get_mut(bucket) {
            *count += 1;
        }
        self.sum = self.sum.saturating_add(value);
    }

    /// How many values.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

/// Counts of a module in a slot, or of the built-in rules there.
#[derive(Clone, Debug)]
pub struct SeatFigures {
    /// Questions that were answered.
    pub decisions: u64,
    /// They, by the word of the reason; of a list, its most frequent.
    pub reasons: BTreeMap<String, u64>,
    /// Questions that were not answered, by the code of the fault.
    pub faults: BTreeMap<&'static str, u64>,
    /// The last fault, for people.
    pub last_fault: Option<(PolicyFault, String)>,
    /// Fuel of a decision; empty for the built-in rules.
    pub fuel: Histogram,
    /// Microseconds of a decision; empty for the built-in rules.
    pub micros: Histogram,
    turn: u64,
}

/// A line that a module wrote to its log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// Where it sat.
    pub slot: Slot,
    /// Who.
    pub module: Sha256,
    /// How grave.
    pub level: Level,
    /// What.
    pub text: String,
}

/// All counts of a shelf.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// By slot and module; none is the built-in rules.
    pub seats: BTreeMap<(Slot, Option<Sha256>), SeatFigures>,
    /// What the candidate beside the active module did, while there is one.
    pub shadow: Option<ShadowFigures>,
    said: VecDeque<Said>,
    turns: u64,
}

impl Figures {
    fn seat(&mut self, slot: Slot, module: Option<Sha256>) -> &mut SeatFigures {
        self.turns += 1;
        let turn = self.turns;
        let key = (slot, module);
        if self.seats.len() >= SEATS_MAX && !self.seats.contains_key(&key) {
            let silent = self.seats.iter().min_by_key(|(_, seat)| seat.turn).map(|(key, _)| *key);
            if let Some(silent) = silent {
                self.seats.remove(&silent);
            }
        }
        let seat = self.seats.entry(key).or_insert_with(|| SeatFigures {
            decisions: 0,
            reasons: BTreeMap::new(),
            faults: BTreeMap::new(),
            last_fault: None,
            fuel: Histogram::fuel(),
            micros: Histogram::micros(),
            turn,
        });
        seat.turn = turn;
        seat
    }

    /// The built-in rules decided.
    pub(crate) fn native(&mut self, slot: Slot, verdict: &Verdict, words: &[String]) {
        let seat = self.seat(slot, None);
        seat.decisions += 1;
        count(&mut seat.reasons, word(verdict, words));
    }

    /// A module was asked.
    pub(crate) fn asked(&mut self, slot: Slot, module: Sha256, asked: &Asked) {
        let seat = self.seat(slot, Some(module));
        match &asked.outcome {
            Ok((verdict, words)) => {
                seat.decisions += 1;
                count(&mut seat.reasons, word(verdict, words));
            }
            Err(trouble) => {
                *seat.faults.entry(trouble.fault.code()).or_default() += 1;
                seat.last_fault = Some((trouble.fault, trouble.detail.clone()));
            }
        }
        seat.fuel.add(asked.fuel);
        seat.micros.add(u64::try_from(asked.took.as_micros()).unwrap_or(u64::MAX));
        for (level, text) in &asked.log {
            if self.said.len() == SAID_MAX {
                self.said.pop_front();
            }
            self.said.push_back(Said { slot, module, level: *level, text: text.clone() });
        }
    }
}

fn count(reasons: &mut BTreeMap<String, u64>, word: &str) {
    match reasons.get_mut(word) {
        Some(count) => *count += 1,
        None => {
            reasons.insert(word.to_owned(), 1);
        }
    }
}

/// The word of a verdict's reason; of a list, the most frequent one, and of those the lowest.
fn word<'a>(verdict: &Verdict, words: &'a [String]) -> &'a str {
    let reason = match verdict {
        Verdict::AutoScan(choices) => {
            let mut counts: BTreeMap<u16, usize> = BTreeMap::new();
            for chosen in choices {
                *counts.entry(chosen.reason).or_default() += 1;
            }
            counts.into_iter().rev().max_by_key(|(_, count)| *count).map_or(0, |(reason, _)| reason)
        }
        Verdict::Retry(verdict) => verdict.reason,
        Verdict::Concurrency(verdict) => verdict.reason,
        Verdict::Bandwidth(verdict) => verdict.reason,
        Verdict::Order(verdict) => verdict.reason,
    };
    usize::from(reason).checked_sub(1).and_then(|n| words.get(n)).map_or(UNSPECIFIED, String::as_str)
}

/// Reads the counts of a shelf from another thread.
#[derive(Clone, Debug, Default)]
pub struct FiguresReader {
    shared: Arc<Mutex<Figures>>,
}

impl FiguresReader {
    /// The counts as they are now.
    #[must_use]
    pub fn read(&self) -> Figures {
        let mut figures = self.lock().clone();
        figures.said.clear();
        figures
    }

    /// What modules wrote to their logs since the last call; the oldest lines are missing if there were very many.
    #[must_use]
    pub fn said(&self) -> Vec<Said> {
        self.lock().said.drain(..).collect()
    }

    /// Counts stay counts, even if a thread died while it held them.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Figures> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_core::policy::{Choice, Chosen};

    #[test]
    fn a_value_falls_into_the_first_bucket_that_holds_it() {
        let mut histogram = Histogram::new(&[10, 100]);
        for value in [0, 10, 11, 100, 101, u64::MAX] {
            histogram.add(value);
        }
        assert_eq!(histogram.counts, [2, 2, 2]);
        assert_eq!((histogram.count(), histogram.sum), (6, u64::MAX));
    }

    #[test]
    fn the_reason_of_a_list_is_the_most_frequent_and_of_those_the_lowest() {
        let words = [String::from("one"), String::from("two")];
        let list = |reasons: &[u16]| {
            Verdict::AutoScan(reasons.iter().map(|r| Chosen { choice: Choice::Later, reason: *r }).collect())
        };
        assert_eq!(word(&list(&[1, 2, 2]), &words), "two");
        assert_eq!(word(&list(&[2, 1, 2, 1]), &words), "one");
        assert_eq!(word(&list(&[]), &words), UNSPECIFIED);
        assert_eq!(word(&list(&[0, 0, 1]), &words), UNSPECIFIED);
    }

    #[test]
    fn the_seat_that_was_silent_the_longest_makes_room() {
        let mut figures = Figures::default();
        for n in 0..SEATS_MAX {
            figures.native(Slot::Order, &Verdict::AutoScan(Vec::new()), &[]);
            let hash = Sha256::of(&n.to_be_bytes());
            figures.seat(Slot::Retry, Some(hash));
        }
        assert_eq!(figures.seats.len(), SEATS_MAX);
        assert!(figures.seats.contains_key(&(Slot::Order, None)));
        assert!(!figures.seats.contains_key(&(Slot::Retry, Some(Sha256::of(&0_usize.to_be_bytes())))));
    }
}
