//! Comparing what was said of a recording with what is in the store. Pure: looks at nothing, asks for nothing.

use alloc::string::String;

use crate::digest::Sha256;
use crate::limits;
use crate::object::{ObjectFacts, SidecarFacts};
use crate::wire::transfer::Announced;

/// What a resting verification waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rest {
    /// Time, a stored object, or the next word of its uploader.
    Retry,
    /// Another upload: these bytes will not become right.
    Upload,
}

/// Why a recording was not acknowledged.
pub(super) struct Trouble {
    pub(super) code: &'static str,
    pub(super) detail: String,
    pub(super) rest: Rest,
}

/// Compares the store's word for the object with the uploader's.
pub(super) fn judge_head(claim: &Announced, head: &ObjectFacts) -> Result<(), Trouble> {
    if head.len > limits::OBJECT_BYTES_MAX {
        let detail = alloc::format!("{} bytes are more than we can carry", head.len);
        return Err(Trouble { code: "too_large", detail, rest: Rest::Upload });
    }
    same_len("announced", claim.len, head.len)?;
    if let Some(sha256) = head.announced.or(head.sha256) {
        same_digest("announced", claim.sha256, "its metadata", sha256)?;
    }
    Ok(())
}

/// Compares the sidecar's word for the recording with the others.
pub(super) fn judge_sidecar(
    claim: &Announced,
    head: &ObjectFacts,
    facts: &SidecarFacts,
) -> Result<(), Trouble> {
    same_len("in the sidecar", facts.len, head.len)?;
    if let Some(sha256) = facts.sha256 {
        same_digest("announced", claim.sha256, "in the sidecar", sha256)?;
        same_digest("in the metadata", head.announced, "in the sidecar", sha256)?;
    }
    Ok(())
}

/// Compares what we read with everything that was said.
pub(super) fn judge_digest(
    claim: &Announced,
    head: &ObjectFacts,
    sidecar: Option<&SidecarFacts>,
    len: u64,
    sha256: Sha256,
) -> Result<(), Trouble> {
    same_len("announced", claim.len, len)?;
    same_len("in the store's word", Some(head.len), len)?;
    same_len("in the sidecar", sidecar.and_then(|facts| facts.len), len)?;
    same_digest("announced", claim.sha256, "read", sha256)?;
    same_digest("in the metadata", head.announced, "read", sha256)?;
    same_digest("in the store's word", head.sha256, "read", sha256)?;
    same_digest("in the sidecar", sidecar.and_then(|facts| facts.sha256), "read", sha256)
}

/// Whether anybody but the store itself says what the bytes must be. What is only there proves nothing: a disk that
/// rotted, or a stranger's upload under the same key, is there as well. `callback` is the length of the recorder's
/// finish callback.
pub(super) fn judge_evidence(
    claim: &Announced,
    head: &ObjectFacts,
    sidecar: Option<&SidecarFacts>,
    callback: Option<u64>,
    len: u64,
) -> Result<(), Trouble> {
    let said = sidecar.is_some_and(|facts| facts.len.is_some() || facts.sha256.is_some());
    if claim.len.is_some()
        || claim.sha256.is_some()
        || head.announced.is_some()
        || said
        || callback == Some(len)
    {
        return Ok(());
    }
    let detail = "nobody said how long it is or what its SHA-256 is".into();
    Err(Trouble { code: "no_evidence", detail, rest: Rest::Retry })
}

fn same_len(whose: &str, said: Option<u64>, found: u64) -> Result<(), Trouble> {
    match said {
        Some(said) if said != found => {
            let detail = alloc::format!("{said} bytes {whose}, {found} found");
            Err(Trouble { code: "size_mismatch", detail, rest: Rest::Upload })
        }
        Some(_) | None => Ok(()),
    }
}

fn same_digest(whose: &str, said: Option<Sha256>, where_: &str, found: Sha256) -> Result<(), Trouble> {
    match said {
        Some(said) if said != found => {
            let detail = alloc::format!("SHA-256 {said} {whose}, {found} {where_}");
            Err(Trouble { code: "digest_mismatch", detail, rest: Rest::Upload })
        }
        Some(_) | None => Ok(()),
    }
}
