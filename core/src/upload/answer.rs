//! What the outcome of an operation means for an upload: changes of the row, and the next aim. Asks for nothing.

use alloc::vec::Vec;

use crate::bug::planted;
use crate::change::{UploadChange, UploadEnd};
use crate::cx::Cx;
use crate::digest::Sha256;
use crate::fact::Fact;
use crate::id::{ETag, JobId, PartNo, UploadId};
use crate::limits;
use crate::object::{Composite, Got, ListedPart, ObjectFacts, ObjectReply, PartFacts};
use crate::outcome::{Budget, Fault, Outcome, What};
use crate::row::Phase;
use crate::upload::live::Aim;
use crate::upload::resume::{self, Proof, Seen};
use crate::upload::{Uploads, parts, plan};

impl Uploads {
    /// How sending a part ended.
    pub(super) fn on_part(
        &mut self,
        cx: &mut Cx<'_>,
        job: JobId,
        part: PartNo,
        outcome: &Outcome<ObjectReply>,
    ) {
        match outcome {
            Outcome::Done(ObjectReply::PartStored(facts)) => self.on_part_stored(cx, job, part, facts),
            Outcome::Done(_) => self.on_misfit(cx, job),
            Outcome::Failed(fault) => self.on_failed(cx, job, fault),
            Outcome::Unknown => {
                if let Some(live) = self.live.get_mut(&job) {
                    live.todo.insert(part);
                }
                self.on_unknown(cx, job, limits::SEND_AGAIN);
            }
        }
    }

    fn on_part_stored(&mut self, cx: &mut Cx<'_>, job: JobId, part: PartNo, facts: &PartFacts) {
        let Some(row) = self.sessions.get(job) else { return };
        if facts.len != plan::span(row.plan, row.source.len, part).len {
            return self.end(cx, job, UploadEnd::Failed(Fault::Damaged(What::Part)));
        }
        self.enact(cx, UploadChange::PartStored { job, part, facts: facts.clone() });
        self.achieved(cx, job, Some(facts.len));
        self.publish_progress(cx, job);
    }

    /// How the question of the aim was answered.
    pub(super) fn on_answer(&mut self, cx: &mut Cx<'_>, job: JobId, outcome: &Outcome<ObjectReply>) {
        let Some(aim) = self.live.get(&job).map(|live| live.aim.clone()) else { return };
        match outcome {
            Outcome::Done(reply) => self.on_reply(cx, job, aim, reply),
            // A store may say "not there" as an answer or as a fault; it is the same.
            Outcome::Failed(Fault::Vanished(what)) if asks_whether(&aim) == Some(*what) => {
                self.on_reply(cx, job, aim.clone(), &nothing_there(&aim));
            }
            Outcome::Failed(Fault::Vanished(_))
                if planted!(cx.knobs, H03) && asks_whether(&aim).is_some() =>
            {
                self.on_reply(cx, job, aim.clone(), &nothing_there(&aim));
            }
            Outcome::Failed(fault) => self.on_failed(cx, job, fault),
            Outcome::Unknown => self.on_unknown(cx, job, limits::ASK_AGAIN),
        }
    }

    fn on_reply(&mut self, cx: &mut Cx<'_>, job: JobId, aim: Aim, reply: &ObjectReply) {
        match (aim, reply) {
            (Aim::Look { gone }, ObjectReply::Head(None)) => self.on_absent(cx, job, gone),
            (Aim::Look { .. }, ObjectReply::Head(Some(facts))) => self.on_present(cx, job, facts),
            (Aim::Read { etag, ours, part }, ObjectReply::Got(Got::Digest { len, sha256 })) => {
                let Some(row) = self.sessions.get(job) else { return };
                let expected = match part.and_then(|part| self.sessions.part(job, part)) {
                    Some(facts) => (facts.len, facts.sha256),
                    None => (row.source.len, row.source.sha256),
                };
                let more = part.filter(|part| part.0 < row.plan.parts);
                match more {
                    _ if expected != (*len, *sha256) => self.on_unequal(cx, job, ours),
                    Some(part) => self.aim(job, Aim::Read { etag, ours, part: Some(PartNo(part.0 + 1)) }),
                    None => self.on_equal(cx, job, etag),
                }
            }
            (Aim::Sidecar { found }, ObjectReply::Put(_)) => {
                self.enact(cx, UploadChange::SidecarStored { job });
                self.achieved(cx, job, None);
                match found {
                    Some(etag) => self.on_equal(cx, job, etag),
                    None => self.begin(job),
                }
            }
            (Aim::Put, ObjectReply::Put(etag)) => {
                self.enact(cx, UploadChange::Sealed { job, etag: etag.clone() });
                let len = self.sessions.get(job).map(|row| row.source.len);
                self.achieved(cx, job, len);
                self.publish_progress(cx, job);
                self.aim(job, Aim::Verify);
            }
            (Aim::Find, ObjectReply::Uploads(found)) => {
                self.sift(cx, job, self.strays(job, found), None, Vec::new());
            }
            (Aim::Sift { left, best, drop }, ObjectReply::Parts(listed)) => {
                self.on_sifted(cx, job, (left, best, drop), listed.as_deref());
            }
            (Aim::Clear { mut left, then }, ObjectReply::Aborted) => {
                left.pop();
                self.clear(cx, job, left, then);
            }
            (Aim::Create, ObjectReply::Created(upload)) => self.open(cx, job, upload.clone()),
            (Aim::Probe { doubt }, ObjectReply::Parts(Some(listed))) => {
                self.on_probed(cx, job, doubt, listed);
            }
            (Aim::Probe { .. }, ObjectReply::Parts(None)) => {
                if let Some(live) = self.live.get_mut(&job) {
                    live.gone = true;
                }
                self.aim(job, Aim::Look { gone: true });
            }
            (Aim::Match { left }, ObjectReply::Got(Got::Digest { len, sha256 })) => {
                self.on_matched(cx, job, left, *len, *sha256);
            }
            (Aim::Recheck, ObjectReply::Got(Got::Parts { len, sha256, composite })) => {
                self.on_rechecked(cx, job, (*len, *sha256), *composite);
            }
            (Aim::Seal, ObjectReply::Completed(etag)) => {
                self.enact(cx, UploadChange::Sealed { job, etag: etag.clone() });
                self.achieved(cx, job, None);
                self.aim(job, Aim::Verify);
                if planted!(cx.knobs, X07) {
                    self.remove_source(cx, job);
                }
            }
            (Aim::Verify, ObjectReply::Head(None)) => self.damaged(cx, job, Fault::Vanished(What::Object)),
            (Aim::Verify, ObjectReply::Head(Some(facts))) => self.on_verified(cx, job, facts),
            (
                Aim::Look { .. }
                | Aim::Read { .. }
                | Aim::Sidecar { .. }
                | Aim::Put
                | Aim::Find
                | Aim::Sift { .. }
                | Aim::Clear { .. }
                | Aim::Create
                | Aim::Probe { .. }
                | Aim::Send
                | Aim::Match { .. }
                | Aim::Recheck
                | Aim::Seal
                | Aim::Verify,
                _,
            ) => self.on_misfit(cx, job),
        }
    }

    /// Nothing stands at our key.
    fn on_absent(&mut self, cx: &mut Cx<'_>, job: JobId, gone: bool) {
        let Some(row) = self.sessions.get(job) else { return };
        match row.phase {
            Phase::Planned | Phase::Abandoning { .. } => self.sidecar_or(job, None),
            Phase::Open { .. } | Phase::Sealing { .. } if gone => self.restart(cx, job),
            Phase::Open { .. } | Phase::Sealing { .. } => self.aim(job, Aim::Probe { doubt: None }),
            Phase::Sealed { .. } => self.aim(job, Aim::Verify),
        }
    }

    /// Something stands at our key.
    fn on_present(&mut self, cx: &mut Cx<'_>, job: JobId, facts: &ObjectFacts) {
        let Some(row) = self.sessions.get(job) else { return };
        match resume::look(row, self.sessions.parts(job), facts) {
            Seen::Equal => self.on_equal(cx, job, facts.etag.clone()),
            Seen::Foreign if planted!(cx.knobs, X23) => self.on_unequal(cx, job, true),
            Seen::Read { ours } => self.read(job, facts.etag.clone(), ours),
            Seen::Damaged => self.on_unequal(cx, job, true),
            Seen::Foreign => self.on_unequal(cx, job, false),
        }
    }

    /// What we sealed is there: is it what it must be?
    fn on_verified(&mut self, cx: &mut Cx<'_>, job: JobId, facts: &ObjectFacts) {
        let Some(row) = self.sessions.get(job) else { return };
        match resume::weigh(row, self.sessions.parts(job), facts) {
            Proof::Equal => self.on_equal(cx, job, facts.etag.clone()),
            Proof::Differs => self.on_unequal(cx, job, true),
            Proof::Open => self.read(job, facts.etag.clone(), true),
        }
    }

    fn read(&mut self, job: JobId, etag: ETag, ours: bool) {
        let Some(row) = self.sessions.get(job) else { return };
        let by_parts = resume::parts_prove(row) && parts::complete(row.plan, self.sessions.parts(job));
        self.aim(job, Aim::Read { etag, ours, part: by_parts.then_some(PartNo(1)) });
    }

    /// Our recording is there, and it is proved.
    fn on_equal(&mut self, cx: &mut Cx<'_>, job: JobId, etag: ETag) {
        let Some(row) = self.sessions.get(job) else { return };
        match row.phase {
            Phase::Planned if !row.sidecar_stored => {
                return self.aim(job, Aim::Sidecar { found: Some(etag) });
            }
            // Somebody else may have put it, and our multipart upload still be open: it is given up after the end.
            Phase::Open { .. } | Phase::Sealing { .. } if !self.is_gone(job) && !planted!(cx.knobs, H06) => {
                return self.done_but_for_strays(cx, job, etag);
            }
            Phase::Planned | Phase::Open { .. } | Phase::Sealing { .. } => {
                self.enact(cx, UploadChange::Sealed { job, etag });
                self.achieved(cx, job, None);
            }
            Phase::Sealed { .. } | Phase::Abandoning { .. } => {}
        }
        self.done(cx, job);
    }

    /// What stands at our key is not our recording, or not whole.
    fn on_unequal(&mut self, cx: &mut Cx<'_>, job: JobId, ours: bool) {
        let Some(row) = self.sessions.get(job) else { return };
        match (&row.phase, resume::unequal(ours)) {
            (Phase::Sealed { .. }, _) => self.damaged(cx, job, Fault::Damaged(What::Object)),
            (_, Seen::Equal | Seen::Read { .. } | Seen::Foreign) => self.end(cx, job, UploadEnd::Foreign),
            (Phase::Planned | Phase::Abandoning { .. }, Seen::Damaged) => self.sidecar_or(job, None),
            (Phase::Open { .. } | Phase::Sealing { .. }, Seen::Damaged) => {
                self.damaged(cx, job, Fault::Damaged(What::Object));
            }
        }
    }

    /// The sidecar goes before the recording.
    fn sidecar_or(&mut self, job: JobId, found: Option<ETag>) {
        match self.sessions.get(job) {
            Some(row) if !row.sidecar_stored => self.aim(job, Aim::Sidecar { found }),
            Some(_) | None => self.begin(job),
        }
    }

    /// Nothing of ours is there: how to begin?
    fn begin(&mut self, job: JobId) {
        let Some(row) = self.sessions.get(job) else { return };
        let aim = match row.plan.parts {
            1 => Aim::Put,
            _ if row.look_first => Aim::Find,
            _ => Aim::Create,
        };
        self.aim(job, aim);
    }

    pub(super) fn open(&mut self, cx: &mut Cx<'_>, job: JobId, upload: UploadId) {
        let Some(live) = self.live.get_mut(&job) else { return };
        live.gone = false;
        let stray = live.stray;
        self.enact(cx, UploadChange::Opened { job, upload, stray });
        self.achieved(cx, job, None);
        self.send_missing(job);
    }

    pub(super) fn send_missing(&mut self, job: JobId) {
        let (Some(live), Some(row)) = (self.live.get_mut(&job), self.sessions.get(job)) else { return };
        live.todo = parts::missing(row.plan, self.sessions.parts(job));
        live.aim = Aim::Send;
    }

    /// What the store holds of our parts.
    fn on_probed(&mut self, cx: &mut Cx<'_>, job: JobId, doubt: Option<Fault>, listed: &[ListedPart]) {
        let believed = planted!(cx.knobs, B16);
        let lost = if believed { Vec::new() } else { parts::lost(self.sessions.parts(job), listed) };
        if let (Some(fault), true) = (doubt, lost.is_empty()) {
            // The store refused, and yet holds everything as we know it: asking again changes nothing.
            return self.end(cx, job, UploadEnd::Failed(fault));
        }
        for part in lost {
            self.enact(cx, UploadChange::PartLost { job, part });
        }
        self.publish_progress(cx, job);
        let Some(row) = self.sessions.get(job) else { return };
        match row.phase {
            Phase::Sealing { .. } => self.aim(job, Aim::Seal),
            Phase::Open { .. } | Phase::Planned | Phase::Sealed { .. } | Phase::Abandoning { .. } => {
                if believed {
                    return self.believe(cx, job, listed);
                }
                let mut left = parts::unanswered(row.plan, row.source.len, self.sessions.parts(job), listed);
                if planted!(cx.knobs, H15) {
                    left.clear();
                }
                self.match_next(job, left);
            }
        }
    }

    /// The store does not say what it holds of our parts: what it acknowledged counts, until it says otherwise.
    fn on_unlisted(&mut self, cx: &mut Cx<'_>, job: JobId, doubt: Option<Fault>) {
        let (Some(live), Some(row)) = (self.live.get_mut(&job), self.sessions.get(job)) else { return };
        match (doubt, &row.phase) {
            (None, Phase::Sealing { .. }) => self.aim(job, Aim::Seal),
            (None, _) => self.send_missing(job),
            (Some(Fault::Vanished(What::Upload)), _) => {
                live.gone = true;
                self.aim(job, Aim::Look { gone: true });
            }
            // Which part it is about is not to be had: all of them are sent again.
            (Some(fault @ (Fault::Vanished(_) | Fault::Damaged(_))), _) => self.damaged(cx, job, fault),
            (Some(fault), _) => self.end(cx, job, UploadEnd::Failed(fault)),
        }
    }

    /// Goes on with the next part whose answer was lost, or sends what is missing.
    fn match_next(&mut self, job: JobId, left: Vec<ListedPart>) {
        if left.is_empty() { self.send_missing(job) } else { self.aim(job, Aim::Match { left }) }
    }

    /// What the source holds where a part is stored whose answer was lost: if it is the same, the part counts.
    fn on_matched(
        &mut self,
        cx: &mut Cx<'_>,
        job: JobId,
        mut left: Vec<ListedPart>,
        len: u64,
        sha256: Sha256,
    ) {
        if let Some(listed) = left.pop()
            && listed.len == len
            && listed.sha256 == Some(sha256)
        {
            let facts = PartFacts { etag: listed.etag, sha256, len };
            self.enact(cx, UploadChange::PartStored { job, part: listed.part, facts });
            self.publish_progress(cx, job);
        }
        self.achieved(cx, job, None);
        self.match_next(job, left);
    }

    /// What the source is, and what its parts come to, in one reading: the upload is sealed if both are as they must be.
    fn on_rechecked(&mut self, cx: &mut Cx<'_>, job: JobId, whole: (u64, Sha256), composite: Composite) {
        let Some(row) = self.sessions.get(job) else { return };
        if whole != (row.source.len, row.source.sha256) {
            return self.source_lost(cx, job, Fault::Damaged(What::Source));
        }
        let sent = parts::composite(row.plan, self.sessions.parts(job));
        // (H08 is older than this comparison, which would hide it.)
        if composite != sent && !planted!(cx.knobs, H08 | H22) {
            // The source is whole, and some part is not of it: what was read for that part was something else. The
            // next attempt compares each part that the store lists with the source, and sends what differs.
            self.enact(cx, UploadChange::Distrusted { job });
            return self.end(cx, job, UploadEnd::Failed(Fault::Damaged(What::Part)));
        }
        self.enact(cx, UploadChange::Sealing { job });
        self.achieved(cx, job, None);
        self.aim(job, Aim::Seal);
        if planted!(cx.knobs, B14) {
            self.seal_unheard(cx, job);
        }
    }

    /// The store lost the multipart upload, and there is no object: begin again, said aloud.
    fn restart(&mut self, cx: &mut Cx<'_>, job: JobId) {
        if !self.restarted(cx, job) {
            return self.end(cx, job, UploadEnd::Failed(Fault::Vanished(What::Upload)));
        }
        self.publish_progress(cx, job);
        self.sidecar_or(job, None);
    }

    /// The object is there and is not what it must be, or is not there: the next attempt begins again.
    fn damaged(&mut self, cx: &mut Cx<'_>, job: JobId, fault: Fault) {
        self.restarted(cx, job);
        self.end(cx, job, UploadEnd::Failed(fault));
    }

    /// Returns whether the session may be begun again, and if so did it.
    fn restarted(&mut self, cx: &mut Cx<'_>, job: JobId) -> bool {
        let may = self.sessions.get(job).is_some_and(|row| row.restarts < limits::RESTARTS_MAX);
        if let (true, Some(live)) = (may, self.live.get(&job)) {
            cx.tell(Fact::UploadRestarted { fence: live.fence });
            self.enact(cx, UploadChange::Restarted { job });
        }
        may
    }

    /// The recording is in the cloud, verified. Should a `Create` that we gave up on come through after all, the
    /// janitor looks for it; nobody waits for that.
    pub(super) fn done(&mut self, cx: &mut Cx<'_>, job: JobId) {
        let Some(row) = self.sessions.get(job) else { return };
        let stray = row.look_first;
        let Phase::Sealed { etag } = row.phase.clone() else {
            panic!("I18: job {job} is done in phase {:?}", row.phase)
        };
        if stray {
            return self.done_but_for_strays(cx, job, etag);
        }
        self.enact(cx, UploadChange::Ended { job });
        self.end(cx, job, UploadEnd::Done { etag });
    }

    /// The recording is in the cloud, verified, and something of ours may be left there: that is for the janitor.
    fn done_but_for_strays(&mut self, cx: &mut Cx<'_>, job: JobId, etag: ETag) {
        self.enact(cx, UploadChange::Abandoning { job });
        self.end(cx, job, UploadEnd::Done { etag });
        self.begin_tidy(cx, job);
    }

    /// Whether the store said that it does not know our multipart upload.
    fn is_gone(&self, job: JobId) -> bool {
        self.live.get(&job).is_some_and(|live| live.gone)
    }

    /// The source is not what was verified, or is not there. Parts sent so far may be of what it was in between:
    /// none of them counts any more, should a later attempt find the source whole.
    fn source_lost(&mut self, cx: &mut Cx<'_>, job: JobId, fault: Fault) {
        let open = self.sessions.get(job).is_some_and(|row| matches!(row.phase, Phase::Open { .. }));
        if open && !self.sessions.parts(job).is_empty() && !planted!(cx.knobs, H08) {
            self.enact(cx, UploadChange::Distrusted { job });
        }
        self.end(cx, job, UploadEnd::SourceLost(fault));
    }

    /// It surely did not happen.
    fn on_failed(&mut self, cx: &mut Cx<'_>, job: JobId, fault: &Fault) {
        let Some(aim) = self.live.get(&job).map(|live| live.aim.clone()) else { return };
        let passable = fault.budget() != Budget::Connectivity;
        match (aim, fault) {
            (
                Aim::Sidecar { .. } | Aim::Put | Aim::Send,
                Fault::Vanished(What::Source) | Fault::Damaged(What::Source),
            ) => self.source_lost(cx, job, fault.clone()),
            // The edge calls its object an object; for an upload it is the source.
            (Aim::Recheck | Aim::Match { .. }, Fault::Vanished(_)) => {
                self.source_lost(cx, job, Fault::Vanished(What::Source));
            }
            (Aim::Recheck | Aim::Match { .. }, Fault::Damaged(_)) => {
                self.source_lost(cx, job, Fault::Damaged(What::Source))
            }
            (Aim::Send, Fault::Vanished(What::Upload)) => {
                self.forget_open(cx, job);
                self.aim(job, Aim::Probe { doubt: Some(fault.clone()) });
            }
            (Aim::Seal, Fault::Vanished(What::Upload)) => self.on_denied(cx, job, fault),
            (Aim::Seal, Fault::Vanished(What::Part) | Fault::Damaged(What::Part) | Fault::Rejected(_)) => {
                self.on_doubted(cx, job, fault);
            }
            // A store that cannot list is a store in which we cannot look: said aloud, and we go on.
            (Aim::Find, Fault::Rejected(_)) => {
                if let Some(live) = self.live.get(&job) {
                    cx.tell(Fact::UploadBlind { fence: live.fence });
                }
                self.aim(job, Aim::Create);
            }
            (Aim::Probe { doubt }, Fault::Rejected(_)) => self.on_unlisted(cx, job, doubt),
            // Strays must not keep an upload from its way: the janitor looks again at the end.
            (Aim::Clear { mut left, then }, _) if passable => {
                left.pop();
                self.clear(cx, job, left, then);
            }
            (
                Aim::Look { .. }
                | Aim::Read { .. }
                | Aim::Sidecar { .. }
                | Aim::Put
                | Aim::Find
                | Aim::Sift { .. }
                | Aim::Clear { .. }
                | Aim::Create
                | Aim::Probe { .. }
                | Aim::Send
                | Aim::Match { .. }
                | Aim::Recheck
                | Aim::Seal
                | Aim::Verify,
                _,
            ) => self.end(cx, job, UploadEnd::Failed(fault.clone())),
        }
    }

    /// The store does not know the upload that it should make an object of: it may have made it already. A store that
    /// has no such object and lists the upload all the same is asked again so many times, ever more rarely.
    fn on_denied(&mut self, cx: &mut Cx<'_>, job: JobId, fault: &Fault) {
        let Some(live) = self.live.get_mut(&job) else { return };
        let before = live.unanswered;
        if before >= limits::ASK_AGAIN {
            return self.end(cx, job, UploadEnd::Failed(fault.clone()));
        }
        live.unanswered += 1;
        if before > 0 {
            live.rest = Some(cx.now.mono.after(limits::ASK_DELAY * (1 << (before - 1))));
        }
        self.aim(job, Aim::Look { gone: false });
    }

    /// The store does not take the parts as we know them: which does it hold? One that never tells the same twice would
    /// be sent the same parts for ever.
    fn on_doubted(&mut self, cx: &mut Cx<'_>, job: JobId, fault: &Fault) {
        let Some(live) = self.live.get_mut(&job) else { return };
        if live.doubts >= limits::ASK_AGAIN {
            return self.end(cx, job, UploadEnd::Failed(fault.clone()));
        }
        live.doubts += 1;
        self.aim(job, Aim::Probe { doubt: Some(fault.clone()) });
    }

    /// No answer: it may have happened. Asked again after a rest, at most so many times in a row; what may have
    /// changed the store is looked for first.
    fn on_unknown(&mut self, cx: &mut Cx<'_>, job: JobId, most: u32) {
        let Some(live) = self.live.get_mut(&job) else { return };
        live.unanswered += 1;
        if live.unanswered > most {
            // The silence of our own store says nothing of the way to the cloud.
            let silent = match live.aim {
                Aim::Recheck | Aim::Match { .. } => Fault::Local("the edge store does not answer".into()),
                _ => Fault::Offline,
            };
            return self.end(cx, job, UploadEnd::Failed(silent));
        }
        if planted!(cx.knobs, B15) && live.aim == Aim::Seal {
            return self.start_over(cx, job);
        }
        let doublings = live.unanswered.saturating_sub(1).min(limits::ASK_AGAIN);
        live.rest = Some(cx.now.mono.after(limits::ASK_DELAY * (1 << doublings)));
        match live.aim {
            Aim::Create if planted!(cx.knobs, X22) => {}
            Aim::Create => live.aim = Aim::Find,
            Aim::Put | Aim::Seal => live.aim = Aim::Look { gone: false },
            Aim::Look { .. }
            | Aim::Read { .. }
            | Aim::Sidecar { .. }
            | Aim::Find
            | Aim::Sift { .. }
            | Aim::Clear { .. }
            | Aim::Probe { .. }
            | Aim::Send
            | Aim::Match { .. }
            | Aim::Recheck
            | Aim::Verify => {}
        }
    }

    /// An answer to another question: the edge broke its contract, and nothing can be concluded from it.
    fn on_misfit(&mut self, cx: &mut Cx<'_>, job: JobId) {
        let fault = Fault::Rejected("the answer fits another question".into());
        self.end(cx, job, UploadEnd::Failed(fault));
    }

    /// Something was achieved: unanswered questions before it do not count any more. `bytes` of the recording
    /// were acknowledged.
    fn achieved(&mut self, cx: &mut Cx<'_>, job: JobId, bytes: Option<u64>) {
        let Some(live) = self.live.get_mut(&job) else { return };
        live.unanswered = 0;
        if let Some(bytes) = bytes {
            cx.tell(Fact::PartAcknowledged { fence: live.fence, bytes });
        }
    }

    pub(super) fn aim(&mut self, job: JobId, aim: Aim) {
        if let Some(live) = self.live.get_mut(&job) {
            live.aim = aim;
            live.booked = None;
        }
    }
}

/// What must be gone for "it is not there" to answer the question; that something else is gone answers nothing.
fn asks_whether(aim: &Aim) -> Option<What> {
    match aim {
        Aim::Look { .. } | Aim::Verify => Some(What::Object),
        Aim::Sift { .. } | Aim::Probe { .. } | Aim::Clear { .. } => Some(What::Upload),
        Aim::Read { .. }
        | Aim::Sidecar { .. }
        | Aim::Put
        | Aim::Find
        | Aim::Create
        | Aim::Send
        | Aim::Match { .. }
        | Aim::Recheck
        | Aim::Seal => None,
    }
}

/// "It is not there" in the words that fit the question.
fn nothing_there(aim: &Aim) -> ObjectReply {
    match aim {
        Aim::Sift { .. } | Aim::Probe { .. } => ObjectReply::Parts(None),
        Aim::Clear { .. } => ObjectReply::Aborted,
        Aim::Look { .. }
        | Aim::Verify
        | Aim::Read { .. }
        | Aim::Sidecar { .. }
        | Aim::Put
        | Aim::Find
        | Aim::Create
        | Aim::Send
        | Aim::Match { .. }
        | Aim::Recheck
        | Aim::Seal => ObjectReply::Head(None),
    }
}
