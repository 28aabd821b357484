//! A world: sites, devices, stores and the network between them, and the loop that lets things happen in order.

use crate::run::{Options, Report};
use crate::scenario::Scenario;

/// A world.
#[derive(Debug)]
pub struct World {}

impl World {
    /// Runs a scenario.
    #[must_use]
    pub fn run(_: &Scenario, _: Options) -> Report {
        Report::default()
    }
}
