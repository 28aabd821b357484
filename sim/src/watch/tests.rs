//! The watches are content with a life in which nothing is wrong, and each notices the one thing that is done to it.

use tidegate_core::change::{Change, EpisodeChange, JobChange, TaskCause, TaskChange, UploadChange};
use tidegate_core::effect::{Effect, Frame, Notice, Output, Response};
use tidegate_core::id::{Boot, ETag, EpisodeId, Fence, JobId, ObjectKey, PolicySetId, RequestId, Ticket};
use tidegate_core::input::Input;
use tidegate_core::object::{ObjectOp, ObjectReply, Store, Verb};
use tidegate_core::outcome::{Fault, Outcome, What};
use tidegate_core::row::{Cause, FinalWhy, JobState, Key, ParkWhy, Phase, Row, SyncMark, TaskState};
use tidegate_core::time::Wall;

use super::rows;
use super::site_rig::Rig;
use super::{Broken, Happened};
use crate::device::{Deed, File};
use crate::scenario::{FaultSpec, Lasts};
use crate::store::Content;

/// Lives with one step spoiled: every family that said something said this.
fn spoiled(invariant: &str, spoil: impl FnMut(&Rig, &Input, &mut Output) -> bool + 'static) {
    let mut rig = Rig::new();
    rig.spoil = Some(Box::new(spoil));
    let lived = rig.life();
    assert!(rig.spoil.is_none(), "there was nothing to spoil");
    assert!(lived.is_err(), "nobody noticed");
    check(invariant, &rig.broken);
}

fn check(invariant: &str, broken: &[Broken]) {
    assert!(!broken.is_empty(), "nobody noticed");
    assert!(broken.iter().all(|broken| broken.invariant == invariant), "{invariant}: {broken:#?}");
}

fn change<'a, T>(out: &'a mut Output, is: impl Fn(&'a mut Change) -> Option<T>) -> Option<T> {
    out.changes.iter_mut().find_map(is)
}

fn row<'a, T>(out: &'a mut Output, is: impl Fn(&'a Key, &'a mut Row) -> Option<T>) -> Option<T> {
    out.rows.iter_mut().find_map(|(key, row)| row.as_mut().and_then(|row| is(key, row)))
}

fn op<'a, T>(out: &'a mut Output, is: impl Fn(&'a mut ObjectOp) -> Option<T>) -> Option<T> {
    out.effects.iter_mut().find_map(|effect| match effect {
        Effect::Object { op, .. } => is(op),
        _ => None,
    })
}

/// What this rig never has: a recorder, a device with a log, a job that waits beside room, a store that refuses to list,
/// a step with much to do, a site that judges by itself, modules.
const ELSEWHERE: [&str; 30] = [
    "I11.resumed",
    "I11.returned",
    "I12.policy",
    "I15.alone",
    "I15.deleted",
    "I20.honest",
    "I21.unseen",
    "I25.back",
    "I25.changed",
    "I25.job_memo",
    "I25.memo",
    "I25.turn",
    "I26.barred",
    "I26.ejected",
    "I26.fallback",
    "I26.floor",
    "I26.good",
    "I26.raised",
    "I26.refused",
    "I26.restart",
    "I26.stays",
    "I26.usable",
    "I27.step",
    "I29.prompt",
    "L6",
    "L6.crawl",
    "L6.ready",
    "L6.stalled",
    "L6.trial",
    "L6.turned",
];

#[test]
fn a_life_without_a_fault_of_ours_breaks_nothing_and_meets_every_premise_of_uploads() {
    let mut rig = Rig::new();
    let lived = rig.life();
    assert_eq!(lived, Ok(()), "{:?}", rig.broken);
    let met = rig.premises();
    let mut unmet = rig.invariants();
    unmet.retain(|invariant| !met.0.contains_key(invariant));
    unmet.sort_unstable();
    assert_eq!(unmet, ELSEWHERE, "never looked at");
}

#[test]
fn i11_a_transition_that_its_input_does_not_cause_is_noticed() {
    spoiled("I11", |_, _, out| {
        let found = change(out, |change| match change {
            Change::Task(TaskChange::Finished { cause, .. }) => Some(cause),
            _ => None,
        });
        found.map(|cause| *cause = TaskCause::Callback).is_some()
    });
}

#[test]
fn i11_a_record_that_moved_without_a_change_is_noticed() {
    spoiled("I11", |_, _, out| {
        let found = row(out, |_, row| match row {
            Row::Task(row) if row.state == TaskState::Uploading => Some(row),
            _ => None,
        });
        found.map(|row| row.begun = false).is_some()
    });
}

#[test]
fn i13_a_claim_of_what_is_claimed_is_noticed() {
    spoiled("I13", |_, _, out| {
        let claimed = out.changes.iter().position(|c| matches!(c, Change::Job(JobChange::Claimed { .. })));
        let Some(at) = claimed else { return false };
        let again = out.changes[at].clone();
        out.changes.insert(at, again);
        true
    });
}

#[test]
fn i14_an_answer_to_an_earlier_boot_that_does_something_is_noticed() {
    spoiled("I14", |rig, input, out| match input {
        Input::Object { ticket, .. } if ticket.boot < rig.boot => {
            out.effects.push(Effect::Publish(Notice::ProgressEnded { episode: EpisodeId(1) }));
            true
        }
        _ => false,
    });
}

#[test]
fn i14_a_claim_with_another_boots_number_is_noticed() {
    spoiled("I14", |_, _, out| {
        let found = change(out, |change| match change {
            Change::Job(JobChange::Claimed { fence, .. }) => Some(fence),
            _ => None,
        });
        found.map(|fence| fence.boot = Boot(9)).is_some()
    });
}

#[test]
fn i15_an_episode_that_is_synced_by_no_job_of_its_own_is_noticed() {
    spoiled("I15", |_, _, out| {
        let found = row(out, |_, row| match row {
            Row::Episode(row) => match &mut row.sync {
                SyncMark::Synced { job, .. } => Some(job),
                _ => None,
            },
            _ => None,
        });
        found.map(|job| *job = JobId(77)).is_some()
    });
}

#[test]
fn i15_a_claim_that_a_boot_leaves_behind_is_noticed() {
    spoiled("I15", |rig, input, out| {
        let boot = matches!(input, Input::Boot { .. }) && rig.boot > Boot(1);
        let reclaimed = |c: &Change| matches!(c, Change::Job(_));
        if !boot || !out.changes.iter().any(reclaimed) {
            return false;
        }
        out.changes.clear();
        out.rows.clear();
        out.effects.clear();
        true
    });
}

#[test]
fn i16_a_fault_of_the_way_that_costs_an_attempt_is_noticed() {
    spoiled("I16", |_, _, out| {
        let found = change(out, |change| match change {
            Change::Job(JobChange::Returned { cause: Cause::Destination(_), spent, .. }) => Some(spent),
            _ => None,
        });
        let Some(spent) = found else { return false };
        *spent += 1;
        let found = row(out, |_, row| if let Row::Job(row) = row { Some(row) } else { None });
        found.map(|row| row.spent += 1).is_some()
    });
}

#[test]
fn i16_a_retry_outside_its_envelope_is_noticed() {
    spoiled("I16", |_, _, out| {
        let found = change(out, |change| match change {
            Change::Job(JobChange::Returned { cause: Cause::Retry(_), due, .. }) => Some(due),
            _ => None,
        });
        let Some(due) = found else { return false };
        due.0 += 90_000;
        let late = *due;
        let found = row(out, |_, row| match row {
            Row::Job(row) => match &mut row.state {
                JobState::Pending { due, .. } => Some(due),
                _ => None,
            },
            _ => None,
        });
        found.map(|due| *due = late).is_some()
    });
}

#[test]
fn i17_a_job_that_is_parked_after_its_end_is_noticed() {
    spoiled("I17", |_, _, out| {
        let found = out.changes.iter().find_map(|change| match change {
            Change::Job(JobChange::Completed { fence, at }) => Some((fence.job, *at)),
            _ => None,
        });
        let Some((job, at)) = found else { return false };
        let why = ParkWhy::Fault(Fault::Auth);
        out.changes.push(Change::Job(JobChange::Parked {
            job,
            why,
            spent: 0,
            at,
            fault: None,
            ruled_by: None,
            memo: None,
        }));
        true
    });
}

#[test]
fn i16_a_job_that_fails_for_refused_credentials_is_noticed() {
    spoiled("I16", |_, _, out| {
        let found = out.changes.iter().position(|change| {
            matches!(change, Change::Job(JobChange::Returned { cause: Cause::Retry(_), .. }))
        });
        let Some(at) = found else { return false };
        let Change::Job(JobChange::Returned { job, spent, at: when, .. }) = out.changes[at] else {
            return false;
        };
        let why = FinalWhy::GivenUp(Fault::Auth);
        let failed = JobChange::Failed { job, why, spent, at: when, ruled_by: None };
        out.changes[at] = Change::Job(failed);
        true
    });
}

#[test]
fn i18_a_job_that_is_completed_without_its_object_is_noticed() {
    let mut rig = Rig::new();
    rig.restart().expect("calm");
    rig.record("t1").expect("calm");
    rig.settle(1_000).expect("calm");
    let at = rows::jobs(&rig.images[0]).next().expect("there is one").key.clone();
    assert!(rig.clouds[0].objects.remove(&at).is_some(), "the store forgets, and no third party did it");
    let _ = rig.end();
    check("I18", &rig.broken);
}

#[test]
fn i18_is_void_for_a_key_that_a_third_party_wrote_to() {
    let mut rig = Rig::new();
    rig.restart().expect("calm");
    rig.record("t1").expect("calm");
    rig.settle(1_000).expect("calm");
    let at = rows::jobs(&rig.images[0]).next().expect("there is one").key.clone();
    rig.clouds[0].overwrite(&at, Content { id: 99, len: 3, facts: None });
    assert_eq!(rig.tell(&Happened::Tampered { site: 0, cloud: true }), Ok(()));
    assert_eq!(rig.end(), Ok(()));
}

#[test]
fn i18_is_not_void_for_a_recording_that_was_another_one_at_the_edge_for_a_while() {
    let mut rig = Rig::new();
    rig.restart().expect("calm");
    rig.record("t1").expect("calm");
    rig.settle(1_000).expect("calm");
    let job = rows::jobs(&rig.images[0]).next().expect("there is one").clone();
    let other = Content { id: 99, len: job.source.len, facts: None };
    rig.edges[0].overwrite(&job.source.key, other.clone());
    assert_eq!(rig.tell(&Happened::Tampered { site: 0, cloud: false }), Ok(()));
    rig.clouds[0].put(&job.key, other, Some(job.source.sha256));
    let _ = rig.end();
    check("I18", &rig.broken);
}

#[test]
fn i19_a_complete_without_its_intent_is_noticed() {
    spoiled("I19", |_, _, out| {
        let found = op(out, |op| match &op.verb {
            Verb::PutPart { upload, .. } => Some((upload.clone(), op)),
            _ => None,
        });
        let Some((upload, op)) = found else { return false };
        op.verb = Verb::Complete { upload, parts: Vec::new() };
        true
    });
}

#[test]
fn i19_an_object_at_a_key_of_no_job_is_noticed() {
    let mut rig = Rig::new();
    rig.restart().expect("calm");
    let elsewhere = ObjectKey::new("site/d1/elsewhere.mcap").expect("a key");
    rig.clouds[0].put(&elsewhere, Content { id: 1, len: 1, facts: None }, None);
    let _ = rig.end();
    check("I19", &rig.broken);
}

#[test]
fn i20_an_acknowledgement_before_the_episode_is_noticed() {
    spoiled("I20", |rig, input, out| {
        let (Input::Transfer { .. }, Some(conn)) = (input, rig.conn) else { return false };
        let text = "{\"task_id\":\"t1\",\"type\":\"upload_ack\"}\n".to_string();
        out.effects.push(Effect::Send { conn, frame: Frame { text, secret: None } });
        true
    });
}

#[test]
fn i20_an_episode_of_other_bytes_than_were_announced_is_noticed() {
    spoiled("I20", |_, _, out| {
        let found = change(out, |change| match change {
            Change::Episode(EpisodeChange::Recorded(row)) => Some(row),
            _ => None,
        });
        let Some(found) = found else { return false };
        found.len += 1;
        true
    });
}

#[test]
fn i20_a_copy_that_goes_before_its_job_is_completed_is_noticed() {
    spoiled("I20", |rig, _, out| {
        let mut queued = rows::episodes(&rig.images[0]).filter(|row| matches!(row.sync, SyncMark::Queued(_)));
        let Some(row) = queued.next() else { return false };
        let (key, verb) = (row.key.clone(), Verb::Delete);
        let found = op(out, |op| matches!(op.verb, Verb::Head).then_some(op));
        found.map(|op| *op = ObjectOp { store: Store::Edge, key, verb }).is_some()
    });
}

#[test]
fn i29_a_copy_that_goes_because_somebody_set_the_clock_is_noticed() {
    spoiled("I29", |rig, _, out| {
        let mut synced =
            rows::episodes(&rig.images[0]).filter(|row| matches!(row.sync, SyncMark::Synced { .. }));
        let Some(row) = synced.next() else { return false };
        let ticket = Ticket { boot: rig.boot, n: 1_000_000 };
        let op = ObjectOp { store: Store::Edge, key: row.key.clone(), verb: Verb::Delete };
        out.effects.push(Effect::Object { ticket, op });
        true
    });
}

#[test]
fn i21_an_upload_that_nobody_knows_of_is_noticed() {
    let mut rig = Rig::new();
    rig.restart().expect("calm");
    rig.record("t1").expect("calm");
    rig.settle(1_000).expect("calm");
    let at = rows::jobs(&rig.images[0]).next().expect("there is one").key.clone();
    let verb = Verb::Create { sha256: Rig::file("t1").sha256() };
    let op = ObjectOp { store: Store::Cloud, key: at, verb };
    rig.clouds[0].run(&op, None).expect("it can");
    let _ = rig.end();
    check("I21", &rig.broken);
}

#[test]
fn i21_a_part_outside_the_plan_is_noticed() {
    spoiled("I21", |_, _, out| {
        let found = op(out, |op| match &mut op.verb {
            Verb::PutPart { span, .. } => Some(span),
            _ => None,
        });
        found.map(|span| span.len += 1).is_some()
    });
}

#[test]
fn i21_an_abort_of_a_live_upload_is_noticed() {
    spoiled("I21", |_, _, out| {
        let found = op(out, |op| match &op.verb {
            Verb::PutPart { upload, .. } => Some((upload.clone(), op)),
            _ => None,
        });
        found.map(|(upload, op)| op.verb = Verb::Abort { upload }).is_some()
    });
}

#[test]
fn i22_progress_that_counts_what_is_under_way_is_noticed() {
    spoiled("I22", |_, _, out| {
        out.effects.iter_mut().any(|effect| match effect {
            Effect::Publish(Notice::Progress { uploaded, .. }) if *uploaded > 0 => {
                *uploaded += 1;
                true
            }
            _ => false,
        })
    });
}

#[test]
fn i22_a_part_that_counts_and_is_not_in_the_store_is_noticed() {
    spoiled("I22", |_, _, out| {
        let found = row(out, |key, row| match (key, row) {
            (Key::Part(..), Row::Part(facts)) => Some(facts),
            _ => None,
        });
        let etag = found.map(|facts| facts.etag = ETag::new("another"));
        etag.is_some()
    });
}

#[test]
fn i22_a_part_that_counts_and_is_sent_again_is_noticed() {
    spoiled("I22", |rig, _, out| {
        let known = rig.images[0].iter().find_map(|(key, row)| match (key, row) {
            (Key::Part(job, part), Row::Part(_)) => Some((*job, *part)),
            _ => None,
        });
        let Some((job, known)) = known else { return false };
        let Some(session) = rows::upload(&rig.images[0], job) else { return false };
        let (offset, len) = rows::span(session.plan.part_size, session.source.len, known.0);
        let found = op(out, |op| match &mut op.verb {
            Verb::PutPart { part, span, .. } => Some((part, span)),
            _ => None,
        });
        let Some((part, span)) = found else { return false };
        *part = known;
        (span.offset, span.len) = (offset, len);
        true
    });
}

#[test]
fn i27_more_parts_under_way_than_allowed_are_noticed() {
    let mut rig = Rig::new();
    rig.knobs.parts_in_flight = 2;
    rig.spoil = Some(Box::new(|_, input, out| {
        let mut parts = out.effects.iter().filter(
            |effect| matches!(effect, Effect::Object { op, .. } if matches!(op.verb, Verb::PutPart { .. })),
        );
        let (count, last) = (parts.clone().count(), parts.next_back().cloned());
        let (2, Some(Effect::Object { ticket, mut op }), Input::Object { .. }) = (count, last, input) else {
            return false;
        };
        let Verb::PutPart { part, span, .. } = &mut op.verb else { return false };
        (part.0, span.offset, span.len) = (3, 10 << 20, 2 << 20);
        let ticket = Ticket { n: ticket.n + 1_000, ..ticket };
        out.effects.push(Effect::Object { ticket, op });
        true
    }));
    assert!(rig.life().is_err(), "nobody noticed");
    check("I27", &rig.broken);
}

#[test]
fn i12_an_answer_without_its_record_is_noticed() {
    spoiled("I12", |_, _, out| {
        out.effects.iter_mut().any(|effect| match effect {
            Effect::Reply { answer: Ok(Response::SyncAccepted { episode }), .. } => {
                episode.0 += 1;
                true
            }
            _ => false,
        })
    });
}

#[test]
fn i12_a_record_that_a_crash_takes_back_is_noticed() {
    let mut rig = Rig::new();
    rig.restart().expect("calm");
    rig.record("t1").expect("calm");
    let before = rig.images[0].clone();
    rig.settle(1_000).expect("calm");
    for (key, row) in before {
        if let Key::Binding(_) = key {
            rig.images[0].remove(&key);
        } else if let Key::Meta = key {
            rig.images[0].insert(key, row);
        }
    }
    let _ = rig.restart();
    check("I12", &rig.broken);
}

#[test]
fn i12_an_answer_that_no_durable_step_gave_is_noticed() {
    let mut rig = Rig::new();
    rig.restart().expect("calm");
    let answer = Ok(Response::BatchAccepted { count: 3 });
    let effect = Effect::Reply { to: RequestId(900), answer };
    let _ = rig.tell(&Happened::Released { site: 0, effect: &effect });
    check("I12", &rig.broken);
}

#[test]
fn i12_a_record_that_a_crash_moves_on_unseen_is_noticed() {
    let mut rig = Rig::new();
    rig.restart().expect("calm");
    rig.record("t1").expect("calm");
    let job =
        rig.images[0].values_mut().find_map(|row| if let Row::Job(row) = row { Some(row) } else { None });
    job.expect("it was asked for").bytes_sent += 1;
    let _ = rig.restart();
    check("I12", &rig.broken);
}

#[test]
fn i24_a_create_before_a_look_is_noticed() {
    spoiled("I24", |rig, input, out| {
        let boot = matches!(input, Input::Boot { .. }) && rig.boot > Boot(1);
        let Some(conn) = rig.conn.filter(|_| boot) else { return false };
        let text = "{\"type\":\"status_query\"}\n".to_string();
        out.effects.push(Effect::Send { conn, frame: Frame { text, secret: None } });
        true
    });
}

#[test]
fn i27_a_step_that_runs_wild_is_noticed() {
    spoiled("I27", |_, input, out| {
        if !matches!(input, Input::Object { .. }) {
            return false;
        }
        let notice = Notice::ProgressEnded { episode: EpisodeId(1) };
        out.effects.extend(std::iter::repeat_n(Effect::Publish(notice), 100));
        true
    });
}

#[test]
fn i27_a_record_that_nobody_asked_for_is_noticed() {
    let mut rig = Rig::new();
    rig.restart().expect("calm");
    rig.record("t1").expect("calm");
    rig.spoil = Some(Box::new(|rig, _, out| {
        let bound = rig.images[0].iter().find(|(key, _)| matches!(key, Key::Binding(_)));
        let row = bound.expect("it was announced").1.clone();
        let key = Key::Binding(ObjectKey::new("d1/unheard.mcap").expect("a key"));
        out.rows.push((key, Some(row)));
        true
    }));
    rig.input(Input::Wake).expect("one more record breaks nothing yet");
    let _ = rig.end();
    check("I27", &rig.broken);
}

#[test]
fn i29_a_claim_before_its_time_is_noticed() {
    let mut rig = Rig::new();
    rig.restart().expect("calm");
    rig.record("t1").expect("calm");
    // The way is down; then somebody sets the clock, and the job is claimed as if that were time.
    rig.faults.push((Store::Cloud, "head", Outcome::Failed(Fault::Local("x".into()))));
    rig.settle(100).expect("calm");
    let waits = rows::jobs(&rig.images[0]).find_map(|row| match &row.state {
        JobState::Pending { due, .. } => Some((row.id, row.claims, *due)),
        _ => None,
    });
    let (job, claims, due) = waits.expect("it waits for its retry");
    rig.now.wall = Wall(due.0 + 1);
    rig.spoil = Some(Box::new(move |rig, _, out| {
        let fence = Fence { job, attempt: claims + 1, boot: rig.boot };
        let at = rig.now.wall;
        let Some(Row::Job(mut row)) = rig.images[0].get(&Key::Job(job)).cloned() else { return false };
        (row.state, row.claims) = (JobState::Claimed { fence, since: at }, claims + 1);
        let ruled_by = row.ruled_by.expect("a policy ruled the retry");
        out.changes.push(Change::Job(JobChange::Claimed { fence, at, ruled_by }));
        out.rows.push((Key::Job(job), Some(Row::Job(row))));
        true
    }));
    assert!(rig.input(Input::Wake).is_err(), "nobody noticed");
    check("I29", &rig.broken);
}

#[test]
fn i21_a_multipart_upload_that_two_sessions_call_their_own_is_noticed() {
    spoiled("I21", |rig, _, out| {
        let open = rows::uploads(&rig.images[0]).find_map(|(job, row)| match &row.phase {
            Phase::Open { upload } => Some((job, upload.clone())),
            _ => None,
        });
        let Some((job, upload)) = open else { return false };
        out.changes.push(Change::Upload(UploadChange::Opened {
            job: JobId(job.0 + 50),
            upload,
            stray: false,
        }));
        true
    });
}

#[test]
fn i21_an_upload_of_a_job_that_gave_up_must_go_unless_the_cloud_is_out_of_reach_for_ever() {
    let lost = || {
        let mut rig = Rig::new();
        rig.restart().expect("calm");
        for _ in 0..4 {
            rig.faults.push((Store::Cloud, "put_part", Outcome::Failed(Fault::Damaged(What::Part))));
        }
        for _ in 0..1_000 {
            rig.faults.push((Store::Cloud, "abort", Outcome::Failed(Fault::Offline)));
        }
        rig.record("t1").expect("calm");
        rig.settle(600_000).expect("calm");
        assert_eq!(rig.clouds[0].open.len(), 1);
        rig
    };
    let mut rig = lost();
    let _ = rig.end();
    check("I21", &rig.broken);

    let mut rig = lost();
    let outage = crate::scenario::Fault::Outage { store: crate::scenario::Store::Cloud(0) };
    let when = crate::scenario::When::At(std::time::Duration::ZERO);
    rig.scenario.faults.push(FaultSpec { when, lasts: Lasts::Forever, fault: outage });
    assert_eq!(rig.end(), Ok(()));
}

#[test]
fn i15_what_a_device_deleted_must_be_safe_unless_it_lied_or_a_third_party_took_it() {
    let lived = || {
        let mut rig = Rig::new();
        rig.devices.push(Rig::device());
        rig.restart().expect("calm");
        rig.record("t1").expect("calm");
        let deeds = [
            Deed::Finished { wire: "t1".into(), content: Rig::file("t1"), sidecar: None },
            Deed::Deleted { wire: "t1".into() },
        ];
        rig.devices[0].log.extend(deeds.map(|deed| (rig.sim, deed)));
        rig
    };
    let key = ObjectKey::new("d1/t1.mcap").expect("a key");

    let mut rig = lived();
    rig.settle(200_000).expect("the edge copy goes when the cloud has it");
    assert!(rig.edges[0].content(&key).is_none());
    assert_eq!(rig.end(), Ok(()));

    let mut rig = lived();
    rig.edges[0].objects.remove(&key);
    let _ = rig.end();
    check("I15", &rig.broken);

    let mut rig = lived();
    rig.edges[0].remove(&key);
    assert_eq!(rig.end(), Ok(()), "a third party did it");

    let mut rig = lived();
    rig.edges[0].objects.remove(&key);
    rig.devices[0].honest = false;
    assert_eq!(rig.end(), Ok(()), "who lied may have deleted anything");
}

#[test]
fn i20_an_acknowledgement_of_other_bytes_than_an_honest_device_holds_is_noticed() {
    let lived = |honest| {
        let mut rig = Rig::new();
        rig.devices.push(Rig::device());
        rig.devices[0].honest = honest;
        let content = Content { id: 5, len: 5, facts: None };
        rig.devices[0].files.insert("t1".into(), File { content, sidecar: None });
        rig.restart().expect("calm");
        let _ = rig.record("t1");
        rig
    };
    check("I20", &lived(true).broken);
    assert_eq!(lived(false).broken, []);
}

#[test]
fn many_wild_lives_break_nothing_as_long_as_the_core_is_right() {
    let mut met = super::Premises::default();
    for seed in 0..300 {
        let mut rig = Rig::new();
        let lived = rig.wild(seed);
        assert_eq!(lived, Ok(()), "seed {seed}: {:#?}", rig.broken);
        met.add(&rig.premises());
    }
    for invariant in Rig::new().invariants() {
        let met = met.0.get(invariant).copied().unwrap_or(0);
        // Every wild life has the policies that come with us, and they ask for no delay beyond the bounds.
        let bounded = ["I26", "I26.delay"].contains(&invariant);
        let elsewhere = ELSEWHERE.contains(&invariant) || bounded;
        assert!(met > 0 || elsewhere, "{invariant} was never looked at");
    }
}

#[test]
fn i20_an_acknowledged_copy_that_anybody_may_change_is_noticed() {
    spoiled("I20", |_, _, out| {
        let acked = |effect: &Effect| matches!(effect, Effect::Send { frame, .. } if frame.text.contains("upload_ack"));
        if !out.effects.iter().any(acked) {
            return false;
        }
        // It was frozen for the last look as well: thawed again, it is as if it never had been.
        for effect in &mut out.effects {
            if let Effect::Freeze { key } = effect {
                *effect = Effect::Thaw { key: key.clone() };
            }
        }
        true
    });
}

#[test]
fn i25_a_retry_that_nobody_ruled_is_noticed() {
    spoiled("I25", |_, _, out| {
        let found = change(out, |change| match change {
            Change::Job(JobChange::Returned { cause: Cause::Retry(_), ruled_by, .. }) => Some(ruled_by),
            _ => None,
        });
        found.map(|ruled_by| *ruled_by = None).is_some()
    });
}

#[test]
fn i25_a_retry_in_the_name_of_a_set_that_was_not_active_is_noticed() {
    spoiled("I25", |_, _, out| {
        let found = change(out, |change| match change {
            Change::Job(JobChange::Returned { cause: Cause::Retry(_), ruled_by, .. }) => Some(ruled_by),
            _ => None,
        });
        found.map(|ruled_by| *ruled_by = Some(PolicySetId([7; 32]))).is_some()
    });
}

#[test]
fn i25_a_claim_about_which_nobody_was_asked_is_noticed() {
    spoiled("I25", |_, _, out| {
        let claimed = |change: &Change| matches!(change, Change::Job(JobChange::Claimed { .. }));
        let found = out.changes.iter().any(claimed);
        if found {
            out.rulings.clear();
        }
        found
    });
}

#[test]
fn i19_writing_over_an_object_of_somebody_else_is_noticed() {
    let life = |spoil: bool| {
        let mut rig = Rig::new();
        rig.restart().expect("calm");
        let key = ObjectKey::new("site/d1/2026-09-21/t1.mcap").expect("a key");
        rig.clouds[0].overwrite(&key, Content { id: 8, len: 8, facts: None });
        if spoil {
            rig.spoil = Some(Box::new(move |rig, input, out| {
                let found = matches!(input, Input::Object { outcome: Outcome::Done(ObjectReply::Head(Some(it))), .. }
                    if it.len == 8);
                let Some(row) = rows::uploads(&rig.images[0]).next().filter(|_| found) else { return false };
                let source = &row.1.source;
                let verb = Verb::Put { source: source.key.clone(), len: source.len, sha256: source.sha256 };
                out.changes.clear();
                out.rows.clear();
                let op = ObjectOp { store: Store::Cloud, key: key.clone(), verb };
                let ticket = Ticket { boot: rig.boot, n: 1_000_000 };
                out.effects = vec![Effect::Object { ticket, op }];
                true
            }));
        }
        let _ = rig.record("t1").and_then(|()| rig.settle(1_000)).and_then(|()| rig.end());
        rig
    };
    assert_eq!(life(false).broken, []);
    check("I19", &life(true).broken);
}
