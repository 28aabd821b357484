//! How fast all uploads together go: asks the policy, overrules one that lets everything crawl, and gives each upload its
//! turn. Sends nothing itself.

use alloc::format;
use alloc::vec::Vec;

use crate::bug::planted;
use crate::cx::Cx;
use crate::id::JobId;
use crate::limits;
use crate::policy::{Author, Bandwidth, Clamped, Memo, Question, Slot, recheck};
use crate::time::Mono;
use crate::timers::TimerKey;
use crate::upload::{Uploads, pace};

impl Uploads {
    /// Whether it is this upload's turn to send so many bytes; if not, it is woken when it is.
    pub(super) fn may_send(&mut self, cx: &mut Cx<'_>, job: JobId, bytes: u64) -> bool {
        let now = cx.now.mono;
        let Some(live) = self.live.get(&job) else { return false };
        let wished = self.pace.wished().is_some_and(|at| at <= now);
        let stalled = self.is_stalled(cx);
        let mut behind = Vec::new();
        if wished || stalled || (live.booked.is_none() && self.pace.is_stale(now)) {
            behind = self.ask_bandwidth(cx, job, stalled);
        }
        let may = self.take_turn(cx, job, bytes);
        for other in behind {
            self.advance(cx, other);
        }
        may
    }

    /// Takes a turn, unless it has one already: whether that is now.
    fn take_turn(&mut self, cx: &mut Cx<'_>, job: JobId, bytes: u64) -> bool {
        let now = cx.now.mono;
        let Some(live) = self.live.get_mut(&job) else { return false };
        let at = live.booked.unwrap_or_else(|| self.pace.book(bytes, now));
        live.booked = (at > now).then_some(at);
        if at > now {
            let sooner = [self.pace.wished(), self.patience_ends(cx)];
            let wake = sooner.into_iter().flatten().filter(|sooner| *sooner > now).fold(at, Mono::min);
            cx.arm_at(TimerKey::Upload(job), wake);
        }
        at <= now
    }

    /// When the policy will have let everything crawl for as long as it may.
    fn patience_ends(&self, cx: &Cx<'_>) -> Option<Mono> {
        let since = self.pace.slow_since(cx.active.seat(Slot::Bandwidth))?;
        Some(since.after(cx.active.patience(Slot::Bandwidth, cx.knobs)))
    }

    /// Whether the policy let everything crawl for too long, nothing else stands in the way, and the built-in rules would
    /// go faster.
    fn is_stalled(&self, cx: &Cx<'_>) -> bool {
        let over = self.patience_ends(cx).is_some_and(|at| at <= cx.now.mono);
        over && cx.situation.streak == 0 && {
            let built_in = cx.knobs.builtin.rules().budget(&cx.situation);
            built_in.bytes_per_second.is_none_or(|limit| limit > pace::least(cx.knobs.part_size))
        }
    }

    /// Asks how fast all uploads together may go; `stalled`: the built-in rules, in the place of a policy that crawls. Under
    /// another limit everybody's turn is another: they take theirs in the order they had. `job` is about to take its own;
    /// returned are those behind it.
    fn ask_bandwidth(&mut self, cx: &mut Cx<'_>, job: JobId, stalled: bool) -> Vec<JobId> {
        let now = cx.now.mono;
        let name = cx.active.name(Slot::Bandwidth);
        let of =
            self.memo.as_ref().filter(|_| planted!(cx.knobs, X35)).map_or(name, |memo| memo.policy.as_str());
        let situation = cx.asked(Memo::told(self.memo.as_ref(), of));
        let least = pace::least(cx.knobs.part_size);
        let (mut note, mut crawls) = (0, false);
        let clamp = |v: Bandwidth| {
            note = v.memo;
            crawls = v.bytes_per_second.is_some_and(|limit| limit < least);
            let limit = v.bytes_per_second.map(|limit| limit.max(least));
            let (again, moved) = recheck(v.recheck_ms, limits::BANDWIDTH_AGAIN);
            let mut text = limit.map_or("no limit".into(), |limit| format!("{limit} B/s"));
            if v.recheck_ms != 0 {
                text += &format!(", asked again in {} s", again.as_secs());
            }
            let verdict = (limit, Some(again).filter(|_| v.recheck_ms != 0));
            Clamped { verdict, text, reason: v.reason, clamped: crawls || moved }
        };
        let question = Question::Bandwidth(situation.clone());
        let ((limit, again), by) = if stalled {
            cx.overrule(question, |p| p.budget(&situation), clamp)
        } else {
            cx.rule(question, |p| p.budget(&situation), clamp)
        };
        if let Author::Set(_) = by {
            self.memo = Memo::of(name, note);
        }
        // While the way is tried again, it is not the policy that keeps everybody waiting.
        self.pace.crawls(crawls && cx.situation.streak == 0, cx.active.seat(Slot::Bandwidth), now);
        let first = self.live.values().filter_map(|live| live.booked).min();
        if !self.pace.set(limit, again, first, now) {
            return Vec::new();
        }
        let mut turns: Vec<(Mono, JobId)> =
            self.live.iter_mut().filter_map(|(job, live)| Some((live.booked.take()?, *job))).collect();
        turns.sort_unstable();
        let mut ahead: Vec<JobId> = turns.into_iter().map(|(_, job)| job).collect();
        let own = ahead.iter().position(|other| *other == job);
        let behind = own.map_or(Vec::new(), |own| ahead.split_off(own));
        for other in ahead {
            self.advance(cx, other);
        }
        behind.into_iter().filter(|other| *other != job).collect()
    }

    /// What policies judge by is another, or they are others: they are asked anew before the next part leaves, be it in this
    /// very step because its turn has come.
    pub fn turn(&mut self, now: Mono) {
        self.pace.turn(now);
    }

    /// The same, once the step has done what it is about: whoever waits for a turn asks at once.
    pub fn on_turned(&mut self, cx: &mut Cx<'_>) {
        let waits = |(job, live): (&JobId, &super::Live)| live.booked.map(|_| *job);
        let waiting: Vec<JobId> = self.live.iter().filter_map(waits).collect();
        for job in waiting {
            self.advance(cx, job);
        }
    }
}
