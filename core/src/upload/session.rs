//! The durable half of an upload session, and which change takes it where. Knows no claim and no ticket.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::vec::Vec;

use crate::change::UploadChange;
use crate::id::{JobId, PartNo, UploadId};
use crate::object::PartFacts;
use crate::refusal::{Broken, Illegal};
use crate::row::{Key, Phase, Row, UploadRow};
use crate::upload::parts::{self, Parts};
use crate::upload::plan;

/// Everything durable of uploads.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    rows: BTreeMap<JobId, UploadRow>,
    parts: BTreeMap<JobId, Parts>,
}

/// Acknowledged parts of a session that has none.
static NO_PARTS: Parts = BTreeMap::new();

impl Sessions {
    /// Takes a record.
    pub(super) fn load(&mut self, key: &Key, row: Row) {
        match (key, row) {
            (Key::Upload(job), Row::Upload(row)) => {
                self.rows.insert(*job, row);
            }
            (Key::Part(job, part), Row::Part(facts)) => {
                self.parts.entry(*job).or_default().insert(*part, facts);
            }
            (key, row) => panic!("a {:?} record under {key:?} is not for the uploads", row.kind()),
        }
    }

    /// The row of a session.
    pub(super) fn get(&self, job: JobId) -> Option<&UploadRow> {
        self.rows.get(&job)
    }

    /// Its acknowledged parts.
    pub(super) fn parts(&self, job: JobId) -> &Parts {
        self.parts.get(&job).unwrap_or(&NO_PARTS)
    }

    /// One acknowledged part.
    pub(super) fn part(&self, job: JobId, part: PartNo) -> Option<&PartFacts> {
        self.parts.get(&job)?.get(&part)
    }

    /// Every session.
    pub(super) fn iter(&self) -> impl Iterator<Item = (JobId, &UploadRow)> {
        self.rows.iter().map(|(job, row)| (*job, row))
    }

    /// Whether another session than `but` knows this multipart upload as its own.
    pub(super) fn knows(&self, upload: &UploadId, but: JobId) -> bool {
        self.iter().any(|(job, row)| job != but && multipart(&row.phase) == Some(upload))
    }

    /// Applies a change: one total function, used in life and in replay.
    pub(super) fn apply(&mut self, change: &UploadChange) -> Result<Vec<Key>, Illegal> {
        let job = of(change);
        let row = self.rows.get(&job);
        let refuse = |name| Err(Illegal { state: format!("{:?}", row.map(|row| &row.phase)), change: name });
        if let UploadChange::Planned(new) = change {
            if row.is_some() || new.phase != Phase::Planned {
                return refuse("upload.planned");
            }
            self.rows.insert(job, (**new).clone());
            return Ok(alloc::vec![Key::Upload(job)]);
        }
        let Some(row) = row else { return refuse("upload.*") };
        let mut next = row.clone();
        let mut touched = alloc::vec![Key::Upload(job)];
        match change {
            UploadChange::Planned(_) => return refuse("upload.planned"),
            UploadChange::Refenced { fence } => {
                let newer = (fence.attempt, fence.boot) > (row.fence.attempt, row.fence.boot);
                if !newer || matches!(row.phase, Phase::Abandoning { .. }) {
                    return refuse("upload.refenced");
                }
                next.fence = *fence;
            }
            UploadChange::SidecarStored { job: _ } => {
                if row.phase != Phase::Planned {
                    return refuse("upload.sidecar_stored");
                }
                next.sidecar_stored = true;
            }
            UploadChange::Creating { job: _ } => {
                if row.phase != Phase::Planned {
                    return refuse("upload.creating");
                }
                next.look_first = true;
            }
            UploadChange::Opened { job: _, upload, stray } => {
                if row.phase != Phase::Planned {
                    return refuse("upload.opened");
                }
                next.phase = Phase::Open { upload: upload.clone() };
                next.look_first = *stray;
            }
            UploadChange::PartStored { job: _, part, facts } => {
                let planned = (1..=row.plan.parts).contains(&part.0);
                let fits = planned && facts.len == plan::span(row.plan, row.source.len, *part).len;
                if !matches!(row.phase, Phase::Open { .. }) || !fits {
                    return refuse("upload.part_stored");
                }
                self.parts.entry(job).or_default().insert(*part, facts.clone());
                return Ok(alloc::vec![Key::Part(job, *part)]);
            }
            UploadChange::PartLost { job: _, part } => {
                next.phase = match &row.phase {
                    Phase::Open { upload } | Phase::Sealing { upload } => {
                        Phase::Open { upload: upload.clone() }
                    }
                    Phase::Planned | Phase::Sealed { .. } | Phase::Abandoning { .. } => {
                        return refuse("upload.part_lost");
                    }
                };
                if self.parts.get_mut(&job).and_then(|parts| parts.remove(part)).is_none() {
                    return refuse("upload.part_lost");
                }
                touched.push(Key::Part(job, *part));
            }
            UploadChange::Sealing { job: _ } => {
                let Phase::Open { upload } = &row.phase else { return refuse("upload.sealing") };
                if !parts::complete(row.plan, self.parts(job)) {
                    return refuse("upload.sealing");
                }
                next.phase = Phase::Sealing { upload: upload.clone() };
            }
            UploadChange::Sealed { job: _, etag } => {
                match row.phase {
                    Phase::Planned | Phase::Open { .. } | Phase::Sealing { .. } => {}
                    Phase::Sealed { .. } | Phase::Abandoning { .. } => return refuse("upload.sealed"),
                }
                next.phase = Phase::Sealed { etag: etag.clone() };
            }
            UploadChange::Restarted { job: _ } => {
                match row.phase {
                    Phase::Open { .. } | Phase::Sealing { .. } | Phase::Sealed { .. } => {}
                    Phase::Planned | Phase::Abandoning { .. } => return refuse("upload.restarted"),
                }
                next.phase = Phase::Planned;
                next.restarts += 1;
                // What the store lost may come back: a new upload is made only after a look, and one more at the end.
                next.look_first = row.plan.parts > 1;
                // A store that lost this may have lost what went before it.
                next.sidecar_stored = row.source.sidecar.is_none();
                touched.extend(self.drop_parts(job));
            }
            UploadChange::Abandoning { job: _ } => {
                next.phase = match &row.phase {
                    Phase::Open { upload } | Phase::Sealing { upload } => {
                        Phase::Abandoning { upload: Some(upload.clone()) }
                    }
                    Phase::Planned | Phase::Sealed { .. } => Phase::Abandoning { upload: None },
                    Phase::Abandoning { .. } => return refuse("upload.abandoning"),
                };
            }
            UploadChange::Distrusted { job: _ } => {
                if !matches!(row.phase, Phase::Open { .. }) {
                    return refuse("upload.distrusted");
                }
                return Ok(self.drop_parts(job));
            }
            UploadChange::Ended { job: _ } => {
                // An open multipart upload is never forgotten.
                if matches!(row.phase, Phase::Open { .. } | Phase::Sealing { .. }) {
                    return refuse("upload.ended");
                }
                self.rows.remove(&job);
                touched.extend(self.drop_parts(job));
                return Ok(touched);
            }
        }
        self.rows.insert(job, next);
        Ok(touched)
    }

    fn drop_parts(&mut self, job: JobId) -> Vec<Key> {
        let parts = self.parts.remove(&job).unwrap_or_default();
        parts.into_keys().map(|part| Key::Part(job, part)).collect()
    }

    /// Checks the invariants of the records alone.
    pub(super) fn check(&self) -> Result<(), Broken> {
        let broken = |invariant, saw| Err(Broken { invariant, saw });
        let mut uploads = alloc::collections::BTreeSet::new();
        for (job, row) in self.iter() {
            if row.fence.job != job {
                return broken("I13", format!("the session of job {job} is fenced by {:?}", row.fence));
            }
            if let Some(upload) = multipart(&row.phase)
                && !uploads.insert((&row.key, upload))
            {
                return broken("I21", format!("job {job} shares a multipart upload with another"));
            }
            let stored = self.parts(job);
            for (part, facts) in stored {
                let planned = (1..=row.plan.parts).contains(&part.0);
                if !planned || facts.len != plan::span(row.plan, row.source.len, *part).len {
                    return broken("I21", format!("part {part} of job {job} is not as planned: {facts:?}"));
                }
            }
            let whole = parts::complete(row.plan, stored);
            if matches!(row.phase, Phase::Sealing { .. }) && !whole {
                return broken("I18", format!("job {job} is to be completed with {} parts", stored.len()));
            }
            if matches!(row.phase, Phase::Planned) && !stored.is_empty() {
                return broken("I22", format!("job {job} counts parts of an upload that is not open"));
            }
            if row.restarts > crate::limits::RESTARTS_MAX {
                return broken("I27", format!("job {job} was begun again {} times", row.restarts));
            }
        }
        if let Some(job) = self.parts.keys().find(|job| !self.rows.contains_key(job)) {
            return broken("I21", format!("parts of job {job} have no session"));
        }
        Ok(())
    }
}

/// The multipart upload that a phase names.
pub(super) fn multipart(phase: &Phase) -> Option<&UploadId> {
    match phase {
        Phase::Open { upload } | Phase::Sealing { upload } => Some(upload),
        Phase::Abandoning { upload } => upload.as_ref(),
        Phase::Planned | Phase::Sealed { .. } => None,
    }
}

/// Which session a change is about.
pub(crate) fn of(change: &UploadChange) -> JobId {
    match change {
        UploadChange::Planned(row) => row.fence.job,
        UploadChange::Refenced { fence } => fence.job,
        UploadChange::SidecarStored { job }
        | UploadChange::Creating { job }
        | UploadChange::Opened { job, .. }
        | UploadChange::PartStored { job, .. }
        | UploadChange::PartLost { job, .. }
        | UploadChange::Sealing { job }
        | UploadChange::Sealed { job, .. }
        | UploadChange::Restarted { job }
        | UploadChange::Abandoning { job }
        | UploadChange::Distrusted { job }
        | UploadChange::Ended { job } => *job,
    }
}
