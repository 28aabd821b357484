//! Object stores as small models: what was put is there, and what is asked for is answered truthfully.

use std::collections::BTreeMap;

use tidegate_core::digest::Sha256;
use tidegate_core::id::{ETag, ObjectKey, PartNo, UploadId};
use tidegate_core::limits::FOUND_MAX;
use tidegate_core::object::{
    Composite, Got, ListedPart, McapFacts, ObjectFacts, ObjectOp, ObjectReply, PartFacts, SidecarFacts,
    Store, Verb, Want, is_recording_of,
};
use tidegate_core::outcome::{Fault, What};
use tidegate_core::time::Wall;

/// A stored object. Its content is its digest: nobody here looks closer.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub(crate) len: u64,
    pub(crate) sha256: Sha256,
    pub(crate) announced: Option<Sha256>,
    pub(crate) facts: Option<SidecarFacts>,
    composite: Option<Composite>,
}

impl Stored {
    /// A recording of a length; equal lengths are equal recordings.
    pub(crate) fn recording(len: u64) -> Stored {
        let sha256 = Sha256::of(&len.to_be_bytes());
        Stored { len, sha256, announced: Some(sha256), facts: None, composite: None }
    }

    /// The sidecar of a recording.
    pub(crate) fn sidecar(of: &Stored) -> Stored {
        let facts = SidecarFacts {
            sha256: Some(of.sha256),
            len: Some(of.len),
            started_at: Some(Wall(1_790_000_000_000)),
            ..SidecarFacts::default()
        };
        Stored {
            len: 300,
            sha256: Sha256::of(&of.sha256.0),
            announced: None,
            facts: Some(facts),
            composite: None,
        }
    }

    fn etag(&self) -> ETag {
        ETag::new(&self.sha256.to_string()[..32])
    }
}

/// An open multipart upload.
#[derive(Debug)]
struct Open {
    key: ObjectKey,
    whole: Sha256,
    parts: BTreeMap<PartNo, PartFacts>,
}

/// The edge and the cloud.
#[derive(Debug, Default)]
pub(crate) struct Stores {
    pub(crate) edge: BTreeMap<ObjectKey, Stored>,
    cloud: BTreeMap<ObjectKey, Stored>,
    open: BTreeMap<UploadId, Open>,
    made: u64,
}

impl Stores {
    /// Does what an operation asks.
    pub(crate) fn run(&mut self, op: &ObjectOp) -> Result<ObjectReply, Fault> {
        let here = match op.store {
            Store::Edge => &mut self.edge,
            Store::Cloud => &mut self.cloud,
        };
        Ok(match &op.verb {
            Verb::Head => ObjectReply::Head(here.get(&op.key).map(|object| ObjectFacts {
                len: object.len,
                etag: object.etag(),
                sha256: object.composite.is_none().then_some(object.sha256),
                composite: object.composite,
                announced: object.announced,
            })),
            Verb::Get { span, want } => {
                let object = here.get(&op.key).ok_or(Fault::Vanished(What::Object))?;
                let len = span.map_or(object.len, |span| span.len);
                ObjectReply::Got(match want {
                    Want::Digest => Got::Digest { len, sha256: object.sha256 },
                    Want::Inspect => {
                        let facts = McapFacts { messages: 1, ..McapFacts::default() };
                        Got::Inspected { len, sha256: object.sha256, facts }
                    }
                    // As `PutPart` digests them: what was stored is what is there.
                    Want::Parts { part_size } => {
                        let size = (*part_size).max(1);
                        let parts = (0..len.div_ceil(size)).map(|at| {
                            let mut bytes = object.sha256.0.to_vec();
                            bytes.extend_from_slice(&(at * size).to_be_bytes());
                            Sha256::of(&bytes)
                        });
                        let parts: Vec<Sha256> = parts.take(usize::from(u16::MAX)).collect();
                        let count = u16::try_from(parts.len()).unwrap_or(u16::MAX);
                        let composite = Composite { sha256: Sha256::composite(parts), parts: count };
                        Got::Parts { len, sha256: object.sha256, composite }
                    }
                    Want::Sidecar => Got::Sidecar { len, sha256: object.sha256, facts: object.facts.clone() },
                })
            }
            Verb::Put { source, len, sha256 } => {
                let object = self.edge.get(source).ok_or(Fault::Vanished(What::Source))?.clone();
                if object.len != *len || object.sha256 != *sha256 {
                    return Err(Fault::Damaged(What::Source));
                }
                let etag = object.etag();
                self.cloud.insert(op.key.clone(), Stored { announced: Some(*sha256), ..object });
                ObjectReply::Put(etag)
            }
            Verb::Create { sha256 } => {
                self.made += 1;
                let id = UploadId::new(format!("up-{}", self.made));
                let open = Open { key: op.key.clone(), whole: *sha256, parts: BTreeMap::new() };
                self.open.insert(id.clone(), open);
                ObjectReply::Created(id)
            }
            Verb::PutPart { upload, part, source, span } => {
                let object = self.edge.get(source).ok_or(Fault::Vanished(What::Source))?;
                if span.offset.saturating_add(span.len) > object.len {
                    return Err(Fault::Damaged(What::Source));
                }
                let mut bytes = object.sha256.0.to_vec();
                bytes.extend_from_slice(&span.offset.to_be_bytes());
                let sha256 = Sha256::of(&bytes);
                let facts = PartFacts { etag: ETag::new(&sha256.to_string()[..32]), sha256, len: span.len };
                let open = self.open.get_mut(upload).ok_or(Fault::Vanished(What::Upload))?;
                open.parts.insert(*part, facts.clone());
                ObjectReply::PartStored(facts)
            }
            Verb::Complete { upload, parts } => {
                let open = self.open.get(upload).ok_or(Fault::Vanished(What::Upload))?;
                let held = |(part, facts): &(PartNo, PartFacts)| open.parts.get(part) == Some(facts);
                if parts.is_empty() || !parts.iter().all(held) {
                    return Err(Fault::Vanished(What::Part));
                }
                let digest = Sha256::composite(parts.iter().map(|(_, facts)| facts.sha256));
                let composite =
                    Composite { sha256: digest, parts: u16::try_from(parts.len()).unwrap_or(u16::MAX) };
                let object = Stored {
                    len: parts.iter().map(|(_, facts)| facts.len).sum(),
                    sha256: open.whole,
                    announced: Some(open.whole),
                    facts: None,
                    composite: Some(composite),
                };
                let etag = object.etag();
                self.cloud.insert(op.key.clone(), object);
                self.open.remove(upload);
                ObjectReply::Completed(etag)
            }
            Verb::Abort { upload } => {
                self.open.remove(upload);
                ObjectReply::Aborted
            }
            Verb::ListParts { upload } => ObjectReply::Parts(self.open.get(upload).map(|open| {
                let listed = |(part, facts): (&PartNo, &PartFacts)| ListedPart {
                    part: *part,
                    etag: facts.etag.clone(),
                    len: facts.len,
                    sha256: Some(facts.sha256),
                };
                open.parts.iter().map(listed).collect()
            })),
            Verb::ListUploads => {
                let mine = self.open.iter().filter(|(_, open)| open.key == op.key);
                ObjectReply::Uploads(mine.map(|(id, _)| id.clone()).collect())
            }
            Verb::Delete => {
                here.remove(&op.key);
                ObjectReply::Deleted
            }
            Verb::Find { device, wire } => {
                let named = here.keys().filter(|key| is_recording_of(key.as_str(), device, wire));
                ObjectReply::Found(named.take(FOUND_MAX).cloned().collect())
            }
        })
    }
}
