//! Records, their keys, and entries of the journal, as they lie on disk.

use tidegate_core::change::JournalEntry;
use tidegate_core::machine::Machine;
use tidegate_core::row::{Key, Kind, Row};

/// The first byte chooses the kind of the record.
pub(crate) fn row(bytes: &[u8]) {
    let Some((kind, body)) = chosen(bytes) else { return };
    let Ok(row) = Row::from_bytes(kind, body) else { return };
    assert_eq!(row.kind(), kind);
    let written = row.to_bytes();
    assert_eq!(Row::from_bytes(kind, &written).as_ref(), Ok(&row), "a record is read as it was written");
    // Fields that were left out are written as absent ones: a byte each.
    assert!(written.len() <= 2 * body.len() + 64, "{} bytes of record from {}", written.len(), body.len());
    let _ = Machine::is_hot(&row);
}

/// The first byte chooses the kind of the key.
pub(crate) fn key(bytes: &[u8]) {
    let Some((kind, body)) = chosen(bytes) else { return };
    let Ok(key) = Key::from_bytes(kind, body) else { return };
    assert_eq!(key.kind(), kind);
    if kind != Kind::Meta {
        assert_eq!(key.to_bytes(), body, "a key has one spelling");
    }
    assert_eq!(Key::from_bytes(kind, &key.to_bytes()), Ok(key));
}

fn chosen(bytes: &[u8]) -> Option<(Kind, &[u8])> {
    let (first, body) = bytes.split_first()?;
    Some((Kind::ALL[usize::from(*first) % Kind::ALL.len()], body))
}

/// An entry, and its changes applied to an empty site: whatever they are, they are applied or refused.
pub(crate) fn journal_entry(bytes: &[u8]) {
    let Ok(entry) = minicbor::decode::<JournalEntry>(bytes) else { return };
    let written = minicbor::to_vec(&entry).expect("writing to a vector cannot fail");
    let read: JournalEntry = minicbor::decode(&written).expect("what was written is read");
    assert_eq!(read, entry, "an entry is read as it was written");
    let mut machine = Machine::new();
    for change in &entry.changes {
        let _ = change.keys();
        if machine.apply(change).is_err() {
            return;
        }
    }
}
