//! Data directories of every format, kept below `tests/golden`: how they are made, and that this program opens them.

mod make;
mod pack;

use std::path::{Path, PathBuf};

use crate::rig::{Site, run};

/// Where a new golden directory is to be written, from the root of the repository.
const WANTED: &str = "TIDEGATE_WRITE_GOLDEN";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests lie below the root").to_owned()
}

/// Runs a command of the binary that ends by itself: its exit code and all that it said.
fn command(arguments: &[&str]) -> (Option<i32>, String) {
    let output = Site::program().args(arguments).output().expect("the binary under test");
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&said).into_owned())
}

#[test]
fn a_golden_directory_can_be_made_by_this_program() {
    run(async {
        let wanted = std::env::var_os(WANTED).map(|folder| root().join(folder));
        let aside = tempfile::tempdir().expect("a temporary directory");
        let folder = wanted.unwrap_or_else(|| aside.path().join("made"));
        make::all(&folder).await;
    });
}
