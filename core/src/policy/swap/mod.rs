//! The life of modules and of the set of policies: admitted, activated, on probation, ejected, quarantined. Decides who
//! is asked from the next step on; never asks a policy, and never holds the bytes of one.
//!
//! ```text
//! bytes ─► Staged ─► Admitted ─► (shadow) ─► prepared ─► active, on probation ─► good
//!                                                           │ K faults, or stalled, or an operator
//!                                                           ▼
//!                                        quarantined; its slots fall back: good ─► default ─► built-in rules
//! ```
//! A set that the host has not prepared when the process ends was never activated. A set that counts is prepared anew
//! at every boot; what cannot be prepared any more falls back the same way.

mod ladder;
mod state;
#[cfg(test)]
mod tests;
mod view;
mod wish;

pub use view::{Origin, PolicyNews, PolicyView, SeatView};

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;

use crate::bug::planted;
use crate::change::{Change, PolicyChange};
use crate::cx::Cx;
use crate::digest::Sha256;
use crate::effect::{Effect, Notice, PolicyOp, Response};
use crate::id::{PolicySetId, RequestId, Ticket};
use crate::input::PolicyReply;
use crate::knobs::Knobs;
use crate::limits;
use crate::outcome::Outcome;
use crate::policy::swap::state::State;
use crate::policy::{Active, Binding, ModuleFacts, PolicySet, Seat, Slot};
use crate::refusal::{Broken, Illegal, PolicyRefusal, Refusal};
use crate::row::{Blame, Key, ModuleState, PolicyRow, Row, Shadow, TurnWhat, shorten};
use crate::time::{Mono, Now};
use crate::timers::TimerKey;

/// Modules and the set of policies.
#[derive(Debug, Default)]
pub struct Swap {
    state: State,
    /// What the host was asked and did not answer yet.
    asked: BTreeMap<Ticket, Asked>,
    /// Whether the host said that the set is ready.
    settled: bool,
    /// Whether the host said that the shadow is as it must be.
    shadowing: bool,
    /// Questions the host did not answer, in a row.
    unanswered: u32,
    /// When to ask it again.
    again_at: Option<Mono>,
    /// When the probation is over; `None` also as long as the set on probation is not ready.
    trial_ends: Option<Now>,
    /// Answers of each slot in a row that took too long.
    timeouts: [u32; 5],
    /// Rulings of this step already looked at for that.
    heard: usize,
}

/// What the host was asked.
#[derive(Clone, Debug)]
enum Asked {
    /// To look at a module.
    Admit { module: Sha256, waiters: Vec<RequestId> },
    /// To prepare a set that somebody wants.
    Turn(Box<Wish>),
    /// To prepare the set that counts.
    Settle(PolicySetId),
    /// To let this module decide beside the set; `reply` is nobody if it is only told again.
    Shadow { shadow: Option<Shadow>, reply: Option<RequestId> },
    /// To remove bytes.
    Retire(Sha256),
}

/// A set that somebody wants.
#[derive(Clone, Debug)]
struct Wish {
    set: PolicySet,
    slots: Vec<(Slot, Binding)>,
    floored: Vec<(Slot, Sha256)>,
    what: TurnWhat,
    reply: RequestId,
}

impl Swap {
    /// Takes a record into memory.
    pub fn load(&mut self, key: &Key, row: Row) {
        self.state.load(key, row);
    }

    /// What a record is now.
    #[must_use]
    pub fn row(&self, key: &Key) -> Option<Row> {
        self.state.row(key)
    }

    /// Applies a change. Silent. Returns the records touched.
    pub fn apply(&mut self, change: &PolicyChange) -> Result<Vec<Key>, Illegal> {
        self.state.apply(change)
    }

    /// A new process knows only what is durable, and its own configuration.
    pub fn forget_volatile(&mut self, knobs: &Knobs) {
        let mut state = core::mem::take(&mut self.state);
        state.configure(knobs);
        *self = Swap { state, ..Swap::default() };
    }

    /// Who sits in which slot from the next step on.
    #[must_use]
    pub fn set(&self) -> &PolicySet {
        &self.state.set
    }

    /// The id of [`Swap::set`].
    #[must_use]
    pub fn id(&self) -> PolicySetId {
        self.state.id
    }

    /// Who would sit in which slot after a boot with this configuration.
    #[must_use]
    pub fn set_under(&self, knobs: &Knobs) -> PolicySet {
        self.state.set_under(knobs)
    }

    /// Who sits where, and how it came to that.
    #[must_use]
    pub fn policy_row(&self) -> &PolicyRow {
        &self.state.row
    }

    /// What an admitted module says of itself.
    #[must_use]
    pub fn facts(&self, module: Sha256) -> Option<&ModuleFacts> {
        self.state.modules.get(&module)?.facts.as_ref()
    }

    /// Who decides in the next step, as far as the other machines need to know. A module that nobody looked at yet goes
    /// by its hash.
    #[must_use]
    pub fn active(&self) -> Active {
        let mut active = Active::native(self.state.set.floor.clone());
        active.set = self.state.id;
        active.seats = self.state.set.seats.clone();
        active.retry_sets = Vec::from([self.state.id]);
        for (n, slot) in Slot::ALL.into_iter().enumerate() {
            let Seat::Module(binding) = self.state.set.seat(slot) else { continue };
            active.since[n] = self.state.row.chosen_since(slot, binding);
            if slot == Slot::Retry {
                active.retry_sets.extend(self.state.row.sets_with(slot, binding));
            }
            let module = binding.module;
            let facts = self.facts(module);
            active.modules[n] = Some(module);
            active.names[n] = facts.map_or_else(|| module.to_string(), |facts| facts.name.clone());
            active.patience_ms[n] = facts.map_or(0, |facts| facts.patience_ms);
        }
        active
    }

    /// A step begins: it has no rulings yet.
    pub(crate) fn begin_step(&mut self) {
        self.heard = 0;
    }

    /// Takes up what the records leave open.
    pub(crate) fn on_boot(&mut self, cx: &mut Cx<'_>) {
        if planted!(cx.knobs, X29) {
            self.state.modules.values_mut().for_each(|row| row.quarantined = None);
        }
        if planted!(cx.knobs, X31) {
            self.state.row.faults.clear();
        }
        let row = &self.state.row;
        // A site that never had a module has no generation.
        let never = row.set.is_none() && (self.state.default.is_none() || self.state.native);
        let slots = row.slots.clone();
        let floored = self.state.floored(&slots);
        // Another default module, or one again after none: the same set may rest on other grounds.
        let stale = self.state.default.is_some() && row.floored != floored;
        if !never && (row.set != Some(self.state.id) || stale) {
            self.turn(cx, TurnWhat::Configured, slots, floored);
        }
        if let Some(module) = self.state.default
            && !self.state.native
            && let Some(size) = self.default_to_stage(module)
        {
            // Where every other one is quarantined it comes all the same: it came with the program.
            self.make_room(cx, module);
            self.record(cx, PolicyChange::Staged { module, size, at: cx.now.wall });
        }
        // A new process has no shadow: it need not be told that there is none.
        self.shadowing = self.state.row.shadow.is_none();
        self.ask_open(cx);
        // A site that was off decided nothing meanwhile: whatever the clock on the wall says, a trial is a whole one.
        self.time_trial(cx, true);
        self.tell(cx, PolicyNews::Booted);
    }

    /// The default module is looked at like any other. One that was not taken by an earlier program may be by this one.
    fn default_to_stage(&self, module: Sha256) -> Option<u64> {
        match self.state.modules.get(&module) {
            None => Some(0),
            Some(row) => match row.state {
                ModuleState::Rejected { .. } if row.quarantined.is_none() => Some(row.size),
                ModuleState::Rejected { .. } | ModuleState::Staged | ModuleState::Admitted => None,
            },
        }
    }

    /// The site stops: whoever waits is told so, and what was being prepared never happened.
    pub(crate) fn on_shutdown(&mut self, cx: &mut Cx<'_>) {
        for (_, asked) in core::mem::take(&mut self.asked) {
            for reply in waiting(&asked) {
                cx.reply(reply, Err(Refusal::Stopping));
            }
        }
        self.again_at = None;
        self.arm(cx);
    }

    /// A probation is over, or the host is to be asked again.
    pub(crate) fn on_due(&mut self, cx: &mut Cx<'_>) {
        let due = |at: Option<Mono>| at.is_some_and(|at| at <= cx.now.mono);
        let (over, again) = (due(self.trial_ends.map(|at| at.mono)), due(self.again_at));
        if over {
            self.trial_ends = None;
            if self.state.row.probation.is_some() && !planted!(cx.knobs, X32) {
                self.record(cx, PolicyChange::Probed { at: cx.now.wall });
                self.tell(cx, PolicyNews::Probed);
            }
        }
        if again {
            self.again_at = None;
            self.ask_open(cx);
        }
        self.arm(cx);
    }

    /// An operation ended. Returns false if nobody waits for it (any more).
    pub(crate) fn on_outcome(
        &mut self,
        cx: &mut Cx<'_>,
        ticket: Ticket,
        outcome: &Outcome<PolicyReply>,
    ) -> bool {
        let Some(asked) = self.asked.remove(&ticket) else { return false };
        match outcome {
            Outcome::Done(reply) => self.answered(cx, asked, reply),
            Outcome::Failed(fault) => self.lost(cx, asked, fault.code()),
            Outcome::Unknown => self.lost(cx, asked, "no answer"),
        }
        true
    }

    /// The outcome of an operation is not looked at: as if none had come. Returns false if nobody waits for it.
    pub(crate) fn on_quarantined(&mut self, cx: &mut Cx<'_>, ticket: Ticket, reason: &str) -> bool {
        let Some(asked) = self.asked.remove(&ticket) else { return false };
        self.lost(cx, asked, reason);
        true
    }

    fn answered(&mut self, cx: &mut Cx<'_>, asked: Asked, reply: &PolicyReply) {
        match (asked, reply) {
            (asked, PolicyReply::Rejected { code, .. }) if NOT_NOW.contains(&code.as_str()) => {
                self.lost(cx, asked, code);
            }
            (Asked::Admit { module, waiters }, PolicyReply::Admitted(facts)) => {
                self.heard_from_host(cx);
                self.admitted(cx, module, facts);
                for id in waiters {
                    self.accept(cx, id);
                }
            }
            (Asked::Admit { module, waiters }, PolicyReply::Rejected { code, why, .. }) => {
                self.heard_from_host(cx);
                let (code, why) = (word(code), words(why));
                self.reject(cx, module, &code, &why);
                for id in waiters {
                    refuse(cx, id, PolicyRefusal::Rejected { module, code: code.clone(), why: why.clone() });
                }
            }
            (Asked::Turn(wish), PolicyReply::Prepared(id)) if wish.set.id() == *id => {
                self.heard_from_host(cx);
                let wish = *wish;
                self.turn(cx, wish.what, wish.slots, wish.floored);
                self.accept(cx, wish.reply);
            }
            (Asked::Turn(wish), PolicyReply::Rejected { .. }) if planted!(cx.knobs, X33) => {
                let wish = *wish;
                self.turn(cx, wish.what, wish.slots, wish.floored);
                self.accept(cx, wish.reply);
            }
            (Asked::Turn(wish), PolicyReply::Rejected { slot: Some(slot), code, why })
                if wish.set.module(*slot).is_some() =>
            {
                self.heard_from_host(cx);
                let module = wish.set.module(*slot).expect("just looked at");
                let (code, why) = (word(code), words(why));
                refuse(cx, wish.reply, PolicyRefusal::Rejected { module, code, why });
            }
            (Asked::Settle(set), PolicyReply::Prepared(id)) if set == *id && set == self.state.id => {
                self.heard_from_host(cx);
                self.settled = true;
                self.time_trial(cx, true);
                self.tell(cx, PolicyNews::Prepared);
            }
            (Asked::Settle(set), PolicyReply::Rejected { slot: Some(slot), code, why })
                if set == self.state.id && self.state.set.module(*slot).is_some() =>
            {
                self.heard_from_host(cx);
                let module = self.state.set.module(*slot).expect("just looked at");
                let (code, why) = (word(code), words(why));
                if NOT_ITS_DOING.contains(&code.as_str()) {
                    self.reject(cx, module, &code, &why);
                } else {
                    self.quarantine(cx, module, Some(*slot), Blame::Refused { code, why });
                }
            }
            (Asked::Shadow { shadow, reply }, PolicyReply::Done) => {
                self.heard_from_host(cx);
                self.shadowing = true;
                let Some(id) = reply else { return };
                if let Some(shadow) = shadow {
                    let news = PolicyNews::Shadowed { slot: shadow.slot, module: shadow.binding.module };
                    self.record(cx, PolicyChange::Shadowed(shadow));
                    self.tell(cx, news);
                    // The host may have been told meanwhile that the one before it ended.
                    if self.is_shadow_asked() {
                        self.forget_shadow_asked();
                        let shadow = self.state.row.shadow.clone();
                        self.ask_shadow(cx, shadow, None);
                    }
                }
                self.accept(cx, id);
            }
            (Asked::Shadow { shadow: Some(shadow), reply }, PolicyReply::Rejected { code, why, .. }) => {
                self.heard_from_host(cx);
                let module = shadow.binding.module;
                let (code, why) = (word(code), words(why));
                match reply {
                    Some(id) => {
                        refuse(cx, id, PolicyRefusal::Rejected { module, code, why });
                        // The answer about the one that is recorded may not have been waited for.
                        let shadow = self.state.row.shadow.clone();
                        self.ask_shadow(cx, shadow, None);
                    }
                    // It did once; it cannot any more, and nothing depends on it.
                    None => self.end_shadow(cx),
                }
            }
            (Asked::Retire(_), _) => {}
            (asked, _) => self.lost(cx, asked, "another answer than was asked for"),
        }
    }

    /// Nobody knows how it ended. Nothing is changed; what must happen is asked for again.
    fn lost(&mut self, cx: &mut Cx<'_>, asked: Asked, why: &str) {
        let why = words(why);
        for id in waiting(&asked) {
            refuse(cx, id, PolicyRefusal::Unanswered(why.clone()));
        }
        match asked {
            Asked::Admit { .. } => {}
            Asked::Settle(_) => self.tell(cx, PolicyNews::Unprepared(why)),
            // It may have been let in, or the one before may be gone.
            Asked::Shadow { .. } => self.shadowing = false,
            Asked::Turn(_) | Asked::Retire(_) => return,
        }
        let wait = limits::POLICY_RETRY_MIN
            .saturating_mul(1 << self.unanswered.min(16))
            .min(limits::POLICY_RETRY_MAX);
        self.unanswered = self.unanswered.saturating_add(1);
        if !cx.stopping {
            self.again_at = Some(cx.now.mono.after(wait));
        }
        self.arm(cx);
    }

    fn heard_from_host(&mut self, cx: &mut Cx<'_>) {
        self.unanswered = 0;
        self.arm(cx);
    }

    fn admitted(&mut self, cx: &mut Cx<'_>, module: Sha256, facts: &ModuleFacts) {
        let mut facts = facts.clone();
        for text in [&mut facts.name, &mut facts.version, &mut facts.summary] {
            *text = words(text);
        }
        self.record(cx, PolicyChange::Admitted { module, facts: Box::new(facts), at: cx.now.wall });
        self.tell(cx, PolicyNews::Admitted(module));
    }

    /// Asks the host for everything that must be so and is not known to be.
    fn ask_open(&mut self, cx: &mut Cx<'_>) {
        if cx.stopping {
            return;
        }
        if self.state.native {
            // There is nobody to ask, and what is open stays so until there is.
            self.settle(cx);
            return;
        }
        if !self.settled && !self.asked.values().any(|asked| matches!(asked, Asked::Settle(_))) {
            self.settle(cx);
        }
        let staged: Vec<Sha256> = self
            .state
            .modules
            .iter()
            .filter(|(module, row)| row.state == ModuleState::Staged && !self.is_admitting(**module))
            .map(|(module, _)| *module)
            .collect();
        for module in staged {
            self.ask(cx, Asked::Admit { module, waiters: Vec::new() }, PolicyOp::Admit { module });
        }
        if !self.shadowing && !self.is_shadow_asked() {
            let shadow = self.state.row.shadow.clone();
            self.ask_shadow(cx, shadow, None);
        }
    }

    /// Asks for the set that counts; once is enough. A set without modules is always ready.
    fn settle(&mut self, cx: &mut Cx<'_>) {
        self.forget_settle();
        self.settled = self.state.set.seats.iter().all(|seat| *seat == Seat::Floor);
        if !self.settled && !cx.stopping {
            let set = Box::new(self.state.set.clone());
            self.ask(cx, Asked::Settle(self.state.id), PolicyOp::Prepare { set });
        }
    }

    fn forget_settle(&mut self) {
        self.asked.retain(|_, asked| !matches!(asked, Asked::Settle(_)));
    }

    fn ask_shadow(&mut self, cx: &mut Cx<'_>, shadow: Option<Shadow>, reply: Option<RequestId>) {
        self.shadowing = false;
        let told = shadow.as_ref().map(|shadow| (shadow.slot, shadow.binding.clone()));
        self.ask(cx, Asked::Shadow { shadow, reply }, PolicyOp::Shadow(told));
    }

    fn ask(&mut self, cx: &mut Cx<'_>, asked: Asked, op: PolicyOp) {
        let ticket = cx.number();
        self.asked.insert(ticket, asked);
        cx.effect(Effect::Policy { ticket, op });
    }

    fn is_admitting(&self, module: Sha256) -> bool {
        self.asked.values().any(|asked| matches!(asked, Asked::Admit { module: m, .. } if *m == module))
    }

    fn is_shadow_asked(&self) -> bool {
        self.asked.values().any(|asked| matches!(asked, Asked::Shadow { .. }))
    }

    fn end_shadow(&mut self, cx: &mut Cx<'_>) {
        if self.state.row.shadow.is_some() {
            self.record(cx, PolicyChange::ShadowEnded);
            self.tell(cx, PolicyNews::ShadowEnded);
        }
        if !cx.stopping && !self.state.native {
            self.ask_shadow(cx, None, None);
        }
    }

    /// One timer for both waits.
    fn arm(&self, cx: &mut Cx<'_>) {
        match self.trial_ends.map(|at| at.mono).into_iter().chain(self.again_at).min() {
            Some(at) => cx.arm_at(TimerKey::Policy, at),
            None => cx.disarm(&TimerKey::Policy),
        }
    }

    fn record(&mut self, cx: &mut Cx<'_>, change: PolicyChange) {
        let touched = self.state.apply(&change);
        let touched = touched.unwrap_or_else(|illegal| panic!("I26: policies were asked to {illegal:?}"));
        cx.record(Change::Policy(change), touched);
    }

    fn tell(&self, cx: &mut Cx<'_>, news: PolicyNews) {
        cx.publish(Notice::Policy { news, view: Box::new(self.view()) });
    }

    fn accept(&self, cx: &mut Cx<'_>, id: RequestId) {
        cx.reply(id, Ok(Response::Policy(Box::new(self.view()))));
    }

    /// Adds whom an operation is about to a text, in words that are the same in every boot.
    pub(crate) fn about(&self, ticket: Ticket, text: &mut String) {
        let words = match self.asked.get(&ticket) {
            Some(Asked::Admit { module, .. }) => alloc::format!("admission of module {module}"),
            Some(Asked::Turn(wish)) => alloc::format!("preparation of policies {:?}", wish.set.id()),
            Some(Asked::Settle(set)) => alloc::format!("preparation of policies {set:?}"),
            Some(Asked::Shadow { shadow: Some(shadow), .. }) => {
                alloc::format!("shadow of module {}", shadow.binding.module)
            }
            Some(Asked::Shadow { shadow: None, .. }) => "end of a shadow".to_string(),
            Some(Asked::Retire(module)) => alloc::format!("removal of module {module}"),
            None => String::new(),
        };
        text.push_str(&words);
    }

    /// Checks the invariants of modules and the set.
    pub fn check(&self) -> Result<(), Broken> {
        self.state.check()?;
        let wishes = self.asked.values().filter(|asked| matches!(asked, Asked::Turn(_))).count();
        if wishes > 1 {
            let saw = alloc::format!("{wishes} sets are being prepared to be activated");
            return Err(Broken { invariant: "I25", saw });
        }
        if self.trial_ends.is_some() && self.state.row.probation.is_none() {
            return Err(Broken { invariant: "I26", saw: "nobody is on a probation that ends".to_string() });
        }
        Ok(())
    }
}

/// The host's words for what keeps a module out that was admitted once and did not change since: its bytes are not there
/// or not what they were, the site was told to take signed ones only or smaller ones, or another program runs it. It loses
/// its slots and may come again.
const NOT_ITS_DOING: [&str; 10] = [
    "unreadable",
    "signature",
    "too_large",
    "not_a_component",
    "imports",
    "version",
    "types",
    "no_hook",
    "compile",
    "limits",
];

/// The host's words for what says nothing about a module: it has no time for it, or runs none. It is asked again.
const NOT_NOW: [&str; 2] = ["timeout", "native"];

fn refuse(cx: &mut Cx<'_>, id: RequestId, refusal: PolicyRefusal) {
    cx.reply(id, Err(Refusal::Policy(refusal)));
}

fn waiting(asked: &Asked) -> Vec<RequestId> {
    match asked {
        Asked::Admit { waiters, .. } => waiters.clone(),
        Asked::Turn(wish) => Vec::from([wish.reply]),
        Asked::Shadow { reply, .. } => reply.iter().copied().collect(),
        Asked::Settle(_) | Asked::Retire(_) => Vec::new(),
    }
}

fn word(text: &str) -> String {
    shorten(text, limits::WORD_BYTES)
}

fn words(text: &str) -> String {
    shorten(text, limits::REASON_BYTES)
}

fn trial_time(cx: &Cx<'_>) -> Duration {
    Duration::from_millis(cx.knobs.probation_ms)
}
