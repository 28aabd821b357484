//! Owns the embedded S3 endpoint and the object store under it. It stores what uploaders send, reports it and obeys
//! an admission gate. It decides nothing about recordings: whether one is verified, kept or removed is not known here.
//!
//! ```text
//!   uploaders ──► serve ──► endpoint ──► Spool (objects, multipart) ──► Disk
//!                              ▲   └──► Stored hints, Observer            ▲
//!                             Gate                       the same process: Spool::head, read_span, digest, …
//! ```

mod answers;
mod body;
mod door;
mod drain;
mod endpoint;
mod frozen;
pub mod limits;
mod listing;
mod multipart;
mod objects;
mod observe;
mod pages;
mod records;
mod refusal;
mod serve;
mod spool;
mod sums;
#[cfg(test)]
pub(crate) mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use crate::timeouts::Timeouts;
use crate::tls::Acceptor;

pub use body::Announced;
pub use endpoint::Endpoint;
pub use frozen::Frozen;
pub use multipart::{Completion, NamedPart, UploadInfo};
pub use objects::{Condition, ObjectInfo, PartInfo};
pub use observe::{Observer, Record, Stored};
pub use records::Described;
pub use refusal::Refusal;
pub use spool::{Object, OpenError, Opened, Spool};
pub use sums::{Algorithm, Coverage, Sums};

/// Whether bytes are let in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Gate {
    /// Yes.
    #[default]
    Open,
    /// No, for this reason; uploaders are told to slow down.
    Closed(String),
    /// No: there is no room.
    Full,
}

/// A pair of keys that uploaders sign with.
#[derive(Clone, PartialEq, Eq)]
pub struct AccessKey {
    /// The public half.
    pub id: String,
    /// The secret half. Never printed.
    pub secret: String,
}

impl fmt::Debug for AccessKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessKey").field("id", &self.id).finish_non_exhaustive()
    }
}

/// How the endpoint behaves.
#[derive(Clone)]
pub struct EndpointConfig {
    /// Keys that are accepted; without any, every request is refused.
    pub keys: Vec<AccessKey>,
    /// How far the clock of an uploader may be off; `None`: any. Robots without a battery-backed clock exist.
    pub max_skew: Option<Duration>,
    /// Reported as the location of buckets.
    pub region: String,
    /// Whether bytes are let in. `None`: always.
    pub gate: Option<watch::Receiver<Gate>>,
    /// Objects that uploaders can neither change nor remove. `None`: there are none.
    pub frozen: Option<Frozen>,
    /// Hears that an object is stored. Hints are dropped when it is full.
    pub stored: Option<mpsc::Sender<Stored>>,
    /// Hears of every finished request.
    pub observer: Option<Arc<dyn Observer>>,
    /// Connections at once; more wait to be accepted.
    pub connections_max: usize,
    /// How long a body may pause before its request is given up.
    pub body_idle: Duration,
    /// How long requests may take to end at shutdown.
    pub shutdown_budget: Duration,
    /// With it, connections begin with a TLS handshake.
    pub tls: Option<Acceptor>,
    /// Hears of handshakes that did not end.
    pub timeouts: Timeouts,
}

impl Default for EndpointConfig {
    fn default() -> EndpointConfig {
        EndpointConfig {
            keys: Vec::new(),
            max_skew: None,
            region: "us-east-1".to_owned(),
            gate: None,
            frozen: None,
            stored: None,
            observer: None,
            connections_max: limits::CONNECTIONS_MAX,
            body_idle: limits::BODY_IDLE,
            shutdown_budget: limits::SHUTDOWN_BUDGET,
            tls: None,
            timeouts: Timeouts::default(),
        }
    }
}

impl fmt::Debug for EndpointConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EndpointConfig")
            .field("keys", &self.keys)
            .field("max_skew", &self.max_skew)
            .field("region", &self.region)
            .field("frozen", &self.frozen)
            .field("connections_max", &self.connections_max)
            .field("tls", &self.tls)
            .finish_non_exhaustive()
    }
}
