//! `coverage`: what many seeds reach, how that grows, and what they never do.

use clap::Args;
use tidegate_sim::report::tally::{Catalogue, Tally};
use tidegate_sim::report::{Origin, first_bad};
use tidegate_sim::run::Options;

use super::{Common, Desk, bench, list};

const EXAMPLES: &str = "Examples:
  tidegate-sim coverage --seeds 5000
  tidegate-sim coverage --seeds 20000 --strict      (1 if a mark, an invariant or a fault never came)";

/// Arguments of `coverage`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Coverage {
    /// Seeds from A to B, without B; or the first N
    #[arg(long, value_name = "N", value_parser = super::seeds)]
    pub seeds: std::ops::Range<u64>,
    /// Fail if a mark was never hit, an invariant had nothing to check, or a fault never did anything
    #[arg(long)]
    pub strict: bool,
    /// What several commands take
    #[command(flatten)]
    pub common: Common,
}

/// Everything this build can reach.
pub fn catalogue(desk: &Desk<'_>) -> Catalogue {
    let mut faults: Vec<&'static str> = list::FAULTS.iter().map(|fault| fault.word).collect();
    faults.dedup();
    let marks = desk.lab.marks.iter().map(|(id, _)| *id).collect();
    Catalogue { marks, invariants: (desk.lab.invariants)(), faults }
}

/// Carries it out. Runs that fail count for what they reached, and decide the exit code.
///
/// # Errors
/// If nothing can be written.
pub fn coverage(args: &Coverage, desk: &mut Desk<'_>) -> anyhow::Result<u8> {
    let lab = desk.lab;
    let (mut tally, mut codes) = (Tally::default(), Vec::new());
    bench::in_order(
        args.common.jobs(),
        args.seeds.clone(),
        |seed| bench::case(lab, Origin::Seed(seed), (lab.plan)(seed), Options::default()),
        |case| {
            tally.add(&case.report);
            codes.push(case.exit_code());
            Ok(())
        },
    )?;
    let gaps = tally.gaps(&catalogue(desk));
    let failed = codes.iter().filter(|code| **code != 0).count();
    if args.common.json {
        let mut value = tally.json(&gaps);
        value["failed"] = failed.into();
        desk.json(&value)?;
    } else {
        write!(desk.out, "{}", tally.text(&gaps))?;
        writeln!(desk.out, "{:<14}{failed}", "failed runs")?;
    }
    Ok(match first_bad(codes) {
        0 => u8::from(args.strict && !gaps.is_empty()),
        code => code,
    })
}
