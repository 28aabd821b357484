//! Owns the routes of episodes: list, look at, approve, reject.

use std::ops::ControlFlow;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use http::StatusCode;
use tidegate_core::effect;
use tidegate_core::input::Request as Ask;
use tidegate_core::limits::REASON_BYTES;
use tidegate_core::refusal::Refusal;
use tidegate_core::row::{EpisodeRow, JobRow, Key, Kind, Qa, Row, SyncMark, shorten};

use super::error::{Answer, json as answer, refused};
use super::input::{Fields, Params, Segment, device};
use super::reads::Unreadable;
use super::{ApiState, Snapshot, shapes};

/// Every word an episode's `sync_status` can be.
const SYNC_WORDS: [&str; 5] = ["not_started", "pending", "in_progress", "completed", "failed"];

/// The last job of an episode.
pub(super) fn job_of(rows: &dyn Snapshot, episode: &EpisodeRow) -> Result<Option<JobRow>, Unreadable> {
    let job = match &episode.sync {
        SyncMark::NotStarted => return Ok(None),
        SyncMark::Queued(job) | SyncMark::Failed(job) | SyncMark::Synced { job, .. } => *job,
    };
    Ok(match rows.get(&Key::Job(job))? {
        Some(Row::Job(row)) => Some(row),
        _ => None,
    })
}

fn sync_word(rows: &dyn Snapshot, episode: &EpisodeRow) -> Result<&'static str, Unreadable> {
    Ok(match &episode.sync {
        SyncMark::NotStarted => "not_started",
        SyncMark::Synced { .. } => "completed",
        SyncMark::Failed(_) => "failed",
        SyncMark::Queued(_) => job_of(rows, episode)?.map_or("pending", |job| shapes::job_status(&job.state)),
    })
}

pub(super) async fn one(State(state): State<ApiState>, id: Segment) -> Result<Response, Answer> {
    let id = id.episode()?;
    let bucket = state.0.summary.bucket();
    let body = state.read(move |rows| match rows.get(&Key::Episode(id))? {
        Some(Row::Episode(row)) => Ok(shapes::episode(&row, sync_word(rows, &row)?, &bucket)),
        _ => Err(refused(&Refusal::EpisodeNotFound(id))),
    });
    Ok(answer(StatusCode::OK, body.await?))
}

pub(super) async fn list(State(state): State<ApiState>, request: Request) -> Result<Response, Answer> {
    let params = Params::of(request.uri())?;
    let page = params.page()?;
    let whose = params.get("device_id").map(|text| device("device_id", text)).transpose()?;
    let qa_words = "pending_qa, approved, needs_inspection, inspector_approved or rejected";
    let qa = params.word("qa_status", Qa::from_name, qa_words)?;
    let known = |text: &str| SYNC_WORDS.into_iter().find(|word| *word == text);
    let sync = params.word("sync_status", known, "not_started, pending, in_progress, completed or failed")?;
    let bucket = state.0.summary.bucket();
    let (items, total) = state
        .read(move |rows| {
            let (mut items, mut total, mut failed) = (Vec::new(), 0, None);
            rows.walk(Kind::Episode, true, &mut |_, row| {
                let Row::Episode(row) = row else { return ControlFlow::Continue(()) };
                if whose.as_ref().is_some_and(|id| row.device != *id) || qa.is_some_and(|qa| row.qa != qa) {
                    return ControlFlow::Continue(());
                }
                let word = match sync_word(rows, &row) {
                    Ok(word) => word,
                    Err(error) => {
                        failed = Some(error);
                        return ControlFlow::Break(());
                    }
                };
                if sync.is_none_or(|sync| word == sync) {
                    if page.holds(total) {
                        items.push(shapes::episode(&row, word, &bucket));
                    }
                    total += 1;
                }
                ControlFlow::Continue(())
            })?;
            failed.map_or(Ok((items, total)), |error| Err(error.into()))
        })
        .await?;
    Ok(answer(StatusCode::OK, page.envelope(items, total)))
}

pub(super) async fn approve(
    State(state): State<ApiState>,
    id: Segment,
    body: Body,
) -> Result<Response, Answer> {
    judge(&state, &id, true, body).await
}

pub(super) async fn reject(
    State(state): State<ApiState>,
    id: Segment,
    body: Body,
) -> Result<Response, Answer> {
    judge(&state, &id, false, body).await
}

async fn judge(state: &ApiState, id: &Segment, approve: bool, body: Body) -> Result<Response, Answer> {
    let episode = id.episode()?;
    let fields = Fields::read(body).await?;
    let reason = fields.text("reason")?.map(|text| shorten(text, REASON_BYTES));
    match state.asked(Ask::Judge { episode, approve, reason }).await? {
        effect::Response::Episode(row) => {
            let bucket = state.0.summary.bucket();
            let judged = row.clone();
            let word = state.read(move |rows| Ok(sync_word(rows, &judged)?)).await?;
            Ok(answer(StatusCode::OK, shapes::episode(&row, word, &bucket)))
        }
        _ => Err(Answer::internal("the answer is of another kind")),
    }
}
