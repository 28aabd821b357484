//! How fast: when the policy is asked again, what it is told, and that everybody's turn follows its verdict.

use super::*;
use core::time::Duration;

use crate::knobs::Knobs;
use crate::policy::{Author, PolicyFault};
use crate::policy::{Binding, Seat};
use crate::time::Mono;

fn asked(rig: &Rig) -> Vec<u64> {
    let of = rig.policies.situations.iter().filter(|(slot, _)| *slot == Slot::Bandwidth);
    of.map(|(_, situation)| situation.memo).collect()
}

/// Two uploads whose parts wait for ten minutes each.
fn crawling(recheck_ms: u64) -> (Rig, Model) {
    let (mut rig, mut store) = (Rig::new(), Model::default());
    rig.policies.bandwidth = Some(1);
    rig.policies.recheck_ms = recheck_ms;
    rig.policies.memo = 5;
    rig.want(1, 3 * MIB, false);
    rig.want(2, 3 * MIB, false);
    while let Some((ticket, op)) = rig.open.iter().next().map(|(ticket, op)| (*ticket, op.clone())) {
        let outcome = store.does(&op);
        rig.answer(ticket, outcome);
    }
    (rig, store)
}

#[test]
fn a_policy_that_wished_so_is_asked_again_while_parts_wait_and_everybody_goes_when_it_says_so() {
    for (recheck_ms, waits) in [(5_000, 5), (1, 1), (120_000, 120)] {
        let (mut rig, mut store) = crawling(recheck_ms);
        let (start, before) = (rig.now.mono, asked(&rig).len());
        rig.wake();
        assert_eq!(start.until(rig.now.mono), Duration::from_secs(waits));
        assert_eq!(asked(&rig).len(), before + 1);
        assert!(rig.open.is_empty(), "the limit is as before");
        rig.policies.bandwidth = None;
        rig.wake();
        assert_eq!(start.until(rig.now.mono), Duration::from_secs(2 * waits));
        let sending: std::collections::BTreeSet<_> = rig.open.values().map(|op| op.key.clone()).collect();
        assert_eq!(sending.len(), 2, "both go at once: {:?}", rig.open);
        rig.run(&mut store);
        assert!(rig.is_completed(1) && rig.is_completed(2));
    }
}

#[test]
fn a_policy_that_wished_nothing_is_asked_when_a_part_leaves() {
    let (mut rig, _) = crawling(0);
    let (start, before) = (rig.now.mono, asked(&rig).len());
    rig.policies.bandwidth = None;
    rig.wake();
    assert!(start.until(rig.now.mono) > Duration::from_secs(500), "{:?}", start.until(rig.now.mono));
    assert!(asked(&rig).len() >= before);
}

#[test]
fn its_memo_comes_back_until_a_restart_or_another_policy() {
    let (mut rig, _) = crawling(1_000);
    assert_eq!(asked(&rig)[0], 0);
    rig.wake();
    assert_eq!(asked(&rig).last(), Some(&5));
    rig.active.names = ["other"; 5].map(Into::into);
    rig.wake();
    assert_eq!(asked(&rig).last(), Some(&0));
    rig.wake();
    assert_eq!(asked(&rig).last(), Some(&5));
}

#[test]
fn what_policies_judge_by_is_another_and_the_next_part_asks() {
    let mut rig = Rig::new();
    let mut store = Model::default();
    rig.policies.bandwidth = Some(u64::MAX);
    rig.policies.recheck_ms = u64::MAX;
    rig.want(1, 3 * MIB, false);
    rig.run(&mut store);
    assert_eq!(asked(&rig).len(), 1, "an hour is not over");
    rig.step(|_, uploads, cx| {
        uploads.turn(cx.now.mono);
        uploads.on_turned(cx)
    });
    rig.want(2, 3 * MIB, false);
    rig.run(&mut store);
    assert_eq!(asked(&rig).len(), 2);
}

/// Everything the store is asked is done, and time passes, for so long; before each step the limit is the next of these.
fn flow(rig: &mut Rig, store: &mut Model, limits: &[Option<u64>], lasts: Duration) {
    let end = rig.now.mono.after(lasts);
    let mut limits = limits.iter().cycle();
    loop {
        rig.policies.bandwidth = limits.next().copied().flatten();
        if let Some((ticket, op)) = rig.open.iter().next().map(|(ticket, op)| (*ticket, op.clone())) {
            let outcome = store.does(&op);
            rig.answer(ticket, outcome);
        } else if rig.timers.next().is_none_or(|(at, _)| at > end) {
            return;
        } else {
            rig.wake();
        }
    }
}

#[test]
fn a_limit_that_changes_with_every_answer_is_kept_and_uploads_go_on_taking_turns() {
    for (low, high) in [(250_000, 250_001), (250_000, 750_000), (10_000, 10_001)] {
        let (mut rig, mut store) = (Rig::new(), Model::default());
        rig.policies.recheck_ms = 1_000;
        rig.want(1, 500 * MIB, false);
        rig.want(2, 500 * MIB, false);
        flow(&mut rig, &mut store, &[Some(low), Some(high)], Duration::from_secs(600));
        let most = high * 600 + 2 * MIB;
        assert!(store.bytes <= most, "{} bytes in ten minutes at {high} a second", store.bytes);
        assert!(store.bytes + 2 * MIB >= low * 600, "{} bytes in ten minutes at {low} a second", store.bytes);
        let stored =
            |job| rig.rows.keys().filter(|key| matches!(key, Key::Part(of, _) if of.0 == job)).count();
        assert!(stored(1).abs_diff(stored(2)) <= 3, "{} and {}", stored(1), stored(2));
    }
}

#[test]
fn whoever_booked_a_turn_is_heard_at_once_when_policies_or_what_they_judge_by_are_others() {
    for recheck_ms in [0, 5_000] {
        let (mut rig, mut store) = crawling(recheck_ms);
        let before = asked(&rig).len();
        rig.step(|_, uploads, cx| {
            uploads.turn(cx.now.mono);
            uploads.on_turned(cx)
        });
        assert_eq!(asked(&rig).len(), before + 1, "one question is enough");
        assert!(rig.open.is_empty(), "the limit is as before");
        rig.policies.bandwidth = None;
        rig.step(|_, uploads, cx| {
            uploads.turn(cx.now.mono);
            uploads.on_turned(cx)
        });
        let sending: std::collections::BTreeSet<_> = rig.open.values().map(|op| op.key.clone()).collect();
        assert_eq!(sending.len(), 2, "both go in that step: {:?}", rig.open);
        rig.run(&mut store);
        assert!(rig.is_completed(1) && rig.is_completed(2));
    }
}

#[test]
fn a_site_that_stops_asks_nobody_though_what_policies_judge_by_is_another() {
    let (mut rig, _) = crawling(5_000);
    let before = asked(&rig).len();
    rig.stopping = true;
    rig.step(|_, uploads, cx| uploads.on_shutdown(cx));
    rig.step(|_, uploads, cx| {
        uploads.turn(cx.now.mono);
        uploads.on_turned(cx)
    });
    assert_eq!(asked(&rig).len(), before);
}

#[test]
fn no_limit_is_lower_than_a_part_in_ten_minutes_and_what_is_written_down_says_so() {
    for (part_size, said, enacted) in [
        (MIB, 1, "1748 B/s"),
        (MIB, 1_747, "1748 B/s"),
        (MIB, 1_748, "1748 B/s"),
        (8 * MIB, 1, "13982 B/s"),
        (512 * MIB, 100_000, "894785 B/s"),
    ] {
        let (mut rig, mut store) = (Rig::with(|knobs| knobs.part_size = part_size), Model::default());
        rig.policies.bandwidth = Some(said);
        rig.want(1, 3 * MIB, false);
        rig.run(&mut store);
        let decided = rig.decisions.iter().find(|decision| decision.question.slot() == Slot::Bandwidth);
        let decided = decided.expect("it was asked");
        assert_eq!((decided.enacted.as_str(), decided.clamped), (enacted, said != 1_748));
    }
}

/// Bandwidth decisions in the place of a policy that crawled.
fn stalls(rig: &Rig) -> usize {
    let stalled = |by: &Author| matches!(by, Author::Builtin { why: PolicyFault::Stalled, .. });
    rig.decisions.iter().filter(|decided| stalled(&decided.by)).count()
}

/// Two uploads of so many parts, under a policy that crawls.
fn crawl(parts: u64, change: impl FnOnce(&mut Knobs)) -> (Rig, Model) {
    let mut rig = Rig::with(change);
    rig.policies.bandwidth = Some(1);
    rig.want(1, parts * MIB, false);
    rig.want(2, parts * MIB, false);
    (rig, Model::default())
}

/// Lives on for so long under the same policy.
fn live(rig: &mut Rig, store: &mut Model, secs: u64) {
    let limit = rig.policies.bandwidth;
    flow(rig, store, &[limit], Duration::from_secs(secs));
}

#[test]
fn a_policy_that_crawls_for_longer_than_its_patience_is_overruled_and_everybody_goes() {
    for (said_ms, waits) in [(0, 3_600), (7_000_000, 7_000)] {
        let (mut rig, mut store) = crawl(100, |_| {});
        rig.active.patience_ms[Slot::Bandwidth as usize] = said_ms;
        flow(&mut rig, &mut store, &[Some(1)], Duration::from_millis(waits * 1_000 - 1));
        assert_eq!(stalls(&rig), 0);
        let step = rig.wake().expect("somebody waits for a turn");
        assert_eq!(rig.now.mono, Mono(waits * 1_000_000_000), "in the very moment");
        assert_eq!(stalls(&rig), 1);
        assert!(step.facts.contains(&Fact::PolicyStalled { slot: Slot::Bandwidth }));
        let sending: std::collections::BTreeSet<_> = rig.open.values().map(|op| op.key.clone()).collect();
        assert_eq!(sending.len(), 2, "both go at once: {:?}", rig.open);
    }
}

#[test]
fn a_policy_is_not_blamed_for_what_the_built_in_rules_would_do_as_well() {
    for limit in [1, 1_748] {
        let (mut rig, mut store) = crawl(100, |knobs| knobs.builtin.bytes_per_second = Some(limit));
        live(&mut rig, &mut store, 20_000);
        assert_eq!(stalls(&rig), 0);
        assert!(asked(&rig).len() < 100, "asked when a part leaves, {} times", asked(&rig).len());
    }
    let (mut rig, mut store) = crawl(100, |knobs| knobs.builtin.bytes_per_second = Some(1_749));
    live(&mut rig, &mut store, 4_000);
    assert_eq!(stalls(&rig), 1);
}

#[test]
fn its_patience_begins_anew_with_a_faster_answer_another_policy_a_bad_way_and_a_site_with_nothing_to_send() {
    let pauses: [fn(&mut Rig, &mut Model); 3] = [
        |rig, store| {
            flow(rig, store, &[Some(2_000)], Duration::from_secs(700));
        },
        |rig, store| {
            let module = crate::digest::Sha256([9; 32]);
            rig.active.seats[Slot::Bandwidth as usize] =
                Seat::Module(Binding { module, settings: Vec::new() });
            live(rig, store, 700);
        },
        |rig, store| {
            rig.situation.streak = 1;
            live(rig, store, 700);
            rig.situation.streak = 0;
        },
    ];
    for pause in pauses {
        let (mut rig, mut store) = crawl(100, |_| {});
        live(&mut rig, &mut store, 3_000);
        pause(&mut rig, &mut store);
        rig.policies.bandwidth = Some(1);
        live(&mut rig, &mut store, 2_800);
        assert_eq!(stalls(&rig), 0);
        live(&mut rig, &mut store, 1_900);
        assert_eq!(stalls(&rig), 1);
    }
}

#[test]
fn one_upload_after_the_other_is_no_pause_and_nothing_to_send_is_one() {
    let (mut rig, mut store) = (Rig::with(|knobs| knobs.builtin.uploads = 1), Model::default());
    rig.policies.bandwidth = Some(1);
    for n in 1..=20 {
        rig.want(n, MIB, false);
    }
    live(&mut rig, &mut store, 3_500);
    assert!(rig.is_completed(5) && !rig.is_completed(10), "ten minutes each");
    assert_eq!(stalls(&rig), 0);
    live(&mut rig, &mut store, 200);
    assert_eq!(stalls(&rig), 1);

    let (mut rig, mut store) = crawl(2, |_| {});
    live(&mut rig, &mut store, 3_000);
    assert!(rig.unfinished().is_empty());
    rig.now.mono = rig.now.mono.after(Duration::from_secs(1));
    rig.want(3, 100 * MIB, false);
    let begun = rig.now.mono;
    while stalls(&rig) == 0 {
        live(&mut rig, &mut store, 600);
        rig.wake();
    }
    assert!(begun.until(rig.now.mono) >= Duration::from_secs(3_600), "{:?}", begun.until(rig.now.mono));
}
