//! How logs are written: text for people or one JSON object per line, to standard error. Decides nothing about what is
//! logged.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use crate::config::{Log, LogFormat};

/// Checks that a level is one: `error` to `trace`, or directives such as `info,tidegate_runtime=debug`.
///
/// # Errors
/// What it must be.
pub fn check_level(level: &str) -> Result<(), String> {
    // The parser takes a word that is no level for the name of a module, and a misspelt level would then silence
    // everything else.
    let is_level = |word: &str| !word.is_empty() && word.parse::<LevelFilter>().is_ok();
    let is_directive = |word: &str| word.contains(['=', '[']) || is_level(word);
    let legal =
        level.split(',').map(str::trim).all(is_directive) && EnvFilter::builder().parse(level).is_ok();
    if legal {
        return Ok(());
    }
    Err("must be error, warn, info, debug, trace or off, or a list such as \"info,tidegate_runtime=debug\""
        .into())
}

/// Starts logging for the whole process. Only the first call of a process has an effect: later ones, in a process
/// that runs several sites, are answered `false`.
#[must_use]
pub fn start(log: &Log) -> bool {
    // The protocol crate of the embedded endpoint calls every refused request an error and shows expected
    // signatures; a device with wrong keys would fill the log. Who wants to see it says so by name.
    let level = if log.level.contains("s3s") { log.level.clone() } else { format!("{},s3s=off", log.level) };
    let Ok(filter) = EnvFilter::builder().parse(&level) else { return false };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // Colours are for people at a terminal, not for files.
        .with_ansi(std::io::stderr().is_terminal());
    match log.format {
        LogFormat::Text => builder.try_init().is_ok(),
        LogFormat::Json => builder.json().flatten_event(true).try_init().is_ok(),
    }
}
