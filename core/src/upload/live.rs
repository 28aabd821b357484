//! The volatile half of an upload: what one claim is about to find out or to do. Forgotten with the claim.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use crate::id::{ETag, EpisodeId, Fence, PartNo, Ticket, UploadId};
use crate::object::{ListedPart, ObjectOp, Span, Store, Verb, Want};
use crate::outcome::Fault;
use crate::row::{Phase, UploadRow};
use crate::time::Mono;
use crate::upload::parts::Parts;
use crate::upload::plan;

/// What an upload is about to find out or to do.
///
/// ```text
/// Planned: Look ─► [Read] ─► [Sidecar] ─► Put ───────────────────────────────► Verify
///                                    └──► [Find ─► Sift ─► Clear] ─► Create ─► Send
/// Open:    Probe ─► [Match] ─► Send ─► Recheck ─► Seal ─► Verify      Probe ─► Look ─► (restarted) Find
/// Sealing: Look ─► Probe ─► Seal ─► Verify
/// Sealed:  Verify ─► [Read] ─► the end
/// ```
///
/// Sealing is recorded by `Recheck` alone: whoever finds it in a record knows that the recorded parts are those of the
/// verified recording, each of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Aim {
    /// What stands at our key? `gone`: the store does not know our multipart upload any more.
    Look {
        /// Whether the multipart upload is gone.
        gone: bool,
    },
    /// Is what stands there our recording, byte by byte?
    Read {
        /// Its tag.
        etag: ETag,
        /// Whether it claims to be our recording.
        ours: bool,
        /// This part of it; `None` is all of it in one go.
        part: Option<PartNo>,
    },
    /// Send the sidecar. `found`: the recording itself is there already.
    Sidecar {
        /// Tag of the recording, if it is there.
        found: Option<ETag>,
    },
    /// Send a recording of one part.
    Put,
    /// Which multipart uploads of our key did an interrupted `Create` leave behind?
    Find,
    /// What do they hold?
    Sift {
        /// Yet to be looked at; the last first.
        left: Vec<UploadId>,
        /// The best to go on with so far, and how many parts it holds.
        best: Option<(UploadId, usize)>,
        /// Of no use.
        drop: Vec<UploadId>,
    },
    /// Give these up; the last first.
    Clear {
        /// Yet to be given up.
        left: Vec<UploadId>,
        /// And then?
        then: Then,
    },
    /// Begin a multipart upload.
    Create,
    /// Which parts does the store hold? `doubt`: why we ask, if the store gave a reason.
    Probe {
        /// The reason.
        doubt: Option<Fault>,
    },
    /// Parts are stored whose answer was lost. Is the source the same there? Asked of the edge, part by part.
    Match {
        /// Yet to be looked at; the last first.
        left: Vec<ListedPart>,
    },
    /// Send parts.
    Send,
    /// All parts are stored. Is the source still the recording that was verified, and is each of them a part of it?
    /// Asked of the edge, in one reading.
    Recheck,
    /// Make the object out of its parts.
    Seal,
    /// Is the object what it must be?
    Verify,
}

/// What follows once strays are given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Then {
    /// Go on with this one.
    Open(UploadId),
    /// Begin a new one.
    Create,
}

/// What a ticket asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// The question of the aim.
    Question,
    /// To send a part.
    Part(PartNo),
}

/// One claim at work.
#[derive(Debug)]
pub(super) struct Live {
    /// The claim.
    pub(super) fence: Fence,
    /// Whose progress it is.
    pub(super) episode: EpisodeId,
    /// What is next.
    pub(super) aim: Aim,
    /// Operations outstanding.
    pub(super) open: BTreeMap<Ticket, Asked>,
    /// Parts to send that are not in flight.
    pub(super) todo: BTreeSet<PartNo>,
    /// Questions in a row that were not answered, since something was achieved.
    pub(super) unanswered: u32,
    /// How often the store did not take the parts as we know them.
    pub(super) doubts: u32,
    /// Nothing new is asked before this.
    pub(super) rest: Option<Mono>,
    /// Its turn on the way.
    pub(super) booked: Option<Mono>,
    /// Whether a `Create` we gave up on may still come through.
    pub(super) stray: bool,
    /// Whether the store said that it does not know our multipart upload (any more).
    pub(super) gone: bool,
}

impl Live {
    /// A claim that knows nothing yet but the phase it finds.
    pub(super) fn new(fence: Fence, episode: EpisodeId, phase: &Phase) -> Live {
        let aim = match phase {
            Phase::Planned | Phase::Sealing { .. } => Aim::Look { gone: false },
            Phase::Open { .. } => Aim::Probe { doubt: None },
            Phase::Sealed { .. } | Phase::Abandoning { .. } => Aim::Verify,
        };
        Live {
            fence,
            episode,
            aim,
            open: BTreeMap::new(),
            todo: BTreeSet::new(),
            unanswered: 0,
            doubts: 0,
            rest: None,
            booked: None,
            stray: false,
            gone: false,
        }
    }
}

/// The operation that an aim asks for; `None` for `Send`, which asks for many.
pub(super) fn question(row: &UploadRow, stored: &Parts, aim: &Aim) -> Option<ObjectOp> {
    let own =
        || super::session::multipart(&row.phase).cloned().expect("the phase names the multipart upload");
    let verb = match aim {
        Aim::Look { .. } | Aim::Verify => Verb::Head,
        Aim::Read { part, .. } => {
            let span = part.map(|part| plan::span(row.plan, row.source.len, part));
            Verb::Get { span, want: Want::Digest }
        }
        Aim::Sidecar { .. } => {
            let sidecar = row.source.sidecar.as_ref()?;
            let key = plan::sidecar_key(&row.key);
            let (source, len, sha256) = (sidecar.key.clone(), sidecar.len, sidecar.sha256);
            return Some(ObjectOp { store: Store::Cloud, key, verb: Verb::Put { source, len, sha256 } });
        }
        Aim::Put => {
            let source = row.source.key.clone();
            Verb::Put { source, len: row.source.len, sha256: row.source.sha256 }
        }
        Aim::Find => Verb::ListUploads,
        Aim::Sift { left, .. } => Verb::ListParts { upload: left.last()?.clone() },
        Aim::Clear { left, .. } => Verb::Abort { upload: left.last()?.clone() },
        Aim::Create => Verb::Create { sha256: row.source.sha256 },
        Aim::Probe { .. } => Verb::ListParts { upload: own() },
        Aim::Match { left } => {
            let span = plan::span(row.plan, row.source.len, left.last()?.part);
            let verb = Verb::Get { span: Some(span), want: Want::Digest };
            return Some(ObjectOp { store: Store::Edge, key: row.source.key.clone(), verb });
        }
        Aim::Send => return None,
        Aim::Recheck => {
            let verb = Verb::Get { span: None, want: Want::Parts { part_size: row.plan.part_size } };
            return Some(ObjectOp { store: Store::Edge, key: row.source.key.clone(), verb });
        }
        Aim::Seal => {
            let parts = stored.iter().map(|(part, facts)| (*part, facts.clone())).collect();
            Verb::Complete { upload: own(), parts }
        }
    };
    Some(ObjectOp { store: Store::Cloud, key: row.key.clone(), verb })
}

/// The operation that sends a part.
pub(super) fn put_part(row: &UploadRow, part: PartNo, span: Span) -> Option<ObjectOp> {
    let upload = super::session::multipart(&row.phase)?.clone();
    let verb = Verb::PutPart { upload, part, source: row.source.key.clone(), span };
    Some(ObjectOp { store: Store::Cloud, key: row.key.clone(), verb })
}
