//! Owns the accept loop of every HTTP listener of a site: bounded connections, HTTP/1 on each, and a shutdown within
//! a budget. Knows no route. One connection's failure never ends the loop.

mod patience;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tidegate_core::time::Now;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tower::ServiceExt;

use crate::seam::{Listener, Stream};

pub(crate) use patience::Patience;

/// The site's clocks, for the edges that stamp what they show.
pub type Clocks = Arc<dyn Fn() -> Now + Send + Sync>;

/// Where a connection comes from. In the extensions of every request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remote(pub SocketAddr);

/// Bounds of one listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Connections at once, links of devices not counted: they leave this loop with their upgrade.
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
/// end within the budget and drops the rest.
pub async fn serve<L: Listener>(
    mut listener: L,
    router: Router,
    bounds: Bounds,
    stop: watch::Receiver<bool>,
) {
    let mut stopping = stop.clone();
    let mut stopped = std::pin::pin!(until(&mut stopping));
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = &mut stopped => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            accepted = listener.accept(), if connections.len() < bounds.connections => match accepted {
                Ok((stream, peer)) => {
                    connections.spawn(connection(stream, peer, router.clone(), bounds, stop.clone()));
                }
                Err(error) => {
                    tracing::debug!(%error, "accepting a connection failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    let all = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(bounds.shutdown, all).await.is_err() {
        connections.shutdown().await;
    }
}

async fn connection(
    stream: impl Stream,
    peer: SocketAddr,
    router: Router,
    bounds: Bounds,
    mut stop: watch::Receiver<bool>,
) {
    let service = service_fn(move |request: Request<Incoming>| {
        let router = router.clone();
        async move {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(Remote(peer));
            router.oneshot(request).await.map_err(|never: Infallible| match never {})
        }
    });
    let mut connection = std::pin::pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(bounds.header_read)
            .max_buf_size(bounds.head)
            // The header would show the clock of the system, not that of the seam.
            .auto_date_header(false)
            .serve_connection(TokioIo::new(Patience::new(stream, bounds.write)), service)
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
        tracing::debug!(%error, "a connection ended early");
    }
}

async fn until(stop: &mut watch::Receiver<bool>) {
    // An error means that nobody is left to say stop: the site is going.
    let _ = stop.wait_for(|stop| *stop).await;
}

#[cfg(test)]
pub(crate) mod tests;
