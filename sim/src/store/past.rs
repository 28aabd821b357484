//! What ever happened to a store: counted by the store itself, read by invariants. Nothing decides by it.

use std::collections::{BTreeMap, BTreeSet};

use tidegate_core::id::{ObjectKey, PartNo, UploadId};

/// How a multipart upload ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum UploadFate {
    /// It is open.
    Open,
    /// A `Complete` made an object of it.
    Completed,
    /// It was given up.
    Aborted,
    /// The store dropped it.
    Dropped,
}

/// One part of a multipart upload, over all its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PartPast {
    /// How often it was stored.
    pub times: u32,
    /// Bytes accepted, all times together.
    pub bytes: u64,
}

/// One multipart upload, over all its life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UploadPast {
    /// Where its object was to be.
    pub key: ObjectKey,
    /// How it ended.
    pub fate: UploadFate,
    /// How often a `Complete` had an effect.
    pub completes: u32,
    /// Its parts.
    pub parts: BTreeMap<PartNo, PartPast>,
}

/// One key, over all its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyPast {
    /// Multipart uploads ever created for it.
    pub uploads: u32,
    /// Objects ever made there by completing an upload.
    pub completed: u32,
    /// Whole objects ever stored there in one request.
    pub puts: u32,
    /// Objects that the core deleted there.
    pub deletes: u32,
}

/// What ever happened to a store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Past {
    /// Every multipart upload ever created.
    pub uploads: BTreeMap<UploadId, UploadPast>,
    /// Every key that something was ever done at.
    pub keys: BTreeMap<ObjectKey, KeyPast>,
    /// Keys that a third party overwrote or removed: what is there now proves nothing of what was.
    pub tampered: BTreeSet<ObjectKey>,
}

impl Past {
    /// Of one key.
    pub(super) fn key(&mut self, key: &ObjectKey) -> &mut KeyPast {
        self.keys.entry(key.clone()).or_default()
    }

    /// An upload was created.
    pub(super) fn created(&mut self, id: &UploadId, key: &ObjectKey) {
        self.key(key).uploads += 1;
        let past =
            UploadPast { key: key.clone(), fate: UploadFate::Open, completes: 0, parts: BTreeMap::new() };
        self.uploads.insert(id.clone(), past);
    }

    /// A part was stored.
    pub(super) fn stored(&mut self, id: &UploadId, part: PartNo, bytes: u64) {
        let past = self.uploads.get_mut(id).expect("only uploads that were created are open");
        let part = past.parts.entry(part).or_default();
        part.times += 1;
        part.bytes += bytes;
    }

    /// An upload ended.
    pub(super) fn ended(&mut self, id: &UploadId, fate: UploadFate) {
        let past = self.uploads.get_mut(id).expect("only uploads that were created are open");
        past.fate = fate;
        if fate == UploadFate::Completed {
            past.completes += 1;
            let key = past.key.clone();
            self.key(&key).completed += 1;
        }
    }

    /// Bytes of parts ever accepted.
    #[must_use]
    pub fn bytes_in(&self) -> u64 {
        self.uploads.values().flat_map(|past| past.parts.values()).map(|part| part.bytes).sum()
    }

    /// Bytes of parts ever accepted for uploads of one key.
    #[must_use]
    pub fn bytes_of_parts(&self, key: &ObjectKey) -> u64 {
        let of = |past: &UploadPast| past.parts.values().map(|part| part.bytes).sum::<u64>();
        self.uploads.values().filter(|past| past.key == *key).map(of).sum()
    }
}
