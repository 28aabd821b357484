//! How fast: when the policy is asked again, what it is told, and that everybody's turn follows its verdict.

use super::*;
use core::time::Duration;

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
    rig.step(|_, uploads, _| uploads.on_turned());
    rig.want(2, 3 * MIB, false);
    rig.run(&mut store);
    assert_eq!(asked(&rig).len(), 2);
}
