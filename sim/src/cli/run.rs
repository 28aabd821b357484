//! `run`: seeds, a commit, a named scenario, or the canary.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use tidegate_sim::report::{self, Case, Origin, sentences};
use tidegate_sim::run::Options;
use tidegate_sim::scenario::Scenario;

use super::{Common, Desk, Usage, bench, planted};

const EXAMPLES: &str = "Examples:
  tidegate-sim run --seed 42 --log
  tidegate-sim run --seeds 1..2000 --jobs 2 --junit target/sim.xml
  tidegate-sim run --commit $(git rev-parse HEAD)
  tidegate-sim run power-loss
  tidegate-sim run --seed 7 --bug B14        (a build with TIDEGATE_BUGS=1)
  tidegate-sim run --canary                  (must exit with 10)";

/// Arguments of `run`.
#[derive(Debug, Default, Args)]
#[command(after_help = EXAMPLES, group = clap::ArgGroup::new("what").required(true).multiple(false))]
pub struct Run {
    /// A named scenario; `list` has them
    #[arg(group = "what")]
    pub name: Option<String>,
    /// One seed
    #[arg(long, group = "what", value_name = "N")]
    pub seed: Option<u64>,
    /// Seeds from A to B, without B; or the first N
    #[arg(long, group = "what", value_name = "A..B", value_parser = super::seeds)]
    pub seeds: Option<std::ops::Range<u64>>,
    /// A commit's hash as the seed
    #[arg(long, group = "what", value_name = "HASH", value_parser = super::seed_of_commit)]
    pub commit: Option<u64>,
    /// A run with an invariant that is false on purpose: it must fail
    #[arg(long, group = "what")]
    pub canary: bool,
    /// Plant this bug
    #[arg(long, value_name = "ID")]
    pub bug: Option<String>,
    /// Print everything that happens
    #[arg(long)]
    pub log: bool,
    /// Write JUnit's XML
    #[arg(long, value_name = "FILE")]
    pub junit: Option<PathBuf>,
    /// Seconds to shrink the first failure of each kind; 0 does not
    #[arg(long, value_name = "S", default_value_t = 60)]
    pub shrink_seconds: u64,
    /// What several commands take
    #[command(flatten)]
    pub common: Common,
}

/// Kinds of failures that are shrunk in one command; later ones are told without.
const SHRUNK_MAX: usize = 3;
/// Runs of one shrinking; the time ends it first as a rule.
const TRIES: u64 = 100_000;

/// Carries it out.
///
/// # Errors
/// Usage, and files that cannot be read or written.
pub fn run(args: &Run, desk: &mut Desk<'_>) -> anyhow::Result<u8> {
    let planted = planted(args.bug.as_deref())?;
    let options =
        Options { log: Some(args.log), canary: args.canary, driver: planted.driver, ..Options::default() };
    let lab = desk.lab;
    let of_seed = move |seed: u64| (Origin::Seed(seed), Scenario { bug: planted.bug, ..(lab.plan)(seed) });
    if let Some(name) = &args.name {
        let scenario = named(desk, name)?;
        let bug = planted.bug.or(scenario.bug);
        super::needs_planted(bug)?;
        let one = (Origin::Named(name.clone()), Scenario { bug, ..scenario });
        return tell_all(args, desk, options, std::iter::once(one));
    }
    let range = match (args.seed, args.commit, &args.seeds) {
        (Some(seed), _, _) | (None, Some(seed), _) => {
            seed..seed.checked_add(1).context("the last seed there is")?
        }
        (None, None, Some(seeds)) => seeds.clone(),
        (None, None, None) => 1..2,
    };
    if args.canary {
        return canary(args, desk, options, of_seed(1));
    }
    tell_all(args, desk, options, range.map(of_seed))
}

/// Reads a named scenario.
fn named(desk: &Desk<'_>, name: &str) -> anyhow::Result<Scenario> {
    let Some((_, text)) = desk.lab.named.iter().find(|(known, _)| *known == name) else {
        let names: Vec<&str> = desk.lab.named.iter().map(|(name, _)| *name).collect();
        let message =
            format!("there is no scenario {name}: there are {}; `replay` runs files", names.join(", "));
        return Err(Usage(message).into());
    };
    (desk.lab.parse)(text).map_err(|why| anyhow::anyhow!("{name}: {why}"))
}

/// The run that must fail. If it passes, a world that finds nothing proves nothing: exit code 1.
fn canary(args: &Run, desk: &mut Desk<'_>, options: Options, one: (Origin, Scenario)) -> anyhow::Result<u8> {
    let case = bench::case(desk.lab, one.0, one.1, options);
    desk.tell(&case, args.common.json, args.log)?;
    match &case.report.failure {
        Some(failure) if failure.invariant == sentences::CANARY => Ok(failure.kind.exit_code()),
        _ => anyhow::bail!("the canary is alive: an invariant that is false was not found broken"),
    }
}

/// Runs them all, tells of each in order, shrinks the first failure of each kind. The exit code is that of the first
/// failure.
fn tell_all(
    args: &Run,
    desk: &mut Desk<'_>,
    options: Options,
    what: impl Iterator<Item = (Origin, Scenario)> + Send,
) -> anyhow::Result<u8> {
    let lab = desk.lab;
    let (mut kinds, mut codes, mut kept) = (BTreeSet::new(), Vec::new(), Vec::new());
    let mut sum = Sum::default();
    bench::in_order(
        args.common.jobs(),
        what,
        |(origin, scenario)| bench::case(lab, origin, scenario, options),
        |mut case| {
            let bad = !case.verdict().is_good();
            let known =
                |case: &Case| case.report.failure.as_ref().is_some_and(|f| kinds.contains(&f.signature()));
            if bad && known(&case) && !args.common.json {
                // Told in full once; the line is enough from then on.
                writeln!(desk.out, "{}", report::human::line(&case))?;
            } else {
                if let Some(failure) = case.report.failure.as_ref().filter(|_| bad) {
                    let first = kinds.insert(failure.signature());
                    if first && kinds.len() <= SHRUNK_MAX && args.shrink_seconds > 0 {
                        let within = Duration::from_secs(args.shrink_seconds);
                        let quiet = Options { log: None, ..options };
                        case.minimal = Some(bench::minimise(lab, &case.scenario, quiet, TRIES, within));
                    }
                }
                desk.tell(&case, args.common.json, args.log)?;
            }
            codes.push(case.exit_code());
            sum.add(&case);
            if args.junit.is_some() {
                kept.push(light(case));
            }
            Ok(())
        },
    )?;
    if let Some(path) = &args.junit {
        std::fs::write(path, report::junit::document("tidegate-sim run", &kept))
            .with_context(|| format!("writing {}", path.display()))?;
    }
    if sum.runs > 1 && !args.common.json {
        write!(desk.out, "{}", sum.text())?;
    }
    Ok(report::first_bad(codes))
}

/// What many runs came to, in a few lines at the end.
#[derive(Debug, Default)]
struct Sum {
    runs: u64,
    events: u64,
    /// By signature: how many, and names of the first ones.
    failed: BTreeMap<String, (u64, Vec<String>)>,
}

/// Names that are told of each kind of failure.
const NAMES_MAX: usize = 8;

impl Sum {
    fn add(&mut self, case: &Case) {
        self.runs += 1;
        self.events += case.report.events;
        if case.verdict().is_good() {
            return;
        }
        let signature = case.report.failure.as_ref().map_or_else(|| "passes".to_string(), |f| f.signature());
        let (times, names) = self.failed.entry(signature).or_default();
        *times += 1;
        if names.len() < NAMES_MAX {
            names.push(case.name());
        }
    }

    fn text(&self) -> String {
        let failed: u64 = self.failed.values().map(|(times, _)| times).sum();
        let mut out = format!("{} runs, {} events, {failed} failed\n", self.runs, self.events);
        for (signature, (times, names)) in &self.failed {
            let more = if *times > names.len() as u64 { ", ..." } else { "" };
            out += &format!("  {signature:<22} {times:>5}  {}{more}\n", names.join(", "));
        }
        out
    }
}

/// The case without what only coverage reads: thousands of them wait for the end.
pub fn light(mut case: Case) -> Case {
    case.report.states.clear();
    case.report.transitions.clear();
    case.report.pairs.clear();
    if case.verdict().is_good() {
        case.report.log.clear();
    }
    case
}
