//! Owns the routes of the sync queue: triggers, jobs, states. The predecessor's, field for field; additions are
//! further fields.

use std::cmp::Reverse;
use std::ops::ControlFlow;

use axum::extract::{Request, State};
use axum::response::Response;
use http::StatusCode;
use serde_json::{Value, json};
use tidegate_core::effect;
use tidegate_core::id::{EpisodeId, JobId};
use tidegate_core::input::Request as Ask;
use tidegate_core::refusal::Refusal;
use tidegate_core::row::{EpisodeRow, JobRow, Key, Kind, Row, SyncMark};
use tidegate_core::time::Wall;

use super::error::{Answer, json as answer, refused};
use super::input::{self, Params, Segment};
use super::reads::Unreadable;
use super::shapes::{self, Object, second};
use super::{ApiState, Snapshot, episodes};
use crate::board::Board;

/// Episodes one batch status may name: the predecessor's bound.
const STATUSES_MAX: usize = 50;

pub(super) async fn trigger(State(state): State<ApiState>, id: Segment) -> Result<Response, Answer> {
    let episode = id.episode()?;
    match state.asked(Ask::Sync { episode }).await? {
        effect::Response::SyncAccepted { episode } => Ok(answer(
            StatusCode::ACCEPTED,
            json!({
                "status": "accepted",
                "episode_id": episode.0,
                "message": "episode enqueued for cloud sync",
            }),
        )),
        _ => Err(Answer::internal("the answer is of another kind")),
    }
}

pub(super) async fn batch(State(state): State<ApiState>) -> Result<Response, Answer> {
    match state.asked(Ask::SyncBatch).await? {
        effect::Response::BatchAccepted { count } => Ok(answer(
            StatusCode::ACCEPTED,
            json!({
                "status": "accepted",
                "enqueued_count": count,
                "message": format!("{count} episodes enqueued for cloud sync"),
            }),
        )),
        _ => Err(Answer::internal("the answer is of another kind")),
    }
}

pub(super) async fn list(State(state): State<ApiState>, request: Request) -> Result<Response, Answer> {
    let params = Params::of(request.uri())?;
    let page = params.page()?;
    // Not validated, as in the predecessor: an unknown word finds nothing.
    let status = params.get("status").map(str::to_owned);
    let (board, bucket) = (state.0.board.clone(), state.0.summary.bucket());
    let body = state.read(move |rows| {
        // Keys first: a page is at most a hundred jobs, a list may be all of them.
        let mut found: Vec<(Reverse<Wall>, Reverse<JobId>)> = Vec::new();
        rows.walk(Kind::Job, false, &mut |_, row| {
            if let Row::Job(row) = row
                && status.as_deref().is_none_or(|word| word == shapes::job_status(&row.state))
            {
                found.push((Reverse(shapes::job_started_at(&row)), Reverse(row.id)));
            }
            ControlFlow::Continue(())
        })?;
        found.sort_unstable();
        let mut items = Vec::new();
        for (_, Reverse(id)) in found.iter().skip(page.offset).take(page.limit) {
            if let Some(Row::Job(row)) = rows.get(&Key::Job(*id))? {
                items.push(job(rows, &row, &board, &bucket)?.into());
            }
        }
        Ok(page.envelope(items, found.len()))
    });
    Ok(answer(StatusCode::OK, body.await?))
}

pub(super) async fn logs(
    State(state): State<ApiState>,
    id: Segment,
    request: Request,
) -> Result<Response, Answer> {
    let page = Params::of(request.uri())?.page()?;
    let episode = id.episode()?;
    let (board, bucket) = (state.0.board.clone(), state.0.summary.bucket());
    let body = state.read(move |rows| {
        let (mut wanted, mut total) = (Vec::new(), 0);
        rows.walk(Kind::Job, true, &mut |_, row| {
            if let Row::Job(row) = row
                && row.episode == episode
            {
                if page.holds(total) {
                    wanted.push(row);
                }
                total += 1;
            }
            ControlFlow::Continue(())
        })?;
        let items = wanted.iter().map(|row| job(rows, row, &board, &bucket).map(Value::from));
        Ok(page.envelope(items.collect::<Result<_, _>>()?, total))
    });
    Ok(answer(StatusCode::OK, body.await?))
}

fn job(rows: &dyn Snapshot, row: &JobRow, board: &Board, bucket: &str) -> Result<Object, Unreadable> {
    let public_id = match rows.get(&Key::Episode(row.episode))? {
        Some(Row::Episode(episode)) => Some(episode.public_id),
        _ => None,
    };
    Ok(shapes::job(row, public_id.as_deref(), bucket, board.progress(row.episode).as_ref()))
}

pub(super) async fn status(State(state): State<ApiState>, id: Segment) -> Result<Response, Answer> {
    let episode = id.episode()?;
    let (board, bucket) = (state.0.board.clone(), state.0.summary.bucket());
    let body = state.read(move |rows| {
        status_of(rows, episode, &board, &bucket)?.ok_or_else(|| refused(&Refusal::EpisodeNotFound(episode)))
    });
    Ok(answer(StatusCode::OK, body.await?))
}

/// How far an episode is; `None` is no such episode.
fn status_of(
    rows: &dyn Snapshot,
    id: EpisodeId,
    board: &Board,
    bucket: &str,
) -> Result<Option<Value>, Unreadable> {
    let Some(Row::Episode(episode)) = rows.get(&Key::Episode(id))? else { return Ok(None) };
    let progress = board.progress(id);
    let job = episodes::job_of(rows, &episode)?;
    let fields = match &job {
        Some(row) => shapes::job(row, Some(&episode.public_id), bucket, progress.as_ref()),
        None => shapes::no_job(id, &episode.public_id),
    };
    let running = job.as_ref().is_some_and(|row| shapes::job_status(&row.state) == "in_progress");
    let progress = progress.filter(|seen| running && job.as_ref().is_some_and(|row| row.id == seen.job));
    let synced = synced_at(&episode);
    let body = fields
        .put("cloud_synced", synced.is_some())
        .maybe("cloud_synced_at", synced.map(second))
        .put("cloud_processed", false)
        .maybe("progress", progress.as_ref().and_then(shapes::progress));
    Ok(Some(body.into()))
}

fn synced_at(episode: &EpisodeRow) -> Option<Wall> {
    match &episode.sync {
        SyncMark::Synced { at, .. } => Some(*at),
        SyncMark::NotStarted | SyncMark::Queued(_) | SyncMark::Failed(_) => None,
    }
}

pub(super) async fn statuses(State(state): State<ApiState>, request: Request) -> Result<Response, Answer> {
    let ids = named(&Params::of(request.uri())?)?;
    let (board, bucket) = (state.0.board.clone(), state.0.summary.bucket());
    let body = state.read(move |rows| {
        let (mut items, mut errors) = (Vec::new(), Vec::new());
        for id in ids {
            match status_of(rows, id, &board, &bucket)? {
                Some(item) => items.push(item),
                None => errors.push(json!({ "episode_id": id.0, "error": "episode not found" })),
            }
        }
        let errors = (!errors.is_empty()).then_some(errors);
        Ok(Object::new().put("items", items).maybe("errors", errors).into())
    });
    Ok(answer(StatusCode::OK, body.await?))
}

/// The distinct episodes that `ids` names, in its order.
fn named(params: &Params) -> Result<Vec<EpisodeId>, Answer> {
    let bad = |text: &str| Answer::new(StatusCode::BAD_REQUEST, "bad_field", text).with("field", "ids");
    let text = params.get("ids").ok_or_else(|| bad("ids is required"))?;
    let mut ids = Vec::new();
    for word in text.split(',') {
        let id = input::episode(word).ok_or_else(|| bad("ids must be comma-separated positive integers"))?;
        if !ids.contains(&id) {
            ids.push(id);
        }
        if ids.len() > STATUSES_MAX {
            return Err(bad("ids must contain at most 50 values"));
        }
    }
    Ok(ids)
}

pub(super) async fn config(State(state): State<ApiState>) -> Response {
    let summary = &state.0.summary;
    let queue = state.0.board.queue();
    let body = Object::new()
        .put("worker_running", summary.worker_running)
        .put("auto_scan_enabled", summary.auto_scan_enabled)
        .put("max_retries", summary.max_retries)
        .put("site", summary.site.as_str())
        .maybe("public_url", summary.public_url.as_deref())
        .put("destination", shapes::destination(&state.0.board.destination()))
        .put(
            "queue",
            json!({
                "due": queue.due,
                "waiting": queue.waiting,
                "uploading": queue.uploading,
                "parked": queue.parked,
            }),
        )
        .put("edge", shapes::edge(&state.0.board.storage()));
    answer(StatusCode::OK, body.into())
}
