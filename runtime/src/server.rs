//! Owns the accept loop of every HTTP listener of a site: bounded connections, HTTP/1 on each, and a shutdown within
//! a budget. Knows no route, but takes tokens out of paths before any route sees them. One connection's failure never
//! ends the loop.

mod patience;
mod waiting;

use std::convert::Infallible;
use std::error::Error;
use std::fmt::Display;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::{Request, StatusCode};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tidegate_core::time::Now;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tower::ServiceExt;

use crate::link;
use crate::seam::{Listener, Stream};
use crate::timeouts::{Op, Timeouts};
use crate::tls::{self, Acceptor};

pub(crate) use patience::Patience;
use waiting::Waiting;
pub(crate) use waiting::{Seat, Signs, Work};

/// The site's clocks, for the edges that stamp what they show.
pub type Clocks = Arc<dyn Fn() -> Now + Send + Sync>;

/// Where a connection comes from. In the extensions of every request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remote {
    /// Address and port of the other end: an IPv4 address as such, whichever kind of listener it came to.
    pub addr: SocketAddr,
    /// Whether the connection is within TLS.
    pub encrypted: bool,
}

/// Bounds of one listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Connections at once, links of devices not counted: they leave this loop with their upgrade. One more takes the
    /// place of the one that waits longest for a request, or waits itself while all of them work.
    pub connections: usize,
    /// How long a client has to send the head of a request. Also closes idle connections.
    pub header_read: Duration,
    /// How long a client may take nothing of an answer.
    pub write: Duration,
    /// Bytes of the head of a request.
    pub head: usize,
    /// How long requests under way have at shutdown.
    pub shutdown: Duration,
}

impl Default for Bounds {
    /// 1,024 connections are a whole fleet knocking at once; 10 s for a head is a hundred times what a bad mobile
    /// network needs; 30 s without one byte taken is no network but a client that is gone or means harm; 64 KiB of head
    /// are eight times what browsers and proxies send; 5 s at shutdown is below what supervisors grant.
    fn default() -> Bounds {
        Bounds {
            connections: 1024,
            header_read: Duration::from_secs(10),
            write: Duration::from_secs(30),
            head: 64 << 10,
            shutdown: Duration::from_secs(5),
        }
    }
}

/// Rest before accepting again after an error: a full descriptor table does not empty faster.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves connections of `listener` until `stop` holds `true` (or its sender is gone), then lets requests under way
/// end within the budget and drops the rest. With `tls` a connection begins with a handshake, and one that says anything
/// else is closed. `timeouts` hears of clients that were given up.
pub async fn serve<L: Listener>(
    listener: L,
    router: Router,
    bounds: Bounds,
    stop: watch::Receiver<bool>,
    tls: Option<Acceptor>,
    timeouts: Timeouts,
) {
    let mut stopping = stop.clone();
    let common = Common { router, bounds, stop, tls, timeouts: timeouts.clone() };
    let stopped = until(&mut stopping);
    let each = move |stream, peer, seat| connection(stream, peer, common.clone(), seat);
    let mut connections = admit(listener, bounds.connections, stopped, each).await;
    drain(&mut connections, bounds.shutdown, &timeouts).await;
}

/// Runs `each` connection of a listener, `most` of them at once, until `stopped` resolves; then the listener is closed,
/// and what still runs is given back. Without a place for one more, the one that waits longest for a request goes.
pub(crate) async fn admit<L: Listener, F: Future<Output = ()> + Send + 'static>(
    mut listener: L,
    most: usize,
    stopped: impl Future<Output = ()>,
    each: impl Fn(L::Stream, SocketAddr, Seat) -> F,
) -> JoinSet<()> {
    let mut stopped = std::pin::pin!(stopped);
    let mut connections = JoinSet::new();
    let waiting = Waiting::new(most);
    // Accepted, and without a place so far.
    let mut newcomer = None;
    loop {
        tokio::select! {
            biased;
            () = &mut stopped => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            // One that says nothing makes room for one that may.
            () = waiting.end_oldest(), if newcomer.is_some() => {
                tracing::debug!("the oldest connection without a request was closed for a new one");
                // Before another one is ended for the same newcomer.
                let _ended = connections.join_next().await;
            }
            accepted = listener.accept(), if newcomer.is_none() => match accepted {
                Ok((stream, peer)) => newcomer = Some((stream, canonical(peer))),
                Err(error) => {
                    tracing::debug!(%error, "accepting a connection failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
        if connections.len() < most
            && let Some((stream, peer)) = newcomer.take()
        {
            let seat = waiting.place();
            let number = seat.number();
            let end = connections.spawn(each(stream, peer, seat));
            waiting.set_end(number, end);
        }
    }
    connections
}

/// A listener for both kinds of IP shows an IPv4 address within an IPv6 one. Addresses are compared, also as text and with
/// those that came to other listeners: from here on each has one form.
fn canonical(mut peer: SocketAddr) -> SocketAddr {
    peer.set_ip(peer.ip().to_canonical());
    peer
}

/// Waits until connections have ended by themselves, and ends those that take too long.
pub(crate) async fn drain(connections: &mut JoinSet<()>, at_most: Duration, timeouts: &Timeouts) {
    let begun = tokio::time::Instant::now();
    let all = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(at_most, all).await.is_err() {
        let target = format!("{} connections", connections.len());
        timeouts.out(Op::Drain, &target, at_most, begun.elapsed());
        connections.shutdown().await;
    }
}

/// What the connections of a listener share.
#[derive(Clone)]
struct Common {
    router: Router,
    bounds: Bounds,
    stop: watch::Receiver<bool>,
    tls: Option<Acceptor>,
    timeouts: Timeouts,
}

async fn connection(stream: impl Stream, peer: SocketAddr, common: Common, seat: Seat) {
    let Common { router, bounds, mut stop, tls, timeouts } = common;
    let entered = tokio::select! {
        biased;
        () = until(&mut stop) => None,
        entered = tls::entered(tls.as_ref(), stream, peer, bounds.header_read, &timeouts) => entered,
    };
    let Some(stream) = entered else { return };
    let remote = Remote { addr: peer, encrypted: stream.is_encrypted() };
    let signs = seat.signs();
    let stream = Patience::new(stream, bounds.write, signs.clone());
    let service = service_fn(move |request: Request<Incoming>| {
        let router = router.clone();
        let work = seat.work();
        async move {
            let mut request = request.map(|body| Body::new(work.arriving(body)));
            link::take_token(&mut request);
            request.extensions_mut().insert(remote);
            let response = router.oneshot(request).await.unwrap_or_else(|never: Infallible| match never {});
            if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                work.for_ever();
                return Ok::<_, Infallible>(response);
            }
            Ok(response.map(|body| Body::new(Held::new(body, work))))
        }
    });
    let mut connection = std::pin::pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(bounds.header_read)
            .max_buf_size(bounds.head)
            // The header would show the clock of the system, not that of the seam.
            .auto_date_header(false)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades()
    );
    let ended = tokio::select! {
        biased;
        ended = connection.as_mut() => ended,
        () = until(&mut stop) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        ended_early(&error, &signs, &peer, [bounds.write, bounds.header_read], &timeouts);
    }
}

/// Tells of a connection that ended in the middle of something. `bounds` are those of an answer and of a head.
pub(crate) fn ended_early(
    error: &hyper::Error,
    signs: &Signs,
    target: &dyn Display,
    bounds: [Duration; 2],
    timeouts: &Timeouts,
) {
    let [write, head] = bounds;
    if is_stuck(error) {
        timeouts.out(Op::Write, target, write, write);
    } else if error.is_timeout() && signs.is_heard() {
        timeouts.out(Op::Head, target, head, head);
    }
    tracing::debug!(%error, "a connection ended early");
}

/// Whether a connection ended because its client took nothing any more.
fn is_stuck(error: &hyper::Error) -> bool {
    let mut cause = error.source();
    while let Some(error) = cause {
        if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::TimedOut) {
            return true;
        }
        cause = error.source();
    }
    false
}

/// The body of an answer. It is dropped when its last byte was handed over.
pub(crate) struct Held<B> {
    body: B,
    _until_written: Work,
}

impl<B> Held<B> {
    /// The connection works until this body is written.
    pub(crate) fn new(body: B, work: Work) -> Held<B> {
        Held { body, _until_written: work }
    }
}

impl<B: http_body::Body + Unpin> http_body::Body for Held<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

async fn until(stop: &mut watch::Receiver<bool>) {
    // An error means that nobody is left to say stop: the site is going.
    let _ = stop.wait_for(|stop| *stop).await;
}

#[cfg(test)]
pub(crate) mod tests;
