//! Checking the content of recordings, and the verdict of the site itself.

use super::*;
use crate::fact::JobEnd;
use crate::id::JobId;
use crate::limits;
use crate::object::{Flaw, McapFacts};
use crate::outcome::{Fault, What};
use crate::row::{Doubt, Qa, SyncMark};

fn checking(auto_approve: bool) -> Rig {
    let mut rig = Rig::new();
    rig.checks = true;
    rig.knobs.auto_approve = auto_approve;
    rig
}

/// As many messages as the sidecar announces.
fn sound() -> McapFacts {
    let (first_ns, last_ns) = (Some(5_000_000_000), Some(14_250_999_999));
    McapFacts { flaw: None, messages: 40, first_ns, last_ns, channels: 2, chunks: 3 }
}

fn inspected(facts: McapFacts) -> ObjectReply {
    ObjectReply::Got(Got::Inspected { len: LEN, sha256: sha(), facts })
}

fn doubt(rig: &Rig, n: u64) -> Option<Doubt> {
    rig.episode_row(n).inspection.expect("it was checked").doubt
}

fn judge(rig: &mut Rig, n: u64, approve: bool) -> Seen {
    rig.ask(Request::Judge { episode: EpisodeId(n), approve, reason: None })
}

#[test]
fn a_recording_is_checked_after_its_acknowledgement_and_judged_only_where_the_site_judges() {
    for (auto_approve, qa, changes) in [
        (false, Qa::Pending, &["episode.inspected"][..]),
        (true, Qa::Approved, &["episode.inspected", "episode.judged"]),
    ] {
        let mut rig = checking(auto_approve);
        let n = rig.episode_of("T");
        assert_eq!(rig.episode_row(n).inspection, None, "the acknowledgement did not wait for it");
        let (ticket, op) = rig.wake().op();
        assert_eq!(op, "inspect f/d1/T.mcap");
        let seen = rig.done(ticket, inspected(sound()));
        assert_eq!(seen.changes, changes);
        assert!(seen.facts.is_empty() && seen.effects.is_empty(), "a verdict starts no job: {seen:?}");
        let row = rig.episode_row(n);
        let inspection = row.inspection.expect("it was checked");
        assert_eq!((inspection.at, inspection.doubt), (rig.now.wall, None));
        assert_eq!(inspection.facts, Some(sound()));
        assert_eq!((row.qa, row.sync), (qa, SyncMark::NotStarted));
        if auto_approve {
            let reason = row.qa_reason.expect("the site says why");
            assert_eq!(reason, "automatic: sound, 40 messages over 9.250 s");
            assert_eq!(row.qa_at, Some(rig.now.wall));
        }
        rig.pass(Duration::from_secs(3600));
        assert!(rig.wake().ops().is_empty(), "it is checked once");
    }
}

#[test]
fn everything_that_is_not_right_puts_a_recording_aside_with_its_reason() {
    let messages = |messages| inspected(McapFacts { messages, ..sound() });
    let flaw = |flaw| inspected(McapFacts { flaw: Some(flaw), ..sound() });
    let other = |len, sha256| ObjectReply::Got(Got::Inspected { len, sha256, facts: sound() });
    let done = Outcome::Done;
    let mut cases = std::vec![
        (done(messages(39)), Doubt::MessageCountDiffers),
        (done(messages(0)), Doubt::MessageCountDiffers),
        (done(other(LEN, other_sha())), Doubt::CopyDiffers),
        (done(other(LEN - 1, sha())), Doubt::CopyDiffers),
        (Outcome::Failed(Fault::Damaged(What::Object)), Doubt::CopyDiffers),
        (Outcome::Failed(Fault::Vanished(What::Object)), Doubt::CopyGone),
    ];
    cases.extend(Flaw::ALL.map(|it| (done(flaw(it)), Doubt::Flaw(it))));
    for (outcome, expected) in cases {
        let mut rig = checking(true);
        let n = rig.episode_of("T");
        let (ticket, _) = rig.wake().op();
        rig.object(ticket, outcome);
        assert_eq!(doubt(&rig, n), Some(expected));
        let row = rig.episode_row(n);
        assert_eq!(row.qa, Qa::NeedsInspection, "{expected:?}");
        let reason = row.qa_reason.expect("the site says why");
        assert_eq!(reason, std::format!("automatic: {}: {}", expected.code(), expected.text()));
        let sync = rig.ask(Request::Sync { episode: EpisodeId(n) });
        assert_eq!(sync.refusal(), &Refusal::NotApproved(Qa::NeedsInspection));
        judge(&mut rig, n, true);
        assert_eq!(rig.episode_row(n).qa, Qa::InspectorApproved, "a person looked");
        assert_eq!(doubt(&rig, n), Some(expected), "what was found stays visible");
    }
}

#[test]
fn a_recorder_that_does_not_count_is_not_contradicted_but_nothing_at_all_is_doubted() {
    for (announced, found, expected) in [
        (None, 40, None),
        (Some(0), 40, None),
        (Some(40), 40, None),
        (None, 0, Some(Doubt::NoMessages)),
        (Some(0), 0, Some(Doubt::NoMessages)),
    ] {
        let mut rig = checking(true);
        let n = rig.episode_of("T");
        let mut row = rig.episode_row(n);
        row.messages = announced;
        rig.parts.tasks.episodes.insert(row.id, row.clone());
        rig.disk.insert(Key::Episode(row.id), Some(Row::Episode(row.clone())));
        rig.shadow.episodes.insert(row.id, row);
        let (ticket, _) = rig.wake().op();
        rig.done(ticket, inspected(McapFacts { messages: found, ..sound() }));
        assert_eq!(doubt(&rig, n), expected, "{announced:?} announced, {found} found");
    }
}

#[test]
fn a_verdict_of_a_person_that_came_first_stays() {
    for (approve, qa) in [(true, Qa::Approved), (false, Qa::Rejected)] {
        for facts in [sound(), McapFacts { flaw: Some(Flaw::Truncated), ..sound() }] {
            let mut rig = checking(true);
            let n = rig.episode_of("T");
            let (ticket, _) = rig.wake().op();
            judge(&mut rig, n, approve);
            assert_eq!(rig.done(ticket, inspected(facts)).changes, ["episode.inspected"]);
            assert_eq!((rig.episode_row(n).qa, rig.episode_row(n).qa_reason), (qa, None));
        }
    }
}

#[test]
fn a_check_that_nobody_answered_or_that_could_not_read_is_repeated_with_growing_pauses() {
    let mut rig = checking(true);
    let n = rig.episode_of("T");
    let failures = [
        Outcome::Unknown,
        Outcome::Failed(Fault::Local("other error".into())),
        Outcome::Failed(Fault::Throttled { retry_after_ms: None }),
        Outcome::Failed(Fault::NoDestination),
        Outcome::Failed(Fault::Damaged(What::Part)),
        Outcome::Failed(Fault::Vanished(What::Upload)),
        Outcome::Done(ObjectReply::Deleted),
    ];
    let mut pause = limits::INSPECT_RETRY_MIN;
    let (mut ticket, _) = rig.wake().op();
    for outcome in failures.iter().cycle().take(12) {
        assert!(rig.object(ticket, outcome.clone()).changes.is_empty(), "{outcome:?} says nothing");
        rig.pass(pause - Duration::from_millis(1));
        assert!(rig.wake().ops().is_empty());
        rig.pass(Duration::from_millis(1));
        (ticket, _) = rig.wake().op();
        pause = (pause * 2).min(limits::INSPECT_RETRY_MAX);
    }
    assert_eq!(pause, limits::INSPECT_RETRY_MAX);
    rig.done(ticket, inspected(sound()));
    assert_eq!(rig.episode_row(n).qa, Qa::Approved);
}

#[test]
fn few_recordings_are_read_at_once_and_one_that_cannot_be_read_holds_up_no_other() {
    let mut rig = checking(false);
    for task in ["A", "B", "C"] {
        rig.episode_of(task);
    }
    let (first, op) = rig.wake().op();
    assert_eq!(op, "inspect f/d1/A.mcap");
    let (second, op) = rig.object(first, Outcome::Unknown).op();
    assert_eq!(op, "inspect f/d1/B.mcap");
    let (third, op) = rig.done(second, inspected(sound())).op();
    assert_eq!(op, "inspect f/d1/C.mcap");
    rig.pass(limits::INSPECT_RETRY_MIN);
    assert!(rig.wake().ops().is_empty(), "there is room for {} only", limits::INSPECTIONS_AT_ONCE);
    let (again, op) = rig.done(third, inspected(sound())).op();
    assert_eq!(op, "inspect f/d1/A.mcap");
    assert!(rig.done(again, inspected(sound())).ops().is_empty());
}

#[test]
fn after_a_restart_what_was_not_checked_is_checked_and_what_was_is_not() {
    let mut rig = checking(false);
    let a = rig.episode_of("A");
    let b = rig.episode_of("B");
    let (ticket, _) = rig.wake().op();
    let (lost, _) = rig.done(ticket, inspected(sound())).op();
    rig.restart();
    assert_eq!(rig.tickets.take(lost), None, "its answer is for an earlier life");
    let (ticket, op) = rig.wake().op();
    assert_eq!(op, "inspect f/d1/B.mcap");
    rig.done(ticket, inspected(sound()));
    rig.restart();
    assert!(rig.wake().ops().is_empty());
    assert!(rig.episode_row(a).inspection.is_some() && rig.episode_row(b).inspection.is_some());
}

#[test]
fn a_site_that_is_told_to_judge_judges_what_it_checked_before_in_short_steps() {
    let mut rig = checking(false);
    let count = limits::VERDICTS_AT_ONCE + 5;
    let all: Vec<u64> = (0..count).map(|n| rig.episode_of(&std::format!("T{n}"))).collect();
    let mut next = rig.wake().ops();
    for n in 0..count {
        let facts = McapFacts { flaw: (n == 3).then_some(Flaw::DataCrc), ..sound() };
        next = rig.done(next[0].0, inspected(facts)).ops();
    }
    judge(&mut rig, all[1], false);
    rig.restart();
    assert_eq!(rig.episode_row(all[0]).qa, Qa::Pending);
    rig.knobs.auto_approve = true;
    rig.restart();
    assert_eq!(rig.wake().changes.len(), limits::VERDICTS_AT_ONCE);
    rig.pass(Duration::from_millis(1));
    assert_eq!(rig.wake().changes.len(), 4, "one was judged by a person");
    let verdicts: Vec<Qa> = all[..4].iter().map(|n| rig.episode_row(*n).qa).collect();
    assert_eq!(verdicts, [Qa::Approved, Qa::Rejected, Qa::Approved, Qa::NeedsInspection]);
}

#[test]
fn what_is_removed_meanwhile_is_not_checked_any_more_and_not_called_gone() {
    for vanishes_first in [true, false] {
        let mut rig = checking(false);
        let n = rig.episode_of("T");
        judge(&mut rig, n, true);
        rig.on(|tasks, cx| tasks.on_job_queued(cx, JobId(1), EpisodeId(n)));
        let (look, _) = rig.wake().op();
        let end = JobEnd::Completed { key: object_key("c") };
        rig.on(|tasks, cx| tasks.on_job_ended(cx, JobId(1), EpisodeId(n), end));
        let deletes = rig.wake().ops();
        assert_eq!(deletes.len(), 2, "recording and sidecar: {deletes:?}");
        if vanishes_first {
            let vanished = Outcome::Failed(Fault::Vanished(What::Object));
            assert!(rig.object(look, vanished).changes.is_empty(), "we are removing it ourselves");
        }
        for (ticket, _) in deletes {
            rig.done(ticket, ObjectReply::Deleted);
        }
        assert_eq!(rig.tickets.take(look), None, "nobody waits for it");
        assert_eq!(rig.episode_row(n).inspection, None);
        rig.pass(Duration::from_secs(3600));
        assert!(rig.wake().ops().is_empty());
    }
}

#[test]
fn what_an_earlier_life_may_have_removed_is_not_called_gone() {
    let mut rig = checking(false);
    rig.knobs.keep_edge_ms = Some(90_000);
    let n = rig.episode_of("T");
    judge(&mut rig, n, true);
    rig.on(|tasks, cx| tasks.on_job_queued(cx, JobId(1), EpisodeId(n)));
    let end = JobEnd::Completed { key: object_key("c") };
    rig.on(|tasks, cx| tasks.on_job_ended(cx, JobId(1), EpisodeId(n), end));
    // The removal that was asked for before the crash went through; this life has not asked for one yet.
    rig.restart();
    let (look, _) = rig.wake().op();
    let seen = rig.object(look, Outcome::Failed(Fault::Vanished(What::Object)));
    assert!(seen.changes.is_empty(), "{seen:?}");
    rig.pass(Duration::from_secs(90));
    let ops = rig.wake().ops();
    for (ticket, _) in ops.iter().filter(|(_, op)| op.starts_with("delete ")) {
        rig.done(*ticket, ObjectReply::Deleted);
    }
    let row = rig.episode_row(n);
    assert!(row.removed_at.is_some() && row.inspection.is_none(), "{row:?}");
}

#[test]
fn a_site_that_stops_waits_for_no_check() {
    let mut rig = checking(true);
    rig.episode_of("T");
    rig.wake().op();
    rig.stopping = true;
    rig.on(|tasks, cx| tasks.on_shutdown(cx));
    assert_eq!(rig.tickets.open(), 0);
    rig.pass(Duration::from_secs(3600));
    assert!(rig.wake().ops().is_empty());
}
