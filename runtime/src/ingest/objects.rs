//! Owns the operations on buckets and whole objects, durable before they answer. Multipart uploads are in
//! `multipart.rs`, listing in `listing.rs`.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use s3s::dto::StreamingBlob;
use tidegate_core::time::Wall;

use super::body::{Announced, Received};
use super::frozen::Frozen;
use super::limits;
use super::records::{self, BucketRecord, Described, Layout, ObjectRecord, Unwritten};
use super::refusal::Refusal;
use super::spool::{Bucket, Inner, Object, Spool};
use super::sums::{Algorithm, Coverage, Pass, Sums, base64, hex};
use crate::seam::{Disk, DiskFile, Open, Seams};

/// A condition on the object that a request is about to replace or remove.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Condition {
    /// None.
    #[default]
    Any,
    /// There must be no object.
    Absent,
    /// There must be an object, with this ETag (without quotes) if one is given.
    Present(Option<String>),
}

/// What a commit obeys.
#[derive(Debug)]
pub(super) struct Terms {
    /// On the object that is replaced.
    pub(super) condition: Condition,
    /// What must stay.
    pub(super) frozen: Option<Frozen>,
    /// Whether storing the content of a frozen object once more is answered with that object.
    pub(super) same_is_fine: bool,
}

/// What is known of a stored object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Bucket.
    pub bucket: String,
    /// Key.
    pub key: String,
    /// Bytes.
    pub len: u64,
    /// Of the whole content, computed by us while it was received.
    pub sha256: [u8; 32],
    /// Without quotes.
    pub etag: String,
    /// What the uploader said.
    pub described: Described,
    /// When it was stored.
    pub modified: Wall,
    /// The parts of a multipart upload, in order; empty for an object that came in one piece.
    pub parts: Vec<PartInfo>,
    /// The multipart upload that made it.
    pub upload: Option<String>,
    /// `base64-N`, if the parts carried SHA-256.
    pub composite_sha256: Option<String>,
}

/// A stored part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartInfo {
    /// 1 to 10,000.
    pub number: u16,
    /// Bytes.
    pub len: u64,
    /// Computed by us.
    pub sha256: [u8; 32],
    /// Without quotes.
    pub etag: String,
}

impl Object {
    /// What a caller may know of it.
    #[must_use]
    pub fn info(&self, bucket: &str) -> ObjectInfo {
        let record = &self.record;
        let parts = if record.upload.is_some() {
            record.segments.iter().map(super::multipart::part_info).collect()
        } else {
            Vec::new()
        };
        let composite_sha256 = match record.coverage {
            Coverage::Composite => record
                .sums
                .get(&Algorithm::Sha256)
                .map(|raw| format!("{}-{}", base64(raw), record.segments.len())),
            Coverage::FullObject => None,
        };
        ObjectInfo {
            bucket: bucket.to_owned(),
            key: record.key.clone(),
            len: record.len,
            sha256: record.sha256,
            etag: record.etag.clone(),
            described: record.described.clone(),
            modified: Wall(record.modified_ms),
            parts,
            upload: record.upload.clone(),
            composite_sha256,
        }
    }
}

impl<S: Seams> Spool<S> {
    /// Makes a bucket. An existing one is fine.
    ///
    /// # Errors
    /// `InvalidArgument` for a name that the protocol does not allow; those of the disk.
    pub async fn create_bucket(&self, bucket: &str) -> Result<(), Refusal> {
        if !s3s::path::check_bucket_name(bucket) {
            return Err(Refusal::InvalidArgument(format!(
                "{bucket:?} is not a bucket name: 3 to 63 lower-case letters, digits, dots and hyphens"
            )));
        }
        let bucket = bucket.to_owned();
        self.run(move |inner| {
            let _gate = inner.bucket_gate.write().unwrap_or_else(PoisonError::into_inner);
            if inner.index().buckets.contains_key(&bucket) {
                return Ok(());
            }
            let created_ms = inner.now_ms();
            let folder = inner.layout.bucket(&bucket);
            inner.disk().create_dir_all(&folder)?;
            inner.disk().sync_dir(&inner.layout.buckets())?;
            records::write(
                inner.disk(),
                &inner.temporary(),
                &folder,
                Layout::BUCKET,
                &BucketRecord { created_ms },
            )
            .map_err(Unwritten::into_error)?;
            inner.index().buckets.insert(bucket, Bucket { created_ms, objects: BTreeMap::new() });
            Ok(())
        })
        .await
    }

    /// Removes an empty bucket.
    ///
    /// # Errors
    /// `NoSuchBucket`, `BucketNotEmpty`, `OwnBucket`; those of the disk.
    pub async fn delete_bucket(&self, bucket: &str) -> Result<(), Refusal> {
        if self.frozen.as_ref().is_some_and(|frozen| frozen.keeps(bucket)) {
            return Err(Refusal::OwnBucket);
        }
        let bucket = bucket.to_owned();
        self.run(move |inner| {
            let _gate = inner.bucket_gate.write().unwrap_or_else(PoisonError::into_inner);
            {
                let index = inner.index();
                let found = index.buckets.get(&bucket).ok_or(Refusal::NoSuchBucket)?;
                if !found.objects.is_empty() || index.uploads.values().any(|u| u.record.bucket == bucket) {
                    return Err(Refusal::BucketNotEmpty);
                }
            }
            let folder = inner.layout.bucket(&bucket);
            match inner.disk().remove_file(&folder.join(Layout::BUCKET)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
                Ok(()) | Err(_) => {}
            }
            inner.disk().sync_dir(&folder)?;
            inner.index().buckets.remove(&bucket);
            // An empty folder that stays is removed at the next open.
            inner.disk().remove_dir(&folder)?;
            Ok(inner.disk().sync_dir(&inner.layout.buckets())?)
        })
        .await
    }

    /// Buckets in order of their names, and when they were made.
    #[must_use]
    pub fn buckets(&self) -> Vec<(String, Wall)> {
        self.inner.index().buckets.iter().map(|(name, b)| (name.clone(), Wall(b.created_ms))).collect()
    }

    /// Whether a bucket exists.
    #[must_use]
    pub fn has_bucket(&self, bucket: &str) -> bool {
        self.inner.index().buckets.contains_key(bucket)
    }

    /// The object, held: it can be read from the answer even when it is replaced or deleted meanwhile.
    ///
    /// # Errors
    /// `NoSuchBucket`, `NoSuchKey`.
    pub fn object(&self, bucket: &str, key: &str) -> Result<Arc<Object>, Refusal> {
        self.inner.object(bucket, key)
    }

    /// What is known of an object; `None` if there is none. Waits for a commit to this key that is under way: it may
    /// have begun before the key was frozen.
    pub async fn head(&self, bucket: &str, key: &str) -> Option<ObjectInfo> {
        let (bucket, key) = (bucket.to_owned(), key.to_owned());
        self.run(move |inner| {
            let _key = inner.key_lock(&key);
            inner.object(&bucket, &key).ok().map(|object| object.info(&bucket))
        })
        .await
    }

    /// Every object of a bucket in order of the keys; empty without the bucket.
    #[must_use]
    pub fn list_all(&self, bucket: &str) -> Vec<ObjectInfo> {
        let index = self.inner.index();
        let objects = index.buckets.get(bucket).map(|found| found.objects.values());
        objects.into_iter().flatten().map(|object| object.info(bucket)).collect()
    }

    /// The first keys of a bucket, in their order, that are as wanted.
    #[must_use]
    pub fn keys_where(&self, bucket: &str, most: usize, is_wanted: impl Fn(&str) -> bool) -> Vec<String> {
        let index = self.inner.index();
        let keys = index.buckets.get(bucket).into_iter().flat_map(|found| found.objects.keys());
        keys.filter(|key| is_wanted(key)).take(most).map(|key| key.to_string()).collect()
    }

    /// Stores an object from a body. The very content that is there and frozen is fine and changes nothing.
    ///
    /// # Errors
    /// `Frozen`; what the announcement or the condition says, those of the bucket and key, and those of the disk.
    pub async fn put(
        &self,
        bucket: &str,
        key: &str,
        described: Described,
        body: Option<StreamingBlob>,
        announced: Announced,
        condition: Condition,
    ) -> Result<Arc<Object>, Refusal> {
        check_key(key)?;
        check_described(&described)?;
        if !self.has_bucket(bucket) {
            return Err(Refusal::NoSuchBucket);
        }
        let Received { segment, blob } = self.receive(body, announced).await?;
        let (bucket, key) = (bucket.to_owned(), key.to_owned());
        let terms = Terms { condition, frozen: self.frozen.clone(), same_is_fine: true };
        self.run(move |inner| {
            let mut sums = segment.sums.clone();
            sums.insert(Algorithm::Sha256, segment.sha256.to_vec());
            let record = ObjectRecord {
                key,
                described,
                etag: hex(&segment.md5),
                len: segment.len,
                sha256: segment.sha256,
                modified_ms: inner.now_ms(),
                segments: vec![segment],
                upload: None,
                sums,
                coverage: Coverage::FullObject,
            };
            inner.commit(&bucket, Object { record, blobs: vec![blob] }, &terms)
        })
        .await
    }

    /// Stores an object of a few bytes.
    ///
    /// # Errors
    /// As [`Spool::put`].
    pub async fn put_bytes(
        &self,
        bucket: &str,
        key: &str,
        described: Described,
        bytes: Bytes,
    ) -> Result<ObjectInfo, Refusal> {
        let body = StreamingBlob::from(s3s::Body::from(bytes));
        let put = self.put(bucket, key, described, Some(body), Announced::default(), Condition::Any);
        Ok(put.await?.info(bucket))
    }

    /// Copies an object without copying its bytes. `described` replaces what the first uploader said.
    ///
    /// # Errors
    /// `NoSuchBucket`, `NoSuchKey`, `Frozen`; those of the condition, the key and the disk.
    pub async fn copy(
        &self,
        source: Arc<Object>,
        bucket: &str,
        key: &str,
        described: Option<Described>,
        condition: Condition,
    ) -> Result<Arc<Object>, Refusal> {
        check_key(key)?;
        if let Some(described) = &described {
            check_described(described)?;
        }
        let (bucket, key) = (bucket.to_owned(), key.to_owned());
        let terms = Terms { condition, frozen: self.frozen.clone(), same_is_fine: false };
        self.run(move |inner| {
            let mut record = source.record.clone();
            record.key = key;
            record.modified_ms = inner.now_ms();
            if let Some(described) = described {
                record.described = described;
            }
            inner.commit(&bucket, Object { record, blobs: source.blobs.clone() }, &terms)
        })
        .await
    }

    /// Removes an object durably. A missing one is fine.
    ///
    /// # Errors
    /// `NoSuchBucket`, `Frozen`, `PreconditionFailed`; those of the disk.
    pub async fn delete_if(&self, bucket: &str, key: &str, condition: Condition) -> Result<(), Refusal> {
        let (bucket, key) = (bucket.to_owned(), key.to_owned());
        let frozen = self.frozen.clone();
        self.run(move |inner| {
            let _gate = inner.bucket_gate.read().unwrap_or_else(PoisonError::into_inner);
            let _key = inner.key_lock(&key);
            let object = match inner.object(&bucket, &key) {
                Ok(object) => object,
                Err(Refusal::NoSuchKey) => return condition.check(None),
                Err(refusal) => return Err(refusal),
            };
            condition.check(Some(&object))?;
            if frozen.is_some_and(|frozen| frozen.holds(&bucket, &key)) {
                return Err(Refusal::Frozen);
            }
            let folder = inner.layout.bucket(&bucket);
            match inner.disk().remove_file(&folder.join(Layout::object_name(&key))) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
                Ok(()) | Err(_) => {}
            }
            if let Some(found) = inner.index().buckets.get_mut(&bucket) {
                found.objects.remove(&key);
            }
            inner.disk().sync_dir(&folder).map_err(|error| {
                // The record may come back after a power loss: its bytes must be there then.
                inner.keep_until_restart(object);
                error.into()
            })
        })
        .await
    }

    /// Removes an object durably. A missing one is fine.
    ///
    /// # Errors
    /// As [`Spool::delete_if`].
    pub async fn delete(&self, bucket: &str, key: &str) -> Result<(), Refusal> {
        self.delete_if(bucket, key, Condition::Any).await
    }

    /// Bytes of an object; fewer than `len` at its end.
    ///
    /// # Errors
    /// `NoSuchBucket`, `NoSuchKey`, `InvalidRange` beyond the end; those of the disk.
    pub async fn read_span(
        &self,
        bucket: &str,
        key: &str,
        offset: u64,
        len: usize,
    ) -> Result<Bytes, Refusal> {
        let object = self.inner.object(bucket, key)?;
        if offset > object.record.len {
            return Err(Refusal::InvalidRange);
        }
        self.read_object(object, offset, len).await
    }

    /// The same of a held object.
    ///
    /// # Errors
    /// Those of the disk.
    pub async fn read_object(&self, object: Arc<Object>, offset: u64, len: usize) -> Result<Bytes, Refusal> {
        self.map_object(object, offset, len, Bytes::from).await
    }

    /// The same bytes handed to `work`, which may block and compute for long; what that made of them.
    ///
    /// # Errors
    /// Those of the disk.
    pub async fn map_object<T: Send + 'static>(
        &self,
        object: Arc<Object>,
        offset: u64,
        len: usize,
        work: impl FnOnce(Vec<u8>) -> T + Send + 'static,
    ) -> Result<T, Refusal> {
        self.run(move |inner| {
            let rest = object.record.len.saturating_sub(offset);
            let mut buf = vec![0; len.min(usize::try_from(rest).unwrap_or(usize::MAX))];
            inner.read(&object, offset, &mut buf)?;
            Ok(work(buf))
        })
        .await
    }

    /// SHA-256 and length of the bytes on disk now, read again.
    ///
    /// # Errors
    /// `NoSuchBucket`, `NoSuchKey`; those of the disk.
    pub async fn digest(&self, bucket: &str, key: &str) -> Result<([u8; 32], u64), Refusal> {
        let object = self.inner.object(bucket, key)?;
        self.run(move |inner| {
            let mut pass = Pass::without_md5(&[]);
            let mut len = 0;
            for segment in &object.record.segments {
                len += inner.hash_blob(&segment.blob, &mut pass)?;
            }
            Ok((pass.finish().sha256, len))
        })
        .await
    }
}

impl<S: Seams> Inner<S> {
    pub(super) fn object(&self, bucket: &str, key: &str) -> Result<Arc<Object>, Refusal> {
        let index = self.index();
        let found = index.buckets.get(bucket).ok_or(Refusal::NoSuchBucket)?;
        found.objects.get(key).cloned().ok_or(Refusal::NoSuchKey)
    }

    /// Makes an object visible: its record is written, then indexed. What it replaces goes with its last reader. The
    /// answer is the object that is there then.
    pub(super) fn commit(&self, bucket: &str, object: Object, terms: &Terms) -> Result<Arc<Object>, Refusal> {
        let _gate = self.bucket_gate.read().unwrap_or_else(PoisonError::into_inner);
        let key = object.record.key.clone();
        let _key = self.key_lock(&key);
        match self.object(bucket, &key) {
            Ok(old) => {
                terms.condition.check(Some(&old))?;
                if terms.frozen.as_ref().is_some_and(|frozen| frozen.holds(bucket, &key)) {
                    let same = |a: &ObjectRecord, b: &ObjectRecord| (a.len, a.sha256) == (b.len, b.sha256);
                    let fine = terms.same_is_fine && same(&old.record, &object.record);
                    return if fine { Ok(old) } else { Err(Refusal::Frozen) };
                }
            }
            // One that was lost may be brought back: there is nothing to protect.
            Err(Refusal::NoSuchKey) => terms.condition.check(None)?,
            Err(refusal) => return Err(refusal),
        }
        let object = Arc::new(object);
        let folder = self.layout.bucket(bucket);
        let name = Layout::object_name(&key);
        let written = records::write(self.disk(), &self.temporary(), &folder, &name, &object.record);
        if let Err(Unwritten::Clean(error)) = written {
            return Err(error.into());
        }
        let replaced = match self.index().buckets.get_mut(bucket) {
            Some(found) => found.objects.insert(key, object.clone()),
            None => return Err(Refusal::NoSuchBucket),
        };
        if let Err(Unwritten::Doubtful(error)) = written {
            if let Some(replaced) = replaced {
                self.keep_until_restart(replaced);
            }
            self.keep_until_restart(object);
            return Err(error.into());
        }
        Ok(object)
    }

    /// Gives up the right to remove the bytes of an object while this process lives.
    pub(super) fn keep_until_restart(&self, object: Arc<Object>) {
        tracing::warn!(
            key = object.record.key,
            "the disk did not sync a folder; old content stays until restart"
        );
        std::mem::forget(object);
    }

    fn read(&self, object: &Object, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let (mut start, mut filled) = (0, 0);
        for segment in &object.record.segments {
            let end = start + segment.len;
            let at = offset + filled as u64;
            if filled < buf.len() && at < end {
                let take = (buf.len() - filled).min(usize::try_from(end - at).unwrap_or(usize::MAX));
                let file = self.disk().open(&self.layout.blob(&segment.blob), Open::Read)?;
                file.read_exact_at(&mut buf[filled..filled + take], at - start)?;
                filled += take;
            }
            start = end;
        }
        if filled == buf.len() { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    /// Adds the bytes of a blob to a pass and says how many they were.
    pub(super) fn hash_blob(&self, blob: &str, pass: &mut Pass) -> io::Result<u64> {
        let file = self.disk().open(&self.layout.blob(blob), Open::Read)?;
        let len = file.len()?;
        let mut buf = vec![0; limits::READ_CHUNK];
        let mut at = 0;
        while at < len {
            let take = usize::try_from(len - at).unwrap_or(usize::MAX).min(buf.len());
            file.read_exact_at(&mut buf[..take], at)?;
            pass.update(&buf[..take]);
            at += take as u64;
        }
        Ok(len)
    }
}

impl Condition {
    /// Whether `object` meets the condition; `PreconditionFailed` or `NoSuchKey` otherwise.
    pub(super) fn check(&self, object: Option<&Object>) -> Result<(), Refusal> {
        match (self, object) {
            (Condition::Any, _) | (Condition::Absent, None) | (Condition::Present(None), Some(_)) => Ok(()),
            (Condition::Present(Some(etag)), Some(object)) if *etag == object.record.etag => Ok(()),
            (Condition::Present(_), None) => Err(Refusal::NoSuchKey),
            (Condition::Absent | Condition::Present(Some(_)), Some(_)) => Err(Refusal::PreconditionFailed),
        }
    }
}

pub(super) fn check_key(key: &str) -> Result<(), Refusal> {
    if key.is_empty() || key.len() > limits::KEY_BYTES_MAX {
        return Err(Refusal::InvalidArgument("a key has 1 to 1024 bytes".to_owned()));
    }
    Ok(())
}

pub(super) fn check_described(described: &Described) -> Result<(), Refusal> {
    let bytes: usize = described.metadata.iter().map(|(name, value)| name.len() + value.len()).sum();
    if bytes > limits::METADATA_BYTES_MAX { Err(Refusal::MetadataTooLarge) } else { Ok(()) }
}

/// Sums as the protocol writes them.
pub(super) fn written_sum(sums: &Sums, algorithm: Algorithm, parts: Option<usize>) -> Option<String> {
    sums.get(&algorithm).map(|raw| match parts {
        Some(count) => format!("{}-{count}", base64(raw)),
        None => base64(raw),
    })
}
