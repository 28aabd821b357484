//! The bank of planted bugs as the simulator sees it: what each should be found by, how hunts are counted, and the table
//! of results. Runs nothing itself and reads no clock: the command's closures do.

pub mod table;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use serde_json::{Value, json};

use table::{Entry, Way};

/// Seeds of different hunts for one bug lie so far apart.
const APART: u64 = 1_000_000;

/// The first seed of the n-th hunt, from 0.
#[must_use]
pub fn first_seed(hunt: u64) -> u64 {
    1 + hunt * APART
}

/// One hunt for one bug, from its first seed until something broke.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hunt {
    /// Seeds that were run, the one that found it included.
    pub seeds: u64,
    /// Those of them that break something without the bug as well: they count as run, and never as a find.
    pub anyway: u64,
    /// CPU time of it.
    pub cpu: Duration,
    /// The seed that found something and the invariant that broke first.
    pub found: Option<(u64, String)>,
}

/// Hunts: runs seeds from `from` on until one breaks something, at most `max`. `breaks` says what a seed breaks first,
/// `anyway` whether it breaks something without the bug too: what fails for another reason finds nothing. The time is
/// left to the caller.
pub fn hunt(
    from: u64,
    max: u64,
    breaks: &mut dyn FnMut(u64) -> Option<String>,
    anyway: &mut dyn FnMut(u64) -> bool,
) -> Hunt {
    let mut hunt = Hunt { seeds: max, anyway: 0, cpu: Duration::ZERO, found: None };
    for n in 0..max {
        let Some(invariant) = breaks(from + n) else { continue };
        if anyway(from + n) {
            hunt.anyway += 1;
            continue;
        }
        (hunt.seeds, hunt.found) = (n + 1, Some((from + n, invariant)));
        break;
    }
    hunt
}

/// What came of the hunts for one bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Every hunt found it, by an invariant that is accepted for it.
    Found,
    /// Every hunt found something, and at least one by an invariant that should not have been the first.
    Otherwise,
    /// At least one hunt found nothing.
    Missed,
    /// The part of the system in which it would be planted does not exist.
    Later,
}

/// One bug and its hunts.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The bug.
    pub entry: &'static Entry,
    /// Its hunts; none if it comes later.
    pub hunts: Vec<Hunt>,
}

impl Outcome {
    /// What came of it.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let accepted = |hunt: &Hunt| match &hunt.found {
            Some((_, invariant)) => self.entry.expects.contains(&invariant.as_str()),
            None => false,
        };
        if self.entry.later.is_some() {
            Verdict::Later
        } else if self.hunts.is_empty() || self.hunts.iter().any(|hunt| hunt.found.is_none()) {
            Verdict::Missed
        } else if self.hunts.iter().all(accepted) {
            Verdict::Found
        } else {
            Verdict::Otherwise
        }
    }

    /// How often each invariant was the first to break.
    #[must_use]
    pub fn by(&self) -> BTreeMap<&str, u64> {
        let mut by = BTreeMap::new();
        for (_, invariant) in self.hunts.iter().filter_map(|hunt| hunt.found.as_ref()) {
            *by.entry(invariant.as_str()).or_default() += 1;
        }
        by
    }

    /// Whether the invariant that the entry names was the first to break in every hunt.
    #[must_use]
    pub fn is_named(&self) -> bool {
        let named = self.entry.expects.first();
        !self.hunts.is_empty()
            && self.hunts.iter().all(|hunt| hunt.found.as_ref().map(|(_, id)| id.as_str()) == named.copied())
    }

    /// Seeds, median and 95th percentile, and CPU time of all hunts together.
    #[must_use]
    pub fn figures(&self) -> (u64, u64, Duration) {
        let mut seeds: Vec<u64> = self.hunts.iter().map(|hunt| hunt.seeds).collect();
        seeds.sort_unstable();
        (quantile(&seeds, 50), quantile(&seeds, 95), self.hunts.iter().map(|hunt| hunt.cpu).sum())
    }

    /// Seeds of all hunts that break something without the bug as well.
    #[must_use]
    pub fn anyway(&self) -> u64 {
        self.hunts.iter().map(|hunt| hunt.anyway).sum()
    }

    fn cells(&self) -> [String; 10] {
        let entry = self.entry;
        let (median, p95, cpu) = self.figures();
        let verdict = match self.verdict() {
            Verdict::Found => "found".to_string(),
            Verdict::Otherwise => "otherwise".to_string(),
            Verdict::Missed => "MISSED".to_string(),
            Verdict::Later => entry.later.unwrap_or_default().to_string(),
        };
        let by: Vec<String> = self.by().iter().map(|(id, n)| format!("{id} {n}x")).collect();
        let figure = |text: String| if self.hunts.is_empty() { String::new() } else { text };
        [
            entry.id.to_string(),
            entry.sentence.to_string(),
            entry.expects.join(" "),
            verdict,
            by.join(", "),
            figure(if self.is_named() { "yes" } else { "no" }.to_string()),
            figure(median.to_string()),
            figure(p95.to_string()),
            figure(self.anyway().to_string()),
            figure(format!("{:.2}", cpu.as_secs_f64())),
        ]
    }

    /// One line for people.
    #[must_use]
    pub fn line(&self) -> String {
        let [id, sentence, expects, verdict, by, named, median, p95, anyway, cpu] = self.cells();
        let first = if named.is_empty() { String::new() } else { format!("by {by} (named first: {named})") };
        let mut line = format!(
            "{id:<5}{verdict:<22} {median:>7} {p95:>7} {anyway:>7} {cpu:>9}  {first:<34} {expects:<12} {sentence}"
        );
        line.truncate(line.trim_end().len());
        line
    }

    /// For programs; the fields are those of `bank` in `report::json`.
    #[must_use]
    pub fn json(&self) -> Value {
        let (median, p95, cpu) = self.figures();
        json!({
            "type": "bank",
            "id": self.entry.id,
            "sentence": self.entry.sentence,
            "expects": self.entry.expects,
            "verdict": match self.verdict() {
                Verdict::Found => "found",
                Verdict::Otherwise => "otherwise",
                Verdict::Missed => "missed",
                Verdict::Later => "later",
            },
            "by": self.by(),
            "named_first": self.is_named(),
            "found_at": self.hunts.iter().map(|h| h.found.as_ref().map(|(seed, _)| *seed)).collect::<Vec<_>>(),
            "runs": self.hunts.len(),
            "seeds_median": median,
            "seeds_p95": p95,
            "seeds_anyway": self.anyway(),
            "cpu_s": cpu.as_secs_f64(),
            "later": self.entry.later,
            "fixed_in": self.entry.fixed_in,
        })
    }
}

/// The head of [`Outcome::line`].
#[must_use]
pub fn head() -> String {
    format!(
        "{:<5}{:<22} {:>7} {:>7} {:>7} {:>9}  {:<34} {:<12} {}",
        "id", "verdict", "median", "p95", "anyway", "CPU s", "first violations", "expects", "what is wrong"
    )
}

/// The table as it stands in the documentation.
#[must_use]
pub fn markdown(outcomes: &[Outcome]) -> String {
    let mut out = String::from(
        "| Bug | What is wrong | Expected | Verdict | Found by | Named first | Seeds, median | Seeds, p95 | Fail anyway | CPU s |\n\
         |---|---|---|---|---|---|---:|---:|---:|---:|\n",
    );
    for outcome in outcomes {
        let mut cells = outcome.cells();
        if let Some(commit) = outcome.entry.fixed_in {
            write!(cells[1], " Fixed in {commit}.").expect("writing to a string cannot fail");
        }
        let cells = cells.map(|cell| cell.replace('|', "\\|"));
        writeln!(out, "| {} |", cells.join(" | ")).expect("writing to a string cannot fail");
    }
    out
}

/// The smallest of sorted numbers that at least so many percent do not exceed; 0 of none.
fn quantile(sorted: &[u64], percent: usize) -> u64 {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or(0)
}

/// Whether a bug is looked for by running a seed in two processes instead of by invariants.
#[must_use]
pub fn is_meta(entry: &Entry) -> bool {
    matches!(entry.way, Way::Meta)
}

#[cfg(test)]
mod tests {
    use super::{Entry, Hunt, Outcome, Verdict, Way, hunt, markdown, quantile};
    use std::time::Duration;

    static ENTRY: Entry = Entry {
        bug: None,
        id: "B99",
        sentence: "Something | else.",
        expects: &["I18", "I15"],
        way: Way::Core,
        fixed_in: Some("0123abc"),
        later: None,
    };
    static LATER: Entry = Entry {
        bug: None,
        id: "B98",
        sentence: "Not yet.",
        expects: &["I23"],
        way: Way::Core,
        fixed_in: None,
        later: Some("a later issue"),
    };

    fn outcome(found: &[(u64, Option<&str>)]) -> Outcome {
        let hunt = |(seeds, by): &(u64, Option<&str>)| Hunt {
            seeds: *seeds,
            anyway: 1,
            cpu: Duration::from_millis(500),
            found: by.map(|by| (*seeds, by.to_string())),
        };
        Outcome { entry: &ENTRY, hunts: found.iter().map(hunt).collect() }
    }

    #[test]
    fn a_hunt_ends_with_the_first_seed_that_breaks_something_or_at_its_limit() {
        let mut ran = Vec::new();
        let mut breaks = |seed| {
            ran.push(seed);
            (seed == 103).then(|| "I18".to_string())
        };
        let out = hunt(100, 10, &mut breaks, &mut |_| false);
        assert_eq!((out.seeds, out.found), (4, Some((103, "I18".to_string()))));
        assert_eq!(ran, [100, 101, 102, 103]);
        let out = hunt(1, 3, &mut |_| None, &mut |_| panic!("nothing failed"));
        assert_eq!((out.seeds, out.found), (3, None));
    }

    #[test]
    fn a_seed_that_fails_without_the_bug_as_well_finds_nothing_and_is_counted() {
        let mut breaks = |seed: u64| (seed >= 3).then(|| "I18".to_string());
        let out = hunt(1, 9, &mut breaks, &mut |seed| seed < 5);
        assert_eq!((out.seeds, out.anyway, out.found), (5, 2, Some((5, "I18".to_string()))));
    }

    #[test]
    fn a_bug_is_found_only_if_every_hunt_finds_it_by_an_accepted_invariant() {
        for (hunts, verdict, named) in [
            (&[(3, Some("I18")), (9, Some("I18"))][..], Verdict::Found, true),
            (&[(3, Some("I18")), (9, Some("I15"))][..], Verdict::Found, false),
            (&[(3, Some("I18")), (9, Some("I01"))][..], Verdict::Otherwise, false),
            (&[(3, Some("I18")), (9, None)][..], Verdict::Missed, false),
            (&[][..], Verdict::Missed, false),
        ] {
            let outcome = outcome(hunts);
            assert_eq!((outcome.verdict(), outcome.is_named()), (verdict, named), "{hunts:?}");
        }
        assert_eq!(Outcome { entry: &LATER, hunts: Vec::new() }.verdict(), Verdict::Later);
    }

    #[test]
    fn the_table_has_a_row_for_each_bug_and_no_torn_cells() {
        let outcomes = [
            outcome(&[(3, Some("I18")), (9, Some("I15")), (4, Some("I18"))]),
            Outcome { entry: &LATER, hunts: vec![] },
        ];
        let text = markdown(&outcomes);
        let rows: Vec<&str> = text.lines().skip(2).collect();
        assert_eq!(
            rows[0],
            "| B99 | Something \\| else. Fixed in 0123abc. | I18 I15 | found | I15 1x, I18 2x | no | 4 | 9 | 3 | 1.50 |"
        );
        assert_eq!(rows[1], "| B98 | Not yet. | I23 | a later issue |  |  |  |  |  |  |");
        assert!(outcomes[0].line().contains("found") && !outcomes[0].line().contains('\n'));
    }

    #[test]
    fn quantiles_are_numbers_that_were_there() {
        assert_eq!([quantile(&[], 50), quantile(&[7], 95), quantile(&[1, 2, 3, 4], 50)], [0, 7, 2]);
        let hundred: Vec<u64> = (1..=100).collect();
        assert_eq!([quantile(&hundred, 50), quantile(&hundred, 95)], [50, 95]);
    }
}
