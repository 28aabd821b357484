//! The built-in policies as a set: the floor that always answers.

use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use minicbor::{Decode, Encode};

use crate::digest::Sha256;
use crate::id::PolicySetId;
use crate::policy::builtin::{REASONS, Rules};
use crate::policy::question::{
    Bandwidth, Candidate, Chosen, Ordering, RetryQuery, RetryVerdict, Situation, UploadLimits, Waiting,
};
use crate::policy::{Author, Policies, Ruling};

/// Settings of the built-in policies, as the configuration gives them. Durations are milliseconds.
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
        let rules = Rules::default();
        Settings {
            auto_scan: rules.auto_scan,
            retry_base_ms: rules.retry_base_ms,
            retry_cap_ms: rules.retry_cap_ms,
            retry_jitter_ms: rules.retry_jitter_ms,
            attempts: rules.attempts,
            uploads: rules.uploads,
            bytes_per_second: rules.bytes_per_second,
        }
    }
}

impl Settings {
    /// The rules with these settings.
    #[must_use]
    pub fn rules(&self) -> Rules {
        Rules {
            auto_scan: self.auto_scan,
            retry_base_ms: self.retry_base_ms,
            retry_cap_ms: self.retry_cap_ms,
            retry_jitter_ms: self.retry_jitter_ms,
            attempts: self.attempts,
            uploads: self.uploads,
            bytes_per_second: self.bytes_per_second,
        }
    }
}

/// The built-in policies with their settings.
#[derive(Clone, Debug)]
pub struct Builtin {
    rules: Rules,
    id: PolicySetId,
    words: Arc<[String]>,
}

impl Builtin {
    /// The set with these settings. Its id covers the settings and the version of the rules.
    #[must_use]
    pub fn new(settings: Settings) -> Builtin {
        let named =
            minicbor::to_vec(("tidegate-builtin/2", &settings)).expect("writing to a vector cannot fail");
        Builtin {
            rules: settings.rules(),
            id: PolicySetId(Sha256::of(&named).0),
            words: REASONS.iter().map(ToString::to_string).collect::<Vec<_>>().into(),
        }
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> PolicySetId {
        self.id
    }

    fn rule<T>(&self, verdict: T) -> Ruling<T> {
        Ruling { verdict, by: Author::Set(self.id), words: Arc::clone(&self.words) }
    }
}

impl Policies for Builtin {
    fn select(&mut self, situation: &Situation, candidates: &[Candidate]) -> Ruling<Vec<Chosen>> {
        self.rule(self.rules.select(situation, candidates))
    }

    fn retry(&mut self, query: &RetryQuery) -> Ruling<RetryVerdict> {
        self.rule(self.rules.retry(query))
    }

    fn limits(&mut self, situation: &Situation) -> Ruling<UploadLimits> {
        self.rule(self.rules.limits(situation))
    }

    fn budget(&mut self, situation: &Situation) -> Ruling<Bandwidth> {
        self.rule(self.rules.budget(situation))
    }

    fn score(&mut self, situation: &Situation, waiting: &[Waiting]) -> Ruling<Ordering> {
        self.rule(self.rules.score(situation, waiting))
    }
}
