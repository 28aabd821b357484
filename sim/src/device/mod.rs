//! A device as the world sees it: two programs that are told what happens to them and say what they want. Knows no
//! network and no clock of its own; everything it really did is in its log, which is the ground truth of invariants.

use std::collections::BTreeMap;
use std::time::Duration;

use tidegate_core::id::{DeviceId, ObjectKey, Role};
use tidegate_core::input::Action;

use crate::scenario::{DeviceSpec, Lie, LocalDeed};
use crate::store::Content;
use crate::time::SimTime;

mod frame;
mod lies;
mod line;
pub mod recorder;
mod rows;
mod rpc;
#[cfg(test)]
mod tests;
pub mod uploader;

/// What a device asks of the world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Connect this program. Answered by `opened`, `declined`, or by nothing at all.
    Dial(Role),
    /// Close the link of this program politely.
    Close(Role),
    /// Send a text frame on the open link of this program.
    Say(Role, String),
    /// One HTTP POST to the site.
    Post(Callback),
    /// One request to the edge store. Answered by `stored`, or by nothing at all.
    Store(StoreCall),
    /// Wake this program after so long.
    Wake(Wake, Duration),
}

/// A callback of a recorder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Callback {
    /// Start or finish.
    pub finish: bool,
    /// The task, by the id that the device was given.
    pub task: String,
    /// The device that the body names.
    pub device: String,
    /// Bytes of the file, in a finish callback.
    pub len: Option<u64>,
    /// When the recording began, by the device's clock.
    pub started_ms: Option<i64>,
}

/// A request to the edge store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreCall {
    /// Is it there, and with which announced digest?
    Head(ObjectKey),
    /// Store a file. It takes as long as its bytes take, and takes effect at the end.
    Put {
        /// Under which key.
        key: ObjectKey,
        /// What.
        content: Content,
        /// Whether its digest is in the object's metadata.
        announced: bool,
    },
}

/// What became of a request to the edge store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreAnswer {
    /// To `Head`: the content there, if any.
    Head(Option<Content>),
    /// To `Put`: it is stored, durably.
    Stored,
    /// Refused; whether it is worth another try (503) or not (409, 403).
    Refused {
        /// Worth another try.
        again: bool,
    },
    /// No answer: it may or may not have happened.
    Unknown,
}

/// Which of a device's own deadlines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wake {
    /// Reconnect this program; the number tells a stale one from the one that counts.
    Redial(Role, u64),
    /// Something a program does later: number of its own.
    Recorder(u64),
    /// Something a program does later: number of its own.
    Uploader(u64),
}

/// How a link of a device ended, as the device sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LinkEnd {
    /// A close frame with this code.
    Closed(u16),
    /// A reset, or a FIN without a close frame.
    Broken,
    /// No pong came in time.
    Silent,
}

/// What a device really did, in order. Only the device writes it; invariants read it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(
    clippy::large_enum_variant,
    reason = "one in a handful is the large one, and a log is read more than kept"
)]
pub enum Deed {
    /// It took a configuration (effective: idle → ready, or a new one while ready).
    Configured {
        /// The id it was given.
        wire: String,
    },
    /// It began to record.
    Began {
        /// Which.
        wire: String,
    },
    /// It ended a recording and keeps the file.
    Finished {
        /// Which.
        wire: String,
        /// The file.
        content: Content,
        /// The sidecar, unless bare.
        sidecar: Option<Content>,
    },
    /// It dropped a recording: cancel, or power was lost.
    Dropped {
        /// Which.
        wire: String,
    },
    /// It ran a command that changes it.
    Ran {
        /// Which.
        action: Action,
        /// The id it named.
        wire: Option<String>,
        /// Whether it had an effect.
        effective: bool,
    },
    /// Its file is whole at the edge store, as far as it knows.
    Uploaded {
        /// Which.
        wire: String,
        /// Where.
        key: ObjectKey,
    },
    /// It deleted its copy because it was told that the site has it.
    Deleted {
        /// Which.
        wire: String,
    },
    /// It gave an upload up.
    GaveUp {
        /// Which.
        wire: String,
    },
    /// It said something that is not so, from now on it does not count as honest.
    Lied(Lie),
}

/// A file on a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// The recording.
    pub content: Content,
    /// Its sidecar.
    pub sidecar: Option<Content>,
}

/// How the device's own recording of a task is to be, told by the scenario before it is begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// Bytes of the file.
    pub bytes: u64,
    /// Without a sidecar.
    pub bare: bool,
}

/// A device.
#[derive(Clone, Debug)]
pub struct Device {
    /// What it is.
    pub spec: DeviceSpec,
    /// Its id.
    pub id: DeviceId,
    /// Its recorder.
    pub recorder: recorder::Recorder,
    /// Its uploader.
    pub uploader: uploader::Uploader,
    /// Files on its disk, by the id they were recorded under.
    pub files: BTreeMap<String, File>,
    /// What it really did, and when.
    pub log: Vec<(SimTime, Deed)>,
    /// Whether it ever lied or somebody spoke in its name.
    pub honest: bool,
    /// Whether it has power.
    pub on: bool,
    /// Offset of its wall clock from the true time's, milliseconds.
    pub clock_ms: i64,
    /// Number of the device in the scenario: keeps contents of devices apart.
    pub index: usize,
    /// The seed of the scenario, for streams.
    pub seed: u64,
    /// How recordings are to be, by public task id (the part of a wire id before the first dot of an attempt).
    pub scripts: BTreeMap<String, Script>,
    /// Lies told: each has chances of its own.
    lies: u64,
    /// Whether its recorder and its uploader are of no use.
    sulks: [bool; 2],
    /// Recordings that were begun at the device itself.
    own: u32,
}

/// What a liar may know of another device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// The other device.
    pub device: DeviceId,
    /// One of its recordings or tasks.
    pub wire: String,
    /// Where the recording is, if it was ever taken on for upload.
    pub key: Option<ObjectKey>,
}

impl Device {
    /// A device without power, with an empty disk.
    ///
    /// # Panics
    /// If the spec's id is no device id; scenarios are checked for that before they become worlds.
    #[must_use]
    pub fn new(index: usize, spec: &DeviceSpec, seed: u64) -> Device {
        let id = DeviceId::new(&spec.id).expect("scenarios name devices by legal ids");
        Device {
            recorder: recorder::Recorder::new(&spec.id, seed),
            uploader: uploader::Uploader::new(&spec.id, seed),
            spec: spec.clone(),
            id,
            files: BTreeMap::new(),
            log: Vec::new(),
            honest: true,
            on: false,
            clock_ms: 0,
            index,
            seed,
            scripts: BTreeMap::new(),
            lies: 0,
            sulks: [false, false],
            own: 0,
        }
    }

    /// Its wall clock, milliseconds since 1970.
    #[must_use]
    pub fn wall(&self, now: SimTime) -> i64 {
        EPOCH_MS + i64::try_from(now.millis()).unwrap_or(i64::MAX / 2) + self.clock_ms
    }

    /// It gets power: both programs start and dial.
    pub fn power_on(&mut self, now: SimTime, asks: &mut Vec<Ask>) {
        if !self.on {
            self.on = true;
            self.recorder_start(asks);
            self.uploader_start(now, asks);
        }
    }

    /// It loses power: links are gone without a word and a running recording is lost. Files and rows stay.
    pub fn power_off(&mut self, now: SimTime) {
        if self.on {
            self.on = false;
            self.recorder_die(now);
            self.uploader_die();
        }
    }

    /// One program is killed (`kill -9`) and started again at once; the world ends its link.
    pub fn crash(&mut self, now: SimTime, role: Role, asks: &mut Vec<Ask>) {
        match (self.on, role) {
            (false, _) => {}
            (true, Role::Recorder) => {
                self.recorder_die(now);
                self.recorder_start(asks);
            }
            (true, Role::Transfer) => {
                self.uploader_die();
                self.uploader_start(now, asks);
            }
        }
    }

    /// A dial was answered. Ignored unless one is waited for.
    pub fn opened(&mut self, now: SimTime, role: Role, asks: &mut Vec<Ask>) {
        match role {
            Role::Recorder => self.recorder_opened(now, asks),
            Role::Transfer => self.uploader_opened(now, asks),
        }
    }

    /// A dial came to nothing: refused, 503, reset during the handshake, or a hang that ended.
    pub fn declined(&mut self, _now: SimTime, role: Role, asks: &mut Vec<Ask>) {
        match role {
            Role::Recorder => self.recorder.line.declined(asks),
            Role::Transfer => self.uploader.line.declined(asks),
        }
    }

    /// An open link ended. Ignored if none is open.
    pub fn ended(&mut self, _now: SimTime, role: Role, end: LinkEnd, asks: &mut Vec<Ask>) {
        match role {
            Role::Recorder => self.recorder_ended(end, asks),
            Role::Transfer => self.uploader_ended(end, asks),
        }
    }

    /// A text frame arrived. Ignored if no link is open; read later if the program is busy.
    pub fn heard(&mut self, now: SimTime, role: Role, text: &str, asks: &mut Vec<Ask>) {
        match role {
            Role::Recorder => self.recorder_heard(now, text, asks),
            Role::Transfer => self.uploader_heard(now, text, asks),
        }
    }

    /// What became of a request to the edge store. Ignored if nobody waits for it.
    pub fn stored(&mut self, now: SimTime, call: &StoreCall, answer: &StoreAnswer, asks: &mut Vec<Ask>) {
        self.uploader_stored(now, call, answer, asks);
    }

    /// A deadline is due. Stale ones are ignored.
    pub fn woke(&mut self, now: SimTime, wake: Wake, asks: &mut Vec<Ask>) {
        match wake {
            Wake::Redial(Role::Recorder, number) => self.recorder_redial(number, asks),
            Wake::Redial(Role::Transfer, number) => self.uploader_redial(number, asks),
            Wake::Recorder(number) => self.recorder_woke(now, number, asks),
            Wake::Uploader(number) => self.uploader_woke(now, number, asks),
        }
    }

    /// The recorder is told to end (SIGTERM): it closes what it records, tells nobody but by its state, and is started
    /// again some seconds later.
    pub fn stop_recorder(&mut self, now: SimTime, asks: &mut Vec<Ask>) {
        self.recorder_stop(now, asks);
    }

    /// One of its programs is of no use from now on, or is again.
    pub fn sulk(&mut self, role: Role, on: bool) {
        self.sulks[usize::from(role == Role::Transfer)] = on;
    }

    /// Whether one of its programs is of no use.
    #[must_use]
    pub fn sulks(&self, role: Role) -> bool {
        self.sulks[usize::from(role == Role::Transfer)]
    }

    /// Somebody works at the device itself. What is not possible now does nothing.
    pub fn local(&mut self, now: SimTime, deed: LocalDeed, asks: &mut Vec<Ask>) {
        if self.on {
            self.recorder_local(now, deed, asks);
        }
    }

    /// Whether a program is blocked: it answers no ping and reads nothing until its own wake comes.
    #[must_use]
    pub fn busy(&self, role: Role) -> bool {
        match role {
            Role::Recorder => self.recorder.is_busy(),
            Role::Transfer => self.uploader.is_busy(),
        }
    }

    /// Recordings the device still holds and that nobody acknowledged, by wire id; those it gave up included.
    pub fn held(&self) -> impl Iterator<Item = (&str, &File)> {
        self.files.iter().chain(&self.uploader.aside).map(|(wire, file)| (wire.as_str(), file))
    }

    /// What a liar elsewhere may say of this device: its recordings and where they are, and the task it was given last.
    pub fn known(&self) -> impl Iterator<Item = Known> {
        let known = |wire: &str, key| Known { device: self.id.clone(), wire: wire.to_string(), key };
        let current = self.recorder.task.iter().map(move |task| known(&task.wire, None));
        self.uploader.rows.iter().map(move |row| known(&row.wire, Some(row.key.clone()))).chain(current)
    }

    fn note(&mut self, now: SimTime, deed: Deed) {
        self.log.push((now, deed));
    }
}

/// True time zero on a wall clock: 2026-09-21 in milliseconds since 1970.
pub const EPOCH_MS: i64 = 1_790_000_000_000;
