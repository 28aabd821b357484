//! What a module may use at most: the site's own limits, and those a signed manifest lowers. Enforces nothing itself.

use std::time::Duration;

use tidegate_core::policy::{Question, Slot};

/// The site's limits. They hold for every module; a manifest can only lower them ([`Limits`]).
///
/// Fuel is wasmtime's count of executed instructions, the same on every machine; bulk instructions cost one per byte. A
/// million is about two milliseconds of an empty loop, the slowest there is per instruction. Each phase has a budget of its own, so that a slow start cannot eat the decision's:
/// `describe` (instantiate and describe, at admission only), `start` (instantiate and configure, before each decision)
/// and the decision itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ceilings {
    /// Bytes of a module.
    pub bytes: usize,
    /// Bytes of all linear memories of an instance together.
    pub memory: usize,
    /// Elements of all tables of an instance together.
    pub table_elements: usize,
    /// Bytes that one call may hand to the site.
    pub result_bytes: usize,
    /// Bytes of log that one decision may write; what is beyond is cut off.
    pub log_bytes: usize,
    /// Time by the clock after which a call is interrupted, in case fuel did not end it. Rounded up to [`crate::TICK`].
    pub wall: Duration,
    /// Fuel to instantiate and describe.
    pub describe_fuel: u64,
    /// Fuel to instantiate and configure, before each decision.
    pub start_fuel: u64,
    /// Fuel of a decision.
    pub fuel: u64,
    /// Fuel on top per episode that auto-scan is asked about.
    pub fuel_per_episode: u64,
    /// Fuel on top per job that order is asked about.
    pub fuel_per_job: u64,
}

impl Default for Ceilings {
    /// 256 KiB of module, 1 MiB of memory, 10,000 table elements, 256 KiB of result, 4 KiB of log, 250 ms; a million of
    /// fuel for a decision and for a start, five million to describe, 20,000 more per episode and 5,000 per job.
    fn default() -> Ceilings {
        Ceilings {
            bytes: 256 << 10,
            memory: 1 << 20,
            table_elements: 10_000,
            result_bytes: 256 << 10,
            log_bytes: 4 << 10,
            wall: Duration::from_millis(250),
            describe_fuel: 5_000_000,
            start_fuel: 1_000_000,
            fuel: 1_000_000,
            // Measured need of the built-in rules per item: 1,341. Fifteen times as much leaves room for labels.
            fuel_per_episode: 20_000,
            fuel_per_job: 5_000,
        }
    }
}

/// Limits of a manifest. None leaves the site's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Fuel of a decision, without what each episode or job adds.
    pub fuel: Option<u64>,
    /// Bytes of all linear memories together.
    pub memory: Option<u64>,
    /// Bytes that one call may hand to the site.
    pub result_bytes: Option<u64>,
}

impl Ceilings {
    /// The lower of both.
    #[must_use]
    pub fn lowered(&self, limits: &Limits) -> Ceilings {
        let least = |own: usize, other: Option<u64>| match other {
            Some(other) => own.min(usize::try_from(other).unwrap_or(usize::MAX)),
            None => own,
        };
        Ceilings {
            fuel: limits.fuel.map_or(self.fuel, |fuel| fuel.min(self.fuel)),
            memory: least(self.memory, limits.memory),
            result_bytes: least(self.result_bytes, limits.result_bytes),
            ..self.clone()
        }
    }

    /// Fuel for the answer to a question.
    #[must_use]
    pub fn fuel_for(&self, question: &Question) -> u64 {
        let items = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        let more = match question {
            Question::AutoScan(_, batch) => self.fuel_per_episode.saturating_mul(items(batch.len())),
            Question::Order(_, batch) => self.fuel_per_job.saturating_mul(items(batch.len())),
            Question::Retry(_) | Question::Concurrency(_) | Question::Bandwidth(_) => 0,
        };
        self.fuel.saturating_add(more)
    }

    /// Fuel of a hook and of each item on top, for people.
    #[must_use]
    pub fn fuel_of(&self, slot: Slot) -> (u64, u64) {
        let more = match slot {
            Slot::AutoScan => self.fuel_per_episode,
            Slot::Order => self.fuel_per_job,
            Slot::Retry | Slot::Concurrency | Slot::Bandwidth => 0,
        };
        (self.fuel, more)
    }
}
