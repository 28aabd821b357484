//! A site without a world, for tests of the watches: a real machine, its records, and one place where what comes of an
//! input can be spoiled before the watches see it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tidegate_core::effect::{Effect, Output};
use tidegate_core::id::{Boot, ConnId, DeviceId, RequestId, Role, SocketId, TaskId};
use tidegate_core::input::{Action, Command, Demand, Input, LostWhy, Request};
use tidegate_core::knobs::Knobs;
use tidegate_core::machine::{Machine, Rows};
use tidegate_core::policy::Builtin;
use tidegate_core::row::{Key, Row, TaskRow};
use tidegate_core::time::{Mono, Now, Wall};
use tidegate_core::wire::RecorderMessage;

use super::calls::Calls;
use super::lines::Rpc;
use super::links::Links;
use super::{Broken, Happened, Seen, Truth, Watch};
use crate::device::EPOCH_MS;
use crate::scenario::Scenario;
use crate::time::SimTime;

/// The device of most tests.
pub(super) const DEVICE: &str = "d1";

/// A site that is watched by both families.
pub(super) struct Rig {
    machine: Machine,
    policies: Builtin,
    pub rows: BTreeMap<Key, Row>,
    pub knobs: Knobs,
    pub links: Links,
    pub calls: Calls,
    scenario: Scenario,
    now: SimTime,
    booted: SimTime,
    boot: Boot,
    sockets: u64,
    requests: u64,
    /// What came of the last input.
    pub out: Output,
}

/// A message of a recorder: its state, in a push with its clock.
pub(super) fn push(state: Option<&str>, task: Option<&str>, ms: i64) -> RecorderMessage {
    RecorderMessage::StateUpdate {
        timestamp_ms: Some(ms),
        previous: None,
        current: state.map(Into::into),
        task: task.map(Into::into),
    }
}

/// The answer of a recorder.
pub(super) fn response(id: &str, success: bool, state: Option<&str>, task: Option<&str>) -> RecorderMessage {
    RecorderMessage::Response {
        request_id: id.into(),
        success,
        message: None,
        state: state.map(Into::into),
        task: task.map(Into::into),
        data: None,
    }
}

pub(super) fn device() -> DeviceId {
    DeviceId::new(DEVICE).unwrap()
}

impl Rig {
    /// A site that has booted once and knows the task `t`.
    pub(super) fn new() -> Rig {
        let knobs = Knobs::default();
        let scenario = Scenario {
            name: "rig".into(),
            about: String::new(),
            seed: 0,
            bug: None,
            expect: None,
            chaos: Duration::ZERO,
            settle: Duration::ZERO,
            sites: Vec::new(),
            devices: Vec::new(),
            steps: Vec::new(),
            faults: Vec::new(),
        };
        let mut rig = Rig {
            machine: Machine::new(),
            policies: Builtin::new(knobs.builtin.clone()),
            rows: BTreeMap::new(),
            knobs,
            links: Links::default(),
            calls: Calls::default(),
            scenario,
            now: SimTime::ZERO,
            booted: SimTime::ZERO,
            boot: Boot(0),
            sockets: 0,
            requests: 0,
            out: Output::default(),
        };
        rig.restart().unwrap();
        rig.create("t");
        rig
    }

    /// Kills the process and starts it again.
    pub(super) fn restart(&mut self) -> Result<(), Broken> {
        self.happened(&Happened::Down { site: 0, orderly: false })?;
        self.boot = Boot(self.boot.0 + 1);
        self.booted = self.now;
        self.machine = Machine::new();
        for (key, row) in self.rows.iter().filter(|(_, row)| Machine::is_hot(row)) {
            self.machine.load(key, row.clone());
        }
        self.happened(&Happened::Up { site: 0 })?;
        let boot = Input::Boot { boot: self.boot, seed: 7, knobs: self.knobs.clone() };
        self.act(&boot)
    }

    /// Tells both watches; the first that breaks, after both were asked.
    fn happened(&mut self, what: &Happened<'_>) -> Result<(), Broken> {
        let truth = truth(self.now, &self.scenario);
        let links = self.links.happened(&truth, what);
        let calls = self.calls.happened(&truth, what);
        one(links, calls)
    }

    /// An effect leaves the site.
    pub(super) fn released(&mut self, effect: &Effect) -> Result<(), Broken> {
        self.happened(&Happened::Released { site: 0, effect })
    }

    /// The number of the last boot, for the next one.
    pub(super) fn set_boot(&mut self, boot: u64) {
        self.boot = Boot(boot);
    }

    /// The last request.
    pub(super) fn last_request(&self) -> RequestId {
        RequestId(self.requests)
    }

    /// Lets time pass; what is due is not yet done.
    pub(super) fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
    }

    /// Milliseconds since the world began.
    pub(super) fn millis(&self) -> u64 {
        self.now.millis()
    }

    /// Lets time pass and everything happen that falls due meanwhile, each at its time.
    pub(super) fn sleep(&mut self, time: Duration) -> Result<(), Broken> {
        let end = self.now + time;
        loop {
            let due = self.machine.next_wake().map(|(due, _)| self.booted + Duration::from_nanos(due.0));
            match due.filter(|due| *due <= end) {
                Some(due) => {
                    self.now = self.now.max(due);
                    self.act(&Input::Wake)?;
                }
                None => {
                    self.now = end;
                    return Ok(());
                }
            }
        }
    }

    /// Lets time pass until the machine has something to do, and lets it.
    pub(super) fn until_wake(&mut self) -> Result<(), Broken> {
        let (due, _) = self.machine.next_wake().expect("something is armed");
        let mono = Mono(u64::try_from((self.now - self.booted).as_nanos()).unwrap());
        self.pass(mono.until(due));
        self.act(&Input::Wake)
    }

    /// One input, and everything it leads to released.
    pub(super) fn act(&mut self, input: &Input) -> Result<(), Broken> {
        self.spoil(input, |_| {})
    }

    /// One input whose output is changed before anybody sees it.
    pub(super) fn spoil(&mut self, input: &Input, spoil: impl FnOnce(&mut Output)) -> Result<(), Broken> {
        let wall = Wall(EPOCH_MS + i64::try_from(self.now.millis()).unwrap());
        let mono = Mono(u64::try_from((self.now - self.booted).as_nanos()).unwrap());
        let now = Now { wall, mono };
        let mut cold = Rows::new();
        loop {
            let mut keys = BTreeSet::new();
            self.machine.wants(now, input, &cold, &mut keys);
            if keys.is_empty() {
                break;
            }
            cold.extend(keys.into_iter().map(|key| (key.clone(), self.rows.get(&key).cloned())));
        }
        let mut out = Output::default();
        self.machine.step(now, input, &cold, &mut self.policies, &mut out);
        spoil(&mut out);
        let mut before = BTreeMap::new();
        for (key, row) in &out.rows {
            let was = match row {
                Some(row) => self.rows.insert(key.clone(), row.clone()),
                None => self.rows.remove(key),
            };
            before.insert(key.clone(), was);
        }
        let seen = Seen {
            truth: truth(self.now, &self.scenario),
            site: 0,
            now,
            stepped: self.now,
            boot: self.boot,
            knobs: &self.knobs,
            input,
            out: &out,
            before: &before,
            rows: &self.rows,
        };
        let links = self.links.step(&seen);
        let calls = self.calls.step(&seen);
        one(links, calls)?;
        for effect in &out.effects {
            self.happened(&Happened::Released { site: 0, effect })?;
        }
        self.out = out;
        Ok(())
    }

    pub(super) fn knock_input(&mut self, role: Role) -> Input {
        self.sockets += 1;
        let socket = SocketId(self.sockets);
        Input::Knock {
            socket,
            device: device(),
            role,
            remote: "there".into(),
            credential: None,
            port: None,
            demand: Demand::Nothing,
        }
    }

    /// A program of the device dials.
    pub(super) fn knock(&mut self, role: Role) -> Result<ConnId, Broken> {
        let knock = self.knock_input(role);
        self.act(&knock)?;
        let admitted = self.out.effects.iter().find_map(|effect| match effect {
            Effect::Admit { conn, .. } => Some(*conn),
            _ => None,
        });
        Ok(admitted.expect("nothing speaks against it"))
    }

    /// The recorder says something.
    pub(super) fn say(&mut self, conn: ConnId, message: RecorderMessage) -> Result<(), Broken> {
        self.act(&Input::Recorder { conn, message })
    }

    /// A link is gone.
    pub(super) fn lose(&mut self, conn: ConnId) -> Result<(), Broken> {
        self.act(&Input::Lost { conn, why: LostWhy::Broken })
    }

    pub(super) fn request_input(&mut self, request: Request) -> (RequestId, Input) {
        self.requests += 1;
        let id = RequestId(self.requests);
        let request = match request {
            Request::Command(command) => Request::Command(Command { reply: Some(id), ..command }),
            request => request,
        };
        (id, Input::Request { id, request })
    }

    /// Somebody asks for something.
    pub(super) fn request(&mut self, request: Request) -> Result<RequestId, Broken> {
        let (id, input) = self.request_input(request);
        self.act(&input)?;
        Ok(id)
    }

    /// A task for the device.
    pub(super) fn create(&mut self, id: &str) {
        let task = TaskId::new(id).unwrap();
        self.request(Request::CreateTask { task: Some(task), device: device(), config: None }).unwrap();
    }

    /// The commands that the last input sent: link and command.
    pub(super) fn sent(&self) -> Vec<(ConnId, Rpc)> {
        let rpc = |effect: &Effect| match effect {
            Effect::Send { conn, frame } => Rpc::read(&frame.text).map(|rpc| (*conn, rpc)),
            _ => None,
        };
        self.out.effects.iter().filter_map(rpc).collect()
    }

    /// The id of the one command that the last input sent.
    pub(super) fn rpc(&self) -> String {
        let sent = self.sent();
        assert_eq!(sent.len(), 1, "{sent:?}");
        sent[0].1.id.clone()
    }

    /// Both programs connect, and the recorder says that it is idle.
    pub(super) fn idle(&mut self) -> ConnId {
        self.knock(Role::Transfer).unwrap();
        let conn = self.knock(Role::Recorder).unwrap();
        let id = self.rpc();
        self.say(conn, response(&id, true, Some("idle"), None)).unwrap();
        conn
    }

    /// Both programs connect, and the recorder is configured for `t`.
    pub(super) fn ready(&mut self) -> ConnId {
        let conn = self.idle();
        self.request(command(Action::Config, Some("t"))).unwrap();
        let id = self.rpc();
        self.say(conn, response(&id, true, Some("ready"), Some("t"))).unwrap();
        conn
    }

    /// The record of a task.
    pub(super) fn task(&self, id: &str) -> TaskRow {
        match &self.rows[&Key::Task(TaskId::new(id).unwrap())] {
            Row::Task(row) => row.clone(),
            row => panic!("{row:?}"),
        }
    }

    /// The world comes to its end.
    pub(super) fn end(&mut self) -> Result<(), Broken> {
        let truth = truth(self.now, &self.scenario);
        let links = self.links.end(&truth);
        let calls = self.calls.end(&truth);
        one(links, calls)
    }

    /// How often a premise held.
    pub(super) fn met(&self, premise: &str) -> u64 {
        let of = |watch: &dyn Watch| watch.premises().0.get(premise).copied().unwrap_or(0);
        of(&self.links) + of(&self.calls)
    }
}

/// A command for the device.
pub(super) fn command(action: Action, task: Option<&str>) -> Request {
    Request::Command(Command {
        device: device(),
        action,
        task: task.map(Into::into),
        params: None,
        token: None,
        reply: None,
        task_state: None,
    })
}

/// Asserts that this invariant, and nothing else, broke.
#[track_caller]
pub(super) fn breaks(invariant: &str, result: Result<(), Broken>) {
    let broken = result.expect_err("somebody notices");
    assert_eq!(broken.invariant, invariant, "{}", broken.saw);
}

/// One breaks, or none: what one family is there for must not disturb the other.
fn one(links: Result<(), Broken>, calls: Result<(), Broken>) -> Result<(), Broken> {
    if let (Err(links), Err(calls)) = (&links, &calls) {
        panic!("two at once: {links:?} and {calls:?}");
    }
    links.and(calls)
}

fn truth(now: SimTime, scenario: &Scenario) -> Truth<'_> {
    Truth { now, scenario, edges: &[], clouds: &[], devices: &[], images: &[] }
}
