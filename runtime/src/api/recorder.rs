//! Owns the reads about devices: recorders and uploaders that are connected, a recorder's state, a device's links.

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde_json::{Map, Value, json};
use tidegate_core::effect;
use tidegate_core::id::{DeviceId, Role};
use tidegate_core::input::Request as Ask;
use tidegate_core::refusal::Refusal;
use tidegate_core::time::Wall;

use super::error::{Answer, json as answer, refused};
use super::input::{Params, Segment};
use super::shapes::{self, NEVER, Object, moment, recorder_state};
use super::{ApiState, Board};
use crate::board::{DeviceSeen, LinkSeen};

/// How old a state may be that a refresh takes for fresh, unless the caller says otherwise: the predecessor's value.
const MAX_AGE_MS: u64 = 1000;

pub(super) async fn recorders(State(state): State<ApiState>) -> Response {
    let devices = state.0.board.linked(Role::Recorder).into_iter().map(|(id, seen)| {
        let view = seen.recorder.as_ref();
        let up_since = seen.recorder_link.as_ref().map_or(Wall(0), |link| link.link.connected_at);
        let text = |text: Option<&String>| text.filter(|text| !text.is_empty()).cloned();
        let told = Object::new()
            .put("current_state", view.map_or("unknown", |view| view.state.as_str()))
            .maybe("task_id", text(view.map(|view| &view.task)))
            .put("updated_at", moment(view.map_or(up_since, |view| view.updated_at)))
            .maybe("source", text(view.map(|view| &view.source)))
            .put("last_sync_attempt_at", view.and_then(|view| view.asked_at).map_or(NEVER.into(), moment))
            .maybe("last_sync_error", text(view.and_then(|view| view.error.as_ref())))
            .maybe("raw", view.and_then(|view| view.raw.as_deref()).map(shapes::parsed));
        Object::new()
            .all(link_fields(&id, seen.recorder_link.as_ref()))
            .put("state", told)
            .put("state_synced", view.is_some_and(|view| view.synced))
            .put("syncing", !view.is_some_and(|view| view.synced))
            .put("confidence", view.map_or("unknown", |view| view.confidence))
            .into()
    });
    answer(StatusCode::OK, json!({ "devices": devices.collect::<Vec<Value>>() }))
}

pub(super) async fn transfers(State(state): State<ApiState>) -> Response {
    let devices = state.0.board.linked(Role::Transfer).into_iter().map(|(id, seen)| {
        Object::new()
            .all(link_fields(&id, seen.transfer_link.as_ref()))
            .put("status", shapes::transfer_status(seen.transfer.as_ref()))
            .into()
    });
    answer(StatusCode::OK, json!({ "devices": devices.collect::<Vec<Value>>() }))
}

fn link_fields(id: &DeviceId, link: Option<&LinkSeen>) -> Map<String, Value> {
    Object::new()
        .put("device_id", id.as_str())
        .maybe("remote_ip", link.map(|link| link.link.remote.as_str()))
        .maybe("connected_at", link.map(|link| moment(link.link.connected_at)))
        .maybe("last_seen_at", link.map(|link| moment(link.last_seen)))
        .maybe("generation", link.map(|link| link.link.generation))
        .fields()
}

pub(super) async fn connection(State(state): State<ApiState>, id: Segment) -> Result<Response, Answer> {
    let id = id.device()?;
    let seen = state.0.board.device(&id).unwrap_or_default();
    let since = |link: Option<&LinkSeen>| link.map(|link| link.link.connected_at);
    let (recorder, transfer) = (since(seen.recorder_link.as_ref()), since(seen.transfer_link.as_ref()));
    let now = (state.0.clock)().wall;
    let body = Object::new()
        .put("device_id", id.as_str())
        .put("connected", recorder.is_some() && transfer.is_some())
        .maybe("connected_at", recorder.max(transfer).map(moment))
        .put("recorder_connected", recorder.is_some())
        .put("transfer_connected", transfer.is_some())
        .maybe("recorder_generation", seen.recorder_link.as_ref().map(|link| link.link.generation))
        .maybe("transfer_generation", seen.transfer_link.as_ref().map(|link| link.link.generation))
        .put("contests", shapes::contests(&seen, now))
        .maybe("conflict", seen.conflict.as_ref().map(shapes::conflict));
    Ok(answer(StatusCode::OK, body.into()))
}

pub(super) async fn state(
    State(state): State<ApiState>,
    id: Segment,
    request: Request,
) -> Result<Response, Answer> {
    let id = id.device()?;
    let params = Params::of(request.uri())?;
    let refresh = params.get("refresh").is_some_and(|word| matches!(word, "1" | "true" | "yes"));
    if !refresh {
        let now = (state.0.clock)().wall;
        return Ok(answer(StatusCode::OK, cached(&state.0.board, &id, now)));
    }
    let max_age_ms = params.get("max_age_ms").and_then(|text| text.parse().ok()).unwrap_or(MAX_AGE_MS);
    match state.ask(Ask::RefreshState { device: id.clone(), max_age_ms }, None).await? {
        Ok(effect::Response::State(view)) if view.connected => {
            Ok(answer(StatusCode::OK, Value::Object(recorder_state(&view, view.age_ms))))
        }
        // The link went while we asked: that is a state, not an error.
        Ok(effect::Response::State(_)) | Err(Refusal::RecorderOffline | Refusal::LinkLost { .. }) => {
            let now = (state.0.clock)().wall;
            let seen = state.0.board.device(&id).unwrap_or_default();
            Ok(answer(StatusCode::OK, disconnected(&id, &seen, now)))
        }
        Ok(_) => Err(Answer::internal("the answer is of another kind")),
        Err(refusal) => Ok(refused(&refusal).into_response()),
    }
}

/// What the board says of a recorder, without asking it.
fn cached(board: &Board, id: &DeviceId, now: Wall) -> Value {
    let seen = board.device(id).unwrap_or_default();
    let (Some(link), Some(view)) = (&seen.recorder_link, &seen.recorder) else {
        return disconnected(id, &seen, now);
    };
    let mut view = view.clone();
    view.connected = true;
    view.fresh = false;
    view.generation = link.link.generation;
    let age = u64::try_from(view.updated_at.until(now).as_millis()).unwrap_or(u64::MAX);
    Value::Object(recorder_state(&view, age))
}

fn disconnected(id: &DeviceId, seen: &DeviceSeen, now: Wall) -> Value {
    // A link that nothing was told of yet is connected, and everything else about it is unknown.
    let connected = seen.recorder_link.is_some() && seen.recorder.is_none();
    Object::new()
        .put("device_id", id.as_str())
        .put("connected", connected)
        .put("current_state", "unknown")
        .put("previous_state", "")
        .put("task_id", "")
        .put("updated_at", moment(now))
        .put("state_synced", false)
        .put("syncing", connected)
        .put("fresh", false)
        .put("age_ms", 0)
        .put("source", if connected { "" } else { "disconnected" })
        .put("state_version", seen.recorder.as_ref().map_or(0, |view| view.version))
        .put("confidence", if connected { "syncing" } else { "unknown" })
        .put("generation", seen.recorder_link.as_ref().map_or(0, |link| link.link.generation))
        .into()
}
