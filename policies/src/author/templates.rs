//! A new policy's files, as `tidegate policy new` writes them: the SDK is copied along, so that nothing has to be
//! downloaded. Writes no file itself.

use tidegate_core::policy::Slot;

/// A file of a new policy: its path in the folder, and its text.
pub type File = (&'static str, String);

/// The SDK, as it is copied into a project in Rust.
const SDK: [(&str, &str); 6] = [
    ("sdk/Cargo.toml", include_str!("../../sdk/Cargo.toml")),
    ("sdk/src/lib.rs", include_str!("../../sdk/src/lib.rs")),
    ("sdk/src/bindings.rs", include_str!("../../sdk/src/bindings.rs")),
    ("sdk/src/rt.rs", include_str!("../../sdk/src/rt.rs")),
    ("sdk/src/settings.rs", include_str!("../../sdk/src/settings.rs")),
    ("wit/policy.wit", crate::WIT),
];

/// What stands in for a C library.
const SHIM: [(&str, &str); 4] = [
    ("shim/stdlib.h", include_str!("../../sdk/c/shim/stdlib.h")),
    ("shim/string.h", include_str!("../../sdk/c/shim/string.h")),
    ("shim/shim.c", include_str!("../../sdk/c/shim/shim.c")),
    ("wit/policy.wit", crate::WIT),
];

/// The generated bindings in C, by hook.
fn bindings(slot: Slot) -> (&'static str, &'static str) {
    match slot {
        Slot::AutoScan => (
            include_str!("../../sdk/c/gen/auto-scan/contract.h"),
            include_str!("../../sdk/c/gen/auto-scan/contract.c"),
        ),
        Slot::Retry => (
            include_str!("../../sdk/c/gen/retry/contract.h"),
            include_str!("../../sdk/c/gen/retry/contract.c"),
        ),
        Slot::Concurrency => (
            include_str!("../../sdk/c/gen/concurrency/contract.h"),
            include_str!("../../sdk/c/gen/concurrency/contract.c"),
        ),
        Slot::Bandwidth => (
            include_str!("../../sdk/c/gen/bandwidth/contract.h"),
            include_str!("../../sdk/c/gen/bandwidth/contract.c"),
        ),
        Slot::Order => (
            include_str!("../../sdk/c/gen/order/contract.h"),
            include_str!("../../sdk/c/gen/order/contract.c"),
        ),
    }
}

/// Whether a name can be the name of a policy: small letters, digits and hyphens, a letter first, at most 64.
#[must_use]
pub fn is_name(name: &str) -> bool {
    name.len() <= 64
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// A new policy in Rust for one hook. The name is one that [`is_name`] takes.
#[must_use]
pub fn rust(name: &str, slot: Slot) -> Vec<File> {
    let (hook, body) = match slot {
        Slot::AutoScan => ("auto_scan", include_str!("../../sdk/new/auto_scan.rs.txt")),
        Slot::Retry => ("retry", include_str!("../../sdk/new/retry.rs.txt")),
        Slot::Concurrency => ("concurrency", include_str!("../../sdk/new/concurrency.rs.txt")),
        Slot::Bandwidth => ("bandwidth", include_str!("../../sdk/new/bandwidth.rs.txt")),
        Slot::Order => ("order", include_str!("../../sdk/new/order.rs.txt")),
    };
    let fill = |text: &str| text.replace("@NAME@", name).replace("@HOOK@", hook).replace("@BODY@\n", body);
    let mut files: Vec<File> = vec![
        ("Cargo.toml", fill(include_str!("../../sdk/new/Cargo.toml.txt"))),
        ("src/lib.rs", fill(include_str!("../../sdk/new/lib.rs.txt"))),
        (".gitignore", String::from("/target\n")),
        ("vectors/first.jsonl", vector(slot)),
    ];
    files.extend(SDK.iter().map(|(path, text)| (*path, (*text).to_owned())));
    files
}

/// A new policy in C for one hook. The name is one that [`is_name`] takes.
#[must_use]
pub fn c(name: &str, slot: Slot) -> Vec<File> {
    let body = match slot {
        Slot::AutoScan => include_str!("../../sdk/new/auto-scan.c"),
        Slot::Retry => include_str!("../../sdk/new/retry.c"),
        Slot::Concurrency => include_str!("../../sdk/new/concurrency.c"),
        Slot::Bandwidth => include_str!("../../sdk/new/bandwidth.c"),
        Slot::Order => include_str!("../../sdk/new/order.c"),
    };
    let head = include_str!("../../sdk/new/policy.c.txt");
    let (header, source) = bindings(slot);
    let mut files: Vec<File> = vec![
        ("policy.c", head.replace("@NAME@", name).replace("@BODY@\n", body)),
        ("gen/contract.h", header.to_owned()),
        ("gen/contract.c", source.to_owned()),
        (".gitignore", String::from("/target\n")),
        ("vectors/first.jsonl", vector(slot)),
    ];
    files.extend(SHIM.iter().map(|(path, text)| (*path, (*text).to_owned())));
    files
}

/// A first question with the verdict that a new policy gives: what it must always answer.
fn vector(slot: Slot) -> String {
    let line = match slot {
        Slot::AutoScan => {
            r#"{"slot":"auto-scan","question":{"slot":"auto-scan","batch":[{"id":1}]},"verdict":{"slot":"auto-scan","choices":[{"action":"enqueue","reason":1}]}}"#
        }
        Slot::Retry => {
            r#"{"slot":"retry","question":{"slot":"retry","attempt":{"spent":1,"class":"other","subject":"part"}},"verdict":{"slot":"retry","action":{"after":60000},"reason":1}}"#
        }
        Slot::Concurrency => {
            r#"{"slot":"concurrency","question":{"slot":"concurrency"},"verdict":{"slot":"concurrency","uploads":2,"reason":1}}"#
        }
        Slot::Bandwidth => {
            r#"{"slot":"bandwidth","question":{"slot":"bandwidth"},"verdict":{"slot":"bandwidth","bytes_per_second":null,"reason":1}}"#
        }
        Slot::Order => {
            r#"{"slot":"order","question":{"slot":"order","batch":[{"job":1,"age":5000}]},"verdict":{"slot":"order","scores":[5000],"reason":1}}"#
        }
    };
    format!("{line}\n")
}
