//! An object store that answers at once and moves no bytes: what is measured around it is ours. It tells the truth as a
//! store with SHA-256 checksums would; an object's content is named by its key.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use tidegate_core::digest::Sha256;
use tidegate_core::id::{ETag, ObjectKey, UploadId};
use tidegate_core::object::{Composite, Got, ObjectFacts, ObjectReply, PartFacts, Verb};
use tidegate_core::outcome::Outcome;
use tidegate_runtime::object::{Boxed, ObjectStore};

/// A store of objects that are all of one length.
#[derive(Debug)]
pub struct InstantStore {
    len: u64,
    holds: Holds,
    kept: Mutex<Kept>,
}

/// What such a store begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    /// Every key, as if a device had just put it there.
    Everything,
    /// Nothing.
    Nothing,
}

#[derive(Debug, Default)]
struct Kept {
    objects: BTreeMap<ObjectKey, ObjectFacts>,
    created: u64,
}

impl InstantStore {
    /// A store.
    pub fn new(holds: Holds, len: u64) -> InstantStore {
        InstantStore { len, holds, kept: Mutex::default() }
    }

    /// Digest of what lies, or would lie, under a key.
    pub fn content(key: &ObjectKey) -> Sha256 {
        Sha256::of(key.as_str().as_bytes())
    }

    /// What the store answers.
    pub fn answer(&self, key: &ObjectKey, verb: &Verb) -> ObjectReply {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        match verb {
            Verb::Head if self.holds == Holds::Everything => {
                ObjectReply::Head(Some(self.facts(self.len, Self::content(key))))
            }
            Verb::Head => ObjectReply::Head(kept.objects.get(key).cloned()),
            Verb::Get { .. } => ObjectReply::Got(Got::Digest { len: self.len, sha256: Self::content(key) }),
            Verb::Put { len, sha256, .. } => {
                let facts = self.facts(*len, *sha256);
                let etag = facts.etag.clone();
                kept.objects.insert(key.clone(), facts);
                ObjectReply::Put(etag)
            }
            Verb::Create { .. } => {
                kept.created += 1;
                ObjectReply::Created(UploadId::new(format!("upload-{}", kept.created)))
            }
            Verb::PutPart { part, span, .. } => {
                let sha256 = Sha256::of(format!("{key}@{part}").as_bytes());
                ObjectReply::PartStored(PartFacts { etag: tag(sha256), sha256, len: span.len })
            }
            Verb::Complete { parts, .. } => {
                let sha256 = Sha256::composite(parts.iter().map(|(_, facts)| facts.sha256));
                let composite = Composite { sha256, parts: u16::try_from(parts.len()).unwrap_or(0) };
                let len = parts.iter().map(|(_, facts)| facts.len).sum();
                let etag = tag(sha256);
                let facts = ObjectFacts {
                    len,
                    etag: etag.clone(),
                    sha256: None,
                    composite: Some(composite),
                    announced: None,
                };
                kept.objects.insert(key.clone(), facts);
                ObjectReply::Completed(etag)
            }
            Verb::Abort { .. } => ObjectReply::Aborted,
            Verb::ListParts { .. } => ObjectReply::Parts(None),
            Verb::ListUploads => ObjectReply::Uploads(Vec::new()),
            Verb::Find { .. } => ObjectReply::Found(Vec::new()),
            Verb::Delete => {
                kept.objects.remove(key);
                ObjectReply::Deleted
            }
        }
    }

    fn facts(&self, len: u64, sha256: Sha256) -> ObjectFacts {
        ObjectFacts { len, etag: tag(sha256), sha256: Some(sha256), composite: None, announced: Some(sha256) }
    }
}

impl ObjectStore for InstantStore {
    fn run<'a>(&'a self, key: &'a ObjectKey, verb: &'a Verb) -> Boxed<'a, Outcome<ObjectReply>> {
        Box::pin(std::future::ready(Outcome::Done(self.answer(key, verb))))
    }
}

fn tag(sha256: Sha256) -> ETag {
    ETag::new(&sha256.to_string()[..32])
}
