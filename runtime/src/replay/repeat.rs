//! A set of policies in a replay: asked again, except where life says that it was not asked, or not to the end, for a
//! reason that does not repeat itself.

use std::collections::{BTreeMap, VecDeque};

use tidegate_core::change::JournalEntry;
use tidegate_core::policy::{
    Author, Bandwidth, Builtin, Candidate, Chosen, Ordering, Policies, PolicyFault, RetryQuery, RetryVerdict,
    Ruling, Settings, Situation, Slot, UploadLimits, Waiting,
};

/// Answers for the set of one entry.
pub(super) struct Repeat<'a> {
    set: &'a mut dyn Policies,
    floor: Builtin,
    /// Who ruled in life, by slot, in order.
    lived: BTreeMap<Slot, VecDeque<Author>>,
}

/// Whether the built-in rules ruled for a reason of the moment.
fn is_of_the_moment(author: &Author) -> bool {
    match author {
        Author::Set(_) => false,
        Author::Builtin { why, .. } => match why {
            PolicyFault::Missing | PolicyFault::Timeout => true,
            PolicyFault::Trap | PolicyFault::Exhausted | PolicyFault::Shape | PolicyFault::Stalled => false,
        },
    }
}

impl<'a> Repeat<'a> {
    /// The set of an entry, and the settings with which the built-in rules stand in for it.
    pub(super) fn new(set: &'a mut dyn Policies, entry: &JournalEntry, floor: Settings) -> Repeat<'a> {
        let mut lived: BTreeMap<Slot, VecDeque<Author>> = BTreeMap::new();
        for ruled in &entry.rulings {
            // The core overruled the set without asking it, and will again.
            if matches!(ruled.by, Author::Builtin { why: PolicyFault::Stalled, .. }) {
                continue;
            }
            lived.entry(ruled.slot).or_default().push_back(ruled.by.clone());
        }
        Repeat { set, floor: Builtin::new(floor), lived }
    }

    fn ask<T>(&mut self, slot: Slot, ask: &mut dyn FnMut(&mut dyn Policies) -> Ruling<T>) -> Ruling<T> {
        match self.lived.get_mut(&slot).and_then(VecDeque::pop_front) {
            Some(by) if is_of_the_moment(&by) => Ruling { by, ..ask(&mut self.floor) },
            Some(_) | None => ask(self.set),
        }
    }
}

impl Policies for Repeat<'_> {
    fn select(&mut self, situation: &Situation, candidates: &[Candidate]) -> Ruling<Vec<Chosen>> {
        self.ask(Slot::AutoScan, &mut |set| set.select(situation, candidates))
    }

    fn retry(&mut self, query: &RetryQuery) -> Ruling<RetryVerdict> {
        self.ask(Slot::Retry, &mut |set| set.retry(query))
    }

    fn limits(&mut self, situation: &Situation) -> Ruling<UploadLimits> {
        self.ask(Slot::Concurrency, &mut |set| set.limits(situation))
    }

    fn budget(&mut self, situation: &Situation) -> Ruling<Bandwidth> {
        self.ask(Slot::Bandwidth, &mut |set| set.budget(situation))
    }

    fn score(&mut self, situation: &Situation, waiting: &[Waiting]) -> Ruling<Ordering> {
        self.ask(Slot::Order, &mut |set| set.score(situation, waiting))
    }
}
