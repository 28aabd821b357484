//! Removing the edge copy of what is in the cloud. Must not touch a recording whose episode is not durably synced.

use core::time::Duration;

use alloc::vec::Vec;

use super::{Errand, Tasks};
use crate::bug::{planted, scattered};
use crate::change::EpisodeChange;
use crate::cx::{Cx, Owner};
use crate::effect::Effect;
use crate::id::{EpisodeId, ObjectKey, Ticket};
use crate::limits;
use crate::object::{ObjectOp, ObjectReply, Store, Verb};
use crate::outcome::Outcome;
use crate::row::{EpisodeRow, SyncMark};
use crate::time::Mono;
use crate::timers::TimerKey;

/// An edge copy that is to go. Volatile: after a restart it is planned again, and removing twice does no harm.
#[derive(Clone, Debug)]
pub(super) struct Removal {
    /// When to ask for what is not gone.
    at: Mono,
    /// Asks that failed, for the pause before the next.
    tries: u32,
    object: Leg,
    sidecar: Leg,
}

/// One object of an edge copy: `There ─► Asked ─► Gone`, and back to `There` if nobody knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leg {
    There,
    Asked(Ticket),
    Gone,
}

impl Removal {
    fn is_asked(&self) -> bool {
        [self.object, self.sidecar].iter().any(|leg| matches!(leg, Leg::Asked(_)))
    }
}

impl Tasks {
    /// Plans the removal of every copy that a restart left behind.
    pub(super) fn plan_removals(&mut self, cx: &mut Cx<'_>) {
        let synced: Vec<EpisodeId> = self.episodes.keys().copied().collect();
        for episode in synced {
            self.plan(cx, episode);
        }
        self.arm_removal(cx);
    }

    /// Plans the removal of the edge copy of an episode that was just synced.
    pub(super) fn plan_removal(&mut self, cx: &mut Cx<'_>, episode: EpisodeId) {
        self.plan(cx, episode);
        self.arm_removal(cx);
    }

    /// Plans a removal, if the episode is synced and copies do not stay for ever.
    fn plan(&mut self, cx: &Cx<'_>, episode: EpisodeId) {
        let Some(keep) = cx.knobs.keep_edge_ms.map(Duration::from_millis) else { return };
        let Some(row) = self.episodes.get(&episode).filter(|row| row.removed_at.is_none()) else { return };
        let SyncMark::Synced { at: synced, .. } = row.sync else { return };
        let at = cx.now.deadline(synced.after(keep), keep);
        let sidecar = if row.sidecar.is_some() { Leg::There } else { Leg::Gone };
        self.removals.insert(episode, Removal { at, tries: 0, object: Leg::There, sidecar });
    }

    /// Some copy's time has come.
    pub fn on_remove_due(&mut self, cx: &mut Cx<'_>) {
        if cx.stopping {
            return;
        }
        let now = cx.now;
        let by_wall = cx.knobs.keep_edge_ms.map(Duration::from_millis).filter(|_| planted!(cx.knobs, X08));
        let mut room = limits::REMOVALS_AT_ONCE.saturating_sub(self.removals_out());
        for (id, removal) in &mut self.removals {
            if room == 0 {
                break;
            }
            if let Some(keep) = by_wall
                && let Some(SyncMark::Synced { at, .. }) = self.episodes.get(id).map(|row| &row.sync)
            {
                removal.at = now.deadline(at.after(keep), keep);
            }
            if removal.is_asked() || removal.at > cx.now.mono {
                continue;
            }
            let row = self.episodes.get(id).expect("I20: episodes to be removed stay in memory");
            assert!(matches!(row.sync, SyncMark::Synced { .. }), "I20: only synced copies go");
            let mut ask = |key: &ObjectKey| {
                let op = ObjectOp { store: Store::Edge, key: key.clone(), verb: Verb::Delete };
                let ticket = cx.ask(Owner::Tasks, op);
                self.errands.insert(ticket, Errand::Remove(*id));
                Leg::Asked(ticket)
            };
            if removal.object == Leg::There {
                removal.object = ask(&row.key);
            }
            if let (Leg::There, Some(sidecar)) = (removal.sidecar, &row.sidecar) {
                removal.sidecar = ask(&sidecar.key);
            }
            room -= 1;
        }
        self.arm_removal(cx);
    }

    /// A removal ended. Only a clear answer counts; anything else is asked again.
    pub(super) fn on_removed(
        &mut self,
        cx: &mut Cx<'_>,
        episode: EpisodeId,
        ticket: Ticket,
        outcome: &Outcome<ObjectReply>,
    ) {
        let Some(removal) = self.removals.get_mut(&episode) else { return };
        let gone = matches!(outcome, Outcome::Done(ObjectReply::Deleted));
        for leg in [&mut removal.object, &mut removal.sidecar] {
            if *leg == Leg::Asked(ticket) {
                *leg = if gone { Leg::Gone } else { Leg::There };
            }
        }
        if !gone {
            removal.at = cx.now.mono.after(pause(removal.tries));
            removal.tries = removal.tries.saturating_add(1);
        }
        if (removal.object, removal.sidecar) == (Leg::Gone, Leg::Gone) {
            self.removals.remove(&episode);
            self.enact_episode(cx, EpisodeChange::Removed { episode, at: cx.now.wall });
            self.drop_look(cx, episode);
            let row = self.episodes.get(&episode).expect("it was just changed");
            for key in frozen_keys(row) {
                cx.effect(Effect::Thaw { key: key.clone() });
            }
        }
        self.arm_removal(cx);
    }

    /// The copy stays at the edge until the next boot.
    pub(super) fn drop_removal(&mut self, cx: &mut Cx<'_>, episode: EpisodeId) {
        self.removals.remove(&episode);
        self.arm_removal(cx);
    }

    /// Freezes every recording whose copy is at the edge: nothing was frozen before this boot.
    pub(super) fn freeze_all(&self, cx: &mut Cx<'_>) {
        if planted!(cx.knobs, H12) {
            return;
        }
        if planted!(cx.knobs, B29) {
            return self.freeze_scattered(cx);
        }
        for row in self.episodes.values().filter(|row| row.removed_at.is_none()) {
            for key in frozen_keys(row) {
                cx.effect(Effect::Freeze { key: key.clone() });
            }
        }
    }

    /// The same in another order.
    fn freeze_scattered(&self, cx: &mut Cx<'_>) {
        let mut rows: Vec<&EpisodeRow> = self.episodes.values().filter(|r| r.removed_at.is_none()).collect();
        rows.sort_by_key(|row| scattered(*row));
        for key in rows.into_iter().flat_map(frozen_keys) {
            cx.effect(Effect::Freeze { key: key.clone() });
        }
    }

    /// Whether the copy may already be gone because we asked for that: in this life or, unknown to it, in an earlier one.
    pub(super) fn is_leaving(&self, episode: EpisodeId) -> bool {
        self.removals.contains_key(&episode)
    }

    fn removals_out(&self) -> usize {
        self.removals.values().filter(|removal| removal.is_asked()).count()
    }

    /// Arms the one deadline for the earliest copy that nobody is removing, unless enough are being removed.
    fn arm_removal(&self, cx: &mut Cx<'_>) {
        let next = self.removals.values().filter(|r| !r.is_asked()).map(|r| r.at).min();
        match next.filter(|_| self.removals_out() < limits::REMOVALS_AT_ONCE && !cx.stopping) {
            Some(at) => cx.arm_at(TimerKey::Remove, at),
            None => cx.disarm(&TimerKey::Remove),
        }
    }
}

/// The keys of an edge copy, which no device may change while it is there.
fn frozen_keys(row: &EpisodeRow) -> impl Iterator<Item = &ObjectKey> {
    core::iter::once(&row.key).chain(row.sidecar.as_ref().map(|sidecar| &sidecar.key))
}

/// The wait after so many asks that failed.
fn pause(tries: u32) -> Duration {
    limits::REMOVE_RETRY_MIN.saturating_mul(1 << tries.min(16)).min(limits::REMOVE_RETRY_MAX)
}
