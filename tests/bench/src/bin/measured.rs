//! The binary that `upload` starts: nothing but the shipped main, under a name of its own.

use std::process::ExitCode;

fn main() -> ExitCode {
    tidegate::main()
}
