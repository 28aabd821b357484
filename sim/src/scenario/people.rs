//! What people do with recordings: those that an operator carries through, and those that somebody makes at the device
//! itself. Holds no behaviour.

use std::time::Duration;

/// What somebody does at a device itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LocalDeed {
    /// A recording of its own begins, of which no site knows a task.
    Record,
    /// What is being recorded ends and is kept; its callback is sent as always.
    Finish,
    /// What is being recorded is dropped.
    Cancel,
    /// A configuration is dropped.
    Clear,
}

impl LocalDeed {
    /// Every deed.
    pub const ALL: [LocalDeed; 4] =
        [LocalDeed::Record, LocalDeed::Finish, LocalDeed::Cancel, LocalDeed::Clear];
}

/// A recording that an operator carries through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recording {
    /// Index in [`Scenario::devices`].
    pub device: usize,
    /// Public id of its task.
    pub task: String,
    /// Bytes of the file.
    pub bytes: u64,
    /// How long it records.
    pub lasts: Duration,
    /// Without a sidecar.
    pub bare: bool,
    /// Whether it is paused and resumed on the way.
    pub pause: bool,
    /// Whether it is approved; rejected otherwise.
    pub approve: bool,
    /// How it gets to the cloud.
    pub sync: Sync,
}

/// How an approved episode gets to the cloud.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sync {
    /// The operator triggers it by name.
    Named,
    /// The operator uses the batch trigger.
    Batch,
    /// Nobody does; auto-scan may.
    Left,
}
