//! The real disk with counters of flushes and bytes. Adds nothing else.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tidegate_runtime::real::{RealDisk, RealFile, RealLock};
use tidegate_runtime::seam::{Disk, DiskFile, Meta, Open};

/// The real disk, counted.
#[derive(Clone, Debug, Default)]
pub struct CountedDisk {
    real: RealDisk,
    syncs: Arc<AtomicU64>,
}

impl CountedDisk {
    /// Flushes of files so far.
    pub fn syncs(&self) -> u64 {
        self.syncs.load(Ordering::Relaxed)
    }
}

/// A file of it.
#[derive(Debug)]
pub struct CountedFile {
    real: RealFile,
    syncs: Arc<AtomicU64>,
}

impl Disk for CountedDisk {
    type File = CountedFile;
    type Lock = RealLock;

    fn open(&self, path: &Path, how: Open) -> io::Result<CountedFile> {
        Ok(CountedFile { real: self.real.open(path, how)?, syncs: Arc::clone(&self.syncs) })
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.real.create_dir_all(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.real.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.real.remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.real.remove_dir(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.real.sync_dir(path)
    }

    fn meta(&self, path: &Path) -> io::Result<Meta> {
        self.real.meta(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        self.real.list(path)
    }

    fn lock(&self, path: &Path) -> io::Result<RealLock> {
        self.real.lock(path)
    }

    fn free_bytes(&self, path: &Path) -> Option<u64> {
        self.real.free_bytes(path)
    }

    fn restrict_to_owner(&self, path: &Path) -> io::Result<()> {
        self.real.restrict_to_owner(path)
    }
}

impl DiskFile for CountedFile {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.real.read_exact_at(buf, offset)
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.real.write_all_at(buf, offset)
    }

    fn len(&self) -> io::Result<u64> {
        self.real.len()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.real.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.syncs.fetch_add(1, Ordering::Relaxed);
        self.real.sync()
    }
}
