//! Weaknesses of states and commands.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::{DEVICE, config, recording};
use crate::rig::{Plan, STEP, run, until};
use crate::script::{Recorder, Uploader, synced, text_within};

const STATE: &str = "/api/v1/recorder/robot-1/state";

// W3: answers and pushes were applied by two goroutines of the predecessor, so an older answer could overwrite a newer
// push. Here what a link says is taken in the order in which it was said.
#[test]
fn w03_a_push_right_behind_an_answer_is_what_stays() {
    run(async {
        let site = Plan::new().start().await;
        let mut recorder = Recorder::connect(&site, DEVICE).await;
        for round in 0..100 {
            let play = async {
                let request = recorder.request("get_state").await;
                recorder.state = "idle".to_owned();
                recorder.answer_state(&request).await;
                recorder.push_state("maintenance").await;
            };
            let (body, ()) =
                tokio::join!(site.read("/api/v1/recorder/robot-1/state?refresh=true&max_age_ms=0"), play);
            assert_eq!(body["connected"], true, "{body}");
            until(&format!("the push of round {round}"), STEP, async || {
                (site.read(STATE).await["current_state"] == "maintenance").then_some(())
            })
            .await;
        }
    });
}

// W5: when the uploader's link went, the predecessor cancelled what its recorder was recording. Here nothing is sent to a
// recorder because of its uploader.
#[test]
fn w05_losing_the_uploader_cancels_nothing() {
    run(async {
        let site = Plan::new().start().await;
        let (mut recorder, uploader) = recording(&site, "goes-on").await;
        drop(uploader);
        until("the uploader to be gone", STEP, async || {
            let seen = site.read("/api/v1/devices/robot-1/connection").await;
            (seen["transfer_connected"] == false).then_some(())
        })
        .await;
        recorder.silence().await;
        assert_eq!(site.task_status("goes-on").await, "in_progress");
    });
}

// W7: two configs at once both passed the predecessor's checks and both were sent. Here the place of the one command is
// taken in the step that looks.
#[test]
fn w07_of_two_configs_at_once_one_is_sent() {
    run(async {
        let site = Plan::new().start().await;
        let mut recorder = Recorder::connect(&site, DEVICE).await;
        let _uploader = Uploader::connect(&site, DEVICE).await;
        let mut asked = Vec::new();
        for task in ["one", "two"] {
            site.create_task(DEVICE, task).await;
            let http = site.http();
            asked.push(tokio::spawn(async move {
                let answer =
                    http.post("/api/v1/recorder/robot-1/config", &config(task)).await.expect("an answer");
                (answer.0, answer.2)
            }));
        }
        let request = recorder.request("config").await;
        // The other one is refused while this one is out.
        let end = tokio::time::Instant::now() + STEP;
        while !asked.iter().any(tokio::task::JoinHandle::is_finished) {
            assert!(tokio::time::Instant::now() < end, "neither is refused");
            if let Some(text) = text_within(&mut recorder.link, Duration::from_millis(5)).await {
                let frame: Value = serde_json::from_str(&text).expect("JSON");
                assert_eq!(frame["action"], "get_state", "a second command left: {text}");
                recorder.answer_state(&frame).await;
            }
        }
        let task = request["params"]["task_config"]["task_id"].clone();
        recorder.task = task.as_str().map(str::to_owned);
        recorder.push_state("ready").await;
        recorder.answer(&request, true, "done", json!({"state": "ready", "task_id": task})).await;
        let mut answers = Vec::new();
        for asked in asked {
            answers.push(asked.await.expect("an answer"));
        }
        answers.sort_by_key(|(status, _)| *status);
        assert_eq!(answers[0].0, 200, "{answers:?}");
        assert_eq!((answers[1].0, &answers[1].1["code"]), (409, &json!("command_in_flight")), "{answers:?}");
    });
}

// W18: any device, and anybody over HTTP, could move any task of the predecessor. Here each of these doors asks whose task
// it is.
#[test]
fn w18_no_door_lets_a_device_move_the_task_of_another() {
    run(async {
        let site = Plan::new().start().await;
        site.create_task("robot-2", "theirs").await;
        let mut recorder = Recorder::connect(&site, DEVICE).await;
        let mut uploader = Uploader::connect(&site, DEVICE).await;
        for action in ["cancel", "clear", "finish"] {
            let (code, body) =
                site.post(&format!("/api/v1/recorder/robot-1/{action}"), &json!({"task_id": "theirs"})).await;
            assert_eq!((code, &body["code"]), (409, &json!("task_not_owned")), "{action}: {body}");
        }
        recorder.task = Some("theirs".to_owned());
        let applied = json!({"type": "config_applied", "timestamp": 1, "data": {"task_id": "theirs"}});
        recorder.link.send_json(&applied).await.expect("an open link");
        recorder.push_state("ready").await;
        recorder.push_state("recording").await;
        uploader
            .say("upload_started", &json!({"task_id": "theirs", "s3_key": "it/robot-1/d/theirs.mcap"}))
            .await;
        uploader.say("upload_failed", &json!({"task_id": "theirs", "reason": "x"})).await;
        until("the pushes to be seen", STEP, async || {
            (site.read(STATE).await["current_state"] == "recording").then_some(())
        })
        .await;
        let claim = json!({"task_id": "theirs", "device_id": DEVICE, "output_path": "/x", "started_at": "2026-03-05T00:00:00Z"});
        site.post("/api/v1/callbacks/start", &claim).await;
        let (code, body) = site.post("/api/v1/callbacks/finish", &claim).await;
        assert_eq!(code, 409, "{body}");
        uploader.silence("nothing is asked of a stranger").await;
        assert_eq!(site.task_status("theirs").await, "pending");
    });
}

// W20: the predecessor counted an answer for whichever connection was current when it was processed. Here an answer
// belongs to the link that was asked.
#[test]
fn w20_an_answer_on_the_old_link_confirms_nothing_of_the_new_one() {
    run(async {
        let site = Plan::new().start().await;
        let mut old = Recorder::dial(&site, DEVICE).await;
        let asked_old = old.request("get_state").await;
        let mut new = Recorder::dial(&site, DEVICE).await;
        let asked_new = new.request("get_state").await;
        // The old socket may be closed by now, which is as good.
        for request in [&asked_old, &asked_new] {
            let data = json!({"type": "rpc_response", "request_id": request["request_id"], "success": true, "data": {"state": "idle"}});
            let _ = old.link.send_json(&data).await;
        }
        let closed = old.link.closed(STEP).await.expect("the old link is closed");
        assert_eq!(closed.map(|(code, _)| code), Some(4001));
        let state = site.read(STATE).await;
        assert_eq!((&state["connected"], &state["state_synced"]), (&json!(true), &json!(false)), "{state}");
        new.answer_state(&asked_new).await;
        synced(&site, DEVICE).await;
    });
}

// W21: a caller of the predecessor that hung up left a command whose outcome reached no record. Here the command goes on,
// and its outcome is learnt.
#[test]
fn w21_a_caller_that_hangs_up_leaves_no_doubt_behind() {
    run(async {
        let site = Plan::new().start().await;
        let (mut recorder, _uploader) = recording(&site, "watched").await;
        let http = site.http();
        let caller =
            tokio::spawn(
                async move { http.post("/api/v1/recorder/robot-1/pause", &json!({})).await.is_ok() },
            );
        let request = recorder.request("pause").await;
        caller.abort();
        assert!(caller.await.is_err(), "the caller is gone before the answer");
        recorder.push_state("paused").await;
        recorder.answer(&request, true, "paused", json!({"state": "paused"})).await;
        until("the state to be known", STEP, async || {
            let state = site.read(STATE).await;
            (state["current_state"] == "paused" && state["state_synced"] == true).then_some(())
        })
        .await;
        let (code, body, _) = recorder.obey(&site, "resume", &json!({}), "recording").await;
        assert_eq!((code, &body["success"]), (200, &json!(true)), "{body}");
        assert_eq!(site.task_status("watched").await, "in_progress");
    });
}

// W22: the predecessor asked for the state once after a timeout; a device that did not answer was blocked until it said
// something by itself. Here it is asked again, with growing pauses.
#[test]
fn w22_a_question_that_nobody_answered_is_asked_again() {
    run(async {
        let site = Plan::new().set("devices.rpc_timeout", "500ms").start().await;
        let mut recorder = Recorder::dial(&site, DEVICE).await;
        let first = recorder.request("get_state").await;
        let second = recorder.request("get_state").await;
        assert_ne!(first["request_id"], second["request_id"]);
        let again = json!({"type": "rpc_response", "request_id": first["request_id"], "success": true, "data": {"state": "paused"}});
        recorder.link.send_json(&again).await.expect("an open link");
        recorder.answer_state(&second).await;
        // On a busy machine this answer may be too late as well. It is asked again for as long as it takes.
        let answering = async {
            loop {
                let request = recorder.request("get_state").await;
                recorder.answer_state(&request).await;
            }
        };
        tokio::select! {
            biased;
            () = synced(&site, DEVICE) => {}
            () = answering => {}
        }
        assert_eq!(site.read(STATE).await["current_state"], "idle", "the late answer counts for nothing");
    });
}

// W24: the predecessor did not read the `error` of a finish callback. Here it is kept and shown, and the data is fetched
// all the same.
#[test]
fn w24_a_recording_that_ended_in_trouble_says_so_and_is_fetched() {
    run(async {
        let site = Plan::new().start().await;
        let (_recorder, mut uploader) = recording(&site, "troubled").await;
        let finished = json!({
            "task_id": "troubled", "device_id": DEVICE, "output_path": "/x", "status": "finished", "error": "disk ran full",
        });
        let (code, body) = site.post("/api/v1/callbacks/finish", &finished).await;
        assert_eq!((code, &body["task_status"]), (200, &json!("uploading")), "{body}");
        assert!(uploader.text().await.contains("upload_request"));
        let row = site.read("/api/v1/tasks/troubled").await;
        assert!(row.to_string().contains("disk ran full"), "{row}");
    });
}

// W26: the predecessor let any number of calls wait for a device. Here fifteen may, with
// one place more for `get_state`; each has an id of its own.
#[test]
fn w26_calls_of_a_device_are_bounded_and_told_apart() {
    run(async {
        let site = Plan::new().start().await;
        let mut recorder = Recorder::connect(&site, DEVICE).await;
        let mut callers = Vec::new();
        let mut requests = Vec::new();
        for _ in 0..14 {
            let http = site.http();
            callers.push(tokio::spawn(async move {
                http.get("/api/v1/recorder/robot-1/stats").await.expect("an answer").0
            }));
            requests.push(recorder.request("get_stats").await);
        }
        let mut ids: Vec<&str> =
            requests.iter().filter_map(|request| request["request_id"].as_str()).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), 14);
        let (code, body) = site.get("/api/v1/recorder/robot-1/stats").await;
        assert_eq!((code, &body["code"]), (429, &json!("too_many_calls")), "{body}");
        // A place is kept for whoever wants to stop something.
        let nothing = json!({});
        let (paused, ()) = tokio::join!(site.post("/api/v1/recorder/robot-1/pause", &nothing), async {
            let pause = recorder.request("pause").await;
            recorder.answer(&pause, true, "ok", json!({"state": "idle"})).await;
        });
        assert_eq!(paused.0, 200, "{paused:?}");
        for request in &requests {
            recorder.answer(request, true, "ok", json!({"state": "idle"})).await;
        }
        for caller in callers {
            assert_eq!(caller.await.expect("an answer"), 200);
        }
    });
}

// W30: a config of the predecessor could take longer than its HTTP answer may, and the caller got a broken connection.
// Here a question and a command that both run to their ends are still answered, and say what is not known.
#[test]
fn w30_a_command_that_first_needed_the_state_and_then_timed_out_is_answered() {
    run(async {
        let site = Plan::new().set("devices.rpc_timeout", "1s").start().await;
        site.create_task(DEVICE, "slow").await;
        let mut recorder = Recorder::connect(&site, DEVICE).await;
        let _uploader = Uploader::connect(&site, DEVICE).await;
        until("the state to be too old", STEP, async || {
            (site.read(STATE).await["age_ms"].as_u64()? > 1_000).then_some(())
        })
        .await;
        let body = config("slow");
        let ((code, answer), ()) = tokio::join!(site.post("/api/v1/recorder/robot-1/config", &body), async {
            let state = recorder.request("get_state").await;
            recorder.answer_state(&state).await;
            recorder.request("config").await;
        });
        assert_eq!((code, &answer["code"]), (504, &json!("rpc_timeout")), "{answer}");
        assert_eq!(answer["result_unknown"], true, "{answer}");
        assert_eq!(site.task_status("slow").await, "pending");
    });
}

// W37: requests of the predecessor carried no time, so recorders could not tell how far their clock is off. Here each
// request says what time it is.
#[test]
fn w37_every_request_says_what_time_it_is() {
    run(async {
        let site = Plan::new().start().await;
        let mut recorder = Recorder::dial(&site, DEVICE).await;
        let request = recorder.request("get_state").await;
        let said = request["timestamp_ms"].as_u64().unwrap_or_else(|| panic!("a number of ms: {request}"));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis();
        assert!(u128::from(said).abs_diff(now) < 60_000, "{said} is not about {now}");
        recorder.answer_state(&request).await;
        synced(&site, DEVICE).await;
        let (_, _, pause) = recorder.obey(&site, "quit", &json!({}), "idle").await;
        assert!(pause["timestamp_ms"].as_u64().is_some_and(|later| later >= said), "{pause}");
    });
}
