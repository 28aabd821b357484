//! Every failure that ever was, shrunk, stays mended: each file of sim/corpus passes, or fails as it says.

use tidegate_core::bug::PLANTED;
use tidegate_sim::run::{Options, run};
use tidegate_sim::scenario::text::parse;

#[test]
fn each_file_of_the_corpus_comes_to_what_it_says() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/corpus");
    let mut files = 0;
    for entry in std::fs::read_dir(folder).expect("in the repository") {
        let path = entry.expect("readable").path();
        let scenario = parse(&std::fs::read_to_string(&path).expect("readable"))
            .unwrap_or_else(|problem| panic!("{}: {problem}", path.display()));
        assert_eq!(path.file_stem().and_then(|stem| stem.to_str()), Some(scenario.name.as_str()));
        assert!(!scenario.about.is_empty(), "{}: say what went wrong", scenario.name);
        if scenario.bug.is_some() && !PLANTED {
            continue;
        }
        files += 1;
        let failure = run(&scenario, Options::default()).failure;
        let broke = failure.as_ref().map(|failure| failure.invariant.as_str());
        assert_eq!(broke, scenario.expect.as_deref(), "{}: {failure:?}", scenario.name);
    }
    assert!(files >= 5, "{files} files were run");
}
