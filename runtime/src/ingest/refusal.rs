//! Owns the reasons why the object store says no, and the one function that turns a reason into an S3 error.

use std::io;

use http::StatusCode;
use s3s::{S3Error, S3ErrorCode};

/// Why an operation was refused. Nothing of a refused operation is visible.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// There is no such bucket.
    #[error("the bucket does not exist; create it first")]
    NoSuchBucket,
    /// There is no such object.
    #[error("the object does not exist")]
    NoSuchKey,
    /// The upload was never created, was aborted, or completed an object that is gone.
    #[error("the multipart upload does not exist; it may have been aborted or completed")]
    NoSuchUpload,
    /// The object is one that uploaders must leave as it is.
    #[error("the recording under this key is acknowledged; it cannot be changed")]
    Frozen,
    /// The bucket is the one that devices upload to.
    #[error("this is the site's own bucket; it cannot be deleted")]
    OwnBucket,
    /// Only an empty bucket is removed.
    #[error("the bucket holds objects or uploads; delete them first")]
    BucketNotEmpty,
    /// A bucket, key, part number or header cannot be.
    #[error("{0}")]
    InvalidArgument(String),
    /// The request contradicts itself or the upload it names.
    #[error("{0}")]
    InvalidRequest(String),
    /// A part that a completion names was not stored like that.
    #[error("part {0} is missing or its ETag or checksum differs; list the parts and send it again")]
    InvalidPart(i64),
    /// Part numbers of a completion must rise.
    #[error("the parts are not in ascending order")]
    InvalidPartOrder,
    /// A part before the last is below the minimum.
    #[error("part {0} is smaller than 5 MiB and is not the last")]
    EntityTooSmall(u16),
    /// The bytes that arrived are not the bytes that were announced.
    #[error("the {0} of the received bytes differs from the announced one; send again")]
    BadDigest(&'static str),
    /// An announced digest is not one.
    #[error("{0} is not a base64 digest of the right length")]
    InvalidDigest(&'static str),
    /// The body ended early or its framing is broken.
    #[error("the body is incomplete: {0}")]
    IncompleteBody(String),
    /// The signature of a chunk of the body is wrong.
    #[error("the signature of the body does not match")]
    Signature,
    /// No byte of the range exists.
    #[error("the range lies outside of the object")]
    InvalidRange,
    /// A condition of the request is not met.
    #[error("a condition of the request is not met")]
    PreconditionFailed,
    /// The caller has this version already.
    #[error("not modified")]
    NotModified,
    /// The metadata is beyond its bound.
    #[error("user metadata exceeds 8 KiB")]
    MetadataTooLarge,
    /// A bound is reached that goes down again by itself.
    #[error("{0}; try again later")]
    SlowDown(String),
    /// The gate is closed.
    #[error("not accepting objects: {0}")]
    Closed(String),
    /// No room for more bytes.
    #[error("the store is full; send again later, when recordings were carried on")]
    Full,
    /// The body paused for too long.
    #[error("the body paused for too long")]
    Timeout,
    /// The disk failed.
    #[error("the disk failed: {0}")]
    Disk(io::Error),
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Refusal {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Refusal::Full,
            _ => Refusal::Disk(error),
        }
    }
}

impl From<Refusal> for S3Error {
    fn from(refusal: Refusal) -> S3Error {
        let message = match &refusal {
            // Paths and the words of the operating system are not for strangers.
            Refusal::Disk(_) => "the disk of the store failed; see its log".to_owned(),
            other => other.to_string(),
        };
        let (code, status) = match refusal {
            Refusal::NoSuchBucket => (S3ErrorCode::NoSuchBucket, None),
            Refusal::NoSuchKey => (S3ErrorCode::NoSuchKey, None),
            Refusal::NoSuchUpload => (S3ErrorCode::NoSuchUpload, None),
            Refusal::Frozen => (S3ErrorCode::Custom("ObjectFrozen".into()), Some(StatusCode::CONFLICT)),
            Refusal::OwnBucket => (S3ErrorCode::AccessDenied, None),
            Refusal::BucketNotEmpty => (S3ErrorCode::BucketNotEmpty, None),
            Refusal::InvalidArgument(_) => (S3ErrorCode::InvalidArgument, None),
            Refusal::InvalidRequest(_) => (S3ErrorCode::InvalidRequest, None),
            Refusal::InvalidPart(_) => (S3ErrorCode::InvalidPart, None),
            Refusal::InvalidPartOrder => (S3ErrorCode::InvalidPartOrder, None),
            Refusal::EntityTooSmall(_) => (S3ErrorCode::EntityTooSmall, None),
            Refusal::BadDigest(_) => (S3ErrorCode::BadDigest, None),
            Refusal::InvalidDigest(_) => (S3ErrorCode::InvalidDigest, None),
            Refusal::IncompleteBody(_) => (S3ErrorCode::IncompleteBody, None),
            Refusal::Signature => (S3ErrorCode::SignatureDoesNotMatch, None),
            Refusal::InvalidRange => (S3ErrorCode::InvalidRange, None),
            Refusal::PreconditionFailed => (S3ErrorCode::PreconditionFailed, None),
            Refusal::NotModified => (S3ErrorCode::NotModified, None),
            Refusal::MetadataTooLarge => (S3ErrorCode::MetadataTooLarge, None),
            Refusal::SlowDown(_) => (S3ErrorCode::SlowDown, None),
            Refusal::Closed(_) => (S3ErrorCode::SlowDown, None),
            // 507 would be the better word, and uploaders take it for final: their SDKs repeat 503 alone.
            Refusal::Full => (S3ErrorCode::SlowDown, None),
            Refusal::Timeout => (S3ErrorCode::RequestTimeout, None),
            Refusal::Disk(_) => (S3ErrorCode::InternalError, None),
        };
        let mut error = S3Error::with_message(code, message);
        if let Some(status) = status {
            error.set_status_code(status);
        }
        error
    }
}
