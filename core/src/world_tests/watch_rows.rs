//! Invariants of tasks, episodes, jobs and uploads, from records and ground truth: I11, I12, I14 to I22.
//!
//! The tables of legal transitions are this file's own, written from the diagrams, not the code's.

use std::collections::BTreeMap;
use std::format;
use std::prelude::v1::*;

use super::watch::{Seen, broken, demand, episode, episodes, job, jobs, parts, upload, uploads};
use crate::change::{Change, EpisodeChange, JobChange, RosterChange, TaskCause, TaskChange, UploadChange};
use crate::effect::{Effect, Notice, Response};
use crate::id::{Boot, EpisodeId, JobId, ObjectKey, TaskId, WireId};
use crate::input::{Input, Request};
use crate::limits;
use crate::object::{ObjectOp, Store, Verb};
use crate::outcome::{Budget, Fault};
use crate::refusal::Broken;
use crate::row::{Cause, FinalWhy, JobState, Key, ParkWhy, Phase, Row, SyncMark, TaskState};
use crate::time::{Mono, Wall};

/// What the watch remembers between steps.
#[derive(Debug, Default)]
pub(super) struct RowWatch {
    /// Last progress told, by job.
    progress: BTreeMap<JobId, u64>,
    /// When an episode was synced, on the clock that waits.
    synced: BTreeMap<EpisodeId, (Boot, Mono)>,
    /// How often the premises held, so that no check is vacuous.
    pub(super) premises: BTreeMap<&'static str, u64>,
}

impl RowWatch {
    fn met(&mut self, invariant: &'static str) {
        *self.premises.entry(invariant).or_default() += 1;
    }

    pub(super) fn step(&mut self, seen: &Seen<'_>) -> Result<(), Broken> {
        self.tasks(seen)?;
        self.jobs(seen)?;
        self.uploads(seen)?;
        self.episodes(seen)?;
        self.relations(seen)?;
        for effect in &seen.out.effects {
            match effect {
                Effect::Object { op, .. } => self.op(seen, op)?,
                Effect::Publish(Notice::Progress { episode, job, uploaded, total, .. }) => {
                    self.told(seen, *episode, *job, *uploaded, *total)?;
                }
                Effect::Reply { answer: Ok(response), .. } => self.answer(seen, response)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn tasks(&mut self, seen: &Seen<'_>) -> Result<(), Broken> {
        let mut states: BTreeMap<TaskId, Option<TaskState>> = BTreeMap::new();
        for change in &seen.out.changes {
            let Change::Task(change) = change else { continue };
            let id = task_of(change);
            let state = states.entry(id.clone()).or_insert_with(|| match seen.was(&Key::Task(id.clone())) {
                Some(Row::Task(row)) => Some(row.state),
                _ => None,
            });
            let next = task_next(*state, change);
            let Some(next) = next else {
                return broken("I11", format!("task {id}: {change:?} in {state:?}"));
            };
            self.met("I11");
            *state = Some(next);
            cause_fits(seen, change)?;
        }
        for (id, state) in &states {
            let Some(Row::Task(row)) = seen.rows.get(&Key::Task(id.clone())) else {
                return broken("I12", format!("task {id} changed and has no record"));
            };
            demand("I11", Some(row.state) == *state, || {
                format!("task {id}: {:?}, not {state:?}", row.state)
            })?;
            demand("I11", row.wire == WireId::of_attempt(id, row.attempt), || format!("wire {row:?}"))?;
            if row.attempt > 1 {
                let alias = seen.rows.get(&Key::Alias(row.wire.clone()));
                demand("I12", alias.is_some(), || format!("{} has no alias", row.wire))?;
            }
            let finished = row.completed_at.is_some();
            demand("I11", finished == row.state.is_final(), || format!("completed_at of {row:?}"))?;
        }
        for (key, old) in seen.before {
            let (Key::Task(id), Some(Row::Task(old))) = (key, old) else { continue };
            let Some(Row::Task(new)) = seen.rows.get(key) else {
                return broken("I11", format!("task {id} is gone"));
            };
            let moved = states.contains_key(id);
            demand("I11", moved || old == new, || format!("task {id} changed without a change"))?;
            demand("I11", !old.state.is_final() || old.state == new.state, || {
                format!("{id} left {:?}", old.state)
            })?;
            let resumed = |change: &Change| match change {
                Change::Task(TaskChange::Resumed { task, attempt, .. }) => {
                    task == id && *attempt == new.attempt
                }
                _ => false,
            };
            let back = new.attempt >= old.attempt || seen.out.changes.iter().any(resumed);
            demand("I11", back, || format!("{id} lost an attempt"))?;
            demand("I11", new.device == old.device && new.id == old.id, || format!("{id} changed hands"))?;
            demand("I11", old.attempt != new.attempt || !old.begun || new.begun, || {
                format!("{id} forgot begin")
            })?;
        }
        Ok(())
    }

    fn jobs(&mut self, seen: &Seen<'_>) -> Result<(), Broken> {
        let mut states: BTreeMap<JobId, Option<(JobState, u32, u32)>> = BTreeMap::new();
        for change in &seen.out.changes {
            let Change::Job(change) = change else { continue };
            let id = job_of(change);
            let state = states.entry(id).or_insert_with(|| match seen.was(&Key::Job(id)) {
                Some(Row::Job(row)) => Some((row.state.clone(), row.claims, row.spent)),
                _ => None,
            });
            let next = job_next(seen, state.clone(), change)?;
            self.met("I17");
            *state = Some(next);
        }
        for (id, state) in &states {
            let Some(row) = job(seen.rows, *id) else {
                return broken("I12", format!("job {id} changed and has no record"));
            };
            let now = Some((row.state.clone(), row.claims, row.spent));
            demand("I17", now == *state, || format!("job {id} is {now:?}, changes say {state:?}"))?;
        }
        for (key, old) in seen.before {
            let (Key::Job(id), Some(Row::Job(old))) = (key, old) else { continue };
            let Some(new) = job(seen.rows, *id) else { return broken("I15", format!("job {id} is gone")) };
            demand("I17", states.contains_key(id) || old == new, || {
                format!("job {id} changed without a change")
            })?;
            demand("I17", !old.state.is_final() || old == new, || format!("job {id} left {:?}", old.state))?;
            demand("I19", old.key == new.key && old.source == new.source, || {
                format!("job {id} changed its key")
            })?;
            demand("I16", new.spent >= old.spent && new.claims >= old.claims, || {
                format!("job {id} counts down")
            })?;
            demand("I22", new.bytes_sent >= old.bytes_sent, || format!("job {id} unsent bytes"))?;
        }
        for (id, _) in states {
            let row = job(seen.rows, id).expect("looked up above");
            if let JobState::Completed { .. } = row.state {
                if seen
                    .was(&Key::Job(id))
                    .is_some_and(|old| matches!(old, Row::Job(old) if old.state == row.state))
                {
                    continue;
                }
                self.met("I18");
                in_cloud(seen, id)?;
            }
        }
        Ok(())
    }

    fn uploads(&mut self, seen: &Seen<'_>) -> Result<(), Broken> {
        for change in &seen.out.changes {
            match change {
                Change::Upload(UploadChange::Restarted { job } | UploadChange::PartLost { job, .. })
                | Change::Upload(UploadChange::Ended { job }) => {
                    self.progress.remove(job);
                }
                Change::Job(JobChange::Claimed { fence, .. } | JobChange::Reclaimed { fence, .. }) => {
                    self.progress.remove(&fence.job);
                }
                _ => {}
            }
        }
        for (key, old) in seen.before {
            match (key, old, seen.rows.get(key)) {
                (Key::Part(job, part), Some(old), Some(new)) => {
                    demand("I21", old == new, || format!("part {part:?} of job {job} changed"))?;
                }
                (Key::Part(job, part), None, Some(Row::Part(facts))) => {
                    let Some(row) = upload(seen.rows, *job) else {
                        return broken("I21", format!("part of job {job} without an upload"));
                    };
                    let (offset, len) = span(row.plan.part_size, row.source.len, part.0);
                    let fits = (1..=row.plan.parts).contains(&part.0) && facts.len == len;
                    demand("I21", fits, || format!("part {part:?} ({offset}) of {row:?}: {facts:?}"))?;
                    if let Phase::Open { upload } | Phase::Sealing { upload } = &row.phase {
                        self.met("I22");
                        let held = seen.stores.cloud.open.get(upload).and_then(|open| open.parts.get(part));
                        let done = seen.stores.cloud.completed.contains_key(upload);
                        // A third party may have dropped the upload since; then nothing is held at all.
                        let gone = !seen.stores.cloud.open.contains_key(upload);
                        let same = held.is_some_and(|(held, ..)| held == facts);
                        demand("I22", same || done || gone, || {
                            format!("part {part:?} of {job} is not there")
                        })?;
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn episodes(&mut self, seen: &Seen<'_>) -> Result<(), Broken> {
        for change in &seen.out.changes {
            if let Change::Episode(EpisodeChange::Synced { episode, .. }) = change {
                self.synced.insert(*episode, (seen.boot, seen.now.mono));
            }
            let Change::Episode(EpisodeChange::Recorded(row)) = change else { continue };
            self.met("I20");
            // Verified: what stands at the edge is what the record says.
            let there = seen.stores.edge.objects.get(&row.key);
            let same = there.is_some_and(|o| o.len() == row.len && o.sha256() == row.sha256);
            demand("I20", same, || format!("recorded {row:?}, edge {there:?}"))?;
            if let Some(sidecar) = &row.sidecar {
                let there = seen.stores.edge.objects.get(&sidecar.key);
                let same = there.is_some_and(|o| o.len() == sidecar.len && o.sha256() == sidecar.sha256);
                demand("I20", same, || format!("recorded sidecar {sidecar:?}, edge {there:?}"))?;
            }
            let binding = seen.rows.get(&Key::Binding(row.key.clone()));
            let bound =
                matches!(binding, Some(Row::Binding(b)) if b.episode == Some(row.id) && b.task == row.task);
            demand("I15", bound, || format!("episode {} is not its key's", row.id))?;
            let same =
                |other: &&crate::row::EpisodeRow| other.key == row.key || other.public_id == row.public_id;
            let twins = episodes(seen.rows).filter(same).count();
            demand("I15", twins == 1, || format!("{twins} episodes of {}", row.key))?;
        }
        for (key, old) in seen.before {
            let (Key::Episode(id), Some(Row::Episode(old))) = (key, old) else { continue };
            let Some(new) = episode(seen.rows, *id) else {
                return broken("I15", format!("episode {id} is gone"));
            };
            let same = (&old.key, old.len, old.sha256, &old.sidecar, &old.task, &old.wire, &old.public_id)
                == (&new.key, new.len, new.sha256, &new.sidecar, &new.task, &new.wire, &new.public_id);
            demand("I15", same, || format!("episode {id} is another: {old:?} {new:?}"))?;
            let synced = matches!(old.sync, SyncMark::Synced { .. });
            demand("I14", !synced || old.sync == new.sync, || format!("episode {id} is no longer synced"))?;
            let judged = old.qa != new.qa;
            let idle = matches!(old.sync, SyncMark::NotStarted | SyncMark::Failed(_));
            demand("I15", !judged || idle, || format!("episode {id} was judged while {:?}", old.sync))?;
        }
        Ok(())
    }

    /// I13 and I15 over all records: every episode and its jobs agree.
    fn relations(&mut self, seen: &Seen<'_>) -> Result<(), Broken> {
        let concerns = |key: &Key| matches!(key, Key::Episode(_) | Key::Job(_) | Key::Upload(_));
        if !seen.before.keys().any(concerns) {
            return Ok(());
        }
        let mut open: BTreeMap<EpisodeId, JobId> = BTreeMap::new();
        for row in jobs(seen.rows) {
            if !row.state.is_final() {
                let other = open.insert(row.episode, row.id);
                demand("I13", other.is_none(), || format!("episode {} has two open jobs", row.episode))?;
            }
            if let JobState::Claimed { fence, .. } = &row.state {
                self.met("I13");
                let valid = fence.job == row.id && fence.attempt == row.claims && fence.boot == seen.boot;
                // A claim of an earlier boot is legal only until the boot's own step has reclaimed it.
                demand("I13", valid, || format!("job {} is claimed by {fence:?}", row.id))?;
            }
            let spent = row.spent <= seen.knobs.builtin.attempts.max(limits::ATTEMPTS_MAX);
            demand("I16", spent, || format!("job {} spent {}", row.id, row.spent))?;
        }
        for row in episodes(seen.rows) {
            self.met("I15");
            let fits = match &row.sync {
                SyncMark::NotStarted => !jobs(seen.rows).any(|job| job.episode == row.id),
                SyncMark::Queued(id) => {
                    job(seen.rows, *id).is_some_and(|job| !job.state.is_final() && job.episode == row.id)
                }
                SyncMark::Synced { job: id, key, .. } => job(seen.rows, *id).is_some_and(|job| {
                    matches!(job.state, JobState::Completed { .. })
                        && job.episode == row.id
                        && job.key == *key
                }),
                SyncMark::Failed(id) => job(seen.rows, *id)
                    .is_some_and(|job| matches!(job.state, JobState::Failed { .. }) && job.episode == row.id),
            };
            demand("I15", fits, || {
                let jobs: Vec<_> = jobs(seen.rows).filter(|job| job.episode == row.id).collect();
                format!("episode {}: {:?}, jobs {jobs:?}", row.id, row.sync)
            })?;
            if matches!(row.sync, SyncMark::Queued(_)) {
                demand("I15", row.qa.is_approved(), || {
                    format!("episode {} is queued and {:?}", row.id, row.qa)
                })?;
            }
            let kept = row.removed_at.is_none() || matches!(row.sync, SyncMark::Synced { .. });
            demand("I20", kept, || format!("episode {} was removed while {:?}", row.id, row.sync))?;
        }
        for (id, row) in uploads(seen.rows) {
            let Some(job) = job(seen.rows, id) else {
                return broken("I21", format!("upload {id} has no job"));
            };
            let sane = row.key == job.key && row.source == job.source && row.fence.job == id;
            demand("I21", sane, || format!("upload {id} is not of its job: {row:?} {job:?}"))?;
            let total = row.source.len;
            let (count, bytes) = parts(seen.rows, id);
            demand("I22", bytes <= total, || format!("upload {id}: {bytes} of {total}"))?;
            if matches!(row.phase, Phase::Sealing { .. }) {
                let all = count == usize::from(row.plan.parts) && bytes == total;
                demand("I21", all, || format!("upload {id} is sealed with {count} parts of {:?}", row.plan))?;
            }
        }
        Ok(())
    }

    /// What leaves for a store is backed by records: intent before effect.
    fn op(&mut self, seen: &Seen<'_>, op: &ObjectOp) -> Result<(), Broken> {
        let ObjectOp { store, key, verb } = op;
        if *store == Store::Edge {
            return match verb {
                Verb::Head | Verb::Get { .. } | Verb::Find { .. } => Ok(()),
                Verb::Delete => self.removal(seen, key),
                _ => broken("I20", format!("the core writes to the edge: {op:?}")),
            };
        }
        let mut found = None;
        for (id, row) in uploads(seen.rows) {
            let sidecar = sidecar_in_cloud(&row.key);
            if row.key == *key || sidecar == *key {
                let live = job(seen.rows, id).is_some_and(|job| {
                    matches!(&job.state, JobState::Claimed { fence, .. } if *fence == row.fence)
                        && row.fence.boot == seen.boot
                });
                if live || found.is_none() {
                    found = Some((id, row, live, row.key == *key));
                }
            }
        }
        let Some((id, row, live, whole)) = found else {
            return broken("I21", format!("an operation without a session: {op:?}"));
        };
        let claimed = || demand("I13", live, || format!("{op:?} without a claim of job {id}"));
        match verb {
            Verb::Head | Verb::Get { .. } | Verb::ListParts { .. } | Verb::ListUploads => Ok(()),
            Verb::Put { source, len, sha256 } => {
                claimed()?;
                let expected = if whole {
                    Some((&row.source.key, row.source.len, row.source.sha256))
                } else {
                    row.source.sidecar.as_ref().map(|s| (&s.key, s.len, s.sha256))
                };
                demand("I18", expected == Some((source, *len, *sha256)), || format!("{op:?} of {row:?}"))
            }
            Verb::Create { sha256 } => {
                claimed()?;
                let intent = row.look_first && row.phase == Phase::Planned && *sha256 == row.source.sha256;
                demand("I21", intent, || format!("Create before its intent: {row:?}"))
            }
            Verb::PutPart { upload, part, source, span: asked } => {
                claimed()?;
                self.met("I21");
                let open = matches!(&row.phase, Phase::Open { upload: id } if id == upload);
                let (offset, len) = span(row.plan.part_size, row.source.len, part.0);
                let same = asked.offset == offset && asked.len == len && *source == row.source.key;
                let number = (1..=row.plan.parts).contains(&part.0);
                demand("I21", open && same && number, || format!("{op:?} of {row:?}"))?;
                let known = seen.rows.contains_key(&Key::Part(id, *part));
                demand("I22", !known, || format!("{op:?} was acknowledged already"))
            }
            Verb::Complete { upload, parts } => {
                claimed()?;
                self.met("I19");
                let sealing = matches!(&row.phase, Phase::Sealing { upload: id } if id == upload);
                demand("I19", sealing, || format!("Complete before its intent: {row:?}"))?;
                let numbers = parts.iter().map(|(part, _)| part.0).eq(1..=row.plan.parts);
                let facts = parts.iter().all(|(part, facts)| {
                    seen.rows.get(&Key::Part(id, *part)) == Some(&Row::Part(facts.clone()))
                });
                demand("I21", numbers && facts, || format!("{op:?} does not match the records"))
            }
            Verb::Abort { upload } => {
                let current = match &row.phase {
                    Phase::Open { upload: id } | Phase::Sealing { upload: id } => live && id == upload,
                    Phase::Planned | Phase::Sealed { .. } | Phase::Abandoning { .. } => false,
                };
                demand("I21", !current, || format!("aborts the live upload {upload}"))
            }
            Verb::Find { .. } => broken("I19", format!("looks for names in the cloud: {op:?}")),
            Verb::Delete => broken("I19", format!("deletes in the cloud: {op:?}")),
        }
    }

    /// I20: an edge copy goes only after the job is durably completed and the object stands in the cloud.
    fn removal(&mut self, seen: &Seen<'_>, key: &ObjectKey) -> Result<(), Broken> {
        let owner = episodes(seen.rows)
            .find(|row| row.key == *key || row.sidecar.as_ref().is_some_and(|sidecar| sidecar.key == *key));
        let Some(row) = owner else { return broken("I20", format!("{key} is nobody's, and is deleted")) };
        let SyncMark::Synced { job, .. } = &row.sync else {
            return broken("I20", format!("episode {} is deleted while {:?}", row.id, row.sync));
        };
        let Some(keep) = seen.knobs.keep_edge_ms else {
            return broken("I20", format!("episode {} is deleted, and is to be kept", row.id));
        };
        // I29: within a boot the wait is one of the monotonic clock, whatever the wall clock did.
        if let Some((_, since)) = self.synced.get(&row.id).filter(|(boot, _)| *boot == seen.boot) {
            let waited = since.until(seen.now.mono).as_millis();
            demand("I29", waited >= u128::from(keep), || {
                format!("episode {} is deleted after {waited} of {keep} ms", row.id)
            })?;
        }
        self.met("I20.removed");
        in_cloud(seen, *job)
    }

    /// I22: progress counts acknowledged parts only, and never falls within an attempt.
    fn told(
        &mut self,
        seen: &Seen<'_>,
        episode: EpisodeId,
        id: JobId,
        uploaded: u64,
        total: u64,
    ) -> Result<(), Broken> {
        let Some(row) = job(seen.rows, id) else { return broken("I22", format!("progress of no job {id}")) };
        demand("I22", row.episode == episode && row.source.len == total && uploaded <= total, || {
            format!("{uploaded} of {total} for {row:?}")
        })?;
        let (_, bytes) = parts(seen.rows, id);
        let sealed = upload(seen.rows, id).is_none_or(|row| matches!(row.phase, Phase::Sealed { .. }));
        demand("I22", uploaded <= bytes || sealed, || {
            format!("job {id}: {uploaded} told, {bytes} acknowledged")
        })?;
        let last = self.progress.insert(id, uploaded).unwrap_or(0);
        self.met("I22.told");
        demand("I22", uploaded >= last, || format!("job {id} fell from {last} to {uploaded}"))
    }

    /// What an answer says is durable.
    fn answer(&mut self, seen: &Seen<'_>, response: &Response) -> Result<(), Broken> {
        match response {
            Response::Task(row) => {
                let same = seen.rows.get(&Key::Task(row.id.clone())) == Some(&Row::Task(row.clone()));
                demand("I12", same, || format!("told {row:?}"))
            }
            Response::Episode(row) => {
                let same = seen.rows.get(&Key::Episode(row.id)) == Some(&Row::Episode((**row).clone()));
                demand("I12", same, || format!("told {row:?}"))
            }
            Response::SyncAccepted { episode: id } => {
                self.met("I12.accepted");
                let queued =
                    episode(seen.rows, *id).is_some_and(|row| matches!(row.sync, SyncMark::Queued(_)));
                demand("I12", queued, || format!("episode {id} was accepted and is not queued"))
            }
            Response::Finished { state, .. } => {
                let Input::Request { request: Request::CallbackFinish { .. }, .. } = seen.input else {
                    return broken("I07", "a finish without its callback");
                };
                let fits = matches!(
                    state,
                    TaskState::Uploading
                        | TaskState::Completed
                        | TaskState::Pending
                        | TaskState::Ready
                        | TaskState::InProgress
                        | TaskState::Failed
                        | TaskState::Cancelled
                );
                demand("I11", fits, || format!("{state:?}"))
            }
            Response::BatchAccepted { count } => {
                let queued = |change: &&Change| matches!(change, Change::Job(JobChange::Queued(_)));
                let made = seen.out.changes.iter().filter(queued).count();
                let told = usize::try_from(*count).unwrap_or(usize::MAX);
                demand("I12", told == made, || format!("told {told}, queued {made}"))
            }
            Response::Policy(view) => {
                let generation = match seen.rows.get(&Key::Policy) {
                    Some(Row::Policy(row)) => row.generation,
                    _ => 0,
                };
                let same = view.generation == generation
                    && view.modules.iter().all(|(module, row)| {
                        seen.rows.get(&Key::Module(*module)) == Some(&Row::Module(Box::new(row.clone())))
                    });
                demand("I12", same, || format!("told {view:?}"))
            }
            Response::Rpc { .. }
            | Response::State(_)
            | Response::Started { .. }
            | Response::Resolved { .. }
            | Response::Window
            | Response::Sent => Ok(()),
            Response::Device(row) => {
                let held = seen.rows.get(&Key::Device(row.id.clone()));
                demand("I12", held == Some(&Row::Device(row.clone())), || format!("told {row:?}"))
            }
            Response::Token(row) => {
                let revoked =
                    |change: &Change| matches!(change, Change::Roster(RosterChange::TokenRevoked { .. }));
                let held = seen.rows.values().any(|held| *held == Row::Token(row.clone()));
                demand("I12", held != seen.out.changes.iter().any(revoked), || format!("told {row:?}"))
            }
        }
    }
}

/// Where a part lies.
fn span(part_size: u64, len: u64, part: u16) -> (u64, u64) {
    let offset = part_size * (u64::from(part).saturating_sub(1));
    (offset, len.saturating_sub(offset).min(part_size))
}

fn sidecar_in_cloud(key: &ObjectKey) -> ObjectKey {
    let base = key.as_str().strip_suffix(".mcap").unwrap_or(key.as_str());
    ObjectKey::new(&format!("{base}.json")).expect("as legal as the key")
}

/// I18: the object stands in the cloud with the very bytes that were verified, its sidecar beside it.
fn in_cloud(seen: &Seen<'_>, id: JobId) -> Result<(), Broken> {
    let Some(row) = job(seen.rows, id) else { return broken("I18", format!("no job {id}")) };
    demand("I18", matches!(row.state, JobState::Completed { .. }), || format!("job {id}: {:?}", row.state))?;
    let there = seen.stores.cloud.objects.get(&row.key);
    let same = there.is_some_and(|o| o.len() == row.source.len && o.sha256() == row.source.sha256);
    demand("I18", same, || format!("job {row:?}, cloud {there:?}"))?;
    if let Some(sidecar) = &row.source.sidecar {
        let there = seen.stores.cloud.objects.get(&sidecar_in_cloud(&row.key));
        let same = there.is_some_and(|o| o.len() == sidecar.len && o.sha256() == sidecar.sha256);
        demand("I18", same, || format!("sidecar of job {row:?}, cloud {there:?}"))?;
    }
    Ok(())
}

fn task_of(change: &TaskChange) -> TaskId {
    match change {
        TaskChange::Created { task, .. }
        | TaskChange::ConfigSent { task, .. }
        | TaskChange::Readied { task, .. }
        | TaskChange::BeginSent { task, .. }
        | TaskChange::Started { task, .. }
        | TaskChange::Finished { task, .. }
        | TaskChange::Completed { task, .. }
        | TaskChange::Failed { task, .. }
        | TaskChange::Returned { task, .. }
        | TaskChange::Cancelled { task, .. }
        | TaskChange::Noted { task, .. }
        | TaskChange::Resumed { task, .. }
        | TaskChange::Owed { task, .. } => task.clone(),
    }
}

/// The graph of section 7 of the device protocol, with our additions. `None` is illegal.
fn task_next(state: Option<TaskState>, change: &TaskChange) -> Option<TaskState> {
    use TaskState::{Cancelled, Completed, Failed, InProgress, Pending, Ready, Uploading};
    match (change, state) {
        (TaskChange::Created { .. }, None) => Some(Pending),
        (TaskChange::ConfigSent { .. }, Some(Pending)) => Some(Pending),
        (TaskChange::Readied { .. }, Some(Pending)) => Some(Ready),
        (TaskChange::BeginSent { .. }, Some(state @ (Pending | Ready))) => Some(state),
        (TaskChange::Started { .. }, Some(Pending | Ready)) => Some(InProgress),
        (TaskChange::Finished { .. }, Some(Pending | Ready | InProgress)) => Some(Uploading),
        (TaskChange::Completed { .. }, Some(Pending | Ready | InProgress | Uploading)) => Some(Completed),
        (TaskChange::Failed { .. }, Some(InProgress | Uploading)) => Some(Failed),
        (TaskChange::Returned { cause: TaskCause::Resolved, .. }, Some(Uploading)) => Some(Pending),
        (TaskChange::Returned { .. }, Some(Pending | Ready | InProgress)) => Some(Pending),
        (TaskChange::Resumed { .. }, Some(Pending | Ready)) => Some(InProgress),
        (TaskChange::Owed { .. }, state) => state,
        (TaskChange::Cancelled { .. }, Some(Pending | Ready | InProgress)) => Some(Cancelled),
        (TaskChange::Noted { .. }, Some(state @ (Pending | Ready | InProgress | Uploading))) => Some(state),
        _ => None,
    }
}

/// I11: the cause a change names is the input that happened.
fn cause_fits(seen: &Seen<'_>, change: &TaskChange) -> Result<(), Broken> {
    let answer =
        matches!(seen.input, Input::Recorder { message: crate::wire::RecorderMessage::Response { .. }, .. });
    let recorder = matches!(seen.input, Input::Recorder { .. });
    let wake = matches!(seen.input, Input::Wake);
    let fits = match change {
        TaskChange::Created { .. } => {
            matches!(seen.input, Input::Request { request: Request::CreateTask { .. }, .. })
        }
        TaskChange::Cancelled { .. } => {
            matches!(seen.input, Input::Request { request: Request::CancelTask { .. }, .. })
        }
        TaskChange::Completed { .. } => matches!(seen.input, Input::Object { .. }),
        TaskChange::Readied { cause, .. }
        | TaskChange::Started { cause, .. }
        | TaskChange::Finished { cause, .. }
        | TaskChange::Returned { cause, .. }
        | TaskChange::Resumed { cause, .. } => match cause {
            // A callback that never came is found when it is overdue.
            TaskCause::Answer => answer || wake,
            // What is not explained in time is concluded from a report that came before.
            TaskCause::Report => recorder || wake,
            TaskCause::Absent => wake,
            TaskCause::Resolved => matches!(
                seen.input,
                Input::Request { request: Request::Resolve { .. } | Request::ResolveTask { .. }, .. }
            ),
            TaskCause::ConfigApplied => recorder && !answer,
            TaskCause::Callback => matches!(
                seen.input,
                Input::Request {
                    request: Request::CallbackStart { .. } | Request::CallbackFinish { .. },
                    ..
                }
            ),
            // What the uploader names, or the store has, tells of an end and of nothing else. A wake: nobody answered when
            // the device was asked.
            TaskCause::Transfer => {
                let told = matches!(seen.input, Input::Transfer { .. } | Input::Object { .. });
                matches!(change, TaskChange::Finished { .. }) && (told || wake)
            }
            TaskCause::Operator => matches!(seen.input, Input::Request { .. }) || answer,
            TaskCause::Verified => matches!(seen.input, Input::Object { .. }),
        },
        TaskChange::Failed { .. } => matches!(
            seen.input,
            Input::Transfer { .. } | Input::Request { request: Request::ResolveTask { .. }, .. }
        ),
        TaskChange::ConfigSent { .. } | TaskChange::BeginSent { .. } => {
            seen.out.effects.iter().any(|effect| matches!(effect, Effect::Send { .. }))
        }
        TaskChange::Noted { .. } | TaskChange::Owed { .. } => true,
    };
    demand("I11", fits, || format!("{change:?} came of {:?}", seen.input))
}

fn job_of(change: &JobChange) -> JobId {
    match change {
        JobChange::Queued(row) => row.id,
        JobChange::Claimed { fence, .. }
        | JobChange::Reclaimed { fence, .. }
        | JobChange::Completed { fence, .. } => fence.job,
        JobChange::Returned { job, .. }
        | JobChange::Parked { job, .. }
        | JobChange::Failed { job, .. }
        | JobChange::Sent { job, .. }
        | JobChange::Noted { job, .. } => *job,
    }
}

/// I17, I14 and I16: the graph of decision 7, who may walk it, and what it costs.
fn job_next(
    seen: &Seen<'_>,
    state: Option<(JobState, u32, u32)>,
    change: &JobChange,
) -> Result<(JobState, u32, u32), Broken> {
    let illegal = || broken("I17", format!("{change:?} in {state:?}"));
    let budget = |spent: u32, was: u32, fault: Option<&Fault>| {
        let one = u32::from(fault.is_some_and(|fault| fault.budget() == Budget::Data));
        demand("I16", spent == was || (spent == was + 1 && one == 1), || {
            format!("{change:?} spends from {was} for {fault:?}")
        })
    };
    match (change, &state) {
        (JobChange::Queued(row), None) => {
            let fresh = row.claims == 0 && row.spent == 0;
            demand("I16", fresh, || format!("a new job has attempts: {row:?}"))?;
            match &row.state {
                JobState::Pending { .. } | JobState::Parked { .. } => Ok((row.state.clone(), 0, 0)),
                JobState::Claimed { .. } | JobState::Completed { .. } | JobState::Failed { .. } => illegal(),
            }
        }
        (JobChange::Claimed { fence, at, .. }, Some((JobState::Pending { .. }, claims, spent))) => {
            let fresh = fence.attempt == claims + 1 && fence.boot == seen.boot;
            demand("I14", fresh, || format!("{fence:?} after {claims} claims"))?;
            Ok((JobState::Claimed { fence: *fence, since: *at }, fence.attempt, *spent))
        }
        (JobChange::Reclaimed { fence, at }, Some((JobState::Claimed { fence: old, .. }, claims, spent))) => {
            let newer = fence.boot == seen.boot && old.boot < fence.boot && fence.attempt == old.attempt;
            demand("I14", newer, || format!("{fence:?} reclaims {old:?}"))?;
            Ok((JobState::Claimed { fence: *fence, since: *at }, *claims, *spent))
        }
        (JobChange::Returned { due, cause, spent, at, .. }, Some((was, claims, before))) => {
            if was.is_final() {
                return illegal();
            }
            match cause {
                Cause::Retry(fault) => {
                    budget(*spent, *before, Some(fault))?;
                    if seen.builtin && *spent > *before {
                        envelope(seen, *spent, *at, *due)?;
                    }
                }
                Cause::Destination(fault) => {
                    let way = fault.budget() == Budget::Connectivity && spent == before;
                    demand("I16", way, || format!("{change:?} after {before}"))?;
                }
                Cause::Disk(fault) => {
                    let disk = fault.budget() == Budget::Disk && spent == before;
                    demand("I16", disk, || format!("{change:?} after {before}"))?;
                }
                Cause::Queued | Cause::Asked | Cause::Returned | Cause::Policy => {
                    budget(*spent, *before, None)?;
                }
            }
            Ok((JobState::Pending { due: *due, cause: cause.clone() }, *claims, *spent))
        }
        (
            JobChange::Parked { why, spent, at, .. },
            Some((JobState::Claimed { .. } | JobState::Pending { .. }, claims, before)),
        ) => {
            if let ParkWhy::Fault(fault) = why {
                budget(*spent, *before, Some(fault))?;
            }
            Ok((JobState::Parked { why: why.clone(), since: *at }, *claims, *spent))
        }
        (
            JobChange::Completed { fence, at },
            Some((JobState::Claimed { fence: held, .. }, claims, spent)),
        ) => {
            demand("I14", fence == held, || format!("{fence:?} completes what {held:?} holds"))?;
            Ok((JobState::Completed { at: *at }, *claims, *spent))
        }
        (JobChange::Failed { why, spent, at, .. }, Some((was, claims, before))) => {
            let legal = match was {
                JobState::Claimed { .. } => true,
                JobState::Pending { .. } | JobState::Parked { .. } => *why == FinalWhy::Cancelled,
                JobState::Completed { .. } | JobState::Failed { .. } => false,
            };
            if !legal {
                return illegal();
            }
            if let FinalWhy::Exhausted(fault) = why {
                let enough = *spent >= seen.knobs.builtin.attempts || !seen.builtin;
                demand("I16", enough && fault.budget() == Budget::Data, || {
                    format!("{change:?} of {before}")
                })?;
            }
            Ok((JobState::Failed { why: why.clone(), at: *at }, *claims, *spent))
        }
        (JobChange::Sent { .. } | JobChange::Noted { .. }, Some((was, claims, spent))) => {
            if was.is_final() {
                return illegal();
            }
            Ok((was.clone(), *claims, *spent))
        }
        _ => illegal(),
    }
}

/// I16: min(base · 2^(k-1), cap), plus jitter, within the cap.
fn envelope(seen: &Seen<'_>, spent: u32, at: Wall, due: Wall) -> Result<(), Broken> {
    let set = &seen.knobs.builtin;
    let mut low = set.retry_base_ms;
    for _ in 1..spent {
        low = (low * 2).min(set.retry_cap_ms);
    }
    let least = u64::try_from(limits::DELAY_MIN.as_millis()).unwrap_or(0);
    let high = (low + set.retry_jitter_ms).min(set.retry_cap_ms).max(least);
    let low = low.max(least);
    let delay = u64::try_from(due.0 - at.0).unwrap_or(0);
    let within = (low..=high).contains(&delay) && at == seen.now.wall;
    demand("I16", within, || format!("retry {spent} after {delay} ms, not {low} to {high}"))
}
