//! A world: sites, devices, stores and the network between them, and the loop that lets things happen in order. Holds no
//! rule of Tidegate's: what a site decides is decided by the real machine.
//!
//! - `queue`: what is going to happen; `weather`: which faults are on; `fault`: how they begin and end.
//! - `site`: the driver around a machine: batches, flushes, crashes; `release`: what its effects do.
//! - `link`: connections of devices; `twin`: second programs with their ids; `door`: their callbacks and uploads; `cloud`: object operations.
//! - `operator`: people who carry recordings through.
//! - `policy`: who answers the core's questions; `module`: what modules say; `host`: how they come and go.

mod cloud;
mod door;
mod fault;
mod host;
mod link;
mod module;
mod operator;
mod phases;
pub(crate) mod policy;
mod queue;
#[cfg(feature = "wasm-host")]
mod real;
mod release;
mod sight;
mod site;
mod twin;
mod weather;

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

use tidegate_core::effect::{ConflictView, PolicyOp, RecorderView};
use tidegate_core::id::{ObjectKey, Role};
use tidegate_core::input::{LostWhy, PolicyReply};
use tidegate_core::object::{ObjectOp, ObjectReply};
use tidegate_core::outcome::Outcome;
use tidegate_core::row::{Key, Row};

use crate::coverage::Coverage;
use crate::device::{Ask, Callback, Device, LinkEnd, Script, StoreAnswer, StoreCall, Wake};
use crate::run::{DriverBug, Failure, FailureKind, Options, Report};
use crate::scenario::{Act, Fault, Flavour, Scenario};
use crate::store::Bucket;
use crate::stream::Stream;
use crate::time::SimTime;
use crate::trace::Trace;
use crate::watch::{self, Broken, Happened, Premises, Truth, Watch};

use cloud::Asked;
use host::{Hosted, Installer};
use link::{Lines, Link};
use operator::Operator;
use queue::Queue;
use site::Node;
use weather::Weather;

/// Events after which a run counts as running in a circle: a hundred times what a long life needs.
const EVENTS_MAX: u64 = 5_000_000;

/// Something that is going to happen.
#[derive(Debug)]
enum Event {
    /// Somebody does a step of the scenario.
    Step(usize),
    /// A fault begins.
    FaultOn(usize),
    /// A fault ends.
    FaultOff(usize),
    /// The chaos phase ends.
    Heal,
    /// A site's process starts, if it is still the start that was planned.
    Start { site: usize, stamp: u64 },
    /// A site's next deadline.
    Timer { site: usize, stamp: u64 },
    /// A site's flush ended.
    Flushed { site: usize, stamp: u64 },
    /// A site that was asked to stop has waited long enough.
    Drained { site: usize, stamp: u64 },
    /// A handshake is on its way to the site; the number counts tries of the device's kernel.
    Dial { link: usize, again: u32 },
    /// A handshake reached the site.
    Knocked { link: usize },
    /// The answer to a handshake reached the device.
    Answered { link: usize, admitted: bool },
    /// A frame reached the site.
    Up { link: usize, text: String },
    /// A frame reached the device.
    Down { link: usize, text: String },
    /// The end of a link reached the site.
    UpEnd { link: usize, why: LostWhy },
    /// The site is through with a link that the core closed.
    Closed { link: usize },
    /// The end of a link reached the device.
    DownEnd { link: usize, end: LinkEnd },
    /// One side of a link may have waited long enough for a sign of life.
    Quiet { link: usize, at_site: bool, since: SimTime },
    /// A device is switched on for the first time.
    PowerOn(usize),
    /// A second program with a device's id dials.
    Twin { fault: usize, device: usize, role: Role },
    /// A callback reached the site.
    Posted { device: usize, callback: Callback },
    /// An upload of a device reached the edge store.
    Brought { device: usize, life: u64, call: StoreCall },
    /// The edge store's answer reached the device.
    Stored { device: usize, life: u64, call: StoreCall, answer: StoreAnswer },
    /// A device's own deadline.
    Woke { device: usize, life: u64, wake: Wake },
    /// An object operation reached its store.
    Arrived { asked: Asked, op: Box<ObjectOp> },
    /// The outcome of an object operation reached the site.
    Outcome { asked: Asked, outcome: Box<Outcome<ObjectReply>> },
    /// An operator looks at the world.
    Look { operator: usize, stamp: u64 },
    /// The host of a site's policies has done what it was asked for.
    Hosted { asked: Hosted, op: Box<PolicyOp> },
    /// What became of it reached the site.
    HostAnswers { asked: Hosted, outcome: Box<Outcome<PolicyReply>> },
    /// Somebody who installs a module does the next thing.
    Installs { fault: usize, stamp: u64 },
    /// A storm swaps modules once more.
    Swaps { fault: usize, n: u64 },
}

/// Whom a line of the log is about.
#[derive(Clone, Copy, Debug)]
enum Who {
    Device(usize),
    Site(usize),
    Word(&'static str),
}

/// A world in the middle of its life.
struct World<'s> {
    scenario: &'s Scenario,
    now: SimTime,
    events: u64,
    steps: u64,
    queue: Queue<Event>,
    nodes: Vec<Node>,
    edges: Vec<Bucket>,
    clouds: Vec<Bucket>,
    images: Vec<BTreeMap<Key, Row>>,
    devices: Vec<Device>,
    /// Incremented whenever a device's programs lose what they wait for.
    lives: Vec<u64>,
    links: Vec<Link>,
    lines: Vec<Lines>,
    operators: Vec<Operator>,
    /// People who install modules, by their fault.
    installers: BTreeMap<usize, Installer>,
    /// Every module there may be.
    known: policy::Known,
    weather: Weather,
    watches: Vec<Box<dyn Watch>>,
    trace: Trace,
    coverage: Coverage,
    canary: bool,
    driver: Option<DriverBug>,
    fired: BTreeMap<&'static str, u64>,
    /// The chances of each fault, by its index.
    lucks: BTreeMap<usize, Stream>,
    /// Faults that began.
    begun: BTreeSet<usize>,
    /// Faults that are on.
    on: BTreeSet<usize>,
    /// Whether the chaos phase is over.
    healed: bool,
    stuck: Vec<String>,
    /// What third parties overwrote or deleted at edges, as it was: site and key.
    backups: BTreeMap<(usize, ObjectKey), crate::store::Content>,
    /// What sites last showed of recorders, by device.
    views: BTreeMap<usize, RecorderView>,
    /// What they last showed of contradictions between recorders and their records, by device.
    conflicts: BTreeMap<usize, ConflictView>,
    /// What second programs with a device's id were configured for, by device.
    twins: BTreeMap<usize, String>,
    /// Commits of all sites when something last became durable, and the event at which it did.
    commits_seen: u64,
    events_seen: u64,
}

/// Runs a scenario.
pub(crate) fn run(scenario: &Scenario, options: Options) -> Report {
    let mut world = World::new(scenario, options);
    let lived = catch_unwind(AssertUnwindSafe(|| world.live()));
    let failure = match lived {
        Ok(Ok(())) => None,
        Ok(Err(broken)) => {
            let liveness = broken.invariant.starts_with('L');
            let kind = if liveness { FailureKind::Liveness } else { FailureKind::Invariant };
            Some(world.failure(kind, broken.invariant.to_string(), broken.saw))
        }
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_string()));
            Some(world.failure(FailureKind::Crash, "panic".to_string(), text.unwrap_or_default()))
        }
    };
    world.report(failure)
}

impl<'s> World<'s> {
    fn new(scenario: &'s Scenario, options: Options) -> World<'s> {
        let mut devices: Vec<Device> = (scenario.devices.iter().enumerate())
            .map(|(n, spec)| Device::new(n, spec, scenario.seed))
            .collect();
        for step in &scenario.steps {
            if let Act::Record(recording) = &step.act {
                let script = Script { bytes: recording.bytes, bare: recording.bare };
                devices[recording.device].scripts.insert(recording.task.clone(), script);
            }
        }
        let lines = devices.iter().map(|device| Lines::new(scenario.seed, &device.spec.id)).collect();
        World {
            scenario,
            now: SimTime::ZERO,
            events: 0,
            steps: 0,
            queue: Queue::new(),
            nodes: (0..scenario.sites.len()).map(|n| Node::new(scenario, n)).collect(),
            edges: scenario.sites.iter().map(|_| Bucket::new(Flavour::Full)).collect(),
            clouds: scenario.sites.iter().map(|site| Bucket::new(site.flavour)).collect(),
            images: scenario.sites.iter().map(|_| BTreeMap::new()).collect(),
            lives: vec![0; devices.len()],
            devices,
            links: Vec::new(),
            lines,
            operators: Vec::new(),
            installers: BTreeMap::new(),
            known: scenario.modules(),
            weather: Weather::default(),
            watches: if options.blind { Vec::new() } else { watch::all(scenario) },
            trace: Trace::new(options.log, options.checkpoints),
            coverage: Coverage::new(options.blind),
            canary: options.canary,
            driver: options.driver,
            fired: BTreeMap::new(),
            lucks: BTreeMap::new(),
            begun: BTreeSet::new(),
            on: BTreeSet::new(),
            healed: false,
            stuck: Vec::new(),
            backups: BTreeMap::new(),
            views: BTreeMap::new(),
            conflicts: BTreeMap::new(),
            twins: BTreeMap::new(),
            commits_seen: 0,
            events_seen: 0,
        }
    }

    fn truth(&self) -> Truth<'_> {
        Truth {
            now: self.now,
            scenario: self.scenario,
            edges: &self.edges,
            clouds: &self.clouds,
            devices: &self.devices,
            images: &self.images,
        }
    }

    /// Tells the observers what happened outside the core.
    fn tell(&mut self, what: &Happened<'_>) -> Result<(), Broken> {
        let truth = Truth {
            now: self.now,
            scenario: self.scenario,
            edges: &self.edges,
            clouds: &self.clouds,
            devices: &self.devices,
            images: &self.images,
        };
        for watch in &mut self.watches {
            watch.happened(&truth, what)?;
        }
        self.coverage.happened(&truth, what);
        Ok(())
    }

    /// One event.
    fn happen(&mut self, event: Event) -> Result<(), Broken> {
        match event {
            Event::Step(n) => self.act(n),
            Event::FaultOn(n) => self.fault_on(n),
            Event::FaultOff(n) => self.fault_off(n),
            Event::Heal => self.heal(),
            Event::Start { site, stamp } => self.start(site, stamp),
            Event::Timer { site, stamp } => self.timer(site, stamp),
            Event::Flushed { site, stamp } => self.flushed(site, stamp),
            Event::Drained { site, stamp } => self.drained(site, stamp),
            Event::Dial { link, again } => self.dial(link, again),
            Event::Knocked { link } => self.knocked(link),
            Event::Answered { link, admitted } => self.answered(link, admitted),
            Event::Up { link, text } => self.up(link, &text),
            Event::Down { link, text } => self.down(link, &text),
            Event::UpEnd { link, why } => self.up_end(link, why),
            Event::Closed { link } => self.closed(link),
            Event::DownEnd { link, end } => self.down_end(link, end),
            Event::Quiet { link, at_site, since } => self.quiet(link, at_site, since),
            Event::PowerOn(device) => self.device(device, |device, now, asks| device.power_on(now, asks)),
            Event::Twin { fault, device, role } => self.twin(fault, device, role),
            Event::Posted { device, callback } => self.posted(device, &callback),
            Event::Brought { device, life, call } => self.brought(device, life, call),
            Event::Stored { device, life, call, answer } => {
                if self.lives[device] == life {
                    self.device(device, |device, now, asks| device.stored(now, &call, &answer, asks))?;
                }
                Ok(())
            }
            Event::Woke { device, life, wake } => {
                if self.lives[device] == life {
                    self.device(device, |device, now, asks| device.woke(now, wake, asks))?;
                }
                Ok(())
            }
            Event::Arrived { asked, op } => self.arrived(asked, &op),
            Event::Outcome { asked, outcome } => self.outcome(asked, *outcome),
            Event::Look { operator, stamp } => self.look(operator, stamp),
            Event::Hosted { asked, op } => self.hosted(asked, &op),
            Event::HostAnswers { asked, outcome } => self.host_answers(asked, *outcome),
            Event::Installs { fault, stamp } => self.installs(fault, stamp),
            Event::Swaps { fault, n } => self.swaps(fault, n),
        }
    }

    /// Lets a device do something, and carries what it asks for.
    fn device(
        &mut self,
        n: usize,
        act: impl FnOnce(&mut Device, SimTime, &mut Vec<Ask>),
    ) -> Result<(), Broken> {
        let mut asks = Vec::new();
        act(&mut self.devices[n], self.now, &mut asks);
        for ask in asks {
            match ask {
                Ask::Dial(role) => self.dials(n, role, None),
                Ask::Close(role) => self.hangs_up(n, role),
                Ask::Say(role, text) => self.says(n, role, text),
                Ask::Post(callback) => self.posts(n, callback),
                Ask::Store(call) => self.brings(n, call),
                Ask::Wake(wake, after) => {
                    let life = self.lives[n];
                    self.queue.plan(self.now + after, Event::Woke { device: n, life, wake });
                }
            }
        }
        Ok(())
    }

    /// A fault really did something.
    fn fire(&mut self, fault: &Fault) {
        *self.fired.entry(fault.name().1).or_default() += 1;
    }

    /// A line of the log, if anybody wants one.
    fn say(&mut self, who: Who, glyph: &str, text: impl FnOnce() -> String) {
        if !self.trace.talks() {
            return;
        }
        let who = match who {
            Who::Device(n) => self.devices[n].id.as_str(),
            Who::Site(n) => &self.nodes[n].name,
            Who::Word(word) => word,
        };
        self.trace.say(self.now, self.events, who, glyph, text);
    }

    fn failure(&self, kind: FailureKind, invariant: String, saw: String) -> Failure {
        Failure {
            kind,
            invariant,
            saw,
            at: self.now,
            event: self.events,
            phase: self.phase(),
            inputs: self.trace.last(),
        }
    }

    /// Where jobs and tasks are, in a few words.
    fn phase(&self) -> String {
        let mut words: BTreeMap<String, u32> = BTreeMap::new();
        for row in self.images.iter().flat_map(BTreeMap::values) {
            let word = match row {
                Row::Task(row) => format!("task {}", row.state.name()),
                Row::Job(row) => format!("job {}", crate::coverage::job_word(&row.state)),
                Row::Upload(row) => format!("upload {}", crate::coverage::phase_word(&row.phase)),
                _ => continue,
            };
            *words.entry(word).or_default() += 1;
        }
        words.iter().map(|(word, n)| format!("{n} {word}")).collect::<Vec<_>>().join(", ")
    }

    fn report(self, failure: Option<Failure>) -> Report {
        let mut premises = Premises::default();
        for watch in &self.watches {
            premises.add(watch.premises());
        }
        let (chain, checkpoints, log) = self.trace.finish();
        let Coverage { states, transitions, pairs, marks, .. } = self.coverage;
        Report {
            failure,
            chain,
            checkpoints,
            events: self.events,
            steps: self.steps,
            commits: self.nodes.iter().map(|node| u64::from(node.commits)).sum(),
            cloud_ops: self.nodes.iter().map(|node| u64::from(node.cloud_ops)).sum(),
            cloud_bytes: self.clouds.iter().map(|cloud| cloud.past.bytes_in()).sum(),
            cloud_objects: self.clouds.iter().map(|cloud| cloud.objects.len() as u64).sum(),
            held: self.devices.iter().map(|device| device.held().count() as u64).sum(),
            simulated: self.now.since_start(),
            premises,
            marks,
            fired: self.fired,
            states,
            transitions,
            pairs,
            log,
            stuck: self.stuck,
        }
    }

    /// Keys that belong to a task in a store: its files' names begin with the task's id.
    fn keys_of(bucket: &Bucket, task: &str) -> Vec<ObjectKey> {
        let of_task = |key: &&ObjectKey| {
            let name = key.as_str().rsplit('/').next().unwrap_or_default();
            name.strip_prefix(task).is_some_and(|rest| rest.starts_with('.'))
        };
        bucket.objects.keys().filter(of_task).cloned().collect()
    }
}
