//! Owns what devices hold against their records: the list for people, and their word how it is settled.

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde_json::{Value, json};
use tidegate_core::effect;
use tidegate_core::id::DeviceId;
use tidegate_core::input::{Request as Ask, Resolve};

use super::ApiState;
use super::command::rpc;
use super::error::{Answer, json as answer};
use super::input::{Fields, Segment};
use super::shapes::{self, Object};

pub(super) async fn conflicts(State(state): State<ApiState>) -> Response {
    let conflicts = state.0.board.conflicts().into_iter().map(|(device, view)| named(&device, &view));
    let now = (state.0.clock)().wall;
    let contests = state.0.board.contested().into_iter().flat_map(|(device, seen)| {
        let mut contests = shapes::contests(&seen, now);
        for contest in &mut contests {
            contest["device_id"] = device.as_str().into();
        }
        contests
    });
    let body = json!({
        "conflicts": conflicts.collect::<Vec<Value>>(),
        "contests": contests.collect::<Vec<Value>>(),
    });
    answer(StatusCode::OK, body)
}

/// A conflict with the name of its device.
fn named(device: &DeviceId, view: &effect::ConflictView) -> Value {
    Object::new().put("device_id", device.as_str()).all(shapes::conflict(view)).into()
}

pub(super) async fn resolve(
    State(state): State<ApiState>,
    id: Segment,
    body: Body,
) -> Result<Response, Answer> {
    let device = id.device()?;
    let fields = Fields::read(body).await?;
    let missing = |field: &'static str, text: &str| {
        Answer::new(StatusCode::BAD_REQUEST, "missing_field", format!("{field} is required: {text}"))
            .with("field", field)
    };
    let words = "release, finish or drop";
    let how = fields.text("how")?.ok_or_else(|| missing("how", words))?;
    let how = Resolve::from_name(how).ok_or_else(|| Answer::bad_field("how", words))?;
    let holds = fields.text("device_task_id")?;
    let holds = holds.ok_or_else(|| missing("device_task_id", "the task that you saw the device hold"))?;
    match state.asked(Ask::Resolve { device, how, holds: holds.to_owned() }).await? {
        effect::Response::Resolved { device, left } => {
            let body = Object::new()
                .put("device_id", device.as_str())
                .put("resolved", left.is_none())
                .maybe("conflict", left.as_ref().map(shapes::conflict));
            Ok(answer(StatusCode::OK, body.into()))
        }
        response => rpc(response),
    }
}
