//! Recordings made with the `mcap` crate, whole and damaged in every way we could think of.

use std::collections::BTreeMap;
use std::io::Cursor;

use mcap::records::{MessageHeader, Metadata};
use mcap::{Attachment, Compression, MAGIC, WriteOptions};
use proptest::prelude::*;

use super::*;

const MESSAGES: u64 = 60;
const START_NS: u64 = 1_700_000_000_000_000_000;
const STEP_NS: u64 = 10_000_000;

fn options() -> WriteOptions {
    WriteOptions::new().compression(None).chunk_size(Some(1 << 10))
}

/// Two channels, some chunks, metadata and an attachment.
fn recorded(options: WriteOptions, messages: u64) -> Vec<u8> {
    let mut writer = options.create(Cursor::new(Vec::new())).unwrap();
    let schema = writer.add_schema("sensor", "jsonschema", b"{}").unwrap();
    let of = BTreeMap::from([("unit".to_owned(), "m/s²".to_owned())]);
    let sensor = writer.add_channel(schema, "/imu", "json", &of).unwrap();
    let image = writer.add_channel(0, "/camera", "raw", &BTreeMap::new()).unwrap();
    for n in 0..messages {
        let log_time = START_NS + n * STEP_NS;
        let channel_id = if n % 3 == 0 { sensor } else { image };
        let sequence = u32::try_from(n).unwrap();
        let header = MessageHeader { channel_id, sequence, log_time, publish_time: log_time };
        let mut payload = vec![u8::try_from(n % 251).unwrap(); 100];
        payload[7] = 0;
        writer.write_to_known_channel(&header, &payload).unwrap();
    }
    let metadata = BTreeMap::from([("scene".to_owned(), "kitchen".to_owned())]);
    writer.write_metadata(&Metadata { name: "task".to_owned(), metadata }).unwrap();
    let attachment = Attachment {
        log_time: 1,
        create_time: 2,
        name: "calibration".to_owned(),
        media_type: "text/plain".to_owned(),
        data: b"K = 1 0 0".as_slice().into(),
    };
    writer.attach(&attachment).unwrap();
    writer.finish().unwrap();
    writer.into_inner().into_inner()
}

fn whole() -> Vec<u8> {
    recorded(options(), MESSAGES)
}

fn look(bytes: &[u8]) -> McapFacts {
    look_by(bytes, 1 << 20)
}

fn look_by(bytes: &[u8], piece: usize) -> McapFacts {
    let mut inspection = Inspection::new();
    bytes.chunks(piece).for_each(|piece| inspection.push(piece));
    inspection.finish()
}

/// Every record that stands outside a chunk: kind, where it begins, and where it ends.
fn records(bytes: &[u8]) -> Vec<(u8, usize, usize)> {
    let mut all = Vec::new();
    let mut at = MAGIC.len();
    while at + frame::HEAD <= bytes.len() - MAGIC.len() {
        let len = u64::from_le_bytes(bytes[at + 1..at + frame::HEAD].try_into().unwrap());
        let end = at + frame::HEAD + usize::try_from(len).unwrap();
        all.push((bytes[at], at, end));
        at = end;
    }
    assert_eq!(at, bytes.len() - MAGIC.len());
    all
}

fn first(bytes: &[u8], opcode: u8) -> (usize, usize) {
    let found = records(bytes).into_iter().find(|(op, ..)| *op == opcode);
    let (_, begin, end) = found.unwrap();
    (begin, end)
}

/// Forgets the checksums of the data section and of the summary, so that a damage is seen for what it is.
fn without_sums(mut bytes: Vec<u8>) -> Vec<u8> {
    for opcode in [op::DATA_END, op::FOOTER] {
        let (_, end) = first(&bytes, opcode);
        bytes[end - 4..end].fill(0);
    }
    bytes
}

fn patched(at: usize, with: &[u8]) -> Vec<u8> {
    let mut bytes = without_sums(whole());
    bytes[at..at + with.len()].copy_from_slice(with);
    bytes
}

#[test]
fn a_whole_recording_is_sound_and_counted_however_it_is_compressed_and_cut_into_pieces() {
    let kinds = [
        options(),
        options().compression(Some(Compression::Zstd)),
        options().compression(Some(Compression::Lz4)),
        options().use_chunks(false),
        options().chunk_size(None),
        options().calculate_chunk_crcs(false).calculate_data_section_crc(false),
    ];
    for (n, kind) in kinds.into_iter().enumerate() {
        let bytes = recorded(kind, MESSAGES);
        for piece in [1, 7, 4096, 1 << 20] {
            let facts = look_by(&bytes, piece);
            assert_eq!(facts.flaw, None, "kind {n}, pieces of {piece}");
            assert_eq!((facts.messages, facts.channels), (MESSAGES, 2));
            assert_eq!(facts.first_ns, Some(START_NS));
            assert_eq!(facts.duration_ms(), Some((MESSAGES - 1) * 10));
            assert_eq!(
                facts.chunks,
                records(&bytes).iter().filter(|(op, ..)| *op == op::CHUNK).count() as u64
            );
        }
    }
    assert!(look(&whole()).chunks > 3);
}

#[test]
fn a_recording_without_messages_is_a_sound_file() {
    let facts = look(&recorded(options(), 0));
    assert_eq!((facts.flaw, facts.messages, facts.duration_ms()), (None, 0, None));
}

#[test]
fn no_bytes_are_empty_and_other_bytes_are_no_recording() {
    assert_eq!(look(b"").flaw, Some(Flaw::Empty));
    for text in [&b"{\"json\": true, \"long\": \"enough\"}"[..], &[0; 4096], b"\x89MCAP1\r\n and more"] {
        assert_eq!(look(text).flaw, Some(Flaw::BadMagic), "{text:?}");
    }
}

#[test]
fn a_recording_that_ends_too_early_is_truncated_wherever_it_ends() {
    for kind in [None, Some(Compression::Zstd), Some(Compression::Lz4)] {
        let bytes = recorded(options().compression(kind), MESSAGES);
        // Every border of a record and its neighbours, and places within.
        let borders = records(&bytes).into_iter().flat_map(|(_, begin, end)| [begin, begin + 9, end]);
        let near = borders.flat_map(|at| at - 1..=at + 1);
        for end in near.chain((1..bytes.len()).step_by(97)).filter(|end| *end < bytes.len()) {
            assert_eq!(look(&bytes[..end]).flaw, Some(Flaw::Truncated), "{end} of {}", bytes.len());
        }
    }
}

#[test]
fn a_recorder_that_was_killed_leaves_no_summary_and_one_that_wrote_none_neither() {
    let bytes = whole();
    let (_, data_end) = first(&bytes, op::DATA_END);
    let footer = [&[op::FOOTER][..], &20_u64.to_le_bytes(), &[0; 20]].concat();
    let ended = [&bytes[..data_end], &footer, MAGIC].concat();
    assert_eq!(look(&ended).flaw, Some(Flaw::NoSummary));
    let (begin, _) = first(&bytes, op::DATA_END);
    assert_eq!(look(&bytes[..begin]).flaw, Some(Flaw::Truncated));
    let silent = recorded(options().emit_statistics(false), MESSAGES);
    assert_eq!(look(&silent).flaw, Some(Flaw::NoSummary));
}

#[test]
fn what_follows_the_end_and_another_end_are_noticed() {
    let mut bytes = whole();
    bytes.push(0);
    assert_eq!(look(&bytes).flaw, Some(Flaw::TrailingBytes));
    let twice = [whole(), whole()].concat();
    assert_eq!(look(&twice).flaw, Some(Flaw::TrailingBytes));
    let mut bytes = whole();
    let end = bytes.len() - 3;
    bytes[end] ^= 1;
    assert_eq!(look(&bytes).flaw, Some(Flaw::BadMagic));
}

#[test]
fn a_bit_in_a_chunk_the_data_the_summary_or_an_attachment_is_noticed_by_its_own_checksum() {
    let flipped = |at: usize| {
        let mut bytes = whole();
        bytes[at] ^= 0x10;
        look(&bytes).flaw
    };
    let bytes = whole();
    let payload = |opcode| first(&bytes, opcode);
    let (_, chunk) = payload(op::CHUNK);
    assert_eq!(flipped(chunk - 5), Some(Flaw::ChunkCrc));
    let (metadata, _) = payload(op::METADATA);
    assert_eq!(flipped(metadata + 9 + 4), Some(Flaw::DataCrc), "a letter of its name");
    let (_, attachment) = payload(op::ATTACHMENT);
    assert_eq!(flipped(attachment - 6), Some(Flaw::AttachmentCrc));
    let (statistics, _) = payload(op::STATISTICS);
    assert_eq!(flipped(statistics + 9), Some(Flaw::SummaryCrc));
    let (_, footer) = payload(op::FOOTER);
    assert_eq!(flipped(footer - 1), Some(Flaw::SummaryCrc), "the sum itself");
}

#[test]
fn any_bit_of_a_recording_with_all_its_checksums_is_noticed() {
    for kind in [None, Some(Compression::Zstd), Some(Compression::Lz4)] {
        let bytes = recorded(options().compression(kind), 12);
        for at in 0..bytes.len() {
            let mut bytes = bytes.clone();
            bytes[at] ^= 1 << (at % 8);
            assert_ne!(look(&bytes).flaw, None, "byte {at}, {kind:?}");
        }
    }
}

#[test]
fn statistics_that_lie_are_contradicted() {
    let (statistics, _) = first(&whole(), op::STATISTICS);
    let (_, end) = first(&whole(), op::STATISTICS);
    let at = statistics + frame::HEAD;
    for (what, offset) in
        [("messages", 0), ("attachments", 14), ("metadata", 18), ("chunks", 22), ("start", 26), ("end", 34)]
    {
        let bytes = without_sums(whole());
        let wrong = bytes[at + offset] ^ 1;
        assert_eq!(look(&patched(at + offset, &[wrong])).flaw, Some(Flaw::StatisticsDiffer), "{what}");
    }
    let wrong = whole()[end - 8] ^ 1;
    assert_eq!(look(&patched(end - 8, &[wrong])).flaw, Some(Flaw::StatisticsDiffer), "of one channel");
}

#[test]
fn a_summary_that_points_elsewhere_is_noticed() {
    let (index, _) = first(&whole(), op::CHUNK_INDEX);
    let (footer, _) = first(&whole(), op::FOOTER);
    // After two times: the chunk's offset and its length. In the footer: where the summary begins.
    for at in [index + frame::HEAD + 16, index + frame::HEAD + 24, footer + frame::HEAD] {
        let wrong = whole()[at] ^ 4;
        assert_eq!(look(&patched(at, &[wrong])).flaw, Some(Flaw::IndexDiffers), "byte {at}");
    }
}

#[test]
fn a_compression_that_we_do_not_know_is_said_and_not_called_damage() {
    let bytes = without_sums(recorded(options().compression(Some(Compression::Lz4)), MESSAGES));
    let (chunk, _) = first(&bytes, op::CHUNK);
    let name = chunk + frame::HEAD + 8 + 8 + 8 + 4 + 4;
    assert_eq!(&bytes[name..name + 3], b"lz4");
    let mut bytes = bytes;
    bytes[name..name + 3].copy_from_slice(b"br9");
    assert_eq!(look(&bytes).flaw, Some(Flaw::UnknownCompression));
}

#[test]
fn lengths_beyond_all_sense_are_not_believed_and_take_no_memory() {
    let bytes = whole();
    let (chunk, _) = first(&bytes, op::CHUNK);
    let (metadata, _) = first(&bytes, op::METADATA);
    let (attachment, _) = first(&bytes, op::ATTACHMENT);
    let huge: [&[u8]; 3] =
        [&u64::MAX.to_le_bytes(), &(1_u64 << 32).to_le_bytes(), &(1_u64 << 62).to_le_bytes()];
    let in_chunk = chunk + frame::HEAD + 40;
    // The length of a chunk, of its content, of a record in it, of metadata.
    for at in [chunk + 1, chunk + frame::HEAD + 32, in_chunk + 1, metadata + 1] {
        for huge in huge {
            let facts = look(&patched(at, huge));
            assert_ne!(facts.flaw, None, "byte {at}");
        }
    }
    // What a compressed chunk is to unfold to.
    for kind in [Compression::Zstd, Compression::Lz4] {
        let folded = without_sums(recorded(options().compression(Some(kind)), MESSAGES));
        let (chunk, _) = first(&folded, op::CHUNK);
        for huge in huge {
            let mut bytes = folded.clone();
            bytes[chunk + frame::HEAD + 16..][..8].copy_from_slice(huge);
            assert_ne!(look(&bytes).flaw, None, "{kind:?}");
        }
    }
    // Texts, and the name of a compression, that claim four gigabytes within a record of a few bytes.
    for at in [chunk + frame::HEAD + 28, metadata + frame::HEAD, in_chunk + 9 + 2] {
        assert_eq!(look(&patched(at, &u32::MAX.to_le_bytes())).flaw, Some(Flaw::Undecodable), "byte {at}");
    }
    let mut bytes = patched(attachment + frame::HEAD + 16, &u32::MAX.to_le_bytes());
    assert_eq!(look(&bytes).flaw, Some(Flaw::AttachmentCrc));
    let (_, end) = first(&bytes, op::ATTACHMENT);
    bytes[end - 4..end].fill(0);
    assert_eq!(look(&bytes).flaw, Some(Flaw::Undecodable), "without its checksum");
}

#[test]
fn a_record_that_is_larger_than_we_read_cannot_be_checked() {
    // The file is whole by its lengths; only its one large record is never looked at.
    let len = RECORD_BYTES_MAX as u64 + 1;
    let mut inspection = Inspection::new();
    inspection.push(MAGIC);
    inspection.push(&[&[0x90][..], &len.to_le_bytes()].concat());
    let zeros = vec![0; 1 << 20];
    for _ in 0..RECORD_BYTES_MAX >> 20 {
        inspection.push(&zeros);
    }
    inspection.push(&[0]);
    inspection.push(&[&[op::DATA_END][..], &4_u64.to_le_bytes(), &[0; 4]].concat());
    inspection.push(&[&[op::FOOTER][..], &20_u64.to_le_bytes(), &[0; 20], MAGIC].concat());
    assert_eq!(inspection.finish().flaw, Some(Flaw::TooLarge));
}

#[test]
fn a_chunk_that_unfolds_without_end_is_given_up() {
    // One small file whose content is a thousand times what it may be; nothing of it is kept.
    let seen = &mut Seen { inflated: INFLATED_FREE, ..Seen::default() };
    let bytes = recorded(options().compression(Some(Compression::Zstd)), MESSAGES);
    let mut reader = LinearReader::new();
    let stop = feed(&mut reader, &bytes, seen, INFLATED_FREE);
    assert!(matches!(stop, Err(Stop::TooLarge)), "{stop:?}");
}

#[test]
fn a_record_that_is_longer_than_its_chunk_cannot_be_decoded() {
    let bytes = whole();
    let (chunk, end) = first(&bytes, op::CHUNK);
    let record = chunk + frame::HEAD + 40;
    // The first record of the chunk claims the whole chunk, and something of what follows it.
    let len = (end - record + 50) as u64;
    assert_eq!(look(&patched(record + 1, &len.to_le_bytes())).flaw, Some(Flaw::Undecodable));
}

#[test]
fn a_message_of_an_unknown_channel_and_a_channel_of_an_unknown_schema_cannot_be_decoded() {
    let bytes = recorded(options().use_chunks(false), MESSAGES);
    for opcode in [op::MESSAGE, op::CHANNEL] {
        let (begin, _) = first(&bytes, opcode);
        let mut bytes = without_sums(bytes.clone());
        let at = begin + frame::HEAD + if opcode == op::CHANNEL { 2 } else { 0 };
        bytes[at] ^= 0x40;
        assert_eq!(look(&bytes).flaw, Some(Flaw::Undecodable), "{opcode:#x}");
    }
}

#[test]
fn an_attachment_too_short_for_its_own_fields_cannot_be_decoded() {
    for len in 0..36_usize {
        let head = [&[op::ATTACHMENT][..], &(len as u64).to_le_bytes(), &vec![0; len]].concat();
        let bytes = [MAGIC, &head].concat();
        let flaw = look(&bytes).flaw;
        assert_eq!(flaw, Some(Flaw::Undecodable), "{len} bytes");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn bytes_from_anywhere_never_panic_and_are_no_sound_recording(
        bytes in proptest::collection::vec(any::<u8>(), 0..600),
        piece in 1..64_usize,
    ) {
        let bytes = [MAGIC, &bytes].concat();
        prop_assert_ne!(look_by(&bytes, piece).flaw, None);
    }

    #[test]
    fn records_with_any_content_never_panic(
        records in proptest::collection::vec((1..17_u8, proptest::collection::vec(any::<u8>(), 0..90)), 0..12),
    ) {
        let mut bytes = MAGIC.to_vec();
        for (opcode, content) in &records {
            bytes.push(*opcode);
            bytes.extend_from_slice(&(content.len() as u64).to_le_bytes());
            bytes.extend_from_slice(content);
        }
        bytes.extend_from_slice(MAGIC);
        prop_assert_ne!(look(&bytes).flaw, None);
    }

    #[test]
    fn a_recording_with_anything_written_over_it_never_panics(
        kind in 0..3_usize,
        at in any::<prop::sample::Index>(),
        with in proptest::collection::vec(any::<u8>(), 1..24),
        piece in 1..512_usize,
    ) {
        let kind = [None, Some(Compression::Zstd), Some(Compression::Lz4)][kind];
        let mut bytes = without_sums(recorded(options().compression(kind), 20));
        let at = at.index(bytes.len());
        let end = (at + with.len()).min(bytes.len());
        bytes[at..end].copy_from_slice(&with[..end - at]);
        let (pieces, at_once) = (look_by(&bytes, piece), look(&bytes));
        // What a decoder makes of nonsense may depend on how much of it comes at once.
        if kind.is_none() {
            prop_assert_eq!(pieces, at_once);
        }
    }
}
