//! Recordings whose key nobody said: looked for by their name, and verified like any other.

use super::verifies::removed;
use super::*;
use crate::fact::CallEnd;

fn named_waiting(wires: &[&str]) -> TransferMessage {
    let waiting = wires.iter().map(ToString::to_string).collect();
    TransferMessage::Status(Status { waiting_ack_tasks: Some(waiting), ..Status::default() })
}

fn keyless(wire: &str) -> Announced {
    Announced { key: None, ..claim(wire) }
}

fn uploading(rig: &mut Rig, task: &str) {
    rig.create(task, &d1());
    rig.finish(task, &d1(), Default::default());
}

fn found(keys: &[&str]) -> ObjectReply {
    ObjectReply::Found(keys.iter().map(|key| object_key(key)).collect())
}

/// From the first look to the last.
fn verified(rig: &mut Rig, head: Ticket) -> Seen {
    let sidecar = rig.done(head, head_reply()).op().0;
    let digest = rig.done(sidecar, sidecar_reply()).op().0;
    rig.confirm(digest)
}

#[test]
fn names_of_recordings_are_those_that_uploaders_give_them() {
    use crate::object::is_recording_of;
    let (device, wire) = (d1(), wire_id("T.2"));
    for key in ["f/d1/2026-11-21/T.2.mcap", "d1/T.2.mcap", "x/d1/y/z/T.2.mcap"] {
        assert!(is_recording_of(key, &device, &wire), "{key}");
    }
    for key in [
        "T.2.mcap",
        "f/d1/T.mcap",
        "f/d1/T.2.json",
        "f/d2/2026-11-21/T.2.mcap",
        "f/d1/T.2.mcap/x",
        "f/d1/xT.2.mcap",
        "f/d1x/T.2.mcap",
        "T.2.mcap/d1",
    ] {
        assert!(!is_recording_of(key, &device, &wire), "{key}");
    }
}

#[test]
fn after_a_restart_a_recording_that_only_waits_is_found_by_its_name_and_acknowledged_late() {
    let mut rig = Rig::new();
    rig.link_up(&d1(), 1);
    uploading(&mut rig, "T");
    rig.say(&d1(), TransferMessage::UploadStarted(claim("T")));
    rig.restart();
    rig.link_up(&d1(), 1);
    let (find, op) = rig.say(&d1(), named_waiting(&["T"])).op();
    assert_eq!(op, "find d1/T.mcap");
    assert!(rig.say(&d1(), named_waiting(&["T"])).is_nothing(), "it is looked for already");
    let (head, op) = rig.done(find, found(&["f/d1/T.mcap"])).op();
    assert_eq!(op, "head f/d1/T.mcap");
    let seen = verified(&mut rig, head);
    assert_eq!(seen.frames(), ["ack T"]);
    assert_eq!(rig.state("T"), TaskState::Completed);
    // The acknowledgement was lost, and again nobody remembers the key.
    rig.restart();
    rig.link_up(&d1(), 1);
    let find = rig.say(&d1(), named_waiting(&["T"])).op().0;
    let (head, op) = rig.done(find, found(&["f/d1/T.mcap"])).op();
    assert_eq!(
        op, "head f/d1/T.mcap",
        "what is at the edge is read again: nobody says what the device holds"
    );
    let (digest, op) = rig.done(head, head_reply()).op();
    assert_eq!(op, "digest f/d1/T.mcap");
    let seen = rig.done(digest, digest_reply());
    assert_eq!((seen.frames(), seen.changes.len()), (std::vec!["ack T".to_string()], 0));
}

#[test]
fn a_completion_without_a_key_is_compared_with_what_is_found() {
    let mut rig = Rig::new();
    rig.link_up(&d1(), 1);
    uploading(&mut rig, "T");
    let find = rig.say(&d1(), TransferMessage::UploadComplete(keyless("T"))).op().0;
    let head = rig.done(find, found(&["f/d1/T.mcap"])).op().0;
    let short = ObjectReply::Head(Some(ObjectFacts { len: LEN - 1, ..head_facts() }));
    assert_eq!(rig.done(head, short).codes(), ["size_mismatch"], "it said how long it is");

    // What its start said still counts, the key as well.
    uploading(&mut rig, "U");
    rig.say(&d1(), TransferMessage::UploadStarted(claim("U")));
    let (head, op) = rig.say(&d1(), TransferMessage::UploadComplete(keyless("U"))).op();
    assert_eq!(op, "head f/d1/U.mcap");
    assert_eq!(verified(&mut rig, head).frames(), ["ack U"]);
}

#[test]
fn what_is_only_there_proves_nothing() {
    let mut rig = Rig::new();
    rig.link_up(&d1(), 1);
    uploading(&mut rig, "T");
    let find = rig.say(&d1(), named_waiting(&["T"])).op().0;
    let head = rig.done(find, found(&["f/d1/T.mcap"])).op().0;
    let bare = ObjectReply::Head(Some(ObjectFacts { announced: None, ..head_facts() }));
    let sidecar = rig.done(head, bare).op().0;
    let digest = rig.done(sidecar, sidecar_with(None)).op().0;
    let seen = rig.done(digest, digest_reply());
    assert_eq!((seen.codes(), seen.frames()), (std::vec!["no_evidence"], Vec::new()));
}

#[test]
fn a_recording_that_is_not_found_is_looked_for_again_and_told_of_once() {
    let mut rig = Rig::new();
    rig.link_up(&d1(), 1);
    uploading(&mut rig, "T");
    let find = rig.say(&d1(), named_waiting(&["T"])).op().0;
    let seen = rig.done(find, found(&[]));
    assert_eq!(seen.codes(), ["key_missing"]);
    assert!(rig.task("T").error.is_some_and(|error| error.starts_with("key_missing: ")));
    rig.pass(Duration::from_secs(1));
    let (find, op) = rig.wake().op();
    assert_eq!(op, "find d1/T.mcap");
    let two = ["f/d1/T.mcap", "g/d1/T.mcap"];
    assert!(rig.done(find, found(&two)).is_nothing(), "two are as good as none, and no news");
    rig.pass(Duration::from_secs(1));
    assert!(rig.wake().is_nothing());
    rig.pass(Duration::from_secs(1));
    let find = rig.wake().op().0;
    assert!(rig.object(find, Outcome::Unknown).is_nothing());
    // The store takes one of that name.
    assert!(rig.on(|tasks, cx| tasks.on_stored(cx, &object_key("f/d1/U.mcap"))).is_nothing());
    let seen = rig.on(|tasks, cx| tasks.on_stored(cx, &object_key("f/d1/T.mcap")));
    let head = rig.done(seen.op().0, found(&["f/d1/T.mcap"])).op().0;
    assert_eq!(verified(&mut rig, head).frames(), ["ack T"]);
}

#[test]
fn what_went_to_the_cloud_and_from_the_edge_is_acknowledged_late_to_who_says_what_it_holds() {
    let mut rig = Rig::new();
    let n = rig.episode_of("T");
    // Its copy is missing, and not because we removed it: the device may hold the last one.
    let find = rig.say(&d1(), TransferMessage::UploadComplete(keyless("T"))).op().0;
    let seen = rig.done(find, found(&[]));
    assert_eq!((seen.codes(), seen.frames().len()), (std::vec!["key_missing"], 0));
    rig.link_down(&d1());
    removed(&mut rig, n);
    for (said, acknowledged) in [
        (TransferMessage::UploadComplete(keyless("T")), true),
        (TransferMessage::UploadComplete(Announced { sha256: None, ..keyless("T") }), true),
        (TransferMessage::UploadComplete(Announced { len: None, ..keyless("T") }), true),
        (named_waiting(&["T"]), false),
    ] {
        rig.restart();
        rig.link_up(&d1(), 1);
        let (find, op) = rig.say(&d1(), said).op();
        assert_eq!(op, "find d1/T.mcap", "what it may have stored since comes first");
        let seen = rig.done(find, found(&[]));
        let (frames, codes) = if acknowledged { (1, Vec::new()) } else { (0, std::vec!["no_evidence"]) };
        assert_eq!((seen.frames().len(), seen.codes(), seen.changes.len()), (frames, codes, 0));
        assert!(rig.parts.tasks.searches.is_empty(), "nothing more is looked for");
    }
    // Something else is what it says it holds, or what it stored.
    let other = Announced { sha256: Some(other_sha()), ..keyless("T") };
    let find = rig.say(&d1(), TransferMessage::UploadComplete(other)).op().0;
    assert_eq!(rig.done(find, found(&[])).frames().len(), 0);
    rig.restart();
    rig.link_up(&d1(), 1);
    let find = rig.say(&d1(), named_waiting(&["T"])).op().0;
    let seen = rig.done(find, found(&["g/d1/T.mcap"]));
    assert_eq!((seen.frames().len(), seen.op().1.as_str()), (0, "head g/d1/T.mcap"));
}

#[test]
fn a_found_object_of_another_recording_is_left_alone() {
    let mut rig = Rig::new();
    rig.link_up(&d1(), 1);
    uploading(&mut rig, "T");
    uploading(&mut rig, "U");
    rig.say(&d1(), TransferMessage::UploadStarted(claim("U")));
    let find = rig.say(&d1(), named_waiting(&["T"])).op().0;
    let seen = rig.done(find, found(&["f/d1/U.mcap"]));
    assert_eq!((seen.codes(), seen.ops()), (std::vec!["key_missing"], Vec::new()));
}

#[test]
fn only_its_own_recordings_are_looked_for() {
    let mut rig = Rig::new();
    rig.create("T", &d1());
    rig.link_up(&d2(), 1);
    assert!(rig.say(&d2(), named_waiting(&["T", "nope", "../x"])).ops().is_empty());
}

#[test]
fn a_recording_of_an_earlier_attempt_that_waits_is_found_and_kept_as_late() {
    let mut rig = Rig::new();
    rig.link_up(&d1(), 1);
    rig.create("T", &d1());
    rig.report(&d1(), Reported::Recording, Some("T"));
    rig.run(&d1(), Action::Cancel, "T", CallEnd::Done);
    assert_eq!(rig.task("T").attempt, 2);
    let find = rig.say(&d1(), named_waiting(&["T"])).op().0;
    let head = rig.done(find, found(&["f/d1/T.mcap"])).op().0;
    assert_eq!(verified(&mut rig, head).frames(), ["ack T"]);
    assert!(rig.episode_row(1).late);
    assert_eq!(rig.state("T"), TaskState::Pending);
}

#[test]
fn a_recording_that_its_uploader_does_not_find_is_acknowledged_if_the_store_has_it() {
    let mut rig = Rig::new();
    uploading(&mut rig, "T");
    rig.link_up(&d1(), 1);
    let lost = TransferMessage::UploadNotFound { task: "T".into(), detail: Some("No MCAP file".into()) };
    let find = rig.say(&d1(), lost.clone()).op().0;
    let head = rig.done(find, found(&["f/d1/T.mcap"])).op().0;
    assert_eq!(verified(&mut rig, head).frames(), ["ack T"]);
    assert_eq!(rig.state("T"), TaskState::Completed);
    assert_eq!(rig.task("T").error, None);
}

#[test]
fn a_link_that_goes_ends_its_searches() {
    let mut rig = Rig::new();
    rig.link_up(&d1(), 1);
    uploading(&mut rig, "T");
    let find = rig.say(&d1(), named_waiting(&["T"])).op().0;
    rig.link_down(&d1());
    assert_eq!(rig.tickets.take(find), None, "nobody waits for it");
    rig.pass(Duration::from_secs(100));
    assert!(rig.wake().is_nothing());
    rig.link_up(&d1(), 2);
    assert_eq!(rig.say(&d1(), named_waiting(&["T"])).op().1, "find d1/T.mcap");
}

#[test]
fn searches_are_bounded_like_verifications() {
    let mut rig = Rig::new();
    rig.link_up(&d1(), 1);
    let names: Vec<String> = (0..=limits::VERIFIES_PER_DEVICE).map(|n| std::format!("T{n}")).collect();
    for name in &names {
        rig.create(name, &d1());
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let seen = rig.say(&d1(), named_waiting(&names));
    assert_eq!(seen.ops().len(), limits::VERIFIES_PER_DEVICE);
    assert_eq!(seen.codes(), ["too_many_recordings"]);
}

#[test]
fn a_search_that_made_the_core_panic_is_given_up() {
    let mut rig = Rig::new();
    rig.link_up(&d1(), 1);
    uploading(&mut rig, "T");
    let find = rig.say(&d1(), named_waiting(&["T"])).op().0;
    rig.tickets.take(find);
    assert!(rig.on(|tasks, cx| tasks.on_quarantined(cx, find, "why")).is_nothing());
    assert!(rig.parts.tasks.searches.is_empty());
}

#[test]
fn what_is_looked_for_in_vain_keeps_no_other_recording_away() {
    let names: Vec<String> = (0..limits::VERIFIES_PER_DEVICE).map(|n| std::format!("T{n}")).collect();
    for keyed in [false, true] {
        let mut rig = Rig::new();
        rig.link_up(&d1(), 1);
        for name in names.iter().map(String::as_str).chain(["new", "next", "last"]) {
            rig.create(name, &d1());
        }
        let told = if keyed {
            status(true, names.iter().map(|name| waiting(claim(name))).collect())
        } else {
            named_waiting(&names.iter().map(String::as_str).collect::<Vec<_>>())
        };
        let ops = rig.say(&d1(), told.clone()).ops();
        assert_eq!(ops.len(), limits::VERIFIES_PER_DEVICE);
        let turned_away = rig.say(&d1(), TransferMessage::UploadComplete(claim("new")));
        assert_eq!(turned_away.codes(), ["too_many_recordings"], "nobody knows yet that they are not there");
        for (ticket, _) in ops {
            rig.done(ticket, if keyed { ObjectReply::Head(None) } else { found(&[]) });
        }
        let seen = rig.say(&d1(), TransferMessage::UploadComplete(claim("new")));
        assert_eq!((seen.codes(), seen.op().1.as_str()), (Vec::new(), "head f/d1/new.mcap"));
        let head = seen.op().0;
        assert_eq!(
            rig.say(&d1(), TransferMessage::UploadComplete(keyless("next"))).op().1,
            "find d1/next.mcap"
        );
        // Also while they are looked at once more.
        rig.say(&d1(), told);
        let seen = rig.say(&d1(), TransferMessage::UploadComplete(claim("last")));
        assert_eq!((seen.codes(), seen.op().1.as_str()), (Vec::new(), "head f/d1/last.mcap"));
        assert_eq!(verified(&mut rig, head).frames().first().map(String::as_str), Some("ack new"));
    }
}
