//! How an effect ended. Unknown is neither an error nor a success: it is resolved by asking again.

use alloc::string::String;
use minicbor::{Decode, Encode};

/// How an effect ended.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Outcome<T> {
    /// It happened, and this is the answer.
    #[n(0)]
    Done(#[n(0)] T),
    /// It surely did not happen, and this is why.
    #[n(1)]
    Failed(#[n(0)] Fault),
    /// No answer: it may or may not have happened.
    #[n(2)]
    Unknown,
}

/// What a fault concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub enum What {
    /// The object itself.
    #[n(0)]
    Object,
    /// A multipart upload.
    #[n(1)]
    Upload,
    /// One part.
    #[n(2)]
    Part,
    /// The bytes at the edge.
    #[n(3)]
    Source,
}

/// Why an effect failed. Reasons are variants, never texts to be searched.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub enum Fault {
    /// Nobody there: no route, refused, no name. The request did not leave.
    #[n(0)]
    Offline,
    /// The store asks us to slow down (429, 503 SlowDown).
    #[n(1)]
    Throttled {
        /// Milliseconds it asked us to wait, if it said so.
        #[n(0)]
        retry_after_ms: Option<u64>,
    },
    /// The store is there but broken (other 5xx).
    #[n(2)]
    Unavailable {
        /// HTTP status.
        #[n(0)]
        status: u16,
    },
    /// Credentials refused or expired (401, 403).
    #[n(3)]
    Auth,
    /// The store finds our clock wrong.
    #[n(4)]
    ClockSkew,
    /// No bucket to send to: none configured, or the store does not know it.
    #[n(5)]
    NoDestination,
    /// It is not there (any more).
    #[n(6)]
    Vanished(#[n(0)] What),
    /// Its size or digest is not what it must be.
    #[n(7)]
    Damaged(#[n(0)] What),
    /// The store refuses the request as it is (other 4xx); the store's own code.
    #[n(8)]
    Rejected(#[n(0)] String),
    /// Our own disk: full, read-only, broken. The system's word for it.
    #[n(9)]
    Local(#[n(0)] String),
}

/// Who pays for a retry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub enum Budget {
    /// The way: a streak per destination, never an attempt of the job.
    #[n(0)]
    Connectivity,
    /// The data: an attempt of the job.
    #[n(1)]
    Data,
    /// An operator: nothing is retried before somebody changed something.
    #[n(2)]
    Operator,
    /// The site's own disk: a streak of the job, never an attempt. The recording may be whole all the same.
    #[n(3)]
    Disk,
}

impl Fault {
    /// Who pays for the retry.
    #[must_use]
    pub fn budget(&self) -> Budget {
        match self {
            Fault::Offline | Fault::Throttled { .. } | Fault::Unavailable { .. } | Fault::ClockSkew => {
                Budget::Connectivity
            }
            Fault::Auth | Fault::NoDestination => Budget::Operator,
            Fault::Vanished(_) | Fault::Damaged(_) | Fault::Rejected(_) => Budget::Data,
            Fault::Local(_) => Budget::Disk,
        }
    }

    /// A short stable word for metrics, logs and the API.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Fault::Offline => "offline",
            Fault::Throttled { .. } => "throttled",
            Fault::Unavailable { .. } => "unavailable",
            Fault::Auth => "auth",
            Fault::ClockSkew => "clock_skew",
            Fault::NoDestination => "no_destination",
            Fault::Vanished(What::Object) => "object_vanished",
            Fault::Vanished(What::Upload) => "upload_vanished",
            Fault::Vanished(What::Part) => "part_vanished",
            Fault::Vanished(What::Source) => "source_vanished",
            Fault::Damaged(What::Object) => "object_damaged",
            Fault::Damaged(What::Upload) => "upload_damaged",
            Fault::Damaged(What::Part) => "part_damaged",
            Fault::Damaged(What::Source) => "source_damaged",
            Fault::Rejected(_) => "rejected",
            Fault::Local(_) => "local_disk",
        }
    }
}
