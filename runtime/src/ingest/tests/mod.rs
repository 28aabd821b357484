//! Owns the tests of the object store: the store itself here, crashes in `crash.rs`, the protocol in `http.rs`.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed, which is what it is for")]

mod abandoned;
mod crash;
pub(crate) mod http;
mod versions;

use std::path::Path;

use bytes::Bytes;
use futures_util::stream;
use proptest::prelude::*;
use s3s::dto::StreamingBlob;
use sha2::{Digest, Sha256};

use super::listing::{Query, page};
use super::*;
use crate::real::RealSeams;
use crate::seam::Seams;

const MIB: usize = 1024 * 1024;

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

async fn open(root: &Path) -> (Spool<RealSeams>, Opened) {
    Spool::open(RealSeams::new(), root.to_path_buf()).await.unwrap()
}

async fn with_bucket(root: &Path) -> Spool<RealSeams> {
    let (spool, _) = open(root).await;
    spool.create_bucket("bkt").await.unwrap();
    spool
}

/// Bytes that differ from place to place and from seed to seed.
fn content(seed: u8, len: usize) -> Bytes {
    let mut state = u32::from(seed).wrapping_mul(2_654_435_761).wrapping_add(1);
    (0..len)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .collect()
}

fn sha(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

fn blob(bytes: Bytes) -> Option<StreamingBlob> {
    Some(StreamingBlob::from(s3s::Body::from(bytes)))
}

async fn put<S: Seams>(spool: &Spool<S>, key: &str, bytes: &Bytes) -> Result<ObjectInfo, Refusal> {
    spool.put_bytes("bkt", key, Described::default(), bytes.clone()).await
}

async fn part<S: Seams>(
    spool: &Spool<S>,
    upload: &UploadInfo,
    number: i64,
    bytes: &Bytes,
) -> Result<String, Refusal> {
    let at = (upload.bucket.as_str(), upload.key.as_str(), upload.id.as_str());
    let segment = spool.put_part(at, number, blob(bytes.clone()), Announced::default()).await?;
    Ok(sums::hex(&segment.md5))
}

fn named(parts: &[(i64, &str)]) -> Completion {
    let parts = parts.iter().map(|(number, etag)| NamedPart {
        number: *number,
        etag: Some((*etag).to_owned()),
        ..NamedPart::default()
    });
    Completion { parts: parts.collect(), ..Completion::default() }
}

fn files(root: &Path, folder: &str) -> usize {
    std::fs::read_dir(root.join(folder)).unwrap().count()
}

#[test]
fn a_restart_keeps_objects_uploads_parts_and_metadata() {
    let dir = tempfile::tempdir().unwrap();
    let (small, first, last) = (content(1, 1000), content(2, 5 * MIB), content(3, 77));
    let (stored, upload) = block_on(async {
        let spool = with_bucket(dir.path()).await;
        let mut described =
            Described { content_type: Some("application/x-mcap".to_owned()), ..Described::default() };
        described.metadata.insert("checksum-sha256".to_owned(), "Grüße, exactly".to_owned());
        let stored = spool.put_bytes("bkt", "a/b.mcap", described, small.clone()).await.unwrap();
        let upload = spool
            .create_upload("bkt", "big", Described::default(), Some(Algorithm::Sha256), None)
            .await
            .unwrap();
        part(&spool, &upload, 2, &last).await.unwrap();
        part(&spool, &upload, 1, &first).await.unwrap();
        assert_eq!(spool.bytes_stored(), (1000 + 5 * MIB + 77) as u64);
        (stored, upload)
    });
    assert_eq!(stored.sha256, sha(&small));
    assert_eq!(
        stored.etag,
        sums::hex(&{
            use md5::Digest;
            <[u8; 16]>::from(md5::Md5::digest(&small))
        })
    );
    block_on(async {
        let (spool, opened) = open(dir.path()).await;
        assert_eq!(opened, Opened { objects: 1, uploads: 1, swept: 0, damaged: Vec::new() });
        assert_eq!(spool.head("bkt", "a/b.mcap").await, Some(stored.clone()));
        assert_eq!(spool.read_span("bkt", "a/b.mcap", 10, 5).await.unwrap(), small.slice(10..15));
        assert_eq!(spool.bytes_stored(), (1000 + 5 * MIB + 77) as u64);
        let listed = spool.list_uploads("bkt");
        assert_eq!(listed.len(), 1);
        assert_eq!(listed[0].id, upload.id);
        let asked: Vec<(i64, &str)> =
            listed[0].parts.iter().map(|p| (i64::from(p.number), p.etag.as_str())).collect();
        let object = spool.complete_upload("bkt", "big", &upload.id, named(&asked)).await.unwrap();
        let whole: Vec<u8> = [first.as_ref(), last.as_ref()].concat();
        let info = object.info("bkt");
        assert_eq!(info.sha256, sha(&whole));
        assert_eq!(spool.digest("bkt", "big").await.unwrap(), (sha(&whole), whole.len() as u64));
        assert!(info.etag.ends_with("-2"));
        let both: Vec<u8> = [sha(&first), sha(&last)].concat();
        assert_eq!(info.composite_sha256, Some(format!("{}-2", sums::base64(&sha(&both)))));
        assert_eq!(info.parts.iter().map(|p| p.sha256).collect::<Vec<_>>(), [sha(&first), sha(&last)]);
        assert!(spool.list_uploads("bkt").is_empty());
    });
    let (_, opened) = block_on(open(dir.path()));
    assert_eq!(opened, Opened { objects: 2, uploads: 0, swept: 0, damaged: Vec::new() });
}

#[test]
fn only_one_process_opens_a_store() {
    let dir = tempfile::tempdir().unwrap();
    block_on(async {
        let (first, _) = open(dir.path()).await;
        let second = Spool::open(RealSeams::new(), dir.path().to_path_buf()).await;
        assert!(matches!(second, Err(OpenError::InUse(_))));
        drop(first);
        open(dir.path()).await;
    });
}

#[test]
fn announced_digests_are_checked_and_a_mismatch_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    block_on(async {
        let spool = with_bucket(dir.path()).await;
        let bytes = content(4, 300);
        for algorithm in Algorithm::ALL {
            let mut pass = sums::Pass::new(&[algorithm]);
            pass.update(&bytes);
            let right = pass.finish().sums;
            let mut wrong = right.clone();
            wrong.get_mut(&algorithm).unwrap()[0] ^= 1;
            let announce = |sums| Announced { sums, ..Announced::default() };
            let refused = spool
                .put("bkt", "k", Described::default(), blob(bytes.clone()), announce(wrong), Condition::Any)
                .await;
            assert!(matches!(refused, Err(Refusal::BadDigest(name)) if name == algorithm.header()));
            assert_eq!((spool.bytes_stored(), files(dir.path(), "blobs")), (0, 0), "nothing of it is left");
            assert_eq!(spool.head("bkt", "k").await, None);
            spool
                .put("bkt", "k", Described::default(), blob(bytes.clone()), announce(right), Condition::Any)
                .await
                .unwrap();
            spool.delete("bkt", "k").await.unwrap();
            assert_eq!(files(dir.path(), "blobs"), 0);
        }
        let md5 = Announced { md5: Some([7; 16]), ..Announced::default() };
        let refused =
            spool.put("bkt", "k", Described::default(), blob(bytes.clone()), md5, Condition::Any).await;
        assert!(matches!(refused, Err(Refusal::BadDigest("content-md5"))));
        for len in [299, 301] {
            let len = Announced { len: Some(len), ..Announced::default() };
            let refused =
                spool.put("bkt", "k", Described::default(), blob(bytes.clone()), len, Condition::Any).await;
            assert!(matches!(refused, Err(Refusal::IncompleteBody(_))));
        }
        let broken = stream::iter([Ok(content(1, 10)), Err(std::io::Error::other("cut"))]);
        let broken = Some(StreamingBlob::wrap(broken));
        let refused =
            spool.put("bkt", "k", Described::default(), broken, Announced::default(), Condition::Any).await;
        assert!(matches!(refused, Err(Refusal::IncompleteBody(_))));
        assert_eq!(spool.head("bkt", "k").await, None);
        assert!(matches!(sums::Algorithm::Crc32.decode("AAAAAAA="), Err(Refusal::InvalidDigest(_))));
    });
}

#[test]
fn a_body_that_pauses_is_given_up() {
    let dir = tempfile::tempdir().unwrap();
    block_on(async {
        let spool = with_bucket(dir.path()).await;
        let silent = StreamingBlob::wrap(stream::pending::<Result<Bytes, std::io::Error>>());
        let impatient = Announced { idle: Duration::from_millis(1), ..Announced::default() };
        let refused =
            spool.put("bkt", "k", Described::default(), Some(silent), impatient, Condition::Any).await;
        assert!(matches!(refused, Err(Refusal::Timeout)));
        assert_eq!(spool.bytes_stored(), 0);
    });
}

#[test]
fn keys_with_tricks_are_separate_objects_inside_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let long = "ä".repeat(512);
    let keys = [
        "../../../etc/passwd",
        "..",
        ".",
        "a//b",
        "a/./b",
        "/",
        "a\u{1}b",
        "%2e%2e",
        "A",
        "a",
        ".bucket",
        &long,
    ];
    block_on(async {
        let spool = with_bucket(&dir.path().join("store")).await;
        for (at, key) in keys.iter().enumerate() {
            put(&spool, key, &content(at as u8, 10)).await.unwrap();
        }
    });
    let outside: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(outside, ["store"]);
    block_on(async {
        let (spool, opened) = open(&dir.path().join("store")).await;
        assert_eq!(opened.objects, keys.len());
        for (at, key) in keys.iter().enumerate() {
            assert_eq!(spool.read_span("bkt", key, 0, 100).await.unwrap(), content(at as u8, 10));
        }
        let mut sorted = keys.to_vec();
        sorted.sort_unstable();
        assert_eq!(spool.list_all("bkt").iter().map(|o| o.key.as_str()).collect::<Vec<_>>(), sorted);
        assert!(matches!(put(&spool, "", &Bytes::new()).await, Err(Refusal::InvalidArgument(_))));
        assert!(matches!(
            put(&spool, &"x".repeat(1025), &Bytes::new()).await,
            Err(Refusal::InvalidArgument(_))
        ));
        for bucket in ["..", "a", "A-b-c", "a/b", ""] {
            assert!(
                matches!(spool.create_bucket(bucket).await, Err(Refusal::InvalidArgument(_))),
                "{bucket}"
            );
        }
    });
}

#[test]
fn a_reader_keeps_its_bytes_when_the_object_is_replaced_or_deleted() {
    let dir = tempfile::tempdir().unwrap();
    block_on(async {
        let spool = with_bucket(dir.path()).await;
        let (old, new) = (content(1, 5000), content(2, 100));
        put(&spool, "k", &old).await.unwrap();
        let held = spool.object("bkt", "k").unwrap();
        put(&spool, "k", &new).await.unwrap();
        spool.delete("bkt", "k").await.unwrap();
        assert_eq!(spool.read_object(held.clone(), 1000, 4000).await.unwrap(), old.slice(1000..));
        assert_eq!(files(dir.path(), "blobs"), 1);
        drop(held);
        assert_eq!(spool.bytes_stored(), 0);
        spool.delete("bkt", "k").await.unwrap();
        assert_eq!(files(dir.path(), "blobs"), 0);
    });
}

#[test]
fn a_copy_shares_bytes_and_survives_its_source() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = content(9, 4000);
    block_on(async {
        let spool = with_bucket(dir.path()).await;
        put(&spool, "k", &bytes).await.unwrap();
        let source = spool.object("bkt", "k").unwrap();
        let mut described = Described::default();
        described.metadata.insert("mtime".to_owned(), "1.5".to_owned());
        spool.copy(source.clone(), "bkt", "k", Some(described.clone()), Condition::Any).await.unwrap();
        spool.copy(source, "bkt", "l", None, Condition::Any).await.unwrap();
        assert_eq!(spool.bytes_stored(), 4000);
        assert_eq!(spool.head("bkt", "k").await.unwrap().described, described);
        spool.delete("bkt", "k").await.unwrap();
    });
    block_on(async {
        let (spool, opened) = open(dir.path()).await;
        assert_eq!((opened.objects, opened.swept), (1, 0));
        assert_eq!(spool.digest("bkt", "l").await.unwrap(), (sha(&bytes), 4000));
    });
}

#[test]
fn parts_come_in_any_order_at_once_and_again() {
    let dir = tempfile::tempdir().unwrap();
    block_on(async {
        let spool = with_bucket(dir.path()).await;
        let upload = spool
            .create_upload("bkt", "k", Described::default(), Some(Algorithm::Crc64Nvme), None)
            .await
            .unwrap();
        assert_eq!(upload.coverage, Coverage::FullObject);
        let parts: Vec<Bytes> = (1..=4).map(|n| content(n, 5 * MIB + usize::from(n))).collect();
        let other = content(50, 5 * MIB);
        // Part 1 is stored, and hashed ahead, before it is replaced.
        part(&spool, &upload, 1, &other).await.unwrap();
        part(&spool, &upload, 2, &parts[1]).await.unwrap();
        let (four, three, one) = tokio::join!(
            part(&spool, &upload, 4, &parts[3]),
            part(&spool, &upload, 3, &parts[2]),
            part(&spool, &upload, 1, &parts[0]),
        );
        let two = spool.list_uploads("bkt")[0].parts[1].etag.clone();
        let (one, three, four) = (one.unwrap(), three.unwrap(), four.unwrap());
        let all = [(1, one.as_str()), (2, &two), (3, &three), (4, &four)];
        let refuse = async |asked: &[(i64, &str)]| {
            spool.complete_upload("bkt", "k", &upload.id, named(asked)).await.unwrap_err()
        };
        assert!(matches!(refuse(&[]).await, Refusal::InvalidRequest(_)));
        assert!(matches!(refuse(&[all[1], all[0]]).await, Refusal::InvalidPartOrder));
        assert!(matches!(refuse(&[all[0], all[0]]).await, Refusal::InvalidPartOrder));
        assert!(matches!(refuse(&[(1, &two)]).await, Refusal::InvalidPart(1)));
        assert!(matches!(refuse(&[all[0], (9, "x")]).await, Refusal::InvalidPart(9)));
        let mut wrong = named(&all);
        wrong.sums.insert(Algorithm::Crc64Nvme, vec![0; 8]);
        let refused = spool.complete_upload("bkt", "k", &upload.id, wrong).await;
        assert!(matches!(refused, Err(Refusal::BadDigest(_))));
        let wrong = Completion { len: Some(1), ..named(&all) };
        let refused = spool.complete_upload("bkt", "k", &upload.id, wrong).await;
        assert!(matches!(refused, Err(Refusal::InvalidRequest(_))));
        assert_eq!(spool.head("bkt", "k").await, None);

        let whole: Vec<u8> = parts.concat();
        let mut right = named(&all);
        let mut pass = sums::Pass::new(&[Algorithm::Crc64Nvme]);
        pass.update(&whole);
        right.sums = pass.finish().sums;
        let object = spool.complete_upload("bkt", "k", &upload.id, right.clone()).await.unwrap();
        assert_eq!(object.info("bkt").sha256, sha(&whole));
        assert_eq!(spool.digest("bkt", "k").await.unwrap(), (sha(&whole), whole.len() as u64));
        let across = spool.read_span("bkt", "k", (5 * MIB - 10) as u64, 5 * MIB + 20).await.unwrap();
        assert_eq!(across, whole[5 * MIB - 10..10 * MIB + 10]);
        assert_eq!(spool.bytes_stored(), whole.len() as u64);
        assert_eq!((files(dir.path(), "uploads"), files(dir.path(), "blobs")), (0, 4));

        let again = spool.complete_upload("bkt", "k", &upload.id, right.clone()).await.unwrap();
        assert_eq!(again.info("bkt"), object.info("bkt"));
        let late = part(&spool, &upload, 1, &other).await;
        assert!(matches!(late, Err(Refusal::NoSuchUpload)));
        assert!(matches!(spool.abort_upload("bkt", "k", &upload.id).await, Err(Refusal::NoSuchUpload)));
        put(&spool, "k", &other).await.unwrap();
        let gone = spool.complete_upload("bkt", "k", &upload.id, right).await;
        assert!(matches!(gone, Err(Refusal::NoSuchUpload)));
    });
}

#[test]
fn a_small_part_is_refused_unless_it_is_the_last() {
    let dir = tempfile::tempdir().unwrap();
    block_on(async {
        let spool = with_bucket(dir.path()).await;
        let upload = spool.create_upload("bkt", "k", Described::default(), None, None).await.unwrap();
        let one = part(&spool, &upload, 1, &content(1, 5 * MIB - 1)).await.unwrap();
        let two = part(&spool, &upload, 2, &content(2, 1)).await.unwrap();
        let refused = spool.complete_upload("bkt", "k", &upload.id, named(&[(1, &one), (2, &two)])).await;
        assert!(matches!(refused, Err(Refusal::EntityTooSmall(1))));
        for number in [0, 10_001, -1] {
            let refused = part(&spool, &upload, number, &Bytes::new()).await;
            assert!(matches!(refused, Err(Refusal::InvalidArgument(_))));
        }
        assert!(matches!(spool.delete_bucket("bkt").await, Err(Refusal::BucketNotEmpty)));
        spool.complete_upload("bkt", "k", &upload.id, named(&[(2, &two)])).await.unwrap();
        assert_eq!(spool.head("bkt", "k").await.unwrap().len, 1);
    });
}

#[test]
fn an_abort_removes_everything_and_buckets_go_only_when_empty() {
    let dir = tempfile::tempdir().unwrap();
    block_on(async {
        let spool = with_bucket(dir.path()).await;
        let upload = spool.create_upload("bkt", "k", Described::default(), None, None).await.unwrap();
        part(&spool, &upload, 1, &content(1, 100)).await.unwrap();
        spool.abort_upload("bkt", "k", &upload.id).await.unwrap();
        assert!(matches!(spool.abort_upload("bkt", "k", &upload.id).await, Err(Refusal::NoSuchUpload)));
        assert_eq!((spool.bytes_stored(), files(dir.path(), "uploads")), (0, 0));
        put(&spool, "k", &content(1, 1)).await.unwrap();
        assert!(matches!(spool.delete_bucket("bkt").await, Err(Refusal::BucketNotEmpty)));
        spool.delete("bkt", "k").await.unwrap();
        spool.delete_bucket("bkt").await.unwrap();
        assert!(matches!(spool.delete_bucket("bkt").await, Err(Refusal::NoSuchBucket)));
        assert!(matches!(put(&spool, "k", &content(1, 1)).await, Err(Refusal::NoSuchBucket)));
        assert_eq!(files(dir.path(), "blobs"), 0);
        spool.create_bucket("bkt").await.unwrap();
        spool.create_bucket("bkt").await.unwrap();
        assert_eq!(spool.buckets().len(), 1);
    });
}

#[test]
fn conditions_are_checked_at_the_commit() {
    let dir = tempfile::tempdir().unwrap();
    block_on(async {
        let spool = with_bucket(dir.path()).await;
        let try_put = async |bytes: Bytes, condition| {
            spool.put("bkt", "k", Described::default(), blob(bytes), Announced::default(), condition).await
        };
        let present = |etag: &str| Condition::Present(Some(etag.to_owned()));
        assert!(matches!(try_put(content(1, 5), present("x")).await, Err(Refusal::NoSuchKey)));
        let first = try_put(content(1, 5), Condition::Absent).await.unwrap().info("bkt");
        assert!(matches!(try_put(content(2, 5), Condition::Absent).await, Err(Refusal::PreconditionFailed)));
        assert!(matches!(try_put(content(2, 5), present("x")).await, Err(Refusal::PreconditionFailed)));
        try_put(content(2, 5), present(&first.etag)).await.unwrap();
        assert!(matches!(
            spool.delete_if("bkt", "k", present(&first.etag)).await,
            Err(Refusal::PreconditionFailed)
        ));
        assert_eq!(spool.head("bkt", "k").await.unwrap().sha256, sha(&content(2, 5)));
    });
}

#[test]
fn secrets_are_not_printed() {
    let key = AccessKey { id: "visible".to_owned(), secret: "hunter2".to_owned() };
    let config = EndpointConfig { keys: vec![key], ..EndpointConfig::default() };
    let text = format!("{config:?}");
    assert!(text.contains("visible") && !text.contains("hunter2"), "{text}");
}

proptest! {
    #[test]
    fn pages_put_together_are_what_one_look_at_all_keys_gives(
        keys in proptest::collection::btree_set("[ab/]{1,5}", 0..30),
        prefix in "[ab/]{0,2}",
        delimiter in prop_oneof![Just(""), Just("/"), Just("ab")],
        max in 1_usize..5,
    ) {
        let mut expected = Vec::new();
        for key in keys.iter().filter(|key| key.starts_with(&prefix)) {
            let rest = &key[prefix.len()..];
            let name = match rest.find(delimiter) {
                Some(at) if !delimiter.is_empty() => key[..prefix.len() + at + delimiter.len()].to_owned() + "*",
                _ => key.clone(),
            };
            if expected.last() != Some(&name) {
                expected.push(name);
            }
        }
        let mut got = Vec::new();
        let mut after = String::new();
        loop {
            let query = Query { prefix: &prefix, delimiter, after: &after, max };
            let page = page(&query, keys.range(after.clone()..).map(|key| (key.as_str(), key.clone())));
            prop_assert!(page.entries.len() + page.prefixes.len() <= max);
            let mut names: Vec<String> = page.entries;
            names.extend(page.prefixes.iter().map(|prefix| prefix.clone() + "*"));
            names.sort_by(|a, b| a.trim_end_matches('*').cmp(b.trim_end_matches('*')));
            got.extend(names);
            match page.next {
                Some(next) => after = next,
                None => break,
            }
        }
        // A key and a common prefix can have the same text, as "a/" and "a/*" do.
        expected.sort_unstable();
        got.sort_unstable();
        prop_assert_eq!(got, expected);
    }
}
