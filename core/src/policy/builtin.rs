//! The built-in policies as plain rules: the floor when a guest fails, and, by inclusion of this very file, the default
//! guest. Uses nothing but the language, `alloc` and the questions, so that both compile it.

use alloc::vec;
use alloc::vec::Vec;

use super::question::{
    Bandwidth, Candidate, Choice, Chosen, GiveUp, Ordering, RetryAction, RetryQuery, RetryVerdict, Situation,
    UploadLimits, Waiting,
};

/// The words of the reasons; reason n is the n-th.
pub const REASONS: [&str; 7] = [
    "auto-scan-off",
    "auto-scan-on",
    "attempts-exhausted",
    "backoff",
    "configured-limit",
    "unlimited",
    "oldest-first",
];

const SCAN_OFF: u16 = 1;
const SCAN_ON: u16 = 2;
const EXHAUSTED: u16 = 3;
const BACKOFF: u16 = 4;
const CONFIGURED: u16 = 5;
const UNLIMITED: u16 = 6;
const OLDEST_FIRST: u16 = 7;

/// What the rules may be told. Durations are milliseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Queue every approved episode without being asked.
    pub auto_scan: bool,
    /// Delay after the first failed attempt; it doubles with each one.
    pub retry_base_ms: u64,
    /// Longest delay, jitter included.
    pub retry_cap_ms: u64,
    /// Largest jitter added to a delay.
    pub retry_jitter_ms: u64,
    /// Attempts in all.
    pub attempts: u32,
    /// Uploads at once.
    pub uploads: u32,
    /// Bytes per second over all uploads; `None` is no limit.
    pub bytes_per_second: Option<u64>,
}

/// The value of a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setting {
    /// On or off.
    Flag(bool),
    /// A number.
    Int(i64),
}

/// The settings of the rules: key, default, help.
pub const SETTINGS: [(&str, Setting, &str); 7] = [
    ("auto-scan", Setting::Flag(false), "queue every approved episode without being asked"),
    ("retry-base-ms", Setting::Int(30_000), "delay after the first failed attempt; it doubles with each one"),
    ("retry-cap-ms", Setting::Int(1_800_000), "longest delay, jitter included"),
    ("retry-jitter-ms", Setting::Int(30_000), "largest jitter added to a delay"),
    ("attempts", Setting::Int(5), "attempts in all"),
    ("uploads", Setting::Int(2), "uploads at once"),
    ("bytes-per-second", Setting::Int(0), "over all uploads; 0 is no limit"),
];

impl Default for Rules {
    fn default() -> Self {
        Rules {
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

impl Rules {
    /// Takes one setting; the error says what it must be.
    pub fn set(&mut self, key: &str, value: Setting) -> Result<(), &'static str> {
        let number = |least: i64| match value {
            Setting::Int(number) if number >= least => Ok(number.unsigned_abs()),
            Setting::Int(_) | Setting::Flag(_) if least > 0 => Err("must be a number above 0"),
            Setting::Int(_) | Setting::Flag(_) => Err("must be a number, not below 0"),
        };
        match key {
            "auto-scan" => match value {
                Setting::Flag(on) => self.auto_scan = on,
                Setting::Int(_) => return Err("must be true or false"),
            },
            "retry-base-ms" => self.retry_base_ms = number(0)?,
            "retry-cap-ms" => self.retry_cap_ms = number(0)?,
            "retry-jitter-ms" => self.retry_jitter_ms = number(0)?,
            "attempts" => self.attempts = u32::try_from(number(1)?).unwrap_or(u32::MAX),
            "uploads" => self.uploads = u32::try_from(number(0)?).unwrap_or(u32::MAX),
            "bytes-per-second" => self.bytes_per_second = Some(number(0)?).filter(|limit| *limit > 0),
            _ => return Err("is no setting of this policy"),
        }
        Ok(())
    }

    /// Which approved episodes are queued: all or none.
    #[must_use]
    pub fn select(&self, _: &Situation, candidates: &[Candidate]) -> Vec<Chosen> {
        let chosen = if self.auto_scan {
            Chosen { choice: Choice::Enqueue, reason: SCAN_ON }
        } else {
            Chosen { choice: Choice::Later, reason: SCAN_OFF }
        };
        vec![chosen; candidates.len()]
    }

    /// min(base · 2^(k-1), cap) plus jitter, and the sum within the cap again.
    #[must_use]
    pub fn retry(&self, query: &RetryQuery) -> RetryVerdict {
        if query.spent >= self.attempts {
            let action = RetryAction::GiveUp(GiveUp::Exhausted);
            return RetryVerdict { action, memo: 0, reason: EXHAUSTED };
        }
        let doublings = query.spent.saturating_sub(1).min(20);
        let delay = self.retry_base_ms.saturating_mul(1 << doublings).min(self.retry_cap_ms);
        let jitter = scatter(query.seed) % self.retry_jitter_ms.saturating_add(1);
        let delay_ms = delay.saturating_add(jitter).min(self.retry_cap_ms);
        RetryVerdict { action: RetryAction::After { delay_ms }, memo: 0, reason: BACKOFF }
    }

    /// As many uploads as configured.
    #[must_use]
    pub fn limits(&self, _: &Situation) -> UploadLimits {
        UploadLimits { uploads: self.uploads, recheck_ms: 0, memo: 0, reason: CONFIGURED }
    }

    /// As fast as configured.
    #[must_use]
    pub fn budget(&self, _: &Situation) -> Bandwidth {
        let reason = if self.bytes_per_second.is_some() { CONFIGURED } else { UNLIMITED };
        Bandwidth { bytes_per_second: self.bytes_per_second, recheck_ms: 0, memo: 0, reason }
    }

    /// Oldest first: since it was approved; the site breaks ties by job number.
    #[must_use]
    pub fn score(&self, _: &Situation, waiting: &[Waiting]) -> Ordering {
        let scores = waiting.iter().map(|w| i64::try_from(w.age_ms).unwrap_or(i64::MAX)).collect();
        Ordering { scores, reason: OLDEST_FIRST }
    }
}

/// One number of a seed: SplitMix64 (Steele, Lea, Flood 2014).
fn scatter(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
