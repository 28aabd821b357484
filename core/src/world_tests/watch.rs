//! What an observer outside the core sees of one step, and the questions it asks. Reads committed records, effects and
//! the ground truth of the models; never asks the core what it thinks.

use std::collections::BTreeMap;
use std::format;
use std::prelude::v1::*;

use super::stores::Stores;
use crate::effect::Output;
use crate::id::{Boot, EpisodeId, JobId};
use crate::input::Input;
use crate::knobs::Knobs;
use crate::refusal::Broken;
use crate::row::{EpisodeRow, JobRow, Key, Row, TaskRow, UploadRow};
use crate::time::Now;

/// Everything about one step, after its commit and before its effects leave.
pub(super) struct Seen<'a> {
    pub(super) now: Now,
    pub(super) boot: Boot,
    pub(super) knobs: &'a Knobs,
    pub(super) input: &'a Input,
    pub(super) out: &'a Output,
    /// What touched records were before.
    pub(super) before: &'a BTreeMap<Key, Option<Row>>,
    /// All committed records, this step's included.
    pub(super) rows: &'a BTreeMap<Key, Row>,
    pub(super) stores: &'a Stores,
    /// Whether verdicts are those of the built-in policies.
    pub(super) builtin: bool,
}

impl Seen<'_> {
    /// A record as it was before the step.
    pub(super) fn was(&self, key: &Key) -> Option<&Row> {
        match self.before.get(key) {
            Some(row) => row.as_ref(),
            None => self.rows.get(key),
        }
    }
}

/// Says what is broken.
pub(super) fn broken<T>(invariant: &'static str, saw: impl Into<String>) -> Result<T, Broken> {
    Err(Broken { invariant, saw: saw.into() })
}

/// Breaks unless `holds`.
pub(super) fn demand(
    invariant: &'static str,
    holds: bool,
    saw: impl FnOnce() -> String,
) -> Result<(), Broken> {
    if holds { Ok(()) } else { broken(invariant, saw()) }
}

pub(super) fn episode(rows: &BTreeMap<Key, Row>, id: EpisodeId) -> Option<&EpisodeRow> {
    match rows.get(&Key::Episode(id)) {
        Some(Row::Episode(row)) => Some(row),
        _ => None,
    }
}

pub(super) fn job(rows: &BTreeMap<Key, Row>, id: JobId) -> Option<&JobRow> {
    match rows.get(&Key::Job(id)) {
        Some(Row::Job(row)) => Some(row),
        _ => None,
    }
}

pub(super) fn upload(rows: &BTreeMap<Key, Row>, id: JobId) -> Option<&UploadRow> {
    match rows.get(&Key::Upload(id)) {
        Some(Row::Upload(row)) => Some(row),
        _ => None,
    }
}

pub(super) fn tasks(rows: &BTreeMap<Key, Row>) -> impl Iterator<Item = &TaskRow> {
    rows.values().filter_map(|row| if let Row::Task(row) = row { Some(row) } else { None })
}

pub(super) fn episodes(rows: &BTreeMap<Key, Row>) -> impl Iterator<Item = &EpisodeRow> {
    rows.values().filter_map(|row| if let Row::Episode(row) = row { Some(row) } else { None })
}

pub(super) fn jobs(rows: &BTreeMap<Key, Row>) -> impl Iterator<Item = &JobRow> {
    rows.values().filter_map(|row| if let Row::Job(row) = row { Some(row) } else { None })
}

pub(super) fn uploads(rows: &BTreeMap<Key, Row>) -> impl Iterator<Item = (JobId, &UploadRow)> {
    rows.iter().filter_map(|(key, row)| match (key, row) {
        (Key::Upload(job), Row::Upload(row)) => Some((*job, row)),
        _ => None,
    })
}

/// How many parts of a job the records count, and their bytes.
pub(super) fn parts(rows: &BTreeMap<Key, Row>, id: JobId) -> (usize, u64) {
    let from = Key::Part(id, crate::id::PartNo(0));
    let to = Key::Part(id, crate::id::PartNo(u16::MAX));
    let mut sum = (0, 0);
    for row in rows.range(from..=to).map(|(_, row)| row) {
        if let Row::Part(facts) = row {
            sum = (sum.0 + 1, sum.1 + facts.len);
        }
    }
    sum
}

/// What came of an input, for reports.
pub(super) fn line(input: &Input, out: &Output) -> String {
    let changes: Vec<&str> = out.changes.iter().map(|change| change.name()).collect();
    let mut text = format!("{}: {changes:?}", input.name());
    for effect in &out.effects {
        let effect: String = format!("{effect:?}").chars().take(260).collect();
        text.push_str("\n        ");
        text.push_str(&effect);
    }
    text
}
