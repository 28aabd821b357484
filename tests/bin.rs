//! The binary under test: nothing but the library's main, under a name of its own.

use std::process::ExitCode;

fn main() -> ExitCode {
    tidegate::main()
}
