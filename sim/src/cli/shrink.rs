//! `shrink`: the smallest scenario that fails in the same way, and a test for it.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use tidegate_sim::report::{self, Origin, regression};
use tidegate_sim::run::Options;
use tidegate_sim::scenario::Scenario;

use super::{Desk, Usage, bench, planted, replay};

const EXAMPLES: &str = "Examples:
  tidegate-sim shrink --seed 42
  tidegate-sim shrink --seed 42 --out sim/corpus     (a folder: the file is named after what went wrong)
  tidegate-sim shrink failing.toml --minutes 5 --out small.toml";

/// Arguments of `shrink`.
#[derive(Debug, Default, Args)]
#[command(after_help = EXAMPLES, group = clap::ArgGroup::new("what").required(true).multiple(false))]
pub struct Shrink {
    /// A scenario file
    #[arg(group = "what")]
    pub file: Option<PathBuf>,
    /// The scenario of a seed
    #[arg(long, group = "what", value_name = "N")]
    pub seed: Option<u64>,
    /// Plant this bug
    #[arg(long, value_name = "ID")]
    pub bug: Option<String>,
    /// Where to write it: a file, or a folder
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// When to stop at the latest
    #[arg(long, default_value_t = 1.0)]
    pub minutes: f64,
    /// Runs at most
    #[arg(long, default_value_t = 100_000)]
    pub tries: u64,
    /// One JSON object instead of words
    #[arg(long)]
    pub json: bool,
}

/// Carries it out. The exit code is that of the failure that was shrunk; 1 if there was none.
///
/// # Errors
/// Usage, and files that cannot be read or written.
pub fn shrink(args: &Shrink, desk: &mut Desk<'_>) -> anyhow::Result<u8> {
    let planted = planted(args.bug.as_deref())?;
    let (origin, scenario) = match (&args.file, args.seed) {
        (Some(path), _) => (Origin::File(path.display().to_string()), replay::read(desk, path)?),
        (None, Some(seed)) => (Origin::Seed(seed), (desk.lab.plan)(seed)),
        (None, None) => return Err(Usage("a file, or --seed".to_string()).into()),
    };
    let scenario = Scenario { bug: planted.bug.or(scenario.bug), ..scenario };
    super::needs_planted(scenario.bug)?;
    let within = Duration::try_from_secs_f64(args.minutes * 60.0)
        .map_err(|_| Usage("--minutes takes a positive number".to_string()))?;
    let options = Options { driver: planted.driver, ..Options::default() };
    let (shrunk, _) = bench::minimise(desk.lab, &scenario, options, args.tries, within);
    let loud = Options { log: Some(false), ..options };
    let mut case = bench::case(desk.lab, origin, shrunk.scenario.clone(), loud);
    let Some(failure) = case.report.failure.clone() else {
        anyhow::bail!("{} does not fail: nothing to shrink", case.name());
    };
    let kept = regression::kept(&shrunk.scenario, &failure);
    let text = (desk.lab.write)(&kept);
    if let Some(out) = &args.out {
        let path = if out.is_dir() { out.join(format!("{}.toml", kept.name)) } else { out.clone() };
        std::fs::write(&path, &text).with_context(|| format!("writing {}", path.display()))?;
        // From now on the file is what repeats it.
        case.origin = Origin::File(path.display().to_string());
    }
    case.minimal = Some((shrunk, text));
    if args.json {
        let mut value = report::json::run(&case, false);
        value["test"] = regression::test(&kept, &failure).into();
        desk.json(&value)?;
    } else {
        desk.tell(&case, false, false)?;
        if !case.verdict().is_good() {
            writeln!(desk.out, "\nA test for it, beside sim/corpus/{}.toml:\n", kept.name)?;
        }
        write!(desk.out, "{}", regression::test(&kept, &failure))?;
    }
    Ok(failure.kind.exit_code())
}
