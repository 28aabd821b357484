//! What the stores of the suite do differently, as docs/stores.md tells it: one test per line of its table. A test says
//! what each store does today, so that a change of a store is noticed; none says what is right.

use std::sync::{Arc, Weak};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use sha2::{Digest as _, Sha256};
use tidegate_device::{Answer, S3, xml};
use tidegate_runtime::real::RealSeams;
use tokio::sync::Mutex;

use crate::peers::{Kind, Store};
use crate::rig::{noise, run};

type Client = S3<RealSeams>;

/// Stores that run now, for the tests that run now: SeaweedFS takes seconds to start.
static RUNNING: [Mutex<Weak<Store>>; 2] = [Mutex::const_new(Weak::new()), Mutex::const_new(Weak::new())];

async fn shared(kind: Kind) -> Option<Arc<Store>> {
    let slot = match kind {
        Kind::Embedded | Kind::SeaweedFsAsShipped => return Store::start(kind).await.map(Arc::new),
        Kind::SeaweedFs => &RUNNING[0],
        Kind::Moto => &RUNNING[1],
    };
    let mut slot = slot.lock().await;
    if let Some(store) = slot.upgrade() {
        return Some(store);
    }
    let store = Arc::new(Store::start(kind).await?);
    *slot = Arc::downgrade(&store);
    Some(store)
}

/// Asks each store the same under a key of this line's own, and compares what they say: embedded, SeaweedFS, moto.
fn line(name: &str, expected: [&str; 3], ask: impl AsyncFn(&Client, &str) -> String) {
    run(async {
        let mut said = Vec::new();
        for kind in [Kind::Embedded, Kind::SeaweedFs, Kind::Moto] {
            let Some(store) = shared(kind).await else { return };
            said.push(ask(&store.s3(), &format!("{name}/key.mcap")).await);
        }
        assert_eq!(said, expected, "{name}: embedded, SeaweedFS, moto");
    });
}

/// The status, and the store's word if it refuses.
fn word(answer: &Answer) -> String {
    let code = xml::text(&String::from_utf8_lossy(&answer.body), "Code");
    match code {
        Some(code) => format!("{} {code}", answer.status.as_u16()),
        None => answer.status.as_u16().to_string(),
    }
}

fn header(answer: &Answer, name: &str) -> String {
    answer.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("none").to_owned()
}

fn sum(bytes: &[u8]) -> String {
    STANDARD.encode(Sha256::digest(bytes))
}

async fn put(s3: &Client, key: &str, bytes: Vec<u8>, headers: &[(&str, &str)]) -> Answer {
    s3.ask(Method::PUT, key, &[], headers, bytes).await.expect("an answer")
}

async fn head(s3: &Client, key: &str) -> Answer {
    let headers = [("x-amz-checksum-mode", "ENABLED")];
    s3.ask(Method::HEAD, key, &[], &headers, "").await.expect("an answer")
}

/// An upload of two parts, as our uploader makes it.
struct Parts<'a> {
    s3: &'a Client,
    key: &'a str,
    id: String,
    /// Number, tag and checksum.
    stored: Vec<(u32, String, String)>,
}

impl<'a> Parts<'a> {
    async fn create(s3: &'a Client, key: &'a str) -> Parts<'a> {
        let headers = [("x-amz-checksum-algorithm", "SHA256"), ("x-amz-checksum-type", "COMPOSITE")];
        let id = s3.multipart_create(key, &headers).await.expect("an upload");
        Parts { s3, key, id, stored: Vec::new() }
    }

    async fn begin(s3: &'a Client, key: &'a str) -> Parts<'a> {
        let mut parts = Parts::create(s3, key).await;
        for (number, len) in [(1, 5 << 20), (2, 3)] {
            parts.store(number, noise(u64::from(number), len)).await;
        }
        parts
    }

    async fn store(&mut self, number: u32, bytes: Vec<u8>) {
        let sum = sum(&bytes);
        let answer = self.send(number, bytes, &sum).await;
        assert_eq!(answer.status, 200, "{:?}", answer.body);
        self.stored.push((number, header(&answer, "etag").trim_matches('"').to_owned(), sum));
    }

    async fn send(&self, number: u32, bytes: Vec<u8>, sum: &str) -> Answer {
        let number = number.to_string();
        let query = [("partNumber", number.as_str()), ("uploadId", self.id.as_str())];
        let headers = [("x-amz-checksum-sha256", sum)];
        self.s3.ask(Method::PUT, self.key, &query, &headers, bytes).await.expect("an answer")
    }

    async fn complete(&self, headers: &[(&str, &str)]) -> Answer {
        let mut body = String::from("<CompleteMultipartUpload>");
        for (number, tag, sum) in &self.stored {
            body.push_str(&format!(
                "<Part><PartNumber>{number}</PartNumber><ETag>\"{tag}\"</ETag><ChecksumSHA256>{sum}</ChecksumSHA256></Part>"
            ));
        }
        body.push_str("</CompleteMultipartUpload>");
        let query = [("uploadId", self.id.as_str())];
        self.s3.ask(Method::POST, self.key, &query, headers, body).await.expect("an answer")
    }

    async fn listing(&self) -> Answer {
        let query = [("uploadId", self.id.as_str())];
        self.s3.ask(Method::GET, self.key, &query, &[], "").await.expect("an answer")
    }

    async fn abort(&self) -> Answer {
        let query = [("uploadId", self.id.as_str())];
        self.s3.ask(Method::DELETE, self.key, &query, &[], "").await.expect("an answer")
    }
}

#[test]
fn a_body_that_is_not_what_its_checksum_says() {
    let expected = ["400 BadDigest", "400 BadDigest", "200"];
    line("wrong-checksum", expected, async |s3, key| {
        word(&put(s3, key, b"these bytes".to_vec(), &[("x-amz-checksum-sha256", &sum(b"others"))]).await)
    });
}

#[test]
fn the_checksum_that_a_put_announced_is_told_by_head() {
    line("kept-checksum", ["kept", "kept", "none"], async |s3, key| {
        let sum = sum(b"these bytes");
        put(s3, key, b"these bytes".to_vec(), &[("x-amz-checksum-sha256", &sum)]).await;
        let told = header(&head(s3, key).await, "x-amz-checksum-sha256");
        if told == sum { "kept".to_owned() } else { told }
    });
}

#[test]
fn the_checksum_of_an_object_in_parts_as_head_tells_it() {
    let expected = ["composite-2 COMPOSITE", "composite-2 COMPOSITE", "composite COMPOSITE"];
    line("composite", expected, async |s3, key| {
        let parts = Parts::begin(s3, key).await;
        assert_eq!(parts.complete(&[]).await.status, 200);
        let digests: Vec<u8> =
            parts.stored.iter().flat_map(|(_, _, sum)| STANDARD.decode(sum).expect("a digest")).collect();
        let head = head(s3, key).await;
        let told = header(&head, "x-amz-checksum-sha256").replace(&sum(&digests), "composite");
        format!("{told} {}", header(&head, "x-amz-checksum-type"))
    });
}

#[test]
fn the_checksums_of_parts_in_a_listing() {
    line("listed-checksums", ["2 of 2", "0 of 2", "0 of 2"], async |s3, key| {
        let listing = Parts::begin(s3, key).await.listing().await;
        let body = String::from_utf8_lossy(&listing.body).into_owned();
        let parts: Vec<&str> = xml::elements(&body, "Part").collect();
        let with = parts.iter().filter(|part| xml::text(part, "ChecksumSHA256").is_some()).count();
        format!("{with} of {}", parts.len())
    });
}

#[test]
fn the_root_of_a_listing_of_parts() {
    line("root", ["ListPartsResult", "ListPartsResult", "ListPartsResponse"], async |s3, key| {
        let listing = Parts::begin(s3, key).await.listing().await;
        let body = String::from_utf8_lossy(&listing.body).into_owned();
        let root = ["ListPartsResult", "ListPartsResponse"].into_iter().find(|root| body.contains(root));
        root.unwrap_or("another").to_owned()
    });
}

#[test]
fn a_part_that_is_not_what_its_checksum_says() {
    let expected = ["400 BadDigest", "400 BadDigest", "200"];
    line("wrong-part", expected, async |s3, key| {
        let parts = Parts::create(s3, key).await;
        word(&parts.send(1, b"these bytes".to_vec(), &sum(b"others")).await)
    });
}

#[test]
fn a_completion_that_names_another_checksum_for_a_part() {
    let expected = ["400 InvalidPart", "400 BadDigest", "200"];
    line("wrong-completion", expected, async |s3, key| {
        let mut parts = Parts::begin(s3, key).await;
        parts.stored[0].2 = sum(b"others");
        word(&parts.complete(&[]).await)
    });
}

#[test]
fn a_completion_on_condition_that_nothing_is_there() {
    let expected = ["412 PreconditionFailed", "412 PreconditionFailed", "412 PreconditionFailed"];
    line("conditional", expected, async |s3, key| {
        put(s3, key, b"first".to_vec(), &[]).await;
        word(&Parts::begin(s3, key).await.complete(&[("if-none-match", "*")]).await)
    });
}

#[test]
fn a_completion_repeated() {
    line("repeated", ["200 same", "200 same", "200 same"], async |s3, key| {
        let parts = Parts::begin(s3, key).await;
        let tag = |answer: &Answer| xml::text(&String::from_utf8_lossy(&answer.body), "ETag");
        let (first, second) = (parts.complete(&[]).await, parts.complete(&[]).await);
        format!("{} {}", word(&second), if tag(&first) == tag(&second) { "same" } else { "other" })
    });
}

#[test]
fn the_tag_of_an_object_in_parts() {
    line("tag", ["-2", "-2", "-2"], async |s3, key| {
        let parts = Parts::begin(s3, key).await;
        parts.complete(&[]).await;
        let tag = header(&head(s3, key).await, "etag");
        let tag = tag.trim_matches('"');
        assert_eq!(tag.len(), 34, "the MD5 of the MD5s of the parts: {tag}");
        tag[32..].to_owned()
    });
}

#[test]
fn a_part_of_an_upload_that_is_gone() {
    let expected = ["404 NoSuchUpload", "404 NoSuchUpload", "500"];
    line("gone-part", expected, async |s3, key| {
        let parts = Parts::begin(s3, key).await;
        parts.abort().await;
        word(&parts.send(1, b"late".to_vec(), &sum(b"late")).await)
    });
}

#[test]
fn a_completion_of_an_upload_that_is_gone() {
    let expected = ["404 NoSuchUpload", "404 NoSuchUpload", "500"];
    line("gone-completion", expected, async |s3, key| {
        let parts = Parts::begin(s3, key).await;
        parts.abort().await;
        word(&parts.complete(&[]).await)
    });
}

#[test]
fn an_abort_of_an_upload_that_is_gone() {
    let expected = ["404 NoSuchUpload", "204", "404 NoSuchUpload"];
    line("gone-abort", expected, async |s3, key| {
        let parts = Parts::begin(s3, key).await;
        parts.abort().await;
        word(&parts.abort().await)
    });
}

#[test]
fn a_part_that_is_too_small_and_not_the_last() {
    let expected = ["400 EntityTooSmall", "400 EntityTooSmall", "400 EntityTooSmall"];
    line("small", expected, async |s3, key| {
        let mut parts = Parts::create(s3, key).await;
        parts.store(1, noise(1, 1000)).await;
        parts.store(2, noise(2, 1000)).await;
        word(&parts.complete(&[]).await)
    });
}

#[test]
fn open_uploads_of_a_prefix_and_their_pages() {
    let expected = [
        "3, truncated true, next key yes",
        "3, truncated true, next key no",
        "3, truncated false, next key no",
    ];
    line("uploads", expected, async |s3, key| {
        let keys = [key.to_owned(), format!("{key}.longer"), format!("{key}/below")];
        for key in &keys {
            Parts::create(s3, key).await;
        }
        Parts::create(s3, "elsewhere").await;
        let list = async |query: &[(&str, &str)]| {
            let answer = s3.ask(Method::GET, "", query, &[], "").await.expect("an answer");
            String::from_utf8_lossy(&answer.body).into_owned()
        };
        let all = list(&[("uploads", ""), ("prefix", key)]).await;
        let page = list(&[("uploads", ""), ("prefix", key), ("max-uploads", "2")]).await;
        let truncated = xml::text(&page, "IsTruncated").unwrap_or_default();
        let next = xml::text(&page, "NextKeyMarker").filter(|key| !key.is_empty());
        let next = if next.is_some() { "yes" } else { "no" };
        format!("{}, truncated {truncated}, next key {next}", xml::elements(&all, "Upload").count())
    });
}

#[test]
fn keys_that_must_be_written_in_another_way() {
    line("odd", ["same", "same", "same"], async |s3, key| {
        for odd in ["a b", "50%", "50%25", "ü-日本", "a+b", "a&b=c", "<x>", "q'\"", "#?;", "~!(*)"] {
            let key = format!("{key}-{odd}.mcap");
            put(s3, &key, odd.as_bytes().to_vec(), &[]).await;
            let got = s3.get_bytes(&key).await.expect("an answer");
            if got.as_deref() != Some(odd.as_bytes()) {
                return format!("{key}: {got:?}");
            }
            let listed: Vec<String> =
                s3.list(&key).await.expect("a listing").into_iter().map(|object| object.key).collect();
            if listed != [key] {
                return format!("listed as {listed:?}");
            }
        }
        "same".to_owned()
    });
}

#[test]
fn a_range_of_nothing() {
    let expected = ["416 InvalidRange", "416 InvalidRange", "416 InvalidRange"];
    line("range", expected, async |s3, key| {
        put(s3, key, Vec::new(), &[]).await;
        word(&s3.ask(Method::GET, key, &[], &[("range", "bytes=0-0")], "").await.expect("an answer"))
    });
}

/// A client of the same store with another secret, key id or bucket.
async fn stranger(kind: Kind, change: fn(&mut tidegate_device::S3Config)) -> Option<(Arc<Store>, Client)> {
    let store = shared(kind).await?;
    let mut config = store.config();
    change(&mut config);
    let client = S3::new(RealSeams::new(), config);
    Some((store, client))
}

/// What a PUT by a stranger is answered, and a HEAD, which has no word.
async fn turned_away(change: fn(&mut tidegate_device::S3Config)) -> Vec<String> {
    let mut said = Vec::new();
    for kind in [Kind::Embedded, Kind::SeaweedFs, Kind::Moto] {
        let Some((_store, s3)) = stranger(kind, change).await else { return Vec::new() };
        let put = put(&s3, "stranger", b"bytes".to_vec(), &[]).await;
        said.push(format!("{}, {}", word(&put), head(&s3, "never-there").await.status.as_u16()));
    }
    said
}

#[test]
fn a_wrong_secret() {
    run(async {
        let said = turned_away(|config| config.secret_key = "wrong".to_owned()).await;
        let expected = ["403 SignatureDoesNotMatch, 403", "403 SignatureDoesNotMatch, 403", "200, 404"];
        assert!(said.is_empty() || said == expected, "{said:?}");
    });
}

#[test]
fn a_key_id_that_nobody_has() {
    run(async {
        let said = turned_away(|config| config.access_key = "nobody".to_owned()).await;
        let expected = ["403 InvalidAccessKeyId, 403", "403 InvalidAccessKeyId, 403", "200, 404"];
        assert!(said.is_empty() || said == expected, "{said:?}");
    });
}

#[test]
fn a_bucket_that_is_missing() {
    run(async {
        let said = turned_away(|config| config.bucket = "never-made".to_owned()).await;
        let expected = ["404 NoSuchBucket, 404", "404 NoSuchBucket, 404", "404 NoSuchBucket, 404"];
        assert!(said.is_empty() || said == expected, "{said:?}");
    });
}

#[test]
fn seaweedfs_as_it_is_shipped_makes_a_missing_bucket_by_itself() {
    run(async {
        let Some(store) = Store::without_bucket(Kind::SeaweedFsAsShipped).await else { return };
        assert_eq!(head(&store.s3(), "key").await.status, 404);
        assert_eq!(word(&put(&store.s3(), "key", b"bytes".to_vec(), &[]).await), "200");
        assert_eq!(head(&store.s3(), "key").await.status, 200);
    });
}
