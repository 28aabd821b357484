//! Owns where the records of an MCAP file stand, as their lengths say. Looks into none of them and keeps none.

use mcap::MAGIC;
use mcap::records::op;

/// Bytes before the content of a record: what it is, and its length.
pub(super) const HEAD: usize = 1 + 8;

/// Follows a file from record to record while its bytes stream by.
#[derive(Debug, Default)]
pub(super) struct Frame {
    /// Bytes seen.
    at: u64,
    part: Part,
    /// The head of the next record, as far as it came.
    head: [u8; HEAD],
    filled: usize,
    chunks: u64,
    places: u64,
    summary_start: Option<u64>,
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// So many bytes of the opening eight.
    Opening(usize),
    /// The head of a record.
    Head,
    /// So many bytes of the content of a record of this kind.
    Content { opcode: u8, left: u64 },
    /// So many bytes of the closing eight.
    Closing(usize),
    /// Nothing: it is over.
    End,
}

impl Default for Part {
    fn default() -> Self {
        Part::Opening(MAGIC.len())
    }
}

impl Frame {
    /// The next bytes.
    pub(super) fn push(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let taken = self.step(bytes);
            self.at += taken as u64;
            bytes = &bytes[taken..];
            if let Part::Content { opcode, left: 0 } = self.part {
                self.leave(opcode);
            }
        }
    }

    /// Takes some of the bytes, at least one.
    fn step(&mut self, bytes: &[u8]) -> usize {
        match self.part {
            Part::Opening(left) => {
                let taken = left.min(bytes.len());
                self.part = if taken == left { Part::Head } else { Part::Opening(left - taken) };
                taken
            }
            Part::Head => {
                let taken = (HEAD - self.filled).min(bytes.len());
                self.head[self.filled..self.filled + taken].copy_from_slice(&bytes[..taken]);
                self.filled += taken;
                if self.filled == HEAD {
                    self.filled = 0;
                    let [opcode, len @ ..] = self.head;
                    self.enter(opcode, u64::from_le_bytes(len), self.at + taken as u64);
                }
                taken
            }
            Part::Content { opcode, left } => {
                let taken = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                self.part = Part::Content { opcode, left: left - taken as u64 };
                taken
            }
            Part::Closing(left) => {
                let taken = left.min(bytes.len());
                self.part = if taken == left { Part::End } else { Part::Closing(left - taken) };
                taken
            }
            Part::End => bytes.len(),
        }
    }

    /// A record begins; its content stands at `content`.
    fn enter(&mut self, opcode: u8, len: u64, content: u64) {
        if opcode == op::CHUNK {
            self.chunks += 1;
            let whole = len.saturating_add(HEAD as u64);
            self.places = self.places.wrapping_add(place(content - HEAD as u64, whole));
        }
        self.part = Part::Content { opcode, left: len };
    }

    /// A record is over.
    fn leave(&mut self, opcode: u8) {
        self.part = Part::Head;
        match opcode {
            op::DATA_END => self.summary_start = Some(self.at),
            op::FOOTER => self.part = Part::Closing(MAGIC.len()),
            _ => {}
        }
    }

    /// Chunks that began.
    pub(super) fn chunks(&self) -> u64 {
        self.chunks
    }

    /// [`place`] of each chunk, added up: equal sums are the same chunks in any order.
    pub(super) fn places(&self) -> u64 {
        self.places
    }

    /// Where the summary begins, if the data section ended.
    pub(super) fn summary_start(&self) -> Option<u64> {
        self.summary_start
    }

    /// Whether the lengths led to the closing bytes.
    pub(super) fn is_complete(&self) -> bool {
        self.part == Part::End
    }
}

/// A place in the file, mixed into one number: so that places can be compared without keeping them all.
pub(super) fn place(offset: u64, len: u64) -> u64 {
    let mut mixed = offset.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ len.rotate_left(32);
    for _ in 0..2 {
        mixed = (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    }
    mixed ^ (mixed >> 32)
}
