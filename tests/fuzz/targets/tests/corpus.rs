//! Replays the committed corpus through the functions that the fuzzer calls: what was found once stays mended.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::{Path, PathBuf};

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../corpus")
}

#[test]
fn every_target_takes_its_whole_corpus() {
    for (name, target) in tidegate_fuzz_targets::TARGETS {
        let mut seen = 0;
        for entry in std::fs::read_dir(corpus().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
        {
            let path = entry.unwrap().path();
            let bytes = std::fs::read(&path).unwrap();
            let taken = std::panic::catch_unwind(|| target(&bytes));
            assert!(taken.is_ok(), "{} panics", path.display());
            seen += 1;
        }
        assert!(seen >= 3, "{name} has {seen} files: a corpus without seeds shows nothing");
    }
}

#[test]
fn every_folder_of_the_corpus_belongs_to_a_target_and_all_of_them_are_small() {
    let mut bytes = 0;
    for folder in std::fs::read_dir(corpus()).unwrap() {
        let folder = folder.unwrap().path();
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        assert!(tidegate_fuzz_targets::target(&name).is_some(), "{name} is no target");
        for entry in std::fs::read_dir(folder).unwrap() {
            bytes += entry.unwrap().metadata().unwrap().len();
        }
    }
    assert!(bytes <= 500 << 10, "the corpus has {bytes} bytes: minimise it (tests/fuzz/run.sh --help)");
}
