//! The named scenarios do what their `about` promises: the faults they are made of really happen, and what must come of
//! them did.

use std::collections::BTreeSet;

use tidegate_sim::named;
use tidegate_sim::run::{Options, Report, run};
use tidegate_sim::scenario::text::parse;
use tidegate_sim::scenario::{Act, Scenario};

fn scenario(name: &str) -> Scenario {
    parse(named::find(name).expect("it is built in")).expect("a scenario file")
}

/// Runs it: it must pass, leave nothing stuck, let every fault that it names happen, hit these marks, and leave so many
/// objects (recordings and sidecars) in the cloud and recordings on devices.
fn keeps(name: &str, marks: &[&str], cloud_objects: u64, held: u64) -> Report {
    let scenario = scenario(name);
    let report = run(&scenario, Options::default());
    assert_eq!(report.failure, None, "{name}");
    for spec in &scenario.faults {
        let word = spec.fault.name().1;
        assert!(report.fired.contains_key(word), "{name}: {word} never happened: {:?}", report.fired);
    }
    for mark in marks {
        assert!(report.marks.contains(mark), "{name}: {mark} is not among {:?}", report.marks);
    }
    assert_eq!((report.cloud_objects, report.held), (cloud_objects, held), "{name}");
    assert_eq!(report.stuck, Vec::<String>::new(), "{name}");
    report
}

/// Every approved recording with its sidecar.
fn all_objects(name: &str) -> u64 {
    let of = |act: &Act| match act {
        Act::Record(recording) if recording.approve => 2 - u64::from(recording.bare),
        _ => 0,
    };
    scenario(name).steps.iter().map(|step| of(&step.act)).sum()
}

#[test]
fn null_sends_each_recording_once_and_hardly_anything_happens() {
    let report = keeps("null", &[], all_objects("null"), 0);
    assert_eq!(report.cloud_bytes, 20 * (1 << 20), "the one that is sent in parts, each byte once");
    assert_eq!(report.fired.len(), 0);
    let wrong = ["retry", "call-lost", "call-timeout", "reclaimed", "takeover", "upload-restarted"];
    assert!(wrong.iter().all(|mark| !report.marks.contains(mark)), "{:?}", report.marks);
    // A second of CPU runs some hundred thousand events, in a build without optimisation some ten thousand.
    assert!(report.events < 1_000, "{} events", report.events);
}

#[test]
fn reconnect_brings_every_recording_to_the_cloud_through_lost_links() {
    let report = keeps("reconnect", &["link-silent", "multipart", "bare"], all_objects("reconnect"), 0);
    assert!(report.fired["reset"] >= 3 && report.fired["cut"] >= 2, "{:?}", report.fired);
    assert!(report.premises.0["I09"] > 0, "configurations were counted: {:?}", report.premises);
}

#[test]
fn rpc_timeout_leaves_commands_unknown_and_loses_no_recording() {
    let report = keeps("rpc-timeout", &["call-timeout", "answer-too-late"], all_objects("rpc-timeout"), 0);
    assert!(report.premises.0["I08.timed_out"] > 0, "{:?}", report.premises);
}

#[test]
fn takeover_lets_the_newest_link_win_and_tells_who_waited() {
    let report = keeps("takeover", &["takeover", "call-lost", "late-lost"], all_objects("takeover"), 0);
    assert!(report.fired["twin"] >= 5, "a fight, not a meeting: {:?}", report.fired);
    assert!(
        report.premises.0["I02.late"] > 0,
        "ends of replaced links were told late: {:?}",
        report.premises
    );
}

#[test]
fn half_open_notices_the_silent_and_loses_only_what_the_power_took() {
    // Five recordings. One of a device that was away for longer than the grace is made anew; the first one is still asked
    // for and comes as well.
    let marks = ["link-silent", "takeover", "call-timeout", "attempt-n", "late-episode"];
    let report = keeps("half-open", &marks, all_objects("half-open") + 2, 0);
    assert_eq!(report.fired["power-off"], 2);
}

#[test]
fn s3_outage_spends_no_attempt_and_sends_no_part_twice() {
    let marks = ["destination-down", "destination-back", "throttled", "complete-found"];
    let report = keeps("s3-outage", &marks, all_objects("s3-outage"), 0);
    assert!(!report.marks.contains("exhausted") && !report.marks.contains("upload-restarted"));
    assert!(report.fired["outage"] > 10, "it was tried again and again: {:?}", report.fired);
}

#[test]
fn credentials_expire_parks_and_then_sends_everything() {
    let marks = ["parked-auth", "unparked", "orderly-stop", "batch"];
    let report = keeps("credentials-expire", &marks, all_objects("credentials-expire"), 0);
    assert!(!report.marks.contains("exhausted") && !report.marks.contains("retry"), "{:?}", report.marks);
}

#[test]
fn power_loss_loses_nothing_that_was_promised() {
    let marks = ["commit-lost", "power-lost", "reclaimed"];
    let report = keeps("power-loss", &marks, all_objects("power-loss"), 0);
    assert!(report.fired["power-loss"] + report.fired["kill"] >= 6, "{:?}", report.fired);
    assert!(report.premises.0["I12.promised"] > 0, "{:?}", report.premises);
}

#[test]
fn clock_step_moves_the_wall_clock_while_something_waits() {
    let report =
        keeps("clock-step", &["wall-back", "orderly-stop", "edge-removed"], all_objects("clock-step"), 0);
    assert_eq!(report.fired["step"], 6);
    assert!(
        report.premises.0["I29.kept"] > 0,
        "copies were kept by the time that passed: {:?}",
        report.premises
    );
}

#[test]
fn a_herd_of_240_comes_back_three_times_with_few_tries() {
    let devices = scenario("thundering-herd").devices;
    let ids: BTreeSet<&str> = devices.iter().map(|device| device.id.as_str()).collect();
    assert_eq!((devices.len(), ids.len()), (240, 240));
    let marks = ["link-silent", "power-lost"];
    let report = keeps("thundering-herd", &marks, all_objects("thundering-herd"), 0);
    // Everybody has two links and comes four times; some try in vain while nobody listens.
    let knocks = report.premises.0["I02"];
    assert!((4 * 480..8 * 480).contains(&knocks), "{knocks} links were accepted");
}

#[test]
fn weeks_offline_keeps_everything_and_sends_it_at_the_end() {
    let marks = ["auto-scan", "destination-down", "destination-back", "orderly-stop", "power-lost"];
    let report = keeps("weeks-offline", &marks, all_objects("weeks-offline"), 0);
    assert!(report.simulated.as_secs() > 21 * 24 * 3600);
    assert!(!report.marks.contains("exhausted") && !report.marks.contains("retry"), "{:?}", report.marks);
}

#[test]
fn each_file_of_the_folder_is_built_in_and_tested_here() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios");
    let mut files: Vec<String> = std::fs::read_dir(folder)
        .expect("in the repository")
        .map(|entry| entry.expect("readable").file_name().to_string_lossy().into_owned())
        .collect();
    files.sort();
    let built: Vec<String> = named::ALL.iter().map(|(name, _)| format!("{name}.toml")).collect();
    assert_eq!(files, built);
    let here = include_str!("named.rs");
    for (name, _) in named::ALL {
        assert!(here.contains(&format!("all_objects(\"{name}\")")), "no test runs {name}");
    }
}

#[test]
fn policies_rule_fail_and_go_and_every_recording_arrives() {
    let marks = [
        "policy-activated",
        "policy-barred-again",
        "policy-ejected",
        "policy-fell-back",
        "policy-good",
        "policy-lifted",
        "policy-rolled-back",
        "policy-shadowed",
        "policy-stalled",
        "policy-unreadable",
    ];
    let report = keeps("policies", &marks, all_objects("policies"), 0);
    for conduct in ["trap", "idle"] {
        assert!(report.fired.contains_key(conduct), "{conduct} did nothing: {:?}", report.fired);
    }
    assert!(report.fired["swap-storm"] > 10, "{:?}", report.fired);
}

#[test]
fn grace_waits_for_who_is_back_soon_and_goes_on_with_who_comes_late() {
    let report = keeps("grace", &["put-back-absent", "resumed"], all_objects("grace"), 0);
    assert_eq!(report.premises.0["I30.absent"], 1, "only the one that stayed away: {:?}", report.premises);
}

#[test]
fn lost_callback_finds_both_recordings() {
    keeps("lost-callback", &["callback-found"], all_objects("lost-callback"), 0);
}

#[test]
fn restart_absent_waits_for_nobody_for_ever() {
    let marks = ["put-back-absent", "attempt-n"];
    let report = keeps("restart-absent", &marks, all_objects("restart-absent"), 0);
    assert_eq!(report.premises.0["I30.absent"], 1, "the other one was not disturbed: {:?}", report.premises);
}

#[test]
fn conflict_shows_what_no_record_knows_and_is_settled_by_a_person() {
    // The recording that was made by hand stays on its device: nobody here asks for it.
    keeps("conflict", &["conflict-shown"], all_objects("conflict"), 1);
}

#[test]
fn contest_gives_each_program_its_turn_and_the_recordings_arrive() {
    let report = keeps("contest", &["takeover", "contested"], all_objects("contest"), 0);
    assert!(report.fired["twin"] >= 5, "a fight, not a meeting: {:?}", report.fired);
}
