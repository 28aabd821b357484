//! Policies in the world: modules whose verdicts are those of the built-in rules, signed by the set whose turn it is, a
//! host that admits and prepares them, operators who move them about, and what must hold of it all.

use std::collections::BTreeMap;
use std::format;
use std::prelude::v1::*;
use std::vec;

use super::watch::{broken, demand};
use super::world::World;
use crate::digest::Sha256;
use crate::effect::{Output, PolicyOp};
use crate::id::{PolicySetId, Ticket};
use crate::input::{Input, PolicyReply, PolicyRequest, Request};
use crate::knobs::Knobs;
use crate::outcome::{Fault, Outcome};
use crate::policy::{
    Author, Bandwidth, Binding, Builtin, Candidate, Chosen, ModuleFacts, Ordering, Policies, PolicyFault,
    RetryQuery, RetryVerdict, Ruling, Seat, Situation, Slot, UploadLimits, Waiting,
};
use crate::refusal::Broken;
use crate::row::{Key, ModuleState, Row};

/// The default module of the sites that have one.
pub(super) const DEFAULT: Sha256 = Sha256([0xD0; 32]);

/// The policies of a world: the built-in ones, or wild ones. Pure either way.
pub(super) fn policies(knobs: &Knobs, wild: bool, set: PolicySetId) -> Box<dyn Policies> {
    let builtin = Builtin::new(knobs.builtin.clone());
    let inner: Box<dyn Policies> =
        if wild { Box::new(super::wild::Wild(builtin.clone())) } else { Box::new(builtin.clone()) };
    Box::new(Signed { inner, builtin, set, wild })
}

/// Signs verdicts by the set that was asked. Wild ones fail for hours at a time, now and then.
struct Signed {
    inner: Box<dyn Policies>,
    builtin: Builtin,
    set: PolicySetId,
    wild: bool,
}

impl Signed {
    fn fault(&self, n: u64) -> Option<PolicyFault> {
        let faults = [PolicyFault::Trap, PolicyFault::Timeout, PolicyFault::Missing, PolicyFault::Shape];
        let which = usize::try_from(n / 64 % 4).expect("small");
        (self.wild && (n / 16).is_multiple_of(4)).then_some(faults[which])
    }

    fn sign<T>(&mut self, n: u64, ask: impl Fn(&mut dyn Policies) -> Ruling<T>) -> Ruling<T> {
        match self.fault(n) {
            Some(why) => {
                let by = Author::Builtin { instead_of: self.set, why };
                Ruling { by, ..ask(&mut self.builtin) }
            }
            None => Ruling { by: Author::Set(self.set), ..ask(&mut *self.inner) },
        }
    }
}

impl Policies for Signed {
    fn select(&mut self, situation: &Situation, candidates: &[Candidate]) -> Ruling<Vec<Chosen>> {
        self.sign(situation.minute_of_week.into(), |policies| policies.select(situation, candidates))
    }
    fn retry(&mut self, query: &RetryQuery) -> Ruling<RetryVerdict> {
        self.sign(query.seed % 128, |policies| policies.retry(query))
    }
    fn limits(&mut self, situation: &Situation) -> Ruling<UploadLimits> {
        self.sign(situation.minute_of_week.into(), |policies| policies.limits(situation))
    }
    fn budget(&mut self, situation: &Situation) -> Ruling<Bandwidth> {
        self.sign(situation.minute_of_week.into(), |policies| policies.budget(situation))
    }
    fn score(&mut self, situation: &Situation, waiting: &[Waiting]) -> Ruling<Ordering> {
        self.sign(situation.minute_of_week.into(), |policies| policies.score(situation, waiting))
    }
}

fn named(n: u8) -> Sha256 {
    if n.is_multiple_of(6) { DEFAULT } else { Sha256([n % 6; 32]) }
}

/// What the host says of a module. One serves a single hook, and one is never taken.
fn truth(op: &PolicyOp) -> PolicyReply {
    match op {
        PolicyOp::Admit { module } if module.0[0] == 5 => {
            PolicyReply::Rejected { slot: None, code: "imports".to_string(), why: "wasi".to_string() }
        }
        PolicyOp::Admit { module } => PolicyReply::Admitted(ModuleFacts {
            size: 9,
            name: format!("m{}", module.0[0]),
            version: "1".to_string(),
            summary: String::new(),
            slots: if module.0[0] == 4 { vec![Slot::Order] } else { Slot::ALL.to_vec() },
            patience_ms: 0,
            signed_by: None,
        }),
        PolicyOp::Prepare { set } => PolicyReply::Prepared(set.id()),
        PolicyOp::Retire { .. } | PolicyOp::Shadow(_) => PolicyReply::Done,
    }
}

impl World {
    /// The host answers one operation, mostly truthfully.
    pub(super) fn answer_policy(&mut self, a: u8, b: u8) -> Result<(), Broken> {
        let Some((ticket, op)) = self.policy_ops.first_key_value().map(|(t, op)| (*t, op.clone())) else {
            return Ok(());
        };
        let outcome = match b % 12 {
            0 => Outcome::Unknown,
            1 => Outcome::Failed(Fault::Local("broken".to_string())),
            2 => Outcome::Done(PolicyReply::Rejected {
                slot: Some(Slot::ALL[usize::from(a) % 5]),
                code: if a.is_multiple_of(2) { "unreadable" } else { "configure" }.to_string(),
                why: "so".to_string(),
            }),
            _ => Outcome::Done(truth(&op)),
        };
        self.policy_outcome(ticket, outcome)
    }

    /// The host answers one operation truthfully.
    pub(super) fn serve_policy(&mut self, ticket: Ticket) -> Result<(), Broken> {
        let Some(op) = self.policy_ops.get(&ticket).cloned() else { return Ok(()) };
        self.policy_outcome(ticket, Outcome::Done(truth(&op)))
    }

    /// An outcome comes; one that nobody waits for changes nothing.
    fn policy_outcome(&mut self, ticket: Ticket, outcome: Outcome<PolicyReply>) -> Result<(), Broken> {
        self.policy_ops.remove(&ticket);
        self.policy_past = Some((ticket, outcome.clone()));
        self.input(Input::Policy { ticket, outcome })
    }

    /// An outcome comes again.
    pub(super) fn policy_again(&mut self) -> Result<(), Broken> {
        let Some((ticket, outcome)) = self.policy_past.clone() else { return Ok(()) };
        let entries = self.journal.len();
        self.input(Input::Policy { ticket, outcome })?;
        let silent = self
            .journal
            .get(entries)
            .is_none_or(|entry| !matches!(entry.input, Input::Policy { .. }) || entry.changes.is_empty());
        demand("I14", silent, || format!("{ticket:?} did something again"))
    }

    /// Somebody moves modules about.
    pub(super) fn somebody_swaps(&mut self, a: u8, b: u8) -> Result<(), Broken> {
        let (module, slot) = (named(a), Slot::ALL[usize::from(a / 6) % 5]);
        let binding = Binding { module, settings: vec![] };
        let request = match b % 16 {
            0..=4 => PolicyRequest::Admit { module, size: 9 },
            5..=8 => PolicyRequest::Activate { slot, binding },
            9 => PolicyRequest::Reset { slot },
            10 => PolicyRequest::Shadow { slot, binding },
            11 if a.is_multiple_of(2) => PolicyRequest::ShadowEnd,
            11 => PolicyRequest::Remove { module },
            12 => PolicyRequest::Rollback { to: None },
            13 => PolicyRequest::Rollback { to: Some(u64::from(a % 8)) },
            14 if a.is_multiple_of(2) => PolicyRequest::Quarantine { module, reason: "odd".to_string() },
            _ => PolicyRequest::Unquarantine { module },
        };
        self.ask(Request::Policy(request)).map(|_| ())
    }

    /// I25: every verdict of a step is by the one set that the step was given, and only between steps another counts; it
    /// then has a generation. I26: whoever sits in a slot may be used, and a quarantine does not end by itself.
    pub(super) fn watch_policies(
        &self,
        given: PolicySetId,
        input: &Input,
        out: &Output,
        before: &BTreeMap<Key, Option<Row>>,
    ) -> Result<(), Broken> {
        for ruled in &out.rulings {
            demand("I25", ruled.by.set() == given, || format!("{ruled:?} is not by {given:?}"))?;
        }
        let generation = |row: Option<&Row>| match row {
            Some(Row::Policy(row)) => row.generation,
            _ => 0,
        };
        let now = generation(self.rows.get(&Key::Policy));
        let was = match before.get(&Key::Policy) {
            Some(row) => generation(row.as_ref()),
            None => now,
        };
        let turned = self.machine.active_policy() != given;
        demand("I25", now >= was, || format!("generation {was} became {now}"))?;
        demand("I25", !turned || now > was, || format!("another set is still generation {now}"))?;
        for (slot, seat) in Slot::ALL.into_iter().zip(&self.machine.active_set().seats) {
            let Seat::Module(binding) = seat else { continue };
            let row = match self.rows.get(&Key::Module(binding.module)) {
                Some(Row::Module(row)) => row,
                _ => return broken("I26", format!("{slot:?} has an unknown module")),
            };
            let admitted = row.state == ModuleState::Admitted || binding.module == DEFAULT;
            demand("I26", admitted && row.quarantined.is_none(), || format!("{slot:?} has {row:?}"))?;
        }
        for (key, row) in before {
            let Some(Row::Module(row)) = row else { continue };
            if row.quarantined.is_none() {
                continue;
            }
            let kept = matches!(self.rows.get(key), Some(Row::Module(now)) if now.quarantined.is_some());
            let taken_back = matches!(
                input,
                Input::Request { request: Request::Policy(PolicyRequest::Unquarantine { module }), .. }
                    if *key == Key::Module(*module)
            );
            demand("I26", kept || taken_back, || format!("{key:?} came out of quarantine"))?;
        }
        Ok(())
    }
}

/// What a run must have reached of all this.
pub(super) const EXPECTED: [(&str, &[&str]); 6] = [
    ("input", &["policy"]),
    (
        "request",
        &[
            "admit policy",
            "activate policy",
            "reset policy",
            "shadow policy",
            "end shadow policy",
            "roll policies back",
            "quarantine policy",
            "unquarantine policy",
            "remove policy",
        ],
    ),
    (
        "change",
        &[
            "policy.staged",
            "policy.admitted",
            "policy.rejected",
            "policy.activated",
            "policy.probed",
            "policy.faulted",
            "policy.reverted",
            "policy.quarantined",
            "policy.released",
            "policy.shadowed",
            "policy.shadow_ended",
            "policy.retired",
        ],
    ),
    ("effect", &["policy admit", "policy prepare", "policy retire", "policy shadow"]),
    ("module", &["staged", "admitted", "rejected"]),
    ("turn", &["configured", "activated", "reset", "rolled_back", "ejected"]),
];
