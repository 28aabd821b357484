//! `tidegate policy replay` and `diff`: recorded decisions asked again, of one module against what was decided then, or of
//! two against each other. What counts is what a site would do differently.

use std::collections::BTreeMap;

use tidegate_core::policy::{Slot, Verdict};
use tidegate_policies::differ;

use super::args::{Diff, Replay};
use super::settings::Given;
use super::vectors::{Seats, Vector, brief, read};
use super::{grouped, local};
use crate::show::columns;
use crate::{Done, Failure, say};

/// What came of a question to a module.
type Answer = Result<Verdict, String>;

/// What was compared in one slot.
#[derive(Default)]
struct Count {
    equal: u64,
    different: u64,
    failed: u64,
    fuel: u64,
}

/// What the comparison found.
#[derive(Default)]
struct Found {
    counts: BTreeMap<Slot, Count>,
    /// Decisions of slots that are not served.
    left_out: u64,
    /// The first differences, for people.
    shown: Vec<String>,
}

impl Found {
    fn compare(&mut self, vector: &Vector, one: &Answer, other: &Answer, names: [&str; 2], most: usize) {
        let count = self.counts.entry(vector.slot).or_default();
        let same = match (one, other) {
            (Ok(one), Ok(other)) => !differ(&vector.question, one, other),
            _ => false,
        };
        if same {
            count.equal += 1;
            return;
        }
        if one.is_err() || other.is_err() {
            count.failed += 1;
        } else {
            count.different += 1;
        }
        if self.shown.len() < most {
            let width = names.map(str::len).into_iter().max().unwrap_or(0);
            let told = |answer: &Answer| match answer {
                Ok(verdict) => brief(verdict),
                Err(why) => why.clone(),
            };
            self.shown.push(format!(
                "{}  {}\n  {:<width$}  {}\n  {:<width$}  {}",
                vector.place,
                vector.slot.name(),
                names[0],
                told(one),
                names[1],
                told(other)
            ));
        }
    }

    fn lines(&self) -> Vec<String> {
        let mut lines = self.shown.clone();
        if !lines.is_empty() {
            lines.push(String::new());
        }
        let rows: Vec<Vec<String>> = self
            .counts
            .iter()
            .map(|(slot, count)| {
                vec![
                    slot.name().to_owned(),
                    grouped(count.equal),
                    grouped(count.different),
                    grouped(count.failed),
                    grouped(count.fuel),
                ]
            })
            .collect();
        lines.extend(columns(&["SLOT", "EQUAL", "DIFFERENT", "FAILED", "MOST FUEL"], &rows));
        if self.left_out > 0 {
            lines.push(format!("{} decisions of slots that are not served were left out", self.left_out));
        }
        lines
    }

    fn end(&self, strict: bool) -> Done {
        for line in self.lines() {
            say(&line);
        }
        let sum = |of: fn(&Count) -> u64| self.counts.values().map(of).sum::<u64>();
        let (different, failed) = (sum(|count| count.different), sum(|count| count.failed));
        if self.counts.is_empty() {
            return Err(Failure::failed("none of the decisions could be asked again"));
        }
        if strict && different + failed > 0 {
            return Err(Failure::failed(format!("{} of the decisions are different", different + failed)));
        }
        Ok(())
    }
}

/// Asks, and counts the cost.
fn ask(seats: &mut Seats<'_>, vector: &Vector, found: &mut Found) -> Result<Answer, Failure> {
    let asked = seats.ask(vector)?;
    let count = found.counts.entry(vector.slot).or_default();
    count.fuel = count.fuel.max(asked.fuel);
    Ok(asked.outcome.map(|(verdict, _)| verdict).map_err(|trouble| trouble.to_string()))
}

pub(super) fn replay(args: &Replay) -> Done {
    let vectors = read(&args.decisions)?;
    let host = local::host()?;
    let admitted = local::admit(&host, &args.module)?;
    let mut seats = Seats::new(&admitted, &args.settings.given);
    let mut found = Found::default();
    for vector in &vectors {
        if !admitted.module.facts().slots.contains(&vector.slot) {
            found.left_out += 1;
            continue;
        }
        let answer = ask(&mut seats, vector, &mut found)?;
        found.compare(vector, &Ok(vector.verdict.clone()), &answer, ["then", "now"], args.show);
    }
    found.end(args.strict)
}

pub(super) fn diff(args: &Diff) -> Done {
    let vectors = read(&args.decisions)?;
    let host = local::host()?;
    let (a, b) = (local::admit(&host, &args.a)?, local::admit(&host, &args.b)?);
    let given = |own: &[Given]| -> Vec<Given> { args.settings.given.iter().chain(own).cloned().collect() };
    let (given_a, given_b) = (given(&args.settings_a), given(&args.settings_b));
    let (mut seats_a, mut seats_b) = (Seats::new(&a, &given_a), Seats::new(&b, &given_b));
    let mut found = Found::default();
    for vector in &vectors {
        let serves = |admitted: &local::Admitted| admitted.module.facts().slots.contains(&vector.slot);
        if !serves(&a) || !serves(&b) {
            found.left_out += 1;
            continue;
        }
        let one = ask(&mut seats_a, vector, &mut found)?;
        let other = ask(&mut seats_b, vector, &mut found)?;
        found.compare(vector, &one, &other, ["a", "b"], args.show);
    }
    found.end(args.strict)
}
