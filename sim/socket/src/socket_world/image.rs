//! What a disk holds and what a power loss leaves of it: files with their unsynced writes, names with their unsynced
//! changes. Knows no handles, no locks and no errors.
//!
//! A power loss keeps, of what was not synced, nothing, what was done before some moment, or a subset as real disks
//! leave one: each 512-byte sector of each write by itself, with a likelihood drawn per loss, sometimes a torn one;
//! each change of a length; each change of a name. A renaming within one folder is one change, as every journalling file
//! system has it; across folders the old name may stay beside the new one. None of them loses a file that has a name.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What of the unsynced survives a power loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Nothing.
    Nothing,
    /// Per file, the writes before some moment; of the names, the changes before some moment.
    Prefix {
        /// Chooses the moments.
        seed: u64,
    },
    /// Any of it: sectors, lengths and names each by themselves.
    Subset {
        /// Chooses which.
        seed: u64,
    },
}

/// Bytes that a disk writes as one.
pub const SECTOR: usize = 512;

/// How likely a sector, a length or a name is to survive: one of these, per power loss.
const LIKELIHOODS: [f64; 7] = [0.0, 0.02, 0.3, 0.5, 0.7, 0.98, 1.0];
/// One in so many sectors that survive is torn.
const TORN: u32 = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Node {
    Directory,
    File(u64),
}

/// A file.
#[derive(Clone, Debug, Default)]
pub(super) struct Content {
    pub(super) now: Vec<u8>,
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

    /// The same, as far as the disk came.
    fn partly_onto(&self, content: &mut Vec<u8>, rng: &mut fastrand::Rng, likely: f64) {
        let (at, bytes) = match self {
            Write::Length(_) => {
                if rng.f64() < likely {
                    self.onto(content);
                }
                return;
            }
            Write::Bytes { at, bytes } => (*at, bytes),
        };
        let grows = rng.f64() < likely;
        let mut from = 0;
        while from < bytes.len() {
            let to = (from + SECTOR - (at + from) % SECTOR).min(bytes.len());
            if rng.f64() < likely {
                let torn = rng.u32(..TORN) == 0;
                let len = if torn { rng.usize(..to - from) } else { to - from };
                let end = at + from + len;
                if end <= content.len() || grows {
                    Write::Bytes { at: at + from, bytes: bytes[from..from + len].to_vec() }.onto(content);
                }
            }
            from = to;
        }
    }
}

impl Content {
    pub(super) fn write(&mut self, at: usize, bytes: &[u8]) {
        self.change(Write::Bytes { at, bytes: bytes.to_vec() });
    }

    pub(super) fn set_len(&mut self, len: usize) {
        self.change(Write::Length(len));
    }

    fn change(&mut self, write: Write) {
        write.onto(&mut self.now);
        self.since.push(write);
    }

    pub(super) fn sync(&mut self) {
        for write in self.since.drain(..) {
            write.onto(&mut self.durable);
        }
    }

    fn lose_power(&mut self, draw: &mut Draw) {
        let since = std::mem::take(&mut self.since);
        match draw {
            Draw::Nothing => {}
            Draw::Prefix(rng) => {
                let kept = rng.usize(..=since.len());
                since[..kept].iter().for_each(|write| write.onto(&mut self.durable));
            }
            Draw::Subset(rng, likely) => {
                since.iter().for_each(|write| write.partly_onto(&mut self.durable, rng, *likely));
            }
        }
        self.now.clone_from(&self.durable);
    }
}

enum Draw {
    Nothing,
    Prefix(fastrand::Rng),
    Subset(fastrand::Rng, f64),
}

/// A change of names.
#[derive(Clone, Debug)]
enum Change {
    Link(PathBuf, Node),
    Unlink(PathBuf),
    Rename { from: PathBuf, to: PathBuf, node: Node },
}

impl Change {
    fn onto(&self, names: &mut BTreeMap<PathBuf, Node>) {
        match self {
            Change::Link(path, node) => {
                names.insert(path.clone(), *node);
            }
            Change::Unlink(path) => {
                names.remove(path);
            }
            Change::Rename { from, to, node } => {
                // The name may be another file's by now, if changes between the two were lost.
                if names.get(from) == Some(node) {
                    names.remove(from);
                }
                names.insert(to.clone(), *node);
            }
        }
    }
}

/// Everything on a disk.
#[derive(Debug, Default)]
pub(super) struct Image {
    next: u64,
    files: BTreeMap<u64, Content>,
    names: BTreeMap<PathBuf, Node>,
    durable_names: BTreeMap<PathBuf, Node>,
    since: Vec<Change>,
}

pub(super) fn is_root(path: &Path) -> bool {
    path.as_os_str().is_empty() || path == Path::new("/")
}

impl Image {
    pub(super) fn node(&self, path: &Path) -> Option<Node> {
        if is_root(path) { Some(Node::Directory) } else { self.names.get(path).copied() }
    }

    pub(super) fn content(&mut self, id: u64) -> Option<&mut Content> {
        self.files.get_mut(&id)
    }

    /// Paths directly below a folder, in order.
    pub(super) fn below<'a>(&'a self, folder: &'a Path) -> impl Iterator<Item = &'a Path> {
        self.names.keys().map(PathBuf::as_path).filter(move |path| path.parent() == Some(folder))
    }

    pub(super) fn create(&mut self, path: &Path) -> u64 {
        self.next += 1;
        self.files.insert(self.next, Content::default());
        self.change(Change::Link(path.to_owned(), Node::File(self.next)));
        self.next
    }

    pub(super) fn create_dir(&mut self, path: &Path) {
        self.change(Change::Link(path.to_owned(), Node::Directory));
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path, node: Node) {
        let (from, to) = (from.to_owned(), to.to_owned());
        self.change(Change::Rename { from, to, node });
    }

    pub(super) fn remove(&mut self, path: &Path) {
        self.change(Change::Unlink(path.to_owned()));
    }

    fn change(&mut self, change: Change) {
        change.onto(&mut self.names);
        self.since.push(change);
    }

    /// Makes the names in a folder durable; of what was renamed across folders, the name on this side.
    pub(super) fn sync_dir(&mut self, folder: &Path) {
        let here = |path: &Path| path.parent() == Some(folder);
        for change in std::mem::take(&mut self.since) {
            let left = match change {
                Change::Link(ref path, _) | Change::Unlink(ref path) if here(path) => {
                    change.onto(&mut self.durable_names);
                    None
                }
                Change::Rename { from, to, node } => match (here(&from), here(&to)) {
                    (true, true) => {
                        Change::Rename { from, to, node }.onto(&mut self.durable_names);
                        None
                    }
                    (false, true) => {
                        Change::Link(to, node).onto(&mut self.durable_names);
                        Some(Change::Unlink(from))
                    }
                    // The old name must not go before the new one is there: both become durable.
                    (true, false) => {
                        Change::Rename { from, to, node }.onto(&mut self.durable_names);
                        None
                    }
                    (false, false) => Some(Change::Rename { from, to, node }),
                },
                other => Some(other),
            };
            self.since.extend(left);
        }
    }

    /// The power fails.
    pub(super) fn lose_power(&mut self, keep: Keep) {
        let mut draw = match keep {
            Keep::Nothing => Draw::Nothing,
            Keep::Prefix { seed } => Draw::Prefix(fastrand::Rng::with_seed(seed)),
            Keep::Subset { seed } => {
                let mut rng = fastrand::Rng::with_seed(seed);
                let likely = LIKELIHOODS[rng.usize(..LIKELIHOODS.len())];
                Draw::Subset(rng, likely)
            }
        };
        self.files.values_mut().for_each(|content| content.lose_power(&mut draw));
        let since = std::mem::take(&mut self.since);
        match &mut draw {
            Draw::Nothing => {}
            Draw::Prefix(rng) => {
                let kept = rng.usize(..=since.len());
                since[..kept].iter().for_each(|change| change.onto(&mut self.durable_names));
            }
            Draw::Subset(rng, likely) => {
                for change in since {
                    if rng.f64() >= *likely {
                        continue;
                    }
                    match change {
                        Change::Rename { from, to, node }
                            if from.parent() != to.parent() && rng.f64() >= *likely =>
                        {
                            Change::Link(to, node).onto(&mut self.durable_names);
                        }
                        change => change.onto(&mut self.durable_names),
                    }
                }
            }
        }
        // A name below a folder that did not survive is unreachable, and so is a file without a name.
        let names = std::mem::take(&mut self.durable_names);
        self.names = names
            .iter()
            .filter(|(path, _)| path.ancestors().skip(1).all(|up| is_root(up) || names.contains_key(up)))
            .map(|(path, node)| (path.clone(), *node))
            .collect();
        self.durable_names.clone_from(&self.names);
        let named: Vec<Node> = self.names.values().copied().collect();
        self.files.retain(|id, _| named.contains(&Node::File(*id)));
    }

    /// Drops files that no name leads to: a process that held them open is gone.
    pub(super) fn forget_unnamed(&mut self) {
        let mut named: Vec<Node> = self.names.values().chain(self.durable_names.values()).copied().collect();
        named.extend(self.since.iter().filter_map(|change| match change {
            Change::Link(_, node) | Change::Rename { node, .. } => Some(*node),
            Change::Unlink(_) => None,
        }));
        self.files.retain(|id, _| named.contains(&Node::File(*id)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn survivors(seeds: u64, mut make: impl FnMut(&mut Image)) -> Vec<Image> {
        (0..seeds)
            .map(|seed| {
                let mut image = Image::default();
                make(&mut image);
                image.lose_power(Keep::Subset { seed });
                image
            })
            .collect()
    }

    fn bytes(image: &Image, path: &str) -> Option<Vec<u8>> {
        match image.names.get(Path::new(path)) {
            Some(Node::File(id)) => Some(image.files[id].now.clone()),
            Some(Node::Directory) | None => None,
        }
    }

    #[test]
    fn a_subset_keeps_sectors_lengths_and_names_each_by_themselves() {
        let images = survivors(400, |image| {
            let id = image.create(Path::new("/f"));
            image.sync_dir(Path::new("/"));
            let content = image.content(id).expect("it was just made");
            content.write(0, &[1; 4 * SECTOR]);
            content.sync();
            content.write(100, &[2; 6 * SECTOR]);
            image.create(Path::new("/g"));
        });
        let contents: Vec<Vec<u8>> =
            images.iter().map(|image| bytes(image, "/f").expect("its name was synced")).collect();
        let sector = |content: &[u8], n: usize| content[n * SECTOR + 100..(n + 1) * SECTOR].to_vec();
        let whole = |value: u8| vec![value; SECTOR - 100];
        let mixed = |c: &Vec<u8>| sector(c, 1) == whole(2) && sector(c, 2) == whole(1);
        assert!(contents.iter().any(mixed), "a later sector is lost and an earlier one kept");
        assert!(contents.iter().any(|c| sector(c, 1) == whole(1) && sector(c, 2) == whole(2)), "the reverse");
        let torn = |c: &Vec<u8>| c[SECTOR..2 * SECTOR].windows(2).any(|pair| pair == [2, 1]);
        assert!(contents.iter().any(torn), "a sector is torn");
        assert!(contents.iter().any(|c| c.len() == 4 * SECTOR), "the new length is lost");
        assert!(contents.iter().any(|c| c.len() > 4 * SECTOR), "the new length is kept");
        assert!(contents.iter().all(|c| c[..100] == [1; 100]), "what was synced and not written again stays");
        for kept in [false, true] {
            assert!(images.iter().any(|image| bytes(image, "/g").is_some() == kept), "name kept: {kept}");
        }
    }

    #[test]
    fn a_renaming_may_be_lost_but_loses_no_file() {
        let images = survivors(200, |image| {
            image.create_dir(Path::new("/a"));
            image.create_dir(Path::new("/b"));
            image.create(Path::new("/a/x"));
            image.create(Path::new("/a/y"));
            image.sync_dir(Path::new("/"));
            image.sync_dir(Path::new("/a"));
            let (x, y) = (image.node(Path::new("/a/x")), image.node(Path::new("/a/y")));
            image.rename(Path::new("/a/x"), Path::new("/b/x"), x.expect("it is there"));
            image.rename(Path::new("/a/y"), Path::new("/a/z"), y.expect("it is there"));
        });
        let mut seen = std::collections::BTreeSet::new();
        for image in &images {
            let has = |path| bytes(image, path).is_some();
            seen.insert((has("/a/x"), has("/b/x")));
            assert!(has("/a/x") || has("/b/x"), "a file that was renamed across folders is gone");
            assert!(has("/a/y") != has("/a/z"), "a renaming within a folder happens or does not");
        }
        assert_eq!(seen.len(), 3, "lost, done, and both names: {seen:?}");
    }

    #[test]
    fn a_prefix_keeps_no_later_change_without_the_earlier_ones() {
        for seed in 0..100 {
            let mut image = Image::default();
            for name in ["/1", "/2", "/3"] {
                image.create(Path::new(name));
            }
            image.lose_power(Keep::Prefix { seed });
            let has: Vec<bool> = ["/1", "/2", "/3"].iter().map(|n| bytes(&image, n).is_some()).collect();
            assert!(has.windows(2).all(|pair| pair[0] || !pair[1]), "{has:?}");
        }
    }
}
