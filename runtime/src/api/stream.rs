//! `GET /device-state/stream`: owns one reader's way through the stream of changes: a snapshot where it needs one, then
//! events in order, and a word when it was too slow. Holds one chunk at a time and decides nothing.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::convert::Infallible;
use std::ops::ControlFlow;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream::unfold;
use http::StatusCode;
use http::header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue};
use serde_json::{Map, Value};
use tidegate_core::id::{DeviceId, TaskId};
use tidegate_core::refusal::Refusal;
use tidegate_core::row::{Key, Kind as Table, Row};
use tidegate_core::time::Wall;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::error::{Answer, refused};
use super::input::{Params, device};
use super::shapes::{self, Object, moment};
use super::{ApiState, Stage};
use crate::board::{DeviceSeen, LinkSeen};
use crate::feed::cursor::CHUNK;
use crate::feed::{Begin, Cursor, Filter, Kind, Reason, STREAMS_MAX, Taken, event};
use crate::grants::Shown;

/// After so long without an event a comment is sent, so that nobody between takes the connection for dead.
const KEEPALIVE: Duration = Duration::from_secs(15);
/// Between two small chunks of one stream. Nobody sees a hundredth of a second, and where a thousand changes come in each
/// second every reader costs a hundred writes instead of a thousand. What comes after a rest leaves at once.
const PACE: Duration = Duration::from_millis(10);
/// Devices or tasks of a snapshot that are looked at in one go.
const PAGE: usize = 256;
/// Devices and kinds that a filter may name.
const FILTER_MAX: usize = 1024;
/// The first bytes: how soon readers that lost the connection should come back.
const HELLO: &str = "retry: 1000\n\n";

pub(super) async fn stream(State(state): State<ApiState>, request: Request) -> Result<Response, Answer> {
    let params = Params::of(request.uri())?;
    let filter = filter(&params)?;
    let header = request.headers().get("last-event-id").and_then(|value| value.to_str().ok());
    let last = header.map(str::trim).filter(|text| !text.is_empty()).or(params.get("last_event_id"));
    if *state.0.stage.borrow() == Stage::Stopping {
        return Err(refused(&Refusal::Stopping));
    }
    let (cursor, begin) = state.0.feed.follow(filter, last).map_err(|_| {
        let text = format!("there are {STREAMS_MAX} streams already");
        Answer::new(StatusCode::SERVICE_UNAVAILABLE, "too_many_streams", text).retry_after(5)
    })?;
    let part = match begin {
        Begin::Resumed => Part::Live,
        Begin::Snapshot(reason) => Part::Begin(reason),
    };
    let stage = state.0.stage.clone();
    let shown = request.extensions().get::<Shown>().cloned();
    let reader = Reader { shown, state, cursor, part, stage, hello: true, next_at: None };
    let body = unfold(reader, |mut reader| async move {
        let chunk = reader.next().await?;
        Some((Ok::<Bytes, Infallible>(chunk), reader))
    });
    let mut response = Response::new(Body::from_stream(body));
    for (name, value) in [
        (CONTENT_TYPE, "text/event-stream"),
        (CACHE_CONTROL, "no-cache"),
        (CONNECTION, "keep-alive"),
        (HeaderName::from_static("x-accel-buffering"), "no"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    Ok(response)
}

fn filter(params: &Params) -> Result<Filter, Answer> {
    let mut devices = BTreeSet::new();
    for text in params.all("device_id") {
        devices.insert(device("device_id", text)?);
    }
    for text in params.listed("device_ids") {
        devices.insert(device("device_ids", text)?);
    }
    let mut kinds = BTreeSet::new();
    for text in params.listed("types") {
        let names = || Kind::ALL.iter().map(|kind| kind.name()).collect::<Vec<_>>().join(", ");
        let kind = Kind::from_name(text)
            .ok_or_else(|| Answer::bad_field("types", &format!("names out of {}", names())))?;
        kinds.insert(kind);
    }
    if devices.len() > FILTER_MAX {
        return Err(Answer::bad_field("device_ids", &format!("at most {FILTER_MAX} devices")));
    }
    Ok(Filter {
        devices: (!devices.is_empty()).then_some(devices),
        kinds: (!kinds.is_empty()).then_some(kinds),
    })
}

/// Where a reader is.
#[derive(Debug)]
enum Part {
    /// Before a snapshot.
    Begin(Reason),
    /// In the devices of a snapshot that were heard of, after this one. Registered devices that were not told yet wait.
    Devices { counts: Counts, after: Option<DeviceId>, registered: Registered },
    /// In the devices of a snapshot that are registered and were not heard of since the start.
    Silent { counts: Counts, left: Registered },
    /// In the tasks of a snapshot.
    Tasks { counts: Counts, left: VecDeque<TaskId> },
    /// Behind any snapshot.
    Live,
}

/// Registered devices, and since when they are disabled if they are.
type Registered = BTreeMap<DeviceId, Option<Wall>>;

/// What a snapshot held so far.
#[derive(Clone, Copy, Debug)]
struct Counts {
    /// The last event that it includes.
    upto: u64,
    devices: u64,
    tasks: u64,
}

struct Reader {
    /// The token that this stream was opened with, if one was asked for. A stream knows no end, so it must not outlive it.
    shown: Option<Shown>,
    state: ApiState,
    cursor: Cursor,
    part: Part,
    stage: watch::Receiver<Stage>,
    hello: bool,
    /// When the next chunk may leave, if the last one was small.
    next_at: Option<Instant>,
}

/// Waits until the token is not good any more; for ever if none was asked for.
async fn revoked(shown: &mut Option<Shown>) {
    match shown {
        Some(shown) => shown.revoked().await,
        None => std::future::pending().await,
    }
}

impl Reader {
    /// The next chunk; `None` ends the stream.
    async fn next(&mut self) -> Option<Bytes> {
        if std::mem::take(&mut self.hello) {
            return Some(Bytes::from_static(HELLO.as_bytes()));
        }
        loop {
            if self.shown.as_ref().is_some_and(|shown| !shown.is_good()) {
                return None;
            }
            let text = match std::mem::replace(&mut self.part, Part::Live) {
                Part::Live => return self.live().await,
                Part::Begin(reason) => self.begin(reason).await?,
                Part::Devices { counts, after, registered } => {
                    self.devices(counts, after.as_ref(), registered)
                }
                Part::Silent { counts, left } => self.silent(counts, left).await?,
                Part::Tasks { counts, left } => self.tasks(counts, left).await?,
            };
            if !text.is_empty() {
                return Some(text.into());
            }
        }
    }

    async fn live(&mut self) -> Option<Bytes> {
        // One for all rounds: a filter may leave out what keeps coming.
        let mut quiet = std::pin::pin!(tokio::time::sleep(KEEPALIVE));
        loop {
            if let Some(at) = self.next_at.take() {
                tokio::select! {
                    biased;
                    () = revoked(&mut self.shown) => return None,
                    // What was published so far is sent.
                    _ = self.stage.wait_for(|stage| *stage == Stage::Stopping) => {}
                    () = sleep_until(at) => {}
                }
            }
            match self.cursor.take() {
                Taken::Events(text) => {
                    // Who is behind is not held up.
                    self.next_at = (text.len() < CHUNK / 2).then(|| Instant::now() + PACE);
                    return Some(text);
                }
                Taken::Behind { missed, newest } => {
                    self.cursor.count_resync();
                    self.part = Part::Begin(Reason::Resync);
                    let fields = Object::new()
                        .put("reason", "too_slow")
                        .put("missed", missed)
                        .put("seq", newest)
                        .fields();
                    // Without an id: who loses the connection before the snapshot's end must not resume behind the gap.
                    return Some(event::frame("resync", None, fields).into());
                }
                Taken::Nothing => {}
            }
            tokio::select! {
                biased;
                () = revoked(&mut self.shown) => return None,
                // What was published so far is sent. A sender that is gone is a site that is being dropped.
                _ = self.stage.wait_for(|stage| *stage == Stage::Stopping) => return None,
                () = quiet.as_mut() => return Some(Bytes::from_static(b": keepalive\n\n")),
                () = self.cursor.wait() => {}
            }
        }
    }

    async fn begin(&mut self, reason: Reason) -> Option<String> {
        // From here on the reader gets every event, and whatever was before is on the board and in the store.
        let upto = self.cursor.skip();
        let counts = Counts { upto, devices: 0, tasks: 0 };
        self.part = Part::Devices { counts, after: None, registered: self.registered().await? };
        let fields = Object::new().put("reason", reason.name()).put("seq", upto).fields();
        let mut text = event::frame("snapshot_begin", None, fields);
        // What is about no device is not for those who asked for some.
        if self.cursor.filter().devices.is_none() {
            text.push_str(&event::frame("site_snapshot", None, site_fields(&self.state)));
        }
        Some(text)
    }

    async fn registered(&self) -> Option<Registered> {
        let filter = self.cursor.filter().clone();
        let found = self.state.read(move |rows| {
            let mut found = Registered::new();
            rows.walk(Table::Device, false, &mut |_, row| {
                if let Row::Device(row) = row
                    && filter.wants(&row.id)
                {
                    found.insert(row.id, row.disabled_at);
                }
                ControlFlow::Continue(())
            })?;
            Ok(found)
        });
        // As with tasks below.
        found.await.ok()
    }

    fn devices(
        &mut self,
        mut counts: Counts,
        after: Option<&DeviceId>,
        mut registered: Registered,
    ) -> String {
        let filter = self.cursor.filter();
        let (found, last) = self.state.0.board.after(after, PAGE, |id| filter.wants(id));
        let now = (self.state.0.clock)().wall;
        let mut text = String::new();
        for (id, seen) in found {
            counts.devices += 1;
            let row = registered.remove(&id);
            text.push_str(&event::frame("device_snapshot", None, device_fields(&id, &seen, row, now)));
        }
        self.part = match last {
            Some(last) => Part::Devices { counts, after: Some(last), registered },
            None => Part::Silent { counts, left: registered },
        };
        text
    }

    /// A device that appeared after it was looked for is left out: an event tells of it.
    async fn silent(&mut self, mut counts: Counts, mut left: Registered) -> Option<String> {
        let (board, now) = (&self.state.0.board, (self.state.0.clock)().wall);
        let mut text = String::new();
        for _ in 0..PAGE {
            let Some((id, disabled)) = left.pop_first() else { break };
            if board.device(&id).is_none() {
                counts.devices += 1;
                let fields = device_fields(&id, &DeviceSeen::default(), Some(disabled), now);
                text.push_str(&event::frame("device_snapshot", None, fields));
            }
        }
        self.part = if left.is_empty() {
            Part::Tasks { counts, left: self.unfinished().await? }
        } else {
            Part::Silent { counts, left }
        };
        Some(text)
    }

    /// The tasks that are not over, by id: their rows are read a few at a time.
    async fn unfinished(&self) -> Option<VecDeque<TaskId>> {
        let filter = self.cursor.filter().clone();
        let found = self.state.read(move |rows| {
            let mut found = VecDeque::new();
            rows.walk(Table::Task, false, &mut |_, row| {
                if let Row::Task(row) = row
                    && !row.state.is_final()
                    && filter.wants(&row.device)
                {
                    found.push_back(row.id);
                }
                ControlFlow::Continue(())
            })?;
            Ok(found)
        });
        // The store is closed or broken, and the log says so: a reader that comes back hears the same in words.
        found.await.ok()
    }

    async fn tasks(&mut self, mut counts: Counts, mut left: VecDeque<TaskId>) -> Option<String> {
        let some: Vec<TaskId> = left.drain(..left.len().min(PAGE)).collect();
        if some.is_empty() {
            let fields = Object::new()
                .put("seq", counts.upto)
                .put("devices", counts.devices)
                .put("tasks", counts.tasks)
                .fields();
            // Events come from here on.
            self.part = Part::Live;
            return Some(event::frame("snapshot_end", Some(self.cursor.feed().id(counts.upto)), fields));
        }
        let (now, deadline) = ((self.state.0.clock)().wall, self.state.0.summary.uploading_deadline);
        let read = self.state.read(move |rows| {
            let mut text = (String::new(), 0);
            for id in some {
                // One that ended meanwhile is told of by an event.
                if let Some(Row::Task(row)) = rows.get(&Key::Task(id))?
                    && !row.state.is_final()
                {
                    let fields = Object::new()
                        .all(event::task(&row))
                        .put("overdue", shapes::is_overdue(&row, now, deadline))
                        .maybe("uploading_since", row.uploading_at.map(moment));
                    text.0.push_str(&event::frame("task_snapshot", None, fields.fields()));
                    text.1 += 1;
                }
            }
            Ok(text)
        });
        let (text, tasks) = read.await.ok()?;
        counts.tasks += tasks;
        self.part = Part::Tasks { counts, left };
        Some(text)
    }
}

/// What is about no device: the way to the cloud, the queue, and the uploads that run.
fn site_fields(state: &ApiState) -> Map<String, Value> {
    let board = &state.0.board;
    let (destination, queue) = (board.destination(), board.queue());
    let uploads = board.uploads().into_iter().map(|(episode, seen)| {
        let fields = event::progress(episode, seen.job, seen.uploaded, seen.total, seen.at);
        Value::Object(fields)
    });
    Object::new()
        .put("destination", Value::Object(event::destination(&destination)))
        .put("queue", Value::Object(event::queue(&queue)))
        .put("uploads", uploads.collect::<Vec<Value>>())
        .put("worker_running", state.0.summary.worker_running)
        .put("updated_at", moment((state.0.clock)().wall))
        .fields()
}

/// `row` is of a registered device: since when it is disabled, if it is.
fn device_fields(
    id: &DeviceId,
    seen: &DeviceSeen,
    row: Option<Option<Wall>>,
    now: Wall,
) -> Map<String, Value> {
    let (recorder, transfer) = (seen.recorder_link.as_ref(), seen.transfer_link.as_ref());
    let remote = |link: Option<&LinkSeen>| link.map(|link| link.link.remote.clone());
    let state = seen.recorder.as_ref().map(|view| {
        let age = u64::try_from(view.updated_at.until(now).as_millis()).unwrap_or(u64::MAX);
        let mut view = view.clone();
        view.fresh = false;
        Value::Object(shapes::recorder_state(&view, age))
    });
    Object::new()
        .put("device_id", id.as_str())
        .put("connected", recorder.is_some() && transfer.is_some())
        .put("recorder_connected", recorder.is_some())
        .put("transfer_connected", transfer.is_some())
        .maybe("recorder_generation", recorder.map(|link| link.link.generation))
        .maybe("transfer_generation", transfer.map(|link| link.link.generation))
        .maybe("recorder_remote_ip", remote(recorder))
        .maybe("transfer_remote_ip", remote(transfer))
        .maybe("recorder", state)
        .maybe("transfer", seen.transfer.as_ref().map(|seen| Value::Object(event::transfer(seen))))
        .put("contests", shapes::contests(seen, now))
        .maybe("conflict", seen.conflict.as_ref().map(shapes::conflict))
        .put("registered", row.is_some())
        .maybe("disabled_at", row.flatten().map(moment))
        .put("state_version", seen.version)
        .fields()
}
