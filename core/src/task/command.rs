//! Which commands the tasks let pass, and what their ends mean for a task. Must not look at links or recorders:
//! those gates are the hub's.

use alloc::string::ToString;

use super::{Tasks, refuse};
use crate::bug::planted;
use crate::change::{TaskCause, TaskChange};
use crate::cx::Cx;
use crate::fact::{CallEnd, Fact};
use crate::id::{TaskId, WireId};
use crate::input::{Action, Command};
use crate::refusal::Refusal;
use crate::row::{TaskRow, TaskState};
use crate::wire::params;

impl Tasks {
    /// A command from an operator.
    pub fn on_command(&mut self, cx: &mut Cx<'_>, command: Command) {
        match command.action {
            Action::Config => self.configure(cx, command),
            Action::Begin => self.begin(cx, command),
            Action::Finish
            | Action::Pause
            | Action::Resume
            | Action::Cancel
            | Action::Clear
            | Action::Quit => self.pass(cx, command),
            // They concern no task.
            Action::GetState | Action::GetStats => cx.tell(Fact::CommandCleared(command)),
        }
    }

    /// A command that passed the gates of the hub first.
    pub fn on_command_gated(&mut self, cx: &mut Cx<'_>, command: Command) {
        self.on_command(cx, command);
    }

    /// `config`: the task must be this device's, pending, and never recorded under this wire id.
    fn configure(&mut self, cx: &mut Cx<'_>, mut command: Command) {
        let Some(text) = named(&command) else {
            return refuse(cx, command.reply, Refusal::TaskIdRequired("task_config.task_id"));
        };
        let Some(row) = self.by_operator(text).filter(|row| row.device == command.device) else {
            return refuse(cx, command.reply, Refusal::NotConfigurable(None));
        };
        // A begun wire id may have a recording on the device: configuring it again would let it be overwritten.
        if row.state != TaskState::Pending || row.begun {
            return refuse(cx, command.reply, Refusal::NotConfigurable(Some(row.state)));
        }
        let config = params::Config {
            params: command.params.as_deref(),
            stored: row.config.as_deref(),
            wire: row.wire.as_str(),
            device: row.device.as_str(),
            public_url: cx.knobs.public_url.as_deref(),
        };
        command.params = Some(config.build());
        command.task = Some(row.wire.to_string());
        command.task_state = Some(row.state);
        cx.tell(Fact::CommandCleared(command));
    }

    /// `begin`: the task must be this device's, pending or ready, and `begin` must not have run already.
    fn begin(&mut self, cx: &mut Cx<'_>, mut command: Command) {
        let Some(text) = named(&command) else {
            return refuse(cx, command.reply, Refusal::TaskIdRequired("task_id"));
        };
        let Some(row) = self.by_operator(text).filter(|row| row.device == command.device) else {
            return refuse(cx, command.reply, Refusal::NotBeginable(None));
        };
        if !self.may_begin(row) {
            return refuse(cx, command.reply, Refusal::NotBeginable(Some(row.state)));
        }
        command.params = Some(params::name_task(command.params.as_deref(), row.wire.as_str()));
        command.task = Some(row.wire.to_string());
        command.task_state = Some(row.state);
        cx.tell(Fact::CommandCleared(command));
    }

    /// A wire id whose `begin` was sent is begun again only if the device refused it, or said afterwards that it is
    /// still ready for it.
    fn may_begin(&self, row: &TaskRow) -> bool {
        match row.state {
            TaskState::Pending => !row.begun,
            TaskState::Ready => !row.begun || self.sides.get(&row.id).is_some_and(|side| side.begin_again),
            TaskState::InProgress
            | TaskState::Uploading
            | TaskState::Completed
            | TaskState::Failed
            | TaskState::Cancelled => false,
        }
    }

    /// The other commands: a task they name must be this device's.
    fn pass(&mut self, cx: &mut Cx<'_>, mut command: Command) {
        if let Some(text) = named(&command) {
            let Some(row) = self.by_operator(text).filter(|row| row.device == command.device) else {
                return refuse(cx, command.reply, Refusal::NotOwned);
            };
            command.params = Some(params::name_task(command.params.as_deref(), row.wire.as_str()));
            command.task = Some(row.wire.to_string());
            command.task_state = Some(row.state);
            if matches!(command.action, Action::Cancel | Action::Clear) && !row.state.is_final() {
                let (id, attempt) = (row.id.clone(), self.successor(row));
                self.sides.entry(id).or_default().successor = Some(attempt);
            }
        }
        cx.tell(Fact::CommandCleared(command));
    }

    /// A command leaves in this step: what must be known of it after a crash becomes durable with it.
    pub fn on_command_sent(&mut self, cx: &mut Cx<'_>, command: &Command) {
        let Some(row) = command.task.as_deref().and_then(|wire| self.live(&command.device, wire)) else {
            return;
        };
        let (task, state, at) = (row.id.clone(), row.state, cx.now.wall);
        match command.action {
            Action::Config if state == TaskState::Pending => {
                let token_sha256 = command.token.map(|token| token.sha256);
                self.enact_task(cx, TaskChange::ConfigSent { task, token_sha256, at });
            }
            Action::Begin => {
                let side = self.sides.entry(task.clone()).or_default();
                (side.begin_out, side.begin_again) = (true, false);
                if matches!(state, TaskState::Pending | TaskState::Ready) {
                    self.enact_task(cx, TaskChange::BeginSent { task, at });
                }
            }
            Action::Config
            | Action::GetState
            | Action::GetStats
            | Action::Finish
            | Action::Pause
            | Action::Resume
            | Action::Cancel
            | Action::Clear
            | Action::Quit => {}
        }
    }

    /// A command ended. What the device refused, or nobody knows, moves nothing: its own reports will.
    pub fn on_command_ended(&mut self, cx: &mut Cx<'_>, command: &Command, end: CallEnd) {
        let Some(row) = command.task.as_deref().and_then(|wire| self.live(&command.device, wire)) else {
            return;
        };
        let (task, state, at) = (row.id.clone(), row.state, cx.now.wall);
        if command.action == Action::Begin {
            let side = self.sides.entry(task.clone()).or_default();
            (side.begin_out, side.begin_again) = (false, end == CallEnd::Refused);
        }
        if end != CallEnd::Done {
            return;
        }
        let cause = TaskCause::Answer;
        match (command.action, state) {
            (Action::Config, TaskState::Pending) => {
                self.enact_task(cx, TaskChange::Readied { task, cause, at });
            }
            (Action::Begin, TaskState::Pending | TaskState::Ready) => {
                self.enact_task(cx, TaskChange::Started { task, cause, at });
            }
            (Action::Cancel, TaskState::Ready | TaskState::InProgress)
            | (Action::Clear, TaskState::Ready) => self.give_back(cx, &task, cause),
            // A repeated or overtaken answer, or a command that moves no task.
            (
                Action::Config
                | Action::Begin
                | Action::Cancel
                | Action::Clear
                | Action::GetState
                | Action::GetStats
                | Action::Finish
                | Action::Pause
                | Action::Resume
                | Action::Quit,
                _,
            ) => {}
        }
    }

    /// The device dropped the task: it waits again, as another attempt if something was recorded as this one.
    pub(super) fn give_back(&mut self, cx: &mut Cx<'_>, task: &TaskId, cause: TaskCause) {
        let row = self.tasks.get(task).expect("the caller has just seen the task");
        let side = self.sides.remove(task).unwrap_or_default();
        let attempt = match (row.begun, side.successor) {
            (true, _) if planted!(cx.knobs, X02) => row.attempt,
            (false, _) => row.attempt,
            (true, Some(attempt)) => attempt,
            // The command was cleared in this boot, and clearing chose.
            (true, None) => row.attempt.saturating_add(1),
        };
        let wire = if row.begun { WireId::of_attempt(task, attempt) } else { row.wire.clone() };
        let (task, at) = (task.clone(), cx.now.wall);
        self.enact_task(cx, TaskChange::Returned { task, attempt, wire, cause, at });
    }
}

fn named(command: &Command) -> Option<&str> {
    command.task.as_deref().map(str::trim).filter(|text| !text.is_empty())
}
