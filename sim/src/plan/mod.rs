//! How a seed becomes a scenario: swarm testing. Each seed draws which faults, acts and lies exist for it at all, how
//! strong and how frequent they are, and settings near the edge of what is legal; many short lives rather than one long
//! one. What it cannot produce the simulator cannot find. Must only draw from streams named by what they are about, so
//! that the workload stays when the faults change.

mod devices;
mod draw;
mod faults;
mod fleet;
mod incident;
mod policies;
mod workload;

use std::time::Duration;

use crate::scenario::{Scenario, Site};
use crate::stream::Stream;

/// What a caller wants of the scenarios that seeds become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// How much happens in how much time.
    pub pace: Pace,
    /// Most sites.
    pub sites: usize,
    /// Most devices, over all sites.
    pub devices: usize,
    /// Most recordings.
    pub recordings: usize,
    /// Whether anything may go wrong.
    pub faults: bool,
    /// Whether devices may lie, have twins, and third parties may change stores.
    pub dishonest: bool,
}

/// How much happens in how much time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// Mostly minutes with a few recordings; sometimes hours or days.
    Mixed,
    /// Days with a recording now and then: measures how fast idle time passes.
    Idle,
    /// A quarter of an hour with all devices at work: measures events per second.
    Busy,
}

impl Default for Shape {
    fn default() -> Shape {
        Shape { pace: Pace::Mixed, sites: 2, devices: 6, recordings: 14, faults: true, dishonest: true }
    }
}

impl Shape {
    /// Idle-heavy, for measuring.
    #[must_use]
    pub fn idle() -> Shape {
        Shape { pace: Pace::Idle, sites: 1, devices: 4, recordings: 24, ..Shape::default() }
    }

    /// Busy, for measuring.
    #[must_use]
    pub fn busy() -> Shape {
        Shape { pace: Pace::Busy, sites: 1, devices: 8, recordings: 40, ..Shape::default() }
    }

    /// What planted bugs must be found in: the default.
    #[must_use]
    pub fn bank() -> Shape {
        Shape::default()
    }
}

/// The scenario of a seed. It passes [`Scenario::check`], is in order of time, and depends on nothing but the arguments.
#[must_use]
pub fn plan(seed: u64, shape: &Shape) -> Scenario {
    let chaos = chaos(seed, shape);
    let sites = fleet::sites(seed, shape, chaos);
    let devices = fleet::devices(seed, shape, sites.len());
    let stage = Stage { seed, shape: *shape, chaos, sites: &sites, devices: &devices };
    let recordings = workload::recordings(&stage);
    let stories: Vec<workload::Story> =
        recordings.iter().map(|(at, recording)| workload::Story::new(&stage, *at, recording)).collect();
    let (mut steps, crowds) = workload::steps(&stage, recordings, &stories);
    let theme = policies::Theme::draw(seed, shape);
    let quarrel = devices::Quarrel::draw(seed, shape);
    if let Some(theme) = &theme {
        steps.extend(theme.steps(&stage, &stories));
    }
    let mut faults = faults::faults(&stage, &stories, &crowds, theme.as_ref());
    if let Some(quarrel) = &quarrel {
        let (acts, wrong) = quarrel.happen(&stage, &stories);
        steps.extend(acts);
        // In their place, so that plans stay as small as they are.
        faults.truncate(faults.len().saturating_sub(wrong.len()));
        faults.extend(wrong);
    }
    let settle = settle(&sites, &stories) + theme.map_or(Duration::ZERO, |theme| slower(&theme, &sites));
    let mut scenario = Scenario {
        name: format!("seed-{seed}"),
        about: String::new(),
        seed,
        bug: None,
        expect: None,
        chaos,
        settle,
        sites,
        devices,
        steps,
        faults,
    };
    scenario.sort();
    scenario
}

/// What the parts of a plan build on.
struct Stage<'a> {
    seed: u64,
    shape: Shape,
    chaos: Duration,
    sites: &'a [Site],
    devices: &'a [crate::scenario::DeviceSpec],
}

impl Stage<'_> {
    /// The stream of a topic and an index within it.
    fn stream(&self, topic: &str, n: usize) -> Stream {
        Stream::new(self.seed, topic, n as u64)
    }

    /// The devices of a site.
    fn devices_of(&self, site: usize) -> Vec<usize> {
        (0..self.devices.len()).filter(|n| self.devices[*n].site == site).collect()
    }
}

/// How long faults come.
fn chaos(seed: u64, shape: &Shape) -> Duration {
    let mut chance = Stream::new(seed, "plan/phases", 0);
    let (low, high) = match shape.pace {
        Pace::Busy => (10 * MINUTE, 20 * MINUTE),
        Pace::Idle => (3 * DAY, 10 * DAY),
        Pace::Mixed => match chance.below(40) {
            0..=2 => (30_000, 2 * MINUTE),
            3..=33 => (2 * MINUTE, 20 * MINUTE),
            34..=37 => (HOUR, 12 * HOUR),
            _ => (DAY, 4 * DAY),
        },
    };
    draw::span(&mut chance, low, high)
}

/// How long everything that can be finished may take once the faults are over: all attempts with the longest delays, of a
/// job and of the two that people ask for when it failed, every byte three times over its way, the longest recording twice, what is kept at the edge, and two hours for what has its
/// own pace (the way's own delays, statuses owed, verifications, removals).
fn settle(sites: &[Site], stories: &[workload::Story]) -> Duration {
    let mut most = Duration::ZERO;
    for site in sites {
        let built = &site.knobs.builtin;
        let cap = Duration::from_millis(built.retry_cap_ms.min(DAY)) + Duration::from_secs(1);
        let keep = Duration::from_millis(site.knobs.keep_edge_ms.unwrap_or(0));
        let scan = Duration::from_millis(site.knobs.scan_every_ms) * 3;
        most = most.max(cap * (3 * built.attempts) + keep + scan);
    }
    let work: Duration = stories.iter().map(workload::Story::work).sum();
    let longest = stories.iter().map(workload::Story::recording).max().unwrap_or_default();
    let whole = Duration::from_millis(2 * HOUR) + most + work * 3 + longest * 2;
    Duration::from_secs(whole.as_secs())
}

/// How much longer policies may make it.
fn slower(theme: &policies::Theme, sites: &[Site]) -> Duration {
    sites.iter().map(|site| theme.slower(&site.knobs)).max().unwrap_or_default()
}

const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

#[cfg(test)]
mod tests;
