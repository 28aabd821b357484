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
mod refusals;
mod socket;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use http::{HeaderValue, StatusCode};
use hyper_util::rt::TokioIo;
use tidegate_core::digest::Sha256;
use tidegate_core::id::{DeviceId, Role};
use tidegate_core::input::{Demand, LostWhy};
use tidegate_core::refusal::Refusal;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::api::error::{Answer, refused};
use crate::api::{Reads, Runner};
use crate::board::Board;
use crate::brake::{self, Rate};
use crate::grants::bearer;
use crate::inbox::{Gone, Inbox, Outbound, Stranger};
use crate::metrics::Metrics;

use crate::server::{Clocks, Remote};
use crate::timeouts::Op;

use guard::Guard;
use refusals::Refusals;

pub(crate) use handshake::{PathToken, shown, take_token};

/// Bounds and periods of links.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Bytes of one message of a device, its fragments together. Larger ones close the link with 1009.
    pub max_message: usize,
    /// How long one frame to a device may take to leave.
    pub write: Duration,
    /// How long the site may take to admit a link: to look whether it knows who comes, and to ask the core. Stock clients
    /// have no timeout of their own: they must be answered.
    pub knock: Duration,
    /// How long a client may take to follow the 101, and to answer a Close.
    pub upgrade: Duration,
    /// Time between pings to a recorder.
    pub recorder_ping: Duration,
    /// Time between pings to an uploader.
    pub transfer_ping: Duration,
    /// How late a pong may be. A link is silent after one interval and twice this.
    pub pong: Duration,
    /// Messages and control frames of one link. A link that has used it up is read as fast as more becomes free.
    pub messages: Rate,
    /// How much later a link counts as silent that owes an answer: recorders hear nothing while they close and hash a
    /// recording, and say nothing either.
    pub busy: Duration,
    /// For how long the core takes the address of a recorder whose link is gone for a proof of its uploader.
    pub bound_keep: Duration,
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
            messages: message_rate(MESSAGE_RATE),
            busy: Duration::from_secs(60),
            bound_keep: Duration::from_secs(3600),
        }
    }
}

/// What [`Bounds::messages`] is unless it is set: ten times what a device says that changes its state all the time.
pub const MESSAGE_RATE: u32 = 50;

/// So many messages a second, and twenty seconds of them at once: after an absence all that was kept comes in one piece.
#[must_use]
pub fn message_rate(per_second: u32) -> Rate {
    Rate::per_second(per_second, per_second.saturating_mul(20))
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
    refusals: Refusals,
    rows: Rows,
}

/// Committed rows, and where they may be read.
#[derive(Clone)]
pub struct Rows {
    /// The rows.
    pub reads: Arc<dyn Reads>,
    /// Where reads may block.
    pub runner: Runner,
}

impl Shared {
    fn timed_out(&self, op: Op, role: Role, device: &DeviceId, budget: Duration, elapsed: Duration) {
        let target = format!("{} {device}", role.name());
        self.metrics.timeouts().out(op, &target, budget, elapsed);
    }

    /// The answer to a handshake that was not judged in time.
    fn busy(&self, role: Role, device: &DeviceId, begun: Instant) -> Answer {
        self.timed_out(Op::Knock, role, device, self.bounds.knock, begun.elapsed());
        let busy = Answer::new(StatusCode::SERVICE_UNAVAILABLE, "busy", "the site is busy; try again");
        busy.retry_after(BUSY)
    }
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
    pub fn new(
        inbox: Inbox,
        board: Board,
        metrics: Metrics,
        clock: Clocks,
        bounds: Bounds,
        rows: Rows,
    ) -> Links {
        let (open, refusals) = (watch::Sender::new(0), Refusals::new());
        Links(Arc::new(Shared { inbox, board, metrics, clock, bounds, open, refusals, rows }))
    }

    /// The routes of both roles, for the main listener; `demand` is what each must prove there.
    pub fn router(&self, demand: impl Fn(Role) -> Demand) -> Router {
        let of = |role| self.router_of(role, demand(role));
        of(Role::Recorder).merge(of(Role::Transfer))
    }

    /// The routes of one role, for a port of its own; `demand` is what it must prove there.
    pub fn router_of(&self, role: Role, demand: Demand) -> Router {
        let links = self.clone();
        let door = any(move |request| links.clone().door(role, demand, request));
        Router::new()
            .route(&format!("/{}/", role.name()), door.clone())
            .route(&format!("/{}/{{*device_id}}", role.name()), door)
    }

    /// Waits until every link has said its goodbye, at most so long. For a shutdown, after the core closed them.
    pub async fn drained(&self, at_most: Duration) {
        let mut open = self.0.open.subscribe();
        let begun = Instant::now();
        if tokio::time::timeout(at_most, open.wait_for(|open| *open == 0)).await.is_err() {
            let target = format!("{} links", *self.0.open.borrow());
            self.0.metrics.timeouts().out(Op::Drain, &target, at_most, begun.elapsed());
        }
    }

    async fn door(self, role: Role, demand: Demand, mut request: axum::extract::Request) -> Response {
        let (shared, begun) = (&self.0, Instant::now());
        let (from, remote) = address(&request);
        let (device, accept) = match said(role, &request) {
            Ok(said) => said,
            Err(refusal) => return shared.refusals.malformed(from, refusal).into_response(),
        };
        let stranger = Stranger {
            device: device.clone(),
            role,
            remote,
            port: request.extensions().get::<Remote>().map(|remote| remote.addr.port()),
            credential: credential(&request),
            demand,
        };
        let by = begun + shared.bounds.knock;
        match tokio::time::timeout_at(by, shared.hears(from, &stranger)).await {
            Ok(Ok(())) => {}
            Ok(Err(refusal)) => return refusal.into_response(),
            Err(_) => return shared.busy(role, &device, begun).into_response(),
        }
        let link = match self.knock(stranger, begun).await {
            Ok(link) => link,
            Err(refusal) => return shared.refusals.count(from, Some(&device), refusal).into_response(),
        };
        let upgrade = hyper::upgrade::on(&mut request);
        let bound = shared.bounds.upgrade;
        let open = Open::new(self.0.clone());
        tokio::spawn(async move {
            let _open = open;
            let begun = Instant::now();
            match tokio::time::timeout(bound, upgrade).await {
                Ok(Ok(stream)) => socket::run(TokioIo::new(stream), link, &self.0).await,
                Ok(Err(_)) => link.guard.lost(LostWhy::Broken).await,
                Err(_) => {
                    self.0.timed_out(Op::Upgrade, link.role, &link.device, bound, begun.elapsed());
                    link.guard.lost(LostWhy::Broken).await;
                }
            }
        });
        handshake::switching(accept)
    }

    /// Asks the core in a task of its own: a link that is admitted after its client or our patience is gone must still
    /// be reported lost, and the guard in the task's result does that. The handshake has begun at `begun`.
    async fn knock(&self, stranger: Stranger, begun: Instant) -> Result<Link, Answer> {
        let (device, role) = (stranger.device.clone(), stranger.role);
        let (inbox, named, by) = (self.0.inbox.clone(), device.clone(), begun + self.0.bounds.knock);
        let knock = tokio::spawn(async move {
            let admitted = inbox.knock(stranger).await?;
            Ok(admitted.map(|admitted| Link {
                device,
                role,
                guard: Guard::new(inbox, admitted.conn),
                outbound: admitted.outbound,
            }))
        });
        match tokio::time::timeout_at(by, knock).await {
            Ok(Ok(Ok(Ok(link)))) => Ok(link),
            Ok(Ok(Ok(Err(refusal)))) => Err(refused(&refusal)),
            Ok(Ok(Err(Gone))) => Err(refused(&Refusal::Stopping)),
            Ok(Err(_)) => Err(refused(&Refusal::Internal("the knock did not end"))),
            Err(_) => Err(self.0.busy(role, &named, begun)),
        }
    }
}

/// What a handshake says, as far as it can be judged without the core.
fn said(role: Role, request: &axum::extract::Request) -> Result<(DeviceId, HeaderValue), Answer> {
    let device = handshake::device(role, request.uri().path())?;
    Ok((device, handshake::check(request)?))
}

/// Seconds a device waits when the core had no time for it. It has waited for [`Bounds::knock`] already.
const BUSY: u32 = 5;

/// An admitted link on its way to its socket.
struct Link {
    device: DeviceId,
    role: Role,
    guard: Guard,
    outbound: mpsc::Receiver<Outbound>,
}

/// Whom a request comes from, for counting and for people.
fn address(request: &axum::extract::Request) -> (IpAddr, String) {
    let remote = request.extensions().get::<Remote>().map(|remote| remote.addr.ip());
    // Only a router outside of a listener knows no address.
    let of = brake::stranger(remote.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)));
    (of, remote.map(|ip| ip.to_string()).unwrap_or_default())
}

/// SHA-256 of the token in the path, else of the bearer token. The token itself is neither kept nor logged.
fn credential(request: &axum::extract::Request) -> Option<Sha256> {
    if let Some(PathToken(digest)) = request.extensions().get() {
        return Some(*digest);
    }
    bearer(request.headers())
}

#[cfg(test)]
mod tests;
