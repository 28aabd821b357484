//! One object store as it really behaves, without bytes: the truth that invariants read. Knows nothing of the core's
//! records, and never lies; what goes wrong on the way to it is the world's business.

use std::collections::{BTreeMap, BTreeSet};

use tidegate_core::digest::{Sha256, multipart_etag};
use tidegate_core::id::{ETag, ObjectKey, PartNo, UploadId};
use tidegate_core::limits::FOUND_MAX;
use tidegate_core::object::{
    Composite, Got, ListedPart, ObjectFacts, ObjectOp, ObjectReply, PartFacts, Span, Verb, Want,
    is_recording_of,
};
use tidegate_core::outcome::{Fault, What};

use super::past::{Past, UploadFate};
use super::{Content, recording};
use crate::scenario::Flavour;

/// What an object is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Stuff {
    /// A file, from its first byte to its last.
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
pub struct Object {
    stuff: Stuff,
    etag: ETag,
    sha256: Option<Sha256>,
    composite: Option<Composite>,
    announced: Option<Sha256>,
}

impl Object {
    /// Bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.stuff.len()
    }

    /// Whether it has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Digest of its bytes: the truth, not what the store would tell.
    #[must_use]
    pub fn sha256(&self) -> Sha256 {
        self.stuff.sha256(Span { offset: 0, len: self.len() })
    }

    /// The digest in its metadata: a claim of whoever stored it.
    #[must_use]
    pub fn announced(&self) -> Option<Sha256> {
        self.announced
    }

    /// What it is, if it is one file from its first byte to its last.
    #[must_use]
    pub fn content(&self) -> Option<&Content> {
        match &self.stuff {
            Stuff::Whole(content) => Some(content),
            Stuff::Jumble(_) => None,
        }
    }
}

/// A multipart upload that is neither completed nor aborted.
#[derive(Clone, Debug)]
pub struct Open {
    /// Where its object will be.
    pub key: ObjectKey,
    announced: Sha256,
    /// Its parts: what the store says of each, and which bytes of which file it is.
    pub parts: BTreeMap<PartNo, (PartFacts, Content, Span)>,
}

/// One bucket.
#[derive(Clone, Debug)]
pub struct Bucket {
    flavour: Flavour,
    /// Objects that are there.
    pub objects: BTreeMap<ObjectKey, Object>,
    /// Multipart uploads that are neither completed, aborted nor dropped.
    pub open: BTreeMap<UploadId, Open>,
    /// Keys that the core told the store's door to keep as they are.
    pub frozen: BTreeSet<ObjectKey>,
    /// What ever happened to it.
    pub past: Past,
}

impl Bucket {
    /// An empty one that keeps such checksums.
    #[must_use]
    pub fn new(flavour: Flavour) -> Bucket {
        Bucket {
            flavour,
            objects: BTreeMap::new(),
            open: BTreeMap::new(),
            frozen: BTreeSet::new(),
            past: Past::default(),
        }
    }

    /// Stores a file that a device brings to the door; whether it may. A frozen key keeps what it has; the same content
    /// is welcome. `announced` is the digest in the object's metadata.
    pub fn offer(&mut self, key: &ObjectKey, content: Content, announced: Option<Sha256>) -> bool {
        if self.frozen.contains(key)
            && let Some(there) = self.objects.get(key)
        {
            return there.content() == Some(&content);
        }
        self.put(key, content, announced);
        true
    }

    /// Stores a file, as a client other than the core does.
    pub fn put(&mut self, key: &ObjectKey, content: Content, announced: Option<Sha256>) {
        let object = self.object(content, announced);
        self.past.key(key).puts += 1;
        self.objects.insert(key.clone(), object);
    }

    /// A third party puts something else there, whatever the door says.
    pub fn overwrite(&mut self, key: &ObjectKey, content: Content) {
        let object = self.object(content, None);
        self.objects.insert(key.clone(), object);
        self.past.tampered.insert(key.clone());
    }

    /// A third party removes an object; whether there was one.
    pub fn remove(&mut self, key: &ObjectKey) -> bool {
        self.past.tampered.insert(key.clone());
        self.objects.remove(key).is_some()
    }

    /// The store drops every unfinished multipart upload, as lifecycle rules do; how many.
    pub fn drop_uploads(&mut self) -> usize {
        let open = std::mem::take(&mut self.open);
        for id in open.keys() {
            self.past.ended(id, UploadFate::Dropped);
        }
        open.len()
    }

    /// What a whole object is, if it is a file in one piece.
    #[must_use]
    pub fn content(&self, key: &ObjectKey) -> Option<&Content> {
        self.objects.get(key)?.content()
    }

    /// Whether an object of exactly these bytes is there.
    #[must_use]
    pub fn holds(&self, key: &ObjectKey, len: u64, sha256: Sha256) -> bool {
        self.objects.get(key).is_some_and(|object| object.len() == len && object.sha256() == sha256)
    }

    /// Unfinished multipart uploads of exactly this key, the oldest first.
    pub fn open_at<'a>(&'a self, key: &'a ObjectKey) -> impl Iterator<Item = &'a UploadId> {
        self.open.iter().filter(move |(_, open)| open.key == *key).map(|(id, _)| id)
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

    /// Does what an operation asks. `edge` is where sources are; `None` is this very bucket.
    ///
    /// # Errors
    /// What a store of this kind answers to what cannot be done.
    pub fn run(&mut self, op: &ObjectOp, edge: Option<&Bucket>) -> Result<ObjectReply, Fault> {
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
                self.past.key(&op.key).puts += 1;
                self.objects.insert(op.key.clone(), object);
                Ok(ObjectReply::Put(etag))
            }
            Verb::Create { sha256 } => {
                let id = UploadId::new(format!("up-{:05}", self.past.uploads.len() + 1));
                self.past.created(&id, &op.key);
                let open = Open { key: op.key.clone(), announced: *sha256, parts: BTreeMap::new() };
                self.open.insert(id.clone(), open);
                Ok(ObjectReply::Created(id))
            }
            Verb::PutPart { upload, part, source, span } => {
                self.put_part(&op.key, upload, *part, content_at(edge.unwrap_or(self), source), *span)
            }
            Verb::Complete { upload, parts } => self.complete(&op.key, upload, parts),
            Verb::Abort { upload } => {
                if self.open.remove(upload).is_some() {
                    self.past.ended(upload, UploadFate::Aborted);
                }
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
            Verb::ListUploads => Ok(ObjectReply::Uploads(self.open_at(&op.key).cloned().collect())),
            Verb::Find { device, wire } => {
                let named = self.objects.keys().filter(|key| is_recording_of(key.as_str(), device, wire));
                Ok(ObjectReply::Found(named.take(FOUND_MAX).cloned().collect()))
            }
            Verb::Delete => {
                self.past.key(&op.key).deletes += u32::from(self.objects.remove(&op.key).is_some());
                Ok(ObjectReply::Deleted)
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
            Want::Inspect => {
                let beside = key.as_str().strip_suffix(".mcap").map(|stem| format!("{stem}.json"));
                let beside = beside.and_then(|key| ObjectKey::new(&key).ok());
                let beside = beside.and_then(|key| self.content(&key)?.facts.as_ref()?.messages);
                Got::Inspected { len: span.len, sha256, facts: recording::facts(sha256, beside) }
            }
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
        self.past.stored(upload, part, span.len);
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
        self.past.ended(upload, UploadFate::Completed);
        Ok(ObjectReply::Completed(etag))
    }
}

fn content_at(edge: &Bucket, source: &ObjectKey) -> Result<Content, Fault> {
    if !edge.objects.contains_key(source) {
        return Err(Fault::Vanished(What::Source));
    }
    edge.content(source).cloned().ok_or(Fault::Damaged(What::Source))
}
