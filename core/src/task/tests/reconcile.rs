//! What a report says of tasks that it does not name, absence, owed recordings and conflicts, on an exact clock.

use super::*;
use crate::effect::{ConflictKind, ConflictView, Finish};
use crate::fact::CallEnd;
use crate::input::Resolve;
use crate::row::EarlierAttempt;

const GRACE: Duration = Duration::from_millis(30_000);
const SETTLE: Duration = Duration::from_millis(5_000);
const EPSILON: Duration = Duration::from_millis(1);

/// A device that is connected and records `T`.
fn recording() -> Rig {
    let mut rig = Rig::new();
    rig.create("T", &d1());
    rig.recorder_up(&d1());
    rig.report(&d1(), Reported::Recording, Some("T"));
    assert_eq!(rig.state("T"), TaskState::InProgress);
    rig
}

/// An uploader that told its list, which is empty.
fn greeted(rig: &mut Rig) {
    rig.link_up(&d1(), 1);
    rig.say(&d1(), status(true, Vec::new()));
}

fn earlier(rig: &Rig) -> Vec<EarlierAttempt> {
    rig.task("T").earlier.unwrap_or_default()
}

fn attempt(rig: &Rig) -> (TaskState, u32) {
    let row = rig.task("T");
    (row.state, row.attempt)
}

fn conflicts(seen: &Seen) -> Vec<Option<ConflictView>> {
    let conflict = |effect: &Effect| match effect {
        Effect::Publish(Notice::Conflict { conflict, .. }) => Some(conflict.clone()),
        _ => None,
    };
    seen.effects.iter().filter_map(conflict).collect()
}

fn kind(seen: &Seen) -> Option<ConflictKind> {
    let all = conflicts(seen);
    assert_eq!(all.len(), 1, "{seen:?}");
    all[0].as_ref().map(|view| view.kind)
}

fn missing(task: &str) -> TransferMessage {
    TransferMessage::UploadNotFound { task: task.into(), detail: None }
}

#[test]
fn a_device_that_is_back_within_the_grace_keeps_its_tasks() {
    for (back, kept) in [(GRACE - EPSILON, true), (GRACE, false), (GRACE + EPSILON, false)] {
        let mut rig = recording();
        rig.recorder_down(&d1());
        rig.pass(back);
        // What is due is told before what comes at the same moment.
        rig.wake();
        rig.recorder_up(&d1());
        rig.report(&d1(), Reported::Recording, Some("T"));
        rig.pass(GRACE * 2);
        rig.wake();
        assert_eq!(
            attempt(&rig),
            (TaskState::InProgress, 1),
            "beyond the grace the same recording is resumed"
        );
        assert!(earlier(&rig).is_empty());
        let resumed = rig.task("T").updated_at > Wall(START_MS);
        assert_eq!(!resumed, kept, "{back:?}");
    }
}

#[test]
fn a_device_that_stays_away_loses_its_tasks_at_the_end_of_the_grace_and_not_before() {
    let mut rig = recording();
    rig.create("R", &d1());
    rig.on(|tasks, cx| tasks.on_config_applied(cx, &d1(), "R"));
    rig.recorder_down(&d1());
    rig.pass(GRACE - EPSILON);
    assert!(rig.wake().is_nothing());
    rig.pass(EPSILON);
    assert_eq!(rig.wake().changes, ["task.returned", "task.returned"]);
    assert_eq!(attempt(&rig), (TaskState::Pending, 2));
    let row = rig.task("R");
    assert_eq!(
        (row.state, row.attempt, row.earlier),
        (TaskState::Pending, 1, None),
        "never begun, same name"
    );
    let left = earlier(&rig);
    assert_eq!((left[0].attempt, left[0].owed, left[0].started_at), (1, true, Some(Wall(START_MS))));
}

#[test]
fn a_link_that_proves_nothing_neither_ends_nor_restarts_the_grace() {
    let mut rig = recording();
    rig.recorder_down(&d1());
    rig.pass(GRACE / 2);
    rig.recorder_up(&d1());
    rig.recorder_down(&d1());
    rig.pass(GRACE / 2);
    rig.wake();
    assert_eq!(attempt(&rig), (TaskState::Pending, 2));

    // While it is there it is being asked, and keeps its tasks.
    let mut rig = recording();
    rig.recorder_down(&d1());
    rig.recorder_up(&d1());
    rig.pass(GRACE * 3);
    rig.wake();
    assert_eq!(attempt(&rig), (TaskState::InProgress, 1));
    rig.recorder_down(&d1());
    rig.pass(GRACE);
    rig.wake();
    assert_eq!(attempt(&rig), (TaskState::Pending, 2));
}

#[test]
fn losing_the_uploader_puts_nothing_back() {
    let mut rig = recording();
    rig.link_up(&d1(), 1);
    rig.link_down(&d1());
    rig.pass(GRACE * 4);
    assert!(rig.wake().is_nothing());
    assert_eq!(attempt(&rig), (TaskState::InProgress, 1));
}

#[test]
fn after_a_boot_devices_have_their_longest_pause_and_the_grace_to_come_back() {
    let mut rig = recording();
    rig.restart();
    rig.pass(GRACE + limits::RETURN_MAX - EPSILON);
    assert!(rig.wake().is_nothing());
    rig.pass(EPSILON);
    assert_eq!(rig.wake().changes, ["task.returned"]);
    assert_eq!(attempt(&rig), (TaskState::Pending, 2));
}

#[test]
fn a_stopping_site_concludes_nothing() {
    let mut rig = recording();
    rig.recorder_down(&d1());
    rig.stopping = true;
    rig.on(|tasks, cx| tasks.on_shutdown(cx));
    assert!(!rig.timers.keys().any(|key| matches!(key, TimerKey::Grace(_) | TimerKey::Settle(_))));
}

#[test]
fn what_was_never_begun_goes_back_at_once_when_the_device_is_idle_or_holds_another() {
    for (state, task) in [(Reported::Idle, None), (Reported::Recording, Some("other"))] {
        let mut rig = Rig::new();
        rig.create("T", &d1());
        rig.create("other", &d1());
        rig.report(&d1(), Reported::Ready, Some("T"));
        let waits = rig.report_while(&d1(), state, task, false);
        assert!(!waits.changes.contains(&"task.returned"), "a command of ours is out");
        assert!(rig.report(&d1(), state, task).changes.contains(&"task.returned"));
        assert_eq!(attempt(&rig), (TaskState::Pending, 1), "the same name");
        let config = rig.command(&d1(), Action::Begin, Some("T"));
        assert_eq!(rig.ask(Request::Command(config)).cleared().task.as_deref(), Some("T"));
    }
}

#[test]
fn an_idle_device_has_a_moment_to_say_that_its_recording_ended() {
    let mut rig = recording();
    assert!(rig.report(&d1(), Reported::Idle, None).is_nothing());
    rig.pass(SETTLE - EPSILON);
    assert!(rig.wake().is_nothing());
    rig.finish("T", &d1(), Default::default());
    rig.pass(SETTLE * 2);
    assert!(rig.wake().is_nothing());
    assert_eq!(attempt(&rig), (TaskState::Uploading, 1));

    let mut rig = recording();
    rig.report(&d1(), Reported::Idle, None);
    rig.pass(SETTLE - EPSILON);
    // Repeated news do not prolong it.
    rig.report(&d1(), Reported::Idle, None);
    rig.pass(EPSILON);
    assert!(rig.wake().is_nothing(), "the uploader may be on its way");
    rig.pass(GRACE + limits::RETURN_MAX);
    assert_eq!(rig.wake().changes, ["task.returned"], "there is no uploader to ask");
    assert_eq!(attempt(&rig), (TaskState::Pending, 2));
    assert!(earlier(&rig)[0].owed);

    let mut rig = recording();
    rig.report(&d1(), Reported::Idle, None);
    rig.report(&d1(), Reported::Recording, Some("T"));
    rig.pass(SETTLE * 2);
    assert!(rig.wake().is_nothing(), "it records all the same");
}

#[test]
fn a_finish_that_was_answered_ends_the_recording_even_if_its_callback_is_lost() {
    let mut rig = recording();
    greeted(&mut rig);
    rig.run(&d1(), Action::Finish, "T", CallEnd::Done);
    rig.report(&d1(), Reported::Idle, None);
    rig.pass(SETTLE);
    let seen = rig.wake();
    assert_eq!(
        (seen.changes.as_slice(), seen.frames()),
        (&["task.finished"][..], std::vec!["request T".to_string()])
    );
}

#[test]
fn an_uploader_is_asked_for_what_nobody_said_the_end_of() {
    // It is there: the uploader begins.
    let mut rig = recording();
    greeted(&mut rig);
    rig.report(&d1(), Reported::Idle, None);
    rig.pass(SETTLE);
    let seen = rig.wake();
    assert_eq!((seen.changes.is_empty(), seen.frames()), (true, std::vec!["request T".to_string()]));
    rig.say(&d1(), TransferMessage::UploadStarted(claim("T")));
    assert_eq!(attempt(&rig), (TaskState::Uploading, 1));

    // It is not, nor is it in the store: the task goes back, and the recording stays owed.
    let mut rig = probed();
    let seen = rig.say(&d1(), missing("T"));
    assert_eq!((seen.changes.is_empty(), seen.frames()), (true, std::vec!["query".to_string()]));
    let (find, op) = seen.op();
    assert_eq!(op, "find d1/T.mcap");
    assert!(rig.say(&d1(), status(false, Vec::new())).is_nothing());
    assert!(rig.done(find, ObjectReply::Found(Vec::new())).is_nothing());
    rig.pass(SETTLE - EPSILON);
    assert!(rig.wake().is_nothing());
    rig.pass(EPSILON);
    assert_eq!(rig.wake().changes, ["task.returned"]);
    assert!(earlier(&rig)[0].owed, "it may not have been closed yet");

    // An older uploader does not say what it works on.
    let mut rig = probed();
    let find = rig.say(&d1(), missing("T")).op().0;
    rig.done(find, ObjectReply::Found(Vec::new()));
    rig.pass(GRACE - EPSILON);
    assert!(rig.wake().changes.is_empty());
    rig.pass(EPSILON);
    assert_eq!(rig.wake().changes, ["task.returned"]);
}

/// The uploader is asked for `T`, of which nobody said the end.
fn probed() -> Rig {
    let mut rig = recording();
    greeted(&mut rig);
    rig.report(&d1(), Reported::Idle, None);
    rig.pass(SETTLE);
    assert_eq!(rig.wake().frames(), ["request T"]);
    rig
}

#[test]
fn a_recording_that_the_uploader_does_not_find_is_looked_for_in_its_list_and_in_the_store() {
    // It is at work on it already, and `upload_all` said nothing of that.
    for listed in
        [UploadStatus::Pending, UploadStatus::Active, UploadStatus::RetryWait, UploadStatus::WaitAck]
    {
        let mut rig = probed();
        rig.say(&d1(), missing("T"));
        let seen = rig.say(&d1(), status(false, std::vec![entry(listed, claim("T"))]));
        assert!(seen.changes.contains(&"task.finished"), "{listed:?}: {seen:?}");
        rig.pass(GRACE * 2);
        rig.wake();
        assert_eq!(attempt(&rig), (TaskState::Uploading, 1), "{listed:?}");
    }
    // An older one lists what waits.
    let mut rig = probed();
    rig.say(&d1(), missing("T"));
    let waiting_ack_tasks = Some(std::vec!["T".to_string()]);
    rig.say(&d1(), TransferMessage::Status(Status { waiting_ack_tasks, ..Status::default() }));
    assert_eq!(attempt(&rig), (TaskState::Uploading, 1));
    // The store has it.
    let mut rig = probed();
    let find = rig.say(&d1(), missing("T")).op().0;
    let seen = rig.done(find, ObjectReply::Found(std::vec![object_key("f/d1/T.mcap")]));
    assert_eq!((seen.changes[0], seen.op().1.as_str()), ("task.finished", "head f/d1/T.mcap"));
    // It was announced.
    let mut rig = recording();
    greeted(&mut rig);
    rig.say(&d1(), status(false, std::vec![entry(UploadStatus::Active, claim("T"))]));
    assert_eq!(attempt(&rig), (TaskState::InProgress, 1), "the recorder says that it goes on");
    rig.report(&d1(), Reported::Idle, None);
    rig.pass(SETTLE);
    assert_eq!(rig.wake().changes, ["task.finished"]);
}

#[test]
fn what_an_uploader_lists_of_a_begun_attempt_ended_unless_its_recorder_goes_on() {
    for listed in
        [UploadStatus::Pending, UploadStatus::Active, UploadStatus::RetryWait, UploadStatus::WaitAck]
    {
        let mut rig = recording();
        rig.restart();
        rig.link_up(&d1(), 1);
        let seen = rig.say(&d1(), status(true, std::vec![entry(listed, claim("T"))]));
        assert!(seen.changes.contains(&"task.finished"), "{listed:?}");
        rig.pass(GRACE * 5);
        rig.wake();
        assert_eq!(attempt(&rig), (TaskState::Uploading, 1), "{listed:?}");
    }
    let mut rig = Rig::new();
    rig.create("T", &d1());
    rig.link_up(&d1(), 1);
    let seen = rig.say(&d1(), status(true, std::vec![entry(UploadStatus::Active, claim("T"))]));
    assert!(seen.changes.is_empty(), "it was never begun");
}

#[test]
fn an_uploader_that_is_away_or_a_full_disk_is_waited_for_before_a_task_goes_back() {
    // The site died between the answer of `finish` and its callback. The uploader comes back later than the recorder.
    let mut rig = recording();
    rig.restart();
    rig.recorder_up(&d1());
    rig.report(&d1(), Reported::Idle, None);
    rig.pass(Duration::from_secs(60));
    assert!(rig.wake().is_nothing());
    greeted(&mut rig);
    rig.pass(SETTLE);
    assert_eq!(rig.wake().frames(), ["request T"]);
    rig.say(&d1(), TransferMessage::UploadStarted(claim("T")));
    assert_eq!(attempt(&rig), (TaskState::Uploading, 1));

    // It never comes.
    let mut rig = recording();
    rig.restart();
    rig.recorder_up(&d1());
    rig.report(&d1(), Reported::Idle, None);
    rig.pass(SETTLE);
    assert!(rig.wake().is_nothing());
    rig.pass(GRACE + limits::RETURN_MAX - SETTLE - EPSILON);
    assert!(rig.wake().is_nothing());
    rig.pass(EPSILON);
    assert_eq!(rig.wake().changes, ["task.returned"]);

    // The disk is full: nothing is asked for, and no task waits for that for ever.
    for room in [true, false] {
        let mut rig = recording();
        greeted(&mut rig);
        rig.pass(GRACE + limits::RETURN_MAX);
        rig.on(|tasks, cx| tasks.on_room(cx, crate::knobs::Room::Short));
        rig.report(&d1(), Reported::Idle, None);
        rig.pass(SETTLE);
        assert!(rig.wake().changes.is_empty());
        if room {
            rig.on(|tasks, cx| tasks.on_room(cx, crate::knobs::Room::Enough));
        }
        rig.pass(GRACE);
        let seen = rig.wake();
        let asked = seen.frames().contains(&"request T".to_string());
        assert_eq!((asked, seen.changes.is_empty()), (room, room), "{seen:?}");
    }
}

#[test]
fn an_uploader_that_reads_a_large_recording_first_is_waited_for() {
    let mut rig = probed();
    rig.pass(limits::PROBE_MAX - EPSILON);
    let seen = rig.wake();
    assert!(seen.changes.is_empty() && seen.ops().is_empty(), "nobody said that it is missing");
    assert!(seen.frames().contains(&"query".to_string()), "its word may have been lost");
    rig.say(&d1(), TransferMessage::UploadStarted(claim("T")));
    assert_eq!(attempt(&rig), (TaskState::Uploading, 1));

    let mut rig = probed();
    let mut asked = 0;
    for _ in 0..10 {
        rig.pass(GRACE - EPSILON);
        asked += rig.wake().frames().iter().filter(|frame| *frame == "request T").count();
        assert_eq!(attempt(&rig), (TaskState::InProgress, 1));
    }
    rig.pass(GRACE);
    assert_eq!((rig.wake().changes, asked), (std::vec!["task.returned"], 0), "it has an end");
    // An uploader that comes again and again is asked on each link, and that has an end, too.
    let mut rig = probed();
    for link in 2..100 {
        rig.link_down(&d1());
        rig.link_up(&d1(), link);
        rig.pass(SETTLE);
        rig.wake();
    }
    assert_eq!(attempt(&rig), (TaskState::Pending, 2));
}

#[test]
fn an_absent_recorder_s_recording_is_looked_for_before_its_task_goes_back() {
    let away = || {
        let mut rig = recording();
        greeted(&mut rig);
        rig.recorder_down(&d1());
        rig.pass(GRACE);
        let seen = rig.wake();
        assert!(seen.changes.is_empty() && seen.frames().contains(&"request T".to_string()), "{seen:?}");
        rig
    };
    // `quit`, and stopping its program, end a recording without a callback.
    let mut rig = away();
    rig.say(&d1(), TransferMessage::UploadStarted(claim("T")));
    assert_eq!(attempt(&rig), (TaskState::Uploading, 1));
    rig.pass(GRACE * 20);
    rig.wake();
    assert_eq!(attempt(&rig), (TaskState::Uploading, 1));

    let mut rig = away();
    let find = rig.say(&d1(), missing("T")).op().0;
    rig.say(&d1(), status(false, Vec::new()));
    rig.done(find, ObjectReply::Found(Vec::new()));
    rig.pass(SETTLE);
    assert!(rig.wake().changes.contains(&"task.returned"));
    assert!(earlier(&rig)[0].owed);

    // Links of a recorder that prove nothing do not prolong it.
    let mut rig = away();
    for _ in 0..40 {
        rig.recorder_up(&d1());
        rig.recorder_down(&d1());
        rig.pass(Duration::from_secs(10));
        rig.wake();
    }
    assert_eq!(attempt(&rig), (TaskState::Pending, 2));

    // It comes back, and records: nothing goes back.
    let mut rig = away();
    rig.say(&d1(), missing("T"));
    rig.recorder_up(&d1());
    rig.report(&d1(), Reported::Recording, Some("T"));
    rig.pass(GRACE * 20);
    rig.wake();
    assert_eq!(attempt(&rig), (TaskState::InProgress, 1));
    // Its next absence is one of its own.
    rig.recorder_down(&d1());
    rig.pass(GRACE - EPSILON);
    rig.wake();
    assert_eq!(attempt(&rig), (TaskState::InProgress, 1));
}

#[test]
fn an_unknown_acknowledgement_is_no_word_that_a_recording_is_missing() {
    let unknown = || TransferMessage::UploadNotFound {
        task: "T".into(),
        detail: Some("ACK for unknown task_id T".into()),
    };
    let mut rig = probed();
    assert!(rig.say(&d1(), unknown()).is_nothing());
    let mut rig = recording();
    rig.recorder_down(&d1());
    rig.pass(GRACE);
    rig.wake();
    rig.recorder_up(&d1());
    rig.report(&d1(), Reported::Idle, None);
    for link in 1..4 {
        rig.link_up(&d1(), link);
        rig.say(&d1(), unknown());
    }
    assert_eq!((earlier(&rig)[0].asked, earlier(&rig)[0].owed), (0, true));
}

#[test]
fn an_earlier_attempt_is_taken_up_again_only_while_the_next_was_not_begun() {
    let mut rig = recording();
    rig.recorder_down(&d1());
    rig.pass(GRACE);
    rig.wake();
    rig.recorder_up(&d1());
    let seen = rig.report(&d1(), Reported::Paused, Some("T"));
    assert_eq!(seen.changes, ["task.resumed"]);
    let row = rig.task("T");
    assert_eq!((row.state, row.wire.as_str(), row.begun), (TaskState::InProgress, "T", true));
    assert_eq!((row.started_at, row.earlier), (Some(Wall(START_MS)), None), "its own beginning is back");
    // The number that was left is used for the next attempt: it was never begun.
    rig.run(&d1(), Action::Cancel, "T", CallEnd::Done);
    assert_eq!(rig.task("T").wire.as_str(), "T.2");

    let mut rig = recording();
    rig.recorder_down(&d1());
    rig.pass(GRACE);
    rig.wake();
    rig.run(&d1(), Action::Begin, "T", CallEnd::Unknown);
    rig.recorder_up(&d1());
    let seen = rig.report(&d1(), Reported::Recording, Some("T"));
    assert_eq!((kind(&seen), seen.changes.len()), (Some(ConflictKind::OldAttempt), 0));
    assert_eq!(rig.task("T").wire.as_str(), "T.2");
}

#[test]
fn what_is_owed_is_asked_for_until_it_arrives() {
    let mut rig = recording();
    rig.recorder_down(&d1());
    rig.pass(GRACE);
    rig.wake();
    rig.restart();
    rig.link_up(&d1(), 1);
    assert_eq!(rig.say(&d1(), status(true, Vec::new())).frames(), ["request T"]);
    assert!(rig.say(&d1(), status(false, Vec::new())).frames().is_empty(), "once, for a while");
    rig.pass(Duration::from_millis(rig.knobs.request_again_ms));
    assert_eq!(rig.say(&d1(), status(false, Vec::new())).frames(), ["request T"]);
    let entry = UploadEntry { announced: claim("T"), status: UploadStatus::Active, last_error: None };
    rig.pass(Duration::from_millis(rig.knobs.request_again_ms));
    assert!(rig.say(&d1(), status(false, std::vec![entry])).frames().is_empty(), "it is on its way");
    let entry = UploadEntry { announced: claim("T"), status: UploadStatus::Completed, last_error: None };
    assert_eq!(rig.say(&d1(), status(false, std::vec![entry])).changes, ["task.owed"]);
    assert!(!earlier(&rig)[0].owed);
}

#[test]
fn what_is_owed_and_twice_not_found_is_given_up_but_only_on_different_links() {
    let mut rig = recording();
    rig.recorder_down(&d1());
    rig.pass(GRACE);
    rig.wake();
    // While nobody knows whether it is still recorded, and while it is, not finding it proves nothing.
    for link in 1..=3 {
        rig.link_up(&d1(), link);
        rig.say(&d1(), missing("T"));
    }
    rig.run(&d1(), Action::Begin, "T", CallEnd::Unknown);
    rig.recorder_up(&d1());
    rig.report(&d1(), Reported::Recording, Some("T"));
    rig.link_up(&d1(), 4);
    rig.say(&d1(), missing("T"));
    assert_eq!((earlier(&rig)[0].asked, earlier(&rig)[0].owed), (0, true));
    rig.report(&d1(), Reported::Idle, None);
    for (link, asked, owed) in [(5, 1, true), (5, 1, true), (6, 2, false)] {
        rig.link_up(&d1(), link);
        let seen = rig.say(&d1(), missing("T"));
        assert_eq!(seen.codes().contains(&"recording_missing"), !owed, "people are told of its end");
        let entry = earlier(&rig)[0].clone();
        assert_eq!((entry.asked, entry.owed), (asked, owed), "link {link}");
    }
    // A finish callback says that it is there after all.
    rig.link_down(&d1());
    let seen = rig.finish("T", &d1(), Default::default());
    let handled = Finish::TransferOffline;
    assert_eq!(seen.answer(), &Ok(Response::Finished { state: TaskState::Pending, handled }));
    assert_eq!((earlier(&rig)[0].asked, earlier(&rig)[0].owed), (0, true));
}

#[test]
fn a_task_that_is_called_off_while_it_is_recorded_still_owes_the_recording() {
    let mut rig = recording();
    rig.ask(Request::CancelTask { task: "T".into() });
    assert_eq!((rig.state("T"), earlier(&rig)[0].owed), (TaskState::Cancelled, true));
    rig.restart();
    rig.link_up(&d1(), 1);
    assert_eq!(rig.say(&d1(), status(true, Vec::new())).frames(), ["request T"], "also after a restart");
}

#[test]
fn each_way_to_contradict_the_records_is_shown_and_goes_when_it_is_over() {
    let mut rig = Rig::new();
    rig.recorder_up(&d1());
    let seen = rig.report(&d1(), Reported::Recording, Some("stranger"));
    assert_eq!(kind(&seen), Some(ConflictKind::UnknownTask));
    assert!(conflicts(&rig.report(&d1(), Reported::Recording, Some("stranger"))).is_empty(), "told once");
    assert_eq!(kind(&rig.report(&d1(), Reported::Idle, None)), None);

    let mut rig = recording();
    rig.create("U", &d1());
    let seen = rig.report(&d1(), Reported::Ready, Some("U"));
    assert_eq!(kind(&seen), Some(ConflictKind::OtherTask));
    assert_eq!(kind(&rig.recorder_down(&d1())), None, "what a lost link said is forgotten");

    let mut rig = recording();
    assert!(conflicts(&rig.finish("T", &d1(), Default::default())).is_empty(), "it may be about to say so");
    rig.pass(SETTLE - EPSILON);
    assert!(conflicts(&rig.wake()).is_empty());
    rig.pass(EPSILON);
    assert_eq!(kind(&rig.wake()), Some(ConflictKind::Over));
    assert_eq!(kind(&rig.report(&d1(), Reported::Idle, None)), None);
}

#[test]
fn a_conflict_is_settled_only_by_who_saw_it() {
    let resolve = |rig: &mut Rig, how, holds: &str| {
        rig.ask(Request::Resolve { device: d1(), how, holds: holds.into() })
    };
    let mut rig = recording();
    assert_eq!(resolve(&mut rig, Resolve::Release, "T").refusal(), &Refusal::NoConflict(d1()));
    rig.create("U", &d1());
    rig.report(&d1(), Reported::Recording, Some("U"));
    assert!(matches!(resolve(&mut rig, Resolve::Release, "T").refusal(), Refusal::ConflictChanged(_)));
    let seen = resolve(&mut rig, Resolve::Release, "U");
    assert_eq!(seen.answer(), &Ok(Response::Resolved { device: d1(), left: None }));
    assert_eq!((attempt(&rig), rig.state("U")), ((TaskState::Pending, 2), TaskState::InProgress));
    assert!(earlier(&rig)[0].owed);

    let mut rig = Rig::new();
    rig.report(&d1(), Reported::Recording, Some("stranger"));
    let refused = resolve(&mut rig, Resolve::Release, "stranger");
    assert!(matches!(refused.refusal(), Refusal::ConflictNeedsCommand(_)));
    for (how, action) in [(Resolve::Finish, Action::Finish), (Resolve::Drop, Action::Cancel)] {
        let seen = resolve(&mut rig, how, "stranger");
        let command = seen.cleared();
        assert_eq!((command.action, command.task.as_deref()), (action, Some("stranger")));
    }
    rig.report(&d1(), Reported::Ready, Some("stranger"));
    assert_eq!(resolve(&mut rig, Resolve::Drop, "stranger").cleared().action, Action::Clear);
    let refused = resolve(&mut rig, Resolve::Finish, "stranger");
    assert!(matches!(refused.refusal(), Refusal::ConflictNeedsCommand(_)), "there is nothing to keep");
}

#[test]
fn an_attempt_that_was_given_up_can_be_ended_by_its_own_name_while_the_device_holds_it() {
    let mut rig = recording();
    rig.recorder_down(&d1());
    rig.pass(GRACE);
    rig.wake();
    rig.run(&d1(), Action::Begin, "T", CallEnd::Unknown);
    let command = |rig: &mut Rig, action| {
        let command = rig.command(&d1(), action, Some("T"));
        rig.ask(Request::Command(command)).cleared().task.clone()
    };
    assert_eq!(
        command(&mut rig, Action::Finish).as_deref(),
        Some("T.2"),
        "nobody says that it holds the first"
    );
    rig.report(&d1(), Reported::Recording, Some("T"));
    for action in [Action::Finish, Action::Cancel] {
        assert_eq!(command(&mut rig, action).as_deref(), Some("T"));
    }
    rig.run(&d1(), Action::Cancel, "T", CallEnd::Done);
    assert!(!earlier(&rig)[0].owed, "the device dropped it");
}

#[test]
fn a_device_that_is_ready_for_a_name_that_nobody_can_have_is_busy() {
    let mut rig = Rig::new();
    rig.create("T", &d1());
    rig.report(&d1(), Reported::Ready, None);
    let config = rig.command(&d1(), Action::Config, Some("T"));
    let busy = Refusal::RecorderBusy { state: "ready".into(), task: String::new() };
    assert_eq!(rig.ask(Request::Command(config)).refusal(), &busy);
}

#[test]
fn people_are_told_of_recordings_that_are_owed_and_given_up() {
    let mut rig = recording();
    rig.recorder_down(&d1());
    rig.pass(GRACE);
    rig.wake();
    rig.link_up(&d1(), 1);
    let failed = entry(UploadStatus::Failed, claim("T"));
    let seen = rig.say(&d1(), status(true, std::vec![failed]));
    assert_eq!((seen.codes(), earlier(&rig)[0].owed), (std::vec!["recording_missing"], false));

    // More attempts than a task remembers: the oldest is forgotten.
    let mut rig = recording();
    let mut codes = Vec::new();
    for _ in 0..=limits::ATTEMPTS_KEPT {
        rig.recorder_down(&d1());
        rig.pass(GRACE);
        let seen = rig.wake();
        assert_eq!(seen.changes, ["task.returned"]);
        codes.extend(seen.codes());
        rig.recorder_up(&d1());
        let wire = rig.task("T").wire;
        rig.report(&d1(), Reported::Recording, Some(wire.as_str()));
        assert_eq!(rig.state("T"), TaskState::InProgress);
    }
    assert_eq!((codes, earlier(&rig).len()), (std::vec!["recording_missing"], limits::ATTEMPTS_KEPT));
}

#[test]
fn a_recorder_that_was_away_calls_back_with_the_token_of_its_own_attempt() {
    let mut rig = Rig::new();
    rig.knobs.callback_tokens = true;
    rig.create("T", &d1());
    rig.recorder_up(&d1());
    let mut command = rig.command(&d1(), Action::Config, Some("T"));
    command.token = Some(crate::id::SecretRef { handle: 4, sha256: sha() });
    let cleared = rig.ask(Request::Command(command)).cleared().clone();
    rig.on(|tasks, cx| tasks.on_command_sent(cx, &cleared));
    rig.end(&cleared, CallEnd::Done);
    rig.run(&d1(), Action::Begin, "T", CallEnd::Done);
    rig.report(&d1(), Reported::Recording, Some("T"));
    rig.recorder_down(&d1());
    rig.pass(GRACE);
    rig.wake();
    assert_eq!(attempt(&rig), (TaskState::Pending, 2));
    let finish = |rig: &mut Rig, task: &str, credential: Option<Sha256>| {
        let facts = crate::row::RecordingFacts::default();
        rig.ask(Request::CallbackFinish { task: task.into(), device: d1(), facts, credential })
    };
    let wrong = Some(Sha256::of(b"wrong"));
    for (task, credential) in [("T", None), ("T", wrong), ("T.2", Some(sha()))] {
        assert_eq!(finish(&mut rig, task, credential).refusal(), &Refusal::Unauthorized, "{task}");
    }
    // While it is given up, its recorder is believed by what that attempt was given, also after a restart.
    rig.restart();
    assert!(finish(&mut rig, "T", Some(sha())).answer().is_ok());
    rig.recorder_up(&d1());
    rig.report(&d1(), Reported::Recording, Some("T"));
    assert_eq!((attempt(&rig), rig.task("T").token_sha256), ((TaskState::InProgress, 1), Some(sha())));
    assert_eq!(finish(&mut rig, "T", wrong).refusal(), &Refusal::Unauthorized);
    assert!(finish(&mut rig, "T", Some(sha())).answer().is_ok());
    assert_eq!(rig.state("T"), TaskState::Uploading);
}

#[test]
fn what_a_recorder_holds_under_a_name_that_no_task_can_have_is_shown_and_can_be_settled() {
    for (state, action) in [(Reported::Recording, Action::Cancel), (Reported::Ready, Action::Clear)] {
        let mut rig = recording();
        let report = Report { state, task: None, said: "take 1".into() };
        let seen = rig.on(|tasks, cx| tasks.on_recorder_reported(cx, &d1(), conn(100), &report, true));
        assert_eq!(kind(&seen), Some(ConflictKind::UnknownTask));
        assert_eq!(conflicts(&seen)[0].as_ref().expect("shown").device_task, "take 1");
        assert_eq!(attempt(&rig), (TaskState::InProgress, 1), "nothing is concluded from it");
        let drop = |holds: &str| Request::Resolve { device: d1(), how: Resolve::Drop, holds: holds.into() };
        assert!(matches!(rig.ask(drop("take 2")).refusal(), Refusal::ConflictChanged(_)));
        let seen = rig.ask(drop("take 1"));
        let cleared = seen.cleared().clone();
        assert_eq!((cleared.action, cleared.task.as_deref()), (action, Some("take 1")));
        rig.end(&cleared, CallEnd::Done);
        assert_eq!(kind(&rig.report(&d1(), Reported::Idle, None)), None);
    }
}
