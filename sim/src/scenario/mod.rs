//! A scenario: everything that will happen to a world, explicit and readable. A seed becomes one (`plan`), a failure is
//! stored in one, the shrinker works on one, and people write them by hand (docs/simulation.md). Holds no behaviour.
//!
//! The seed that stays in a scenario only feeds what is too fine to write down (latencies, jitter, who is first).

mod check;
mod lie;
mod module;
mod people;
pub mod text;

pub use check::{Place, Problem};
pub use lie::Lie;
pub use module::{Conduct, Deed, ModuleSpec};
pub use people::{LocalDeed, Recording, Sync};

use std::time::Duration;

use tidegate_core::bug::Bug;
use tidegate_core::id::Role;
use tidegate_core::input::{Action, Resolve};
use tidegate_core::knobs::Knobs;
use tidegate_core::policy::{Known, LinkKind, Slot};

/// A whole scenario.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scenario {
    /// A short name: letters, digits and dashes.
    pub name: String,
    /// What it is about, for people. May be empty.
    pub about: String,
    /// Feeds the streams of chances that are not written down.
    pub seed: u64,
    /// The planted bug it runs with; only a build with planted bugs can run it then.
    pub bug: Option<Bug>,
    /// The invariant that must break first, for scenarios that must fail; `None` must pass.
    pub expect: Option<String>,
    /// How long faults come. At its end faults that heal are over and the others are for ever.
    pub chaos: Duration,
    /// How long, at most, the world may then take to finish what can be finished.
    pub settle: Duration,
    /// The sites; at least one.
    pub sites: Vec<Site>,
    /// The devices.
    pub devices: Vec<DeviceSpec>,
    /// What people and devices do.
    pub steps: Vec<Step>,
    /// What goes wrong.
    pub faults: Vec<FaultSpec>,
}

/// One site: one machine with its disk, its edge store, its clocks, and the cloud it sends to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// Its name; also the first segment of its keys in the cloud.
    pub name: String,
    /// The core's configuration. `site` is the name, `public_url` is set by the world.
    pub knobs: Knobs,
    /// Which checksums the cloud keeps.
    pub flavour: Flavour,
    /// How long a flush of its disk takes, about.
    pub flush: Duration,
    /// One way to the cloud, about.
    pub cloud_latency: Duration,
    /// Bytes per second to the cloud.
    pub cloud_speed: u64,
    /// What its policies are like.
    pub policy: Manner,
}

/// What the policies of a site are like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Manner {
    /// The built-in ones.
    Builtin,
    /// They let no upload begin two times of three, and forget every time when a process starts.
    Hesitant,
    /// They ask for as many uploads at once as can be asked for.
    Greedy,
}

/// Which checksums a store keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Flavour {
    /// Over the whole content, also of multipart objects.
    Full,
    /// Over the parts' checksums.
    Composite,
    /// None, but tags are MD5 sums.
    Tags,
    /// None, and tags mean nothing.
    Opaque,
}

/// A device: one recorder and one uploader program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceSpec {
    /// Its id.
    pub id: String,
    /// Index of its site in [`Scenario::sites`].
    pub site: usize,
    /// What its programs can do.
    pub firmware: Firmware,
    /// One way to its site, about; it keeps this for life.
    pub latency: Duration,
    /// Bytes per second to its site.
    pub speed: u64,
}

/// Generations of device programs that differ on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Firmware {
    /// Axon 0.3: no state report on connect, `connected` with counts only, `upload_complete` without a key.
    Old,
    /// Axon 0.4: reports on connect, `connected` without the list of uploads.
    Middle,
    /// Today's.
    New,
}

/// What somebody does, when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// When, since the beginning.
    pub at: Duration,
    /// What.
    pub act: Act,
}

/// What people and devices do on purpose. Tasks are named by their public id; devices and sites by name and index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// An operator carries one recording from its task to the cloud: creates the task, configures, begins, ends, judges,
    /// and triggers the sync; what is refused is tried again every few seconds as long as it makes sense.
    Record(Recording),
    /// An operator creates a task, once.
    Create {
        /// Index in [`Scenario::devices`].
        device: usize,
        /// Its id.
        task: String,
        /// Whether it comes with a configuration.
        config: bool,
    },
    /// An operator sends a command, once.
    Command {
        /// Index in [`Scenario::devices`].
        device: usize,
        /// Which.
        action: Action,
        /// The task it names.
        task: Option<String>,
    },
    /// An operator calls a task off, once.
    Cancel {
        /// Which.
        task: String,
        /// Index in [`Scenario::sites`].
        site: usize,
    },
    /// An operator judges the oldest episode of a task, if there is one.
    Judge {
        /// Whose.
        task: String,
        /// Index in [`Scenario::sites`].
        site: usize,
        /// Approve or reject.
        approve: bool,
    },
    /// An operator triggers the sync of the episodes of a task, or of everything.
    Sync {
        /// Whose; `None` is the batch trigger.
        task: Option<String>,
        /// Index in [`Scenario::sites`].
        site: usize,
    },
    /// Somebody asks for the state of a recorder.
    Refresh {
        /// Index in [`Scenario::devices`].
        device: usize,
        /// How old the answer may be.
        max_age: Duration,
    },
    /// Somebody stops the site in an orderly way; it starts again at once, with or without a cloud.
    Restart {
        /// Index in [`Scenario::sites`].
        site: usize,
        /// Whether a cloud is configured from now on.
        destination: bool,
    },
    /// Somebody stops a recording at the device itself (SIGTERM of the recorder): the file is kept, nobody is told.
    StopRecorder {
        /// Index in [`Scenario::devices`].
        device: usize,
    },
    /// Somebody works at the device itself, not through its site.
    Local {
        /// Index in [`Scenario::devices`].
        device: usize,
        /// What they do.
        deed: LocalDeed,
    },
    /// An operator settles what a recorder holds against its records, once, if its site shows such a thing.
    Resolve {
        /// Index in [`Scenario::devices`].
        device: usize,
        /// How.
        how: Resolve,
        /// The wire id that they believe it holds; `None` is the one that the site shows.
        task: Option<String>,
    },
    /// The uploader is restarted.
    RestartUploader {
        /// Index in [`Scenario::devices`].
        device: usize,
    },
    /// An operator does something with policies, once.
    Policy {
        /// Index in [`Scenario::sites`].
        site: usize,
        /// What.
        deed: Deed,
        /// Under which hook.
        slot: Slot,
        /// With which module; `None` is the one that sits there.
        module: Option<ModuleSpec>,
    },
}

/// What goes wrong, when, and until when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FaultSpec {
    /// When.
    pub when: When,
    /// Until when; what happens in a moment ignores it.
    pub lasts: Lasts,
    /// What.
    pub fault: Fault,
}

/// When a fault begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// So long after the beginning.
    At(Duration),
    /// At the n-th commit (from 1) of a site, over all its boots. Only for faults that stop the site.
    Commit {
        /// Index in [`Scenario::sites`].
        site: usize,
        /// Which commit.
        n: u32,
        /// Which moment of it.
        point: CommitPoint,
    },
    /// At the n-th operation (from 1) that a site asks of its cloud, over all its boots.
    Object {
        /// Index in [`Scenario::sites`].
        site: usize,
        /// Which operation.
        n: u32,
        /// Which moment of it.
        point: ObjectPoint,
    },
    /// At the n-th thing (from 1) that a site asks of the host of its policies, over all its boots.
    Policy {
        /// Index in [`Scenario::sites`].
        site: usize,
        /// Which of them.
        n: u32,
        /// Which moment of it.
        point: ObjectPoint,
    },
}

/// A moment of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CommitPoint {
    /// Written and not flushed: what survives is the disk's choice.
    Torn,
    /// Durable, and nothing released.
    Durable,
    /// Released.
    Released,
}

/// A moment of an object operation, or of something that the host of the policies is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ObjectPoint {
    /// Asked for, and not on its way.
    Asked,
    /// It took effect; the answer is on its way.
    Applied,
    /// The answer arrived and was not heard.
    Answered,
}

/// Until when a fault lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lasts {
    /// So long.
    For(Duration),
    /// Until the end of the chaos phase.
    Chaos,
    /// For ever: the liveness phase must do without.
    Forever,
}

/// What part of the network a fault concerns.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Path {
    /// One link of a device.
    Link(usize, Role),
    /// A device: both links, its callbacks and its uploads to the edge store.
    Device(usize),
    /// All devices of a site.
    Site(usize),
    /// A site's way to the cloud.
    Cloud(usize),
}

/// Which direction is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// Both.
    Both,
    /// From the device (or the site, towards the cloud).
    Up,
    /// To the device (or from the cloud).
    Down,
}

/// What survives of what was not flushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Keep {
    /// Nothing.
    Nothing,
    /// What was written first, up to some point.
    Prefix,
    /// Any of it: a later write may survive without an earlier one.
    Subset,
}

/// Which store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Store {
    /// The edge store of a site.
    Edge(usize),
    /// The cloud of a site.
    Cloud(usize),
}

/// Operations of a store, to choose some.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ops {
    /// All.
    Any,
    /// `Create`.
    Create,
    /// `Put` and `PutPart`.
    Put,
    /// `Complete`.
    Complete,
    /// `Head`, `Get` and lists.
    Look,
    /// `Abort` and `Delete`.
    Remove,
}

/// What goes wrong. Ids F01... are those of docs/simulation.md.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// F01: messages take longer.
    Slow {
        /// Where.
        path: Path,
        /// By how much, about.
        by: Duration,
    },
    /// F02: nothing passes, and all of it passes later, in order.
    Hold {
        /// Where.
        path: Path,
    },
    /// F03, F04: what is sent is gone. Links that were open never speak again; new ones hang while it lasts.
    Cut {
        /// Where.
        path: Path,
        /// Which direction.
        way: Way,
    },
    /// F06: open connections are reset, once.
    Reset {
        /// Where.
        path: Path,
    },
    /// F07: new connections are refused.
    Refuse {
        /// Where.
        path: Path,
    },
    /// F08: the last messages of a device's earlier and present connections arrive again, out of order, once.
    Replay {
        /// Whose link.
        device: usize,
        /// Which.
        role: Role,
        /// How many messages.
        count: u32,
    },
    /// F11: the site's process is killed; it is started again after `down`.
    Kill {
        /// Index in [`Scenario::sites`].
        site: usize,
        /// What survives of the unflushed.
        keep: Keep,
        /// How long it stays down.
        down: Duration,
    },
    /// F12, F26: the site loses power: as `Kill`, and its links end without a word.
    PowerLoss {
        /// Index in [`Scenario::sites`].
        site: usize,
        /// What survives of the unflushed.
        keep: Keep,
        /// How long it stays down.
        down: Duration,
    },
    /// F14: the site's process stands still; sockets stay open.
    Pause {
        /// Index in [`Scenario::sites`].
        site: usize,
    },
    /// F15: the site's wall clock is set, once.
    Step {
        /// Index in [`Scenario::sites`].
        site: usize,
        /// By so many milliseconds.
        by_ms: i64,
    },
    /// F15: the site's wall clock runs fast or slow.
    Drift {
        /// Index in [`Scenario::sites`].
        site: usize,
        /// Millionths; negative is slow.
        ppm: i64,
    },
    /// F16: the disk refuses the next flush; the process ends and is started again.
    DiskFails {
        /// Index in [`Scenario::sites`].
        site: usize,
        /// How long it stays down.
        down: Duration,
    },
    /// F16: flushes take longer.
    DiskSlow {
        /// Index in [`Scenario::sites`].
        site: usize,
        /// By how much, about.
        by: Duration,
    },
    /// F20: nobody answers at the store's address: connections are refused.
    Outage {
        /// Which.
        store: Store,
    },
    /// F18: it asks to slow down (503 SlowDown).
    Throttle {
        /// Which.
        store: Store,
        /// Of a thousand requests.
        permille: u32,
    },
    /// F18: it is broken (500).
    Broken {
        /// Which.
        store: Store,
        /// Of a thousand requests.
        permille: u32,
    },
    /// F18: something else answers in its name: nothing is done, and the answer is that nothing is there, or that it
    /// cannot be asked so (404, 501).
    Misrouted {
        /// Which.
        store: Store,
        /// Of a thousand requests.
        permille: u32,
    },
    /// F18: it refuses the credentials (403).
    Expired {
        /// Which.
        store: Store,
    },
    /// F18: it finds our clock wrong.
    Skewed {
        /// Which.
        store: Store,
    },
    /// F19: it does what is asked, and the answer is lost.
    LoseAnswers {
        /// Which.
        store: Store,
        /// Of which operations.
        ops: Ops,
        /// Of a thousand.
        permille: u32,
    },
    /// F19: the request is lost on the way and nobody knows.
    LoseRequests {
        /// Which.
        store: Store,
        /// Of which operations.
        ops: Ops,
        /// Of a thousand.
        permille: u32,
    },
    /// F20: it drops all unfinished multipart uploads, once.
    Lifecycle {
        /// Which.
        store: Store,
    },
    /// F20: a third party overwrites what a task left in a store, once; in the cloud also where its recording will be.
    Overwrite {
        /// Which.
        store: Store,
        /// Whose objects.
        task: String,
    },
    /// F20: a third party brings the recording itself to where a site's jobs will put it in the cloud, once; or back to
    /// the edge, where somebody had overwritten or deleted it.
    Copy {
        /// Which.
        store: Store,
        /// Whose recording.
        task: String,
    },
    /// F20: a third party deletes what a task left in a store, once.
    Delete {
        /// Which.
        store: Store,
        /// Whose objects.
        task: String,
    },
    /// F05: a device loses power without a word; it comes back when the fault is over, what it recorded is lost.
    PowerOff {
        /// Which.
        device: usize,
    },
    /// F21: one of a device's programs dies and is started again at once.
    Crash {
        /// Which.
        device: usize,
        /// Which program.
        role: Role,
    },
    /// F21: a second program with the same id connects, again and again, as long as it lasts.
    Twin {
        /// Whose id.
        device: usize,
        /// Which program.
        role: Role,
        /// Whether it runs on the device itself, so that its address tells it from nobody.
        same_address: bool,
    },
    /// F21: a program answers pings and is of no use: a recorder refuses `get_state`, an uploader greets with rubbish and
    /// does nothing that it is asked for.
    Sulk {
        /// Whose.
        device: usize,
        /// Which program.
        role: Role,
    },
    /// F19: start and finish callbacks of a device never arrive.
    LoseCallbacks {
        /// Whose.
        device: usize,
    },
    /// F21, F22: a device says something that is not so, once.
    Lie {
        /// Which.
        device: usize,
        /// What.
        lie: Lie,
    },
    /// F24: somebody brings a module and puts it under a hook as soon as it is admitted; refused because another change is
    /// under way, they try again.
    Install {
        /// Index in [`Scenario::sites`].
        site: usize,
        /// Under which hook.
        slot: Slot,
        /// What they bring.
        module: ModuleSpec,
    },
    /// F24: a script puts two sound modules under a hook in turn, as long as it lasts.
    SwapStorm {
        /// Index in [`Scenario::sites`].
        site: usize,
        /// Under which hook.
        slot: Slot,
        /// How often.
        every: Duration,
    },
    /// F24: the bytes of a module rot on the disk; brought once more they are whole again. Nobody notices before they are
    /// read.
    Rot {
        /// Index in [`Scenario::sites`].
        site: usize,
        /// The one that sits under this hook; without one there, the one that was brought last.
        slot: Slot,
    },
    /// F24: the host of the policies takes longer, and of so many things it is asked for nobody learns what became of them.
    HostSlow {
        /// Index in [`Scenario::sites`].
        site: usize,
        /// How much longer, about.
        by: Duration,
        /// Of a thousand.
        permille: u32,
    },
    /// F24: what surrounds a site is so from now on, and its process is told, at every start as well.
    Surroundings {
        /// Index in [`Scenario::sites`].
        site: usize,
        /// How it reaches the cloud.
        link: LinkKind,
        /// Whether bytes cost money.
        metered: Known,
    },
}

impl Fault {
    /// Its id in the catalogue and a short stable word, for logs, coverage and the file.
    #[must_use]
    pub fn name(&self) -> (&'static str, &'static str) {
        match self {
            Fault::Slow { .. } => ("F01", "slow"),
            Fault::Hold { .. } => ("F02", "hold"),
            Fault::Cut { way: Way::Both, .. } => ("F03", "cut"),
            Fault::Cut { .. } => ("F04", "cut"),
            Fault::PowerOff { .. } => ("F05", "power-off"),
            Fault::Reset { .. } => ("F06", "reset"),
            Fault::Refuse { .. } => ("F07", "refuse"),
            Fault::Replay { .. } => ("F08", "replay"),
            Fault::Kill { .. } => ("F11", "kill"),
            Fault::PowerLoss { .. } => ("F12", "power-loss"),
            Fault::Pause { .. } => ("F14", "pause"),
            Fault::Step { .. } => ("F15", "step"),
            Fault::Drift { .. } => ("F15", "drift"),
            Fault::DiskFails { .. } => ("F16", "disk-fails"),
            Fault::DiskSlow { .. } => ("F16", "disk-slow"),
            Fault::Throttle { .. } => ("F18", "throttle"),
            Fault::Broken { .. } => ("F18", "broken"),
            Fault::Misrouted { .. } => ("F18", "misrouted"),
            Fault::Expired { .. } => ("F18", "expired"),
            Fault::Skewed { .. } => ("F18", "skewed"),
            Fault::LoseAnswers { .. } => ("F19", "lose-answers"),
            Fault::LoseRequests { .. } => ("F19", "lose-requests"),
            Fault::Outage { .. } => ("F20", "outage"),
            Fault::Lifecycle { .. } => ("F20", "lifecycle"),
            Fault::Overwrite { .. } => ("F20", "overwrite"),
            Fault::Copy { .. } => ("F20", "copy"),
            Fault::Delete { .. } => ("F20", "delete"),
            Fault::Crash { .. } => ("F21", "crash"),
            Fault::Twin { .. } => ("F21", "twin"),
            Fault::Sulk { .. } => ("F21", "sulk"),
            Fault::LoseCallbacks { .. } => ("F19", "lose-callbacks"),
            Fault::Lie { .. } => ("F22", "lie"),
            Fault::Install { .. } => ("F24", "install"),
            Fault::SwapStorm { .. } => ("F24", "swap-storm"),
            Fault::Rot { .. } => ("F24", "rot"),
            Fault::HostSlow { .. } => ("F24", "host-slow"),
            Fault::Surroundings { .. } => ("F24", "surroundings"),
        }
    }

    /// Whether it happens in a moment, so that there is nothing to end.
    #[must_use]
    pub fn is_momentary(&self) -> bool {
        matches!(
            self,
            Fault::Reset { .. }
                | Fault::Replay { .. }
                | Fault::Kill { .. }
                | Fault::PowerLoss { .. }
                | Fault::Step { .. }
                | Fault::DiskFails { .. }
                | Fault::Lifecycle { .. }
                | Fault::Overwrite { .. }
                | Fault::Copy { .. }
                | Fault::Delete { .. }
                | Fault::Crash { .. }
                | Fault::Lie { .. }
                | Fault::Install { .. }
                | Fault::Rot { .. }
                | Fault::Surroundings { .. }
        )
    }
}
