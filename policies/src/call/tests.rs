//! A host that fails while a module runs: what the module's caller sees of it. Tests no module.

use super::*;
use crate::{Ceilings, Host, author};
use tidegate_core::policy::{ErrorClass, Known, LinkKind, RetryQuery, Subject};

/// A host whose log panics.
fn broken() -> Host {
    Host::new(Ceilings::default()).unwrap().with_a_log_that_panics()
}

fn fixture(name: &str) -> String {
    std::fs::read_to_string(format!("{}/fixtures/{name}.wat", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// A module that writes a line in one function of `meta`.
fn talker(head: &str) -> Vec<u8> {
    let meta = fixture("meta");
    let talks = format!("{head} (call $log (i32.const 1) (i32.const 1024) (i32.const 7))");
    assert!(meta.contains(head), "{meta}");
    let text = format!(
        "(module (import \"tidegate:policy/diag@0.1.0\" \"log\" (func $log (param i32 i32 i32))) {} {} {})",
        fixture("memory"),
        meta.replace(head, &talks),
        fixture("idle")
    );
    author::component(&wat::parse_str(&text).unwrap()).unwrap()
}

#[test]
fn a_host_that_panics_in_a_decision_is_a_fault_of_the_module_and_the_next_one_is_asked() {
    let bytes = std::fs::read(format!("{}/fixtures/fickle.wasm", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let sitting = broken().admit(&bytes).unwrap().seat(Slot::Retry, &[]).unwrap();
    let question = |spent| {
        Question::Retry(RetryQuery {
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
        })
    };
    let trouble = sitting.ask(&question(207)).outcome.unwrap_err();
    assert_eq!(trouble.to_string(), "trap: the host failed on it: the log broke");
    assert!(sitting.ask(&question(1)).outcome.is_ok());
}

#[test]
fn a_host_that_panics_in_meta_refuses_the_module() {
    for (head, code) in [
        ("meta@0.1.0#describe\") (result i32)", "describe"),
        ("meta@0.1.0#configure\") (param $settings i32) (param $count i32) (result i32)", "configure"),
    ] {
        assert!(Host::new(Ceilings::default()).unwrap().admit(&talker(head)).is_ok(), "{code}");
        let rejection = broken().admit(&talker(head)).unwrap_err();
        assert_eq!(rejection.code, code, "{rejection}");
        assert!(rejection.why.ends_with("the host failed on it: the log broke"), "{rejection}");
    }
}
