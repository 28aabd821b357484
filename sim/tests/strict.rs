//! The command as its user sees it: expectations are checked, failures are explained and can be repeated, and what is
//! shrunk still fails. The failures are real ones, of a bug in the world's own driver that every build has.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use tidegate_sim::plan::{Shape, plan};
use tidegate_sim::run::{DriverBug, FailureKind, Options, run};
use tidegate_sim::scenario::text::{parse, write};
use tidegate_sim::shrink::{Budget, events, shrink};
use tidegate_sim::{named, scenario::Scenario};

/// After a refused flush the site goes on from memory.
const BROKEN: Options =
    Options { log: None, checkpoints: 0, blind: false, canary: false, driver: Some(DriverBug::B28) };

/// The first seed that breaks an invariant with the bug and passes without it. What fails by taking too long gets small by
/// having less time, with the bug or without.
fn failing() -> (u64, Scenario) {
    (0..500)
        .map(|seed| (seed, plan(seed, &Shape::default())))
        .find(|(_, scenario)| {
            let broken = run(scenario, BROKEN).failure.is_some_and(|f| f.kind == FailureKind::Invariant);
            broken && run(scenario, Options::default()).failure.is_none()
        })
        .expect("five hundred seeds find it")
}

/// A folder of its own that is gone when the test is over.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir_all(&path).expect("a folder");
        Folder(path)
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path = self.0.join(name);
        std::fs::write(&path, text).expect("written");
        path.display().to_string()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What stays behind among build products harms nobody.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The real program, in a directory that has nothing to do with the project.
fn program(arguments: &[&str]) -> (i32, String) {
    let Output { status, stdout, stderr } = Command::new(env!("CARGO_BIN_EXE_tidegate-sim"))
        .args(arguments)
        .current_dir(std::env::temp_dir())
        .output()
        .expect("it starts");
    let text = String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr);
    (status.code().expect("not killed"), text)
}

#[test]
fn a_file_that_expects_what_does_not_come_fails() {
    let folder = Folder::new("expects");
    let sound = named::find("null").expect("built in");
    let lying = sound.replacen("seed = 5", "seed = 5\nexpect = \"I18\"", 1);
    assert_ne!(lying, sound);
    let (right, wrong) = (folder.write("right.toml", sound), folder.write("wrong.toml", &lying));
    assert_eq!(program(&["replay", &right]).0, 0);
    let (code, text) = program(&["replay", &wrong]);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("PASSES") && text.contains("I18 to break, and nothing did"), "{text}");
    let (code, text) = program(&["replay", "--corpus", &folder.0.display().to_string()]);
    assert_eq!(code, 1, "one of two is enough: {text}");
    assert!(text.contains("2 replayed, 1 not as expected"), "{text}");
}

#[test]
fn what_cannot_be_read_is_said_with_its_place() {
    let folder = Folder::new("unreadable");
    let bad = folder.write("bad.toml", "name = \"x\"\nfoo = 1\n");
    for (arguments, code, part) in [
        (&["replay", bad.as_str()][..], 1, "line 2: unknown field `foo`"),
        (&["replay", "no-such-file.toml"][..], 1, "no-such-file.toml"),
        (&["run", "no-such-scenario"][..], 2, "thundering-herd"),
        (&["run", "--seeds", "9..3"][..], 2, "1..1000"),
        (&["frobnicate"][..], 2, "Usage"),
    ] {
        let (got, text) = program(arguments);
        assert_eq!(got, code, "{arguments:?}: {text}");
        assert!(text.contains(part), "{arguments:?}: {text}");
    }
}

#[test]
fn a_named_scenario_runs_from_any_directory() {
    let (code, text) = program(&["run", "null"]);
    assert_eq!(code, 0, "{text}");
}

#[test]
fn a_failure_is_told_with_all_that_one_needs_and_its_command_repeats_it() {
    let (seed, scenario) = failing();
    let failure = run(&scenario, BROKEN).failure.expect("it fails");
    let (code, text) =
        program(&["run", "--seed", &seed.to_string(), "--bug", "B28", "--shrink-seconds", "20"]);
    assert_eq!(code, i32::from(failure.kind.exit_code()), "{text}");
    let says = tidegate_sim::report::sentences::sentence(&failure.invariant);
    for part in [
        &failure.signature(),
        says,
        &failure.saw,
        "  minimal    ",
        "    steps = [",
        "  log        the last 40",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    let at = text.lines().position(|line| line.starts_with("  log ")).expect("just seen");
    let log: Vec<&str> = text.lines().skip(at + 1).take_while(|line| line.starts_with("    ")).collect();
    assert_eq!(log.len(), 40);
    // Columns: time, event, who, what kind of line.
    for line in log {
        let column = |from: usize, to: usize| line.chars().skip(from).take(to - from).collect::<String>();
        assert!(column(4, 18).trim().ends_with('s') && column(18, 19) == " ", "{line}");
        assert!(column(19, 26).trim().parse::<u64>().is_ok() && column(26, 27) == " ", "{line}");
        assert!(!column(27, 37).trim().is_empty() && column(37, 38) == " ", "{line}");
    }
    let again = text.lines().find_map(|line| line.strip_prefix("  again ")).expect("a command");
    let words: Vec<&str> = again.split(" -- ").nth(1).expect("what follows cargo's own").split(' ').collect();
    let (repeated, whole) = program(&[&words[..], &["--shrink-seconds", "0"]].concat());
    assert_eq!(repeated, code);
    assert!(whole.contains(&failure.saw));
}

#[test]
fn a_real_failure_shrinks_to_a_few_events_that_fail_in_the_same_way() {
    let (_, scenario) = failing();
    let wanted = run(&scenario, BROKEN).failure.expect("it fails").signature();
    let mut fails = |candidate: &Scenario| run(candidate, BROKEN).failure.map(|failure| failure.signature());
    // A clock that counts how often it is read: no run of this test depends on how fast a machine is.
    let reads = Cell::new(0_u64);
    let clock = || {
        reads.set(reads.get() + 1);
        Duration::from_millis(reads.get())
    };
    let budget = Budget { tries: 5_000, within: Duration::from_secs(3600), clock: &clock };
    let shrunk = shrink(&scenario, &mut fails, budget);
    assert_eq!(shrunk.signature.as_ref(), Some(&wanted));
    assert!(shrunk.minimal, "5,000 runs are enough: {}", shrunk.tries);
    assert!(events(&shrunk.scenario) <= 12 && events(&shrunk.scenario) < events(&scenario));
    let read = parse(&write(&shrunk.scenario)).expect("just written");
    assert_eq!(fails(&read), Some(wanted), "the file fails as well");
    assert_eq!(run(&read, Options::default()).failure, None, "and only because of the bug");
}
