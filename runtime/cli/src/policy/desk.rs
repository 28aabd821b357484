//! The files and programs on the desk of a policy's author. Owns every touch of them by `tidegate policy`, with errors
//! that say which file and what to do; knows nothing of policies.

use std::ffi::OsStr;
use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use crate::Failure;

/// Largest module or key that is read: above what any site takes, below what hurts a desk.
const FILE_MAX: u64 = 64 << 20;

/// The bytes of a file.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let failed = |error: std::io::Error| match error.kind() {
        ErrorKind::NotFound => Failure::failed(format!("there is no file {}", path.display())),
        _ => Failure::failed(format!("cannot read {}: {error}", path.display())),
    };
    let facts = fs::metadata(path).map_err(failed)?;
    if facts.is_dir() {
        return Err(Failure::failed(format!("{} is a directory, a file is needed", path.display())));
    }
    if facts.len() > FILE_MAX {
        return Err(Failure::failed(format!(
            "{} has {} bytes; more than {FILE_MAX} are not read",
            path.display(),
            facts.len()
        )));
    }
    fs::read(path).map_err(failed)
}

/// The text of a file; `-` is standard input.
pub(crate) fn read_text(path: &Path) -> Result<String, Failure> {
    if path == Path::new("-") {
        let mut text = String::new();
        let read = std::io::stdin().take(FILE_MAX).read_to_string(&mut text);
        read.map_err(|error| Failure::failed(format!("cannot read standard input: {error}")))?;
        return Ok(text);
    }
    String::from_utf8(read(path)?)
        .map_err(|_| Failure::failed(format!("{} is no text in UTF-8", path.display())))
}

/// Writes a file, in the place of what is there.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    fs::write(path, bytes).map_err(|error| cannot_write(path, &error))
}

/// Writes a file that nobody else may read. It must not be there yet.
pub(crate) fn write_secret(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    let mut file = options.open(path).map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => Failure::failed(format!(
            "{} is there already and stays as it is: use it with --key, or name another file",
            path.display()
        )),
        _ => cannot_write(path, &error),
    })?;
    file.write_all(bytes).map_err(|error| cannot_write(path, &error))
}

/// Whether others than the owner may read a file.
pub(crate) fn is_open_to_others(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|facts| facts.permissions().mode() & 0o077 != 0)
}

/// Makes a directory for something new: it must not be there, or be empty.
pub(crate) fn make_empty(dir: &Path) -> Result<(), Failure> {
    match fs::read_dir(dir) {
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(_) => Err(Failure::failed(format!(
                "{} is not empty: name a directory that is not there yet",
                dir.display()
            ))),
        },
        Err(error) if error.kind() == ErrorKind::NotFound => make(dir),
        Err(error) => Err(Failure::failed(format!("cannot use {}: {error}", dir.display()))),
    }
}

/// Makes a directory and those above it.
pub(crate) fn make(dir: &Path) -> Result<(), Failure> {
    fs::create_dir_all(dir).map_err(|error| cannot_write(dir, &error))
}

/// The files of a directory with this extension, sorted; none if there is no such directory.
pub(crate) fn files(dir: &Path, extension: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let mut found: Vec<PathBuf> = entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.is_file() && path.extension() == Some(OsStr::new(extension)))
        .collect();
    found.sort();
    found
}

fn cannot_write(path: &Path, error: &std::io::Error) -> Failure {
    Failure::failed(format!("cannot write {}: {error}", path.display()))
}

/// Whether there is such a file.
pub(crate) fn is_file(path: &Path) -> bool {
    path.is_file()
}

/// Whether there is such a directory.
pub(crate) fn is_directory(path: &Path) -> bool {
    path.is_dir()
}
