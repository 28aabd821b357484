//! Secrets reach those they are for, and nothing else: no file, no log, no answer.

use std::path::{Path, PathBuf};

use serde_json::json;

use crate::cloud::Cloud;
use crate::rig::{EDGE_SECRET, Plan, run};
use crate::script::{Recorder, Take, Uploader};

const TOKEN: &str = "s3cr3t-token-value";
const DEVICE: &str = "robot-1";

fn files(dir: &Path, out: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files(&path, out);
        } else {
            out.push(path);
        }
    }
}

fn contains(haystack: &[u8], needle: &str) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle.as_bytes())
}

#[test]
fn a_user_token_reaches_its_device_and_nothing_else() {
    run(async {
        let cloud = Cloud::start().await;
        let mut site = Plan::with_cloud(&cloud).set("log.level", "debug").start().await;
        let task = "confidential";
        site.create_task(DEVICE, task).await;
        let mut recorder = Recorder::connect(&site, DEVICE).await;
        let mut uploader = Uploader::connect(&site, DEVICE).await;
        let config = json!({"task_config": {"task_id": task, "device_id": DEVICE, "user_token": TOKEN, "scene": "vault"}});
        let (status, body, request) = recorder.obey(&site, "config", &config, "ready").await;
        assert_eq!(status, 200, "{body}");
        assert_eq!(request["params"]["task_config"]["user_token"], TOKEN, "the device needs it");
        assert!(!body.to_string().contains(TOKEN), "{body}");
        let (status, body, _) = recorder.obey(&site, "begin", &json!({"task_id": task}), "recording").await;
        assert_eq!(status, 200, "{body}");
        let (status, body, _) = recorder.obey(&site, "finish", &json!({}), "idle").await;
        assert_eq!(status, 200, "{body}");

        // Recorders send the token back with their callbacks.
        let bearer = format!("Bearer {TOKEN}");
        let callback = json!({"task_id": task, "device_id": DEVICE, "output_path": "/x.mcap"});
        let headers = [("Authorization", bearer.as_str())];
        let sent =
            site.http().send(http::Method::POST, "/api/v1/callbacks/finish", &headers, Some(&callback)).await;
        assert_eq!(sent.expect("an answer").status.as_u16(), 200);
        uploader.text().await;

        let take = Take::new(DEVICE, task, 1, 20_000);
        take.upload(&site).await;
        uploader.say("upload_complete", &take.complete()).await;
        uploader.ack(task).await;
        let episode = site.episode(DEVICE, task).await;
        site.approve_and_sync(episode).await;
        site.synced(episode).await;

        // With the creation of a task it would be stored: refused, and nothing is made.
        let body = json!({"task_id": "second", "device_id": DEVICE, "config": {"user_token": TOKEN, "scene": "vault"}});
        let (status, body) = site.post("/api/v1/tasks", &body).await;
        assert_eq!((status, &body["code"]), (400, &json!("misplaced_secret")), "{body}");
        assert!(!body.to_string().contains(TOKEN), "{body}");
        assert_eq!(site.get("/api/v1/tasks/second").await.0, 404, "no task of it");

        for path in [
            "/api/v1/tasks".to_owned(),
            format!("/api/v1/tasks/{task}"),
            "/api/v1/tasks/second".to_owned(),
            "/api/v1/episodes".to_owned(),
            format!("/api/v1/episodes/{episode}"),
            format!("/api/v1/sync/episodes/{episode}/status"),
            "/api/v1/sync/config".to_owned(),
            "/api/v1/recorder/devices".to_owned(),
            format!("/api/v1/recorder/{DEVICE}/state"),
            "/api/v1/transfer/devices".to_owned(),
            "/metrics".to_owned(),
        ] {
            let answer = site.send(http::Method::GET, &path).await;
            for secret in [TOKEN, EDGE_SECRET, crate::cloud::SECRET] {
                assert!(!contains(&answer.body, secret), "GET {path} shows a secret");
            }
        }
        site.stop().await;
        let mut all = Vec::new();
        files(&site.data_dir(), &mut all);
        assert!(all.len() > 1, "{all:?}");
        for path in all {
            let bytes = std::fs::read(&path).expect("a file");
            for secret in [TOKEN, EDGE_SECRET, crate::cloud::SECRET] {
                assert!(!contains(&bytes, secret), "{} holds a secret", path.display());
            }
        }
        let log = site.log();
        assert!(!log.is_empty());
        for secret in [TOKEN, EDGE_SECRET, crate::cloud::SECRET] {
            assert!(!log.contains(secret), "the log shows a secret");
        }
    });
}
