//! Invariants of policies: each decision has one author and one set, and that set was active (I25); whatever becomes of a
//! module, there is always somebody who rules, and what is barred stays barred (I26); what is valid and asked for comes
//! to rule (L6).
//!
//! The ladder is written here once more, from the decisions: what counts as a fault, when a module is ejected, and who
//! takes its place.

use std::collections::BTreeMap;
use std::time::Duration;

use tidegate_core::change::{Change, JobChange, PolicyChange};
use tidegate_core::digest::Sha256;
use tidegate_core::effect::{CloseWhy, Effect, PolicyOp};
use tidegate_core::id::{PolicySetId, RequestId, Ticket};
use tidegate_core::input::{Input, PolicyReply, PolicyRequest, Request};
use tidegate_core::outcome::Outcome;
use tidegate_core::policy::{
    Author, Binding, Builtin, Decision, Policies, PolicyFault, PolicySet, Question, RetryQuery, Seat, Slot,
    Verdict,
};
use tidegate_core::row::{Blame, Key, ModuleRow, ModuleState, PolicyRow, Probation, Row, Turn, TurnWhat};
use tidegate_core::time::Mono;

use super::faults::Record;
use super::rows::{Image, Sites};
use super::{Broken, Happened, Premises, Seen, Truth, Watch, demand, seats};

/// How long somebody who asks something of policies may wait for an answer, from a site that runs: admission, preparation
/// and a host that answers nothing.
const ANSWER_MAX: Duration = Duration::from_secs(600);

/// How long a set that rules may not be ready: the longest time for which a plan's host does not answer, and the longest
/// wait before it is asked again.
const READY_MAX: Duration = Duration::from_secs(1_500);
/// Milliseconds may be cut off where a wait becomes a time on the wall.
const SLACK: Duration = Duration::from_millis(2);

/// A trial as this watch knows it.
#[derive(Clone, Debug)]
struct Trial {
    what: Probation,
    /// Since when in this boot: what ran before it counts for nothing.
    since: Mono,
    /// Since when it should be over.
    late: Option<Mono>,
}

/// A set that is being made ready because somebody wants it to rule.
#[derive(Clone, Copy, Debug)]
struct Wish {
    set: PolicySetId,
    /// The set that ruled when it was asked for.
    on: PolicySetId,
}

#[derive(Debug, Default)]
struct Site {
    /// By slot and module, as long as the module sits there.
    records: BTreeMap<(Slot, Sha256), Record>,
    /// What each module noted last under a hook, in this boot; the native rules and the floor note nothing.
    memos: BTreeMap<Slot, (Option<String>, u64)>,
    wishes: BTreeMap<Ticket, Wish>,
    /// Who asked something and was not answered yet, and since when.
    waiting: BTreeMap<RequestId, Mono>,
    /// What each retry policy noted of each job, at its last failure.
    noted: BTreeMap<u64, (Option<String>, u64)>,
    /// The trial that runs.
    trial: Option<Trial>,
    /// The last question to make each set ready, in this boot.
    prepares: BTreeMap<PolicySetId, Ticket>,
    /// Since when the set that counts is ready without a break, in this boot.
    ready: Option<Mono>,
    /// Whether this boot was told to stop: nothing is made ready any more.
    stopping: bool,
    /// Since when the set that counts is not ready, and which that is.
    unready: Option<(PolicySetId, Mono)>,
}

/// Watches policies.
#[derive(Debug, Default)]
pub struct PolicyWatch {
    premises: Premises,
    sites: Sites<Site>,
}

fn module(row: Option<&Row>) -> Option<&ModuleRow> {
    match row {
        Some(Row::Module(row)) => Some(row),
        _ => None,
    }
}

/// Whether a module may sit somewhere. The default module came with the program, and may before anybody looked at it.
fn is_usable(seen: &Seen<'_>, row: Option<&Row>, hash: Sha256) -> bool {
    match module(row) {
        Some(row) if row.quarantined.is_some() => false,
        Some(row) if seen.knobs.default_module == Some(hash) => {
            !matches!(row.state, ModuleState::Rejected { .. })
        }
        Some(row) => row.state == ModuleState::Admitted,
        None => seen.knobs.default_module == Some(hash),
    }
}

/// What the built-in rules say of a question.
fn floor(seen: &Seen<'_>, question: &Question) -> Verdict {
    let mut floor = Builtin::new(seen.knobs.builtin.clone());
    match question {
        Question::AutoScan(situation, candidates) => floor.select(situation, candidates).verdict.into(),
        Question::Retry(query) => floor.retry(query).verdict.into(),
        Question::Concurrency(situation) => floor.limits(situation).verdict.into(),
        Question::Bandwidth(situation) => floor.budget(situation).verdict.into(),
        Question::Order(situation, waiting) => floor.score(situation, waiting).verdict.into(),
    }
}

impl Site {
    /// I25: all decisions of a step are by the set that was active when it began, each by one author, each written down.
    fn decided(&self, seen: &Seen<'_>, set: &PolicySet, premises: &mut Premises) -> Result<(), Broken> {
        let active = set.id();
        let (decisions, rulings) = (&seen.out.decisions, &seen.out.rulings);
        let same = decisions.len() == rulings.len()
            && decisions.iter().zip(rulings).all(|(d, r)| (d.question.slot(), &d.by) == (r.slot, &r.by));
        demand("I25", same, || format!("decided {decisions:?}, and wrote down {rulings:?}"))?;
        for decision in decisions {
            let slot = decision.question.slot();
            premises.met("I25.one");
            let one = decision.set == active && decision.by.set() == active;
            demand("I25", one, || {
                format!("{} is ruled by {:?}, not by {active:?}", slot.name(), decision.by)
            })?;
            demand("I25", decision.module == set.module(slot), || {
                format!("{} is said to be ruled by {:?} of {set:?}", slot.name(), decision.module)
            })?;
            self.answered(seen, set, decision, premises)?;
        }
        Ok(())
    }

    /// I26: where a module cannot answer, the built-in rules do, and nobody else; one that is barred says nothing.
    fn answered(
        &self,
        seen: &Seen<'_>,
        set: &PolicySet,
        decision: &Decision,
        premises: &mut Premises,
    ) -> Result<(), Broken> {
        let slot = decision.question.slot();
        match &decision.by {
            Author::Builtin { why, .. } => {
                premises.met("I26.floor");
                let says = floor(seen, &decision.question);
                demand("I26", decision.verdict == says, || {
                    format!("{}: {why:?}, and {:?} rules instead of {says:?}", slot.name(), decision.verdict)
                })
            }
            Author::Set(_) => {
                let Some(hash) = set.module(slot) else { return Ok(()) };
                premises.met("I26.usable");
                let usable = is_usable(seen, seen.was(&Key::Module(hash)), hash);
                demand("I26", usable, || {
                    format!("{} is ruled by {:?}", slot.name(), seen.was(&Key::Module(hash)))
                })
            }
        }
    }

    /// The name of a policy: what memos belong to. The native rules have none.
    fn name(seen: &Seen<'_>, set: &PolicySet, slot: Slot) -> Option<String> {
        let hash = set.module(slot)?;
        let facts = module(seen.was(&Key::Module(hash))).and_then(|row| row.facts.as_ref());
        Some(facts.map_or_else(|| format!("{hash}"), |facts| facts.name.clone()))
    }

    /// I25: a policy is given back what it noted itself, and nothing of another one.
    fn memos(&mut self, seen: &Seen<'_>, set: &PolicySet, premises: &mut Premises) -> Result<(), Broken> {
        for decision in &seen.out.decisions {
            let slot = decision.question.slot();
            let given = match &decision.question {
                Question::Concurrency(situation) | Question::Bandwidth(situation) => situation.memo,
                Question::Retry(query) => {
                    self.memo(seen, set, decision, query, premises)?;
                    continue;
                }
                Question::AutoScan(..) | Question::Order(..) => continue,
            };
            let name = Self::name(seen, set, slot);
            let noted = self.memos.get(&slot).filter(|(of, _)| *of == name).map_or(0, |(_, memo)| *memo);
            if given != 0 {
                premises.met("I25.memo");
            }
            demand("I25", given == noted, || {
                format!("{} of {name:?} is given {given}, and noted {noted}", slot.name())
            })?;
            let notes = match (&decision.by, &decision.verdict) {
                (Author::Set(_), Verdict::Concurrency(limits)) => limits.memo,
                (Author::Set(_), Verdict::Bandwidth(budget)) => budget.memo,
                // Whoever fails notes nothing; what it noted before may come back.
                _ => continue,
            };
            self.memos.insert(slot, (name, notes));
        }
        Ok(())
    }

    /// The same of a job, across restarts.
    fn memo(
        &mut self,
        seen: &Seen<'_>,
        set: &PolicySet,
        decision: &Decision,
        query: &RetryQuery,
        premises: &mut Premises,
    ) -> Result<(), Broken> {
        let name = Self::name(seen, set, Slot::Retry);
        let noted = self.noted.get(&query.job).filter(|(of, _)| *of == name).map_or(0, |(_, memo)| *memo);
        if query.memo != 0 {
            premises.met("I25.job_memo");
        }
        demand("I25", query.memo == noted, || {
            format!("retry of {name:?} is given {} for job {}, and noted {noted}", query.memo, query.job)
        })?;
        if let (Author::Set(_), Verdict::Retry(verdict)) = (&decision.by, &decision.verdict) {
            self.noted.insert(query.job, (name, verdict.memo));
        }
        Ok(())
    }

    /// L6: a trial ends when its time is up, and not before; what rules is made ready, however long the host sleeps.
    fn settled(&mut self, seen: &Seen<'_>, set: &PolicySet, premises: &mut Premises) -> Result<(), Broken> {
        let now = seen.now.mono;
        let trial = seats::policy(seen.rows.get(&Key::Policy)).and_then(|row| row.probation.clone());
        let span = Duration::from_millis(seen.knobs.probation_ms);
        let probed = policy_changes(seen).any(|change| matches!(change, PolicyChange::Probed { .. }));
        if probed {
            premises.met("L6.trial");
        }
        if probed && let Some(trial) = &self.trial {
            // Of a site that runs, with the set ready: what was not asked proved nothing.
            let ran = self.ready.map_or(Duration::ZERO, |ready| ready.max(trial.since).until(now));
            demand("I26", ran + SLACK >= span, || format!("a trial of {span:?} is over after {ran:?}"))?;
        }
        self.trial = match (trial, self.trial.take()) {
            (None, _) => None,
            (Some(new), Some(old)) if (old.what.since, old.what.until) == (new.since, new.until) => {
                Some(Trial { what: new, ..old })
            }
            (Some(what), _) => Some(Trial { what, since: now, late: None }),
        };
        self.readied(seen, set);
        let (ready, stopping) = (self.ready, self.stopping);
        let over = |trial: &&mut Trial| {
            !stopping && ready.is_some_and(|ready| ready.max(trial.since).after(span) <= now)
        };
        if let Some(trial) = self.trial.as_mut().filter(over) {
            // A site that stood still catches up first.
            let late = *trial.late.get_or_insert(now);
            demand("L6", late.after(Duration::from_secs(1)) > now, || format!("{trial:?} does not end"))?;
        }
        for decision in &seen.out.decisions {
            let active = set.id();
            match decision.by {
                Author::Builtin { why: PolicyFault::Missing, .. } => {
                    let (of, since) = *self.unready.get_or_insert((active, now));
                    if of != active {
                        self.unready = Some((active, now));
                    }
                    let asleep = since.until(now);
                    demand("L6", asleep < READY_MAX, || format!("{active:?} is not ready for {asleep:?}"))?;
                }
                Author::Set(_) | Author::Builtin { .. } => self.unready = None,
            }
        }
        Ok(())
    }

    /// Since when the set that counts is ready: the built-in rules always are, another when the host answered the last
    /// question for it, until the set changes or the host does not have it after all.
    fn readied(&mut self, seen: &Seen<'_>, set: &PolicySet) {
        self.stopping |= matches!(seen.input, Input::Shutdown);
        let next = seats::next(seen);
        let asked = self.prepares.get(&next.id());
        let here = next.seats.iter().all(|seat| *seat == Seat::Floor)
            || matches!(seen.input, Input::Policy { ticket, outcome: Outcome::Done(PolicyReply::Prepared(id)) }
                if *id == next.id() && asked == Some(ticket));
        let gone = |decision: &Decision| {
            let slot = decision.question.slot();
            let missing = matches!(decision.by, Author::Builtin { why: PolicyFault::Missing, .. });
            missing && next.module(slot).is_some() && next.module(slot) == set.module(slot)
        };
        if seen.out.decisions.iter().any(gone) || turned(seen).next().is_some() && !here {
            self.ready = None;
        } else if here {
            self.ready = self.ready.or(Some(seen.now.mono));
        }
        for effect in &seen.out.effects {
            if let Effect::Policy { ticket, op: PolicyOp::Prepare { set } } = effect {
                self.prepares.insert(set.id(), *ticket);
            }
        }
    }

    /// I26: so many faults within a time and a module is ejected, in this very step, not before, and not for nothing.
    fn faults(&mut self, seen: &Seen<'_>, set: &PolicySet, premises: &mut Premises) -> Result<(), Broken> {
        let after = seats::next(seen);
        let mut due = BTreeMap::new();
        for decision in &seen.out.decisions {
            let slot = decision.question.slot();
            let Some(hash) = set.module(slot) else { continue };
            let record = self.records.entry((slot, hash)).or_default();
            if record.decided(&decision.by, seen.now.wall, seen.knobs) {
                due.insert(hash, slot);
            }
        }
        for (hash, slot) in &due {
            premises.met("I26.ejected");
            // If another change of this step took its slot away, nobody is left to blame.
            let barred =
                module(seen.rows.get(&Key::Module(*hash))).is_some_and(|row| row.quarantined.is_some());
            let sits = after.module(*slot) == Some(*hash);
            let excused = !sits && !barred && turned(seen).next().is_some();
            demand("I26", barred || excused, || {
                format!("{hash} in {} failed often enough and is not ejected", slot.name())
            })?;
        }
        for change in policy_changes(seen) {
            let PolicyChange::Quarantined { module: hash, quarantine } = change else { continue };
            premises.met("I26.barred");
            let asked = matches!(seen.input, Input::Request { request: Request::Policy(PolicyRequest::Quarantine { module, .. }), .. } if module == hash);
            let cause = match &quarantine.blame {
                Blame::Operator(_) => asked,
                Blame::Fault(_) => due.contains_key(hash),
                // It was admitted, and cannot be made ready any more.
                Blame::Refused { .. } => {
                    matches!(
                        seen.input,
                        Input::Policy { outcome: Outcome::Done(PolicyReply::Rejected { .. }), .. }
                    )
                }
            };
            demand("I26", cause, || format!("{hash} is barred for nothing: {quarantine:?}"))?;
            let left = Slot::ALL.into_iter().find(|slot| after.module(*slot) == Some(*hash));
            demand("I26", left.is_none(), || format!("{hash} is barred, and sits in {left:?}"))?;
        }
        // A fault counts against the module that sits there, not against the slot.
        self.records.retain(|(slot, hash), _| after.module(*slot) == Some(*hash));
        Ok(())
    }

    /// I25 and I26: the set changes for a cause, by one generation at a time, and only where the cause is.
    fn turns(&self, seen: &Seen<'_>, premises: &mut Premises) -> Result<(), Broken> {
        let before = seats::policy(seen.was(&Key::Policy)).cloned().unwrap_or_default();
        let after = seats::policy(seen.rows.get(&Key::Policy)).cloned().unwrap_or_default();
        let mut row = before.clone();
        for turn in turned(seen) {
            premises.met("I25.turn");
            demand("I25", turn.generation == row.generation + 1, || {
                format!("generation {} follows {}", turn.generation, row.generation)
            })?;
            let (old, new) = (seats::set(Some(&row), seen.knobs), self.turn(seen, &row, turn, premises)?);
            if old.id() != new.id() {
                premises.met("I25.changed");
            }
            (row.generation, row.slots, row.floored) =
                (turn.generation, turn.slots.clone(), turn.floored.clone());
        }
        let same =
            (row.generation, &row.slots, &row.floored) == (after.generation, &after.slots, &after.floored);
        demand("I25", same, || format!("changes say {row:?}, the record says {after:?}"))?;
        demand("I25", after.generation >= before.generation, || {
            format!("generation {} follows {}", after.generation, before.generation)
        })?;
        for (slot, binding) in after.slots.iter().chain(&after.good).chain(&after.earlier) {
            let hash = binding.module;
            let known = seen.rows.get(&Key::Module(hash));
            demand("I26", is_usable(seen, known, hash), || {
                format!("{} counts on {:?}", slot.name(), module(known))
            })?;
        }
        self.good(seen, &before, &after, premises)
    }

    /// One change of the set: which slots it may touch, and what comes there.
    fn turn(
        &self,
        seen: &Seen<'_>,
        row: &PolicyRow,
        turn: &Turn,
        premises: &mut Premises,
    ) -> Result<PolicySet, Broken> {
        let old = seats::set(Some(row), seen.knobs);
        let next =
            PolicyRow { slots: turn.slots.clone(), floored: turn.floored.clone(), ..PolicyRow::default() };
        let new = seats::set(Some(&next), seen.knobs);
        demand("I25", turn.set == new.id(), || format!("{turn:?} names another set than {new:?}"))?;
        let moved: Vec<Slot> =
            Slot::ALL.into_iter().filter(|slot| old.seat(*slot) != new.seat(*slot)).collect();
        let ready = |id| matches!(seen.input, Input::Policy { outcome: Outcome::Done(PolicyReply::Prepared(set)), .. } if *set == id);
        let fits = match &turn.what {
            TurnWhat::Activated { slot } => {
                premises.met("L6");
                ready(turn.set) && moved.iter().all(|moved| moved == slot)
            }
            // What needs nothing that is not there may come at once.
            TurnWhat::Reset { slot } => {
                let asked = matches!(
                    seen.input,
                    Input::Request { request: Request::Policy(PolicyRequest::Reset { .. }), .. }
                );
                (asked || ready(turn.set)) && moved.iter().all(|moved| moved == slot)
            }
            TurnWhat::RolledBack { .. } => {
                premises.met("I25.back");
                let asked = matches!(
                    seen.input,
                    Input::Request { request: Request::Policy(PolicyRequest::Rollback { .. }), .. }
                );
                asked || ready(turn.set)
            }
            TurnWhat::Configured => matches!(seen.input, Input::Boot { .. }),
            TurnWhat::Ejected { module, .. } => {
                premises.met("I26.fallback");
                self.fallback(seen, row, &new, *module)?;
                moved.iter().all(|slot| old.module(*slot) == Some(*module))
            }
        };
        demand("I25", fits, || format!("{:?} at {} moves {moved:?}", turn.what, seen.input.name()))?;
        Ok(new)
    }

    /// I26: an ejected module makes room for the last good one, else for the default, else for the built-in rules.
    fn fallback(
        &self,
        seen: &Seen<'_>,
        row: &PolicyRow,
        new: &PolicySet,
        gone: Sha256,
    ) -> Result<(), Broken> {
        let usable = |hash: Sha256| hash != gone && is_usable(seen, seen.rows.get(&Key::Module(hash)), hash);
        let old = seats::set(Some(row), seen.knobs);
        for slot in Slot::ALL.into_iter().filter(|slot| old.module(*slot) == Some(gone)) {
            let chosen = row.slots.iter().any(|(at, _)| *at == slot);
            let heirs = seats::left(&seats::heirs(row), usable);
            let good = heirs.get(&slot).and_then(|line| line.first());
            let default = seen.knobs.default_module.filter(|hash| usable(*hash));
            let wanted = match (good, default) {
                (Some(binding), _) if chosen => Seat::Module(binding.clone()),
                (_, Some(module)) => {
                    Seat::Module(Binding { module, settings: seen.knobs.builtin.for_module() })
                }
                (_, None) => Seat::Floor,
            };
            demand("I26", *new.seat(slot) == wanted, || {
                format!("{gone} makes room in {} for {:?}, not for {wanted:?}", slot.name(), new.seat(slot))
            })?;
        }
        Ok(())
    }

    /// I26: what is good is what came through its probation, as far as it may still be used; it is never lost otherwise.
    fn good(
        &self,
        seen: &Seen<'_>,
        before: &PolicyRow,
        after: &PolicyRow,
        premises: &mut Premises,
    ) -> Result<(), Broken> {
        let probed = policy_changes(seen).any(|change| matches!(change, PolicyChange::Probed { .. }));
        if probed {
            premises.met("I26.good");
            // A trial ends by its time alone.
            let over = before.probation.is_some() && matches!(seen.input, Input::Wake | Input::Boot { .. });
            demand("I26", over && after.good == after.slots, || {
                format!("good is {:?} after the trial of {:?}", after.good, after.slots)
            })?;
        }
        let was = seats::heirs(before);
        let was = if probed { seats::probed(&was, &after.slots) } else { was };
        let usable = |hash: Sha256| is_usable(seen, seen.rows.get(&Key::Module(hash)), hash);
        let (kept, heirs) = (seats::left(&was, usable), seats::heirs(after));
        demand("I26", heirs == kept, || format!("{was:?} were good, and {heirs:?} are"))
    }

    /// I26: a module that is barred stays so until somebody lifts it, and what does not come to be changes nothing.
    fn keeps(&self, seen: &Seen<'_>, premises: &mut Premises) -> Result<(), Broken> {
        for (key, old) in seen.before {
            let (Key::Module(hash), Some(Row::Module(old))) = (key, old) else { continue };
            let Some(quarantine) = &old.quarantined else { continue };
            premises.met("I26.stays");
            let new = module(seen.rows.get(key));
            let lifted = matches!(seen.input, Input::Request { request: Request::Policy(PolicyRequest::Unquarantine { module }), .. } if module == hash);
            let still = new.is_some_and(|row| row.quarantined.as_ref() == Some(quarantine));
            demand("I26", still || lifted, || format!("{hash} was barred and is {new:?}"))?;
        }
        let Input::Policy { outcome, .. } = seen.input else { return Ok(()) };
        let failed = !matches!(
            outcome,
            Outcome::Done(PolicyReply::Prepared(_) | PolicyReply::Admitted(_) | PolicyReply::Done)
        );
        if failed {
            premises.met("I26.refused");
            let kept = turned(seen)
                .all(|turn| matches!(turn.what, TurnWhat::Ejected { blame: Blame::Refused { .. }, .. }));
            demand("I26", kept, || format!("{outcome:?} changes who rules: {:?}", seen.out.changes))?;
        }
        let closes = seen.out.effects.iter().any(|effect| {
            matches!(effect, Effect::Close { why: CloseWhy::Replaced | CloseWhy::GoingAway, .. })
        });
        let fails =
            seen.out.changes.iter().any(|change| matches!(change, Change::Job(JobChange::Failed { .. })));
        demand("I26", !closes && !fails, || format!("{outcome:?} ends a link or a job: {:?}", seen.out))
    }

    /// L6: what was asked for and is ready rules from the next step on, unless the set it was built on is gone, or the site
    /// was told to stop: then whoever asked is told, and nothing changes any more.
    fn wished(&mut self, seen: &Seen<'_>, set: &PolicySet, premises: &mut Premises) -> Result<(), Broken> {
        if let Input::Request { id, request: Request::Policy(_) } = seen.input {
            self.waiting.insert(*id, seen.now.mono);
        }
        if let Input::Policy { ticket, outcome: Outcome::Done(PolicyReply::Prepared(ready)) } = seen.input
            && let Some(wish) = self.wishes.remove(ticket)
            && wish.on == set.id()
            && !self.stopping
        {
            premises.met("L6.ready");
            let usable = wish.set == *ready && seats::next(seen).id() == wish.set;
            demand("L6", usable, || format!("{ready:?} is ready and does not rule: {:?}", seen.out.changes))?;
        }
        if turned(seen).next().is_some()
            || policy_changes(seen).any(|change| {
                matches!(change, PolicyChange::Quarantined { .. } | PolicyChange::Rejected { .. })
            })
        {
            // What was being prepared stands on ground that is gone; whoever asked is told.
            self.wishes.clear();
        }
        for effect in &seen.out.effects {
            match effect {
                Effect::Reply { to, .. } => drop(self.waiting.remove(to)),
                Effect::Policy { ticket, op: PolicyOp::Prepare { set } } => {
                    let on = seats::next(seen).id();
                    // What the site makes ready by itself rules already, or a moment ago.
                    let asked = matches!(seen.input, Input::Request { .. });
                    if asked && set.id() != on {
                        self.wishes.insert(*ticket, Wish { set: set.id(), on });
                    }
                }
                _ => {}
            }
        }
        let late = self.waiting.iter().find(|(_, since)| since.after(ANSWER_MAX) < seen.now.mono);
        demand("L6", late.is_none(), || format!("nobody answers {late:?} about policies"))
    }

    fn boot(&mut self) {
        self.memos.clear();
        self.wishes.clear();
        self.waiting.clear();
        self.prepares.clear();
        (self.trial, self.ready, self.unready) = (None, None, None);
        self.stopping = false;
        for record in self.records.values_mut() {
            record.boot();
        }
    }
}

fn policy_changes<'a>(seen: &Seen<'a>) -> impl Iterator<Item = &'a PolicyChange> {
    seen.out.changes.iter().filter_map(|change| match change {
        Change::Policy(change) => Some(change),
        _ => None,
    })
}

/// Changes of the set in a step.
fn turned<'a>(seen: &Seen<'a>) -> impl Iterator<Item = &'a Turn> {
    policy_changes(seen).filter_map(|change| match change {
        PolicyChange::Activated { turn, .. } | PolicyChange::Reverted { turn, .. } => Some(&**turn),
        _ => None,
    })
}

/// Modules that may not be used, of an image.
fn barred(image: &Image) -> Vec<Sha256> {
    let of = |(key, row): (&Key, &Row)| match (key, row) {
        (Key::Module(hash), Row::Module(row)) if row.quarantined.is_some() => Some(*hash),
        _ => None,
    };
    image.iter().filter_map(of).collect()
}

impl Watch for PolicyWatch {
    fn step(&mut self, seen: &Seen<'_>) -> Result<(), Broken> {
        let (site, premises) = (self.sites.at(seen.site), &mut self.premises);
        if let Input::Boot { .. } = seen.input {
            site.boot();
        }
        let set = seats::active(seen);
        site.decided(seen, &set, premises)?;
        site.memos(seen, &set, premises)?;
        site.faults(seen, &set, premises)?;
        site.keeps(seen, premises)?;
        site.turns(seen, premises)?;
        site.settled(seen, &set, premises)?;
        site.wished(seen, &set, premises)
    }

    fn happened(&mut self, truth: &Truth<'_>, what: &Happened<'_>) -> Result<(), Broken> {
        if let Happened::Up { site } = what
            && !barred(&truth.images[*site]).is_empty()
        {
            self.premises.met("I26.restart");
        }
        Ok(())
    }

    fn end(&mut self, _: &Truth<'_>) -> Result<(), Broken> {
        Ok(())
    }

    fn premises(&self) -> &Premises {
        &self.premises
    }

    fn invariants(&self) -> &'static [&'static str] {
        &[
            "I25.back",
            "I25.changed",
            "I25.job_memo",
            "I25.memo",
            "I25.one",
            "I25.turn",
            "I26.barred",
            "I26.ejected",
            "I26.fallback",
            "I26.floor",
            "I26.good",
            "I26.refused",
            "I26.restart",
            "I26.stays",
            "I26.usable",
            "L6",
            "L6.ready",
            "L6.trial",
        ]
    }
}
