//! Tasks, episodes and the verification of recordings: when a device may be told that it can delete its copy.
//! Must not send a frame or touch a job itself: the hub and the queue hear facts.
//!
//! | file | owns |
//! |---|---|
//! | `state` | the legal transitions of a task |
//! | `memory` | which rows are in memory, how a text from outside finds one |
//! | `command` | which commands the tasks let pass, and what their ends mean |
//! | `report` | recorders' reports and callbacks, making and calling off tasks |
//! | `transfer` | uploaders' messages, asking for uploads again |
//! | `verify` | the way from a claim to an episode and its acknowledgement |
//! | `compare` | whether everything said of a recording agrees |
//! | `episode` | judging episodes, handing them to the queue, what the queue made of them |
//! | `inspect` | checking the content of what was acknowledged, and the site's own verdict |
//! | `remove` | removing the edge copy of what is in the cloud |

mod command;
mod compare;
mod date;
mod episode;
mod inspect;
mod memory;
mod remove;
mod report;
mod scan;
mod state;
#[cfg(test)]
mod tests;
mod transfer;
mod verify;

use alloc::collections::{BTreeMap, BTreeSet};

use crate::change::{Change, EpisodeChange, TaskChange};
use crate::cx::Cx;
use crate::id::{ConnId, DeviceId, EpisodeId, ObjectKey, RequestId, TaskId, Ticket, WireId};
use crate::limits;
use crate::object::ObjectReply;
use crate::outcome::Outcome;
use crate::refusal::{Broken, Refusal};
use crate::row::{AliasRow, BindingRow, EpisodeRow, Key, SyncMark, TaskRow};
use crate::time::Mono;
use crate::wire::transfer::Announced;

use inspect::Look;
use remove::Removal;
use scan::Scans;
pub(crate) use state::task_of;
use verify::Verify;

/// Tasks, episodes, and the recordings on their way to become episodes.
#[derive(Debug)]
pub struct Tasks {
    // Rows. Those that are finished are here only while a step or a verification needs them.
    next_episode: u64,
    tasks: BTreeMap<TaskId, TaskRow>,
    /// Current wire ids of the tasks in memory.
    current: BTreeMap<WireId, TaskId>,
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
    sides: BTreeMap<TaskId, Side>,
    verifies: BTreeMap<(DeviceId, WireId), Verify>,
    removals: BTreeMap<EpisodeId, Removal>,
    /// Episodes whose content was not checked yet.
    looks: BTreeMap<EpisodeId, Look>,
    errands: BTreeMap<Ticket, Errand>,
    /// Devices that announced more recordings than we verify at once: they are asked again when there is room.
    crowded: BTreeSet<DeviceId>,
    /// Whether the disk has room for another recording.
    short: bool,
    /// Tasks whose recordings are not asked for before there is room.
    held: BTreeSet<TaskId>,
    /// What policies did not want yet.
    scans: Scans,
    #[cfg(tidegate_bugs)]
    pub(crate) bug: Option<crate::bug::Bug>,
}

/// What is known of a task in memory and forgotten by a restart.
#[derive(Clone, Debug, Default)]
struct Side {
    /// A `begin` of the current attempt is out.
    begin_out: bool,
    /// The device refused the last `begin`, or said it was ready after it: `begin` may be sent again.
    begin_again: bool,
    /// When, and on which link, the device was last asked to upload.
    asked: Option<(ConnId, Mono)>,
    /// What the uploader last said of the current attempt.
    announced: Option<Announced>,
    /// The attempt that follows, chosen while cold records could be looked at.
    successor: Option<u32>,
}

/// What an object operation is for.
#[derive(Clone, Debug)]
enum Errand {
    /// The next step of a verification.
    Verify(DeviceId, WireId),
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
            aliases: BTreeMap::new(),
            episodes: BTreeMap::new(),
            bindings: BTreeMap::new(),
            asked: BTreeSet::new(),
            visited: BTreeSet::new(),
            uploaders: BTreeMap::new(),
            sides: BTreeMap::new(),
            verifies: BTreeMap::new(),
            removals: BTreeMap::new(),
            looks: BTreeMap::new(),
            errands: BTreeMap::new(),
            crowded: BTreeSet::new(),
            short: false,
            held: BTreeSet::new(),
            scans: Scans::default(),
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
    }

    /// The site stops. A check is not worth waiting for: the next boot makes it again.
    pub fn on_shutdown(&mut self, cx: &mut Cx<'_>) {
        self.drop_looks(cx);
    }

    /// An operation we asked for ended.
    pub fn on_object(&mut self, cx: &mut Cx<'_>, ticket: Ticket, outcome: &Outcome<ObjectReply>) {
        match self.errands.remove(&ticket) {
            Some(Errand::Verify(device, wire)) => self.on_verify_step(cx, &device, &wire, ticket, outcome),
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
            Some(Errand::Remove(episode)) => self.drop_removal(cx, episode),
            Some(Errand::Inspect(episode)) => self.rest_look(cx, episode),
            None => {}
        }
    }

    /// Applies a change that must be legal, and journals it.
    fn enact_task(&mut self, cx: &mut Cx<'_>, change: TaskChange) {
        let touched = self.apply_task(&change).expect("I11: only legal changes of tasks are enacted");
        cx.record(Change::Task(change), touched);
    }

    /// Applies a change that must be legal, and journals it.
    fn enact_episode(&mut self, cx: &mut Cx<'_>, change: EpisodeChange) {
        let touched = self.apply_episode(&change).expect("I15: only legal changes of episodes are enacted");
        cx.record(Change::Episode(change), touched);
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
                && self.current.get(&row.wire) == Some(id);
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
