//! May this command go out now? Pure: looks at links and states, changes and sends nothing.
//!
//! The order of the refusals is the predecessor's, because its callers tell them apart.

use alloc::boxed::Box;
use alloc::string::ToString;

use crate::fact::Reported;
use crate::hub::link::Recorder;
use crate::input::{Action, Command};
use crate::refusal::Refusal;
use crate::row::TaskState;
use crate::time::Now;

/// The answer of the gates.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It may.
    Pass,
    /// Ask the recorder for its state first: what we know is confirmed, but too old to act on.
    Refresh,
    /// It may not. Boxed because refusals carry views.
    No(Box<Refusal>),
}

/// What the gates look at.
pub(super) struct View<'a> {
    /// The device's recorder, if connected.
    pub recorder: Option<&'a Recorder>,
    /// Whether its uploader is connected.
    pub transfer: bool,
    /// Both clocks.
    pub now: Now,
    /// How old a confirmed state may be.
    pub fresh_ms: u64,
}

/// Judges a command by what is known of its device. Ownership is not judged here.
pub(super) fn judge(view: &View<'_>, command: &Command) -> Verdict {
    if command.action == Action::Config && !view.transfer {
        return no(Refusal::TransferOffline);
    }
    let Some(recorder) = view.recorder else {
        return no(Refusal::RecorderOffline);
    };
    match command.action {
        Action::Config | Action::Begin => {}
        Action::GetState
        | Action::GetStats
        | Action::Finish
        | Action::Pause
        | Action::Resume
        | Action::Cancel
        | Action::Clear
        | Action::Quit => return Verdict::Pass,
    }
    let known = &recorder.confidence;
    if !known.is_confirmed() {
        return no(Refusal::StateSyncing);
    }
    if !known.is_fresh(view.now, view.fresh_ms) {
        return Verdict::Refresh;
    }
    let fits = if command.action == Action::Config {
        known.kind() == Reported::Idle
    } else {
        known.kind() == Reported::Ready && command.task.as_deref() == Some(known.task())
    };
    if fits {
        return Verdict::Pass;
    }
    no(if command.action == Action::Config {
        Refusal::RecorderBusy { state: known.state().to_string(), task: known.task().to_string() }
    } else {
        Refusal::NotReadyForTask {
            // The tasks fill it when they clear a command; they clear `begin` from these two states only.
            state: command.task_state.unwrap_or(TaskState::Pending),
            recorder_state: known.state().to_string(),
            recorder_task: known.task().to_string(),
        }
    })
}

fn no(refusal: Refusal) -> Verdict {
    Verdict::No(Box::new(refusal))
}
