//! How far a recorder's reported state can be trusted. Decides what counts as its state; sends nothing, knows no link.

use alloc::string::{String, ToString};
use core::time::Duration;

use crate::fact::{Report, Reported};
use crate::id::WireId;
use crate::input::Action;
use crate::limits;
use crate::time::{Now, Wall};
use crate::wire::quoted;

/// How far the state of one link's recorder can be trusted.
///
/// ```text
///                  Greeted ──answer, no answer──┐
///           greeting │ ▲ │ doubt                 ▼
/// Unknown ──asked──► Syncing ──answer──► Confirmed ◄──────────────────┐
///                       │                 │     ▲                     │
///                       │           doubt │     │ answer              │ answer,
///                       │                 ▼     │                     │ snapshot
///                       └──no answer──┐  Stale(Doubt) ──no answer──► Stale(NoAnswer)
///                                     └───────────────────────────────▲
/// ```
/// *asked*: a `get_state` went out. *answer*: one of this link was answered with a usable state. *no answer*: one was
/// refused, unusable, or not answered in time; that leads to `Stale(NoAnswer)` from everywhere. *snapshot*: a
/// well-formed push or command answer; a recorder that reconnects sends what it queued for the old link first, so a
/// snapshot alone confirms nothing unless asking has failed. *greeting*: the push with `previous` equal to `current` that
/// a recorder sends when it connects; what it queued for the old link came before it, so if asking fails, the last word
/// on this link is the state. For whatever is not `Syncing` or `Greeted` it is a snapshot like any other. *doubt*: a command whose end is unknown (also from
/// `Stale(NoAnswer)`), or a push without a state or without its task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Unknown,
    Syncing,
    Greeted,
    Confirmed,
    Stale(Why),
}

/// Why a state went stale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    /// Something happened that it may not reflect. Only an answer to `get_state` settles it.
    Doubt,
    /// The last `get_state` failed. Anything well-formed settles it.
    NoAnswer,
}

/// What moves a standing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    Asked,
    Answer,
    NoAnswer,
    Snapshot,
    Greeting,
    Unusable,
    Doubt,
}

/// The one table of transitions.
fn next(standing: Standing, event: Event) -> Standing {
    match (event, standing) {
        (Event::Asked, Standing::Unknown) => Standing::Syncing,
        (Event::Asked, Standing::Syncing | Standing::Greeted | Standing::Confirmed | Standing::Stale(_)) => {
            standing
        }
        (Event::Answer, _) | (Event::NoAnswer, Standing::Greeted) => Standing::Confirmed,
        (
            Event::NoAnswer,
            Standing::Unknown | Standing::Syncing | Standing::Confirmed | Standing::Stale(_),
        ) => Standing::Stale(Why::NoAnswer),
        (Event::Greeting, Standing::Syncing) => Standing::Greeted,
        (Event::Snapshot | Event::Greeting, Standing::Confirmed | Standing::Stale(Why::NoAnswer)) => {
            Standing::Confirmed
        }
        (
            Event::Snapshot | Event::Greeting,
            Standing::Unknown | Standing::Syncing | Standing::Greeted | Standing::Stale(Why::Doubt),
        ) => standing,
        (Event::Unusable | Event::Doubt, Standing::Greeted) => Standing::Syncing,
        (Event::Unusable, Standing::Confirmed) => Standing::Stale(Why::Doubt),
        (Event::Unusable, Standing::Unknown | Standing::Syncing | Standing::Stale(_)) => standing,
        (Event::Doubt, Standing::Confirmed | Standing::Stale(_)) => Standing::Stale(Why::Doubt),
        (Event::Doubt, Standing::Unknown | Standing::Syncing) => standing,
    }
}

/// What told us a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// Nothing did.
    Nothing,
    /// A `state_update`.
    Push,
    /// An answer to `get_state`.
    GetState,
    /// A successful answer to a command.
    Answer(Action),
    /// A command was not answered in time: the state told before it may be wrong.
    Timeout(Action),
}

impl Origin {
    /// The `source` of the HTTP API.
    fn text(self) -> String {
        match self {
            Origin::Nothing => String::new(),
            Origin::Push => "state_update".to_string(),
            Origin::GetState => "get_state".to_string(),
            Origin::Answer(action) => alloc::format!("rpc_response:{}", action.name()),
            Origin::Timeout(action) => alloc::format!("rpc_timeout:{}", action.name()),
        }
    }
}

/// What a recorder said of itself.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Said<'a> {
    /// Its state.
    pub state: Option<&'a str>,
    /// The state before, if it said so.
    pub previous: Option<&'a str>,
    /// The task it names.
    pub task: Option<&'a str>,
    /// Its clock, milliseconds since 1970; only pushes carry one.
    pub timestamp_ms: Option<i64>,
    /// The answer's `data` as JSON.
    pub data: Option<&'a str>,
}

impl Said<'_> {
    /// Whether it says that nothing changed: what a recorder says when it connects.
    fn greets(&self) -> bool {
        self.previous
            .zip(self.state)
            .is_some_and(|(previous, state)| previous.trim().eq_ignore_ascii_case(state.trim()))
    }

    /// What it said as a JSON object, if it is not too much.
    fn raw(&self) -> Option<String> {
        let text = self.data.map_or_else(
            || {
                let word = |word: Option<&str>| quoted(word.unwrap_or_default());
                let (previous, current) = (word(self.previous), word(self.state));
                let task = word(self.task);
                alloc::format!("{{\"current\":{current},\"previous\":{previous},\"task_id\":{task}}}")
            },
            ToString::to_string,
        );
        (text.len() <= limits::RAW_BYTES).then_some(text)
    }
}

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// It is the recorder's state, confirmed.
    Accepted(Report),
    /// It is shown, but believed only when confirmed.
    Provisional,
    /// It says no state, or not which task; what was known before is kept.
    Unusable,
    /// Its clock lies before that of a push accepted on this link; nothing changed.
    Older,
}

/// What is known of one link's recorder.
#[derive(Debug)]
pub(super) struct Confidence {
    standing: Standing,
    state: String,
    kind: Reported,
    previous: String,
    task: String,
    reported: Now,
    origin: Origin,
    error: Option<String>,
    pushed_ms: Option<i64>,
    failures: u32,
    asked_at: Option<Wall>,
    raw: Option<String>,
}

impl Confidence {
    /// Nothing is known of a new link's recorder: what its old link said is not carried over.
    pub(super) fn new(now: Now) -> Confidence {
        Confidence {
            standing: Standing::Unknown,
            state: "unknown".to_string(),
            kind: Reported::Other,
            previous: String::new(),
            task: String::new(),
            reported: now,
            origin: Origin::Nothing,
            error: None,
            pushed_ms: None,
            failures: 0,
            asked_at: None,
            raw: None,
        }
    }

    /// A `get_state` went out.
    pub(super) fn asked(&mut self, now: Now) {
        self.move_by(Event::Asked);
        self.asked_at = Some(now.wall);
    }

    /// A recorder said its state in a push or a command's answer.
    pub(super) fn hear(&mut self, now: Now, origin: Origin, said: Said<'_>) -> Heard {
        if let (Some(this), Some(last)) = (said.timestamp_ms, self.pushed_ms)
            && this < last
        {
            return Heard::Older;
        }
        let Some((state, task)) = self.usable(origin, said) else {
            self.move_by(Event::Unusable);
            return Heard::Unusable;
        };
        self.pushed_ms = said.timestamp_ms.or(self.pushed_ms);
        self.take(now, origin, state, said, task);
        self.move_by(if said.greets() { Event::Greeting } else { Event::Snapshot });
        self.settle()
    }

    /// `get_state` was answered. `None` if the answer is of no use: then it counts as unanswered.
    pub(super) fn answered(&mut self, now: Now, said: Said<'_>) -> Option<Report> {
        let Some((state, task)) = self.usable(Origin::GetState, said) else {
            let error = self.error.take().unwrap_or_default();
            // A recorder that answers nonsense contradicts its own greeting.
            self.move_by(Event::Unusable);
            let greeted = self.unanswered(&error);
            debug_assert!(greeted.is_none(), "I05: nonsense confirms nothing");
            return None;
        };
        self.take(now, Origin::GetState, state, said, task);
        self.move_by(Event::Answer);
        match self.settle() {
            Heard::Accepted(report) => Some(report),
            Heard::Provisional | Heard::Unusable | Heard::Older => {
                unreachable!("I04: an answer confirms from every standing")
            }
        }
    }

    /// `get_state` was refused, or not answered in time. Some if what it said of itself before is confirmed by that.
    pub(super) fn unanswered(&mut self, error: &str) -> Option<Report> {
        self.move_by(Event::NoAnswer);
        if let Heard::Accepted(report) = self.settle() {
            return Some(report);
        }
        self.error = Some(error.to_string());
        self.origin = Origin::GetState;
        self.failures = self.failures.saturating_add(1);
        None
    }

    /// A command was not answered in time: it may have changed the state.
    pub(super) fn doubt(&mut self, action: Action, error: &str) {
        self.move_by(Event::Doubt);
        self.error = Some(error.to_string());
        self.origin = Origin::Timeout(action);
    }

    /// How long to wait before asking again after the last failure.
    pub(super) fn retry_after(&self) -> Duration {
        let doublings = self.failures.saturating_sub(1).min(16);
        limits::SYNC_RETRY_MIN.saturating_mul(1 << doublings).min(limits::SYNC_RETRY_MAX)
    }

    /// Whether commands that depend on the state may be judged by it.
    pub(super) fn is_confirmed(&self) -> bool {
        self.standing == Standing::Confirmed
    }

    /// Whether it is confirmed and was told at most this long ago.
    pub(super) fn is_fresh(&self, now: Now, at_most_ms: u64) -> bool {
        self.is_confirmed() && self.reported.mono.until(now.mono) <= Duration::from_millis(at_most_ms)
    }

    /// What the recorder does.
    pub(super) fn kind(&self) -> Reported {
        self.kind
    }

    /// Whether it records, as far as we know; paused counts.
    pub(super) fn records(&self) -> bool {
        matches!(self.kind, Reported::Recording | Reported::Paused)
    }

    /// Its state, in its own spelling.
    pub(super) fn state(&self) -> &str {
        &self.state
    }

    /// The state before it; empty if none was told.
    pub(super) fn previous(&self) -> &str {
        &self.previous
    }

    /// The task it names; empty if none.
    pub(super) fn task(&self) -> &str {
        &self.task
    }

    /// When its state was told; before that, when its link came up.
    pub(super) fn reported(&self) -> Now {
        self.reported
    }

    /// What told the state, or what cast doubt on it.
    pub(super) fn source(&self) -> String {
        self.origin.text()
    }

    /// What went wrong since it was last confirmed.
    pub(super) fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    /// The word for the standing.
    pub(super) fn word(&self) -> &'static str {
        match self.standing {
            Standing::Unknown => "unknown",
            Standing::Syncing | Standing::Greeted => "syncing",
            Standing::Confirmed => "confirmed",
            Standing::Stale(_) => "stale",
        }
    }

    /// When it was last asked, if it was not confirmed since.
    pub(super) fn asked_at(&self) -> Option<Wall> {
        self.asked_at
    }

    /// What it said, as a JSON object.
    pub(super) fn raw(&self) -> Option<&str> {
        self.raw.as_deref()
    }

    fn move_by(&mut self, event: Event) {
        self.standing = next(self.standing, event);
    }

    /// The state and the task said, as far as they go together; otherwise says in `error` why not.
    fn usable<'a>(&mut self, origin: Origin, said: Said<'a>) -> Option<(&'a str, String)> {
        let Some(state) = said.state.filter(|state| !state.trim().is_empty()) else {
            self.error = Some(alloc::format!("recorder {} names no state", origin.text()));
            return None;
        };
        let kind = Reported::of(state);
        if !kind.holds_task() {
            return Some((state, String::new()));
        }
        if let Some(task) = said.task {
            return Some((state, task.to_string()));
        }
        match (origin, kind) {
            (Origin::Answer(Action::Pause), Reported::Paused)
            | (Origin::Answer(Action::Resume), Reported::Recording) => Some((state, self.task.clone())),
            (Origin::Answer(_), _) => Some((state, String::new())),
            (Origin::Nothing | Origin::Push | Origin::GetState | Origin::Timeout(_), _) => {
                self.error = Some(alloc::format!(
                    "recorder {} snapshot missing task_id for state={state}",
                    origin.text()
                ));
                None
            }
        }
    }

    fn take(&mut self, now: Now, origin: Origin, state: &str, said: Said<'_>, task: String) {
        let told_before = self.origin != Origin::Nothing;
        self.raw = said.raw();
        match said.previous {
            Some(previous) => self.previous = previous.to_string(),
            None if told_before && self.state != state => self.previous = core::mem::take(&mut self.state),
            None => {}
        }
        self.state = state.to_string();
        self.kind = Reported::of(state);
        self.task = task;
        self.reported = now;
        self.origin = origin;
    }

    fn settle(&mut self) -> Heard {
        if !self.is_confirmed() {
            return Heard::Provisional;
        }
        self.error = None;
        self.failures = 0;
        self.asked_at = None;
        Heard::Accepted(Report {
            state: self.kind,
            task: WireId::new(&self.task).ok(),
            said: self.task.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Standing; 6] = [
        Standing::Unknown,
        Standing::Syncing,
        Standing::Greeted,
        Standing::Confirmed,
        Standing::Stale(Why::Doubt),
        Standing::Stale(Why::NoAnswer),
    ];

    #[test]
    fn the_table_of_standings_is_the_one_in_the_diagram() {
        use Standing::{Confirmed, Greeted, Stale, Syncing, Unknown};
        let (doubt, silent) = (Stale(Why::Doubt), Stale(Why::NoAnswer));
        let check = |event, expected: [Standing; 6]| {
            assert_eq!(ALL.map(|standing| next(standing, event)), expected, "{event:?}");
        };
        check(Event::Asked, [Syncing, Syncing, Greeted, Confirmed, doubt, silent]);
        check(Event::Answer, [Confirmed; 6]);
        check(Event::NoAnswer, [silent, silent, Confirmed, silent, silent, silent]);
        check(Event::Snapshot, [Unknown, Syncing, Greeted, Confirmed, doubt, Confirmed]);
        check(Event::Greeting, [Unknown, Greeted, Greeted, Confirmed, doubt, Confirmed]);
        check(Event::Unusable, [Unknown, Syncing, Syncing, doubt, doubt, silent]);
        check(Event::Doubt, [Unknown, Syncing, Syncing, doubt, doubt, doubt]);
    }

    #[test]
    fn only_an_answer_a_snapshot_after_a_failure_or_a_greeting_before_one_confirms() {
        for standing in ALL.into_iter().filter(|standing| *standing != Standing::Confirmed) {
            for event in [Event::Asked, Event::Unusable, Event::Doubt] {
                assert_ne!(next(standing, event), Standing::Confirmed, "{standing:?} {event:?}");
            }
            for event in [Event::Snapshot, Event::Greeting] {
                let confirms = next(standing, event) == Standing::Confirmed;
                assert_eq!(confirms, standing == Standing::Stale(Why::NoAnswer), "{standing:?} {event:?}");
            }
            let confirms = next(standing, Event::NoAnswer) == Standing::Confirmed;
            assert_eq!(confirms, standing == Standing::Greeted, "{standing:?}");
        }
    }

    #[test]
    fn retries_double_from_one_second_to_thirty() {
        let mut confidence = Confidence::new(Now::default());
        let mut waits = alloc::vec::Vec::new();
        for _ in 0..8 {
            confidence.unanswered("silent");
            waits.push(confidence.retry_after().as_secs());
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30, 30]);
    }
}
