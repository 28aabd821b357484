//! The real host in place of the scripted one, where a committed module is what a conduct says: the default module and
//! some examples for what is sound, fixtures for what is not. Other conducts stay scripted. Nobody moves the host's clock,
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

fn bytes(spec: ModuleSpec) -> Option<&'static [u8]> {
    Some(match (spec.conduct, spec.n % VERSIONS) {
        (Conduct::Fair, 1) => committed!("examples/deadline-first/policy.wasm"),
        (Conduct::Fair, 2) => committed!("examples/yield-to-recording/policy.wasm"),
        (Conduct::Fair | Conduct::Slow, _) => tidegate_policies::DEFAULT,
        (Conduct::Narrow, 1) => committed!("examples/retry-by-class-c/policy.wasm"),
        (Conduct::Narrow, _) => committed!("examples/retry-by-class/policy.wasm"),
        (Conduct::Idle, _) => committed!("fixtures/idle.wasm"),
        (Conduct::Loop, _) => committed!("fixtures/loops.wasm"),
        _ => return None,
    })
}

/// Numbers of a conduct that stand for different modules; the others repeat.
const VERSIONS: u32 = 3;

/// What came of admitting the module of a conduct, once for all runs of a process; `None` if that conduct is scripted.
fn module(spec: ModuleSpec) -> Option<&'static Result<Module, Rejection>> {
    static MODULES: OnceLock<BTreeMap<(Conduct, u32), Result<Module, Rejection>>> = OnceLock::new();
    let modules = MODULES.get_or_init(|| {
        let host = Host::new(Ceilings::default()).expect("this machine can run policies");
        let all = Conduct::ALL.into_iter().flat_map(|conduct| (0..VERSIONS).map(move |n| (conduct, n)));
        let admitted = all.filter_map(|(conduct, n)| {
            let bytes = bytes(ModuleSpec { conduct, n })?;
            Some(((conduct, n), host.admit(bytes)))
        });
        admitted.collect()
    });
    modules.get(&(spec.conduct, spec.n % VERSIONS))
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
