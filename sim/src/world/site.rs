//! The driver around a machine, as the runtime's is: gather, prefetch, step, flush, release. Also how a process ends and
//! what is left of it. Decides nothing.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use tidegate_core::change::{Change, JobChange};
use tidegate_core::effect::{Effect, Output};
use tidegate_core::id::{Boot, ConnId, DeviceId, RequestId, SocketId, Ticket};
use tidegate_core::input::{Demand, Input, Request};
use tidegate_core::knobs::Knobs;
use tidegate_core::machine::{Machine, Rows};
use tidegate_core::object::ObjectReply;
use tidegate_core::outcome::Outcome;
use tidegate_core::policy::Surroundings;
use tidegate_core::row::{Key, Row};
use tidegate_core::time::{Mono, Now, Wall};

use super::host::Host;
use super::link::State;
use super::policy::Shelf;
use super::{Event, Who, World};
use crate::device::{EPOCH_MS, LinkEnd};
use crate::run::DriverBug;
use crate::scenario::{CommitPoint, Fault, Keep, Scenario, When};
use crate::stream::Stream;
use crate::time::SimTime;
use crate::watch::{Broken, Happened, Seen, Truth, seats};

/// Letters of one batch: as the runtime's driver takes them.
const BATCH_MAX: usize = 256;
/// How long a site that was asked to stop waits for what is in flight.
const DRAIN: Duration = Duration::from_secs(10);

/// Something for the driver.
#[derive(Debug)]
pub(super) enum Letter {
    /// An input as it is.
    Input(Input),
    /// A handshake.
    Knock { link: usize },
    /// Somebody asks over HTTP.
    Request { caller: Caller, request: Request },
}

/// Who waits for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Caller {
    /// An operator.
    Operator(usize),
    /// Somebody who installs a module, by the index of the fault.
    Installer(usize),
    /// A storm of swaps, by the index of the fault.
    Storm(usize),
    /// Nobody who does anything with it.
    Nobody,
}

/// Whether a batch is durable when it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flush {
    /// It is, or need not be.
    Done,
    /// A driver that cheats only says so.
    Skipped,
}

/// One step that is not durable yet.
#[derive(Debug)]
struct Stepped {
    now: Now,
    at: SimTime,
    input: Input,
    out: Output,
}

/// A site: a process that may be up, on a machine that may have power.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) name: String,
    pub(super) knobs: Knobs,
    pub(super) machine: Machine,
    pub(super) policies: Shelf,
    pub(super) host: Host,
    pub(super) boot: u64,
    pub(super) up: bool,
    pub(super) powered: bool,
    /// Whether it is asked to stop, and what the next process is to be told.
    pub(super) stopping: Option<bool>,
    pub(super) paused: bool,
    /// Tells planned events of an earlier life from those that count.
    stamp: u64,
    started: SimTime,
    mono_base: u64,
    /// Error of the wall clock in milliseconds, as of `drift_since`.
    wall_error: i64,
    pub(super) drift_ppm: i64,
    drift_since: SimTime,
    inbox: VecDeque<Letter>,
    batch: Vec<Stepped>,
    /// Rows of the batch, newer than the image.
    overlay: BTreeMap<Key, Option<Row>>,
    flushing: bool,
    /// Effects are being released: what they come to waits for its turn, as in the runtime.
    releasing: bool,
    /// What a driver that cheats did not flush: records as they were before, the newest last.
    unflushed: Vec<(Key, Option<Row>)>,
    /// Whether the disk refused and a driver that cheats goes on from memory.
    refused: bool,
    /// Set if the flush that runs will fail.
    pub(super) disk_fails: Option<Duration>,
    timer_at: Option<SimTime>,
    timer_stamp: u64,
    pub(super) commits: u32,
    pub(super) cloud_ops: u32,
    /// Outcomes for processes that are gone, by the number of their tickets.
    pub(super) stale: BTreeMap<u64, (Ticket, Outcome<ObjectReply>)>,
    next_request: u64,
    next_socket: u64,
    pub(super) gate_open: bool,
    /// What its process is told of what surrounds it.
    around: Surroundings,
    pub(super) sockets: BTreeMap<SocketId, usize>,
    pub(super) conns: BTreeMap<ConnId, usize>,
    pub(super) callers: BTreeMap<RequestId, Caller>,
    flushes: Stream,
    pub(super) luck: Stream,
}

impl Node {
    pub(super) fn new(scenario: &Scenario, n: usize) -> Node {
        let site = &scenario.sites[n];
        let mut knobs = site.knobs.clone();
        knobs.site.clone_from(&site.name);
        knobs.public_url = Some("http://site:8080".to_string());
        if let Some(bug) = scenario.bug {
            knobs = knobs.planting(bug).expect("whoever runs a scenario looks whether the build has its bug");
        }
        Node {
            name: site.name.clone(),
            policies: Shelf::new(scenario.modules(), knobs.builtin.clone(), site.policy),
            host: Host::new(scenario, n),
            around: Surroundings::default(),
            knobs,
            machine: Machine::new(),
            boot: 0,
            up: false,
            powered: true,
            stopping: None,
            paused: false,
            stamp: 0,
            started: SimTime::ZERO,
            mono_base: 0,
            wall_error: 0,
            drift_ppm: 0,
            drift_since: SimTime::ZERO,
            inbox: VecDeque::new(),
            batch: Vec::new(),
            overlay: BTreeMap::new(),
            flushing: false,
            releasing: false,
            unflushed: Vec::new(),
            refused: false,
            disk_fails: None,
            timer_at: None,
            timer_stamp: 0,
            commits: 0,
            cloud_ops: 0,
            stale: BTreeMap::new(),
            next_request: 0,
            next_socket: 0,
            gate_open: false,
            sockets: BTreeMap::new(),
            conns: BTreeMap::new(),
            callers: BTreeMap::new(),
            flushes: Stream::new(scenario.seed, &format!("flush/{}", site.name), 0),
            luck: Stream::new(scenario.seed, &format!("cloud/{}", site.name), 0),
        }
    }

    /// Both clocks of the node at a true time.
    pub(super) fn clock(&self, now: SimTime) -> Now {
        let ran = (now - self.started).as_nanos();
        let mono = self.mono_base + u64::try_from(ran).expect("a life is shorter than centuries");
        let drifted = i128::from(self.drift_ppm)
            * i128::try_from((now - self.drift_since).as_millis()).unwrap_or(0)
            / 1_000_000;
        let drifted = i64::try_from(drifted).unwrap_or(0);
        let wall = EPOCH_MS + i64::try_from(now.millis()).expect("a life is shorter than eons");
        Now { wall: Wall(wall + self.wall_error + drifted), mono: Mono(mono) }
    }

    /// Sets the wall clock.
    pub(super) fn step_wall(&mut self, by_ms: i64) {
        self.wall_error += by_ms;
    }

    /// Changes how fast the wall clock runs, from now on.
    pub(super) fn set_drift(&mut self, now: SimTime, ppm: i64) {
        let before = self.clock(now).wall.0;
        self.drift_ppm = ppm;
        self.drift_since = now;
        let after = self.clock(now).wall.0;
        self.wall_error += before - after;
    }

    /// When a moment of its monotonic clock is.
    fn sim_time(&self, mono: Mono) -> SimTime {
        self.started + Duration::from_nanos(mono.0.saturating_sub(self.mono_base))
    }
}

impl World<'_> {
    /// Something for a site. A process that is not there hears nothing.
    pub(super) fn letter(&mut self, site: usize, letter: Letter) -> Result<(), Broken> {
        let node = &mut self.nodes[site];
        if !node.up {
            return Ok(());
        }
        node.inbox.push_back(letter);
        self.pump(site)
    }

    /// Lets a site's driver do what it can do now.
    pub(super) fn pump(&mut self, site: usize) -> Result<(), Broken> {
        loop {
            let node = &mut self.nodes[site];
            if !node.up || node.paused || node.flushing || node.releasing {
                return Ok(());
            }
            let now = node.clock(self.now);
            let due = node.machine.next_wake().is_some_and(|(at, _)| at <= now.mono);
            if node.inbox.is_empty() && !due {
                break;
            }
            if due {
                self.step(site, Input::Wake)?;
            }
            for _ in 0..BATCH_MAX {
                let Some(letter) = self.nodes[site].inbox.pop_front() else { break };
                if let Some(input) = self.open(site, letter) {
                    self.step(site, input)?;
                }
            }
            self.settle(site)?;
        }
        let node = &mut self.nodes[site];
        let wake = node.machine.next_wake().map(|(at, _)| at);
        let wake = wake.map(|at| node.sim_time(at).max(self.now));
        if wake != node.timer_at {
            node.timer_at = wake;
            node.timer_stamp += 1;
            if let Some(at) = wake {
                self.queue.plan(at, Event::Timer { site, stamp: node.timer_stamp });
            }
        }
        if node.stopping.is_some() && node.machine.is_drained() {
            return self.stopped(site);
        }
        Ok(())
    }

    fn open(&mut self, site: usize, letter: Letter) -> Option<Input> {
        let node = &mut self.nodes[site];
        match letter {
            Letter::Input(input) => Some(input),
            Letter::Knock { link } => {
                node.next_socket += 1;
                let socket = SocketId(node.next_socket);
                node.sockets.insert(socket, link);
                let (device, role) = (self.links[link].device, self.links[link].role);
                let device: DeviceId = self.devices[device].id.clone();
                let elsewhere = self.links[link].twin.is_some_and(|fault| {
                    !matches!(self.scenario.faults[fault].fault, Fault::Twin { same_address: true, .. })
                });
                let remote = if elsewhere { "10.0.9.9:7" } else { "10.0.0.2:7" }.to_string();
                Some(Input::Knock {
                    socket,
                    device,
                    role,
                    remote,
                    credential: None,
                    port: None,
                    demand: Demand::Nothing,
                })
            }
            Letter::Request { caller, request } => {
                node.next_request += 1;
                let id = RequestId(node.next_request);
                node.callers.insert(id, caller);
                Some(Input::Request { id, request })
            }
        }
    }

    fn step(&mut self, site: usize, input: Input) -> Result<(), Broken> {
        let now = self.nodes[site].clock(self.now);
        let cold = self.prefetch(site, now, &input)?;
        let node = &mut self.nodes[site];
        let mut out = Output::default();
        // What a boot decides it decides with the set that it boots with.
        let set = match &input {
            Input::Boot { knobs, .. } => {
                seats::set(seats::policy(self.images[site].get(&Key::Policy)), knobs).id()
            }
            _ => node.machine.active_policy(),
        };
        let newest = node.policies.newest().filter(|_| self.driver == Some(DriverBug::B24));
        let set = newest.unwrap_or(set);
        node.machine.step(now, &input, &cold, &mut node.policies.of(set), &mut out);
        for odd in node.policies.take_odd() {
            *self.fired.entry(odd.word()).or_default() += 1;
        }
        self.steps += 1;
        self.trace.step(self.steps, site, now, &input, &out);
        if self.trace.talks() {
            let changes: Vec<&str> = out.changes.iter().map(|change| change.name()).collect();
            let text = shortened(&input);
            self.trace.say(self.now, self.events, &node.name, ">", || format!("{text} {changes:?}"));
        }
        for (key, row) in &out.rows {
            node.overlay.insert(key.clone(), row.clone());
        }
        node.batch.push(Stepped { now, at: self.now, input, out });
        Ok(())
    }

    fn prefetch(&self, site: usize, now: Now, input: &Input) -> Result<Rows, Broken> {
        let node = &self.nodes[site];
        let mut have = Rows::new();
        let mut keys = BTreeSet::new();
        for _ in 0..8 {
            node.machine.wants(now, input, &have, &mut keys);
            if keys.is_empty() {
                return Ok(have);
            }
            for key in std::mem::take(&mut keys) {
                let row = match node.overlay.get(&key) {
                    Some(row) => row.clone(),
                    None => self.images[site].get(&key).cloned(),
                };
                have.insert(key, row);
            }
        }
        Err(Broken { invariant: "I27", saw: format!("{input:?} never has all it wants") })
    }

    /// Ends a batch: flushes it if it must be durable, then releases it.
    fn settle(&mut self, site: usize) -> Result<(), Broken> {
        let node = &mut self.nodes[site];
        let durable = node.batch.iter().any(|step| !step.out.rows.is_empty() || !step.out.changes.is_empty());
        if !durable {
            return self.publish(site, Flush::Done, true);
        }
        let claims = |step: &Stepped| {
            step.out.changes.iter().any(|change| matches!(change, Change::Job(JobChange::Claimed { .. })))
        };
        let cheats = match self.driver {
            Some(DriverBug::B27) => node.batch.iter().any(claims),
            Some(DriverBug::B28) => node.refused,
            Some(DriverBug::B24) | None => false,
        };
        if cheats {
            return self.publish(site, Flush::Skipped, true);
        }
        node.commits += 1;
        node.flushing = true;
        let n = node.commits;
        let about = self.scenario.sites[site].flush;
        let takes = node.flushes.tail(about) + self.weather.disk_slow(site);
        let stamp = node.stamp;
        self.queue.plan(self.now + takes, Event::Flushed { site, stamp });
        self.trigger(|when| {
            matches!(when, When::Commit { site: s, n: k, point: CommitPoint::Torn } if *s == site && *k == n)
        })
    }

    /// A flush ended.
    pub(super) fn flushed(&mut self, site: usize, stamp: u64) -> Result<(), Broken> {
        let node = &mut self.nodes[site];
        if node.stamp != stamp || !node.flushing {
            return Ok(());
        }
        if node.paused {
            // The kernel finished it; the process learns of it when it runs again.
            self.queue.plan(self.now + Duration::from_millis(100), Event::Flushed { site, stamp });
            return Ok(());
        }
        if let Some(down) = node.disk_fails.take() {
            if self.driver == Some(DriverBug::B28) {
                node.refused = true;
                node.flushing = false;
                self.publish(site, Flush::Skipped, true)?;
                return self.pump(site);
            }
            return self.die(site, Keep::Nothing, false, down);
        }
        node.flushing = false;
        node.unflushed.clear();
        let n = node.commits;
        let at = |when: &When, p: CommitPoint| matches!(when, When::Commit { site: s, n: k, point } if *s == site && *k == n && *point == p);
        let killed = self.triggered(|when| at(when, CommitPoint::Durable));
        self.publish(site, Flush::Done, killed.is_none())?;
        match killed {
            Some(fault) => {
                self.fault_on(fault)?;
                // A disk that fails here kept the batch and did not say so.
                if let Some(down) = self.nodes[site].disk_fails.take() {
                    return self.die(site, Keep::Nothing, false, down);
                }
            }
            None => self.trigger(|when| at(when, CommitPoint::Released))?,
        }
        self.pump(site)
    }

    /// The batch is durable, or need not be: shows it to the observers and lets its effects leave.
    fn publish(&mut self, site: usize, flush: Flush, release: bool) -> Result<(), Broken> {
        let batch = std::mem::take(&mut self.nodes[site].batch);
        let cheats = flush == Flush::Skipped;
        self.nodes[site].overlay.clear();
        let mut effects = Vec::new();
        for mut step in batch {
            let mut before = BTreeMap::new();
            let image = &mut self.images[site];
            for (key, row) in &step.out.rows {
                let old = match row {
                    Some(row) => image.insert(key.clone(), row.clone()),
                    None => image.remove(key),
                };
                if cheats {
                    self.nodes[site].unflushed.push((key.clone(), old.clone()));
                }
                before.insert(key.clone(), old);
            }
            let node = &self.nodes[site];
            let truth = Truth {
                now: self.now,
                scenario: self.scenario,
                edges: &self.edges,
                clouds: &self.clouds,
                devices: &self.devices,
                images: &self.images,
            };
            let seen = Seen {
                truth,
                site,
                now: step.now,
                stepped: step.at,
                boot: Boot(node.boot),
                knobs: &node.knobs,
                input: &step.input,
                out: &step.out,
                before: &before,
                rows: &self.images[site],
            };
            for watch in &mut self.watches {
                watch.step(&seen)?;
            }
            self.coverage.step(&seen, &self.weather.names().collect::<Vec<_>>());
            effects.append(&mut step.out.effects);
        }
        if release {
            self.released(site, effects)?;
        }
        Ok(())
    }

    fn released(&mut self, site: usize, effects: Vec<Effect>) -> Result<(), Broken> {
        let boot = self.nodes[site].boot;
        self.nodes[site].releasing = true;
        for effect in effects {
            // An effect may end the process (a fault waits for it).
            if !self.nodes[site].up || self.nodes[site].boot != boot {
                return Ok(());
            }
            if self.canary {
                let saw = format!("{effect:?} left the site");
                return Err(Broken { invariant: "canary", saw });
            }
            self.tell(&Happened::Released { site, effect: &effect })?;
            self.perform(site, effect)?;
        }
        if self.nodes[site].boot == boot {
            self.nodes[site].releasing = false;
        }
        Ok(())
    }

    /// A planned deadline of a site.
    pub(super) fn timer(&mut self, site: usize, stamp: u64) -> Result<(), Broken> {
        let node = &mut self.nodes[site];
        if node.timer_stamp != stamp {
            return Ok(());
        }
        node.timer_at = None;
        self.pump(site)
    }

    /// A site's process starts.
    pub(super) fn start(&mut self, site: usize, stamp: u64) -> Result<(), Broken> {
        let node = &mut self.nodes[site];
        if node.up || node.stamp != stamp {
            return Ok(());
        }
        node.machine = Machine::new();
        for (key, row) in &self.images[site] {
            if Machine::is_hot(row) {
                node.machine.load(key, row.clone());
            }
        }
        node.up = true;
        node.powered = true;
        node.paused = false;
        node.boot += 1;
        node.started = self.now;
        // Monotonic time begins anew with each process, somewhere.
        // Named by the boot: one death less changes nothing for the lives that remain.
        let mut fate = Stream::new(self.scenario.seed, &format!("boot/{}", node.name), node.boot);
        node.mono_base = fate.below(5_000_000_000);
        let seed = fate.next_u64();
        let (boot, knobs) = (Boot(node.boot), node.knobs.clone());
        node.policies = Shelf::new(
            std::sync::Arc::clone(&self.known),
            knobs.builtin.clone(),
            self.scenario.sites[site].policy,
        );
        self.ready_first(site);
        self.say(Who::Site(site), "^", || format!("starts, boot {}", boot.0));
        self.trace.note(self.now, "start");
        self.tell(&Happened::Up { site })?;
        let node = &mut self.nodes[site];
        node.inbox.push_back(Letter::Input(Input::Boot { boot, seed, knobs }));
        if node.around != Surroundings::default() {
            node.inbox.push_back(Letter::Input(Input::Surroundings(node.around)));
        }
        self.pump(site)
    }

    /// What surrounds a site is so from now on. Whether its process hears of something new.
    pub(super) fn surround(&mut self, site: usize, around: Surroundings) -> Result<bool, Broken> {
        let node = &mut self.nodes[site];
        let heard = node.up && around.turned(&node.around);
        node.around = around;
        self.letter(site, Letter::Input(Input::Surroundings(around)))?;
        Ok(heard)
    }

    /// A site is asked to stop in an orderly way, and starts again with or without a cloud.
    pub(super) fn stop(&mut self, site: usize, destination: bool) -> Result<(), Broken> {
        let node = &mut self.nodes[site];
        if !node.up || node.stopping.is_some() {
            return Ok(());
        }
        node.stopping = Some(destination);
        let stamp = node.stamp;
        self.queue.plan(self.now + DRAIN, Event::Drained { site, stamp });
        self.letter(site, Letter::Input(Input::Shutdown))
    }

    /// It has waited long enough.
    pub(super) fn drained(&mut self, site: usize, stamp: u64) -> Result<(), Broken> {
        let node = &self.nodes[site];
        if node.stamp == stamp && node.up && node.stopping.is_some() { self.stopped(site) } else { Ok(()) }
    }

    fn stopped(&mut self, site: usize) -> Result<(), Broken> {
        let destination = self.nodes[site].stopping;
        self.end(site, Keep::Prefix, false, Duration::from_millis(300), true)?;
        // What the old process left was decided with what it was told; the next one is told anew.
        if let Some(destination) = destination {
            self.nodes[site].knobs.destination = destination;
        }
        Ok(())
    }

    /// A site's process is gone, with everything that was not durable.
    pub(super) fn die(&mut self, site: usize, keep: Keep, power: bool, down: Duration) -> Result<(), Broken> {
        self.end(site, keep, power, down, false)
    }

    fn end(
        &mut self,
        site: usize,
        keep: Keep,
        power: bool,
        down: Duration,
        orderly: bool,
    ) -> Result<(), Broken> {
        let node = &mut self.nodes[site];
        if power {
            node.powered = false;
        }
        node.stamp += 1;
        let stamp = node.stamp;
        self.queue.plan(self.now + down, Event::Start { site, stamp });
        if !self.nodes[site].up {
            return Ok(());
        }
        let node = &mut self.nodes[site];
        // One transaction at a time is unflushed, and the store's commits are atomic: prefix and subset of it are all
        // of it or nothing.
        let survives = node.flushing
            && match keep {
                Keep::Nothing => false,
                Keep::Prefix | Keep::Subset => {
                    let what = format!("survive/{}", node.name);
                    Stream::new(self.scenario.seed, &what, u64::from(node.commits)).below(2) == 0
                }
            };
        let lost = node.batch.len();
        let linked = !node.conns.is_empty();
        self.say(Who::Site(site), "v", || {
            format!("down (power {power}, orderly {orderly}), {lost} steps unflushed, survive: {survives}")
        });
        self.trace.note(self.now, if survives { "down, kept" } else { "down" });
        if power && linked {
            self.coverage.mark("power-lost");
        }
        if survives {
            self.coverage.mark("commit-kept");
            self.publish(site, Flush::Done, false)?;
        } else if lost > 0 {
            self.nodes[site].batch.clear();
            self.tell(&Happened::Undone { site })?;
        }
        let node = &mut self.nodes[site];
        for (key, old) in std::mem::take(&mut node.unflushed).into_iter().rev() {
            match old {
                Some(old) => self.images[site].insert(key, old),
                None => self.images[site].remove(&key),
            };
        }
        node.refused = false;
        node.releasing = false;
        node.disk_fails = None;
        node.up = false;
        node.flushing = false;
        node.stopping = None;
        node.paused = false;
        node.host.stop(self.now);
        node.machine = Machine::new();
        node.overlay.clear();
        node.inbox.clear();
        node.sockets.clear();
        node.conns.clear();
        node.callers.clear();
        node.timer_at = None;
        node.timer_stamp += 1;
        node.gate_open = false;
        // What is frozen is remembered by the process only; the door opens after the boot told it anew.
        self.edges[site].frozen.clear();
        for link in 0..self.links.len() {
            let of = self.links[link].site == site && self.links[link].state != State::Over;
            // Handshakes on their way find out when they arrive.
            if !of || !self.links[link].knocked {
                continue;
            }
            self.links[link].site_gone = true;
            if power {
                self.mute(link, true, true);
            } else {
                self.tell_device(link, LinkEnd::Broken);
            }
        }
        self.tell(&Happened::Down { site, orderly })
    }

    /// Takes the fault that waits for a moment, if it is this one.
    pub(super) fn triggered(&mut self, is: impl Fn(&When) -> bool) -> Option<usize> {
        let healed = self.healed;
        let mut waits = self.scenario.faults.iter().enumerate();
        waits.find(|(n, spec)| !healed && is(&spec.when) && !self.begun.contains(n)).map(|(n, _)| n)
    }

    /// Begins the fault that waits for a moment, if one does.
    pub(super) fn trigger(&mut self, is: impl Fn(&When) -> bool) -> Result<(), Broken> {
        match self.triggered(is) {
            Some(fault) => self.fault_on(fault),
            None => Ok(()),
        }
    }
}

/// An input on one line.
fn shortened(input: &Input) -> String {
    let text = format!("{input:?}");
    if text.len() <= 200 { text } else { text.chars().take(200).collect::<String>() + "…" }
}
