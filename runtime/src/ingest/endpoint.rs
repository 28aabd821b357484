//! Owns the S3 operations: each takes a request apart, calls the store once, and puts the answer together. Signatures
//! and framing are the protocol crate's, admission is the gate's.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream;
use http_body::Frame;
use http_body_util::StreamBody;
use s3s::config::{S3Config, StaticConfigProvider};
use s3s::dto::*;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{Body, S3, S3Error, S3ErrorCode, S3Request, S3Response, S3Result};
use tokio::sync::mpsc;

use super::EndpointConfig;
use super::answers::{self, described, etag, put_sums, stamp, sum_fields};
use super::door::{Door, Keys};
use super::limits;
use super::observe::{Notes, Observer, Stored};
use super::refusal::Refusal;
use super::spool::{Object as StoredObject, Spool};
use super::sums::Algorithm;
use crate::seam::Seams;
use crate::timeouts::Timeouts;
use crate::tls::Acceptor;

/// The S3 endpoint over a [`Spool`]. Cheap to clone.
#[derive(Clone)]
pub struct Endpoint<S: Seams> {
    pub(super) s3: S3Service,
    pub(super) shared: Arc<Shared>,
    spool: Spool<S>,
}

/// What connections share.
pub(super) struct Shared {
    pub(super) connections_max: usize,
    pub(super) shutdown_budget: Duration,
    pub(super) tls: Option<Acceptor>,
    pub(super) timeouts: Timeouts,
    pub(super) observer: Option<Arc<dyn Observer>>,
}

impl<S: Seams> fmt::Debug for Endpoint<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint").field("spool", &self.spool).finish_non_exhaustive()
    }
}

impl<S: Seams> Endpoint<S> {
    /// An endpoint; it answers once [`Endpoint::serve`] runs.
    #[must_use]
    pub fn new(spool: Spool<S>, config: EndpointConfig) -> Endpoint<S> {
        let mut limits_of_s3s = S3Config::default();
        limits_of_s3s.xml_max_body_size = limits::XML_BYTES_MAX;
        // The protocol crate would collect the body of a form upload in memory; nobody uploads recordings so.
        limits_of_s3s.post_object_max_file_size = 1024;
        limits_of_s3s.form_max_fields_size = 64 * 1024;
        limits_of_s3s.form_max_field_size = 64 * 1024;
        // It compares with the clock of the system. The setting is named after URLs but rules headers as well.
        limits_of_s3s.presigned_url_max_skew_time_secs =
            config.max_skew.map_or(u32::MAX, |skew| u32::try_from(skew.as_secs()).unwrap_or(u32::MAX));
        let operations = Operations {
            spool: match config.frozen {
                Some(frozen) => spool.clone().obeying(frozen),
                None => spool.clone(),
            },
            stored: config.stored,
            region: config.region,
            body_idle: config.body_idle,
        };
        let mut builder = S3ServiceBuilder::new(operations);
        builder.set_auth(Keys::new(config.keys));
        builder.set_access(Door { gate: config.gate });
        builder.set_config(Arc::new(StaticConfigProvider::new(Arc::new(limits_of_s3s))));
        let shared = Shared {
            connections_max: config.connections_max.max(1),
            shutdown_budget: config.shutdown_budget,
            tls: config.tls,
            timeouts: config.timeouts,
            observer: config.observer,
        };
        Endpoint { s3: builder.build(), shared: Arc::new(shared), spool }
    }

    /// The store under the endpoint.
    #[must_use]
    pub fn spool(&self) -> &Spool<S> {
        &self.spool
    }
}

struct Operations<S: Seams> {
    spool: Spool<S>,
    stored: Option<mpsc::Sender<Stored>>,
    region: String,
    body_idle: Duration,
}

impl<S: Seams> Operations<S> {
    fn hint(&self, bucket: &str, object: &StoredObject) {
        if let Some(stored) = &self.stored {
            let record = &object.record;
            // A full channel loses a hint, which is all it is.
            let _ = stored.try_send(Stored {
                bucket: bucket.to_owned(),
                key: record.key.clone(),
                len: record.len,
                sha256: record.sha256,
                etag: record.etag.clone(),
            });
        }
    }

    /// A body that reads an object piece by piece while it is sent.
    fn body(&self, object: Arc<StoredObject>, span: std::ops::Range<u64>) -> StreamingBlob {
        let spool = self.spool.clone();
        let pieces = stream::try_unfold(span, move |span| {
            let (spool, object) = (spool.clone(), object.clone());
            async move {
                if span.is_empty() {
                    return Ok(None);
                }
                let take =
                    usize::try_from(span.end - span.start).unwrap_or(usize::MAX).min(limits::READ_CHUNK);
                match spool.read_object(object, span.start, take).await {
                    Ok(bytes) => {
                        let next = span.start + bytes.len() as u64..span.end;
                        Ok(Some((Frame::data(bytes), next)))
                    }
                    Err(refusal) => Err(std::io::Error::other(refusal)),
                }
            }
        });
        StreamingBlob::from(Body::http_body_unsync(StreamBody::new(pieces)))
    }
}

fn notes<T>(request: &S3Request<T>) -> Notes {
    request.extensions.get::<Notes>().cloned().unwrap_or_default()
}

fn size(len: u64) -> i64 {
    i64::try_from(len).unwrap_or(i64::MAX)
}

#[async_trait::async_trait]
impl<S: Seams> S3 for Operations<S> {
    async fn put_object(&self, mut req: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        let body = req.input.body.take();
        let described = described!(req.input);
        let input = &req.input;
        let announced = answers::announced(
            &req,
            input.content_length,
            input.content_md5.as_deref(),
            sum_fields!(input),
            input.checksum_algorithm.as_ref(),
            self.body_idle,
        )?;
        let condition = answers::condition(input.if_match.as_ref(), input.if_none_match.as_ref())?;
        let object = self.spool.put(&input.bucket, &input.key, described, body, announced, condition).await?;
        self.hint(&input.bucket, &object);
        let mut out = PutObjectOutput { e_tag: Some(etag(&object.record.etag)), ..Default::default() };
        // Content that was there already may have come in parts.
        put_sums!(out, &object.record.sums, answers::composed_of(&object.record));
        out.checksum_type = Some(answers::checksum_type(object.record.coverage));
        Ok(S3Response::new(out))
    }

    async fn post_object(&self, _: S3Request<PostObjectInput>) -> S3Result<S3Response<PostObjectOutput>> {
        Err(S3Error::with_message(
            S3ErrorCode::NotImplemented,
            "form uploads are not supported; use PutObject",
        ))
    }

    async fn copy_object(
        &self,
        mut req: S3Request<CopyObjectInput>,
    ) -> S3Result<S3Response<CopyObjectOutput>> {
        let replaces =
            req.input.metadata_directive.as_ref().is_some_and(|d| d.as_str() == MetadataDirective::REPLACE);
        let described = replaces.then(|| described!(req.input));
        let input = &req.input;
        let CopySource::Bucket { bucket, key, version_id: None } = &input.copy_source else {
            return Err(S3Error::with_message(
                S3ErrorCode::NotImplemented,
                "copies are made from /bucket/key only",
            ));
        };
        if !replaces && **bucket == *input.bucket && **key == *input.key {
            return Err(Refusal::InvalidRequest(
                "a copy onto itself changes the metadata: REPLACE it".to_owned(),
            )
            .into());
        }
        let source = self.spool.object(bucket, key)?;
        answers::check_read(
            &source.record,
            input.copy_source_if_match.as_ref(),
            input.copy_source_if_none_match.as_ref(),
            input.copy_source_if_modified_since.as_ref(),
            input.copy_source_if_unmodified_since.as_ref(),
        )
        .map_err(|refusal| match refusal {
            Refusal::NotModified => Refusal::PreconditionFailed,
            other => other,
        })?;
        let condition = super::Condition::Any;
        let object = self.spool.copy(source, &input.bucket, &input.key, described, condition).await?;
        self.hint(&input.bucket, &object);
        let mut result = CopyObjectResult {
            e_tag: Some(etag(&object.record.etag)),
            last_modified: Some(stamp(object.record.modified_ms)),
            checksum_type: Some(answers::checksum_type(object.record.coverage)),
            ..Default::default()
        };
        put_sums!(result, &object.record.sums, answers::composed_of(&object.record));
        Ok(S3Response::new(CopyObjectOutput { copy_object_result: Some(result), ..Default::default() }))
    }

    async fn head_object(&self, req: S3Request<HeadObjectInput>) -> S3Result<S3Response<HeadObjectOutput>> {
        let input = &req.input;
        let object = self.spool.object(&input.bucket, &input.key)?;
        let record = &object.record;
        answers::check_read(
            record,
            input.if_match.as_ref(),
            input.if_none_match.as_ref(),
            input.if_modified_since.as_ref(),
            input.if_unmodified_since.as_ref(),
        )?;
        let (span, partial) = answers::span(record, input.range.as_ref(), input.part_number)?;
        let (headers, metadata) = answers::metadata(&record.described);
        let mut out = HeadObjectOutput {
            accept_ranges: Some("bytes".to_owned()),
            content_length: Some(size(span.end - span.start)),
            content_range: partial.then(|| content_range(&span, record.len)),
            e_tag: Some(etag(&record.etag)),
            last_modified: Some(stamp(record.modified_ms)),
            content_type: record.described.content_type.clone(),
            content_encoding: record.described.content_encoding.clone(),
            content_disposition: record.described.content_disposition.clone(),
            content_language: record.described.content_language.clone(),
            cache_control: record.described.cache_control.clone(),
            metadata,
            parts_count: answers::part_count(record).filter(|_| input.part_number.is_some()),
            ..Default::default()
        };
        if answers::wants_sums(input.checksum_mode.as_ref()) && !partial && !record.sums.is_empty() {
            put_sums!(out, &record.sums, answers::composed_of(record));
            out.checksum_type = Some(answers::checksum_type(record.coverage));
        }
        Ok(S3Response::with_headers(out, headers))
    }

    async fn get_object(&self, req: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        let input = &req.input;
        let object = self.spool.object(&input.bucket, &input.key)?;
        let record = &object.record;
        answers::check_read(
            record,
            input.if_match.as_ref(),
            input.if_none_match.as_ref(),
            input.if_modified_since.as_ref(),
            input.if_unmodified_since.as_ref(),
        )?;
        let (span, partial) = answers::span(record, input.range.as_ref(), input.part_number)?;
        let (headers, metadata) = answers::metadata(&record.described);
        let mut out = GetObjectOutput {
            accept_ranges: Some("bytes".to_owned()),
            content_length: Some(size(span.end - span.start)),
            content_range: partial.then(|| content_range(&span, record.len)),
            body: Some(self.body(object.clone(), span)),
            e_tag: Some(etag(&record.etag)),
            last_modified: Some(stamp(record.modified_ms)),
            content_type: record.described.content_type.clone(),
            content_encoding: record.described.content_encoding.clone(),
            content_disposition: record.described.content_disposition.clone(),
            content_language: record.described.content_language.clone(),
            cache_control: record.described.cache_control.clone(),
            metadata,
            parts_count: answers::part_count(record).filter(|_| input.part_number.is_some()),
            ..Default::default()
        };
        if answers::wants_sums(input.checksum_mode.as_ref()) && !partial && !record.sums.is_empty() {
            put_sums!(out, &record.sums, answers::composed_of(record));
            out.checksum_type = Some(answers::checksum_type(record.coverage));
        }
        Ok(S3Response::with_headers(out, headers))
    }

    async fn delete_object(
        &self,
        req: S3Request<DeleteObjectInput>,
    ) -> S3Result<S3Response<DeleteObjectOutput>> {
        let input = &req.input;
        let condition = answers::condition(input.if_match.as_ref(), None)?;
        self.spool.delete_if(&input.bucket, &input.key, condition).await?;
        Ok(S3Response::new(DeleteObjectOutput::default()))
    }

    async fn delete_objects(
        &self,
        req: S3Request<DeleteObjectsInput>,
    ) -> S3Result<S3Response<DeleteObjectsOutput>> {
        let input = req.input;
        let (mut deleted, mut errors) = (Vec::new(), Vec::new());
        for object in input.delete.objects {
            let condition =
                super::Condition::Present(object.e_tag.as_ref().map(|etag| etag.value().to_owned()));
            let condition = if object.e_tag.is_some() { condition } else { super::Condition::Any };
            match self.spool.delete_if(&input.bucket, &object.key, condition).await {
                Ok(()) => deleted.push(DeletedObject { key: Some(object.key), ..Default::default() }),
                Err(Refusal::NoSuchBucket) => return Err(Refusal::NoSuchBucket.into()),
                Err(refusal) => {
                    let error = S3Error::from(refusal);
                    errors.push(Error {
                        key: Some(object.key),
                        code: Some(error.code().as_str().to_owned()),
                        message: error.message().map(str::to_owned),
                        ..Default::default()
                    });
                }
            }
        }
        let quiet = input.delete.quiet.unwrap_or(false);
        Ok(S3Response::new(DeleteObjectsOutput {
            deleted: (!quiet).then_some(deleted),
            errors: (!errors.is_empty()).then_some(errors),
            ..Default::default()
        }))
    }

    async fn create_multipart_upload(
        &self,
        mut req: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        let notes = notes(&req);
        let described = described!(req.input);
        let input = req.input;
        let algorithm = answers::parse_algorithm(input.checksum_algorithm.as_ref())?;
        let coverage = answers::parse_coverage(input.checksum_type.as_ref())?;
        let upload =
            self.spool.create_upload(&input.bucket, &input.key, described, algorithm, coverage).await?;
        notes.note(|record| record.upload_id = Some(upload.id.clone()));
        Ok(S3Response::new(CreateMultipartUploadOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(upload.id),
            checksum_algorithm: algorithm.map(answers::checksum_algorithm),
            checksum_type: algorithm.map(|_| answers::checksum_type(upload.coverage)),
            ..Default::default()
        }))
    }

    async fn upload_part(
        &self,
        mut req: S3Request<UploadPartInput>,
    ) -> S3Result<S3Response<UploadPartOutput>> {
        let notes = notes(&req);
        let body = req.input.body.take();
        let input = &req.input;
        notes.note(|record| {
            record.part_number = u16::try_from(input.part_number).ok();
            record.upload_id = Some(input.upload_id.clone());
        });
        let announced = answers::announced(
            &req,
            input.content_length,
            input.content_md5.as_deref(),
            sum_fields!(input),
            input.checksum_algorithm.as_ref(),
            self.body_idle,
        )?;
        let at = (input.bucket.as_str(), input.key.as_str(), input.upload_id.as_str());
        let number = i64::from(input.part_number);
        let segment = self.spool.put_part(at, number, body, announced).await?;
        let mut out =
            UploadPartOutput { e_tag: Some(etag(&super::sums::hex(&segment.md5))), ..Default::default() };
        put_sums!(out, &segment.sums, None);
        Ok(S3Response::new(out))
    }

    async fn complete_multipart_upload(
        &self,
        mut req: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        let notes = notes(&req);
        let asked = answers::completion(&mut req.input)?;
        let input = req.input;
        notes.note(|record| record.upload_id = Some(input.upload_id.clone()));
        let object = self.spool.complete_upload(&input.bucket, &input.key, &input.upload_id, asked).await?;
        self.hint(&input.bucket, &object);
        let record = &object.record;
        let mut out = CompleteMultipartUploadOutput {
            location: Some(format!("/{}/{}", input.bucket, input.key)),
            bucket: Some(input.bucket),
            key: Some(input.key),
            e_tag: Some(etag(&record.etag)),
            checksum_type: (!record.sums.is_empty()).then(|| answers::checksum_type(record.coverage)),
            ..Default::default()
        };
        put_sums!(out, &record.sums, answers::composed_of(record));
        Ok(S3Response::new(out))
    }

    async fn abort_multipart_upload(
        &self,
        req: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        let input = &req.input;
        notes(&req).note(|record| record.upload_id = Some(input.upload_id.clone()));
        self.spool.abort_upload(&input.bucket, &input.key, &input.upload_id).await?;
        Ok(S3Response::new(AbortMultipartUploadOutput::default()))
    }

    async fn list_parts(&self, req: S3Request<ListPartsInput>) -> S3Result<S3Response<ListPartsOutput>> {
        notes(&req).note(|record| record.upload_id = Some(req.input.upload_id.clone()));
        Ok(S3Response::new(self.spool.parts_page(req.input)?))
    }

    async fn list_multipart_uploads(
        &self,
        req: S3Request<ListMultipartUploadsInput>,
    ) -> S3Result<S3Response<ListMultipartUploadsOutput>> {
        Ok(S3Response::new(self.spool.uploads_page(req.input)?))
    }

    async fn list_objects(
        &self,
        req: S3Request<ListObjectsInput>,
    ) -> S3Result<S3Response<ListObjectsOutput>> {
        Ok(S3Response::new(self.spool.objects_page_v1(req.input)?))
    }

    async fn list_objects_v2(
        &self,
        req: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        Ok(S3Response::new(self.spool.objects_page(req.input)?))
    }

    async fn create_bucket(
        &self,
        req: S3Request<CreateBucketInput>,
    ) -> S3Result<S3Response<CreateBucketOutput>> {
        self.spool.create_bucket(&req.input.bucket).await?;
        Ok(S3Response::new(CreateBucketOutput { location: Some(format!("/{}", req.input.bucket)) }))
    }

    async fn delete_bucket(
        &self,
        req: S3Request<DeleteBucketInput>,
    ) -> S3Result<S3Response<DeleteBucketOutput>> {
        self.spool.delete_bucket(&req.input.bucket).await?;
        Ok(S3Response::new(DeleteBucketOutput::default()))
    }

    async fn head_bucket(&self, req: S3Request<HeadBucketInput>) -> S3Result<S3Response<HeadBucketOutput>> {
        if !self.spool.has_bucket(&req.input.bucket) {
            return Err(Refusal::NoSuchBucket.into());
        }
        Ok(S3Response::new(HeadBucketOutput {
            bucket_region: Some(self.region.clone()),
            ..Default::default()
        }))
    }

    async fn list_buckets(
        &self,
        req: S3Request<ListBucketsInput>,
    ) -> S3Result<S3Response<ListBucketsOutput>> {
        let prefix = req.input.prefix.clone().unwrap_or_default();
        let buckets = self.spool.buckets().into_iter().filter(|(name, _)| name.starts_with(&prefix));
        let buckets = buckets.map(|(name, created)| Bucket {
            name: Some(name),
            creation_date: Some(stamp(created.0)),
            ..Default::default()
        });
        Ok(S3Response::new(ListBucketsOutput { buckets: Some(buckets.collect()), ..Default::default() }))
    }

    async fn get_bucket_versioning(
        &self,
        req: S3Request<GetBucketVersioningInput>,
    ) -> S3Result<S3Response<GetBucketVersioningOutput>> {
        if !self.spool.has_bucket(&req.input.bucket) {
            return Err(Refusal::NoSuchBucket.into());
        }
        // Versioning was never enabled, and cannot be.
        Ok(S3Response::new(GetBucketVersioningOutput::default()))
    }

    async fn get_bucket_location(
        &self,
        req: S3Request<GetBucketLocationInput>,
    ) -> S3Result<S3Response<GetBucketLocationOutput>> {
        if !self.spool.has_bucket(&req.input.bucket) {
            return Err(Refusal::NoSuchBucket.into());
        }
        // The protocol writes its first region as no region at all.
        let named = (self.region != "us-east-1").then(|| BucketLocationConstraint::from(self.region.clone()));
        Ok(S3Response::new(GetBucketLocationOutput { location_constraint: named }))
    }
}

fn content_range(span: &std::ops::Range<u64>, len: u64) -> String {
    format!("bytes {}-{}/{len}", span.start, span.end.saturating_sub(1))
}
