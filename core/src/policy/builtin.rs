//! The built-in policies: the floor when a guest fails, and the reference for the default guest.

use alloc::vec;
use alloc::vec::Vec;
use minicbor::{Decode, Encode};

use crate::digest::Sha256;
use crate::id::PolicySetId;
use crate::policy::{
    Author, Bandwidth, Candidate, Choice, GiveUp, Policies, RetryQuery, RetryVerdict, Ruling, Situation,
    UploadLimits, Waiting,
};

/// Settings of the built-in policies. Durations are milliseconds.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Settings {
    /// Queue every approved episode without being asked.
    #[n(0)]
    pub auto_scan: bool,
    /// Delay after the first failed attempt; it doubles with each one.
    #[n(1)]
    pub retry_base_ms: u64,
    /// Longest delay, jitter included.
    #[n(2)]
    pub retry_cap_ms: u64,
    /// Largest jitter added to a delay.
    #[n(3)]
    pub retry_jitter_ms: u64,
    /// Attempts in all.
    #[n(4)]
    pub attempts: u32,
    /// Uploads at once.
    #[n(5)]
    pub uploads: u32,
    /// Bytes per second over all uploads; `None` is no limit.
    #[n(6)]
    pub bytes_per_second: Option<u64>,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            auto_scan: false,
            retry_base_ms: 30_000,
            retry_cap_ms: 1_800_000,
            retry_jitter_ms: 30_000,
            attempts: 5,
            uploads: 2,
            bytes_per_second: None,
        }
    }
}

/// The built-in policies with their settings.
#[derive(Clone, Debug)]
pub struct Builtin {
    settings: Settings,
    id: PolicySetId,
}

impl Builtin {
    /// The set with these settings. Its id covers the settings and the version of the rules.
    #[must_use]
    pub fn new(settings: Settings) -> Builtin {
        let named =
            minicbor::to_vec(("tidegate-builtin/1", &settings)).expect("writing to a vector cannot fail");
        Builtin { id: PolicySetId(Sha256::of(&named).0), settings }
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> PolicySetId {
        self.id
    }

    fn rule<T>(&self, verdict: T) -> Ruling<T> {
        Ruling { verdict, by: Author::Set(self.id) }
    }
}

impl Policies for Builtin {
    fn select(&mut self, _: &Situation, candidates: &[Candidate]) -> Ruling<Vec<Choice>> {
        let choice = if self.settings.auto_scan { Choice::Enqueue } else { Choice::Later };
        self.rule(vec![choice; candidates.len()])
    }

    fn retry(&mut self, query: &RetryQuery) -> Ruling<RetryVerdict> {
        if query.spent >= self.settings.attempts {
            return self.rule(RetryVerdict::GiveUp(GiveUp::Exhausted));
        }
        // min(base · 2^(k-1), cap) plus jitter, and the sum within the cap again.
        let doublings = query.spent.saturating_sub(1).min(20);
        let delay =
            self.settings.retry_base_ms.saturating_mul(1 << doublings).min(self.settings.retry_cap_ms);
        let jitter =
            crate::chance::Chance::new(query.seed).below(self.settings.retry_jitter_ms.saturating_add(1));
        let delay_ms = delay.saturating_add(jitter).min(self.settings.retry_cap_ms);
        self.rule(RetryVerdict::After { delay_ms })
    }

    fn limits(&mut self, _: &Situation) -> Ruling<UploadLimits> {
        self.rule(UploadLimits { uploads: self.settings.uploads })
    }

    fn budget(&mut self, _: &Situation) -> Ruling<Bandwidth> {
        self.rule(Bandwidth { bytes_per_second: self.settings.bytes_per_second })
    }

    fn score(&mut self, _: &Situation, waiting: &[Waiting]) -> Ruling<Vec<i64>> {
        // Oldest first: since it was approved; the core breaks ties by job number.
        self.rule(waiting.iter().map(|w| i64::try_from(w.approved_ago_ms).unwrap_or(i64::MAX)).collect())
    }
}
