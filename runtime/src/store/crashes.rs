//! The table of inputs that made the core panic. Bytes in, bytes out, each write a transaction of its own: it is written
//! when the machine is gone, and holds nothing that a replay needs.

use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableError};

use super::format::CRASHES;
use super::{Archive, Store, StoreError};

/// Records, each under its signature.
pub type CrashRecords = Vec<(Vec<u8>, Vec<u8>)>;

fn read(database: &Database) -> Result<CrashRecords, StoreError> {
    let tx = database.begin_read()?;
    let table = match tx.open_table(CRASHES) {
        Ok(table) => table,
        // Stores of before have none, and none is made as long as nothing panics.
        Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let mut all = Vec::new();
    for item in table.iter()? {
        let (signature, record) = item?;
        all.push((signature.value().to_vec(), record.value().to_vec()));
    }
    Ok(all)
}

impl Archive {
    /// Every record, by signature.
    ///
    /// # Errors
    /// Those of the database.
    pub fn crashes(&self) -> Result<CrashRecords, StoreError> {
        read(&self.inner.database)
    }
}

impl Store {
    /// Every record, by signature.
    ///
    /// # Errors
    /// Those of the database.
    pub fn crashes(&self) -> Result<CrashRecords, StoreError> {
        read(&self.inner.database)
    }

    /// Writes records, durably; `None` is removed.
    ///
    /// # Errors
    /// Those of the database.
    pub fn write_crashes(&self, records: &[(Vec<u8>, Option<Vec<u8>>)]) -> Result<(), StoreError> {
        let mut tx = self.inner.database.begin_write()?;
        tx.set_durability(Durability::Immediate)?;
        {
            let mut table = tx.open_table(CRASHES)?;
            for (signature, record) in records {
                match record {
                    Some(record) => table.insert(signature.as_slice(), record.as_slice())?,
                    None => table.remove(signature.as_slice())?,
                };
            }
        }
        tx.commit()?;
        Ok(())
    }
}
