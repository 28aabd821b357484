//! Reads what a module is before anything of it is compiled: a component, what it imports and exports, and that its
//! structure is one that compiles and starts in bounded time. Runs nothing.

use tidegate_core::policy::Slot;
use wasmparser::{
    BinaryReaderError, CanonicalFunction, Encoding, FuncValidatorAllocations, Instance, Parser, Payload,
    ValidPayload, Validator,
};

use crate::inspect::weight::Weight;
use crate::limiter::INSTANCES_MAX;
use crate::module::Rejection;

mod weight;

/// Package of the contract.
const PACKAGE: &str = "tidegate:policy";
/// Its version without the last number, which only ever adds.
const VERSION: (u64, u64) = (0, 1);

/// Core modules, components and instances that one module may hold: its own, and the shims of `policy build`.
const PARTS_MAX: u32 = 64;
/// Globals of all core modules together. Each instance makes them anew, which costs no fuel, and no memory that is counted.
const GLOBALS_MAX: u32 = 1_000;
/// Element segments of all core modules together, and data segments.
const SEGMENTS_MAX: u32 = 1_000;
/// How deep components may lie in each other. With more, a few bytes could ask for any number of instances.
const DEPTH_MAX: usize = 1;

/// Hooks that a module exports, in the order of [`Slot::ALL`]; checked for everything that can be told without compiling.
pub(crate) fn structure(bytes: &[u8]) -> Result<Vec<Slot>, Rejection> {
    if Parser::is_core_wasm(bytes) {
        return Err(Rejection::new(
            "not_a_component",
            "a core module, not a component: `tidegate policy build` makes one of it",
        ));
    }
    if !Parser::is_component(bytes) {
        return Err(Rejection::new("not_a_component", "not a WebAssembly component"));
    }
    read(bytes)?.slots()
}

/// Reads a component from its first byte to its last. Each part is bounded before it is validated, and both before the
/// next one is looked at.
fn read(bytes: &[u8]) -> Result<Seen, Rejection> {
    let mut seen = Seen::default();
    let mut validator = Validator::new();
    let mut room = FuncValidatorAllocations::default();
    for payload in Parser::new(0).parse_all(bytes) {
        let payload = payload.map_err(broken)?;
        seen.take(&payload)?;
        if let ValidPayload::Func(function, body) = validator.payload(&payload).map_err(broken)? {
            let mut function = function.into_validator(room);
            seen.weight.function(&body, &mut function)?;
            room = function.into_allocations();
        }
    }
    Ok(seen)
}

/// What a component weighs.
#[cfg(test)]
fn weighed(bytes: &[u8]) -> Result<Weight, Rejection> {
    read(bytes).map(|seen| seen.weight)
}

fn broken(error: BinaryReaderError) -> Rejection {
    Rejection::new("not_a_component", format!("not a WebAssembly component: {error}"))
}

/// What was read so far.
#[derive(Default)]
struct Seen {
    /// What the parser is inside of, outermost first.
    inside: Vec<Encoding>,
    parts: u32,
    /// Memories of the core module that is being read.
    memories: u32,
    globals: u32,
    elements: u32,
    data: u32,
    instances: u32,
    weight: Weight,
    /// Whether a function was lifted already.
    lifted: bool,
    meta: bool,
    hooks: [bool; 5],
}

impl Seen {
    fn take(&mut self, payload: &Payload<'_>) -> Result<(), Rejection> {
        match payload {
            Payload::Version { encoding, .. } => {
                let encoding = *encoding;
                if encoding == Encoding::Module && self.inside.len() > 1 {
                    return Err(code_inside());
                }
                self.inside.push(encoding);
                self.memories = 0;
                let components = self.inside.iter().filter(|e| **e == Encoding::Component).count();
                if components > DEPTH_MAX + 1 {
                    return Err(Rejection::new("limits", "components lie more than two deep in each other"));
                }
                self.count(1)?;
            }
            Payload::End(_) => {
                self.inside.pop();
            }
            Payload::ComponentImportSection(imports) if self.inside.len() == 1 => {
                for import in imports.clone() {
                    allowed(import.map_err(broken)?.name.name)?;
                }
            }
            Payload::ComponentExportSection(exports) if self.inside.len() == 1 => {
                for export in exports.clone() {
                    self.export(export.map_err(broken)?.name.name)?;
                }
            }
            Payload::ComponentStartSection { .. } | Payload::StartSection { .. } => {
                return Err(Rejection::new(
                    "limits",
                    "has a start section: a policy does nothing before it is asked",
                ));
            }
            Payload::ImportSection(imports) => {
                for import in imports.clone().into_imports() {
                    if matches!(import.map_err(broken)?.ty, wasmparser::TypeRef::Memory(_)) {
                        self.memory(1)?;
                    }
                }
            }
            Payload::MemorySection(section) => self.memory(section.count())?,
            Payload::GlobalSection(section) => {
                more(&mut self.globals, section.count(), GLOBALS_MAX, "globals")?;
            }
            Payload::ElementSection(section) => {
                more(&mut self.elements, section.count(), SEGMENTS_MAX, "element segments")?;
            }
            Payload::DataSection(section) => {
                more(&mut self.data, section.count(), SEGMENTS_MAX, "data segments")?;
            }
            Payload::TypeSection(types) => self.weight.types(types.clone())?,
            Payload::ComponentCanonicalSection(functions) => {
                if self.inside.len() > 1 {
                    return Err(code_inside());
                }
                for function in functions.clone() {
                    self.canonical(&function.map_err(broken)?)?;
                }
            }
            Payload::InstanceSection(section) => {
                if self.inside.len() > 1 {
                    return Err(code_inside());
                }
                self.count(section.count())?;
                for instance in section.clone() {
                    // The others only give names to what is there.
                    if matches!(instance.map_err(broken)?, Instance::Instantiate { .. }) {
                        more(&mut self.instances, 1, INSTANCES_MAX, "core instances")?;
                    }
                }
            }
            Payload::ComponentInstanceSection(section) => self.count(section.count())?,
            _ => {}
        }
        Ok(())
    }

    /// A function between the module and the site. What the site offers is lowered before anything is lifted out of the
    /// code; the other way round a component would call itself, and the adapter for that may be of any size.
    fn canonical(&mut self, function: &CanonicalFunction) -> Result<(), Rejection> {
        self.weight.bridge()?;
        match function {
            CanonicalFunction::Lift { .. } => self.lifted = true,
            CanonicalFunction::Lower { .. } if !self.lifted => {}
            CanonicalFunction::Lower { .. } => {
                return Err(Rejection::new("limits", "lowers a function after it lifted one"));
            }
            _ => {
                let why = "uses resources, tasks or streams; a policy has functions only";
                return Err(Rejection::new("limits", why));
            }
        }
        Ok(())
    }

    fn memory(&mut self, more: u32) -> Result<(), Rejection> {
        self.memories = self.memories.saturating_add(more);
        if self.memories > 1 {
            return Err(Rejection::new(
                "limits",
                format!("a core module has {} memories; one is allowed", self.memories),
            ));
        }
        Ok(())
    }

    fn count(&mut self, more: u32) -> Result<(), Rejection> {
        self.parts = self.parts.saturating_add(more);
        if self.parts > PARTS_MAX * 2 {
            return Err(Rejection::new(
                "limits",
                format!("has more than {} modules, components and instances", PARTS_MAX * 2),
            ));
        }
        Ok(())
    }

    fn export(&mut self, name: &str) -> Result<(), Rejection> {
        // What other worlds a module serves is not the site's affair.
        let Some(interface) = ours(name)? else { return Ok(()) };
        if interface == "meta" {
            self.meta = true;
        }
        // A hook of a later version is not asked about.
        if let Some(slot) = Slot::of(interface) {
            self.hooks[slot as usize] = true;
        }
        Ok(())
    }

    fn slots(&self) -> Result<Vec<Slot>, Rejection> {
        let slots: Vec<_> = Slot::ALL.into_iter().filter(|slot| self.hooks[*slot as usize]).collect();
        if slots.is_empty() {
            let names: Vec<_> = Slot::ALL.into_iter().map(Slot::name).collect();
            let why = format!("exports none of the hooks of {PACKAGE}: {}", names.join(", "));
            return Err(Rejection::new("no_hook", why));
        }
        if !self.meta {
            return Err(Rejection::new(
                "types",
                format!("does not export {PACKAGE}/meta, which every policy must"),
            ));
        }
        Ok(slots)
    }
}

/// Counts what there may be so many of.
fn more(have: &mut u32, more: u32, most: u32, what: &str) -> Result<(), Rejection> {
    *have = have.saturating_add(more);
    if *have > most {
        return Err(Rejection::new("limits", format!("has more than {most} {what}")));
    }
    Ok(())
}

fn code_inside() -> Rejection {
    Rejection::new(
        "limits",
        "a component inside it has code of its own; `tidegate policy build` makes none such",
    )
}

fn allowed(name: &str) -> Result<(), Rejection> {
    match ours(name)? {
        Some("types" | "diag") => Ok(()),
        Some(_) | None => Err(Rejection::new(
            "imports",
            format!("imports {name}; a policy may import {PACKAGE}/types and {PACKAGE}/diag only"),
        )),
    }
}

/// The interface of a name like `tidegate:policy/retry@0.1.0`, none if it is of another package. A version that this site
/// does not speak is refused by name.
fn ours(name: &str) -> Result<Option<&str>, Rejection> {
    let Some(rest) = name.strip_prefix(PACKAGE).and_then(|rest| rest.strip_prefix('/')) else {
        return Ok(None);
    };
    let (interface, version) = rest.split_once('@').unwrap_or((rest, ""));
    let mut numbers = version.split('.').map(|number| number.parse::<u64>().ok());
    let (major, minor) = VERSION;
    match (numbers.next(), numbers.next(), numbers.next(), numbers.next()) {
        (Some(Some(a)), Some(Some(b)), Some(Some(_)), None) if (a, b) == VERSION => Ok(Some(interface)),
        _ => {
            let made =
                if version.is_empty() { String::from(PACKAGE) } else { format!("{PACKAGE}@{version}") };
            let why = format!("policy was made for {made}; this site speaks {major}.{minor}");
            Err(Rejection::new("version", why))
        }
    }
}
