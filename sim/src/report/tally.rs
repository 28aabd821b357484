//! What many runs reached together: coverage and how it grew, marks, premises, faults that really happened, and what is
//! missing. Adds up; runs nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::time::Duration;

use serde_json::{Value, json};

use crate::run::Report;
use crate::watch::Premises;

/// Everything a build can reach and must in a long run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Catalogue {
    /// What must sometimes happen.
    pub marks: Vec<&'static str>,
    /// Invariants that must have had something to check.
    pub invariants: Vec<&'static str>,
    /// Words of faults that must have done something.
    pub faults: Vec<&'static str>,
}

/// What is missing in a catalogue after some runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gaps {
    /// Marks that were never hit.
    pub never_hit: Vec<&'static str>,
    /// Invariants that never had anything to check.
    pub vacuous: Vec<&'static str>,
    /// Faults that never did anything.
    pub never_fired: Vec<&'static str>,
}

impl Gaps {
    /// Nothing is missing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.never_hit.is_empty() && self.vacuous.is_empty() && self.never_fired.is_empty()
    }
}

/// Coverage after so many runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Growth {
    /// Runs.
    pub seeds: u64,
    /// Abstract states.
    pub states: usize,
    /// Abstract transitions.
    pub transitions: usize,
    /// Pairs of fault and phase.
    pub pairs: usize,
}

/// The sum of runs.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Runs.
    pub seeds: u64,
    /// Events of all worlds.
    pub events: u64,
    /// Steps of all machines.
    pub steps: u64,
    /// Simulated time of all worlds.
    pub simulated: Duration,
    states: BTreeSet<u64>,
    transitions: BTreeSet<u64>,
    pairs: BTreeSet<(&'static str, &'static str)>,
    premises: Premises,
    /// Runs that hit each mark.
    marks: BTreeMap<&'static str, u64>,
    fired: BTreeMap<&'static str, u64>,
    growth: Vec<Growth>,
}

impl Tally {
    /// One run more. The order of runs decides the curve and nothing else.
    pub fn add(&mut self, report: &Report) {
        self.seeds += 1;
        self.events += report.events;
        self.steps += report.steps;
        self.simulated += report.simulated;
        self.states.extend(&report.states);
        self.transitions.extend(&report.transitions);
        self.pairs.extend(&report.pairs);
        self.premises.add(&report.premises);
        for mark in &report.marks {
            *self.marks.entry(mark).or_default() += 1;
        }
        for (fault, n) in &report.fired {
            *self.fired.entry(fault).or_default() += n;
        }
        if is_round(self.seeds) {
            self.growth.push(self.now());
        }
    }

    fn now(&self) -> Growth {
        Growth {
            seeds: self.seeds,
            states: self.states.len(),
            transitions: self.transitions.len(),
            pairs: self.pairs.len(),
        }
    }

    /// Coverage after 1, 2, 5, 10, ... runs, and now.
    #[must_use]
    pub fn growth(&self) -> Vec<Growth> {
        let mut growth = self.growth.clone();
        if growth.last() != Some(&self.now()) && self.seeds > 0 {
            growth.push(self.now());
        }
        growth
    }

    /// What is missing.
    #[must_use]
    pub fn gaps(&self, catalogue: &Catalogue) -> Gaps {
        let missing = |all: &[&'static str], seen: &BTreeMap<&'static str, u64>| {
            all.iter().copied().filter(|one| seen.get(one).copied().unwrap_or(0) == 0).collect()
        };
        Gaps {
            never_hit: missing(&catalogue.marks, &self.marks),
            vacuous: missing(&catalogue.invariants, &self.premises.0),
            never_fired: missing(&catalogue.faults, &self.fired),
        }
    }

    /// For people.
    #[must_use]
    pub fn text(&self, gaps: &Gaps) -> String {
        let mut out = String::new();
        self.tell(gaps, &mut out).expect("writing to a string cannot fail");
        out
    }

    fn tell(&self, gaps: &Gaps, out: &mut String) -> std::fmt::Result {
        let hours = self.simulated.as_secs_f64() / 3600.0;
        writeln!(
            out,
            "{} runs, {} events, {} steps, {hours:.1} simulated hours",
            self.seeds, self.events, self.steps
        )?;
        writeln!(out, "{:>10} {:>10} {:>12} {:>8}", "runs", "states", "transitions", "pairs")?;
        for one in self.growth() {
            writeln!(out, "{:>10} {:>10} {:>12} {:>8}", one.seeds, one.states, one.transitions, one.pairs)?;
        }
        let mut list = |title: &str, map: &BTreeMap<&'static str, u64>| {
            let words: Vec<String> = map.iter().map(|(word, n)| format!("{word} {n}")).collect();
            writeln!(out, "{title:<14}{}", wrapped(&words))
        };
        list("premises", &self.premises.0)?;
        list("faults", &self.fired)?;
        list("marks", &self.marks)?;
        for (title, missing) in
            [("never hit", &gaps.never_hit), ("vacuous", &gaps.vacuous), ("never fired", &gaps.never_fired)]
        {
            let missing: Vec<String> = missing.iter().map(|word| (*word).to_string()).collect();
            writeln!(out, "{title:<14}{}", wrapped(&missing))?;
        }
        Ok(())
    }

    /// For programs; the fields are those of `coverage` in [`super::json`].
    #[must_use]
    pub fn json(&self, gaps: &Gaps) -> Value {
        let growth: Vec<Value> = self
            .growth()
            .iter()
            .map(|g| json!({"seeds": g.seeds, "states": g.states, "transitions": g.transitions, "pairs": g.pairs}))
            .collect();
        json!({
            "type": "coverage",
            "seeds": self.seeds,
            "events": self.events,
            "steps": self.steps,
            "simulated_ms": super::json::millis(self.simulated),
            "states": self.states.len(),
            "transitions": self.transitions.len(),
            "pairs": self.pairs.iter().map(|(fault, phase)| json!([fault, phase])).collect::<Vec<_>>(),
            "growth": growth,
            "premises": self.premises.0,
            "marks": self.marks,
            "fired": self.fired,
            "never_hit": gaps.never_hit,
            "vacuous": gaps.vacuous,
            "never_fired": gaps.never_fired,
        })
    }
}

/// 1, 2, 5, 10, 20, 50, ...
fn is_round(n: u64) -> bool {
    let mut unit = n;
    while unit >= 10 && unit.is_multiple_of(10) {
        unit /= 10;
    }
    matches!(unit, 1 | 2 | 5)
}

/// Words with commas, on lines of a readable length below each other.
fn wrapped(words: &[String]) -> String {
    let mut out = if words.is_empty() { "none".to_string() } else { String::new() };
    let mut column = 0;
    for (n, word) in words.iter().enumerate() {
        if n > 0 {
            out.push(',');
            if column + word.len() > COLUMNS {
                out.push_str("\n              ");
                column = 0;
            } else {
                out.push(' ');
            }
        }
        out.push_str(word);
        column += word.len() + 2;
    }
    out
}

/// Letters of a list in a line.
const COLUMNS: usize = 100;

#[cfg(test)]
mod tests {
    use super::{Catalogue, Gaps, Tally, is_round};
    use crate::run::Report;

    fn report(n: u64) -> Report {
        let mut report =
            Report { events: 10, states: [n, n + 1].into(), marks: ["takeover"].into(), ..Report::default() };
        report.premises.met("I01");
        report.fired.insert("kill", u64::from(n == 3));
        report
    }

    #[test]
    fn runs_add_up_the_curve_grows_and_what_is_missing_is_named() {
        let mut tally = Tally::default();
        for n in 1..=7 {
            tally.add(&report(n));
        }
        let points: Vec<(u64, usize)> = tally.growth().iter().map(|g| (g.seeds, g.states)).collect();
        assert_eq!(points, [(1, 2), (2, 3), (5, 6), (7, 8)]);
        let catalogue = Catalogue {
            marks: vec!["takeover", "double-crash"],
            invariants: vec!["I01", "I12"],
            faults: vec!["kill", "cut"],
        };
        let gaps = tally.gaps(&catalogue);
        let wanted = Gaps { never_hit: vec!["double-crash"], vacuous: vec!["I12"], never_fired: vec!["cut"] };
        assert_eq!(gaps, wanted);
        assert!(!gaps.is_empty() && tally.gaps(&Catalogue::default()).is_empty());
        let text = tally.text(&gaps);
        assert!(
            text.contains("never hit     double-crash\n") && text.contains("premises      I01 7\n"),
            "{text}"
        );
        assert_eq!(tally.json(&gaps)["vacuous"][0], "I12");
    }

    #[test]
    fn round_numbers_are_one_two_five_and_ten_times_those() {
        let round: Vec<u64> = (0..=200).filter(|n| is_round(*n)).collect();
        assert_eq!(round, [1, 2, 5, 10, 20, 50, 100, 200]);
    }
}
