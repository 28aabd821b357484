//! Which transitions of a task are legal, and what each does to its row. The only place where a task row changes;
//! used in life and in replay, so it can ask for nothing.
//!
//! The picture is at [`TaskState`].

use alloc::vec;
use alloc::vec::Vec;

use super::Tasks;
use crate::bug::planted;
use crate::change::{TaskCause, TaskChange};
use crate::id::{TaskId, WireId};
use crate::limits;
use crate::refusal::Illegal;
use crate::row::{AliasRow, EarlierAttempt, Key, TaskRow, TaskState, shorten};
use crate::time::Wall;

/// The state after a change; `None` if the change is not legal there. A state of `None` is no task.
pub(super) fn next(state: Option<TaskState>, change: &TaskChange) -> Option<TaskState> {
    use TaskState::{Cancelled, Completed, Failed, InProgress, Pending, Ready, Uploading};
    let state = match (state, change) {
        (None, TaskChange::Created { .. }) => return Some(Pending),
        (None, _) | (Some(_), TaskChange::Created { .. }) => return None,
        (Some(state), _) => state,
    };
    let to = |legal: bool, next| legal.then_some(next);
    match change {
        TaskChange::Created { .. } => None,
        TaskChange::ConfigSent { .. } => to(state == Pending, state),
        TaskChange::Readied { .. } => to(state == Pending, Ready),
        TaskChange::BeginSent { .. } => to(matches!(state, Pending | Ready), state),
        TaskChange::Started { .. } => to(matches!(state, Pending | Ready), InProgress),
        TaskChange::Finished { .. } => to(matches!(state, Pending | Ready | InProgress), Uploading),
        TaskChange::Completed { .. } => to(!state.is_final(), Completed),
        TaskChange::Failed { .. } => to(matches!(state, InProgress | Uploading), Failed),
        TaskChange::Returned { cause: TaskCause::Resolved, .. } => {
            to(matches!(state, Pending | Ready | InProgress | Uploading), Pending)
        }
        TaskChange::Returned { .. } => to(matches!(state, Pending | Ready | InProgress), Pending),
        TaskChange::Cancelled { .. } => to(matches!(state, Pending | Ready | InProgress), Cancelled),
        TaskChange::Noted { .. } => to(!state.is_final(), state),
        TaskChange::Resumed { .. } => to(matches!(state, Pending | Ready), InProgress),
        // Whatever became of the task, an attempt of it may have left a recording.
        TaskChange::Owed { .. } => Some(state),
    }
}

impl Tasks {
    /// Takes a change into memory; returns the records touched.
    pub fn apply_task(&mut self, change: &TaskChange) -> Result<Vec<Key>, Illegal> {
        let id = task_of(change);
        let old = self.tasks.get(id);
        let state = old.map(|row| row.state);
        let illegal = || Illegal { state: alloc::format!("task {id} {state:?}"), change: name(change) };
        let state = match (state, change) {
            (Some(TaskState::Failed | TaskState::Cancelled), TaskChange::Finished { .. })
                if planted!(self, X03) =>
            {
                TaskState::Uploading
            }
            _ => next(state, change).ok_or_else(illegal)?,
        };
        let mut row = match (old, change) {
            (Some(row), _) => row.clone(),
            (None, TaskChange::Created { device, config, at, .. }) => {
                blank(id, device.clone(), config.clone(), *at)
            }
            (None, _) => return Err(illegal()),
        };
        let mut touched = vec![Key::Task(id.clone())];
        row.state = state;
        match change {
            TaskChange::Created { .. } => {}
            TaskChange::ConfigSent { token_sha256, at, .. } => {
                row.token_sha256 = *token_sha256;
                row.updated_at = *at;
            }
            TaskChange::Readied { at, .. } => {
                row.ready_at.get_or_insert(*at);
                row.updated_at = *at;
            }
            TaskChange::BeginSent { at, .. } => {
                row.begun = true;
                row.updated_at = *at;
            }
            TaskChange::Started { at, .. } => {
                // A recording under this wire id exists, whoever began it: recording it again would overwrite it.
                row.begun = true;
                row.started_at.get_or_insert(*at);
                row.updated_at = *at;
            }
            TaskChange::Finished { facts, at, timed, .. } => {
                row.begun = true;
                row.error = facts.as_ref().and_then(|f| f.error.clone());
                row.recording = facts.clone().or(row.recording);
                if planted!(self, X03) {
                    row.completed_at = None;
                }
                row.uploading_at = timed.then_some(*at);
                row.updated_at = *at;
            }
            TaskChange::Completed { at, episode, .. } => {
                row.error = None;
                row.episode = *episode;
                row.completed_at = Some(*at);
                row.updated_at = *at;
            }
            TaskChange::Failed { reason, at, .. } => {
                row.error = Some(shorten(reason, limits::REASON_BYTES));
                row.completed_at = Some(*at);
                row.updated_at = *at;
            }
            TaskChange::Returned { attempt, wire, cause, at, remembered, .. } => {
                let idle = old.is_some_and(|row| row.state == TaskState::Pending && !row.begun);
                if planted!(self, X02) && *attempt == row.attempt {
                    row.begun = false;
                }
                if idle || !follows(&row, *attempt, wire) {
                    return Err(illegal());
                }
                if *attempt != row.attempt {
                    // Who answered that it dropped the attempt, or never began it, has no recording of it.
                    let owed = *cause != TaskCause::Answer && !planted!(self, X48);
                    if *remembered {
                        remember(&mut row, owed, *at);
                    }
                    let alias = AliasRow { task: id.clone() };
                    self.aliases.insert(wire.clone(), alias);
                    touched.push(Key::Alias(wire.clone()));
                    row.begun = false;
                    // Each attempt has a token of its own. One that goes back under its own name keeps it: its device has it.
                    row.token_sha256 = None;
                }
                row.attempt = *attempt;
                row.wire = wire.clone();
                row.ready_at = None;
                row.started_at = None;
                row.error = None;
                row.recording = None;
                row.uploading_at = None;
                row.updated_at = *at;
            }
            TaskChange::Resumed { attempt, wire, at, .. } => {
                let fits = (!row.begun || planted!(self, X50)) && *wire == WireId::of_attempt(id, *attempt);
                let entry = forget(&mut row, *attempt).filter(|_| fits).ok_or_else(illegal)?;
                row.attempt = *attempt;
                row.wire = wire.clone();
                row.begun = true;
                row.ready_at = entry.ready_at;
                row.started_at = entry.started_at.or(Some(*at));
                row.error = None;
                row.token_sha256 = entry.token_sha256;
                row.recording = None;
                row.uploading_at = None;
                row.updated_at = *at;
            }
            TaskChange::Owed { attempt, owed, asked, at, .. } => {
                if *attempt == row.attempt && row.state.is_final() && forgotten(&row, *attempt) {
                    remember(&mut row, *owed, *at);
                }
                let entry = row.earlier.iter_mut().flatten().find(|entry| entry.attempt == *attempt);
                let entry = entry.ok_or_else(illegal)?;
                (entry.owed, entry.asked) = (*owed, *asked);
            }
            TaskChange::Cancelled { at, .. } => {
                row.completed_at = Some(*at);
                row.updated_at = *at;
            }
            TaskChange::Noted { error, at, facts, .. } => {
                row.error = error.as_deref().map(|text| shorten(text, limits::REASON_BYTES));
                row.recording = facts.clone().or(row.recording);
                row.updated_at = *at;
            }
        }
        self.put_task(row);
        self.visited.extend(touched.iter().cloned());
        Ok(touched)
    }
}

/// Whether a returned task may go on as this attempt: as the same one if it never recorded, else as a later one.
fn follows(row: &TaskRow, attempt: u32, wire: &WireId) -> bool {
    if row.begun {
        attempt > row.attempt && *wire == WireId::of_attempt(&row.id, attempt)
    } else {
        attempt == row.attempt && *wire == row.wire
    }
}

/// Keeps what is known of the current attempt, which is given up or over.
fn remember(row: &mut TaskRow, owed: bool, left_at: Wall) {
    let TaskRow { attempt, ready_at, started_at, token_sha256, .. } = *row;
    let earlier = row.earlier.get_or_insert_default();
    earlier.push(EarlierAttempt { attempt, ready_at, started_at, left_at, owed, asked: 0, token_sha256 });
    if earlier.len() > limits::ATTEMPTS_KEPT {
        // Rather forget one that nobody waits for.
        let at = earlier.iter().position(|entry| !entry.owed).unwrap_or(0);
        earlier.remove(at);
    }
}

/// Takes an earlier attempt out of those remembered.
fn forget(row: &mut TaskRow, attempt: u32) -> Option<EarlierAttempt> {
    let mut earlier = row.earlier.take()?;
    let at = earlier.iter().position(|entry| entry.attempt == attempt);
    let entry = at.map(|at| earlier.remove(at));
    row.earlier = (!earlier.is_empty()).then_some(earlier);
    entry
}

fn forgotten(row: &TaskRow, attempt: u32) -> bool {
    !row.earlier.iter().flatten().any(|entry| entry.attempt == attempt)
}

fn blank(
    id: &TaskId,
    device: crate::id::DeviceId,
    config: Option<alloc::string::String>,
    at: Wall,
) -> TaskRow {
    TaskRow {
        id: id.clone(),
        device,
        attempt: 1,
        wire: WireId::of_attempt(id, 1),
        state: TaskState::Pending,
        config,
        created_at: at,
        ready_at: None,
        started_at: None,
        completed_at: None,
        error: None,
        begun: false,
        token_sha256: None,
        recording: None,
        updated_at: at,
        earlier: None,
        uploading_at: None,
        episode: None,
    }
}

pub(super) fn name(change: &TaskChange) -> &'static str {
    crate::change::Change::Task(change.clone()).name()
}

/// Which task a change is about.
pub(crate) fn task_of(change: &TaskChange) -> &TaskId {
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
