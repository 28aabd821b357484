//! Exchanges recorded between real devices and a small recording server, played against the real binary.
//!
//! Whatever a device sent is sent again as it was recorded, frame by frame and callback by callback. What the recording
//! server sent is a table: each of its lines says what ours does instead, and why that means the same, or what is meant
//! to differ. A line without a row fails its test, and so does a row without a line.
//!
//! Only this is replaced: ids of requests, addresses, and size and digest of an upload, for the recorded bytes are not at
//! hand. Each `upload_complete` is played twice: as recorded, when nothing is stored, which must not be acknowledged; then
//! with an object of ours under the recorded key.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tidegate_device::{Incoming, Opcode};
use tokio::task::JoinHandle;

use crate::rig::{Plan, Raw, STEP, Site, run, until};
use crate::script::{Take, Uploader};

/// What our site does where the recording server sent a line.
#[derive(Clone, Copy, Debug)]
enum Ours {
    /// The site sends this request by itself.
    Asks(&'static str),
    /// An operator gives the recorded command; it reaches the device, and the device's answer the operator.
    Command,
    /// The same, with an empty body: the site fills in the task.
    CommandBare,
    /// An operator gives the recorded command and is refused with this status and code; nothing is sent.
    Refused(u16, &'static str),
    /// An operator asks for a state that is fresh.
    Refresh,
    /// An operator asks for the counters.
    Stats,
    /// No such command; 404, and nothing is sent.
    NoRoute,
    /// The site sends this frame to the uploader by itself.
    Sends(&'static str),
    /// An operator asks for this frame over HTTP.
    Transfer(&'static str),
    /// Nothing; what the device answered to it is sent all the same.
    Nothing,
    /// Nothing: the device goes away like this.
    Leaves,
    /// The device's Close is echoed.
    Echo,
}

/// (line, what the recording server did, what ours does, what that means).
type Row = (u64, &'static str, Ours, &'static str);

const ASK: Ours = Ours::Asks("get_state");
const FIRST: &str = "a new link is asked for its state first of all";

#[rustfmt::skip]
const BASIC: &[Row] = &[
    (3, "get_state", ASK, FIRST),
    (32, "begin without a config", Ours::Refused(409, "task_not_beginable"), "a recorder that is idle cannot begin: it is not even asked"),
    (34, "finish without a config", Ours::Command, "stopping is always tried; the device's refusal is handed on word for word"),
    (38, "config with a blank id", Ours::Refused(400, "task_id_required"), "what no device would take is refused here, with the field"),
    (40, "config", Ours::Command, "the task is ready once config, push and answer agree"),
    (44, "config of another task while ready", Ours::Refused(409, "recorder_busy"), "a task that is ready is not pushed aside"),
    (47, "config once more while ready", Ours::Refused(409, "recorder_busy"), "the same"),
    (50, "get_state", Ours::Refresh, "the answer names the task inside its config"),
    (54, "list_tasks", Ours::NoRoute, "not offered; nobody asks a device what the records know"),
    (56, "begin of another id", Ours::Refused(409, "task_not_beginable"), "a task that nobody made is not begun"),
    (58, "begin", Ours::Command, "in_progress, whichever of push, callback and answer comes first"),
    (64, "get_stats", Ours::Stats, "passed through whole"),
    (66, "begin a second time", Ours::Refused(409, "task_not_beginable"), "a begin that would truncate the file never leaves"),
    (68, "pause", Ours::Command, "the answer names no task; the one known stays"),
    (71, "resume", Ours::Command, "the same"),
    (76, "get_state", Ours::Refresh, "recording, with the task inside its config"),
    (78, "config while recording", Ours::Refused(409, "recorder_busy"), "refused before the device is asked"),
    (80, "finish of another id", Ours::Refused(409, "task_not_owned"), "a command about nobody's task is not sent"),
    (82, "finish", Ours::CommandBare, "the site names the task the recorder holds; the task stays in_progress until the callback"),
    (88, "finish a second time", Ours::Command, "sent; the device's refusal changes nothing"),
    (90, "get_state", Ours::Refresh, "idle"),
];

#[rustfmt::skip]
const RECONNECTED: &[Row] = &[
    (134, "aborts the connection", Ours::Leaves, "a link that breaks changes no task by itself"),
    (137, "get_state", ASK, FIRST),
    (140, "closes with 1001", Ours::Leaves, "the device says goodbye with that code"),
    (141, "the Close", Ours::Echo, "and is answered with the same"),
    (145, "get_state", ASK, FIRST),
    (148, "no JSON", Ours::Nothing, "a test of the recorder; ours sends none of it"),
    (149, "a request without an id", Ours::Nothing, "the same"),
    (152, "an action that is a number", Ours::Nothing, "the same"),
    (153, "an action that nobody knows", Ours::Nothing, "its answer belongs to no request of ours and counts for nothing"),
    (155, "an id that is a number", Ours::Nothing, "a test of the recorder"),
    (156, "begin without parameters", Ours::Nothing, "its answer counts for nothing"),
    (158, "an empty list", Ours::Nothing, "a test of the recorder"),
    (161, "test", Ours::Nothing, "its answer counts for nothing"),
    (163, "clear while idle", Ours::Command, "passed; a refusal moves no task"),
    (165, "cancel while idle", Ours::Command, "the same"),
    (389, "status_query", Ours::Transfer("status_query"), "asked for by an operator"),
    (391, "upload_request of an unknown id", Ours::Transfer("upload_request"), "asked for by an operator; the answer is noted at no task"),
    (393, "upload_request", Ours::Sends(r#"{"priority":1,"task_id":"task-001","type":"upload_request"}"#), "sent by itself as soon as the uploader was there, and only once"),
];

#[rustfmt::skip]
const ENDINGS: &[Row] = &[
    (3, "get_state", ASK, FIRST),
    (8, "config", Ours::Command, "ready"),
    (12, "begin", Ours::Command, "in_progress"),
    (20, "finish", Ours::Command, "the callback comes before the answer, which moves nothing back"),
    (28, "upload_request", Ours::Sends(r#"{"priority":1,"task_id":"m1","type":"upload_request"}"#), "sent with the callback, with a priority"),
    (31, "upload_ack", Ours::Sends(r#"{"task_id":"m1","type":"upload_ack"}"#), "the recorded acknowledgement, for a recording without a sidecar; only after the bytes are there"),
    (36, "config", Ours::Command, "ready"),
    (40, "clear", Ours::Command, "without parameters, as recorded; the task was never begun and keeps its id"),
    (43, "get_state", Ours::Refresh, "idle"),
    (45, "config", Ours::Command, "ready"),
    (49, "begin", Ours::Command, "in_progress"),
    (57, "cancel", Ours::Command, "the task is pending as its second attempt, for this id may have recorded"),
    (60, "config", Ours::Command, "ready"),
    (64, "begin", Ours::Command, "in_progress"),
    (68, "quit", Ours::Command, "the answer still says recording; no task moves"),
    (72, "the Close", Ours::Echo, "the device said goodbye and is answered"),
];

#[rustfmt::skip]
const RESET: &[Row] = &[
    (3, "get_state", ASK, FIRST),
    (12, "config", Ours::Command, "ready"),
    (16, "begin", Ours::Command, "the callback comes before push and answer and moves the task"),
    (20, "finish", Ours::Command, "push, answer, then the callback"),
    (24, "upload_request", Ours::Sends(r#"{"priority":1,"task_id":"a1","type":"upload_request"}"#), "sent with the callback"),
    (36, "get_state", ASK, FIRST),
];

#[rustfmt::skip]
const SILENT: &[Row] = &[
    (88, "get_state", ASK, FIRST),
    (95, "config", Ours::Command, "ready"),
    (99, "begin", Ours::Command, "in_progress"),
    (136, "the Close", Ours::Echo, "the uploader's late goodbye is answered"),
    (141, "the Close", Ours::Echo, "the recorder's too"),
    (145, "get_state", ASK, FIRST),
    (263, "finish", Ours::Command, "the callback comes before the answer"),
    (266, "upload_request", Ours::Sends(r#"{"priority":1,"task_id":"b1","type":"upload_request"}"#), "on the new link of the uploader"),
];

/// Lines of a device that answer what our site never sent.
const UNANSWERED: &[u64] = &[33, 39, 45, 46, 48, 49, 55, 57, 67, 79, 81];

/// What must be true after a line was played.
enum Then {
    /// Word and task of the recorder, believed.
    State(&'static str, &'static str),
    /// The recorder's state is not confirmed.
    Unsure,
    /// Status of a task.
    Task(&'static str, &'static str),
    /// The wire id that a task has now.
    Wire(&'static str, &'static str),
    /// A config is refused for want of an uploader; then one that says nothing comes.
    NeedsUploader(&'static str),
    /// The uploader that was added leaves.
    UploaderLeaves,
    /// The site is killed and started again.
    Kill,
}

struct Link {
    raw: Raw,
    role: String,
    device: String,
    /// Texts that were read while something else was waited for.
    inbox: VecDeque<String>,
}

/// An operator's request that is under way.
struct Asked {
    answer: JoinHandle<(u16, Value)>,
    /// The id of the request on the wire.
    id: Value,
    action: String,
}

struct Player {
    name: &'static str,
    site: Site,
    rows: BTreeMap<u64, Row>,
    then: Vec<(u64, Then)>,
    links: BTreeMap<u64, Link>,
    /// Links that the player keeps open and never reads again.
    hanging: Vec<Raw>,
    /// Whether a device that was cut off leaves its old sockets hanging instead of closing them late.
    hang: bool,
    silent_uploader: Option<Uploader>,
    /// Ids of requests: recorded to ours.
    ids: BTreeMap<String, Value>,
    asked: BTreeMap<String, Asked>,
    /// The last answer to `get_state` of a device, kept up to date with what it pushed since.
    states: BTreeMap<String, Value>,
    takes: BTreeMap<String, Take>,
    /// Rows that were met.
    met: BTreeSet<u64>,
}

fn lines(name: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("transcripts").join(format!("{name}.jsonl"));
    let text = std::fs::read_to_string(&path).expect("a transcript");
    text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

/// One frame of ours: a line of JSON with known keys.
fn checked(text: &str) -> Value {
    assert!(text.ends_with('\n') && !text[..text.len() - 1].contains('\n'), "one line and its end: {text:?}");
    let frame: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error} in {text:?}"));
    let known: &[&str] = match frame["type"].as_str() {
        Some("rpc_request") => &["type", "request_id", "action", "params", "timestamp_ms"],
        Some("upload_request") => &["type", "task_id", "priority"],
        Some("upload_ack") => &["type", "task_id"],
        Some("status_query") => &["type"],
        other => panic!("a frame of type {other:?}: {text}"),
    };
    for key in frame.as_object().expect("an object").keys() {
        assert!(known.contains(&key.as_str()), "an unknown key {key}: {text}");
    }
    frame
}

impl Player {
    async fn new(name: &'static str, rows: &[&[Row]], then: Vec<(u64, Then)>, plan: Plan) -> Player {
        let rows: BTreeMap<u64, Row> =
            rows.iter().flat_map(|rows| rows.iter()).map(|row| (row.0, *row)).collect();
        Player {
            name,
            site: plan.start().await,
            rows,
            then,
            links: BTreeMap::new(),
            hanging: Vec::new(),
            hang: false,
            silent_uploader: None,
            ids: BTreeMap::new(),
            asked: BTreeMap::new(),
            states: BTreeMap::new(),
            takes: BTreeMap::new(),
            met: BTreeSet::new(),
        }
    }

    /// Plays the lines of this device, all if there is none, up to the last, and looks at the site afterwards.
    async fn play(&mut self, device: Option<&str>) {
        for line in lines(self.name) {
            if device.is_some_and(|device| line["device"] != device) {
                continue;
            }
            self.step(&line).await;
        }
        self.end(device).await;
    }

    /// Plays one line and looks at what must be true after it; the number of the line.
    async fn step(&mut self, line: &Value) -> u64 {
        let seq = line["seq"].as_u64().expect("a number");
        self.line(seq, line).await;
        let (due, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.then).into_iter().partition(|(at, _)| *at == seq);
        self.then = rest;
        for (_, then) in due {
            self.holds(seq, &then).await;
        }
        seq
    }

    async fn end(&mut self, device: Option<&str>) {
        self.pump().await;
        let left: Vec<&u64> = self.rows.keys().filter(|seq| !self.met.contains(seq)).collect();
        assert!(left.is_empty(), "{}: rows without a line: {left:?}", self.name);
        assert!(self.then.is_empty(), "{}: looks that were never taken", self.name);
        assert!(self.asked.is_empty(), "{}: requests that nobody answered", self.name);
        for (conn, link) in &self.links {
            let extra: Vec<&String> =
                link.inbox.iter().filter(|text| !text.contains("status_query")).collect();
            assert!(
                extra.is_empty(),
                "{} {device:?}: sent to link {conn} and not recorded: {extra:?}",
                self.name
            );
        }
        assert_eq!(self.site.get("/readyz").await.0, 200);
        self.links.clear();
        self.site.stop().await;
        let replay =
            Site::program().args(["replay", "--verify", "--data-dir"]).arg(self.site.data_dir()).output();
        let replay = replay.expect("the binary runs");
        assert!(replay.status.success(), "{}", String::from_utf8_lossy(&replay.stderr));
    }

    async fn line(&mut self, seq: u64, line: &Value) {
        let word = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
        let conn = line["conn"].as_u64().unwrap_or_default();
        let body = &line["body"];
        match (word("role").as_str(), word("dir").as_str(), word("kind").as_str()) {
            ("server", ..) => {}
            (role, "event", "handshake") => {
                let (role, device) = (role.to_owned(), word("device"));
                let path = body["path"].as_str().expect("a path");
                let mut headers = Vec::new();
                if let Some(token) = body["headers"]["Authorization"].as_str() {
                    headers.push(("Authorization", token));
                }
                let net = &tidegate_runtime::real::RealNet;
                let raw = Raw::dial(net, "127.0.0.1", self.site.api, path, &headers).await;
                let raw = raw.unwrap_or_else(|error| panic!("line {seq}: {error}"));
                self.links.insert(conn, Link { raw, role, device, inbox: VecDeque::new() });
            }
            (_, "event", "closed") => drop(self.links.remove(&conn)),
            (_, "event", "server-drop") => {
                self.row(seq);
                if body == "abort" {
                    drop(self.links.remove(&conn));
                }
            }
            (_, "device->server", "frame") => {
                self.control(seq, conn, body.as_str().unwrap_or_default()).await
            }
            (_, "server->device", "frame") => {
                let text = body.as_str().unwrap_or_default();
                if text.starts_with("CLOSE") {
                    self.row(seq);
                } else {
                    assert!(text.starts_with("PONG"), "line {seq}: {text}");
                }
            }
            ("callback", _, kind) => self.callback(seq, kind, body).await,
            (_, "device->server", "json") => self.device(seq, conn, body).await,
            (_, "server->device", "json" | "raw") => self.server(seq, conn, &word("device"), body).await,
            other => panic!("line {seq}: {other:?} is not played"),
        }
    }

    /// What ours does at a line of the recording server.
    fn row(&mut self, seq: u64) -> Row {
        let row =
            self.rows.get(&seq).unwrap_or_else(|| panic!("{} {seq}: no row tells what ours does", self.name));
        assert!(!row.1.is_empty() && !row.3.is_empty(), "{} {seq}: a row says what it means", self.name);
        self.met.insert(seq);
        *row
    }

    /// A ping, answered with an empty pong; or a Close, echoed.
    async fn control(&mut self, seq: u64, conn: u64, what: &str) {
        if what.starts_with("CLOSE") {
            if self.hang {
                self.hanging.push(self.links.remove(&conn).expect("an open link").raw);
                return;
            }
            let code: u16 = what.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a code");
            let link = self.links.get_mut(&conn).expect("an open link");
            link.raw.send_close(code, "").await.expect("an open link");
            let closed = link.raw.closed(STEP).await.expect("the site closes as well");
            assert_eq!(closed.map(|(code, _)| code), Some(code), "line {seq}: the echo");
            self.links.remove(&conn);
            return;
        }
        assert!(what.starts_with("PING ''"), "line {seq}: {what}");
        let link = self.links.get_mut(&conn).expect("an open link");
        link.raw.send_frame(true, Opcode::Ping, b"").await.expect("an open link");
        loop {
            match link.raw.next(STEP).await {
                Ok(Some(Incoming::Pong(payload))) => {
                    assert!(payload.is_empty(), "line {seq}: {payload:?}");
                    return;
                }
                Ok(Some(Incoming::Text(text))) => link.inbox.push_back(text),
                Ok(Some(Incoming::Ping(_))) => {}
                other => panic!("line {seq}: no pong but {other:?}"),
            }
        }
    }

    /// Reads what came, and answers questions after the state that the recording does not have.
    async fn pump(&mut self) {
        for link in self.links.values_mut() {
            while let Ok(Some(incoming)) = link.raw.next(Duration::from_millis(1)).await {
                if let Incoming::Text(text) = incoming {
                    link.inbox.push_back(text);
                }
            }
            let mut kept = VecDeque::new();
            for text in std::mem::take(&mut link.inbox) {
                let frame = checked(&text);
                let known = self.states.get(&link.device);
                match (frame["action"] == "get_state", known) {
                    (true, Some(state)) => answer_state(&mut link.raw, &frame, state).await,
                    _ => kept.push_back(text),
                }
            }
            link.inbox = kept;
        }
    }

    /// The next request with this action. Questions after the state that come before it are answered.
    async fn request(&mut self, conn: u64, action: &str) -> Value {
        let link = self.links.get_mut(&conn).expect("an open link");
        loop {
            let text = match link.inbox.pop_front() {
                Some(text) => text,
                None => crate::script::text_within(&mut link.raw, STEP)
                    .await
                    .unwrap_or_else(|| panic!("{}: no {action} came", self.name)),
            };
            let frame = checked(&text);
            assert_eq!(frame["type"], "rpc_request", "{frame}");
            assert!(frame["timestamp_ms"].is_number(), "every request says what time it is: {frame}");
            if frame["action"] == "get_state" && action != "get_state" {
                let state = self.states.get(&link.device).expect("a state was reported");
                answer_state(&mut link.raw, &frame, state).await;
                continue;
            }
            assert_eq!(frame["action"], action, "{frame}");
            return frame;
        }
    }

    /// Waits until the site believes what it knows of a recorder: what the device said and what an operator asks come on
    /// different sockets.
    async fn confirmed(&mut self, device: &str) {
        let path = format!("/api/v1/recorder/{device}/state");
        let end = tokio::time::Instant::now() + STEP;
        loop {
            self.pump().await;
            let state = self.site.read(&path).await;
            if state["state_synced"] == true {
                return;
            }
            assert!(tokio::time::Instant::now() < end, "{}: {state}", self.name);
        }
    }

    /// An operator's request, in a task of its own.
    fn ask(&self, path: String, body: Option<Value>) -> JoinHandle<(u16, Value)> {
        let http = self.site.http();
        tokio::spawn(async move {
            let answer = match &body {
                Some(body) => http.post(&path, body).await,
                None => http.get(&path).await,
            };
            let (status, _, body) = answer.unwrap_or_else(|error| panic!("{path}: {error}"));
            (status, body)
        })
    }

    /// The answer to an operator's request that needs no word of the device but its state.
    async fn answered(&mut self, asked: JoinHandle<(u16, Value)>) -> (u16, Value) {
        let end = tokio::time::Instant::now() + STEP;
        while !asked.is_finished() {
            assert!(tokio::time::Instant::now() < end, "{}: no answer within {STEP:?}", self.name);
            self.pump().await;
            tokio::task::yield_now().await;
        }
        asked.await.expect("an answer")
    }

    async fn server(&mut self, seq: u64, conn: u64, device: &str, body: &Value) {
        let (_, theirs, ours, _) = self.row(seq);
        let action = body["action"].as_str().unwrap_or_default().to_owned();
        let id = body["request_id"].as_str().unwrap_or_default().to_owned();
        let params = body.get("params").cloned();
        let path = format!("/api/v1/recorder/{device}/{action}");
        match ours {
            Ours::Asks(action) => {
                let frame = self.request(conn, action).await;
                assert!(frame.get("params").is_none(), "{frame}");
                self.ids.insert(id, frame["request_id"].clone());
            }
            Ours::Command | Ours::CommandBare => {
                if matches!(action.as_str(), "config" | "begin") {
                    self.confirmed(device).await;
                }
                let bare = matches!(ours, Ours::CommandBare);
                let sent = if bare { json!({}) } else { params.clone().unwrap_or_else(|| json!({})) };
                let answer = self.ask(path, Some(sent));
                let frame = self.request(conn, &action).await;
                self.compare(seq, &frame, params);
                let asked = Asked { answer, id: frame["request_id"].clone(), action };
                self.ids.insert(id.clone(), frame["request_id"].clone());
                self.asked.insert(id, asked);
            }
            Ours::Refresh | Ours::Stats => {
                let path = match ours {
                    Ours::Stats => format!("/api/v1/recorder/{device}/stats"),
                    _ => format!("/api/v1/recorder/{device}/state?refresh=true&max_age_ms=0"),
                };
                let answer = self.ask(path, None);
                let frame = self.request(conn, &action).await;
                let asked = Asked { answer, id: frame["request_id"].clone(), action };
                self.ids.insert(id.clone(), frame["request_id"].clone());
                self.asked.insert(id, asked);
            }
            Ours::Refused(status, code) => {
                let asked = self.ask(path, Some(params.unwrap_or_else(|| json!({}))));
                let (got, body) = self.answered(asked).await;
                assert_eq!(
                    (got, &body["code"]),
                    (status, &json!(code)),
                    "{} {seq} ({theirs}): {body}",
                    self.name
                );
            }
            Ours::NoRoute => {
                let asked = self.ask(path, Some(json!({})));
                let (got, body) = self.answered(asked).await;
                assert_eq!(got, 404, "{} {seq}: {body}", self.name);
            }
            Ours::Sends(text) => self.expect(seq, conn, text).await,
            Ours::Transfer(word) => {
                let path = format!("/api/v1/transfer/{device}/{word}");
                let mut body = body.clone();
                body.as_object_mut().expect("an object").remove("type");
                let asked = self.ask(path, Some(body.clone()));
                let (status, answer) = self.answered(asked).await;
                assert_eq!((status, &answer["status"]), (200, &json!("sent")), "{seq}: {answer}");
                let link = self.links.get_mut(&conn).expect("an open link");
                let has = |text: &String| {
                    let frame = checked(text);
                    frame["type"] == word && (word == "status_query" || frame["task_id"] == body["task_id"])
                };
                let at = until("the frame that was asked for", STEP, async || {
                    if let Ok(Some(Incoming::Text(text))) = link.raw.next(Duration::from_millis(1)).await {
                        link.inbox.push_back(text);
                    }
                    link.inbox.iter().position(has)
                })
                .await;
                link.inbox.remove(at);
            }
            Ours::Nothing => {}
            Ours::Leaves | Ours::Echo => panic!("line {seq}: a row for a Close at a message"),
        }
    }

    /// Parameters are as recorded, but for the addresses of callbacks, which are ours.
    fn compare(&self, seq: u64, frame: &Value, recorded: Option<Value>) {
        let mut recorded = recorded;
        if let Some(config) = recorded.as_mut().and_then(|params| params.get_mut("task_config")) {
            for (key, path) in [("start_callback_url", "start"), ("finish_callback_url", "finish")] {
                config[key] = json!(format!("http://127.0.0.1:{}/api/v1/callbacks/{path}", self.site.api));
            }
        }
        assert_eq!(frame.get("params"), recorded.as_ref(), "line {seq}");
    }

    /// The next frame of ours on a transfer link is this one. Questions after the status may come before it.
    async fn expect(&mut self, seq: u64, conn: u64, text: &str) {
        let link = self.links.get_mut(&conn).expect("an open link");
        loop {
            let got = match link.inbox.pop_front() {
                Some(text) => text,
                None => crate::script::text_within(&mut link.raw, STEP)
                    .await
                    .unwrap_or_else(|| panic!("line {seq}: {text} did not come")),
            };
            if checked(&got)["type"] == "status_query" {
                continue;
            }
            assert_eq!(got, format!("{text}\n"), "line {seq}");
            return;
        }
    }

    async fn device(&mut self, seq: u64, conn: u64, body: &Value) {
        if self.name.contains("basic") && UNANSWERED.contains(&seq) {
            return;
        }
        let mut frame = body.clone();
        let kind = body["type"].as_str().unwrap_or_default();
        let device = self.links[&conn].device.clone();
        let mut asked = None;
        match kind {
            "rpc_response" => {
                let id = body["request_id"].as_str().unwrap_or_default();
                if let Some(ours) = self.ids.get(id) {
                    frame["request_id"] = ours.clone();
                }
                asked = self.asked.remove(id);
                let is_state = body["data"].get("running").is_some() && body["data"].get("version").is_some();
                if is_state {
                    self.states.insert(device.clone(), body["data"].clone());
                }
            }
            "state_update" => {
                let state = self.states.entry(device.clone()).or_insert_with(|| json!({"version": "0.4.0"}));
                state["state"] = body["data"]["current"].clone();
                let task = &body["data"]["task_id"];
                let map = state.as_object_mut().expect("an object");
                if body["data"]["current"] == "idle" || task.is_null() {
                    map.remove("task_config");
                } else {
                    map.insert("task_config".to_owned(), json!({"task_id": task, "device_id": device}));
                }
            }
            "upload_complete" => {
                self.upload_complete(seq, conn, body).await;
                return;
            }
            "connected" | "status" => self.substitute_rows(&mut frame),
            _ => {}
        }
        let raw = &mut self.links.get_mut(&conn).expect("an open link").raw;
        raw.send_text(&frame.to_string()).await.unwrap_or_else(|error| panic!("line {seq}: {error}"));
        if let Some(asked) = asked {
            let (status, answer) = self.answered(asked.answer).await;
            assert_eq!(status, 200, "line {seq}: {answer}");
            match asked.action.as_str() {
                "get_state" => {
                    assert_eq!(answer["current_state"], body["data"]["state"], "line {seq}: {answer}");
                    assert_eq!(answer["state_synced"], true, "line {seq}: {answer}");
                }
                "get_stats" => assert_eq!(answer["data"], body["data"], "line {seq}"),
                // Word for word, refusals too.
                _ => {
                    assert_eq!(answer["request_id"], asked.id, "line {seq}: {answer}");
                    for key in ["success", "message", "data"] {
                        assert_eq!(answer[key], body[key], "line {seq}: {answer}");
                    }
                }
            }
        }
    }

    /// Rows of uploads of which we hold another object than was recorded.
    fn substitute_rows(&self, frame: &mut Value) {
        let Some(rows) = frame["data"]["uploads"].as_array_mut() else { return };
        for row in rows {
            let take = row["task_id"].as_str().and_then(|task| self.takes.get(task));
            if let Some(take) = take {
                row["checksum_sha256"] = json!(take.sha256());
                row["file_size_bytes"] = json!(take.mcap.len());
            }
        }
    }

    /// As recorded while nothing is stored: no acknowledgement. Then with an object of ours: one.
    async fn upload_complete(&mut self, seq: u64, conn: u64, body: &Value) {
        let task = body["data"]["task_id"].as_str().expect("an id").to_owned();
        let link = self.links.get_mut(&conn).expect("an open link");
        link.raw.send_text(&body.to_string()).await.expect("an open link");
        if let Some(text) = crate::script::text_within(&mut link.raw, crate::rig::SILENCE).await {
            assert!(text.contains("status_query"), "line {seq}: nothing is stored, but {text} was sent");
        }
        assert_eq!(self.site.task_status(&task).await, "uploading", "line {seq}");
        let mut take = Take::new(&link.device, &task, seq, 30_000);
        take.key = body["data"]["s3_key"].as_str().expect("a key").to_owned();
        if body["data"]["upload_mode"] == "mcap_only" {
            take = take.mcap_only();
        }
        take.upload(&self.site).await;
        let mut frame = body.clone();
        frame["data"]["checksum_sha256"] = json!(take.sha256());
        frame["data"]["file_size_bytes"] = json!(take.mcap.len());
        let size = take.mcap.len();
        self.takes.insert(task.clone(), take);
        if self.name == "reconnect-after-rst" {
            // The connection broke before an acknowledgement: the next greeting is all that is left.
            return;
        }
        let link = self.links.get_mut(&conn).expect("an open link");
        link.raw.send_text(&frame.to_string()).await.expect("an open link");
        if !self.rows.values().any(|row| matches!(row.2, Ours::Sends(text) if text.contains("upload_ack"))) {
            self.expect(seq, conn, &format!("{{\"task_id\":\"{task}\",\"type\":\"upload_ack\"}}")).await;
        }
        self.site.task_reaches(&task, "completed").await;
        let device = self.links[&conn].device.clone();
        let episode = self.site.episode(&device, &task).await;
        let row = self.site.read(&format!("/api/v1/episodes/{episode}")).await;
        assert_eq!(row["file_size_bytes"], size, "{row}");
    }

    async fn callback(&mut self, seq: u64, kind: &str, body: &Value) {
        let path = format!("/api/v1/callbacks/{}", kind.strip_prefix("http-").expect("a callback"));
        let recorded = body["headers"].as_object().expect("headers");
        let headers: Vec<(&str, &str)> = recorded
            .iter()
            .filter(|(name, _)| !matches!(name.as_str(), "Content-Length" | "Content-Type"))
            .map(|(name, value)| (name.as_str(), value.as_str().expect("text")))
            .collect();
        let sent = self.site.http().send(http::Method::POST, &path, &headers, Some(&body["body"])).await;
        let answer = sent.unwrap_or_else(|error| panic!("line {seq}: {error}"));
        let said = answer.json();
        assert_eq!(answer.status.as_u16(), 200, "line {seq}: {said}");
        if kind == "http-start" {
            let moved = &said["task_status"];
            assert!(moved == "in_progress" || moved == "unknown", "line {seq}: {said}");
        } else {
            assert_eq!(said["task_status"], "uploading", "line {seq}: {said}");
        }
    }

    async fn holds(&mut self, seq: u64, then: &Then) {
        let what = format!("{} {seq}", self.name);
        match then {
            Then::State(word, task) => {
                let device = self.links.values().find(|link| link.role == "recorder").expect("a recorder");
                let path = format!("/api/v1/recorder/{}/state", device.device);
                let end = tokio::time::Instant::now() + STEP;
                loop {
                    self.pump().await;
                    let state = self.site.read(&path).await;
                    let fits = state["state_synced"] == true && state["confidence"] == "confirmed";
                    if fits && state["current_state"] == *word && state["task_id"] == *task {
                        break;
                    }
                    assert!(tokio::time::Instant::now() < end, "{what}: {word} {task:?}, not {state}");
                }
            }
            Then::Unsure => {
                let link = self.links.values().find(|link| link.role == "recorder").expect("a recorder");
                let state = self.site.read(&format!("/api/v1/recorder/{}/state", link.device)).await;
                assert_eq!(
                    (&state["state_synced"], &state["syncing"]),
                    (&json!(false), &json!(true)),
                    "{what}: {state}"
                );
            }
            Then::Task(task, status) => {
                let end = tokio::time::Instant::now() + STEP;
                loop {
                    self.pump().await;
                    let now = self.site.task_status(task).await;
                    if now == *status {
                        break;
                    }
                    assert!(tokio::time::Instant::now() < end, "{what}: {task} is {now}, not {status}");
                }
            }
            Then::Wire(task, wire) => {
                let row = self.site.read(&format!("/api/v1/tasks/{task}")).await;
                assert_eq!(row["wire_id"], *wire, "{what}: {row}");
            }
            Then::NeedsUploader(task) => {
                let link = self.links.values().find(|link| link.role == "recorder").expect("a recorder");
                let device = link.device.clone();
                let config = json!({"task_config": {"task_id": task, "device_id": device}});
                let (status, body) =
                    self.site.post(&format!("/api/v1/recorder/{device}/config"), &config).await;
                assert_eq!(
                    (status, &body["code"]),
                    (409, &json!("transfer_not_connected")),
                    "{what}: {body}"
                );
                self.silent_uploader = Some(Uploader::connect(&self.site, &device).await);
            }
            Then::UploaderLeaves => {
                let mut uploader = self.silent_uploader.take().expect("an uploader was added");
                uploader.link.send_close(1000, "").await.expect("an open link");
                uploader.link.closed(STEP).await.expect("the echo");
                let path = format!("/api/v1/devices/{}/connection", uploader.device);
                until("the uploader to be gone", STEP, async || {
                    (self.site.read(&path).await["transfer_connected"] == false).then_some(())
                })
                .await;
            }
            Then::Kill => {
                self.site.kill();
                self.links.clear();
                self.site.start().await;
            }
        }
    }
}

async fn answer_state(raw: &mut Raw, request: &Value, state: &Value) {
    let frame = json!({
        "type": "rpc_response",
        "request_id": request["request_id"],
        "success": true,
        "message": "State retrieved successfully",
        "data": state,
    });
    raw.send_json(&frame).await.expect("an open link");
}

/// What the first 84 lines of both first sessions come to.
fn first_session() -> Vec<(u64, Then)> {
    vec![
        (4, Then::Unsure),
        (5, Then::State("idle", "")),
        (5, Then::NeedsUploader("task-001")),
        (35, Then::Task("task-001", "pending")),
        (43, Then::State("ready", "task-001")),
        (43, Then::Task("task-001", "ready")),
        (53, Then::State("ready", "task-001")),
        (61, Then::State("recording", "task-001")),
        (61, Then::Task("task-001", "in_progress")),
        (70, Then::State("paused", "task-001")),
        (73, Then::State("recording", "task-001")),
        (77, Then::Task("task-001", "in_progress")),
        (77, Then::Task("task-001b", "pending")),
        (84, Then::State("idle", "")),
    ]
}

#[test]
fn a_first_session_of_a_recorder_is_served_as_it_was_recorded() {
    run(async {
        let mut then = first_session();
        then.push((85, Then::Task("task-001", "uploading")));
        then.push((91, Then::State("idle", "")));
        then.push((91, Then::Task("task-001", "uploading")));
        let mut player = Player::new("recorder-basic", &[BASIC], then, Plan::new()).await;
        for task in ["task-001", "task-001b", "task-002"] {
            player.site.create_task("dev-a", task).await;
        }
        player.play(None).await;
        let mut uploader = player.silent_uploader.take().expect("an uploader was added");
        // The site is stopped by now; what it sent before stands in the socket.
        let request = uploader.text().await;
        assert_eq!(request, "{\"priority\":1,\"task_id\":\"task-001\",\"type\":\"upload_request\"}\n");
        let rest = uploader.link.next_json(STEP).await;
        assert!(
            rest.as_ref().is_err() || rest.as_ref().is_ok_and(|frame| frame["type"] == "status_query"),
            "{rest:?}"
        );
    });
}

#[test]
fn a_recorder_that_comes_back_twice_and_its_uploader_are_served_as_recorded() {
    run(async {
        let mut then = first_session();
        then.extend([
            (84, Then::UploaderLeaves),
            (85, Then::Task("task-001", "uploading")),
            (138, Then::Unsure),
            (139, Then::State("idle", "")),
            (147, Then::State("idle", "")),
            (162, Then::State("idle", "")),
            (166, Then::Task("task-001", "uploading")),
            (166, Then::Task("task-002", "pending")),
            (392, Then::Task("task-001", "uploading")),
            (395, Then::Task("task-001", "completed")),
        ]);
        let name = "transfer-basic-and-recorder-garbage";
        let mut player = Player::new(name, &[BASIC, RECONNECTED], then, Plan::new()).await;
        for task in ["task-001", "task-001b", "task-002"] {
            player.site.create_task("dev-a", task).await;
        }
        player.play(None).await;
    });
}

#[test]
fn cancel_clear_and_quit_and_a_recording_without_a_sidecar_are_served_as_recorded() {
    run(async {
        let name = "cancel-clear-quit-callback500-mcaponly";
        let then = vec![
            (11, Then::Task("m1", "ready")),
            (14, Then::Task("m1", "in_progress")),
            (22, Then::Task("m1", "uploading")),
            (23, Then::Task("m1", "uploading")),
            (31, Then::Task("m1", "completed")),
            (39, Then::Task("m2", "ready")),
            (42, Then::State("idle", "")),
            (42, Then::Task("m2", "pending")),
            (42, Then::Wire("m2", "m2")),
            (51, Then::Task("m3", "in_progress")),
            (59, Then::Task("m3", "pending")),
            (59, Then::Wire("m3", "m3.2")),
            (66, Then::Task("m4", "in_progress")),
            (69, Then::Task("m4", "in_progress")),
        ];
        let plan = Plan::new().set("devices.link_grace", "1s");
        let mut player = Player::new(name, &[ENDINGS], then, plan).await;
        for task in ["m1", "m2", "m3", "m4"] {
            player.site.create_task("d5", task).await;
        }
        for line in lines(name) {
            if player.step(&line).await == 73 {
                // It quit and does not come back: the uploader is asked for what it recorded, and the task is kept.
                player.expect(73, 2, r#"{"priority":1,"task_id":"m4","type":"upload_request"}"#).await;
                player.holds(73, &Then::Task("m4", "in_progress")).await;
            }
        }
        player.end(None).await;
    });
}

async fn after_a_reset(kill: bool) {
    let mut then = vec![
        (19, Then::Task("a1", "in_progress")),
        (23, Then::Task("a1", "uploading")),
        (38, Then::State("idle", "")),
        (38, Then::Task("a1", "completed")),
    ];
    if kill {
        then.push((32, Then::Kill));
    }
    let mut player = Player::new("reconnect-after-rst", &[RESET], then, Plan::new()).await;
    player.site.create_task("d1", "a1").await;
    for line in lines("reconnect-after-rst") {
        let seq = player.step(&line).await;
        if seq == 34 {
            // The greeting lists it as waiting: the late acknowledgement, once.
            player.expect(34, 3, "{\"task_id\":\"a1\",\"type\":\"upload_ack\"}").await;
        }
    }
    assert_eq!(player.site.episodes("d1").await.len(), 1);
    player.end(None).await;
}

#[test]
fn a_recording_whose_acknowledgement_was_cut_off_is_acknowledged_after_the_reconnect() {
    run(after_a_reset(false));
}

#[test]
fn and_also_if_the_site_was_killed_meanwhile() {
    run(after_a_reset(true));
}

async fn through_a_cut(hang: bool) {
    let name = "blackhole-while-recording";
    let both = (lines(name), lines("reconnect-after-rst"));
    assert_eq!(both.0[..84], both.1[..], "its first 84 lines are the other transcript, played there");
    let then = vec![
        (102, Then::Task("b1", "in_progress")),
        (141, Then::Task("b1", "in_progress")),
        (148, Then::State("recording", "b1")),
        (148, Then::Task("b1", "in_progress")),
        (148, Then::Wire("b1", "b1")),
        (265, Then::Task("b1", "uploading")),
        (268, Then::State("idle", "")),
        (271, Then::Task("b1", "completed")),
    ];
    let mut player = Player::new(name, &[SILENT], then, Plan::new()).await;
    player.hang = hang;
    player.site.create_task("d2", "b1").await;
    let began = async |site: &Site| site.read("/api/v1/tasks/b1").await["started_at"].clone();
    let mut started = Value::Null;
    for line in lines(name).into_iter().filter(|line| line["device"] == "d2") {
        let seq = line["seq"].as_u64().expect("a number");
        if hang && (seq == 137 || seq == 142) {
            // The old socket stays open, and nobody reads it.
            continue;
        }
        player.step(&line).await;
        match seq {
            102 => started = began(&player.site).await,
            148 => assert_eq!(
                began(&player.site).await,
                started,
                "the recording went on: it began when it began"
            ),
            _ => {}
        }
    }
    assert!(started.is_string(), "{started}");
    for old in &mut player.hanging {
        let closed = old.closed(STEP).await.expect("an old link is closed");
        assert_eq!(closed, Some((4001, "replaced by a newer connection".to_owned())));
    }
    assert_eq!(player.hanging.len(), if hang { 2 } else { 0 });
    player.end(Some("d2")).await;
}

#[test]
fn a_recording_goes_on_through_a_cut_of_both_links() {
    run(through_a_cut(false));
}

#[test]
fn and_also_if_the_old_links_still_hang_when_the_new_ones_come() {
    run(through_a_cut(true));
}
