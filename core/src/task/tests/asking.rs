//! One schedule for each uploader: when it is asked for its list, and when again for a recording.

use super::*;
use crate::input::TransferAsk;

fn uploading(rig: &mut Rig, task: &str) {
    rig.create(task, &d1());
    rig.finish(task, &d1(), Default::default());
    assert_eq!(rig.state(task), TaskState::Uploading);
}

fn lost(task: &str, detail: &str) -> TransferMessage {
    TransferMessage::UploadNotFound { task: task.into(), detail: Some(detail.into()) }
}

/// Every moment at which something is asked until this much time has passed, in seconds, and what.
fn asked(rig: &mut Rig, seconds: u64) -> Vec<(u64, Vec<String>)> {
    let mut all = Vec::new();
    for second in 1..=seconds {
        rig.pass(Duration::from_secs(1));
        let frames = rig.wake().frames();
        if !frames.is_empty() {
            all.push((second, frames));
        }
    }
    all
}

fn query() -> Vec<String> {
    std::vec!["query".to_string()]
}

#[test]
fn an_uploader_whose_greeting_was_garbage_is_asked_for_its_list_until_it_tells_one() {
    let mut rig = Rig::new();
    rig.link_up(&d1(), 1);
    assert_eq!(asked(&mut rig, 700), [(5, query()), (65, query()), (185, query()), (425, query())]);
    let short = TransferMessage::Status(Status { connected: true, ..Status::default() });
    assert_eq!(rig.say(&d1(), short).frames(), ["query"], "a greeting without its list");
    assert!(rig.say(&d1(), status(false, Vec::new())).is_nothing());
    assert_eq!(asked(&mut rig, 2_000), [], "it told it, and nothing is waited for");
}

#[test]
fn a_whole_greeting_is_not_asked_for() {
    let mut rig = Rig::new();
    rig.link_up(&d1(), 1);
    rig.say(&d1(), status(true, Vec::new()));
    assert_eq!(asked(&mut rig, 1_000), []);
}

#[test]
fn while_a_recording_is_waited_for_its_uploader_is_asked_ever_more_seldom() {
    let mut rig = Rig::new();
    rig.link_up(&d1(), 1);
    rig.say(&d1(), status(true, Vec::new()));
    asked(&mut rig, 100);
    uploading(&mut rig, "T");
    let active = || status(false, std::vec![entry(UploadStatus::Active, claim("T"))]);
    let mut moments = Vec::new();
    for second in 1..=3_000_u64 {
        rig.pass(Duration::from_secs(1));
        let frames = rig.wake().frames();
        if !frames.is_empty() {
            assert_eq!(frames, ["query"], "its list says that it works on it");
            moments.push(second);
            assert!(rig.say(&d1(), active()).is_nothing());
        }
    }
    assert_eq!(moments, [30, 90, 210, 450, 930, 1_530, 2_130, 2_730]);
    // Another recording is waited for: the pauses begin anew.
    uploading(&mut rig, "U");
    assert_eq!(asked(&mut rig, 30), [(30, query())]);
}

#[test]
fn a_request_of_which_the_list_says_nothing_is_repeated_on_the_same_link() {
    let mut rig = Rig::new();
    rig.link_up(&d1(), 1);
    rig.say(&d1(), status(true, Vec::new()));
    uploading(&mut rig, "T");
    assert_eq!(asked(&mut rig, 30), [(30, query())]);
    assert_eq!(rig.say(&d1(), status(false, Vec::new())).frames(), ["request T"]);
    assert_eq!(asked(&mut rig, 60), [(60, query())]);
    assert_eq!(rig.say(&d1(), status(false, Vec::new())).frames(), ["request T"]);
    rig.say(&d1(), TransferMessage::UploadFailed { task: "T".into(), reason: None });
    assert_eq!(asked(&mut rig, 2_000), [], "nothing is waited for");
}

#[test]
fn an_uploader_that_never_tells_its_list_is_asked_for_the_recording_all_the_same() {
    let mut rig = Rig::new();
    rig.link_up(&d1(), 1);
    rig.say(&d1(), status(true, Vec::new()));
    uploading(&mut rig, "T");
    let both = std::vec!["query".to_string(), "request T".to_string()];
    assert_eq!(asked(&mut rig, 500), [(30, query()), (90, both.clone()), (210, both.clone()), (450, both)]);
}

#[test]
fn a_list_that_was_cut_says_nothing_of_what_is_not_in_it() {
    let mut rig = Rig::new();
    rig.link_up(&d1(), 1);
    uploading(&mut rig, "T");
    rig.pass(Duration::from_secs(31));
    let others =
        (0..limits::STATUS_UPLOADS).map(|n| entry(UploadStatus::Failed, claim(&std::format!("X{n}"))));
    assert!(rig.say(&d1(), status(true, others.collect())).frames().is_empty());
    assert!(rig.wake().frames().is_empty());
    rig.pass(Duration::from_secs(30));
    assert_eq!(rig.wake().frames(), ["query", "request T"], "asked without it");
}

#[test]
fn nothing_is_asked_without_a_link_or_at_the_end() {
    let mut rig = Rig::new();
    rig.link_up(&d1(), 1);
    uploading(&mut rig, "T");
    rig.link_down(&d1());
    assert_eq!(asked(&mut rig, 700), []);
    rig.link_up(&d1(), 2);
    rig.stopping = true;
    assert_eq!(asked(&mut rig, 700), []);
}

#[test]
fn a_recording_that_nobody_has_is_told_of_and_asked_for_seldom() {
    let mut rig = Rig::new();
    rig.link_up(&d1(), 1);
    rig.say(&d1(), status(true, Vec::new()));
    uploading(&mut rig, "T");
    let seen = rig.say(&d1(), lost("T", "No MCAP file matching T in /rec"));
    assert_eq!(rig.task("T").error.as_deref(), Some("upload_not_found: No MCAP file matching T in /rec"));
    assert_eq!(seen.frames(), ["query"]);
    let (find, op) = seen.op();
    assert_eq!(op, "find d1/T.mcap");
    assert!(rig.done(find, ObjectReply::Found(Vec::new())).is_nothing(), "its list may still name it");
    let seen = rig.say(&d1(), status(false, Vec::new()));
    assert_eq!((seen.codes(), seen.frames()), (std::vec!["recording_missing"], Vec::new()));
    let overdue = |effect: &&Effect| matches!(effect, Effect::Publish(Notice::Overdue { .. }));
    assert_eq!(seen.effects.iter().filter(overdue).count(), 1);
    assert!(rig.task("T").error.is_some_and(|error| error.starts_with("recording_missing: ")));
    assert_eq!(rig.parts.tasks.overdue(), 1);

    // On this link it is asked for seldom; what it says then is no news.
    let mut requests = Vec::new();
    for second in 1..=1_300_u64 {
        rig.pass(Duration::from_secs(1));
        if rig.wake().frames() == ["query"]
            && rig.say(&d1(), status(false, Vec::new())).frames() == ["request T"]
        {
            requests.push(second);
            let again = rig.say(&d1(), lost("T", "No MCAP file matching T in /rec"));
            assert!(again.changes.is_empty() && again.codes().is_empty(), "{again:?}");
            let find = again.op().0;
            assert!(rig.done(find, ObjectReply::Found(Vec::new())).is_nothing());
        }
    }
    assert_eq!(requests, [930], "{requests:?}");
    // On a new link at once.
    rig.link_down(&d1());
    rig.link_up(&d1(), 2);
    assert_eq!(rig.say(&d1(), status(true, Vec::new())).frames(), ["request T"]);
    // It came after all.
    rig.say(&d1(), TransferMessage::UploadStarted(claim("T")));
    assert_eq!((rig.task("T").error, rig.parts.tasks.overdue()), (None, 0), "it is on its way");
    let head = rig.say(&d1(), TransferMessage::UploadComplete(claim("T"))).op().0;
    let sidecar = rig.done(head, head_reply()).op().0;
    let digest = rig.done(sidecar, sidecar_reply()).op().0;
    assert_eq!(rig.confirm(digest).frames(), ["ack T"]);
    assert_eq!(rig.parts.tasks.overdue(), 0);
}

#[test]
fn what_the_uploader_does_not_find_and_lists_is_not_missing() {
    let mut rig = Rig::new();
    rig.link_up(&d1(), 1);
    uploading(&mut rig, "T");
    let find = rig.say(&d1(), lost("T", "No MCAP file")).op().0;
    rig.done(find, ObjectReply::Found(Vec::new()));
    let seen = rig.say(&d1(), status(false, std::vec![entry(UploadStatus::Active, claim("T"))]));
    assert!(seen.codes().is_empty());
    assert_eq!(rig.parts.tasks.overdue(), 0);
}

#[test]
fn a_word_about_our_own_acknowledgement_says_nothing_of_the_recording() {
    let mut rig = Rig::new();
    rig.link_up(&d1(), 1);
    uploading(&mut rig, "T");
    assert!(rig.say(&d1(), lost("T", "ACK for unknown task_id: T")).is_nothing());
}

#[test]
fn a_full_queue_of_the_uploader_fails_no_task() {
    let mut rig = Rig::new();
    rig.link_up(&d1(), 1);
    rig.say(&d1(), status(true, Vec::new()));
    uploading(&mut rig, "T");
    let reason = Some("upload enqueue rejected".into());
    let seen = rig.say(&d1(), TransferMessage::UploadFailed { task: "T".into(), reason });
    assert_eq!(seen.changes, ["task.noted"]);
    assert_eq!(rig.state("T"), TaskState::Uploading);
    assert_eq!(rig.task("T").error.as_deref(), Some("upload_rejected: upload enqueue rejected"));
    assert_eq!(asked(&mut rig, 30), [(30, query())]);
    let seen = rig.say(&d1(), status(false, std::vec![entry(UploadStatus::Failed, claim("T"))]));
    assert_eq!(seen.frames(), ["request T"]);
    assert_eq!(rig.task("T").error, None);
}

#[test]
fn operators_have_things_said_to_an_uploader() {
    let mut rig = Rig::new();
    let upload = |task: &str| TransferAsk::Upload { task: task.into(), priority: 7 };
    let cancel = |task: &str| TransferAsk::Cancel { task: task.into() };
    let ask = |rig: &mut Rig, ask: TransferAsk| rig.ask(Request::Transfer { device: d1(), ask });
    for all in [upload("T"), cancel("T"), TransferAsk::UploadAll, TransferAsk::StatusQuery] {
        assert_eq!(ask(&mut rig, all).refusal(), &Refusal::NoUploader(d1()));
    }
    rig.link_up(&d1(), 1);
    assert_eq!(ask(&mut rig, TransferAsk::UploadAll).frames(), ["all"]);
    assert_eq!(ask(&mut rig, TransferAsk::StatusQuery).frames(), ["query"]);
    assert_eq!(ask(&mut rig, upload("never-seen")).frames(), ["request never-seen"]);
    for bad in ["", "a b", "../x"] {
        assert!(matches!(ask(&mut rig, upload(bad)).refusal(), Refusal::BadField { field: "task_id", .. }));
    }
    rig.create("V", &d2());
    assert_eq!(ask(&mut rig, upload("V")).refusal(), &Refusal::NotOwned);
    assert_eq!(ask(&mut rig, cancel("V")).refusal(), &Refusal::NotOwned);

    uploading(&mut rig, "T");
    rig.say(&d1(), lost("T", "No MCAP file"));
    let seen = ask(&mut rig, upload("T"));
    assert_eq!(
        (seen.frames(), seen.changes.as_slice()),
        (std::vec!["request T".into()], &["task.noted"][..])
    );
    assert_eq!(rig.task("T").error, None);
    assert!(matches!(seen.answer(), Ok(Response::Sent)));
    assert_eq!(ask(&mut rig, cancel("T")).frames(), ["cancel T"]);
    assert_eq!(rig.state("T"), TaskState::Uploading, "known uploaders do nothing then");

    // The public id is the current attempt, a wire id the one it names.
    rig.create("U", &d1());
    rig.report(&d1(), Reported::Recording, Some("U"));
    rig.run(&d1(), Action::Cancel, "U", crate::fact::CallEnd::Done);
    rig.finish("U.2", &d1(), Default::default());
    assert_eq!(ask(&mut rig, upload("U")).frames(), ["request U.2"]);
    assert_eq!(ask(&mut rig, upload("U.2")).frames(), ["request U.2"]);
}
