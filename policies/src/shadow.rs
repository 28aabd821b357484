//! A candidate beside the active module: asked the same, its answer compared and dropped. Never decides.

use std::collections::{BTreeMap, VecDeque};

use tidegate_core::digest::Sha256;
use tidegate_core::policy::{PolicyFault, Question, Slot, Verdict};

use crate::call::Trouble;
use crate::compare::differ;
use crate::figures::{FiguresReader, Histogram};
use crate::module::Sitting;

/// Differences that are kept: the newest.
const SAMPLES_MAX: usize = 32;
/// Jobs whose memory the candidate may have; those with the lowest numbers are forgotten first.
const MEMOS_MAX: usize = 1024;

/// So many timeouts in a row, and the candidate is asked no more: each costs whoever decides twice the time of the backstop.
const TIMEOUTS_MAX: u32 = 3;

/// A candidate on trial.
#[derive(Debug)]
pub struct Shadow {
    sitting: Sitting,
    /// In a row, up to now.
    timeouts: u32,
    /// Its own memory, not the active module's: of the site, and by job.
    memo: u64,
    memos: BTreeMap<u64, u64>,
}

/// What a candidate did so far.
#[derive(Clone, Debug)]
pub struct ShadowFigures {
    /// Where it would sit.
    pub slot: Slot,
    /// Who it is.
    pub module: Sha256,
    /// Questions it was asked.
    pub decisions: u64,
    /// Answers after which the site would have acted differently.
    pub different: u64,
    /// Questions it was not asked any more, since it had timed out three times in a row.
    pub muted: u64,
    /// Questions it did not answer, by the code of the fault.
    pub faults: BTreeMap<&'static str, u64>,
    /// Fuel of its decisions.
    pub fuel: Histogram,
    /// Microseconds of its decisions.
    pub micros: Histogram,
    /// The newest differences and faults.
    pub samples: VecDeque<Difference>,
}

/// One question on which the two did not agree.
#[derive(Clone, Debug)]
pub struct Difference {
    /// As the active module was asked.
    pub question: Question,
    /// What was decided.
    pub active: Verdict,
    /// What the candidate would have decided, or why it could not.
    pub candidate: Result<Verdict, Trouble>,
}

impl Shadow {
    /// Puts a candidate on trial.
    #[must_use]
    pub fn new(sitting: Sitting) -> Shadow {
        Shadow { sitting, timeouts: 0, memo: 0, memos: BTreeMap::new() }
    }

    /// The seat it would take.
    #[must_use]
    pub fn sitting(&self) -> &Sitting {
        &self.sitting
    }

    pub(crate) fn figures(&self) -> ShadowFigures {
        ShadowFigures {
            slot: self.sitting.slot(),
            module: self.sitting.module().hash(),
            decisions: 0,
            different: 0,
            muted: 0,
            faults: BTreeMap::new(),
            fuel: Histogram::fuel(),
            micros: Histogram::micros(),
            samples: VecDeque::new(),
        }
    }

    /// Asks the candidate what the active one just decided.
    pub(crate) fn consider(&mut self, question: &Question, active: Verdict, figures: &FiguresReader) {
        if self.timeouts >= TIMEOUTS_MAX {
            figures.lock().shadow.get_or_insert_with(|| self.figures()).muted += 1;
            return;
        }
        let own = self.with_own_memory(question);
        let asked = self.sitting.ask(&own);
        match &asked.outcome {
            Err(trouble) if trouble.fault == PolicyFault::Timeout => self.timeouts += 1,
            Err(_) => self.timeouts = 0,
            Ok((verdict, _)) => {
                self.timeouts = 0;
                self.remember(question, verdict);
            }
        }
        let mut figures = figures.lock();
        let seen = figures.shadow.get_or_insert_with(|| self.figures());
        seen.decisions += 1;
        seen.fuel.add(asked.fuel);
        seen.micros.add(u64::try_from(asked.took.as_micros()).unwrap_or(u64::MAX));
        let candidate = match asked.outcome {
            Ok((verdict, _)) => {
                if !differ(question, &active, &verdict) {
                    return;
                }
                seen.different += 1;
                Ok(verdict)
            }
            Err(trouble) => {
                *seen.faults.entry(trouble.fault.code()).or_default() += 1;
                Err(trouble)
            }
        };
        if seen.samples.len() == SAMPLES_MAX {
            seen.samples.pop_front();
        }
        seen.samples.push_back(Difference { question: own, active, candidate });
    }

    /// The question with what the candidate, not the active module, said last.
    fn with_own_memory(&self, question: &Question) -> Question {
        let mut own = question.clone();
        match &mut own {
            Question::Retry(query) => query.memo = self.memos.get(&query.job).copied().unwrap_or(0),
            Question::Concurrency(now) | Question::Bandwidth(now) => now.memo = self.memo,
            Question::AutoScan(..) | Question::Order(..) => {}
        }
        own
    }

    fn remember(&mut self, question: &Question, verdict: &Verdict) {
        match (question, verdict) {
            (Question::Retry(query), Verdict::Retry(verdict)) => {
                if self.memos.len() >= MEMOS_MAX && !self.memos.contains_key(&query.job) {
                    self.memos.pop_first();
                }
                self.memos.insert(query.job, verdict.memo);
            }
            (_, Verdict::Concurrency(verdict)) => self.memo = verdict.memo,
            (_, Verdict::Bandwidth(verdict)) => self.memo = verdict.memo,
            (_, Verdict::AutoScan(_) | Verdict::Retry(_) | Verdict::Order(_)) => {}
        }
    }
}
