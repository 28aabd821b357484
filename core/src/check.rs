//! Invariants that relate machines to each other. Those of one machine are checked by that machine.

use crate::machine::Parts;
use crate::refusal::Broken;
use crate::timers::Timers;

/// Checks relations between the machines.
pub(crate) fn relations(parts: &Parts, timers: &Timers) -> Result<(), Broken> {
    let broken = |invariant, saw| Err(Broken { invariant, saw });
    // I13: an upload works under exactly the fence its job holds.
    for (job, fence) in parts.uploads.working() {
        if parts.queue.fence(job) != Some(fence) {
            return broken(
                "I13",
                alloc::format!("job {job} uploads under {fence:?}, which it does not hold"),
            );
        }
    }
    // I10: every outstanding RPC has an armed deadline.
    for ticket in parts.hub.calls() {
        if timers.armed(&crate::timers::TimerKey::Call(ticket)).is_none() {
            return broken("I10", alloc::format!("call {ticket:?} has no deadline"));
        }
    }
    // I27: no contest lasts for ever.
    for conn in parts.hub.contests() {
        if timers.armed(&crate::timers::TimerKey::Contest(conn)).is_none() {
            return broken("I27", alloc::format!("the contest over {conn:?} has no end"));
        }
    }
    Ok(())
}
