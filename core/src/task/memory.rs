//! Which rows are in memory, and how a text from outside finds one. Decides nothing about them.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use super::Tasks;
use crate::bug::planted;
use crate::id::{DeviceId, EpisodeId, ObjectKey, TaskId, Ticket, WireId};
use crate::machine::Rows;
use crate::row::{EpisodeRow, Key, Row, TaskRow};
use crate::wire::transfer::Announced;

/// An attempt that a device named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Named {
    /// Its task.
    pub(super) task: TaskId,
    /// Its name among devices.
    pub(super) wire: WireId,
    /// Whether it is the task's current attempt.
    pub(super) current: bool,
}

impl Tasks {
    /// Takes the number of the next episode.
    pub fn load_counter(&mut self, next_episode: u64) {
        self.next_episode = next_episode;
    }

    /// Number of the next episode.
    #[must_use]
    pub fn counter(&self) -> u64 {
        self.next_episode
    }

    /// Takes a record into memory. One that is there already is newer than any that was read, and stays.
    pub fn load(&mut self, key: &Key, row: Row) {
        match (key, row) {
            (Key::Task(id), Row::Task(row)) => {
                if !self.tasks.contains_key(id) {
                    self.put_task(row);
                }
            }
            (Key::Episode(id), Row::Episode(row)) => {
                self.episodes.entry(*id).or_insert(row);
            }
            (Key::Alias(id), Row::Alias(row)) => {
                self.aliases.entry(id.clone()).or_insert(row);
            }
            (Key::Binding(id), Row::Binding(row)) => {
                self.bindings.entry(id.clone()).or_insert(row);
            }
            (key, row) => {
                panic!("a {:?} record under {key:?} is not for the tasks", row.kind())
            }
        }
        self.visited.insert(key.clone());
    }

    /// What a record is now; `None` is not there or not in memory.
    #[must_use]
    pub fn row(&self, key: &Key) -> Option<Row> {
        match key {
            Key::Task(id) => self.tasks.get(id).cloned().map(Row::Task),
            Key::Episode(id) => self.episodes.get(id).cloned().map(Row::Episode),
            Key::Alias(id) => self.aliases.get(id).cloned().map(Row::Alias),
            Key::Binding(id) => self.bindings.get(id).cloned().map(Row::Binding),
            Key::Meta | Key::Job(_) | Key::Upload(_) | Key::Part(..) | Key::Policy | Key::Module(_) => None,
        }
    }

    /// Begins a step that read these records.
    pub fn begin_step(&mut self, cold: &Rows) {
        self.asked.clear();
        self.asked.extend(cold.keys().cloned());
    }

    /// Drops from memory what is neither hot nor needed by a pending verification.
    pub fn evict(&mut self) {
        for key in core::mem::take(&mut self.visited) {
            match &key {
                Key::Task(id) => {
                    let cold = self.tasks.get(id).is_some_and(|row| !Tasks::is_hot_task(row));
                    if cold && !self.is_verifying(|v| v.task == *id) {
                        self.drop_task(id);
                    }
                }
                Key::Episode(id) => {
                    if self.episodes.get(id).is_some_and(|row| !Tasks::is_hot_episode(row)) {
                        self.episodes.remove(id);
                    }
                }
                Key::Alias(wire) => {
                    self.aliases.remove(wire);
                }
                Key::Binding(key) => {
                    if !self.is_verifying(|v| v.key == *key) {
                        self.bindings.remove(key);
                    }
                }
                Key::Meta | Key::Job(_) | Key::Upload(_) | Key::Part(..) | Key::Policy | Key::Module(_) => {}
            }
        }
        self.asked.clear();
    }

    /// Whether a task must be in memory from boot on.
    #[must_use]
    pub fn is_hot_task(row: &TaskRow) -> bool {
        !row.state.is_final()
    }

    /// Whether an episode must be in memory from boot on: while its copy is at the edge it may still have to be checked,
    /// go to the cloud or be removed, and its keys are frozen. That holds for rejected ones as well.
    #[must_use]
    pub fn is_hot_episode(row: &EpisodeRow) -> bool {
        row.removed_at.is_none()
    }

    /// Forgets everything that no row holds.
    pub fn forget_volatile(&mut self) {
        let verifies = core::mem::take(&mut self.verifies);
        for verify in verifies.into_values() {
            self.visited.extend([Key::Task(verify.task), Key::Binding(verify.key)]);
        }
        self.asked.clear();
        self.uploaders.clear();
        self.sides.clear();
        self.removals.clear();
        self.looks.clear();
        self.errands.clear();
        self.crowded.clear();
        self.held.clear();
        self.short = false;
        self.scans = super::scan::Scans::default();
    }

    /// Puts a task row in place, and its wire id in the index.
    pub(super) fn put_task(&mut self, row: TaskRow) {
        if let Some(old) = self.tasks.get(&row.id) {
            self.current.remove(&old.wire);
        }
        self.current.insert(row.wire.clone(), row.id.clone());
        self.tasks.insert(row.id.clone(), row);
    }

    fn drop_task(&mut self, id: &TaskId) {
        if let Some(row) = self.tasks.remove(id) {
            self.current.remove(&row.wire);
        }
        self.sides.remove(id);
        self.held.remove(id);
    }

    fn is_verifying(&self, which: impl Fn(&super::Verify) -> bool) -> bool {
        self.verifies.values().any(which)
    }
}

/// Finding rows by names from outside.
impl Tasks {
    /// The attempt that a device names.
    pub(super) fn by_device(&self, text: &str) -> Option<Named> {
        let wire = WireId::new(text).ok()?;
        let first = TaskId::new(text).ok().filter(|id| self.tasks.contains_key(id));
        let task = first
            .or_else(|| self.current.get(&wire).cloned())
            .or_else(|| self.aliases.get(&wire).map(|alias| alias.task.clone()));
        let Some(task) = task else {
            self.assert_asked(text, &wire);
            return None;
        };
        let row = self.tasks.get(&task);
        assert!(row.is_some(), "the task of alias {wire} was not asked for");
        let current = row?.wire == wire;
        Some(Named { task, wire, current })
    }

    /// The attempt that a device names, if it is its own.
    pub(super) fn owned(&self, device: &DeviceId, text: &str) -> Option<Named> {
        let own = |named: &Named| self.tasks.get(&named.task).is_some_and(|r| r.device == *device);
        self.by_device(text).filter(|named| own(named) || planted!(self, X17))
    }

    /// The task that an operator names: by its own id or by the wire id of its current attempt.
    pub(super) fn by_operator(&self, text: &str) -> Option<&TaskRow> {
        let wire = WireId::new(text).ok()?;
        let first = TaskId::new(text).ok().and_then(|id| self.tasks.get(&id));
        let found = first.or_else(|| self.tasks.get(self.current.get(&wire)?));
        if found.is_none() && !self.aliases.contains_key(&wire) {
            self.assert_asked(text, &wire);
        }
        found
    }

    /// A task that is not final, by the wire id of its current attempt. Those are always in memory.
    pub(super) fn live(&self, device: &DeviceId, wire: &str) -> Option<&TaskRow> {
        let wire = WireId::new(wire).ok()?;
        let row = self.tasks.get(self.current.get(&wire)?)?;
        (row.device == *device && !row.state.is_final()).then_some(row)
    }

    /// An episode that a request names.
    pub(super) fn episode(&self, id: EpisodeId) -> Option<&EpisodeRow> {
        let found = self.episodes.get(&id);
        assert!(
            found.is_some() || self.asked.contains(&Key::Episode(id)),
            "episode {id} was looked up but not asked for"
        );
        found
    }

    /// Asserts that an absent task is known to be absent.
    pub(super) fn assert_asked(&self, text: &str, wire: &WireId) {
        if let Ok(id) = TaskId::new(text) {
            assert!(self.asked.contains(&Key::Task(id)), "task {text} was looked up but not asked for");
        }
        assert!(
            self.asked.contains(&Key::Alias(wire.clone())),
            "wire id {text} was looked up but not asked for"
        );
    }
}

/// Naming the rows that an input will look up.
impl Tasks {
    /// A task by public id or by any of its wire ids.
    pub fn want_task(&self, task: &str, have: &Rows, keys: &mut BTreeSet<Key>) {
        let Ok(wire) = WireId::new(task) else { return };
        if self.current.contains_key(&wire) {
            return;
        }
        if let Ok(id) = TaskId::new(task) {
            let key = Key::Task(id);
            if self.is_known(&key, have) {
                return;
            }
            keys.insert(key);
        }
        let key = Key::Alias(wire.clone());
        let task = match (self.aliases.get(&wire), have.get(&key)) {
            (Some(alias), _) | (None, Some(Some(Row::Alias(alias)))) => alias.task.clone(),
            (None, _) => {
                keys.insert(key);
                return;
            }
        };
        if !self.tasks.contains_key(&task) {
            keys.insert(Key::Task(task));
        }
    }

    /// A name for a new task: it must be neither a task nor an attempt of one.
    pub fn want_new(&self, task: &TaskId, have: &Rows, keys: &mut BTreeSet<Key>) {
        self.want_task(task.as_str(), have, keys);
    }

    /// An episode.
    pub fn want_episode(&self, episode: EpisodeId, keys: &mut BTreeSet<Key>) {
        if !self.episodes.contains_key(&episode) {
            keys.insert(Key::Episode(episode));
        }
    }

    /// What an uploader says of a recording: its task, and to whom its key belongs.
    pub fn want_announced(&self, announced: &Announced, have: &Rows, keys: &mut BTreeSet<Key>) {
        self.want_task(&announced.task, have, keys);
        let Some(key) = announced.key.as_deref().and_then(|key| ObjectKey::new(key).ok()) else { return };
        let wanted = Key::Binding(key.clone());
        let binding = match (self.bindings.get(&key), have.get(&wanted)) {
            (Some(row), _) | (None, Some(Some(Row::Binding(row)))) => row,
            (None, _) => {
                keys.insert(wanted);
                return;
            }
        };
        if let Some(episode) = binding.episode {
            self.want_episode(episode, keys);
        }
    }

    /// A task, and to whom the key belongs that its uploader last announced for it.
    pub fn want_known(&self, task: &str, have: &Rows, keys: &mut BTreeSet<Key>) {
        self.want_task(task, have, keys);
        let id = WireId::new(task).ok().and_then(|wire| self.current.get(&wire));
        let announced = id.and_then(|id| self.sides.get(id)).and_then(|side| side.announced.as_ref());
        if let Some(announced) = announced {
            self.want_announced(announced, have, keys);
        }
    }

    /// The attempt that would follow the current one of a task, for a command that may return it: its wire id must
    /// be free.
    pub fn want_successor(&self, task: &str, have: &Rows, keys: &mut BTreeSet<Key>) {
        self.want_task(task, have, keys);
        let Ok(wire) = WireId::new(task) else { return };
        let here = TaskId::new(task).ok().and_then(|id| self.tasks.get(&id));
        let Some(row) = here.or_else(|| self.tasks.get(self.current.get(&wire)?)) else { return };
        if row.state.is_final() {
            return;
        }
        for attempt in row.attempt.saturating_add(1)..=u32::MAX {
            let names = names_of(&WireId::of_attempt(&row.id, attempt));
            let taken = names.iter().any(|key| self.is_known(key, have));
            keys.extend(names);
            if !taken {
                return;
            }
        }
    }

    /// The first attempt after the current one whose wire id is free.
    pub(super) fn successor(&self, row: &TaskRow) -> u32 {
        let free = |attempt: &u32| {
            let wire = WireId::of_attempt(&row.id, *attempt);
            let names = names_of(&wire);
            let taken = names.iter().any(|key| self.row(key).is_some());
            assert!(
                taken || names.iter().all(|key| self.asked.contains(key)),
                "{wire} was chosen but not asked for"
            );
            !taken
        };
        (row.attempt.saturating_add(1)..=u32::MAX).find(free).unwrap_or(u32::MAX)
    }

    /// Everything that an outcome needs is in memory while the operation is out.
    pub fn want_ticket(&self, _ticket: Ticket, _have: &Rows, _keys: &mut BTreeSet<Key>) {}

    /// A stored object matters only to a pending verification, whose rows are in memory.
    pub fn want_stored(&self, _key: &ObjectKey, _have: &Rows, _keys: &mut BTreeSet<Key>) {}

    /// Whether a record is there, in memory or among those read.
    fn is_known(&self, key: &Key, have: &Rows) -> bool {
        let here = match key {
            Key::Task(id) => self.tasks.contains_key(id),
            Key::Alias(wire) => self.aliases.contains_key(wire),
            Key::Meta
            | Key::Episode(_)
            | Key::Job(_)
            | Key::Upload(_)
            | Key::Part(..)
            | Key::Binding(_)
            | Key::Policy
            | Key::Module(_) => false,
        };
        here || matches!(have.get(key), Some(Some(_)))
    }
}

/// The records under which a wire id may stand.
fn names_of(wire: &WireId) -> Vec<Key> {
    let task = TaskId::new(wire.as_str()).ok().map(Key::Task);
    task.into_iter().chain([Key::Alias(wire.clone())]).collect()
}
