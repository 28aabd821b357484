//! What a module did in a slot, as far as it counts against it: when it is to be ejected. Written from the decisions, not
//! from the core's own machine.

use tidegate_core::knobs::Knobs;
use tidegate_core::limits;
use tidegate_core::policy::{Author, PolicyFault};
use tidegate_core::time::Wall;

/// What a module did in a slot.
#[derive(Clone, Debug, Default)]
pub(super) struct Record {
    /// When faults that count happened, by the wall clock.
    faults: Vec<Wall>,
    /// Answers in a row that took too long, in this boot.
    late: u32,
}

impl Record {
    /// Somebody decided in its slot. True: it is to be ejected for that.
    pub(super) fn decided(&mut self, by: &Author, now: Wall, knobs: &Knobs) -> bool {
        match by {
            Author::Set(_) | Author::Builtin { why: PolicyFault::Missing, .. } => {
                self.late = 0;
                return false;
            }
            Author::Builtin { why: PolicyFault::Stalled, .. } => return true,
            Author::Builtin { why: PolicyFault::Timeout, .. } => self.late += 1,
            Author::Builtin {
                why: PolicyFault::Trap | PolicyFault::Exhausted | PolicyFault::Shape, ..
            } => {
                self.late = 0;
                self.faults.push(now);
            }
        }
        let most = usize::try_from(knobs.policy_faults.clamp(1, limits::POLICY_FAULTS)).unwrap_or(usize::MAX);
        let window = knobs.policy_window_ms;
        // A clock may be set back: what it wrote down far ahead is of no time at all.
        let counted = self.faults.iter().filter(|at| at.0.abs_diff(now.0) < window || **at == now).count();
        counted >= most || self.late as usize >= most
    }

    /// A new process.
    pub(super) fn boot(&mut self) {
        self.late = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_core::id::PolicySetId;

    fn trap() -> Author {
        Author::Builtin { instead_of: PolicySetId([1; 32]), why: PolicyFault::Trap }
    }

    #[test]
    fn as_many_faults_as_the_site_says_are_too_many_and_none_less() {
        for most in [1, 16, 17, limits::POLICY_FAULTS] {
            let knobs = Knobs { policy_faults: most, ..Knobs::default() };
            let mut record = Record::default();
            for n in 1..=most {
                assert_eq!(record.decided(&trap(), Wall(1_000), &knobs), n == most, "{n} of {most}");
            }
        }
    }

    #[test]
    fn a_fault_by_a_clock_far_ahead_does_not_count_after_it_was_set_right() {
        let knobs = Knobs { policy_faults: 2, ..Knobs::default() };
        let mut record = Record::default();
        let year = 365 * 86_400_000;
        assert!(!record.decided(&trap(), Wall(3 * year), &knobs));
        assert!(!record.decided(&trap(), Wall(year), &knobs));
        assert!(record.decided(&trap(), Wall(year - 1), &knobs), "set back a little washes nobody clean");
    }
}
