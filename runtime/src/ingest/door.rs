//! Owns who and what is let in: signed requests, and bytes while the gate is open. Runs before a body is read.

use std::collections::BTreeMap;

use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, Uri};
use s3s::access::{S3Access, S3AccessContext};
use s3s::auth::{S3Auth, SecretKey};
use s3s::{S3Error, S3ErrorCode, S3Result};
use tokio::sync::watch;

use super::limits;
use super::observe::Notes;
use super::refusal::Refusal;
use super::{AccessKey, Gate};

/// Lets signed requests in, unless they add bytes while the gate is not open.
pub(super) struct Door {
    pub(super) gate: Option<watch::Receiver<Gate>>,
}

#[async_trait::async_trait]
impl S3Access for Door {
    async fn check(&self, cx: &mut S3AccessContext<'_>) -> S3Result<()> {
        let operation = cx.s3_op().name().to_owned();
        let path = cx.s3_path();
        let (bucket, key) =
            (path.get_bucket_name().map(str::to_owned), path.get_object_key().map(str::to_owned));
        let adds = matches!(
            operation.as_str(),
            "PutObject" | "PostObject" | "CreateMultipartUpload" | "UploadPart" | "UploadPartCopy"
        );
        if let Some(notes) = cx.extensions_mut().get::<Notes>() {
            notes.note(|record| {
                record.operation = operation.clone();
                record.bucket = bucket;
                record.key = key;
            });
        }
        if cx.credentials().is_none() {
            return Err(S3Error::with_message(S3ErrorCode::AccessDenied, "requests must be signed"));
        }
        match operation.as_str() {
            "PutObject" | "CopyObject" | "DeleteObject" | "CreateBucket" | "DeleteBucket" => plain(cx.uri())?,
            _ => {}
        }
        if !matches!(operation.as_str(), "PutObject" | "PostObject" | "UploadPart") {
            document(cx.headers())?;
        }
        match self.gate.as_ref().map(|gate| gate.borrow().clone()) {
            Some(Gate::Closed(reason)) if adds => Err(Refusal::Closed(reason).into()),
            Some(Gate::Full) if adds => Err(Refusal::Full.into()),
            Some(Gate::Open | Gate::Closed(_) | Gate::Full) | None => Ok(()),
        }
    }
}

/// Refuses a change of a subresource. The protocol crate takes one that it does not know, such as `?acl` of a
/// `DELETE`, for the object itself, and so would remove a recording.
fn plain(uri: &Uri) -> S3Result<()> {
    for pair in uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
        let name = pair.split('=').next().unwrap_or_default().to_ascii_lowercase();
        // What names the call once more, and what signs it.
        if name != "x-id" && !name.starts_with("x-amz-") && !SIGNED_V2.contains(&name.as_str()) {
            let text = "a change of an object or bucket takes no subresource, and no version";
            return Err(S3Error::with_message(S3ErrorCode::NotImplemented, text));
        }
    }
    Ok(())
}

/// Parameters of presigned addresses of the older signature.
const SIGNED_V2: [&str; 3] = ["awsaccesskeyid", "expires", "signature"];

/// Refuses a document whose size is not announced or is beyond the bound: the protocol crate reads it whole, and calls
/// one that is too large a failure of ours.
fn document(headers: &HeaderMap) -> S3Result<()> {
    let Some(len) = headers.get(CONTENT_LENGTH) else {
        let unannounced = headers.contains_key(TRANSFER_ENCODING);
        return if unannounced { Err(S3ErrorCode::MissingContentLength.into()) } else { Ok(()) };
    };
    let len = len.to_str().ok().and_then(|text| text.parse::<u64>().ok());
    if len.is_some_and(|len| len <= limits::XML_BYTES_MAX as u64) {
        return Ok(());
    }
    let text = format!("the body of this request may have {} bytes", limits::XML_BYTES_MAX);
    Err(S3Error::with_message(S3ErrorCode::MaxMessageLengthExceeded, text))
}

/// The keys that requests may be signed with.
pub(super) struct Keys(BTreeMap<String, SecretKey>);

impl Keys {
    pub(super) fn new(keys: Vec<AccessKey>) -> Keys {
        Keys(keys.into_iter().map(|key| (key.id, SecretKey::from(key.secret))).collect())
    }
}

#[async_trait::async_trait]
impl S3Auth for Keys {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        let unknown =
            || S3Error::with_message(S3ErrorCode::InvalidAccessKeyId, "the access key is not known here");
        self.0.get(access_key).cloned().ok_or_else(unknown)
    }
}
