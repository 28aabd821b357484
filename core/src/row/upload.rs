//! The record of an upload session: what was planned, which step it is at.

use minicbor::{Decode, Encode};

use crate::digest::Sha256;
use crate::id::{ETag, Fence, ObjectKey, UploadId};

/// What an upload sends: an object at the edge that was verified.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Source {
    /// Key at the edge.
    #[n(0)]
    pub key: ObjectKey,
    /// Bytes.
    #[n(1)]
    pub len: u64,
    /// Digest of those bytes.
    #[n(2)]
    pub sha256: Sha256,
    /// Its sidecar, if it has one: it is sent first and is part of the job.
    #[n(3)]
    pub sidecar: Option<SidecarSource>,
}

/// A sidecar at the edge.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SidecarSource {
    /// Key at the edge.
    #[n(0)]
    pub key: ObjectKey,
    /// Bytes.
    #[n(1)]
    pub len: u64,
    /// Digest of those bytes.
    #[n(2)]
    pub sha256: Sha256,
}

/// How an object is cut into parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Plan {
    /// Bytes of every part but the last.
    #[n(0)]
    pub part_size: u64,
    /// Number of parts; 1 means one `Put` instead of a multipart upload.
    #[n(1)]
    pub parts: u16,
}

/// Which step an upload is at. The row exists before the effect it announces leaves.
///
/// ```text
/// Planned ─► Open ◄─► Sealing ─► Sealed
///    ▲         │         │          │
///    └─────────┴─────────┴──────────┘ the store lost it: begin again, said aloud
/// (Planned, Open ─► Sealed, when the object proves to be there already; any ─► Abandoning, when it is over and something may be left behind)
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Phase {
    /// Nothing of the object itself is known to be there.
    #[n(0)]
    Planned,
    /// A multipart upload exists.
    #[n(1)]
    Open {
        /// Its id.
        #[n(0)]
        upload: UploadId,
    },
    /// All parts are there; `Complete` was or will be asked.
    #[n(2)]
    Sealing {
        /// The multipart upload.
        #[n(0)]
        upload: UploadId,
    },
    /// The store said it is whole; it is yet to be verified.
    #[n(3)]
    Sealed {
        /// What the store called it.
        #[n(0)]
        etag: ETag,
    },
    /// Over; the store is yet to be told to drop the parts, or strays are yet to be looked for.
    #[n(4)]
    Abandoning {
        /// The multipart upload; `None` if only one that we do not know of may be there.
        #[n(0)]
        upload: Option<UploadId>,
    },
}

/// An upload session: one per job.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct UploadRow {
    /// The claim that works on it.
    #[n(0)]
    pub fence: Fence,
    /// Key in the cloud.
    #[n(1)]
    pub key: ObjectKey,
    /// What it sends.
    #[n(2)]
    pub source: Source,
    /// How it is cut.
    #[n(3)]
    pub plan: Plan,
    /// Where it is.
    #[n(4)]
    pub phase: Phase,
    /// Whether the sidecar (if any) is in the cloud.
    #[n(5)]
    pub sidecar_stored: bool,
    /// How often it was begun again because the store lost it.
    #[n(6)]
    pub restarts: u32,
    /// Whether an interrupted `Create` may have left an upload behind: look before creating, and at the end.
    #[n(7)]
    pub look_first: bool,
}
