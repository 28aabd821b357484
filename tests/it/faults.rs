//! What each fault of the object store and of a recording comes to: state and reason, who pays, what happens next by
//! itself, and that the recording is in the cloud once and right when the fault is over. The rows are those of the table
//! in docs/operations.md; what a case says must stand there.

use serde_json::{Value, json};
use tidegate_device::{S3, S3Config};
use tidegate_runtime::real::RealSeams;

use crate::cloud::{self, Cloud};
use crate::proxy::{Act, Answer, Proxy};
use crate::rig::{IN_FLIGHT, Plan, SITE, STEP, Site, noise, run, sha256, until};
use crate::script::{Take, Uploader};

const DEVICE: &str = "robot-1";
/// Two parts, the last one short.
const LARGE: usize = (5 << 20) + 4_321;
/// One request.
const SMALL: usize = 1_000;
/// A page as gateways and networks with a login send it.
const PAGE: &str =
    "<!DOCTYPE html><html><head><title>Welcome</title></head><body><h1>Sign in</h1></body></html>";

/// One fault.
struct Case {
    /// The first cell of its row in the table.
    row: &'static str,
    /// Bytes of the recording.
    len: usize,
    /// Which requests meet it; `*` is any.
    on: &'static str,
    /// Of those, how many pass before.
    skip: usize,
    act: Act,
    comes_to: ComesTo,
}

/// What a fault comes to.
#[derive(Clone, Copy, Debug)]
enum ComesTo {
    /// Met once, and the attempt goes on to a good end.
    Nothing,
    /// While it lasts the upload waits for the way; the attempt costs nothing.
    Way(&'static str),
    /// Met once, it costs an attempt, and the next one succeeds.
    Attempt(&'static str),
    /// While it lasts the upload waits for a person; the attempt costs nothing.
    Person(&'static str),
}

impl ComesTo {
    fn reason(self) -> Option<&'static str> {
        match self {
            ComesTo::Nothing => None,
            ComesTo::Way(reason) | ComesTo::Attempt(reason) | ComesTo::Person(reason) => Some(reason),
        }
    }

    /// The third cell of its row.
    fn payer(self) -> &'static str {
        match self {
            ComesTo::Nothing => "nobody",
            ComesTo::Way(_) => "the way",
            ComesTo::Attempt(_) => "an attempt",
            ComesTo::Person(_) => "nobody",
        }
    }
}

fn case(row: &'static str, len: usize, on: &'static str, act: Act, comes_to: ComesTo) -> Case {
    Case { row, len, on, skip: 0, act, comes_to }
}

impl Case {
    fn after(mut self, skip: usize) -> Case {
        self.skip = skip;
        self
    }
}

fn error(status: u16, code: &str) -> Act {
    Act::Answer(Answer::error(status, code))
}

fn page(status: u16) -> Answer {
    Answer::status(status).with("content-type", "text/html; charset=utf-8").body(PAGE)
}

/// The row of the table that begins with this cell.
fn row(first: &str) -> Vec<String> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/operations.md");
    let text = std::fs::read_to_string(path).expect("docs/operations.md");
    let rows: Vec<&str> = text.lines().filter(|line| line.starts_with(&format!("| {first} |"))).collect();
    assert_eq!(rows.len(), 1, "docs/operations.md has one row that begins with {first:?}");
    let cells: Vec<String> = rows[0].split('|').map(|cell| cell.trim().to_owned()).collect();
    assert_eq!(cells.len(), 7, "five cells: {cells:?}");
    cells[1..6].to_vec()
}

/// The table says what was seen.
fn documented(first: &str, reason: Option<&str>, payer: &str) {
    let cells = row(first);
    if let Some(reason) = reason {
        assert!(cells[1].contains(&format!("`{reason}`")), "{first}: {reason} in {cells:?}");
    }
    assert_eq!(cells[2], payer, "{first}: {cells:?}");
    assert!(cells[3..].iter().all(|cell| !cell.is_empty()), "{cells:?}");
}

#[test]
fn every_row_of_the_table_is_tested_here() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/operations.md");
    let text = std::fs::read_to_string(path).expect("docs/operations.md");
    let here = include_str!("faults.rs");
    let mut rows = 0;
    for title in ["### The object store", "### The recording"] {
        let (_, section) = text.split_once(title).unwrap_or_else(|| panic!("a section {title:?}"));
        let lines = section.lines().take_while(|line| !line.starts_with('#'));
        for line in lines.filter(|line| line.starts_with("| ") && !line.starts_with("| fault |")) {
            let first = line.split('|').nth(1).expect("a first cell").trim();
            assert!(here.contains(&format!("\"{first}\"")), "no case is about {first:?}");
            rows += 1;
        }
    }
    assert!(rows > 30, "{rows} rows");
}

/// A site before a proxy before a cloud.
struct World {
    cloud: Cloud,
    proxy: Proxy,
    site: Site,
    takes: u64,
    name: &'static str,
}

impl World {
    /// Attempts that failed are retried late unless somebody asks; that leaves time to look.
    async fn start(name: &'static str) -> World {
        World::with(name, |plan| plan).await
    }

    async fn with(name: &'static str, set: impl FnOnce(Plan) -> Plan) -> World {
        let cloud = Cloud::start().await;
        let proxy = Proxy::before(cloud.port).await;
        let plan = Plan::with_store(proxy.port)
            // Long enough for a store that answers, however busy the machine.
            .set("cloud.attempt_timeout", "10s")
            .set("cloud.connect_timeout", "5s")
            .set("sync.retry_base", "10m")
            .set("sync.retry_jitter", "0s");
        let site = set(plan).start().await;
        World { cloud, proxy, site, takes: 0, name }
    }

    /// A recording that was approved, and its episode.
    async fn delivered(&mut self, len: usize) -> (Take, u64) {
        self.takes += 1;
        let take = Take::new(DEVICE, &format!("{}-{}", self.name, self.takes), self.takes, len);
        let mut uploader = Uploader::connect(&self.site, DEVICE).await;
        let episode = uploader.deliver(&self.site, &take).await;
        self.proxy.release();
        self.proxy.forget();
        (take, episode)
    }

    /// Waits for a status, and says what there was instead.
    async fn reaches(&self, episode: u64, what: &str, mut is: impl FnMut(&Value) -> bool) -> Value {
        until(&format!("episode {episode} to be {what}"), STEP, async || {
            let status = self.site.sync_status(episode).await;
            is(&status).then_some(status)
        })
        .await
    }

    /// The way to the destination, as viewers see it.
    async fn way(&self) -> Value {
        self.site.read("/api/v1/sync/config").await["destination"].clone()
    }

    /// A person asks for it now.
    async fn ask(&self, episode: u64) {
        let (status, body) = self.site.post(&format!("/api/v1/sync/episodes/{episode}"), &json!({})).await;
        assert_eq!(status, 202, "{body}");
    }

    /// What must hold in the end.
    async fn whole(&self, take: &Take, episode: u64, attempts: u64) {
        let status = self.site.synced(episode).await;
        assert_eq!(status["attempt_count"], attempts, "{status}: {:#?}", self.proxy.summary());
        assert_eq!(self.cloud.digest(&take.cloud_key()).await, (take.sha256(), take.mcap.len() as u64));
        let stem = take.cloud_key().replace(".mcap", "");
        let mut keys = self.cloud.keys();
        keys.retain(|key| key.starts_with(&format!("{stem}.")));
        assert_eq!(keys, [format!("{stem}.json"), take.cloud_key()], "one object of each kind");
        self.nothing_open().await;
    }

    async fn nothing_open(&self) {
        until("no unfinished upload to be left in the cloud", STEP, async || {
            self.cloud.open_uploads().is_empty().then_some(())
        })
        .await;
    }

    #[expect(clippy::print_stderr, reason = "the harness captures it; a failure shows which case it was")]
    async fn meets(&mut self, case: &Case) {
        eprintln!("{} ({})", case.row, case.on);
        let (take, episode) = self.delivered(case.len).await;
        let times = match case.comes_to {
            ComesTo::Nothing | ComesTo::Attempt(_) => 1,
            ComesTo::Way(_) | ComesTo::Person(_) => usize::MAX,
        };
        self.proxy.rule(case.on, case.skip, times, case.act.clone());
        self.site.approve_and_sync(episode).await;
        let attempts = match case.comes_to {
            ComesTo::Nothing => {
                self.site.synced(episode).await;
                assert!(self.proxy.seen(case.on).len() > case.skip, "{:#?}", self.proxy.summary());
                1
            }
            ComesTo::Way(reason) => {
                let status =
                    self.reaches(episode, reason, |s| s["status"] == "failed" && s["reason"] == reason).await;
                assert_eq!(status["attempt_count"], 0, "it costs no attempt: {status}");
                assert!(status["next_retry_at"].is_string(), "it is tried again: {status}");
                let way = self.way().await;
                assert_eq!(way["fault"], reason, "{way}");
                assert!(way["streak"].as_u64() > Some(0), "the way pays: {way}");
                // Over, it goes on by itself.
                self.proxy.release();
                1
            }
            ComesTo::Attempt(reason) => {
                let status =
                    self.reaches(episode, reason, |s| s["status"] == "failed" && s["reason"] == reason).await;
                assert_eq!(status["attempt_count"], 1, "it costs an attempt: {status}");
                assert!(status["next_retry_at"].is_string(), "it is tried again: {status}");
                let way = self.way().await;
                assert_eq!(way["streak"], 0, "the way is fine: {way}");
                self.ask(episode).await;
                2
            }
            ComesTo::Person(reason) => {
                let parked =
                    |s: &Value| s["status"] == "pending" && s["reason"] == reason && s["id"].is_number();
                let status = self.reaches(episode, reason, parked).await;
                assert_eq!(status["attempt_count"], 0, "it costs no attempt: {status}");
                assert!(status["next_retry_at"].is_null(), "it waits for a person: {status}");
                let way = self.way().await;
                assert_eq!(way["streak"], 0, "the way is fine: {way}");
                self.proxy.release();
                self.ask(episode).await;
                1
            }
        };
        self.whole(&take, episode, attempts).await;
        documented(case.row, case.comes_to.reason(), case.comes_to.payer());
    }
}

fn all(name: &'static str, cases: &[Case]) {
    run(async {
        let mut world = World::start(name).await;
        for case in cases {
            world.meets(case).await;
        }
    });
}

#[test]
fn a_store_that_cannot_just_now_costs_no_attempt_and_is_tried_again_by_itself() {
    all(
        "busy",
        &[
            case("429", SMALL, "*", error(429, "TooManyRequests"), ComesTo::Way("throttled")),
            case("503 `SlowDown`", LARGE, "UploadPart", error(503, "SlowDown"), ComesTo::Way("throttled")),
            case(
                "500 `InternalError`",
                LARGE,
                "UploadPart",
                error(500, "InternalError"),
                ComesTo::Way("unavailable"),
            ),
            case(
                "409 `OperationAborted`, `ConditionalRequestConflict`",
                LARGE,
                "CompleteMultipartUpload",
                error(409, "OperationAborted"),
                ComesTo::Way("unavailable"),
            ),
            case(
                "409 `OperationAborted`, `ConditionalRequestConflict`",
                SMALL,
                "PutObject",
                error(409, "ConditionalRequestConflict"),
                ComesTo::Way("unavailable"),
            ),
            case(
                "403 `RequestTimeTooSkewed`",
                SMALL,
                "PutObject",
                error(403, "RequestTimeTooSkewed"),
                ComesTo::Way("clock_skew"),
            ),
            // The answer to HEAD has no word; the date in it tells.
            case(
                "403 `RequestTimeTooSkewed`",
                SMALL,
                "HeadObject",
                Act::Answer(
                    Answer::error(403, "RequestTimeTooSkewed").with("date", "Wed, 01 Jan 2020 00:00:00 GMT"),
                ),
                ComesTo::Way("clock_skew"),
            ),
        ],
    );
}

#[test]
fn what_somebody_else_answers_in_the_stores_place_is_never_believed() {
    let stranger = ComesTo::Way("unavailable");
    let answer = |answer: Answer| Act::Answer(answer);
    let portal = "200 with a page: the login of a network, a gateway";
    let others = "302, 401, 403, 404, 407 with a page";
    all(
        "portal",
        &[
            case("502, 504 with a page of a gateway", LARGE, "UploadPart", answer(page(502)), stranger),
            case("502, 504 with a page of a gateway", SMALL, "*", answer(page(504)), stranger),
            case(portal, SMALL, "*", answer(page(200)), stranger),
            // It comes up in the middle of an upload.
            case(portal, LARGE, "*", answer(page(200)), stranger).after(3),
            case(portal, LARGE, "UploadPart", answer(page(200).with("etag", "\"5e-61a\"")), stranger),
            case(portal, SMALL, "HeadObject", answer(page(200).with("etag", "\"5e-61a\"")), stranger),
            case(others, SMALL, "*", answer(page(302).with("location", "http://login.example/")), stranger),
            case(others, SMALL, "*", answer(page(403)), stranger),
            case(others, LARGE, "*", answer(page(404)), stranger).after(3),
            case(others, SMALL, "*", answer(page(407)), stranger),
        ],
    );
}

#[test]
fn a_store_that_says_nothing_is_asked_again_and_then_waited_for() {
    run(async {
        let set = |plan: Plan| plan.set("cloud.attempt_timeout", "1s").set("cloud.connect_timeout", "500ms");
        let mut world = World::with("mute", set).await;
        world
            .meets(&case("no answer at all", LARGE, "UploadPart", Act::HoldRequest, ComesTo::Way("offline")))
            .await;
        let log = world.site.log();
        assert!(log.contains("timed out") && log.contains("store_silence"), "it is told what was waited for");
        let metrics = world.site.send(http::Method::GET, "/metrics").await;
        let metrics = String::from_utf8_lossy(&metrics.body).into_owned();
        let silences =
            metrics.lines().find(|l| l.starts_with("tidegate_timeouts_total{operation=\"store_silence\"}"));
        assert!(silences.is_some_and(|line| !line.ends_with(" 0")), "{metrics}");
        // A success that lacks what it must have says nothing either.
        let act = Act::Answer(Answer::status(200).body("ok"));
        world
            .meets(&case(
                "200 that lacks what it must have",
                SMALL,
                "HeadObject",
                act,
                ComesTo::Way("offline"),
            ))
            .await;
    });
}

#[test]
fn a_store_that_wants_something_of_a_person_is_waited_for_at_no_cost() {
    let auth = ComesTo::Person("auth");
    let nowhere = ComesTo::Person("no_destination");
    let denied = "401, 403 `AccessDenied`, `SignatureDoesNotMatch`";
    all(
        "person",
        &[
            case(denied, SMALL, "*", Act::Answer(Answer::status(401)), auth),
            case(denied, SMALL, "*", error(403, "AccessDenied"), auth),
            case(denied, SMALL, "PutObject", error(403, "SignatureDoesNotMatch"), auth),
            // In mid-upload: what was sent is kept.
            case(denied, LARGE, "CompleteMultipartUpload", error(403, "AccessDenied"), auth),
            case("400 `ExpiredToken`", LARGE, "UploadPart", error(400, "ExpiredToken"), auth),
            // The answer to HEAD has no word.
            case("400 `ExpiredToken`", SMALL, "*", error(400, "ExpiredToken"), auth),
            case("404 `NoSuchBucket`", SMALL, "*", error(404, "NoSuchBucket"), nowhere),
            case("301 `PermanentRedirect`", SMALL, "*", error(301, "PermanentRedirect"), nowhere),
        ],
    );
}

#[test]
fn a_store_that_refuses_what_it_was_sent_costs_an_attempt() {
    let other_sum = "q1MKE+RZFJgrefm34+uplM/R8/si9xzqGvvwK0YMbR0=";
    let refused = "any other 4xx, as 412 and 413";
    let missing = "404 `NoSuchUpload`, and the upload is there";
    all(
        "refused",
        &[
            case(refused, SMALL, "PutObject", error(412, "PreconditionFailed"), ComesTo::Attempt("rejected")),
            case(
                refused,
                LARGE,
                "CompleteMultipartUpload",
                error(412, "PreconditionFailed"),
                ComesTo::Attempt("rejected"),
            ),
            case(refused, LARGE, "UploadPart", Act::Answer(page(413)), ComesTo::Attempt("rejected")),
            case(
                "400 `BadDigest`, or another checksum in the answer",
                LARGE,
                "UploadPart",
                error(400, "BadDigest"),
                ComesTo::Attempt("part_damaged"),
            ),
            case(
                "400 `BadDigest`, or another checksum in the answer",
                LARGE,
                "UploadPart",
                Act::Header("x-amz-checksum-sha256", other_sum.to_owned()),
                ComesTo::Attempt("part_damaged"),
            ),
            case(
                missing,
                LARGE,
                "UploadPart",
                error(404, "NoSuchUpload"),
                ComesTo::Attempt("upload_vanished"),
            ),
        ],
    );
}

#[test]
fn an_answer_that_is_lost_or_wrong_is_looked_into_at_no_cost() {
    let complete = "CompleteMultipartUpload";
    let inside = Answer::error(200, "InternalError");
    let wrong = "\"0123456789abcdef0123456789abcdef\"";
    let done = "<CompleteMultipartUploadResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
                <ETag>\"0123456789abcdef0123456789abcdef-2\"</ETag></CompleteMultipartUploadResult>";
    let unsure = "500, 502, 504 to `CompleteMultipartUpload`, which may have been done";
    let under = "200 with an error in it to `CompleteMultipartUpload`";
    let reset = "connection reset in mid-body, or before the answer";
    let tag = "a wrong ETag in the answer";
    let cut = "an answer that breaks off";
    let go_on = ComesTo::Nothing;
    all(
        "unsure",
        &[
            case(unsure, LARGE, complete, error(500, "InternalError"), go_on),
            case(unsure, LARGE, complete, Act::AnswerAfter(page(502)), go_on),
            case(unsure, LARGE, complete, Act::Answer(page(504)), go_on),
            case(under, LARGE, complete, Act::Answer(inside.clone()), go_on),
            case(under, LARGE, complete, Act::AnswerAfter(inside), go_on),
            case(reset, LARGE, "UploadPart", Act::ResetRequest { after: 1 << 20 }, go_on),
            case(reset, LARGE, "UploadPart", Act::ResetAnswer, go_on),
            case(reset, LARGE, complete, Act::ResetAnswer, go_on),
            case(reset, SMALL, "PutObject", Act::ResetAnswer, go_on).after(1),
            case(tag, LARGE, "UploadPart", Act::Header("etag", wrong.to_owned()), go_on),
            case(tag, SMALL, "PutObject", Act::Header("etag", wrong.to_owned()), go_on).after(1),
            case(tag, LARGE, complete, Act::AnswerAfter(Answer::error(200, "").body(done)), go_on),
            case(cut, LARGE, complete, Act::HalfAnswer, go_on),
            case(cut, LARGE, "CreateMultipartUpload", Act::HalfAnswer, go_on),
            case(
                "404 `NoSuchUpload` to `CompleteMultipartUpload`, and the upload is there",
                LARGE,
                complete,
                error(404, "NoSuchUpload"),
                go_on,
            ),
        ],
    );
}

#[test]
fn an_upload_that_the_store_denies_and_lists_is_not_asked_for_without_end() {
    run(async {
        let mut world = World::start("denied").await;
        let (take, episode) = world.delivered(LARGE).await;
        world.proxy.always("CompleteMultipartUpload", error(404, "NoSuchUpload"));
        world.site.approve_and_sync(episode).await;
        let status = world.reaches(episode, "given up for now", |s| s["reason"] == "upload_vanished").await;
        assert_eq!((&status["status"], &status["attempt_count"]), (&json!("failed"), &json!(1)), "{status}");
        let asked = world.proxy.seen("CompleteMultipartUpload").len();
        assert!(asked <= 5, "{asked} times: {:#?}", world.proxy.summary());
        documented(
            "404 `NoSuchUpload` to `CompleteMultipartUpload`, and the upload is there",
            Some("upload_vanished"),
            "nobody",
        );
        world.proxy.release();
        world.ask(episode).await;
        world.whole(&take, episode, 2).await;
        assert_eq!(
            world.proxy.seen("UploadPart").len(),
            2,
            "no part goes twice: {:#?}",
            world.proxy.summary()
        );
    });
}

#[test]
fn an_upload_that_the_store_lost_is_begun_again_at_no_cost_and_said_so() {
    run(async {
        let mut world = World::start("lost").await;
        let (take, episode) = world.delivered(LARGE).await;
        world.proxy.rule("UploadPart", 1, 1, Act::HoldRequest);
        world.site.approve_and_sync(episode).await;
        world.proxy.held(1).await;
        for upload in world.cloud.spool.list_uploads(cloud::BUCKET) {
            let aborted = world.cloud.spool.abort_upload(cloud::BUCKET, &upload.key, &upload.id).await;
            aborted.expect("it is aborted by somebody else");
        }
        world.proxy.release();
        world.whole(&take, episode, 1).await;
        let status = world.site.sync_status(episode).await;
        assert!(status["note"].as_str().is_some_and(|note| note.contains("begun again")), "{status}");
        documented("404 `NoSuchUpload`, and the upload is gone", None, "nobody");

        // The store only says so, to the question which parts it holds.
        let (take, episode) = world.delivered(LARGE).await;
        world.proxy.rule("UploadPart", 1, 1, error(500, "InternalError"));
        world.proxy.rule("ListParts", 0, 1, error(404, "NoSuchUpload"));
        world.site.approve_and_sync(episode).await;
        world.whole(&take, episode, 1).await;
        assert!(!world.proxy.seen("ListParts").is_empty(), "{:#?}", world.proxy.summary());
    });
}

#[test]
fn a_store_that_names_its_time_is_left_alone_until_then_unless_a_person_restarts_the_site_and_asks() {
    run(async {
        let mut world = World::start("later").await;
        let (take, episode) = world.delivered(SMALL).await;
        let day = Answer::error(503, "SlowDown").with("retry-after", "86400");
        world.proxy.always("PutObject", Act::Answer(day));
        world.site.approve_and_sync(episode).await;
        let status = world.reaches(episode, "throttled", |s| s["reason"] == "throttled").await;
        assert_eq!((&status["status"], &status["attempt_count"]), (&json!("failed"), &json!(0)), "{status}");
        let date = |name: &str| status[name].as_str().and_then(|text| text.get(..10)).map(str::to_owned);
        assert_ne!(date("next_retry_at"), date("completed_at"), "a day later: {status}");
        let way = world.way().await;
        assert_eq!((&way["fault"], &way["streak"]), (&json!("throttled"), &json!(1)), "{way}");
        documented("503 `SlowDown` with `Retry-After`", Some("throttled"), "the way");
        world.proxy.release();
        world.site.kill();
        world.site.start().await;
        world.ask(episode).await;
        world.whole(&take, episode, 1).await;
    });
}

#[test]
fn another_object_at_the_key_is_left_alone_and_ends_the_job() {
    run(async {
        let mut world = World::start("foreign").await;
        let (take, episode) = world.delivered(SMALL).await;
        let store = S3::new(
            RealSeams::new(),
            S3Config {
                host: "127.0.0.1".to_owned(),
                port: world.cloud.port,
                access_key: cloud::KEY.to_owned(),
                secret_key: cloud::SECRET.to_owned(),
                bucket: cloud::BUCKET.to_owned(),
                region: "us-east-1".to_owned(),
                factory_id: SITE.to_owned(),
                request_timeout: STEP,
            },
        );
        let theirs = b"somebody else's".to_vec();
        store.put(&take.cloud_key(), theirs.clone(), "text/plain").await.expect("it is put");
        world.site.approve_and_sync(episode).await;
        let status = world.reaches(episode, "given up", |s| s["reason"] == "foreign_object").await;
        assert_eq!((&status["status"], &status["attempt_count"]), (&json!("failed"), &json!(1)), "{status}");
        assert!(status["next_retry_at"].is_null(), "{status}");
        assert_eq!(world.cloud.digest(&take.cloud_key()).await, (sha256(&theirs), theirs.len() as u64));
        documented("another object stands at the key", Some("foreign_object"), "an attempt");
        // A person moves it away and asks again.
        world.cloud.spool.delete(cloud::BUCKET, &take.cloud_key()).await.expect("it is removed");
        world.ask(episode).await;
        world.whole(&take, episode, 1).await;
    });
}

/// What happens to a recording on the site's disk while it is uploaded.
#[derive(Clone, Copy, Debug)]
enum Harm {
    Changed,
    Truncated,
    Removed,
}

/// The file of the site's store that holds the end of a recording.
fn last_file(site: &Site, take: &Take) -> std::path::PathBuf {
    let tail = &take.mcap[take.mcap.len() - 1_000..];
    let folder = site.data_dir().join("objects/blobs");
    let files =
        std::fs::read_dir(&folder).expect("the site's contents").map(|entry| entry.expect("it").path());
    let mut found = files.filter(|path| std::fs::read(path).expect("a content").ends_with(tail));
    found.next().expect("the recording is on the site's disk")
}

#[test]
fn a_recording_that_is_harmed_on_the_sites_disk_never_reaches_the_cloud_and_is_lost_aloud() {
    run(async {
        let mut world = World::with("harmed", |plan| {
            plan.set("sync.attempts", 2).set("sync.retry_base", "3s").set("sync.retry_cap", "3s")
        })
        .await;
        for (harm, first, reason) in [
            (Harm::Changed, "the recording changes on the site's disk", "source_damaged"),
            (Harm::Truncated, "the recording is cut off on the site's disk", "source_damaged"),
            (Harm::Removed, "the recording vanishes from the site's disk", "source_vanished"),
        ] {
            eprintln!("{first}");
            let (take, episode) = world.delivered(11 << 20).await;
            world.proxy.always("UploadPart", Act::HoldRequest);
            world.site.approve_and_sync(episode).await;
            world.proxy.held(usize::try_from(IN_FLIGHT).expect("few")).await;
            // The third part is not read yet.
            let file = last_file(&world.site, &take);
            let whole = std::fs::read(&file).expect("a content");
            match harm {
                Harm::Changed => {
                    let mut other = whole.clone();
                    *other.last_mut().expect("not empty") ^= 1;
                    std::fs::write(&file, other).expect("it is changed");
                }
                Harm::Truncated => std::fs::write(&file, &whole[..whole.len() - 1]).expect("it is cut off"),
                Harm::Removed => std::fs::remove_file(&file).expect("it is removed"),
            }
            world.proxy.release();
            let status = world.reaches(episode, reason, |s| s["reason"] == reason).await;
            assert_eq!(
                (&status["status"], &status["attempt_count"]),
                (&json!("failed"), &json!(1)),
                "{status}"
            );
            assert!(status["next_retry_at"].is_string(), "one reading may be wrong: {status}");
            documented(first, Some(reason), "an attempt");
            // The last attempt, by itself.
            let status = world.reaches(episode, "lost", |s| s["reason"] == "source_lost").await;
            assert_eq!(
                (&status["status"], &status["attempt_count"]),
                (&json!("failed"), &json!(2)),
                "{status}"
            );
            assert!(status["next_retry_at"].is_null(), "{status}");
            documented(first, Some("source_lost"), "an attempt");
            world.nothing_open().await;
            assert!(!world.cloud.keys().contains(&take.cloud_key()), "nothing wrong in the cloud");
            assert_eq!(world.way().await["streak"], 0, "the way is fine");
            // Put back from wherever it is kept, it goes when somebody asks.
            std::fs::write(&file, whole).expect("it is put back");
            world.ask(episode).await;
            world.whole(&take, episode, 1).await;
        }
    });
}

#[test]
fn a_recording_that_is_not_what_was_announced_is_not_acknowledged_and_the_reason_is_shown() {
    run(async {
        let site = Plan::new().start().await;
        let mut uploader = Uploader::connect(&site, DEVICE).await;
        let other = || sha256(b"something else");
        let nothing = "no recording, or no sidecar, where `upload_complete` says so";
        let cases: [(&str, &str); 8] = [
            ("no bytes, where some were announced", "size_mismatch"),
            ("another size than `upload_complete` announced", "size_mismatch"),
            ("another size than the sidecar says", "size_mismatch"),
            ("another SHA-256 than `upload_complete` announced", "digest_mismatch"),
            ("another SHA-256 than the sidecar says", "digest_mismatch"),
            ("another SHA-256 than the object's metadata says", "digest_mismatch"),
            (nothing, "object_missing"),
            (nothing, "sidecar_missing"),
        ];
        for (n, (first, code)) in cases.into_iter().enumerate() {
            eprintln!("{first}");
            let take = Take::new(DEVICE, &format!("announced-{n}"), n as u64, 50_000);
            let mut wrong = take.clone();
            let mut complete = take.complete();
            let sidecar = wrong.sidecar.as_mut().expect("a sidecar");
            match n {
                0 => wrong.mcap.clear(),
                1 => complete["file_size_bytes"] = json!(50_001),
                2 => sidecar["recording"]["file_size_bytes"] = json!(49_999),
                3 => complete["checksum_sha256"] = json!(other()),
                4 => sidecar["recording"]["checksum_sha256"] = json!(other()),
                5 => wrong.mcap = noise(99, take.mcap.len()),
                _ => {}
            }
            site.create_task(DEVICE, &take.task).await;
            uploader.say("upload_started", &take.started()).await;
            site.task_reaches(&take.task, "uploading").await;
            match n {
                5 => {
                    // Its metadata says the right digest, and its bytes are others.
                    let path = site.dir().join("wrong.mcap");
                    std::fs::write(&path, &wrong.mcap).expect("a file");
                    let edge = site.edge();
                    let slice = edge.file(&path).await.expect("a file");
                    let sum = take.sha256();
                    let put =
                        edge.put_file(&take.key, slice, Some(&sum), "application/octet-stream", 5 << 20, 1);
                    put.await.expect("the store takes what it gets");
                    wrong.upload_sidecar(&site).await;
                }
                6 => {}
                7 => wrong.upload_mcap(&site).await,
                _ => wrong.upload(&site).await,
            }
            uploader.say("upload_complete", &complete).await;
            until(&format!("{code} to be said of {}", take.task), STEP, async || {
                site.read(&format!("/api/v1/tasks/{}", take.task))
                    .await
                    .to_string()
                    .contains(code)
                    .then_some(())
            })
            .await;
            assert_eq!(site.task_status(&take.task).await, "uploading", "the device keeps its copy");
            let episodes = site.episodes(DEVICE).await;
            assert!(!episodes.iter().any(|episode| episode["task_id"] == take.task), "{episodes:?}");
            documented(first, Some(code), "nobody");
            // The device still has it and sends it again; only a wrong word must be said anew.
            take.upload(&site).await;
            if matches!(n, 1 | 3) {
                uploader.say("upload_complete", &take.complete()).await;
            }
            uploader.ack(&take.task).await;
            site.task_reaches(&take.task, "completed").await;
        }
        uploader.silence("each recording was acknowledged once").await;
        let answer = site.send(http::Method::GET, "/metrics").await;
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        for code in ["size_mismatch", "digest_mismatch", "object_missing", "sidecar_missing"] {
            let counted = text.lines().find(|line| {
                line.starts_with("tidegate_refused_messages") && line.contains(&format!("\"{code}\""))
            });
            assert!(counted.is_some_and(|line| !line.ends_with(" 0")), "{code} is counted: {text}");
        }
        // In qa.rs: what a damaged recording comes to that was announced as it is.
        documented("a damaged MCAP file, announced as it is", Some("needs_inspection"), "nobody");
        documented("an empty MCAP file, announced as it is", Some("empty"), "nobody");
    });
}
