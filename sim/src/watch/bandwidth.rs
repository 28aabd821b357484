//! Invariants of how fast a site may send: what is recorded is what holds (I26); a policy that lets everything crawl is
//! replaced when its time is up, and not before; whoever waits for a turn is heard at once when the policies, or what they
//! judge by, are others (L6). Reads decisions, records and what leaves the site.

use std::collections::BTreeMap;
use std::time::Duration;

use tidegate_core::effect::Effect;
use tidegate_core::id::{Boot, ObjectKey, PolicySetId, Ticket};
use tidegate_core::input::Input;
use tidegate_core::limits;
use tidegate_core::policy::{
    Author, Decision, PolicyFault, PolicySet, Question, Seat, Situation, Slot, Surroundings, Verdict,
};
use tidegate_core::row::{JobRow, JobState, Key, Row};
use tidegate_core::time::Mono;

use super::rows::{self, Sites};
use super::{Broken, Happened, Premises, Seen, Truth, Watch, demand, seats};

/// An upload that has asked nothing for longer waits for its turn: no rest after a failure is as long.
const REST_MAX: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
struct Site {
    /// Since when whoever sits in the slot has let everything crawl.
    slow: Option<(Mono, Seat)>,
    /// Since when nothing is uploaded, while that is noted.
    idle: Option<Mono>,
    /// Operations that nobody answered yet.
    open: BTreeMap<Ticket, ObjectKey>,
    /// When something was last asked or heard of an object.
    heard: BTreeMap<ObjectKey, Mono>,
    /// The set of the step before.
    asked: Option<PolicySetId>,
    around: Surroundings,
    stopping: bool,
}

/// Watches the bandwidth.
#[derive(Debug, Default)]
pub struct BandwidthWatch {
    premises: Premises,
    sites: Sites<Site>,
}

/// The lowest limit there is: a part of the configured size within the longest time that one may take.
fn least(seen: &Seen<'_>) -> u64 {
    seen.knobs.part_size.div_ceil(limits::PART_TIME_MAX.as_secs()).max(1)
}

/// Whether the built-in rules would go faster than the lowest limit.
fn faster(seen: &Seen<'_>) -> bool {
    seen.knobs.builtin.bytes_per_second.is_none_or(|limit| limit > least(seen))
}

/// How long the policy that rules this step may let everything crawl on purpose.
fn patience(seen: &Seen<'_>, set: &PolicySet) -> Duration {
    let own = set.module(Slot::Bandwidth).and_then(|hash| match seen.was(&Key::Module(hash)) {
        Some(Row::Module(row)) => row.facts.as_ref().map(|facts| facts.patience_ms),
        _ => None,
    });
    Duration::from_millis(own.unwrap_or(0).max(seen.knobs.patience_ms)).min(limits::PATIENCE_MAX)
}

/// Whether a job is being uploaded by this process.
fn is_claimed(job: &JobRow, boot: Boot) -> bool {
    matches!(&job.state, JobState::Claimed { fence, .. } if fence.boot == boot)
}

/// What was asked about the bandwidth, and the limit that was the answer.
fn ruled(decision: &Decision) -> Option<(&Situation, Option<u64>)> {
    match (&decision.question, &decision.verdict) {
        (Question::Bandwidth(situation), Verdict::Bandwidth(said)) => {
            Some((situation, said.bytes_per_second))
        }
        _ => None,
    }
}

impl Site {
    /// L6: a policy under which no part leaves in time is overruled as soon as its patience is over and anybody looks, if
    /// the built-in rules would go faster; and not before. I26: what holds instead of such a limit is said to be bounded.
    fn crawls(&mut self, seen: &Seen<'_>, set: &PolicySet, premises: &mut Premises) -> Result<(), Broken> {
        let (now, active) = (seen.now.mono, set.seat(Slot::Bandwidth));
        if self.idle.take_if(|since| *since < now).is_some() {
            self.slow = None;
        }
        for decision in &seen.out.decisions {
            let Some((situation, said)) = ruled(decision) else { continue };
            let slow = said.is_some_and(|limit| limit < least(seen));
            if slow {
                premises.met("I26.raised");
            }
            demand("I26", decision.clamped || !slow, || {
                format!(
                    "{said:?} B/s is less than a part in time, and {} is said to be that",
                    decision.enacted
                )
            })?;
            let since = self.slow.as_ref().filter(|(_, by)| by == active).map(|(since, _)| *since);
            let over = since.is_some_and(|since| since.after(patience(seen, set)) <= now)
                && situation.streak == 0
                && faster(seen);
            let stalled = matches!(decision.by, Author::Builtin { why: PolicyFault::Stalled, .. });
            if stalled {
                premises.met("L6.crawl");
            }
            demand("L6", stalled == over, || {
                format!("everything crawls since {since:?}, and bandwidth is ruled by {:?}", decision.by)
            })?;
            let slow = slow && situation.streak == 0;
            self.slow = slow.then(|| (since.unwrap_or(now), active.clone()));
        }
        let uploads = || rows::jobs(seen.rows).any(|job| is_claimed(job, seen.boot));
        if self.slow.is_some() && uploads() {
            self.idle = None;
        } else if self.slow.is_some() {
            self.idle = self.idle.or(Some(now));
        }
        Ok(())
    }

    /// L6: others rule, or they judge by something else: whoever waits for a turn is heard in this very step.
    fn turned(&mut self, seen: &Seen<'_>, set: &PolicySet, premises: &mut Premises) -> Result<(), Broken> {
        let mut turned = self.asked.is_some_and(|asked| asked != set.id());
        self.asked = Some(set.id());
        if let Input::Surroundings(around) = seen.input {
            turned |= around.turned(&self.around);
            self.around = *around;
        }
        self.stopping |= matches!(seen.input, Input::Shutdown);
        if !turned || self.stopping {
            return Ok(());
        }
        let waits = |job: &&JobRow| {
            let before =
                matches!(seen.was(&Key::Job(job.id)), Some(Row::Job(was)) if is_claimed(was, seen.boot));
            before && is_claimed(job, seen.boot) && self.rests(job, seen.now.mono)
        };
        let Some(job) = rows::jobs(seen.rows).find(waits) else { return Ok(()) };
        premises.met("L6.turned");
        let asks = seen.out.decisions.iter().any(|decision| ruled(decision).is_some());
        demand("L6", asks, || {
            format!("job {} waits for its turn, {} turns, and nobody is asked", job.id, seen.input.name())
        })
    }

    /// Whether nothing is under way for a job, and was not for a while.
    fn rests(&self, job: &JobRow, now: Mono) -> bool {
        let keys = [job.key.clone(), rows::sidecar_key(&job.key), job.source.key.clone()];
        let last = keys.iter().filter_map(|key| self.heard.get(key)).max();
        last.is_some_and(|last| last.until(now) > REST_MAX)
            && !self.open.values().any(|key| keys.contains(key))
    }

    fn hears(&mut self, seen: &Seen<'_>) {
        let now = seen.now.mono;
        if let Input::Object { ticket, .. } = seen.input
            && let Some(key) = self.open.remove(ticket)
        {
            self.heard.insert(key, now);
        }
        for effect in &seen.out.effects {
            if let Effect::Object { ticket, op } = effect {
                self.open.insert(*ticket, op.key.clone());
                self.heard.insert(op.key.clone(), now);
            }
        }
    }
}

impl Watch for BandwidthWatch {
    fn step(&mut self, seen: &Seen<'_>) -> Result<(), Broken> {
        let (site, premises) = (self.sites.at(seen.site), &mut self.premises);
        if let Input::Boot { .. } = seen.input {
            *site = Site::default();
        }
        let set = seats::active(seen);
        site.crawls(seen, &set, premises)?;
        site.turned(seen, &set, premises)?;
        site.hears(seen);
        Ok(())
    }

    fn happened(&mut self, _: &Truth<'_>, _: &Happened<'_>) -> Result<(), Broken> {
        Ok(())
    }

    fn end(&mut self, _: &Truth<'_>) -> Result<(), Broken> {
        Ok(())
    }

    fn premises(&self) -> &Premises {
        &self.premises
    }

    fn invariants(&self) -> &'static [&'static str] {
        &["I26.raised", "L6.crawl", "L6.turned"]
    }
}
