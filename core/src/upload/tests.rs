//! Tests of uploads: what is asked of the store, in which order, whatever the store answers and whenever we stop.
#![allow(clippy::unwrap_used, reason = "a test fails by it, at the right line")]

mod bandwidth;

use std::collections::BTreeSet;
use std::vec;
use std::vec::Vec;

use proptest::prelude::*;

use super::plan;
use super::rig::*;
use crate::change::UploadChange;
use crate::digest::Sha256;
use crate::effect::Notice;
use crate::fact::{Fact, JobEnd};
use crate::id::{Boot, DeviceId, ETag, EpisodeId, Fence, JobId, ObjectKey, PartNo, Ticket, UploadId};
use crate::limits;
use crate::object::{Got, ListedPart, ObjectFacts, ObjectOp, ObjectReply, PartFacts, Span, Verb};
use crate::outcome::{Fault, Outcome, What};
use crate::policy::Slot;
use crate::row::{Cause, FinalWhy, JobRow, JobState, Key, ParkWhy, Phase, Row, UploadRow};
use crate::time::Wall;

const THREE: u64 = 3 * MIB - 7;

impl Rig {
    /// Lets the store answer until an operation of this kind is out.
    fn until(&mut self, store: &mut Model, verb: &str) -> Ticket {
        for _ in 0..1_000 {
            if let Some((ticket, _)) = self.open.iter().find(|(_, op)| op.verb.name() == verb) {
                return *ticket;
            }
            match self.open.iter().next().map(|(ticket, op)| (*ticket, op.clone())) {
                Some((ticket, op)) => {
                    let outcome = store.does(&op);
                    self.answer(ticket, outcome);
                }
                None => assert!(self.wake().is_some(), "nothing is left to happen"),
            }
        }
        panic!("{verb} never came");
    }

    /// The store does it, and nobody hears.
    fn lose_answer(&mut self, store: &mut Model, ticket: Ticket) {
        let op = self.open[&ticket].clone();
        store.does(&op);
        self.answer(ticket, Outcome::Unknown);
    }
}

fn assert_whole(store: &Model, n: u64) {
    let object = &store.objects[&episode_key(n)];
    assert_eq!(object.content, Some(source(n, 0, false).key), "I18: the content of the source, in order");
    assert_eq!(store.open_uploads(), vec![], "I21: nothing is left behind");
}

// The rows of a claimed job whose upload is in some phase.
fn rows(len: u64, phase: Phase, stored: &[u16]) -> Vec<(Key, Row)> {
    let fence = Fence { job: JobId(1), attempt: 1, boot: Boot(1) };
    let job = JobRow {
        id: JobId(1),
        episode: EpisodeId(1),
        device: DeviceId::new("robot").unwrap(),
        state: JobState::Claimed { fence, since: Wall(5) },
        claims: 1,
        spent: 0,
        source: source(1, len, false),
        key: episode_key(1),
        queued_at: Wall(1),
        approved_at: Wall(1),
        last_fault: None,
        last_ended_at: None,
        ruled_by: None,
        bytes_sent: 0,
        first_claimed_at: Some(Wall(5)),
        note: None,
        memo: None,
        retry_delay_ms: None,
    };
    let upload = UploadRow {
        fence,
        key: episode_key(1),
        source: source(1, len, false),
        plan: plan::cut(len, MIB),
        look_first: false,
        phase,
        sidecar_stored: true,
        restarts: 0,
    };
    let mut rows = vec![];
    for part in stored {
        rows.push((Key::Part(JobId(1), PartNo(*part)), Row::Part(facts(&upload, *part))));
    }
    rows.push((Key::Job(JobId(1)), Row::Job(job)));
    rows.push((Key::Upload(JobId(1)), Row::Upload(upload)));
    rows
}

fn facts(row: &UploadRow, part: u16) -> PartFacts {
    let span = plan::span(row.plan, row.source.len, PartNo(part));
    let sha256 = piece(&row.source.key, span);
    PartFacts { etag: ETag::new(&std::format!("{sha256}")[..32]), sha256, len: span.len }
}

fn open(upload: &str) -> Phase {
    Phase::Open { upload: UploadId::new(upload) }
}

fn listed(rig: &Rig, parts: &[u16]) -> ObjectReply {
    let row = rig.session(1).unwrap();
    let one = |part: &u16| {
        let PartFacts { etag, sha256, len } = facts(&row, *part);
        ListedPart { part: PartNo(*part), etag, len, sha256: Some(sha256) }
    };
    ObjectReply::Parts(Some(parts.iter().map(one).collect()))
}

fn verb(rig: &Rig) -> &'static str {
    rig.only().1.verb.name()
}

fn head_of(store: &mut Model, n: u64) -> ObjectReply {
    let op = ObjectOp { store: crate::object::Store::Cloud, key: episode_key(n), verb: Verb::Head };
    match store.does(&op) {
        Outcome::Done(reply) => reply,
        other => panic!("{other:?}"),
    }
}

#[test]
fn parts_are_as_large_as_configured_unless_ten_thousand_do_not_suffice() {
    let cases = [
        (0, 8 * MIB, 8 * MIB, 1),
        (1, 8 * MIB, 8 * MIB, 1),
        (8 * MIB, 8 * MIB, 8 * MIB, 1),
        (8 * MIB + 1, 8 * MIB, 8 * MIB, 2),
        (80_000 * MIB, 8 * MIB, 8 * MIB, 10_000),
        (80_000 * MIB + 1, 8 * MIB, 9 * MIB, 8_889),
        (limits::OBJECT_BYTES_MAX, 8 * MIB, 512 * MIB, 10_000),
    ];
    for (len, knob, part_size, parts) in cases {
        let plan = plan::cut(len, knob);
        assert_eq!((plan.part_size, plan.parts), (part_size, parts), "{len} bytes");
    }
}

proptest! {
    #[test]
    fn the_spans_of_a_plan_cover_the_object_once(
        len in 0..=limits::OBJECT_BYTES_MAX,
        size in limits::PART_BYTES_MIN..=limits::PART_BYTES_MAX,
    ) {
        let plan = plan::cut(len, size);
        let mut offset = 0;
        for part in 1..=plan.parts {
            let span = plan::span(plan, len, PartNo(part));
            prop_assert_eq!(span.offset, offset);
            prop_assert!(span.len > 0 || len == 0);
            offset += span.len;
        }
        prop_assert_eq!(offset, len);
        prop_assert!(plan.parts <= 10_000 && plan.part_size >= limits::PART_BYTES_MIN);
    }
}

#[test]
fn a_small_recording_is_looked_for_then_put_then_verified() {
    let (mut rig, mut store) = (Rig::new(), Model::default());
    let step = rig.want(1, 10, false);
    assert_eq!(step.verbs(), ["head"], "look before acting");
    let step = rig.done(head_of(&mut store, 1));
    assert_eq!(step.verbs(), ["put"]);
    rig.run(&mut store);
    assert_eq!(rig.ended[&JobId(1)], JobEnd::Completed { key: episode_key(1) });
    assert!(rig.is_completed(1) && rig.session(1).is_none());
    assert_eq!((rig.job(1).bytes_sent, rig.job(1).spent), (10, 0));
    assert_whole(&store, 1);
}

#[test]
fn an_empty_recording_is_one_put() {
    let (mut rig, mut store) = (Rig::new(), Model::default());
    rig.want(1, 0, false);
    rig.until(&mut store, "put");
    rig.run(&mut store);
    assert!(rig.is_completed(1));
}

#[test]
fn a_large_recording_goes_in_parts_and_each_row_precedes_its_effect() {
    let (mut rig, mut store) = (Rig::new(), Model::default());
    rig.want(1, THREE, false);
    let step = rig.done(ObjectReply::Head(None));
    assert_eq!((step.names(), step.verbs()), (vec!["upload.creating"], vec!["create"]));
    let (ticket, op) = rig.only();
    let outcome = store.does(&op);
    let step = rig.answer(ticket, outcome);
    assert_eq!((step.names(), step.verbs()), (vec!["upload.opened"], vec!["put_part"; 3]));
    let ticket = rig.until(&mut store, "get");
    assert!(matches!(rig.session(1).unwrap().phase, Phase::Open { .. }));
    let edge = crate::object::Store::Edge;
    assert_eq!((rig.open[&ticket].store, &rig.open[&ticket].key), (edge, &source(1, 0, false).key));
    rig.until(&mut store, "complete");
    assert!(matches!(rig.session(1).unwrap().phase, Phase::Sealing { .. }));
    rig.run(&mut store);
    assert!(rig.is_completed(1));
    assert_whole(&store, 1);
    assert_eq!((store.bytes, store.completed[&episode_key(1)]), (THREE, 1));
    assert_eq!(rig.rows.len(), 1, "of the session and its parts nothing is left");
}

#[test]
fn parts_in_flight_stay_within_the_configured_number_and_go_in_order() {
    let mut rig = Rig::with(|knobs| knobs.parts_in_flight = 2);
    let mut store = Model::default();
    rig.want(1, 5 * MIB, false);
    rig.until(&mut store, "put_part");
    let parts = |rig: &Rig| {
        let part = |op: &ObjectOp| match op.verb {
            Verb::PutPart { part, .. } => part.0,
            _ => 0,
        };
        rig.open.values().map(part).collect::<Vec<_>>()
    };
    assert_eq!(parts(&rig), [1, 2]);
    let second = *rig.open.keys().nth(1).unwrap();
    let outcome = store.does(&rig.open[&second].clone());
    let step = rig.answer(second, outcome);
    assert_eq!(parts(&rig), [1, 3]);
    let progress = Notice::Progress {
        episode: EpisodeId(1),
        job: JobId(1),
        uploaded: MIB,
        total: 5 * MIB,
        at: rig.now.wall,
    };
    assert!(step.notices().contains(&progress), "acknowledged bytes alone");
}

#[test]
fn the_sidecar_goes_first_and_under_the_name_of_the_recording() {
    let (mut rig, mut store) = (Rig::new(), Model::default());
    rig.want(1, 10, true);
    let step = rig.done(ObjectReply::Head(None));
    let (_, op) = step.ops().pop().unwrap();
    assert_eq!(op.key.as_str(), "site/robot/2026-11-21/task-1.json");
    assert!(matches!(op.verb, Verb::Put { len: 99, .. }));
    rig.run(&mut store);
    assert!(rig.is_completed(1) && store.objects.contains_key(&op.key));
    assert_eq!(rig.job(1).bytes_sent, 10, "bytes of the recording alone");
}

#[test]
fn a_recording_that_is_there_already_is_not_sent_again() {
    let (mut rig, mut store) = (Rig::new(), Model::default());
    rig.want(1, 10, true);
    rig.run(&mut store);
    rig.step(|queue, _, cx| queue.on_episode_wanted(cx, wanted(1, 10, true)));
    rig.run(&mut store);
    assert!(rig.is_completed(2));
    assert_eq!((store.bytes, rig.job(2).bytes_sent), (10, 0));
}

#[test]
fn without_checksums_at_the_store_the_bytes_are_read_back() {
    let (mut rig, mut store) = (Rig::new(), Model::new(true, false));
    rig.want(1, 10, false);
    rig.until(&mut store, "get");
    rig.run(&mut store);
    assert!(rig.is_completed(1));
    // In parts, the tag over the parts' tags is proof …
    rig.want(2, THREE, false);
    rig.until(&mut store, "complete");
    let (ticket, op) = rig.only();
    let outcome = store.does(&op);
    rig.answer(ticket, outcome);
    let step = rig.done(head_of(&mut store, 2));
    assert_eq!((step.verbs(), rig.is_completed(2)), (vec![], true));
    // … unless the tags are no digests: then every part is read.
    let mut store = Model::new(true, true);
    rig.want(3, THREE, false);
    // (The first reading is of the source.)
    for _ in 0..4 {
        let ticket = rig.until(&mut store, "get");
        let outcome = store.does(&rig.open[&ticket].clone());
        rig.answer(ticket, outcome);
    }
    assert!(rig.is_completed(3));
}

#[test]
fn a_foreign_object_is_never_touched_and_ends_the_job_visibly() {
    let (mut rig, mut store) = (Rig::new(), Model::default());
    let etag = ETag::new("e");
    let (content, composite, announced) = (None, None, None);
    let foreign =
        Object { len: 10, content, etag, composite, sha256: Some(whole(&episode_key(7))), announced };
    store.objects.insert(episode_key(1), foreign);
    rig.want(1, 10, true);
    rig.run(&mut store);
    assert_eq!(rig.ended[&JobId(1)], JobEnd::Failed(FinalWhy::Foreign));
    assert_eq!((store.bytes, store.objects.len()), (0, 1), "its sidecar is left alone too");
    assert!(rig.session(1).is_none());
}

#[test]
fn an_object_of_equal_size_and_unknown_origin_is_read_before_it_is_called_foreign() {
    for (content, completed) in [(Some(source(1, 0, false).key), true), (None, false)] {
        let (mut rig, mut store) = (Rig::new(), Model::default());
        let etag = ETag::new("e");
        let object = Object { len: 10, content, etag, composite: None, sha256: None, announced: None };
        store.objects.insert(episode_key(1), object);
        rig.want(1, 10, false);
        rig.until(&mut store, "get");
        rig.run(&mut store);
        assert_eq!((rig.is_completed(1), store.bytes), (completed, 0));
    }
}

#[test]
fn an_object_of_ours_that_arrived_damaged_is_sent_again_at_the_cost_of_an_attempt() {
    let (mut rig, mut store) = (Rig::new(), Model::default());
    rig.want(1, THREE, false);
    let ticket = rig.until(&mut store, "complete");
    let outcome = store.does(&rig.open[&ticket].clone());
    let object = store.objects.get_mut(&episode_key(1)).unwrap();
    object.content = None;
    object.composite = None;
    object.etag = ETag::new("other");
    rig.answer(ticket, outcome);
    rig.run(&mut store);
    assert!(rig.is_completed(1));
    assert_whole(&store, 1);
    let job = rig.job(1);
    assert_eq!((job.spent, job.claims, store.bytes), (1, 2, 2 * THREE));
    assert_eq!(job.last_fault, Some(Fault::Damaged(What::Object)));
}

#[test]
fn a_lost_answer_to_create_is_looked_for_and_adopted() {
    let (mut rig, mut store) = (Rig::new(), Model::default());
    rig.want(1, THREE, false);
    let ticket = rig.until(&mut store, "create");
    rig.lose_answer(&mut store, ticket);
    assert_eq!(rig.open.len(), 0, "a rest before asking again");
    assert_eq!(rig.wake().unwrap().verbs(), ["list_uploads"], "never create blindly");
    rig.until(&mut store, "put_part");
    assert_eq!(store.open_uploads(), [UploadId::new("u1")]);
    rig.run(&mut store);
    assert!(rig.is_completed(1));
    assert_whole(&store, 1);
}

#[test]
fn a_create_that_comes_through_late_is_swept_at_the_end_and_nobody_waits_for_it() {
    let (mut rig, mut store) = (Rig::new(), Model::default());
    rig.want(1, THREE, false);
    let ticket = rig.until(&mut store, "create");
    let late = rig.open[&ticket].clone();
    rig.answer(ticket, Outcome::Unknown);
    rig.until(&mut store, "put_part");
    store.does(&late);
    assert_eq!(store.open_uploads().len(), 2);
    rig.until(&mut store, "list_uploads");
    assert!(rig.is_completed(1));
    rig.reboot();
    assert_eq!(verb(&rig), "list_uploads", "not even a crash lets it be forgotten");
    rig.run(&mut store);
    assert_eq!(rig.session(1), None);
    assert_whole(&store, 1);
}

#[test]
fn of_uploads_left_behind_the_fullest_that_fits_the_plan_is_adopted_and_the_rest_given_up() {
    let mut crash = rows(THREE, Phase::Planned, &[]);
    if let Some((_, Row::Upload(row))) = crash.last_mut() {
        row.look_first = true;
    }
    let (mut rig, step) = Rig::finds(crash);
    assert_eq!(step.verbs(), ["head"]);
    rig.done(ObjectReply::Head(None));
    let found = ["misfit", "good", "empty"].map(UploadId::new).to_vec();
    rig.done(ObjectReply::Uploads(found));
    for _ in 0..3 {
        let Verb::ListParts { upload } = rig.only().1.verb else { panic!("{:?}", rig.only()) };
        let reply = match upload.as_str() {
            "good" => listed(&rig, &[1, 2]),
            "empty" => listed(&rig, &[]),
            _ => {
                let ObjectReply::Parts(Some(mut parts)) = listed(&rig, &[1]) else { panic!() };
                parts[0].len -= 1;
                ObjectReply::Parts(Some(parts))
            }
        };
        rig.done(reply);
    }
    let mut dropped = vec![];
    while let Verb::Abort { upload } = rig.open.values().next().unwrap().verb.clone() {
        dropped.push(upload);
        rig.done(ObjectReply::Aborted);
    }
    dropped.sort();
    assert_eq!(dropped, ["empty", "misfit"].map(UploadId::new));
    assert_eq!(rig.session(1).unwrap().phase, open("good"));
    assert_eq!(rig.open.len(), 3, "parts that we have no record of are sent, whatever the store lists");
}

#[test]
fn a_lost_answer_to_complete_is_looked_for_and_not_repeated() {
    let (mut rig, mut store) = (Rig::new(), Model::default());
    rig.want(1, THREE, false);
    let ticket = rig.until(&mut store, "complete");
    rig.lose_answer(&mut store, ticket);
    assert_eq!(rig.wake().unwrap().verbs(), ["head"]);
    let step = rig.done(head_of(&mut store, 1));
    assert!(rig.is_completed(1), "{:?}", step.names());
    assert_eq!((store.completed[&episode_key(1)], store.bytes), (1, THREE));
}

#[test]
fn a_complete_that_never_arrived_is_asked_again_after_a_look() {
    let (mut rig, mut store) = (Rig::new(), Model::default());
    rig.want(1, THREE, false);
    let ticket = rig.until(&mut store, "complete");
    rig.answer(ticket, Outcome::Unknown);
    assert_eq!(rig.wake().unwrap().verbs(), ["head"]);
    assert_eq!(rig.done(ObjectReply::Head(None)).verbs(), ["list_parts"]);
    rig.until(&mut store, "complete");
    rig.run(&mut store);
    assert!(rig.is_completed(1));
    assert_eq!((store.completed[&episode_key(1)], store.bytes), (1, THREE));
}

#[test]
fn a_complete_that_is_never_answered_ends_the_attempt_without_cost() {
    let (mut rig, mut store) = (Rig::new(), Model::default());
    rig.want(1, THREE, false);
    for _ in 0..=limits::ASK_AGAIN {
        let ticket = rig.until(&mut store, "complete");
        rig.answer(ticket, Outcome::Unknown);
    }
    let job = rig.job(1);
    assert!(matches!(job.state, JobState::Pending { cause: Cause::Destination(Fault::Offline), .. }));
    assert_eq!(job.spent, 0);
    rig.run(&mut store);
    assert!(rig.is_completed(1));
}

#[test]
fn an_upload_that_the_store_lost_is_begun_again_aloud_and_at_most_three_times() {
    let (mut rig, mut store) = (Rig::new(), Model::default());
    rig.want(1, THREE, false);
    for round in 1..=3 {
        rig.until(&mut store, "complete");
        store.lose_uploads();
        let before = rig.session(1).unwrap().restarts;
        assert_eq!(before, round - 1);
        // Complete fails; nothing stands at the key; nothing is listed.
        rig.fails(Fault::Vanished(What::Upload));
        rig.done(ObjectReply::Head(None));
        assert_eq!(
            rig.done(ObjectReply::Parts(None)).verbs(),
            ["head"],
            "once more, it may have come through"
        );
        let step = rig.done(ObjectReply::Head(None));
        assert!(step.facts.iter().any(|f| matches!(f, Fact::UploadRestarted { .. })));
        assert!(rig.job(1).note.is_some());
        assert_eq!(step.verbs(), ["list_uploads"]);
    }
    rig.until(&mut store, "complete");
    store.lose_uploads();
    rig.fails(Fault::Vanished(What::Upload));
    rig.done(ObjectReply::Head(None));
    rig.done(ObjectReply::Parts(None));
    rig.done(ObjectReply::Head(None));
    assert_eq!(rig.job(1).last_fault, Some(Fault::Vanished(What::Upload)));
    assert_eq!(rig.job(1).spent, 1);
}

#[test]
fn an_upload_that_the_store_denies_and_lists_is_completed_again_so_many_times_and_then_costs_an_attempt() {
    let (mut rig, mut store) = (Rig::new(), Model::default());
    rig.want(1, THREE, false);
    for _ in 0..=limits::ASK_AGAIN {
        assert_eq!(rig.job(1).spent, 0);
        let ticket = rig.until(&mut store, "complete");
        rig.answer(ticket, Outcome::Failed(Fault::Vanished(What::Upload)));
    }
    let job = rig.job(1);
    assert!(matches!(
        job.state,
        JobState::Pending { cause: Cause::Retry(Fault::Vanished(What::Upload)), .. }
    ));
    assert_eq!((job.spent, store.bytes), (1, THREE));
    rig.run(&mut store);
    assert!(rig.is_completed(1));
    assert_eq!(store.bytes, THREE, "what is there is not sent again");
    assert_whole(&store, 1);
}

#[test]
fn a_store_that_tags_a_part_otherwise_each_time_is_not_sent_it_without_end() {
    let (mut rig, mut store) = (Rig::new(), Model::default());
    rig.want(1, THREE, false);
    for _ in 0..limits::ASK_AGAIN {
        let ticket = rig.until(&mut store, "complete");
        rig.answer(ticket, Outcome::Failed(Fault::Vanished(What::Part)));
        let ticket = rig.until(&mut store, "list_parts");
        let ObjectReply::Parts(Some(mut parts)) = listed(&rig, &[1, 2, 3]) else { panic!("a listing") };
        for part in &mut parts {
            (part.etag, part.sha256) = (ETag::new("another"), None);
        }
        rig.answer(ticket, Outcome::Done(ObjectReply::Parts(Some(parts))));
        assert_eq!(rig.job(1).spent, 0);
    }
    let ticket = rig.until(&mut store, "complete");
    rig.answer(ticket, Outcome::Failed(Fault::Vanished(What::Part)));
    let job = rig.job(1);
    assert!(matches!(job.state, JobState::Pending { cause: Cause::Retry(Fault::Vanished(What::Part)), .. }));
    assert_eq!(job.spent, 1);
    rig.run(&mut store);
    assert!(rig.is_completed(1));
    assert_whole(&store, 1);
}

#[test]
fn a_store_that_forgot_everything_gets_the_sidecar_again_as_well() {
    let (mut rig, mut store) = (Rig::new(), Model::default());
    rig.want(1, THREE, true);
    rig.until(&mut store, "complete");
    store.lose_uploads();
    store.objects.clear();
    rig.fails(Fault::Vanished(What::Upload));
    rig.run(&mut store);
    assert!(rig.is_completed(1));
    let keys: Vec<&str> = store.objects.keys().map(|key| key.as_str()).collect();
    assert_eq!(keys, ["site/robot/2026-11-21/task-1.json", "site/robot/2026-11-21/task-1.mcap"]);
}

#[test]
fn parts_that_the_store_holds_otherwise_than_we_know_are_sent_again() {
    let sealing = Phase::Sealing { upload: UploadId::new("u") };
    let (mut rig, _) = Rig::finds(rows(THREE, sealing, &[1, 2, 3]));
    rig.done(ObjectReply::Head(None));
    let reply = listed(&rig, &[1, 3]);
    let step = rig.done(reply);
    assert_eq!((step.names(), step.verbs()), (vec!["upload.part_lost"], vec!["put_part"]));
    assert_eq!(rig.session(1).unwrap().phase, open("u"));
}

#[test]
fn parts_whose_answer_was_lost_count_if_the_source_is_the_same_there() {
    let (mut rig, _) = Rig::finds(rows(THREE, open("u"), &[1]));
    let reply = listed(&rig, &[1, 2, 3]);
    let ObjectReply::Parts(Some(mut parts)) = reply else { panic!("a listing") };
    // The third is of something else.
    parts[2].sha256 = Some(Sha256::of(b"something else"));
    let source = rig.session(1).unwrap().source.key;
    let span = |part: u64| Span { offset: (part - 1) * MIB, len: MIB.min(THREE - (part - 1) * MIB) };
    let digest = |part| {
        let span = span(part);
        ObjectReply::Got(Got::Digest { len: span.len, sha256: piece(&source, span) })
    };
    let step = rig.done(ObjectReply::Parts(Some(parts)));
    assert_eq!((step.names(), step.verbs()), (vec![], vec!["get"]));
    let step = rig.done(digest(2));
    assert_eq!((step.names(), step.verbs()), (vec!["upload.part_stored"], vec!["get"]));
    let step = rig.done(digest(3));
    assert_eq!((step.names(), step.verbs()), (vec![], vec!["put_part"]), "only what is not there is sent");
}

#[test]
fn a_complete_refused_for_a_part_that_changed_is_healed_by_comparing_that_part_with_the_source() {
    let (mut rig, mut store) = (Rig::new(), Model::new(false, true));
    rig.want(1, THREE, false);
    let first = rig.until(&mut store, "put_part");
    let late = rig.open[&first].clone();
    rig.until(&mut store, "complete");
    store.does(&late);
    rig.run(&mut store);
    assert!(rig.is_completed(1));
    // The one part that arrived twice, and nothing else again.
    assert_eq!((rig.job(1).spent, store.bytes), (0, THREE + MIB));
    assert_whole(&store, 1);
}

#[test]
fn a_source_that_is_gone_or_changed_ends_the_job_and_leaves_nothing_in_the_store() {
    for fault in [Fault::Vanished(What::Source), Fault::Damaged(What::Source)] {
        let (mut rig, mut store) = (Rig::new(), Model::default());
        rig.want(1, THREE, false);
        for attempt in 1..=5 {
            assert!(rig.ended.is_empty(), "a source is lost only when every attempt found it so");
            let ticket = rig.until(&mut store, "put_part");
            rig.answer(ticket, Outcome::Failed(fault.clone()));
            rig.open.retain(|_, op| op.verb.name() != "put_part");
            assert_eq!(rig.job(1).spent, attempt);
        }
        assert_eq!(rig.ended[&JobId(1)], JobEnd::Failed(FinalWhy::SourceLost(fault)));
        assert_eq!(verb(&rig), "abort");
        rig.run(&mut store);
        assert_eq!((store.open_uploads(), rig.session(1)), (vec![], None));
    }
}

#[test]
fn a_part_of_the_wrong_length_is_a_fault_of_the_data() {
    let (mut rig, mut store) = (Rig::new(), Model::default());
    rig.want(1, THREE, false);
    let ticket = rig.until(&mut store, "put_part");
    let mut facts = facts(&rig.session(1).unwrap(), 1);
    facts.len -= 1;
    rig.answer(ticket, Outcome::Done(ObjectReply::PartStored(facts)));
    let job = rig.job(1);
    assert_eq!((job.spent, job.last_fault), (1, Some(Fault::Damaged(What::Part))));
}

#[test]
fn a_part_whose_answer_is_lost_is_sent_again_twice_in_a_row_and_no_more() {
    let mut rig = Rig::with(|knobs| knobs.parts_in_flight = 1);
    let mut store = Model::default();
    rig.want(1, THREE, false);
    for _ in 0..=limits::SEND_AGAIN {
        let ticket = rig.until(&mut store, "put_part");
        rig.lose_answer(&mut store, ticket);
    }
    let job = rig.job(1);
    assert!(matches!(job.state, JobState::Pending { cause: Cause::Destination(Fault::Offline), .. }));
    assert_eq!((job.spent, rig.uploads.working()), (0, vec![]));
    rig.run(&mut store);
    assert!(rig.is_completed(1));
    assert_whole(&store, 1);
}

#[test]
fn when_an_attempt_ends_its_other_operations_are_forgotten_and_its_parts_kept() {
    let (mut rig, mut store) = (Rig::new(), Model::default());
    rig.want(1, 5 * MIB, false);
    let first = rig.until(&mut store, "put_part");
    let outcome = store.does(&rig.open[&first].clone());
    rig.answer(first, outcome);
    let out: Vec<Ticket> = rig.open.keys().copied().collect();
    let step = rig.answer(out[0], Outcome::Failed(Fault::Offline));
    assert!(step.notices().contains(&Notice::ProgressEnded { episode: EpisodeId(1) }));
    assert!(out.iter().all(|ticket| !rig.waits_for(*ticket)));
    let stale = rig.answer(out[1], Outcome::Done(ObjectReply::Aborted));
    assert_eq!((stale.changes, stale.effects), (vec![], vec![]), "a late answer changes nothing");
    rig.open.clear();
    rig.until(&mut store, "list_parts");
    assert!(rig.rows.contains_key(&Key::Part(JobId(1), PartNo(1))));
    rig.run(&mut store);
    assert!(rig.is_completed(1));
    assert_eq!(store.bytes, 5 * MIB, "what was acknowledged is not sent again");
}

#[test]
fn an_answer_to_another_question_ends_the_attempt_and_proves_nothing() {
    let mut rig = Rig::new();
    rig.want(1, 10, false);
    rig.done(ObjectReply::Deleted);
    assert!(matches!(rig.job(1).last_fault, Some(Fault::Rejected(_))));
}

// The crash table: what is durable, and what is asked first after the start.
#[test]
fn after_a_crash_the_first_question_is_a_look() {
    let sealing = || Phase::Sealing { upload: UploadId::new("u") };
    let sealed = || Phase::Sealed { etag: ETag::new("e") };
    let cases = [
        ("planned", rows(THREE, Phase::Planned, &[]), "head"),
        ("some parts stored", rows(THREE, open("u"), &[1]), "list_parts"),
        ("all parts stored", rows(THREE, open("u"), &[1, 2, 3]), "list_parts"),
        ("complete may have been applied", rows(THREE, sealing(), &[1, 2, 3]), "head"),
        ("complete was acknowledged", rows(THREE, sealed(), &[1, 2, 3]), "head"),
    ];
    for (what, durable, first) in cases {
        let (rig, step) = Rig::finds(durable);
        assert_eq!(step.verbs(), [first], "{what}");
        let job = rig.job(1);
        assert_eq!((job.claims, job.spent), (1, 0), "{what}: a crash costs nothing");
        let fence = Fence { job: JobId(1), attempt: 1, boot: Boot(rig.boot) };
        assert_eq!(rig.uploads.working(), [(JobId(1), fence)], "{what}");
    }
}

#[test]
fn after_a_crash_before_the_session_was_planned_it_is_planned() {
    let mut durable = rows(THREE, Phase::Planned, &[]);
    durable.retain(|(key, _)| matches!(key, Key::Job(_)));
    let (_, step) = Rig::finds(durable);
    assert_eq!(step.names(), ["job.reclaimed", "upload.planned"]);
    assert_eq!(step.verbs(), ["head"]);
}

#[test]
fn after_a_crash_during_create_the_orphan_is_found() {
    let mut durable = rows(THREE, Phase::Planned, &[]);
    if let Some((_, Row::Upload(row))) = durable.last_mut() {
        row.look_first = true;
    }
    let (mut rig, _) = Rig::finds(durable);
    assert_eq!(rig.done(ObjectReply::Head(None)).verbs(), ["list_uploads"]);
    assert_eq!(rig.done(ObjectReply::Uploads(vec![])).verbs(), ["create"]);
}

#[test]
fn a_store_that_refuses_to_list_leaves_a_note_at_the_job_and_the_upload_goes_on() {
    let mut durable = rows(THREE, Phase::Planned, &[]);
    if let Some((_, Row::Upload(row))) = durable.last_mut() {
        row.look_first = true;
    }
    let (mut rig, _) = Rig::finds(durable);
    rig.done(ObjectReply::Head(None));
    let step = rig.fails(Fault::Rejected("NotImplemented".into()));
    assert_eq!(step.verbs(), ["create"]);
    assert!(rig.job(1).note.is_some_and(|note| note.contains("refuses to list")));
}

#[test]
fn a_store_that_does_not_list_parts_is_believed_what_it_acknowledged() {
    let unlisted = || Fault::Rejected("unreadable answer".into());
    let (mut rig, _) = Rig::finds(rows(THREE, open("u"), &[1, 3]));
    assert_eq!(rig.fails(unlisted()).verbs(), ["put_part"], "the one that is missing");

    // All are acknowledged: the upload is completed, whatever the listing would have said.
    let sealing = Phase::Sealing { upload: UploadId::new("u") };
    let (mut rig, _) = Rig::finds(rows(THREE, sealing, &[1, 2, 3]));
    rig.done(ObjectReply::Head(None));
    assert_eq!(rig.fails(unlisted()).verbs(), ["complete"]);
    // It misses a part and does not say which: the next attempt begins again.
    rig.fails(Fault::Vanished(What::Part));
    let step = rig.fails(unlisted());
    assert!(step.facts.iter().any(|fact| matches!(fact, Fact::UploadRestarted { .. })));
    assert_eq!((rig.job(1).spent, rig.session(1).unwrap().phase.clone()), (1, Phase::Planned));

    // It does not know the upload any more: begun again at once.
    let (mut rig, _) = Rig::finds(rows(THREE, open("u"), &[1, 2]));
    rig.fails(unlisted());
    assert_eq!(rig.fails(Fault::Vanished(What::Upload)).verbs(), ["list_parts"]);
    assert_eq!(rig.fails(unlisted()).verbs(), ["head"]);
    assert_eq!(rig.done(ObjectReply::Head(None)).verbs(), ["list_uploads"]);
    assert_eq!(rig.job(1).spent, 0);
}

#[test]
fn after_a_crash_among_parts_only_the_missing_ones_are_sent() {
    let (mut rig, _) = Rig::finds(rows(THREE, open("u"), &[1, 3]));
    let reply = listed(&rig, &[1, 3]);
    let step = rig.done(reply);
    let ops = step.ops();
    let span = Span { offset: MIB, len: MIB };
    assert!(
        matches!(&ops[..], [(_, ObjectOp { verb: Verb::PutPart { part: PartNo(2), span: s, .. }, .. })] if *s == span)
    );
    let progress = step.notices().into_iter().find_map(|n| match n {
        Notice::Progress { uploaded, .. } => Some(uploaded),
        _ => None,
    });
    assert_eq!(progress, Some(THREE - MIB), "what is there counts from the start");
}

#[test]
fn after_a_crash_before_the_answer_to_complete_the_object_is_recognised() {
    let sealing = Phase::Sealing { upload: UploadId::new("u") };
    let (mut rig, _) = Rig::finds(rows(THREE, sealing, &[1, 2, 3]));
    let row = rig.session(1).unwrap();
    let parts: Vec<PartFacts> = (1..=3).map(|part| facts(&row, part)).collect();
    let sha256 = crate::digest::Sha256::composite(parts.iter().map(|p| p.sha256));
    let composite = Some(crate::object::Composite { sha256, parts: 3 });
    let etag = ETag::new("whole");
    let facts = ObjectFacts { len: THREE, etag, sha256: None, composite, announced: None };
    let step = rig.done(ObjectReply::Head(Some(facts)));
    assert_eq!(step.names(), ["upload.abandoning", "job.completed"]);
    assert_eq!(step.verbs(), ["abort"], "it may be another writer's, and ours still open");
    rig.fails(Fault::Vanished(What::Upload));
    assert_eq!(rig.session(1), None);
}

/// An object at the key of the first job, put there by somebody else: cut as we cut, of equal parts.
fn put_by_another(store: &mut Model, content: Option<crate::id::ObjectKey>, row: &UploadRow) {
    let parts: Vec<PartFacts> = (1..=row.plan.parts).map(|part| facts(row, part)).collect();
    let sha256 = crate::digest::Sha256::composite(parts.iter().map(|p| p.sha256));
    let composite = Some(crate::object::Composite { sha256, parts: row.plan.parts });
    let etag = ETag::new("theirs");
    let announced = Some(row.source.sha256);
    let object = Object { len: row.source.len, content, etag, composite, sha256: None, announced };
    store.objects.insert(episode_key(1), object);
}

#[test]
fn an_equal_object_of_another_writer_ends_the_job_and_our_own_upload_is_given_up() {
    let (mut rig, mut store) = (Rig::new(), Model::default());
    rig.want(1, THREE, false);
    let ticket = rig.until(&mut store, "complete");
    let row = rig.session(1).unwrap();
    put_by_another(&mut store, Some(row.source.key.clone()), &row);
    rig.answer(ticket, Outcome::Unknown);
    assert_eq!(rig.wake().unwrap().verbs(), ["head"]);
    let reply = head_of(&mut store, 1);
    let step = rig.done(reply);
    assert!(rig.is_completed(1), "at once: {:?}", step.names());
    assert_eq!((step.verbs(), store.open_uploads().len()), (vec!["abort"], 1));
    rig.reboot();
    assert_eq!(verb(&rig), "abort", "not even a crash lets it be forgotten");
    rig.run(&mut store);
    assert_eq!((store.open_uploads(), rig.session(1)), (vec![], None));
}

#[test]
fn parts_of_a_source_that_was_not_rechecked_prove_nothing_of_an_object_that_is_there() {
    // All parts are recorded, the upload is gone, and an object with the very composite of those parts stands there.
    for (genuine, end) in [(true, None), (false, Some(Fault::Damaged(What::Object)))] {
        let (mut rig, _) = Rig::finds(rows(THREE, open("u"), &[1, 2, 3]));
        let mut store = Model::default();
        let row = rig.session(1).unwrap();
        put_by_another(&mut store, genuine.then(|| row.source.key.clone()), &row);
        rig.done(ObjectReply::Parts(None));
        let reply = head_of(&mut store, 1);
        let step = rig.done(reply);
        assert!(
            matches!(&step.ops()[..], [(_, ObjectOp { verb: Verb::Get { span: None, .. }, .. })]),
            "its bytes are held against the verified digest: {:?}",
            step.ops()
        );
        let outcome = store.does(&rig.only().1);
        let step = rig.ends(outcome);
        assert_eq!((rig.is_completed(1), rig.job(1).last_fault), (genuine, end));
        assert!(!step.verbs().contains(&"abort"), "the store said that the upload is gone");
    }
}

#[test]
fn a_recording_that_changed_at_the_edge_is_never_sealed_and_none_of_its_parts_counts_any_more() {
    for how in [AtEdge::Changed, AtEdge::Gone] {
        let fault = match how {
            AtEdge::Gone => Fault::Vanished(What::Source),
            AtEdge::Changed | AtEdge::Whole => Fault::Damaged(What::Source),
        };
        let (mut rig, mut store) = (Rig::new(), Model::default());
        rig.want(1, THREE, false);
        // The first part is of the verified recording, the others of something else.
        let first = rig.until(&mut store, "put_part");
        let outcome = store.does(&rig.open[&first].clone());
        rig.answer(first, outcome);
        store.edge_is(1, AtEdge::Changed);
        let ticket = rig.until(&mut store, "get");
        store.edge_is(1, how);
        let outcome = store.does(&rig.open[&ticket].clone());
        let step = rig.answer(ticket, outcome);
        assert_eq!(step.names(), ["upload.distrusted", "job.returned"]);
        let job = rig.job(1);
        assert_eq!((job.spent, job.last_fault), (1, Some(fault)));
        // It is put right: the parts of the other thing must not be taken for those of the recording.
        store.edge_is(1, AtEdge::Whole);
        rig.run(&mut store);
        assert!(rig.is_completed(1));
        assert_whole(&store, 1);
        // The first part was right, is still there, and is not sent again.
        assert_eq!((store.bytes, rig.job(1).spent), (2 * THREE - MIB, 1));
    }
}

#[test]
fn after_a_crash_with_all_parts_stored_the_source_is_checked_before_the_upload_is_sealed() {
    let (mut rig, _) = Rig::finds(rows(THREE, open("u"), &[1, 2, 3]));
    let reply = listed(&rig, &[1, 2, 3]);
    let step = rig.done(reply);
    assert_eq!((step.names(), step.verbs()), (vec![], vec!["get"]));
    // Of one reading: the digest of the whole, and what the parts would be.
    let parts = |len, of: &ObjectKey| {
        let composite = composite(THREE, MIB, |span| piece(of, span));
        ObjectReply::Got(Got::Parts { len, sha256: whole(of), composite })
    };
    let mut other = rig.session(1).unwrap().source;
    let step = rig.done(parts(THREE, &other.key));
    assert_eq!((step.names(), step.verbs()), (vec!["upload.sealing"], vec!["complete"]));
    // Of the right digest and of another length: not the recording.
    let (mut rig, _) = Rig::finds(rows(THREE, open("u"), &[1, 2, 3]));
    let reply = listed(&rig, &[1, 2, 3]);
    rig.done(reply);
    other.len -= 1;
    rig.done(parts(other.len, &other.key));
    assert_eq!(rig.job(1).last_fault, Some(Fault::Damaged(What::Source)));
    // A digest alone says nothing of the parts: it answers another question.
    let (mut rig, _) = Rig::finds(rows(THREE, open("u"), &[1, 2, 3]));
    let reply = listed(&rig, &[1, 2, 3]);
    rig.done(reply);
    rig.done(ObjectReply::Got(Got::Digest { len: THREE, sha256: whole(&source(1, 0, false).key) }));
    assert!(matches!(rig.job(1).last_fault, Some(Fault::Rejected(_))));
    assert_eq!(rig.session(1).unwrap().phase, open("u"));
}

#[test]
fn a_part_that_was_read_from_a_source_that_is_whole_again_at_the_end_is_never_sealed() {
    for (plain, sealed_tags) in [(false, false), (false, true), (true, false), (true, true)] {
        let mut rig = Rig::with(|knobs| knobs.parts_in_flight = 1);
        let mut store = Model::new(plain, sealed_tags);
        rig.want(1, THREE, false);
        rig.until(&mut store, "put_part");
        let one = |rig: &mut Rig, store: &mut Model| {
            let (ticket, op) = rig.only();
            let outcome = store.does(&op);
            rig.answer(ticket, outcome)
        };
        one(&mut rig, &mut store);
        store.edge_is(1, AtEdge::Changed);
        assert!(matches!(rig.only().1.verb, Verb::PutPart { part: PartNo(2), .. }));
        one(&mut rig, &mut store);
        store.edge_is(1, AtEdge::Whole);
        rig.until(&mut store, "get");
        let step = one(&mut rig, &mut store);
        assert_eq!(step.names(), ["upload.distrusted", "job.returned"], "{plain} {sealed_tags}");
        let job = rig.job(1);
        assert_eq!((job.spent, job.last_fault), (1, Some(Fault::Damaged(What::Part))));
        // Power fails: nothing but the records may say that the parts were found out.
        rig.reboot();
        rig.run(&mut store);
        assert!(rig.is_completed(1));
        assert_whole(&store, 1);
        // A store that keeps digests of parts is sent the wrong one alone; of any other nothing is believed.
        let again = if plain { THREE } else { MIB };
        assert_eq!((store.bytes, rig.job(1).spent), (THREE + again, 1), "{plain} {sealed_tags}");
    }
}

#[test]
fn parts_that_are_read_wrongly_time_and_again_use_up_the_attempts_and_are_given_up() {
    let (mut rig, mut store) = (Rig::new(), Model::default());
    rig.want(1, THREE, false);
    for attempt in 1..=5 {
        store.edge_is(1, AtEdge::Changed);
        // All that is sent, and all that is compared with what was sent, is read wrongly; the whole is read well.
        let whole = |op: &ObjectOp| matches!(op.verb, Verb::Get { span: None, .. });
        while !rig.open.values().any(whole) {
            match rig.open.iter().next().map(|(ticket, op)| (*ticket, op.clone())) {
                Some((ticket, op)) => {
                    let outcome = store.does(&op);
                    rig.answer(ticket, outcome);
                }
                None => assert!(rig.wake().is_some(), "nothing is left to happen"),
            }
        }
        store.edge_is(1, AtEdge::Whole);
        let outcome = store.does(&rig.only().1);
        rig.ends(outcome);
        assert_eq!(rig.job(1).spent, attempt);
    }
    let fault = Fault::Damaged(What::Part);
    assert_eq!(rig.ended[&JobId(1)], JobEnd::Failed(FinalWhy::Exhausted(fault)));
    assert!(!store.objects.contains_key(&episode_key(1)), "nothing was made of them");
    rig.run(&mut store);
    assert_eq!((store.open_uploads(), rig.session(1)), (vec![], None));
}

#[test]
fn a_source_that_cannot_be_read_is_asked_for_again_so_many_times_and_nothing_is_concluded() {
    let (mut rig, mut store) = (Rig::new(), Model::default());
    rig.want(1, THREE, false);
    rig.until(&mut store, "get");
    for _ in 0..limits::ASK_AGAIN {
        rig.ends(Outcome::Unknown);
        assert_eq!(rig.open.len(), 0, "a rest before asking again");
        assert_eq!(rig.wake().unwrap().verbs(), ["get"]);
    }
    rig.ends(Outcome::Unknown);
    assert!(matches!(rig.job(1).last_fault, Some(Fault::Local(_))), "our own store, not the way");
    rig.until(&mut store, "get");
    rig.fails(Fault::Local("EIO".into()));
    assert_eq!(rig.job(1).last_fault, Some(Fault::Local("EIO".into())));
    rig.run(&mut store);
    assert!(rig.is_completed(1));
    assert_eq!((rig.job(1).spent, store.bytes), (0, THREE), "what was sent stays, and nothing was spent");
}

#[test]
fn after_a_crash_an_abandoned_upload_is_given_up_again() {
    let mut durable = rows(THREE, Phase::Abandoning { upload: Some(UploadId::new("u")) }, &[1]);
    durable.retain(|(key, _)| !matches!(key, Key::Job(_)));
    let (mut rig, step) = Rig::finds(durable);
    assert_eq!(step.verbs(), ["abort"]);
    let step = rig.done(ObjectReply::Aborted);
    assert_eq!(step.names(), ["upload.ended"]);
    assert_eq!(rig.rows.len(), 0);
}

#[test]
fn giving_up_is_repeated_until_the_store_hears_it() {
    let mut durable = rows(THREE, Phase::Abandoning { upload: Some(UploadId::new("u")) }, &[]);
    durable.retain(|(key, _)| !matches!(key, Key::Job(_)));
    let (mut rig, _) = Rig::finds(durable);
    for outcome in [Outcome::Unknown, Outcome::Failed(Fault::Offline), Outcome::Failed(Fault::Auth)] {
        assert_eq!(rig.ends(outcome).verbs(), Vec::<&str>::new());
        assert_eq!(rig.wake().unwrap().verbs(), ["abort"]);
    }
    rig.done(ObjectReply::Aborted);
    assert_eq!((rig.session(1), rig.timers.len()), (None, 0));
}

#[test]
fn a_store_that_refuses_once_to_list_does_not_make_the_janitor_forget() {
    let mut durable = rows(THREE, Phase::Abandoning { upload: None }, &[]);
    durable.retain(|(key, _)| !matches!(key, Key::Job(_)));
    if let Some((_, Row::Upload(row))) = durable.last_mut() {
        row.look_first = true;
    }
    let (mut rig, step) = Rig::finds(durable);
    assert_eq!(step.verbs(), ["list_uploads"]);
    for _ in 0..limits::ASK_AGAIN {
        rig.fails(Fault::Rejected("NotImplemented".into()));
        assert_eq!(rig.wake().unwrap().verbs(), ["list_uploads"]);
    }
    let step = rig.fails(Fault::Rejected("NotImplemented".into()));
    let unseen = Notice::StrayUnseen { job: JobId(1), key: episode_key(1), fault: "rejected" };
    assert_eq!(step.notices(), [unseen], "and people are told that something may be left");
    assert_eq!(
        (rig.session(1), rig.timers.len()),
        (None, 0),
        "a store that cannot list is believed in the end"
    );
}

#[test]
fn used_up_attempts_end_the_job_and_abort_its_upload() {
    let (mut rig, mut store) = (Rig::new(), Model::default());
    rig.want(1, THREE, false);
    for attempt in 1..=5 {
        let ticket = rig.until(&mut store, "put_part");
        rig.answer(ticket, Outcome::Failed(Fault::Rejected("Odd".into())));
        rig.open.retain(|_, op| op.verb.name() != "put_part");
        assert_eq!(rig.job(1).spent, attempt);
    }
    let fault = Fault::Rejected("Odd".into());
    assert_eq!(rig.ended[&JobId(1)], JobEnd::Failed(FinalWhy::Exhausted(fault)));
    assert!(matches!(rig.session(1).unwrap().phase, Phase::Abandoning { .. }));
    rig.run(&mut store);
    assert_eq!((store.open_uploads(), rig.session(1)), (vec![], None));
    assert_eq!(rig.job(1).claims, 5);
}

#[test]
fn a_job_that_gives_up_after_an_interrupted_create_sweeps_its_key_but_not_what_another_job_owns() {
    let mut durable = rows(THREE, Phase::Planned, &[]);
    if let Some((_, Row::Upload(row))) = durable.last_mut() {
        row.look_first = true;
    }
    let mut store = Model::default();
    store.does(&ObjectOp {
        store: crate::object::Store::Cloud,
        key: episode_key(1),
        verb: Verb::Create { sha256: whole(&episode_key(1)) },
    });
    let (mut rig, _) = Rig::finds(durable);
    // The attempt fails for good before it could look; a new job of the same episode runs at once.
    rig.policies.retry = Some(crate::policy::RetryAction::GiveUp(crate::policy::GiveUp::Hopeless));
    let step = rig.fails(Fault::Rejected("no".into()));
    assert_eq!(step.verbs(), ["list_uploads"]);
    assert_eq!(rig.session(1).unwrap().phase, Phase::Abandoning { upload: None });
    rig.reboot();
    rig.want(1, THREE, false);
    rig.run(&mut store);
    assert!(rig.is_completed(2));
    assert_eq!((rig.session(1), rig.session(2)), (None, None));
    assert_whole(&store, 1);
}

#[test]
fn an_operators_fault_parks_the_job_and_keeps_what_was_sent() {
    let (mut rig, mut store) = (Rig::new(), Model::default());
    rig.want(1, THREE, false);
    let ticket = rig.until(&mut store, "put_part");
    rig.answer(ticket, Outcome::Failed(Fault::Auth));
    let job = rig.job(1);
    assert!(matches!(job.state, JobState::Parked { why: ParkWhy::Fault(Fault::Auth), .. }));
    assert_eq!(job.spent, 0);
    rig.reboot();
    assert_eq!(verb(&rig), "list_parts", "a restart by the operator takes it up again");
    rig.run(&mut store);
    assert!(rig.is_completed(1));
}

#[test]
fn a_stop_begins_nothing_and_still_hears_what_is_in_flight() {
    let (mut rig, mut store) = (Rig::new(), Model::default());
    rig.want(1, 5 * MIB, false);
    rig.until(&mut store, "put_part");
    rig.stopping = true;
    rig.step(|_, uploads, cx| uploads.on_shutdown(cx));
    let out: Vec<(Ticket, ObjectOp)> = rig.open.clone().into_iter().collect();
    assert_eq!(out.len(), 3);
    for (ticket, op) in &out[..2] {
        let outcome = store.does(op);
        let step = rig.answer(*ticket, outcome);
        assert_eq!((step.names(), step.verbs()), (vec!["upload.part_stored", "job.sent"], vec![]));
    }
    rig.answer(out[2].0, Outcome::Unknown);
    assert_eq!((rig.open.len(), rig.wake().is_none()), (0, true));
    rig.reboot();
    rig.run(&mut store);
    assert!(rig.is_completed(1));
    assert_eq!((rig.job(1).claims, rig.job(1).spent), (1, 0));
}

#[test]
fn under_a_bandwidth_uploads_take_turns_and_the_policy_is_asked_once_a_second_at_most() {
    let mut rig = Rig::with(|knobs| knobs.builtin.bytes_per_second = Some(MIB / 2));
    let mut store = Model::default();
    rig.want(1, 4 * MIB, false);
    rig.want(2, 4 * MIB, false);
    let mut sent = vec![];
    let start = rig.now.mono;
    for _ in 0..200 {
        for (ticket, op) in rig.open.clone() {
            if let Verb::PutPart { part, .. } = op.verb {
                sent.push((op.key.clone(), part, start.until(rig.now.mono).as_secs()));
            }
            let outcome = store.does(&op);
            rig.answer(ticket, outcome);
        }
        if rig.open.is_empty() && rig.wake().is_none() {
            break;
        }
    }
    assert!(rig.is_completed(1) && rig.is_completed(2));
    let seconds: Vec<u64> = sent.iter().map(|(_, _, at)| *at).collect();
    assert_eq!(seconds, [0, 2, 4, 6, 8, 10, 12, 14], "1 MiB every two seconds over both");
    let alone = |three: &[(crate::id::ObjectKey, PartNo, u64)]| three.iter().all(|s| s.0 == three[0].0);
    assert!(!sent.windows(3).any(alone), "neither waits for the other to end: {sent:?}");
    let asked = rig.policies.asked.iter().filter(|slot| **slot == Slot::Bandwidth).count();
    assert!((1..=8).contains(&asked), "{asked}");
}

#[test]
fn a_bandwidth_of_nothing_slows_an_upload_and_cannot_stop_it() {
    let (mut rig, mut store) = (Rig::new(), Model::default());
    rig.policies.bandwidth = Some(0);
    rig.want(1, THREE, false);
    rig.run(&mut store);
    assert!(rig.is_completed(1));
}

#[test]
fn changes_that_are_not_legal_in_a_phase_are_refused() {
    let job = JobId(1);
    let etag = || ETag::new("e");
    let phases = || {
        let upload = || UploadId::new("u");
        [
            Phase::Planned,
            Phase::Open { upload: upload() },
            Phase::Sealing { upload: upload() },
            Phase::Sealed { etag: etag() },
            Phase::Abandoning { upload: Some(upload()) },
        ]
    };
    let row = |phase| match rows(THREE, phase, &[]).pop() {
        Some((_, Row::Upload(row))) => row,
        other => panic!("{other:?}"),
    };
    let fence = Fence { job, attempt: 2, boot: Boot(1) };
    let part = facts(&row(Phase::Planned), 1);
    let cases: [(UploadChange, [bool; 5]); 13] = [
        (UploadChange::Planned(row(Phase::Planned).into()), [false; 5]),
        (UploadChange::Refenced { fence }, [true, true, true, true, false]),
        (UploadChange::SidecarStored { job }, [true, false, false, false, false]),
        (UploadChange::Creating { job }, [true, false, false, false, false]),
        (
            UploadChange::Opened { job, upload: UploadId::new("u"), stray: false },
            [true, false, false, false, false],
        ),
        (UploadChange::PartStored { job, part: PartNo(1), facts: part }, [false, true, false, false, false]),
        (UploadChange::PartLost { job, part: PartNo(2) }, [false, true, true, false, false]),
        (UploadChange::Sealing { job }, [false, true, false, false, false]),
        (UploadChange::Sealed { job, etag: etag() }, [true, true, true, false, false]),
        (UploadChange::Restarted { job }, [false, true, true, true, false]),
        (UploadChange::Abandoning { job }, [true, true, true, true, false]),
        (UploadChange::Ended { job }, [true, false, false, true, true]),
        (UploadChange::Distrusted { job }, [false, true, false, false, false]),
    ];
    for (change, legal) in cases {
        for (phase, legal) in phases().into_iter().zip(legal) {
            let mut uploads = super::Uploads::default();
            for (key, record) in rows(THREE, phase.clone(), &[1, 2, 3]) {
                // Those of the queue and of the tasks are not for the uploads.
                if matches!(key, Key::Upload(_) | Key::Part(..)) {
                    uploads.load(&key, record);
                }
            }
            assert_eq!(uploads.apply(&change).is_ok(), legal, "{change:?} in {phase:?}");
        }
    }
}

/// What the world does next.
#[derive(Clone, Copy, Debug)]
enum Doing {
    Answer,
    LoseAnswer,
    LoseRequest,
    Delay,
    Fail(u8),
    Reboot,
    Wake,
    LoseUploads,
    /// A recording at the edge is other than it was verified, from now on; if it is already, it is again as it was.
    Spoil(u8),
}

fn doing() -> impl Strategy<Value = Doing> {
    prop_oneof![
        12 => Just(Doing::Answer),
        3 => Just(Doing::LoseAnswer),
        2 => Just(Doing::LoseRequest),
        2 => Just(Doing::Delay),
        4 => (0u8..8).prop_map(Doing::Fail),
        1 => Just(Doing::Reboot),
        4 => Just(Doing::Wake),
        1 => Just(Doing::LoseUploads),
        1 => (0u8..9).prop_map(Doing::Spoil),
    ]
}

fn fault(n: u8) -> Fault {
    match n {
        0 => Fault::Offline,
        1 => Fault::Throttled { retry_after_ms: Some(3_000) },
        2 => Fault::Unavailable { status: 500 },
        3 => Fault::ClockSkew,
        4 => Fault::Rejected("odd".into()),
        5 => Fault::Local("EIO".into()),
        6 => Fault::Damaged(What::Part),
        _ => Fault::Auth,
    }
}

/// Applies a request that was under way, unless the session it belongs to is over: then it is lost.
fn arrive(rig: &Rig, store: &mut Model, op: &ObjectOp) {
    let alive = rig.rows.values().any(|row| matches!(row, Row::Upload(row) if row.key == op.key));
    if alive {
        store.does(op);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]
    #[test]
    fn whatever_the_store_and_the_power_do_a_recording_arrives_once_and_whole(
        script in proptest::collection::vec((doing(), any::<u8>()), 0..120),
        plain in any::<bool>(),
        sealed_tags in any::<bool>(),
    ) {
        let mut rig = Rig::new();
        let mut store = Model::new(plain, sealed_tags);
        let lens = [THREE, 10, 5 * MIB];
        for (n, len) in (1..).zip(lens) {
            rig.want(n, len, n == 1);
        }
        let (mut trouble, mut lost, mut late) = (0u64, 0u64, Vec::<(u8, ObjectOp)>::new());
        let mut touched = BTreeSet::new();
        for (doing, pick) in script {
            let next = rig.open.iter().nth(usize::from(pick) % rig.open.len().max(1));
            let next = next.map(|(ticket, op)| (*ticket, op.clone()));
            trouble += u64::from(!matches!(doing, Doing::Answer | Doing::Wake));
            match (doing, next) {
                (Doing::Reboot, _) => { rig.reboot(); }
                (Doing::LoseUploads, _) => { store.lose_uploads(); lost += 1; }
                (Doing::Spoil(n), _) => {
                    let job = u64::from(n % 3) + 1;
                    let how = match n {
                        _ if store.is_spoiled(job) => AtEdge::Whole,
                        0..6 => AtEdge::Changed,
                        _ => AtEdge::Gone,
                    };
                    store.edge_is(job, how);
                    touched.insert(job);
                    // Every attempt may send all of it and find out only then.
                    lost += 5;
                }
                (Doing::Wake, _) | (_, None) => { rig.wake(); }
                (Doing::Answer, Some((ticket, op))) => {
                    let outcome = store.does(&op);
                    rig.answer(ticket, outcome);
                }
                (Doing::LoseAnswer, Some((ticket, op))) => {
                    store.does(&op);
                    rig.answer(ticket, Outcome::Unknown);
                }
                (Doing::LoseRequest, Some((ticket, _))) => { rig.answer(ticket, Outcome::Unknown); }
                (Doing::Delay, Some((ticket, op))) => {
                    late.push((2, op));
                    rig.answer(ticket, Outcome::Unknown);
                }
                (Doing::Fail(n), Some((ticket, op))) => {
                    let said = match (op.store, fault(n)) {
                        // The edge is read as a whole: damage that it reports would be the source's.
                        (crate::object::Store::Edge, Fault::Damaged(_)) => Fault::Local("EIO".into()),
                        (_, said) => said,
                    };
                    rig.answer(ticket, Outcome::Failed(said));
                }
            }
            for (left, op) in &mut late {
                *left -= 1;
                if *left == 0 {
                    arrive(&rig, &mut store, op);
                }
            }
            late.retain(|(left, _)| *left > 0);
        }
        for (_, op) in &late {
            arrive(&rig, &mut store, op);
        }
        // All is well again, and an operator restarts what is parked.
        rig.reboot();
        rig.run(&mut store);
        for n in 1..=3 {
            match rig.job(n).state {
                JobState::Completed { .. } => {
                    let object = &store.objects[&episode_key(n)];
                    prop_assert_eq!(&object.content, &Some(source(n, 0, false).key));
                    prop_assert_eq!(object.len, lens[n as usize - 1]);
                }
                JobState::Failed { why: FinalWhy::Exhausted(_), .. } => {}
                JobState::Failed { why: FinalWhy::SourceLost(_), .. } => {
                    prop_assert!(touched.contains(&n), "job {} lost a source that was never touched", n);
                }
                other => prop_assert!(false, "job {} ends as {:?}", n, other),
            }
            prop_assert!(store.completed.get(&episode_key(n)).is_none_or(|times| *times <= 1), "I19");
            prop_assert_eq!(rig.session(n), None);
        }
        prop_assert_eq!(store.open_uploads(), vec![], "I21");
        prop_assert!(rig.timers.is_empty());
        let whole: u64 = lens.iter().sum();
        // A trouble costs the parts in flight at most; a lost upload, or one crossed by a late part, the object.
        prop_assert!(store.bytes <= whole * (1 + lost) + trouble * 3 * MIB, "{} bytes", store.bytes);
    }
}
