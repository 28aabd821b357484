//! Judging episodes, handing them to the queue, and removing edge copies.

use super::*;
use crate::fact::{JobEnd, Wanted};
use crate::id::JobId;
use crate::outcome::Fault;
use crate::row::{FinalWhy, Qa, SyncMark};
use std::boxed::Box;

fn judge(rig: &mut Rig, n: u64, approve: bool) -> Seen {
    rig.ask(Request::Judge { episode: EpisodeId(n), approve, reason: Some("seen".into()) })
}

fn sync(rig: &mut Rig, n: u64) -> Seen {
    rig.ask(Request::Sync { episode: EpisodeId(n) })
}

fn queued(rig: &mut Rig, n: u64, job: u64) -> Seen {
    rig.on(|tasks, cx| tasks.on_job_queued(cx, JobId(job), EpisodeId(n)))
}

fn ended(rig: &mut Rig, n: u64, job: u64, end: JobEnd) -> Seen {
    rig.on(|tasks, cx| tasks.on_job_ended(cx, JobId(job), EpisodeId(n), end))
}

fn completed() -> JobEnd {
    JobEnd::Completed { key: object_key("s1/d1/x.mcap") }
}

fn wanted(seen: &Seen) -> Vec<Wanted> {
    let wanted = |fact: &Fact| match fact {
        Fact::EpisodeWanted(wanted) => Some((**wanted).clone()),
        _ => None,
    };
    seen.facts.iter().filter_map(wanted).collect()
}

#[test]
fn an_episode_is_judged_until_it_is_on_its_way() {
    let mut rig = Rig::new();
    let n = rig.episode_of("T");
    assert_eq!(judge(&mut rig, 99, true).refusal(), &Refusal::EpisodeNotFound(EpisodeId(99)));
    for (approve, qa, changed) in [
        (true, Qa::Approved, true),
        (true, Qa::Approved, false),
        (false, Qa::Rejected, true),
        (false, Qa::Rejected, false),
        (true, Qa::Approved, true),
    ] {
        let seen = judge(&mut rig, n, approve);
        assert_eq!(seen.answer(), &Ok(Response::Episode(Box::new(rig.episode_row(n)))));
        assert_eq!((rig.episode_row(n).qa, !seen.changes.is_empty()), (qa, changed));
        assert!(seen.facts.is_empty(), "a verdict starts no job");
    }
    assert_eq!(rig.episode_row(n).qa_reason.as_deref(), Some("seen"));
    queued(&mut rig, n, 1);
    assert!(judge(&mut rig, n, true).answer().is_ok(), "approving again is the same");
    assert_eq!(judge(&mut rig, n, false).refusal(), &Refusal::NotJudgeable(EpisodeId(n)));
    ended(&mut rig, n, 1, JobEnd::Failed(FinalWhy::Cancelled));
    judge(&mut rig, n, false);
    assert_eq!(rig.episode_row(n).qa, Qa::Rejected, "its job is over");
}

#[test]
fn a_sync_is_refused_in_the_order_of_the_predecessor() {
    let mut rig = Rig::new();
    let n = rig.episode_of("T");
    assert_eq!(sync(&mut rig, 99).refusal(), &Refusal::EpisodeNotFound(EpisodeId(99)));
    assert_eq!(sync(&mut rig, n).refusal(), &Refusal::NotApproved(Qa::Pending));
    judge(&mut rig, n, true);
    let seen = sync(&mut rig, n);
    assert!(seen.effects.is_empty() && seen.changes.is_empty(), "the queue answers");
    let wanted = wanted(&seen);
    assert_eq!(wanted[0].reply, Some(RequestId(rig.requests)));
    queued(&mut rig, n, 5);
    let reply = RequestId(rig.requests + 1);
    let (job, episode) = (JobId(5), EpisodeId(n));
    assert_eq!(sync(&mut rig, n).facts, [Fact::JobWanted { job, episode, reply }]);
    ended(&mut rig, n, 5, JobEnd::Failed(FinalWhy::Foreign));
    assert_eq!(rig.episode_row(n).sync, SyncMark::Failed(JobId(5)));
    assert_eq!(sync(&mut rig, n).facts.len(), 1, "a new job on demand");
    queued(&mut rig, n, 6);
    ended(&mut rig, n, 6, completed());
    assert_eq!(sync(&mut rig, n).refusal(), &Refusal::AlreadySynced(EpisodeId(n)));
}

#[test]
fn what_the_queue_is_given_is_what_was_verified_under_a_dated_key() {
    let mut rig = Rig::new();
    let n = rig.episode_of("T");
    rig.pass(Duration::from_secs(60));
    judge(&mut rig, n, true);
    let wanted = wanted(&sync(&mut rig, n)).remove(0);
    assert_eq!(wanted.key.as_str(), "s1/d1/2026-11-20/T.mcap", "the day it was recorded");
    let row = rig.episode_row(n);
    assert_eq!((wanted.source.key, wanted.source.sidecar), (row.key, row.sidecar));
    assert_eq!((wanted.source.len, wanted.source.sha256), (LEN, sha()));
    assert_eq!(wanted.approved_at, rig.now.wall);
}

#[test]
fn a_batch_takes_the_oldest_approvals_that_have_no_job() {
    let mut rig = Rig::new();
    rig.knobs.batch = 2;
    let all: Vec<u64> = ["A", "B", "C", "D", "E"].iter().map(|task| rig.episode_of(task)).collect();
    for n in [all[3], all[0], all[2], all[1]] {
        rig.pass(Duration::from_secs(1));
        judge(&mut rig, n, true);
    }
    queued(&mut rig, all[0], 1);
    ended(&mut rig, all[0], 1, JobEnd::Failed(FinalWhy::Foreign));
    assert_eq!(rig.episode_row(all[0]).tries, 1);
    let seen = rig.ask(Request::SyncBatch);
    assert_eq!(seen.answer(), &Ok(Response::BatchAccepted { count: 2 }));
    let chosen: Vec<u64> = wanted(&seen).iter().map(|wanted| wanted.episode.0).collect();
    assert_eq!(chosen, [all[3], all[2]], "a job that failed is repeated on demand only");
    assert!(wanted(&seen).iter().all(|wanted| wanted.reply.is_none()));
}

#[test]
fn the_scan_asks_the_policy_only_about_candidates_and_obeys_within_the_batch() {
    let mut rig = Rig::new();
    let every = Duration::from_millis(rig.knobs.scan_every_ms);
    rig.pass(every);
    assert!(rig.wake().is_nothing());
    assert_eq!(rig.rulings, 0, "nothing to ask about");
    for task in ["A", "B", "C"] {
        let n = rig.episode_of(task);
        judge(&mut rig, n, true);
    }
    rig.pass(every);
    assert!(rig.wake().facts.is_empty(), "the built-in policy waits unless told otherwise");
    assert_eq!(rig.rulings, 1);
    let settings = crate::policy::Settings { auto_scan: true, ..Default::default() };
    rig.policies = Builtin::new(settings);
    rig.knobs.batch = 2;
    rig.pass(every);
    let seen = rig.wake();
    let chosen: Vec<u64> = wanted(&seen).iter().map(|wanted| wanted.episode.0).collect();
    assert_eq!(chosen, [1, 2]);
    rig.stopping = true;
    rig.pass(every);
    assert!(rig.wake().is_nothing());
}

#[test]
fn an_edge_copy_goes_after_the_episode_is_synced_and_not_earlier() {
    let mut rig = Rig::new();
    rig.knobs.keep_edge_ms = Some(10_000);
    let n = rig.episode_of("T");
    judge(&mut rig, n, true);
    queued(&mut rig, n, 1);
    assert!(rig.timers.armed(&TimerKey::Remove).is_none());
    assert!(ended(&mut rig, n, 1, completed()).ops().is_empty());
    rig.pass(Duration::from_millis(9_999));
    assert!(rig.wake().is_nothing());
    rig.pass(Duration::from_millis(1));
    let ops = rig.wake().ops();
    let names: Vec<&str> = ops.iter().map(|(_, op)| op.as_str()).collect();
    assert_eq!(names, ["delete f/d1/T.mcap", "delete f/d1/T.json"]);
    assert!(rig.done(ops[0].0, ObjectReply::Deleted).is_nothing(), "half of it");
    assert_eq!(rig.done(ops[1].0, ObjectReply::Deleted).changes, ["episode.removed"]);
    assert_eq!(rig.episode_row(n).removed_at, Some(rig.now.wall));
    assert!(rig.parts.tasks.episodes.is_empty(), "nothing is left to do for it");
}

#[test]
fn a_removal_nobody_knows_the_end_of_is_repeated_also_after_a_restart() {
    let mut rig = Rig::new();
    let n = rig.episode_of("T");
    judge(&mut rig, n, true);
    queued(&mut rig, n, 1);
    ended(&mut rig, n, 1, completed());
    let ops = rig.wake().ops();
    rig.done(ops[1].0, ObjectReply::Deleted);
    rig.object(ops[0].0, Outcome::Unknown);
    assert!(rig.wake().is_nothing(), "after a pause");
    rig.pass(limits::REMOVE_RETRY_MIN);
    let again = rig.wake().op();
    assert_eq!(again.1, "delete f/d1/T.mcap", "only what is not gone");
    rig.object(again.0, Outcome::Failed(Fault::Offline));
    rig.pass(limits::REMOVE_RETRY_MIN);
    assert!(rig.wake().ops().is_empty(), "the pause grows");
    rig.restart();
    let ops = rig.wake().ops();
    assert_eq!(ops.len(), 2, "removing twice does no harm");
    for (ticket, _) in ops {
        rig.done(ticket, ObjectReply::Deleted);
    }
    assert!(rig.episode_row(n).removed_at.is_some());
}

#[test]
fn copies_may_stay_for_ever_and_failed_jobs_keep_theirs() {
    let mut rig = Rig::new();
    let n = rig.episode_of("T");
    judge(&mut rig, n, true);
    queued(&mut rig, n, 1);
    ended(&mut rig, n, 1, JobEnd::Failed(FinalWhy::Exhausted(Fault::Offline)));
    assert!(rig.timers.armed(&TimerKey::Remove).is_none());
    rig.knobs.keep_edge_ms = None;
    queued(&mut rig, n, 2);
    ended(&mut rig, n, 2, completed());
    assert!(rig.timers.armed(&TimerKey::Remove).is_none());
    rig.restart();
    assert!(rig.timers.armed(&TimerKey::Remove).is_none());
}

#[test]
fn few_copies_are_removed_at_once() {
    let mut rig = Rig::new();
    let count = limits::REMOVALS_AT_ONCE + 1;
    for k in 0..count {
        let n = rig.episode_of(&std::format!("T{k}"));
        judge(&mut rig, n, true);
        queued(&mut rig, n, n);
        ended(&mut rig, n, n, completed());
    }
    let first = rig.wake().ops();
    assert_eq!(first.len(), 2 * limits::REMOVALS_AT_ONCE);
    for (ticket, _) in first {
        rig.done(ticket, ObjectReply::Deleted);
    }
    assert_eq!(rig.wake().ops().len(), 2);
}

#[test]
fn changes_of_episodes_that_are_not_legal_are_refused() {
    let mut rig = Rig::new();
    let n = EpisodeId(rig.episode_of("T"));
    let at = rig.now.wall;
    let row = rig.episode_row(n.0);
    let says = |key: &str, task: &str, len| EpisodeChange::Bound {
        key: object_key(key),
        task: task_id(task),
        wire: wire_id(task),
        len,
        sha256: None,
    };
    let bound = |key: &str| says(key, "U", None);
    let job = JobId(1);
    let key = object_key("c");
    for change in [
        bound("f/d1/T.mcap"),
        says("f/d1/T.mcap", "T", Some(7)),
        EpisodeChange::Recorded(Box::new(row)),
        EpisodeChange::Queued { episode: n, job },
        EpisodeChange::Synced { episode: n, job, key, at },
        EpisodeChange::SyncFailed { episode: n, job, tries: Some(1) },
        EpisodeChange::Removed { episode: n, at },
        EpisodeChange::Judged { episode: EpisodeId(99), qa: Qa::Approved, reason: None, at },
    ] {
        rig.shadow.apply_episode(&change).expect_err("not legal now");
        assert_eq!(rig.shadow.row(&Key::Episode(n)), rig.disk[&Key::Episode(n)], "{change:?}");
    }
    assert_eq!(rig.shadow.apply_episode(&bound("f/d1/U.mcap")).map(|touched| touched.len()), Ok(1));
    for (change, legal) in [
        (bound("f/d1/U.mcap"), false),
        (says("f/d1/U.mcap", "U", Some(7)), true),
        (says("f/d1/U.mcap", "U", Some(7)), false),
        (says("f/d1/U.mcap", "V", Some(8)), false),
    ] {
        assert_eq!(rig.shadow.apply_episode(&change).is_ok(), legal, "{change:?}");
    }
}
