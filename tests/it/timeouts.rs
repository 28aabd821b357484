//! Waits that were given up, over the real binary: each is one line of the log and one more in the metric of its kind.

use serde_json::json;

use crate::rig::{Plan, STEP, Site, run, until};
use crate::script::Recorder;

/// How often an operation was given up.
async fn counted(site: &Site, operation: &str) -> u64 {
    let metrics = site.send(http::Method::GET, "/metrics").await;
    let metrics = String::from_utf8_lossy(&metrics.body).into_owned();
    let named = format!("tidegate_timeouts_total{{operation=\"{operation}\"}} ");
    let value = metrics.lines().find_map(|line| line.strip_prefix(&named));
    value.unwrap_or_else(|| panic!("{operation} is not counted: {metrics}")).parse().expect("a number")
}

/// Lines of the log about waits for this target that were given up.
fn told(site: &Site, target: &str) -> Vec<String> {
    let log = site.log();
    let lines = log.lines().filter(|line| line.contains("timed out") && line.contains(target));
    lines.map(str::to_owned).collect()
}

#[test]
fn a_recorder_that_does_not_answer_is_logged_and_counted_with_what_it_was_asked() {
    run(async {
        let site = Plan::new().set("devices.rpc_timeout", "400ms").start().await;
        assert_eq!(counted(&site, "rpc").await, 0);
        // Its first question.
        let mut silent = Recorder::dial(&site, "robot-1").await;
        let asked = silent.next().await;
        assert_eq!(asked["action"], "get_state", "{asked}");
        until("the first question to be given up", STEP, async || {
            (counted(&site, "rpc").await >= 1).then_some(())
        })
        .await;
        let lines = told(&site, "recorder robot-1 get_state");
        assert!(!lines.is_empty(), "{}", site.log());
        let parts = ["WARN", "operation=\"rpc\"", "budget_ms=400", "elapsed_ms="];
        assert!(parts.iter().all(|part| lines[0].contains(part)), "{lines:?}");
        drop(silent);

        // A command that changes the device.
        let mut recorder = Recorder::dial(&site, "robot-2").await;
        let path = "/api/v1/recorder/robot-2/quit";
        let empty = json!({});
        let before = counted(&site, "rpc").await;
        let ((status, body), _) = tokio::join!(site.post(path, &empty), recorder.request("quit"));
        assert_eq!((status, &body["code"]), (504, &json!("rpc_timeout")), "{body}");
        assert!(counted(&site, "rpc").await > before);
        assert_eq!(told(&site, "recorder robot-2 quit").len(), 1, "{}", site.log());
    });
}
