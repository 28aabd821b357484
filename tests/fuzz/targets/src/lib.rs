//! The functions that a fuzzer calls with arbitrary bytes: one per decoder, and one that drives a whole machine. Each
//! panics if what it demands does not hold. Knows no fuzzing engine: plain tests replay the committed corpus through
//! the very same functions.
#![allow(
    clippy::expect_used,
    reason = "a demand that does not hold has to panic: that is how a fuzzer hears of it"
)]

#[cfg(feature = "runtime")]
mod edge;
mod frames;
#[cfg(feature = "runtime")]
mod memory;
mod rows;
mod step;

/// What is fuzzed: takes any bytes and panics if a demand does not hold.
pub type Target = fn(&[u8]);

/// Every target with its name, which is also that of its folder in the corpus.
pub const TARGETS: &[(&str, Target)] = &[
    ("recorder_frame", frames::recorder),
    ("transfer_frame", frames::transfer),
    ("params", frames::params),
    ("row", rows::row),
    ("key", rows::key),
    ("journal_entry", rows::journal_entry),
    ("step", step::run),
    #[cfg(feature = "runtime")]
    ("config", edge::config),
    #[cfg(feature = "runtime")]
    ("sidecar", edge::sidecar),
    #[cfg(feature = "runtime")]
    ("spool", edge::spool),
];

/// The target of this name.
#[must_use]
pub fn target(name: &str) -> Option<Target> {
    TARGETS.iter().find(|(known, _)| *known == name).map(|(_, target)| *target)
}
