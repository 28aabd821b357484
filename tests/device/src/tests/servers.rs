//! The other ends, for tests: a WebSocket server of another library, a recipient of callbacks, an object store.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::{HeaderMap, Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::DuplexStream;
use tokio_websockets::{CloseCode, Limits, Message, ServerBuilder, WebSocketStream};

use super::floor::{Door, Floor};
use crate::sigv4::sha256_hex;
use crate::{DeviceConfig, RecordPlan, S3Config};

pub(super) const RECORDER_PORT: u16 = 8091;
pub(super) const TRANSFER_PORT: u16 = 8090;
pub(super) const CALLBACK_PORT: u16 = 18091;
pub(super) const S3_PORT: u16 = 9000;
pub(super) const PATIENCE: Duration = Duration::from_secs(300);

pub(super) fn config() -> DeviceConfig {
    let s3 = S3Config {
        host: "store".to_owned(),
        port: S3_PORT,
        access_key: "key".to_owned(),
        secret_key: "secret".to_owned(),
        bucket: "edge-axon".to_owned(),
        region: "us-east-1".to_owned(),
        factory_id: "factory-site".to_owned(),
        request_timeout: Duration::from_secs(10),
    };
    let recorder = format!("ws://gate:{RECORDER_PORT}/recorder/dev-a");
    let transfer = format!("ws://gate:{TRANSFER_PORT}/transfer");
    let mut config = DeviceConfig::new("dev-a", recorder, transfer, "/data/rec", s3);
    config.record = RecordPlan { target_bytes: 200 << 10, ..RecordPlan::default() };
    config
}

/// The server's end of a link.
pub(super) struct Peer(pub(super) WebSocketStream<DuplexStream>);

impl Peer {
    pub(super) async fn accept(door: &mut Door) -> (http::request::Parts, Self) {
        let limits = Limits::default().max_payload_len(Some(16 << 20));
        let accepted = ServerBuilder::new().limits(limits).accept(door.next().await).await;
        let (request, ws) = accepted.unwrap();
        (request.into_parts().0, Self(ws))
    }
    pub(super) async fn send(&mut self, text: impl Into<String>) {
        self.0.send(Message::text(text.into())).await.unwrap();
    }
    /// The next text, as it came; panics at anything else that is not a ping.
    pub(super) async fn text(&mut self) -> String {
        loop {
            let message = tokio::time::timeout(PATIENCE, self.0.next()).await.expect("a message in time");
            let message = message.expect("an open link").expect("a valid frame");
            if message.is_ping() || message.is_pong() {
                continue;
            }
            return message.as_text().unwrap_or_else(|| panic!("expected text, got {message:?}")).to_owned();
        }
    }
    pub(super) async fn json(&mut self) -> Value {
        serde_json::from_str(&self.text().await).unwrap()
    }
    pub(super) async fn close(mut self, code: u16, reason: &str) {
        let code = CloseCode::try_from(code).unwrap();
        self.0.send(Message::close(Some(code), reason)).await.unwrap();
        while self.0.next().await.is_some_and(|message| message.is_ok()) {}
    }
}

/// A request as it arrived.
pub(super) struct Arrived {
    pub(super) method: Method,
    pub(super) target: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// Answers every request on `port` by `answer`.
pub(super) fn serve(
    floor: &Floor,
    port: u16,
    answer: impl Fn(Arrived) -> Response<Full<Bytes>> + Send + Sync + 'static,
) {
    let (mut door, answer) = (floor.net.open(port), Arc::new(answer));
    tokio::spawn(async move {
        loop {
            let (stream, answer) = (door.next().await, Arc::clone(&answer));
            let service = service_fn(move |request: Request<Incoming>| {
                let answer = Arc::clone(&answer);
                async move {
                    let (head, body) = request.into_parts();
                    let body = body.collect().await?.to_bytes();
                    let target = head.uri.to_string();
                    let arrived = Arrived { method: head.method, target, headers: head.headers, body };
                    Ok::<_, hyper::Error>(answer(arrived))
                }
            });
            let serving = hyper::server::conn::http1::Builder::new();
            tokio::spawn(serving.serve_connection(TokioIo::new(stream), service));
        }
    });
}

/// Collects callbacks and answers them with `status`.
pub(super) fn callbacks(floor: &Floor, status: u16) -> Arc<Mutex<Vec<Arrived>>> {
    let arrived = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&arrived);
    serve(floor, CALLBACK_PORT, move |request| {
        kept.lock().unwrap().push(request);
        Response::builder().status(status).body(Full::default()).unwrap()
    });
    arrived
}

/// An object store that believes every signature but checks every content hash.
#[derive(Clone, Default)]
pub(super) struct Store(pub(super) Arc<Mutex<Shelves>>);

#[derive(Default)]
pub(super) struct Shelves {
    /// Content and checksum metadata by path.
    pub(super) objects: BTreeMap<String, (Bytes, String)>,
    parts: BTreeMap<u32, Bytes>,
    pending_checksum: String,
    /// Method and target of every request, in order.
    pub(super) requests: Vec<String>,
    /// Answers to come before the honest ones: status and code.
    pub(super) refusals: Vec<(u16, &'static str)>,
}

impl Store {
    pub(super) fn open(floor: &Floor) -> Self {
        let store = Self::default();
        let shelves = Arc::clone(&store.0);
        serve(floor, S3_PORT, move |request| shelves.lock().unwrap().answer(&request));
        store
    }
}

impl Shelves {
    fn answer(&mut self, request: &Arrived) -> Response<Full<Bytes>> {
        let header = |name: &str| request.headers.get(name).map(|v| v.to_str().unwrap().to_owned());
        self.requests.push(format!("{} {}", request.method, request.target));
        assert_eq!(header("x-amz-content-sha256"), Some(sha256_hex(&request.body)));
        let plain =
            |status: u16, body: String| Response::builder().status(status).body(Full::from(body)).unwrap();
        if !self.refusals.is_empty() {
            let (status, code) = self.refusals.remove(0);
            let body = format!("<Error><Code>{code}</Code><Message>no</Message></Error>");
            return plain(status, if request.method == Method::HEAD { String::new() } else { body });
        }
        let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
        let checksum = header("x-amz-meta-checksum-sha256").unwrap_or_default();
        let part = query.split('&').find_map(|pair| pair.strip_prefix("partNumber="));
        let etag = |status: u16| {
            let builder = Response::builder().status(status).header("etag", "\"e\"");
            builder.body(Full::default()).unwrap()
        };
        match (request.method.as_str(), part) {
            ("PUT", Some(number)) => {
                self.parts.insert(number.parse().unwrap(), request.body.clone());
                etag(200)
            }
            ("PUT", None) => {
                self.objects.insert(path.to_owned(), (request.body.clone(), checksum));
                etag(200)
            }
            ("POST", _) if query.starts_with("uploads") => {
                self.pending_checksum = checksum;
                plain(200, "<R><UploadId>u1</UploadId></R>".to_owned())
            }
            ("POST", _) => {
                let whole: Vec<u8> = std::mem::take(&mut self.parts).into_values().flatten().collect();
                let checksum = std::mem::take(&mut self.pending_checksum);
                self.objects.insert(path.to_owned(), (whole.into(), checksum));
                plain(200, "<R><ETag>&quot;m-2&quot;</ETag></R>".to_owned())
            }
            ("DELETE", _) => plain(204, String::new()),
            ("GET", _) if query.contains("list-type") => {
                let entries = self.objects.iter().map(|(key, (body, _))| {
                    let key = key.trim_start_matches("/edge-axon/");
                    format!("<Contents><Key>{key}</Key><Size>{}</Size></Contents>", body.len())
                });
                plain(200, entries.collect())
            }
            (_, _) => match self.objects.get(path) {
                Some((body, checksum)) => {
                    let mut builder = Response::builder().header("etag", "\"e\"");
                    if !checksum.is_empty() {
                        builder = builder.header("x-amz-meta-checksum-sha256", checksum);
                    }
                    builder.body(Full::from(body.clone())).unwrap()
                }
                None => plain(404, "<Error><Code>NoSuchKey</Code></Error>".to_owned()),
            },
        }
    }
}
