//! Owns the bounds of the object store and of its endpoint, each with the reason for its value.

use std::time::Duration;

/// Longest key, in bytes of UTF-8. The protocol's own limit.
pub const KEY_BYTES_MAX: usize = 1024;
/// User metadata of one object, names and values together. Four times the protocol's limit: generous to
/// uploaders, small enough to keep in memory for every object.
pub const METADATA_BYTES_MAX: usize = 8 * 1024;
/// Parts are numbered from 1 to this. The protocol's own limit.
pub const PART_NUMBER_MAX: u16 = 10_000;
/// Smallest part but the last. The protocol's own limit.
pub const PART_BYTES_MIN: u64 = 5 * 1024 * 1024;
/// Multipart uploads open at once: a fleet of a thousand devices with four each. More are told to slow down.
pub const UPLOADS_MAX: usize = 4096;
/// Entries of one answer to a listing. The protocol's own limit.
pub const PAGE_MAX: usize = 1000;
/// Body bytes collected before they go to disk in one piece. Bounds the memory of one request.
pub const WRITE_CHUNK: usize = 512 * 1024;
/// Bytes read from disk in one piece.
pub const READ_CHUNK: usize = 256 * 1024;
/// Bytes hashed ahead of the completion in one request for a part, so that its answer is not held up for long:
/// a few parts of the usual 8 MiB, some tens of milliseconds.
pub const HASH_AHEAD_MAX: u64 = 64 * 1024 * 1024;
/// A metadata file larger than this is not one of ours: 10,000 parts of some 150 bytes fit easily.
pub const RECORD_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// An XML request body; a completion with 10,000 parts and all sums is below 4 MiB.
pub const XML_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Locks that commits to keys are spread over.
pub const KEY_LOCKS: usize = 16;
/// Connections at once, unless configured otherwise.
pub const CONNECTIONS_MAX: usize = 512;
/// How long a request head may take, and how long an idle connection is kept.
pub const HEADER_READ: Duration = Duration::from_secs(30);
/// How long a body may pause before the request is given up: far longer than a radio link stutters.
pub const BODY_IDLE: Duration = Duration::from_secs(60);
/// How long a client may take nothing of an answer. One that takes a little now and then is not meant.
pub const ANSWER_IDLE: Duration = Duration::from_secs(30);
/// How long requests may take to end when the endpoint shuts down.
pub const SHUTDOWN_BUDGET: Duration = Duration::from_secs(10);
/// Bytes of a refused request that are read off before it is answered: one part of the usual size, with room.
pub const DRAIN_MAX: usize = 16 * 1024 * 1024;
/// How long that may take.
pub const DRAIN_TIME: Duration = Duration::from_secs(5);
