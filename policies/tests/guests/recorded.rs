//! Decisions that were recorded once and are committed: every build of the host gives them again, to the letter. This
//! is how builds are compared that cannot run in one process: with and without optimisation, one processor and another.
//! docs/testing.md has the command for a release build.

use std::fmt::Write as _;
use std::fs;
use std::sync::Once;

use serde_json::{Value, json};
use tidegate_core::policy::Question;
use tidegate_policies::{Ceilings, Host, Module, json as decisions};

use crate::book::{Guest, policies};
use crate::differential::{Dice, answer};

/// Decisions of each module in each of its slots.
const RECORDED: usize = 60;
/// Longer ones are left out, bytes: the folder is read by people too.
const LINE_MAX: usize = 1_500;
/// Names the variable with which they are recorded anew.
const WRITE: &str = "TIDEGATE_WRITE_DECISIONS";

fn file(guest: &Guest) -> std::path::PathBuf {
    policies().join("fixtures/decisions").join(format!("{}.jsonl", guest.place.replace('/', "-")))
}

fn line(module: &Module, question: &Question) -> String {
    let sitting = module.seat(question.slot(), &[]).expect("defaults are right");
    let (verdict, _) = answer(&sitting, question);
    let slot = question.slot().name();
    let whole = json!({
        "slot": slot,
        "question": decisions::question(question),
        "verdict": decisions::verdict(&verdict),
    });
    whole.to_string()
}

fn record(guest: &Guest) -> String {
    let host = Host::new(Ceilings::default()).expect("the host starts");
    let module = host.admit(&guest.wasm()).expect("what is committed is admitted");
    let mut dice = Dice(2026);
    let mut text = String::new();
    for slot in module.facts().slots.clone() {
        let mut kept = 0;
        while kept < RECORDED {
            let line = line(&module, &dice.question(slot));
            if line.len() <= LINE_MAX {
                writeln!(text, "{line}").expect("a string takes everything");
                kept += 1;
            }
        }
    }
    text
}

/// Records anew, once, if that was asked for.
fn recorded_anew() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if std::env::var_os(WRITE).is_none() {
            return;
        }
        for guest in Guest::all() {
            let path = file(&guest);
            fs::create_dir_all(path.parent().expect("it lies in a folder")).expect("a folder");
            fs::write(&path, record(&guest)).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        }
    });
}

fn replay(host: &Host) {
    recorded_anew();
    for guest in Guest::all() {
        let path = file(&guest);
        let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let module = host.admit(&guest.wasm()).expect("what is committed is admitted");
        let mut asked = 0;
        for recorded in text.lines() {
            let value: Value = serde_json::from_str(recorded).expect("a line is JSON");
            let question = decisions::read_question(&value["question"]).expect("a question");
            let now = line(&module, &question);
            assert_eq!(
                now, recorded,
                "{}: if its rules were meant to change, record anew with {WRITE}=1",
                guest.place
            );
            asked += 1;
        }
        assert_eq!(asked, RECORDED * module.facts().slots.len(), "{}", path.display());
    }
}

#[test]
fn recorded_decisions_are_the_same_in_compiled_code_of_this_build() {
    replay(&Host::new(Ceilings::default()).expect("the host starts"));
}

#[test]
fn recorded_decisions_are_the_same_in_the_interpreter() {
    replay(&Host::interpreting(Ceilings::default()).expect("the interpreter starts"));
}
