//! Who sits in which slot, as it follows from the durable records and the configuration alone; and small questions about
//! decisions that several families ask. Written from the decisions, not from the core's own machine.

use std::collections::BTreeMap;

use tidegate_core::digest::Sha256;
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

/// The set of such a record: where modules rest the native rules; else who was chosen for a slot, else the default module unless it is not fit to, else the native
/// rules.
#[must_use]
pub fn set(row: Option<&PolicyRow>, knobs: &Knobs) -> PolicySet {
    if knobs.native {
        return PolicySet::native(knobs.builtin.clone());
    }
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

/// The generation of the set that was active when a step began.
#[must_use]
pub fn generation(seen: &Seen<'_>) -> u64 {
    policy(seen.was(&Key::Policy)).map_or(0, |row| row.generation)
}

/// The set that is active when a step is over.
#[must_use]
pub fn next(seen: &Seen<'_>) -> PolicySet {
    set(policy(seen.rows.get(&Key::Policy)), seen.knobs)
}

/// What is good in each slot and what was before it, the newest first: what an ejected module makes room for.
pub type Heirs = BTreeMap<Slot, Vec<Binding>>;

/// The heirs of a record.
#[must_use]
pub fn heirs(row: &PolicyRow) -> Heirs {
    let mut heirs = Heirs::new();
    for (slot, binding) in row.good.iter().chain(&row.earlier) {
        heirs.entry(*slot).or_default().push(binding.clone());
    }
    heirs
}

/// The heirs after those of a slot came through their probation: they go first, and what was good before them is kept,
/// of another module and one only. A slot that nobody was chosen for has none.
#[must_use]
pub fn probed(heirs: &Heirs, slots: &[(Slot, Binding)]) -> Heirs {
    let line = |(slot, binding): &(Slot, Binding)| {
        let old = heirs.get(slot).into_iter().flatten().find(|old| old.module != binding.module);
        (*slot, std::iter::once(binding).chain(old).cloned().collect())
    };
    slots.iter().map(line).collect()
}

/// The heirs that may still be used.
#[must_use]
pub fn left(heirs: &Heirs, usable: impl Fn(Sha256) -> bool) -> Heirs {
    let line = |(slot, line): (&Slot, &Vec<Binding>)| {
        let left: Vec<Binding> = line.iter().filter(|heir| usable(heir.module)).cloned().collect();
        (!left.is_empty()).then_some((*slot, left))
    };
    heirs.iter().filter_map(line).collect()
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
