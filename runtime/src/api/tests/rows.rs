//! Reads of rows: tasks, episodes, jobs, pages.

use serde_json::{Value, json};
use tidegate_core::digest::Sha256;
use tidegate_core::effect::{Notice, Response};
use tidegate_core::id::{Boot, EpisodeId, Fence, JobId, ObjectKey, TaskId, WireId};
use tidegate_core::outcome::Fault;
use tidegate_core::row::{
    AliasRow, Cause, EpisodeRow, FinalWhy, JobRow, JobState, Key, ParkWhy, Qa, Row, Source, SyncMark,
    TaskRow, TaskState,
};
use tidegate_core::time::Wall;

use super::{NOW, device, site};

fn task(name: &str, attempt: u32, state: TaskState) -> (Key, Row) {
    let id = TaskId::new(name).expect("legal");
    let row = TaskRow {
        wire: WireId::of_attempt(&id, attempt),
        id: id.clone(),
        device: device(),
        attempt,
        state,
        config: Some(r#"{"scene":"a"}"#.to_owned()),
        created_at: Wall(0),
        ready_at: None,
        started_at: None,
        completed_at: None,
        error: None,
        begun: false,
        token_sha256: Some(Sha256([7; 32])),
        recording: None,
        updated_at: Wall(1),
        earlier: None,
        uploading_at: None,
        episode: None,
    };
    (Key::Task(id), Row::Task(row))
}

fn key(text: &str) -> ObjectKey {
    ObjectKey::new(text).expect("legal")
}

fn episode(n: u64, sync: SyncMark) -> (Key, Row) {
    let row = EpisodeRow {
        id: EpisodeId(n),
        public_id: format!("uuid-{n}"),
        device: device(),
        task: TaskId::new("t").expect("legal"),
        wire: WireId::new("t").expect("legal"),
        key: key("f/r1/t.mcap"),
        sidecar: None,
        len: 200,
        sha256: Sha256([1; 32]),
        recorded_at: None,
        duration_ms: Some(1500),
        messages: None,
        ingested_at: Wall(0),
        qa: if n == 1 { Qa::Pending } else { Qa::Approved },
        qa_reason: None,
        qa_at: None,
        sync,
        late: false,
        removed_at: None,
        recorder_version: None,
        inspection: None,
        tries: 0,
    };
    (Key::Episode(EpisodeId(n)), Row::Episode(row))
}

fn job(n: u64, episode: u64, state: JobState) -> (Key, Row) {
    let row = JobRow {
        id: JobId(n),
        episode: EpisodeId(episode),
        device: device(),
        claims: u32::from(!matches!(state, JobState::Parked { .. })),
        state,
        spent: 2,
        source: Source { key: key("f/r1/t.mcap"), len: 200, sha256: Sha256([1; 32]), sidecar: None },
        key: key("north/t.mcap"),
        queued_at: Wall(0),
        approved_at: Wall(0),
        last_fault: Some(Fault::Offline),
        last_ended_at: Some(Wall(9_000)),
        ruled_by: None,
        bytes_sent: 5,
        first_claimed_at: Some(Wall(2_000)),
        note: None,
        memo: None,
        retry_delay_ms: None,
    };
    (Key::Job(JobId(n)), Row::Job(row))
}

fn claimed(n: u64) -> JobState {
    JobState::Claimed { fence: Fence { job: JobId(n), attempt: 1, boot: Boot(1) }, since: Wall(4_900) }
}

#[tokio::test]
async fn a_task_is_found_by_its_id_or_the_wire_id_of_its_current_attempt() {
    let alias = |wire: &str| {
        let row = AliasRow { task: TaskId::new("a").expect("legal") };
        (Key::Alias(WireId::new(wire).expect("legal")), Row::Alias(row))
    };
    let site = site(vec![task("a", 3, TaskState::Ready), alias("a.2"), alias("a.3")], None);
    let want = json!({"task_id": "a", "device_id": "r1", "attempt": 3, "wire_id": "a.3", "status": "ready", "overdue": false,
        "config": {"scene": "a"}, "created_at": "1970-01-01T00:00:00Z", "updated_at": "1970-01-01T00:00:00.001Z"});
    assert_eq!(site.get("/api/v1/tasks/a").await, (200, want.clone()));
    assert_eq!(site.get("/api/v1/tasks/a.3").await, (200, want));
    assert_eq!(site.get("/api/v1/tasks/a.2").await.0, 404);
    assert_eq!(site.get("/api/v1/tasks/b").await.0, 404);
    assert_eq!(site.get("/api/v1/tasks/..").await.0, 400);
}

#[tokio::test]
async fn a_created_task_is_201_and_a_cancelled_one_200() {
    let (_, Row::Task(row)) = task("a", 1, TaskState::Pending) else { panic!("a task") };
    let site = site(Vec::new(), Some(Ok(Response::Task(row))));
    let (status, body) = site.post("/api/v1/tasks", r#"{"device_id":"r1"}"#).await;
    assert_eq!((status, &body["wire_id"]), (201, &json!("a")));
    assert_eq!(site.post("/api/v1/tasks/a/cancel", "").await.0, 200);
}

#[tokio::test]
async fn lists_are_filtered_and_come_in_pages() {
    let mut rows: Vec<_> = (0..120).map(|n| task(&format!("t{n:03}"), 1, TaskState::Pending)).collect();
    rows.push(task("z", 1, TaskState::Failed));
    let site = site(rows, None);
    let (_, body) = site.get("/api/v1/tasks").await;
    let count = |body: &Value| body["items"].as_array().map_or(0, Vec::len);
    assert_eq!(
        (count(&body), &body["total"], &body["limit"], &body["offset"]),
        (50, &json!(121), &json!(50), &json!(0))
    );
    assert_eq!((body.get("hasNext"), body.get("hasPrev")), (Some(&json!(true)), None));
    let (_, body) = site.get("/api/v1/tasks?limit=1000&offset=100").await;
    assert_eq!((count(&body), &body["limit"]), (21, &json!(100)));
    assert_eq!((body.get("hasNext"), body.get("hasPrev")), (None, Some(&json!(true))));
    let (_, body) = site.get("/api/v1/tasks?status=failed&device_id=r1&limit=%20").await;
    assert_eq!((&body["total"], &body["items"][0]["task_id"]), (&json!(1), &json!("z")));
    assert_eq!(site.get("/api/v1/tasks?device_id=other").await.1["items"], json!([]));
    for query in ["limit=0", "limit=x", "offset=-1", "status=odd", "device_id=a%20b"] {
        let (status, body) = site.get(&format!("/api/v1/tasks?{query}")).await;
        let field = query.split('=').next();
        assert_eq!((status, body["field"].as_str()), (400, field), "{query}: {body}");
    }
}

#[tokio::test]
async fn an_upload_under_way_never_shows_more_than_99_percent() {
    let rows = vec![episode(2, SyncMark::Queued(JobId(5))), job(5, 2, claimed(5))];
    let site = site(rows, None);
    let at = Wall(NOW.0);
    for (uploaded, percent) in [(1, 0), (100, 50), (200, 99), (900, 99)] {
        site.told(&Notice::Progress { episode: EpisodeId(2), job: JobId(5), uploaded, total: 200, at });
        let (_, body) = site.get("/api/v1/sync/episodes/2/status").await;
        assert_eq!(body["progress"]["percent"], json!(percent), "{body}");
    }
    let (status, body) = site.get("/api/v1/sync/episodes/2/status").await;
    let want = json!({"id": 5, "episode_id": 2, "episode_public_id": "uuid-2", "device_id": "r1",
        "source_path": "edge-north/f/r1/t.mcap", "status": "in_progress", "attempt_count": 3,
        "started_at": "1970-01-01T00:00:04Z", "key": "north/t.mcap", "bytes_sent": 5, "uploaded_bytes": 900,
        "cloud_synced": false, "cloud_processed": false,
        "progress": {"uploaded_bytes": 200, "total_bytes": 200, "percent": 99,
            "updated_at": "2026-11-21T00:00:00Z"}});
    assert_eq!((status, body), (200, want));
    site.told(&Notice::ProgressEnded { episode: EpisodeId(2) });
    assert!(site.get("/api/v1/sync/episodes/2/status").await.1.get("progress").is_none());
}

#[tokio::test]
async fn job_states_read_as_the_predecessors() {
    let retry = JobState::Pending { due: Wall(20_000), cause: Cause::Retry(Fault::Offline) };
    let way = JobState::Pending { due: Wall(21_000), cause: Cause::Destination(Fault::Auth) };
    let new = JobState::Pending { due: Wall(0), cause: Cause::Queued };
    let parked = JobState::Parked { why: ParkWhy::NoDestination, since: Wall(0) };
    let failed = JobState::Failed { why: FinalWhy::Exhausted(Fault::Offline), at: Wall(10_500) };
    let done = JobState::Completed { at: Wall(10_500) };
    let rows = [retry, way, new, parked, failed, done].into_iter().zip(1..);
    let site = site(rows.map(|(state, n)| job(n, 9, state)).collect(), None);
    let (_, body) = site.get("/api/v1/sync/episodes/9/logs").await;
    let seen = |n: usize, fields: &[&str]| {
        let item = &body["items"][6 - n];
        fields.iter().map(|field| item[field].clone()).collect::<Vec<_>>()
    };
    let fields = ["status", "reason", "next_retry_at", "completed_at", "destination_path", "duration_sec"];
    let at = |second: &str| json!(format!("1970-01-01T00:00:{second}Z"));
    let nil = Value::Null;
    let row = |values: [Value; 6]| values.to_vec();
    assert_eq!(
        seen(1, &fields),
        row([json!("failed"), json!("offline"), at("20"), at("09"), nil.clone(), json!(7)])
    );
    assert_eq!(
        seen(2, &fields),
        row([json!("failed"), json!("auth"), at("21"), at("09"), nil.clone(), json!(7)])
    );
    assert_eq!(
        seen(3, &fields),
        row([json!("pending"), nil.clone(), nil.clone(), nil.clone(), nil.clone(), nil.clone()])
    );
    let reason = json!("no_destination");
    assert_eq!(
        seen(4, &fields),
        row([json!("pending"), reason, nil.clone(), nil.clone(), nil.clone(), nil.clone()])
    );
    let reason = json!("attempts_exhausted");
    assert_eq!(
        seen(5, &fields),
        row([json!("failed"), reason, nil.clone(), at("10"), nil.clone(), json!(8)])
    );
    let key = json!("north/t.mcap");
    assert_eq!(seen(6, &fields), row([json!("completed"), nil.clone(), nil, at("10"), key, json!(8)]));
    assert_eq!(body["items"][0]["bytes_transferred"], json!(200));
    let (_, list) = site.get("/api/v1/sync/episodes?status=failed&limit=2").await;
    assert_eq!(
        (&list["total"], &list["items"][0]["id"], &list["hasNext"]),
        (&json!(3), &json!(5), &json!(true))
    );
    assert_eq!(site.get("/api/v1/sync/episodes?status=odd").await.1["total"], json!(0));
}

#[tokio::test]
async fn statuses_of_many_come_in_order_and_missing_ones_apart() {
    let synced = SyncMark::Synced { job: JobId(5), key: key("north/t.mcap"), at: Wall(10_500) };
    let rows = vec![
        episode(1, SyncMark::NotStarted),
        episode(2, synced),
        job(5, 2, JobState::Completed { at: Wall(10_500) }),
    ];
    let site = site(rows, None);
    let (status, body) = site.get("/api/v1/sync/episode-statuses?ids=2,%201,9,2").await;
    assert_eq!(status, 200);
    assert_eq!((&body["items"][0]["episode_id"], &body["items"][1]["episode_id"]), (&json!(2), &json!(1)));
    assert_eq!(body["items"][0]["cloud_synced_at"], json!("1970-01-01T00:00:10Z"));
    let want = json!({"id": 0, "episode_id": 1, "episode_public_id": "uuid-1", "status": "not_started",
        "attempt_count": 0, "cloud_synced": false, "cloud_processed": false});
    assert_eq!(body["items"][1], want);
    assert_eq!(body["errors"], json!([{"episode_id": 9, "error": "episode not found"}]));
    let many = (1..=51).map(|n| n.to_string()).collect::<Vec<_>>().join(",");
    let cases = [
        (String::new(), "ids is required"),
        ("1,,2".to_owned(), "ids must be comma-separated positive integers"),
        ("1,x".to_owned(), "ids must be comma-separated positive integers"),
        (many, "ids must contain at most 50 values"),
    ];
    for (ids, error) in cases {
        let (status, body) = site.get(&format!("/api/v1/sync/episode-statuses?ids={ids}")).await;
        assert_eq!((status, body["error"].as_str()), (400, Some(error)));
    }
    assert_eq!(site.get("/api/v1/sync/episodes/9/status").await.0, 404);
    assert_eq!(site.get("/api/v1/sync/episodes/9/logs").await.1["items"], json!([]));
}

#[tokio::test]
async fn episodes_are_listed_newest_first_and_filtered_by_verdict_and_sync() {
    let rows = vec![
        episode(1, SyncMark::NotStarted),
        episode(2, SyncMark::Queued(JobId(5))),
        job(5, 2, claimed(5)),
        episode(3, SyncMark::Failed(JobId(6))),
    ];
    let site = site(rows, None);
    let (_, body) = site.get("/api/v1/episodes").await;
    let ids: Vec<_> =
        body["items"].as_array().expect("a list").iter().map(|item| item["id"].clone()).collect();
    assert_eq!(ids, [json!(3), json!(2), json!(1)]);
    let (_, body) = site.get("/api/v1/episodes?sync_status=in_progress").await;
    assert_eq!((&body["total"], &body["items"][0]["sync_job_id"]), (&json!(1), &json!(5)));
    assert_eq!(site.get("/api/v1/episodes?qa_status=pending_qa").await.1["total"], json!(1));
    assert_eq!(site.get("/api/v1/episodes?qa_status=odd").await.0, 400);
    let (status, body) = site.get("/api/v1/episodes/3").await;
    assert_eq!((status, &body["sync_status"], &body["duration_sec"]), (200, &json!("failed"), &json!(1.5)));
    assert_eq!(site.get("/api/v1/episodes/4").await.0, 404);
}

#[tokio::test]
async fn the_sync_configuration_tells_what_the_predecessor_told() {
    let (status, body) = site(Vec::new(), None).get("/api/v1/sync/config").await;
    assert_eq!(status, 200);
    assert_eq!(
        (&body["worker_running"], &body["auto_scan_enabled"], &body["max_retries"]),
        (&json!(true), &json!(false), &json!(5))
    );
}
