//! What runs reached: abstract states and transitions, pairs of faults and phases of the core, and a catalogue of what
//! must sometimes happen. Judges nothing.

use std::collections::{BTreeMap, BTreeSet};

use tidegate_core::change::{
    Change, EpisodeChange, JobChange, PolicyChange, TaskCause, TaskChange, UploadChange,
};
use tidegate_core::effect::{CloseWhy, Effect, Notice, Response};
use tidegate_core::id::WireId;
use tidegate_core::input::{Input, LostWhy};
use tidegate_core::object::{Got, ObjectReply};
use tidegate_core::outcome::{Fault, Outcome};
use tidegate_core::policy::{PolicyFault, PolicyNews};
use tidegate_core::refusal::{PolicyRefusal, Refusal};
use tidegate_core::row::{
    Blame, Cause, FinalWhy, JobState, Key, ModuleState, ParkWhy, Phase, Qa, Row, TurnWhat,
};

use crate::time::SimTime;
use crate::watch::{Happened, Seen, Truth};

/// What must sometimes happen, over many runs: an id and what it means. A night that never saw one of them is red.
pub const MARKS: &[(&str, &str)] = &[
    ("ack-repeated", "a recording that is an episode already is acknowledged again"),
    ("answer-too-late", "a device answers a command after its end, and nothing comes of it"),
    ("approved-alone", "a site approves an episode by itself, because its check found nothing"),
    ("attempt-n", "a task is put back as a new attempt under a new wire id"),
    ("auto-scan", "auto-scan queues an episode"),
    ("bare", "a recording without a sidecar becomes an episode"),
    ("batch", "the batch trigger queues episodes"),
    ("busy", "a command is refused because another one is out"),
    ("call-lost", "a link is lost while a command is out, and its caller is told that nobody knows"),
    ("call-timeout", "a command times out, and its caller is told that nobody knows"),
    ("commit-kept", "a flush survives a crash though nobody was told"),
    ("commit-lost", "a crash undoes what was not flushed"),
    ("callback-found", "the end of a recording whose callback was lost is found"),
    ("complete-found", "a lost answer to Complete is found by looking at the object"),
    ("conflict-shown", "what a device holds against its records is shown"),
    ("conflict-resolved", "a person lets the records follow the device"),
    ("contested", "a program is turned away because two fight over an id"),
    ("crash-in-recovery", "a site goes down again within a second of coming up"),
    ("destination-back", "the way to the cloud is fine after failures in a row"),
    ("destination-down", "a job waits because the way is down"),
    ("door-closed", "an upload of a device is refused because the site is not ready"),
    ("edge-removed", "the copy at the edge is removed after the sync"),
    ("exhausted", "a job uses up its attempts"),
    ("foreign", "another object stands at a job's key"),
    ("frozen-refused", "a device offers other content under a key that is frozen"),
    ("judged", "an episode is judged"),
    ("late-episode", "a recording arrives for a task that is over, or of an earlier attempt"),
    ("late-lost", "a link's loss is reported after another took its place"),
    ("link-silent", "a link is given up because it is silent"),
    ("multipart", "an object is made of parts"),
    ("not-now", "a command is refused because the state is not confirmed"),
    ("orderly-stop", "a site stops in an orderly way"),
    ("parked-auth", "a job is parked because credentials are refused"),
    ("parked-no-cloud", "a job is parked because no cloud is configured"),
    ("owed-arrived", "a recording that was owed of an earlier attempt or a task that is over arrives"),
    ("part-lost", "the store does not hold a part that was acknowledged"),
    ("part-untrue", "the recording at the edge is whole, and a part that was sent is not of it"),
    ("parts-found", "parts whose answers were lost are found in the store's list"),
    ("policy-activated", "a module comes to rule under a hook"),
    ("policy-barred-again", "a module that is barred is asked for, and refused"),
    ("policy-busy", "a change of policies is refused because another one is under way"),
    ("policy-ejected", "a module that fails too often loses its slots"),
    ("policy-fell-back", "an ejected module makes room for the last good one"),
    ("policy-floored", "the default module is not fit, and the built-in rules sit in its place"),
    ("policy-good", "a set comes through its probation"),
    ("policy-lifted", "a module that was barred may be used again"),
    ("policy-rolled-back", "somebody goes back to an earlier set"),
    ("policy-shadowed", "a module runs beside the one that decides"),
    ("policy-stalled", "a module that lets nothing begin is overruled"),
    ("policy-unready", "the host does not say whether a set is ready, and is asked again"),
    ("policy-unreadable", "a module whose bytes rotted cannot be made ready"),
    ("power-lost", "a site loses power with its links open"),
    ("put-back-absent", "a task is put back because its device stayed away"),
    ("put-back-idle", "a task is put back because its device says that it does not hold it"),
    ("put-aside", "a site puts an episode aside for a person, because its check found something"),
    ("reclaimed", "a job that was claimed in an earlier life is taken up again"),
    ("resumed", "a device still records an attempt that was given up, and it goes on"),
    ("retry", "a job waits after a failed attempt"),
    ("shutdown-returns", "a claimed job is put back because the site stops"),
    ("source-lost", "the recording at the edge is not what was verified"),
    ("stale-outcome", "an outcome of an earlier life arrives, and nothing comes of it"),
    ("takeover", "a newer connection takes over"),
    ("takeover-busy", "a newer connection takes over while a command is out"),
    ("throttled", "the cloud asks to slow down"),
    ("unparked", "a parked job goes on because somebody asked"),
    ("upload-adopted", "an unknown upload at the key is taken up"),
    ("upload-dropped", "an upload is given up, and its parts are dropped"),
    ("upload-restarted", "an upload begins again because the store lost it"),
    ("wall-back", "the wall clock is set back while a job waits"),
    ("wall-ahead", "the wall clock is set ahead while a job waits"),
];

/// A short stable word for a job's state.
#[must_use]
pub fn job_word(state: &JobState) -> &'static str {
    match state {
        JobState::Pending { cause: Cause::Destination(_), .. } => "pending(way)",
        JobState::Pending { cause: Cause::Retry(_), .. } => "pending(retry)",
        JobState::Pending { cause: Cause::Disk(_), .. } => "pending(disk)",
        JobState::Pending { .. } => "pending",
        JobState::Claimed { .. } => "claimed",
        JobState::Parked { .. } => "parked",
        JobState::Completed { .. } => "completed",
        JobState::Failed { .. } => "failed",
    }
}

/// A short stable word for an upload's phase.
#[must_use]
pub fn phase_word(phase: &Phase) -> &'static str {
    match phase {
        Phase::Planned => "planned",
        Phase::Open { .. } => "open",
        Phase::Sealing { .. } => "sealing",
        Phase::Sealed { .. } => "sealed",
        Phase::Abandoning { .. } => "abandoning",
    }
}

/// The abstraction of one record: a word that is the same for all records that the core treats alike.
fn word(row: &Row) -> Option<&'static str> {
    Some(match row {
        Row::Task(row) => row.state.name(),
        Row::Job(row) => job_word(&row.state),
        Row::Upload(row) => phase_word(&row.phase),
        Row::Episode(row) if row.removed_at.is_some() => "episode(removed)",
        Row::Episode(row) if row.qa.is_approved() => "episode(approved)",
        Row::Episode(_) => "episode",
        Row::Module(row) if row.quarantined.is_some() => "module(quarantined)",
        Row::Module(row) => match row.state {
            ModuleState::Staged => "module(staged)",
            ModuleState::Admitted => "module(admitted)",
            ModuleState::Rejected { .. } => "module(rejected)",
        },
        Row::Policy(row) if row.probation.is_some() => "set(probation)",
        Row::Policy(row) if row.slots.is_empty() => "set(default)",
        Row::Policy(_) => "set(chosen)",
        Row::Meta(_) | Row::Device(_) | Row::Part(_) | Row::Token(_) | Row::Alias(_) | Row::Binding(_) => {
            return None;
        }
    })
}

/// FNV-1a: small, stable, and good enough to count distinct things.
#[derive(Clone, Copy)]
struct Hash(u64);

impl Hash {
    fn new() -> Hash {
        Hash(0xcbf2_9ce4_8422_2325)
    }

    fn bytes(mut self, bytes: &[u8]) -> Hash {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        self
    }

    fn text(self, text: &str) -> Hash {
        self.bytes(text.as_bytes()).bytes(&[0])
    }

    fn number(self, n: u64) -> Hash {
        self.bytes(&n.to_le_bytes())
    }
}

/// What a run reached.
#[derive(Debug, Default)]
pub struct Coverage {
    /// Abstract states.
    pub states: BTreeSet<u64>,
    /// Abstract transitions.
    pub transitions: BTreeSet<u64>,
    /// Fault and phase.
    pub pairs: BTreeSet<(&'static str, &'static str)>,
    /// What sometimes must happen and did.
    pub marks: BTreeSet<&'static str>,
    blind: bool,
    /// Records of each site by their word.
    counts: BTreeMap<(usize, &'static str), u32>,
    /// The abstract state of each site.
    alpha: BTreeMap<usize, u64>,
    up_since: BTreeMap<usize, SimTime>,
    down_streak: bool,
}

impl Coverage {
    /// Nothing reached yet. A blind one never reaches anything.
    #[must_use]
    pub fn new(blind: bool) -> Coverage {
        Coverage { blind, ..Coverage::default() }
    }

    /// It happened.
    pub fn mark(&mut self, id: &'static str) {
        if !self.blind {
            debug_assert!(MARKS.iter().any(|(known, _)| *known == id), "{id} is not in the catalogue");
            self.marks.insert(id);
        }
    }

    fn sometimes(&mut self, id: &'static str, happened: bool) {
        if happened {
            self.mark(id);
        }
    }

    /// A step became durable, while these faults were on.
    pub fn step(&mut self, seen: &Seen<'_>, faults: &[&'static str]) {
        if self.blind {
            return;
        }
        self.abstracted(seen, faults);
        for change in &seen.out.changes {
            self.change(seen, change);
        }
        for effect in &seen.out.effects {
            self.effect(seen, effect);
        }
        let nothing = seen.out.changes.is_empty() && seen.out.effects.is_empty() && seen.out.rows.is_empty();
        match seen.input {
            Input::Lost { why, .. } => {
                self.sometimes("late-lost", nothing);
                self.sometimes("link-silent", *why == LostWhy::Silent);
            }
            Input::Recorder { message: tidegate_core::wire::RecorderMessage::Response { .. }, .. } => {
                self.sometimes("answer-too-late", nothing);
            }
            Input::Object { ticket, outcome } => {
                self.sometimes("stale-outcome", nothing && ticket.boot != seen.boot);
                let throttled = matches!(outcome, Outcome::Failed(Fault::Throttled { .. }));
                self.sometimes("throttled", throttled);
            }
            _ => {}
        }
    }

    fn abstracted(&mut self, seen: &Seen<'_>, faults: &[&'static str]) {
        let site = seen.site;
        for (key, row) in &seen.out.rows {
            if let Some(old) = seen.before.get(key).and_then(Option::as_ref).and_then(word) {
                let count = self.counts.entry((site, old)).or_default();
                *count = count.saturating_sub(1);
            }
            if let Some(new) = row.as_ref().and_then(word) {
                *self.counts.entry((site, new)).or_default() += 1;
            }
            // Of one record: what became of what, by which input.
            let was = seen.before.get(key).and_then(Option::as_ref).and_then(word).unwrap_or("none");
            let is = row.as_ref().and_then(word).unwrap_or("none");
            let one = Hash::new().text(was).text(seen.input.name()).text(is).number(key.kind() as u64);
            self.transitions.insert(one.0);
        }
        let mut hash = Hash::new();
        for ((s, word), count) in &self.counts {
            if *s == site && *count > 0 {
                hash = hash.text(word).number(u64::from((*count).min(2)));
            }
        }
        for fault in faults {
            hash = hash.text(fault);
        }
        let before = self.alpha.insert(site, hash.0).unwrap_or_default();
        if before != hash.0 {
            self.states.insert(hash.0);
            self.transitions.insert(Hash::new().number(before).text(seen.input.name()).number(hash.0).0);
        }
    }

    fn change(&mut self, seen: &Seen<'_>, change: &Change) {
        let object = |is: fn(&ObjectReply) -> bool| match seen.input {
            Input::Object { outcome: Outcome::Done(reply), .. } => is(reply),
            _ => false,
        };
        match change {
            Change::Task(TaskChange::Returned { attempt, cause, .. }) => {
                self.sometimes("attempt-n", *attempt > 1);
                self.sometimes("put-back-absent", *cause == TaskCause::Absent);
                self.sometimes("put-back-idle", *cause == TaskCause::Report);
            }
            Change::Task(TaskChange::Resumed { .. }) => self.mark("resumed"),
            Change::Task(TaskChange::Finished { cause, .. }) => {
                self.sometimes("callback-found", *cause == TaskCause::Answer);
            }
            Change::Episode(EpisodeChange::Recorded(row)) => {
                self.sometimes("bare", row.sidecar.is_none());
                self.sometimes("late-episode", row.late);
                let owed = matches!(seen.was(&Key::Task(row.task.clone())), Some(Row::Task(task))
                if task.earlier.iter().flatten().any(|entry| {
                    entry.owed && WireId::of_attempt(&task.id, entry.attempt) == row.wire
                }));
                self.sometimes("owed-arrived", owed);
            }
            Change::Episode(EpisodeChange::Judged { qa, .. }) => {
                self.mark("judged");
                let alone = !matches!(seen.input, Input::Request { .. });
                self.sometimes("approved-alone", alone && *qa == Qa::Approved);
                self.sometimes("put-aside", alone && *qa == Qa::NeedsInspection);
            }
            Change::Episode(EpisodeChange::Removed { .. }) => self.mark("edge-removed"),
            Change::Job(JobChange::Queued(_)) => self.sometimes("auto-scan", *seen.input == Input::Wake),
            Change::Job(JobChange::Reclaimed { .. }) => self.mark("reclaimed"),
            Change::Job(JobChange::Returned { job, cause, .. }) => {
                let parked = matches!(seen.was(&Key::Job(*job)), Some(Row::Job(row)) if matches!(row.state, JobState::Parked { .. }));
                self.sometimes("unparked", parked);
                self.sometimes("retry", matches!(cause, Cause::Retry(_)));
                self.sometimes("destination-down", matches!(cause, Cause::Destination(_)));
                self.sometimes("shutdown-returns", *seen.input == Input::Shutdown);
            }
            Change::Job(JobChange::Parked { why, .. }) => {
                self.sometimes("parked-auth", matches!(why, ParkWhy::Fault(Fault::Auth)));
                self.sometimes("parked-no-cloud", matches!(why, ParkWhy::NoDestination));
            }
            Change::Job(JobChange::Failed { why, .. }) => match why {
                FinalWhy::Exhausted(_) => self.mark("exhausted"),
                FinalWhy::SourceLost(_) => self.mark("source-lost"),
                FinalWhy::Foreign => self.mark("foreign"),
                FinalWhy::GivenUp(_) | FinalWhy::Cancelled => {}
            },
            Change::Policy(change) => self.policy_change(seen, change),
            Change::Upload(UploadChange::Opened { .. }) => {
                self.sometimes("upload-adopted", object(|reply| !matches!(reply, ObjectReply::Created(_))));
            }
            Change::Upload(UploadChange::PartStored { .. }) => {
                self.mark("multipart");
                // What is listed counts when the source was read there.
                self.sometimes("parts-found", object(|reply| matches!(reply, ObjectReply::Got(_))));
            }
            Change::Upload(UploadChange::PartLost { .. }) => self.mark("part-lost"),
            Change::Upload(UploadChange::Distrusted { job }) => {
                let untrue = match (seen.input, seen.rows.get(&Key::Upload(*job))) {
                    (
                        Input::Object { outcome: Outcome::Done(ObjectReply::Got(got)), .. },
                        Some(Row::Upload(row)),
                    ) => {
                        matches!(got, Got::Parts { sha256, .. } if *sha256 == row.source.sha256)
                    }
                    _ => false,
                };
                self.sometimes("part-untrue", untrue);
            }
            Change::Upload(UploadChange::Sealed { .. }) => {
                self.sometimes("complete-found", object(|reply| matches!(reply, ObjectReply::Head(_))));
            }
            Change::Upload(UploadChange::Restarted { .. }) => self.mark("upload-restarted"),
            Change::Upload(UploadChange::Abandoning { job }) => {
                let sealing = matches!(seen.was(&Key::Upload(*job)),
                    Some(Row::Upload(row)) if matches!(row.phase, Phase::Sealing { .. }));
                let found = sealing && object(|reply| matches!(reply, ObjectReply::Head(Some(_))));
                self.sometimes("complete-found", found);
                self.sometimes("upload-dropped", !found);
            }
            _ => {}
        }
    }

    fn policy_change(&mut self, seen: &Seen<'_>, change: &PolicyChange) {
        match change {
            PolicyChange::Activated { turn, .. } | PolicyChange::Reverted { turn, .. } => match &turn.what {
                TurnWhat::Activated { .. } => self.mark("policy-activated"),
                TurnWhat::RolledBack { .. } => self.mark("policy-rolled-back"),
                TurnWhat::Ejected { module, blame } => {
                    let failed = matches!(blame, Blame::Fault(_));
                    self.sometimes("policy-ejected", failed);
                    let stalled = *blame == Blame::Fault(PolicyFault::Stalled);
                    self.sometimes("policy-stalled", stalled);
                    let gone = blame.code() == "unreadable";
                    self.sometimes("policy-unreadable", gone);
                    let chosen = matches!(seen.was(&Key::Policy), Some(Row::Policy(row))
                    if row.slots.iter().any(|(slot, binding)| {
                        binding.module == *module && turn.slots.iter().any(|(at, _)| at == slot)
                    }));
                    self.sometimes("policy-fell-back", chosen);
                    self.sometimes("policy-floored", !turn.floored.is_empty());
                }
                TurnWhat::Configured | TurnWhat::Reset { .. } => {}
            },
            PolicyChange::Probed { .. } => self.mark("policy-good"),
            PolicyChange::Released { .. } => self.mark("policy-lifted"),
            PolicyChange::Shadowed(_) => self.mark("policy-shadowed"),
            _ => {}
        }
    }

    fn effect(&mut self, seen: &Seen<'_>, effect: &Effect) {
        match effect {
            Effect::Close { why: CloseWhy::Replaced, .. } => {
                self.mark("takeover");
                let lost = |effect: &Effect| {
                    matches!(effect, Effect::Reply { answer: Err(Refusal::LinkLost { .. }), .. })
                };
                self.sometimes("takeover-busy", seen.out.effects.iter().any(lost));
            }
            Effect::TurnAway { refusal: Refusal::Contested { .. }, .. } => self.mark("contested"),
            Effect::Publish(Notice::Conflict { conflict: Some(_), .. }) => self.mark("conflict-shown"),
            Effect::Reply { answer: Ok(Response::Resolved { .. }), .. } => self.mark("conflict-resolved"),
            Effect::Reply { answer: Err(refusal), .. } => match refusal {
                Refusal::LinkLost { .. } => self.mark("call-lost"),
                Refusal::RpcTimeout(_) => self.mark("call-timeout"),
                Refusal::CommandInFlight(_) => self.mark("busy"),
                Refusal::StateSyncing | Refusal::RefreshFailed { .. } => self.mark("not-now"),
                Refusal::Policy(PolicyRefusal::Busy) => self.mark("policy-busy"),
                Refusal::Policy(PolicyRefusal::Quarantined { .. }) => self.mark("policy-barred-again"),
                _ => {}
            },
            Effect::Reply { answer: Ok(Response::BatchAccepted { count }), .. } => {
                self.sometimes("batch", *count > 0);
            }
            Effect::Send { frame, .. } if frame.text.contains("upload_ack") => {
                let recorded =
                    |change: &Change| matches!(change, Change::Episode(EpisodeChange::Recorded(_)));
                self.sometimes("ack-repeated", !seen.out.changes.iter().any(recorded));
            }
            Effect::Publish(Notice::Policy { news: PolicyNews::Unprepared(_), .. }) => {
                self.mark("policy-unready");
            }
            Effect::Publish(Notice::Destination { streak, fault, .. }) => {
                let down = std::mem::replace(&mut self.down_streak, *streak > 0);
                self.sometimes("destination-back", down && fault.is_none() && *streak == 0);
            }
            _ => {}
        }
    }

    /// Something happened outside the core.
    pub fn happened(&mut self, truth: &Truth<'_>, what: &Happened<'_>) {
        if self.blind {
            return;
        }
        match what {
            Happened::Up { site } => {
                self.up_since.insert(*site, truth.now);
            }
            Happened::Down { site, orderly } => {
                let young = self.up_since.get(site).is_some_and(|since| (truth.now - *since).as_secs() < 1);
                self.sometimes("crash-in-recovery", young && !orderly);
                self.sometimes("orderly-stop", *orderly);
            }
            Happened::Undone { .. } => self.mark("commit-lost"),
            Happened::Stepped { site, by_ms } => {
                let waits = truth.images[*site].values().any(|row| {
                    matches!(row, Row::Job(row) if matches!(&row.state, JobState::Pending { cause, .. } if *cause != Cause::Queued))
                });
                self.sometimes("wall-back", waits && *by_ms < 0);
                self.sometimes("wall-ahead", waits && *by_ms > 0);
            }
            Happened::Released { .. } | Happened::Called { .. } | Happened::Tampered { .. } => {}
        }
    }

    /// A fault began, with the sites in some phase.
    pub fn fault<'a>(&mut self, fault: &'static str, images: impl Iterator<Item = &'a BTreeMap<Key, Row>>) {
        if self.blind {
            return;
        }
        for row in images.flat_map(BTreeMap::values) {
            // What is over has no phase that a fault could meet.
            let phase = match row {
                Row::Task(row) if row.state.is_final() => None,
                Row::Job(row) if row.state.is_final() => None,
                Row::Episode(_) => None,
                row => word(row),
            };
            if let Some(phase) = phase {
                self.pairs.insert((fault, phase));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::MARKS;

    #[test]
    fn the_catalogue_names_each_mark_once_and_every_mark_is_set_somewhere() {
        let sources =
            [include_str!("coverage.rs"), include_str!("world/site.rs"), include_str!("world/door.rs")];
        let sources = sources.join("\n");
        for (n, (id, _)) in MARKS.iter().enumerate() {
            assert!(MARKS[..n].iter().all(|(other, _)| other != id), "{id} twice");
            let set = [format!("mark(\"{id}\")"), format!("sometimes(\"{id}\"")];
            assert!(set.iter().any(|set| sources.contains(set)), "nothing ever sets {id}");
        }
    }
}
