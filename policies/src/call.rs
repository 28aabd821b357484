//! One question to one instance: start, configure, ask, and what went wrong said in the words of the core. Looks at the
//! clock only to tell how long it took; nothing depends on it.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tidegate_core::policy::{Ordering, PolicyFault, Question, Slot, Verdict};
use wasmtime::component::Instance;
use wasmtime::{Store, Trap};

use crate::contract::hooks::{auto_scan, bandwidth, concurrency, meta, order, retry};
use crate::convert;
use crate::engine::{self, Level, State};
use crate::module::{Code, Rejection, Sitting};

#[cfg(test)]
mod tests;

/// What came of a question.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The verdict, of the right shape but not clamped, with the module's words for reasons; or why there is none.
    pub outcome: Result<(Verdict, Arc<[String]>), Trouble>,
    /// Fuel that the decision took.
    pub fuel: u64,
    /// Fuel that instantiating and configuring took before it.
    pub start_fuel: u64,
    /// Bytes of memory that the instance held at the end.
    pub memory: usize,
    /// Time by the clock, everything included. Not repeatable.
    pub took: Duration,
    /// What the module wrote to its log.
    pub log: Vec<(Level, String)>,
}

/// Why a module gave no verdict.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {detail}", fault.code())]
pub struct Trouble {
    /// The kind, as the core counts it.
    pub fault: PolicyFault,
    /// Where and what, for people.
    pub detail: String,
}

impl Trouble {
    fn new(fault: PolicyFault, detail: impl Into<String>) -> Trouble {
        Trouble { fault, detail: detail.into() }
    }
}

/// Asks a fresh instance; once more if the clock interrupted the first.
pub(crate) fn ask(sitting: &Sitting, question: &Question) -> Asked {
    let began = Instant::now();
    let mut asked = once(sitting, question);
    if matches!(&asked.outcome, Err(trouble) if trouble.fault == PolicyFault::Timeout) {
        asked = once(sitting, question);
    }
    asked.took = began.elapsed();
    asked
}

fn once(sitting: &Sitting, question: &Question) -> Asked {
    match guarded(|| Held::start(sitting).map(|mut held| held.answer(question))) {
        Ok(asked) => asked,
        Err(trouble) => Asked {
            outcome: Err(trouble),
            fuel: 0,
            start_fuel: 0,
            memory: 0,
            took: Duration::ZERO,
            log: Vec::new(),
        },
    }
}

/// Does something with an instance of its own. The engine is a large program that runs a stranger's code: should it panic,
/// that is a fault of the module and not the end of the site. The instance goes with it, so nothing torn is left.
fn guarded<T, E: From<Trouble>>(work: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let why = format!("the host failed on it: {}", brief(said(panic.as_ref())));
        Err(Trouble::new(PolicyFault::Trap, why).into())
    })
}

/// The words of a panic.
pub(crate) fn said(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it said nothing")
}

/// The function of the hook that was asked for.
enum Hook {
    AutoScan(auto_scan::Guest),
    Retry(retry::Guest),
    Concurrency(concurrency::Guest),
    Bandwidth(bandwidth::Guest),
    Order(order::Guest),
}

/// A started, configured instance.
pub struct Held {
    store: Store<State>,
    hook: Hook,
    sitting: Sitting,
    start_fuel: u64,
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Held").field("sitting", &self.sitting).finish_non_exhaustive()
    }
}

impl Held {
    /// Instantiates and configures.
    pub(crate) fn start(sitting: &Sitting) -> Result<Held, Trouble> {
        let code = sitting.code();
        let (mut store, instance) = configured(code, sitting.settings()).map_err(|failed| match failed {
            Start::Trouble(trouble) => trouble,
            // It took them before: it is not a function of its arguments.
            Start::Refused(why) => Trouble::new(PolicyFault::Trap, format!("meta.configure refused: {why}")),
        })?;
        let hook = load(code, sitting.slot(), &mut store, &instance).map_err(|error| {
            Trouble::new(PolicyFault::Shape, format!("{}: {error:#}", name(sitting.slot())))
        })?;
        let start_fuel = code.ceilings.start_fuel.saturating_sub(store.get_fuel().unwrap_or(0));
        Ok(Held { store, hook, sitting: sitting.clone(), start_fuel })
    }

    /// Asks this instance. After a trap it answers nothing any more.
    pub fn ask(&mut self, question: &Question) -> Asked {
        let began = Instant::now();
        engine::start_clock(&mut self.store, &self.sitting.code().ceilings);
        let mut asked = self.answer(question);
        asked.took = began.elapsed();
        asked
    }

    fn answer(&mut self, question: &Question) -> Asked {
        let budget = self.sitting.code().ceilings.fuel_for(question);
        let outcome = match self.store.set_fuel(budget) {
            Ok(()) => call(&self.hook, &mut self.store, question),
            Err(error) => Err(Failed::Guest(error)),
        };
        let outcome = match outcome {
            Ok(verdict) => shaped(question, &verdict, self.sitting.words()).map(|()| verdict),
            Err(Failed::Other) => Err(Trouble::new(
                PolicyFault::Missing,
                format!("{} was asked about {}", name(self.sitting.slot()), question.slot().name()),
            )),
            Err(Failed::Guest(error)) => Err(trouble(&error, name(self.sitting.slot()), self.store.data())),
        };
        let fuel = budget.saturating_sub(self.store.get_fuel().unwrap_or(0));
        let state = self.store.data_mut();
        Asked {
            outcome: outcome.map(|verdict| (verdict, Arc::clone(self.sitting.words()))),
            fuel,
            start_fuel: self.start_fuel,
            memory: state.limiter.memory(),
            took: Duration::ZERO,
            log: std::mem::take(&mut state.lines),
        }
    }
}

/// Why a call has no result.
enum Failed {
    /// The question belongs to another hook.
    Other,
    /// The guest's, or the engine's about it.
    Guest(wasmtime::Error),
}

impl From<wasmtime::Error> for Failed {
    fn from(error: wasmtime::Error) -> Failed {
        Failed::Guest(error)
    }
}

fn call(hook: &Hook, store: &mut Store<State>, question: &Question) -> Result<Verdict, Failed> {
    Ok(match (hook, question) {
        (Hook::AutoScan(guest), Question::AutoScan(now, batch)) => {
            let batch: Vec<_> = batch.iter().map(convert::episode).collect();
            let choices = guest.call_select(store, convert::situation(now), &batch)?;
            Verdict::AutoScan(choices.iter().map(convert::chosen).collect())
        }
        (Hook::Retry(guest), Question::Retry(query)) => {
            Verdict::Retry(convert::retried(&guest.call_next(store, &convert::attempt(query))?))
        }
        (Hook::Concurrency(guest), Question::Concurrency(now)) => {
            Verdict::Concurrency(convert::limits(&guest.call_decide(store, convert::situation(now))?))
        }
        (Hook::Bandwidth(guest), Question::Bandwidth(now)) => {
            Verdict::Bandwidth(convert::budget(&guest.call_decide(store, convert::situation(now))?))
        }
        (Hook::Order(guest), Question::Order(now, batch)) => {
            let batch: Vec<_> = batch.iter().map(convert::candidate).collect();
            Verdict::Order(convert::ordering(guest.call_score(store, convert::situation(now), &batch)?))
        }
        (
            Hook::AutoScan(_) | Hook::Retry(_) | Hook::Concurrency(_) | Hook::Bandwidth(_) | Hook::Order(_),
            _,
        ) => return Err(Failed::Other),
    })
}

/// The function of a hook, its type checked.
fn load(code: &Code, slot: Slot, store: &mut Store<State>, instance: &Instance) -> wasmtime::Result<Hook> {
    let hooks = &code.hooks;
    let absent = || wasmtime::Error::msg("the module does not export it");
    Ok(match slot {
        Slot::AutoScan => Hook::AutoScan(hooks.auto_scan.as_ref().ok_or_else(absent)?.load(store, instance)?),
        Slot::Retry => Hook::Retry(hooks.retry.as_ref().ok_or_else(absent)?.load(store, instance)?),
        Slot::Concurrency => {
            Hook::Concurrency(hooks.concurrency.as_ref().ok_or_else(absent)?.load(store, instance)?)
        }
        Slot::Bandwidth => {
            Hook::Bandwidth(hooks.bandwidth.as_ref().ok_or_else(absent)?.load(store, instance)?)
        }
        Slot::Order => Hook::Order(hooks.order.as_ref().ok_or_else(absent)?.load(store, instance)?),
    })
}

/// Whether the types of a hook are those of the contract.
pub(crate) fn check_type(
    code: &Code,
    slot: Slot,
    store: &mut Store<State>,
    instance: &Instance,
) -> wasmtime::Result<()> {
    load(code, slot, store, instance).map(|_| ())
}

/// A hook's function as people name it.
pub(crate) fn name(slot: Slot) -> &'static str {
    match slot {
        Slot::AutoScan => "auto-scan.select",
        Slot::Retry => "retry.next",
        Slot::Concurrency => "concurrency.decide",
        Slot::Bandwidth => "bandwidth.decide",
        Slot::Order => "order.score",
    }
}

/// Why an instance did not start.
enum Start {
    Trouble(Trouble),
    Refused(String),
}

impl From<Trouble> for Start {
    fn from(trouble: Trouble) -> Start {
        Start::Trouble(trouble)
    }
}

fn configured(code: &Code, settings: &[meta::Setting]) -> Result<(Store<State>, Instance), Start> {
    guarded(|| configured_unguarded(code, settings))
}

fn configured_unguarded(code: &Code, settings: &[meta::Setting]) -> Result<(Store<State>, Instance), Start> {
    let (mut store, instance) = instance(code, code.ceilings.start_fuel).map_err(Start::Trouble)?;
    let guest = code.meta.load(&mut store, &instance).map_err(|error| {
        Start::Trouble(Trouble::new(PolicyFault::Shape, format!("meta.configure: {error:#}")))
    })?;
    match guest.call_configure(&mut store, settings) {
        Ok(Ok(())) => Ok((store, instance)),
        Ok(Err(why)) => Err(Start::Refused(why)),
        Err(error) => Err(Start::Trouble(trouble(&error, "meta.configure", store.data()))),
    }
}

/// A fresh instance with so much fuel.
pub(crate) fn instance(code: &Code, fuel: u64) -> Result<(Store<State>, Instance), Trouble> {
    let mut store = engine::store(code.pre.engine(), &code.ceilings);
    let instance = store.set_fuel(fuel).and_then(|()| code.pre.instantiate(&mut store));
    match instance {
        Ok(instance) => Ok((store, instance)),
        Err(error) if error.is::<Trap>() || store.data().limiter.denied => {
            Err(trouble(&error, "instantiate", store.data()))
        }
        // More memories, tables or instances than the limiter lets one have: the engine has no type for that.
        Err(error) if format!("{error:#}").contains("resource limit exceeded") => {
            Err(Trouble::new(PolicyFault::Exhausted, format!("instantiate: {error:#}")))
        }
        // Neither a trap nor a limit: the machine has no memory left. Not the module's fault, and not repeatable.
        Err(error) => Err(Trouble::new(PolicyFault::Timeout, format!("instantiate: {error:#}"))),
    }
}

/// How often admission asks again when the clock interrupted: a starved machine must not refuse a good module.
const PATIENCE: usize = 4;

/// As [`ask`], with the patience of admission.
pub(crate) fn ask_patiently(sitting: &Sitting, question: &Question) -> Asked {
    let timed_out = |asked: &Asked| matches!(&asked.outcome, Err(t) if t.fault == PolicyFault::Timeout);
    let mut asked = ask(sitting, question);
    for _ in 0..PATIENCE {
        if !timed_out(&asked) {
            break;
        }
        asked = ask(sitting, question);
    }
    asked
}

/// Whether the module takes these settings; else why not, `timeout` if nobody knows.
pub(crate) fn configure(code: &Code, settings: &[meta::Setting]) -> Result<(), Rejection> {
    let timed_out = |failed: &Start| matches!(failed, Start::Trouble(t) if t.fault == PolicyFault::Timeout);
    let mut started = configured(code, settings);
    for _ in 0..PATIENCE {
        if !started.as_ref().is_err_and(timed_out) {
            break;
        }
        started = configured(code, settings);
    }
    match started {
        Ok(_) => Ok(()),
        Err(Start::Refused(why)) => Err(Rejection::new("configure", brief(&why))),
        Err(Start::Trouble(trouble)) => Err(Rejection::of(&trouble, "configure", trouble.to_string())),
    }
}

/// What the module says of itself, from a fresh instance.
pub(crate) fn describe(code: &Code) -> Result<meta::Info, Trouble> {
    let once = || guarded(|| describe_once(code));
    let mut told = once();
    for _ in 0..PATIENCE {
        if !told.as_ref().is_err_and(|trouble| trouble.fault == PolicyFault::Timeout) {
            break;
        }
        told = once();
    }
    told
}

fn describe_once(code: &Code) -> Result<meta::Info, Trouble> {
    let (mut store, instance) = instance(code, code.ceilings.describe_fuel)?;
    let guest = code
        .meta
        .load(&mut store, &instance)
        .map_err(|error| Trouble::new(PolicyFault::Shape, format!("meta.describe: {error:#}")))?;
    guest.call_describe(&mut store).map_err(|error| trouble(&error, "meta.describe", store.data()))
}

/// The core's word for what a guest did.
fn trouble(error: &wasmtime::Error, place: &str, state: &State) -> Trouble {
    let fault = match error.downcast_ref::<Trap>() {
        Some(Trap::OutOfFuel) => PolicyFault::Exhausted,
        Some(Trap::Interrupt) => PolicyFault::Timeout,
        // A guest that is refused memory mostly gives up by a trap of its own.
        Some(_) if state.limiter.denied => PolicyFault::Exhausted,
        Some(_) => PolicyFault::Trap,
        None if state.limiter.denied => PolicyFault::Exhausted,
        // What it handed over cannot be read: not a case of the enum, a list outside its memory, too many bytes.
        None => PolicyFault::Shape,
    };
    let what = match error.downcast_ref::<Trap>() {
        Some(Trap::OutOfFuel) => String::from("used up its fuel"),
        Some(Trap::Interrupt) => String::from("was interrupted by the clock"),
        Some(trap) => trap.to_string(),
        None => error.root_cause().to_string(),
    };
    let memory = if state.limiter.denied { "; it was refused more memory" } else { "" };
    let said = match state.lines.iter().rev().find(|(level, _)| *level == Level::Panic) {
        Some((_, text)) => format!("; it said: {}", brief(text)),
        None => String::new(),
    };
    Trouble::new(fault, format!("{place}: {what}{memory}{said}"))
}

/// A guest's words in a message of ours: one line, not long.
fn brief(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect()
}

/// Whether an answer fits its question: as many as asked for, and each reason has a word.
fn shaped(question: &Question, verdict: &Verdict, words: &[String]) -> Result<(), Trouble> {
    let place = name(question.slot());
    let wrong = |why: String| Err(Trouble::new(PolicyFault::Shape, format!("{place}: {why}")));
    let reason = |reason: u16| {
        if usize::from(reason) > words.len() {
            return wrong(format!("reason {reason} is unknown; meta.describe names {}", words.len()));
        }
        Ok(())
    };
    let length = |asked: usize, given: usize| {
        if asked != given {
            return wrong(format!("expected {asked} answers, found {given}"));
        }
        Ok(())
    };
    match (question, verdict) {
        (Question::AutoScan(_, batch), Verdict::AutoScan(choices)) => {
            length(batch.len(), choices.len())?;
            choices.iter().try_for_each(|chosen| reason(chosen.reason))
        }
        (Question::Order(_, batch), Verdict::Order(Ordering { scores, reason: why })) => {
            length(batch.len(), scores.len())?;
            reason(*why)
        }
        (_, Verdict::Retry(verdict)) => reason(verdict.reason),
        (_, Verdict::Concurrency(verdict)) => reason(verdict.reason),
        (_, Verdict::Bandwidth(verdict)) => reason(verdict.reason),
        (_, Verdict::AutoScan(_) | Verdict::Order(_)) => wrong(String::from("an answer to another question")),
    }
}
