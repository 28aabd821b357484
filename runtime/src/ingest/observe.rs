//! Owns what is told about finished requests: the hint that an object is stored, and the observer of an embedder.
//! Must not change what a request does.

use std::fmt;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_core::future::BoxFuture;

use super::spool::locked;

/// An object was stored, durably. Only a hint: it is dropped when the receiver is behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Bucket.
    pub bucket: String,
    /// Key.
    pub key: String,
    /// Bytes.
    pub len: u64,
    /// Of the whole content, computed by us.
    pub sha256: [u8; 32],
    /// Without quotes.
    pub etag: String,
}

/// A finished request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// `PutObject`, `UploadPart`, …; empty when the request was refused before it was known what it is.
    pub operation: String,
    /// Bucket, if it names one.
    pub bucket: Option<String>,
    /// Key, if it names one.
    pub key: Option<String>,
    /// Part number, if it names one.
    pub part_number: Option<u16>,
    /// Upload id, if it names one or created one.
    pub upload_id: Option<String>,
    /// Bytes of content that were received, framing excluded.
    pub body_bytes: u64,
    /// HTTP status of the answer; 0 if the connection broke before there was one.
    pub status: u16,
    /// Error code of the answer, if it is an error: the protocol's word, or the status if there is no word.
    pub error: Option<String>,
}

/// Hears of finished requests. For embedders that show or test what uploaders do. A request whose connection breaks
/// before its answer is ready is told of with status 0 and the bytes received; what it stored by then is stored.
pub trait Observer: Send + Sync + 'static {
    /// A request has finished; its answer is about to be sent.
    fn record(&self, record: Record);

    /// Awaited when the effect of a request is durable and its answer is not sent yet. An embedder can withhold an
    /// answer with it.
    fn before_answer<'a>(&'a self, record: &'a Record) -> BoxFuture<'a, ()> {
        let _ = record;
        Box::pin(std::future::ready(()))
    }
}

/// Collects what a request turns out to be while it runs; travels in the extensions of the request.
#[derive(Clone, Default)]
pub(super) struct Notes(Arc<Inside>);

#[derive(Default)]
struct Inside {
    record: Mutex<Record>,
    body_bytes: AtomicU64,
    /// How long its body had paused when it was given up.
    stalled: Mutex<Option<Duration>>,
}

impl fmt::Debug for Notes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Notes").finish_non_exhaustive()
    }
}

impl Notes {
    pub(super) fn note(&self, change: impl FnOnce(&mut Record)) {
        change(&mut locked(&self.0.record));
    }

    pub(super) fn received(&self, bytes: u64) {
        self.0.body_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Its body paused for so long that it was given up.
    pub(super) fn stalled(&self, idle: Duration) {
        *locked(&self.0.stalled) = Some(idle);
    }

    /// For how long its body had paused when it was given up for that; `None` if it was not.
    pub(super) fn pause(&self) -> Option<Duration> {
        *locked(&self.0.stalled)
    }

    /// What it is: the operation and where, as far as it is known.
    pub(super) fn what(&self) -> String {
        let record = locked(&self.0.record);
        format!("{} {}", record.operation, record.key.as_deref().unwrap_or_default())
    }

    pub(super) fn finish(&self, status: u16) -> Record {
        let mut record = locked(&self.0.record).clone();
        record.body_bytes = self.0.body_bytes.load(Ordering::Relaxed);
        record.status = status;
        if status >= 300 && record.error.is_none() {
            record.error = Some(status.to_string());
        }
        record
    }
}
