//! Files are read as they are written, and what is wrong in one is said with its line.

use std::time::Duration;

use super::{parse, write};
use crate::plan::{Shape, plan};
use crate::scenario::{Act, CommitPoint, Fault, Lasts, Place, Scenario, Sync, When};

const SMALL: &str = r#"
name = "small"
seed = 7
chaos = "5m"
settle = "2h"
sites = [{ name = "north", knobs = { destination = true } }]
devices = [{ id = "d1" }]
steps = [
    { at = "3s", act = "cancel", task = "t1" },
    { at = "1s", act = "record", device = "d1", task = "t1", bytes = "12MiB" },
]
faults = [
    { at = "north commit 7 durable", fault = "kill", keep = "prefix", down = "2s" },
    { at = "2m", lasts = "30s", fault = "cut", link = "d1/recorder", way = "up" },
]
"#;

#[test]
fn what_is_written_is_read_back_for_every_plan() {
    for shape in [Shape::default(), Shape::idle(), Shape::busy()] {
        for seed in (0..700).chain([u64::MAX]) {
            let scenario = plan(seed, &shape);
            let text = write(&scenario);
            let back = parse(&text).unwrap_or_else(|problem| panic!("seed {seed}: {problem}\n{text}"));
            assert_eq!(back, scenario, "seed {seed}\n{text}");
            assert_eq!(write(&back), text);
        }
    }
}

#[test]
fn a_damaged_file_is_a_problem_or_a_scenario_and_never_a_panic() {
    let mut legal = 0;
    for seed in 0..300 {
        let text = write(&plan(seed, &Shape::default()));
        for n in 0..10 {
            let mut chance = crate::stream::Stream::new(seed, "damage", n);
            let mut letters: Vec<char> = text.chars().collect();
            for _ in 0..chance.between(1, 3) {
                let at = usize::try_from(chance.below(letters.len() as u64)).expect("small");
                match chance.below(3) {
                    0 => drop(letters.remove(at)),
                    1 => letters[at] = *chance.pick(&['0', '9', 'm', '"', '{', '-', 'é', '\n']),
                    _ => letters.swap(at, 0),
                }
            }
            let damaged: String = letters.into_iter().collect();
            match parse(&damaged) {
                Ok(scenario) => {
                    legal += 1;
                    assert_eq!(parse(&write(&scenario)), Ok(scenario), "{damaged}");
                }
                Err(problem) => assert!(problem.to_string().len() > 10, "{problem}"),
            }
        }
    }
    assert!(legal > 50, "{legal}");
}

#[test]
fn a_bug_an_expectation_and_any_words_about_it_survive() {
    let mut scenario = plan(3, &Shape::default());
    scenario.bug = tidegate_core::bug::Bug::from_id("B05");
    scenario.expect = Some("I06".to_string());
    for about in
        ["plain", "two\nlines\n", "\"quoted\" and \\ and \t", "'single' ''' and \"\"\"", "Ünicode ✓ \u{7}"]
    {
        scenario.about = about.to_string();
        assert_eq!(parse(&write(&scenario)).as_ref(), Ok(&scenario), "{about:?}");
    }
    assert!(scenario.bug.is_some());
}

#[test]
fn a_hand_written_file_needs_little_and_comes_back_in_order_of_time() {
    let scenario = parse(SMALL).expect("legal");
    let Act::Record(recording) = &scenario.steps[0].act else { panic!("sorted by time") };
    assert_eq!((recording.bytes, recording.sync, recording.approve), (12 << 20, Sync::Named, true));
    assert_eq!(scenario.sites[0].knobs.site, "north");
    assert_eq!(scenario.faults[0].lasts, Lasts::For(Duration::from_secs(30)));
    assert_eq!(scenario.faults[1].when, When::Commit { site: 0, n: 7, point: CommitPoint::Durable });
    assert!(matches!(scenario.faults[1].fault, Fault::Kill { site: 0, .. }));
    let text = write(&scenario);
    assert_eq!(parse(&text).map(|again| write(&again)), Ok(text));
}

#[test]
fn one_line_can_stand_for_many_devices() {
    let scenario = parse(&SMALL.replace("{ id = \"d1\" }", "{ id = \"d\", count = 250 }")).expect("legal");
    assert_eq!(scenario.devices.len(), 250);
    assert_eq!(scenario.devices[249].id, "d250");
    assert_eq!(parse(&write(&scenario)), Ok(scenario));
}

/// Reads `SMALL` with one place changed: the line of the problem and words that it must say.
fn refused(from: &str, to: &str, line: usize, words: &[&str]) {
    assert!(SMALL.contains(from), "{from}");
    let problem = parse(&SMALL.replace(from, to)).expect_err(to);
    let text = problem.to_string();
    assert_eq!(problem.line, Some(line), "{text}");
    for word in words {
        assert!(text.contains(word), "{text}: {word}");
    }
}

#[test]
fn what_is_wrong_is_said_with_its_line_and_what_to_write() {
    refused("seed = 7", "sead = 7", 3, &["sead", "seed"]);
    refused("seed = 7", "seed = -7", 3, &["seed", "from 0 on"]);
    refused("\"5m\"", "\"5 minutes\"", 4, &["5 minutes", "1h30m"]);
    refused("destination = true", "destinations = true", 6, &["destinations", "rpc_timeout"]);
    refused("destination = true", "rpc_timeout = \"5m\"", 6, &["rpc_timeout", "between"]);
    refused("name = \"north\",", "name = \"north\", flavour = \"ful\",", 6, &["ful", "composite"]);
    refused("{ id = \"d1\" }", "{ id = \"d1\" }, { id = \"d/1\" }", 7, &["d/1", "A-Z"]);
    refused("act = \"cancel\"", "act = \"cancle\"", 9, &["cancle", "cancel, judge"]);
    refused("at = \"3s\", ", "", 9, &["at is missing"]);
    refused("at = \"3s\"", "at = \"6m\"", 9, &["at must be at most 5m"]);
    refused("task = \"t1\" }", "task = \"t1\", byte = 5 }", 9, &["unknown field byte", "task"]);
    refused("device = \"d1\"", "device = \"d9\"", 10, &["no device \"d9\""]);
    refused("bytes = \"12MiB\"", "bytes = \"12 MB\"", 10, &["12 MB", "12MiB"]);
    refused("bytes = \"12MiB\"", "bytes = 12", 10, &["bytes", "text in quotes"]);
    refused("task = \"t1\", bytes", "task = \"t1.2\", bytes", 10, &["t1.2", "dot"]);
    refused("north commit 7 durable", "south commit 7 durable", 13, &["south", "north"]);
    refused("north commit 7 durable", "north commit x durable", 13, &["\"x\"", "north object 3"]);
    refused("north commit 7 durable", "north commit 0 durable", 13, &["between 1"]);
    refused("keep = \"prefix\"", "keep = \"all\"", 13, &["all", "subset"]);
    refused("lasts = \"30s\", ", "", 14, &["lasts is missing", "forever"]);
    refused("link = \"d1/recorder\"", "link = \"d1\"", 14, &["d1/recorder"]);
    refused("link = \"d1/recorder\"", "device = \"d1\", cloud = \"north\"", 14, &["exactly one"]);
    refused("fault = \"cut\"", "fault = \"kut\"", 14, &["kut", "power-off"]);
    let waits = "at = \"north commit 2 torn\", lasts = \"30s\"";
    refused("at = \"2m\", lasts = \"30s\"", waits, 14, &["only a fault that stops"]);
}

/// What `check` says of a changed plan.
fn checked(change: impl FnOnce(&mut Scenario)) -> (Place, String) {
    let mut scenario = parse(SMALL).expect("legal");
    change(&mut scenario);
    let problem = scenario.check().expect_err("illegal");
    (problem.place, problem.to_string())
}

#[test]
fn a_scenario_made_by_a_program_is_checked_like_a_file() {
    assert_eq!(checked(|s| s.name = "no name".into()).0, Place::Whole);
    assert_eq!(checked(|s| s.sites.clear()).0, Place::Whole);
    assert_eq!(checked(|s| s.sites.push(s.sites[0].clone())).0, Place::Site(1));
    assert_eq!(checked(|s| s.sites[0].knobs.site = "other".into()).0, Place::Site(0));
    assert_eq!(checked(|s| s.sites[0].cloud_speed = 0).0, Place::Site(0));
    assert_eq!(checked(|s| s.devices.push(s.devices[0].clone())).0, Place::Device(1));
    assert_eq!(checked(|s| s.devices[0].site = 1).0, Place::Device(0));
    assert_eq!(checked(|s| s.devices.clear()).0, Place::Step(0));
    let (place, text) = checked(|s| {
        let again = s.steps[0].clone();
        s.steps.push(again);
    });
    assert_eq!(place, Place::Step(2), "{text}");
    let (place, text) = checked(|s| s.steps[1].at += Duration::from_micros(1));
    assert_eq!((place, text.contains("whole milliseconds")), (Place::Step(1), true));
    let throttle = Fault::Throttle { store: crate::scenario::Store::Cloud(0), permille: 1001 };
    assert_eq!(checked(|s| s.faults[0].fault = throttle).0, Place::Fault(0));
    let (place, text) = checked(|s| s.steps.reverse());
    assert_eq!((place, text.contains("sort")), (Place::Whole, true));
    let mut reversed = parse(SMALL).expect("legal");
    reversed.steps.reverse();
    reversed.faults.reverse();
    reversed.sort();
    assert_eq!(Ok(reversed), parse(SMALL));
}

#[test]
fn every_named_scenario_is_legal_and_bears_the_name_of_its_file() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios");
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).expect("in the repository") {
        let path = entry.expect("readable").path();
        let text = std::fs::read_to_string(&path).expect("readable");
        let scenario = parse(&text).unwrap_or_else(|problem| panic!("{}: {problem}", path.display()));
        assert_eq!(path.file_stem().and_then(|stem| stem.to_str()), Some(scenario.name.as_str()));
        assert!(scenario.about.contains("must"), "{}: say what must come of it", scenario.name);
        assert!(!scenario.steps.is_empty(), "{}", scenario.name);
        assert_eq!(scenario.faults.is_empty(), ["conflict", "null"].contains(&scenario.name.as_str()));
        assert_eq!((scenario.bug, scenario.expect.clone()), (None, None), "{} must pass", scenario.name);
        assert_eq!(parse(&write(&scenario)).as_ref(), Ok(&scenario));
        names.push(scenario.name);
    }
    names.sort();
    let wanted = [
        "clock-step",
        "conflict",
        "contest",
        "credentials-expire",
        "grace",
        "half-open",
        "lost-callback",
        "null",
        "policies",
        "power-loss",
        "reconnect",
        "restart-absent",
        "rpc-timeout",
        "s3-outage",
        "takeover",
        "thundering-herd",
        "weeks-offline",
    ];
    assert_eq!(names, wanted);
}

#[test]
fn the_example_in_the_documentation_is_a_legal_scenario() {
    let page = include_str!("../../../../docs/simulation.md");
    let example =
        page.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).expect("an example");
    let scenario = parse(example).unwrap_or_else(|problem| panic!("{problem}"));
    assert_eq!(scenario.check(), Ok(()));
}

#[test]
fn the_catalogue_in_the_documentation_names_every_fault_and_says_which_are_momentary() {
    let page = include_str!("../../../../docs/simulation.md");
    let mut seen = std::collections::BTreeSet::new();
    for spec in (0..1_000).flat_map(|seed| plan(seed, &Shape::default()).faults) {
        let (id, word) = spec.fault.name();
        if seen.insert((id, word)) {
            let row = page.lines().find(|line| line.starts_with(&format!("| {id} | `{word}` |")));
            let row = row.unwrap_or_else(|| panic!("{id} {word} is not in the catalogue"));
            assert_eq!(row.contains("| yes |"), spec.fault.is_momentary(), "{row}");
        }
    }
    assert_eq!(seen.len(), 37);
    for lie in crate::scenario::Lie::ALL {
        assert!(page.contains(&format!("`{}`", super::Word::word(lie))), "{lie:?}");
    }
    for conduct in crate::scenario::Conduct::ALL {
        assert!(page.contains(&format!("`{}`", conduct.word())), "{conduct:?}");
    }
}
