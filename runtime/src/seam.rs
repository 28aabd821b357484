//! The four seams that a simulation replaces: [`Net`], [`Disk`], [`Clock`] and [`Blocking`].
//!
//! Everything else in the runtime is generic over them. In production they are tokio and std ([`crate::real`]);
//! under the simulator they are turmoil and a disk in memory that can lose power. Nothing here decides anything:
//! there is no `cfg(sim)` in a decision, only another type parameter.
//!
//! `tokio::time` is not a seam of its own: turmoil virtualises it, production does not have to.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use jiff::tz::TimeZone;
use tidegate_core::time::Now;
use tokio::io::{AsyncRead, AsyncWrite};

/// Everything a site stands on, as one type parameter.
pub trait Seams: Clone + Send + Sync + 'static {
    /// Sockets.
    type Net: Net;
    /// Files.
    type Disk: Disk;
    /// Time.
    type Clock: Clock;
    /// Work that blocks, and the thread of the driver.
    type Blocking: Blocking;
    /// The sockets of this site.
    fn net(&self) -> &Self::Net;
    /// The files of this site.
    fn disk(&self) -> &Self::Disk;
    /// The clocks of this site.
    fn clock(&self) -> &Self::Clock;
    /// Where blocking work goes.
    fn blocking(&self) -> &Self::Blocking;
    /// A small file in which the system tells of the machine under the site, such as `/proc/net/route`; `None` where
    /// there is no such thing. Blocks.
    fn system_text(&self, _path: &Path) -> Option<String> {
        None
    }
    /// Names in such a folder. Blocks.
    fn system_names(&self, _path: &Path) -> Vec<String> {
        Vec::new()
    }
    /// The time zone of the machine, if it says which. Blocks.
    fn local_zone(&self) -> Option<TimeZone> {
        None
    }
    /// Lets the process have so many files and sockets open, or as many as the system allows it, and tells what holds from
    /// now on; `None` where there is no such limit.
    fn descriptors(&self, _wanted: Option<u64>) -> Option<Descriptors> {
        None
    }
}

/// How many files and sockets the process may have open at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptors {
    /// The limit that holds.
    pub soft: u64,
    /// How far it could be raised; `None` is without end.
    pub hard: Option<u64>,
}

/// A byte stream between two programs.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send + 'static> Stream for T {}

/// TCP.
pub trait Net: Clone + Send + Sync + 'static {
    /// A connected stream.
    type Stream: Stream;
    /// A bound, listening socket.
    type Listener: Listener<Stream = Self::Stream>;
    /// Listens on `addr`; port 0 lets the system choose (see [`Listener::local_addr`]).
    fn bind(&self, addr: SocketAddr) -> impl Future<Output = io::Result<Self::Listener>> + Send;
    /// Connects to `host:port`. Callers bound it with a timeout: a silent network never answers.
    fn connect(&self, host: &str, port: u16) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

/// A listening socket.
pub trait Listener: Send + 'static {
    /// What `accept` hands out.
    type Stream: Stream;
    /// The next connection. An error concerns one connection attempt or a full descriptor table, not the
    /// listener: callers pause briefly and go on.
    fn accept(&mut self) -> impl Future<Output = io::Result<(Self::Stream, SocketAddr)>> + Send;
    /// The address that was bound, with the real port.
    fn local_addr(&self) -> io::Result<SocketAddr>;
    /// What was in the way of a connection.
    fn trouble(error: &io::Error) -> Trouble {
        match error.kind() {
            io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset => Trouble::Aborted,
            _ => Trouble::Other,
        }
    }
}

/// Why a connection was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trouble {
    /// This process has no descriptor left. The listener has turned a connection away already.
    ProcessFull,
    /// No process of the machine has. The listener has turned a connection away already.
    SystemFull,
    /// The client went before it was accepted.
    Aborted,
    /// Anything else: callers pause briefly.
    Other,
}

impl Trouble {
    /// As metrics and logs name it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Trouble::ProcessFull => "emfile",
            Trouble::SystemFull => "enfile",
            Trouble::Aborted => "aborted",
            Trouble::Other => "other",
        }
    }
}

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Open {
    /// Existing, for reading.
    Read,
    /// Existing, for reading and writing.
    ReadWrite,
    /// Created for reading and writing; an existing file is truncated.
    Create,
    /// Created for reading and writing; an existing file is an error (`AlreadyExists`).
    CreateNew,
}

/// What is known of a path without opening it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta {
    /// Bytes; 0 for a directory.
    pub len: u64,
    /// Whether it is a directory.
    pub is_dir: bool,
    /// Last change of the content, milliseconds since 1970.
    pub modified_ms: i64,
}

/// Files. Calls block: async code reaches them through [`Blocking::run`].
///
/// Durability is explicit and is never implied: content is durable after [`DiskFile::sync`], a name (created,
/// renamed, removed) after [`Disk::sync_dir`] of its parent.
pub trait Disk: Clone + Send + Sync + 'static {
    /// An open file.
    type File: DiskFile;
    /// Held while a directory is locked; dropping it unlocks.
    type Lock: Send + Sync + 'static;
    /// Opens a file.
    fn open(&self, path: &Path, how: Open) -> io::Result<Self::File>;
    /// Makes a directory and its parents; existing ones are fine.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Renames, replacing an existing file at `to`.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Removes an empty directory.
    fn remove_dir(&self, path: &Path) -> io::Result<()>;
    /// Makes names in `path` durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Length and kind.
    fn meta(&self, path: &Path) -> io::Result<Meta>;
    /// Names in a directory, sorted.
    fn list(&self, path: &Path) -> io::Result<Vec<String>>;
    /// Takes the exclusive lock of the file `path` (created if missing), or fails at once with `WouldBlock`.
    fn lock(&self, path: &Path) -> io::Result<Self::Lock>;
    /// Bytes free for this process on the file system of `path`; `None` where it cannot be known.
    fn free_bytes(&self, path: &Path) -> Option<u64>;
    /// The number of a file within its file system, another one after it was replaced; `None` where there is no such
    /// thing.
    fn file_number(&self, _path: &Path) -> Option<u64> {
        None
    }
    /// Bytes of the file system of `path`, used or not; `None` where it cannot be known.
    fn total_bytes(&self, _path: &Path) -> Option<u64> {
        None
    }
    /// Makes a file, or a directory and so all that is in it, readable by its owner only, where the platform has such
    /// a thing.
    fn restrict_to_owner(&self, path: &Path) -> io::Result<()>;
}

/// An open file with positioned reads and writes. Shared handles may be used from several threads.
pub trait DiskFile: fmt::Debug + Send + Sync + 'static {
    /// Fills `buf` from `offset` or fails with `UnexpectedEof`.
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;
    /// Writes all of `buf` at `offset`, extending the file if need be.
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()>;
    /// Bytes.
    fn len(&self) -> io::Result<u64>;
    /// Whether it is empty.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Truncates or extends with zeros.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Makes content and length durable.
    fn sync(&self) -> io::Result<()>;
}

/// Time.
pub trait Clock: Clone + Send + Sync + 'static {
    /// Both clocks at once: wall for storing and showing, monotonic (since boot of this process) for waiting.
    fn now(&self) -> Now;
    /// Ends no earlier than `after` from now, by the monotonic clock.
    fn sleep(&self, after: Duration) -> impl Future<Output = ()> + Send;
}

/// Work that blocks a thread.
pub trait Blocking: Clone + Send + Sync + 'static {
    /// Runs `work` where blocking is allowed. Production: a pool of threads. Simulation: at once, inline.
    /// A panic in `work` is propagated.
    fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> impl Future<Output = T> + Send;
    /// Gives `make`'s future a thread of its own with a current-thread runtime. Production: a named thread.
    /// Simulation: the task that asks. The returned future ends with what the inner one returned.
    fn dedicate<T, F, M>(&self, name: &'static str, make: M) -> impl Future<Output = T> + Send
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
        M: FnOnce() -> F + Send + 'static;
    /// Bytes from the operating system's entropy source. Simulation: a seeded stream.
    fn entropy(&self, buf: &mut [u8]);
}
