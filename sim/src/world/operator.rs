//! People who carry one recording each from its task to the cloud. They look at what the site shows (its durable records),
//! do the next sensible thing, and come back later if it is refused.

use std::collections::BTreeSet;
use std::time::Duration;

use tidegate_core::id::{EpisodeId, TaskId};
use tidegate_core::input::{Action, Command, Request, Resolve};
use tidegate_core::row::{EpisodeRow, JobState, Key, Qa, Row, SyncMark, TaskState};

use super::site::{Caller, Letter};
use super::{Event, World};
use crate::scenario::{Recording, Scenario, Sync};
use crate::stream::Stream;
use crate::time::SimTime;
use crate::watch::Broken;

/// How long people wait for an answer.
const PATIENCE: Duration = Duration::from_secs(150);
/// How often a sync that failed is asked for again.
const AGAIN_MAX: u32 = 2;
/// First wait before they look again.
const LOOK_MIN: Duration = Duration::from_secs(2);
/// Longest wait before they look again, while things move.
const LOOK_MAX: Duration = Duration::from_secs(60);
/// Where nothing has moved for long, they wait this part of that time, but not longer than `LOOK_SELDOM`.
const LOOK_SHARE: u32 = 16;
/// So that they come back in the hours that a healed world has at least.
const LOOK_SELDOM: Duration = Duration::from_secs(20 * 60);
/// Without news for this long, nothing that they could do has any effect.
const RESIGNED: Duration = Duration::from_secs(15 * 60);

/// Somebody who carries a recording through.
#[derive(Debug)]
pub(super) struct Operator {
    recording: Recording,
    luck: Stream,
    stamp: u64,
    wait: Duration,
    /// Until when they wait for an answer.
    asked: Option<SimTime>,
    paused: bool,
    resumed: bool,
    began: Option<SimTime>,
    /// How often they asked for a sync that had failed.
    again: u32,
    /// Whether they wait once more before they ask for the same again.
    patient: bool,
    /// Everything they ever saw of it, and when they last saw something new.
    seen: BTreeSet<String>,
    since: SimTime,
    done: bool,
}

impl Operator {
    pub(super) fn new(scenario: &Scenario, recording: Recording) -> Operator {
        Operator {
            luck: Stream::new(scenario.seed, &format!("operator/{}", recording.task), 0),
            recording,
            stamp: 0,
            wait: LOOK_MIN,
            asked: None,
            paused: false,
            resumed: false,
            began: None,
            again: 0,
            patient: false,
            seen: BTreeSet::new(),
            since: SimTime::ZERO,
            done: false,
        }
    }

    /// An answer came; the stamp of the look that follows, and when that is: at once if it was done.
    pub(super) fn answered(&mut self, did: bool) -> (u64, Duration) {
        self.asked = None;
        self.stamp += 1;
        if did {
            return (self.stamp, Duration::from_millis(5));
        }
        (self.stamp, self.wait)
    }

    /// Whether there is nothing left to do for them, or nothing that they could do now.
    pub(super) fn is_done(&self, now: SimTime, calm_since: SimTime) -> bool {
        self.done || (self.asked.is_none() && now - self.since.max(calm_since) >= RESIGNED)
    }

    /// The longest wait now.
    fn longest(&self, now: SimTime) -> Duration {
        ((now - self.since) / LOOK_SHARE).clamp(LOOK_MAX, LOOK_SELDOM)
    }
}

/// What an operator does next.
enum Next {
    Ask(Box<Request>),
    Wait,
    Done,
}

fn ask(request: Request) -> Next {
    Next::Ask(Box::new(request))
}

impl World<'_> {
    /// An operator looks.
    pub(super) fn look(&mut self, n: usize, stamp: u64) -> Result<(), Broken> {
        if self.operators[n].stamp != stamp {
            return Ok(());
        }
        if self.operators[n].asked.is_some_and(|until| self.now < until) {
            return Ok(());
        }
        let device = self.operators[n].recording.device;
        let site = self.devices[device].spec.site;
        let sight = self.sight(n, site);
        // What comes and goes (a job that is parked again and again) is news once.
        if self.operators[n].seen.insert(sight) {
            let operator = &mut self.operators[n];
            (operator.wait, operator.patient, operator.since) = (LOOK_MIN, false, self.now);
        }
        let next =
            if self.nodes[site].up && !self.nodes[site].paused { self.next_of(n, site) } else { Next::Wait };
        let operator = &mut self.operators[n];
        operator.stamp += 1;
        operator.done = false;
        let stamp = operator.stamp;
        match next {
            Next::Done => {
                operator.done = true;
                // Others may still change what was settled: they look once more when things have calmed down.
                let calm = SimTime::ZERO + self.scenario.chaos;
                if self.now < calm {
                    let jitter = operator.luck.duration(LOOK_MIN, LOOK_MAX);
                    self.queue.plan(calm + jitter, Event::Look { operator: n, stamp });
                }
            }
            Next::Wait => {
                let jitter = operator.luck.duration(Duration::ZERO, operator.wait / 4);
                self.queue.plan(self.now + operator.wait + jitter, Event::Look { operator: n, stamp });
                operator.wait = (operator.wait * 2).min(operator.longest(self.now));
            }
            Next::Ask(_) if operator.patient => {
                // What they asked for was answered and changed nothing they can see: they give it time.
                operator.patient = false;
                let jitter = operator.luck.duration(Duration::ZERO, operator.wait / 4);
                self.queue.plan(self.now + operator.wait + jitter, Event::Look { operator: n, stamp });
                operator.wait = (operator.wait * 2).min(operator.longest(self.now));
            }
            Next::Ask(request) => {
                operator.patient = true;
                operator.asked = Some(self.now + PATIENCE);
                // Refused at once, they come back a little later each time.
                operator.wait = (operator.wait * 3 / 2).min(operator.longest(self.now) / 2);
                self.queue.plan(self.now + PATIENCE, Event::Look { operator: n, stamp });
                return self.letter(site, Letter::Request { caller: Caller::Operator(n), request: *request });
            }
        }
        Ok(())
    }

    /// What an operator sees of their errand.
    fn sight(&self, n: usize, site: usize) -> String {
        let task = &self.operators[n].recording.task;
        let mut text = String::new();
        if let Ok(id) = TaskId::new(task)
            && let Some(Row::Task(row)) = self.images[site].get(&Key::Task(id))
        {
            text.push_str(row.state.name());
            text.push_str(row.wire.as_str());
        }
        for id in self.episodes(site, task) {
            let Some(Row::Episode(row)) = self.images[site].get(&Key::Episode(id)) else { continue };
            text.push_str(row.qa.name());
            text.push_str(if row.inspection.is_some() { " checked " } else { "" });
            match &row.sync {
                SyncMark::NotStarted => text.push('-'),
                SyncMark::Synced { .. } => text.push('+'),
                SyncMark::Failed(job) => text.push_str(&format!("failed {job}")),
                SyncMark::Queued(job) => {
                    let parked = matches!(self.images[site].get(&Key::Job(*job)), Some(Row::Job(row))
                        if matches!(row.state, JobState::Parked { .. }));
                    text.push_str(&format!("job {job} {parked}"));
                }
            }
        }
        text
    }

    fn next_of(&mut self, n: usize, site: usize) -> Next {
        let recording = self.operators[n].recording.clone();
        let Ok(id) = TaskId::new(&recording.task) else { return Next::Done };
        let device = self.devices[recording.device].id.clone();
        let row = match self.images[site].get(&Key::Task(id.clone())) {
            Some(Row::Task(row)) => row.clone(),
            _ => {
                let config = Some("{\"scene\":\"kitchen\",\"topics\":[\"/camera\"]}".to_string());
                return ask(Request::CreateTask { task: Some(id), device, config });
            }
        };
        let command = |action| {
            ask(Request::Command(Command {
                device: device.clone(),
                action,
                task: Some(recording.task.clone()),
                params: None,
                token: None,
                reply: None,
                task_state: None,
            }))
        };
        let now = self.now;
        let conflict = self.conflicts.get(&recording.device).map(|view| view.device_task.clone());
        let operator = &mut self.operators[n];
        // They settle what stands in their way now and then, and sometimes look at a page that is old.
        if let Some(shown) = conflict.filter(|_| !row.state.is_final())
            && operator.luck.one_in(3)
        {
            let how =
                *operator.luck.pick(&[Resolve::Release, Resolve::Release, Resolve::Finish, Resolve::Drop]);
            let holds = if operator.luck.one_in(4) { row.wire.to_string() } else { shown };
            return ask(Request::Resolve { device, how, holds });
        }
        match row.state {
            TaskState::Pending => {
                operator.began = None;
                command(Action::Config)
            }
            TaskState::Ready => command(Action::Begin),
            TaskState::InProgress => {
                let began = *operator.began.get_or_insert(now);
                if recording.pause && !operator.paused {
                    operator.paused = true;
                    return command(Action::Pause);
                }
                if now - began < recording.lasts {
                    return Next::Wait;
                }
                if operator.paused && !operator.resumed {
                    operator.resumed = true;
                    return command(Action::Resume);
                }
                command(Action::Finish)
            }
            TaskState::Uploading => Next::Wait,
            TaskState::Failed | TaskState::Cancelled | TaskState::Completed => {
                self.carry(n, site, &recording)
            }
        }
    }

    /// The recording's episodes: judge and sync.
    fn carry(&mut self, n: usize, site: usize, recording: &Recording) -> Next {
        let of_task: Vec<EpisodeId> = self.episodes(site, &recording.task).collect();
        let mut open = false;
        for id in of_task {
            let Some(Row::Episode(row)) = self.images[site].get(&Key::Episode(id)) else { continue };
            let failed = matches!(row.sync, SyncMark::Failed(_));
            match self.with_episode(n, site, recording, row) {
                Next::Done => {}
                Next::Wait => open = true,
                ask @ Next::Ask(_) => {
                    self.operators[n].again += u32::from(failed);
                    return ask;
                }
            }
        }
        // A later attempt's recording may still come for a task that is over; nobody waits for it.
        if open { Next::Wait } else { Next::Done }
    }

    fn with_episode(&self, n: usize, site: usize, recording: &Recording, row: &EpisodeRow) -> Next {
        // Half of them leave it to their site, where it judges by itself, and come when it puts a recording aside.
        let leaves_it = self.nodes[site].knobs.auto_approve && row.id.0.is_multiple_of(2);
        if row.qa == Qa::Pending && leaves_it && row.inspection.is_none() {
            return Next::Wait;
        }
        if row.qa == Qa::Pending || row.qa == Qa::NeedsInspection {
            return ask(Request::Judge { episode: row.id, approve: recording.approve, reason: None });
        }
        if !row.qa.is_approved() {
            return Next::Done;
        }
        let trigger = || match recording.sync {
            Sync::Named => ask(Request::Sync { episode: row.id }),
            Sync::Batch => ask(Request::SyncBatch),
            Sync::Left => Next::Wait,
        };
        match &row.sync {
            SyncMark::NotStarted => trigger(),
            SyncMark::Synced { .. } => Next::Done,
            // A job that gave up is asked for once more by name, not for ever.
            SyncMark::Failed(_) if recording.sync == Sync::Left || self.operators[n].again >= AGAIN_MAX => {
                Next::Done
            }
            SyncMark::Failed(_) => ask(Request::Sync { episode: row.id }),
            SyncMark::Queued(job) => match self.images[site].get(&Key::Job(*job)) {
                Some(Row::Job(job)) if matches!(job.state, JobState::Parked { .. }) => match recording.sync {
                    Sync::Left => Next::Done,
                    Sync::Named | Sync::Batch => ask(Request::Sync { episode: row.id }),
                },
                _ => Next::Wait,
            },
        }
    }
}
