//! What happens to a site: mostly what makes sense, a share of everything else. An operation is three small numbers, so
//! that a failing sequence shrinks by dropping operations and lowering numbers.

use std::format;
use std::prelude::v1::*;
use std::vec;

use super::fleet::{Callback, Doing};
use super::stores::Content;
use super::watch::{episodes, tasks};
use super::world::{Doom, World};
use crate::chance::Chance;
use crate::digest::Sha256;
use crate::id::{Boot, ConnId, DeviceId, EpisodeId, ObjectKey, Role, TaskId, Ticket, UploadId};
use crate::input::{Action, Command, Input, LostWhy, Request, Resolve, RosterRequest, TransferAsk};
use crate::object::{ObjectReply, Store, Verb};
use crate::outcome::{Budget, Fault, Outcome, What};
use crate::policy::{Known, LinkKind, Power, Surroundings};
use crate::refusal::Broken;
use crate::row::{Key, Qa, RecordingFacts, Row, SyncMark, TaskState};
use crate::time::Wall;
use crate::wire::transfer::{Announced, Status, UploadEntry, UploadStatus};
use crate::wire::{RecorderMessage, TransferMessage};

/// What kind of thing happens. The order is that of shrinking: the plainest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A device, its site's operator and its uploader do the next sensible thing.
    Forward,
    /// A store answers, truthfully, in order.
    Answer,
    /// Time passes until the next deadline.
    Sleep,
    /// A store answers in some other way.
    Misanswer,
    /// An outcome comes again, or of an earlier boot, or of no operation.
    LateOutcome,
    /// A request nobody waits for reaches its store.
    Land,
    /// Time passes, and somebody wakes us too early.
    Tick,
    /// The wall clock is set.
    StepWall,
    /// A device comes again while its link is up.
    Knock,
    /// A link is lost.
    Lose,
    /// A recorder says something.
    Recorder,
    /// A recorder answers a command in some way.
    AnswerRpc,
    /// An uploader says something.
    Uploader,
    /// Somebody asks something over HTTP.
    Ask,
    /// A command over HTTP.
    Order,
    /// The edge store says something.
    Stored,
    /// A third party changes a store.
    Tamper,
    /// The process dies.
    Crash,
    /// The process is asked to stop, or starts with other settings.
    Stop,
}

/// Weights of the kinds, in 256ths, in their order.
const WEIGHTS: [(Kind, u32); 19] = [
    (Kind::Forward, 84),
    (Kind::Answer, 62),
    (Kind::Sleep, 20),
    (Kind::Misanswer, 14),
    (Kind::LateOutcome, 6),
    (Kind::Land, 4),
    (Kind::Tick, 4),
    (Kind::StepWall, 3),
    (Kind::Knock, 4),
    (Kind::Lose, 5),
    (Kind::Recorder, 9),
    (Kind::AnswerRpc, 8),
    (Kind::Uploader, 8),
    (Kind::Ask, 8),
    (Kind::Order, 7),
    (Kind::Stored, 2),
    (Kind::Tamper, 2),
    (Kind::Crash, 5),
    (Kind::Stop, 1),
];

/// One thing that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Op {
    pub(super) what: Kind,
    pub(super) a: u8,
    pub(super) b: u8,
}

impl Op {
    /// Reads three small numbers.
    pub(super) fn of(code: u8, a: u8, b: u8) -> Op {
        let mut left = u32::from(code);
        for (what, weight) in WEIGHTS {
            if left < weight {
                return Op { what, a, b };
            }
            left -= weight;
        }
        Op { what: Kind::Forward, a, b }
    }

    /// A sequence that follows from a seed.
    pub(super) fn sequence(seed: u64, len: usize) -> Vec<Op> {
        let mut luck = Chance::new(seed ^ 0xC0FF_EE00_D15E_A5E5);
        let mut ops = Vec::new();
        for _ in 0..len {
            let n = luck.next_u64().to_le_bytes();
            ops.push(Op::of(n[0], n[1], n[2]));
        }
        ops
    }
}

fn pick<T: Clone>(from: &[T], n: u8) -> Option<T> {
    if from.is_empty() { None } else { Some(from[usize::from(n) % from.len()].clone()) }
}

impl World {
    /// Starts the site, lets it all happen.
    pub(super) fn live(&mut self, ops: &[Op]) -> Result<(), Broken> {
        self.restart()?;
        for (n, op) in ops.iter().enumerate() {
            self.say(|| format!("-- {n}: {op:?}"));
            self.act(*op)?;
        }
        Ok(())
    }

    /// One thing happens.
    pub(super) fn act(&mut self, op: Op) -> Result<(), Broken> {
        let Op { what, a, b } = op;
        self.pass(1 + u64::from(b % 7) * 11);
        match what {
            Kind::Forward if b % 16 == 9 => self.somebody_swaps(a, b / 16 + a % 16),
            Kind::Forward => self.forward(usize::from(a) % self.fleet.len()),
            Kind::Answer if a.is_multiple_of(4) && !self.policy_ops.is_empty() => self.answer_policy(a, b),
            Kind::Answer => match self.ops.keys().next().copied() {
                Some(ticket) => self.answer(ticket),
                None => self.forward(usize::from(a) % self.fleet.len()),
            },
            Kind::Sleep => self.sleep(),
            Kind::Misanswer => self.misanswer(a, b),
            Kind::LateOutcome => self.late_outcome(a, b),
            Kind::Land if b.is_multiple_of(4) => self.policy_again(),
            Kind::Land => {
                self.land(|ghost| ghost.key.as_str().len() % 2 == usize::from(a) % 2);
                Ok(())
            }
            Kind::Tick if a % 4 == 3 => self.input(Input::Surroundings(surroundings(b))),
            Kind::Tick => {
                // A night now and then: some deadlines are hours away.
                self.pass(u64::from(b) * if a.is_multiple_of(32) { 40_000 } else { 40 });
                self.input(Input::Wake)
            }
            Kind::StepWall => {
                let hours = i64::from(a % 7) - 3;
                self.now.wall = Wall(self.now.wall.0 + hours * 3_600_000 + i64::from(b) * 1000);
                Ok(())
            }
            Kind::Knock => {
                let name = if a == 255 { "stranger".to_string() } else { format!("d{}", a % 3) };
                let device = DeviceId::new(&name).expect("legal");
                let role = if b.is_multiple_of(2) { Role::Recorder } else { Role::Transfer };
                if self.guarded && b / 2 % 4 == 3 {
                    // An intruder, or an uploader that cannot send a token.
                    let credential = (b / 8).is_multiple_of(2).then(|| Sha256::of(b"made up"));
                    return self.knock_with(device, role, credential);
                }
                self.knock(device, role)
            }
            Kind::Lose => self.lose(a, b),
            Kind::Recorder => self.recorder_says(a, b),
            Kind::AnswerRpc => self.answer_rpc(a, b),
            Kind::Uploader => self.uploader_says(a, b),
            Kind::Ask => self.somebody_asks(a, b),
            Kind::Order => self.somebody_orders(a, b),
            Kind::Stored => {
                let key = self.fleet[usize::from(a) % 3].key(&format!("t{}", b % 5));
                self.input(Input::Stored { key, len: u64::from(b), sha256: Sha256::of(&[a]) })
            }
            Kind::Tamper => self.tamper(a, b),
            Kind::Crash => self.crash(a, b),
            Kind::Stop => self.stop(a, b),
        }
    }

    /// The next sensible thing of one device and of those who work with it.
    pub(super) fn forward(&mut self, d: usize) -> Result<(), Broken> {
        let device = self.fleet[d].clone();
        let id = device.id.clone();
        if self.shut {
            return self.restart();
        }
        if device.uploader.is_none() {
            return self.knock(id, Role::Transfer);
        }
        if device.recorder.is_none() {
            return self.knock(id, Role::Recorder);
        }
        if let Some(rpc) = self.fleet[d].owed.pop_front() {
            let message = self.fleet[d].obey(&rpc, self.now.wall);
            return self.input(Input::Recorder { conn: rpc.conn, message });
        }
        if let Some(callback) = self.fleet[d].callbacks.pop_front() {
            let request = match callback {
                Callback::Start(task) => Request::CallbackStart { task, device: Some(id), credential: None },
                Callback::Finish(task) => {
                    let len = device.files.get(&task).map(|file| file.content.len);
                    let facts = RecordingFacts {
                        started_at: Some(Wall(self.now.wall.0 - 10_000)),
                        len,
                        ..RecordingFacts::default()
                    };
                    Request::CallbackFinish { task, device: id, facts, credential: None }
                }
            };
            return self.ask(request).map(|_| ());
        }
        let conn = device.uploader.expect("checked above");
        if device.owes_status {
            self.fleet[d].owes_status = false;
            return self.input(Input::Transfer { conn, message: device.status(true, false) });
        }
        for (wire, file) in &device.files {
            if !file.uploaded && file.requested {
                return self.upload(d, wire);
            }
            if file.uploaded && file.said == 0 {
                return self.announce(d, wire);
            }
        }
        self.operate(d)
    }

    /// The uploader puts a recording into the edge store.
    fn upload(&mut self, d: usize, wire: &str) -> Result<(), Broken> {
        let device = &mut self.fleet[d];
        let (key, sidecar_key) = (device.key(wire), device.sidecar_key(wire));
        let announced = device.announce(wire);
        let conn = device.uploader.expect("asked of a connected device");
        let Some(file) = device.files.get_mut(wire) else { return Ok(()) };
        file.uploaded = true;
        let (content, sidecar, bare) = (file.content.clone(), file.sidecar.clone(), file.mcap_only);
        // Before the end an uploader says which, and no more.
        let started = Announced { len: None, sha256: None, ..announced };
        self.input(Input::Transfer { conn, message: TransferMessage::UploadStarted(started) })?;
        let (len, sha256) = (content.len, content.sha256());
        let taken = self.stores.edge.offer(&key, content, Some(sha256))
            && (bare || self.stores.edge.offer(&sidecar_key, sidecar, None));
        if !taken {
            // Refused at the door: the device keeps its copy and tries again another time.
            if let Some(file) = self.fleet[d].files.get_mut(wire) {
                file.uploaded = false;
            }
            return Ok(());
        }
        self.input(Input::Stored { key, len, sha256 })
    }

    fn announce(&mut self, d: usize, wire: &str) -> Result<(), Broken> {
        let announced = self.fleet[d].announce(wire);
        let Some(conn) = self.fleet[d].uploader else { return Ok(()) };
        if let Some(file) = self.fleet[d].files.get_mut(wire) {
            file.said += 1;
        }
        self.input(Input::Transfer { conn, message: TransferMessage::UploadComplete(announced) })
    }

    /// An operator does what there is to do for a device, if nothing of it is being answered.
    fn operate(&mut self, d: usize) -> Result<(), Broken> {
        let id = self.fleet[d].id.clone();
        let busy = self.link_watch.unanswered().any(|(_, request)| match request {
            Request::Command(command) => command.device == id,
            _ => false,
        });
        if busy {
            return self.answer_or_sleep();
        }
        let judged =
            episodes(&self.rows).find(|row| row.device == id && row.qa == Qa::Pending).map(|row| row.id);
        if let Some(episode) = judged {
            return self.ask(Request::Judge { episode, approve: true, reason: None }).map(|_| ());
        }
        let ready = |row: &&crate::row::EpisodeRow| {
            row.device == id && row.qa.is_approved() && row.sync == SyncMark::NotStarted
        };
        let wanted = episodes(&self.rows).find(ready).map(|row| row.id);
        if let Some(episode) = wanted {
            let request =
                if episode.0.is_multiple_of(3) { Request::SyncBatch } else { Request::Sync { episode } };
            return self.ask(request).map(|_| ());
        }
        let open = tasks(&self.rows).find(|row| row.device == id && !row.state.is_final()).cloned();
        let Some(row) = open else {
            let made = tasks(&self.rows).filter(|row| row.device == id).count();
            if made >= 5 {
                return self.answer_or_sleep();
            }
            let named = TaskId::new(&format!("t{d}{made}")).expect("legal");
            let task = (made % 3 != 2).then_some(named);
            let config = (made.is_multiple_of(2)).then(|| "{\"scene\":\"kitchen\"}".to_string());
            return self.ask(Request::CreateTask { task, device: id, config }).map(|_| ());
        };
        let doing = self.fleet[d].doing.clone();
        match (row.state, doing) {
            (TaskState::Pending, Doing::Idle) => self.order(d, Action::Config, Some(row.id.as_str())),
            (TaskState::Pending | TaskState::Ready, Doing::Ready(_)) if row.state == TaskState::Ready => {
                self.order(d, Action::Begin, Some(row.id.as_str()))
            }
            (TaskState::InProgress, Doing::Recording(_)) => {
                self.order(d, Action::Finish, Some(row.id.as_str()))
            }
            (TaskState::InProgress, Doing::Paused(_)) => self.order(d, Action::Resume, None),
            (TaskState::Uploading, _) => match self.fleet[d].files.iter().find(|(_, f)| f.uploaded) {
                Some((wire, _)) => {
                    let wire = wire.clone();
                    self.announce(d, &wire)
                }
                None => match self.fleet[d].files.keys().next().cloned() {
                    Some(wire) => self.upload(d, &wire),
                    None => self.answer_or_sleep(),
                },
            },
            // Out of step with its site: clear whatever it holds, or say what it does.
            (_, Doing::Idle) => self.push(d),
            (TaskState::Pending | TaskState::Ready, Doing::Ready(_)) => self.order(d, Action::Clear, None),
            (_, Doing::Recording(_) | Doing::Paused(_)) => self.order(d, Action::Finish, None),
            (_, Doing::Ready(_)) => self.order(d, Action::Clear, None),
        }
    }

    fn answer_or_sleep(&mut self) -> Result<(), Broken> {
        match self.ops.keys().next().copied() {
            Some(ticket) => self.answer(ticket),
            None => self.sleep(),
        }
    }

    fn push(&mut self, d: usize) -> Result<(), Broken> {
        let Some(conn) = self.fleet[d].recorder else { return Ok(()) };
        let message = self.fleet[d].push("unknown", self.now.wall);
        self.input(Input::Recorder { conn, message })
    }

    /// A command of an operator, marked so that its frame can be told.
    pub(super) fn order(&mut self, d: usize, action: Action, task: Option<&str>) -> Result<(), Broken> {
        let mark = self.next_request();
        let id = task.unwrap_or_default();
        let params = match (action, task) {
            (Action::Config, _) => {
                Some(format!("{{\"task_config\":{{\"task_id\":\"{id}\"}},\"mark\":{mark}}}"))
            }
            (_, Some(_)) => Some(format!("{{\"task_id\":\"{id}\",\"mark\":{mark}}}")),
            (Action::Finish | Action::Cancel, None) => Some(format!("{{\"mark\":{mark}}}")),
            (_, None) => None,
        };
        let command = Command {
            device: self.fleet[d].id.clone(),
            action,
            task: task.map(String::from),
            params,
            token: None,
            reply: None,
            task_state: None,
        };
        self.ask(Request::Command(command)).map(|_| ())
    }

    /// A store answers wrongly, late, or not at all. Whatever it answers `Done` is true when it was done.
    fn misanswer(&mut self, a: u8, b: u8) -> Result<(), Broken> {
        if let Some((ticket, outcome)) =
            (b.is_multiple_of(3)).then(|| self.underway.last().cloned()).flatten()
        {
            return self.input(Input::Object { ticket, outcome });
        }
        let tickets: Vec<Ticket> = self.ops.keys().copied().collect();
        let Some(ticket) = pick(&tickets, b) else { return Ok(()) };
        let op = self.ops[&ticket].clone();
        let unknown = Input::Object { ticket, outcome: Outcome::Unknown };
        match a % 8 {
            // Out of order.
            0 => self.answer(ticket),
            // Nothing happened, and we are told why.
            1..=3 => {
                let fault = fault(a / 8);
                self.make_true(&op.verb, &fault);
                if fault.budget() == Budget::Data {
                    self.data_faults += 1;
                }
                self.input(Input::Object { ticket, outcome: Outcome::Failed(fault) })
            }
            // It happened, and the answer is lost.
            4 => {
                let _ = self.perform(&op);
                self.input(unknown)
            }
            // Nothing happened, and nobody says so.
            5 => self.input(unknown),
            // It will happen, after we stopped waiting.
            6 => {
                if self.ghosts.len() < 4 {
                    self.ghosts.push(op);
                }
                self.input(unknown)
            }
            // It happened, and the answer takes its time.
            _ => {
                self.ops.remove(&ticket);
                let outcome = self.perform(&op);
                self.underway.push((ticket, outcome));
                Ok(())
            }
        }
    }

    /// A store that says an upload or a part is gone does not lie: orphans would be its own.
    fn make_true(&mut self, verb: &Verb, fault: &Fault) {
        let open = &mut self.stores.cloud.open;
        match (verb, fault) {
            (
                Verb::PutPart { upload, .. }
                | Verb::Complete { upload, .. }
                | Verb::Abort { upload }
                | Verb::ListParts { upload },
                Fault::Vanished(What::Upload),
            ) => {
                open.remove(upload);
            }
            (Verb::Complete { upload, parts }, Fault::Vanished(What::Part)) => {
                if let (Some(open), Some((part, _))) = (open.get_mut(upload), parts.first()) {
                    open.parts.remove(part);
                }
            }
            _ => {}
        }
    }

    /// Outcomes that nobody waits for.
    fn late_outcome(&mut self, a: u8, b: u8) -> Result<(), Broken> {
        let old: Vec<_> = self.answered.iter().cloned().collect();
        let (ticket, outcome) = match (a % 4, pick(&old, b)) {
            (0..=2, Some(outcome)) => outcome,
            _ => {
                let ticket = Ticket { boot: Boot(self.boot.0 + u64::from(a % 2)), n: 900_000 + u64::from(b) };
                (ticket, Outcome::Done(ObjectReply::Created(UploadId::new("made-up"))))
            }
        };
        if self.ops.contains_key(&ticket) || self.underway.iter().any(|(t, _)| *t == ticket) {
            return Ok(());
        }
        self.input(Input::Object { ticket, outcome })
    }

    fn lose(&mut self, a: u8, b: u8) -> Result<(), Broken> {
        let why = [LostWhy::Closed, LostWhy::Broken, LostWhy::Silent, LostWhy::Stuck, LostWhy::Protocol]
            [usize::from(b) % 5];
        let device = &mut self.fleet[usize::from(a) % 3];
        let conn = match a / 3 % 3 {
            0 => {
                device.owed.clear();
                device.recorder.take()
            }
            1 => device.uploader.take(),
            _ => self.any_link(b),
        };
        let Some(conn) = conn else { return Ok(()) };
        for device in &mut self.fleet {
            device.recorder = device.recorder.filter(|c| *c != conn);
            device.uploader = device.uploader.filter(|c| *c != conn);
        }
        self.input(Input::Lost { conn, why })
    }

    /// Any link there ever was, or one that never was.
    fn any_link(&self, n: u8) -> Option<ConnId> {
        if n % 16 == 15 {
            return Some(ConnId { boot: self.boot, n: 70_000 + u32::from(n) });
        }
        let all: Vec<ConnId> = self.links.keys().copied().collect();
        pick(&all, n)
    }

    /// A link of a device, the current one three times out of four.
    fn link_of(&self, d: usize, role: Role, n: u8) -> Option<ConnId> {
        let device = &self.fleet[d];
        let current = if role == Role::Recorder { device.recorder } else { device.uploader };
        if n % 4 == 3 { self.any_link(n / 4) } else { current }
    }

    /// A task as somebody may name it.
    fn some_task(&self, n: u8) -> String {
        let known: Vec<String> =
            tasks(&self.rows).flat_map(|row| [row.id.to_string(), row.wire.to_string()]).collect();
        match n % 8 {
            0 => "nobody".to_string(),
            1 => format!("t{}{}.2", n % 3, n / 64),
            2 => "a/b \u{7}".to_string(),
            _ => pick(&known, n / 8).unwrap_or_else(|| "t00".to_string()),
        }
    }

    /// The wire id of a device's newest open task, or any task.
    fn own_task(&self, d: usize, n: u8) -> String {
        let id = &self.fleet[d].id;
        let own = tasks(&self.rows).filter(|row| row.device == *id).find(|row| !row.state.is_final());
        match (own, n % 4) {
            (Some(row), 0..=2) => row.wire.to_string(),
            _ => self.some_task(n),
        }
    }

    fn recorder_says(&mut self, a: u8, b: u8) -> Result<(), Broken> {
        let d = usize::from(a) % 3;
        let Some(conn) = self.link_of(d, Role::Recorder, b) else { return Ok(()) };
        let at = self.now.wall;
        let said =
            |state: &str, task: Option<String>, timestamp_ms: Option<i64>| RecorderMessage::StateUpdate {
                timestamp_ms,
                previous: Some("idle".to_string()),
                current: Some(state.to_string()),
                task,
            };
        let task = self.own_task(d, b / 4);
        let honest = self.fleet[d].push("idle", at);
        self.fleet[d].lied |= a / 3 % 12 > 1;
        let message = match a / 3 % 12 {
            0 => honest,
            1 => match honest {
                RecorderMessage::StateUpdate { timestamp_ms, current, task, .. } => {
                    RecorderMessage::StateUpdate { timestamp_ms, previous: current.clone(), current, task }
                }
                other => other,
            },
            2 => RecorderMessage::StateUpdate {
                timestamp_ms: None,
                previous: None,
                current: None,
                task: Some(task),
            },
            3 => said("Ready", Some(task), Some(at.0)),
            4 => said(" RECORDING", Some(task), Some(at.0)),
            5 => said("paused", Some(task), None),
            6 => said("idle", Some(task), Some(at.0 - 60_000)),
            7 => said("ready", None, Some(at.0)),
            8 => said("maintenance", Some(task), Some(at.0)),
            9 => RecorderMessage::ConfigApplied { task: Some(task) },
            10 => RecorderMessage::Other("heartbeat".to_string()),
            _ => RecorderMessage::Response {
                request_id: format!("made-up-{b}"),
                success: true,
                message: None,
                state: Some("recording".to_string()),
                task: Some(task),
                data: None,
            },
        };
        self.input(Input::Recorder { conn, message })
    }

    fn answer_rpc(&mut self, a: u8, b: u8) -> Result<(), Broken> {
        let d = usize::from(a) % 3;
        if b % 5 == 4 {
            // It never arrived.
            self.fleet[d].owed.pop_front();
            return Ok(());
        }
        let Some(rpc) = self.fleet[d].owed.pop_back() else { return Ok(()) };
        let conn = rpc.conn;
        let response = |success, state: Option<&str>, task| RecorderMessage::Response {
            request_id: rpc.id.clone(),
            success,
            message: Some("so".to_string()),
            state: state.map(String::from),
            task,
            data: None,
        };
        let (word, held) = self.fleet[d].word();
        let message = match b % 5 {
            // It says that it did it, and in the same breath that nothing changed, or that it is at another attempt.
            0 if b / 5 % 4 == 1 => response(true, Some(word), held),
            0 if b / 5 % 4 == 2 => {
                let made_up = held.or(rpc.task.clone()).unwrap_or_else(|| format!("t{d}0"));
                self.fleet[d].lied = true;
                response(true, Some("recording"), Some(format!("{made_up}.2")))
            }
            // Refused.
            0 => response(false, None, None),
            // Done, with a state that says nothing.
            1 => {
                self.fleet[d].obey(&rpc, self.now.wall);
                response(true, None, None)
            }
            // Done, and not said.
            2 => {
                self.fleet[d].obey(&rpc, self.now.wall);
                return Ok(());
            }
            // Done, and said twice; on the current link, which may be another by now.
            _ => {
                let message = self.fleet[d].obey(&rpc, self.now.wall);
                let now = self.fleet[d].recorder.unwrap_or(conn);
                self.input(Input::Recorder { conn, message: message.clone() })?;
                return self.input(Input::Recorder { conn: now, message });
            }
        };
        self.input(Input::Recorder { conn, message })
    }

    fn uploader_says(&mut self, a: u8, b: u8) -> Result<(), Broken> {
        let d = usize::from(a) % 3;
        let Some(conn) = self.link_of(d, Role::Transfer, b) else { return Ok(()) };
        let wires: Vec<String> =
            self.fleet[d].files.keys().chain(self.fleet[d].deleted.keys()).cloned().collect();
        let wire = pick(&wires, b / 4).unwrap_or_else(|| self.own_task(d, b / 4));
        let task = self.own_task(d, b / 4);
        let honest = self.fleet[d].announce(&wire);
        self.fleet[d].lied |= matches!(a / 3 % 12, 3..=5 | 10);
        let message = match a / 3 % 12 {
            0 => TransferMessage::UploadComplete(honest),
            1 => self.fleet[d].status(true, false),
            2 => self.fleet[d].status(false, true),
            3 => TransferMessage::UploadComplete(Announced { sha256: Some(Sha256::of(b"other")), ..honest }),
            4 => TransferMessage::UploadComplete(Announced { key: None, ..honest }),
            // Somebody else's file.
            5 => {
                let other = self.fleet[(d + 1) % 3].clone();
                let wire = other.files.keys().chain(other.deleted.keys()).next().cloned().unwrap_or(task);
                TransferMessage::UploadComplete(Announced {
                    key: Some(other.key(&wire).to_string()),
                    ..self.fleet[d].announce(&wire)
                })
            }
            6 => TransferMessage::UploadFailed { task, reason: Some("disk full".to_string()) },
            7 => TransferMessage::UploadNotFound { task, detail: None },
            8 => TransferMessage::UploadStarted(self.fleet[d].announce(&task)),
            9 => TransferMessage::Status(Status {
                uploads: Some(vec![UploadEntry {
                    status: [UploadStatus::Failed, UploadStatus::WaitAck, UploadStatus::RetryWait]
                        [usize::from(b) % 3],
                    announced: Announced { mcap_only: Some(true), len: None, sha256: None, ..honest },
                    last_error: None,
                }]),
                waiting_ack_tasks: Some(vec![task, "a b".to_string()]),
                ..Status::default()
            }),
            10 => {
                TransferMessage::UploadComplete(Announced { key: Some("../../x.mcap".to_string()), ..honest })
            }
            _ => TransferMessage::Other("local_cleanup_failed".to_string()),
        };
        self.input(Input::Transfer { conn, message })
    }

    fn somebody_asks(&mut self, a: u8, b: u8) -> Result<(), Broken> {
        let device = self.fleet[usize::from(b) % 3].id.clone();
        let task = self.some_task(b);
        let known: Vec<EpisodeId> = episodes(&self.rows).map(|row| row.id).collect();
        let episode = pick(&known, b).unwrap_or(EpisodeId(u64::from(b)));
        let request = match a % 20 {
            0 | 1 => Request::RefreshState { device, max_age_ms: u64::from(b) * 10 },
            2 => Request::CallbackStart {
                task,
                device: (b.is_multiple_of(2)).then_some(device),
                credential: None,
            },
            3 => Request::CallbackFinish { task, device, facts: RecordingFacts::default(), credential: None },
            4 => {
                let named = TaskId::new(&format!("t{}{}", a % 3, b % 6)).expect("legal");
                Request::CreateTask { task: Some(named), device, config: Some("not json".to_string()) }
            }
            5 => Request::CreateTask {
                task: TaskId::new(&format!("t{}.2", b % 60)).ok(),
                device,
                config: None,
            },
            6 => Request::CancelTask { task },
            7 => Request::CancelTask { task: self.own_task(usize::from(b) % 3, b) },
            8 => Request::Judge { episode, approve: false, reason: Some("blurred".to_string()) },
            9 => Request::Judge { episode, approve: b.is_multiple_of(2), reason: None },
            10 | 11 => Request::Sync { episode },
            12 if b.is_multiple_of(4) => Request::Sync { episode: EpisodeId(7_000) },
            12 => {
                let holds = self.own_task(usize::from(b) % 3, b / 4);
                Request::Resolve { device, how: Resolve::ALL[usize::from(a / 20) % 3], holds }
            }
            13 => Request::SyncBatch,
            14 => Request::Transfer { device, ask: TransferAsk::Upload { task, priority: 1 } },
            15 => Request::Transfer { device, ask: TransferAsk::Cancel { task } },
            16 if b.is_multiple_of(2) => Request::Transfer { device, ask: TransferAsk::UploadAll },
            16 => Request::Transfer { device, ask: TransferAsk::StatusQuery },
            17 => Request::Roster(RosterRequest::Revoke { id: u64::from(b % 8) }),
            18 => Request::Roster(RosterRequest::RevokeDevice { device }),
            _ => {
                let task = if b.is_multiple_of(3) { task } else { self.own_task(usize::from(b) % 3, b) };
                let to = if b.is_multiple_of(2) { TaskState::Failed } else { TaskState::Pending };
                Request::ResolveTask { task, to, reason: None }
            }
        };
        self.ask(request).map(|_| ())
    }

    fn somebody_orders(&mut self, a: u8, b: u8) -> Result<(), Broken> {
        let d = usize::from(b) % 3;
        let action = Action::ALL[usize::from(a) % 10];
        let task = match a / 10 % 3 {
            0 => None,
            1 => Some(self.own_task(d, b)),
            _ => Some(self.some_task(b)),
        };
        // Ids that break out of JSON are the edge's business; here they only have to be refused.
        let task = task.filter(|task| !task.contains('\u{7}'));
        self.order(d, action, task.as_deref())
    }

    /// A third party at work, without making a lie of an answer that is on its way.
    fn tamper(&mut self, a: u8, b: u8) -> Result<(), Broken> {
        let garbage = Content { id: 666, len: 77, facts: None };
        match a % 3 {
            // A lifecycle rule, or an operator, drops an upload.
            0 => {
                let open: Vec<UploadId> = self.stores.cloud.open.keys().cloned().collect();
                if let Some(id) = pick(&open, b) {
                    self.stores.cloud.open.remove(&id);
                }
            }
            // Somebody writes where a job is about to.
            1 => {
                let waiting = |key: &ObjectKey| {
                    !self.stores.cloud.objects.contains_key(key)
                        && !self.stores.cloud.completed.values().any(|done| done == key)
                        && !self.underway.iter().any(|(_, outcome)| matches!(outcome, Outcome::Done(_)))
                };
                let keys: Vec<ObjectKey> = super::watch::jobs(&self.rows)
                    .filter(|row| !row.state.is_final())
                    .map(|row| row.key.clone())
                    .filter(waiting)
                    .collect();
                if let Some(key) = pick(&keys, b) {
                    self.stores.cloud.put(&key, garbage, None);
                    self.tampered = true;
                }
            }
            // The edge disk rots, or somebody cleans it up.
            _ => {
                let unsafe_now = |key: &ObjectKey| {
                    self.ops.values().chain(&self.ghosts).any(|op| op.store == Store::Edge && op.key == *key)
                        || !self.underway.is_empty()
                };
                let keys: Vec<ObjectKey> = self
                    .rows
                    .iter()
                    .filter_map(|(key, row)| match (key, row) {
                        (Key::Binding(key), Row::Binding(row)) if row.episode.is_none() => Some(key.clone()),
                        _ => None,
                    })
                    .filter(|key| !unsafe_now(key))
                    .collect();
                if let Some(key) = pick(&keys, b) {
                    self.tampered = true;
                    if b.is_multiple_of(2) {
                        self.stores.edge.objects.remove(&key);
                    } else {
                        self.stores.edge.put(&key, garbage, None);
                    }
                }
            }
        }
        Ok(())
    }

    fn crash(&mut self, a: u8, b: u8) -> Result<(), Broken> {
        match a % 3 {
            0 => self.restart(),
            1 => {
                self.coverage.reach("world", "crash before commit");
                self.doom = Some(Doom::BeforeCommit);
                Ok(())
            }
            _ => {
                self.coverage.reach("world", "crash after effects");
                self.doom = Some(Doom::AfterEffects(usize::from(b % 3)));
                Ok(())
            }
        }
    }

    fn stop(&mut self, a: u8, b: u8) -> Result<(), Broken> {
        if a.is_multiple_of(3) {
            self.knobs.destination = !b.is_multiple_of(4);
            return self.restart();
        }
        if !self.shut {
            self.input(Input::Shutdown)?;
            self.shut = true;
        }
        Ok(())
    }

    /// The worst is over: everything works, everybody answers. What must be done is done within a bounded time.
    pub(super) fn settle(&mut self) -> Result<(), Broken> {
        self.doom = None;
        self.land(|_| true);
        self.knobs.destination = true;
        self.wild = false;
        self.restart()?;
        let mut asked = false;
        for _ in 0..6_000 {
            self.pass(1);
            if let Some((ticket, outcome)) = self.underway.last().cloned() {
                self.input(Input::Object { ticket, outcome })?;
            } else if let Some(ticket) = self.policy_ops.keys().next().copied() {
                self.serve_policy(ticket)?;
            } else if let Some(ticket) = self.ops.keys().next().copied() {
                self.answer(ticket)?;
            } else if let Some(d) = (0..self.fleet.len()).find(|d| !self.fleet[*d].owed.is_empty()) {
                let rpc = self.fleet[d].owed.pop_front().expect("looked");
                let message = self.fleet[d].obey(&rpc, self.now.wall);
                self.input(Input::Recorder { conn: rpc.conn, message })?;
            } else if !self.at_rest() {
                self.sleep()?;
            } else if !asked {
                // What waits for an operator gets one.
                asked = true;
                let parked: Vec<EpisodeId> = super::watch::jobs(&self.rows)
                    .filter(|row| matches!(row.state, crate::row::JobState::Parked { .. }))
                    .map(|row| row.episode)
                    .collect();
                for episode in parked {
                    self.ask(Request::Sync { episode })?;
                }
            } else {
                return self.settled();
            }
        }
        self.settled()?;
        super::watch::broken("L1", "never at rest")
    }

    /// Whether nothing is open that only needs time.
    fn at_rest(&self) -> bool {
        use crate::row::JobState;
        let waiting = |state: &JobState| match state {
            JobState::Pending { .. } | JobState::Claimed { .. } => true,
            JobState::Parked { .. } | JobState::Completed { .. } | JobState::Failed { .. } => false,
        };
        !super::watch::jobs(&self.rows).any(|row| waiting(&row.state))
            && super::watch::uploads(&self.rows)
                .all(|(job, _)| super::watch::job(&self.rows, job).is_some_and(|row| !row.state.is_final()))
            && self.link_watch.unanswered().next().is_none()
            && self.ops.is_empty()
            && self.policy_ops.is_empty()
    }

    /// L1, L2, I07, I15, I20, I21 when everything has come to rest.
    fn settled(&mut self) -> Result<(), Broken> {
        use super::watch::{demand, jobs, uploads};
        use crate::row::{FinalWhy, JobState};
        for row in jobs(&self.rows) {
            let fits = match &row.state {
                JobState::Completed { .. } => true,
                JobState::Pending { .. } | JobState::Claimed { .. } | JobState::Parked { .. } => false,
                JobState::Failed { why, .. } => match why {
                    FinalWhy::Exhausted(fault) | FinalWhy::GivenUp(fault) | FinalWhy::SourceLost(fault) => {
                        fault.budget() == Budget::Data && (self.data_faults > 0 || self.tampered)
                    }
                    FinalWhy::Foreign => self.tampered,
                    FinalWhy::Cancelled => false,
                },
            };
            demand("L1", fits, || {
                format!("job {row:?} at rest; the site sleeps until {:?}", self.machine.next_wake())
            })?;
        }
        let left = uploads(&self.rows).next();
        demand("I21", left.is_none(), || format!("a session is left: {left:?}"))?;
        let open = self.stores.cloud.open.first_key_value();
        demand("I21", open.is_none(), || format!("an upload is orphaned: {open:?}"))?;
        let waiting = self.link_watch.unanswered().next();
        demand("I07", waiting.is_none(), || format!("never answered: {waiting:?}"))?;
        demand("L2", self.link_watch.outstanding() == 0, || "commands are out".to_string())?;
        for device in &self.fleet {
            for (wire, file) in &device.deleted {
                let held = episodes(&self.rows).any(|row| {
                    row.sha256 == file.content.sha256()
                        && row.len == file.content.len
                        && row.wire.as_str() == wire
                });
                demand("I20", held || device.lied, || format!("{wire} of {} is lost: {file:?}", device.id))?;
            }
            for (wire, count) in &device.begun {
                demand("I09", *count == 1 || device.lied, || format!("{wire} was recorded {count} times"))?;
            }
        }
        Ok(())
    }
}

/// Some platform, somewhere.
fn surroundings(n: u8) -> Surroundings {
    Surroundings {
        link: [LinkKind::Ethernet, LinkKind::Cellular, LinkKind::None][usize::from(n % 3)],
        metered: [Known::Unknown, Known::No, Known::Yes][usize::from(n / 3 % 3)],
        power: [Power::Mains, Power::BatteryLow][usize::from(n / 9 % 2)],
        utc_offset_min: [0, 840, -720, i16::MIN][usize::from(n / 18 % 4)],
        disk_free: u16::from(n) * 257,
    }
}

/// Every fault there is.
fn fault(n: u8) -> Fault {
    match n % 16 {
        0 => Fault::Offline,
        1 => Fault::Throttled { retry_after_ms: (n % 32 < 16).then_some(4_000) },
        2 => Fault::Unavailable { status: 503 },
        3 => Fault::Auth,
        4 => Fault::ClockSkew,
        5 => Fault::NoDestination,
        6 => Fault::Vanished(What::Object),
        7 => Fault::Vanished(What::Upload),
        8 => Fault::Vanished(What::Part),
        9 => Fault::Vanished(What::Source),
        10 => Fault::Damaged(What::Object),
        11 => Fault::Damaged(What::Upload),
        12 => Fault::Damaged(What::Part),
        13 => Fault::Damaged(What::Source),
        14 => Fault::Rejected("InvalidArgument".to_string()),
        _ => Fault::Local("no space".to_string()),
    }
}
