//! Which planted bugs the properties of the whole machine notice, and by what. To see that each bug is reachable and does
//! harm; the world of its own that looks for them from outside is another one.

use std::collections::BTreeMap;
use std::prelude::v1::*;
use std::{format, println};

use super::chaos::Op;
use super::world::World;
use super::{LENGTH, attempt_in};
use crate::bug::Bug;

/// Bugs that these properties cannot notice, and why.
const UNSEEN: &[(Bug, &str)] = &[];

/// Lives tried per bug.
fn seeds() -> u64 {
    std::env::var("TIDEGATE_BUG_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(300)
}

/// Notices after which a bug is known well enough.
const ENOUGH: u32 = 5;

/// What the lives with one bug came to.
#[derive(Debug, Default)]
struct Tally {
    first: Option<(u64, String)>,
    by: BTreeMap<String, u32>,
    lives: u64,
}

fn tally(bug: Bug) -> Tally {
    let mut tally = Tally::default();
    for seed in 0..seeds() {
        let mut world = World::new(seed);
        world.knobs = world.knobs.clone().planting(bug).expect("this build has bugs");
        tally.lives += 1;
        if let Err(failure) = attempt_in(world, &Op::sequence(seed, LENGTH), false) {
            tally.first.get_or_insert_with(|| (seed, failure.invariant.clone()));
            *tally.by.entry(failure.invariant).or_default() += 1;
        }
        if tally.by.values().sum::<u32>() >= ENOUGH {
            break;
        }
    }
    tally
}

#[test]
fn every_planted_bug_is_noticed_but_for_those_that_show_only_elsewhere() {
    let only = std::env::var("TIDEGATE_BUG").ok();
    let mut wrong = Vec::new();
    for bug in Bug::ALL.iter().copied().filter(|bug| only.as_deref().is_none_or(|id| id == bug.id())) {
        let tally = tally(bug);
        let unseen = UNSEEN.iter().find(|(id, _)| *id == bug);
        match (&tally.first, unseen) {
            (Some((seed, by)), _) => {
                println!("{} seed {seed} {by} | {:?} in {} lives", bug.id(), tally.by, tally.lives);
            }
            (None, Some((_, why))) => println!("{} not noticed: {why}", bug.id()),
            (None, None) => {
                println!("{} NOT NOTICED in {} lives", bug.id(), tally.lives);
                wrong.push(format!("{} was not noticed in {} lives", bug.id(), tally.lives));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
