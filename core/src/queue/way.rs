//! The way to the destination: failures in a row, and when the next try is. Volatile: a restart tries at once.

use core::time::Duration;

use crate::chance::Chance;
use crate::effect::Notice;
use crate::limits;
use crate::outcome::Fault;
use crate::time::{Mono, Now, Wall};

/// How the way is.
///
/// ```text
/// Fine ──fault──► Blocked(streak 1) ──time──► Trying, one upload ──fault──► Blocked(streak 2) …
///  ▲                    │ an upload that still runs gets a part through       │
///  └────────────────────┴──────────────acknowledged───────────────────────────┘
/// ```
#[derive(Debug, Default)]
pub(super) struct Way {
    streak: u32,
    fault: Option<&'static str>,
    /// No upload begins before this.
    until: Option<(Mono, Wall)>,
}

impl Way {
    /// Failures in a row.
    pub(super) fn streak(&self) -> u32 {
        self.streak
    }

    /// The moment before which no upload begins, if it is yet to come.
    pub(super) fn blocked(&self, now: Mono) -> Option<Mono> {
        self.until.map(|(until, _)| until).filter(|until| *until > now)
    }

    /// How many uploads may run: one until the way has proved itself, then as many as a policy likes.
    pub(super) fn cap(&self) -> u32 {
        if self.streak > 0 { 1 } else { limits::UPLOADS_MAX }
    }

    /// An upload could not get through. Returns how long to wait. Uploads that fail while the way is blocked
    /// saw the same failure: they wait for the same moment and do not count again.
    pub(super) fn on_fault(&mut self, now: Now, fault: &Fault, chance: &mut Chance) -> Duration {
        let asked = match fault {
            Fault::Throttled { retry_after_ms } => Duration::from_millis(retry_after_ms.unwrap_or(0)),
            Fault::Offline
            | Fault::Unavailable { .. }
            | Fault::Auth
            | Fault::ClockSkew
            | Fault::NoDestination
            | Fault::Vanished(_)
            | Fault::Damaged(_)
            | Fault::Rejected(_)
            | Fault::Local(_) => Duration::ZERO,
        };
        let grown = match self.blocked(now.mono) {
            Some(until) => now.mono.until(until),
            None => {
                self.streak = self.streak.saturating_add(1);
                delay(self.streak, chance)
            }
        };
        let wait = grown.max(asked).min(limits::DELAY_MAX);
        self.fault = Some(fault.code());
        self.until = Some((now.mono.after(wait), now.wall.after(wait)));
        wait
    }

    /// The store acknowledged bytes. Returns whether that is news. A block keeps its time: the store may have
    /// asked for it.
    pub(super) fn on_acknowledged(&mut self) -> bool {
        let news = self.streak > 0;
        self.streak = 0;
        self.fault = None;
        news
    }

    /// For viewers.
    pub(super) fn notice(&self, now: Now) -> Notice {
        let next_try = self.blocked(now.mono).and(self.until).map(|(_, wall)| wall);
        Notice::Destination { streak: self.streak, fault: self.fault, next_try }
    }
}

/// `min(1 s · 2^(streak-1), 60 s)`, and up to a quarter more so that sites do not come back in step.
pub(super) fn delay(streak: u32, chance: &mut Chance) -> Duration {
    let doublings = streak.saturating_sub(1).min(16);
    let delay = (limits::WAY_DELAY_MIN * (1 << doublings)).min(limits::WAY_DELAY_MAX);
    let quarter = u64::try_from(delay.as_millis() / 4).unwrap_or(0);
    delay + Duration::from_millis(chance.below(quarter + 1))
}
