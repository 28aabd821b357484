//! A calm site around a real machine, for tests of the watches alone: it lives a fixed life, and one step of it can be
//! spoiled before anybody looks. Not the world: no network, no chance, no time that passes by itself.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use tidegate_core::effect::{Effect, Output};
use tidegate_core::id::{
    Boot, ConnId, DeviceId, EpisodeId, ObjectKey, RequestId, Role, SocketId, TaskId, Ticket,
};
use tidegate_core::input::{Demand, Input, Request};
use tidegate_core::knobs::Knobs;
use tidegate_core::machine::{Machine, Rows};
use tidegate_core::object::{ObjectOp, ObjectReply, SidecarFacts, Store};
use tidegate_core::outcome::{Fault, Outcome, What};
use tidegate_core::policy::Builtin;
use tidegate_core::row::{Key, RecordingFacts, Row};
use tidegate_core::time::{Mono, Now, Wall};
use tidegate_core::wire::TransferMessage;
use tidegate_core::wire::transfer::Announced;

use super::bandwidth::BandwidthWatch;
use super::policies::PolicyWatch;
use super::queue::QueueWatch;
use super::rows::Image;
use super::system::SystemWatch;
use super::tasks::TaskWatch;
use super::uploads::UploadWatch;
use super::{Broken, Happened, Premises, Seen, Truth, Watch};
use crate::device::Device;
use crate::scenario::{DeviceSpec, Firmware, Flavour, Scenario, Site};
use crate::store::{Bucket, Content};
use crate::stream::Stream;
use crate::time::SimTime;

const MIB: u64 = 1 << 20;

/// Spoils a step's output before anybody looks. True: done.
pub(super) type Spoil = Box<dyn FnMut(&Rig, &Input, &mut Output) -> bool>;

/// A site with one device.
pub(super) struct Rig {
    pub(super) images: Vec<Image>,
    pub(super) edges: Vec<Bucket>,
    pub(super) clouds: Vec<Bucket>,
    pub(super) devices: Vec<Device>,
    pub(super) scenario: Scenario,
    pub(super) knobs: Knobs,
    pub(super) now: Now,
    pub(super) sim: SimTime,
    pub(super) boot: Boot,
    pub(super) spoil: Option<Spoil>,
    /// The next step never becomes durable: the process is killed first.
    pub(super) doomed: bool,
    /// What was asked of the stores and not done yet.
    pub(super) ops: VecDeque<(Ticket, ObjectOp)>,
    /// Answers that come instead of the next of a verb at a store: failed ones did not happen, unknown ones did.
    pub(super) faults: Vec<(Store, &'static str, Outcome<ObjectReply>)>,
    pub(super) conn: Option<ConnId>,
    machine: Machine,
    requests: u64,
    sockets: u64,
    last: Option<Ticket>,
    watches: [Box<dyn Watch>; 6],
    /// What every family said, when one of them first said something.
    pub(super) broken: Vec<Broken>,
}

fn key(text: &str) -> ObjectKey {
    ObjectKey::new(text).expect("a key")
}

fn device() -> DeviceId {
    DeviceId::new("d1").expect("an id")
}

impl Rig {
    pub(super) fn new() -> Rig {
        let mut knobs = Knobs {
            destination: true,
            part_size: 5 * MIB,
            parts_in_flight: 2,
            keep_edge_ms: Some(90_000),
            ..Knobs::default()
        };
        knobs.builtin.attempts = 2;
        let site = Site {
            name: "site".into(),
            knobs: knobs.clone(),
            flavour: Flavour::Composite,
            flush: std::time::Duration::ZERO,
            cloud_latency: std::time::Duration::ZERO,
            cloud_speed: 1,
            policy: crate::scenario::Manner::Builtin,
        };
        let scenario = Scenario {
            name: "rig".into(),
            about: String::new(),
            seed: 0,
            bug: None,
            expect: None,
            chaos: std::time::Duration::ZERO,
            settle: std::time::Duration::ZERO,
            sites: vec![site],
            devices: Vec::new(),
            steps: Vec::new(),
            faults: Vec::new(),
        };
        Rig {
            images: vec![Image::new()],
            edges: vec![Bucket::new(Flavour::Full)],
            clouds: vec![Bucket::new(Flavour::Composite)],
            devices: Vec::new(),
            scenario,
            knobs,
            now: Now { wall: Wall(1_790_000_000_000), mono: Mono(0) },
            sim: SimTime::ZERO,
            boot: Boot(0),
            spoil: None,
            doomed: false,
            ops: VecDeque::new(),
            faults: Vec::new(),
            conn: None,
            machine: Machine::new(),
            requests: 0,
            sockets: 0,
            last: None,
            watches: [
                Box::<TaskWatch>::default(),
                Box::<QueueWatch>::default(),
                Box::<UploadWatch>::default(),
                Box::<SystemWatch>::default(),
                Box::<PolicyWatch>::default(),
                Box::<BandwidthWatch>::default(),
            ],
            broken: Vec::new(),
        }
    }

    fn look(&mut self, ask: impl Fn(&mut dyn Watch, &Truth<'_>) -> Result<(), Broken>) -> Result<(), Broken> {
        let truth = Truth {
            now: self.sim,
            scenario: &self.scenario,
            edges: &self.edges,
            clouds: &self.clouds,
            devices: &self.devices,
            images: &self.images,
        };
        for watch in &mut self.watches {
            if let Err(broken) = ask(watch.as_mut(), &truth) {
                self.broken.push(broken);
            }
        }
        self.broken.first().map_or(Ok(()), |broken| Err(broken.clone()))
    }

    /// Tells the watches that something happened.
    pub(super) fn tell(&mut self, what: &Happened<'_>) -> Result<(), Broken> {
        self.look(|watch, truth| watch.happened(truth, what))
    }

    /// Tells the watches that the world ends.
    pub(super) fn end(&mut self) -> Result<(), Broken> {
        self.look(|watch, truth| watch.end(truth))
    }

    /// Lets time pass on all clocks.
    pub(super) fn pass(&mut self, ms: u64) {
        self.now.mono = Mono(self.now.mono.0 + ms * 1_000_000);
        self.now.wall = Wall(self.now.wall.0 + i64::try_from(ms).expect("small"));
        self.sim = SimTime(self.sim.0 + ms * 1_000_000);
    }

    /// One input: prefetch, step, commit, look, release.
    pub(super) fn input(&mut self, input: Input) -> Result<(), Broken> {
        let mut cold = Rows::new();
        for _ in 0..8 {
            let mut keys = BTreeSet::new();
            self.machine.wants(self.now, &input, &cold, &mut keys);
            for key in keys {
                let row = self.images[0].get(&key).cloned();
                cold.insert(key, row);
            }
        }
        let mut out = Output::default();
        let mut policies = Builtin::new(self.knobs.builtin.clone());
        self.machine.step(self.now, &input, &cold, &mut policies, &mut out);
        if let Some(mut spoil) = self.spoil.take()
            && !spoil(self, &input, &mut out)
        {
            self.spoil = Some(spoil);
        }
        if std::mem::take(&mut self.doomed) && !matches!(input, Input::Boot { .. }) {
            self.tell(&Happened::Undone { site: 0 })?;
            return self.restart();
        }
        let mut before: BTreeMap<Key, Option<Row>> = BTreeMap::new();
        for (key, row) in &out.rows {
            let old = match row {
                Some(row) => self.images[0].insert(key.clone(), row.clone()),
                None => self.images[0].remove(key),
            };
            before.insert(key.clone(), old);
        }
        let (now, boot, knobs) = (self.now, self.boot, self.knobs.clone());
        self.look(|watch, truth| {
            watch.step(&Seen {
                truth: *truth,
                site: 0,
                now,
                stepped: truth.now,
                boot,
                knobs: &knobs,
                input: &input,
                out: &out,
                before: &before,
                rows: &truth.images[0],
            })
        })?;
        for effect in &out.effects {
            self.tell(&Happened::Released { site: 0, effect })?;
            match effect {
                Effect::Object { ticket, op } => self.ops.push_back((*ticket, op.clone())),
                Effect::Freeze { key } => {
                    self.edges[0].frozen.insert(key.clone());
                }
                Effect::Grant { .. } | Effect::Bar { .. } => {}
                Effect::Thaw { key } => {
                    self.edges[0].frozen.remove(key);
                }
                Effect::Admit { conn, .. } => self.conn = Some(*conn),
                _ => {}
            }
        }
        Ok(())
    }

    /// The process is killed and starts again.
    pub(super) fn restart(&mut self) -> Result<(), Broken> {
        self.ops.clear();
        self.edges[0].frozen.clear();
        self.tell(&Happened::Down { site: 0, orderly: false })?;
        self.machine = Machine::new();
        for (key, row) in &self.images[0] {
            if Machine::is_hot(row) {
                self.machine.load(key, row.clone());
            }
        }
        self.boot = Boot(self.boot.0 + 1);
        self.now.mono = Mono(self.boot.0 * 1_000_000_000);
        self.tell(&Happened::Up { site: 0 })?;
        self.input(Input::Boot { boot: self.boot, seed: 7, knobs: self.knobs.clone() })?;
        self.sockets += 1;
        let (socket, role) = (SocketId(self.sockets), Role::Transfer);
        self.input(Input::Knock {
            socket,
            device: device(),
            role,
            remote: "r".into(),
            credential: None,
            port: None,
            demand: Demand::Nothing,
        })
    }

    pub(super) fn ask(&mut self, request: Request) -> Result<(), Broken> {
        self.requests += 1;
        self.input(Input::Request { id: RequestId(self.requests), request })
    }

    /// Does the next operation that was asked for, and tells how it ended.
    pub(super) fn one(&mut self) -> Result<bool, Broken> {
        let Some((ticket, op)) = self.ops.pop_front() else { return Ok(false) };
        let at =
            self.faults.iter().position(|(store, verb, _)| (*store, *verb) == (op.store, op.verb.name()));
        let fault = at.map(|at| self.faults.remove(at).2);
        let outcome = match fault {
            Some(failed @ Outcome::Failed(_)) => failed,
            other => {
                let done = match op.store {
                    Store::Edge => self.edges[0].run(&op, None),
                    Store::Cloud => self.clouds[0].run(&op, Some(&self.edges[0])),
                };
                other.unwrap_or_else(|| done.map_or_else(Outcome::Failed, Outcome::Done))
            }
        };
        self.last = Some(ticket);
        self.input(Input::Object { ticket, outcome })?;
        Ok(true)
    }

    /// Lets everything be answered, and time pass until nothing is left to do for so long.
    pub(super) fn settle(&mut self, ms: u64) -> Result<(), Broken> {
        let until = self.now.mono.after(std::time::Duration::from_millis(ms));
        loop {
            while self.one()? {}
            let next = self.machine.next_wake().map(|(at, _)| at).filter(|at| *at <= until);
            let Some(at) = next else { return Ok(()) };
            let wait = self.now.mono.until(at).as_nanos().div_ceil(1_000_000);
            self.pass(u64::try_from(wait).expect("small"));
            self.input(Input::Wake)?;
        }
    }

    /// What a file of a task holds; no two tasks hold the same.
    pub(super) fn file(task: &str) -> Content {
        let id = task.bytes().fold(0_u64, |id, byte| id * 31 + u64::from(byte));
        Content { id, len: 12 * MIB, facts: None }
    }

    /// A device brings a recording, says so, and it is judged and asked for.
    pub(super) fn record(&mut self, task: &str) -> Result<(), Broken> {
        let id = TaskId::new(task).expect("an id");
        let (at, file) = (format!("d1/{task}.mcap"), Rig::file(task));
        self.ask(Request::CreateTask { task: Some(id), device: device(), config: None })?;
        let facts =
            SidecarFacts { len: Some(file.len), sha256: Some(file.sha256()), ..SidecarFacts::default() };
        let sidecar = Content { id: file.id + 1, len: 300, facts: Some(facts) };
        self.edges[0].offer(&key(&at), file.clone(), Some(file.sha256()));
        self.edges[0].offer(&key(&at.replace(".mcap", ".json")), sidecar, None);
        self.announce(task)?;
        while self.one()? {}
        let recorded = super::rows::episodes(&self.images[0]).find(|row| row.task.as_str() == task);
        // Something may have gone wrong on the way.
        let Some(episode) = recorded.map(|row| row.id) else { return Ok(()) };
        self.ask(Request::Judge { episode, approve: true, reason: None })?;
        self.ask(Request::Sync { episode })
    }

    pub(super) fn announce(&mut self, task: &str) -> Result<(), Broken> {
        let file = Rig::file(task);
        let announced = Announced {
            task: task.into(),
            key: Some(format!("d1/{task}.mcap")),
            len: Some(file.len),
            sha256: Some(file.sha256()),
            mcap_only: Some(false),
        };
        let conn = self.conn.expect("it is connected");
        self.input(Input::Transfer { conn, message: TransferMessage::UploadComplete(announced) })
    }

    /// The answer to the last operation, once more.
    pub(super) fn echo(&mut self) -> Result<(), Broken> {
        let Some(ticket) = self.last else { return Ok(()) };
        self.input(Input::Object { ticket, outcome: Outcome::Unknown })
    }

    /// A life in which everything happens that the watches look for, and nothing is wrong.
    pub(super) fn life(&mut self) -> Result<(), Broken> {
        self.restart()?;
        self.record("t1")?;
        self.announce("t1")?;
        self.settle(200_000)?;
        // The way fails, then our own disk, then the data, and a part's answer is lost.
        let offline = Outcome::Failed(Fault::Offline);
        self.faults.push((Store::Cloud, "head", offline.clone()));
        self.faults.push((Store::Cloud, "create", Outcome::Failed(Fault::Local("disk".into()))));
        self.faults.push((Store::Cloud, "create", Outcome::Failed(Fault::Rejected("no".into()))));
        self.faults.push((Store::Cloud, "put_part", Outcome::Unknown));
        self.record("t2")?;
        self.settle(200_000)?;
        self.echo()?;
        // Killed while parts are under way.
        self.record("t3")?;
        while !self.ops.iter().any(|(_, op)| op.verb.name() == "put_part") {
            self.one()?;
        }
        self.one()?;
        let old = self.ops.front().map(|(ticket, _)| *ticket);
        self.restart()?;
        if let Some(ticket) = old {
            self.input(Input::Object { ticket, outcome: Outcome::Unknown })?;
        }
        // Somebody sets the clock while a copy is kept.
        self.settle(2_000)?;
        self.now.wall = Wall(self.now.wall.0 + 3_600_000);
        self.tell(&Happened::Stepped { site: 0, by_ms: 3_600_000 })?;
        self.settle(200_000)?;
        // A job that gives up, with its upload open.
        // Two parts are under way in each of two attempts.
        for _ in 0..4 {
            self.faults.push((Store::Cloud, "put_part", Outcome::Failed(Fault::Damaged(What::Part))));
        }
        self.record("t4")?;
        self.settle(600_000)?;
        self.restart()?;
        self.settle(1_000)?;
        // A policy that asks for more than a day.
        let day = 24 * 3_600_000;
        (self.knobs.builtin.retry_base_ms, self.knobs.builtin.retry_cap_ms) = (2 * day, 3 * day);
        self.restart()?;
        self.faults.push((Store::Cloud, "create", Outcome::Failed(Fault::Rejected("no".into()))));
        self.record("t5")?;
        self.settle(day + 600_000)?;
        self.end()
    }

    /// A device with a log and files, of which the rig plays the part.
    pub(super) fn device() -> Device {
        let spec = DeviceSpec {
            id: "d1".into(),
            site: 0,
            firmware: Firmware::New,
            latency: std::time::Duration::ZERO,
            speed: 1,
        };
        let mut device = Device::new(0, &spec, 0);
        device.on = true;
        device
    }

    /// A life in which anything may go wrong that may go wrong outside the core.
    pub(super) fn wild(&mut self, seed: u64) -> Result<(), Broken> {
        let mut luck = Stream::new(seed, "wild", 0);
        self.knobs.builtin.uploads = u32::try_from(luck.between(1, 3)).expect("small");
        self.knobs.builtin.auto_scan = luck.one_in(3);
        self.knobs.keep_edge_ms = *luck.pick(&[Some(0), Some(90_000), None]);
        self.knobs.auto_approve = seed.is_multiple_of(2);
        let flavours = [Flavour::Full, Flavour::Composite, Flavour::Tags, Flavour::Opaque];
        self.clouds[0] = Bucket::new(*luck.pick(&flavours));
        self.restart()?;
        let mut tasks = 0;
        for _ in 0..250 {
            match luck.below(24) {
                0 => {
                    tasks += 1;
                    self.record(&format!("t{tasks}"))?;
                }
                1 if luck.one_in(3) => {
                    self.knobs.destination = !luck.one_in(4);
                    self.crash(&mut luck)?;
                }
                2 if luck.one_in(3) => self.doomed = true,
                3 => {
                    let by = [-7_200_000, -5_000, 5_000, 7_200_000]
                        [usize::try_from(luck.below(4)).expect("small")];
                    self.now.wall = Wall(self.now.wall.0 + by);
                    self.tell(&Happened::Stepped { site: 0, by_ms: by })?;
                }
                4 | 5 => {
                    let ms = luck.between(1, 100_000);
                    self.pass(ms);
                    self.input(Input::Wake)?;
                }
                6 => {
                    let verbs =
                        ["head", "get", "put", "create", "put_part", "complete", "abort", "list_parts"];
                    let faults = [
                        Outcome::Unknown,
                        Outcome::Unknown,
                        Outcome::Failed(Fault::Offline),
                        Outcome::Failed(Fault::Throttled { retry_after_ms: Some(luck.below(200_000)) }),
                        Outcome::Failed(Fault::Unavailable { status: 500 }),
                        Outcome::Failed(Fault::Auth),
                        Outcome::Failed(Fault::Local("disk".into())),
                        Outcome::Failed(Fault::Rejected("no".into())),
                        Outcome::Failed(Fault::Damaged(What::Part)),
                    ];
                    let store = *luck.pick(&[Store::Cloud, Store::Cloud, Store::Edge]);
                    let verb: &'static str = luck.pick::<&'static str>(&verbs);
                    self.faults.push((store, verb, luck.pick(&faults).clone()));
                }
                7 => self.ask(Request::Sync { episode: EpisodeId(luck.between(1, 4)) })?,
                8 => self.ask(Request::SyncBatch)?,
                9 => {
                    let (episode, approve) = (EpisodeId(luck.between(1, 4)), !luck.one_in(3));
                    self.ask(Request::Judge { episode, approve, reason: None })?;
                }
                10 if tasks > 0 => self.announce(&format!("t{}", luck.between(1, tasks)))?,
                11 => {
                    let task = format!("t{}", luck.between(1, tasks + 1));
                    self.ask(match luck.below(3) {
                        0 => Request::CancelTask { task },
                        1 => Request::CallbackStart { task, device: Some(device()), credential: None },
                        _ => Request::CallbackFinish {
                            task,
                            device: device(),
                            facts: RecordingFacts::default(),
                            credential: None,
                        },
                    })?;
                }
                12 => self.echo()?,
                13 if luck.one_in(6) => {
                    self.clouds[0].drop_uploads();
                    self.tell(&Happened::Tampered { site: 0, cloud: true })?;
                }
                14 if luck.one_in(8) => {
                    let cloud = luck.one_in(2);
                    let bucket = if cloud { &mut self.clouds[0] } else { &mut self.edges[0] };
                    let keys: Vec<ObjectKey> = bucket.objects.keys().cloned().collect();
                    if keys.is_empty() {
                        continue;
                    }
                    let key = luck.pick(&keys).clone();
                    if luck.one_in(2) {
                        bucket.overwrite(&key, Content { id: luck.next_u64(), len: 7, facts: None });
                    } else {
                        bucket.remove(&key);
                    }
                    self.tell(&Happened::Tampered { site: 0, cloud })?;
                }
                _ => {
                    // Operations are answered in any order.
                    if self.ops.len() > 1 {
                        let turn = usize::try_from(luck.below(self.ops.len() as u64)).expect("small");
                        self.ops.rotate_left(turn);
                    }
                    self.one()?;
                }
            }
        }
        self.faults.clear();
        self.doomed = false;
        self.knobs.destination = true;
        self.restart()?;
        self.settle(4_000_000)?;
        self.end()
    }

    /// The process is killed; what it asked for may or may not have reached the stores.
    fn crash(&mut self, luck: &mut Stream) -> Result<(), Broken> {
        for (_, op) in std::mem::take(&mut self.ops) {
            if luck.one_in(2) {
                let _ = match op.store {
                    Store::Edge => self.edges[0].run(&op, None),
                    Store::Cloud => self.clouds[0].run(&op, Some(&self.edges[0])),
                };
            }
        }
        self.restart()
    }

    pub(super) fn premises(&self) -> Premises {
        let mut all = Premises::default();
        for watch in &self.watches {
            all.add(watch.premises());
        }
        all
    }

    pub(super) fn invariants(&self) -> Vec<&'static str> {
        self.watches.iter().flat_map(|watch| watch.invariants().iter().copied()).collect()
    }
}
