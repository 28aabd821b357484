//! Hands what libFuzzer makes up to the target that `TIDEGATE_FUZZ` names. Started by run.sh.
#![no_main]

use std::sync::OnceLock;

use tidegate_fuzz_targets::{TARGETS, Target, target};

static CHOSEN: OnceLock<Target> = OnceLock::new();

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let chosen = CHOSEN.get_or_init(|| {
        let name = std::env::var("TIDEGATE_FUZZ").unwrap_or_default();
        let known: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
        target(&name).unwrap_or_else(|| panic!("TIDEGATE_FUZZ={name:?}: choose one of {}", known.join(", ")))
    });
    chosen(bytes);
});
