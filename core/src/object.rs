//! Object operations: what the core asks of a store, and what a store answers. Either store takes every operation.

use alloc::string::String;
use alloc::vec::Vec;
use minicbor::{Decode, Encode};

use crate::digest::Sha256;
use crate::id::{ETag, ObjectKey, PartNo, UploadId};
use crate::time::Wall;

/// Which store an operation names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub enum Store {
    /// The site's own, where devices upload to. Bucket `edge-{site}`.
    #[n(0)]
    Edge,
    /// The destination.
    #[n(1)]
    Cloud,
}

/// A range of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Span {
    /// First byte.
    #[n(0)]
    pub offset: u64,
    /// Number of bytes.
    #[n(1)]
    pub len: u64,
}

/// One operation on one key of one store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectOp {
    /// Which store.
    pub store: Store,
    /// Which object.
    pub key: ObjectKey,
    /// What to do.
    pub verb: Verb,
}

/// What to do with an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Is it there, and what is it? → [`ObjectReply::Head`]
    Head,
    /// Read it and reduce it to facts; bytes never enter the core. → [`ObjectReply::Got`]
    Get {
        /// What of it; `None` is all of it.
        span: Option<Span>,
        /// Reduced to what.
        want: Want,
    },
    /// Copy a whole object from the edge to this key in one request. → [`ObjectReply::Put`]
    Put {
        /// Key at the edge.
        source: ObjectKey,
        /// Bytes it must have; anything else is `Damaged(Source)`.
        len: u64,
        /// Digest it must have and that is sent as its checksum and kept as metadata `checksum-sha256`.
        sha256: Sha256,
    },
    /// Begin a multipart upload, with SHA-256 part checksums. → [`ObjectReply::Created`]
    Create {
        /// Digest of the whole object, kept as metadata `checksum-sha256`.
        sha256: Sha256,
    },
    /// Send one part from the edge, with its own SHA-256. → [`ObjectReply::PartStored`]
    PutPart {
        /// The multipart upload.
        upload: UploadId,
        /// The part.
        part: PartNo,
        /// Key at the edge.
        source: ObjectKey,
        /// Which bytes of it.
        span: Span,
    },
    /// Make the object out of its parts. → [`ObjectReply::Completed`]
    Complete {
        /// The multipart upload.
        upload: UploadId,
        /// All parts in order.
        parts: Vec<(PartNo, PartFacts)>,
    },
    /// Give a multipart upload up; one that is gone already is `Done`. → [`ObjectReply::Aborted`]
    Abort {
        /// The multipart upload.
        upload: UploadId,
    },
    /// Which parts does the store hold? → [`ObjectReply::Parts`]
    ListParts {
        /// The multipart upload.
        upload: UploadId,
    },
    /// Which multipart uploads of exactly this key are open? → [`ObjectReply::Uploads`]
    ListUploads,
    /// Remove it; one that is gone already is `Done`. → [`ObjectReply::Deleted`]
    Delete,
}

impl Verb {
    /// A short stable word for logs and metrics.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Verb::Head => "head",
            Verb::Get { .. } => "get",
            Verb::Put { .. } => "put",
            Verb::Create { .. } => "create",
            Verb::PutPart { .. } => "put_part",
            Verb::Complete { .. } => "complete",
            Verb::Abort { .. } => "abort",
            Verb::ListParts { .. } => "list_parts",
            Verb::ListUploads => "list_uploads",
            Verb::Delete => "delete",
        }
    }
}

/// What a `Get` is reduced to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Want {
    /// SHA-256 and length, computed by us from the bytes.
    #[n(0)]
    Digest,
    /// The facts of a recording's sidecar, with its own digest and length.
    #[n(1)]
    Sidecar,
    /// The same as `Digest`, and what the composite checksum of these very bytes is, cut into parts.
    #[n(3)]
    Parts {
        /// Bytes of every part but the last.
        #[n(0)]
        part_size: u64,
    },
}

/// What a store answered.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum ObjectReply {
    /// To `Head`: `None` is absent.
    #[n(0)]
    Head(#[n(0)] Option<ObjectFacts>),
    /// To `Get`.
    #[n(1)]
    Got(#[n(0)] Got),
    /// To `Put`.
    #[n(2)]
    Put(#[n(0)] ETag),
    /// To `Create`.
    #[n(3)]
    Created(#[n(0)] UploadId),
    /// To `PutPart`.
    #[n(4)]
    PartStored(#[n(0)] PartFacts),
    /// To `Complete`.
    #[n(5)]
    Completed(#[n(0)] ETag),
    /// To `Abort`.
    #[n(6)]
    Aborted,
    /// To `ListParts`: `None` is no such upload. In order of part number.
    #[n(7)]
    Parts(#[n(0)] Option<Vec<ListedPart>>),
    /// To `ListUploads`. Oldest first.
    #[n(8)]
    Uploads(#[n(0)] Vec<UploadId>),
    /// To `Delete`.
    #[n(9)]
    Deleted,
}

/// What a `Get` came to.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Got {
    /// Asked for [`Want::Digest`].
    #[n(0)]
    Digest {
        /// Bytes read.
        #[n(0)]
        len: u64,
        /// Of those bytes.
        #[n(1)]
        sha256: Sha256,
    },
    /// Asked for [`Want::Sidecar`]; `facts` is `None` if it is no JSON object.
    #[n(1)]
    Sidecar {
        /// Bytes of the sidecar.
        #[n(0)]
        len: u64,
        /// Of the sidecar.
        #[n(1)]
        sha256: Sha256,
        /// What it says.
        #[n(2)]
        facts: Option<SidecarFacts>,
    },
    /// Asked for [`Want::Parts`]. All of it comes from one reading: whoever trusts `sha256` may trust `composite`.
    #[n(3)]
    Parts {
        /// Bytes read.
        #[n(0)]
        len: u64,
        /// Of those bytes.
        #[n(1)]
        sha256: Sha256,
        /// Over the digests of the parts of those bytes, and their number.
        #[n(2)]
        composite: Composite,
    },
}

/// What a recording's sidecar says of it. All of it is a claim, none of it proof.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct SidecarFacts {
    /// `recording.checksum_sha256`
    #[n(0)]
    pub sha256: Option<Sha256>,
    /// `recording.file_size_bytes`
    #[n(1)]
    pub len: Option<u64>,
    /// `recording.duration_sec`, in milliseconds.
    #[n(2)]
    pub duration_ms: Option<u64>,
    /// `recording.message_count`
    #[n(3)]
    pub messages: Option<u64>,
    /// `recording.recording_started_at` (milliseconds, or RFC 3339).
    #[n(4)]
    pub started_at: Option<Wall>,
    /// `recording.recorder_version`
    #[n(5)]
    pub recorder_version: Option<String>,
}

/// What a store knows of an object.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ObjectFacts {
    /// Bytes.
    #[n(0)]
    pub len: u64,
    /// Tag.
    #[n(1)]
    pub etag: ETag,
    /// The store's checksum over the whole content, if it has one.
    #[n(2)]
    pub sha256: Option<Sha256>,
    /// The store's composite checksum over the parts, if it has one, and their number.
    #[n(3)]
    pub composite: Option<Composite>,
    /// User metadata `checksum-sha256`: a claim of whoever wrote the object.
    #[n(4)]
    pub announced: Option<Sha256>,
}

/// A checksum over the checksums of parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Composite {
    /// Of the concatenated part digests.
    #[n(0)]
    pub sha256: Sha256,
    /// Number of parts.
    #[n(1)]
    pub parts: u16,
}

/// What is known of an acknowledged part.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct PartFacts {
    /// The store's tag.
    #[n(0)]
    pub etag: ETag,
    /// Computed by us from the bytes sent.
    #[n(1)]
    pub sha256: Sha256,
    /// Bytes.
    #[n(2)]
    pub len: u64,
}

/// A part as a store lists it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ListedPart {
    /// The part.
    #[n(0)]
    pub part: PartNo,
    /// The store's tag.
    #[n(1)]
    pub etag: ETag,
    /// Bytes.
    #[n(2)]
    pub len: u64,
    /// The store's checksum, if it keeps one.
    #[n(3)]
    pub sha256: Option<Sha256>,
}
