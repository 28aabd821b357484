//! Durable records: their kinds with stable ordinals, their keys and their codec (CBOR with explicit field numbers).
//!
//! A field number or ordinal is never reused. A new field is an `Option` or has a default; an old file then still
//! opens. Which rows exist follows from applying changes; nothing else writes them.

mod episode;
mod job;
mod policy;
mod roster;
mod task;
#[cfg(test)]
mod tests;
mod upload;

use alloc::boxed::Box;
use alloc::string::ToString;
use alloc::vec::Vec;
use minicbor::{Decode, Encode};

pub use episode::{BindingRow, Doubt, EpisodeRow, Inspection, Qa, SyncMark};
pub use job::{Cause, FinalWhy, JobRow, JobState, ParkWhy};
pub use policy::{
    Blame, FaultMark, ModuleRow, ModuleState, PolicyRow, Probation, Quarantine, Shadow, Turn, TurnWhat,
};
pub use roster::{DeviceRow, Named, Scope, TokenRow};
pub use task::{AliasRow, EarlierAttempt, RecordingFacts, TaskRow, TaskState};
pub use upload::{Phase, Plan, SidecarSource, Source, UploadRow};

use crate::digest::Sha256;
use crate::id::{DeviceId, EpisodeId, JobId, ObjectKey, PartNo, TaskId, WireId};
use crate::object::PartFacts;

/// Kinds of records. The ordinal names the table and is never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Kind {
    /// Counters of the site.
    Meta = 1,
    /// Registered devices.
    Device = 2,
    /// Tasks.
    Task = 3,
    /// Episodes.
    Episode = 4,
    /// Sync jobs.
    Job = 5,
    /// Upload sessions.
    Upload = 7,
    /// Acknowledged parts.
    Part = 8,
    /// Who sits in which slot of policies.
    Policy = 11,
    /// Tokens.
    Token = 13,
    /// Wire ids of later attempts → their task.
    Alias = 14,
    /// Keys at the edge → the task they belong to.
    Binding = 15,
    /// Modules of policies.
    Module = 16,
}

impl Kind {
    /// Every kind, in the order of ordinals.
    pub const ALL: [Kind; 12] = [
        Kind::Meta,
        Kind::Device,
        Kind::Task,
        Kind::Episode,
        Kind::Job,
        Kind::Upload,
        Kind::Part,
        Kind::Policy,
        Kind::Token,
        Kind::Alias,
        Kind::Binding,
        Kind::Module,
    ];
}

/// Name of a record. `Ord` and the bytes agree: access order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub enum Key {
    /// The one meta row.
    #[n(1)]
    Meta,
    /// A registered device.
    #[n(2)]
    Device(#[n(0)] DeviceId),
    /// A task.
    #[n(3)]
    Task(#[n(0)] TaskId),
    /// An episode.
    #[n(4)]
    Episode(#[n(0)] EpisodeId),
    /// A sync job.
    #[n(5)]
    Job(#[n(0)] JobId),
    /// The upload session of a job.
    #[n(7)]
    Upload(#[n(0)] JobId),
    /// An acknowledged part of a job's upload.
    #[n(8)]
    Part(#[n(0)] JobId, #[n(1)] PartNo),
    /// The one row of the set of policies.
    #[n(11)]
    Policy,
    /// A token, by its SHA-256.
    #[n(13)]
    Token(#[n(0)] Sha256),
    /// A wire id of a later attempt.
    #[n(14)]
    Alias(#[n(0)] WireId),
    /// A key at the edge.
    #[n(15)]
    Binding(#[n(0)] ObjectKey),
    /// A module of policies.
    #[n(16)]
    Module(#[n(0)] Sha256),
}

impl Key {
    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Key::Meta => Kind::Meta,
            Key::Device(_) => Kind::Device,
            Key::Task(_) => Kind::Task,
            Key::Episode(_) => Kind::Episode,
            Key::Job(_) => Kind::Job,
            Key::Upload(_) => Kind::Upload,
            Key::Part(..) => Kind::Part,
            Key::Policy => Kind::Policy,
            Key::Token(_) => Kind::Token,
            Key::Alias(_) => Kind::Alias,
            Key::Binding(_) => Kind::Binding,
            Key::Module(_) => Kind::Module,
        }
    }

    /// Bytes within the kind's table; their order is the order of keys.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        match self {
            Key::Meta | Key::Policy => Vec::new(),
            Key::Device(id) => id.as_str().as_bytes().to_vec(),
            Key::Task(id) => id.as_str().as_bytes().to_vec(),
            Key::Episode(id) => id.0.to_be_bytes().to_vec(),
            Key::Job(id) | Key::Upload(id) => id.0.to_be_bytes().to_vec(),
            Key::Part(job, part) => [&job.0.to_be_bytes()[..], &part.0.to_be_bytes()[..]].concat(),
            Key::Alias(id) => id.as_str().as_bytes().to_vec(),
            Key::Binding(key) => key.as_str().as_bytes().to_vec(),
            Key::Token(hash) | Key::Module(hash) => hash.0.to_vec(),
        }
    }

    /// Reads what [`Key::to_bytes`] wrote.
    pub fn from_bytes(kind: Kind, bytes: &[u8]) -> Result<Key, BadRow> {
        let bad = || BadRow { kind, why: "key" };
        let number = |b: &[u8]| b.try_into().map(u64::from_be_bytes).map_err(|_| bad());
        let text = || core::str::from_utf8(bytes).map_err(|_| bad());
        Ok(match kind {
            Kind::Meta => Key::Meta,
            Kind::Device => Key::Device(DeviceId::new(text()?).map_err(|_| bad())?),
            Kind::Task => Key::Task(TaskId::new(text()?).map_err(|_| bad())?),
            Kind::Episode => Key::Episode(EpisodeId(number(bytes)?)),
            Kind::Job => Key::Job(JobId(number(bytes)?)),
            Kind::Upload => Key::Upload(JobId(number(bytes)?)),
            Kind::Part => {
                let (job, part) = bytes.split_at_checked(8).ok_or_else(bad)?;
                let part = part.try_into().map(u16::from_be_bytes).map_err(|_| bad())?;
                Key::Part(JobId(number(job)?), PartNo(part))
            }
            Kind::Policy if bytes.is_empty() => Key::Policy,
            Kind::Policy => return Err(bad()),
            Kind::Token => Key::Token(Sha256(bytes.try_into().map_err(|_| bad())?)),
            Kind::Alias => Key::Alias(WireId::new(text()?).map_err(|_| bad())?),
            Kind::Binding => Key::Binding(ObjectKey::new(text()?).map_err(|_| bad())?),
            Kind::Module => Key::Module(Sha256(bytes.try_into().map_err(|_| bad())?)),
        })
    }
}

/// A record.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Row {
    /// Under [`Key::Meta`].
    #[n(1)]
    Meta(#[n(0)] MetaRow),
    /// Under [`Key::Device`].
    #[n(2)]
    Device(#[n(0)] Box<DeviceRow>),
    /// Under [`Key::Task`].
    #[n(3)]
    Task(#[n(0)] TaskRow),
    /// Under [`Key::Episode`].
    #[n(4)]
    Episode(#[n(0)] EpisodeRow),
    /// Under [`Key::Job`].
    #[n(5)]
    Job(#[n(0)] JobRow),
    /// Under [`Key::Upload`].
    #[n(7)]
    Upload(#[n(0)] UploadRow),
    /// Under [`Key::Part`].
    #[n(8)]
    Part(#[n(0)] PartFacts),
    /// Under [`Key::Policy`].
    #[n(11)]
    Policy(#[n(0)] Box<PolicyRow>),
    /// Under [`Key::Token`].
    #[n(13)]
    Token(#[n(0)] Box<TokenRow>),
    /// Under [`Key::Alias`].
    #[n(14)]
    Alias(#[n(0)] AliasRow),
    /// Under [`Key::Binding`].
    #[n(15)]
    Binding(#[n(0)] BindingRow),
    /// Under [`Key::Module`].
    #[n(16)]
    Module(#[n(0)] Box<ModuleRow>),
}

impl Row {
    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Row::Meta(_) => Kind::Meta,
            Row::Device(_) => Kind::Device,
            Row::Task(_) => Kind::Task,
            Row::Episode(_) => Kind::Episode,
            Row::Job(_) => Kind::Job,
            Row::Upload(_) => Kind::Upload,
            Row::Part(_) => Kind::Part,
            Row::Policy(_) => Kind::Policy,
            Row::Token(_) => Kind::Token,
            Row::Alias(_) => Kind::Alias,
            Row::Binding(_) => Kind::Binding,
            Row::Module(_) => Kind::Module,
        }
    }

    /// Bytes of the record, without its kind.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let written = match self {
            Row::Meta(row) => minicbor::to_vec(row),
            Row::Device(row) => minicbor::to_vec(row),
            Row::Task(row) => minicbor::to_vec(row),
            Row::Episode(row) => minicbor::to_vec(row),
            Row::Job(row) => minicbor::to_vec(row),
            Row::Upload(row) => minicbor::to_vec(row),
            Row::Part(row) => minicbor::to_vec(row),
            Row::Policy(row) => minicbor::to_vec(row),
            Row::Token(row) => minicbor::to_vec(row),
            Row::Alias(row) => minicbor::to_vec(row),
            Row::Binding(row) => minicbor::to_vec(row),
            Row::Module(row) => minicbor::to_vec(row),
        };
        written.expect("writing to a vector cannot fail")
    }

    /// Reads what [`Row::to_bytes`] wrote, in this version or an earlier one.
    pub fn from_bytes(kind: Kind, bytes: &[u8]) -> Result<Row, BadRow> {
        let row = match kind {
            Kind::Meta => minicbor::decode(bytes).map(Row::Meta),
            Kind::Device => minicbor::decode(bytes).map(Row::Device),
            Kind::Task => minicbor::decode(bytes).map(Row::Task),
            Kind::Episode => minicbor::decode(bytes).map(Row::Episode),
            Kind::Job => minicbor::decode(bytes).map(Row::Job),
            Kind::Upload => minicbor::decode(bytes).map(Row::Upload),
            Kind::Part => minicbor::decode(bytes).map(Row::Part),
            Kind::Policy => minicbor::decode(bytes).map(Row::Policy),
            Kind::Token => minicbor::decode(bytes).map(Row::Token),
            Kind::Alias => minicbor::decode(bytes).map(Row::Alias),
            Kind::Binding => minicbor::decode(bytes).map(Row::Binding),
            Kind::Module => minicbor::decode(bytes).map(Row::Module),
        };
        row.map_err(|_| BadRow { kind, why: "content" })
    }
}

/// A record or key that cannot be read: the store is damaged or newer than this program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadRow {
    /// Which table.
    pub kind: Kind,
    /// `key` or `content`.
    pub why: &'static str,
}

impl core::fmt::Display for BadRow {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "unreadable {} of a {:?} record", self.why, self.kind)
    }
}

/// Counters of the site.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct MetaRow {
    /// Number of the next episode.
    #[n(0)]
    pub next_episode: u64,
    /// Number of the next job.
    #[n(1)]
    pub next_job: u64,
    /// Number of the next device; `None` is 1.
    #[n(2)]
    pub next_device: Option<u64>,
    /// Number of the next token; `None` is 1.
    #[n(3)]
    pub next_token: Option<u64>,
}

impl Default for MetaRow {
    fn default() -> Self {
        MetaRow { next_episode: 1, next_job: 1, next_device: None, next_token: None }
    }
}

/// Shortens a text to what we store, at a character border.
#[must_use]
pub fn shorten(text: &str, bytes: usize) -> alloc::string::String {
    let mut end = text.len().min(bytes);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_string()
}

/// Whose a row is, for lists.
#[must_use]
pub fn device_of(row: &Row) -> Option<&DeviceId> {
    match row {
        Row::Task(row) => Some(&row.device),
        Row::Episode(row) => Some(&row.device),
        Row::Job(row) => Some(&row.device),
        Row::Device(row) => Some(&row.id),
        Row::Token(row) => row.device.as_ref(),
        Row::Meta(_)
        | Row::Upload(_)
        | Row::Part(_)
        | Row::Policy(_)
        | Row::Alias(_)
        | Row::Binding(_)
        | Row::Module(_) => None,
    }
}
