//! The one door. Owns the small machines and hands each input to one of them; holds no rule of its own.
//!
//! A step is total: it cannot fail and never waits. What it needs of records that are not in memory is named first
//! ([`Machine::wants`]), read by the driver, and passed in.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::bug::planted;
use crate::chance::Chance;
use crate::change::Change;
use crate::cx::{Cx, Owner, Tickets};
use crate::effect::{Effect, Gate, Notice, Output};
use crate::fact::Fact;
use crate::hub::Hub;
use crate::id::{Boot, PolicySetId, RequestId, Role, Ticket};
use crate::input::{Action, Input, Request};
use crate::knobs::{Knobs, Room};
use crate::limits;
use crate::policy::{Active, Policies, PolicySet, Situation, Surroundings, Swap};
use crate::quarantine::{self, Subject};
use crate::queue::Queue;
use crate::refusal::{Broken, Illegal, Refusal};
use crate::roster::{Caller, Roster};
use crate::route;
use crate::row::{Key, MetaRow, Row};
use crate::task::Tasks;
use crate::time::{Mono, Now, Wall};
use crate::timers::{TimerKey, Timers};
use crate::upload::Uploads;

/// Records consulted by one input that were not in memory; `None` was not there.
pub type Rows = BTreeMap<Key, Option<Row>>;

/// The small machines. None knows the others.
#[derive(Debug, Default)]
pub struct Parts {
    /// Links of devices.
    pub hub: Hub,
    /// Tasks, episodes, verification.
    pub tasks: Tasks,
    /// Sync jobs.
    pub queue: Queue,
    /// Upload sessions.
    pub uploads: Uploads,
    /// Modules and the set of policies.
    pub policies: Swap,
    /// Registered devices and tokens.
    pub roster: Roster,
}

/// Counters for metrics, since the boot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Inputs by name.
    pub inputs: BTreeMap<&'static str, u64>,
    /// Facts by name.
    pub facts: BTreeMap<&'static str, u64>,
    /// Changes by name.
    pub changes: BTreeMap<&'static str, u64>,
    /// Inputs of superseded links, dropped at the door.
    pub superseded: u64,
    /// Outcomes nobody waited for (any more), dropped at the door.
    pub stale_outcomes: u64,
}

/// The state of one site.
#[derive(Debug)]
pub struct Machine {
    parts: Parts,
    timers: Timers,
    chance: Chance,
    seeds: Chance,
    tickets: Tickets,
    facts: VecDeque<Fact>,
    knobs: Knobs,
    active: Active,
    surroundings: Surroundings,
    /// The set that the last step was given.
    asked: PolicySetId,
    stopping: bool,
    stats: Stats,
    stepping: String,
}

impl Default for Machine {
    fn default() -> Self {
        Machine::new()
    }
}

impl Machine {
    /// An empty site that was never booted. Load its records, then step [`Input::Boot`].
    #[must_use]
    pub fn new() -> Machine {
        let knobs = Knobs::default();
        let active = Active::native(knobs.builtin.clone());
        Machine {
            parts: Parts::default(),
            timers: Timers::default(),
            chance: Chance::new(0),
            seeds: seeds(0),
            tickets: Tickets::new(Boot(0)),
            facts: VecDeque::new(),
            asked: active.set,
            active,
            surroundings: Surroundings::default(),
            knobs,
            stopping: false,
            stats: Stats::default(),
            stepping: String::new(),
        }
    }

    /// Takes a record into memory, at boot or because an input consults it. Silent: no effect can come of it.
    pub fn load(&mut self, key: &Key, row: Row) {
        match (key, row) {
            (Key::Meta, Row::Meta(meta)) => {
                self.parts.tasks.load_counter(meta.next_episode);
                self.parts.queue.load_counter(meta.next_job);
                self.parts.roster.load_counters(&meta);
            }
            (Key::Task(_) | Key::Episode(_) | Key::Alias(_) | Key::Binding(_), row) => {
                self.parts.tasks.load(key, row)
            }
            (Key::Job(_), row) => self.parts.queue.load(key, row),
            (Key::Upload(_) | Key::Part(..), row) => self.parts.uploads.load(key, row),
            (Key::Policy | Key::Module(_), row) => self.parts.policies.load(key, row),
            (Key::Device(_) | Key::Token(_), row) => self.parts.roster.load(key, row),
            (Key::Meta, row) => panic!("a {:?} record lies under the key of the counters", row.kind()),
        }
    }

    /// Whether a record must be in memory from boot on: what is unfinished. Everything else is cold.
    #[must_use]
    pub fn is_hot(row: &Row) -> bool {
        match row {
            Row::Meta(_)
            | Row::Device(_)
            | Row::Upload(_)
            | Row::Part(_)
            | Row::Policy(_)
            | Row::Token(_)
            | Row::Module(_) => true,
            Row::Task(row) => Tasks::is_hot_task(row),
            Row::Episode(row) => Tasks::is_hot_episode(row),
            Row::Job(row) => !row.state.is_final(),
            Row::Alias(_) | Row::Binding(_) => false,
        }
    }

    /// Names the records this input will consult that are not in memory, given those read so far. The driver
    /// calls it again with what it read until nothing new is named. `now` is that of the step.
    pub fn wants(&self, now: Now, input: &Input, have: &Rows, keys: &mut BTreeSet<Key>) {
        route::wants(&self.parts, self.timers.due(now.mono), input, have, keys);
        keys.retain(|key| !have.contains_key(key));
    }

    /// Takes one input. Total: it cannot fail. Everything that comes of it is in `out`, which the caller cleared.
    pub fn step(
        &mut self,
        now: Now,
        input: &Input,
        cold: &Rows,
        policies: &mut dyn Policies,
        out: &mut Output,
    ) {
        *self.stats.inputs.entry(input.name()).or_default() += 1;
        self.stepping.clear();
        quarantine::about(&self.parts, &self.tickets, input, &mut self.stepping);
        if let Input::Boot { boot, seed, knobs } = input {
            self.forget_volatile(*boot, *seed, knobs);
        }
        for (key, row) in cold {
            if let Some(row) = row {
                self.load(key, row.clone());
            }
        }
        let mut touched = BTreeSet::new();
        let before = self.surroundings;
        if let Input::Surroundings(surroundings) = input {
            self.surroundings = *surroundings;
        }
        let turned = self.surroundings.turned(&before) || self.asked != self.active.set;
        self.asked = self.active.set;
        let situation = self.situation(now);
        let mut cx = Cx {
            now,
            knobs: &self.knobs,
            situation,
            active: &self.active,
            stopping: self.stopping || stops(input),
            timers: &mut self.timers,
            chance: &mut self.chance,
            seeds: &mut self.seeds,
            tickets: &mut self.tickets,
            facts: &mut self.facts,
            touched: &mut touched,
            policies,
            out,
        };
        self.parts.tasks.begin_step(cold);
        self.parts.policies.begin_step();
        if turned {
            self.parts.uploads.turn(now.mono);
        }
        dispatch(&mut self.parts, &mut self.stats, &mut self.stepping, &mut cx, input);
        if turned {
            self.parts.uploads.on_turned(&mut cx);
            self.parts.queue.on_turned(&mut cx);
        }
        drain(&mut self.parts, &mut self.stats, &mut cx);
        self.parts.policies.hear(&out.rulings);
        if stops(input) {
            self.stopping = true;
        }
        if out.changes.iter().any(|change| matches!(change, Change::Policy(_))) {
            self.active = self.parts.policies.active();
            if self.active.set != self.asked && !self.stopping {
                // The new set is asked at once, not when something else happens.
                self.timers.set(TimerKey::Queue, now.mono);
            }
        }
        for change in &out.changes {
            *self.stats.changes.entry(change.name()).or_default() += 1;
        }
        for key in touched {
            let row = self.row(&key);
            out.rows.push((key, row));
        }
        self.parts.tasks.evict();
        self.parts.queue.evict();
    }

    fn forget_volatile(&mut self, boot: Boot, seed: u64, knobs: &Knobs) {
        self.parts.hub = Hub::default();
        self.parts.tasks.forget_volatile();
        self.parts.queue.forget_volatile();
        self.parts.uploads.forget_volatile();
        self.parts.roster.forget_volatile();
        self.timers = Timers::default();
        self.chance = Chance::new(seed);
        self.seeds = seeds(seed);
        self.tickets = Tickets::new(boot);
        self.facts.clear();
        self.knobs = knobs.clone();
        self.parts.policies.forget_volatile(knobs);
        self.active = self.parts.policies.active();
        self.asked = self.active.set;
        self.surroundings = Surroundings::default();
        self.stopping = false;
        #[cfg(tidegate_bugs)]
        {
            self.parts.hub.bug = knobs.bug;
            self.parts.tasks.bug = knobs.bug;
            self.parts.queue.bug = knobs.bug;
        }
    }

    fn situation(&self, now: Now) -> Situation {
        let counts = self.parts.queue.counts(now);
        let around = &self.surroundings;
        Situation {
            link: around.link,
            metered: around.metered,
            power: around.power,
            minute_of_week: minute_of_week(now.wall, around.utc_offset_min),
            due: counts.due,
            waiting: counts.waiting,
            uploading: counts.uploading,
            parked: counts.parked,
            recording: self.parts.hub.recording(),
            streak: self.parts.queue.streak(),
            goodput: self.parts.queue.goodput(now.mono),
            disk_free: around.disk_free,
            memo: 0,
            seed: 0,
        }
    }

    /// Applies a change of the journal. Silent: it has no way to ask for an effect. Returns the records touched.
    pub fn apply(&mut self, change: &Change) -> Result<Vec<Key>, Illegal> {
        match change {
            Change::Task(change) => self.parts.tasks.apply_task(change),
            Change::Episode(change) => self.parts.tasks.apply_episode(change),
            Change::Job(change) => self.parts.queue.apply(change),
            Change::Upload(change) => self.parts.uploads.apply(change),
            Change::Policy(change) => self.parts.policies.apply(change),
            Change::Roster(change) => self.parts.roster.apply(change),
        }
    }

    /// What a record is now; `None` is not there (or not in memory).
    #[must_use]
    pub fn row(&self, key: &Key) -> Option<Row> {
        match key {
            Key::Meta => {
                let (device, token) = self.parts.roster.counters();
                Some(Row::Meta(MetaRow {
                    next_episode: self.parts.tasks.counter(),
                    next_job: self.parts.queue.counter(),
                    next_device: (device > 1).then_some(device),
                    next_token: (token > 1).then_some(token),
                }))
            }
            Key::Task(_) | Key::Episode(_) | Key::Alias(_) | Key::Binding(_) => self.parts.tasks.row(key),
            Key::Job(_) => self.parts.queue.row(key),
            Key::Upload(_) | Key::Part(..) => self.parts.uploads.row(key),
            Key::Policy | Key::Module(_) => self.parts.policies.row(key),
            Key::Device(_) | Key::Token(_) => self.parts.roster.row(key),
        }
    }

    /// When to step [`Input::Wake`], and why.
    #[must_use]
    pub fn next_wake(&self) -> Option<(Mono, &TimerKey)> {
        self.timers.next()
    }

    /// The deadlines that [`Input::Wake`] would deliver now, in order.
    pub fn due(&self, now: Mono) -> impl Iterator<Item = &TimerKey> {
        self.timers.due(now)
    }

    /// Whom an input is about, in words that are the same in every boot; empty if nobody.
    #[must_use]
    pub fn about(&self, input: &Input) -> String {
        let mut text = String::new();
        quarantine::about(&self.parts, &self.tickets, input, &mut text);
        text
    }

    /// Whom a deadline wakes, in words that are the same in every boot.
    #[must_use]
    pub fn about_timer(&self, key: &TimerKey) -> String {
        let mut text = String::new();
        quarantine::about_timer(&self.parts, key, &mut text);
        text
    }

    /// Whom the last step was about when it ended or panicked; of [`Input::Wake`] the deadline that it was at. All
    /// that may be asked of a machine that panicked.
    #[must_use]
    pub fn stepping(&self) -> &str {
        &self.stepping
    }

    /// Which policies the next step must be given.
    #[must_use]
    pub fn active_policy(&self) -> PolicySetId {
        self.parts.policies.id()
    }

    /// Who sits in which slot of [`Machine::active_policy`].
    #[must_use]
    pub fn active_set(&self) -> &PolicySet {
        self.parts.policies.set()
    }

    /// Which policies a boot with this configuration must be given: those that count once it was stepped.
    #[must_use]
    pub fn set_at_boot(&self, knobs: &Knobs) -> PolicySet {
        self.parts.policies.set_under(knobs)
    }

    /// The boot, 0 before the first.
    #[must_use]
    pub fn boot(&self) -> Boot {
        self.tickets.boot()
    }

    /// Whether a shutdown has nothing left to wait for: no object operation is outstanding.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.stopping && self.tickets.open() == 0
    }

    /// Counters.
    #[must_use]
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// The small machines, to look at.
    #[must_use]
    pub fn parts(&self) -> &Parts {
        &self.parts
    }

    /// Checks the invariants that concern one machine or the relation between them.
    pub fn check(&self) -> Result<(), Broken> {
        self.parts.hub.check()?;
        self.parts.tasks.check()?;
        self.parts.queue.check()?;
        self.parts.uploads.check()?;
        self.parts.policies.check()?;
        self.parts.roster.check()?;
        crate::check::relations(&self.parts, &self.timers)
    }
}

/// In local time. Monday 00:00 is 0; 1970 began on a Thursday.
fn minute_of_week(wall: Wall, utc_offset_min: i16) -> u16 {
    const WEEK: i64 = 7 * 24 * 60;
    let minute = wall.0.div_euclid(60_000) + i64::from(utc_offset_min) + 3 * 24 * 60;
    u16::try_from(minute.rem_euclid(WEEK)).unwrap_or(0)
}

/// The seeds of questions in a boot with this seed: another stream than that of its other chances.
fn seeds(seed: u64) -> Chance {
    Chance::new(!seed)
}

/// Whether nothing begins any more after this input.
fn stops(input: &Input) -> bool {
    matches!(input, Input::Shutdown | Input::Quarantined { subject: Subject::Shutdown, .. })
}

fn dispatch(parts: &mut Parts, stats: &mut Stats, stepping: &mut String, cx: &mut Cx<'_>, input: &Input) {
    match input {
        Input::Boot { .. } => {
            cx.effect(Effect::Gate(Gate::Open));
            parts.roster.on_boot(cx);
            parts.policies.on_boot(cx);
            parts.tasks.on_boot(cx);
            parts.uploads.on_boot(cx);
            parts.queue.on_boot(cx);
        }
        Input::Wake => {
            while let Some(key) = cx.timers.take_due(cx.now.mono) {
                stepping.clear();
                quarantine::about_timer(parts, &key, stepping);
                route::wake(parts, cx, &key);
                drain(parts, stats, cx);
            }
        }
        Input::Knock { socket, device, role, remote, credential, port, demand } => {
            parts.roster.on_knock(
                cx,
                Caller {
                    socket: *socket,
                    device,
                    role: *role,
                    remote,
                    port: *port,
                    credential: *credential,
                    demand: *demand,
                },
            );
        }
        Input::Recorder { conn, message } if parts.hub.is_current(*conn, Role::Recorder) => {
            parts.hub.on_recorder(cx, *conn, message);
        }
        Input::Transfer { conn, message } if parts.hub.is_current(*conn, Role::Transfer) => {
            parts.hub.on_transfer(cx, *conn, message);
        }
        Input::Recorder { .. } | Input::Transfer { .. } => stats.superseded += 1,
        Input::Lost { conn, why } => {
            if !parts.hub.on_lost(cx, *conn, *why) {
                stats.superseded += 1;
            }
        }
        Input::Request { id, request } => request_in(parts, cx, *id, request),
        Input::Object { ticket, outcome } => {
            let ticket =
                if planted!(cx.knobs, B11) { Ticket { boot: cx.boot(), ..*ticket } } else { *ticket };
            match cx.tickets.take(ticket) {
                Some(Owner::Tasks) => parts.tasks.on_object(cx, ticket, outcome),
                Some(Owner::Uploads) => parts.uploads.on_object(cx, ticket, outcome),
                None => stats.stale_outcomes += 1,
            }
        }
        Input::Stored { key, .. } => parts.tasks.on_stored(cx, key),
        Input::Space { free } if !cx.stopping => {
            let room = cx.knobs.room(*free);
            match room {
                Room::Enough => cx.effect(Effect::Gate(Gate::Open)),
                // Opened again only by enough: a gate between the marks stays as it is.
                Room::Short => {}
                Room::None => cx.effect(Effect::Gate(Gate::Full)),
            }
            parts.tasks.on_room(cx, room);
        }
        Input::Space { .. } => {}
        Input::Policy { ticket, outcome } => {
            if !parts.policies.on_outcome(cx, *ticket, outcome) {
                stats.stale_outcomes += 1;
            }
        }
        // Taken already: it is what policies are told from now on.
        Input::Surroundings(_) => {}
        Input::Shutdown => {
            cx.effect(Effect::Gate(Gate::Stopping));
            parts.tasks.on_shutdown(cx);
            parts.uploads.on_shutdown(cx);
            parts.policies.on_shutdown(cx);
            parts.hub.on_shutdown(cx);
        }
        Input::Quarantined { subject, reason } => {
            if !quarantine::decide(parts, cx, subject, reason) {
                stats.superseded += 1;
            }
        }
    }
}

fn request_in(parts: &mut Parts, cx: &mut Cx<'_>, id: RequestId, request: &Request) {
    if cx.stopping {
        return cx.reply(id, Err(Refusal::Stopping));
    }
    match request {
        Request::Command(command) => {
            let mut command = command.clone();
            command.reply = Some(id);
            match command.action {
                // The predecessor's order of refusals: `config` looks at the device first, everything else at the task.
                Action::Config | Action::GetState | Action::GetStats => parts.hub.on_command(cx, command),
                Action::Begin
                | Action::Finish
                | Action::Pause
                | Action::Resume
                | Action::Cancel
                | Action::Clear
                | Action::Quit => parts.tasks.on_command(cx, command),
            }
        }
        Request::RefreshState { device, max_age_ms } => parts.hub.on_refresh(cx, id, device, *max_age_ms),
        Request::CallbackStart { task, device, credential } => {
            let device = device.as_ref();
            if parts.tasks.may_call_back(cx, id, device, task, *credential) {
                parts.tasks.on_callback_start(cx, id, task, device);
            }
        }
        Request::CallbackFinish { task, device, facts, credential } => {
            if parts.tasks.may_call_back(cx, id, Some(device), task, *credential) {
                parts.tasks.on_callback_finish(cx, id, task, device, facts);
            }
        }
        Request::CreateTask { task, device, config } => {
            parts.tasks.on_create(cx, id, task.as_ref(), device, config.as_deref());
        }
        Request::CancelTask { task } => parts.tasks.on_cancel(cx, id, task),
        Request::Judge { episode, approve, reason } => {
            parts.tasks.on_judge(cx, id, *episode, *approve, reason.as_deref());
        }
        Request::Sync { episode } => parts.tasks.on_sync(cx, id, *episode),
        Request::SyncBatch => parts.tasks.on_sync_batch(cx, id),
        Request::Policy(request) => parts.policies.on_request(cx, id, request),
        Request::Resolve { device, how, holds } => parts.tasks.on_resolve(cx, id, device, *how, holds),
        Request::Transfer { device, ask } => parts.tasks.on_transfer_asked(cx, id, device, ask),
        Request::ResolveTask { task, to, reason } => {
            parts.tasks.on_resolve_task(cx, id, task, *to, reason.as_deref());
        }
        Request::Roster(request) => parts.roster.on_request(cx, id, request),
    }
}

fn drain(parts: &mut Parts, stats: &mut Stats, cx: &mut Cx<'_>) {
    let mut delivered = 0;
    while let Some(fact) = cx.facts.pop_front() {
        *stats.facts.entry(fact.name()).or_default() += 1;
        delivered += 1;
        assert!(
            delivered <= limits::FACTS_PER_STEP,
            "I27: facts of one step run in a circle: {}",
            fact.name()
        );
        route::deliver(parts, cx, fact);
    }
}

/// A notice in one line, for logs.
#[must_use]
pub fn describe(notice: &Notice) -> alloc::string::String {
    match notice {
        Notice::Refused { device, code, detail } => alloc::format!("{device}: {code}: {detail}"),
        Notice::OperationUnknown { device, action, .. } => {
            alloc::format!("{device}: nobody knows how {} ended", action.name())
        }
        Notice::StrayUnseen { job, key, fault } => {
            alloc::format!("job {job}: a multipart upload may be left at {key}, unseen: {fault}")
        }
        Notice::Destination { streak, fault, .. } => match fault {
            Some(fault) => alloc::format!("cloud: {fault}, {streak} in a row"),
            None => "cloud: fine".to_string(),
        },
        Notice::Recorder(view) => {
            alloc::format!("{}: recorder {} ({})", view.device, view.state, view.confidence)
        }
        Notice::Takeover { device, role, old, new } => {
            alloc::format!("{device}: {} taken over by {} from {}", role.name(), new.remote, old.remote)
        }
        Notice::Contest { device, role, contest } => match contest {
            Some(view) => alloc::format!(
                "{device}: {} and {} fight over its {}",
                view.owners[0],
                view.owners[1],
                role.name()
            ),
            None => alloc::format!("{device}: nobody fights over its {} any more", role.name()),
        },
        Notice::Conflict { device, conflict } => match conflict {
            Some(view) => alloc::format!("{device}: conflict with the records: {}", view.kind.name()),
            None => alloc::format!("{device}: no conflict with the records"),
        },
        Notice::Timeout { device, action, budget_ms, elapsed_ms } => {
            alloc::format!("{device}: no answer to {} in {elapsed_ms} ms of {budget_ms}", action.name())
        }
        Notice::Task { row, from: _, change } => {
            alloc::format!("task {}: {} ({change})", row.id, row.state.name())
        }
        Notice::Recording { row } => alloc::format!("episode {}: recorded", row.id),
        Notice::Overdue { row } => alloc::format!("task {}: its recording is overdue", row.id),
        Notice::Link { device, role, link, .. } => {
            alloc::format!("{device}: {} {}", role.name(), if link.is_some() { "up" } else { "down" })
        }
        Notice::Transfer { device, .. } => alloc::format!("{device}: uploader status"),
        Notice::Progress { episode, uploaded, total, .. } => {
            alloc::format!("episode {episode}: {uploaded} of {total} bytes")
        }
        Notice::ProgressEnded { episode } => alloc::format!("episode {episode}: no upload"),
        Notice::Queue(counts) => alloc::format!("queue: {counts:?}"),
        Notice::Policy { news, .. } => alloc::format!("policies: {news}"),
    }
}
