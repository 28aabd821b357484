//! The shelf of one process of a site: the native floor with the manner of the site, the sets that its host has ready, and
//! the floor in place of whatever fails or is not there, as the real shelf does it. Decides nothing but what modules and
//! manners say; clamping it is the core's business.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tidegate_core::digest::Sha256;
use tidegate_core::id::PolicySetId;
use tidegate_core::limits;
use tidegate_core::policy::{
    Author, Bandwidth, Binding, Builtin, Candidate, Chosen, Ordering, Policies, PolicyFault, PolicySet,
    RetryQuery, RetryVerdict, Ruling, Seat, Settings, Situation, Slot, UploadLimits, Waiting,
};

use super::module::{Said, Seated};
use crate::scenario::{Conduct, Manner, ModuleSpec};

/// Every module of a scenario by its hash.
pub(crate) type Known = Arc<BTreeMap<Sha256, ModuleSpec>>;

/// Why a set cannot be made ready: in which slot, the word, and the sentence.
pub(super) type Unready = (Slot, &'static str, String);

/// The policies of one process.
#[derive(Debug)]
pub(crate) struct Shelf {
    known: Known,
    floor: Builtin,
    manner: Manner,
    /// Questions to the native floor for how many uploads may run.
    asked: u64,
    ready: BTreeMap<PolicySetId, [Option<Seated>; 5]>,
    /// The one that was made ready last.
    newest: Option<PolicySetId>,
    beside: Option<(Slot, Seated)>,
    /// What modules did that nobody should, since it was last taken.
    odd: BTreeSet<Conduct>,
}

impl Shelf {
    pub(crate) fn new(known: Known, settings: Settings, manner: Manner) -> Shelf {
        Shelf {
            known,
            floor: Builtin::new(settings),
            manner,
            asked: 0,
            ready: BTreeMap::new(),
            newest: None,
            beside: None,
            odd: BTreeSet::new(),
        }
    }

    /// Makes a set ready, as far as the modules' bytes are whole.
    pub(super) fn prepare(
        &mut self,
        set: &PolicySet,
        whole: impl Fn(Sha256) -> bool,
    ) -> Result<PolicySetId, Unready> {
        let mut seats = [const { None }; 5];
        for (n, slot) in Slot::ALL.into_iter().enumerate() {
            if let Seat::Module(binding) = set.seat(slot) {
                let seated = self.seat(slot, binding, &whole).map_err(|(code, why)| (slot, code, why))?;
                seats[n] = Some(seated);
            }
        }
        let id = set.id();
        self.ready.insert(id, seats);
        self.newest = Some(id);
        Ok(id)
    }

    /// Lets a module run beside the set, or none.
    pub(super) fn shadow(
        &mut self,
        what: Option<&(Slot, Binding)>,
        whole: impl Fn(Sha256) -> bool,
    ) -> Result<(), (&'static str, String)> {
        self.beside = match what {
            None => None,
            Some((slot, binding)) => Some((*slot, self.seat(*slot, binding, &whole)?)),
        };
        Ok(())
    }

    fn seat(
        &mut self,
        slot: Slot,
        binding: &Binding,
        whole: impl Fn(Sha256) -> bool,
    ) -> Result<Seated, (&'static str, String)> {
        let spec = self.known.get(&binding.module).filter(|_| whole(binding.module));
        let spec = spec.ok_or(("unreadable", "its bytes are not what they were".to_string()))?;
        spec.seated(slot, binding).inspect_err(|_| {
            self.odd.insert(spec.conduct);
        })
    }

    /// Whoever is to be asked where this set counts: it, or the floor if it is not ready.
    pub(crate) fn of(&mut self, set: PolicySetId) -> Asked<'_> {
        Asked { shelf: self, set }
    }

    /// The set that was made ready last: whom a driver asks that cheats.
    pub(super) fn newest(&self) -> Option<PolicySetId> {
        self.newest
    }

    /// What modules did that nobody should since the last time.
    pub(super) fn take_odd(&mut self) -> BTreeSet<Conduct> {
        std::mem::take(&mut self.odd)
    }
}

/// One set of a shelf.
pub(crate) struct Asked<'a> {
    shelf: &'a mut Shelf,
    set: PolicySetId,
}

impl Asked<'_> {
    fn rule<T>(
        &mut self,
        slot: Slot,
        floor: impl FnOnce(&mut Builtin) -> Ruling<T>,
        ask: impl Fn(&Seated) -> Said<T>,
    ) -> Ruling<T> {
        if let Some((_, seated)) = self.shelf.beside.as_ref().filter(|(at, _)| *at == slot) {
            // Whatever it says is compared elsewhere; here it must change nothing.
            let _ = ask(seated);
        }
        let set = self.set;
        let mut ruling = floor(&mut self.shelf.floor);
        let fault = match self.shelf.ready.get(&set) {
            None if set == self.shelf.floor.id() => return ruling,
            None => PolicyFault::Missing,
            Some(seats) => match &seats[slot as usize] {
                None => {
                    ruling.by = Author::Set(set);
                    return ruling;
                }
                Some(seated) => {
                    if seated.is_odd() {
                        self.shelf.odd.insert(seated.spec.conduct);
                    }
                    match ask(seated) {
                        Ok(verdict) => {
                            return Ruling { verdict, by: Author::Set(set), words: ruling.words };
                        }
                        Err(fault) => fault,
                    }
                }
            },
        };
        ruling.by = Author::Builtin { instead_of: set, why: fault };
        ruling
    }
}

impl Policies for Asked<'_> {
    fn select(&mut self, situation: &Situation, candidates: &[Candidate]) -> Ruling<Vec<Chosen>> {
        self.rule(
            Slot::AutoScan,
            |floor| floor.select(situation, candidates),
            |seated| seated.select(situation, candidates),
        )
    }

    fn retry(&mut self, query: &RetryQuery) -> Ruling<RetryVerdict> {
        self.rule(Slot::Retry, |floor| floor.retry(query), |seated| seated.retry(query))
    }

    fn limits(&mut self, situation: &Situation) -> Ruling<UploadLimits> {
        let native = self.set == self.shelf.floor.id();
        let mut ruling =
            self.rule(Slot::Concurrency, |floor| floor.limits(situation), |seated| seated.limits(situation));
        if native {
            self.shelf.asked += 1;
            match self.shelf.manner {
                Manner::Builtin => {}
                Manner::Hesitant if self.shelf.asked.is_multiple_of(3) => {}
                Manner::Hesitant => ruling.verdict.uploads = 0,
                Manner::Greedy => ruling.verdict.uploads = limits::UPLOADS_MAX,
            }
        }
        ruling
    }

    fn budget(&mut self, situation: &Situation) -> Ruling<Bandwidth> {
        self.rule(Slot::Bandwidth, |floor| floor.budget(situation), |seated| seated.budget(situation))
    }

    fn score(&mut self, situation: &Situation, waiting: &[Waiting]) -> Ruling<Ordering> {
        self.rule(
            Slot::Order,
            |floor| floor.score(situation, waiting),
            |seated| seated.score(situation, waiting),
        )
    }
}
