//! Uploads that are interrupted: by kill -9 at random moments, by lost answers, by signals. Afterwards the cloud has
//! each recording once, whole, and nothing was sent that need not be.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::cloud::Cloud;
use crate::rig::{IN_FLIGHT, PART, Plan, STEP, Site, run, until};
use crate::script::{Take, Uploader};

const DEVICE: &str = "robot-1";

/// Heads of requests, listings and the like: all bytes that are no recording.
const OVERHEAD: u64 = 256 << 10;

/// Seven parts, the last one short.
const LEN: usize = (32 << 20) + 12_345;

async fn ready_to_send(cloud: &Cloud, take: &Take) -> (Site, u64) {
    ready_with(Plan::with_cloud(cloud), take).await
}

async fn ready_with(plan: Plan, take: &Take) -> (Site, u64) {
    let site = plan.start().await;
    let mut uploader = Uploader::connect(&site, DEVICE).await;
    let episode = uploader.deliver(&site, take).await;
    (site, episode)
}

/// What must hold after every interruption; the final status.
async fn verified(site: &Site, cloud: &Cloud, take: &Take, episode: u64) -> Value {
    let status = site.synced(episode).await;
    assert_eq!(status["attempt_count"], 1, "an interruption costs no attempt: {status}");
    assert_eq!(status["destination_path"], take.cloud_key(), "{status}");
    assert_eq!(cloud.digest(&take.cloud_key()).await, (take.sha256(), take.mcap.len() as u64));
    let sidecar = take.cloud_key().replace(".mcap", ".json");
    let expected =
        if take.sidecar.is_some() { vec![sidecar, take.cloud_key()] } else { vec![take.cloud_key()] };
    let stem = take.cloud_key().replace(".mcap", "");
    let keys: Vec<String> = cloud.keys().into_iter().filter(|key| key.starts_with(&stem)).collect();
    assert_eq!(keys, expected, "exactly one object of each kind");
    assert_eq!(cloud.open_uploads(), Vec::<String>::new(), "no orphaned multipart upload");
    status
}

/// Numbers of the parts of a key whose answer was sent.
fn acknowledged(cloud: &Cloud, key: &str) -> BTreeSet<u16> {
    let answered = cloud.watcher.answered("UploadPart");
    answered.iter().filter(|r| r.key.as_deref() == Some(key)).filter_map(|r| r.part_number).collect()
}

fn times_received(cloud: &Cloud, key: &str, part: u16) -> usize {
    let received = cloud.watcher.received("UploadPart");
    received.iter().filter(|r| r.key.as_deref() == Some(key) && r.part_number == Some(part)).count()
}

/// Parts of unfinished uploads that the store has, with their bytes.
fn stored_parts(cloud: &Cloud) -> BTreeMap<u16, u64> {
    let uploads = cloud.spool.list_uploads(crate::cloud::BUCKET);
    uploads.iter().flat_map(|upload| &upload.parts).map(|part| (part.number, part.len)).collect()
}

/// Kills wanted: three, or what `TIDEGATE_KILLS` says.
pub fn kills_wanted() -> u32 {
    std::env::var("TIDEGATE_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(3)
}

/// Where the moments of the kills come from; `TIDEGATE_SEED` repeats a run as far as an operating system lets it.
pub fn seed() -> u64 {
    std::env::var("TIDEGATE_SEED")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or_else(|| fastrand::u64(..))
}

/// Lets an upload go on until a random moment and kills the site there. False if the upload ended before.
async fn kill_at_random(
    site: &mut Site,
    cloud: &Cloud,
    episode: u64,
    left: u64,
    rng: &mut fastrand::Rng,
) -> bool {
    let parts_left = left.div_ceil(PART);
    // The store may end a part of the last life after its connection is gone, and then less is left than was counted
    // here: the moment chosen below may never come. Completing the upload is the last one that surely does.
    cloud.watcher.hold("CompleteMultipartUpload", 0);
    if parts_left >= 2 && rng.bool() {
        // Between two parts: one is stored, and its answer never arrives.
        cloud.watcher.hold_too("UploadPart", rng.usize(0..usize::try_from(parts_left).expect("few") - 1));
    } else if parts_left >= 1 {
        cloud.meter.stall_at(cloud.meter.total() + rng.u64(1..left));
    }
    let limit = cloud.meter.limit();
    site.ensure_started().await;
    let (status, body) = site.post(&format!("/api/v1/sync/episodes/{episode}"), &json!({})).await;
    assert!(matches!(status, 202 | 409), "{status} {body}");
    match limit {
        Some(limit) => tokio::select! {
            biased;
            () = cloud.watcher.any_held() => {}
            () = cloud.meter.reaches(limit) => {}
        },
        None => cloud.watcher.held(1).await,
    }
    let unfinished = site.sync_status(episode).await["status"] != "completed";
    site.kill();
    unfinished
}

#[test]
fn kill_nine_at_random_moments_leaves_one_whole_object_and_sends_nothing_twice() {
    let seed = seed();
    eprintln!("TIDEGATE_SEED={seed}");
    run(async {
        let mut rng = fastrand::Rng::with_seed(seed);
        let cloud = Cloud::start().await;
        let mut site = Plan::with_cloud(&cloud).start().await;
        let mut kills_left = kills_wanted();
        let mut round = 0;
        while kills_left > 0 {
            round += 1;
            site.ensure_started().await;
            let take = Take::new(DEVICE, &format!("killed-{round}"), seed.wrapping_add(round), LEN);
            let mut uploader = Uploader::connect(&site, DEVICE).await;
            let episode = uploader.deliver(&site, &take).await;
            drop(uploader);
            let (status, body) = site.post(&format!("/api/v1/episodes/{episode}/approve"), &json!({})).await;
            assert_eq!(status, 200, "{body}");

            let before = cloud.meter.total();
            let key = take.cloud_key();
            let mut kills = 0;
            while kills < 3 && kills_left > 0 {
                let stored = stored_parts(&cloud);
                let left = LEN as u64 - stored.values().sum::<u64>();
                let counts: Vec<(u16, usize)> =
                    stored.keys().map(|part| (*part, times_received(&cloud, &key, *part))).collect();
                assert!(
                    kill_at_random(&mut site, &cloud, episode, left, &mut rng).await,
                    "killed in mid-upload"
                );
                // What the site cannot know to be stored it may send again, and that is only what was under way.
                let again: Vec<u16> = counts
                    .into_iter()
                    .filter(|(part, count)| times_received(&cloud, &key, *part) > *count)
                    .map(|(part, _)| part)
                    .collect();
                assert!(
                    again.len() as u64 <= IN_FLIGHT,
                    "parts {again:?} were stored and sent again: {:#?}",
                    cloud.watcher.summary()
                );
                kills += 1;
                kills_left -= 1;
                cloud.watcher.release();
                cloud.meter.flow();
                cloud.meter.settled().await;
                if cloud
                    .watcher
                    .received("CompleteMultipartUpload")
                    .iter()
                    .any(|r| r.key.as_deref() == Some(&key))
                {
                    break;
                }
            }
            site.ensure_started().await;
            verified(&site, &cloud, &take, episode).await;
            let sent = cloud.meter.total() - before;
            let sidecar = take.sidecar.as_ref().map_or(0, |sidecar| sidecar.to_string().len() as u64);
            let most = LEN as u64 + kills * (IN_FLIGHT * PART + sidecar) + sidecar + OVERHEAD;
            assert!(
                sent <= most,
                "{kills} kills: {sent} bytes sent, at most {most}: {:#?}",
                cloud.watcher.summary()
            );
        }
    });
}

#[test]
fn a_kill_while_the_answer_to_create_is_lost_leaves_no_orphan() {
    run(async {
        let cloud = Cloud::start().await;
        let take = Take::new(DEVICE, "no-create", 21, 11 << 20);
        let (mut site, episode) = ready_to_send(&cloud, &take).await;
        cloud.watcher.hold("CreateMultipartUpload", 0);
        site.approve_and_sync(episode).await;
        cloud.watcher.held(1).await;
        assert_eq!(cloud.open_uploads().len(), 1, "the store has it, the site does not know");
        site.kill();
        cloud.watcher.release();
        site.start().await;
        verified(&site, &cloud, &take, episode).await;
    });
}

#[test]
fn a_kill_while_the_answer_to_complete_is_lost_sends_no_byte_again() {
    run(async {
        let cloud = Cloud::start().await;
        let take = Take::new(DEVICE, "no-complete", 22, 16 << 20);
        let (mut site, episode) = ready_to_send(&cloud, &take).await;
        cloud.watcher.hold("CompleteMultipartUpload", 0);
        site.approve_and_sync(episode).await;
        cloud.watcher.held(1).await;
        site.kill();
        cloud.watcher.release();
        let before = cloud.meter.total();
        site.start().await;
        verified(&site, &cloud, &take, episode).await;
        let again = cloud.meter.total() - before;
        assert!(
            again < OVERHEAD,
            "{again} bytes were sent for an object that is there: {:#?}",
            cloud.watcher.summary()
        );
    });
}

#[test]
fn a_part_that_is_stored_but_was_never_answered_is_found_and_not_sent_again() {
    run(async {
        let cloud = Cloud::start().await;
        let take = Take::new(DEVICE, "unanswered", 29, 16 << 20);
        let (mut site, episode) = ready_to_send(&cloud, &take).await;
        cloud.watcher.hold("UploadPart", 0);
        site.approve_and_sync(episode).await;
        cloud.watcher.held(usize::try_from(IN_FLIGHT).expect("few")).await;
        site.kill();
        cloud.watcher.release();
        cloud.meter.settled().await;
        let stored = stored_parts(&cloud);
        assert_eq!(stored.len() as u64, IN_FLIGHT, "{stored:?}");
        site.start().await;
        verified(&site, &cloud, &take, episode).await;
        for part in stored.into_keys() {
            let times = times_received(&cloud, &take.cloud_key(), part);
            assert_eq!(times, 1, "part {part} is there and was sent again: {:#?}", cloud.watcher.summary());
        }
    });
}

#[test]
fn a_kill_while_the_answer_to_the_sidecar_is_lost_changes_nothing() {
    run(async {
        let cloud = Cloud::start().await;
        let take = Take::new(DEVICE, "no-sidecar-answer", 23, 6 << 20);
        let (mut site, episode) = ready_to_send(&cloud, &take).await;
        cloud.watcher.hold("PutObject", 0);
        site.approve_and_sync(episode).await;
        cloud.watcher.held(1).await;
        site.kill();
        cloud.watcher.release();
        site.start().await;
        verified(&site, &cloud, &take, episode).await;
    });
}

#[test]
fn a_small_recording_survives_a_kill_as_well() {
    run(async {
        let cloud = Cloud::start().await;
        let take = Take::new(DEVICE, "small", 24, 1_000).mcap_only();
        let (mut site, episode) = ready_to_send(&cloud, &take).await;
        let first_byte = cloud.meter.total() + 1;
        cloud.meter.stall_at(first_byte);
        site.approve_and_sync(episode).await;
        cloud.meter.reaches(first_byte).await;
        site.kill();
        cloud.meter.flow();
        site.start().await;
        verified(&site, &cloud, &take, episode).await;
    });
}

#[test]
fn sigterm_while_an_answer_is_withheld_ends_with_zero_and_the_upload_goes_on_where_it_was() {
    run(async {
        let cloud = Cloud::start().await;
        let take = Take::new(DEVICE, "terminated", 25, LEN);
        let (mut site, episode) = ready_to_send(&cloud, &take).await;
        cloud.watcher.hold("UploadPart", 2);
        site.approve_and_sync(episode).await;
        cloud.watcher.held(1).await;
        until("both acknowledged parts to be known", STEP, async || {
            let status = site.sync_status(episode).await;
            (status["progress"]["uploaded_bytes"].as_u64() == Some(2 * PART)).then_some(())
        })
        .await;
        let known = acknowledged(&cloud, &take.cloud_key());
        assert_eq!(known.len(), 2, "{known:?}");
        let before = cloud.meter.total();
        // The store goes on withholding: the site has to end by itself.
        site.stop().await;
        assert_eq!(cloud.open_uploads(), [take.cloud_key()], "a stop aborts nothing");
        cloud.watcher.release();
        site.start().await;
        verified(&site, &cloud, &take, episode).await;
        for part in known {
            let times = times_received(&cloud, &take.cloud_key(), part);
            assert_eq!(
                times,
                1,
                "part {part} was acknowledged and sent again: {:#?}",
                cloud.watcher.summary()
            );
        }
        let rest = cloud.meter.total() - before;
        let most = LEN as u64 - 2 * PART + IN_FLIGHT * PART + OVERHEAD;
        assert!(rest <= most, "{rest} bytes after the stop, at most {most}");
    });
}

#[test]
fn sigint_ends_with_zero_and_a_second_signal_ends_at_once() {
    run(async {
        let cloud = Cloud::start().await;
        let take = Take::new(DEVICE, "interrupted", 26, 11 << 20).mcap_only();
        let plan = Plan::with_cloud(&cloud).set("shutdown.drain", "2s");
        let (mut site, episode) = ready_with(plan, &take).await;
        cloud.watcher.hold("UploadPart", 1);
        site.approve_and_sync(episode).await;
        cloud.watcher.held(1).await;
        site.signal("INT");
        assert_eq!(site.exit(STEP).await.code(), Some(0));

        // Again, with all the time in the world to drain: the second signal does not wait for it. All parts are in
        // the store by now, answered or not, and are found there.
        cloud.watcher.hold("CompleteMultipartUpload", 0);
        let mut site = site.with_setting("shutdown.drain", "5m");
        site.start().await;
        cloud.watcher.held(1).await;
        site.signal("INT");
        let over = until("the stop to begin", STEP, async || {
            if site.has_ended() {
                return Some(true);
            }
            match site.http().with_timeout(Duration::from_secs(10)).get("/readyz").await {
                Ok((200, _, _)) => None,
                Ok(_) | Err(_) => Some(false),
            }
        })
        .await;
        if !over && !site.has_ended() {
            site.signal("INT");
        }
        site.exit(STEP).await;

        cloud.watcher.release();
        site.start().await;
        verified(&site, &cloud, &take, episode).await;
    });
}

#[test]
fn a_store_that_stops_answering_for_a_while_gets_the_recording_once() {
    run(async {
        let cloud = Cloud::start().await;
        let take = Take::new(DEVICE, "mute-store", 27, 16 << 20);
        let plan = Plan::with_cloud(&cloud)
            .set("cloud.attempt_timeout", "1s")
            .set("cloud.connect_timeout", "500ms")
            .set("sync.retry_base", "100ms")
            .set("sync.retry_cap", "500ms")
            .set("sync.retry_jitter", "0s");
        let (site, episode) = ready_with(plan, &take).await;
        cloud.watcher.hold("UploadPart", 1);
        site.approve_and_sync(episode).await;
        cloud.watcher.held(1).await;
        // The answer never comes: the site gives that request up and asks, or sends again.
        until("the site to give the request up", STEP, async || {
            let asked = cloud.watcher.received("ListParts").len();
            let parts = cloud.watcher.received("UploadPart").len();
            (asked > 0 || parts > 3).then_some(())
        })
        .await;
        cloud.watcher.release();
        let status = site.synced(episode).await;
        assert_eq!(status["destination_path"], take.cloud_key(), "{status}");
        assert_eq!(cloud.digest(&take.cloud_key()).await, (take.sha256(), take.mcap.len() as u64));
        assert_eq!(cloud.open_uploads(), Vec::<String>::new());
    });
}

#[test]
fn the_journal_repeats_to_the_same_rows_after_two_kills() {
    run(async {
        let cloud = Cloud::start().await;
        let take = Take::new(DEVICE, "journalled", 28, 16 << 20);
        let (mut site, episode) = ready_to_send(&cloud, &take).await;
        cloud.watcher.hold("UploadPart", 1);
        site.approve_and_sync(episode).await;
        cloud.watcher.held(1).await;
        site.kill();
        // The last of the four parts is left for sure; of the others the store may have all by now, answered or not.
        cloud.watcher.hold("UploadPart", 0);
        site.start().await;
        cloud.watcher.held(1).await;
        site.kill();
        let killed = replay(&site);
        cloud.watcher.release();
        site.start().await;
        verified(&site, &cloud, &take, episode).await;
        site.stop().await;
        let stopped = replay(&site);
        assert!(stopped > killed, "{stopped} entries after more work than {killed}");
    });
}

/// Runs `tidegate replay --verify`; the number of entries it tells.
pub fn replay(site: &Site) -> u64 {
    let mut command: Command = Site::program();
    command.args(["replay", "--verify", "--data-dir"]).arg(site.data_dir());
    let output = command.output().expect("the binary under test");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{text}{errors}");
    // "... 123 entries ..." or "... 1 entry ...": the number before the word.
    let words: Vec<&str> =
        text.split(|c: char| c.is_whitespace() || c == ',').filter(|word| !word.is_empty()).collect();
    let at = words.iter().position(|word| word.starts_with("entr"));
    let number = at.and_then(|at| words[..at].iter().rev().find_map(|word| word.parse::<u64>().ok()));
    number.filter(|number| *number > 0).unwrap_or_else(|| panic!("it says how many entries: {text}"))
}
