//! Every row of the table of refusals, and the answers that never reach the driver.

use http::{Method, StatusCode};
use serde_json::{Value, json};
use tidegate_core::digest::Sha256;
use tidegate_core::effect::{ConflictKind, ConflictView};
use tidegate_core::id::{DeviceId, EpisodeId};
use tidegate_core::input::Action;
use tidegate_core::limits::CONFIG_BYTES;
use tidegate_core::policy::Slot;
use tidegate_core::refusal::{PolicyRefusal, Refusal};
use tidegate_core::row::{Qa, TaskState};
use tidegate_core::time::Wall;

use super::super::{BODY_MAX, Stage};
use super::{driven_by_hand, site, view};

fn conflict() -> ConflictView {
    ConflictView {
        kind: ConflictKind::UnknownTask,
        device_state: "recording".to_owned(),
        device_task: "t9".to_owned(),
        task: None,
        wire: None,
        status: None,
        since: Wall(0),
    }
}

fn table() -> Vec<(Refusal, u16, Value)> {
    let id = EpisodeId(7);
    let mut failed = view();
    failed.error = Some("recorder rpc timeout".to_owned());
    let refresh =
        |timeout, command| Refusal::RefreshFailed { timeout, view: Box::new(failed.clone()), command };
    vec![
        (
            Refusal::RecorderOffline,
            404,
            json!({"error": "recorder not connected", "code": "recorder_not_connected"}),
        ),
        (
            Refusal::LinkLost { action: Action::Begin },
            404,
            json!({"error": "recorder not connected", "action": "begin", "result_unknown": true}),
        ),
        (
            Refusal::TransferOffline,
            409,
            json!({"code": "transfer_not_connected", "error": "transfer is not connected; config is rejected"}),
        ),
        (
            Refusal::StateSyncing,
            409,
            json!({"code": "recorder_state_syncing",
                "error": "recorder state is syncing; retry after initial state snapshot"}),
        ),
        (
            refresh(true, true),
            504,
            json!({"code": "recorder_state_refresh_failed", "error": "recorder rpc timeout", "current_state": "ready",
                "connected": true, "state_version": 8}),
        ),
        (refresh(true, false), 504, json!({"error": "recorder rpc timeout", "result_unknown": true})),
        (refresh(false, true), 409, json!({"code": "recorder_state_refresh_failed", "task_id": "t1"})),
        (
            Refusal::RecorderBusy { state: "ready".to_owned(), task: "t1".to_owned() },
            409,
            json!({"code": "recorder_busy", "error": "recorder is not idle; config is rejected",
                "current_state": "ready", "task_id": "t1"}),
        ),
        (
            Refusal::HoldsAnother { state: "recording".to_owned(), task: "t2".to_owned() },
            409,
            json!({"code": "recorder_busy",
                "error": "recorder holds another task and would drop it; name that one, or none",
                "current_state": "recording", "task_id": "t2"}),
        ),
        (
            Refusal::TaskIdRequired("task_config.task_id"),
            400,
            json!({"code": "task_id_required", "error": "task_config.task_id is required"}),
        ),
        (
            Refusal::NotConfigurable(Some(TaskState::Uploading)),
            409,
            json!({"code": "task_not_configurable", "current_status": "uploading",
                "error": "task is not configurable"}),
        ),
        (
            Refusal::NotBeginable(None),
            409,
            json!({"code": "task_not_beginable", "current_status": "not_found", "error": "task is not beginable"}),
        ),
        (
            Refusal::NotReadyForTask {
                state: TaskState::Ready,
                recorder_state: "idle".to_owned(),
                recorder_task: String::new(),
            },
            409,
            json!({"code": "task_not_beginable", "error": "recorder is not ready for task",
                "current_status": "ready", "recorder_state": "idle", "recorder_task_id": ""}),
        ),
        (Refusal::NotOwned, 409, json!({"code": "task_not_owned"})),
        (
            Refusal::CommandInFlight(Action::Finish),
            409,
            json!({"code": "command_in_flight", "action": "finish"}),
        ),
        (Refusal::TooManyCalls, 429, json!({"code": "too_many_calls"})),
        (
            Refusal::RpcTimeout(Action::Pause),
            504,
            json!({"action": "pause", "error": "recorder rpc timeout", "result_unknown": true}),
        ),
        (Refusal::TooManyLinks, 503, json!({"code": "too_many_links"})),
        (Refusal::Contested { retry_after_ms: 9_001 }, 503, json!({"code": "contested_id"})),
        (Refusal::Stopping, 503, json!({"error": "the site is stopping", "code": "stopping"})),
        (
            Refusal::TaskNotFound("t9".to_owned()),
            404,
            json!({"code": "task_not_found", "error": "Task not found: t9", "error_msg": "Task not found: t9"}),
        ),
        (
            Refusal::NoConflict(DeviceId::new("r1").unwrap()),
            404,
            json!({"code": "no_conflict", "device_id": "r1"}),
        ),
        (
            Refusal::ConflictChanged(Box::new(conflict())),
            409,
            json!({"code": "conflict_changed", "conflict": {
                "kind": "unknown_task",
                "device_state": "recording",
                "device_task_id": "t9",
                "since": "1970-01-01T00:00:00Z",
            }}),
        ),
        (Refusal::ConflictNeedsCommand(Box::new(conflict())), 409, json!({"code": "conflict_needs_command"})),
        (Refusal::TaskExists("t9".to_owned()), 409, json!({"code": "task_exists"})),
        (
            Refusal::NotCancellable(TaskState::Completed),
            409,
            json!({"code": "task_not_cancellable", "current_status": "completed"}),
        ),
        (
            Refusal::NotUploadable { owned: false },
            409,
            json!({"error_msg": "task is not owned by device or is not uploadable"}),
        ),
        (Refusal::NotUploadable { owned: true }, 409, json!({"error_msg": "task is not uploadable"})),
        (
            Refusal::BadField { field: "config", must: "smaller" },
            400,
            json!({"error": "config must be smaller", "field": "config"}),
        ),
        (Refusal::EpisodeNotFound(id), 404, json!({"error": "episode not found"})),
        (
            Refusal::NotApproved(Qa::Rejected),
            400,
            json!({"error": "episode qa_status is \"rejected\", must be approved or inspector_approved"}),
        ),
        (Refusal::AlreadySynced(id), 409, json!({"error": "episode already synced to cloud"})),
        (
            Refusal::SyncActive(id),
            409,
            json!({"error": "sync already in progress for episode 7", "episode_id": 7, "status": "already_queued"}),
        ),
        (Refusal::NotJudgeable(id), 409, json!({"code": "episode_not_judgeable", "episode_id": 7})),
        (Refusal::Internal("I9"), 500, json!({"error": "I9", "code": "internal"})),
    ]
}

fn about_policies() -> Vec<(PolicyRefusal, u16, Value)> {
    let module = Sha256::of(b"m");
    let hash = module.to_string();
    vec![
        (PolicyRefusal::UnknownModule(module), 404, json!({"code": "policy_unknown_module", "module": hash})),
        (PolicyRefusal::NotAdmitted(module), 409, json!({"code": "policy_not_admitted", "module": hash})),
        (
            PolicyRefusal::Rejected { module, code: "types".to_owned(), why: "of retry.next".to_owned() },
            422,
            json!({"code": "policy_rejected", "rejection": "types", "why": "of retry.next", "module": hash}),
        ),
        (
            PolicyRefusal::Quarantined { module, code: "stalled".to_owned() },
            409,
            json!({"code": "policy_quarantined", "reason": "stalled", "module": hash}),
        ),
        (
            PolicyRefusal::HookMissing { module, slot: Slot::Order },
            422,
            json!({"code": "policy_hook_missing", "slot": "order", "module": hash}),
        ),
        (PolicyRefusal::BadSettings("few"), 400, json!({"code": "policy_bad_settings", "field": "settings"})),
        (PolicyRefusal::Busy, 409, json!({"code": "policy_busy"})),
        (PolicyRefusal::Overtaken, 409, json!({"code": "policy_overtaken"})),
        (PolicyRefusal::Full, 409, json!({"code": "policy_full"})),
        (
            PolicyRefusal::UnknownGeneration(7),
            404,
            json!({"code": "policy_unknown_generation", "generation": 7}),
        ),
        (
            PolicyRefusal::InUse { module, by: "a slot" },
            409,
            json!({"code": "policy_in_use", "by": "a slot", "module": hash}),
        ),
        (PolicyRefusal::Native, 409, json!({"code": "policies_native"})),
        (PolicyRefusal::Unanswered("lost".to_owned()), 503, json!({"code": "policy_unanswered"})),
    ]
}

#[tokio::test]
async fn every_refusal_about_policies_has_its_status_code_and_text() {
    for (refusal, status, fields) in about_policies() {
        let site = site(Vec::new(), Some(Err(Refusal::Policy(refusal.clone()))));
        let (got, body) = site.post("/api/v1/policies/rollback", "").await;
        assert_eq!(got, status, "{refusal:?}: {body}");
        assert_eq!(body["error"], refusal.to_string());
        assert_eq!(body["code"], refusal.code());
        for (field, value) in fields.as_object().expect("fields") {
            assert_eq!(&body[field], value, "{refusal:?}: {field} in {body}");
        }
    }
}

#[tokio::test]
async fn every_refusal_has_its_status_and_body() {
    for (refusal, status, fields) in table() {
        let site = site(Vec::new(), Some(Err(refusal.clone())));
        let (got, body) = site.post("/api/v1/recorder/r1/begin", r#"{"task_id":"t1"}"#).await;
        assert_eq!(got, status, "{refusal:?}: {body}");
        assert!(body["error"].is_string() && body["code"].is_string(), "{refusal:?}: {body}");
        for (field, want) in fields.as_object().expect("an object") {
            assert_eq!(&body[field], want, "{refusal:?}: {field}");
        }
    }
}

#[tokio::test]
async fn a_request_that_cannot_be_meant_is_refused_before_the_driver_hears_of_it() {
    let site = site(Vec::new(), Some(Err(Refusal::Stopping)));
    let begin = "/api/v1/recorder/r1/begin";
    let cases = [
        ("/api/v1/recorder/a%20b/begin", "{}", 400, "field", "device_id"),
        ("/api/v1/recorder/%ff/begin", "{}", 400, "field", "path"),
        (begin, "[1]", 400, "error", "invalid request body"),
        (begin, "{\"task_id\":", 400, "error", "invalid request body"),
        ("/api/v1/tasks", "{}", 400, "error", "device_id is required"),
        ("/api/v1/tasks", r#"{"device_id":7}"#, 400, "error", "device_id must be a string"),
        ("/api/v1/tasks", r#"{"device_id":"r1","task_id":".."}"#, 400, "field", "task_id"),
        ("/api/v1/tasks", r#"{"device_id":"r1","config":"x"}"#, 400, "field", "config"),
        (
            "/api/v1/tasks",
            r#"{"device_id":"r1","config":{"user_token":"x"}}"#,
            400,
            "code",
            "misplaced_secret",
        ),
        (begin, r#"{"task_id":"t","a":[{"user_token":"x"}]}"#, 400, "code", "misplaced_secret"),
        ("/api/v1/recorder/r1/config", r#"{"user_token":"x"}"#, 400, "code", "misplaced_secret"),
        (begin, r#"{"task_id":"t","a":{"b":[{"User_Token":"x"}]}}"#, 400, "code", "misplaced_secret"),
        (
            "/api/v1/recorder/r1/config",
            r#"{"task_config":{"task_id":"t","user_token":"x"},"USER_TOKEN":"y"}"#,
            400,
            "code",
            "misplaced_secret",
        ),
        ("/api/v1/recorder/r1/config", r#"{"task_config":{"user_token":{"k":1}}}"#, 400, "code", "bad_field"),
        ("/api/v1/episodes/x/approve", "", 400, "error", "invalid episode id"),
        ("/api/v1/episodes/0/approve", "", 400, "error", "invalid episode id"),
        ("/api/v1/episodes/1/reject", r#"{"reason":1}"#, 400, "field", "reason"),
        ("/api/v1/callbacks/start", "{}", 400, "error_msg", "Missing required field: task_id"),
        (
            "/api/v1/callbacks/finish",
            r#"{"task_id":"t"}"#,
            400,
            "error_msg",
            "Missing required field: output_path",
        ),
        ("/api/v1/nothing", "", 404, "code", "not_found"),
        ("/metrics", "", 405, "code", "method_not_allowed"),
    ];
    for (path, body, status, field, want) in cases {
        let (got, answer) = site.post(path, body).await;
        assert_eq!((got, answer[field].as_str()), (status, Some(want)), "{path} {body}: {answer}");
        assert!(answer["error"].is_string(), "{path}: {answer}");
    }
    let (status, answer) = site.post("/api/v1/callbacks/start", "{").await;
    let text = answer["error_msg"].as_str().expect("a text");
    assert!(status == 400 && text.starts_with("Invalid request body: "), "{answer}");
    let (status, answer) = site.call(Method::DELETE, "/api/v1/tasks", "").await;
    assert_eq!((status, &answer["code"]), (405, &Value::from("method_not_allowed")));
    let (status, _) = site.post(begin, &"x".repeat(BODY_MAX + 1)).await;
    assert_eq!(status, 413);
    assert!(site.heard().is_empty());
}

#[tokio::test]
async fn a_site_without_a_driver_says_that_it_is_stopping() {
    let site = site(Vec::new(), None);
    let (status, body) = site.post("/api/v1/sync/episodes", "").await;
    assert_eq!((status, body), (503, json!({"error": "the site is stopping", "code": "stopping"})));
    assert_eq!(site.get("/healthz").await.0, 200);
    assert_eq!(site.get("/readyz").await.0, 503);
}

#[tokio::test]
async fn a_site_is_ready_once_it_serves() {
    let site = site(Vec::new(), Some(Err(Refusal::Stopping)));
    for (stage, status) in [(Stage::Booting, 503), (Stage::Serving, 200), (Stage::Stopping, 503)] {
        site.stage.send_replace(stage);
        assert_eq!(site.get("/readyz").await.0, status, "{stage:?}");
    }
}

#[tokio::test]
async fn metrics_count_requests_by_route_and_never_by_path() {
    let site = site(Vec::new(), Some(Err(Refusal::RecorderOffline)));
    site.post("/api/v1/recorder/r1/pause", "").await;
    site.get("/api/v1/nothing/r2").await;
    let (status, text) = site.raw(Method::GET, "/metrics", "").await;
    assert_eq!(status, StatusCode::OK);
    let pause = r#"tidegate_http_requests_total{method="POST",route="/api/v1/recorder/{device_id}/pause",status="404"} 1"#;
    assert!(text.contains(pause), "{text}");
    assert!(text.contains(r#"route="unmatched",status="404"} 1"#), "{text}");
    assert!(text.contains(r#"tidegate_links{role="recorder"} 0"#) && text.ends_with("# EOF\n"), "{text}");
    assert!(!text.contains("r2"), "{text}");
}

#[tokio::test]
async fn parameters_that_are_larger_than_any_configuration_are_refused_with_the_bound() {
    let site = site(Vec::new(), Some(Err(Refusal::Stopping)));
    let of = |bytes: usize| {
        let empty = json!({"task_config": {"note": "", "task_id": "t"}}).to_string().len();
        json!({"task_config": {"note": "x".repeat(bytes - empty), "task_id": "t"}}).to_string()
    };
    let (status, body) = site.post("/api/v1/recorder/r1/config", &of(CONFIG_BYTES + 1)).await;
    assert_eq!((status, &body["code"]), (413, &json!("params_too_large")), "{body}");
    assert!(body["error"].as_str().is_some_and(|text| text.contains("65536 bytes")), "{body}");
    assert!(site.heard().is_empty(), "the driver does not hear of it");
    let (status, _) = site.post("/api/v1/recorder/r1/config", &of(CONFIG_BYTES)).await;
    assert_eq!(status, 503, "the largest one is asked");
    assert_eq!(site.heard().len(), 1);
}

#[tokio::test]
async fn every_refusal_of_a_task_route_has_its_text_under_both_names() {
    let long = format!(r#"{{"device_id":"r1","config":{{"a":"{}"}}}}"#, "x".repeat(CONFIG_BYTES));
    let site = site(Vec::new(), Some(Err(Refusal::TaskExists("t1".to_owned()))));
    for body in ["nonsense", "{}", r#"{"device_id":"a b"}"#, r#"{"device_id":"r1"}"#, &long] {
        let (_, answer) = site.post("/api/v1/tasks", body).await;
        assert!(answer["error"].is_string() && answer["error_msg"] == answer["error"], "{body}: {answer}");
    }
    for (method, path) in [
        (Method::GET, "/api/v1/tasks/absent"),
        (Method::GET, "/api/v1/tasks/a%20b"),
        (Method::GET, "/api/v1/tasks?status=lost"),
        (Method::POST, "/api/v1/tasks/t1/cancel"),
    ] {
        let (_, answer) = site.call(method, path, "").await;
        assert!(answer["error"].is_string() && answer["error_msg"] == answer["error"], "{path}: {answer}");
    }
}

#[tokio::test]
async fn a_request_that_the_driver_took_and_never_answered_has_an_unknown_result() {
    let gone = site(Vec::new(), None);
    let (status, answer) = gone.post("/api/v1/tasks/t1/cancel", "").await;
    assert_eq!((status, &answer["code"]), (503, &json!("stopping")));
    assert_eq!(answer.get("result_unknown"), None, "nobody ever saw the request: {answer}");

    let (fell, mut letters) = driven_by_hand();
    let dropped = async { drop(letters.recv().await.expect("the request")) };
    let ((status, answer), ()) = tokio::join!(fell.post("/api/v1/tasks/t1/cancel", ""), dropped);
    assert_eq!((status, &answer["code"]), (503, &json!("stopping")));
    assert_eq!(answer["result_unknown"], true, "its commit may have been the last: {answer}");
}

#[tokio::test(start_paused = true)]
async fn a_driver_that_does_not_answer_is_not_waited_for_for_ever_and_that_is_counted() {
    let (site, _letters) = driven_by_hand();
    let (status, answer) = site.post("/api/v1/recorder/r1/pause", "").await;
    assert_eq!((status, &answer["code"]), (504, &json!("no_answer")), "{answer}");
    assert_eq!(answer["result_unknown"], true, "{answer}");
    let (_, text) = site.raw(Method::GET, "/metrics", "").await;
    assert!(text.contains("tidegate_timeouts_total{operation=\"answer\"} 1\n"), "{text}");
}
