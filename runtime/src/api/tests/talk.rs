//! What the routes ask of the driver, and what they make of its answers.

use serde_json::{Value, json};
use tidegate_core::effect::{ContestView, Finish, LinkView, Notice, RecorderView, Response};
use tidegate_core::id::{EpisodeId, Role};
use tidegate_core::input::{Action, Command, Request as Ask};
use tidegate_core::refusal::Refusal;
use tidegate_core::row::TaskState;
use tidegate_core::time::Wall;
use tidegate_core::wire::transfer::Status;

use super::{NOW, Site, device, site, view};

fn rpc(success: bool, message: Option<&str>, data: Option<&str>) -> Option<Result<Response, Refusal>> {
    Some(Ok(Response::Rpc {
        request_id: "u1".to_owned(),
        success,
        message: message.map(str::to_owned),
        data: data.map(str::to_owned),
    }))
}

fn command(site: &Site) -> (Command, Option<String>) {
    match site.heard().pop() {
        Some((Ask::Command(command), secret)) => (command, secret),
        other => panic!("no command but {other:?}"),
    }
}

#[tokio::test]
async fn a_token_goes_beside_the_command_and_its_name_stands_in_its_place() {
    let site = site(Vec::new(), rpc(true, Some("ok"), Some(r#"{"state":"ready"}"#)));
    let body = r#"{"task_config":{"task_id":"t1","user_token":"s3cret","scene":"a"}}"#;
    let (status, answer) = site.post("/api/v1/recorder/r1/config", body).await;
    let want = json!({"type": "rpc_response", "request_id": "u1", "success": true, "message": "ok",
        "data": {"state": "ready"}});
    assert_eq!((status, answer), (200, want));
    let (command, secret) = command(&site);
    assert_eq!(secret.as_deref(), Some("s3cret"));
    assert_eq!((command.action, command.task.as_deref()), (Action::Config, Some("t1")));
    let name = command.token.expect("the secret's name");
    assert_eq!(name.sha256, tidegate_core::digest::Sha256::of(b"s3cret"));
    let params: Value = serde_json::from_str(&command.params.expect("params")).expect("JSON");
    let token = format!("tidegate-secret:{}", name.handle);
    assert_eq!(params, json!({"task_config": {"task_id": "t1", "user_token": token, "scene": "a"}}));
}

#[tokio::test]
async fn commands_name_their_task_and_carry_their_body_as_the_predecessor_did() {
    let site = site(Vec::new(), rpc(false, None, None));
    let cases = [
        ("begin", r#"{"task_id":" t1 "}"#, Some("t1"), Some(r#"{"task_id":" t1 "}"#)),
        (
            "finish",
            r#"{"task_config":{"task_id":"t2"}}"#,
            Some("t2"),
            Some(r#"{"task_config":{"task_id":"t2"}}"#),
        ),
        ("finish", "", None, None),
        ("cancel", "null", None, None),
        ("cancel", "{}", None, None),
        ("clear", r#"{"task_id":"t3"}"#, Some("t3"), None),
        ("pause", "not json", None, None),
        ("resume", r#"{"task_id":"t4"}"#, None, None),
        ("quit", "[", None, None),
    ];
    for (action, body, task, params) in cases {
        let (status, answer) = site.post(&format!("/api/v1/recorder/r1/{action}"), body).await;
        assert_eq!(status, 200, "a device's own no is passed on");
        assert_eq!(answer, json!({"type": "rpc_response", "request_id": "u1", "success": false}));
        let (command, secret) = command(&site);
        assert_eq!(command.action.name(), action);
        assert_eq!((command.task.as_deref(), command.params.as_deref()), (task, params), "{action} {body}");
        assert!(command.token.is_none() && secret.is_none());
    }
}

#[tokio::test]
async fn stats_of_a_recorder_that_is_away_are_empty_and_no_error() {
    let away = site(Vec::new(), Some(Err(Refusal::RecorderOffline)));
    let got = away.get("/api/v1/recorder/r1/stats").await;
    assert_eq!(got, (200, json!({"connected": false, "data": {}})));
    let no = site(Vec::new(), rpc(false, Some("busy"), None));
    let got = no.get("/api/v1/recorder/r1/stats").await;
    assert_eq!(got, (200, json!({"connected": true, "data": null, "error": "busy"})));
    let late = site(Vec::new(), Some(Err(Refusal::RpcTimeout(Action::GetStats))));
    assert_eq!(late.get("/api/v1/recorder/r1/stats").await.0, 504);
    let cut = site(Vec::new(), Some(Err(Refusal::LinkLost { action: Action::GetStats })));
    assert_eq!(cut.get("/api/v1/recorder/r1/stats").await.0, 500);
}

fn up(role: Role) -> Notice {
    let link = LinkView { generation: 3, remote: "10.0.0.7".to_owned(), connected_at: Wall(NOW.0 - 500) };
    Notice::Link { device: device(), role, link: Some(link), why: None, version: 1 }
}

#[tokio::test]
async fn a_recorders_state_is_read_from_the_board_unless_it_is_to_be_fresh() {
    let site = site(Vec::new(), Some(Ok(Response::State(view()))));
    let (status, body) = site.get("/api/v1/recorder/r1/state").await;
    assert_eq!(status, 200);
    let want = json!({"device_id": "r1", "connected": false, "current_state": "unknown", "previous_state": "",
        "task_id": "", "updated_at": "2026-11-21T00:00:00.5Z", "state_synced": false, "syncing": false,
        "fresh": false, "age_ms": 0, "source": "disconnected", "state_version": 0, "confidence": "unknown",
        "generation": 0});
    assert_eq!(body, want);
    site.told(&up(Role::Recorder));
    let (_, body) = site.get("/api/v1/recorder/r1/state").await;
    assert_eq!((&body["connected"], &body["syncing"]), (&json!(true), &json!(true)));
    site.told(&Notice::Recorder(view()));
    let (_, body) = site.get("/api/v1/recorder/r1/state").await;
    let want = json!({"device_id": "r1", "connected": true, "current_state": "ready", "previous_state": "idle",
        "task_id": "t1", "updated_at": "2026-11-20T23:59:59Z", "state_synced": true, "syncing": false,
        "fresh": false, "age_ms": 1500, "source": "state_update", "state_version": 8,
        "confidence": "confirmed", "generation": 3});
    assert_eq!(body, want);
    assert!(site.heard().is_empty());
    for (query, max_age_ms) in [("refresh=1&max_age_ms=50", 50), ("refresh=yes&max_age_ms=-1", 1000)] {
        let (status, body) = site.get(&format!("/api/v1/recorder/r1/state?{query}")).await;
        assert_eq!((status, &body["fresh"], &body["age_ms"]), (200, &json!(true), &json!(20)));
        let asked = site.heard().pop().expect("asked").0;
        assert_eq!(asked, Ask::RefreshState { device: device(), max_age_ms });
    }
}

#[tokio::test]
async fn a_refresh_whose_link_is_lost_answers_with_the_state_of_no_link() {
    for refusal in [Refusal::RecorderOffline, Refusal::LinkLost { action: Action::GetState }] {
        let site = site(Vec::new(), Some(Err(refusal)));
        let (status, body) = site.get("/api/v1/recorder/r1/state?refresh=true").await;
        assert_eq!((status, &body["source"]), (200, &json!("disconnected")));
    }
}

#[tokio::test]
async fn connected_devices_are_listed_by_role_and_a_device_is_connected_with_both() {
    let site = site(Vec::new(), None);
    site.told(&up(Role::Recorder));
    let (asked_at, raw) = (Some(Wall(NOW.0 - 250)), Some(r#"{"state":"ready"}"#.to_owned()));
    site.told(&Notice::Recorder(RecorderView { asked_at, raw, ..view() }));
    let (_, body) = site.get("/api/v1/devices/r1/connection").await;
    let want = json!({"device_id": "r1", "connected": false, "connected_at": "2026-11-21T00:00:00Z",
        "recorder_connected": true, "transfer_connected": false, "recorder_generation": 3, "contests": []});
    assert_eq!(body, want);
    site.told(&up(Role::Transfer));
    assert_eq!(site.get("/api/v1/devices/r1/connection").await.1["connected"], json!(true));
    let (_, body) = site.get("/api/v1/transfer/devices").await;
    let status = &body["devices"][0]["status"];
    assert_eq!((&status["uploads"], &status["updated_at"]), (&Value::Null, &json!("0001-01-01T00:00:00Z")));
    let status = Status { pending: 2, waiting_ack_tasks: Some(vec!["t1".to_owned()]), ..Status::default() };
    site.told(&Notice::Transfer { device: device(), status, version: 1 });
    let (_, body) = site.get("/api/v1/transfer/devices").await;
    let status = &body["devices"][0]["status"];
    assert_eq!((&status["pending_count"], &status["waiting_ack_task_ids"]), (&json!(2), &json!(["t1"])));
    let (_, body) = site.get("/api/v1/recorder/devices").await;
    let want = json!({"devices": [{"device_id": "r1", "remote_ip": "10.0.0.7", "generation": 3,
        "connected_at": "2026-11-21T00:00:00Z", "last_seen_at": "2026-11-21T00:00:00.5Z", "state_synced": true,
        "syncing": false, "confidence": "confirmed",
        "state": {"current_state": "ready", "task_id": "t1", "updated_at": "2026-11-20T23:59:59Z",
            "source": "state_update", "last_sync_attempt_at": "2026-11-21T00:00:00.25Z",
            "raw": {"state": "ready"}}}]});
    assert_eq!(body, want);
}

#[tokio::test]
async fn a_device_shows_who_fights_over_its_links_until_it_is_over() {
    let site = site(Vec::new(), None);
    site.told(&up(Role::Recorder));
    let told = |closed_until| Notice::Contest {
        device: device(),
        role: Role::Recorder,
        contest: Some(ContestView {
            owners: ["10.0.0.7:4000".to_owned(), "10.0.0.8:4001".to_owned()],
            takeovers: 4,
            since: Wall(NOW.0 - 9_000),
            closed_until,
        }),
    };
    let shown = async || site.get("/api/v1/devices/r1/connection").await.1["contests"].clone();
    let mut want = json!([{"role": "recorder", "addresses": ["10.0.0.7:4000", "10.0.0.8:4001"],
        "takeovers": 4, "since": "2026-11-20T23:59:51.5Z", "closed_until": "2026-11-21T00:00:10.5Z"}]);
    site.told(&told(Some(Wall(NOW.0 + 10_000))));
    assert_eq!(shown().await, want);
    site.told(&told(Some(Wall(NOW.0 - 1))));
    want[0].as_object_mut().unwrap().remove("closed_until");
    assert_eq!(shown().await, want, "the pause is over, the fight is not");
    let listed = async || site.get("/api/v1/devices/conflicts").await.1;
    want[0]["device_id"] = json!("r1");
    assert_eq!(listed().await, json!({"conflicts": [], "contests": want}));
    site.told(&Notice::Contest { device: device(), role: Role::Recorder, contest: None });
    assert_eq!(shown().await, json!([]));
    assert_eq!(listed().await, json!({"conflicts": [], "contests": []}));
}

#[tokio::test]
async fn callbacks_are_acknowledged_with_what_came_of_them() {
    for (moved, word) in [(true, "in_progress"), (false, "unknown")] {
        let site = site(Vec::new(), Some(Ok(Response::Started { moved })));
        let (status, body) =
            site.post("/api/v1/callbacks/start", r#"{"task_id":"t1","device_id":"r1"}"#).await;
        let want =
            json!({"acknowledged_at": "2026-11-21T00:00:00Z", "status": "acknowledged", "task_status": word});
        assert_eq!((status, body), (200, want));
    }
    let said = r#"{"task_id":"t1","device_id":"r1","output_path":"/d/t1.mcap","started_at":"2026-11-20T23:00:00Z",
        "finished_at":"2026-11-20T23:00:02Z","duration_sec":1.25,"message_count":10,"file_size_bytes":99,
        "sidecar_path":null,"error":null,"topics":[],"odd":1}"#;
    let cases = [
        (Finish::Requested, TaskState::Uploading, true, "Upload triggered successfully"),
        (
            Finish::TransferOffline,
            TaskState::Uploading,
            false,
            "Recording finished; upload_request not sent because transfer is disconnected",
        ),
        (Finish::Repeated, TaskState::Completed, false, "Recording finish callback already handled"),
    ];
    for (handled, state, sent, message) in cases {
        let site = site(Vec::new(), Some(Ok(Response::Finished { state, handled })));
        let (status, body) = site.post("/api/v1/callbacks/finish", said).await;
        let want = json!({"success": true, "message": message, "task_status": state.name(),
            "upload_request_sent": sent});
        assert_eq!((status, body), (200, want));
        let Some((Ask::CallbackFinish { task, facts, .. }, _)) = site.heard().pop() else { panic!("asked") };
        assert_eq!(
            (task.as_str(), facts.duration_ms, facts.len, facts.messages),
            ("t1", Some(1250), Some(99), Some(10))
        );
        assert_eq!(facts.finished_at.map(|at| at.0 - facts.started_at.map_or(0, |at| at.0)), Some(2000));
        assert_eq!((facts.path.as_deref(), facts.error), (Some("/d/t1.mcap"), None));
    }
}

#[tokio::test]
async fn triggers_are_accepted_only_with_the_answer_of_the_driver() {
    let one = site(Vec::new(), Some(Ok(Response::SyncAccepted { episode: EpisodeId(7) })));
    let want = json!({"status": "accepted", "episode_id": 7, "message": "episode enqueued for cloud sync"});
    assert_eq!(one.post("/api/v1/sync/episodes/7", "ignored").await, (202, want));
    assert_eq!(one.heard().pop().expect("asked").0, Ask::Sync { episode: EpisodeId(7) });
    let many = site(Vec::new(), Some(Ok(Response::BatchAccepted { count: 0 })));
    let want =
        json!({"status": "accepted", "enqueued_count": 0, "message": "0 episodes enqueued for cloud sync"});
    assert_eq!(many.post("/api/v1/sync/episodes", "").await, (202, want));
}
