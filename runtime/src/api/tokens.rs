//! Owns the routes of tokens and of registered devices. A token is drawn here, its digest goes to the core, and it is
//! shown once, in the answer to who asked for it, after it is durable.

use std::ops::ControlFlow;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::Response;
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use tidegate_core::digest::Sha256;
use tidegate_core::effect;
use tidegate_core::id::{DeviceId, Role};
use tidegate_core::input::{Request as Ask, RosterRequest};
use tidegate_core::row::{DeviceRow, Key, Kind, Row, Scope, TokenRow};

use super::ApiState;
use super::error::{Answer, json as answer};
use super::input::{Fields, Segment};
use super::shapes::{Object, moment};
use crate::brake;
use crate::config::{Secret, parse_duration};
use crate::grants;
use crate::server::Remote;

/// Longest time for which registration may be opened: who forgets to close it does so for a day.
const WINDOW_MAX_MS: u64 = 86_400_000;

/// `GET /tokens`
pub(super) async fn list(State(state): State<ApiState>) -> Result<Response, Answer> {
    let mut items = state
        .read(|rows| {
            let mut items = Vec::new();
            rows.walk(Kind::Token, false, &mut |_, row| {
                if let Row::Token(row) = row {
                    items.push(*row);
                }
                ControlFlow::Continue(())
            })?;
            Ok(items)
        })
        .await?;
    // Under their digests they lie in no order at all.
    items.sort_by_key(|row| row.id);
    let items: Vec<Value> = items.iter().map(token).collect();
    Ok(answer(StatusCode::OK, json!({ "total": items.len(), "items": items })))
}

/// `POST /tokens`
pub(super) async fn add(State(state): State<ApiState>, body: Body) -> Result<Response, Answer> {
    let fields = Fields::read(body).await?;
    let scope = fields.text("scope")?.and_then(Scope::of).filter(|scope| !scope.is_of_device());
    let Some(scope) = scope else {
        return Err(Answer::bad_field("scope", "\"viewer\", \"operator\" or \"admin\""));
    };
    let name = fields.text("name")?.map(str::to_owned);
    issue(&state, scope, None, name).await
}

/// `DELETE /tokens/{id}`
pub(super) async fn revoke(State(state): State<ApiState>, id: Segment) -> Result<Response, Answer> {
    let id = id.0.parse().map_err(|_| Answer::bad_field("id", "the number of a token"))?;
    match state.asked(Ask::Roster(RosterRequest::Revoke { id })).await? {
        effect::Response::Token(row) => {
            tracing::info!(id = row.id, scope = row.scope.name(), "a token is revoked");
            Ok(answer(StatusCode::OK, token(&row)))
        }
        _ => Err(Answer::internal("the answer is of another kind")),
    }
}

/// `GET /devices`
pub(super) async fn devices(State(state): State<ApiState>) -> Result<Response, Answer> {
    let items = state
        .read(|rows| {
            let mut items = Vec::new();
            rows.walk(Kind::Device, false, &mut |_, row| {
                if let Row::Device(row) = row {
                    items.push(registered(&row));
                }
                ControlFlow::Continue(())
            })?;
            Ok(items)
        })
        .await?;
    Ok(answer(StatusCode::OK, json!({ "total": items.len(), "items": items })))
}

/// `POST /devices/{device_id}/token`: a token for a recorder, or with `{"scope":"transfer"}` for an uploader.
pub(super) async fn add_to_device(
    State(state): State<ApiState>,
    id: Segment,
    body: Body,
) -> Result<Response, Answer> {
    let fields = Fields::read(body).await?;
    let scope = fields.text("scope")?.unwrap_or("recorder");
    let Some(scope) = Scope::of(scope).filter(|scope| scope.is_of_device()) else {
        return Err(Answer::bad_field("scope", "\"recorder\" or \"transfer\""));
    };
    let name = fields.text("name")?.map(str::to_owned);
    issue(&state, scope, Some(id.device()?), name).await
}

/// `DELETE /devices/{device_id}/token`
pub(super) async fn revoke_device(State(state): State<ApiState>, id: Segment) -> Result<Response, Answer> {
    of_device(
        &state,
        RosterRequest::RevokeDevice { device: id.device()? },
        "the tokens of a device are revoked",
    )
    .await
}

/// `POST /devices/{device_id}/disable`
pub(super) async fn disable(State(state): State<ApiState>, id: Segment) -> Result<Response, Answer> {
    of_device(&state, RosterRequest::Disable { device: id.device()? }, "a device is disabled").await
}

/// `POST /devices/{device_id}/enable`
pub(super) async fn enable(State(state): State<ApiState>, id: Segment) -> Result<Response, Answer> {
    of_device(&state, RosterRequest::Enable { device: id.device()? }, "a device is enabled").await
}

/// `POST /registration`
pub(super) async fn open(State(state): State<ApiState>, body: Body) -> Result<Response, Answer> {
    let fields = Fields::read(body).await?;
    let ms = match fields.text("open_for")? {
        None => None,
        Some(text) => parse_duration(text).ok().and_then(|wait| u64::try_from(wait.as_millis()).ok()),
    };
    let Some(ms) = ms.filter(|ms| *ms <= WINDOW_MAX_MS) else {
        return Err(Answer::bad_field(
            "open_for",
            "a time such as \"10m\", at most \"1d\"; \"0s\" closes it",
        ));
    };
    match state.asked(Ask::Roster(RosterRequest::Window { ms })).await? {
        effect::Response::Window => {
            tracing::info!(open_for_ms = ms, "registration of devices is opened for a time, or closed");
            Ok(answer(StatusCode::OK, json!({ "open_for_ms": ms })))
        }
        _ => Err(Answer::internal("the answer is of another kind")),
    }
}

/// `POST /devices/register`: the predecessor's body and texts.
pub(super) async fn register(
    State(state): State<ApiState>,
    // Only a router outside of a listener knows no address.
    remote: Option<Extension<Remote>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Answer> {
    let from = remote.map(|Extension(remote)| brake::stranger(remote.addr.ip()));
    let invalid = || Answer::new(StatusCode::BAD_REQUEST, "bad_body", "invalid request body");
    let fields = Fields::read_open(body)
        .await
        .map_err(|refusal| if refusal.status() == StatusCode::BAD_REQUEST { invalid() } else { refusal })?;
    let named = |field: &'static str| {
        let text = fields.text(field).map_err(|_| invalid())?.map(str::trim).unwrap_or_default();
        if text.is_empty() {
            let text = format!("{field} is required");
            return Err(Answer::new(StatusCode::BAD_REQUEST, "missing_field", text).with("field", field));
        }
        Ok(text.to_owned())
    };
    let (factory, robot_type) = (named("factory")?, named("robot_type")?);
    let Some(base) = state.0.summary.ways.base(&headers) else {
        let text = "the site does not know under which address devices reach it: set public_url, or send a Host header";
        return Err(Answer::new(StatusCode::CONFLICT, "public_url_required", text));
    };
    if let Some(wait) = from.and_then(|from| state.0.newcomers.wait(&from)) {
        let text = "too many devices registered from this address; wait, and go on with the rest";
        let answer = Answer::new(StatusCode::TOO_MANY_REQUESTS, "too_many_newcomers", text);
        return Err(answer.retry_after(brake::seconds(wait)));
    }
    let pair = Pair::draw(&state);
    let request = RosterRequest::Register {
        factory,
        robot_type,
        recorder: pair.recorder.1,
        transfer: pair.transfer.1,
        open: state.0.access.open_registration,
    };
    let row = device_of(state.asked(Ask::Roster(request)).await?)?;
    if let Some(from) = from {
        // Of those that asked at the same moment a few too many may come in: the next one waits for them.
        let _ = state.0.newcomers.take(from);
    }
    tracing::info!(device = %row.id, "a device is registered");
    let url = |role| base.url(role, &row.id, pair.transfer.0.reveal());
    let (recorder_url, transfer_url) = (url(Role::Recorder), url(Role::Transfer));
    let named = |named: &Option<tidegate_core::row::Named>| {
        named.as_ref().map(|named| (named.name.clone(), named.number.to_string())).unwrap_or_default()
    };
    let (factory, robot_type) = (named(&row.factory), named(&row.robot_type));
    let body = json!({
        "device_id": row.id.as_str(),
        "factory": factory.0,
        "factory_id": factory.1,
        "robot_type": robot_type.0,
        "robot_type_id": robot_type.1,
        "robot_id": row.number.to_string(),
        "ws_client_auth_token": pair.recorder.0.reveal(),
        "callback_allowlist": {
            "allowed_host": base.callbacks,
            "allowed_path_prefix": "/api/v1/callbacks/",
        },
        "recorder_rpc_url": recorder_url,
        "transfer_ws_url": transfer_url,
        "endpoints": { "recorder_rpc_url": recorder_url, "transfer_ws_url": transfer_url },
    });
    Ok(answer(StatusCode::CREATED, body))
}

/// `POST /robots/{robot_id}/ws-client-auth-token/rotate`: the predecessor's texts.
pub(super) async fn rotate(
    State(state): State<ApiState>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Result<Response, Answer> {
    let Some(number) = id.trim().parse::<u64>().ok().filter(|id| *id > 0) else {
        let answer = Answer::new(StatusCode::BAD_REQUEST, "bad_field", "invalid robot id");
        return Err(answer.with("field", "robot_id"));
    };
    let found = state.read(move |rows| {
        let mut found = None;
        rows.walk(Kind::Device, false, &mut |key, row| match (key, row) {
            (Key::Device(id), Row::Device(row)) if row.number == number => {
                found = Some((id, row.disabled_at.is_some()));
                ControlFlow::Break(())
            }
            _ => ControlFlow::Continue(()),
        })?;
        Ok(found)
    });
    let device = match found.await? {
        None => return Err(Answer::new(StatusCode::NOT_FOUND, "device_not_found", "robot not found")),
        Some((_, true)) => {
            return Err(Answer::new(StatusCode::BAD_REQUEST, "device_disabled", "robot is not active"));
        }
        Some((device, false)) => device,
    };
    let pair = Pair::draw(&state);
    let request = RosterRequest::Rotate { device, recorder: pair.recorder.1, transfer: pair.transfer.1 };
    let row = device_of(state.asked(Ask::Roster(request)).await?)?;
    tracing::info!(device = %row.id, "the tokens of a device are replaced");
    let base = state.0.summary.ways.base(&headers);
    let transfer_url = base.map(|base| base.url(Role::Transfer, &row.id, pair.transfer.0.reveal()));
    let body = Object::new()
        .put("device_id", row.id.as_str())
        .put("robot_id", row.number.to_string())
        .put("ws_client_auth_token", pair.recorder.0.reveal())
        .put("transfer_token", pair.transfer.0.reveal())
        .maybe("transfer_ws_url", transfer_url)
        .put("rotated_at", moment((state.0.clock)().wall));
    Ok(answer(StatusCode::OK, body.into()))
}

/// The two fresh tokens of a device.
struct Pair {
    recorder: (Secret, Sha256),
    transfer: (Secret, Sha256),
}

impl Pair {
    fn draw(state: &ApiState) -> Pair {
        let mint = &state.0.access.mint;
        Pair { recorder: mint.draw(grants::DEVICE), transfer: mint.draw(grants::DEVICE) }
    }
}

async fn issue(
    state: &ApiState,
    scope: Scope,
    device: Option<DeviceId>,
    name: Option<String>,
) -> Result<Response, Answer> {
    let prefix = if scope.is_of_device() { grants::DEVICE } else { grants::OPERATOR };
    let (secret, digest) = state.0.access.mint.draw(prefix);
    let request = RosterRequest::Issue { scope, device, name, token: digest };
    match state.asked(Ask::Roster(request)).await? {
        effect::Response::Token(row) => {
            let device = row.device.as_ref().map(DeviceId::as_str);
            tracing::info!(id = row.id, scope = row.scope.name(), device, "a token is made");
            let mut body = token(&row);
            body["token"] = Value::String(secret.reveal().to_owned());
            Ok(answer(StatusCode::CREATED, body))
        }
        _ => Err(Answer::internal("the answer is of another kind")),
    }
}

/// `done` is what the log says of it.
async fn of_device(state: &ApiState, request: RosterRequest, done: &str) -> Result<Response, Answer> {
    let row = device_of(state.asked(Ask::Roster(request)).await?)?;
    tracing::info!(device = %row.id, "{done}");
    Ok(answer(StatusCode::OK, registered(&row)))
}

fn device_of(response: effect::Response) -> Result<Box<DeviceRow>, Answer> {
    match response {
        effect::Response::Device(row) => Ok(row),
        _ => Err(Answer::internal("the answer is of another kind")),
    }
}

/// A token as it is shown: never its digest.
fn token(row: &TokenRow) -> Value {
    Object::new()
        .put("id", row.id)
        .put("scope", row.scope.name())
        .maybe("device_id", row.device.as_ref().map(DeviceId::as_str))
        .maybe("name", row.name.as_deref())
        .put("created_at", moment(row.created_at))
        .maybe("used_at", row.used_at.map(moment))
        .into()
}

fn registered(row: &DeviceRow) -> Value {
    let text = |named: &Option<tidegate_core::row::Named>| named.as_ref().map(|named| named.name.clone());
    Object::new()
        .put("device_id", row.id.as_str())
        .put("robot_id", row.number.to_string())
        .maybe("factory", text(&row.factory))
        .maybe("robot_type", text(&row.robot_type))
        .put("registered_at", moment(row.registered_at))
        .maybe("disabled_at", row.disabled_at.map(moment))
        .into()
}
