//! The database's storage over a file of the seam. [`Backend`] adds nothing: every call is one call. [`Held`] keeps
//! what is written in memory until somebody decides that the file may be written to.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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

/// A file that is not written to before [`Held::release`]. Opening a database writes: a mark that it is open, and after
/// a crash its repair. Until then these writes are kept here and read from here; dropped without release, they are gone
/// and the file is as it was. Clones are one file.
#[derive(Debug)]
pub(super) struct Held<F>(Arc<Inside<F>>);

#[derive(Debug)]
struct Inside<F> {
    file: F,
    /// Whether calls go straight to the file.
    free: AtomicBool,
    kept: Mutex<Kept>,
}

#[derive(Debug)]
struct Kept {
    /// Bytes of the file, were it written to.
    len: u64,
    /// Of those at the front, bytes that no change of length ever cut off: they may be read from the file.
    solid: u64,
    calls: Vec<Call>,
}

#[derive(Debug)]
enum Call {
    Write { at: u64, bytes: Vec<u8> },
    Length(u64),
    Sync,
}

impl<F> Clone for Held<F> {
    fn clone(&self) -> Held<F> {
        Held(self.0.clone())
    }
}

impl<F: DiskFile> Held<F> {
    /// Holds a file.
    ///
    /// # Errors
    /// If its length cannot be read.
    pub(super) fn new(file: F) -> io::Result<Held<F>> {
        let len = file.len()?;
        let kept = Mutex::new(Kept { len, solid: len, calls: Vec::new() });
        Ok(Held(Arc::new(Inside { file, free: AtomicBool::new(false), kept })))
    }

    /// Does what was kept, in its order, and everything from now on at once.
    ///
    /// # Errors
    /// Those of the disk; the file may then have a part of it, as after a crash, and stays held.
    pub(super) fn release(&self) -> io::Result<()> {
        let mut kept = self.kept();
        for call in kept.calls.drain(..) {
            match call {
                Call::Write { at, bytes } => self.0.file.write_all_at(&bytes, at)?,
                Call::Length(len) => self.0.file.set_len(len)?,
                Call::Sync => self.0.file.sync()?,
            }
        }
        self.0.free.store(true, Ordering::Release);
        Ok(())
    }

    /// The file, if it is free; else what is kept for it.
    fn either(&self) -> Result<&F, MutexGuard<'_, Kept>> {
        if self.0.free.load(Ordering::Acquire) {
            return Ok(&self.0.file);
        }
        let kept = self.kept();
        // It may have been freed while this call waited.
        if self.0.free.load(Ordering::Acquire) { Ok(&self.0.file) } else { Err(kept) }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<F: DiskFile> StorageBackend for Held<F> {
    fn len(&self) -> io::Result<u64> {
        match self.either() {
            Ok(file) => file.len(),
            Err(kept) => Ok(kept.len),
        }
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        match self.either() {
            Ok(file) => file.read_exact_at(out, offset),
            Err(kept) => kept.read(&self.0.file, offset, out),
        }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        match self.either() {
            Ok(file) => file.set_len(len),
            Err(mut kept) => {
                kept.len = len;
                kept.solid = kept.solid.min(len);
                kept.calls.push(Call::Length(len));
                Ok(())
            }
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        match self.either() {
            Ok(file) => file.sync(),
            Err(mut kept) => {
                kept.calls.push(Call::Sync);
                Ok(())
            }
        }
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        match self.either() {
            Ok(file) => file.write_all_at(data, offset),
            Err(mut kept) => {
                kept.len = kept.len.max(offset + data.len() as u64);
                kept.calls.push(Call::Write { at: offset, bytes: data.to_vec() });
                Ok(())
            }
        }
    }
}

impl Kept {
    fn read(&self, file: &impl DiskFile, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let end = offset + out.len() as u64;
        if end > self.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        out.fill(0);
        let solid = span(offset, out.len(), 0, self.solid);
        file.read_exact_at(&mut out[solid.clone()], offset + solid.start as u64)?;
        for call in &self.calls {
            match call {
                Call::Write { at, bytes } => {
                    let into = span(offset, out.len(), *at, at + bytes.len() as u64);
                    if !into.is_empty() {
                        let from = index(offset + into.start as u64 - at);
                        out[into.clone()].copy_from_slice(&bytes[from..from + into.len()]);
                    }
                }
                Call::Length(len) => {
                    let cut = span(offset, out.len(), *len, u64::MAX);
                    out[cut].fill(0);
                }
                Call::Sync => {}
            }
        }
        Ok(())
    }
}

/// Which bytes of a piece of `len` bytes at `offset` lie in `from..to` of the file.
fn span(offset: u64, len: usize, from: u64, to: u64) -> std::ops::Range<usize> {
    let within = |at: u64| index(at.saturating_sub(offset).min(len as u64));
    let (start, end) = (within(from), within(to));
    start..end.max(start)
}

fn index(bytes: u64) -> usize {
    usize::try_from(bytes).expect("it is below the length of a slice")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that panics has failed, which is what it is for")]

    use super::*;
    use crate::real::RealDisk;
    use crate::seam::{Disk, Open};

    #[test]
    fn a_held_file_reads_what_was_written_to_it_and_is_itself_untouched_until_it_is_released() {
        let dir = tempfile::tempdir().unwrap();
        let mut rng = fastrand::Rng::with_seed(7);
        for round in 0..300 {
            let path = dir.path().join(round.to_string());
            let mut before = vec![0; rng.usize(0..40)];
            rng.fill(&mut before);
            std::fs::write(&path, &before).unwrap();
            let mut model = before.clone();
            let held = Held::new(RealDisk.open(&path, Open::ReadWrite).unwrap()).unwrap();
            for _ in 0..rng.usize(0..12) {
                match rng.u8(0..4) {
                    0 => {
                        let len = rng.usize(0..60);
                        model.resize(len, 0);
                        held.set_len(len as u64).unwrap();
                    }
                    1 => held.sync_data().unwrap(),
                    _ => {
                        let (at, len) = (rng.usize(0..50), rng.usize(1..20));
                        let bytes: Vec<u8> = (0..len).map(|_| rng.u8(..)).collect();
                        model.resize(model.len().max(at + len), 0);
                        model[at..at + len].copy_from_slice(&bytes);
                        held.write(at as u64, &bytes).unwrap();
                    }
                }
                let from = rng.usize(0..=model.len());
                let to = rng.usize(from..=model.len());
                let mut read = vec![0xEE; to - from];
                held.read(from as u64, &mut read).unwrap();
                assert_eq!(read, model[from..to], "round {round}, {from}..{to}");
                assert_eq!(held.len().unwrap(), model.len() as u64);
            }
            assert!(held.read(model.len() as u64, &mut [0]).is_err(), "beyond the end");
            assert_eq!(std::fs::read(&path).unwrap(), before, "round {round}: nobody released it");
            held.clone().release().unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), model, "round {round}");
            held.write(0, b"!").unwrap();
            assert_eq!(std::fs::read(&path).unwrap()[0], b'!', "from now on at once");
        }
    }
}
