//! Owns what is written while steps go on: journal entries that changed no record. Nobody was told anything that hangs on
//! them, so nobody has to wait for the disk; what changes a record waits for them, and keeps the order of the journal.
//!
//! A disk that is busy with other things takes seconds for a flush at times. States of devices that come in meanwhile are
//! told at once all the same, and a fleet that comes back is let in.

use std::pin::Pin;
use std::time::Duration;

use futures_util::FutureExt;

use super::{Engine, FLUSH_ENTRIES};
use crate::seam::{Blocking, Clock};
use crate::store::{Batch, Committed, StoreError};

/// Entries that may wait while others are being written. One that is beyond waits for the disk, so that a disk that takes
/// nothing does not fill the memory: some eight megabytes of usual entries.
const WAITING_MAX: usize = 16 * FLUSH_ENTRIES;

/// How a write ended, and how long it took.
pub(super) type Written = (Result<Committed, StoreError>, Duration);

/// Entries that are being written.
pub(super) struct Behind {
    entries: u64,
    work: Pin<Box<dyn Future<Output = Written> + Send>>,
}

impl Behind {
    /// Waits until they are written. Dropping the future loses nothing.
    pub(super) async fn ended(&mut self) -> Written {
        self.work.as_mut().await
    }
}

impl<C: Clock, B: Blocking> Engine<C, B> {
    /// How many entries are on their way, which the store does not count yet.
    pub(super) fn entries_behind(&self) -> u64 {
        self.behind.as_ref().map_or(0, |behind| behind.entries)
    }

    /// Has the batch, which changed no record, written. One at a time: while others are on their way it waits for them, in
    /// memory as long as there is room.
    pub(super) async fn write_behind(&mut self) -> Result<(), StoreError> {
        self.look_behind()?;
        if self.behind.is_some() {
            if self.batch.entries.len() < WAITING_MAX {
                return Ok(());
            }
            self.catch_up().await?;
        }
        let batch: Batch = self.take_batch();
        let entries = batch.entries.len() as u64;
        let (commit, clock) = (self.store.prepare(batch), self.clock.clone());
        let blocking = self.blocking.clone();
        let work = Box::pin(async move {
            let write = move || {
                let begun = clock.now().mono;
                let written = commit.run();
                (written, begun.until(clock.now().mono))
            };
            blocking.run(write).await
        });
        self.behind = Some(Behind { entries, work });
        // Begins it. Under a simulation it has ended now.
        self.look_behind()
    }

    /// Waits until nothing is on its way.
    pub(super) async fn catch_up(&mut self) -> Result<(), StoreError> {
        match self.behind.as_mut() {
            Some(behind) => {
                let written = behind.ended().await;
                self.take_written(written)
            }
            None => Ok(()),
        }
    }

    fn look_behind(&mut self) -> Result<(), StoreError> {
        match self.behind.as_mut().and_then(|behind| behind.work.as_mut().now_or_never()) {
            Some(written) => self.take_written(written),
            None => Ok(()),
        }
    }

    /// What was on its way is written, or failed.
    pub(super) fn take_written(&mut self, (written, took): Written) -> Result<(), StoreError> {
        let entries = self.entries_behind();
        self.behind = None;
        self.store.committed(written?);
        self.count_commit(entries, took);
        Ok(())
    }
}
