//! The shipped binary: nothing but the library's main.

use std::process::ExitCode;

fn main() -> ExitCode {
    tidegate::main()
}
