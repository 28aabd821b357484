//! What a site must not lose: the way back to what was good, the modules it needs, and who decides beside the set.

use core::time::Duration;

use super::ladder::on_probation;
use super::rig::{DEFAULT, Rig, activate, admit, bind, module, quarantine, shadow};
use crate::input::PolicyRequest;
use crate::knobs::Knobs;
use crate::limits;
use crate::policy::{Origin, PolicyFault, PolicySet, Slot};
use crate::refusal::PolicyRefusal;
use crate::row::{ModuleState, TurnWhat};
use crate::time::Wall;

const SLOT: Slot = Slot::Concurrency;

#[test]
fn a_module_that_stalls_after_its_probation_makes_room_for_the_good_one_before_it() {
    // A stall shows after an hour of patience at the soonest, and a probation is over in ten minutes.
    let mut rig = on_probation();
    rig.sleep();
    assert_eq!(rig.swap.policy_row().good, [(SLOT, bind(2))]);
    rig.stall(SLOT);
    assert!(rig.is_quarantined(module(2)));
    assert_eq!(rig.seat(SLOT), Some(module(1)));
    let row = rig.swap.policy_row();
    assert_eq!((&row.good[..], &row.probation), (&[(SLOT, bind(1))][..], &None), "it came through its own");
    // There is one before the last, not a whole line.
    rig.stall(SLOT);
    assert_eq!(rig.seat(SLOT), Some(DEFAULT));
}

#[test]
fn the_good_one_before_the_last_is_kept_and_never_one_that_may_not_be_used() {
    let mut rig = on_probation();
    rig.sleep();
    let id = rig.ask(PolicyRequest::Remove { module: module(1) });
    let refusal = rig.replies.remove(&id).unwrap().unwrap_err();
    let text = std::format!("{refusal:?}");
    assert!(text.contains("InUse") && text.contains("falls back"), "{text}");
    rig.granted(quarantine(1));
    rig.stall(SLOT);
    assert_eq!(rig.seat(SLOT), Some(DEFAULT));
    assert!(rig.swap.policy_row().good.is_empty());
}

#[test]
fn a_default_that_came_through_its_probation_is_what_the_next_one_makes_room_for() {
    let mut rig = on_probation();
    rig.sleep();
    rig.granted(PolicyRequest::Reset { slot: SLOT });
    rig.sleep();
    rig.granted(admit(3));
    rig.granted(activate(SLOT, 3));
    rig.stall(SLOT);
    assert_eq!(rig.seat(SLOT), Some(DEFAULT), "not what was good before it");
}

#[test]
fn a_probation_is_a_whole_one_of_a_running_site_that_is_ready() {
    let mut rig = on_probation();
    let whole = rig.knobs.probation_ms;
    // The power was off for longer than the trial.
    rig.pass(whole + 60_000);
    rig.boot();
    rig.wake();
    assert!(rig.swap.policy_row().probation.is_some(), "it decided nothing meanwhile");
    // The host has it not ready yet: the built-in rules stand in.
    rig.pass(whole + 1);
    rig.wake();
    assert!(rig.swap.policy_row().probation.is_some(), "it decided nothing meanwhile");
    rig.serve();
    let shown = rig.swap.view().probation.map(|trial| trial.until);
    assert_eq!(shown, Some(rig.now.wall.after(Duration::from_millis(whole))));
    assert_eq!(rig.swap.view().seats[SLOT as usize].probation, shown);
    rig.pass(whole - 1);
    rig.wake();
    assert!(rig.swap.policy_row().probation.is_some());
    rig.pass(1);
    rig.wake();
    assert_eq!(rig.swap.policy_row().probation, None);
    assert_eq!(rig.swap.policy_row().good, [(SLOT, bind(2))]);
}

#[test]
fn faults_that_a_clock_far_ahead_wrote_down_do_not_count_after_it_was_set_right() {
    let mut rig = on_probation();
    let now = rig.now.wall;
    rig.now.wall = now.after(Duration::from_secs(3 * 365 * 86_400));
    rig.fault(SLOT, PolicyFault::Trap);
    rig.fault(SLOT, PolicyFault::Trap);
    rig.now.wall = now;
    rig.fault(SLOT, PolicyFault::Trap);
    assert!(!rig.is_quarantined(module(2)), "one fault of this year");
    // A clock that is set back by less than the window washes nobody clean.
    rig.now.wall = Wall(now.0 - i64::try_from(rig.knobs.policy_window_ms / 2).unwrap());
    rig.fault(SLOT, PolicyFault::Trap);
    assert!(!rig.is_quarantined(module(2)));
    rig.fault(SLOT, PolicyFault::Trap);
    assert!(rig.is_quarantined(module(2)));
}

#[test]
fn the_floor_of_a_slot_survives_boots_without_the_default_and_a_reset_brings_the_default_back() {
    let mut rig = Rig::new();
    rig.granted(admit(1));
    rig.granted(activate(SLOT, 1));
    rig.granted(quarantine(0xD0));
    assert!(rig.seat(Slot::Order).is_none());
    // A program without the default module loses the last one it has.
    rig.knobs.default_module = None;
    rig.boot();
    rig.serve();
    rig.granted(quarantine(1));
    rig.knobs.default_module = Some(DEFAULT);
    rig.boot();
    rig.serve();
    rig.granted(PolicyRequest::Unquarantine { module: DEFAULT });
    assert!(Slot::ALL.into_iter().all(|slot| rig.seat(slot).is_none()), "somebody must ask for it");
    rig.granted(PolicyRequest::Reset { slot: SLOT });
    assert_eq!(rig.seat(SLOT), Some(DEFAULT));
}

#[test]
fn of_two_default_modules_that_are_quarantined_either_comes_back_when_asked_for() {
    let mut rig = Rig::new();
    rig.granted(quarantine(0xD0));
    rig.knobs.default_module = Some(module(77));
    rig.boot();
    rig.serve();
    rig.granted(quarantine(77));
    rig.knobs.default_module = Some(DEFAULT);
    rig.boot();
    rig.granted(PolicyRequest::Unquarantine { module: DEFAULT });
    rig.granted(PolicyRequest::Reset { slot: SLOT });
    assert_eq!((rig.seat(SLOT), rig.seat(Slot::Order)), (Some(DEFAULT), None));
}

#[test]
fn whoever_is_recorded_as_the_shadow_is_the_one_that_the_host_asks() {
    let mut rig = Rig::new();
    rig.granted(admit(1));
    rig.granted(admit(2));
    rig.granted(shadow(SLOT, 1));
    let id = rig.ask(shadow(Slot::Retry, 2));
    // Before the answer the old one ends by itself, and the host is told that too.
    rig.ask(quarantine(1));
    rig.serve();
    assert!(rig.replies.remove(&id).unwrap().is_ok());
    let recorded = rig.swap.policy_row().shadow.clone().map(|shadow| (shadow.slot, shadow.binding));
    assert_eq!(recorded, Some((Slot::Retry, bind(2))));
    assert_eq!(rig.beside, recorded);
}

#[test]
fn modules_that_are_refused_push_out_one_another_and_nothing_that_somebody_may_go_back_to() {
    let mut rig = Rig::new();
    let taken = u8::try_from(limits::MODULES_MAX).unwrap() - 4;
    for n in 1..=taken {
        rig.pass(1);
        rig.granted(admit(n));
    }
    rig.granted(activate(SLOT, 1));
    rig.granted(activate(SLOT, 2));
    for n in 100..200 {
        rig.pass(1);
        rig.broken.insert(module(n), "imports");
        assert!(matches!(rig.refused(admit(n)), PolicyRefusal::Rejected { .. }));
    }
    for n in 1..=taken {
        assert_eq!(rig.state(module(n)), Some(ModuleState::Admitted), "{n}");
    }
    // Good ones: first the refused make room, then what never sat anywhere.
    for n in taken + 1..=taken + 10 {
        rig.pass(1);
        rig.granted(admit(n));
    }
    assert!((100..200).all(|n| rig.state(module(n)).is_none()));
    assert_eq!(rig.state(module(1)), Some(ModuleState::Admitted), "the history goes back to it");
    assert_eq!(rig.state(module(3)), None);
}

#[test]
fn a_default_module_finds_room_even_where_every_other_is_quarantined() {
    let mut rig = Rig::new();
    for n in 1..u8::try_from(limits::MODULES_MAX).unwrap() {
        rig.granted(admit(n));
        rig.granted(quarantine(n));
    }
    rig.granted(quarantine(0xD0));
    rig.knobs.default_module = Some(module(150));
    rig.boot();
    rig.serve();
    assert_eq!(rig.seat(SLOT), Some(module(150)));
    assert_eq!(rig.swap.view().modules.len(), limits::MODULES_MAX + 1);
    assert_eq!(rig.refused(admit(151)), PolicyRefusal::Full);
}

#[test]
fn a_host_that_has_no_time_is_asked_again_and_nobody_is_barred() {
    let mut rig = on_probation();
    for code in ["timeout", "native"] {
        rig.broken.insert(module(2), code);
        rig.boot();
        rig.serve();
        assert_eq!(rig.seat(SLOT), Some(module(2)), "{code}");
        assert!(!rig.is_quarantined(module(2)));
        assert!(!rig.swap.view().prepared, "{code}");
        rig.broken.clear();
        rig.sleep();
        rig.serve();
        assert!(rig.swap.view().prepared, "{code}");
        assert_eq!(rig.state(module(2)), Some(ModuleState::Admitted), "{code}");
    }
    // Nor is a module rejected for it.
    rig.broken.insert(module(5), "timeout");
    assert!(matches!(rig.refused(admit(5)), PolicyRefusal::Unanswered(_)));
    assert_eq!(rig.state(module(5)), Some(ModuleState::Staged));
    rig.broken.clear();
    rig.sleep();
    rig.serve();
    assert_eq!(rig.state(module(5)), Some(ModuleState::Admitted));
}

#[test]
fn a_site_that_is_told_to_run_no_modules_rests_them_and_forgets_nothing() {
    let mut rig = on_probation();
    rig.granted(admit(3));
    rig.granted(shadow(Slot::Retry, 3));
    rig.ask(admit(4));
    rig.granted(activate(Slot::Order, 3));
    let before = (rig.gist(), rig.swap.id());
    rig.knobs.native = true;
    rig.boot();
    assert_eq!(*rig.swap.set(), PolicySet::native(rig.knobs.builtin.clone()));
    assert_eq!(rig.last(), TurnWhat::Configured);
    assert_eq!((rig.gist(), rig.armed(), rig.asked.len()), (before.0.clone(), false, 0), "all of it rests");
    let view = rig.swap.view();
    assert!(view.prepared && view.seats.iter().all(|seat| seat.origin == Origin::Native), "{view:?}");
    // The same configuration again is no change.
    let generation = rig.generation();
    rig.boot();
    assert_eq!(rig.generation(), generation);
    rig.pass(10 * rig.knobs.probation_ms);
    // Back: everybody sits where they sat, and the trial is a whole one.
    rig.knobs.native = false;
    rig.boot();
    assert_eq!((rig.gist(), rig.swap.id()), before);
    rig.serve();
    assert_eq!((rig.seat(SLOT), rig.seat(Slot::Order)), (Some(module(2)), Some(module(3))));
    assert_eq!(rig.beside, Some((Slot::Retry, bind(3))));
    assert_eq!(rig.state(module(4)), Some(ModuleState::Admitted), "what was not looked at is looked at");
    rig.pass(rig.knobs.probation_ms - 1);
    rig.wake();
    assert!(rig.swap.policy_row().probation.is_some());
    rig.stall(SLOT);
    assert_eq!(rig.seat(SLOT), Some(module(1)), "what was good still is");
}

#[test]
fn where_modules_rest_what_needs_the_host_is_refused_and_a_module_may_still_be_put_away() {
    let mut rig = on_probation();
    rig.granted(shadow(Slot::Retry, 1));
    rig.knobs.native = true;
    rig.boot();
    let requests = [
        admit(9),
        activate(SLOT, 1),
        shadow(SLOT, 1),
        PolicyRequest::Reset { slot: SLOT },
        PolicyRequest::Rollback { to: None },
        PolicyRequest::Rollback { to: Some(1) },
        PolicyRequest::Remove { module: module(2) },
    ];
    for request in requests {
        assert_eq!(rig.refused(request), PolicyRefusal::Native);
    }
    rig.granted(PolicyRequest::ShadowEnd);
    rig.granted(quarantine(2));
    rig.granted(quarantine(0xD0));
    assert!(rig.asked.is_empty(), "{:?}", rig.asked);
    rig.knobs.native = false;
    rig.boot();
    rig.serve();
    assert_eq!((rig.seat(SLOT), rig.seat(Slot::Order)), (Some(module(1)), None));
    assert_eq!(rig.swap.policy_row().shadow, None);
    rig.granted(PolicyRequest::Unquarantine { module: DEFAULT });
    rig.granted(PolicyRequest::Reset { slot: SLOT });
    assert_eq!(rig.seat(SLOT), Some(DEFAULT));
}

#[test]
fn a_site_that_never_ran_a_module_has_no_record_of_policies() {
    let knobs = Knobs { default_module: Some(DEFAULT), native: true, ..Knobs::default() };
    let mut rig = Rig::with(knobs);
    assert!(rig.rows.is_empty() && rig.asked.is_empty());
    rig.knobs.native = false;
    rig.boot();
    rig.serve();
    assert_eq!((rig.generation(), rig.seat(SLOT)), (1, Some(DEFAULT)));
}
