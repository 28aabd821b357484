//! Reports and callbacks of recorders, and operators making and calling off tasks.

use super::super::transfer::NO_ROOM;
use super::*;
use crate::effect::Finish;
use crate::knobs::Room;
use crate::row::RecordingFacts;

#[test]
fn reports_move_a_device_s_own_task_forward_and_back_at_once_only_if_it_was_never_begun() {
    use TaskState::{InProgress, Pending, Ready};
    for (before, report, task, after) in [
        (None, Reported::Ready, Some("T"), Ready),
        (None, Reported::Recording, Some("T"), InProgress),
        (None, Reported::Paused, Some("T"), InProgress),
        (Some(Reported::Ready), Reported::Recording, Some("T"), InProgress),
        (Some(Reported::Ready), Reported::Ready, Some("T"), Ready),
        (Some(Reported::Recording), Reported::Ready, Some("T"), InProgress),
        (Some(Reported::Recording), Reported::Idle, None, InProgress),
        (Some(Reported::Ready), Reported::Idle, Some("T"), Pending),
        (None, Reported::Idle, Some("T"), Pending),
        (None, Reported::Other, Some("T"), Pending),
        (None, Reported::Ready, None, Pending),
        (None, Reported::Recording, Some("T.2"), Pending),
        (None, Reported::Recording, Some("nobody"), Pending),
    ] {
        let mut rig = Rig::new();
        rig.create("T", &d1());
        if let Some(before) = before {
            rig.report(&d1(), before, Some("T"));
        }
        rig.report(&d1(), report, task);
        assert_eq!(rig.state("T"), after, "{before:?} then {report:?} {task:?}");
        assert!(rig.report(&d2(), Reported::Recording, Some("T")).changes.is_empty(), "not its task");
    }
}

#[test]
fn the_moment_a_task_became_ready_is_not_rewritten() {
    let mut rig = Rig::new();
    rig.create("T", &d1());
    rig.report(&d1(), Reported::Ready, Some("T"));
    let ready_at = rig.task("T").ready_at;
    assert_eq!(ready_at, Some(rig.now.wall));
    rig.pass(Duration::from_secs(5));
    assert!(rig.report(&d1(), Reported::Ready, Some("T")).is_nothing());
    assert_eq!(rig.task("T").ready_at, ready_at);
}

#[test]
fn config_applied_makes_only_an_own_pending_task_ready() {
    let mut rig = Rig::new();
    rig.create("T", &d1());
    assert!(rig.on(|tasks, cx| tasks.on_config_applied(cx, &d2(), "T")).is_nothing());
    assert!(rig.on(|tasks, cx| tasks.on_config_applied(cx, &d1(), "U")).is_nothing());
    rig.on(|tasks, cx| tasks.on_config_applied(cx, &d1(), "T"));
    assert_eq!(rig.state("T"), TaskState::Ready);
    assert!(rig.on(|tasks, cx| tasks.on_config_applied(cx, &d1(), "T")).is_nothing());
}

#[test]
fn a_start_callback_is_always_acknowledged_and_moves_only_an_own_task() {
    let mut rig = Rig::new();
    rig.create("T", &d1());
    for (task, device, moved) in [
        ("T", Some(d2()), false),
        ("T", None, false),
        ("nope", Some(d1()), false),
        ("T", Some(d1()), true),
        ("T", Some(d1()), false),
    ] {
        let seen = rig.ask(Request::CallbackStart { task: task.into(), device, credential: None });
        assert_eq!(seen.answer(), &Ok(Response::Started { moved }), "{task}");
    }
    assert_eq!(rig.state("T"), TaskState::InProgress);
    assert_eq!(rig.task("T").started_at, Some(rig.now.wall));
}

#[test]
fn a_finish_callback_asks_for_the_upload_once() {
    let mut rig = Rig::new();
    rig.create("T", &d1());
    rig.link_up(&d1(), 1);
    let facts = RecordingFacts { started_at: Some(Wall(3)), messages: Some(4), ..Default::default() };
    let seen = rig.finish("T", &d1(), facts.clone());
    assert_eq!(seen.frames(), ["request T"]);
    let handled = Finish::Requested;
    let uploading = TaskState::Uploading;
    assert_eq!(seen.answer(), &Ok(Response::Finished { state: uploading, handled }));
    assert_eq!((rig.state("T"), rig.task("T").recording), (uploading, Some(facts)));
    let seen = rig.finish("T", &d1(), Default::default());
    let handled = Finish::Repeated;
    assert_eq!(seen.answer(), &Ok(Response::Finished { state: uploading, handled }));
    assert!(seen.frames().is_empty() && seen.changes.is_empty());
}

#[test]
fn a_finish_callback_without_an_uploader_is_made_good_when_it_comes() {
    let mut rig = Rig::new();
    rig.create("T", &d1());
    let seen = rig.finish("T", &d1(), Default::default());
    let (state, handled) = (TaskState::Uploading, Finish::TransferOffline);
    assert_eq!(seen.answer(), &Ok(Response::Finished { state, handled }));
    assert_eq!(rig.task("T").error.as_deref(), Some("transfer disconnected; upload_request not sent"));
    rig.restart();
    rig.link_up(&d1(), 1);
    let seen = rig.say(&d1(), status(true, Vec::new()));
    assert_eq!(seen.frames(), ["request T"]);
    assert_eq!(rig.task("T").error, None);
}

#[test]
fn a_disk_without_room_asks_for_no_recording_until_there_is_room() {
    let mut rig = Rig::new();
    for task in ["S", "T", "U", "V"] {
        rig.create(task, &d1());
    }
    rig.link_up(&d1(), 1);
    rig.on(|tasks, cx| tasks.on_room(cx, Room::Short));
    for task in ["T", "U", "V"] {
        let seen = rig.finish(task, &d1(), Default::default());
        assert!(seen.frames().is_empty(), "{seen:?}");
        assert_eq!(rig.task(task).error.as_deref(), Some(NO_ROOM));
    }
    // A new link asks for nothing either.
    rig.link_up(&d1(), 2);
    assert!(rig.say(&d1(), status(true, Vec::new())).frames().is_empty());
    rig.on(|tasks, cx| tasks.on_room(cx, Room::None));
    // One comes without being asked for, one is given up.
    rig.say(&d1(), TransferMessage::UploadStarted(claim("U")));
    rig.say(&d1(), TransferMessage::UploadFailed { task: "V".into(), reason: None });
    let seen = rig.on(|tasks, cx| tasks.on_room(cx, Room::Enough));
    assert_eq!(seen.frames(), ["request T"]);
    assert_eq!(rig.task("T").error, None);
    assert!(rig.on(|tasks, cx| tasks.on_room(cx, Room::Enough)).is_nothing());
    assert_eq!(rig.finish("S", &d1(), Default::default()).frames(), ["request S"]);
}

#[test]
fn a_recording_with_trouble_is_still_asked_for_and_the_trouble_is_kept() {
    let mut rig = Rig::new();
    rig.create("T", &d1());
    rig.link_up(&d1(), 1);
    let facts = RecordingFacts { error: Some("disk full".into()), ..Default::default() };
    assert_eq!(rig.finish("T", &d1(), facts).frames(), ["request T"]);
    assert_eq!(rig.task("T").error.as_deref(), Some("disk full"));
}

#[test]
fn a_finish_callback_is_refused_for_foreign_and_dead_tasks() {
    let mut rig = Rig::new();
    rig.create("T", &d1());
    rig.link_up(&d1(), 1);
    rig.link_up(&d2(), 2);
    for (task, device) in [("T", d2()), ("nope", d1())] {
        let seen = rig.finish(task, &device, Default::default());
        assert_eq!(seen.refusal(), &Refusal::NotUploadable { owned: false });
    }
    rig.ask(Request::CancelTask { task: "T".into() });
    let seen = rig.finish("T", &d1(), Default::default());
    assert_eq!(seen.refusal(), &Refusal::NotUploadable { owned: true });
    assert!(seen.frames().is_empty());
    let episode = rig.episode_of("U");
    assert!(!rig.episode_row(episode).late);
    let seen = rig.finish("U", &d1(), Default::default());
    let (state, handled) = (TaskState::Completed, Finish::Repeated);
    assert_eq!(seen.answer(), &Ok(Response::Finished { state, handled }));
}

#[test]
fn a_recording_of_an_attempt_that_is_over_is_asked_for_without_moving_the_task() {
    let mut rig = Rig::new();
    rig.create("T", &d1());
    rig.report(&d1(), Reported::Recording, Some("T"));
    rig.run(&d1(), Action::Cancel, "T", crate::fact::CallEnd::Done);
    let seen = rig.finish("T", &d1(), Default::default());
    let (state, handled) = (TaskState::Pending, Finish::TransferOffline);
    assert_eq!(seen.answer(), &Ok(Response::Finished { state, handled }), "it is kept in mind");
    rig.link_up(&d1(), 1);
    let seen = rig.finish("T", &d1(), Default::default());
    assert_eq!(seen.frames(), ["request T"]);
    assert_eq!((rig.state("T"), rig.task("T").wire.as_str()), (TaskState::Pending, "T.2"));
}

#[test]
fn a_task_is_made_once_under_its_name_or_under_one_made_up() {
    let mut rig = Rig::new();
    let make = |id: Option<&str>, config: Option<&str>| Request::CreateTask {
        task: id.map(task_id),
        device: d1(),
        config: config.map(ToString::to_string),
    };
    let seen = rig.ask(make(Some("T"), Some(r#"{"scene":"lab"}"#)));
    assert_eq!(seen.answer(), &Ok(Response::Task(rig.task("T"))));
    assert_eq!(rig.task("T").config.as_deref(), Some(r#"{"scene":"lab"}"#));
    assert_eq!(rig.ask(make(Some("T"), None)).refusal(), &Refusal::TaskExists("T".into()));
    rig.ask(Request::CancelTask { task: "T".into() });
    let cold = rig.ask(make(Some("T"), None));
    assert_eq!(cold.refusal(), &Refusal::TaskExists("T".into()), "also when it is cold");
    let bad = rig.ask(make(Some("U"), Some("[]")));
    assert!(matches!(bad.refusal(), Refusal::BadField { field: "config", .. }));
    let names: BTreeSet<String> = (0..3)
        .map(|_| match rig.ask(make(None, None)).answer() {
            Ok(Response::Task(row)) => row.id.to_string(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(names.len(), 3);
    for name in &names {
        let chance = name.strip_prefix("task_20261121_013401_").expect("the time of its making");
        assert!(chance.len() == 8 && chance.bytes().all(|b| b.is_ascii_hexdigit()), "{name}");
    }
}

#[test]
fn a_task_can_be_called_off_until_its_recording_is_on_its_way() {
    let mut rig = Rig::new();
    rig.link_up(&d1(), 1);
    let cancel = |task: &str| Request::CancelTask { task: task.into() };
    assert_eq!(rig.ask(cancel("nope")).refusal(), &Refusal::TaskNotFound("nope".into()));
    for report in [None, Some(Reported::Ready), Some(Reported::Recording)] {
        let task = std::format!("T{report:?}").replace(['(', ')'], "");
        rig.create(&task, &d1());
        if let Some(report) = report {
            rig.report(&d1(), report, Some(&task));
        }
        let seen = rig.ask(cancel(&task));
        assert_eq!(seen.answer(), &Ok(Response::Task(rig.task(&task))));
        assert!(seen.facts.is_empty(), "the device is not told");
        assert_eq!(rig.state(&task), TaskState::Cancelled);
        let again = rig.ask(cancel(&task));
        assert!(again.answer().is_ok() && again.changes.is_empty(), "again is the same");
    }
    rig.create("U", &d1());
    rig.finish("U", &d1(), Default::default());
    assert_eq!(rig.ask(cancel("U")).refusal(), &Refusal::NotCancellable(TaskState::Uploading));
    rig.say(&d1(), TransferMessage::UploadFailed { task: "U".into(), reason: None });
    assert_eq!(rig.ask(cancel("U")).refusal(), &Refusal::NotCancellable(TaskState::Failed));
}
