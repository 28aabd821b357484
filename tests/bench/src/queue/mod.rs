//! `queue`: durable enqueue, claim and complete per second with so many callers, through the real driver and the real
//! store, next to the same transitions on SQLite. Owns the turns and the table; the two sides are in `ours` and `sqlite`.

mod counted;
mod ours;
mod sqlite;

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use crate::Bench;
use crate::table::{Cell, Table, median, number, quantile, spread};
use crate::upload::process;

/// What `queue` can be told.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Callers that enqueue at once, each its next as soon as the last is acknowledged.
    #[arg(long, value_delimiter = ',', default_values_t = CALLERS)]
    callers: Vec<usize>,
    /// Jobs of one round; a quarter of them with fewer than 16 callers, and a quarter again of those where each transition is
    /// a transaction of its own.
    #[arg(long, default_value_t = JOBS, value_parser = clap::value_parser!(u64).range(16..=20_000))]
    jobs: u64,
    /// Bytes that the site's journal may have. The default is so small that it is full and moves on all the time, as that
    /// of a site that has run for days.
    #[arg(long, default_value_t = JOURNAL, value_name = "BYTES")]
    journal: u64,
}

const CALLERS: [usize; 4] = [1, 16, 64, 256];
const JOBS: u64 = 4000;
const JOURNAL: u64 = 4 << 20;
/// Jobs that may be claimed and not completed at once: the most that the product allows.
const CLAIMED_MAX: u32 = 64;
/// Transitions of a job that both sides make durable: enqueue, claim, complete.
const TRANSITIONS: f64 = 3.0;

impl Default for Options {
    fn default() -> Options {
        Options { callers: CALLERS.to_vec(), jobs: JOBS, journal: JOURNAL }
    }
}

/// One round of one side.
#[derive(Clone, Debug)]
struct Sample {
    /// From the first enqueue to the last durable completion.
    took: Duration,
    jobs: u64,
    /// Of each enqueue, from the call to its durable acknowledgement.
    acks: Vec<Duration>,
    commits: u64,
    /// Flushes that were counted; SQLite's of checkpoints are not.
    syncs: u64,
    /// Bytes that the process wrote, counted at its calls.
    written: u64,
    /// CPU seconds of the process.
    cpu: f64,
    /// Steps of the core; 0 where there is none.
    steps: u64,
}

/// What the process spent so far.
#[derive(Clone, Copy, Debug)]
struct Spent {
    written: u64,
    cpu: f64,
}

impl Spent {
    fn now() -> Spent {
        Spent { written: process::written("self").unwrap_or(0), cpu: process::cpu("self").unwrap_or(0.0) }
    }

    fn since(self, before: Spent) -> Spent {
        Spent { written: self.written.saturating_sub(before.written), cpu: self.cpu - before.cpu }
    }
}

/// Measures and tells.
pub fn run(bench: &Bench, options: &Options, tell: &mut dyn FnMut(Table)) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let (seeds, round_dir) = (bench.dir.path().join("seeds"), bench.dir.path().join("round"));
    fs::create_dir(&seeds)?;
    runtime.block_on(ours::seed(&seeds.join("ours"), options.jobs, options.journal))?;
    fs::create_dir(seeds.join("sqlite"))?;
    sqlite::seed(&seeds.join("sqlite"), options.jobs).map_err(io::Error::other)?;

    let columns = [
        "callers and store",
        "transitions/s",
        "all rounds",
        "ours to it",
        "enqueue p50 ms",
        "p99 ms",
        "commits/job",
        "syncs/job",
        "KiB written/job",
        "CPU ms/job",
    ];
    let mut table = Table::new("Queue: durable enqueue, claim, complete", &columns);
    let mut steps_per_job = f64::NAN;
    for &callers in &options.callers {
        let jobs = if callers < 16 { options.jobs / 4 } else { options.jobs };
        let mut sides: [(&str, Vec<Sample>); 3] = [
            ("tidegate", Vec::new()),
            ("SQLite, one per transaction", Vec::new()),
            ("SQLite, batched", Vec::new()),
        ];
        for round in 0..bench.rounds as usize {
            // The order turns with every round, so that none is always the first.
            for turn in 0..sides.len() {
                let side = (turn + round) % sides.len();
                let seed = seeds.join(if side == 0 { "ours" } else { "sqlite" });
                copy_dir(&seed, &round_dir)?;
                let sample = match side {
                    0 => runtime.block_on(ours::round(&round_dir, callers, jobs, options.journal))?,
                    // A flush for each transition: a quarter of the jobs takes as long and shows as much.
                    1 => runtime.block_on(sqlite::round(&round_dir, callers, jobs / 4, 1))?,
                    _ => runtime.block_on(sqlite::round(&round_dir, callers, jobs, BATCH_MAX))?,
                };
                sides[side].1.push(sample);
                fs::remove_dir_all(&round_dir)?;
            }
        }
        let ours = sides[0].1.clone();
        steps_per_job = middle(&ours, |s| s.steps as f64 / s.jobs as f64);
        for (name, samples) in &sides {
            table.row(row(&format!("{callers}, {name}"), samples, &ours));
        }
    }
    table.note(format!(
        "A transition is one of enqueue, claim, complete; {TRANSITIONS} make a job. Every one is durable before it is told. \
         The object store answers at once, so that transitions are measured and no network. Up to {CLAIMED_MAX} jobs are \
         claimed at once on either side. \"Ours to it\" is the median of the ratios of rounds, above 1 is faster."
    ));
    table.note(format!(
        "Tidegate takes {steps_per_job:.1} steps for a job (asked for; looked at, sent, verified in the store) and writes \
         more than three rows: the episode, the upload session, and a journal entry for every input, which a replay needs. \
         SQLite keeps the job and the mark of its episode in rows of {} bytes, and no journal.",
        sqlite::ROW_BYTES
    ));
    table.note(format!(
        "SQLite: WAL, synchronous=FULL, one writer thread that drains a channel of requests, at most 1 or {BATCH_MAX} of \
         them in a transaction; flushes of its checkpoints are not counted as syncs."
    ));
    tell(table);
    Ok(())
}

fn row(name: &str, samples: &[Sample], ours: &[Sample]) -> Vec<Cell> {
    let rate = |s: &Sample| TRANSITIONS * s.jobs as f64 / s.took.as_secs_f64();
    let rates: Vec<f64> = samples.iter().map(rate).collect();
    let ratio = median(ours.iter().zip(samples).map(|(ours, theirs)| rate(ours) / rate(theirs)));
    let ack = |share| middle(samples, |s| quantile(s.acks.iter().map(Duration::as_secs_f64), share) * 1e3);
    let per_job = |value: fn(&Sample) -> f64| middle(samples, |s| value(s) / s.jobs as f64);
    vec![
        name.into(),
        number(median(rates.iter().copied()), 0),
        spread(&rates, 0),
        number(ratio, 2),
        number(ack(0.5), 2),
        number(ack(0.99), 2),
        number(per_job(|s| s.commits as f64), 3),
        number(per_job(|s| s.syncs as f64), 3),
        number(per_job(|s| s.written as f64 / 1024.0), 1),
        number(per_job(|s| s.cpu * 1e3), 3),
    ]
}

fn middle(samples: &[Sample], value: impl Fn(&Sample) -> f64) -> f64 {
    median(samples.iter().map(value))
}

fn copy_dir(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        fs::copy(entry.path(), to.join(entry.file_name()))?;
        fs::File::open(to.join(entry.file_name()))?.sync_all()?;
    }
    Ok(())
}

/// Transitions of one transaction of the batched side: as many as letters of one batch of the driver.
const BATCH_MAX: usize = tidegate_runtime::driver::BATCH_MAX;
