//! The content of a file, named by a number instead of by bytes: digests of spans follow from it. Equal numbers are equal
//! bytes.

use tidegate_core::digest::Sha256;
use tidegate_core::object::{SidecarFacts, Span};

/// A file: what it holds is named by a number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// Names the bytes.
    pub id: u64,
    /// Bytes.
    pub len: u64,
    /// What it says, if it is a sidecar.
    pub facts: Option<SidecarFacts>,
}

impl Content {
    /// Digest of all of it.
    #[must_use]
    pub fn sha256(&self) -> Sha256 {
        self.span_sha256(Span { offset: 0, len: self.len })
    }

    /// Digest of some of it.
    #[must_use]
    pub fn span_sha256(&self, span: Span) -> Sha256 {
        Sha256::of(format!("{}@{}+{}", self.id, span.offset, span.len).as_bytes())
    }
}
