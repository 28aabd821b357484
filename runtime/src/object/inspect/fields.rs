//! Owns how the fields of a record are read, in order, out of the bytes that are there. Makes no room for a length before it
//! has seen that many bytes.

use std::collections::BTreeMap;

/// What is left of a record. Each method takes one field; `None` if it is not there whole, or makes no sense.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

/// What a recorder counted.
#[derive(Debug)]
pub(super) struct Statistics {
    pub(super) messages: u64,
    pub(super) attachments: u32,
    pub(super) metadata: u32,
    pub(super) chunks: u32,
    /// Log time of the earliest and of the latest message.
    pub(super) times: (u64, u64),
    /// Messages of each channel that has any; empty if that was not counted.
    pub(super) per_channel: BTreeMap<u16, u64>,
}

impl<'a> Fields<'a> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    /// So many bytes.
    pub(super) fn skip(&mut self, len: u64) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(usize::try_from(len).ok()?)?;
        self.0 = rest;
        Some(taken)
    }

    /// Bytes after their length.
    pub(super) fn blob(&mut self) -> Option<&'a [u8]> {
        let len = self.u32()?;
        self.skip(len.into())
    }

    /// So many texts.
    pub(super) fn texts(&mut self, count: usize) -> Option<()> {
        for _ in 0..count {
            std::str::from_utf8(self.blob()?).ok()?;
        }
        Some(())
    }

    /// A table of texts by text.
    pub(super) fn map(&mut self) -> Option<()> {
        let mut entries = Fields(self.blob()?);
        while !entries.0.is_empty() {
            entries.texts(2)?;
        }
        Some(())
    }

    pub(super) fn statistics(&mut self) -> Option<Statistics> {
        let messages = self.u64()?;
        let _schemas = self.u16()?;
        let _channels = self.u32()?;
        let (attachments, metadata, chunks) = (self.u32()?, self.u32()?, self.u32()?);
        let times = (self.u64()?, self.u64()?);
        let mut entries = Fields(self.blob()?);
        let mut per_channel = BTreeMap::new();
        while !entries.0.is_empty() {
            let (channel, count) = (entries.u16()?, entries.u64()?);
            // A channel without messages may be listed or left out.
            if count != 0 {
                per_channel.insert(channel, count);
            }
        }
        Some(Statistics { messages, attachments, metadata, chunks, times, per_channel })
    }
}

/// Whether an attachment has the checksum that stands at its end; `None` if it has none, or is none.
pub(super) fn attachment_crc(data: &[u8]) -> Option<bool> {
    let (content, sum) = data.split_last_chunk()?;
    let saved = u32::from_le_bytes(*sum);
    (saved != 0).then(|| crc32fast::hash(content) == saved)
}
