//! What operators may ask, and what they are told.

use std::format;
use std::string::{String, ToString};
use std::vec;
use std::vec::Vec;

use super::rig::{DEFAULT, Rig, activate, admit, bind, module, quarantine, setting, shadow};
use crate::effect::{PolicyOp, Response};
use crate::input::{PolicyReply, PolicyRequest};
use crate::limits;
use crate::outcome::{Fault, Outcome};
use crate::policy::{Binding, Origin, PolicyFault, SettingValue, Slot};
use crate::refusal::{PolicyRefusal, Refusal};
use crate::row::{ModuleState, TurnWhat};

const SLOT: Slot = Slot::Concurrency;

#[test]
fn a_module_is_looked_at_once_and_every_answer_shows_it() {
    let mut rig = Rig::new();
    let first = rig.ask(admit(1));
    let second = rig.ask(admit(1));
    assert_eq!(rig.asked.len(), 1, "the same bytes are looked at once");
    rig.serve();
    for id in [first, second] {
        let Some(Ok(Response::Policy(view))) = rig.replies.remove(&id) else { panic!("not admitted") };
        let (_, row) = view.modules.iter().find(|(m, _)| *m == module(1)).unwrap();
        assert_eq!(row.state, ModuleState::Admitted);
        assert_eq!((row.size, row.facts.as_ref().unwrap().name.as_str()), (101, "module-1"));
    }
    // Once more: nothing to do.
    rig.ask(admit(1));
    assert!(rig.asked.is_empty() && rig.waiting.is_empty());
    for _ in 0..limits::WAITERS_PER_MODULE {
        rig.ask(admit(2));
    }
    assert_eq!(rig.refused(admit(2)), PolicyRefusal::Busy);
}

#[test]
fn a_module_that_is_not_taken_says_why_and_may_come_again() {
    let mut rig = Rig::new();
    rig.broken.insert(module(1), "imports");
    let refusal = rig.refused(admit(1));
    let code = "imports".to_string();
    assert!(matches!(&refusal, PolicyRefusal::Rejected { code: c, .. } if *c == code), "{refusal:?}");
    assert_eq!(refusal.code(), "policy_rejected");
    assert!(format!("{refusal}").contains("imports: the host says so"), "{refusal}");
    for request in [activate(SLOT, 1), shadow(SLOT, 1)] {
        assert!(matches!(rig.refused(request), PolicyRefusal::Rejected { .. }));
    }
    rig.broken.clear();
    rig.granted(admit(1));
}

#[test]
fn a_module_counts_only_once_the_host_has_the_set_ready() {
    let mut rig = Rig::new();
    rig.granted(admit(1));
    let before = (rig.swap.id(), rig.generation());
    let id = rig.ask(activate(SLOT, 1));
    assert_eq!((rig.swap.id(), rig.generation()), before);
    assert_eq!(rig.swap.view().preparing, Some(TurnWhat::Activated { slot: SLOT }));
    assert!(rig.waiting.contains(&id));
    let Some(PolicyOp::Prepare { set }) = rig.asked.values().next().cloned() else { panic!("prepare") };
    rig.serve();
    assert_eq!(rig.swap.id(), set.id());
    assert_eq!(rig.generation(), before.1 + 1);
    let Some(Ok(Response::Policy(view))) = rig.replies.remove(&id) else { panic!("granted") };
    let seat = &view.seats[SLOT as usize];
    assert_eq!((seat.origin, seat.name.as_deref()), (Origin::Chosen, Some("module-1")));
    assert_eq!(seat.probation, Some(rig.now.wall.after(core::time::Duration::from_secs(600))));
    assert!(view.prepared);
    // The same again changes nothing.
    rig.granted(activate(SLOT, 1));
    assert_eq!(rig.generation(), before.1 + 1);
    // Other settings are another set.
    let settings = vec![setting("b", 1), setting("a", 2)];
    rig.granted(PolicyRequest::Activate { slot: SLOT, binding: Binding { module: module(1), settings } });
    assert_eq!(rig.generation(), before.1 + 2);
    let sorted = [setting("a", 2), setting("b", 1)];
    assert_eq!(rig.swap.policy_row().slots[0].1.settings, sorted, "one binding, one hash");
}

#[test]
fn what_may_not_sit_in_a_slot_is_refused_with_the_reason_and_what_to_do() {
    let mut rig = Rig::new();
    assert_eq!(rig.refused(activate(SLOT, 1)), PolicyRefusal::UnknownModule(module(1)));
    rig.ask(admit(1));
    rig.ask(activate(SLOT, 1));
    assert_eq!(
        rig.replies.remove(&rig.replies.keys().last().copied().unwrap()),
        Some(Err(PolicyRefusal::NotAdmitted(module(1)).into()))
    );
    rig.serve();
    rig.granted(admit(201));
    let missing = PolicyRefusal::HookMissing { module: module(201), slot: SLOT };
    assert_eq!(rig.refused(activate(SLOT, 201)), missing);
    assert!(format!("{missing}").contains("does not serve concurrency"));
    rig.granted(activate(Slot::Retry, 201));
    rig.granted(quarantine(1));
    for request in [activate(SLOT, 1), shadow(SLOT, 1), admit(1), PolicyRequest::Remove { module: module(1) }]
    {
        let refusal = rig.refused(request);
        assert_eq!(refusal, PolicyRefusal::Quarantined { module: module(1), code: "operator".to_string() });
        assert!(format!("{refusal}").contains("unquarantine"), "{refusal}");
    }
    let many = (0..=limits::SETTINGS_MAX).map(|n| setting(&format!("{n}"), 1)).collect();
    let long = vec![("k".to_string(), SettingValue::Text("x".repeat(limits::SETTINGS_BYTES)))];
    for settings in [many, long, vec![setting("a", 1), setting("a", 2)]] {
        let binding = Binding { module: module(201), settings };
        let refusal = rig.refused(PolicyRequest::Activate { slot: Slot::Retry, binding });
        assert!(matches!(refusal, PolicyRefusal::BadSettings(_)), "{refusal:?}");
        assert!(format!("{refusal}").starts_with("settings must be "), "{refusal}");
    }
}

#[test]
fn a_set_that_cannot_be_prepared_changes_nothing() {
    let mut rig = Rig::new();
    rig.granted(admit(1));
    let (id, rows) = (rig.swap.id(), rig.rows.clone());
    rig.broken.insert(module(1), "configure");
    assert!(matches!(rig.refused(activate(SLOT, 1)), PolicyRefusal::Rejected { .. }));
    assert!(matches!(rig.refused(shadow(SLOT, 1)), PolicyRefusal::Rejected { .. }));
    rig.broken.clear();
    let wrong = [
        Outcome::Unknown,
        Outcome::Failed(Fault::Local("no space".to_string())),
        Outcome::Done(PolicyReply::Done),
        Outcome::Done(PolicyReply::Prepared(crate::id::PolicySetId([3; 32]))),
        Outcome::Done(PolicyReply::Rejected { slot: None, code: "odd".to_string(), why: String::new() }),
    ];
    for outcome in wrong {
        let request = rig.ask(activate(SLOT, 1));
        let ticket = *rig.asked.keys().next().unwrap();
        rig.outcome(ticket, outcome);
        let answer = rig.replies.remove(&request);
        assert!(matches!(answer, Some(Err(Refusal::Policy(PolicyRefusal::Unanswered(_))))), "{answer:?}");
    }
    assert_eq!((rig.swap.id(), &rig.rows), (id, &rows));
}

#[test]
fn one_set_at_a_time_is_prepared_and_an_ejection_overtakes_it() {
    let mut rig = Rig::new();
    rig.granted(admit(1));
    rig.granted(admit(2));
    rig.granted(activate(SLOT, 1));
    let id = rig.ask(activate(Slot::Retry, 2));
    for request in
        [activate(Slot::Order, 1), PolicyRequest::Reset { slot: SLOT }, PolicyRequest::Rollback { to: None }]
    {
        let busy = rig.ask(request);
        assert_eq!(rig.replies.remove(&busy), Some(Err(PolicyRefusal::Busy.into())));
    }
    let late = *rig.asked.keys().next().unwrap();
    rig.stall(SLOT);
    assert_eq!(rig.replies.remove(&id), Some(Err(PolicyRefusal::Overtaken.into())));
    // The host's answer comes too late.
    rig.answer(late);
    assert_eq!(rig.seat(Slot::Retry), Some(DEFAULT));
    rig.serve();
    // A module that is quarantined while it is being prepared never counts.
    let id = rig.ask(activate(Slot::Retry, 2));
    rig.ask(quarantine(2));
    assert_eq!(rig.replies.remove(&id), Some(Err(PolicyRefusal::Overtaken.into())));
    rig.serve();
    assert_eq!(rig.seat(Slot::Retry), Some(DEFAULT));
}

#[test]
fn whoever_waits_is_answered_when_the_site_stops_and_outcomes_of_the_past_are_dropped() {
    let mut rig = Rig::new();
    rig.granted(admit(1));
    rig.granted(admit(3));
    let ids = [rig.ask(activate(SLOT, 1)), rig.ask(admit(2)), rig.ask(shadow(SLOT, 3))];
    let tickets: Vec<_> = rig.asked.keys().copied().collect();
    assert_eq!(tickets.len(), 3);
    rig.stop();
    for id in ids {
        assert_eq!(rig.replies.remove(&id), Some(Err(Refusal::Stopping)));
    }
    let rows = rig.rows.clone();
    for ticket in &tickets {
        rig.answer(*ticket);
    }
    assert!(!rig.armed());
    rig.boot();
    let again: Vec<_> = rig.asked.values().cloned().collect();
    assert!(again.contains(&PolicyOp::Admit { module: module(2) }), "what was not looked at is looked at");
    for ticket in tickets {
        rig.step(|swap, cx| {
            let outcome = Outcome::Done(PolicyReply::Done);
            assert!(!swap.on_outcome(cx, ticket, &outcome), "a ticket of an earlier boot");
        });
    }
    assert_eq!(rig.rows, rows);
    assert_eq!(rig.seat(SLOT), Some(DEFAULT), "what was not prepared never counted");
}

#[test]
fn a_site_goes_back_only_to_what_is_remembered_and_may_be_used() {
    let mut rig = Rig::new();
    for n in 1..=3 {
        rig.granted(admit(n));
    }
    rig.granted(activate(SLOT, 1));
    let first = rig.generation();
    rig.granted(activate(Slot::Retry, 2));
    rig.granted(activate(SLOT, 3));
    rig.granted(PolicyRequest::Rollback { to: Some(first) });
    assert_eq!((rig.seat(SLOT), rig.seat(Slot::Retry)), (Some(module(1)), Some(DEFAULT)));
    assert_eq!(rig.last(), TurnWhat::RolledBack { to: Some(first) });
    assert!(rig.swap.policy_row().probation.is_some(), "it was never good");
    rig.granted(PolicyRequest::Rollback { to: None });
    assert_eq!(rig.seat(SLOT), Some(DEFAULT));
    assert_eq!(rig.swap.policy_row().probation, None);
    assert_eq!(rig.refused(PolicyRequest::Rollback { to: Some(99) }), PolicyRefusal::UnknownGeneration(99));
    rig.granted(quarantine(1));
    assert!(matches!(
        rig.refused(PolicyRequest::Rollback { to: Some(first) }),
        PolicyRefusal::Quarantined { .. }
    ));
    rig.granted(PolicyRequest::Unquarantine { module: module(1) });
    rig.granted(PolicyRequest::Remove { module: module(1) });
    assert_eq!(
        rig.refused(PolicyRequest::Rollback { to: Some(first) }),
        PolicyRefusal::UnknownModule(module(1))
    );
}

#[test]
fn history_is_bounded_and_the_last_of_it_is_what_counts() {
    let mut rig = Rig::new();
    rig.granted(admit(1));
    for n in 0..80 {
        if n % 2 == 0 {
            rig.granted(activate(SLOT, 1));
        } else {
            rig.granted(PolicyRequest::Reset { slot: SLOT });
        }
    }
    assert_eq!(rig.generation(), 81);
    let history = &rig.swap.policy_row().history;
    assert_eq!(history.len(), limits::POLICY_HISTORY);
    assert_eq!(history.last().unwrap().set, rig.swap.id());
    assert_eq!(rig.refused(PolicyRequest::Rollback { to: Some(1) }), PolicyRefusal::UnknownGeneration(1));
}

#[test]
fn a_module_in_use_is_not_removed() {
    let mut rig = Rig::new();
    for n in 1..=4 {
        rig.granted(admit(n));
    }
    rig.granted(activate(SLOT, 1));
    rig.sleep();
    rig.granted(activate(SLOT, 2));
    rig.granted(shadow(Slot::Retry, 3));
    rig.ask(admit(5));
    for (used, word) in [(1, "good"), (2, "slot"), (3, "beside"), (5, "looked at")] {
        let id = rig.ask(PolicyRequest::Remove { module: module(used) });
        match rig.replies.remove(&id) {
            Some(Err(Refusal::Policy(PolicyRefusal::InUse { by, .. }))) => assert!(by.contains(word), "{by}"),
            other => panic!("{other:?}"),
        }
    }
    rig.serve();
    let refusal = rig.refused(PolicyRequest::Remove { module: DEFAULT });
    assert!(matches!(refusal, PolicyRefusal::InUse { .. }), "{refusal:?}");
    rig.granted(PolicyRequest::Remove { module: module(4) });
    assert_eq!(
        rig.refused(PolicyRequest::Remove { module: module(4) }),
        PolicyRefusal::UnknownModule(module(4))
    );
}

#[test]
fn when_there_are_too_many_modules_the_one_unused_longest_makes_room_but_never_a_quarantined_one() {
    let mut rig = Rig::new();
    let most = u8::try_from(limits::MODULES_MAX).unwrap();
    for n in 1..most {
        rig.pass(1);
        rig.granted(admit(n));
    }
    rig.granted(activate(SLOT, 1));
    rig.sleep();
    rig.granted(quarantine(2));
    rig.granted(shadow(SLOT, 3));
    // 4 was used longer ago than 5, but came to a slot and left it since.
    rig.granted(activate(Slot::Retry, 4));
    rig.granted(PolicyRequest::Reset { slot: Slot::Retry });
    rig.granted(admit(100));
    assert_eq!(rig.state(module(5)), None, "the oldest that nothing uses");
    for n in 1..=4 {
        assert!(rig.state(module(n)).is_some(), "{n}");
    }
    for n in 6..most {
        rig.granted(quarantine(n));
    }
    rig.granted(quarantine(4));
    rig.granted(quarantine(100));
    let refusal = rig.refused(admit(101));
    assert_eq!(refusal, PolicyRefusal::Full);
    assert!(format!("{refusal}").contains("unquarantine and remove"));
    rig.granted(PolicyRequest::Unquarantine { module: module(9) });
    rig.granted(admit(101));
    assert_eq!(rig.state(module(9)), None);
}

#[test]
fn a_shadow_is_one_and_ends_when_asked_to() {
    let mut rig = Rig::new();
    rig.granted(admit(1));
    rig.granted(admit(2));
    rig.granted(shadow(SLOT, 1));
    let id = rig.ask(shadow(Slot::Retry, 2));
    for request in [shadow(SLOT, 1), PolicyRequest::ShadowEnd] {
        let busy = rig.ask(request);
        assert_eq!(rig.replies.remove(&busy), Some(Err(PolicyRefusal::Busy.into())));
    }
    rig.serve();
    assert!(matches!(rig.replies.remove(&id), Some(Ok(_))));
    let row = rig.swap.policy_row().shadow.clone().unwrap();
    assert_eq!((row.slot, row.binding), (Slot::Retry, bind(2)));
    // Nobody knows whether the next one came: the host is told again what counts.
    let id = rig.ask(shadow(SLOT, 1));
    let ticket = *rig.asked.keys().next().unwrap();
    rig.outcome(ticket, Outcome::Unknown);
    assert!(matches!(rig.replies.remove(&id), Some(Err(Refusal::Policy(PolicyRefusal::Unanswered(_))))));
    rig.sleep();
    let told: Vec<_> = rig.asked.values().cloned().collect();
    assert_eq!(told, [PolicyOp::Shadow(Some((Slot::Retry, bind(2))))]);
    rig.serve();
    rig.granted(PolicyRequest::ShadowEnd);
    assert_eq!(rig.swap.policy_row().shadow, None);
    rig.granted(PolicyRequest::ShadowEnd);
    // Its faults are nobody's: it decides nothing.
    rig.fault(SLOT, PolicyFault::Trap);
    assert!(!rig.is_quarantined(module(1)));
}

#[test]
fn a_default_module_of_a_new_program_finds_room() {
    let mut rig = Rig::new();
    for n in 1..u8::try_from(limits::MODULES_MAX).unwrap() {
        rig.pass(1);
        rig.granted(admit(n));
    }
    rig.knobs.default_module = Some(module(150));
    rig.boot();
    rig.serve();
    assert_eq!(rig.swap.view().modules.len(), limits::MODULES_MAX);
    assert_eq!(rig.state(module(150)), Some(ModuleState::Admitted));
    assert_eq!(rig.state(DEFAULT), None, "the one of the old program was used longest ago");
}
