//! The store keeps what it was told through closing, crashes and a second process.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed, which is what it is for")]

use std::ops::ControlFlow;

use tidegate_core::id::{EpisodeId, JobId, ObjectKey, TaskId, WireId};
use tidegate_core::input::Input;
use tidegate_core::policy::{Builtin, Settings};
use tidegate_core::row::{BindingRow, MetaRow};
use tidegate_core::time::Now;

use super::*;
use crate::real::RealDisk;

fn open(dir: &Path) -> Store {
    Store::open(&RealDisk, dir, JOURNAL_LIMIT).unwrap()
}

fn meta(next_job: u64) -> (Key, Option<Row>) {
    (Key::Meta, Some(Row::Meta(MetaRow { next_job, ..MetaRow::default() })))
}

fn binding(name: &str) -> (Key, Option<Row>) {
    let key = Key::Binding(ObjectKey::new(name).unwrap());
    let row = BindingRow::new(TaskId::new("T").unwrap(), WireId::new("T").unwrap());
    (key, Some(Row::Binding(row)))
}

fn entry(seq: Seq) -> JournalEntry {
    JournalEntry {
        seq,
        now: Now::default(),
        boot: Boot(1),
        input: Input::Wake,
        policies: Builtin::new(Settings::default()).id(),
        rulings: Vec::new(),
        cold: Vec::new(),
        changes: Vec::new(),
    }
}

fn entries(store: &Store, count: u64) -> Vec<JournalEntry> {
    (0..count).map(|n| entry(Seq(store.next_seq().0 + n))).collect()
}

fn names(store: &Store, reverse: bool) -> Vec<Key> {
    let mut keys = Vec::new();
    let visit = |key, _| {
        keys.push(key);
        ControlFlow::Continue(())
    };
    store.view().walk(Kind::Binding, reverse, visit).unwrap();
    keys
}

fn journal(store: &Store) -> Vec<u64> {
    let mut found = Vec::new();
    let visit = |entry: JournalEntry| {
        found.push(entry.seq.0);
        ControlFlow::Continue(())
    };
    store.view().snapshot().unwrap().walk_journal(Seq(0), visit).unwrap();
    found
}

#[test]
fn what_was_committed_is_there_after_closing_and_opening_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    let rows = [meta(7), binding("b"), binding("a"), binding("c")].into();
    store.commit(&Batch { rows, entries: entries(&store, 2), ..Batch::default() }).unwrap();
    let rows = [(binding("b").0, None)].into();
    store.commit(&Batch { rows, entries: entries(&store, 1), ..Batch::default() }).unwrap();
    drop(store);
    let store = open(dir.path());
    assert_eq!(store.fetch(&Key::Meta).unwrap(), meta(7).1);
    assert_eq!(store.fetch(&binding("b").0).unwrap(), None);
    assert_eq!(names(&store, false), [binding("a").0, binding("c").0]);
    assert_eq!(names(&store, true), [binding("c").0, binding("a").0]);
    assert_eq!(store.fetch(&Key::Job(JobId(1))).unwrap(), None);
    assert_eq!(store.fetch(&Key::Episode(EpisodeId(1))).unwrap(), None);
    assert_eq!(journal(&store), [1, 2, 3]);
    assert_eq!(store.next_seq(), Seq(4));
}

#[test]
fn every_start_gets_a_higher_boot_number() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(open(dir.path()).begin_boot().unwrap(), Boot(1));
    assert_eq!(open(dir.path()).begin_boot().unwrap(), Boot(2));
}

#[test]
fn a_second_process_is_refused_and_told_which_boot_holds_the_directory() {
    let dir = tempfile::tempdir().unwrap();
    let mut first = open(dir.path());
    first.begin_boot().unwrap();
    let refused = Store::open(&RealDisk, dir.path(), JOURNAL_LIMIT).unwrap_err();
    assert!(matches!(refused, OpenError::InUse { epoch: Some(1), .. }), "{refused:?}");
    assert!(refused.to_string().contains("is in use by another tidegate (epoch 1)"), "{refused}");
    assert!(matches!(Store::open_existing(&RealDisk, dir.path()), Err(OpenError::InUse { .. })));
    drop(first);
    open(dir.path());
}

#[test]
fn what_a_crash_during_the_creation_left_is_swept() {
    let dir = tempfile::tempdir().unwrap();
    // Torn: the power went while the database was being made under its temporary name.
    let torn = RealDisk.open(&dir.path().join(DATABASE_NEW), Open::Create).unwrap();
    crate::seam::DiskFile::write_all_at(&torn, b"redb\x1a\x0a\xa9", 0).unwrap();
    let mut store = open(dir.path());
    store.commit(&Batch { rows: [meta(2)].into(), entries: Vec::new(), ..Batch::default() }).unwrap();
    drop(store);
    // Complete, but the power went before the second start removed it.
    RealDisk.open(&dir.path().join(DATABASE_NEW), Open::Create).unwrap();
    let store = open(dir.path());
    assert_eq!(store.fetch(&Key::Meta).unwrap(), meta(2).1);
    assert!(RealDisk.meta(&dir.path().join(DATABASE_NEW)).is_err());
}

#[test]
fn an_existing_store_is_asked_for_and_none_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("nothing");
    assert!(matches!(Store::open_existing(&RealDisk, &missing), Err(OpenError::Missing(_))));
    assert!(RealDisk.meta(&missing).is_err());
}

#[test]
fn a_snapshot_stays_as_it_was_while_the_driver_commits() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    store.commit(&Batch { rows: [meta(2)].into(), entries: Vec::new(), ..Batch::default() }).unwrap();
    let view = store.view();
    let before = view.snapshot().unwrap();
    store
        .commit(&Batch { rows: [meta(3), binding("a")].into(), entries: Vec::new(), ..Batch::default() })
        .unwrap();
    assert_eq!(before.get(&Key::Meta).unwrap(), meta(2).1);
    assert_eq!(before.get(&binding("a").0).unwrap(), None);
    assert_eq!(view.get(&Key::Meta).unwrap(), meta(3).1);
    assert_eq!(view.clone().get(&binding("a").0).unwrap(), binding("a").1);
}

#[test]
fn a_view_outlives_the_store_as_a_closed_one() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let view = store.view();
    drop(store);
    assert!(matches!(view.get(&Key::Meta), Err(StoreError::Closed)));
    open(dir.path());
}

#[test]
fn the_journal_leaves_old_entries_to_the_base_once_it_is_a_quarter_too_large() {
    let dir = tempfile::tempdir().unwrap();
    let one = format::write_entry(&entry(Seq(1))).len() as u64;
    // Numbers above 23 take a byte more; 64 entries of the small size are a limit that no rounding reaches.
    let mut store = Store::open(&RealDisk, dir.path(), 64 * one).unwrap();
    let mut highest = 0;
    for _ in 0..40 {
        store
            .commit(&Batch { rows: BTreeMap::new(), entries: entries(&store, 10), ..Batch::default() })
            .unwrap();
        highest = highest.max(store.journal_bytes());
        let kept = journal(&store);
        let base = store.view().snapshot().unwrap().base().unwrap();
        assert_eq!(kept.first(), Some(&(base.0 + 1)), "base and journal meet");
        assert_eq!(kept.last(), Some(&(store.next_seq().0 - 1)));
        assert_eq!(kept.len() as u64, kept.last().unwrap() - kept[0] + 1, "no gaps");
    }
    assert!(highest > 64 * one, "it was allowed to grow by a quarter");
    assert!(highest <= 80 * one, "{highest} is more than a quarter above {}", 64 * one);
    let (next, bytes) = (store.next_seq(), store.journal_bytes());
    drop(store);
    let store = open(dir.path());
    assert_eq!((store.next_seq(), store.journal_bytes()), (next, bytes));
}

#[test]
fn a_failed_disk_fails_the_commit_and_nothing_of_the_batch_is_seen_later() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    store.commit(&Batch { rows: [meta(2)].into(), entries: Vec::new(), ..Batch::default() }).unwrap();
    drop(store);
    let disk = failing::Failing::default();
    let mut store = Store::open(&disk, dir.path(), JOURNAL_LIMIT).unwrap();
    disk.break_now();
    assert!(
        store
            .commit(&Batch { rows: [meta(9)].into(), entries: entries(&store, 1), ..Batch::default() })
            .is_err()
    );
    assert_eq!(store.next_seq(), Seq(1));
    drop(store);
    let store = open(dir.path());
    assert_eq!(store.fetch(&Key::Meta).unwrap(), meta(2).1);
    assert!(journal(&store).is_empty());
}

#[test]
fn the_name_of_every_folder_above_a_new_store_is_synced() {
    // The incident: data_dir was several levels below what existed. After a power loss the upper ones were gone.
    let dir = tempfile::tempdir().unwrap();
    let disk = failing::Failing::default();
    let _store = Store::open(&disk, &dir.path().join("a/b/c"), JOURNAL_LIMIT).unwrap();
    let synced = disk.synced();
    for folder in ["", "a", "a/b", "a/b/c"] {
        assert!(synced.contains(&dir.path().join(folder)), "{folder:?} in {synced:?}");
    }
}

/// A disk that stops writing when it is told to.
pub(crate) mod failing {
    use std::io;
    use std::path::{Path, PathBuf};
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::{Arc, Mutex};

    use crate::real::{RealDisk, RealFile, RealLock};
    use crate::seam::{Disk, DiskFile, Meta, Open};

    #[derive(Clone, Debug, Default)]
    pub(crate) struct Failing(Arc<AtomicBool>, Arc<Mutex<Vec<PathBuf>>>, Arc<AtomicBool>, Arc<AtomicBool>);

    impl Failing {
        pub(crate) fn break_now(&self) {
            self.0.store(true, Ordering::SeqCst);
        }

        /// Whether folders cannot be synced; all else works.
        pub(crate) fn break_folders(&self, broken: bool) {
            self.2.store(broken, Ordering::SeqCst);
        }

        /// Whether opening a file panics.
        pub(crate) fn panic_at_opening(&self, panics: bool) {
            self.3.store(panics, Ordering::SeqCst);
        }

        /// Folders that were synced.
        pub(crate) fn synced(&self) -> Vec<PathBuf> {
            self.1.lock().unwrap().clone()
        }
    }

    #[derive(Debug)]
    pub(crate) struct File(RealFile, Arc<AtomicBool>);

    impl File {
        fn works(&self) -> io::Result<()> {
            if self.1.load(Ordering::SeqCst) { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
        }
    }

    impl DiskFile for File {
        fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
            self.0.read_exact_at(buf, offset)
        }
        fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
            self.works()?;
            self.0.write_all_at(buf, offset)
        }
        fn len(&self) -> io::Result<u64> {
            self.0.len()
        }
        fn set_len(&self, len: u64) -> io::Result<()> {
            self.works()?;
            self.0.set_len(len)
        }
        fn sync(&self) -> io::Result<()> {
            self.works()?;
            self.0.sync()
        }
    }

    impl Disk for Failing {
        type File = File;
        type Lock = RealLock;
        fn open(&self, path: &Path, how: Open) -> io::Result<File> {
            assert!(!self.3.load(Ordering::SeqCst), "a test wants it so");
            Ok(File(RealDisk.open(path, how)?, self.0.clone()))
        }
        fn create_dir_all(&self, path: &Path) -> io::Result<()> {
            RealDisk.create_dir_all(path)
        }
        fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
            RealDisk.rename(from, to)
        }
        fn remove_file(&self, path: &Path) -> io::Result<()> {
            RealDisk.remove_file(path)
        }
        fn remove_dir(&self, path: &Path) -> io::Result<()> {
            RealDisk.remove_dir(path)
        }
        fn sync_dir(&self, path: &Path) -> io::Result<()> {
            if self.2.load(Ordering::SeqCst) {
                return Err(io::Error::other("the folder cannot be synced"));
            }
            self.1.lock().unwrap().push(path.to_owned());
            RealDisk.sync_dir(path)
        }
        fn meta(&self, path: &Path) -> io::Result<Meta> {
            RealDisk.meta(path)
        }
        fn list(&self, path: &Path) -> io::Result<Vec<String>> {
            RealDisk.list(path)
        }
        fn lock(&self, path: &Path) -> io::Result<RealLock> {
            RealDisk.lock(path)
        }
        fn free_bytes(&self, path: &Path) -> Option<u64> {
            RealDisk.free_bytes(path)
        }
        fn restrict_to_owner(&self, path: &Path) -> io::Result<()> {
            RealDisk.restrict_to_owner(path)
        }
    }
}

#[test]
fn a_database_whose_pages_were_overwritten_is_refused_in_words() {
    // redb answers some damage by an error and some by a panic; a person must read the same of both.
    let mut refused = 0;
    for page in 1..12 {
        let dir = tempfile::tempdir().unwrap();
        let mut store = open(dir.path());
        store.begin_boot().unwrap();
        drop(store);
        let file = RealDisk.open(&dir.path().join(DATABASE), Open::ReadWrite).unwrap();
        crate::seam::DiskFile::write_all_at(&file, &[0xA5; 4096], page * 4096).unwrap();
        let opened = Store::open(&RealDisk, dir.path(), JOURNAL_LIMIT).and_then(|mut store| {
            store.begin_boot().map_err(|error| OpenError::Store { dir: dir.path().to_owned(), error })
        });
        if let Err(error) = opened {
            refused += 1;
            let text = error.to_string();
            assert!(text.contains(&dir.path().display().to_string()), "page {page}: {text}");
        }
    }
    assert!(refused > 0, "no damage was noticed at all");
}

#[test]
fn a_directory_that_lost_its_database_is_refused_and_not_begun_anew() {
    // Begun anew, nothing would be frozen: devices could overwrite the only copies of acknowledged recordings.
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    store.begin_boot().unwrap();
    drop(store);
    std::fs::remove_file(dir.path().join(DATABASE)).unwrap();
    let refused = Store::open(&RealDisk, dir.path(), JOURNAL_LIMIT).unwrap_err();
    assert!(matches!(refused, OpenError::Lost { .. }), "{refused}");
    let text = refused.to_string();
    assert!(text.contains("epoch") && text.contains(&dir.path().display().to_string()), "{text}");
    assert!(!dir.path().join(DATABASE).exists(), "nothing was made");
    std::fs::remove_file(dir.path().join(EPOCH)).unwrap();
    open(dir.path());
}
