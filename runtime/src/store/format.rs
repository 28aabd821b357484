//! What the database file looks like: tables, their names, the version. Names and numbers are never reused.
//!
//! | table | key | value |
//! |---|---|---|
//! | `info` | word | number |
//! | `k<ordinal>` | bytes of the record's key | bytes of the record |
//! | `b<ordinal>` | the same, as of the journal's base | |
//! | `journal` | number of the entry | version byte, then the entry in CBOR |
//! | `crashes` (since 2) | signature of a crash of the core, 32 bytes | version byte, then its record in CBOR; the table is made with the first |
//! | `decisions` (since 3) | number of the slot, number of the decision in it | the decision in JSON |
//!
//! [`VERSION`] is the version of the whole data directory: the store is opened first, and nothing else of the directory
//! is touched if it is of another format. A change of the layout of recordings raises it too.

use redb::{Database, Durability, ReadableDatabase, TableDefinition, TableError};
use tidegate_core::change::JournalEntry;
use tidegate_core::id::Seq;
use tidegate_core::row::Kind;

use super::StoreError;

/// Version of the data directory. A program opens its own; every earlier one it migrates first (`migrate.rs`), or reads
/// without writing ([`super::Store::open_existing`]).
///
/// | version | since | what is new |
/// |---|---|---|
/// | 1 | the first program | |
/// | 2 | crashes of the core are kept | `crashes`, `earlier` in `info`; inputs and fields that a program of 1 cannot read |
/// | 3 | policies are modules | `decisions`, `k11`, `k16` and their bases, the folder `policies/`; inputs, changes and fields that a program of 2 cannot read |
/// | 4 | devices prove who they are | `k2`, `k13` and their bases; inputs, changes and fields that a program of 3 cannot read |
pub const VERSION: u64 = 4;
/// Version of a journal entry.
const ENTRY_VERSION: u8 = 1;

/// Numbers of the site.
pub(super) const INFO: TableDefinition<'static, &str, u64> = TableDefinition::new("info");
/// Steps.
pub(super) const JOURNAL: TableDefinition<'static, u64, &[u8]> = TableDefinition::new("journal");
/// What is known of crashes of the core, by their signature.
pub(super) const CRASHES: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("crashes");
/// The newest decisions of policies, by slot and number.
pub(super) const DECISIONS: TableDefinition<'static, (u8, u64), &[u8]> = TableDefinition::new("decisions");

/// In `info`: the version of the directory.
pub(super) const FORMAT: &str = "format";
/// In `info`: number of the last boot.
pub(super) const BOOT: &str = "boot";
/// In `info`: the last entry that the base includes.
pub(super) const BASE: &str = "base";
/// In `info`: bytes of all entries of the journal.
pub(super) const JOURNAL_BYTES: &str = "journal_bytes";
/// In `info`: the last entry of the journal that a program of an earlier format wrote. What it decided, a later program
/// may decide otherwise.
pub(super) const EARLIER: &str = "earlier";

/// A table of records.
pub(super) type RowTable = TableDefinition<'static, &'static [u8], &'static [u8]>;

/// Records of a kind.
pub(super) fn table_of(kind: Kind) -> RowTable {
    TableDefinition::new(match kind {
        Kind::Meta => "k1",
        Kind::Device => "k2",
        Kind::Task => "k3",
        Kind::Episode => "k4",
        Kind::Job => "k5",
        Kind::Upload => "k7",
        Kind::Part => "k8",
        Kind::Policy => "k11",
        Kind::Token => "k13",
        Kind::Alias => "k14",
        Kind::Binding => "k15",
        Kind::Module => "k16",
    })
}

/// Records of a kind as of the journal's base.
pub(super) fn base_of(kind: Kind) -> RowTable {
    TableDefinition::new(match kind {
        Kind::Meta => "b1",
        Kind::Device => "b2",
        Kind::Task => "b3",
        Kind::Episode => "b4",
        Kind::Job => "b5",
        Kind::Upload => "b7",
        Kind::Part => "b8",
        Kind::Policy => "b11",
        Kind::Token => "b13",
        Kind::Alias => "b14",
        Kind::Binding => "b15",
        Kind::Module => "b16",
    })
}

/// Makes an empty store in an empty file, and closes it.
pub(super) fn create(backend: impl redb::StorageBackend) -> Result<(), StoreError> {
    let database = redb::Builder::new().create_with_backend(backend)?;
    let mut tx = database.begin_write()?;
    tx.set_durability(Durability::Immediate)?;
    for kind in Kind::ALL {
        tx.open_table(table_of(kind))?;
        tx.open_table(base_of(kind))?;
    }
    tx.open_table(JOURNAL)?;
    tx.open_table(CRASHES)?;
    tx.open_table(DECISIONS)?;
    tx.open_table(INFO)?.insert(FORMAT, VERSION)?;
    tx.commit()?;
    Ok(())
}

/// A number of the site, 0 if it was never written.
pub(super) fn read_info(database: &Database, word: &str) -> Result<u64, StoreError> {
    let tx = database.begin_read()?;
    Ok(tx.open_table(INFO)?.get(word)?.map_or(0, |n| n.value()))
}

/// The version of a database; `None` if it is none of ours.
pub(super) fn read_format(database: &Database) -> Result<Option<u64>, StoreError> {
    let tx = database.begin_read()?;
    match tx.open_table(INFO) {
        Ok(info) => Ok(info.get(FORMAT)?.map(|n| n.value())),
        Err(TableError::TableDoesNotExist(_) | TableError::TableTypeMismatch { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Bytes of an entry.
pub(super) fn write_entry(entry: &JournalEntry) -> Vec<u8> {
    let mut bytes = vec![ENTRY_VERSION];
    minicbor::encode(entry, &mut bytes).expect("writing to a vector cannot fail");
    bytes
}

/// Reads what [`write_entry`] wrote.
pub(super) fn read_entry(seq: u64, bytes: &[u8]) -> Result<JournalEntry, StoreError> {
    let bad = || StoreError::Entry(Seq(seq));
    let (version, body) = bytes.split_first().ok_or_else(bad)?;
    if *version != ENTRY_VERSION {
        return Err(bad());
    }
    minicbor::decode(body).map_err(|_| bad())
}
