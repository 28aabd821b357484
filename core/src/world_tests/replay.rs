//! I24: the journal repeats a life, and its changes alone give the records.

use std::collections::BTreeMap;
use std::format;
use std::prelude::v1::*;

use super::policies::policies;
use super::watch::{demand, line};
use super::world::World;
use crate::change::JournalEntry;
use crate::effect::Output;
use crate::input::Input;
use crate::knobs::Knobs;
use crate::machine::{Machine, Rows};
use crate::refusal::Broken;
use crate::row::{Key, Row};

fn put(rows: &mut BTreeMap<Key, Row>, key: Key, row: Option<Row>) {
    match row {
        Some(row) => rows.insert(key, row),
        None => rows.remove(&key),
    };
}

/// Repeats every input in an empty machine: the same changes, verdicts and records must come of it.
pub(super) fn inputs(journal: &[JournalEntry], wild: &[bool]) -> Result<BTreeMap<Key, Row>, Broken> {
    let mut machine = Machine::new();
    let mut knobs = Knobs::default();
    let mut rows = BTreeMap::new();
    for (entry, wild) in journal.iter().zip(wild) {
        if let Input::Boot { knobs: booted, .. } = &entry.input {
            knobs = booted.clone();
        }
        let given = match &entry.input {
            Input::Boot { knobs, .. } => machine.set_at_boot(knobs).id(),
            _ => machine.active_policy(),
        };
        demand("I25", given == entry.policies, || format!("entry {entry:?} is asked of {given:?}"))?;
        let cold: Rows = entry.cold.iter().cloned().collect();
        let mut out = Output::default();
        machine.step(entry.now, &entry.input, &cold, &mut *policies(&knobs, *wild, given), &mut out);
        let same = out.changes == entry.changes && out.rulings == entry.rulings;
        demand("I24", same, || format!("entry {:?} repeats as {}", entry, line(&entry.input, &out)))?;
        for (key, row) in out.rows {
            put(&mut rows, key, row);
        }
    }
    Ok(rows)
}

/// Applies the changes alone.
pub(super) fn changes(journal: &[JournalEntry]) -> Result<BTreeMap<Key, Row>, Broken> {
    let mut machine = Machine::new();
    let mut rows = BTreeMap::new();
    for change in journal.iter().flat_map(|entry| &entry.changes) {
        let touched = machine.apply(change);
        let Ok(touched) = touched else {
            return super::watch::broken("I24", format!("{change:?} does not apply: {touched:?}"));
        };
        for key in touched {
            let row = machine.row(&key);
            put(&mut rows, key, row);
        }
    }
    Ok(rows)
}

impl World {
    /// Both ways must end where life did.
    pub(super) fn replay(&mut self) -> Result<(), Broken> {
        let repeated = inputs(&self.journal, &self.wilds)?;
        demand("I24", repeated == self.rows, || differ(&repeated, &self.rows))?;
        let applied = changes(&self.journal)?;
        demand("I24", applied == self.rows, || differ(&applied, &self.rows))?;
        self.coverage.reach("world", "replayed");
        Ok(())
    }
}

fn differ(one: &BTreeMap<Key, Row>, other: &BTreeMap<Key, Row>) -> String {
    let mut text = String::new();
    for key in one.keys().chain(other.keys()) {
        if one.get(key) != other.get(key) {
            text.push_str(&format!("{key:?}: {:?} replayed, {:?} lived\n", one.get(key), other.get(key)));
        }
    }
    text
}
