//! Weaknesses of the way of a recording: greetings, acknowledgements, requests.

use serde_json::{Value, json};

use super::{DEVICE, recording};
use crate::rig::{Plan, STEP, Site, noise, run, until};
use crate::script::{Take, Uploader, status};

async fn begin(site: &Site, uploader: &mut Uploader, take: &Take) {
    site.create_task(DEVICE, &take.task).await;
    uploader.say("upload_started", &take.started()).await;
    site.task_reaches(&take.task, "uploading").await;
}

// W1: the predecessor closed a link whose message was over 32 KiB. Uploaders list all they ever sent, so from some forty
// recordings on they flapped for ever, and each flap cancelled the recording that ran. Here a message may have 8 MiB.
#[test]
fn w01_a_long_greeting_neither_closes_the_link_nor_touches_a_recording() {
    run(async {
        let site = Plan::new().start().await;
        let (mut recorder, uploader) = recording(&site, "running").await;
        drop(uploader);
        for count in [60, 2_000] {
            let mut rows: Vec<Value> =
                (0..count).map(|n| Take::new(DEVICE, &format!("old-{n}"), n, 8).row("completed")).collect();
            let take = Take::new(DEVICE, &format!("last-{count}"), count, 5_000).mcap_only();
            site.create_task(DEVICE, &take.task).await;
            take.upload(&site).await;
            rows.push(take.row("uploaded_wait_ack"));
            let greeting = status(DEVICE, &rows);
            assert!(greeting.to_string().len() > 32 << 10);
            let mut uploader = Uploader::dial(&site, DEVICE).await;
            uploader.say("connected", &greeting).await;
            uploader.ack(&take.task).await;
        }
        recorder.silence().await;
        assert_eq!(site.task_status("running").await, "in_progress");
    });
}

// W2: the predecessor looked at `upload_complete` once; whatever went wrong then, the device waited for ever. Here a
// recording that a greeting lists as waiting is verified and acknowledged.
#[test]
fn w02_a_recording_that_waits_is_acknowledged_although_its_announcement_was_lost() {
    run(async {
        let site = Plan::new().start().await;
        let take = Take::new(DEVICE, "waits", 2, 40_000);
        site.create_task(DEVICE, &take.task).await;
        take.upload(&site).await;
        let mut uploader = Uploader::dial(&site, DEVICE).await;
        uploader.say("connected", &status(DEVICE, &[take.row("uploaded_wait_ack")])).await;
        uploader.ack(&take.task).await;
        site.task_reaches(&take.task, "completed").await;
    });
}

// W8: the predecessor acknowledged before the completion was durable; a crash between the two left a task that nothing
// repaired, and the device's copy was gone. Here the frame leaves after the commit.
#[test]
fn w08_what_was_acknowledged_is_completed_also_after_a_kill_at_that_moment() {
    run(async {
        let mut site = Plan::new().start().await;
        let mut uploader = Uploader::connect(&site, DEVICE).await;
        // Large enough that its bytes take a moment to read.
        let take = Take::new(DEVICE, "durable", 8, 48 << 20);
        begin(&site, &mut uploader, &take).await;
        take.upload(&site).await;
        uploader.say("upload_complete", &take.complete()).await;
        uploader.ack(&take.task).await;
        site.kill();
        site.start().await;
        assert_eq!(site.task_status(&take.task).await, "completed");
        site.episode(DEVICE, &take.task).await;
    });
}

// W9: the predecessor acknowledged a key that belonged to another task, and the device deleted its only copy. Here a key
// belongs to one attempt for ever.
#[test]
fn w09_the_key_of_another_recording_is_not_acknowledged() {
    run(async {
        let site = Plan::new().start().await;
        let mut uploader = Uploader::connect(&site, DEVICE).await;
        let first = Take::new(DEVICE, "first", 9, 40_000).mcap_only();
        uploader.deliver(&site, &first).await;
        let mut second = Take::new(DEVICE, "second", 9, 40_000).mcap_only();
        begin(&site, &mut uploader, &second).await;
        second.key = first.key.clone();
        uploader.say("upload_complete", &second.complete()).await;
        uploader.silence("the key is taken").await;
        assert_eq!(site.task_status(&second.task).await, "uploading");
        assert_eq!(site.episodes(DEVICE).await.len(), 1);
    });
}

// W10: the predecessor asked only whether the keys exist. Here size and digest, computed from the stored bytes, must be
// those that were announced.
#[test]
fn w10_bytes_that_are_not_those_announced_are_not_acknowledged() {
    run(async {
        let site = Plan::new().start().await;
        let mut uploader = Uploader::connect(&site, DEVICE).await;
        let take = Take::new(DEVICE, "altered", 10, 40_000).mcap_only();
        begin(&site, &mut uploader, &take).await;
        let mut altered = take.clone();
        altered.mcap = noise(11, take.mcap.len());
        altered.upload(&site).await;
        uploader.say("upload_complete", &take.complete()).await;
        uploader.silence("the bytes are others").await;
        assert_eq!(site.task_status(&take.task).await, "uploading");
    });
}

// W11: when a device came back while its announcement was verified, the predecessor wrote the acknowledgement to the old
// socket, failed, and forgot it. Here it goes to whatever link the device has.
#[test]
fn w11_a_takeover_before_the_acknowledgement_loses_nothing() {
    run(async {
        let site = Plan::new().start().await;
        let mut old = Uploader::connect(&site, DEVICE).await;
        let take = Take::new(DEVICE, "moved", 11, 40_000).mcap_only();
        begin(&site, &mut old, &take).await;
        old.say("upload_complete", &take.complete()).await;
        // It was heard on the old link, and its bytes are waited for.
        until("the announcement to be verified", STEP, async || {
            let row = site.read(&format!("/api/v1/tasks/{}", take.task)).await;
            row["error_message"].as_str()?.contains("object_missing").then_some(())
        })
        .await;
        let mut new = Uploader::dial(&site, DEVICE).await;
        let closed = old.link.closed(STEP).await.expect("the old link is closed");
        assert_eq!(closed.map(|(code, _)| code), Some(4001));
        take.upload(&site).await;
        new.say("connected", &status(DEVICE, &[take.row("uploaded_wait_ack")])).await;
        new.ack(&take.task).await;
        site.task_reaches(&take.task, "completed").await;
    });
}

// W12: after one `upload_failed` the predecessor ignored the recording for ever, though it came in later. Here it is kept
// as a late episode and acknowledged; the task stays what it was.
#[test]
fn w12_a_recording_of_a_failed_task_is_kept_and_acknowledged() {
    run(async {
        let site = Plan::new().start().await;
        let mut uploader = Uploader::connect(&site, DEVICE).await;
        let take = Take::new(DEVICE, "late", 12, 40_000).mcap_only();
        begin(&site, &mut uploader, &take).await;
        let failed =
            json!({"task_id": take.task, "reason": "AccessDenied", "retry_count": 5, "next_retry_at": null});
        uploader.say("upload_failed", &failed).await;
        site.task_reaches(&take.task, "failed").await;
        take.upload(&site).await;
        uploader.say("upload_complete", &take.complete()).await;
        uploader.ack(&take.task).await;
        let episode = site.episode(DEVICE, &take.task).await;
        assert_eq!(site.read(&format!("/api/v1/episodes/{episode}")).await["late"], true);
        assert_eq!(site.task_status(&take.task).await, "failed");
    });
}

// W13: the predecessor repeated a request only if its own send had failed, which it told by the words of a message; a
// request lost after a good write was never repeated, and `upload_not_found` overwrote the words. Here the list of the
// next link decides.
#[test]
fn w13_a_request_that_was_lost_on_its_way_is_made_again_on_the_next_link() {
    run(async {
        let site = Plan::new().start().await;
        let (_recorder, mut uploader) = recording(&site, "asked").await;
        let finished = json!({"task_id": "asked", "device_id": DEVICE, "output_path": "/rec/asked.mcap"});
        let (code, body) = site.post("/api/v1/callbacks/finish", &finished).await;
        assert_eq!((code, &body["upload_request_sent"]), (200, &json!(true)), "{body}");
        let request = uploader.text().await;
        assert_eq!(request, "{\"priority\":1,\"task_id\":\"asked\",\"type\":\"upload_request\"}\n");
        let not_found = json!({"task_id": "asked", "detail": "No MCAP file matching asked in /rec"});
        uploader.say("upload_not_found", &not_found).await;
        drop(uploader);
        let mut uploader = Uploader::dial(&site, DEVICE).await;
        uploader.say("connected", &status(DEVICE, &[])).await;
        assert_eq!(uploader.text().await, request, "the list does not name it, so it is asked for again");
        assert_eq!(site.task_status("asked").await, "uploading");
    });
}

// W14: the predecessor insisted on a sidecar, so devices that write none were never acknowledged.
#[test]
fn w14_a_recording_without_a_sidecar_completes() {
    run(async {
        let site = Plan::new().start().await;
        let mut uploader = Uploader::connect(&site, DEVICE).await;
        uploader.deliver(&site, &Take::new(DEVICE, "bare", 14, 40_000).mcap_only()).await;
    });
}

// W15: the predecessor's batch deletion took tasks away whose recordings were on their way; their announcements were
// ignored. Here a task that is uploading cannot be called off, and its recording arrives.
#[test]
fn w15_a_task_whose_recording_is_on_its_way_cannot_be_called_off() {
    run(async {
        let site = Plan::new().start().await;
        let mut uploader = Uploader::connect(&site, DEVICE).await;
        let take = Take::new(DEVICE, "kept", 15, 40_000).mcap_only();
        begin(&site, &mut uploader, &take).await;
        let (code, body) = site.post(&format!("/api/v1/tasks/{}/cancel", take.task), &json!({})).await;
        assert_eq!((code, &body["code"]), (409, &json!("task_not_cancellable")), "{body}");
        take.upload(&site).await;
        uploader.say("upload_complete", &take.complete()).await;
        uploader.ack(&take.task).await;
        site.task_reaches(&take.task, "completed").await;
    });
}

// W16: two announcements of one recording, on the old and the new socket, made two episodes of the predecessor. Here one
// recording makes one, however often and wherever it is announced.
#[test]
fn w16_one_recording_announced_on_two_links_makes_one_episode() {
    run(async {
        let site = Plan::new().start().await;
        let mut old = Uploader::connect(&site, DEVICE).await;
        let take = Take::new(DEVICE, "doubled", 16, 40_000).mcap_only();
        begin(&site, &mut old, &take).await;
        take.upload(&site).await;
        old.say("upload_complete", &take.complete()).await;
        old.say("upload_complete", &take.complete()).await;
        let mut new = Uploader::dial(&site, DEVICE).await;
        for _ in 0..3 {
            new.say("upload_complete", &take.complete()).await;
        }
        new.ack(&take.task).await;
        site.task_reaches(&take.task, "completed").await;
        site.episode(DEVICE, &take.task).await;
        assert_eq!(site.episodes(DEVICE).await.len(), 1);
    });
}

// W17: a task of the predecessor waited for its recording for ever, nothing showed that, and no operator could end it. Here
// it says since when it waits and what is wrong, and a person settles it.
#[test]
fn w17_a_task_whose_recording_does_not_come_is_seen_and_settled() {
    run(async {
        let site = Plan::new().start().await;
        let mut uploader = Uploader::connect(&site, DEVICE).await;
        site.create_task(DEVICE, "gone").await;
        let finished = json!({"task_id": "gone", "device_id": DEVICE, "output_path": "/rec/gone.mcap"});
        let (code, body) = site.post("/api/v1/callbacks/finish", &finished).await;
        assert_eq!(code, 200, "{body}");
        assert!(uploader.text().await.contains("upload_request"));
        let row = site.read("/api/v1/tasks/gone").await;
        assert_eq!((row["uploading_since"].is_string(), &row["overdue"]), (true, &json!(false)), "{row}");
        uploader.say("upload_not_found", &json!({"task_id": "gone", "detail": "No MCAP file"})).await;
        uploader.say("status", &status(DEVICE, &[])).await;
        until("the task to be overdue", STEP, async || {
            (site.read("/api/v1/tasks/gone").await["overdue"] == true).then_some(())
        })
        .await;
        let settle = json!({"to": "pending", "reason": "the disk was replaced"});
        let (code, row) = site.post("/api/v1/tasks/gone/resolve", &settle).await;
        assert_eq!(
            (code, &row["status"], &row["wire_id"]),
            (200, &json!("pending"), &json!("gone.2")),
            "{row}"
        );
    });
}
