//! Runs a journal again and compares: the inputs must give the same changes, the changes must give the records. Asks
//! nobody, writes nothing, emits nothing.
//!
//! What was in memory before the oldest boot in the journal is not known, so entries before it are checked through
//! their changes alone; from that boot on every entry is stepped. Entries that a program of an earlier format wrote are
//! never stepped: this one may decide otherwise than it did. At each boot the machine is made anew from the
//! records as they were, as it was in life.
//!
//! Policies are asked again too: the modules are those whose bytes the data directory holds. Two things cannot be repeated:
//! that the clock interrupted a module, and that a set was not ready yet. Where life says so, the built-in rules are taken in
//! that place, as they were then; everything else must be ruled as it was.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::OnceLock;

use tidegate_core::change::{Change, JournalEntry};
use tidegate_core::digest::Sha256;
use tidegate_core::effect::Output;
use tidegate_core::id::{JobId, PartNo, PolicySetId, Seq};
use tidegate_core::input::Input;
use tidegate_core::machine::{Machine, Rows};
use tidegate_core::policy::{PolicySet, Settings, Slot};
use tidegate_core::row::{Key, Kind, Row};
use tidegate_policies::{Ceilings, Host, Shelf};

use crate::policies::Loader;
use crate::seam::Disk;
use crate::store::{Before, Blobs, Follower, OpenError, Snapshot, Store, StoreError, View};
use repeat::Repeat;

/// What was compared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The last entry before the journal.
    pub base: u64,
    /// Entries of the journal.
    pub entries: u64,
    /// Of those, entries that were stepped again.
    pub stepped: u64,
    /// Boots among them.
    pub boots: u64,
    /// Changes compared or applied.
    pub changes: u64,
    /// Records compared at the end, by kind.
    pub rows: BTreeMap<Kind, u64>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.base {
            0 => write!(f, "from the beginning: ")?,
            base => write!(f, "from the base at {base} on (what was before left the journal): ")?,
        }
        write!(
            f,
            "{} entries ({} stepped, {} boots), {} changes, {} records: equal",
            self.entries,
            self.stepped,
            self.boots,
            self.changes,
            self.rows.values().sum::<u64>()
        )
    }
}

/// Where a replay and life differ.
#[derive(Debug, thiserror::Error)]
pub enum Divergence {
    /// A step gave another change than it did in life.
    #[error("entry {seq} ({input}), change {at}: life {}, replay {}", shown(life.as_deref()), shown(replay.as_deref()))]
    Change {
        /// The entry.
        seq: Seq,
        /// Name of its input.
        input: &'static str,
        /// Which change, from 0.
        at: usize,
        /// What life had.
        life: Option<Box<Change>>,
        /// What the replay has.
        replay: Option<Box<Change>>,
    },
    /// Policies ruled otherwise than they did in life.
    #[error("entry {seq} ({input}): rulings differ: life {life}, replay {replay}")]
    Ruling {
        /// The entry.
        seq: Seq,
        /// Name of its input.
        input: &'static str,
        /// What life had.
        life: String,
        /// What the replay has.
        replay: String,
    },
    /// Policies cannot be asked again: the bytes of one are gone.
    #[error(
        "entry {seq} ({input}): the module {module} decided here, and its bytes are gone: it was removed, or it had to \
         make room for another. Everything before this entry is equal; from here on nothing can be compared"
    )]
    ModuleGone {
        /// The entry.
        seq: Seq,
        /// Name of its input.
        input: &'static str,
        /// Which module.
        module: Sha256,
    },
    /// A record that a step was given is not what the records before it say.
    #[error("entry {seq} ({input}) consulted {key:?}: life {}, replay {}", shown(life.as_deref()), shown(replay.as_deref()))]
    Consulted {
        /// The entry.
        seq: Seq,
        /// Name of its input.
        input: &'static str,
        /// The record.
        key: Key,
        /// What life had.
        life: Option<Box<Row>>,
        /// What the replay has.
        replay: Option<Box<Row>>,
    },
    /// A step would consult a record that life did not.
    #[error("entry {seq} ({input}): replay consults {key:?}, life did not")]
    Unasked {
        /// The entry.
        seq: Seq,
        /// Name of its input.
        input: &'static str,
        /// The record.
        key: Key,
    },
    /// A step and its changes alone give different records.
    #[error("entry {seq} ({input}): stepping gives {key:?} {}, its changes alone give {}", shown(stepped.as_deref()), shown(applied.as_deref()))]
    Applied {
        /// The entry.
        seq: Seq,
        /// Name of its input.
        input: &'static str,
        /// The record.
        key: Key,
        /// By the step.
        stepped: Option<Box<Row>>,
        /// By the changes.
        applied: Option<Box<Row>>,
    },
    /// At the end, a record is not what the store holds.
    #[error("at the end, {key:?}: the store holds {}, replay {}", shown(life.as_deref()), shown(replay.as_deref()))]
    Record {
        /// The record.
        key: Key,
        /// What the store holds.
        life: Option<Box<Row>>,
        /// What the replay has.
        replay: Option<Box<Row>>,
    },
    /// A number is missing in the journal.
    #[error("the journal has a gap: entry {found} where {expected} should be")]
    Gap {
        /// The entry that should be there.
        expected: Seq,
        /// The entry that is.
        found: Seq,
    },
    /// The store could not be read, or a change is not legal where it stands.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The data directory could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
}

fn shown<T: fmt::Debug>(thing: Option<&T>) -> String {
    thing.map_or_else(|| "nothing".to_owned(), |thing| format!("{thing:?}"))
}

/// Verifies the data directory of a site that does not run, of this program's format or an earlier one. Takes its lock
/// for as long, and writes nothing.
///
/// # Errors
/// The first difference.
pub fn verify_dir<D: Disk>(disk: &D, dir: &Path) -> Result<Report, Divergence> {
    let store = Store::open_existing(disk, dir)?;
    let modules = Modules::Of(Blobs::peek(disk, dir), OnceLock::new());
    run(&store.view(), true, &modules)
}

/// Steps every entry again and compares changes, rulings and records; also that the changes alone give the records. Of a
/// site that runs no modules: see [`verify_dir`].
///
/// # Errors
/// The first difference.
pub fn verify(view: &View) -> Result<Report, Divergence> {
    run(view, true, &Modules::None)
}

/// Applies the changes of every entry, without stepping, and compares the records.
///
/// # Errors
/// The first difference.
pub fn verify_changes(view: &View) -> Result<Report, Divergence> {
    run(view, false, &Modules::None)
}

/// Where the modules of a site are.
enum Modules {
    /// It runs none.
    None,
    /// There. The engine is made when the first set needs it.
    Of(Blobs, OnceLock<Loader>),
}

impl Modules {
    /// Gets a set ready to be asked. Where that fails the shelf stands in for it, and says so in its rulings. Returns the
    /// module whose bytes are gone, if it failed for that.
    fn prepare(&self, set: &PolicySet, shelf: &mut Shelf) -> Option<Sha256> {
        let loader = match self {
            Modules::None => &Loader::native(),
            Modules::Of(blobs, loader) if Slot::ALL.iter().any(|slot| set.module(*slot).is_some()) => {
                loader.get_or_init(|| match Host::new(ceilings()) {
                    Ok(host) => Loader::repeating(host, blobs.clone()),
                    Err(error) => {
                        tracing::error!(%error, "this machine cannot run policies, so they cannot be asked again");
                        Loader::native()
                    }
                })
            }
            Modules::Of(..) => &Loader::native(),
        };
        match loader.prepare(set) {
            Ok(seated) => {
                shelf.put_seated(seated);
                None
            }
            Err((slot, why)) => {
                tracing::warn!(slot = slot.name(), %why, "a set of policies cannot be made ready again");
                set.module(slot).filter(|_| why.is_unreadable())
            }
        }
    }
}

/// Those of a site, but for the size of modules, which is a matter of its configuration.
fn ceilings() -> Ceilings {
    Ceilings { bytes: usize::MAX, ..Ceilings::default() }
}

fn run(view: &View, step: bool, modules: &Modules) -> Result<Report, Divergence> {
    let snapshot = view.snapshot()?;
    let base = snapshot.base()?;
    let mut rows = BTreeMap::new();
    for kind in Kind::ALL {
        snapshot.walk_base(kind, |key, row| {
            rows.insert(key, row);
            ControlFlow::Continue(())
        })?;
    }
    let mut replay = Replay {
        shadow: Follower::new(&Then(&rows))?,
        rows,
        machine: None,
        earlier: snapshot.earlier()?,
        shelf: Shelf::with_builtin(Settings::default()),
        modules,
        gone: BTreeMap::new(),
        out: Output::default(),
        next: Seq(base.0 + 1),
        report: Report { base: base.0, ..Report::default() },
    };
    let mut ended = Ok(());
    snapshot.walk_journal(Seq(base.0 + 1), |entry| {
        ended = replay.entry(&entry, step);
        if ended.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    ended?;
    replay.compare(&snapshot)?;
    Ok(replay.report)
}

/// A machine that holds what a driver loads at boot.
fn hot(rows: &BTreeMap<Key, Row>) -> Machine {
    let mut machine = Machine::new();
    for (key, row) in rows {
        if Machine::is_hot(row) {
            machine.load(key, row.clone());
        }
    }
    machine
}

/// The records as they stand before an entry. The shadow keeps what its changes made of them.
struct Then<'a>(&'a BTreeMap<Key, Row>);

impl Before for Then<'_> {
    fn row(&self, key: &Key) -> Result<Option<Row>, StoreError> {
        Ok(self.0.get(key).cloned())
    }

    fn parts(&self, job: JobId) -> Result<Vec<(Key, Row)>, StoreError> {
        let all = Key::Part(job, PartNo(u16::MIN))..=Key::Part(job, PartNo(u16::MAX));
        Ok(self.0.range(all).map(|(key, row)| (key.clone(), row.clone())).collect())
    }
}

struct Replay<'a> {
    /// The records as they stand after the last entry.
    rows: BTreeMap<Key, Row>,
    /// Steps; `None` before the first boot of the journal.
    machine: Option<Machine>,
    /// The last entry that a program of an earlier format wrote.
    earlier: Seq,
    /// Applies changes alone.
    shadow: Follower,
    shelf: Shelf,
    modules: &'a Modules,
    /// Sets that cannot be asked again, and the module of each whose bytes are gone.
    gone: BTreeMap<PolicySetId, Sha256>,
    out: Output,
    next: Seq,
    report: Report,
}

impl Replay<'_> {
    fn entry(&mut self, entry: &JournalEntry, step: bool) -> Result<(), Divergence> {
        if entry.seq != self.next {
            return Err(Divergence::Gap { expected: self.next, found: entry.seq });
        }
        self.next = Seq(entry.seq.0 + 1);
        self.report.entries += 1;
        self.report.changes += entry.changes.len() as u64;
        if let Input::Boot { knobs, .. } = &entry.input {
            self.report.boots += 1;
            self.machine = (step && entry.seq > self.earlier).then(|| hot(&self.rows));
            if let Some(machine) = &self.machine {
                self.shelf.add_builtin(knobs.builtin.clone());
                let gone = self.modules.prepare(&machine.parts().policies.set_under(knobs), &mut self.shelf);
                self.gone.extend(gone.map(|module| (entry.policies, module)));
            }
        } else if let Some(machine) = &self.machine
            && !self.shelf.holds(entry.policies)
            && !self.gone.contains_key(&entry.policies)
        {
            let gone = self.modules.prepare(machine.active_set(), &mut self.shelf);
            self.gone.extend(gone.map(|module| (entry.policies, module)));
        }
        let input = entry.input.name();
        for (key, life) in &entry.cold {
            let replay = self.rows.get(key);
            if replay != life.as_ref() {
                let (life, replay) = (boxed(life.as_ref()), boxed(replay));
                return Err(Divergence::Consulted { seq: entry.seq, input, key: key.clone(), life, replay });
            }
        }
        let touched = self.shadow.apply(entry, &Then(&self.rows))?;
        let mut rows: BTreeMap<Key, Option<Row>> = touched
            .into_iter()
            .map(|key| {
                let row = self.shadow.row(&key);
                (key, row)
            })
            .collect();
        if let Some(machine) = &mut self.machine {
            self.report.stepped += 1;
            let cold: Rows = entry.cold.iter().cloned().collect();
            let mut unasked = BTreeSet::new();
            machine.wants(entry.now, &entry.input, &cold, &mut unasked);
            if let Some(key) = unasked.pop_first() {
                return Err(Divergence::Unasked { seq: entry.seq, input, key });
            }
            self.out.clear();
            let set = match &entry.input {
                Input::Boot { knobs, .. } => machine.parts().policies.set_under(knobs),
                _ => machine.active_set().clone(),
            };
            let mut repeat = Repeat::new(self.shelf.get(entry.policies), entry, set.floor);
            machine.step(entry.now, &entry.input, &cold, &mut repeat, &mut self.out);
            // Where life did not ask the module either, nothing is missing.
            self.compare_step(entry).map_err(|divergence| match self.gone.get(&entry.policies) {
                Some(module) => Divergence::ModuleGone { seq: entry.seq, input, module: *module },
                None => divergence,
            })?;
            for (key, stepped) in self.out.rows.drain(..) {
                let applied = self.shadow.row(&key);
                if applied != stepped {
                    let (stepped, applied) = (boxed(stepped.as_ref()), boxed(applied.as_ref()));
                    return Err(Divergence::Applied { seq: entry.seq, input, key, stepped, applied });
                }
                rows.insert(key, stepped);
            }
        }
        for (key, row) in rows {
            match row {
                Some(row) => self.rows.insert(key, row),
                None => self.rows.remove(&key),
            };
        }
        Ok(())
    }

    fn compare_step(&self, entry: &JournalEntry) -> Result<(), Divergence> {
        let (seq, input) = (entry.seq, entry.input.name());
        let most = entry.changes.len().max(self.out.changes.len());
        for at in 0..most {
            let (life, replay) = (entry.changes.get(at), self.out.changes.get(at));
            if life != replay {
                return Err(Divergence::Change { seq, input, at, life: boxed(life), replay: boxed(replay) });
            }
        }
        if entry.rulings != self.out.rulings {
            let (life, replay) = (format!("{:?}", entry.rulings), format!("{:?}", self.out.rulings));
            return Err(Divergence::Ruling { seq, input, life, replay });
        }
        Ok(())
    }

    fn compare(&mut self, snapshot: &Snapshot) -> Result<(), Divergence> {
        let mut left = self.rows.clone();
        let mut different = None;
        for kind in Kind::ALL {
            let mut count = 0;
            snapshot.walk(kind, false, |key, life| {
                count += 1;
                let replay = left.remove(&key);
                if replay.as_ref() == Some(&life) {
                    return ControlFlow::Continue(());
                }
                different = Some(Divergence::Record {
                    key,
                    life: Some(Box::new(life)),
                    replay: replay.map(Box::new),
                });
                ControlFlow::Break(())
            })?;
            if let Some(different) = different {
                return Err(different);
            }
            self.report.rows.insert(kind, count);
        }
        match left.pop_first() {
            Some((key, row)) => Err(Divergence::Record { key, life: None, replay: Some(Box::new(row)) }),
            None => Ok(()),
        }
    }
}

fn boxed<T: Clone>(thing: Option<&T>) -> Option<Box<T>> {
    thing.cloned().map(Box::new)
}

mod repeat;
#[cfg(test)]
mod tests;
