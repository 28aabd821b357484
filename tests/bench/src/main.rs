//! `tidegate-bench`: measures the product next to what others use for the same work, in the same run, and prints tables.
//! Owns the command line; asserts nothing about speed.

mod environment;
mod instant;
mod machine;
mod queue;
mod scale;
mod script;
mod table;
mod upload;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use serde_json::json;

use crate::table::Table;

/// Measures Tidegate next to what others use for the same work, in the same run.
///
/// Every table names what was measured and what it leaves out. Quote ratios, not absolute figures: both columns of a
/// ratio were measured by turns on the same machine under the same load. A peer that is not installed is a row that says so.
///
/// Build it optimised:
///   cargo run --release --manifest-path tests/bench/Cargo.toml --target-dir target/bench -- all
#[derive(Debug, Parser)]
#[command(name = "tidegate-bench", version, verbatim_doc_comment)]
struct Args {
    #[command(subcommand)]
    what: What,
    /// Print one JSON document instead of tables.
    #[arg(long, global = true)]
    json: bool,
    /// How often each thing is measured, by turns; medians are printed.
    #[arg(long, global = true, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=99))]
    rounds: u32,
    /// Where files are made, and removed again. The disk under it is what is measured.
    #[arg(long, global = true, value_name = "DIR")]
    dir: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Steps per second of the core on a mixed script, next to writing and reading the same inputs.
    Core(machine::Options),
    /// Durable enqueue, claim and complete per second, next to the same on SQLite.
    Queue(queue::Options),
    /// One large file to one store, next to aws, s5cmd and rclone: wall time, CPU seconds per GiB, peak memory.
    Upload(upload::Options),
    /// One site with thousands of links and viewers of the state stream: delivery, memory, CPU, and a storm.
    Scale(scale::Options),
    /// All of them with their defaults, but `scale`.
    All,
    /// Holds devices and their links. Started by `scale`.
    #[command(hide = true)]
    ScaleClients(scale::clients::Options),
    /// Reads state streams. Started by `scale`.
    #[command(hide = true)]
    ScaleViewers(scale::viewers::Options),
    /// Holds so many idle devices and says what they cost. Started by `core`.
    #[command(hide = true)]
    Idle {
        /// How many.
        devices: u32,
    },
}

/// What is common to all benchmarks.
struct Bench {
    rounds: u32,
    dir: tempfile::TempDir,
}

fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> io::Result<()> {
    match &args.what {
        What::Idle { devices } => {
            println!("{}", machine::idle(*devices));
            return Ok(());
        }
        What::ScaleClients(options) => return scale::clients::run(options),
        What::ScaleViewers(options) => return scale::viewers::run(options),
        What::Core(_) | What::Queue(_) | What::Upload(_) | What::Scale(_) | What::All => {}
    }
    let parent = args.dir.clone().unwrap_or_else(std::env::temp_dir);
    let dir = tempfile::Builder::new().prefix("tidegate-bench-").tempdir_in(parent)?;
    let bench = Bench { rounds: args.rounds, dir };
    let mut tables = Vec::new();
    let mut tell = |table: Table| {
        if !args.json {
            println!("{}", table.text());
        }
        tables.push(table.json());
    };
    tell(environment::table(bench.dir.path())?);
    match &args.what {
        What::Core(options) => machine::run(&bench, options, &mut tell)?,
        What::Queue(options) => queue::run(&bench, options, &mut tell)?,
        What::Upload(options) => upload::run(&bench, options, &mut tell)?,
        What::Scale(options) => scale::run(&bench, options, &mut tell)?,
        What::All => {
            machine::run(&bench, &machine::Options::default(), &mut tell)?;
            queue::run(&bench, &queue::Options::default(), &mut tell)?;
            upload::run(&bench, &upload::Options::default(), &mut tell)?;
        }
        What::Idle { .. } | What::ScaleClients(_) | What::ScaleViewers(_) => {}
    }
    if args.json {
        println!("{:#}", json!({"tables": tables}));
    }
    Ok(())
}
