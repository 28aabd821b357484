//! Owns the way from a route to committed rows: snapshots of the store, read where blocking is allowed.

use std::ops::ControlFlow;
use std::sync::Arc;

use tidegate_core::policy::Slot;
use tidegate_core::row::{Key, Kind, Row};
use tokio::sync::oneshot;

use super::error::{Answer, refused};
use crate::object::Boxed;
use crate::seam::Blocking;
use tidegate_core::refusal::Refusal;

/// Committed rows, from outside the driver.
pub trait Reads: Send + Sync + 'static {
    /// The rows as of now, for reads that belong together. Blocks.
    ///
    /// # Errors
    /// [`Unreadable`].
    fn snapshot(&self) -> Result<Box<dyn Snapshot>, Unreadable>;
}

/// Rows at one moment. Reads block on the disk for what is not cached.
pub trait Snapshot {
    /// One row; `None` is not there.
    ///
    /// # Errors
    /// [`Unreadable`].
    fn get(&self, key: &Key) -> Result<Option<Row>, Unreadable>;

    /// The newest `most` recorded decisions of a slot, oldest of them first: one line of JSON each.
    ///
    /// # Errors
    /// [`Unreadable`].
    fn decisions(&self, slot: Slot, most: usize) -> Result<Vec<Vec<u8>>, Unreadable>;

    /// Shows the rows of a kind in the order of their keys, or against it, until `each` breaks.
    ///
    /// # Errors
    /// [`Unreadable`].
    fn walk(
        &self,
        kind: Kind,
        reverse: bool,
        each: &mut dyn FnMut(Key, Row) -> ControlFlow<()>,
    ) -> Result<(), Unreadable>;
}

/// Why rows cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// The site stopped.
    Closed,
    /// The store failed: its own words, for the log.
    Broken(String),
}

impl From<Unreadable> for Answer {
    fn from(why: Unreadable) -> Answer {
        match why {
            Unreadable::Closed => refused(&Refusal::Stopping),
            Unreadable::Broken(words) => {
                tracing::error!(error = %words, "the store cannot be read");
                Answer::internal("the store cannot be read; see the log")
            }
        }
    }
}

/// A piece of blocking work.
pub type Job = Box<dyn FnOnce() + Send>;

/// Runs work where blocking is allowed. The seam's [`Blocking`], without its type.
pub type Runner = Arc<dyn Fn(Job) -> Boxed<'static, ()> + Send + Sync>;

/// The runner of a seam.
#[must_use]
pub fn runner(blocking: impl Blocking) -> Runner {
    Arc::new(move |job| {
        let blocking = blocking.clone();
        Box::pin(async move { blocking.run(job).await })
    })
}

/// Runs `work` on a snapshot where blocking is allowed.
pub(crate) async fn read<T: Send + 'static>(
    reads: Arc<dyn Reads>,
    runner: &Runner,
    work: impl FnOnce(&dyn Snapshot) -> Result<T, Answer> + Send + 'static,
) -> Result<T, Answer> {
    blocking(runner, move || reads.snapshot().map_err(Answer::from).and_then(|snapshot| work(&*snapshot)))
        .await?
}

/// Runs `work` where blocking is allowed.
pub(super) async fn blocking<T: Send + 'static>(
    runner: &Runner,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Answer> {
    let (answer, answered) = oneshot::channel();
    let job = move || {
        // Nobody waits any more if the client went away.
        let _ = answer.send(work());
    };
    runner(Box::new(job)).await;
    answered.await.map_err(|_| Answer::internal("work on a request ended early"))
}
