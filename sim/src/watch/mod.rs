//! What an observer outside the core sees, and the questions it asks. Reads the durable image, what left the site, the
//! stores and the devices' own logs; never asks the core what it thinks.
//!
//! One family of invariants per file. Each counts how often its premise held: a check that never had anything to check
//! proves nothing, and a long run fails for it.

pub mod bandwidth;
pub mod calls;
mod deeds;
pub mod devices;
mod faults;
mod fights;
pub mod journal;
#[cfg(test)]
mod life;
mod lines;
pub mod links;
pub mod policies;
#[cfg(test)]
mod policies_tests;
pub mod queue;
#[cfg(test)]
mod rig;
pub mod rows;
mod rulings;
pub mod seats;
#[cfg(test)]
mod site_rig;
pub mod system;
pub mod tasks;
#[cfg(test)]
mod tests;
pub mod uploads;

use std::collections::BTreeMap;

use tidegate_core::effect::{Effect, Output};
use tidegate_core::id::Boot;
use tidegate_core::input::Input;
use tidegate_core::knobs::Knobs;
use tidegate_core::row::{Key, Row};
use tidegate_core::time::Now;

use crate::device::{Callback, Device};
use crate::scenario::Scenario;
use crate::store::Bucket;
use crate::time::SimTime;

/// An invariant that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Its id, for instance `I11`.
    pub invariant: &'static str,
    /// What was seen.
    pub saw: String,
}

/// Breaks unless `holds`.
///
/// # Errors
/// If it does not.
pub fn demand(invariant: &'static str, holds: bool, saw: impl FnOnce() -> String) -> Result<(), Broken> {
    if holds { Ok(()) } else { Err(Broken { invariant, saw: saw() }) }
}

/// How often premises held, by invariant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Premises(pub BTreeMap<&'static str, u64>);

impl Premises {
    /// It held once more.
    pub fn met(&mut self, invariant: &'static str) {
        *self.0.entry(invariant).or_default() += 1;
    }

    /// Adds another run's.
    pub fn add(&mut self, other: &Premises) {
        for (invariant, n) in &other.0 {
            *self.0.entry(invariant).or_default() += n;
        }
    }
}

/// The ground truth of a world at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Truth<'a> {
    /// True time.
    pub now: SimTime,
    /// What happens.
    pub scenario: &'a Scenario,
    /// The edge store of each site.
    pub edges: &'a [Bucket],
    /// The cloud of each site (sites do not share keys).
    pub clouds: &'a [Bucket],
    /// The devices.
    pub devices: &'a [Device],
    /// The durable image of each site.
    pub images: &'a [BTreeMap<Key, Row>],
}

/// Everything about one step of a site's machine, at the moment it became durable (or, if it changed no record, at the
/// moment its effects may leave), and before any of its effects leaves.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// The world.
    pub truth: Truth<'a>,
    /// Which site.
    pub site: usize,
    /// The step's own clocks.
    pub now: Now,
    /// True time of the step.
    pub stepped: SimTime,
    /// The boot.
    pub boot: Boot,
    /// Its configuration.
    pub knobs: &'a Knobs,
    /// The input.
    pub input: &'a Input,
    /// What came of it.
    pub out: &'a Output,
    /// What touched records were before the step.
    pub before: &'a BTreeMap<Key, Option<Row>>,
    /// All durable records, this step's included.
    pub rows: &'a BTreeMap<Key, Row>,
}

impl Seen<'_> {
    /// A record as it was before the step.
    #[must_use]
    pub fn was(&self, key: &Key) -> Option<&Row> {
        match self.before.get(key) {
            Some(row) => row.as_ref(),
            None => self.rows.get(key),
        }
    }

    /// The site's edge store.
    #[must_use]
    pub fn edge(&self) -> &Bucket {
        &self.truth.edges[self.site]
    }

    /// The site's cloud.
    #[must_use]
    pub fn cloud(&self) -> &Bucket {
        &self.truth.clouds[self.site]
    }
}

/// What happened outside the core.
#[derive(Clone, Debug)]
pub enum Happened<'a> {
    /// A site's process ended; nothing of its memory is left. What was not flushed and survived all the same was shown as
    /// steps before this.
    Down {
        /// Which site.
        site: usize,
        /// Whether it ended in an orderly way.
        orderly: bool,
    },
    /// A site's process started and loaded its image. Its boot input follows.
    Up {
        /// Which site.
        site: usize,
    },
    /// A site's step was made and never became durable: it never happened.
    Undone {
        /// Which site.
        site: usize,
    },
    /// An effect left the site.
    Released {
        /// Which site.
        site: usize,
        /// Which effect.
        effect: &'a Effect,
    },
    /// A callback reached a site and was answered, or was not.
    Called {
        /// Which site.
        site: usize,
        /// What it said.
        callback: &'a Callback,
    },
    /// A site's wall clock was set.
    Stepped {
        /// Which site.
        site: usize,
        /// By how many milliseconds.
        by_ms: i64,
    },
    /// A third party changed a store, or a store dropped unfinished uploads.
    Tampered {
        /// Which site's.
        site: usize,
        /// The cloud, or the edge.
        cloud: bool,
    },
}

/// One family of invariants.
pub trait Watch {
    /// A step became durable.
    ///
    /// # Errors
    /// The first invariant that does not hold.
    fn step(&mut self, seen: &Seen<'_>) -> Result<(), Broken>;

    /// Something happened outside the core.
    ///
    /// # Errors
    /// The first invariant that does not hold.
    fn happened(&mut self, truth: &Truth<'_>, what: &Happened<'_>) -> Result<(), Broken>;

    /// The world came to its end.
    ///
    /// # Errors
    /// The first invariant that does not hold.
    fn end(&mut self, truth: &Truth<'_>) -> Result<(), Broken>;

    /// How often premises held.
    fn premises(&self) -> &Premises;

    /// The invariants it is there for: each must have had its premise in a long run.
    fn invariants(&self) -> &'static [&'static str];
}

/// Every family, for a scenario.
#[must_use]
pub fn all(scenario: &Scenario) -> Vec<Box<dyn Watch>> {
    vec![
        // Durability first: the others take for durable what was shown to them.
        Box::<system::SystemWatch>::default(),
        Box::<links::Links>::default(),
        Box::<calls::Calls>::default(),
        Box::<tasks::TaskWatch>::default(),
        Box::<devices::DeviceWatch>::default(),
        // Who may rule, before what was ruled.
        Box::<policies::PolicyWatch>::default(),
        Box::<bandwidth::BandwidthWatch>::default(),
        Box::<queue::QueueWatch>::default(),
        Box::<uploads::UploadWatch>::default(),
        Box::new(journal::Journal::new(scenario)),
    ]
}
