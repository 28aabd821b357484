//! Records of crashes: what counts, what expires, what is kept of a panic.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed, which is what it is for")]

use super::*;
use crate::real::RealDisk;
use crate::store::JOURNAL_LIMIT;

fn crash(about: &str, location: &str, last: Wall) -> Crash {
    Crash {
        likeness: Sha256::of(about.as_bytes()),
        input: "recorder".to_owned(),
        about: about.to_owned(),
        message: "as planted".to_owned(),
        location: location.to_owned(),
        count: 1,
        first: last,
        last,
        program: PROGRAM.to_owned(),
        avoidable: true,
    }
}

fn store(dir: &Path) -> Store {
    Store::open(&RealDisk, dir, JOURNAL_LIMIT).unwrap()
}

#[test]
fn only_the_same_input_at_the_same_place_counts_together_also_across_starts() {
    let dir = tempfile::tempdir().unwrap();
    for n in 1..=LIMIT {
        let store = store(dir.path());
        let mut crashes = Crashes::load(&store, Wall(10)).unwrap();
        assert!(!crashes.any(), "not before the {n}. crash of each");
        assert_eq!(crashes.count(&store, crash("a", "x.rs:1", Wall(i64::from(n)))).unwrap().count, n);
        crashes.count(&store, crash("a", &format!("x.rs:1{n}"), Wall(1))).unwrap();
        crashes.count(&store, crash(&format!("b{n}"), "x.rs:1", Wall(1))).unwrap();
    }
    let crashes = Crashes::load(&store(dir.path()), Wall(10)).unwrap();
    let kept: Vec<_> = crashes.quarantined().collect();
    assert_eq!(kept.len(), 1);
    assert_eq!((kept[0].first, kept[0].last, kept[0].count), (Wall(1), Wall(3), LIMIT));
    assert_eq!(crashes.keeps_out(Sha256::of(b"a")), Some(kept[0]));
    assert_eq!(crashes.keeps_out(Sha256::of(b"b1")), None);
}

#[test]
fn records_of_another_version_of_long_ago_and_of_no_known_form_are_removed() {
    let dir = tempfile::tempdir().unwrap();
    let now = Wall(0).after(2 * KEPT);
    let store = store(dir.path());
    let full = |about: &str, last| Crash { count: LIMIT, ..crash(about, "x.rs:1", last) };
    let mut all = Crashes::default();
    all.count(&store, full("good", now)).unwrap();
    all.count(&store, full("old", Wall(0).after(KEPT))).unwrap();
    all.count(&store, Crash { program: "0.0.0".to_owned(), ..full("other", now) }).unwrap();
    store.write_crashes(&[(b"odd".to_vec(), Some(vec![RECORD_VERSION + 1, 0]))]).unwrap();
    assert_eq!(store.crashes().unwrap().len(), 4);
    let crashes = Crashes::load(&store, now).unwrap();
    assert_eq!(crashes.quarantined().map(|crash| crash.about.as_str()).collect::<Vec<_>>(), ["good"]);
    assert_eq!(store.crashes().unwrap().len(), 1);
}

#[test]
fn records_are_bounded_and_the_oldest_go_first() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let mut crashes = Crashes::default();
    for n in 0..=RECORDS_MAX {
        crashes.count(&store, crash(&format!("{n}"), "x.rs:1", Wall(n as i64))).unwrap();
    }
    drop(crashes);
    let crashes = Crashes::load(&store, Wall(0)).unwrap();
    assert_eq!(crashes.by_signature.len(), RECORDS_MAX);
    assert!(crashes.by_signature.values().all(|crash| crash.about != "0"));
}

#[test]
fn an_input_that_crashes_although_it_was_to_be_left_out_is_not_tried_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let mut crashes = Crashes::default();
    crashes.count(&store, Crash { count: LIMIT, ..crash("a", "x.rs:1", Wall(1)) }).unwrap();
    assert_eq!(crashes.hopeless(Sha256::of(b"boot")), None);
    crashes.count(&store, crash("a", "x.rs:1", Wall(2))).unwrap();
    assert_eq!(crashes.hopeless(Sha256::of(b"boot")).unwrap().about, "a");
}

#[test]
fn a_store_in_which_nothing_panicked_has_no_records_and_clearing_it_is_no_error() {
    let dir = tempfile::tempdir().unwrap();
    drop(store(dir.path()));
    assert_eq!(list_dir(&RealDisk, dir.path()).unwrap(), []);
    assert_eq!(clear_dir(&RealDisk, dir.path()).unwrap(), 0);
    Crashes::default().count(&store(dir.path()), crash("a", "x.rs:1", Wall(1))).unwrap();
    assert_eq!(list_dir(&RealDisk, dir.path()).unwrap().len(), 1);
    assert_eq!(clear_dir(&RealDisk, dir.path()).unwrap(), 1);
    assert_eq!(list_dir(&RealDisk, dir.path()).unwrap(), []);
}

#[test]
fn a_panic_says_what_and_where_in_one_short_line() {
    assert_eq!(guarded(|| 7), Ok(7));
    let line = line!() + 1;
    let panicked = guarded(|| panic!("first\n  {}", "é".repeat(MESSAGE_MAX))).unwrap_err();
    assert_eq!(panicked.location, format!("{}:{line}", file!()));
    assert!(panicked.message.starts_with("first é") && panicked.message.ends_with("é…"), "{panicked:?}");
    assert!(panicked.message.len() <= MESSAGE_MAX + '…'.len_utf8());
}
