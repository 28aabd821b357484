//! The recorder program of a device, as stock ones behave: what each command does in each state, and what is said of it.
//! Runs one command at a time. Uploads nothing.

mod closing;

use std::time::Duration;

use tidegate_core::id::Role;
use tidegate_core::input::Action;

use super::line::{Dice, Line};
use super::rpc::{Request, Task, action};
use super::{Ask, Callback, Deed, Device, LinkEnd, frame};
use crate::scenario::{Firmware, LocalDeed};
use crate::store::Content;
use crate::time::SimTime;

/// ```text
///        config            begin               pause
/// Idle ---------> Ready ---------> Recording <-------> Paused
///   ^    clear      |                  |      resume      |
///   +---------------+                  |                  |
///   +----------- finish, cancel -------+------------------+
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Idle,
    Ready,
    Recording,
    Paused,
}

impl State {
    pub(super) fn name(self) -> &'static str {
        match self {
            State::Idle => "idle",
            State::Ready => "ready",
            State::Recording => "recording",
            State::Paused => "paused",
        }
    }
}

/// A recording in progress.
#[derive(Clone, Debug)]
struct Session {
    wire: String,
    began: SimTime,
    began_ms: i64,
}

/// What keeps the program from reading.
#[derive(Clone, Debug)]
enum Job {
    /// Closing and hashing; then the answer to this request.
    Finish { request: String },
    /// Closing and hashing, then the end of the program.
    Exit,
}

/// What the program last said and did, which a liar may say again.
#[derive(Clone, Debug, Default)]
pub(super) struct Said {
    /// The latest `get_state` request.
    pub(super) asked: String,
    /// The answer to the latest other request, and its word.
    pub(super) answered: Option<(String, bool)>,
    /// The latest finish callback.
    pub(super) finish: Option<Callback>,
    /// The next `get_state` is answered with nothing in it.
    pub(super) hollow: bool,
}

/// A recorder.
#[derive(Clone, Debug)]
pub struct Recorder {
    pub(super) line: Line,
    pub(super) state: State,
    /// Stays after `finish`; gone after `cancel` and `clear`.
    pub(super) task: Option<Task>,
    session: Option<Session>,
    job: Option<(u64, Job)>,
    /// Somebody asked the program to end while it was busy.
    leaving: bool,
    /// Whether the program runs: it does not between its end and its restart.
    running: bool,
    /// Length and digest of what was closed last.
    closed: Option<Content>,
    /// Numbers wakes; never starts again, so that a stale wake is known.
    wakes: u64,
    /// Recordings ever closed: names contents.
    made: u64,
    pub(super) said: Said,
    blocking: Dice,
    restart: Dice,
}

impl Recorder {
    pub(super) fn new(device: &str, seed: u64) -> Recorder {
        Recorder {
            line: Line::new(Role::Recorder, device, seed),
            state: State::Idle,
            task: None,
            session: None,
            job: None,
            leaving: false,
            running: false,
            closed: None,
            wakes: 0,
            made: 0,
            said: Said::default(),
            blocking: Dice::new(seed, device, "recorder/blocking"),
            restart: Dice::new(seed, device, "recorder/restart"),
        }
    }

    pub(super) fn is_busy(&self) -> bool {
        self.job.is_some()
    }

    /// What it really does, in its own word, and the task it holds; empty if none.
    #[must_use]
    pub fn shows(&self) -> (&'static str, &str) {
        (self.state.name(), self.task.as_ref().map_or("", |task| &task.wire))
    }

    /// What is being recorded.
    pub(super) fn recording(&self) -> Option<&str> {
        self.session.as_ref().map(|session| session.wire.as_str())
    }

    fn task_id(&self) -> Option<&str> {
        self.task.as_ref().map(|task| task.wire.as_str())
    }

    fn state_data(&self) -> &'static str {
        match self.state {
            State::Idle => r#"{"state":"idle"}"#,
            State::Ready => r#"{"state":"ready"}"#,
            State::Recording => r#"{"state":"recording"}"#,
            State::Paused => r#"{"state":"paused"}"#,
        }
    }

    fn task_data(&self) -> String {
        let mut out = String::with_capacity(48);
        out.push('{');
        frame::push_text(&mut out, "state", self.state.name());
        if let Some(task) = self.task_id() {
            frame::push_text(&mut out, "task_id", task);
        }
        out.push('}');
        out
    }

    fn push_counters(&self, out: &mut String, now: SimTime) {
        // Whole numbers: real ones have decimals, and nobody reads them.
        let seconds = self.session.as_ref().map_or(0, |session| (now - session.began).as_secs());
        frame::push_number(out, "bytes_written", seconds << 20);
        frame::push_number(out, "duration_sec", seconds);
        frame::push_number(out, "message_count", seconds * MESSAGES_PER_SECOND);
    }

    fn state_report(&self, now: SimTime, firmware: Firmware) -> String {
        let mut out = String::with_capacity(256);
        out.push('{');
        self.push_counters(&mut out, now);
        frame::push_name(&mut out, "running");
        out.push_str(if self.session.is_some() { "true" } else { "false" });
        frame::push_text(&mut out, "state", self.state.name());
        if self.state != State::Idle
            && let Some(task) = &self.task
        {
            frame::push_name(&mut out, "task_config");
            out.push_str(&task.shown);
        }
        frame::push_text(&mut out, "version", version(firmware));
        out.push('}');
        out
    }

    fn counters(&self, now: SimTime) -> String {
        let mut out = String::with_capacity(256);
        out.push('{');
        self.push_counters(&mut out, now);
        if let Some(closed) = self.closed.as_ref().filter(|_| self.session.is_none()) {
            frame::push_name(&mut out, "metadata");
            out.push('{');
            frame::push_text(&mut out, "checksum_sha256", &closed.sha256().to_string());
            out.push('}');
        }
        frame::push_text(&mut out, "state", self.state.name());
        out.push('}');
        out
    }

    /// Everything the program had in memory is gone.
    fn forget(&mut self) {
        self.state = State::Idle;
        self.task = None;
        self.session = None;
        self.job = None;
        self.leaving = false;
        self.closed = None;
        self.line.stop();
    }
}

/// Why a command had no effect: message, and the member of `data` after the state, as JSON.
struct Refusal {
    message: String,
    errors: Option<String>,
}

fn refuse(message: impl Into<String>) -> Refusal {
    Refusal { message: message.into(), errors: None }
}

impl Device {
    pub(super) fn recorder_start(&mut self, asks: &mut Vec<Ask>) {
        self.recorder.forget();
        self.recorder.running = true;
        self.recorder.line.start(asks);
    }

    /// The program is gone without a word; what it recorded is lost.
    pub(super) fn recorder_die(&mut self, now: SimTime) {
        if let Some(session) = self.recorder.session.take() {
            self.note(now, Deed::Dropped { wire: session.wire });
        }
        self.recorder.forget();
        self.recorder.running = false;
    }

    pub(super) fn recorder_opened(&mut self, now: SimTime, asks: &mut Vec<Ask>) {
        if self.recorder.line.opened(asks) && self.spec.firmware != Firmware::Old {
            self.recorder_report(now, self.recorder.state, asks);
        }
    }

    pub(super) fn recorder_ended(&mut self, end: LinkEnd, asks: &mut Vec<Ask>) {
        let busy = self.recorder.is_busy();
        self.recorder.line.ended(end, busy, asks);
    }

    pub(super) fn recorder_heard(&mut self, now: SimTime, text: &str, asks: &mut Vec<Ask>) {
        if !self.recorder.line.is_up() {
            return;
        }
        if self.recorder.is_busy() {
            self.recorder.line.keep(text);
        } else {
            self.recorder_read(now, text, asks);
        }
    }

    pub(super) fn recorder_redial(&mut self, number: u64, asks: &mut Vec<Ask>) {
        if self.recorder.line.woke(number, asks) {
            self.recorder.running = true;
        }
    }

    pub(super) fn recorder_woke(&mut self, now: SimTime, number: u64, asks: &mut Vec<Ask>) {
        let due = self.recorder.job.as_ref().is_some_and(|(n, _)| *n == number);
        let Some((_, job)) = self.recorder.job.take_if(|_| due) else { return };
        match job {
            Job::Finish { request } => self.finish(now, &request, asks),
            Job::Exit => return self.exit(now, asks),
        }
        while !self.recorder.is_busy()
            && !self.recorder.leaving
            && let Some(text) = self.recorder.line.next_kept()
        {
            self.recorder_read(now, &text, asks);
        }
        if self.recorder.is_busy() {
            return;
        }
        if self.recorder.leaving {
            self.leave(Duration::ZERO, now, asks);
        } else {
            self.recorder.line.settle(asks);
        }
    }

    /// SIGTERM: what is being recorded is closed properly, and nobody is told but by the state.
    pub(super) fn recorder_stop(&mut self, now: SimTime, asks: &mut Vec<Ask>) {
        if !self.recorder.running {
            return;
        }
        if self.recorder.is_busy() {
            self.recorder.leaving = true;
        } else {
            self.leave(Duration::ZERO, now, asks);
        }
    }

    /// Something is said of the state; `previous` is what it was.
    fn recorder_report(&mut self, now: SimTime, previous: State, asks: &mut Vec<Ask>) {
        let at_ms = self.wall(now);
        let recorder = &mut self.recorder;
        let task = recorder.task.as_ref().map(|task| task.wire.as_str());
        let text = frame::state_update(previous.name(), recorder.state.name(), task, at_ms);
        recorder.line.say(text, asks);
    }

    fn go(&mut self, now: SimTime, next: State, asks: &mut Vec<Ask>) {
        let previous = std::mem::replace(&mut self.recorder.state, next);
        self.recorder_report(now, previous, asks);
    }

    /// Somebody works at the device itself: as if told by the site, and nobody is answered.
    pub(super) fn recorder_local(&mut self, now: SimTime, deed: LocalDeed, asks: &mut Vec<Ask>) {
        if self.recorder.is_busy() || !self.recorder.running || self.recorder.leaving {
            return;
        }
        let wire = self.recorder.task_id().unwrap_or_default().to_string();
        match deed {
            LocalDeed::Record if self.recorder.state == State::Idle => {
                self.own += 1;
                let (own, device) = (self.own, &self.id);
                let config =
                    serde_json::json!({ "task_id": format!("own-{own}"), "device_id": device.as_str() });
                let Ok(task) = Task::read(&config) else { return };
                self.recorder.task = Some(task);
                self.go(now, State::Ready, asks);
                let wire = format!("own-{own}");
                let began_ms = self.wall(now);
                self.recorder.session = Some(Session { wire: wire.clone(), began: now, began_ms });
                self.note(now, Deed::Began { wire });
                self.go(now, State::Recording, asks);
            }
            LocalDeed::Finish if matches!(self.recorder.state, State::Recording | State::Paused) => {
                self.block_for_finish(&wire, LOCAL, asks);
            }
            // What comes of it is seen in the state.
            LocalDeed::Cancel => drop(self.cancel(now, asks)),
            LocalDeed::Clear => drop(self.clear(now, asks)),
            LocalDeed::Record | LocalDeed::Finish => {}
        }
    }

    fn answer(&mut self, request: &str, success: bool, message: &str, data: &str, asks: &mut Vec<Ask>) {
        if request == LOCAL {
            return;
        }
        let text = frame::rpc_response(request, success, message, Some(data));
        self.recorder.line.say(text, asks);
    }

    /// Runs one request to its end, or until it blocks.
    fn recorder_read(&mut self, now: SimTime, text: &str, asks: &mut Vec<Ask>) {
        let Some(request) = Request::read(text) else { return };
        let id = request.request_id.as_ref();
        let Some(action) = action(&request.action) else {
            let message = format!("Unknown action: {}", request.action);
            let text = frame::rpc_response(id, false, &message, None);
            return self.recorder.line.say(text, asks);
        };
        let ran = match action {
            Action::GetState => return self.tell_state(now, id, asks),
            Action::GetStats => {
                let data = self.recorder.counters(now);
                return self.answer(id, true, "Statistics retrieved successfully", &data, asks);
            }
            Action::Config => self.configure(now, &request, asks),
            Action::Begin => self.begin(now, &request, asks),
            Action::Pause => {
                let must = "Must be in RECORDING state.";
                self.turn(now, &[State::Recording], State::Paused, "pause recording", must, asks)
                    .map(|()| (self.recorder.state_data().to_string(), "Recording paused successfully"))
            }
            Action::Resume => {
                let must = "Must be in PAUSED state.";
                self.turn(now, &[State::Paused], State::Recording, "resume recording", must, asks)
                    .map(|()| (self.recorder.state_data().to_string(), "Recording resumed successfully"))
            }
            Action::Finish => match self.may_finish(&request) {
                Ok(wire) => return self.block_for_finish(&wire, id, asks),
                Err(refusal) => Err(refusal),
            },
            Action::Cancel => self.cancel(now, asks),
            Action::Clear => self.clear(now, asks),
            Action::Quit => {
                // Said before it is true: the recording is closed within the second that follows.
                let data = self.recorder.state_data();
                self.answer(id, true, "Program quitting. Recording stopped and data saved.", data, asks);
                self.ran(now, action, None, true);
                self.recorder.said.answered = Some((id.to_string(), true));
                let winds_down = self.recorder.blocking.roll().duration(Duration::ZERO, QUIT_MAX);
                return self.leave(winds_down, now, asks);
            }
        };
        let wire = match action {
            Action::Config => request.config().and_then(|config| config.get("task_id")?.as_str()),
            _ => request.task(),
        };
        self.ran(now, action, wire, ran.is_ok());
        self.recorder.said.answered = Some((id.to_string(), ran.is_ok()));
        match ran {
            Ok((data, message)) => self.answer(id, true, message, &data, asks),
            Err(Refusal { message, errors: None }) => {
                let data = self.recorder.state_data();
                self.answer(id, false, &message, data, asks);
            }
            Err(Refusal { message, errors: Some(errors) }) => {
                let state = self.recorder.state.name();
                let data = format!("{{\"state\":\"{state}\",\"validation_errors\":{errors}}}");
                self.answer(id, false, &message, &data, asks);
            }
        }
    }

    fn ran(&mut self, now: SimTime, action: Action, wire: Option<&str>, effective: bool) {
        self.note(now, Deed::Ran { action, wire: wire.map(str::to_string), effective });
    }

    fn tell_state(&mut self, now: SimTime, id: &str, asks: &mut Vec<Ask>) {
        self.recorder.said.asked.clear();
        self.recorder.said.asked.push_str(id);
        if std::mem::take(&mut self.recorder.said.hollow) {
            let text = frame::rpc_response(id, true, "State retrieved successfully", None);
            return self.recorder.line.say(text, asks);
        }
        if self.sulks(Role::Recorder) {
            return self.answer(id, false, "State not available", "{}", asks);
        }
        let data = self.recorder.state_report(now, self.spec.firmware);
        self.answer(id, true, "State retrieved successfully", &data, asks);
    }

    fn configure(&mut self, now: SimTime, request: &Request<'_>, asks: &mut Vec<Ask>) -> Outcome {
        let must = "Finish or cancel the active recording first.";
        self.expect(&[State::Idle, State::Ready], "set task configuration", must)?;
        let config = request.config().ok_or_else(|| refuse("Missing required parameter: task_config"))?;
        let task = Task::read(config).map_err(|errors| Refusal {
            message: "Task configuration validation failed".to_string(),
            errors: Some(errors),
        })?;
        if self.spec.firmware != Firmware::Old {
            let at_ms = self.wall(now);
            let text =
                format!("{{\"data\":{},\"timestamp\":{at_ms},\"type\":\"config_applied\"}}", task.shown);
            self.recorder.line.say(text, asks);
        }
        self.note(now, Deed::Configured { wire: task.wire.clone() });
        self.recorder.task = Some(task);
        if self.recorder.state == State::Idle {
            self.go(now, State::Ready, asks);
        }
        Ok((self.recorder.task_data(), "Task configuration set successfully"))
    }

    fn begin(&mut self, now: SimTime, request: &Request<'_>, asks: &mut Vec<Ask>) -> Outcome {
        let wire = self.named(request)?.wire.clone();
        self.expect(&[State::Ready], "start recording", "Must be in READY state.")?;
        // The file of an earlier recording under this id is cut to nothing.
        if self.files.remove(&wire).is_some() {
            self.note(now, Deed::Dropped { wire: wire.clone() });
        }
        let began_ms = self.wall(now);
        self.recorder.session = Some(Session { wire: wire.clone(), began: now, began_ms });
        self.note(now, Deed::Began { wire });
        self.go(now, State::Recording, asks);
        if let Some(task) = self.recorder.task.as_ref().filter(|task| task.start_callback) {
            asks.push(Ask::Post(Callback {
                finish: false,
                task: task.wire.clone(),
                device: task.device.clone(),
                len: None,
                started_ms: Some(began_ms),
            }));
        }
        Ok((self.recorder.task_data(), "Recording started successfully"))
    }

    fn turn(
        &mut self,
        now: SimTime,
        from: &[State],
        to: State,
        what: &str,
        must: &str,
        asks: &mut Vec<Ask>,
    ) -> Result<(), Refusal> {
        self.expect(from, what, must)?;
        self.go(now, to, asks);
        Ok(())
    }

    fn cancel(&mut self, now: SimTime, asks: &mut Vec<Ask>) -> Outcome {
        let must = "Must be in RECORDING or PAUSED state.";
        self.expect(&[State::Recording, State::Paused], "cancel recording", must)?;
        if let Some(session) = self.recorder.session.take() {
            self.note(now, Deed::Dropped { wire: session.wire });
        }
        // Its own transition still names the task.
        self.go(now, State::Idle, asks);
        self.recorder.task = None;
        Ok((self.recorder.state_data().to_string(), "Recording cancelled successfully"))
    }

    fn clear(&mut self, now: SimTime, asks: &mut Vec<Ask>) -> Outcome {
        self.expect(&[State::Ready], "clear task configuration", "Must be in READY state.")?;
        self.recorder.task = None;
        self.go(now, State::Idle, asks);
        Ok((self.recorder.state_data().to_string(), "Configuration cleared successfully"))
    }

    fn may_finish(&self, request: &Request<'_>) -> Result<String, Refusal> {
        let wire = self.named(request)?.wire.clone();
        let must = "Must be in RECORDING or PAUSED state.";
        self.expect(&[State::Recording, State::Paused], "finish recording", must)?;
        Ok(wire)
    }

    /// The cached task, if the request names it.
    fn named(&self, request: &Request<'_>) -> Result<&Task, Refusal> {
        let named = request.task().ok_or_else(|| refuse("Missing required parameter: task_id"))?;
        let task = self.recorder.task.as_ref();
        let task = task.ok_or_else(|| refuse("No task configuration cached. Call /rpc/config first."))?;
        if task.wire != named {
            let expected = &task.wire;
            return Err(refuse(format!("task_id mismatch: expected '{expected}' but got '{named}'")));
        }
        Ok(task)
    }

    fn expect(&self, allowed: &[State], what: &str, must: &str) -> Result<(), Refusal> {
        let state = self.recorder.state;
        if allowed.contains(&state) {
            return Ok(());
        }
        Err(refuse(format!("Cannot {what} from state: {}. {must}", state.name())))
    }
}

/// Data as JSON, and a message.
type Outcome = Result<(String, &'static str), Refusal>;

fn version(firmware: Firmware) -> &'static str {
    match firmware {
        Firmware::Old => "0.3.0",
        Firmware::Middle | Firmware::New => "0.4.0",
    }
}

/// SHA-256 on a small computer: 400 MB/s.
pub(super) const HASHED_PER_MICROSECOND: u64 = 400;
const MESSAGES_PER_SECOND: u64 = 20;
/// The request of somebody at the device itself, who is not answered.
const LOCAL: &str = "local";
/// Within how long a program ends that was told to quit.
const QUIT_MAX: Duration = Duration::from_secs(1);
