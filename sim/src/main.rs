//! The binary `tidegate-sim`. Owns the exit code; holds no part of a simulated world, and no command either.

mod cli;

fn main() -> std::process::ExitCode {
    cli::main()
}
