//! When a due job may begin: the way, the policies, the one deadline of the queue. Never ends a job.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::bug::{planted, scattered};
use crate::change::JobChange;
use crate::cx::Cx;
use crate::effect::{Notice, QueueCounts};
use crate::id::{Fence, JobId};
use crate::limits;
use crate::policy::{Clamped, Ordering, Question, Situation, Waiting};
use crate::queue::Queue;
use crate::queue::claim::{self, Due};
use crate::row::JobState;
use crate::time::{Now, Wall};
use crate::timers::TimerKey;

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
        if closed || counts.due == 0 || counts.uploading >= self.way.cap() {
            return;
        }
        if self.allowed.is_some_and(|(at, limit)| at == now && limit <= counts.uploading) {
            return;
        }
        let situation = self.situation(cx, counts);
        let most = if planted!(cx.knobs, H17) { limits::UPLOADS_MAX } else { cx.knobs.uploads_max() };
        let (limit, mut by) = cx.rule(
            Question::Concurrency(situation.clone()),
            |p| p.limits(&situation),
            |v| {
                let verdict = v.uploads.min(most);
                let text = format!("{verdict} at once");
                Clamped { verdict, text, reason: v.reason, clamped: verdict != v.uploads }
            },
        );
        self.allowed = Some((now, limit));
        let free = limit.min(self.way.cap()).saturating_sub(counts.uploading) as usize;
        if free == 0 {
            return;
        }
        let due = self.candidates(cx.now);
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

    /// Due jobs as policies see them: those that wait longest, so that a long backlog moves through the window.
    fn candidates(&self, now: Now) -> Vec<Due> {
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
                labels: Vec::new(),
            };
            Some(Due { shown, overdue: waited > limits::WAIT_MAX })
        };
        self.waiting.due_at(now.mono).take(limits::CANDIDATES).filter_map(shown).collect()
    }

    fn situation(&self, cx: &Cx<'_>, counts: QueueCounts) -> Situation {
        Situation {
            due: counts.due,
            waiting: counts.waiting,
            uploading: counts.uploading,
            parked: counts.parked,
            streak: self.way.streak(),
            ..cx.situation.clone()
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
            None => Some(now.after(limits::LIMITS_AGAIN)),
        };
        match [again, self.waiting.next_after(now)].into_iter().flatten().min() {
            Some(at) if cx.knobs.destination && !cx.stopping => cx.arm_at(TimerKey::Queue, at),
            Some(_) | None => cx.disarm(&TimerKey::Queue),
        }
    }
}
