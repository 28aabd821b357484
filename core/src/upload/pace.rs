//! The share of each upload in the bandwidth: a queue of moments, so that uploads take turns. Asks nobody.

use core::time::Duration;

use crate::limits;
use crate::time::Mono;

/// When the next part may leave, over all uploads. Volatile.
#[derive(Debug, Default)]
pub(super) struct Pace {
    limit: Option<u64>,
    asked: Option<Mono>,
    free_at: Mono,
}

impl Pace {
    /// Whether the policy is to be asked again before a part leaves.
    pub(super) fn is_stale(&self, now: Mono) -> bool {
        self.asked.is_none_or(|asked| asked.until(now) >= limits::BANDWIDTH_AGAIN)
    }

    /// Takes a verdict. Under a new one, old debts are void.
    pub(super) fn set(&mut self, limit: Option<u64>, now: Mono) {
        if limit != self.limit {
            self.free_at = now;
        }
        self.limit = limit;
        self.asked = Some(now);
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
