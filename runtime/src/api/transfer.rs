//! Owns what operators have said to uploaders. Nobody waits for an answer of the device: it is seen in its status.

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde_json::{Value, json};
use tidegate_core::effect;
use tidegate_core::id::DeviceId;
use tidegate_core::input::{Request as Ask, TransferAsk};

use super::ApiState;
use super::error::{Answer, json as answer};
use super::input::{Fields, Segment};

/// The predecessor's word for a body without a task, kept as it is.
const NO_TASK: &str = "Key: 'TaskID' Error:Field validation for 'TaskID' failed on the 'required' tag";
/// The priority of a request that names none. Known uploaders ignore it.
const PRIORITY: u32 = 1;

pub(super) async fn upload_request(
    State(state): State<ApiState>,
    id: Segment,
    body: Body,
) -> Result<Response, Answer> {
    let fields = Fields::read(body).await?;
    let task = task(&fields)?;
    let priority = match fields.0.get("priority") {
        None | Some(Value::Null) => PRIORITY,
        Some(number) => number
            .as_u64()
            .and_then(|number| u32::try_from(number).ok())
            .ok_or_else(|| Answer::bad_field("priority", "a whole number from 0 to 4294967295"))?,
    };
    say(&state, id.device()?, TransferAsk::Upload { task, priority }).await
}

pub(super) async fn upload_all(State(state): State<ApiState>, id: Segment) -> Result<Response, Answer> {
    say(&state, id.device()?, TransferAsk::UploadAll).await
}

pub(super) async fn status_query(State(state): State<ApiState>, id: Segment) -> Result<Response, Answer> {
    say(&state, id.device()?, TransferAsk::StatusQuery).await
}

pub(super) async fn cancel(
    State(state): State<ApiState>,
    id: Segment,
    body: Body,
) -> Result<Response, Answer> {
    let task = task(&Fields::read(body).await?)?;
    say(&state, id.device()?, TransferAsk::Cancel { task }).await
}

fn task(fields: &Fields) -> Result<String, Answer> {
    match fields.text("task_id")? {
        Some(task) if !task.is_empty() => Ok(task.to_owned()),
        Some(_) | None => {
            Err(Answer::new(StatusCode::BAD_REQUEST, "task_id_required", NO_TASK).with("field", "task_id"))
        }
    }
}

async fn say(state: &ApiState, device: DeviceId, ask: TransferAsk) -> Result<Response, Answer> {
    match state.asked(Ask::Transfer { device, ask }).await? {
        effect::Response::Sent => Ok(answer(StatusCode::OK, json!({ "status": "sent" }))),
        _ => Err(Answer::internal("the answer is of another kind")),
    }
}
