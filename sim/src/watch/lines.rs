//! What a patient observer of one site's links knows: which are current, which commands wait on them, and how far their
//! recorders may be believed. Written from docs/protocol.md with tables of its own; judges nothing.
//!
//! Belief is not a state machine here but three marks in time: a report counts if what grounds it is younger than the
//! last failed question and the last doubt. What grounds it is an answer, or a greeting if the first question fails.

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use tidegate_core::fact::Reported;
use tidegate_core::id::{ConnId, DeviceId, Role};
use tidegate_core::input::{Action, Input};
use tidegate_core::time::Mono;
use tidegate_core::wire::RecorderMessage;

use super::Seen;

/// A command on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rpc {
    /// Its id.
    pub id: String,
    /// Which.
    pub action: Action,
    /// The task that its parameters name.
    pub task: Option<String>,
}

impl Rpc {
    /// Reads a frame for a recorder.
    pub(super) fn read(frame: &str) -> Option<Rpc> {
        let map: Map<String, Value> = serde_json::from_str(frame).ok()?;
        let text = |field: &str| map.get(field).and_then(Value::as_str);
        if text("type") != Some("rpc_request") {
            return None;
        }
        let word = text("action")?;
        let action = Action::ALL.into_iter().find(|action| action.name() == word)?;
        let params = map.get("params").and_then(Value::as_object);
        let config = params.and_then(|params| params.get("task_config")).and_then(Value::as_object);
        let named = params.and_then(|p| p.get("task_id")).or(config.and_then(|c| c.get("task_id")));
        let task = named.and_then(Value::as_str).map(String::from);
        Some(Rpc { id: text("request_id")?.to_string(), action, task })
    }
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The device answered.
    Answered {
        /// Its word.
        success: bool,
    },
    /// Its deadline passed: unknown.
    TimedOut,
    /// Its link was lost or replaced: unknown.
    Lost,
    /// The site stops: unknown.
    Stopped,
}

/// A command that ended in this step.
#[derive(Clone, Debug)]
pub(super) struct Ended {
    /// Whose.
    pub device: DeviceId,
    /// Which.
    pub rpc: Rpc,
    /// How.
    pub end: End,
    /// When, in the order of events.
    pub event: u64,
}

/// Which task a report names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Holds {
    /// None, or its state holds none.
    Nothing,
    /// This one.
    Task(String),
    /// One that it did not name and need not: an answer to a command.
    Unsaid,
}

/// The last usable report of a link.
#[derive(Clone, Debug)]
pub(super) struct Report {
    /// What it does.
    pub state: Reported,
    /// With which task.
    pub holds: Holds,
    /// When.
    pub at: Mono,
}

/// Three marks in time, each an event number; 0 is never.
#[derive(Clone, Debug, Default)]
struct Belief {
    /// A push that said that nothing changed, before the first question ended.
    greeted: u64,
    grounded: u64,
    failed: u64,
    doubted: u64,
    pushed_ms: Option<i64>,
    report: Option<Report>,
}

impl Belief {
    fn counts(&self) -> bool {
        self.grounded > self.failed.max(self.doubted)
    }

    /// Something well-formed came that is no answer to `get_state`: it grounds a belief only if asking failed last.
    fn support(&mut self, event: u64) {
        if self.counts() || self.failed > self.doubted.max(self.grounded) {
            self.grounded = event;
        }
    }

    /// Something came that names no state, or not its task: what was asked already stays asked.
    fn blemish(&mut self, event: u64) {
        self.greeted = 0;
        if self.counts() {
            self.doubted = event;
        }
    }

    /// A recorder says what it does, and that this is nothing new: it does so when it connects.
    fn greet(&mut self, event: u64) {
        if self.grounded == 0 && self.failed == 0 {
            self.greeted = event;
        }
    }

    /// The question was refused or not answered. True if the greeting stands instead.
    fn fail(&mut self, event: u64) -> bool {
        let greeted = std::mem::take(&mut self.greeted) > 0;
        *(if greeted { &mut self.grounded } else { &mut self.failed }) = event;
        greeted
    }

    fn doubt(&mut self, event: u64) {
        self.greeted = 0;
        self.doubted = event;
    }
}

/// A current link.
#[derive(Clone, Debug)]
pub(super) struct Line {
    /// Whose.
    pub device: DeviceId,
    /// Which program.
    pub role: Role,
    /// Commands that wait, by id: when each was sent, as the key of its deadline.
    calls: BTreeMap<String, (Rpc, (Mono, u64))>,
    belief: Belief,
}

impl Line {
    /// Commands that wait for their answer.
    pub(super) fn calls(&self) -> impl ExactSizeIterator<Item = &Rpc> {
        self.calls.values().map(|(rpc, _)| rpc)
    }

    /// Whether the recorder's report may be acted on, its age aside.
    pub(super) fn counts(&self) -> bool {
        self.belief.counts()
    }

    /// Its last usable report, believed or not.
    pub(super) fn report(&self) -> Option<&Report> {
        self.belief.report.as_ref()
    }
}

/// What an input is, seen from the links.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// It is of a link that is not current, or not of that program.
    Superseded,
    /// It answers nothing that waits on its link.
    Unmatched,
    /// It is a push that is older than one before.
    Older,
    /// It is a push or an answer to `get_state` that names no state, or not the task its state needs.
    Useless,
    /// It is no report and moves nothing: counters, a word we do not know.
    Nothing,
    /// It is the usable answer to this link's `get_state`.
    Told,
    /// Anything else.
    Plain,
}

/// The links of one site, since its boot.
#[derive(Debug, Default)]
pub(super) struct Lines {
    lines: BTreeMap<ConnId, Line>,
    recorders: BTreeMap<DeviceId, ConnId>,
    transfers: BTreeMap<DeviceId, ConnId>,
    due: BTreeMap<(Mono, u64), (ConnId, String)>,
    events: u64,
    /// Whether the site stops.
    pub stopping: bool,
    /// Commands that ended in this step.
    pub ended: Vec<Ended>,
    /// Devices whose recorder link, its report or its commands were touched in this step; may repeat.
    pub touched: Vec<DeviceId>,
    /// Links whose greeting counts since this step, because their first question failed.
    pub greeted: Vec<ConnId>,
}

impl Lines {
    /// A current link.
    pub(super) fn get(&self, conn: ConnId) -> Option<&Line> {
        self.lines.get(&conn)
    }

    /// The current link of a device's program.
    pub(super) fn current(&self, device: &DeviceId, role: Role) -> Option<ConnId> {
        self.of(role).get(device).copied()
    }

    /// The current recorder link of a device.
    pub(super) fn recorder(&self, device: &DeviceId) -> Option<&Line> {
        self.recorders.get(device).and_then(|conn| self.lines.get(conn))
    }

    /// Current links of a role.
    pub(super) fn count(&self, role: Role) -> usize {
        self.of(role).len()
    }

    /// The first deadline of a command that waits.
    pub(super) fn first_deadline(&self) -> Option<Mono> {
        self.due.first_key_value().map(|((at, _), _)| *at)
    }

    fn of(&self, role: Role) -> &BTreeMap<DeviceId, ConnId> {
        match role {
            Role::Recorder => &self.recorders,
            Role::Transfer => &self.transfers,
        }
    }

    /// Takes what an input alone tells. Comes first in a step.
    pub(super) fn input(&mut self, seen: &Seen<'_>) -> Heard {
        self.ended.clear();
        self.touched.clear();
        self.greeted.clear();
        match seen.input {
            Input::Boot { .. } => {
                *self = Lines::default();
                Heard::Plain
            }
            Input::Wake => {
                self.expire(seen.now.mono);
                Heard::Plain
            }
            Input::Recorder { conn, message } => match self.lines.get(conn) {
                Some(line) if line.role == Role::Recorder => {
                    self.recorder_said(*conn, message, seen.now.mono)
                }
                Some(_) | None => Heard::Superseded,
            },
            Input::Transfer { conn, .. } => match self.lines.get(conn) {
                Some(line) if line.role == Role::Transfer => Heard::Plain,
                Some(_) | None => Heard::Superseded,
            },
            Input::Lost { conn, .. } => {
                let Some(line) = self.lines.get(conn) else { return Heard::Superseded };
                let (device, role) = (line.device.clone(), line.role);
                match role {
                    Role::Recorder => self.recorders.remove(&device),
                    Role::Transfer => self.transfers.remove(&device),
                };
                self.drop_line(*conn);
                Heard::Plain
            }
            Input::Shutdown => {
                self.stopping = true;
                let recorders: Vec<ConnId> = self.recorders.values().copied().collect();
                for conn in recorders {
                    self.end_all(conn, End::Stopped);
                }
                Heard::Plain
            }
            // A run in which the core panics ends there.
            Input::Quarantined { .. } => Heard::Plain,
            Input::Knock { .. }
            | Input::Request { .. }
            | Input::Object { .. }
            | Input::Space { .. }
            | Input::Policy { .. }
            | Input::Surroundings(_)
            | Input::Stored { .. } => Heard::Plain,
        }
    }

    /// A link was admitted. Returns the one that it replaced.
    pub(super) fn admit(&mut self, conn: ConnId, device: &DeviceId, role: Role) -> Option<ConnId> {
        let links = match role {
            Role::Recorder => &mut self.recorders,
            Role::Transfer => &mut self.transfers,
        };
        let old = links.insert(device.clone(), conn);
        if let Some(old) = old {
            self.drop_line(old);
        }
        if role == Role::Recorder {
            self.touched.push(device.clone());
        }
        let line = Line { device: device.clone(), role, calls: BTreeMap::new(), belief: Belief::default() };
        self.lines.insert(conn, line);
        old
    }

    /// A command leaves on a link; one on a link that is not current is nobody's.
    pub(super) fn sent(&mut self, conn: ConnId, rpc: Rpc, deadline: Mono) {
        let event = self.event();
        let Some(line) = self.lines.get_mut(&conn) else { return };
        self.touched.push(line.device.clone());
        let key = (deadline, event);
        self.due.insert(key, (conn, rpc.id.clone()));
        line.calls.insert(rpc.id.clone(), (rpc, key));
    }

    fn event(&mut self) -> u64 {
        self.events += 1;
        self.events
    }

    fn drop_line(&mut self, conn: ConnId) {
        self.end_all(conn, End::Lost);
        if let Some(line) = self.lines.remove(&conn).filter(|line| line.role == Role::Recorder) {
            self.touched.push(line.device);
        }
    }

    fn end_all(&mut self, conn: ConnId, end: End) {
        let Some(line) = self.lines.get(&conn) else { return };
        let ids: Vec<String> = line.calls.keys().cloned().collect();
        for id in ids {
            self.end(conn, &id, end);
        }
    }

    fn end(&mut self, conn: ConnId, id: &str, end: End) -> Option<(Rpc, u64)> {
        let line = self.lines.get_mut(&conn)?;
        let (rpc, key) = line.calls.remove(id)?;
        let device = line.device.clone();
        self.due.remove(&key);
        let event = self.event();
        self.touched.push(device.clone());
        self.ended.push(Ended { device, rpc: rpc.clone(), end, event });
        Some((rpc, event))
    }

    fn expire(&mut self, now: Mono) {
        while let Some(first) = self.due.first_entry().filter(|first| first.key().0 <= now) {
            let (conn, id) = first.remove();
            let Some((rpc, event)) = self.end(conn, &id, End::TimedOut) else { continue };
            let Some(line) = self.lines.get_mut(&conn) else { continue };
            match rpc.action {
                Action::GetState => {
                    if line.belief.fail(event) {
                        self.greeted.push(conn);
                    }
                }
                // Counters change nothing: whether they were read says nothing of the state.
                Action::GetStats => {}
                Action::Config
                | Action::Begin
                | Action::Finish
                | Action::Pause
                | Action::Resume
                | Action::Cancel
                | Action::Clear
                | Action::Quit => line.belief.doubt(event),
            }
        }
    }

    fn recorder_said(&mut self, conn: ConnId, message: &RecorderMessage, now: Mono) -> Heard {
        match message {
            RecorderMessage::StateUpdate { timestamp_ms, previous, current, task } => {
                let event = self.event();
                let Some(line) = self.lines.get_mut(&conn) else { return Heard::Superseded };
                self.touched.push(line.device.clone());
                let belief = &mut line.belief;
                if timestamp_ms.zip(belief.pushed_ms).is_some_and(|(this, last)| this < last) {
                    return Heard::Older;
                }
                let Some((state, holds)) = usable(current.as_deref(), task.as_deref()) else {
                    belief.blemish(event);
                    return Heard::Useless;
                };
                belief.pushed_ms = timestamp_ms.or(belief.pushed_ms);
                belief.report = Some(Report { state, holds, at: now });
                belief.support(event);
                let same = |word: &String| {
                    current.as_ref().is_some_and(|now| now.trim().eq_ignore_ascii_case(word.trim()))
                };
                if previous.as_ref().is_some_and(same) {
                    belief.greet(event);
                }
                Heard::Plain
            }
            RecorderMessage::Response { request_id, success, state, task, .. } => {
                let end = End::Answered { success: *success };
                let Some((rpc, event)) = self.end(conn, request_id, end) else { return Heard::Unmatched };
                let Some(line) = self.lines.get_mut(&conn) else { return Heard::Superseded };
                if rpc.action == Action::GetState && !success && line.belief.fail(event) {
                    self.greeted.push(conn);
                    return Heard::Plain;
                }
                let state = state.as_deref().filter(|_| *success);
                line.belief.answered(&rpc, state, task.as_deref(), now, event)
            }
            RecorderMessage::ConfigApplied { .. } => Heard::Plain,
            RecorderMessage::Other(_) => Heard::Nothing,
        }
    }
}

impl Belief {
    fn answered(
        &mut self,
        rpc: &Rpc,
        state: Option<&str>,
        task: Option<&str>,
        now: Mono,
        event: u64,
    ) -> Heard {
        match rpc.action {
            Action::GetState => {
                self.greeted = 0;
                let Some((state, holds)) = usable(state, task) else {
                    self.failed = event;
                    return Heard::Useless;
                };
                self.report = Some(Report { state, holds, at: now });
                self.grounded = event;
                Heard::Told
            }
            Action::GetStats => Heard::Nothing,
            Action::Config
            | Action::Begin
            | Action::Finish
            | Action::Pause
            | Action::Resume
            | Action::Cancel
            | Action::Clear
            | Action::Quit => {
                let Some(word) = state.filter(|word| !word.trim().is_empty()) else { return Heard::Plain };
                let state = Reported::of(word);
                let holds = match task.or(rpc.task.as_deref()) {
                    _ if !state.holds_task() => Holds::Nothing,
                    Some(task) => Holds::Task(task.to_string()),
                    None => Holds::Unsaid,
                };
                self.report = Some(Report { state, holds, at: now });
                self.support(event);
                Heard::Plain
            }
        }
    }
}

/// A state and its task as a push or the answer to `get_state` must name them: idle never carries a task, and what
/// holds a task must name it.
fn usable(state: Option<&str>, task: Option<&str>) -> Option<(Reported, Holds)> {
    let state = Reported::of(state.filter(|word| !word.trim().is_empty())?);
    match task {
        _ if !state.holds_task() => Some((state, Holds::Nothing)),
        Some(task) => Some((state, Holds::Task(task.to_string()))),
        None => None,
    }
}
