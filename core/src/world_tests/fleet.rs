//! Devices as they behave on the wire: what a recorder does with a command, what an uploader still holds. The ground
//! truth of what was recorded, and of what a device deleted because it was told so.

use std::collections::{BTreeMap, VecDeque};
use std::format;
use std::prelude::v1::*;

use super::stores::Content;
use crate::id::{ConnId, DeviceId, ObjectKey};
use crate::input::Action;
use crate::object::SidecarFacts;
use crate::time::Wall;
use crate::wire::transfer::{Announced, Status, UploadEntry, UploadStatus};
use crate::wire::{RecorderMessage, TransferMessage};

/// What a recorder does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Doing {
    Idle,
    Ready(String),
    Recording(String),
    Paused(String),
}

/// A command as it arrived.
#[derive(Clone, Debug)]
pub(super) struct Rpc {
    pub(super) conn: ConnId,
    pub(super) id: String,
    pub(super) action: Action,
    pub(super) task: Option<String>,
}

/// What a recorder owes its site over HTTP.
#[derive(Clone, Debug)]
pub(super) enum Callback {
    Start(String),
    Finish(String),
}

/// A recording on the device's disk.
#[derive(Clone, Debug)]
pub(super) struct File {
    pub(super) content: Content,
    pub(super) sidecar: Content,
    pub(super) mcap_only: bool,
    pub(super) requested: bool,
    pub(super) uploaded: bool,
    /// How often it was announced.
    pub(super) said: u32,
}

/// A device: a recorder and an uploader.
#[derive(Clone, Debug)]
pub(super) struct Device {
    pub(super) id: DeviceId,
    pub(super) doing: Doing,
    pub(super) recorder: Option<ConnId>,
    pub(super) uploader: Option<ConnId>,
    pub(super) owed: VecDeque<Rpc>,
    pub(super) callbacks: VecDeque<Callback>,
    pub(super) owes_status: bool,
    pub(super) files: BTreeMap<String, File>,
    /// What it deleted because it was told that the site has it.
    pub(super) deleted: BTreeMap<String, File>,
    /// Recordings that really began, by wire id.
    pub(super) begun: BTreeMap<String, u32>,
    /// Whether somebody spoke in its name, or it made something up.
    pub(super) lied: bool,
    recordings: u64,
}

impl Device {
    pub(super) fn new(n: usize) -> Device {
        Device {
            id: DeviceId::new(&format!("d{n}")).expect("legal"),
            doing: Doing::Idle,
            recorder: None,
            uploader: None,
            owed: VecDeque::new(),
            callbacks: VecDeque::new(),
            owes_status: false,
            files: BTreeMap::new(),
            deleted: BTreeMap::new(),
            begun: BTreeMap::new(),
            lied: false,
            recordings: 0,
        }
    }

    pub(super) fn key(&self, wire: &str) -> ObjectKey {
        self.place(wire, "mcap")
    }

    pub(super) fn sidecar_key(&self, wire: &str) -> ObjectKey {
        self.place(wire, "json")
    }

    /// Where a file goes; names that no key can hold become a name that can.
    fn place(&self, wire: &str, ending: &str) -> ObjectKey {
        let name: String =
            wire.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '.' || *c == '_').collect();
        ObjectKey::new(&format!("up/{}/{name}.{ending}", self.id)).expect("legal")
    }

    pub(super) fn word(&self) -> (&'static str, Option<String>) {
        match &self.doing {
            Doing::Idle => ("idle", None),
            Doing::Ready(task) => ("ready", Some(task.clone())),
            Doing::Recording(task) => ("recording", Some(task.clone())),
            Doing::Paused(task) => ("paused", Some(task.clone())),
        }
    }

    /// Does what it is told, and says what came of it.
    pub(super) fn obey(&mut self, rpc: &Rpc, now: Wall) -> RecorderMessage {
        let named = rpc.task.clone();
        let (doing, done) = match (rpc.action, self.doing.clone()) {
            (Action::GetState | Action::GetStats, doing) => (doing, true),
            (Action::Config, Doing::Idle) => match named {
                Some(task) => (Doing::Ready(task), true),
                None => (Doing::Idle, false),
            },
            (Action::Begin, Doing::Ready(task)) if named.as_ref() == Some(&task) => {
                *self.begun.entry(task.clone()).or_default() += 1;
                self.callbacks.push_back(Callback::Start(task.clone()));
                (Doing::Recording(task), true)
            }
            (Action::Pause, Doing::Recording(task)) => (Doing::Paused(task), true),
            (Action::Resume, Doing::Paused(task)) => (Doing::Recording(task), true),
            (Action::Finish, Doing::Recording(task) | Doing::Paused(task)) => {
                self.record(&task, now);
                self.callbacks.push_back(Callback::Finish(task));
                (Doing::Idle, true)
            }
            (Action::Cancel, Doing::Recording(_) | Doing::Paused(_) | Doing::Ready(_)) => (Doing::Idle, true),
            (Action::Clear, Doing::Ready(_)) => (Doing::Idle, true),
            (Action::Quit, Doing::Idle | Doing::Ready(_)) => (Doing::Idle, true),
            (_, doing) => (doing, false),
        };
        self.doing = doing;
        let (state, task) = self.word();
        RecorderMessage::Response {
            request_id: rpc.id.clone(),
            success: done,
            message: (!done).then(|| "not now".to_string()),
            state: Some(state.to_string()),
            task,
            data: Some(format!("{{\"state\":\"{state}\"}}")),
        }
    }

    fn record(&mut self, wire: &str, now: Wall) {
        self.recordings += 1;
        let n = self.recordings;
        // The device's number keeps contents of devices apart.
        let id = n * 1000 + u64::from(self.id.as_str().as_bytes()[1]);
        let len = [1_u64 << 20, 12 << 20, (23 << 20) + 17][usize::try_from(n % 3).expect("small")];
        let content = Content { id, len, facts: None };
        let facts = SidecarFacts {
            sha256: Some(content.sha256()),
            len: Some(len),
            duration_ms: Some(10_000 * n),
            messages: Some(100 * n),
            started_at: (!n.is_multiple_of(4)).then_some(now),
            recorder_version: Some("1.2.3".to_string()),
        };
        let sidecar = Content { id: id + 500, len: 900 + n, facts: Some(facts) };
        let mcap_only = n % 5 == 4;
        let file = File { content, sidecar, mcap_only, requested: false, uploaded: false, said: 0 };
        self.files.insert(wire.to_string(), file);
    }

    pub(super) fn push(&self, previous: &str, at: Wall) -> RecorderMessage {
        let (current, task) = self.word();
        RecorderMessage::StateUpdate {
            timestamp_ms: Some(at.0),
            previous: Some(previous.to_string()),
            current: Some(current.to_string()),
            task,
        }
    }

    pub(super) fn announce(&self, wire: &str) -> Announced {
        let file = self.files.get(wire).or_else(|| self.deleted.get(wire));
        Announced {
            task: wire.to_string(),
            key: Some(self.key(wire).to_string()),
            len: file.map(|file| file.content.len),
            sha256: file.map(|file| file.content.sha256()),
            mcap_only: Some(file.is_some_and(|file| file.mcap_only)),
        }
    }

    /// Its true status; the short form has no lists.
    pub(super) fn status(&self, connected: bool, short: bool) -> TransferMessage {
        let entries = self.files.iter().map(|(wire, file)| UploadEntry {
            status: if file.uploaded { UploadStatus::WaitAck } else { UploadStatus::Pending },
            announced: self.announce(wire),
            last_error: None,
        });
        let waiting = self.files.iter().filter(|(_, file)| file.uploaded);
        TransferMessage::Status(Status {
            connected,
            version: connected.then(|| "2.0".to_string()),
            waiting_ack_tasks: (!short).then(|| waiting.map(|(wire, _)| wire.clone()).collect()),
            uploads: (!short).then(|| entries.collect()),
            ..Status::default()
        })
    }
}
