//! Owns the links of devices: `GET /recorder/{device_id}` and `GET /transfer/{device_id}`. Asks the core for a link
//! before it answers the handshake, and decides nothing about the link itself.
//!
//! ```text
//! handshake checked ─► knock ─► admitted: 101, then [`socket`] until the link is lost, said exactly once
//!        └─► 4xx         └────► turned away: 503 with Retry-After
//! ```

mod guard;
mod handshake;
mod lenient;
mod socket;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use http::{HeaderMap, StatusCode};
use hyper_util::rt::TokioIo;
use tidegate_core::digest::Sha256;
use tidegate_core::id::{DeviceId, Role};
use tidegate_core::input::LostWhy;
use tidegate_core::refusal::Refusal;
use tokio::sync::{mpsc, watch};

use crate::api::error::{Answer, refused};
use crate::board::Board;
use crate::inbox::{Gone, Inbox, Outbound};
use crate::metrics::Metrics;

use crate::server::{Clocks, Remote};

use guard::Guard;

/// Bounds and periods of links.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Bytes of one message of a device, its fragments together. Larger ones close the link with 1009.
    pub max_message: usize,
    /// How long one frame to a device may take to leave.
    pub write: Duration,
    /// How long the core may take to admit a link. Stock clients have no timeout of their own: they must be answered.
    pub knock: Duration,
    /// How long a client may take to follow the 101, and to answer a Close.
    pub upgrade: Duration,
    /// Time between pings to a recorder.
    pub recorder_ping: Duration,
    /// Time between pings to an uploader.
    pub transfer_ping: Duration,
    /// How late a pong may be. A link is silent after one interval and twice this: recorders do not answer while they
    /// close and hash a recording.
    pub pong: Duration,
}

impl Default for Bounds {
    fn default() -> Bounds {
        Bounds {
            max_message: 8 << 20,
            write: Duration::from_secs(10),
            knock: Duration::from_secs(5),
            upgrade: Duration::from_secs(5),
            recorder_ping: Duration::from_secs(30),
            transfer_ping: Duration::from_secs(25),
            pong: Duration::from_secs(10),
        }
    }
}

impl Bounds {
    fn ping(&self, role: Role) -> Duration {
        match role {
            Role::Recorder => self.recorder_ping,
            Role::Transfer => self.transfer_ping,
        }
    }

    fn silence(&self, role: Role) -> Duration {
        self.ping(role) + 2 * self.pong
    }
}

/// The link edge of a site. Cheap to clone.
#[derive(Clone)]
pub struct Links(Arc<Shared>);

struct Shared {
    inbox: Inbox,
    board: Board,
    metrics: Metrics,
    clock: Clocks,
    bounds: Bounds,
    /// Links whose tasks have not ended.
    open: watch::Sender<usize>,
}

/// Counted among the open links until it is dropped.
struct Open(Arc<Shared>);

impl Open {
    fn new(shared: Arc<Shared>) -> Open {
        shared.open.send_modify(|open| *open += 1);
        Open(shared)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.send_modify(|open| *open -= 1);
    }
}

impl Links {
    /// The link edge of a site.
    #[must_use]
    pub fn new(inbox: Inbox, board: Board, metrics: Metrics, clock: Clocks, bounds: Bounds) -> Links {
        let open = watch::Sender::new(0);
        Links(Arc::new(Shared { inbox, board, metrics, clock, bounds, open }))
    }

    /// The routes of both roles, for the main listener.
    pub fn router(&self) -> Router {
        self.router_of(Role::Recorder).merge(self.router_of(Role::Transfer))
    }

    /// The routes of one role, for a port of its own.
    pub fn router_of(&self, role: Role) -> Router {
        let links = self.clone();
        let door = any(move |request| links.clone().door(role, request));
        Router::new()
            .route(&format!("/{}/", role.name()), door.clone())
            .route(&format!("/{}/{{*device_id}}", role.name()), door)
    }

    /// Waits until every link has said its goodbye, at most so long. For a shutdown, after the core closed them.
    pub async fn drained(&self, at_most: Duration) {
        let mut open = self.0.open.subscribe();
        // Either way there is nothing left to wait for.
        let _ = tokio::time::timeout(at_most, open.wait_for(|open| *open == 0)).await;
    }

    async fn door(self, role: Role, mut request: axum::extract::Request) -> Response {
        let shared = &self.0;
        let device = match handshake::device(role, request.uri().path()) {
            Ok(device) => device,
            Err(refusal) => return refusal.into_response(),
        };
        let accept = match handshake::check(&request) {
            Ok(accept) => accept,
            Err(refusal) => return refusal.into_response(),
        };
        let remote = request.extensions().get::<Remote>().map_or_else(String::new, |r| r.0.ip().to_string());
        let link = match self.knock(device, role, remote, credential(request.headers())).await {
            Ok(link) => link,
            Err(refusal) => return refusal.into_response(),
        };
        let upgrade = hyper::upgrade::on(&mut request);
        let bound = shared.bounds.upgrade;
        let open = Open::new(self.0.clone());
        tokio::spawn(async move {
            let _open = open;
            match tokio::time::timeout(bound, upgrade).await {
                Ok(Ok(stream)) => socket::run(TokioIo::new(stream), link, &self.0).await,
                Ok(Err(_)) | Err(_) => link.guard.lost(LostWhy::Broken).await,
            }
        });
        handshake::switching(accept)
    }

    /// Asks the core in a task of its own: a link that is admitted after its client or our patience is gone must still
    /// be reported lost, and the guard in the task's result does that.
    async fn knock(
        &self,
        device: DeviceId,
        role: Role,
        remote: String,
        credential: Option<Sha256>,
    ) -> Result<Link, Answer> {
        let inbox = self.0.inbox.clone();
        let knock = tokio::spawn(async move {
            let admitted = inbox.knock(device.clone(), role, remote, credential).await?;
            Ok(admitted.map(|admitted| Link {
                device,
                role,
                guard: Guard::new(inbox, admitted.conn),
                outbound: admitted.outbound,
            }))
        });
        match tokio::time::timeout(self.0.bounds.knock, knock).await {
            Ok(Ok(Ok(Ok(link)))) => Ok(link),
            Ok(Ok(Ok(Err(refusal)))) => Err(refused(&refusal)),
            Ok(Ok(Err(Gone))) => Err(refused(&Refusal::Stopping)),
            Ok(Err(_)) => Err(refused(&Refusal::Internal("the knock did not end"))),
            Err(_) => {
                let busy =
                    Answer::new(StatusCode::SERVICE_UNAVAILABLE, "busy", "the site is busy; try again");
                Err(busy.retry_after(BUSY))
            }
        }
    }
}

/// Seconds a device waits when the core had no time for it: as long as we waited for the core.
const BUSY: u32 = 5;

/// An admitted link on its way to its socket.
struct Link {
    device: DeviceId,
    role: Role,
    guard: Guard,
    outbound: mpsc::Receiver<Outbound>,
}

/// SHA-256 of a bearer token. The token itself is neither kept nor logged.
fn credential(headers: &HeaderMap) -> Option<Sha256> {
    let mut words = headers.get(http::header::AUTHORIZATION)?.to_str().ok()?.split_ascii_whitespace();
    match (words.next(), words.next(), words.next()) {
        (Some("Bearer"), Some(token), None) => Some(Sha256::of(token.as_bytes())),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
