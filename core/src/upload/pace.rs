//! The share of each upload in the bandwidth: a queue of moments, so that uploads take turns; and for how long the policy
//! has let everything crawl. Asks nobody.

use core::time::Duration;

use crate::limits;
use crate::policy::Seat;
use crate::time::Mono;

/// The lowest limit at which a part of this size leaves in time. In bytes per second.
pub(super) fn least(part_size: u64) -> u64 {
    part_size.div_ceil(limits::PART_TIME_MAX.as_secs()).max(1)
}

/// For how long bytes keep the way for themselves, given bytes times nanoseconds per second.
fn takes(byte_nanos: u128, limit: u64) -> Duration {
    let nanos = byte_nanos.div_ceil(u128::from(limit.max(1)));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)).min(limits::PART_TIME_MAX)
}

/// When the next part may leave, over all uploads. Volatile.
#[derive(Debug, Default)]
pub(super) struct Pace {
    limit: Option<u64>,
    /// When the policy is to be asked again before a part leaves.
    again_at: Option<Mono>,
    /// Whether somebody wished so, so that those who wait for their turn ask as well.
    wished: bool,
    free_at: Mono,
    /// Since when whoever sits in the slot has let everything crawl.
    slow: Option<(Mono, Seat)>,
    /// When the last upload ended, while there is none.
    idle: Option<Mono>,
}

impl Pace {
    /// Whether the policy is to be asked again before a part leaves.
    pub(super) fn is_stale(&self, now: Mono) -> bool {
        self.again_at.is_none_or(|at| at <= now)
    }

    /// When the policy is to be asked again, though no new part may be there to send.
    pub(super) fn wished(&self) -> Option<Mono> {
        self.again_at.filter(|_| self.wished)
    }

    /// Who judges, or by what, is another: whoever is next asks, and be it somebody who waits for a turn.
    pub(super) fn turn(&mut self, now: Mono) {
        self.again_at = Some(now);
        self.wished = true;
    }

    /// Takes a verdict; `again` is when the policy wished to be asked again, if it did. Returns whether the limit is another:
    /// then nobody's turn counts any more, and `first` was the first of them. What was sent before it is paid under the new
    /// limit; what was not sent owes nothing.
    pub(super) fn set(
        &mut self,
        limit: Option<u64>,
        again: Option<Duration>,
        first: Option<Mono>,
        now: Mono,
    ) -> bool {
        let news = limit != self.limit;
        if news {
            let unpaid = now.until(first.unwrap_or(self.free_at)).as_nanos();
            let owed = unpaid * u128::from(self.limit.unwrap_or(0));
            self.free_at = now.after(limit.map_or(Duration::ZERO, |limit| takes(owed, limit)));
        }
        self.limit = limit;
        self.again_at = Some(now.after(again.unwrap_or(limits::BANDWIDTH_AGAIN)));
        self.wished = again.is_some();
        news
    }

    /// Books the next moment for so many bytes: now or later.
    pub(super) fn book(&mut self, bytes: u64, now: Mono) -> Mono {
        let Some(limit) = self.limit else { return now };
        let at = self.free_at.max(now);
        self.free_at = at.after(takes(u128::from(bytes) * 1_000_000_000, limit));
        at
    }

    /// Takes note whether everything crawls by the word of whoever sits there.
    pub(super) fn crawls(&mut self, crawls: bool, by: &Seat, now: Mono) {
        let since = self.slow_since(by).unwrap_or(now);
        self.slow = crawls.then(|| (since, by.clone()));
    }

    /// Since when whoever sits there has let everything crawl.
    pub(super) fn slow_since(&self, by: &Seat) -> Option<Mono> {
        self.slow.as_ref().filter(|(_, of)| of == by).map(|(since, _)| *since)
    }

    /// The last upload ended.
    pub(super) fn rest(&mut self, now: Mono) {
        self.idle = Some(now);
    }

    /// An upload begins where there is none. If there was none for a while, nothing was kept waiting.
    pub(super) fn begin(&mut self, now: Mono) {
        if self.idle.take() != Some(now) {
            self.slow = None;
        }
    }
}
