//! What a site must not lose: the way back to what was good, the modules it needs, and who decides beside the set.

use core::time::Duration;

use super::ladder::on_probation;
use super::rig::{DEFAULT, activate, admit, bind, module, quarantine};
use crate::input::PolicyRequest;
use crate::policy::Slot;

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

