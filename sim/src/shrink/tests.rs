//! Shrinking with predicates whose smallest scenario is known. Runs no world.

use std::cell::Cell;
use std::time::Duration;

use tidegate_core::id::Role;
use tidegate_core::input::Action;
use tidegate_core::knobs::Knobs;
use tidegate_core::policy::{Known, LinkKind, Slot};

use super::{Budget, Shrunk, events, shrink};
use crate::scenario::{
    Act, CommitPoint, Deed, DeviceSpec, Fault, FaultSpec, Firmware, Flavour, Keep, Lasts, Lie, Path,
    Recording, Scenario, Site, Step, Store, Sync, Way, When,
};
use crate::stream::Stream;

fn seconds(s: u64) -> Duration {
    Duration::from_secs(s)
}

fn site(i: usize) -> Site {
    Site {
        name: format!("site-{i}"),
        knobs: Knobs {
            site: format!("site-{i}"),
            rpc_timeout_ms: 700,
            destination: true,
            ..Knobs::default()
        },
        flavour: Flavour::Opaque,
        flush: Duration::from_millis(17),
        cloud_latency: Duration::from_millis(80),
        cloud_speed: 1000,
        policy: crate::scenario::Manner::Hesitant,
    }
}

fn device(i: usize, site: usize) -> DeviceSpec {
    DeviceSpec {
        id: format!("device-{i}"),
        site,
        firmware: Firmware::Old,
        latency: Duration::from_millis(30),
        speed: 5000,
    }
}

fn record(device: usize) -> Act {
    Act::Record(Recording {
        device,
        task: format!("task-{device}"),
        bytes: 1 << 24,
        lasts: seconds(40),
        bare: true,
        pause: true,
        approve: true,
        sync: Sync::Named,
    })
}

fn fault(at: u64, fault: Fault) -> FaultSpec {
    FaultSpec { when: When::At(seconds(at)), lasts: Lasts::For(seconds(9)), fault }
}

/// Some scenario of two or three sites, a few devices each, and dozens of events that refer to them.
fn scenario(seed: u64) -> Scenario {
    let mut dice = Stream::new(seed, "shrink-test", 0);
    let sites: Vec<Site> = (0..2 + usize::try_from(dice.below(2)).expect("small")).map(site).collect();
    let devices: Vec<DeviceSpec> = (0..6).map(|i| device(i, i % sites.len())).collect();
    let mut draw = |bound: usize| usize::try_from(dice.below(bound as u64)).expect("below a length");
    let mut steps: Vec<Step> =
        (0..devices.len()).map(|d| Step { at: seconds(d as u64), act: record(d) }).collect();
    let mut faults = Vec::new();
    for n in 0..40 {
        let (d, s) = (draw(devices.len()), draw(sites.len()));
        let task = format!("task-{d}");
        let slot = Slot::Order;
        let act = match draw(8) {
            0 => Act::Command { device: d, action: Action::Finish, task: Some(task) },
            1 => Act::Cancel { task, site: devices[d].site },
            2 => Act::Judge { task, site: devices[d].site, approve: true },
            3 => Act::Sync { task: Some(task), site: devices[d].site },
            4 => Act::Refresh { device: d, max_age: seconds(1) },
            5 => Act::Restart { site: s, destination: true },
            6 => Act::Policy { site: s, deed: Deed::Rollback, slot, module: None },
            _ => Act::StopRecorder { device: d },
        };
        steps.push(Step { at: seconds(n + 10), act });
        let what = match draw(12) {
            0 => Fault::Cut { path: Path::Device(d), way: Way::Up },
            1 => Fault::Reset { path: Path::Link(d, Role::Recorder) },
            2 => Fault::Hold { path: Path::Site(s) },
            3 => Fault::Slow { path: Path::Cloud(s), by: seconds(3) },
            4 => Fault::Kill { site: s, keep: Keep::Subset, down: seconds(5) },
            5 => Fault::Step { site: s, by_ms: -86_400_000 },
            6 => Fault::Throttle { store: Store::Cloud(s), permille: 300 },
            8 => Fault::SwapStorm { site: s, slot, every: seconds(1) },
            10 => Fault::Surroundings { site: s, link: LinkKind::Cellular, metered: Known::Yes },
            9 => Fault::HostSlow { site: s, by: seconds(2), permille: 500 },
            7 => Fault::Overwrite { store: Store::Edge(devices[d].site), task: format!("task-{d}") },
            _ => Fault::Lie { device: d, lie: Lie::FalseIdle },
        };
        faults.push(fault(n + 5, what));
    }
    faults.push(FaultSpec {
        when: When::Commit { site: 1, n: 37, point: CommitPoint::Torn },
        lasts: Lasts::Forever,
        fault: Fault::Kill { site: 1, keep: Keep::Prefix, down: seconds(2) },
    });
    Scenario {
        name: "big".to_string(),
        about: String::new(),
        seed,
        bug: None,
        expect: None,
        chaos: seconds(600),
        settle: seconds(3600),
        sites,
        devices,
        steps,
        faults,
    }
}

/// Every index stands for something.
fn is_whole(s: &Scenario) -> bool {
    let device = |d: &usize| *d < s.devices.len();
    let site = |i: &usize| *i < s.sites.len();
    let steps = s.steps.iter().all(|step| match &step.act {
        Act::Record(recording) => device(&recording.device),
        Act::Create { device: d, .. }
        | Act::Command { device: d, .. }
        | Act::Refresh { device: d, .. }
        | Act::StopRecorder { device: d }
        | Act::RestartUploader { device: d }
        | Act::Local { device: d, .. }
        | Act::Resolve { device: d, .. } => device(d),
        Act::Cancel { site: i, .. }
        | Act::Judge { site: i, .. }
        | Act::Sync { site: i, .. }
        | Act::Restart { site: i, .. }
        | Act::Policy { site: i, .. } => site(i),
    });
    let faults = s.faults.iter().all(|spec| {
        let when = match &spec.when {
            When::At(_) => true,
            When::Commit { site: i, .. } | When::Object { site: i, .. } | When::Policy { site: i, .. } => {
                site(i)
            }
        };
        when && match &spec.fault {
            Fault::Cut { path, .. }
            | Fault::Reset { path }
            | Fault::Hold { path }
            | Fault::Slow { path, .. } => match path {
                Path::Link(d, _) | Path::Device(d) => device(d),
                Path::Site(i) | Path::Cloud(i) => site(i),
            },
            Fault::Kill { site: i, .. }
            | Fault::Step { site: i, .. }
            | Fault::SwapStorm { site: i, .. }
            | Fault::HostSlow { site: i, .. }
            | Fault::Surroundings { site: i, .. } => site(i),
            Fault::Throttle { store, .. } | Fault::Overwrite { store, .. } => match store {
                Store::Edge(i) | Store::Cloud(i) => site(i),
            },
            Fault::Lie { device: d, .. } => device(d),
            other => panic!("not made here: {other:?}"),
        }
    });
    !s.sites.is_empty() && steps && faults && s.devices.iter().all(|d| site(&d.site))
}

/// Shrinks without limits, and checks on the way that no candidate is torn.
fn shrunk(scenario: &Scenario, fails: &mut dyn FnMut(&Scenario) -> bool) -> Shrunk {
    let mut whole = |s: &Scenario| {
        assert!(is_whole(s), "{s:?}");
        fails(s).then(|| "I99/it".to_string())
    };
    let budget = Budget { tries: u64::MAX, within: Duration::MAX, clock: &|| Duration::ZERO };
    let out = shrink(scenario, &mut whole, budget);
    assert!(out.minimal && out.signature.is_some());
    out
}

/// The device that sends this, by its name, so that an index that went wrong is noticed.
fn id(s: &Scenario, device: usize) -> &str {
    &s.devices[device].id
}

#[test]
fn one_fault_and_one_step_are_found_among_dozens() {
    for seed in 1..40 {
        let big = scenario(seed);
        let mut dice = Stream::new(seed, "needed", 0);
        let step = dice.pick(&big.steps).clone();
        let needed = dice.pick(&big.faults).clone();
        let kind = |f: &FaultSpec| f.fault.name();
        let about =
            |act: &Act| format!("{act:?}").chars().take_while(|c| c.is_alphabetic()).collect::<String>();
        let out = shrunk(&big, &mut |s| {
            let act = |one: &Step| about(&one.act) == about(&step.act);
            s.steps.iter().any(act) && s.faults.iter().any(|f| kind(f) == kind(&needed))
        });
        assert_eq!(
            (out.scenario.steps.len(), out.scenario.faults.len()),
            (1, 1),
            "seed {seed}: {:?}",
            out.scenario
        );
        assert_eq!((out.events_before, out.events_after), (events(&big), 2));
        assert_eq!(kind(&out.scenario.faults[0]), kind(&needed));
        // The step and the fault may be at home in two different places.
        assert!(out.scenario.sites.len() <= 2);
        assert!(out.scenario.devices.len() <= 2, "{:?}", out.scenario.devices);
    }
}

#[test]
fn what_refers_to_a_later_device_or_site_still_means_the_same_one_when_an_earlier_one_goes() {
    let big = scenario(3);
    let out = shrunk(&big, &mut |s| {
        let recorded = s.steps.iter().any(|step| match &step.act {
            Act::Record(recording) => id(s, recording.device) == "device-4" && recording.task == "task-4",
            _ => false,
        });
        let killed = s.faults.iter().any(|spec| match (&spec.when, &spec.fault) {
            (When::Commit { site: when, .. }, Fault::Kill { site, .. }) => {
                s.sites[*site].name == "site-1" && s.sites[*when].name == "site-1"
            }
            _ => false,
        });
        recorded && killed
    });
    let s = &out.scenario;
    assert_eq!((s.steps.len(), s.faults.len(), s.devices.len()), (1, 1, 1), "{s:?}");
    assert_eq!(id(s, 0), "device-4");
    let names: Vec<&str> = s.sites.iter().map(|site| site.name.as_str()).collect();
    let own = big.sites[big.devices[4].site].name.as_str();
    assert!(names.contains(&own) && names.contains(&"site-1") && names.len() <= 2, "{names:?}");
    assert_eq!(s.sites[s.devices[0].site].name, own);
}

#[test]
fn a_dropped_device_takes_what_names_its_task_and_leaves_what_names_a_task_nobody_made() {
    let mut big = scenario(1);
    big.steps = vec![
        Step { at: seconds(1), act: record(0) },
        Step { at: seconds(2), act: Act::Judge { task: "task-0".to_string(), site: 0, approve: true } },
        Step { at: seconds(3), act: Act::Judge { task: "nobody".to_string(), site: 0, approve: true } },
    ];
    big.faults = vec![fault(4, Fault::Delete { store: Store::Cloud(0), task: "task-0".to_string() })];
    super::entities::drop_device(&mut big, 0);
    assert_eq!(big.steps.len(), 1);
    assert!(matches!(&big.steps[0].act, Act::Judge { task, .. } if task == "nobody"));
    assert!(big.faults.is_empty());
    assert_eq!(id(&big, 0), "device-1");
}

#[test]
fn numbers_end_at_the_least_that_still_fails_or_within_an_eighth_of_it() {
    let big = scenario(7);
    let out = shrunk(&big, &mut |s| {
        s.chaos >= seconds(30)
            && s.steps.iter().any(|step| match &step.act {
                Act::Record(recording) => recording.bytes >= 5000 && recording.lasts >= seconds(7),
                _ => false,
            })
    });
    let s = &out.scenario;
    assert_eq!((s.steps.len(), s.faults.len(), s.settle), (1, 0, Duration::ZERO));
    assert_eq!(s.steps[0].at, Duration::ZERO);
    let Act::Record(recording) = &s.steps[0].act else { panic!("{s:?}") };
    assert!((5000..5800).contains(&recording.bytes), "{}", recording.bytes);
    assert!(recording.lasts >= seconds(7) && recording.lasts < seconds(9), "{:?}", recording.lasts);
    assert!(s.chaos >= seconds(30) && s.chaos < seconds(36), "{:?}", s.chaos);
    assert!(!recording.pause && !recording.bare);
    let plain = Knobs { site: s.sites[0].name.clone(), destination: true, ..Knobs::default() };
    assert_eq!(s.sites[0].knobs, plain);
    assert_eq!(s.sites[0].flavour, Flavour::Full);
    assert_eq!(s.sites[0].policy, crate::scenario::Manner::Builtin);
}

#[test]
fn a_knob_that_matters_stays_and_the_others_become_plain() {
    let mut big = scenario(2);
    big.sites[0].knobs.batch = 3;
    let out = shrunk(&big, &mut |s| s.sites.iter().any(|site| site.knobs.batch == 3));
    assert_eq!(events(&out.scenario), 0);
    assert_eq!(out.scenario.sites.len(), 1);
    assert_eq!(out.scenario.sites[0].knobs.batch, 3);
    assert_eq!(out.scenario.sites[0].knobs.rpc_timeout_ms, Knobs::default().rpc_timeout_ms);
}

#[test]
fn two_events_that_only_cancel_each_other_go_together() {
    let big = scenario(5);
    let parity = |s: &Scenario| s.steps.iter().filter(|step| matches!(step.act, Act::Restart { .. })).count();
    let wanted = parity(&big) % 2;
    let out = shrunk(&big, &mut |s| parity(s) % 2 == wanted);
    assert!(out.events_after <= 1, "{:?}", out.scenario.steps);
}

#[test]
fn another_failure_is_never_taken_for_this_one() {
    let big = scenario(9);
    let budget = Budget { tries: u64::MAX, within: Duration::MAX, clock: &|| Duration::ZERO };
    let mut fails =
        |s: &Scenario| Some(if s.faults.len() > 3 { "I11/frame" } else { "I12/commit" }.to_string());
    let out = shrink(&big, &mut fails, budget);
    assert_eq!(out.signature.as_deref(), Some("I11/frame"));
    assert_eq!(out.scenario.faults.len(), 4);
    assert!(out.scenario.steps.is_empty());
}

#[test]
fn what_does_not_fail_comes_back_as_it_was() {
    let big = scenario(4);
    let budget = Budget { tries: 1000, within: Duration::MAX, clock: &|| Duration::ZERO };
    let out = shrink(&big, &mut |_| None, budget);
    assert_eq!((out.scenario, out.signature, out.tries, out.minimal), (big, None, 1, false));
}

#[test]
fn the_budget_ends_it_by_runs_and_by_time_with_the_best_so_far() {
    let big = scenario(6);
    let needs = |s: &Scenario| (s.faults.len() >= 2).then(|| "I01/x".to_string());
    let mut runs = 0;
    let mut counted = |s: &Scenario| {
        runs += 1;
        needs(s)
    };
    let budget = Budget { tries: 10, within: Duration::MAX, clock: &|| Duration::ZERO };
    let out = shrink(&big, &mut counted, budget);
    assert_eq!((out.tries, runs, out.minimal), (10, 10, false));
    assert!(out.events_after < out.events_before && needs(&out.scenario).is_some());

    let now = Cell::new(0);
    let clock = || {
        now.set(now.get() + 1);
        seconds(now.get())
    };
    let out = shrink(&big, &mut |s| needs(s), Budget { tries: u64::MAX, within: seconds(5), clock: &clock });
    assert!(!out.minimal && out.tries <= 6, "{}", out.tries);
    assert!(out.elapsed >= seconds(5));
}

#[test]
fn it_is_the_same_every_time() {
    let big = scenario(8);
    let run =
        || shrunk(&big, &mut |s| s.faults.iter().any(|f| f.fault.name().1 == "kill") && s.steps.len() > 1);
    assert_eq!(run(), run());
}
