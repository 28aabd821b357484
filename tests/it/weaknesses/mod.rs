//! A test for each weakness of the predecessor's device plane, by its number there. What it did is told in a comment at
//! each test, with what a site does instead. Weaknesses that only the core or the link can show are tested there.

mod edges;
mod recorder;
mod uploads;

use serde_json::json;

use crate::rig::Site;
use crate::script::{Recorder, Uploader, synced};

/// The device of these tests.
const DEVICE: &str = "robot-1";

/// A recorder that is recording a task, and its uploader.
async fn recording(site: &Site, task: &str) -> (Recorder, Uploader) {
    site.create_task(DEVICE, task).await;
    let mut recorder = Recorder::dial(site, DEVICE).await;
    recorder.state = "recording".to_owned();
    recorder.task = Some(task.to_owned());
    let request = recorder.request("get_state").await;
    recorder.answer_state(&request).await;
    synced(site, DEVICE).await;
    site.task_reaches(task, "in_progress").await;
    let uploader = Uploader::connect(site, DEVICE).await;
    (recorder, uploader)
}

/// The body of a `config`.
fn config(task: &str) -> serde_json::Value {
    json!({"task_config": {"task_id": task, "device_id": DEVICE}})
}
