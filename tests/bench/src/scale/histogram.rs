//! Durations in buckets of one sixteenth, so that millions of them cost nothing and can be added up over processes. Owns
//! the buckets; measures nothing.

use serde_json::{Value, json};

/// How often each duration was seen, in microseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram {
    counts: Vec<u64>,
    max: u64,
}

/// Longer ones count as this: a minute is a failure, however long it really was.
const LONGEST_US: u64 = 64 << 20;
/// Buckets per doubling.
const STEPS: u64 = 16;

impl Histogram {
    /// Nothing seen.
    pub fn new() -> Histogram {
        Histogram { counts: vec![0; bucket(LONGEST_US) + 1], max: 0 }
    }

    /// One more.
    pub fn add(&mut self, us: u64) {
        self.counts[bucket(us.min(LONGEST_US))] += 1;
        self.max = self.max.max(us);
    }

    /// How many.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The longest, exactly.
    pub fn max(&self) -> u64 {
        self.max
    }

    /// The duration that a share of them does not exceed, to one sixteenth; not a number if there are none.
    pub fn quantile(&self, share: f64) -> f64 {
        let rank = (self.count() as f64 * share).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (at, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return upper(at).min(self.max) as f64;
            }
        }
        f64::NAN
    }

    /// All that another one saw.
    pub fn merge(&mut self, other: &Histogram) {
        for (ours, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *ours += theirs;
        }
        self.max = self.max.max(other.max);
    }

    /// For another process: the buckets that are not empty.
    pub fn json(&self) -> Value {
        let counts = self.counts.iter().enumerate().filter(|(_, count)| **count > 0);
        json!({"max": self.max, "counts": counts.map(|(at, count)| json!([at, count])).collect::<Value>()})
    }

    /// What [`Histogram::json`] wrote; `None` if it is anything else.
    pub fn from_json(value: &Value) -> Option<Histogram> {
        let mut histogram = Histogram { max: value["max"].as_u64()?, ..Histogram::new() };
        for pair in value["counts"].as_array()? {
            let at = usize::try_from(pair[0].as_u64()?).ok()?;
            *histogram.counts.get_mut(at)? = pair[1].as_u64()?;
        }
        Some(histogram)
    }
}

fn bucket(us: u64) -> usize {
    let at = match us.checked_ilog2() {
        None | Some(0..=3) => us,
        Some(log) => u64::from(log - 3) * STEPS + ((us >> (log - 4)) & (STEPS - 1)),
    };
    usize::try_from(at).unwrap_or(usize::MAX)
}

/// The largest duration of a bucket.
fn upper(at: usize) -> u64 {
    let at = at as u64;
    if at < STEPS {
        return at;
    }
    let log = at / STEPS + 3;
    (((at % STEPS) + STEPS + 1) << (log - 4)) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_duration_falls_into_a_bucket_that_is_no_wider_than_a_sixteenth() {
        for us in (0..5_000).chain([65_535, 65_536, 1_000_000, 59_999_999, LONGEST_US]) {
            let at = bucket(us);
            assert!(upper(at) >= us, "{us} in {at}");
            assert!(at == 0 || upper(at - 1) < us, "{us} in {at}");
            assert!(upper(at) - us <= us / 16, "{us} in {at}");
        }
    }

    #[test]
    fn quantiles_are_those_of_what_was_added_also_after_a_journey() {
        let mut histogram = Histogram::new();
        assert!(histogram.quantile(0.5).is_nan());
        for us in 1..=100 {
            histogram.add(us * 1000);
        }
        histogram.add(120_000_000);
        let mut both = Histogram::new();
        both.merge(&Histogram::from_json(&histogram.json()).expect("it was just written"));
        assert_eq!(both, histogram);
        assert!((50_000.0..=54_000.0).contains(&both.quantile(0.5)), "{}", both.quantile(0.5));
        assert_eq!((both.count(), both.max()), (101, 120_000_000));
    }
}
