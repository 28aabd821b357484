//! Each committed module against its card, its sources, admission and its vectors.

use std::fs;

use serde_json::Value;
use tidegate_policies::author::templates;
use tidegate_policies::{Ceilings, Host, json};

use tidegate_core::policy::Slot;

use crate::book::{self, Guest, REBUILD};

fn host() -> Host {
    Host::new(Ceilings::default()).expect("the host starts")
}

#[test]
fn every_module_has_the_bytes_that_its_card_names() {
    for guest in Guest::all() {
        let card = guest.card().expect("a card");
        assert_eq!(card.sha256, book::hash(&guest.wasm()), "{}: rebuild with {REBUILD}", guest.place);
    }
}

#[test]
fn no_source_was_edited_without_building_its_module_again() {
    for guest in Guest::all() {
        let card = guest.card().expect("a card");
        assert_eq!(
            card.sources,
            guest.sources_hash(),
            "{}: its sources, the SDK or the contract changed since policy.wasm was built; rebuild with {REBUILD}",
            guest.place
        );
    }
}

#[test]
fn every_module_is_admitted_under_its_name_with_its_hooks() {
    for guest in Guest::all() {
        let card = guest.card().expect("a card");
        let module = host().admit(&guest.wasm()).unwrap_or_else(|why| panic!("{}: {why}", guest.place));
        assert_eq!(module.facts().name, card.name);
        let hooks: Vec<&str> = module.facts().slots.iter().map(|slot| slot.name()).collect();
        assert_eq!(hooks, card.hooks, "{}", guest.place);
        for slot in module.facts().slots.clone() {
            module.seat(slot, &[]).unwrap_or_else(|why| panic!("{} in {}: {why}", guest.place, slot.name()));
        }
    }
}

#[test]
fn modules_are_small() {
    for guest in Guest::all() {
        let size = guest.wasm().len();
        // Nearly ten thousand bytes of a module with all five hooks are the component's own wiring and types.
        let most = if guest.place == "default" { 24 } else { 17 } * 1024;
        assert!(
            (4096..=most).contains(&size),
            "{} has {size} bytes, at most {most} are allowed",
            guest.place
        );
    }
}

#[test]
fn every_module_answers_its_vectors() {
    for guest in Guest::all() {
        let module = host().admit(&guest.wasm()).expect("it is admitted");
        let mut files = Vec::new();
        book::walk(&guest.folder.join("vectors"), &mut files);
        let mut asked: Vec<Slot> = Vec::new();
        for file in files {
            for (n, line) in fs::read_to_string(&file).expect("vectors").lines().enumerate() {
                let place = format!("{}:{}", file.display(), n + 1);
                let vector: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{place}: {e}"));
                let slot = Slot::of(vector["slot"].as_str().unwrap_or_default()).expect("a slot");
                let settings = match &vector["settings"] {
                    Value::Null => Vec::new(),
                    given => json::read_settings(given).unwrap_or_else(|e| panic!("{place}: {e}")),
                };
                let question =
                    json::read_question(&vector["question"]).unwrap_or_else(|e| panic!("{place}: {e}"));
                let verdict =
                    json::read_verdict(&vector["verdict"]).unwrap_or_else(|e| panic!("{place}: {e}"));
                let sitting = module.seat(slot, &settings).unwrap_or_else(|why| panic!("{place}: {why}"));
                let answer = sitting.ask(&question);
                let given = answer.outcome.unwrap_or_else(|trouble| panic!("{place}: {trouble}")).0;
                assert_eq!(given, verdict, "{place}");
                let most = vector["fuel_at_most"].as_u64().unwrap_or(u64::MAX);
                assert!(answer.fuel <= most, "{place}: it took {} of fuel, at most {most}", answer.fuel);
                asked.push(slot);
            }
        }
        for slot in &module.facts().slots {
            assert!(asked.contains(slot), "{} has no vector for {}", guest.place, slot.name());
        }
    }
}

#[test]
fn wrong_settings_are_refused_with_their_name_and_what_is_right() {
    let cases: [(&str, Slot, &str, &str); 6] = [
        ("default", Slot::Retry, r#"{"attempts": 0}"#, "attempts must be a number above 0"),
        ("default", Slot::Retry, r#"{"attempts": true}"#, "attempts must be a whole number"),
        ("default", Slot::Retry, r#"{"attemps": 3}"#, "attemps"),
        (
            "examples/night-window",
            Slot::Concurrency,
            r#"{"from-minute": 1440}"#,
            "from-minute must be from 0 to 1439",
        ),
        ("examples/retry-by-class", Slot::Retry, r#"{"base-ms": 0}"#, "base-ms must be from 1 to 86400000"),
        ("examples/retry-by-class-c", Slot::Retry, r#"{"base-ms": 0}"#, "base-ms must be from 1 to 86400000"),
    ];
    for (place, slot, settings, why) in cases {
        let module = host().admit(&Guest::of(place).wasm()).expect("it is admitted");
        let settings = json::read_settings(&serde_json::from_str(settings).expect("JSON")).expect("settings");
        let refused = module.seat(slot, &settings).expect_err("a wrong setting").to_string();
        assert!(refused.contains(why), "{place}: {refused}");
    }
}

#[test]
fn the_example_in_c_has_the_bindings_that_new_projects_get() {
    let folder = Guest::of("examples/retry-by-class-c").folder;
    for (path, text) in templates::c("any", Slot::Retry) {
        if path.starts_with("gen/") || path.starts_with("shim/") {
            assert_eq!(fs::read_to_string(folder.join(path)).expect(path), text, "{path}");
        }
    }
}
