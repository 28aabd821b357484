//! What a recorder holds against its records: shown to people, and settled as a person says. Must not settle anything
//! by itself, nor keep anything beyond the recorder's link.

use alloc::boxed::Box;
use alloc::string::ToString;
use core::time::Duration;

use super::Tasks;
use super::reconcile::at_stake;
use crate::bug::planted;
use crate::change::TaskCause;
use crate::cx::Cx;
use crate::effect::{ConflictKind, ConflictView, Notice, Response};
use crate::fact::{Fact, Reported};
use crate::id::{DeviceId, RequestId, TaskId};
use crate::input::{Action, Command, Resolve};
use crate::refusal::Refusal;
use crate::row::TaskState;
use crate::timers::TimerKey;

impl Tasks {
    /// Derives the conflict of a device from its last report and the rows, and tells viewers if it is another one.
    pub(super) fn refresh_conflict(&mut self, cx: &mut Cx<'_>, device: &DeviceId) {
        let Some(seat) = self.recorders.get(device) else { return };
        let (was, over) = (seat.conflict.clone(), seat.over.clone());
        let mut due = None;
        let found = self.contradiction(device).filter(|(kind, task)| {
            let Some(task) = task.as_ref().filter(|_| *kind == ConflictKind::Over) else { return true };
            let at = over.filter(|(known, _)| known == task).map(|(_, at)| at);
            let at = at.unwrap_or_else(|| cx.now.mono.after(Duration::from_millis(cx.knobs.settle_ms)));
            due = Some((task.clone(), at));
            cx.now.mono >= at
        });
        if let Some((task, at)) = &due
            && *at > cx.now.mono
            && !cx.stopping
        {
            cx.arm_at(TimerKey::Settle(task.clone()), *at);
        }
        let conflict = found.filter(|_| !planted!(cx.knobs, X53)).map(|(kind, task)| {
            let report = self.recorders.get(device).and_then(|seat| seat.last.as_ref());
            let row = task.as_ref().and_then(|task| self.tasks.get(task));
            let mut view = ConflictView {
                kind,
                device_state: report.map_or("", |report| report.state.name()).to_string(),
                device_task: report.map(|report| report.said.clone()).unwrap_or_default(),
                wire: row.map(|row| row.wire.clone()),
                status: row.map(|row| row.state),
                task,
                since: cx.now.wall,
            };
            if let Some(was) = was.as_ref().filter(|w| (w.kind, &w.device_task) == (kind, &view.device_task))
            {
                view.since = was.since;
            }
            view
        });
        let seat = self.recorders.get_mut(device).expect("it was there at the start");
        seat.over = due;
        if conflict != was {
            seat.conflict.clone_from(&conflict);
            cx.publish(Notice::Conflict { device: device.clone(), conflict });
        }
    }

    /// The link is gone or another one, and what was said on it with it.
    pub(super) fn drop_conflict(&mut self, cx: &mut Cx<'_>, device: &DeviceId) {
        let was = self.recorders.get_mut(device).and_then(|seat| seat.conflict.take());
        if was.is_some() {
            cx.publish(Notice::Conflict { device: device.clone(), conflict: None });
        }
    }

    fn contradiction(&self, device: &DeviceId) -> Option<(ConflictKind, Option<TaskId>)> {
        let seat = self.recorders.get(device)?;
        let report = seat.last.as_ref().filter(|report| report.state.holds_task())?;
        let Some(wire) = report.task.as_ref() else {
            // A name that none of ours can have is somebody else's.
            return (!report.said.trim().is_empty()).then_some((ConflictKind::UnknownTask, None));
        };
        let records = matches!(report.state, Reported::Recording | Reported::Paused);
        let named = seat.named.clone().or_else(|| {
            // It may have been made since.
            self.live(device, wire.as_str()).map(|row| row.id.clone())
        });
        let Some(named) = named else { return Some((ConflictKind::UnknownTask, None)) };
        let over = || records.then(|| (ConflictKind::Over, Some(named.clone())));
        let own = match self.tasks.get(&named) {
            // Only what is over leaves the memory.
            None => over(),
            Some(row) if row.state.is_final() => over(),
            Some(row) if row.wire == *wire && row.state == TaskState::Uploading => over(),
            Some(row) if row.wire == *wire => None,
            // It is only ready for it, and is configured anew for the next one.
            Some(row) if !records && !row.begun => None,
            Some(_) => Some((ConflictKind::OldAttempt, Some(named.clone()))),
        };
        own.or_else(|| {
            let other = self.at_stake_of(device).find(|row| row.begun && row.id != named)?;
            Some((ConflictKind::OtherTask, Some(other.id.clone())))
        })
    }

    /// A person says how the conflict of a device is to be settled. `holds` is the task that they saw it hold.
    pub fn on_resolve(
        &mut self,
        cx: &mut Cx<'_>,
        reply: RequestId,
        device: &DeviceId,
        how: Resolve,
        holds: &str,
    ) {
        let seat = self.recorders.get(device);
        let Some(view) = seat.and_then(|seat| seat.conflict.clone()) else {
            return cx.reply(reply, Err(Refusal::NoConflict(device.clone())));
        };
        if view.device_task.trim() != holds.trim() && !planted!(cx.knobs, X54) {
            return cx.reply(reply, Err(Refusal::ConflictChanged(Box::new(view))));
        }
        let records = seat
            .and_then(|seat| seat.last.as_ref())
            .is_some_and(|report| matches!(report.state, Reported::Recording | Reported::Paused));
        let action = match how {
            Resolve::Release => return self.release(cx, reply, device, view),
            Resolve::Finish if records => Action::Finish,
            Resolve::Drop if records => Action::Cancel,
            Resolve::Drop => Action::Clear,
            // There is no recording to keep.
            Resolve::Finish => {
                return cx.reply(reply, Err(Refusal::ConflictNeedsCommand(Box::new(view))));
            }
        };
        cx.tell(Fact::CommandCleared(Command {
            device: device.clone(),
            action,
            task: Some(view.device_task),
            params: None,
            token: None,
            reply: Some(reply),
            task_state: view.status,
        }));
    }

    /// The records follow the device: what it does not hold goes back, and what it records goes on.
    fn release(&mut self, cx: &mut Cx<'_>, reply: RequestId, device: &DeviceId, view: ConflictView) {
        let held =
            |row: &&crate::row::TaskRow| self.recorders.get(device).is_some_and(|seat| seat.holds(row));
        let stray = self.at_stake_of(device).filter(|row| !held(row)).map(|row| row.id.clone());
        let stray: alloc::vec::Vec<TaskId> = stray.collect();
        if stray.is_empty() {
            return cx.reply(reply, Err(Refusal::ConflictNeedsCommand(Box::new(view))));
        }
        for task in stray {
            self.give_back(cx, &task, TaskCause::Resolved);
        }
        let seat = self.recorders.get(device);
        let records = seat.and_then(|seat| {
            let report = seat.last.as_ref()?;
            let records = matches!(report.state, Reported::Recording | Reported::Paused);
            Some((seat.named.clone().filter(|_| records)?, report.task.clone()?))
        });
        if let Some((task, wire)) = records {
            self.resume(cx, &task, &wire, TaskCause::Resolved);
        }
        let left = self.recorders.get(device).and_then(|seat| seat.conflict.clone());
        cx.reply(reply, Ok(Response::Resolved { device: device.clone(), left }));
    }

    /// Checks that viewers see no conflict that is none, and tasks that may go back have a name to go back under.
    pub(super) fn check_reconciled(&self) -> Result<(), crate::refusal::Broken> {
        for (device, ids) in &self.of_device {
            if let Some(id) = ids.iter().find(|id| !self.tasks.contains_key(*id)) {
                return super::broken("I27", alloc::format!("{device} keeps {id}, which is not in memory"));
            }
        }
        let nameless = |row: &&crate::row::TaskRow| {
            let side = self.sides.get(&row.id);
            at_stake(row) && row.begun && side.is_none_or(|side| side.successor.is_none())
        };
        match self.tasks.values().find(nameless) {
            Some(row) => super::broken("I11", alloc::format!("nobody chose the next attempt of {row:?}")),
            None => Ok(()),
        }
    }
}
