//! One device program's link and what hangs on it. Decides nothing; the views of it for people are made here.

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};

use crate::effect::{LinkView, RecorderView};
use crate::fact::Proof;
use crate::hub::confidence::Confidence;
use crate::hub::contest::{Contest, Owner};
use crate::hub::rpc::Calls;
use crate::id::{ConnId, DeviceId};
use crate::limits;
use crate::time::{Mono, Now, Wall};
use crate::wire::TransferMessage;

/// The current link of a device's program.
#[derive(Debug)]
pub(super) struct Link {
    /// Its generation.
    pub conn: ConnId,
    /// Where it comes from, for people.
    pub remote: String,
    /// From which port, if that is known.
    pub port: Option<u16>,
    /// Since when.
    pub since: Wall,
    /// What proved it.
    pub proof: Proof,
    /// Whether it is fought over.
    pub contest: Contest,
}

impl Link {
    /// Whose it is.
    pub(super) fn owner(&self) -> Owner<'_> {
        Owner { remote: &self.remote, port: self.port }
    }

    /// As viewers see it.
    pub(super) fn view(&self) -> LinkView {
        LinkView { generation: self.conn.generation(), remote: self.remote.clone(), connected_at: self.since }
    }
}

/// A recorder's link. All of it is forgotten with the link.
#[derive(Debug)]
pub(super) struct Recorder {
    /// The link.
    pub link: Link,
    /// What it says of itself, and how far that is believed.
    pub confidence: Confidence,
    /// What waits for its answer.
    pub calls: Calls,
    /// Its last accepted report came while a command was out that changes it, so nothing was concluded from it.
    pub unsettled: bool,
}

impl Recorder {
    /// The tasks it, or a command that waits on it, names.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        let own = Some(self.confidence.task()).filter(|task| !task.is_empty());
        own.into_iter().chain(self.calls.names())
    }

    /// As viewers see it.
    pub(super) fn view(&self, device: &DeviceId, now: Now, fresh: bool, version: u64) -> RecorderView {
        let known = &self.confidence;
        let age = known.reported().mono.until(now.mono);
        RecorderView {
            device: device.clone(),
            connected: true,
            state: known.state().to_string(),
            previous: known.previous().to_string(),
            task: known.task().to_string(),
            updated_at: known.reported().wall,
            synced: known.is_confirmed(),
            fresh,
            source: known.source(),
            confidence: known.word(),
            generation: self.link.conn.generation(),
            version,
            age_ms: u64::try_from(age.as_millis()).unwrap_or(u64::MAX),
            error: known.error().map(ToString::to_string),
            asked_at: known.asked_at(),
            raw: known.raw().map(ToString::to_string),
        }
    }
}

/// A recorder without a link, as viewers see it.
pub(super) fn disconnected(device: &DeviceId, now: Now, version: u64) -> RecorderView {
    RecorderView {
        device: device.clone(),
        connected: false,
        state: "unknown".to_string(),
        previous: String::new(),
        task: String::new(),
        updated_at: now.wall,
        synced: false,
        fresh: false,
        source: "disconnected".to_string(),
        confidence: "unknown",
        generation: 0,
        version,
        age_ms: 0,
        error: None,
        asked_at: None,
        raw: None,
    }
}

/// An uploader's link.
#[derive(Debug)]
pub(super) struct Transfer {
    /// The link.
    pub link: Link,
    /// Whether it owes a status.
    owes: Owes,
}

/// Whether an uploader owes a status. It answers in order, and says nothing for minutes while it reads a large file: so silence
/// is no sign that the answer was lost. Large ones are sometimes garbage on the wire: who says something else so much later
/// has answered.
///
/// ```text
/// Nothing ──status_query sent──► Status ──full status, anything else a minute later, or nothing for ten──► Nothing
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owes {
    Nothing,
    Status { since: Mono },
}

impl Transfer {
    /// An uploader that was asked nothing yet.
    pub(super) fn new(link: Link) -> Transfer {
        Transfer { link, owes: Owes::Nothing }
    }

    /// Whether a `status_query` may go out now; if so, it counts as sent.
    pub(super) fn ask_status(&mut self, now: Mono) -> bool {
        let may = match self.owes {
            Owes::Nothing => true,
            Owes::Status { since } => since.until(now) >= limits::STATUS_LOST,
        };
        if may {
            self.owes = Owes::Status { since: now };
        }
        may
    }

    /// It said something. The short form of a status has no lists, and settles nothing by itself.
    pub(super) fn said(&mut self, message: &TransferMessage, now: Mono) {
        let told = match message {
            TransferMessage::Status(status) => status.uploads.is_some() || status.waiting_ack_tasks.is_some(),
            TransferMessage::UploadStarted(_)
            | TransferMessage::UploadComplete(_)
            | TransferMessage::UploadFailed { .. }
            | TransferMessage::UploadNotFound { .. }
            | TransferMessage::Other(_) => false,
        };
        let late = match self.owes {
            Owes::Status { since } => since.until(now) >= limits::STATUS_OWED_MAX,
            Owes::Nothing => false,
        };
        if told || late {
            self.owes = Owes::Nothing;
        }
    }
}

/// Counts what viewers were told of each device, since the boot.
#[derive(Debug, Default)]
pub(super) struct Versions {
    of: BTreeMap<DeviceId, u64>,
    /// The highest version forgotten: a device that comes back goes on above it, so that its numbers never fall.
    forgotten: u64,
}

impl Versions {
    /// The last number of a device; 0 if viewers were told nothing.
    pub(super) fn of(&self, device: &DeviceId) -> u64 {
        self.of.get(device).copied().unwrap_or(0)
    }

    /// The next number of a device. Forgets a device without links when there are too many.
    pub(super) fn next(&mut self, device: &DeviceId, linked: impl Fn(&DeviceId) -> bool) -> u64 {
        if let Some(version) = self.of.get_mut(device) {
            *version += 1;
            return *version;
        }
        if self.of.len() >= limits::VERSIONS_MAX {
            let idle = self.of.keys().find(|known| !linked(known)).cloned();
            let version = idle.and_then(|idle| self.of.remove(&idle));
            self.forgotten = self.forgotten.max(version.unwrap_or(0));
        }
        let version = self.forgotten + 1;
        self.of.insert(device.clone(), version);
        version
    }

    /// Devices remembered.
    pub(super) fn len(&self) -> usize {
        self.of.len()
    }
}
