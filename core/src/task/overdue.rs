//! Recordings that do not come: when people are told, and how a person settles their tasks. Must not settle one itself: the
//! recording may still lie on a device that is switched off.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::ToString;
use core::time::Duration;

use super::{Tasks, broken};
use crate::change::{TaskCause, TaskChange};
use crate::cx::Cx;
use crate::effect::{Notice, Response};
use crate::id::{RequestId, TaskId};
use crate::limits;
use crate::refusal::{Broken, Refusal};
use crate::row::{TaskRow, TaskState, shorten};
use crate::time::Mono;
use crate::timers::TimerKey;

/// Until when recordings should have come.
#[derive(Debug, Default)]
pub(super) struct Overdue {
    order: BTreeSet<(Mono, TaskId)>,
    at: BTreeMap<TaskId, Mono>,
    /// Tasks of whose recordings people were told, in this boot.
    told: BTreeSet<TaskId>,
}

impl Tasks {
    /// Takes up the deadlines of what waits for its recording.
    pub(super) fn plan_deadlines(&mut self, cx: &mut Cx<'_>) {
        let waiting = self.tasks.values().filter(|row| row.state == TaskState::Uploading);
        let waiting: alloc::vec::Vec<TaskId> = waiting.map(|row| row.id.clone()).collect();
        for task in waiting {
            self.follow_upload(cx, &task);
        }
    }

    /// A task changed: its recording is waited for from now on, or not any more.
    pub(super) fn follow_upload(&mut self, cx: &mut Cx<'_>, task: &TaskId) {
        let row = self.tasks.get(task).filter(|row| row.state == TaskState::Uploading);
        match (row, self.overdue.at.contains_key(task) || self.overdue.told.contains(task)) {
            (Some(row), false) => {
                let device = row.device.clone();
                if let Some(at) = deadline(cx, row) {
                    self.overdue.order.insert((at, task.clone()));
                    self.overdue.at.insert(task.clone(), at);
                    self.arm_overdue(cx);
                }
                self.ask_soon(cx, &device);
            }
            (None, true) => {
                self.forget_deadline(task);
                self.overdue.told.remove(task);
                self.arm_overdue(cx);
            }
            (Some(_), true) | (None, false) => {}
        }
    }

    fn forget_deadline(&mut self, task: &TaskId) {
        if let Some(at) = self.overdue.at.remove(task) {
            self.overdue.order.remove(&(at, task.clone()));
        }
    }

    fn arm_overdue(&self, cx: &mut Cx<'_>) {
        match self.overdue.order.first() {
            Some((at, _)) => cx.arm_at(TimerKey::Overdue, *at),
            None => cx.disarm(&TimerKey::Overdue),
        }
    }

    /// The time of a recording is over.
    pub fn on_overdue_due(&mut self, cx: &mut Cx<'_>) {
        while let Some((at, task)) = self.overdue.order.first().cloned() {
            if at > cx.now.mono {
                break;
            }
            self.raise(cx, &task);
        }
        self.arm_overdue(cx);
    }

    /// Tells people of a recording that does not come: once for each time that it is waited for, and boot.
    pub(super) fn raise(&mut self, cx: &mut Cx<'_>, task: &TaskId) {
        self.forget_deadline(task);
        let row = self.tasks.get(task).expect("a task that waits for its recording is in memory").clone();
        if self.overdue.told.insert(task.clone()) {
            cx.publish(Notice::Overdue { row: Box::new(row) });
        }
    }

    /// There is no trouble with a recording any more: who was told that it is nowhere is told again if it does not come in time.
    pub(super) fn hope(&mut self, cx: &mut Cx<'_>, task: &TaskId) {
        let row = self.tasks.get(task).filter(|_| self.overdue.told.contains(task));
        let late = row.and_then(|row| deadline(cx, row)).is_some_and(|at| at <= cx.now.mono);
        if row.is_some() && !late {
            self.overdue.told.remove(task);
            self.follow_upload(cx, task);
        }
    }

    /// Tasks of whose recordings people were told that they do not come.
    #[must_use]
    pub fn overdue(&self) -> usize {
        self.overdue.told.len()
    }

    /// Settles a task whose recording does not come. What comes later all the same is kept as a late episode.
    pub fn on_resolve_task(
        &mut self,
        cx: &mut Cx<'_>,
        reply: RequestId,
        task: &str,
        to: TaskState,
        reason: Option<&str>,
    ) {
        let Some(row) = self.by_operator(task) else {
            return cx.reply(reply, Err(Refusal::TaskNotFound(shorten(task, limits::ID_BYTES))));
        };
        if row.state != TaskState::Uploading {
            return cx.reply(reply, Err(Refusal::NotResolvable(row.state)));
        }
        let id = row.id.clone();
        match to {
            TaskState::Failed => {
                let reason = match reason {
                    Some(reason) => alloc::format!("settled by a person: {reason}"),
                    None => "settled by a person".to_string(),
                };
                self.enact_task(cx, TaskChange::Failed { task: id.clone(), reason, at: cx.now.wall });
            }
            TaskState::Pending => {
                self.reserve(&id);
                self.held.remove(&id);
                self.give_back(cx, &id, TaskCause::Resolved);
            }
            TaskState::Ready
            | TaskState::InProgress
            | TaskState::Uploading
            | TaskState::Completed
            | TaskState::Cancelled => {
                let must = "failed, or pending to record it once more";
                return cx.reply(reply, Err(Refusal::BadField { field: "to", must }));
            }
        }
        let row = self.tasks.get(&id).expect("it was just found").clone();
        cx.reply(reply, Ok(Response::Task(row)));
    }

    pub(super) fn check_deadlines(&self) -> Result<(), Broken> {
        let known = self.overdue.at.keys().chain(&self.overdue.told);
        for task in known {
            if self.tasks.get(task).is_none_or(|row| row.state != TaskState::Uploading) {
                return broken("I27", alloc::format!("a deadline of {task}, which waits for no recording"));
            }
        }
        if self.overdue.order.len() != self.overdue.at.len() {
            return broken("I27", "deadlines without tasks".to_string());
        }
        Ok(())
    }
}

/// Until when the recording of a task should have come. A wall clock that was stepped makes it no later than if it were
/// waited for from now on.
fn deadline(cx: &Cx<'_>, row: &TaskRow) -> Option<Mono> {
    let patience = Duration::from_millis(cx.knobs.uploading_deadline_ms?);
    // Rows of older formats do not say: their last change is the nearest that is known.
    let since = row.uploading_at.unwrap_or(row.updated_at);
    Some(cx.now.deadline(since.after(patience), patience))
}
