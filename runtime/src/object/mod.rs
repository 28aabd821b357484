//! Object operations: who executes them. Retries nothing and decides nothing.

pub mod checksum;
pub mod edge;
pub mod executor;
pub mod inspect;
pub mod reduce;
pub mod sidecar;

use std::future::Future;
use std::io;
use std::pin::Pin;

use bytes::Bytes;
use tidegate_core::id::ObjectKey;
use tidegate_core::object::{ObjectReply, Span, Verb};
use tidegate_core::outcome::{Fault, Outcome, What};

/// A boxed future.
pub type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A store that executes the core's operations, once each.
pub trait ObjectStore: Send + Sync + 'static {
    /// Executes one operation. Ends within the store's own attempt timeout: `Unknown` if no answer came.
    fn run<'a>(&'a self, key: &'a ObjectKey, verb: &'a Verb) -> Boxed<'a, Outcome<ObjectReply>>;
}

/// Reads recordings at the edge, for uploads.
pub trait SourceRead: Send + Sync + 'static {
    /// Bytes of the whole object; `NotFound` if it is not there.
    fn len<'a>(&'a self, key: &'a ObjectKey) -> Boxed<'a, io::Result<u64>>;
    /// Exactly the bytes of a span; `UnexpectedEof` if the object is shorter.
    fn read<'a>(&'a self, key: &'a ObjectKey, span: Span) -> Boxed<'a, io::Result<Bytes>>;
}

/// What a failed read says of the thing that was read: gone, shorter than it was, or the disk's own word.
#[must_use]
pub fn disk_fault(kind: io::ErrorKind, what: What) -> Fault {
    match kind {
        io::ErrorKind::NotFound => Fault::Vanished(what),
        io::ErrorKind::UnexpectedEof => Fault::Damaged(what),
        other => Fault::Local(other.to_string()),
    }
}
