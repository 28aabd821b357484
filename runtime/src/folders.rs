//! Owns the making of folders whose names survive a power loss. Knows nothing of what goes into them.

use std::io;
use std::path::{Path, PathBuf};

use crate::seam::Disk;

/// Makes a folder and those above it that are missing, and makes their names durable, up to the first that was there.
///
/// # Errors
/// Those of the disk.
pub(crate) fn create<D: Disk>(disk: &D, folder: &Path) -> io::Result<()> {
    let missing = folder.ancestors().take_while(|folder| disk.meta(folder).is_err());
    let parents: Vec<PathBuf> = missing.filter_map(|folder| folder.parent().map(Path::to_path_buf)).collect();
    disk.create_dir_all(folder)?;
    for parent in parents {
        let here = parent.as_os_str().is_empty();
        disk.sync_dir(if here { Path::new(".") } else { &parent })?;
    }
    Ok(())
}
