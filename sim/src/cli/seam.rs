//! What the commands need of the rest of the simulator, as plain functions: the only file of the command line that names
//! plan, scenario files, watches and the world. Tests put worlds of their own here.

use tidegate_sim::run::{Options, Report};
use tidegate_sim::scenario::Scenario;

/// The simulator, as the commands see it.
#[derive(Clone, Copy)]
pub struct Lab {
    /// Runs a scenario.
    pub run: fn(&Scenario, Options) -> Report,
    /// Makes a scenario of a seed.
    pub plan: fn(u64) -> Scenario,
    /// The same, with days in which little happens.
    pub idle: fn(u64) -> Scenario,
    /// The same, with everybody at work.
    pub busy: fn(u64) -> Scenario,
    /// Reads a scenario file; the error is for people.
    pub parse: fn(&str) -> Result<Scenario, String>,
    /// Writes a scenario file.
    pub write: fn(&Scenario) -> String,
    /// Named scenarios: names and files.
    pub named: &'static [(&'static str, &'static str)],
    /// What must sometimes happen: ids and sentences.
    pub marks: &'static [(&'static str, &'static str)],
    /// Invariants that must have something to check.
    pub invariants: fn() -> Vec<&'static str>,
}

impl Lab {
    /// The real one.
    pub fn real() -> Lab {
        Lab {
            run: tidegate_sim::run::run,
            plan: |seed| tidegate_sim::plan::plan(seed, &tidegate_sim::plan::Shape::default()),
            idle: |seed| tidegate_sim::plan::plan(seed, &tidegate_sim::plan::Shape::idle()),
            busy: |seed| tidegate_sim::plan::plan(seed, &tidegate_sim::plan::Shape::busy()),
            parse: |text| tidegate_sim::scenario::text::parse(text).map_err(|problem| problem.to_string()),
            write: tidegate_sim::scenario::text::write,
            named: tidegate_sim::named::ALL,
            marks: tidegate_sim::coverage::MARKS,
            invariants: || {
                let some = tidegate_sim::plan::plan(1, &tidegate_sim::plan::Shape::default());
                let mut all: Vec<&'static str> = tidegate_sim::watch::all(&some)
                    .iter()
                    .flat_map(|watch| watch.invariants().to_vec())
                    .collect();
                all.sort_unstable();
                all.dedup();
                all
            },
        }
    }
}
