//! Broken bytes: whatever a transfer or a disk made of a module, the site refuses it and lives.

use crate::rig;

/// Cut between two sections, the rest may be a whole module: with fewer hooks, and with another hash, so that it is not
/// mistaken for the first.
#[test]
fn every_prefix_of_a_good_module_is_refused_or_serves_less_under_another_hash() {
    let host = rig::host();
    let bytes = rig::fixture("suite");
    let whole = host.admit(&bytes).unwrap();
    let mut refused = 0;
    for length in 0..bytes.len() {
        match host.admit(&bytes[..length]) {
            Ok(part) => {
                assert!(part.facts().slots.len() < whole.facts().slots.len(), "{length}");
                assert_ne!(part.hash(), whole.hash());
            }
            Err(rejection) => {
                refused += 1;
                assert!(!rejection.why.is_empty());
            }
        }
    }
    assert!(refused * 100 > bytes.len() * 95, "{refused} of {}", bytes.len());
}

/// A flipped bit in a constant may well make another good module; what matters is that each one ends in an answer.
#[test]
fn a_flipped_bit_is_refused_or_makes_another_module_but_harms_nobody() {
    let host = rig::host();
    let bytes = rig::component(&rig::retry_after("(i64.const 7)"));
    let (mut refused, mut admitted) = (0, 0);
    for at in (0..bytes.len()).step_by(3) {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << (at % 8);
        match host.admit(&flipped) {
            Ok(module) => {
                admitted += 1;
                assert_ne!(module.hash(), tidegate_core::digest::Sha256::of(&bytes));
            }
            Err(rejection) => {
                refused += 1;
                assert!(!rejection.why.is_empty());
            }
        }
    }
    assert!(refused > 200, "{refused} refused, {admitted} admitted of {} bytes", bytes.len());
    assert!(host.admit(&bytes).is_ok());
}
