//! Behaviours that the predecessor's own tests fix, played against the real binary. A name begins with their numbers in
//! the table of docs/protocol.md; a letter stands for a behaviour that it planned to test.

use serde_json::{Value, json};

use crate::main_path::finish_callback;
use crate::rig::{Plan, STEP, Site, run, until};
use crate::script::{Recorder, Take, Uploader, synced};

const DEVICE: &str = "robot-1";

fn route(action: &str) -> String {
    format!("/api/v1/recorder/{DEVICE}/{action}")
}

fn config(task: &str) -> Value {
    json!({"task_config": {"task_id": task, "device_id": DEVICE}})
}

async fn state(site: &Site, device: &str) -> Value {
    site.read(&format!("/api/v1/recorder/{device}/state")).await
}

/// Answers the site's question after the state, and waits until it knows.
async fn asked(site: &Site, recorder: &mut Recorder) {
    let request = recorder.request("get_state").await;
    recorder.answer_state(&request).await;
    synced(site, &recorder.device).await;
}

/// Posts a command that the device is not to hear of. If its state became too old meanwhile, it is asked for that.
async fn unheard(site: &Site, recorder: &mut Recorder, action: &str, body: &Value) -> (u16, Value) {
    let path = route(action);
    let waiting = site.post(&path, body);
    tokio::pin!(waiting);
    loop {
        tokio::select! {
            biased;
            answer = &mut waiting => return answer,
            request = recorder.next() => {
                assert_eq!(request["action"], "get_state", "{request}");
                recorder.answer_state(&request).await;
            }
        }
    }
}

/// Has the device take a configuration.
async fn configured(site: &Site, recorder: &mut Recorder, task: &str) {
    let (code, body, _) = recorder.obey(site, "config", &config(task), "ready").await;
    assert_eq!((code, &body["success"]), (200, &json!(true)), "{body}");
    site.task_reaches(task, "ready").await;
}

/// Has the device record what it was configured for.
async fn begun(site: &Site, recorder: &mut Recorder, task: &str) {
    let (code, body, _) = recorder.obey(site, "begin", &json!({"task_id": task}), "recording").await;
    assert_eq!((code, &body["success"]), (200, &json!(true)), "{body}");
    site.task_reaches(task, "in_progress").await;
}

#[test]
fn k07_k50_states_that_a_device_reports_move_its_task() {
    run(async {
        let site = Plan::new().start().await;
        // The first answer of a link: state and task in it, and what becomes of the task.
        for (n, data, status, known) in [
            (1, json!({"state": "recording", "task_id": "t1"}), "in_progress", true),
            (2, json!({"state": "paused", "task_config": {"task_id": "t2"}}), "in_progress", true),
            (3, json!({"state": "ready", "task_config": {"task_id": "t3"}}), "ready", true),
            (4, json!({"state": "idle", "task_id": "t4"}), "pending", true),
            (5, json!({"state": "ready"}), "pending", false),
            (6, json!({"state": " "}), "pending", false),
        ] {
            let (device, task) = (format!("answers-{n}"), format!("t{n}"));
            site.create_task(&device, &task).await;
            let mut recorder = Recorder::dial(&site, &device).await;
            let request = recorder.request("get_state").await;
            recorder.answer(&request, true, "", data.clone()).await;
            if known {
                synced(&site, &device).await;
            } else {
                // What it says is not believed: it is asked again.
                recorder.request("get_state").await;
            }
            site.task_reaches(&task, status).await;
            let row = site.read(&format!("/api/v1/tasks/{task}")).await;
            assert_eq!(row["started_at"].is_string(), status == "in_progress", "{data}: {row}");
            let seen = state(&site, &device).await;
            assert_eq!(
                (&seen["state_synced"], &seen["syncing"]),
                (&json!(known), &json!(!known)),
                "{data}: {seen}"
            );
        }
        // What an idle recorder pushes.
        for (n, pushed, status) in
            [(1, "ready", "ready"), (2, "recording", "in_progress"), (3, "paused", "in_progress")]
        {
            let (device, task) = (format!("pushes-{n}"), format!("p{n}"));
            site.create_task(&device, &task).await;
            let mut recorder = Recorder::connect(&site, &device).await;
            recorder.task = Some(task.clone());
            recorder.push_state(pushed).await;
            site.task_reaches(&task, status).await;
        }
        // A push without a word confirms nothing.
        let mut blank = Recorder::dial(&site, "blank").await;
        blank.request("get_state").await;
        until("a push to be heard", STEP, async || {
            blank.push_state("").await;
            let list = site.read("/api/v1/recorder/devices").await;
            let mine = list["devices"].as_array()?.iter().find(|row| row["device_id"] == "blank")?.clone();
            (mine["last_seen_at"] != mine["connected_at"]).then_some(())
        })
        .await;
        let seen = state(&site, "blank").await;
        assert_eq!((&seen["state_synced"], &seen["syncing"]), (&json!(false), &json!(true)), "{seen}");
    });
}

#[test]
fn k12_k15_k66_k67_what_is_uploading_or_over_is_refused_and_nothing_is_sent() {
    run(async {
        let site = Plan::new().start().await;
        let mut recorder = Recorder::connect(&site, DEVICE).await;
        let mut uploader = Uploader::connect(&site, DEVICE).await;
        let finish =
            async |task: &str| site.post("/api/v1/callbacks/finish", &finish_callback(DEVICE, task)).await;
        let take = Take::new(DEVICE, "sent", 1, 40_000).mcap_only();
        site.create_task(DEVICE, "sent").await;
        let (code, body) = finish("sent").await;
        assert_eq!((code, &body["upload_request_sent"]), (200, &json!(true)), "{body}");
        assert_eq!(
            uploader.text().await,
            "{\"priority\":1,\"task_id\":\"sent\",\"type\":\"upload_request\"}\n"
        );
        for (action, body, refused) in [
            ("config", config("sent"), "task_not_configurable"),
            ("begin", json!({"task_id": "sent"}), "task_not_beginable"),
        ] {
            let (code, answer) = unheard(&site, &mut recorder, action, &body).await;
            assert_eq!((code, &answer["code"]), (409, &json!(refused)), "{answer}");
            assert_eq!(answer["current_status"], "uploading", "{answer}");
        }
        let (code, body) = finish("sent").await;
        assert_eq!((code, &body["task_status"]), (200, &json!("uploading")), "{body}");
        assert_eq!(body["upload_request_sent"], false, "{body}");

        take.upload(&site).await;
        uploader.say("upload_complete", &take.complete()).await;
        uploader.ack("sent").await;
        site.task_reaches("sent", "completed").await;
        let (code, body) = finish("sent").await;
        assert_eq!((code, &body["task_status"]), (200, &json!("completed")), "{body}");

        site.create_task(DEVICE, "failed").await;
        let took = Take::new(DEVICE, "failed", 2, 10).started();
        uploader.say("upload_started", &took).await;
        site.task_reaches("failed", "uploading").await;
        let gave_up =
            json!({"task_id": "failed", "reason": "AccessDenied", "retry_count": 5, "next_retry_at": null});
        uploader.say("upload_failed", &gave_up).await;
        site.task_reaches("failed", "failed").await;
        site.create_task(DEVICE, "cancelled").await;
        assert_eq!(site.post("/api/v1/tasks/cancelled/cancel", &json!({})).await.0, 200);
        for task in ["failed", "cancelled"] {
            let (code, body) = finish(task).await;
            assert_eq!(code, 409, "{task}: {body}");
            assert_eq!(site.task_status(task).await, task);
        }
        recorder.silence().await;
        uploader.silence("nothing is asked for again").await;
    });
}

#[test]
fn k13_k14_k22_k23_k24_commands_that_are_not_answered_or_have_no_recorder_move_nothing() {
    run(async {
        let site = Plan::new().set("devices.rpc_timeout", "2s").start().await;
        site.create_task(DEVICE, "t").await;
        let _uploader = Uploader::connect(&site, DEVICE).await;
        let named = json!({"task_id": "t"});
        for (action, body) in [
            ("config", config("t")),
            ("begin", named.clone()),
            ("cancel", named.clone()),
            ("clear", json!({})),
        ] {
            let (code, answer) = site.post(&route(action), &body).await;
            assert_eq!(
                (code, &answer["code"]),
                (404, &json!("recorder_not_connected")),
                "{action}: {answer}"
            );
            assert!(
                answer["error"].as_str().is_some_and(|text| text.contains("recorder not connected")),
                "{answer}"
            );
        }
        assert_eq!(site.get(&route("stats")).await, (200, json!({"connected": false, "data": {}})));
        assert_eq!(site.task_status("t").await, "pending");

        let mut recorder = Recorder::connect(&site, DEVICE).await;
        let unanswered = async |recorder: &mut Recorder, action: &str, body: &Value, status: &str| {
            let path = route(action);
            let ((code, answer), _) = tokio::join!(site.post(&path, body), recorder.request(action));
            assert_eq!((code, &answer["code"]), (504, &json!("rpc_timeout")), "{action}: {answer}");
            assert_eq!(answer["result_unknown"], true, "{answer}");
            assert_eq!(site.task_status("t").await, status, "{action}");
        };
        unanswered(&mut recorder, "config", &config("t"), "pending").await;
        asked(&site, &mut recorder).await;
        configured(&site, &mut recorder, "t").await;
        unanswered(&mut recorder, "begin", &named, "ready").await;
        // It did begin, as its own word shows.
        recorder.state = "recording".to_owned();
        asked(&site, &mut recorder).await;
        site.task_reaches("t", "in_progress").await;
        for action in ["cancel", "clear"] {
            let body = if action == "cancel" { named.clone() } else { json!({}) };
            unanswered(&mut recorder, action, &body, "in_progress").await;
            asked(&site, &mut recorder).await;
            let path = route(action);
            let refuse = async {
                let request = recorder.request(action).await;
                recorder
                    .answer(&request, false, "not now", json!({"state": "recording", "task_id": "t"}))
                    .await;
            };
            let ((code, answer), ()) = tokio::join!(site.post(&path, &body), refuse);
            assert_eq!((code, &answer["success"]), (200, &json!(false)), "{action}: {answer}");
            assert_eq!(answer["message"], "not now", "{answer}");
            assert_eq!(site.task_status("t").await, "in_progress", "{action}");
        }
        let path = route("stats");
        let refuse = async {
            let request = recorder.request("get_stats").await;
            recorder.answer(&request, false, "busy", Value::Null).await;
        };
        let ((code, answer), ()) = tokio::join!(site.get(&path), refuse);
        assert_eq!(
            (code, &answer["connected"], &answer["error"]),
            (200, &json!(true), &json!("busy")),
            "{answer}"
        );
        let ((code, answer), _) = tokio::join!(site.get(&path), recorder.request("get_stats"));
        assert_eq!((code, &answer["code"]), (504, &json!("rpc_timeout")), "{answer}");
    });
}

#[test]
fn k17_k21_k42_each_command_reaches_the_device_by_its_name_with_its_parameters() {
    run(async {
        let site = Plan::new().start().await;
        site.create_task(DEVICE, "t").await;
        let mut recorder = Recorder::connect(&site, DEVICE).await;
        let _uploader = Uploader::connect(&site, DEVICE).await;
        let named = json!({"task_id": "t"});
        let wanted = json!({"task_config": {"task_id": "t", "device_id": DEVICE, "scene": "kitchen", "topics": ["/imu"]}});
        let (code, body, request) = recorder.obey(&site, "config", &wanted, "ready").await;
        assert_eq!((code, &body["success"]), (200, &json!(true)), "{body}");
        let sent = &request["params"]["task_config"];
        for key in ["task_id", "device_id", "scene", "topics"] {
            assert_eq!(sent[key], wanted["task_config"][key], "{request}");
        }
        for which in ["start", "finish"] {
            let url = format!("http://127.0.0.1:{}/api/v1/callbacks/{which}", site.api);
            assert_eq!(sent[format!("{which}_callback_url")], url, "{request}");
        }
        site.task_reaches("t", "ready").await;

        recorder.task = None;
        let (code, body, request) = recorder.obey(&site, "clear", &json!({}), "idle").await;
        assert_eq!((code, request.get("params")), (200, None), "{body}");
        site.task_reaches("t", "pending").await;
        configured(&site, &mut recorder, "t").await;
        let (code, body, request) = recorder.obey(&site, "begin", &named, "recording").await;
        assert_eq!((code, &request["params"]), (200, &named), "{body}");
        site.task_reaches("t", "in_progress").await;
        for (action, state, params) in [
            ("pause", "paused", None),
            ("resume", "recording", None),
            ("quit", "recording", None),
            // The site names the task that the recorder has.
            ("finish", "recording", Some(&named)),
        ] {
            let (code, body, request) = recorder.obey(&site, action, &json!({}), state).await;
            assert_eq!((code, request.get("params")), (200, params), "{action}: {body}");
            assert_eq!(site.task_status("t").await, "in_progress", "{action}");
        }
        let path = route("stats");
        let play = async {
            let request = recorder.request("get_stats").await;
            recorder.answer(&request, true, "", json!({"dropped": 3})).await;
            request
        };
        let ((code, answer), request) = tokio::join!(site.get(&path), play);
        assert_eq!((code, request.get("params")), (200, None), "{answer}");
        assert_eq!(answer, json!({"connected": true, "data": {"dropped": 3}}));
        let cancel = recorder.obey(&site, "cancel", &named, "idle").await;
        assert_eq!((cancel.0, &cancel.2["params"]), (200, &named), "{}", cancel.1);
        site.task_reaches("t", "pending").await;
        // It was begun, so it comes back as another attempt.
        assert_eq!(site.read("/api/v1/tasks/t").await["wire_id"], "t.2");
    });
}

#[test]
fn k44_k46_a_device_that_is_ready_makes_its_task_ready_once_and_takes_no_other() {
    run(async {
        let site = Plan::new().start().await;
        for task in ["mine", "other"] {
            site.create_task(DEVICE, task).await;
        }
        let _uploader = Uploader::connect(&site, DEVICE).await;
        let mut recorder = Recorder::dial(&site, DEVICE).await;
        let request = recorder.request("get_state").await;
        recorder.task = Some("mine".to_owned());
        recorder.push_state("ready").await;
        recorder.answer_state(&request).await;
        synced(&site, DEVICE).await;
        site.task_reaches("mine", "ready").await;
        let row = async || site.read("/api/v1/tasks/mine").await;
        let since = row().await["ready_at"].clone();
        assert!(since.is_string(), "{since}");
        // Said again, and something after it, so that it is known to be heard.
        recorder.push_state("ready").await;
        recorder.push_state("recording").await;
        site.task_reaches("mine", "in_progress").await;
        assert_eq!(row().await["ready_at"], since);
        let (code, body) = unheard(&site, &mut recorder, "config", &config("other")).await;
        assert_eq!((code, &body["code"]), (409, &json!("recorder_busy")), "{body}");
        recorder.silence().await;
        assert_eq!(site.task_status("other").await, "pending");
    });
}

#[test]
fn k106b_k106e_a_recorder_that_is_ready_for_another_task_is_not_begun_and_a_refresh_asks_it() {
    run(async {
        let site = Plan::new().start().await;
        for task in ["mine", "other"] {
            site.create_task(DEVICE, task).await;
        }
        let _uploader = Uploader::connect(&site, DEVICE).await;
        let mut recorder = Recorder::connect(&site, DEVICE).await;
        configured(&site, &mut recorder, "mine").await;
        let begin = json!({"task_id": "other"});
        let (code, body) = unheard(&site, &mut recorder, "begin", &begin).await;
        assert_eq!((code, &body["code"]), (409, &json!("task_not_beginable")), "{body}");
        assert_eq!(body["recorder_state"], "ready", "{body}");
        assert_eq!(site.task_status("other").await, "pending");

        begun(&site, &mut recorder, "mine").await;
        let refresh = format!("{}?refresh=true&max_age_ms=0", route("state"));
        let (seen, ()) = tokio::join!(site.read(&refresh), async {
            let request = recorder.request("get_state").await;
            recorder.state = "paused".to_owned();
            recorder.answer_state(&request).await;
        });
        assert_eq!((&seen["current_state"], &seen["fresh"]), (&json!("paused"), &json!(true)), "{seen}");
        // One that is young enough is not asked for.
        let young = site.read(&format!("{}?refresh=true&max_age_ms=600000", route("state"))).await;
        assert_eq!(young["current_state"], "paused", "{young}");
        recorder.silence().await;
    });
}
