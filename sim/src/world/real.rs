//! The real host in place of the scripted one, where a committed module is what a conduct says: the default module for
//! what is sound, the fixtures for what is not. Other conducts stay scripted. Nobody moves the host's clock,
//! so nothing is interrupted by it and equal runs stay equal. Only with the feature `wasm-host`.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use tidegate_core::policy::{Binding, ModuleFacts, Question, Slot, Verdict};
use tidegate_policies::{Ceilings, Host, Module, Rejection, Sitting};

use super::module::{Refused, Said};
use crate::scenario::{Conduct, ModuleSpec};

/// The bytes of a committed module, by the folder and the name of the file.
macro_rules! committed {
    ($path:literal) => {
        include_bytes!(concat!("../../../policies/", $path))
    };
}

fn bytes(conduct: Conduct) -> Option<&'static [u8]> {
    Some(match conduct {
        Conduct::Fair | Conduct::Slow => tidegate_policies::DEFAULT,
        Conduct::Idle => committed!("fixtures/idle.wasm"),
        Conduct::Loop => committed!("fixtures/loops.wasm"),
        _ => return None,
    })
}

/// What came of admitting the module of a conduct, once for all runs of a process; `None` if that conduct is scripted.
fn module(spec: ModuleSpec) -> Option<&'static Result<Module, Rejection>> {
    static MODULES: OnceLock<BTreeMap<Conduct, Result<Module, Rejection>>> = OnceLock::new();
    let modules = MODULES.get_or_init(|| {
        let host = Host::new(Ceilings::default()).expect("this machine can run policies");
        let admitted = Conduct::ALL.into_iter();
        admitted.filter_map(|conduct| Some((conduct, host.admit(bytes(conduct)?)))).collect()
    });
    modules.get(&spec.conduct)
}

/// What admission says of a committed module; its name and version stay those of the scenario, which tell one from another.
pub(super) fn facts(spec: ModuleSpec, scripted: ModuleFacts) -> Result<ModuleFacts, Refused> {
    match module(spec) {
        None => Ok(scripted),
        Some(Ok(module)) => Ok(ModuleFacts { slots: module.facts().slots.clone(), ..scripted }),
        Some(Err(refused)) => Err((refused.code, refused.why.clone())),
    }
}

/// A committed module in a seat; `None` if this one is scripted.
pub(super) fn seat(spec: ModuleSpec, slot: Slot, binding: &Binding) -> Result<Option<Sitting>, Refused> {
    let refused = |why: &Rejection| (why.code, why.why.clone());
    match module(spec) {
        None => Ok(None),
        Some(Err(why)) => Err(refused(why)),
        Some(Ok(module)) => module.seat(slot, &binding.settings).map(Some).map_err(|why| refused(&why)),
    }
}

/// The verdict of a module that sits there.
pub(super) fn ask(sitting: &Sitting, question: &Question) -> Said<Verdict> {
    sitting.ask(question).outcome.map(|(verdict, _)| verdict).map_err(|trouble| trouble.fault)
}
