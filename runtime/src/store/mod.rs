//! The only user of the embedded database: records, journal, format version and boot counter of one site, each batch
//! in one transaction. Decides nothing about what it keeps.
//!
//! ```text
//! <data_dir>/lock           held while a process works on the directory
//! <data_dir>/epoch          number of the boot that holds the lock, for people
//! <data_dir>/tidegate.redb  info, one table per kind, journal, base, recorded decisions
//! <data_dir>/snapshots/     copies of the database from before migrations
//! <data_dir>/policies/      bytes of policy modules, in files of their own ([`Blobs`])
//! ```
//!
//! A commit is one write transaction with immediate durability: when it returns, all of the batch survives a power
//! loss; if it fails or the power goes first, none of it does. There is no repair to wait for beyond the scan that the
//! database makes of itself after a crash.

mod backend;
mod blobs;
mod crashes;
mod decisions;
mod format;
mod journal;
mod migrate;
mod snapshots;
#[cfg(test)]
pub(crate) mod tests;
mod view;

use std::any::Any;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::{Database, Durability, ReadableTable};
use tidegate_core::change::JournalEntry;
use tidegate_core::id::{Boot, Seq};
use tidegate_core::machine::Machine;
use tidegate_core::policy::Slot;
use tidegate_core::row::{BadRow, Key, Kind, Row};

use crate::folders;
use crate::seam::{Disk, DiskFile, Open};
use backend::{Backend, Held};
use format::{BOOT, INFO, VERSION, table_of};

pub use blobs::{Blobs, Claim, Unread};
pub use crashes::CrashRecords;
pub use decisions::KEPT as DECISIONS_KEPT;
pub use format::VERSION as FORMAT_VERSION;
pub use journal::JOURNAL_LIMIT;
pub(crate) use journal::{Before, Follower};
pub use view::{Snapshot, View};

/// Why the store could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database or the disk under it failed.
    #[error("the store failed: {0}")]
    Database(Box<redb::Error>),
    /// A record cannot be read.
    #[error("the store is damaged or newer than this program: {0}")]
    Record(BadRow),
    /// A journal entry cannot be read.
    #[error("the store is damaged or newer than this program: unreadable journal entry {0}")]
    Entry(Seq),
    /// A journal entry cannot be applied to the records before it.
    #[error("the journal does not fit its records: entry {seq}: {why}")]
    Misfit {
        /// The entry.
        seq: Seq,
        /// What did not fit.
        why: String,
    },
    /// The database stumbled over its own pages: they are damaged.
    #[error(
        "the database is damaged ({0}); restore it from a copy, the recordings beside it are files of their own"
    )]
    Damaged(String),
    /// The store was closed: the site stopped.
    #[error("the store is closed")]
    Closed,
}

impl<E: Into<redb::Error>> From<E> for StoreError {
    fn from(error: E) -> StoreError {
        StoreError::Database(Box::new(error.into()))
    }
}

/// Why a data directory could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process works on it.
    #[error("data directory {} is in use by another tidegate{}; stop it, or set data_dir to another directory", dir.display(), epoch.as_ref().map(|n| format!(" (epoch {n})")).unwrap_or_default())]
    InUse {
        /// The directory.
        dir: PathBuf,
        /// Number of the boot that holds it, if it said so.
        epoch: Option<u64>,
    },
    /// It was written by a newer program.
    #[error(
        "data directory {} has format {found}, this program reads up to {known}; nothing was changed. Run the newer \
         tidegate that wrote it, or go back to before the upgrade: {} (what happened since is lost to the site; \
         docs/operations.md)",
        dir.display(), way_back(dir, snapshot.as_deref())
    )]
    Newer {
        /// The directory.
        dir: PathBuf,
        /// Its format.
        found: u64,
        /// Ours.
        known: u64,
        /// The newest snapshot that this program can go on with.
        snapshot: Option<PathBuf>,
    },
    /// A site ran here, and its database is gone.
    #[error(
        "data directory {} belongs to a site, but its tidegate.redb is gone; nothing was changed. Restore the file from \
         a copy or from snapshots/. To begin anew all the same, remove {} as well: recordings in objects/ then belong to \
         no task, and devices may overwrite them",
        dir.display(), dir.join(EPOCH).display()
    )]
    Lost {
        /// The directory.
        dir: PathBuf,
    },
    /// What lies in the place of the database is none of ours.
    #[error(
        "{} is not a database of tidegate: {why}; nothing was changed. Restore the file from a copy, or set data_dir to \
         another directory",
        path.display()
    )]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What it is instead.
        why: &'static str,
    },
    /// It is of an earlier format, and the copy that must come before a migration could not be made.
    #[error(
        "data directory {} has format {from} and must be migrated to {to}, but the snapshot {} could not be made: \
         {error}; nothing was changed. Make the folder writable and leave {len} bytes of room in it, then start again; \
         or run the earlier tidegate",
        dir.display(), path.display()
    )]
    Snapshot {
        /// The directory.
        dir: PathBuf,
        /// The snapshot.
        path: PathBuf,
        /// Bytes it needs.
        len: u64,
        /// The format of the directory.
        from: u64,
        /// Ours.
        to: u64,
        /// What failed.
        error: io::Error,
    },
    /// It is of an earlier format, and the migration failed.
    #[error(
        "data directory {} could not be migrated from format {from} to {to}: {error}; no part of the migration is kept. \
         Start again, or run the earlier tidegate; the database as it was before is at {}",
        dir.display(), snapshot.display()
    )]
    Migration {
        /// The directory.
        dir: PathBuf,
        /// Its format.
        from: u64,
        /// Ours.
        to: u64,
        /// The database as it was before.
        snapshot: PathBuf,
        /// What failed.
        error: StoreError,
    },
    /// There is no store in it.
    #[error("data directory {} holds no tidegate store; set data_dir to the directory of a site that ran", .0.display())]
    Missing(PathBuf),
    /// The disk failed.
    #[error(
        "data directory {} cannot be used: {error}; set data_dir to a directory that this user may write to", dir.display()
    )]
    Disk {
        /// The directory.
        dir: PathBuf,
        /// What failed.
        error: io::Error,
    },
    /// The database cannot be opened.
    #[error("the store in data directory {} cannot be opened: {error}; nothing in it was overwritten", dir.display())]
    Store {
        /// The directory.
        dir: PathBuf,
        /// What failed.
        error: StoreError,
    },
}

fn way_back(dir: &Path, snapshot: Option<&Path>) -> String {
    match snapshot {
        Some(snapshot) => {
            format!("copy {} over {} and start again", snapshot.display(), dir.join(DATABASE).display())
        }
        None => format!("restore a copy of {} from then", dir.join(DATABASE).display()),
    }
}

/// Why a file could not be opened as a database of ours.
#[derive(Debug, thiserror::Error)]
enum Unopened {
    #[error(transparent)]
    Disk(#[from] io::Error),
    #[error("it is not a database of tidegate: {0}")]
    Foreign(&'static str),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Unopened {
    fn of(self, dir: &Path) -> OpenError {
        let dir = dir.to_owned();
        match self {
            Unopened::Disk(error) => OpenError::Disk { dir, error },
            Unopened::Foreign(why) => OpenError::Foreign { path: dir.join(DATABASE), why },
            Unopened::Store(error) => OpenError::Store { dir, error },
        }
    }
}

/// A database that was opened and whose file was not written to yet.
struct Opened<F> {
    database: Database,
    held: Held<F>,
    format: u64,
}

impl<F: DiskFile> Opened<F> {
    /// Opens a file that must be a database of ours, of whatever format.
    fn held<D: Disk<File = F>>(disk: &D, path: &Path) -> Result<Opened<F>, Unopened> {
        let file = disk.open(path, Open::ReadWrite)?;
        // The database makes a new one of an empty file.
        let mut begin = [0; MAGIC.len()];
        match file.read_exact_at(&mut begin, 0) {
            Ok(()) if begin == *MAGIC => {}
            Ok(()) => return Err(Unopened::Foreign("it does not begin like one")),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(Unopened::Foreign("it is empty or cut off"));
            }
            Err(error) => return Err(error.into()),
        }
        let held = Held::new(file)?;
        let backend = held.clone();
        let database = unless_damaged(|| {
            let mut builder = redb::Builder::new();
            Ok(builder.set_cache_size(CACHE_BYTES).create_with_backend(backend)?)
        })?;
        let format = unless_damaged(|| format::read_format(&database))?;
        let format = format.ok_or(Unopened::Foreign("it is a database of another program"))?;
        Ok(Opened { database, held, format })
    }
}

/// Makes what is there readable by its owner only. Where that cannot be done the site still runs: it is no less safe
/// than before.
fn tighten<D: Disk>(disk: &D, path: &Path) {
    if let Err(error) = disk.restrict_to_owner(path) {
        tracing::warn!(path = %path.display(), %error, "others than its owner may be able to read this");
    }
}

/// Runs what reads the database at the start. redb checks its pages by assertions: what a power loss leaves it
/// repairs, but a page that somebody overwrote makes it panic, and that must read as what it is.
fn unless_damaged<T>(read: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    // Nothing of what the closure made survives a panic.
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(read)) {
        Ok(result) => result,
        Err(panic) => {
            let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
            let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
            Err(StoreError::Damaged(text.unwrap_or_else(|| "it panicked".to_owned())))
        }
    }
}

/// What one commit makes durable.
#[derive(Debug, Default)]
pub struct Batch {
    /// Records as they are now; `None` is removed.
    pub rows: BTreeMap<Key, Option<Row>>,
    /// Steps, in order, numbered on from [`Store::next_seq`].
    pub entries: Vec<JournalEntry>,
    /// Decisions to record, in order, each in the form that [`View::decisions`] gives back.
    pub decisions: Vec<(Slot, Vec<u8>)>,
}

/// The database and the lock, closed in this order when the last user goes.
pub(crate) struct Inner {
    pub(crate) database: Database,
    _lock: Box<dyn Any + Send + Sync>,
}

/// The store of one site. Owned by the driver alone; everybody else reads through a [`View`].
pub struct Store {
    inner: Arc<Inner>,
    ring: journal::Ring,
    epoch: Box<dyn Fn(Boot) -> io::Result<()> + Send>,
}

impl Store {
    /// Opens the store of a data directory, making both if need be, and takes the directory's lock.
    ///
    /// `journal_limit` bounds the journal's entries in bytes; see [`JOURNAL_LIMIT`].
    ///
    /// # Errors
    /// [`OpenError`], each naming the directory.
    pub fn open<D: Disk>(disk: &D, dir: &Path, journal_limit: u64) -> Result<Store, OpenError> {
        let failed = |error| OpenError::Disk { dir: dir.to_owned(), error };
        folders::create(disk, dir).map_err(failed)?;
        let lock = take_lock(disk, dir)?;
        let path = dir.join(DATABASE);
        match disk.meta(&path) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // The epoch is written when the name of the database is durable, so this is no crash of ours.
                if disk.meta(&dir.join(EPOCH)).is_ok() {
                    return Err(OpenError::Lost { dir: dir.to_owned() });
                }
                create(disk, dir)?;
            }
            Err(error) => return Err(failed(error)),
        }
        let mut opened = open_known(disk, dir)?;
        // Left by a crash between making the file and naming it.
        match disk.remove_file(&dir.join(DATABASE_NEW)) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
        tighten(disk, &path);
        if opened.format < VERSION {
            opened = migrate::run(disk, dir, opened)?;
        }
        opened.held.release().map_err(failed)?;
        let database = opened.database;
        let broken = |error| OpenError::Store { dir: dir.to_owned(), error };
        let ring = unless_damaged(|| journal::Ring::open(&database, journal_limit)).map_err(broken)?;
        let (disk, dir) = (disk.clone(), dir.to_owned());
        let epoch = move |boot: Boot| write_epoch(&disk, &dir, boot);
        let inner = Inner { database, _lock: Box::new(lock) };
        Ok(Store { inner: Arc::new(inner), ring, epoch: Box::new(epoch) })
    }

    /// Opens a store that must be there already, to read it: of this program's format or an earlier one. Migrates
    /// nothing, repairs nothing on the disk and counts no boot.
    ///
    /// # Errors
    /// [`OpenError`], each naming the directory.
    pub fn open_existing<D: Disk>(disk: &D, dir: &Path) -> Result<Archive, OpenError> {
        if disk.meta(&dir.join(DATABASE)).is_err() {
            return Err(OpenError::Missing(dir.to_owned()));
        }
        let lock = take_lock(disk, dir)?;
        let database = open_known(disk, dir)?.database;
        Ok(Archive { inner: Arc::new(Inner { database, _lock: Box::new(lock) }) })
    }

    /// Counts a start of the process, durably.
    ///
    /// # Errors
    /// Those of the database.
    pub fn begin_boot(&mut self) -> Result<Boot, StoreError> {
        let database = &self.inner.database;
        let boot = unless_damaged(|| {
            let mut tx = database.begin_write()?;
            tx.set_durability(Durability::Immediate)?;
            let boot = {
                let mut info = tx.open_table(INFO)?;
                let last = info.get(BOOT)?.map_or(0, |n| n.value());
                info.insert(BOOT, last + 1)?;
                Boot(last + 1)
            };
            tx.commit()?;
            Ok(boot)
        })?;
        if let Err(error) = (self.epoch)(boot) {
            // It only makes the refusal of a second process more telling.
            tracing::debug!(%error, "the epoch could not be written beside the lock");
        }
        Ok(boot)
    }

    /// Loads what a machine holds from boot on: every record that is hot.
    ///
    /// # Errors
    /// Those of the database and of damaged records.
    pub fn load(&self, machine: &mut Machine) -> Result<(), StoreError> {
        let snapshot = self.view().snapshot()?;
        for kind in Kind::ALL {
            snapshot.walk(kind, false, |key, row| {
                if Machine::is_hot(&row) {
                    machine.load(&key, row);
                }
                std::ops::ControlFlow::Continue(())
            })?;
        }
        Ok(())
    }

    /// One record; `None` is not there.
    ///
    /// # Errors
    /// Those of the database and of a damaged record.
    pub fn fetch(&self, key: &Key) -> Result<Option<Row>, StoreError> {
        self.view().get(key)
    }

    /// Makes a batch durable, all or nothing. After an error nothing of this store may be believed any more: drop
    /// it, open it again, and load.
    ///
    /// # Errors
    /// Those of the database.
    pub fn commit(&mut self, batch: &Batch) -> Result<(), StoreError> {
        self.ring = write(&self.inner, &self.ring, batch)?;
        Ok(())
    }

    /// The same for another thread to do. Until [`Store::committed`] is told how it ended, nothing else may be committed.
    #[must_use]
    pub fn prepare(&self, batch: Batch) -> Commit {
        Commit { inner: Arc::clone(&self.inner), ring: self.ring, batch }
    }

    /// What [`Store::prepare`] gave was run.
    pub fn committed(&mut self, done: Committed) {
        self.ring = done.0;
    }

    /// Number of the next journal entry.
    #[must_use]
    pub fn next_seq(&self) -> Seq {
        self.ring.next
    }

    /// Bytes of the journal's entries.
    #[must_use]
    pub fn journal_bytes(&self) -> u64 {
        self.ring.bytes
    }

    /// A reader that can be given away.
    #[must_use]
    pub fn view(&self) -> View {
        View::of(&self.inner)
    }
}

/// A commit that nobody made yet. It keeps the store open.
pub struct Commit {
    inner: Arc<Inner>,
    ring: journal::Ring,
    batch: Batch,
}

/// Where the journal stands after a [`Commit`].
#[derive(Debug)]
pub struct Committed(journal::Ring);

impl Commit {
    /// Makes it durable, all or nothing, as [`Store::commit`]. Blocks.
    ///
    /// # Errors
    /// Those of the database.
    pub fn run(self) -> Result<Committed, StoreError> {
        write(&self.inner, &self.ring, &self.batch).map(Committed)
    }
}

impl std::fmt::Debug for Commit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Commit").field("ring", &self.ring).finish_non_exhaustive()
    }
}

/// One transaction; where the journal stands after it.
fn write(inner: &Inner, ring: &journal::Ring, batch: &Batch) -> Result<journal::Ring, StoreError> {
    let mut tx = inner.database.begin_write()?;
    tx.set_durability(Durability::Immediate)?;
    for kind in Kind::ALL {
        let mut of_kind = batch.rows.iter().filter(|(key, _)| key.kind() == kind).peekable();
        if of_kind.peek().is_none() {
            continue;
        }
        let mut table = tx.open_table(table_of(kind))?;
        for (key, row) in of_kind {
            match row {
                Some(row) => table.insert(key.to_bytes().as_slice(), row.to_bytes().as_slice())?,
                None => table.remove(key.to_bytes().as_slice())?,
            };
        }
    }
    decisions::append(&tx, &batch.decisions)?;
    let ring = ring.append(&tx, &batch.entries)?;
    tx.commit()?;
    Ok(ring)
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("ring", &self.ring).finish_non_exhaustive()
    }
}

/// A store that is only read. What opening it wrote is kept in memory; its files are never written to.
pub struct Archive {
    inner: Arc<Inner>,
}

impl Archive {
    /// A reader.
    #[must_use]
    pub fn view(&self) -> View {
        View::of(&self.inner)
    }
}

impl std::fmt::Debug for Archive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Archive").finish_non_exhaustive()
    }
}

/// Opens the database of a directory, of any format that this program knows.
fn open_known<D: Disk>(disk: &D, dir: &Path) -> Result<Opened<D::File>, OpenError> {
    let opened = Opened::held(disk, &dir.join(DATABASE)).map_err(|unopened| unopened.of(dir))?;
    let found = opened.format;
    if found > VERSION {
        let snapshot = snapshots::newest(disk, dir, VERSION);
        return Err(OpenError::Newer { dir: dir.to_owned(), found, known: VERSION, snapshot });
    }
    Ok(opened)
}

fn take_lock<D: Disk>(disk: &D, dir: &Path) -> Result<D::Lock, OpenError> {
    match disk.lock(&dir.join(LOCK)) {
        Ok(lock) => Ok(lock),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            Err(OpenError::InUse { dir: dir.to_owned(), epoch: read_epoch(disk, dir) })
        }
        Err(error) => Err(OpenError::Disk { dir: dir.to_owned(), error }),
    }
}

fn read_epoch<D: Disk>(disk: &D, dir: &Path) -> Option<u64> {
    let file = disk.open(&dir.join(EPOCH), Open::Read).ok()?;
    let mut bytes = vec![0; usize::try_from(file.len().ok()?.min(EPOCH_BYTES)).ok()?];
    file.read_exact_at(&mut bytes, 0).ok()?;
    std::str::from_utf8(&bytes).ok()?.trim().parse().ok()
}

fn write_epoch<D: Disk>(disk: &D, dir: &Path, boot: Boot) -> io::Result<()> {
    disk.open(&dir.join(EPOCH), Open::Create)?.write_all_at(format!("{boot}\n").as_bytes(), 0)
}

/// Makes the database under a temporary name and renames it once it is complete: a power loss during the creation
/// of a database leaves a file that can never be opened.
fn create<D: Disk>(disk: &D, dir: &Path) -> Result<(), OpenError> {
    let failed = |error| OpenError::Disk { dir: dir.to_owned(), error };
    let broken = |error| OpenError::Store { dir: dir.to_owned(), error };
    let temporary = dir.join(DATABASE_NEW);
    let file = disk.open(&temporary, Open::Create).map_err(failed)?;
    tighten(disk, &temporary);
    format::create(Backend(file)).map_err(broken)?;
    {
        disk.open(&temporary, Open::ReadWrite).and_then(|file| file.sync()).map_err(failed)?;
    }
    disk.rename(&temporary, &dir.join(DATABASE)).map_err(failed)?;
    disk.sync_dir(dir).map_err(failed)?;
    if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        // The directory itself may be new as well, if the start that made it was interrupted.
        disk.sync_dir(parent).map_err(failed)?;
    }
    Ok(())
}

const DATABASE: &str = "tidegate.redb";
const DATABASE_NEW: &str = "tidegate.redb.new";
const LOCK: &str = "lock";
const EPOCH: &str = "epoch";
/// First bytes of every file of the database.
const MAGIC: &[u8; 9] = b"redb\x1a\x0a\xa9\x0d\x0a";
/// A decimal number of 64 bits and a newline.
const EPOCH_BYTES: u64 = 32;
/// Pages the database keeps in memory. A site's hot records are a few megabytes; the rest is for lists over HTTP.
const CACHE_BYTES: usize = 32 << 20;
