//! The route of the stream: its snapshot, its heartbeat and its end. The window itself is tested in feed/tests.rs.

use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use futures_util::StreamExt;
use http::Request;
use serde_json::{Value, json};
use tidegate_core::effect::{ConflictKind, ConflictView, ContestView, LinkView, Notice, QueueCounts};
use tidegate_core::id::{DeviceId, EpisodeId, JobId, Role, TaskId, WireId};
use tidegate_core::row::{DeviceRow, Key, Row, TaskRow, TaskState};
use tidegate_core::time::Wall;
use tokio::time::Instant;
use tower::ServiceExt;

use super::{NOW, Site, Stage, site};

fn device(n: usize) -> DeviceId {
    DeviceId::new(&format!("d{n:04}")).expect("legal")
}

fn link(n: usize) -> Notice {
    let view = LinkView { generation: 1, remote: "10.0.0.7".to_owned(), connected_at: NOW };
    Notice::Link { device: device(n), role: Role::Recorder, link: Some(view), why: None, version: 1 }
}

fn task(n: usize, whose: usize, state: TaskState) -> (Key, Row) {
    let id = TaskId::new(&format!("t{n:04}")).expect("legal");
    let row = TaskRow {
        wire: WireId::of_attempt(&id, 1),
        id: id.clone(),
        device: device(whose),
        attempt: 1,
        state,
        config: None,
        created_at: Wall(0),
        ready_at: None,
        started_at: None,
        completed_at: None,
        error: None,
        begun: false,
        token_sha256: None,
        recording: None,
        updated_at: Wall(0),
        earlier: None,
        uploading_at: None,
        episode: None,
    };
    (Key::Task(id), Row::Task(row))
}

async fn open(site: &Site, query: &str) -> BodyDataStream {
    let request = Request::get(format!("/api/v1/device-state/stream{query}"));
    let request = request.body(Body::empty()).expect("a legal request");
    let response = site.routes.clone().oneshot(request).await.expect("routes do not fail");
    assert_eq!(response.status(), 200);
    response.into_body().into_data_stream()
}

async fn chunk(body: &mut BodyDataStream) -> Option<String> {
    let chunk = body.next().await?.expect("streams do not fail");
    Some(String::from_utf8(chunk.to_vec()).expect("UTF-8"))
}

/// Everything up to the end of the snapshot.
async fn snapshot(body: &mut BodyDataStream) -> String {
    let mut all = String::new();
    while !all.contains("event: snapshot_end\n") {
        all.push_str(&chunk(body).await.expect("the stream goes on"));
    }
    all
}

fn count(text: &str, name: &str) -> usize {
    text.matches(&format!("event: {name}\n")).count()
}

#[tokio::test]
async fn a_snapshot_holds_every_device_and_every_task_that_is_not_over() {
    let mut rows: Vec<_> = (0..600).map(|n| task(n, n % 3, TaskState::Pending)).collect();
    rows.extend((600..650).map(|n| task(n, 1, TaskState::Completed)));
    let site = site(rows, None);
    for n in 0..700 {
        site.feed.publish(NOW, &link(n));
    }
    let all = snapshot(&mut open(&site, "").await).await;
    assert_eq!((count(&all, "device_snapshot"), count(&all, "task_snapshot")), (700, 600));
    assert!(all.contains("event: snapshot_begin\ndata: {\"reason\":\"new\",\"seq\":700,"), "{}", &all[..300]);
    let end = "id: 7-700\nevent: snapshot_end\ndata: {\"devices\":700,\"seq\":700,\"tasks\":600,";
    assert!(all.contains(end), "{}", &all[all.len() - 300..]);
    let mine = snapshot(&mut open(&site, "?device_ids=d0001,d0600,nobody").await).await;
    assert_eq!((count(&mine, "device_snapshot"), count(&mine, "task_snapshot")), (2, 200));
}

#[tokio::test(start_paused = true)]
async fn a_quiet_stream_has_a_word_every_fifteen_seconds_also_if_a_filter_leaves_everything_out() {
    let site = site(Vec::new(), None);
    let mut all = open(&site, "").await;
    let mut none = open(&site, "?device_id=nobody").await;
    snapshot(&mut all).await;
    snapshot(&mut none).await;
    for _ in 0..3 {
        let begun = Instant::now();
        assert_eq!(chunk(&mut all).await.as_deref(), Some(": keepalive\n\n"));
        assert_eq!(begun.elapsed().as_secs(), 15);
    }
    let feed = site.feed.clone();
    let busy = tokio::spawn(async move {
        for n in 0.. {
            feed.publish(NOW, &link(n % 10));
            feed.flush();
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    });
    let begun = Instant::now();
    assert_eq!(chunk(&mut none).await.as_deref(), Some(": keepalive\n\n"));
    assert_eq!(begun.elapsed().as_secs(), 15);
    busy.abort();
}

#[tokio::test(start_paused = true)]
async fn many_changes_leave_in_few_chunks_and_one_after_a_rest_leaves_at_once() {
    let site = site(Vec::new(), None);
    let mut body = open(&site, "").await;
    snapshot(&mut body).await;
    let feed = site.feed.clone();
    tokio::spawn(async move {
        for n in 0..1000 {
            tokio::time::sleep(Duration::from_millis(1)).await;
            feed.publish(NOW, &link(n % 10));
            feed.flush();
        }
    });
    let (mut chunks, mut events) = (0, 0);
    while events < 1000 {
        events += count(&chunk(&mut body).await.expect("the stream goes on"), "device_connection");
        chunks += 1;
    }
    assert!(chunks <= 150, "{events} events came in {chunks} chunks");
    tokio::time::sleep(Duration::from_secs(1)).await;
    site.feed.publish(NOW, &link(1));
    let begun = Instant::now();
    assert_eq!(count(&chunk(&mut body).await.expect("an event"), "device_connection"), 1);
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

#[tokio::test]
async fn when_the_site_stops_streams_end_after_what_was_published_and_none_begins() {
    let site = site(Vec::new(), None);
    let mut body = open(&site, "").await;
    snapshot(&mut body).await;
    site.feed.publish(NOW, &link(1));
    site.stage.send_replace(Stage::Stopping);
    assert_eq!(count(&chunk(&mut body).await.expect("the last event"), "device_connection"), 1);
    assert_eq!(chunk(&mut body).await, None);
    let (status, answer) = site.get("/api/v1/device-state/stream").await;
    assert_eq!((status, answer["code"].as_str()), (503, Some("stopping")), "{answer}");
}

#[tokio::test]
async fn a_snapshot_holds_fights_conflicts_and_registered_devices_that_nobody_heard_of() {
    let registered = |n: usize, disabled_at: Option<Wall>| {
        let row = DeviceRow {
            id: device(n),
            number: n as u64,
            factory: None,
            robot_type: None,
            seq: None,
            registered_at: Wall(0),
            disabled_at,
        };
        (Key::Device(device(n)), Row::Device(Box::new(row)))
    };
    let mut rows: Vec<_> = (1..=600).map(|n| registered(n, None)).collect();
    rows.push(registered(700, Some(NOW)));
    let site = site(rows, None);
    for n in [0, 3] {
        site.feed.publish(NOW, &link(n));
    }
    let contest = ContestView {
        owners: ["10.0.0.7:1".to_owned(), "10.0.0.9:2".to_owned()],
        takeovers: 4,
        since: Wall(0),
        closed_until: Some(Wall(NOW.0 + 1)),
    };
    let role = Role::Transfer;
    site.feed.publish(NOW, &Notice::Contest { device: device(3), role, contest: Some(contest) });
    let conflict = ConflictView {
        kind: ConflictKind::UnknownTask,
        device_state: "recording".to_owned(),
        device_task: "t9".to_owned(),
        task: None,
        wire: None,
        status: None,
        since: Wall(0),
    };
    site.feed.publish(NOW, &Notice::Conflict { device: device(3), conflict: Some(conflict) });

    let all = snapshot(&mut open(&site, "").await).await;
    assert_eq!(count(&all, "device_snapshot"), 602);
    let of = |all: &str, name: &str| -> Value {
        let data = all.lines().filter_map(|line| line.strip_prefix("data: "));
        let mut parsed = data.map(|data| serde_json::from_str::<Value>(data).expect("JSON"));
        parsed.find(|data| data["device_id"] == name).unwrap_or_else(|| panic!("{name} is missing"))
    };
    let linked = of(&all, "d0003");
    assert_eq!((&linked["recorder_connected"], &linked["registered"]), (&json!(true), &json!(true)));
    let contest = &linked["contests"][0];
    assert_eq!((&contest["role"], &contest["takeovers"]), (&json!("transfer"), &json!(4)), "{linked}");
    assert_eq!(contest["addresses"], json!(["10.0.0.7:1", "10.0.0.9:2"]));
    assert!(contest["closed_until"].is_string(), "{contest}");
    assert_eq!(linked["conflict"]["kind"], "unknown_task", "{linked}");
    assert_eq!(linked["conflict"]["device_task_id"], "t9", "{linked}");
    let stranger = of(&all, "d0000");
    assert_eq!((&stranger["registered"], &stranger["contests"]), (&json!(false), &json!([])));
    assert!(stranger.get("conflict").is_none(), "{stranger}");
    let silent = of(&all, "d0599");
    assert_eq!((&silent["connected"], &silent["recorder_connected"]), (&json!(false), &json!(false)));
    assert_eq!((&silent["registered"], &silent["state_version"]), (&json!(true), &json!(0)));
    assert!(of(&all, "d0700")["disabled_at"].is_string() && silent.get("disabled_at").is_none());
    let mine = snapshot(&mut open(&site, "?device_ids=d0003,d0599,d0650").await).await;
    assert_eq!((count(&mine, "device_snapshot"), count(&mine, "site_snapshot")), (2, 0));
}

#[tokio::test]
async fn a_snapshot_holds_what_is_about_no_device_and_which_tasks_are_overdue() {
    let mut rows = vec![task(1, 1, TaskState::Uploading), task(2, 1, TaskState::Uploading)];
    let since = [NOW.0 - 86_400_001, NOW.0 - 1000];
    for ((_, row), since) in rows.iter_mut().zip(since) {
        let Row::Task(row) = row else { panic!("a task") };
        row.uploading_at = Some(Wall(since));
    }
    let site = site(rows, None);
    let counts = QueueCounts { due: 1, waiting: 2, uploading: 3, parked: 4 };
    site.feed.publish(NOW, &Notice::Queue(counts));
    site.feed.publish(NOW, &Notice::Destination { streak: 2, fault: Some("offline"), next_try: None });
    let (episode, job) = (EpisodeId(7), JobId(12));
    site.feed.publish(NOW, &Notice::Progress { episode, job, uploaded: 5, total: 9, at: NOW });
    site.feed.publish(NOW, &Notice::Progress { episode: EpisodeId(8), job, uploaded: 1, total: 9, at: NOW });
    site.feed.publish(NOW, &Notice::ProgressEnded { episode: EpisodeId(8) });
    let all = snapshot(&mut open(&site, "").await).await;
    let data = |name: &str| -> Vec<Value> {
        let begin = format!("event: {name}\ndata: ");
        let after = all.split(&begin).skip(1);
        after.map(|rest| serde_json::from_str(rest.lines().next().expect("a line")).expect("JSON")).collect()
    };
    let told = data("site_snapshot");
    assert_eq!(told.len(), 1, "{all}");
    assert_eq!(told[0]["queue"], json!({"due": 1, "waiting": 2, "uploading": 3, "parked": 4}));
    assert_eq!(told[0]["destination"], json!({"streak": 2, "fault": "offline"}));
    assert_eq!(told[0]["worker_running"], true, "a cloud is configured");
    let uploads = told[0]["uploads"].as_array().expect("a list");
    assert_eq!(uploads.len(), 1, "one ended: {uploads:?}");
    assert_eq!((&uploads[0]["episode_id"], &uploads[0]["uploaded_bytes"]), (&json!(7), &json!(5)));
    let overdue: Vec<Value> = data("task_snapshot").iter().map(|task| task["overdue"].clone()).collect();
    assert_eq!(overdue, [json!(true), json!(false)]);
    assert!(data("task_snapshot")[0]["uploading_since"].is_string());
}
