//! Owns the callbacks of recorders: one POST when recording begins, one when it ends. Of the token in their
//! `Authorization` header only the digest goes on.

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use http::{HeaderMap, StatusCode};
use jiff::Timestamp;
use serde_json::json;
use tidegate_core::effect::{self, Finish};
use tidegate_core::input::Request as Ask;
use tidegate_core::limits::REASON_BYTES;
use tidegate_core::row::{RecordingFacts, shorten};
use tidegate_core::time::Wall;
use tidegate_core::wire;

use super::ApiState;
use super::error::{Answer, json as answer};
use super::input::{Fields, device};
use super::shapes::second;
use crate::grants::bearer;

pub(super) async fn start(
    State(state): State<ApiState>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Answer> {
    let fields = said(body).await?;
    let task = required(&fields, "task_id")?.to_owned();
    let device = match fields.lenient("device_id") {
        None => None,
        Some(text) => Some(device("device_id", text).map_err(Answer::with_error_msg)?),
    };
    match state
        .asked(Ask::CallbackStart { task, device, credential: bearer(&headers) })
        .await
        .map_err(Answer::with_error_msg)?
    {
        effect::Response::Started { moved } => Ok(answer(
            StatusCode::OK,
            json!({
                "acknowledged_at": second((state.0.clock)().wall),
                "status": "acknowledged",
                "task_status": if moved { "in_progress" } else { "unknown" },
            }),
        )),
        _ => Err(Answer::internal("the answer is of another kind")),
    }
}

pub(super) async fn finish(
    State(state): State<ApiState>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Answer> {
    let fields = said(body).await?;
    let task = required(&fields, "task_id")?.to_owned();
    let path = required(&fields, "output_path")?.to_owned();
    let device = device("device_id", required(&fields, "device_id")?).map_err(Answer::with_error_msg)?;
    let facts = RecordingFacts {
        started_at: moment(&fields, "started_at"),
        finished_at: moment(&fields, "finished_at"),
        duration_ms: fields.0.get("duration_sec").and_then(|value| value.as_f64()).and_then(milliseconds),
        messages: wire::number(&fields.0, "message_count"),
        len: wire::number(&fields.0, "file_size_bytes"),
        path: Some(shorten(&path, REASON_BYTES)),
        error: fields.lenient("error").map(|text| shorten(text, REASON_BYTES)),
        // A recording that ended otherwise may have no error text.
        status: fields
            .lenient("status")
            .filter(|word| !word.trim().eq_ignore_ascii_case("finished"))
            .map(|text| shorten(text, REASON_BYTES)),
    };
    let request = Ask::CallbackFinish { task, device, facts, credential: bearer(&headers) };
    match state.asked(request).await.map_err(Answer::with_error_msg)? {
        effect::Response::Finished { state: task, handled } => {
            let message = match handled {
                Finish::Requested => "Upload triggered successfully",
                Finish::TransferOffline => {
                    "Recording finished; upload_request not sent because transfer is disconnected"
                }
                Finish::Repeated => "Recording finish callback already handled",
            };
            Ok(answer(
                StatusCode::OK,
                json!({
                    "success": true,
                    "message": message,
                    "task_status": task.name(),
                    "upload_request_sent": handled == Finish::Requested,
                }),
            ))
        }
        _ => Err(Answer::internal("the answer is of another kind")),
    }
}

/// Reads a callback. Recorders never repeat one, so only what is no JSON object is refused.
async fn said(body: Body) -> Result<Fields, Answer> {
    Fields::read_open(body).await.map_err(|refusal| {
        if refusal.status() != StatusCode::BAD_REQUEST {
            return refusal.with_error_msg();
        }
        let detail = refusal.body().get("detail").and_then(|detail| detail.as_str()).unwrap_or("unreadable");
        let text = format!("Invalid request body: {detail}");
        refusal.with("error_msg", text)
    })
}

fn required<'a>(fields: &'a Fields, name: &'static str) -> Result<&'a str, Answer> {
    fields.lenient(name).ok_or_else(|| {
        let text = format!("Missing required field: {name}");
        Answer::new(StatusCode::BAD_REQUEST, "missing_field", text).with("field", name).with_error_msg()
    })
}

fn moment(fields: &Fields, name: &str) -> Option<Wall> {
    let at: Timestamp = fields.lenient(name)?.parse().ok()?;
    Some(Wall(at.as_millisecond()))
}

/// Whole milliseconds; what is negative, not finite or beyond a century is no duration of a recording.
fn milliseconds(seconds: f64) -> Option<u64> {
    (0.0..3.2e9).contains(&seconds).then_some((seconds * 1000.0).round() as u64)
}
