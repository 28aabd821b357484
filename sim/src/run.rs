//! One run of one scenario, and what it came to. The only way into a world for everybody else (shrinker, bank, meta,
//! command line). Two runs of one scenario give equal reports, on every machine and in every build.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::scenario::Scenario;
use crate::time::SimTime;
use crate::watch::Premises;

/// What a run keeps besides its verdict.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Keep one line per thing that happens: the whole log with `Some(true)`, the last lines with `Some(false)`.
    pub log: Option<bool>,
    /// Keep the hash chain at every so many events, to find where two runs part; 0 keeps none.
    pub checkpoints: u64,
    /// Look at invariants. Off only to measure what they cost.
    pub blind: bool,
    /// Add an invariant that is false on purpose (`canary`: nothing is ever released), to see that a violation is seen.
    pub canary: bool,
    /// The bug planted in the world's own driver.
    pub driver: Option<DriverBug>,
}

/// Bugs of a driver around the core: the world makes them, the core is sound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DriverBug {
    /// One step asks two versions of the policies: whatever is ready last answers, whoever is active.
    B24,
    /// Effects of a step that claims a job leave before the step is durable.
    B27,
    /// After the disk refused a flush the site goes on from memory, as if it had been written.
    B28,
}

/// How a run failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FailureKind {
    /// An invariant broke: exit code 10.
    Invariant,
    /// What can be finished was not, or the world ran in a circle: exit code 11.
    Liveness,
    /// The core or the world panicked: exit code 12.
    Crash,
    /// Two runs of one scenario differ: exit code 13.
    NonDeterminism,
}

impl FailureKind {
    /// The exit code of `tidegate-sim`.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            FailureKind::Invariant => 10,
            FailureKind::Liveness => 11,
            FailureKind::Crash => 12,
            FailureKind::NonDeterminism => 13,
        }
    }
}

/// A failed run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// How.
    pub kind: FailureKind,
    /// The invariant's id; `panic` if it crashed.
    pub invariant: String,
    /// What was seen.
    pub saw: String,
    /// When.
    pub at: SimTime,
    /// At which event, from 1.
    pub event: u64,
    /// Where the core was: the phases of its jobs and tasks in a few words.
    pub phase: String,
    /// Names of the last three inputs, the last one last.
    pub inputs: Vec<String>,
}

impl Failure {
    /// What stays the same when the scenario gets smaller: the invariant and the kind of the last input.
    #[must_use]
    pub fn signature(&self) -> String {
        format!("{}/{}", self.invariant, self.inputs.last().map_or("none", String::as_str))
    }
}

/// What a run came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Why it failed, if it did.
    pub failure: Option<Failure>,
    /// End of the hash chain, in hex.
    pub chain: String,
    /// The chain at checkpoints: (event, hash, what happened last).
    pub checkpoints: Vec<(u64, u64, String)>,
    /// Events of the world.
    pub events: u64,
    /// Steps of machines.
    pub steps: u64,
    /// Commits of all sites.
    pub commits: u64,
    /// Operations asked of clouds.
    pub cloud_ops: u64,
    /// Bytes of parts that clouds took in, those sent again included.
    pub cloud_bytes: u64,
    /// Recordings that devices still hold at the end, acknowledged by nobody.
    pub held: u64,
    /// Whole recordings and sidecars that stand in clouds at the end.
    pub cloud_objects: u64,
    /// Simulated time.
    pub simulated: Duration,
    /// How often premises of invariants held.
    pub premises: Premises,
    /// What sometimes must happen and did.
    pub marks: BTreeSet<&'static str>,
    /// How often each fault really did something.
    pub fired: BTreeMap<&'static str, u64>,
    /// Abstract states seen.
    pub states: BTreeSet<u64>,
    /// Abstract transitions seen.
    pub transitions: BTreeSet<u64>,
    /// Pairs of fault and phase of the core seen.
    pub pairs: BTreeSet<(&'static str, &'static str)>,
    /// The log, if it was asked for.
    pub log: Vec<String>,
    /// What was left unfinished and proved to be stuck for a reason, in words.
    pub stuck: Vec<String>,
}

/// Runs a scenario to its end or to its first failure.
#[must_use]
pub fn run(scenario: &Scenario, options: Options) -> Report {
    crate::world::run(scenario, options)
}
