//! A rig that drives the tasks as the driver would: rows on a disk, wants before a step, eviction after it.

mod asking;
mod commands;
mod devices;
mod episodes;
mod inspections;
mod late;
mod overdue;
mod reconcile;
mod searches;
mod transitions;
mod uploads;
mod verifies;
mod walks;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::string::{String, ToString};
use std::time::Duration;
use std::vec::Vec;

use super::*;
use crate::chance::Chance;
use crate::cx::{Owner, Tickets};
use crate::digest::Sha256;
use crate::effect::{Effect, Notice, Output, Response};
use crate::fact::{Fact, Report, Reported, TransferFrame};
use crate::id::{Boot, Role};
use crate::input::{Action, Command, Input, Request};
use crate::knobs::Knobs;
use crate::machine::{Machine, Parts, Rows};
use crate::object::{Got, ObjectFacts, ObjectOp, SidecarFacts, Verb, Want};
use crate::policy::{Active, Builtin, Situation};
use crate::row::{Row, TaskState};
use crate::time::{Now, Wall};
use crate::timers::{TimerKey, Timers};
use crate::wire::TransferMessage;
use crate::wire::transfer::{Status, UploadEntry, UploadStatus};

/// 2026-11-21T01:34:01Z
const START_MS: i64 = 1_795_224_841_000;

struct Rig {
    parts: Parts,
    disk: Rows,
    shadow: Tasks,
    now: Now,
    knobs: Knobs,
    timers: Timers,
    chance: Chance,
    seeds: Chance,
    tickets: Tickets,
    policies: Builtin,
    active: Active,
    stopping: bool,
    rulings: usize,
    requests: u64,
    /// Whether recordings are checked when that is due; most tests are about other things.
    checks: bool,
}

/// What came of a step.
#[derive(Debug, Default)]
struct Seen {
    effects: Vec<Effect>,
    changes: Vec<&'static str>,
    facts: Vec<Fact>,
}

impl Seen {
    fn answer(&self) -> &Result<Response, Refusal> {
        let replies: Vec<_> = self
            .effects
            .iter()
            .filter_map(|effect| match effect {
                Effect::Reply { answer, .. } => Some(answer),
                _ => None,
            })
            .collect();
        assert_eq!(replies.len(), 1, "exactly one answer: {self:?}");
        replies[0]
    }

    fn refusal(&self) -> &Refusal {
        self.answer().as_ref().expect_err("a refusal")
    }

    fn cleared(&self) -> &Command {
        match &self.facts[..] {
            [Fact::CommandCleared(command)] => command,
            other => panic!("{other:?}"),
        }
    }

    fn frames(&self) -> Vec<String> {
        let frame = |fact: &Fact| match fact {
            Fact::TransferFrame { frame: TransferFrame::UploadRequest { task, .. }, .. } => {
                Some(std::format!("request {task}"))
            }
            Fact::TransferFrame { frame: TransferFrame::UploadAck { task }, .. } => {
                Some(std::format!("ack {task}"))
            }
            Fact::TransferFrame { frame: TransferFrame::StatusQuery, .. } => Some("query".to_string()),
            Fact::TransferFrame { frame: TransferFrame::UploadAll, .. } => Some("all".to_string()),
            Fact::TransferFrame { frame: TransferFrame::Cancel { task }, .. } => {
                Some(std::format!("cancel {task}"))
            }
            _ => None,
        };
        self.facts.iter().filter_map(frame).collect()
    }

    fn ops(&self) -> Vec<(Ticket, String)> {
        let op = |effect: &Effect| match effect {
            Effect::Object { ticket, op: ObjectOp { key, verb, .. } } => {
                let verb = match verb {
                    Verb::Get { want: Want::Digest, .. } => "digest",
                    Verb::Get { want: Want::Sidecar, .. } => "sidecar",
                    Verb::Get { want: Want::Inspect, .. } => "inspect",
                    other => other.name(),
                };
                Some((*ticket, std::format!("{verb} {key}")))
            }
            _ => None,
        };
        self.effects.iter().filter_map(op).collect()
    }

    fn op(&self) -> (Ticket, String) {
        let ops = self.ops();
        assert_eq!(ops.len(), 1, "exactly one operation: {self:?}");
        ops[0].clone()
    }

    fn codes(&self) -> Vec<&'static str> {
        let code = |effect: &Effect| match effect {
            Effect::Publish(Notice::Refused { code, .. }) => Some(*code),
            _ => None,
        };
        self.effects.iter().filter_map(code).collect()
    }

    /// Keys frozen and thawed.
    fn ice(&self) -> Vec<String> {
        let ice = |effect: &Effect| match effect {
            Effect::Freeze { key } => Some(std::format!("freeze {key}")),
            Effect::Thaw { key } => Some(std::format!("thaw {key}")),
            _ => None,
        };
        self.effects.iter().filter_map(ice).collect()
    }

    fn is_nothing(&self) -> bool {
        self.effects.is_empty() && self.changes.is_empty() && self.facts.is_empty()
    }
}

impl Rig {
    fn new() -> Rig {
        let knobs = Knobs { site: "s1".into(), ..Knobs::default() };
        let mut rig = Rig {
            parts: Parts::default(),
            disk: Rows::new(),
            shadow: Tasks::default(),
            now: Now { wall: Wall(START_MS), mono: Mono(1) },
            policies: Builtin::new(knobs.builtin.clone()),
            active: Active::native(knobs.builtin.clone()),
            knobs,
            timers: Timers::default(),
            chance: Chance::new(7),
            seeds: Chance::new(8),
            tickets: Tickets::new(Boot(1)),
            stopping: false,
            rulings: 0,
            requests: 0,
            checks: false,
        };
        rig.on(|tasks, cx| tasks.on_boot(cx));
        rig
    }

    /// A step with these cold rows wanted.
    fn step(
        &mut self,
        want: impl Fn(&Parts, &Rows, &mut BTreeSet<Key>),
        act: impl FnOnce(&mut Tasks, &mut Cx<'_>),
    ) -> Seen {
        let mut cold = Rows::new();
        loop {
            let mut keys = BTreeSet::new();
            want(&self.parts, &cold, &mut keys);
            keys.retain(|key| !cold.contains_key(key));
            if keys.is_empty() {
                break;
            }
            for key in keys {
                let row = self.disk.get(&key).cloned().flatten();
                cold.insert(key, row);
            }
        }
        for (key, row) in &cold {
            if let Some(row) = row {
                self.parts.tasks.load(key, row.clone());
            }
        }
        let (mut facts, mut touched, mut out) = (VecDeque::new(), BTreeSet::new(), Output::default());
        let mut cx = Cx {
            now: self.now,
            knobs: &self.knobs,
            situation: Situation::default(),
            active: &self.active,
            stopping: self.stopping,
            timers: &mut self.timers,
            chance: &mut self.chance,
            seeds: &mut self.seeds,
            tickets: &mut self.tickets,
            facts: &mut facts,
            touched: &mut touched,
            policies: &mut self.policies,
            out: &mut out,
        };
        self.parts.tasks.begin_step(&cold);
        act(&mut self.parts.tasks, &mut cx);
        let recorded = out.changes.iter().any(|c| matches!(c, Change::Episode(EpisodeChange::Recorded(_))));
        assert_eq!(touched.contains(&Key::Meta), recorded, "the counter is kept with the episode");
        for key in touched {
            let row = match &key {
                Key::Meta => continue,
                key => self.parts.tasks.row(key).expect("what a change touched is there until the step ends"),
            };
            self.disk.insert(key, Some(row));
        }
        // Replayed from the changes alone, without eviction, the rows are the same.
        for change in &out.changes {
            match change {
                Change::Task(change) => self.shadow.apply_task(change),
                Change::Episode(change) => self.shadow.apply_episode(change),
                Change::Job(_) | Change::Upload(_) | Change::Policy(_) | Change::Roster(_) => {
                    unreachable!("not of the tasks")
                }
            }
            .expect("legal in replay");
        }
        for (key, row) in &self.disk {
            assert_eq!(self.shadow.row(key), *row, "replay of {key:?}");
        }
        assert_eq!(self.shadow.counter(), self.parts.tasks.counter());
        self.parts.tasks.evict();
        self.parts.tasks.check().expect("invariants hold");
        for (key, row) in &self.disk {
            let row = row.as_ref().expect("rows of tasks never go");
            let verifying = self.parts.tasks.verifies.values().any(|v| match key {
                Key::Task(id) => v.task == *id,
                Key::Binding(key) => v.key == *key,
                _ => false,
            });
            let here = self.parts.tasks.row(key).is_some();
            assert_eq!(here, Machine::is_hot(row) || verifying, "eviction of {key:?}");
        }
        self.rulings += out.rulings.len();
        Seen {
            changes: out.changes.iter().map(Change::name).collect(),
            effects: out.effects,
            facts: facts.into_iter().collect(),
        }
    }

    /// A step that names no rows.
    fn on(&mut self, act: impl FnOnce(&mut Tasks, &mut Cx<'_>)) -> Seen {
        self.step(|_, _, _| {}, act)
    }

    /// A request over HTTP, with the wants and the dispatch of the machine.
    fn ask(&mut self, request: Request) -> Seen {
        self.requests += 1;
        let id = RequestId(self.requests);
        let input = Input::Request { id, request: request.clone() };
        self.step(
            |parts, have, keys| crate::route::wants(parts, core::iter::empty(), &input, have, keys),
            |tasks, cx| match request {
                Request::Command(mut command) => {
                    command.reply = Some(id);
                    tasks.on_command(cx, command);
                }
                Request::CallbackStart { task, device, credential } => {
                    let device = device.as_ref();
                    if !tasks.may_call_back(cx, id, device, &task, credential) {
                        return;
                    }
                    tasks.on_callback_start(cx, id, &task, device);
                }
                Request::CallbackFinish { task, device, facts, credential } => {
                    if !tasks.may_call_back(cx, id, Some(&device), &task, credential) {
                        return;
                    }
                    tasks.on_callback_finish(cx, id, &task, &device, &facts);
                }
                Request::CreateTask { task, device, config } => {
                    tasks.on_create(cx, id, task.as_ref(), &device, config.as_deref());
                }
                Request::CancelTask { task } => tasks.on_cancel(cx, id, &task),
                Request::Judge { episode, approve, reason } => {
                    tasks.on_judge(cx, id, episode, approve, reason.as_deref());
                }
                Request::Sync { episode } => tasks.on_sync(cx, id, episode),
                Request::SyncBatch => tasks.on_sync_batch(cx, id),
                Request::Resolve { device, how, holds } => tasks.on_resolve(cx, id, &device, how, &holds),
                Request::Transfer { device, ask } => tasks.on_transfer_asked(cx, id, &device, &ask),
                Request::ResolveTask { task, to, reason } => {
                    tasks.on_resolve_task(cx, id, &task, to, reason.as_deref());
                }
                Request::RefreshState { .. } | Request::Policy(_) | Request::Roster(_) => {
                    unreachable!("not for the tasks")
                }
            },
        )
    }

    fn say(&mut self, device: &DeviceId, message: TransferMessage) -> Seen {
        let input = Input::Transfer { conn: conn(1), message: message.clone() };
        let conn = self.parts.tasks.uploaders.get(device).copied().unwrap_or(conn(1));
        self.step(
            |parts, have, keys| crate::route::wants(parts, core::iter::empty(), &input, have, keys),
            |tasks, cx| tasks.on_transfer(cx, device, conn, &message),
        )
    }

    fn object(&mut self, ticket: Ticket, outcome: Outcome<ObjectReply>) -> Seen {
        assert_eq!(self.tickets.take(ticket), Some(Owner::Tasks), "{ticket:?} is open");
        let input = Input::Object { ticket, outcome: outcome.clone() };
        self.step(
            |parts, have, keys| crate::route::wants(parts, core::iter::empty(), &input, have, keys),
            |tasks, cx| tasks.on_object(cx, ticket, &outcome),
        )
    }

    fn done(&mut self, ticket: Ticket, reply: ObjectReply) -> Seen {
        self.object(ticket, Outcome::Done(reply))
    }

    /// The bytes are read, and the object is still the same.
    fn confirm(&mut self, digest: Ticket) -> Seen {
        let (head, op) = self.done(digest, digest_reply()).op();
        assert!(op.starts_with("head "), "{op}");
        self.done(head, head_reply())
    }

    fn create(&mut self, task: &str, device: &DeviceId) {
        let request = Request::CreateTask { task: Some(task_id(task)), device: device.clone(), config: None };
        assert_eq!(self.ask(request).changes, ["task.created"]);
    }

    fn task(&self, task: &str) -> TaskRow {
        match self.disk.get(&Key::Task(task_id(task))) {
            Some(Some(Row::Task(row))) => row.clone(),
            other => panic!("{other:?}"),
        }
    }

    fn state(&self, task: &str) -> TaskState {
        self.task(task).state
    }

    fn episode_row(&self, n: u64) -> EpisodeRow {
        match self.disk.get(&Key::Episode(EpisodeId(n))) {
            Some(Some(Row::Episode(row))) => row.clone(),
            other => panic!("{other:?}"),
        }
    }

    fn command(&self, device: &DeviceId, action: Action, task: Option<&str>) -> Command {
        Command {
            device: device.clone(),
            action,
            task: task.map(ToString::to_string),
            params: None,
            token: None,
            reply: None,
            task_state: None,
        }
    }

    /// A command that is cleared and sent, and how it ended.
    fn run(&mut self, device: &DeviceId, action: Action, task: &str, end: crate::fact::CallEnd) -> Seen {
        let command = self.command(device, action, Some(task));
        let cleared = self.ask(Request::Command(command)).cleared().clone();
        self.on(|tasks, cx| tasks.on_command_sent(cx, &cleared));
        self.end(&cleared, end)
    }

    /// The end of a command: the hub names its task.
    fn end(&mut self, command: &Command, end: crate::fact::CallEnd) -> Seen {
        self.step(
            |parts, have, keys| {
                command.task.iter().for_each(|task| parts.tasks.want_successor(task, have, keys));
            },
            |tasks, cx| tasks.on_command_ended(cx, command, end),
        )
    }

    fn report(&mut self, device: &DeviceId, state: Reported, task: Option<&str>) -> Seen {
        self.report_while(device, state, task, true)
    }

    /// A report while a command is out, unless `calm`.
    fn report_while(&mut self, device: &DeviceId, state: Reported, task: Option<&str>, calm: bool) -> Seen {
        let report = Report { state, task: task.map(wire_id), said: task.unwrap_or_default().into() };
        self.step(
            |parts, have, keys| {
                task.into_iter().for_each(|task| parts.tasks.want_successor(task, have, keys));
            },
            |tasks, cx| tasks.on_recorder_reported(cx, device, conn(100), &report, calm),
        )
    }

    fn recorder_up(&mut self, device: &DeviceId) -> Seen {
        self.on(|tasks, cx| tasks.on_link_up(cx, device, Role::Recorder, conn(100)))
    }

    fn recorder_down(&mut self, device: &DeviceId) -> Seen {
        self.on(|tasks, cx| tasks.on_link_down(cx, device, Role::Recorder))
    }

    fn link_up(&mut self, device: &DeviceId, n: u32) -> Seen {
        self.on(|tasks, cx| tasks.on_link_up(cx, device, Role::Transfer, conn(n)))
    }

    fn link_down(&mut self, device: &DeviceId) -> Seen {
        self.on(|tasks, cx| tasks.on_link_down(cx, device, Role::Transfer))
    }

    fn pass(&mut self, time: Duration) {
        self.now = Now { wall: self.now.wall.after(time), mono: self.now.mono.after(time) };
    }

    /// Wakes what is due among the timers of the tasks.
    fn wake(&mut self) -> Seen {
        let mut all = Seen::default();
        while let Some(key) = self.timers.take_due(self.now.mono) {
            let seen = match key {
                TimerKey::Verify(device, wire) => self.on(|t, cx| t.on_verify_due(cx, &device, &wire)),
                TimerKey::Remove => self.on(|t, cx| t.on_remove_due(cx)),
                TimerKey::Inspect if !self.checks => continue,
                TimerKey::Inspect => self.on(|t, cx| t.on_inspect_due(cx)),
                TimerKey::Scan => self.on(|t, cx| t.on_scan_due(cx)),
                TimerKey::Grace(device) => self.on(|t, cx| t.on_grace_due(cx, &device)),
                TimerKey::Settle(task) => self.on(|t, cx| t.on_settle_due(cx, &task)),
                TimerKey::Uploader(device) => self.on(|t, cx| t.on_uploader_due(cx, &device)),
                TimerKey::Overdue => self.on(|t, cx| t.on_overdue_due(cx)),
                other => panic!("{other:?} is not of the tasks"),
            };
            all.effects.extend(seen.effects);
            all.changes.extend(seen.changes);
            all.facts.extend(seen.facts);
        }
        all
    }

    /// The process dies and starts again on the same disk.
    fn restart(&mut self) -> Seen {
        let counter = self.parts.tasks.counter();
        self.parts = Parts::default();
        self.parts.tasks.load_counter(counter);
        for (key, row) in &self.disk {
            let row = row.as_ref().expect("rows of tasks never go");
            if Machine::is_hot(row) {
                self.parts.tasks.load(key, row.clone());
            }
        }
        self.timers = Timers::default();
        self.tickets = Tickets::new(Boot(self.tickets.boot().0 + 1));
        self.parts.tasks.forget_volatile();
        self.now.mono = Mono(1);
        self.step(|parts, have, keys| parts.tasks.want_successors(have, keys), |tasks, cx| tasks.on_boot(cx))
    }

    fn finish(&mut self, task: &str, device: &DeviceId, facts: crate::row::RecordingFacts) -> Seen {
        self.ask(Request::CallbackFinish {
            task: task.into(),
            device: device.clone(),
            facts,
            credential: None,
        })
    }

    /// An episode of a fresh task, verified on the way every recording takes.
    fn episode_of(&mut self, task: &str) -> u64 {
        let device = d1();
        if !self.parts.tasks.uploaders.contains_key(&device) {
            self.link_up(&device, 1);
            self.say(&device, status(true, Vec::new()));
        }
        self.create(task, &device);
        let claim = claim(task);
        let head = self.say(&device, TransferMessage::UploadComplete(claim)).op().0;
        let sidecar = self.done(head, head_reply()).op().0;
        let digest = self.done(sidecar, sidecar_reply()).op().0;
        let seen = self.confirm(digest);
        assert_eq!(seen.changes, ["episode.recorded", "task.completed"]);
        self.parts.tasks.counter() - 1
    }
}

fn d1() -> DeviceId {
    DeviceId::new("d1").expect("legal")
}

fn d2() -> DeviceId {
    DeviceId::new("d2").expect("legal")
}

fn conn(n: u32) -> ConnId {
    ConnId { boot: Boot(1), n }
}

fn task_id(text: &str) -> TaskId {
    TaskId::new(text).expect("legal")
}

fn wire_id(text: &str) -> WireId {
    WireId::new(text).expect("legal")
}

fn object_key(text: &str) -> ObjectKey {
    ObjectKey::new(text).expect("legal")
}

const LEN: u64 = 2481;

fn sha() -> Sha256 {
    Sha256([7; 32])
}

fn other_sha() -> Sha256 {
    Sha256([8; 32])
}

/// What the uploader says of a whole recording.
fn claim(wire: &str) -> Announced {
    Announced {
        task: wire.into(),
        key: Some(std::format!("f/d1/{wire}.mcap")),
        len: Some(LEN),
        sha256: Some(sha()),
        mcap_only: Some(false),
    }
}

fn head_facts() -> ObjectFacts {
    let etag = crate::id::ETag::new("e");
    ObjectFacts { len: LEN, etag, sha256: None, composite: None, announced: Some(sha()) }
}

fn head_reply() -> ObjectReply {
    ObjectReply::Head(Some(head_facts()))
}

fn sidecar_facts() -> SidecarFacts {
    SidecarFacts {
        sha256: Some(sha()),
        len: Some(LEN),
        duration_ms: Some(9_000),
        messages: Some(40),
        started_at: Some(Wall(START_MS - 86_400_000)),
        recorder_version: Some("0.4.0".into()),
    }
}

fn sidecar_reply() -> ObjectReply {
    sidecar_with(Some(sidecar_facts()))
}

fn sidecar_with(facts: Option<SidecarFacts>) -> ObjectReply {
    ObjectReply::Got(Got::Sidecar { len: 300, sha256: Sha256([3; 32]), facts })
}

fn digest_reply() -> ObjectReply {
    ObjectReply::Got(Got::Digest { len: LEN, sha256: sha() })
}

fn waiting(announced: Announced) -> UploadEntry {
    entry(UploadStatus::WaitAck, announced)
}

fn entry(status: UploadStatus, announced: Announced) -> UploadEntry {
    UploadEntry { status, announced, last_error: None }
}

fn status(connected: bool, uploads: Vec<UploadEntry>) -> TransferMessage {
    TransferMessage::Status(Status { connected, uploads: Some(uploads), ..Status::default() })
}

#[test]
fn a_row_in_memory_is_newer_than_one_that_was_read() {
    let mut rig = Rig::new();
    rig.create("T", &d1());
    let mut old = rig.task("T");
    old.state = TaskState::Cancelled;
    rig.parts.tasks.load(&Key::Task(task_id("T")), Row::Task(old));
    assert_eq!(rig.parts.tasks.tasks[&task_id("T")].state, TaskState::Pending);
}

#[test]
fn looking_up_what_was_not_asked_for_is_a_bug_that_shows() {
    let lookups: [fn(&Tasks) -> bool; 3] = [
        |tasks| tasks.by_device("T").is_some(),
        |tasks| tasks.by_operator("T").is_some(),
        |tasks| tasks.episode(EpisodeId(1)).is_some(),
    ];
    for lookup in lookups {
        let mut tasks = Tasks::default();
        let absent = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| lookup(&tasks)));
        assert!(absent.is_err(), "not asked for");
        let asked: BTreeMap<Key, Option<Row>> = [
            (Key::Task(task_id("T")), None),
            (Key::Alias(wire_id("T")), None),
            (Key::Episode(EpisodeId(1)), None),
        ]
        .into();
        tasks.begin_step(&asked);
        assert!(!lookup(&tasks), "asked for and not there");
    }
}
