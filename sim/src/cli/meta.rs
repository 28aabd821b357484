//! `meta`: the same seeds in two processes that live differently. The hidden `trail` is what each of them does.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context as _;
use clap::Args;
use serde_json::json;
use tidegate_sim::meta::{self, Difference, EVERY, Trail};
use tidegate_sim::report::Origin;
use tidegate_sim::run::{FailureKind, Options};
use tidegate_sim::scenario::Scenario;

use super::{Desk, bench, planted};

const EXAMPLES: &str = "Examples:
  tidegate-sim meta --seeds 20
  tidegate-sim meta --seeds 7..8 --bug B29        (a build with TIDEGATE_BUGS=1; must exit with 13)";

/// Pairs of processes that are started to find the very event.
const TRIES: u32 = 8;

/// Arguments of `meta`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Meta {
    /// Seeds from A to B, without B; or the first N
    #[arg(long, value_name = "N", value_parser = super::seeds, default_value = "20")]
    pub seeds: std::ops::Range<u64>,
    /// Plant this bug in both
    #[arg(long, value_name = "ID")]
    pub bug: Option<String>,
    /// One JSON object instead of words
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `trail`.
#[derive(Debug, Args)]
pub struct TrailOf {
    /// Seeds from A to B, without B
    #[arg(long, value_parser = super::seeds)]
    pub seeds: std::ops::Range<u64>,
    /// How far apart checkpoints are
    #[arg(long, default_value_t = EVERY)]
    pub every: u64,
    /// The last seed first: what one run leaves behind must not reach the next
    #[arg(long)]
    pub reverse: bool,
    /// Leave the heap as a long life does: full of holes, so that what is asked for in order lies in disorder
    #[arg(long)]
    pub holes: bool,
    /// Keep another thread busy meanwhile
    #[arg(long)]
    pub busy: bool,
    /// Plant this bug
    #[arg(long)]
    pub bug: Option<String>,
}

/// Carries it out: 0 if all runs are the same in both, 13 otherwise.
///
/// # Errors
/// Usage, and processes that cannot be started or end in any other way.
pub fn meta(args: &Meta, desk: &mut Desk<'_>) -> anyhow::Result<u8> {
    planted(args.bug.as_deref())?;
    let found = differs(&desk.program, args.seeds.clone(), args.bug.as_deref())?;
    let seeds = args.seeds.end - args.seeds.start;
    if args.json {
        let differs = found.as_ref().map(|d| {
            json!({"seed": d.seed, "event": d.event, "same_until": d.same_until, "first": d.first, "second": d.second})
        });
        desk.json(&json!({"type": "meta", "seeds": seeds, "equal": found.is_none(), "differs": differs}))?;
    } else if let Some(d) = &found {
        writeln!(desk.out, "seed {} differs at event {} (alike until {})", d.seed, d.event, d.same_until)?;
        writeln!(desk.out, "  one process    {}", d.first)?;
        writeln!(desk.out, "  the other      {}", d.second)?;
        writeln!(
            desk.out,
            "  in the other the environment, the directory, the heap, the order of seeds and the load differ"
        )?;
    } else {
        writeln!(
            desk.out,
            "{seeds} seeds are the same in two processes, at every {EVERY} events and at the end"
        )?;
    }
    Ok(if found.is_some() { FailureKind::NonDeterminism.exit_code() } else { 0 })
}

/// The first seed that differs between two processes, and where.
///
/// # Errors
/// As [`meta`].
pub fn differs(
    program: &Path,
    seeds: std::ops::Range<u64>,
    bug: Option<&str>,
) -> anyhow::Result<Option<Difference>> {
    let Some(coarse) = compare_all(program, seeds, bug, EVERY)? else { return Ok(None) };
    // Again with a checkpoint at every event. What differs by chance need not differ each time: a few tries, and if none
    // parts, what is known is the stretch.
    for _ in 0..TRIES {
        if let Some(fine) = compare_all(program, coarse.seed..coarse.seed + 1, bug, 1)? {
            return Ok(Some(fine));
        }
    }
    Ok(Some(coarse))
}

fn compare_all(
    program: &Path,
    seeds: std::ops::Range<u64>,
    bug: Option<&str>,
    every: u64,
) -> anyhow::Result<Option<Difference>> {
    let (one, two) = std::thread::scope(|scope| {
        let other = scope.spawn(|| tell(started(program, &seeds, bug, every, true)));
        let one = tell(started(program, &seeds, bug, every, false));
        (one, other.join())
    });
    let two = two.map_err(|_| anyhow::anyhow!("reading the second process panicked"))?;
    let (one, two): (BTreeMap<u64, Trail>, BTreeMap<u64, Trail>) = (one?, two?);
    anyhow::ensure!(one.len() == two.len(), "the processes did not run the same seeds");
    Ok(one.iter().find_map(|(seed, trail)| match two.get(seed) {
        Some(other) => meta::compare(*seed, trail, other),
        None => meta::compare(*seed, trail, &Trail::default()),
    }))
}

fn started(
    program: &Path,
    seeds: &std::ops::Range<u64>,
    bug: Option<&str>,
    every: u64,
    odd: bool,
) -> Command {
    let mut command = Command::new(program);
    command.arg("trail").args(["--seeds", &format!("{}..{}", seeds.start, seeds.end)]);
    command.args(["--every", &every.to_string()]).args(bug.map(|id| format!("--bug={id}")));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    if odd {
        // What a process may depend on without knowing: where it stands, what it inherits (which also moves its stack),
        // what ran before, how its heap looks, and who else runs.
        command.args(["--reverse", "--holes", "--busy"]).current_dir(std::env::temp_dir());
        command
            .env("TZ", "Pacific/Chatham")
            .env("LANG", "tr_TR.UTF-8")
            .env("HOME", "/")
            .env("RUST_BACKTRACE", "0");
        command.env("TIDEGATE_SIM_PADDING", "x".repeat(7919));
    }
    command
}

fn tell(mut command: Command) -> anyhow::Result<BTreeMap<u64, Trail>> {
    let output = command.output().with_context(|| format!("starting {}", command.get_program().display()))?;
    let errors = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "a process ended with {}: {}", output.status, errors.trim());
    let text = String::from_utf8(output.stdout).context("a trail is text")?;
    meta::read(&text).map_err(anyhow::Error::msg)
}

/// Carries out `trail`: runs seeds and tells the checkpoints of each. Runs that fail are told too, not judged.
///
/// # Errors
/// If nothing can be written.
pub fn trail(args: &TrailOf, desk: &mut Desk<'_>) -> anyhow::Result<u8> {
    let planted = planted(args.bug.as_deref())?;
    let options = Options { checkpoints: args.every, driver: planted.driver, ..Options::default() };
    let mut seeds: Vec<u64> = args.seeds.clone().collect();
    if args.reverse {
        seeds.reverse();
    }
    let kept = if args.holes { holes() } else { Vec::new() };
    let done = AtomicBool::new(!args.busy);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut n = 0_u64;
            while !done.load(Ordering::Relaxed) {
                n = std::hint::black_box(n.wrapping_add(1));
            }
        });
        let told = seeds.into_iter().try_for_each(|seed| {
            let scenario = Scenario { bug: planted.bug, ..(desk.lab.plan)(seed) };
            let case = bench::case(desk.lab, Origin::Seed(seed), scenario, options);
            desk.out.write_all(Trail::of(&case.report).lines(seed).as_bytes())
        });
        done.store(true, Ordering::Relaxed);
        told
    })?;
    drop(std::hint::black_box(kept));
    Ok(0)
}

/// Blocks of many sizes, of which every other one, in no order, is given back: what is kept holds the holes open.
fn holes() -> Vec<Vec<u8>> {
    const BLOCKS: usize = 20_000;
    let mut blocks: Vec<Option<Vec<u8>>> = (0..BLOCKS).map(|n| Some(vec![0; 16 + n * 48 % 1200])).collect();
    // A step that shares no divisor with the number of blocks visits each of them once.
    for n in 0..BLOCKS / 2 {
        blocks[n * 7919 % BLOCKS] = None;
    }
    blocks.into_iter().flatten().collect()
}
