//! What an object that stands at our key is: one table of evidence. Issues nothing.

use crate::digest::multipart_etag;
use crate::object::ObjectFacts;
use crate::row::{Phase, UploadRow};
use crate::upload::parts::{self, Parts};

/// What a store's word on an object proves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Proof {
    /// It is our recording.
    Equal,
    /// It is not.
    Differs,
    /// Only its bytes can tell.
    Open,
}

/// Whether the digests of our parts prove anything about the verified recording. A part is whatever was read when it
/// was sent; only the recheck ties the parts to the recording, for one reading gave both the digest that was verified
/// and the digests of these parts. The record of it is phase Sealing.
///
/// | phase | how it is reached | what proves that an object at our key is the recording |
/// |---|---|---|
/// | Planned | no part counts | the store's digest of the whole, else its bytes read as a whole |
/// | Open | parts count, and were not rechecked since the last one | the same: the parts prove neither yes nor no |
/// | Sealing | rechecked after the last part; a lost part leads back to Open | also the composite, the tag over the parts' tags, or its bytes part by part |
/// | Sealed | `Completed` in Sealing, or a `Put` whose digest the edge checked | as in Sealing |
///
/// An object that is there already in phase Open (another writer put it, or a `Complete` came through before a
/// part was lost) is so read as a whole and held against `source.sha256`; that its metadata announces that digest
/// decides only whether it may be replaced.
pub(super) fn parts_prove(row: &UploadRow) -> bool {
    match row.phase {
        Phase::Planned | Phase::Open { .. } | Phase::Abandoning { .. } => false,
        Phase::Sealing { .. } | Phase::Sealed { .. } => row.plan.parts > 1,
    }
}

/// Weighs what a store says of an object: size, then its checksums, then its tag. Metadata proves nothing, and
/// parts only what [`parts_prove`] allows.
pub(super) fn weigh(row: &UploadRow, stored: &Parts, facts: &ObjectFacts) -> Proof {
    if facts.len != row.source.len {
        return Proof::Differs;
    }
    let judge = |equal| if equal { Proof::Equal } else { Proof::Differs };
    if let Some(sha256) = facts.sha256 {
        return judge(sha256 == row.source.sha256);
    }
    if !parts_prove(row) || !parts::complete(row.plan, stored) {
        return Proof::Open;
    }
    match facts.composite {
        Some(composite) if composite.parts == row.plan.parts => {
            judge(composite == parts::composite(row.plan, stored))
        }
        // Cut in another way than ours: the same bytes have another composite.
        Some(_) => Proof::Open,
        None => {
            let ours = multipart_etag(stored.values().map(|part| &part.etag));
            if ours.as_ref() == Some(&facts.etag) { Proof::Equal } else { Proof::Open }
        }
    }
}

/// What to do about what stands at our key before we put anything there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// Our recording is there.
    Equal,
    /// Its bytes must be read to know. `ours`: it claims to be our recording.
    Read {
        /// Whether it claims to be our recording.
        ours: bool,
    },
    /// It claims to be our recording and is not whole: it may be replaced.
    Damaged,
    /// It is somebody else's: never touched.
    Foreign,
}

/// Decides about an object that stands at our key.
pub(super) fn look(row: &UploadRow, stored: &Parts, facts: &ObjectFacts) -> Seen {
    let ours = facts.announced == Some(row.source.sha256);
    match weigh(row, stored, facts) {
        Proof::Equal => Seen::Equal,
        Proof::Open if ours || facts.announced.is_none() => Seen::Read { ours },
        Proof::Open => Seen::Foreign,
        Proof::Differs => unequal(ours),
    }
}

/// What an object is that surely is not our recording.
pub(super) fn unequal(ours: bool) -> Seen {
    if ours { Seen::Damaged } else { Seen::Foreign }
}
