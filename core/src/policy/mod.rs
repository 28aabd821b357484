//! Scheduling policies: five questions the core asks, and how it treats an answer.
//!
//! A policy proposes, the core disposes: every verdict is clamped, recorded with its author, and none can lose a
//! job. Policies are arguments of a step: a synchronous call, one set per step.

mod active;
#[cfg(test)]
mod asking_tests;
pub mod builtin;
mod floor;
mod memo;
mod query;
pub mod question;
mod recheck;
mod set;
mod surroundings;
mod swap;
#[cfg(test)]
mod tests;

pub use active::{Active, FLOOR};
pub use floor::{Builtin, Settings};
pub use memo::Memo;
pub use query::{
    Author, Clamped, Decision, PolicyFault, Question, Ruled, Ruling, Slot, UNKNOWN, UNSPECIFIED, Verdict,
};
pub use question::{
    Bandwidth, Candidate, Choice, Chosen, DISK_UNKNOWN, ErrorClass, GiveUp, Known, LinkKind, Ordering, Power,
    RetryAction, RetryQuery, RetryVerdict, Situation, Subject, UploadLimits, Waiting,
};
pub(crate) use recheck::recheck;
pub use set::{Binding, ModuleFacts, PolicySet, Seat, SettingValue};
pub use surroundings::Surroundings;
pub use swap::{Origin, PolicyNews, PolicyView, SeatView, Swap};

use alloc::vec::Vec;

/// The five questions. Implementations are pure: equal questions, equal answers.
pub trait Policies {
    /// Which approved episodes that nobody asked for are queued now? One answer per candidate, in order.
    fn select(&mut self, situation: &Situation, candidates: &[Candidate]) -> Ruling<Vec<Chosen>>;
    /// An attempt failed at the cost of the job: when again, if at all?
    fn retry(&mut self, query: &RetryQuery) -> Ruling<RetryVerdict>;
    /// How many uploads at once?
    fn limits(&mut self, situation: &Situation) -> Ruling<UploadLimits>;
    /// How many bytes per second in all?
    fn budget(&mut self, situation: &Situation) -> Ruling<Bandwidth>;
    /// In which order? One score per waiting job, in order; the highest goes first, ties go to the oldest.
    fn score(&mut self, situation: &Situation, waiting: &[Waiting]) -> Ruling<Ordering>;
}
