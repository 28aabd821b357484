//! When a due job may begin: the way, the policies, the one deadline of the queue. Never ends a job.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use crate::bug::{planted, scattered};
use crate::change::JobChange;
use crate::cx::Cx;
use crate::effect::{Notice, QueueCounts};
use crate::id::{Fence, JobId};
use crate::labels::labels_of;
use crate::limits;
use crate::policy::{
    Author, Clamped, Memo, Ordering, Question, Seat, Situation, Slot, UploadLimits, Waiting, recheck,
};
use crate::queue::Queue;
use crate::queue::claim::{self, Due};
use crate::row::JobState;
use crate::time::{Mono, Wall};
use crate::timers::TimerKey;

/// The last verdict on concurrency.
#[derive(Clone, Copy, Debug)]
pub(super) struct Allowed {
    /// When it was given.
    at: Mono,
    /// How many uploads may run.
    limit: u32,
    /// When to ask again while jobs are due.
    again: Duration,
}

/// Due jobs that a policy alone keeps from beginning. The site's own reasons end it: a blocked way, no destination, a
/// stop, an upload that runs.
#[derive(Clone, Debug)]
pub(super) struct Held {
    since: Mono,
    /// By which policy: another one has its own time.
    by: Seat,
}

impl Queue {
    /// After everything that happened: claims what may be claimed, arms the one deadline, tells viewers.
    pub(super) fn settle(&mut self, cx: &mut Cx<'_>) {
        self.admit(cx);
        self.arm(cx);
        let counts = self.counts(cx.now);
        if counts != self.shown {
            self.shown = counts;
            cx.publish(Notice::Queue(counts));
        }
    }

    /// Claims due jobs as far as the way and the policies allow.
    fn admit(&mut self, cx: &mut Cx<'_>) {
        let now = cx.now.mono;
        let counts = self.counts(cx.now);
        let closed = cx.stopping || !cx.knobs.destination || self.way.blocked(now).is_some();
        let another = self.held.as_ref().is_some_and(|held| held.by != *cx.active.seat(Slot::Concurrency));
        if closed || counts.due == 0 || counts.uploading > 0 || another {
            self.held = None;
        }
        if closed || counts.due == 0 || counts.uploading >= self.way.cap() {
            return;
        }
        if self.allowed.is_some_and(|last| last.at == now && last.limit <= counts.uploading) {
            return self.hold(cx, counts);
        }
        let name = cx.active.name(Slot::Concurrency);
        let of =
            self.memo.as_ref().filter(|_| planted!(cx.knobs, X35)).map_or(name, |memo| memo.policy.as_str());
        let situation = self.situation(cx, counts, Memo::told(self.memo.as_ref(), of));
        let most = if planted!(cx.knobs, H17) { limits::UPLOADS_MAX } else { cx.knobs.uploads_max() };
        let mut note = 0;
        let clamp = |v: UploadLimits| {
            note = v.memo;
            let limit = v.uploads.min(most);
            let (again, moved) = recheck(v.recheck_ms, limits::LIMITS_AGAIN);
            let mut text = format!("{limit} at once");
            if v.recheck_ms != 0 {
                text += &format!(", asked again in {} s", again.as_secs());
            }
            let verdict = Allowed { at: now, limit, again };
            Clamped { verdict, text, reason: v.reason, clamped: limit != v.uploads || moved }
        };
        let question = Question::Concurrency(situation.clone());
        let patience = cx.active.patience(Slot::Concurrency, cx.knobs);
        let stalled = self.held.as_ref().is_some_and(|held| held.since.until(now) >= patience);
        let (allowed, mut by) = if stalled {
            cx.overrule(question, |p| p.limits(&situation), clamp)
        } else {
            cx.rule(question, |p| p.limits(&situation), clamp)
        };
        if let Author::Set(_) = by {
            self.memo = Memo::of(name, note);
        }
        self.allowed = Some(allowed);
        let free = allowed.limit.min(self.way.cap()).saturating_sub(counts.uploading) as usize;
        if free == 0 {
            if stalled {
                self.held = None;
            }
            return self.hold(cx, counts);
        }
        self.held = None;
        let due = self.candidates(cx);
        let situation = self.situation(cx, counts, 0);
        let mut scores = claim::built_in(&due);
        if due.len() > free {
            let shown: Vec<Waiting> = due.iter().map(|d| d.shown.clone()).collect();
            let (ruled, author) = cx.rule(
                Question::Order(situation.clone(), shown.clone()),
                |p| p.score(&situation, &shown),
                |Ordering { scores, reason }| {
                    let fits = scores.len() == shown.len();
                    let text = format!("{} scores for {}", scores.len(), shown.len());
                    Clamped { verdict: fits.then_some(scores), text, reason, clamped: !fits }
                },
            );
            scores = ruled.unwrap_or(scores);
            by = author;
        }
        let mut chosen = claim::choose(&due, &scores, free);
        if planted!(cx.knobs, B29) {
            chosen.sort_by_key(|job| self.jobs.get(job).map(scattered));
        }
        for job in chosen {
            let Some(row) = self.jobs.get(&job) else { continue };
            let fence = Fence { job, attempt: row.claims + 1, boot: cx.boot() };
            self.enact(cx, JobChange::Claimed { fence, at: cx.now.wall, ruled_by: by.set() });
            self.tell_claimed(cx, fence);
        }
    }

    /// The policy lets nothing more begin. If nothing runs either, its patience is being spent.
    fn hold(&mut self, cx: &Cx<'_>, counts: QueueCounts) {
        if counts.uploading == 0 && self.held.is_none() {
            self.held = Some(Held { since: cx.now.mono, by: cx.active.seat(Slot::Concurrency).clone() });
        }
    }

    /// Due jobs as policies see them: those that wait longest, so that a long backlog moves through the window.
    fn candidates(&self, cx: &Cx<'_>) -> Vec<Due> {
        let now = cx.now;
        let ago = |then: Wall| u64::try_from(then.until(now.wall).as_millis()).unwrap_or(u64::MAX);
        let shown = |job: JobId| {
            let row = self.jobs.get(&job)?;
            let waited = match row.state {
                JobState::Pending { due, .. } if planted!(self, X09) && due > now.wall => return None,
                JobState::Pending { due, .. } => due.until(now.wall),
                JobState::Claimed { .. }
                | JobState::Parked { .. }
                | JobState::Completed { .. }
                | JobState::Failed { .. } => return None,
            };
            let shown = Waiting {
                job: job.0,
                device: String::from(row.device.as_str()),
                size: row.source.len,
                spent: row.spent,
                queued_ms: ago(row.queued_at),
                age_ms: ago(row.approved_at),
                labels: labels_of(&cx.knobs.labels, &row.device),
            };
            Some(Due { shown, overdue: waited > limits::WAIT_MAX })
        };
        self.waiting.due_at(now.mono).take(limits::CANDIDATES).filter_map(shown).collect()
    }

    fn situation(&self, cx: &mut Cx<'_>, counts: QueueCounts, memo: u64) -> Situation {
        Situation {
            due: counts.due,
            waiting: counts.waiting,
            uploading: counts.uploading,
            parked: counts.parked,
            streak: self.way.streak(),
            goodput: self.goodput.rate(cx.now.mono),
            ..cx.asked(memo)
        }
    }

    /// The next moment at which something may change by itself: a job becomes due, the block of the way ends, or
    /// a policy may have changed its mind about how many uploads run.
    fn arm(&mut self, cx: &mut Cx<'_>) {
        let now = cx.now.mono;
        let counts = self.counts(cx.now);
        let again = match self.way.blocked(now) {
            _ if counts.due == 0 => None,
            Some(until) => Some(until),
            None if counts.uploading >= self.way.cap() => None,
            None if planted!(cx.knobs, X13) => None,
            None => {
                let again = self.allowed.map_or(limits::LIMITS_AGAIN, |allowed| allowed.again);
                let patience = cx.active.patience(Slot::Concurrency, cx.knobs);
                let stuck = self.held.as_ref().map_or(again, |held| now.until(held.since.after(patience)));
                // Never now: whoever is asked now was asked.
                Some(now.after(again.min(stuck).max(limits::RECHECK_MIN)))
            }
        };
        match [again, self.waiting.next_after(now)].into_iter().flatten().min() {
            Some(at) if cx.knobs.destination && !cx.stopping => cx.arm_at(TimerKey::Queue, at),
            Some(_) | None => cx.disarm(&TimerKey::Queue),
        }
    }
}
