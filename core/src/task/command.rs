//! Which commands the tasks let pass, and what their ends mean for a task. Must not look at links or recorders:
//! those gates are the hub's.

use alloc::string::ToString;

use super::{Tasks, refuse};
use crate::bug::planted;
use crate::change::{TaskCause, TaskChange};
use crate::cx::Cx;
use crate::fact::{CallEnd, Fact, Reported};
use crate::id::{DeviceId, TaskId, WireId};
use crate::input::{Action, Command};
use crate::refusal::Refusal;
use crate::row::{EarlierAttempt, TaskRow, TaskState};
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
        let text = named(&command);
        let found = text.and_then(|text| self.by_operator(text)).filter(|row| row.device == command.device);
        if let Some(held) = self.ready_for(&command.device) {
            // A configuration that nobody may begin any more is replaced without loss, another one is not.
            let of = |row: &TaskRow| {
                let mut earlier = row.earlier.iter().flatten();
                earlier.any(|entry| Some(&WireId::of_attempt(&row.id, entry.attempt)) == held)
            };
            if !found.is_some_and(of) {
                let (state, task) =
                    (Reported::Ready.name().to_string(), held.map(ToString::to_string).unwrap_or_default());
                return refuse(cx, command.reply, Refusal::RecorderBusy { state, task });
            }
        }
        let Some(row) = found else {
            let required = Refusal::TaskIdRequired("task_config.task_id");
            let refusal = if text.is_none() { required } else { Refusal::NotConfigurable(None) };
            return refuse(cx, command.reply, refusal);
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
        let again = planted!(cx.knobs, X51) && row.state == TaskState::Ready;
        if !may_begin(row) && !again {
            return refuse(cx, command.reply, Refusal::NotBeginable(Some(row.state)));
        }
        let id = row.id.clone();
        command.params = Some(params::name_task(command.params.as_deref(), row.wire.as_str()));
        command.task = Some(row.wire.to_string());
        command.task_state = Some(row.state);
        self.reserve(&id);
        cx.tell(Fact::CommandCleared(command));
    }

    /// For which attempt the recorder of this device is ready, if it said that it is; inside, `None` is a name that none
    /// of ours can have.
    fn ready_for(&self, device: &DeviceId) -> Option<Option<&WireId>> {
        let report = self.recorders.get(device)?.last.as_ref()?;
        (report.state == Reported::Ready).then_some(report.task.as_ref())
    }

    /// An earlier attempt of an own task that the recorder of this device says it holds.
    fn held_earlier(&self, device: &DeviceId, text: &str) -> Option<WireId> {
        let report = self.recorders.get(device)?.last.as_ref()?;
        let wire = report.task.as_ref()?;
        if wire.as_str() == text {
            let named = self.owned(device, wire.as_str())?;
            return (!named.current).then_some(named.wire);
        }
        // A task's own id stands for whichever attempt of it the recorder holds.
        let row = TaskId::new(text).ok().and_then(|id| self.tasks.get(&id))?;
        let mut earlier = row.earlier.iter().flatten();
        let holds = |entry: &EarlierAttempt| WireId::of_attempt(&row.id, entry.attempt) == *wire;
        (row.device == *device && earlier.any(holds)).then(|| wire.clone())
    }

    /// The other commands: a task they name must be this device's.
    fn pass(&mut self, cx: &mut Cx<'_>, mut command: Command) {
        let earlier = named(&command)
            .filter(|_| matches!(command.action, Action::Finish | Action::Cancel | Action::Clear));
        if let Some(wire) = earlier.and_then(|text| self.held_earlier(&command.device, text)) {
            command.params = Some(params::name_task(command.params.as_deref(), wire.as_str()));
            command.task = Some(wire.to_string());
            return cx.tell(Fact::CommandCleared(command));
        }
        if let Some(text) = named(&command) {
            let Some(row) = self.by_operator(text).filter(|row| row.device == command.device) else {
                return refuse(cx, command.reply, Refusal::NotOwned);
            };
            command.params = Some(params::name_task(command.params.as_deref(), row.wire.as_str()));
            command.task = Some(row.wire.to_string());
            command.task_state = Some(row.state);
            if matches!(command.action, Action::Cancel | Action::Clear) {
                let id = row.id.clone();
                self.reserve(&id);
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
            Action::Begin if matches!(state, TaskState::Pending | TaskState::Ready) => {
                self.enact_task(cx, TaskChange::BeginSent { task, at });
            }
            Action::Begin
            | Action::Config
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
        let Some(wire) = command.task.as_deref() else { return };
        let Some(row) = self.live(&command.device, wire) else {
            if (command.action, end) == (Action::Cancel, CallEnd::Done) {
                self.dropped(cx, &command.device, wire);
            }
            return;
        };
        let (task, state, at) = (row.id.clone(), row.state, cx.now.wall);
        let cause = TaskCause::Answer;
        if (command.action, end) == (Action::Begin, CallEnd::Refused)
            && matches!(state, TaskState::Pending | TaskState::Ready)
            && row.begun
            && !planted!(cx.knobs, X51)
        {
            // Strictly: a wire id whose `begin` was ever sent is never begun again.
            return self.give_back(cx, &task, cause);
        }
        if end != CallEnd::Done {
            return;
        }
        match (command.action, state) {
            (Action::Config, TaskState::Pending) => {
                self.enact_task(cx, TaskChange::Readied { task, cause, at });
            }
            (Action::Begin, TaskState::Pending | TaskState::Ready) => {
                self.enact_task(cx, TaskChange::Started { task, cause, at });
            }
            (Action::Cancel, TaskState::Ready | TaskState::InProgress)
            | (Action::Clear, TaskState::Ready) => self.give_back(cx, &task, cause),
            (Action::Finish, TaskState::Ready | TaskState::InProgress) => {
                self.sides.entry(task).or_default().finish_done = true;
            }
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
        if !row.begun && side.successor.is_some() {
            // A `begin` of this name may be cleared already: the number that would follow stays chosen.
            let kept = super::Side { successor: side.successor, ..super::Side::default() };
            self.sides.insert(task.clone(), kept);
        }
        let (task, at) = (task.clone(), cx.now.wall);
        self.enact_task(cx, TaskChange::Returned { task, attempt, wire, cause, at, remembered: true });
    }
}

/// A wire id whose `begin` was ever sent is never begun again: it may have a recording, which would be overwritten.
fn may_begin(row: &TaskRow) -> bool {
    matches!(row.state, TaskState::Pending | TaskState::Ready) && !row.begun
}

fn named(command: &Command) -> Option<&str> {
    command.task.as_deref().map(str::trim).filter(|text| !text.is_empty())
}
