//! Owns the operations: each asks the store once and says what came of it. Chooses no part, no retry and no order.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::operation::head_object::HeadObjectOutput;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{
    ChecksumAlgorithm, ChecksumMode, ChecksumType, CompletedMultipartUpload, CompletedPart,
};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use bytes::Bytes;
use tidegate_core::digest::Sha256;
use tidegate_core::id::{ETag, ObjectKey, PartNo, UploadId};
use tidegate_core::limits;
use tidegate_core::object::{Composite, ObjectFacts, ObjectReply, PartFacts, Span, Verb, Want};
use tidegate_core::outcome::{Fault, Outcome, What};
use tidegate_runtime::object::checksum::{self, CHECKSUM_METADATA};
use tidegate_runtime::object::reduce::Reduction;
use tidegate_runtime::object::{Boxed, ObjectStore, SourceRead, disk_fault};
use tidegate_runtime::seam::{Blocking, Clock, Seams};
use tidegate_runtime::timeouts::{Op, Timeouts};
use tokio::time::Instant;

use crate::client;
use crate::config::{CloudConfig, SetupError};
use crate::connect;
use crate::fault::{self, Ending};
use crate::signature::SignedBy;

/// The destination, as the core sees it: one bucket of an S3 store.
pub struct CloudStore<S: Seams> {
    pub(crate) client: Client,
    pub(crate) bucket: String,
    attempt_timeout: Duration,
    timeouts: Timeouts,
    source: Arc<dyn SourceRead>,
    seams: S,
}

impl<S: Seams> fmt::Debug for CloudStore<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CloudStore").field("bucket", &self.bucket).finish_non_exhaustive()
    }
}

/// Why an operation did not give a reply.
pub(crate) enum Stop {
    /// We know before asking the store.
    Here(Fault),
    /// The attempt ended without success.
    There(Ending),
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Stop {
        Stop::Here(fault)
    }
}

/// An answer that lacks what it must have is no answer.
pub(crate) const LOST: Stop = Stop::There(Ending::Lost);

impl<S: Seams> CloudStore<S> {
    /// A store that uploads what `source` holds. Connects when it is first used.
    ///
    /// # Errors
    /// [`SetupError`], if the configuration cannot work or, for https, the system has no root certificates.
    pub fn new(
        seams: S,
        config: &CloudConfig,
        source: Arc<dyn SourceRead>,
        timeouts: Timeouts,
    ) -> Result<CloudStore<S>, SetupError> {
        Ok(CloudStore {
            client: client::client(&seams, config, &timeouts)?,
            timeouts,
            bucket: config.bucket.clone(),
            attempt_timeout: config.attempt_timeout,
            source,
            seams,
        })
    }

    async fn execute(&self, key: &ObjectKey, verb: &Verb) -> Result<ObjectReply, Stop> {
        match verb {
            Verb::Head => self.head(key).await,
            Verb::Get { span, want } => self.get(key, *span, *want).await,
            Verb::Put { source, len, sha256 } => self.put(key, source, *len, *sha256).await,
            Verb::Create { sha256 } => self.create(key, *sha256).await,
            Verb::PutPart { upload, part, source, span } => {
                self.put_part(key, upload, *part, source, *span).await
            }
            Verb::Complete { upload, parts } => self.complete(key, upload, parts).await,
            Verb::Abort { upload } => self.abort(key, upload).await,
            Verb::ListParts { upload } => self.list_parts(key, upload).await,
            Verb::ListUploads => self.list_uploads(key).await,
            Verb::Delete => self.delete(key).await,
            // Only the site's own store is asked for names: keys in the cloud are ours, and known.
            Verb::Find { .. } => Err(Fault::Rejected("cloud".to_owned()).into()),
        }
    }

    async fn head(&self, key: &ObjectKey) -> Result<ObjectReply, Stop> {
        let asked = self.client.head_object().bucket(&self.bucket).key(key.as_str());
        let found = asked.checksum_mode(ChecksumMode::Enabled).send().await;
        let found = found.map_err(|error| self.stop(&error))?;
        Ok(ObjectReply::Head(Some(facts(&found).ok_or(LOST)?)))
    }

    /// Bytes stream by; no more of them are kept than a sidecar may have.
    async fn get(&self, key: &ObjectKey, span: Option<Span>, want: Want) -> Result<ObjectReply, Stop> {
        let mut asked = self.client.get_object().bucket(&self.bucket).key(key.as_str());
        if let Some(Span { offset, len }) = span {
            // The protocol has no way to ask for nothing.
            let last = len.checked_sub(1).and_then(|last| offset.checked_add(last));
            let last = last.ok_or_else(|| Fault::Rejected("empty span".to_owned()))?;
            asked = asked.range(format!("bytes={offset}-{last}"));
        }
        let mut answer = asked.send().await.map_err(|error| self.stop(&error))?;
        tag(answer.e_tag.as_deref())?;
        if span.is_some() && answer.content_range.is_none() {
            // A store that ignores ranges sends the whole: its digest would not be the span's.
            return Err(Fault::Rejected("ranges are not supported".to_owned()).into());
        }
        let mut reduction = Reduction::new(want);
        while let Some(bytes) = answer.body.next().await {
            let bytes = bytes.inspect_err(|error| {
                if connect::is_silence(error) {
                    let (limit, target) = (self.attempt_timeout, format!("get {key}"));
                    self.timeouts.out(Op::StoreSilence, &target, limit, limit);
                }
            });
            reduction.push(&bytes.map_err(|_| LOST)?);
        }
        Ok(ObjectReply::Got(reduction.finish()))
    }

    async fn put(
        &self,
        key: &ObjectKey,
        source: &ObjectKey,
        len: u64,
        sha256: Sha256,
    ) -> Result<ObjectReply, Stop> {
        if len > limits::PART_BYTES_MAX {
            // It is held in memory; larger ones are sent in parts.
            return Err(Fault::Rejected("EntityTooLarge".to_owned()).into());
        }
        let damaged = Fault::Damaged(What::Source);
        let found = self.source.len(source).await.map_err(|error| disk_fault(error.kind(), What::Source))?;
        if found != len {
            return Err(damaged.into());
        }
        let bytes = self.read(source, Span { offset: 0, len }).await?;
        if self.digest(&bytes).await != sha256 {
            return Err(damaged.into());
        }
        let sum = checksum::to_base64(sha256);
        let asked = self.client.put_object().bucket(&self.bucket).key(key.as_str());
        let asked = asked
            .content_type(content_type(key))
            .checksum_sha256(&sum)
            .metadata(CHECKSUM_METADATA, sha256.to_string())
            .body(ByteStream::from(bytes))
            .customize()
            .interceptor(SignedBy(sha256))
            .config_override(client::with_body(self.attempt_timeout, len));
        let answer = asked.send().await.map_err(|error| self.stop(&error))?;
        if answer.checksum_sha256.is_some_and(|theirs| theirs != sum) {
            return Err(Fault::Damaged(What::Object).into());
        }
        Ok(ObjectReply::Put(tag(answer.e_tag.as_deref())?))
    }

    async fn create(&self, key: &ObjectKey, sha256: Sha256) -> Result<ObjectReply, Stop> {
        let asked = self.client.create_multipart_upload().bucket(&self.bucket).key(key.as_str());
        let asked = asked
            .content_type(content_type(key))
            .checksum_algorithm(ChecksumAlgorithm::Sha256)
            .checksum_type(ChecksumType::Composite)
            .metadata(CHECKSUM_METADATA, sha256.to_string());
        let answer = asked.send().await.map_err(|error| self.stop(&error))?;
        let id = answer.upload_id.filter(|id| !id.is_empty()).ok_or(LOST)?;
        Ok(ObjectReply::Created(UploadId::new(id)))
    }

    async fn put_part(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        part: PartNo,
        source: &ObjectKey,
        span: Span,
    ) -> Result<ObjectReply, Stop> {
        if span.len > limits::PART_BYTES_MAX {
            return Err(Fault::Rejected("EntityTooLarge".to_owned()).into());
        }
        let bytes = self.read(source, span).await?;
        let sha256 = self.digest(&bytes).await;
        let sum = checksum::to_base64(sha256);
        let asked = self.client.upload_part().bucket(&self.bucket).key(key.as_str());
        let asked = asked
            .upload_id(upload.as_str())
            .part_number(i32::from(part.0))
            .checksum_sha256(&sum)
            .body(ByteStream::from(bytes))
            .customize()
            .interceptor(SignedBy(sha256))
            .config_override(client::with_body(self.attempt_timeout, span.len));
        let answer = asked.send().await.map_err(|error| self.stop(&error))?;
        if answer.checksum_sha256.is_some_and(|theirs| theirs != sum) {
            return Err(Fault::Damaged(What::Part).into());
        }
        let etag = tag(answer.e_tag.as_deref())?;
        Ok(ObjectReply::PartStored(PartFacts { etag, sha256, len: span.len }))
    }

    async fn complete(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        parts: &[(PartNo, PartFacts)],
    ) -> Result<ObjectReply, Stop> {
        let named = parts.iter().map(|(number, part)| {
            CompletedPart::builder()
                .part_number(i32::from(number.0))
                .e_tag(format!("\"{}\"", part.etag))
                .checksum_sha256(checksum::to_base64(part.sha256))
                .build()
        });
        let named = CompletedMultipartUpload::builder().set_parts(Some(named.collect())).build();
        let asked = self.client.complete_multipart_upload().bucket(&self.bucket).key(key.as_str());
        let asked = asked.upload_id(upload.as_str()).multipart_upload(named);
        let answer = asked.send().await.map_err(|error| self.stop(&error))?;
        Ok(ObjectReply::Completed(tag(answer.e_tag.as_deref())?))
    }

    async fn abort(&self, key: &ObjectKey, upload: &UploadId) -> Result<ObjectReply, Stop> {
        let asked = self.client.abort_multipart_upload().bucket(&self.bucket).key(key.as_str());
        asked.upload_id(upload.as_str()).send().await.map_err(|error| self.stop(&error))?;
        Ok(ObjectReply::Aborted)
    }

    async fn delete(&self, key: &ObjectKey) -> Result<ObjectReply, Stop> {
        let asked = self.client.delete_object().bucket(&self.bucket).key(key.as_str());
        asked.send().await.map_err(|error| self.stop(&error))?;
        Ok(ObjectReply::Deleted)
    }

    async fn read(&self, source: &ObjectKey, span: Span) -> Result<Bytes, Stop> {
        if span.len == 0 {
            return Ok(Bytes::new());
        }
        let bytes = self.source.read(source, span).await;
        let bytes = bytes.map_err(|error| disk_fault(error.kind(), What::Source))?;
        if bytes.len() as u64 != span.len {
            return Err(Fault::Damaged(What::Source).into());
        }
        Ok(bytes)
    }

    async fn digest(&self, bytes: &Bytes) -> Sha256 {
        let bytes = bytes.clone();
        self.seams.blocking().run(move || Sha256::of(&bytes)).await
    }

    pub(crate) fn stop<E: ProvideErrorMetadata>(&self, error: &SdkError<E, HttpResponse>) -> Stop {
        Stop::There(fault::ending(error, self.seams.clock().now().wall))
    }
}

impl<S: Seams> ObjectStore for CloudStore<S> {
    fn run<'a>(&'a self, key: &'a ObjectKey, verb: &'a Verb) -> Boxed<'a, Outcome<ObjectReply>> {
        Box::pin(async move {
            let begun = Instant::now();
            match self.execute(key, verb).await {
                Ok(reply) => Outcome::Done(reply),
                Err(Stop::Here(fault)) => Outcome::Failed(fault),
                Err(Stop::There(ending)) => {
                    if ending == Ending::TimedOut {
                        let budget = client::budget(self.attempt_timeout, body_len(verb));
                        let target = format!("{} {key}", verb.name());
                        self.timeouts.out(Op::StoreAttempt, &target, budget, begun.elapsed());
                    }
                    tracing::debug!(verb = verb.name(), %key, ?ending, "the store gave no reply");
                    fault::outcome(verb, ending)
                }
            }
        })
    }
}

/// Bytes that the request of an operation carries.
fn body_len(verb: &Verb) -> u64 {
    match verb {
        Verb::Put { len, .. } => *len,
        Verb::PutPart { span, .. } => span.len,
        Verb::Head
        | Verb::Get { .. }
        | Verb::Create { .. }
        | Verb::Complete { .. }
        | Verb::Abort { .. }
        | Verb::ListParts { .. }
        | Verb::ListUploads
        | Verb::Find { .. }
        | Verb::Delete => 0,
    }
}

/// `None` if the answer does not even say how long the object is, or has no tag: every store tags its objects, and who
/// answers in its place does not.
fn facts(found: &HeadObjectOutput) -> Option<ObjectFacts> {
    let (sha256, composite) = sums(found);
    let announced = found.metadata.as_ref().and_then(|metadata| metadata.get(CHECKSUM_METADATA));
    Some(ObjectFacts {
        len: found.content_length.and_then(|len| u64::try_from(len).ok())?,
        etag: ETag::new(found.e_tag.as_deref().filter(|tag| !tag.is_empty())?),
        sha256,
        composite,
        announced: announced.and_then(|text| Sha256::from_hex(text)),
    })
}

/// The checksum of the content, and the one of the parts. S3 marks the latter by the number of parts behind a dash.
/// Some stores leave that off: then the type of the checksum tells, or a tag that is one of parts.
fn sums(found: &HeadObjectOutput) -> (Option<Sha256>, Option<Composite>) {
    let Some(sum) = found.checksum_sha256.as_deref() else { return (None, None) };
    if let Some(composite) = checksum::composite_from(sum) {
        return (None, Some(composite));
    }
    let sha256 = checksum::from_base64(sum);
    let tag = found.e_tag.as_deref().unwrap_or_default().trim_matches('"');
    let parts = tag.rsplit_once('-').and_then(|(_, parts)| parts.parse().ok());
    match found.checksum_type {
        Some(ChecksumType::FullObject) => (sha256, None),
        Some(ChecksumType::Composite) => (None, composite(sha256, parts)),
        Some(_) | None if parts.is_some() => (None, composite(sha256, parts)),
        Some(_) | None => (sha256, None),
    }
}

fn composite(sha256: Option<Sha256>, parts: Option<u16>) -> Option<Composite> {
    Some(Composite { sha256: sha256?, parts: parts? })
}

fn tag(text: Option<&str>) -> Result<ETag, Stop> {
    text.filter(|text| !text.is_empty()).map(ETag::new).ok_or(LOST)
}

fn content_type(key: &ObjectKey) -> &'static str {
    if key.as_str().ends_with(".json") { "application/json" } else { "application/octet-stream" }
}

#[cfg(test)]
mod tests {
    use aws_sdk_s3::operation::head_object::builders::HeadObjectOutputBuilder;

    use super::*;

    const SUM: &str = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=";

    fn head(sum: &str, etag: &str) -> HeadObjectOutputBuilder {
        HeadObjectOutput::builder().content_length(7).checksum_sha256(sum).e_tag(etag)
    }

    fn told(found: HeadObjectOutputBuilder) -> (Option<Sha256>, Option<Composite>) {
        let facts = facts(&found.build()).expect("it has a length");
        (facts.sha256, facts.composite)
    }

    #[test]
    fn a_checksum_of_the_parts_is_never_taken_for_one_of_the_content() {
        let whole = Sha256([7; 32]);
        let composite = Some(Composite { sha256: whole, parts: 3 });
        let (single, parts) = ("\"0123\"", "\"0123-3\"");
        assert_eq!(told(head(SUM, single)), (Some(whole), None));
        assert_eq!(told(head(&format!("{SUM}-3"), parts)), (None, composite));
        // Some stores leave the number of parts off; the type or the tag tells then.
        assert_eq!(told(head(SUM, parts).checksum_type(ChecksumType::Composite)), (None, composite));
        assert_eq!(told(head(SUM, parts)), (None, composite));
        assert_eq!(told(head(SUM, single).checksum_type(ChecksumType::Composite)), (None, None));
        // A store may know the whole content of an object that came in parts, and say so.
        assert_eq!(told(head(SUM, parts).checksum_type(ChecksumType::FullObject)), (Some(whole), None));
    }
}
