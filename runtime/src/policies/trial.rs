//! Tries a module out on recorded decisions: what would it have said? Within a bound of questions and of time; nothing
//! comes of it but an answer for people.

use std::time::Duration;

use serde_json::{Value, json};
use tidegate_core::policy::Slot;
use tidegate_policies::{Sitting, differ, json as words};

use super::record::{self, Recorded};
use crate::server::Clocks;

/// Decisions that are tried, the newest.
pub(crate) const TRIED_MAX: usize = 256;
/// How long a trial may take; what is not tried by then is left out.
const TIME_MAX: Duration = Duration::from_secs(2);
/// Differences that are shown.
const SAMPLES_MAX: usize = 5;

/// What came of a trial.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Trial {
    /// Decisions that were asked again.
    pub(crate) compared: u64,
    /// Of those, how many would have made the site do something else.
    pub(crate) differed: u64,
    /// Of those that differed, how many the module could not answer.
    pub(crate) failed: u64,
    /// Decisions that were left out: the time was over, or another version recorded them.
    pub(crate) left_out: u64,
    /// The first differences.
    pub(crate) samples: Vec<Value>,
}

impl Trial {
    /// Asks again. Blocks.
    pub(crate) fn run(sitting: &Sitting, lines: &[Vec<u8>], clock: &Clocks) -> Trial {
        let slot = sitting.slot();
        let until = clock().mono.after(TIME_MAX);
        let mut trial = Trial::default();
        for line in lines {
            match record::read(slot, line) {
                Some(recorded) if clock().mono < until => trial.ask(sitting, slot, recorded),
                Some(_) | None => trial.left_out += 1,
            }
        }
        trial
    }

    fn ask(&mut self, sitting: &Sitting, slot: Slot, recorded: Recorded) {
        self.compared += 1;
        let asked = sitting.ask(&recorded.question);
        let (verdict, reason) = match &asked.outcome {
            Ok((verdict, _)) if !differ(&recorded.question, &recorded.verdict, verdict) => return,
            Ok((verdict, _)) => (words::verdict(verdict), None),
            Err(trouble) => {
                self.failed += 1;
                (Value::Null, Some(trouble.to_string()))
            }
        };
        self.differed += 1;
        if self.samples.len() < SAMPLES_MAX {
            self.samples.push(json!({
                "at": recorded.at,
                "slot": slot.name(),
                "question": words::question(&recorded.question),
                "decided": words::verdict(&recorded.verdict),
                "enacted": recorded.enacted,
                "reason": recorded.reason,
                "would": verdict,
                "fault": reason,
            }));
        }
    }

    /// As the API shows it.
    pub(crate) fn json(&self) -> Value {
        json!({
            "compared": self.compared,
            "differed": self.differed,
            "failed": self.failed,
            "left_out": self.left_out,
            "samples": self.samples,
        })
    }
}
