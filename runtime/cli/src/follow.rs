//! `watch`: follows what happens at a running site, line by line. Comes back where it was when the connection is lost, and
//! says so when something was missed. Changes nothing.

use std::time::Duration;

use serde_json::Value;
use tidegate_device::{StreamEvent, StreamReader};

use crate::args::Watch;
use crate::ask::{Site, number, text};
use crate::{Done, Exit, Failure, say};

/// Between two tries to come back.
const PAUSE: Duration = Duration::from_secs(1);
/// Longest pause between two tries.
const PAUSE_MAX: Duration = Duration::from_secs(15);

/// Follows until Ctrl-C. Fails at once if nothing answers at the start.
pub(crate) async fn watch(args: Watch) -> Done {
    let site = Site::at(&args.site)?;
    let mut interrupted = std::pin::pin!(tokio::signal::ctrl_c());
    let mut follower =
        Follower { site: &site, path: path(&args), reader: StreamReader::new(), json: args.json };
    tokio::select! {
        biased;
        interrupted = &mut interrupted => {
            interrupted.map_err(|error| Failure::failed(error.to_string()))?;
            Err(Failure::new(Exit::Interrupted, "no longer watched; the site goes on"))
        }
        failure = follower.follow() => Err(failure),
    }
}

fn path(args: &Watch) -> String {
    let listed = |name: &str, items: &[String]| {
        let items: Vec<String> = items.iter().map(|item| encoded(item)).collect();
        (!items.is_empty()).then(|| format!("{name}={}", items.join(",")))
    };
    let query: Vec<String> =
        [listed("device_ids", &args.device), listed("types", &args.types)].into_iter().flatten().collect();
    let mark = if query.is_empty() { "" } else { "?" };
    format!("/api/v1/device-state/stream{mark}{}", query.join("&"))
}

/// What is no plain character of an id is percent-encoded; the site then says what is wrong with it.
fn encoded(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"._-,".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

struct Follower<'a> {
    site: &'a Site,
    path: String,
    reader: StreamReader,
    json: bool,
}

impl Follower<'_> {
    /// Ends with a refusal that no patience mends, or if the site was never there.
    async fn follow(&mut self) -> Failure {
        let mut connected = false;
        let mut pause = PAUSE;
        loop {
            match self.once(&mut connected, &mut pause).await {
                Ok(()) => self.note("the site ended the stream; coming back"),
                Err(Broken::ForGood(failure)) => return failure,
                Err(Broken::ForNow(failure)) if !connected => return failure,
                Err(Broken::ForNow(failure)) => {
                    let first = failure.text.lines().next().unwrap_or_default();
                    self.note(&format!("{first}; coming back"));
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// One connection, to its end.
    async fn once(&mut self, connected: &mut bool, pause: &mut Duration) -> Result<(), Broken> {
        let last = self.reader.last_id().map(str::to_owned);
        let mut headers = vec![("accept", "text/event-stream")];
        headers.extend(last.as_deref().map(|id| ("last-event-id", id)));
        let mut stream = self.site.stream(&self.path, &headers).await.map_err(Broken::ForNow)?;
        let status = stream.status().as_u16();
        if status != 200 {
            let refusal = stream.collect().await.map(|answer| answer.json()).unwrap_or_default();
            let failure = Failure::failed(format!("{} (HTTP {status})", text(&refusal, "error")));
            // Stopping, or too many streams: both pass.
            return Err(if status == 503 { Broken::ForNow(failure) } else { Broken::ForGood(failure) });
        }
        *connected = true;
        self.reader.start_over();
        loop {
            let piece = stream.chunk().await;
            let piece = piece.map_err(|error| Broken::ForNow(Failure::failed(error.to_string())))?;
            let Some(piece) = piece else { return Ok(()) };
            *pause = PAUSE;
            for event in self.reader.read(&piece) {
                self.show(&event);
            }
        }
    }

    fn show(&self, event: &StreamEvent) {
        if self.json {
            return say(&event.data);
        }
        let data: Value = serde_json::from_str(&event.data).unwrap_or_default();
        if let Some(line) = line(&event.name, &data) {
            say(&line);
        }
    }

    /// A word of our own; JSON stays what the site said.
    fn note(&self, words: &str) {
        if !self.json {
            say(&format!("-- {words}"));
        }
    }
}

enum Broken {
    ForNow(Failure),
    ForGood(Failure),
}

/// An event as a line for people; `None` for what only machines need.
fn line(name: &str, data: &Value) -> Option<String> {
    let of = |field: &str| text(data, field);
    let words = match name {
        "snapshot_begin" => {
            return Some(match of("reason") {
                "new" => "-- as it is now".to_owned(),
                "resync" => "-- as it is now, after the gap".to_owned(),
                "other_boot" => "-- the site was restarted; as it is now".to_owned(),
                _ => "-- away for too long; as it is now".to_owned(),
            });
        }
        "snapshot_end" => {
            let (devices, tasks) = (number(data, "devices"), number(data, "tasks"));
            return Some(format!("-- {devices} device(s), {tasks} open task(s); what happens from here on"));
        }
        "resync" => {
            return Some(format!("-- too slow: {} event(s) were missed", number(data, "missed")));
        }
        "device_snapshot" => {
            let recorder = data.get("recorder").filter(|_| data["recorder_connected"] == true);
            let state = recorder.map_or("not connected".to_owned(), recorder_words);
            let uploader = if data["transfer_connected"] == true { "connected" } else { "not connected" };
            let disabled = if data["disabled_at"].is_string() { ", disabled" } else { "" };
            let fights = data["contests"].as_array().into_iter().flatten().map(fight);
            let conflict = data.get("conflict").map(|view| conflict(view, text(view, "kind")));
            let troubles: String = fights.chain(conflict).map(|words| format!("; {words}")).collect();
            format!("recorder {state}, uploader {uploader}{disabled}{troubles}")
        }
        "task_snapshot" => {
            let overdue = if data["overdue"] == true { ", overdue" } else { "" };
            format!("task {} is {}{overdue}{}", of("task_id"), of("status"), error(data))
        }
        "site_snapshot" => {
            let queue = queue(&data["queue"]);
            let cloud = match data["worker_running"] == false {
                true => "no cloud is configured".to_owned(),
                false => destination(&data["destination"]),
            };
            format!("{cloud}; {queue}")
        }
        "device_connection" => {
            let words = of("source").replace('_', " ").replace("transfer", "uploader");
            let from = Some(of("remote_ip")).filter(|ip| !ip.is_empty()).map(|ip| format!(" from {ip}"));
            let why = Some(of("why")).filter(|why| !why.is_empty()).map(|why| format!(": {why}"));
            format!("{words}{}{}", from.unwrap_or_default(), why.unwrap_or_default())
        }
        "recorder_state" | "recorder_syncing" => format!("recorder {}", recorder_words(data)),
        "recorder_operation_unknown" => {
            format!("nobody knows how {} ended: no answer in {}", of("action"), of("timeout"))
        }
        "rpc_timeout" => format!("{} was not answered in {} ms", of("action"), number(data, "elapsed_ms")),
        "device_takeover" => {
            let ip = |which: &str| text(&data[which], "remote_ip").to_owned();
            format!("the {} at {} was replaced by one at {}", of("role"), ip("old"), ip("new"))
        }
        "device_conflict" if data["contested"] == true => fight(data),
        "device_conflict" => format!("the fight over this id is over ({})", of("role")),
        "task_conflict" if data["conflicting"] == true => conflict(data, of("conflict")),
        "task_conflict" => "its recorder agrees with the records again".to_owned(),
        "task_state" => {
            let from = Some(of("from")).filter(|from| !from.is_empty() && *from != of("to"));
            let from = from.map(|from| format!("{from} -> ")).unwrap_or_default();
            format!("task {} {from}{}{}", of("task_id"), of("to"), error(data))
        }
        "task_overdue" => format!("task {} waits for its recording for too long", of("task_id")),
        "transfer_status" => {
            let (waiting, active) = (number(data, "pending_count"), number(data, "active_count"));
            let acks = number(data, "waiting_ack_count");
            format!("uploader: {waiting} pending, {active} active, {acks} wait for their acknowledgement")
        }
        "recording" => {
            let bytes = crate::ask::bytes(number(data, "file_size_bytes"));
            let late = if data["late"] == true { ", late" } else { "" };
            format!(
                "recording of task {} verified: episode {}, {bytes}{late}",
                of("task_id"),
                number(data, "episode_id")
            )
        }
        "upload_progress" => {
            let bytes = |field| crate::ask::bytes(number(data, field));
            let (done, all) = (bytes("uploaded_bytes"), bytes("total_bytes"));
            format!("episode {}: {done} of {all} in the cloud", number(data, "episode_id"))
        }
        "upload_ended" => format!("episode {}: no upload runs any more", number(data, "episode_id")),
        "destination" => destination(data),
        "queue" => queue(data),
        "stray_unseen" => format!("an unfinished upload may be left in the cloud at {}", of("s3_key")),
        "message_refused" => format!("a message was refused: {}: {}", of("code"), of("detail")),
        "policy" => format!("policies: {}", of("text")),
        // Of a newer site.
        other => format!("{other} {data}"),
    };
    let at = of("updated_at").get(11..19).unwrap_or("        ");
    let device = of("device_id");
    let device = if device.is_empty() { String::new() } else { format!("{device}  ") };
    Some(format!("{at}  {device}{words}"))
}

fn recorder_words(view: &Value) -> String {
    let task = Some(text(view, "task_id")).filter(|task| !task.is_empty());
    let task = task.map(|task| format!(" {task}")).unwrap_or_default();
    if view["connected"] == false {
        return "not connected".to_owned();
    }
    let sure = if view["state_synced"] == true { "" } else { " (not confirmed)" };
    format!("{}{task}{sure}", text(view, "current_state"))
}

fn fight(data: &Value) -> String {
    let addresses: Vec<&str> =
        data["addresses"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    format!("two programs fight over this id ({}): {}", text(data, "role"), addresses.join(" and "))
}

fn conflict(data: &Value, kind: &str) -> String {
    let (state, task) = (text(data, "device_state"), text(data, "device_task_id"));
    format!("its recorder contradicts the records: {kind}, {state} {task}")
}

fn destination(data: &Value) -> String {
    match text(data, "fault") {
        "" => "the cloud works".to_owned(),
        fault => format!("the cloud cannot be reached: {fault}, {} in a row", number(data, "streak")),
    }
}

fn queue(data: &Value) -> String {
    let n = |field| number(data, field);
    let (due, waiting) = (n("due"), n("waiting"));
    format!("queue: {due} due, {waiting} waiting, {} uploading, {} parked", n("uploading"), n("parked"))
}

fn error(data: &Value) -> String {
    match text(data, "error_message") {
        "" => String::new(),
        words => format!(": {words}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn args(device: &[&str], types: &[&str]) -> Watch {
        let owned = |items: &[&str]| items.iter().map(|item| (*item).to_owned()).collect();
        let site = crate::args::SiteAt { api: String::new(), ca: None, token: None, token_file: None };
        Watch { device: owned(device), types: owned(types), json: false, site }
    }

    #[test]
    fn filters_become_a_query_that_no_id_can_break() {
        assert_eq!(path(&args(&[], &[])), "/api/v1/device-state/stream");
        assert_eq!(
            path(&args(&["a", "b&c=d e"], &["task_state", "queue"])).split_once('?').expect("a query").1,
            "device_ids=a,b%26c%3Dd%20e&types=task%5Fstate,queue".replace("%5F", "_")
        );
    }

    #[test]
    fn events_become_lines() {
        let cases = [
            (
                "task_state",
                json!({"device_id": "r1", "from": "ready", "task_id": "t", "to": "in_progress", "updated_at": "2026-11-21T10:20:30.5Z"}),
                "10:20:30  r1  task t ready -> in_progress",
            ),
            (
                "recorder_syncing",
                json!({"connected": true, "current_state": "idle", "device_id": "r1", "state_synced": false, "task_id": "", "updated_at": "2026-11-21T10:20:30Z"}),
                "10:20:30  r1  recorder idle (not confirmed)",
            ),
            (
                "device_connection",
                json!({"device_id": "r1", "source": "transfer_disconnected", "why": "broken", "updated_at": "2026-11-21T10:20:30Z"}),
                "10:20:30  r1  uploader disconnected: broken",
            ),
            (
                "device_snapshot",
                json!({"conflict": {"device_state": "recording", "device_task_id": "t9", "kind": "over"}, "contests": [{"addresses": ["a:1", "b:2"], "role": "recorder"}], "device_id": "r1", "transfer_connected": true}),
                "          r1  recorder not connected, uploader connected; two programs fight over this id (recorder): \
                 a:1 and b:2; its recorder contradicts the records: over, recording t9",
            ),
            (
                "site_snapshot",
                json!({"destination": {"fault": "offline", "streak": 2}, "queue": {"due": 1}, "uploads": []}),
                "          the cloud cannot be reached: offline, 2 in a row; queue: 1 due, 0 waiting, 0 uploading, 0 parked",
            ),
            ("resync", json!({"missed": 7}), "-- too slow: 7 event(s) were missed"),
            ("of_tomorrow", json!({"a": 1}), "          of_tomorrow {\"a\":1}"),
        ];
        for (name, data, expected) in cases {
            assert_eq!(line(name, &data).expect("a line"), expected);
        }
    }
}
