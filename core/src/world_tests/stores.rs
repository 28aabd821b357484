//! Two object stores as they really behave, without bytes: the truth that invariants read. Knows nothing of the core's
//! records, and never lies; lies are the business of `chaos`.

use std::collections::{BTreeMap, BTreeSet};
use std::format;
use std::prelude::v1::*;

use crate::digest::{Sha256, multipart_etag};
use crate::id::{ETag, ObjectKey, PartNo, UploadId};
use crate::object::{
    Composite, Flaw, Got, ListedPart, McapFacts, ObjectFacts, ObjectOp, ObjectReply, PartFacts, SidecarFacts,
    Span, Store, Verb, Want, is_recording_of,
};
use crate::outcome::{Fault, What};

/// A file: what it holds is named by a number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Content {
    pub(super) id: u64,
    pub(super) len: u64,
    /// What it says, if it is a sidecar.
    pub(super) facts: Option<SidecarFacts>,
}

impl Content {
    pub(super) fn sha256(&self) -> Sha256 {
        self.span_sha256(Span { offset: 0, len: self.len })
    }

    fn span_sha256(&self, span: Span) -> Sha256 {
        Sha256::of(format!("{}@{}+{}", self.id, span.offset, span.len).as_bytes())
    }
}

/// What a recording with this digest is as a file: one in four is damaged, one in four of the others is without messages.
pub(super) fn looks(sha256: Sha256) -> McapFacts {
    let flaw = sha256.0[0].is_multiple_of(4).then_some(Flaw::ChunkCrc);
    let messages = if sha256.0[1].is_multiple_of(4) { 0 } else { 100 };
    McapFacts { flaw, messages, ..McapFacts::default() }
}

/// What an object is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Stuff {
    Whole(Content),
    /// Pieces that are not one file in order.
    Jumble(Vec<(Content, Span)>),
}

impl Stuff {
    fn of(pieces: Vec<(Content, Span)>) -> Stuff {
        let mut next = 0;
        let Some((first, _)) = pieces.first().cloned() else { return Stuff::Jumble(pieces) };
        for (content, span) in &pieces {
            if content.id != first.id || span.offset != next {
                return Stuff::Jumble(pieces);
            }
            next += span.len;
        }
        if next == first.len { Stuff::Whole(first) } else { Stuff::Jumble(pieces) }
    }

    fn len(&self) -> u64 {
        match self {
            Stuff::Whole(content) => content.len,
            Stuff::Jumble(pieces) => pieces.iter().map(|(_, span)| span.len).sum(),
        }
    }

    fn sha256(&self, span: Span) -> Sha256 {
        match self {
            Stuff::Whole(content) => content.span_sha256(span),
            Stuff::Jumble(pieces) => Sha256::of(format!("{pieces:?}{span:?}").as_bytes()),
        }
    }

    /// Over the parts of a span, if each but the last has so many bytes.
    fn composite(&self, span: Span, part_size: u64) -> Composite {
        let parts = u16::try_from(span.len.div_ceil(part_size)).unwrap_or(u16::MAX);
        let part = |n: u16| {
            let before = u64::from(n) * part_size;
            self.sha256(Span { offset: span.offset + before, len: part_size.min(span.len - before) })
        };
        Composite { sha256: Sha256::composite((0..parts).map(part)), parts }
    }
}

/// An object.
#[derive(Clone, Debug)]
pub(super) struct Object {
    stuff: Stuff,
    etag: ETag,
    sha256: Option<Sha256>,
    composite: Option<Composite>,
    announced: Option<Sha256>,
}

impl Object {
    pub(super) fn len(&self) -> u64 {
        self.stuff.len()
    }

    pub(super) fn sha256(&self) -> Sha256 {
        self.stuff.sha256(Span { offset: 0, len: self.len() })
    }
}

/// A multipart upload that is neither completed nor aborted.
#[derive(Clone, Debug)]
pub(super) struct Open {
    pub(super) key: ObjectKey,
    announced: Sha256,
    pub(super) parts: BTreeMap<PartNo, (PartFacts, Content, Span)>,
}

/// Which checksums a store keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flavour {
    /// Over the whole content, also of multipart objects.
    Full,
    /// Over the parts' checksums.
    Composite,
    /// None, but tags are MD5 sums.
    Tags,
    /// None, and tags mean nothing.
    Opaque,
}

/// One bucket.
#[derive(Clone, Debug)]
pub(super) struct Bucket {
    flavour: Flavour,
    pub(super) objects: BTreeMap<ObjectKey, Object>,
    pub(super) open: BTreeMap<UploadId, Open>,
    /// Uploads ever created, for names.
    created: u64,
    /// Completes that had an effect, by upload.
    pub(super) completed: BTreeMap<UploadId, ObjectKey>,
    /// Keys that the core told the store's door to keep as they are.
    pub(super) frozen: BTreeSet<ObjectKey>,
}

impl Bucket {
    pub(super) fn new(flavour: Flavour) -> Bucket {
        Bucket {
            flavour,
            objects: BTreeMap::new(),
            open: BTreeMap::new(),
            created: 0,
            completed: BTreeMap::new(),
            frozen: BTreeSet::new(),
        }
    }

    /// Stores a file that a device brings to the door. A frozen key keeps what it has; the same content is welcome.
    pub(super) fn offer(&mut self, key: &ObjectKey, content: Content, announced: Option<Sha256>) -> bool {
        if self.frozen.contains(key)
            && let Some(there) = self.objects.get(key)
        {
            return there.stuff == Stuff::Whole(content);
        }
        self.put(key, content, announced);
        true
    }

    /// Stores a file, as a client other than the core does.
    pub(super) fn put(&mut self, key: &ObjectKey, content: Content, announced: Option<Sha256>) {
        let object = self.object(content, announced);
        self.objects.insert(key.clone(), object);
    }

    /// What a whole object is, if it is a file in one piece.
    pub(super) fn content(&self, key: &ObjectKey) -> Option<&Content> {
        match &self.objects.get(key)?.stuff {
            Stuff::Whole(content) => Some(content),
            Stuff::Jumble(_) => None,
        }
    }

    fn object(&self, content: Content, announced: Option<Sha256>) -> Object {
        let sha256 = content.sha256();
        let keeps = matches!(self.flavour, Flavour::Full | Flavour::Composite);
        Object {
            etag: self.tag(sha256),
            sha256: keeps.then_some(sha256),
            composite: None,
            announced,
            stuff: Stuff::Whole(content),
        }
    }

    /// An MD5 look-alike, or something that is none.
    fn tag(&self, sha256: Sha256) -> ETag {
        let hex = format!("{sha256}");
        match self.flavour {
            Flavour::Full | Flavour::Composite | Flavour::Tags => ETag::new(&hex[..32]),
            Flavour::Opaque => ETag::new(&format!("opaque-{}", &hex[..12])),
        }
    }

    /// Does what an operation asks. `edge` is where sources are.
    pub(super) fn run(&mut self, op: &ObjectOp, edge: Option<&Bucket>) -> Result<ObjectReply, Fault> {
        match &op.verb {
            Verb::Head => Ok(ObjectReply::Head(self.objects.get(&op.key).map(|object| ObjectFacts {
                len: object.len(),
                etag: object.etag.clone(),
                sha256: object.sha256,
                composite: object.composite,
                announced: object.announced,
            }))),
            Verb::Get { span, want } => self.get(&op.key, *span, *want),
            Verb::Put { source, len, sha256 } => {
                let content = content_at(edge.unwrap_or(self), source)?;
                if content.len != *len || content.sha256() != *sha256 {
                    return Err(Fault::Damaged(What::Source));
                }
                let object = self.object(content, Some(*sha256));
                let etag = object.etag.clone();
                self.objects.insert(op.key.clone(), object);
                Ok(ObjectReply::Put(etag))
            }
            Verb::Create { sha256 } => {
                self.created += 1;
                let id = UploadId::new(format!("up-{:05}", self.created));
                let open = Open { key: op.key.clone(), announced: *sha256, parts: BTreeMap::new() };
                self.open.insert(id.clone(), open);
                Ok(ObjectReply::Created(id))
            }
            Verb::PutPart { upload, part, source, span } => {
                self.put_part(&op.key, upload, *part, content_at(edge.unwrap_or(self), source), *span)
            }
            Verb::Complete { upload, parts } => self.complete(&op.key, upload, parts),
            Verb::Abort { upload } => {
                self.open.remove(upload);
                Ok(ObjectReply::Aborted)
            }
            Verb::ListParts { upload } => Ok(ObjectReply::Parts(self.open.get(upload).map(|open| {
                let keeps = matches!(self.flavour, Flavour::Full | Flavour::Composite);
                let listed = |(part, (facts, ..)): (&PartNo, &(PartFacts, Content, Span))| ListedPart {
                    part: *part,
                    etag: facts.etag.clone(),
                    len: facts.len,
                    sha256: keeps.then_some(facts.sha256),
                };
                open.parts.iter().map(listed).collect()
            }))),
            Verb::ListUploads => Ok(ObjectReply::Uploads(
                self.open.iter().filter(|(_, open)| open.key == op.key).map(|(id, _)| id.clone()).collect(),
            )),
            Verb::Delete => {
                self.objects.remove(&op.key);
                Ok(ObjectReply::Deleted)
            }
            Verb::Find { device, wire } => {
                let found = self.objects.keys().filter(|key| is_recording_of(key.as_str(), device, wire));
                Ok(ObjectReply::Found(found.take(crate::limits::FOUND_MAX).cloned().collect()))
            }
        }
    }

    fn get(&self, key: &ObjectKey, span: Option<Span>, want: Want) -> Result<ObjectReply, Fault> {
        let object = self.objects.get(key).ok_or(Fault::Vanished(What::Object))?;
        let all = Span { offset: 0, len: object.len() };
        let span = span.unwrap_or(all);
        if span.offset + span.len > object.len() {
            return Err(Fault::Damaged(What::Object));
        }
        let sha256 = object.stuff.sha256(span);
        Ok(ObjectReply::Got(match want {
            Want::Digest => Got::Digest { len: span.len, sha256 },
            Want::Parts { part_size } => {
                Got::Parts { len: span.len, sha256, composite: object.stuff.composite(span, part_size) }
            }
            Want::Sidecar => {
                let facts = self.content(key).and_then(|content| content.facts.clone());
                Got::Sidecar { len: object.len(), sha256: object.sha256(), facts }
            }
            Want::Inspect => Got::Inspected { len: span.len, sha256, facts: looks(sha256) },
        }))
    }

    fn put_part(
        &mut self,
        key: &ObjectKey,
        upload: &UploadId,
        part: PartNo,
        source: Result<Content, Fault>,
        span: Span,
    ) -> Result<ObjectReply, Fault> {
        let content = source?;
        if span.offset + span.len > content.len {
            return Err(Fault::Damaged(What::Source));
        }
        let sha256 = content.span_sha256(span);
        let facts = PartFacts { etag: self.tag(sha256), sha256, len: span.len };
        let open = self.open.get_mut(upload).filter(|open| open.key == *key);
        let open = open.ok_or(Fault::Vanished(What::Upload))?;
        open.parts.insert(part, (facts.clone(), content, span));
        Ok(ObjectReply::PartStored(facts))
    }

    fn complete(
        &mut self,
        key: &ObjectKey,
        upload: &UploadId,
        parts: &[(PartNo, PartFacts)],
    ) -> Result<ObjectReply, Fault> {
        let open = self.open.get(upload).filter(|open| open.key == *key);
        let open = open.ok_or(Fault::Vanished(What::Upload))?;
        let mut pieces = Vec::new();
        for (n, (part, facts)) in parts.iter().enumerate() {
            let (held, content, span) = open.parts.get(part).ok_or(Fault::Vanished(What::Part))?;
            if held.etag != facts.etag {
                return Err(Fault::Vanished(What::Part));
            }
            if n + 1 < parts.len() && span.len < 5 << 20 {
                return Err(Fault::Rejected("EntityTooSmall".into()));
            }
            pieces.push((content.clone(), *span));
        }
        if pieces.is_empty() {
            return Err(Fault::Rejected("MalformedXML".into()));
        }
        let stuff = Stuff::of(pieces);
        let digests = parts.iter().map(|(_, facts)| facts.sha256);
        let composite =
            Composite { sha256: Sha256::composite(digests), parts: u16::try_from(parts.len()).unwrap_or(0) };
        let whole = stuff.sha256(Span { offset: 0, len: stuff.len() });
        let tags = multipart_etag(parts.iter().map(|(_, facts)| &facts.etag));
        let object = Object {
            etag: tags.unwrap_or_else(|| self.tag(whole)),
            sha256: (self.flavour == Flavour::Full).then_some(whole),
            composite: (self.flavour == Flavour::Composite).then_some(composite),
            announced: Some(open.announced),
            stuff,
        };
        let etag = object.etag.clone();
        self.objects.insert(key.clone(), object);
        self.open.remove(upload);
        self.completed.insert(upload.clone(), key.clone());
        Ok(ObjectReply::Completed(etag))
    }
}

fn content_at(edge: &Bucket, source: &ObjectKey) -> Result<Content, Fault> {
    if !edge.objects.contains_key(source) {
        return Err(Fault::Vanished(What::Source));
    }
    edge.content(source).cloned().ok_or(Fault::Damaged(What::Source))
}

/// The edge and the cloud.
#[derive(Clone, Debug)]
pub(super) struct Stores {
    pub(super) edge: Bucket,
    pub(super) cloud: Bucket,
}

impl Stores {
    pub(super) fn run(&mut self, op: &ObjectOp) -> Result<ObjectReply, Fault> {
        match op.store {
            Store::Edge => self.edge.run(op, None),
            Store::Cloud => self.cloud.run(op, Some(&self.edge)),
        }
    }
}
