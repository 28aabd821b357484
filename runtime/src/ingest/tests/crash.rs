//! Owns the crash tests: a disk that stops obeying at some operation, and what is found when the store opens again.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use super::*;
use crate::real::{RealBlocking, RealClock, RealDisk, RealFile, RealLock, RealNet};
use crate::seam::{Disk, DiskFile, Meta, Open};

/// The real disk until `left` changes have been made; from then on every change fails.
#[derive(Clone, Debug)]
struct Fuse {
    left: Arc<AtomicI64>,
    kind: io::ErrorKind,
}

#[derive(Debug)]
struct FuseFile(RealFile, Fuse);

#[derive(Clone)]
struct FuseSeams {
    real: RealSeams,
    disk: Fuse,
}

impl Fuse {
    fn burn(&self) -> io::Result<()> {
        if self.left.fetch_sub(1, Ordering::Relaxed) > 0 { Ok(()) } else { Err(self.kind.into()) }
    }
}

impl Disk for Fuse {
    type File = FuseFile;
    type Lock = RealLock;
    fn open(&self, path: &Path, how: Open) -> io::Result<FuseFile> {
        if !matches!(how, Open::Read) {
            self.burn()?;
        }
        Ok(FuseFile(RealDisk.open(path, how)?, self.clone()))
    }
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.burn()?;
        RealDisk.create_dir_all(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.burn()?;
        RealDisk.rename(from, to)
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.burn()?;
        RealDisk.remove_file(path)
    }
    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.burn()?;
        RealDisk.remove_dir(path)
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.burn()?;
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

impl DiskFile for FuseFile {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(buf, offset)
    }
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        if let Err(error) = self.1.burn() {
            // A torn write.
            self.0.write_all_at(&buf[..buf.len() / 2], offset)?;
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

impl Seams for FuseSeams {
    type Net = RealNet;
    type Disk = Fuse;
    type Clock = RealClock;
    type Blocking = RealBlocking;
    fn net(&self) -> &RealNet {
        self.real.net()
    }
    fn disk(&self) -> &Fuse {
        &self.disk
    }
    fn clock(&self) -> &RealClock {
        self.real.clock()
    }
    fn blocking(&self) -> &RealBlocking {
        self.real.blocking()
    }
}

/// What a client was told about each step before the crash.
#[derive(Debug, Default)]
struct Told {
    replaced: bool,
    completed: Option<bool>,
    deleted: Option<bool>,
}

async fn script(spool: &Spool<FuseSeams>, told: &mut Told) -> Result<(), Refusal> {
    spool.create_bucket("bkt").await?;
    put(spool, "k", &content(2, 2000)).await?;
    told.replaced = true;
    put(spool, "doomed", &content(3, 10)).await?;
    let upload = spool.create_upload("bkt", "big", Described::default(), None, None).await?;
    let two = part(spool, &upload, 2, &content(5, 7)).await?;
    let one = part(spool, &upload, 1, &content(4, 5 * MIB)).await?;
    told.completed = Some(false);
    spool.complete_upload("bkt", "big", &upload.id, named(&[(1, &one), (2, &two)])).await?;
    told.completed = Some(true);
    told.deleted = Some(false);
    spool.delete("bkt", "doomed").await?;
    told.deleted = Some(true);
    Ok(())
}

#[test]
fn a_crash_at_any_change_leaves_whole_objects_and_no_leftovers() {
    let mut ended = false;
    for left in 0..200 {
        let dir = tempfile::tempdir().unwrap();
        let mut told = Told::default();
        let whole: Vec<u8> = [content(4, 5 * MIB), content(5, 7)].concat();
        ended = block_on(async {
            let spool = with_bucket(dir.path()).await;
            put(&spool, "k", &content(1, 1000)).await.unwrap();
            drop(spool);
            let disk = Fuse { left: Arc::new(AtomicI64::new(left)), kind: io::ErrorKind::Other };
            let seams = FuseSeams { real: RealSeams::new(), disk };
            match Spool::open(seams, dir.path().to_path_buf()).await {
                Ok((spool, _)) => script(&spool, &mut told).await.is_ok(),
                Err(_) => false,
            }
        });
        block_on(async {
            let (spool, opened) = open(dir.path()).await;
            assert!(opened.damaged.is_empty(), "{left}: {opened:?}");
            let k = spool.digest("bkt", "k").await.unwrap().0;
            assert_eq!(k, spool.head("bkt", "k").await.unwrap().sha256, "{left}");
            if told.replaced {
                assert_eq!(k, sha(&content(2, 2000)), "{left}");
            } else {
                assert!(k == sha(&content(1, 1000)) || k == sha(&content(2, 2000)), "{left}");
            }
            let big = spool.head("bkt", "big").await;
            match told.completed {
                None => assert_eq!(big, None, "{left}"),
                Some(true) => assert!(big.is_some(), "{left}"),
                // The answer never arrived: the upload is still open or the object is whole, never neither or both.
                Some(false) => assert!(big.is_some() != (spool.list_uploads("bkt").len() == 1), "{left}"),
            }
            if big.is_some() {
                assert_eq!(
                    spool.digest("bkt", "big").await.unwrap(),
                    (sha(&whole), whole.len() as u64),
                    "{left}"
                );
            }
            if told.deleted == Some(true) {
                assert_eq!(spool.head("bkt", "doomed").await, None, "{left}");
            }
            let parts: usize = spool.list_uploads("bkt").iter().map(|u| u.parts.len()).sum();
            let named = spool.list_all("bkt").iter().map(|o| o.parts.len().max(1)).sum::<usize>() + parts;
            assert_eq!((files(dir.path(), "blobs"), files(dir.path(), "tmp")), (named, 0), "{left}");
        });
        if ended {
            break;
        }
    }
    assert!(ended, "the script has more changes than the loop tries");
}

#[test]
fn a_full_disk_refuses_and_recovers_without_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    block_on(async {
        let left = Arc::new(AtomicI64::new(i64::MAX));
        let disk = Fuse { left: left.clone(), kind: io::ErrorKind::StorageFull };
        let seams = FuseSeams { real: RealSeams::new(), disk };
        let (spool, _) = Spool::open(seams, dir.path().to_path_buf()).await.unwrap();
        spool.create_bucket("bkt").await.unwrap();
        put(&spool, "k", &content(1, 1000)).await.unwrap();
        for full_after in 0..6 {
            left.store(full_after, Ordering::Relaxed);
            assert!(matches!(put(&spool, "k", &content(2, 1000)).await, Err(Refusal::Full)), "{full_after}");
            left.store(i64::MAX, Ordering::Relaxed);
            let (digest, _) = spool.digest("bkt", "k").await.unwrap();
            assert_eq!(digest, sha(&content(1, 1000)), "{full_after}");
        }
        put(&spool, "k", &content(2, 1000)).await.unwrap();
        assert_eq!(spool.digest("bkt", "k").await.unwrap().0, sha(&content(2, 1000)));
    });
}

#[test]
fn a_damaged_record_hides_its_object_and_stops_the_sweep() {
    let dir = tempfile::tempdir().unwrap();
    block_on(async {
        let spool = with_bucket(dir.path()).await;
        put(&spool, "good", &content(1, 10)).await.unwrap();
        put(&spool, "bad", &content(2, 10)).await.unwrap();
    });
    let path = dir.path().join("buckets/bkt").join(sums::hex(&sha(b"bad")));
    let mut bytes = std::fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    block_on(async {
        let (spool, opened) = open(dir.path()).await;
        assert_eq!(opened.damaged, [path]);
        assert_eq!(spool.head("bkt", "bad").await, None);
        assert!(spool.head("bkt", "good").await.is_some());
    });
    assert_eq!(files(dir.path(), "blobs"), 2);
}

#[test]
fn a_damaged_record_of_a_bucket_is_made_anew_and_hides_no_object() {
    // The incident: the file that holds only a date was torn. All recordings were gone, and every job failed.
    for lost in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        block_on(async {
            let spool = with_bucket(dir.path()).await;
            put(&spool, "k", &content(1, 10)).await.unwrap();
            spool.create_upload("bkt", "big", Described::default(), None, None).await.unwrap();
        });
        let path = dir.path().join("buckets/bkt/.bucket");
        if lost {
            std::fs::remove_file(&path).unwrap();
        } else {
            std::fs::write(&path, b"TGSPOOL1 torn").unwrap();
        }
        for _ in 0..2 {
            block_on(async {
                let (spool, opened) = open(dir.path()).await;
                assert_eq!(opened, Opened { objects: 1, uploads: 1, swept: 0, damaged: Vec::new() });
                assert_eq!(spool.digest("bkt", "k").await.unwrap().0, sha(&content(1, 10)));
            });
        }
        assert_eq!(files(dir.path(), "tmp"), 0);
    }
}
