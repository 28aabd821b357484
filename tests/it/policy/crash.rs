//! kill -9 at every step of a module's life: what the site said before is what it says after, nothing is half done, and
//! bytes without a record and records without bytes harm nobody.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::rig::{Plan, run, sha256};

/// More faults than a site forgives by default, so that each step before the last one can be seen.
const FAULTS: usize = 8;

/// What a site says of its policies and must remember: all of it but what this process counted and prepared.
fn durable(view: &Value) -> Value {
    let mut view = view.clone();
    let fields = view.as_object_mut().expect("an object");
    for volatile in ["figures", "prepared", "preparing", "watch"] {
        fields.remove(volatile);
    }
    // A trial is a whole one of a running process: a start begins it anew.
    let ends = fields.get("probation").and_then(|trial| trial.get("until")).cloned();
    if let Some(trial) = fields.get_mut("probation").and_then(Value::as_object_mut) {
        trial.remove("until");
    }
    for seat in fields.get_mut("slots").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(until) = seat.as_object_mut().and_then(|seat| seat.remove("probation_until")) {
            assert_eq!(Some(until), ends, "the slot and the set end their trial together");
        }
    }
    if let Some(shadow) = fields.get_mut("shadow").and_then(Value::as_object_mut) {
        shadow.retain(|field, _| ["slot", "module", "settings", "since"].contains(&field.as_str()));
    }
    view
}

/// Kills a site that nothing happens on, starts it again and compares; what it says now.
async fn survives(site: &mut Site, step: &str) -> Value {
    let until = |view: &Value| view["probation"]["until"].as_str().map(str::to_owned);
    let view = policies(site).await;
    let (before, turns, ends) = (durable(&view), history(site).await, until(&view));
    site.kill();
    site.start().await;
    let view = prepared(site).await;
    assert!(until(&view) >= ends, "{step}: a trial grows no shorter: {ends:?}, {:?}", until(&view));
    let after = durable(&view);
    assert_eq!(after, before, "{step}");
    assert_eq!(history(site).await, turns, "{step}");
    after
}

/// The file with a module's bytes.
fn blob(site: &Site, module: &str) -> PathBuf {
    site.data_dir().join("policies").join(format!("{module}.wasm"))
}

/// Faults of the module in a slot that are remembered.
fn faults(view: &Value, slot: &str) -> usize {
    seat(view, slot)["faults"].as_array().expect("a list of faults").len()
}

#[test]
fn kill_nine_at_every_step_of_a_life_leaves_nothing_half_done() {
    run(async {
        let cloud = Cloud::start().await;
        let plan = Plan::with_cloud(&cloud).set("policies.probation", "1s");
        let mut site = plan.set("policies.faults", i64::try_from(FAULTS).expect("a few")).start().await;
        let fresh = prepared(&site).await;
        survives(&mut site, "a fresh site").await;

        let bytes = suite("good");
        let good = load(&site, "concurrency", &bytes).await;
        let view = survives(&mut site, "after it was loaded").await;
        assert_eq!(known(&view, &good).map(|row| &row["state"]), Some(&json!("admitted")), "{view}");
        assert_eq!(view["generation"], fresh["generation"]);
        activate(&site, "concurrency", &good, &json!({"uploads": 5})).await;
        until("the module to be good", STEP, async || {
            let view = policies(&site).await;
            (seat(&view, "concurrency")["good"]["module"] == good && view["probation"].is_null())
                .then_some(())
        })
        .await;
        survives(&mut site, "after its probation").await;
        site.stop().await;
        let mut site = site.with_setting("policies.probation", "1h");
        site.start().await;

        let beside = load(&site, "order", &suite("beside")).await;
        told(&site, "order/shadow", &json!({"module": beside, "settings": {"uploads": 9}})).await;
        let view = survives(&mut site, "while another one decides beside the set").await;
        assert_eq!(view["shadow"]["module"], beside, "{view}");
        carried(&site, &cloud, "with-a-shadow").await;
        let ended = site.send(Method::DELETE, "/api/v1/policies/shadow").await;
        assert_eq!(ended.status.as_u16(), 200, "{}", ended.json());
        let settled = survives(&mut site, "after the shadow").await;
        assert_eq!(settled["shadow"], Value::Null);

        let evil = load(&site, "concurrency", &sleeper("evil", "(unreachable)")).await;
        activate(&site, "concurrency", &evil, &json!({})).await;
        let view = survives(&mut site, "after the answer to its activation, on probation").await;
        assert_eq!(seat(&view, "concurrency")["module"], evil, "{view}");
        assert_eq!(view["probation"]["slots"], json!(["concurrency"]), "{view}");

        let mut recordings = 0;
        for step in ["one", "two"] {
            let before = faults(&policies(&site).await, "concurrency");
            carried(&site, &cloud, &format!("fault-{step}")).await;
            recordings += 1;
            let view = survives(&mut site, &format!("after faults of recording {step}")).await;
            let now = faults(&view, "concurrency");
            assert!(now > before && now < FAULTS, "{before} faults, then {now}: {view}");
            assert_eq!(quarantine(&view, &evil), &Value::Null, "{view}");
        }
        while quarantine(&policies(&site).await, &evil).is_null() {
            assert!(recordings < FAULTS, "each recording is at least one fault: {}", policies(&site).await);
            carried(&site, &cloud, &format!("more-{recordings}")).await;
            recordings += 1;
        }
        let view = survives(&mut site, "after it was ejected").await;
        assert_eq!(quarantine(&view, &evil)["code"], "trap", "{view}");
        assert_eq!(view["set"], settled["set"], "the last good one is back: {view}");
        assert_eq!(seat(&view, "concurrency")["settings"], json!({"uploads": 5}), "{view}");
        let (status, refused) = ask(&site, "concurrency/activate", &json!({"module": evil})).await;
        assert_eq!((status, &refused["code"]), (409, &json!("policy_quarantined")), "{refused}");

        activate(&site, "order", &beside, &json!({})).await;
        survives(&mut site, "on probation again").await;
        let back = told(&site, "rollback", &json!({})).await;
        let view = survives(&mut site, "after it was rolled back").await;
        assert_eq!((&view["set"], &view["set"]), (&back["set"], &settled["set"]), "{view}");
        told(&site, &format!("modules/{good}/quarantine"), &json!({"reason": "out of fashion"})).await;
        let view = survives(&mut site, "after an operator put it away").await;
        assert_eq!(view["set"], fresh["set"], "{view}");
        assert_eq!(quarantine(&view, &good)["why"], "out of fashion", "{view}");
        told(&site, &format!("modules/{good}/unquarantine"), &json!({})).await;
        let removed = site.send(Method::DELETE, &format!("/api/v1/policies/modules/{beside}")).await;
        assert_eq!(removed.status.as_u16(), 200, "{}", removed.json());
        let view = survives(&mut site, "after one was taken back and one was removed").await;
        assert_eq!((quarantine(&view, &good), known(&view, &beside)), (&Value::Null, None), "{view}");
        carried(&site, &cloud, "after-all").await;
        site.stop().await;
        crate::crash::replay(&site);
    });
}

/// What holds after a kill at any moment of loading: the module is whole or unknown, and can be loaded.
async fn whole_or_unknown(site: &Site, bytes: &[u8], fresh: &Value) {
    let module = sha256(bytes);
    until("a module that was half loaded to be looked at", STEP, async || {
        let view = prepared(site).await;
        assert_eq!(view["set"], fresh["set"], "{view}");
        known(&view, &module).is_none_or(|row| row["state"] == "admitted").then_some(())
    })
    .await;
    let folder = std::fs::read_dir(site.data_dir().join("policies")).expect("the folder of modules");
    for file in folder.map(|file| file.expect("a file")) {
        let name = file.file_name().to_string_lossy().into_owned();
        let Some(hash) = name.strip_suffix(".wasm") else {
            assert!(name == "counters.json", "{name} is left over");
            continue;
        };
        let read = std::fs::read(file.path()).expect("a module");
        assert_eq!(sha256(&read), hash, "a file is whole once it has its name");
    }
    assert_eq!(load(site, "order", bytes).await, module);
}

#[test]
fn kill_nine_between_the_request_and_the_answer_leaves_the_module_whole_or_unknown() {
    run(async {
        let cloud = Cloud::start().await;
        let mut site = Plan::with_cloud(&cloud).start().await;
        let fresh = prepared(&site).await;
        // As soon as the request is on its way; as soon as its bytes have their name; once the site knows of them.
        for (round, moment) in ["sent", "stored", "known"].into_iter().cycle().take(6).enumerate() {
            let bytes = suite(&format!("{moment}-{round}"));
            let (file, module) = (blob(&site, &sha256(&bytes)), sha256(&bytes));
            let answered = {
                let request = send(&site, Method::PUT, "/api/v1/policies/order", &[], &bytes);
                let reached = until(moment, STEP, async || match moment {
                    "sent" => Some(()),
                    "stored" => file.exists().then_some(()),
                    _ => {
                        let (status, view) = site.get("/api/v1/policies").await;
                        assert_eq!(status, 200, "{view}");
                        known(&view, &module).map(|_| ())
                    }
                });
                tokio::select! {
                    biased;
                    answer = request => Some(answer),
                    () = reached => None,
                }
            };
            site.kill();
            site.start().await;
            if let Some(Ok(answer)) = answered {
                assert_eq!(answer.status.as_u16(), 201, "{}", answer.json());
                let view = policies(&site).await;
                assert!(known(&view, &module).is_some(), "it was answered for: {view}");
            }
            whole_or_unknown(&site, &bytes, &fresh).await;
        }

        let module = load(&site, "order", &suite("activated")).await;
        for round in 0..4_u64 {
            let before = policies(&site).await;
            let generation = before["generation"].as_u64().expect("a number");
            let settings = json!({"uploads": 10 + round});
            let answered = {
                let body = json!({"module": module, "settings": settings});
                let request = site.http();
                let request = request.post("/api/v1/policies/order/activate", &body);
                // Cut off after some of the time that it takes; which part of it is the operating system's to say.
                let end = Duration::from_millis(5 * (1 + round) * (1 + round));
                tokio::time::timeout(end, request).await.ok()
            };
            site.kill();
            site.start().await;
            let after = prepared(&site).await;
            let came = after["generation"].as_u64().expect("a number") - generation;
            assert!(came <= 1, "{before} and then {after}");
            assert_eq!(seat(&after, "order")["settings"] == settings, came == 1, "{after}");
            assert_eq!(after["set"] == before["set"], came == 0, "{after}");
            assert_eq!(history(&site).await[0]["generation"], after["generation"]);
            if let Some(Ok((200, _, answer))) = answered {
                assert_eq!(came, 1, "it was answered: {answer}, and is gone: {after}");
            }
        }
        carried(&site, &cloud, "after-all").await;
    });
}

#[test]
fn a_record_without_bytes_costs_its_slot_and_the_same_bytes_mend_it() {
    run(async {
        let cloud = Cloud::start().await;
        let mut site = Plan::with_cloud(&cloud).start().await;
        let fresh = prepared(&site).await;
        let bytes = suite("lost");
        let lost = load(&site, "order", &bytes).await;
        let idle = load(&site, "order", &suite("idle")).await;
        activate(&site, "order", &lost, &json!({})).await;
        activate(&site, "bandwidth", &lost, &json!({})).await;
        for (round, damage) in ["deleted", "cut", "deleted"].into_iter().enumerate() {
            site.kill();
            match damage {
                "cut" => std::fs::write(blob(&site, &lost), &bytes[..bytes.len() / 2]).expect("half a file"),
                _ => std::fs::remove_file(blob(&site, &lost)).expect("its bytes"),
            }
            site.start().await;
            let view = until("the site to know that the bytes are gone", STEP, async || {
                let view = prepared(&site).await;
                (known(&view, &lost)?["state"] == "rejected").then_some(view)
            })
            .await;
            assert_eq!(view["set"], fresh["set"], "{damage}: its slots are the default's: {view}");
            let row = known(&view, &lost).expect("it is known");
            assert_eq!(
                (&row["rejection"], &row["quarantined"]),
                (&json!("unreadable"), &Value::Null),
                "{row}"
            );
            assert!(row["why"].as_str().is_some_and(|why| why.contains("load them again")), "{row}");
            let turn = &history(&site).await[0];
            assert_eq!((&turn["what"], &turn["module"]), (&json!("ejected"), &json!(lost)), "{turn}");
            assert_eq!(turn["code"], "unreadable", "{turn}");
            assert!(site.log().contains(&lost), "the log names it");
            let (status, refused) = ask(&site, "order/activate", &json!({"module": lost})).await;
            assert_eq!((status, &refused["code"]), (422, &json!("policy_rejected")), "{refused}");
            carried(&site, &cloud, &format!("{damage}-{round}")).await;
            assert_eq!(load(&site, "order", &bytes).await, lost);
            activate(&site, "order", &lost, &json!({})).await;
            activate(&site, "bandwidth", &lost, &json!({})).await;
            assert_eq!(sha256(&std::fs::read(blob(&site, &lost)).expect("its bytes")), lost);
        }

        // Nobody uses this one; its bytes are missed when they are wanted.
        site.kill();
        std::fs::remove_file(blob(&site, &idle)).expect("its bytes");
        site.start().await;
        prepared(&site).await;
        let (status, refused) = ask(&site, "retry/activate", &json!({"module": idle})).await;
        assert_eq!((status, &refused["rejection"]), (422, &json!("unreadable")), "{refused}");
        assert_eq!(load(&site, "retry", &suite("idle")).await, idle);
        activate(&site, "retry", &idle, &json!({})).await;
    });
}

#[test]
fn bytes_without_a_record_are_nobodys_and_harm_nobody() {
    run(async {
        let cloud = Cloud::start().await;
        let mut site = Plan::with_cloud(&cloud).start().await;
        let fresh = prepared(&site).await;
        site.kill();
        let bytes = suite("found");
        let module = sha256(&bytes);
        std::fs::write(blob(&site, &module), &bytes).expect("a module that nobody loaded");
        std::fs::write(blob(&site, &"f".repeat(64)), b"not what its name says").expect("a file");
        std::fs::write(site.data_dir().join("policies/7.new"), &bytes[..100]).expect("half a file");
        site.start().await;
        let view = prepared(&site).await;
        assert_eq!(durable(&view), durable(&fresh));
        assert!(!site.data_dir().join("policies/7.new").exists(), "what was half written is swept");
        let (status, refused) = ask(&site, "order/activate", &json!({"module": module})).await;
        assert_eq!((status, &refused["code"]), (404, &json!("policy_unknown_module")), "{refused}");
        assert_eq!(load(&site, "order", &bytes).await, module);
        activate(&site, "order", &module, &json!({})).await;
        carried(&site, &cloud, "after-all").await;
    });
}
