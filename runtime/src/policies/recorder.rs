//! Gathers the decisions of a batch: those that are recorded, and counts of those that were clamped or stood in for.
//! Holds a bounded number of them, whatever a batch decides.

use std::collections::{BTreeMap, VecDeque};

use tidegate_core::digest::Sha256;
use tidegate_core::policy::{Author, Decision, Slot};
use tidegate_core::time::Wall;

use super::record;
use crate::figures::Gauge;

/// Decisions of one slot that one batch records, the newest. Every one of them is in the journal with its verdict; this
/// bounds what a storm of equal questions adds to a commit.
const PER_BATCH: usize = 16;
/// Modules of which clamps are counted; those beyond share one count per slot.
const COUNTED_MAX: usize = 128;

/// How often the core did otherwise than a module said, by slot and module.
pub type Clamps = BTreeMap<(Slot, Option<Sha256>), u64>;

/// What the decisions of a batch leave behind.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    waiting: BTreeMap<Slot, VecDeque<(Wall, Decision)>>,
    /// Whether somebody was told that decisions are too large to be recorded.
    told: bool,
}

impl Recorder {
    /// Takes what a step decided.
    pub(crate) fn take(&mut self, at: Wall, decisions: &mut Vec<Decision>, gauge: &Gauge) {
        for decision in decisions.drain(..) {
            let slot = decision.question.slot();
            if decision.clamped && matches!(decision.by, Author::Set(_)) {
                gauge.update(|figures| count(&mut figures.clamps, slot, decision.module));
            }
            if record::is_recorded(&decision) {
                let waiting = self.waiting.entry(slot).or_default();
                if waiting.len() == PER_BATCH {
                    waiting.pop_front();
                }
                waiting.push_back((at, decision));
            } else {
                self.left_out(slot, gauge);
            }
        }
    }

    /// What goes into the table with the next commit.
    pub(crate) fn lines(&mut self, gauge: &Gauge) -> Vec<(Slot, Vec<u8>)> {
        let mut lines = Vec::new();
        for (slot, decisions) in std::mem::take(&mut self.waiting) {
            for (at, decision) in decisions {
                let line = record::line(at, &decision);
                if line.len() <= record::LINE_BYTES_MAX {
                    lines.push((slot, line));
                } else {
                    self.left_out(slot, gauge);
                }
            }
        }
        lines
    }

    fn left_out(&mut self, slot: Slot, gauge: &Gauge) {
        gauge.update(|figures| figures.unrecorded += 1);
        if !std::mem::replace(&mut self.told, true) {
            tracing::warn!(
                slot = slot.name(),
                bytes_max = record::LINE_BYTES_MAX,
                items_max = record::ITEMS_MAX,
                "a decision is too large to be recorded; it is in the journal all the same. Told once"
            );
        }
    }
}

fn count(clamps: &mut Clamps, slot: Slot, module: Option<Sha256>) {
    let full = clamps.len() >= COUNTED_MAX && !clamps.contains_key(&(slot, module));
    *clamps.entry((slot, if full { None } else { module })).or_default() += 1;
}

#[allow(clippy::unwrap_used, reason = "a test that panics has failed, which is what it is for")]
#[cfg(test)]
mod tests {
    use tidegate_core::id::PolicySetId;
    use tidegate_core::policy::{Ordering, Question, Situation, Verdict, Waiting};

    use super::*;

    fn decision(jobs: u64, labels: usize) -> Decision {
        let job = |n| Waiting {
            job: n,
            device: "robot-1".to_owned(),
            size: 1,
            spent: 0,
            queued_ms: 0,
            age_ms: 0,
            labels: (0..labels).map(|n| (format!("key-{n}"), "\n".repeat(128))).collect(),
        };
        let question = Question::Order(Situation::default(), (0..jobs).map(job).collect());
        let scores = (0..jobs).map(|_| 0).collect();
        Decision {
            set: PolicySetId([1; 32]),
            by: Author::Set(PolicySetId([1; 32])),
            module: None,
            question,
            verdict: Verdict::Order(Ordering { scores, reason: 0 }),
            enacted: String::new(),
            reason: String::new(),
            clamped: false,
        }
    }

    #[test]
    fn what_is_too_large_is_not_recorded_but_counted_whatever_makes_it_so() {
        // The incident: sixteen labels made a question of some hundred jobs a megabyte, and a commit held sixteen of them.
        let (mut recorder, gauge) = (Recorder::default(), Gauge::default());
        // The third is within the bound until its texts are written as JSON.
        let mut decisions = vec![decision(3, 2), decision(600, 0), decision(512, 16), decision(30, 16)];
        assert!(record::is_recorded(&decisions[3]) && !record::is_recorded(&decisions[2]));
        recorder.take(Wall(0), &mut decisions, &gauge);
        let lines = recorder.lines(&gauge);
        assert_eq!(lines.len(), 1);
        assert!(lines[0].1.len() <= record::LINE_BYTES_MAX);
        assert_eq!(gauge.read().unrecorded, 3);
        assert_eq!(recorder.lines(&gauge).len(), 0);
    }
}
