//! The ordinary life of a module on a site that goes on working: loaded, tried, activated, shadowed, rolled back, put
//! away; and everything that is refused, with its code and its words.

use http::Method;
use serde_json::{Value, json};
use tidegate_policies::author;

use super::*;
use crate::rig::{Plan, run, sha256};

/// What the site says of its slots, without when.
fn slots(view: &Value) -> Value {
    let mut slots = view["slots"].clone();
    for seat in slots.as_array_mut().expect("slots") {
        seat.as_object_mut().expect("a slot").remove("probation_until");
    }
    slots
}

#[test]
fn a_module_is_loaded_tried_activated_and_rolled_back_while_the_site_works() {
    run(async {
        let cloud = Cloud::start().await;
        let site = Plan::with_cloud(&cloud).start().await;
        let fresh = prepared(&site).await;
        let default = fresh["default"].as_str().expect("a site has a default module").to_owned();
        for slot in ["auto-scan", "retry", "concurrency", "bandwidth", "order"] {
            let seat = seat(&fresh, slot);
            assert_eq!((&seat["by"], &seat["origin"]), (&json!("module"), &json!("default")), "{seat}");
            assert_eq!(seat["module"], default, "{seat}");
        }
        carried(&site, &cloud, "by-default").await;
        let first = decisions(&site, "concurrency").await;
        let last = first.last().expect("the upload was a decision");
        assert!(is_by(last, &default), "{last}");
        assert_eq!(last["set"], fresh["set"], "{last}");
        assert_eq!(last["verdict"]["uploads"], 2, "{last}");
        assert!(last["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{last}");

        // Loading tells who it is and what it would have done, and changes nothing.
        let bytes = suite("one");
        let (status, body) =
            put(&site, "concurrency", &bytes, &[("tidegate-settings", r#"{"uploads":7}"#)]).await;
        assert_eq!(status, 201, "{body}");
        let module = sha256(&bytes);
        assert_eq!((&body["module"], &body["state"]), (&json!(module), &json!("admitted")), "{body}");
        assert_eq!((&body["name"], &body["version"]), (&json!("fixture"), &json!("1.0.0")), "{body}");
        assert_eq!(body["size"], bytes.len(), "{body}");
        assert_eq!(body["hooks"].as_array().map(Vec::len), Some(5), "{body}");
        assert_eq!(body["warnings"], json!([]), "{body}");
        let diff = &body["diff"];
        assert!(diff["compared"].as_u64().is_some_and(|n| n > 0), "{body}");
        assert_eq!((&diff["differed"], &diff["failed"]), (&diff["compared"], &json!(0)), "{body}");
        assert_eq!(diff["samples"][0]["decided"]["uploads"], 2, "{body}");
        assert_eq!(diff["samples"][0]["would"]["uploads"], 7, "{body}");
        let (_, same) = put(&site, "concurrency", &bytes, &[]).await;
        assert_eq!(same["diff"]["differed"], 0, "two uploads are what the default allows: {same}");
        let loaded = policies(&site).await;
        assert_eq!((slots(&loaded), &loaded["generation"]), (slots(&fresh), &fresh["generation"]));
        let about = site.read(&format!("/api/v1/policies/modules/{module}")).await;
        assert_eq!(about["reasons"], json!(["one", "two"]), "{about}");
        assert_eq!(about["settings"][0]["key"], "uploads", "{about}");

        // Activating takes effect at once, on probation.
        let before = fresh["generation"].as_u64().expect("a number");
        let answer = activate(&site, "concurrency", &module, &json!({"uploads": 7})).await;
        assert_eq!(answer["generation"], before + 1, "{answer}");
        assert_eq!(answer["would_differ"]["differed"], answer["would_differ"]["compared"], "{answer}");
        assert!(answer["probation_until"].is_string(), "{answer}");
        let active = policies(&site).await;
        assert_ne!(active["set"], fresh["set"]);
        assert_eq!((&active["set"], &active["generation"]), (&answer["set"], &answer["generation"]));
        assert_eq!(active["probation"]["slots"], json!(["concurrency"]), "{active}");
        let ours = seat(&active, "concurrency");
        assert_eq!((&ours["module"], &ours["origin"]), (&json!(module), &json!("chosen")), "{ours}");
        assert_eq!((&ours["settings"], &ours["name"]), (&json!({"uploads": 7}), &json!("fixture")), "{ours}");
        assert_eq!(seat(&active, "order")["module"], default, "the other slots are as they were");
        carried(&site, &cloud, "by-the-module").await;
        let second = decisions(&site, "concurrency").await;
        let newest = second.last().expect("a decision");
        assert!(second.len() > first.len() && is_by(newest, &module), "{newest}");
        assert_eq!((&newest["set"], &newest["reason"]), (&active["set"], &json!("two")), "{newest}");
        assert_eq!(
            (&newest["verdict"]["uploads"], &newest["clamped"]),
            (&json!(7), &json!(false)),
            "{newest}"
        );
        let words = ["slot=\"concurrency\"", &module[..SHORT], "reason=\"two\"", "by=\"module\""];
        assert!(metric(&site, "tidegate_policy_decisions", &words).await > 0);
        assert!(metric(&site, "tidegate_policy_fuel_count", &words[..2]).await > 0);
        assert_eq!(metric(&site, "tidegate_policy_generation", &[]).await, before + 1);

        // Another one decides beside it, without effect.
        let beside = load(&site, "concurrency", &suite("two")).await;
        let shadow = json!({"module": beside, "settings": {"uploads": 3}});
        let told_so = told(&site, "concurrency/shadow", &shadow).await;
        assert_eq!(told_so["shadow"]["module"], beside, "{told_so}");
        carried(&site, &cloud, "with-a-shadow").await;
        let shadowed = policies(&site).await;
        let seen = &shadowed["shadow"];
        assert!(seen["compared"].as_u64().is_some_and(|n| n > 0), "{seen}");
        assert_eq!((&seen["differed"], &seen["slot"]), (&seen["compared"], &json!("concurrency")), "{seen}");
        assert_eq!(seen["samples"][0]["would"]["uploads"], 3, "{seen}");
        assert_eq!(seen["samples"][0]["decided"]["uploads"], 7, "{seen}");
        assert_eq!(slots(&shadowed), slots(&active), "a shadow has no effect");
        let newest = decisions(&site, "concurrency").await.pop().expect("a decision");
        assert!(is_by(&newest, &module), "{newest}");
        let ended = site.send(Method::DELETE, "/api/v1/policies/shadow").await;
        assert_eq!((ended.status.as_u16(), &ended.json()["shadow"]), (200, &Value::Null));

        // Back, to what was good and to what once was.
        let back = told(&site, "rollback", &json!({})).await;
        assert_eq!((&back["set"], &back["generation"]), (&fresh["set"], &json!(before + 2)), "{back}");
        assert_eq!(slots(&back), slots(&fresh));
        carried(&site, &cloud, "rolled-back").await;
        let newest = decisions(&site, "concurrency").await.pop().expect("a decision");
        assert!(is_by(&newest, &default), "{newest}");
        let again = told(&site, "rollback", &json!({"generation": before + 1})).await;
        assert_eq!(again["set"], active["set"], "{again}");
        let (status, none) = ask(&site, "rollback", &json!({"generation": 999})).await;
        assert_eq!((status, &none["code"]), (404, &json!("policy_unknown_generation")), "{none}");
        let reset = told(&site, "concurrency/reset", &json!({})).await;
        assert_eq!(reset["set"], fresh["set"], "{reset}");

        let turns = history(&site).await;
        let what: Vec<_> = turns.iter().map(|turn| turn["what"].as_str().expect("a word")).collect();
        assert_eq!(what[..4], ["reset", "rolled_back", "rolled_back", "activated"], "{turns:?}");
        let numbers: Vec<_> =
            turns.iter().map(|turn| turn["generation"].as_u64().expect("a number")).collect();
        assert!(numbers.windows(2).all(|pair| pair[0] == pair[1] + 1), "{numbers:?}");
        assert_eq!((numbers[0], &turns[0]["set"]), (before + 4, &fresh["set"]), "{turns:?}");
        assert_eq!(turns[1]["slots"]["concurrency"]["module"], module, "{turns:?}");
    });
}

#[test]
fn a_module_that_was_put_away_stays_away_until_it_is_taken_back() {
    run(async {
        let cloud = Cloud::start().await;
        let site = Plan::with_cloud(&cloud).start().await;
        let fresh = prepared(&site).await;
        let bytes = suite("put-away");
        let module = load(&site, "bandwidth", &bytes).await;
        activate(&site, "bandwidth", &module, &json!({})).await;
        activate(&site, "order", &module, &json!({})).await;
        let away = format!("modules/{module}/quarantine");
        let gone = told(&site, &away, &json!({"reason": "it limps"})).await;
        assert_eq!(gone["set"], fresh["set"], "it lost every slot: {gone}");
        let why = quarantine(&gone, &module);
        assert_eq!((&why["code"], &why["why"]), (&json!("operator"), &json!("it limps")), "{gone}");
        let turns = history(&site).await;
        assert_eq!(
            (&turns[0]["what"], &turns[0]["module"]),
            (&json!("ejected"), &json!(module)),
            "{turns:?}"
        );
        assert_eq!(metric(&site, "tidegate_policy_quarantined", &[]).await, 1);

        let body = json!({"module": module});
        for path in ["order/activate", "order/shadow"] {
            let (status, refused) = ask(&site, path, &body).await;
            assert_eq!((status, &refused["code"]), (409, &json!("policy_quarantined")), "{path}: {refused}");
            assert!(refused["error"].as_str().is_some_and(|t| t.contains("unquarantine")), "{refused}");
        }
        let (status, refused) = put(&site, "order", &bytes, &[]).await;
        assert_eq!(
            (status, &refused["code"]),
            (409, &json!("policy_quarantined")),
            "the same bytes: {refused}"
        );
        let path = format!("/api/v1/policies/modules/{module}");
        let refused = site.send(Method::DELETE, &path).await;
        assert_eq!(refused.status.as_u16(), 409, "a quarantine is not forgotten: {}", refused.json());
        carried(&site, &cloud, "without-it").await;

        let back = told(&site, &format!("modules/{module}/unquarantine"), &json!({})).await;
        assert_eq!(quarantine(&back, &module), &Value::Null, "{back}");
        activate(&site, "order", &module, &json!({})).await;
        let refused = site.send(Method::DELETE, &path).await;
        assert_eq!(refused.json()["code"], "policy_in_use", "{}", refused.json());
        told(&site, "order/reset", &json!({})).await;
        let blob = site.data_dir().join("policies").join(format!("{module}.wasm"));
        assert!(blob.exists(), "its bytes are kept as long as it is known");
        let removed = site.send(Method::DELETE, &path).await;
        assert_eq!(removed.status.as_u16(), 200, "{}", removed.json());
        assert_eq!(known(&removed.json(), &module), None);
        until("its bytes to be gone", STEP, async || (!blob.exists()).then_some(())).await;
        let (status, refused) = ask(&site, "order/activate", &body).await;
        assert_eq!((status, &refused["code"]), (404, &json!("policy_unknown_module")), "{refused}");
        carried(&site, &cloud, "after-it").await;
    });
}

#[test]
fn the_committed_examples_decide_on_a_site() {
    run(async {
        let cloud = Cloud::start().await;
        let site = Plan::with_cloud(&cloud).start().await;
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../policies/examples");
        let mut tried = Vec::new();
        for entry in std::fs::read_dir(folder).expect("the examples") {
            let Ok(manifest) =
                std::fs::read_to_string(entry.as_ref().expect("a folder").path().join("policy.toml"))
            else {
                continue;
            };
            let manifest: toml::Table = manifest.parse().expect("it is TOML");
            let bytes = std::fs::read(entry.expect("a folder").path().join("policy.wasm")).expect("a module");
            let name = manifest["name"].as_str().expect("a name");
            assert_eq!(manifest["sha256"].as_str(), Some(sha256(&bytes).as_str()), "{name}");
            // So that recordings go at any hour of the day that the test runs at.
            let settings = if name == "night-window" { json!({"uploads-by-day": 2}) } else { json!({}) };
            let hooks = manifest["hooks"].as_array().expect("a list").iter().filter_map(|hook| hook.as_str());
            for hook in hooks {
                let module = load(&site, hook, &bytes).await;
                let answer = activate(&site, hook, &module, &settings).await;
                assert_eq!(answer["slot"]["module"], module, "{name}: {answer}");
                carried(&site, &cloud, &format!("{name}-{hook}-{}", tried.len())).await;
                if hook == "concurrency" {
                    let newest = decisions(&site, hook).await.pop().expect("a decision");
                    assert!(is_by(&newest, &module), "{name}: {newest}");
                    assert_ne!(newest["reason"], "unspecified", "{name} says why: {newest}");
                }
                told(&site, &format!("{hook}/reset"), &json!({})).await;
                tried.push(format!("{name} {hook}"));
            }
        }
        assert!(tried.len() >= 6, "{tried:?}");
        assert_eq!(metric(&site, "tidegate_policy_faults", &[]).await, 0, "none of {tried:?} had a fault");
    });
}

/// A module made for another contract: with one thing changed.
fn made_for(change: (&str, &str)) -> Vec<u8> {
    let wit = tidegate_policies::WIT.replacen(change.0, change.1, 1);
    assert_ne!(wit, tidegate_policies::WIT, "the contract has {:?}", change.0);
    let version = if change.1.contains("@0.2.0") { "@0.2.0#" } else { "@0.1.0#" };
    let module = core(&format!("{}\n{}", text("meta"), retry_alone()).replace("@0.1.0#", version));
    let world = "world made { import diag; export meta; export retry; }";
    author::component_for(&module, &wit, world).expect("it fits its own contract")
}

fn retry_alone() -> String {
    format!(
        "{RETRY} (i32.store8 (i32.const 2048) (i32.const 0)) (i64.store (i32.const 2056) (i64.const 1000))
        (i64.store (i32.const 2064) (i64.const 0)) (i32.store16 (i32.const 2072) (i32.const 0)) (i32.const 2048))"
    )
}

/// A module whose description never ends.
fn endless() -> Vec<u8> {
    let body = format!("{}\n{}", text("meta"), retry_alone());
    let told = r#"(func (export "tidegate:policy/meta@0.1.0#describe") (result i32) (i32.const 1216))"#;
    assert!(body.contains(told), "the fixture describes itself in one line");
    component(&body.replace(told, &told.replace("(i32.const 1216)", "(loop $on (br $on)) (unreachable)")))
}

#[test]
fn every_refusal_has_a_code_and_words_and_the_site_works_on() {
    run(async {
        let cloud = Cloud::start().await;
        let site = Plan::with_cloud(&cloud).start().await;
        let fresh = prepared(&site).await;

        let mut flipped = suite("flipped");
        flipped.truncate(flipped.len() / 2);
        let wasi = r#"(component (import "wasi:clocks/wall-clock@0.2.0" (instance)))"#;
        let two_fields = (
            "record decision { action: action, memo: u64, reason: reason }",
            "record decision { action: action, memo: u64 }",
        );
        let modules: [(&str, Vec<u8>, &str, &str); 9] = [
            ("corrupt bytes", b"#!/bin/sh\n".to_vec(), "not_a_component", "not a WebAssembly component"),
            ("half a module", flipped, "not_a_component", "not a WebAssembly component"),
            ("a core module", core(&retry_alone()), "not_a_component", "a core module, not a component"),
            ("wasi", wat::parse_str(wasi).expect("a component"), "imports", "wasi:clocks/wall-clock@0.2.0"),
            ("another version", made_for(("policy@0.1.0", "policy@0.2.0")), "version", "policy@0.2.0"),
            ("wrong types", made_for(two_fields), "types", "expected record of 3 fields, found 2 fields"),
            ("no end", endless(), "describe", "meta.describe: used up its fuel"),
            ("a loop", component(&text("loops")), "vectors", "retry.next: used up its fuel"),
            (
                "no hook",
                wat::parse_str(
                    r#"(component (instance $i) (export "tidegate:policy/meta@0.1.0" (instance $i)))"#,
                )
                .expect("a component"),
                "no_hook",
                "auto-scan, retry, concurrency, bandwidth, order",
            ),
        ];
        for (what, bytes, code, words) in &modules {
            for turn in ["first", "second"] {
                let (status, body) = put(&site, "retry", bytes, &[]).await;
                assert_eq!(
                    (status, &body["code"]),
                    (422, &json!("policy_rejected")),
                    "{what}, {turn}: {body}"
                );
                assert_eq!(body["rejection"], *code, "{what}: {body}");
                assert!(body["error"].as_str().is_some_and(|text| text.contains(words)), "{what}: {body}");
                let (status, refused) = ask(&site, "retry/activate", &json!({"module": sha256(bytes)})).await;
                assert_eq!((status, &refused["code"]), (422, &json!("policy_rejected")), "{what}: {refused}");
            }
            let view = policies(&site).await;
            let row = known(&view, &sha256(bytes)).unwrap_or_else(|| panic!("{what} in {view}"));
            assert_eq!(
                (&row["state"], &row["rejection"]),
                (&json!("rejected"), &json!(code)),
                "{what}: {row}"
            );
        }

        let mut huge = suite("huge");
        huge.resize(12 << 20, 0);
        let refused = send(&site, Method::PUT, "/api/v1/policies/retry", &[], &huge).await;
        // A client that is refused in the middle of twelve megabytes may learn it from the end of its connection.
        if let Ok(answer) = refused {
            assert_eq!(answer.status.as_u16(), 413, "{}", answer.json());
            assert_eq!(answer.json()["code"], "body_too_large", "{}", answer.json());
            assert!(
                answer.json()["error"].as_str().is_some_and(|text| text.contains("262144")),
                "{}",
                answer.json()
            );
        }
        let (status, body) = put(&site, "retry", b"", &[]).await;
        assert_eq!((status, &body["field"]), (400, &json!("body")), "{body}");

        let retry = load(&site, "retry", &component(&retry_alone())).await;
        let good = load(&site, "order", &suite("good")).await;
        let (status, body) = put(&site, "lunch", &suite("good"), &[]).await;
        assert_eq!(
            (status, &body["code"], &body["field"]),
            (400, &json!("bad_field"), &json!("slot")),
            "{body}"
        );
        let (status, body) = put(&site, "order", &component(&retry_alone()), &[]).await;
        assert_eq!((status, &body["warnings"]), (201, &json!(["it does not serve order"])), "{body}");
        for settings in ["{", "[]", r#"{"uploads": 1.5}"#, r#"{"uploads": null}"#] {
            let (status, body) =
                put(&site, "order", &suite("good"), &[("tidegate-settings", settings)]).await;
            assert_eq!((status, &body["field"]), (400, &json!("settings")), "{settings}: {body}");
        }
        let nobody = "0".repeat(64);
        let asks: [(&str, Value, u16, &str, &str); 10] = [
            ("lunch/activate", json!({"module": good}), 400, "bad_field", "auto-scan, retry, concurrency"),
            ("order/activate", json!({}), 400, "bad_field", "module"),
            ("order/activate", json!({"module": "abc"}), 400, "bad_field", "64 hexadecimal digits"),
            (
                "order/activate",
                json!({"module": nobody}),
                404,
                "policy_unknown_module",
                "load its bytes first",
            ),
            ("order/activate", json!({"module": retry}), 422, "policy_hook_missing", "does not serve order"),
            ("order/shadow", json!({"module": retry}), 422, "policy_hook_missing", "does not serve order"),
            (
                "order/activate",
                json!({"module": good, "settings": {"uploads": 5000}}),
                422,
                "policy_rejected",
                "at most 1000",
            ),
            (
                "order/activate",
                json!({"module": good, "settings": {"downloads": 1}}),
                422,
                "policy_rejected",
                "downloads is no setting of this policy",
            ),
            (
                "order/shadow",
                json!({"module": good, "settings": {"uploads": true}}),
                422,
                "policy_rejected",
                "uploads must be a whole number",
            ),
            (
                "order/activate",
                json!({"module": good, "settings": {"uploads": 0.5}}),
                400,
                "bad_field",
                "settings",
            ),
        ];
        for (path, body, status, code, words) in asks {
            let (found, answer) = ask(&site, path, &body).await;
            assert_eq!((found, &answer["code"]), (status, &json!(code)), "{path} {body}: {answer}");
            assert!(answer["error"].as_str().is_some_and(|t| t.contains(words)), "{path} {body}: {answer}");
        }

        let now = policies(&site).await;
        assert_eq!(now["generation"], fresh["generation"], "nothing of this changed anything");
        assert_eq!(slots(&now), slots(&fresh));
        let files = std::fs::read_dir(site.data_dir().join("policies")).expect("the folder of modules");
        let largest = files.map(|file| file.expect("a file").metadata().expect("its size").len()).max();
        assert!(largest.is_some_and(|largest| largest <= 256 << 10), "the huge one left {largest:?} bytes");
        carried(&site, &cloud, "after-all").await;
    });
}
