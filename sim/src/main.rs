//! The command line of `tidegate-sim`. Owns arguments and the exit code; holds no part of a simulated world.

use clap::Parser;

/// Simulates the core of Tidegate, deterministically and without the runtime.
#[derive(Debug, Parser)]
#[command(name = "tidegate-sim", version, arg_required_else_help = true)]
struct Args {}

fn main() {
    let Args {} = Args::parse();
}
