//! What the configuration says of policies: no modules at all, signed ones only, a folder that is watched.

use serde_json::{Value, json};
use tidegate_core::policy::Slot;
use tidegate_policies::sign::SigningKey;

use super::*;
use crate::rig::{Plan, run, sha256};

#[test]
fn a_site_that_is_told_to_run_no_modules_rests_them_and_goes_on_with_them_later() {
    run(async {
        let cloud = Cloud::start().await;
        let mut site = Plan::with_cloud(&cloud).start().await;
        let bytes = suite("kept");
        let module = load(&site, "concurrency", &bytes).await;
        activate(&site, "concurrency", &module, &json!({"uploads": 5})).await;
        carried(&site, &cloud, "by-the-module").await;
        site.stop().await;

        let mut site = site.with_setting("policies.native", true);
        site.start().await;
        let view = policies(&site).await;
        assert_eq!(view["native"], true, "{view}");
        for slot in ["auto-scan", "retry", "concurrency", "bandwidth", "order"] {
            assert_eq!(seat(&view, slot)["by"], "builtin", "{view}");
            assert_eq!(seat(&view, slot)["origin"], "native", "{view}");
        }
        carried(&site, &cloud, "by-itself").await;
        let newest = decisions(&site, "concurrency").await.pop().expect("a decision");
        assert_eq!((&newest["by"], &newest["module"]), (&json!("set"), &Value::Null), "{newest}");
        assert_eq!(newest["set"], view["set"], "{newest}");
        let (status, refused) = put(&site, "order", &bytes, &[]).await;
        assert_eq!((status, &refused["code"]), (409, &json!("policies_native")), "{refused}");
        assert!(refused["error"].as_str().is_some_and(|text| text.contains("policies.native")), "{refused}");
        let (status, refused) = ask(&site, "order/activate", &json!({"module": module})).await;
        assert_eq!((status, &refused["code"]), (409, &json!("policies_native")), "{refused}");
        site.stop().await;

        let mut site = site.with_setting("policies.native", false);
        site.start().await;
        let view = prepared(&site).await;
        assert_eq!(quarantine(&view, &module), &Value::Null, "it did nothing wrong: {view}");
        let sits = seat(&view, "concurrency");
        assert_eq!((&sits["module"], &sits["settings"]), (&json!(module), &json!({"uploads": 5})), "{view}");
        carried(&site, &cloud, "by-the-module-again").await;
        let newest = decisions(&site, "concurrency").await.pop().expect("a decision");
        assert!(is_by(&newest, &module), "{newest}");
        site.stop().await;
        crate::crash::replay(&site);
    });
}

#[test]
fn once_there_is_a_key_only_modules_that_it_signed_are_taken() {
    run(async {
        let cloud = Cloud::start().await;
        let (ours, foreign) =
            (SigningKey::generate().expect("a key"), SigningKey::generate().expect("a key"));
        let mut keys = toml::Table::new();
        keys.insert("robin".to_owned(), ours.public().to_hex().into());
        let mut site = Plan::with_cloud(&cloud).start().await;
        let fresh = prepared(&site).await;
        let early = load(&site, "order", &suite("early")).await;
        activate(&site, "order", &early, &json!({})).await;
        site.stop().await;

        let mut site = site.with_setting("policies.keys", keys);
        site.start().await;
        let view = prepared(&site).await;
        assert_eq!(view["set"], fresh["set"], "what nobody signed does not decide any more: {view}");
        assert_eq!(
            seat(&view, "order")["module"],
            fresh["default"],
            "the default needs no signature: {view}"
        );
        carried(&site, &cloud, "by-default").await;
        assert_eq!(quarantine(&view, &early), &Value::Null, "it did nothing wrong: {view}");

        let refused = async |bytes: &[u8], signature: Option<&str>, words: &str| {
            let headers: Vec<_> = signature.iter().map(|text| ("tidegate-signature", *text)).collect();
            let (status, body) = put(&site, "order", bytes, &headers).await;
            assert_eq!((status, &body["rejection"]), (422, &json!("signature")), "{body}");
            assert!(body["error"].as_str().is_some_and(|text| text.contains(words)), "{words}: {body}");
            let (status, body) = ask(&site, "order/activate", &json!({"module": sha256(bytes)})).await;
            assert_eq!((status, &body["code"]), (422, &json!("policy_rejected")), "{body}");
        };
        let line = |signature: tidegate_policies::sign::Signature| {
            let signature: Value = serde_json::from_str(&signature.to_json()).expect("it is JSON");
            signature.to_string()
        };
        let bytes = suite("signed");
        refused(&bytes, None, "it is not signed; this site takes modules signed by robin").await;
        refused(&bytes, Some(&line(foreign.sign(&bytes, None, None, 1))), "does not trust").await;
        let of_another = line(ours.sign(&suite("another"), None, None, 1));
        refused(&bytes, Some(&of_another), "signature").await;
        let good = line(ours.sign(&bytes, None, None, 2));
        let (status, body) = put(&site, "order", &bytes, &[("tidegate-signature", &good)]).await;
        assert_eq!((status, &body["signed_by"]), (201, &json!("robin")), "{body}");
        let module = sha256(&bytes);
        activate(&site, "order", &module, &json!({})).await;
        // Another signature of what decides must hold it to the same: less, and it would be out at the next start; so
        // would one that names a hook which it does not have.
        let less = line(ours.sign(&bytes, Some(&[Slot::Retry]), None, 3));
        let (status, body) = put(&site, "order", &bytes, &[("tidegate-signature", &less)]).await;
        assert_eq!((status, &body["code"]), (409, &json!("policy_signature")), "{body}");
        let narrow = std::fs::read(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../policies/examples/retry-by-class/policy.wasm"
        ))
        .expect("an example");
        let own = line(ours.sign(&narrow, Some(&[Slot::Retry]), None, 3));
        let (status, body) = put(&site, "retry", &narrow, &[("tidegate-signature", &own)]).await;
        assert_eq!(status, 201, "{body}");
        let more = line(ours.sign(&narrow, Some(&[Slot::Retry, Slot::Order]), None, 3));
        let (status, body) = put(&site, "retry", &narrow, &[("tidegate-signature", &more)]).await;
        assert_eq!((status, &body["code"]), (409, &json!("policy_signature")), "{body}");
        assert!(body["error"].as_str().is_some_and(|text| text.contains("the hook order")), "{body}");
        let vouched_for = line(ours.sign(&suite("early"), None, None, 3));
        let headers = [("tidegate-signature", vouched_for.as_str())];
        let (status, body) = put(&site, "order", &suite("early"), &headers).await;
        assert_eq!((status, &body["module"]), (201, &json!(early)), "signed now: {body}");
        let older = suite("older");
        refused(&older, Some(&line(ours.sign(&older, None, None, 1))), "counter").await;
        site.kill();
        site.start().await;
        let view = prepared(&site).await;
        assert_eq!(seat(&view, "order")["module"], module, "a signature is kept: {view}");
        carried(&site, &cloud, "by-a-signed-one").await;
    });
}

/// Puts a file into a folder under its name at once, as a careful author does.
fn rename_into(folder: &std::path::Path, name: &str, bytes: &[u8]) {
    let beside = folder.join(format!("{name}.part"));
    std::fs::write(&beside, bytes).expect("a file beside it");
    std::fs::rename(beside, folder.join(name)).expect("a rename");
}

async fn sits(site: &Site, slot: &str, module: &str) -> Value {
    until(&format!("{module} in {slot}"), STEP, async || {
        let view = policies(site).await;
        (seat(&view, slot)["module"] == module).then_some(view)
    })
    .await
}

#[test]
fn a_watched_folder_activates_what_is_renamed_into_it_and_nothing_else() {
    run(async {
        let cloud = Cloud::start().await;
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().display().to_string();
        let mut site = Plan::with_cloud(&cloud).set("policies.watch", path).start().await;
        let fresh = prepared(&site).await;
        let (first, second) = (suite("first"), suite("second"));
        std::fs::write(folder.path().join("concurrency.toml"), "uploads = 5\n").expect("settings");
        rename_into(folder.path(), "concurrency.wasm", &first);
        let view = sits(&site, "concurrency", &sha256(&first)).await;
        assert_eq!(seat(&view, "concurrency")["settings"], json!({"uploads": 5}), "{view}");
        rename_into(folder.path(), "concurrency.wasm", &second);
        sits(&site, "concurrency", &sha256(&second)).await;
        carried(&site, &cloud, "by-the-watched-one").await;
        let newest = decisions(&site, "concurrency").await.pop().expect("a decision");
        assert!(is_by(&newest, &sha256(&second)), "{newest}");

        // Written slowly under its own name: the first half is nobody's module, and the site says so.
        let slow = suite("slow");
        let half = &slow[..slow.len() / 2];
        std::fs::write(folder.path().join("order.wasm"), half).expect("half a file");
        let file = until("the half to be found", STEP, async || {
            let view = policies(&site).await;
            let files = view["watch"]["files"].as_array().expect("files").clone();
            files.into_iter().find(|file| file["slot"] == "order" && file["error"].is_string())
        })
        .await;
        assert_eq!(file["module"], sha256(half), "{file}");
        // Under another name it is not looked at.
        std::fs::write(folder.path().join("retry.wasm.part"), &slow).expect("a file");
        std::fs::write(folder.path().join("lunch.wasm"), &slow).expect("a file");

        // Two more looks at the folder, seen by what they find.
        for tag in ["third", "fourth"] {
            let bytes = suite(tag);
            rename_into(folder.path(), "bandwidth.wasm", &bytes);
            sits(&site, "bandwidth", &sha256(&bytes)).await;
        }
        let view = policies(&site).await;
        for slot in ["order", "retry"] {
            assert_eq!(seat(&view, slot)["module"], fresh["default"], "{view}");
        }
        let log = site.log();
        let warned = log.lines().filter(|l| l.contains("was not activated") && l.contains("order")).count();
        assert_eq!(warned, 1, "a bad file is told of once");
        assert_eq!(known(&view, &sha256(&slow)), None, "{view}");

        // What was activated before is not activated again by a start, and an operator's word stands.
        told(&site, "bandwidth/reset", &json!({})).await;
        let before = policies(&site).await;
        site.kill();
        site.start().await;
        rename_into(folder.path(), "order.wasm", &slow);
        let after = sits(&site, "order", &sha256(&slow)).await;
        assert_eq!(seat(&after, "bandwidth")["module"], seat(&before, "bandwidth")["module"], "{after}");
        assert_eq!(seat(&after, "bandwidth")["module"], fresh["default"], "{after}");
    });
}
