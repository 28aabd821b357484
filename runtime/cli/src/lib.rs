//! The commands of `tidegate`. Owns the terminal, the process and its exit code; decides nothing about recordings.

mod args;
mod ask;
mod demo;
mod follow;
mod policy;
mod quarantine;
mod replay;
mod run;
mod show;
mod status;
mod token;
mod watch;

use std::io::{IsTerminal, Write as _};
use std::process::ExitCode;

use clap::Parser;
/// For whole-process tests: gives this process a planted bug. An ordinary build has none.
pub use tidegate_runtime::bug::plant;

use crate::args::{Args, Command};

/// How a command ended, for the shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done.
    Done = 0,
    /// It failed.
    Failed = 1,
    /// The command line makes no sense. The argument parser exits with it too.
    Usage = 2,
    /// The configuration is not usable.
    Configuration = 3,
    /// The data directory is in use, damaged, or newer than this program.
    DataDirectory = 4,
    /// Ctrl-C ended the watching of something that goes on: what shells say of a program ended by SIGINT.
    Interrupted = 130,
}

/// A failure with its words and its exit code.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    pub(crate) text: String,
}

impl Failure {
    pub(crate) fn new(exit: Exit, text: impl Into<String>) -> Failure {
        Failure { exit, text: text.into() }
    }

    pub(crate) fn failed(text: impl Into<String>) -> Failure {
        Failure::new(Exit::Failed, text)
    }
}

/// The result of a command.
pub(crate) type Done = Result<(), Failure>;

/// Everything the binary does. The caller is a `main` that returns what this returns.
#[must_use]
pub fn main() -> ExitCode {
    let args = Args::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(&format!("cannot start: {error}"));
            return ExitCode::from(Exit::Failed as u8);
        }
    };
    let done = runtime.block_on(async {
        match args.command {
            Command::Run(run) => run::run(run).await,
            Command::Status(status) => status::status(status).await,
            Command::Sync(sync) => ask::sync(sync).await,
            Command::Watch(watch) => follow::watch(watch).await,
            Command::Demo(demo) => demo::demo(demo).await,
            Command::Replay(replay) => replay::replay(replay).await,
            Command::Policy(policy) => policy::policy(policy).await,
            Command::Token(token) => token::token(token).await,
            Command::Quarantine(quarantine) => quarantine::quarantine(quarantine).await,
        }
    });
    // Threads that still read or hash a file must not hold the exit.
    runtime.shutdown_background();
    match done {
        Ok(()) => ExitCode::from(Exit::Done as u8),
        Err(failure) => {
            complain(&failure.text);
            ExitCode::from(failure.exit as u8)
        }
    }
}

/// Prints an error for people.
#[expect(clippy::print_stderr, reason = "the one place where the binary complains")]
fn complain(text: &str) {
    if std::io::stderr().is_terminal() {
        eprintln!("\x1b[31merror:\x1b[0m {text}");
    } else {
        eprintln!("error: {text}");
    }
}

/// Prints a line of output. A reader who has seen enough, as `head` has, ends the command without a word.
pub(crate) fn say(line: &str) {
    let printed = writeln!(std::io::stdout().lock(), "{line}");
    if printed.is_err_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe) {
        // As the signal of a broken pipe would end it, which Rust's programs ignore.
        std::process::exit(141);
    }
}
