//! A whole machine under a byte string: each few bytes are one thing that happens to a site, frames of devices among
//! them byte for byte. After every step the machine's own invariants hold, its records and its journal survive being
//! written and read, its changes alone give the same records, and every request is answered at most once.
//!
//! In a frame or a text `@` stands for the id of the last RPC on that link, `$` for the key of the last object at the
//! edge and `#` for its digest: nobody guesses those. Decides nothing about what is right; that is the machine's check.

mod store;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use tidegate_core::change::{Change, JournalEntry, UploadChange};
use tidegate_core::effect::{Effect, Output};
use tidegate_core::id::{
    Boot, ConnId, DeviceId, EpisodeId, ObjectKey, RequestId, Role, Seq, SocketId, TaskId, Ticket,
};
use tidegate_core::input::{Action, Command, Demand, Input, LostWhy, Request, TransferAsk};
use tidegate_core::knobs::Knobs;
use tidegate_core::machine::{Machine, Rows};
use tidegate_core::object::ObjectOp;
use tidegate_core::outcome::{Fault, Outcome, What};
use tidegate_core::policy::Builtin;
use tidegate_core::row::{Key, RecordingFacts, Row, TaskState};
use tidegate_core::time::{Mono, Now, Wall};
use tidegate_core::wire::{recorder, transfer};

use store::{Stored, Stores};

/// Things that happen at most: keeps one run short.
const LENGTH_MAX: usize = 400;

/// Lets happen what the bytes say.
pub(crate) fn run(bytes: &[u8]) {
    let mut bytes = Bytes(bytes);
    let Some(first) = bytes.byte() else { return };
    let mut site = Site::new(first);
    site.boot();
    for _ in 0..LENGTH_MAX {
        let Some(what) = bytes.byte() else { break };
        if site.happens(what, &mut bytes).is_none() {
            break;
        }
    }
    site.boot();
}

/// The rest of the bytes.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// A run of bytes: its length first, two bytes of it.
    fn run(&mut self) -> Option<&'a [u8]> {
        let len = usize::from(u16::from_be_bytes([self.byte()?, self.byte()?]));
        let (run, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        Some(run)
    }
}

struct Site {
    machine: Machine,
    /// A machine that is only told changes.
    shadow: Machine,
    known: BTreeSet<Key>,
    rows: BTreeMap<Key, Row>,
    knobs: Knobs,
    stores: Stores,
    last: Option<ObjectKey>,
    links: Vec<(ConnId, Role)>,
    /// The last RPC on a link.
    rpcs: BTreeMap<ConnId, String>,
    ops: BTreeMap<Ticket, ObjectOp>,
    late: Option<(Ticket, ObjectOp)>,
    asked: BTreeSet<RequestId>,
    now: Now,
    boot: Boot,
    seq: u64,
    count: u64,
}

impl Site {
    fn new(settings: u8) -> Site {
        let mut knobs = Knobs {
            destination: settings & 1 != 0,
            part_size: 5 << 20,
            parts_in_flight: 1 + u16::from(settings >> 1 & 3),
            keep_edge_ms: (settings & 8 != 0).then_some(1000),
            batch: 2,
            public_url: (settings & 16 != 0).then(|| "http://site".to_owned()),
            ..Knobs::default()
        };
        knobs.builtin.auto_scan = settings & 32 != 0;
        knobs.builtin.attempts = 3;
        knobs.builtin.bytes_per_second = (settings & 64 != 0).then_some(1 << 20);
        Site {
            machine: Machine::new(),
            shadow: Machine::new(),
            known: BTreeSet::new(),
            rows: BTreeMap::new(),
            knobs,
            stores: Stores::default(),
            last: None,
            links: Vec::new(),
            rpcs: BTreeMap::new(),
            ops: BTreeMap::new(),
            late: None,
            asked: BTreeSet::new(),
            now: Now { wall: Wall(1_790_000_000_000), mono: Mono(0) },
            boot: Boot(0),
            seq: 0,
            count: 0,
        }
    }

    /// The process starts, again.
    fn boot(&mut self) {
        self.machine = Machine::new();
        for (key, row) in &self.rows {
            if Machine::is_hot(row) {
                self.machine.load(key, row.clone());
            }
        }
        self.boot = Boot(self.boot.0 + 1);
        self.now.mono = Mono(0);
        self.links.clear();
        self.rpcs.clear();
        self.ops.clear();
        self.asked.clear();
        let input = Input::Boot { boot: self.boot, seed: self.boot.0, knobs: self.knobs.clone() };
        self.input(&input);
    }

    /// One thing happens; `None` if the bytes are at their end.
    fn happens(&mut self, what: u8, bytes: &mut Bytes<'_>) -> Option<()> {
        self.pass(10);
        match what % 12 {
            0 => self.knock(bytes.byte()?),
            1 | 2 => self.frame(bytes.byte()?, bytes.run()?),
            3 => {
                let at = usize::from(bytes.byte()?);
                if !self.links.is_empty() {
                    let (conn, _) = self.links.remove(at % self.links.len());
                    self.input(&Input::Lost { conn, why: LostWhy::Broken });
                }
            }
            4 | 5 => {
                let (kind, who, text) = (bytes.byte()?, bytes.byte()?, bytes.run()?);
                self.ask(kind, who, text);
            }
            6 | 7 => self.answer(bytes.byte()?, bytes.byte()?),
            8 => self.store(bytes.byte()?, bytes.run()?),
            9 => {
                self.pass(1 << (bytes.byte()? % 32));
                self.input(&Input::Wake);
            }
            10 => {
                let hours = i64::from(bytes.byte()?) - 128;
                self.now.wall = Wall(self.now.wall.0 + hours * 3_600_000);
                if let Some((at, _)) = self.machine.next_wake() {
                    self.now.mono = Mono(self.now.mono.0.max(at.0));
                }
                self.input(&Input::Wake);
            }
            _ if bytes.byte()? % 4 == 0 => self.input(&Input::Shutdown),
            _ => self.boot(),
        }
        Some(())
    }

    fn pass(&mut self, ms: u64) {
        self.now.mono = Mono(self.now.mono.0.saturating_add(ms * 1_000_000));
        self.now.wall = Wall(self.now.wall.0.saturating_add_unsigned(ms));
    }

    fn device(n: u8) -> DeviceId {
        DeviceId::new(&format!("d{}", n % 3)).expect("legal")
    }

    fn knock(&mut self, n: u8) {
        self.count += 1;
        let role = if n & 128 == 0 { Role::Recorder } else { Role::Transfer };
        self.input(&Input::Knock {
            socket: SocketId(self.count),
            device: Site::device(n),
            role,
            remote: "10.0.0.7".to_owned(),
            credential: None,
            port: None,
            demand: Demand::Nothing,
        });
    }

    /// Puts in what nobody can guess.
    fn filled(&self, bytes: &[u8], conn: Option<ConnId>) -> Vec<u8> {
        let rpc = conn.and_then(|conn| self.rpcs.get(&conn)).map_or("", String::as_str);
        let key = self.last.as_ref().map_or("", ObjectKey::as_str);
        let digest = self.last.as_ref().and_then(|key| self.stores.edge.get(key));
        let digest = digest.map(|object| object.sha256.to_string()).unwrap_or_default();
        let mut out = Vec::with_capacity(bytes.len());
        for byte in bytes {
            match byte {
                b'@' => out.extend_from_slice(rpc.as_bytes()),
                b'$' => out.extend_from_slice(key.as_bytes()),
                b'#' => out.extend_from_slice(digest.as_bytes()),
                other => out.push(*other),
            }
        }
        out
    }

    fn frame(&mut self, at: u8, bytes: &[u8]) {
        if self.links.is_empty() {
            return;
        }
        let (conn, role) = self.links[usize::from(at) % self.links.len()];
        let bytes = self.filled(bytes, Some(conn));
        let input = match role {
            Role::Recorder => recorder::decode(&bytes).map(|message| Input::Recorder { conn, message }),
            Role::Transfer => transfer::decode(&bytes).map(|message| Input::Transfer { conn, message }),
        };
        if let Ok(input) = input {
            self.input(&input);
        }
    }

    fn ask(&mut self, kind: u8, who: u8, text: &[u8]) {
        let device = Site::device(who);
        let text = String::from_utf8_lossy(&self.filled(text, None)).into_owned();
        let task = TaskId::new(&text).ok();
        let object =
            |text: &str| tidegate_core::wire::object(text.as_bytes()).is_ok().then(|| text.to_owned());
        let command = |action| {
            let params = object(&text);
            let named = params.as_ref().and_then(|params| {
                let params: Value = serde_json::from_str(params).ok()?;
                let nested = params.get("task_config").and_then(|config| config.get("task_id"));
                params.get("task_id").or(nested).and_then(Value::as_str).map(str::to_owned)
            });
            let device = device.clone();
            Request::Command(Command {
                device,
                action,
                task: named,
                params,
                token: None,
                reply: None,
                task_state: None,
            })
        };
        let episode = EpisodeId(u64::from(who % 5));
        let request = match kind % 28 {
            action @ 0..10 => command(Action::ALL[usize::from(action)]),
            10 | 11 => Request::CreateTask { task, device, config: None },
            12 => Request::CreateTask {
                task: None,
                device,
                config: object(&text).filter(|text| text.len() < 9999),
            },
            13 => Request::CancelTask { task: text },
            14 => Request::CallbackStart {
                task: text,
                device: (who & 128 == 0).then_some(device),
                credential: None,
            },
            15 | 16 => {
                let facts = RecordingFacts { len: Some(u64::from(who)), ..RecordingFacts::default() };
                Request::CallbackFinish { task: text, device, facts, credential: None }
            }
            17 | 18 => Request::Judge { episode, approve: who & 128 == 0, reason: Some(text) },
            19 | 20 => Request::Sync { episode },
            21 => Request::SyncBatch,
            22 => Request::Transfer { device, ask: TransferAsk::Upload { task: text, priority: 1 } },
            23 => Request::Transfer { device, ask: TransferAsk::Cancel { task: text } },
            24 => Request::Transfer {
                device,
                ask: if who & 128 == 0 { TransferAsk::UploadAll } else { TransferAsk::StatusQuery },
            },
            25 => {
                let to = if who & 128 == 0 { TaskState::Failed } else { TaskState::Pending };
                Request::ResolveTask { task: text, to, reason: None }
            }
            _ => Request::RefreshState { device, max_age_ms: u64::from(who) * 100 },
        };
        self.count += 1;
        let id = RequestId(self.count);
        self.asked.insert(id);
        self.input(&Input::Request { id, request });
    }

    /// An object operation ends: truly, unknown, in vain, or for the second time.
    fn answer(&mut self, at: u8, how: u8) {
        let chosen = self.ops.keys().nth(usize::from(at) % self.ops.len().max(1)).copied();
        let (ticket, op) = match (how % 16, &self.late, chosen) {
            (15, Some((ticket, op)), _) => (*ticket, op.clone()),
            (_, _, Some(ticket)) => (ticket, self.ops.remove(&ticket).expect("it was just seen")),
            (_, _, None) => return,
        };
        let fault = |how: u8| match how {
            8 => Fault::Offline,
            9 => Fault::Throttled { retry_after_ms: Some(u64::from(at) * 1000) },
            10 => Fault::Unavailable { status: 500 },
            11 => Fault::Auth,
            12 => Fault::Vanished(What::Object),
            13 => Fault::Rejected("MalformedXML".to_owned()),
            _ => Fault::Local("disk full".to_owned()),
        };
        let outcome = match how % 16 {
            0..6 | 15 => self.stores.run(&op).map_or_else(Outcome::Failed, Outcome::Done),
            6 => Outcome::Unknown,
            7 => {
                let _ = self.stores.run(&op);
                Outcome::Unknown
            }
            how => Outcome::Failed(fault(how)),
        };
        self.late = Some((ticket, op));
        self.input(&Input::Object { ticket, outcome });
    }

    /// A device puts a recording into the edge store, with or without its sidecar.
    fn store(&mut self, how: u8, text: &[u8]) {
        let Ok(text) = std::str::from_utf8(text) else { return };
        let Ok(key) = ObjectKey::new(text) else { return };
        // Some larger than one part.
        let object = Stored::recording(u64::from(how & 0x3f) * (1 << 18) + 1);
        if how & 128 == 0
            && let Some(stem) = text.strip_suffix(".mcap")
            && let Ok(key) = ObjectKey::new(&format!("{stem}.json"))
        {
            self.stores.edge.insert(key, Stored::sidecar(&object));
        }
        let (len, sha256) = (object.len, object.sha256);
        self.stores.edge.insert(key.clone(), object);
        self.last = Some(key.clone());
        if how & 64 == 0 {
            self.input(&Input::Stored { key, len, sha256 });
        }
    }

    /// One input: read what it wants, step, look, commit, release.
    fn input(&mut self, input: &Input) {
        let mut cold = Rows::new();
        for round in 0.. {
            assert!(round < 8, "{input:?} never has all it wants");
            let mut keys = BTreeSet::new();
            self.machine.wants(self.now, input, &cold, &mut keys);
            if keys.is_empty() {
                break;
            }
            for key in keys {
                let row = self.rows.get(&key).cloned();
                cold.insert(key, row);
            }
        }
        let mut out = Output::default();
        let mut policies = Builtin::new(self.knobs.builtin.clone());
        self.machine.step(self.now, input, &cold, &mut policies, &mut out);
        if let Err(broken) = self.machine.check() {
            panic!("{broken:?} after {input:?}");
        }
        self.seq += 1;
        let entry = JournalEntry {
            seq: Seq(self.seq),
            now: self.now,
            boot: self.boot,
            input: input.clone(),
            policies: self.machine.active_policy(),
            rulings: out.rulings.clone(),
            cold: cold.into_iter().collect(),
            changes: out.changes.clone(),
        };
        let written = minicbor::to_vec(&entry).expect("writing to a vector cannot fail");
        let read: JournalEntry = minicbor::decode(&written).expect("the journal is read");
        assert_eq!(read, entry, "the journal is read as it was written");
        self.follow(&out);
        for (key, row) in out.rows {
            match row {
                Some(row) => {
                    assert_eq!(Row::from_bytes(key.kind(), &row.to_bytes()).as_ref(), Ok(&row));
                    self.rows.insert(key, row);
                }
                None => drop(self.rows.remove(&key)),
            }
        }
        for effect in out.effects {
            self.release(effect);
        }
    }

    /// The changes alone give the same records.
    fn follow(&mut self, out: &Output) {
        for change in &out.changes {
            for key in change.keys() {
                if let Key::Upload(job) = key
                    && !matches!(change, Change::Upload(UploadChange::PartStored { .. }))
                {
                    let parts: Vec<Key> = self
                        .rows
                        .keys()
                        .filter(|key| matches!(key, Key::Part(of, _) if *of == job))
                        .cloned()
                        .collect();
                    parts.into_iter().for_each(|key| self.remember(key));
                }
                self.remember(key);
            }
            if let Err(illegal) = self.shadow.apply(change) {
                panic!("{change:?} was made and cannot be applied: {illegal:?}");
            }
        }
        for (key, row) in &out.rows {
            if self.known.contains(key) {
                assert_eq!(
                    self.shadow.row(key).as_ref(),
                    row.as_ref(),
                    "{key:?}: its changes give another record"
                );
            }
        }
    }

    fn remember(&mut self, key: Key) {
        if !self.known.contains(&key) {
            if let Some(row) = self.rows.get(&key) {
                self.shadow.load(&key, row.clone());
            }
            self.known.insert(key);
        }
    }

    fn release(&mut self, effect: Effect) {
        match effect {
            Effect::Admit { conn, .. } => {
                // Which role it has is known from the knock, the last input.
                let seen = self.machine.parts().hub.is_current(conn, Role::Recorder);
                self.links.push((conn, if seen { Role::Recorder } else { Role::Transfer }));
            }
            Effect::Close { conn, .. } => self.links.retain(|(link, _)| *link != conn),
            Effect::Send { conn, frame } => {
                assert!(frame.text.ends_with('\n'), "a frame is a line: {:?}", frame.text);
                let told: Value = serde_json::from_str(&frame.text).expect("a frame is JSON");
                if let Some(id) = told.get("request_id").and_then(Value::as_str) {
                    self.rpcs.insert(conn, id.to_owned());
                }
            }
            Effect::Object { ticket, op } => {
                assert!(self.ops.insert(ticket, op).is_none(), "{ticket:?} twice");
            }
            Effect::Reply { to, .. } => assert!(self.asked.remove(&to), "{to:?} is answered twice"),
            Effect::TurnAway { .. }
            | Effect::Publish(_)
            | Effect::Gate(_)
            | Effect::Grant { .. }
            | Effect::Bar { .. }
            | Effect::Freeze { .. }
            | Effect::Thaw { .. }
            | Effect::Policy { .. } => {}
        }
    }
}
