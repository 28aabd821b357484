//! Faults, ejections, probation, and what cannot be prepared any more.

use std::string::ToString;
use std::vec;
use std::vec::Vec;

use super::rig::{DEFAULT, Rig, activate, admit, bind, module, quarantine, shadow};
use crate::effect::PolicyOp;
use crate::input::{PolicyReply, PolicyRequest};
use crate::knobs::Knobs;
use crate::outcome::Outcome;
use crate::policy::{Origin, PolicyFault, PolicySet, Slot};
use crate::refusal::PolicyRefusal;
use crate::row::{Blame, ModuleState, TurnWhat};

const SLOT: Slot = Slot::Concurrency;

/// Module 1 is good in the slot, module 2 is on probation there.
pub(super) fn on_probation() -> Rig {
    let mut rig = Rig::new();
    rig.granted(admit(1));
    rig.granted(activate(SLOT, 1));
    rig.sleep();
    rig.granted(admit(2));
    rig.granted(activate(SLOT, 2));
    rig
}

#[test]
fn a_site_without_a_default_module_has_the_floor_and_no_record() {
    let rig = Rig::with(Knobs::default());
    assert_eq!(*rig.swap.set(), PolicySet::native(Knobs::default().builtin));
    assert!(rig.rows.is_empty());
    assert!(rig.asked.is_empty());
    assert!(rig.swap.view().prepared, "the built-in rules are always ready");
}

#[test]
fn the_default_module_sits_everywhere_from_the_first_boot_and_is_looked_at() {
    let mut rig = Rig::with(Knobs { default_module: Some(DEFAULT), ..Knobs::default() });
    assert!(Slot::ALL.into_iter().all(|slot| rig.seat(slot) == Some(DEFAULT)));
    assert_eq!((rig.generation(), rig.last()), (1, TurnWhat::Configured));
    assert!(!rig.swap.view().prepared);
    assert_eq!(rig.asked.len(), 2, "it is prepared and looked at");
    rig.serve();
    let view = rig.swap.view();
    assert!(view.prepared);
    assert_eq!(view.seats[0].name.as_deref(), Some("module-208"));
    assert_eq!(view.seats[0].origin, Origin::Default);
    // The same configuration again is no change.
    rig.boot();
    assert_eq!(rig.generation(), 1);
    assert!(matches!(rig.asked.values().next(), Some(PolicyOp::Prepare { .. })), "a new process prepares it");
    // Another one is.
    rig.knobs.builtin.uploads = 7;
    rig.boot();
    assert_eq!((rig.generation(), rig.last()), (2, TurnWhat::Configured));
}

#[test]
fn so_many_faults_in_a_window_eject_a_module_and_the_last_good_one_returns() {
    let mut rig = on_probation();
    let before = rig.generation();
    rig.fault(SLOT, PolicyFault::Trap);
    rig.fault(SLOT, PolicyFault::Exhausted);
    // A fault of another slot's module does not count here.
    rig.fault(Slot::Order, PolicyFault::Trap);
    assert_eq!(rig.seat(SLOT), Some(module(2)));
    assert_eq!(rig.swap.view().seats[SLOT as usize].faults.len(), 2);
    rig.fault(SLOT, PolicyFault::Shape);
    assert_eq!(rig.seat(SLOT), Some(module(1)));
    assert!(rig.is_quarantined(module(2)));
    assert_eq!(rig.generation(), before + 1);
    let blame = Blame::Fault(PolicyFault::Shape);
    assert_eq!(rig.last(), TurnWhat::Ejected { module: module(2), blame });
    assert!(rig.news.ends_with(&["faulted", "turned", "quarantined"]), "{:?}", rig.news);
    assert_eq!(rig.swap.policy_row().probation, None, "the good one needs no trial");
    assert!(rig.swap.view().seats[SLOT as usize].faults.is_empty());
    // What counts now is prepared, though nobody asked for it.
    assert!(!rig.swap.view().prepared);
    rig.serve();
    assert!(rig.swap.view().prepared);
}

#[test]
fn faults_that_are_far_apart_eject_nobody() {
    let mut rig = on_probation();
    for _ in 0..20 {
        rig.fault(SLOT, PolicyFault::Trap);
        rig.pass(rig.knobs.policy_window_ms / 2);
    }
    assert_eq!(rig.seat(SLOT), Some(module(2)));
    // Nor is a module to blame for what it did by a clock that was decades ahead of this one; it used to be, at its next
    // fault.
    rig.now.wall = crate::time::Wall(0);
    rig.fault(SLOT, PolicyFault::Trap);
    rig.fault(SLOT, PolicyFault::Trap);
    assert!(!rig.is_quarantined(module(2)));
    rig.fault(SLOT, PolicyFault::Trap);
    assert!(rig.is_quarantined(module(2)));
}

#[test]
fn timeouts_eject_only_in_a_row_because_a_box_that_starves_makes_everybody_late() {
    let mut rig = on_probation();
    for _ in 0..10 {
        rig.fault(SLOT, PolicyFault::Timeout);
        rig.fault(SLOT, PolicyFault::Timeout);
        rig.answer_well(SLOT);
    }
    // Two real faults among them are not three.
    rig.fault(SLOT, PolicyFault::Trap);
    rig.fault(SLOT, PolicyFault::Timeout);
    rig.fault(SLOT, PolicyFault::Trap);
    assert_eq!(rig.seat(SLOT), Some(module(2)));
    for _ in 0..3 {
        assert!(!rig.is_quarantined(module(2)));
        rig.fault(SLOT, PolicyFault::Timeout);
    }
    assert!(rig.is_quarantined(module(2)));
}

#[test]
fn a_module_that_lets_nothing_begin_is_ejected_at_once() {
    let mut rig = on_probation();
    rig.stall(SLOT);
    assert_eq!(rig.seat(SLOT), Some(module(1)));
    assert!(rig.is_quarantined(module(2)));
    let blame = Blame::Fault(PolicyFault::Stalled);
    assert_eq!(rig.last(), TurnWhat::Ejected { module: module(2), blame });
}

#[test]
fn a_module_that_lost_its_slot_in_this_step_is_not_blamed_on_the_next_one() {
    let mut rig = on_probation();
    rig.step(|swap, cx| {
        for _ in 0..9 {
            swap.on_faulted(cx, SLOT, PolicyFault::Trap);
        }
        swap.on_stalled(cx, SLOT);
    });
    assert_eq!(rig.seat(SLOT), Some(module(1)));
    assert!(!rig.is_quarantined(module(1)));
}

#[test]
fn a_module_in_two_slots_loses_both() {
    let mut rig = on_probation();
    rig.granted(activate(Slot::Order, 2));
    rig.stall(Slot::Order);
    assert_eq!((rig.seat(SLOT), rig.seat(Slot::Order)), (Some(module(1)), Some(DEFAULT)));
}

#[test]
fn the_ladder_ends_at_the_floor_where_the_default_is_quarantined() {
    let mut rig = on_probation();
    rig.stall(SLOT);
    rig.stall(SLOT);
    assert_eq!(rig.seat(SLOT), Some(DEFAULT));
    rig.stall(SLOT);
    assert!(Slot::ALL.into_iter().all(|slot| rig.seat(slot).is_none()));
    assert_eq!(rig.swap.view().seats[0].origin, Origin::Floored);
    assert!(rig.swap.view().prepared);
    // There nobody can be blamed.
    rig.stall(SLOT);
    rig.fault(SLOT, PolicyFault::Trap);
    rig.boot();
    assert!(Slot::ALL.into_iter().all(|slot| rig.seat(slot).is_none()));
    let refusal = rig.refused(PolicyRequest::Reset { slot: SLOT });
    assert_eq!(refusal, PolicyRefusal::Quarantined { module: DEFAULT, code: "stalled".to_string() });
    // A new program brings another default: the floor was for the old one.
    rig.knobs.default_module = Some(module(77));
    rig.boot();
    assert!(Slot::ALL.into_iter().all(|slot| rig.seat(slot) == Some(module(77))));
    // And back: the old one is still quarantined.
    rig.knobs.default_module = Some(DEFAULT);
    rig.boot();
    assert!(Slot::ALL.into_iter().all(|slot| rig.seat(slot).is_none()));
}

#[test]
fn a_probation_survives_boots_and_a_new_process_or_a_new_module_begins_it_anew() {
    let mut rig = Rig::new();
    rig.granted(admit(1));
    rig.granted(admit(2));
    rig.granted(activate(SLOT, 1));
    rig.pass(rig.knobs.probation_ms / 2);
    rig.boot();
    rig.serve();
    // It used to end by the clock on the wall: a site that was off for as long then called good what had decided nothing.
    rig.pass(rig.knobs.probation_ms / 2);
    rig.wake();
    assert!(rig.swap.policy_row().probation.is_some());
    rig.pass(rig.knobs.probation_ms / 2 - 1);
    rig.wake();
    assert!(rig.swap.policy_row().probation.is_some());
    rig.pass(1);
    rig.wake();
    assert_eq!(rig.swap.policy_row().probation, None);
    assert_eq!(rig.swap.policy_row().good, [(SLOT, bind(1))]);
    // A second module in another slot: one trial for both.
    rig.granted(activate(SLOT, 2));
    rig.pass(rig.knobs.probation_ms / 2);
    rig.granted(activate(Slot::Retry, 2));
    let trial = rig.swap.policy_row().probation.clone().unwrap();
    assert_eq!(trial.slots, [Slot::Retry, SLOT]);
    assert_eq!(trial.since, rig.now.wall);
    // A clock that was set back holds it no longer than a whole probation.
    rig.now.wall = crate::time::Wall(0);
    rig.boot();
    rig.serve();
    rig.sleep();
    assert_eq!(rig.swap.policy_row().good.len(), 2);
}

#[test]
fn a_set_that_cannot_be_prepared_any_more_falls_back_and_new_bytes_mend_it() {
    let blameless = ["unreadable", "signature", "too_large", "types", "no_hook", "compile", "limits"];
    let to_blame = ["describe", "configure", "vectors", "impure"];
    let codes = blameless.map(|code| (code, false)).into_iter().chain(to_blame.map(|code| (code, true)));
    for (code, quarantined) in codes {
        let mut rig = on_probation();
        rig.broken.insert(module(2), code);
        rig.boot();
        assert_eq!(rig.seat(SLOT), Some(module(2)), "it is what is recorded, until the host says otherwise");
        rig.serve();
        assert_eq!(rig.seat(SLOT), Some(module(1)));
        assert!(rig.swap.view().prepared);
        assert_eq!(rig.is_quarantined(module(2)), quarantined);
        assert!(matches!(rig.last(), TurnWhat::Ejected { blame: Blame::Refused { .. }, .. }));
        rig.broken.clear();
        if quarantined {
            assert!(matches!(rig.refused(admit(2)), PolicyRefusal::Quarantined { .. }));
            rig.granted(PolicyRequest::Unquarantine { module: module(2) });
        } else {
            assert!(matches!(rig.refused(activate(SLOT, 2)), PolicyRefusal::Rejected { .. }));
            rig.granted(admit(2));
        }
        rig.granted(activate(SLOT, 2));
        assert_eq!(rig.seat(SLOT), Some(module(2)));
    }
}

#[test]
fn a_default_module_that_the_host_does_not_take_leaves_the_floor_and_is_looked_at_again_at_the_next_boot() {
    let mut rig = Rig::unbooted(Knobs { default_module: Some(DEFAULT), ..Knobs::default() });
    rig.broken.insert(DEFAULT, "compile");
    rig.boot();
    // The admission first: it is not quarantined, so another program may take it.
    let admit = |op: &PolicyOp| matches!(op, PolicyOp::Admit { .. });
    let ticket = *rig.asked.iter().find(|(_, op)| admit(op)).unwrap().0;
    rig.answer(ticket);
    rig.serve();
    assert!(Slot::ALL.into_iter().all(|slot| rig.seat(slot).is_none()));
    assert!(!rig.is_quarantined(DEFAULT));
    rig.broken.clear();
    rig.boot();
    rig.serve();
    assert_eq!(rig.state(DEFAULT), Some(ModuleState::Admitted));
    assert!(rig.seat(SLOT).is_none(), "somebody must ask for it");
    rig.granted(PolicyRequest::Reset { slot: SLOT });
    assert_eq!(rig.seat(SLOT), Some(DEFAULT));
}

#[test]
fn a_host_that_lost_the_set_is_asked_for_it_again_and_nobody_is_blamed() {
    let mut rig = on_probation();
    for _ in 0..10 {
        rig.fault(SLOT, PolicyFault::Missing);
        assert_eq!(rig.asked.len(), 1, "once");
        rig.fault(SLOT, PolicyFault::Missing);
        assert_eq!(rig.asked.len(), 1);
        rig.serve();
    }
    assert_eq!(rig.seat(SLOT), Some(module(2)));
    assert!(rig.swap.policy_row().faults.is_empty());
}

#[test]
fn a_host_that_does_not_answer_is_asked_again_ever_more_seldom() {
    let mut rig = Rig::with(Knobs { default_module: Some(DEFAULT), ..Knobs::default() });
    let mut waits = vec![];
    for _ in 0..14 {
        for ticket in rig.asked.keys().copied().collect::<Vec<_>>() {
            rig.outcome(ticket, Outcome::Unknown);
        }
        let before = rig.now.mono;
        rig.sleep();
        waits.push(before.until(rig.now.mono).as_secs());
        assert_eq!(rig.asked.len(), 2, "what must be so is asked for, once");
    }
    assert!(waits.is_sorted() && waits[0] <= 2 && *waits.last().unwrap() == 600, "{waits:?}");
    rig.serve();
    assert!(rig.swap.view().prepared);
    assert!(!rig.armed());
}

#[test]
fn an_answer_for_another_set_settles_nothing() {
    let mut rig = Rig::with(Knobs { default_module: Some(DEFAULT), ..Knobs::default() });
    let prepare = |op: &PolicyOp| matches!(op, PolicyOp::Prepare { .. });
    let ticket = *rig.asked.iter().find(|(_, op)| prepare(op)).unwrap().0;
    rig.outcome(ticket, Outcome::Done(PolicyReply::Prepared(crate::id::PolicySetId([1; 32]))));
    assert!(!rig.swap.view().prepared);
    assert!(rig.armed());
}

#[test]
fn a_shadow_ends_with_its_module_and_is_told_again_to_a_new_process() {
    let mut rig = on_probation();
    rig.granted(admit(3));
    rig.granted(shadow(SLOT, 3));
    rig.boot();
    let told = PolicyOp::Shadow(Some((SLOT, bind(3))));
    assert!(rig.asked.values().any(|op| *op == told), "{:?}", rig.asked);
    rig.serve();
    rig.granted(quarantine(3));
    assert_eq!(rig.swap.policy_row().shadow, None);
    assert_eq!(rig.news.last(), Some(&"quarantined"));
    rig.granted(admit(4));
    rig.granted(shadow(SLOT, 4));
    // One that cannot be prepared any more ends, and takes nothing with it.
    rig.broken.insert(module(4), "unreadable");
    rig.boot();
    rig.serve();
    assert_eq!(rig.swap.policy_row().shadow, None);
    assert_eq!(rig.seat(SLOT), Some(module(2)));
}

#[test]
fn a_module_that_is_admitted_after_it_could_not_be_prepared_is_admitted() {
    let mut rig = Rig::with(Knobs { default_module: Some(DEFAULT), ..Knobs::default() });
    let (prepare, admit) = {
        let mut tickets = rig.asked.keys().copied();
        (tickets.next().unwrap(), tickets.next().unwrap())
    };
    rig.broken.insert(DEFAULT, "unreadable");
    rig.answer(prepare);
    assert!(matches!(rig.state(DEFAULT), Some(ModuleState::Rejected { .. })));
    rig.broken.clear();
    rig.answer(admit);
    assert_eq!(rig.state(DEFAULT), Some(ModuleState::Admitted));
    assert!(rig.seat(SLOT).is_none(), "its slots it gets back when somebody asks");
}
