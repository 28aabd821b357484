//! Owns the object store: its index in memory, the life of its blobs, and opening it after a crash. Decides nothing
//! about what may be stored; `objects.rs` and `multipart.rs` hold the operations.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use minicbor::Decode;

use super::frozen::Frozen;
use super::limits;
use super::multipart::Upload;
use super::records::{self, BucketRecord, Layout, ObjectRecord, PartRecord, Unwritten, UploadRecord};
use super::sums::hex;
use crate::folders;
use crate::seam::{Blocking, Clock, Disk, Seams};

/// The object store of this process. Cheap to clone; all clones are one store.
pub struct Spool<S: Seams> {
    pub(super) inner: Arc<Inner<S>>,
    /// What this way to the store must leave as it is.
    pub(super) frozen: Option<Frozen>,
}

impl<S: Seams> Clone for Spool<S> {
    fn clone(&self) -> Self {
        Spool { inner: self.inner.clone(), frozen: self.frozen.clone() }
    }
}

impl<S: Seams> fmt::Debug for Spool<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spool").field("root", &self.inner.layout.root).finish_non_exhaustive()
    }
}

/// Why the store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process, or another part of this one, has it open.
    #[error("the object store {0} is in use by another process; stop it, or name another folder")]
    InUse(PathBuf),
    /// The disk failed.
    #[error("the object store {0} cannot be opened: {1}")]
    Disk(PathBuf, io::Error),
}

/// What was found and done when the store was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Opened {
    /// Objects.
    pub objects: usize,
    /// Open multipart uploads.
    pub uploads: usize,
    /// Files of interrupted requests that were removed.
    pub swept: usize,
    /// Records that cannot be read. They are left alone, and so is every blob that no record names.
    pub damaged: Vec<PathBuf>,
}

pub(super) struct Inner<S: Seams> {
    pub(super) seams: S,
    pub(super) layout: Layout,
    pub(super) ledger: Arc<Ledger>,
    index: Mutex<Index>,
    /// Commits to one key, in order. Taken before the index, never the other way round.
    key_locks: [Mutex<()>; limits::KEY_LOCKS],
    /// Held for writing while a bucket comes or goes, for reading by every commit into one.
    pub(super) bucket_gate: RwLock<()>,
    /// Makes names unique: random for this opening, then counted.
    life: String,
    count: AtomicU64,
    _lock: <S::Disk as Disk>::Lock,
}

#[derive(Default)]
pub(super) struct Index {
    pub(super) buckets: BTreeMap<String, Bucket>,
    pub(super) uploads: BTreeMap<String, Arc<Upload>>,
}

pub(super) struct Bucket {
    pub(super) created_ms: i64,
    pub(super) objects: BTreeMap<String, Arc<Object>>,
}

/// An object and what keeps its bytes on disk. Whoever holds it can read it, replaced or not.
#[derive(Debug)]
pub struct Object {
    /// What is known of it.
    pub record: ObjectRecord,
    pub(super) blobs: Vec<Arc<Blob>>,
}

/// One content on disk. Its file goes when the last holder does.
#[derive(Debug)]
pub(super) struct Blob {
    pub(super) id: String,
    pub(super) len: AtomicU64,
    ledger: Arc<Ledger>,
}

/// Bytes on disk, and blobs that wait for removal.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    bytes: AtomicU64,
    dead: Mutex<Vec<String>>,
}

impl Blob {
    pub(super) fn new(id: String, len: u64, ledger: &Arc<Ledger>) -> Arc<Blob> {
        ledger.bytes.fetch_add(len, Ordering::Relaxed);
        Arc::new(Blob { id, len: AtomicU64::new(len), ledger: ledger.clone() })
    }

    pub(super) fn grow(&self, by: u64) {
        self.len.fetch_add(by, Ordering::Relaxed);
        self.ledger.bytes.fetch_add(by, Ordering::Relaxed);
    }

    pub(super) fn bytes(&self) -> u64 {
        self.len.load(Ordering::Relaxed)
    }
}

impl Drop for Blob {
    fn drop(&mut self) {
        self.ledger.bytes.fetch_sub(self.bytes(), Ordering::Relaxed);
        locked(&self.ledger.dead).push(std::mem::take(&mut self.id));
    }
}

/// A panic of one request must not end all others: what these locks guard is consistent at every step.
pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<S: Seams> Spool<S> {
    /// Opens the store in `root`, creating it if need be, and removes what interrupted requests left.
    ///
    /// # Errors
    /// [`OpenError`], if another process has it or the disk fails.
    pub async fn open(seams: S, root: PathBuf) -> Result<(Spool<S>, Opened), OpenError> {
        let blocking = seams.blocking().clone();
        let mut life = [0; 8];
        blocking.entropy(&mut life);
        blocking.run(move || Spool::open_now(seams, root, hex(&life))).await
    }

    fn open_now(seams: S, root: PathBuf, life: String) -> Result<(Spool<S>, Opened), OpenError> {
        let layout = Layout { root };
        let failed = |error| OpenError::Disk(layout.root.clone(), error);
        let disk = seams.disk().clone();
        create_folders(&disk, &layout).map_err(failed)?;
        let lock = match disk.lock(&layout.lock()) {
            Ok(lock) => lock,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(OpenError::InUse(layout.root));
            }
            Err(error) => return Err(failed(error)),
        };
        let ledger = Arc::default();
        let mut loading = Loading {
            disk,
            layout: &layout,
            now_ms: seams.clock().now().wall.0,
            ledger: &ledger,
            opened: Opened::default(),
            sizes: BTreeMap::new(),
        };
        let index = loading.load().map_err(failed)?;
        let opened = loading.opened;
        let inner = Inner {
            seams,
            layout,
            ledger,
            index: Mutex::new(index),
            key_locks: Default::default(),
            bucket_gate: RwLock::default(),
            life,
            count: AtomicU64::new(0),
            _lock: lock,
        };
        // Blobs of records that were dropped while loading.
        inner.bury();
        Ok((Spool { inner: Arc::new(inner), frozen: None }, opened))
    }

    /// A way to the same store that leaves frozen objects as they are. The store given in is not bound by it.
    #[must_use]
    pub fn obeying(self, frozen: Frozen) -> Spool<S> {
        Spool { frozen: Some(frozen), ..self }
    }

    /// Runs disk work of an operation where blocking is allowed, then removes blobs that nobody holds any more.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner<S>) -> T + Send + 'static,
    ) -> T {
        let inner = self.inner.clone();
        self.inner
            .seams
            .blocking()
            .run(move || {
                let answer = work(&inner);
                inner.bury();
                answer
            })
            .await
    }

    /// Bytes of content on disk: of objects, of parts, of uploads under way, and of what is still being read.
    #[must_use]
    pub fn bytes_stored(&self) -> u64 {
        self.inner.ledger.bytes.load(Ordering::Relaxed)
    }
}

impl<S: Seams> Inner<S> {
    pub(super) fn index(&self) -> MutexGuard<'_, Index> {
        locked(&self.index)
    }

    pub(super) fn disk(&self) -> &S::Disk {
        self.seams.disk()
    }

    pub(super) fn now_ms(&self) -> i64 {
        self.seams.clock().now().wall.0
    }

    /// Serialises commits to a key. Keys share locks; that only costs time.
    pub(super) fn key_lock(&self, key: &str) -> MutexGuard<'_, ()> {
        let sum = key.bytes().fold(0_usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(usize::from(byte)));
        locked(&self.key_locks[sum % limits::KEY_LOCKS])
    }

    /// A name that no file of this or an earlier life has.
    pub(super) fn fresh_name(&self) -> String {
        format!("{}-{}", self.life, self.count.fetch_add(1, Ordering::Relaxed))
    }

    pub(super) fn temporary(&self) -> PathBuf {
        self.layout.tmp().join(self.fresh_name())
    }

    /// Removes dead blobs. A file that stays is swept at the next open, so neither errors nor durability matter.
    fn bury(&self) {
        let dead = std::mem::take(&mut *locked(&self.ledger.dead));
        for id in dead {
            match self.disk().remove_file(&self.layout.blob(&id)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(blob = id, %error, "an unused blob stays until the next start");
                }
                Ok(()) | Err(_) => {}
            }
        }
    }
}

fn create_folders<D: Disk>(disk: &D, layout: &Layout) -> io::Result<()> {
    folders::create(disk, &layout.root)?;
    // Keys, sums and the recordings themselves. Where it cannot be done the site still runs: it is no less safe than
    // before.
    if let Err(error) = disk.restrict_to_owner(&layout.root) {
        tracing::warn!(folder = %layout.root.display(), %error, "others than its owner may be able to read this");
    }
    for folder in [layout.tmp(), layout.blobs(), layout.uploads(), layout.buckets()] {
        disk.create_dir_all(&folder)?;
    }
    disk.sync_dir(&layout.root)
}

struct Loading<'a, D: Disk> {
    disk: D,
    layout: &'a Layout,
    now_ms: i64,
    ledger: &'a Arc<Ledger>,
    opened: Opened,
    /// Blobs on disk and their lengths.
    sizes: BTreeMap<String, u64>,
}

impl<D: Disk> Loading<'_, D> {
    fn load(&mut self) -> io::Result<Index> {
        for name in self.disk.list(&self.layout.tmp())? {
            self.disk.remove_file(&self.layout.tmp().join(name))?;
            self.opened.swept += 1;
        }
        for name in self.disk.list(&self.layout.blobs())? {
            let len = self.disk.meta(&self.layout.blob(&name))?.len;
            self.sizes.insert(name, len);
        }
        // One holder for each blob that a record names: a copy shares the blobs of its source.
        let mut held: BTreeMap<String, Arc<Blob>> = BTreeMap::new();
        let mut index = Index::default();
        let mut completed = BTreeSet::new();
        for bucket in self.disk.list(&self.layout.buckets())? {
            self.load_bucket(&bucket, &mut index, &mut held, &mut completed)?;
        }
        self.load_uploads(&mut index, &mut held, &completed)?;
        self.opened.uploads = index.uploads.len();
        if self.opened.damaged.is_empty() {
            for name in self.sizes.keys().filter(|name| !held.contains_key(*name)) {
                self.disk.remove_file(&self.layout.blob(name))?;
                self.opened.swept += 1;
            }
        }
        Ok(index)
    }

    fn load_bucket(
        &mut self,
        bucket: &str,
        index: &mut Index,
        held: &mut BTreeMap<String, Arc<Blob>>,
        completed: &mut BTreeSet<String>,
    ) -> io::Result<()> {
        let folder = self.layout.bucket(bucket);
        let names = self.disk.list(&folder)?;
        if names.is_empty() {
            // The creation or the removal of the bucket was interrupted. Only an empty one is removed.
            self.disk.remove_dir(&folder)?;
            self.opened.swept += 1;
            return Ok(());
        }
        let BucketRecord { created_ms } = self.bucket_record(bucket)?;
        let mut objects = BTreeMap::new();
        for name in names.iter().filter(|name| *name != Layout::BUCKET) {
            let path = folder.join(name);
            let Some(record) = self.read::<ObjectRecord>(path.clone())? else { continue };
            let blobs: Option<Vec<_>> = record
                .segments
                .iter()
                .map(|s| (self.sizes.get(&s.blob) == Some(&s.len)).then(|| self.hold(&s.blob, s.len, held)))
                .collect();
            // A record is written after its blobs are durable: a missing or short one is the disk's doing.
            let (Some(blobs), true) = (blobs, Layout::object_name(&record.key) == *name) else {
                self.opened.damaged.push(path);
                continue;
            };
            completed.extend(record.upload.clone());
            self.opened.objects += 1;
            objects.insert(record.key.clone(), Arc::new(Object { record, blobs }));
        }
        index.buckets.insert(bucket.to_owned(), Bucket { created_ms, objects });
        Ok(())
    }

    /// The record of a bucket. It says nothing but a date: a damaged or missing one is written anew, and hides no
    /// object.
    fn bucket_record(&self, bucket: &str) -> io::Result<BucketRecord> {
        let folder = self.layout.bucket(bucket);
        let path = folder.join(Layout::BUCKET);
        let error = match records::read(&self.disk, &path) {
            Ok(record) => return Ok(record),
            Err(error) => error,
        };
        if !matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::NotFound) {
            return Err(error);
        }
        let record = BucketRecord { created_ms: self.now_ms };
        let temporary = self.layout.tmp().join(bucket);
        records::write(&self.disk, &temporary, &folder, Layout::BUCKET, &record)
            .map_err(Unwritten::into_error)?;
        tracing::warn!(record = %path.display(), %error, "the record of a bucket could not be read and was made anew");
        Ok(record)
    }

    fn load_uploads(
        &mut self,
        index: &mut Index,
        held: &mut BTreeMap<String, Arc<Blob>>,
        completed: &BTreeSet<String>,
    ) -> io::Result<()> {
        let folder = self.layout.uploads();
        let names = self.disk.list(&folder)?;
        for id in names.iter().filter(|name| !name.contains('.')) {
            let Some(record) = self.read::<UploadRecord>(folder.join(id))? else { continue };
            // Completed (the object says so) but not cleaned up, or its bucket is gone.
            if completed.contains(id) || !index.buckets.contains_key(&record.bucket) {
                self.disk.remove_file(&folder.join(id))?;
                self.disk.sync_dir(&folder)?;
                self.opened.swept += 1;
                continue;
            }
            index.uploads.insert(id.clone(), Arc::new(Upload::new(id.clone(), record)));
        }
        let damaged = self.opened.damaged.len();
        for name in &names {
            let Some((id, number)) = name.split_once('.') else { continue };
            let path = folder.join(name);
            let Some(upload) = index.uploads.get(id) else {
                // Aborted or completed; unless the upload's own record is the damaged one.
                if damaged == 0 {
                    self.disk.remove_file(&path)?;
                    self.opened.swept += 1;
                }
                continue;
            };
            let Some(part) = self.read::<PartRecord>(path.clone())? else { continue };
            let segment = &part.segment;
            if self.sizes.get(&segment.blob) != Some(&segment.len) || number.parse() != Ok(segment.number) {
                // Its uploader learns from a listing that the part is not here, and sends it again.
                self.disk.remove_file(&path)?;
                self.opened.swept += 1;
                continue;
            }
            let blob = self.hold(&segment.blob, segment.len, held);
            upload.restore(part, blob);
        }
        Ok(())
    }

    fn read<R>(&mut self, path: PathBuf) -> io::Result<Option<R>>
    where
        R: for<'b> Decode<'b, ()>,
    {
        match records::read(&self.disk, &path) {
            Ok(record) => Ok(Some(record)),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                self.opened.damaged.push(path);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn hold(&self, id: &str, len: u64, held: &mut BTreeMap<String, Arc<Blob>>) -> Arc<Blob> {
        held.entry(id.to_owned()).or_insert_with(|| Blob::new(id.to_owned(), len, self.ledger)).clone()
    }
}
