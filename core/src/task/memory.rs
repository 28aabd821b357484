//! Which rows are in memory, and how a text from outside finds one. Decides nothing about them.

use alloc::collections::BTreeSet;
use alloc::string::ToString;
use alloc::vec::Vec;

use super::overdue::Overdue;
use super::transfer::name_of;
use super::{Errand, Tasks};
use crate::bug::planted;
use crate::id::{DeviceId, EpisodeId, ObjectKey, TaskId, Ticket, WireId};
use crate::machine::Rows;
use crate::object::{ObjectReply, is_recording_of};
use crate::outcome::Outcome;
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
            Key::Meta
            | Key::Device(_)
            | Key::Job(_)
            | Key::Upload(_)
            | Key::Part(..)
            | Key::Policy
            | Key::Token(_)
            | Key::Module(_) => None,
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
                    if cold && !self.is_verified(id) {
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
                    if self.verified_at(key).is_none() {
                        self.bindings.remove(key);
                    }
                }
                Key::Meta
                | Key::Device(_)
                | Key::Job(_)
                | Key::Upload(_)
                | Key::Part(..)
                | Key::Policy
                | Key::Token(_)
                | Key::Module(_) => {}
            }
        }
        self.asked.clear();
    }

    /// Whether a task must be in memory from boot on: also one that is over, while a recording of it is owed.
    #[must_use]
    pub fn is_hot_task(row: &TaskRow) -> bool {
        !row.state.is_final() || super::reconcile::owes(row)
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
        self.recorders.clear();
        self.back_by = None;
        self.sides.clear();
        self.removals.clear();
        self.looks.clear();
        self.errands.clear();
        self.crowded.clear();
        self.new_keys = super::keys::NewKeys::default();
        self.held.clear();
        self.short = false;
        self.asking.clear();
        self.searches.clear();
        self.overdue = Overdue::default();
        self.scans = super::scan::Scans::default();
    }

    /// Puts a task row in place, and its wire id and its device in the indexes. A task's device never changes.
    pub(super) fn put_task(&mut self, row: TaskRow) {
        if let Some(old) = self.tasks.get(&row.id) {
            self.current.remove(&old.wire);
            assert!(old.device == row.device, "I11: task {} changes its device", row.id);
        }
        self.current.insert(row.wire.clone(), row.id.clone());
        self.of_device.entry(row.device.clone()).or_default().insert(row.id.clone());
        self.tasks.insert(row.id.clone(), row);
    }

    fn drop_task(&mut self, id: &TaskId) {
        if let Some(row) = self.tasks.remove(id) {
            self.current.remove(&row.wire);
            if let Some(tasks) = self.of_device.get_mut(&row.device) {
                tasks.remove(id);
                if tasks.is_empty() {
                    self.of_device.remove(&row.device);
                }
            }
        }
        self.sides.remove(id);
        self.held.remove(id);
    }

    /// The tasks of a device that are in memory: every one that is not final, and those of this step.
    pub(super) fn tasks_of(&self, device: &DeviceId) -> impl Iterator<Item = &TaskRow> {
        self.of_device.get(device).into_iter().flatten().filter_map(|id| self.tasks.get(id))
    }

    /// The verifications of a device's recordings.
    pub(super) fn verifies_of(
        &self,
        device: &DeviceId,
    ) -> impl Iterator<Item = (&(DeviceId, WireId), &super::Verify)> {
        let first = (device.clone(), WireId::LEAST);
        self.verifies.range(first..).take_while(move |((whose, _), _)| whose == device)
    }

    /// The verification that looks at the recording under this key. There is at most one: a key belongs to one attempt
    /// for ever, and its rows stay in memory as long as the verification is there.
    pub(super) fn verified_at(&self, key: &ObjectKey) -> Option<(DeviceId, WireId)> {
        if planted!(self, X17) {
            return self.verifies.iter().find(|(_, verify)| verify.key == *key).map(|(at, _)| at.clone());
        }
        let binding = self.bindings.get(key)?;
        let device = self.tasks.get(&binding.task)?.device.clone();
        let at = (device, binding.wire.clone());
        self.verifies.get(&at).is_some_and(|verify| verify.key == *key).then_some(at)
    }

    /// Whether a recording of this task is being verified.
    fn is_verified(&self, task: &TaskId) -> bool {
        if planted!(self, X17) {
            return self.verifies.values().any(|verify| verify.task == *task);
        }
        let row = self.tasks.get(task);
        row.is_some_and(|row| self.verifies_of(&row.device).any(|(_, verify)| verify.task == *task))
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

    /// The attempt that a key is the name of, if there is one of that name: uploaders name recordings so.
    pub(super) fn named_by(&self, key: &ObjectKey) -> Option<Named> {
        let named = self.by_device(name_of(key.as_str())?)?;
        let row = self.tasks.get(&named.task)?;
        is_recording_of(key.as_str(), &row.device, &named.wire).then_some(named)
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
        // It may be the name of another one's recording.
        if let Some(name) = name_of(key.as_str()) {
            self.want_task(name, have, keys);
        }
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
        if let Some(row) = self.row_named(task, have)
            && self.sides.get(&row.id).is_none_or(|side| side.successor.is_none())
        {
            self.want_next(row, have, keys);
        }
    }

    /// The attempt after the one that would follow the current one of a task: for an answer that may put the task back
    /// and name it again.
    pub fn want_beyond(&self, task: &str, have: &Rows, keys: &mut BTreeSet<Key>) {
        let Some(row) = self.row_named(task, have) else { return };
        let chosen = self.sides.get(&row.id).and_then(|side| side.successor);
        if let Some(next) = chosen.or_else(|| self.first_free(row, have)) {
            self.want_after(row, next, have, keys);
        }
    }

    /// The task of this name, if it is in memory: by its own id or any of its wire ids.
    fn row_named(&self, task: &str, have: &Rows) -> Option<&TaskRow> {
        let wire = WireId::new(task).ok()?;
        let here = TaskId::new(task).ok().and_then(|id| self.tasks.get(&id));
        let alias = || match (self.aliases.get(&wire), have.get(&Key::Alias(wire.clone()))) {
            (Some(alias), _) | (None, Some(Some(Row::Alias(alias)))) => self.tasks.get(&alias.task),
            (None, _) => None,
        };
        here.or_else(|| self.tasks.get(self.current.get(&wire)?)).or_else(alias)
    }

    /// The task of this name, in memory or among those read.
    fn row_read<'a>(&'a self, wire: &WireId, have: &'a Rows) -> Option<&'a TaskRow> {
        let read = |id: &TaskId| match (self.tasks.get(id), have.get(&Key::Task(id.clone()))) {
            (Some(row), _) | (None, Some(Some(Row::Task(row)))) => Some(row),
            (None, _) => None,
        };
        let here = TaskId::new(wire.as_str()).ok().and_then(|id| read(&id));
        let alias = || match (self.aliases.get(wire), have.get(&Key::Alias(wire.clone()))) {
            (Some(alias), _) | (None, Some(Some(Row::Alias(alias)))) => read(&alias.task),
            (None, _) => None,
        };
        here.or_else(|| self.tasks.get(self.current.get(wire)?)).or_else(alias)
    }

    /// The first attempt after the current one whose name is free, if that is known yet.
    fn first_free(&self, row: &TaskRow, have: &Rows) -> Option<u32> {
        let taken = |attempt: &u32| {
            let names = names_of(&WireId::of_attempt(&row.id, *attempt));
            names.iter().any(|key| self.is_known(key, have))
        };
        let next = (row.attempt.saturating_add(1)..=u32::MAX).find(|attempt| !taken(attempt))?;
        let names = names_of(&WireId::of_attempt(&row.id, next));
        names.iter().all(|key| have.get(key).is_some_and(Option::is_none)).then_some(next)
    }

    /// The attempts that would follow those that may have to be put back.
    pub fn want_successors(&self, have: &Rows, keys: &mut BTreeSet<Key>) {
        let begun = |row: &&TaskRow| super::reconcile::at_stake(row) && row.begun;
        for row in self.tasks.values().filter(begun) {
            self.want_next(row, have, keys);
        }
    }

    /// The next attempt of a task, unless it ended.
    fn want_next(&self, row: &TaskRow, have: &Rows, keys: &mut BTreeSet<Key>) {
        self.want_after(row, row.attempt, have, keys);
    }

    /// The first attempt of a task after this one whose name is free, unless the task ended.
    fn want_after(&self, row: &TaskRow, attempt: u32, have: &Rows, keys: &mut BTreeSet<Key>) {
        if row.state.is_final() {
            return;
        }
        // As many again as are known to be taken, so that a long row of them is read in a few rounds.
        let (mut taken, mut asked) = (0_u32, 0_u32);
        for attempt in attempt.saturating_add(1)..=u32::MAX {
            let names = names_of(&WireId::of_attempt(&row.id, attempt));
            let free = names.iter().all(|key| have.get(key).is_some_and(Option::is_none));
            if names.iter().any(|key| self.is_known(key, have)) {
                taken = taken.saturating_add(1);
            } else {
                asked = asked.saturating_add(1);
            }
            keys.extend(names);
            if free || asked > taken {
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

    /// Everything that an outcome needs is in memory while the operation is out, except for a search.
    /// What a search found is another's, perhaps: its owners are looked up. What it did not find may have become an episode.
    pub fn want_ticket(
        &self,
        ticket: Ticket,
        outcome: Option<&Outcome<ObjectReply>>,
        have: &Rows,
        keys: &mut BTreeSet<Key>,
    ) {
        let Some(Errand::Find(_, wire)) = self.errands.get(&ticket) else { return };
        self.want_task(wire.as_str(), have, keys);
        let Some(Outcome::Done(ObjectReply::Found(found))) = outcome else { return };
        if let Some(episode) =
            self.row_read(wire, have).filter(|row| row.wire == *wire).and_then(|row| row.episode)
        {
            self.want_episode(episode, keys);
        }
        for key in found {
            let found = Announced {
                task: wire.to_string(),
                key: Some(key.to_string()),
                len: None,
                sha256: None,
                mcap_only: None,
            };
            self.want_announced(&found, have, keys);
        }
    }

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
            | Key::Device(_)
            | Key::Token(_)
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
