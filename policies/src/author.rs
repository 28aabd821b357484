//! For authors: makes a component of a core module. Decides nothing about a policy; admission does that (`admit`).

pub mod recipe;
pub mod templates;

use std::collections::BTreeSet;

use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// The contract between policies and the site, as text.
pub const CONTRACT: &str = include_str!("../wit/policy.wit");

/// Package and version of the contract.
const PACKAGE: &str = "tidegate:policy";
const VERSION: &str = "0.1.0";

/// What keeps a module from becoming a policy.
#[derive(Debug, thiserror::Error)]
pub enum AuthorError {
    /// The bytes are no core module.
    #[error("this is no WebAssembly module: {0}")]
    Module(String),
    /// They are a component already.
    #[error("this is a component already: give it to `check` as it is")]
    Component,
    /// It exports something under the contract's name that the contract does not have.
    #[error("it exports {export}, but the contract {PACKAGE}@{VERSION} has {known}")]
    Export {
        /// The export as it stands in the module.
        export: String,
        /// The interfaces that there are.
        known: String,
    },
    /// It serves no hook.
    #[error("it serves no hook: export at least one of auto-scan, retry, concurrency, bandwidth, order")]
    NoHook,
    /// Its functions do not fit the contract.
    #[error("it does not fit the contract: {0}")]
    Contract(String),
    /// A compiler or a file of the build was not usable.
    #[error("{0}")]
    Build(String),
}

/// Makes a component of a core module. A module may carry its component types itself, as bindings of wit-bindgen do;
/// where it carries none they follow from what it exports.
///
/// # Errors
/// Says what does not fit, by the name in the module.
pub fn componentize(core_wasm: &[u8]) -> Result<Vec<u8>, AuthorError> {
    let found = look(core_wasm)?;
    let mut module = core_wasm.to_vec();
    if !found.typed {
        let (resolve, world) = world(&found.exports)?;
        embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8)
            .map_err(|e| AuthorError::Contract(format!("{e:#}")))?;
    }
    let component = ComponentEncoder::default()
        .validate(true)
        .module(&module)
        .and_then(|mut encoder| encoder.encode())
        .map_err(|e| AuthorError::Contract(format!("{e:#}")))?;
    Ok(without_names(&component))
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

/// What a core module says of itself.
struct Found {
    exports: BTreeSet<String>,
    typed: bool,
}

fn look(core_wasm: &[u8]) -> Result<Found, AuthorError> {
    use wasmparser::{Encoding, Parser, Payload};

    let broken = |e: wasmparser::BinaryReaderError| AuthorError::Module(e.to_string());
    let mut found = Found { exports: BTreeSet::new(), typed: false };
    for payload in Parser::new(0).parse_all(core_wasm) {
        match payload.map_err(broken)? {
            Payload::Version { encoding: Encoding::Component, .. } => return Err(AuthorError::Component),
            Payload::ExportSection(exports) => {
                for export in exports {
                    found.exports.insert(export.map_err(broken)?.name.to_owned());
                }
            }
            Payload::CustomSection(section) if section.name().starts_with("component-type") => {
                found.typed = true;
            }
            _ => {}
        }
    }
    Ok(found)
}

/// The world of a module that exports these functions.
fn world(exports: &BTreeSet<String>) -> Result<(Resolve, wit_parser::WorldId), AuthorError> {
    let mut resolve = Resolve::default();
    let contract = |e: &dyn std::fmt::Display| AuthorError::Contract(format!("{e:#}"));
    let package = resolve.push_str("policy.wit", CONTRACT).map_err(|e| contract(&e))?;
    let interfaces: BTreeSet<String> = resolve.packages[package].interfaces.keys().cloned().collect();

    let mut served = BTreeSet::new();
    for export in exports {
        let name = export.strip_prefix("cabi_post_").unwrap_or(export);
        let Some((interface, _)) = name.split_once('#') else { continue };
        let known = interface
            .strip_prefix(PACKAGE)
            .and_then(|rest| rest.strip_prefix('/'))
            .and_then(|rest| rest.strip_suffix(&format!("@{VERSION}")))
            .filter(|name| interfaces.contains(*name));
        match known {
            Some(name) => served.insert(name.to_owned()),
            None => {
                let known = interfaces
                    .iter()
                    .filter(|name| !matches!(name.as_str(), "types" | "diag"))
                    .map(|name| format!("{PACKAGE}/{name}@{VERSION}"))
                    .collect::<Vec<_>>()
                    .join(", ");
                return Err(AuthorError::Export { export: export.clone(), known });
            }
        };
    }
    served.remove("meta");
    if served.is_empty() {
        return Err(AuthorError::NoHook);
    }
    let mut text = String::from("package tidegate:module;\nworld module {\n");
    text.push_str(&format!("  import {PACKAGE}/diag@{VERSION};\n  export {PACKAGE}/meta@{VERSION};\n"));
    for name in &served {
        text.push_str(&format!("  export {PACKAGE}/{name}@{VERSION};\n"));
    }
    text.push_str("}\n");
    let own = resolve.push_str("module.wit", &text).map_err(|e| contract(&e))?;
    let world = resolve.select_world(&[own], Some("module")).map_err(|e| contract(&e))?;
    Ok((resolve, world))
}
