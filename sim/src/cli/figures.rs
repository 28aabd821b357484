//! `figures`: how fast this build is on this machine. CPU time of one thread; the wall clock says nothing on a shared one.

use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};
use tidegate_sim::report::Origin;
use tidegate_sim::run::{DriverBug, Options};
use tidegate_sim::scenario::Scenario;
use tidegate_sim::shrink::Shrunk;

use super::{Desk, bench, bench::Meter};

const EXAMPLES: &str = "Examples:
  tidegate-sim figures
  cargo run -q --release -p tidegate-sim -- figures --seeds 2000";

/// Arguments of `figures`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Figures {
    /// Ordinary seeds that are run; of the idle and busy shapes a tenth of it
    #[arg(long, value_name = "N", default_value_t = 300)]
    pub seeds: u64,
    /// Failures that are shrunk: the first ones that bugs of the world's own driver cause
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub shrunk: usize,
    /// One JSON object instead of words
    #[arg(long)]
    pub json: bool,
}

/// What makes a scenario of a seed.
type Plan = fn(u64) -> Scenario;

/// What runs of one kind cost.
struct Cost {
    runs: u64,
    events: u64,
    simulated: Duration,
    cpu: Duration,
    /// The same runs without any invariant.
    blind: Duration,
}

impl Cost {
    fn events_a_second(&self) -> f64 {
        self.events as f64 / self.cpu.as_secs_f64().max(1e-9)
    }

    /// Simulated time for the same time of CPU.
    fn times_real(&self) -> f64 {
        self.simulated.as_secs_f64() / self.cpu.as_secs_f64().max(1e-9)
    }

    /// The share of the checks in the time, in percent.
    fn checks(&self) -> f64 {
        100.0 * (1.0 - self.blind.as_secs_f64() / self.cpu.as_secs_f64().max(1e-9))
    }

    fn json(&self) -> Value {
        json!({
            "runs": self.runs,
            "events": self.events,
            "cpu_s": self.cpu.as_secs_f64(),
            "events_per_s": self.events_a_second(),
            "simulated_h_per_cpu_h": self.times_real(),
            "checks_percent": self.checks(),
        })
    }
}

/// Carries it out. Judges nothing: a run that fails counts as far as it came.
///
/// # Errors
/// If nothing can be written.
pub fn figures(args: &Figures, desk: &mut Desk<'_>) -> anyhow::Result<u8> {
    let lab = desk.lab;
    let tenth = args.seeds.div_ceil(10);
    let kinds: [(&str, Plan, u64); 3] =
        [("ordinary", lab.plan, args.seeds), ("busy", lab.busy, tenth), ("idle", lab.idle, tenth)];
    let build = if cfg!(debug_assertions) { "dev" } else { "release" };
    let mut value = json!({"type": "figures", "build": build});
    if !args.json {
        writeln!(desk.out, "{build} build, one thread, CPU time")?;
        writeln!(
            desk.out,
            "{:<10} {:>6} {:>10} {:>9} {:>11} {:>22} {:>8}",
            "runs", "", "events", "CPU s", "events/s", "simulated h per CPU h", "checks"
        )?;
    }
    for (name, plan, runs) in kinds {
        let cost = measure(desk, plan, runs);
        if args.json {
            value[name] = cost.json();
            continue;
        }
        writeln!(
            desk.out,
            "{name:<10} {:>6} {:>10} {:>9.2} {:>11.0} {:>22.0} {:>6.0} %",
            cost.runs,
            cost.events,
            cost.cpu.as_secs_f64(),
            cost.events_a_second(),
            cost.times_real(),
            cost.checks()
        )?;
        desk.out.flush()?;
    }
    let shrunk = shrink(desk, args.shrunk);
    if args.json {
        value["shrink"] = told(&shrunk);
        desk.json(&value)?;
    } else if !shrunk.is_empty() {
        let told = told(&shrunk);
        writeln!(
            desk.out,
            "shrinking  {} failures: from {} to {} events (median), in {:.2} s (median), {:.2} s (longest), {} runs (median)",
            told["failures"],
            told["events_before_median"],
            told["events_after_median"],
            told["s_median"].as_f64().unwrap_or_default(),
            told["s_max"].as_f64().unwrap_or_default(),
            told["tries_median"],
        )?;
    }
    Ok(0)
}

/// Each seed is run twice, with and without checks, one after the other, so that a machine that gets slower slows both.
fn measure(desk: &Desk<'_>, plan: Plan, runs: u64) -> Cost {
    let nothing = Duration::ZERO;
    let mut cost = Cost { runs, events: 0, simulated: nothing, cpu: nothing, blind: nothing };
    for seed in 1..=runs {
        let time = |options| {
            let scenario = plan(seed);
            let meter = Meter::start();
            let case = bench::case(desk.lab, Origin::Seed(seed), scenario, options);
            (meter.read(), case.report)
        };
        let (cpu, report) = time(Options::default());
        let (blind, _) = time(Options { blind: true, ..Options::default() });
        cost.events += report.events;
        cost.simulated += report.simulated;
        cost.cpu += cpu;
        // Without checks a failing run goes on for longer than with them: it says nothing about their cost.
        cost.blind += if report.failure.is_some() { cpu } else { blind };
    }
    cost
}

/// Seeds that are tried for one failure to shrink.
const HUNTED_MAX: u64 = 2_000;

fn shrink(desk: &Desk<'_>, most: usize) -> Vec<Shrunk> {
    let options = Options { driver: Some(DriverBug::B28), ..Options::default() };
    let mut shrunk = Vec::new();
    for seed in 1..=HUNTED_MAX {
        if shrunk.len() >= most {
            break;
        }
        let scenario = (desk.lab.plan)(seed);
        let found = bench::case(desk.lab, Origin::Seed(seed), scenario.clone(), options);
        let sound = bench::case(desk.lab, Origin::Seed(seed), scenario.clone(), Options::default());
        if found.report.failure.is_some() && sound.report.failure.is_none() {
            shrunk.push(bench::minimise(desk.lab, &scenario, options, 100_000, Duration::from_secs(60)).0);
        }
    }
    shrunk
}

fn told(shrunk: &[Shrunk]) -> Value {
    fn median<T: Copy + PartialOrd>(mut all: Vec<T>) -> Option<T> {
        all.sort_by(|a, b| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal));
        all.get(all.len() / 2).copied()
    }
    let seconds = || shrunk.iter().map(|one| one.elapsed.as_secs_f64());
    json!({
        "failures": shrunk.len(),
        "events_before_median": median(shrunk.iter().map(|one| one.events_before).collect()),
        "events_after_median": median(shrunk.iter().map(|one| one.events_after).collect()),
        "tries_median": median(shrunk.iter().map(|one| one.tries).collect()),
        "s_median": median(seconds().collect()),
        "s_max": seconds().fold(0.0, f64::max),
    })
}
