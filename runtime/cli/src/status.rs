//! `status`: a running site at a glance. What needs a person comes first; asks over HTTP, decides nothing.

use std::collections::BTreeMap;
use std::io::IsTerminal;

use serde_json::Value;

use crate::args::Status;
use crate::ask::{Site, bytes, items, number, text};
use crate::{Done, Failure, say};

/// Episodes and tasks that are asked for: what fits two screens, and what one batch of statuses may name.
const RECENT: u64 = 50;
/// Tasks that wait for their recordings that are asked for: what a page may hold.
const UPLOADING: u64 = 100;
/// Lines of a list before the rest is counted.
const LINES: usize = 12;

/// Everything the site told.
struct Told {
    ready: Result<(), String>,
    recorders: Vec<Value>,
    uploaders: Vec<Value>,
    tasks: Value,
    /// Tasks that wait for their recordings, which may be many tasks further on.
    uploading: Value,
    /// What devices and programs are at odds with: `conflicts` and `contests`.
    odds: Value,
    episodes: Value,
    /// By episode.
    sync: BTreeMap<u64, Value>,
    config: Value,
}

pub(crate) async fn status(args: Status) -> Done {
    let site = Site::at(&args.site)?;
    let told = ask(&site).await?;
    if args.json {
        let sync: Vec<&Value> = told.sync.values().collect();
        let all = serde_json::json!({
            "ready": told.ready.is_ok(), "devices": told.recorders, "transfer": told.uploaders, "tasks": told.tasks,
            "uploading": told.uploading, "conflicts": told.odds["conflicts"], "contests": told.odds["contests"],
            "episodes": told.episodes, "sync": {"items": sync}, "config": told.config,
        });
        say(&serde_json::to_string_pretty(&all).map_err(|error| Failure::failed(error.to_string()))?);
        return Ok(());
    }
    for line in glance(&told, &args.site.api, Paint::of_terminal()) {
        say(&line);
    }
    Ok(())
}

async fn ask(site: &Site) -> Result<Told, Failure> {
    let list = |value: &Value| value["devices"].as_array().cloned().unwrap_or_default();
    let recorders = list(&site.get("/api/v1/recorder/devices").await?);
    let uploaders = list(&site.get("/api/v1/transfer/devices").await?);
    let tasks = site.get(&format!("/api/v1/tasks?limit={RECENT}")).await?;
    let uploading = site.get(&format!("/api/v1/tasks?status=uploading&limit={UPLOADING}")).await?;
    let odds = site.get("/api/v1/devices/conflicts").await?;
    let episodes = site.get(&format!("/api/v1/episodes?limit={RECENT}")).await?;
    let config = site.get("/api/v1/sync/config").await?;
    let mut sync = BTreeMap::new();
    let ids: Vec<String> = items(&episodes).iter().map(|e| number(e, "id").to_string()).collect();
    if !ids.is_empty() {
        // An episode that is gone meanwhile is missing from the answer: matched by number, never by place.
        let statuses = site.get(&format!("/api/v1/sync/episode-statuses?ids={}", ids.join(","))).await?;
        sync.extend(items(&statuses).iter().map(|item| (number(item, "episode_id"), item.clone())));
    }
    let ready = site.ready().await;
    Ok(Told { ready, recorders, uploaders, tasks, uploading, odds, episodes, sync, config })
}

/// Colours, where there is a terminal that wants them.
#[derive(Clone, Copy)]
struct Paint(bool);

impl Paint {
    fn of_terminal() -> Paint {
        Paint(std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none())
    }

    fn with(self, code: &str, text: &str) -> String {
        if self.0 { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn bold(self, text: &str) -> String {
        self.with("1", text)
    }

    fn good(self, text: &str) -> String {
        self.with("32", text)
    }

    fn bad(self, text: &str) -> String {
        self.with("31", text)
    }
}

/// The whole answer, line by line.
fn glance(told: &Told, api: &str, paint: Paint) -> Vec<String> {
    let mut lines = Vec::new();
    let name = text(&told.config, "site");
    let health = match &told.ready {
        Ok(()) => paint.good("ready"),
        Err(why) => paint.bad(&format!("not ready: {why}")),
    };
    lines.push(format!("{}  {api}  {health}", paint.bold(&format!("site {name}"))));
    lines.push(String::new());
    lines.push(format!("cloud      {}", cloud(told, paint)));
    lines.push(format!("devices    {}", devices(told)));
    lines.push(format!("uploads    {}", queue(&told.config["queue"])));
    lines.push(format!("episodes   {}", episodes(told)));
    lines.push(format!("tasks      {}", tasks(told)));
    section(&mut lines, "NEEDS A PERSON", attention(told), paint);
    section(&mut lines, "ON ITS WAY TO THE CLOUD", on_the_way(told), paint);
    section(&mut lines, "DEVICES", connected(told), paint);
    section(&mut lines, "OPEN TASKS", open_tasks(told), paint);
    section(&mut lines, "NEWEST EPISODES", newest(told), paint);
    lines
}

fn section(lines: &mut Vec<String>, title: &str, rows: Vec<Vec<String>>, paint: Paint) {
    if rows.is_empty() {
        return;
    }
    lines.push(String::new());
    lines.push(paint.bold(title));
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |at: usize| rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|at| width(at).unwrap_or(0)).collect();
    for row in rows.iter().take(LINES) {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        lines.push(format!("  {}", cells.join("  ").trim_end()));
    }
    if rows.len() > LINES {
        lines.push(format!("  … and {} more (--json has all)", rows.len() - LINES));
    }
}

fn cloud(told: &Told, paint: Paint) -> String {
    if told.config["worker_running"] == Value::Bool(false) {
        return format!(
            "{}: uploads wait; add a [cloud] section (docs/configuration.md)",
            paint.bad("not configured")
        );
    }
    let destination = &told.config["destination"];
    let streak = number(destination, "streak");
    if streak == 0 {
        return paint.good("no trouble");
    }
    let tries = if streak == 1 { "1 failure".to_owned() } else { format!("{streak} failures in a row") };
    let next = text(destination, "next_try_at");
    let next = if next.is_empty() { String::new() } else { format!(", next try at {next}") };
    format!("{}: {tries}, the last one {}{next}", paint.bad("trouble"), text(destination, "fault"))
}

/// `3 recorders (2 idle, 1 recording), 3 uploaders`.
fn devices(told: &Told) -> String {
    let states = told.recorders.iter().map(|device| text(&device["state"], "current_state"));
    let recorders = counted("recorder", told.recorders.len());
    let uploaders = counted("uploader", told.uploaders.len());
    format!("{recorders}{} and {uploaders} connected", in_brackets(states))
}

fn counted(word: &str, count: usize) -> String {
    if count == 1 { format!("1 {word}") } else { format!("{count} {word}s") }
}

/// ` (2 idle, 1 recording)`, the most frequent first; nothing for nothing.
fn in_brackets<'a>(words: impl Iterator<Item = &'a str>) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for word in words.filter(|word| !word.is_empty()) {
        *counts.entry(word).or_default() += 1;
    }
    let mut counts: Vec<(&str, usize)> = counts.into_iter().collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    if counts.is_empty() {
        return String::new();
    }
    let parts: Vec<String> = counts.iter().map(|(word, count)| format!("{count} {word}")).collect();
    format!(" ({})", parts.join(", "))
}

fn queue(queue: &Value) -> String {
    let kinds = [
        ("uploading", "under way"),
        ("due", "due"),
        ("waiting", "waiting for another try"),
        ("parked", "parked"),
    ];
    let parts: Vec<String> = kinds
        .iter()
        .filter(|(field, _)| number(queue, field) > 0)
        .map(|(field, words)| format!("{} {words}", number(queue, field)))
        .collect();
    if parts.is_empty() { "none".to_owned() } else { parts.join(", ") }
}

/// Counts of all, words of the newest.
fn episodes(told: &Told) -> String {
    let total = number(&told.episodes, "total");
    let rows = items(&told.episodes);
    let of =
        if (rows.len() as u64) < total { format!("; of the newest {}", rows.len()) } else { String::new() };
    let words = rows.iter().map(|episode| match text(episode, "sync_status") {
        "" | "not_started" => text(episode, "qa_status"),
        sync => sync,
    });
    format!("{total}{of}{}", in_brackets(words))
}

fn tasks(told: &Told) -> String {
    let total = number(&told.tasks, "total");
    let rows = items(&told.tasks);
    let of =
        if (rows.len() as u64) < total { format!("; of the first {}", rows.len()) } else { String::new() };
    format!("{total}{of}{}", in_brackets(rows.iter().map(|task| text(task, "status"))))
}

/// What nothing will mend by itself, and what a person can do about it.
fn attention(told: &Told) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    for episode in items(&told.episodes) {
        let id = number(episode, "id");
        let name = vec![format!("episode {id}"), text(episode, "task_id").to_owned()];
        let mut row = |what: String| rows.push([name.clone(), vec![what]].concat());
        match text(episode, "qa_status") {
            "needs_inspection" => row(format!("needs inspection: {}", text(episode, "qa_reason"))),
            "pending_qa" => row("waits for a verdict (approve or reject)".to_owned()),
            _ => {}
        }
        let Some(sync) = told.sync.get(&id) else { continue };
        let reason = text(sync, "reason");
        match text(sync, "status") {
            "failed" if text(sync, "next_retry_at").is_empty() => {
                row(format!(
                    "failed: {reason}: {}; `tidegate sync {id}` tries again",
                    text(sync, "error_message")
                ));
            }
            "pending" if !reason.is_empty() => row(format!("parked: {}", parked(reason, sync))),
            _ => {}
        }
    }
    rows.extend(at_odds(&told.odds));
    for task in items(&told.uploading).iter().filter(|task| task["overdue"] == Value::Bool(true)) {
        let id = text(task, "task_id");
        let what = match text(task, "error_message") {
            "" => format!("its recording has not come since {}", text(task, "uploading_since")),
            error => error.to_owned(),
        };
        rows.push(vec![
            "task".to_owned(),
            id.to_owned(),
            format!("{what}; POST /api/v1/tasks/{id}/resolve settles it"),
        ]);
    }
    let edge = &told.config["edge"];
    let short = match (text(edge, "gate"), text(edge, "room")) {
        ("full", _) => "devices may not upload",
        (_, "none" | "short") => "no device is asked for another recording",
        _ => "",
    };
    if !short.is_empty() {
        let free = bytes(number(edge, "free_bytes"));
        rows.push(vec![
            "disk".to_owned(),
            String::new(),
            format!("{free} left: {short}; approve and sync recordings, or make room"),
        ]);
    }
    for device in told.recorders.iter().filter(|device| device["state_synced"] == Value::Bool(false)) {
        let id = text(device, "device_id").to_owned();
        let confidence = text(device, "confidence");
        rows.push(vec![
            "recorder".to_owned(),
            id,
            format!("its state is {confidence}: no recording can begin"),
        ]);
    }
    rows
}

/// Devices that contradict their records, and ids that programs fight over.
fn at_odds(odds: &Value) -> Vec<Vec<String>> {
    let list = |field: &str| odds[field].as_array().cloned().unwrap_or_default();
    let mut rows = Vec::new();
    for conflict in list("conflicts") {
        let id = text(&conflict, "device_id");
        let held = match text(&conflict, "device_task_id") {
            "" => text(&conflict, "device_state").to_owned(),
            task => format!("{} {task}", text(&conflict, "device_state")),
        };
        let what = format!(
            "it is {held}, which its records contradict ({}); POST /api/v1/devices/{id}/conflict/resolve settles it",
            text(&conflict, "kind")
        );
        rows.push(vec!["device".to_owned(), id.to_owned(), what]);
    }
    for contest in list("contests") {
        let addresses: Vec<&str> =
            contest["addresses"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let what = format!(
            "two programs fight over this id ({}): {}; give one of them another id",
            text(&contest, "role"),
            addresses.join(" and ")
        );
        rows.push(vec!["device".to_owned(), text(&contest, "device_id").to_owned(), what]);
    }
    rows
}

/// Why a job is parked, and how it goes on.
fn parked(reason: &str, sync: &Value) -> String {
    let error = text(sync, "error_message");
    let error = if error.is_empty() { String::new() } else { format!(": {error}") };
    let cure = match reason {
        "no_destination" => "; goes on when a [cloud] is configured and its bucket is there",
        "auth" => "; set the keys of [cloud] right, then `tidegate sync` it",
        _ => "; `tidegate sync` it when the cause is gone",
    };
    format!("{reason}{error}{cure}")
}

fn on_the_way(told: &Told) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    for episode in items(&told.episodes) {
        let id = number(episode, "id");
        let Some(sync) = told.sync.get(&id) else { continue };
        let total = number(episode, "file_size_bytes");
        let (uploaded, how) = match text(sync, "status") {
            "in_progress" => (number(&sync["progress"], "uploaded_bytes"), String::new()),
            "pending" if text(sync, "reason").is_empty() => (0, "due".to_owned()),
            "failed" if !text(sync, "next_retry_at").is_empty() => {
                let reason = text(sync, "reason");
                (0, format!("{reason}, tried again at {}", text(sync, "next_retry_at")))
            }
            _ => continue,
        };
        rows.push(vec![
            format!("episode {id}"),
            text(episode, "task_id").to_owned(),
            bar(uploaded, total),
            format!("{} of {}", bytes(uploaded), bytes(total)),
            how,
        ]);
    }
    rows
}

/// Twenty cells of acknowledged bytes.
fn bar(part: u64, whole: u64) -> String {
    const CELLS: usize = 20;
    let full = u128::from(part) * CELLS as u128 / u128::from(whole.max(1));
    let full = usize::try_from(full).unwrap_or(CELLS).min(CELLS);
    let percent = (u128::from(part) * 100 / u128::from(whole.max(1))).min(99);
    format!("[{}{}] {percent:>2} %", "#".repeat(full), "-".repeat(CELLS - full))
}

fn connected(told: &Told) -> Vec<Vec<String>> {
    let uploader = |id: &str| told.uploaders.iter().any(|device| text(device, "device_id") == id);
    let mut rows: Vec<Vec<String>> = Vec::new();
    for device in &told.recorders {
        let (id, state) = (text(device, "device_id"), &device["state"]);
        let sure = if device["state_synced"] == Value::Bool(true) { "" } else { " (not confirmed)" };
        rows.push(vec![
            id.to_owned(),
            format!("{}{sure}", text(state, "current_state")),
            text(state, "task_id").to_owned(),
            if uploader(id) { "uploader connected" } else { "no uploader" }.to_owned(),
        ]);
    }
    for device in &told.uploaders {
        let id = text(device, "device_id");
        if !told.recorders.iter().any(|other| text(other, "device_id") == id) {
            rows.push(vec![
                id.to_owned(),
                "no recorder".to_owned(),
                String::new(),
                "uploader connected".to_owned(),
            ]);
        }
    }
    rows
}

fn open_tasks(told: &Told) -> Vec<Vec<String>> {
    let closed = ["completed", "failed", "cancelled"];
    let open = items(&told.tasks).iter().filter(|task| !closed.contains(&text(task, "status")));
    open.map(|task| {
        ["task_id", "device_id", "status", "error_message"]
            .iter()
            .map(|field| text(task, field).to_owned())
            .collect()
    })
    .collect()
}

fn newest(told: &Told) -> Vec<Vec<String>> {
    let row = |episode: &Value| {
        let sync = told.sync.get(&number(episode, "id")).map_or("", |sync| text(sync, "status"));
        vec![
            number(episode, "id").to_string(),
            text(episode, "task_id").to_owned(),
            bytes(number(episode, "file_size_bytes")),
            text(episode, "qa_status").to_owned(),
            sync.to_owned(),
        ]
    };
    items(&told.episodes).iter().map(row).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that panics has failed, which is what it is for")]
mod tests {
    use super::*;
    use serde_json::json;

    fn told() -> Told {
        let episode = |id: u64, qa: &str, sync: &str| {
            json!({"id": id, "task_id": format!("take-{id}"), "file_size_bytes": 50 << 20, "qa_status": qa,
                   "sync_status": sync})
        };
        let sync = [
            json!({"episode_id": 1, "status": "in_progress", "progress": {"uploaded_bytes": 20 << 20}}),
            json!({"episode_id": 2, "status": "failed", "reason": "foreign_object",
                   "error_message": "another object stands at its key"}),
            json!({"episode_id": 3, "status": "pending", "reason": "auth",
                   "error_message": "the store refuses the credentials"}),
            json!({"episode_id": 4, "status": "not_started"}),
        ];
        Told {
            ready: Ok(()),
            recorders: vec![
                json!({"device_id": "robot-1", "state_synced": true,
                       "state": {"current_state": "recording", "task_id": "take-9"}}),
                json!({"device_id": "robot-2", "state_synced": false,
                       "confidence": "stale", "state": {"current_state": "idle", "task_id": ""}}),
            ],
            uploaders: vec![json!({"device_id": "robot-1"}), json!({"device_id": "robot-3"})],
            tasks: json!({"total": 1, "items": [
                {"task_id": "take-9", "device_id": "robot-1", "status": "in_progress"}]}),
            uploading: json!({"total": 2, "items": [
                {"task_id": "take-7", "overdue": true, "uploading_since": "2026-11-20"},
                {"task_id": "take-8", "overdue": false, "uploading_since": "2026-11-21"}]}),
            odds: json!({"conflicts": [
                    {"device_id": "robot-1", "kind": "other_task", "device_state": "recording", "device_task_id": "take-5"}],
                "contests": [{"device_id": "robot-2", "role": "recorder", "addresses": ["10.0.0.7:1", "10.0.0.9:2"]}]}),
            episodes: json!({"total": 4, "items": [
                episode(4, "pending_qa", "not_started"), episode(3, "approved", "pending"),
                episode(2, "approved", "failed"), episode(1, "approved", "in_progress")]}),
            sync: sync.into_iter().map(|item| (item["episode_id"].as_u64().unwrap(), item)).collect(),
            config: json!({"site": "berlin", "worker_running": true,
                           "destination": {"streak": 2, "fault": "offline", "next_try_at": "12:00"},
                           "queue": {"due": 0, "waiting": 0, "uploading": 1, "parked": 1}}),
        }
    }

    #[test]
    fn a_site_is_read_at_a_glance() {
        let lines = glance(&told(), "http://x", Paint(false));
        assert_eq!(
            lines,
            [
                "site berlin  http://x  ready",
                "",
                "cloud      trouble: 2 failures in a row, the last one offline, next try at 12:00",
                "devices    2 recorders (1 idle, 1 recording) and 2 uploaders connected",
                "uploads    1 under way, 1 parked",
                "episodes   4 (1 failed, 1 in_progress, 1 pending, 1 pending_qa)",
                "tasks      1 (1 in_progress)",
                "",
                "NEEDS A PERSON",
                "  episode 4  take-4   waits for a verdict (approve or reject)",
                "  episode 3  take-3   parked: auth: the store refuses the credentials; set the keys of [cloud] right, then `tidegate sync` it",
                "  episode 2  take-2   failed: foreign_object: another object stands at its key; `tidegate sync 2` tries again",
                "  device     robot-1  it is recording take-5, which its records contradict (other_task); POST /api/v1/devices/robot-1/conflict/resolve settles it",
                "  device     robot-2  two programs fight over this id (recorder): 10.0.0.7:1 and 10.0.0.9:2; give one of them another id",
                "  task       take-7   its recording has not come since 2026-11-20; POST /api/v1/tasks/take-7/resolve settles it",
                "  recorder   robot-2  its state is stale: no recording can begin",
                "",
                "ON ITS WAY TO THE CLOUD",
                "  episode 1  take-1  [########------------] 40 %  20.0 MiB of 50.0 MiB",
                "",
                "DEVICES",
                "  robot-1  recording             take-9  uploader connected",
                "  robot-2  idle (not confirmed)          no uploader",
                "  robot-3  no recorder                   uploader connected",
                "",
                "OPEN TASKS",
                "  take-9  robot-1  in_progress",
                "",
                "NEWEST EPISODES",
                "  4  take-4  50.0 MiB  pending_qa  not_started",
                "  3  take-3  50.0 MiB  approved    pending",
                "  2  take-2  50.0 MiB  approved    failed",
                "  1  take-1  50.0 MiB  approved    in_progress",
            ]
        );
    }

    #[test]
    fn an_empty_site_says_so_in_a_few_lines() {
        let told = Told {
            ready: Err("the site stops".to_owned()),
            recorders: Vec::new(),
            uploaders: Vec::new(),
            tasks: json!({"total": 0, "items": []}),
            uploading: json!({"total": 0, "items": []}),
            odds: json!({"conflicts": [], "contests": []}),
            episodes: json!({"total": 0, "items": []}),
            sync: BTreeMap::new(),
            config: json!({"site": "site", "worker_running": false}),
        };
        assert_eq!(
            glance(&told, "http://x", Paint(false)),
            [
                "site site  http://x  not ready: the site stops",
                "",
                "cloud      not configured: uploads wait; add a [cloud] section (docs/configuration.md)",
                "devices    0 recorders and 0 uploaders connected",
                "uploads    none",
                "episodes   0",
                "tasks      0",
            ]
        );
    }

    #[test]
    fn a_long_list_is_cut_and_says_how_much_is_missing() {
        let mut told = told();
        let many: Vec<Value> = (0..40).map(|n| json!({"device_id": format!("r{n}")})).collect();
        told.uploaders = many;
        told.recorders = Vec::new();
        let lines = glance(&told, "http://x", Paint(false));
        assert!(lines.contains(&"  … and 28 more (--json has all)".to_owned()), "{lines:#?}");
    }

    #[test]
    fn a_bar_is_full_only_when_everything_is_there_and_never_overflows() {
        assert_eq!(bar(0, 0), "[--------------------]  0 %");
        assert_eq!(bar(1, 3), "[######--------------] 33 %");
        assert_eq!(bar(9, 3), "[####################] 99 %");
    }
}
