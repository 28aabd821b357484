//! Owns the published set of keys that no uploader may change. Decides nothing: whoever drives the site says what is in
//! it, and the endpoint obeys.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

/// Keys of one bucket whose objects no uploader may change or remove. Cheap to clone; all clones are one set.
///
/// A store that obeys it asks while it holds the lock under which it makes an object visible, and
/// [`Spool::head`](super::Spool::head) waits for that lock: an object seen after its key was frozen stays as it was
/// seen.
#[derive(Clone)]
pub struct Frozen {
    bucket: Arc<str>,
    keys: Arc<RwLock<BTreeSet<String>>>,
}

impl Frozen {
    /// An empty set for the objects of `bucket`.
    #[must_use]
    pub fn new(bucket: &str) -> Frozen {
        Frozen { bucket: bucket.into(), keys: Arc::default() }
    }

    /// From now on the object under `key` stays as it is.
    pub fn freeze(&self, key: &str) {
        self.keys.write().unwrap_or_else(PoisonError::into_inner).insert(key.to_owned());
    }

    /// Uploaders may write under `key` again.
    pub fn thaw(&self, key: &str) {
        self.keys.write().unwrap_or_else(PoisonError::into_inner).remove(key);
    }

    /// Whether this is the bucket of the set: it stays, even while it is empty.
    #[must_use]
    pub fn keeps(&self, bucket: &str) -> bool {
        *self.bucket == *bucket
    }

    /// Whether the object under `key` of `bucket` must stay.
    #[must_use]
    pub fn holds(&self, bucket: &str, key: &str) -> bool {
        *self.bucket == *bucket && self.keys.read().unwrap_or_else(PoisonError::into_inner).contains(key)
    }
}

impl fmt::Debug for Frozen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner).len();
        f.debug_struct("Frozen").field("bucket", &self.bucket).field("keys", &keys).finish()
    }
}
