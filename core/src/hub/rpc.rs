//! RPCs on a recorder's link: each is sent once and ends exactly once. Does not judge whether one may be sent.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use crate::bug::planted;
use crate::cx::Cx;
use crate::effect::{Frame, Notice, RecorderView, Response};
use crate::fact::{CallEnd, Fact, Report, Reported};
use crate::hub::Hub;
use crate::hub::confidence::{Origin, Said};
use crate::hub::link::Recorder;
use crate::id::{DeviceId, RequestId, SecretRef, Ticket};
use crate::input::{Action, Command};
use crate::limits;
use crate::refusal::Refusal;
use crate::time::Mono;
use crate::timers::TimerKey;
use crate::wire::Unusable;
use crate::wire::recorder::{encode_rpc, naming};

/// The RPCs that wait for their answer on one link, oldest first.
///
/// ```text
/// (sent) ──► open ──answer──► Done | Refused
///              ├────deadline──► Unknown
///              └────link lost or replaced──► Unknown
/// ```
/// Leaving `open` takes the call out of the table: whatever answers it later finds nothing.
#[derive(Debug, Default)]
pub(super) struct Calls {
    open: Vec<Call>,
}

/// One RPC.
#[derive(Debug)]
pub(super) struct Call {
    /// Names its deadline.
    pub ticket: Ticket,
    /// Its id on the wire.
    pub request_id: String,
    /// Who wants it.
    pub asks: Asks,
    /// When it was sent.
    pub sent: Mono,
}

/// How late an answer is, in milliseconds.
#[derive(Clone, Copy, Debug)]
struct Late {
    budget_ms: u64,
    elapsed_ms: u64,
}

impl Late {
    fn of(cx: &Cx<'_>, call: &Call) -> Late {
        let elapsed = call.sent.until(cx.now.mono).as_millis();
        Late { budget_ms: cx.knobs.rpc_timeout_ms, elapsed_ms: u64::try_from(elapsed).unwrap_or(u64::MAX) }
    }
}

/// What an RPC is for.
#[derive(Debug)]
pub(super) enum Asks {
    /// `get_state`: for ourselves, and for all who wait for a fresh state. One per link.
    State(Vec<Waiter>),
    /// Any other command.
    Command(Command),
}

impl Asks {
    /// What is asked.
    fn action(&self) -> Action {
        match self {
            Asks::State(_) => Action::GetState,
            Asks::Command(command) => command.action,
        }
    }
}

/// Who waits for a fresh state.
#[derive(Debug)]
pub(super) enum Waiter {
    /// Somebody who wants to see it.
    Refresh(RequestId),
    /// A command that is judged by it.
    Gate(Command),
    /// Somebody who sent `get_state` as a command.
    Plain(Command),
}

impl Waiter {
    fn reply(&self) -> Option<RequestId> {
        match self {
            Waiter::Refresh(reply) => Some(*reply),
            Waiter::Gate(command) | Waiter::Plain(command) => command.reply,
        }
    }
}

/// What a recorder answered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answer<'a> {
    /// Which RPC it answers.
    pub request_id: &'a str,
    /// Its word.
    pub success: bool,
    /// Its message.
    pub message: Option<&'a str>,
    /// The state it names.
    pub state: Option<&'a str>,
    /// The task it names.
    pub task: Option<&'a str>,
    /// Its data as JSON.
    pub data: Option<&'a str>,
}

impl Answer<'_> {
    fn response(&self) -> Response {
        Response::Rpc {
            request_id: self.request_id.into(),
            success: self.success,
            message: self.message.map(Into::into),
            data: self.data.map(Into::into),
        }
    }

    /// Whether it says that the recorder dropped what it held, and in the same breath that it holds it still: then
    /// nobody knows which is true.
    fn takes_back(&self, command: &Command) -> bool {
        let drops = matches!(command.action, Action::Cancel | Action::Clear);
        let holds = self.state.is_some_and(|state| Reported::of(state).holds_task());
        let same = self.task.is_none_or(|task| command.task.as_deref().is_none_or(|own| own == task));
        self.success && drops && holds && same
    }

    fn end(&self) -> CallEnd {
        if self.success { CallEnd::Done } else { CallEnd::Refused }
    }
}

/// How asking for a state ended.
#[derive(Clone, Copy, Debug)]
enum Asked<'a> {
    /// It was told, and is confirmed.
    Told(Answer<'a>),
    /// The answer was of no use.
    Useless(Answer<'a>),
    /// There was none in time.
    Silent,
}

/// Why every call of a link is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Over {
    /// The link was lost or replaced.
    Lost,
    /// The site stops.
    Stopping,
}

impl Calls {
    /// Every open call.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Call> {
        self.open.iter()
    }

    /// The command in flight that changes the device.
    pub(super) fn mutating(&self) -> Option<Action> {
        self.commands().map(|command| command.action).find(|action| action.mutates())
    }

    /// Commands in flight.
    pub(super) fn commands(&self) -> impl Iterator<Item = &Command> {
        self.open.iter().filter_map(|call| match &call.asks {
            Asks::Command(command) => Some(command),
            Asks::State(_) => None,
        })
    }

    /// The tasks that commands name which were sent, or wait for a fresh state.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.open.iter().flat_map(|call| {
            let (command, waiters) = match &call.asks {
                Asks::Command(command) => (Some(command), [].as_slice()),
                Asks::State(waiters) => (None, waiters.as_slice()),
            };
            let waiting = waiters.iter().filter_map(|waiter| match waiter {
                Waiter::Gate(command) | Waiter::Plain(command) => Some(command),
                Waiter::Refresh(_) => None,
            });
            command.into_iter().chain(waiting).filter_map(|command| command.task.as_deref())
        })
    }

    /// Those who wait for the `get_state` in flight, if one is.
    pub(super) fn waiters(&mut self) -> Option<&mut Vec<Waiter>> {
        self.open.iter_mut().find_map(|call| match &mut call.asks {
            Asks::State(waiters) => Some(waiters),
            Asks::Command(_) => None,
        })
    }

    fn take(&mut self, is: impl Fn(&Call) -> bool) -> Option<Call> {
        let at = self.open.iter().position(is)?;
        Some(self.open.remove(at))
    }
}

impl Hub {
    /// Sends a command that passed every gate, unless another one that changes the device is out.
    pub(super) fn send_command(&mut self, cx: &mut Cx<'_>, mut command: Command) {
        let Some(recorder) = self.recorders.get(&command.device) else {
            return refuse(cx, &command, Refusal::RecorderOffline);
        };
        if command.action == Action::GetState {
            let device = command.device.clone();
            return self.ask_state(cx, &device, Some(Waiter::Plain(command)));
        }
        let alone = command.action.mutates() && !planted!(cx.knobs, X15);
        if let Some(out) = recorder.calls.mutating().filter(|_| alone) {
            return refuse(cx, &command, Refusal::CommandInFlight(out));
        }
        // One slot is kept for `get_state`: without it a link full of commands could not be confirmed. And one for what
        // changes the device, of which one is out at a time: a recording can always be stopped.
        let kept = if command.action.mutates() { 1 } else { 2 };
        if recorder.calls.commands().count() >= limits::CALLS_PER_LINK - kept && !planted!(cx.knobs, B30) {
            return refuse(cx, &command, Refusal::TooManyCalls);
        }
        let gated = !planted!(cx.knobs, B05 | B06);
        assert!(
            !matches!(command.action, Action::Config | Action::Begin)
                || recorder.confidence.is_confirmed()
                || !gated,
            "I06: {} leaves for {} unconfirmed",
            command.action.name(),
            command.device
        );
        let params = match params(&mut command, recorder.confidence.task()) {
            Ok(params) => params,
            Err(Unusable) => {
                let refusal = Refusal::BadField { field: "params", must: "a JSON object" };
                return refuse(cx, &command, refusal);
            }
        };
        if command.action == Action::Cancel && command.task.is_none() && recorder.confidence.is_confirmed() {
            // What it drops need not be asked for.
            let held = recorder.confidence.task();
            command.task = (!held.is_empty()).then(|| held.into());
        }
        let (device, action, secret) = (command.device.clone(), command.action, command.token);
        cx.tell(Fact::CommandSent(command.clone()));
        self.transmit(cx, &device, action, params.as_deref(), secret, Asks::Command(command));
    }

    /// Asks a recorder for its state, or joins the question that is out. Does nothing without a link.
    pub(super) fn ask_state(&mut self, cx: &mut Cx<'_>, device: &DeviceId, waiter: Option<Waiter>) {
        let Some(recorder) = self.recorders.get_mut(device) else { return };
        let out = recorder.calls.waiters();
        if let Some(waiter) = &waiter
            && out.as_ref().is_some_and(|waiters| waiters.len() >= limits::WAITERS_PER_LINK)
        {
            if let Some(reply) = waiter.reply() {
                cx.reply(reply, Err(Refusal::TooManyCalls));
            }
            return;
        }
        if let Some(Waiter::Plain(command)) = &waiter {
            cx.tell(Fact::CommandSent(command.clone()));
        }
        match out {
            Some(waiters) => waiters.extend(waiter),
            None => {
                recorder.confidence.asked(cx.now);
                cx.disarm(&TimerKey::Sync(recorder.link.conn));
                let asks = Asks::State(waiter.into_iter().collect());
                self.transmit(cx, device, Action::GetState, None, None, asks);
            }
        }
    }

    fn transmit(
        &mut self,
        cx: &mut Cx<'_>,
        device: &DeviceId,
        action: Action,
        params: Option<&str>,
        secret: Option<SecretRef>,
        asks: Asks,
    ) {
        let recorder = self.recorders.get_mut(device).expect("callers looked the recorder up in this step");
        let (conn, ticket) = (recorder.link.conn, cx.number());
        let request_id = cx.chance().uuid();
        let text = encode_rpc(&request_id, action.name(), params, cx.now.wall.0);
        recorder.calls.open.push(Call { ticket, request_id, asks, sent: cx.now.mono });
        let bounded = recorder.calls.open.len() <= limits::CALLS_PER_LINK || planted!(cx.knobs, B30);
        assert!(bounded, "I10: too many calls on {conn:?}");
        self.waiting.insert(ticket, conn);
        cx.arm(TimerKey::Call(ticket), cx.knobs.rpc_timeout());
        cx.send(conn, Frame { text, secret });
    }

    /// An answer arrived on the device's current link.
    pub(super) fn on_answer(&mut self, cx: &mut Cx<'_>, device: &DeviceId, answer: Answer<'_>) {
        let call = self
            .recorders
            .get_mut(device)
            .and_then(|recorder| recorder.calls.take(|call| call.request_id == answer.request_id));
        let Some(call) = call else {
            self.unmatched += 1;
            if planted!(cx.knobs, B07) {
                self.on_late(cx, device, answer);
            }
            return;
        };
        self.close(cx, call.ticket);
        match call.asks {
            Asks::State(waiters) => self.on_state(cx, device, answer, waiters),
            Asks::Command(command) => {
                let how = if answer.takes_back(&command) { CallEnd::Unknown } else { answer.end() };
                end(cx, command.clone(), how, Ok(answer.response()));
                if answer.success && answer.state.is_some() && command.action.mutates() {
                    // Only these name their task to the device, which refuses them for another one. What it answers to
                    // the others says nothing of the task that the caller had in mind.
                    let told = matches!(command.action, Action::Config | Action::Begin | Action::Finish)
                        || planted!(cx.knobs, H19);
                    let task = answer.task.or(command.task.as_deref().filter(|_| told));
                    let said = Said { state: answer.state, task, data: answer.data, ..Said::default() };
                    self.hear(cx, device, Origin::Answer(command.action), said);
                }
                self.settle(cx, device);
            }
        }
    }

    /// Asks a recorder again whose last report came while a command was out, when none is out any more: nothing was
    /// concluded from it, and there may be no other.
    fn settle(&mut self, cx: &mut Cx<'_>, device: &DeviceId) {
        let open = |recorder: &Recorder| recorder.unsettled && recorder.calls.mutating().is_none();
        if !cx.stopping && self.recorders.get(device).is_some_and(open) {
            self.ask_state(cx, device, None);
        }
    }

    /// An answer that no call waits for.
    fn on_late(&mut self, cx: &mut Cx<'_>, device: &DeviceId, answer: Answer<'_>) {
        let Some(recorder) = self.recorders.get_mut(device).filter(|_| answer.success) else { return };
        let said = Said { state: answer.state, task: answer.task, ..Said::default() };
        if answer.state.is_some()
            && let Some(report) = recorder.confidence.answered(cx.now, said)
        {
            self.accepted(cx, device, report);
        }
    }

    fn on_state(&mut self, cx: &mut Cx<'_>, device: &DeviceId, answer: Answer<'_>, waiters: Vec<Waiter>) {
        let recorder = self.recorders.get_mut(device).expect("the call was taken from this recorder");
        let mut said = Said { state: answer.state, task: answer.task, data: answer.data, ..Said::default() };
        if planted!(cx.knobs, B04) && said.state.is_none_or(|state| state.trim().is_empty()) {
            said.state = Some("idle");
        }
        if !answer.success {
            let error = answer.message.unwrap_or("recorder get_state failed");
            let greeted = recorder.confidence.unanswered(error);
            self.after_failure(cx, device, greeted);
            return self.serve(cx, device, waiters, Asked::Useless(answer));
        }
        match recorder.confidence.answered(cx.now, said) {
            Some(report) => {
                self.accepted(cx, device, report);
                self.serve(cx, device, waiters, Asked::Told(answer));
            }
            None => {
                self.ask_later(cx, device);
                self.serve(cx, device, waiters, Asked::Useless(answer));
            }
        }
    }

    /// Asking for a state failed: what the recorder said of itself when it came counts then, or it is asked again.
    fn after_failure(&mut self, cx: &mut Cx<'_>, device: &DeviceId, greeted: Option<Report>) {
        match greeted {
            Some(report) => self.accepted(cx, device, report),
            None => self.ask_later(cx, device),
        }
    }

    /// A recorder did not answer in time: nobody knows whether it did what it was told.
    pub fn on_call_due(&mut self, cx: &mut Cx<'_>, ticket: Ticket) {
        let Some((device, call)) = self.overdue(ticket) else { return };
        self.close(cx, ticket);
        let late = Late::of(cx, &call);
        cx.publish(Notice::Timeout {
            device: device.clone(),
            action: call.asks.action(),
            budget_ms: late.budget_ms,
            elapsed_ms: late.elapsed_ms,
        });
        let recorder = self.recorders.get_mut(&device).expect("the call was taken from this recorder");
        match call.asks {
            Asks::State(waiters) => {
                let greeted = recorder.confidence.unanswered(SILENT);
                self.after_failure(cx, &device, greeted);
                self.serve(cx, &device, waiters, Asked::Silent);
            }
            Asks::Command(command) if planted!(cx.knobs, B06) => {
                let (action, again) = (command.action, Command { reply: None, ..command.clone() });
                let first = command.reply.is_some();
                end(cx, command, CallEnd::Refused, Err(Refusal::RpcTimeout(action)));
                if first {
                    self.send_command(cx, again);
                }
            }
            Asks::Command(command) => {
                let (action, task) = (command.action, command.task.clone());
                if action.mutates() {
                    recorder.confidence.doubt(action, SILENT);
                }
                end(cx, command, CallEnd::Unknown, Err(Refusal::RpcTimeout(action)));
                if action.mutates() {
                    self.publish_recorder(cx, &device, false);
                    let version = self.next_version(&device);
                    let Late { budget_ms, elapsed_ms } = late;
                    let whose = device.clone();
                    cx.publish(Notice::OperationUnknown {
                        device: whose,
                        action,
                        task,
                        budget_ms,
                        elapsed_ms,
                        version,
                    });
                    self.ask_state(cx, &device, None);
                }
            }
        }
    }

    fn overdue(&mut self, ticket: Ticket) -> Option<(DeviceId, Call)> {
        let conn = self.waiting.get(&ticket)?;
        let (device, _) = self.lines.get(conn)?;
        let call = self.recorders.get_mut(device)?.calls.take(|call| call.ticket == ticket)?;
        Some((device.clone(), call))
    }

    /// Ends every call of a link that is gone, or that we leave. Its timers go with it.
    pub(super) fn end_calls(
        &mut self,
        cx: &mut Cx<'_>,
        device: &DeviceId,
        recorder: &mut Recorder,
        over: Over,
    ) {
        cx.disarm(&TimerKey::Sync(recorder.link.conn));
        for call in core::mem::take(&mut recorder.calls.open) {
            self.close(cx, call.ticket);
            if planted!(cx.knobs, B08) && over == Over::Lost {
                continue;
            }
            match call.asks {
                Asks::Command(command) => lost(cx, command),
                Asks::State(waiters) => {
                    for waiter in waiters {
                        self.leave(cx, device, waiter, over);
                    }
                }
            }
        }
    }

    fn leave(&self, cx: &mut Cx<'_>, device: &DeviceId, waiter: Waiter, over: Over) {
        match (waiter, over) {
            (Waiter::Plain(command), Over::Lost | Over::Stopping) => lost(cx, command),
            // The state of the link that took over, if one did.
            (Waiter::Refresh(reply), Over::Lost) => {
                let view = self.view(cx, device, false);
                cx.reply(reply, Ok(Response::State(view)));
            }
            (Waiter::Refresh(reply), Over::Stopping) => cx.reply(reply, Err(Refusal::Stopping)),
            (Waiter::Gate(command), Over::Lost) => {
                let error = Some("recorder not connected".into());
                let view = Box::new(RecorderView { error, ..self.disconnected(cx, device) });
                refuse(cx, &command, Refusal::RefreshFailed { timeout: false, view, command: true });
            }
            (Waiter::Gate(command), Over::Stopping) => refuse(cx, &command, Refusal::Stopping),
        }
    }

    /// Lets those go on who waited for a state.
    fn serve(&mut self, cx: &mut Cx<'_>, device: &DeviceId, waiters: Vec<Waiter>, asked: Asked<'_>) {
        let timeout = matches!(asked, Asked::Silent);
        for waiter in waiters {
            let view = self.view(cx, device, matches!(asked, Asked::Told(_)));
            match (waiter, asked) {
                (Waiter::Refresh(reply), Asked::Told(_)) => cx.reply(reply, Ok(Response::State(view))),
                (Waiter::Refresh(reply), Asked::Useless(_) | Asked::Silent) => {
                    let view = Box::new(view);
                    cx.reply(reply, Err(Refusal::RefreshFailed { timeout, view, command: false }));
                }
                (Waiter::Gate(command), Asked::Told(_)) => self.go_on(cx, command),
                (Waiter::Gate(command), Asked::Useless(_) | Asked::Silent) => {
                    let view = Box::new(view);
                    refuse(cx, &command, Refusal::RefreshFailed { timeout, view, command: true });
                }
                (Waiter::Plain(command), Asked::Told(answer) | Asked::Useless(answer)) => {
                    end(cx, command, answer.end(), Ok(answer.response()));
                }
                (Waiter::Plain(command), Asked::Silent) => {
                    end(cx, command, CallEnd::Unknown, Err(Refusal::RpcTimeout(Action::GetState)));
                }
            }
        }
    }

    fn ask_later(&mut self, cx: &mut Cx<'_>, device: &DeviceId) {
        if let Some(recorder) = self.recorders.get(device)
            && !cx.stopping
            && !planted!(cx.knobs, X10)
        {
            cx.arm(TimerKey::Sync(recorder.link.conn), recorder.confidence.retry_after());
        }
        self.publish_recorder(cx, device, false);
    }

    fn close(&mut self, cx: &mut Cx<'_>, ticket: Ticket) {
        cx.disarm(&TimerKey::Call(ticket));
        let conn = self.waiting.remove(&ticket);
        assert!(conn.is_some(), "I07: call {ticket:?} ends twice");
    }
}

/// Says no to a command that was not sent.
pub(super) fn refuse(cx: &mut Cx<'_>, command: &Command, refusal: Refusal) {
    if let Some(reply) = command.reply {
        cx.reply(reply, Err(refusal));
    }
}

/// A command that was sent has ended.
fn end(cx: &mut Cx<'_>, command: Command, end: CallEnd, answer: Result<Response, Refusal>) {
    let reply = command.reply;
    cx.tell(Fact::CommandEnded { command, end });
    if let Some(reply) = reply {
        cx.reply(reply, answer);
    }
}

fn lost(cx: &mut Cx<'_>, command: Command) {
    let action = command.action;
    end(cx, command, CallEnd::Unknown, Err(Refusal::LinkLost { action }));
}

/// The parameters as devices take them; fills in the task of a `finish` that names none.
fn params(command: &mut Command, known_task: &str) -> Result<Option<String>, Unusable> {
    if command.action == Action::Finish && command.task.is_none() && !known_task.is_empty() {
        command.task = Some(known_task.into());
    }
    match command.action {
        Action::GetState
        | Action::GetStats
        | Action::Pause
        | Action::Resume
        | Action::Clear
        | Action::Quit => Ok(None),
        Action::Config => Ok(command.params.clone()),
        // Callers may name a task by its public id; devices know wire ids only.
        Action::Begin | Action::Finish | Action::Cancel => match &command.task {
            None => Ok(command.params.clone()),
            Some(task) => naming(command.params.as_deref(), task).map(Some),
        },
    }
}

/// What viewers are told when a recorder does not answer in time; the predecessor's words.
const SILENT: &str = "recorder rpc timeout";
