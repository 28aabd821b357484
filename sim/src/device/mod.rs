//! A device as the world sees it: two programs that are told what happens to them and say what they want. Knows no
//! network and no clock of its own; everything it really did is in its log, which is the ground truth of invariants.

use std::collections::BTreeMap;
use std::time::Duration;

use tidegate_core::id::{DeviceId, ObjectKey, Role};
use tidegate_core::input::Action;

use crate::scenario::{DeviceSpec, Lie};
use crate::store::Content;
use crate::time::SimTime;

pub mod recorder;
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
}

// The interface of a device, implemented in this folder:
//
// impl Device {
//     pub fn new(index: usize, spec: &DeviceSpec, seed: u64) -> Device;
//     /// Its wall clock, milliseconds since 1970 (`EPOCH_MS` + true time + `clock_ms`).
//     pub fn wall(&self, now: SimTime) -> i64;
//     pub fn power_on(&mut self, now: SimTime, asks: &mut Vec<Ask>);          // both programs start: Dial
//     pub fn power_off(&mut self, now: SimTime);                              // links are gone without a word, a running recording is lost
//     pub fn crash(&mut self, now: SimTime, role: Role, asks: &mut Vec<Ask>); // kill -9 of one program and restart
//     pub fn opened(&mut self, now: SimTime, role: Role, asks: &mut Vec<Ask>);
//     pub fn declined(&mut self, now: SimTime, role: Role, asks: &mut Vec<Ask>);  // refused, 503, reset during the handshake, hang that ended
//     pub fn ended(&mut self, now: SimTime, role: Role, end: LinkEnd, asks: &mut Vec<Ask>);
//     pub fn heard(&mut self, now: SimTime, role: Role, text: &str, asks: &mut Vec<Ask>);
//     pub fn stored(&mut self, now: SimTime, call: &StoreCall, answer: &StoreAnswer, asks: &mut Vec<Ask>);
//     pub fn woke(&mut self, now: SimTime, wake: Wake, asks: &mut Vec<Ask>);
//     pub fn stop_recorder(&mut self, now: SimTime, asks: &mut Vec<Ask>);     // SIGTERM
//     pub fn lie(&mut self, now: SimTime, lie: Lie, others: &[DeviceId], asks: &mut Vec<Ask>); // marks it dishonest
//     /// Recordings the device still holds and that nobody acknowledged, by wire id.
//     pub fn held(&self) -> impl Iterator<Item = (&str, &File)>;
// }

/// True time zero on a wall clock: 2026-09-21 in milliseconds since 1970.
pub const EPOCH_MS: i64 = 1_790_000_000_000;
