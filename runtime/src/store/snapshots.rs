//! Copies of the database from before a migration: made, verified, found and cleared away. Knows nothing of what a
//! migration does.
//!
//! `<data_dir>/snapshots/tidegate-v1-before-v2-boot17.redb` is the database as start 17 left it. It appears under that
//! name only once it is whole, durable and was read back.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use redb::{
    Database, Key, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition, TableError, Value,
};
use sha2::{Digest, Sha256};
use tidegate_core::row::Kind;

use super::format::{self, BOOT, INFO, JOURNAL, base_of, table_of};
use super::{DATABASE, OpenError, Opened, StoreError, tighten, unless_damaged};
use crate::folders;
use crate::seam::{Disk, DiskFile, Open};

/// Snapshots that are kept; older ones go after a migration.
const KEPT: usize = 2;
/// Bytes copied at a time.
const PIECE: usize = 1 << 20;
const FOLDER: &str = "snapshots";
const UNFINISHED: &str = "new.redb";

/// What the name of a snapshot says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Name {
    /// The last start that wrote to it.
    boot: u64,
    /// The format that the migration was to make.
    to: u64,
    /// Its format.
    from: u64,
}

impl Name {
    fn file(self) -> String {
        format!("tidegate-v{}-before-v{}-boot{}.redb", self.from, self.to, self.boot)
    }

    fn read(file: &str) -> Option<Name> {
        let rest = file.strip_prefix("tidegate-v")?.strip_suffix(".redb")?;
        let (from, rest) = rest.split_once("-before-v")?;
        let (to, boot) = rest.split_once("-boot")?;
        let name = Name { boot: boot.parse().ok()?, to: to.parse().ok()?, from: from.parse().ok()? };
        // Only what we wrote ourselves: no leading zeros or signs.
        (name.file() == file).then_some(name)
    }
}

/// How much of what a database holds: by table, the number of records and a digest over all of them in order.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Census(BTreeMap<String, (u64, [u8; 32])>);

impl Census {
    /// Counts everything.
    ///
    /// # Errors
    /// Those of the database.
    pub(super) fn of(database: &Database) -> Result<Census, StoreError> {
        let tx = database.begin_read()?;
        let mut census = Census(BTreeMap::new());
        for kind in Kind::ALL {
            census.add(&tx, table_of(kind), |key| key.to_vec(), |row| row.to_vec())?;
            census.add(&tx, base_of(kind), |key| key.to_vec(), |row| row.to_vec())?;
        }
        census.add(&tx, JOURNAL, |seq| seq.to_be_bytes().to_vec(), |entry| entry.to_vec())?;
        census.add(&tx, INFO, |word| word.as_bytes().to_vec(), |number| number.to_be_bytes().to_vec())?;
        Ok(census)
    }

    fn add<K: Key + 'static, V: Value + 'static>(
        &mut self,
        tx: &ReadTransaction,
        table: TableDefinition<'_, K, V>,
        key_bytes: impl Fn(K::SelfType<'_>) -> Vec<u8>,
        value_bytes: impl Fn(V::SelfType<'_>) -> Vec<u8>,
    ) -> Result<(), StoreError> {
        let name = redb::TableHandle::name(&table).to_owned();
        let table = match tx.open_table(table) {
            Ok(table) => table,
            // An earlier format has fewer of them.
            Err(TableError::TableDoesNotExist(_)) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let (mut count, mut digest) = (0, Sha256::new());
        for item in table.iter()? {
            let (key, value) = item?;
            for bytes in [key_bytes(key.value()), value_bytes(value.value())] {
                digest.update((bytes.len() as u64).to_be_bytes());
                digest.update(&bytes);
            }
            count += 1;
        }
        self.0.insert(name, (count, digest.finalize().into()));
        Ok(())
    }

    /// Records of all tables.
    fn records(&self) -> u64 {
        self.0.values().map(|(count, _)| count).sum()
    }
}

/// Makes a snapshot of a database that nobody has open, and reads it back: it must open and hold what `census` counted
/// in the database itself. One that an interrupted migration left is used again if it does, and else made anew.
///
/// # Errors
/// [`OpenError::Snapshot`]; the database is as it was.
pub(super) fn take<D: Disk>(
    disk: &D,
    dir: &Path,
    (from, to, boot): (u64, u64, u64),
    census: &Census,
) -> Result<PathBuf, OpenError> {
    let folder = dir.join(FOLDER);
    let path = folder.join(Name { boot, to, from }.file());
    let unfinished = folder.join(UNFINISHED);
    let len = disk.meta(&dir.join(DATABASE)).map_or(0, |meta| meta.len);
    let failed =
        |error| OpenError::Snapshot { dir: dir.to_owned(), path: path.clone(), len, from, to, error };
    folders::create(disk, &folder).map_err(failed)?;
    tighten(disk, &folder);
    if disk.meta(&path).is_ok() {
        match check(disk, &path, census) {
            Ok(()) => return Ok(path),
            Err(error) => {
                tracing::warn!(snapshot = %path.display(), %error, "a snapshot of an interrupted migration is made anew");
            }
        }
    }
    let made = copy(disk, &dir.join(DATABASE), &unfinished)
        .and_then(|()| check(disk, &unfinished, census))
        .and_then(|()| disk.rename(&unfinished, &path))
        .and_then(|()| disk.sync_dir(&folder));
    if let Err(error) = made {
        // Its room is needed more than it is.
        let _ = disk.remove_file(&unfinished);
        return Err(failed(error));
    }
    tracing::info!(snapshot = %path.display(), records = census.records(), "the database was copied and the copy read back");
    Ok(path)
}

fn copy<D: Disk>(disk: &D, from: &Path, to: &Path) -> io::Result<()> {
    let source = disk.open(from, Open::Read)?;
    let target = disk.open(to, Open::Create)?;
    // Before there is anything in it to be read.
    tighten(disk, to);
    let (mut at, len) = (0, source.len()?);
    let mut piece = vec![0; PIECE];
    while at < len {
        let now = usize::try_from(len - at).map_or(PIECE, |left| left.min(PIECE));
        source.read_exact_at(&mut piece[..now], at)?;
        target.write_all_at(&piece[..now], at)?;
        at += now as u64;
    }
    target.sync()
}

fn check<D: Disk>(disk: &D, path: &Path, census: &Census) -> io::Result<()> {
    let found = Opened::held(disk, path)
        .map_err(io::Error::other)
        .and_then(|opened| unless_damaged(|| Census::of(&opened.database)).map_err(io::Error::other))?;
    if found == *census {
        return Ok(());
    }
    Err(io::Error::other(format!(
        "the copy holds {} records, the database {}, and they are not the same",
        found.records(),
        census.records()
    )))
}

/// Number of the last start of a database, for [`take`].
pub(super) fn boot_of(database: &Database) -> Result<u64, StoreError> {
    format::read_info(database, BOOT)
}

/// The newest snapshot that a program which reads up to format `known` can go on with.
pub(super) fn newest<D: Disk>(disk: &D, dir: &Path, known: u64) -> Option<PathBuf> {
    let folder = dir.join(FOLDER);
    let newest = names(disk, &folder).into_iter().rfind(|name| name.from <= known)?;
    Some(folder.join(newest.file()))
}

/// Removes all but the newest snapshots, and what an interrupted copy left. Files with other names stay.
pub(super) fn prune<D: Disk>(disk: &D, dir: &Path) {
    let folder = dir.join(FOLDER);
    let names = names(disk, &folder);
    let old = names[..names.len().saturating_sub(KEPT)].iter().map(|name| name.file());
    for file in old.chain([UNFINISHED.to_owned()]) {
        match disk.remove_file(&folder.join(&file)) {
            Ok(()) => tracing::info!(snapshot = file, "an old snapshot was removed"),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(snapshot = file, %error, "an old snapshot could not be removed"),
        }
    }
}

/// Oldest first.
fn names<D: Disk>(disk: &D, folder: &Path) -> Vec<Name> {
    let files = disk.list(folder).unwrap_or_default();
    let mut names: Vec<Name> = files.iter().filter_map(|file| Name::read(file)).collect();
    names.sort_unstable();
    names
}

#[cfg(test)]
mod tests {
    use super::Name;

    #[test]
    fn names_of_snapshots_are_read_as_they_were_written_and_sort_by_age() {
        let name = Name { boot: 17, to: 2, from: 1 };
        assert_eq!(name.file(), "tidegate-v1-before-v2-boot17.redb");
        assert_eq!(Name::read(&name.file()), Some(name));
        for other in
            ["tidegate.redb", "tidegate-v1-before-v2-boot017.redb", "tidegate-v1-before-v2-boot+1.redb", "x"]
        {
            assert_eq!(Name::read(other), None, "{other}");
        }
        assert!(name < Name { boot: 100, to: 2, from: 1 }, "by number, not by letter");
    }
}
