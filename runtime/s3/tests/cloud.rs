//! The destination against a real S3 endpoint on loopback, and against stores that break in the middle.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod bench;

use std::sync::Arc;
use std::time::Duration;

use bench::{Bench, CLOUD, Cloud, EDGE, Line, config, named, pattern, put_part, scripted};
use tidegate_core::digest::{Sha256, multipart_etag};
use tidegate_core::id::{ETag, PartNo, UploadId};
use tidegate_core::object::{Composite, Got, ListedPart, ObjectReply, Span, Verb, Want};
use tidegate_core::outcome::{Fault, Outcome, What};
use tidegate_runtime::object::edge::EdgeStore;
use tidegate_runtime::real::{RealBlocking, RealClock, RealDisk, RealNet, RealSeams};
use tidegate_runtime::seam::{Net, Seams};
use tidegate_runtime::timeouts::{Op, Timeouts};
use tidegate_s3::CloudStore;

const MIB: usize = 1 << 20;

fn put(bytes: &[u8]) -> Verb {
    Verb::Put { source: named("from"), len: bytes.len() as u64, sha256: Sha256::of(bytes) }
}

fn digest_of(span: Option<Span>) -> Verb {
    Verb::Get { span, want: Want::Digest }
}

fn got(bytes: &[u8]) -> Outcome<ObjectReply> {
    Outcome::Done(ObjectReply::Got(Got::Digest { len: bytes.len() as u64, sha256: Sha256::of(bytes) }))
}

fn failed(fault: Fault) -> Outcome<ObjectReply> {
    Outcome::Failed(fault)
}

fn span(offset: usize, len: usize) -> Span {
    Span { offset: offset as u64, len: len as u64 }
}

#[tokio::test]
async fn a_small_recording_goes_up_in_one_request_and_is_known_by_its_digest() {
    let bench = Bench::start().await;
    let (cloud, bytes) = (bench.cloud(), pattern(100_000));
    bench.source("from", &bytes).await;
    let Outcome::Done(ObjectReply::Put(etag)) = cloud.run("d/t.mcap", put(&bytes)).await else {
        panic!("stored")
    };
    let Outcome::Done(ObjectReply::Head(Some(facts))) = cloud.run("d/t.mcap", Verb::Head).await else {
        panic!("there")
    };
    assert_eq!((facts.len, &facts.etag), (100_000, &etag));
    assert_eq!(facts.sha256, Some(Sha256::of(&bytes)), "the checksum was sent and kept");
    assert_eq!((facts.composite, facts.announced), (None, Some(Sha256::of(&bytes))));
    let stored = bench.spool.head(CLOUD, "d/t.mcap").await.unwrap();
    assert_eq!(stored.sha256, Sha256::of(&bytes).0);
    assert_eq!(stored.described.content_type.as_deref(), Some("application/octet-stream"));
}

#[tokio::test]
async fn an_empty_file_and_a_sidecar_are_put_and_read_back() {
    let bench = Bench::start().await;
    let cloud = bench.cloud();
    bench.source("from", b"").await;
    assert!(matches!(cloud.run("empty", put(b"")).await, Outcome::Done(ObjectReply::Put(_))));
    assert_eq!(cloud.run("empty", digest_of(None)).await, got(b""));
    let text = br#"{"recording":{"message_count":3,"recorder_version":"1.2"}}"#;
    bench.source("from", text).await;
    assert!(matches!(cloud.run("t.json", put(text)).await, Outcome::Done(ObjectReply::Put(_))));
    let sidecar = cloud.run("t.json", Verb::Get { span: None, want: Want::Sidecar }).await;
    let Outcome::Done(ObjectReply::Got(Got::Sidecar { len, sha256, facts: Some(facts) })) = sidecar else {
        panic!("{sidecar:?}")
    };
    assert_eq!((len, sha256, facts.messages), (text.len() as u64, Sha256::of(text), Some(3)));
    let stored = bench.spool.head(CLOUD, "t.json").await.unwrap();
    assert_eq!(stored.described.content_type.as_deref(), Some("application/json"));
}

#[tokio::test]
async fn a_second_put_replaces_the_first() {
    let bench = Bench::start().await;
    let cloud = bench.cloud();
    for bytes in [&b"first"[..], b"second"] {
        bench.source("from", bytes).await;
        assert!(matches!(cloud.run("k", put(bytes)).await, Outcome::Done(ObjectReply::Put(_))));
        assert_eq!(cloud.run("k", digest_of(None)).await, got(bytes));
    }
}

#[tokio::test]
async fn a_large_recording_goes_up_in_parts_and_its_checksums_are_the_arithmetic_of_its_parts() {
    let bench = Bench::start().await;
    let (cloud, bytes) = (bench.cloud(), pattern(11 * MIB));
    bench.source("from", &bytes).await;
    let upload = cloud.create("big.mcap", &bytes).await;
    let spans = [span(0, 5 * MIB), span(5 * MIB, 5 * MIB), span(10 * MIB, MIB)];
    let mut parts = Vec::new();
    for (number, span) in (1..).zip(spans) {
        let facts = cloud.put_part("big.mcap", &upload, number, span).await;
        let sent = &bytes[span.offset as usize..][..span.len as usize];
        assert_eq!((facts.len, facts.sha256), (span.len, Sha256::of(sent)));
        parts.push((PartNo(number), facts));
    }
    let complete = Verb::Complete { upload: upload.clone(), parts: parts.clone() };
    let Outcome::Done(ObjectReply::Completed(etag)) = cloud.run("big.mcap", complete).await else {
        panic!("completed")
    };
    assert_eq!(Some(&etag), multipart_etag(parts.iter().map(|(_, part)| &part.etag)).as_ref());
    let Outcome::Done(ObjectReply::Head(Some(facts))) = cloud.run("big.mcap", Verb::Head).await else {
        panic!("there")
    };
    let sha256 = Sha256::composite(parts.iter().map(|(_, part)| part.sha256));
    assert_eq!(facts.composite, Some(Composite { sha256, parts: 3 }));
    assert_eq!((facts.len, facts.sha256, &facts.etag), (11 * MIB as u64, None, &etag));
    assert_eq!(facts.announced, Some(Sha256::of(&bytes)));
    assert_eq!(cloud.run("big.mcap", digest_of(None)).await, got(&bytes));
    let across = span(5 * MIB - 7, 20);
    assert_eq!(cloud.run("big.mcap", digest_of(Some(across))).await, got(&bytes[5 * MIB - 7..][..20]));
    assert_eq!(
        cloud.run("big.mcap", digest_of(Some(span(11 * MIB, 1)))).await,
        failed(Fault::Damaged(What::Object))
    );
}

#[tokio::test]
async fn an_interrupted_upload_is_found_again_with_the_parts_that_arrived() {
    let bench = Bench::start().await;
    let (cloud, bytes) = (bench.cloud(), pattern(5 * MIB + 10));
    bench.source("from", &bytes).await;
    let upload = cloud.create("k", &bytes).await;
    cloud.create("k.longer", &bytes).await;
    let last = cloud.put_part("k", &upload, 2, span(5 * MIB, 10)).await;
    let first = cloud.put_part("k", &upload, 1, span(0, 5 * MIB)).await;
    // A new process knows nothing but the key.
    let cloud = bench.cloud();
    let open = cloud.run("k", Verb::ListUploads).await;
    assert_eq!(open, Outcome::Done(ObjectReply::Uploads(vec![upload.clone()])));
    let held = [(1, &first), (2, &last)].map(|(number, facts)| ListedPart {
        part: PartNo(number),
        etag: facts.etag.clone(),
        len: facts.len,
        sha256: Some(facts.sha256),
    });
    let listed = cloud.run("k", Verb::ListParts { upload: upload.clone() }).await;
    assert_eq!(listed, Outcome::Done(ObjectReply::Parts(Some(held.to_vec()))));
    let complete = Verb::Complete { upload, parts: vec![(PartNo(1), first), (PartNo(2), last)] };
    assert!(matches!(cloud.run("k", complete).await, Outcome::Done(ObjectReply::Completed(_))));
    assert_eq!(cloud.run("k", Verb::ListUploads).await, Outcome::Done(ObjectReply::Uploads(vec![])));
    assert_eq!(cloud.run("k", digest_of(None)).await, got(&bytes));
}

#[tokio::test]
async fn listings_are_read_to_their_last_page() {
    let (_bench, cloud) = say(Line::Pages {
        marker: "part-number-marker=1",
        first: "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n<ListPartsResult><IsTruncated>true</IsTruncated>\
                <NextPartNumberMarker>1</NextPartNumberMarker>\
                <Part><PartNumber>1</PartNumber><ETag>\"a\"</ETag><Size>5</Size></Part></ListPartsResult>",
        then: "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n<ListPartsResult><IsTruncated>false</IsTruncated>\
               <Part><PartNumber>2</PartNumber><ETag>\"b\"</ETag><Size>6</Size></Part></ListPartsResult>",
    })
    .await;
    let part =
        |number, etag, len| ListedPart { part: PartNo(number), etag: ETag::new(etag), len, sha256: None };
    assert_eq!(
        cloud.run("k", Verb::ListParts { upload: UploadId::new("u") }).await,
        Outcome::Done(ObjectReply::Parts(Some(vec![part(1, "a", 5), part(2, "b", 6)])))
    );
    let (_bench, cloud) = say(Line::Pages {
        marker: "key-marker=k&prefix=k&upload-id-marker=young",
        first: "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n<ListMultipartUploadsResult>\
                <IsTruncated>true</IsTruncated><NextKeyMarker>k</NextKeyMarker>\
                <NextUploadIdMarker>young</NextUploadIdMarker><Upload><Key>k</Key><UploadId>young</UploadId>\
                <Initiated>2024-01-02T00:00:00.000Z</Initiated></Upload></ListMultipartUploadsResult>",
        then: "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n<ListMultipartUploadsResult>\
               <IsTruncated>false</IsTruncated><Upload><Key>k</Key><UploadId>old</UploadId>\
               <Initiated>2024-01-01T00:00:00.000Z</Initiated></Upload><Upload><Key>k2</Key>\
               <UploadId>foreign</UploadId></Upload></ListMultipartUploadsResult>",
    })
    .await;
    let oldest_first = ["old", "young"].map(UploadId::new).to_vec();
    assert_eq!(cloud.run("k", Verb::ListUploads).await, Outcome::Done(ObjectReply::Uploads(oldest_first)));
}

#[tokio::test]
async fn a_listing_that_never_ends_is_no_answer() {
    let page = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n<ListPartsResult><IsTruncated>true</IsTruncated>\
                <NextPartNumberMarker>1</NextPartNumberMarker></ListPartsResult>";
    let (_bench, cloud) = say(Line::Say(page)).await;
    assert_eq!(cloud.run("k", Verb::ListParts { upload: UploadId::new("u") }).await, Outcome::Unknown);
}

#[tokio::test]
async fn an_upload_that_is_gone_says_so_to_everything_but_an_abort() {
    let bench = Bench::start().await;
    let cloud = bench.cloud();
    bench.source("from", b"content").await;
    let upload = cloud.create("k", b"content").await;
    let part = cloud.put_part("k", &upload, 1, span(0, 7)).await;
    for _ in 0..2 {
        let abort = Verb::Abort { upload: upload.clone() };
        assert_eq!(cloud.run("k", abort).await, Outcome::Done(ObjectReply::Aborted));
    }
    let list = Verb::ListParts { upload: upload.clone() };
    assert_eq!(cloud.run("k", list).await, Outcome::Done(ObjectReply::Parts(None)));
    let gone = failed(Fault::Vanished(What::Upload));
    assert_eq!(cloud.run("k", put_part(&upload, 1, span(0, 7))).await, gone);
    assert_eq!(cloud.run("k", Verb::Complete { upload, parts: vec![(PartNo(1), part)] }).await, gone);
}

#[tokio::test]
async fn a_completion_that_names_other_parts_than_are_there_is_refused() {
    let bench = Bench::start().await;
    let cloud = bench.cloud();
    bench.source("from", b"content").await;
    let upload = cloud.create("k", b"content").await;
    let right = cloud.put_part("k", &upload, 1, span(0, 7)).await;
    let mut wrong = right.clone();
    wrong.sha256 = Sha256::of(b"other");
    for parts in [vec![(PartNo(1), wrong)], vec![(PartNo(1), right.clone()), (PartNo(2), right)]] {
        let complete = Verb::Complete { upload: upload.clone(), parts };
        assert_eq!(cloud.run("k", complete).await, failed(Fault::Vanished(What::Part)));
    }
}

#[tokio::test]
async fn what_is_absent_has_no_facts_no_bytes_and_nothing_to_delete() {
    let bench = Bench::start().await;
    let cloud = bench.cloud();
    assert_eq!(cloud.run("k", Verb::Head).await, Outcome::Done(ObjectReply::Head(None)));
    assert_eq!(cloud.run("k", digest_of(None)).await, failed(Fault::Vanished(What::Object)));
    bench.source("from", b"x").await;
    assert!(matches!(cloud.run("k", put(b"x")).await, Outcome::Done(ObjectReply::Put(_))));
    for _ in 0..2 {
        assert_eq!(cloud.run("k", Verb::Delete).await, Outcome::Done(ObjectReply::Deleted));
    }
    assert_eq!(cloud.run("k", Verb::Head).await, Outcome::Done(ObjectReply::Head(None)));
}

#[tokio::test]
async fn a_source_that_is_not_what_was_named_is_never_sent() {
    let bench = Bench::start().await;
    let cloud = bench.cloud();
    assert_eq!(cloud.run("k", put(b"x")).await, failed(Fault::Vanished(What::Source)));
    bench.source("from", b"content").await;
    for named in [&b"longer content"[..], b"CONTENT"] {
        assert_eq!(cloud.run("k", put(named)).await, failed(Fault::Damaged(What::Source)));
    }
    let upload = cloud.create("k", b"content").await;
    let beyond = put_part(&upload, 1, span(3, 5));
    assert_eq!(cloud.run("k", beyond).await, failed(Fault::Damaged(What::Source)));
    assert_eq!(cloud.run("k", Verb::Head).await, Outcome::Done(ObjectReply::Head(None)));
}

#[tokio::test]
async fn wrong_keys_are_an_operators_matter() {
    let bench = Bench::start().await;
    bench.source("from", b"x").await;
    for cloud in [
        bench.cloud_with(|config| config.secret_key = "wrong".to_owned()),
        bench.cloud_with(|config| config.access_key = "nobody".to_owned()),
    ] {
        for verb in [Verb::Head, put(b"x"), Verb::ListUploads] {
            assert_eq!(cloud.run("k", verb).await, failed(Fault::Auth));
        }
    }
}

#[tokio::test]
async fn a_bucket_that_does_not_exist_is_no_destination() {
    let bench = Bench::start().await;
    bench.source("from", b"x").await;
    let cloud = bench.cloud_with(|config| config.bucket = "elsewhere".to_owned());
    for verb in [put(b"x"), Verb::Create { sha256: Sha256::of(b"x") }, Verb::ListUploads, Verb::Delete] {
        assert_eq!(cloud.run("k", verb).await, failed(Fault::NoDestination));
    }
}

#[tokio::test]
async fn a_store_that_is_not_there_is_offline() {
    let mut bench = Bench::start().await;
    bench.source("from", b"x").await;
    bench.stop().await;
    let cloud = bench.cloud();
    for verb in [Verb::Head, put(b"x"), Verb::Create { sha256: Sha256::of(b"x") }] {
        assert_eq!(cloud.run("k", verb).await, failed(Fault::Offline));
    }
    let nameless = bench.cloud_with(|config| config.endpoint = Some("http://store.invalid:9000".to_owned()));
    assert_eq!(nameless.run("k", Verb::Head).await, failed(Fault::Offline));
}

#[tokio::test]
async fn a_withheld_answer_is_unknown_and_asking_again_tells() {
    let bench = Bench::start().await;
    let impatient = || {
        bench.cloud_with(|config| {
            config.attempt_timeout = Duration::from_millis(1500);
            config.connect_timeout = Duration::from_millis(1400);
        })
    };
    let cloud = bench.cloud();
    bench.source("from", b"content").await;
    let upload = cloud.create("k", b"content").await;
    let part = cloud.put_part("k", &upload, 1, span(0, 7)).await;
    bench.withheld.set(Some("CompleteMultipartUpload"));
    let complete = Verb::Complete { upload, parts: vec![(PartNo(1), part)] };
    assert_eq!(impatient().run("k", complete).await, Outcome::Unknown);
    arrives(&cloud, "k", b"content").await;
    bench.withheld.set(Some("PutObject"));
    assert_eq!(impatient().run("small", put(b"content")).await, Outcome::Unknown);
    arrives(&cloud, "small", b"content").await;
}

/// Asks until the object is there; what is there must be `bytes`.
async fn arrives(cloud: &Cloud, key: &str, bytes: &[u8]) {
    let asking = async {
        loop {
            let outcome = cloud.run(key, digest_of(None)).await;
            if outcome != failed(Fault::Vanished(What::Object)) {
                return outcome;
            }
        }
    };
    let outcome = tokio::time::timeout(Duration::from_secs(20), asking).await.unwrap();
    assert_eq!(outcome, got(bytes));
}

async fn say(line: Line) -> (Bench, Cloud) {
    let bench = Bench::start().await;
    bench.source("from", b"content").await;
    let endpoint = scripted(line).await;
    let cloud = bench.cloud_with(|config| config.endpoint = Some(endpoint));
    (bench, cloud)
}

fn complete() -> Verb {
    Verb::Complete { upload: UploadId::new("u"), parts: Vec::new() }
}

#[tokio::test]
async fn a_connection_that_breaks_after_the_request_leaves_the_outcome_open() {
    let (_bench, cloud) = say(Line::Close).await;
    for verb in [put(b"content"), complete(), Verb::Delete, Verb::Head] {
        assert_eq!(cloud.run("k", verb).await, Outcome::Unknown);
    }
}

#[tokio::test]
async fn an_object_that_breaks_off_is_not_mistaken_for_a_short_one() {
    let (_bench, cloud) =
        say(Line::Say("HTTP/1.1 200 OK\r\nETag: \"t\"\r\nContent-Length: 100\r\n\r\nonly this")).await;
    assert_eq!(cloud.run("k", digest_of(None)).await, Outcome::Unknown);
    let whole = "HTTP/1.1 200 OK\r\nETag: \"t\"\r\nContent-Length: 5\r\n\r\nwhole";
    let (_bench, cloud) = say(Line::Say(whole)).await;
    assert_eq!(cloud.run("k", digest_of(None)).await, got(b"whole"));
    assert_eq!(
        cloud.run("k", digest_of(Some(span(0, 2)))).await,
        failed(Fault::Rejected("ranges are not supported".to_owned()))
    );
}

#[tokio::test]
async fn an_object_without_a_tag_is_not_the_stores_answer() {
    let bare = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nwhole";
    let (_bench, cloud) = say(Line::Say(bare)).await;
    assert_eq!(cloud.run("k", digest_of(None)).await, Outcome::Unknown);
    assert_eq!(cloud.run("k", digest_of(Some(span(0, 2)))).await, Outcome::Unknown);
    let (_bench, cloud) = say(Line::Say("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")).await;
    assert_eq!(cloud.run("k", Verb::Head).await, Outcome::Unknown);
}

#[tokio::test]
async fn a_page_of_a_gateway_is_believed_by_no_operation() {
    let upload = || UploadId::new("u");
    for status in ["200 OK", "302 Found", "403 Forbidden", "404 Not Found"] {
        let text = format!(
            "HTTP/1.1 {status}\r\nContent-Type: text/HTML\r\nETag: \"t\"\r\nContent-Length: 6\r\n\
             Connection: close\r\n\r\n<html>"
        );
        let (_bench, cloud) = say(Line::Say(Box::leak(text.into_boxed_str()))).await;
        let status = status[..3].parse().unwrap();
        let elsewhere = failed(Fault::Unavailable { status });
        // An abort that is believed leaves an orphan; a listing, a head or a delete that is believed loses something.
        for verb in [
            Verb::Abort { upload: upload() },
            Verb::ListParts { upload: upload() },
            Verb::ListUploads,
            Verb::Delete,
            digest_of(None),
            put(b"content"),
        ] {
            assert_eq!(cloud.run("k", verb.clone()).await, elsewhere, "{} {status}", verb.name());
        }
        assert_eq!(cloud.run("k", complete()).await, Outcome::Unknown);
        assert_eq!(cloud.run("k", Verb::Create { sha256: Sha256::of(b"") }).await, Outcome::Unknown);
    }
}

#[tokio::test]
async fn an_error_inside_a_completed_answer_is_not_a_completion() {
    let (_bench, cloud) = say(Line::Say(
        "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n  \n<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <Error><Code>InternalError</Code><Message>We encountered an internal error</Message></Error>",
    ))
    .await;
    assert_eq!(cloud.run("k", complete()).await, Outcome::Unknown);
    let (_bench, cloud) =
        say(Line::Say("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n<Error><Code>InvalidPart</Code></Error>"))
            .await;
    assert_eq!(cloud.run("k", complete()).await, failed(Fault::Vanished(What::Part)));
    let (_bench, cloud) = say(Line::Say("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")).await;
    assert_eq!(cloud.run("k", complete()).await, Outcome::Unknown);
}

#[tokio::test]
async fn a_busy_store_is_heard_and_so_is_how_long_it_wants_to_be_left_alone() {
    let (_bench, cloud) = say(Line::Say(
        "HTTP/1.1 503 Slow Down\r\nRetry-After: 7\r\nConnection: close\r\n\r\n<Error><Code>SlowDown</Code></Error>",
    ))
    .await;
    let throttled = |retry_after_ms| failed(Fault::Throttled { retry_after_ms });
    assert_eq!(cloud.run("k", put(b"content")).await, throttled(Some(7000)));
    let (_bench, cloud) = say(Line::Say("HTTP/1.1 429 Too Many\r\nContent-Length: 0\r\n\r\n")).await;
    assert_eq!(cloud.run("k", Verb::Head).await, throttled(None));
    let (_bench, cloud) = say(Line::Say("HTTP/1.1 502 Bad Gateway\r\nContent-Length: 3\r\n\r\nbad")).await;
    assert_eq!(cloud.run("k", put(b"content")).await, failed(Fault::Unavailable { status: 502 }));
    assert_eq!(cloud.run("k", complete()).await, Outcome::Unknown);
}

#[tokio::test]
async fn a_wordless_refusal_with_another_time_is_about_the_clock() {
    let text = "HTTP/1.1 403 Forbidden\r\nDate: Tue, 15 Nov 1994 08:12:31 GMT\r\nContent-Length: 0\r\n\r\n";
    let (_bench, cloud) = say(Line::Say(text)).await;
    assert_eq!(cloud.run("k", Verb::Head).await, failed(Fault::ClockSkew));
    let (_bench, cloud) = say(Line::Say("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")).await;
    assert_eq!(cloud.run("k", Verb::Head).await, failed(Fault::Auth));
}

#[tokio::test]
async fn a_store_that_keeps_silent_is_given_up_even_with_a_body_that_may_take_long() {
    let bench = Bench::start().await;
    let bytes = pattern(8 * MIB);
    bench.source("from", &bytes).await;
    let endpoint = scripted(Line::Hang).await;
    let cloud = bench.cloud_with(|config| {
        config.endpoint = Some(endpoint);
        config.attempt_timeout = Duration::from_millis(1500);
        config.connect_timeout = Duration::from_millis(1400);
    });
    // By its length alone this part may take eight minutes.
    let part = put_part(&UploadId::new("u"), 1, span(0, 8 * MIB));
    assert_eq!(cloud.run("k", part).await, Outcome::Unknown);
    assert_eq!(bench.timeouts.count(Op::StoreSilence), 1);
}

/// A network that never answers.
#[derive(Clone)]
struct DarkNet(RealNet);

impl Net for DarkNet {
    type Stream = <RealNet as Net>::Stream;
    type Listener = <RealNet as Net>::Listener;

    async fn bind(&self, addr: std::net::SocketAddr) -> std::io::Result<Self::Listener> {
        self.0.bind(addr).await
    }

    async fn connect(&self, _: &str, _: u16) -> std::io::Result<Self::Stream> {
        std::future::pending().await
    }
}

#[derive(Clone)]
struct DarkSeams {
    real: RealSeams,
    net: DarkNet,
}

impl Seams for DarkSeams {
    type Net = DarkNet;
    type Disk = RealDisk;
    type Clock = RealClock;
    type Blocking = RealBlocking;

    fn net(&self) -> &DarkNet {
        &self.net
    }
    fn disk(&self) -> &RealDisk {
        self.real.disk()
    }
    fn clock(&self) -> &RealClock {
        self.real.clock()
    }
    fn blocking(&self) -> &RealBlocking {
        self.real.blocking()
    }
}

#[tokio::test]
async fn a_network_that_never_answers_is_offline_after_the_connect_timeout() {
    let bench = Bench::start().await;
    let real = RealSeams::new();
    let seams = DarkSeams { net: DarkNet(*real.net()), real };
    let source = Arc::new(EdgeStore::new(bench.spool.clone(), EDGE));
    let mut config = config("http://192.0.2.1:9000".to_owned());
    config.connect_timeout = Duration::from_millis(50);
    let timeouts = Timeouts::default();
    let cloud = Cloud(Box::new(CloudStore::new(seams, &config, source, timeouts.clone()).unwrap()));
    assert_eq!(cloud.run("k", Verb::Head).await, failed(Fault::Offline));
    assert_eq!(timeouts.count(Op::StoreConnect), 1);
}

#[tokio::test]
async fn a_store_that_never_ends_its_answer_is_given_up_although_it_is_not_silent() {
    let bench = Bench::start().await;
    bench.source("from", b"content").await;
    let endpoint = scripted(Line::Dribble).await;
    let cloud = bench.cloud_with(|config| {
        config.endpoint = Some(endpoint);
        config.attempt_timeout = Duration::from_millis(1500);
        config.connect_timeout = Duration::from_millis(1400);
    });
    assert_eq!(cloud.run("k", put(b"content")).await, Outcome::Unknown);
    assert_eq!(bench.timeouts.count(Op::StoreAttempt), 1);
    assert_eq!(bench.timeouts.count(Op::StoreSilence), 0);
}
