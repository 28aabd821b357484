//! What runs reached: abstract states and transitions, pairs of faults and phases of the core, and a catalogue of what
//! must sometimes happen. Judges nothing.

use std::collections::{BTreeMap, BTreeSet};

use tidegate_core::object::ObjectReply;
use tidegate_core::outcome::Fault;
use tidegate_core::row::{JobState, Key, Phase, Row};

use crate::watch::{Happened, Seen, Truth};

/// A short stable word for a job's state.
#[must_use]
pub fn job_word(state: &JobState) -> &'static str {
    match state {
        JobState::Pending { .. } => "pending",
        JobState::Claimed { .. } => "claimed",
        JobState::Parked { .. } => "parked",
        JobState::Completed { .. } => "completed",
        JobState::Failed { .. } => "failed",
    }
}

/// A short stable word for an upload's phase.
#[must_use]
pub fn phase_word(phase: &Phase) -> &'static str {
    match phase {
        Phase::Planned => "planned",
        Phase::Open { .. } => "open",
        Phase::Sealing { .. } => "sealing",
        Phase::Sealed { .. } => "sealed",
        Phase::Abandoning { .. } => "abandoning",
    }
}

/// What a run reached.
#[derive(Debug, Default)]
pub struct Coverage {
    /// Abstract states.
    pub states: BTreeSet<u64>,
    /// Abstract transitions.
    pub transitions: BTreeSet<u64>,
    /// Fault and phase.
    pub pairs: BTreeSet<(&'static str, &'static str)>,
    /// What sometimes must happen and did.
    pub marks: BTreeSet<&'static str>,
    blind: bool,
}

impl Coverage {
    /// Nothing reached yet. A blind one never reaches anything.
    #[must_use]
    pub fn new(blind: bool) -> Coverage {
        Coverage { blind, ..Coverage::default() }
    }

    /// A step became durable, while these faults were on.
    pub fn step(&mut self, _: &Seen<'_>, _: &[&'static str]) {}

    /// Something happened outside the core.
    pub fn happened(&mut self, _: &Truth<'_>, _: &Happened<'_>) {}

    /// A store did something.
    pub fn op(&mut self, _: bool, _: &str, _: &Result<ObjectReply, Fault>) {}

    /// A fault began, with the sites in some phase.
    pub fn fault<'a>(&mut self, _: &'static str, _: impl Iterator<Item = &'a BTreeMap<Key, Row>>) {}
}
