//! Owns the tests over HTTP: signatures, framing, headers, the gate, hints and the observer. The client here is a
//! socket and a signer of thirty lines; stock clients are run elsewhere.

use std::sync::{Arc, Mutex};

use futures_core::future::BoxFuture;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use super::*;
use crate::seam::{Listener, Net};
use crate::timeouts::{Op, Timeouts};

const DATE: &str = "19991231T235959Z";

struct Site {
    spool: Spool<RealSeams>,
    port: u16,
    stop: Option<oneshot::Sender<()>>,
    served: JoinHandle<()>,
    _dir: tempfile::TempDir,
}

async fn site(config: EndpointConfig) -> Site {
    let dir = tempfile::tempdir().unwrap();
    let spool = with_bucket(dir.path()).await;
    let keys = vec![AccessKey { id: "AK".to_owned(), secret: "SK".to_owned() }];
    let endpoint = Endpoint::new(spool.clone(), EndpointConfig { keys, ..config });
    let listener = RealSeams::new().net().bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (stop, stopped) = oneshot::channel::<()>();
    let served = tokio::spawn(async move {
        endpoint.serve(listener, async { drop(stopped.await) }).await;
    });
    Site { spool, port, stop: Some(stop), served, _dir: dir }
}

fn hmac(key: &[u8], text: &[u8]) -> [u8; 32] {
    let mut block = [0_u8; 64];
    block[..key.len()].copy_from_slice(key);
    let inner = sha(&[block.map(|b| b ^ 0x36).as_slice(), text].concat());
    sha(&[block.map(|b| b ^ 0x5c).as_slice(), &inner].concat())
}

#[derive(Clone)]
pub(crate) struct Ask {
    method: &'static str,
    path: String,
    query: String,
    headers: Vec<(String, String)>,
    payload: String,
    body: Vec<u8>,
    signed: bool,
    date: &'static str,
}

/// A request, signed with the keys `AK` and `SK`.
pub(crate) fn ask(method: &'static str, path: &str, query: &str, body: &[u8]) -> Ask {
    Ask {
        method,
        path: path.to_owned(),
        query: query.to_owned(),
        headers: Vec::new(),
        payload: sums::hex(&sha(body)),
        body: body.to_vec(),
        signed: true,
        date: DATE,
    }
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (n, value) = line.split_once(": ")?;
            n.eq_ignore_ascii_case(name).then_some(value)
        })
    }
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl Ask {
    fn with(mut self, name: &str, value: &str) -> Ask {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Frames the body as one aws-chunked chunk with a trailer.
    fn trailer(mut self, name: &str, value: &str) -> Ask {
        let len = self.body.len();
        let mut framed = format!("{len:x}\r\n").into_bytes();
        framed.extend_from_slice(&self.body);
        framed.extend_from_slice(format!("\r\n0\r\n{name}:{value}\r\n\r\n").as_bytes());
        self.body = framed;
        self.payload = "STREAMING-UNSIGNED-PAYLOAD-TRAILER".to_owned();
        self.with("content-encoding", "aws-chunked")
            .with("x-amz-decoded-content-length", &len.to_string())
            .with("x-amz-trailer", name)
    }

    fn head(&self, port: u16) -> String {
        let mut headers = self.headers.clone();
        headers.push(("host".to_owned(), format!("127.0.0.1:{port}")));
        headers.push(("x-amz-date".to_owned(), self.date.to_owned()));
        headers.push(("x-amz-content-sha256".to_owned(), self.payload.clone()));
        headers.sort();
        let names: Vec<&str> = headers.iter().map(|(name, _)| name.as_str()).collect();
        let names = names.join(";");
        let lines: String = headers.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
        let canonical =
            format!("{}\n{}\n{}\n{lines}\n{names}\n{}", self.method, self.path, self.query, self.payload);
        let day = &self.date[..8];
        let scope = format!("{day}/us-east-1/s3/aws4_request");
        let text =
            format!("AWS4-HMAC-SHA256\n{}\n{scope}\n{}", self.date, sums::hex(&sha(canonical.as_bytes())));
        let key = [day, "us-east-1", "s3", "aws4_request"]
            .iter()
            .fold(b"AWS4SK".to_vec(), |key, step| hmac(&key, step.as_bytes()).to_vec());
        let signature = sums::hex(&hmac(&key, text.as_bytes()));
        if self.signed {
            headers.push((
                "authorization".to_owned(),
                format!(
                    "AWS4-HMAC-SHA256 Credential=AK/{scope}, SignedHeaders={names}, Signature={signature}"
                ),
            ));
        }
        let lines: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let query = if self.query.is_empty() { String::new() } else { format!("?{}", self.query) };
        format!(
            "{} {}{query} HTTP/1.1\r\n{lines}content-length: {}\r\nconnection: close\r\n\r\n",
            self.method,
            self.path,
            self.body.len()
        )
    }

    async fn send(self, site: &Site) -> Answer {
        self.send_to(site.port).await
    }

    pub(crate) async fn send_to(self, port: u16) -> Answer {
        let mut stream = RealSeams::new().net().connect("127.0.0.1", port).await.unwrap();
        stream.write_all(self.head(port).as_bytes()).await.unwrap();
        stream.write_all(&self.body).await.unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.unwrap();
        let end = all.windows(4).position(|w| w == b"\r\n\r\n").expect("an answer has a head");
        let head = String::from_utf8(all[..end].to_vec()).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answer { status, head, body: all[end + 4..].to_vec() }
    }
}

fn crc32(bytes: &[u8]) -> String {
    let mut pass = sums::Pass::new(&[Algorithm::Crc32]);
    pass.update(bytes);
    sums::base64(&pass.finish().sums[&Algorithm::Crc32])
}

#[test]
fn a_device_with_a_wrong_clock_stores_and_reads_back_what_it_sent() {
    block_on(async {
        let (hint, mut hints) = mpsc::channel(4);
        let site = site(EndpointConfig { stored: Some(hint), ..EndpointConfig::default() }).await;
        let bytes = content(1, 2_000_000);
        let hex = sums::hex(&sha(&bytes));
        let put = ask("PUT", "/bkt/f/d/1999-12-31/t.mcap", "", &bytes)
            .with("content-type", "application/octet-stream")
            .with("x-amz-meta-checksum-sha256", &hex)
            .send(&site)
            .await;
        assert_eq!(put.status, 200, "{put:?}");
        let hint = hints.recv().await.unwrap();
        assert_eq!(
            (hint.key.as_str(), hint.len, hint.sha256),
            ("f/d/1999-12-31/t.mcap", 2_000_000, sha(&bytes))
        );
        let path = "/bkt/f/d/1999-12-31/t.mcap";
        let head = ask("HEAD", path, "", b"").with("x-amz-checksum-mode", "ENABLED").send(&site).await;
        assert_eq!((head.status, head.body.len()), (200, 0));
        assert_eq!(head.header("x-amz-meta-checksum-sha256"), Some(hex.as_str()));
        assert_eq!(head.header("content-length"), Some("2000000"));
        assert_eq!(head.header("etag"), put.header("etag"));
        assert_eq!(head.header("x-amz-checksum-sha256"), Some(sums::base64(&sha(&bytes)).as_str()));
        assert_eq!(head.header("x-amz-checksum-type"), Some("FULL_OBJECT"));
        let got = ask("GET", path, "", b"").send(&site).await;
        assert!(got.status == 200 && got.body == bytes);
        let got = ask("GET", path, "", b"").with("range", "bytes=-5").send(&site).await;
        assert_eq!((got.status, got.body.as_slice()), (206, &bytes[bytes.len() - 5..]));
        assert_eq!(got.header("content-range"), Some("bytes 1999995-1999999/2000000"));
        let got = ask("GET", path, "", b"").with("range", "bytes=2000000-").send(&site).await;
        assert_eq!(got.status, 416);
        let etag = put.header("etag").unwrap();
        let got = ask("GET", path, "", b"").with("if-none-match", etag).send(&site).await;
        assert_eq!((got.status, got.body.len()), (304, 0));
        let got = ask("GET", path, "", b"").with("if-match", "\"other\"").send(&site).await;
        assert_eq!(got.status, 412);
        let got = ask("HEAD", "/bkt/none", "", b"").send(&site).await;
        assert_eq!((got.status, got.body.len()), (404, 0));
    });
}

#[test]
fn what_is_unsigned_wrongly_signed_or_too_late_is_refused() {
    block_on(async {
        let strict = EndpointConfig { max_skew: Some(Duration::from_secs(900)), ..EndpointConfig::default() };
        let (lenient, strict) = (site(EndpointConfig::default()).await, site(strict).await);
        let put = ask("PUT", "/bkt/k", "", b"abc");
        let unsigned = Ask { signed: false, ..put.clone() }.send(&lenient).await;
        assert!(unsigned.status == 403 && unsigned.text().contains("AccessDenied"), "{unsigned:?}");
        let late = put.clone().send(&strict).await;
        assert!(late.status == 403 && late.text().contains("RequestTimeTooSkewed"), "{late:?}");
        let mut tampered = put.clone();
        tampered.body = b"abd".to_vec();
        let tampered = tampered.send(&lenient).await;
        assert_eq!(tampered.status, 400, "{tampered:?}");
        let head = put.head(lenient.port).replace("/bkt/k", "/bkt/other");
        let mut stream = RealSeams::new().net().connect("127.0.0.1", lenient.port).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(b"abc").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.contains("SignatureDoesNotMatch"), "{answer}");
        assert!(lenient.spool.list_all("bkt").is_empty() && strict.spool.list_all("bkt").is_empty());
    });
}

#[test]
fn checksums_in_headers_and_trailers_are_verified() {
    block_on(async {
        let site = site(EndpointConfig::default()).await;
        let bytes = content(3, 100_000);
        let (right, wrong) = (crc32(&bytes), crc32(b"other"));
        let name = "x-amz-checksum-crc32";
        for (ask, status) in [
            (ask("PUT", "/bkt/a", "", &bytes).with(name, &right), 200),
            (ask("PUT", "/bkt/b", "", &bytes).with(name, &wrong), 400),
            (ask("PUT", "/bkt/c", "", &bytes).trailer(name, &right), 200),
            (ask("PUT", "/bkt/d", "", &bytes).trailer(name, &wrong), 400),
            (ask("PUT", "/bkt/e", "", &bytes).with("content-md5", "AAAAAAAAAAAAAAAAAAAAAA=="), 400),
            (ask("PUT", "/bkt/f", "", &bytes).with("content-md5", "nonsense"), 400),
        ] {
            let path = ask.path.clone();
            let answer = ask.send(&site).await;
            assert_eq!(answer.status, status, "{path} {}", answer.text());
            let word = if path == "/bkt/f" { "InvalidDigest" } else { "BadDigest" };
            assert_eq!(status == 400, answer.text().contains(word), "{path} {}", answer.text());
        }
        let keys: Vec<_> = site.spool.list_all("bkt").into_iter().map(|o| (o.key, o.described)).collect();
        let plain = Described::default();
        assert_eq!(keys, [("a".to_owned(), plain.clone()), ("c".to_owned(), plain)]);
        assert_eq!(site.spool.digest("bkt", "c").await.unwrap().0, sha(&bytes));
    });
}

#[test]
fn a_multipart_upload_over_http_keeps_its_checksums() {
    block_on(async {
        let site = site(EndpointConfig::default()).await;
        let created =
            ask("POST", "/bkt/m", "uploads=", b"").with("x-amz-checksum-algorithm", "SHA256").send(&site);
        let created = created.await.text();
        let id = created.split("<UploadId>").nth(1).unwrap().split('<').next().unwrap().to_owned();
        let parts = [content(1, 5 * MIB), content(2, 9)];
        let mut xml = "<CompleteMultipartUpload>".to_owned();
        for (bytes, number) in parts.iter().zip(1..) {
            let sum = sums::base64(&sha(bytes));
            let query = format!("partNumber={number}&uploadId={id}");
            let refused = ask("PUT", "/bkt/m", &query, bytes)
                .with("x-amz-checksum-sha256", &sums::base64(&sha(b"other")))
                .send(&site)
                .await;
            assert!(refused.status == 400 && refused.text().contains("BadDigest"));
            let answer =
                ask("PUT", "/bkt/m", &query, bytes).with("x-amz-checksum-sha256", &sum).send(&site).await;
            assert_eq!(answer.header("x-amz-checksum-sha256"), Some(sum.as_str()));
            let etag = answer.header("etag").unwrap();
            xml += &format!(
                "<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag><ChecksumSHA256>{sum}</ChecksumSHA256></Part>"
            );
        }
        xml += "</CompleteMultipartUpload>";
        let listed =
            ask("GET", "/bkt/m", &format!("max-parts=1&uploadId={id}"), b"").send(&site).await.text();
        assert!(
            listed.contains("<IsTruncated>true") && listed.contains("<NextPartNumberMarker>1<"),
            "{listed}"
        );
        assert!(
            listed.contains(&sums::base64(&sha(&parts[0]))) && listed.contains("<Size>5242880<"),
            "{listed}"
        );
        let next = format!("part-number-marker=1&uploadId={id}");
        let listed = ask("GET", "/bkt/m", &next, b"").send(&site).await.text();
        assert!(listed.contains("<IsTruncated>false") && listed.contains("<Size>9<"), "{listed}");
        let composite = sums::base64(&sha(&[sha(&parts[0]), sha(&parts[1])].concat())) + "-2";
        let query = format!("uploadId={id}");
        for _ in 0..2 {
            let done = ask("POST", "/bkt/m", &query, xml.as_bytes()).send(&site).await;
            assert!(done.status == 200 && done.text().contains(&composite), "{done:?}");
        }
        let head = ask("HEAD", "/bkt/m", "", b"").with("x-amz-checksum-mode", "ENABLED").send(&site).await;
        assert_eq!(head.header("x-amz-checksum-sha256"), Some(composite.as_str()));
        assert_eq!(head.header("x-amz-checksum-type"), Some("COMPOSITE"));
        let part = ask("GET", "/bkt/m", "partNumber=2", b"").send(&site).await;
        assert_eq!((part.status, part.body.as_slice()), (206, parts[1].as_ref()));
        assert_eq!(part.header("x-amz-mp-parts-count"), Some("2"));
        let gone = ask("DELETE", "/bkt/m", &query, b"").send(&site).await;
        assert!(gone.status == 404 && gone.text().contains("NoSuchUpload"), "{gone:?}");
    });
}

#[test]
fn a_gate_that_is_not_open_refuses_bytes_and_nothing_else() {
    block_on(async {
        let (gate, seen) = watch::channel(Gate::Open);
        let site = site(EndpointConfig { gate: Some(seen), ..EndpointConfig::default() }).await;
        // More than sockets buffer: without reading it off, the refusal would be lost in a reset.
        let bytes = content(1, 12 * MIB);
        assert_eq!(ask("PUT", "/bkt/k", "", &bytes).send(&site).await.status, 200);
        let upload = site.spool.create_upload("bkt", "m", Described::default(), None, None).await.unwrap();
        let etag = part(&site.spool, &upload, 1, &bytes).await.unwrap();
        let query = format!("partNumber=2&uploadId={}", upload.id);
        for (state, status, word) in [
            (
                Gate::Closed("maintenance".to_owned()),
                503,
                "<Code>SlowDown</Code><Message>not accepting objects: maintenance",
            ),
            (Gate::Full, 503, "<Code>SlowDown</Code>"),
        ] {
            gate.send_replace(state);
            for refused in [
                ask("PUT", "/bkt/l", "", &bytes),
                ask("PUT", "/bkt/m", &query, &bytes),
                ask("POST", "/bkt/n", "uploads=", b""),
            ] {
                let answer = refused.send(&site).await;
                assert!(answer.status == status && answer.text().contains(word), "{answer:?}");
            }
            assert_eq!(ask("GET", "/bkt/k", "", b"").send(&site).await.status, 200);
        }
        let xml = format!(
            "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>\"{etag}\"</ETag></Part></CompleteMultipartUpload>"
        );
        let query = format!("uploadId={}", upload.id);
        assert_eq!(ask("POST", "/bkt/m", &query, xml.as_bytes()).send(&site).await.status, 200);
        assert_eq!(ask("DELETE", "/bkt/k", "", b"").send(&site).await.status, 204);
        gate.send_replace(Gate::Open);
        assert_eq!(ask("PUT", "/bkt/l", "", &bytes).send(&site).await.status, 200);
    });
}

#[test]
fn listings_page_through_keys_and_prefixes() {
    block_on(async {
        let site = site(EndpointConfig::default()).await;
        for key in ["a/1", "a/2", "b", "c/x/y", "d e"] {
            put(&site.spool, key, &content(1, 3)).await.unwrap();
        }
        let mut seen = Vec::new();
        let mut query = "delimiter=%2F&encoding-type=url&list-type=2&max-keys=1".to_owned();
        loop {
            let text = ask("GET", "/bkt", &query, b"").send(&site).await.text();
            let of = |tag: &str| {
                let rest = text.split(&format!("<{tag}>")).nth(1);
                rest.map(|rest| rest.split('<').next().unwrap().to_owned())
            };
            seen.extend(of("Key").or_else(|| of("CommonPrefixes><Prefix")));
            let Some(token) = of("NextContinuationToken") else { break };
            query =
                format!("continuation-token={token}&delimiter=%2F&encoding-type=url&list-type=2&max-keys=1");
        }
        assert_eq!(seen, ["a/", "b", "c/", "d%20e"]);
        let text = ask("GET", "/bkt", "marker=a%2F1&max-keys=2", b"").send(&site).await.text();
        assert!(
            text.contains("<Key>a/2<") && text.contains("<Key>b<") && text.contains("<NextMarker>b<"),
            "{text}"
        );
        let text = ask("GET", "/bkt", "list-type=2&start-after=c", b"").send(&site).await.text();
        assert!(text.contains("<KeyCount>2<") && text.contains("<Key>c/x/y<"), "{text}");
        for key in ["p", "p", "q"] {
            site.spool.create_upload("bkt", key, Described::default(), None, None).await.unwrap();
        }
        let text = ask("GET", "/bkt", "max-uploads=1&prefix=p&uploads=", b"").send(&site).await.text();
        let id = text.split("<NextUploadIdMarker>").nth(1).unwrap().split('<').next().unwrap().to_owned();
        let next = format!("key-marker=p&prefix=p&upload-id-marker={id}&uploads=");
        let text = ask("GET", "/bkt", &next, b"").send(&site).await.text();
        assert!(text.matches("<Upload>").count() == 1 && text.contains("<IsTruncated>false"), "{text}");
        let xml = "<Delete><Object><Key>a/1</Key></Object><Object><Key>none</Key></Object></Delete>";
        let gone = ask("POST", "/bkt", "delete=", xml.as_bytes()).send(&site).await;
        assert_eq!((gone.status, gone.text().matches("<Deleted>").count()), (200, 2), "{gone:?}");
        assert_eq!(site.spool.list_all("bkt").len(), 4);
        assert_eq!(ask("GET", "/missing", "list-type=2", b"").send(&site).await.status, 404);
    });
}

#[derive(Default)]
struct Withholder {
    records: Mutex<Vec<Record>>,
    go: Notify,
}

impl Observer for Withholder {
    fn record(&self, record: Record) {
        self.records.lock().unwrap().push(record);
    }
    fn before_answer<'a>(&'a self, record: &'a Record) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            if record.operation == "PutObject" {
                self.go.notified().await;
            }
        })
    }
}

#[test]
fn an_observer_hears_of_requests_and_can_withhold_an_answer() {
    block_on(async {
        let observer = Arc::new(Withholder::default());
        let mut site =
            site(EndpointConfig { observer: Some(observer.clone()), ..EndpointConfig::default() }).await;
        let bytes = content(1, 1000);
        let put = ask("PUT", "/bkt/k", "", &bytes).trailer("x-amz-checksum-crc32", &crc32(&bytes));
        let withheld = async {
            loop {
                if let Some(record) = observer.records.lock().unwrap().first().cloned() {
                    break record;
                }
                tokio::task::yield_now().await;
            }
        };
        let answered = put.send(&site);
        let mut answered = Box::pin(answered);
        let record = tokio::select! {
            biased;
            answer = &mut answered => panic!("{answer:?}"),
            record = withheld => record,
        };
        assert_eq!((record.operation.as_str(), record.status, record.body_bytes), ("PutObject", 200, 1000));
        assert_eq!((record.bucket.as_deref(), record.key.as_deref()), (Some("bkt"), Some("k")));
        // Durable before it is answered.
        assert_eq!(site.spool.digest("bkt", "k").await.unwrap().0, sha(&bytes));
        observer.go.notify_one();
        assert_eq!(answered.as_mut().await.status, 200);
        drop(answered);
        ask("PUT", "/bkt/k", "partNumber=3&uploadId=none", b"x").send(&site).await;
        let last = observer.records.lock().unwrap().last().cloned().unwrap();
        assert_eq!((last.part_number, last.upload_id.as_deref()), (Some(3), Some("none")));
        assert_eq!((last.status, last.error.as_deref()), (404, Some("NoSuchUpload")));
        // A connection that never sends anything does not keep the endpoint from ending.
        let idle = RealSeams::new().net().connect("127.0.0.1", site.port).await.unwrap();
        site.stop.take().unwrap().send(()).unwrap();
        site.served.await.unwrap();
        drop(idle);
    });
}

#[test]
fn an_acknowledged_recording_can_be_sent_again_but_neither_changed_nor_removed() {
    // The incident: all devices share one pair of keys, and one overwrote what another had deleted its copy of.
    block_on(async {
        let frozen = Frozen::new("bkt");
        let site = site(EndpointConfig { frozen: Some(frozen.clone()), ..EndpointConfig::default() }).await;
        let (ours, theirs) = (content(1, 900), content(2, 900));
        let first = ask("PUT", "/bkt/k", "", &ours).with("x-amz-meta-checksum-sha256", "of the first");
        assert_eq!(first.send(&site).await.status, 200);
        put(&site.spool, "other", &theirs).await.unwrap();
        let stored = site.spool.head("bkt", "k").await.unwrap();
        frozen.freeze("k");

        let copy = ask("PUT", "/bkt/k", "", b"").with("x-amz-copy-source", "/bkt/other");
        let itself = ask("PUT", "/bkt/k", "", b"")
            .with("x-amz-copy-source", "/bkt/k")
            .with("x-amz-metadata-directive", "REPLACE");
        for refused in [ask("PUT", "/bkt/k", "", &theirs), ask("DELETE", "/bkt/k", "", b""), copy, itself] {
            let answer = refused.clone().send(&site).await;
            let told =
                answer.text().contains("<Code>ObjectFrozen</Code><Message>the recording under this key is");
            assert!(answer.status == 409 && told, "{} {answer:?}", refused.method);
        }
        let xml = "<Delete><Object><Key>k</Key></Object><Object><Key>none</Key></Object></Delete>";
        let answer = ask("POST", "/bkt", "delete=", xml.as_bytes()).send(&site).await.text();
        assert!(
            answer.contains("<Code>ObjectFrozen</Code>") && answer.contains("<Key>none</Key></Deleted>"),
            "{answer}"
        );

        let upload = async |bytes: Bytes| {
            let upload =
                site.spool.create_upload("bkt", "k", Described::default(), None, None).await.unwrap();
            let etag = part(&site.spool, &upload, 1, &bytes).await.unwrap();
            let xml = format!(
                "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>\"{etag}\"</ETag></Part></CompleteMultipartUpload>"
            );
            let query = format!("uploadId={}", upload.id);
            ask("POST", "/bkt/k", &query, xml.as_bytes()).send(&site).await
        };
        let answer = upload(theirs.clone()).await;
        assert!(answer.status == 409 && answer.text().contains("<Code>ObjectFrozen</Code>"), "{answer:?}");
        assert_eq!(site.spool.list_uploads("bkt").len(), 1, "it can be aborted");

        // An uploader that lost its state sends the same again, whole or in parts.
        let again = ask("PUT", "/bkt/k", "", &ours).with("x-amz-meta-checksum-sha256", "of the second");
        let answer = again.send(&site).await;
        assert_eq!(
            (answer.status, answer.header("etag")),
            (200, Some(format!("\"{}\"", stored.etag).as_str()))
        );
        let answer = upload(ours.clone()).await;
        assert!(answer.status == 200 && answer.text().contains(&stored.etag), "{answer:?}");
        assert_eq!(site.spool.list_uploads("bkt").len(), 1, "that upload is over");
        assert_eq!(site.spool.head("bkt", "k").await, Some(stored), "nothing changed, its metadata neither");
        assert_eq!(site.spool.digest("bkt", "k").await.unwrap().0, sha(&ours));

        // Other keys are free, the site itself is not bound, and a thawed key is free again.
        assert_eq!(ask("PUT", "/bkt/other", "", &ours).send(&site).await.status, 200);
        site.spool.delete("bkt", "k").await.unwrap();
        assert_eq!(
            ask("PUT", "/bkt/k", "", &ours).send(&site).await.status,
            200,
            "what was lost may come back"
        );
        frozen.thaw("k");
        assert_eq!(ask("PUT", "/bkt/k", "", &theirs).send(&site).await.status, 200);
        assert_eq!(ask("DELETE", "/bkt/k", "", b"").send(&site).await.status, 204);
    });
}

#[test]
fn the_bucket_of_the_devices_is_not_deleted_even_while_it_is_empty() {
    // The incident: stock uploaders give up for good on NoSuchBucket and move their recordings away.
    block_on(async {
        let frozen = Frozen::new("bkt");
        let site = site(EndpointConfig { frozen: Some(frozen), ..EndpointConfig::default() }).await;
        let answer = ask("DELETE", "/bkt", "", b"").send(&site).await;
        assert!(answer.status == 403 && answer.text().contains("<Code>AccessDenied</Code>"), "{answer:?}");
        assert_eq!(ask("PUT", "/other", "", b"").send(&site).await.status, 200);
        assert_eq!(
            ask("DELETE", "/other", "", b"").send(&site).await.status,
            204,
            "others are no concern of ours"
        );
        assert_eq!(ask("HEAD", "/bkt", "", b"").send(&site).await.status, 200);
    });
}

#[test]
fn a_body_that_pauses_for_too_long_is_given_up_and_that_is_counted() {
    block_on(async {
        let timeouts = Timeouts::default();
        let config = EndpointConfig {
            body_idle: Duration::from_millis(50),
            timeouts: timeouts.clone(),
            ..EndpointConfig::default()
        };
        let site = site(config).await;
        let put = ask("PUT", "/bkt/k", "", b"the whole");
        let mut stream = RealSeams::new().net().connect("127.0.0.1", site.port).await.unwrap();
        stream.write_all(put.head(site.port).as_bytes()).await.unwrap();
        stream.write_all(b"the").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.contains("<Code>RequestTimeout</Code>"), "{answer}");
        assert_eq!(timeouts.count(Op::Body), 1);
        assert!(site.spool.list_all("bkt").is_empty());
    });
}

#[test]
fn connections_without_a_request_make_room_and_one_that_uploads_slowly_stays() {
    block_on(async {
        let site = site(EndpointConfig { connections_max: 4, ..EndpointConfig::default() }).await;
        let net = *RealSeams::new().net();
        let put = ask("PUT", "/bkt/slow", "", b"abc");
        let mut slow = net.connect("127.0.0.1", site.port).await.unwrap();
        slow.write_all(put.head(site.port).as_bytes()).await.unwrap();
        slow.write_all(b"a").await.unwrap();
        let mut others = Vec::new();
        let asked = async {
            for n in 0..40 {
                let mut other = net.connect("127.0.0.1", site.port).await.unwrap();
                if n % 2 == 0 {
                    other.write_all(b"GET / HT").await.unwrap();
                }
                others.push(other);
            }
            ask("PUT", "/bkt/k", "", b"abc").send(&site).await
        };
        // Each of the others has half a minute if nobody needs its place.
        let answer = tokio::time::timeout(Duration::from_secs(25), asked).await.expect("room was made");
        assert_eq!(answer.status, 200, "{answer:?}");
        slow.write_all(b"bc").await.unwrap();
        let mut answer = String::new();
        slow.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    });
}
