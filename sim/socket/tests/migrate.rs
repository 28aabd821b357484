//! A migration that is cut off at every operation on its disk, with every kind of crash image, twice in a row: the next
//! start has all records of before, and a snapshot that the earlier program could go on with.

use std::io::{self, Read as _};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use tidegate_core::change::JournalEntry;
use tidegate_core::id::Seq;
use tidegate_core::row::{Key, Kind, Row};
use tidegate_runtime::seam::{Disk, DiskFile, Meta, Open};
use tidegate_runtime::store::{JOURNAL_LIMIT, OpenError, Store, View};
use tidegate_sim_socket::socket_world::{Keep, SimDisk, SimFile, SimLock};

const DATA: &str = "/data";
const DATABASE: &str = "/data/tidegate.redb";
const SNAPSHOTS: &str = "/data/snapshots";

/// A disk that obeys for so many changes, and then never again.
#[derive(Clone, Debug)]
struct Fuse {
    disk: SimDisk,
    left: Arc<AtomicI64>,
}

#[derive(Debug)]
struct FuseFile(SimFile, Fuse);

impl Fuse {
    fn new(disk: &SimDisk, left: i64) -> Fuse {
        Fuse { disk: disk.clone(), left: Arc::new(AtomicI64::new(left)) }
    }

    fn burn(&self) -> io::Result<()> {
        if self.left.fetch_sub(1, Ordering::Relaxed) > 0 {
            Ok(())
        } else {
            Err(io::Error::other("the power is about to fail"))
        }
    }
}

impl Disk for Fuse {
    type File = FuseFile;
    type Lock = SimLock;
    fn open(&self, path: &Path, how: Open) -> io::Result<FuseFile> {
        if matches!(how, Open::Create | Open::CreateNew) {
            self.burn()?;
        }
        Ok(FuseFile(self.disk.open(path, how)?, self.clone()))
    }
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.burn()?;
        self.disk.create_dir_all(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.burn()?;
        self.disk.rename(from, to)
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.burn()?;
        self.disk.remove_file(path)
    }
    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.burn()?;
        self.disk.remove_dir(path)
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.burn()?;
        self.disk.sync_dir(path)
    }
    fn meta(&self, path: &Path) -> io::Result<Meta> {
        self.disk.meta(path)
    }
    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        self.disk.list(path)
    }
    fn lock(&self, path: &Path) -> io::Result<SimLock> {
        self.disk.lock(path)
    }
    fn free_bytes(&self, path: &Path) -> Option<u64> {
        self.disk.free_bytes(path)
    }
    fn restrict_to_owner(&self, path: &Path) -> io::Result<()> {
        self.disk.restrict_to_owner(path)
    }
}

impl DiskFile for FuseFile {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(buf, offset)
    }
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        if let Err(error) = self.1.burn() {
            // The last one is torn; those after it do not happen.
            if self.1.left.load(Ordering::Relaxed) == -1 {
                self.0.write_all_at(&buf[..buf.len() / 2], offset)?;
            }
            return Err(error);
        }
        self.0.write_all_at(buf, offset)
    }
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.1.burn()?;
        self.0.set_len(len)
    }
    fn sync(&self) -> io::Result<()> {
        self.1.burn()?;
        self.0.sync()
    }
}

/// The committed database of a site of format 1.
fn golden() -> Vec<u8> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("the root of the repository");
    let packed = std::fs::File::open(root.join("tests/golden/v1/waiting/data/tidegate.redb.gz"));
    let mut bytes = Vec::new();
    let read = flate2::read::GzDecoder::new(packed.expect("a golden directory")).read_to_end(&mut bytes);
    read.expect("it is gzip");
    bytes
}

/// A disk with a database on it, all of it durable.
fn disk_with(database: &[u8]) -> SimDisk {
    let disk = SimDisk::new();
    disk.create_dir_all(Path::new(DATA)).expect("a directory");
    let file = disk.open(Path::new(DATABASE), Open::CreateNew).expect("a file");
    file.write_all_at(database, 0).expect("a write");
    file.sync().expect("a sync");
    disk.sync_dir(Path::new(DATA)).expect("a sync");
    disk.sync_dir(Path::new("/")).expect("a sync");
    disk
}

fn start<D: Disk>(disk: &D) -> Result<Store, OpenError> {
    Store::open(disk, Path::new(DATA), JOURNAL_LIMIT)
}

#[derive(Debug, PartialEq)]
struct Everything {
    rows: Vec<(Key, Row)>,
    entries: Vec<JournalEntry>,
    base: Seq,
}

fn everything(view: &View) -> Everything {
    let snapshot = view.snapshot().expect("an open store");
    let (mut rows, mut entries) = (Vec::new(), Vec::new());
    for kind in Kind::ALL {
        let walked = snapshot.walk(kind, false, |key, row| {
            rows.push((key, row));
            ControlFlow::Continue(())
        });
        walked.expect("records");
    }
    let walked = snapshot.walk_journal(Seq(0), |entry| {
        entries.push(entry);
        ControlFlow::Continue(())
    });
    walked.expect("entries");
    Everything { rows, entries, base: snapshot.base().expect("a number") }
}

/// What the earlier program would find after the only snapshot was copied back.
fn gone_back(disk: &SimDisk, label: &str) -> Everything {
    let names = disk.list(Path::new(SNAPSHOTS)).expect("a folder");
    assert_eq!(names, ["tidegate-v1-before-v4-boot1.redb"], "{label}");
    let file = disk.open(&Path::new(SNAPSHOTS).join(&names[0]), Open::Read).expect("the snapshot");
    let mut bytes = vec![0; usize::try_from(file.len().expect("its length")).expect("it fits memory")];
    file.read_exact_at(&mut bytes, 0).expect("the snapshot");
    let other = disk_with(&bytes);
    let archive = Store::open_existing(&other, Path::new(DATA)).expect("the snapshot opens");
    let view = archive.view();
    let earlier = view.snapshot().expect("an open store").earlier().expect("a number");
    assert_eq!(earlier, Seq(u64::MAX), "{label}: the snapshot is of the earlier format");
    everything(&view)
}

#[test]
fn a_migration_may_be_cut_off_anywhere_and_the_next_start_has_everything() {
    let image = golden();
    let before = {
        let disk = disk_with(&image);
        let archive = Store::open_existing(&disk, Path::new(DATA)).expect("a store of format 1");
        everything(&archive.view())
    };
    assert!(before.rows.len() > 5 && before.entries.len() > 5, "it is worth something");

    let changes = {
        let fuse = Fuse::new(&disk_with(&image), i64::MAX);
        drop(start(&fuse).expect("a migration that nothing disturbs"));
        i64::MAX - fuse.left.load(Ordering::Relaxed)
    };
    assert!(changes > 20, "a migration of {changes} changes of the disk");

    let mut rng = fastrand::Rng::with_seed(9);
    let (mut cut_off, mut with_snapshot) = (0, 0);
    for at in 0..changes {
        for how in 0..4 {
            let disk = disk_with(&image);
            let mut label = format!("of {changes} changes");
            // The second cut falls anywhere in what the next start does.
            for left in [at, rng.i64(0..changes)] {
                let seed = rng.u64(..);
                let keep = match how {
                    0 => Keep::Nothing,
                    1 => Keep::Prefix { seed },
                    2 | 3 => Keep::Subset { seed },
                    _ => unreachable!("there are four"),
                };
                cut_off += i32::from(start(&Fuse::new(&disk, left)).is_err());
                disk.lose_power(keep);
                label.push_str(&format!(", {left} done and {keep:?}"));
            }
            with_snapshot += i32::from(disk.list(Path::new(SNAPSHOTS)).is_ok_and(|names| !names.is_empty()));
            let store = start(&disk).unwrap_or_else(|error| panic!("{label}: {error}"));
            assert_eq!(everything(&store.view()), before, "{label}");
            drop(store);
            assert_eq!(gone_back(&disk, &label), before, "{label}");
        }
    }
    assert!(cut_off > changes as i32, "{cut_off} starts were cut off");
    assert!(with_snapshot > 0, "no crash came after the snapshot");
}
