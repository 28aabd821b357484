//! What each event looks like, and that the page on the protocol shows it so.

use serde_json::Value;
use tidegate_core::digest::Sha256;
use tidegate_core::effect::{ConflictKind, ConflictView, ContestView, QueueCounts, RecorderView};
use tidegate_core::id::{EpisodeId, JobId, ObjectKey, PolicySetId, Role, TaskId, WireId};
use tidegate_core::input::Action;
use tidegate_core::policy::{Binding, PolicyNews, PolicyView, Slot};
use tidegate_core::row::{EpisodeRow, Qa, SyncMark, TaskRow, TaskState, Turn, TurnWhat};
use tidegate_core::wire::transfer::Status;

use super::*;

/// 2026-11-21T10:20:30.5Z
const NOW: Wall = Wall(1_795_256_430_500);

fn seen(generation: u64, remote: &str) -> LinkView {
    LinkView { generation, remote: remote.to_owned(), connected_at: NOW }
}

fn task() -> Box<TaskRow> {
    let id = TaskId::new("take-1").expect("legal");
    Box::new(TaskRow {
        wire: WireId::of_attempt(&id, 2),
        id,
        device: device("robot-1"),
        attempt: 2,
        state: TaskState::Uploading,
        config: Some(r#"{"scene":"kitchen"}"#.to_owned()),
        created_at: Wall(0),
        ready_at: None,
        started_at: None,
        completed_at: None,
        error: None,
        begun: true,
        token_sha256: Some(Sha256([7; 32])),
        recording: None,
        updated_at: NOW,
        earlier: None,
        uploading_at: Some(NOW),
        episode: None,
    })
}

fn episode() -> Box<EpisodeRow> {
    Box::new(EpisodeRow {
        id: EpisodeId(7),
        public_id: "0b9f9d0e-6a0c-4b43-9d15-6f3f3e3b8a11".to_owned(),
        device: device("robot-1"),
        task: TaskId::new("take-1").expect("legal"),
        wire: WireId::new("take-1.2").expect("legal"),
        key: ObjectKey::new("north/robot-1/2026-11-21/take-1.2.mcap").expect("legal"),
        sidecar: None,
        len: 52_428_800,
        sha256: Sha256([0xab; 32]),
        recorded_at: None,
        duration_ms: None,
        messages: None,
        ingested_at: NOW,
        qa: Qa::Pending,
        qa_reason: None,
        qa_at: None,
        sync: SyncMark::NotStarted,
        late: false,
        removed_at: None,
        recorder_version: None,
        inspection: None,
        tries: 0,
    })
}

fn recorder(synced: bool) -> RecorderView {
    RecorderView {
        device: device("robot-1"),
        connected: true,
        state: "recording".to_owned(),
        previous: "ready".to_owned(),
        task: "take-1.2".to_owned(),
        updated_at: NOW,
        synced,
        fresh: synced,
        source: if synced { "state_update" } else { "rpc_timeout:pause" }.to_owned(),
        confidence: if synced { "confirmed" } else { "stale" },
        generation: 81,
        version: 5,
        age_ms: 0,
        error: (!synced).then(|| "recorder rpc timeout".to_owned()),
        asked_at: None,
        raw: None,
    }
}

/// One notice of every kind.
fn notices() -> Vec<Notice> {
    let robot = || device("robot-1");
    let module = Sha256([0xcd; 32]);
    let turn = Turn {
        generation: 4,
        at: NOW,
        set: PolicySetId([1; 32]),
        what: TurnWhat::Activated { slot: Slot::Retry },
        slots: vec![(Slot::Retry, Binding { module, settings: Vec::new() })],
        floored: Vec::new(),
    };
    let view = PolicyView {
        generation: 4,
        set: PolicySetId([1; 32]),
        seats: Vec::new(),
        default: None,
        prepared: true,
        preparing: None,
        probation: None,
        shadow: None,
        modules: Vec::new(),
        last: None,
    };
    vec![
        Notice::Link {
            device: robot(),
            role: Role::Recorder,
            link: Some(seen(81, "10.0.0.7")),
            why: None,
            version: 1,
        },
        Notice::Link { device: robot(), role: Role::Recorder, link: None, why: Some("silent"), version: 9 },
        Notice::Recorder(recorder(true)),
        Notice::Recorder(recorder(false)),
        Notice::OperationUnknown {
            device: robot(),
            action: Action::Pause,
            task: None,
            budget_ms: 15_000,
            elapsed_ms: 15_001,
            version: 6,
        },
        Notice::Timeout { device: robot(), action: Action::Pause, budget_ms: 15_000, elapsed_ms: 15_001 },
        Notice::Takeover {
            device: robot(),
            role: Role::Recorder,
            old: seen(81, "10.0.0.7"),
            new: seen(82, "10.0.0.9"),
        },
        Notice::Contest {
            device: robot(),
            role: Role::Recorder,
            contest: Some(ContestView {
                owners: ["10.0.0.7:40212".to_owned(), "10.0.0.9:51333".to_owned()],
                takeovers: 3,
                since: NOW,
                closed_until: Some(NOW),
            }),
        },
        Notice::Contest { device: robot(), role: Role::Recorder, contest: None },
        Notice::Conflict {
            device: robot(),
            conflict: Some(ConflictView {
                kind: ConflictKind::OtherTask,
                device_state: "recording".to_owned(),
                device_task: "take-9".to_owned(),
                task: Some(TaskId::new("take-1").expect("legal")),
                wire: Some(WireId::new("take-1.2").expect("legal")),
                status: Some(TaskState::InProgress),
                since: NOW,
            }),
        },
        Notice::Conflict { device: robot(), conflict: None },
        Notice::Task { row: task(), from: Some(TaskState::InProgress), change: "uploading" },
        Notice::Overdue { row: task() },
        Notice::Transfer {
            device: robot(),
            status: Status {
                version: Some("0.3.5".to_owned()),
                waiting_ack: 1,
                waiting_ack_tasks: Some(vec!["take-1.2".to_owned()]),
                uploads: Some(Vec::new()),
                ..Status::default()
            },
            version: 7,
        },
        Notice::Recording { row: episode() },
        Notice::Progress {
            episode: EpisodeId(7),
            job: JobId(12),
            uploaded: 8_388_608,
            total: 52_428_800,
            at: NOW,
        },
        Notice::ProgressEnded { episode: EpisodeId(7) },
        Notice::Destination { streak: 2, fault: Some("offline"), next_try: Some(NOW) },
        Notice::Queue(QueueCounts { due: 1, waiting: 0, uploading: 2, parked: 0 }),
        Notice::StrayUnseen {
            job: JobId(12),
            key: ObjectKey::new("north/robot-1/2026-11-21/take-1.2.mcap").expect("legal"),
            fault: "denied",
        },
        Notice::Refused {
            device: robot(),
            code: "not_owned",
            detail: "take-9 is the task of another device".to_owned(),
        },
        Notice::Policy { news: PolicyNews::Turned(turn), view: Box::new(view) },
    ]
}

#[test]
fn the_page_on_the_protocol_shows_an_event_of_every_kind_as_it_is() {
    let feed = feed(100);
    let mut cursor = follower(&feed, Filter::default());
    for notice in notices() {
        feed.publish(NOW, &notice);
    }
    let events = told(&mut cursor);
    let kinds: BTreeSet<&str> = events.iter().map(|event| event["type"].as_str().expect("a name")).collect();
    let all: BTreeSet<&str> = Kind::ALL.iter().map(|kind| kind.name()).collect();
    assert_eq!(kinds, all, "there is a notice for every kind");
    let page = include_str!("../../../../docs/protocol.md");
    let lines: Vec<&str> = page.lines().collect();
    let missing: Vec<String> =
        events.iter().map(Value::to_string).filter(|event| !lines.contains(&event.as_str())).collect();
    assert!(missing.is_empty(), "docs/protocol.md does not show\n{}", missing.join("\n"));
    for kind in all {
        assert!(page.contains(&format!("| `{kind}` |")), "docs/protocol.md has no row for {kind}");
    }
}

#[test]
fn no_event_holds_a_configuration_or_a_token() {
    let feed = feed(100);
    let mut cursor = follower(&feed, Filter::default());
    feed.publish(NOW, &Notice::Task { row: task(), from: None, change: "created" });
    let event = told(&mut cursor).remove(0).to_string();
    assert!(!event.contains("kitchen") && !event.contains("token"), "{event}");
}

#[test]
fn timeouts_are_written_as_the_predecessor_wrote_them() {
    for (ms, text) in [
        (250, "250ms"),
        (1500, "1.5s"),
        (15_000, "15s"),
        (90_000, "1m30s"),
        (120_000, "2m0s"),
        (3_600_010, "1h0m0.01s"),
    ] {
        assert_eq!(event::timeout(ms), text);
    }
}
