//! Owns the HTTP API: decodes, hands to the driver, encodes. Reads come from snapshots of the store and from the board.
//! Decides nothing.
//!
//! Read in this order: [`router`], [`error`] (the one table of refusals), [`shapes`] (what rows look like), then a file
//! per group of routes.

mod auth;
mod callbacks;
mod callers;
mod command;
mod devices;
mod episodes;
pub mod error;
mod input;
pub mod policies;
mod reads;
mod recorder;
pub mod shapes;
mod stream;
mod sync;
mod tasks;
mod tokens;
mod transfer;
mod ways;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post, put};
use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderValue};
use tidegate_core::effect;
use tidegate_core::input as core_input;
use tidegate_core::refusal::Refusal;
use tokio::sync::watch;

use crate::board::Board;
use crate::brake::Brake;
use crate::feed::Feed;
use crate::inbox::{Gone, Inbox, Secret};
use crate::link;
use crate::metrics::Metrics;
use crate::server::Clocks;
use crate::timeouts::{Op, TimedOut};

pub use auth::Access;
pub use callers::{callers, newcomers};
pub use input::BODY_MAX;
pub use policies::OnPolicies;
pub(crate) use reads::read;
pub use reads::{Job, Reads, Runner, Snapshot, Unreadable, runner};
pub use ways::{Way, Ways};

use callers::braked;
use error::{Answer, json, refused};

/// What a site tells of its configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Name of the site; the edge bucket is `edge-{site}`.
    pub site: String,
    /// What devices are told, if anything.
    pub public_url: Option<String>,
    /// Whether a cloud is configured, so that uploads run.
    pub worker_running: bool,
    /// Whether approved episodes are queued without being asked for.
    pub auto_scan_enabled: bool,
    /// Attempts of a job before it gives up.
    pub max_retries: u32,
    /// How long a device has to answer a command.
    pub rpc_timeout: Duration,
    /// How long a task may wait for its recording before it is overdue; `None` is for ever.
    pub uploading_deadline: Option<Duration>,
    /// Bytes of a policy module.
    pub policy_bytes_max: u64,
    /// Where devices come.
    pub ways: Ways,
}

impl Summary {
    /// The bucket devices upload to.
    #[must_use]
    pub fn bucket(&self) -> String {
        format!("edge-{}", self.site)
    }
}

/// How far the process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Recovering.
    Booting,
    /// Serving.
    Serving,
    /// Finishing what is in flight.
    Stopping,
}

/// What the routes stand on.
pub struct Parts {
    /// The way to the driver.
    pub inbox: Inbox,
    /// Committed rows.
    pub reads: Arc<dyn Reads>,
    /// Where reads may block.
    pub runner: Runner,
    /// What viewers were told last.
    pub board: Board,
    /// What viewers are told.
    pub feed: Feed,
    /// Configuration.
    pub summary: Summary,
    /// Metrics.
    pub metrics: Metrics,
    /// Tokens.
    pub access: Access,
    /// Modules and what is counted of them.
    pub policies: OnPolicies,
    /// Clocks.
    pub clock: Clocks,
    /// How far the process is.
    pub stage: watch::Receiver<Stage>,
    /// What strangers may get wrong on the routes that devices use, by address; see [`callers`].
    pub callers: Brake<IpAddr>,
    /// How many register themselves, by address; see [`newcomers`].
    pub newcomers: Brake<IpAddr>,
}

/// The API of a site. Cheap to clone.
#[derive(Clone)]
pub struct ApiState(Arc<Parts>);

impl ApiState {
    /// The API on these parts.
    #[must_use]
    pub fn new(parts: Parts) -> ApiState {
        ApiState(Arc::new(parts))
    }

    /// Asks the driver and waits for its answer, which always comes: two commands may follow each other, and the core
    /// ends each within its own timeout. The bound here only keeps a broken site from holding clients for ever.
    async fn ask(
        &self,
        request: core_input::Request,
        secret: Option<Secret>,
    ) -> Result<Result<effect::Response, Refusal>, Answer> {
        let bound = 2 * self.0.summary.rpc_timeout + ANSWER_MARGIN;
        let begun = tokio::time::Instant::now();
        match tokio::time::timeout(bound, self.0.inbox.request(request, secret)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(Gone)) => Err(refused(&Refusal::Stopping).with("result_unknown", true)),
            Err(_) => {
                let answer =
                    Answer::new(StatusCode::GATEWAY_TIMEOUT, "no_answer", "the site did not answer in time");
                Err(answer.with("result_unknown", true).timed_out(Op::Answer, bound, begun.elapsed()))
            }
        }
    }

    /// As [`ApiState::ask`], with refusals through the table.
    async fn asked(&self, request: core_input::Request) -> Result<effect::Response, Answer> {
        self.ask(request, None).await?.map_err(|refusal| refused(&refusal))
    }

    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn Snapshot) -> Result<T, Answer> + Send + 'static,
    ) -> Result<T, Answer> {
        reads::read(self.0.reads.clone(), &self.0.runner, work).await
    }
}

/// Above two commands in a row: what the driver itself may need for them on a slow disk.
const ANSWER_MARGIN: Duration = Duration::from_secs(30);

/// All routes of the API. `links` are the routes of [`crate::link`], counted and logged like the others; an empty
/// router leaves them out.
pub fn router(state: ApiState, links: Router) -> Router {
    let v1 = Router::new()
        .route("/recorder/devices", get(recorder::recorders))
        .route("/recorder/{device_id}/state", get(recorder::state))
        .route("/recorder/{device_id}/stats", get(command::stats))
        .route("/recorder/{device_id}/config", post(command::config))
        .route("/recorder/{device_id}/begin", post(command::begin))
        .route("/recorder/{device_id}/finish", post(command::finish))
        .route("/recorder/{device_id}/pause", post(command::pause))
        .route("/recorder/{device_id}/resume", post(command::resume))
        .route("/recorder/{device_id}/cancel", post(command::cancel))
        .route("/recorder/{device_id}/clear", post(command::clear))
        .route("/recorder/{device_id}/quit", post(command::quit))
        .route("/transfer/devices", get(recorder::transfers))
        .route("/devices/conflicts", get(devices::conflicts))
        .route("/transfer/{device_id}/upload_request", post(transfer::upload_request))
        .route("/transfer/{device_id}/upload_all", post(transfer::upload_all))
        .route("/transfer/{device_id}/status_query", post(transfer::status_query))
        .route("/transfer/{device_id}/cancel", post(transfer::cancel))
        .route("/devices", get(tokens::devices))
        .nest("/devices/register", registration(&state))
        .route("/devices/{device_id}/connection", get(recorder::connection))
        .route("/devices/{device_id}/token", post(tokens::add_to_device).delete(tokens::revoke_device))
        .route("/devices/{device_id}/disable", post(tokens::disable))
        .route("/devices/{device_id}/enable", post(tokens::enable))
        .route("/robots/{robot_id}/ws-client-auth-token/rotate", post(tokens::rotate))
        .route("/registration", post(tokens::open))
        .route("/tokens", get(tokens::list).post(tokens::add))
        .route("/tokens/{id}", delete(tokens::revoke))
        .route("/device-state/stream", get(stream::stream))
        .nest("/callbacks", callback_routes(&state))
        .route("/devices/{device_id}/conflict/resolve", post(devices::resolve))
        .route("/tasks", post(tasks::create).get(tasks::list))
        .route("/tasks/{task_id}", get(tasks::one))
        .route("/tasks/{task_id}/cancel", post(tasks::cancel))
        .route("/tasks/{task_id}/config", get(tasks::config))
        .route("/tasks/{task_id}/resolve", post(tasks::resolve))
        .route("/episodes", get(episodes::list))
        .route("/episodes/{id}", get(episodes::one))
        .route("/episodes/{id}/approve", post(episodes::approve))
        .route("/episodes/{id}/reject", post(episodes::reject))
        .route("/sync/episodes", post(sync::batch).get(sync::list))
        .route("/sync/episodes/{id}", post(sync::trigger))
        .route("/sync/episodes/{id}/status", get(sync::status))
        .route("/sync/episodes/{id}/logs", get(sync::logs))
        .route("/sync/episode-statuses", get(sync::statuses))
        .route("/sync/config", get(sync::config))
        .route("/policies", get(policies::show))
        .route("/policies/history", get(policies::history))
        .route("/policies/rollback", post(policies::rollback))
        .route("/policies/shadow", delete(policies::end_shadow))
        .route("/policies/modules/{module}", get(policies::module).delete(policies::remove))
        .route("/policies/modules/{module}/quarantine", post(policies::quarantine))
        .route("/policies/modules/{module}/unquarantine", post(policies::unquarantine))
        .route("/policies/{slot}", put(policies::load))
        .route("/policies/{slot}/activate", post(policies::activate))
        .route("/policies/{slot}/reset", post(policies::reset))
        .route("/policies/{slot}/shadow", post(policies::shadow))
        .route("/policies/{slot}/decisions", get(policies::decisions));
    Router::new()
        .nest("/api/v1", v1)
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .method_not_allowed_fallback(not_allowed)
        .with_state(state.clone())
        .merge(links)
        .fallback(not_found)
        .layer(from_fn_with_state(state.clone(), auth::guard))
        .layer(from_fn_with_state(state, observe))
}

/// The routes of a listener for devices alone: their links, and what recorders say over HTTP. Recorders as they are shipped
/// do no TLS, so all of it must be had beside an API that speaks it.
pub fn device_router(state: ApiState, links: Router) -> Router {
    Router::new()
        .nest("/api/v1/callbacks", callback_routes(&state))
        .nest("/api/v1/devices/register", registration(&state))
        .method_not_allowed_fallback(not_allowed)
        .with_state(state.clone())
        .merge(links)
        .fallback(not_found)
        .layer(from_fn_with_state(state, observe))
}

/// Where devices register themselves, counted by address as callbacks are.
fn registration(state: &ApiState) -> Router<ApiState> {
    let routes = Router::new().route("/", post(tokens::register));
    routes.layer(from_fn_with_state(state.clone(), braked))
}

fn callback_routes(state: &ApiState) -> Router<ApiState> {
    let routes =
        Router::new().route("/start", post(callbacks::start)).route("/finish", post(callbacks::finish));
    routes.layer(from_fn_with_state(state.clone(), braked))
}

async fn healthz() -> Response {
    json(StatusCode::OK, serde_json::json!({ "status": "ok" }))
}

async fn readyz(State(state): State<ApiState>) -> Response {
    let stage = *state.0.stage.borrow();
    let alive = state.0.inbox.is_open();
    match stage {
        Stage::Serving if alive => json(StatusCode::OK, serde_json::json!({ "status": "ready" })),
        Stage::Booting => Answer::new(StatusCode::SERVICE_UNAVAILABLE, "booting", "the site is booting")
            .retry_after(1)
            .into_response(),
        Stage::Serving | Stage::Stopping => refused(&Refusal::Stopping).into_response(),
    }
}

async fn metrics(State(state): State<ApiState>) -> Response {
    let mut response = state.0.metrics.text().into_response();
    let kind = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

async fn not_found() -> Answer {
    Answer::new(StatusCode::NOT_FOUND, "not_found", "there is no such route")
}

async fn not_allowed() -> Answer {
    Answer::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "this route does not take this method")
}

/// Counts and logs a request. Never its headers, its query or its body.
async fn observe(State(state): State<ApiState>, request: Request, next: Next) -> Response {
    let begun = tokio::time::Instant::now();
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().map_or("unmatched", MatchedPath::as_str).to_owned();
    let path = link::shown(request.uri().path());
    let response = next.run(request).await;
    if let Some(TimedOut { op, budget, elapsed }) = response.extensions().get() {
        let target = format_args!("{method} {route}").to_string();
        state.0.metrics.timeouts().out(*op, &target, *budget, *elapsed);
    }
    let status = response.status().as_u16();
    state.0.metrics.request(&method, &route, status);
    let ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    tracing::debug!(%method, path, status, ms, "request");
    response
}

#[cfg(test)]
mod tests;
