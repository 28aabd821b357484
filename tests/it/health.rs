//! Health, readiness and figures.

use serde_json::json;

use crate::cloud::Cloud;
use crate::rig::{Plan, run};
use crate::script::{Take, Uploader};

/// Checks the text format of Prometheus or OpenMetrics line by line; names of samples with their values.
fn samples(text: &str) -> Vec<(String, f64)> {
    let mut samples = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        if let Some(comment) = line.strip_prefix("# ") {
            let word = comment.split(' ').next().unwrap_or("");
            assert!(["HELP", "TYPE", "UNIT", "EOF"].contains(&word), "{line}");
            continue;
        }
        let (name, rest) = match line.split_once('{') {
            Some((name, rest)) => {
                let (labels, rest) = rest.rsplit_once('}').unwrap_or_else(|| panic!("labels end: {line}"));
                assert_eq!(labels.matches('"').count() % 2, 0, "{line}");
                (name, rest)
            }
            None => line.split_once(' ').unwrap_or_else(|| panic!("a value: {line}")),
        };
        let legal = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
        assert!(!name.is_empty() && name.chars().all(legal), "{line}");
        let value = rest.split_whitespace().next().unwrap_or_else(|| panic!("a value: {line}"));
        let value: f64 = value.parse().unwrap_or_else(|error| panic!("{error}: {line}"));
        samples.push((name.to_owned(), value));
    }
    samples
}

#[test]
fn health_readiness_and_metrics_answer_and_can_be_parsed() {
    run(async {
        let cloud = Cloud::start().await;
        let site = Plan::with_cloud(&cloud).start().await;
        for path in ["/healthz", "/readyz"] {
            assert_eq!(site.send(http::Method::GET, path).await.status.as_u16(), 200, "{path}");
        }
        let mut uploader = Uploader::connect(&site, "robot-1").await;
        let take = Take::new("robot-1", "measured", 1, 6 << 20);
        let episode = uploader.deliver(&site, &take).await;
        site.approve_and_sync(episode).await;
        site.synced(episode).await;
        let answer = site.send(http::Method::GET, "/metrics").await;
        assert_eq!(answer.status.as_u16(), 200);
        let kind = answer.headers.get("content-type").and_then(|kind| kind.to_str().ok()).unwrap_or("");
        assert!(kind.contains("text/plain") || kind.contains("openmetrics-text"), "{kind}");
        let text = String::from_utf8(answer.body.to_vec()).expect("UTF-8");
        let samples = samples(&text);
        assert!(samples.iter().all(|(name, _)| name.starts_with("tidegate_")), "one prefix: {samples:?}");
        assert!(samples.iter().any(|(_, value)| *value > 0.0), "something happened: {text}");
        assert!(!text.contains("robot-1"), "no label is named by a stranger");
    });
}

#[test]
fn a_site_whose_cloud_is_away_is_ready_all_the_same() {
    run(async {
        let port = crate::rig::free_port();
        let site = Plan::new()
            .set("cloud.endpoint", format!("http://127.0.0.1:{port}"))
            .set("cloud.bucket", "nowhere")
            .set("cloud.access_key", "a")
            .set("cloud.secret_key", "b")
            .set("sync.retry_base", "100ms")
            .set("sync.retry_cap", "200ms")
            .set("sync.retry_jitter", "0s")
            .set("sync.attempts", 2)
            .start()
            .await;
        let mut uploader = Uploader::connect(&site, "robot-1").await;
        let take = Take::new("robot-1", "stays", 1, 20_000).mcap_only();
        let episode = uploader.deliver(&site, &take).await;
        site.approve_and_sync(episode).await;
        // Many tries of the way cost the episode nothing: it never ends as failed for good.
        let log = crate::rig::until("several tries", crate::rig::STEP, async || {
            let status = site.sync_status(episode).await;
            let waits = matches!(status["status"].as_str(), Some("pending" | "in_progress" | "failed"));
            assert!(waits, "{status}");
            if status["status"] == "failed" {
                assert!(status["next_retry_at"].is_string(), "a way that is down ends no job: {status}");
            }
            status["error_message"].is_string().then_some(status)
        })
        .await;
        assert!(!log.to_string().contains("secret"), "{log}");
        assert_eq!(site.send(http::Method::GET, "/readyz").await.status.as_u16(), 200);
        let (status, body) = site.post(&format!("/api/v1/sync/episodes/{episode}"), &json!({})).await;
        assert!(matches!(status, 202 | 409), "{status} {body}");
        assert!(site.edge().head(&take.key).await.expect("an answer").is_some(), "the edge copy stays");
    });
}
