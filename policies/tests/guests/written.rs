//! What `tidegate policy new` writes, as far as it can be told without a compiler.

use tidegate_core::policy::Slot;
use tidegate_policies::author::templates;
use tidegate_policies::json;

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
