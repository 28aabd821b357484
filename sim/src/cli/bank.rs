//! `bank`: hunts every planted bug in ordinary runs, several times, and says what found it.

use clap::Args;
use tidegate_sim::bank::table::{self, Entry, Way};
use tidegate_sim::bank::{self, Hunt, Outcome, Verdict};
use tidegate_sim::report::Origin;
use tidegate_sim::run::Options;
use tidegate_sim::scenario::Scenario;

use super::{Common, Desk, Usage, bench, bench::Meter, meta};

const EXAMPLES: &str = "Examples (bugs are in a build of their own):
  TIDEGATE_BUGS=1 cargo run --target-dir target/bugs -p tidegate-sim -- bank
  ... bank --bug B14 --bug H02 --seeds 5000
  ... bank --markdown > table.md";

/// Arguments of `bank`.
#[derive(Debug, Default, Args)]
#[command(after_help = EXAMPLES)]
pub struct Bank {
    /// Only this one; may be given several times
    #[arg(long, value_name = "ID")]
    pub bug: Vec<String>,
    /// Seeds of one hunt at most
    #[arg(long, value_name = "MAX", default_value_t = 2000)]
    pub seeds: u64,
    /// Hunts for each bug, each from another first seed
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub runs: u64,
    /// The table as it stands in the documentation
    #[arg(long)]
    pub markdown: bool,
    /// What several commands take
    #[command(flatten)]
    pub common: Common,
}

/// Carries it out: 0 if each is found by an invariant that is accepted for it, 1 otherwise.
///
/// # Errors
/// Usage (a build without bugs among it), and processes that cannot be started.
pub fn bank(args: &Bank, desk: &mut Desk<'_>, compiled: bool) -> anyhow::Result<u8> {
    let entries = chosen(&args.bug)?;
    if !compiled {
        let how = tidegate_sim::report::command(true);
        return Err(Usage(format!("this build has no bugs to hunt; build and run with\n  {how}bank")).into());
    }
    if !args.markdown && !args.common.json {
        writeln!(desk.out, "{}", bank::head())?;
    }
    let mut outcomes: Vec<Outcome> =
        entries.into_iter().map(|entry| Outcome { entry, hunts: Vec::new() }).collect();
    let hunts: Vec<(usize, u64)> = (0..outcomes.len())
        .filter(|at| outcomes[*at].entry.later.is_none())
        .flat_map(|at| (0..args.runs.max(1)).map(move |n| (at, n)))
        .collect();
    let list: Vec<&'static Entry> = outcomes.iter().map(|outcome| outcome.entry).collect();
    let (lab, program, seeds) = (desk.lab, desk.program.clone(), args.seeds);
    let mut told = 0;
    bench::in_order(
        args.common.jobs(),
        hunts.into_iter(),
        |(at, n)| {
            let entry = list[at];
            let hunt = if bank::is_meta(entry) {
                apart(&program, entry, n, seeds)
            } else {
                Ok(broken(lab, entry, n, seeds))
            };
            (at, hunt)
        },
        |(at, hunt)| {
            outcomes[at].hunts.push(hunt?);
            // Told as soon as the last hunt of it is over; those that come later in passing.
            while told < outcomes.len()
                && (list[told].later.is_some() || outcomes[told].hunts.len() as u64 == args.runs.max(1))
            {
                tell(args, desk, &outcomes[told])?;
                told += 1;
            }
            Ok(())
        },
    )?;
    for outcome in &outcomes[told..] {
        tell(args, desk, outcome)?;
    }
    if args.markdown {
        write!(desk.out, "{}", bank::markdown(&outcomes))?;
    }
    let good = |outcome: &Outcome| matches!(outcome.verdict(), Verdict::Found | Verdict::Later);
    let bad = outcomes.iter().filter(|outcome| !good(outcome)).count();
    if !args.markdown && !args.common.json {
        let later = outcomes.iter().filter(|outcome| outcome.verdict() == Verdict::Later).count();
        let hunted = outcomes.len() - later;
        writeln!(
            desk.out,
            "{hunted} hunted, {} found as expected, {bad} not, {later} come later",
            hunted - bad
        )?;
    }
    Ok(u8::from(bad > 0))
}

fn tell(args: &Bank, desk: &mut Desk<'_>, outcome: &Outcome) -> anyhow::Result<()> {
    if args.markdown {
        return Ok(());
    }
    if args.common.json {
        return desk.json(&outcome.json());
    }
    writeln!(desk.out, "{}", outcome.line())?;
    desk.out.flush()?;
    Ok(())
}

fn chosen(ids: &[String]) -> anyhow::Result<Vec<&'static Entry>> {
    if ids.is_empty() {
        return Ok(table::ALL.iter().collect());
    }
    let find = |id: &String| {
        table::find(id)
            .ok_or_else(|| Usage(format!("there is no bug {id}; `tidegate-sim list` has them")).into())
    };
    ids.iter().map(find).collect()
}

/// Ordinary runs until an invariant breaks.
fn broken(lab: super::Lab, entry: &Entry, n: u64, max: u64) -> Hunt {
    let driver = match entry.way {
        Way::World(driver) => Some(driver),
        Way::Core | Way::Meta => None,
    };
    let meter = Meter::start();
    let run = |seed: u64, bug, driver| {
        let scenario = Scenario { bug, ..(lab.plan)(seed) };
        let case = bench::case(lab, Origin::Seed(seed), scenario, Options { driver, ..Options::default() });
        case.report.failure.map(|failure| failure.invariant)
    };
    let hunt = bank::hunt(bank::first_seed(n), max, &mut |seed| run(seed, entry.bug, driver), &mut |seed| {
        run(seed, None, None).is_some()
    });
    Hunt { cpu: meter.read(), ..hunt }
}

/// Each seed in two processes until they differ. What is measured is the wall clock: the work is done elsewhere.
fn apart(program: &std::path::Path, entry: &Entry, n: u64, max: u64) -> anyhow::Result<Hunt> {
    let begun = std::time::Instant::now();
    let mut failed = None;
    let mut differs = |seed, bug| match meta::differs(program, seed..seed + 1, bug) {
        Ok(difference) => difference.is_some(),
        Err(error) => {
            failed = Some(error);
            true
        }
    };
    let hunt = bank::hunt(
        bank::first_seed(n),
        max,
        &mut |seed| differs(seed, Some(entry.id)).then(|| "I28".to_string()),
        // What differs without the bug is a failure of the whole simulator, and `meta` is there to say so.
        &mut |_| false,
    );
    match failed {
        Some(error) => Err(error),
        None => Ok(Hunt { cpu: begun.elapsed(), ..hunt }),
    }
}
