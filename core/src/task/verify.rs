//! The way from an uploader's claim to an episode and its acknowledgement. Must not believe the claim: what counts is
//! what the store holds, digested by us, and equal to everything anybody announced of it.

use alloc::boxed::Box;
use core::time::Duration;

use super::compare::{Rest, Trouble, judge_digest, judge_evidence, judge_head, judge_sidecar};
use super::memory::Named;
use super::{Errand, Tasks, transfer};
use crate::bug::planted;
use crate::change::{EpisodeChange, TaskChange};
use crate::cx::{Cx, Owner};
use crate::digest::Sha256;
use crate::effect::Effect;
use crate::fact::{Fact, TransferFrame};
use crate::id::{DeviceId, EpisodeId, ObjectKey, TaskId, Ticket, WireId};
use crate::limits;
use crate::object::{Got, ObjectFacts, ObjectOp, ObjectReply, SidecarFacts, Store, Verb, Want};
use crate::outcome::{Fault, Outcome};
use crate::row::{EpisodeRow, Qa, SidecarSource, SyncMark, TaskState};
use crate::timers::TimerKey;
use crate::wire::transfer::Announced;

/// A recording that waits for its acknowledgement.
#[derive(Clone, Debug)]
pub(super) struct Verify {
    pub(super) task: TaskId,
    pub(super) key: ObjectKey,
    claim: Announced,
    aim: Aim,
    step: Step,
    /// Looks that found nothing, for the pause before the next.
    tries: u32,
    /// An object of it was stored while we looked: what we saw may be of before.
    stored_since: bool,
    /// The trouble viewers were last told of.
    told: Option<&'static str>,
}

/// What a verification is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Aim {
    /// To make an episode of the recording, and acknowledge it.
    Record,
    /// To acknowledge this episode again to an uploader that says nothing of what it holds.
    Repeat(EpisodeId),
}

/// How far a verification is. The keys are frozen before the last look, so that what it sees stays.
///
/// ```text
/// Head ─► Sidecar ─► Digest ─► Confirm ─► (an episode, acknowledged)
///  ▲ └───────┼─────────▲ │ no sidecar in mcap_only
///  │         │           └─► (acknowledged again: its keys are frozen already)
///  │         ▼
///  ├────── Resting ◄── absent, unreadable, not equal (from any step)
///  └────── Digest, Confirm: something was stored meanwhile
/// ```
#[derive(Clone, Debug)]
enum Step {
    /// Asked what the object is.
    Head(Ticket),
    /// Asked what its sidecar says.
    Sidecar(Ticket, ObjectFacts),
    /// Asked for the digest of its bytes.
    Digest(Ticket, ObjectFacts, Option<(SidecarSource, SidecarFacts)>),
    /// Asked whether the object whose bytes were read is still the one that is there.
    Confirm(Ticket, Read),
    /// Waits.
    Resting(Rest),
}

/// A recording that was read and is equal to everything said of it.
#[derive(Clone, Debug)]
struct Read {
    head: ObjectFacts,
    len: u64,
    sha256: Sha256,
    sidecar: Option<(SidecarSource, SidecarFacts)>,
}

impl Verify {
    /// The operation it waits for.
    pub(super) fn ticket(&self) -> Option<Ticket> {
        match &self.step {
            Step::Head(ticket)
            | Step::Sidecar(ticket, _)
            | Step::Digest(ticket, ..)
            | Step::Confirm(ticket, _) => Some(*ticket),
            Step::Resting(_) => None,
        }
    }

    fn rest(&self) -> Option<Rest> {
        match &self.step {
            Step::Resting(rest) => Some(*rest),
            Step::Head(_) | Step::Sidecar(..) | Step::Digest(..) | Step::Confirm(..) => None,
        }
    }

    /// How often its object was not there, if nothing of it is being read; least of all where another object is waited
    /// for, since what is there would be read again.
    pub(super) fn in_vain(&self) -> Option<u32> {
        match &self.step {
            Step::Resting(Rest::Retry) => Some(self.tries.max(1)),
            Step::Head(_) if self.tries > 0 => Some(self.tries),
            Step::Resting(Rest::Upload) => Some(0),
            Step::Head(_) | Step::Sidecar(..) | Step::Digest(..) | Step::Confirm(..) => None,
        }
    }

    fn sidecar_key(&self) -> ObjectKey {
        let stem = transfer::stem(&self.key).expect("only keys of .mcap objects are verified");
        ObjectKey::new(&alloc::format!("{stem}.json")).expect("as legal and as long as the .mcap key")
    }
}

impl Tasks {
    /// An uploader claims that this recording is whole in the store. `fresh` is a claim just made, not one repeated
    /// in a status.
    pub(super) fn verify(
        &mut self,
        cx: &mut Cx<'_>,
        device: &DeviceId,
        named: &Named,
        announced: &Announced,
        fresh: bool,
    ) {
        let Some(key) = self.bind(cx, device, named, announced) else { return };
        self.drop_search(cx, &(device.clone(), named.wire.clone()));
        let binding = self.bindings.get(&key).expect("it was just bound");
        if let Some(episode) = binding.episode {
            return self.acknowledge_again(cx, device, named, episode, announced, fresh);
        }
        self.pursue(cx, device, named, (key, announced.clone(), Aim::Record), fresh);
    }

    /// Goes on with a verification, or begins it.
    fn pursue(
        &mut self,
        cx: &mut Cx<'_>,
        device: &DeviceId,
        named: &Named,
        (key, claim, aim): (ObjectKey, Announced, Aim),
        fresh: bool,
    ) {
        let at = (device.clone(), named.wire.clone());
        if let Some(verify) = self.verifies.get(&at) {
            if (&verify.claim, verify.aim) == (&claim, aim) {
                return match verify.rest() {
                    Some(Rest::Upload) if !fresh => {}
                    Some(Rest::Upload | Rest::Retry) => self.look(cx, &at),
                    None => {}
                };
            }
            self.drop_verify(cx, &at);
        }
        if cx.stopping {
            return;
        }
        if self.is_crowded(device) && !self.make_place(cx, device) {
            return self.turn_away(cx, device, &named.wire);
        }
        let verify = Verify {
            task: named.task.clone(),
            key,
            claim,
            aim,
            step: Step::Resting(Rest::Retry),
            tries: 0,
            stored_since: false,
            told: None,
        };
        self.verifies.insert(at.clone(), verify);
        self.look(cx, &at);
    }

    /// The recording is an episode already: the acknowledgement was lost. An uploader that says neither length nor
    /// digest gives no evidence of what it would delete; the copy at the edge may stand in for it while it is there.
    fn acknowledge_again(
        &mut self,
        cx: &mut Cx<'_>,
        device: &DeviceId,
        named: &Named,
        episode: EpisodeId,
        announced: &Announced,
        fresh: bool,
    ) {
        let wire = &named.wire;
        let row = self.episode(episode).filter(|row| {
            let same = announced.len.is_none_or(|len| len == row.len)
                && announced.sha256.is_none_or(|sha256| sha256 == row.sha256);
            let other = planted!(cx.knobs, X56) && row.wire != *wire;
            same || other || planted!(cx.knobs, X57)
        });
        let Some(row) = row else {
            let detail = alloc::format!("{wire}: not what episode {episode} holds under the same key");
            return self.refused(cx, device, "digest_mismatch", detail);
        };
        let at = (device.clone(), wire.clone());
        // Where an upload was given up the copy here may be what failed: it is read again before its device hears that it
        // may delete what could be the last good one.
        let doubted = matches!(row.sync, SyncMark::Failed(_)) && row.removed_at.is_none();
        let named_evidence = announced.len.is_some() || announced.sha256.is_some();
        if named_evidence && !doubted || planted!(cx.knobs, H14) {
            self.drop_verify(cx, &at);
            return self.acknowledge(cx, device, wire);
        }
        if row.removed_at.is_some() {
            self.drop_verify(cx, &at);
            return self.refuse_silent(cx, device, wire, episode);
        }
        let claim = Announced {
            len: Some(row.len),
            sha256: Some(row.sha256),
            mcap_only: Some(true),
            ..announced.clone()
        };
        let key = row.key.clone();
        self.pursue(cx, device, named, (key, claim, Aim::Repeat(episode)), fresh);
    }

    /// Whether the copy of an episode at the edge is gone.
    fn is_removed(&self, episode: EpisodeId) -> bool {
        self.episodes.get(&episode).is_none_or(|row| row.removed_at.is_some())
    }

    pub(super) fn refuse_silent(
        &self,
        cx: &mut Cx<'_>,
        device: &DeviceId,
        wire: &WireId,
        episode: EpisodeId,
    ) {
        let detail = alloc::format!(
            "{wire}: neither size nor SHA-256 was named, and the edge copy of episode {episode} is gone; \
             the device keeps its copy until it names one of them"
        );
        self.refused(cx, device, "no_evidence", detail);
    }

    /// Freezes what the last look is at.
    fn hold(&self, cx: &mut Cx<'_>, at: &(DeviceId, WireId), sidecar: bool) {
        let verify = self.verifies.get(at).expect("the caller has just seen it");
        if planted!(cx.knobs, H12) {
            return;
        }
        cx.effect(Effect::Freeze { key: verify.key.clone() });
        if sidecar {
            cx.effect(Effect::Freeze { key: verify.sidecar_key() });
        }
    }

    /// Thaws what was frozen for a last look that came to nothing.
    fn let_go(&self, cx: &mut Cx<'_>, at: &(DeviceId, WireId)) {
        if let Some(verify) = self.verifies.get(at)
            && let Step::Confirm(_, read) = &verify.step
        {
            cx.effect(Effect::Thaw { key: verify.key.clone() });
            if read.sidecar.is_some() {
                cx.effect(Effect::Thaw { key: verify.sidecar_key() });
            }
        }
    }

    pub(super) fn acknowledge(&self, cx: &mut Cx<'_>, device: &DeviceId, wire: &WireId) {
        let link = self.uploaders.get(device).copied();
        if planted!(cx.knobs, X58) && self.heralds.elsewhere(device, wire, link) {
            return;
        }
        let frame = TransferFrame::UploadAck { task: wire.clone() };
        cx.tell(Fact::TransferFrame { device: device.clone(), frame });
    }

    /// Begins to look, from the start.
    fn look(&mut self, cx: &mut Cx<'_>, at: &(DeviceId, WireId)) {
        self.let_go(cx, at);
        let Some(verify) = self.verifies.get_mut(at) else { return };
        if cx.stopping {
            verify.step = Step::Resting(Rest::Retry);
            return;
        }
        verify.stored_since = false;
        let op = ObjectOp { store: Store::Edge, key: verify.key.clone(), verb: Verb::Head };
        let ticket = cx.ask(Owner::Tasks, op);
        verify.step = Step::Head(ticket);
        self.errands.insert(ticket, Errand::Verify(at.0.clone(), at.1.clone()));
        cx.disarm(&TimerKey::Verify(at.0.clone(), at.1.clone()));
    }

    /// The uploader named a recording without saying anything new of it.
    pub(super) fn look_again(&mut self, cx: &mut Cx<'_>, device: &DeviceId, wire: &WireId) {
        let at = (device.clone(), wire.clone());
        if self.verifies.get(&at).is_some_and(|verify| verify.rest() == Some(Rest::Retry)) {
            self.look(cx, &at);
        }
    }

    /// It is time to look again.
    pub fn on_verify_due(&mut self, cx: &mut Cx<'_>, device: &DeviceId, wire: &WireId) {
        if !self.search_again(cx, &(device.clone(), wire.clone())) {
            self.look_again(cx, device, wire);
        }
    }

    /// Looking again made the core panic too often: it rests.
    pub fn on_quarantined_look(&mut self, cx: &mut Cx<'_>, device: &DeviceId, wire: &WireId, reason: &str) {
        let at = (device.clone(), wire.clone());
        self.drop_search(cx, &at);
        if self.verifies.get(&at).is_some_and(|verify| verify.rest().is_some()) {
            self.rest_quarantined(cx, device, wire, reason);
        }
    }

    /// A verification rests until something new is announced or stored.
    pub(super) fn rest_quarantined(
        &mut self,
        cx: &mut Cx<'_>,
        device: &DeviceId,
        wire: &WireId,
        reason: &str,
    ) {
        let at = (device.clone(), wire.clone());
        if self.verifies.contains_key(&at) {
            let detail = alloc::string::String::from(reason);
            self.take_rest(cx, &at, Some(Trouble { code: "quarantined", detail, rest: Rest::Upload }));
        }
    }

    /// The embedded store took an object: one that a verification waits for, perhaps.
    pub fn on_stored(&mut self, cx: &mut Cx<'_>, key: &ObjectKey) {
        self.search_stored(cx, key);
        let recording = match key.as_str().strip_suffix(".json") {
            Some(stem) => ObjectKey::new(&alloc::format!("{stem}.mcap")).ok(),
            None => Some(key.clone()),
        };
        let Some(at) = recording.and_then(|key| self.verified_at(&key)) else { return };
        let verify = self.verifies.get_mut(&at).expect("it was just found there");
        verify.stored_since = true;
        verify.tries = 0;
        if verify.rest().is_some() {
            self.look(cx, &at);
        }
    }

    /// The link is back: what rests goes on after its pause, unless the device names it first.
    pub(super) fn resume_verifies(&mut self, cx: &mut Cx<'_>, device: &DeviceId) {
        for (at, verify) in self.verifies_of(device) {
            if verify.rest() == Some(Rest::Retry) {
                cx.arm(TimerKey::Verify(at.0.clone(), at.1.clone()), pause(verify.tries));
            }
        }
    }

    /// The link is down: nobody waits for an acknowledgement.
    pub(super) fn rest_verifies(&mut self, cx: &mut Cx<'_>, device: &DeviceId) {
        for (at, _) in self.verifies_of(device) {
            cx.disarm(&TimerKey::Verify(at.0.clone(), at.1.clone()));
        }
    }

    pub(super) fn drop_verify(&mut self, cx: &mut Cx<'_>, at: &(DeviceId, WireId)) -> Option<Verify> {
        self.let_go(cx, at);
        let verify = self.verifies.remove(at)?;
        if let Some(ticket) = verify.ticket()
            && self.errands.remove(&ticket).is_some()
        {
            cx.forget(ticket);
        }
        cx.disarm(&TimerKey::Verify(at.0.clone(), at.1.clone()));
        self.visited.extend([
            crate::row::Key::Task(verify.task.clone()),
            crate::row::Key::Binding(verify.key.clone()),
        ]);
        Some(verify)
    }

    /// A look at the store ended.
    pub(super) fn on_verify_step(
        &mut self,
        cx: &mut Cx<'_>,
        device: &DeviceId,
        wire: &WireId,
        ticket: Ticket,
        outcome: &Outcome<ObjectReply>,
    ) {
        let at = (device.clone(), wire.clone());
        let Some(verify) = self.verifies.get(&at).filter(|verify| verify.ticket() == Some(ticket)) else {
            return;
        };
        let (mut claim, key, aim) = (verify.claim.clone(), verify.key.clone(), verify.aim);
        if planted!(cx.knobs, X57) {
            (claim.len, claim.sha256) = (None, None);
        }
        let stored_since = verify.stored_since;
        let mut said = claim.clone();
        // What was announced in an earlier life is compared like the rest, and vouches for nothing: who said it may hold
        // something else by now.
        if let Some(row) = self.bindings.get(&key).filter(|row| row.episode.is_none())
            && !planted!(cx.knobs, H10)
        {
            (said.len, said.sha256) = (said.len.or(row.len), said.sha256.or(row.sha256));
        }
        if planted!(cx.knobs, X57) {
            (said.len, said.sha256) = (None, None);
        }
        let sidecar_key = verify.sidecar_key();
        let get = |want| Verb::Get { span: None, want };
        let seen = match outcome {
            Outcome::Done(reply) => reply,
            Outcome::Failed(fault) if planted!(cx.knobs, X28) => {
                unreachable!("our own store never fails: {fault:?}");
            }
            Outcome::Failed(fault) => {
                let trouble = self.unreadable(&at, fault);
                return self.take_rest(cx, &at, Some(trouble));
            }
            Outcome::Unknown => return self.take_rest(cx, &at, None),
        };
        match (verify.step.clone(), seen) {
            (Step::Head(_), ObjectReply::Head(None)) => {
                let task = verify.task.clone();
                if self.tasks.get(&task).is_some_and(|row| row.wire == *wire) {
                    self.find_unstored(cx, &task);
                }
                self.take_rest(cx, &at, Some(missing("object_missing", &key)));
            }
            (Step::Head(_), ObjectReply::Head(Some(facts))) => {
                if let Err(trouble) = judge_head(&said, facts) {
                    return self.take_rest(cx, &at, Some(trouble));
                }
                let facts = facts.clone();
                if claim.mcap_only == Some(true) {
                    self.ask_step(cx, &at, key, get(Want::Digest), |ticket| {
                        Step::Digest(ticket, facts, None)
                    });
                } else {
                    self.ask_step(cx, &at, sidecar_key, get(Want::Sidecar), |ticket| {
                        Step::Sidecar(ticket, facts)
                    });
                }
            }
            (Step::Sidecar(_, head), ObjectReply::Got(Got::Sidecar { len, sha256, facts })) => {
                // A sidecar that nobody can read is kept as it is; it vouches for nothing.
                let facts = facts.clone().unwrap_or_default();
                if let Err(trouble) = judge_sidecar(&said, &head, &facts) {
                    return self.take_rest(cx, &at, Some(trouble));
                }
                let source = SidecarSource { key: sidecar_key, len: *len, sha256: *sha256 };
                self.ask_step(cx, &at, key, get(Want::Digest), |ticket| {
                    Step::Digest(ticket, head, Some((source, facts)))
                });
            }
            (Step::Digest(_, head, sidecar), ObjectReply::Got(Got::Digest { len, sha256 })) => {
                let beside = sidecar.as_ref().map(|(_, facts)| facts);
                let row = self.tasks.get(&verify.task).filter(|row| row.wire == *wire);
                let callback = row.and_then(|row| row.recording.as_ref()?.len);
                let judged = judge_digest(&said, &head, beside, *len, *sha256)
                    .and_then(|()| judge_evidence(&claim, &head, beside, callback, *len))
                    .or_else(|trouble| forgive(planted!(cx.knobs, H11), trouble));
                if let Err(trouble) = judged {
                    return self.take_rest(cx, &at, Some(trouble));
                }
                if planted!(cx.knobs, H13) && aim == Aim::Record {
                    return self.accept(cx, &at, Read { head, len: *len, sha256: *sha256, sidecar });
                }
                // These bytes may have been replaced while they were read.
                if stored_since {
                    return self.look(cx, &at);
                }
                match aim {
                    // The copy that was to stand in for the device's word went while it was read.
                    Aim::Repeat(episode) if self.is_removed(episode) => self.take_rest(cx, &at, None),
                    Aim::Repeat(_) => self.repeat(cx, &at),
                    Aim::Record => {
                        let read = Read { head, len: *len, sha256: *sha256, sidecar };
                        if !cx.stopping {
                            self.hold(cx, &at, read.sidecar.is_some());
                        }
                        self.ask_step(cx, &at, key, Verb::Head, |ticket| Step::Confirm(ticket, read));
                    }
                }
            }
            (Step::Confirm(_, read), ObjectReply::Head(Some(facts)))
                if *facts == read.head && !stored_since =>
            {
                self.accept(cx, &at, read);
            }
            // Another object took its place; a hint may have said so, or got lost.
            (Step::Confirm(..), ObjectReply::Head(_)) => self.look(cx, &at),
            // An answer to another question than we asked says nothing.
            (
                Step::Head(_) | Step::Sidecar(..) | Step::Digest(..) | Step::Confirm(..) | Step::Resting(_),
                _,
            ) => self.take_rest(cx, &at, None),
        }
    }

    fn ask_step(
        &mut self,
        cx: &mut Cx<'_>,
        at: &(DeviceId, WireId),
        key: ObjectKey,
        verb: Verb,
        step: impl FnOnce(Ticket) -> Step,
    ) {
        if cx.stopping {
            self.drop_verify(cx, at);
            return;
        }
        let ticket = cx.ask(Owner::Tasks, ObjectOp { store: Store::Edge, key, verb });
        self.errands.insert(ticket, Errand::Verify(at.0.clone(), at.1.clone()));
        self.verifies.get_mut(at).expect("the caller has just seen it").step = step(ticket);
    }

    fn unreadable(&self, at: &(DeviceId, WireId), fault: &Fault) -> Trouble {
        let verify = self.verifies.get(at).expect("the caller has just seen it");
        let sidecar = matches!(verify.step, Step::Sidecar(..));
        match fault {
            Fault::Vanished(_) if sidecar => missing("sidecar_missing", &verify.sidecar_key()),
            Fault::Vanished(_) => missing("object_missing", &verify.key),
            fault => Trouble {
                code: fault.code(),
                detail: alloc::format!("{}: {fault:?}", verify.key),
                rest: Rest::Retry,
            },
        }
    }

    /// Nothing came of this look: wait for what may change that, and tell viewers why if it is news. Without a
    /// trouble nobody knows what happened, and we look again.
    fn take_rest(&mut self, cx: &mut Cx<'_>, at: &(DeviceId, WireId), trouble: Option<Trouble>) {
        self.let_go(cx, at);
        if let Aim::Repeat(episode) = self.verifies.get(at).expect("the caller has just seen it").aim
            && self.is_removed(episode)
        {
            self.drop_verify(cx, at);
            return self.refuse_silent(cx, &at.0, &at.1, episode);
        }
        let connected = self.uploaders.contains_key(&at.0);
        let verify = self.verifies.get_mut(at).expect("the caller has just seen it");
        let rest = trouble.as_ref().map_or(Rest::Retry, |trouble| trouble.rest);
        verify.step = Step::Resting(rest);
        if verify.stored_since {
            return self.look(cx, at);
        }
        if rest == Rest::Retry {
            if connected && !planted!(cx.knobs, X19) {
                cx.arm(TimerKey::Verify(at.0.clone(), at.1.clone()), pause(verify.tries));
            }
            verify.tries = verify.tries.saturating_add(1);
        }
        let Some(trouble) = trouble.filter(|trouble| verify.told != Some(trouble.code)) else { return };
        let first = verify.told.replace(trouble.code).is_none();
        let task = verify.task.clone();
        let row = self.tasks.get(&task).expect("I15: tasks of verifications stay in memory");
        if row.wire == at.1 && row.state == TaskState::Uploading {
            // What the uploader said of it stays in front of what we found.
            let said = row
                .error
                .as_deref()
                .filter(|_| first)
                .map_or_else(alloc::string::String::new, |e| alloc::format!("{e}; "));
            let error = alloc::format!("{said}{}: {}", trouble.code, trouble.detail);
            self.note(cx, &task, Some(error));
        }
        self.refused(cx, &at.0, trouble.code, alloc::format!("{}: {}", at.1, trouble.detail));
    }

    /// Everything is equal: it is an episode, its task is done, and the device may delete its copy. All in one step,
    /// so that the acknowledgement leaves only with the commit that makes it true.
    fn accept(
        &mut self,
        cx: &mut Cx<'_>,
        at: &(DeviceId, WireId),
        Read { head: _, len, sha256, sidecar }: Read,
    ) {
        // What was frozen for the last look stays so: said again here, so that it stands before the acknowledgement
        // whatever came before.
        self.hold(cx, at, sidecar.is_some());
        self.verifies.get_mut(at).expect("the caller has just seen it").step = Step::Resting(Rest::Upload);
        let verify = self.drop_verify(cx, at).expect("the caller has just seen it");
        let row = self.tasks.get(&verify.task).expect("I15: tasks of verifications stay in memory");
        let completes = row.wire == at.1 && !row.state.is_final();
        let callback = row.recording.clone().filter(|_| row.wire == at.1).unwrap_or_default();
        let (source, said) = sidecar.map_or((None, SidecarFacts::default()), |(s, f)| (Some(s), f));
        let episode = EpisodeRow {
            id: EpisodeId(self.next_episode),
            public_id: cx.chance().uuid(),
            device: at.0.clone(),
            task: verify.task.clone(),
            wire: at.1.clone(),
            key: verify.key,
            sidecar: source,
            len,
            sha256,
            recorded_at: said.started_at.or(callback.started_at),
            duration_ms: said.duration_ms.or(callback.duration_ms),
            messages: said.messages.or(callback.messages),
            ingested_at: cx.now.wall,
            qa: Qa::Pending,
            qa_reason: None,
            qa_at: None,
            sync: SyncMark::NotStarted,
            late: !completes,
            removed_at: None,
            recorder_version: said
                .recorder_version
                .map(|version| crate::row::shorten(&version, limits::TYPE_BYTES)),
            inspection: None,
            tries: 0,
        };
        let number = episode.id;
        self.enact_episode(cx, EpisodeChange::Recorded(Box::new(episode)));
        self.new_keys.proven(&at.0);
        self.plan_look(cx, number);
        if completes {
            self.enact_task(
                cx,
                TaskChange::Completed { task: verify.task, at: cx.now.wall, episode: Some(number) },
            );
        }
        self.acknowledge(cx, &at.0, &at.1);
        self.make_room(cx, &at.0);
    }

    /// The copy at the edge is what the episode is: the acknowledgement holds.
    fn repeat(&mut self, cx: &mut Cx<'_>, at: &(DeviceId, WireId)) {
        self.drop_verify(cx, at);
        self.acknowledge(cx, &at.0, &at.1);
        self.make_room(cx, &at.0);
    }

    /// Asks a crowded device again once nothing of it is being looked at.
    pub(super) fn make_room(&mut self, cx: &mut Cx<'_>, device: &DeviceId) {
        let busy = self.verifies_of(device).any(|(_, verify)| verify.rest().is_none());
        if !busy && self.crowded.remove(device) {
            self.ask_list(cx, device);
        }
    }
}

/// Overlooks that nobody said anything, where a bug does that.
fn forgive(believed: bool, trouble: Trouble) -> Result<(), Trouble> {
    if believed && trouble.code == "no_evidence" { Ok(()) } else { Err(trouble) }
}

/// The wait after so many looks that found nothing.
pub(super) fn pause(tries: u32) -> Duration {
    let doubled = limits::VERIFY_RETRY_MIN.saturating_mul(1 << tries.min(16));
    doubled.min(limits::VERIFY_RETRY_MAX)
}

fn missing(code: &'static str, key: &ObjectKey) -> Trouble {
    Trouble { code, detail: alloc::format!("{key} is not in the store"), rest: Rest::Retry }
}
