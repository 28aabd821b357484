//! Policy sets by id, as the driver hands them to the core. Decides nothing itself: a set that is not here answers
//! through the built-in policies, and says so.
//!
//! Live, in replay and in the simulator the same question goes to the same set: the id in the journal names it.

use std::collections::BTreeMap;
use std::fmt;

use tidegate_core::id::PolicySetId;
use tidegate_core::policy::{
    Author, Bandwidth, Builtin, Candidate, Chosen, Ordering, Policies, PolicyFault, RetryQuery, RetryVerdict,
    Ruling, Settings, Situation, UploadLimits, Waiting,
};

/// The sets that are loaded.
pub struct Shelf {
    sets: BTreeMap<PolicySetId, Box<dyn Policies + Send>>,
    stand_in: StandIn,
}

impl fmt::Debug for Shelf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shelf").field("sets", &self.sets.keys()).finish_non_exhaustive()
    }
}

impl Shelf {
    /// A shelf with the built-in set of these settings, which also answers for sets that are missing.
    #[must_use]
    pub fn with_builtin(settings: Settings) -> Shelf {
        let floor = Builtin::new(settings);
        let mut sets: BTreeMap<PolicySetId, Box<dyn Policies + Send>> = BTreeMap::new();
        let instead_of = floor.id();
        sets.insert(floor.id(), Box::new(floor.clone()));
        Shelf { sets, stand_in: StandIn { floor, instead_of } }
    }

    /// Adds the built-in set of other settings, for entries of the journal that were decided under them. Missing
    /// sets are answered for by the newest.
    pub fn add_builtin(&mut self, settings: Settings) -> PolicySetId {
        let floor = Builtin::new(settings);
        let id = floor.id();
        self.sets.insert(id, Box::new(floor.clone()));
        self.stand_in.floor = floor;
        id
    }

    /// Adds a set, or replaces one.
    pub fn put(&mut self, id: PolicySetId, set: Box<dyn Policies + Send>) {
        self.sets.insert(id, set);
    }

    /// The set of this id, or what answers in its place. Never fails: the core always gets an answer.
    pub fn get(&mut self, id: PolicySetId) -> &mut dyn Policies {
        match self.sets.get_mut(&id) {
            Some(set) => set.as_mut(),
            None => {
                self.stand_in.instead_of = id;
                &mut self.stand_in
            }
        }
    }
}

/// The built-in policies in the place of a set that is not loaded.
struct StandIn {
    floor: Builtin,
    instead_of: PolicySetId,
}

impl StandIn {
    fn sign<T>(&self, ruling: Ruling<T>) -> Ruling<T> {
        let by = Author::Builtin { instead_of: self.instead_of, why: PolicyFault::Missing };
        Ruling { by, ..ruling }
    }
}

impl Policies for StandIn {
    fn select(&mut self, situation: &Situation, candidates: &[Candidate]) -> Ruling<Vec<Chosen>> {
        let ruling = self.floor.select(situation, candidates);
        self.sign(ruling)
    }

    fn retry(&mut self, query: &RetryQuery) -> Ruling<RetryVerdict> {
        let ruling = self.floor.retry(query);
        self.sign(ruling)
    }

    fn limits(&mut self, situation: &Situation) -> Ruling<UploadLimits> {
        let ruling = self.floor.limits(situation);
        self.sign(ruling)
    }

    fn budget(&mut self, situation: &Situation) -> Ruling<Bandwidth> {
        let ruling = self.floor.budget(situation);
        self.sign(ruling)
    }

    fn score(&mut self, situation: &Situation, waiting: &[Waiting]) -> Ruling<Ordering> {
        let ruling = self.floor.score(situation, waiting);
        self.sign(ruling)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_core::policy::{ErrorClass, Known, LinkKind, RetryAction, Subject};

    fn settings(attempts: u32) -> Settings {
        Settings { attempts, retry_jitter_ms: 0, ..Settings::default() }
    }

    fn query(spent: u32) -> RetryQuery {
        RetryQuery {
            job: 1,
            spent,
            class: ErrorClass::Damaged,
            subject: Subject::Part,
            code: String::from("part_damaged"),
            elapsed_ms: 0,
            last_delay_ms: 0,
            size: 1,
            sent: 0,
            link: LinkKind::Unknown,
            metered: Known::Unknown,
            memo: 0,
            seed: 7,
        }
    }

    #[test]
    fn a_set_on_the_shelf_signs_with_its_own_id() {
        let id = Builtin::new(settings(5)).id();
        let ruling = Shelf::with_builtin(settings(5)).get(id).limits(&Situation::default());
        assert_eq!(ruling.by, Author::Set(id));
        assert_eq!(ruling.verdict.uploads, 2);
    }

    #[test]
    fn a_missing_set_is_answered_for_by_the_built_in_one_and_the_ruling_says_so() {
        let absent = PolicySetId([9; 32]);
        let mut shelf = Shelf::with_builtin(settings(5));
        let by = Author::Builtin { instead_of: absent, why: PolicyFault::Missing };
        let set = shelf.get(absent);
        let here = Situation::default();
        assert_eq!(set.limits(&here).by, by);
        assert_eq!(set.budget(&here).by, by);
        assert_eq!(set.score(&here, &[]).by, by);
        assert_eq!(set.select(&here, &[]).by, by);
        let ruling = set.retry(&query(1));
        assert_eq!((ruling.verdict.action, ruling.by), (RetryAction::After { delay_ms: 30_000 }, by));
    }

    #[test]
    fn built_in_sets_of_other_settings_stand_beside_each_other() {
        let mut shelf = Shelf::with_builtin(settings(5));
        let few = shelf.add_builtin(settings(1));
        let many = Builtin::new(settings(5)).id();
        assert_ne!(few, many);
        assert!(matches!(shelf.get(few).retry(&query(1)).verdict.action, RetryAction::GiveUp(_)));
        assert!(matches!(shelf.get(many).retry(&query(1)).verdict.action, RetryAction::After { .. }));
    }

    #[test]
    fn a_set_put_under_an_id_answers_for_it() {
        let id = PolicySetId([3; 32]);
        let mut shelf = Shelf::with_builtin(settings(5));
        shelf.put(id, Box::new(Builtin::new(settings(1))));
        assert!(matches!(shelf.get(id).retry(&query(1)).verdict.action, RetryAction::GiveUp(_)));
    }
}
