//! Owns how the core's operations are executed on the site's own store: in this process, without HTTP. Decides
//! nothing; what the spool refuses is turned into a fault and handed back.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use tidegate_core::digest::Sha256;
use tidegate_core::id::{DeviceId, ETag, ObjectKey, PartNo, UploadId, WireId};
use tidegate_core::limits::FOUND_MAX;
use tidegate_core::object::{Got, ListedPart, ObjectFacts, ObjectReply, Span, Verb, Want, is_recording_of};
use tidegate_core::outcome::{Fault, Outcome, What};

use super::checksum::{self, CHECKSUM_METADATA};
use super::reduce::Reduction;
use super::{Boxed, ObjectStore, SourceRead, disk_fault};
use crate::ingest::{Condition, Object, ObjectInfo, Refusal, Spool, UploadInfo};
use crate::seam::Seams;

/// Bytes read at once while an object is reduced to facts: large enough to hide the cost of a read.
const READ_CHUNK: usize = 1 << 20;

/// The site's own store, as the core sees it: one bucket of the [`Spool`].
#[derive(Debug)]
pub struct EdgeStore<S: Seams> {
    spool: Spool<S>,
    bucket: String,
}

impl<S: Seams> Clone for EdgeStore<S> {
    fn clone(&self) -> Self {
        EdgeStore { spool: self.spool.clone(), bucket: self.bucket.clone() }
    }
}

impl<S: Seams> EdgeStore<S> {
    /// The store over `bucket` of `spool`. Until the bucket is made, operations that need it answer `NoDestination`.
    #[must_use]
    pub fn new(spool: Spool<S>, bucket: impl Into<String>) -> EdgeStore<S> {
        EdgeStore { spool, bucket: bucket.into() }
    }

    async fn execute(&self, key: &ObjectKey, verb: &Verb) -> Result<ObjectReply, Fault> {
        let name = key.as_str();
        match verb {
            Verb::Head => {
                Ok(ObjectReply::Head(self.spool.head(&self.bucket, name).await.map(|info| facts(&info))))
            }
            Verb::Get { span, want } => self.get(name, *span, *want).await.map(ObjectReply::Got),
            Verb::Put { source, len, sha256 } => {
                self.copy(name, source.as_str(), *len, *sha256).await.map(ObjectReply::Put)
            }
            // Devices make the multipart objects here; the core only copies, reads and removes.
            Verb::Create { .. } | Verb::PutPart { .. } | Verb::Complete { .. } => {
                Err(Fault::Rejected("edge".to_owned()))
            }
            Verb::Abort { upload } => {
                match self.spool.abort_upload(&self.bucket, name, upload.as_str()).await {
                    Ok(()) | Err(Refusal::NoSuchUpload) => Ok(ObjectReply::Aborted),
                    Err(refusal) => Err(fault(refusal)),
                }
            }
            Verb::ListParts { upload } => {
                let open = self.uploads(name).into_iter().find(|open| open.id == upload.as_str());
                Ok(ObjectReply::Parts(open.map(|open| open.parts.iter().map(listed).collect())))
            }
            Verb::ListUploads => {
                let open = self.uploads(name).into_iter().map(|open| UploadId::new(open.id)).collect();
                Ok(ObjectReply::Uploads(open))
            }
            Verb::Delete => {
                self.spool.delete(&self.bucket, name).await.map_err(fault)?;
                self.abort_all(name).await.map_err(fault)?;
                Ok(ObjectReply::Deleted)
            }
            Verb::Find { device, wire } => Ok(ObjectReply::Found(self.find(device, wire))),
        }
    }

    /// Ends what is left at a key whose object goes. A device that is cut off in the middle of an upload begins again
    /// under another id; nobody completes the first one, and its parts are as large as a recording.
    async fn abort_all(&self, key: &str) -> Result<(), Refusal> {
        for open in self.uploads(key) {
            match self.spool.abort_upload(&self.bucket, key, &open.id).await {
                Ok(()) | Err(Refusal::NoSuchUpload) => {}
                Err(refusal) => return Err(refusal),
            }
        }
        Ok(())
    }

    /// The bytes are read again from the disk: what was computed while they arrived proves nothing about them now.
    async fn get(&self, key: &str, span: Option<Span>, want: Want) -> Result<Got, Fault> {
        let object = self.spool.object(&self.bucket, key).map_err(fault)?;
        self.reduce(&object, span, want).await
    }

    async fn reduce(&self, object: &Arc<Object>, span: Option<Span>, want: Want) -> Result<Got, Fault> {
        let whole = object.record.len;
        let (mut at, end) = match span {
            None => (0, whole),
            Some(span) => (span.offset, span.offset.saturating_add(span.len).min(whole)),
        };
        if at > whole {
            return Err(Fault::Damaged(What::Object));
        }
        let mut reduction = Reduction::new(want);
        while at < end {
            let take = usize::try_from(end - at).unwrap_or(usize::MAX).min(READ_CHUNK);
            // Digests are computed where the disk is waited for: here they would hold up everything else.
            let push = move |bytes: Vec<u8>| {
                reduction.push(&bytes);
                (reduction, bytes.len() as u64)
            };
            let (pushed, read) =
                self.spool.map_object(object.clone(), at, take, push).await.map_err(fault)?;
            if read == 0 {
                return Err(Fault::Damaged(What::Object));
            }
            at += read;
            reduction = pushed;
        }
        Ok(reduction.finish())
    }

    /// Within the spool a copy shares the bytes of its source.
    async fn copy(&self, key: &str, source: &str, len: u64, sha256: Sha256) -> Result<ETag, Fault> {
        let of_source = |fault| match fault {
            Fault::Vanished(What::Object) => Fault::Vanished(What::Source),
            Fault::Damaged(What::Object) => Fault::Damaged(What::Source),
            other => other,
        };
        let object = self.spool.object(&self.bucket, source).map_err(|refusal| of_source(fault(refusal)))?;
        let found = self.reduce(&object, None, Want::Digest).await.map_err(of_source)?;
        if found != (Got::Digest { len, sha256 }) {
            return Err(Fault::Damaged(What::Source));
        }
        let mut described = object.record.described.clone();
        described.metadata = BTreeMap::from([(CHECKSUM_METADATA.to_owned(), sha256.to_string())]);
        let copied = self.spool.copy(object, &self.bucket, key, Some(described), Condition::Any).await;
        Ok(ETag::new(&copied.map_err(fault)?.record.etag))
    }

    /// The objects that are named as this recording is. Looks at names in memory, not at the disk.
    fn find(&self, device: &DeviceId, wire: &WireId) -> Vec<ObjectKey> {
        let names = self.spool.keys_where(&self.bucket, FOUND_MAX, |key| is_recording_of(key, device, wire));
        names.iter().filter_map(|name| ObjectKey::new(name).ok()).collect()
    }

    /// The open uploads of exactly this key, oldest first.
    fn uploads(&self, key: &str) -> Vec<UploadInfo> {
        let mut open: Vec<_> =
            self.spool.list_uploads(&self.bucket).into_iter().filter(|open| open.key == key).collect();
        open.sort_by(|a, b| (a.initiated, &a.id).cmp(&(b.initiated, &b.id)));
        open
    }

    fn object(&self, key: &ObjectKey) -> io::Result<Arc<Object>> {
        self.spool.object(&self.bucket, key.as_str()).map_err(error)
    }
}

impl<S: Seams> ObjectStore for EdgeStore<S> {
    fn run<'a>(&'a self, key: &'a ObjectKey, verb: &'a Verb) -> Boxed<'a, Outcome<ObjectReply>> {
        Box::pin(async move {
            match self.execute(key, verb).await {
                Ok(reply) => Outcome::Done(reply),
                Err(fault) => Outcome::Failed(fault),
            }
        })
    }
}

impl<S: Seams> SourceRead for EdgeStore<S> {
    fn len<'a>(&'a self, key: &'a ObjectKey) -> Boxed<'a, io::Result<u64>> {
        Box::pin(async move { Ok(self.object(key)?.record.len) })
    }

    fn read<'a>(&'a self, key: &'a ObjectKey, span: Span) -> Boxed<'a, io::Result<Bytes>> {
        Box::pin(async move {
            let object = self.object(key)?;
            let len = usize::try_from(span.len).map_err(|_| io::ErrorKind::InvalidInput)?;
            // Asked before the buffer is made: a span is not believed to fit the memory.
            if span.offset.checked_add(span.len).is_none_or(|end| end > object.record.len) {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.spool.read_object(object, span.offset, len).await.map_err(error)
        })
    }
}

fn facts(info: &ObjectInfo) -> ObjectFacts {
    let announced = info.described.metadata.get(CHECKSUM_METADATA);
    ObjectFacts {
        len: info.len,
        etag: ETag::new(&info.etag),
        sha256: Some(Sha256(info.sha256)),
        composite: info.composite_sha256.as_deref().and_then(checksum::composite_from),
        announced: announced.and_then(|text| Sha256::from_hex(text)),
    }
}

fn listed(part: &crate::ingest::PartInfo) -> ListedPart {
    ListedPart {
        part: PartNo(part.number),
        etag: ETag::new(&part.etag),
        len: part.len,
        sha256: Some(Sha256(part.sha256)),
    }
}

fn fault(refusal: Refusal) -> Fault {
    match refusal {
        Refusal::NoSuchBucket => Fault::NoDestination,
        Refusal::NoSuchKey => Fault::Vanished(What::Object),
        Refusal::NoSuchUpload => Fault::Vanished(What::Upload),
        Refusal::InvalidPart(_) => Fault::Vanished(What::Part),
        Refusal::BadDigest(_) | Refusal::InvalidRange => Fault::Damaged(What::Object),
        Refusal::Disk(error) => disk_fault(error.kind(), What::Object),
        Refusal::Full => Fault::Local(io::ErrorKind::StorageFull.to_string()),
        Refusal::Frozen => Fault::Rejected("ObjectFrozen".to_owned()),
        Refusal::OwnBucket => Fault::Rejected("AccessDenied".to_owned()),
        Refusal::BucketNotEmpty => Fault::Rejected("BucketNotEmpty".to_owned()),
        Refusal::InvalidArgument(_) => Fault::Rejected("InvalidArgument".to_owned()),
        Refusal::InvalidRequest(_) => Fault::Rejected("InvalidRequest".to_owned()),
        Refusal::InvalidPartOrder => Fault::Rejected("InvalidPartOrder".to_owned()),
        Refusal::EntityTooSmall(_) => Fault::Rejected("EntityTooSmall".to_owned()),
        Refusal::InvalidDigest(_) => Fault::Rejected("InvalidDigest".to_owned()),
        Refusal::IncompleteBody(_) => Fault::Rejected("IncompleteBody".to_owned()),
        Refusal::Signature => Fault::Rejected("SignatureDoesNotMatch".to_owned()),
        Refusal::PreconditionFailed => Fault::Rejected("PreconditionFailed".to_owned()),
        Refusal::NotModified => Fault::Rejected("NotModified".to_owned()),
        Refusal::MetadataTooLarge => Fault::Rejected("MetadataTooLarge".to_owned()),
        Refusal::Timeout => Fault::Rejected("RequestTimeout".to_owned()),
        Refusal::SlowDown(_) | Refusal::Closed(_) => Fault::Throttled { retry_after_ms: None },
    }
}

fn error(refusal: Refusal) -> io::Error {
    match refusal {
        Refusal::Disk(error) => error,
        Refusal::NoSuchBucket | Refusal::NoSuchKey => io::Error::new(io::ErrorKind::NotFound, refusal),
        Refusal::InvalidRange => io::Error::new(io::ErrorKind::UnexpectedEof, refusal),
        other => io::Error::other(other),
    }
}

#[cfg(test)]
mod tests;
