//! The binary under test: nothing but the library's main, under a name of its own. In a build with planted bugs the
//! environment may name one for the whole process.

use std::process::ExitCode;

fn main() -> ExitCode {
    if let Ok(bug) = std::env::var("TIDEGATE_TEST_PLANT")
        && let Err(why) = tidegate::plant(&bug)
    {
        return refuse(&why);
    }
    tidegate::main()
}

#[expect(clippy::print_stderr, reason = "whoever asked for a bug is told that there is none")]
fn refuse(why: &str) -> ExitCode {
    eprintln!("{why}");
    ExitCode::FAILURE
}
