//! What follows from how an attempt ended, once a policy has spoken: pure, and the place where verdicts are clamped.

use alloc::format;
use alloc::string::String;
use core::time::Duration;

use crate::limits;
use crate::outcome::{Fault, What};
use crate::policy::{Clamped, ErrorClass, GiveUp, RetryAction, RetryVerdict, Subject};
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
pub(super) fn clamp(verdict: RetryVerdict, spent: u32) -> Clamped<Course> {
    let (course, text) = course(verdict.action, spent);
    let as_asked = match (&course, verdict.action) {
        (Course::After(delay), RetryAction::After { delay_ms }) => delay.as_millis() == u128::from(delay_ms),
        (Course::Park, RetryAction::Park) | (Course::GiveUp(_), RetryAction::GiveUp(_)) => true,
        _ => false,
    };
    Clamped { verdict: course, text, reason: verdict.reason, clamped: !as_asked }
}

fn course(action: RetryAction, spent: u32) -> (Course, String) {
    match action {
        RetryAction::After { .. } if spent >= limits::ATTEMPTS_MAX => {
            (Course::GiveUp(GiveUp::Exhausted), String::from("give up: most attempts"))
        }
        RetryAction::After { delay_ms } => {
            let delay = Duration::from_millis(delay_ms).clamp(limits::DELAY_MIN, limits::DELAY_MAX);
            (Course::After(delay), format!("after {} ms", delay.as_millis()))
        }
        RetryAction::Park => (Course::Park, String::from("park")),
        RetryAction::GiveUp(GiveUp::Exhausted) => {
            (Course::GiveUp(GiveUp::Exhausted), String::from("give up: exhausted"))
        }
        RetryAction::GiveUp(GiveUp::Hopeless) => {
            (Course::GiveUp(GiveUp::Hopeless), String::from("give up: hopeless"))
        }
    }
}

/// A verdict as it is, where a bug obeys it.
pub(super) fn obey(verdict: RetryVerdict, spent: u32) -> Clamped<Course> {
    match verdict.action {
        RetryAction::After { delay_ms } => Clamped {
            verdict: Course::After(Duration::from_millis(delay_ms)),
            text: format!("after {delay_ms} ms"),
            reason: verdict.reason,
            clamped: false,
        },
        RetryAction::Park | RetryAction::GiveUp(_) => clamp(verdict, spent),
    }
}

/// A fault of the data as policies see it.
pub(super) fn shown(fault: &Fault) -> (ErrorClass, Subject, String) {
    let subject = |what: &What| match what {
        What::Object => Subject::Object,
        What::Upload => Subject::Upload,
        What::Part => Subject::Part,
        What::Source => Subject::Source,
    };
    match fault {
        Fault::Vanished(what) => (ErrorClass::Vanished, subject(what), fault.code().into()),
        Fault::Damaged(what) => (ErrorClass::Damaged, subject(what), fault.code().into()),
        Fault::Rejected(code) => (ErrorClass::Rejected, Subject::Object, code.clone()),
        Fault::Offline
        | Fault::Throttled { .. }
        | Fault::Unavailable { .. }
        | Fault::Auth
        | Fault::ClockSkew
        | Fault::NoDestination
        | Fault::Local(_) => (ErrorClass::Other, Subject::Object, fault.code().into()),
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
