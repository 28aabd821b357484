//! Owns the routes of tasks: make, list, look at, call off, settle.

use std::ops::ControlFlow;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use http::{StatusCode, Uri};
use serde_json::Value;
use tidegate_core::effect;
use tidegate_core::id::{TaskId, WireId};
use tidegate_core::input::Request as Ask;
use tidegate_core::limits::{CONFIG_BYTES, REASON_BYTES};
use tidegate_core::refusal::Refusal;
use tidegate_core::row::{Key, Kind, Row, TaskRow, TaskState, shorten};
use tidegate_core::wire::params;

use super::error::{Answer, json as answer, refused};
use super::input::{Fields, Params, Segment, bad_id, device};
use super::{ApiState, Snapshot, command, shapes};

pub(super) async fn create(State(state): State<ApiState>, body: Body) -> Result<Response, Answer> {
    created(&state, body).await.map_err(Answer::with_error_msg)
}

async fn created(state: &ApiState, body: Body) -> Result<Response, Answer> {
    let fields = Fields::read(body).await?;
    command::refuse_tokens(&fields, false, "give it with config, when the task goes to its device")?;
    let task = match fields.text("task_id")? {
        None => None,
        Some(text) => Some(TaskId::new(text).map_err(|bad| bad_id("task_id", &bad))?),
    };
    let Some(text) = fields.text("device_id")? else {
        return Err(Answer::new(StatusCode::BAD_REQUEST, "missing_field", "device_id is required")
            .with("field", "device_id"));
    };
    let device = device("device_id", text)?;
    let config = match fields.0.get("config") {
        None | Some(Value::Null) => None,
        Some(config @ Value::Object(_)) => Some(config.to_string()),
        Some(_) => return Err(Answer::bad_field("config", "a JSON object")),
    };
    if config.as_ref().is_some_and(|config| config.len() > CONFIG_BYTES) {
        return Err(Answer::bad_field("config", &format!("at most {CONFIG_BYTES} bytes of JSON")));
    }
    let asked = state.asked(Ask::CreateTask { task, device, config }).await?;
    task_of(state, asked, StatusCode::CREATED)
}

pub(super) async fn cancel(State(state): State<ApiState>, id: Segment) -> Result<Response, Answer> {
    let asked = state.asked(Ask::CancelTask { task: id.0 }).await.map_err(Answer::with_error_msg)?;
    task_of(&state, asked, StatusCode::OK)
}

/// Settles a task whose recording does not come.
pub(super) async fn resolve(
    State(state): State<ApiState>,
    id: Segment,
    body: Body,
) -> Result<Response, Answer> {
    resolved(&state, id, body).await.map_err(Answer::with_error_msg)
}

async fn resolved(state: &ApiState, id: Segment, body: Body) -> Result<Response, Answer> {
    let fields = Fields::read(body).await?;
    let to = match fields.text("to")?.and_then(TaskState::from_name) {
        Some(to @ (TaskState::Failed | TaskState::Pending)) => to,
        Some(_) | None => {
            return Err(Answer::bad_field("to", "failed, or pending to record it once more"));
        }
    };
    let reason = fields.lenient("reason").map(|reason| shorten(reason, REASON_BYTES));
    let asked = state.asked(Ask::ResolveTask { task: id.0, to, reason }).await?;
    task_of(state, asked, StatusCode::OK)
}

/// What `config` would send for a task: its configuration, the callback addresses, and no secret.
pub(super) async fn config(State(state): State<ApiState>, id: Segment) -> Result<Response, Answer> {
    let row = state.read(move |rows| find(rows, &id.0)).await.map_err(Answer::with_error_msg)?;
    if row.state != TaskState::Pending || row.begun {
        return Err(refused(&Refusal::NotConfigurable(Some(row.state))).with_error_msg());
    }
    let sent = params::Config {
        params: None,
        stored: row.config.as_deref(),
        wire: row.wire.as_str(),
        device: row.device.as_str(),
        public_url: state.0.summary.public_url.as_deref(),
    };
    let mut sent = shapes::parsed(&sent.build());
    let mut config = sent["task_config"].take();
    config["user_token"] = "".into();
    Ok(answer(StatusCode::OK, config))
}

fn task_of(state: &ApiState, response: effect::Response, status: StatusCode) -> Result<Response, Answer> {
    match response {
        effect::Response::Task(row) => Ok(answer(status, shown(state, &row))),
        _ => Err(Answer::internal("the answer is of another kind")),
    }
}

pub(super) async fn one(State(state): State<ApiState>, id: Segment) -> Result<Response, Answer> {
    let row = state.read(move |rows| find(rows, &id.0)).await.map_err(Answer::with_error_msg)?;
    Ok(answer(StatusCode::OK, shown(&state, &row)))
}

/// A task as it is shown now.
fn shown(state: &ApiState, row: &TaskRow) -> Value {
    shapes::task_now(row, (state.0.clock)().wall, state.0.summary.uploading_deadline)
}

/// A task by its public id, or by the wire id of its current attempt.
pub(super) fn find(rows: &dyn Snapshot, text: &str) -> Result<TaskRow, Answer> {
    let missing = || refused(&Refusal::TaskNotFound(text.to_owned()));
    let id = TaskId::new(text);
    if let Ok(id) = &id
        && let Some(Row::Task(row)) = rows.get(&Key::Task(id.clone()))?
    {
        return Ok(row);
    }
    // A wire id may be longer than a task id: by its attempt.
    let wire = match (WireId::new(text), id) {
        (Ok(wire), _) => wire,
        (Err(_), Ok(_)) => return Err(missing()),
        (Err(_), Err(bad)) => return Err(bad_id("task_id", &bad)),
    };
    let Some(Row::Alias(alias)) = rows.get(&Key::Alias(wire.clone()))? else { return Err(missing()) };
    match rows.get(&Key::Task(alias.task))? {
        Some(Row::Task(row)) if row.wire == wire => Ok(row),
        _ => Err(missing()),
    }
}

pub(super) async fn list(State(state): State<ApiState>, request: Request) -> Result<Response, Answer> {
    listed(&state, request.uri()).await.map_err(Answer::with_error_msg)
}

async fn listed(state: &ApiState, uri: &Uri) -> Result<Response, Answer> {
    let params = Params::of(uri)?;
    let page = params.page()?;
    let whose = params.get("device_id").map(|text| device("device_id", text)).transpose()?;
    let words = "pending, ready, in_progress, uploading, completed, failed or cancelled";
    let state_is = params.word("status", TaskState::from_name, words)?;
    let (now, deadline) = ((state.0.clock)().wall, state.0.summary.uploading_deadline);
    let (items, total) = state
        .read(move |rows| {
            let (mut items, mut total) = (Vec::new(), 0);
            rows.walk(Kind::Task, false, &mut |_, row| {
                let Row::Task(row) = row else { return ControlFlow::Continue(()) };
                let wanted = whose.as_ref().is_none_or(|id| row.device == *id)
                    && state_is.is_none_or(|state| row.state == state);
                if wanted {
                    if page.holds(total) {
                        items.push(shapes::task_now(&row, now, deadline));
                    }
                    total += 1;
                }
                ControlFlow::Continue(())
            })?;
            Ok((items, total))
        })
        .await?;
    Ok(answer(StatusCode::OK, page.envelope(items, total)))
}
