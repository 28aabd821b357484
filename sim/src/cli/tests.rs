//! The commands against a made-up world in which it is known which seeds fail and why.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{CommandFactory, Parser};
use tidegate_sim::run::{Failure, FailureKind, Options, Report};
use tidegate_sim::scenario::{Fault, FaultSpec, Lasts, Path as Route, Scenario, When};
use tidegate_sim::time::SimTime;

use super::seam::Lab;
use super::{Cli, Desk, carry_out, list, seed_of_commit, seeds};

/// A seed's scenario has as many faults as the seed says; only `hold` matters to this world.
fn plan(seed: u64) -> Scenario {
    let path = |n: u64| {
        if n.is_multiple_of(5) {
            Fault::Hold { path: Route::Site(0) }
        } else {
            Fault::Reset { path: Route::Site(0) }
        }
    };
    let fault = |n: u64| FaultSpec {
        when: When::At(Duration::from_secs(n)),
        lasts: Lasts::For(Duration::from_secs(1)),
        fault: path(n),
    };
    Scenario {
        name: format!("seed-{seed}"),
        about: String::new(),
        seed,
        bug: None,
        expect: None,
        chaos: Duration::from_secs(60),
        settle: Duration::ZERO,
        sites: Vec::new(),
        devices: Vec::new(),
        steps: Vec::new(),
        faults: (1..=seed % 10).map(fault).collect(),
    }
}

/// Fails if it was held; panics inside like the real one, and catches it, for seed 13; a canary fails at once.
fn run(scenario: &Scenario, options: Options) -> Report {
    let held = scenario.faults.iter().any(|spec| matches!(spec.fault, Fault::Hold { .. }));
    let mut kind = None;
    if options.canary {
        kind = Some((FailureKind::Invariant, "canary"));
    } else if scenario.seed == 13 {
        let caught = std::panic::catch_unwind(|| panic!("as planted"));
        kind = caught.is_err().then_some((FailureKind::Crash, "panic"));
    } else if held {
        kind = Some((FailureKind::Liveness, "L1"));
    }
    let mut report = Report { events: 10, chain: format!("{:016x}", scenario.seed), ..Report::default() };
    report.failure = kind.map(|(kind, invariant)| Failure {
        kind,
        invariant: invariant.to_string(),
        saw: "a job waits".to_string(),
        at: SimTime::ZERO,
        event: 10,
        phase: String::new(),
        inputs: vec!["Tick".to_string()],
    });
    report.log = vec!["00m00.000s a line of the log".to_string()];
    report.premises.met("L1");
    report.marks.insert("takeover");
    report
}

/// The seed, the number of faults that are holds, what is expected: all this world needs.
fn write(scenario: &Scenario) -> String {
    let holds = scenario.faults.iter().filter(|spec| matches!(spec.fault, Fault::Hold { .. })).count();
    let expect = scenario.expect.as_deref().unwrap_or("-");
    format!("{} {holds} {} {expect}\n", scenario.seed, scenario.faults.len())
}

fn parse(text: &str) -> Result<Scenario, String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let [seed, holds, faults, expect] = words[..] else { return Err(format!("four words, not `{text}`")) };
    let number = |text: &str| text.parse::<usize>().map_err(|error| error.to_string());
    let (holds, faults) = (number(holds)?, number(faults)?);
    let mut scenario = plan(seed.parse().map_err(|_| "no seed".to_string())?);
    scenario.expect = (expect != "-").then(|| expect.to_string());
    scenario.faults = (0..faults)
        .map(|n| FaultSpec {
            when: When::At(Duration::ZERO),
            lasts: Lasts::Chaos,
            fault: if n < holds {
                Fault::Hold { path: Route::Site(0) }
            } else {
                Fault::Reset { path: Route::Site(0) }
            },
        })
        .collect();
    Ok(scenario)
}

const LAB: Lab = Lab {
    run,
    plan,
    idle: plan,
    busy: plan,
    parse,
    write,
    named: &[("kept", "4 0 1 -")],
    marks: &[("takeover", "A link is taken over."), ("double-crash", "A crash in a recovery.")],
    invariants: || vec!["L1", "I12"],
};

/// What a command line prints and its exit code (2 for what clap or a command refuses).
fn command(line: &str) -> (String, u8) {
    super::bench::hush();
    let mut out = Vec::new();
    let mut desk = Desk { lab: LAB, out: &mut out, program: PathBuf::from("none") };
    let words = ["tidegate-sim"].into_iter().chain(line.split_whitespace());
    let code = match Cli::try_parse_from(words) {
        Ok(cli) => match carry_out(cli.command, &mut desk) {
            Ok(code) => code,
            Err(error) => {
                out.extend_from_slice(format!("error: {error:#}").as_bytes());
                if error.is::<super::Usage>() { 2 } else { 1 }
            }
        },
        Err(error) => {
            out.extend_from_slice(error.to_string().as_bytes());
            2
        }
    };
    (String::from_utf8(out).expect("text"), code)
}

/// A folder of its own that is gone when the test is over.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("tidegate-sim-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a folder");
        Folder(path)
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What stays behind in a temporary folder harms nobody.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn the_arguments_are_sound_and_every_command_has_an_example_in_its_help() {
    let mut cli = Cli::command();
    cli.clone().debug_assert();
    for command in cli.get_subcommands_mut().filter(|command| !command.is_hide_set()) {
        let name = command.get_name().to_string();
        let help = command.render_long_help().to_string();
        assert!(help.contains("Example") && help.contains(&name), "{name}: {help}");
    }
}

#[test]
fn runs_are_told_in_the_order_of_seeds_and_the_first_failure_is_the_exit_code() {
    let (text, code) = command("run --seeds 1..14 --jobs 3");
    let names: Vec<&str> =
        text.lines().filter(|line| line.starts_with("seed")).map(|line| &line[..7]).collect();
    let wanted: Vec<String> = (1..14).map(|n| format!("{:<7}", format!("seed {n}"))).collect();
    assert_eq!(names, wanted, "{text}");
    assert_eq!(code, 11);
    assert_eq!(text.matches("signature  L1/Tick").count(), 1, "told in full once: {text}");
    assert_eq!(text.matches("signature  panic/Tick").count(), 1);
    assert!(text.contains("1 events of 5"), "shrunk on the way: {text}");
    assert_eq!(command("run --seeds 1..5").1, 0);
}

#[test]
fn a_panic_inside_a_run_is_told_with_its_place() {
    let (text, code) = command("run --seed 13 --shrink-seconds 0");
    assert_eq!(code, 12);
    assert!(text.contains("panicked   ") && text.contains("tests.rs:"), "{text}");
    assert!(text.contains("minimal    not looked for"), "{text}");
}

#[test]
fn json_is_one_object_a_line() {
    let (text, code) = command("run --seeds 4..7 --json --log");
    let rows: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("an object")).collect();
    assert_eq!((rows.len(), code), (3, 11));
    assert_eq!(rows[0]["verdict"], "passed");
    assert_eq!(rows[1]["failure"]["minimal"]["events_after"], 1);
    assert_eq!(rows[2]["log"][0], "00m00.000s a line of the log");
}

#[test]
fn many_runs_end_with_what_failed_and_which_seeds_do() {
    let (text, _) = command("run --seeds 1..14 --shrink-seconds 0");
    let end: Vec<&str> = text.lines().rev().take(3).collect();
    assert!(end[2].starts_with("13 runs, 130 events, 6 failed"), "{text}");
    let columns = |line: &str| line.split_whitespace().map(str::to_string).collect::<Vec<_>>().join(" ");
    assert_eq!(columns(end[1]), "L1/Tick 5 seed 5, seed 6, seed 7, seed 8, seed 9", "{text}");
    assert_eq!(columns(end[0]), "panic/Tick 1 seed 13", "{text}");
}

#[test]
fn a_named_scenario_is_found_from_anywhere_and_others_are_named() {
    assert_eq!(command("run kept").1, 0);
    let (text, code) = command("run lost");
    assert_eq!(code, 2);
    assert!(text.contains("there is no scenario lost: there are kept"), "{text}");
}

#[test]
fn figures_tell_of_each_kind_of_run_and_of_shrinking() {
    let (text, code) = command("figures --seeds 10 --shrunk 1 --json");
    assert_eq!(code, 0, "{text}");
    let value: serde_json::Value = serde_json::from_str(&text).expect("an object");
    assert_eq!((&value["ordinary"]["runs"], &value["busy"]["runs"]), (&10.into(), &1.into()));
    assert_eq!(value["ordinary"]["events"], 100);
    assert_eq!(value["shrink"]["failures"], 0, "no driver of this world is broken");
}

#[test]
fn the_canary_must_die() {
    let (text, code) = command("run --canary --shrink-seconds 0");
    assert_eq!(code, 10, "{text}");
    assert!(text.contains("false on purpose"), "{text}");
}

#[test]
fn what_makes_no_sense_is_usage() {
    for line in [
        "run",
        "run --seed 1 --seeds 1..2",
        "run --seeds 5..5",
        "run --commit 12",
        "run no-such-scenario",
        "run --seed 1 --bug B99",
        "run --seed 1 --bug B21",
        "shrink",
        "shrink --seed 5 --minutes=-1",
        "replay",
        "nightly",
        "bank --bug nothing",
    ] {
        let (text, code) = command(line);
        assert_eq!(code, 2, "{line}: {text}");
    }
}

#[test]
fn a_build_without_bugs_says_how_to_get_one() {
    let mut out = Vec::new();
    let mut desk = Desk { lab: LAB, out: &mut out, program: PathBuf::new() };
    let error = super::bank::bank(&super::bank::Bank::default(), &mut desk, false).expect_err("no bugs");
    assert!(error.is::<super::Usage>());
    assert!(error.to_string().contains("TIDEGATE_BUGS=1 cargo run"), "{error}");
}

#[test]
fn the_bank_counts_hunts_and_tells_what_found_a_bug() {
    /// Only a planted bug makes it fail where it was held. One seed, the third of the first hunt, fails with or without.
    fn planted(scenario: &Scenario, options: Options) -> Report {
        let mut report = run(scenario, options);
        if scenario.seed == 3 {
            report.failure = run(&plan(5), options).failure;
        } else if scenario.bug.is_none() {
            report.failure = None;
        }
        report
    }
    let mut out = Vec::new();
    let lab = Lab { run: planted, ..LAB };
    let mut desk = Desk { lab, out: &mut out, program: PathBuf::new() };
    let ask = |ids: &[&str], seeds| super::bank::Bank {
        bug: ids.iter().map(|id| (*id).to_string()).collect(),
        seeds,
        runs: 3,
        markdown: true,
        common: super::Common { jobs: Some(2), json: false },
    };
    assert_eq!(super::bank::bank(&ask(&["X18", "B19", "B12"], 50), &mut desk, true).expect("hunted"), 0);
    assert_eq!(super::bank::bank(&ask(&["B14"], 50), &mut desk, true).expect("hunted"), 1);
    // The only seed of the first hunt that fails within these is the one that fails without the bug too.
    assert_eq!(super::bank::bank(&ask(&["X18"], 4), &mut desk, true).expect("hunted"), 1);
    let text = String::from_utf8(out).expect("text");
    assert!(text.contains("| L1 | found | L1 3x | yes | 5 | 5 | 1 |"), "{text}");
    assert!(text.contains("| I16 L1 | found | L1 3x | no | 5 | 5 | 1 |"), "{text}");
    assert!(text.contains("| replication (a later issue) |"), "{text}");
    assert!(text.contains("| I18 I13 | otherwise | L1 3x | no |"), "{text}");
    assert!(text.contains("| L1 | MISSED |  | no | 4 | 4 | 1 |"), "{text}");
}

#[test]
fn coverage_names_what_never_came_and_fails_for_it_when_asked() {
    let (text, code) = command("coverage --seeds 4");
    assert_eq!(code, 0);
    for part in ["never hit     double-crash", "vacuous       I12", "never fired   slow, hold"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert_eq!(command("coverage --seeds 4 --strict").1, 1);
    assert_eq!(command("coverage --seeds 6 --strict").1, 11);
}

#[test]
fn a_shrunk_failure_is_kept_replayed_and_expected() {
    let folder = Folder::new("shrink");
    let (text, code) = command(&format!("shrink --seed 9 --out {}", folder.path().display()));
    assert_eq!(code, 11, "{text}");
    assert!(text.contains("fn l1_tick_hold()"), "{text}");
    let file = folder.path().join("l1-tick-hold.toml");
    assert_eq!(std::fs::read_to_string(&file).expect("written"), "9 1 1 -\n");
    let (text, code) = command(&format!("replay --corpus {}", folder.path().display()));
    assert_eq!(code, 11, "{text}");
    std::fs::write(&file, "9 1 1 L1\n").expect("written");
    let junit = folder.path().join("out.xml");
    let (text, code) =
        command(&format!("replay --corpus {} --junit {}", folder.path().display(), junit.display()));
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("1 replayed, 0 not as expected"), "{text}");
    assert!(std::fs::read_to_string(&junit).expect("written").contains("failures=\"0\""));
    std::fs::write(&file, "9 0 1 L1\n").expect("written");
    assert_eq!(command(&format!("replay {}", file.display())).1, 1, "expected to fail, and passes");
    assert_eq!(command(&format!("replay {}", folder.path().display())).1, 1, "a folder is all its files");
    assert_eq!(command("shrink --seed 4").1, 1, "nothing to shrink");
}

#[test]
fn a_night_keeps_one_of_each_kind() {
    let folder = Folder::new("nightly");
    let line = format!("nightly --minutes 60 --most 10 --from 13 --out {}", folder.path().display());
    let (text, code) = command(&line);
    assert_eq!(code, 12, "{text}");
    let mut names: Vec<String> = std::fs::read_dir(folder.path())
        .expect("made")
        .map(|entry| entry.expect("readable").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    let kinds = ["l1-tick-hold", "panic-tick"];
    let wanted: Vec<String> =
        kinds.iter().flat_map(|kind| ["rs", "toml", "txt"].map(|ext| format!("{kind}.{ext}"))).collect();
    assert_eq!(names, wanted);
    assert!(text.contains("panic/Tick: 1 times, first by seed 13"), "{text}");
    assert!(text.contains("L1/Tick: 5 times, first by seed 15"), "{text}");
}

#[test]
fn the_list_has_every_fault_of_a_scenario() {
    let (text, code) = command("list");
    assert_eq!(code, 0);
    for part in ["F19 lose-answers", "I18", "B14", "double-crash", "a later issue"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let known = |fault: &Fault| list::FAULTS.iter().any(|one| (one.id, one.word) == fault.name());
    assert!(plan(9).faults.iter().all(|spec| known(&spec.fault)));
}

#[test]
fn ranges_of_seeds_and_hashes_are_read() {
    assert_eq!(seeds("3..7"), Ok(3..7));
    assert_eq!(seeds("1_000"), Ok(1..1001));
    for bad in ["7..3", "0", "a..b", "..", "5.."] {
        assert!(seeds(bad).is_err(), "{bad}");
    }
    let long = seed_of_commit("0dae4b1cafe0123456789abcdef0123456789abc");
    assert_eq!(long, Ok(0x0dae_4b1c_afe0));
    assert_eq!(seed_of_commit("0dae4b1cafe0"), long);
    for bad in ["0dae4b1", "0dae4b1cafeX", "0dae4b1cafe0-dirty"] {
        assert!(seed_of_commit(bad).is_err(), "{bad}");
    }
}
