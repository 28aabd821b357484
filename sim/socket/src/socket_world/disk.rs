//! A disk in memory that can lose power: the [`Disk`] seam over an image. Content survives once it was synced, names
//! once their directory was; of the rest, what [`Keep`] says. Ends with its host's [`Power`].

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tidegate_runtime::seam::{Disk, DiskFile, Meta, Open};

use super::image::{Content, Image, Keep, Node, is_root};
use super::power::{self, DiskVerb, Power};

/// The disk of one host. Clones are the same disk.
#[derive(Clone, Debug, Default)]
pub struct SimDisk {
    inside: Arc<Mutex<Inside>>,
    power: Power,
}

#[derive(Debug, Default)]
struct Inside {
    /// Counts crashes: handles of an earlier life are dead.
    life: u64,
    image: Image,
    locked: BTreeMap<PathBuf, u64>,
    /// Whether a sync only says that it was done.
    lies: bool,
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

    /// The power of the host that this disk is in.
    #[must_use]
    pub fn power(&self) -> &Power {
        &self.power
    }

    /// From now on every sync answers at once and makes nothing durable, as bad disks do.
    pub fn lie_about_syncs(&self) {
        self.inside().lies = true;
    }

    /// The power fails, or comes back if it has failed already: every open handle is dead, locks are gone, and of
    /// what was not synced `keep` survives.
    pub fn lose_power(&self, keep: Keep) {
        let mut inside = self.inside();
        inside.end_life();
        inside.image.lose_power(keep);
        self.power.turn_on();
    }

    /// The process that used the disk was killed: every open handle is dead and locks are gone, but the system goes
    /// on and holds whatever was written. What was not synced still is not.
    pub fn kill(&self) {
        let mut inside = self.inside();
        inside.end_life();
        inside.image.forget_unnamed();
        self.power.turn_on();
    }

    /// Does one operation, unless the power is out or fails before it. If it fails meanwhile, a change is done and
    /// not synced, and a sync is not done.
    fn operate<T>(
        &self,
        verb: DiskVerb,
        path: &Path,
        work: impl FnOnce(&mut Inside) -> io::Result<T>,
    ) -> io::Result<T> {
        let dies = self.power.begin(verb, path)?;
        if dies && matches!(verb, DiskVerb::Sync | DiskVerb::SyncDir) {
            return Err(power::failed());
        }
        let done = work(&mut self.inside())?;
        if dies { Err(power::failed()) } else { Ok(done) }
    }

    fn look<T>(&self, work: impl FnOnce(&mut Inside) -> io::Result<T>) -> io::Result<T> {
        self.power.check()?;
        work(&mut self.inside())
    }

    fn opened(&self, inside: &Inside, id: u64, path: &Path) -> SimFile {
        SimFile { disk: self.clone(), life: inside.life, id, path: path.to_owned() }
    }
}

fn not_found() -> io::Error {
    io::ErrorKind::NotFound.into()
}

impl Inside {
    fn end_life(&mut self) {
        self.life += 1;
        self.locked.clear();
    }

    fn file(&self, path: &Path) -> io::Result<u64> {
        match self.image.node(path) {
            Some(Node::File(id)) => Ok(id),
            Some(Node::Directory) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(not_found()),
        }
    }

    fn directory(&self, path: &Path) -> io::Result<()> {
        match self.image.node(path) {
            Some(Node::Directory) => Ok(()),
            Some(Node::File(_)) => Err(io::ErrorKind::NotADirectory.into()),
            None => Err(not_found()),
        }
    }

    fn parent(&self, path: &Path) -> io::Result<()> {
        path.parent().map_or(Ok(()), |up| self.directory(up))
    }

    fn content(&mut self, id: u64) -> io::Result<&mut Content> {
        self.image.content(id).ok_or_else(not_found)
    }
}

/// An open file. Dead after a crash.
#[derive(Debug)]
pub struct SimFile {
    disk: SimDisk,
    life: u64,
    id: u64,
    path: PathBuf,
}

impl SimFile {
    fn content<'a>(&self, inside: &'a mut Inside) -> io::Result<&'a mut Content> {
        if inside.life != self.life {
            return Err(power::failed());
        }
        inside.content(self.id)
    }

    fn is_alive(&self) -> io::Result<()> {
        if self.disk.inside().life == self.life { Ok(()) } else { Err(power::failed()) }
    }
}

/// A lock on a file; gone when dropped or when the host crashes.
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
        let found = self.look(|inside| match inside.file(path) {
            Ok(id) => Ok(Some((id, self.opened(inside, id, path)))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => inside.parent(path).map(|()| None),
            Err(error) => Err(error),
        })?;
        match (found, how) {
            (Some(_), Open::CreateNew) => Err(io::ErrorKind::AlreadyExists.into()),
            (Some((id, file)), Open::Create) => {
                self.operate(DiskVerb::Create, path, |inside| {
                    inside.content(id)?.set_len(0);
                    Ok(())
                })?;
                Ok(file)
            }
            (Some((_, file)), Open::Read | Open::ReadWrite) => Ok(file),
            (None, Open::Create | Open::CreateNew) => self.operate(DiskVerb::Create, path, |inside| {
                let id = inside.image.create(path);
                Ok(self.opened(inside, id, path))
            }),
            (None, Open::Read | Open::ReadWrite) => Err(not_found()),
        }
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut missing = Vec::new();
        self.look(|inside| {
            for up in path.ancestors().filter(|up| !is_root(up)) {
                match inside.image.node(up) {
                    None => missing.push(up),
                    Some(Node::Directory) => {}
                    Some(Node::File(_)) => return Err(io::ErrorKind::NotADirectory.into()),
                }
            }
            Ok(())
        })?;
        for folder in missing.into_iter().rev() {
            self.operate(DiskVerb::CreateDir, folder, |inside| {
                inside.image.create_dir(folder);
                Ok(())
            })?;
        }
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.operate(DiskVerb::Rename, to, |inside| {
            let id = inside.file(from)?;
            inside.parent(to)?;
            inside.image.rename(from, to, Node::File(id));
            Ok(())
        })
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.look(|inside| inside.file(path))?;
        self.operate(DiskVerb::Remove, path, |inside| {
            inside.image.remove(path);
            Ok(())
        })
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.look(|inside| {
            inside.directory(path)?;
            let is_empty = inside.image.below(path).next().is_none();
            if is_empty { Ok(()) } else { Err(io::ErrorKind::DirectoryNotEmpty.into()) }
        })?;
        self.operate(DiskVerb::Remove, path, |inside| {
            inside.image.remove(path);
            Ok(())
        })
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.look(|inside| inside.directory(path))?;
        self.operate(DiskVerb::SyncDir, path, |inside| {
            if !inside.lies {
                inside.image.sync_dir(path);
            }
            Ok(())
        })
    }

    fn meta(&self, path: &Path) -> io::Result<Meta> {
        self.look(|inside| match inside.image.node(path) {
            Some(Node::Directory) => Ok(Meta { len: 0, is_dir: true, modified_ms: 0 }),
            Some(Node::File(id)) => {
                let len = inside.content(id)?.now.len() as u64;
                Ok(Meta { len, is_dir: false, modified_ms: 0 })
            }
            None => Err(not_found()),
        })
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        self.look(|inside| {
            inside.directory(path)?;
            let names = inside.image.below(path);
            Ok(names.filter_map(|below| below.file_name()?.to_str().map(str::to_owned)).collect())
        })
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
        self.look(|inside| if inside.image.node(path).is_some() { Ok(()) } else { Err(not_found()) })
    }
}

impl DiskFile for SimFile {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.disk.look(|inside| {
            let from = usize::try_from(offset).map_err(|_| io::ErrorKind::UnexpectedEof)?;
            let range = from..from.saturating_add(buf.len());
            let bytes = self.content(inside)?.now.get(range).ok_or(io::ErrorKind::UnexpectedEof)?;
            buf.copy_from_slice(bytes);
            Ok(())
        })
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.is_alive()?;
        self.disk.operate(DiskVerb::Write, &self.path, |inside| {
            let at = usize::try_from(offset).map_err(|_| io::ErrorKind::FileTooLarge)?;
            self.content(inside)?.write(at, buf);
            Ok(())
        })
    }

    fn len(&self) -> io::Result<u64> {
        self.disk.look(|inside| Ok(self.content(inside)?.now.len() as u64))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.is_alive()?;
        self.disk.operate(DiskVerb::SetLen, &self.path, |inside| {
            let len = usize::try_from(len).map_err(|_| io::ErrorKind::FileTooLarge)?;
            self.content(inside)?.set_len(len);
            Ok(())
        })
    }

    fn sync(&self) -> io::Result<()> {
        self.is_alive()?;
        self.disk.operate(DiskVerb::Sync, &self.path, |inside| {
            let lies = inside.lies;
            let content = self.content(inside)?;
            if !lies {
                content.sync();
            }
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

    #[test]
    fn a_fuse_ends_the_disk_at_its_operation_and_all_that_follow() {
        let disk = SimDisk::new();
        disk.power().fuse(3);
        let file = disk.open(Path::new("/f"), Open::CreateNew).expect("operation 1");
        file.write_all_at(b"one", 0).expect("operation 2");
        assert!(file.sync().is_err(), "operation 3");
        assert!(disk.power().is_out());
        assert!(file.len().is_err() && disk.list(Path::new("/")).is_err(), "not even reads");
        assert_eq!(disk.power().ops(), 3);
        disk.lose_power(Keep::Nothing);
        assert!(disk.list(Path::new("/")).expect("the power is back").is_empty());
    }

    #[test]
    fn a_change_under_the_fuse_is_one_of_the_unsynced() {
        let survived = |seed| {
            let disk = SimDisk::new();
            disk.power().fuse(1);
            assert!(disk.open(Path::new("/f"), Open::CreateNew).is_err());
            disk.lose_power(Keep::Prefix { seed });
            disk.meta(Path::new("/f")).is_ok()
        };
        let survived: Vec<bool> = (0..20).map(survived).collect();
        assert!(survived.contains(&true) && survived.contains(&false), "{survived:?}");
    }

    #[test]
    fn a_kill_keeps_what_was_written_and_still_lets_a_later_power_loss_take_it() {
        let disk = SimDisk::new();
        let file = disk.open(Path::new("/f"), Open::CreateNew).expect("a file");
        disk.sync_dir(Path::new("/")).expect("a sync");
        file.write_all_at(b"x", 0).expect("a write");
        disk.kill();
        assert!(file.len().is_err(), "a handle of the life before is dead");
        assert_eq!(disk.meta(Path::new("/f")).expect("it is there").len, 1);
        disk.lose_power(Keep::Nothing);
        assert_eq!(disk.meta(Path::new("/f")).expect("its name was synced").len, 0);
    }

    #[test]
    fn a_disk_that_lies_about_syncs_keeps_nothing() {
        let disk = SimDisk::new();
        disk.lie_about_syncs();
        let file = disk.open(Path::new("/f"), Open::CreateNew).expect("a file");
        file.sync().expect("so it says");
        disk.sync_dir(Path::new("/")).expect("so it says");
        disk.lose_power(Keep::Nothing);
        assert!(disk.meta(Path::new("/f")).is_err());
    }
}
