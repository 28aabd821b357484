//! What a scenario must be before a world can run it. Judges form alone: a scenario that asks for the impossible, or for
//! something an operator would be refused, is legal.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use tidegate_core::id::{DeviceId, TaskId, WireId};
use tidegate_core::limits;

use super::{
    Act, DeviceSpec, Fault, FaultSpec, Lasts, ModuleSpec, Path, Recording, Scenario, Site, Step, Store, When,
};

/// Where in a scenario a problem is. Indices count from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Not at one of its parts.
    Whole,
    /// At a site.
    Site(usize),
    /// At a device.
    Device(usize),
    /// At a step.
    Step(usize),
    /// At a fault.
    Fault(usize),
}

/// Why a text or a value is no scenario: what is wrong, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The line of the file, from 1, if it came from one and the line is known.
    pub line: Option<usize>,
    /// The part of the scenario.
    pub place: Place,
    /// What is wrong and how to put it right.
    pub what: String,
}

impl Problem {
    pub(super) fn at(place: Place, what: impl Into<String>) -> Problem {
        Problem { line: None, place, what: what.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        match self.place {
            Place::Whole => {}
            Place::Site(n) => write!(f, "sites[{n}]: ")?,
            Place::Device(n) => write!(f, "devices[{n}]: ")?,
            Place::Step(n) => write!(f, "steps[{n}]: ")?,
            Place::Fault(n) => write!(f, "faults[{n}]: ")?,
        }
        f.write_str(&self.what)
    }
}

impl std::error::Error for Problem {}

type Checked = Result<(), String>;

impl Scenario {
    /// Puts steps and faults into the order that a file has them in: by time; what waits for a commit or an operation
    /// comes last; otherwise as they were.
    pub fn sort(&mut self) {
        self.steps.sort_by_key(|step| step.at);
        self.faults.sort_by_key(|fault| fault.when.rank());
    }

    /// Whether a world can run it: names are legal and unique, indices and numbers in range, settings what the site
    /// would accept, times within the chaos phase and in order.
    ///
    /// # Errors
    /// The first problem, in the order of the file.
    pub fn check(&self) -> Result<(), Problem> {
        self.check_head().map_err(|what| Problem::at(Place::Whole, what))?;
        for (n, site) in self.sites.iter().enumerate() {
            self.check_site(n, site).map_err(|what| Problem::at(Place::Site(n), what))?;
        }
        for (n, device) in self.devices.iter().enumerate() {
            self.check_device(n, device).map_err(|what| Problem::at(Place::Device(n), what))?;
        }
        let mut tasks = BTreeSet::new();
        for (n, step) in self.steps.iter().enumerate() {
            self.check_step(step, &mut tasks).map_err(|what| Problem::at(Place::Step(n), what))?;
        }
        for (n, fault) in self.faults.iter().enumerate() {
            self.check_fault(fault).map_err(|what| Problem::at(Place::Fault(n), what))?;
        }
        if !self.steps.is_sorted_by_key(|step| step.at) {
            return Err(Problem::at(Place::Whole, "steps are not in order of time: call `sort`"));
        }
        if !self.faults.is_sorted_by_key(|fault| fault.when.rank()) {
            return Err(Problem::at(Place::Whole, "faults are not in order of time: call `sort`"));
        }
        Ok(())
    }

    fn check_head(&self) -> Checked {
        let legal = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        if self.name.is_empty() || !self.name.bytes().all(legal) {
            return Err(format!("name = {:?} must be letters, digits and dashes", self.name));
        }
        if let Some(expect) = &self.expect
            && (expect.is_empty() || !expect.bytes().all(legal))
        {
            return Err(format!("expect = {expect:?} must be the id of an invariant, for instance \"I06\""));
        }
        span("chaos", self.chaos, PHASE_MAX)?;
        span("settle", self.settle, PHASE_MAX)?;
        if self.sites.is_empty() {
            return Err("there is no site: write at least one line in sites".to_string());
        }
        Ok(())
    }

    fn check_site(&self, n: usize, site: &Site) -> Checked {
        if self.sites[..n].iter().any(|other| other.name == site.name) {
            return Err(format!("there is another site named {:?}: names of sites are unique", site.name));
        }
        if site.knobs.site != site.name || site.knobs.public_url.is_some() {
            return Err("knobs.site must be the site's name, and knobs.public_url is the world's".to_string());
        }
        site.knobs.clone().try_new().map_err(|bad| bad.to_string())?;
        if site.knobs.default_module.is_some_and(|module| module != ModuleSpec::DEFAULT.hash()) {
            return Err("knobs.default_module is the world's own default module, or none".to_string());
        }
        span("flush", site.flush, ABOUT_MAX)?;
        span("cloud_latency", site.cloud_latency, ABOUT_MAX)?;
        speed("cloud_speed", site.cloud_speed)
    }

    fn check_device(&self, n: usize, device: &DeviceSpec) -> Checked {
        DeviceId::new(&device.id).map_err(|bad| bad.to_string())?;
        if self.devices[..n].iter().any(|other| other.id == device.id) {
            return Err(format!("there is another device {:?}: ids of devices are unique", device.id));
        }
        self.site(device.site)?;
        span("latency", device.latency, ABOUT_MAX)?;
        speed("speed", device.speed)
    }

    fn check_step<'a>(&'a self, step: &'a Step, tasks: &mut BTreeSet<(usize, &'a str)>) -> Checked {
        span("at", step.at, self.chaos)?;
        let mut new = |device: usize, task: &'a str| -> Checked {
            self.device(device)?;
            TaskId::new(task).map_err(|bad| bad.to_string())?;
            if task.contains('.') {
                return Err(format!("task {task:?} has a dot: only ids of later attempts have one"));
            }
            if !tasks.insert((self.devices[device].site, task)) {
                return Err(format!("task {task:?} is created twice at one site: give it another id"));
            }
            Ok(())
        };
        match &step.act {
            Act::Record(recording) => {
                new(recording.device, &recording.task)?;
                check_recording(recording)
            }
            Act::Create { device, task, config: _ } => new(*device, task),
            Act::Command { device, action: _, task } => {
                self.device(*device)?;
                task.as_deref().map_or(Ok(()), known)
            }
            Act::Cancel { task, site } | Act::Judge { task, site, approve: _ } => {
                self.site(*site)?;
                known(task)
            }
            Act::Sync { task, site } => {
                self.site(*site)?;
                task.as_deref().map_or(Ok(()), known)
            }
            Act::Refresh { device, max_age } => {
                self.device(*device)?;
                span("max_age", *max_age, PHASE_MAX)
            }
            Act::Restart { site, destination: _ } => self.site(*site),
            Act::StopRecorder { device }
            | Act::RestartUploader { device }
            | Act::Local { device, deed: _ }
            | Act::Resolve { device, how: _, task: None } => self.device(*device),
            Act::Resolve { device, how: _, task: Some(task) } => {
                self.device(*device)?;
                known(task)
            }
            Act::Policy { site, deed: _, slot: _, module: _ } => self.site(*site),
        }
    }

    fn check_fault(&self, spec: &FaultSpec) -> Checked {
        match spec.when {
            When::At(at) => span("at", at, self.chaos)?,
            When::Commit { site, n, point: _ } => {
                self.site(site)?;
                count("the number of the commit", n)?;
                if stops(&spec.fault) != Some(site) {
                    return Err("only a fault that stops the same site (kill, power-loss, disk-fails) can wait for a \
                                commit: give a time instead"
                        .to_string());
                }
            }
            When::Object { site, n, point: _ } | When::Policy { site, n, point: _ } => {
                self.site(site)?;
                count("the number of the operation", n)?;
            }
        }
        if let Lasts::For(lasts) = spec.lasts {
            span("lasts", lasts, PHASE_MAX)?;
        }
        self.check_what(&spec.fault)
    }

    fn check_what(&self, fault: &Fault) -> Checked {
        match fault {
            Fault::Slow { path, by } => {
                self.path(path)?;
                span("by", *by, PHASE_MAX)
            }
            Fault::Hold { path }
            | Fault::Cut { path, way: _ }
            | Fault::Reset { path }
            | Fault::Refuse { path } => self.path(path),
            Fault::Replay { device, role: _, count: n } => {
                self.device(*device)?;
                count("count", *n)
            }
            Fault::Kill { site, keep: _, down } | Fault::PowerLoss { site, keep: _, down } => {
                self.site(*site)?;
                span("down", *down, PHASE_MAX)
            }
            Fault::DiskFails { site, down } => {
                self.site(*site)?;
                span("down", *down, PHASE_MAX)
            }
            Fault::DiskSlow { site, by } => {
                self.site(*site)?;
                span("by", *by, PHASE_MAX)
            }
            Fault::Pause { site } => self.site(*site),
            Fault::Step { site, by_ms } => {
                self.site(*site)?;
                if by_ms.unsigned_abs() > STEP_MS_MAX {
                    return Err("by must be at most 30 years either way".to_string());
                }
                Ok(())
            }
            Fault::Drift { site, ppm } => {
                self.site(*site)?;
                if ppm.unsigned_abs() > DRIFT_PPM_MAX {
                    return Err(format!("ppm must be between -{DRIFT_PPM_MAX} and {DRIFT_PPM_MAX}"));
                }
                Ok(())
            }
            Fault::Outage { store }
            | Fault::Expired { store }
            | Fault::Skewed { store }
            | Fault::Lifecycle { store } => self.store(*store),
            Fault::Throttle { store, permille }
            | Fault::Broken { store, permille }
            | Fault::Misrouted { store, permille }
            | Fault::LoseAnswers { store, ops: _, permille }
            | Fault::LoseRequests { store, ops: _, permille } => {
                self.store(*store)?;
                if *permille > 1000 {
                    return Err("permille must be at most 1000".to_string());
                }
                Ok(())
            }
            Fault::Overwrite { store, task }
            | Fault::Copy { store, task }
            | Fault::Delete { store, task } => {
                self.store(*store)?;
                known(task)
            }
            Fault::PowerOff { device }
            | Fault::Crash { device, role: _ }
            | Fault::Twin { device, role: _, same_address: _ }
            | Fault::Sulk { device, role: _ }
            | Fault::LoseCallbacks { device }
            | Fault::Lie { device, lie: _ } => self.device(*device),
            Fault::Install { site, slot: _, module: _ }
            | Fault::Rot { site, slot: _ }
            | Fault::Surroundings { site, link: _, metered: _ } => self.site(*site),
            Fault::SwapStorm { site, slot: _, every } => {
                self.site(*site)?;
                if *every < SWAP_MIN {
                    return Err("every must be at least 10ms".to_string());
                }
                span("every", *every, PHASE_MAX)
            }
            Fault::HostSlow { site, by, permille } => {
                self.site(*site)?;
                if *permille > 1000 {
                    return Err("permille must be at most 1000".to_string());
                }
                span("by", *by, PHASE_MAX)
            }
        }
    }

    fn site(&self, n: usize) -> Checked {
        inside("site", n, self.sites.len())
    }

    fn device(&self, n: usize) -> Checked {
        inside("device", n, self.devices.len())
    }

    fn path(&self, path: &Path) -> Checked {
        match path {
            Path::Link(device, _) | Path::Device(device) => self.device(*device),
            Path::Site(site) | Path::Cloud(site) => self.site(*site),
        }
    }

    fn store(&self, store: Store) -> Checked {
        match store {
            Store::Edge(site) | Store::Cloud(site) => self.site(site),
        }
    }
}

fn check_recording(recording: &Recording) -> Checked {
    if recording.bytes > limits::OBJECT_BYTES_MAX {
        return Err("bytes: no recording is that large".to_string());
    }
    span("lasts", recording.lasts, PHASE_MAX)
}

/// The site that a fault stops.
fn stops(fault: &Fault) -> Option<usize> {
    if let Fault::Kill { site, .. } | Fault::PowerLoss { site, .. } | Fault::DiskFails { site, .. } = fault {
        Some(*site)
    } else {
        None
    }
}

impl When {
    /// The order of faults in a file.
    pub(crate) fn rank(&self) -> (Duration, usize, u32) {
        match *self {
            When::At(at) => (at, 0, 0),
            When::Commit { site, n, point: _ } => (Duration::MAX, 3 * site, n),
            When::Object { site, n, point: _ } => (Duration::MAX, 3 * site + 1, n),
            When::Policy { site, n, point: _ } => (Duration::MAX, 3 * site + 2, n),
        }
    }
}

/// A task that somebody names: its own id or that of an attempt. It need not exist.
fn known(task: &str) -> Checked {
    WireId::new(task).map(|_| ()).map_err(|bad| bad.to_string())
}

fn inside(what: &str, n: usize, len: usize) -> Checked {
    if n < len { Ok(()) } else { Err(format!("there is no {what} number {n}: there are {len}")) }
}

fn count(what: &str, n: u32) -> Checked {
    if (1..=COUNT_MAX).contains(&n) {
        Ok(())
    } else {
        Err(format!("{what} must be between 1 and {COUNT_MAX}"))
    }
}

fn speed(what: &str, bytes: u64) -> Checked {
    // A file says sizes as signed 64-bit numbers with a unit; a speed of zero would never end.
    if (1..=SPEED_MAX).contains(&bytes) { Ok(()) } else { Err(format!("{what} must be between 1B and 1TiB")) }
}

fn span(what: &str, d: Duration, max: Duration) -> Checked {
    if !d.subsec_nanos().is_multiple_of(1_000_000) {
        return Err(format!("{what} must be whole milliseconds"));
    }
    if d > max {
        return Err(format!("{what} must be at most {}", crate::time::text(max)));
    }
    Ok(())
}

/// Longest phase: a year of absence is the longest story told about a site.
const PHASE_MAX: Duration = Duration::from_secs(366 * 24 * 3600);
/// Longest latency or flush: beyond a minute nothing of ours would wait for it.
const ABOUT_MAX: Duration = Duration::from_secs(60);
/// Largest step of a wall clock: a machine without a battery may wake up decades ago.
const STEP_MS_MAX: u64 = 30 * 366 * 24 * 3_600_000;
/// Largest drift: half as fast or as slow again; real crystals stay below 500.
const DRIFT_PPM_MAX: u64 = 500_000;
/// Shortest time between two swaps: no flush is shorter by much.
const SWAP_MIN: Duration = Duration::from_millis(10);
/// Largest number of a commit, an operation or a replayed message.
const COUNT_MAX: u32 = 1_000_000;
/// Largest speed.
const SPEED_MAX: u64 = 1 << 40;
