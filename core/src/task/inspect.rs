//! Checking the content of what was acknowledged, once, and the site's own verdict where it gives one. Must not hold up
//! an acknowledgement, and must not overrule a person.

use core::time::Duration;

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use super::{Errand, Tasks, broken};
use crate::bug::planted;
use crate::change::EpisodeChange;
use crate::cx::{Cx, Owner};
use crate::digest::Sha256;
use crate::id::{EpisodeId, Ticket};
use crate::limits;
use crate::object::{Got, McapFacts, ObjectOp, ObjectReply, Store, Verb, Want};
use crate::outcome::{Fault, Outcome, What};
use crate::refusal::Broken;
use crate::row::{Doubt, EpisodeRow, Inspection, Qa, SyncMark};
use crate::time::Mono;
use crate::timers::TimerKey;

/// A recording that is to be checked. Volatile: after a restart it is planned again from the records.
#[derive(Clone, Debug)]
pub(super) struct Look {
    /// When to ask, unless that is under way.
    at: Mono,
    /// Asks that came to nothing, for the pause before the next.
    tries: u32,
    /// The one that is under way.
    ticket: Option<Ticket>,
}

impl Tasks {
    /// Plans every check that the records leave open, and the verdicts that the site owes.
    pub(super) fn plan_looks(&mut self, cx: &mut Cx<'_>) {
        let at = cx.now.mono;
        let open = self.episodes.values().filter(|row| is_open(row)).map(|row| row.id);
        self.looks = open.map(|id| (id, Look { at, tries: 0, ticket: None })).collect();
        if !self.looks.is_empty() || self.owed(cx).next().is_some() {
            cx.arm_at(TimerKey::Inspect, at);
        }
    }

    /// Plans the check of an episode that has just been made. It begins in a step of its own.
    pub(super) fn plan_look(&mut self, cx: &mut Cx<'_>, episode: EpisodeId) {
        self.looks.insert(episode, Look { at: cx.now.mono, tries: 0, ticket: None });
        if self.looks_out() < limits::INSPECTIONS_AT_ONCE {
            cx.arm_at(TimerKey::Inspect, cx.now.mono);
        }
    }

    /// It is time for a check, or for verdicts that are owed.
    pub fn on_inspect_due(&mut self, cx: &mut Cx<'_>) {
        if cx.stopping {
            return;
        }
        let owed: Vec<EpisodeId> = self.owed(cx).take(limits::VERDICTS_AT_ONCE).collect();
        let more = owed.len() == limits::VERDICTS_AT_ONCE;
        for episode in owed {
            self.give_verdict(cx, episode);
        }
        self.begin_looks(cx);
        if more {
            // Soon, and not in this step: what it writes stays short.
            cx.arm(TimerKey::Inspect, Duration::from_millis(1));
        }
    }

    /// Begins as many checks as there is room for, the oldest episode first, and arms the one deadline for what comes
    /// next.
    fn begin_looks(&mut self, cx: &mut Cx<'_>) {
        if cx.stopping {
            return;
        }
        let mut room = limits::INSPECTIONS_AT_ONCE.saturating_sub(self.looks_out());
        let mut next: Option<Mono> = None;
        for (id, look) in self.looks.iter_mut().filter(|(_, look)| look.ticket.is_none()) {
            if room == 0 {
                next = None;
                break;
            }
            if look.at > cx.now.mono {
                next = Some(next.map_or(look.at, |next| next.min(look.at)));
                continue;
            }
            let row = self.episodes.get(id).expect("I20: episodes whose copy is here stay in memory");
            let verb = Verb::Get { span: None, want: Want::Inspect };
            let ticket = cx.ask(Owner::Tasks, ObjectOp { store: Store::Edge, key: row.key.clone(), verb });
            self.errands.insert(ticket, Errand::Inspect(*id));
            look.ticket = Some(ticket);
            room -= 1;
        }
        // Without room the end of a check goes on with the next one.
        match next.filter(|_| room > 0) {
            Some(at) => cx.arm_at(TimerKey::Inspect, at),
            None => cx.disarm(&TimerKey::Inspect),
        }
    }

    /// A check ended. Only a clear answer counts; anything else is asked again.
    pub(super) fn on_inspected(
        &mut self,
        cx: &mut Cx<'_>,
        episode: EpisodeId,
        ticket: Ticket,
        outcome: &Outcome<ObjectReply>,
    ) {
        let leaving = self.is_leaving(episode);
        let Some(look) = self.looks.get_mut(&episode).filter(|look| look.ticket == Some(ticket)) else {
            return;
        };
        look.ticket = None;
        let row = self.episodes.get(&episode).expect("I20: episodes whose copy is here stay in memory");
        let found = match outcome {
            Outcome::Done(ObjectReply::Got(Got::Inspected { len, sha256, facts })) => {
                Some((doubt(row, *len, *sha256, facts), Some(facts.clone())))
            }
            // What is being removed may be gone before its record says so.
            Outcome::Failed(Fault::Vanished(What::Object | What::Source)) if !leaving => {
                Some((Some(Doubt::CopyGone), None))
            }
            Outcome::Failed(Fault::Damaged(What::Object | What::Source)) => {
                Some((Some(Doubt::CopyDiffers), None))
            }
            Outcome::Done(_) | Outcome::Failed(_) | Outcome::Unknown => None,
        };
        match found {
            Some((doubt, facts)) => {
                self.looks.remove(&episode);
                let inspection = Box::new(Inspection { at: cx.now.wall, doubt, facts });
                self.enact_episode(cx, EpisodeChange::Inspected { episode, inspection });
                if cx.knobs.auto_approve && awaits_verdict(&self.episodes[&episode]) {
                    self.give_verdict(cx, episode);
                }
            }
            None if planted!(cx.knobs, X25) => {
                look.at = cx.now.mono.after(Duration::from_secs(365 * 24 * 3600));
            }
            None => {
                look.at = cx.now.mono.after(pause(look.tries));
                look.tries = look.tries.saturating_add(1);
            }
        }
        self.begin_looks(cx);
    }

    /// The site's own verdict on a recording that was checked and that nobody judged.
    fn give_verdict(&mut self, cx: &mut Cx<'_>, episode: EpisodeId) {
        let row = self.episodes.get(&episode).expect("the caller has just seen it");
        let Some(inspection) = &row.inspection else { return };
        let doubt = inspection.doubt.filter(|_| !planted!(cx.knobs, X24));
        let (qa, reason) = match doubt {
            None => (Qa::Approved, praise(inspection.facts.as_ref())),
            Some(doubt) => {
                (Qa::NeedsInspection, alloc::format!("automatic: {}: {}", doubt.code(), doubt.text()))
            }
        };
        let at = cx.now.wall;
        self.enact_episode(cx, EpisodeChange::Judged { episode, qa, reason: Some(reason), at });
    }

    /// Episodes that were checked and that nobody judged, where the site is to judge: it was told so only now.
    fn owed<'a>(&'a self, cx: &Cx<'_>) -> impl Iterator<Item = EpisodeId> + use<'a> {
        let judges = cx.knobs.auto_approve;
        let owed = self.episodes.values().filter(|row| row.inspection.is_some() && awaits_verdict(row));
        owed.filter(move |_| judges).map(|row| row.id)
    }

    /// There is nothing to check any more.
    pub(super) fn drop_look(&mut self, cx: &mut Cx<'_>, episode: EpisodeId) {
        let Some(look) = self.looks.remove(&episode) else { return };
        if let Some(ticket) = look.ticket {
            self.errands.remove(&ticket);
            cx.forget(ticket);
            self.begin_looks(cx);
        }
    }

    /// The outcome of a check made the core panic too often: this recording is not checked in this boot. It stays without
    /// an inspection, for a person to judge.
    pub(super) fn rest_look(&mut self, cx: &mut Cx<'_>, episode: EpisodeId) {
        self.looks.remove(&episode);
        self.begin_looks(cx);
    }

    /// Waits for no check any more.
    pub(super) fn drop_looks(&mut self, cx: &mut Cx<'_>) {
        for ticket in self.looks.values().filter_map(|look| look.ticket) {
            self.errands.remove(&ticket);
            cx.forget(ticket);
        }
        self.looks.clear();
        cx.disarm(&TimerKey::Inspect);
    }

    fn looks_out(&self) -> usize {
        self.errands.values().filter(|errand| matches!(errand, Errand::Inspect(_))).count()
    }

    /// Checks what must hold of the checks after every step.
    pub(super) fn check_looks(&self) -> Result<(), Broken> {
        for (id, look) in &self.looks {
            if !self.episodes.get(id).is_some_and(is_open) {
                return broken("I20", alloc::format!("episode {id} is to be checked and needs no check"));
            }
            if look.ticket.is_some_and(|ticket| !self.errands.contains_key(&ticket)) {
                return broken("I20", alloc::format!("the check of episode {id} waits for nothing"));
            }
        }
        if self.looks_out() > limits::INSPECTIONS_AT_ONCE {
            return broken("I27", alloc::format!("{} checks at once", self.looks_out()));
        }
        Ok(())
    }
}

/// Whether the content is still to be checked, and can be.
fn is_open(row: &EpisodeRow) -> bool {
    row.inspection.is_none() && row.removed_at.is_none()
}

/// Whether nobody judged it: only then may the site.
fn awaits_verdict(row: &EpisodeRow) -> bool {
    row.qa == Qa::Pending && row.sync == SyncMark::NotStarted
}

/// Why a person should look at it. The bytes are compared first: of other bytes the rest says nothing.
fn doubt(row: &EpisodeRow, len: u64, sha256: Sha256, facts: &McapFacts) -> Option<Doubt> {
    if (len, sha256) != (row.len, row.sha256) {
        return Some(Doubt::CopyDiffers);
    }
    if let Some(flaw) = facts.flaw {
        return Some(Doubt::Flaw(flaw));
    }
    // A recorder that does not count announces zero.
    if row.messages.is_some_and(|announced| announced != 0 && announced != facts.messages) {
        return Some(Doubt::MessageCountDiffers);
    }
    (facts.messages == 0).then_some(Doubt::NoMessages)
}

fn praise(facts: Option<&McapFacts>) -> String {
    let messages = facts.map_or(0, |facts| facts.messages);
    let ms = facts.and_then(McapFacts::duration_ms).unwrap_or(0);
    alloc::format!("automatic: sound, {messages} messages over {}.{:03} s", ms / 1_000, ms % 1_000)
}

/// The wait after so many asks that came to nothing.
fn pause(tries: u32) -> Duration {
    limits::INSPECT_RETRY_MIN.saturating_mul(1 << tries.min(16)).min(limits::INSPECT_RETRY_MAX)
}
