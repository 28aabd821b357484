//! Who sits in which slot, as it follows from the durable records and the configuration alone; and small questions about
//! decisions that several families ask. Written from the decisions, not from the core's own machine.

use tidegate_core::effect::Output;
use tidegate_core::knobs::Knobs;
use tidegate_core::policy::{Binding, Choice, Decision, PolicySet, Seat, Slot, Verdict};
use tidegate_core::row::{Key, PolicyRow, Row};

use super::Seen;

/// The record of who was put where.
#[must_use]
pub fn policy(row: Option<&Row>) -> Option<&PolicyRow> {
    match row {
        Some(Row::Policy(row)) => Some(row),
        _ => None,
    }
}

/// The set of such a record: who was chosen for a slot, else the default module unless it is not fit to, else the native
/// rules.
#[must_use]
pub fn set(row: Option<&PolicyRow>, knobs: &Knobs) -> PolicySet {
    let of = |slot: Slot| {
        let chosen = row.and_then(|row| row.slots.iter().find(|(at, _)| *at == slot));
        if let Some((_, binding)) = chosen {
            return Seat::Module(binding.clone());
        }
        match knobs.default_module {
            Some(module) if row.is_none_or(|row| !row.floored.contains(&(slot, module))) => {
                Seat::Module(Binding { module, settings: knobs.builtin.for_module() })
            }
            _ => Seat::Floor,
        }
    };
    PolicySet { seats: Slot::ALL.map(of), floor: knobs.builtin.clone() }
}

/// The set that was active when a step began: it rules the whole step.
#[must_use]
pub fn active(seen: &Seen<'_>) -> PolicySet {
    set(policy(seen.was(&Key::Policy)), seen.knobs)
}

/// The set that is active when a step is over.
#[must_use]
pub fn next(seen: &Seen<'_>) -> PolicySet {
    set(policy(seen.rows.get(&Key::Policy)), seen.knobs)
}

/// How many episodes that nobody asked for were chosen in a step.
#[must_use]
pub fn scanned(out: &Output) -> usize {
    let chosen = |decision: &Decision| match &decision.verdict {
        Verdict::AutoScan(chosen) => chosen.iter().filter(|one| one.choice == Choice::Enqueue).count(),
        _ => 0,
    };
    out.decisions.iter().map(chosen).sum()
}
