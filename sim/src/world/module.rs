//! How modules of a scenario behave: the built-in rules, and one scripted deviation each. Pure: equal questions to equal
//! modules have equal answers. No wasm, and no clock.

use tidegate_core::policy::builtin::{Rules, Setting};
use tidegate_core::policy::{
    Bandwidth, Binding, Candidate, Choice, Chosen, GiveUp, ModuleFacts, Ordering, PolicyFault, RetryAction,
    RetryQuery, RetryVerdict, SettingValue, Situation, Slot, UploadLimits, Waiting,
};
#[cfg(feature = "wasm-host")]
use tidegate_core::policy::{Question, Verdict};

#[cfg(feature = "wasm-host")]
use super::real;
use crate::scenario::{Conduct, ModuleSpec};

/// What a module says of a question: a verdict, or how it failed.
pub(super) type Said<T> = Result<T, PolicyFault>;

/// The word and the sentence of a rejection.
pub(super) type Refused = (&'static str, String);

impl ModuleSpec {
    /// Bytes of it, as somebody uploads it.
    pub(super) fn size(self) -> u64 {
        if self.conduct == Conduct::Huge { 64 << 20 } else { 20_000 + u64::from(self.n) }
    }

    /// What admission sees; or the word and the sentence of its rejection.
    pub(super) fn admitted(self) -> Result<ModuleFacts, Refused> {
        match self.conduct {
            Conduct::Huge => return Err(("too_large", format!("{} bytes", self.size()))),
            Conduct::Refused => return Err(("imports", "it imports wasi:clocks".to_string())),
            _ => {}
        }
        let slots = if self.conduct == Conduct::Narrow { vec![Slot::Retry] } else { Slot::ALL.to_vec() };
        let facts = ModuleFacts {
            size: self.size(),
            // Versions of one policy: what the number tells apart has one name.
            name: self.conduct.word().to_string(),
            version: self.n.to_string(),
            summary: "a module of a scenario".to_string(),
            slots,
            patience_ms: if self.n.is_multiple_of(3) { 300_000 } else { 0 },
            signed_by: None,
        };
        #[cfg(feature = "wasm-host")]
        let facts = real::facts(self, facts)?;
        Ok(facts)
    }

    /// The rules that it deviates from, in these settings; or why it does not take them.
    pub(super) fn seated(self, slot: Slot, binding: &Binding) -> Result<Seated, Refused> {
        if self.conduct == Conduct::Unfit {
            return Err(("configure", "it wants a setting that nobody gave".to_string()));
        }
        let mut rules = Rules::default();
        if self != ModuleSpec::DEFAULT {
            let n = u64::from(self.n % 4);
            rules.auto_scan = self.n % 2 == 1;
            rules.uploads = 1 + self.n % 3;
            (rules.retry_base_ms, rules.retry_cap_ms, rules.retry_jitter_ms) =
                (1_000 * (n + 1), 20_000, n * 500);
            rules.attempts = 2 + self.n % 4;
        }
        for (key, value) in &binding.settings {
            let set = match value {
                SettingValue::Flag(on) => rules.set(key, Setting::Flag(*on)),
                SettingValue::Int(n) => rules.set(key, Setting::Int(*n)),
                SettingValue::Text(_) => Err("must be a number, true or false"),
            };
            set.map_err(|why| ("configure", format!("{key} {why}")))?;
        }
        #[cfg(not(feature = "wasm-host"))]
        let _ = slot;
        Ok(Seated {
            spec: self,
            rules,
            #[cfg(feature = "wasm-host")]
            real: real::seat(self, slot, binding)?,
        })
    }
}

/// A module with its settings, ready to be asked.
#[derive(Clone, Debug)]
pub(super) struct Seated {
    pub(super) spec: ModuleSpec,
    rules: Rules,
    #[cfg(feature = "wasm-host")]
    real: Option<tidegate_policies::Sitting>,
}

impl Seated {
    /// A number that follows from the module and the seed of a question.
    fn luck(&self, seed: u64) -> u64 {
        let mut z = seed ^ (u64::from(self.spec.n) << 32) ^ 0x9E37_79B9_7F4A_7C15;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Whether it fails at a question, and how.
    fn fails(&self, seed: u64) -> Option<PolicyFault> {
        match self.spec.conduct {
            Conduct::Trap => Some(PolicyFault::Trap),
            Conduct::Flaky => self.luck(seed).is_multiple_of(4).then_some(PolicyFault::Trap),
            Conduct::Loop | Conduct::Bomb => Some(PolicyFault::Exhausted),
            Conduct::Garbled => Some(PolicyFault::Shape),
            Conduct::Late => self.luck(seed).is_multiple_of(3).then_some(PolicyFault::Timeout),
            Conduct::Fair
            | Conduct::Narrow
            | Conduct::Slow
            | Conduct::Refused
            | Conduct::Huge
            | Conduct::Unfit
            | Conduct::Idle
            | Conduct::Hesitant
            | Conduct::Greedy
            | Conduct::Absurd
            | Conduct::Memo
            | Conduct::Whim => None,
        }
    }

    fn memo(&self, seed: u64) -> u64 {
        match self.spec.conduct {
            Conduct::Memo | Conduct::Whim | Conduct::Hesitant | Conduct::Greedy => self.luck(seed) | 1,
            Conduct::Absurd => u64::MAX,
            _ => 0,
        }
    }

    pub(super) fn select(&self, situation: &Situation, candidates: &[Candidate]) -> Said<Vec<Chosen>> {
        #[cfg(feature = "wasm-host")]
        if let Some(sitting) = &self.real {
            let question = Question::AutoScan(situation.clone(), candidates.to_vec());
            return match real::ask(sitting, &question)? {
                Verdict::AutoScan(verdict) => Ok(verdict),
                _ => Err(PolicyFault::Shape),
            };
        }
        if let Some(fault) = self.fails(situation.seed) {
            return Err(fault);
        }
        let mut chosen = self.rules.select(situation, candidates);
        for (one, candidate) in chosen.iter_mut().zip(candidates) {
            one.choice = match self.spec.conduct {
                Conduct::Idle => Choice::Later,
                Conduct::Absurd => Choice::Skip,
                Conduct::Greedy => Choice::Enqueue,
                Conduct::Whim => match self.luck(situation.seed ^ candidate.episode) % 3 {
                    0 => Choice::Later,
                    1 => Choice::Skip,
                    _ => Choice::Enqueue,
                },
                _ => one.choice,
            };
        }
        Ok(chosen)
    }

    pub(super) fn retry(&self, query: &RetryQuery) -> Said<RetryVerdict> {
        #[cfg(feature = "wasm-host")]
        if let Some(sitting) = &self.real {
            let question = Question::Retry(query.clone());
            return match real::ask(sitting, &question)? {
                Verdict::Retry(verdict) => Ok(verdict),
                _ => Err(PolicyFault::Shape),
            };
        }
        if let Some(fault) = self.fails(query.seed) {
            return Err(fault);
        }
        let mut verdict = self.rules.retry(query);
        verdict.memo = self.memo(query.seed);
        verdict.action = match self.spec.conduct {
            // For ever, as far as it goes.
            Conduct::Greedy => RetryAction::After { delay_ms: 0 },
            // A day is what becomes of it; twice would be more than a world lasts.
            Conduct::Absurd if query.spent == 1 => RetryAction::After { delay_ms: u64::MAX },
            Conduct::Absurd => RetryAction::GiveUp(GiveUp::Hopeless),
            Conduct::Whim => match self.luck(query.seed) % 16 {
                // Once, so that somebody who takes it up again does not do so for ever.
                0..=3 if query.spent == 1 => RetryAction::Park,
                0..=3 => RetryAction::GiveUp(GiveUp::Hopeless),
                n => RetryAction::After { delay_ms: 1_500 * n },
            },
            _ => verdict.action,
        };
        Ok(verdict)
    }

    pub(super) fn limits(&self, situation: &Situation) -> Said<UploadLimits> {
        #[cfg(feature = "wasm-host")]
        if let Some(sitting) = &self.real {
            let question = Question::Concurrency(situation.clone());
            return match real::ask(sitting, &question)? {
                Verdict::Concurrency(verdict) => Ok(verdict),
                _ => Err(PolicyFault::Shape),
            };
        }
        if let Some(fault) = self.fails(situation.seed) {
            return Err(fault);
        }
        let mut verdict = self.rules.limits(situation);
        verdict.memo = self.memo(situation.seed);
        let luck = self.luck(situation.seed);
        match self.spec.conduct {
            Conduct::Idle => verdict.uploads = 0,
            Conduct::Hesitant if !luck.is_multiple_of(5) => {
                (verdict.uploads, verdict.recheck_ms) = (0, 1 + luck % 90_000);
            }
            Conduct::Greedy => (verdict.uploads, verdict.recheck_ms) = (u32::MAX, 1),
            Conduct::Absurd => (verdict.uploads, verdict.recheck_ms) = (u32::MAX, u64::MAX),
            Conduct::Whim => verdict.uploads = u32::try_from(luck % 4).unwrap_or(0),
            _ => {}
        }
        Ok(verdict)
    }

    pub(super) fn budget(&self, situation: &Situation) -> Said<Bandwidth> {
        #[cfg(feature = "wasm-host")]
        if let Some(sitting) = &self.real {
            let question = Question::Bandwidth(situation.clone());
            return match real::ask(sitting, &question)? {
                Verdict::Bandwidth(verdict) => Ok(verdict),
                _ => Err(PolicyFault::Shape),
            };
        }
        if let Some(fault) = self.fails(situation.seed) {
            return Err(fault);
        }
        let mut verdict = self.rules.budget(situation);
        verdict.memo = self.memo(situation.seed);
        match self.spec.conduct {
            Conduct::Greedy => (verdict.bytes_per_second, verdict.recheck_ms) = (None, 1),
            Conduct::Absurd => (verdict.bytes_per_second, verdict.recheck_ms) = (Some(u64::MAX), u64::MAX),
            Conduct::Idle => verdict.bytes_per_second = Some(1),
            Conduct::Whim => verdict.bytes_per_second = Some((64 << 10) << (self.luck(situation.seed) % 8)),
            _ => {}
        }
        Ok(verdict)
    }

    pub(super) fn score(&self, situation: &Situation, waiting: &[Waiting]) -> Said<Ordering> {
        #[cfg(feature = "wasm-host")]
        if let Some(sitting) = &self.real {
            let question = Question::Order(situation.clone(), waiting.to_vec());
            return match real::ask(sitting, &question)? {
                Verdict::Order(verdict) => Ok(verdict),
                _ => Err(PolicyFault::Shape),
            };
        }
        if let Some(fault) = self.fails(situation.seed) {
            return Err(fault);
        }
        let mut verdict = self.rules.score(situation, waiting);
        for (score, job) in verdict.scores.iter_mut().zip(waiting) {
            match self.spec.conduct {
                Conduct::Absurd => *score = if job.job.is_multiple_of(2) { i64::MIN } else { i64::MAX },
                Conduct::Whim | Conduct::Memo => {
                    *score = i64::from_ne_bytes(self.luck(situation.seed ^ job.job).to_ne_bytes());
                }
                Conduct::Greedy => *score = i64::try_from(job.size).unwrap_or(i64::MAX),
                Conduct::Idle => *score = 0,
                _ => {}
            }
        }
        Ok(verdict)
    }

    /// Whether what it does when it is asked is what its conduct is named for: counted as the fault that fired.
    pub(super) fn is_odd(&self) -> bool {
        !matches!(self.spec.conduct, Conduct::Fair | Conduct::Narrow | Conduct::Slow)
    }
}
