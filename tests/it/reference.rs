//! Reads the two tables of docs/protocol.md that compare us with the predecessor: every row says what became of it, and
//! names tests that exist. Whether each of them ran is for continuous integration to see, in what the run printed
//! (`tests/table.sh`).

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the root").to_path_buf()
}

fn protocol() -> String {
    std::fs::read_to_string(root().join("docs/protocol.md")).expect("docs/protocol.md")
}

/// The rows of every table in a section, cell by cell.
fn rows<'a>(text: &'a str, title: &str) -> Vec<Vec<&'a str>> {
    let (_, section) = text.split_once(title).unwrap_or_else(|| panic!("a section {title:?}"));
    let lines = section.lines().skip(1).take_while(|line| !line.starts_with("## "));
    let headed =
        |line: &&str| line.starts_with("| n | behaviour |") || line.starts_with("| W | the predecessor |");
    let rows = lines.filter(|line| line.starts_with("| ") && !headed(line));
    rows.map(|line| line.trim().trim_start_matches('|').split('|').map(str::trim).collect())
        .map(|mut cells: Vec<&str>| {
            assert_eq!(cells.pop(), Some(""), "a row ends with a line: {cells:?}");
            cells
        })
        .collect()
}

/// The names between backticks that are paths of tests.
fn named(cell: &str) -> Vec<&str> {
    cell.split('`').filter(|word| word.contains("::")).collect()
}

/// Where a test of this path may stand: `core::task::tests::uploads::x` in `core/src/task/tests/uploads.rs`, or in the
/// `mod tests` of a file.
fn files(path: &[&str]) -> Vec<PathBuf> {
    let base = match path[0] {
        "it" => root().join("tests/it"),
        "core" => root().join("core/src"),
        "runtime" => root().join("runtime/src"),
        "sim" => root().join("sim/src"),
        other => panic!("{other}: tests are named it::, core::, runtime:: or sim::"),
    };
    let mut found = Vec::new();
    for last in (1..path.len()).rev() {
        let module = &path[1..last];
        let folder = module.iter().fold(base.clone(), |folder, name| folder.join(name));
        found.push(folder.with_extension("rs"));
        found.push(folder.join("mod.rs"));
        // Tests that stand in a file beside the module that they are in.
        if let ([.., of, "tests"], Some(of_whom)) = (module, folder.parent()) {
            found.push(of_whom.with_file_name(format!("{of}_tests.rs")));
        }
    }
    found
}

/// What stands above the function of this name, from the last empty line on: comments and attributes. `None` if there is
/// no such function.
fn above(name: &str) -> Option<String> {
    let path: Vec<&str> = name.split("::").collect();
    let head = format!("fn {}(", path.last()?);
    files(&path).iter().find_map(|file| {
        let text = std::fs::read_to_string(file).ok()?;
        let at = text.find(&head)?;
        Some(text[..at].rsplit("\n\n").next().unwrap_or_default().to_owned())
    })
}

/// Says what is wrong with the name of a test, if anything.
fn trouble(name: &str) -> Option<String> {
    let Some(before) = above(name) else { return Some(format!("{name}: not found")) };
    // The first test of a module that stands in its file has the module's head above it.
    let before = before.rsplit("mod tests {\n").next().unwrap_or_default();
    let mut lines = before.lines().map(str::trim);
    if !lines.clone().any(|line| line == "#[test]" || line.starts_with("#[tokio::test")) {
        return Some(format!("{name}: no test"));
    }
    if lines.any(|line| line.starts_with("#[ignore") || line.starts_with("#[cfg")) {
        return Some(format!("{name}: it does not run everywhere"));
    }
    None
}

/// Whether a reason names a weakness: W and its number.
fn names_weakness(why: &str) -> bool {
    why.split(|c: char| !c.is_ascii_alphanumeric()).any(|word| {
        word.strip_prefix('W').is_some_and(|n| n.parse::<u32>().is_ok_and(|n| (1..=37).contains(&n)))
    })
}

#[test]
fn every_behaviour_of_the_predecessor_has_a_verdict_and_its_tests() {
    let text = protocol();
    let mut wrong = Vec::new();
    let mut seen = BTreeSet::new();
    for row in rows(&text, "## Compared with the predecessor") {
        let [n, what, verdict, why, tests] = row.as_slice() else { panic!("five cells: {row:?}") };
        assert!(seen.insert((*n).to_owned()), "{n} stands there twice");
        let tests = named(tests);
        match *verdict {
            "kept" | "changed" if tests.is_empty() => wrong.push(format!("{n} ({what}): no test")),
            "kept" => {}
            "changed" if !names_weakness(why) => wrong.push(format!("{n} ({what}): no weakness is named")),
            "out" if why.is_empty() => wrong.push(format!("{n} ({what}): no reason")),
            "changed" | "out" => {}
            other => wrong.push(format!("{n}: {other:?} is no verdict")),
        }
        wrong.extend(tests.into_iter().filter_map(trouble).map(|why| format!("{n}: {why}")));
    }
    let numbers = (1..=100).map(|n| n.to_string());
    let planned = ('a'..='s').map(|n| n.to_string());
    let missing: Vec<String> = numbers.chain(planned).filter(|n| !seen.contains(n)).collect();
    assert!(missing.is_empty(), "no rows: {missing:?}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Ids of the planted bugs of the core and of the edges.
fn bugs() -> BTreeSet<String> {
    let mut ids = BTreeSet::new();
    for file in ["core/src/bug.rs", "runtime/src/bug.rs"] {
        let text = std::fs::read_to_string(root().join(file)).expect("a bank");
        let variants = text.lines().filter_map(|line| line.trim().strip_suffix(','));
        ids.extend(variants.filter(|id| id.len() == 3 && id.is_ascii()).map(str::to_owned));
    }
    assert!(ids.len() > 60, "{ids:?}");
    ids
}

#[test]
fn every_weakness_of_the_predecessor_has_a_test_named_after_it_and_the_worst_a_planted_bug() {
    let text = protocol();
    let (planted, mut used) = (bugs(), BTreeSet::new());
    let mut wrong = Vec::new();
    let mut seen = Vec::new();
    for row in rows(&text, "## Weaknesses of the predecessor") {
        let [n, theirs, ours, severity, tests, bug] = row.as_slice() else { panic!("six cells: {row:?}") };
        let number: u32 = n.parse().unwrap_or_else(|_| panic!("{n} is a number"));
        seen.push(number);
        let tests = named(tests);
        wrong.extend(tests.iter().filter_map(|test| trouble(test)).map(|why| format!("W{n}: {why}")));
        if theirs.is_empty() || ours.is_empty() || !matches!(*severity, "S1" | "S2" | "S3") {
            wrong.push(format!("W{n}: what it was, what it is, and how bad: {row:?}"));
        }
        if ours.starts_with("out: ") {
            if !tests.is_empty() || *severity == "S1" {
                wrong.push(format!("W{n}: it is out, and it has a test or is of the worst"));
            }
            continue;
        }
        let own = format!("w{number:02}_");
        let tells = |test: &&&str| {
            let after_it = test.rsplit("::").next().is_some_and(|name| name.contains(&own));
            after_it && above(test).is_some_and(|above| above.contains("predecessor"))
        };
        if !tests.iter().any(|test| tells(&test)) {
            wrong.push(format!("W{n}: no test named after it that says what the predecessor did"));
        }
        match (*severity, *bug) {
            ("S1", bug) if !planted.contains(bug) => wrong.push(format!("W{n}: {bug:?} is no planted bug")),
            ("S1", bug) if !used.insert(bug.to_owned()) => wrong.push(format!("W{n}: {bug} is another's")),
            ("S1", _) | (_, "") => {}
            (_, bug) => wrong.push(format!("W{n}: {bug} is looked for only in rows of S1")),
        }
    }
    assert_eq!(seen, (1..=37).collect::<Vec<u32>>(), "one row for each");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_name_of_a_test_that_is_not_there_is_noticed() {
    assert_eq!(trouble("it::reference::a_name_of_a_test_that_is_not_there_is_noticed"), None);
    assert!(trouble("it::reference::no_such_test").is_some());
    assert!(trouble("it::reference::trouble").is_some(), "a function is no test");
    assert!(trouble("core::nowhere::at_all").is_some());
}
