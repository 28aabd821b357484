//! A disk in memory that can lose power. Content survives once it was synced, names once their directory was.
//!
//! Each file keeps what is durable and the writes since. A power loss keeps none of those, a prefix, or any subset, by
//! choice of the caller; the same goes for names that were created, renamed or removed and not yet synced.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tidegate_runtime::seam::{Disk, DiskFile, Meta, Open};

/// What of the unsynced survives a power loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Nothing.
    Nothing,
    /// Per file, the writes before some moment.
    Prefix {
        /// Chooses the moments.
        seed: u64,
    },
    /// Any of them.
    Subset {
        /// Chooses which.
        seed: u64,
    },
}

/// The disk of one host. Clones are the same disk.
#[derive(Clone, Debug, Default)]
pub struct SimDisk {
    inside: Arc<Mutex<Inside>>,
}

#[derive(Debug, Default)]
struct Inside {
    /// Counts power losses: handles of an earlier life are dead.
    life: u64,
    next: u64,
    files: BTreeMap<u64, Content>,
    names: BTreeMap<PathBuf, Node>,
    durable_names: BTreeMap<PathBuf, Node>,
    locked: BTreeMap<PathBuf, u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Node {
    Directory,
    File(u64),
}

#[derive(Clone, Debug, Default)]
struct Content {
    now: Vec<u8>,
    durable: Vec<u8>,
    since: Vec<Write>,
}

#[derive(Clone, Debug)]
enum Write {
    Bytes { at: usize, bytes: Vec<u8> },
    Length(usize),
}

impl Write {
    fn onto(&self, content: &mut Vec<u8>) {
        match self {
            Write::Bytes { at, bytes } => {
                let end = at + bytes.len();
                if content.len() < end {
                    content.resize(end, 0);
                }
                content[*at..end].copy_from_slice(bytes);
            }
            Write::Length(len) => content.resize(*len, 0),
        }
    }
}

impl SimDisk {
    /// An empty disk.
    #[must_use]
    pub fn new() -> SimDisk {
        SimDisk::default()
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The power fails: every open handle is dead, locks are gone, and of what was not synced `keep` survives.
    pub fn lose_power(&self, keep: Keep) {
        let mut inside = self.inside();
        let inside = &mut *inside;
        inside.life += 1;
        inside.locked.clear();
        let mut rng = match keep {
            Keep::Nothing => None,
            Keep::Prefix { seed } | Keep::Subset { seed } => Some(fastrand::Rng::with_seed(seed)),
        };
        for content in inside.files.values_mut() {
            let mut survived = std::mem::take(&mut content.durable);
            let kept = match (&mut rng, keep) {
                (Some(rng), Keep::Prefix { .. }) => rng.usize(..=content.since.len()),
                (Some(_), Keep::Subset { .. }) => content.since.len(),
                (Some(_) | None, _) => 0,
            };
            for write in &content.since[..kept] {
                if !matches!(keep, Keep::Subset { .. }) || rng.as_mut().is_some_and(fastrand::Rng::bool) {
                    write.onto(&mut survived);
                }
            }
            *content = Content { now: survived.clone(), durable: survived, since: Vec::new() };
        }
        let changed: Vec<PathBuf> = inside
            .names
            .keys()
            .chain(inside.durable_names.keys())
            .filter(|path| inside.names.get(*path) != inside.durable_names.get(*path))
            .cloned()
            .collect();
        for path in changed {
            if matches!(keep, Keep::Subset { .. }) && rng.as_mut().is_some_and(fastrand::Rng::bool) {
                match inside.names.get(&path) {
                    Some(node) => inside.durable_names.insert(path, *node),
                    None => inside.durable_names.remove(&path),
                };
            }
        }
        // A name below a directory that did not survive is unreachable.
        let names = inside.durable_names.clone();
        inside.names = names
            .iter()
            .filter(|(path, _)| path.ancestors().skip(1).all(|up| is_root(up) || names.contains_key(up)))
            .map(|(path, node)| (path.clone(), *node))
            .collect();
        inside.durable_names = inside.names.clone();
    }
}

fn is_root(path: &Path) -> bool {
    path.as_os_str().is_empty() || path == Path::new("/")
}

fn not_found() -> io::Error {
    io::ErrorKind::NotFound.into()
}

impl Inside {
    fn file(&self, path: &Path) -> io::Result<u64> {
        match self.names.get(path) {
            Some(Node::File(id)) => Ok(*id),
            Some(Node::Directory) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(not_found()),
        }
    }

    fn has_parent(&self, path: &Path) -> bool {
        path.parent().is_none_or(|up| is_root(up) || self.names.get(up) == Some(&Node::Directory))
    }
}

/// An open file. Dead after a power loss.
#[derive(Debug)]
pub struct SimFile {
    disk: SimDisk,
    life: u64,
    id: u64,
}

impl SimFile {
    fn with<T>(&self, work: impl FnOnce(&mut Content) -> io::Result<T>) -> io::Result<T> {
        let mut inside = self.disk.inside();
        if inside.life != self.life {
            return Err(io::Error::other("the power failed"));
        }
        work(inside.files.get_mut(&self.id).ok_or_else(not_found)?)
    }
}

/// A lock on a file; gone when dropped or when the power fails.
#[derive(Debug)]
pub struct SimLock {
    disk: SimDisk,
    life: u64,
    path: PathBuf,
}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut inside = self.disk.inside();
        if inside.life == self.life {
            inside.locked.remove(&self.path);
        }
    }
}

impl Disk for SimDisk {
    type File = SimFile;
    type Lock = SimLock;

    fn open(&self, path: &Path, how: Open) -> io::Result<SimFile> {
        let mut inside = self.inside();
        let id = match (inside.file(path), how) {
            (Ok(_), Open::CreateNew) => return Err(io::ErrorKind::AlreadyExists.into()),
            (Ok(id), Open::Create) => {
                let content = inside.files.get_mut(&id).ok_or_else(not_found)?;
                content.now.clear();
                content.since.push(Write::Length(0));
                id
            }
            (Ok(id), Open::Read | Open::ReadWrite) => id,
            (Err(error), Open::Create | Open::CreateNew) if error.kind() == io::ErrorKind::NotFound => {
                if !inside.has_parent(path) {
                    return Err(not_found());
                }
                inside.next += 1;
                let id = inside.next;
                inside.files.insert(id, Content::default());
                inside.names.insert(path.to_path_buf(), Node::File(id));
                id
            }
            (Err(error), _) => return Err(error),
        };
        Ok(SimFile { disk: self.clone(), life: inside.life, id })
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut inside = self.inside();
        for up in path.ancestors().filter(|up| !is_root(up)) {
            if let Some(Node::File(_)) = inside.names.get(up) {
                return Err(io::ErrorKind::NotADirectory.into());
            }
            inside.names.insert(up.to_path_buf(), Node::Directory);
        }
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut inside = self.inside();
        let id = inside.file(from)?;
        if !inside.has_parent(to) {
            return Err(not_found());
        }
        inside.names.remove(from);
        inside.names.insert(to.to_path_buf(), Node::File(id));
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut inside = self.inside();
        inside.file(path)?;
        inside.names.remove(path);
        Ok(())
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        let mut inside = self.inside();
        if inside.names.get(path) != Some(&Node::Directory) {
            return Err(not_found());
        }
        if inside.names.keys().any(|other| other.parent() == Some(path)) {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        inside.names.remove(path);
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut inside = self.inside();
        if !is_root(path) && inside.names.get(path) != Some(&Node::Directory) {
            return Err(not_found());
        }
        let now: Vec<(PathBuf, Node)> = inside
            .names
            .iter()
            .filter(|(p, _)| p.parent() == Some(path))
            .map(|(p, n)| (p.clone(), *n))
            .collect();
        inside.durable_names.retain(|p, _| p.parent() != Some(path));
        inside.durable_names.extend(now);
        Ok(())
    }

    fn meta(&self, path: &Path) -> io::Result<Meta> {
        let inside = self.inside();
        match inside.names.get(path) {
            Some(Node::Directory) => Ok(Meta { len: 0, is_dir: true, modified_ms: 0 }),
            Some(Node::File(id)) => {
                let len = inside.files.get(id).ok_or_else(not_found)?.now.len() as u64;
                Ok(Meta { len, is_dir: false, modified_ms: 0 })
            }
            None => Err(not_found()),
        }
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let inside = self.inside();
        if !is_root(path) && inside.names.get(path) != Some(&Node::Directory) {
            return Err(not_found());
        }
        let below = inside.names.keys().filter(|p| p.parent() == Some(path));
        Ok(below.filter_map(|p| p.file_name()?.to_str().map(str::to_owned)).collect())
    }

    fn lock(&self, path: &Path) -> io::Result<SimLock> {
        drop(match self.open(path, Open::ReadWrite) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.open(path, Open::CreateNew)?,
            other => other?,
        });
        let mut inside = self.inside();
        let life = inside.life;
        if inside.locked.contains_key(path) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        inside.locked.insert(path.to_path_buf(), life);
        Ok(SimLock { disk: self.clone(), life, path: path.to_path_buf() })
    }

    fn free_bytes(&self, _path: &Path) -> Option<u64> {
        None
    }

    fn restrict_to_owner(&self, path: &Path) -> io::Result<()> {
        if self.inside().names.contains_key(path) { Ok(()) } else { Err(not_found()) }
    }
}

impl DiskFile for SimFile {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.with(|content| {
            let from = usize::try_from(offset).map_err(|_| io::ErrorKind::UnexpectedEof)?;
            let bytes =
                content.now.get(from..from.saturating_add(buf.len())).ok_or(io::ErrorKind::UnexpectedEof)?;
            buf.copy_from_slice(bytes);
            Ok(())
        })
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.with(|content| {
            let at = usize::try_from(offset).map_err(|_| io::ErrorKind::FileTooLarge)?;
            let write = Write::Bytes { at, bytes: buf.to_vec() };
            write.onto(&mut content.now);
            content.since.push(write);
            Ok(())
        })
    }

    fn len(&self) -> io::Result<u64> {
        self.with(|content| Ok(content.now.len() as u64))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.with(|content| {
            let write = Write::Length(usize::try_from(len).map_err(|_| io::ErrorKind::FileTooLarge)?);
            write.onto(&mut content.now);
            content.since.push(write);
            Ok(())
        })
    }

    fn sync(&self) -> io::Result<()> {
        self.with(|content| {
            content.durable.clone_from(&content.now);
            content.since.clear();
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_power_loss_keeps_what_was_synced_and_drops_what_was_not() {
        let disk = SimDisk::new();
        disk.create_dir_all(Path::new("/d")).expect("a directory");
        disk.sync_dir(Path::new("/")).expect("the root");
        let file = disk.open(Path::new("/d/f"), Open::CreateNew).expect("a file");
        file.write_all_at(b"durable", 0).expect("a write");
        file.sync().expect("a sync");
        disk.sync_dir(Path::new("/d")).expect("a sync");
        file.write_all_at(b"LOST", 0).expect("a write");
        drop(disk.open(Path::new("/d/unsynced"), Open::CreateNew).expect("a file"));

        disk.lose_power(Keep::Nothing);

        assert!(file.sync().is_err(), "a handle of the life before is dead");
        let again = disk.open(Path::new("/d/f"), Open::Read).expect("the name was synced");
        let mut read = [0; 7];
        again.read_exact_at(&mut read, 0).expect("seven bytes");
        assert_eq!(&read, b"durable");
        assert_eq!(disk.list(Path::new("/d")).expect("a listing"), ["f"]);
    }

    #[test]
    fn a_lock_is_exclusive_until_it_is_dropped_or_the_power_fails() {
        let disk = SimDisk::new();
        let first = disk.lock(Path::new("/lock")).expect("the first takes it");
        assert_eq!(disk.lock(Path::new("/lock")).expect_err("taken").kind(), io::ErrorKind::WouldBlock);
        drop(first);
        let second = disk.lock(Path::new("/lock")).expect("free again");
        disk.lose_power(Keep::Nothing);
        let third = disk.lock(Path::new("/lock")).expect("nobody holds it after a power loss");
        drop(second);
        assert!(disk.lock(Path::new("/lock")).is_err(), "a dead lock does not unlock a living one");
        drop(third);
    }

    #[test]
    fn a_rename_survives_once_its_directory_is_synced() {
        let disk = SimDisk::new();
        let file = disk.open(Path::new("/new.tmp"), Open::CreateNew).expect("a file");
        file.write_all_at(b"x", 0).expect("a write");
        file.sync().expect("a sync");
        disk.rename(Path::new("/new.tmp"), Path::new("/new")).expect("a rename");
        disk.lose_power(Keep::Nothing);
        assert!(disk.list(Path::new("/")).expect("a listing").is_empty());
    }
}
