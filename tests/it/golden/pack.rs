//! A data directory as it is committed: each file by itself, compressed with gzip. Knows nothing of what is in it.

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;

/// Files below a folder, relative to it, sorted.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    fn walk(root: &Path, folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                walk(root, &path, found);
            } else {
                found.push(path.strip_prefix(root).expect("it lies below").to_owned());
            }
        }
    }
    let mut found = Vec::new();
    walk(folder, folder, &mut found);
    found.sort();
    found
}

/// Writes every file of `data` to `into`, locks left out: they are empty and nobody holds them.
pub fn pack(data: &Path, into: &Path) {
    for name in files(data) {
        if name.ends_with("lock") {
            continue;
        }
        let mut packed = GzEncoder::new(Vec::new(), Compression::best());
        packed.write_all(&fs::read(data.join(&name)).expect("a file of the directory")).expect("memory");
        let path = into.join(format!("{}.gz", name.display()));
        fs::create_dir_all(path.parent().expect("it lies in a folder")).expect("a folder");
        fs::write(path, packed.finish().expect("memory")).expect("a packed file");
    }
}

/// Writes what [`pack`] packed to `data`, which need not be there.
pub fn unpack(from: &Path, data: &Path) {
    for name in files(from) {
        let packed = fs::read(from.join(&name)).expect("a packed file");
        let mut bytes = Vec::new();
        GzDecoder::new(packed.as_slice()).read_to_end(&mut bytes).expect("it is gzip");
        let path = data.join(name.with_extension(""));
        fs::create_dir_all(path.parent().expect("it lies in a folder")).expect("a folder");
        fs::write(path, bytes).expect("a file of the directory");
    }
}
