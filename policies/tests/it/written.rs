//! The fixtures that other crates' tests load as files are what their sources say.

use crate::rig;

/// Those that stand in policies/fixtures as components: for tests that have the binary and no library.
const WRITTEN: [&str; 5] = ["suite", "idle", "loops", "sleeper", "fickle"];

#[test]
fn committed_fixtures_are_what_their_sources_make() {
    for name in WRITTEN {
        let file = rig::folder().join(format!("{name}.wasm"));
        let made = rig::fixture(name);
        if std::env::var_os("TIDEGATE_WRITE_FIXTURES").is_some() {
            std::fs::write(&file, &made).unwrap();
        }
        let found = std::fs::read(&file).unwrap_or_default();
        assert!(
            found == made,
            "{} is not what its source makes: TIDEGATE_WRITE_FIXTURES=1 cargo test -p tidegate-policies written",
            file.display()
        );
    }
}
