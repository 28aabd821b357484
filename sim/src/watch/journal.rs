//! I24: a life can be repeated. Every input that became durable, stepped once more in an empty machine with the same
//! clocks and the same answers of its policies, asks them the same questions and gives the same changes and verdicts; and
//! the changes alone, applied in order, give the same records. What a repeated step asks for goes nowhere. Looked at in one
//! world of eight: it costs a second life.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use tidegate_core::change::Change;
use tidegate_core::effect::Output;
use tidegate_core::input::Input;
use tidegate_core::machine::{Machine, Rows};
use tidegate_core::policy::{
    Bandwidth, Builtin, Candidate, Chosen, Decision, Ordering, Policies, PolicyFault, Question, RetryQuery,
    RetryVerdict, Ruled, Ruling, Settings, Situation, UploadLimits, Verdict, Waiting,
};
use tidegate_core::row::{Key, Row};
use tidegate_core::time::Now;

use super::{Broken, Happened, Premises, Seen, Truth, Watch, demand};
use crate::scenario::Scenario;

/// One world of so many is repeated.
const SHARE: u64 = 8;
/// Reasons that a module of a scenario has words for, and some more.
const REASONS: usize = 64;
/// Steps of one site that are remembered; longer lives are not repeated.
const STEPS_MAX: usize = 40_000;

/// One durable step.
#[derive(Clone, Debug)]
struct Entry {
    now: Now,
    input: Input,
    changes: Vec<Change>,
    rulings: Vec<Ruled>,
    decisions: Vec<Decision>,
}

/// Repeats lives at their end.
#[derive(Debug)]
pub struct Journal {
    on: bool,
    /// Durable steps by site; `None` were too many.
    sites: BTreeMap<usize, Option<Vec<Entry>>>,
    premises: Premises,
}

impl Journal {
    /// Remembers the life of a world if it is one of those that are repeated.
    #[must_use]
    pub fn new(scenario: &Scenario) -> Journal {
        Journal {
            on: scenario.seed.is_multiple_of(SHARE),
            sites: BTreeMap::new(),
            premises: Premises::default(),
        }
    }
}

impl Watch for Journal {
    fn step(&mut self, seen: &Seen<'_>) -> Result<(), Broken> {
        if !self.on {
            return Ok(());
        }
        let site = self.sites.entry(seen.site).or_insert_with(|| Some(Vec::new()));
        if let Some(entries) = site {
            entries.push(Entry {
                now: seen.now,
                input: seen.input.clone(),
                changes: seen.out.changes.clone(),
                rulings: seen.out.rulings.clone(),
                decisions: seen.out.decisions.clone(),
            });
            if entries.len() > STEPS_MAX {
                *site = None;
            }
        }
        Ok(())
    }

    fn happened(&mut self, _: &Truth<'_>, _: &Happened<'_>) -> Result<(), Broken> {
        Ok(())
    }

    fn end(&mut self, truth: &Truth<'_>) -> Result<(), Broken> {
        for (site, entries) in &self.sites {
            let Some(entries) = entries else { continue };
            self.premises.met("I24.repeated");
            let image = &truth.images[*site];
            same(&repeated(entries)?, image, "repeated")?;
            same(&applied(entries)?, image, "applied")?;
        }
        Ok(())
    }

    fn premises(&self) -> &Premises {
        &self.premises
    }

    fn invariants(&self) -> &'static [&'static str] {
        &["I24.repeated"]
    }
}

fn put(rows: &mut BTreeMap<Key, Row>, key: Key, row: Option<Row>) {
    match row {
        Some(row) => rows.insert(key, row),
        None => rows.remove(&key),
    };
}

/// The policies of a life that is repeated: what they are asked they were asked before, and what they say is what they
/// said. Whether a module says the same twice is a question about its host.
struct Retold {
    decisions: VecDeque<Decision>,
    floor: Builtin,
}

impl Retold {
    fn new(entry: &Entry) -> Retold {
        // What the core said itself nobody was asked.
        let asked = entry.decisions.iter().filter(|decision| !own(decision));
        Retold { decisions: asked.cloned().collect(), floor: Builtin::new(Settings::default()) }
    }

    /// The answer, if this was the next question.
    fn again<T>(&mut self, question: &Question, of: impl Fn(&Verdict) -> Option<T>) -> Option<Ruling<T>> {
        let next = self.decisions.pop_front().filter(|next| next.question == *question)?;
        // Every reason has the word that was kept: it is the only one that is looked up.
        let words = vec![next.reason; REASONS].into();
        of(&next.verdict).map(|verdict| Ruling { verdict, by: next.by, words })
    }
}

/// Whether the core gave a verdict without asking anybody.
fn own(decision: &Decision) -> bool {
    matches!(decision.by, tidegate_core::policy::Author::Builtin { why: PolicyFault::Stalled, .. })
}

impl Policies for Retold {
    fn select(&mut self, situation: &Situation, candidates: &[Candidate]) -> Ruling<Vec<Chosen>> {
        let question = Question::AutoScan(situation.clone(), candidates.to_vec());
        let again = self.again(&question, |verdict| match verdict {
            Verdict::AutoScan(verdict) => Some(verdict.clone()),
            _ => None,
        });
        again.unwrap_or_else(|| self.floor.select(situation, candidates))
    }

    fn retry(&mut self, query: &RetryQuery) -> Ruling<RetryVerdict> {
        let again = self.again(&Question::Retry(query.clone()), |verdict| match verdict {
            Verdict::Retry(verdict) => Some(*verdict),
            _ => None,
        });
        again.unwrap_or_else(|| self.floor.retry(query))
    }

    fn limits(&mut self, situation: &Situation) -> Ruling<UploadLimits> {
        let again = self.again(&Question::Concurrency(situation.clone()), |verdict| match verdict {
            Verdict::Concurrency(verdict) => Some(*verdict),
            _ => None,
        });
        again.unwrap_or_else(|| self.floor.limits(situation))
    }

    fn budget(&mut self, situation: &Situation) -> Ruling<Bandwidth> {
        let again = self.again(&Question::Bandwidth(situation.clone()), |verdict| match verdict {
            Verdict::Bandwidth(verdict) => Some(*verdict),
            _ => None,
        });
        again.unwrap_or_else(|| self.floor.budget(situation))
    }

    fn score(&mut self, situation: &Situation, waiting: &[Waiting]) -> Ruling<Ordering> {
        let question = Question::Order(situation.clone(), waiting.to_vec());
        let again = self.again(&question, |verdict| match verdict {
            Verdict::Order(verdict) => Some(verdict.clone()),
            _ => None,
        });
        again.unwrap_or_else(|| self.floor.score(situation, waiting))
    }
}

/// Steps every input in an empty machine, which reads the records that this second life wrote itself.
fn repeated(entries: &[Entry]) -> Result<BTreeMap<Key, Row>, Broken> {
    let mut machine = Machine::new();
    let mut rows = BTreeMap::new();
    for entry in entries {
        if let Input::Boot { .. } = &entry.input {
            machine = Machine::new();
            for (key, row) in &rows {
                if Machine::is_hot(row) {
                    machine.load(key, row.clone());
                }
            }
        }
        let cold = cold(&machine, &rows, entry.now, &entry.input);
        let mut out = Output::default();
        machine.step(entry.now, &entry.input, &cold, &mut Retold::new(entry), &mut out);
        let asked = out.decisions == entry.decisions;
        demand("I24", asked, || {
            format!(
                "{:?} ruled {:?} in life and {:?} when repeated",
                entry.input, entry.decisions, out.decisions
            )
        })?;
        let equal = out.changes == entry.changes && out.rulings == entry.rulings;
        demand("I24", equal, || {
            format!("{:?} did {:?} in life and {:?} when repeated", entry.input, entry.changes, out.changes)
        })?;
        for (key, row) in out.rows {
            put(&mut rows, key, row);
        }
    }
    Ok(rows)
}

fn cold(machine: &Machine, rows: &BTreeMap<Key, Row>, now: Now, input: &Input) -> Rows {
    let mut have = Rows::new();
    let mut wanted = BTreeSet::new();
    loop {
        machine.wants(now, input, &have, &mut wanted);
        if wanted.is_empty() {
            return have;
        }
        for key in std::mem::take(&mut wanted) {
            let row = rows.get(&key).cloned();
            have.insert(key, row);
        }
    }
}

/// Applies the changes alone, in a machine that has everything in memory.
fn applied(entries: &[Entry]) -> Result<BTreeMap<Key, Row>, Broken> {
    let mut machine = Machine::new();
    let mut rows = BTreeMap::new();
    for change in entries.iter().flat_map(|entry| &entry.changes) {
        let touched = machine.apply(change);
        let saw = || format!("{change:?} does not apply: {touched:?}");
        demand("I24", touched.is_ok(), saw)?;
        for key in touched.iter().flatten() {
            put(&mut rows, key.clone(), machine.row(key));
        }
    }
    Ok(rows)
}

fn same(one: &BTreeMap<Key, Row>, image: &BTreeMap<Key, Row>, how: &str) -> Result<(), Broken> {
    demand("I24", one == image, || {
        let keys = one.keys().chain(image.keys());
        let key = keys.into_iter().find(|key| one.get(*key) != image.get(*key));
        let rows = key.map(|key| (key, one.get(key), image.get(key)));
        format!("records {how} differ from those that life left: {rows:?}")
    })
}

#[cfg(test)]
mod tests {
    use tidegate_core::change::TaskChange;
    use tidegate_core::id::{Boot, DeviceId, RequestId, TaskId};
    use tidegate_core::input::Request;
    use tidegate_core::knobs::Knobs;
    use tidegate_core::time::{Mono, Wall};

    use super::*;

    fn life() -> Vec<Entry> {
        let mut machine = Machine::new();
        let mut policies = Builtin::new(Knobs::default().builtin);
        let task = |name: &str| Request::CreateTask {
            task: Some(TaskId::new(name).expect("legal")),
            device: DeviceId::new("d1").expect("legal"),
            config: None,
        };
        let inputs = [
            Input::Boot { boot: Boot(1), seed: 5, knobs: Knobs::default() },
            Input::Request { id: RequestId(1), request: task("one") },
            Input::Request { id: RequestId(2), request: task("two") },
        ];
        let mut entries = Vec::new();
        let mut rows = BTreeMap::new();
        for (n, input) in (1..).zip(inputs) {
            let now = Now { wall: Wall(n), mono: Mono(n.unsigned_abs()) };
            let cold = cold(&machine, &rows, now, &input);
            let mut out = Output::default();
            machine.step(now, &input, &cold, &mut policies, &mut out);
            for (key, row) in out.rows {
                put(&mut rows, key, row);
            }
            let (changes, rulings, decisions) = (out.changes, out.rulings, out.decisions);
            entries.push(Entry { now, input, changes, rulings, decisions });
        }
        entries
    }

    #[test]
    fn a_life_that_was_not_lived_so_is_noticed() {
        let lived = life();
        let image = repeated(&lived).expect("a life repeats itself");
        assert_eq!(applied(&lived).expect("its changes apply"), image);
        assert_eq!(image.len(), 2);
        let mut forgets = lived.clone();
        forgets[1].changes.clear();
        assert!(repeated(&forgets).is_err_and(|broken| broken.invariant == "I24"));
        assert!(same(&applied(&forgets).expect("fewer changes apply too"), &image, "applied").is_err());
        let mut twice = lived;
        let Change::Task(TaskChange::Created { .. }) = twice[2].changes[0].clone() else {
            panic!("a task is made")
        };
        let again = twice[1].changes[0].clone();
        twice[2].changes.push(again);
        assert!(applied(&twice).is_err_and(|broken| broken.invariant == "I24"), "a task is made once");
    }
}
