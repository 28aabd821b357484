//! The table of recorded decisions: for each slot the newest ones, bytes in, bytes out. It is for people and for trying
//! out policies; no replay needs it, and nothing is decided by it.

use redb::{ReadTransaction, ReadableTable, TableError, WriteTransaction};
use tidegate_core::policy::Slot;

use super::StoreError;
use super::format::DECISIONS;
use super::view::{Snapshot, View};

/// Decisions that are kept of each slot.
pub const KEPT: usize = 512;
/// Bytes that the decisions of one slot may take; beyond it the oldest leave earlier. Most are a few hundred bytes, so
/// this bounds questions about hundreds of episodes or jobs.
pub const KEPT_BYTES: usize = 4 << 20;
/// A decision from which on the bytes of its slot are counted: [`KEPT`] smaller ones stay below [`KEPT_BYTES`].
const LARGE: usize = KEPT_BYTES / KEPT;

/// Appends decisions in the order in which they were made, and drops the oldest.
pub(super) fn append(tx: &WriteTransaction, decisions: &[(Slot, Vec<u8>)]) -> Result<(), StoreError> {
    if decisions.is_empty() {
        return Ok(());
    }
    let mut table = tx.open_table(DECISIONS)?;
    for slot in Slot::ALL {
        let all = || (slot as u8, 0)..=(slot as u8, u64::MAX);
        let of_slot: Vec<&Vec<u8>> =
            decisions.iter().filter(|(of, _)| *of == slot).map(|(_, bytes)| bytes).collect();
        let newest = &of_slot[of_slot.len().saturating_sub(KEPT)..];
        if newest.is_empty() {
            continue;
        }
        let last = table.range(all())?.next_back().transpose()?.map_or(0, |(key, _)| key.value().1);
        let mut at = last;
        for bytes in newest {
            at += 1;
            table.insert((slot as u8, at), bytes.as_slice())?;
        }
        // The first that may stay: numbers have no gaps.
        let mut first = (at + 1).saturating_sub(KEPT as u64);
        if newest.iter().any(|bytes| bytes.len() > LARGE) {
            let mut room = KEPT_BYTES;
            for item in table.range((slot as u8, first)..=(slot as u8, at))?.rev() {
                let (key, bytes) = item?;
                match room.checked_sub(bytes.value().len()) {
                    Some(left) => room = left,
                    None => {
                        first = key.value().1 + 1;
                        break;
                    }
                }
            }
        }
        table.retain_in((slot as u8, 0)..(slot as u8, first), |_, _| false)?;
    }
    Ok(())
}

/// The newest decisions of a slot, oldest of them first.
fn newest(tx: &ReadTransaction, slot: Slot, most: usize) -> Result<Vec<Vec<u8>>, StoreError> {
    let table = match tx.open_table(DECISIONS) {
        Ok(table) => table,
        // A store of an earlier format has none.
        Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let mut found = Vec::new();
    for item in table.range((slot as u8, 0)..=(slot as u8, u64::MAX))?.rev().take(most) {
        found.push(item?.1.value().to_vec());
    }
    found.reverse();
    Ok(found)
}

impl View {
    /// The newest `most` decisions of a slot, oldest of them first, as they were recorded.
    ///
    /// # Errors
    /// [`StoreError::Closed`], those of the database.
    pub fn decisions(&self, slot: Slot, most: usize) -> Result<Vec<Vec<u8>>, StoreError> {
        self.snapshot()?.decisions(slot, most)
    }
}

impl Snapshot {
    /// The newest `most` decisions of a slot, oldest of them first, as they were recorded.
    ///
    /// # Errors
    /// Those of the database.
    pub fn decisions(&self, slot: Slot, most: usize) -> Result<Vec<Vec<u8>>, StoreError> {
        newest(self.transaction(), slot, most)
    }
}

#[allow(clippy::unwrap_used, reason = "a test that panics has failed, which is what it is for")]
#[cfg(test)]
mod tests {
    use super::*;
    use crate::real::RealDisk;
    use crate::store::{Batch, JOURNAL_LIMIT, Store};

    fn commit(store: &mut Store, decisions: Vec<(Slot, Vec<u8>)>) {
        store.commit(&Batch { decisions, ..Batch::default() }).unwrap();
    }

    fn number(n: usize) -> Vec<u8> {
        n.to_string().into_bytes()
    }

    #[test]
    fn each_slot_keeps_its_newest_decisions_across_commits_and_starts() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Store::open(&RealDisk, dir.path(), JOURNAL_LIMIT).unwrap();
        commit(&mut store, vec![(Slot::Retry, b"only".to_vec())]);
        for part in 0..7 {
            let all = (0..100).map(|n| (Slot::Order, number(part * 100 + n))).collect();
            commit(&mut store, all);
        }
        drop(store);
        let mut store = Store::open(&RealDisk, dir.path(), JOURNAL_LIMIT).unwrap();
        commit(&mut store, vec![(Slot::Order, number(700))]);
        let all = store.view().decisions(Slot::Order, usize::MAX).unwrap();
        assert_eq!(all, (701 - KEPT..=700).map(number).collect::<Vec<_>>());
        assert_eq!(store.view().decisions(Slot::Order, 2).unwrap(), [number(699), number(700)]);
        assert_eq!(store.view().decisions(Slot::Retry, 9).unwrap(), [b"only"]);
        assert_eq!(store.view().decisions(Slot::AutoScan, 9).unwrap(), [[0_u8; 0]; 0]);
    }

    #[test]
    fn one_batch_may_hold_more_than_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Store::open(&RealDisk, dir.path(), JOURNAL_LIMIT).unwrap();
        commit(&mut store, (0..KEPT + 3).map(|n| (Slot::Retry, number(n))).collect());
        let all = store.view().decisions(Slot::Retry, usize::MAX).unwrap();
        assert_eq!(all, (3..KEPT + 3).map(number).collect::<Vec<_>>());
    }

    #[test]
    fn large_decisions_leave_earlier_so_that_a_slot_never_takes_more_than_its_room() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Store::open(&RealDisk, dir.path(), JOURNAL_LIMIT).unwrap();
        for n in 0..20_u8 {
            commit(&mut store, vec![(Slot::Order, vec![n; KEPT_BYTES / 8])]);
        }
        let all = store.view().decisions(Slot::Order, usize::MAX).unwrap();
        assert_eq!(all.iter().map(|bytes| bytes[0]).collect::<Vec<_>>(), (12..20).collect::<Vec<_>>());
        commit(&mut store, vec![(Slot::Order, vec![9; KEPT_BYTES + 1])]);
        assert_eq!(store.view().decisions(Slot::Order, usize::MAX).unwrap().len(), 0, "one that never fits");
    }
}
