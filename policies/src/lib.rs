//! Policies as WebAssembly components: admission, one question to a fresh instance, and the shelf of prepared sets. It
//! decides nothing about the domain, opens no file and no socket, and starts no thread: who calls it does.
//!
//! A module comes in through [`Host::admit`], takes a seat with its settings through [`Module::seat`], and answers through
//! [`Sitting::ask`]. A [`Shelf`] holds whole sets for the core: what a module cannot answer, the built-in rules do.

pub mod author;
mod call;
mod ceilings;
mod compare;
mod contract;
mod convert;
mod engine;
mod figures;
mod inspect;
pub mod json;
mod limiter;
mod module;
mod prepare;
mod seated;
mod shadow;
mod shelf;
pub mod sign;
mod vectors;

use std::sync::LazyLock;

use tidegate_core::digest::Sha256;

pub use call::{Asked, Held, Trouble};
pub use ceilings::{Ceilings, Limits};
pub use compare::differ;
pub use engine::{Host, HostError, Level, TICK};
pub use figures::{Figures, FiguresReader, Histogram, SEATS_MAX, Said, SeatFigures};
pub use module::{About, Manifest, Module, Rejection, SettingDoc, Sitting};
pub use seated::SeatedSet;
pub use shadow::{Difference, Shadow, ShadowFigures};
pub use shelf::Shelf;

/// The contract between site and policy, as text: what a guest is built against.
pub const WIT: &str = include_str!("../wit/policy.wit");

/// The built-in rules as a module: what sits in every slot of a site that was told nothing else.
pub const DEFAULT: &[u8] = include_bytes!("../default/policy.wasm");

/// The hash of [`DEFAULT`].
#[must_use]
pub fn default_hash() -> Sha256 {
    static HASH: LazyLock<Sha256> = LazyLock::new(|| Sha256::of(DEFAULT));
    *HASH
}
