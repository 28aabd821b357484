//! A module that was admitted, and a seat it took with settings. Holds compiled code; runs it only through call.rs.

use std::fmt;
use std::sync::Arc;

use tidegate_core::digest::Sha256;
use tidegate_core::policy::{ModuleFacts, PolicyFault, Question, SettingValue, Slot};
use wasmtime::component::InstancePre;

use crate::call::{self, Asked, Held, Trouble};
use crate::ceilings::{Ceilings, Limits};
use crate::contract::hooks::{auto_scan, bandwidth, concurrency, meta, order, retry};
use crate::convert;
use crate::engine::State;
use crate::vectors;

/// Why a module was not admitted, or may not take a seat.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {why}")]
pub struct Rejection {
    /// A short stable word: `too_large`, `not_a_component`, `imports`, `version`, `types`, `no_hook`, `compile`, `limits`,
    /// `describe`, `configure`, `vectors`, `impure`, `signature`, and `missing` of a set that is prepared. `timeout` says
    /// nothing about the module: the machine had no time or no memory for it, and may have later.
    pub code: &'static str,
    /// What is wrong, where, and what would be right.
    pub why: String,
}

impl Rejection {
    pub(crate) fn new(code: &'static str, why: impl Into<String>) -> Rejection {
        Rejection { code, why: why.into() }
    }

    /// For a trouble at a step of admission: under the step's word, unless it was the machine's.
    pub(crate) fn of(trouble: &Trouble, code: &'static str, why: impl Into<String>) -> Rejection {
        Rejection::new(if trouble.fault == PolicyFault::Timeout { Rejection::TIMEOUT } else { code }, why)
    }

    /// The code of what the machine had no time for.
    pub const TIMEOUT: &'static str = "timeout";
}

/// What a signer allows a module beyond what the site does anyway: less.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    /// Hooks it may serve; none means all that it exports.
    pub hooks: Option<Vec<Slot>>,
    /// Lower limits.
    pub limits: Limits,
    /// Name of the key that signed it.
    pub signed_by: Option<String>,
}

/// What a module says of itself beyond [`ModuleFacts`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    /// Words of its reasons: reason n is the n-th, 0 is unspecified.
    pub reasons: Arc<[String]>,
    /// Its settings.
    pub settings: Vec<SettingDoc>,
}

/// A setting of a module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingDoc {
    /// Its name.
    pub key: String,
    /// One line about it.
    pub help: String,
    /// What holds if it is not given; also says of which type it is.
    pub default: SettingValue,
}

/// An admitted module. Cheap to clone.
#[derive(Clone)]
pub struct Module {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) hash: Sha256,
    pub(crate) facts: ModuleFacts,
    pub(crate) about: About,
    pub(crate) code: Code,
}

/// What is needed to make an instance and call it.
pub(crate) struct Code {
    pub(crate) pre: InstancePre<State>,
    pub(crate) ceilings: Ceilings,
    pub(crate) meta: meta::GuestIndices,
    pub(crate) hooks: Hooks,
}

/// Where the functions of each hook are; none if it does not serve the hook.
#[derive(Default)]
pub(crate) struct Hooks {
    pub(crate) auto_scan: Option<auto_scan::GuestIndices>,
    pub(crate) retry: Option<retry::GuestIndices>,
    pub(crate) concurrency: Option<concurrency::GuestIndices>,
    pub(crate) bandwidth: Option<bandwidth::GuestIndices>,
    pub(crate) order: Option<order::GuestIndices>,
}

impl fmt::Debug for Module {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Module").field("hash", &self.inner.hash).field("facts", &self.inner.facts).finish()
    }
}

impl Module {
    /// Hash of its bytes.
    #[must_use]
    pub fn hash(&self) -> Sha256 {
        self.inner.hash
    }

    /// What the core keeps of it.
    #[must_use]
    pub fn facts(&self) -> &ModuleFacts {
        &self.inner.facts
    }

    /// The rest of what it says of itself.
    #[must_use]
    pub fn about(&self) -> &About {
        &self.inner.about
    }

    /// Takes a seat with settings: they are checked against what the module says it takes, the module is configured with
    /// them, and the questions of admission are asked again.
    pub fn seat(&self, slot: Slot, settings: &[(String, SettingValue)]) -> Result<Sitting, Rejection> {
        let sitting = self.seat_unasked(slot, settings)?;
        vectors::ask_all(&sitting)?;
        Ok(sitting)
    }

    /// As [`Module::seat`] without the questions: for settings that were accepted before.
    pub fn seat_unasked(
        &self,
        slot: Slot,
        settings: &[(String, SettingValue)],
    ) -> Result<Sitting, Rejection> {
        if !self.facts().slots.contains(&slot) {
            let serves: Vec<_> = self.facts().slots.iter().map(|slot| slot.name()).collect();
            return Err(Rejection::new(
                "no_hook",
                format!(
                    "{} does not serve {}; it serves {}",
                    self.facts().name,
                    slot.name(),
                    serves.join(", ")
                ),
            ));
        }
        self.check_settings(settings)?;
        let settings: Arc<[_]> = settings.iter().map(|(key, value)| convert::setting(key, value)).collect();
        call::configure(&self.inner.code, &settings)
            .map_err(|error| Rejection { why: format!("{}: {}", self.facts().name, error.why), ..error })?;
        Ok(Sitting { module: self.clone(), slot, settings })
    }

    fn check_settings(&self, settings: &[(String, SettingValue)]) -> Result<(), Rejection> {
        let refused = |why: String| Err(Rejection::new("configure", format!("{}: {why}", self.facts().name)));
        for (n, (key, value)) in settings.iter().enumerate() {
            let Some(doc) = self.about().settings.iter().find(|doc| doc.key == *key) else {
                let keys: Vec<_> = self.about().settings.iter().map(|doc| doc.key.as_str()).collect();
                let known = if keys.is_empty() { String::from("it has none") } else { keys.join(", ") };
                return refused(format!("{key} is no setting of this policy ({known})"));
            };
            if settings.iter().take(n).any(|(other, _)| other == key) {
                return refused(format!("{key} is given twice"));
            }
            let right = match (&doc.default, value) {
                (SettingValue::Flag(_), SettingValue::Flag(_))
                | (SettingValue::Int(_), SettingValue::Int(_))
                | (SettingValue::Text(_), SettingValue::Text(_)) => continue,
                (SettingValue::Flag(_), _) => "true or false",
                (SettingValue::Int(_), _) => "a whole number",
                (SettingValue::Text(_), _) => "a text",
            };
            return refused(format!("{key} must be {right}"));
        }
        Ok(())
    }
}

/// A module in a slot with its settings. Cheap to clone.
#[derive(Clone)]
pub struct Sitting {
    module: Module,
    slot: Slot,
    settings: Arc<[meta::Setting]>,
}

impl fmt::Debug for Sitting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys: Vec<_> = self.settings.iter().map(|setting| &setting.key).collect();
        f.debug_struct("Sitting")
            .field("module", &self.module.hash())
            .field("slot", &self.slot)
            .field("settings", &keys)
            .finish()
    }
}

impl Sitting {
    /// The module.
    #[must_use]
    pub fn module(&self) -> &Module {
        &self.module
    }

    /// The slot.
    #[must_use]
    pub fn slot(&self) -> Slot {
        self.slot
    }

    /// Asks a fresh instance, which is dropped afterwards: no state survives. Interrupted by the clock, it is asked once
    /// more: on a starved machine the clock blames the wrong party.
    #[must_use]
    pub fn ask(&self, question: &Question) -> Asked {
        call::ask(self, question)
    }

    /// An instance that is kept from question to question. For measuring what the fresh one costs; no decision is made
    /// so, for a guest could remember.
    pub fn hold(&self) -> Result<Held, Trouble> {
        Held::start(self)
    }

    pub(crate) fn code(&self) -> &Code {
        &self.module.inner.code
    }

    pub(crate) fn settings(&self) -> &[meta::Setting] {
        &self.settings
    }

    pub(crate) fn words(&self) -> &Arc<[String]> {
        &self.module.inner.about.reasons
    }
}
