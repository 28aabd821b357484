//! Owns multipart uploads: from their creation over parts in any order to the one commit that makes them an object,
//! or to their abortion.
//!
//! ```text
//!   create ──► open ──part──► open ──complete──► object (a repeated complete is answered from it)
//!                └────abort───► gone
//! ```

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

use s3s::dto::StreamingBlob;
use tidegate_core::time::{Mono, Now, Wall};

use super::body::Announced;
use super::limits;
use super::objects::{Condition, PartInfo, Terms, check_described, check_key};
use super::records::{self, Described, Layout, ObjectRecord, PartRecord, Segment, Unwritten, UploadRecord};
use super::refusal::Refusal;
use super::spool::{Blob, Inner, Object, Spool, locked};
use super::sums::{Algorithm, Coverage, Pass, Sums, composite, hex, parts_etag};
use crate::seam::{Blocking, Clock, Disk, Seams};

/// An open multipart upload.
#[derive(Debug)]
pub(super) struct Upload {
    pub(super) id: String,
    pub(super) record: UploadRecord,
    parts: Mutex<BTreeMap<u16, Part>>,
    /// Serialises commits of parts, completion and abortion; true once one of the latter two has happened.
    ended: Mutex<bool>,
    ahead: Mutex<Option<Ahead>>,
    /// When something of it last came in this life, by the clock that nobody sets.
    touched: Mutex<Option<Mono>>,
}

#[derive(Clone, Debug)]
pub(super) struct Part {
    pub(super) record: PartRecord,
    blob: Arc<Blob>,
}

/// The digest of the whole content, computed while parts still arrive: a device gives up on a completion whose
/// answer takes seconds, and a large recording takes that long to hash.
#[derive(Debug)]
struct Ahead {
    pass: Pass,
    /// The blobs that are in `pass`, from part 1 on.
    blobs: Vec<Arc<Blob>>,
}

/// A part as a completion names it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamedPart {
    /// Part number.
    pub number: i64,
    /// Without quotes.
    pub etag: Option<String>,
    /// Checksums.
    pub sums: Sums,
}

/// What a completion asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Completion {
    /// The parts, in order.
    pub parts: Vec<NamedPart>,
    /// Checksums of the object, without `-N`.
    pub sums: Sums,
    /// Bytes of the object.
    pub len: Option<u64>,
    /// On the object that is replaced.
    pub condition: Condition,
}

/// What is known of an open multipart upload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UploadInfo {
    /// Upload id.
    pub id: String,
    /// Bucket.
    pub bucket: String,
    /// Key.
    pub key: String,
    /// When it was created.
    pub initiated: Wall,
    /// The algorithm that every part has.
    pub algorithm: Option<Algorithm>,
    /// What the checksum of the object will cover.
    pub coverage: Coverage,
    /// The stored parts, in order.
    pub parts: Vec<PartInfo>,
}

impl Upload {
    pub(super) fn new(id: String, record: UploadRecord) -> Upload {
        Upload {
            id,
            record,
            parts: Mutex::default(),
            ended: Mutex::default(),
            ahead: Mutex::default(),
            touched: Mutex::default(),
        }
    }

    /// Puts back a part that was found on disk.
    pub(super) fn restore(&self, record: PartRecord, blob: Arc<Blob>) {
        locked(&self.parts).insert(record.segment.number, Part { record, blob });
    }

    pub(super) fn parts(&self) -> MutexGuard<'_, BTreeMap<u16, Part>> {
        locked(&self.parts)
    }

    pub(super) fn touch(&self, now: Mono) {
        *locked(&self.touched) = Some(now);
    }

    /// Whether nothing of it came for so long, by both clocks: the wall clock may have been set.
    pub(super) fn is_abandoned(&self, now: Now, after: Duration) -> bool {
        let last = self.parts().values().map(|part| part.record.modified_ms).max();
        let last = Wall(last.unwrap_or(0).max(self.record.initiated_ms));
        let rested = |touched: Mono| touched.until(now.mono) >= after;
        last.until(now.wall) >= after && locked(&self.touched).is_none_or(rested)
    }

    pub(super) fn info(&self) -> UploadInfo {
        UploadInfo {
            id: self.id.clone(),
            bucket: self.record.bucket.clone(),
            key: self.record.key.clone(),
            initiated: Wall(self.record.initiated_ms),
            algorithm: self.record.algorithm,
            coverage: self.record.coverage,
            parts: self.parts().values().map(|part| part_info(&part.record.segment)).collect(),
        }
    }
}

pub(super) fn part_info(segment: &Segment) -> PartInfo {
    PartInfo { number: segment.number, len: segment.len, sha256: segment.sha256, etag: hex(&segment.md5) }
}

impl<S: Seams> Spool<S> {
    /// Opens a multipart upload and answers its id.
    ///
    /// # Errors
    /// `NoSuchBucket`, `SlowDown` when too many are open, `InvalidRequest` for an algorithm that cannot have that
    /// coverage; those of the key and the disk.
    pub async fn create_upload(
        &self,
        bucket: &str,
        key: &str,
        described: Described,
        algorithm: Option<Algorithm>,
        coverage: Option<Coverage>,
    ) -> Result<UploadInfo, Refusal> {
        check_key(key)?;
        check_described(&described)?;
        let coverage = coverage.or(algorithm.map(Algorithm::coverage)).unwrap_or(Coverage::Composite);
        match (algorithm, coverage) {
            (Some(Algorithm::Sha1 | Algorithm::Sha256), Coverage::FullObject)
            | (Some(Algorithm::Crc64Nvme), Coverage::Composite) => {
                return Err(Refusal::InvalidRequest(
                    "the checksum type does not exist for this algorithm".to_owned(),
                ));
            }
            _ => {}
        }
        let mut id = [0; 16];
        self.inner.seams.blocking().entropy(&mut id);
        let id = hex(&id);
        let (bucket, key) = (bucket.to_owned(), key.to_owned());
        self.run(move |inner| {
            let _gate = inner.bucket_gate.read().unwrap_or_else(PoisonError::into_inner);
            {
                let index = inner.index();
                if !index.buckets.contains_key(&bucket) {
                    return Err(Refusal::NoSuchBucket);
                }
                if index.uploads.len() >= limits::UPLOADS_MAX {
                    return Err(Refusal::SlowDown("too many multipart uploads are open".to_owned()));
                }
            }
            let initiated_ms = inner.now_ms();
            let record = UploadRecord { bucket, key, described, algorithm, coverage, initiated_ms };
            records::write(inner.disk(), &inner.temporary(), &inner.layout.uploads(), &id, &record)
                .map_err(Unwritten::into_error)?;
            let upload = Upload::new(id.clone(), record);
            upload.touch(inner.seams.clock().now().mono);
            let info = upload.info();
            inner.index().uploads.insert(id, Arc::new(upload));
            Ok(info)
        })
        .await
    }

    /// Stores a part, replacing one of the same number.
    ///
    /// # Errors
    /// `NoSuchUpload`, `InvalidArgument` for its number; those of the announcement and the disk.
    pub(super) async fn put_part(
        &self,
        at: (&str, &str, &str),
        number: i64,
        body: Option<StreamingBlob>,
        mut announced: Announced,
    ) -> Result<Segment, Refusal> {
        let number = u16::try_from(number)
            .ok()
            .filter(|n| (1..=limits::PART_NUMBER_MAX).contains(n))
            .ok_or_else(|| Refusal::InvalidArgument("part numbers are 1 to 10000".to_owned()))?;
        let upload = self.inner.upload(at.0, at.1, at.2)?;
        announced.also.extend(upload.record.algorithm);
        let mut received = self.receive(body, announced).await?;
        received.segment.number = number;
        self.run(move |inner| {
            let record = PartRecord { segment: received.segment, modified_ms: inner.now_ms() };
            let segment = record.segment.clone();
            {
                let ended = locked(&upload.ended);
                if *ended {
                    return Err(Refusal::NoSuchUpload);
                }
                let name = Layout::part_name(&upload.id, number);
                let written =
                    records::write(inner.disk(), &inner.temporary(), &inner.layout.uploads(), &name, &record);
                if let Err(Unwritten::Clean(error)) = written {
                    return Err(error.into());
                }
                upload.touch(inner.seams.clock().now().mono);
                let part = Part { record, blob: received.blob };
                let replaced = upload.parts().insert(number, part.clone());
                if let Err(Unwritten::Doubtful(error)) = written {
                    // Either record may be there after a power loss: keep the bytes of both.
                    std::mem::forget((part.blob, replaced.map(|part| part.blob)));
                    return Err(error.into());
                }
            }
            inner.hash_ahead(&upload)?;
            Ok(segment)
        })
        .await
    }

    /// Makes the parts an object. A repetition answers like the first while that object exists. If the very content is
    /// there and frozen, the upload ends and nothing else changes.
    ///
    /// # Errors
    /// `Frozen`, `NoSuchUpload`, `InvalidPart`, `InvalidPartOrder`, `EntityTooSmall`, `BadDigest`; those of the condition and
    /// the disk. The upload stays open after each of them.
    pub async fn complete_upload(
        &self,
        bucket: &str,
        key: &str,
        id: &str,
        asked: Completion,
    ) -> Result<Arc<Object>, Refusal> {
        let at = (bucket.to_owned(), key.to_owned(), id.to_owned());
        let terms =
            Terms { condition: asked.condition.clone(), frozen: self.frozen.clone(), same_is_fine: true };
        self.run(move |inner| {
            let (bucket, key, id) = (&at.0, &at.1, &at.2);
            let completed = || match inner.object(bucket, key) {
                Ok(object) if object.record.upload.as_ref() == Some(id) => Ok(object),
                Ok(_) | Err(Refusal::NoSuchKey) => Err(Refusal::NoSuchUpload),
                Err(refusal) => Err(refusal),
            };
            let upload = match inner.upload(bucket, key, id) {
                Ok(upload) => upload,
                Err(Refusal::NoSuchUpload) => return completed(),
                Err(refusal) => return Err(refusal),
            };
            let mut ended = locked(&upload.ended);
            if *ended {
                return completed();
            }
            let chosen = choose(&upload, &asked)?;
            let object = inner.assemble(&upload, chosen, &asked)?;
            let object = inner.commit(bucket, object, &terms)?;
            *ended = true;
            // The object names the upload: should this fail, the next open knows that it ended.
            if let Err(error) = inner.forget_upload(&upload) {
                tracing::warn!(upload = upload.id, %error, "files of a completed upload stay until the next start");
            }
            Ok(object)
        })
        .await
    }

    /// Ends an upload and removes its parts.
    ///
    /// # Errors
    /// `NoSuchUpload`; those of the disk.
    pub async fn abort_upload(&self, bucket: &str, key: &str, id: &str) -> Result<(), Refusal> {
        let upload = self.inner.upload(bucket, key, id)?;
        self.run(move |inner| {
            let mut ended = locked(&upload.ended);
            if *ended {
                return Err(Refusal::NoSuchUpload);
            }
            inner.forget_upload(&upload)?;
            *ended = true;
            Ok(())
        })
        .await
    }

    /// Ends the uploads of a bucket that nobody sent anything of for so long, and removes their parts; how many.
    ///
    /// # Errors
    /// Those of the disk. What was not looked at then waits for the next time.
    pub async fn expire_uploads(&self, bucket: &str, after: Duration) -> Result<usize, Refusal> {
        let now = self.inner.seams.clock().now();
        let mut expired = 0;
        for upload in self.inner.uploads(bucket) {
            if !upload.is_abandoned(now, after) {
                continue;
            }
            tracing::warn!(
                key = upload.record.key,
                upload = upload.id,
                "an abandoned upload of a device is removed"
            );
            match self.abort_upload(bucket, &upload.record.key, &upload.id).await {
                Ok(()) => expired += 1,
                Err(Refusal::NoSuchUpload) => {}
                Err(refusal) => return Err(refusal),
            }
        }
        Ok(expired)
    }

    /// The open multipart uploads of a bucket, in order of key and age.
    #[must_use]
    pub fn list_uploads(&self, bucket: &str) -> Vec<UploadInfo> {
        self.inner.uploads(bucket).iter().map(|upload| upload.info()).collect()
    }
}

impl<S: Seams> Inner<S> {
    pub(super) fn upload(&self, bucket: &str, key: &str, id: &str) -> Result<Arc<Upload>, Refusal> {
        let index = self.index();
        if !index.buckets.contains_key(bucket) {
            return Err(Refusal::NoSuchBucket);
        }
        let upload = index.uploads.get(id).filter(|u| u.record.bucket == bucket && u.record.key == key);
        upload.cloned().ok_or(Refusal::NoSuchUpload)
    }

    pub(super) fn uploads(&self, bucket: &str) -> Vec<Arc<Upload>> {
        let index = self.index();
        let mut found: Vec<_> =
            index.uploads.values().filter(|u| u.record.bucket == bucket).cloned().collect();
        // By id within a key: the marker of a listing is an id.
        found.sort_by(|a, b| (&a.record.key, &a.id).cmp(&(&b.record.key, &b.id)));
        found
    }

    /// Removes the record of an upload, then those of its parts. Only the first needs to be durable.
    fn forget_upload(&self, upload: &Upload) -> io::Result<()> {
        let folder = self.layout.uploads();
        match self.disk().remove_file(&folder.join(&upload.id)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        self.index().uploads.remove(&upload.id);
        let parts = std::mem::take(&mut *upload.parts());
        *locked(&upload.ahead) = None;
        if let Err(error) = self.disk().sync_dir(&folder) {
            std::mem::forget(parts);
            return Err(error);
        }
        for number in parts.keys() {
            // One that stays is swept at the next open.
            let _ = self.disk().remove_file(&folder.join(Layout::part_name(&upload.id, *number)));
        }
        Ok(())
    }

    /// Hashes parts that continue the beginning of the content, a bounded amount, unless another request does.
    fn hash_ahead(&self, upload: &Upload) -> io::Result<()> {
        let mut slot = match upload.ahead.try_lock() {
            Ok(slot) => slot,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return Ok(()),
        };
        let mut ahead = slot.take().unwrap_or_else(|| Ahead::new(upload));
        let mut done = 0;
        while done < limits::HASH_AHEAD_MAX {
            let number = u16::try_from(ahead.blobs.len() + 1).unwrap_or(u16::MAX);
            let Some(blob) = upload.parts().get(&number).map(|part| part.blob.clone()) else { break };
            done += self.hash_blob(&blob.id, &mut ahead.pass)?;
            ahead.blobs.push(blob);
        }
        *slot = Some(ahead);
        Ok(())
    }

    /// The object that the chosen parts are.
    fn assemble(&self, upload: &Upload, chosen: Vec<Part>, asked: &Completion) -> Result<Object, Refusal> {
        let len = chosen.iter().map(|part| part.record.segment.len).sum();
        if asked.len.is_some_and(|asked| asked != len) {
            return Err(Refusal::InvalidRequest(format!("the parts have {len} bytes, not those announced")));
        }
        let ahead = locked(&upload.ahead).take().filter(|ahead| {
            ahead.blobs.len() <= chosen.len()
                && ahead.blobs.iter().zip(&chosen).all(|(a, part)| a.id == part.blob.id)
        });
        let Ahead { mut pass, blobs } = ahead.unwrap_or_else(|| Ahead::new(upload));
        for part in &chosen[blobs.len()..] {
            self.hash_blob(&part.blob.id, &mut pass)?;
        }
        let found = pass.finish();
        let coverage = upload.record.coverage;
        let sums = match coverage {
            Coverage::FullObject => found.sums,
            Coverage::Composite => composite_sums(upload.record.algorithm, &chosen),
        };
        for (algorithm, raw) in &asked.sums {
            if sums.get(algorithm).is_some_and(|ours| ours != raw) {
                return Err(Refusal::BadDigest(algorithm.header()));
            }
        }
        let record = ObjectRecord {
            key: upload.record.key.clone(),
            described: upload.record.described.clone(),
            etag: parts_etag(chosen.iter().map(|part| &part.record.segment.md5)),
            len,
            sha256: found.sha256,
            modified_ms: self.now_ms(),
            segments: chosen.iter().map(|part| part.record.segment.clone()).collect(),
            upload: Some(upload.id.clone()),
            sums,
            coverage,
        };
        Ok(Object { record, blobs: chosen.into_iter().map(|part| part.blob).collect() })
    }
}

impl Ahead {
    fn new(upload: &Upload) -> Ahead {
        let whole = match upload.record.coverage {
            Coverage::FullObject => upload.record.algorithm,
            Coverage::Composite => None,
        };
        Ahead { pass: Pass::without_md5(whole.as_slice()), blobs: Vec::new() }
    }
}

/// The composite sum of the upload's algorithm; without one, of what every part carries.
fn composite_sums(algorithm: Option<Algorithm>, chosen: &[Part]) -> Sums {
    let mut sums = Sums::new();
    for candidate in Algorithm::ALL {
        if algorithm.unwrap_or(candidate) != candidate || candidate.coverage() == Coverage::FullObject {
            continue;
        }
        let raw: Option<Vec<&[u8]>> =
            chosen.iter().map(|part| part.record.segment.sums.get(&candidate).map(Vec::as_slice)).collect();
        if let Some(raw) = raw {
            sums.insert(candidate, composite(candidate, raw.into_iter()));
        }
    }
    sums
}

/// The parts that a completion names, checked.
fn choose(upload: &Upload, asked: &Completion) -> Result<Vec<Part>, Refusal> {
    if asked.parts.is_empty() {
        return Err(Refusal::InvalidRequest("a completion names at least one part".to_owned()));
    }
    if asked.parts.windows(2).any(|pair| pair[0].number >= pair[1].number) {
        return Err(Refusal::InvalidPartOrder);
    }
    let stored = upload.parts();
    let mut chosen = Vec::with_capacity(asked.parts.len());
    for named in &asked.parts {
        let wrong = || Refusal::InvalidPart(named.number);
        let number = u16::try_from(named.number).map_err(|_| wrong())?;
        let part = stored.get(&number).ok_or_else(wrong)?;
        let segment = &part.record.segment;
        if named.etag.as_ref().is_some_and(|etag| *etag != hex(&segment.md5)) {
            return Err(wrong());
        }
        for (algorithm, raw) in &named.sums {
            let ours = match algorithm {
                Algorithm::Sha256 => Some(segment.sha256.as_slice()),
                other => segment.sums.get(other).map(Vec::as_slice),
            };
            if ours != Some(raw.as_slice()) {
                return Err(wrong());
            }
        }
        chosen.push(part.clone());
    }
    let last = chosen.len() - 1;
    if let Some(small) = chosen[..last].iter().find(|part| part.record.segment.len < limits::PART_BYTES_MIN) {
        return Err(Refusal::EntityTooSmall(small.record.segment.number));
    }
    Ok(chosen)
}
