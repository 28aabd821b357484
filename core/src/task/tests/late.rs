//! What is heard after it was concluded from something else, or said in too many words.

use super::*;
use crate::effect::{ConflictKind, Finish};
use crate::fact::CallEnd;
use crate::input::Resolve;
use crate::row::RecordingFacts;

const GRACE: Duration = Duration::from_secs(30);

fn recording() -> Rig {
    let mut rig = Rig::new();
    rig.create("T", &d1());
    rig.recorder_up(&d1());
    rig.report(&d1(), Reported::Recording, Some("T"));
    rig
}

fn kinds(seen: &Seen) -> Vec<Option<ConflictKind>> {
    let conflict = |effect: &Effect| match effect {
        Effect::Publish(Notice::Conflict { conflict, .. }) => Some(conflict.as_ref().map(|view| view.kind)),
        _ => None,
    };
    seen.effects.iter().filter_map(conflict).collect()
}

#[test]
fn a_task_that_goes_back_under_its_own_name_keeps_the_token_that_its_device_has() {
    let mut rig = Rig::new();
    rig.knobs.callback_tokens = true;
    rig.create("T", &d1());
    rig.recorder_up(&d1());
    let mut command = rig.command(&d1(), Action::Config, Some("T"));
    command.token = Some(crate::id::SecretRef { handle: 4, sha256: sha() });
    let cleared = rig.ask(Request::Command(command)).cleared().clone();
    rig.on(|tasks, cx| tasks.on_command_sent(cx, &cleared));
    rig.end(&cleared, CallEnd::Done);
    rig.report(&d1(), Reported::Ready, Some("T"));
    rig.recorder_down(&d1());
    rig.pass(GRACE);
    rig.wake();
    assert_eq!((rig.state("T"), rig.task("T").attempt), (TaskState::Pending, 1));
    // It comes back as it was, and is begun without being configured anew.
    rig.recorder_up(&d1());
    rig.report(&d1(), Reported::Ready, Some("T"));
    rig.run(&d1(), Action::Begin, "T", CallEnd::Done);
    rig.report(&d1(), Reported::Recording, Some("T"));
    let credential = Some(sha());
    let facts = RecordingFacts::default();
    let seen = rig.ask(Request::CallbackFinish { task: "T".into(), device: d1(), facts, credential });
    assert!(seen.answer().is_ok(), "{seen:?}");
    assert_eq!(rig.state("T"), TaskState::Uploading);
}

#[test]
fn what_a_recorder_says_of_a_recording_whose_end_was_found_without_it_is_kept() {
    let mut rig = recording();
    rig.link_up(&d1(), 1);
    rig.say(&d1(), TransferMessage::UploadStarted(claim("T")));
    assert_eq!((rig.state("T"), rig.task("T").recording), (TaskState::Uploading, None));
    let said = RecordingFacts {
        error: Some("disk ran full".into()),
        messages: Some(7),
        ..RecordingFacts::default()
    };
    let seen = rig.finish("T", &d1(), said.clone());
    let handled = Finish::Repeated;
    assert_eq!(seen.answer(), &Ok(Response::Finished { state: TaskState::Uploading, handled }));
    assert_eq!((seen.changes.clone(), seen.frames().len()), (std::vec!["task.noted"], 0));
    let row = rig.task("T");
    assert_eq!((row.error.as_deref(), row.recording), (Some("disk ran full"), Some(said.clone())));
    // The first word counts.
    let other = RecordingFacts { messages: Some(8), ..RecordingFacts::default() };
    assert!(rig.finish("T", &d1(), other).changes.is_empty());
    assert_eq!(rig.task("T").recording, Some(said.clone()));

    // What the site found out about it stays in front.
    let mut rig = recording();
    rig.link_up(&d1(), 1);
    rig.say(&d1(), TransferMessage::UploadStarted(claim("T")));
    rig.on(|tasks, cx| tasks.note(cx, &task_id("T"), Some("recording_missing: nowhere".into())));
    rig.finish("T", &d1(), said);
    assert_eq!(rig.task("T").error.as_deref(), Some("recording_missing: nowhere; disk ran full"));
}

#[test]
fn a_device_that_refused_to_begin_and_is_ready_contradicts_nothing() {
    let mut rig = Rig::new();
    rig.create("T", &d1());
    rig.recorder_up(&d1());
    rig.run(&d1(), Action::Config, "T", CallEnd::Done);
    rig.report(&d1(), Reported::Ready, Some("T"));
    rig.run(&d1(), Action::Begin, "T", CallEnd::Refused);
    assert_eq!((rig.state("T"), rig.task("T").attempt), (TaskState::Pending, 2));
    assert!(kinds(&rig.report(&d1(), Reported::Ready, Some("T"))).is_empty(), "it is configured anew");
}

#[test]
fn releasing_puts_back_what_the_device_does_not_hold_and_leaves_what_it_is_ready_for() {
    let mut rig = recording();
    rig.create("U", &d1());
    assert_eq!(kinds(&rig.report(&d1(), Reported::Ready, Some("U"))), [Some(ConflictKind::OtherTask)]);
    assert_eq!(rig.state("U"), TaskState::Ready);
    rig.ask(Request::Resolve { device: d1(), how: Resolve::Release, holds: "U".into() });
    assert_eq!((rig.state("T"), rig.state("U")), (TaskState::Pending, TaskState::Ready));
}

#[test]
fn what_is_owed_and_not_found_by_its_uploader_is_looked_for_in_the_store() {
    let mut rig = recording();
    rig.recorder_down(&d1());
    rig.pass(GRACE);
    rig.wake();
    rig.recorder_up(&d1());
    rig.report(&d1(), Reported::Idle, None);
    rig.link_up(&d1(), 1);
    assert_eq!(rig.say(&d1(), status(true, Vec::new())).frames(), ["request T"]);
    let lost = TransferMessage::UploadNotFound { task: "T".into(), detail: None };
    let (find, op) = rig.say(&d1(), lost).op();
    assert_eq!(op, "find d1/T.mcap");
    let found = ObjectReply::Found(std::vec![object_key("f/d1/T.mcap")]);
    let head = rig.done(find, found).op().0;
    let sidecar = rig.done(head, head_reply()).op().0;
    let digest = rig.done(sidecar, sidecar_reply()).op().0;
    assert_eq!(rig.confirm(digest).frames(), ["ack T"]);
    assert!(rig.episode_row(1).late);
    assert!(!rig.task("T").earlier.expect("it was begun")[0].owed);
}

#[test]
fn a_device_that_names_ever_new_keys_is_slowed_down_and_what_is_found_under_them_does_not_count() {
    let mut rig = Rig::new();
    rig.link_up(&d1(), 1);
    rig.say(&d1(), status(true, Vec::new()));
    rig.create("T", &d1());
    let named = |n: u32| {
        TransferMessage::UploadComplete(Announced { key: Some(std::format!("f/d1/{n}.mcap")), ..claim("T") })
    };
    for n in 0..limits::KEYS_UNPROVEN_MAX {
        let seen = rig.say(&d1(), named(n));
        assert!(!seen.codes().contains(&"too_many_keys"), "{n}");
    }
    let refused = rig.say(&d1(), named(limits::KEYS_UNPROVEN_MAX));
    assert_eq!((refused.codes(), refused.changes.len()), (std::vec!["too_many_keys"], 0));
    let known = rig.say(&d1(), named(0));
    assert!(known.codes().is_empty(), "one that is its own already");
    rig.pass(limits::KEYS_WINDOW);
    let later = rig.say(&d1(), named(limits::KEYS_UNPROVEN_MAX));
    assert!(later.changes.contains(&"episode.bound"), "{later:?}");

    // A backlog of any length, found one after the other.
    let mut rig = Rig::new();
    for n in 0..limits::KEYS_UNPROVEN_MAX + 10 {
        rig.episode_of(&std::format!("R{n}"));
    }
}
