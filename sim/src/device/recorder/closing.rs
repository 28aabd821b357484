//! What blocks a recorder: closing a recording with its sidecar, with or without the end of the program.

use std::time::Duration;

use tidegate_core::id::Role;
use tidegate_core::input::Action;
use tidegate_core::object::SidecarFacts;
use tidegate_core::time::Wall;

use super::super::{Ask, Callback, Deed, Device, File, Script, Wake};
use super::{HASHED_PER_MICROSECOND, Job, MESSAGES_PER_SECOND, Session, State, version};
use crate::scenario::Firmware;
use crate::store::Content;
use crate::stream::Stream;
use crate::time::SimTime;

impl Device {
    /// Nothing else is read and no ping answered until the file is closed and hashed.
    pub(super) fn block_for_finish(&mut self, wire: &str, id: &str, asks: &mut Vec<Ask>) {
        let bytes = self.script(wire).bytes;
        let takes = closing(&mut self.recorder.blocking.roll(), bytes);
        self.recorder_block(Job::Finish { request: id.to_string() }, takes, asks);
    }

    fn recorder_block(&mut self, job: Job, takes: Duration, asks: &mut Vec<Ask>) {
        self.recorder.wakes += 1;
        self.recorder.job = Some((self.recorder.wakes, job));
        asks.push(Ask::Wake(Wake::Recorder(self.recorder.wakes), takes));
    }

    pub(super) fn finish(&mut self, now: SimTime, request: &str, asks: &mut Vec<Ask>) {
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
    pub(super) fn leave(&mut self, at_least: Duration, now: SimTime, asks: &mut Vec<Ask>) {
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

    pub(super) fn exit(&mut self, now: SimTime, asks: &mut Vec<Ask>) {
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

    /// How the recording under this id is to be: as the scenario says of its task, else anything.
    pub(in crate::device) fn script(&self, wire: &str) -> Script {
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
    fn content_id(&self, n: u64) -> u64 {
        ((self.index as u64 + 1) << 32) | (n << 1)
    }

    /// Content that no file of this device has; of another lie, other content.
    pub(in crate::device) fn other_content(&self, len: u64) -> Content {
        // Far from the numbers of recordings: a lie taken away renames none of them.
        Content { id: self.content_id((1 << 30) + self.lies), len, facts: None }
    }
}

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

/// How long what watches over the program waits before it starts it again.
const RESTART_MIN: Duration = Duration::from_secs(1);
const RESTART_MAX: Duration = Duration::from_secs(5);
