//! Policies that answer anything a type allows, as a function of the question alone. None of it may break an invariant.

use std::prelude::v1::*;

use crate::chance::Chance;
use crate::policy::{
    Author, Bandwidth, Builtin, Candidate, Choice, Chosen, GiveUp, Ordering, Policies, PolicyFault,
    RetryAction, RetryQuery, RetryVerdict, Ruling, Situation, UploadLimits, Waiting,
};

/// Policies gone wild.
pub(crate) struct Wild(pub(crate) Builtin);

const FAULTS: [PolicyFault; 6] = [
    PolicyFault::Trap,
    PolicyFault::Exhausted,
    PolicyFault::Shape,
    PolicyFault::Missing,
    PolicyFault::Timeout,
    PolicyFault::Stalled,
];

fn one_of<T: Copy>(luck: &mut Chance, from: &[T]) -> T {
    from[usize::try_from(luck.below(from.len() as u64)).expect("small")]
}

/// Zero, too little, something, too much.
fn wait(luck: &mut Chance) -> u64 {
    one_of(luck, &[0, 1, 5_000, 90_000, u64::MAX])
}

/// Nothing, anything.
fn note(luck: &mut Chance) -> u64 {
    [0, luck.next_u64(), u64::MAX][usize::try_from(luck.below(3)).expect("small")]
}

fn reason(luck: &mut Chance) -> u16 {
    one_of(luck, &[0, 1, 7, 8, u16::MAX])
}

impl Wild {
    /// Now and then a guest breaks, and the built-in rules answer; else `spoil` makes something of their verdict.
    fn rule<T>(
        &self,
        luck: &mut Chance,
        mut ruling: Ruling<T>,
        spoil: impl FnOnce(&mut Chance, &mut T),
    ) -> Ruling<T> {
        if luck.below(8) == 0 {
            ruling.by = Author::Builtin { instead_of: self.0.id(), why: one_of(luck, &FAULTS) };
        } else {
            spoil(luck, &mut ruling.verdict);
        }
        ruling
    }
}

impl Policies for Wild {
    fn select(&mut self, situation: &Situation, candidates: &[Candidate]) -> Ruling<Vec<Chosen>> {
        let ruling = self.0.select(situation, candidates);
        self.rule(&mut Chance::new(situation.seed), ruling, |luck, chosen| {
            // Too few, or too many.
            let count = luck.below(candidates.len() as u64 + 3);
            let most = [Choice::Enqueue, Choice::Enqueue, Choice::Later, Choice::Skip];
            *chosen =
                (0..count).map(|_| Chosen { choice: one_of(luck, &most), reason: reason(luck) }).collect();
        })
    }

    fn retry(&mut self, query: &RetryQuery) -> Ruling<RetryVerdict> {
        let ruling = self.0.retry(query);
        self.rule(&mut Chance::new(query.seed), ruling, |luck, verdict| {
            let action = match luck.below(8) {
                0 => RetryAction::Park,
                1 => RetryAction::GiveUp(GiveUp::Hopeless),
                2 => RetryAction::After { delay_ms: 0 },
                3 => RetryAction::After { delay_ms: u64::MAX },
                4 => RetryAction::GiveUp(GiveUp::Exhausted),
                _ => RetryAction::After { delay_ms: 5_000 },
            };
            *verdict = RetryVerdict { action, memo: note(luck), reason: reason(luck) };
        })
    }

    fn limits(&mut self, situation: &Situation) -> Ruling<UploadLimits> {
        let ruling = self.0.limits(situation);
        self.rule(&mut Chance::new(situation.seed), ruling, |luck, limits| {
            let uploads = one_of(luck, &[0, 0, 1, 2, u32::MAX]);
            *limits =
                UploadLimits { uploads, recheck_ms: wait(luck), memo: note(luck), reason: reason(luck) };
        })
    }

    fn budget(&mut self, situation: &Situation) -> Ruling<Bandwidth> {
        let ruling = self.0.budget(situation);
        self.rule(&mut Chance::new(situation.seed), ruling, |luck, budget| {
            let speeds = [None, Some(0), Some(1), Some(1 << 20), Some(u64::MAX)];
            *budget = Bandwidth {
                bytes_per_second: one_of(luck, &speeds),
                recheck_ms: wait(luck),
                memo: note(luck),
                reason: reason(luck),
            };
        })
    }

    fn score(&mut self, situation: &Situation, waiting: &[Waiting]) -> Ruling<Ordering> {
        let ruling = self.0.score(situation, waiting);
        self.rule(&mut Chance::new(situation.seed), ruling, |luck, ordering| {
            match luck.below(4) {
                0 => ordering.scores.clear(),
                1 => ordering.scores.push(i64::MIN),
                2 => ordering.scores.iter_mut().for_each(|score| *score = luck.next_u64().cast_signed()),
                _ => ordering.scores.reverse(),
            }
            ordering.reason = reason(luck);
        })
    }
}
