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
            }
        }
    }

    /// What goes into the table with the next commit.
    pub(crate) fn lines(&mut self) -> Vec<(Slot, Vec<u8>)> {
        let waiting = std::mem::take(&mut self.waiting);
        let lines = waiting.into_iter().flat_map(|(slot, decisions)| {
            decisions.into_iter().map(move |(at, decision)| (slot, record::line(at, &decision)))
        });
        lines.collect()
    }
}

fn count(clamps: &mut Clamps, slot: Slot, module: Option<Sha256>) {
    let full = clamps.len() >= COUNTED_MAX && !clamps.contains_key(&(slot, module));
    *clamps.entry((slot, if full { None } else { module })).or_default() += 1;
}
