//! From an earlier format of the data directory to this program's: an ordered list of steps, all in one transaction,
//! after a snapshot. Must not start anything before the snapshot was read back.
//!
//! The transaction ends by writing the new version. So a crash in the middle leaves the earlier format whole, and the
//! next start begins again.

use std::path::Path;

use redb::{Durability, ReadableTable, WriteTransaction};

use super::format::{BASE, CRASHES, DECISIONS, EARLIER, FORMAT, INFO, JOURNAL, RowTable, VERSION};
use super::snapshots::{self, Census};
use super::{DATABASE, OpenError, Opened, StoreError, unless_damaged};
use crate::seam::Disk;

/// One format further.
struct Step {
    /// The format it begins with; it ends with the next.
    from: u64,
    /// What it does, for the log.
    what: &'static str,
    run: fn(&WriteTransaction) -> Result<(), StoreError>,
}

/// Every step there ever was, oldest first. A step is never changed once a program with it was released.
const STEPS: &[Step] = &[
    Step { from: 1, what: "adds the table of crashes", run: add_crashes },
    Step { from: 2, what: "adds the tables of policies and their decisions", run: add_policies },
    Step { from: 3, what: "adds the tables of registered devices and tokens", run: add_roster },
];

fn add_crashes(tx: &WriteTransaction) -> Result<(), StoreError> {
    tx.open_table(CRASHES)?;
    Ok(())
}

fn add_policies(tx: &WriteTransaction) -> Result<(), StoreError> {
    tx.open_table(DECISIONS)?;
    for name in ["k11", "b11", "k16", "b16"] {
        tx.open_table(RowTable::new(name))?;
    }
    Ok(())
}

fn add_roster(tx: &WriteTransaction) -> Result<(), StoreError> {
    for name in ["k2", "b2", "k13", "b13"] {
        tx.open_table(RowTable::new(name))?;
    }
    Ok(())
}

/// Brings the database of `dir`, opened and not yet written to, to this program's format.
///
/// # Errors
/// [`OpenError::Snapshot`], [`OpenError::Migration`] and those of opening it again. The database then is as it was, or,
/// where a commit ended without an answer, wholly migrated.
pub(super) fn run<D: Disk>(
    disk: &D,
    dir: &Path,
    opened: Opened<D::File>,
) -> Result<Opened<D::File>, OpenError> {
    let from = opened.format;
    let broken = |error| OpenError::Store { dir: dir.to_owned(), error };
    let (census, boot) =
        unless_damaged(|| Ok((Census::of(&opened.database)?, snapshots::boot_of(&opened.database)?)))
            .map_err(broken)?;
    // What opening it wrote is dropped with it: the copy is of the file as the earlier program left it.
    drop(opened);
    tracing::info!(dir = %dir.display(), from, to = VERSION, "the data directory is brought to this program's format");
    let snapshot = snapshots::take(disk, dir, (from, VERSION, boot), &census)?;

    let failed = |error| OpenError::Migration {
        dir: dir.to_owned(),
        from,
        to: VERSION,
        snapshot: snapshot.clone(),
        error,
    };
    let mut opened = Opened::held(disk, &dir.join(DATABASE)).map_err(|unopened| unopened.of(dir))?;
    opened.held.release().map_err(|error| OpenError::Disk { dir: dir.to_owned(), error })?;
    unless_damaged(|| upgrade(&opened.database, from)).map_err(failed)?;
    opened.format = VERSION;
    tracing::info!(
        from,
        to = VERSION,
        snapshot = %snapshot.display(),
        "the data directory was migrated; to go back: stop the site, copy the snapshot over {DATABASE}, run the \
         earlier tidegate"
    );
    snapshots::prune(disk, dir);
    Ok(opened)
}

fn upgrade(database: &redb::Database, from: u64) -> Result<(), StoreError> {
    let mut tx = database.begin_write()?;
    tx.set_durability(Durability::Immediate)?;
    for step in STEPS.iter().filter(|step| step.from >= from) {
        tracing::info!(from = step.from, to = step.from + 1, "migrating: {}", step.what);
        (step.run)(&tx)?;
    }
    let mut info = tx.open_table(INFO)?;
    let base = info.get(BASE)?.map_or(0, |n| n.value());
    let last = tx.open_table(JOURNAL)?.last()?.map_or(base, |(seq, _)| seq.value());
    info.insert(EARLIER, last)?;
    info.insert(FORMAT, VERSION)?;
    drop(info);
    tx.commit()?;
    Ok(())
}

#[cfg(test)]
mod tests;
