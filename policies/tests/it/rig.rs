//! Makes modules of fixtures and questions to ask them. Holds no expectation of its own.

use std::path::PathBuf;

use tidegate_core::policy::{
    Candidate, ErrorClass, Known, LinkKind, Question, RetryQuery, Situation, Subject, Waiting,
};
use tidegate_policies::{Ceilings, Host, Module, WIT, author};

pub fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}

fn text(name: &str) -> String {
    std::fs::read_to_string(folder().join(format!("{name}.wat"))).expect(name)
}

/// A core module: the parts that every fixture needs, unless `body` has its own, around `body`.
pub fn core(body: &str) -> Vec<u8> {
    // Imports stand first in a module.
    let (imports, rest): (Vec<_>, Vec<_>) = body.lines().partition(|line| line.trim().starts_with("(import"));
    let memory = if body.contains("(memory (export") { String::new() } else { text("memory") };
    let meta = if body.contains("#describe") { String::new() } else { text("meta") };
    let whole = format!("(module\n{}\n{memory}\n{meta}\n{}\n)", imports.join("\n"), rest.join("\n"));
    wat::parse_str(&whole).unwrap_or_else(|error| panic!("{error}\n{whole}"))
}

/// A component of a text.
pub fn component(body: &str) -> Vec<u8> {
    author::component(&core(body)).expect("the fixture fits the contract")
}

/// A component of a file in policies/fixtures.
pub fn fixture(name: &str) -> Vec<u8> {
    component(&text(name))
}

pub fn host() -> Host {
    Host::new(Ceilings::default()).expect("this machine runs policies")
}

pub fn admitted(host: &Host, name: &str) -> Module {
    host.admit(&fixture(name)).unwrap_or_else(|rejection| panic!("{name}: {rejection}"))
}

pub fn attempt(spent: u32) -> RetryQuery {
    RetryQuery {
        job: 1,
        spent,
        class: ErrorClass::Damaged,
        subject: Subject::Part,
        code: String::from("part_damaged"),
        elapsed_ms: 0,
        last_delay_ms: 0,
        size: 1,
        sent: 0,
        link: LinkKind::Unknown,
        metered: Known::Unknown,
        memo: 0,
        seed: 1,
    }
}

pub fn retry(spent: u32) -> Question {
    Question::Retry(attempt(spent))
}

pub fn waiting(count: u64) -> Vec<Waiting> {
    let one = |n| Waiting {
        job: n + 1,
        device: format!("robot-{n}"),
        size: n,
        spent: 0,
        queued_ms: n,
        age_ms: 10 * n,
        labels: vec![(String::from("crew"), String::from("north"))],
    };
    (0..count).map(one).collect()
}

pub fn episodes(count: u64) -> Vec<Candidate> {
    let one = |n| Candidate {
        episode: n,
        device: format!("robot-{n}"),
        size: n,
        age_ms: n,
        tries: 0,
        labels: vec![(String::from("crew"), String::from("north"))],
    };
    (0..count).map(one).collect()
}

pub fn now() -> Situation {
    Situation { due: 5, goodput: 77, seed: 99, memo: 10, ..Situation::default() }
}

/// Function heads of the hooks, as a core module exports them.
pub const RETRY: &str = r#"(func (export "tidegate:policy/retry@0.1.0#next")
    (param $job i64) (param $spent i32) (param $class i32) (param $subject i32) (param $code i32) (param $code_len i32)
    (param $elapsed i64) (param $last i64) (param $size i64) (param $sent i64) (param $link i32) (param $metered i32)
    (param $memo i64) (param $seed i64) (result i32)"#;
pub const SELECT: &str = r#"(func (export "tidegate:policy/auto-scan@0.1.0#select")
    (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i64 i32 i64 i64) (param $batch i32) (param $count i32) (result i32)"#;
pub const SCORE: &str = r#"(func (export "tidegate:policy/order@0.1.0#score")
    (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i64 i32 i64 i64) (param $batch i32) (param $count i32) (result i32)"#;

/// A good answer to a failed attempt: again after as many milliseconds as `wait` leaves on the stack.
pub fn retry_after(wait: &str) -> String {
    format!(
        "{RETRY}
        (i32.store8 (i32.const 2048) (i32.const 0))
        (i64.store (i32.const 2056) {wait})
        (i64.store (i32.const 2064) (i64.const 0))
        (i32.store16 (i32.const 2072) (i32.const 0))
        (i32.const 2048))"
    )
}

/// A module for the contract with one thing changed.
pub fn made_for(body: &str, change: (&str, &str), world: &str) -> Vec<u8> {
    let wit = WIT.replacen(change.0, change.1, 1);
    assert_ne!(wit, WIT, "the contract has {:?}", change.0);
    author::component_for(&core(body), &wit, world).expect("it fits its own contract")
}
