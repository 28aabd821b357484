//! The engine that runs guests: its deterministic configuration, the one import they have, and the clock tick that is
//! the backstop behind fuel. Knows nothing of hooks.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use wasmtime::component::{Linker, WasmStr};
use wasmtime::{Config, Engine, OptLevel, Store, StoreContextMut, Strategy};

use crate::ceilings::Ceilings;
use crate::contract::diag;
use crate::limiter::Limiter;
use crate::module::{Manifest, Module, Rejection};
use crate::prepare;

/// The time between two calls of [`Host::tick`].
pub const TICK: Duration = Duration::from_millis(10);

/// Stack of a guest. Overflow is a trap; what is deeper than this would threaten the caller's own stack.
const STACK: usize = 256 << 10;

/// What a log line costs on top of its text, so that empty lines end too.
const LINE: usize = 16;

/// Fuel that a line costs. The call leaves the guest, which takes as long as some hundred of its instructions.
const LINE_FUEL: u64 = 1_000;

/// The engine could not be made: this machine cannot run policies.
#[derive(Debug, thiserror::Error)]
#[error("no engine for policies on this machine: {0}")]
pub struct HostError(String);

/// Runs policies. Cheap to clone; clones share engine and clock.
#[derive(Clone)]
pub struct Host {
    engine: Engine,
    linker: Arc<Linker<State>>,
    ceilings: Arc<Ceilings>,
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host").field("ceilings", &self.ceilings).finish_non_exhaustive()
    }
}

impl Host {
    /// An engine with these limits. Fails where no code can be generated or run.
    pub fn new(ceilings: Ceilings) -> Result<Host, HostError> {
        Host::with(config(&ceilings), ceilings)
    }

    /// The same with an interpreter in the place of generated code, some ten times as slow: another way to every answer, to
    /// compare answers and fuel by.
    pub fn interpreting(ceilings: Ceilings) -> Result<Host, HostError> {
        let mut config = config(&ceilings);
        config.target("pulley64").map_err(|error| HostError(format!("{error:#}")))?;
        Host::with(config, ceilings)
    }

    fn with(config: Config, ceilings: Ceilings) -> Result<Host, HostError> {
        let failed = |error: wasmtime::Error| HostError(format!("{error:#}"));
        let engine = Engine::new(&config).map_err(failed)?;
        let linker = Arc::new(linker(&engine).map_err(failed)?);
        Ok(Host { engine, linker, ceilings: Arc::new(ceilings) })
    }

    /// One [`TICK`] went by. Somebody must call this from a thread that no policy can hold up: without it only fuel ends a
    /// call.
    pub fn tick(&self) {
        self.engine.increment_epoch();
    }

    /// The site's limits.
    #[must_use]
    pub fn ceilings(&self) -> &Ceilings {
        &self.ceilings
    }

    /// Examines a module and makes it ready to take seats. Takes some milliseconds, so not on the thread of decisions.
    pub fn admit(&self, bytes: &[u8]) -> Result<Module, Rejection> {
        self.admit_with(bytes, &Manifest::default())
    }

    /// As [`Host::admit`], within a manifest: only its hooks, its lower limits, and who signed it.
    pub fn admit_with(&self, bytes: &[u8], manifest: &Manifest) -> Result<Module, Rejection> {
        prepare::admit(self, bytes, manifest)
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    pub(crate) fn linker(&self) -> &Linker<State> {
        &self.linker
    }
}

#[cfg(test)]
impl Host {
    /// The same with a defect: whoever logs makes it panic.
    pub(crate) fn with_a_log_that_panics(self) -> Host {
        let mut linker = Linker::new(&self.engine);
        linker.instance("tidegate:policy/types@0.1.0").unwrap();
        let log = |_: StoreContextMut<'_, State>, _: (diag::Level, WasmStr)| -> wasmtime::Result<()> {
            panic!("the log broke")
        };
        linker.instance("tidegate:policy/diag@0.1.0").unwrap().func_wrap("log", log).unwrap();
        Host { linker: Arc::new(linker), ..self }
    }
}

/// Every setting that changes what a guest computes, or what it may do to the program around it.
fn config(ceilings: &Ceilings) -> Config {
    let mut config = Config::new();
    config
        .strategy(Strategy::Cranelift)
        .cranelift_opt_level(OptLevel::Speed)
        // Equal questions, equal answers: on every machine, and in a replay.
        .cranelift_nan_canonicalization(true)
        .relaxed_simd_deterministic(true)
        .wasm_relaxed_simd(false)
        // Fuel ends a call at the same instruction everywhere; the epoch ends it by the clock if fuel does not.
        .consume_fuel(true)
        .epoch_interruption(true)
        .max_wasm_stack(STACK)
        // One memory of a known size: no gigabytes of address space, and no guard pages to catch signals at.
        .memory_reservation(ceilings.memory as u64)
        .memory_guard_size(64 << 10)
        .memory_reservation_for_growth(0)
        // Data segments are copied: kept as files in memory, each module would hold a descriptor of the site.
        .memory_init_cow(false)
        .signals_based_traps(false)
        .wasm_memory64(false)
        .wasm_multi_memory(false)
        .concurrency_support(false);
    config
}

/// What a guest may import: the shared types, and a log that nothing comes back from.
fn linker(engine: &Engine) -> wasmtime::Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    linker.instance("tidegate:policy/types@0.1.0")?;
    linker.instance("tidegate:policy/diag@0.1.0")?.func_wrap(
        "log",
        |mut store: StoreContextMut<'_, State>, (level, message): (diag::Level, WasmStr)| {
            let left = store.get_fuel()?;
            store.set_fuel(left.saturating_sub(LINE_FUEL))?;
            // Not even read once the budget is spent: a guest could have the site copy without end otherwise.
            if store.data().log_left > 0 {
                let text = message.to_str(&store)?.into_owned();
                store.data_mut().log(level.into(), text);
            }
            Ok(())
        },
    )?;
    Ok(linker)
}

/// How grave a line of a guest's log is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// For its author.
    Debug,
    /// For whoever is curious.
    Info,
    /// For whoever runs the site.
    Warn,
    /// The guest gave up with this; a trap follows.
    Panic,
}

impl Level {
    /// The word for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Level::Debug => "debug",
            Level::Info => "info",
            Level::Warn => "warn",
            Level::Panic => "panic",
        }
    }
}

impl From<diag::Level> for Level {
    fn from(level: diag::Level) -> Level {
        match level {
            diag::Level::Debug => Level::Debug,
            diag::Level::Info => Level::Info,
            diag::Level::Warn => Level::Warn,
            diag::Level::Panic => Level::Panic,
        }
    }
}

/// What the site keeps beside one instance.
pub(crate) struct State {
    pub(crate) limiter: Limiter,
    pub(crate) lines: Vec<(Level, String)>,
    log_left: usize,
}

impl State {
    fn log(&mut self, level: Level, mut text: String) {
        let room = self.log_left.saturating_sub(LINE);
        if text.len() > room {
            let mut end = room;
            while !text.is_char_boundary(end) {
                end -= 1;
            }
            text.truncate(end);
            // A line that was cut ends the log: later ones would read as if nothing were missing.
            self.log_left = 0;
        } else {
            self.log_left = room - text.len();
        }
        self.lines.push((level, text));
    }
}

/// A store with all limits set. Fuel is given per phase; the clock starts now.
pub(crate) fn store(engine: &Engine, ceilings: &Ceilings) -> Store<State> {
    let limiter = Limiter::new(ceilings.memory, ceilings.table_elements);
    let state = State { limiter, lines: Vec::new(), log_left: ceilings.log_bytes };
    let mut store = Store::new(engine, state);
    store.limiter(|state| &mut state.limiter);
    store.set_hostcall_fuel(ceilings.result_bytes);
    store.epoch_deadline_trap();
    start_clock(&mut store, ceilings);
    store
}

/// The clock of the backstop begins anew.
pub(crate) fn start_clock(store: &mut Store<State>, ceilings: &Ceilings) {
    let ticks = ceilings.wall.as_millis().div_ceil(TICK.as_millis()).max(1);
    // One more: the first tick may come at once.
    store.set_epoch_deadline(u64::try_from(ticks).unwrap_or(u64::MAX).saturating_add(1));
}
