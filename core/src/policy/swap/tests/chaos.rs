//! Random lives: whatever is asked, answered, lost or killed, the set is fit to decide and a quarantine stays.

use std::collections::BTreeSet;
use std::string::{String, ToString};
use std::vec::Vec;

use proptest::prelude::*;

use super::rig::{DEFAULT, Rig, activate, admit, module, quarantine, shadow};
use crate::digest::Sha256;
use crate::effect::PolicyOp;
use crate::id::Ticket;
use crate::input::{PolicyReply, PolicyRequest};
use crate::outcome::{Fault, Outcome};
use crate::policy::{Binding, PolicyFault, Slot};

fn slot(n: u8) -> Slot {
    Slot::ALL[usize::from(n) % 5]
}

/// Which module an operator means: one of a few, the default, or one that serves one slot alone.
fn named(n: u8) -> Sha256 {
    match n % 8 {
        0 => DEFAULT,
        7 => module(201),
        n => module(n),
    }
}

fn fault(n: u8) -> PolicyFault {
    [PolicyFault::Trap, PolicyFault::Shape, PolicyFault::Timeout, PolicyFault::Missing][usize::from(n) % 4]
}

fn request(a: u8, b: u8) -> PolicyRequest {
    let n = named(a).0[0];
    match b % 16 {
        0..=2 => admit(n),
        3..=7 => activate(slot(b.wrapping_add(a)), n),
        8 => PolicyRequest::Reset { slot: slot(a) },
        9 => shadow(slot(a / 8), n),
        10 => PolicyRequest::ShadowEnd,
        11 => PolicyRequest::Rollback { to: None },
        12 => PolicyRequest::Rollback { to: Some(u64::from(a) % 12) },
        13 => quarantine(n),
        14 => PolicyRequest::Unquarantine { module: named(a) },
        _ => PolicyRequest::Remove { module: named(a) },
    }
}

fn strange(a: u8, b: u8) -> Outcome<PolicyReply> {
    let code = ["unreadable", "configure", "timeout"][usize::from(a) % 3];
    match b % 6 {
        0 => Outcome::Unknown,
        1 => Outcome::Failed(Fault::Local("broken".to_string())),
        2 => Outcome::Done(PolicyReply::Done),
        3 => Outcome::Done(PolicyReply::Rejected {
            slot: None,
            code: code.to_string(),
            why: "x".repeat(2_000),
        }),
        _ => Outcome::Done(PolicyReply::Rejected {
            slot: Some(slot(a)),
            code: code.to_string(),
            why: String::new(),
        }),
    }
}

/// Modules that were put away and not taken back, by what happened: the model.
fn quarantined(rig: &Rig) -> BTreeSet<Sha256> {
    let modules = rig.swap.view().modules;
    modules.into_iter().filter(|(_, row)| row.quarantined.is_some()).map(|(module, _)| module).collect()
}

/// An operation that the host ends now: any, but of those about the shadow the first, for it does one after the other.
fn pending(rig: &Rig, n: u8) -> Option<Ticket> {
    let (ticket, op) = rig.asked.iter().nth(usize::from(n) % rig.asked.len().max(1))?;
    let is_shadow = |op: &PolicyOp| matches!(op, PolicyOp::Shadow(_));
    let first = rig.asked.iter().find(|(_, op)| is_shadow(op));
    Some(*first.filter(|_| is_shadow(op)).map_or(ticket, |(first, _)| first))
}

/// Who is recorded to decide beside the set.
fn recorded(rig: &Rig) -> Option<(Slot, Binding)> {
    rig.swap.policy_row().shadow.clone().map(|shadow| (shadow.slot, shadow.binding))
}

fn act(rig: &mut Rig, op: u8, a: u8, b: u8) -> Option<Sha256> {
    match op % 16 {
        0..=4 => {
            let request = request(a, b);
            let released = match &request {
                PolicyRequest::Unquarantine { module } => Some(*module),
                _ => None,
            };
            if !rig.stopping {
                rig.ask(request);
            }
            return released;
        }
        5..=8 => {
            if let Some(ticket) = pending(rig, a) {
                rig.answer(ticket);
            }
        }
        9 => {
            if let Some(ticket) = pending(rig, a) {
                rig.outcome(ticket, strange(a, b));
            }
        }
        10 | 11 => rig.fault(slot(a), fault(b)),
        12 if b.is_multiple_of(3) => rig.stall(slot(a)),
        12 => rig.answer_well(slot(a)),
        13 => {
            rig.pass(u64::from(a) * 10_000);
            rig.wake();
        }
        14 => match b % 8 {
            0 => rig.knobs.builtin.uploads = 1 + u32::from(a) % 3,
            1 if a.is_multiple_of(4) => {
                rig.knobs.default_module = rig.knobs.default_module.xor(Some(DEFAULT));
                rig.boot();
            }
            1 if a % 4 == 1 => {
                rig.knobs.default_module = Some(if a.is_multiple_of(8) { DEFAULT } else { module(2) });
                rig.boot();
            }
            1 if a % 4 == 2 => {
                rig.knobs.native = !rig.knobs.native;
                rig.boot();
            }
            // What the default may do is what its slots rest on, across boots without it.
            5 => {
                let n = rig.knobs.default_module.unwrap_or(DEFAULT).0[0];
                if !rig.stopping {
                    rig.ask(if a.is_multiple_of(2) {
                        quarantine(n)
                    } else {
                        PolicyRequest::Unquarantine { module: module(n) }
                    });
                    return (!a.is_multiple_of(2)).then(|| module(n));
                }
            }
            2 => {
                rig.broken.insert(named(a), "unreadable");
            }
            3 => rig.broken.clear(),
            4 if a.is_multiple_of(3) => rig.stop(),
            _ => rig.boot(),
        },
        _ => rig.doom = Some((rig.steps + 1 + usize::from(a) % 3, b.is_multiple_of(2))),
    }
    None
}

fn live(ops: &[(u8, u8, u8)]) {
    let mut rig = Rig::new();
    let mut bad = quarantined(&rig);
    for (op, a, b) in ops {
        let boots = rig.boot;
        let released = act(&mut rig, *op, *a, *b);
        rig.watch();
        let now = quarantined(&rig);
        // A process that died before it committed may have lost what it decided last, and nothing else.
        let gone: Vec<_> = bad.difference(&now).filter(|module| Some(**module) != released).collect();
        assert!(gone.is_empty(), "{gone:?} came out of quarantine by itself (boot {boots:?})");
        bad = now;
    }
    rig.doom = None;
    rig.knobs.native = false;
    rig.boot();
    rig.broken.clear();
    rig.serve();
    rig.watch();
    assert!(rig.swap.view().prepared, "a host that answers truthfully makes it ready");
    assert_eq!(rig.beside, recorded(&rig));
    rig.fall_to_the_floor();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_set_is_fit_to_decide(
        ops in proptest::collection::vec(any::<(u8, u8, u8)>(), 1..160)
    ) {
        live(&ops);
    }

    #[test]
    fn everybody_is_answered_exactly_once(
        ops in proptest::collection::vec((0..14_u8, any::<u8>(), any::<u8>()), 1..120),
        stop in any::<bool>(),
    ) {
        let mut rig = Rig::new();
        for (op, a, b) in &ops {
            act(&mut rig, *op, *a, *b);
        }
        if stop {
            rig.stop();
        } else {
            rig.serve();
            // What was lost is asked for again, and a probation ends.
            for _ in 0..4 {
                if rig.armed() {
                    rig.sleep();
                }
                rig.serve();
            }
            prop_assert_eq!(&rig.beside, &recorded(&rig), "the host asks whom the record names");
        }
        prop_assert!(rig.waiting.is_empty(), "{:?} wait for ever", rig.waiting);
    }
}
