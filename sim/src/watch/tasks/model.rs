//! A task as the watch of tasks knows it, and the graph that it may walk. Written from the decisions, not from the core.

use tidegate_core::change::{TaskCause, TaskChange};
use tidegate_core::id::{DeviceId, TaskId};
use tidegate_core::row::{TaskRow, TaskState};

/// A task as this watch knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Model {
    pub(super) device: DeviceId,
    pub(super) state: TaskState,
    pub(super) attempt: u32,
    pub(super) begun: bool,
    /// Attempts before this one that were begun, in the order in which they were left, and whether their recordings are
    /// owed.
    pub(super) earlier: Vec<(u32, bool)>,
}

pub(super) fn model(row: &TaskRow) -> Model {
    let earlier = row.earlier.iter().flatten().map(|entry| (entry.attempt, entry.owed)).collect();
    Model { device: row.device.clone(), state: row.state, attempt: row.attempt, begun: row.begun, earlier }
}

impl Model {
    /// The current attempt is over: what is known of it stays.
    pub(super) fn leave(&mut self, owed: bool) {
        self.earlier.push((self.attempt, owed));
        if self.earlier.len() > tidegate_core::limits::ATTEMPTS_KEPT {
            let at = self.earlier.iter().position(|(_, owed)| !owed).unwrap_or(0);
            self.earlier.remove(at);
        }
    }

    /// An earlier attempt that is remembered.
    pub(super) fn remembered(&self, attempt: u32) -> Option<usize> {
        self.earlier.iter().position(|(at, _)| *at == attempt)
    }
}

pub(super) fn task_of(change: &TaskChange) -> &TaskId {
    match change {
        TaskChange::Created { task, .. }
        | TaskChange::ConfigSent { task, .. }
        | TaskChange::Readied { task, .. }
        | TaskChange::BeginSent { task, .. }
        | TaskChange::Started { task, .. }
        | TaskChange::Finished { task, .. }
        | TaskChange::Completed { task, .. }
        | TaskChange::Failed { task, .. }
        | TaskChange::Returned { task, .. }
        | TaskChange::Cancelled { task, .. }
        | TaskChange::Noted { task, .. }
        | TaskChange::Resumed { task, .. }
        | TaskChange::Owed { task, .. } => task,
    }
}

/// The graph of the device protocol, with our additions. `None` is illegal.
pub(super) fn next(state: Option<TaskState>, change: &TaskChange) -> Option<TaskState> {
    use TaskState::{Cancelled, Completed, Failed, InProgress, Pending, Ready, Uploading};
    match (change, state) {
        (TaskChange::Created { .. }, None) => Some(Pending),
        (TaskChange::ConfigSent { .. }, Some(Pending)) => Some(Pending),
        (TaskChange::Readied { .. }, Some(Pending)) => Some(Ready),
        (TaskChange::BeginSent { .. }, Some(state @ (Pending | Ready))) => Some(state),
        (TaskChange::Started { .. }, Some(Pending | Ready)) => Some(InProgress),
        (TaskChange::Finished { .. }, Some(Pending | Ready | InProgress)) => Some(Uploading),
        (TaskChange::Completed { .. }, Some(Pending | Ready | InProgress | Uploading)) => Some(Completed),
        (TaskChange::Failed { .. }, Some(InProgress | Uploading)) => Some(Failed),
        (TaskChange::Returned { cause: TaskCause::Resolved, .. }, Some(Uploading)) => Some(Pending),
        (TaskChange::Returned { .. }, Some(Pending | Ready | InProgress)) => Some(Pending),
        (TaskChange::Resumed { .. }, Some(Pending | Ready)) => Some(InProgress),
        (TaskChange::Owed { .. }, state) => state,
        (TaskChange::Cancelled { .. }, Some(Pending | Ready | InProgress)) => Some(Cancelled),
        (TaskChange::Noted { .. }, Some(state @ (Pending | Ready | InProgress | Uploading))) => Some(state),
        _ => None,
    }
}
