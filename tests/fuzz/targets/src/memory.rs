//! Files in memory, and work done at once: what the runtime's decoders stand on here. Keeps no promise about power loss.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tidegate_runtime::real::{RealClock, RealNet};
use tidegate_runtime::seam::{Blocking, Disk, DiskFile, Meta, Open, Seams};

type Content = Arc<Mutex<Vec<u8>>>;

/// Files by their paths. Folders need no making.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memory(Arc<Mutex<BTreeMap<PathBuf, Content>>>);

/// An open file.
#[derive(Debug)]
pub(crate) struct File(Content);

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Memory {
    /// Writes a file.
    pub(crate) fn put(&self, path: impl Into<PathBuf>, bytes: Vec<u8>) {
        held(&self.0).insert(path.into(), Arc::new(Mutex::new(bytes)));
    }

    /// Every path.
    pub(crate) fn paths(&self) -> Vec<PathBuf> {
        held(&self.0).keys().cloned().collect()
    }
}

impl Disk for Memory {
    type File = File;
    type Lock = ();

    fn open(&self, path: &Path, how: Open) -> io::Result<File> {
        let mut files = held(&self.0);
        let there = files.get(path).cloned();
        match (how, there) {
            (Open::Read | Open::ReadWrite, Some(content)) => Ok(File(content)),
            (Open::Read | Open::ReadWrite, None) => Err(io::ErrorKind::NotFound.into()),
            (Open::CreateNew, Some(_)) => Err(io::ErrorKind::AlreadyExists.into()),
            (Open::Create | Open::CreateNew, _) => {
                let content = Content::default();
                files.insert(path.to_owned(), content.clone());
                Ok(File(content))
            }
        }
    }

    fn create_dir_all(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut files = held(&self.0);
        let content = files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        files.insert(to.to_owned(), content);
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        held(&self.0).remove(path).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn remove_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn meta(&self, path: &Path) -> io::Result<Meta> {
        let files = held(&self.0);
        match files.get(path) {
            Some(content) => Ok(Meta { len: held(content).len() as u64, is_dir: false, modified_ms: 0 }),
            None if files.keys().any(|file| file.starts_with(path)) => {
                Ok(Meta { len: 0, is_dir: true, modified_ms: 0 })
            }
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let files = held(&self.0);
        let mut names: Vec<String> = files
            .keys()
            .filter_map(|file| file.strip_prefix(path).ok()?.components().next())
            .map(|name| name.as_os_str().to_string_lossy().into_owned())
            .collect();
        names.dedup();
        Ok(names)
    }

    fn lock(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn free_bytes(&self, _: &Path) -> Option<u64> {
        None
    }

    fn restrict_to_owner(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
}

impl DiskFile for File {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let content = held(&self.0);
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        let piece = content.get(from..).and_then(|rest| rest.get(..buf.len()));
        buf.copy_from_slice(piece.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        let mut content = held(&self.0);
        let from = usize::try_from(offset).map_err(|_| io::ErrorKind::StorageFull)?;
        let end = from + buf.len();
        if content.len() < end {
            content.resize(end, 0);
        }
        content[from..end].copy_from_slice(buf);
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(held(&self.0).len() as u64)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        held(&self.0).resize(usize::try_from(len).map_err(|_| io::ErrorKind::StorageFull)?, 0);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

/// Work is done at once, where it is asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AtOnce;

impl Blocking for AtOnce {
    async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        work()
    }

    async fn dedicate<T, F, M>(&self, _: &'static str, make: M) -> T
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
        M: FnOnce() -> F + Send + 'static,
    {
        make().await
    }

    fn entropy(&self, buf: &mut [u8]) {
        buf.fill(7);
    }
}

/// A site's ground, in memory.
#[derive(Clone, Debug)]
pub(crate) struct Ground {
    disk: Memory,
    clock: RealClock,
}

impl Ground {
    /// On these files.
    pub(crate) fn new(disk: Memory) -> Ground {
        Ground { disk, clock: RealClock::default() }
    }
}

impl Seams for Ground {
    type Net = RealNet;
    type Disk = Memory;
    type Clock = RealClock;
    type Blocking = AtOnce;

    fn net(&self) -> &RealNet {
        &RealNet
    }

    fn disk(&self) -> &Memory {
        &self.disk
    }

    fn clock(&self) -> &RealClock {
        &self.clock
    }

    fn blocking(&self) -> &AtOnce {
        &AtOnce
    }
}
