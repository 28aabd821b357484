//! Our uploader against object stores that are not ours: one suite, run over every store. docs/stores.md tells what each
//! of them does differently; `differences` pins it.

use std::collections::BTreeSet;

use http::Method;
use serde_json::{Value, json};
use tidegate_device::xml;

use crate::cloud::BUCKET;
use crate::peers::{Kind, Store, open_uploads};
use crate::rig::{IN_FLIGHT, PART, STEP, Site, noise, run, until};
use crate::script::{Take, Uploader};

const DEVICE: &str = "robot-1";

/// Heads of requests, listings and the like: all bytes that are no recording.
const OVERHEAD: u64 = 256 << 10;

/// Five parts, the last one short.
const LEN: usize = (21 << 20) + 12_345;

/// Where an upload is interrupted: two parts at least are acknowledged, however the bytes of two at once mix.
const MIDDLE: u64 = 17 << 20;

/// Every test of the suite, once per store.
macro_rules! suite {
    ($($name:ident),* $(,)?) => {
        mod embedded {
            $(#[test] fn $name() { super::run(super::$name(super::Kind::Embedded)); })*
        }
        mod seaweedfs {
            $(#[test] fn $name() { super::run(super::$name(super::Kind::SeaweedFs)); })*
        }
        mod moto {
            $(#[test] fn $name() { super::run(super::$name(super::Kind::Moto)); })*
        }
    };
}

suite!(
    recordings_of_every_size_arrive_whole_with_their_sidecars,
    a_site_that_is_killed_in_mid_parts_goes_on_where_it_was,
    what_stands_at_our_key_is_never_overwritten_and_ours_is_not_sent_again,
    a_wrong_key_and_a_missing_bucket_park_an_upload_until_they_are_mended,
);

/// Has a recording at the edge; its episode, not approved yet.
async fn delivered(site: &Site, take: &Take) -> u64 {
    Uploader::connect(site, &take.device).await.deliver(site, take).await
}

/// Numbers of the parts that the store lists for an open upload.
async fn stored_parts(store: &Store, key: &str, upload: &str) -> BTreeSet<u16> {
    let answer = store.s3().ask(Method::GET, key, &[("uploadId", upload)], &[], "").await;
    let body = String::from_utf8_lossy(&answer.expect("a listing").body).into_owned();
    let number = |entry| xml::text(entry, "PartNumber").and_then(|text| text.parse().ok());
    xml::elements(&body, "Part").filter_map(number).collect()
}

/// The recording, its sidecar and its checksum are in the store, and nothing else that begins like it.
async fn arrived(store: &Store, take: &Take, status: &Value) {
    let (s3, key) = (store.s3(), take.cloud_key());
    assert_eq!(status["destination_path"], key, "{status}");
    let digest = s3.get_sha256(&key).await.expect("an answer");
    assert_eq!(digest, Some((take.mcap.len() as u64, take.sha256())), "{key}");
    let head = s3.head(&key).await.expect("an answer").expect("it is there");
    assert_eq!(head.checksum_sha256, Some(take.sha256()), "{key}: the digest is kept with the object");
    if let Some(sidecar) = &take.sidecar {
        let beside = beside(&key);
        let bytes = s3.get_bytes(&beside).await.expect("an answer");
        assert_eq!(bytes.expect("it is there"), sidecar.to_string(), "{beside}");
    }
}

fn beside(key: &str) -> String {
    format!("{}.json", key.strip_suffix(".mcap").expect("keys of recordings end in .mcap"))
}

/// The store holds these recordings and their sidecars, and nothing else.
async fn nothing_but(store: &Store, takes: &[&Take]) {
    let sidecars = takes.iter().filter(|take| take.sidecar.is_some()).map(|take| beside(&take.cloud_key()));
    let expected: BTreeSet<String> = takes.iter().map(|take| take.cloud_key()).chain(sidecars).collect();
    let objects = store.s3().list("").await.expect("a listing");
    let keys: BTreeSet<String> = objects.iter().map(|object| object.key.clone()).collect();
    assert_eq!(keys, expected, "exactly one object of each kind");
    assert_eq!(open_uploads(&store.s3()).await, [], "no multipart upload is left open");
}

async fn recordings_of_every_size_arrive_whole_with_their_sidecars(kind: Kind) {
    let Some(store) = Store::start(kind).await else { return };
    let site = store.plan().start().await;
    let part = usize::try_from(PART).expect("a small number");
    let takes = [
        Take::new(DEVICE, "zero", 1, 0),
        Take::new(DEVICE, "one-request", 2, 100_000).mcap_only(),
        Take::new(DEVICE, "exactly-one-part", 3, part),
        Take::new(DEVICE, "one-byte-more", 4, part + 1),
        Take::new("R.2_b-c", "Odd..name_-.1", 5, LEN),
        // The key of one begins with the key of the other.
        Take::new("R.2_b-c", "Odd..name_-.1.mcap", 6, 2 * part),
    ];
    let mut episodes = Vec::new();
    for take in &takes {
        episodes.push(delivered(&site, take).await);
    }
    for episode in &episodes {
        site.approve_and_sync(*episode).await;
    }
    for (take, episode) in takes.iter().zip(episodes) {
        let status = site.synced(episode).await;
        assert_eq!(status["attempt_count"], 1, "{status}");
        arrived(&store, take, &status).await;
    }
    nothing_but(&store, &takes.each_ref()).await;
}

async fn a_site_that_is_killed_in_mid_parts_goes_on_where_it_was(kind: Kind) {
    let Some(store) = Store::start(kind).await else { return };
    let mut site = store.plan().start().await;
    let take = Take::new(DEVICE, "killed", 11, LEN);
    let episode = delivered(&site, &take).await;
    store.relay.meter.stall_at(MIDDLE);
    site.approve_and_sync(episode).await;
    store.relay.meter.reaches(MIDDLE).await;
    site.kill();
    store.relay.meter.flow();
    store.relay.meter.settled().await;

    let open = open_uploads(&store.s3()).await;
    assert_eq!(open.len(), 1, "the upload waits for the site: {open:?}");
    let stored = stored_parts(&store, &open[0].0, &open[0].1).await;
    assert!(stored.len() >= 2, "{stored:?}");
    site.start().await;
    let status = site.synced(episode).await;
    assert_eq!(status["attempt_count"], 1, "a kill costs no attempt: {status}");
    arrived(&store, &take, &status).await;
    nothing_but(&store, &[&take]).await;
    // Only what was under way is sent again.
    let (sent, most) = (store.relay.meter.total(), LEN as u64 + IN_FLIGHT * PART + OVERHEAD);
    assert!(sent <= most, "{sent} bytes sent, at most {most}; stored at the kill: {stored:?}");
}

async fn what_stands_at_our_key_is_never_overwritten_and_ours_is_not_sent_again(kind: Kind) {
    let Some(store) = Store::start(kind).await else { return };
    let site = store.plan().start().await;
    let s3 = store.s3();
    let foreign = [
        (Take::new(DEVICE, "other-length", 21, LEN), b"somebody else's".to_vec()),
        (Take::new(DEVICE, "same-length", 22, 300_000), noise(99, 300_000)),
    ];
    for (take, theirs) in &foreign {
        let episode = delivered(&site, take).await;
        let key = take.cloud_key();
        s3.put(&key, theirs.clone(), "application/octet-stream").await.expect("stored");
        site.approve_and_sync(episode).await;
        let status = until("the upload to give up", STEP, async || {
            let status = site.sync_status(episode).await;
            (status["status"] == "failed").then_some(status)
        })
        .await;
        assert_eq!(status["reason"], "foreign_object", "{status}");
        assert_eq!(status["next_retry_at"], Value::Null, "nobody tries again by itself: {status}");
        assert_eq!(s3.get_bytes(&key).await.expect("an answer").expect("it is there"), theirs[..]);
    }
    assert_eq!(open_uploads(&store.s3()).await, [], "nothing was begun");

    // The very recording, put there by somebody who kept no digest with it: it is read, not sent.
    let ours = Take::new(DEVICE, "there-already", 23, LEN);
    let episode = delivered(&site, &ours).await;
    s3.put(&ours.cloud_key(), ours.mcap.clone(), "application/octet-stream").await.expect("stored");
    let before = store.relay.meter.total();
    site.approve_and_sync(episode).await;
    let status = site.synced(episode).await;
    assert_eq!(status["destination_path"], ours.cloud_key(), "{status}");
    let sent = store.relay.meter.total() - before;
    assert!(sent < OVERHEAD, "{sent} bytes were sent for a recording that is there");
    let digest = s3.get_sha256(&ours.cloud_key()).await.expect("an answer");
    assert_eq!(digest, Some((ours.mcap.len() as u64, ours.sha256())));
}

/// Waits until the site waits for people, with that reason; no attempt is spent on it.
async fn parked(site: &Site, episode: u64, reason: &str) {
    let status = until(&format!("the upload to wait for {reason}"), STEP, async || {
        let status = site.sync_status(episode).await;
        (status["reason"] == reason && status["status"] != "in_progress").then_some(status)
    })
    .await;
    assert_eq!(status["attempt_count"], 0, "an operator's matter costs no attempt: {status}");
    assert_eq!(status["next_retry_at"], Value::Null, "nobody tries again by itself: {status}");
    let queue = site.read("/api/v1/sync/config").await["queue"].clone();
    assert_eq!(queue["parked"], 1, "{queue}");
}

async fn a_wrong_key_and_a_missing_bucket_park_an_upload_until_they_are_mended(kind: Kind) {
    let Some(store) = Store::start(kind).await else { return };
    let later = "it-made-later";
    let mut site =
        store.plan().set("cloud.secret_key", "not-the-secret").set("cloud.bucket", later).start().await;
    let take = Take::new(DEVICE, "mended", 31, 11 << 20);
    let episode = delivered(&site, &take).await;
    site.approve_and_sync(episode).await;
    // One store asks for no keys: it can only miss the bucket.
    if kind != Kind::Moto {
        parked(&site, episode, "auth").await;
    }
    site.stop().await;
    let mut site = site.with_setting("cloud.secret_key", crate::cloud::SECRET);
    site.start().await;
    parked(&site, episode, "no_destination").await;

    let bucket = store.s3_of(later);
    bucket.create_bucket().await.expect("the bucket");
    let (status, body) = site.post(&format!("/api/v1/sync/episodes/{episode}"), &json!({})).await;
    assert_eq!(status, 202, "{body}");
    let status = site.synced(episode).await;
    assert_eq!(status["attempt_count"], 1, "{status}");
    let digest = bucket.get_sha256(&take.cloud_key()).await.expect("an answer");
    assert_eq!(digest, Some((take.mcap.len() as u64, take.sha256())));
    let elsewhere = store.s3().list("").await.expect("a listing");
    assert_eq!(elsewhere.len(), 0, "nothing went to {BUCKET}: {elsewhere:?}");
}

/// A site and an upload whose bytes stand still in the middle.
async fn halfway(store: &Store, take: &Take) -> (Site, u64) {
    let site = store.plan().start().await;
    let episode = delivered(&site, take).await;
    store.relay.meter.stall_at(MIDDLE);
    site.approve_and_sync(episode).await;
    store.relay.meter.reaches(MIDDLE).await;
    (site, episode)
}

#[test]
fn a_store_that_is_killed_and_keeps_what_it_has_gets_the_rest() {
    run(async {
        let Some(mut store) = Store::start(Kind::SeaweedFs).await else { return };
        let take = Take::new(DEVICE, "store-killed", 41, LEN);
        let (site, episode) = halfway(&store, &take).await;
        store.kill();
        store.restart().await;
        store.relay.meter.flow();
        let status = site.synced(episode).await;
        assert_eq!(status["attempt_count"], 1, "the way broke, not the recording: {status}");
        arrived(&store, &take, &status).await;
        nothing_but(&store, &[&take]).await;
        let (sent, most) = (store.relay.meter.total(), LEN as u64 + IN_FLIGHT * PART + OVERHEAD);
        assert!(sent <= most, "{sent} bytes sent, at most {most}");
    });
}

#[test]
fn a_store_that_forgot_everything_gets_the_whole_recording_again() {
    run(async {
        let Some(mut store) = Store::start(Kind::Moto).await else { return };
        let take = Take::new(DEVICE, "store-forgot", 42, LEN);
        let (site, episode) = halfway(&store, &take).await;
        store.kill();
        store.restart().await;
        store.s3().create_bucket().await.expect("the bucket");
        store.relay.meter.flow();
        let status = site.synced(episode).await;
        assert_eq!(status["attempt_count"], 1, "the way broke, not the recording: {status}");
        arrived(&store, &take, &status).await;
        nothing_but(&store, &[&take]).await;
        let (sent, most) = (store.relay.meter.total(), MIDDLE + LEN as u64 + IN_FLIGHT * PART + OVERHEAD);
        assert!(sent <= most, "{sent} bytes sent, at most {most}");
    });
}
