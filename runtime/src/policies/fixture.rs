//! Modules for tests, made of the texts in policies/fixtures. Holds no expectation of its own.

use std::path::PathBuf;

use tidegate_policies::{Ceilings, Host, author};

fn text(name: &str) -> String {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../policies/fixtures");
    std::fs::read_to_string(folder.join(format!("{name}.wat"))).expect(name)
}

/// A component of a fixture; `extra` makes it another one that behaves the same.
pub(crate) fn module(name: &str, extra: &str) -> Vec<u8> {
    let extra = if extra.is_empty() { String::new() } else { format!("(data (i32.const 3000) \"{extra}\")") };
    let whole = format!("(module\n{}\n{}\n{}\n{extra}\n)", text("memory"), text("meta"), text(name));
    author::component(&wat::parse_str(&whole).expect(name)).expect(name)
}

pub(crate) fn host() -> Host {
    Host::new(Ceilings::default()).expect("this machine runs policies")
}
