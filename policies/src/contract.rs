//! The contract as Rust types, made from `wit/policy.wit`. Nothing is written by hand here; conversions are in convert.rs.
#![allow(
    dead_code,
    clippy::all,
    reason = "generated: the whole contract, of which the site uses the types and the exports"
)]

wasmtime::component::bindgen!({ path: "wit", world: "suite" });

pub(crate) use exports::tidegate::policy as hooks;
pub(crate) use tidegate::policy::{diag, types};
