//! The routes of policies against a driver that is played: what is refused before anybody is asked, and what the driver
//! hears. Whole sites are in boot/tests/policies.rs.

use std::collections::BTreeMap;

use http::Method;
use serde_json::json;
use tidegate_core::digest::Sha256;
use tidegate_core::input::{PolicyRequest, Request as Ask};
use tidegate_core::policy::{Binding, SettingValue, Slot};
use tidegate_core::refusal::{PolicyRefusal, Refusal};
use tidegate_core::row::{Key, ModuleRow, ModuleState, Row};
use tidegate_core::time::Wall;

use super::{routes_with, site};
use crate::inbox::Inbox;
use crate::policies::{Loader, rig};
use crate::real::RealDisk;
use crate::store::Blobs;

#[tokio::test]
async fn a_wish_reaches_the_driver_with_its_slot_module_and_settings() {
    let module = Sha256::of(b"m");
    let hash = module.to_string();
    let cases = [
        (
            "/api/v1/policies/rollback".to_owned(),
            json!({"generation": 7}),
            PolicyRequest::Rollback { to: Some(7) },
        ),
        ("/api/v1/policies/rollback".to_owned(), json!(null), PolicyRequest::Rollback { to: None }),
        (
            "/api/v1/policies/auto-scan/reset".to_owned(),
            json!({}),
            PolicyRequest::Reset { slot: Slot::AutoScan },
        ),
        (
            format!("/api/v1/policies/modules/{hash}/quarantine"),
            json!({"reason": "it looks odd"}),
            PolicyRequest::Quarantine { module, reason: "it looks odd".to_owned() },
        ),
        (
            format!("/api/v1/policies/modules/{hash}/unquarantine"),
            json!({}),
            PolicyRequest::Unquarantine { module },
        ),
    ];
    for (path, body, request) in cases {
        let site = site(Vec::new(), Some(Err(Refusal::Stopping)));
        site.post(&path, &body.to_string()).await;
        assert_eq!(site.heard().pop().map(|(ask, _)| ask), Some(Ask::Policy(request)), "{path}");
    }
    for (path, request) in [
        ("/api/v1/policies/shadow".to_owned(), PolicyRequest::ShadowEnd),
        (format!("/api/v1/policies/modules/{hash}"), PolicyRequest::Remove { module }),
    ] {
        let site = site(Vec::new(), Some(Err(Refusal::Stopping)));
        site.call(Method::DELETE, &path, "").await;
        assert_eq!(site.heard().pop().map(|(ask, _)| ask), Some(Ask::Policy(request)), "{path}");
    }
}

#[tokio::test]
async fn nonsense_is_refused_by_its_name_and_nobody_is_asked() {
    let hash = Sha256::of(b"m").to_string();
    let activate = |settings: serde_json::Value| json!({"module": hash, "settings": settings}).to_string();
    let cases = [
        ("/api/v1/policies/speed/reset", String::new(), "slot"),
        ("/api/v1/policies/modules/abc/quarantine", String::new(), "module"),
        ("/api/v1/policies/rollback", json!({"generation": "last"}).to_string(), "generation"),
        ("/api/v1/policies/retry/activate", "{}".to_owned(), "module"),
        ("/api/v1/policies/retry/activate", json!({"module": "x"}).to_string(), "module"),
        ("/api/v1/policies/retry/activate", activate(json!([])), "settings"),
        ("/api/v1/policies/retry/activate", activate(json!({"a": 1.5})), "settings"),
        ("/api/v1/policies/retry/shadow", activate(json!({"a": null})), "settings"),
        ("/api/v1/policies/retry/shadow", activate(json!({"a": "x".repeat(4096)})), "settings"),
    ];
    let dir = tempfile::tempdir().expect("a folder");
    let blobs = Blobs::open(&RealDisk, dir.path()).expect("a disk");
    let loader = Loader::new(rig::host(), blobs, &BTreeMap::new());
    let (inbox, _letters) = Inbox::new();
    let site = routes_with(Vec::new(), inbox, loader);
    for (path, body, field) in cases {
        let (status, answer) = site.post(path, &body).await;
        assert_eq!(
            (status, &answer["code"], &answer["field"]),
            (400, &json!("bad_field"), &json!(field)),
            "{path}: {answer}"
        );
    }
    let (status, answer) = site.get("/api/v1/policies/retry/decisions?limit=0").await;
    assert_eq!((status, &answer["field"]), (400, &json!("limit")));
    let (status, answer) = site.call(Method::PUT, "/api/v1/policies/retry", "").await;
    assert_eq!((status, &answer["field"]), (400, &json!("body")));
    let (status, answer) =
        site.call(Method::PUT, "/api/v1/policies/retry", vec![0_u8; (256 << 10) + 1]).await;
    assert_eq!((status, &answer["code"]), (413, &json!("body_too_large")));
    assert!(answer["error"].as_str().is_some_and(|text| text.contains("262144 bytes")), "{answer}");
}

#[tokio::test]
async fn a_site_that_runs_no_modules_takes_none_and_says_which_setting_it_is() {
    let site = site(Vec::new(), Some(Err(Refusal::Stopping)));
    let module = json!({"module": Sha256::of(b"m").to_string()}).to_string();
    for (method, path, body) in [
        (Method::PUT, "/api/v1/policies/retry", "some bytes".to_owned()),
        (Method::POST, "/api/v1/policies/retry/activate", module.clone()),
        (Method::POST, "/api/v1/policies/retry/shadow", module),
    ] {
        let (status, answer) = site.call(method, path, body).await;
        assert_eq!((status, &answer["code"]), (409, &json!("policies_native")), "{path}");
        assert!(answer["error"].as_str().is_some_and(|text| text.contains("policies.native")), "{answer}");
    }
    assert!(site.heard().is_empty());
}

#[tokio::test]
async fn bytes_that_the_site_has_a_record_of_stay_whatever_is_answered_and_those_of_nobody_go() {
    // The incident: who was refused while somebody else's admission of the same bytes was under way took them away.
    let module = Sha256::of(b"some bytes");
    let unanswered = || Refusal::Policy(PolicyRefusal::Unanswered("the disk failed".to_owned()));
    let cases = [
        (Some(ModuleState::Staged), Refusal::Stopping, 503, true),
        (Some(ModuleState::Staged), Refusal::Policy(PolicyRefusal::Busy), 409, true),
        (Some(ModuleState::Staged), unanswered(), 503, true),
        (Some(ModuleState::Admitted), unanswered(), 503, true),
        (None, Refusal::Policy(PolicyRefusal::Full), 409, false),
        (None, Refusal::Stopping, 503, false),
    ];
    for (state, refusal, status, stay) in cases {
        let case = format!("{state:?} {refusal:?}");
        let dir = tempfile::tempdir().expect("a folder");
        let blobs = Blobs::open(&RealDisk, dir.path()).expect("a disk");
        let loader = Loader::new(rig::host(), blobs.clone(), &BTreeMap::new());
        let (inbox, mut letters) = Inbox::new();
        let row = state.map(|state| (Key::Module(module), Row::Module(Box::new(row(state)))));
        let site = routes_with(row.into_iter().collect(), inbox, loader);
        let heard = tokio::spawn(async move {
            let Some(crate::inbox::Letter::Request { request, answer, .. }) = letters.recv().await else {
                panic!("a request")
            };
            let _ = answer.send(Err(refusal));
            request
        });
        let (found, answer) = site.call(Method::PUT, "/api/v1/policies/retry", "some bytes").await;
        assert_eq!(found, status, "{case}: {answer}");
        let asked = heard.await.expect("it heard");
        assert_eq!(asked, Ask::Policy(PolicyRequest::Admit { module, size: 10 }), "{case}");
        let left = if stay { vec![module] } else { Vec::new() };
        assert_eq!(blobs.list().expect("a disk"), left, "{case}");
    }
}

#[tokio::test]
async fn only_a_module_that_was_admitted_is_loaded_for_whoever_asks_about_it() {
    // The incident: whoever asked about a rejected module had it compiled, as often and at once as they liked.
    let bytes = rig::module("suite", "");
    let module = Sha256::of(&bytes);
    let rejected = ModuleState::Rejected { code: "compile".to_owned(), why: "too heavy".to_owned() };
    let path = format!("/api/v1/policies/modules/{module}");
    for (state, status, is_loaded) in [
        (Some(ModuleState::Admitted), 200, true),
        (Some(rejected), 200, false),
        (Some(ModuleState::Staged), 200, false),
        (None, 404, false),
    ] {
        let dir = tempfile::tempdir().expect("a folder");
        let blobs = Blobs::open(&RealDisk, dir.path()).expect("a disk");
        blobs.put(&bytes).expect("a disk");
        let loader = Loader::new(rig::host(), blobs, &BTreeMap::new());
        let (inbox, _letters) = Inbox::new();
        let case = format!("{state:?}");
        let row = state.map(|state| (Key::Module(module), Row::Module(Box::new(row(state)))));
        let site = routes_with(row.into_iter().collect(), inbox, loader.clone());
        let (found, answer) = site.get(&path).await;
        assert_eq!(found, status, "{case}: {answer}");
        assert_eq!(answer.get("settings").is_some(), is_loaded, "{case}: {answer}");
        assert_eq!(*loader.running().borrow(), is_loaded, "{case}");
    }
}

/// A record of a module.
fn row(state: ModuleState) -> ModuleRow {
    ModuleRow { facts: None, size: 10, state, at: Wall(0), quarantined: None, last_used: Wall(0) }
}

#[tokio::test]
async fn settings_are_sorted_truths_numbers_and_texts() {
    let dir = tempfile::tempdir().expect("a folder");
    let blobs = Blobs::open(&RealDisk, dir.path()).expect("a disk");
    let (inbox, mut letters) = Inbox::new();
    let site = routes_with(Vec::new(), inbox, Loader::new(rig::host(), blobs, &BTreeMap::new()));
    let heard = tokio::spawn(async move {
        let Some(crate::inbox::Letter::Request { request, .. }) = letters.recv().await else {
            panic!("a request")
        };
        request
    });
    let module = Sha256::of(b"m");
    let body = json!({"module": module.to_string(), "settings": {"zone": "a", "quiet": true, "at-most": -3}});
    site.post("/api/v1/policies/order/activate", &body.to_string()).await;
    let settings = vec![
        ("at-most".to_owned(), SettingValue::Int(-3)),
        ("quiet".to_owned(), SettingValue::Flag(true)),
        ("zone".to_owned(), SettingValue::Text("a".to_owned())),
    ];
    let request = PolicyRequest::Activate { slot: Slot::Order, binding: Binding { module, settings } };
    assert_eq!(heard.await.expect("it heard"), Ask::Policy(request));
}
