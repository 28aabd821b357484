//! Owns how the bytes of a `Get` become facts while they stream by. Keeps no more of them than a sidecar, or one record of
//! a recording, may have.

use sha2::Digest;
use tidegate_core::digest::Sha256;
use tidegate_core::limits;
use tidegate_core::object::{Composite, Got, Want};

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
    /// The same bytes in parts; `None` if nobody asked for them.
    parts: Option<Parts>,
    want: Want,
}

/// Takes the bytes of an object in order and says in the end what its composite checksum is. Keeps no digest of a part.
struct Parts {
    /// Bytes of every part but the last; never 0.
    size: u64,
    /// Bytes that the present part still takes.
    room: u64,
    part: sha2::Sha256,
    /// Over the digests of the parts before.
    over: sha2::Sha256,
    /// How many those are. Stops at its end: no upload has so many parts, so nothing equals it.
    count: u16,
}

impl Parts {
    fn new(size: u64) -> Parts {
        // Of no bytes at all no object could ever be made.
        let size = size.max(1);
        Parts { size, room: size, part: sha2::Sha256::new(), over: sha2::Sha256::new(), count: 0 }
    }

    fn push(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let take = usize::try_from(self.room).map_or(bytes.len(), |room| room.min(bytes.len()));
            let (now, later) = bytes.split_at(take);
            self.part.update(now);
            self.room -= now.len() as u64;
            if self.room == 0 {
                self.close();
            }
            bytes = later;
        }
    }

    fn close(&mut self) {
        self.over.update(self.part.finalize_reset());
        self.count = self.count.saturating_add(1);
        self.room = self.size;
    }

    fn finish(mut self) -> Composite {
        if self.room < self.size {
            self.close();
        }
        Composite { sha256: Sha256(self.over.finalize().into()), parts: self.count }
    }
}

impl Reduction {
    /// Nothing read yet.
    #[must_use]
    pub fn new(want: Want) -> Reduction {
        let (mut text, mut inspection, mut parts) = (None, None, None);
        match want {
            Want::Digest => {}
            Want::Sidecar => text = Some(Vec::new()),
            Want::Inspect => inspection = Some(Box::default()),
            Want::Parts { part_size } => parts = Some(Parts::new(part_size)),
        }
        Reduction { hash: sha2::Sha256::new(), len: 0, text, inspection, parts, want }
    }

    /// The next bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
        self.len += bytes.len() as u64;
        if let Some(parts) = &mut self.parts {
            parts.push(bytes);
        }
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
        let len = self.len;
        match self.want {
            Want::Digest => Got::Digest { len, sha256 },
            Want::Parts { part_size } => {
                let parts = self.parts.unwrap_or_else(|| Parts::new(part_size));
                Got::Parts { len, sha256, composite: parts.finish() }
            }
            Want::Sidecar => {
                let facts = self.text.as_deref().and_then(sidecar::facts);
                Got::Sidecar { len, sha256, facts }
            }
            Want::Inspect => {
                let inspection = self.inspection.unwrap_or_default();
                Got::Inspected { len, sha256, facts: inspection.finish() }
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
    fn the_parts_are_cut_by_their_size_and_not_by_the_pieces_that_are_read() {
        let bytes: Vec<u8> = (0..=40).collect();
        for (len, part_size, parts) in [
            (0, 5, 0),
            (1, 5, 1),
            (4, 5, 1),
            (5, 5, 1),
            (6, 5, 2),
            (40, 5, 8),
            (41, 5, 9),
            (41, 41, 1),
            (41, u64::MAX, 1),
            (41, 1, 41),
        ] {
            let bytes = &bytes[..len];
            let size = usize::try_from(part_size).unwrap();
            let sha256 = Sha256::composite(bytes.chunks(size).map(Sha256::of));
            let composite = Composite { sha256, parts };
            let expected = Got::Parts { len: len as u64, sha256: Sha256::of(bytes), composite };
            for piece in [1, 2, 5, 7, 10, 64] {
                let mut reduction = Reduction::new(Want::Parts { part_size });
                bytes.chunks(piece).for_each(|piece| reduction.push(piece));
                assert_eq!(
                    reduction.finish(),
                    expected,
                    "{len} bytes in parts of {part_size}, read by {piece}"
                );
            }
        }
    }

    #[test]
    fn more_parts_than_can_be_counted_are_no_small_number_of_parts() {
        let mut reduction = Reduction::new(Want::Parts { part_size: 0 });
        reduction.push(&vec![7; usize::from(u16::MAX) + 3]);
        let Got::Parts { composite, .. } = reduction.finish() else { panic!("parts") };
        assert_eq!(composite.parts, u16::MAX);
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
