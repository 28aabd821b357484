//! What an author's tools need: makes a component of a core module, with no tool but this library. Only `recipe` runs
//! anything, and only compilers.

pub mod recipe;
pub mod templates;

use tidegate_core::policy::Slot;
use wasmparser::{Parser, Payload};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

use crate::WIT;

/// Why no component could be made.
#[derive(Debug, thiserror::Error)]
pub enum AuthorError {
    /// The bytes are not WebAssembly.
    #[error("not a WebAssembly module: {0}")]
    NotWasm(String),
    /// A core module without any function of a hook.
    #[error(
        "exports no function of a hook; a guest without bindings exports names like `tidegate:policy/retry@0.1.0#next`"
    )]
    NoHook,
    /// The module does not fit the contract.
    #[error("does not fit the contract: {0}")]
    Contract(String),
}

/// A component of these bytes: as they are if they are one, else a core module made into one.
///
/// A core module from bindings says itself which world it was made for. One without (written as text, or in a language
/// without bindings) gets the world of the hooks whose functions it exports.
pub fn component(bytes: &[u8]) -> Result<Vec<u8>, AuthorError> {
    if Parser::is_component(bytes) {
        return Ok(bytes.to_vec());
    }
    let seen = read(bytes)?;
    let mut core = bytes.to_vec();
    if !seen.names_its_world {
        if seen.hooks.is_empty() {
            return Err(AuthorError::NoHook);
        }
        embed(&mut core, WIT, &world_of(&seen.hooks))?;
    }
    encode(&core)
}

/// A component of a core module without bindings, for a contract of the caller's own: a package as text, and the text of
/// a world in it named `made`.
pub fn component_for(core: &[u8], wit: &str, world: &str) -> Result<Vec<u8>, AuthorError> {
    let mut core = core.to_vec();
    embed(&mut core, wit, world)?;
    encode(&core)
}

fn embed(core: &mut Vec<u8>, wit: &str, world: &str) -> Result<(), AuthorError> {
    let failed = |error: &dyn std::fmt::Display| AuthorError::Contract(format!("{error:#}"));
    let mut resolve = Resolve::default();
    let package =
        resolve.push_str("policy.wit", &format!("{wit}\n{world}\n")).map_err(|error| failed(&error))?;
    let world = resolve.select_world(&[package], Some("made")).map_err(|error| failed(&error))?;
    embed_component_metadata(core, &resolve, world, StringEncoding::UTF8).map_err(|error| failed(&error))
}

fn encode(core: &[u8]) -> Result<Vec<u8>, AuthorError> {
    let failed = |error: &dyn std::fmt::Display| AuthorError::Contract(format!("{error:#}"));
    ComponentEncoder::default()
        .validate(true)
        .module(core)
        .map_err(|error| failed(&error))?
        .encode()
        .map(|component| without_names(&component))
        .map_err(|error| failed(&error))
}

/// Leaves out the custom sections of the component itself: names of its inner wiring and of the tools, a tenth of it.
fn without_names(component: &[u8]) -> Vec<u8> {
    const CUSTOM: u8 = 0;
    let (header, mut rest) = component.split_at(8.min(component.len()));
    let mut kept = header.to_vec();
    while let [id, body @ ..] = rest {
        // A section is its id, its length as LEB128, and that many bytes.
        let mut length = 0_usize;
        let mut digits = 0;
        for (at, byte) in body.iter().take(5).enumerate() {
            length |= usize::from(byte & 0x7F) << (7 * at);
            digits = at + 1;
            if byte & 0x80 == 0 {
                break;
            }
        }
        let end = (1 + digits + length).min(rest.len());
        if *id != CUSTOM {
            kept.extend_from_slice(&rest[..end]);
        }
        rest = &rest[end..];
    }
    kept
}

fn world_of(hooks: &[Slot]) -> String {
    let exports: String = hooks.iter().map(|slot| format!(" export {};", slot.name())).collect();
    format!("world made {{ import diag; export meta;{exports} }}")
}

/// What a core module tells without being compiled.
struct Seen {
    names_its_world: bool,
    hooks: Vec<Slot>,
}

fn read(bytes: &[u8]) -> Result<Seen, AuthorError> {
    let failed = |error: wasmparser::BinaryReaderError| AuthorError::NotWasm(error.to_string());
    let mut seen = Seen { names_its_world: false, hooks: Vec::new() };
    let mut served = [false; 5];
    for payload in Parser::new(0).parse_all(bytes) {
        match payload.map_err(failed)? {
            Payload::CustomSection(section) => {
                seen.names_its_world |= section.name().starts_with("component-type");
            }
            Payload::ExportSection(exports) => {
                for export in exports {
                    let name = export.map_err(failed)?.name;
                    let interface = name
                        .strip_prefix("tidegate:policy/")
                        .and_then(|rest| rest.split_once('@'))
                        .and_then(|(interface, _)| Slot::of(interface));
                    if let Some(slot) = interface {
                        served[slot as usize] = true;
                    }
                }
            }
            _ => {}
        }
    }
    seen.hooks = Slot::ALL.into_iter().filter(|slot| served[*slot as usize]).collect();
    Ok(seen)
}
