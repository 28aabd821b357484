//! Tasks, episodes and the verification of recordings: when a device may be told that it can delete its copy.
//! Must not send a frame or touch a job itself: the hub and the queue hear facts.
//!
//! | file | owns |
//! |---|---|
//! | `state` | the legal transitions of a task |
//! | `memory` | which rows are in memory, how a text from outside finds one |
//! | `command` | which commands the tasks let pass, and what their ends mean |
//! | `report` | recorders' reports and callbacks, making and calling off tasks |
//! | `reconcile` | what a report says of the tasks it does not name, absence, recordings that are owed |
//! | `conflict` | what a recorder holds against its records, and how a person settles it |
//! | `transfer` | uploaders' messages, asking for uploads again |
//! | `uploader` | how often an uploader is asked what became of its recordings, what operators have said to it |
//! | `find` | the search for recordings whose key nobody said |
//! | `overdue` | recordings that do not come, and settling their tasks |
//! | `verify` | the way from a claim to an episode and its acknowledgement |
//! | `compare` | whether everything said of a recording agrees |
//! | `episode` | judging episodes, handing them to the queue, what the queue made of them |
//! | `inspect` | checking the content of what was acknowledged, and the site's own verdict |
//! | `remove` | removing the edge copy of what is in the cloud |

mod command;
mod compare;
mod conflict;
mod date;
mod episode;
mod find;
mod inspect;
mod keys;
mod memory;
mod overdue;
mod reconcile;
mod remove;
mod report;
mod scan;
mod state;
#[cfg(test)]
mod tests;
mod transfer;
mod uploader;
mod verify;

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};

use crate::bug::Heralds;
use crate::change::{Change, EpisodeChange, TaskChange};
use crate::cx::Cx;
use crate::effect::Notice;
use crate::id::{ConnId, DeviceId, EpisodeId, ObjectKey, RequestId, TaskId, Ticket, WireId};
use crate::limits;
use crate::object::ObjectReply;
use crate::outcome::Outcome;
use crate::refusal::{Broken, Refusal};
use crate::row::{AliasRow, BindingRow, EpisodeRow, Key, SyncMark, TaskRow};
use crate::time::Mono;
use crate::wire::transfer::Announced;

use find::Search;
use inspect::Look;
use keys::NewKeys;
use overdue::Overdue;
use reconcile::{Asked, Quest, Seat};
use remove::Removal;
use scan::Scans;
pub(crate) use state::task_of;
use uploader::{Asking, Missing};
use verify::Verify;

/// Tasks, episodes, and the recordings on their way to become episodes.
#[derive(Debug)]
pub struct Tasks {
    // Rows. Those that are finished are here only while a step or a verification needs them.
    next_episode: u64,
    tasks: BTreeMap<TaskId, TaskRow>,
    /// Current wire ids of the tasks in memory.
    current: BTreeMap<WireId, TaskId>,
    /// Tasks in memory by their device: what one device says must not cost a look at the tasks of all.
    of_device: BTreeMap<DeviceId, BTreeSet<TaskId>>,
    aliases: BTreeMap<WireId, AliasRow>,
    episodes: BTreeMap<EpisodeId, EpisodeRow>,
    bindings: BTreeMap<ObjectKey, BindingRow>,
    /// Records that this step asked for: one that is not in memory now is not there at all.
    asked: BTreeSet<Key>,
    /// Records that came or changed since the last eviction: only they can have become cold.
    visited: BTreeSet<Key>,
    // Volatile.
    /// Uploader links that are up.
    uploaders: BTreeMap<DeviceId, ConnId>,
    /// Recorder links that are up, or were heard.
    recorders: BTreeMap<DeviceId, Seat>,
    /// Until when devices may come back that were there before this boot.
    back_by: Option<Mono>,
    /// How far each uploader was asked.
    asking: BTreeMap<DeviceId, Asking>,
    /// Recordings whose keys are looked for.
    searches: BTreeMap<(DeviceId, WireId), Search>,
    overdue: Overdue,
    sides: BTreeMap<TaskId, Side>,
    verifies: BTreeMap<(DeviceId, WireId), Verify>,
    removals: BTreeMap<EpisodeId, Removal>,
    /// Episodes whose content was not checked yet.
    looks: BTreeMap<EpisodeId, Look>,
    errands: BTreeMap<Ticket, Errand>,
    /// Devices that announced more recordings than we verify at once: they are asked again when there is room.
    crowded: BTreeSet<DeviceId>,
    new_keys: NewKeys,
    /// Whether the disk has room for another recording.
    short: bool,
    /// Tasks whose recordings are not asked for before there is room.
    held: BTreeSet<TaskId>,
    /// What policies did not want yet.
    scans: Scans,
    heralds: Heralds,
    #[cfg(tidegate_bugs)]
    pub(crate) bug: Option<crate::bug::Bug>,
}

/// What is known of a task in memory and forgotten by a restart.
#[derive(Clone, Debug, Default)]
struct Side {
    /// The device did a `finish` of the current attempt.
    finish_done: bool,
    /// How far the end of the current attempt was looked for although nobody said that it ended.
    quest: Option<Quest>,
    /// Keys that were announced for the current attempt before it was uploaded.
    keys: usize,
    /// What was done about recordings that are owed, by attempt.
    owed: BTreeMap<u32, Asked>,
    /// When, and on which link, the device was last asked to upload.
    asked: Option<(ConnId, Mono)>,
    /// What the uploader last said of the current attempt.
    announced: Option<Announced>,
    /// What speaks for it that the recording is nowhere, since its uploader did not find it.
    missing: Option<Missing>,
    /// The attempt that follows, chosen while cold records could be looked at.
    successor: Option<u32>,
}

/// What an object operation is for.
#[derive(Clone, Debug)]
enum Errand {
    /// The next step of a verification.
    Verify(DeviceId, WireId),
    /// The search for a recording whose key nobody said.
    Find(DeviceId, WireId),
    /// One object of an edge copy to be removed.
    Remove(EpisodeId),
    /// The check of a recording's content.
    Inspect(EpisodeId),
}

impl Default for Tasks {
    fn default() -> Self {
        Tasks {
            next_episode: 1,
            tasks: BTreeMap::new(),
            current: BTreeMap::new(),
            of_device: BTreeMap::new(),
            aliases: BTreeMap::new(),
            episodes: BTreeMap::new(),
            bindings: BTreeMap::new(),
            asked: BTreeSet::new(),
            visited: BTreeSet::new(),
            uploaders: BTreeMap::new(),
            recorders: BTreeMap::new(),
            back_by: None,
            asking: BTreeMap::new(),
            searches: BTreeMap::new(),
            overdue: Overdue::default(),
            sides: BTreeMap::new(),
            verifies: BTreeMap::new(),
            removals: BTreeMap::new(),
            looks: BTreeMap::new(),
            errands: BTreeMap::new(),
            crowded: BTreeSet::new(),
            new_keys: NewKeys::default(),
            short: false,
            held: BTreeSet::new(),
            scans: Scans::default(),
            heralds: Heralds::default(),
            #[cfg(tidegate_bugs)]
            bug: None,
        }
    }
}

impl Tasks {
    /// Takes up what the rows leave open. Verifications are not among it: the device's next status names them.
    pub fn on_boot(&mut self, cx: &mut Cx<'_>) {
        self.freeze_all(cx);
        self.plan_removals(cx);
        self.plan_looks(cx);
        self.arm_scan(cx);
        self.wait_for_recorders(cx);
        self.plan_deadlines(cx);
    }

    /// The site stops. A check is not worth waiting for: the next boot makes it again.
    pub fn on_shutdown(&mut self, cx: &mut Cx<'_>) {
        self.drop_looks(cx);
        self.wait_for_nobody(cx);
    }

    /// An operation we asked for ended.
    pub fn on_object(&mut self, cx: &mut Cx<'_>, ticket: Ticket, outcome: &Outcome<ObjectReply>) {
        match self.errands.remove(&ticket) {
            Some(Errand::Verify(device, wire)) => self.on_verify_step(cx, &device, &wire, ticket, outcome),
            Some(Errand::Find(device, wire)) => self.on_found(cx, &device, &wire, ticket, outcome),
            Some(Errand::Remove(episode)) => self.on_removed(cx, episode, ticket, outcome),
            Some(Errand::Inspect(episode)) => self.on_inspected(cx, episode, ticket, outcome),
            // `Cx::forget` drops outcomes of forgotten operations at the door.
            None => {}
        }
    }

    /// What an operation came to made the core panic too often: whatever it was for rests.
    pub fn on_quarantined(&mut self, cx: &mut Cx<'_>, ticket: Ticket, reason: &str) {
        match self.errands.remove(&ticket) {
            Some(Errand::Verify(device, wire)) => self.rest_quarantined(cx, &device, &wire, reason),
            Some(Errand::Find(device, wire)) => self.drop_search(cx, &(device, wire)),
            Some(Errand::Remove(episode)) => self.drop_removal(cx, episode),
            Some(Errand::Inspect(episode)) => self.rest_look(cx, episode),
            None => {}
        }
    }

    /// Applies a change that must be legal, and journals it.
    fn enact_task(&mut self, cx: &mut Cx<'_>, change: TaskChange) {
        let id = task_of(&change).clone();
        let seen = |row: &TaskRow| (row.state, row.attempt, row.error.clone());
        let old = self.tasks.get(&id).map(seen);
        let earlier = self.tasks.get(&id).and_then(|row| row.earlier.clone());
        let touched = self.apply_task(&change).expect("I11: only legal changes of tasks are enacted");
        if let Some(row) = self.tasks.get(&id)
            && old.as_ref() != Some(&seen(row))
        {
            let from = old.map(|(state, ..)| state);
            cx.publish(Notice::Task { row: Box::new(row.clone()), from, change: state::name(&change) });
        }
        cx.record(Change::Task(change), touched);
        self.tell_forgotten(cx, earlier.as_deref().unwrap_or_default(), &id);
        self.forget_words(&id);
        self.after_task(cx, &id);
        self.follow_upload(cx, &id);
    }

    /// What an uploader said before the end of a task is no evidence of what it says after it, though the task stays in
    /// memory for an attempt whose recording is owed.
    fn forget_words(&mut self, id: &TaskId) {
        if self.tasks.get(id).is_some_and(|row| row.state.is_final())
            && let Some(side) = self.sides.get_mut(id)
        {
            (side.announced, side.missing) = (None, None);
        }
    }

    /// Applies a change that must be legal, and journals it.
    fn enact_episode(&mut self, cx: &mut Cx<'_>, change: EpisodeChange) {
        let touched = self.apply_episode(&change).expect("I15: only legal changes of episodes are enacted");
        if let EpisodeChange::Recorded(row) = &change {
            cx.publish(Notice::Recording { row: row.clone() });
        }
        let recorded = match &change {
            EpisodeChange::Recorded(row) => Some((row.task.clone(), row.wire.clone())),
            _ => None,
        };
        cx.record(Change::Episode(change), touched);
        if let Some((task, wire)) = recorded {
            self.settle_owed(cx, &task, &wire);
        }
    }

    /// Checks what must hold of tasks, episodes and keys after every step.
    pub fn check(&self) -> Result<(), Broken> {
        self.check_tasks()?;
        self.check_episodes()?;
        self.check_volatile()
    }

    fn check_tasks(&self) -> Result<(), Broken> {
        for (id, row) in &self.tasks {
            let whole = row.id == *id
                && row.wire == WireId::of_attempt(id, row.attempt)
                && row.state.is_final() == row.completed_at.is_some()
                && self.current.get(&row.wire) == Some(id)
                && self.of_device.get(&row.device).is_some_and(|tasks| tasks.contains(id));
            if !whole {
                return broken("I11", alloc::format!("task row {row:?}"));
            }
        }
        if self.current.len() != self.tasks.len() {
            return broken(
                "I11",
                alloc::format!("{} wire ids, {} tasks", self.current.len(), self.tasks.len()),
            );
        }
        let indexed: usize = self.of_device.values().map(BTreeSet::len).sum();
        if indexed != self.tasks.len() || self.of_device.values().any(BTreeSet::is_empty) {
            return broken("I11", alloc::format!("{indexed} tasks by device, {} tasks", self.tasks.len()));
        }
        Ok(())
    }

    fn check_episodes(&self) -> Result<(), Broken> {
        for (id, row) in &self.episodes {
            let synced = matches!(row.sync, SyncMark::Synced { .. });
            if row.removed_at.is_some() && !synced {
                return broken("I20", alloc::format!("episode {id} lost its edge copy before it was synced"));
            }
            if id.0 >= self.next_episode {
                return broken("I15", alloc::format!("episode {id} was never counted"));
            }
            if matches!(row.sync, SyncMark::Queued(_)) && !row.qa.is_approved() {
                return broken("I15", alloc::format!("episode {id} is queued but not approved"));
            }
        }
        for (key, row) in &self.bindings {
            let Some(episode) = row.episode.and_then(|id| self.episodes.get(&id)) else { continue };
            if (&episode.key, &episode.task, &episode.wire) != (key, &row.task, &row.wire) {
                return broken("I15", alloc::format!("{key} names episode {} of another task", episode.id));
            }
        }
        Ok(())
    }

    fn check_volatile(&self) -> Result<(), Broken> {
        let mut waiting: BTreeMap<&DeviceId, usize> = BTreeMap::new();
        for ((device, wire), verify) in &self.verifies {
            let count = waiting.entry(device).or_default();
            *count += 1;
            if *count > limits::VERIFIES_PER_DEVICE {
                return broken("I27", alloc::format!("{device} has more than {count} verifications"));
            }
            if !self.tasks.contains_key(&verify.task) || !self.bindings.contains_key(&verify.key) {
                return broken("I15", alloc::format!("the rows behind {wire} of {device} were evicted"));
            }
            if verify.ticket().is_some_and(|ticket| !self.errands.contains_key(&ticket)) {
                return broken("I15", alloc::format!("{wire} of {device} waits for nothing"));
            }
        }
        for id in self.removals.keys() {
            let synced = self.episodes.get(id).is_some_and(|e| matches!(e.sync, SyncMark::Synced { .. }));
            if !synced {
                return broken("I20", alloc::format!("the edge copy of episode {id} is being removed"));
            }
        }
        self.check_looks()?;
        self.check_reconciled()?;
        for (at, search) in &self.searches {
            let count = waiting.entry(&at.0).or_default();
            *count += 1;
            if *count > limits::VERIFIES_PER_DEVICE {
                return broken("I27", alloc::format!("{} has more than {count} searches", at.0));
            }
            if self.verifies.contains_key(at) || !self.uploaders.contains_key(&at.0) {
                return broken("I15", alloc::format!("{} of {} is looked for in vain", at.1, at.0));
            }
            if search.ticket().is_some_and(|ticket| !self.errands.contains_key(&ticket)) {
                return broken(
                    "I15",
                    alloc::format!("the search for {} of {} waits for nothing", at.1, at.0),
                );
            }
        }
        self.check_deadlines()?;
        if let Some(id) = self.sides.keys().find(|id| !self.tasks.contains_key(*id)) {
            return broken("I27", alloc::format!("notes on {id}, which is not in memory"));
        }
        Ok(())
    }
}

fn broken<T>(invariant: &'static str, saw: alloc::string::String) -> Result<T, Broken> {
    Err(Broken { invariant, saw })
}

/// Says no, if anybody waits.
fn refuse(cx: &mut Cx<'_>, to: Option<RequestId>, refusal: Refusal) {
    if let Some(to) = to {
        cx.reply(to, Err(refusal));
    }
}
