//! The life of a world: chaos, healing, and a bounded wait until everything that can be finished is. What then is left
//! must be stuck for a reason that can be named.

use std::time::Duration;

use tidegate_core::id::TaskId;
use tidegate_core::input::{Command, Request};
use tidegate_core::row::Row;

use super::operator::Operator;
use super::site::{Caller, Letter};
use super::{EVENTS_MAX, Event, Who, World};
use crate::liveness;
use crate::scenario::Act;
use crate::time::SimTime;
use crate::watch::Broken;

/// How often a healed world is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(20);
/// How long a world goes on after everything is finished, so that what comes late is seen.
const AFTERMATH: Duration = Duration::from_secs(90);

/// Events without a durable change that a healed world may have: a site's own timers over its longest wait.
const IDLE_EVENTS: u64 = 20_000;
/// The same, for each device: links that come and go, and states that are asked for.
const IDLE_EVENTS_PER_DEVICE: u64 = 20_000;

impl World<'_> {
    /// From the first boot to rest.
    pub(super) fn live(&mut self) -> Result<(), Broken> {
        self.plan_all();
        let chaos = SimTime::ZERO + self.scenario.chaos;
        self.run_until(chaos)?;
        let bound = chaos + self.scenario.settle;
        let mut calm_since: Option<SimTime> = None;
        loop {
            let next = (self.now + LOOK_EVERY).min(bound);
            self.run_until(next)?;
            let open = self.unfinished();
            let probed =
                open.is_empty() && self.operators.iter().all(|operator| operator.is_done(self.now, chaos));
            calm_since = if probed { calm_since.or(Some(self.now)) } else { None };
            let rested = calm_since.is_some_and(|since| self.now - since >= AFTERMATH);
            if rested || self.now >= bound {
                break;
            }
            // Idle time is jumped over, but never past a look.
            if self.queue.next_at().is_none() && calm_since.is_none() && self.now < bound {
                break;
            }
        }
        self.judge()?;
        let mut watches = std::mem::take(&mut self.watches);
        let truth = self.truth();
        let ended = watches.iter_mut().try_for_each(|watch| watch.end(&truth));
        self.watches = watches;
        ended
    }

    fn run_until(&mut self, until: SimTime) -> Result<(), Broken> {
        while let Some(at) = self.queue.next_at() {
            if at > until {
                break;
            }
            let Some((at, event)) = self.queue.next() else { break };
            self.now = self.now.max(at);
            self.events += 1;
            if self.events > EVENTS_MAX {
                let saw = format!("{EVENTS_MAX} events and no end: the world runs in a circle");
                return Err(Broken { invariant: "L5", saw });
            }
            self.happen(event)?;
            if self.healed {
                self.circle()?;
            }
        }
        self.now = self.now.max(until);
        Ok(())
    }

    /// Events without a durable change, in a healed world: many of them are a circle.
    fn circle(&mut self) -> Result<(), Broken> {
        let commits: u64 = self.nodes.iter().map(|node| u64::from(node.commits)).sum();
        if commits != self.commits_seen {
            (self.commits_seen, self.events_seen) = (commits, self.events);
        }
        let idle = self.events - self.events_seen;
        let bound = IDLE_EVENTS + IDLE_EVENTS_PER_DEVICE * self.devices.len() as u64;
        if idle > bound {
            let saw = format!("{idle} events without a durable change: the world runs in a circle");
            return Err(Broken { invariant: "L5", saw });
        }
        Ok(())
    }

    fn judge(&mut self) -> Result<(), Broken> {
        let found = liveness::judge(&self.condition());
        self.stuck = found.stuck;
        match found.broken {
            Some(broken) => Err(broken),
            None => Ok(()),
        }
    }

    fn unfinished(&self) -> Vec<liveness::Unfinished> {
        liveness::unfinished(&self.condition())
    }

    fn condition(&self) -> liveness::Condition<'_> {
        liveness::Condition {
            truth: self.truth(),
            denied: (0..self.nodes.len()).map(|site| self.denied(site)).collect(),
            up: self.nodes.iter().map(|node| node.up && !node.paused).collect(),
            destination: self.nodes.iter().map(|node| node.knobs.destination).collect(),
            cut_off: (0..self.devices.len()).map(|device| self.cut_off(device)).collect(),
            links: (0..self.devices.len()).map(|device| self.linked(device)).collect(),
        }
    }

    /// One thing that somebody does on purpose.
    pub(super) fn act(&mut self, n: usize) -> Result<(), Broken> {
        let act = &self.scenario.steps[n].act;
        self.say(Who::Word("step"), "#", || format!("{act:?}"));
        match act {
            Act::Record(recording) => {
                let operator = self.operators.len();
                self.operators.push(Operator::new(self.scenario, recording.clone()));
                self.queue.plan(self.now, Event::Look { operator, stamp: 0 });
                Ok(())
            }
            Act::Create { device, task, config } => {
                let site = self.devices[*device].spec.site;
                let device = self.devices[*device].id.clone();
                let Ok(task) = TaskId::new(task) else { return Ok(()) };
                let config = config.then(|| "{\"scene\":\"kitchen\",\"topics\":[\"/a\"]}".to_string());
                self.request(site, Request::CreateTask { task: Some(task), device, config })
            }
            Act::Command { device, action, task } => {
                let site = self.devices[*device].spec.site;
                let device = self.devices[*device].id.clone();
                let command = Command {
                    device,
                    action: *action,
                    task: task.clone(),
                    params: None,
                    token: None,
                    reply: None,
                    task_state: None,
                };
                self.request(site, Request::Command(command))
            }
            Act::Cancel { task, site } => self.request(*site, Request::CancelTask { task: task.clone() }),
            Act::Judge { task, site, approve } => {
                let episode = self.episodes(*site, task).next();
                match episode {
                    Some(episode) => {
                        self.request(*site, Request::Judge { episode, approve: *approve, reason: None })
                    }
                    None => Ok(()),
                }
            }
            Act::Sync { task, site } => match task {
                None => self.request(*site, Request::SyncBatch),
                Some(task) => {
                    let episodes: Vec<_> = self.episodes(*site, task).collect();
                    for episode in episodes {
                        self.request(*site, Request::Sync { episode })?;
                    }
                    Ok(())
                }
            },
            Act::Refresh { device, max_age } => {
                let site = self.devices[*device].spec.site;
                let max_age_ms = u64::try_from(max_age.as_millis()).unwrap_or(u64::MAX);
                let device = self.devices[*device].id.clone();
                self.request(site, Request::RefreshState { device, max_age_ms })
            }
            Act::Restart { site, destination } => self.stop(*site, *destination),
            Act::StopRecorder { device } => {
                if self.devices[*device].on {
                    self.device(*device, |device, now, asks| device.stop_recorder(now, asks))?;
                }
                Ok(())
            }
            Act::Local { device, deed } => {
                let deed = *deed;
                self.device(*device, |device, now, asks| device.local(now, deed, asks))
            }
            Act::Resolve { device, how, task } => {
                let (how, site) = (*how, self.devices[*device].spec.site);
                let shown = self.conflicts.get(device).map(|view| view.device_task.clone());
                let Some(shown) = shown.filter(|_| self.nodes[site].up) else { return Ok(()) };
                let (holds, device) = (task.clone().unwrap_or(shown), self.devices[*device].id.clone());
                self.request(site, Request::Resolve { device, how, holds })
            }
            Act::Policy { site, deed, slot, module } => self.deed(*site, *deed, *slot, *module),
            Act::RestartUploader { device } => {
                if self.devices[*device].on {
                    self.crash(*device, tidegate_core::id::Role::Transfer)?;
                }
                Ok(())
            }
        }
    }

    fn request(&mut self, site: usize, request: Request) -> Result<(), Broken> {
        self.letter(site, Letter::Request { caller: Caller::Nobody, request })
    }

    /// Episodes of a task, oldest first.
    pub(super) fn episodes<'a>(
        &'a self,
        site: usize,
        task: &'a str,
    ) -> impl Iterator<Item = tidegate_core::id::EpisodeId> + 'a {
        self.images[site].values().filter_map(move |row| match row {
            Row::Episode(row) if row.task.as_str() == task => Some(row.id),
            _ => None,
        })
    }
}
