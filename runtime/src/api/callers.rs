//! Owns who is turned away unheard on the routes that devices use and that ask for no token of the API. Counts what
//! strangers get wrong there; what a request is answered is for the routes.

use std::net::IpAddr;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use tidegate_core::id::DeviceId;
use tidegate_core::row::TaskRow;

use super::error::Answer;
use super::input::{self, Fields};
use super::{ApiState, tasks};
use crate::brake::{self, Brake, Rate};
use crate::grants::bearer;
use crate::server::Remote;

/// Requests of devices that are refused: 300 at once and 30 a minute for each address. Those that are fine do not count, for
/// a whole fleet may stand behind one address.
#[must_use]
pub fn callers() -> Brake<IpAddr> {
    Brake::new(Rate::per_minute(30, 300))
}

/// Devices that register themselves: 100 at once and 10 a minute for each address. Each has a place among the records for
/// good, so that a window that was left open is not enough to fill them.
#[must_use]
pub fn newcomers() -> Brake<IpAddr> {
    Brake::new(Rate::per_minute(10, 100))
}

/// Turns those away unheard who come from where too many were refused. Not who reports on a task of the site: recorders
/// never repeat a callback, and others may stand behind their address.
pub(super) async fn braked(State(state): State<ApiState>, request: Request, next: Next) -> Response {
    // Only a router outside of a listener knows no address.
    let Some(remote) = request.extensions().get::<Remote>() else { return next.run(request).await };
    let from = brake::stranger(remote.addr.ip());
    let request = match state.0.callers.wait(&from) {
        None => request,
        Some(wait) => match on_a_task(&state, request).await {
            Ok(Some(request)) => request,
            Ok(None) => {
                let text = "too many requests from here were refused; mend the cause, then wait";
                let answer = Answer::new(StatusCode::TOO_MANY_REQUESTS, "too_many_refusals", text);
                return answer.with_error_msg().retry_after(brake::seconds(wait)).into_response();
            }
            Err(refusal) => return refusal.with_error_msg().into_response(),
        },
    };
    let response = next.run(request).await;
    if response.status().is_client_error() {
        // Who has nothing left is turned away from now on.
        let _ = state.0.callers.take(from);
    }
    response
}

/// The request, if it names a task of the site with its device, and brings the token of the task where one is asked for.
async fn on_a_task(state: &ApiState, request: Request) -> Result<Option<Request>, Answer> {
    let (head, body) = request.into_parts();
    let bytes = input::open_bytes(body).await?;
    let Ok(fields) = Fields::parsed(&bytes) else { return Ok(None) };
    let device = fields.lenient("device_id").and_then(|text| DeviceId::new(text).ok());
    let (Some(task), Some(device)) = (fields.lenient("task_id").map(str::to_owned), device) else {
        return Ok(None);
    };
    // One that the site does not know, or cannot look up now, is nobody's.
    let found = state.read(move |rows| Ok(tasks::find(rows, &task).ok())).await?;
    let shown = bearer(&head.headers);
    let fits = |row: &TaskRow| match (row.token_sha256, shown) {
        (Some(own), Some(shown)) => own == shown,
        (None, _) | (_, None) => !state.0.access.callback_tokens,
    };
    let named = found.is_some_and(|row| row.device == device && fits(&row));
    Ok(named.then(|| Request::from_parts(head, Body::from(bytes))))
}
