//! Swaps without end: memory stays flat over activations, decisions and admissions. In a process of its own, for what other
//! tests hold at the same time would be counted too.
#![allow(clippy::unwrap_used, reason = "a test fails by it, at the right line")]

#[allow(dead_code, reason = "shared with the other tests, which need more of it")]
#[path = "../it/rig.rs"]
mod rig;

use tidegate_core::policy::{Binding, PolicySet, Seat, SettingValue, Settings, Slot};
use tidegate_policies::{SeatedSet, Shelf};

/// Resident memory of this process in KiB, by the kernel.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// The allocator's own habits. A leak of one instance per decision (a page of guest memory at least) would be over a
/// gigabyte, one of a module's code per admission a hundred MiB.
const SLACK_KIB: u64 = 8 << 10;

#[test]
fn ten_thousand_activations_among_eight_sets_and_a_hundred_admissions_leave_memory_flat() {
    let host = rig::host();
    let bytes = rig::fixture("suite");
    let module = host.admit(&bytes).unwrap();
    let wanted: Vec<_> = (0..8)
        .map(|n| {
            let mut set = PolicySet::native(Settings::default());
            let settings = vec![(String::from("uploads"), SettingValue::Int(n + 1))];
            for slot in Slot::ALL {
                let binding = Binding { module: module.hash(), settings: settings.clone() };
                set.seats[slot as usize] = Seat::Module(binding);
            }
            set
        })
        .collect();
    let mut shelf = Shelf::with_builtin(Settings::default());
    let ids: Vec<_> =
        wanted.iter().map(|set| shelf.put_set(set, &|_| Some(module.clone())).unwrap()).collect();

    let mut activate = |rounds: usize| {
        for round in 0..rounds {
            let n = round % ids.len();
            let set = shelf.get(ids[n]);
            assert_eq!(
                set.limits(&rig::now()).verdict.uploads as usize,
                n + 1,
                "its own settings, no other set's"
            );
            assert_eq!(set.retry(&rig::attempt(2)).by, tidegate_core::policy::Author::Set(ids[n]));
        }
    };
    activate(500);
    for _ in 0..5 {
        host.admit(&bytes).unwrap();
    }
    let before = resident();
    activate(10_000);
    let swapped = resident();
    // Whole admissions, and the sets made of them, come and go.
    for n in 0..100 {
        let again = host.admit(&bytes).unwrap();
        assert_eq!(again.hash(), module.hash());
        let set = SeatedSet::prepare(&wanted[n % 8], &|_| Some(again.clone())).unwrap();
        assert_eq!(set.id(), ids[n % 8]);
    }
    let admitted = resident();
    println!("{before} KiB before, {swapped} after 10,000 activations, {admitted} after 100 admissions");
    assert!(swapped <= before + SLACK_KIB, "{before} KiB before, {swapped} KiB after 10,000 activations");
    assert!(admitted <= before + SLACK_KIB, "{before} KiB before, {admitted} KiB after 100 admissions");
}
