//! Everything a machine may touch during a step besides itself.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::string::String;
use core::time::Duration;

use crate::chance::Chance;
use crate::change::Change;
use crate::effect::{Effect, Frame, Notice, Output, Response};
use crate::fact::Fact;
use crate::id::{Boot, ConnId, RequestId, Ticket};
use crate::knobs::Knobs;
use crate::object::ObjectOp;
use crate::policy::{
    Active, Author, Builtin, Clamped, Decision, Policies, PolicyFault, Question, Ruled, Ruling, Situation,
    Verdict,
};
use crate::quarantine;
use crate::refusal::Refusal;
use crate::row::Key;
use crate::time::{Mono, Now};
use crate::timers::{TimerKey, Timers};

/// Which machine waits for an object operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Owner {
    /// Verification and removal of recordings.
    Tasks,
    /// Uploads.
    Uploads,
}

/// Outstanding object operations, and the only maker of tickets.
#[derive(Clone, Debug)]
pub struct Tickets {
    boot: Boot,
    next: u64,
    open: BTreeMap<Ticket, Open>,
}

/// An outstanding operation.
#[derive(Clone, Debug)]
struct Open {
    owner: Owner,
    about: String,
}

impl Tickets {
    /// None outstanding in this boot.
    #[must_use]
    pub fn new(boot: Boot) -> Tickets {
        Tickets { boot, next: 1, open: BTreeMap::new() }
    }

    /// The boot that asks.
    #[must_use]
    pub fn boot(&self) -> Boot {
        self.boot
    }

    /// Takes the owner of an outcome; `None` if nobody waits for it (any more).
    pub fn take(&mut self, ticket: Ticket) -> Option<Owner> {
        self.open.remove(&ticket).map(|open| open.owner)
    }

    /// What an outstanding operation is, in words that are the same in every boot; empty if there is none.
    #[must_use]
    pub fn about(&self, ticket: Ticket) -> &str {
        self.open.get(&ticket).map_or("", |open| open.about.as_str())
    }

    /// Operations outstanding.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open.len()
    }
}

/// What a machine may touch during a step.
pub struct Cx<'a> {
    /// Both clocks.
    pub now: Now,
    /// Configuration.
    pub knobs: &'a Knobs,
    /// The site at the start of the step, for policies. The queue corrects its own counts.
    pub situation: Situation,
    /// Who sits in the slots.
    pub active: &'a Active,
    /// Whether the site is stopping: begin nothing.
    pub stopping: bool,
    pub(crate) timers: &'a mut Timers,
    pub(crate) chance: &'a mut Chance,
    /// Chances for questions about the situation, apart from the others: how often policies are asked moves no delay.
    pub(crate) seeds: &'a mut Chance,
    pub(crate) tickets: &'a mut Tickets,
    pub(crate) facts: &'a mut VecDeque<Fact>,
    pub(crate) touched: &'a mut BTreeSet<Key>,
    pub(crate) policies: &'a mut dyn Policies,
    pub(crate) out: &'a mut Output,
}

impl Cx<'_> {
    /// The boot.
    #[must_use]
    pub fn boot(&self) -> Boot {
        self.tickets.boot
    }

    /// Journals a change that the machine has just applied to itself, and the records it touched.
    pub fn record(&mut self, change: Change, touched: impl IntoIterator<Item = Key>) {
        self.touched.extend(touched);
        self.out.changes.push(change);
    }

    /// Asks for an object operation; its outcome comes back to `owner` under the ticket.
    pub fn ask(&mut self, owner: Owner, op: ObjectOp) -> Ticket {
        let ticket = self.number();
        let about = quarantine::about_operation(&op);
        self.tickets.open.insert(ticket, Open { owner, about });
        self.out.effects.push(Effect::Object { ticket, op });
        ticket
    }

    /// No longer waits for an operation: its outcome will be counted and dropped.
    pub fn forget(&mut self, ticket: Ticket) {
        self.tickets.open.remove(&ticket);
    }

    /// A fresh ticket for something that is not an object operation.
    pub fn number(&mut self) -> Ticket {
        let ticket = Ticket { boot: self.tickets.boot, n: self.tickets.next };
        self.tickets.next += 1;
        ticket
    }

    /// Sends a frame.
    pub fn send(&mut self, conn: ConnId, frame: Frame) {
        self.out.effects.push(Effect::Send { conn, frame });
    }

    /// Answers a request. Exactly once per request.
    pub fn reply(&mut self, to: RequestId, answer: Result<Response, Refusal>) {
        self.out.effects.push(Effect::Reply { to, answer });
    }

    /// Tells viewers.
    pub fn publish(&mut self, notice: Notice) {
        self.out.effects.push(Effect::Publish(notice));
    }

    /// Any other effect.
    pub fn effect(&mut self, effect: Effect) {
        self.out.effects.push(effect);
    }

    /// Tells the other machines, later in this step.
    pub fn tell(&mut self, fact: Fact) {
        self.facts.push_back(fact);
    }

    /// Arms a deadline `after` from now, replacing an earlier one.
    pub fn arm(&mut self, key: TimerKey, after: Duration) {
        self.timers.set(key, self.now.mono.after(after));
    }

    /// Arms a deadline at a moment.
    pub fn arm_at(&mut self, key: TimerKey, at: Mono) {
        self.timers.set(key, at);
    }

    /// Disarms a deadline.
    pub fn disarm(&mut self, key: &TimerKey) {
        self.timers.stop(key);
    }

    /// When a deadline goes off.
    #[must_use]
    pub fn armed(&self, key: &TimerKey) -> Option<Mono> {
        self.timers.armed(key)
    }

    /// Seeded chance.
    pub fn chance(&mut self) -> &mut Chance {
        self.chance
    }

    /// The situation as the next question of a policy has it: with a seed of its own and this memo.
    pub fn asked(&mut self, memo: u64) -> Situation {
        Situation { memo, seed: self.seeds.next_u64(), ..self.situation.clone() }
    }

    /// Asks the policies, and records the decision after `clamp` made the verdict safe. Says so if the built-in rules had
    /// to answer.
    pub fn rule<R: Clone + Into<Verdict>, V>(
        &mut self,
        question: Question,
        ask: impl FnOnce(&mut dyn Policies) -> Ruling<R>,
        clamp: impl FnOnce(R) -> Clamped<V>,
    ) -> (V, Author) {
        let ruling = ask(self.policies);
        if let Author::Builtin { why, .. } = ruling.by {
            self.tell(Fact::PolicyFaulted { slot: question.slot(), why });
        }
        self.decide(question, ruling, clamp)
    }

    /// Has the built-in rules answer in the place of a policy that put everything off for too long, and says so.
    pub fn overrule<R: Clone + Into<Verdict>, V>(
        &mut self,
        question: Question,
        ask: impl FnOnce(&mut dyn Policies) -> Ruling<R>,
        clamp: impl FnOnce(R) -> Clamped<V>,
    ) -> (V, Author) {
        let mut ruling = ask(&mut Builtin::new(self.knobs.builtin.clone()));
        ruling.by = Author::Builtin { instead_of: self.active.set, why: PolicyFault::Stalled };
        self.tell(Fact::PolicyStalled { slot: question.slot() });
        self.decide(question, ruling, clamp)
    }

    fn decide<R: Clone + Into<Verdict>, V>(
        &mut self,
        question: Question,
        ruling: Ruling<R>,
        clamp: impl FnOnce(R) -> Clamped<V>,
    ) -> (V, Author) {
        let Clamped { verdict, text, reason, clamped } = clamp(ruling.verdict.clone());
        let (slot, reason) = (question.slot(), String::from(ruling.word(reason)));
        self.out.rulings.push(Ruled {
            slot,
            by: ruling.by.clone(),
            verdict: text.clone(),
            reason: Some(reason.clone()),
            clamped: Some(clamped),
        });
        self.out.decisions.push(Decision {
            set: ruling.by.set(),
            by: ruling.by.clone(),
            module: self.active.module(slot),
            question,
            verdict: ruling.verdict.into(),
            enacted: text,
            reason,
            clamped,
        });
        (verdict, ruling.by)
    }
}
