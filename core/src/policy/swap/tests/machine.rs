//! The whole machine with modules: between which steps another set counts, and what is left out.

use std::collections::BTreeMap;
use std::string::ToString;
use std::vec::Vec;

use super::rig::{DEFAULT, activate, admit, facts, module};
use crate::effect::{Effect, Output, PolicyOp};
use crate::id::{Boot, RequestId, Ticket};
use crate::input::{Input, PolicyReply, PolicyRequest, Request};
use crate::knobs::Knobs;
use crate::machine::{Machine, Rows};
use crate::object::ObjectReply;
use crate::outcome::Outcome;
use crate::policy::{Builtin, Slot};
use crate::quarantine::Subject;
use crate::refusal::{PolicyRefusal, Refusal};
use crate::time::{Mono, Now, Wall};
use crate::timers::TimerKey;

struct Site {
    machine: Machine,
    asked: BTreeMap<Ticket, PolicyOp>,
    requests: u64,
}

impl Site {
    fn new() -> Site {
        let knobs = Knobs { default_module: Some(DEFAULT), ..Knobs::default() };
        let mut site = Site { machine: Machine::new(), asked: BTreeMap::new(), requests: 0 };
        let expected = site.machine.set_at_boot(&knobs).id();
        site.step(&Input::Boot { boot: Boot(1), seed: 1, knobs });
        assert_eq!(site.machine.active_policy(), expected);
        site.serve();
        site
    }

    fn step(&mut self, input: &Input) -> Output {
        let now = Now { wall: Wall(1_790_000_000_000), mono: Mono(5) };
        let mut out = Output::default();
        let mut policies = Builtin::new(Knobs::default().builtin);
        self.machine.step(now, input, &Rows::new(), &mut policies, &mut out);
        self.machine.check().unwrap();
        for effect in &out.effects {
            if let Effect::Policy { ticket, op } = effect {
                self.asked.insert(*ticket, op.clone());
            }
        }
        out
    }

    fn ask(&mut self, request: PolicyRequest) -> Output {
        self.requests += 1;
        self.step(&Input::Request { id: RequestId(self.requests), request: Request::Policy(request) })
    }

    fn serve(&mut self) -> Option<Output> {
        let mut last = None;
        while let Some((ticket, op)) = self.asked.pop_first() {
            let reply = match op {
                PolicyOp::Admit { module } => PolicyReply::Admitted(facts(module)),
                PolicyOp::Prepare { set } => PolicyReply::Prepared(set.id()),
                PolicyOp::Retire { .. } | PolicyOp::Shadow(_) => PolicyReply::Done,
            };
            last = Some(self.step(&Input::Policy { ticket, outcome: Outcome::Done(reply) }));
        }
        last
    }
}

fn replies(out: &Output) -> Vec<&Effect> {
    out.effects.iter().filter(|effect| matches!(effect, Effect::Reply { .. })).collect()
}

#[test]
fn another_set_counts_from_the_next_step_on_and_is_asked_at_once() {
    let mut site = Site::new();
    site.ask(admit(1));
    site.serve();
    let before = site.machine.active_policy();
    site.ask(activate(Slot::Concurrency, 1));
    assert_eq!(site.machine.active_policy(), before, "it is not ready");
    let out = site.serve().unwrap();
    assert_eq!(replies(&out).len(), 1);
    assert_ne!(site.machine.active_policy(), before);
    assert_eq!(site.machine.active_policy(), site.machine.active_set().id());
    assert_eq!(site.machine.active_set().module(Slot::Concurrency), Some(module(1)));
    let (at, key) = site.machine.next_wake().unwrap();
    assert_eq!((at, key), (Mono(5), &TimerKey::Queue));
}

#[test]
fn an_outcome_that_is_left_out_counts_as_none_and_names_what_it_is_about() {
    let mut site = Site::new();
    site.ask(admit(1));
    let ticket = *site.asked.keys().next().unwrap();
    let input = Input::Policy { ticket, outcome: Outcome::Unknown };
    assert!(site.machine.about(&input).starts_with("admission of module 0101"));
    let subject = Subject::of(&input).unwrap();
    let left_out = Input::Quarantined { subject, reason: "it panicked".to_string() };
    let out = site.step(&left_out);
    let [Effect::Reply { answer: Err(Refusal::Policy(PolicyRefusal::Unanswered(why))), .. }] =
        replies(&out)[..]
    else {
        panic!("{out:?}")
    };
    assert_eq!(why, "it panicked");
    assert_eq!(site.machine.next_wake().map(|(_, key)| key), Some(&TimerKey::Policy), "it is asked again");
    // Nobody waits for it any more.
    assert!(site.step(&left_out).effects.is_empty());
    assert_eq!(site.machine.stats().superseded, 1);
}

#[test]
fn an_outcome_of_an_object_never_answers_a_question_about_policies() {
    let mut site = Site::new();
    site.ask(admit(1));
    let ticket = *site.asked.keys().next().unwrap();
    let outcome = Outcome::Done(ObjectReply::Deleted);
    assert!(site.step(&Input::Object { ticket, outcome }).effects.is_empty());
    assert_eq!(site.machine.stats().stale_outcomes, 1);
    let out = site.serve().unwrap();
    assert_eq!(replies(&out).len(), 1);
    let again = Input::Policy { ticket, outcome: Outcome::Unknown };
    assert!(site.step(&again).effects.is_empty());
    assert_eq!(site.machine.stats().stale_outcomes, 2);
}

#[test]
fn nothing_is_asked_for_while_the_site_stops_and_a_shutdown_does_not_wait_for_the_host() {
    let mut site = Site::new();
    site.ask(admit(1));
    let out = site.step(&Input::Shutdown);
    assert!(matches!(replies(&out)[..], [Effect::Reply { answer: Err(Refusal::Stopping), .. }]));
    assert!(site.machine.is_drained());
    let out = site.ask(admit(2));
    assert!(matches!(replies(&out)[..], [Effect::Reply { answer: Err(Refusal::Stopping), .. }]));
}
