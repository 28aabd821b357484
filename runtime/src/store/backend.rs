//! The database's storage over a file of the seam. Adds nothing: every call is one call.

use std::io;

use redb::StorageBackend;

use crate::seam::DiskFile;

/// A file as the database wants it.
#[derive(Debug)]
pub(super) struct Backend<F>(pub(super) F);

impl<F: DiskFile> StorageBackend for Backend<F> {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(out, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_all_at(data, offset)
    }
}
