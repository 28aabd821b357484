//! Makes a failing scenario small: fewer faults, fewer steps, fewer devices and sites, shorter, with plainer numbers, as
//! long as it fails in the same way. Deterministic; reads no clock (the caller's tells it when to stop) and runs nothing
//! (the caller's closure does).

mod entities;
mod magnitudes;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;
use std::time::Duration;

use crate::scenario::{Act, Scenario};

/// What shrinking may cost.
#[derive(Clone, Copy)]
pub struct Budget<'a> {
    /// Runs.
    pub tries: u64,
    /// Time by `clock`; what is running is not interrupted.
    pub within: Duration,
    /// How long this has taken so far.
    pub clock: &'a dyn Fn() -> Duration,
}

impl fmt::Debug for Budget<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Budget")
            .field("tries", &self.tries)
            .field("within", &self.within)
            .finish_non_exhaustive()
    }
}

/// What came of shrinking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shrunk {
    /// The smallest scenario found that fails in the same way; the one given, if that did not fail.
    pub scenario: Scenario,
    /// How it fails; `None` if the scenario given did not.
    pub signature: Option<String>,
    /// Runs it took.
    pub tries: u64,
    /// Steps and faults of the scenario given.
    pub events_before: usize,
    /// Steps and faults that are left.
    pub events_after: usize,
    /// How long it took, by the caller's clock.
    pub elapsed: Duration,
    /// Nothing that is tried here makes it smaller; otherwise the budget was spent first.
    pub minimal: bool,
}

/// The size of a scenario: its steps and faults.
#[must_use]
pub fn events(scenario: &Scenario) -> usize {
    scenario.steps.len() + scenario.faults.len()
}

/// Shrinks a scenario. `fails` runs one and says how it failed (`Failure::signature`), or `None` if it did not; only the
/// signature that the given scenario has counts.
pub fn shrink(
    scenario: &Scenario,
    fails: &mut dyn FnMut(&Scenario) -> Option<String>,
    budget: Budget<'_>,
) -> Shrunk {
    let events_before = events(scenario);
    let signature = fails(scenario);
    let mut search = Search {
        best: scenario.clone(),
        signature: signature.clone(),
        fails,
        budget,
        tries: 1,
        seen: BTreeSet::new(),
        spent: false,
    };
    if signature.is_some() {
        search.exhaust();
    }
    Shrunk {
        events_after: events(&search.best),
        scenario: search.best,
        tries: search.tries,
        minimal: signature.is_some() && !search.spent,
        signature,
        events_before,
        elapsed: (budget.clock)(),
    }
}

struct Search<'a> {
    best: Scenario,
    signature: Option<String>,
    fails: &'a mut dyn FnMut(&Scenario) -> Option<String>,
    budget: Budget<'a>,
    tries: u64,
    /// Hashes of what was tried: rounds ask for the same things again.
    seen: BTreeSet<u64>,
    spent: bool,
}

/// Up to this size pairs of events are tried as well; beyond it there are too many.
const PAIRS_UP_TO: usize = 14;

impl Search<'_> {
    /// Rounds of all passes until one changes nothing. Every acceptance is smaller by the measure of its pass, and no
    /// pass makes larger what another one made smaller, so this ends.
    fn exhaust(&mut self) {
        loop {
            let before = self.best.clone();
            self.drop_faults();
            self.drop_steps();
            self.drop_devices();
            self.drop_sites();
            self.simplify_acts();
            self.simplify_surroundings();
            self.lower_numbers();
            if events(&self.best) <= PAIRS_UP_TO {
                self.drop_pairs();
            }
            if self.spent || self.best == before {
                return;
            }
        }
    }

    /// Takes the candidate if it is something else and fails in the same way.
    fn take(&mut self, candidate: Scenario) -> bool {
        if candidate == self.best || self.spent {
            return false;
        }
        if self.tries >= self.budget.tries || (self.budget.clock)() >= self.budget.within {
            self.spent = true;
            return false;
        }
        if !self.seen.insert(fingerprint(&candidate)) {
            return false;
        }
        self.tries += 1;
        let same = (self.fails)(&candidate) == self.signature;
        if same {
            self.best = candidate;
        }
        same
    }

    fn drop_faults(&mut self) {
        self.drop_chunks(|s| s.faults.len(), |s, range| drop(s.faults.drain(range)));
    }

    fn drop_steps(&mut self) {
        self.drop_chunks(|s| s.steps.len(), |s, range| drop(s.steps.drain(range)));
    }

    fn drop_devices(&mut self) {
        self.drop_chunks(
            |s| s.devices.len(),
            |s, range| {
                for device in range.rev() {
                    entities::drop_device(s, device);
                }
            },
        );
    }

    fn drop_sites(&mut self) {
        for site in (0..self.best.sites.len()).rev() {
            if self.best.sites.len() > 1 {
                let mut candidate = self.best.clone();
                entities::drop_site(&mut candidate, site);
                self.take(candidate);
            }
        }
    }

    /// Delta debugging over one list: everything, halves, quarters, single ones; the last first, since what comes after
    /// the failure is never needed. Single ones again until none goes.
    fn drop_chunks(&mut self, len: fn(&Scenario) -> usize, without: fn(&mut Scenario, Range<usize>)) {
        let mut size = len(&self.best);
        while size > 0 {
            let mut end = len(&self.best);
            let mut went = false;
            while end > 0 {
                let start = end.saturating_sub(size);
                let mut candidate = self.best.clone();
                without(&mut candidate, start..end);
                went |= self.take(candidate);
                end = start.min(len(&self.best));
            }
            size = if size == 1 && went { 1 } else { size / 2 };
        }
    }

    /// Two events that are only needed for each other, one of which alone changes how it fails.
    fn drop_pairs(&mut self) {
        let mut second = events(&self.best);
        while second > 1 {
            second -= 1;
            for first in (0..second).rev() {
                let mut candidate = self.best.clone();
                drop_event(&mut candidate, second);
                drop_event(&mut candidate, first);
                if self.take(candidate) {
                    second = events(&self.best).min(second);
                    break;
                }
            }
        }
    }

    /// Does to each step what makes it do less.
    fn simplify_acts(&mut self) {
        for at in 0..self.best.steps.len() {
            let Act::Record(recording) = &self.best.steps[at].act else { continue };
            let created =
                Act::Create { device: recording.device, task: recording.task.clone(), config: true };
            if self.with_act(at, created) {
                continue;
            }
            for simpler in [magnitudes::unpaused, magnitudes::with_sidecar, magnitudes::small] {
                if let Act::Record(recording) = &self.best.steps[at].act {
                    let mut recording = recording.clone();
                    simpler(&mut recording);
                    self.with_act(at, Act::Record(recording));
                }
            }
        }
    }

    fn with_act(&mut self, at: usize, act: Act) -> bool {
        let mut candidate = self.best.clone();
        candidate.steps[at].act = act;
        self.take(candidate)
    }

    /// Knobs, links and stores as they are when nobody chose them; all at once, then one by one.
    fn simplify_surroundings(&mut self) {
        let indices = self.best.sites.len().max(self.best.devices.len()).max(self.best.faults.len());
        let mut candidate = self.best.clone();
        for plain in magnitudes::PLAIN {
            for index in 0..indices {
                plain(&mut candidate, index);
            }
        }
        if self.take(candidate) {
            return;
        }
        for plain in magnitudes::PLAIN {
            for index in 0..indices {
                let mut candidate = self.best.clone();
                plain(&mut candidate, index);
                self.take(candidate);
            }
        }
    }

    /// Every number as low as it goes: the least, else halved as long as that works, then an eighth less at a time.
    fn lower_numbers(&mut self) {
        for index in 0..magnitudes::count(&mut self.best) {
            let (mut value, least) = magnitudes::read(&mut self.best, index);
            if self.with_number(index, least) {
                continue;
            }
            for part in [2, 8] {
                while value > least {
                    let next = magnitudes::round(value - ((value - least) / part).max(1)).max(least);
                    if next >= value || !self.with_number(index, next) {
                        break;
                    }
                    value = next;
                }
            }
        }
    }

    fn with_number(&mut self, index: usize, value: u64) -> bool {
        let mut candidate = self.best.clone();
        magnitudes::write(&mut candidate, index, value);
        self.take(candidate)
    }
}

/// Takes away one event: steps first, then faults, in the order of the scenario.
fn drop_event(scenario: &mut Scenario, at: usize) {
    match at.checked_sub(scenario.steps.len()) {
        None => drop(scenario.steps.remove(at)),
        Some(fault) => drop(scenario.faults.remove(fault)),
    }
}

/// FNV-1a over the debug text, in 64 bits: two that collide cost one candidate.
fn fingerprint(scenario: &Scenario) -> u64 {
    struct Fnv(u64);
    impl fmt::Write for Fnv {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            for byte in text.bytes() {
                self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
            }
            Ok(())
        }
    }
    let mut hash = Fnv(0xcbf2_9ce4_8422_2325);
    fmt::write(&mut hash, format_args!("{scenario:?}")).expect("hashing cannot fail");
    hash.0
}
