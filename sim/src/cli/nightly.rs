//! `nightly`: fresh seeds on all cores for some minutes; what fails is shrunk and kept in a folder.

use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use clap::Args;
use tidegate_sim::nightly::{Findings, LONG};
use tidegate_sim::report::tally::Tally;
use tidegate_sim::report::{Case, Origin, human, regression};
use tidegate_sim::run::Options;

use super::{Common, Desk, Usage, bench, coverage};

const EXAMPLES: &str = "Examples:
  tidegate-sim nightly --minutes 60
  tidegate-sim nightly --minutes 5 --from 1000000 --out target/found";

/// Arguments of `nightly`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Nightly {
    /// How long to begin new runs
    #[arg(long)]
    pub minutes: f64,
    /// The first seed [default: from the clock, so that no night repeats another]
    #[arg(long, value_name = "SEED")]
    pub from: Option<u64>,
    /// Runs at most
    #[arg(long, value_name = "N")]
    pub most: Option<u64>,
    /// Where failures are kept
    #[arg(long, value_name = "DIR", default_value = "target/nightly")]
    pub out: PathBuf,
    /// Seconds to shrink the first failure of each kind
    #[arg(long, value_name = "S", default_value_t = 60)]
    pub shrink_seconds: u64,
    /// What several commands take
    #[command(flatten)]
    pub common: Common,
}

/// Carries it out: the worst failure's exit code; 1 if a long night left something unreached.
///
/// # Errors
/// Usage, and files that cannot be written.
pub fn nightly(args: &Nightly, desk: &mut Desk<'_>) -> anyhow::Result<u8> {
    let within = Duration::try_from_secs_f64(args.minutes * 60.0)
        .map_err(|_| Usage("--minutes takes a positive number".to_string()))?;
    // Nights a second apart are a million seeds apart, and all fit the numbers of a file.
    let fresh = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |d| d.as_secs() * 1_000_000);
    let from = args.from.unwrap_or_else(fresh);
    let begun = Instant::now();
    if !args.common.json {
        writeln!(desk.out, "seeds from {from}, on {} threads, for {} min", args.common.jobs(), args.minutes)?;
    }
    let lab = desk.lab;
    let (mut tally, mut findings) = (Tally::default(), Findings::default());
    bench::in_order(
        args.common.jobs(),
        (from..from.saturating_add(args.most.unwrap_or(u64::MAX)))
            .take_while(|seed| *seed == from || begun.elapsed() < within),
        |seed| {
            bench::case(
                lab,
                Origin::Seed(seed),
                (lab.plan)(seed),
                Options { log: Some(false), ..Options::default() },
            )
        },
        |case| {
            tally.add(&case.report);
            if let (Some(failure), Origin::Seed(seed)) = (&case.report.failure, &case.origin)
                && findings.note(*seed, failure)
            {
                keep(args, desk, case)?;
            }
            Ok(())
        },
    )?;
    let gaps = tally.gaps(&coverage::catalogue(desk));
    let code = findings.exit_code(&gaps, tally.seeds);
    if args.common.json {
        let mut value = tally.json(&gaps);
        let failures = findings.iter().map(|(signature, finding)| {
            serde_json::json!({"signature": signature, "times": finding.times, "first": finding.seed})
        });
        value["failures"] = failures.collect::<Vec<_>>().into();
        value["from"] = from.into();
        desk.json(&value)?;
        return Ok(code);
    }
    write!(desk.out, "{}", tally.text(&gaps))?;
    let seconds = begun.elapsed().as_secs_f64();
    writeln!(
        desk.out,
        "{:<14}{:.0} events a second in {seconds:.0} s",
        "speed",
        tally.events as f64 / seconds.max(0.001)
    )?;
    for (signature, finding) in findings.iter() {
        writeln!(
            desk.out,
            "{:<14}{signature}: {} times, first by seed {}",
            "failed", finding.times, finding.seed
        )?;
    }
    if findings.is_empty() {
        writeln!(desk.out, "{:<14}no run", "failed")?;
    }
    if !gaps.is_empty() {
        let word = if tally.seeds >= LONG { "which fails a night this long" } else { "too few runs to mind" };
        writeln!(desk.out, "{:<14}something was never reached, {word} (from {LONG} runs on)", "unreached")?;
    }
    Ok(code)
}

/// Shrinks a failure and writes what stays of it: the scenario, a test, and the whole story.
fn keep(args: &Nightly, desk: &mut Desk<'_>, mut case: Case) -> anyhow::Result<()> {
    let Some(failure) = case.report.failure.clone() else { return Ok(()) };
    let mut kept = regression::kept(&case.scenario, &failure);
    if args.shrink_seconds > 0 {
        let within = Duration::from_secs(args.shrink_seconds);
        let (shrunk, text) = bench::minimise(desk.lab, &case.scenario, Options::default(), 100_000, within);
        kept = regression::kept(&shrunk.scenario, &failure);
        case.minimal = Some((shrunk, text));
    }
    std::fs::create_dir_all(&args.out).with_context(|| format!("making {}", args.out.display()))?;
    let write = |extension: &str, text: String| {
        let path = args.out.join(format!("{}.{extension}", kept.name));
        std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
    };
    write("toml", (desk.lab.write)(&kept))?;
    write("rs", regression::test(&kept, &failure))?;
    write("txt", format!("{}\n{}", human::line(&case), human::failure(&case)))?;
    desk.tell(&case, args.common.json, false)
}
