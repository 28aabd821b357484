//! Admission, in this order: size, hash, structure, compile, imports, instance, types, what it says of itself, settings,
//! questions. Each step has a code and a message that names the place; what passed is safe to seat.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use tidegate_core::digest::Sha256;
use tidegate_core::policy::{ModuleFacts, Slot};
use wasmtime::component::{Component, InstancePre};

use crate::call;
use crate::contract::hooks::{auto_scan, bandwidth, concurrency, meta, order, retry};
use crate::convert;
use crate::engine::{Host, State};
use crate::inspect;
use crate::module::{About, Code, Hooks, Inner, Manifest, Module, Rejection, SettingDoc};

/// Words of a module: reasons and settings, each.
const WORDS_MAX: usize = 64;
/// Letters of a name, a version, a reason or a key.
const NAME_MAX: usize = 64;
/// Bytes of a line for people, and of a text as a default.
const LINE_MAX: usize = 1024;
/// The longest patience: eight days.
const PATIENCE_MAX_MS: u64 = 8 * 24 * 3_600_000;

/// Examines a module from its bytes to its first answers. What does so is a large program that reads a stranger's bytes:
/// should it panic, that is the module's rejection and not the end of the site.
pub(crate) fn admit(host: &Host, bytes: &[u8], manifest: &Manifest) -> Result<Module, Rejection> {
    guarded(|| examined(host, bytes, manifest))
}

fn guarded<T>(work: impl FnOnce() -> Result<T, Rejection>) -> Result<T, Rejection> {
    std::panic::catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let why = format!("the host failed on it: {}", call::said(panic.as_ref()));
        Err(Rejection::new("compile", why))
    })
}

fn examined(host: &Host, bytes: &[u8], manifest: &Manifest) -> Result<Module, Rejection> {
    let most = host.ceilings().bytes;
    if bytes.len() > most {
        let why = format!("{} bytes; a module may have {most}", bytes.len());
        return Err(Rejection::new("too_large", why));
    }
    let hash = Sha256::of(bytes);
    let slots = wanted(inspect::structure(bytes)?, manifest)?;
    let component =
        Component::new(host.engine(), bytes).map_err(|error| Rejection::new("compile", chain(&error)))?;
    let pre = host
        .linker()
        .instantiate_pre(&component)
        .map_err(|error| Rejection::new("types", format!("imports: {}", chain(&error))))?;
    let code = Code {
        meta: meta::GuestIndices::new(&pre).map_err(|error| typed("meta", &error))?,
        hooks: hooks(&pre, &slots)?,
        ceilings: host.ceilings().lowered(&manifest.limits),
        pre,
    };
    let (mut store, instance) = call::instance(&code, code.ceilings.describe_fuel)
        .map_err(|trouble| Rejection::of(&trouble, "limits", trouble.to_string()))?;
    code.meta.load(&mut store, &instance).map_err(|error| typed("meta", &error))?;
    for slot in &slots {
        call::check_type(&code, *slot, &mut store, &instance)
            .map_err(|error| typed(call::name(*slot), &error))?;
    }
    drop(store);

    let told = |trouble: call::Trouble| Rejection::of(&trouble, "describe", trouble.to_string());
    let info = call::describe(&code).map_err(told)?;
    let again = call::describe(&code).map_err(told)?;
    if format!("{info:?}") != format!("{again:?}") {
        return Err(Rejection::new("impure", "meta.describe told two different things of the same module"));
    }
    check(&info).map_err(|why| Rejection::new("describe", format!("meta.describe: {why}")))?;
    let facts = ModuleFacts {
        size: bytes.len() as u64,
        name: info.name,
        version: info.version,
        summary: info.summary,
        slots,
        patience_ms: info.patience,
        signed_by: manifest.signed_by.clone(),
    };
    let doc = |doc: meta::SettingDoc| SettingDoc {
        key: doc.key,
        help: doc.help,
        default: convert::value(doc.default),
    };
    let about =
        About { reasons: info.reasons.into(), settings: info.settings.into_iter().map(doc).collect() };
    let module = Module { inner: Arc::new(Inner { hash, facts, about, code }) };
    for slot in &module.facts().slots {
        module.seat(*slot, &[])?;
    }
    Ok(module)
}

/// The hooks that the manifest allows.
fn wanted(exported: Vec<Slot>, manifest: &Manifest) -> Result<Vec<Slot>, Rejection> {
    let Some(allowed) = &manifest.hooks else { return Ok(exported) };
    if let Some(absent) = allowed.iter().find(|slot| !exported.contains(slot)) {
        let why = format!("its manifest names the hook {}, which it does not export", absent.name());
        return Err(Rejection::new("no_hook", why));
    }
    let slots: Vec<_> = exported.into_iter().filter(|slot| allowed.contains(slot)).collect();
    if slots.is_empty() {
        return Err(Rejection::new("no_hook", "its manifest names no hook"));
    }
    Ok(slots)
}

fn hooks(pre: &InstancePre<State>, slots: &[Slot]) -> Result<Hooks, Rejection> {
    let mut hooks = Hooks::default();
    for slot in slots {
        let found = match slot {
            Slot::AutoScan => auto_scan::GuestIndices::new(pre).map(|at| hooks.auto_scan = Some(at)),
            Slot::Retry => retry::GuestIndices::new(pre).map(|at| hooks.retry = Some(at)),
            Slot::Concurrency => concurrency::GuestIndices::new(pre).map(|at| hooks.concurrency = Some(at)),
            Slot::Bandwidth => bandwidth::GuestIndices::new(pre).map(|at| hooks.bandwidth = Some(at)),
            Slot::Order => order::GuestIndices::new(pre).map(|at| hooks.order = Some(at)),
        };
        found.map_err(|error| typed(call::name(*slot), &error))?;
    }
    Ok(hooks)
}

/// The engine's words about a type without its own frame around them: which record, and on which side of the function.
fn typed(place: &str, error: &wasmtime::Error) -> Rejection {
    let (mut side, mut words) = ("", Vec::new());
    for cause in error.chain() {
        match cause.to_string().as_str() {
            "failed to convert function to given type" => {}
            "type mismatch with results" => side = " (in its result)",
            "type mismatch with parameters" => side = " (in its parameters)",
            other => words.push(other.to_owned()),
        }
    }
    Rejection::new("types", format!("{place}: {}{side}", words.join(": ")))
}

/// All of what the engine says, from the outside in.
fn chain(error: &wasmtime::Error) -> String {
    format!("{error:#}")
}

/// Whether what a module says of itself can be used as labels and shown to people.
fn check(info: &meta::Info) -> Result<(), String> {
    word("name", &info.name)?;
    line("version", &info.version, NAME_MAX)?;
    if info.version.is_empty() {
        return Err(String::from("version is empty"));
    }
    line("summary", &info.summary, LINE_MAX)?;
    if info.reasons.len() > WORDS_MAX {
        return Err(format!("{} reasons; at most {WORDS_MAX} are allowed", info.reasons.len()));
    }
    for (n, reason) in info.reasons.iter().enumerate() {
        word(&format!("reason {}", n + 1), reason)?;
        if info.reasons.iter().take(n).any(|other| other == reason) {
            return Err(format!("the reason {reason} stands twice"));
        }
    }
    if info.settings.len() > WORDS_MAX {
        return Err(format!("{} settings; at most {WORDS_MAX} are allowed", info.settings.len()));
    }
    for (n, doc) in info.settings.iter().enumerate() {
        word(&format!("setting {}", n + 1), &doc.key)?;
        if info.settings.iter().take(n).any(|other| other.key == doc.key) {
            return Err(format!("the setting {} stands twice", doc.key));
        }
        line(&format!("help of {}", doc.key), &doc.help, LINE_MAX)?;
        if let meta::Value::Text(text) = &doc.default {
            line(&format!("default of {}", doc.key), text, LINE_MAX)?;
        }
    }
    if info.patience > PATIENCE_MAX_MS {
        return Err(format!(
            "patience is {} ms; at most eight days ({PATIENCE_MAX_MS}) are allowed",
            info.patience
        ));
    }
    Ok(())
}

fn word(what: &str, text: &str) -> Result<(), String> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if text.is_empty() || text.len() > NAME_MAX || !text.chars().all(fits) {
        return Err(format!(
            "{what} must be 1 to {NAME_MAX} lower-case letters, digits and hyphens, not {:?}",
            text.chars().take(NAME_MAX).collect::<String>()
        ));
    }
    Ok(())
}

fn line(what: &str, text: &str, max: usize) -> Result<(), String> {
    if text.len() > max {
        return Err(format!("{what} has {} bytes; at most {max} are allowed", text.len()));
    }
    if text.chars().any(char::is_control) {
        return Err(format!("{what} must be one line without control characters"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_that_panics_over_a_module_refuses_it() {
        let bytes = [1, 2, 3];
        let refused = guarded::<()>(|| panic!("byte {} is odd", bytes[2])).unwrap_err();
        assert_eq!(refused.to_string(), "compile: the host failed on it: byte 3 is odd");
        assert_eq!(guarded(|| Ok(7)), Ok(7));
    }
}
