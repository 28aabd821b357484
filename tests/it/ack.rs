//! When an uploader is told that it may delete its copy, and above all when it is not.

use serde_json::json;

use crate::rig::{Plan, STEP, Site, noise, run, sha256, until};
use crate::script::{Take, Uploader, status};

const DEVICE: &str = "robot-1";

async fn site_with_uploader() -> (Site, Uploader) {
    let site = Plan::new().start().await;
    let uploader = Uploader::connect(&site, DEVICE).await;
    (site, uploader)
}

async fn begin(site: &Site, uploader: &mut Uploader, take: &Take) {
    site.create_task(DEVICE, &take.task).await;
    uploader.say("upload_started", &take.started()).await;
    site.task_reaches(&take.task, "uploading").await;
}

async fn not_completed(site: &Site, task: &str) {
    assert_eq!(site.task_status(task).await, "uploading", "nothing is acknowledged, so nothing is completed");
    let episodes = site.episodes(DEVICE).await;
    assert!(!episodes.iter().any(|episode| episode["task_id"] == task), "no episode of it: {episodes:?}");
}

#[test]
fn a_recording_that_is_not_in_the_store_is_not_acknowledged_until_it_is() {
    run(async {
        let (site, mut uploader) = site_with_uploader().await;
        let take = Take::new(DEVICE, "missing", 1, 100_000);
        begin(&site, &mut uploader, &take).await;
        uploader.say("upload_complete", &take.complete()).await;
        uploader.silence("the object is missing").await;
        not_completed(&site, &take.task).await;

        take.upload_mcap(&site).await;
        uploader.say("upload_complete", &take.complete()).await;
        uploader.silence("the sidecar is missing").await;
        not_completed(&site, &take.task).await;

        take.upload_sidecar(&site).await;
        uploader.say("upload_complete", &take.complete()).await;
        uploader.ack(&take.task).await;
        site.task_reaches(&take.task, "completed").await;
    });
}

#[test]
fn a_recording_without_a_sidecar_is_acknowledged_in_mcap_only_mode() {
    run(async {
        let (site, mut uploader) = site_with_uploader().await;
        let take = Take::new(DEVICE, "bare", 2, 6 << 20).mcap_only();
        let episode = uploader.deliver(&site, &take).await;
        let row = site.read(&format!("/api/v1/episodes/{episode}")).await;
        assert_eq!(row["file_size_bytes"], take.mcap.len(), "{row}");
    });
}

#[test]
fn a_recording_of_another_size_than_announced_is_not_acknowledged() {
    run(async {
        let (site, mut uploader) = site_with_uploader().await;
        let take = Take::new(DEVICE, "short", 3, 100_000).mcap_only();
        begin(&site, &mut uploader, &take).await;
        let mut truncated = take.clone();
        truncated.mcap.truncate(60_000);
        truncated.upload(&site).await;
        let mut announced = take.complete();
        // The hash of what is stored, so that only the size can tell.
        announced["checksum_sha256"] = json!(truncated.sha256());
        uploader.say("upload_complete", &announced).await;
        uploader.silence("the sizes differ").await;
        not_completed(&site, &take.task).await;

        take.upload(&site).await;
        uploader.say("upload_complete", &take.complete()).await;
        uploader.ack(&take.task).await;
        site.task_reaches(&take.task, "completed").await;
    });
}

#[test]
fn a_recording_with_another_hash_than_announced_is_not_acknowledged_whatever_its_metadata_says() {
    run(async {
        let (site, mut uploader) = site_with_uploader().await;
        let take = Take::new(DEVICE, "flipped", 4, 100_000).mcap_only();
        begin(&site, &mut uploader, &take).await;
        // The store is told the hash of the right bytes and gets others of the same length.
        let wrong = noise(99, take.mcap.len());
        let path = site.dir().join("wrong.mcap");
        std::fs::write(&path, &wrong).expect("a file");
        let edge = site.edge();
        let slice = edge.file(&path).await.expect("a file");
        edge.put_file(&take.key, slice, Some(&take.sha256()), "application/octet-stream", 5 << 20, 1)
            .await
            .expect("the store takes what it gets");
        uploader.say("upload_complete", &take.complete()).await;
        uploader.silence("the hashes differ").await;
        not_completed(&site, &take.task).await;

        take.upload(&site).await;
        uploader.say("upload_complete", &take.complete()).await;
        uploader.ack(&take.task).await;
        site.task_reaches(&take.task, "completed").await;
        let episode = site.episode(DEVICE, &take.task).await;
        let row = site.read(&format!("/api/v1/episodes/{episode}")).await;
        assert!(row.to_string().contains(&take.sha256()), "{row}");
        assert!(!row.to_string().contains(&sha256(&wrong)), "{row}");
    });
}

#[test]
fn a_sidecar_that_announces_another_hash_prevents_the_acknowledgement() {
    run(async {
        let (site, mut uploader) = site_with_uploader().await;
        let take = Take::new(DEVICE, "liar", 5, 100_000);
        begin(&site, &mut uploader, &take).await;
        let mut lying = take.clone();
        let sidecar = lying.sidecar.as_mut().expect("a sidecar");
        sidecar["recording"]["checksum_sha256"] = json!(sha256(b"something else"));
        lying.upload(&site).await;
        uploader.say("upload_complete", &take.complete()).await;
        uploader.silence("the sidecar says another hash").await;
        not_completed(&site, &take.task).await;

        take.upload_sidecar(&site).await;
        uploader.say("upload_complete", &take.complete()).await;
        uploader.ack(&take.task).await;
    });
}

#[test]
fn a_key_of_another_task_is_not_acknowledged_even_if_size_and_hash_fit() {
    run(async {
        let (site, mut uploader) = site_with_uploader().await;
        let first = Take::new(DEVICE, "first", 6, 100_000).mcap_only();
        let episode = uploader.deliver(&site, &first).await;

        let mut second = Take::new(DEVICE, "second", 6, 100_000).mcap_only();
        begin(&site, &mut uploader, &second).await;
        let own = second.key.clone();
        second.key = first.key.clone();
        assert_eq!(second.sha256(), first.sha256(), "the same bytes");
        uploader.say("upload_complete", &second.complete()).await;
        uploader.silence("the key belongs to another task").await;
        not_completed(&site, &second.task).await;

        second.key = own;
        second.upload(&site).await;
        uploader.say("upload_complete", &second.complete()).await;
        uploader.ack(&second.task).await;
        assert_ne!(site.episode(DEVICE, &second.task).await, episode);
    });
}

#[test]
fn a_task_of_another_device_or_of_nobody_is_not_acknowledged() {
    run(async {
        let (site, mut uploader) = site_with_uploader().await;
        let stranger = Take::new("robot-2", "theirs", 7, 50_000).mcap_only();
        site.create_task("robot-2", &stranger.task).await;
        stranger.upload(&site).await;
        uploader.say("upload_complete", &stranger.complete()).await;
        let unknown = Take::new(DEVICE, "never-made", 8, 50_000).mcap_only();
        unknown.upload(&site).await;
        uploader.say("upload_complete", &unknown.complete()).await;
        uploader.silence("neither is a task of this device").await;
        assert_eq!(site.task_status(&stranger.task).await, "pending");
        assert!(site.episodes("robot-2").await.is_empty());
        let (status, _) = site.get("/api/v1/tasks/never-made").await;
        assert_eq!(status, 404);
    });
}

#[test]
fn a_key_that_is_no_recording_is_not_acknowledged() {
    run(async {
        let (site, mut uploader) = site_with_uploader().await;
        let take = Take::new(DEVICE, "odd-keys", 9, 50_000).mcap_only();
        begin(&site, &mut uploader, &take).await;
        take.upload(&site).await;
        for key in [json!("it/robot-1/2026-03-06/odd-keys.bag"), json!("../../etc/passwd.mcap")] {
            let mut announced = take.complete();
            announced["s3_key"] = key;
            announced.as_object_mut().expect("an object").remove("object_key");
            uploader.say("upload_complete", &announced).await;
        }
        uploader.silence("none of these keys is that of a recording").await;
        not_completed(&site, &take.task).await;
        uploader.say("upload_complete", &take.complete()).await;
        uploader.ack(&take.task).await;
    });
}

#[test]
fn a_repeated_upload_complete_is_acknowledged_again_and_makes_no_second_episode() {
    run(async {
        let (site, mut uploader) = site_with_uploader().await;
        let take = Take::new(DEVICE, "again", 10, 100_000);
        let episode = uploader.deliver(&site, &take).await;
        for _ in 0..2 {
            uploader.say("upload_complete", &take.complete()).await;
            uploader.ack(&take.task).await;
        }
        assert_eq!(site.episode(DEVICE, &take.task).await, episode);
        assert_eq!(site.episodes(DEVICE).await.len(), 1);
        assert_eq!(site.task_status(&take.task).await, "completed");
    });
}

#[test]
fn a_repeated_upload_complete_is_acknowledged_also_when_the_edge_copy_is_gone() {
    run(async {
        let cloud = crate::cloud::Cloud::start().await;
        let mut site = Plan::with_cloud(&cloud).start().await;
        let mut uploader = Uploader::connect(&site, DEVICE).await;
        let take = Take::new(DEVICE, "gone", 11, 100_000);
        let episode = uploader.deliver(&site, &take).await;
        site.approve_and_sync(episode).await;
        site.synced(episode).await;
        until("the edge copy to be gone", STEP, async || {
            site.edge().head(&take.key).await.expect("an answer").is_none().then_some(())
        })
        .await;
        // The device missed its acknowledgement and the site was restarted since.
        site.stop().await;
        site.start().await;
        let mut uploader = Uploader::dial(&site, DEVICE).await;
        uploader.say("connected", &status(DEVICE, &[take.row("uploaded_wait_ack")])).await;
        uploader.ack(&take.task).await;
        assert_eq!(site.episodes(DEVICE).await.len(), 1);
    });
}

#[test]
fn a_kill_between_upload_complete_and_ack_loses_nothing() {
    run(async {
        let (mut site, mut uploader) = site_with_uploader().await;
        let take = Take::new(DEVICE, "cut-off", 12, 6 << 20);
        begin(&site, &mut uploader, &take).await;
        take.upload(&site).await;
        uploader.say("upload_complete", &take.complete()).await;
        site.kill();
        drop(uploader);

        site.start().await;
        // `upload_complete` is never repeated: the only trace is the row in the next `connected`.
        let mut uploader = Uploader::dial(&site, DEVICE).await;
        uploader.say("connected", &status(DEVICE, &[take.row("uploaded_wait_ack")])).await;
        uploader.ack(&take.task).await;
        site.task_reaches(&take.task, "completed").await;
        site.episode(DEVICE, &take.task).await;
        assert_eq!(site.episodes(DEVICE).await.len(), 1);
    });
}

#[test]
fn a_kill_before_upload_complete_is_read_is_made_up_for_by_the_next_connected() {
    run(async {
        let (mut site, mut uploader) = site_with_uploader().await;
        let take = Take::new(DEVICE, "unheard", 13, 100_000);
        begin(&site, &mut uploader, &take).await;
        take.upload(&site).await;
        site.kill();
        drop(uploader);

        site.start().await;
        let mut uploader = Uploader::dial(&site, DEVICE).await;
        uploader.say("connected", &status(DEVICE, &[take.row("uploaded_wait_ack")])).await;
        uploader.ack(&take.task).await;
        site.task_reaches(&take.task, "completed").await;
        // A later status of the same kind is answered again and changes nothing.
        uploader.say("status", &status(DEVICE, &[take.row("completed")])).await;
        uploader.silence("nothing waits any more").await;
        assert_eq!(site.episodes(DEVICE).await.len(), 1);
    });
}

#[test]
fn a_row_that_waits_for_an_ack_of_bytes_that_are_not_there_is_not_acknowledged() {
    run(async {
        let (site, mut uploader) = site_with_uploader().await;
        let take = Take::new(DEVICE, "claimed", 14, 100_000).mcap_only();
        begin(&site, &mut uploader, &take).await;
        uploader.say("status", &status(DEVICE, &[take.row("uploaded_wait_ack")])).await;
        uploader.silence("the object is missing").await;
        not_completed(&site, &take.task).await;
    });
}

#[test]
fn upload_failed_and_upload_not_found_are_told_apart() {
    run(async {
        let (site, mut uploader) = site_with_uploader().await;
        let lost = Take::new(DEVICE, "not-found", 15, 50_000).mcap_only();
        begin(&site, &mut uploader, &lost).await;
        let detail = "No MCAP file matching not-found in /recordings";
        uploader.say("upload_not_found", &json!({"task_id": lost.task, "detail": detail})).await;
        let failed = Take::new(DEVICE, "failed", 16, 50_000).mcap_only();
        begin(&site, &mut uploader, &failed).await;
        let reason = json!({"task_id": failed.task, "reason": "AccessDenied", "retry_count": 5, "next_retry_at": null});
        uploader.say("upload_failed", &reason).await;
        site.task_reaches(&failed.task, "failed").await;
        let row = site.read(&format!("/api/v1/tasks/{}", failed.task)).await;
        assert!(row.to_string().contains("AccessDenied"), "a failed task says why: {row}");
        let row = site.read(&format!("/api/v1/tasks/{}", lost.task)).await;
        assert_eq!(row["status"], "uploading", "not found does not mean lost: {row}");
        assert!(row.to_string().contains(detail), "the detail is shown: {row}");
        let (status, body) = site
            .post(
                "/api/v1/callbacks/finish",
                &json!({"task_id": failed.task, "device_id": DEVICE, "output_path": "/x"}),
            )
            .await;
        assert_eq!((status, &body["error_msg"]), (409, &json!("task is not uploadable")), "{body}");
    });
}
