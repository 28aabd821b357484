//! Invariants of uploads: what completed means (I18), one object (I19), when the edge copy goes (I20, I29), nothing
//! left behind (I21), what counts as sent (I22), how much is under way (I27).
//!
//! What a session may ask follows from the durable record of it and from this file's own tables of what was asked.

mod asks;
mod sweep;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tidegate_core::change::{Change, EpisodeChange, JobChange, UploadChange};
use tidegate_core::digest::Sha256;
use tidegate_core::effect::{Effect, Notice};
use tidegate_core::id::{EpisodeId, Fence, JobId, ObjectKey, PartNo, Ticket, UploadId};
use tidegate_core::input::Input;
use tidegate_core::object::{ObjectReply, PartFacts, Span};
use tidegate_core::outcome::{Fault, Outcome, What};
use tidegate_core::row::{JobRow, Key, Phase, Row, SyncMark, UploadRow};
use tidegate_core::time::{Mono, Now};

use super::rows::{self, Image, Sites};
use super::{Broken, Happened, Premises, Seen, Truth, Watch, demand};
use crate::store::{Bucket, Content};

/// Which part of which multipart upload of which job.
type At = (JobId, UploadId, PartNo);

/// A part that was sent at least once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sent {
    /// Under way, for this claim.
    Out(Fence),
    /// Nobody knows whether it is there, or it does not count.
    Loose,
    /// It counts, durably.
    Counts,
}

#[derive(Debug, Default)]
struct Uploads {
    /// Sessions by the keys they write to, sidecars' included.
    at: BTreeMap<ObjectKey, BTreeSet<JobId>>,
    /// Whose a multipart upload is.
    names: BTreeMap<UploadId, JobId>,
    /// Bytes that count, by session.
    acked: BTreeMap<JobId, u64>,
    sent: BTreeMap<At, Sent>,
    out: BTreeMap<Ticket, At>,
    /// Parts under way, by session.
    flying: BTreeMap<JobId, BTreeSet<Ticket>>,
    /// Keys whose uploads were listed in this boot, and none was created since.
    listed: BTreeSet<ObjectKey>,
    /// Looks that were not answered.
    heads: BTreeMap<Ticket, ObjectKey>,
    /// Keys where the last look found what surely is another's.
    foreign: BTreeSet<ObjectKey>,
    /// Last progress told, by job.
    told: BTreeMap<JobId, u64>,
    /// Before this moment of the boot the edge copy stays.
    keep: BTreeMap<EpisodeId, Mono>,
    /// Whose a key at the edge is.
    edge: BTreeMap<ObjectKey, EpisodeId>,
    /// What an episode was made of: the stores' truth at that moment.
    made_of: BTreeMap<EpisodeId, (Content, Option<Content>)>,
    /// Key in the cloud of each episode: one for ever.
    cloud_key: BTreeMap<EpisodeId, ObjectKey>,
    /// Objects made at a job's key by multipart uploads when it was completed.
    made: BTreeMap<JobId, (ObjectKey, u32)>,
    /// Questions for the parts of an upload that were not answered.
    probes: BTreeMap<Ticket, (JobId, UploadId)>,
    /// Parts of which the store said, after all doubt, that it has exactly the bytes of the source: which bytes those are, and
    /// where.
    proven: BTreeMap<At, (ObjectKey, Span, Sha256)>,
    /// What was asked to tidy up at a key and was not answered, and how often it came to nothing.
    listing: BTreeMap<Ticket, ObjectKey>,
    refused: BTreeMap<ObjectKey, u32>,
    /// Keys at which people were told that an upload may be left.
    unseen: BTreeSet<ObjectKey>,
}

/// Watches uploads.
#[derive(Debug, Default)]
pub struct UploadWatch {
    premises: Premises,
    sites: Sites<Uploads>,
}

fn named(phase: &Phase) -> Option<&UploadId> {
    match phase {
        Phase::Open { upload } | Phase::Sealing { upload } => Some(upload),
        Phase::Abandoning { upload } => upload.as_ref(),
        Phase::Planned | Phase::Sealed { .. } => None,
    }
}

impl Uploads {
    /// What follows from the records; what the watch saw itself stays.
    fn load(&mut self, image: &Image) {
        self.at.clear();
        self.names.clear();
        self.acked.clear();
        self.edge.clear();
        self.quiet();
        self.told.clear();
        let mut known = BTreeSet::new();
        for (key, row) in image {
            match (key, row) {
                (Key::Upload(job), Row::Upload(row)) => self.enter(*job, row),
                (Key::Part(job, part), Row::Part(facts)) => {
                    *self.acked.entry(*job).or_default() += facts.len;
                    if let Some(upload) = rows::upload(image, *job).and_then(|row| named(&row.phase)) {
                        known.insert((*job, upload.clone(), *part));
                    }
                }
                (Key::Episode(id), Row::Episode(row)) => {
                    self.edge.insert(row.key.clone(), *id);
                    if let Some(sidecar) = &row.sidecar {
                        self.edge.insert(sidecar.key.clone(), *id);
                    }
                }
                (Key::Job(_), Row::Job(row)) => {
                    self.cloud_key.entry(row.episode).or_insert_with(|| row.key.clone());
                }
                _ => {}
            }
        }
        for (at, sent) in &mut self.sent {
            *sent = if known.contains(at) { Sent::Counts } else { Sent::Loose };
        }
    }

    /// Nobody waits for anything any more.
    fn quiet(&mut self) {
        self.out.clear();
        self.flying.clear();
        self.listed.clear();
        self.heads.clear();
        self.probes.clear();
        self.proven.clear();
        self.listing.clear();
        self.foreign.clear();
        for sent in self.sent.values_mut() {
            if let Sent::Out(_) = sent {
                *sent = Sent::Loose;
            }
        }
    }

    fn enter(&mut self, job: JobId, row: &UploadRow) {
        self.at.entry(row.key.clone()).or_default().insert(job);
        self.at.entry(rows::sidecar_key(&row.key)).or_default().insert(job);
        if let Some(upload) = named(&row.phase) {
            self.names.insert(upload.clone(), job);
        }
    }

    fn leave(&mut self, job: JobId, row: &UploadRow) {
        for key in [row.key.clone(), rows::sidecar_key(&row.key)] {
            if let Some(jobs) = self.at.get_mut(&key) {
                jobs.remove(&job);
                if jobs.is_empty() {
                    self.at.remove(&key);
                }
            }
        }
        self.acked.remove(&job);
    }

    /// The claim's parts are not waited for any more.
    fn let_go(&mut self, job: JobId) {
        for ticket in self.flying.remove(&job).unwrap_or_default() {
            if let Some(at) = self.out.get(&ticket) {
                self.sent.insert(at.clone(), Sent::Loose);
            }
        }
    }

    /// Waits of the boot: what the records say, clamped to the wait itself.
    fn boot(&mut self, image: &Image, keep: Option<u64>, now: Now) {
        self.quiet();
        self.keep.clear();
        let Some(keep) = keep.map(Duration::from_millis) else { return };
        for row in rows::episodes(image) {
            if let (SyncMark::Synced { at, .. }, None) = (&row.sync, row.removed_at) {
                self.keep.insert(row.id, now.mono.after(now.wall.until(at.after(keep)).min(keep)));
            }
        }
    }

    /// What a look found at a key of ours.
    fn looked(&mut self, seen: &Seen<'_>) {
        let (ticket, found) = match seen.input {
            Input::Object { ticket, outcome: Outcome::Done(ObjectReply::Head(found)) } => {
                (ticket, found.as_ref())
            }
            // A 404 in other words, truly of the object or not: the site cannot know better than the last answer.
            Input::Object { ticket, outcome: Outcome::Failed(Fault::Vanished(What::Object)) } => {
                (ticket, None)
            }
            _ => return,
        };
        let Some(key) = self.heads.remove(ticket) else { return };
        let mut sessions = self.at.get(&key).into_iter().flatten();
        let row = sessions.find_map(|id| match seen.was(&Key::Upload(*id)) {
            Some(Row::Upload(row)) if row.key == key => Some(row),
            _ => None,
        });
        let others = row.zip(found).is_some_and(|(row, found)| {
            let differs =
                found.len != row.source.len || found.sha256.is_some_and(|it| it != row.source.sha256);
            differs && found.announced != Some(row.source.sha256)
        });
        if others {
            self.foreign.insert(key);
        } else {
            self.foreign.remove(&key);
        }
    }

    /// What a list said: which parts need not be sent again, and whether a store refuses to list.
    fn told_of(&mut self, seen: &Seen<'_>) {
        let Input::Object { ticket, outcome } = seen.input else { return };
        if let Some(key) = self.listing.remove(ticket) {
            let failed = !matches!(outcome, Outcome::Done(_));
            *self.refused.entry(key).or_default() += u32::from(failed);
        }
        let Some((job, upload)) = self.probes.remove(ticket) else { return };
        if matches!(outcome, Outcome::Failed(Fault::Rejected(_))) {
            // The store takes its word back: it lists nothing any more, and what it listed to an earlier claim was kept by
            // nobody. Only what was acknowledged is known now (docs/stores.md: stores whose lists cannot be read).
            self.proven.retain(|at, _| at.0 != job);
        }
        let (Outcome::Done(ObjectReply::Parts(Some(listed))), Some(Row::Upload(row))) =
            (outcome, seen.was(&Key::Upload(job)))
        else {
            return;
        };
        let Some(source) = seen.edge().content(&row.source.key) else { return };
        for part in listed {
            let (offset, len) = rows::span(row.plan.part_size, row.source.len, part.part.0);
            let whole = offset + len <= source.len && part.len == len;
            let at = (job, upload.clone(), part.part);
            let doubted = self.sent.get(&at) == Some(&Sent::Loose);
            let span = Span { offset, len };
            let sha256 = source.span_sha256(span);
            if whole && doubted && part.sha256 == Some(sha256) {
                self.proven.insert(at, (row.source.key.clone(), span, sha256));
            }
        }
    }

    /// A third party changed sources. The site compares what the store listed with what it then reads itself, so a list
    /// proves nothing of a source that has become another since.
    fn unproven(&mut self, edge: &Bucket) {
        self.proven.retain(|_, (source, span, sha256)| {
            let content = edge.content(source).filter(|content| span.offset + span.len <= content.len);
            content.is_some_and(|content| content.span_sha256(*span) == *sha256)
        });
    }

    /// The outcome of sending a part, before its changes are looked at.
    fn heard(&mut self, input: &Input) {
        let Input::Object { ticket, outcome } = input else { return };
        let Some(at) = self.out.remove(ticket) else { return };
        let job = at.0;
        if let Some(flying) = self.flying.get_mut(&job) {
            flying.remove(ticket);
        }
        self.sent.insert(at, Sent::Loose);
        match outcome {
            Outcome::Done(ObjectReply::PartStored(_)) | Outcome::Unknown => {}
            // The claim is over, or asks what the store still has and waits for nothing else.
            Outcome::Done(_) | Outcome::Failed(_) => self.let_go(job),
        }
    }

    fn upload_change(
        &mut self,
        seen: &Seen<'_>,
        change: &UploadChange,
        premises: &mut Premises,
    ) -> Result<(), Broken> {
        match change {
            UploadChange::Opened { job, upload, .. } => {
                premises.met("I21");
                let owner = self.names.get(upload);
                demand("I21", owner.is_none_or(|owner| owner == job), || {
                    format!("{upload:?} is opened by job {job} and belongs to {owner:?}")
                })?;
                self.names.insert(upload.clone(), *job);
            }
            UploadChange::Restarted { job } | UploadChange::Distrusted { job } => {
                self.told.remove(job);
                self.let_go(*job);
                self.proven.retain(|at, _| at.0 != *job);
                for (_, sent) in self.sent.range_mut(range(*job)) {
                    *sent = Sent::Loose;
                }
            }
            UploadChange::PartLost { job, part } => {
                self.told.remove(job);
                self.proven.retain(|at, _| at.0 != *job || at.2 != *part);
                for ((_, _, other), sent) in self.sent.range_mut(range(*job)) {
                    if other == part {
                        *sent = Sent::Loose;
                    }
                }
            }
            UploadChange::PartStored { job, part, .. } => {
                let row = rows::upload(seen.rows, *job);
                if let Some(upload) = row.and_then(|row| named(&row.phase)) {
                    self.sent.insert((*job, upload.clone(), *part), Sent::Counts);
                }
            }
            UploadChange::Ended { job } => {
                self.told.remove(job);
                self.let_go(*job);
                self.proven.retain(|at, _| at.0 != *job);
                let gone: Vec<_> = self.sent.range(range(*job)).map(|(at, _)| at.clone()).collect();
                for at in gone {
                    self.sent.remove(&at);
                }
                self.names.retain(|_, owner| owner != job);
            }
            UploadChange::Abandoning { job } => self.let_go(*job),
            UploadChange::Planned(_)
            | UploadChange::Refenced { .. }
            | UploadChange::SidecarStored { .. }
            | UploadChange::Creating { .. }
            | UploadChange::Sealing { .. }
            | UploadChange::Sealed { .. } => {}
        }
        Ok(())
    }

    fn job_change(
        &mut self,
        seen: &Seen<'_>,
        change: &JobChange,
        premises: &mut Premises,
    ) -> Result<(), Broken> {
        match change {
            JobChange::Queued(row) => {
                let key = self.cloud_key.entry(row.episode).or_insert_with(|| row.key.clone());
                premises.met("I19.key");
                demand("I19", *key == row.key, || {
                    format!("episode {} went to {key}, and now to {}", row.episode, row.key)
                })
            }
            JobChange::Claimed { fence, .. } | JobChange::Reclaimed { fence, .. } => {
                self.told.remove(&fence.job);
                self.let_go(fence.job);
                Ok(())
            }
            JobChange::Returned { job, .. }
            | JobChange::Parked { job, .. }
            | JobChange::Failed { job, .. } => {
                self.let_go(*job);
                Ok(())
            }
            JobChange::Completed { fence, .. } => {
                self.let_go(fence.job);
                let Some(row) = rows::job(seen.rows, fence.job) else {
                    return Err(Broken { invariant: "I18", saw: format!("no job {}", fence.job) });
                };
                premises.met("I18");
                self.delivered(&seen.truth, seen.site, row)?;
                let past = seen.cloud().past.keys.get(&row.key);
                self.made.insert(row.id, (row.key.clone(), past.map_or(0, |past| past.completed)));
                Ok(())
            }
            JobChange::Sent { .. } | JobChange::Noted { .. } => Ok(()),
        }
    }

    /// I18: the recording stands in the cloud as it was taken in, its sidecar beside it. A third party that wrote to a key
    /// of the cloud voids it for that key and no other. Nothing else does, not even one that changed the recording on the
    /// site's own disk while it was read.
    fn delivered(&self, truth: &Truth<'_>, site: usize, row: &JobRow) -> Result<(), Broken> {
        let cloud = &truth.clouds[site];
        let truth = self.made_of.get(&row.episode);
        let source = &row.source;
        let main = (&row.key, source.len, source.sha256, truth.map(|(content, _)| content));
        let beside = source.sidecar.as_ref().map(|sidecar| {
            let content = truth.and_then(|(_, sidecar)| sidecar.as_ref());
            (rows::sidecar_key(&row.key), sidecar.len, sidecar.sha256, content)
        });
        let beside = beside.as_ref().map(|(key, len, sha256, content)| (key, *len, *sha256, *content));
        for (key, len, sha256, content) in std::iter::once(main).chain(beside) {
            if cloud.past.tampered.contains(key) {
                continue;
            }
            let same = cloud.holds(key, len, sha256)
                && content.is_none_or(|content| cloud.content(key) == Some(content));
            demand("I18", same, || {
                format!("job {} is completed, and {key} holds {:?}", row.id, cloud.objects.get(key))
            })?;
        }
        Ok(())
    }

    /// Records of a session that were touched.
    fn session(
        &mut self,
        seen: &Seen<'_>,
        job: JobId,
        old: Option<&Row>,
        premises: &mut Premises,
    ) -> Result<(), Broken> {
        if let Some(Row::Upload(old)) = old {
            self.leave_if_gone(seen, job, old);
        }
        let Some(row) = rows::upload(seen.rows, job) else { return Ok(()) };
        self.enter(job, row);
        let own = rows::job(seen.rows, job);
        let elsewhere = own.is_some_and(|own| own.key != row.key);
        demand("I19", !elsewhere, || format!("the session of job {job} goes elsewhere: {row:?} {own:?}"))?;
        let sane = own.is_some_and(|own| own.source == row.source) && row.fence.job == job;
        demand("I21", sane, || format!("the session of job {job} is not its own: {row:?} {own:?}"))?;
        if let Some(Row::Upload(old)) = old {
            let same = (&old.key, &old.source, old.plan) == (&row.key, &row.source, row.plan);
            demand("I19", same, || format!("the session of job {job} goes elsewhere: {old:?} {row:?}"))?;
        }
        let newly = !matches!(old, Some(Row::Upload(old)) if old.phase == row.phase);
        if matches!(row.phase, Phase::Sealing { .. }) && newly {
            premises.met("I21.sealed");
            let (from, to) = (Key::Part(job, PartNo(0)), Key::Part(job, PartNo(u16::MAX)));
            let numbers = seen.rows.range(from..=to).map(|(key, _)| match key {
                Key::Part(_, part) => part.0,
                _ => 0,
            });
            let whole = numbers.eq(1..=row.plan.parts) && self.acked.get(&job) == Some(&row.source.len);
            demand("I21", whole, || format!("job {job} is sealed with parts missing: {row:?}"))?;
        }
        Ok(())
    }

    fn leave_if_gone(&mut self, seen: &Seen<'_>, job: JobId, old: &UploadRow) {
        if rows::upload(seen.rows, job).is_none() {
            self.leave(job, old);
        }
    }

    /// I21 and I22: a part counts only if it is within the plan and stands in the store, and it never changes.
    fn part(
        &mut self,
        seen: &Seen<'_>,
        (job, part): (JobId, PartNo),
        old: Option<&Row>,
        premises: &mut Premises,
    ) -> Result<(), Broken> {
        let new = rows::part(seen.rows, job, part);
        let was = match old {
            Some(Row::Part(facts)) => Some(facts),
            _ => None,
        };
        let len = |facts: Option<&PartFacts>| facts.map_or(0, |facts| facts.len);
        let sum = self.acked.entry(job).or_default();
        *sum = sum.saturating_sub(len(was)).saturating_add(len(new));
        let Some(facts) = new else { return Ok(()) };
        if let Some(was) = was {
            // Lost and stored again within one step is the only way to other facts, and no step does both.
            return demand("I21", was == facts, || format!("part {part} of job {job} changed"));
        }
        let Some(row) = rows::upload(seen.rows, job) else {
            return Err(Broken { invariant: "I21", saw: format!("part {part} of job {job} has no session") });
        };
        let (_, planned) = rows::span(row.plan.part_size, row.source.len, part.0);
        let fits = (1..=row.plan.parts).contains(&part.0) && facts.len == planned;
        demand("I21", fits, || format!("part {part} of job {job} is not of the plan: {facts:?} {row:?}"))?;
        let (Phase::Open { upload } | Phase::Sealing { upload }) = &row.phase else { return Ok(()) };
        premises.met("I22");
        // An upload that ended meanwhile (completed, dropped by the store) holds nothing any more. A source that a third
        // party changed may have been sent twice with other bytes; the recheck finds that, and the part may differ.
        let Some(open) = seen.cloud().open.get(upload) else { return Ok(()) };
        if seen.edge().past.tampered.contains(&row.source.key) {
            return Ok(());
        }
        let held = open.parts.get(&part).map(|(held, ..)| held);
        demand("I22", held == Some(facts), || {
            format!("part {part} of job {job} counts as {facts:?}, and is {held:?}")
        })
    }
}

/// Every part of a job.
fn range(job: JobId) -> std::ops::Range<At> {
    let least = |id: u64| (JobId(id), UploadId::new(""), PartNo(0));
    least(job.0)..least(job.0 + 1)
}

impl Watch for UploadWatch {
    fn step(&mut self, seen: &Seen<'_>) -> Result<(), Broken> {
        let (site, premises) = (self.sites.at(seen.site), &mut self.premises);
        if let Input::Boot { .. } = seen.input {
            site.boot(seen.rows, seen.knobs.keep_edge_ms, seen.now);
        }
        site.looked(seen);
        site.told_of(seen);
        site.heard(seen.input);
        for change in &seen.out.changes {
            match change {
                Change::Upload(change) => site.upload_change(seen, change, premises)?,
                Change::Job(change) => site.job_change(seen, change, premises)?,
                Change::Episode(EpisodeChange::Recorded(row)) => {
                    site.edge.insert(row.key.clone(), row.id);
                    let sidecar = row.sidecar.as_ref().map(|sidecar| &sidecar.key);
                    if let Some(key) = sidecar {
                        site.edge.insert(key.clone(), row.id);
                    }
                    let whole = seen.edge().content(&row.key).filter(|it| it.sha256() == row.sha256);
                    if let Some(whole) = whole {
                        let beside = sidecar.and_then(|key| seen.edge().content(key)).cloned();
                        site.made_of.insert(row.id, (whole.clone(), beside));
                    }
                }
                Change::Episode(EpisodeChange::Synced { episode, .. }) => {
                    if let Some(keep) = seen.knobs.keep_edge_ms {
                        site.keep.insert(*episode, seen.now.mono.after(Duration::from_millis(keep)));
                    }
                }
                Change::Episode(EpisodeChange::Removed { episode, .. }) => {
                    site.keep.remove(episode);
                }
                Change::Episode(_) | Change::Task(_) | Change::Policy(_) | Change::Roster(_) => {}
            }
        }
        // Parts first: a session that is sealed is held against their sum.
        for (key, old) in seen.before {
            if let Key::Part(job, part) = key {
                site.part(seen, (*job, *part), old.as_ref(), premises)?;
            }
        }
        for (key, old) in seen.before {
            match key {
                Key::Upload(job) => site.session(seen, *job, old.as_ref(), premises)?,
                Key::Job(id) => {
                    if let (Some(Row::Job(old)), Some(new)) = (old, rows::job(seen.rows, *id)) {
                        let same = old.key == new.key && old.source == new.source;
                        demand("I19", same, || format!("job {id} changed its key: {old:?} {new:?}"))?;
                        demand("I22", new.bytes_sent >= old.bytes_sent, || format!("job {id} unsent bytes"))?;
                    }
                }
                _ => {}
            }
        }
        for effect in &seen.out.effects {
            match effect {
                Effect::Object { ticket, op } => site.asks(seen, *ticket, op, premises)?,
                Effect::Publish(notice @ Notice::Progress { .. }) => site.progress(seen, notice, premises)?,
                Effect::Publish(Notice::StrayUnseen { key, .. }) => {
                    premises.met("I21.unseen");
                    let refused = site.refused.get(key).copied().unwrap_or(0);
                    demand("I21", refused > 1, || {
                        format!(
                            "nobody looks for uploads at {key} any more, and {refused} questions came to nothing"
                        )
                    })?;
                    site.unseen.insert(key.clone());
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn happened(&mut self, truth: &Truth<'_>, what: &Happened<'_>) -> Result<(), Broken> {
        match what {
            Happened::Up { site } => {
                let known = self.sites.at(*site);
                known.load(&truth.images[*site]);
                known.sweep(truth, *site, &mut self.premises)
            }
            Happened::Down { site, .. } => {
                self.sites.at(*site).quiet();
                Ok(())
            }
            Happened::Tampered { site, cloud: false } => {
                self.sites.at(*site).unproven(&truth.edges[*site]);
                Ok(())
            }
            Happened::Undone { .. }
            | Happened::Released { .. }
            | Happened::Called { .. }
            | Happened::Stepped { .. }
            | Happened::Tampered { .. } => Ok(()),
        }
    }

    fn end(&mut self, truth: &Truth<'_>) -> Result<(), Broken> {
        for site in 0..truth.images.len() {
            let known = self.sites.at(site);
            known.sweep(truth, site, &mut self.premises)?;
            known.tidy(truth, site)?;
        }
        Ok(())
    }

    fn premises(&self) -> &Premises {
        &self.premises
    }

    fn invariants(&self) -> &'static [&'static str] {
        &[
            "I18",
            "I18.still",
            "I19",
            "I19.key",
            "I20.removed",
            "I21",
            "I21.aborted",
            "I21.listed",
            "I21.open",
            "I21.sealed",
            "I21.unseen",
            "I22",
            "I22.again",
            "I22.told",
            "I27.parts",
            "I29.kept",
        ]
    }
}
