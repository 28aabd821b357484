//! docs/policies.md, run: every command block in an empty folder against the real binary and a real site, and what it
//! prints compared with what stands there.
//!
//! In a `console` block a line with `$ ` is a command, the lines below it are what it prints. `<…>` stands for anything, a
//! line with `...` for any lines. Runs of spaces are one space: columns move with what stands in them. A command whose
//! output has a line that begins with `error: ` fails, any other succeeds. `<!-- test: file PATH -->` above a block writes
//! it into that file, `<!-- test: site -->` starts a site. What needs a compiler that is not here is left out with the rest
//! of its chapter, aloud.

use std::path::Path;
use std::process::{Command, Output};

use crate::rig::{Plan, Site, run};
use crate::skip::skip;

/// A piece of the document that does something.
#[derive(Debug, PartialEq)]
enum Step {
    /// A heading of the second level: what was skipped before is over.
    Chapter(String),
    Site,
    File { path: String, text: String },
    Command { line: usize, command: String, expected: Vec<String> },
}

fn steps(text: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut lines = text.lines().enumerate();
    let mut file: Option<String> = None;
    while let Some((n, line)) = lines.next() {
        if let Some(heading) = line.strip_prefix("## ") {
            steps.push(Step::Chapter(heading.to_owned()));
        } else if line.starts_with("<!-- test: site") {
            steps.push(Step::Site);
        } else if let Some(path) = line.strip_prefix("<!-- test: file ") {
            file = Some(path.trim_end_matches("-->").trim().to_owned());
        } else if let Some(kind) = line.strip_prefix("```") {
            let block: Vec<(usize, &str)> = lines.by_ref().take_while(|(_, line)| *line != "```").collect();
            if let Some(path) = file.take() {
                let text = block.iter().map(|(_, line)| format!("{line}\n")).collect();
                steps.push(Step::File { path, text });
            } else if kind == "console" {
                commands(&block, &mut steps);
            } else {
                panic!("line {}: the block {kind:?} is neither a console nor a file", n + 1);
            }
        }
    }
    assert_eq!(file, None, "a file without a block");
    steps
}

fn commands(block: &[(usize, &str)], steps: &mut Vec<Step>) {
    for (n, line) in block {
        if let Some(command) = line.strip_prefix("$ ") {
            steps.push(Step::Command { line: n + 1, command: command.to_owned(), expected: Vec::new() });
        } else if let Some(Step::Command { expected, .. }) = steps.last_mut() {
            expected.push((*line).to_owned());
        } else {
            panic!("line {}: output without a command", n + 1);
        }
    }
}

/// Whether a text fits a pattern: `<…>` is at least one character of anything.
fn fits(pattern: &str, text: &str) -> bool {
    match pattern.split_once('<').and_then(|(before, rest)| Some((before, rest.split_once('>')?.1))) {
        None => pattern == text,
        Some((before, after)) => text.strip_prefix(before).is_some_and(|rest| {
            rest.char_indices().skip(1).map(|(at, _)| at).chain([rest.len()]).any(|at| at > 0 && fits(after, &rest[at..]))
        }),
    }
}

/// Whether lines fit patterns: `...` is any number of lines.
fn all_fit(patterns: &[String], lines: &[String]) -> bool {
    match (patterns, lines) {
        ([], lines) => lines.is_empty(),
        ([rest, patterns @ ..], lines) if rest == "..." => {
            (0..=lines.len()).any(|at| all_fit(patterns, &lines[at..]))
        }
        ([pattern, patterns @ ..], [line, lines @ ..]) => fits(pattern, line) && all_fit(patterns, lines),
        (_, []) => false,
    }
}

fn squeezed(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Runs commands as a reader would type them.
struct Shell {
    dir: tempfile::TempDir,
    /// Where `tidegate` is found.
    path: std::ffi::OsString,
    api: Option<u16>,
}

impl Shell {
    fn new() -> Shell {
        let dir = tempfile::tempdir().expect("a directory");
        let programs = dir.path().join("bin");
        std::fs::create_dir(&programs).expect("a directory");
        std::fs::create_dir(dir.path().join("work")).expect("a directory");
        std::os::unix::fs::symlink(Site::program().get_program(), programs.join("tidegate")).expect("a link");
        let path = std::env::var_os("PATH").unwrap_or_default();
        let all = std::iter::once(programs).chain(std::env::split_paths(&path));
        let path = std::env::join_paths(all).expect("a path");
        Shell { dir, path, api: None }
    }

    fn work(&self) -> std::path::PathBuf {
        self.dir.path().join("work")
    }

    fn run(&self, command: &str) -> Output {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("{{ {command}\n}} 2>&1")]).current_dir(self.work()).env("PATH", &self.path);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("TIDEGATE_") {
                shell.env_remove(name);
            }
        }
        if let Some(api) = self.api {
            shell.env("TIDEGATE_API", format!("http://127.0.0.1:{api}"));
        }
        // Libraries that a compiler lacks are built once for all runs, and not where the user's own are.
        shell.env("XDG_CACHE_HOME", Path::new(env!("CARGO_TARGET_TMPDIR")).join("cache"));
        shell.output().expect("a shell")
    }
}

#[test]
fn every_command_of_the_document_prints_what_stands_there() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/policies.md");
    let text = std::fs::read_to_string(file).expect("the document");
    let mut shell = Shell::new();
    let mut site: Option<Site> = None;
    let mut chapter = String::new();
    let (mut left_out, mut without_rust) = (false, false);
    for step in steps(&text) {
        match step {
            Step::Chapter(heading) => {
                without_rust |= left_out && chapter == "In Rust";
                left_out = without_rust && needs_rust(&heading);
                chapter = heading;
            }
            _ if left_out => {}
            Step::Site => {
                let started = match site.take() {
                    Some(site) => site,
                    None => run(async { Plan::new().start().await }),
                };
                shell.api = Some(started.api);
                site = Some(started);
            }
            Step::File { path, text } => {
                let path = shell.work().join(path);
                std::fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
                std::fs::write(path, text).expect("a file");
            }
            Step::Command { line, command, expected } => {
                let output = shell.run(&command);
                let text = String::from_utf8_lossy(&output.stdout).into_owned();
                if text.contains("nothing here compiles") {
                    let why = text.lines().find(|line| line.contains("nothing here compiles")).unwrap_or("");
                    skip("every_command_of_the_document_prints_what_stands_there", &format!("{chapter}: {why}"));
                    left_out = true;
                    continue;
                }
                let lines: Vec<String> = text.trim_end().lines().map(squeezed).collect();
                let mut patterns: Vec<String> = expected.iter().map(|line| squeezed(line)).collect();
                while patterns.last().is_some_and(String::is_empty) {
                    patterns.pop();
                }
                assert!(
                    all_fit(&patterns, &lines),
                    "docs/policies.md:{line}: $ {command}\nprints\n{text}\nand not\n{}",
                    expected.join("\n")
                );
                let fails = expected.iter().any(|line| line.starts_with("error: "));
                assert_eq!(output.status.success(), !fails, "docs/policies.md:{line}: $ {command}\n{text}");
            }
        }
    }
}

/// Chapters that use the module of the chapter on Rust.
fn needs_rust(heading: &str) -> bool {
    heading == "Signing"
}

#[test]
fn patterns_stand_for_what_differs_and_for_nothing_else() {
    for (pattern, text, expected) in [
        ("a <b> c", "a 12 c", true),
        ("a <b> c", "a  c", false),
        ("<n>", "", false),
        ("<n>", "x y", true),
        ("generation <n><more>", "generation 12", true),
        ("generation <n><more>", "generation 1", false),
        ("a", "b", false),
        ("<n> of <m>", "1 of 2", true),
        ("<n> of <m>", "1 or 2", false),
    ] {
        assert_eq!(fits(pattern, text), expected, "{pattern} {text}");
    }
    let lines = |text: &str| -> Vec<String> { text.lines().map(str::to_owned).collect() };
    assert!(all_fit(&lines("...\nb"), &lines("a\na\nb")));
    assert!(all_fit(&lines("b\n..."), &lines("b")));
    assert!(!all_fit(&lines("...\nb"), &lines("a")));
    assert!(!all_fit(&lines("a"), &lines("a\nb")));
}

#[test]
fn a_document_is_read_as_files_sites_and_commands() {
    let text = "## One\n<!-- test: file a/b -->\n```rust\nx\n```\n<!-- test: site -->\n```console\n$ one\nout\n$ two\n```\n";
    let command = |line: usize, command: &str, expected: &[&str]| Step::Command {
        line,
        command: command.to_owned(),
        expected: expected.iter().map(|line| (*line).to_owned()).collect(),
    };
    assert_eq!(
        steps(text),
        [
            Step::Chapter("One".to_owned()),
            Step::File { path: "a/b".to_owned(), text: "x\n".to_owned() },
            Step::Site,
            command(8, "one", &["out"]),
            command(10, "two", &[]),
        ]
    );
}
