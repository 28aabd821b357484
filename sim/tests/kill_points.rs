//! The process dies at every commit and at every operation of a scripted upload, once, and again while it recovers.
//! Whatever the moment: the recording is in the cloud in the end, once, and no more is sent again than was in flight.

use std::time::Duration;

use tidegate_core::knobs::Knobs;
use tidegate_sim::run::{Options, Report, run};
use tidegate_sim::scenario::{
    Act, CommitPoint, DeviceSpec, Fault, FaultSpec, Firmware, Flavour, Keep, Lasts, ObjectPoint, Recording,
    Scenario, Site, Step, Sync, When,
};

const MIB: u64 = 1 << 20;
/// Four parts of 5 MiB, the last one shorter.
const BYTES: u64 = 17 * MIB;

/// One device records once, and the recording goes to the cloud.
fn upload(flavour: Flavour) -> Scenario {
    let knobs = Knobs {
        destination: true,
        part_size: 5 * MIB,
        parts_in_flight: 2,
        scan_every_ms: 60_000,
        ..Knobs::default()
    };
    let site = Site {
        name: "edge".to_string(),
        knobs,
        flavour,
        flush: Duration::from_millis(3),
        cloud_latency: Duration::from_millis(20),
        cloud_speed: 50 * MIB,
        policy: tidegate_sim::scenario::Manner::Builtin,
    };
    let device = DeviceSpec {
        id: "robot".to_string(),
        site: 0,
        firmware: Firmware::New,
        latency: Duration::from_millis(2),
        speed: 100 * MIB,
    };
    let recording = Recording {
        device: 0,
        task: "one".to_string(),
        bytes: BYTES,
        lasts: Duration::from_secs(10),
        bare: false,
        pause: false,
        approve: true,
        sync: Sync::Named,
    };
    Scenario {
        name: "kill-points".to_string(),
        about: String::new(),
        seed: 7,
        bug: None,
        expect: None,
        chaos: Duration::from_secs(600),
        settle: Duration::from_secs(7200),
        sites: vec![site],
        devices: vec![device],
        steps: vec![Step { at: Duration::from_secs(1), act: Act::Record(recording) }],
        faults: Vec::new(),
    }
}

fn kill(when: When, keep: Keep) -> FaultSpec {
    let fault = Fault::Kill { site: 0, keep, down: Duration::from_secs(2) };
    FaultSpec { when, lasts: Lasts::Chaos, fault }
}

fn survives(scenario: &Scenario, kills: u64, what: &str) -> Report {
    let report = run(scenario, Options::default());
    assert_eq!(report.failure, None, "{what}");
    // A site that died before it knew of the end of the recording waits for it, and so does the device: nobody deletes
    // anything. Otherwise the recording and its sidecar are in the cloud, and the device needs its copy no more.
    let whole = (report.cloud_objects, report.held) == (2, 0) && report.stuck.is_empty();
    let told = |stuck: &[String]| stuck.len() == 1 && stuck[0].contains("never heard of its end");
    let waits = (report.cloud_objects, report.held) == (0, 1) && report.cloud_ops == 0 && told(&report.stuck);
    assert!(whole || waits, "{what}: {} objects, {} held", report.cloud_objects, report.held);
    // At most two parts were in flight at each death.
    let again = report.cloud_bytes.saturating_sub(BYTES);
    assert!(again <= kills * 2 * 5 * MIB, "{what}: {again} bytes sent again");
    report
}

const COMMIT: [(CommitPoint, Keep); 4] = [
    (CommitPoint::Torn, Keep::Nothing),
    (CommitPoint::Torn, Keep::Subset),
    (CommitPoint::Durable, Keep::Nothing),
    (CommitPoint::Released, Keep::Nothing),
];
const OBJECT: [ObjectPoint; 3] = [ObjectPoint::Asked, ObjectPoint::Applied, ObjectPoint::Answered];

#[test]
fn a_death_at_any_commit_or_operation_loses_nothing_and_sends_nothing_twice() {
    for flavour in [Flavour::Full, Flavour::Composite, Flavour::Tags, Flavour::Opaque] {
        let calm = survives(&upload(flavour), 0, "nothing goes wrong");
        assert!(calm.commits >= 20 && calm.cloud_ops >= 9, "{} {}", calm.commits, calm.cloud_ops);
        let mut deaths = 0;
        for n in 1..=u32::try_from(calm.commits).expect("few") {
            for (point, keep) in COMMIT {
                let mut scenario = upload(flavour);
                scenario.faults.push(kill(When::Commit { site: 0, n, point }, keep));
                deaths += survives(&scenario, 1, &format!("{flavour:?} commit {n} {point:?} {keep:?}")).fired
                    ["kill"];
            }
        }
        for n in 1..=u32::try_from(calm.cloud_ops).expect("few") {
            for point in OBJECT {
                let mut scenario = upload(flavour);
                scenario.faults.push(kill(When::Object { site: 0, n, point }, Keep::Nothing));
                deaths +=
                    survives(&scenario, 1, &format!("{flavour:?} operation {n} {point:?}")).fired["kill"];
            }
        }
        // Every one of them really happened.
        assert_eq!(deaths, calm.commits * 4 + calm.cloud_ops * 3, "{flavour:?}");
    }
}

#[test]
fn a_second_death_during_the_recovery_changes_nothing() {
    let calm = survives(&upload(Flavour::Full), 0, "nothing goes wrong");
    for n in 1..=u32::try_from(calm.commits).expect("few") {
        // The boot's own commit is the next one; then come the first steps of the recovery.
        for later in 1..=3 {
            for (point, keep) in COMMIT {
                let mut scenario = upload(Flavour::Full);
                scenario
                    .faults
                    .push(kill(When::Commit { site: 0, n, point: CommitPoint::Durable }, Keep::Nothing));
                scenario.faults.push(kill(When::Commit { site: 0, n: n + later, point }, keep));
                let report =
                    survives(&scenario, 2, &format!("commit {n}, then {later} later {point:?} {keep:?}"));
                assert!(report.fired["kill"] >= 1);
            }
        }
    }
    for n in 1..=u32::try_from(calm.cloud_ops).expect("few") {
        for later in 1..=2 {
            for point in OBJECT {
                let mut scenario = upload(Flavour::Full);
                scenario
                    .faults
                    .push(kill(When::Object { site: 0, n, point: ObjectPoint::Applied }, Keep::Nothing));
                scenario.faults.push(kill(When::Object { site: 0, n: n + later, point }, Keep::Nothing));
                survives(&scenario, 2, &format!("operation {n}, then {later} later {point:?}"));
            }
        }
    }
}
