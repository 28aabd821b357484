//! The power of one host: its disk and its sockets end together, at a moment that a test names. Counts and watches;
//! knows nothing of what is written or said.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What an operation asks of a disk. Reading asks for nothing that a crash could take back and is not counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DiskVerb {
    /// A name for a new file, or an old file emptied.
    Create,
    /// Bytes into a file.
    Write,
    /// Another length.
    SetLen,
    /// Content made durable.
    Sync,
    /// A file under another name.
    Rename,
    /// Names made durable.
    SyncDir,
    /// A new folder.
    CreateDir,
    /// A file or folder gone.
    Remove,
}

/// One operation of a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskOp {
    /// Counted from 1 over the whole life of the disk, power losses included.
    pub n: u64,
    /// What is asked.
    pub verb: DiskVerb,
    /// Of which file or folder; of a renaming, the new name.
    pub path: PathBuf,
}

/// Something that is about to happen on a host.
#[derive(Clone, Copy, Debug)]
pub enum Moment<'a> {
    /// An operation of its disk.
    Disk(&'a DiskOp),
    /// Bytes that are about to leave through one of its sockets: at most one segment.
    Send(&'a [u8]),
}

/// When the power fails, seen from a [`Moment`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Before anything of it happened.
    Before,
    /// While it happens: a disk operation may or may not have reached the disk, like everything that is not synced.
    /// Bytes do not leave.
    During,
}

/// Decides at each moment whether the power fails.
type Trigger = Box<dyn FnMut(Moment<'_>) -> Option<Cut> + Send>;

/// The power of one host. Clones are the same power.
#[derive(Clone, Default)]
pub struct Power {
    inside: Arc<Mutex<Inside>>,
}

#[derive(Default)]
struct Inside {
    out: bool,
    ops: u64,
    trigger: Option<Trigger>,
    log: Option<Vec<DiskOp>>,
}

impl fmt::Debug for Power {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inside = self.inside();
        f.debug_struct("Power").field("out", &inside.out).field("ops", &inside.ops).finish_non_exhaustive()
    }
}

impl Power {
    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks `trigger` at every moment from now on; the first `Some` ends the power. Replaces an earlier one.
    ///
    /// The trigger is asked in the middle of an operation of the host: it must not use its disk or its sockets.
    pub fn cut_when(&self, trigger: impl FnMut(Moment<'_>) -> Option<Cut> + Send + 'static) {
        self.inside().trigger = Some(Box::new(trigger));
    }

    /// Blows at the disk operation with this number: it is the first that is not done.
    pub fn fuse(&self, n: u64) {
        self.cut_when(move |moment| match moment {
            Moment::Disk(op) if op.n >= n => Some(Cut::During),
            Moment::Disk(_) | Moment::Send(_) => None,
        });
    }

    /// Takes the trigger away.
    pub fn hold(&self) {
        self.inside().trigger = None;
    }

    /// Whether the power has failed and nobody has turned it on again.
    #[must_use]
    pub fn is_out(&self) -> bool {
        self.inside().out
    }

    /// Operations so far, the one at which the power failed included.
    #[must_use]
    pub fn ops(&self) -> u64 {
        self.inside().ops
    }

    /// Writes down every operation from now on.
    pub fn record(&self) {
        self.inside().log = Some(Vec::new());
    }

    /// What was written down.
    #[must_use]
    pub fn recorded(&self) -> Vec<DiskOp> {
        self.inside().log.clone().unwrap_or_default()
    }

    /// The power is back, without a trigger.
    pub(super) fn turn_on(&self) {
        let mut inside = self.inside();
        inside.out = false;
        inside.trigger = None;
    }

    /// Whether anything can be done at all.
    pub(super) fn check(&self) -> io::Result<()> {
        if self.is_out() { Err(failed()) } else { Ok(()) }
    }

    /// Counts an operation. `Ok(true)`: do it, then fail; the power went meanwhile.
    pub(super) fn begin(&self, verb: DiskVerb, path: &Path) -> io::Result<bool> {
        let mut inside = self.inside();
        let inside = &mut *inside;
        if inside.out {
            return Err(failed());
        }
        inside.ops += 1;
        let op = DiskOp { n: inside.ops, verb, path: path.to_owned() };
        let cut = inside.trigger.as_mut().and_then(|trigger| trigger(Moment::Disk(&op)));
        inside.out = cut.is_some();
        if let Some(log) = &mut inside.log {
            log.push(op);
        }
        match cut {
            None => Ok(false),
            Some(Cut::During) => Ok(true),
            Some(Cut::Before) => Err(failed()),
        }
    }

    /// Whether these bytes leave.
    pub(super) fn lets_out(&self, bytes: &[u8]) -> bool {
        let mut inside = self.inside();
        let inside = &mut *inside;
        let cut = inside.trigger.as_mut().and_then(|trigger| trigger(Moment::Send(bytes)));
        inside.out |= cut.is_some();
        !inside.out
    }
}

pub(super) fn failed() -> io::Error {
    io::Error::other("the power failed")
}
