//! The embedded S3 endpoint under requests that no uploader should send.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

use super::wire::{Reply, Wire, ask};
use super::{Calm, files};
use crate::rig::{EDGE_KEY, EDGE_SECRET, Plan, SITE, Site, hex, noise, run, sha256, utc_date};

const UNSIGNED: &str = "UNSIGNED-PAYLOAD";

/// A request that is signed as it stands, unless told otherwise.
struct Ask {
    method: &'static str,
    /// As it is sent.
    path: String,
    query: Vec<(String, String)>,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
    key: &'static str,
    secret: &'static str,
    /// Seconds that the client's clock is ahead.
    skew: i64,
    length: Option<String>,
}

impl Ask {
    fn new(method: &'static str, path: impl Into<String>) -> Ask {
        Ask {
            method,
            path: path.into(),
            query: Vec::new(),
            headers: BTreeMap::new(),
            body: Vec::new(),
            key: EDGE_KEY,
            secret: EDGE_SECRET,
            skew: 0,
            length: None,
        }
    }

    fn query(mut self, name: &str, value: &str) -> Ask {
        self.query.push((name.to_owned(), value.to_owned()));
        self
    }

    fn header(mut self, name: &str, value: impl Into<String>) -> Ask {
        self.headers.insert(name.to_owned(), value.into());
        self
    }

    fn body(mut self, body: impl Into<Vec<u8>>) -> Ask {
        self.body = body.into();
        self
    }

    /// Announces another length than the body has.
    fn length(mut self, length: &str) -> Ask {
        self.length = Some(length.to_owned());
        self
    }

    /// The head with its signature.
    fn head(&self) -> Vec<u8> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
        let now = i64::try_from(now).expect("a small number") + self.skew;
        let day = utc_date(now * 1000).replace('-', "");
        let second = now.rem_euclid(86_400);
        let date = format!("{day}T{:02}{:02}{:02}Z", second / 3600, second / 60 % 60, second % 60);
        let mut headers = self.headers.clone();
        headers.entry("host".to_owned()).or_insert_with(|| "site".to_owned());
        headers.entry("x-amz-date".to_owned()).or_insert(date.clone());
        headers.entry("x-amz-content-sha256".to_owned()).or_insert_with(|| UNSIGNED.to_owned());
        let mut query: Vec<String> = self
            .query
            .iter()
            .map(|(name, value)| format!("{}={}", encoded(name, false), encoded(value, false)))
            .collect();
        query.sort();
        let query = query.join("&");
        let names: Vec<&str> = headers.keys().map(String::as_str).collect();
        let names = names.join(";");
        let mut canonical = format!("{}\n{}\n{query}\n", self.method, canonical_path(&self.path));
        for (name, value) in &headers {
            canonical += &format!("{name}:{}\n", value.trim());
        }
        canonical += &format!("\n{names}\n{}", headers["x-amz-content-sha256"]);
        let scope = format!("{day}/us-east-1/s3/aws4_request");
        let to_sign = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{}", sha256(canonical.as_bytes()));
        let mut key = hmac(format!("AWS4{}", self.secret).as_bytes(), day.as_bytes());
        for part in ["us-east-1", "s3", "aws4_request"] {
            key = hmac(&key, part.as_bytes());
        }
        let signature = hex(&hmac(&key, to_sign.as_bytes()));
        if !self.key.is_empty() {
            let text = format!(
                "AWS4-HMAC-SHA256 Credential={}/{scope},SignedHeaders={names},Signature={signature}",
                self.key
            );
            headers.entry("authorization".to_owned()).or_insert(text);
        }
        let target = if query.is_empty() { self.path.clone() } else { format!("{}?{query}", self.path) };
        let mut head = format!("{} {target} HTTP/1.1\r\nconnection: close\r\n", self.method);
        for (name, value) in &headers {
            head += &format!("{name}: {value}\r\n");
        }
        let length = self.length.clone().unwrap_or_else(|| self.body.len().to_string());
        head += &format!("content-length: {length}\r\n\r\n");
        head.into_bytes()
    }

    async fn send(&self, site: &Site) -> Option<Reply> {
        let mut wire = Wire::dial(site.s3).await;
        let head = self.head();
        wire.exchange([head.as_slice(), self.body.as_slice()].into_iter()).await.0
    }

    /// Sends the body and then nothing more, as a client does that went away.
    async fn send_and_leave(&self, site: &Site) -> Option<Reply> {
        use tokio::io::AsyncWriteExt as _;
        let mut wire = Wire::dial(site.s3).await;
        wire.send(&[self.head(), self.body.clone()].concat()).await;
        wire.stream.shutdown().await.expect("an open socket");
        wire.reply().await
    }
}

/// The path as both sides sign it: decoded once, then encoded.
fn canonical_path(path: &str) -> String {
    let bytes = path.as_bytes();
    let mut decoded = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let escape = (bytes[at] == b'%').then(|| path.get(at + 1..at + 3)).flatten();
        match escape.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                decoded.push(byte);
                at += 3;
            }
            None => {
                decoded.push(bytes[at]);
                at += 1;
            }
        }
    }
    encoded_bytes(&decoded, true)
}

fn encoded(text: &str, keep_slash: bool) -> String {
    encoded_bytes(text.as_bytes(), keep_slash)
}

fn encoded_bytes(bytes: &[u8], keep_slash: bool) -> String {
    let mut out = String::new();
    for byte in bytes {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(char::from(*byte))
            }
            b'/' if keep_slash => out.push('/'),
            _ => out += &format!("%{byte:02X}"),
        }
    }
    out
}

/// HMAC-SHA256; keys here are shorter than a block.
fn hmac(key: &[u8], message: &[u8]) -> [u8; 32] {
    let mut block = [0_u8; 64];
    block[..key.len()].copy_from_slice(key);
    let inner = Sha256::new().chain_update(block.map(|byte| byte ^ 0x36)).chain_update(message).finalize();
    Sha256::new().chain_update(block.map(|byte| byte ^ 0x5c)).chain_update(inner).finalize().into()
}

fn object(key: &str) -> String {
    format!("/edge-{SITE}/{key}")
}

fn code(reply: &Reply) -> String {
    let text = reply.text();
    let code = text.split_once("<Code>").and_then(|(_, rest)| rest.split_once("</Code>"));
    code.map_or_else(|| format!("no code in {text:.120}"), |(code, _)| code.to_owned())
}

/// A case with the error codes that may come back. A `HEAD` has no body: its status stands for the code.
struct Case {
    name: String,
    ask: Ask,
    codes: &'static [&'static str],
    leaves: bool,
}

fn case(name: impl Into<String>, ask: Ask, codes: &'static [&'static str]) -> Case {
    Case { name: name.into(), ask, codes, leaves: false }
}

async fn site() -> Site {
    Plan::new().set("edge.max_clock_skew", "15m").start().await
}

async fn check(calm: &mut Calm<'_>, site: &Site, case: Case) {
    let reply = if case.leaves { case.ask.send_and_leave(site).await } else { case.ask.send(site).await };
    match reply {
        Some(reply) if (400..600).contains(&reply.status) && reply.status != 500 => {
            let code = code(&reply);
            if !case.codes.contains(&code.as_str()) {
                calm.finding(&case.name, format!("{} {code}, not {:?}", reply.status, case.codes));
            }
        }
        other => calm.finding(&case.name, format!("{other:?}")),
    }
    calm.holds(&case.name).await;
}

fn who() -> Vec<Case> {
    let mut cases = Vec::new();
    for (method, path) in [
        ("GET", "/".to_owned()),
        ("GET", format!("/edge-{SITE}")),
        ("GET", object("a")),
        ("PUT", object("a")),
        ("DELETE", object("a")),
        ("POST", object("a?uploads")),
        ("POST", format!("/edge-{SITE}?delete")),
    ] {
        let mut ask = Ask::new(method, path.clone()).body("x");
        ask.key = "";
        cases.push(case(format!("anonymous {method} {path}"), ask, &["AccessDenied"]));
    }
    let put = || Ask::new("PUT", object("who")).body("x");
    let mut wrong = put();
    wrong.secret = "another secret";
    cases.push(case("another secret", wrong, &["SignatureDoesNotMatch"]));
    let mut wrong = put();
    wrong.key = "nobody";
    cases.push(case("an unknown key", wrong, &["InvalidAccessKeyId"]));
    for skew in [-3600, 3600, 86_400 * 365, -86_400 * 365 * 30] {
        let mut ask = put();
        ask.skew = skew;
        cases.push(case(format!("a clock {skew} s off"), ask, &["RequestTimeTooSkewed", "AccessDenied"]));
    }
    for (name, value) in [
        ("no credential", "AWS4-HMAC-SHA256"),
        ("half a credential", "AWS4-HMAC-SHA256 Credential=it-edge/20260101,SignedHeaders=host,Signature=00"),
        ("another scheme", "Basic aXQ6aXQ="),
        ("a bearer", "Bearer x"),
        ("nothing", ""),
        (
            "a signature that is none",
            "AWS4-HMAC-SHA256 Credential=it-edge/20260101/us-east-1/s3/aws4_request,SignedHeaders=host,Signature=zz",
        ),
    ] {
        cases.push(case(
            format!("authorization: {name}"),
            put().header("authorization", value),
            &[
                "AuthorizationHeaderMalformed",
                "SignatureDoesNotMatch",
                "AccessDenied",
                "InvalidRequest",
                "NotImplemented",
                "InvalidArgument",
                "RequestTimeTooSkewed",
            ],
        ));
    }
    for date in ["yesterday", "", "20260230T000000Z", "99999999T999999Z"] {
        cases.push(case(
            format!("x-amz-date: {date}"),
            put().header("x-amz-date", date),
            &[
                "InvalidRequest",
                "AccessDenied",
                "SignatureDoesNotMatch",
                "InvalidArgument",
                "RequestTimeTooSkewed",
                "AuthorizationHeaderMalformed",
            ],
        ));
    }
    cases
}

fn what() -> Vec<Case> {
    let put = |name: &str| Ask::new("PUT", object(name)).body("some bytes");
    let other = sha256(b"other bytes");
    let md5 = STANDARD.encode([7_u8; 16]);
    let mut cases = vec![
        case(
            "a wrong payload digest",
            put("d").header("x-amz-content-sha256", other),
            &["XAmzContentSHA256Mismatch", "BadDigest"],
        ),
        case(
            "a payload digest that is none",
            put("d").header("x-amz-content-sha256", "zz"),
            &[
                "InvalidArgument",
                "InvalidRequest",
                "XAmzContentSHA256Mismatch",
                "InvalidDigest",
                "SignatureDoesNotMatch",
            ],
        ),
        case("a wrong Content-MD5", put("d").header("content-md5", md5), &["BadDigest"]),
        case("a Content-MD5 that is none", put("d").header("content-md5", "?"), &["InvalidDigest"]),
        case("a short Content-MD5", put("d").header("content-md5", "AAAA"), &["InvalidDigest"]),
        case("a wrong CRC32", put("d").header("x-amz-checksum-crc32", "AAAAAA=="), &["BadDigest"]),
        case(
            "a CRC32 that is none",
            put("d").header("x-amz-checksum-crc32", "?"),
            &["InvalidRequest", "InvalidDigest"],
        ),
        case(
            "an unknown checksum",
            put("d")
                .header("x-amz-checksum-algorithm", "ROT13")
                .header("x-amz-sdk-checksum-algorithm", "ROT13"),
            &["InvalidRequest", "InvalidArgument"],
        ),
        case(
            "9 KiB of metadata",
            put("d").header("x-amz-meta-x", "y".repeat(9 << 10)),
            &["MetadataTooLarge"],
        ),
        case("a key of 1,025 bytes", put(&"k".repeat(1025)), &["KeyTooLongError", "InvalidArgument"]),
        case("a key that is no UTF-8", put("%ff%fe"), &["InvalidURI", "InvalidArgument"]),
        case("no such bucket", Ask::new("PUT", "/edge-other/a").body("x"), &["NoSuchBucket"]),
        case(
            "a bucket called ..",
            Ask::new("PUT", "/../a").body("x"),
            &["InvalidBucketName", "InvalidURI", "InvalidArgument"],
        ),
        case(
            "an encoded bucket called ..",
            Ask::new("PUT", "/%2e%2e/a").body("x"),
            &["InvalidBucketName", "InvalidURI", "InvalidArgument"],
        ),
        case(
            "a new bucket called ..",
            Ask::new("PUT", "/.."),
            &["InvalidBucketName", "InvalidURI", "InvalidArgument"],
        ),
        case(
            "a new bucket with a slash",
            Ask::new("PUT", "/a%2fb%2fc"),
            &["NoSuchBucket", "InvalidBucketName", "InvalidURI"],
        ),
        case("a new bucket of one letter", Ask::new("PUT", "/a"), &["InvalidBucketName"]),
        case("a new bucket of capitals", Ask::new("PUT", "/Edge-IT"), &["InvalidBucketName"]),
        case("the bucket of the devices", Ask::new("DELETE", format!("/edge-{SITE}")), &["AccessDenied"]),
        case(
            "a range of nothing",
            Ask::new("GET", object("none")).header("range", "bytes=5-2"),
            &["NoSuchKey", "InvalidRange", "InvalidArgument"],
        ),
        case("PATCH", Ask::new("PATCH", object("d")).body("x"), &["MethodNotAllowed", "NotImplemented"]),
        case("FROB", Ask::new("FROB", object("d")), &["MethodNotAllowed", "NotImplemented"]),
        case(
            "a copy of nothing",
            Ask::new("PUT", object("d")).header("x-amz-copy-source", format!("/edge-{SITE}/none")),
            &["NoSuchKey"],
        ),
        case(
            "a copy from another bucket",
            Ask::new("PUT", object("d")).header("x-amz-copy-source", "/other/none"),
            &["NoSuchBucket"],
        ),
        case(
            "a copy from nowhere",
            Ask::new("PUT", object("d")).header("x-amz-copy-source", "../../etc/passwd"),
            &["NoSuchBucket", "InvalidArgument", "InvalidRequest"],
        ),
        case(
            "a condition in words",
            put("d").header("if-match", "\"nothing\""),
            &["PreconditionFailed", "NoSuchKey"],
        ),
        case(
            "the list of parts of nothing",
            Ask::new("GET", object("d")).query("uploadId", "../../x"),
            &["NoSuchUpload"],
        ),
    ];
    for word in ["-1", "abc", "99999999999", "1.5"] {
        cases.push(case(
            format!("max-keys={word}"),
            Ask::new("GET", format!("/edge-{SITE}")).query("list-type", "2").query("max-keys", word),
            &["InvalidArgument", "InvalidRequest"],
        ));
    }
    for length in ["9223372036854775808", "18446744073709551000", "10000000000000"] {
        let mut case = case(
            format!("a body of {length} bytes"),
            put("d").length(length),
            &[
                "InvalidRequest",
                "InvalidArgument",
                "EntityTooLarge",
                "IncompleteBody",
                "MissingContentLength",
                "RequestTimeout",
            ],
        );
        case.leaves = true;
        cases.push(case);
    }
    let mut truncated = case("half a body", put("d").length("100"), &["IncompleteBody"]);
    truncated.leaves = true;
    cases.push(truncated);
    cases
}

/// Bodies in the chunks of the AWS clients.
fn chunks() -> Vec<Case> {
    let put = |body: &str, decoded: &str| {
        Ask::new("PUT", object("chunked"))
            .header("x-amz-content-sha256", "STREAMING-UNSIGNED-PAYLOAD-TRAILER")
            .header("content-encoding", "aws-chunked")
            .header("x-amz-decoded-content-length", decoded)
            .header("x-amz-trailer", "x-amz-checksum-crc32")
            .body(body)
    };
    let broken: &[&str] = &[
        "IncompleteBody",
        "InvalidRequest",
        "BadDigest",
        "InvalidDigest",
        "InvalidArgument",
        "MalformedTrailerError",
        "MalformedTrailer",
    ];
    let good = "5\r\nhello\r\n0\r\nx-amz-checksum-crc32:NhCmhg==\r\n\r\n";
    let cases = [
        ("no chunk at all", "", "5"),
        ("a truncated chunk", "ff\r\nhello", "255"),
        ("a chunk size in words", "five\r\nhello\r\n0\r\n\r\n", "5"),
        ("a chunk size beyond 64 bits", "fffffffffffffffff\r\nhello\r\n0\r\n\r\n", "5"),
        ("a chunk size of 16 EiB", "ffffffffffffffff\r\nhello\r\n0\r\n\r\n", "5"),
        ("a negative chunk size", "-5\r\nhello\r\n0\r\n\r\n", "5"),
        ("a chunk without an end", "5\r\nhello0\r\n\r\n", "5"),
        ("no last chunk", "5\r\nhello\r\n", "5"),
        ("more than announced", good, "4"),
        ("less than announced", good, "6"),
        ("a wrong trailing checksum", "5\r\nhello\r\n0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n", "5"),
        ("a trailing checksum that is none", "5\r\nhello\r\n0\r\nx-amz-checksum-crc32:?\r\n\r\n", "5"),
        ("a promised trailer that does not come", "5\r\nhello\r\n0\r\n\r\n", "5"),
        ("a decoded length in words", good, "five"),
        ("a negative decoded length", good, "-5"),
    ];
    let mut cases: Vec<Case> =
        cases.map(|(name, body, decoded)| case(name, put(body, decoded), broken)).into();
    let long = format!("5;{}\r\nhello\r\n0\r\n\r\n", "x".repeat(3 << 20));
    cases.push(case("a chunk head of 3 MiB", put(&long, "5"), broken));
    let signed = Ask::new("PUT", object("chunked"))
        .header("x-amz-content-sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD")
        .header("content-encoding", "aws-chunked")
        .header("x-amz-decoded-content-length", "5")
        .body(format!("5;chunk-signature={}\r\nhello\r\n0;chunk-signature={0}\r\n\r\n", "0".repeat(64)));
    cases.push(case("a wrong signature of a chunk", signed, &["SignatureDoesNotMatch"]));
    cases
}

/// Documents for operations that read XML.
fn documents() -> Vec<Case> {
    let laughs = {
        let mut text = "<?xml version=\"1.0\"?><!DOCTYPE lolz [<!ENTITY lol \"lol\">".to_owned();
        for n in 1..10 {
            let before = if n == 1 { "lol".to_owned() } else { format!("lol{}", n - 1) };
            text += &format!("<!ENTITY lol{n} \"{}\">", format!("&{before};").repeat(10));
        }
        text + "]><Delete><Object><Key>&lol9;</Key></Object></Delete>"
    };
    let outside = "<!DOCTYPE d [<!ENTITY x SYSTEM \"file:///etc/passwd\">]><Delete><Object><Key>&x;</Key></Object></Delete>";
    let documents = [
        ("nothing", String::new()),
        ("an open bracket", "<".to_owned()),
        ("an open element", "<Delete>".to_owned()),
        ("another root", "<a></a>".to_owned()),
        ("crossed elements", "<Delete><Object></Delete></Object>".to_owned()),
        ("JSON", "{\"Delete\":[]}".to_owned()),
        ("no XML at all", "\u{0}\u{1}\u{2}".to_owned()),
        ("100,000 open elements", "<a>".repeat(100_000)),
        ("100,000 nested elements", format!("{}{}", "<a>".repeat(100_000), "</a>".repeat(100_000))),
        ("100,000 nested objects", format!("<Delete>{}", "<Object>".repeat(100_000))),
        ("a billion laughs", laughs),
        ("a file of the system", outside.to_owned()),
        ("a part number in words", "<CompleteMultipartUpload><Part><PartNumber>one</PartNumber><ETag>x</ETag></Part></CompleteMultipartUpload>".to_owned()),
    ];
    let mut cases = Vec::new();
    for (name, text) in documents {
        let delete = Ask::new("POST", format!("/edge-{SITE}"))
            .query("delete", "")
            .header("content-md5", STANDARD.encode(md5_of(text.as_bytes())))
            .body(text.clone());
        let codes = &["MalformedXML", "InvalidRequest", "MissingRequestBodyError", "InvalidArgument"];
        cases.push(case(format!("delete: {name}"), delete, codes));
        let complete = Ask::new("POST", object("doc")).query("uploadId", "none").body(text.clone());
        let codes = &[
            "MalformedXML",
            "InvalidRequest",
            "MissingRequestBodyError",
            "NoSuchUpload",
            "InvalidPart",
            "InvalidArgument",
        ];
        cases.push(case(format!("complete: {name}"), complete, codes));
    }
    for word in [
        "acl",
        "policy",
        "website",
        "torrent",
        "tagging",
        "lifecycle",
        "cors",
        "encryption",
        "select",
        "retention",
    ] {
        for method in ["GET", "PUT", "DELETE"] {
            cases.push(case(
                format!("{method} ?{word}"),
                Ask::new(method, object("none")).query(word, "").body("<x/>"),
                &[
                    "NotImplemented",
                    "MethodNotAllowed",
                    "MalformedXML",
                    "NoSuchKey",
                    "InvalidRequest",
                    "InvalidArgument",
                    "MissingContentMD5",
                ],
            ));
        }
    }
    cases
}

/// MD5, for the one header that needs it.
fn md5_of(bytes: &[u8]) -> [u8; 16] {
    // RFC 1321, written out: no crate of the tests computes it.
    let mut state: [u32; 4] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476];
    let shifts = [[7, 12, 17, 22], [5, 9, 14, 20], [4, 11, 16, 23], [6, 10, 15, 21]];
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the constants of the algorithm"
    )]
    let sines: Vec<u32> = (1..=64).map(|n| (f64::from(n).sin().abs() * 4_294_967_296.0) as u32).collect();
    let mut message = bytes.to_vec();
    message.push(0x80);
    message.resize((bytes.len() + 9).next_multiple_of(64) - 8, 0);
    message.extend_from_slice(&(bytes.len() as u64 * 8).to_le_bytes());
    for block in message.chunks_exact(64) {
        let words: Vec<u32> = block
            .chunks_exact(4)
            .map(|word| u32::from_le_bytes(word.try_into().expect("four bytes")))
            .collect();
        let [mut a, mut b, mut c, mut d] = state;
        for (n, sine) in sines.iter().enumerate() {
            let (mixed, at) = match n / 16 {
                0 => ((b & c) | (!b & d), n),
                1 => ((d & b) | (!d & c), (5 * n + 1) % 16),
                2 => (b ^ c ^ d, (3 * n + 5) % 16),
                _ => (c ^ (b | !d), (7 * n) % 16),
            };
            let sum = a.wrapping_add(mixed).wrapping_add(*sine).wrapping_add(words[at]);
            (a, d, c) = (d, c, b);
            b = b.wrapping_add(sum.rotate_left(shifts[n / 16][n % 4]));
        }
        for (state, add) in state.iter_mut().zip([a, b, c, d]) {
            *state = state.wrapping_add(add);
        }
    }
    let mut out = [0; 16];
    for (bytes, word) in out.chunks_exact_mut(4).zip(state) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    out
}

#[test]
fn the_md5_of_these_tests_is_the_one_of_the_rfc() {
    for (text, digest) in [
        ("", "d41d8cd98f00b204e9800998ecf8427e"),
        ("abc", "900150983cd24fb0d6963f7d28e17f72"),
        (&"1234567890".repeat(8), "57edf4a22be3c955ac49da2e2107b67a"),
        (&"x".repeat(55), "04364420e25c512fd958a70738aa8f72"),
    ] {
        assert_eq!(hex(&md5_of(text.as_bytes())), digest, "{text}");
    }
}

#[test]
fn a_bad_upload_gets_the_code_of_s3_and_stores_nothing() {
    run(async {
        let site = site().await;
        let mut calm = Calm::begin(&site).await;
        for case in [who(), what(), chunks(), documents()].into_iter().flatten() {
            check(&mut calm, &site, case).await;
        }
        calm.end().await;
    });
}

#[test]
fn a_multipart_upload_that_is_asked_for_nonsense_stays_what_it_is() {
    run(async {
        let site = site().await;
        let mut calm = Calm::begin(&site).await;
        let start =
            Ask::new("POST", object("multi")).query("uploads", "").send(&site).await.expect("an answer");
        let text = start.text();
        let id = text.split_once("<UploadId>").and_then(|(_, rest)| rest.split_once("</UploadId>"));
        let id = id.unwrap_or_else(|| panic!("an upload: {text}")).0.to_owned();
        let part = |number: &str, bytes: &[u8]| {
            Ask::new("PUT", object("multi")).query("partNumber", number).query("uploadId", &id).body(bytes)
        };
        let mut tags = Vec::new();
        for (number, bytes) in [("1", noise(1, 100)), ("2", noise(2, 100))] {
            let reply = part(number, &bytes).send(&site).await.expect("an answer");
            assert_eq!(reply.status, 200, "{}", reply.text());
            tags.push(reply.header("etag").expect("a tag").to_owned());
        }
        for number in ["0", "10001", "-1", "65536", "65537", "4294967297", "one", "", "1.5"] {
            let codes = &["InvalidArgument", "InvalidRequest"];
            check(&mut calm, &site, case(format!("part {number}"), part(number, b"x"), codes)).await;
        }
        let with = |key: &str, id: &str, parts: &[(&str, &str)]| {
            let parts: Vec<String> = parts
                .iter()
                .map(|(number, tag)| {
                    format!("<Part><PartNumber>{number}</PartNumber><ETag>{tag}</ETag></Part>")
                })
                .collect();
            let body = format!("<CompleteMultipartUpload>{}</CompleteMultipartUpload>", parts.concat());
            Ask::new("POST", object(key)).query("uploadId", id).body(body)
        };
        let (one, two) = (tags[0].as_str(), tags[1].as_str());
        let long = "x".repeat(4096);
        let not: &[&str] = &["InvalidPart"];
        let order: &[&str] = &["InvalidPartOrder"];
        let none: &[&str] = &["NoSuchUpload"];
        let odd: &[&str] = &["InvalidPart", "InvalidArgument", "InvalidRequest", "MalformedXML"];
        let cases = [
            ("no parts", with("multi", &id, &[]), odd),
            ("a part that is not there", with("multi", &id, &[("1", one), ("3", two)]), not),
            ("a wrong tag", with("multi", &id, &[("1", two)]), not),
            ("parts twice", with("multi", &id, &[("1", one), ("1", one)]), order),
            ("parts backwards", with("multi", &id, &[("2", two), ("1", one)]), order),
            ("small parts", with("multi", &id, &[("1", one), ("2", two)]), &["EntityTooSmall"][..]),
            ("part 0", with("multi", &id, &[("0", one)]), odd),
            ("part 65537", with("multi", &id, &[("65537", one)]), odd),
            ("part -1", with("multi", &id, &[("-1", one)]), odd),
            ("another key's upload", with("other", &id, &[("1", one)]), none),
            ("an upload that climbs", with("multi", "../../site.db", &[("1", one)]), none),
            ("an upload with a NUL", with("multi", "a\0b", &[("1", one)]), none),
            ("a long upload", with("multi", &long, &[("1", one)]), none),
            (
                "an empty upload",
                with("multi", "", &[("1", one)]),
                &["NoSuchUpload", "InvalidRequest", "InvalidArgument"][..],
            ),
        ];
        for (name, ask, codes) in cases {
            check(&mut calm, &site, case(name, ask, codes)).await;
        }
        for upload in ["../../x", "..", "/etc/passwd", &format!("{id}/../{id}"), &id.to_uppercase()] {
            let abort = Ask::new("DELETE", object("multi")).query("uploadId", upload);
            check(&mut calm, &site, case(format!("give up {upload}"), abort, none)).await;
            let list = Ask::new("GET", object("multi")).query("uploadId", upload);
            check(&mut calm, &site, case(format!("parts of {upload}"), list, none)).await;
        }
        let list =
            Ask::new("GET", object("multi")).query("uploadId", &id).send(&site).await.expect("an answer");
        assert_eq!(list.text().matches("<PartNumber>").count(), 2, "{}", list.text());
        let abort = Ask::new("DELETE", object("multi")).query("uploadId", &id).send(&site).await;
        assert_eq!(abort.expect("an answer").status, 204);
        calm.end().await;
    });
}

#[test]
fn keys_that_look_like_paths_are_names_and_touch_no_other_file() {
    run(async {
        let site = site().await;
        let mut calm = Calm::begin(&site).await;
        let outside = |site: &Site| -> Vec<String> {
            let inside = |path: &String| path.starts_with("data/objects/") || path == "data/objects";
            files(site.dir()).into_iter().filter(|path| !inside(path)).collect()
        };
        let before = outside(&site);
        for key in [
            "..",
            "../../../etc/passwd",
            "a/../../b",
            "%2e%2e%2f%2e%2e%2fsite.db",
            "..%2f..%2f..%2f..%2ftmp%2fx",
            "a//b",
            "/absolute",
            "//",
            "%2Fetc%2Fpasswd",
            "C:%5CWindows",
            "..%5C..%5Cx",
            "nul%00byte",
            "new%0Aline",
            "%e2%80%aeright-to-left",
            "%ef%bb%bfbom",
            "%20",
            ".bucket",
            "CON",
            &"k".repeat(1024),
            &format!("{}{}", "d/".repeat(500), "f"),
        ] {
            let path = object(key);
            let bytes = noise(9, 300);
            let reply =
                Ask::new("PUT", path.clone()).body(bytes.clone()).send(&site).await.expect("an answer");
            if outside(&site) != before {
                calm.finding(key, format!("files outside of the store: {:?}", outside(&site)));
            }
            match reply.status {
                200 => {
                    let got = Ask::new("GET", path.clone()).send(&site).await.expect("an answer");
                    if got.body != bytes {
                        calm.finding(key, format!("another content: {} {:.200}", got.status, got.text()));
                    }
                    let gone = Ask::new("DELETE", path).send(&site).await.expect("an answer");
                    if gone.status != 204 {
                        calm.finding(key, format!("not removed: {}", gone.status));
                    }
                }
                400..500 if !code(&reply).starts_with("no code") => {}
                _ => calm.finding(key, format!("{reply:?}")),
            }
            calm.holds(key).await;
        }
        calm.end().await;
    });
}

#[test]
fn a_document_of_a_hundred_megabytes_is_refused_before_it_is_read() {
    run(async {
        let site = site().await;
        let mut calm = Calm::begin(&site).await;
        let piece = "<Object><Key>x</Key></Object>".repeat(36_157);
        let ask = Ask::new("POST", format!("/edge-{SITE}")).query("delete", "").length("104857600");
        let mut wire = Wire::dial(site.s3).await;
        let head = ask.head();
        let pieces = std::iter::once(head.as_slice()).chain(std::iter::repeat_n(piece.as_bytes(), 100));
        let (reply, sent) = wire.exchange(pieces).await;
        match reply {
            Some(reply) if (400..500).contains(&reply.status) => {
                let code = code(&reply);
                assert!(["MaxMessageLengthExceeded", "EntityTooLarge"].contains(&code.as_str()), "{code}");
            }
            other => calm.finding("100 MB of XML", format!("{other:?}")),
        }
        if sent > 64 << 20 {
            calm.finding("100 MB of XML", format!("{sent} bytes were taken"));
        }
        calm.holds("100 MB of XML").await;
        calm.end().await;
    });
}

#[test]
fn the_framing_of_an_upload_is_as_strict_as_that_of_the_api() {
    run(async {
        let site = site().await;
        let mut calm = Calm::begin(&site).await;
        let head = String::from_utf8(Ask::new("PUT", object("framed")).length("2").head()).expect("ASCII");
        let both =
            head.replace("\r\n\r\n", "\r\ntransfer-encoding: chunked\r\n\r\n") + "2\r\nxx\r\n0\r\n\r\n";
        let other = head.replace("\r\n\r\n", "\r\ncontent-length: 3\r\n\r\n") + "xx";
        let long = head.replace("\r\n\r\n", &format!("\r\nx: {}\r\n\r\n", "y".repeat(1 << 20))) + "xx";
        let many = head.replace("\r\n\r\n", &format!("\r\n{}\r\n", "x: y\r\n".repeat(1000))) + "xx";
        for (name, bytes, statuses) in [
            ("a length and chunks", both, &[400, 411][..]),
            ("two lengths", other, &[400]),
            ("a header of 1 MiB", long, &[431]),
            ("1,000 headers", many, &[431]),
            ("no HTTP", "HELLO\r\n\r\n".to_owned(), &[400]),
        ] {
            match ask(site.s3, bytes.as_bytes()).await {
                Some(reply) if statuses.contains(&reply.status) => {}
                other => calm.finding(name, format!("{other:?}")),
            }
            calm.holds(name).await;
        }
        calm.end().await;
    });
}
