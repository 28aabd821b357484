//! One site around one machine, without a runtime: committed records, prefetch, commit, release, crash. Nothing leaves
//! before its step is committed; a crash keeps the committed records and nothing else.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::format;
use std::prelude::v1::*;

use serde_json::Value;

use super::coverage::Coverage;
use super::fleet::{Device, Rpc};
use super::policies::{DEFAULT, policies};
use super::stores::{Bucket, Flavour, Stores};
use super::watch::{Seen, broken, demand, line};
use super::watch_links::LinkWatch;
use super::watch_rows::RowWatch;
use crate::chance::Chance;
use crate::change::JournalEntry;
use crate::digest::Sha256;
use crate::effect::{Effect, Output, PolicyOp};
use crate::id::{Boot, ConnId, DeviceId, PolicySetId, RequestId, Role, Seq, SocketId, Ticket};
use crate::input::{Action, Demand, Input, PolicyReply, Request, RosterRequest};
use crate::knobs::Knobs;
use crate::machine::{Machine, Rows};
use crate::object::{ObjectOp, ObjectReply};
use crate::outcome::Outcome;
use crate::refusal::Broken;
use crate::row::{Key, Row, Scope};
use crate::time::{Mono, Now, Wall};

/// How the process dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doom {
    /// In the next step, before its commit: it never happened.
    BeforeCommit,
    /// After the next commit, with only so many of its effects released.
    AfterEffects(usize),
}

/// Spoils a step's output before anybody looks, to prove that somebody looks. True: done.
pub(super) type Meddle = Box<dyn FnMut(&World, &Input, &mut Output) -> bool>;

/// The site.
pub(super) struct World {
    pub(super) knobs: Knobs,
    pub(super) boot: Boot,
    pub(super) now: Now,
    pub(super) machine: Machine,
    pub(super) rows: BTreeMap<Key, Row>,
    pub(super) journal: Vec<JournalEntry>,
    pub(super) stores: Stores,
    pub(super) fleet: Vec<Device>,
    /// Every link ever admitted.
    pub(super) links: BTreeMap<ConnId, (DeviceId, Role)>,
    /// Operations asked for in this boot and not answered.
    pub(super) ops: BTreeMap<Ticket, ObjectOp>,
    /// Done, and the answer is on its way.
    pub(super) underway: Vec<(Ticket, Outcome<ObjectReply>)>,
    /// Answered, of any boot.
    pub(super) answered: VecDeque<(Ticket, Outcome<ObjectReply>)>,
    /// What the host of policies was asked in this boot and did not answer.
    pub(super) policy_ops: BTreeMap<Ticket, PolicyOp>,
    /// The last answer of that host, of any boot.
    pub(super) policy_past: Option<(Ticket, Outcome<PolicyReply>)>,
    /// Requests that nobody waits for any more and that still reach a store.
    pub(super) ghosts: Vec<ObjectOp>,
    pub(super) doom: Option<Doom>,
    pub(super) meddle: Option<Meddle>,
    /// The set under which the last step ruled.
    ruled_last: Option<PolicySetId>,
    pub(super) shut: bool,
    pub(super) luck: Chance,
    pub(super) wild: bool,
    /// Whether links must be proven.
    pub(super) guarded: bool,
    /// Whether each journal entry was ruled by wild policies.
    pub(super) wilds: Vec<bool>,
    pub(super) row_watch: RowWatch,
    pub(super) link_watch: LinkWatch,
    pub(super) coverage: Coverage,
    /// What happened, in words, if somebody wants to read it.
    pub(super) log: Option<Vec<String>>,
    /// What third parties did and injected faults said, which excuses a failed job.
    pub(super) tampered: bool,
    pub(super) data_faults: u64,
    sockets: u64,
    requests: u64,
    spoke: BTreeSet<Ticket>,
}

impl World {
    /// A site whose configuration follows from a seed.
    pub(super) fn new(seed: u64) -> World {
        let mut luck = Chance::new(seed);
        let mut knobs = Knobs {
            destination: luck.below(10) != 0,
            public_url: (luck.below(2) == 0).then(|| "http://site:8080".to_string()),
            part_size: 5 << 20,
            parts_in_flight: u16::try_from(1 + luck.below(3)).expect("small"),
            keep_edge_ms: [Some(0), Some(90_000), None][usize::try_from(luck.below(3)).expect("small")],
            batch: u32::try_from(1 + luck.below(4)).expect("small"),
            // Short, so that a life sees the end of it.
            patience_ms: 5_000,
            ..Knobs::default()
        };
        knobs.builtin.auto_scan = luck.below(3) == 0;
        knobs.builtin.attempts = u32::try_from(2 + luck.below(4)).expect("small");
        knobs.builtin.uploads = u32::try_from(1 + luck.below(3)).expect("small");
        knobs.builtin.bytes_per_second = (luck.below(4) == 0).then_some(1 << 20);
        knobs.default_module = knobs.builtin.attempts.is_multiple_of(2).then_some(DEFAULT);
        let flavours = [Flavour::Full, Flavour::Composite, Flavour::Tags, Flavour::Opaque];
        let flavour = flavours[usize::try_from(luck.below(4)).expect("small")];
        let wild = luck.below(8) == 0;
        let mut world = World::with(knobs, flavour, wild, luck);
        world.guarded = seed % 4 == 2;
        world
    }

    /// A site with these settings, booted.
    pub(super) fn with(knobs: Knobs, flavour: Flavour, wild: bool, luck: Chance) -> World {
        World {
            knobs,
            boot: Boot(0),
            now: Now { wall: Wall(1_790_000_000_000), mono: Mono(0) },
            machine: Machine::new(),
            rows: BTreeMap::new(),
            journal: Vec::new(),
            stores: Stores { edge: Bucket::new(Flavour::Full), cloud: Bucket::new(flavour) },
            fleet: (0..3).map(Device::new).collect(),
            links: BTreeMap::new(),
            ops: BTreeMap::new(),
            underway: Vec::new(),
            answered: VecDeque::new(),
            policy_ops: BTreeMap::new(),
            policy_past: None,
            ghosts: Vec::new(),
            doom: None,
            meddle: None,
            ruled_last: None,
            shut: false,
            luck,
            wild,
            guarded: false,
            wilds: Vec::new(),
            row_watch: RowWatch::default(),
            link_watch: LinkWatch::default(),
            coverage: Coverage::default(),
            log: None,
            tampered: false,
            data_faults: 0,
            sockets: 0,
            requests: 0,
            spoke: BTreeSet::new(),
        }
    }

    /// Lets time pass on both clocks.
    pub(super) fn pass(&mut self, ms: u64) {
        self.now.mono = Mono(self.now.mono.0 + ms * 1_000_000);
        self.now.wall = Wall(self.now.wall.0 + i64::try_from(ms).expect("small"));
    }

    /// Lets time pass until a moment of this boot.
    pub(super) fn pass_until(&mut self, mono: Mono) {
        let wait = self.now.mono.until(mono).as_nanos().div_ceil(1_000_000);
        self.pass(u64::try_from(wait).expect("small"));
    }

    /// The process is gone, with everything it had not committed; a new one starts.
    pub(super) fn restart(&mut self) -> Result<(), Broken> {
        self.coverage.machine(&self.machine);
        self.doom = None;
        self.shut = false;
        // The set lives in the process; the door opens only after the boot told it anew.
        self.stores.edge.frozen.clear();
        for device in &mut self.fleet {
            device.recorder = None;
            device.uploader = None;
            device.owed.clear();
        }
        // What was asked of a store may or may not have reached it, or may still.
        for (ticket, op) in std::mem::take(&mut self.ops) {
            let outcome = match self.luck.below(3) {
                0 => Outcome::Unknown,
                1 => self.perform(&op),
                _ => {
                    self.ghosts.push(op);
                    Outcome::Unknown
                }
            };
            self.remember(ticket, outcome);
        }
        for (ticket, outcome) in std::mem::take(&mut self.underway) {
            self.remember(ticket, outcome);
        }
        self.policy_ops.clear();
        self.machine = Machine::new();
        for (key, row) in &self.rows {
            if Machine::is_hot(row) {
                self.machine.load(key, row.clone());
            }
        }
        self.boot = Boot(self.boot.0 + 1);
        // Monotonic time begins anew with each process.
        self.now.mono = Mono(self.luck.below(5_000_000_000));
        let seed = self.luck.next_u64();
        let input = Input::Boot { boot: self.boot, seed, knobs: self.knobs.clone() };
        self.input(input)?;
        self.intact()
    }

    pub(super) fn remember(&mut self, ticket: Ticket, outcome: Outcome<ObjectReply>) {
        self.answered.push_back((ticket, outcome));
        if self.answered.len() > 24 {
            self.answered.pop_front();
        }
    }

    /// Does an operation at its store.
    pub(super) fn perform(&mut self, op: &ObjectOp) -> Outcome<ObjectReply> {
        self.coverage.reach("verb", op.verb.name());
        match self.stores.run(op) {
            Ok(reply) => Outcome::Done(reply),
            Err(fault) => Outcome::Failed(fault),
        }
    }

    /// One input: prefetch, step, commit, look, release.
    pub(super) fn input(&mut self, input: Input) -> Result<(), Broken> {
        self.coverage.input(&input);
        if let Input::Object { ticket, .. } = &input {
            self.spoke.insert(*ticket);
        }
        self.say(|| format!("   {input:?}"));
        let cold = self.prefetch(&input)?;
        let mut out = Output::default();
        let given = match &input {
            Input::Boot { knobs, .. } => self.machine.set_at_boot(knobs).id(),
            _ => self.machine.active_policy(),
        };
        let mut policies = policies(&self.knobs, self.wild, given);
        self.machine.step(self.now, &input, &cold, &mut *policies, &mut out);
        if let Some(mut meddle) = self.meddle.take()
            && !meddle(self, &input, &mut out)
        {
            self.meddle = Some(meddle);
        }
        let at = self.now.mono.0 / 1_000_000;
        self.say(|| format!("   {at} ms -> {}", line(&input, &out)));
        if self.doom == Some(Doom::BeforeCommit) && !matches!(input, Input::Boot { .. }) {
            return self.restart();
        }
        self.write_down(&input, given, &cold, &out)?;
        let before = self.commit(&out)?;
        let seen = Seen {
            now: self.now,
            boot: self.boot,
            knobs: &self.knobs,
            input: &input,
            out: &out,
            before: &before,
            rows: &self.rows,
            stores: &self.stores,
            builtin: !self.wild,
        };
        let stale = matches!(&input, Input::Object { ticket, .. } if !self.ops.contains_key(ticket)
            && !self.underway.iter().any(|(t, _)| t == ticket));
        if stale {
            let nothing = out.changes.is_empty() && out.rows.is_empty() && out.effects.is_empty();
            // The step after a swap turns to the new set, whatever comes in: that is not the outcome's doing.
            let turns = self.ruled_last.is_some_and(|last| last != given);
            let obeyed =
                ["upload.opened", "upload.part_stored", "upload.sealed", "job.sent", "job.completed"];
            let own = out.changes.iter().any(|change| obeyed.contains(&change.name()));
            demand("I14", nothing || (turns && !own), || {
                format!("a late outcome did something: {}", line(&input, &out))
            })?;
        }
        self.ruled_last = Some(given);
        self.row_watch.step(&seen)?;
        self.link_watch.step(&seen)?;
        self.watch_policies(given, &input, &out, &before)?;
        self.coverage.step(&out, &self.rows, &before);
        if let Input::Object { ticket, outcome } = &input {
            self.ops.remove(ticket);
            self.underway.retain(|(t, _)| t != ticket);
            self.remember(*ticket, outcome.clone());
        }
        self.machine.check()?;
        for key in before.keys() {
            self.same_in_memory(key)?;
        }
        if self.journal.len().is_multiple_of(32) {
            self.intact()?;
        }
        let limit = match self.doom {
            Some(Doom::AfterEffects(n)) if !matches!(input, Input::Boot { .. }) => n,
            _ => usize::MAX,
        };
        for effect in out.effects.into_iter().take(limit) {
            self.release(effect)?;
        }
        if limit != usize::MAX { self.restart() } else { Ok(()) }
    }

    pub(super) fn say(&mut self, text: impl FnOnce() -> String) {
        if let Some(log) = &mut self.log {
            log.push(text());
        }
    }

    fn prefetch(&mut self, input: &Input) -> Result<Rows, Broken> {
        let mut have = Rows::new();
        for _ in 0..8 {
            let mut keys = BTreeSet::new();
            self.machine.wants(self.now, input, &have, &mut keys);
            if keys.is_empty() {
                return Ok(have);
            }
            for key in keys {
                let row = self.rows.get(&key).cloned();
                have.insert(key, row);
            }
        }
        broken("I27", format!("{input:?} never has all it wants"))
    }

    /// The journal entry survives being written and read.
    fn write_down(
        &mut self,
        input: &Input,
        given: PolicySetId,
        cold: &Rows,
        out: &Output,
    ) -> Result<(), Broken> {
        let entry = JournalEntry {
            seq: Seq(self.journal.len() as u64 + 1),
            now: self.now,
            boot: self.boot,
            input: input.clone(),
            policies: given,
            rulings: out.rulings.clone(),
            cold: cold.iter().map(|(key, row)| (key.clone(), row.clone())).collect(),
            changes: out.changes.clone(),
        };
        let bytes = minicbor::to_vec(&entry).expect("writing to a vector cannot fail");
        let read: Result<JournalEntry, _> = minicbor::decode(&bytes);
        let same = read.as_ref().is_ok_and(|read| *read == entry);
        demand("I24", same, || format!("the journal forgets: {entry:?} {read:?}"))?;
        self.journal.push(entry);
        self.wilds.push(self.wild);
        Ok(())
    }

    fn commit(&mut self, out: &Output) -> Result<BTreeMap<Key, Option<Row>>, Broken> {
        let mut before = BTreeMap::new();
        for (key, row) in &out.rows {
            let old = match row {
                Some(row) => {
                    demand("I12", row.kind() == key.kind(), || format!("{key:?} is {row:?}"))?;
                    let read = Row::from_bytes(row.kind(), &row.to_bytes());
                    demand("I12", read.as_ref() == Ok(row), || format!("{row:?} is read as {read:?}"))?;
                    self.rows.insert(key.clone(), row.clone())
                }
                None => self.rows.remove(key),
            };
            let again = before.insert(key.clone(), old).is_some();
            demand("I12", !again, || format!("{key:?} twice in one step"))?;
        }
        demand("I12", out.rows.is_sorted_by(|a, b| a.0 < b.0), || "rows are not in order".to_string())?;
        Ok(before)
    }

    /// I12: what is in memory is what is committed.
    fn same_in_memory(&self, key: &Key) -> Result<(), Broken> {
        let row = self.rows.get(key);
        match self.machine.row(key) {
            Some(held) => demand("I12", row == Some(&held) || (row.is_none() && *key == Key::Meta), || {
                format!("{key:?} is {held:?} in memory and {row:?} on disk")
            }),
            None => demand("I12", !row.is_some_and(Machine::is_hot), || {
                format!("{key:?} is not in memory: {row:?}")
            }),
        }
    }

    /// I12 over all records. After a restart nothing but hot records can be in memory.
    pub(super) fn intact(&self) -> Result<(), Broken> {
        self.rows.keys().try_for_each(|key| self.same_in_memory(key))
    }

    fn release(&mut self, effect: Effect) -> Result<(), Broken> {
        match effect {
            Effect::Admit { conn, .. } => {
                let Some(Input::Knock { device, role, .. }) = self.journal.last().map(|entry| &entry.input)
                else {
                    return broken("I01", "an admission without a knock");
                };
                self.links.insert(conn, (device.clone(), *role));
                let device = self.fleet.iter_mut().find(|d| d.id == *device);
                match (device, role) {
                    (Some(device), Role::Recorder) => {
                        device.recorder = Some(conn);
                        device.owed.clear();
                    }
                    (Some(device), Role::Transfer) => device.uploader = Some(conn),
                    (None, _) => {}
                }
            }
            Effect::Close { conn, .. } => {
                for device in &mut self.fleet {
                    device.recorder = device.recorder.filter(|c| *c != conn);
                    device.uploader = device.uploader.filter(|c| *c != conn);
                }
            }
            Effect::Send { conn, frame } => self.hand_over(conn, &frame.text)?,
            Effect::Object { ticket, op } => {
                let fresh = ticket.boot == self.boot && !self.spoke.contains(&ticket);
                demand("I14", fresh, || format!("{ticket:?} is not new"))?;
                let other = self.ops.insert(ticket, op);
                demand("I14", other.is_none(), || format!("{ticket:?} twice"))?;
            }
            Effect::Freeze { key } => {
                self.stores.edge.frozen.insert(key);
            }
            Effect::Thaw { key } => {
                self.stores.edge.frozen.remove(&key);
            }
            Effect::Policy { ticket, op } => {
                demand("I14", ticket.boot == self.boot, || format!("{ticket:?} is not new"))?;
                let other = self.policy_ops.insert(ticket, op);
                demand("I14", other.is_none(), || format!("{ticket:?} twice"))?;
            }
            Effect::TurnAway { .. }
            | Effect::Reply { .. }
            | Effect::Publish(_)
            | Effect::Gate(_)
            | Effect::Grant { .. }
            | Effect::Bar { .. } => {}
        }
        Ok(())
    }

    /// A frame reaches a device.
    fn hand_over(&mut self, conn: ConnId, text: &str) -> Result<(), Broken> {
        let Ok(Value::Object(map)) = serde_json::from_str::<Value>(text) else {
            return broken("I06", format!("no JSON object: {text}"));
        };
        let word = |field: &str| map.get(field).and_then(Value::as_str).unwrap_or_default().to_string();
        let params = map.get("params").and_then(Value::as_object);
        let nested = params.and_then(|p| p.get("task_config")).and_then(Value::as_object);
        let named = params.and_then(|p| p.get("task_id")).or(nested.and_then(|c| c.get("task_id")));
        let task = named.and_then(Value::as_str).map(String::from);
        for device in &mut self.fleet {
            if device.recorder == Some(conn) {
                let action = Action::ALL.into_iter().find(|action| action.name() == word("action"));
                let action = action.expect("checked when it was sent");
                device.owed.push_back(Rpc { conn, id: word("request_id"), action, task: task.clone() });
            }
            if device.uploader == Some(conn) {
                match word("type").as_str() {
                    "upload_request" => {
                        if let Some(file) = device.files.get_mut(&word("task_id")) {
                            file.requested = true;
                        }
                    }
                    "upload_ack" => {
                        if let Some(file) = device.files.remove(&word("task_id")) {
                            device.deleted.insert(word("task_id"), file);
                        }
                    }
                    _ => device.owes_status = true,
                }
            }
        }
        Ok(())
    }

    /// A request over HTTP.
    pub(super) fn ask(&mut self, request: Request) -> Result<RequestId, Broken> {
        self.requests += 1;
        let id = RequestId(self.requests);
        self.coverage.request(&request);
        self.input(Input::Request { id, request })?;
        Ok(id)
    }

    /// The number of the next request, for its mark.
    pub(super) fn next_request(&self) -> u64 {
        self.requests + 1
    }

    /// A device's program asks for a link, with the device's token where one is demanded.
    pub(super) fn knock(&mut self, device: DeviceId, role: Role) -> Result<(), Broken> {
        let credential = if self.guarded { Some(self.token(&device)?) } else { None };
        self.knock_with(device, role, credential)
    }

    /// The token of a device. An operator issues one first, if it has none.
    fn token(&mut self, device: &DeviceId) -> Result<Sha256, Broken> {
        let own = self.rows.iter().find_map(|(key, row)| match (key, row) {
            (Key::Token(token), Row::Token(row)) if row.device.as_ref() == Some(device) => Some(*token),
            _ => None,
        });
        if let Some(token) = own {
            return Ok(token);
        }
        let token = Sha256::of(format!("{device} {}", self.next_request()).as_bytes());
        let device = Some(device.clone());
        self.ask(Request::Roster(RosterRequest::Issue {
            scope: Scope::Recorder,
            device,
            name: None,
            token,
        }))?;
        Ok(token)
    }

    pub(super) fn knock_with(
        &mut self,
        device: DeviceId,
        role: Role,
        credential: Option<Sha256>,
    ) -> Result<(), Broken> {
        self.sockets += 1;
        let demand = match role {
            _ if !self.guarded => Demand::Nothing,
            Role::Recorder => Demand::Token,
            Role::Transfer => Demand::TokenOrAddress,
        };
        let socket = SocketId(self.sockets);
        self.input(Input::Knock {
            socket,
            device,
            role,
            remote: "10.0.0.7".to_string(),
            credential,
            port: None,
            demand,
        })
    }

    /// Moves to the next deadline and wakes.
    pub(super) fn sleep(&mut self) -> Result<(), Broken> {
        if let Some((at, _)) = self.machine.next_wake() {
            self.pass_until(at);
        }
        self.input(Input::Wake)
    }

    /// Answers an operation truthfully. Unanswered requests that overtook nothing land first.
    pub(super) fn answer(&mut self, ticket: Ticket) -> Result<(), Broken> {
        let Some(op) = self.ops.get(&ticket).cloned() else { return Ok(()) };
        if let crate::object::Verb::ListUploads = op.verb {
            self.land(|ghost| ghost.key == op.key);
        }
        let outcome = self.perform(&op);
        self.input(Input::Object { ticket, outcome })
    }

    /// Requests on their way reach their store.
    pub(super) fn land(&mut self, which: impl Fn(&ObjectOp) -> bool) {
        let (landing, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.ghosts).into_iter().partition(|g| which(g));
        self.ghosts = rest;
        for ghost in landing {
            let _ = self.perform(&ghost);
        }
    }

    /// The site ends; what it counted counts.
    pub(super) fn finish(mut self) -> Coverage {
        self.coverage.machine(&self.machine);
        self.coverage.premises(&self.row_watch.premises);
        self.coverage.premises(&self.link_watch.premises);
        for word in &self.link_watch.words {
            self.coverage.reach("word", word);
        }
        self.coverage
    }
}
