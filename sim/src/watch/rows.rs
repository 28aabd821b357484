//! Look-ups in durable records and a table per site, for every family. Asks nothing of the core but its record types.

use std::collections::BTreeMap;

use tidegate_core::id::{EpisodeId, JobId, ObjectKey, PartNo, TaskId, WireId};
use tidegate_core::object::PartFacts;
use tidegate_core::row::{EpisodeRow, JobRow, Key, Row, TaskRow, UploadRow};

/// Durable records.
pub type Image = BTreeMap<Key, Row>;

/// What a watch knows of each site.
#[derive(Clone, Debug, Default)]
pub struct Sites<T>(Vec<T>);

impl<T: Default> Sites<T> {
    /// Of one site.
    pub fn at(&mut self, site: usize) -> &mut T {
        while self.0.len() <= site {
            self.0.push(T::default());
        }
        &mut self.0[site]
    }
}

/// A task.
#[must_use]
pub fn task<'a>(rows: &'a Image, id: &TaskId) -> Option<&'a TaskRow> {
    match rows.get(&Key::Task(id.clone())) {
        Some(Row::Task(row)) => Some(row),
        _ => None,
    }
}

/// An episode.
#[must_use]
pub fn episode(rows: &Image, id: EpisodeId) -> Option<&EpisodeRow> {
    match rows.get(&Key::Episode(id)) {
        Some(Row::Episode(row)) => Some(row),
        _ => None,
    }
}

/// A job.
#[must_use]
pub fn job(rows: &Image, id: JobId) -> Option<&JobRow> {
    match rows.get(&Key::Job(id)) {
        Some(Row::Job(row)) => Some(row),
        _ => None,
    }
}

/// The upload session of a job.
#[must_use]
pub fn upload(rows: &Image, id: JobId) -> Option<&UploadRow> {
    match rows.get(&Key::Upload(id)) {
        Some(Row::Upload(row)) => Some(row),
        _ => None,
    }
}

/// A part that counts.
#[must_use]
pub fn part(rows: &Image, id: JobId, part: PartNo) -> Option<&PartFacts> {
    match rows.get(&Key::Part(id, part)) {
        Some(Row::Part(facts)) => Some(facts),
        _ => None,
    }
}

/// Every episode: a scan.
pub fn episodes(rows: &Image) -> impl Iterator<Item = &EpisodeRow> {
    rows.values().filter_map(|row| if let Row::Episode(row) = row { Some(row) } else { None })
}

/// Every job: a scan.
pub fn jobs(rows: &Image) -> impl Iterator<Item = &JobRow> {
    rows.values().filter_map(|row| if let Row::Job(row) = row { Some(row) } else { None })
}

/// Every task: a scan.
pub fn tasks(rows: &Image) -> impl Iterator<Item = &TaskRow> {
    rows.values().filter_map(|row| if let Row::Task(row) = row { Some(row) } else { None })
}

/// Every upload session: a scan.
pub fn uploads(rows: &Image) -> impl Iterator<Item = (JobId, &UploadRow)> {
    rows.iter().filter_map(|(key, row)| match (key, row) {
        (Key::Upload(job), Row::Upload(row)) => Some((*job, row)),
        _ => None,
    })
}

/// Where the sidecar of a recording lies.
#[must_use]
pub fn sidecar_key(key: &ObjectKey) -> ObjectKey {
    let stem = key.as_str().strip_suffix(".mcap").unwrap_or(key.as_str());
    ObjectKey::new(&format!("{stem}.json")).expect("as legal as the key and no longer")
}

/// Where a part lies in its file: offset and length.
#[must_use]
pub fn span(part_size: u64, len: u64, part: u16) -> (u64, u64) {
    let offset = part_size.saturating_mul(u64::from(part).saturating_sub(1));
    (offset, len.saturating_sub(offset).min(part_size))
}

/// The recording that a frame for an uploader acknowledges, if it is such a frame.
#[must_use]
pub fn acked(text: &str) -> Option<WireId> {
    if !text.contains("upload_ack") {
        return None;
    }
    let frame: serde_json::Value = serde_json::from_str(text).ok()?;
    if frame.get("type")?.as_str()? != "upload_ack" {
        return None;
    }
    WireId::new(frame.get("task_id")?.as_str()?).ok()
}
