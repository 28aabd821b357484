//! Properties of the whole machine: whatever happens, in whatever order, every transition is legal and every invariant
//! holds. Written from the specification; the checks read committed records, effects and the models' ground truth.
//!
//! - `world`: one site around one machine: commit, release, crash, journal.
//! - `stores`, `fleet`: object stores and devices as they behave; `wild`: policies that answer anything;
//!   `policies`: modules, their host and who moves them about.
//! - `chaos`: what happens, as a sequence of small operations that shrinks.
//! - `watch_links`, `watch_rows`: the invariants; `replay`: the journal; `coverage`: what a run reached.
//! - `bugs`: which planted bugs these properties notice, in a build that has them.
//! - `violations`: each check fails when what it forbids is done; `regressions`: what was found, smallest form.

#[cfg(tidegate_bugs)]
mod bugs;
mod chaos;
mod coverage;
mod fleet;
mod policies;
mod regressions;
mod replay;
mod stores;
mod violations;
mod watch;
mod watch_links;
mod watch_rows;
mod wild;
mod world;

use std::collections::BTreeMap;
use std::format;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::prelude::v1::{Err, Ok, Result, Some, String, ToString, Vec};

use proptest::prelude::*;

use crate::refusal::Broken;
use chaos::{Kind, Op};
use coverage::Coverage;
pub(crate) use wild::Wild;
use world::World;

/// A life from boot to rest.
fn life(world: &mut World, ops: &[Op]) -> Result<(), Broken> {
    let (young, old) = ops.split_at(ops.len() / 2);
    world.live(young)?;
    world.replay()?;
    for op in old {
        world.say(|| format!("-- {op:?}"));
        world.act(*op)?;
    }
    world.settle()?;
    world.replay()
}

/// What went wrong: an invariant, or a panic.
struct Failure {
    invariant: String,
    report: String,
}

fn attempt(seed: u64, ops: &[Op], talk: bool) -> Result<Coverage, Failure> {
    attempt_in(World::new(seed), ops, talk)
}

fn attempt_in(mut world: World, ops: &[Op], talk: bool) -> Result<Coverage, Failure> {
    world.log = talk.then(Vec::new);
    let lived = catch_unwind(AssertUnwindSafe(|| life(&mut world, ops)));
    let (invariant, saw) = match lived {
        Ok(Ok(())) => return Ok(world.finish()),
        Ok(Err(broken)) => (broken.invariant.to_string(), broken.saw),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_string()));
            let text = text.unwrap_or_default();
            (format!("panic {}", text.chars().take(48).collect::<String>()), text)
        }
    };
    let log = world.log.unwrap_or_default();
    let tail = log[log.len().saturating_sub(60)..].join("\n");
    Err(Failure { report: format!("{tail}\n{invariant}: {saw}"), invariant })
}

/// Drops operations as long as the same thing goes wrong.
fn shrink(seed: u64, mut ops: Vec<Op>, invariant: &str) -> Vec<Op> {
    let same = |ops: &[Op]| attempt(seed, ops, false).is_err_and(|failure| failure.invariant == invariant);
    let mut size = ops.len().div_ceil(2);
    while size > 0 {
        let mut at = 0;
        while at < ops.len() {
            let mut fewer = ops.clone();
            fewer.drain(at..(at + size).min(ops.len()));
            if same(&fewer) {
                ops = fewer;
            } else {
                at += size;
            }
        }
        size /= 2;
    }
    ops
}

/// Operations of one life.
const LENGTH: usize = 300;

fn cases() -> u64 {
    std::env::var("TIDEGATE_PROP_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(1_500)
}

#[test]
fn whatever_happens_every_invariant_holds_and_everything_is_reached() {
    let mut reached = Coverage::default();
    let mut failures: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for seed in 0..cases() {
        match attempt(seed, &Op::sequence(seed, LENGTH), false) {
            Ok(coverage) => reached.add(&coverage),
            Err(failure) => failures.entry(failure.invariant).or_default().push(seed),
        }
    }
    let mut report = String::new();
    for (invariant, seeds) in &failures {
        let least = shrink(seeds[0], Op::sequence(seeds[0], LENGTH), invariant);
        let told = attempt(seeds[0], &least, true).err().map(|failure| failure.report).unwrap_or_default();
        report +=
            &format!("\n==== {invariant}, seeds {seeds:?}, {} operations: {least:?}\n{told}\n", least.len());
    }
    assert!(failures.is_empty(), "{report}");
    let missing = reached.missing();
    assert!(missing.is_empty(), "never reached: {missing:?}\nreached: {:#?}", reached.seen);
}

#[test]
fn without_faults_every_recording_reaches_the_cloud() {
    for seed in 0..8 {
        let mut world = World::new(seed * 77);
        world.wild = false;
        world.knobs.destination = true;
        world.restart().expect("boots");
        for n in 0..700_u16 {
            let kind = if n % 3 == 2 { Kind::Answer } else { Kind::Forward };
            let op = Op { what: kind, a: (n % 251).to_le_bytes()[0], b: 1 };
            world.act(op).expect("nothing is wrong");
        }
        world.settle().expect("comes to rest");
        let recorded: usize = world.fleet.iter().map(|device| device.deleted.len()).sum();
        let kept: usize = world.fleet.iter().map(|device| device.files.len()).sum();
        assert!(recorded >= 9, "seed {seed}: {recorded} recordings acknowledged, {kept} kept");
        let synced = watch::episodes(&world.rows)
            .filter(|row| matches!(row.sync, crate::row::SyncMark::Synced { .. }))
            .count();
        assert_eq!(synced, watch::jobs(&world.rows).count(), "seed {seed}: every job is done");
        assert!(synced >= 9, "seed {seed}: {synced} of {recorded} synced");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_sequence_keeps_every_invariant(
        seed in 0..64_u64,
        ops in proptest::collection::vec(any::<(u8, u8, u8)>().prop_map(|(code, a, b)| Op::of(code, a, b)), 0..160),
    ) {
        if let Err(failure) = attempt(seed, &ops, true) {
            prop_assert!(false, "{}", failure.report);
        }
    }
}
