//! Equal scenarios give equal runs: in one process, in any order, whatever ran before, and whatever else is in the file.

use std::time::Duration;

use tidegate_sim::plan::{Shape, plan};
use tidegate_sim::run::{Options, Report, run};
use tidegate_sim::scenario::text::{parse, write};
use tidegate_sim::scenario::{CommitPoint, Fault, FaultSpec, Firmware, Keep, Lasts, Path, Scenario, When};

const SEEDS: std::ops::Range<u64> = 0..12;

fn of(seed: u64) -> Scenario {
    plan(seed, &Shape::default())
}

fn lived(scenario: &Scenario) -> Report {
    run(scenario, Options::default())
}

#[test]
fn one_scenario_gives_one_report_however_often_it_is_run() {
    for seed in SEEDS {
        let (one, two) = (lived(&of(seed)), lived(&of(seed)));
        assert!(one == two, "seed {seed} differs from itself: {} and {}", one.chain, two.chain);
        assert_eq!(one.chain.len(), 64);
    }
}

#[test]
fn the_order_of_seeds_changes_no_run_and_no_two_seeds_are_alike() {
    let forwards: Vec<String> = SEEDS.map(|seed| lived(&of(seed)).chain).collect();
    let mut backwards: Vec<String> = SEEDS.rev().map(|seed| lived(&of(seed)).chain).collect();
    backwards.reverse();
    assert_eq!(forwards, backwards);
    let mut distinct = forwards;
    distinct.sort();
    distinct.dedup();
    assert_eq!(distinct.len(), SEEDS.count());
}

#[test]
fn a_run_on_another_thread_is_the_same() {
    let here: Vec<String> = SEEDS.map(|seed| lived(&of(seed)).chain).collect();
    let there: Vec<String> = std::thread::scope(|scope| {
        let runs: Vec<_> = SEEDS.map(|seed| scope.spawn(move || lived(&of(seed)).chain)).collect();
        runs.into_iter().map(|run| run.join().expect("it ran")).collect()
    });
    assert_eq!(here, there);
}

#[test]
fn what_is_written_to_a_file_runs_as_what_was_planned() {
    for seed in SEEDS {
        let planned = of(seed);
        let read = parse(&write(&planned)).expect("just written");
        assert_eq!(lived(&planned).chain, lived(&read).chain, "seed {seed}");
    }
}

#[test]
fn watching_and_logging_change_nothing() {
    for seed in SEEDS {
        let plain = lived(&of(seed));
        let loud = run(&of(seed), Options { log: Some(true), checkpoints: 1, ..Options::default() });
        assert_eq!(plain.chain, loud.chain, "seed {seed}");
        if plain.failure.is_none() {
            let blind = run(&of(seed), Options { blind: true, ..Options::default() });
            assert_eq!((plain.chain, plain.events), (blind.chain, blind.events), "seed {seed}");
        }
    }
}

/// A crash at a commit that no run comes to.
fn never() -> FaultSpec {
    FaultSpec {
        when: When::Commit { site: 0, n: 4_000_000, point: CommitPoint::Torn },
        lasts: Lasts::Chaos,
        fault: Fault::Kill { site: 0, keep: Keep::Nothing, down: Duration::from_secs(1) },
    }
}

#[test]
fn a_fault_that_never_happens_shifts_nothing() {
    for seed in SEEDS {
        let plain = of(seed);
        let mut more = plain.clone();
        more.faults.push(never());
        assert_eq!(lived(&plain).chain, lived(&more).chain, "seed {seed}");
    }
}

#[test]
fn a_fault_at_one_device_leaves_the_chances_of_another_alone() {
    let (d1, d2) = ("d1", "d2");
    let mut calm = parse(tidegate_sim::named::find("null").expect("built in")).expect("a scenario file");
    calm.devices[1].firmware = Firmware::New;
    let mut stormy = calm.clone();
    stormy.faults.push(FaultSpec {
        when: When::At(Duration::from_secs(12)),
        lasts: Lasts::Chaos,
        fault: Fault::Reset { path: Path::Device(0) },
    });
    // What one device says first, with the times.
    let of_device = |scenario: &Scenario, id: &str, most: usize| -> Vec<String> {
        let lines = run(scenario, Options { log: Some(true), ..Options::default() }).log;
        let said = |line: &&String| {
            let words: Vec<&str> = line.split_whitespace().collect();
            words[2] == id && words[3] == "→"
        };
        // The number of the event counts what others do too; ids of requests are the site's.
        let bare = |line: &String| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let what = words[4..].join(" ");
            format!("{} {}", words[0], what.split("\"request_id\"").next().unwrap_or_default())
        };
        lines.iter().filter(said).take(most).map(bare).collect()
    };
    assert_eq!(of_device(&calm, d2, 6), of_device(&stormy, d2, 6));
    assert_eq!(of_device(&calm, d2, 6).len(), 6);
    assert_ne!(of_device(&calm, d1, 40), of_device(&stormy, d1, 40), "the fault did something where it was");
}
