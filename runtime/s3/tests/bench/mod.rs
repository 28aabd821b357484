//! Owns what the tests of the destination stand on: an S3 endpoint over a spool on loopback, a store that says what
//! it was told to say, and a [`CloudStore`] that talks to either.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tempfile::TempDir;
use tidegate_core::digest::Sha256;
use tidegate_core::id::{ObjectKey, PartNo, UploadId};
use tidegate_core::object::{ObjectReply, PartFacts, Span, Verb};
use tidegate_core::outcome::Outcome;
use tidegate_runtime::ingest::{AccessKey, Described, Endpoint, EndpointConfig, Observer, Record, Spool};
use tidegate_runtime::object::ObjectStore;
use tidegate_runtime::object::edge::EdgeStore;
use tidegate_runtime::real::RealSeams;
use tidegate_runtime::seam::{Listener, Net, Seams};
use tidegate_runtime::timeouts::Timeouts;
use tidegate_s3::{CloudConfig, CloudStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;

pub const EDGE: &str = "edge-test";
pub const CLOUD: &str = "fleet";

/// An S3 endpoint on loopback with an edge bucket, where sources are, and a cloud bucket.
pub struct Bench {
    pub spool: Spool<RealSeams>,
    pub endpoint: String,
    pub withheld: Arc<Withheld>,
    /// Of all destinations made here.
    pub timeouts: Timeouts,
    server: JoinHandle<()>,
    _folder: TempDir,
}

/// Withholds the answers to one operation for ever; the operation has its effect.
#[derive(Default)]
pub struct Withheld(Mutex<Option<&'static str>>);

impl Withheld {
    pub fn set(&self, operation: Option<&'static str>) {
        *self.0.lock().unwrap() = operation;
    }
}

impl Observer for Withheld {
    fn record(&self, _: Record) {}

    fn before_answer<'a>(&'a self, record: &'a Record) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        if *self.0.lock().unwrap() == Some(record.operation.as_str()) {
            Box::pin(std::future::pending())
        } else {
            Box::pin(std::future::ready(()))
        }
    }
}

impl Bench {
    pub async fn start() -> Bench {
        let folder = tempfile::tempdir().unwrap();
        let seams = RealSeams::new();
        let (spool, _) = Spool::open(seams.clone(), folder.path().join("s3")).await.unwrap();
        for bucket in [EDGE, CLOUD] {
            spool.create_bucket(bucket).await.unwrap();
        }
        let withheld = Arc::new(Withheld::default());
        let config = EndpointConfig {
            keys: vec![AccessKey { id: "id".to_owned(), secret: "secret".to_owned() }],
            observer: Some(withheld.clone()),
            shutdown_budget: Duration::ZERO,
            ..EndpointConfig::default()
        };
        let listener = seams.net().bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let served = Endpoint::new(spool.clone(), config);
        let server = tokio::spawn(async move { served.serve(listener, std::future::pending()).await });
        Bench { spool, endpoint, withheld, timeouts: Timeouts::default(), server, _folder: folder }
    }

    /// Nobody listens any more.
    pub async fn stop(&mut self) {
        self.server.abort();
        assert!((&mut self.server).await.unwrap_err().is_cancelled());
    }

    pub fn cloud(&self) -> Cloud {
        self.cloud_with(|_| {})
    }

    pub fn cloud_with(&self, change: impl FnOnce(&mut CloudConfig)) -> Cloud {
        let mut config = config(self.endpoint.clone());
        change(&mut config);
        let source = Arc::new(EdgeStore::new(self.spool.clone(), EDGE));
        Cloud(Box::new(CloudStore::new(RealSeams::new(), &config, source, self.timeouts.clone()).unwrap()))
    }

    /// Puts a recording at the edge.
    pub async fn source(&self, key: &str, bytes: &[u8]) {
        let bytes = Bytes::copy_from_slice(bytes);
        self.spool.put_bytes(EDGE, key, Described::default(), bytes).await.unwrap();
    }
}

pub fn config(endpoint: String) -> CloudConfig {
    CloudConfig {
        endpoint: Some(endpoint),
        region: "us-east-1".to_owned(),
        bucket: CLOUD.to_owned(),
        access_key: "id".to_owned(),
        secret_key: "secret".to_owned(),
        session_token: None,
        path_style: true,
        attempt_timeout: Duration::from_secs(30),
        connect_timeout: Duration::from_secs(5),
    }
}

/// A store with shorter words for its operations.
pub struct Cloud(pub Box<dyn ObjectStore>);

impl Cloud {
    pub async fn run(&self, key: &str, verb: Verb) -> Outcome<ObjectReply> {
        self.0.run(&named(key), &verb).await
    }

    pub async fn create(&self, key: &str, bytes: &[u8]) -> UploadId {
        match self.run(key, Verb::Create { sha256: Sha256::of(bytes) }).await {
            Outcome::Done(ObjectReply::Created(id)) => id,
            other => panic!("{other:?}"),
        }
    }

    pub async fn put_part(&self, key: &str, upload: &UploadId, number: u16, span: Span) -> PartFacts {
        match self.run(key, put_part(upload, number, span)).await {
            Outcome::Done(ObjectReply::PartStored(facts)) => facts,
            other => panic!("{other:?}"),
        }
    }
}

/// The operation that sends a span of the source `from`.
pub fn put_part(upload: &UploadId, number: u16, span: Span) -> Verb {
    Verb::PutPart { upload: upload.clone(), part: PartNo(number), source: named("from"), span }
}

pub fn named(text: &str) -> ObjectKey {
    ObjectKey::new(text).unwrap()
}

/// Bytes that differ from place to place.
pub fn pattern(len: usize) -> Vec<u8> {
    (0..len as u64).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()[0]).collect()
}

/// What a scripted store does with a request.
#[derive(Clone, Copy)]
pub enum Line {
    /// Sends this and closes.
    Say(&'static str),
    /// Says `then` to a request whose first line holds `marker`, else `first`; closes.
    Pages { marker: &'static str, first: &'static str, then: &'static str },
    /// Closes without a word.
    Close,
    /// Says nothing and keeps the connection.
    Hang,
    /// Begins an answer and says a little more of it every 100 ms, without an end.
    Dribble,
}

/// A store that treats every request like `line` says. Its URL.
pub async fn scripted(line: Line) -> String {
    let mut listener = RealSeams::new().net().bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let head = read_request(&mut stream).await;
            match line {
                Line::Pages { marker, first, then } => {
                    let text = if head.contains(marker) { then } else { first };
                    stream.write_all(text.as_bytes()).await.unwrap();
                    stream.shutdown().await.unwrap();
                }
                Line::Say(text) => {
                    stream.write_all(text.as_bytes()).await.unwrap();
                    stream.shutdown().await.unwrap();
                }
                Line::Close => drop(stream),
                Line::Dribble => {
                    let head = "HTTP/1.1 200 OK\r\nx-so-far: ";
                    let mut said = stream.write_all(head.as_bytes()).await;
                    while said.is_ok() {
                        tokio::time::sleep(Duration::from_millis(100)).await;
                        said = stream.write_all(b"x").await;
                    }
                }
                Line::Hang => {
                    // Ends when the client gives up.
                    let _ = stream.read_u8().await;
                }
            }
        }
    });
    endpoint
}

/// The head of a request, in lower case; its body is read as well.
async fn read_request(stream: &mut (impl AsyncReadExt + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    let head = String::from_utf8(head).unwrap().to_lowercase();
    let len = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    let mut body = vec![0; len.map_or(0, |len| len.trim().parse().unwrap())];
    let _ = stream.read_exact(&mut body).await;
    head
}
