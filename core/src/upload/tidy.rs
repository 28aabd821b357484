//! The janitor: gives up in the store what a session left behind, for as long as it takes. Never touches what
//! another session calls its own.

use alloc::vec::Vec;

use crate::bug::planted;
use crate::change::UploadChange;
use crate::cx::{Cx, Owner};
use crate::effect::Notice;
use crate::id::{JobId, Ticket, UploadId};
use crate::limits;
use crate::object::{ObjectOp, ObjectReply, Store, Verb};
use crate::outcome::{Fault, Outcome, What};
use crate::row::{Phase, UploadRow};
use crate::timers::TimerKey;
use crate::upload::{Uploads, session};

/// What is yet to be given up for one job. Volatile: derived again from the row.
#[derive(Debug)]
pub(super) struct Tidy {
    /// Multipart uploads to give up; the last first.
    left: Vec<UploadId>,
    /// Whether there may be some that we do not know of.
    unlisted: bool,
    /// The operation outstanding.
    pub(super) open: Option<Ticket>,
    /// Failures in a row.
    tries: u32,
}

impl Uploads {
    /// Begins, or begins again, to give up what an abandoned session left behind.
    pub(super) fn begin_tidy(&mut self, cx: &mut Cx<'_>, job: JobId) {
        let Some(row) = self.sessions.get(job) else { return };
        let left = session::multipart(&row.phase).cloned().into_iter().collect();
        self.tidies.insert(job, Tidy { left, unlisted: row.look_first, open: None, tries: 0 });
        self.advance_tidy(cx, job);
    }

    /// Asks for what is next.
    pub(super) fn advance_tidy(&mut self, cx: &mut Cx<'_>, job: JobId) {
        if cx.stopping || !cx.knobs.destination {
            return;
        }
        let (Some(tidy), Some(row)) = (self.tidies.get(&job), self.sessions.get(job)) else { return };
        if tidy.open.is_some() {
            return;
        }
        let verb = match tidy.left.last() {
            Some(upload) => Verb::Abort { upload: upload.clone() },
            None if !tidy.unlisted => {
                self.tidies.remove(&job);
                return self.enact(cx, UploadChange::Ended { job });
            }
            None if self.may_be_creating(job, row) => return self.later(cx, job),
            None => Verb::ListUploads,
        };
        let op = ObjectOp { store: Store::Cloud, key: row.key.clone(), verb };
        let ticket = cx.ask(Owner::Uploads, op);
        self.tickets.insert(ticket, job);
        if let Some(tidy) = self.tidies.get_mut(&job) {
            tidy.open = Some(ticket);
        }
    }

    /// Whether another session of the same key may have made an upload whose name it does not know yet: what is
    /// listed now could be that one.
    fn may_be_creating(&self, job: JobId, row: &UploadRow) -> bool {
        self.sessions.iter().any(|(other, theirs)| {
            let planned = matches!(theirs.phase, Phase::Planned);
            other != job && theirs.key == row.key && planned && theirs.look_first
        })
    }

    /// How an operation of the janitor ended.
    pub(super) fn on_tidied(&mut self, cx: &mut Cx<'_>, job: JobId, outcome: &Outcome<ObjectReply>) {
        let Some(tidy) = self.tidies.get_mut(&job) else { return };
        tidy.open = None;
        match outcome {
            Outcome::Done(ObjectReply::Aborted) => {
                tidy.left.pop();
            }
            // Any other thing that is gone says nothing of the upload.
            Outcome::Failed(Fault::Vanished(What::Upload)) if !tidy.left.is_empty() => {
                tidy.left.pop();
            }
            Outcome::Failed(Fault::Vanished(_)) if planted!(cx.knobs, H02) => {
                tidy.left.pop();
            }
            Outcome::Done(ObjectReply::Uploads(found)) => {
                let strays = found.iter().filter(|upload| !self.sessions.knows(upload, job));
                let strays: Vec<UploadId> = strays.take(limits::STRAYS_MAX).cloned().collect();
                // A full page may not be all: then look once more.
                tidy.unlisted = strays.len() == limits::STRAYS_MAX;
                tidy.left = strays;
            }
            // A store that cannot list holds nothing that we could find. It must say so more than once, and
            // then people are told.
            Outcome::Failed(fault @ Fault::Rejected(_))
                if tidy.left.is_empty() && (tidy.tries >= limits::ASK_AGAIN || planted!(cx.knobs, H09)) =>
            {
                tidy.unlisted = false;
                if let Some(row) = self.sessions.get(job) {
                    cx.publish(Notice::StrayUnseen { job, key: row.key.clone(), fault: fault.code() });
                }
            }
            Outcome::Done(_) | Outcome::Failed(_) | Outcome::Unknown => return self.later(cx, job),
        }
        tidy.tries = 0;
        self.advance_tidy(cx, job);
    }

    /// Tries again later, and ever more rarely.
    fn later(&mut self, cx: &mut Cx<'_>, job: JobId) {
        let Some(tidy) = self.tidies.get_mut(&job) else { return };
        let doublings = tidy.tries.min(16);
        tidy.tries += 1;
        let wait = (limits::ASK_DELAY * (1 << doublings)).min(limits::TIDY_DELAY_MAX);
        if !cx.stopping {
            cx.arm(TimerKey::Janitor(job), wait);
        }
    }
}
