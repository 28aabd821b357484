//! When a policy is asked again, as it wished: within bounds. Pure.

use core::time::Duration;

use crate::limits;

/// The wait before the next question; `default` if the policy did not say. And whether it is another than it said.
pub(crate) fn recheck(asked_ms: u64, default: Duration) -> (Duration, bool) {
    if asked_ms == 0 {
        return (default, false);
    }
    let asked = Duration::from_millis(asked_ms);
    let again = asked.clamp(limits::RECHECK_MIN, limits::RECHECK_MAX);
    (again, again != asked)
}
