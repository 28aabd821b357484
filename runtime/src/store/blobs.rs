//! Owns the bytes of policy modules: one file per content, named by its hash. Knows nothing of what a module is, and
//! decides nothing about which ones stay.
//!
//! ```text
//! <data_dir>/policies/<sha256>.wasm   a module
//! <data_dir>/policies/<sha256>.sig    the signature that came with it, if one did
//! <data_dir>/policies/<sha256>.trying how often its admission began and did not end; gone when it ended
//! <data_dir>/policies/counters.json    the highest counter seen of each signer's key
//! <data_dir>/policies/<n>.new         a write that was interrupted; swept at the next start
//! ```
//!
//! A file appears under its name only once it is whole and durable, and its name is durable when [`Blobs::put`]
//! returns. So a record that names a module is never older than its bytes.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tidegate_core::digest::Sha256;

use crate::folders;
use crate::seam::{Disk, DiskFile, Open};

/// Why the bytes of a module cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum Unread {
    /// There is no such file.
    #[error("the module's bytes are not there")]
    Missing,
    /// The file is not what its name says.
    #[error("the module's bytes on the disk are damaged")]
    Damaged,
    /// The disk failed.
    #[error("the module's bytes cannot be read: {0}")]
    Disk(#[from] io::Error),
}

/// Who needs a module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// Nobody.
    Nobody,
    /// The site, which is to look at it yet.
    Admitting,
    /// The site, which knows what to think of it.
    Settled,
}

/// What a folder of small files can do, without the type of its disk.
trait Files: Send + Sync {
    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()>;
    fn read(&self, name: &str) -> io::Result<Vec<u8>>;
    fn remove(&self, name: &str) -> io::Result<()>;
    fn names(&self) -> io::Result<Vec<String>>;
    fn sync(&self) -> io::Result<()>;
}

struct Folder<D: Disk> {
    disk: D,
    dir: PathBuf,
    writes: AtomicU64,
}

impl<D: Disk> Files for Folder<D> {
    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let unfinished = self.dir.join(format!("{}.{NEW}", self.writes.fetch_add(1, Ordering::Relaxed)));
        let written = self.disk.open(&unfinished, Open::Create).and_then(|file| {
            file.write_all_at(bytes, 0)?;
            file.sync()
        });
        let named = written.and_then(|()| self.disk.rename(&unfinished, &self.dir.join(name)));
        if named.is_err() {
            // What cannot be removed now is swept at the next start.
            let _ = self.disk.remove_file(&unfinished);
        }
        named?;
        self.disk.sync_dir(&self.dir)
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        let file = self.disk.open(&self.dir.join(name), Open::Read)?;
        let len = file.len()?;
        if len > FILE_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it is larger than any module"));
        }
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
        file.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        match self.disk.remove_file(&self.dir.join(name)) {
            Ok(()) => self.disk.sync_dir(&self.dir),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn names(&self) -> io::Result<Vec<String>> {
        match self.disk.list(&self.dir) {
            Ok(names) => Ok(names),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.sync_dir(&self.dir)
    }
}

/// The modules of a data directory. Calls block. Cheap to clone.
#[derive(Clone)]
pub struct Blobs(Arc<dyn Files>);

impl fmt::Debug for Blobs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Blobs").finish_non_exhaustive()
    }
}

impl Blobs {
    /// The modules of a data directory whose lock is held; makes the folder if need be, and removes what interrupted
    /// writes left.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn open<D: Disk>(disk: &D, data_dir: &Path) -> io::Result<Blobs> {
        let blobs = Blobs::peek(disk, data_dir);
        let dir = data_dir.join(FOLDER);
        folders::create(disk, &dir)?;
        if let Err(error) = disk.restrict_to_owner(&dir) {
            tracing::warn!(path = %dir.display(), %error, "others than its owner may be able to read this");
        }
        for name in blobs.0.names()? {
            if name.strip_suffix(NEW).is_some_and(|rest| rest.ends_with('.')) {
                blobs.0.remove(&name)?;
            }
        }
        Ok(blobs)
    }

    /// The modules of a data directory, to read: makes nothing and removes nothing.
    #[must_use]
    pub fn peek<D: Disk>(disk: &D, data_dir: &Path) -> Blobs {
        let (disk, dir) = (disk.clone(), data_dir.join(FOLDER));
        Blobs(Arc::new(Folder { disk, dir, writes: AtomicU64::new(0) }))
    }

    /// Keeps a module: it is durable when this returns. One that is there already and whole is left as it is.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn put(&self, bytes: &[u8]) -> io::Result<Sha256> {
        let module = Sha256::of(bytes);
        match self.read(module) {
            // Whoever wrote it may have failed to make its name durable, and said so to nobody who is still here.
            Ok(_) => self.0.sync()?,
            Err(_) => self.0.write(&module_name(module), bytes)?,
        }
        Ok(module)
    }

    /// The bytes of a module, which hash to its name.
    ///
    /// # Errors
    /// [`Unread`]
    pub fn read(&self, module: Sha256) -> Result<Vec<u8>, Unread> {
        let bytes = match self.0.read(&module_name(module)) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Unread::Missing),
            Err(error) => return Err(error.into()),
        };
        if Sha256::of(&bytes) == module { Ok(bytes) } else { Err(Unread::Damaged) }
    }

    /// Keeps the signature of a module in place of an earlier one; with none, an earlier one is removed.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn put_signature(&self, module: Sha256, signature: Option<&[u8]>) -> io::Result<()> {
        match signature {
            None => self.0.remove(&signature_name(module)),
            Some(new) if self.signature(module)?.as_deref() == Some(new) => self.0.sync(),
            Some(new) => self.0.write(&signature_name(module), new),
        }
    }

    /// The signature that came with a module, if one did.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn signature(&self, module: Sha256) -> io::Result<Option<Vec<u8>>> {
        match self.0.read(&signature_name(module)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The highest counter seen of each signer's key.
    ///
    /// # Errors
    /// Those of the disk; a file that cannot be read is one of them, for without it an old module could come back.
    pub fn counters(&self) -> io::Result<BTreeMap<String, u64>> {
        match self.0.read(COUNTERS) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(io::Error::from),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeMap::new()),
            Err(error) => Err(error),
        }
    }

    /// Keeps the counter of a key, unless a higher one was seen.
    ///
    /// # Errors
    /// Those of [`Blobs::counters`].
    pub fn count(&self, key: &str, counter: u64) -> io::Result<()> {
        let mut counters = self.counters()?;
        if counters.get(key).is_some_and(|seen| *seen >= counter) {
            return Ok(());
        }
        counters.insert(key.to_owned(), counter);
        self.0.write(COUNTERS, &serde_json::to_vec(&counters)?)
    }

    /// How often the admission of a module began and did not end.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn tries(&self, module: Sha256) -> io::Result<u32> {
        match self.0.read(&trying_name(module)) {
            // One that was cut off was begun all the same.
            Ok(bytes) => Ok(std::str::from_utf8(&bytes).ok().and_then(|text| text.parse().ok()).unwrap_or(1)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// The admission of a module begins, for this many times without an end: durable when this returns.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn begin_try(&self, module: Sha256, tries: u32) -> io::Result<()> {
        self.0.write(&trying_name(module), tries.to_string().as_bytes())
    }

    /// The admission of a module ended.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn end_try(&self, module: Sha256) -> io::Result<()> {
        self.0.remove(&trying_name(module))
    }

    /// Removes a module and what stands beside it. One that is not there is no error.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn remove(&self, module: Sha256) -> io::Result<()> {
        // What stands beside it last: without its module it is swept, and nobody misses it.
        self.0.remove(&module_name(module))?;
        self.0.remove(&signature_name(module))?;
        self.0.remove(&trying_name(module))
    }

    /// Removes every module that nobody claims, and what stands beside modules without use. What is no file of this
    /// folder's is left alone. Returns how many modules went.
    ///
    /// # Errors
    /// Those of the disk and of `claim`.
    pub fn sweep<E: From<io::Error>>(
        &self,
        mut claim: impl FnMut(Sha256) -> Result<Claim, E>,
    ) -> Result<usize, E> {
        let mut claims = BTreeMap::new();
        let mut gone = 0;
        for module in self.list()? {
            match claim(module)? {
                Claim::Nobody => {
                    self.remove(module)?;
                    gone += 1;
                }
                claimed @ (Claim::Admitting | Claim::Settled) => {
                    claims.insert(module, claimed);
                }
            }
        }
        for name in self.0.names()? {
            let of = |end: &str| Sha256::from_hex(name.strip_suffix(end)?);
            let is_lone = of(SIGNATURE).is_some_and(|module| !claims.contains_key(&module));
            let is_stale = of(TRYING).is_some_and(|module| claims.get(&module) != Some(&Claim::Admitting));
            if is_lone || is_stale {
                self.0.remove(&name)?;
            }
        }
        Ok(gone)
    }

    /// Every module that is there, in order of hash.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn list(&self) -> io::Result<Vec<Sha256>> {
        let names = self.0.names()?;
        Ok(names.iter().filter_map(|name| Sha256::from_hex(name.strip_suffix(".wasm")?)).collect())
    }
}

fn module_name(module: Sha256) -> String {
    format!("{module}.wasm")
}

fn signature_name(module: Sha256) -> String {
    format!("{module}{SIGNATURE}")
}

fn trying_name(module: Sha256) -> String {
    format!("{module}{TRYING}")
}

const COUNTERS: &str = "counters.json";
const FOLDER: &str = "policies";
const NEW: &str = "new";
const SIGNATURE: &str = ".sig";
const TRYING: &str = ".trying";
/// More than any ceiling for modules that can be configured.
const FILE_BYTES_MAX: u64 = 16 << 20;

#[allow(clippy::unwrap_used, reason = "a test that panics has failed, which is what it is for")]
#[cfg(test)]
mod tests {
    use super::*;
    use crate::real::RealDisk;
    use crate::store::tests::failing::Failing;

    fn files(dir: &Path) -> Vec<String> {
        RealDisk.list(&dir.join(FOLDER)).unwrap()
    }

    #[test]
    fn what_was_put_is_read_back_listed_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(&RealDisk, dir.path()).unwrap();
        let one = blobs.put(b"one").unwrap();
        let two = blobs.put(b"two").unwrap();
        assert_eq!(one, Sha256::of(b"one"));
        blobs.put_signature(one, Some(b"{}")).unwrap();
        blobs.put_signature(two, Some(b"{}")).unwrap();
        blobs.put_signature(two, None).unwrap();
        let again = Blobs::open(&RealDisk, dir.path()).unwrap();
        assert_eq!(again.read(one).unwrap(), b"one");
        assert_eq!(again.signature(one).unwrap().as_deref(), Some(&b"{}"[..]));
        assert_eq!(again.signature(two).unwrap(), None);
        let mut all = vec![one, two];
        all.sort();
        assert_eq!(again.list().unwrap(), all);
        again.remove(one).unwrap();
        again.remove(one).unwrap();
        assert!(matches!(again.read(one), Err(Unread::Missing)));
        assert_eq!(files(dir.path()), [format!("{two}.wasm")]);
    }

    #[test]
    fn the_counter_of_a_key_only_grows() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(&RealDisk, dir.path()).unwrap();
        for (key, counter) in [("a", 3), ("b", 1), ("a", 2), ("b", 9)] {
            blobs.count(key, counter).unwrap();
        }
        let again = Blobs::open(&RealDisk, dir.path()).unwrap();
        assert_eq!(again.counters().unwrap(), [("a".to_owned(), 3), ("b".to_owned(), 9)].into());
        std::fs::write(dir.path().join(FOLDER).join(COUNTERS), "{").unwrap();
        assert!(again.counters().is_err() && again.count("a", 4).is_err());
    }

    #[test]
    fn damaged_bytes_are_not_handed_out_and_the_same_bytes_mend_them() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(&RealDisk, dir.path()).unwrap();
        let module = blobs.put(b"module").unwrap();
        let path = dir.path().join(FOLDER).join(format!("{module}.wasm"));
        std::fs::write(&path, b"modulf").unwrap();
        assert!(matches!(blobs.read(module), Err(Unread::Damaged)));
        assert_eq!(blobs.put(b"module").unwrap(), module);
        assert_eq!(blobs.read(module).unwrap(), b"module");
    }

    #[test]
    fn a_name_appears_only_with_its_bytes_and_a_write_that_failed_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Failing::default();
        let blobs = Blobs::open(&disk, dir.path()).unwrap();
        let before = disk.synced().len();
        let module = blobs.put(b"first").unwrap();
        assert_eq!(disk.synced()[before..], [dir.path().join(FOLDER)], "the name is durable");
        disk.break_now();
        assert!(blobs.put(b"second").is_err());
        assert_eq!(files(dir.path()), [format!("{module}.wasm")]);
    }

    #[test]
    fn a_name_that_may_not_be_durable_is_made_so_before_anybody_counts_on_it() {
        // The incident: the name could not be made durable, the client asked again, and was told that all was well.
        let dir = tempfile::tempdir().unwrap();
        let disk = Failing::default();
        let blobs = Blobs::open(&disk, dir.path()).unwrap();
        disk.break_folders(true);
        assert!(blobs.put(b"module").is_err());
        let module = Sha256::of(b"module");
        assert!(blobs.put_signature(module, Some(b"{}")).is_err());
        assert!(blobs.put(b"module").is_err(), "it is there, and may be gone after a power loss");
        disk.break_folders(false);
        for put in [&|| blobs.put(b"module").map(drop), &|| blobs.put_signature(module, Some(b"{}"))]
            as [&dyn Fn() -> io::Result<()>; 2]
        {
            let before = disk.synced().len();
            put().unwrap();
            assert_eq!(disk.synced()[before..], [dir.path().join(FOLDER)]);
        }
    }

    #[test]
    fn tries_are_counted_until_they_end() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(&RealDisk, dir.path()).unwrap();
        let module = blobs.put(b"module").unwrap();
        assert_eq!(blobs.tries(module).unwrap(), 0);
        blobs.begin_try(module, 1).unwrap();
        blobs.begin_try(module, 2).unwrap();
        let again = Blobs::open(&RealDisk, dir.path()).unwrap();
        assert_eq!(again.tries(module).unwrap(), 2);
        std::fs::write(dir.path().join(FOLDER).join(trying_name(module)), "").unwrap();
        assert_eq!(again.tries(module).unwrap(), 1, "cut off, and begun all the same");
        again.end_try(module).unwrap();
        again.end_try(module).unwrap();
        assert_eq!(again.tries(module).unwrap(), 0);
    }

    #[test]
    fn what_an_interrupted_write_left_is_swept_at_the_next_start() {
        let dir = tempfile::tempdir().unwrap();
        let module = Blobs::open(&RealDisk, dir.path()).unwrap().put(b"kept").unwrap();
        std::fs::write(dir.path().join(FOLDER).join("7.new"), b"ke").unwrap();
        assert_eq!(Blobs::peek(&RealDisk, dir.path()).list().unwrap(), [module]);
        assert_eq!(files(dir.path()).len(), 2, "a reader removes nothing");
        Blobs::open(&RealDisk, dir.path()).unwrap();
        assert_eq!(files(dir.path()), [format!("{module}.wasm")]);
    }
}
