//! The edge store over a real spool on a real disk.

use tempfile::TempDir;
use tidegate_core::object::PartFacts;

use super::*;
use crate::ingest::Described;
use crate::real::RealSeams;

const BUCKET: &str = "edge-test";

struct Bench {
    edge: EdgeStore<RealSeams>,
    spool: Spool<RealSeams>,
    folder: TempDir,
}

async fn bench() -> Bench {
    let folder = tempfile::tempdir().unwrap();
    let (spool, _) = Spool::open(RealSeams::new(), folder.path().join("s3")).await.unwrap();
    spool.create_bucket(BUCKET).await.unwrap();
    Bench { edge: EdgeStore::new(spool.clone(), BUCKET), spool, folder }
}

impl Bench {
    async fn store(&self, key: &str, bytes: &[u8], announced: Option<&str>) {
        let mut described = Described::default();
        if let Some(text) = announced {
            described.metadata.insert(CHECKSUM_METADATA.to_owned(), text.to_owned());
        }
        self.spool.put_bytes(BUCKET, key, described, Bytes::copy_from_slice(bytes)).await.unwrap();
    }

    async fn run(&self, key: &str, verb: Verb) -> Outcome<ObjectReply> {
        self.edge.run(&named(key), &verb).await
    }
}

fn named(text: &str) -> ObjectKey {
    ObjectKey::new(text).unwrap()
}

fn digest_of(span: Option<Span>) -> Verb {
    Verb::Get { span, want: Want::Digest }
}

fn got(bytes: &[u8]) -> Outcome<ObjectReply> {
    let (len, sha256) = (bytes.len() as u64, Sha256::of(bytes));
    Outcome::Done(ObjectReply::Got(Got::Digest { len, sha256 }))
}

#[tokio::test]
async fn a_stored_object_has_facts_and_a_missing_one_has_none() {
    let bench = bench().await;
    let claim = "cd".repeat(32);
    bench.store("d/t.mcap", b"recording", Some(&claim)).await;
    let Outcome::Done(ObjectReply::Head(Some(facts))) = bench.run("d/t.mcap", Verb::Head).await else {
        panic!("the object is there")
    };
    assert_eq!((facts.len, facts.sha256), (9, Some(Sha256::of(b"recording"))));
    assert_eq!((facts.composite, facts.announced), (None, Some(Sha256([0xcd; 32]))));
    assert_eq!(bench.run("d/other", Verb::Head).await, Outcome::Done(ObjectReply::Head(None)));
}

#[tokio::test]
async fn a_digest_covers_the_span_that_was_asked_for() {
    let bench = bench().await;
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    bench.store("big", &bytes, None).await;
    assert_eq!(bench.run("big", digest_of(None)).await, got(&bytes));
    let span = Span { offset: 1_048_570, len: 1_500_000 };
    assert_eq!(bench.run("big", digest_of(Some(span))).await, got(&bytes[1_048_570..2_548_570]));
    let beyond = Span { offset: 2_999_990, len: 100 };
    assert_eq!(bench.run("big", digest_of(Some(beyond))).await, got(&bytes[2_999_990..]));
    let outside = Span { offset: 3_000_001, len: 1 };
    assert_eq!(
        bench.run("big", digest_of(Some(outside))).await,
        Outcome::Failed(Fault::Damaged(What::Object))
    );
    assert_eq!(bench.run("none", digest_of(None)).await, Outcome::Failed(Fault::Vanished(What::Object)));
}

#[tokio::test]
async fn a_digest_is_computed_from_the_bytes_on_disk_and_not_remembered() {
    let bench = bench().await;
    bench.store("t.mcap", b"the bytes that arrived", None).await;
    let blobs = bench.folder.path().join("s3/blobs");
    let blob = std::fs::read_dir(blobs).unwrap().next().unwrap().unwrap().path();
    std::fs::write(&blob, b"THE BYTES THAT ARRIVED").unwrap();
    assert_eq!(bench.run("t.mcap", digest_of(None)).await, got(b"THE BYTES THAT ARRIVED"));
    std::fs::write(&blob, b"THE BYTES").unwrap();
    assert_eq!(bench.run("t.mcap", digest_of(None)).await, Outcome::Failed(Fault::Damaged(What::Object)));
}

#[tokio::test]
async fn a_sidecar_is_read_into_facts() {
    let bench = bench().await;
    let text = br#"{"recording":{"message_count":3,"file_size_bytes":9}}"#;
    bench.store("t.json", text, None).await;
    let Outcome::Done(ObjectReply::Got(Got::Sidecar { len, sha256, facts: Some(facts) })) =
        bench.run("t.json", Verb::Get { span: None, want: Want::Sidecar }).await
    else {
        panic!("a sidecar")
    };
    assert_eq!((len, sha256), (text.len() as u64, Sha256::of(text)));
    assert_eq!((facts.messages, facts.len), (Some(3), Some(9)));
}

#[tokio::test]
async fn a_copy_is_made_only_of_the_bytes_that_were_named() {
    let bench = bench().await;
    bench.store("from", b"content", None).await;
    let put = |len, sha256| Verb::Put { source: named("from"), len, sha256 };
    let right = put(7, Sha256::of(b"content"));
    assert!(matches!(bench.run("to", right.clone()).await, Outcome::Done(ObjectReply::Put(_))));
    let Outcome::Done(ObjectReply::Head(Some(facts))) = bench.run("to", Verb::Head).await else {
        panic!("the copy is there")
    };
    assert_eq!(facts.announced, Some(Sha256::of(b"content")));
    for wrong in [put(8, Sha256::of(b"content")), put(7, Sha256::of(b"other"))] {
        assert_eq!(bench.run("bad", wrong).await, Outcome::Failed(Fault::Damaged(What::Source)));
    }
    assert_eq!(bench.run("bad", Verb::Head).await, Outcome::Done(ObjectReply::Head(None)));
    bench.spool.delete(BUCKET, "from").await.unwrap();
    assert_eq!(bench.run("to", right).await, Outcome::Failed(Fault::Vanished(What::Source)));
}

#[tokio::test]
async fn uploads_of_a_key_are_listed_oldest_first_and_aborting_twice_is_fine() {
    let bench = bench().await;
    let mut opened = Vec::new();
    for key in ["k", "k", "k2"] {
        let info = bench.spool.create_upload(BUCKET, key, Described::default(), None, None).await.unwrap();
        opened.push((info.initiated, UploadId::new(info.id)));
    }
    let foreign = opened.pop().unwrap().1;
    opened.sort();
    let expected: Vec<_> = opened.iter().map(|(_, id)| id.clone()).collect();
    assert_eq!(
        bench.run("k", Verb::ListUploads).await,
        Outcome::Done(ObjectReply::Uploads(expected.clone()))
    );
    let parts = |upload: &UploadId| Verb::ListParts { upload: upload.clone() };
    assert_eq!(bench.run("k", parts(&expected[0])).await, Outcome::Done(ObjectReply::Parts(Some(vec![]))));
    assert_eq!(bench.run("k", parts(&foreign)).await, Outcome::Done(ObjectReply::Parts(None)));
    for _ in 0..2 {
        let abort = Verb::Abort { upload: expected[0].clone() };
        assert_eq!(bench.run("k", abort).await, Outcome::Done(ObjectReply::Aborted));
    }
    assert_eq!(
        bench.run("k", Verb::ListUploads).await,
        Outcome::Done(ObjectReply::Uploads(expected[1..].to_vec()))
    );
}

#[tokio::test]
async fn the_core_does_not_make_multipart_objects_at_the_edge() {
    let bench = bench().await;
    let upload = UploadId::new("u");
    let facts = PartFacts { etag: ETag::new("e"), sha256: Sha256::of(b""), len: 0 };
    let span = Span { offset: 0, len: 1 };
    for verb in [
        Verb::Create { sha256: Sha256::of(b"") },
        Verb::PutPart { upload: upload.clone(), part: PartNo(1), source: named("s"), span },
        Verb::Complete { upload, parts: vec![(PartNo(1), facts)] },
    ] {
        assert_eq!(bench.run("k", verb).await, Outcome::Failed(Fault::Rejected("edge".to_owned())));
    }
}

#[tokio::test]
async fn deleting_twice_is_fine_and_a_missing_bucket_is_named() {
    let bench = bench().await;
    bench.store("k", b"x", None).await;
    for _ in 0..2 {
        assert_eq!(bench.run("k", Verb::Delete).await, Outcome::Done(ObjectReply::Deleted));
    }
    let elsewhere = EdgeStore::new(bench.spool.clone(), "edge-none");
    assert_eq!(elsewhere.run(&named("k"), &Verb::Delete).await, Outcome::Failed(Fault::NoDestination));
}

#[tokio::test]
async fn deleting_ends_the_unfinished_uploads_of_that_key_and_of_no_other() {
    let bench = bench().await;
    bench.store("d/t.mcap", b"recording", None).await;
    for key in ["d/t.mcap", "d/t.mcap", "d/other.mcap"] {
        bench.spool.create_upload(BUCKET, key, Described::default(), None, None).await.unwrap();
    }
    assert_eq!(bench.run("d/t.mcap", Verb::Delete).await, Outcome::Done(ObjectReply::Deleted));
    let left: Vec<String> = bench.spool.list_uploads(BUCKET).into_iter().map(|open| open.key).collect();
    assert_eq!(left, ["d/other.mcap"]);
}

#[tokio::test]
async fn a_source_is_read_exactly_or_not_at_all() {
    let bench = bench().await;
    bench.store("k", b"0123456789", None).await;
    let (edge, key) = (&bench.edge, named("k"));
    assert_eq!(edge.len(&key).await.unwrap(), 10);
    assert_eq!(edge.read(&key, Span { offset: 3, len: 4 }).await.unwrap(), "3456");
    for span in
        [Span { offset: 8, len: 3 }, Span { offset: u64::MAX, len: 2 }, Span { offset: 0, len: 1 << 60 }]
    {
        assert_eq!(edge.read(&key, span).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
    assert_eq!(edge.len(&named("none")).await.unwrap_err().kind(), io::ErrorKind::NotFound);
}

#[tokio::test]
async fn recordings_are_found_by_their_names() {
    let bench = bench().await;
    let find = |device: &str, wire: &str| Verb::Find {
        device: DeviceId::new(device).unwrap(),
        wire: WireId::new(wire).unwrap(),
    };
    let found = |keys: &[&str]| {
        Outcome::Done(ObjectReply::Found(keys.iter().map(|key| ObjectKey::new(key).unwrap()).collect()))
    };
    assert_eq!(bench.run("d/t.mcap", find("d", "t")).await, found(&[]));
    for key in ["f/d/2026-11-21/t.mcap", "f/d/2026-11-21/t.json", "f/d/2026-11-22/t.2.mcap", "f/e/x/t.mcap"] {
        bench.store(key, b"bytes", None).await;
    }
    assert_eq!(bench.run("d/t.mcap", find("d", "t")).await, found(&["f/d/2026-11-21/t.mcap"]));
    assert_eq!(bench.run("d/t.2.mcap", find("d", "t.2")).await, found(&["f/d/2026-11-22/t.2.mcap"]));
    for n in 0..FOUND_MAX {
        bench.store(&format!("g/d/{n}/t.mcap"), b"bytes", None).await;
    }
    match bench.run("d/t.mcap", find("d", "t")).await {
        Outcome::Done(ObjectReply::Found(keys)) => assert_eq!(keys.len(), FOUND_MAX),
        other => panic!("{other:?}"),
    }
}
