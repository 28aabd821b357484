//! `status` and `sync`: asks a running site over HTTP and prints what it says.

use std::time::Duration;

use serde_json::Value;
use tidegate_device::Http;
use tidegate_runtime::real::RealNet;

use crate::args::{Status, Sync};
use crate::{Done, Failure, say};

/// How long a site may take to answer.
const ANSWER: Duration = Duration::from_secs(15);

pub(crate) struct Site {
    http: Http<RealNet>,
    url: String,
}

impl Site {
    pub(crate) fn at(url: &str) -> Result<Site, Failure> {
        let bad = || {
            Failure::new(crate::Exit::Usage, format!("--api {url} is not an address: use http://host:port"))
        };
        let rest = url.strip_prefix("http://").ok_or_else(bad)?.trim_end_matches('/');
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) => (host, port.parse().map_err(|_| bad())?),
            None => (rest, 80),
        };
        if host.is_empty() || host.contains('/') {
            return Err(bad());
        }
        Ok(Site { http: Http::new(RealNet, host, port).with_timeout(ANSWER), url: url.to_string() })
    }

    /// Whether it answers that it is ready.
    pub(crate) async fn is_ready(&self) -> bool {
        matches!(self.http.get("/readyz").await, Ok((200, _, _)))
    }

    pub(crate) async fn get(&self, path: &str) -> Result<Value, Failure> {
        let (status, _, body) =
            self.http.get(path).await.map_err(|error| self.unreachable(&error.to_string()))?;
        answer(status, body, path)
    }

    pub(crate) async fn post(&self, path: &str) -> Result<Value, Failure> {
        self.post_with(path, &Value::Object(serde_json::Map::new())).await
    }

    pub(crate) async fn post_with(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        let sent = self.http.post(path, body).await;
        let (status, _, body) = sent.map_err(|error| self.unreachable(&error.to_string()))?;
        answer(status, body, path)
    }

    fn unreachable(&self, error: &str) -> Failure {
        Failure::failed(format!(
            "no site answers at {}: {error}\nIs it running? Start one with `tidegate run`, or name another with --api.",
            self.url
        ))
    }
}

fn answer(status: u16, body: Value, path: &str) -> Result<Value, Failure> {
    if (200..300).contains(&status) {
        return Ok(body);
    }
    let text = body.get("error").and_then(Value::as_str).unwrap_or("no explanation");
    Err(Failure::failed(format!("{path}: {text} (HTTP {status})")))
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or("")
}

fn number(value: &Value, field: &str) -> u64 {
    value.get(field).and_then(Value::as_u64).unwrap_or(0)
}

fn items(value: &Value) -> &[Value] {
    value.get("items").and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

pub(crate) async fn status(args: Status) -> Done {
    let site = Site::at(&args.api)?;
    let devices = site.get("/api/v1/recorder/devices").await?;
    let transfers = site.get("/api/v1/transfer/devices").await?;
    let tasks = site.get("/api/v1/tasks?limit=20").await?;
    let episodes = site.get("/api/v1/episodes?limit=50").await?;
    let config = site.get("/api/v1/sync/config").await?;
    let ids: Vec<String> = items(&episodes).iter().map(|e| number(e, "id").to_string()).collect();
    let statuses = if ids.is_empty() {
        Value::Null
    } else {
        site.get(&format!("/api/v1/sync/episode-statuses?ids={}", ids.join(","))).await?
    };
    if args.json {
        let all = serde_json::json!({
            "devices": devices["devices"], "transfer": transfers["devices"], "tasks": tasks, "episodes": episodes,
            "sync": statuses, "config": config,
        });
        say(&serde_json::to_string_pretty(&all).map_err(|error| Failure::failed(error.to_string()))?);
        return Ok(());
    }
    say(&format!("site {}", args.api));
    let recorders = devices["devices"].as_array().map_or(&[][..], Vec::as_slice);
    let uploaders = transfers["devices"].as_array().map_or(&[][..], Vec::as_slice);
    say(&format!("\ndevices: {} recorders, {} uploaders connected", recorders.len(), uploaders.len()));
    for device in recorders {
        let state = &device["state"];
        let task = text(state, "task_id");
        let task = if task.is_empty() { String::new() } else { format!(" {task}") };
        let synced = if device["state_synced"] == Value::Bool(true) { "" } else { " (not confirmed)" };
        say(&format!("  {:<24} {}{task}{synced}", text(device, "device_id"), text(state, "current_state")));
    }
    say(&format!("\ntasks: {}", number(&tasks, "total")));
    for task in items(&tasks) {
        let error = text(task, "error_message");
        let error = if error.is_empty() { String::new() } else { format!("  {error}") };
        say(&format!(
            "  {:<32} {:<24} {:<12}{error}",
            text(task, "task_id"),
            text(task, "device_id"),
            text(task, "status")
        ));
    }
    say(&format!("\nepisodes: {}", number(&episodes, "total")));
    for (episode, sync) in items(&episodes).iter().zip(items(&statuses)) {
        let mut line = format!(
            "  {:>5}  {:<32} {:>10}  {:<16} {:<12}",
            number(episode, "id"),
            text(episode, "task_id"),
            bytes(number(episode, "file_size_bytes")),
            text(episode, "qa_status"),
            text(sync, "status"),
        );
        if let Some(percent) = sync["progress"]["percent"].as_u64() {
            line.push_str(&format!(" {percent} %"));
        }
        for field in ["reason", "error_message"] {
            if !text(sync, field).is_empty() {
                line.push_str(&format!("  {}", text(sync, field)));
                break;
            }
        }
        // What the site found in it, for whoever is to look.
        if text(episode, "qa_status") == "needs_inspection" {
            line.push_str(&format!("  {}", text(episode, "qa_reason")));
        }
        say(line.trim_end());
    }
    if config["worker_running"] == Value::Bool(false) {
        say("\nNo cloud is configured: uploads wait. Add a [cloud] section, see docs/configuration.md.");
    }
    Ok(())
}

pub(crate) async fn sync(args: Sync) -> Done {
    let site = Site::at(&args.api)?;
    if let Some(episode) = args.episode {
        site.post(&format!("/api/v1/sync/episodes/{episode}")).await?;
        say(&format!("episode {episode} is queued"));
        return Ok(());
    }
    let mut queued = 0;
    loop {
        let count = number(&site.post("/api/v1/sync/episodes").await?, "enqueued_count");
        queued += count;
        if count == 0 {
            break;
        }
    }
    match queued {
        0 => say("nothing to send: no approved episode is without a job"),
        1 => say("1 episode is queued"),
        n => say(&format!("{n} episodes are queued")),
    }
    Ok(())
}

/// Bytes for people, in binary units.
pub(crate) fn bytes(n: u64) -> String {
    const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    for (unit, size) in UNITS {
        if n >= size {
            return format!("{}.{} {unit}", n / size, n % size * 10 / size);
        }
    }
    format!("{n} B")
}
