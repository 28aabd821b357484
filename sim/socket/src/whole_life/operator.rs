//! The operator: takes a recording through its life over HTTP, remembers each answer that promises something, and asks
//! after every start of the site whether it still holds. Looks at stores through S3 alone.

use std::time::Duration;

use serde_json::{Value, json};
use tidegate_device::{DeviceEvent, Http, S3 as S3Client, S3Config};

use super::{API, BUCKET, CLOUD, DEVICE, EDGE_BUCKET, KEY, Notes, S3, SECRET, SITE, TASK, Until};
use crate::socket_world::{SimDisk, SimNet, SimSeams};

/// How often the operator looks again.
const LOOK: Duration = Duration::from_millis(100);
/// How long one step may take, two starts of the site included.
const STEP: Duration = Duration::from_secs(180);

/// What the site said, and may never take back.
#[derive(Debug, Default)]
struct Promises {
    task_taken: bool,
    /// The furthest state that the task's latest attempt was shown in.
    task_rank: usize,
    /// That attempt. A `begin` of which a dying site does not know whether it left is never sent twice: then there is
    /// another attempt.
    attempt: u64,
    /// The name of that attempt.
    wire: String,
    approved: Option<u64>,
    queued: Option<u64>,
    completed: Option<u64>,
}

struct Operator {
    http: Http<SimNet>,
    edge: S3Client<SimSeams>,
    cloud: S3Client<SimSeams>,
    notes: Notes,
    promises: Promises,
    /// The start of the site up to which its promises were asked after.
    audited: u64,
}

enum Step<T> {
    Done(T),
    Again,
}

type Done = Result<(), Box<dyn std::error::Error>>;

/// Plays the operator.
pub(super) async fn run(seed: u64, notes: Notes, until: Until) -> Done {
    let store = |host: &str, bucket: &str| {
        let seams = SimSeams::new(SimDisk::new(), seed ^ 0x0BE5);
        let config = S3Config {
            host: host.to_owned(),
            port: S3,
            access_key: KEY.to_owned(),
            secret_key: SECRET.to_owned(),
            bucket: bucket.to_owned(),
            region: "us-east-1".to_owned(),
            factory_id: String::new(),
            request_timeout: Duration::from_secs(10),
        };
        S3Client::new(seams, config)
    };
    let mut operator = Operator {
        http: Http::new(SimNet, SITE, API).with_timeout(Duration::from_secs(20)),
        edge: store(SITE, EDGE_BUCKET),
        cloud: store(CLOUD, BUCKET),
        notes,
        promises: Promises { attempt: 1, wire: TASK.to_owned(), ..Promises::default() },
        audited: 1,
    };
    operator.create().await?;
    if until == Until::Delivered {
        operator.record().await?;
        let episode = operator.hand_over().await?;
        operator.deliver(episode).await?;
    }
    operator.audit().await?;
    Ok(())
}

impl Operator {
    async fn create(&mut self) -> Result<(), String> {
        let body = json!({"task_id": TASK, "device_id": DEVICE});
        self.until("the task to be taken", async |it| match it.http.post("/api/v1/tasks", &body).await {
            // 409: taken although the answer was lost.
            Ok((201 | 409, _, _)) => {
                it.promises.task_taken = true;
                Ok(Step::Done(()))
            }
            Ok((status, _, body)) if status < 500 => Err(format!("{status} {body}")),
            Ok(_) | Err(_) => Ok(Step::Again),
        })
        .await
    }

    async fn record(&mut self) -> Result<(), String> {
        let config = json!({"task_config": {
            "task_id": TASK, "device_id": DEVICE, "scene": "kitchen", "topics": ["/sensor", "/camera"],
        }});
        loop {
            let done = self.command("config", &config, "ready").await?
                && self.command("begin", &json!({"task_id": TASK}), "in_progress").await?;
            if !done {
                continue;
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
            if self.command("finish", &json!({}), "uploading").await? {
                return Ok(());
            }
        }
    }

    /// Sends a command until it was done, or the task shows that it was. False if the task was put back meanwhile, and has
    /// to be recorded as another attempt.
    async fn command(&mut self, action: &str, body: &Value, past: &str) -> Result<bool, String> {
        let path = format!("/api/v1/recorder/{DEVICE}/{action}");
        let attempt = self.promises.attempt;
        self.until(action, async |it| {
            let answer = it.http.post(&path, body).await;
            if matches!(&answer, Ok((200, _, answer)) if answer["success"] == true) {
                return Ok(Step::Done(true));
            }
            match it.task().await? {
                _ if it.promises.attempt > attempt => Ok(Step::Done(false)),
                Some(rank) if rank >= rank_of(past) => Ok(Step::Done(true)),
                Some(0) if action == "config" && attempt > 1 && matches!(answer, Ok((409, _, _))) => {
                    // The device still holds what was put back.
                    let clear = format!("/api/v1/recorder/{DEVICE}/clear");
                    let _tried_again_if_it_fails = it.http.post(&clear, &json!({})).await;
                    Ok(Step::Again)
                }
                Some(_) | None => Ok(Step::Again),
            }
        })
        .await
    }

    /// The rank of the task's state, if the site answers. It never falls, but with another attempt after a death.
    async fn task(&mut self) -> Result<Option<usize>, String> {
        let Some(row) = self.read(&format!("/api/v1/tasks/{TASK}")).await? else { return Ok(None) };
        let state = row["status"].as_str().unwrap_or_default();
        if matches!(state, "failed" | "cancelled") {
            return Err(format!("the task is {state}: {row}"));
        }
        let rank = rank_of(state);
        let attempt = row["attempt"].as_u64().ok_or_else(|| format!("no attempt: {row}"))?;
        let promises = &mut self.promises;
        if attempt != promises.attempt {
            let put_back = attempt == promises.attempt + 1 && promises.task_rank < rank_of("uploading");
            if !put_back || self.notes.get().boots < 2 {
                return Err(format!("attempt {} is followed by {row}", promises.attempt));
            }
            (promises.attempt, promises.task_rank) = (attempt, 0);
            promises.wire = row["wire_id"].as_str().unwrap_or_default().to_owned();
        }
        if rank < promises.task_rank {
            return Err(format!("the task was {} and is {state} now: {row}", STATES[promises.task_rank]));
        }
        promises.task_rank = rank;
        Ok(Some(rank))
    }

    /// Waits until the recording is the site's and the device has deleted its own copy.
    async fn hand_over(&mut self) -> Result<u64, String> {
        self.until("the task to be completed", async |it| {
            Ok(if it.task().await? == Some(rank_of("completed")) { Step::Done(()) } else { Step::Again })
        })
        .await?;
        self.until("the device to delete its copy", async |it| {
            Ok(if it.is_deleted() { Step::Done(()) } else { Step::Again })
        })
        .await?;
        let path = format!("/api/v1/episodes?device_id={DEVICE}&limit=10");
        self.until("the episode", async |it| {
            let Some(list) = it.read(&path).await? else { return Ok(Step::Again) };
            let items = list["items"].as_array().cloned().unwrap_or_default();
            match items.as_slice() {
                [one] => one["id"].as_u64().map(Step::Done).ok_or_else(|| format!("no id: {one}")),
                _ => Err(format!("not exactly one episode of a completed task: {list}")),
            }
        })
        .await
    }

    async fn deliver(&mut self, episode: u64) -> Result<(), String> {
        let approve = format!("/api/v1/episodes/{episode}/approve");
        self.until("approval", async |it| match it.http.post(&approve, &json!({})).await {
            Ok((200, _, _)) => {
                it.promises.approved = Some(episode);
                Ok(Step::Done(()))
            }
            Ok((status, _, body)) if status < 500 => Err(format!("{status} {body}")),
            Ok(_) | Err(_) => Ok(Step::Again),
        })
        .await?;
        let trigger = format!("/api/v1/sync/episodes/{episode}");
        self.until("the trigger", async |it| match it.http.post(&trigger, &json!({})).await {
            // 409: it is queued although the answer was lost.
            Ok((202 | 409, _, _)) => {
                it.promises.queued = Some(episode);
                Ok(Step::Done(()))
            }
            Ok((status, _, body)) if status < 500 => Err(format!("{status} {body}")),
            Ok(_) | Err(_) => Ok(Step::Again),
        })
        .await?;
        let path = format!("/api/v1/sync/episodes/{episode}/status");
        let patient = self.notes.get().patient;
        let status = self
            .until("the recording to be in the cloud", async |it| {
                let Some(status) = it.read(&path).await? else { return Ok(Step::Again) };
                match status["status"].as_str() {
                    Some("completed") => Ok(Step::Done(status)),
                    // What waits for another try at no cost is said to have failed as well.
                    Some("failed") if patient && status["next_retry_at"].is_string() => Ok(Step::Again),
                    Some("failed") => Err(format!("the upload failed: {status}")),
                    _ => Ok(Step::Again),
                }
            })
            .await?;
        self.promises.completed = Some(episode);
        self.in_the_cloud(&status).await?;
        self.until("the edge copy to be gone", async |it| match it.edge.list("").await {
            // Content that was being read when its object went is removed with the next operation: this is one.
            Ok(left) if left.is_empty() && it.edge.delete("nothing").await.is_ok() => Ok(Step::Done(())),
            Ok(_) | Err(_) => Ok(Step::Again),
        })
        .await
    }

    /// Exactly one right object with its sidecar, no unfinished upload, one attempt.
    async fn in_the_cloud(&self, status: &Value) -> Result<(), String> {
        if status["attempt_count"] != 1 {
            return Err(format!("a crash cost an attempt: {status}"));
        }
        let key = status["destination_path"].as_str().unwrap_or_default();
        let sidecar = key.replace(".mcap", ".json");
        let objects = self.cloud.list("").await.map_err(|error| error.to_string())?;
        let keys: Vec<&str> = objects.iter().map(|object| object.key.as_str()).collect();
        if keys != [sidecar.as_str(), key] {
            return Err(format!("in the cloud are {keys:?}, not {key} and its sidecar"));
        }
        let (recording, json, cloud) = {
            let notes = self.notes.get();
            (notes.recording.clone(), notes.sidecar.clone(), notes.cloud.clone())
        };
        for (key, recorded) in [(key, recording), (sidecar.as_str(), json)] {
            let found = self.cloud.get_bytes(key).await.map_err(|error| error.to_string())?;
            if found.as_deref() != recorded.as_deref() || found.is_none() {
                return Err(format!("{key} in the cloud is not what was recorded"));
            }
        }
        let open = cloud.map(|cloud| cloud.list_uploads(BUCKET)).unwrap_or_default();
        if open.is_empty() { Ok(()) } else { Err(format!("an unfinished upload in the cloud: {open:?}")) }
    }

    fn is_deleted(&self) -> bool {
        let name = format!("{}.mcap", self.promises.wire);
        let deleted =
            |event: &DeviceEvent| matches!(event, DeviceEvent::FileDeleted { path } if path.ends_with(&name));
        self.notes.events().iter().any(deleted)
    }

    /// Asks after everything that was promised.
    async fn audit(&mut self) -> Result<(), String> {
        // What is read from a start before is asked again of the next one: each of them audits for itself.
        self.audited = self.notes.get().boots;
        if self.promises.task_taken {
            match self.answered(&format!("/api/v1/tasks/{TASK}")).await {
                Some((200, _)) => {
                    self.task().await?;
                }
                Some((status, body)) => {
                    return Err(format!("a task that was taken is lost: {status} {body}"));
                }
                None => {}
            }
        }
        if self.is_deleted() {
            self.has_what_was_deleted().await?;
        }
        if let Some(episode) = self.promises.approved {
            let row = self.read(&format!("/api/v1/episodes/{episode}")).await?;
            if row.as_ref().is_some_and(|row| row["qa_status"] != "approved") {
                return Err(format!("an approval is lost: {row:?}"));
            }
        }
        let status = match self.promises.queued {
            Some(episode) => self.read(&format!("/api/v1/sync/episodes/{episode}/status")).await?,
            None => None,
        };
        if let Some(status) = status {
            let word = status["status"].as_str().unwrap_or_default();
            if word == "not_started" || (self.promises.completed.is_some() && word != "completed") {
                return Err(format!("a trigger or an outcome is lost: {status}"));
            }
        }
        Ok(())
    }

    /// The device has deleted its copy: the site or the cloud must have it, byte for byte.
    async fn has_what_was_deleted(&self) -> Result<(), String> {
        let recorded =
            self.notes.get().recording.clone().ok_or("a recording was deleted before it was made")?;
        let mut asked = 0;
        for store in [&self.edge, &self.cloud] {
            let Ok(objects) = store.list("").await else { continue };
            asked += 1;
            for object in objects.iter().filter(|object| object.key.ends_with(".mcap")) {
                match store.get_bytes(&object.key).await {
                    Ok(Some(bytes)) if bytes == recorded => return Ok(()),
                    // It left the edge meanwhile, so it is in the cloud.
                    Ok(None) => {}
                    Ok(Some(_)) => return Err(format!("{} is not what was recorded", object.key)),
                    // The site died again; its next start is audited as well.
                    Err(_) => return Ok(()),
                }
            }
        }
        // A site that is away answers nothing: then its next start is asked.
        if asked == 2 { Err("a recording is lost: its device has deleted it".to_owned()) } else { Ok(()) }
    }

    async fn answered(&self, path: &str) -> Option<(u16, Value)> {
        let answer = self.http.get(path).await.ok();
        answer.filter(|(status, _, _)| *status < 500).map(|(status, _, body)| (status, body))
    }

    /// A record that must be there, if the site answers.
    async fn read(&self, path: &str) -> Result<Option<Value>, String> {
        match self.answered(path).await {
            Some((200, body)) => Ok(Some(body)),
            Some((status, body)) => Err(format!("GET {path}: {status} {body}")),
            None => Ok(None),
        }
    }

    /// Tries until it is done; audits each start of the site in between.
    async fn until<T>(
        &mut self,
        what: &str,
        mut try_it: impl AsyncFnMut(&mut Operator) -> Result<Step<T>, String>,
    ) -> Result<T, String> {
        let end = tokio::time::Instant::now() + STEP;
        while tokio::time::Instant::now() < end {
            if self.notes.get().boots > self.audited && self.answered("/readyz").await.is_some() {
                self.audit().await?;
            }
            match try_it(self).await.map_err(|why| format!("waiting for {what}: {why}"))? {
                Step::Done(value) => return Ok(value),
                Step::Again => tokio::time::sleep(LOOK).await,
            }
        }
        let tail = self.notes.events();
        let tail = &tail[tail.len().saturating_sub(12)..];
        let task = self.answered(&format!("/api/v1/tasks/{TASK}")).await;
        Err(format!("no end of waiting for {what}; task {task:?}; the device's last events: {tail:#?}"))
    }
}

const STATES: [&str; 5] = ["pending", "ready", "in_progress", "uploading", "completed"];

pub(super) fn rank_of(state: &str) -> usize {
    STATES.iter().position(|name| *name == state).unwrap_or(0)
}
