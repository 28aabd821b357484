//! Identities. Every id is a type of its own; every late answer carries one that proves it late.

use alloc::string::{String, ToString};
use core::fmt;
use minicbor::{Decode, Encode};

use crate::limits;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
        #[cbor(transparent)]
        pub struct $name(#[n(0)] pub $inner);
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

macro_rules! text {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
        #[cbor(transparent)]
        pub struct $name(#[n(0)] String);
        impl $name {
            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

number!(
    /// Counts starts of the process on one data directory, from 1. Durable; the root of all fencing.
    Boot(u64)
);
number!(
    /// An episode, numbered from 1 in the order of verification. The `:id` of the HTTP API.
    EpisodeId(u64)
);
number!(
    /// A sync job, numbered from 1 in the order of enqueueing.
    JobId(u64)
);
number!(
    /// A part of a multipart upload, 1 to 10,000.
    PartNo(u16)
);
number!(
    /// An operator's or recorder's HTTP request, unique within a boot. Made by the edge.
    RequestId(u64)
);
number!(
    /// A socket the edge holds and has not yet been told about. Unique within a boot; made by the edge.
    SocketId(u64)
);
number!(
    /// Position in the journal, from 1, without gaps.
    Seq(u64)
);

text!(
    /// A recording device. 1 to 128 characters of `A-Z a-z 0-9 . _ -`, never `.` or `..`.
    DeviceId
);
text!(
    /// A task, as operators name it. Same alphabet as [`DeviceId`].
    TaskId
);
text!(
    /// A task's attempt as devices and object keys name it: `T` for the first attempt of task `T`, then `T.2`, …
    WireId
);
text!(
    /// Key of an object within its bucket.
    ObjectKey
);
text!(
    /// A store's name for one multipart upload.
    UploadId
);
text!(
    /// A store's tag for the content of an object or part, without quotes.
    ETag
);

/// Why a text is not an id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadId {
    /// What was offered, shortened.
    pub got: String,
}

impl fmt::Display for BadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "\"{}\" is not an id: use 1 to {} characters of A-Z a-z 0-9 . _ - (not \".\" or \"..\")",
            self.got,
            limits::ID_BYTES
        )
    }
}

fn checked(text: &str, bytes: usize) -> Result<String, BadId> {
    let legal = |b: u8| b.is_ascii_alphanumeric() || b == b'.' || b == b'_' || b == b'-';
    let fits = (1..=bytes).contains(&text.len()) && text.bytes().all(legal);
    if fits && text != "." && text != ".." {
        Ok(text.to_string())
    } else {
        Err(BadId { got: text.chars().take(48).filter(|c| !c.is_control()).collect() })
    }
}

impl DeviceId {
    /// Accepts a legal device id.
    pub fn new(text: &str) -> Result<DeviceId, BadId> {
        checked(text, limits::ID_BYTES).map(DeviceId)
    }
}

impl TaskId {
    /// Accepts a legal task id.
    pub fn new(text: &str) -> Result<TaskId, BadId> {
        checked(text, limits::ID_BYTES).map(TaskId)
    }
}

impl WireId {
    /// Stands before every wire id, and is none: where a range over the wire ids of one device begins.
    pub(crate) const LEAST: WireId = WireId(String::new());

    /// Accepts a legal wire id: longer than a task id by what later attempts append.
    pub fn new(text: &str) -> Result<WireId, BadId> {
        checked(text, limits::WIRE_BYTES).map(WireId)
    }

    /// The wire id of an attempt: the task's own id first, then with a counter.
    #[must_use]
    pub fn of_attempt(task: &TaskId, attempt: u32) -> WireId {
        if attempt <= 1 { WireId(task.0.clone()) } else { WireId(alloc::format!("{}.{attempt}", task.0)) }
    }
}

impl ObjectKey {
    /// Accepts a key that every store takes and that no file system can misread: 1 to 1,024 bytes, no control
    /// characters, no empty, `.` or `..` segment.
    pub fn new(text: &str) -> Result<ObjectKey, BadId> {
        let segments = text.split('/').all(|s| !s.is_empty() && s != "." && s != "..");
        let legal = text.len() <= limits::KEY_BYTES && !text.chars().any(char::is_control);
        if segments && legal {
            Ok(ObjectKey(text.to_string()))
        } else {
            Err(BadId { got: text.chars().take(48).filter(|c| !c.is_control()).collect() })
        }
    }
}

impl UploadId {
    /// Takes a store's word for it.
    #[must_use]
    pub fn new(text: impl Into<String>) -> UploadId {
        UploadId(text.into())
    }
}

impl ETag {
    /// Takes a store's tag; quotes and a weak mark are dropped.
    #[must_use]
    pub fn new(text: &str) -> ETag {
        ETag(text.trim().trim_start_matches("W/").trim_matches('"').to_string())
    }
}

/// Which of a device's two programs a link belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub enum Role {
    /// The recorder: states and commands.
    #[n(0)]
    Recorder,
    /// The uploader: transfers.
    #[n(1)]
    Transfer,
}

impl Role {
    /// `recorder` or `transfer`, as in paths and logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Role::Recorder => "recorder",
            Role::Transfer => "transfer",
        }
    }
}

/// One admitted link: its generation. `Ord` is the order of takeover, also across restarts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct ConnId {
    /// The boot that admitted it.
    #[n(0)]
    pub boot: Boot,
    /// Counts admissions within the boot, from 1.
    #[n(1)]
    pub n: u32,
}

impl ConnId {
    /// The `generation` of the HTTP API: one increasing integer.
    #[must_use]
    pub fn generation(self) -> u64 {
        (self.boot.0 << 32) | u64::from(self.n)
    }
}

/// Names one outstanding effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Ticket {
    /// The boot that asked.
    #[n(0)]
    pub boot: Boot,
    /// Counts within the boot, from 1.
    #[n(1)]
    pub n: u64,
}

/// Who may finish a job: a claim is (job, attempt, boot). Outcomes of any other claim are dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Fence {
    /// The job.
    #[n(0)]
    pub job: JobId,
    /// Counts claims of the job, from 1. A crash keeps it; every new claim raises it.
    #[n(1)]
    pub attempt: u32,
    /// The boot that holds the claim.
    #[n(2)]
    pub boot: Boot,
}

/// Hash of a map slot → (module hash, settings): names the set of policies that decided something.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct PolicySetId(
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    pub [u8; 32],
);

impl fmt::Debug for PolicySetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for b in &self.0[..6] {
            write!(f, "{b:02x}")?;
        }
        Ok(())
    }
}

/// Stands for a secret the edge keeps in memory until it is written into a frame. The core never sees the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SecretRef {
    /// The edge's name for it, unique within a boot.
    #[n(0)]
    pub handle: u64,
    /// SHA-256 of the value.
    #[n(1)]
    pub sha256: crate::digest::Sha256,
}
