//! What planted bugs of an upload do, where it takes more than a line. Nothing of it is reached in an ordinary build.

use crate::change::UploadChange;
use crate::cx::{Cx, Owner};
use crate::id::{ETag, JobId, ObjectKey};
use crate::object::{ListedPart, ObjectOp, PartFacts, Store, Verb};
use crate::row::{Phase, UploadRow};
use crate::upload::live::{self, Aim};
use crate::upload::{Uploads, plan};

impl Uploads {
    /// Asks for `Complete`, and counts it as answered.
    pub(super) fn seal_unheard(&mut self, cx: &mut Cx<'_>, job: JobId) {
        let Some(row) = self.sessions.get(job) else { return };
        if let Some(op) = live::question(row, self.sessions.parts(job), &Aim::Seal) {
            cx.ask(Owner::Uploads, op);
        }
        let parts = self.sessions.parts(job).values().map(|part| &part.etag);
        let etag = crate::digest::multipart_etag(parts).unwrap_or_else(|| ETag::new("unknown"));
        self.enact(cx, UploadChange::Sealed { job, etag });
        self.done(cx, job);
    }

    /// Removes the recording at the edge, and does not look whether that happened.
    pub(super) fn remove_source(&self, cx: &mut Cx<'_>, job: JobId) {
        let Some(row) = self.sessions.get(job) else { return };
        cx.ask(
            Owner::Uploads,
            ObjectOp { store: Store::Edge, key: row.source.key.clone(), verb: Verb::Delete },
        );
    }

    /// Counts every part that the store lists.
    pub(super) fn believe(&mut self, cx: &mut Cx<'_>, job: JobId, listed: &[ListedPart]) {
        let Some(row) = self.sessions.get(job).cloned() else { return };
        for found in listed.iter().filter(|found| (1..=row.plan.parts).contains(&found.part.0)) {
            let fits = found.len == plan::span(row.plan, row.source.len, found.part).len;
            if fits && self.sessions.part(job, found.part).is_none() {
                let sha256 = found.sha256.unwrap_or(row.source.sha256);
                let facts = PartFacts { etag: found.etag.clone(), sha256, len: found.len };
                self.enact(cx, UploadChange::PartStored { job, part: found.part, facts });
            }
        }
        self.send_missing(job);
    }

    /// Begins again under another key.
    pub(super) fn start_over(&mut self, cx: &mut Cx<'_>, job: JobId) {
        let Some(row) = self.sessions.get(job).cloned() else { return };
        let key = alloc::format!("{}-again.mcap", row.key.as_str().trim_end_matches(".mcap"));
        let key = ObjectKey::new(&key).expect("keys in the cloud are far shorter than a key may be");
        self.enact(cx, UploadChange::Restarted { job });
        self.enact(cx, UploadChange::Ended { job });
        let sidecar_stored = row.source.sidecar.is_none();
        let row = UploadRow { key, phase: Phase::Planned, sidecar_stored, look_first: false, ..row };
        self.enact(cx, UploadChange::Planned(row.into()));
        self.aim(job, Aim::Look { gone: false });
    }
}
