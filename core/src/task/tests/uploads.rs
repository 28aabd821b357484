//! Messages of uploaders up to verification, and asking for uploads again.

use super::*;

fn uploading(rig: &mut Rig, task: &str) {
    rig.create(task, &d1());
    rig.finish(task, &d1(), Default::default());
    assert_eq!(rig.state(task), TaskState::Uploading);
}

#[test]
fn an_upload_that_began_ends_the_recording_and_binds_its_key() {
    let mut rig = Rig::new();
    rig.link_up(&d1(), 1);
    rig.create("T", &d1());
    let seen = rig.say(&d1(), TransferMessage::UploadStarted(claim("T")));
    assert_eq!(seen.changes, ["task.finished", "episode.bound"]);
    assert!(rig.say(&d1(), TransferMessage::UploadStarted(claim("T"))).is_nothing());
    rig.create("U", &d1());
    let stolen = Announced { key: claim("T").key, ..claim("U") };
    let seen = rig.say(&d1(), TransferMessage::UploadStarted(stolen));
    assert_eq!(seen.codes(), ["key_conflict"]);
}

#[test]
fn messages_about_tasks_of_others_change_nothing_and_are_told() {
    let mut rig = Rig::new();
    rig.create("T", &d1());
    rig.link_up(&d2(), 1);
    for task in ["T", "nope", "../x"] {
        let named = Announced { task: task.into(), ..claim("T") };
        for message in [
            TransferMessage::UploadStarted(named.clone()),
            TransferMessage::UploadComplete(named.clone()),
            TransferMessage::UploadFailed { task: task.into(), reason: None },
            TransferMessage::UploadNotFound { task: task.into(), detail: None },
            status(false, std::vec![waiting(named)]),
        ] {
            let seen = rig.say(&d2(), message.clone());
            assert_eq!(seen.codes(), ["not_owned"], "{message:?}");
            assert!(seen.changes.is_empty() && seen.facts.is_empty() && seen.ops().is_empty());
        }
    }
    assert_eq!(rig.state("T"), TaskState::Pending);
    assert!(rig.say(&d2(), TransferMessage::Other("local_cleanup_failed".into())).is_nothing());
}

#[test]
fn a_failed_upload_fails_the_current_attempt_only() {
    let mut rig = Rig::new();
    rig.link_up(&d1(), 1);
    uploading(&mut rig, "T");
    let failed = TransferMessage::UploadFailed { task: "T".into(), reason: Some("AccessDenied".into()) };
    rig.say(&d1(), failed.clone());
    assert_eq!((rig.state("T"), rig.task("T").error.as_deref()), (TaskState::Failed, Some("AccessDenied")));
    assert!(rig.say(&d1(), failed).is_nothing(), "final is final");

    rig.create("U", &d1());
    let failed = TransferMessage::UploadFailed { task: "U".into(), reason: None };
    assert!(rig.say(&d1(), failed.clone()).is_nothing(), "nothing of it was recorded");
    rig.report(&d1(), Reported::Recording, Some("U"));
    rig.run(&d1(), Action::Cancel, "U", crate::fact::CallEnd::Done);
    rig.report(&d1(), Reported::Recording, Some("U.2"));
    assert!(rig.say(&d1(), failed).is_nothing(), "the first attempt is over");
    let failed = TransferMessage::UploadFailed { task: "U.2".into(), reason: None };
    rig.say(&d1(), failed);
    assert_eq!(rig.task("U").error.as_deref(), Some("upload failed"));
}

#[test]
fn a_lost_request_is_made_again_when_the_uploader_shows_that_it_knows_nothing_of_it() {
    let mut rig = Rig::new();
    rig.link_up(&d1(), 1);
    uploading(&mut rig, "T");
    let empty = || status(false, Vec::new());
    assert!(rig.say(&d1(), empty()).is_nothing(), "asked a moment ago");
    rig.pass(Duration::from_secs(31));
    assert_eq!(rig.say(&d1(), empty()).frames(), ["request T"]);
    assert!(rig.say(&d1(), empty()).is_nothing());
    rig.link_down(&d1());
    rig.link_up(&d1(), 2);
    let greeting = rig.say(&d1(), status(true, Vec::new()));
    assert_eq!(greeting.frames(), ["request T"], "the request may have gone down with the old link");
}

#[test]
fn an_older_uploader_that_lists_only_what_waits_is_asked_again_on_the_same_link() {
    let scant = || {
        let waiting_ack_tasks = Some(Vec::new());
        TransferMessage::Status(Status { waiting_ack_tasks, ..Status::default() })
    };
    let mut rig = Rig::new();
    rig.link_up(&d1(), 1);
    uploading(&mut rig, "T");
    assert!(rig.say(&d1(), scant()).is_nothing(), "asked a moment ago");
    rig.pass(Duration::from_secs(31));
    assert_eq!(rig.say(&d1(), scant()).frames(), ["request T"]);
    // What it began it does not list: it is not asked for that.
    rig.say(&d1(), TransferMessage::UploadStarted(Announced { key: None, ..claim("T") }));
    rig.pass(Duration::from_secs(31));
    assert!(rig.say(&d1(), scant()).frames().is_empty());
}

#[test]
fn what_the_uploader_lists_as_on_its_way_is_not_asked_for_again() {
    use UploadStatus::{Active, Completed, Failed, Pending, RetryWait, Unknown};
    for (listed, asked) in [
        (Pending, false),
        (Active, false),
        (RetryWait, false),
        (Completed, false),
        (Failed, true),
        (Unknown, true),
    ] {
        let mut rig = Rig::new();
        uploading(&mut rig, "T");
        rig.link_up(&d1(), 1);
        let seen = rig.say(&d1(), status(true, std::vec![entry(listed, claim("T"))]));
        assert_eq!(!seen.frames().is_empty(), asked, "{listed:?}");
    }
    let mut rig = Rig::new();
    uploading(&mut rig, "T");
    rig.link_up(&d1(), 1);
    let seen = rig.say(&d1(), status(true, std::vec![waiting(claim("T"))]));
    assert!(seen.frames().is_empty(), "it is being verified");
    assert_eq!(seen.op().1, "head f/d1/T.mcap");
}

#[test]
fn a_short_status_asks_for_nothing_and_a_short_greeting_for_the_whole() {
    let mut rig = Rig::new();
    uploading(&mut rig, "T");
    rig.link_up(&d1(), 1);
    let short = |connected| TransferMessage::Status(Status { connected, ..Status::default() });
    assert!(rig.say(&d1(), short(false)).is_nothing());
    assert_eq!(rig.say(&d1(), short(true)).frames(), ["query", "request T"]);
}

#[test]
fn not_found_is_noted_but_not_believed() {
    let mut rig = Rig::new();
    rig.link_up(&d1(), 1);
    uploading(&mut rig, "T");
    let lost = |detail: Option<&str>| TransferMessage::UploadNotFound {
        task: "T".into(),
        detail: detail.map(ToString::to_string),
    };
    let seen = rig.say(&d1(), lost(Some("No MCAP file matching T in /rec")));
    assert_eq!(seen.changes, ["task.noted"]);
    assert_eq!(seen.op().1, "find d1/T.mcap", "no key was ever named");
    assert_eq!(rig.state("T"), TaskState::Uploading);
    rig.say(&d1(), TransferMessage::UploadStarted(claim("T")));
    assert_eq!(rig.task("T").error, None, "it works after all");
    let seen = rig.say(&d1(), lost(None));
    assert_eq!(rig.task("T").error.as_deref(), Some("upload_not_found: upload file not found"));
    assert_eq!(seen.op().1, "head f/d1/T.mcap", "uploaders say it of what they have uploaded, too");
    let unknown = TransferMessage::UploadNotFound { task: "U".into(), detail: None };
    assert_eq!(rig.say(&d1(), unknown).codes(), ["not_owned"]);
}

#[test]
fn losing_the_uploader_or_the_recorder_moves_no_task() {
    let mut rig = Rig::new();
    rig.link_up(&d1(), 1);
    rig.create("T", &d1());
    rig.report(&d1(), Reported::Recording, Some("T"));
    assert!(rig.link_down(&d1()).is_nothing());
    assert!(rig.on(|tasks, cx| tasks.on_link_down(cx, &d1(), Role::Recorder)).is_nothing());
    assert_eq!(rig.state("T"), TaskState::InProgress);
}

#[test]
fn an_attempt_gets_few_keys_before_anything_is_uploaded_under_them() {
    let mut rig = Rig::new();
    rig.link_up(&d1(), 1);
    rig.create("T", &d1());
    let day = |n: usize| Announced { key: Some(std::format!("f/d1/{n}/T.mcap")), ..claim("T") };
    let mut bound = 0;
    for n in 0..limits::KEYS_PER_ATTEMPT * 2 {
        let seen = rig.say(&d1(), TransferMessage::UploadStarted(day(n)));
        bound += seen.changes.iter().filter(|change| **change == "episode.bound").count();
    }
    assert_eq!(bound, limits::KEYS_PER_ATTEMPT);
    assert!(rig.say(&d1(), TransferMessage::UploadStarted(day(0))).changes.is_empty());
    let last = limits::KEYS_PER_ATTEMPT * 2 - 1;
    let seen = rig.say(&d1(), TransferMessage::UploadComplete(day(last)));
    assert_eq!(seen.changes, ["episode.bound"], "what is uploaded is verified under whatever key");
}
