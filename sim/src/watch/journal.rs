//! I24: a life can be repeated. Every input that became durable, stepped once more in an empty machine with the same
//! clocks, gives the same changes and verdicts; and the changes alone, applied in order, give the same records. What a
//! repeated step asks for goes nowhere. Looked at in one world of eight: it costs a second life.

use std::collections::{BTreeMap, BTreeSet};

use tidegate_core::change::Change;
use tidegate_core::effect::Output;
use tidegate_core::input::Input;
use tidegate_core::machine::{Machine, Rows};
use tidegate_core::policy::Ruled;
use tidegate_core::row::{Key, Row};
use tidegate_core::time::Now;

use super::{Broken, Happened, Premises, Seen, Truth, Watch, demand};
use crate::scenario::{Manner, Scenario};
use crate::world::policy::Guest;

/// One world of so many is repeated.
const SHARE: u64 = 8;
/// Steps of one site that are remembered; longer lives are not repeated.
const STEPS_MAX: usize = 40_000;

/// One durable step.
#[derive(Clone, Debug)]
struct Entry {
    now: Now,
    input: Input,
    changes: Vec<Change>,
    rulings: Vec<Ruled>,
}

/// Repeats lives at their end.
#[derive(Debug)]
pub struct Journal {
    on: bool,
    /// Durable steps by site; `None` were too many.
    sites: BTreeMap<usize, Option<Vec<Entry>>>,
    premises: Premises,
}

impl Journal {
    /// Remembers the life of a world if it is one of those that are repeated.
    #[must_use]
    pub fn new(scenario: &Scenario) -> Journal {
        Journal {
            on: scenario.seed.is_multiple_of(SHARE),
            sites: BTreeMap::new(),
            premises: Premises::default(),
        }
    }
}

impl Watch for Journal {
    fn step(&mut self, seen: &Seen<'_>) -> Result<(), Broken> {
        if !self.on {
            return Ok(());
        }
        let site = self.sites.entry(seen.site).or_insert_with(|| Some(Vec::new()));
        if let Some(entries) = site {
            entries.push(Entry {
                now: seen.now,
                input: seen.input.clone(),
                changes: seen.out.changes.clone(),
                rulings: seen.out.rulings.clone(),
            });
            if entries.len() > STEPS_MAX {
                *site = None;
            }
        }
        Ok(())
    }

    fn happened(&mut self, _: &Truth<'_>, _: &Happened<'_>) -> Result<(), Broken> {
        Ok(())
    }

    fn end(&mut self, truth: &Truth<'_>) -> Result<(), Broken> {
        for (site, entries) in &self.sites {
            let Some(entries) = entries else { continue };
            self.premises.met("I24.repeated");
            let image = &truth.images[*site];
            let manner = truth.scenario.sites[*site].policy;
            same(&repeated(entries, manner)?, image, "repeated")?;
            same(&applied(entries)?, image, "applied")?;
        }
        Ok(())
    }

    fn premises(&self) -> &Premises {
        &self.premises
    }

    fn invariants(&self) -> &'static [&'static str] {
        &["I24.repeated"]
    }
}

fn put(rows: &mut BTreeMap<Key, Row>, key: Key, row: Option<Row>) {
    match row {
        Some(row) => rows.insert(key, row),
        None => rows.remove(&key),
    };
}

/// Steps every input in an empty machine, which reads the records that this second life wrote itself.
fn repeated(entries: &[Entry], manner: Manner) -> Result<BTreeMap<Key, Row>, Broken> {
    let mut machine = Machine::new();
    let mut rows = BTreeMap::new();
    let mut policies = Guest::new(tidegate_core::knobs::Knobs::default().builtin, manner);
    for entry in entries {
        if let Input::Boot { knobs, .. } = &entry.input {
            policies = Guest::new(knobs.builtin.clone(), manner);
            machine = Machine::new();
            for (key, row) in &rows {
                if Machine::is_hot(row) {
                    machine.load(key, row.clone());
                }
            }
        }
        let cold = cold(&machine, &rows, &entry.input);
        let mut out = Output::default();
        machine.step(entry.now, &entry.input, &cold, &mut policies, &mut out);
        let equal = out.changes == entry.changes && out.rulings == entry.rulings;
        demand("I24", equal, || {
            format!("{:?} did {:?} in life and {:?} when repeated", entry.input, entry.changes, out.changes)
        })?;
        for (key, row) in out.rows {
            put(&mut rows, key, row);
        }
    }
    Ok(rows)
}

fn cold(machine: &Machine, rows: &BTreeMap<Key, Row>, input: &Input) -> Rows {
    let mut have = Rows::new();
    let mut wanted = BTreeSet::new();
    loop {
        machine.wants(input, &have, &mut wanted);
        if wanted.is_empty() {
            return have;
        }
        for key in std::mem::take(&mut wanted) {
            let row = rows.get(&key).cloned();
            have.insert(key, row);
        }
    }
}

/// Applies the changes alone, in a machine that has everything in memory.
fn applied(entries: &[Entry]) -> Result<BTreeMap<Key, Row>, Broken> {
    let mut machine = Machine::new();
    let mut rows = BTreeMap::new();
    for change in entries.iter().flat_map(|entry| &entry.changes) {
        let touched = machine.apply(change);
        let saw = || format!("{change:?} does not apply: {touched:?}");
        demand("I24", touched.is_ok(), saw)?;
        for key in touched.iter().flatten() {
            put(&mut rows, key.clone(), machine.row(key));
        }
    }
    Ok(rows)
}

fn same(one: &BTreeMap<Key, Row>, image: &BTreeMap<Key, Row>, how: &str) -> Result<(), Broken> {
    demand("I24", one == image, || {
        let keys = one.keys().chain(image.keys());
        let key = keys.into_iter().find(|key| one.get(*key) != image.get(*key));
        let rows = key.map(|key| (key, one.get(key), image.get(key)));
        format!("records {how} differ from those that life left: {rows:?}")
    })
}

#[cfg(test)]
mod tests {
    use tidegate_core::change::TaskChange;
    use tidegate_core::id::{Boot, DeviceId, RequestId, TaskId};
    use tidegate_core::input::Request;
    use tidegate_core::knobs::Knobs;
    use tidegate_core::time::{Mono, Wall};

    use super::*;

    fn life() -> Vec<Entry> {
        let mut machine = Machine::new();
        let mut policies = Guest::new(Knobs::default().builtin, Manner::Builtin);
        let task = |name: &str| Request::CreateTask {
            task: Some(TaskId::new(name).expect("legal")),
            device: DeviceId::new("d1").expect("legal"),
            config: None,
        };
        let inputs = [
            Input::Boot { boot: Boot(1), seed: 5, knobs: Knobs::default() },
            Input::Request { id: RequestId(1), request: task("one") },
            Input::Request { id: RequestId(2), request: task("two") },
        ];
        let mut entries = Vec::new();
        let mut rows = BTreeMap::new();
        for (n, input) in (1..).zip(inputs) {
            let now = Now { wall: Wall(n), mono: Mono(n.unsigned_abs()) };
            let cold = cold(&machine, &rows, &input);
            let mut out = Output::default();
            machine.step(now, &input, &cold, &mut policies, &mut out);
            for (key, row) in out.rows {
                put(&mut rows, key, row);
            }
            entries.push(Entry { now, input, changes: out.changes, rulings: out.rulings });
        }
        entries
    }

    #[test]
    fn a_life_that_was_not_lived_so_is_noticed() {
        let lived = life();
        let image = repeated(&lived, Manner::Builtin).expect("a life repeats itself");
        assert_eq!(applied(&lived).expect("its changes apply"), image);
        assert_eq!(image.len(), 2);
        let mut forgets = lived.clone();
        forgets[1].changes.clear();
        assert!(repeated(&forgets, Manner::Builtin).is_err_and(|broken| broken.invariant == "I24"));
        assert!(same(&applied(&forgets).expect("fewer changes apply too"), &image, "applied").is_err());
        let mut twice = lived;
        let Change::Task(TaskChange::Created { .. }) = twice[2].changes[0].clone() else {
            panic!("a task is made")
        };
        let again = twice[1].changes[0].clone();
        twice[2].changes.push(again);
        assert!(applied(&twice).is_err_and(|broken| broken.invariant == "I24"), "a task is made once");
    }
}
