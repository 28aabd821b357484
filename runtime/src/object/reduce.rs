//! Owns how the bytes of a `Get` become facts while they stream by. Keeps no more of them than a sidecar, or one record of
//! a recording, may have.

use sha2::Digest;
use tidegate_core::digest::Sha256;
use tidegate_core::limits;
use tidegate_core::object::{Got, Want};

use super::inspect::Inspection;
use super::sidecar;

/// Takes the bytes of an object in order and says in the end what they came to.
pub struct Reduction {
    hash: sha2::Sha256,
    len: u64,
    /// The text of a sidecar; `None` if nobody asked for one or it is too long to be one.
    text: Option<Vec<u8>>,
    /// What reads it as a recording, if somebody asked for that.
    inspection: Option<Box<Inspection>>,
    want: Want,
}

impl Reduction {
    /// Nothing read yet.
    #[must_use]
    pub fn new(want: Want) -> Reduction {
        let (text, inspection) = match want {
            Want::Digest => (None, None),
            Want::Sidecar => (Some(Vec::new()), None),
            Want::Inspect => (None, Some(Box::default())),
        };
        Reduction { hash: sha2::Sha256::new(), len: 0, text, inspection, want }
    }

    /// Whether taking bytes may take long, so that it must happen where blocking is allowed.
    #[must_use]
    pub fn is_slow(&self) -> bool {
        self.inspection.is_some()
    }

    /// The next bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
        self.len += bytes.len() as u64;
        if self.len > limits::SIDECAR_BYTES_MAX {
            self.text = None;
        }
        if let Some(text) = &mut self.text {
            text.extend_from_slice(bytes);
        }
        if let Some(inspection) = &mut self.inspection {
            inspection.push(bytes);
        }
    }

    /// What they came to. A sidecar beyond [`limits::SIDECAR_BYTES_MAX`] has a digest but no facts.
    #[must_use]
    pub fn finish(self) -> Got {
        let sha256 = Sha256(self.hash.finalize().into());
        match self.want {
            Want::Digest => Got::Digest { len: self.len, sha256 },
            Want::Sidecar => {
                let facts = self.text.as_deref().and_then(sidecar::facts);
                Got::Sidecar { len: self.len, sha256, facts }
            }
            Want::Inspect => {
                let inspection = self.inspection.unwrap_or_default();
                Got::Inspected { len: self.len, sha256, facts: inspection.finish() }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_come_to_the_same_as_the_whole() {
        let mut reduction = Reduction::new(Want::Digest);
        for piece in [&b"tide"[..], b"", b"gate"] {
            reduction.push(piece);
        }
        assert_eq!(reduction.finish(), Got::Digest { len: 8, sha256: Sha256::of(b"tidegate") });
    }

    #[test]
    fn a_sidecar_that_is_too_long_keeps_its_digest_and_loses_its_facts() {
        let mut long = br#"{"recording":{"message_count":1}}"#.to_vec();
        let max = usize::try_from(limits::SIDECAR_BYTES_MAX).unwrap();
        for (len, known) in [(max, true), (max + 1, false)] {
            long.resize(len, b' ');
            let mut reduction = Reduction::new(Want::Sidecar);
            long.chunks(1 << 20).for_each(|piece| reduction.push(piece));
            let Got::Sidecar { len: got, sha256, facts } = reduction.finish() else { panic!("a sidecar") };
            assert_eq!((got, sha256), (len as u64, Sha256::of(&long)));
            assert_eq!(facts.is_some(), known);
        }
    }
}
