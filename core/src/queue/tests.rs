//! Tests of the queue: what runs next, who pays for a failure, what survives a restart.
#![allow(clippy::unwrap_used, reason = "a test fails by it, at the right line")]

mod asking;

use std::vec;
use std::vec::Vec;

use core::time::Duration;

use crate::change::{JobChange, UploadEnd};
use crate::effect::{Notice, QueueCounts, Response};
use crate::fact::{Fact, JobEnd};
use crate::id::{Boot, ETag, EpisodeId, Fence, JobId, PolicySetId};
use crate::limits;
use crate::object::ObjectReply;
use crate::outcome::{Fault, What};
use crate::policy::{GiveUp, RetryAction, Slot};
use crate::queue::Queue;
use crate::refusal::Refusal;
use crate::row::{Cause, FinalWhy, JobRow, JobState, Key, ParkWhy, Row};
use crate::time::Wall;
use crate::timers::TimerKey;
use crate::upload::rig::{Model, Rig, Step, episode_key};

const DATA: Fault = Fault::Vanished(What::Object);

impl Rig {
    /// The attempt that holds the claim ends so.
    fn ended(&mut self, job: u64, end: UploadEnd) -> Step {
        let fence = self.queue.fence(JobId(job)).expect("the job is claimed");
        self.told(fence, end)
    }

    /// An attempt ends so, whatever its claim. The uploads are told to let go first, as they do in life.
    fn told(&mut self, fence: Fence, end: UploadEnd) -> Step {
        self.step(|queue, uploads, cx| {
            if queue.fence(fence.job) == Some(fence) {
                uploads.forget_volatile();
            }
            queue.on_upload_ended(cx, fence, &end);
        })
    }

    fn failed(&mut self, job: u64, fault: Fault) -> Step {
        self.ended(job, UploadEnd::Failed(fault))
    }

    fn acknowledged(&mut self, job: u64) -> Step {
        let fence = self.queue.fence(JobId(job)).expect("the job is claimed");
        self.step(|queue, _, cx| queue.on_part_acknowledged(cx, fence, 7))
    }

    fn due_in(&self, job: u64) -> Duration {
        match self.job(job).state {
            JobState::Pending { due, .. } => self.now.wall.until(due),
            other => panic!("{other:?}"),
        }
    }

    fn counts(&self) -> (u32, u32, u32, u32) {
        let QueueCounts { due, waiting, uploading, parked } = self.queue.counts(self.now);
        (due, waiting, uploading, parked)
    }

    fn pass(&mut self, time: Duration) {
        self.now.wall = self.now.wall.after(time);
        self.now.mono = self.now.mono.after(time);
    }

    fn due(&mut self) -> Step {
        self.step(|queue, _, cx| queue.on_due(cx))
    }

    fn turned(&mut self) -> Step {
        self.step(|queue, _, cx| queue.on_turned(cx))
    }
}

fn one_at_a_time() -> Rig {
    Rig::with(|knobs| knobs.builtin.uploads = 1)
}

#[test]
fn an_episode_that_is_wanted_becomes_a_job_and_is_claimed_at_once() {
    let mut rig = Rig::new();
    let step = rig.want(1, 10, false);
    assert_eq!(step.names()[..2], ["job.queued", "job.claimed"]);
    assert_eq!(step.replies(), [Ok(Response::SyncAccepted { episode: EpisodeId(1) })]);
    assert!(step.facts.contains(&Fact::JobQueued { job: JobId(1), episode: EpisodeId(1) }));
    assert_eq!(rig.queue.counter(), 2);
    let fence = Fence { job: JobId(1), attempt: 1, boot: Boot(1) };
    assert_eq!(rig.queue.fence(JobId(1)), Some(fence));
    assert!(rig.job(1).ruled_by.is_some(), "the decision names its policies");
}

#[test]
fn no_more_uploads_run_than_the_policy_allows_and_the_next_one_begins_when_one_ends() {
    let mut rig = Rig::new();
    for n in 1..=4 {
        rig.want(n, 10, false);
    }
    assert_eq!(rig.counts(), (2, 0, 2, 0));
    let step = rig.ended(1, UploadEnd::Done { etag: ETag::new("e") });
    assert_eq!(step.claimed(), [JobId(3)]);
    assert_eq!(rig.ended[&JobId(1)], JobEnd::Completed { key: episode_key(1) });
    let shown = QueueCounts { due: 1, waiting: 0, uploading: 2, parked: 0 };
    assert!(step.notices().contains(&Notice::Queue(shown)));
    assert!(rig.queue.row(&Key::Job(JobId(1))).is_none(), "what is over goes cold");
}

#[test]
fn a_policy_that_allows_nothing_is_asked_again_within_a_minute() {
    let mut rig = Rig::new();
    rig.policies.uploads = Some(0);
    rig.want(1, 10, false);
    assert_eq!(rig.counts(), (1, 0, 0, 0));
    let until = rig.now.mono.until(rig.timers.armed(&TimerKey::Queue).unwrap());
    assert!(until <= Duration::from_secs(60));
    rig.policies.uploads = None;
    assert_eq!(rig.wake().unwrap().claimed(), [JobId(1)]);
}

#[test]
fn a_policy_that_allows_everything_is_held_to_the_bound() {
    let mut rig = Rig::new();
    rig.policies.uploads = Some(u32::MAX);
    for n in 1..=70 {
        rig.want(n, 10, false);
    }
    assert_eq!(rig.counts(), (70 - limits::UPLOADS_MAX, 0, limits::UPLOADS_MAX, 0));
}

#[test]
fn policies_are_not_asked_when_there_is_nothing_to_decide() {
    let mut rig = one_at_a_time();
    assert_eq!(rig.policies.asked, []);
    rig.due();
    assert_eq!(rig.policies.asked, [], "no job is due");
    rig.want(1, 10, false);
    assert_eq!(rig.policies.asked, [Slot::Concurrency], "one job needs no order");
    rig.acknowledged(1);
    assert_eq!(rig.policies.asked.len(), 1);
    rig.want(2, 10, false);
    rig.want(3, 10, false);
    assert_eq!(rig.policies.asked.len(), 1, "at one moment a full house is not asked for twice");
    rig.policies.asked.clear();
    rig.ended(1, UploadEnd::Done { etag: ETag::new("e") });
    assert_eq!(rig.policies.asked, [Slot::Concurrency, Slot::Order]);
}

#[test]
fn the_order_is_the_policys_unless_its_answer_has_the_wrong_shape() {
    for (scores, first) in [(None, 2), (Some(vec![1, 5, 9]), 4), (Some(vec![9, 9, 9]), 2), (Some(vec![1]), 2)]
    {
        let mut rig = one_at_a_time();
        for n in 1..=4 {
            rig.want(n, 10, false);
        }
        rig.policies.scores = scores.clone();
        let step = rig.ended(1, UploadEnd::Done { etag: ETag::new("e") });
        assert_eq!(step.claimed(), [JobId(first)], "{scores:?}");
    }
}

#[test]
fn no_score_starves_a_job_for_more_than_a_day() {
    let mut rig = one_at_a_time();
    rig.want(1, 10, false);
    rig.want(2, 10, false);
    rig.pass(limits::WAIT_MAX + Duration::from_secs(1));
    rig.want(3, 10, false);
    rig.policies.scores = Some(vec![i64::MIN, i64::MAX]);
    let step = rig.ended(1, UploadEnd::Done { etag: ETag::new("e") });
    assert_eq!(step.claimed(), [JobId(2)]);
}

#[test]
fn a_policy_sees_at_most_so_many_jobs_and_the_longest_waiting_ones() {
    let mut rig = one_at_a_time();
    let many = limits::CANDIDATES as u64 + 10;
    for n in 1..=many + 1 {
        rig.want(n, 10, false);
        rig.pass(Duration::from_millis(1));
    }
    rig.policies.scores = Some((0..limits::CANDIDATES as i64).collect());
    let step = rig.ended(1, UploadEnd::Done { etag: ETag::new("e") });
    assert_eq!(step.claimed(), [JobId(limits::CANDIDATES as u64 + 1)]);
}

#[test]
fn a_fault_of_the_way_costs_no_attempt_and_holds_every_claim_back() {
    let mut rig = one_at_a_time();
    rig.want(1, 10, false);
    rig.want(2, 10, false);
    let mut last = Duration::ZERO;
    for streak in 1..=8 {
        let running = if rig.queue.fence(JobId(1)).is_some() { 1 } else { 2 };
        let step = rig.failed(running, Fault::Offline);
        assert_eq!((rig.queue.streak(), step.claimed()), (streak, vec![]));
        let job = rig.job(running);
        assert!(matches!(job.state, JobState::Pending { cause: Cause::Destination(Fault::Offline), .. }));
        assert_eq!(job.spent, 0);
        let wait = rig.due_in(running);
        let floor = (limits::WAY_DELAY_MIN * (1 << (streak - 1))).min(limits::WAY_DELAY_MAX);
        assert!(floor <= wait && wait <= floor + floor / 4, "{streak}: {wait:?}");
        assert!(wait > last || floor == limits::WAY_DELAY_MAX);
        last = wait;
        assert!(step.notices().iter().any(|n| matches!(n,
            Notice::Destination { streak: s, fault: Some("offline"), next_try: Some(_) } if *s == streak)));
        assert_eq!(rig.due().claimed(), [], "not before its time");
        while rig.wake().unwrap().claimed().is_empty() {}
    }
}

#[test]
fn a_fault_of_the_own_disk_costs_no_attempt_and_holds_only_its_own_job_back() {
    let mut rig = one_at_a_time();
    rig.want(1, 10, false);
    let fault = Fault::Local("EIO".into());
    for streak in 1..=8 {
        rig.failed(1, fault.clone());
        let (job, wait) = (rig.job(1), rig.due_in(1));
        assert_eq!((job.spent, job.last_fault), (0, Some(fault.clone())));
        assert!(matches!(job.state, JobState::Pending { cause: Cause::Disk(_), .. }));
        let floor = (limits::WAY_DELAY_MIN * (1 << (streak - 1))).min(limits::WAY_DELAY_MAX);
        assert!(floor <= wait && wait <= floor + floor / 4, "{streak}: {wait:?}");
        assert_eq!(rig.queue.streak(), 0, "the way is no worse for it");
        assert_eq!(rig.wake().unwrap().claimed(), [JobId(1)]);
    }
    // A part that gets through shows that the disk reads again.
    rig.acknowledged(1);
    rig.failed(1, fault);
    assert!(rig.due_in(1) < limits::WAY_DELAY_MIN * 2);
    assert_eq!(rig.want(2, 10, false).claimed(), [JobId(2)], "another recording may be readable");
}

#[test]
fn after_a_failure_one_upload_proves_the_way_before_others_begin() {
    let mut rig = Rig::with(|knobs| knobs.builtin.uploads = 4);
    for n in 1..=4 {
        rig.want(n, 10, false);
    }
    for n in 1..=4 {
        rig.failed(n, Fault::Unavailable { status: 503 });
    }
    assert_eq!(rig.queue.streak(), 1, "four uploads saw one and the same failure");
    let mut claimed = vec![];
    while claimed.is_empty() {
        claimed = rig.wake().unwrap().claimed();
    }
    assert_eq!(claimed.len(), 1);
    rig.pass(Duration::from_secs(5));
    assert_eq!(rig.due().claimed(), []);
    let step = rig.acknowledged(claimed[0].0);
    assert_eq!(rig.queue.streak(), 0);
    assert_eq!(step.claimed().len(), 3, "the way works");
    assert!(step.notices().contains(&Notice::Destination { streak: 0, fault: None, next_try: None }));
}

#[test]
fn an_upload_that_is_done_proves_the_way_too() {
    let mut rig = one_at_a_time();
    rig.want(1, 10, false);
    rig.failed(1, Fault::Offline);
    rig.wake();
    rig.ended(1, UploadEnd::Done { etag: ETag::new("e") });
    assert_eq!(rig.queue.streak(), 0);
}

#[test]
fn a_store_that_says_how_long_to_wait_is_obeyed_within_a_day() {
    for (asked, waits) in [(90_000, 90), (u64::MAX, 24 * 3600)] {
        let mut rig = one_at_a_time();
        rig.want(1, 10, false);
        rig.failed(1, Fault::Throttled { retry_after_ms: Some(asked) });
        assert_eq!(rig.due_in(1), Duration::from_secs(waits));
    }
}

#[test]
fn a_fault_of_the_data_spends_an_attempt_and_the_policy_says_when_again() {
    let mut rig = one_at_a_time();
    rig.want(1, 10, false);
    for spent in 1..=4 {
        rig.failed(1, DATA);
        let (job, wait) = (rig.job(1), rig.due_in(1).as_secs());
        assert_eq!((job.spent, job.last_fault), (spent, Some(DATA)));
        assert!(matches!(job.state, JobState::Pending { cause: Cause::Retry(DATA), .. }));
        let base = 30 << (spent - 1);
        assert!((base..=base + 30).contains(&wait), "{spent}: {wait}");
        assert_eq!(rig.wake().unwrap().claimed(), [JobId(1)]);
    }
    let step = rig.failed(1, DATA);
    assert_eq!(rig.ended[&JobId(1)], JobEnd::Failed(FinalWhy::Exhausted(DATA)));
    assert!(step.facts.contains(&Fact::JobAbandoned { job: JobId(1) }));
    assert_eq!((rig.job(1).spent, rig.job(1).claims), (5, 5));
    let retries = rig.policies.asked.iter().filter(|slot| **slot == Slot::Retry);
    assert_eq!(retries.count(), 5);
}

#[test]
fn verdicts_on_a_retry_are_clamped() {
    for (delay_ms, waits) in [(0, limits::DELAY_MIN), (u64::MAX, limits::DELAY_MAX)] {
        let mut rig = one_at_a_time();
        rig.policies.retry = Some(RetryAction::After { delay_ms });
        rig.want(1, 10, false);
        rig.failed(1, DATA);
        assert_eq!(rig.due_in(1), waits);
    }
    let mut rig = one_at_a_time();
    rig.policies.retry = Some(RetryAction::After { delay_ms: 0 });
    rig.want(1, 10, false);
    for _ in 1..limits::ATTEMPTS_MAX {
        rig.failed(1, DATA);
        rig.wake();
    }
    rig.failed(1, DATA);
    assert_eq!(rig.ended[&JobId(1)], JobEnd::Failed(FinalWhy::Exhausted(DATA)), "I16");
}

#[test]
fn a_policy_may_park_a_job_and_an_operator_takes_it_up() {
    let mut rig = one_at_a_time();
    rig.policies.retry = Some(RetryAction::Park);
    rig.want(1, 10, false);
    rig.failed(1, DATA);
    let job = rig.job(1);
    assert!(matches!(job.state, JobState::Parked { why: ParkWhy::Policy, .. }));
    assert_eq!((job.spent, job.last_fault), (1, Some(DATA)));
    assert_eq!(rig.counts(), (0, 0, 0, 1));
    rig.reboot();
    assert_eq!(rig.counts(), (0, 0, 0, 1), "a restart is no answer to a policy");
    let step = rig.ask_again(1);
    assert_eq!((step.replies().len(), step.claimed()), (1, vec![JobId(1)]));
}

#[test]
fn a_policy_may_give_up_at_once() {
    let mut rig = one_at_a_time();
    rig.policies.retry = Some(RetryAction::GiveUp(GiveUp::Hopeless));
    rig.want(1, 10, false);
    rig.failed(1, DATA);
    assert_eq!(rig.ended[&JobId(1)], JobEnd::Failed(FinalWhy::GivenUp(DATA)));
}

#[test]
fn a_foreign_object_ends_the_job_without_a_question() {
    let mut rig = one_at_a_time();
    rig.want(1, 10, false);
    rig.ended(1, UploadEnd::Foreign);
    assert_eq!(rig.ended[&JobId(1)], JobEnd::Failed(FinalWhy::Foreign));
    assert_eq!((rig.policies.asked.contains(&Slot::Retry), rig.job(1).spent), (false, 1));
}

#[test]
fn a_lost_source_is_final_only_when_the_attempts_are_used_up() {
    for lost in [Fault::Damaged(What::Source), Fault::Vanished(What::Source)] {
        let mut rig = one_at_a_time();
        rig.want(1, 10, false);
        for attempt in 1..=5 {
            assert_eq!(rig.ended.get(&JobId(1)), None, "attempt {attempt}");
            rig.ended(1, UploadEnd::SourceLost(lost.clone()));
            let job = rig.job(1);
            assert_eq!((job.spent, job.last_fault), (attempt, Some(lost.clone())));
            if attempt < 5 {
                let cause = Cause::Retry(lost.clone());
                assert!(matches!(job.state, JobState::Pending { cause: c, .. } if c == cause));
                rig.wake();
            }
        }
        assert_eq!(rig.ended[&JobId(1)], JobEnd::Failed(FinalWhy::SourceLost(lost)));
        assert!(rig.policies.asked.contains(&Slot::Retry));
    }
}

#[test]
fn a_policy_cannot_put_more_into_memory_than_the_bound_of_bytes_in_flight() {
    let mut rig = Rig::with(|knobs| (knobs.part_size, knobs.parts_in_flight) = (512 << 20, 2));
    rig.policies.uploads = Some(u32::MAX);
    for n in 1..=6 {
        rig.want(n, 10, false);
    }
    assert_eq!(rig.counts(), (2, 0, 4, 0));
}

#[test]
fn a_fault_for_an_operator_parks_the_job_and_does_not_stop_the_others() {
    let mut rig = one_at_a_time();
    rig.want(1, 10, false);
    rig.want(2, 10, false);
    let step = rig.failed(1, Fault::Auth);
    let job = rig.job(1);
    assert!(matches!(job.state, JobState::Parked { why: ParkWhy::Fault(Fault::Auth), .. }));
    assert_eq!((job.spent, job.last_fault, step.claimed()), (0, Some(Fault::Auth), vec![JobId(2)]));
}

#[test]
fn the_end_of_any_claim_but_the_one_held_changes_nothing() {
    let mut rig = one_at_a_time();
    rig.want(1, 10, false);
    let first = rig.queue.fence(JobId(1)).unwrap();
    rig.failed(1, Fault::Offline);
    rig.wake();
    let second = rig.queue.fence(JobId(1)).unwrap();
    assert_eq!(second.attempt, 2);
    let done = UploadEnd::Done { etag: ETag::new("e") };
    for stale in [first, Fence { boot: Boot(0), ..second }, Fence { job: JobId(9), ..second }] {
        let step = rig.told(stale, done.clone());
        assert_eq!((step.changes, step.effects), (vec![], vec![]));
        let step = rig.step(|queue, _, cx| queue.on_part_acknowledged(cx, stale, 5));
        assert_eq!(step.changes, vec![]);
        let step = rig.step(|queue, _, cx| queue.on_upload_restarted(cx, stale));
        assert_eq!(step.changes, vec![]);
    }
    assert_eq!(rig.queue.fence(JobId(1)), Some(second));
}

#[test]
fn an_operator_who_asks_again_is_told_where_the_job_stands() {
    let mut rig = one_at_a_time();
    let accepted = |n| vec![Ok(Response::SyncAccepted { episode: EpisodeId(n) })];
    let active = |n| vec![Err(Refusal::SyncActive(EpisodeId(n)))];
    rig.want(1, 10, false);
    rig.want(2, 10, false);
    assert_eq!(rig.ask_again(1).replies(), active(1), "being uploaded");
    assert_eq!(rig.ask_again(2).replies(), active(2), "due");
    rig.failed(1, DATA);
    let step = rig.ask_again(1);
    assert_eq!(step.replies(), accepted(1), "waiting for a retry");
    assert!(matches!(rig.job(1).state, JobState::Pending { cause: Cause::Asked, .. }));
    assert_eq!(rig.job(1).spent, 1);
    rig.failed(2, Fault::Auth);
    assert_eq!(rig.ask_again(2).replies(), accepted(2), "parked");
}

#[test]
fn without_a_destination_jobs_are_parked_and_a_restart_with_one_takes_them_up() {
    let mut rig = Rig::with(|knobs| knobs.destination = false);
    let step = rig.want(1, 10, false);
    assert_eq!((step.names(), step.claimed()), (vec!["job.queued"], vec![]));
    assert!(matches!(rig.job(1).state, JobState::Parked { why: ParkWhy::NoDestination, .. }));
    let step = rig.ask_again(1);
    assert_eq!((step.names(), step.replies().len()), (vec![], 1), "accepted, and parked still");
    rig.reboot();
    assert_eq!(rig.counts(), (0, 0, 0, 1));
    rig.knobs.destination = true;
    let step = rig.reboot();
    assert_eq!(step.claimed(), [JobId(1)]);
    rig.want(2, 10, false);
    rig.want(3, 10, false);
    rig.knobs.destination = false;
    let step = rig.reboot();
    assert_eq!(rig.counts(), (0, 0, 0, 3), "claimed and waiting ones alike");
    assert_eq!((step.ops().len(), rig.job(1).spent), (0, 0));
}

#[test]
fn a_restart_reclaims_without_spending_an_attempt_and_without_asking_anybody() {
    let mut rig = Rig::new();
    rig.want(1, 10, false);
    rig.want(2, 10, false);
    rig.policies.asked.clear();
    rig.policies.uploads = Some(0);
    for boot in 2..5 {
        let step = rig.reboot();
        assert_eq!(step.claimed(), [JobId(1), JobId(2)]);
        let fence = Fence { job: JobId(1), attempt: 1, boot: Boot(boot) };
        assert_eq!(rig.queue.fence(JobId(1)), Some(fence));
    }
    assert_eq!((rig.job(1).claims, rig.job(1).spent), (1, 0));
    assert_eq!(rig.policies.asked, []);
}

#[test]
fn a_restart_keeps_the_time_of_a_retry_and_a_clock_set_back_holds_it_no_longer_than_its_delay() {
    let mut rig = one_at_a_time();
    rig.want(1, 10, false);
    rig.failed(1, DATA);
    let wait = rig.due_in(1);
    rig.pass(Duration::from_secs(10));
    rig.reboot();
    let armed = rig.timers.armed(&TimerKey::Queue).unwrap();
    assert_eq!(rig.now.mono.until(armed), wait - Duration::from_secs(10));
    // In life a step of the wall clock moves nothing.
    rig.now.wall = Wall(0);
    assert_eq!(rig.due().claimed(), []);
    assert_eq!(rig.timers.armed(&TimerKey::Queue), Some(armed));
    assert_eq!(rig.wake().unwrap().claimed(), [JobId(1)]);
    rig.failed(1, DATA);
    let wait = rig.due_in(1);
    rig.now.wall = Wall(-1_000_000_000_000);
    rig.reboot();
    let armed = rig.timers.armed(&TimerKey::Queue).unwrap();
    assert_eq!(rig.now.mono.until(armed), wait);
}

#[test]
fn a_clock_that_is_set_back_before_a_restart_holds_no_job_that_nobody_told_to_wait() {
    let mut rig = one_at_a_time();
    rig.policies.uploads = Some(0);
    rig.want(1, 10, false);
    assert_eq!(rig.counts(), (1, 0, 0, 0));
    rig.now.wall = Wall(rig.now.wall.0 - 12 * 3_600_000);
    rig.reboot();
    assert_eq!(rig.counts(), (1, 0, 0, 0), "queued");
    rig.policies.uploads = None;
    assert_eq!(rig.reboot().claimed(), [JobId(1)]);
    rig.failed(1, Fault::Auth);
    rig.policies.uploads = Some(0);
    rig.ask_again(1);
    rig.now.wall = Wall(rig.now.wall.0 - 12 * 3_600_000);
    rig.reboot();
    assert_eq!(rig.counts(), (1, 0, 0, 0), "asked for");
}

#[test]
fn a_site_that_stops_claims_nothing() {
    let mut rig = one_at_a_time();
    rig.want(1, 10, false);
    rig.want(2, 10, false);
    rig.stopping = true;
    let step = rig.ended(1, UploadEnd::Done { etag: ETag::new("e") });
    assert!(rig.is_completed(1), "what ends while we stop is kept");
    assert_eq!((step.claimed(), rig.timers.armed(&TimerKey::Queue)), (vec![], None));
    rig.reboot();
    assert!(rig.queue.fence(JobId(2)).is_some());
}

#[test]
fn bytes_that_the_store_acknowledged_are_counted_over_all_attempts() {
    let mut rig = one_at_a_time();
    rig.want(1, 10, false);
    rig.acknowledged(1);
    rig.failed(1, Fault::Offline);
    rig.wake();
    rig.acknowledged(1);
    assert_eq!(rig.job(1).bytes_sent, 14);
}

#[test]
fn a_long_outage_fails_no_job_and_afterwards_all_go_through() {
    let mut rig = Rig::new();
    for n in 1..=20 {
        rig.want(n, 10, false);
    }
    for _ in 0..200 {
        match rig.open.keys().next().copied() {
            Some(ticket) => {
                rig.answer(ticket, crate::outcome::Outcome::Failed(Fault::Offline));
            }
            None => {
                rig.wake();
            }
        }
    }
    assert!(rig.unfinished().iter().all(|job| job.spent == 0));
    let mut store = Model::default();
    rig.run(&mut store);
    assert_eq!((rig.unfinished(), store.objects.len()), (vec![], 20));
    assert!((1..=20).all(|n| rig.is_completed(n)));
}

#[test]
fn a_job_that_another_needs_first_is_not_in_the_way_of_the_rest() {
    // Failing jobs wait for their retry and take no slot: the predecessor's oldest failures hid everything newer.
    let mut rig = one_at_a_time();
    for n in 1..=3 {
        rig.want(n, 10, false);
    }
    assert_eq!(rig.failed(1, DATA).claimed(), [JobId(2)]);
    assert_eq!(rig.failed(2, DATA).claimed(), [JobId(3)]);
}

fn row(state: JobState) -> JobRow {
    let mut rig = Rig::with(|knobs| knobs.destination = false);
    rig.want(1, 10, false);
    JobRow { state, claims: 1, ..rig.job(1) }
}

#[test]
fn a_job_moves_along_the_declared_graph_and_nowhere_else() {
    let (job, at) = (JobId(1), Wall(9));
    let held = Fence { job, attempt: 1, boot: Boot(1) };
    let states = [
        JobState::Pending { due: at, cause: Cause::Queued },
        JobState::Claimed { fence: held, since: at },
        JobState::Parked { why: ParkWhy::Policy, since: at },
        JobState::Completed { at },
        JobState::Failed { why: FinalWhy::Foreign, at },
    ];
    let ruled_by = PolicySetId([0; 32]);
    let next = Fence { attempt: 2, ..held };
    let again = Fence { boot: Boot(2), ..held };
    let back = |spent| {
        let cause = Cause::Retry(DATA);
        JobChange::Returned { job, due: at, cause, spent, at, ruled_by: None, memo: None }
    };
    let parked = |spent| {
        let why = ParkWhy::NoDestination;
        JobChange::Parked { job, why, spent, at, fault: None, ruled_by: None, memo: None }
    };
    let failed = |why, spent| JobChange::Failed { job, why, spent, at, ruled_by: None };
    let none = [false; 5];
    let claimed = [false, true, false, false, false];
    let cases: Vec<(JobChange, [bool; 5])> = vec![
        (JobChange::Queued(row(states[0].clone()).into()), none),
        (JobChange::Claimed { fence: next, at, ruled_by }, [true, false, false, false, false]),
        (JobChange::Claimed { fence: held, at, ruled_by }, none),
        (JobChange::Reclaimed { fence: again, at }, claimed),
        (JobChange::Reclaimed { fence: held, at }, none),
        (JobChange::Reclaimed { fence: Fence { attempt: 2, ..again }, at }, none),
        (back(0), [true, true, true, false, false]),
        (back(1), claimed),
        (back(2), none),
        (parked(0), [true, true, false, false, false]),
        (parked(1), claimed),
        (JobChange::Completed { fence: held, at }, claimed),
        (JobChange::Completed { fence: again, at }, none),
        (failed(FinalWhy::Foreign, 1), claimed),
        (failed(FinalWhy::Cancelled, 0), [true, false, true, false, false]),
        (JobChange::Sent { job, bytes: 1 }, claimed),
        (JobChange::Noted { job, note: "n".into() }, [true, true, true, false, false]),
    ];
    for (change, legal) in cases {
        for (state, legal) in states.iter().zip(legal) {
            let mut queue = Queue::default();
            queue.load(&Key::Job(job), Row::Job(row(state.clone())));
            assert_eq!(queue.apply(&change).is_ok(), legal, "I17: {change:?} of {state:?}");
        }
        let unborn = Queue::default().apply(&change).is_ok();
        assert_eq!(unborn, matches!(change, JobChange::Queued(_)), "{change:?} of no job");
    }
}

#[test]
fn uploads_that_restart_leave_a_note() {
    let mut rig = one_at_a_time();
    rig.want(1, 10, false);
    let fence = rig.queue.fence(JobId(1)).unwrap();
    rig.step(|queue, _, cx| queue.on_upload_restarted(cx, fence));
    assert!(rig.job(1).note.is_some_and(|note| note.starts_with("begun again")));
    rig.done(ObjectReply::Head(None));
}

mod the_line {
    use crate::id::JobId;
    use crate::queue::waiting::Waitlist;
    use crate::time::Mono;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn splits_into_due_and_later(dues in proptest::collection::vec(0u64..20, 0..40), now in 0u64..20) {
            let mut line = Waitlist::default();
            for (job, due) in (1..).zip(&dues) {
                line.put(JobId(job), Mono(99));
                line.put(JobId(job), Mono(*due));
            }
            let due = dues.iter().filter(|due| **due <= now).count();
            prop_assert_eq!(line.split(Mono(now)), (due, dues.len() - due));
            prop_assert_eq!(line.due_at(Mono(now)).count(), due);
            let next = dues.iter().copied().filter(|due| *due > now).min().map(Mono);
            prop_assert_eq!(line.next_after(Mono(now)), next);
        }
    }
}
