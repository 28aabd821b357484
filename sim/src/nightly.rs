//! What a long night of fresh seeds comes to: failures, once for each signature, and whether the night proves anything.
//! Runs nothing and reads no clock; the command does.

use std::collections::BTreeMap;

use crate::report::tally::Gaps;
use crate::run::Failure;

/// From so many runs on, what was never hit or never checked is a failure of the night: fewer may just not have been
/// enough.
pub const LONG: u64 = 10_000;

/// A kind of failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The first seed that failed like this.
    pub seed: u64,
    /// How it failed.
    pub failure: Failure,
    /// How many runs failed like this.
    pub times: u64,
}

/// Failures by signature.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    by_signature: BTreeMap<String, Finding>,
}

impl Findings {
    /// One more failure; true if it is the first of its kind.
    pub fn note(&mut self, seed: u64, failure: &Failure) -> bool {
        let finding = self.by_signature.entry(failure.signature()).or_insert_with(|| Finding {
            seed,
            failure: failure.clone(),
            times: 0,
        });
        finding.times += 1;
        finding.times == 1
    }

    /// By signature.
    pub fn iter(&self) -> impl Iterator<Item = (&String, &Finding)> {
        self.by_signature.iter()
    }

    /// None.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_signature.is_empty()
    }

    /// The exit code of the night: the worst kind of failure (a crash before an invariant before liveness), else 1 if it
    /// was long and something was never reached.
    #[must_use]
    pub fn exit_code(&self, gaps: &Gaps, runs: u64) -> u8 {
        let rank = |code: u8| [12, 13, 10, 11].iter().position(|c| *c == code);
        let codes = self.by_signature.values().map(|finding| finding.failure.kind.exit_code());
        match codes.min_by_key(|code| rank(*code)) {
            Some(code) => code,
            None => u8::from(runs >= LONG && !gaps.is_empty()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Findings, LONG};
    use crate::report::tally::Gaps;
    use crate::report::tests::failure;
    use crate::run::{Failure, FailureKind};

    #[test]
    fn failures_of_one_signature_are_one_finding_with_its_first_seed() {
        let mut findings = Findings::default();
        assert!(findings.note(7, &failure()));
        assert!(!findings.note(9, &Failure { saw: "something else".to_string(), ..failure() }));
        assert!(findings.note(11, &Failure { invariant: "I01".to_string(), ..failure() }));
        let all: Vec<(&str, u64, u64)> =
            findings.iter().map(|(s, f)| (s.as_str(), f.seed, f.times)).collect();
        assert_eq!(all, [("I01/ObjectDone", 11, 1), ("I18/ObjectDone", 7, 2)]);
    }

    #[test]
    fn the_worst_failure_decides_and_a_long_night_must_have_reached_everything() {
        let mut findings = Findings::default();
        let gaps = Gaps { vacuous: vec!["I12"], ..Gaps::default() };
        assert_eq!(findings.exit_code(&gaps, LONG - 1), 0);
        assert_eq!(findings.exit_code(&gaps, LONG), 1);
        assert_eq!(findings.exit_code(&Gaps::default(), LONG), 0);
        for (kind, worst) in [
            (FailureKind::Liveness, 11),
            (FailureKind::Invariant, 10),
            (FailureKind::Crash, 12),
            (FailureKind::Liveness, 12),
        ] {
            findings.note(1, &Failure { kind, invariant: format!("{kind:?}"), ..failure() });
            assert_eq!(findings.exit_code(&gaps, LONG), worst);
        }
    }
}
