//! What operators have said to uploaders, and recordings that come late, under no name, or not at all.

use serde_json::{Value, json};

use crate::rig::{Plan, STEP, Site, run, until};
use crate::script::{Take, Uploader, status};

const DEVICE: &str = "robot-1";

async fn uploading(site: &Site, task: &str) {
    site.create_task(DEVICE, task).await;
    let callback = json!({"task_id": task, "device_id": DEVICE, "output_path": "/x"});
    let (status, body) = site.post("/api/v1/callbacks/finish", &callback).await;
    assert_eq!(status, 200, "{body}");
    site.task_reaches(task, "uploading").await;
}

fn route(what: &str) -> String {
    format!("/api/v1/transfer/{DEVICE}/{what}")
}

async fn error_of(site: &Site, task: &str) -> String {
    let row = site.read(&format!("/api/v1/tasks/{task}")).await;
    row["error_message"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn each_route_of_an_uploader_sends_its_frame() {
    run(async {
        let site = Plan::new().start().await;
        let named = json!({"task_id": "t-1"});
        for (what, body) in [
            ("upload_request", named.clone()),
            ("upload_all", Value::Null),
            ("status_query", Value::Null),
            ("cancel", named.clone()),
        ] {
            let (status, answer) = site.post(&route(what), &body).await;
            let text = format!("device {DEVICE} not connected");
            assert_eq!((status, &answer["error"]), (404, &json!(text)), "{what}: {answer}");
            assert_eq!(answer["code"], "transfer_not_connected");
        }
        // The body is looked at before the connection.
        for what in ["upload_request", "cancel"] {
            let (status, answer) = site.post(&route(what), &json!({"task_id": ""})).await;
            assert_eq!(status, 400, "{answer}");
            let text = "Key: 'TaskID' Error:Field validation for 'TaskID' failed on the 'required' tag";
            assert_eq!((&answer["error"], &answer["code"]), (&json!(text), &json!("task_id_required")));
        }

        let mut uploader = Uploader::connect(&site, DEVICE).await;
        let sent = json!({"status": "sent"});
        let body = json!({"task_id": "t-1", "priority": 7});
        assert_eq!(site.post(&route("upload_request"), &body).await, (200, sent.clone()));
        let frame = "{\"priority\":7,\"task_id\":\"t-1\",\"type\":\"upload_request\"}\n";
        assert_eq!(uploader.text().await, frame, "what this site never heard of is passed on");
        assert_eq!(site.post(&route("upload_all"), &Value::Null).await, (200, sent.clone()));
        assert_eq!(uploader.text().await, "{\"type\":\"upload_all\"}\n");
        assert_eq!(site.post(&route("cancel"), &named).await, (200, sent.clone()));
        assert_eq!(uploader.text().await, "{\"task_id\":\"t-1\",\"type\":\"cancel\"}\n");
        assert_eq!(site.post(&route("status_query"), &Value::Null).await, (200, sent.clone()));
        assert_eq!(uploader.text().await, "{\"type\":\"status_query\"}\n");
        assert_eq!(site.post(&route("status_query"), &Value::Null).await, (200, sent));
        uploader.silence("one question is out").await;

        let (status, answer) = site.post(&route("upload_request"), &json!({"task_id": "../x"})).await;
        assert_eq!((status, &answer["field"]), (400, &json!("task_id")), "{answer}");
        let (status, answer) =
            site.post(&route("upload_request"), &json!({"task_id": "t", "priority": "high"})).await;
        assert_eq!((status, &answer["field"]), (400, &json!("priority")), "{answer}");
        site.create_task("robot-2", "theirs").await;
        let (status, answer) = site.post(&route("upload_request"), &json!({"task_id": "theirs"})).await;
        assert_eq!((status, &answer["code"]), (409, &json!("task_not_owned")), "{answer}");
    });
}

#[test]
fn a_recording_that_only_waits_is_acknowledged_late_after_a_restart() {
    run(async {
        let mut site = Plan::new().start().await;
        let mut uploader = Uploader::connect(&site, DEVICE).await;
        let take = Take::new(DEVICE, "waits", 21, 100_000);
        site.create_task(DEVICE, &take.task).await;
        uploader.say("upload_started", &take.started()).await;
        site.task_reaches(&take.task, "uploading").await;
        take.upload(&site).await;
        site.kill();
        drop(uploader);

        site.start().await;
        let mut uploader = Uploader::dial(&site, DEVICE).await;
        let mut greeting = status(DEVICE, &[]);
        greeting["waiting_ack_task_ids"] = json!([take.task]);
        uploader.say("connected", &greeting).await;
        uploader.ack(&take.task).await;
        site.task_reaches(&take.task, "completed").await;
        assert_eq!(site.episodes(DEVICE).await.len(), 1);
    });
}

#[test]
fn a_garbage_greeting_is_asked_for_again_and_what_it_hid_is_acknowledged() {
    run(async {
        let site = Plan::new().start().await;
        let take = Take::new(DEVICE, "hidden", 22, 100_000);
        uploading(&site, &take.task).await;
        take.upload(&site).await;
        let mut uploader = Uploader::dial(&site, DEVICE).await;
        let greeting = status(DEVICE, &[take.row("uploaded_wait_ack")]).to_string();
        let broken = format!("{{\"type\":\"connected\",\"data\":{}", &greeting[..greeting.len() / 2]);
        uploader.link.send_text(&broken).await.expect("an open link");
        // Known uploaders say nothing more unasked.
        assert_eq!(uploader.text().await, "{\"type\":\"status_query\"}\n");
        uploader.say("status", &status(DEVICE, &[take.row("uploaded_wait_ack")])).await;
        uploader.ack(&take.task).await;
        site.task_reaches(&take.task, "completed").await;
    });
}

#[test]
fn a_recording_that_its_uploader_does_not_find_is_looked_for_in_the_store() {
    run(async {
        let site = Plan::new().start().await;
        let mut uploader = Uploader::connect(&site, DEVICE).await;
        let take = Take::new(DEVICE, "not-lost", 23, 100_000);
        uploading(&site, &take.task).await;
        let request =
            format!("{{\"priority\":1,\"task_id\":\"{}\",\"type\":\"upload_request\"}}\n", take.task);
        assert_eq!(uploader.text().await, request);
        take.upload(&site).await;
        let detail = "No MCAP file matching not-lost in /recordings";
        uploader.say("upload_not_found", &json!({"task_id": take.task, "detail": detail})).await;
        let mut heard = [uploader.text().await, uploader.text().await];
        heard.sort();
        assert_eq!(heard[1], "{\"type\":\"status_query\"}\n");
        assert_eq!(heard[0], format!("{{\"task_id\":\"{}\",\"type\":\"upload_ack\"}}\n", take.task));
        site.task_reaches(&take.task, "completed").await;

        // Nobody has this one: a person is told, and settles it.
        uploading(&site, "lost").await;
        uploader.text().await;
        uploader.say("upload_not_found", &json!({"task_id": "lost", "detail": "No MCAP file"})).await;
        uploader.say("status", &status(DEVICE, &[])).await;
        until("the recording to be missing", STEP, async || {
            error_of(&site, "lost").await.starts_with("recording_missing").then_some(())
        })
        .await;
        let row = site.read("/api/v1/tasks/lost").await;
        assert_eq!((&row["status"], &row["overdue"]), (&json!("uploading"), &json!(true)), "{row}");
        let (status, body) = site.post(&route("upload_request"), &json!({"task_id": "lost"})).await;
        assert_eq!(status, 200, "{body}");
        assert_eq!(error_of(&site, "lost").await, "", "asked anew");
    });
}

#[test]
fn a_full_queue_of_the_uploader_fails_no_task() {
    run(async {
        let site = Plan::new().start().await;
        let mut uploader = Uploader::connect(&site, DEVICE).await;
        uploading(&site, "queued-later").await;
        uploader.text().await;
        let failed =
            json!({"task_id": "queued-later", "reason": "upload enqueue rejected", "retry_count": 0});
        uploader.say("upload_failed", &failed).await;
        until("the reason to be seen", STEP, async || {
            error_of(&site, "queued-later").await.contains("upload enqueue rejected").then_some(())
        })
        .await;
        assert_eq!(site.task_status("queued-later").await, "uploading");
    });
}

#[test]
fn a_person_settles_a_task_whose_recording_does_not_come() {
    run(async {
        let site = Plan::new().start().await;
        uploading(&site, "again").await;
        let resolve = "/api/v1/tasks/again/resolve";
        for wrong in [json!({}), json!({"to": "completed"}), json!({"to": 7})] {
            let (status, body) = site.post(resolve, &wrong).await;
            assert_eq!((status, &body["field"]), (400, &json!("to")), "{body}");
        }
        let row = site.read("/api/v1/tasks/again").await;
        assert_eq!(row["overdue"], false, "{row}");
        assert!(row["uploading_since"].is_string(), "{row}");
        let (status, row) = site.post(resolve, &json!({"to": "pending"})).await;
        assert_eq!((status, &row["status"]), (200, &json!("pending")), "{row}");
        assert_eq!((&row["attempt"], &row["wire_id"]), (&json!(2), &json!("again.2")), "{row}");
        let (status, body) = site.post(resolve, &json!({"to": "failed"})).await;
        assert_eq!((status, &body["code"]), (409, &json!("task_not_resolvable")), "{body}");

        uploading(&site, "burned").await;
        let body = json!({"to": "failed", "reason": "the robot burned"});
        let (status, row) = site.post("/api/v1/tasks/burned/resolve", &body).await;
        assert_eq!((status, &row["status"]), (200, &json!("failed")), "{row}");
        assert_eq!(row["error_message"], "settled by a person: the robot burned");
        let (status, _) = site.post("/api/v1/tasks/nobody/resolve", &body).await;
        assert_eq!(status, 404);
    });
}

#[test]
fn the_configuration_that_a_device_would_get_is_shown_while_its_task_is_pending() {
    run(async {
        let site = Plan::new().set("public_url", "http://site.example:8080").start().await;
        let task = json!({"task_id": "shown", "device_id": DEVICE, "config": {"topics": ["/a"]}});
        let (status, body) = site.post("/api/v1/tasks", &task).await;
        assert_eq!(status, 201, "{body}");
        let (status, config) = site.get("/api/v1/tasks/shown/config").await;
        assert_eq!(status, 200, "{config}");
        let wanted = json!({
            "task_id": "shown",
            "device_id": DEVICE,
            "topics": ["/a"],
            "start_callback_url": "http://site.example:8080/api/v1/callbacks/start",
            "finish_callback_url": "http://site.example:8080/api/v1/callbacks/finish",
            "user_token": "",
        });
        assert_eq!(config, wanted);
        let callback = json!({"task_id": "shown", "device_id": DEVICE, "output_path": "/x"});
        site.post("/api/v1/callbacks/finish", &callback).await;
        let (status, body) = site.get("/api/v1/tasks/shown/config").await;
        assert_eq!((status, &body["code"]), (409, &json!("task_not_configurable")), "{body}");
        assert_eq!(body["current_status"], "uploading");
        let (status, _) = site.get("/api/v1/tasks/nobody/config").await;
        assert_eq!(status, 404);
    });
}
