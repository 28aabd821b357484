//! A cloud for tests: an object store in this process that logs what reaches it, counts every byte on its sockets,
//! can withhold answers and can stop reading in the middle of a request.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use tempfile::TempDir;
use tidegate_runtime::ingest::{AccessKey, Endpoint, EndpointConfig, Observer, Record, Spool};
use tidegate_runtime::object::Boxed;
use tidegate_runtime::real::RealSeams;
use tidegate_runtime::seam::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};

use crate::rig::{STEP, hex};

/// The bucket that sites send to.
pub const BUCKET: &str = "it-cloud";
/// The key id that sites send with.
pub const KEY: &str = "it-cloud-key";
/// Its secret.
pub const SECRET: &str = "it-cloud-secret-value";

/// A running store.
pub struct Cloud {
    /// Where it listens on loopback.
    pub port: u16,
    /// What is stored.
    pub spool: Spool<RealSeams>,
    /// What reached it.
    pub watcher: Arc<Watcher>,
    /// What crossed its sockets.
    pub meter: Arc<Meter>,
    _stop: oneshot::Sender<()>,
    _dir: TempDir,
}

impl Cloud {
    /// Starts an empty store.
    pub async fn start() -> Cloud {
        let dir =
            tempfile::Builder::new().prefix("tidegate-it-cloud-").tempdir().expect("a temporary directory");
        let opened = Spool::open(RealSeams::new(), dir.path().join("objects")).await;
        let (spool, _) = opened.expect("the cloud's storage");
        spool.create_bucket(BUCKET).await.expect("the cloud's bucket");
        let watcher = Arc::new(Watcher::new());
        let config = EndpointConfig {
            keys: vec![AccessKey { id: KEY.to_owned(), secret: SECRET.to_owned() }],
            observer: Some(Arc::clone(&watcher) as Arc<dyn Observer>),
            ..EndpointConfig::default()
        };
        let endpoint = Endpoint::new(spool.clone(), config);
        let meter = Arc::new(Meter::new());
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a socket");
        let port = listener.local_addr().expect("its address").port();
        let listener = MeteredListener::new(listener, Arc::clone(&meter));
        let (stop, stopped) = oneshot::channel::<()>();
        tokio::spawn(async move {
            endpoint
                .serve(listener, async {
                    let _ = stopped.await;
                })
                .await;
        });
        Cloud { port, spool, watcher, meter, _stop: stop, _dir: dir }
    }

    /// Keys of all objects.
    pub fn keys(&self) -> Vec<String> {
        self.spool.list_all(BUCKET).into_iter().map(|object| object.key).collect()
    }

    /// SHA-256 and length of an object, read from its bytes.
    pub async fn digest(&self, key: &str) -> (String, u64) {
        let (digest, len) = self.spool.digest(BUCKET, key).await.unwrap_or_else(|error| {
            panic!("{key} is not in the cloud ({error:?}); there are {:?}", self.keys())
        });
        (hex(&digest), len)
    }

    /// Multipart uploads that are neither completed nor aborted.
    pub fn open_uploads(&self) -> Vec<String> {
        self.spool.list_uploads(BUCKET).into_iter().map(|upload| upload.key).collect()
    }
}

/// Withhold answers to an operation once `after` of them were given.
#[derive(Clone, Copy, Debug)]
struct Hold {
    operation: &'static str,
    after: usize,
}

/// Logs requests and withholds answers.
pub struct Watcher {
    requests: Mutex<Requests>,
    holds: watch::Sender<Vec<Hold>>,
    held: watch::Sender<usize>,
}

#[derive(Default)]
struct Requests {
    received: Vec<Record>,
    answered: Vec<Record>,
}

impl Watcher {
    fn new() -> Watcher {
        Watcher {
            requests: Mutex::default(),
            holds: watch::Sender::new(Vec::new()),
            held: watch::Sender::new(0),
        }
    }

    fn requests(&self) -> MutexGuard<'_, Requests> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Withholds the answers to `operation` from the moment `after` more of them were given, and no others.
    pub fn hold(&self, operation: &'static str, after: usize) {
        self.held.send_replace(0);
        self.holds.send_replace(Vec::new());
        self.hold_too(operation, after);
    }

    /// Withholds the answers to one more operation.
    pub fn hold_too(&self, operation: &'static str, after: usize) {
        let after = self.answered(operation).len() + after;
        self.holds.send_modify(|holds| holds.push(Hold { operation, after }));
    }

    /// Lets every answer pass.
    pub fn release(&self) {
        self.holds.send_replace(Vec::new());
    }

    /// Waits until an answer is withheld, for ever if none is.
    pub async fn any_held(&self) {
        if self.held.subscribe().wait_for(|held| *held > 0).await.is_err() {
            std::future::pending().await
        }
    }

    /// Waits until so many answers are withheld.
    pub async fn held(&self, count: usize) {
        let mut held = self.held.subscribe();
        let waiting = tokio::time::timeout(STEP, held.wait_for(|held| *held >= count));
        let came = waiting.await.is_ok_and(|waited| waited.is_ok());
        assert!(came, "no answer was withheld within {STEP:?}; requests: {:#?}", self.summary());
    }

    /// Finished requests of an operation that had success, whether or not their answer was sent.
    pub fn received(&self, operation: &str) -> Vec<Record> {
        let requests = self.requests();
        requests.received.iter().filter(|r| r.operation == operation && r.status < 300).cloned().collect()
    }

    /// Requests of an operation that had success and were answered.
    pub fn answered(&self, operation: &str) -> Vec<Record> {
        let requests = self.requests();
        requests.answered.iter().filter(|r| r.operation == operation && r.status < 300).cloned().collect()
    }

    /// One line per request.
    pub fn summary(&self) -> Vec<String> {
        let requests = self.requests();
        let line = |r: &Record| {
            format!(
                "{} {} {:?} {} bytes -> {}",
                r.operation,
                r.key.as_deref().unwrap_or("-"),
                r.part_number,
                r.body_bytes,
                r.status
            )
        };
        requests.received.iter().map(line).collect()
    }
}

impl Observer for Watcher {
    fn record(&self, record: Record) {
        self.requests().received.push(record);
    }

    fn before_answer<'a>(&'a self, record: &'a Record) -> Boxed<'a, ()> {
        Box::pin(async move {
            let mut holds = self.holds.subscribe();
            let mut counted = false;
            loop {
                let now = holds.borrow_and_update().clone();
                {
                    let mut requests = self.requests();
                    let held = now.iter().any(|hold| {
                        let given = |r: &&Record| r.operation == hold.operation && r.status < 300;
                        hold.operation == record.operation
                            && record.status < 300
                            && requests.answered.iter().filter(given).count() >= hold.after
                    });
                    if !held {
                        requests.answered.push(record.clone());
                        return;
                    }
                }
                if !counted {
                    counted = true;
                    self.held.send_modify(|held| *held += 1);
                }
                if holds.changed().await.is_err() {
                    return;
                }
            }
        })
    }
}

/// Counts what is read from the sockets of the store, and stops reading at a limit.
pub struct Meter {
    inner: Mutex<Gauge>,
    total: watch::Sender<u64>,
    open: watch::Sender<usize>,
}

struct Gauge {
    limit: u64,
    waiting: Vec<Waker>,
}

impl Meter {
    /// Nothing read yet, no limit.
    pub fn new() -> Meter {
        Meter {
            inner: Mutex::new(Gauge { limit: u64::MAX, waiting: Vec::new() }),
            total: watch::Sender::new(0),
            open: watch::Sender::new(0),
        }
    }

    /// Bytes read so far: heads of requests, bodies, framing, everything.
    pub fn total(&self) -> u64 {
        *self.total.borrow()
    }

    /// Stops reading when so many bytes were read in all; what is under way then stays half-sent.
    pub fn stall_at(&self, total: u64) {
        let waiting = {
            let mut gauge = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
            gauge.limit = total;
            std::mem::take(&mut gauge.waiting)
        };
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Where reading stops, if it does.
    pub fn limit(&self) -> Option<u64> {
        let gauge = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        (gauge.limit != u64::MAX).then_some(gauge.limit)
    }

    /// Reads on.
    pub fn flow(&self) {
        self.stall_at(u64::MAX);
    }

    /// Waits until no connection is open: what a killed site had under way is then read to its end and judged.
    pub async fn settled(&self) {
        let mut open = self.open.subscribe();
        let settled = tokio::time::timeout(STEP, open.wait_for(|open| *open == 0)).await;
        assert!(settled.is_ok_and(|waited| waited.is_ok()), "connections of a dead site stay open");
    }

    /// Waits until so many bytes were read in all.
    pub async fn reaches(&self, total: u64) {
        let mut read = self.total.subscribe();
        let reached = tokio::time::timeout(STEP, read.wait_for(|read| *read >= total)).await;
        assert!(
            reached.is_ok_and(|waited| waited.is_ok()),
            "{} of {total} bytes came within {STEP:?}",
            self.total()
        );
    }
}

/// A listener whose connections are counted.
pub struct MeteredListener {
    inner: TcpListener,
    meter: Arc<Meter>,
}

impl MeteredListener {
    /// Counts what is read from the connections of `inner` by `meter`.
    pub fn new(inner: TcpListener, meter: Arc<Meter>) -> MeteredListener {
        MeteredListener { inner, meter }
    }
}

impl Listener for MeteredListener {
    type Stream = Metered;

    async fn accept(&mut self) -> io::Result<(Metered, SocketAddr)> {
        let (stream, peer) = self.inner.accept().await?;
        stream.set_nodelay(true)?;
        self.meter.open.send_modify(|open| *open += 1);
        Ok((Metered { inner: stream, meter: Arc::clone(&self.meter) }, peer))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }
}

/// A connection that is counted.
pub struct Metered {
    inner: TcpStream,
    meter: Arc<Meter>,
}

impl Drop for Metered {
    fn drop(&mut self) {
        self.meter.open.send_modify(|open| *open -= 1);
    }
}

impl AsyncRead for Metered {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        {
            let mut gauge = self.meter.inner.lock().unwrap_or_else(PoisonError::into_inner);
            if self.meter.total() >= gauge.limit {
                gauge.waiting.push(cx.waker().clone());
                return Poll::Pending;
            }
        }
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(cx, buf);
        let read = (buf.filled().len() - before) as u64;
        if read > 0 {
            self.meter.total.send_modify(|total| *total += read);
        }
        polled
    }
}

impl AsyncWrite for Metered {
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
