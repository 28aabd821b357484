//! Directories of other formats: migrated after a snapshot, read without a change, or refused without one.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed, which is what it is for")]

use std::fs;
use std::ops::ControlFlow;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use tidegate_core::change::JournalEntry;
use tidegate_core::id::{Boot, ObjectKey, Seq, TaskId, WireId};
use tidegate_core::input::Input;
use tidegate_core::policy::{Builtin, Settings};
use tidegate_core::row::{BindingRow, Key, Kind, MetaRow, Row};
use tidegate_core::time::Now;

use super::*;
use crate::real::RealDisk;
use crate::store::tests::failing::Failing;
use crate::store::{Batch, JOURNAL_LIMIT, Store, View};

fn open(dir: &Path) -> Result<Store, OpenError> {
    Store::open(&RealDisk, dir, JOURNAL_LIMIT)
}

fn database(dir: &Path) -> PathBuf {
    dir.join(DATABASE)
}

fn snapshots(dir: &Path) -> Vec<String> {
    RealDisk.list(&dir.join("snapshots")).unwrap_or_default()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// Writes to the database with its own means.
fn rewrite(dir: &Path, change: impl FnOnce(&WriteTransaction)) {
    let database = redb::Database::open(database(dir)).unwrap();
    let tx = database.begin_write().unwrap();
    change(&tx);
    tx.commit().unwrap();
}

/// A directory as a program of format 1 left it after `boots` starts.
fn of_format_1(dir: &Path, boots: u64) {
    of_format_2(dir, boots);
    rewrite(dir, |tx| {
        assert!(tx.delete_table(CRASHES).unwrap());
        tx.open_table(INFO).unwrap().insert(FORMAT, 1).unwrap();
    });
}

/// A directory as a program of format 2 left it after `boots` starts.
fn of_format_2(dir: &Path, boots: u64) {
    let mut store = open(dir).unwrap();
    for boot in 1..=boots {
        store.begin_boot().unwrap();
        let name = ObjectKey::new(&format!("recording-{boot}")).unwrap();
        let binding = BindingRow::new(TaskId::new("T").unwrap(), WireId::new("T").unwrap());
        let rows = [
            (Key::Meta, Some(Row::Meta(MetaRow { next_episode: boot, ..MetaRow::default() }))),
            (Key::Binding(name), Some(Row::Binding(binding))),
        ];
        let entry = JournalEntry {
            seq: store.next_seq(),
            now: Now::default(),
            boot: Boot(boot),
            input: Input::Wake,
            policies: Builtin::new(Settings::default()).id(),
            rulings: Vec::new(),
            cold: Vec::new(),
            changes: Vec::new(),
        };
        store.commit(&Batch { rows: rows.into(), entries: vec![entry], ..Batch::default() }).unwrap();
    }
    drop(store);
    rewrite(dir, |tx| {
        assert!(tx.delete_table(DECISIONS).unwrap());
        for name in ["k11", "b11", "k16", "b16"] {
            tx.delete_table(RowTable::new(name)).unwrap();
        }
        tx.open_table(INFO).unwrap().insert(FORMAT, 2).unwrap();
    });
}

fn everything(view: &View) -> (Vec<(Key, Row)>, Vec<JournalEntry>) {
    let snapshot = view.snapshot().unwrap();
    let (mut rows, mut entries) = (Vec::new(), Vec::new());
    for kind in Kind::ALL {
        let visit = |key, row| {
            rows.push((key, row));
            ControlFlow::Continue(())
        };
        snapshot.walk(kind, false, visit).unwrap();
    }
    let visit = |entry| {
        entries.push(entry);
        ControlFlow::Continue(())
    };
    snapshot.walk_journal(Seq(0), visit).unwrap();
    (rows, entries)
}

/// Opens a snapshot as the earlier program would after it was copied back, and reads it.
fn gone_back(dir: &Path, file: &str) -> (Vec<(Key, Row)>, Vec<JournalEntry>) {
    let other = tempfile::tempdir().unwrap();
    fs::copy(dir.join("snapshots").join(file), database(other.path())).unwrap();
    let archive = Store::open_existing(&RealDisk, other.path()).unwrap();
    let view = archive.view();
    assert_eq!(view.snapshot().unwrap().earlier().unwrap(), Seq(u64::MAX), "it is of the earlier format");
    everything(&view)
}

#[test]
fn the_steps_lead_from_the_first_format_to_this_one() {
    let from: Vec<u64> = STEPS.iter().map(|step| step.from).collect();
    assert_eq!(from, (1..VERSION).collect::<Vec<_>>());
}

#[test]
fn an_earlier_directory_is_migrated_after_a_snapshot_and_only_once() {
    let dir = tempfile::tempdir().unwrap();
    of_format_1(dir.path(), 3);
    let before = everything(&Store::open_existing(&RealDisk, dir.path()).unwrap().view());
    assert_eq!((before.0.len(), before.1.len()), (4, 3));

    let store = open(dir.path()).unwrap();
    assert_eq!(everything(&store.view()), before);
    assert_eq!(store.view().snapshot().unwrap().earlier().unwrap(), Seq(3), "what format 1 decided");
    drop(store);
    assert_eq!(snapshots(dir.path()), ["tidegate-v1-before-v4-boot3.redb"]);
    assert_eq!(gone_back(dir.path(), "tidegate-v1-before-v4-boot3.redb"), before);
    rewrite(dir.path(), |tx| {
        for name in ["crashes", "decisions", "k11", "b11", "k16", "b16"] {
            let there = tx.list_tables().unwrap().any(|table| redb::TableHandle::name(&table) == name);
            assert!(there, "{name} was not made");
        }
    });

    let mut store = open(dir.path()).unwrap();
    assert_eq!(store.begin_boot().unwrap(), Boot(4));
    drop(store);
    assert_eq!(snapshots(dir.path()).len(), 1, "a directory of this format needs no snapshot");
}

#[test]
fn a_directory_of_the_format_before_this_one_takes_its_own_step_only() {
    let dir = tempfile::tempdir().unwrap();
    of_format_2(dir.path(), 2);
    let before = everything(&Store::open_existing(&RealDisk, dir.path()).unwrap().view());
    let store = open(dir.path()).unwrap();
    assert_eq!(everything(&store.view()), before);
    assert_eq!(store.view().decisions(tidegate_core::policy::Slot::Retry, 9).unwrap().len(), 0);
    drop(store);
    assert_eq!(snapshots(dir.path()), ["tidegate-v2-before-v4-boot2.redb"]);
    assert_eq!(gone_back(dir.path(), "tidegate-v2-before-v4-boot2.redb"), before);
}

#[test]
fn without_room_for_the_snapshot_nothing_is_changed() {
    let dir = tempfile::tempdir().unwrap();
    of_format_1(dir.path(), 1);
    let before = fs::read(database(dir.path())).unwrap();
    let disk = Failing::default();
    disk.break_now();
    let refused = Store::open(&disk, dir.path(), JOURNAL_LIMIT).unwrap_err();
    let text = refused.to_string();
    assert!(matches!(refused, OpenError::Snapshot { from: 1, to: VERSION, .. }), "{text}");
    let path = dir.path().join("snapshots/tidegate-v1-before-v4-boot1.redb").display().to_string();
    for part in [path.as_str(), "nothing was changed", &before.len().to_string()] {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert!(fs::read(database(dir.path())).unwrap() == before, "the database was written to");
    assert_eq!(snapshots(dir.path()), [""; 0], "no half copy takes the room that is left");
    open(dir.path()).unwrap();
}

#[test]
fn a_snapshot_of_an_interrupted_migration_is_used_again_if_it_is_whole_and_made_anew_if_not() {
    let name = "tidegate-v1-before-v4-boot2.redb";
    for whole in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        of_format_1(dir.path(), 2);
        let path = dir.path().join("snapshots").join(name);
        fs::create_dir(dir.path().join("snapshots")).unwrap();
        let mut bytes = fs::read(database(dir.path())).unwrap();
        if !whole {
            bytes.truncate(bytes.len() / 2);
        }
        fs::write(&path, &bytes).unwrap();
        let long_ago = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1);
        fs::File::options().write(true).open(&path).unwrap().set_modified(long_ago).unwrap();
        let before = everything(&Store::open_existing(&RealDisk, dir.path()).unwrap().view());
        open(dir.path()).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().modified().unwrap() == long_ago, whole);
        assert_eq!(gone_back(dir.path(), name), before);
    }
}

#[test]
fn the_last_two_snapshots_are_kept_and_files_of_others_are_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    of_format_1(dir.path(), 12);
    let folder = dir.path().join("snapshots");
    fs::create_dir(&folder).unwrap();
    let old =
        ["tidegate-v1-before-v4-boot2.redb", "tidegate-v1-before-v4-boot11.redb", "mine.redb", "new.redb"];
    for file in old {
        fs::write(folder.join(file), "x").unwrap();
    }
    open(dir.path()).unwrap();
    let left = ["mine.redb", "tidegate-v1-before-v4-boot11.redb", "tidegate-v1-before-v4-boot12.redb"];
    assert_eq!(snapshots(dir.path()), left);
}

#[test]
fn reading_a_store_writes_nothing_whatever_its_format_and_however_it_ended() {
    for crashed in [false, true] {
        for earlier in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            of_format_1(dir.path(), 2);
            if !earlier {
                open(dir.path()).unwrap();
                fs::remove_dir_all(dir.path().join("snapshots")).unwrap();
            }
            if crashed {
                // What lies on the disk while the database is open is what a kill leaves.
                let open = redb::Database::open(database(dir.path())).unwrap();
                let tx = open.begin_write().unwrap();
                tx.open_table(INFO).unwrap().insert("crashed", 1).unwrap();
                tx.commit().unwrap();
                let image = fs::read(database(dir.path())).unwrap();
                drop(open);
                fs::write(database(dir.path()), image).unwrap();
            }
            let before = fs::read(database(dir.path())).unwrap();
            let archive = Store::open_existing(&RealDisk, dir.path()).unwrap();
            let (rows, entries) = everything(&archive.view());
            assert_eq!((rows.len(), entries.len()), (3, 2));
            drop(archive);
            let label = format!("crashed {crashed}, earlier {earlier}");
            assert!(fs::read(database(dir.path())).unwrap() == before, "{label}: it was written to");
            assert_eq!(snapshots(dir.path()), [""; 0], "{label}");
        }
    }
}

#[test]
fn a_directory_of_a_newer_program_is_refused_unchanged_and_the_way_back_is_named() {
    let dir = tempfile::tempdir().unwrap();
    of_format_1(dir.path(), 1);
    open(dir.path()).unwrap();
    rewrite(dir.path(), |tx| {
        tx.open_table(INFO).unwrap().insert(FORMAT, VERSION + 1).unwrap();
    });
    let before = fs::read(database(dir.path())).unwrap();
    let snapshot = dir.path().join("snapshots/tidegate-v1-before-v4-boot1.redb").display().to_string();
    let asked: [Box<dyn Fn() -> OpenError>; 2] = [
        Box::new(|| open(dir.path()).unwrap_err()),
        Box::new(|| Store::open_existing(&RealDisk, dir.path()).unwrap_err()),
    ];
    for ask in asked {
        let refused = ask();
        let text = refused.to_string();
        let OpenError::Newer { found, known, .. } = refused else { panic!("{text}") };
        assert_eq!((found, known), (VERSION + 1, VERSION));
        for part in ["has format 5", "reads up to 4", "nothing was changed", snapshot.as_str()] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
    assert!(fs::read(database(dir.path())).unwrap() == before, "the database was written to");
    fs::remove_dir_all(dir.path().join("snapshots")).unwrap();
    let text = open(dir.path()).unwrap_err().to_string();
    assert!(text.contains("restore a copy of"), "{text}");
}

#[test]
fn what_is_no_database_of_ours_is_refused_and_left_as_it_is() {
    let whole = {
        let dir = tempfile::tempdir().unwrap();
        of_format_1(dir.path(), 1);
        fs::read(database(dir.path())).unwrap()
    };
    let other = {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("other");
        let database = redb::Database::create(&path).unwrap();
        let tx = database.begin_write().unwrap();
        tx.open_table(redb::TableDefinition::<&str, &str>::new("info")).unwrap().insert("a", "b").unwrap();
        tx.commit().unwrap();
        drop(database);
        fs::read(&path).unwrap()
    };
    let mut cases = vec![
        ("empty", Vec::new()),
        ("garbage", vec![0x5A; 8192]),
        ("text", b"site = \"it\"\n".to_vec()),
        ("another program's", other),
    ];
    for len in [5, 9, 300, 4096, 5000, whole.len() / 2] {
        cases.push(("cut off", whole[..len].to_vec()));
    }
    for (what, bytes) in cases {
        let dir = tempfile::tempdir().unwrap();
        fs::write(database(dir.path()), &bytes).unwrap();
        let label = format!("{what}, {} bytes", bytes.len());
        let Err(refused) = open(dir.path()) else { panic!("{label}: it was opened") };
        let text = refused.to_string();
        assert!(text.contains(&dir.path().display().to_string()), "{label}: {text}");
        assert!(text.contains("nothing"), "{label}: {text}");
        if what != "cut off" {
            assert!(matches!(refused, OpenError::Foreign { .. }), "{label}: {text}");
        }
        assert!(fs::read(database(dir.path())).unwrap() == bytes, "{label}: it was written to");
    }
}

#[test]
fn only_the_owner_may_read_the_database_and_its_snapshots_also_where_others_could_before() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()).unwrap());
    assert_eq!(mode(&database(dir.path())), 0o600, "a new one");
    fs::remove_file(database(dir.path())).unwrap();
    of_format_1(dir.path(), 1);
    fs::set_permissions(database(dir.path()), fs::Permissions::from_mode(0o644)).unwrap();
    drop(open(dir.path()).unwrap());
    assert_eq!(mode(&database(dir.path())), 0o600, "an existing one");
    let folder = dir.path().join("snapshots");
    assert_eq!(mode(&folder), 0o700);
    assert_eq!(mode(&folder.join(&snapshots(dir.path())[0])), 0o600);
}
