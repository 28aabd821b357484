//! What was skipped, and why: collected in a file, printed at the end of the run by the `skipped` target.

use std::io::Write;
use std::path::PathBuf;

/// The file that collects reasons.
pub fn list() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("skipped.txt")
}

/// Says that a test is skipped for want of a right that nobody can install. Said aloud and never a failure.
pub fn cannot_be_had(test: &str, reason: &str) {
    note(test, &format!("cannot be had here: {reason}"));
}

/// Says that a test is skipped. Where everything is installed (`TIDEGATE_TEST_NO_SKIP`), that is a failure.
pub fn skip(test: &str, reason: &str) {
    assert!(
        std::env::var_os("TIDEGATE_TEST_NO_SKIP").is_none(),
        "{test} would be skipped ({reason}), and TIDEGATE_TEST_NO_SKIP forbids it"
    );
    note(test, reason);
}

fn note(test: &str, reason: &str) {
    let mut file = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(list())
        .expect("the list of skipped tests");
    writeln!(file, "{test}: {reason}").expect("the list of skipped tests");
}
