//! SIGKILL at named points of a recording's life. A proxy holds a named request or its answer while the process is
//! killed; the product has no hooks for this. What holds after each: exactly one right object, no orphan, no lost
//! recording, no attempt spent, and nothing sent again that the store had acknowledged. The table of points is the
//! crash matrix of docs/operations.md, row by row.

use serde_json::json;

use crate::cloud::Cloud;
use crate::crash::{kills_wanted, seed};
use crate::proxy::{Act, Proxy};
use crate::rig::{IN_FLIGHT, PART, Plan, STEP, Site, run, until};
use crate::script::{Recorder, Take, Uploader, status};

const DEVICE: &str = "robot-1";

/// Three parts, the last one short.
const LEN: usize = (10 << 20) + 4_321;

/// Heads of requests do not count at the proxy, bodies of requests other than parts do.
const OVERHEAD: u64 = 64 << 10;

/// One way of one kill: what is held, and for which of several requests of that name.
struct Point {
    name: &'static str,
    hold: Hold,
    len: usize,
}

enum Hold {
    /// Nothing: the process is killed as soon as the request for the upload is answered.
    Nothing,
    /// Requests of this operation, before the store sees them.
    Request(&'static str),
    /// Answers to this operation, when the store has done it.
    Answer(&'static str),
    /// The first request after the answer to this operation arrived.
    After(&'static str),
    /// Nothing: the process is killed as soon as the upload counts as completed.
    Completed,
}

/// What a kill at `point` in round `round` comes to. Odd rounds kill a second time, during the recovery.
async fn killed_at(
    point: &Point,
    cloud: &Cloud,
    proxy: &Proxy,
    site: &mut Site,
    round: u64,
    rng: &mut fastrand::Rng,
) {
    let take = Take::new(DEVICE, &format!("{}-{round}", point.name), rng.u64(..), point.len);
    site.ensure_started().await;
    let mut uploader = Uploader::connect(site, DEVICE).await;
    let episode = uploader.deliver(site, &take).await;
    drop(uploader);
    proxy.release();
    proxy.forget();
    match point.hold {
        Hold::Nothing | Hold::Completed => {}
        Hold::Request("UploadPart") => proxy.rule("UploadPart", rng.usize(..3), usize::MAX, Act::HoldRequest),
        Hold::Answer("UploadPart") => proxy.rule("UploadPart", rng.usize(..3), usize::MAX, Act::HoldAnswer),
        Hold::Request(operation) => proxy.once(operation, Act::HoldRequest),
        Hold::Answer(operation) | Hold::After(operation) => proxy.once(operation, Act::HoldAnswer),
    }
    site.approve_and_sync(episode).await;
    match point.hold {
        Hold::Nothing => {}
        Hold::Completed => drop(site.synced(episode).await),
        Hold::Request(_) | Hold::Answer(_) => proxy.held(1).await,
        Hold::After(_) => {
            proxy.held(1).await;
            proxy.once("*", Act::HoldRequest);
            proxy.let_go();
            proxy.held(1).await;
        }
    }
    site.kill();
    proxy.release();
    proxy.settled().await;
    if round % 2 == 1 {
        proxy.rule("*", rng.usize(..3), usize::MAX, Act::HoldAnswer);
        site.start().await;
        // Where nothing is left to do, nothing is held.
        until("the recovery to be under way or over", STEP, async || {
            let over = site.sync_status(episode).await["status"] == "completed";
            (over || proxy.holds_any()).then_some(())
        })
        .await;
        site.kill();
        proxy.release();
        proxy.settled().await;
    }
    site.start().await;
    whole(site, cloud, proxy, &take, episode).await;
}

/// What must hold in the end.
async fn whole(site: &Site, cloud: &Cloud, proxy: &Proxy, take: &Take, episode: u64) {
    let status = site.synced(episode).await;
    assert_eq!(status["attempt_count"], 1, "a kill spends no attempt: {status}");
    assert_eq!(cloud.digest(&take.cloud_key()).await, (take.sha256(), take.mcap.len() as u64));
    let stem = take.cloud_key().replace(".mcap", "");
    let keys: Vec<String> = cloud.keys().into_iter().filter(|key| key.starts_with(&stem)).collect();
    assert_eq!(keys, [format!("{stem}.json"), take.cloud_key()], "one object of each kind");
    assert_eq!(cloud.open_uploads(), Vec::<String>::new(), "no orphan: {:#?}", proxy.summary());
    until("the edge copy to be gone", STEP, async || {
        let edge = site.edge();
        let mcap = edge.head(&take.key).await.expect("an answer");
        let sidecar = edge.head(&take.sidecar_key()).await.expect("an answer");
        (mcap.is_none() && sidecar.is_none()).then_some(())
    })
    .await;
    let episodes = site.episodes(&take.device).await;
    assert_eq!(episodes.iter().filter(|e| e["task_id"] == take.task).count(), 1, "one episode");
    // Two lives at most were cut short, each with so many parts under way and the sidecar.
    let sidecar = take.sidecar.as_ref().map_or(0, |sidecar| sidecar.to_string().len() as u64);
    let most = take.mcap.len() as u64 + 2 * (IN_FLIGHT * PART) + 3 * sidecar + OVERHEAD;
    let sent = proxy.bytes_passed();
    assert!(sent <= most, "{sent} bytes sent, at most {most}: {:#?}", proxy.summary());
    let known = proxy.seen("UploadPart").into_iter().filter(|seen| seen.answered == Some(200));
    let mut parts: Vec<u16> = known.filter_map(|seen| seen.part).collect();
    parts.sort_unstable();
    let all = parts.len();
    parts.dedup();
    assert_eq!(parts.len(), all, "an acknowledged part was sent again: {:#?}", proxy.summary());
}

#[expect(clippy::print_stderr, reason = "the harness captures it and shows it with the failure")]
fn at(points: &[Point]) {
    let seed = seed();
    eprintln!("TIDEGATE_SEED={seed}");
    for point in points {
        run(async {
            let mut rng = fastrand::Rng::with_seed(seed);
            let cloud = Cloud::start().await;
            let proxy = Proxy::before(cloud.port).await;
            let mut site = Plan::with_store(proxy.port).prepare();
            for round in 1..=u64::from(kills_wanted()) {
                eprintln!("{}, round {round}", point.name);
                killed_at(point, &cloud, &proxy, &mut site, round, &mut rng).await;
            }
        });
    }
}

const fn point(name: &'static str, hold: Hold) -> Point {
    Point { name, hold, len: LEN }
}

#[test]
fn a_kill_after_the_wish_is_accepted_and_after_the_claim_loses_nothing() {
    at(&[
        point("accepted", Hold::Nothing),
        point("claimed", Hold::Request("*")),
        point("sidecar-unsent", Hold::Request("PutObject")),
        point("sidecar-unanswered", Hold::Answer("PutObject")),
    ]);
}

#[test]
fn a_kill_around_create_leaves_no_orphan() {
    at(&[
        point("create-unsent", Hold::Request("CreateMultipartUpload")),
        point("create-unanswered", Hold::Answer("CreateMultipartUpload")),
        point("create-answered", Hold::After("CreateMultipartUpload")),
    ]);
}

#[test]
fn a_kill_between_parts_sends_no_acknowledged_part_again() {
    at(&[
        point("part-unsent", Hold::Request("UploadPart")),
        point("part-unanswered", Hold::Answer("UploadPart")),
        point("part-answered", Hold::After("UploadPart")),
    ]);
}

#[test]
fn a_kill_around_complete_makes_one_object() {
    at(&[
        point("complete-unsent", Hold::Request("CompleteMultipartUpload")),
        point("complete-unanswered", Hold::Answer("CompleteMultipartUpload")),
        point("complete-answered", Hold::After("CompleteMultipartUpload")),
        point("completed", Hold::Completed),
    ]);
}

#[test]
fn a_kill_around_the_only_request_of_a_small_recording_makes_one_object() {
    let small = |name, hold| Point { name, hold, len: 1_000 };
    at(&[
        small("small-unsent", Hold::Request("PutObject")),
        small("small-unanswered", Hold::Answer("PutObject")),
        small("small-answered", Hold::After("PutObject")),
        small("small-completed", Hold::Completed),
    ]);
}

#[test]
fn a_kill_between_upload_complete_and_upload_ack_is_made_up_for_on_the_next_connection() {
    let seed = seed();
    eprintln!("TIDEGATE_SEED={seed}");
    run(async {
        let mut rng = fastrand::Rng::with_seed(seed);
        let cloud = Cloud::start().await;
        let mut site = Plan::with_cloud(&cloud).prepare();
        for round in 1..=kills_wanted() {
            site.ensure_started().await;
            // The larger, the longer the site reads before it may acknowledge.
            let len = rng.usize(1_000..24 << 20);
            let take = Take::new(DEVICE, &format!("unacknowledged-{round}"), rng.u64(..), len);
            site.create_task(DEVICE, &take.task).await;
            let mut uploader = Uploader::connect(&site, DEVICE).await;
            uploader.say("upload_started", &take.started()).await;
            take.upload(&site).await;
            uploader.say("upload_complete", &take.complete()).await;
            site.kill();
            drop(uploader);

            site.start().await;
            let mut uploader = Uploader::dial(&site, DEVICE).await;
            uploader.say("connected", &status(DEVICE, &[take.row("uploaded_wait_ack")])).await;
            uploader.ack(&take.task).await;
            site.task_reaches(&take.task, "completed").await;
            let episode = site.episode(DEVICE, &take.task).await;
            assert_eq!(
                site.edge().head(&take.key).await.expect("an answer").map(|h| h.len),
                Some(len as u64)
            );
            site.approve_and_sync(episode).await;
            let end = site.synced(episode).await;
            assert_eq!(end["attempt_count"], 1, "{end}");
            assert_eq!(cloud.digest(&take.cloud_key()).await, (take.sha256(), len as u64));
            drop(uploader);
        }
        assert_eq!(cloud.open_uploads(), Vec::<String>::new());
    });
}

#[test]
fn a_kill_between_the_finish_callback_and_upload_request_asks_for_the_recording_later() {
    run(async {
        let mut site = Plan::new().prepare();
        for round in 1..=kills_wanted() {
            site.ensure_started().await;
            let task = format!("finished-{round}");
            site.create_task(DEVICE, &task).await;
            // Odd rounds: the uploader is connected, and the request may or may not have left. Even ones: it is not.
            let uploader = if round % 2 == 1 { Some(Uploader::connect(&site, DEVICE).await) } else { None };
            let start = json!({"task_id": task, "device_id": DEVICE, "status": "recording", "topics": []});
            let (code, body) = site.post("/api/v1/callbacks/start", &start).await;
            assert_eq!((code, &body["task_status"]), (200, &json!("in_progress")), "{body}");
            let finish = json!({
                "task_id": task, "device_id": DEVICE, "status": "finished",
                "output_path": format!("/recordings/{task}.mcap"), "file_size_bytes": 1_000,
            });
            let (code, body) = site.post("/api/v1/callbacks/finish", &finish).await;
            assert_eq!(code, 200, "{body}");
            site.kill();
            drop(uploader);

            site.start().await;
            assert_eq!(site.task_status(&task).await, "uploading", "what was answered is kept");
            let mut uploader = Uploader::connect(&site, DEVICE).await;
            let asked = format!("{{\"priority\":1,\"task_id\":\"{task}\",\"type\":\"upload_request\"}}\n");
            assert_eq!(uploader.text().await, asked);
            // It comes, and is acknowledged.
            let take = Take::new(DEVICE, &task, u64::from(round), 1_000);
            uploader.say("upload_started", &take.started()).await;
            take.upload(&site).await;
            uploader.say("upload_complete", &take.complete()).await;
            uploader.ack(&task).await;
            site.task_reaches(&task, "completed").await;
            drop(uploader);
        }
    });
}

#[test]
fn a_kill_while_a_command_is_out_leaves_its_end_to_the_device() {
    run(async {
        let mut site = Plan::new().prepare();
        for round in 1..=kills_wanted() {
            site.ensure_started().await;
            let task = format!("begun-{round}");
            site.create_task(DEVICE, &task).await;
            let mut recorder = Recorder::connect(&site, DEVICE).await;
            let uploader = Uploader::connect(&site, DEVICE).await;
            let config = json!({"task_config": {"task_id": task, "device_id": DEVICE}});
            let (code, body, _) = recorder.obey(&site, "config", &config, "ready").await;
            assert_eq!(code, 200, "{body}");
            site.task_reaches(&task, "ready").await;
            let http = site.http();
            let path = format!("/api/v1/recorder/{DEVICE}/begin");
            let body = json!({"task_id": task});
            tokio::select! {
                biased;
                answer = http.post(&path, &body) => panic!("nobody answered the command: {answer:?}"),
                request = recorder.request("begin") => assert_eq!(request["params"], body),
            }
            site.kill();
            drop((recorder, uploader));

            // The device did begin. What it says counts, and the recording is not begun a second time.
            site.start().await;
            let mut recorder = Recorder::dial(&site, DEVICE).await;
            recorder.state = "recording".to_owned();
            recorder.task = Some(task.clone());
            let request = recorder.request("get_state").await;
            recorder.answer_state(&request).await;
            site.task_reaches(&task, "in_progress").await;
            let (code, body) = site.post(&path, &json!({"task_id": task})).await;
            assert_eq!((code, &body["code"]), (409, &json!("task_not_beginable")), "{body}");
            let (code, body, _) = recorder.obey(&site, "finish", &json!({}), "idle").await;
            assert_eq!(code, 200, "{body}");
            let (code, body) = site.post(&format!("/api/v1/tasks/{task}/cancel"), &json!({})).await;
            assert_eq!(code, 200, "{body}");
        }
    });
}
