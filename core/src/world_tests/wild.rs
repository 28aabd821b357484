//! Policies that answer anything a type allows, as a function of the question alone. None of it may break an invariant.

use std::prelude::v1::*;
use std::vec;

use crate::policy::{
    Bandwidth, Builtin, Candidate, Choice, Chosen, GiveUp, Ordering, Policies, RetryAction, RetryQuery,
    RetryVerdict, Ruling, Situation, UploadLimits, Waiting,
};

/// Policies gone wild.
pub(super) struct Wild(pub(super) Builtin);

impl Policies for Wild {
    fn select(&mut self, situation: &Situation, candidates: &[Candidate]) -> Ruling<Vec<Chosen>> {
        let mut ruling = self.0.select(situation, candidates);
        // Too few, or too many.
        ruling.verdict =
            vec![Chosen { choice: Choice::Enqueue, reason: 1 }; usize::from(situation.minute_of_week % 5)];
        ruling
    }

    fn retry(&mut self, query: &RetryQuery) -> Ruling<RetryVerdict> {
        let mut ruling = self.0.retry(query);
        ruling.verdict.action = match query.seed % 8 {
            0 => RetryAction::Park,
            1 => RetryAction::GiveUp(GiveUp::Hopeless),
            2 => RetryAction::After { delay_ms: 0 },
            3 => RetryAction::After { delay_ms: u64::MAX },
            4 => RetryAction::GiveUp(GiveUp::Exhausted),
            _ => RetryAction::After { delay_ms: 5_000 },
        };
        ruling
    }

    fn limits(&mut self, situation: &Situation) -> Ruling<UploadLimits> {
        let mut ruling = self.0.limits(situation);
        ruling.verdict.uploads = [0, 1, 2, u32::MAX][usize::from(situation.minute_of_week % 4)];
        ruling
    }

    fn budget(&mut self, situation: &Situation) -> Ruling<Bandwidth> {
        let mut ruling = self.0.budget(situation);
        ruling.verdict.bytes_per_second = [None, Some(0), Some(1), Some(1 << 20), Some(u64::MAX)]
            [usize::from(situation.minute_of_week % 5)];
        ruling
    }

    fn score(&mut self, situation: &Situation, waiting: &[Waiting]) -> Ruling<Ordering> {
        let mut ruling = self.0.score(situation, waiting);
        match situation.minute_of_week % 3 {
            0 => ruling.verdict.scores.clear(),
            1 => ruling.verdict.scores.push(i64::MIN),
            _ => ruling.verdict.scores.reverse(),
        }
        ruling
    }
}
