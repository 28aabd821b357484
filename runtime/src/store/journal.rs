//! The journal as a bounded ring of entries over a base: the records as they were before the oldest entry.
//!
//! When the entries outgrow their limit by a quarter, the oldest ones leave: the changes of each are applied to the
//! base by a machine of its own ([`Follower`]), and what they touched is written there. At all times base plus journal
//! give the records. One commit moves at most [`MOVED_PER_COMMIT`] entries, so that a commit stays short; the ring may stand
//! above its limit for a few commits meanwhile.

use std::collections::{BTreeMap, BTreeSet};

use redb::{Database, ReadableDatabase, ReadableTable, WriteTransaction};
use tidegate_core::change::{Change, JournalEntry, UploadChange};
use tidegate_core::id::{JobId, PartNo, Seq};
use tidegate_core::machine::Machine;
use tidegate_core::row::{Key, Kind, Row};

use super::StoreError;
use super::format::{self, BASE, INFO, JOURNAL, JOURNAL_BYTES, base_of, table_of};

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
        match self.move_entries(tx) {
            Ok(()) => Ok(()),
            Err(
                error @ StoreError::Misfit { .. }
                | error @ StoreError::Entry(_)
                | error @ StoreError::Record(_),
            ) => {
                tracing::error!(
                    %error,
                    dropped_up_to = self.next.0 - 1,
                    "the journal does not fit its base: its entries are dropped and the base begins anew with the \
                     records of this commit; no record is lost, but what led to them cannot be replayed"
                );
                self.begin_anew(tx)
            }
            Err(error @ (StoreError::Database(_) | StoreError::Damaged(_) | StoreError::Closed)) => {
                Err(error)
            }
        }
    }

    fn move_entries(&mut self, tx: &WriteTransaction) -> Result<(), StoreError> {
        let mut follower = Follower::new(&Base(tx))?;
        let mut touched = BTreeSet::new();
        let mut last = None;
        let mut journal = tx.open_table(JOURNAL)?;
        for _ in 0..MOVED_PER_COMMIT {
            if self.bytes <= self.limit {
                break;
            }
            let Some((seq, bytes)) = journal.pop_first()? else { break };
            self.bytes -= bytes.value().len() as u64;
            let entry = format::read_entry(seq.value(), bytes.value())?;
            touched.extend(follower.apply(&entry, &Base(tx))?);
            last = Some(seq.value());
        }
        let Some(last) = last else { return Ok(()) };
        let mut rows: BTreeMap<Kind, Vec<(Key, Option<Row>)>> = BTreeMap::new();
        for key in touched {
            let row = follower.row(&key);
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
        tx.open_table(INFO)?.insert(BASE, last)?;
        Ok(())
    }

    /// The records as this transaction leaves them become the base, and the journal is empty. The last resort: a
    /// site must not stop, at every start again, over entries that only a replay needs.
    fn begin_anew(&mut self, tx: &WriteTransaction) -> Result<(), StoreError> {
        for kind in Kind::ALL {
            tx.delete_table(base_of(kind))?;
            let mut base = tx.open_table(base_of(kind))?;
            // The bytes as they are: a record that this program cannot read must not stand in the way.
            for item in tx.open_table(table_of(kind))?.iter()? {
                let (key, row) = item?;
                base.insert(key.value(), row.value())?;
            }
        }
        tx.delete_table(JOURNAL)?;
        tx.open_table(JOURNAL)?;
        self.bytes = 0;
        self.shrinking = false;
        tx.open_table(INFO)?.insert(BASE, self.next.0 - 1)?;
        Ok(())
    }
}

/// Where a follower finds the records as they were before the first change it applies.
pub(crate) trait Before {
    /// One record; `None` was not there.
    fn row(&self, key: &Key) -> Result<Option<Row>, StoreError>;
    /// Every acknowledged part of a job's upload.
    fn parts(&self, job: JobId) -> Result<Vec<(Key, Row)>, StoreError>;
}

/// The tables of the base.
struct Base<'a>(&'a WriteTransaction);

impl Before for Base<'_> {
    fn row(&self, key: &Key) -> Result<Option<Row>, StoreError> {
        let table = self.0.open_table(base_of(key.kind()))?;
        let Some(bytes) = table.get(key.to_bytes().as_slice())? else { return Ok(None) };
        Row::from_bytes(key.kind(), bytes.value()).map(Some).map_err(StoreError::Record)
    }

    fn parts(&self, job: JobId) -> Result<Vec<(Key, Row)>, StoreError> {
        let table = self.0.open_table(base_of(Kind::Part))?;
        let first = Key::Part(job, PartNo(u16::MIN)).to_bytes();
        let last = Key::Part(job, PartNo(u16::MAX)).to_bytes();
        let mut parts = Vec::new();
        for item in table.range(first.as_slice()..=last.as_slice())? {
            let (key, row) = item?;
            let key = Key::from_bytes(Kind::Part, key.value()).map_err(StoreError::Record)?;
            parts.push((key, Row::from_bytes(Kind::Part, row.value()).map_err(StoreError::Record)?));
        }
        Ok(parts)
    }
}

/// A machine that is only told changes. It reads a record when a change first concerns it: what was in memory in life
/// depends on inputs that came before the journal, so nothing else can be relied on, and what no change concerns costs
/// nothing.
pub(crate) struct Follower {
    machine: Machine,
    /// Records that were read or touched. Those that are not in memory although they are known are gone.
    known: BTreeSet<Key>,
    /// Uploads all of whose parts are known.
    whole: BTreeSet<JobId>,
}

impl Follower {
    /// One that knows the counters of the site.
    pub(crate) fn new(before: &impl Before) -> Result<Follower, StoreError> {
        let mut follower =
            Follower { machine: Machine::new(), known: BTreeSet::new(), whole: BTreeSet::new() };
        follower.read(Key::Meta, before)?;
        Ok(follower)
    }

    /// A record after the entries applied so far, if one of them touched it.
    pub(crate) fn row(&self, key: &Key) -> Option<Row> {
        self.machine.row(key)
    }

    /// Applies the changes of one entry. Returns the keys of the records they touched.
    ///
    /// # Errors
    /// [`StoreError::Misfit`] if a change is not legal where the records stand, and those of reading records.
    pub(crate) fn apply(
        &mut self,
        entry: &JournalEntry,
        before: &impl Before,
    ) -> Result<Vec<Key>, StoreError> {
        let mut touched = Vec::new();
        for change in &entry.changes {
            for key in change.keys() {
                if let Key::Upload(job) = key
                    && !matches!(change, Change::Upload(UploadChange::PartStored { .. }))
                {
                    self.read_parts(job, before)?;
                }
                self.read(key, before)?;
            }
            let keys = self.machine.apply(change).map_err(|illegal| StoreError::Misfit {
                seq: entry.seq,
                why: format!("{} in state {}", illegal.change, illegal.state),
            })?;
            self.known.extend(keys.iter().cloned());
            touched.extend(keys);
        }
        Ok(touched)
    }

    fn read(&mut self, key: Key, before: &impl Before) -> Result<(), StoreError> {
        if !self.known.contains(&key) {
            if let Some(row) = before.row(&key)? {
                self.machine.load(&key, row);
            }
            self.known.insert(key);
        }
        Ok(())
    }

    fn read_parts(&mut self, job: JobId, before: &impl Before) -> Result<(), StoreError> {
        if self.whole.insert(job) {
            for (key, row) in before.parts(job)? {
                if self.known.insert(key.clone()) {
                    self.machine.load(&key, row);
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
