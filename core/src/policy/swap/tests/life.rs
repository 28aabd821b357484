//! The whole life of modules, with the process killed at every step of it.

use std::boxed::Box;
use std::format;
use std::string::String;
use std::vec;
use std::vec::Vec;

use super::rig::{DEFAULT, Rig, activate, admit, bind, module, quarantine, shadow};
use crate::input::PolicyRequest;
use crate::knobs::Knobs;
use crate::policy::{PolicyFault, Slot};
use crate::row::ModuleState;

/// Something that somebody wants to be so, how they go about it, and how they see that it is.
struct Goal {
    act: Box<dyn Fn(&mut Rig)>,
    done: Box<dyn Fn(&Rig) -> bool>,
}

fn goal(act: impl Fn(&mut Rig) + 'static, done: impl Fn(&Rig) -> bool + 'static) -> Goal {
    Goal { act: Box::new(act), done: Box::new(done) }
}

fn asked(request: PolicyRequest, done: impl Fn(&Rig) -> bool + 'static) -> Goal {
    goal(
        move |rig| {
            rig.ask(request.clone());
            rig.serve();
        },
        done,
    )
}

fn admitted(n: u8) -> Goal {
    asked(admit(n), move |rig| rig.state(module(n)) == Some(ModuleState::Admitted))
}

fn active(slot: Slot, n: u8) -> Goal {
    asked(activate(slot, n), move |rig| rig.seat(slot) == Some(module(n)))
}

fn probed() -> Goal {
    goal(
        |rig| {
            // Only what is ready is on trial.
            rig.serve();
            if rig.armed() {
                rig.sleep();
            }
        },
        |rig| rig.swap.policy_row().probation.is_none(),
    )
}

fn faulted(slot: Slot, times: usize) -> Goal {
    goal(
        move |rig| {
            rig.fault(slot, PolicyFault::Trap);
            rig.serve();
        },
        move |rig| {
            let marks = rig.swap.policy_row().faults.iter().filter(|mark| mark.slot == slot);
            marks.count() == times
        },
    )
}

fn life() -> Vec<Goal> {
    let (slot, other) = (Slot::Concurrency, Slot::Retry);
    let released = |n| asked(PolicyRequest::Unquarantine { module: n }, move |rig| !rig.is_quarantined(n));
    vec![
        goal(Rig::serve, |rig| rig.state(DEFAULT) == Some(ModuleState::Admitted)),
        admitted(1),
        active(slot, 1),
        probed(),
        admitted(2),
        asked(shadow(slot, 2), |rig| {
            rig.swap.policy_row().shadow.as_ref().is_some_and(|s| s.binding == bind(2))
        }),
        // Whoever decides is not compared with itself.
        active(slot, 2),
        goal(Rig::serve, |rig| rig.swap.policy_row().shadow.is_none()),
        faulted(slot, 1),
        faulted(slot, 2),
        // The third fault: back to the last good one.
        goal(
            move |rig| {
                rig.fault(slot, PolicyFault::Shape);
                rig.serve();
            },
            move |rig| rig.is_quarantined(module(2)) && rig.seat(slot) == Some(module(1)),
        ),
        released(module(2)),
        active(other, 2),
        active(slot, 2),
        goal(
            move |rig| {
                rig.stall(slot);
                rig.serve();
            },
            move |rig| rig.is_quarantined(module(2)) && rig.seat(other) == Some(DEFAULT),
        ),
        admitted(3),
        active(other, 3),
        probed(),
        admitted(4),
        active(other, 4),
        asked(PolicyRequest::Rollback { to: None }, move |rig| rig.seat(other) == Some(module(3))),
        asked(quarantine(1), move |rig| rig.is_quarantined(module(1)) && rig.seat(slot) == Some(DEFAULT)),
        // The default module fails in a slot: nobody has it any more.
        faulted(Slot::Order, 1),
        faulted(Slot::Order, 2),
        goal(
            |rig| {
                rig.fault(Slot::Order, PolicyFault::Exhausted);
                rig.serve();
            },
            move |rig| rig.is_quarantined(DEFAULT) && rig.seat(slot).is_none(),
        ),
        released(DEFAULT),
        asked(PolicyRequest::Reset { slot }, move |rig| rig.seat(slot) == Some(DEFAULT)),
        asked(PolicyRequest::Remove { module: module(4) }, |rig| rig.state(module(4)).is_none()),
    ]
}

/// Lives it all, and dies at a step if it says so. Returns the end, and how many steps it took.
fn live(doom: Option<(usize, bool)>) -> (String, usize, bool) {
    let mut rig = Rig::unbooted(Knobs { default_module: Some(DEFAULT), ..Knobs::default() });
    rig.doom = doom;
    rig.boot();
    for (n, goal) in life().into_iter().enumerate() {
        for tries in 0.. {
            if (goal.done)(&rig) {
                break;
            }
            assert!(tries < 4, "{doom:?}: goal {n} is never reached: {}", rig.gist());
            (goal.act)(&mut rig);
            rig.watch();
        }
    }
    rig.serve();
    assert!(rig.waiting.is_empty(), "{doom:?}: everybody of this process was answered");
    (rig.gist(), rig.steps, rig.boot.0 > 1)
}

#[test]
fn a_process_that_dies_at_any_step_of_a_modules_life_goes_on_where_it_was() {
    let (end, steps, _) = live(None);
    assert!(steps > 40, "{steps} steps are a whole life");
    for step in 1..=steps {
        for committed in [true, false] {
            let (reached, _, died) = live(Some((step, committed)));
            assert!(died, "step {step} is on the way");
            assert_eq!(reached, end, "died at step {step}, committed: {committed}");
        }
    }
    assert!(end.contains("stalled") && end.contains("operator"), "{end}");
    assert!(format!("{:?}", module(2)).starts_with("02"));
}
