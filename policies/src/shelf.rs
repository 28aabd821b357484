//! Policy sets by id, as the driver hands them to the core. Decides nothing itself: a set that is not here, or a module
//! that cannot answer, is stood in for by the built-in policies, and the ruling says so.
//!
//! Live, in replay and in the simulator the same question goes to the same set: the id in the journal names it.

use std::collections::BTreeMap;
use std::fmt;

use tidegate_core::digest::Sha256;
use tidegate_core::id::PolicySetId;
use tidegate_core::policy::{
    Author, Bandwidth, Builtin, Candidate, Chosen, Ordering, Policies, PolicyFault, PolicySet, Question,
    RetryQuery, RetryVerdict, Ruling, Settings, Situation, Slot, UploadLimits, Verdict, Waiting,
};

use crate::figures::FiguresReader;
use crate::module::{Module, Rejection, Sitting};
use crate::seated::SeatedSet;
use crate::shadow::Shadow;

/// The sets that are loaded.
pub struct Shelf {
    front: Front,
}

impl fmt::Debug for Shelf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shelf").field("sets", &self.front.sets.keys()).finish_non_exhaustive()
    }
}

impl Shelf {
    /// A shelf with the built-in set of these settings, which also answers for sets that are missing.
    #[must_use]
    pub fn with_builtin(settings: Settings) -> Shelf {
        let floor = Builtin::new(settings);
        let mut sets = BTreeMap::new();
        sets.insert(floor.id(), Loaded::Native(Box::new(floor.clone())));
        let front =
            Front { current: floor.id(), sets, floor, shadow: None, figures: FiguresReader::default() };
        Shelf { front }
    }

    /// Adds the built-in set of other settings, for entries of the journal that were decided under them. Missing
    /// sets are answered for by the newest.
    pub fn add_builtin(&mut self, settings: Settings) -> PolicySetId {
        let floor = Builtin::new(settings);
        let id = floor.id();
        self.front.sets.insert(id, Loaded::Native(Box::new(floor.clone())));
        self.front.floor = floor;
        id
    }

    /// Adds a set, or replaces one.
    pub fn put(&mut self, id: PolicySetId, set: Box<dyn Policies + Send>) {
        self.front.sets.insert(id, Loaded::Native(set));
    }

    /// Adds a prepared set, or replaces one. A move, nothing more: preparing it ([`SeatedSet::prepare`]) is what takes
    /// time. What the old one of the same id was is dropped here.
    pub fn put_seated(&mut self, set: SeatedSet) {
        self.front.sets.insert(set.id(), Loaded::Seated(Box::new(set)));
    }

    /// Prepares a set and adds it; see [`SeatedSet::prepare`]. Takes milliseconds: for replay, boot and tools.
    pub fn put_set(
        &mut self,
        set: &PolicySet,
        module: &dyn Fn(Sha256) -> Option<Module>,
    ) -> Result<PolicySetId, (Slot, Rejection)> {
        let seated = SeatedSet::prepare(set, module)?;
        let id = seated.id();
        self.put_seated(seated);
        Ok(id)
    }

    /// Whether a set is here.
    #[must_use]
    pub fn holds(&self, id: PolicySetId) -> bool {
        self.front.sets.contains_key(&id)
    }

    /// The sets that are here.
    pub fn ids(&self) -> impl Iterator<Item = PolicySetId> + '_ {
        self.front.sets.keys().copied()
    }

    /// Takes a set off the shelf; asked about it later, the built-in rules answer in its place.
    pub fn drop_set(&mut self, id: PolicySetId) {
        self.front.sets.remove(&id);
    }

    /// Puts a candidate on trial beside whoever sits in its slot, or ends the trial. The counts begin anew.
    pub fn shadow(&mut self, candidate: Option<Sitting>) {
        self.front.shadow = candidate.map(Shadow::new);
        self.front.figures.lock().shadow = self.front.shadow.as_ref().map(Shadow::figures);
    }

    /// Reads what happens here, from any thread.
    #[must_use]
    pub fn figures(&self) -> FiguresReader {
        self.front.figures.clone()
    }

    /// The set of this id, or what answers in its place. Never fails: the core always gets an answer.
    pub fn get(&mut self, id: PolicySetId) -> &mut dyn Policies {
        self.front.current = id;
        &mut self.front
    }
}

/// A set on the shelf.
enum Loaded {
    Native(Box<dyn Policies + Send>),
    Seated(Box<SeatedSet>),
}

/// Answers for the set whose turn it is.
struct Front {
    current: PolicySetId,
    sets: BTreeMap<PolicySetId, Loaded>,
    /// For sets that are missing.
    floor: Builtin,
    shadow: Option<Shadow>,
    figures: FiguresReader,
}

/// How one hook is asked natively, and its verdict read back.
struct Hook<T> {
    slot: Slot,
    read: fn(Verdict) -> Option<T>,
}

impl Front {
    fn turn<T: Clone + Into<Verdict>>(
        &mut self,
        hook: &Hook<T>,
        question: &dyn Fn() -> Question,
        native: &mut dyn FnMut(&mut dyn Policies) -> Ruling<T>,
    ) -> Ruling<T> {
        let id = self.current;
        let instead = |ruling, why| Ruling { by: Author::Builtin { instead_of: id, why }, ..ruling };
        let mut by_rules = true;
        let ruling = match self.sets.get_mut(&id) {
            None => instead(native(&mut self.floor), PolicyFault::Missing),
            Some(Loaded::Native(set)) => native(set.as_mut()),
            Some(Loaded::Seated(set)) => match set.sitting(hook.slot) {
                None => Ruling { by: Author::Set(id), ..native(&mut set.floor) },
                Some(sitting) => {
                    by_rules = false;
                    let asked = sitting.ask(&question());
                    self.figures.lock().asked(hook.slot, sitting.module().hash(), &asked);
                    match asked.outcome {
                        Ok((verdict, words)) => match (hook.read)(verdict) {
                            Some(verdict) => Ruling { verdict, by: Author::Set(id), words },
                            None => instead(native(&mut set.floor), PolicyFault::Shape),
                        },
                        Err(trouble) => instead(native(&mut set.floor), trouble.fault),
                    }
                }
            },
        };
        if by_rules {
            self.figures.lock().native(hook.slot, &ruling.verdict.clone().into(), &ruling.words);
        }
        if let Some(shadow) = &mut self.shadow
            && shadow.sitting().slot() == hook.slot
        {
            shadow.consider(&question(), ruling.verdict.clone().into(), &self.figures);
        }
        ruling
    }
}

impl Policies for Front {
    fn select(&mut self, situation: &Situation, candidates: &[Candidate]) -> Ruling<Vec<Chosen>> {
        let read = |verdict| if let Verdict::AutoScan(own) = verdict { Some(own) } else { None };
        self.turn(
            &Hook { slot: Slot::AutoScan, read },
            &|| Question::AutoScan(situation.clone(), candidates.to_vec()),
            &mut |set| set.select(situation, candidates),
        )
    }

    fn retry(&mut self, query: &RetryQuery) -> Ruling<RetryVerdict> {
        let read = |verdict| if let Verdict::Retry(own) = verdict { Some(own) } else { None };
        self.turn(&Hook { slot: Slot::Retry, read }, &|| Question::Retry(query.clone()), &mut |set| {
            set.retry(query)
        })
    }

    fn limits(&mut self, situation: &Situation) -> Ruling<UploadLimits> {
        let read = |verdict| if let Verdict::Concurrency(own) = verdict { Some(own) } else { None };
        self.turn(
            &Hook { slot: Slot::Concurrency, read },
            &|| Question::Concurrency(situation.clone()),
            &mut |set| set.limits(situation),
        )
    }

    fn budget(&mut self, situation: &Situation) -> Ruling<Bandwidth> {
        let read = |verdict| if let Verdict::Bandwidth(own) = verdict { Some(own) } else { None };
        self.turn(
            &Hook { slot: Slot::Bandwidth, read },
            &|| Question::Bandwidth(situation.clone()),
            &mut |set| set.budget(situation),
        )
    }

    fn score(&mut self, situation: &Situation, waiting: &[Waiting]) -> Ruling<Ordering> {
        let read = |verdict| if let Verdict::Order(own) = verdict { Some(own) } else { None };
        self.turn(
            &Hook { slot: Slot::Order, read },
            &|| Question::Order(situation.clone(), waiting.to_vec()),
            &mut |set| set.score(situation, waiting),
        )
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
        assert_eq!(ruling.by, by);
        assert_eq!(ruling.verdict.action, RetryAction::After { delay_ms: 30_000 });
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
