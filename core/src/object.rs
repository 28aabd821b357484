//! Object operations: what the core asks of a store, and what a store answers. Either store takes every operation.

use alloc::string::String;
use alloc::vec::Vec;
use minicbor::{Decode, Encode};

use crate::digest::Sha256;
use crate::id::{DeviceId, ETag, ObjectKey, PartNo, UploadId, WireId};
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
    /// Which objects are named as this recording is ([`is_recording_of`])? Only the edge store is asked; the key of the
    /// operation is for people. → [`ObjectReply::Found`]
    Find {
        /// Whose.
        device: DeviceId,
        /// Which attempt.
        wire: WireId,
    },
}

/// Whether a key is one under which uploaders put this recording: it ends in `/{wire}.mcap`, below a folder named as the
/// device is (`{factory}/{device}/{date}/{wire}.mcap`).
#[must_use]
pub fn is_recording_of(key: &str, device: &DeviceId, wire: &WireId) -> bool {
    let mut folders = key.split('/');
    let name = folders.next_back().and_then(|name| name.strip_suffix(".mcap"));
    name == Some(wire.as_str()) && folders.any(|folder| folder == device.as_str())
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
            Verb::Find { .. } => "find",
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
    /// The facts of a recording that was read as MCAP from its first byte to its last, with its digest and length.
    #[n(2)]
    Inspect,
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
    /// To `Find`: in order of their names, at most [`FOUND_MAX`](crate::limits::FOUND_MAX).
    #[n(10)]
    Found(#[n(0)] Vec<ObjectKey>),
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
    /// Asked for [`Want::Inspect`].
    #[n(2)]
    Inspected {
        /// Bytes read.
        #[n(0)]
        len: u64,
        /// Of those bytes.
        #[n(1)]
        sha256: Sha256,
        /// What they are as a recording.
        #[n(2)]
        facts: McapFacts,
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

/// What a recording turned out to be when it was read as MCAP. Counts and times are of what was read: with a flaw, of
/// what came before it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct McapFacts {
    /// The first thing that is wrong with it; `None` is sound.
    #[n(0)]
    pub flaw: Option<Flaw>,
    /// Messages.
    #[n(1)]
    pub messages: u64,
    /// The earliest log time of a message, in nanoseconds since 1970 (or whatever the recorder's clock began with).
    #[n(2)]
    pub first_ns: Option<u64>,
    /// The latest log time of a message, in nanoseconds.
    #[n(3)]
    pub last_ns: Option<u64>,
    /// Channels that were declared.
    #[n(4)]
    pub channels: u32,
    /// Chunks.
    #[n(5)]
    pub chunks: u64,
}

impl McapFacts {
    /// Milliseconds from the first message to the last; `None` without messages.
    #[must_use]
    pub fn duration_ms(&self) -> Option<u64> {
        Some(self.last_ns?.saturating_sub(self.first_ns?) / 1_000_000)
    }
}

/// What is wrong with a recording as an MCAP file, or why nobody can say. An ordinal is never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub enum Flaw {
    /// It has no bytes.
    #[n(0)]
    Empty,
    /// Its first or last eight bytes are not those of MCAP.
    #[n(1)]
    BadMagic,
    /// It ends before its end.
    #[n(2)]
    Truncated,
    /// Bytes follow its end.
    #[n(3)]
    TrailingBytes,
    /// It has no summary, or no statistics in it: the recorder did not finish it.
    #[n(4)]
    NoSummary,
    /// The content of a chunk does not have the chunk's checksum.
    #[n(5)]
    ChunkCrc,
    /// The data section does not have its checksum.
    #[n(6)]
    DataCrc,
    /// The summary does not have its checksum.
    #[n(7)]
    SummaryCrc,
    /// An attachment does not have its checksum.
    #[n(8)]
    AttachmentCrc,
    /// A record, or a compressed chunk, cannot be decoded.
    #[n(9)]
    Undecodable,
    /// The statistics say other than what is there.
    #[n(10)]
    StatisticsDiffer,
    /// The summary points to where the thing is not.
    #[n(11)]
    IndexDiffers,
    /// Nobody can say: a chunk has a compression that we cannot undo.
    #[n(12)]
    UnknownCompression,
    /// Nobody can say: a record is larger, or a chunk grows larger, than we are willing to read.
    #[n(13)]
    TooLarge,
}

impl Flaw {
    /// Every flaw.
    pub const ALL: [Flaw; 14] = [
        Flaw::Empty,
        Flaw::BadMagic,
        Flaw::Truncated,
        Flaw::TrailingBytes,
        Flaw::NoSummary,
        Flaw::ChunkCrc,
        Flaw::DataCrc,
        Flaw::SummaryCrc,
        Flaw::AttachmentCrc,
        Flaw::Undecodable,
        Flaw::StatisticsDiffer,
        Flaw::IndexDiffers,
        Flaw::UnknownCompression,
        Flaw::TooLarge,
    ];

    /// A short stable word for the API, logs and metrics.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Flaw::Empty => "empty",
            Flaw::BadMagic => "bad_magic",
            Flaw::Truncated => "truncated",
            Flaw::TrailingBytes => "trailing_bytes",
            Flaw::NoSummary => "no_summary",
            Flaw::ChunkCrc => "chunk_crc",
            Flaw::DataCrc => "data_crc",
            Flaw::SummaryCrc => "summary_crc",
            Flaw::AttachmentCrc => "attachment_crc",
            Flaw::Undecodable => "undecodable",
            Flaw::StatisticsDiffer => "statistics_differ",
            Flaw::IndexDiffers => "index_differs",
            Flaw::UnknownCompression => "unknown_compression",
            Flaw::TooLarge => "too_large",
        }
    }

    /// The same in a sentence for people.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Flaw::Empty => "the file has no bytes",
            Flaw::BadMagic => "it does not begin or end as an MCAP file does",
            Flaw::Truncated => "the file ends too early",
            Flaw::TrailingBytes => "bytes follow the end of the recording",
            Flaw::NoSummary => "it has no summary with statistics, so the recorder did not finish it",
            Flaw::ChunkCrc => "a chunk does not match its checksum",
            Flaw::DataCrc => "the data section does not match its checksum",
            Flaw::SummaryCrc => "the summary does not match its checksum",
            Flaw::AttachmentCrc => "an attachment does not match its checksum",
            Flaw::Undecodable => "a record or chunk cannot be decoded",
            Flaw::StatisticsDiffer => "its statistics say other than what is in it",
            Flaw::IndexDiffers => "its summary points to the wrong places",
            Flaw::UnknownCompression => "it cannot be checked: a chunk has an unknown compression",
            Flaw::TooLarge => "it cannot be checked: a record or chunk is larger than the check reads",
        }
    }
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
