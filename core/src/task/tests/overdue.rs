//! Recordings that do not come: when people are told, and how their tasks are settled.

use super::*;

const DAY: Duration = Duration::from_secs(86_400);

fn uploading(rig: &mut Rig, task: &str) {
    rig.create(task, &d1());
    rig.finish(task, &d1(), Default::default());
}

/// The tasks that people are told of.
fn told(seen: &Seen) -> Vec<String> {
    let id = |effect: &Effect| match effect {
        Effect::Publish(Notice::Overdue { row }) => Some(row.id.to_string()),
        _ => None,
    };
    seen.effects.iter().filter_map(id).collect()
}

fn resolve(rig: &mut Rig, task: &str, to: TaskState, reason: Option<&str>) -> Seen {
    rig.ask(Request::ResolveTask { task: task.into(), to, reason: reason.map(Into::into) })
}

#[test]
fn people_are_told_once_of_each_recording_that_does_not_come_in_time() {
    let mut rig = Rig::new();
    uploading(&mut rig, "T");
    assert_eq!(rig.task("T").uploading_at, Some(Wall(START_MS)));
    rig.pass(Duration::from_secs(3600));
    uploading(&mut rig, "U");
    rig.pass(DAY - Duration::from_secs(3600) - Duration::from_millis(1));
    assert!(told(&rig.wake()).is_empty());
    rig.pass(Duration::from_millis(1));
    assert_eq!(told(&rig.wake()), ["T"]);
    assert_eq!(rig.state("T"), TaskState::Uploading, "it may still come");
    rig.pass(Duration::from_secs(3600));
    assert_eq!(told(&rig.wake()), ["U"]);
    assert_eq!(rig.parts.tasks.overdue(), 2);
    rig.pass(DAY * 3);
    assert!(rig.wake().is_nothing());
}

#[test]
fn after_a_restart_the_time_that_passed_counts_and_people_are_told_again() {
    let mut rig = Rig::new();
    uploading(&mut rig, "T");
    rig.pass(DAY / 2);
    rig.restart();
    rig.pass(DAY / 2 - Duration::from_millis(1));
    assert!(told(&rig.wake()).is_empty());
    rig.pass(Duration::from_millis(1));
    assert_eq!(told(&rig.wake()), ["T"]);
    rig.restart();
    assert_eq!(told(&rig.wake()), ["T"], "once for each boot");
    // A row of an older format does not say since when.
    let Some(Some(Row::Task(row))) = rig.disk.get_mut(&Key::Task(task_id("T"))) else {
        panic!("it is there")
    };
    row.uploading_at = None;
    rig.parts = Parts::default();
    let row = rig.task("T");
    rig.parts.tasks.load(&Key::Task(task_id("T")), Row::Task(row.clone()));
    rig.shadow = Tasks::default();
    rig.shadow.load(&Key::Task(task_id("T")), Row::Task(row));
    rig.timers = Timers::default();
    rig.on(|tasks, cx| tasks.on_boot(cx));
    assert_eq!(told(&rig.wake()), ["T"], "counted from its last change, which was a day ago");
}

#[test]
fn a_clock_that_was_stepped_makes_nobody_wait_longer_than_from_now_on() {
    let mut rig = Rig::new();
    uploading(&mut rig, "T");
    rig.now.wall = Wall(START_MS - 30 * 86_400_000);
    rig.restart();
    rig.pass(DAY);
    assert_eq!(told(&rig.wake()), ["T"]);
}

#[test]
fn what_came_in_time_is_not_told_of() {
    let mut rig = Rig::new();
    rig.episode_of("T");
    uploading(&mut rig, "U");
    rig.say(&d1(), TransferMessage::UploadFailed { task: "U".into(), reason: None });
    rig.pass(DAY * 2);
    let seen = rig.wake();
    assert!(told(&seen).is_empty());
    assert_eq!(rig.timers.armed(&TimerKey::Overdue), None);
}

#[test]
fn a_site_without_a_deadline_tells_nobody() {
    let mut rig = Rig::new();
    rig.knobs.uploading_deadline_ms = None;
    uploading(&mut rig, "T");
    assert_eq!(rig.timers.armed(&TimerKey::Overdue), None);
}

#[test]
fn a_person_gives_a_recording_up() {
    let mut rig = Rig::new();
    uploading(&mut rig, "T");
    rig.pass(DAY);
    rig.wake();
    let seen = resolve(&mut rig, "T", TaskState::Failed, Some("the robot burned"));
    assert!(matches!(seen.answer(), Ok(Response::Task(row)) if row.state == TaskState::Failed));
    assert_eq!(rig.task("T").error.as_deref(), Some("settled by a person: the robot burned"));
    assert_eq!(rig.parts.tasks.overdue(), 0);
    // It came all the same.
    rig.link_up(&d1(), 1);
    let head = rig.say(&d1(), TransferMessage::UploadComplete(claim("T"))).op().0;
    let sidecar = rig.done(head, head_reply()).op().0;
    let digest = rig.done(sidecar, sidecar_reply()).op().0;
    assert_eq!(rig.confirm(digest).frames(), ["ack T"]);
    assert!(rig.episode_row(1).late);
    assert_eq!(rig.state("T"), TaskState::Failed);
}

#[test]
fn a_person_has_a_task_recorded_once_more_under_a_name_that_nobody_has() {
    let mut rig = Rig::new();
    rig.create("T.2", &d2());
    uploading(&mut rig, "T");
    let seen = resolve(&mut rig, "T", TaskState::Pending, None);
    assert_eq!(seen.changes, ["task.returned"]);
    let row = rig.task("T");
    assert_eq!((row.state, row.attempt, row.wire.as_str()), (TaskState::Pending, 3, "T.3"));
    assert_eq!((row.begun, row.uploading_at), (false, None));
    // The old recording is welcome, and completes nothing.
    rig.link_up(&d1(), 1);
    let head = rig.say(&d1(), TransferMessage::UploadComplete(claim("T"))).op().0;
    let sidecar = rig.done(head, head_reply()).op().0;
    let digest = rig.done(sidecar, sidecar_reply()).op().0;
    assert_eq!(rig.confirm(digest).frames(), ["ack T"]);
    assert_eq!(rig.state("T"), TaskState::Pending);
}

#[test]
fn only_a_task_that_waits_for_its_recording_is_settled() {
    let mut rig = Rig::new();
    rig.create("T", &d1());
    let refusal = |seen: &Seen| seen.refusal().clone();
    let seen = resolve(&mut rig, "T", TaskState::Failed, None);
    assert_eq!(refusal(&seen), Refusal::NotResolvable(TaskState::Pending));
    assert!(matches!(refusal(&resolve(&mut rig, "nope", TaskState::Failed, None)), Refusal::TaskNotFound(_)));
    rig.finish("T", &d1(), Default::default());
    let seen = resolve(&mut rig, "T", TaskState::Completed, None);
    assert!(matches!(refusal(&seen), Refusal::BadField { field: "to", .. }));
    resolve(&mut rig, "T", TaskState::Failed, None);
    assert_eq!(rig.task("T").error.as_deref(), Some("settled by a person"));
    let seen = resolve(&mut rig, "T", TaskState::Pending, None);
    assert_eq!(refusal(&seen), Refusal::NotResolvable(TaskState::Failed), "final is final");
}
