//! What `tidegate policy new` writes: that it is whole, and that it builds and answers where there are compilers.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use tidegate_core::policy::Slot;
use tidegate_policies::author::recipe::{self, BuildError, Built};
use tidegate_policies::author::templates::{self, File};
use tidegate_policies::{Ceilings, Host, json};

use crate::book;

#[test]
fn a_new_policy_has_nothing_left_to_fill_in_and_all_that_its_build_needs() {
    for slot in Slot::ALL {
        for (files, needed) in [
            (templates::rust("night-shift", slot), &["Cargo.toml", "src/lib.rs", "sdk/src/lib.rs"][..]),
            (templates::c("night-shift", slot), &["policy.c", "gen/contract.c", "shim/shim.c"][..]),
        ] {
            for path in needed {
                assert!(files.iter().any(|(file, _)| file == path), "{path} for {}", slot.name());
            }
            for (path, text) in &files {
                for mark in ["@NAME@", "@HOOK@", "@BODY@"] {
                    assert!(!text.contains(mark), "{path} for {} still has {mark}", slot.name());
                }
                if path.ends_with(".jsonl") {
                    let vector: serde_json::Value = serde_json::from_str(text).expect("JSON");
                    json::read_question(&vector["question"]).expect("a question");
                    json::read_verdict(&vector["verdict"]).expect("a verdict");
                }
            }
        }
    }
}

#[test]
fn names_that_a_site_would_refuse_are_told_apart() {
    for name in ["a", "night-shift", "v2"] {
        assert!(templates::is_name(name), "{name}");
    }
    for name in ["", "2fast", "Night", "night_shift", "-x", "a b", &"x".repeat(65)] {
        assert!(!templates::is_name(name), "{name}");
    }
}

/// Says aloud that a test did nothing for want of a compiler, and fails where nothing may be skipped.
fn skip(test: &str, missing: &BuildError) {
    // Not by a macro: those are captured where a test passes.
    writeln!(std::io::stderr(), "SKIPPED {test}: {missing}").expect("standard error");
    let never = std::env::var_os("TIDEGATE_TEST_NO_SKIP").is_some();
    assert!(!never, "{test} was skipped, and nothing may be skipped here: {missing}");
}

fn target() -> PathBuf {
    book::policies().join("../target/policies")
}

/// Writes a project and builds it; then it is admitted and answers its first vector.
fn builds_and_answers(
    slot: Slot,
    language: &str,
    files: &[File],
    build: impl Fn(&Path) -> Result<Built, BuildError>,
) {
    let folder = target().join("new").join(format!("{language}-{}", slot.name()));
    if folder.exists() {
        fs::remove_dir_all(&folder).expect("an old project goes");
    }
    for (path, text) in files {
        let path = folder.join(path);
        fs::create_dir_all(path.parent().expect("it lies in the project")).expect("a folder");
        fs::write(path, text).expect("a file of the project");
    }
    let place = format!("a new policy in {language} for {}", slot.name());
    let built = build(&folder).unwrap_or_else(|why| panic!("{place}: {why}"));
    let host = Host::new(Ceilings::default()).expect("the host starts");
    let module = host.admit(&built.component).unwrap_or_else(|why| panic!("{place}: {why}"));
    assert_eq!(module.facts().slots, [slot], "{place}");
    assert_eq!(module.facts().name, "night-shift", "{place}");
    let text = fs::read_to_string(folder.join("vectors/first.jsonl")).expect("its vectors");
    let vector: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let sitting = module.seat(slot, &[]).unwrap_or_else(|why| panic!("{place}: {why}"));
    let answer = sitting.ask(&json::read_question(&vector["question"]).expect("a question"));
    let given = answer.outcome.unwrap_or_else(|trouble| panic!("{place}: {trouble}")).0;
    assert_eq!(given, json::read_verdict(&vector["verdict"]).expect("a verdict"), "{place}");
}

#[test]
fn a_new_policy_in_rust_builds_and_answers_for_every_hook() {
    let rust = match recipe::Rust::pinned().map_or_else(recipe::Rust::find, Ok) {
        Ok(rust) => rust,
        Err(missing) => return skip("a_new_policy_in_rust_builds_and_answers_for_every_hook", &missing),
    };
    for slot in Slot::ALL {
        let build = |folder: &Path| recipe::build_rust(folder, &rust, &target());
        builds_and_answers(slot, "rust", &templates::rust("night-shift", slot), build);
    }
}

#[test]
fn a_new_policy_in_c_builds_and_answers_for_every_hook() {
    let c = match recipe::C::find() {
        Ok(c) => c,
        Err(missing) => return skip("a_new_policy_in_c_builds_and_answers_for_every_hook", &missing),
    };
    for slot in Slot::ALL {
        let build = |folder: &Path| recipe::build_c(folder, &c, &target());
        builds_and_answers(slot, "c", &templates::c("night-shift", slot), build);
    }
}
