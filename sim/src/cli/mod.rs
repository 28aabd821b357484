//! The command line: what can be asked for, and what each answer's exit code is. One file per command; all of them print
//! to the writer they are given.
//!
//! Exit codes: 0 as it should be, 1 something else failed, 2 usage; 10 an invariant, 11 liveness, 12 a crash, 13 two
//! runs that differ. Ctrl-C ends a command at once; what it found so far is on the terminal, since lines are written
//! as they come.

mod bank;
mod bench;
mod coverage;
mod figures;
mod list;
mod meta;
mod nightly;
mod replay;
mod run;
mod seam;
mod shrink;
#[cfg(test)]
mod tests;

use std::io::{ErrorKind, Write};
use std::ops::Range;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use tidegate_core::bug::{Bug, PLANTED};
use tidegate_sim::bank::table::{self, Way};
use tidegate_sim::report::{self, Case};
use tidegate_sim::run::DriverBug;

use seam::Lab;

/// Simulates the core of Tidegate, deterministically and without the runtime.
///
/// A seed becomes a scenario, a scenario becomes a run, and a run passes or breaks an invariant. Equal seeds give equal
/// runs on every machine.
#[derive(Debug, Parser)]
#[command(name = "tidegate-sim", version, arg_required_else_help = true, after_help = FIRST)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const FIRST: &str = "Begin with:
  tidegate-sim run --seed 42 --log        one run, everything that happens
  tidegate-sim run --seeds 1..1000        a thousand, the failures explained
  tidegate-sim shrink --seed 42           the smallest scenario that fails like seed 42
  tidegate-sim run power-loss             a scenario by its name; `list` has them all
  tidegate-sim replay --corpus sim/corpus every failure that ever was

Exit codes: 0 as it should be, 1 failed, 2 usage, 10 invariant, 11 liveness, 12 crash, 13 non-determinism.
`<command> --help` has examples of each.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run seeds, a commit, or a named scenario.
    Run(run::Run),
    /// Run scenario files again: each must pass, or fail as its `expect` says.
    Replay(replay::Replay),
    /// Make a failing scenario as small as it gets and print a test for it.
    Shrink(shrink::Shrink),
    /// Hunt every planted bug; needs a build with TIDEGATE_BUGS=1.
    Bank(bank::Bank),
    /// Run seeds in two processes and name the first event at which they differ.
    Meta(meta::Meta),
    /// Say what runs of many seeds reach and what they never do.
    Coverage(coverage::Coverage),
    /// Measure this build on this machine: events a second, simulated hours, cost of the checks, shrinking.
    Figures(figures::Figures),
    /// List named scenarios, faults, invariants, bugs and marks.
    List(list::List),
    /// Run fresh seeds on all cores for so many minutes, and keep what fails.
    Nightly(nightly::Nightly),
    /// What `meta` starts twice.
    #[command(hide = true)]
    Trail(meta::TrailOf),
}

/// What several commands take.
#[derive(Clone, Debug, Default, Args)]
struct Common {
    /// Threads; one run is always on one [default: all cores]
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,
    /// One JSON object a line instead of words
    #[arg(long)]
    json: bool,
}

impl Common {
    fn jobs(&self) -> usize {
        self.jobs.unwrap_or_else(bench::cores).max(1)
    }
}

/// What a command works with.
struct Desk<'a> {
    lab: Lab,
    out: &'a mut dyn Write,
    /// The program that `meta` starts.
    program: PathBuf,
}

impl Desk<'_> {
    /// Tells of one run: its line, and everything about it if it did not come to what was expected.
    fn tell(&mut self, case: &Case, json: bool, whole_log: bool) -> anyhow::Result<()> {
        if json {
            return self.json(&report::json::run(case, whole_log));
        }
        if whole_log {
            for line in &case.report.log {
                writeln!(self.out, "{line}")?;
            }
        }
        writeln!(self.out, "{}", report::human::line(case))?;
        if !case.verdict().is_good() {
            write!(self.out, "{}", report::human::failure(case))?;
        }
        self.out.flush()?;
        Ok(())
    }

    /// One object, one line.
    fn json(&mut self, value: &serde_json::Value) -> anyhow::Result<()> {
        writeln!(self.out, "{value}")?;
        self.out.flush()?;
        Ok(())
    }
}

/// A request that makes no sense: exit code 2.
#[derive(Debug)]
struct Usage(String);

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// Runs the command of this process.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    bench::hush();
    let mut out = std::io::stdout().lock();
    let answer = std::env::current_exe()
        .context("finding this program")
        .and_then(|program| carry_out(cli.command, &mut Desk { lab: Lab::real(), out: &mut out, program }));
    match answer {
        Ok(code) => ExitCode::from(code),
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // Nowhere to tell if even this fails.
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::from(if error.is::<Usage>() { 2 } else { 1 })
        }
    }
}

fn carry_out(command: Command, desk: &mut Desk<'_>) -> anyhow::Result<u8> {
    match command {
        Command::Run(args) => run::run(&args, desk),
        Command::Replay(args) => replay::replay(&args, desk),
        Command::Shrink(args) => shrink::shrink(&args, desk),
        Command::Bank(args) => bank::bank(&args, desk, PLANTED),
        Command::Meta(args) => meta::meta(&args, desk),
        Command::Coverage(args) => coverage::coverage(&args, desk),
        Command::Figures(args) => figures::figures(&args, desk),
        Command::List(args) => list::list(&args, desk),
        Command::Nightly(args) => nightly::nightly(&args, desk),
        Command::Trail(args) => meta::trail(&args, desk),
    }
}

/// Somebody who stopped reading (`| head`) is no failure.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
    })
}

/// A planted bug that was asked for by its id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Planted {
    bug: Option<Bug>,
    driver: Option<DriverBug>,
}

/// Finds a bug by its id.
///
/// # Errors
/// If there is none, it comes later, or this build has none.
fn planted(id: Option<&str>) -> anyhow::Result<Planted> {
    let Some(id) = id else { return Ok(Planted::default()) };
    let entry = table::find(id)
        .ok_or_else(|| Usage(format!("there is no bug {id}; `tidegate-sim list` has them")))?;
    if let Some(later) = entry.later {
        return Err(Usage(format!("bug {} is not there yet: its part comes with {later}", entry.id)).into());
    }
    match entry.way {
        Way::World(driver) => Ok(Planted { bug: None, driver: Some(driver) }),
        Way::Core | Way::Meta => {
            needs_planted(entry.bug)?;
            Ok(Planted { bug: entry.bug, driver: None })
        }
    }
}

/// Refuses to run a bug that this build does not have.
///
/// # Errors
/// How to build otherwise.
fn needs_planted(bug: Option<Bug>) -> anyhow::Result<()> {
    match bug {
        Some(bug) if !PLANTED => Err(Usage(format!(
            "bug {} is not compiled in; build and run with\n  {}...",
            bug.id(),
            report::command(true)
        ))
        .into()),
        _ => Ok(()),
    }
}

/// `A..B` (without B), or `N` for the first N seeds.
fn seeds(text: &str) -> Result<Range<u64>, String> {
    let number = |text: &str| text.replace('_', "").parse::<u64>();
    let range = match text.split_once("..") {
        Some((from, to)) => number(from).and_then(|from| Ok(from..number(to)?)),
        None => number(text).map(|n| 1..n.saturating_add(1)),
    };
    match range {
        Ok(range) if !range.is_empty() => Ok(range),
        _ => Err("write 1..1000 (without the last one), or 1000 for the first thousand".to_string()),
    }
}

/// The seed of a commit: the first twelve digits of its hash, so that its usual short forms of at least that length mean
/// the same run.
fn seed_of_commit(hash: &str) -> Result<u64, String> {
    match hash.get(..12).map(|head| u64::from_str_radix(head, 16)) {
        Some(Ok(seed)) if hash.bytes().all(|b| b.is_ascii_hexdigit()) => Ok(seed),
        _ => Err("write at least the first 12 digits of the hash".to_string()),
    }
}
