//! What the watch of policies must notice and nobody else: a calm site around a real machine, one step of it spoiled. The
//! life of modules is spoiled by the bank's bugs.

use tidegate_core::change::{Change, PolicyChange};
use tidegate_core::effect::Output;
use tidegate_core::id::PolicySetId;
use tidegate_core::input::Input;
use tidegate_core::policy::{Author, PolicyFault, Question, Slot, Verdict};
use tidegate_core::row::{Key, PolicyRow, Probation, Row};
use tidegate_core::time::Wall;

use super::site_rig::Rig;

/// Lives with the first decision on a slot spoiled, and what was written down of it as well: somebody said this, and
/// nobody anything else.
fn spoiled(invariant: &str, slot: Slot, spoil: impl Fn(&mut Output, usize) + 'static) {
    let mut rig = Rig::new();
    rig.spoil = Some(Box::new(move |_, _, out| {
        let found = out.decisions.iter().position(|decision| decision.question.slot() == slot);
        if let Some(n) = found {
            spoil(out, n);
        }
        found.is_some()
    }));
    let lived = rig.life();
    assert!(rig.spoil.is_none(), "there was nothing to spoil");
    assert!(lived.is_err(), "nobody noticed");
    assert!(rig.broken.iter().all(|broken| broken.invariant == invariant), "{invariant}: {:#?}", rig.broken);
}

fn by(out: &mut Output, n: usize, author: Author) {
    out.decisions[n].set = author.set();
    out.decisions[n].by = author.clone();
    out.rulings[n].by = author;
}

#[test]
fn i25_a_decision_of_another_set_is_noticed() {
    spoiled("I25", Slot::Bandwidth, |out, n| by(out, n, Author::Set(PolicySetId([9; 32]))));
}

#[test]
fn i25_a_decision_that_nobody_wrote_down_is_noticed() {
    spoiled("I25", Slot::Bandwidth, |out, n| drop(out.rulings.remove(n)));
}

#[test]
fn i25_a_module_that_does_not_sit_there_is_noticed() {
    spoiled("I25", Slot::Bandwidth, |out, n| {
        out.decisions[n].module = Some(crate::scenario::ModuleSpec::DEFAULT.hash());
    });
}

#[test]
fn i26_another_verdict_than_that_of_the_built_in_rules_in_the_place_of_a_failed_policy_is_noticed() {
    spoiled("I26", Slot::Bandwidth, |out, n| {
        let instead_of = out.decisions[n].set;
        by(out, n, Author::Builtin { instead_of, why: PolicyFault::Trap });
        if let Verdict::Bandwidth(verdict) = &mut out.decisions[n].verdict {
            verdict.bytes_per_second = Some(7);
        }
    });
}

#[test]
fn i25_a_memo_that_is_lost_is_noticed() {
    spoiled("I25", Slot::Bandwidth, |out, n| {
        if let Verdict::Bandwidth(verdict) = &mut out.decisions[n].verdict {
            verdict.memo = 7;
        }
    });
}

#[test]
fn i25_a_memo_of_a_job_that_is_lost_is_noticed() {
    let mut rig = Rig::new();
    rig.spoil = Some(Box::new(|_, _, out| {
        for decision in &mut out.decisions {
            if let (Question::Retry(query), Verdict::Retry(verdict)) =
                (&decision.question, &mut decision.verdict)
                && query.spent == 1
            {
                verdict.memo = 7;
            }
        }
        false
    }));
    assert!(rig.life().is_err(), "nobody noticed");
    assert!(rig.broken.iter().all(|broken| broken.invariant == "I25"), "{:#?}", rig.broken);
}

#[test]
fn i26_a_trial_that_ends_without_its_time_is_noticed() {
    let mut rig = Rig::new();
    let since = rig.now.wall;
    let trial = Probation { since, until: Wall(since.0 + 3_600_000), slots: vec![Slot::Retry] };
    rig.spoil = Some(Box::new(move |rig, input, out| {
        let keep = |probation| Row::Policy(Box::new(PolicyRow { probation, ..PolicyRow::default() }));
        match input {
            Input::Boot { .. } => out.rows.push((Key::Policy, Some(keep(Some(trial.clone()))))),
            Input::Request { .. } => {
                out.changes.push(Change::Policy(PolicyChange::Probed { at: rig.now.wall }));
                out.rows.push((Key::Policy, Some(keep(None))));
                return true;
            }
            _ => {}
        }
        false
    }));
    assert!(rig.life().is_err(), "nobody noticed");
    assert!(rig.broken.iter().all(|broken| broken.invariant == "I26"), "{:#?}", rig.broken);
}

#[test]
fn i26_a_limit_that_does_not_hold_and_is_not_said_to_be_bounded_is_noticed() {
    spoiled("I26", Slot::Bandwidth, |out, n| {
        if let Verdict::Bandwidth(verdict) = &mut out.decisions[n].verdict {
            verdict.bytes_per_second = Some(1);
        }
    });
}

#[test]
fn l6_a_policy_that_is_overruled_though_nothing_crawls_is_noticed() {
    spoiled("L6", Slot::Bandwidth, |out, n| {
        let instead_of = out.decisions[n].set;
        by(out, n, Author::Builtin { instead_of, why: PolicyFault::Stalled });
    });
}
