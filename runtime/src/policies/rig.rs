//! Modules for tests: those in policies/fixtures. Holds no expectation of its own.

use std::path::PathBuf;

use tidegate_policies::{Ceilings, Host};

/// A component of a fixture; `extra` makes it another one that behaves the same.
pub(crate) fn module(name: &str, extra: &str) -> Vec<u8> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../policies/fixtures");
    let mut bytes = std::fs::read(folder.join(format!("{name}.wasm"))).expect(name);
    if !extra.is_empty() {
        // A custom section without content: its id, its length, and its name with the length of that.
        let len = u8::try_from(extra.len()).expect("a short name");
        bytes.extend([0, len + 1, len]);
        bytes.extend(extra.as_bytes());
    }
    bytes
}

pub(crate) fn host() -> Host {
    Host::new(Ceilings::default()).expect("this machine runs policies")
}
