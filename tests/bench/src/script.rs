//! A mixed script for the core: devices that come and go, record, upload and are answered, an operator, and stores that
//! fail now and then. Made once by living it; then it is a list of inputs that can be stepped again at any speed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde_json::Value;
use tidegate_core::chance::Chance;
use tidegate_core::effect::{Effect, Output};
use tidegate_core::id::{
    Boot, ConnId, DeviceId, EpisodeId, ObjectKey, RequestId, Role, SocketId, TaskId, Ticket,
};
use tidegate_core::input::{Action, Command, Demand, Input, LostWhy, Request};
use tidegate_core::knobs::Knobs;
use tidegate_core::machine::{Machine, Rows};
use tidegate_core::object::{ObjectOp, Store};
use tidegate_core::outcome::{Fault, Outcome};
use tidegate_core::policy::Builtin;
use tidegate_core::row::{Key, Qa, RecordingFacts, Row, SyncMark};
use tidegate_core::time::{Mono, Now, Wall};
use tidegate_core::wire::transfer::{Announced, Status};
use tidegate_core::wire::{RecorderMessage, TransferMessage};

use crate::instant::{Holds, InstantStore};

/// One input with everything that the step needs.
#[derive(Debug)]
pub struct Step {
    /// Both clocks.
    pub now: Now,
    /// What happened.
    pub input: Input,
    /// The records that had to be read for it.
    pub cold: Rows,
}

/// The script, and what it came to.
#[derive(Debug)]
pub struct Script {
    /// All inputs.
    pub steps: Vec<Step>,
    /// Policies that every step is given.
    pub policies: Builtin,
    /// Recordings made.
    pub recordings: usize,
    /// Of them in the cloud at the end, verified.
    pub synced: usize,
    /// Operations that were answered with a fault or not at all.
    pub faults: usize,
}

/// Bytes of every recording: four parts.
const LEN: u64 = 30 << 20;
/// One in so many operations of the cloud goes wrong.
const FAULT_ONE_IN: u64 = 16;

/// Lives the script: so many devices, each so many recordings.
pub fn live(devices: usize, recordings: usize, seed: u64) -> Script {
    let mut knobs = Knobs { destination: true, ..Knobs::default() };
    knobs.builtin.uploads = 8;
    // The script's faults are many; none may use up a recording's attempts.
    knobs.builtin.attempts = 50;
    let mut site = Site::new(knobs, devices, seed);
    for n in 0..recordings {
        for d in 0..devices {
            site.record(d, n);
        }
    }
    for _ in 0..10 * devices {
        site.nap();
    }
    let synced = |row: &&Row| matches!(row, Row::Episode(row) if matches!(row.sync, SyncMark::Synced { .. }));
    Script {
        recordings: devices * recordings,
        synced: site.rows.values().filter(synced).count(),
        faults: site.faults,
        steps: site.steps,
        policies: site.policies,
    }
}

struct Device {
    id: DeviceId,
    recorder: Option<ConnId>,
    uploader: Option<ConnId>,
    state: &'static str,
    task: Option<String>,
}

struct Site {
    machine: Machine,
    policies: Builtin,
    rows: BTreeMap<Key, Row>,
    now: Now,
    steps: Vec<Step>,
    out: Output,
    devices: Vec<Device>,
    /// Who knocked.
    sockets: BTreeMap<SocketId, (usize, Role)>,
    /// What follows from effects and was not told yet.
    next: VecDeque<Input>,
    /// Episodes that nobody judged yet.
    fresh: Vec<EpisodeId>,
    edge: InstantStore,
    cloud: InstantStore,
    luck: Chance,
    numbers: u64,
    faults: usize,
    last: Option<(Ticket, Outcome<tidegate_core::object::ObjectReply>)>,
}

impl Site {
    fn new(knobs: Knobs, devices: usize, seed: u64) -> Site {
        let device = |n| Device {
            id: DeviceId::new(&format!("robot-{n:04}")).expect("a legal id"),
            recorder: None,
            uploader: None,
            state: "idle",
            task: None,
        };
        let mut site = Site {
            machine: Machine::new(),
            policies: Builtin::new(knobs.builtin.clone()),
            rows: BTreeMap::new(),
            now: Now { wall: Wall(1_790_000_000_000), mono: Mono(0) },
            steps: Vec::new(),
            out: Output::default(),
            devices: (0..devices).map(device).collect(),
            sockets: BTreeMap::new(),
            next: VecDeque::new(),
            fresh: Vec::new(),
            edge: InstantStore::new(Holds::Everything, LEN),
            cloud: InstantStore::new(Holds::Nothing, LEN),
            luck: Chance::new(seed),
            numbers: 0,
            faults: 0,
            last: None,
        };
        site.tell(Input::Boot { boot: Boot(1), seed, knobs });
        for d in 0..devices {
            site.connect(d);
        }
        site
    }

    /// An input, and everything that follows from it.
    fn tell(&mut self, input: Input) {
        self.next.push_back(input);
        while let Some(input) = self.next.pop_front() {
            self.step(input);
        }
    }

    fn step(&mut self, input: Input) {
        self.pass(2);
        let cold = self.prefetch(&input);
        self.out.clear();
        self.machine.step(self.now, &input, &cold, &mut self.policies, &mut self.out);
        self.steps.push(Step { now: self.now, input, cold });
        for (key, row) in std::mem::take(&mut self.out.rows) {
            if let Some(Row::Episode(row)) = &row
                && row.qa == Qa::Pending
            {
                self.fresh.push(row.id);
            }
            match row {
                Some(row) => self.rows.insert(key, row),
                None => self.rows.remove(&key),
            };
        }
        for effect in std::mem::take(&mut self.out.effects) {
            self.release(effect);
        }
    }

    fn prefetch(&self, input: &Input) -> Rows {
        let (mut have, mut wanted) = (Rows::new(), BTreeSet::new());
        loop {
            self.machine.wants(self.now, input, &have, &mut wanted);
            if wanted.is_empty() {
                return have;
            }
            for key in std::mem::take(&mut wanted) {
                let row = self.rows.get(&key).cloned();
                have.insert(key, row);
            }
        }
    }

    fn pass(&mut self, ms: u64) {
        self.now.mono = Mono(self.now.mono.0 + ms * 1_000_000);
        self.now.wall = Wall(self.now.wall.0 + i64::try_from(ms).unwrap_or(0));
    }

    fn release(&mut self, effect: Effect) {
        match effect {
            Effect::Admit { socket, conn } => {
                if let Some((d, role)) = self.sockets.remove(&socket) {
                    match role {
                        Role::Recorder => self.devices[d].recorder = Some(conn),
                        Role::Transfer => self.devices[d].uploader = Some(conn),
                    }
                }
            }
            Effect::Send { conn, frame } => self.hear(conn, &frame.text),
            Effect::Object { ticket, op } => {
                let outcome = self.perform(&op);
                self.last = Some((ticket, outcome.clone()));
                self.next.push_back(Input::Object { ticket, outcome });
            }
            // This site has the built-in rules alone: no host has anything to do.
            Effect::Policy { .. }
            | Effect::TurnAway { .. }
            | Effect::Close { .. }
            | Effect::Reply { .. }
            | Effect::Publish(_)
            | Effect::Gate(_)
            | Effect::Freeze { .. }
            | Effect::Thaw { .. }
            | Effect::Grant { .. }
            | Effect::Bar { .. } => {}
        }
    }

    fn perform(&mut self, op: &ObjectOp) -> Outcome<tidegate_core::object::ObjectReply> {
        let store = match op.store {
            Store::Edge => &self.edge,
            Store::Cloud => {
                if self.luck.below(FAULT_ONE_IN) == 0 {
                    self.faults += 1;
                    return match self.luck.below(4) {
                        0 => Outcome::Failed(Fault::Throttled { retry_after_ms: Some(500) }),
                        1 => Outcome::Failed(Fault::Unavailable { status: 503 }),
                        2 => Outcome::Failed(Fault::Rejected("RequestTimeout".to_owned())),
                        _ => Outcome::Unknown,
                    };
                }
                &self.cloud
            }
        };
        Outcome::Done(store.answer(&op.key, &op.verb))
    }

    /// A recorder does what it is told; an uploader answers questions.
    fn hear(&mut self, conn: ConnId, text: &str) {
        let frame: Value = serde_json::from_str(text).expect("the site sends JSON");
        let Some(d) = self.devices.iter().position(|d| [d.recorder, d.uploader].contains(&Some(conn))) else {
            return;
        };
        let device = &mut self.devices[d];
        if device.uploader == Some(conn) {
            if frame["type"] == "status_query" {
                let message = TransferMessage::Status(Status { connected: false, ..Status::default() });
                self.next.push_back(Input::Transfer { conn, message });
            }
            return;
        }
        match frame["action"].as_str() {
            Some("config") => {
                device.state = "ready";
                device.task = frame["params"]["task_config"]["task_id"].as_str().map(str::to_owned);
            }
            Some("begin") => device.state = "recording",
            Some("finish") => device.state = "idle",
            _ => {}
        }
        let message = RecorderMessage::Response {
            request_id: frame["request_id"].as_str().unwrap_or_default().to_owned(),
            success: true,
            message: None,
            state: Some(device.state.to_owned()),
            task: device.task.clone(),
            data: Some(format!("{{\"state\":\"{}\"}}", device.state)),
        };
        self.next.push_back(Input::Recorder { conn, message });
    }

    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    fn connect(&mut self, d: usize) {
        for role in [Role::Transfer, Role::Recorder] {
            let socket = SocketId(self.number());
            self.sockets.insert(socket, (d, role));
            let device = self.devices[d].id.clone();
            self.tell(Input::Knock { socket, device, role, remote: "10.0.0.7".to_owned(), credential: None, port: None, demand: Demand::Nothing });
        }
        if let Some(conn) = self.devices[d].uploader {
            let status = Status { connected: true, version: Some("2.0".to_owned()), ..Status::default() };
            self.tell(Input::Transfer { conn, message: TransferMessage::Status(status) });
        }
    }

    fn disconnect(&mut self, d: usize) {
        let device = &mut self.devices[d];
        for conn in [device.recorder.take(), device.uploader.take()].into_iter().flatten() {
            self.tell(Input::Lost { conn, why: LostWhy::Broken });
        }
    }

    fn ask(&mut self, request: Request) {
        let id = RequestId(self.number());
        self.tell(Input::Request { id, request });
    }

    fn order(&mut self, d: usize, action: Action, task: &str) {
        let params = match action {
            Action::Config => {
                format!("{{\"task_config\":{{\"task_id\":\"{task}\",\"topics\":[\"/imu\",\"/camera\"]}}}}")
            }
            _ => format!("{{\"task_id\":\"{task}\"}}"),
        };
        self.ask(Request::Command(Command {
            device: self.devices[d].id.clone(),
            action,
            task: Some(task.to_owned()),
            params: Some(params),
            token: None,
            reply: None,
            task_state: None,
        }));
    }

    /// What devices say all the time, as text on the wire would be decoded.
    fn chatter(&mut self, d: usize, previous: &str) {
        let device = &self.devices[d];
        if let Some(conn) = device.recorder {
            let message = RecorderMessage::StateUpdate {
                timestamp_ms: Some(self.now.wall.0),
                previous: Some(previous.to_owned()),
                current: Some(device.state.to_owned()),
                task: device.task.clone(),
            };
            self.tell(Input::Recorder { conn, message });
        }
        if let Some(conn) = self.devices[d].uploader {
            let status = Status { pending: 1, bytes_per_sec: 1 << 20, ..Status::default() };
            self.tell(Input::Transfer { conn, message: TransferMessage::Status(status) });
        }
    }

    /// A recording from its task to the cloud.
    fn record(&mut self, d: usize, n: usize) {
        let device = self.devices[d].id.clone();
        let task = format!("task-{d:04}-{n:04}");
        let id = TaskId::new(&task).expect("a legal id");
        self.ask(Request::CreateTask { task: Some(id), device: device.clone(), config: None });
        self.order(d, Action::Config, &task);
        self.chatter(d, "idle");
        self.order(d, Action::Begin, &task);
        self.ask(Request::CallbackStart { task: task.clone(), device: Some(device.clone()), credential: None });
        self.chatter(d, "ready");
        self.ask(Request::RefreshState { device: device.clone(), max_age_ms: 0 });
        for _ in 0..3 {
            self.pass(1_000);
            self.chatter(d, "recording");
        }
        self.order(d, Action::Finish, &task);
        let facts = RecordingFacts { len: Some(LEN), messages: Some(1_000), ..RecordingFacts::default() };
        self.ask(Request::CallbackFinish { task: task.clone(), device: device.clone(), facts, credential: None });
        self.deliver(d, &task);
        for episode in std::mem::take(&mut self.fresh) {
            self.ask(Request::Judge { episode, approve: true, reason: None });
            self.ask(Request::Sync { episode });
        }
        self.nap();
        if n % 5 == 4 {
            self.disconnect(d);
            self.connect(d);
        }
        if n % 7 == 6
            && let Some((ticket, outcome)) = self.last.clone()
        {
            // An answer that comes twice.
            self.tell(Input::Object { ticket, outcome });
        }
    }

    fn deliver(&mut self, d: usize, task: &str) {
        let Some(conn) = self.devices[d].uploader else { return };
        let key = ObjectKey::new(&format!("{}/{task}.mcap", self.devices[d].id)).expect("a legal key");
        let sha256 = InstantStore::content(&key);
        let announced = Announced {
            task: task.to_owned(),
            key: Some(key.to_string()),
            len: Some(LEN),
            sha256: Some(sha256),
            mcap_only: Some(true),
        };
        let started = Announced { len: None, sha256: None, ..announced.clone() };
        self.tell(Input::Transfer { conn, message: TransferMessage::UploadStarted(started) });
        self.tell(Input::Stored { key, len: LEN, sha256 });
        self.tell(Input::Transfer { conn, message: TransferMessage::UploadComplete(announced) });
    }

    /// Time passes until something is due.
    fn nap(&mut self) {
        if let Some((at, _)) = self.machine.next_wake() {
            let wait = self.now.mono.until(at);
            self.pass(u64::try_from(wait.as_millis()).unwrap_or(0) + 1);
            self.tell(Input::Wake);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::live;

    #[test]
    fn nine_of_ten_recordings_of_the_script_reach_the_cloud_although_the_store_fails() {
        let script = live(3, 8, 7);
        // The others wait for their next try when the script ends.
        assert!(script.synced * 10 >= script.recordings * 9, "{} of {}", script.synced, script.recordings);
        assert!(script.faults > 0 && script.recordings == 24);
    }
}
