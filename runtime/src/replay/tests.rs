//! A replay that finds nothing proves nothing unless it finds what is planted.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed, which is what it is for")]

use tidegate_core::id::{Boot, DeviceId, RequestId, TaskId};
use tidegate_core::input::Request;
use tidegate_core::knobs::Knobs;
use tidegate_core::policy::Builtin;
use tidegate_core::row::MetaRow;
use tidegate_core::time::Now;

use super::*;
use crate::real::RealDisk;
use crate::store::{Batch, JOURNAL_LIMIT};

/// A machine that is driven by hand, and what it journals.
struct Life {
    machine: Machine,
    shelf: Shelf,
    batch: Batch,
}

impl Life {
    fn new() -> Life {
        Life {
            machine: Machine::new(),
            shelf: Shelf::with_builtin(Settings::default()),
            batch: Batch::default(),
        }
    }

    fn step(&mut self, input: Input) {
        let mut out = Output::default();
        let policies = Builtin::new(Settings::default()).id();
        let mut cold = Rows::new();
        let mut wanted = BTreeSet::new();
        self.machine.wants(Now::default(), &input, &cold, &mut wanted);
        // Nothing is cold in this life: what is not in memory is not there.
        cold.extend(wanted.into_iter().map(|key| (key, None)));
        self.machine.step(Now::default(), &input, &cold, self.shelf.get(policies), &mut out);
        let seq = Seq(self.batch.entries.len() as u64 + 1);
        self.batch.rows.extend(out.rows);
        self.batch.entries.push(JournalEntry {
            seq,
            now: Now::default(),
            boot: Boot(1),
            input,
            policies,
            rulings: out.rulings,
            cold: cold.into_iter().collect(),
            changes: out.changes,
        });
    }
}

fn lived() -> Life {
    let mut life = Life::new();
    life.step(Input::Boot { boot: Boot(1), seed: 1, knobs: Knobs::default() });
    life.step(creation(1));
    life.step(creation(2));
    life
}

fn creation(n: u64) -> Input {
    let task = Some(TaskId::new(&format!("T{n}")).unwrap());
    let request = Request::CreateTask { task, device: DeviceId::new("robot").unwrap(), config: None };
    Input::Request { id: RequestId(n), request }
}

fn replayed(life: &Life, step: bool) -> Result<Report, Divergence> {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(&RealDisk, dir.path(), JOURNAL_LIMIT).unwrap();
    store.commit(&life.batch).unwrap();
    run(&store.view(), step, &Modules::None)
}

#[test]
fn a_journal_as_it_was_lived_gives_the_records() {
    let report = replayed(&lived(), true).unwrap();
    assert_eq!((report.entries, report.stepped, report.boots, report.base), (3, 3, 1, 0));
    assert_eq!(report.rows[&Kind::Task], 2);
    assert!(report.changes >= 2);
    assert_eq!(replayed(&lived(), false).unwrap().stepped, 0);
}

#[test]
fn a_record_that_was_altered_behind_the_journal_is_found() {
    let mut life = lived();
    life.batch
        .rows
        .insert(Key::Meta, Some(Row::Meta(MetaRow { next_episode: 9, next_job: 9, ..MetaRow::default() })));
    for step in [true, false] {
        let found = replayed(&life, step).unwrap_err();
        assert!(matches!(found, Divergence::Record { key: Key::Meta, .. }), "{found}");
    }
    let mut life = lived();
    life.batch.rows.remove(&Key::Task(TaskId::new("T2").unwrap()));
    let found = replayed(&life, true).unwrap_err();
    assert!(matches!(found, Divergence::Record { life: None, .. }), "{found}");
}

#[test]
fn a_change_that_no_input_explains_is_found_with_its_entry() {
    let mut life = lived();
    life.batch.entries[2].input = Input::Wake;
    let found = replayed(&life, true).unwrap_err();
    assert!(
        matches!(found, Divergence::Change { seq: Seq(3), input: "wake", at: 0, replay: None, .. }),
        "{found}"
    );
    // Its changes alone are still the ones that gave the records.
    replayed(&life, false).unwrap();
    let mut life = lived();
    life.batch.entries[2].changes.clear();
    let found = replayed(&life, true).unwrap_err();
    assert!(matches!(found, Divergence::Change { life: None, .. }), "{found}");
}

#[test]
fn a_consulted_record_that_was_not_so_is_found() {
    let mut life = lived();
    life.batch.entries[2].cold.push((Key::Task(TaskId::new("T1").unwrap()), None));
    let found = replayed(&life, true).unwrap_err();
    assert!(matches!(found, Divergence::Consulted { seq: Seq(3), .. }), "{found}");
    let mut life = lived();
    life.batch.entries[2].cold.clear();
    let found = replayed(&life, true).unwrap_err();
    assert!(matches!(found, Divergence::Unasked { seq: Seq(3), .. }), "{found}");
}

#[test]
fn a_change_that_cannot_follow_is_found() {
    let mut life = lived();
    life.batch.entries[2].changes = life.batch.entries[1].changes.clone();
    let found = replayed(&life, false).unwrap_err();
    assert!(matches!(found, Divergence::Store(StoreError::Misfit { seq: Seq(3), .. })), "{found}");
}

#[test]
fn a_report_says_where_the_replay_started() {
    let whole = Report { entries: 9, stepped: 9, ..Report::default() };
    assert!(whole.to_string().starts_with("from the beginning: 9 entries (9 stepped"), "{whole}");
    let rest = Report { base: 41, entries: 9, stepped: 2, ..Report::default() };
    assert!(rest.to_string().starts_with("from the base at 41 on"), "{rest}");
    assert!(rest.to_string().contains("9 entries (2 stepped"), "{rest}");
}
