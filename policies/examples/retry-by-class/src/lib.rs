//! Each kind of error has its own way to try again: what never passes is given up at once, what a person must mend waits
//! for one, a store that is busy is left alone for longer each time. The same rules in C: retry-by-class-c.
#![no_std]

use tidegate_sdk::{
    About, Policy, Retry, Setting, Settings, String, export,
    retry::{Abandon, Action, Attempt, Decision, ErrorClass, Subject},
    scatter,
};

const HOPELESS: u16 = 1;
const OPERATOR: u16 = 2;
const EXHAUSTED: u16 = 3;
const THROTTLED: u16 = 4;
const AFRESH: u16 = 5;
const BACKOFF: u16 = 6;

/// Codes of stores that are busy.
const BUSY: [&str; 5] = ["SlowDown", "ServiceUnavailable", "RequestLimitExceeded", "ThrottlingException", "InternalError"];
/// Codes that a person must mend.
const FOR_PEOPLE: [&str; 4] = ["AccessDenied", "NoSuchBucket", "QuotaExceeded", "InvalidBucketState"];
/// Codes that the same object gets every time.
const NEVER: [&str; 3] = ["EntityTooLarge", "InvalidObjectName", "KeyTooLongError"];

struct ByClass {
    attempts: u64,
    base_ms: u64,
    cap_ms: u64,
}

impl Policy for ByClass {
    const ABOUT: About = About {
        name: env!("CARGO_PKG_NAME"),
        version: env!("CARGO_PKG_VERSION"),
        summary: env!("CARGO_PKG_DESCRIPTION"),
        reasons: &["hopeless", "needs-operator", "exhausted", "throttled", "start-afresh", "backoff"],
        settings: &[
            Setting::int("attempts", 8, "attempts in all"),
            Setting::int("base-ms", 10_000, "delay after the first failed attempt; it doubles with each one"),
            Setting::int("cap-ms", 3_600_000, "longest delay"),
        ],
        patience_ms: 0,
    };

    fn configure(settings: &Settings) -> Result<Self, String> {
        Ok(ByClass {
            attempts: settings.int_in("attempts", 1..=1_000_000)?,
            base_ms: settings.int_in("base-ms", 1..=86_400_000)?,
            cap_ms: settings.int_in("cap-ms", 1..=86_400_000)?,
        })
    }
}

impl ByClass {
    /// Doubles with each step up to the longest, and spreads over its upper half.
    fn delay(&self, steps: u64, seed: u64) -> u64 {
        let delay = (self.base_ms << steps.min(20)).min(self.cap_ms);
        let half = delay / 2;
        delay - half + scatter(seed, half)
    }
}

impl Retry for ByClass {
    fn next(&self, attempt: Attempt) -> Decision {
        let code = attempt.code.as_str();
        let spent = u64::from(attempt.spent);
        let end = |action, reason| Decision { action, memo: 0, reason };
        match attempt.class {
            ErrorClass::Vanished if attempt.subject == Subject::Source => {
                return end(Action::GiveUp(Abandon::Hopeless), HOPELESS);
            }
            ErrorClass::Rejected if NEVER.contains(&code) => {
                return end(Action::GiveUp(Abandon::Hopeless), HOPELESS);
            }
            ErrorClass::Rejected if FOR_PEOPLE.contains(&code) => return end(Action::Park, OPERATOR),
            ErrorClass::Damaged if attempt.subject == Subject::Source => return end(Action::Park, OPERATOR),
            _ => {}
        }
        if spent >= self.attempts {
            return end(Action::GiveUp(Abandon::Exhausted), EXHAUSTED);
        }
        if attempt.class == ErrorClass::Rejected && BUSY.contains(&code) {
            // The memo counts how often in a row: each time it is left alone for four times as long.
            let times = attempt.memo.saturating_add(1);
            let wait = self.delay(times.min(10) * 2, attempt.seed);
            return Decision { action: Action::After(wait), memo: times, reason: THROTTLED };
        }
        if attempt.class == ErrorClass::Vanished && attempt.subject == Subject::Upload {
            // Stores forget uploads that were left open for long; a new one has nothing to wait for.
            return end(Action::After(1000), AFRESH);
        }
        end(Action::After(self.delay(spent.saturating_sub(1), attempt.seed)), BACKOFF)
    }
}

export!(ByClass: retry);
