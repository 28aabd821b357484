//! Policies that answer anything a type allows, as a function of the question alone. None of it may break an invariant.

use std::prelude::v1::*;
use std::vec;

use crate::policy::{
    Bandwidth, Builtin, Candidate, Choice, GiveUp, Policies, RetryQuery, RetryVerdict, Ruling, Situation,
    UploadLimits, Waiting,
};

/// Policies gone wild.
pub(super) struct Wild(pub(super) Builtin);

impl Policies for Wild {
    fn select(&mut self, situation: &Situation, candidates: &[Candidate]) -> Ruling<Vec<Choice>> {
        let mut ruling = self.0.select(situation, candidates);
        // Too few, or too many.
        ruling.verdict = vec![Choice::Enqueue; (situation.wall_ms % 5).unsigned_abs() as usize];
        ruling
    }

    fn retry(&mut self, query: &RetryQuery) -> Ruling<RetryVerdict> {
        let mut ruling = self.0.retry(query);
        ruling.verdict = match query.seed % 8 {
            0 => RetryVerdict::Park,
            1 => RetryVerdict::GiveUp(GiveUp::Hopeless),
            2 => RetryVerdict::After { delay_ms: 0 },
            3 => RetryVerdict::After { delay_ms: u64::MAX },
            4 => RetryVerdict::GiveUp(GiveUp::Exhausted),
            _ => RetryVerdict::After { delay_ms: 5_000 },
        };
        ruling
    }

    fn limits(&mut self, situation: &Situation) -> Ruling<UploadLimits> {
        let mut ruling = self.0.limits(situation);
        ruling.verdict.uploads = [0, 1, 2, u32::MAX][(situation.wall_ms % 4).unsigned_abs() as usize];
        ruling
    }

    fn budget(&mut self, situation: &Situation) -> Ruling<Bandwidth> {
        let mut ruling = self.0.budget(situation);
        ruling.verdict.bytes_per_second = [None, Some(0), Some(1), Some(1 << 20), Some(u64::MAX)]
            [(situation.wall_ms % 5).unsigned_abs() as usize];
        ruling
    }

    fn score(&mut self, situation: &Situation, waiting: &[Waiting]) -> Ruling<Vec<i64>> {
        let mut ruling = self.0.score(situation, waiting);
        match situation.wall_ms % 3 {
            0 => ruling.verdict.clear(),
            1 => ruling.verdict.push(i64::MIN),
            _ => ruling.verdict.reverse(),
        }
        ruling
    }
}
