//! What plans must be and what they must sometimes contain.

use std::collections::BTreeSet;
use std::time::Duration;

use tidegate_core::policy::Slot;

use super::{Shape, plan};
use crate::scenario::{Act, Conduct, Deed, Fault, Lasts, Lie, Scenario, When};

/// Enough to see everything that comes once in a few hundred seeds.
const SEEDS: u64 = 3_000;

fn all() -> impl Iterator<Item = Scenario> {
    (0..SEEDS).map(|seed| plan(seed, &Shape::default()))
}

fn is_dishonest(fault: &Fault) -> bool {
    matches!(fault, Fault::Lie { .. } | Fault::Twin { .. } | Fault::Overwrite { .. } | Fault::Delete { .. })
}

#[test]
fn every_plan_is_a_legal_scenario() {
    for shape in [Shape::default(), Shape::idle(), Shape::busy()] {
        for seed in (0..500).chain([u64::MAX, u64::MAX - 1, 1 << 63]) {
            let scenario = plan(seed, &shape);
            assert_eq!(scenario.check(), Ok(()), "seed {seed}");
        }
    }
}

#[test]
fn a_plan_follows_from_its_seed_and_from_nothing_else() {
    for seed in 0..50 {
        assert_eq!(plan(seed, &Shape::default()), plan(seed, &Shape::default()));
        assert_ne!(plan(seed, &Shape::default()).steps, plan(seed + 1, &Shape::default()).steps);
    }
}

#[test]
fn the_workload_and_the_fleet_stay_when_faults_or_lies_are_left_out() {
    for seed in 0..200 {
        let whole = plan(seed, &Shape::default());
        for shape in
            [Shape { faults: false, ..Shape::default() }, Shape { dishonest: false, ..Shape::default() }]
        {
            let less = plan(seed, &shape);
            assert_eq!(less.steps, whole.steps);
            assert_eq!(less.sites, whole.sites);
            assert_eq!(less.devices, whole.devices);
            assert_eq!((less.chaos, less.settle), (whole.chaos, whole.settle));
        }
    }
}

#[test]
fn a_shape_without_faults_has_none_and_an_honest_one_no_lies() {
    for seed in 0..300 {
        assert!(plan(seed, &Shape { faults: false, ..Shape::default() }).faults.is_empty());
        let honest = plan(seed, &Shape { dishonest: false, ..Shape::default() });
        assert!(!honest.faults.iter().any(|spec| is_dishonest(&spec.fault)));
    }
}

#[test]
fn every_fault_every_lie_every_act_and_every_moment_is_drawn_sooner_or_later() {
    let mut seen = BTreeSet::new();
    for scenario in all() {
        for spec in &scenario.faults {
            let (id, word) = spec.fault.name();
            seen.insert(format!("{id} {word}"));
            if let Fault::Lie { lie, .. } = spec.fault {
                seen.insert(format!("{lie:?}"));
            }
            if let Fault::Install { slot, module, .. } = spec.fault {
                seen.extend([format!("under {}", slot.name()), format!("module {}", module.conduct.word())]);
            }
            seen.insert(match spec.when {
                When::At(_) => "at".to_string(),
                When::Commit { point, .. } => format!("commit {point:?}"),
                When::Object { point, .. } => format!("object {point:?}"),
                When::Policy { point, .. } => format!("policy {point:?}"),
            });
            match spec.lasts {
                Lasts::For(_) => {}
                Lasts::Chaos => drop(seen.insert("chaos".to_string())),
                Lasts::Forever => drop(seen.insert("forever".to_string())),
            }
        }
        for step in &scenario.steps {
            let text = format!("{:?}", step.act);
            let word = text.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default().to_string();
            seen.insert(word);
            if let Act::Command { action, .. } = &step.act {
                seen.insert(action.name().to_string());
            }
            if let Act::Policy { deed, .. } = &step.act {
                seen.insert(format!("{deed:?}"));
            }
        }
        for site in &scenario.sites {
            seen.insert(format!("{:?}", site.flavour));
            seen.insert(format!("{:?}", site.policy));
        }
        for device in &scenario.devices {
            seen.insert(format!("{:?}", device.firmware));
        }
    }
    let faults = [
        "F01 slow",
        "F02 hold",
        "F03 cut",
        "F04 cut",
        "F05 power-off",
        "F06 reset",
        "F07 refuse",
        "F08 replay",
        "F11 kill",
        "F12 power-loss",
        "F14 pause",
        "F15 step",
        "F15 drift",
        "F16 disk-fails",
        "F16 disk-slow",
        "F18 throttle",
        "F18 broken",
        "F18 expired",
        "F18 skewed",
        "F19 lose-answers",
        "F19 lose-requests",
        "F20 outage",
        "F20 lifecycle",
        "F20 overwrite",
        "F20 delete",
        "F21 crash",
        "F21 twin",
        "F21 sulk",
        "F19 lose-callbacks",
        "F22 lie",
        "F24 install",
        "F24 swap-storm",
        "F24 rot",
        "F24 host-slow",
        "F24 surroundings",
    ];
    let rest = [
        "at",
        "commit Torn",
        "commit Durable",
        "commit Released",
        "object Asked",
        "object Applied",
        "object Answered",
        "chaos",
        "forever",
        "Record",
        "Create",
        "Command",
        "Cancel",
        "Judge",
        "Sync",
        "Refresh",
        "Restart",
        "StopRecorder",
        "RestartUploader",
        "Local",
        "Resolve",
        "Full",
        "Composite",
        "Tags",
        "Opaque",
        "Old",
        "Middle",
        "New",
    ];
    let deeds = Deed::ALL.map(|deed| format!("{deed:?}"));
    let slots = Slot::ALL.map(|slot| format!("under {}", slot.name()));
    let modules = Conduct::ALL.map(|conduct| format!("module {}", conduct.word()));
    let lies = Lie::ALL.map(|lie| format!("{lie:?}"));
    let actions = tidegate_core::input::Action::ALL.map(|action| action.name().to_string());
    let wanted = faults.iter().chain(&rest).map(ToString::to_string).chain(lies).chain(actions);
    let wanted = wanted.chain(deeds).chain(slots).chain(modules);
    let missing: Vec<String> = wanted.filter(|one| !seen.contains(one)).collect();
    assert!(missing.is_empty(), "never drawn: {missing:?}");
}

#[test]
fn a_share_of_seeds_is_quiet_and_more_than_an_eighth_is_honest() {
    let (mut quiet, mut honest, mut lying) = (0, 0, 0);
    for scenario in all() {
        let dishonest = scenario.faults.iter().any(|spec| is_dishonest(&spec.fault));
        quiet += u64::from(scenario.faults.is_empty());
        honest += u64::from(!dishonest);
        lying += u64::from(dishonest);
    }
    assert!((SEEDS / 24..SEEDS / 10).contains(&quiet), "{quiet} of {SEEDS}");
    assert!(honest - quiet > SEEDS / 8, "{honest} of {SEEDS}");
    assert!(lying > SEEDS / 8, "{lying} of {SEEDS}");
}

#[test]
fn plans_stay_small_enough_for_many_short_lives() {
    let (mut steps, mut faults, mut recordings, mut long) = (0, 0, 0, 0);
    for scenario in all() {
        let own = scenario.steps.iter().filter(|step| matches!(step.act, Act::Record(_))).count();
        assert!((1..=14).contains(&own));
        recordings += own;
        steps += scenario.steps.len();
        faults += scenario.faults.len();
        long += usize::from(scenario.chaos > Duration::from_secs(3600));
        let whole = u64::try_from((scenario.chaos + scenario.settle).as_millis()).expect("days");
        // Three times the jobs that a recording may need are granted; a run ends as soon as nothing can move any more.
        let whole = whole / 3;
        for site in &scenario.sites {
            assert!(whole / site.knobs.scan_every_ms <= 10_000, "{}: {whole} ms", scenario.name);
            assert!(whole / site.knobs.request_again_ms <= 10_000, "{}: {whole} ms", scenario.name);
        }
        assert!(scenario.faults.len() <= 60, "{}", scenario.name);
    }
    let seeds = usize::try_from(SEEDS).expect("small");
    assert!(
        recordings / seeds <= 5 && steps / seeds <= 40 && faults / seeds <= 8,
        "{recordings} {steps} {faults}"
    );
    assert!((seeds / 20..seeds / 5).contains(&long), "{long}");
}

#[test]
fn multipart_uploads_of_all_small_sizes_and_edges_occur() {
    let mut parts = BTreeSet::new();
    let (mut whole, mut more, mut empty) = (0, 0, 0);
    for scenario in all() {
        for step in &scenario.steps {
            if let Act::Record(recording) = &step.act {
                let part = scenario.sites[scenario.devices[recording.device].site].knobs.part_size;
                parts.insert(recording.bytes.div_ceil(part));
                empty += u64::from(recording.bytes == 0);
                whole += u64::from(recording.bytes > 0 && recording.bytes % part == 0);
                more += u64::from(recording.bytes % part == 1);
            }
        }
    }
    assert!((0..=8).all(|n| parts.contains(&n)), "{parts:?}");
    assert!(whole > 100 && more > 100 && empty > 20, "{whole} {more} {empty}");
}
