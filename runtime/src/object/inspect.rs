//! Owns how a recording that streams by is read as an MCAP file and reduced to facts. Decides nothing about it, believes no
//! length in it, and keeps no more of it than one record.
//!
//! The records are read by the `mcap` crate, chunk by chunk and decompressed, with every checksum that the recorder wrote.
//! What a record says is read here ([`Fields`]): the crate makes room for any length that a record claims. Beside it runs [`Frame`], which only follows lengths from record to record: it knows where things are, which the
//! summary's pointers are compared with, and whether the file came to its end.

mod fields;
mod frame;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;

use mcap::McapError;
use mcap::records::op;
use mcap::sans_io::{LinearReadEvent, LinearReader, LinearReaderOptions};
use tidegate_core::object::{Flaw, McapFacts};

use fields::{Fields, Statistics};
use frame::Frame;

/// Largest record we read into memory, in bytes: a raw image of 16 million pixels in four channels of one byte. What is
/// larger cannot be checked. The reader keeps about twice as much, and as much again of a compressed chunk.
pub const RECORD_BYTES_MAX: usize = 64 << 20;
/// How much larger than the file its decompressed content may be, besides [`INFLATED_FREE`]: what is more is not read to
/// its end, for a few kilobytes can be made to unfold into days of work. Sensor data shrinks to a tenth, seldom a
/// hundredth.
pub const INFLATED_RATIO_MAX: u64 = 1_000;
/// Bytes that any file, however small, may have as decompressed content.
pub const INFLATED_FREE: u64 = 1 << 30;
/// Bytes handed to the reader at once.
const PIECE: usize = 64 << 10;

/// Takes the bytes of a recording in order, and says in the end what they are as a recording.
pub struct Inspection {
    /// `None` once nothing more can come of reading on.
    reader: Option<LinearReader>,
    frame: Frame,
    seen: Seen,
    stop: Option<Stop>,
    len: u64,
}

/// Why reading ended before the file did.
#[derive(Debug)]
enum Stop {
    Flaw(Flaw),
    /// A record, or what a chunk unfolds to, is larger than we read. What that means depends on whether the lengths in the
    /// file come out even.
    TooLarge,
    /// The reader found the file's end too early, or not where it is.
    Early,
}

/// What was read so far.
#[derive(Debug, Default)]
struct Seen {
    schemas: BTreeSet<u16>,
    channels: BTreeSet<u16>,
    counts: BTreeMap<u16, u64>,
    messages: u64,
    attachments: u64,
    metadata: u64,
    times: Option<(u64, u64)>,
    /// Bytes of records, after decompression.
    inflated: u64,
    statistics: Option<Statistics>,
    /// Chunks that the summary points to: their number, and [`frame::place`] of each, added up.
    indexed: (u64, u64),
    summary_start: u64,
}

impl Default for Inspection {
    fn default() -> Self {
        Inspection::new()
    }
}

impl Inspection {
    /// Nothing read yet.
    #[must_use]
    pub fn new() -> Inspection {
        let options = LinearReaderOptions::default()
            .with_check_finishes_after_end_magic(true)
            .with_validate_chunk_crcs(true)
            .with_validate_data_section_crc(true)
            .with_validate_summary_section_crc(true)
            .with_record_length_limit(RECORD_BYTES_MAX);
        Inspection {
            reader: Some(LinearReader::new_with_options(options)),
            frame: Frame::default(),
            seen: Seen::default(),
            stop: None,
            len: 0,
        }
    }

    /// The next bytes. Takes time: it decompresses. Call it where blocking is allowed.
    pub fn push(&mut self, bytes: &[u8]) {
        self.len += bytes.len() as u64;
        self.frame.push(bytes);
        for piece in bytes.chunks(PIECE) {
            self.advance(piece);
        }
    }

    /// What they came to.
    #[must_use]
    pub fn finish(mut self) -> McapFacts {
        if self.len > 0 {
            // Nothing more is how the reader learns of the end.
            self.advance(&[]);
        }
        let flaw = self.flaw();
        let seen = &self.seen;
        McapFacts {
            flaw,
            messages: seen.messages,
            first_ns: seen.times.map(|(first, _)| first),
            last_ns: seen.times.map(|(_, last)| last),
            channels: u32::try_from(seen.channels.len()).unwrap_or(u32::MAX),
            chunks: self.frame.chunks(),
        }
    }

    fn advance(&mut self, piece: &[u8]) {
        let Some(mut reader) = self.reader.take() else { return };
        let (seen, budget) =
            (&mut self.seen, INFLATED_FREE.saturating_add(self.len.saturating_mul(INFLATED_RATIO_MAX)));
        // Lengths that contradict each other can make the reader panic: a record that is longer than its chunk does, where
        // arithmetic is checked. Then it is dropped, and what it panicked over cannot be decoded.
        let read = std::panic::catch_unwind(AssertUnwindSafe(|| {
            let read = feed(&mut reader, piece, seen, budget);
            (reader, read)
        }));
        match read {
            Ok((reader, Ok(()))) => self.reader = Some(reader),
            Ok((_, Err(stop))) => self.stop = Some(stop),
            Err(_) => self.stop = Some(Stop::Flaw(Flaw::Undecodable)),
        }
    }

    fn flaw(&self) -> Option<Flaw> {
        if self.len == 0 {
            return Some(Flaw::Empty);
        }
        match self.stop {
            Some(Stop::Flaw(flaw)) => return Some(flaw),
            Some(Stop::TooLarge) if self.frame.is_complete() => return Some(Flaw::TooLarge),
            // It claims to be larger than the file is.
            Some(Stop::TooLarge) => return Some(Flaw::Undecodable),
            Some(Stop::Early) if self.frame.is_complete() => return Some(Flaw::Undecodable),
            Some(Stop::Early) => return Some(Flaw::Truncated),
            None => {}
        }
        self.summary_flaw()
    }

    /// Compares what the summary says with what was read.
    fn summary_flaw(&self) -> Option<Flaw> {
        let seen = &self.seen;
        let Some(said) = seen.statistics.as_ref().filter(|_| seen.summary_start != 0) else {
            return Some(Flaw::NoSummary);
        };
        let times = seen.times.unwrap_or_default();
        let counted = said.messages == seen.messages
            && u64::from(said.chunks) == self.frame.chunks()
            && u64::from(said.attachments) == seen.attachments
            && u64::from(said.metadata) == seen.metadata
            && (seen.messages == 0 || said.times == times);
        // Counts per channel are optional.
        if !counted || !(said.per_channel.is_empty() || said.per_channel == seen.counts) {
            return Some(Flaw::StatisticsDiffer);
        }
        let pointed = seen.indexed.0 == 0 || seen.indexed == (self.frame.chunks(), self.frame.places());
        let begins = self.frame.summary_start() == Some(seen.summary_start);
        (!pointed || !begins).then_some(Flaw::IndexDiffers)
    }
}

/// Reads on with the next piece; an empty one is the end. `budget` bounds the decompressed bytes of the whole file.
fn feed(reader: &mut LinearReader, piece: &[u8], seen: &mut Seen, budget: u64) -> Result<(), Stop> {
    reader.insert(piece.len())[..piece.len()].copy_from_slice(piece);
    reader.notify_read(piece.len());
    while let Some(event) = reader.next_event() {
        match event.map_err(|error| stop(&error))? {
            LinearReadEvent::ReadRequest(_) => return Ok(()),
            LinearReadEvent::Record { opcode, data } => {
                seen.inflated = seen.inflated.saturating_add(data.len() as u64 + frame::HEAD as u64);
                if seen.inflated > budget {
                    return Err(Stop::TooLarge);
                }
                seen.record(opcode, data)?;
            }
        }
    }
    Ok(())
}

impl Seen {
    fn record(&mut self, opcode: u8, data: &[u8]) -> Result<(), Stop> {
        if opcode == op::ATTACHMENT && fields::attachment_crc(data) == Some(false) {
            return Err(Stop::Flaw(Flaw::AttachmentCrc));
        }
        self.note(opcode, Fields(data)).ok_or(Stop::Flaw(Flaw::Undecodable))
    }

    /// Takes a record in; `None` if it does not mean anything.
    fn note(&mut self, opcode: u8, mut fields: Fields<'_>) -> Option<()> {
        match opcode {
            op::HEADER => fields.texts(2)?,
            op::SCHEMA => {
                let id = fields.u16().filter(|id| *id != 0)?;
                fields.texts(2)?;
                fields.blob()?;
                self.schemas.insert(id);
            }
            op::CHANNEL => {
                let (id, schema) = (fields.u16()?, fields.u16()?);
                fields.texts(2)?;
                fields.map()?;
                if schema != 0 && !self.schemas.contains(&schema) {
                    return None;
                }
                self.channels.insert(id);
            }
            op::MESSAGE => {
                let channel = fields.u16()?;
                let (_sequence, logged, _published) = (fields.u32()?, fields.u64()?, fields.u64()?);
                if !self.channels.contains(&channel) {
                    return None;
                }
                self.messages += 1;
                *self.counts.entry(channel).or_default() += 1;
                let (first, last) = self.times.unwrap_or((logged, logged));
                self.times = Some((first.min(logged), last.max(logged)));
            }
            op::ATTACHMENT => {
                let _times = (fields.u64()?, fields.u64()?);
                fields.texts(2)?;
                let len = fields.u64()?;
                fields.skip(len)?;
                fields.u32()?;
                self.attachments += 1;
            }
            op::METADATA => {
                fields.texts(1)?;
                fields.map()?;
                self.metadata += 1;
            }
            op::STATISTICS => self.statistics = Some(fields.statistics()?),
            op::CHUNK_INDEX => {
                let _times = (fields.u64()?, fields.u64()?);
                let place = frame::place(fields.u64()?, fields.u64()?);
                self.indexed = (self.indexed.0 + 1, self.indexed.1.wrapping_add(place));
            }
            op::FOOTER => self.summary_start = fields.u64()?,
            // The reader opens chunks itself: one that it hands out stands inside another.
            op::CHUNK => return None,
            // Pointers into chunks and to groups of the summary, and what recorders add of their own.
            _ => {}
        }
        Some(())
    }
}

fn stop(error: &McapError) -> Stop {
    match error {
        McapError::UnexpectedEof => Stop::Early,
        McapError::RecordTooLarge { .. } | McapError::ChunkTooLarge(_) => Stop::TooLarge,
        McapError::BadMagic => Stop::Flaw(Flaw::BadMagic),
        McapError::BytesAfterEndMagic => Stop::Flaw(Flaw::TrailingBytes),
        McapError::BadChunkCrc { .. } => Stop::Flaw(Flaw::ChunkCrc),
        McapError::BadDataCrc { .. } => Stop::Flaw(Flaw::DataCrc),
        McapError::BadSummaryCrc { .. } => Stop::Flaw(Flaw::SummaryCrc),
        McapError::BadAttachmentCrc { .. } => Stop::Flaw(Flaw::AttachmentCrc),
        McapError::UnsupportedCompression(_) => Stop::Flaw(Flaw::UnknownCompression),
        // Everything else is said of bytes that do not mean what they must. Errors of writing do not come up.
        _ => Stop::Flaw(Flaw::Undecodable),
    }
}
