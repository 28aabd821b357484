//! A disk that fails on demand: [`FailingDisk`] over any [`Disk`], [`FailingSeams`] over any [`Seams`]. What it fails, how
//! and how often is said through [`Faults`]; what it does not fail it passes on unchanged.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tidegate_runtime::seam::{Disk, DiskFile, Meta, Open, Seams};

/// What is asked of a disk, as far as it can be made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DiskCall {
    /// Opening an existing file.
    Open,
    /// A new file, or an old one emptied.
    Create,
    /// Bytes out of a file.
    Read,
    /// Bytes into a file.
    Write,
    /// Another length.
    SetLen,
    /// Content made durable.
    Sync,
    /// A file under another name.
    Rename,
    /// Names made durable.
    SyncDir,
    /// A file or folder gone.
    Remove,
}

/// What the system says when it fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Errno {
    /// No space left: ENOSPC.
    NoSpace,
    /// Mounted read-only: EROFS.
    ReadOnly,
    /// Input/output error: EIO.
    Io,
}

impl Errno {
    /// All of them.
    pub const ALL: [Errno; 3] = [Errno::NoSpace, Errno::ReadOnly, Errno::Io];

    /// The error as the system would say it.
    #[must_use]
    pub fn error(self) -> io::Error {
        match self {
            Errno::NoSpace => io::ErrorKind::StorageFull.into(),
            Errno::ReadOnly => io::ErrorKind::ReadOnlyFilesystem.into(),
            // It has no kind of its own.
            Errno::Io => io::Error::from_raw_os_error(5),
        }
    }
}

/// A fault of the disk: the next `times` calls of this kind on paths with `part` in them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskFault {
    /// The kind.
    pub call: DiskCall,
    /// A piece of the path; of a renaming, of the new name.
    pub part: &'static str,
    /// What is said.
    pub errno: Errno,
    /// Calls of this kind and place that still go well before the first that fails.
    pub skip: u32,
    /// How many then fail.
    pub times: u32,
}

/// The faults of one disk. Clones are the same faults.
#[derive(Clone, Default)]
pub struct Faults(Arc<Mutex<Inside>>);

#[derive(Default)]
struct Inside {
    planned: Vec<DiskFault>,
    hit: Vec<PathBuf>,
    /// What is said of the free space: one after the other, the last for ever.
    free: VecDeque<u64>,
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inside = self.inside();
        f.debug_struct("Faults").field("planned", &inside.planned).field("hit", &inside.hit.len()).finish()
    }
}

impl Faults {
    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a fault.
    pub fn plan(&self, fault: DiskFault) {
        self.inside().planned.push(fault);
    }

    /// Lifts every fault.
    pub fn lift(&self) {
        self.inside().planned.clear();
    }

    /// Whether a fault is yet to come.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        self.inside().planned.iter().any(|fault| fault.times > 0)
    }

    /// The paths of the calls that failed so far, in order.
    #[must_use]
    pub fn hit(&self) -> Vec<PathBuf> {
        self.inside().hit.clone()
    }

    /// What the disk says of its free bytes: one after the other, the last for ever. Without any, what the disk itself
    /// says.
    pub fn say_free(&self, free: impl IntoIterator<Item = u64>) {
        self.inside().free = free.into_iter().collect();
    }

    /// Answers about the free space that are left before the last one.
    #[must_use]
    pub fn free_left(&self) -> usize {
        self.inside().free.len().saturating_sub(1)
    }

    fn check(&self, call: DiskCall, path: &Path) -> io::Result<()> {
        let mut inside = self.inside();
        let text = path.to_string_lossy();
        let due = |fault: &&mut DiskFault| fault.call == call && fault.times > 0 && text.contains(fault.part);
        let Some(fault) = inside.planned.iter_mut().find(due) else { return Ok(()) };
        if fault.skip > 0 {
            fault.skip -= 1;
            return Ok(());
        }
        fault.times -= 1;
        let errno = fault.errno;
        inside.hit.push(path.to_owned());
        Err(errno.error())
    }
}

/// A disk with faults. Clones are the same disk.
#[derive(Clone, Debug)]
pub struct FailingDisk<D> {
    disk: D,
    faults: Faults,
}

/// An open file of a [`FailingDisk`].
#[derive(Debug)]
pub struct FailingFile<F> {
    file: F,
    path: PathBuf,
    faults: Faults,
}

impl<D: Disk> FailingDisk<D> {
    /// A disk that fails as `faults` say.
    #[must_use]
    pub fn new(disk: D, faults: Faults) -> FailingDisk<D> {
        FailingDisk { disk, faults }
    }
}

impl<D: Disk> Disk for FailingDisk<D> {
    type File = FailingFile<D::File>;
    type Lock = D::Lock;

    fn open(&self, path: &Path, how: Open) -> io::Result<Self::File> {
        let call = match how {
            Open::Read | Open::ReadWrite => DiskCall::Open,
            Open::Create | Open::CreateNew => DiskCall::Create,
        };
        self.faults.check(call, path)?;
        let file = self.disk.open(path, how)?;
        Ok(FailingFile { file, path: path.to_owned(), faults: self.faults.clone() })
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.disk.create_dir_all(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.faults.check(DiskCall::Rename, to)?;
        self.disk.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.faults.check(DiskCall::Remove, path)?;
        self.disk.remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.faults.check(DiskCall::Remove, path)?;
        self.disk.remove_dir(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.faults.check(DiskCall::SyncDir, path)?;
        self.disk.sync_dir(path)
    }

    fn meta(&self, path: &Path) -> io::Result<Meta> {
        self.disk.meta(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        self.disk.list(path)
    }

    fn lock(&self, path: &Path) -> io::Result<D::Lock> {
        self.disk.lock(path)
    }

    fn free_bytes(&self, path: &Path) -> Option<u64> {
        let mut inside = self.faults.inside();
        match inside.free.len() {
            0 => self.disk.free_bytes(path),
            1 => inside.free.front().copied(),
            _ => inside.free.pop_front(),
        }
    }

    fn restrict_to_owner(&self, path: &Path) -> io::Result<()> {
        self.disk.restrict_to_owner(path)
    }
}

impl<F: DiskFile> DiskFile for FailingFile<F> {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.faults.check(DiskCall::Read, &self.path)?;
        self.file.read_exact_at(buf, offset)
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.faults.check(DiskCall::Write, &self.path)?;
        self.file.write_all_at(buf, offset)
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.faults.check(DiskCall::SetLen, &self.path)?;
        self.file.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.faults.check(DiskCall::Sync, &self.path)?;
        self.file.sync()
    }
}

/// The seams of a host whose disk fails on demand.
#[derive(Clone, Debug)]
pub struct FailingSeams<S: Seams> {
    seams: S,
    disk: FailingDisk<S::Disk>,
}

impl<S: Seams> FailingSeams<S> {
    /// The same host with these faults of its disk.
    #[must_use]
    pub fn new(seams: S, faults: Faults) -> FailingSeams<S> {
        let disk = FailingDisk::new(seams.disk().clone(), faults);
        FailingSeams { seams, disk }
    }
}

impl<S: Seams> Seams for FailingSeams<S> {
    type Net = S::Net;
    type Disk = FailingDisk<S::Disk>;
    type Clock = S::Clock;
    type Blocking = S::Blocking;

    fn net(&self) -> &S::Net {
        self.seams.net()
    }

    fn disk(&self) -> &Self::Disk {
        &self.disk
    }

    fn clock(&self) -> &S::Clock {
        self.seams.clock()
    }

    fn blocking(&self) -> &S::Blocking {
        self.seams.blocking()
    }
}
