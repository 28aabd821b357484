//! Tokens over the real binary: who may use the API, who may have a link, and what goes when a token is taken back.

use http::Method;
use serde_json::{Value, json};
use tidegate_device::WsError;
use tidegate_runtime::real::RealNet;

use crate::rig::{Plan, Raw, STEP, Site, run};
use crate::stream::{Follower, Told};

/// The token that this start of a site showed last.
pub fn shown(site: &Site) -> String {
    let log = site.log();
    let line = log.lines().rev().find(|line| line.trim().starts_with("tgo_v1_"));
    line.expect("a token was shown").trim().to_owned()
}

/// The status and the body of an answer to a request with this token.
pub async fn ask(
    site: &Site,
    token: Option<&str>,
    method: Method,
    path: &str,
    body: Option<&Value>,
) -> (u16, Value) {
    let bearer = token.map(|token| format!("Bearer {token}"));
    let headers: Vec<(&str, &str)> = bearer.iter().map(|value| ("authorization", value.as_str())).collect();
    let answer = site.http().send(method, path, &headers, body).await.expect("an answer");
    (answer.status.as_u16(), answer.json())
}

async fn dial(site: &Site, path: &str, token: Option<&str>) -> Result<Raw, WsError> {
    let bearer = token.map(|token| format!("Bearer {token}"));
    let headers: Vec<(&str, &str)> = bearer.iter().map(|value| ("Authorization", value.as_str())).collect();
    Raw::dial(&RealNet, "127.0.0.1", site.api, path, &headers).await
}

fn declined<T>(link: Result<T, WsError>) -> (u16, String) {
    match link {
        Err(WsError::Declined { status, body, .. }) => (status, body),
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("it was let in"),
    }
}

#[test]
fn a_stream_ends_when_its_token_is_revoked_and_its_last_events_are_those_before() {
    run(async {
        let mut site = Plan::new().set("auth.api", "tokens").start().await;
        let admin = shown(&site);
        let wanted = json!({"scope": "viewer"});
        let (_, made) = ask(&site, Some(&admin), Method::POST, "/api/v1/tokens", Some(&wanted)).await;
        let (viewer, id) = (made["token"].as_str().expect("shown once"), &made["id"]);
        let mut theirs = Follower::open(&site, &format!("?access_token={viewer}"), None).await;
        let mut ours = Follower::open(&site, &format!("?access_token={admin}"), None).await;
        theirs.snapshot("new").await;
        ours.snapshot("new").await;
        let task = json!({"device_id": "robot-1"});
        ask(&site, Some(&admin), Method::POST, "/api/v1/tasks", Some(&task)).await;
        let is_task = |told: &Told| told.name == "task_state";
        theirs.upto("the task", is_task).await;
        ours.upto("the task", is_task).await;
        ask(&site, Some(&admin), Method::DELETE, &format!("/api/v1/tokens/{id}"), None).await;
        let (_, later) = ask(&site, Some(&admin), Method::POST, "/api/v1/tasks", Some(&task)).await;
        let rest = tokio::time::timeout(STEP, async {
            let mut rest = Vec::new();
            while let Some(told) = theirs.maybe_next().await {
                rest.push(told);
            }
            rest
        });
        let rest = rest.await.expect("the stream ends");
        assert!(!rest.iter().any(|told| told.data["task_id"] == later["task_id"]), "{rest:?}");
        ours.upto("the second task", |told| told.data["task_id"] == later["task_id"]).await;
        site.stop().await;
    });
}

#[test]
fn the_api_asks_for_a_token_that_is_shown_once_and_is_good_for_its_scope_alone() {
    run(async {
        let mut site = Plan::new().set("auth.api", "tokens").start().await;
        let admin = shown(&site);
        for token in [None, Some("tgo_v1_made-up")] {
            let (status, body) = ask(&site, token, Method::GET, "/api/v1/tasks", None).await;
            assert_eq!((status, body["code"].as_str()), (401, Some("unauthorized")), "{body}");
        }
        assert_eq!(site.get("/healthz").await.0, 200, "open");
        let wanted = json!({"scope": "viewer", "name": "wall"});
        let (status, made) = ask(&site, Some(&admin), Method::POST, "/api/v1/tokens", Some(&wanted)).await;
        assert_eq!(status, 201, "{made}");
        let viewer = made["token"].as_str().expect("shown once").to_owned();
        assert_eq!(ask(&site, Some(&viewer), Method::GET, "/api/v1/tasks", None).await.0, 200);
        let task = json!({"device_id": "robot-1"});
        let (status, body) = ask(&site, Some(&viewer), Method::POST, "/api/v1/tasks", Some(&task)).await;
        assert_eq!((status, body["code"].as_str()), (403, Some("forbidden")), "{body}");
        let (_, list) = ask(&site, Some(&admin), Method::GET, "/api/v1/tokens", None).await;
        assert_eq!(list["total"], 2, "{list}");
        assert!(!list.to_string().contains(&viewer), "a list shows no token");

        // It outlives the process, and is never shown again.
        site.stop().await;
        let before = site.log().len();
        site.start().await;
        assert!(!site.log()[before..].contains("tgo_v1_"), "shown again");
        assert_eq!(ask(&site, Some(&viewer), Method::GET, "/api/v1/tasks", None).await.0, 200);
        let path = format!("/api/v1/tokens/{}", made["id"]);
        assert_eq!(ask(&site, Some(&admin), Method::DELETE, &path, None).await.0, 200);
        assert_eq!(ask(&site, Some(&viewer), Method::GET, "/api/v1/tasks", None).await.0, 401);
        assert_eq!(ask(&site, Some(&admin), Method::DELETE, &path, None).await.0, 404);
        site.stop().await;
    });
}

#[test]
fn who_lost_the_first_token_gets_another_one() {
    run(async {
        let mut site = Plan::new().set("auth.api", "tokens").argument("--new-admin-token").start().await;
        let first = shown(&site);
        site.stop().await;
        site.start().await;
        let second = shown(&site);
        assert_ne!(first, second);
        for token in [&first, &second] {
            assert_eq!(ask(&site, Some(token), Method::GET, "/api/v1/tokens", None).await.0, 200);
        }
        site.stop().await;
    });
}

#[test]
fn a_link_takes_the_token_of_its_device_and_ends_with_4003_when_it_is_taken_back() {
    run(async {
        let site = Plan::new().set("auth.devices", "tokens").start().await;
        for token in [None, Some("kws_v1_made-up")] {
            let (status, body) = declined(dial(&site, "/recorder/robot-1", token).await);
            assert_eq!(status, 401, "{body}");
            assert!(body.contains("\"code\":\"unauthorized\""), "{body}");
        }
        let (status, _) = declined(dial(&site, "/transfer/robot-1", None).await);
        assert_eq!(status, 401, "its recorder did not prove itself yet");
        let (status, made) = site.post("/api/v1/devices/robot-1/token", &json!({})).await;
        assert_eq!(status, 201, "{made}");
        let token = made["token"].as_str().expect("shown once");
        assert!(token.starts_with("kws_v1_") && token.len() == 50, "the predecessor's form");
        let (status, _) = declined(dial(&site, "/recorder/robot-2", Some(token)).await);
        assert_eq!(status, 401, "another device");
        let log = site.log();
        let told =
            log.lines().find(|line| line.contains("a handshake is refused") && line.contains("robot-2"));
        let told = told.unwrap_or_else(|| panic!("who is refused is told:\n{log}"));
        assert!(told.contains("from=127.0.0.1") && told.contains("code=\"unauthorized\""), "{told}");
        let mut recorder = dial(&site, "/recorder/robot-1", Some(token)).await.expect("it fits");
        let mut uploader = dial(&site, "/transfer/robot-1", None).await.expect("it is near its recorder");

        let answer = site.send(Method::DELETE, "/api/v1/devices/robot-1/token").await;
        assert_eq!(answer.status.as_u16(), 200, "{}", answer.json());
        let why = Some((4003, "token revoked".to_owned()));
        assert_eq!(recorder.closed(STEP).await.expect("closed"), why);
        assert_eq!(uploader.closed(STEP).await.expect("closed"), why);
        let (status, _) = declined(dial(&site, "/recorder/robot-1", Some(token)).await);
        assert_eq!(status, 401);
        let (status, _) = declined(dial(&site, "/transfer/robot-1", None).await);
        assert_eq!(status, 401, "the address went with the token");
        assert!(!site.log().contains(token), "a token in the log");
    });
}
