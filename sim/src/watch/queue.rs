//! Invariants of sync jobs: claims (I13), outcomes that come too late (I14), no work lost (I15), what attempts cost
//! (I16) and who ruled them (I25), the graph (I17), waits that no wall clock moves (I29), how many run at once (I27).
//!
//! The tables are this file's own, written from the decisions and not from the queue.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tidegate_core::change::{Change, JobChange};
use tidegate_core::effect::Effect;
use tidegate_core::id::{EpisodeId, Fence, JobId, ObjectKey, Ticket};
use tidegate_core::input::{Input, Request};
use tidegate_core::limits;
use tidegate_core::object::{Store, Verb};
use tidegate_core::outcome::{Budget, Fault};
use tidegate_core::policy::{Author, PolicyFault, Seat, Slot};
use tidegate_core::row::{Cause, FinalWhy, JobState, Key, ParkWhy, Row, SyncMark};
use tidegate_core::time::{Mono, Now, Wall};

use super::rows::{self, Image, Sites};
use super::rulings::{self, of_store, ruled, timely};
use super::{Broken, Happened, Premises, Seen, Truth, Watch, demand, seats};

/// Where a job stands, as this watch knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Pending { due: Wall },
    Claimed(Fence),
    Parked { homeless: bool },
    Completed,
    Failed,
}

impl Place {
    fn of(state: &JobState) -> Place {
        match state {
            JobState::Pending { due, .. } => Place::Pending { due: *due },
            JobState::Claimed { fence, .. } => Place::Claimed(*fence),
            JobState::Parked { why, .. } => Place::Parked { homeless: *why == ParkWhy::NoDestination },
            JobState::Completed { .. } => Place::Completed,
            JobState::Failed { .. } => Place::Failed,
        }
    }

    fn is_final(self) -> bool {
        matches!(self, Place::Completed | Place::Failed)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Model {
    episode: EpisodeId,
    key: ObjectKey,
    place: Place,
    claims: u32,
    spent: u32,
    /// Not claimed before this moment of the boot.
    ready: Mono,
    /// How long it was told to wait, the last time it was: no restart may make it wait longer.
    granted: Duration,
    /// By whose word it is parked, if a policy said so.
    parked_by: Option<Seat>,
}

/// The way to the cloud, as decision 8 has it.
#[derive(Clone, Copy, Debug, Default)]
struct Way {
    streak: u32,
    until: Option<Mono>,
    /// A failure fell so close to the end of a block that both readings are right.
    unsure: bool,
}

#[derive(Debug, Default)]
struct Jobs {
    jobs: BTreeMap<JobId, Model>,
    of_episode: BTreeMap<EpisodeId, Vec<JobId>>,
    claimed: BTreeSet<JobId>,
    /// Operations of this boot that were not answered, and the claim they write for.
    tickets: BTreeMap<Ticket, Option<Fence>>,
    way: Way,
    /// Since when there is room and a job that may begin, and whether that was seen to last too long.
    idle: Option<(Mono, Option<Mono>)>,
    stopping: bool,
    /// The generation of the policies in the last step.
    turned: Option<u64>,
    /// How many uploads the policies allowed last, in this boot; before they are asked something must begin.
    limit: u32,
    /// Since when a policy lets nothing begin though a job could, and which one that is.
    held: Option<(Mono, Seat)>,
    /// Since when that lasts too long.
    overdue: Option<Mono>,
}

/// Watches the queue.
#[derive(Debug, Default)]
pub struct QueueWatch {
    premises: Premises,
    sites: Sites<Jobs>,
}

/// How long a job that may begin may wait where there is room: until the policies are asked once more.
const IDLE_MAX: Duration = limits::LIMITS_AGAIN.saturating_add(Duration::from_secs(2));
/// Milliseconds may be cut off where a wait becomes a time on the wall.
const SLACK: Duration = Duration::from_millis(2);

impl Jobs {
    fn load(image: &Image) -> Jobs {
        let mut all = Jobs::default();
        for row in rows::jobs(image) {
            let model = Model {
                episode: row.episode,
                key: row.key.clone(),
                place: Place::of(&row.state),
                claims: row.claims,
                spent: row.spent,
                ready: Mono(0),
                granted: match &row.state {
                    JobState::Pending {
                        due,
                        cause: Cause::Retry(_) | Cause::Destination(_) | Cause::Disk(_),
                    } => row.last_ended_at.map_or(limits::DELAY_MAX, |ended| ended.until(*due)),
                    _ => Duration::ZERO,
                }
                .min(limits::DELAY_MAX),
                parked_by: None,
            };
            all.put(row.id, model);
        }
        all
    }

    fn put(&mut self, id: JobId, model: Model) {
        match model.place {
            Place::Claimed(_) => self.claimed.insert(id),
            _ => self.claimed.remove(&id),
        };
        if !self.jobs.contains_key(&id) {
            self.of_episode.entry(model.episode).or_default().push(id);
        }
        self.jobs.insert(id, model);
    }

    /// The process begins: what it does not keep is gone, and waits are those of the records, clamped.
    fn boot(&mut self, now: Now) {
        self.tickets.clear();
        self.way = Way::default();
        self.idle = None;
        self.stopping = false;
        (self.limit, self.held, self.overdue) = (1, None, None);
        for model in self.jobs.values_mut() {
            if let Place::Pending { due } = model.place {
                model.ready = now.mono.after(now.wall.until(due).min(model.granted));
            }
        }
    }

    /// I14: an answer of an earlier boot, a second answer, or one to a claim that is over does nothing.
    fn late(&mut self, seen: &Seen<'_>, premises: &mut Premises) -> Result<(), Broken> {
        let turns = self.turned.replace(seats::generation(seen)) != Some(seats::generation(seen));
        let Input::Object { ticket, .. } = seen.input else { return Ok(()) };
        let late = if ticket.boot == seen.boot {
            match self.tickets.remove(ticket) {
                None => true,
                Some(None) => false,
                Some(Some(fence)) => {
                    self.jobs.get(&fence.job).is_none_or(|model| model.place != Place::Claimed(fence))
                }
            }
        } else {
            true
        };
        if !late {
            return Ok(());
        }
        premises.met("I14.late");
        let nothing = seen.out.changes.is_empty() && seen.out.rows.is_empty() && seen.out.effects.is_empty();
        demand("I14", nothing || (turns && !rulings::obeyed(seen)), || {
            format!("{ticket:?} came too late and did {:?} {:?}", seen.out.changes, seen.out.effects)
        })
    }

    /// I17, I13, I14, I16: what a change makes of a job.
    fn change(&mut self, seen: &Seen<'_>, change: &JobChange, premises: &mut Premises) -> Result<(), Broken> {
        premises.met("I17");
        let id = job_of(change);
        if let JobChange::Queued(row) = change {
            return self.queued(seen, row);
        }
        let Some(mut model) = self.jobs.get(&id).cloned() else {
            return Err(Broken { invariant: "I17", saw: format!("{change:?} of no job") });
        };
        let was = model.clone();
        let illegal = || Broken { invariant: "I17", saw: format!("{change:?} in {was:?}") };
        match change {
            JobChange::Queued(_) => {}
            JobChange::Claimed { fence, at, ruled_by } => {
                premises.met("I13");
                let held = matches!(was.place, Place::Claimed(_));
                demand("I13", !held, || format!("{fence:?} claims what is claimed: {was:?}"))?;
                if !matches!(was.place, Place::Pending { .. }) {
                    return Err(illegal());
                }
                let fresh = fence.attempt == was.claims + 1 && fence.boot == seen.boot;
                demand("I14", fresh, || format!("{fence:?} after {} claims", was.claims))?;
                timely(*at, seen)?;
                premises.met("I29");
                demand("I29", was.ready <= seen.now.mono, || {
                    format!("job {id} is claimed {:?} early", seen.now.mono.until(was.ready))
                })?;
                ruled(seen, change, Slot::Concurrency, Some(*ruled_by), premises)?;
                (model.place, model.claims) = (Place::Claimed(*fence), fence.attempt);
                self.put(id, model);
                return self.room(seen, id);
            }
            JobChange::Reclaimed { fence, at } => {
                let Place::Claimed(old) = was.place else { return Err(illegal()) };
                let newer = fence.boot == seen.boot && old.boot < fence.boot && fence.attempt == old.attempt;
                let booting = matches!(seen.input, Input::Boot { .. });
                demand("I14", newer && booting, || format!("{fence:?} reclaims {old:?}"))?;
                timely(*at, seen)?;
                premises.met("I13.reclaimed");
                model.place = Place::Claimed(*fence);
            }
            JobChange::Returned { due, cause, spent, at, ruled_by, .. } => {
                if was.place.is_final() {
                    return Err(illegal());
                }
                timely(*at, seen)?;
                if let Cause::Retry(_) = cause {
                    ruled(seen, change, Slot::Retry, *ruled_by, premises)?;
                }
                self.returned(seen, &was, (*due, *at), cause, *spent, premises)?;
                (model.spent, model.parked_by) = (*spent, None);
                model.place = Place::Pending { due: *due };
                model.ready = seen.now.mono.after(at.until(*due));
                model.granted = match cause {
                    Cause::Retry(_) | Cause::Destination(_) | Cause::Disk(_) => {
                        at.until(*due).min(limits::DELAY_MAX)
                    }
                    _ => Duration::ZERO,
                };
            }
            JobChange::Parked { why, spent, at, .. } => {
                if !matches!(was.place, Place::Claimed(_) | Place::Pending { .. }) {
                    return Err(illegal());
                }
                timely(*at, seen)?;
                let paid = was.spent + u32::from(*why == ParkWhy::Policy);
                let fits = *spent == paid
                    && match why {
                        ParkWhy::NoDestination => !seen.knobs.destination,
                        ParkWhy::Fault(fault) => fault.budget() == Budget::Operator && of_store(seen),
                        ParkWhy::Policy => rulings::parks(seen) && of_store(seen),
                        // A run in which the core panics ends there.
                        ParkWhy::Quarantined(_) => false,
                    };
                demand("I16", fits, || format!("{change:?} after {} attempts", was.spent))?;
                model.place = Place::Parked { homeless: *why == ParkWhy::NoDestination };
                model.spent = *spent;
                model.parked_by = (*why == ParkWhy::Policy).then(|| rulings::retrier(seen));
            }
            JobChange::Completed { fence, at } => {
                let Place::Claimed(held) = was.place else { return Err(illegal()) };
                demand("I14", *fence == held, || format!("{fence:?} completes what {held:?} holds"))?;
                timely(*at, seen)?;
                model.place = Place::Completed;
                self.way.streak = 0;
            }
            JobChange::Failed { why, spent, at, ruled_by, .. } => {
                let legal = match was.place {
                    Place::Claimed(_) => true,
                    Place::Pending { .. } | Place::Parked { .. } => *why == FinalWhy::Cancelled,
                    Place::Completed | Place::Failed => false,
                };
                if !legal {
                    return Err(illegal());
                }
                timely(*at, seen)?;
                premises.met("I16.failed");
                let paid = *spent == was.spent + 1;
                let fits = match why {
                    FinalWhy::Exhausted(fault) | FinalWhy::SourceLost(fault) => {
                        paid && rulings::exhausted(seen, *spent) && fault.budget() == Budget::Data
                    }
                    FinalWhy::Foreign => paid,
                    FinalWhy::GivenUp(fault) => paid && rulings::hopeless(seen, fault),
                    FinalWhy::Cancelled => matches!(seen.input, Input::Request { .. }),
                };
                demand("I16", fits, || format!("{change:?} after {} attempts", was.spent))?;
                if let FinalWhy::Exhausted(_) | FinalWhy::SourceLost(_) | FinalWhy::GivenUp(_) = why {
                    ruled(seen, change, Slot::Retry, *ruled_by, premises)?;
                }
                (model.place, model.spent) = (Place::Failed, *spent);
            }
            JobChange::Sent { .. } => {
                let claimed = matches!(was.place, Place::Claimed(_));
                demand("I14", claimed, || format!("bytes count for {was:?}"))?;
                self.way = Way { streak: 0, until: self.way.until, unsure: false };
            }
            JobChange::Noted { .. } => {
                if was.place.is_final() {
                    return Err(illegal());
                }
            }
        }
        self.put(id, model);
        Ok(())
    }

    fn queued(&mut self, seen: &Seen<'_>, row: &tidegate_core::row::JobRow) -> Result<(), Broken> {
        let fresh = (row.claims, row.spent) == (0, 0) && !self.jobs.contains_key(&row.id);
        demand("I16", fresh, || format!("a new job has a past: {row:?}"))?;
        let others = self.of_episode.get(&row.episode).into_iter().flatten();
        let open = others.filter_map(|id| self.jobs.get(id)).any(|other| other.place != Place::Failed);
        demand("I13", !open, || format!("episode {} has a job, and gets job {}", row.episode, row.id))?;
        let asked =
            matches!(seen.input, Input::Request { request: Request::Sync { .. } | Request::SyncBatch, .. });
        // Nobody asked: only auto-scan may, and it never takes up again what failed.
        let scanned = *seen.input == Input::Wake
            && seats::scanned(seen.out) > 0
            && !self.of_episode.contains_key(&row.episode);
        demand("I17", asked || scanned, || format!("job {} was queued by {:?}", row.id, seen.input.name()))?;
        let place = match &row.state {
            JobState::Pending { due, cause: Cause::Queued } if seen.knobs.destination => {
                Place::Pending { due: *due }
            }
            JobState::Parked { why: ParkWhy::NoDestination, .. } if !seen.knobs.destination => {
                Place::Parked { homeless: true }
            }
            _ => return Err(Broken { invariant: "I17", saw: format!("begins as {row:?}") }),
        };
        let model = Model {
            episode: row.episode,
            key: row.key.clone(),
            place,
            claims: 0,
            spent: 0,
            ready: seen.now.mono,
            granted: Duration::ZERO,
            parked_by: None,
        };
        self.put(row.id, model);
        Ok(())
    }

    /// I16: who pays, and how long it waits.
    fn returned(
        &mut self,
        seen: &Seen<'_>,
        was: &Model,
        (due, at): (Wall, Wall),
        cause: &Cause,
        spent: u32,
        premises: &mut Premises,
    ) -> Result<(), Broken> {
        let wait = at.until(due);
        let before = was.spent;
        // Only where a policy asked for as much or more is there anything to bound.
        if matches!(cause, Cause::Retry(_)) && (wait == limits::DELAY_MAX || wait == limits::DELAY_MIN) {
            premises.met("I26");
        }
        let least = if let Cause::Retry(_) = cause { limits::DELAY_MIN } else { Duration::ZERO };
        demand("I26", (least..=limits::DELAY_MAX).contains(&wait), || {
            format!("{cause:?} waits {wait:?}, whatever a policy says")
        })?;
        let fits = match cause {
            Cause::Retry(fault) => {
                premises.met("I16");
                let paid = spent == before + 1 && fault.budget() == Budget::Data;
                paid && of_store(seen) && matches!(was.place, Place::Claimed(_))
            }
            Cause::Destination(fault) => {
                premises.met("I16.way");
                let free = spent == before && fault.budget() == Budget::Connectivity;
                demand("I16", free && of_store(seen), || {
                    format!("{fault:?} spends from {before} to {spent}")
                })?;
                return self.way_failed(seen, fault, wait);
            }
            Cause::Disk(fault) => {
                premises.met("I16.disk");
                let free = spent == before && fault.budget() == Budget::Disk;
                let longest = limits::WAY_DELAY_MAX + limits::WAY_DELAY_MAX / 4;
                let bounded = (limits::WAY_DELAY_MIN..=longest).contains(&wait);
                free && bounded && of_store(seen) && matches!(was.place, Place::Claimed(_))
            }
            Cause::Asked => {
                let held = matches!(was.place, Place::Claimed(_));
                demand("I13", !held, || format!("what is claimed is given out once more: {was:?}"))?;
                let asked = matches!(seen.input, Input::Request { request: Request::Sync { .. }, .. });
                spent == before && asked && due == at
            }
            Cause::Returned => spent == before && matches!(seen.input, Input::Boot { .. }) && due == at,
            Cause::Policy => spent == before && due == at && rulings::another(seen, was.parked_by.as_ref()),
            // Only new jobs are new.
            Cause::Queued => false,
        };
        demand("I16", fits, || {
            format!("{cause:?} spends from {before} to {spent} at {:?}", seen.input.name())
        })?;
        if let Cause::Retry(_) = cause { rulings::again(seen, spent, wait, premises) } else { Ok(()) }
    }

    /// Decision 8: a streak per destination, its delay grows to a cap.
    fn way_failed(&mut self, seen: &Seen<'_>, fault: &Fault, wait: Duration) -> Result<(), Broken> {
        let asked = match fault {
            Fault::Throttled { retry_after_ms } => Duration::from_millis(retry_after_ms.unwrap_or(0)),
            _ => Duration::ZERO,
        };
        let now = seen.now.mono;
        let left = self.way.until.map_or(Duration::ZERO, |until| now.until(until));
        let near = self.way.until.is_some_and(|until| until.until(now).max(now.until(until)) <= SLACK);
        let (low, high) = if left > SLACK {
            (left.saturating_sub(SLACK), left + SLACK)
        } else {
            self.way.streak = self.way.streak.saturating_add(1);
            self.way.unsure |= near;
            let doublings = self.way.streak.saturating_sub(1).min(16);
            let base = (limits::WAY_DELAY_MIN * (1 << doublings)).min(limits::WAY_DELAY_MAX);
            (base, base + base / 4)
        };
        let clamp = |d: Duration| d.max(asked).min(limits::DELAY_MAX);
        let within = (clamp(low)..=clamp(high)).contains(&wait);
        demand("I16", within || self.way.unsure, || {
            format!("{fault:?} for the {}. time waits {wait:?}, not {low:?} to {high:?}", self.way.streak)
        })?;
        self.way.until = Some(now.after(wait));
        Ok(())
    }

    /// I27: no more uploads than allowed begin, one while the way is in doubt, none while it is blocked.
    fn room(&self, seen: &Seen<'_>, id: JobId) -> Result<(), Broken> {
        let allowed = rulings::uploads(seen);
        let most = if self.way.streak > 0 { allowed.min(1) } else { allowed };
        let count = u32::try_from(self.claimed.len()).unwrap_or(u32::MAX);
        demand("I27", count <= most || self.way.unsure, || format!("job {id} is upload {count} of {most}"))?;
        demand("I13", seen.knobs.destination, || format!("job {id} is claimed, and there is no cloud"))?;
        let left = self.way.until.map_or(Duration::ZERO, |until| seen.now.mono.until(until));
        demand("I16", left <= SLACK, || format!("job {id} is claimed {left:?} before the way is tried again"))
    }

    /// I13 and I15: an episode and its jobs agree.
    fn agree(&self, image: &Image, id: EpisodeId, premises: &mut Premises) -> Result<(), Broken> {
        let Some(row) = rows::episode(image, id) else {
            return Err(Broken { invariant: "I15", saw: format!("episode {id} is gone") });
        };
        premises.met("I15");
        let own = self.of_episode.get(&id).map_or(&[][..], Vec::as_slice);
        let place =
            |job: &JobId| own.contains(job).then(|| self.jobs.get(job).map(|model| model.place)).flatten();
        let last = own.last();
        let fits = match &row.sync {
            SyncMark::NotStarted => own.is_empty(),
            SyncMark::Queued(job) => {
                Some(job) == last && place(job).is_some_and(|place| !place.is_final()) && row.qa.is_approved()
            }
            SyncMark::Synced { job, key, .. } => {
                let there = self.jobs.get(job).is_some_and(|model| model.key == *key);
                Some(job) == last && place(job) == Some(Place::Completed) && there
            }
            SyncMark::Failed(job) => Some(job) == last && place(job) == Some(Place::Failed),
        };
        demand("I15", fits, || {
            let jobs: Vec<_> = own.iter().map(|job| (job, self.jobs.get(job))).collect();
            format!("episode {id} is {:?} and {:?}, its jobs are {jobs:?}", row.qa, row.sync)
        })
    }

    fn booted(&self, seen: &Seen<'_>) -> Result<(), Broken> {
        for id in &self.claimed {
            let model = &self.jobs[id];
            let taken = matches!(model.place, Place::Claimed(fence) if fence.boot == seen.boot);
            demand("I15", taken, || format!("job {id} is left with a claim of an earlier boot: {model:?}"))?;
        }
        if seen.knobs.destination {
            let homeless = |(_, model): &(&JobId, &Model)| model.place == Place::Parked { homeless: true };
            let left = self.jobs.iter().find(homeless);
            demand("I15", left.is_none(), || format!("there is a cloud, and {left:?} waits for one"))?;
        }
        Ok(())
    }

    /// I29: a job whose time has come on the clock that nobody sets waits for room, and for no other clock. L6: a policy
    /// that gives no room at all is replaced when its time is up.
    fn prompt(&mut self, seen: &Seen<'_>, premises: &mut Premises) -> Result<(), Broken> {
        let now = seen.now.mono;
        self.stopping |= matches!(seen.input, Input::Shutdown);
        rulings::native(seen)?;
        if let Some(said) = rulings::limit(seen) {
            self.limit = said.uploads.min(seen.knobs.uploads_max());
        }
        let stalled = |by: &Author| matches!(by, Author::Builtin { why: PolicyFault::Stalled, .. });
        if seen.out.decisions.iter().any(|decision| stalled(&decision.by)) {
            premises.met("L6.stalled");
        }
        let ripe = |model: &Model| matches!(model.place, Place::Pending { .. }) && model.ready <= now;
        let open = seen.knobs.destination
            && !self.stopping
            && self.way.until.is_none_or(|until| until <= now)
            && self.jobs.values().any(ripe);
        let now_by = rulings::retrier(seen);
        let left = |model: &&Model| model.parked_by.as_ref().is_some_and(|by| *by != now_by);
        let left = self.jobs.values().find(left).filter(|_| seen.knobs.destination && !self.stopping);
        demand("L6", left.is_none(), || format!("{left:?} waits by the word of one who rules no more"))?;
        let by = seats::next(seen).seat(Slot::Concurrency).clone();
        let another = self.held.as_ref().is_some_and(|(_, held_by)| *held_by != by);
        if !open || self.limit > 0 || !self.claimed.is_empty() || another {
            self.held = None;
        }
        let most = if self.way.streak > 0 { self.limit.min(1) } else { self.limit };
        if !open || (self.claimed.len() >= most as usize && most > 0) {
            self.idle = None;
            return Ok(());
        }
        if most == 0 {
            self.idle = None;
            let since = self.held.get_or_insert((now, by)).0;
            let patience = rulings::patience(seen).max(Duration::from_secs(1)) + Duration::from_secs(2);
            return demand("L6", self.unsure(since.after(patience), seen), || {
                format!("nothing begins since {since:?}, and {patience:?} is all the time that a policy has")
            });
        }
        premises.met("I29.prompt");
        let (since, late) = self.idle.get_or_insert((now, None));
        if since.after(IDLE_MAX) > now {
            return Ok(());
        }
        // A site that stood still catches up first.
        let late = *late.get_or_insert(now);
        demand("I29", late.after(Duration::from_secs(1)) > now, || {
            format!("there is room since {since:?}, and a job that may begin does not")
        })
    }

    /// Whether a moment has not come; a site that stood still catches up first.
    fn unsure(&mut self, until: Mono, seen: &Seen<'_>) -> bool {
        let now = seen.now.mono;
        if until > now {
            self.overdue = None;
            return true;
        }
        self.overdue.get_or_insert(now).after(Duration::from_secs(1)) > now
    }

    fn asked(&mut self, effect: &Effect) {
        let Effect::Object { ticket, op } = effect else { return };
        let mut fence = None;
        // Only claims write parts and objects, and so only these are surely of a claim: the janitor lists and aborts too.
        let writes = matches!(
            op.verb,
            Verb::Create { .. } | Verb::PutPart { .. } | Verb::Complete { .. } | Verb::Put { .. }
        );
        if op.store == Store::Cloud && writes {
            let mut found = self.claimed.iter().filter_map(|id| {
                let model = &self.jobs[id];
                match model.place {
                    Place::Claimed(fence) if model.key == op.key => Some(fence),
                    _ => None,
                }
            });
            fence = found.next();
            if found.next().is_some() {
                fence = None;
            }
        }
        self.tickets.insert(*ticket, fence);
    }
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

impl Watch for QueueWatch {
    fn step(&mut self, seen: &Seen<'_>) -> Result<(), Broken> {
        let (site, premises) = (self.sites.at(seen.site), &mut self.premises);
        if let Input::Boot { .. } = seen.input {
            site.boot(seen.now);
        }
        site.late(seen, premises)?;
        for (key, old) in seen.before {
            if let (Key::Job(id), Some(Row::Job(old)), Some(new)) = (key, old, seen.rows.get(key)) {
                let Row::Job(new) = new else { continue };
                let counts = new.spent >= old.spent && new.claims >= old.claims;
                demand("I16", counts, || format!("job {id} counts down: {old:?} {new:?}"))?;
            }
        }
        for change in &seen.out.changes {
            if let Change::Job(change) = change {
                site.change(seen, change, premises)?;
            }
        }
        let mut concerned = BTreeSet::new();
        for (key, old) in seen.before {
            match key {
                Key::Job(id) => {
                    let Some(row) = rows::job(seen.rows, *id) else {
                        return Err(Broken { invariant: "I15", saw: format!("job {id} is gone") });
                    };
                    let model = site.jobs.get(id);
                    let same = model.is_some_and(|model| {
                        (model.place, model.claims, model.spent, model.episode)
                            == (Place::of(&row.state), row.claims, row.spent, row.episode)
                    });
                    demand("I17", same, || format!("job {id} is {row:?}, its changes say {model:?}"))?;
                    concerned.insert(row.episode);
                }
                Key::Episode(id) if old.as_ref() != seen.rows.get(key) => {
                    concerned.insert(*id);
                }
                _ => {}
            }
        }
        for id in concerned {
            site.agree(seen.rows, id, premises)?;
        }
        if let Input::Boot { .. } = seen.input {
            site.booted(seen)?;
        }
        for effect in &seen.out.effects {
            site.asked(effect);
        }
        site.prompt(seen, premises)
    }

    fn happened(&mut self, truth: &Truth<'_>, what: &Happened<'_>) -> Result<(), Broken> {
        let Happened::Up { site } = what else { return Ok(()) };
        let image = &truth.images[*site];
        let mut fresh = Jobs::load(image);
        let known = self.sites.at(*site);
        for (id, old) in &known.jobs {
            let Some(new) = fresh.jobs.get_mut(id) else {
                return Err(Broken { invariant: "I15", saw: format!("job {id} is lost: {old:?}") });
            };
            new.parked_by.clone_from(&old.parked_by);
            // What survived a crash without being flushed was shown before: a record is what was seen of it last.
            let same = (old.place, old.claims, old.spent) == (new.place, new.claims, new.spent);
            demand("I17", same, || format!("job {id} is another: {old:?} {new:?}"))?;
        }
        let unknown = fresh.jobs.keys().find(|id| !known.jobs.contains_key(*id));
        demand("I17", unknown.is_none(), || format!("job {unknown:?} was never queued"))?;
        *known = fresh;
        for row in rows::episodes(image) {
            known.agree(image, row.id, &mut self.premises)?;
        }
        Ok(())
    }

    fn end(&mut self, truth: &Truth<'_>) -> Result<(), Broken> {
        for (n, image) in truth.images.iter().enumerate() {
            let site = self.sites.at(n);
            for row in rows::episodes(image) {
                site.agree(image, row.id, &mut self.premises)?;
            }
        }
        Ok(())
    }

    fn premises(&self) -> &Premises {
        &self.premises
    }

    fn invariants(&self) -> &'static [&'static str] {
        &[
            "I13",
            "I13.reclaimed",
            "I14.late",
            "I15",
            "I16",
            "I16.failed",
            "I16.disk",
            "I16.way",
            "I17",
            "I25",
            "I26",
            "I26.delay",
            "I29",
            "I29.prompt",
            "L6.stalled",
        ]
    }
}
