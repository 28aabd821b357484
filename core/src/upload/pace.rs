//! The share of each upload in the bandwidth: a queue of moments, so that uploads take turns. Asks nobody.

use core::time::Duration;

use crate::limits;
use crate::time::Mono;

/// When the next part may leave, over all uploads. Volatile.
#[derive(Debug, Default)]
pub(super) struct Pace {
    limit: Option<u64>,
    /// When the policy is to be asked again before a part leaves.
    again_at: Option<Mono>,
    /// Whether it said so itself.
    wished: bool,
    free_at: Mono,
}

impl Pace {
    /// Whether the policy is to be asked again before a part leaves.
    pub(super) fn is_stale(&self, now: Mono) -> bool {
        self.again_at.is_none_or(|at| at <= now)
    }

    /// When the policy wished to be asked again, though no new part may be there to send.
    pub(super) fn wished(&self) -> Option<Mono> {
        self.again_at.filter(|_| self.wished)
    }

    /// What the policy judged by is another: ask it before the next part leaves.
    pub(super) fn turn(&mut self) {
        self.again_at = None;
    }

    /// Takes a verdict; `again` is when the policy wished to be asked again, if it did. Under a new limit old debts are
    /// void: returns whether it is one.
    pub(super) fn set(&mut self, limit: Option<u64>, again: Option<Duration>, now: Mono) -> bool {
        let news = limit != self.limit;
        if news {
            self.free_at = now;
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
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(limit.max(1));
        let takes = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)).min(limits::PART_TIME_MAX);
        self.free_at = at.after(takes);
        at
    }
}
