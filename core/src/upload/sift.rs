//! Which of the multipart uploads that were left behind at our key is gone on with, and which are given up. Asks for
//! nothing.

use alloc::vec::Vec;

use crate::cx::Cx;
use crate::id::{JobId, UploadId};
use crate::limits;
use crate::object::ListedPart;
use crate::upload::live::{Aim, Then};
use crate::upload::{Uploads, parts};

impl Uploads {
    /// Multipart uploads of our key that no session calls its own.
    pub(super) fn strays(&self, job: JobId, found: &[UploadId]) -> Vec<UploadId> {
        let unknown = found.iter().filter(|upload| !self.sessions.knows(upload, job));
        unknown.take(limits::STRAYS_MAX).cloned().collect()
    }

    pub(super) fn on_sifted(
        &mut self,
        cx: &mut Cx<'_>,
        job: JobId,
        (mut left, best, mut drop): (Vec<UploadId>, Option<(UploadId, usize)>, Vec<UploadId>),
        listed: Option<&[ListedPart]>,
    ) {
        let (Some(upload), Some(row)) = (left.pop(), self.sessions.get(job)) else { return };
        let holds = listed.map(|listed| (parts::adoptable(row.plan, row.source.len, listed), listed.len()));
        let best = match (holds, best) {
            (None, best) => best,
            (Some((false, _)), best) => {
                drop.push(upload);
                best
            }
            (Some((true, parts)), Some((held, most))) if most >= parts => {
                drop.push(upload);
                Some((held, most))
            }
            (Some((true, parts)), best) => {
                drop.extend(best.map(|(held, _)| held));
                Some((upload, parts))
            }
        };
        self.sift(cx, job, left, best, drop);
    }

    /// Looks at the next upload that was left behind, or goes on with the best of them.
    pub(super) fn sift(
        &mut self,
        cx: &mut Cx<'_>,
        job: JobId,
        left: Vec<UploadId>,
        best: Option<(UploadId, usize)>,
        drop: Vec<UploadId>,
    ) {
        if left.is_empty() {
            let then = best.map_or(Then::Create, |(upload, _)| Then::Open(upload));
            return self.clear(cx, job, drop, then);
        }
        self.aim(job, Aim::Sift { left, best, drop });
    }

    /// Gives up the next stray, or goes on.
    pub(super) fn clear(&mut self, cx: &mut Cx<'_>, job: JobId, left: Vec<UploadId>, then: Then) {
        if !left.is_empty() {
            return self.aim(job, Aim::Clear { left, then });
        }
        match then {
            Then::Open(upload) => {
                if let Some(live) = self.live.get_mut(&job) {
                    live.stray = true;
                }
                self.open(cx, job, upload);
            }
            Then::Create => self.aim(job, Aim::Create),
        }
    }
}
