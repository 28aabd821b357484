//! May this command go out now? Pure: looks at links and states, changes and sends nothing.
//!
//! The order of the refusals is the predecessor's, because its callers tell them apart.

use alloc::boxed::Box;
use alloc::string::ToString;

use crate::fact::Reported;
use crate::hub::confidence::Confidence;
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
    let known = &recorder.confidence;
    match command.action {
        Action::Config | Action::Begin => {}
        // Recorders drop whatever they hold, whichever task these two name.
        Action::Cancel | Action::Clear => {
            return if holds_another(known, command) {
                let (state, task) = (known.state().to_string(), known.task().to_string());
                no(Refusal::HoldsAnother { state, task })
            } else {
                Verdict::Pass
            };
        }
        // `finish` is refused by the recorder if it names another task; the others name none to it.
        Action::GetState
        | Action::GetStats
        | Action::Finish
        | Action::Pause
        | Action::Resume
        | Action::Quit => return Verdict::Pass,
    }
    if !known.is_confirmed() {
        return no(Refusal::StateSyncing);
    }
    if !known.is_fresh(view.now, view.fresh_ms) {
        return Verdict::Refresh;
    }
    let fits = if command.action == Action::Config {
        // One that is ready may hold an earlier attempt of the very task: the tasks know.
        matches!(known.kind(), Reported::Idle | Reported::Ready)
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

/// Whether the recorder says that it holds something else than the command names. Also believed unconfirmed: what it
/// records may be lost for ever, and a command that names no task stops it all the same.
fn holds_another(known: &Confidence, command: &Command) -> bool {
    let holds = known.kind().holds_task() && !known.task().is_empty();
    holds && command.task.as_deref().is_some_and(|task| task != known.task())
}

fn no(refusal: Refusal) -> Verdict {
    Verdict::No(Box::new(refusal))
}
