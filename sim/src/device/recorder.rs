//! The recorder program of a device, as stock ones behave: what each command does in each state, and what is said of it.
//! Runs one command at a time. Uploads nothing.

use std::time::Duration;

use tidegate_core::id::Role;
use tidegate_core::input::Action;
use tidegate_core::object::SidecarFacts;
use tidegate_core::time::Wall;

use super::line::{Dice, Line};
use super::rpc::{Request, Task, action};
use super::{Ask, Callback, Deed, Device, File, LinkEnd, Script, Wake, frame};
use crate::scenario::Firmware;
use crate::store::Content;
use crate::stream::Stream;
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

    fn answer(&mut self, request: &str, success: bool, message: &str, data: &str, asks: &mut Vec<Ask>) {
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

    /// Nothing else is read and no ping answered until the file is closed and hashed.
    fn block_for_finish(&mut self, wire: &str, id: &str, asks: &mut Vec<Ask>) {
        let bytes = self.script(wire).bytes;
        let takes = closing(&mut self.recorder.blocking.roll(), bytes);
        self.recorder_block(Job::Finish { request: id.to_string() }, takes, asks);
    }

    fn recorder_block(&mut self, job: Job, takes: Duration, asks: &mut Vec<Ask>) {
        self.recorder.wakes += 1;
        self.recorder.job = Some((self.recorder.wakes, job));
        asks.push(Ask::Wake(Wake::Recorder(self.recorder.wakes), takes));
    }

    fn finish(&mut self, now: SimTime, request: &str, asks: &mut Vec<Ask>) {
        let Some((wire, began_ms, bytes)) = self.close(now) else { return };
        self.go(now, State::Idle, asks);
        if let Some(task) = self.recorder.task.as_ref().filter(|task| task.finish_callback) {
            let callback = Callback {
                finish: true,
                task: task.wire.clone(),
                device: task.device.clone(),
                len: Some(bytes),
                started_ms: Some(began_ms),
            };
            self.recorder.said.finish = Some(callback.clone());
            asks.push(Ask::Post(callback));
        }
        self.ran(now, Action::Finish, Some(&wire), true);
        self.recorder.said.answered = Some((request.to_string(), true));
        let data = self.recorder.task_data();
        self.answer(request, true, "Recording finished successfully", &data, asks);
    }

    /// The file is whole: file, sidecar and marker are there from now on.
    fn close(&mut self, now: SimTime) -> Option<(String, i64, u64)> {
        let Session { wire, began, began_ms } = self.recorder.session.take()?;
        let script = self.script(&wire);
        self.recorder.made += 1;
        let id = self.content_id(self.recorder.made);
        let content = Content { id, len: script.bytes, facts: None };
        let lasted = now - began;
        let facts = SidecarFacts {
            sha256: Some(content.sha256()),
            len: Some(script.bytes),
            // Pauses count: the sidecar differs from the callback in this.
            duration_ms: u64::try_from(lasted.as_millis()).ok(),
            messages: Some(lasted.as_secs() * MESSAGES_PER_SECOND),
            started_at: Some(Wall(began_ms)),
            recorder_version: Some(version(self.spec.firmware).to_string()),
        };
        // The oldest always write one.
        let bare = script.bare && self.spec.firmware != Firmware::Old;
        let sidecar = (!bare).then(|| Content { id: id + 1, len: 1200 + id % 800, facts: Some(facts) });
        self.recorder.closed = Some(content.clone());
        let file = File { content: content.clone(), sidecar: sidecar.clone() };
        self.files.insert(wire.clone(), file);
        self.note(now, Deed::Finished { wire: wire.clone(), content, sidecar });
        Some((wire, began_ms, script.bytes))
    }

    /// The program winds down, closes what it records, and ends.
    fn leave(&mut self, at_least: Duration, now: SimTime, asks: &mut Vec<Ask>) {
        let closing = match self.recorder.recording() {
            Some(wire) => {
                let bytes = self.script(wire).bytes;
                closing(&mut self.recorder.blocking.roll(), bytes)
            }
            None => Duration::ZERO,
        };
        let takes = at_least + closing;
        if takes.is_zero() {
            self.exit(now, asks);
        } else {
            self.recorder_block(Job::Exit, takes, asks);
        }
    }

    fn exit(&mut self, now: SimTime, asks: &mut Vec<Ask>) {
        if self.close(now).is_some() {
            self.go(now, State::Idle, asks);
        }
        if self.recorder.line.is_up() {
            asks.push(Ask::Close(Role::Recorder));
        }
        self.recorder.forget();
        self.recorder.running = false;
        let pause = self.recorder.restart.roll().duration(RESTART_MIN, RESTART_MAX);
        self.recorder.line.start_after(pause, asks);
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

    /// How the recording under this id is to be: as the scenario says of its task, else anything.
    pub(super) fn script(&self, wire: &str) -> Script {
        let task = || {
            let (task, attempt) = wire.rsplit_once('.')?;
            let counted = !attempt.is_empty() && attempt.bytes().all(|b| b.is_ascii_digit());
            self.scripts.get(task).filter(|_| counted)
        };
        if let Some(script) = self.scripts.get(wire).or_else(task) {
            return script.clone();
        }
        let name = format!("device/{}/script/{wire}", self.id);
        Script { bytes: Stream::new(self.seed, &name, 0).between(1, 20 << 20), bare: false }
    }

    /// Names a file's bytes: the device's number keeps devices apart, and the number after it is the sidecar's.
    pub(super) fn content_id(&self, n: u64) -> u64 {
        ((self.index as u64 + 1) << 32) | (n << 1)
    }

    /// Content that no file of this device has.
    pub(super) fn other_content(&mut self, len: u64) -> Content {
        self.recorder.made += 1;
        Content { id: self.content_id(self.recorder.made), len, facts: None }
    }
}

/// Data as JSON, and a message.
type Outcome = Result<(String, &'static str), Refusal>;

/// How long closing and hashing takes: mostly short, now and then so long that whoever waits gives up.
fn closing(dice: &mut Stream, bytes: u64) -> Duration {
    let hashing = Duration::from_micros(bytes / HASHED_PER_MICROSECOND);
    let usual = dice.duration(Duration::from_millis(20), Duration::from_millis(250));
    let slow = match dice.one_in(25) {
        true => dice.duration(Duration::from_secs(1), Duration::from_secs(20)),
        false => Duration::ZERO,
    };
    hashing + usual + slow
}

fn version(firmware: Firmware) -> &'static str {
    match firmware {
        Firmware::Old => "0.3.0",
        Firmware::Middle | Firmware::New => "0.4.0",
    }
}

/// SHA-256 on a small computer: 400 MB/s.
pub(super) const HASHED_PER_MICROSECOND: u64 = 400;
const MESSAGES_PER_SECOND: u64 = 20;
/// Within how long a program ends that was told to quit.
const QUIT_MAX: Duration = Duration::from_secs(1);
/// How long what watches over the program waits before it starts it again.
const RESTART_MIN: Duration = Duration::from_secs(1);
const RESTART_MAX: Duration = Duration::from_secs(5);
