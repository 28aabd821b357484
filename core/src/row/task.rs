//! The record of a task: one recording assignment for one device.

use alloc::string::String;
use alloc::vec::Vec;
use minicbor::{Decode, Encode};

use crate::digest::Sha256;
use crate::id::{DeviceId, EpisodeId, TaskId, WireId};
use crate::time::Wall;

/// Where a task stands.
///
/// ```text
/// pending ─► ready ─► in_progress ─► uploading ─► completed
///    ▲ │       │ │         │ │            │ └────► failed
///    │ └───────┼─┼─────────┼─┴──► failed ◄┘
///    └─────────┴─│─────────┘       (pending, ready, in_progress ─► cancelled)
/// ```
/// Recordings may arrive in any state; after `completed`, `failed` and `cancelled` nothing changes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub enum TaskState {
    /// Waiting to be configured on its device.
    #[n(0)]
    Pending,
    /// The device holds its configuration.
    #[n(1)]
    Ready,
    /// The device records.
    #[n(2)]
    InProgress,
    /// Recording ended; the recording is still on the device or on its way.
    #[n(3)]
    Uploading,
    /// Its recording is an episode.
    #[n(4)]
    Completed,
    /// Gave up; the reason is in the row.
    #[n(5)]
    Failed,
    /// Called off by an operator.
    #[n(6)]
    Cancelled,
}

impl TaskState {
    /// The word on the wire.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            TaskState::Pending => "pending",
            TaskState::Ready => "ready",
            TaskState::InProgress => "in_progress",
            TaskState::Uploading => "uploading",
            TaskState::Completed => "completed",
            TaskState::Failed => "failed",
            TaskState::Cancelled => "cancelled",
        }
    }

    /// Reads the word on the wire.
    #[must_use]
    pub fn from_name(name: &str) -> Option<TaskState> {
        Self::ALL.into_iter().find(|s| s.name() == name)
    }

    /// Every state.
    pub const ALL: [TaskState; 7] = [
        TaskState::Pending,
        TaskState::Ready,
        TaskState::InProgress,
        TaskState::Uploading,
        TaskState::Completed,
        TaskState::Failed,
        TaskState::Cancelled,
    ];

    /// Whether nothing changes it any more.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, TaskState::Completed | TaskState::Failed | TaskState::Cancelled)
    }
}

/// A task.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct TaskRow {
    /// As operators name it.
    #[n(0)]
    pub id: TaskId,
    /// Whose it is.
    #[n(1)]
    pub device: DeviceId,
    /// Counts physical tries to record it, from 1.
    #[n(2)]
    pub attempt: u32,
    /// As devices name this attempt.
    #[n(3)]
    pub wire: WireId,
    /// Where it stands.
    #[n(4)]
    pub state: TaskState,
    /// Configuration given when it was created, as a JSON object.
    #[n(5)]
    pub config: Option<String>,
    /// When it was created.
    #[n(6)]
    pub created_at: Wall,
    /// When its device first took its configuration, in this attempt.
    #[n(7)]
    pub ready_at: Option<Wall>,
    /// When recording began, in this attempt.
    #[n(8)]
    pub started_at: Option<Wall>,
    /// When it reached a final state.
    #[n(9)]
    pub completed_at: Option<Wall>,
    /// The last trouble, for people.
    #[n(10)]
    pub error: Option<String>,
    /// Whether `begin` was ever sent for this attempt: then its wire id is never begun again.
    #[n(11)]
    pub begun: bool,
    /// SHA-256 of the `user_token` of its configuration.
    #[n(12)]
    pub token_sha256: Option<Sha256>,
    /// What the finish callback said.
    #[n(13)]
    pub recording: Option<RecordingFacts>,
    /// Last change.
    #[n(14)]
    pub updated_at: Wall,
    /// Attempts before this one whose `begin` was sent, oldest first; the newest
    /// [`ATTEMPTS_KEPT`](crate::limits::ATTEMPTS_KEPT) of them. Never an empty list.
    #[n(15)]
    pub earlier: Option<Vec<EarlierAttempt>>,
    /// Since when it waits for its recording.
    #[n(16)]
    pub uploading_at: Option<Wall>,
    /// The episode that completed it.
    #[n(17)]
    pub episode: Option<EpisodeId>,
}

/// An attempt that was given up although it may have recorded.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct EarlierAttempt {
    /// Its number.
    #[n(0)]
    pub attempt: u32,
    /// When its device first took its configuration.
    #[n(1)]
    pub ready_at: Option<Wall>,
    /// When recording began.
    #[n(2)]
    pub started_at: Option<Wall>,
    /// When it was given up.
    #[n(3)]
    pub left_at: Wall,
    /// Whether its device may still hold a recording of it: it is asked for.
    #[n(4)]
    pub owed: bool,
    /// On how many links it was asked for and not found.
    #[n(5)]
    pub asked: u8,
    /// SHA-256 of the `user_token` of its configuration: its recorder may still call back with it.
    #[n(6)]
    pub token_sha256: Option<Sha256>,
}

/// What a device said of a recording when it ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct RecordingFacts {
    /// When it began.
    #[n(0)]
    pub started_at: Option<Wall>,
    /// When it ended.
    #[n(1)]
    pub finished_at: Option<Wall>,
    /// Milliseconds, pauses excluded.
    #[n(2)]
    pub duration_ms: Option<u64>,
    /// Messages.
    #[n(3)]
    pub messages: Option<u64>,
    /// Bytes of the file.
    #[n(4)]
    pub len: Option<u64>,
    /// Where it lies on the robot.
    #[n(5)]
    pub path: Option<String>,
    /// What went wrong while recording, if anything.
    #[n(6)]
    pub error: Option<String>,
    /// How it ended in the device's word, if that is not `finished`.
    #[n(7)]
    pub status: Option<String>,
}

/// A wire id of a later attempt.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct AliasRow {
    /// The task it is an attempt of.
    #[n(0)]
    pub task: TaskId,
}
