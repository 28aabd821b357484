//! A proxy in front of an object store: it names the operation of every request, and can hold it, answer it itself,
//! change its answer or break its connection. The store behind it is any server that speaks S3 over plain HTTP. Must
//! not change a request that no rule is about: signatures cover the host, which is passed on as it came.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};

use crate::rig::STEP;

/// What happens to a request that a rule is about.
#[derive(Clone, Debug)]
pub enum Act {
    /// It stops here until [`Proxy::release`]; the store does not see it before.
    HoldRequest,
    /// The store does it; its answer stops here until [`Proxy::release`].
    HoldAnswer,
    /// The store never sees it; this is the answer.
    Answer(Answer),
    /// The store does it; this is the answer all the same.
    AnswerAfter(Answer),
    /// The connection is reset once so many bytes of its body were read; the store never sees it.
    ResetRequest {
        /// Bytes of the body.
        after: usize,
    },
    /// The store does it; the connection is reset before the answer's first byte.
    ResetAnswer,
    /// The store does it; half of the answer's body is sent, then the connection is reset.
    HalfAnswer,
    /// The store does it; this header of the answer is replaced.
    Header(&'static str, String),
}

/// An answer of the proxy's own.
#[derive(Clone, Debug)]
pub struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: String,
}

impl Answer {
    /// A status with nothing else.
    pub fn status(status: u16) -> Answer {
        Answer { status, headers: Vec::new(), body: String::new() }
    }

    /// An error as S3 writes it.
    pub fn error(status: u16, code: &str) -> Answer {
        let body = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code>\
             <Message>as the test asked for</Message><RequestId>1</RequestId></Error>"
        );
        Answer { status, headers: vec![("content-type", "application/xml".to_owned())], body }
    }

    /// With one more header.
    pub fn with(mut self, name: &'static str, value: &str) -> Answer {
        self.headers.push((name, value.to_owned()));
        self
    }

    /// With another body.
    pub fn body(mut self, body: &str) -> Answer {
        body.clone_into(&mut self.body);
        self
    }

    /// An answer to HEAD has no body, whatever it would be.
    fn response(&self, head: bool) -> Response<Out> {
        let mut response = Response::builder().status(self.status);
        for (name, value) in &self.headers {
            response = response.header(*name, value);
        }
        let body = if head { Bytes::new() } else { Bytes::from(self.body.clone()) };
        response.body(full(body)).expect("a test's own answer is an answer")
    }
}

/// Which requests, and what happens to them.
#[derive(Clone, Debug)]
struct Rule {
    operation: &'static str,
    skip: usize,
    times: usize,
    act: Act,
}

/// A request that reached the proxy.
#[derive(Clone, Debug)]
pub struct Seen {
    /// `PutObject`, `UploadPart`, …
    pub operation: &'static str,
    /// The path without the bucket, percent-encoded as it came.
    pub key: String,
    /// Part number, if it names one.
    pub part: Option<u16>,
    /// Bytes of its body, as far as they were read.
    pub body: u64,
    /// Whether it was passed on to the store.
    pub passed: bool,
    /// Status that the store answered with, if it did.
    pub stored: Option<u16>,
    /// Status that was sent back, if one was.
    pub answered: Option<u16>,
}

type Out = BoxBody<Bytes, io::Error>;

fn full(bytes: Bytes) -> Out {
    Full::new(bytes).map_err(|never: Infallible| match never {}).boxed()
}

/// The proxy. Dropping it closes its port and everything that passes through it.
pub struct Proxy {
    /// Where it listens on loopback.
    pub port: u16,
    inside: Arc<Inside>,
    _stop: oneshot::Sender<()>,
}

struct Inside {
    store: u16,
    state: Mutex<State>,
    /// Counts releases: who is held waits for the next.
    released: watch::Sender<u64>,
    held: watch::Sender<usize>,
    /// Requests that are not over, or not done by the store yet.
    underway: watch::Sender<usize>,
}

/// Counts a request until it is dropped.
struct Underway(Arc<Inside>);

impl Underway {
    fn begin(inside: &Arc<Inside>) -> Underway {
        inside.underway.send_modify(|count| *count += 1);
        Underway(Arc::clone(inside))
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        self.0.underway.send_modify(|count| *count -= 1);
    }
}

#[derive(Default)]
struct State {
    rules: VecDeque<Rule>,
    seen: Vec<Seen>,
}

impl Proxy {
    /// Before the store that listens on this port of loopback.
    pub async fn before(store: u16) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a socket");
        let port = listener.local_addr().expect("its address").port();
        let inside = Arc::new(Inside {
            store,
            state: Mutex::default(),
            released: watch::Sender::new(0),
            held: watch::Sender::new(0),
            underway: watch::Sender::new(0),
        });
        let (stop, stopped) = oneshot::channel::<()>();
        tokio::spawn(accept(listener, Arc::clone(&inside), stopped));
        Proxy { port, inside, _stop: stop }
    }

    /// The next request of this operation, and no other.
    pub fn once(&self, operation: &'static str, act: Act) {
        self.rule(operation, 0, 1, act);
    }

    /// Every request of this operation until [`Proxy::clear`].
    pub fn always(&self, operation: &'static str, act: Act) {
        self.rule(operation, 0, usize::MAX, act);
    }

    /// Lets `skip` requests of this operation pass, then acts on `times` of them. `*` is any operation. Rules are
    /// looked at in the order they were made; the first that is about a request decides.
    pub fn rule(&self, operation: &'static str, skip: usize, times: usize, act: Act) {
        self.inside.state().rules.push_back(Rule { operation, skip, times, act });
    }

    /// Forgets all rules. What is held stays held.
    pub fn clear(&self) {
        self.inside.state().rules.clear();
    }

    /// Forgets all rules and lets go what is held: requests go to the store, answers to the site.
    pub fn release(&self) {
        self.clear();
        self.let_go();
    }

    /// Lets go what is held; the rules stay.
    pub fn let_go(&self) {
        self.inside.held.send_replace(0);
        self.inside.released.send_modify(|n| *n += 1);
    }

    /// Whether anything was held since the last time that all was let go.
    pub fn holds_any(&self) -> bool {
        *self.inside.held.borrow() > 0
    }

    /// Waits until so many requests or answers are held.
    pub async fn held(&self, count: usize) {
        let mut held = self.inside.held.subscribe();
        let waiting = tokio::time::timeout(STEP, held.wait_for(|held| *held >= count));
        let came = waiting.await.is_ok_and(|waited| waited.is_ok());
        assert!(came, "nothing was held within {STEP:?}; requests: {:#?}", self.summary());
    }

    /// Waits until what a killed site had under way is dropped or done by the store: nothing of it comes late.
    pub async fn settled(&self) {
        let mut underway = self.inside.underway.subscribe();
        let settled = tokio::time::timeout(STEP, underway.wait_for(|count| *count == 0)).await;
        let settled = settled.is_ok_and(|waited| waited.is_ok());
        assert!(settled, "requests of a dead site stay under way: {:#?}", self.summary());
    }

    /// Requests of an operation, oldest first.
    pub fn seen(&self, operation: &str) -> Vec<Seen> {
        let state = self.inside.state();
        state.seen.iter().filter(|seen| operation == "*" || seen.operation == operation).cloned().collect()
    }

    /// Forgets what was seen so far.
    pub fn forget(&self) {
        self.inside.state().seen.clear();
    }

    /// Bytes of bodies that went to the store.
    pub fn bytes_passed(&self) -> u64 {
        self.inside.state().seen.iter().filter(|seen| seen.passed).map(|seen| seen.body).sum()
    }

    /// One line per request.
    pub fn summary(&self) -> Vec<String> {
        let state = self.inside.state();
        let line = |s: &Seen| {
            format!(
                "{} {} {:?} {} bytes, store {:?}, answered {:?}",
                s.operation, s.key, s.part, s.body, s.stored, s.answered
            )
        };
        state.seen.iter().map(line).collect()
    }
}

impl Inside {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The rule for this request, used up once more; and the number of its entry in the list of what was seen.
    fn enter(&self, mut seen: Seen) -> (usize, Option<Act>) {
        let mut state = self.state();
        let mut act = None;
        for rule in &mut state.rules {
            let about = rule.operation == "*" || rule.operation == seen.operation;
            if !about {
                continue;
            }
            if rule.skip > 0 {
                rule.skip -= 1;
                break;
            }
            if rule.times > 0 {
                rule.times = if rule.times == usize::MAX { usize::MAX } else { rule.times - 1 };
                act = Some(rule.act.clone());
                break;
            }
        }
        seen.passed = false;
        state.seen.push(seen);
        (state.seen.len() - 1, act)
    }

    fn note(&self, at: usize, change: impl FnOnce(&mut Seen)) {
        // Forgotten meanwhile: nobody asks any more.
        if let Some(seen) = self.state().seen.get_mut(at) {
            change(seen);
        }
    }

    async fn hold(&self) {
        let mut released = self.released.subscribe();
        released.mark_unchanged();
        self.held.send_modify(|held| *held += 1);
        // An error is a proxy that is gone.
        let _ = released.changed().await;
    }
}

async fn accept(listener: TcpListener, inside: Arc<Inside>, mut stopped: oneshot::Receiver<()>) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            biased;
            _ = &mut stopped => return,
            Ok((stream, _)) = listener.accept() => {
                let _ = stream.set_nodelay(true);
                let reset = Arc::new(AtomicBool::new(false));
                let stream = Resettable { inner: stream, reset: Arc::clone(&reset) };
                let inside = Arc::clone(&inside);
                connections.spawn(async move {
                    let service = hyper::service::service_fn(move |request| {
                        let (inside, reset) = (Arc::clone(&inside), Arc::clone(&reset));
                        async move { one(&inside, &reset, request).await }
                    });
                    // An error is a connection that a rule or the site broke.
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
}

/// Ends the connection with a reset.
fn broken(reset: &AtomicBool) -> io::Error {
    reset.store(true, Ordering::SeqCst);
    io::ErrorKind::ConnectionReset.into()
}

async fn one(
    inside: &Arc<Inside>,
    reset: &Arc<AtomicBool>,
    request: Request<Incoming>,
) -> io::Result<Response<Out>> {
    let underway = Underway::begin(inside);
    let (at, act) = inside.enter(named(request.method(), request.uri()));
    let is_head = request.method() == Method::HEAD;
    let (parts, mut body) = request.into_parts();
    let mut bytes = Vec::new();
    let stop_after = match act {
        Some(Act::ResetRequest { after }) => Some(after),
        _ => None,
    };
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return Err(broken(reset)) };
        if let Some(data) = frame.data_ref() {
            bytes.extend_from_slice(data);
        }
        inside.note(at, |seen| seen.body = bytes.len() as u64);
        if stop_after.is_some_and(|after| bytes.len() >= after) {
            return Err(broken(reset));
        }
    }
    if stop_after.is_some() {
        return Err(broken(reset));
    }
    match &act {
        Some(Act::HoldRequest) => inside.hold().await,
        Some(Act::Answer(answer)) => {
            inside.note(at, |seen| seen.answered = Some(answer.status));
            return Ok(answer.response(is_head));
        }
        _ => {}
    }
    inside.note(at, |seen| seen.passed = true);
    let request = Request::from_parts(parts, Full::new(Bytes::from(bytes)));
    let stored = pass(inside.store, request, underway).await;
    let Ok(mut response) = stored else { return Err(broken(reset)) };
    inside.note(at, |seen| seen.stored = Some(response.status().as_u16()));
    match act {
        Some(Act::HoldAnswer) => inside.hold().await,
        Some(Act::AnswerAfter(answer)) => {
            inside.note(at, |seen| seen.answered = Some(answer.status));
            return Ok(answer.response(is_head));
        }
        Some(Act::ResetAnswer) => return Err(broken(reset)),
        Some(Act::HalfAnswer) => {
            let (parts, body) = response.into_parts();
            let half = Frame::data(body.slice(..body.len() / 2));
            let frames = futures_util::stream::iter([Ok(half), Err(broken(reset))]);
            return Ok(Response::from_parts(parts, BoxBody::new(StreamBody::new(frames))));
        }
        Some(Act::Header(name, value)) => {
            response.headers_mut().insert(name, value.parse().expect("a test's own header"));
        }
        Some(Act::HoldRequest | Act::Answer(_) | Act::ResetRequest { .. }) | None => {}
    }
    inside.note(at, |seen| seen.answered = Some(response.status().as_u16()));
    // An answer to HEAD says how long its body would be and has none; hyper leaves that header alone.
    Ok(response.map(full))
}

/// Sends a request to the store on a connection of its own and reads the whole answer.
async fn pass(
    store: u16,
    mut request: Request<Full<Bytes>>,
    underway: Underway,
) -> Result<Response<Bytes>, ()> {
    request.headers_mut().remove(http::header::TRANSFER_ENCODING);
    let stream = TcpStream::connect(("127.0.0.1", store)).await.map_err(drop)?;
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.map_err(drop)?;
    let connection = tokio::spawn(connection);
    // The request is on its way even if the site is killed meanwhile and nobody waits for this future any more.
    let answer = tokio::spawn(async move {
        let _underway = underway;
        let (parts, body) = sender.send_request(request).await.map_err(drop)?.into_parts();
        let body = body.collect().await.map_err(drop)?.to_bytes();
        Ok(Response::from_parts(parts, body))
    });
    let answer = answer.await.map_err(drop)?;
    connection.abort();
    answer.map(|mut answer: Response<Bytes>| {
        answer.headers_mut().remove(http::header::TRANSFER_ENCODING);
        answer.headers_mut().remove(http::header::CONNECTION);
        answer
    })
}

/// What a request is, by the rules of S3 in path style.
fn named(method: &Method, uri: &http::Uri) -> Seen {
    let query: Vec<(&str, &str)> = uri
        .query()
        .unwrap_or_default()
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .collect();
    let value = |name: &str| query.iter().find(|(key, _)| *key == name).map(|(_, value)| *value);
    let key = uri.path().trim_start_matches('/').split_once('/').map_or("", |(_, key)| key);
    let upload = value("uploadId").is_some();
    let operation = match (method.as_str(), key.is_empty()) {
        ("PUT", false) if upload => "UploadPart",
        ("PUT", false) => "PutObject",
        ("POST", false) if upload => "CompleteMultipartUpload",
        ("POST", false) if value("uploads").is_some() => "CreateMultipartUpload",
        ("DELETE", false) if upload => "AbortMultipartUpload",
        ("DELETE", false) => "DeleteObject",
        ("HEAD", false) => "HeadObject",
        ("HEAD", true) => "HeadBucket",
        ("GET", false) if upload => "ListParts",
        ("GET", false) => "GetObject",
        ("GET", true) if value("uploads").is_some() => "ListMultipartUploads",
        ("GET", true) => "ListObjects",
        _ => "?",
    };
    Seen {
        operation,
        key: key.to_owned(),
        part: value("partNumber").and_then(|number| number.parse().ok()),
        body: 0,
        passed: false,
        stored: None,
        answered: None,
    }
}

/// A connection that can be ended with a reset instead of a proper end.
struct Resettable {
    inner: TcpStream,
    reset: Arc<AtomicBool>,
}

impl Drop for Resettable {
    fn drop(&mut self) {
        if self.reset.load(Ordering::SeqCst) {
            // No lingering: what was not sent is dropped, and the other side sees a reset.
            let _ = self.inner.set_zero_linger();
        }
    }
}

impl AsyncRead for Resettable {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl AsyncWrite for Resettable {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// A site whose cloud is behind a proxy does what it does without one.
#[test]
fn a_proxy_without_rules_changes_nothing_and_names_every_request() {
    crate::rig::run(async {
        let cloud = crate::cloud::Cloud::start().await;
        let proxy = Proxy::before(cloud.port).await;
        let site = crate::rig::Plan::with_store(proxy.port).start().await;
        let take = crate::script::Take::new("robot-1", "proxied", 71, 11 << 20);
        let mut uploader = crate::script::Uploader::connect(&site, "robot-1").await;
        let episode = uploader.deliver(&site, &take).await;
        site.approve_and_sync(episode).await;
        site.synced(episode).await;
        assert_eq!(cloud.digest(&take.cloud_key()).await, (take.sha256(), take.mcap.len() as u64));
        assert_eq!(proxy.seen("CreateMultipartUpload").len(), 1, "{:#?}", proxy.summary());
        assert_eq!(proxy.seen("UploadPart").len(), 3, "{:#?}", proxy.summary());
        assert_eq!(proxy.seen("CompleteMultipartUpload").len(), 1, "{:#?}", proxy.summary());
        assert!(proxy.seen("*").iter().all(|seen| seen.operation != "?" && seen.stored == seen.answered));
    });
}

/// Each act does to a plain request what it says.
#[test]
fn every_act_of_the_proxy_does_what_it_says() {
    crate::rig::run(async {
        let cloud = crate::cloud::Cloud::start().await;
        let proxy = Proxy::before(cloud.port).await;
        let ask = async |path: &str| -> Result<(u16, Bytes), ()> {
            let stream = TcpStream::connect(("127.0.0.1", proxy.port)).await.map_err(drop)?;
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(drop)?;
            tokio::spawn(connection);
            let request = Request::builder().method("PUT").uri(path).header("host", "localhost");
            let request = request.body(Full::new(Bytes::from_static(b"sixteen bytes...")));
            let answer = sender.send_request(request.expect("a request")).await.map_err(drop)?;
            let status = answer.status().as_u16();
            Ok((status, answer.into_body().collect().await.map_err(drop)?.to_bytes()))
        };
        // The store refuses what is not signed.
        let (status, body) = ask("/it-cloud/k").await.expect("an answer");
        assert_eq!(status, 403);
        assert_eq!(proxy.seen("PutObject")[0].stored, Some(403));
        proxy.once("PutObject", Act::Answer(Answer::error(503, "SlowDown").with("retry-after", "7")));
        assert_eq!(ask("/it-cloud/k").await.expect("an answer").0, 503);
        assert_eq!(proxy.seen("PutObject")[1].stored, None, "the store did not see it");
        proxy.rule("*", 1, 1, Act::AnswerAfter(Answer::status(500)));
        assert_eq!(ask("/it-cloud/k").await.expect("skipped once").0, 403);
        assert_eq!(ask("/it-cloud/k").await.expect("an answer").0, 500);
        assert_eq!(proxy.seen("PutObject")[3].stored, Some(403));
        for act in [Act::ResetRequest { after: 4 }, Act::ResetAnswer, Act::HalfAnswer] {
            proxy.once("UploadPart", act.clone());
            assert_eq!(ask("/it-cloud/k?partNumber=1&uploadId=u").await, Err(()), "{act:?}");
        }
        let passed: Vec<bool> = proxy.seen("UploadPart").iter().map(|seen| seen.passed).collect();
        assert_eq!(passed, [false, true, true]);
        for act in [Act::HoldRequest, Act::HoldAnswer] {
            let before = proxy.seen("PutObject").len();
            proxy.once("PutObject", act.clone());
            let held = async {
                proxy.held(1).await;
                let seen = proxy.seen("PutObject")[before].clone();
                assert_eq!(seen.stored.is_some(), matches!(act, Act::HoldAnswer), "{act:?}");
                proxy.release();
            };
            let (answered, ()) = tokio::join!(ask("/it-cloud/k"), held);
            assert_eq!(answered.expect("an answer after the release"), (403, body.clone()));
        }
    });
}
