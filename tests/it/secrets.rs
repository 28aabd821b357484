//! Secrets reach those they are for, and nothing else: no file, no log, no answer.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tidegate_device::WsError;
use tidegate_runtime::real::RealNet;

use crate::cli::{output, text};
use crate::cloud::Cloud;
use crate::rig::{EDGE_SECRET, Plan, Raw, Site, run};
use crate::script::{Recorder, Take, Uploader};
use crate::tokens::{self, ask};

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
fn a_token_of_a_device_is_kept_nowhere_whichever_way_it_comes() {
    run(async {
        let mut site = Plan::new().set("log.level", "trace").start().await;
        let token = |name: &str| format!("kws_v1_{name:x>43}");
        let (path, header, query) = (token("path"), token("header"), token("query"));
        let bearer = format!("Bearer {header}");
        let headers = [("Authorization", bearer.as_str())];

        let mut uploader = site.dial(&format!("/transfer/{path}/{DEVICE}")).await.expect("a link");
        let recorder = format!("/recorder/{DEVICE}?access_token={query}");
        let _recorder =
            Raw::dial(&RealNet, "127.0.0.1", site.api, &recorder, &headers).await.expect("a link");
        let devices = site.read("/api/v1/transfer/devices").await;
        assert_eq!(devices["devices"][0]["device_id"], DEVICE, "{devices}");
        // It is a link like any other.
        let status = json!({"type": "status", "data": {"uploads": []}});
        uploader.send_json(&status).await.expect("an open link");

        // Where none belongs.
        for wrong in
            [format!("/transfer/{path}"), format!("/recorder/{path}"), format!("/recorder/{path}/{DEVICE}")]
        {
            let refused = site.dial(&wrong).await.expect_err("no link");
            assert!(matches!(refused, WsError::Declined { status: 400, .. }), "{refused:?}");
        }
        for wrong in
            [format!("/{path}"), format!("/api/v1/{header}/x"), format!("/healthz?access_token={query}")]
        {
            let answer =
                site.http().send(http::Method::GET, &wrong, &headers, None).await.expect("an answer");
            assert!(matches!(answer.status.as_u16(), 200 | 404), "{}", answer.status);
        }
        let callback = json!({"task_id": "none", "device_id": DEVICE});
        let sent =
            site.http().send(http::Method::POST, "/api/v1/callbacks/start", &headers, Some(&callback)).await;
        assert!(sent.is_ok());

        let mut told = Vec::new();
        for path in ["/metrics", "/api/v1/transfer/devices", "/api/v1/recorder/devices"] {
            told.extend_from_slice(&site.send(http::Method::GET, path).await.body);
        }
        site.stop().await;
        let mut all = Vec::new();
        files(&site.data_dir(), &mut all);
        assert!(all.len() > 1, "{all:?}");
        for path in all {
            told.extend(std::fs::read(&path).expect("a file"));
        }
        let log = site.log();
        assert!(log.contains("/transfer/") && log.contains("***"), "requests are logged at this level");
        told.extend_from_slice(log.as_bytes());
        for secret in [&path, &header, &query] {
            assert!(!contains(&told, secret), "a token is shown");
        }
    });
}

#[test]
fn a_token_that_the_site_made_is_shown_once_and_kept_nowhere() {
    run(async {
        let plan = Plan::new()
            .set("auth.api", "tokens")
            .set("auth.devices", "tokens")
            .set("auth.registration", "open")
            .set("log.level", "trace");
        let mut site = plan.start().await;
        let admin = tokens::shown(&site);
        let asked = async |method, path: &str, body: Option<Value>| {
            let (status, answer) = ask(&site, Some(&admin), method, path, body.as_ref()).await;
            assert!(status < 300, "{path}: {answer}");
            answer
        };
        let made = async |path: &str, body: Value| asked(http::Method::POST, path, Some(body)).await;
        let word = |answer: &Value, field: &str| answer[field].as_str().expect("a token").to_owned();
        let viewer = word(&made("/api/v1/tokens", json!({"scope": "viewer", "name": "wall"})).await, "token");
        let device = format!("/api/v1/devices/{DEVICE}/token");
        let recorder = word(&made(&device, json!({})).await, "token");
        let uploader = word(&made(&device, json!({"scope": "transfer"})).await, "token");
        let registered = made("/api/v1/devices/register", json!({"factory": "f", "robot_type": "t"})).await;
        let own = word(&registered, "ws_client_auth_token");
        let path = |answer: &Value| {
            let url = word(answer, "transfer_ws_url");
            url.rsplit('/').next().expect("a last segment").to_owned()
        };
        let rotate = format!("/api/v1/robots/{}/ws-client-auth-token/rotate", word(&registered, "robot_id"));
        let rotated = made(&rotate, json!({})).await;
        let secrets = [
            viewer.clone(),
            recorder.clone(),
            uploader.clone(),
            own,
            path(&registered),
            word(&rotated, "ws_client_auth_token"),
            word(&rotated, "transfer_token"),
            path(&rotated),
        ];
        assert!(secrets.iter().all(|secret| secret.len() == 50), "{secrets:?}");

        // Each is used in every way that it may come.
        assert_eq!(ask(&site, Some(&viewer), http::Method::GET, "/api/v1/tasks", None).await.0, 200);
        let stream = format!("/api/v1/device-state/stream?access_token={viewer}");
        let request = http::Request::builder()
            .uri(&stream)
            .header(http::header::HOST, format!("127.0.0.1:{}", site.api))
            .body(tidegate_device::full(Vec::new()))
            .expect("a request");
        let mut stream = site.http().exchange(request).await.expect("a stream");
        assert_eq!(stream.status(), 200);
        let bearer = format!("Bearer {recorder}");
        let headers = [("Authorization", bearer.as_str())];
        let at = format!("/recorder/{DEVICE}");
        let _recorder = Raw::dial(&RealNet, "127.0.0.1", site.api, &at, &headers).await.expect("a link");
        let at = format!("/transfer/{uploader}/{DEVICE}");
        let mut link = site.dial(&at).await.expect("a link");
        link.send_json(&json!({"type": "status", "data": {"uploads": []}})).await.expect("an open link");

        let mut told = Vec::new();
        while !contains(&told, "transfer_status") {
            told.extend_from_slice(&stream.chunk().await.expect("the stream").expect("it goes on"));
        }
        let bearer = format!("Bearer {admin}");
        let headers = [("Authorization", bearer.as_str())];
        for path in ["/metrics", "/api/v1/tokens", "/api/v1/devices", "/api/v1/recorder/devices"] {
            let answer = site.http().send(http::Method::GET, path, &headers, None).await;
            told.extend_from_slice(&answer.expect("an answer").body);
        }
        assert_eq!(ask(&site, Some(&admin), http::Method::DELETE, &device, None).await.0, 200);
        site.stop().await;
        let mut replay = Site::program();
        replay.args(["replay", "--verify", "--data-dir"]).arg(site.data_dir());
        let replayed = output(replay).await;
        assert_eq!(replayed.status.code(), Some(0), "{}", text(&replayed));
        told.extend_from_slice(text(&replayed).as_bytes());
        let mut all = Vec::new();
        files(&site.data_dir(), &mut all);
        for path in all {
            told.extend(std::fs::read(&path).expect("a file"));
        }
        let log = site.log();
        assert!(log.contains(&format!("/transfer/{DEVICE}")), "requests are logged at this level");
        assert_eq!(log.matches(&admin).count(), 1, "the first one is printed once");
        assert!(!contains(&told, &admin), "the first token is shown");
        told.extend_from_slice(log.as_bytes());
        for secret in &secrets {
            assert!(!contains(&told, secret), "a token is shown");
        }
    });
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
