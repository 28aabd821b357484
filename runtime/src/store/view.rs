//! Reading the store from outside the driver: read transactions only, never blocked by a commit.

use std::ops::ControlFlow;
use std::sync::{Arc, Weak};

use redb::{ReadOnlyTable, ReadTransaction, ReadableDatabase, ReadableTable, TableError};
use tidegate_core::change::JournalEntry;
use tidegate_core::id::Seq;
use tidegate_core::policy::Slot;
use tidegate_core::row::{Key, Kind, Row};

use super::format::{self, BASE, EARLIER, FORMAT, INFO, JOURNAL, RowTable, VERSION, base_of, table_of};
use super::{Inner, StoreError};
use crate::api;

/// A table of records, to read.
type Records = ReadOnlyTable<&'static [u8], &'static [u8]>;

/// A reader of the store. Cheap to clone. It does not keep the store open: after the site stopped, every read is
/// [`StoreError::Closed`]. Reads block on the disk for what is not cached.
#[derive(Clone)]
pub struct View {
    inner: Weak<Inner>,
}

impl std::fmt::Debug for View {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("View").finish_non_exhaustive()
    }
}

impl View {
    pub(super) fn of(inner: &Arc<Inner>) -> View {
        View { inner: Arc::downgrade(inner) }
    }

    /// The store as of now, for several reads that belong together.
    ///
    /// # Errors
    /// [`StoreError::Closed`], those of the database.
    pub fn snapshot(&self) -> Result<Snapshot, StoreError> {
        let inner = self.inner.upgrade().ok_or(StoreError::Closed)?;
        let tx = inner.database.begin_read()?;
        Ok(Snapshot { tx, _inner: inner })
    }

    /// One record; `None` is not there.
    ///
    /// # Errors
    /// [`StoreError::Closed`], those of the database and of a damaged record.
    pub fn get(&self, key: &Key) -> Result<Option<Row>, StoreError> {
        self.snapshot()?.get(key)
    }

    /// Shows the records of a kind in the order of their keys, or against it, until `visit` breaks.
    ///
    /// # Errors
    /// [`StoreError::Closed`], those of the database and of damaged records.
    pub fn walk(
        &self,
        kind: Kind,
        reverse: bool,
        visit: impl FnMut(Key, Row) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        self.snapshot()?.walk(kind, reverse, visit)
    }
}

/// The store at one moment. Keeps the store open while it lives: hold it briefly.
pub struct Snapshot {
    // Before `_inner`: it ends before the database may close.
    tx: ReadTransaction,
    _inner: Arc<Inner>,
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Snapshot").finish_non_exhaustive()
    }
}

impl Snapshot {
    pub(super) fn transaction(&self) -> &ReadTransaction {
        &self.tx
    }

    /// One record; `None` is not there.
    ///
    /// # Errors
    /// Those of the database and of a damaged record.
    pub fn get(&self, key: &Key) -> Result<Option<Row>, StoreError> {
        let Some(table) = self.records(table_of(key.kind()))? else { return Ok(None) };
        let Some(bytes) = table.get(key.to_bytes().as_slice())? else { return Ok(None) };
        Row::from_bytes(key.kind(), bytes.value()).map(Some).map_err(StoreError::Record)
    }

    /// Shows the records of a kind in the order of their keys, or against it, until `visit` breaks.
    ///
    /// # Errors
    /// Those of the database and of damaged records.
    pub fn walk(
        &self,
        kind: Kind,
        reverse: bool,
        visit: impl FnMut(Key, Row) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        self.walk_table(table_of(kind), kind, reverse, visit)
    }

    /// Shows the records of a kind as of the journal's base.
    ///
    /// # Errors
    /// Those of the database and of damaged records.
    pub fn walk_base(
        &self,
        kind: Kind,
        visit: impl FnMut(Key, Row) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        self.walk_table(base_of(kind), kind, false, visit)
    }

    /// The last entry that the base includes, 0 if it is empty. The journal goes on after it.
    ///
    /// # Errors
    /// Those of the database.
    pub fn base(&self) -> Result<Seq, StoreError> {
        Ok(Seq(self.tx.open_table(INFO)?.get(BASE)?.map_or(0, |n| n.value())))
    }

    /// The last entry that a program of an earlier format wrote, 0 if there is none. Its changes hold, but this
    /// program may decide otherwise than it did.
    ///
    /// # Errors
    /// Those of the database.
    pub fn earlier(&self) -> Result<Seq, StoreError> {
        let info = self.tx.open_table(INFO)?;
        let format = info.get(FORMAT)?.map_or(0, |n| n.value());
        if format < VERSION {
            return Ok(Seq(u64::MAX));
        }
        Ok(Seq(info.get(EARLIER)?.map_or(0, |n| n.value())))
    }

    /// Shows the journal from entry `from` on, until `visit` breaks.
    ///
    /// # Errors
    /// Those of the database and of damaged entries.
    pub fn walk_journal(
        &self,
        from: Seq,
        mut visit: impl FnMut(JournalEntry) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let table = self.tx.open_table(JOURNAL)?;
        for item in table.range(from.0..)? {
            let (seq, bytes) = item?;
            if visit(format::read_entry(seq.value(), bytes.value())?).is_break() {
                break;
            }
        }
        Ok(())
    }

    /// A table of records; `None` if the store is of an earlier format that had none.
    fn records(&self, table: RowTable) -> Result<Option<Records>, StoreError> {
        match self.tx.open_table(table) {
            Ok(table) => Ok(Some(table)),
            Err(TableError::TableDoesNotExist(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn walk_table(
        &self,
        table: RowTable,
        kind: Kind,
        reverse: bool,
        mut visit: impl FnMut(Key, Row) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let Some(table) = self.records(table)? else { return Ok(()) };
        let mut range = table.iter()?;
        loop {
            let Some(item) = (if reverse { range.next_back() } else { range.next() }) else { return Ok(()) };
            let (key, row) = item?;
            let key = Key::from_bytes(kind, key.value()).map_err(StoreError::Record)?;
            let row = Row::from_bytes(kind, row.value()).map_err(StoreError::Record)?;
            if visit(key, row).is_break() {
                return Ok(());
            }
        }
    }
}

impl api::Reads for View {
    fn snapshot(&self) -> Result<Box<dyn api::Snapshot>, api::Unreadable> {
        Ok(Box::new(View::snapshot(self).map_err(unreadable)?))
    }
}

impl api::Snapshot for Snapshot {
    fn get(&self, key: &Key) -> Result<Option<Row>, api::Unreadable> {
        Snapshot::get(self, key).map_err(unreadable)
    }

    fn decisions(&self, slot: Slot, most: usize) -> Result<Vec<Vec<u8>>, api::Unreadable> {
        Snapshot::decisions(self, slot, most).map_err(unreadable)
    }

    fn walk(
        &self,
        kind: Kind,
        reverse: bool,
        each: &mut dyn FnMut(Key, Row) -> ControlFlow<()>,
    ) -> Result<(), api::Unreadable> {
        Snapshot::walk(self, kind, reverse, each).map_err(unreadable)
    }
}

fn unreadable(error: StoreError) -> api::Unreadable {
    match error {
        StoreError::Closed => api::Unreadable::Closed,
        StoreError::Database(_)
        | StoreError::Record(_)
        | StoreError::Entry(_)
        | StoreError::Damaged(_)
        | StoreError::Misfit { .. } => api::Unreadable::Broken(error.to_string()),
    }
}
