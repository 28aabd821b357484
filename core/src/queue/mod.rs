//! Sync jobs: what runs next, retry or give up, reclaim after a crash. Never asks a store anything itself.
//!
//! Jobs that are not final stay in memory; final ones go cold at the end of the step that ended them.

mod admit;
mod claim;
mod goodput;
mod job;
mod retry;
mod waiting;
mod way;

#[cfg(test)]
mod tests;

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use crate::bug::planted;
use crate::change::{Change, JobChange, UploadEnd};
use crate::cx::Cx;
use crate::effect::{QueueCounts, Response};
use crate::fact::{Fact, JobEnd, Wanted};
use crate::id::{EpisodeId, Fence, JobId, PolicySetId, RequestId};
use crate::limits;
use crate::outcome::{Budget, Fault};
use crate::policy::{Author, GiveUp, Memo, Question, RetryQuery, RetryVerdict, Slot};
use crate::refusal::{Broken, Illegal, Refusal};
use crate::row::{Cause, FinalWhy, JobRow, JobState, Key, ParkWhy, Row};
use crate::time::{Mono, Now};

use admit::{Allowed, Held};
use goodput::Goodput;
pub(crate) use job::of as job_of;
use retry::Course;
use waiting::Waitlist;
use way::Way;

/// The sync jobs of a site.
#[derive(Debug, Default)]
pub struct Queue {
    // Durable.
    numbered: u64,
    jobs: BTreeMap<JobId, JobRow>,
    // Follows from the rows.
    claimed: BTreeSet<JobId>,
    parked: usize,
    over: Vec<JobId>,
    // Volatile.
    awake: bool,
    waiting: Waitlist,
    way: Way,
    /// Failures of the site's own disk in a row, by job.
    disk: BTreeMap<JobId, u32>,
    shown: QueueCounts,
    /// The last verdict on concurrency: at one and the same moment it is not asked for again in vain.
    allowed: Option<Allowed>,
    /// Since when the policy alone keeps due jobs from beginning, and nothing is uploaded.
    held: Option<Held>,
    /// What the concurrency policy noted.
    memo: Option<Memo>,
    goodput: Goodput,
    #[cfg(tidegate_bugs)]
    pub(crate) bug: Option<crate::bug::Bug>,
}

impl Queue {
    /// Takes the counter of the meta row: the number of the next job.
    pub fn load_counter(&mut self, next_job: u64) {
        self.numbered = next_job.saturating_sub(1);
    }

    /// The number of the next job.
    #[must_use]
    pub fn counter(&self) -> u64 {
        self.numbered + 1
    }

    /// Takes a record into memory.
    pub fn load(&mut self, key: &Key, row: Row) {
        match (key, row) {
            (Key::Job(id), Row::Job(row)) => {
                assert_eq!(row.id, *id, "a job lies under its own number");
                self.put(row);
            }
            (key, row) => panic!("a {:?} record under {key:?} is not for the queue", row.kind()),
        }
    }

    /// A record, if it is in memory.
    #[must_use]
    pub fn row(&self, key: &Key) -> Option<Row> {
        match key {
            Key::Job(id) => self.jobs.get(id).cloned().map(Row::Job),
            Key::Meta
            | Key::Task(_)
            | Key::Episode(_)
            | Key::Upload(_)
            | Key::Part(..)
            | Key::Policy
            | Key::Device(_)
            | Key::Token(_)
            | Key::Module(_)
            | Key::Alias(_)
            | Key::Binding(_) => None,
        }
    }

    /// Lets go of jobs that are over.
    pub fn evict(&mut self) {
        for job in self.over.drain(..) {
            self.jobs.remove(&job);
            self.disk.remove(&job);
        }
    }

    /// Forgets everything that is not in a record.
    pub fn forget_volatile(&mut self) {
        self.awake = false;
        self.waiting = Waitlist::default();
        self.way = Way::default();
        self.disk.clear();
        self.shown = QueueCounts::default();
        self.allowed = None;
        self.held = None;
        self.memo = None;
        self.goodput = Goodput::default();
    }

    /// Alters durable state: the only way. Returns the records touched.
    pub fn apply(&mut self, change: &JobChange) -> Result<Vec<Key>, Illegal> {
        let id = job::of(change);
        let old = self.jobs.get(&id);
        let row = match old {
            Some(row) if planted!(self, X06) && row.state.is_final() => job::revived(row, change)?,
            old => job::after(old, change)?,
        };
        let mut touched = alloc::vec![Key::Job(id)];
        if let JobChange::Queued(_) = change {
            self.numbered = self.numbered.max(id.0);
            if !planted!(self, X21) {
                touched.push(Key::Meta);
            }
        }
        self.put(row);
        Ok(touched)
    }

    fn put(&mut self, row: JobRow) {
        let id = row.id;
        if let Some(old) = self.jobs.get(&id) {
            self.parked -= usize::from(matches!(old.state, JobState::Parked { .. }));
        }
        self.claimed.remove(&id);
        match row.state {
            JobState::Pending { .. } => {
                if planted!(self, X06) {
                    self.over.retain(|over| *over != id);
                }
            }
            JobState::Claimed { .. } => {
                self.claimed.insert(id);
            }
            JobState::Parked { .. } => self.parked += 1,
            JobState::Completed { .. } | JobState::Failed { .. } => self.over.push(id),
        }
        self.jobs.insert(id, row);
    }

    /// Applies a change in life: it must be legal, because the caller looked.
    fn enact(&mut self, cx: &mut Cx<'_>, change: JobChange) {
        let id = job::of(&change);
        let touched = match self.apply(&change) {
            Ok(touched) => touched,
            Err(illegal) => panic!("I17: {} is not legal for job {id}: {}", illegal.change, illegal.state),
        };
        match self.jobs.get(&id).map(|row| &row.state) {
            Some(JobState::Pending { due, .. }) => {
                let most = if planted!(cx.knobs, X12) { Duration::MAX } else { limits::DELAY_MAX };
                self.waiting.put(id, cx.now.deadline(*due, most));
            }
            Some(
                JobState::Claimed { .. }
                | JobState::Parked { .. }
                | JobState::Completed { .. }
                | JobState::Failed { .. },
            )
            | None => self.waiting.take(id),
        }
        cx.record(Change::Job(change), touched);
    }

    /// Checks the invariants that concern jobs alone.
    pub fn check(&self) -> Result<(), Broken> {
        let broken = |invariant, saw| Err(Broken { invariant, saw });
        let mut episodes = BTreeSet::new();
        for (id, row) in &self.jobs {
            if row.id != *id || row.id.0 > self.numbered {
                return broken("I12", format!("job {id} lies under a number that was never given"));
            }
            if !row.state.is_final() && !episodes.insert(row.episode) {
                return broken("I13", format!("episode {} has two jobs at once", row.episode));
            }
            if row.spent > row.claims {
                return broken("I16", format!("job {id} spent {} of {} claims", row.spent, row.claims));
            }
            let waits = match &row.state {
                JobState::Pending { .. } => true,
                JobState::Claimed { fence, .. } => {
                    if fence.job != *id || fence.attempt != row.claims {
                        return broken("I13", format!("job {id} is claimed by {fence:?}, not its own"));
                    }
                    false
                }
                JobState::Parked { .. } | JobState::Completed { .. } | JobState::Failed { .. } => false,
            };
            if self.awake && waits != self.waiting.due(*id).is_some() {
                return broken(
                    "I15",
                    format!("job {id} waits: {waits}, but its place in line says otherwise"),
                );
            }
        }
        if let Some(job) = self.waiting.jobs().find(|job| !self.jobs.contains_key(job)) {
            return broken("I15", format!("job {job} stands in line and is not there"));
        }
        Ok(())
    }

    /// How many jobs are where.
    #[must_use]
    pub fn counts(&self, now: Now) -> QueueCounts {
        let (due, later) = self.waiting.split(now.mono);
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        QueueCounts {
            due: count(due),
            waiting: count(later),
            uploading: count(self.claimed.len()),
            parked: count(self.parked),
        }
    }

    /// Failures of the way in a row.
    #[must_use]
    pub fn streak(&self) -> u32 {
        self.way.streak()
    }

    /// Bytes per second that the store acknowledged in the last minute.
    #[must_use]
    pub fn goodput(&self, now: Mono) -> u64 {
        self.goodput.rate(now)
    }

    /// The fence a job holds, if it is claimed.
    #[must_use]
    pub fn fence(&self, job: JobId) -> Option<Fence> {
        match self.jobs.get(&job)?.state {
            JobState::Claimed { fence, .. } => Some(fence),
            JobState::Pending { .. }
            | JobState::Parked { .. }
            | JobState::Completed { .. }
            | JobState::Failed { .. } => None,
        }
    }

    /// Takes up what the rows leave open: a claim of an earlier boot goes on at no cost.
    pub fn on_boot(&mut self, cx: &mut Cx<'_>) {
        self.awake = true;
        let at = cx.now.wall;
        let here = cx.knobs.destination;
        let jobs: Vec<JobId> = self.jobs.keys().copied().collect();
        if planted!(cx.knobs, B26) {
            for row in self.jobs.values_mut() {
                row.spent = 0;
            }
        }
        for id in jobs {
            let Some(row) = self.jobs.get(&id) else { continue };
            let spent = row.spent;
            match row.state.clone() {
                JobState::Claimed { .. } | JobState::Pending { .. } if !here => {
                    self.park(cx, id, ParkWhy::NoDestination, spent, None);
                }
                JobState::Claimed { .. } if planted!(cx.knobs, B10) => {}
                JobState::Claimed { fence, .. } => {
                    let boot = cx.boot();
                    if fence.boot < boot {
                        self.enact(cx, JobChange::Reclaimed { fence: Fence { boot, ..fence }, at });
                    }
                    let fence = Fence { boot, ..fence };
                    self.tell_claimed(cx, fence);
                }
                JobState::Pending { due, .. } => {
                    let most = if planted!(cx.knobs, H21) { limits::DELAY_MAX } else { granted(row) };
                    self.waiting.put(id, cx.now.deadline(due, most));
                }
                JobState::Parked { why: ParkWhy::NoDestination | ParkWhy::Fault(_), .. } if here => {
                    self.back(cx, id, Cause::Returned);
                }
                JobState::Parked { .. } | JobState::Completed { .. } | JobState::Failed { .. } => {}
            }
        }
        self.take_back(cx);
        self.settle(cx);
    }

    /// Jobs that wait for an operator by the word of a policy which rules failed attempts no more: whoever rules them now
    /// never said so.
    fn take_back(&mut self, cx: &mut Cx<'_>) {
        if self.parked == 0 || cx.stopping || !cx.knobs.destination {
            return;
        }
        let left = |row: &&JobRow| {
            matches!(row.state, JobState::Parked { why: ParkWhy::Policy, .. })
                && row.ruled_by.is_none_or(|set| !cx.active.retry_sets.contains(&set))
        };
        let jobs: Vec<JobId> = self.jobs.values().filter(left).map(|row| row.id).collect();
        for job in jobs {
            self.back(cx, job, Cause::Policy);
        }
    }

    /// An episode is to be carried to the cloud: a new job.
    pub fn on_episode_wanted(&mut self, cx: &mut Cx<'_>, wanted: Wanted) {
        let Wanted { episode, device, source, key, approved_at, reply } = wanted;
        if let Some(to) = reply
            && planted!(cx.knobs, X05)
            && self.way.streak() > 0
        {
            return cx.reply(to, Ok(Response::SyncAccepted { episode }));
        }
        let id = JobId(self.counter());
        let at = cx.now.wall;
        let state = if cx.knobs.destination {
            JobState::Pending { due: at, cause: Cause::Queued }
        } else {
            JobState::Parked { why: ParkWhy::NoDestination, since: at }
        };
        let row = JobRow {
            id,
            episode,
            device,
            state,
            claims: 0,
            spent: 0,
            source,
            key,
            queued_at: at,
            approved_at,
            last_fault: None,
            last_ended_at: None,
            ruled_by: None,
            bytes_sent: 0,
            first_claimed_at: None,
            note: None,
            memo: None,
            retry_delay_ms: None,
        };
        self.enact(cx, JobChange::Queued(Box::new(row)));
        cx.tell(Fact::JobQueued { job: id, episode });
        if let Some(to) = reply {
            cx.reply(to, Ok(Response::SyncAccepted { episode }));
        }
        self.settle(cx);
    }

    /// Somebody wants a job to go on now.
    pub fn on_job_wanted(&mut self, cx: &mut Cx<'_>, job: JobId, episode: EpisodeId, reply: RequestId) {
        let accepted = Ok(Response::SyncAccepted { episode });
        let Some(row) = self.jobs.get(&job) else {
            return cx.reply(reply, Err(Refusal::Internal("the job of a queued episode is not in memory")));
        };
        let answer = match &row.state {
            JobState::Claimed { .. }
                if planted!(cx.knobs, B09) && !cx.stopping && self.way.blocked(cx.now.mono).is_none() =>
            {
                self.back(cx, job, Cause::Asked);
                accepted
            }
            JobState::Claimed { .. } => Err(Refusal::SyncActive(episode)),
            JobState::Pending { .. } if self.is_due(job, cx.now.mono) => Err(Refusal::SyncActive(episode)),
            JobState::Parked { why: ParkWhy::NoDestination, .. } if !cx.knobs.destination => accepted,
            JobState::Pending { .. } | JobState::Parked { .. } => {
                self.back(cx, job, Cause::Asked);
                accepted
            }
            JobState::Completed { .. } => Err(Refusal::AlreadySynced(episode)),
            JobState::Failed { .. } => Err(Refusal::Internal("the job of a queued episode is over")),
        };
        cx.reply(reply, answer);
        self.settle(cx);
    }

    /// The store acknowledged bytes: the way works.
    pub fn on_part_acknowledged(&mut self, cx: &mut Cx<'_>, fence: Fence, bytes: u64) {
        if self.fence(fence.job) != Some(fence) {
            return;
        }
        self.enact(cx, JobChange::Sent { job: fence.job, bytes });
        self.goodput.add(cx.now.mono, bytes);
        self.disk.remove(&fence.job);
        if self.way_works(cx) {
            self.settle(cx);
        }
    }

    /// An attempt ended. The end of any claim but the one held changes nothing.
    pub fn on_upload_ended(&mut self, cx: &mut Cx<'_>, fence: Fence, end: &UploadEnd) {
        let job = fence.job;
        if self.fence(job) != Some(fence) {
            return;
        }
        let Some(row) = self.jobs.get(&job) else { return };
        let spent = row.spent;
        match end {
            UploadEnd::Done { etag: _ } => {
                let (episode, key) = (row.episode, row.key.clone());
                self.enact(cx, JobChange::Completed { fence, at: cx.now.wall });
                cx.tell(Fact::JobEnded { job, episode, end: JobEnd::Completed { key } });
                self.way_works(cx);
            }
            UploadEnd::Failed(fault) => match fault.budget() {
                Budget::Connectivity => self.on_way_fault(cx, job, fault),
                Budget::Operator if planted!(cx.knobs, B19) && *fault == Fault::Auth => {
                    self.give_up(cx, job, FinalWhy::GivenUp(fault.clone()), spent, None);
                }
                Budget::Operator => {
                    let why = ParkWhy::Fault(fault.clone());
                    self.park(cx, job, why, spent, Some(fault.clone()));
                }
                Budget::Data => self.on_data_fault(cx, job, fault),
                Budget::Disk => self.on_disk_fault(cx, job, fault),
            },
            UploadEnd::Foreign => self.give_up(cx, job, FinalWhy::Foreign, spent + 1, None),
            // One reading may be wrong, and a device may send the recording again: not final at once.
            UploadEnd::SourceLost(fault) if planted!(cx.knobs, H05) => {
                self.give_up(cx, job, FinalWhy::SourceLost(fault.clone()), spent + 1, None);
            }
            UploadEnd::SourceLost(fault) => self.on_data_fault(cx, job, fault),
            // A panic of ours is no fault of the data: nothing is spent.
            UploadEnd::Quarantined(reason) => {
                self.park(cx, job, ParkWhy::Quarantined(reason.clone()), spent, None);
            }
        }
        self.settle(cx);
    }

    /// The store lost an upload, and it was begun again: said aloud, because its progress drops.
    pub fn on_upload_restarted(&mut self, cx: &mut Cx<'_>, fence: Fence) {
        if self.fence(fence.job) == Some(fence) {
            let note = String::from("begun again: what was sent before is lost or damaged in the store");
            self.enact(cx, JobChange::Noted { job: fence.job, note });
        }
    }

    /// The store does not list multipart uploads, and one of this job may have been left behind: said aloud.
    pub fn on_upload_blind(&mut self, cx: &mut Cx<'_>, fence: Fence) {
        if self.fence(fence.job) == Some(fence) {
            let note = String::from(
                "an unfinished upload of an earlier try may be left in the store, which refuses to list them",
            );
            self.enact(cx, JobChange::Noted { job: fence.job, note });
        }
    }

    /// A job may be due, or the way may be tried again.
    pub fn on_due(&mut self, cx: &mut Cx<'_>) {
        self.settle(cx);
    }

    /// What policies judge by is another, or they are others: ask them anew.
    pub fn on_turned(&mut self, cx: &mut Cx<'_>) {
        self.allowed = None;
        self.take_back(cx);
        self.settle(cx);
    }

    fn is_due(&self, job: JobId, now: Mono) -> bool {
        self.waiting.due(job).is_some_and(|due| due <= now)
    }

    /// The way failed: the job goes back without having spent anything.
    fn on_way_fault(&mut self, cx: &mut Cx<'_>, job: JobId, fault: &Fault) {
        let Some(spent) = self.jobs.get(&job).map(|row| row.spent) else { return };
        let now = cx.now;
        let wait = self.way.on_fault(now, fault, cx.chance());
        cx.publish(self.way.notice(now));
        let (due, at) = (now.wall.after(wait), now.wall);
        let cause = Cause::Destination(fault.clone());
        self.enact(cx, JobChange::Returned { job, due, cause, spent, at, ruled_by: None, memo: None });
    }

    /// The site's own disk failed: the job goes back without having spent anything. Alone: what else lies on the disk may
    /// be readable.
    fn on_disk_fault(&mut self, cx: &mut Cx<'_>, job: JobId, fault: &Fault) {
        let Some(spent) = self.jobs.get(&job).map(|row| row.spent) else { return };
        let streak = self.disk.entry(job).or_default();
        *streak = streak.saturating_add(1);
        let wait = way::delay(*streak, cx.chance());
        let (due, at) = (cx.now.wall.after(wait), cx.now.wall);
        let cause = Cause::Disk(fault.clone());
        self.enact(cx, JobChange::Returned { job, due, cause, spent, at, ruled_by: None, memo: None });
    }

    /// The data failed: the job pays, and a policy says what next.
    fn on_data_fault(&mut self, cx: &mut Cx<'_>, job: JobId, fault: &Fault) {
        let Some(row) = self.jobs.get(&job) else { return };
        let spent = row.spent + 1;
        let name = cx.active.name(Slot::Retry);
        let noted = row.memo.clone();
        let elapsed = row.first_claimed_at.unwrap_or(cx.now.wall).until(cx.now.wall);
        let (class, subject, code) = retry::shown(fault);
        let query = RetryQuery {
            job: job.0,
            spent,
            class,
            subject,
            code,
            elapsed_ms: u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
            last_delay_ms: row.retry_delay_ms.unwrap_or(0),
            size: row.source.len,
            sent: row.bytes_sent,
            link: cx.situation.link,
            metered: cx.situation.metered,
            memo: Memo::told(row.memo.as_ref(), name),
            seed: cx.chance().next_u64(),
        };
        let unclamped = planted!(cx.knobs, X12);
        let mut note = 0;
        let clamp = |v: RetryVerdict| {
            note = v.memo;
            if unclamped { retry::obey(v, spent) } else { retry::clamp(v, spent) }
        };
        let (course, by) = cx.rule(Question::Retry(query.clone()), |p| p.retry(&query), clamp);
        let memo = match by {
            Author::Set(_) => Memo::of(name, note),
            // Whoever stood in noted nothing: what the policy noted before is still its own.
            Author::Builtin { .. } => noted,
        };
        let ruled_by = Some(by.set()).filter(|_| !planted!(cx.knobs, X20));
        match course {
            Course::After(delay) => {
                let (due, at) = (cx.now.wall.after(delay), cx.now.wall);
                let cause = Cause::Retry(fault.clone());
                self.enact(cx, JobChange::Returned { job, due, cause, spent, at, ruled_by, memo });
            }
            Course::Park => {
                let (why, at, fault) = (ParkWhy::Policy, cx.now.wall, Some(fault.clone()));
                self.enact(cx, JobChange::Parked { job, why, spent, at, fault, ruled_by, memo });
            }
            Course::GiveUp(GiveUp::Exhausted) if planted!(cx.knobs, X06) => {
                let at = cx.now.wall;
                let why = FinalWhy::Exhausted(fault.clone());
                self.enact(cx, JobChange::Failed { job, why, spent, at, ruled_by });
                let (due, cause) = (at.after(limits::WAY_DELAY_MAX), Cause::Retry(fault.clone()));
                self.enact(cx, JobChange::Returned { job, due, cause, spent, at, ruled_by, memo });
            }
            Course::GiveUp(why) => {
                self.give_up(cx, job, retry::final_why(why, fault.clone()), spent, ruled_by);
            }
        }
    }

    fn give_up(
        &mut self,
        cx: &mut Cx<'_>,
        job: JobId,
        why: FinalWhy,
        spent: u32,
        ruled_by: Option<PolicySetId>,
    ) {
        let Some(episode) = self.jobs.get(&job).map(|row| row.episode) else { return };
        self.enact(cx, JobChange::Failed { job, why: why.clone(), spent, at: cx.now.wall, ruled_by });
        cx.tell(Fact::JobAbandoned { job });
        cx.tell(Fact::JobEnded { job, episode, end: JobEnd::Failed(why) });
    }

    fn park(&mut self, cx: &mut Cx<'_>, job: JobId, why: ParkWhy, spent: u32, fault: Option<Fault>) {
        self.enact(
            cx,
            JobChange::Parked { job, why, spent, at: cx.now.wall, fault, ruled_by: None, memo: None },
        );
    }

    /// A job that waits or is parked may go now.
    fn back(&mut self, cx: &mut Cx<'_>, job: JobId, cause: Cause) {
        let Some(spent) = self.jobs.get(&job).map(|row| row.spent) else { return };
        let at = cx.now.wall;
        self.enact(cx, JobChange::Returned { job, due: at, cause, spent, at, ruled_by: None, memo: None });
    }

    /// Returns whether that is news.
    fn way_works(&mut self, cx: &mut Cx<'_>) -> bool {
        let news = self.way.on_acknowledged();
        if news {
            cx.publish(self.way.notice(cx.now));
        }
        news
    }

    fn tell_claimed(&mut self, cx: &mut Cx<'_>, fence: Fence) {
        if let Some(row) = self.jobs.get(&fence.job) {
            cx.tell(Fact::JobClaimed { fence, row: Box::new(row.clone()) });
        }
    }
}

/// The delay that a waiting job was once given: its wait after a restart is at most that, because the wall clock by which
/// it was stored may have been set back meanwhile.
fn granted(row: &JobRow) -> Duration {
    match &row.state {
        JobState::Pending { due, cause: Cause::Retry(_) | Cause::Destination(_) | Cause::Disk(_) } => {
            row.last_ended_at.map_or(limits::DELAY_MAX, |ended| ended.until(*due)).min(limits::DELAY_MAX)
        }
        JobState::Pending {
            cause: Cause::Queued | Cause::Asked | Cause::Returned | Cause::Policy, ..
        }
        | JobState::Claimed { .. }
        | JobState::Parked { .. }
        | JobState::Completed { .. }
        | JobState::Failed { .. } => Duration::ZERO,
    }
}
