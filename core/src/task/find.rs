//! The search for recordings whose key nobody said: older uploaders name a recording that waits, and no key, and after a
//! restart nobody remembers one. Must not believe a name: what is found is verified like everything else, and without
//! somebody's word for its length or digest it is not acknowledged.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::memory::Named;
use super::transfer::stem;
use super::verify::pause;
use super::{Errand, Tasks};
use crate::bug::planted;
use crate::cx::{Cx, Owner};
use crate::id::{DeviceId, EpisodeId, ObjectKey, TaskId, Ticket, WireId};
use crate::limits;
use crate::object::{ObjectOp, ObjectReply, Store, Verb, is_recording_of};
use crate::outcome::Outcome;
use crate::row::{SyncMark, TaskState};
use crate::timers::TimerKey;
use crate::wire::transfer::Announced;

/// A recording whose key is looked for.
#[derive(Clone, Debug)]
pub(super) struct Search {
    /// What was said of it, but for its key.
    claim: Announced,
    why: Sought,
    /// The search that is out; none while it rests.
    ticket: Option<Ticket>,
    /// Searches that found nothing, for the pause before the next.
    tries: u32,
    /// Whether viewers were told that it is looked for in vain.
    told: bool,
}

/// Why a recording is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Sought {
    /// Its uploader does not find it. Looked for once.
    Missed,
    /// Its uploader waits for an acknowledgement. Looked for until it is there or the link is down.
    Claimed,
}

impl Search {
    pub(super) fn ticket(&self) -> Option<Ticket> {
        self.ticket
    }
}

impl Tasks {
    /// Looks in the store for a recording whose key nobody said.
    pub(super) fn search(
        &mut self,
        cx: &mut Cx<'_>,
        device: &DeviceId,
        named: &Named,
        claim: Announced,
        why: Sought,
    ) {
        if planted!(cx.knobs, X61) {
            return;
        }
        if planted!(cx.knobs, X62) && why == Sought::Missed {
            return;
        }
        let at = (device.clone(), named.wire.clone());
        if self.verifies.contains_key(&at) {
            return self.look_again(cx, device, &named.wire);
        }
        if cx.stopping || !self.uploaders.contains_key(device) {
            return;
        }
        if let Some(search) = self.searches.get_mut(&at) {
            search.claim = claim;
            search.why = search.why.max(why);
        } else if self.is_crowded(device) && !self.make_place(cx, device) {
            return self.turn_away(cx, device, &named.wire);
        } else {
            let search = Search { claim, why, ticket: None, tries: 0, told: false };
            self.searches.insert(at.clone(), search);
        }
        self.search_now(cx, &at);
    }

    /// The uploader names a recording that waits, and nothing else of it.
    pub(super) fn search_named(&mut self, cx: &mut Cx<'_>, device: &DeviceId, named: &Named) {
        self.search(cx, device, named, nameless(&named.wire), Sought::Claimed);
    }

    /// The uploader does not find a recording of which nothing was said.
    pub(super) fn search_missed(&mut self, cx: &mut Cx<'_>, device: &DeviceId, named: &Named) {
        self.search(cx, device, named, nameless(&named.wire), Sought::Missed);
    }

    fn search_now(&mut self, cx: &mut Cx<'_>, at: &(DeviceId, WireId)) {
        let Some(search) = self.searches.get_mut(at).filter(|search| search.ticket.is_none()) else { return };
        if cx.stopping {
            return;
        }
        let (device, wire) = at.clone();
        let name = alloc::format!("{device}/{wire}.mcap");
        let key = ObjectKey::new(&name).expect("two ids and a few letters are a legal key");
        let verb = Verb::Find { device: device.clone(), wire: wire.clone() };
        let ticket = cx.ask(Owner::Tasks, ObjectOp { store: Store::Edge, key, verb });
        search.ticket = Some(ticket);
        self.errands.insert(ticket, Errand::Find(device.clone(), wire.clone()));
        cx.disarm(&TimerKey::Verify(device, wire));
    }

    /// A search ended.
    pub(super) fn on_found(
        &mut self,
        cx: &mut Cx<'_>,
        device: &DeviceId,
        wire: &WireId,
        ticket: Ticket,
        outcome: &Outcome<ObjectReply>,
    ) {
        let at = (device.clone(), wire.clone());
        let Some(search) = self.searches.get_mut(&at).filter(|search| search.ticket == Some(ticket)) else {
            return;
        };
        search.ticket = None;
        let Some(named) = self.owned(device, wire.as_str()) else { return self.drop_search(cx, &at) };
        let Outcome::Done(ObjectReply::Found(found)) = outcome else {
            return self.rest_search(cx, &at, &named, None);
        };
        let is_free = |key: &&ObjectKey| {
            let owner = self.bindings.get(*key);
            stem(key).is_some()
                && owner.is_none_or(|own| (&own.task, &own.wire) == (&named.task, &named.wire))
        };
        let free: Vec<&ObjectKey> = found.iter().filter(is_free).collect();
        if !free.is_empty() {
            self.end_named(cx, device, &named);
        }
        match free[..] {
            [key] => {
                let search = self.searches.remove(&at).expect("the caller has just seen it");
                let claim = Announced { key: Some(key.to_string()), ..search.claim };
                let claim = self.with_earlier(&named, &claim);
                if named.current {
                    self.keep_announced(&named.task, &claim);
                }
                self.verify(cx, device, &named, &claim, false);
            }
            [] if let Some((episode, proven)) = self.carried(&at, &named) => {
                self.drop_search(cx, &at);
                if proven {
                    self.acknowledge(cx, device, wire);
                } else {
                    self.refuse_silent(cx, device, wire, episode);
                }
                self.make_room(cx, device);
            }
            [] => {
                if named.current {
                    self.find_unstored(cx, &named.task);
                }
                self.rest_search(
                    cx,
                    &at,
                    &named,
                    Some("no object in the store is named as it is".to_string()),
                );
            }
            _ => {
                let detail = alloc::format!("{} objects in the store are named as it is", free.len());
                self.rest_search(cx, &at, &named, Some(detail));
            }
        }
    }

    /// The episode that completed the task of a recording that waits, if its copy went from the edge when it was safe in the
    /// cloud; and whether its uploader says enough of what it holds to be sure that it is the same. What it stored since would
    /// have been found.
    fn carried(&self, at: &(DeviceId, WireId), named: &Named) -> Option<(EpisodeId, bool)> {
        let search = self.searches.get(at).filter(|search| search.why == Sought::Claimed)?;
        let task = self.tasks.get(&named.task).filter(|_| named.current)?;
        let row = self.episode(task.episode?).filter(|row| row.wire == named.wire)?;
        let claim = &search.claim;
        let same = claim.len.is_none_or(|len| len == row.len)
            && claim.sha256.is_none_or(|sha256| sha256 == row.sha256);
        let carried = matches!(row.sync, SyncMark::Synced { .. }) && row.removed_at.is_some();
        (same && carried).then_some((row.id, claim.len.is_some() || claim.sha256.is_some()))
    }

    /// Nothing was found: wait for what may change that, and tell viewers once. Without a trouble nobody knows, and we
    /// look again.
    fn rest_search(
        &mut self,
        cx: &mut Cx<'_>,
        at: &(DeviceId, WireId),
        named: &Named,
        trouble: Option<String>,
    ) {
        let search = self.searches.get_mut(at).expect("the caller has just seen it");
        if search.why == Sought::Missed && trouble.is_some() {
            return self.drop_search(cx, at);
        }
        cx.arm(TimerKey::Verify(at.0.clone(), at.1.clone()), pause(search.tries));
        search.tries = search.tries.saturating_add(1);
        let Some(trouble) = trouble.filter(|_| !core::mem::replace(&mut search.told, true)) else { return };
        let detail = alloc::format!("{}: no s3_key was named, and {trouble}", named.wire);
        let row = self.tasks.get(&named.task).expect("what was found is in memory");
        if named.current && row.state == TaskState::Uploading {
            self.note(cx, &named.task, Some(alloc::format!("key_missing: {detail}")));
        }
        self.refused(cx, &at.0, "key_missing", detail);
    }

    /// It is time to look again; false if nothing is looked for.
    pub(super) fn search_again(&mut self, cx: &mut Cx<'_>, at: &(DeviceId, WireId)) -> bool {
        let sought = self.searches.contains_key(at);
        if sought {
            self.search_now(cx, at);
        }
        sought
    }

    /// The store took an object: one that is looked for, perhaps.
    pub(super) fn search_stored(&mut self, cx: &mut Cx<'_>, key: &ObjectKey) {
        let sought = |at: &&(DeviceId, WireId)| is_recording_of(key.as_str(), &at.0, &at.1);
        let sought: Vec<_> = self.searches.keys().filter(sought).cloned().collect();
        for at in sought {
            self.search_now(cx, &at);
        }
    }

    /// Nobody looks for this any more.
    pub(super) fn drop_search(&mut self, cx: &mut Cx<'_>, at: &(DeviceId, WireId)) {
        let Some(search) = self.searches.remove(at) else { return };
        if let Some(ticket) = search.ticket
            && self.errands.remove(&ticket).is_some()
        {
            cx.forget(ticket);
        }
        cx.disarm(&TimerKey::Verify(at.0.clone(), at.1.clone()));
    }

    /// The link is down: its next greeting names what waits.
    pub(super) fn drop_searches(&mut self, cx: &mut Cx<'_>, device: &DeviceId) {
        let ended: Vec<_> = self.searches_of(device).map(|(at, _)| at.clone()).collect();
        for at in ended {
            self.drop_search(cx, &at);
        }
    }

    fn searches_of(&self, device: &DeviceId) -> impl Iterator<Item = (&(DeviceId, WireId), &Search)> {
        let first = (device.clone(), WireId::LEAST);
        self.searches.range(first..).take_while(move |((whose, _), _)| whose == device)
    }

    /// Whether no further recording of this device is looked at before another one is done.
    pub(super) fn is_crowded(&self, device: &DeviceId) -> bool {
        self.verifies_of(device).count() + self.searches_of(device).count() >= limits::VERIFIES_PER_DEVICE
    }

    /// Gives up what was looked for most often in vain, so that it keeps no other recording of its device from being
    /// looked at. Its device names it again.
    pub(super) fn make_place(&mut self, cx: &mut Cx<'_>, device: &DeviceId) -> bool {
        let tried = self.searches_of(device).filter(|(_, search)| search.tries > 0);
        let search = tried.max_by_key(|(_, search)| search.tries).map(|(at, _)| at.clone());
        if let Some(at) = search {
            self.drop_search(cx, &at);
            return true;
        }
        let tried = self.verifies_of(device).filter_map(|(at, verify)| Some((verify.in_vain()?, at)));
        let Some(at) = tried.max_by_key(|(tries, _)| *tries).map(|(_, at)| at.clone()) else { return false };
        self.drop_verify(cx, &at);
        true
    }

    /// A recording is not looked at before there is room: its device is asked again then.
    pub(super) fn turn_away(&mut self, cx: &mut Cx<'_>, device: &DeviceId, wire: &WireId) {
        self.crowded.insert(device.clone());
        self.refused(cx, device, "too_many_recordings", alloc::format!("{wire}: too many recordings wait"));
    }

    /// What is known of the upload of a task's current attempt.
    fn keep_announced(&mut self, task: &TaskId, claim: &Announced) {
        if self.tasks.get(task).is_some_and(|row| !row.state.is_final()) {
            self.sides.entry(task.clone()).or_default().announced = Some(claim.clone());
        }
    }
}

/// A claim that says nothing but whose recording it is of.
fn nameless(wire: &WireId) -> Announced {
    Announced { task: wire.to_string(), key: None, len: None, sha256: None, mcap_only: None }
}
