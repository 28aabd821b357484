//! Records against devices: absence and its grace, idle against a task in progress, recordings of earlier attempts, and
//! conflicts with their resolution.

use serde_json::{Value, json};

use crate::main_path::finish_callback;
use crate::rig::{Plan, STEP, Site, run, until};
use crate::script::{Recorder, Take, Uploader, status, synced};

const DEVICE: &str = "robot-1";

fn plan() -> Plan {
    Plan::new().set("devices.link_grace", "1s").set("devices.settle", "200ms")
}

async fn task(site: &Site, task: &str) -> Value {
    site.read(&format!("/api/v1/tasks/{task}")).await
}

/// Configures a task of the device.
async fn configure(site: &Site, recorder: &mut Recorder, task: &str) {
    let config = json!({"task_config": {"task_id": task, "device_id": DEVICE}});
    let (status, body, _) = recorder.obey(site, "config", &config, "ready").await;
    assert_eq!((status, &body["success"]), (200, &json!(true)), "{body}");
    site.task_reaches(task, "ready").await;
}

/// Has the device record a task that it was configured for.
async fn begin(site: &Site, recorder: &mut Recorder, task: &str) {
    let (status, body, _) = recorder.obey(site, "begin", &json!({"task_id": task}), "recording").await;
    assert_eq!((status, &body["success"]), (200, &json!(true)), "{body}");
    site.task_reaches(task, "in_progress").await;
}

/// The link ends from the device's side.
async fn drop_link(site: &Site, recorder: Recorder) {
    drop(recorder);
    until("the link to be down", STEP, async || {
        let seen = site.read(&format!("/api/v1/devices/{DEVICE}/connection")).await;
        (seen["recorder_connected"] == false).then_some(())
    })
    .await;
}

/// The uploader is asked for a recording, does not find it and does not list it.
async fn deny(uploader: &mut Uploader, task: &str) {
    while !uploader.text().await.contains(&format!("\"task_id\":\"{task}\",\"type\":\"upload_request\"")) {}
    let detail = format!("No MCAP file matching {task} in /recordings");
    uploader.say("upload_not_found", &json!({"task_id": task, "detail": detail})).await;
    while !uploader.text().await.contains("status_query") {}
    uploader.say("status", &status(DEVICE, &[])).await;
}

/// Comes back in this state.
async fn back(site: &Site, state: &str, task: Option<&str>) -> Recorder {
    let mut recorder = Recorder::dial(site, DEVICE).await;
    (recorder.state, recorder.task) = (state.to_owned(), task.map(str::to_owned));
    let request = recorder.next().await;
    recorder.answer_state(&request).await;
    synced(site, DEVICE).await;
    recorder
}

/// The predecessor let a task lie in progress for ever once its recorder was idle.
#[test]
fn w06_an_idle_recorder_contradicts_a_task_that_is_ready_or_in_progress() {
    run(async {
        let site = plan().start().await;
        let mut uploader = Uploader::connect(&site, DEVICE).await;
        // k49: ready, drop, and idle when it is back: one configuration more is what it takes.
        site.create_task(DEVICE, "ready").await;
        let mut recorder = Recorder::connect(&site, DEVICE).await;
        configure(&site, &mut recorder, "ready").await;
        drop_link(&site, recorder).await;
        let mut recorder = back(&site, "idle", None).await;
        site.task_reaches("ready", "pending").await;
        assert_eq!(task(&site, "ready").await["attempt"], 1, "it was never begun");
        configure(&site, &mut recorder, "ready").await;
        let (status, body, _) = recorder.obey(&site, "clear", &json!({}), "idle").await;
        assert_eq!(status, 200, "{body}");

        // In progress: the uploader is asked first whether the recording is there.
        site.create_task(DEVICE, "runs").await;
        recorder.task = None;
        recorder.push_state("idle").await;
        configure(&site, &mut recorder, "runs").await;
        begin(&site, &mut recorder, "runs").await;
        recorder.task = None;
        recorder.push_state("idle").await;
        deny(&mut uploader, "runs").await;
        site.task_reaches("runs", "pending").await;
        let row = task(&site, "runs").await;
        assert_eq!((&row["attempt"], &row["wire_id"]), (&json!(2), &json!("runs.2")), "{row}");
        assert_eq!(row["earlier"][0]["owed"], true, "{row}");
        assert!(row.get("started_at").is_none(), "{row}");
    });
}

#[test]
fn w06_the_same_after_a_restart_of_the_site() {
    run(async {
        let mut site = plan().start().await;
        let _uploader = Uploader::connect(&site, DEVICE).await;
        site.create_task(DEVICE, "runs").await;
        let mut recorder = Recorder::connect(&site, DEVICE).await;
        configure(&site, &mut recorder, "runs").await;
        begin(&site, &mut recorder, "runs").await;
        site.kill();
        site.start().await;
        assert_eq!(site.task_status("runs").await, "in_progress", "a restart alone moves nothing");
        let mut uploader = Uploader::connect(&site, DEVICE).await;
        let _recorder = back(&site, "idle", None).await;
        deny(&mut uploader, "runs").await;
        site.task_reaches("runs", "pending").await;
        assert_eq!(task(&site, "runs").await["wire_id"], "runs.2");
    });
}

/// The predecessor put a task back the moment its link broke, in two steps that a reconnect could fall between, and
/// forgot when it had begun.
#[test]
fn k25_w19_w23_k41_an_absent_recorder_loses_its_task_after_the_grace_and_takes_up_the_same_recording() {
    run(async {
        let site = plan().start().await;
        let mut uploader = Uploader::connect(&site, DEVICE).await;
        site.create_task(DEVICE, "runs").await;
        let mut recorder = Recorder::connect(&site, DEVICE).await;
        configure(&site, &mut recorder, "runs").await;
        begin(&site, &mut recorder, "runs").await;
        let began = task(&site, "runs").await["started_at"].clone();
        assert!(began.is_string());
        // k41b: beyond the grace.
        drop_link(&site, recorder).await;
        deny(&mut uploader, "runs").await;
        site.task_reaches("runs", "pending").await;
        let row = task(&site, "runs").await;
        assert_eq!(
            (&row["wire_id"], &row["earlier"][0]["wire_id"]),
            (&json!("runs.2"), &json!("runs")),
            "{row}"
        );
        let mut recorder = back(&site, "recording", Some("runs")).await;
        site.task_reaches("runs", "in_progress").await;
        let row = task(&site, "runs").await;
        assert_eq!((&row["wire_id"], &row["started_at"]), (&json!("runs"), &began), "{row}");
        assert!(row.get("earlier").is_none(), "{row}");
        let config = json!({"task_config": {"task_id": "runs", "device_id": DEVICE}});
        let path = format!("/api/v1/recorder/{DEVICE}/config");
        let (status, body) = site.post(&path, &config).await;
        assert_eq!((status, &body["code"]), (409, &json!("recorder_busy")), "{body}");
        let (status, body, _) = recorder.obey(&site, "pause", &json!({}), "paused").await;
        assert_eq!(status, 200, "{body}");
        assert_eq!(site.task_status("runs").await, "in_progress");
    });
}

#[test]
fn k41a_k48_a_recorder_that_is_back_within_the_grace_changes_nothing() {
    run(async {
        let site = Plan::new().set("devices.link_grace", "5m").set("devices.settle", "200ms").start().await;
        let _uploader = Uploader::connect(&site, DEVICE).await;
        site.create_task(DEVICE, "runs").await;
        let mut recorder = Recorder::connect(&site, DEVICE).await;
        configure(&site, &mut recorder, "runs").await;
        let ready_at = task(&site, "runs").await["ready_at"].clone();
        drop_link(&site, recorder).await;
        assert_eq!(site.task_status("runs").await, "ready");
        let mut recorder = back(&site, "ready", Some("runs")).await;
        let row = task(&site, "runs").await;
        assert_eq!((&row["status"], &row["ready_at"]), (&json!("ready"), &ready_at), "{row}");
        begin(&site, &mut recorder, "runs").await;
        drop_link(&site, recorder).await;
        let _recorder = back(&site, "recording", Some("runs")).await;
        let row = task(&site, "runs").await;
        assert_eq!((&row["status"], &row["attempt"]), (&json!("in_progress"), &json!(1)), "{row}");
    });
}

#[test]
fn k48_a_ready_task_whose_device_stays_away_keeps_its_name() {
    run(async {
        let site = plan().start().await;
        let _uploader = Uploader::connect(&site, DEVICE).await;
        site.create_task(DEVICE, "ready").await;
        let mut recorder = Recorder::connect(&site, DEVICE).await;
        configure(&site, &mut recorder, "ready").await;
        drop_link(&site, recorder).await;
        site.task_reaches("ready", "pending").await;
        let _recorder = back(&site, "ready", Some("ready")).await;
        site.task_reaches("ready", "ready").await;
        assert_eq!(task(&site, "ready").await["attempt"], 1);
    });
}

/// Stock recorders post their finish callback once. The predecessor never found a recording whose callback was lost.
#[test]
fn w25_a_recording_that_ended_while_the_site_was_down_is_found() {
    run(async {
        let mut site = plan().start().await;
        let take = Take::new(DEVICE, "lost", 1, 50_000).mcap_only();
        site.create_task(DEVICE, &take.task).await;
        let uploader = Uploader::connect(&site, DEVICE).await;
        let mut recorder = Recorder::connect(&site, DEVICE).await;
        configure(&site, &mut recorder, &take.task).await;
        begin(&site, &mut recorder, &take.task).await;
        drop(uploader);
        site.kill();
        // Nobody is there to hear that the recording ended.
        site.start().await;
        let mut uploader = Uploader::connect(&site, DEVICE).await;
        let _recorder = back(&site, "idle", None).await;
        let text = uploader.text().await;
        assert_eq!(text, "{\"priority\":1,\"task_id\":\"lost\",\"type\":\"upload_request\"}\n");
        uploader.say("upload_started", &take.started()).await;
        site.task_reaches(&take.task, "uploading").await;
        take.upload(&site).await;
        uploader.say("upload_complete", &take.complete()).await;
        uploader.ack(&take.task).await;
        site.task_reaches(&take.task, "completed").await;
    });
}

#[test]
fn w25_a_finish_that_was_answered_needs_no_callback() {
    run(async {
        let site = plan().start().await;
        site.create_task(DEVICE, "runs").await;
        let mut uploader = Uploader::connect(&site, DEVICE).await;
        let mut recorder = Recorder::connect(&site, DEVICE).await;
        configure(&site, &mut recorder, "runs").await;
        begin(&site, &mut recorder, "runs").await;
        let (status, body, _) = recorder.obey(&site, "finish", &json!({}), "idle").await;
        assert_eq!(status, 200, "{body}");
        site.task_reaches("runs", "uploading").await;
        assert!(uploader.text().await.contains("upload_request"));
    });
}

/// The predecessor broke its links without a word when it stopped, and put the tasks of all devices back when it started.
#[test]
fn w35_a_stop_says_goodbye_and_a_start_waits_for_the_devices() {
    run(async {
        let mut site = plan().start().await;
        let _uploader = Uploader::connect(&site, DEVICE).await;
        site.create_task(DEVICE, "runs").await;
        let mut recorder = Recorder::connect(&site, DEVICE).await;
        configure(&site, &mut recorder, "runs").await;
        begin(&site, &mut recorder, "runs").await;
        site.signal("TERM");
        let closed = recorder.link.closed(STEP).await.expect("the link is closed");
        assert_eq!(closed.map(|(code, _)| code), Some(1001));
        site.exit(STEP).await;
        site.start().await;
        assert_eq!(site.task_status("runs").await, "in_progress");
        let _recorder = back(&site, "recording", Some("runs")).await;
        assert_eq!(task(&site, "runs").await["attempt"], 1);
    });
}

/// The predecessor left the attempt where it was, and began it again.
#[test]
fn k60_a_begin_that_is_refused_is_never_sent_again_under_its_name() {
    run(async {
        let site = plan().start().await;
        let _uploader = Uploader::connect(&site, DEVICE).await;
        site.create_task(DEVICE, "once").await;
        let mut recorder = Recorder::connect(&site, DEVICE).await;
        configure(&site, &mut recorder, "once").await;
        let path = format!("/api/v1/recorder/{DEVICE}/begin");
        let named = json!({"task_id": "once"});
        let refuse = async {
            let request = recorder.request("begin").await;
            recorder.answer(&request, false, "no", json!({})).await;
        };
        let ((status, body), ()) = tokio::join!(site.post(&path, &named), refuse);
        assert_eq!((status, &body["success"]), (200, &json!(false)), "{body}");
        let row = task(&site, "once").await;
        assert_eq!((&row["status"], &row["wire_id"]), (&json!("pending"), &json!("once.2")), "{row}");
        assert_eq!(row["earlier"][0]["owed"], false, "it said that it recorded nothing: {row}");
        // The device is still ready for the first attempt: the next one may take its place.
        let config = json!({"task_config": {"task_id": "once", "device_id": DEVICE}});
        let (status, body, request) = recorder.obey(&site, "config", &config, "ready").await;
        assert_eq!((status, &body["success"]), (200, &json!(true)), "{body}");
        assert_eq!(request["params"]["task_config"]["task_id"], "once.2", "{request}");
        begin(&site, &mut recorder, "once").await;
    });
}

#[test]
fn what_a_device_holds_against_its_records_is_shown_and_settled_by_a_person() {
    run(async {
        let site = plan().start().await;
        let _uploader = Uploader::connect(&site, DEVICE).await;
        let mut recorder = back(&site, "recording", Some("stranger")).await;
        let all = site.read("/api/v1/devices/conflicts").await;
        let one = &all["conflicts"][0];
        assert_eq!((&one["device_id"], &one["kind"]), (&json!(DEVICE), &json!("unknown_task")), "{all}");
        assert_eq!((&one["device_state"], &one["device_task_id"]), (&json!("recording"), &json!("stranger")));
        let seen = site.read(&format!("/api/v1/devices/{DEVICE}/connection")).await;
        assert_eq!(seen["conflict"]["kind"], "unknown_task", "{seen}");
        let path = format!("/api/v1/devices/{DEVICE}/conflict/resolve");
        for (body, code) in [
            (json!({"how": "burn", "device_task_id": "stranger"}), "bad_field"),
            (json!({"how": "drop"}), "missing_field"),
            (json!({"how": "drop", "device_task_id": "other"}), "conflict_changed"),
            (json!({"how": "release", "device_task_id": "stranger"}), "conflict_needs_command"),
        ] {
            let (_, answer) = site.post(&path, &body).await;
            assert_eq!(answer["code"], code, "{answer}");
        }
        let body = json!({"how": "finish", "device_task_id": "stranger"});
        let obey = async {
            let request = recorder.request("finish").await;
            assert_eq!(request["params"]["task_id"], "stranger", "{request}");
            recorder.task = None;
            recorder.answer(&request, true, "done", json!({"state": "idle"})).await;
        };
        let ((status, answer), ()) = tokio::join!(site.post(&path, &body), obey);
        assert_eq!((status, &answer["success"]), (200, &json!(true)), "{answer}");
        until("the conflict to be over", STEP, async || {
            let all = site.read("/api/v1/devices/conflicts").await;
            all["conflicts"].as_array().expect("a list").is_empty().then_some(())
        })
        .await;
        let (status, answer) = site.post(&path, &body).await;
        assert_eq!((status, &answer["code"]), (404, &json!("no_conflict")), "{answer}");
    });
}

#[test]
fn a_finish_callback_of_an_earlier_attempt_is_kept_in_mind_until_its_uploader_is_there() {
    run(async {
        let site = plan().start().await;
        let mut uploader = Uploader::connect(&site, DEVICE).await;
        site.create_task(DEVICE, "runs").await;
        let mut recorder = Recorder::connect(&site, DEVICE).await;
        configure(&site, &mut recorder, "runs").await;
        begin(&site, &mut recorder, "runs").await;
        drop_link(&site, recorder).await;
        deny(&mut uploader, "runs").await;
        site.task_reaches("runs", "pending").await;
        drop(uploader);
        until("the uploader to be gone", STEP, async || {
            let seen = site.read(&format!("/api/v1/devices/{DEVICE}/connection")).await;
            (seen["transfer_connected"] == false).then_some(())
        })
        .await;
        let (status, body) = site.post("/api/v1/callbacks/finish", &finish_callback(DEVICE, "runs")).await;
        assert_eq!((status, &body["upload_request_sent"]), (200, &json!(false)), "{body}");
        let mut uploader = Uploader::connect(&site, DEVICE).await;
        assert_eq!(
            uploader.text().await,
            "{\"priority\":1,\"task_id\":\"runs\",\"type\":\"upload_request\"}\n"
        );
    });
}
