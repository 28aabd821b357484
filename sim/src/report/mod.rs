//! What runs came to, for people and for programs: lines, JSON, JUnit, regression tests. Renders; runs nothing, reads no
//! clock, and decides nothing about a run.

pub mod human;
pub mod json;
pub mod junit;
pub mod regression;
pub mod sentences;
pub mod tally;

use std::time::Duration;

use crate::run::{DriverBug, Options, Report};
use crate::scenario::Scenario;
use crate::shrink::Shrunk;

/// Lines of the log that are shown before a violation, itself included: a run ends at its first one.
pub const LINES_AROUND: usize = 40;

/// How a run came about: what a person must type to have it again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// From a seed.
    Seed(u64),
    /// From a file.
    File(String),
    /// By its name, from the folder of named scenarios.
    Named(String),
}

/// One run with everything that is reported about it.
#[derive(Clone, Debug)]
pub struct Case {
    /// How it came about.
    pub origin: Origin,
    /// What happened.
    pub scenario: Scenario,
    /// How it was run.
    pub options: Options,
    /// What it came to.
    pub report: Report,
    /// Where the source panicked, if it did and that is known: `file:line`.
    pub panicked_at: Option<String>,
    /// What shrinking came to, and the file of it, if that was asked for.
    pub minimal: Option<(Shrunk, String)>,
    /// Wall clock of the run. For people only.
    pub took: Duration,
}

/// Whether a run came to what its scenario expects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It passed and had to.
    Passed,
    /// It failed by the invariant that it was to fail by.
    FailedAsExpected,
    /// It failed and had to pass.
    Failed,
    /// It had to fail and passed.
    Passes,
    /// It had to fail by another invariant.
    FailedOtherwise,
}

impl Verdict {
    /// Nothing to be done.
    #[must_use]
    pub fn is_good(&self) -> bool {
        matches!(self, Verdict::Passed | Verdict::FailedAsExpected)
    }
}

impl Case {
    /// Whether it came to what its scenario expects.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        match (&self.report.failure, &self.scenario.expect) {
            (None, None) => Verdict::Passed,
            (None, Some(_)) => Verdict::Passes,
            (Some(_), None) => Verdict::Failed,
            (Some(failure), Some(expected)) if failure.invariant == *expected => Verdict::FailedAsExpected,
            (Some(_), Some(_)) => Verdict::FailedOtherwise,
        }
    }

    /// The exit code of the command if this were its only run: 0 if all is as expected, 1 if a failure that was
    /// expected did not come, otherwise the failure's own.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match (&self.report.failure, self.verdict().is_good()) {
            (_, true) => 0,
            (None, false) => 1,
            (Some(failure), false) => failure.kind.exit_code(),
        }
    }

    /// Its name in a list of runs.
    #[must_use]
    pub fn name(&self) -> String {
        match &self.origin {
            Origin::Seed(seed) => format!("seed {seed}"),
            Origin::File(name) | Origin::Named(name) => name.clone(),
        }
    }

    /// What to type to have it again.
    #[must_use]
    pub fn again(&self) -> String {
        let planted = self.scenario.bug.is_some();
        let bug = match (self.scenario.bug, self.options.driver) {
            (Some(bug), _) => format!(" --bug {}", bug.id()),
            (None, Some(DriverBug::B24)) => " --bug B24".to_string(),
            (None, Some(DriverBug::B27)) => " --bug B27".to_string(),
            (None, Some(DriverBug::B28)) => " --bug B28".to_string(),
            (None, None) => String::new(),
        };
        match &self.origin {
            Origin::Seed(_) if self.options.canary => format!("{}run --canary --log", command(planted)),
            Origin::Seed(seed) => format!("{}run --seed {seed}{bug} --log", command(planted)),
            Origin::File(path) => format!("{}replay {path} --log", command(planted)),
            Origin::Named(name) => format!("{}run {name}{bug} --log", command(planted)),
        }
    }
}

/// The beginning of a command line that runs the simulator from a checkout.
#[must_use]
pub fn command(planted: bool) -> &'static str {
    if planted {
        "TIDEGATE_BUGS=1 cargo run -q --target-dir target/bugs -p tidegate-sim -- "
    } else {
        "cargo run -q -p tidegate-sim -- "
    }
}

/// The worst of several exit codes: the first that is not 0.
#[must_use]
pub fn first_bad(codes: impl IntoIterator<Item = u8>) -> u8 {
    codes.into_iter().find(|code| *code != 0).unwrap_or(0)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Duration;

    use super::{Case, Origin, Verdict, first_bad};
    use crate::run::{Failure, FailureKind, Options, Report};
    use crate::scenario::Scenario;
    use crate::time::SimTime;

    pub(crate) fn scenario() -> Scenario {
        Scenario {
            name: "some-thing".to_string(),
            about: String::new(),
            seed: 42,
            bug: None,
            expect: None,
            chaos: Duration::from_secs(10),
            settle: Duration::from_secs(20),
            sites: Vec::new(),
            devices: Vec::new(),
            steps: Vec::new(),
            faults: Vec::new(),
        }
    }

    pub(crate) fn failure() -> Failure {
        Failure {
            kind: FailureKind::Invariant,
            invariant: "I18".to_string(),
            saw: "no object at <a>/\"b\" & c".to_string(),
            at: SimTime(61_250_000_000),
            event: 1234,
            phase: "job 1 completed".to_string(),
            inputs: ["Frame", "Tick", "ObjectDone"].map(str::to_string).to_vec(),
        }
    }

    pub(crate) fn case(failure: Option<Failure>) -> Case {
        Case {
            origin: Origin::Seed(42),
            scenario: scenario(),
            options: Options::default(),
            report: Report {
                failure,
                chain: "00ff".to_string(),
                events: 1234,
                simulated: Duration::from_secs(3723),
                log: (1..=100).map(|n| format!("line {n}.")).collect(),
                ..Report::default()
            },
            panicked_at: None,
            minimal: None,
            took: Duration::from_millis(12),
        }
    }

    #[test]
    fn what_a_scenario_expects_decides_whether_a_failure_is_one() {
        let other = Failure { kind: FailureKind::Liveness, invariant: "L1".to_string(), ..failure() };
        let wants = |case: Case| Case {
            scenario: Scenario { expect: Some("I18".to_string()), ..scenario() },
            ..case
        };
        for (case, verdict, code) in [
            (case(None), Verdict::Passed, 0),
            (case(Some(failure())), Verdict::Failed, 10),
            (wants(case(None)), Verdict::Passes, 1),
            (wants(case(Some(failure()))), Verdict::FailedAsExpected, 0),
            (wants(case(Some(other))), Verdict::FailedOtherwise, 11),
        ] {
            assert_eq!(case.verdict(), verdict);
            assert_eq!(case.exit_code(), code, "{verdict:?}");
        }
        assert_eq!(first_bad([0, 0]), 0);
        assert_eq!(first_bad([0, 11, 10]), 11);
    }
}
