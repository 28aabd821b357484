//! Owns the recorder: what each RPC action does in each state, and the callbacks. Files are grown elsewhere
//! ([`crate::session`]), connections kept elsewhere ([`crate::link`]).

use serde_json::{Map, Value, json};
use tidegate_runtime::seam::{Clock, Seams};

use crate::device::Env;
use crate::events::{DeviceEvent, Link};
use crate::http::Http;
use crate::link::{Next, Outbox, Program};
use crate::recording::{Closed, RECORDER_VERSION, SENSOR_TOPIC, TOPICS};
use crate::s3::timestamp;
use crate::session::Session;
use crate::task::TaskConfig;
use crate::ws::WsUrl;

/// ```text
///        config            begin               pause
/// Idle ---------> Ready ---------> Recording <-------> Paused
///   ^    clear      |                  |      resume      |
///   +---------------+                  |                  |
///   +----------- finish, cancel -------+------------------+
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Idle,
    Ready,
    Recording,
    Paused,
}

impl State {
    fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Ready => "ready",
            Self::Recording => "recording",
            Self::Paused => "paused",
        }
    }
}

/// The recorder program.
pub(crate) struct Recorder<S: Seams> {
    env: Env<S>,
    outbox: Outbox,
    state: State,
    /// Stays after `finish`; gone after `cancel` and `clear`.
    task: Option<TaskConfig>,
    session: Option<Session>,
    /// Milliseconds recorded before the current stretch, and since when that runs.
    recorded_ms: i64,
    since_ms: Option<i64>,
    last: Option<Closed>,
    rng: fastrand::Rng,
}

/// A successful answer: data and message. A failed one: message, and data besides `state`.
type Outcome = Result<(Value, &'static str), Refusal>;

struct Refusal {
    message: String,
    more: Option<(&'static str, Value)>,
}

fn refuse(message: impl Into<String>) -> Refusal {
    Refusal { message: message.into(), more: None }
}

impl<S: Seams> Recorder<S> {
    pub(crate) fn new(env: Env<S>, outbox: Outbox, rng: fastrand::Rng) -> Self {
        Self {
            env,
            outbox,
            state: State::Idle,
            task: None,
            session: None,
            recorded_ms: 0,
            since_ms: None,
            last: None,
            rng,
        }
    }

    fn now_ms(&self) -> i64 {
        self.env.seams.clock().now().wall.0
    }

    fn duration_sec(&self) -> f64 {
        let running = self.since_ms.map_or(0, |since| (self.now_ms() - since).max(0));
        (self.recorded_ms + running) as f64 / 1000.0
    }

    fn state_update(&self, previous: State) -> Value {
        let mut data = json!({"current": self.state.name(), "previous": previous.name()});
        if let Some(task) = &self.task {
            data["task_id"] = json!(task.task_id);
        }
        json!({"data": data, "timestamp": self.now_ms(), "type": "state_update"})
    }

    fn go(&mut self, next: State) {
        let previous = std::mem::replace(&mut self.state, next);
        if next == State::Recording {
            self.since_ms = Some(self.now_ms());
        } else if let Some(since) = self.since_ms.take() {
            self.recorded_ms += (self.now_ms() - since).max(0);
        }
        self.env.log.push(DeviceEvent::State { previous: previous.name(), current: next.name() });
        self.outbox.push(&self.state_update(previous));
    }

    fn state_data(&self) -> Value {
        json!({"state": self.state.name()})
    }

    fn task_data(&self) -> Value {
        let mut data = self.state_data();
        if let Some(task) = &self.task {
            data["task_id"] = json!(task.task_id);
        }
        data
    }

    /// The cached task, if `params.task_id` names it.
    fn named_task(&self, params: &Value) -> Result<TaskConfig, Refusal> {
        let named = params.get("task_id").and_then(Value::as_str);
        let named = named.ok_or_else(|| refuse("Missing required parameter: task_id"))?;
        let task = self.task.as_ref();
        let task = task.ok_or_else(|| refuse("No task configuration cached. Call /rpc/config first."))?;
        if task.task_id != named {
            let expected = &task.task_id;
            return Err(refuse(format!("task_id mismatch: expected '{expected}' but got '{named}'")));
        }
        Ok(task.clone())
    }

    fn expect(&self, allowed: &[State], what: &str, must: &str) -> Result<(), Refusal> {
        if allowed.contains(&self.state) {
            return Ok(());
        }
        Err(refuse(format!("Cannot {what} from state: {}. {must}", self.state.name())))
    }

    fn config(&mut self, params: &Value) -> Outcome {
        let must = "Finish or cancel the active recording first.";
        self.expect(&[State::Idle, State::Ready], "set task configuration", must)?;
        let config = params.get("task_config");
        let config = config.ok_or_else(|| refuse("Missing required parameter: task_config"))?;
        let task = TaskConfig::parse(config).map_err(|errors| Refusal {
            message: "Task configuration validation failed".to_owned(),
            more: Some(("validation_errors", Value::Array(errors))),
        })?;
        let applied = json!({"data": task.shown(), "timestamp": self.now_ms(), "type": "config_applied"});
        self.outbox.push(&applied);
        self.task = Some(task);
        if self.state == State::Idle {
            self.go(State::Ready);
        }
        Ok((self.task_data(), "Task configuration set successfully"))
    }

    async fn begin(&mut self, params: &Value) -> Outcome {
        let task = self.named_task(params)?;
        self.expect(&[State::Ready], "start recording", "Must be in READY state.")?;
        let seed = self.rng.u64(..);
        let session = Session::start(&self.env, &task, seed).await.map_err(refuse)?;
        let started_at = session.started_ms;
        self.session = Some(session);
        (self.recorded_ms, self.since_ms) = (0, None);
        self.go(State::Recording);
        let body = json!({
            "task_id": task.task_id,
            "device_id": task.device_id,
            "status": "recording",
            "started_at": seconds(started_at),
            "topics": task.topics,
        });
        self.call_back(&task.start_callback_url, &task.user_token, body);
        Ok((self.task_data(), "Recording started successfully"))
    }

    fn pause(&mut self) -> Outcome {
        self.expect(&[State::Recording], "pause recording", "Must be in RECORDING state.")?;
        if let Some(session) = &self.session {
            session.pause();
        }
        self.go(State::Paused);
        Ok((self.state_data(), "Recording paused successfully"))
    }

    fn resume(&mut self) -> Outcome {
        self.expect(&[State::Paused], "resume recording", "Must be in PAUSED state.")?;
        if let Some(session) = &self.session {
            session.resume();
        }
        self.go(State::Recording);
        Ok((self.state_data(), "Recording resumed successfully"))
    }

    async fn finish(&mut self, params: &Value) -> Outcome {
        let task = self.named_task(params)?;
        let must = "Must be in RECORDING or PAUSED state.";
        self.expect(&[State::Recording, State::Paused], "finish recording", must)?;
        let duration_sec = self.duration_sec();
        let (started_ms, closed) = self.close().await.map_err(refuse)?;
        let body = json!({
            "task_id": task.task_id,
            "device_id": task.device_id,
            "status": "finished",
            "started_at": seconds(started_ms),
            "finished_at": seconds(closed.finished_ms),
            "duration_sec": duration_sec,
            "message_count": closed.progress.messages(),
            "file_size_bytes": closed.file_bytes,
            "output_path": closed.mcap,
            "sidecar_path": closed.sidecar,
            "sidecar_enabled": self.env.config.record.sidecar,
            "sidecar_generated": closed.sidecar.is_some(),
            "topics": task.topics,
            "metadata": {
                "scene": task.scene,
                "subscene": task.subscene,
                "skills": task.skills,
                "factory": task.factory,
            },
            "error": null,
        });
        self.call_back(&task.finish_callback_url, &task.user_token, body);
        Ok((self.task_data(), "Recording finished successfully"))
    }

    /// Completes the files, then goes to idle. On failure the recording is over all the same, without files.
    async fn close(&mut self) -> Result<(i64, Closed), String> {
        let session = self.session.take().ok_or("no recording is running")?;
        let started_ms = session.started_ms;
        let closed = session.finish().await;
        if let Ok(closed) = &closed {
            self.last = Some(closed.clone());
        }
        self.go(State::Idle);
        Ok((started_ms, closed?))
    }

    async fn cancel(&mut self) -> Outcome {
        let must = "Must be in RECORDING or PAUSED state.";
        self.expect(&[State::Recording, State::Paused], "cancel recording", must)?;
        if let Some(session) = self.session.take() {
            for path in session.cancel().await {
                self.env.log.push(DeviceEvent::FileDeleted { path });
            }
        }
        self.go(State::Idle);
        self.task = None;
        Ok((self.state_data(), "Recording cancelled successfully"))
    }

    fn clear(&mut self) -> Outcome {
        self.expect(&[State::Ready], "clear task configuration", "Must be in READY state.")?;
        self.task = None;
        self.go(State::Idle);
        Ok((self.state_data(), "Configuration cleared successfully"))
    }

    /// Counters of the running recording; zeros without one.
    fn counters(&self) -> Map<String, Value> {
        let progress = self.session.as_ref().map(Session::progress).unwrap_or_default();
        let duration = if self.session.is_some() { self.duration_sec() } else { 0.0 };
        let mut counters = Map::new();
        counters.insert("bytes_written".to_owned(), json!(progress.payload_bytes));
        counters.insert("duration_sec".to_owned(), json!(duration));
        counters.insert("message_count".to_owned(), json!(progress.messages()));
        counters.insert("state".to_owned(), json!(self.state.name()));
        counters
    }

    fn shown_task(&self) -> Option<Value> {
        self.task.as_ref().filter(|_| self.state != State::Idle).map(TaskConfig::shown)
    }

    fn get_state(&self) -> Outcome {
        let mut data = self.counters();
        data.insert("running".to_owned(), json!(self.session.is_some()));
        data.insert("version".to_owned(), json!(RECORDER_VERSION));
        if let Some(task) = self.shown_task() {
            data.insert("task_config".to_owned(), task);
        }
        Ok((Value::Object(data), "State retrieved successfully"))
    }

    fn list_tasks(&self) -> Outcome {
        let tasks = match (&self.task, self.shown_task()) {
            (Some(task), Some(shown)) => {
                let mut entry = self.counters();
                entry.insert("active".to_owned(), json!(true));
                entry.insert("task_config".to_owned(), shown);
                entry.insert("task_id".to_owned(), json!(task.task_id));
                vec![Value::Object(entry)]
            }
            _ => Vec::new(),
        };
        let data = json!({"count": tasks.len(), "state": self.state.name(), "tasks": tasks});
        Ok((data, "Tasks retrieved successfully"))
    }

    fn get_stats(&self) -> Outcome {
        let progress = self.session.as_ref().map(Session::progress).unwrap_or_default();
        let mut data = self.counters();
        let rate = match self.duration_sec() {
            sec if sec > 0.0 && self.session.is_some() => progress.payload_bytes as f64 / sec / 1_048_576.0,
            _ => 0.0,
        };
        let mut counts = Map::new();
        let mut depths = Map::new();
        for topic in TOPICS {
            let count =
                if topic == SENSOR_TOPIC { progress.sensor_messages } else { progress.image_messages };
            counts.insert(topic.to_owned(), json!({"dropped": 0, "received": count, "written": count}));
            depths.insert(topic.to_owned(), json!({"capacity": 1024, "depth": 0, "utilization": 0.0}));
        }
        let last = self.last.as_ref().filter(|_| self.session.is_none());
        let more = json!({
            "bytes_received": progress.payload_bytes,
            "keystone_time_gap": {
                "checked_at_ms": self.now_ms(),
                "enabled": true,
                "offset_ms": null,
                "reason": "Keystone message has no timestamp",
                "reliable": false,
                "status": "unreliable",
            },
            "messages_dropped": 0,
            "messages_received": progress.messages(),
            "messages_written": progress.messages(),
            "metadata": {
                "checksum_sha256": last.map(|closed| &closed.sha256),
                "output_path": last.map(|closed| &closed.mcap),
                "sidecar_enabled": self.env.config.record.sidecar,
                "sidecar_generated": last.is_some_and(|closed| closed.sidecar.is_some()),
                "sidecar_generation_mode": "always",
                "sidecar_path": last.and_then(|closed| closed.sidecar.as_ref()),
            },
            "queue_depths": depths,
            "receive_rate_mbps": rate,
            "topic_message_counts": counts,
            "write_rate_mbps": rate,
        });
        if let Value::Object(more) = more {
            data.extend(more);
        }
        Ok((Value::Object(data), "Statistics retrieved successfully"))
    }

    /// One POST, on its own, without retry and without order relative to the link.
    fn call_back(&self, url: &str, token: &str, body: Value) {
        if url.is_empty() {
            return;
        }
        let (env, url, token) = (self.env.clone(), url.to_owned(), token.to_owned());
        self.env.life.spawn(async move {
            let status = match WsUrl::parse(&url) {
                Ok(target) => {
                    let http = Http::new(env.seams.net().clone(), target.host.clone(), target.port);
                    let bearer = format!("Bearer {token}");
                    let mut headers =
                        vec![("Host", target.host.as_str()), ("User-Agent", "axon-recorder/1.0")];
                    if !token.is_empty() {
                        headers.push(("Authorization", bearer.as_str()));
                    }
                    let answer = http.send(http::Method::POST, &target.path, &headers, Some(&body)).await;
                    answer.ok().map(|answer| answer.status.as_u16())
                }
                Err(_) => None,
            };
            env.log.push(DeviceEvent::Callback { url, body, status });
        });
    }
}

impl<S: Seams> Program for Recorder<S> {
    const LINK: Link = Link::Recorder;

    async fn snapshot(&mut self) -> String {
        self.state_update(self.state).to_string()
    }

    async fn on_text(&mut self, text: &str) -> Next {
        let Ok(frame) = serde_json::from_str::<Value>(text) else { return Next::Stay };
        let field = |name| frame.get(name).and_then(Value::as_str);
        // `type` is not looked at; a frame that is no request gets no answer.
        let (Some(action), Some(request_id)) = (field("action"), field("request_id")) else {
            return Next::Stay;
        };
        let params = frame.get("params").unwrap_or(&Value::Null);
        let mut next = Next::Stay;
        let outcome = match action {
            "config" => self.config(params),
            "begin" => self.begin(params).await,
            "pause" => self.pause(),
            "resume" => self.resume(),
            "finish" => self.finish(params).await,
            "cancel" => self.cancel().await,
            "clear" => self.clear(),
            "quit" => {
                next = Next::Exit;
                Ok((self.state_data(), "Program quitting. Recording stopped and data saved."))
            }
            "get_state" => self.get_state(),
            "get_stats" | "get_status" => self.get_stats(),
            "list_tasks" => self.list_tasks(),
            "test" => {
                let echo = params.get("echo").unwrap_or(&Value::Null);
                let data = json!({"echo": echo, "state": self.state.name()});
                Ok((data, "Test command received successfully"))
            }
            unknown => {
                self.outbox.push(&json!({
                    "message": format!("Unknown action: {unknown}"),
                    "request_id": request_id,
                    "success": false,
                    "type": "rpc_response",
                }));
                return Next::Stay;
            }
        };
        let (success, message, data) = match outcome {
            Ok((data, message)) => (true, message.to_owned(), data),
            Err(refusal) => {
                let mut data = self.state_data();
                if let Some((name, value)) = refusal.more {
                    data[name] = value;
                }
                (false, refusal.message, data)
            }
        };
        self.outbox.push(&json!({
            "data": data,
            "message": message,
            "request_id": request_id,
            "success": success,
            "type": "rpc_response",
        }));
        next
    }

    async fn leave(&mut self) {
        if self.session.is_some()
            && let Err(what) = self.close().await
        {
            self.env.log.push(DeviceEvent::Trouble { what });
        }
        self.env.log.push(DeviceEvent::RecorderExited);
    }
}

/// `YYYY-MM-DDTHH:MM:SSZ`.
fn seconds(wall_ms: i64) -> String {
    timestamp(wall_ms, "%Y-%m-%dT%H:%M:%SZ")
}
