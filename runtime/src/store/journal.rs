//! The journal as a bounded ring of entries over a base: the records as they were before the oldest entry.
//!
//! When the entries outgrow their limit by a quarter, the oldest ones leave: the changes of each are applied to the
//! base by a machine of its own, and what they touched is written there. At all times base plus journal give the
//! records. One commit moves at most [`MOVED_PER_COMMIT`] entries, so that a commit stays short; the ring may stand
//! above its limit for a few commits meanwhile.

use std::collections::{BTreeMap, BTreeSet};

use redb::{Database, ReadableDatabase, ReadableTable, WriteTransaction};
use tidegate_core::change::JournalEntry;
use tidegate_core::id::Seq;
use tidegate_core::machine::Machine;
use tidegate_core::row::{Key, Kind, Row};

use super::StoreError;
use super::format::{self, BASE, INFO, JOURNAL, JOURNAL_BYTES, base_of};

/// Bytes of entries that the journal keeps unless configured otherwise: hours of a busy site, weeks of a quiet one.
pub const JOURNAL_LIMIT: u64 = 64 << 20;
/// Entries that one commit moves into the base: a few milliseconds of work.
const MOVED_PER_COMMIT: usize = 4096;

/// Where the journal stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ring {
    /// Number of the next entry.
    pub(super) next: Seq,
    /// Bytes of all entries.
    pub(super) bytes: u64,
    limit: u64,
    /// Whether entries leave until the limit is met: from a quarter above it down to it, so that the base is not
    /// opened for a handful of entries in every commit.
    shrinking: bool,
}

impl Ring {
    pub(super) fn open(database: &Database, limit: u64) -> Result<Ring, StoreError> {
        let tx = database.begin_read()?;
        let info = tx.open_table(INFO)?;
        let base = info.get(BASE)?.map_or(0, |n| n.value());
        let bytes = info.get(JOURNAL_BYTES)?.map_or(0, |n| n.value());
        let last = tx.open_table(JOURNAL)?.last()?.map_or(base, |(seq, _)| seq.value());
        Ok(Ring { next: Seq(last + 1), bytes, limit, shrinking: false })
    }

    /// Appends entries, and moves old ones into the base if it is time. Returns where the journal stands once the
    /// transaction is committed.
    pub(super) fn append(&self, tx: &WriteTransaction, entries: &[JournalEntry]) -> Result<Ring, StoreError> {
        let mut ring = *self;
        if entries.is_empty() {
            return Ok(ring);
        }
        {
            let mut journal = tx.open_table(JOURNAL)?;
            for entry in entries {
                assert_eq!(entry.seq, ring.next, "I23: the journal has no gaps");
                let bytes = format::write_entry(entry);
                journal.insert(entry.seq.0, bytes.as_slice())?;
                ring.bytes += bytes.len() as u64;
                ring.next = Seq(entry.seq.0 + 1);
            }
        }
        ring.shrinking =
            ring.bytes > ring.limit && (ring.shrinking || ring.bytes > ring.limit + ring.limit / 4);
        if ring.shrinking {
            ring.shrink(tx)?;
        }
        tx.open_table(INFO)?.insert(JOURNAL_BYTES, ring.bytes)?;
        Ok(ring)
    }

    fn shrink(&mut self, tx: &WriteTransaction) -> Result<(), StoreError> {
        let mut base = Base::load(tx)?;
        let mut last = None;
        let mut journal = tx.open_table(JOURNAL)?;
        for _ in 0..MOVED_PER_COMMIT {
            if self.bytes <= self.limit {
                break;
            }
            let Some((seq, bytes)) = journal.pop_first()? else { break };
            self.bytes -= bytes.value().len() as u64;
            base.apply(&format::read_entry(seq.value(), bytes.value())?)?;
            last = Some(seq.value());
        }
        let Some(last) = last else { return Ok(()) };
        base.write(tx)?;
        tx.open_table(INFO)?.insert(BASE, last)?;
        Ok(())
    }
}

/// The base while entries are applied to it.
struct Base {
    machine: Machine,
    touched: BTreeSet<Key>,
}

impl Base {
    /// Hot records are enough: an entry brings the cold ones it consulted.
    fn load(tx: &WriteTransaction) -> Result<Base, StoreError> {
        let mut machine = Machine::new();
        for kind in Kind::ALL {
            let table = tx.open_table(base_of(kind))?;
            for item in table.iter()? {
                let (key, row) = item?;
                let row = Row::from_bytes(kind, row.value()).map_err(StoreError::Record)?;
                if Machine::is_hot(&row) {
                    machine.load(&Key::from_bytes(kind, key.value()).map_err(StoreError::Record)?, row);
                }
            }
        }
        Ok(Base { machine, touched: BTreeSet::new() })
    }

    fn apply(&mut self, entry: &JournalEntry) -> Result<(), StoreError> {
        self.touched.extend(apply(&mut self.machine, entry)?);
        Ok(())
    }

    fn write(self, tx: &WriteTransaction) -> Result<(), StoreError> {
        let mut rows: BTreeMap<Kind, Vec<(Key, Option<Row>)>> = BTreeMap::new();
        for key in self.touched {
            let row = self.machine.row(&key);
            rows.entry(key.kind()).or_default().push((key, row));
        }
        for (kind, rows) in rows {
            let mut table = tx.open_table(base_of(kind))?;
            for (key, row) in rows {
                match row {
                    Some(row) => table.insert(key.to_bytes().as_slice(), row.to_bytes().as_slice())?,
                    None => table.remove(key.to_bytes().as_slice())?,
                };
            }
        }
        Ok(())
    }
}

/// Applies the changes of one entry. Returns the keys of the records they touched.
///
/// # Errors
/// [`StoreError::Misfit`] if a change is not legal where the records stand.
pub(crate) fn apply(machine: &mut Machine, entry: &JournalEntry) -> Result<Vec<Key>, StoreError> {
    for (key, row) in &entry.cold {
        // A record that an earlier entry brought or changed is in memory already, and younger than this copy is not
        // possible: both are the record before this entry.
        if let (Some(row), None) = (row, machine.row(key)) {
            machine.load(key, row.clone());
        }
    }
    let mut touched = Vec::new();
    for change in &entry.changes {
        let keys = machine.apply(change).map_err(|illegal| StoreError::Misfit {
            seq: entry.seq,
            why: format!("{} in state {}", illegal.change, illegal.state),
        })?;
        touched.extend(keys);
    }
    Ok(touched)
}
