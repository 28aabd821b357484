//! The way from a claim to an acknowledgement, and everything that may go wrong on it.

use super::*;
use crate::outcome::{Fault, What};
use crate::row::{Qa, SyncMark};

/// A task whose upload is complete, up to the first look at the store.
fn begun(claim: &Announced) -> (Rig, Ticket) {
    let mut rig = Rig::new();
    rig.link_up(&d1(), 1);
    rig.create("T", &d1());
    let (ticket, op) = rig.say(&d1(), TransferMessage::UploadComplete(claim.clone())).op();
    assert_eq!(op, "head f/d1/T.mcap");
    (rig, ticket)
}

fn complete(rig: &mut Rig, head: Ticket) -> Seen {
    let (sidecar, op) = rig.done(head, head_reply()).op();
    assert_eq!(op, "sidecar f/d1/T.json");
    let (digest, op) = rig.done(sidecar, sidecar_reply()).op();
    assert_eq!(op, "digest f/d1/T.mcap");
    rig.confirm(digest)
}

#[test]
fn a_recording_is_acknowledged_in_the_step_that_makes_it_an_episode() {
    let (mut rig, head) = begun(&claim("T"));
    let seen = complete(&mut rig, head);
    assert_eq!(seen.changes, ["episode.recorded", "task.completed"]);
    assert_eq!(seen.frames(), ["ack T"]);
    let row = rig.episode_row(1);
    assert_eq!((row.len, row.sha256, row.late), (LEN, sha(), false));
    assert_eq!((row.qa, &row.sync), (Qa::Pending, &SyncMark::NotStarted), "no job comes of it by itself");
    assert_eq!(row.recorded_at, sidecar_facts().started_at);
    assert_eq!((row.duration_ms, row.messages), (Some(9_000), Some(40)));
    assert_eq!(row.sidecar.expect("it has one").key.as_str(), "f/d1/T.json");
    assert_eq!(row.public_id.len(), 36);
    assert_eq!(rig.state("T"), TaskState::Completed);
    assert_eq!(rig.parts.tasks.counter(), 2);
    assert!(rig.timers.armed(&TimerKey::Verify(d1(), wire_id("T"))).is_none());
}

#[test]
fn a_lone_mcap_needs_no_sidecar() {
    let (mut rig, head) = begun(&Announced { mcap_only: Some(true), ..claim("T") });
    let facts = crate::row::RecordingFacts { started_at: Some(Wall(77)), ..Default::default() };
    rig.finish("T", &d1(), facts);
    let (digest, op) = rig.done(head, head_reply()).op();
    assert_eq!(op, "digest f/d1/T.mcap");
    assert_eq!(rig.confirm(digest).frames(), ["ack T"]);
    assert_eq!(rig.episode_row(1).sidecar, None);
}

#[test]
fn a_completion_that_does_not_say_the_mode_is_of_the_mode_its_start_said() {
    // Programs of the 0.4 line leave the mode out of `upload_complete`.
    for (mode, looked) in [(Some(true), "digest f/d1/T.mcap"), (Some(false), "sidecar f/d1/T.json")] {
        let mut rig = Rig::new();
        rig.link_up(&d1(), 1);
        rig.create("T", &d1());
        rig.say(&d1(), TransferMessage::UploadStarted(Announced { mcap_only: mode, ..claim("T") }));
        let silent = Announced { mcap_only: None, ..claim("T") };
        let (head, _) = rig.say(&d1(), TransferMessage::UploadComplete(silent)).op();
        let (_, op) = rig.done(head, head_reply()).op();
        assert_eq!(op, looked);
    }
}

#[test]
fn a_list_says_the_mode_of_an_upload_whose_start_was_heard_in_an_earlier_life() {
    let mut rig = Rig::new();
    rig.link_up(&d1(), 1);
    rig.create("T", &d1());
    rig.finish("T", &d1(), crate::row::RecordingFacts::default());
    let announced = Announced { mcap_only: Some(true), ..claim("T") };
    let active = UploadEntry { status: UploadStatus::Active, announced, last_error: None };
    let list = Status { uploads: Some(std::vec![active]), ..Status::default() };
    rig.say(&d1(), TransferMessage::Status(list));
    let silent = Announced { mcap_only: None, ..claim("T") };
    let (head, _) = rig.say(&d1(), TransferMessage::UploadComplete(silent)).op();
    let (_, op) = rig.done(head, head_reply()).op();
    assert_eq!(op, "digest f/d1/T.mcap");
}

#[test]
fn what_is_there_does_not_vouch_for_itself() {
    // The object was replaced at the edge; the uploader says neither size nor digest, and that there is no sidecar.
    let vague = Announced { mcap_only: Some(true), len: None, sha256: None, ..claim("T") };
    let silent = ObjectReply::Head(Some(ObjectFacts { announced: None, ..head_facts() }));
    for (callback, acknowledged) in [(None, false), (Some(LEN + 1), false), (Some(LEN), true)] {
        let mut rig = Rig::new();
        rig.link_up(&d1(), 1);
        rig.create("T", &d1());
        rig.finish("T", &d1(), crate::row::RecordingFacts { len: callback, ..Default::default() });
        let (head, _) = rig.say(&d1(), TransferMessage::UploadComplete(vague.clone())).op();
        let (digest, _) = rig.done(head, silent.clone()).op();
        let seen = rig.done(digest, digest_reply());
        let goes_on = seen.ops().iter().any(|(_, op)| op == "head f/d1/T.mcap");
        assert_eq!(goes_on, acknowledged, "callback {callback:?}");
        assert_eq!(seen.codes().contains(&"no_evidence"), !acknowledged);
        assert_eq!(rig.parts.tasks.counter(), 1, "it is no episode yet");
    }
}

#[test]
fn the_finish_callback_dates_a_recording_whose_sidecar_does_not() {
    let mut rig = Rig::new();
    rig.link_up(&d1(), 1);
    rig.create("T", &d1());
    let facts =
        crate::row::RecordingFacts { started_at: Some(Wall(77)), duration_ms: Some(5), ..Default::default() };
    rig.finish("T", &d1(), facts);
    let head = rig.say(&d1(), TransferMessage::UploadComplete(claim("T"))).op().0;
    let sidecar = rig.done(head, head_reply()).op().0;
    // A sidecar that is no JSON is kept, and says nothing.
    let digest = rig.done(sidecar, sidecar_with(None)).op().0;
    assert_eq!(rig.confirm(digest).frames(), ["ack T"]);
    let row = rig.episode_row(1);
    assert_eq!((row.recorded_at, row.duration_ms, row.messages), (Some(Wall(77)), Some(5), None));
    assert_eq!(row.sidecar.map(|sidecar| sidecar.len), Some(300));
}

/// Every mismatch, by the step that shows it. None is acknowledged, and only another upload mends it.
#[test]
fn nothing_that_differs_from_what_was_said_of_it_is_acknowledged() {
    struct Case {
        name: &'static str,
        claim: Announced,
        head: ObjectFacts,
        sidecar: SidecarFacts,
        digest: (u64, Sha256),
        code: &'static str,
    }
    let good = |name, code| Case {
        name,
        claim: claim("T"),
        head: head_facts(),
        sidecar: sidecar_facts(),
        digest: (LEN, sha()),
        code,
    };
    let silent = Announced { len: None, sha256: None, ..claim("T") };
    let cases = [
        Case {
            head: ObjectFacts { len: 1, ..head_facts() },
            ..good("the object is shorter than announced", "size_mismatch")
        },
        Case {
            head: ObjectFacts { announced: Some(other_sha()), ..head_facts() },
            ..good("its metadata is of another recording", "digest_mismatch")
        },
        Case {
            head: ObjectFacts { announced: None, sha256: Some(other_sha()), ..head_facts() },
            ..good("the store's checksum is another", "digest_mismatch")
        },
        Case {
            sidecar: SidecarFacts { len: Some(1), ..sidecar_facts() },
            ..good("the sidecar tells another size", "size_mismatch")
        },
        Case {
            sidecar: SidecarFacts { sha256: Some(other_sha()), ..sidecar_facts() },
            ..good("the sidecar tells another digest", "digest_mismatch")
        },
        Case {
            claim: silent.clone(),
            sidecar: SidecarFacts { sha256: Some(other_sha()), ..sidecar_facts() },
            ..good("the sidecar and the metadata differ", "digest_mismatch")
        },
        Case { digest: (1, sha()), ..good("fewer bytes can be read", "size_mismatch") },
        Case { digest: (LEN, other_sha()), ..good("the bytes are others", "digest_mismatch") },
        Case {
            claim: silent.clone(),
            head: ObjectFacts { announced: None, ..head_facts() },
            digest: (LEN, other_sha()),
            ..good("the bytes are not the sidecar's", "digest_mismatch")
        },
        Case {
            claim: silent,
            sidecar: SidecarFacts::default(),
            digest: (LEN, other_sha()),
            ..good("the bytes are not the metadata's", "digest_mismatch")
        },
        Case {
            claim: Announced { len: None, ..claim("T") },
            head: ObjectFacts { len: limits::OBJECT_BYTES_MAX + 1, ..head_facts() },
            ..good("it is larger than anything we carry", "too_large")
        },
    ];
    for case in cases {
        let (mut rig, mut ticket) = begun(&case.claim);
        let replies = [
            ObjectReply::Head(Some(case.head)),
            sidecar_with(Some(case.sidecar)),
            ObjectReply::Got(Got::Digest { len: case.digest.0, sha256: case.digest.1 }),
        ];
        let mut codes = Vec::new();
        for reply in replies {
            let seen = rig.done(ticket, reply);
            assert!(seen.frames().is_empty(), "{}: no acknowledgement", case.name);
            codes = seen.codes();
            match seen.ops().first() {
                Some((next, _)) => ticket = *next,
                None => break,
            }
        }
        assert_eq!(codes, [case.code], "{}", case.name);
        let error = rig.task("T").error.expect("people can see why");
        assert!(error.starts_with(case.code), "{}: {error}", case.name);
        assert_eq!(rig.parts.tasks.counter(), 1, "{}: no episode", case.name);
        rig.pass(Duration::from_secs(3600));
        assert!(rig.wake().ops().is_empty(), "{}: time does not mend it", case.name);
        let told_again = rig.say(&d1(), status(false, std::vec![waiting(case.claim.clone())]));
        assert!(told_again.ops().is_empty(), "{}: nor does saying it again", case.name);
        let seen = rig.on(|tasks, cx| tasks.on_stored(cx, &object_key("f/d1/T.mcap")));
        let seen = complete(&mut rig, seen.op().0);
        assert_eq!(seen.frames(), ["ack T"], "{}: another upload does", case.name);
    }
}

#[test]
fn what_is_absent_is_looked_for_again_with_growing_pauses() {
    let (mut rig, mut ticket) = begun(&claim("T"));
    let mut pauses = Vec::new();
    for n in 0..9 {
        let seen = rig.done(ticket, ObjectReply::Head(None));
        let told: &[&str] = if n == 0 { &["object_missing"] } else { &[] };
        assert_eq!(seen.codes(), told, "viewers are told once");
        let at = rig.timers.armed(&TimerKey::Verify(d1(), wire_id("T"))).expect("it is tried again");
        pauses.push(rig.now.mono.until(at).as_secs());
        rig.pass(rig.now.mono.until(at));
        ticket = rig.wake().op().0;
    }
    assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
    assert_eq!(complete(&mut rig, ticket).frames(), ["ack T"]);
}

#[test]
fn a_missing_sidecar_waits_for_the_sidecar() {
    for outcome in
        [Outcome::Failed(Fault::Vanished(What::Object)), Outcome::Failed(Fault::Vanished(What::Source))]
    {
        let (mut rig, head) = begun(&claim("T"));
        let sidecar = rig.done(head, head_reply()).op().0;
        let seen = rig.object(sidecar, outcome);
        assert_eq!((seen.codes(), seen.frames().len()), (std::vec!["sidecar_missing"], 0));
        assert!(rig.on(|tasks, cx| tasks.on_stored(cx, &object_key("f/d1/U.json"))).is_nothing());
        let seen = rig.on(|tasks, cx| tasks.on_stored(cx, &object_key("f/d1/T.json")));
        assert_eq!(complete(&mut rig, seen.op().0).frames(), ["ack T"]);
    }
}

#[test]
fn an_outcome_nobody_knows_is_resolved_by_looking_again() {
    for step in 0..4 {
        for outcome in [
            Outcome::Unknown,
            Outcome::Failed(Fault::Unavailable { status: 503 }),
            Outcome::Done(ObjectReply::Deleted),
        ] {
            let (mut rig, mut ticket) = begun(&claim("T"));
            for reply in [head_reply(), sidecar_reply(), digest_reply()].into_iter().take(step) {
                ticket = rig.done(ticket, reply).op().0;
            }
            let seen = rig.object(ticket, outcome.clone());
            assert!(seen.frames().is_empty() && seen.ops().is_empty(), "{step} {outcome:?}");
            assert_eq!(seen.codes().is_empty(), !matches!(outcome, Outcome::Failed(_)));
            rig.pass(Duration::from_secs(1));
            let (head, op) = rig.wake().op();
            assert_eq!(op, "head f/d1/T.mcap", "from the start");
            assert_eq!(complete(&mut rig, head).frames(), ["ack T"]);
        }
    }
}

#[test]
fn an_object_stored_while_we_looked_makes_us_look_again() {
    let (mut rig, head) = begun(&claim("T"));
    assert!(rig.on(|tasks, cx| tasks.on_stored(cx, &object_key("f/d1/T.mcap"))).is_nothing());
    let (again, op) = rig.done(head, ObjectReply::Head(None)).op();
    assert_eq!(op, "head f/d1/T.mcap");
    assert_eq!(complete(&mut rig, again).frames(), ["ack T"]);
}

#[test]
fn a_repeated_claim_is_acknowledged_again_without_a_second_episode() {
    let (mut rig, head) = begun(&claim("T"));
    let busy = rig.say(&d1(), TransferMessage::UploadComplete(claim("T")));
    assert!(busy.ops().is_empty() && busy.changes.is_empty(), "it is being looked at");
    complete(&mut rig, head);
    for message in [
        TransferMessage::UploadComplete(claim("T")),
        TransferMessage::UploadComplete(Announced { sha256: None, ..claim("T") }),
        TransferMessage::UploadComplete(Announced { len: None, ..claim("T") }),
        status(true, std::vec![waiting(claim("T"))]),
    ] {
        let seen = rig.say(&d1(), message);
        assert_eq!(seen.frames(), ["ack T"]);
        assert!(seen.ops().is_empty() && seen.changes.is_empty());
    }
    let other = Announced { sha256: Some(other_sha()), ..claim("T") };
    let seen = rig.say(&d1(), TransferMessage::UploadComplete(other));
    assert_eq!((seen.codes(), seen.frames().len()), (std::vec!["digest_mismatch"], 0));
}

#[test]
fn a_restart_at_any_moment_ends_in_one_episode_and_an_acknowledgement() {
    for step in 0..5 {
        let (mut rig, mut ticket) = begun(&claim("T"));
        for reply in [head_reply(), sidecar_reply(), digest_reply(), head_reply()].into_iter().take(step) {
            let seen = rig.done(ticket, reply);
            if let Some((next, _)) = seen.ops().first() {
                ticket = *next;
            }
        }
        assert!(rig.restart().ops().is_empty(), "nothing is pending after a restart");
        assert_eq!(rig.tickets.take(ticket), None, "an outcome of before is nobody's");
        rig.link_up(&d1(), 2);
        let seen = rig.say(&d1(), status(true, std::vec![waiting(claim("T"))]));
        if step < 4 {
            assert_eq!(complete(&mut rig, seen.op().0).frames(), ["ack T"]);
        } else {
            assert_eq!(seen.frames(), ["ack T"]);
        }
        assert_eq!(rig.parts.tasks.counter(), 2, "one episode");
        assert_eq!(rig.state("T"), TaskState::Completed);
    }
}

#[test]
fn recordings_of_dead_tasks_and_earlier_attempts_are_kept_as_late_episodes() {
    let mut rig = Rig::new();
    rig.link_up(&d1(), 1);
    rig.create("T", &d1());
    rig.ask(Request::CancelTask { task: "T".into() });
    let head = rig.say(&d1(), TransferMessage::UploadComplete(claim("T"))).op().0;
    rig.pass(Duration::from_secs(1));
    let seen = complete(&mut rig, head);
    assert_eq!(
        (seen.changes.as_slice(), seen.frames()),
        (&["episode.recorded"][..], std::vec!["ack T".into()])
    );
    assert_eq!((rig.state("T"), rig.episode_row(1).late), (TaskState::Cancelled, true));

    let (mut rig, _) = begun(&claim("T"));
    let failed = TransferMessage::UploadFailed { task: "T".into(), reason: None };
    rig.say(&d1(), failed);
    rig.restart();
    rig.link_up(&d1(), 1);
    let seen = rig.say(&d1(), status(true, std::vec![waiting(claim("T"))]));
    assert_eq!(complete(&mut rig, seen.op().0).frames(), ["ack T"]);
    assert_eq!((rig.state("T"), rig.episode_row(1).late), (TaskState::Failed, true));

    let mut rig = Rig::new();
    rig.link_up(&d1(), 1);
    rig.create("T", &d1());
    rig.report(&d1(), Reported::Recording, Some("T"));
    rig.run(&d1(), Action::Cancel, "T", crate::fact::CallEnd::Done);
    let head = rig.say(&d1(), TransferMessage::UploadComplete(claim("T"))).op().0;
    assert_eq!(complete(&mut rig, head).changes, ["episode.recorded"]);
    let row = rig.episode_row(1);
    assert_eq!((row.task.as_str(), row.wire.as_str(), row.late), ("T", "T", true));
    assert_eq!((rig.state("T"), rig.task("T").wire.as_str()), (TaskState::Pending, "T.2"));
    // The current attempt is verified on its own.
    let head = rig.say(&d1(), TransferMessage::UploadComplete(claim("T.2"))).op().0;
    let sidecar = rig.done(head, head_reply()).op().0;
    let digest = rig.done(sidecar, sidecar_reply()).op().0;
    assert_eq!(rig.confirm(digest).frames(), ["ack T.2"]);
    assert_eq!((rig.state("T"), rig.episode_row(2).late), (TaskState::Completed, false));
}

#[test]
fn a_key_belongs_to_one_attempt_for_ever() {
    // The incident: a key of another task's episode was acknowledged, and the device deleted its only copy.
    let (mut rig, head) = begun(&claim("T"));
    rig.create("U", &d1());
    let stolen = Announced { key: claim("T").key, ..claim("U") };
    for _ in 0..2 {
        let seen = rig.say(&d1(), TransferMessage::UploadComplete(stolen.clone()));
        assert_eq!((seen.codes(), seen.frames().len()), (std::vec!["key_conflict"], 0));
        assert!(seen.ops().is_empty());
    }
    complete(&mut rig, head);
    let seen = rig.say(&d1(), TransferMessage::UploadComplete(stolen));
    assert_eq!((seen.codes(), seen.frames().len()), (std::vec!["key_conflict"], 0));
    assert_eq!(rig.state("U"), TaskState::Uploading);
}

#[test]
fn a_key_that_is_the_name_of_another_recording_is_not_taken_before_that_one_is_announced() {
    for own in [d1(), d2()] {
        let mut rig = Rig::new();
        rig.link_up(&d1(), 1);
        rig.create("T", &d1());
        rig.link_up(&d2(), 2);
        rig.create("U", &own);
        let stolen = Announced { key: claim("T").key, ..claim("U") };
        for message in
            [TransferMessage::UploadStarted(stolen.clone()), TransferMessage::UploadComplete(stolen.clone())]
        {
            let seen = rig.say(&own, message);
            assert_eq!((seen.codes(), seen.ops().len()), (std::vec!["key_conflict"], 0), "{own}");
            assert!(!seen.changes.contains(&"episode.bound"), "{own}: {:?}", seen.changes);
        }
        // The one whose name it is gets it.
        let head = rig.say(&d1(), TransferMessage::UploadComplete(claim("T"))).op().0;
        assert_eq!(complete(&mut rig, head).frames(), ["ack T"]);
    }
    // A key that is no name of a recording that anybody knows may be anybody's.
    for key in ["f/d2/V.mcap", "f/d2/T.mcap", "T.mcap"] {
        let mut rig = Rig::new();
        rig.link_up(&d1(), 1);
        rig.create("T", &d1());
        rig.create("U", &d1());
        let odd = Announced { key: Some(key.into()), ..claim("U") };
        assert_eq!(rig.say(&d1(), TransferMessage::UploadComplete(odd)).op().1, std::format!("head {key}"));
    }
}

#[test]
fn what_was_announced_before_a_restart_is_compared_after_it() {
    let silent = || Announced { len: None, sha256: None, ..claim("T") };
    let bare = || ObjectReply::Head(Some(ObjectFacts { announced: None, sha256: None, ..head_facts() }));
    let other = || ObjectReply::Got(Got::Digest { len: LEN, sha256: other_sha() });
    let facts = || crate::row::RecordingFacts { len: Some(LEN), ..Default::default() };
    let looked = |rig: &mut Rig, reply| {
        rig.restart();
        rig.link_up(&d1(), 2);
        let head = rig.say(&d1(), TransferMessage::UploadComplete(silent())).op().0;
        let sidecar = rig.done(head, bare()).op().0;
        let digest = rig.done(sidecar, sidecar_with(None)).op().0;
        rig.done(digest, reply)
    };
    // Somebody put other bytes of the same length there, and the recorder's word for the length is all that is left.
    let mut rig = Rig::new();
    rig.link_up(&d1(), 1);
    rig.create("T", &d1());
    rig.finish("T", &d1(), facts());
    rig.say(&d1(), TransferMessage::UploadComplete(claim("T")));
    let seen = looked(&mut rig, other());
    assert_eq!((seen.codes(), seen.frames().len(), seen.ops().len()), (std::vec!["digest_mismatch"], 0, 0));
    // A later word of the uploader counts in its place.
    let newer = Announced { sha256: Some(other_sha()), ..claim("T") };
    assert_eq!(
        rig.say(&d1(), TransferMessage::UploadComplete(newer)).changes,
        ["task.noted", "episode.bound"]
    );
    let confirm = looked(&mut rig, other()).op().0;
    assert_eq!(rig.done(confirm, bare()).frames(), ["ack T"]);
    // An earlier word compares, and vouches for nothing.
    let (mut rig, _) = begun(&claim("T"));
    let seen = looked(&mut rig, digest_reply());
    assert_eq!(seen.codes(), ["no_evidence"]);
}

#[test]
fn only_keys_of_mcap_objects_are_looked_at() {
    for (key, code) in [
        (Some("f/d1/T.json"), "bad_key"),
        (Some("f/../T.mcap"), "bad_key"),
        (Some("/T.mcap"), "bad_key"),
        (Some(".mcap"), "bad_key"),
        (Some("f/.mcap"), "bad_key"),
    ] {
        let mut rig = Rig::new();
        rig.link_up(&d1(), 1);
        rig.create("T", &d1());
        let claim = Announced { key: key.map(ToString::to_string), ..claim("T") };
        let seen = rig.say(&d1(), TransferMessage::UploadComplete(claim));
        assert_eq!(seen.codes(), [code], "{key:?}");
        assert!(seen.ops().is_empty() && seen.frames().is_empty());
    }
}

#[test]
fn another_claim_for_the_same_attempt_replaces_the_one_being_looked_at() {
    let (mut rig, head) = begun(&claim("T"));
    let newer = Announced { sha256: Some(other_sha()), ..claim("T") };
    let (second, _) = rig.say(&d1(), TransferMessage::UploadComplete(newer)).op();
    assert_eq!(rig.tickets.take(head), None, "the answer to the first question is nobody's");
    let facts = ObjectFacts { announced: Some(other_sha()), ..head_facts() };
    let sidecar = rig.done(second, ObjectReply::Head(Some(facts))).op().0;
    let facts = SidecarFacts { sha256: Some(other_sha()), ..sidecar_facts() };
    let digest = rig.done(sidecar, sidecar_with(Some(facts))).op().0;
    let confirm = rig.done(digest, ObjectReply::Got(Got::Digest { len: LEN, sha256: other_sha() })).op().0;
    let facts = ObjectFacts { announced: Some(other_sha()), ..head_facts() };
    assert_eq!(rig.done(confirm, ObjectReply::Head(Some(facts))).frames(), ["ack T"]);
}

#[test]
fn without_a_link_nothing_is_retried_and_the_acknowledgement_goes_to_whatever_link_there_is() {
    let (mut rig, head) = begun(&claim("T"));
    rig.done(head, ObjectReply::Head(None));
    rig.link_down(&d1());
    rig.pass(Duration::from_secs(600));
    assert!(rig.wake().is_nothing());
    rig.link_up(&d1(), 2);
    rig.pass(Duration::from_secs(600));
    let head = rig.wake().op().0;
    rig.link_down(&d1());
    rig.link_up(&d1(), 3);
    assert_eq!(complete(&mut rig, head).frames(), ["ack T"], "the hub knows the link");
}

#[test]
fn a_task_named_among_those_that_wait_is_looked_at_again() {
    let (mut rig, head) = begun(&claim("T"));
    rig.done(head, ObjectReply::Head(None));
    let named = |tasks: &[&str]| {
        TransferMessage::Status(Status {
            waiting_ack_tasks: Some(tasks.iter().map(ToString::to_string).collect()),
            ..Status::default()
        })
    };
    assert_eq!(rig.say(&d1(), named(&["T"])).op().1, "head f/d1/T.mcap");
    rig.create("U", &d1());
    let ops = rig.say(&d1(), named(&["U", "nope", "../"])).ops();
    assert_eq!(ops.len(), 1, "{ops:?}");
    assert_eq!(ops[0].1, "find d1/U.mcap", "no key is known");
}

#[test]
fn a_recording_that_a_list_names_twice_is_acknowledged_once() {
    let (mut rig, head) = begun(&claim("T"));
    complete(&mut rig, head);
    let both = TransferMessage::Status(Status {
        connected: true,
        uploads: Some(std::vec![entry(UploadStatus::WaitAck, claim("T"))]),
        waiting_ack_tasks: Some(std::vec!["T".to_string()]),
        ..Status::default()
    });
    assert_eq!(rig.say(&d1(), both).frames(), ["ack T"]);
}

#[test]
fn recordings_beyond_the_limit_are_taken_when_there_is_room() {
    let mut rig = Rig::new();
    rig.link_up(&d1(), 1);
    let tasks: Vec<String> = (0..=limits::VERIFIES_PER_DEVICE).map(|n| std::format!("T{n}")).collect();
    for task in &tasks {
        rig.create(task, &d1());
    }
    let all: Vec<_> = tasks.iter().map(|task| waiting(claim(task))).collect();
    let seen = rig.say(&d1(), status(true, all));
    assert_eq!(seen.codes(), ["too_many_recordings"]);
    let heads = seen.ops();
    assert_eq!(heads.len(), limits::VERIFIES_PER_DEVICE);
    let mut frames = Vec::new();
    for (head, _) in heads {
        let sidecar = rig.done(head, head_reply()).op().0;
        let digest = rig.done(sidecar, sidecar_reply()).op().0;
        frames.extend(rig.confirm(digest).frames());
    }
    assert_eq!(frames.last().map(String::as_str), Some("query"), "what is left is asked for");
    assert_eq!(frames.iter().filter(|frame| *frame == "query").count(), 1);
    let last = tasks.last().expect("there are some");
    assert_eq!(rig.say(&d1(), status(false, std::vec![waiting(claim(last))])).ops().len(), 1);
}

#[test]
fn a_stopping_site_begins_no_look_but_keeps_what_was_read() {
    let (mut rig, head) = begun(&claim("T"));
    rig.stopping = true;
    assert!(rig.done(head, head_reply()).ops().is_empty());
    assert_eq!(rig.tickets.open(), 0, "nothing is left to wait for");
    assert!(rig.say(&d1(), TransferMessage::UploadComplete(claim("T"))).ops().is_empty());

    let (mut rig, head) = begun(&claim("T"));
    let sidecar = rig.done(head, head_reply()).op().0;
    let digest = rig.done(sidecar, sidecar_reply()).op().0;
    let confirm = rig.done(digest, digest_reply()).op().0;
    rig.stopping = true;
    assert_eq!(rig.done(confirm, head_reply()).frames(), ["ack T"]);

    let (mut rig, head) = begun(&claim("T"));
    let sidecar = rig.done(head, head_reply()).op().0;
    let digest = rig.done(sidecar, sidecar_reply()).op().0;
    let confirm = rig.done(digest, digest_reply()).op().0;
    rig.stopping = true;
    let other = ObjectFacts { etag: crate::id::ETag::new("f"), ..head_facts() };
    let seen = rig.done(confirm, ObjectReply::Head(Some(other)));
    assert_eq!((seen.ice(), seen.ops().len()), (THAWED.map(ToString::to_string).to_vec(), 0));
    assert_eq!(rig.tickets.open(), 0);
}

const FROZEN: [&str; 2] = ["freeze f/d1/T.mcap", "freeze f/d1/T.json"];
const THAWED: [&str; 2] = ["thaw f/d1/T.mcap", "thaw f/d1/T.json"];

/// Up to the last look, and what the step that asked for it said besides.
fn read(rig: &mut Rig, head: Ticket) -> (Ticket, Seen) {
    let sidecar = rig.done(head, head_reply()).op().0;
    let digest = rig.done(sidecar, sidecar_reply()).op().0;
    let seen = rig.done(digest, digest_reply());
    (seen.op().0, seen)
}

#[test]
fn a_digest_of_bytes_that_were_replaced_while_they_were_read_is_not_accepted() {
    // The incident: a device sent the recording again while we read it. The episode named bytes that were gone.
    let (mut rig, head) = begun(&claim("T"));
    let sidecar = rig.done(head, head_reply()).op().0;
    let digest = rig.done(sidecar, sidecar_reply()).op().0;
    assert!(rig.on(|tasks, cx| tasks.on_stored(cx, &object_key("f/d1/T.mcap"))).is_nothing());
    let seen = rig.done(digest, digest_reply());
    assert!(seen.frames().is_empty() && seen.changes.is_empty());
    let (again, op) = seen.op();
    assert_eq!(op, "head f/d1/T.mcap", "from the start");
    let sidecar = rig.done(again, head_reply()).op();
    assert_eq!(sidecar.1, "sidecar f/d1/T.json");
    let digest = rig.done(sidecar.0, sidecar_reply()).op().0;
    assert_eq!(rig.confirm(digest).frames(), ["ack T"]);
}

#[test]
fn a_last_look_sees_a_replacement_whose_hint_was_lost() {
    let etag = |text| crate::id::ETag::new(text);
    for now in [
        None,
        Some(ObjectFacts { etag: etag("f"), ..head_facts() }),
        Some(ObjectFacts { len: LEN + 1, ..head_facts() }),
        Some(ObjectFacts { announced: Some(other_sha()), ..head_facts() }),
    ] {
        let (mut rig, head) = begun(&claim("T"));
        let (confirm, _) = read(&mut rig, head);
        let seen = rig.done(confirm, ObjectReply::Head(now.clone()));
        assert!(seen.frames().is_empty() && seen.changes.is_empty(), "{now:?}");
        assert_eq!(seen.ice(), THAWED, "the device may go on: {now:?}");
        let (again, op) = seen.op();
        assert_eq!(op, "head f/d1/T.mcap", "{now:?}");
        assert_eq!(complete(&mut rig, again).frames(), ["ack T"]);
    }
    // A hint that came in the last moment.
    let (mut rig, head) = begun(&claim("T"));
    let (confirm, _) = read(&mut rig, head);
    assert!(rig.on(|tasks, cx| tasks.on_stored(cx, &object_key("f/d1/T.json"))).is_nothing());
    let again = rig.done(confirm, head_reply()).op().0;
    assert_eq!(complete(&mut rig, again).frames(), ["ack T"]);
}

#[test]
fn what_is_acknowledged_was_frozen_before_the_last_look_and_stays_so() {
    // The incident: all devices share one pair of keys. One of them overwrote a recording that was acknowledged.
    let (mut rig, head) = begun(&claim("T"));
    let (confirm, seen) = read(&mut rig, head);
    assert_eq!(seen.ice(), FROZEN);
    let last = seen.effects.last().expect("there are some");
    assert!(matches!(last, Effect::Object { .. }), "the look comes after it: {:?}", seen.effects);
    let seen = rig.done(confirm, head_reply());
    assert_eq!(
        (seen.ice(), seen.frames()),
        (FROZEN.map(ToString::to_string).to_vec(), std::vec!["ack T".into()])
    );
    assert_eq!(rig.restart().ice(), FROZEN, "a restart freezes it again");

    let (mut rig, head) = begun(&Announced { mcap_only: Some(true), ..claim("T") });
    let digest = rig.done(head, head_reply()).op().0;
    assert_eq!(rig.confirm(digest).ice(), FROZEN[..1], "there is no sidecar to keep");
    assert_eq!(rig.restart().ice(), FROZEN[..1]);
}

#[test]
fn a_last_look_that_ends_otherwise_thaws_what_it_froze() {
    for outcome in [Outcome::Unknown, Outcome::Failed(Fault::Unavailable { status: 503 })] {
        let (mut rig, head) = begun(&claim("T"));
        let (confirm, _) = read(&mut rig, head);
        assert_eq!(rig.object(confirm, outcome).ice(), THAWED);
    }
    let (mut rig, head) = begun(&claim("T"));
    read(&mut rig, head);
    let newer = Announced { sha256: Some(other_sha()), ..claim("T") };
    let seen = rig.say(&d1(), TransferMessage::UploadComplete(newer));
    assert_eq!(
        (seen.ice(), seen.op().1.as_str()),
        (THAWED.map(ToString::to_string).to_vec(), "head f/d1/T.mcap")
    );
}

#[test]
fn a_rejected_recording_is_frozen_as_long_as_its_copy_is_at_the_edge() {
    let mut rig = Rig::new();
    let n = rig.episode_of("T");
    let judge = Request::Judge { episode: EpisodeId(n), approve: false, reason: None };
    assert_eq!(rig.ask(judge).changes, ["episode.judged"]);
    assert_eq!(rig.restart().ice(), FROZEN);
}

#[test]
fn without_evidence_the_copy_at_the_edge_is_read_again_before_it_is_acknowledged_again() {
    let mut rig = Rig::new();
    rig.episode_of("T");
    let silent = Announced { len: None, sha256: None, ..claim("T") };
    for message in
        [TransferMessage::UploadComplete(silent.clone()), status(true, std::vec![waiting(silent.clone())])]
    {
        let seen = rig.say(&d1(), message.clone());
        assert!(seen.frames().is_empty() && seen.changes.is_empty(), "{seen:?}");
        let (head, op) = seen.op();
        assert_eq!(op, "head f/d1/T.mcap");
        let busy = rig.say(&d1(), message);
        assert!(busy.frames().is_empty() && busy.ops().is_empty(), "it is being looked at");
        let (digest, op) = rig.done(head, head_reply()).op();
        assert_eq!(op, "digest f/d1/T.mcap");
        let seen = rig.done(digest, digest_reply());
        assert_eq!((seen.frames(), seen.ice().len()), (std::vec!["ack T".into()], 0));
        assert!(seen.changes.is_empty() && seen.ops().is_empty());
    }
    assert_eq!(rig.parts.tasks.counter(), 2, "one episode");

    // The copy is not what the episode is.
    let head = rig.say(&d1(), TransferMessage::UploadComplete(silent)).op().0;
    let digest = rig.done(head, head_reply()).op().0;
    let seen = rig.done(digest, ObjectReply::Got(Got::Digest { len: LEN, sha256: other_sha() }));
    assert_eq!((seen.codes(), seen.frames().len(), seen.ice().len()), (std::vec!["digest_mismatch"], 0, 0));
}

#[test]
fn what_was_said_before_the_end_of_a_task_is_no_evidence_after_it() {
    let mut rig = Rig::new();
    rig.create("T", &d1());
    rig.recorder_up(&d1());
    rig.report(&d1(), Reported::Recording, Some("T"));
    rig.recorder_down(&d1());
    rig.pass(Duration::from_secs(30));
    rig.wake();
    rig.link_up(&d1(), 1);
    let head = rig.say(&d1(), TransferMessage::UploadComplete(claim("T.2"))).op().0;
    let sidecar = rig.done(head, head_reply()).op().0;
    let digest = rig.done(sidecar, sidecar_reply()).op().0;
    assert_eq!(rig.confirm(digest).frames(), ["ack T.2"]);
    // The first attempt's recording is owed: that keeps the task in memory, and not what was said of the second one.
    let row = rig.task("T");
    assert_eq!((row.state, row.earlier.map(|all| all[0].owed)), (TaskState::Completed, Some(true)));
    let silent = Announced { len: None, sha256: None, ..claim("T.2") };
    for message in
        [TransferMessage::UploadComplete(silent.clone()), status(true, std::vec![waiting(silent.clone())])]
    {
        let seen = rig.say(&d1(), message);
        assert!(!seen.frames().contains(&"ack T.2".into()), "{seen:?}");
        assert!(seen.ops().iter().all(|(_, op)| op == "head f/d1/T.2.mcap"), "{seen:?}");
    }
}

#[test]
fn without_evidence_and_without_a_copy_at_the_edge_nothing_is_acknowledged() {
    let mut rig = Rig::new();
    let n = rig.episode_of("T");
    let silent = Announced { len: None, sha256: None, ..claim("T") };
    let pending = rig.say(&d1(), TransferMessage::UploadComplete(silent.clone())).op().0;
    removed(&mut rig, n);
    let seen = rig.done(pending, ObjectReply::Head(None));
    assert_eq!((seen.codes(), seen.frames().len()), (std::vec!["no_evidence"], 0));
    assert!(rig.timers.armed(&TimerKey::Verify(d1(), wire_id("T"))).is_none(), "nothing will come of it");
    for message in [TransferMessage::UploadComplete(silent.clone()), status(true, std::vec![waiting(silent)])]
    {
        let seen = rig.say(&d1(), message);
        assert_eq!((seen.codes(), seen.frames().len(), seen.ops().len()), (std::vec!["no_evidence"], 0, 0));
    }
    let seen = rig.say(&d1(), TransferMessage::UploadComplete(Announced { len: None, ..claim("T") }));
    assert_eq!(seen.frames(), ["ack T"], "a digest is evidence");
}

#[test]
fn a_copy_that_goes_while_it_is_read_again_stands_in_for_nobody() {
    let mut rig = Rig::new();
    let n = rig.episode_of("T");
    let silent = Announced { len: None, sha256: None, ..claim("T") };
    let head = rig.say(&d1(), TransferMessage::UploadComplete(silent)).op().0;
    let digest = rig.done(head, head_reply()).op().0;
    removed(&mut rig, n);
    let seen = rig.done(digest, digest_reply());
    assert_eq!((seen.codes(), seen.frames().len()), (std::vec!["no_evidence"], 0));
}

#[test]
fn after_an_upload_was_given_up_the_copy_is_read_again_before_it_is_acknowledged_again() {
    // The incident: the copy here was what had failed, and a device that still had the recording was told to delete it.
    let mut rig = Rig::new();
    let n = rig.episode_of("T");
    let (id, job) = (EpisodeId(n), crate::id::JobId(1));
    rig.ask(Request::Judge { episode: id, approve: true, reason: None });
    rig.on(|tasks, cx| tasks.on_job_queued(cx, job, id));
    rig.on(|tasks, cx| {
        tasks.on_job_ended(cx, job, id, crate::fact::JobEnd::Failed(crate::row::FinalWhy::Foreign))
    });
    let head = rig.say(&d1(), TransferMessage::UploadComplete(claim("T"))).op().0;
    let seen = rig.done(head, ObjectReply::Head(None));
    assert!(seen.frames().is_empty(), "the copy is gone: the device keeps its own");
    let head = rig.say(&d1(), TransferMessage::UploadComplete(claim("T"))).op().0;
    let digest = rig.done(head, head_reply()).op().0;
    let seen = rig.done(digest, ObjectReply::Got(Got::Digest { len: LEN, sha256: other_sha() }));
    assert_eq!((seen.codes(), seen.frames().len()), (std::vec!["digest_mismatch"], 0));
    let head = rig.say(&d1(), TransferMessage::UploadComplete(claim("T"))).op().0;
    let digest = rig.done(head, head_reply()).op().0;
    assert_eq!(rig.done(digest, digest_reply()).frames(), ["ack T"], "it is whole");
    assert_eq!(rig.parts.tasks.counter(), 2, "one episode");
}

/// The episode goes to the cloud, and its copy at the edge goes.
pub(super) fn removed(rig: &mut Rig, n: u64) {
    let (id, job) = (EpisodeId(n), crate::id::JobId(1));
    rig.ask(Request::Judge { episode: id, approve: true, reason: None });
    rig.on(|tasks, cx| tasks.on_job_queued(cx, job, id));
    let end = crate::fact::JobEnd::Completed { key: object_key("c") };
    rig.on(|tasks, cx| tasks.on_job_ended(cx, job, id, end));
    let ops = rig.wake().ops();
    assert_eq!(ops.len(), 2);
    assert!(rig.done(ops[0].0, ObjectReply::Deleted).ice().is_empty(), "its copy is half there");
    let seen = rig.done(ops[1].0, ObjectReply::Deleted);
    assert_eq!(seen.changes, ["episode.removed"]);
    assert_eq!(seen.ice(), THAWED, "we removed it; the key is free");
}
