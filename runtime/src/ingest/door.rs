//! Owns who and what is let in: signed requests, and bytes while the gate is open. Runs before a body is read.

use std::collections::BTreeMap;

use s3s::access::{S3Access, S3AccessContext};
use s3s::auth::{S3Auth, SecretKey};
use s3s::{S3Error, S3ErrorCode, S3Result};
use tokio::sync::watch;

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
                record.operation = operation;
                record.bucket = bucket;
                record.key = key;
            });
        }
        if cx.credentials().is_none() {
            return Err(S3Error::with_message(S3ErrorCode::AccessDenied, "requests must be signed"));
        }
        match self.gate.as_ref().map(|gate| gate.borrow().clone()) {
            Some(Gate::Closed(reason)) if adds => Err(Refusal::Closed(reason).into()),
            Some(Gate::Full) if adds => Err(Refusal::Full.into()),
            Some(Gate::Open | Gate::Closed(_) | Gate::Full) | None => Ok(()),
        }
    }
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
