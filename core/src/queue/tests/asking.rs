//! What the policies of the queue are told, what of their verdicts counts, and that none of it can keep a job for good.

use super::*;
use crate::chance::Chance;
use crate::digest::Sha256;
use crate::id::PolicySetId;
use crate::labels::LabelRule;
use crate::object::Verb;
use crate::outcome::Outcome;
use crate::policy::{Author, Binding, Builtin, Known, LinkKind, PolicyFault, Power, Seat, Situation};
use crate::upload::rig::MIB;
use crate::world_tests::Wild;
use proptest::prelude::*;

const HOUR: Duration = Duration::from_secs(3600);
const MINUTE: Duration = Duration::from_secs(60);

fn last(rig: &Rig, slot: Slot) -> Situation {
    let found = rig.policies.situations.iter().rev().find(|(asked, _)| *asked == slot);
    found.expect("it was asked").1.clone()
}

/// Seats a module of this name in every slot.
fn seat(rig: &mut Rig, name: &str) {
    rig.active.names = [name; 5].map(Into::into);
}

/// Another policy sits in a slot from the next step on, which is this one.
fn turn(rig: &mut Rig, n: u8, slot: Slot) -> Step {
    let binding = Binding { module: Sha256([n; 32]), settings: vec![] };
    rig.active.set = PolicySetId([n; 32]);
    rig.active.seats[slot as usize] = Seat::Module(binding);
    if slot == Slot::Retry {
        rig.active.retry_sets.clear();
    }
    rig.active.retry_sets.push(rig.active.set);
    rig.turned()
}

fn stalled(step: &Step) -> bool {
    step.facts.contains(&Fact::PolicyStalled { slot: Slot::Concurrency })
}

/// Wakes until the policy is overruled; when that was.
fn overruled_after(rig: &mut Rig) -> Duration {
    let start = rig.now.mono;
    for _ in 0..5_000 {
        let step = rig.wake().expect("a job that is due is not forgotten");
        if stalled(&step) {
            assert!(!step.claimed().is_empty(), "the built-in rules let it begin");
            return start.until(rig.now.mono);
        }
        assert_eq!(step.claimed(), [], "not before");
    }
    panic!("never overruled");
}

#[test]
fn a_question_tells_what_surrounds_the_site_and_how_fast_it_was() {
    let mut rig = one_at_a_time();
    rig.situation = Situation {
        link: LinkKind::Cellular,
        metered: Known::Yes,
        power: Power::Battery,
        minute_of_week: 77,
        disk_free: 250,
        ..Situation::default()
    };
    rig.want(1, 10, false);
    rig.want(2, 10, false);
    rig.want(3, 10, false);
    let fence = rig.queue.fence(JobId(1)).unwrap();
    rig.step(|queue, _, cx| queue.on_part_acknowledged(cx, fence, 6_000));
    rig.pass(Duration::from_secs(10));
    rig.failed(1, DATA);
    let seen = last(&rig, Slot::Concurrency);
    let around = (seen.link, seen.metered, seen.power, seen.minute_of_week, seen.disk_free);
    assert_eq!(around, (LinkKind::Cellular, Known::Yes, Power::Battery, 77, 250));
    assert_eq!((seen.due, seen.waiting, seen.uploading, seen.goodput), (2, 1, 0, 100));
    let query = rig.policies.queries[0].clone();
    assert_eq!((query.link, query.metered, query.sent), (LinkKind::Cellular, Known::Yes, 6_000));
    let order = last(&rig, Slot::Order);
    assert_eq!((order.link, order.goodput, order.memo), (LinkKind::Cellular, 100, 0));
    let mut seeds: Vec<u64> = rig.policies.situations.iter().map(|(_, seen)| seen.seed).collect();
    let all = seeds.len();
    seeds.sort_unstable();
    seeds.dedup();
    assert_eq!((seeds.len(), seeds.contains(&0)), (all, false), "each question has a seed of its own");
}

#[test]
fn an_order_is_asked_with_the_labels_of_each_device() {
    let rule = LabelRule { devices: "rob*".into(), labels: vec![("deadline-hours".into(), "24".into())] };
    let mut rig = Rig::with(|knobs| {
        knobs.builtin.uploads = 1;
        knobs.labels = vec![rule.clone()];
    });
    for n in 1..=3 {
        rig.want(n, 10, false);
    }
    rig.ended(1, UploadEnd::Done { etag: ETag::new("e") });
    let shown = rig.policies.waiting[0].clone();
    assert_eq!(shown.len(), 2);
    assert!(shown.iter().all(|job| job.labels == rule.labels), "{shown:?}");
}

#[test]
fn how_many_may_run_is_asked_again_when_the_policy_said_within_bounds() {
    let cases = [(0, MINUTE), (5_000, Duration::from_secs(5)), (1, limits::RECHECK_MIN), (u64::MAX, HOUR)];
    for (recheck_ms, waits) in cases {
        let mut rig = Rig::new();
        rig.knobs.patience_ms = 24 * 3_600_000;
        rig.policies.uploads = Some(0);
        rig.policies.recheck_ms = recheck_ms;
        rig.want(1, 10, false);
        let asked = rig.policies.asked.len();
        let start = rig.now.mono;
        assert_eq!(rig.wake().unwrap().claimed(), []);
        assert_eq!((start.until(rig.now.mono), rig.policies.asked.len()), (waits, asked + 1), "{recheck_ms}");
    }
}

#[test]
fn a_memo_comes_back_to_the_policy_that_noted_it_and_to_nobody_else() {
    let mut rig = Rig::new();
    seat(&mut rig, "night");
    rig.policies.uploads = Some(0);
    rig.policies.memo = 42;
    let memo = |rig: &mut Rig| {
        rig.wake();
        last(rig, Slot::Concurrency).memo
    };
    rig.want(1, 10, false);
    assert_eq!(last(&rig, Slot::Concurrency).memo, 0, "at first there is none");
    assert_eq!(memo(&mut rig), 42);
    // Whoever stands in notes nothing, and erases nothing.
    rig.policies.by = Some(Author::Builtin { instead_of: rig.active.set, why: PolicyFault::Trap });
    rig.policies.memo = 9;
    assert_eq!(memo(&mut rig), 42);
    rig.policies.by = None;
    rig.policies.memo = 0;
    assert_eq!((memo(&mut rig), memo(&mut rig)), (42, 0), "it may note nothing as well");
    rig.policies.memo = 7;
    memo(&mut rig);
    seat(&mut rig, "day");
    assert_eq!((memo(&mut rig), memo(&mut rig)), (0, 7));
    rig.reboot();
    assert_eq!(last(&rig, Slot::Concurrency).memo, 0, "and a restart forgets it");
}

#[test]
fn a_retry_is_asked_with_its_own_memo_also_after_a_restart() {
    let mut rig = one_at_a_time();
    seat(&mut rig, "by-class");
    rig.policies.retry = Some(RetryAction::After { delay_ms: 90_000 });
    rig.policies.memo = 42;
    rig.want(1, 10, false);
    rig.failed(1, DATA);
    assert_eq!(rig.job(1).memo.map(|memo| (memo.policy, memo.value)), Some(("by-class".into(), 42)));
    rig.reboot();
    // A way that fails in between takes nothing away.
    rig.wake();
    rig.failed(1, Fault::Offline);
    rig.wake();
    let begun = rig.job(1).first_claimed_at.unwrap();
    rig.policies.by = Some(Author::Builtin { instead_of: rig.active.set, why: PolicyFault::Exhausted });
    rig.policies.memo = 9;
    let step = rig.failed(1, DATA);
    let fault = Fact::PolicyFaulted { slot: Slot::Retry, why: PolicyFault::Exhausted };
    assert_eq!(step.facts.iter().filter(|fact| **fact == fault).count(), 1, "{:?}", step.facts);
    rig.policies.by = None;
    rig.wake();
    rig.failed(1, DATA);
    seat(&mut rig, "other");
    rig.wake();
    rig.policies.retry = Some(RetryAction::Park);
    rig.policies.memo = 8;
    rig.failed(1, DATA);
    let memos: Vec<u64> = rig.policies.queries.iter().map(|query| query.memo).collect();
    assert_eq!(memos, [0, 42, 42, 0], "the stand-in noted nothing, and another policy reads nothing");
    let delays: Vec<u64> = rig.policies.queries.iter().map(|query| query.last_delay_ms).collect();
    assert_eq!(delays, [0, 90_000, 90_000, 90_000]);
    let query = rig.policies.queries[1].clone();
    assert!(query.elapsed_ms >= 90_000, "{query:?}");
    assert_eq!(rig.job(1).first_claimed_at, Some(begun));
    rig.policies.retry = None;
    rig.ask_again(1);
    rig.failed(1, DATA);
    let query = rig.policies.queries.last().unwrap().clone();
    assert_eq!((query.memo, query.last_delay_ms), (8, 0), "a parked job keeps its memo; nobody let it wait");
}

#[test]
fn a_policy_that_lets_nothing_begin_is_overruled_when_its_patience_is_over() {
    for (recheck_ms, patience_ms, named, waits) in [
        (0, 3_600_000, 0, HOUR),
        (u64::MAX, 3_600_000, 0, HOUR),
        (1, 60_000, 0, MINUTE),
        (0, 60_000, 7_200_000, 2 * HOUR),
        (u64::MAX, 90 * 60_000, 60_000, 90 * MINUTE),
        (u64::MAX, 3_600_000, u64::MAX, limits::PATIENCE_MAX),
    ] {
        let mut rig = Rig::new();
        rig.knobs.patience_ms = patience_ms;
        rig.active.patience_ms[Slot::Concurrency as usize] = named;
        rig.policies.uploads = Some(0);
        rig.policies.recheck_ms = recheck_ms;
        rig.want(1, 10, false);
        assert_eq!(rig.counts(), (1, 0, 0, 0));
        assert_eq!(overruled_after(&mut rig), waits, "recheck {recheck_ms}, patience {patience_ms}, {named}");
        assert_eq!(rig.job(1).ruled_by, Some(rig.active.set), "the set whose turn it was");
        assert_eq!(rig.counts(), (0, 0, 1, 0));
    }
}

#[test]
fn the_own_reasons_of_the_site_are_not_held_against_a_policy() {
    let slow = |rig: &mut Rig| rig.policies.uploads = Some(0);
    // An upload runs, however long.
    let mut rig = one_at_a_time();
    rig.want(1, 10, false);
    slow(&mut rig);
    rig.want(2, 10, false);
    rig.pass(10 * HOUR);
    assert!(!stalled(&rig.due()));
    assert!(!stalled(&rig.ended(1, UploadEnd::Done { etag: ETag::new("e") })));
    assert_eq!(overruled_after(&mut rig), HOUR);
    // The way is blocked, again and again.
    let mut rig = one_at_a_time();
    rig.want(1, 10, false);
    slow(&mut rig);
    rig.failed(1, Fault::Throttled { retry_after_ms: Some(10 * 3_600_000) });
    rig.pass(5 * HOUR);
    assert!(!stalled(&rig.due()));
    assert_eq!(overruled_after(&mut rig), 6 * HOUR, "five of the way and one of the policy");
    // Nothing is due.
    let mut rig = one_at_a_time();
    rig.policies.retry = Some(RetryAction::After { delay_ms: 5 * 3_600_000 });
    rig.want(1, 10, false);
    slow(&mut rig);
    rig.failed(1, DATA);
    assert_eq!(overruled_after(&mut rig), 6 * HOUR);
    // Another policy, or the same with other settings, has its own time.
    let mut rig = one_at_a_time();
    slow(&mut rig);
    rig.want(1, 10, false);
    rig.pass(59 * MINUTE);
    rig.due();
    turn(&mut rig, 7, Slot::Concurrency);
    rig.pass(59 * MINUTE);
    assert!(!stalled(&rig.due()));
    assert_eq!(overruled_after(&mut rig), MINUTE);
    // So has the next boot.
    let mut rig = one_at_a_time();
    slow(&mut rig);
    rig.want(1, 10, false);
    rig.pass(59 * MINUTE);
    assert!(!stalled(&rig.reboot()));
    assert_eq!(overruled_after(&mut rig), HOUR);
    // No destination, or the site stops.
    let mut rig = one_at_a_time();
    slow(&mut rig);
    rig.want(1, 10, false);
    rig.stopping = true;
    rig.pass(10 * HOUR);
    assert!(!stalled(&rig.due()));
    rig.stopping = false;
    assert!(!stalled(&rig.due()), "what went before the stop is void");
    rig.knobs.destination = false;
    rig.pass(10 * HOUR);
    assert!(!stalled(&rig.due()));
    rig.knobs.destination = true;
    assert!(!stalled(&rig.due()));
    assert_eq!(overruled_after(&mut rig), HOUR);
}

#[test]
fn what_is_swapped_in_another_slot_gives_a_policy_no_new_time() {
    let mut rig = one_at_a_time();
    rig.policies.uploads = Some(0);
    rig.want(1, 10, false);
    for n in 1..=3 {
        rig.pass(15 * MINUTE);
        assert!(!stalled(&rig.due()));
        let step = turn(&mut rig, n, if n % 2 == 0 { Slot::Order } else { Slot::Retry });
        assert!(!stalled(&step));
    }
    assert_eq!(overruled_after(&mut rig), 15 * MINUTE);
}

#[test]
fn what_a_policy_parked_goes_on_when_another_one_rules_failed_attempts() {
    let mut rig = one_at_a_time();
    rig.policies.retry = Some(RetryAction::Park);
    for n in 1..=3 {
        rig.want(n, 10, false);
        rig.failed(n, DATA);
    }
    let at = rig.now.wall;
    assert_eq!(rig.counts(), (0, 0, 0, 3));
    // It is not another one for what else happens to the set.
    assert_eq!(turn(&mut rig, 1, Slot::Order).names(), [""; 0]);
    assert_eq!(rig.reboot().names(), [""; 0], "nor for a restart");
    assert_eq!(rig.counts(), (0, 0, 0, 3));
    // A site that stops, or has nowhere to go, returns nothing; what it left is returned when it can.
    rig.stopping = true;
    assert_eq!(turn(&mut rig, 2, Slot::Retry).names(), [""; 0]);
    rig.stopping = false;
    rig.knobs.destination = false;
    assert_eq!(rig.turned().names(), [""; 0]);
    rig.reboot();
    assert_eq!(rig.counts(), (0, 0, 0, 3));
    rig.knobs.destination = true;
    let step = rig.turned();
    assert_eq!(step.names()[..3], ["job.returned"; 3]);
    assert_eq!(step.claimed(), [JobId(1)]);
    assert_eq!(rig.job(2).state, JobState::Pending { due: at, cause: Cause::Policy });
    assert_eq!((rig.job(2).spent, rig.counts()), (1, (2, 0, 1, 0)), "it costs nothing");
}

#[test]
fn what_a_policy_parked_goes_on_at_a_start_that_finds_another_one() {
    let mut rig = one_at_a_time();
    rig.policies.retry = Some(RetryAction::Park);
    rig.want(1, 10, false);
    rig.failed(1, DATA);
    // The process ended before anybody noticed.
    (rig.active.set, rig.active.retry_sets) = (PolicySetId([7; 32]), vec![PolicySetId([7; 32])]);
    let step = rig.reboot();
    assert_eq!((step.names()[0], step.claimed()), ("job.returned", vec![JobId(1)]));
}

#[test]
fn a_policy_that_never_lets_anything_begin_stops_no_job() {
    let mut rig = Rig::new();
    rig.policies.uploads = Some(0);
    rig.policies.recheck_ms = u64::MAX;
    for n in 1..=7 {
        rig.want(n, 10, false);
    }
    rig.run(&mut Model::default());
    assert!((1..=7).all(|n| rig.is_completed(n)));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever policies answer, no job is lost and none waits for ever: each one ends, or is parked in the open.
    #[test]
    fn no_verdict_loses_or_starves_a_job(luck in any::<u64>(), jobs in 1..12_u64, failing in 0..40_u64) {
        let mut rig = Rig::with(|knobs| knobs.patience_ms = 60_000);
        let mut store = Model::default();
        let mut luck = Chance::new(luck);
        rig.seed(luck.next_u64());
        rig.policies.instead = Some(std::boxed::Box::new(Wild(Builtin::new(rig.knobs.builtin.clone()))));
        for n in 1..=jobs {
            rig.want(n, MIB * (1 + n % 4), false);
        }
        let mut idle = 0;
        for _ in 0..30_000 {
            if let Some((ticket, op)) = rig.open.iter().next().map(|(ticket, op)| (*ticket, op.clone())) {
                let spoilt = matches!(op.verb, Verb::Put { .. } | Verb::PutPart { .. })
                    && luck.below(100) < failing;
                let outcome = if spoilt { Outcome::Failed(DATA) } else { store.does(&op) };
                rig.answer(ticket, outcome);
            } else if rig.wake().is_none() {
                // What a policy parked waits for an operator, and nothing else does.
                let left = rig.unfinished();
                let open = left.iter().all(|row| matches!(row.state, JobState::Parked { why: ParkWhy::Policy, .. }));
                prop_assert!(open, "{left:?}");
                idle += 1;
                if left.is_empty() {
                    break;
                }
                for row in left {
                    rig.ask_again(row.id.0);
                }
            }
        }
        prop_assert!(rig.unfinished().is_empty(), "after {idle} rests: {:?}", rig.unfinished());
        prop_assert_eq!(rig.ended.len() as u64, jobs, "each job has one end");
    }
}
