//! What is the same input, what is another one, and what cannot be left out.

use std::vec;

use super::*;
use crate::id::{Boot, DeviceId, JobId, PartNo, PolicySetId, UploadId, WireId};
use crate::input::{LostWhy, PolicyReply};
use crate::knobs::Knobs;
use crate::machine::Machine;
use crate::wire::TransferMessage;

fn conn(boot: u64, n: u32) -> ConnId {
    ConnId { boot: Boot(boot), n }
}

fn response(boot: u64, request_id: &str, state: &str) -> Input {
    let message = RecorderMessage::Response {
        request_id: request_id.into(),
        success: true,
        message: None,
        state: Some(state.into()),
        task: None,
        data: None,
    };
    Input::Recorder { conn: conn(boot, 1), message }
}

fn pushed(boot: u64, at: i64, current: &str) -> Input {
    let message = RecorderMessage::StateUpdate {
        timestamp_ms: Some(at),
        previous: None,
        current: Some(current.into()),
        task: None,
    };
    Input::Recorder { conn: conn(boot, 7), message }
}

fn outcome(n: u64, outcome: Outcome<ObjectReply>) -> Input {
    Input::Object { ticket: Ticket { boot: Boot(n), n }, outcome }
}

fn created(n: u64, upload: &str) -> Input {
    outcome(n, Outcome::Done(ObjectReply::Created(UploadId::new(upload))))
}

fn prepared(n: u64, set: u8) -> Input {
    let reply = PolicyReply::Prepared(PolicySetId([set; 32]));
    Input::Policy { ticket: Ticket { boot: Boot(n), n }, outcome: Outcome::Done(reply) }
}

#[test]
fn what_a_boot_numbers_anew_does_not_make_another_input() {
    for (one, same) in [
        (response(1, "a", "idle"), response(2, "b", "idle")),
        (pushed(1, 1, "idle"), pushed(2, 2, "idle")),
        (created(1, "u1"), created(2, "u2")),
        (outcome(1, Outcome::Unknown), outcome(2, Outcome::Unknown)),
        (prepared(1, 7), prepared(2, 7)),
        (
            Input::Lost { conn: conn(1, 1), why: LostWhy::Broken },
            Input::Lost { conn: conn(2, 2), why: LostWhy::Broken },
        ),
        (
            Input::Boot { boot: Boot(1), seed: 1, knobs: Knobs::default() },
            Input::Boot { boot: Boot(2), seed: 2, knobs: Knobs::default() },
        ),
    ] {
        assert_eq!(likeness(&one, "x"), likeness(&same, "x"), "{one:?}");
        assert_ne!(likeness(&one, "x"), likeness(&same, "y"), "about another: {one:?}");
    }
}

#[test]
fn other_content_and_another_kind_are_other_inputs() {
    let other = TransferMessage::Other("idle".into());
    let all = [
        response(1, "a", "idle"),
        response(1, "a", "ready"),
        pushed(1, 1, "idle"),
        pushed(1, 1, "ready"),
        Input::Recorder { conn: conn(1, 1), message: RecorderMessage::Other("idle".into()) },
        Input::Transfer { conn: conn(1, 1), message: other },
        created(1, "u"),
        outcome(1, Outcome::Unknown),
        outcome(1, Outcome::Done(ObjectReply::Uploads(vec![]))),
        outcome(1, Outcome::Done(ObjectReply::Uploads(vec![UploadId::new("u")]))),
        outcome(1, Outcome::Done(ObjectReply::Deleted)),
        prepared(1, 7),
        prepared(1, 8),
        Input::Wake,
        Input::Shutdown,
        Input::Lost { conn: conn(1, 1), why: LostWhy::Broken },
        Input::Lost { conn: conn(1, 1), why: LostWhy::Closed },
        Input::Boot { boot: Boot(1), seed: 1, knobs: Knobs::default() },
        Input::Boot { boot: Boot(1), seed: 1, knobs: Knobs { batch: 7, ..Knobs::default() } },
    ];
    let different: alloc::collections::BTreeSet<_> = all.iter().map(|input| likeness(input, "x")).collect();
    assert_eq!(different.len(), all.len());
}

#[test]
fn a_start_a_wake_and_the_decision_itself_cannot_be_left_out() {
    let boot = Input::Boot { boot: Boot(1), seed: 1, knobs: Knobs::default() };
    let decision = Input::Quarantined { subject: Subject::Shutdown, reason: String::new() };
    for input in [boot, Input::Wake, decision] {
        assert_eq!(Subject::of(&input), None, "{input:?}");
    }
    let ticket = Ticket { boot: Boot(3), n: 3 };
    assert_eq!(Subject::of(&prepared(3, 1)), Some(Subject::Policy { ticket }));
    assert_eq!(Subject::of(&pushed(1, 1, "idle")), Some(Subject::Frame { conn: conn(1, 7) }));
}

#[test]
fn deadlines_and_operations_are_named_by_words_that_stay() {
    let machine = Machine::new();
    let device = DeviceId::new("robot-1").unwrap();
    let wire = WireId::new("T.2").unwrap();
    for (key, text) in [
        (TimerKey::Verify(device, wire), "verification of robot-1 T.2"),
        (TimerKey::Upload(JobId(4)), "upload of job 4"),
        (TimerKey::Janitor(JobId(4)), "janitor of job 4"),
        (TimerKey::Queue, "queue"),
        (TimerKey::Uploader(DeviceId::new("r").unwrap()), "question to the uploader of r"),
        (TimerKey::Overdue, "overdue recordings"),
        (TimerKey::Scan, "scan"),
        (TimerKey::Remove, "removal of edge copies"),
        (TimerKey::Policy, "policies"),
        (TimerKey::Sync(conn(1, 1)), "sync of "),
    ] {
        assert_eq!(machine.about_timer(&key), text);
    }
    let key = ObjectKey::new("a/T.mcap").unwrap();
    let head = ObjectOp { store: Store::Edge, key: key.clone(), verb: Verb::Head };
    assert_eq!(about_operation(&head), "head edge/a/T.mcap");
    let verb = Verb::PutPart {
        upload: UploadId::new("u"),
        part: PartNo(3),
        source: key.clone(),
        span: crate::object::Span { offset: 0, len: 1 },
    };
    assert_eq!(about_operation(&ObjectOp { store: Store::Cloud, key, verb }), "put_part 3 cloud/a/T.mcap");
}

#[test]
fn a_decision_survives_the_journal() {
    for subject in [
        Subject::Knock { socket: SocketId(1) },
        Subject::Frame { conn: conn(1, 2) },
        Subject::Lost { conn: conn(1, 2) },
        Subject::Request { id: RequestId(3) },
        Subject::Object { ticket: Ticket { boot: Boot(1), n: 2 } },
        Subject::Timer(TimerKey::Verify(DeviceId::new("r").unwrap(), WireId::new("T").unwrap())),
        Subject::Timer(TimerKey::Janitor(JobId(1))),
        Subject::Stored { key: ObjectKey::new("a/b.mcap").unwrap() },
        Subject::Shutdown,
    ] {
        let input = Input::Quarantined { subject, reason: "because".into() };
        let bytes = minicbor::to_vec(&input).unwrap();
        assert_eq!(minicbor::decode::<Input>(&bytes).unwrap(), input);
    }
}

#[test]
fn what_nobody_waits_for_any_more_is_left_out_without_a_word() {
    let mut machine = Machine::new();
    let mut policies = crate::policy::Builtin::new(Knobs::default().builtin);
    let mut step = |machine: &mut Machine, input: Input| {
        let mut out = crate::effect::Output::default();
        let cold = crate::machine::Rows::new();
        machine.step(crate::time::Now::default(), &input, &cold, &mut policies, &mut out);
        machine.check().unwrap();
        out
    };
    step(&mut machine, Input::Boot { boot: Boot(1), seed: 1, knobs: Knobs::default() });
    let gone = [
        Subject::Frame { conn: conn(1, 5) },
        Subject::Object { ticket: Ticket { boot: Boot(0), n: 5 } },
        Subject::Timer(TimerKey::Call(Ticket { boot: Boot(1), n: 5 })),
        Subject::Timer(TimerKey::Sync(conn(1, 5))),
    ];
    for (n, subject) in (1..).zip(gone) {
        let out = step(&mut machine, Input::Quarantined { subject, reason: "because".into() });
        assert!(out.effects.is_empty() && out.changes.is_empty());
        assert_eq!(machine.stats().superseded, n);
    }
    // A job that does not upload and a verification that is not there are left alone as well.
    for key in [TimerKey::Upload(JobId(1)), TimerKey::Janitor(JobId(1)), TimerKey::Remove] {
        let input = Input::Quarantined { subject: Subject::Timer(key), reason: "because".into() };
        assert!(step(&mut machine, input).changes.is_empty());
    }
    let out = step(&mut machine, Input::Quarantined { subject: Subject::Shutdown, reason: "because".into() });
    assert!(out.effects.is_empty());
    assert!(machine.is_drained(), "nothing begins any more");
}
