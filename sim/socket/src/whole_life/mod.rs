//! One whole life of a recording among real programs: a device records and uploads it, an operator approves it, the site
//! carries it to a cloud. The site dies as often as the [`Plan`] says. What was promised is checked from outside,
//! after each death and at the end.
//!
//! ```text
//!   robot (tests/device) ──► site (runtime, redb, SDK) ──► cloud (the embedded endpoint)
//!                             ▲  dies, and starts again
//!   operator ─────────────────┤  remembers what it was answered
//!   viewer ───────────────────┘  follows the stream of changes, if the plan wants one
//! ```

mod operator;
mod robot;
mod site;
mod viewer;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

pub use self::viewer::Viewed;
use tidegate_device::{DeviceEvent, EventLog};
use tidegate_runtime::ingest::Spool;
use tidegate_runtime::replay;
use tidegate_runtime::seam::Disk;

use crate::socket_world::{DiskOp, DiskVerb, Faults, Keep, Power, SimDisk, SimSeams};

/// What a death leaves of the site's disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The process is killed: the disk keeps what was written.
    Kill,
    /// The power fails: the disk keeps what was synced, and of the rest this.
    PowerLoss(Keep),
}

/// One death of the site.
pub struct Death {
    /// Arms the power at the start of the life that is to end.
    pub arm: Box<dyn FnOnce(&Power)>,
    /// How it ends.
    pub end: End,
}

impl Death {
    /// At the `n`th disk operation from the start of this life.
    #[must_use]
    pub fn at_operation(n: u64, end: End) -> Death {
        Death { arm: Box::new(move |power| power.fuse(power.ops() + n)), end }
    }
}

/// How a life goes.
pub struct Plan {
    /// Chooses everything that chance decides.
    pub seed: u64,
    /// Deaths of the site, in order.
    pub deaths: Vec<Death>,
    /// Whether the disk of the site lies about its syncs.
    pub lying_disk: bool,
    /// Faults of the disk of the site. A site that ends because of one is started again, as by a service manager.
    pub faults: Option<Faults>,
    /// How far the life goes.
    pub until: Until,
    /// Whether somebody follows the stream of changes.
    pub viewer: bool,
}

/// Where a life ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// A new site makes its keys and takes a task: no recording is made.
    TaskTaken,
    /// The recording is in the cloud and gone from the edge.
    Delivered,
}

impl Plan {
    /// A whole life with these deaths.
    #[must_use]
    pub fn new(seed: u64, deaths: Vec<Death>) -> Plan {
        Plan { seed, deaths, lying_disk: false, faults: None, until: Until::Delivered, viewer: false }
    }
}

/// What is known after a life.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// Operations of the site's disk.
    pub ops: Vec<DiskOp>,
    /// Operations done when the site first served.
    pub served_at: u64,
    /// Deaths that came.
    pub deaths: usize,
    /// Why the site ended by itself, each time.
    pub ends: Vec<String>,
    /// Whether something was left on the disk of the site that only its next start removed. Looked at with faults only.
    pub swept_at_a_start: bool,
    /// Bodies that reached the cloud: of parts and of whole objects.
    pub sent: usize,
    /// What the device did and heard.
    pub device: Vec<DeviceEvent>,
    /// What the viewer was told, if there was one.
    pub viewed: Viewed,
    /// How long it took, in virtual time.
    pub took: Duration,
}

/// What hosts of one world tell each other outside of it.
#[derive(Clone, Default)]
struct Notes(Arc<Mutex<Noted>>);

#[derive(Default)]
struct Noted {
    /// Starts of the site so far.
    boots: u64,
    served_at: Option<u64>,
    /// Why the site ended by itself, each time.
    ends: Vec<String>,
    /// Whether an upload may be tried again at no cost.
    patient: bool,
    /// Whether it did since it was last started.
    ended: bool,
    /// The key that a start of the site showed first.
    edge_key: Option<String>,
    device: Option<EventLog>,
    /// What the device recorded, as it was on its disk when it was complete.
    recording: Option<Vec<u8>>,
    sidecar: Option<Vec<u8>>,
    cloud: Option<Spool<SimSeams>>,
    viewed: Viewed,
}

impl Notes {
    fn get(&self) -> MutexGuard<'_, Noted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn events(&self) -> Vec<DeviceEvent> {
        let log = self.get().device.clone();
        log.map(|log| log.all()).unwrap_or_default()
    }
}

/// Plays a life to its end. Everything that must hold is checked here.
///
/// # Errors
/// What does not hold, in words; also if the site does not come back, or the life does not end.
pub fn live(plan: Plan) -> Result<Report, String> {
    let Plan { seed, deaths, lying_disk, faults, until, viewer } = plan;
    fastrand::seed(seed);
    let mut sim = turmoil::Builder::new()
        .rng_seed(seed)
        .epoch(UNIX_EPOCH + Duration::from_secs(1_800_000_000))
        .simulation_duration(LONGEST)
        .tick_duration(TICK)
        .min_message_latency(Duration::from_millis(1))
        .max_message_latency(Duration::from_millis(20))
        .build();
    let disk = SimDisk::new();
    if lying_disk {
        disk.lie_about_syncs();
    }
    let power = disk.power().clone();
    power.record();
    let notes = Notes::default();

    let patient = faults.is_some();
    notes.get().patient = patient;
    let (for_site, site_notes) = (disk.clone(), notes.clone());
    let keys = until == Until::Delivered;
    sim.host(SITE, move || site::run(for_site.clone(), faults.clone(), seed, keys, site_notes.clone()));
    let cloud_disk = SimDisk::new();
    cloud_disk.power().record();
    let (for_cloud, cloud_notes) = (cloud_disk.clone(), notes.clone());
    sim.host(CLOUD, move || site::cloud(for_cloud.clone(), seed, cloud_notes.clone()));
    if until == Until::Delivered {
        let (robot_disk, robot_notes) = (SimDisk::new(), notes.clone());
        sim.host(ROBOT, move || robot::run(robot_disk.clone(), seed, robot_notes.clone()));
    }
    if viewer {
        let viewer_notes = notes.clone();
        sim.host("viewer", move || viewer::run(viewer_notes.clone()));
    }
    sim.client("operator", operator::run(seed, notes.clone(), until));

    let mut rng = fastrand::Rng::with_seed(seed);
    let mut deaths = deaths.into_iter();
    let mut died = 0;
    let arm_next = |deaths: &mut std::vec::IntoIter<Death>| {
        deaths.next().map(|Death { arm, end }| {
            arm(&power);
            end
        })
    };
    let mut next = arm_next(&mut deaths);
    loop {
        let over = sim.step().map_err(|error| error.to_string())?;
        let ended = std::mem::take(&mut notes.get().ended);
        if power.is_out() || ended {
            // The disk is dead by now and so are the sockets: what destructors do changes nothing.
            sim.crash(SITE);
            match next.take_if(|_| !ended) {
                Some(End::PowerLoss(keep)) => disk.lose_power(keep),
                Some(End::Kill) | None => disk.kill(),
            }
            died += usize::from(!ended);
            for _ in 0..rng.u32(..AWAY_TICKS_MAX) {
                sim.step().map_err(|error| error.to_string())?;
            }
            if !ended {
                next = arm_next(&mut deaths);
            }
            sim.bounce(SITE);
        } else if over {
            break;
        }
    }
    let (took, ops) = (sim.elapsed(), power.recorded());
    let mut swept_at_a_start = false;
    if patient {
        // A body that broke off is given up when it has paused for long enough.
        let clean = || nothing_is_left(&disk).is_ok();
        if !rest(&mut sim, clean)? {
            swept_at_a_start = true;
            sim.crash(SITE);
            disk.kill();
            sim.bounce(SITE);
            rest(&mut sim, clean)?;
        }
    }
    power.hold();
    disk.kill();
    drop(sim);
    if until == Until::Delivered {
        nothing_is_left(&disk)?;
    }
    let replayed = replay::verify_dir(&disk, Path::new(DATA)).map_err(|error| format!("replay: {error}"))?;
    if replayed.entries == 0 {
        return Err("the journal is empty".to_owned());
    }
    let received = cloud_disk.power().recorded();
    let is_body = |op: &&DiskOp| op.verb == DiskVerb::Create && op.path.starts_with("/cloud/blobs");
    let sent = received.iter().filter(is_body).count();
    let mut device = notes.events();
    // Both links of a device end in the instant in which a site dies. Which end it hears of first is the order in which a
    // runtime that is dropped drops its tasks, by numbers that count for the whole process: it says nothing.
    let closed = |event: &DeviceEvent| matches!(event, DeviceEvent::Closed { .. });
    for run in device.chunk_by_mut(|one, other| closed(one) && closed(other)) {
        run.sort_by_key(|event| format!("{event:?}"));
    }
    let served_at = notes.get().served_at.unwrap_or(0);
    let ends = notes.get().ends.clone();
    let viewed = notes.get().viewed.clone();
    Ok(Report { ops, served_at, deaths: died, ends, swept_at_a_start, sent, device, viewed, took })
}

/// On the edge no content, no part and no half-written record stays behind.
fn nothing_is_left(disk: &SimDisk) -> Result<(), String> {
    let mut left = Vec::new();
    for folder in ["blobs", "uploads", "tmp"] {
        let path = PathBuf::from(DATA).join("objects").join(folder);
        let names = disk.list(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        left.extend(names.into_iter().map(|name| format!("{folder}/{name}")));
    }
    if left.is_empty() { Ok(()) } else { Err(format!("orphans on the edge: {left:?}")) }
}

/// Lets the world go on until `enough`, at most [`REST`]; whether it came to that.
fn rest(sim: &mut turmoil::Sim<'_>, enough: impl Fn() -> bool) -> Result<bool, String> {
    let end = sim.elapsed() + REST;
    while !enough() {
        if sim.elapsed() >= end {
            return Ok(false);
        }
        sim.step().map_err(|error| error.to_string())?;
    }
    Ok(true)
}

/// Longer than the pause after which a body is given up.
const REST: Duration = Duration::from_secs(90);
/// Longer than any life, in virtual time: what has not ended by then hangs.
const LONGEST: Duration = Duration::from_secs(900);
/// A step of the world. Nothing in it depends on finer time.
const TICK: Duration = Duration::from_millis(5);
/// The site is away for less than so many steps.
const AWAY_TICKS_MAX: u32 = 100;

const SITE: &str = "site";
const CLOUD: &str = "cloud";
const ROBOT: &str = "robot";
const API: u16 = 8080;
const S3: u16 = 9000;
const DATA: &str = "/var/tidegate";
const BUCKET: &str = "fleet";
const EDGE_BUCKET: &str = "edge-life";
const KEY: &str = "robots";
const SECRET: &str = "swordfish";
const DEVICE: &str = "r1";
const TASK: &str = "take-1";
