//! `replay`: scenario files, each of which must pass or fail as it says.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use tidegate_core::bug::PLANTED;
use tidegate_sim::report::{self, Origin};
use tidegate_sim::run::Options;
use tidegate_sim::scenario::Scenario;

use super::{Common, Desk, bench, run};

const EXAMPLES: &str = "Examples:
  tidegate-sim replay sim/corpus/i18-object-done-kill.toml --log
  tidegate-sim replay --corpus sim/corpus --junit target/corpus.xml";

/// Arguments of `replay`.
#[derive(Debug, Default, Args)]
#[command(after_help = EXAMPLES)]
pub struct Replay {
    /// Scenario files, or folders of them
    #[arg(required_unless_present = "corpus", value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// A folder of them; those with a planted bug are left out in a build without
    #[arg(long, value_name = "DIR")]
    pub corpus: Option<PathBuf>,
    /// Print everything that happens
    #[arg(long)]
    pub log: bool,
    /// Write JUnit's XML
    #[arg(long, value_name = "FILE")]
    pub junit: Option<PathBuf>,
    /// What several commands take
    #[command(flatten)]
    pub common: Common,
}

/// Carries it out.
///
/// # Errors
/// Files that cannot be read or are no scenarios; a planted bug in a build without.
pub fn replay(args: &Replay, desk: &mut Desk<'_>) -> anyhow::Result<u8> {
    let mut all = Vec::new();
    for path in args.files.iter().filter(|path| !path.is_dir()) {
        let scenario = read(desk, path)?;
        super::needs_planted(scenario.bug)?;
        all.push((path.display().to_string(), scenario));
    }
    let mut left_out = 0;
    for folder in args.corpus.iter().chain(args.files.iter().filter(|path| path.is_dir())) {
        for path in files(folder)? {
            let scenario = read(desk, &path)?;
            if scenario.bug.is_some() && !PLANTED {
                left_out += 1;
            } else {
                all.push((path.display().to_string(), scenario));
            }
        }
    }
    let lab = desk.lab;
    let options = Options { log: Some(args.log), ..Options::default() };
    let (mut codes, mut kept) = (Vec::new(), Vec::new());
    bench::in_order(
        args.common.jobs(),
        all.into_iter(),
        |(path, scenario)| bench::case(lab, Origin::File(path), scenario, options),
        |case| {
            desk.tell(&case, args.common.json, args.log)?;
            codes.push(case.exit_code());
            kept.push(run::light(case));
            Ok(())
        },
    )?;
    if let Some(path) = &args.junit {
        std::fs::write(path, report::junit::document("tidegate-sim replay", &kept))
            .with_context(|| format!("writing {}", path.display()))?;
    }
    if !args.common.json {
        let bad = codes.iter().filter(|code| **code != 0).count();
        writeln!(
            desk.out,
            "{} replayed, {bad} not as expected, {left_out} left out (planted bugs)",
            codes.len()
        )?;
    }
    Ok(report::first_bad(codes))
}

/// Reads a scenario file.
///
/// # Errors
/// If it cannot be read or is none.
pub fn read(desk: &Desk<'_>, path: &Path) -> anyhow::Result<Scenario> {
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    (desk.lab.parse)(&text).map_err(|why| anyhow::anyhow!("{}: {why}", path.display()))
}

/// The scenario files of a folder, by name. A folder that does not exist is an error: a corpus that is not looked at
/// proves nothing.
///
/// # Errors
/// If it cannot be read.
pub fn files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|ext| ext == "toml") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
