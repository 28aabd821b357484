//! What a verdict on a job allows, whoever gave it: I25 of the queue, and the bounds of I16, I26 and I27 that hold for
//! every policy. The built-in rules are held to their own numbers as well.

use std::time::Duration;

use tidegate_core::change::JobChange;
use tidegate_core::id::PolicySetId;
use tidegate_core::input::Input;
use tidegate_core::limits;
use tidegate_core::outcome::Fault;
use tidegate_core::policy::{
    Author, Decision, GiveUp, RetryAction, RetryVerdict, Seat, Slot, UploadLimits, Verdict,
};
use tidegate_core::row::{Key, Row};
use tidegate_core::time::Wall;

use super::{Broken, Premises, Seen, demand, seats};
use crate::scenario::Manner;

/// I25: a decision names the set that was active, and that set was asked the question in this very step; nobody else was.
pub(super) fn ruled(
    seen: &Seen<'_>,
    change: &JobChange,
    slot: Slot,
    by: Option<PolicySetId>,
    premises: &mut Premises,
) -> Result<(), Broken> {
    premises.met("I25");
    let active = seats::active(seen).id();
    let rulings = &seen.out.rulings;
    let asked = rulings.iter().any(|ruled| ruled.slot == slot);
    let one = rulings.iter().all(|ruled| ruled.by.set() == active);
    demand("I25", by == Some(active) && asked && one, || {
        format!("{change:?} is ruled by {by:?}, not by {active:?}, which was to be asked: {rulings:?}")
    })
}

/// What was said of how many uploads may run, last in a step.
pub(super) fn limit(seen: &Seen<'_>) -> Option<UploadLimits> {
    seen.out.decisions.iter().rev().find_map(|decision| match &decision.verdict {
        Verdict::Concurrency(limits) => Some(*limits),
        _ => None,
    })
}

/// The most that was allowed in a step, and never more than memory allows.
pub(super) fn uploads(seen: &Seen<'_>) -> u32 {
    let said = seen.out.decisions.iter().filter_map(|decision| match &decision.verdict {
        Verdict::Concurrency(limits) => Some(limits.uploads),
        _ => None,
    });
    said.max().unwrap_or(0).min(seen.knobs.uploads_max())
}

/// What was said of a failed attempt, and by whom.
fn retry<'a>(seen: &Seen<'a>) -> Option<(&'a Decision, RetryVerdict)> {
    seen.out.decisions.iter().rev().find_map(|decision| match &decision.verdict {
        Verdict::Retry(verdict) => Some((decision, *verdict)),
        _ => None,
    })
}

/// Whether the built-in rules said it with the site's own settings: natively, or as the default module where nobody gave
/// that one others.
fn is_floor(seen: &Seen<'_>, decision: &Decision) -> bool {
    let by_default = seats::set(None, seen.knobs);
    let (active, slot) = (seats::active(seen), decision.question.slot());
    match decision.by {
        Author::Builtin { .. } => true,
        Author::Set(_) => *active.seat(slot) == Seat::Floor || active.seat(slot) == by_default.seat(slot),
    }
}

/// I16 and I26: an attempt is repeated after the wait that was ruled, within what any policy may ask for.
pub(super) fn again(
    seen: &Seen<'_>,
    spent: u32,
    wait: Duration,
    premises: &mut Premises,
) -> Result<(), Broken> {
    let Some((decision, verdict)) = retry(seen) else {
        return Err(Broken { invariant: "I16", saw: "tried again, and nobody was asked".to_string() });
    };
    let RetryAction::After { delay_ms } = verdict.action else {
        return Err(Broken {
            invariant: "I16",
            saw: format!("tried again, and {:?} was said", verdict.action),
        });
    };
    if Duration::from_millis(delay_ms) > limits::DELAY_MAX
        || Duration::from_millis(delay_ms) < limits::DELAY_MIN
    {
        premises.met("I26.delay");
    }
    let wanted = Duration::from_millis(delay_ms).clamp(limits::DELAY_MIN, limits::DELAY_MAX);
    demand("I16", wait == wanted, || format!("retry {spent} after {wait:?}, not {wanted:?} as was ruled"))?;
    demand("I16", spent < limits::ATTEMPTS_MAX, || format!("attempt {spent} is tried again"))?;
    if is_floor(seen, decision) {
        let left = spent < seen.knobs.builtin.attempts;
        demand("I16", left, || format!("attempt {spent} was the last, and is tried again"))?;
        let (low, high) = envelope(seen, spent);
        demand("I16", (low..=high).contains(&wait), || {
            format!("retry {spent} after {wait:?}, not {low:?} to {high:?}")
        })?;
    }
    Ok(())
}

/// Whether somebody said that a job waits for an operator: a module alone does.
pub(super) fn parks(seen: &Seen<'_>) -> bool {
    retry(seen)
        .is_some_and(|(decision, verdict)| verdict.action == RetryAction::Park && !is_floor(seen, decision))
}

/// Who rules failed attempts in a step.
pub(super) fn retrier(seen: &Seen<'_>) -> Seat {
    seats::active(seen).seat(Slot::Retry).clone()
}

/// Whether somebody else rules failed attempts than who parked a job. Sets that a site no longer remembers are those of
/// somebody else.
pub(super) fn another(seen: &Seen<'_>, parked_by: Option<&Seat>) -> bool {
    let turns = seats::policy(seen.was(&Key::Policy)).map_or(0, |row| row.history.len());
    parked_by.is_some_and(|by| *by != retrier(seen) || turns >= limits::POLICY_HISTORY)
}

/// Whether somebody said that no attempt can help: a module alone does.
pub(super) fn hopeless(seen: &Seen<'_>, fault: &Fault) -> bool {
    fault.budget() == tidegate_core::outcome::Budget::Data
        && retry(seen).is_some_and(|(decision, verdict)| {
            verdict.action == RetryAction::GiveUp(GiveUp::Hopeless) && !is_floor(seen, decision)
        })
}

/// Whether somebody said that all attempts are used up: the built-in rules after those of the settings, a module when it
/// likes, and the site itself in the end.
pub(super) fn exhausted(seen: &Seen<'_>, spent: u32) -> bool {
    retry(seen).is_some_and(|(decision, verdict)| match verdict.action {
        RetryAction::GiveUp(GiveUp::Exhausted) => {
            !is_floor(seen, decision) || spent >= seen.knobs.builtin.attempts
        }
        RetryAction::After { .. } => spent >= limits::ATTEMPTS_MAX,
        RetryAction::Park | RetryAction::GiveUp(GiveUp::Hopeless) => false,
    })
}

/// min(base · 2^(k-1), cap), plus jitter, within the cap; never less than the floor.
fn envelope(seen: &Seen<'_>, spent: u32) -> (Duration, Duration) {
    let set = &seen.knobs.builtin;
    let mut low = set.retry_base_ms.min(set.retry_cap_ms);
    for _ in 1..spent.min(64) {
        low = low.saturating_mul(2).min(set.retry_cap_ms);
    }
    let high = low.saturating_add(set.retry_jitter_ms).min(set.retry_cap_ms);
    let clamp = |ms| Duration::from_millis(ms).clamp(limits::DELAY_MIN, limits::DELAY_MAX);
    (clamp(low), clamp(high))
}

/// I27 and I26: the native rules, where a scenario gives them no manner of their own, say what the settings say.
pub(super) fn native(seen: &Seen<'_>) -> Result<(), Broken> {
    if seen.truth.scenario.sites.get(seen.site).is_some_and(|site| site.policy != Manner::Builtin) {
        return Ok(());
    }
    for decision in &seen.out.decisions {
        if let Verdict::Concurrency(limits) = &decision.verdict
            && is_floor(seen, decision)
        {
            let set = seen.knobs.builtin.uploads;
            demand("I26", limits.uploads == set, || {
                format!("{} uploads at once, not {set}", limits.uploads)
            })?;
        }
    }
    Ok(())
}

/// How long the policy that says how many uploads run may let none begin on purpose.
pub(super) fn patience(seen: &Seen<'_>) -> Duration {
    let module = seats::next(seen).module(Slot::Concurrency);
    let row = module.and_then(|hash| seen.rows.get(&Key::Module(hash)));
    let own = match row {
        Some(Row::Module(row)) => row.facts.as_ref().map_or(0, |facts| facts.patience_ms),
        _ => 0,
    };
    Duration::from_millis(own.max(seen.knobs.patience_ms)).min(limits::PATIENCE_MAX)
}

/// Whether a store answered.
pub(super) fn of_store(seen: &Seen<'_>) -> bool {
    matches!(seen.input, Input::Object { .. })
}

/// I29: what is written down bears the time of the step.
pub(super) fn timely(at: Wall, seen: &Seen<'_>) -> Result<(), Broken> {
    demand("I29", at == seen.now.wall, || format!("{at:?} is written at {:?}", seen.now.wall))
}

/// Whether an outcome was obeyed. The step after a swap turns to the new set, whatever comes in: what it does besides is
/// not the outcome's doing.
pub(super) fn obeyed(seen: &Seen<'_>) -> bool {
    let words = ["upload.opened", "upload.part_stored", "upload.sealed", "job.sent", "job.completed"];
    seen.out.changes.iter().any(|change| words.contains(&change.name()))
}
