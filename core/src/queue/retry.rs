//! What follows from how an attempt ended, once a policy has spoken: pure, and the place where verdicts are clamped.

use alloc::format;
use alloc::string::String;
use core::time::Duration;

use crate::limits;
use crate::outcome::{Fault, What};
use crate::policy::{GiveUp, RetryVerdict};
use crate::row::FinalWhy;

/// A verdict made safe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Course {
    /// Try again after this.
    After(Duration),
    /// Wait for an operator.
    Park,
    /// Give up.
    GiveUp(GiveUp),
}

/// Makes a verdict safe: a delay within bounds, and an end to attempts whatever a policy says.
pub(super) fn clamp(verdict: RetryVerdict, spent: u32) -> (Course, String) {
    match verdict {
        RetryVerdict::After { .. } if spent >= limits::ATTEMPTS_MAX => {
            (Course::GiveUp(GiveUp::Exhausted), String::from("give up: most attempts"))
        }
        RetryVerdict::After { delay_ms } => {
            let delay = Duration::from_millis(delay_ms).clamp(limits::DELAY_MIN, limits::DELAY_MAX);
            (Course::After(delay), format!("after {} ms", delay.as_millis()))
        }
        RetryVerdict::Park => (Course::Park, String::from("park")),
        RetryVerdict::GiveUp(GiveUp::Exhausted) => {
            (Course::GiveUp(GiveUp::Exhausted), String::from("give up: exhausted"))
        }
        RetryVerdict::GiveUp(GiveUp::Hopeless) => {
            (Course::GiveUp(GiveUp::Hopeless), String::from("give up: hopeless"))
        }
    }
}

/// A verdict as it is, where a bug obeys it.
pub(super) fn obey(verdict: RetryVerdict, spent: u32) -> (Course, String) {
    match verdict {
        RetryVerdict::After { delay_ms } => {
            (Course::After(Duration::from_millis(delay_ms)), format!("after {delay_ms} ms"))
        }
        RetryVerdict::Park | RetryVerdict::GiveUp(_) => clamp(verdict, spent),
    }
}

/// Why a job is over, in its own words. A source that was not right to the last attempt is lost.
pub(super) fn final_why(why: GiveUp, fault: Fault) -> FinalWhy {
    match (why, &fault) {
        (GiveUp::Exhausted, Fault::Vanished(What::Source) | Fault::Damaged(What::Source)) => {
            FinalWhy::SourceLost(fault)
        }
        (GiveUp::Exhausted, _) => FinalWhy::Exhausted(fault),
        (GiveUp::Hopeless, _) => FinalWhy::GivenUp(fault),
    }
}
