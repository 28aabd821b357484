//! Whether two processes that run the same seeds do the same: what each tells of its runs, and where two accounts part.
//! Starts no process and reads no clock; the command does.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::run::Report;

/// How far apart checkpoints are, in events, until a difference is found.
pub const EVERY: u64 = 1024;

/// What one process tells of one run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trail {
    /// Event, hash of everything up to it, and what happened there.
    pub checkpoints: Vec<(u64, u64, String)>,
    /// Events.
    pub events: u64,
    /// End of the hash chain, in hex.
    pub chain: String,
    /// How it failed, or nothing.
    pub failure: String,
}

/// Where two runs part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Whose runs.
    pub seed: u64,
    /// The last event after which both were the same, as far as checkpoints tell; 0 is the beginning.
    pub same_until: u64,
    /// The first checkpoint at which they differ; exact if checkpoints are at every event.
    pub event: u64,
    /// What happened there in the one process.
    pub first: String,
    /// What happened there in the other.
    pub second: String,
}

impl Trail {
    /// Of a run that kept checkpoints.
    #[must_use]
    pub fn of(report: &Report) -> Trail {
        Trail {
            checkpoints: report.checkpoints.clone(),
            events: report.events,
            chain: report.chain.clone(),
            failure: report
                .failure
                .as_ref()
                .map(|f| format!("{}: {}", f.signature(), f.saw))
                .unwrap_or_default(),
        }
    }

    /// As lines that [`read`] reads.
    #[must_use]
    pub fn lines(&self, seed: u64) -> String {
        let mut out = format!("seed {seed}\n");
        let plain = |text: &str| text.replace(['\n', '\r'], " ");
        for (event, hash, what) in &self.checkpoints {
            writeln!(out, "at {event} {hash:016x} {}", plain(what)).expect("writing to a string cannot fail");
        }
        writeln!(out, "end {} {} {}", self.events, self.chain, plain(&self.failure))
            .expect("writing to a string cannot fail");
        out
    }
}

/// Reads what a process told.
///
/// # Errors
/// The line that is none of ours, in words.
pub fn read(text: &str) -> Result<BTreeMap<u64, Trail>, String> {
    let mut trails = BTreeMap::new();
    let mut open: Option<(u64, Trail)> = None;
    for line in text.lines() {
        let bad = || format!("no line of a trail: `{line}`");
        let (word, rest) = line.split_once(' ').ok_or_else(bad)?;
        match (word, &mut open) {
            ("seed", None) => open = Some((rest.parse().map_err(|_| bad())?, Trail::default())),
            ("at", Some((_, trail))) => {
                let mut parts = rest.splitn(3, ' ');
                let event = parts.next().and_then(|n| n.parse().ok()).ok_or_else(bad)?;
                let hash = parts.next().and_then(|n| u64::from_str_radix(n, 16).ok()).ok_or_else(bad)?;
                trail.checkpoints.push((event, hash, parts.next().unwrap_or_default().to_string()));
            }
            ("end", Some((seed, trail))) => {
                let mut parts = rest.splitn(3, ' ');
                trail.events = parts.next().and_then(|n| n.parse().ok()).ok_or_else(bad)?;
                trail.chain = parts.next().ok_or_else(bad)?.to_string();
                trail.failure = parts.next().unwrap_or_default().to_string();
                trails.insert(*seed, std::mem::take(trail));
                open = None;
            }
            _ => return Err(bad()),
        }
    }
    match open {
        None => Ok(trails),
        Some((seed, _)) => Err(format!("the account of seed {seed} ends in the middle")),
    }
}

/// Where the two accounts of one seed part, if they do.
#[must_use]
pub fn compare(seed: u64, one: &Trail, two: &Trail) -> Option<Difference> {
    let mut same_until = 0;
    let mut pairs = one.checkpoints.iter().zip(&two.checkpoints);
    if let Some((a, b)) = pairs.find(|(a, b)| {
        let same = (a.0, a.1) == (b.0, b.1);
        if same {
            same_until = a.0;
        }
        !same
    }) {
        let (first, second) = (a.2.clone(), b.2.clone());
        return Some(Difference { seed, same_until, event: a.0.min(b.0), first, second });
    }
    if one == two {
        return None;
    }
    // Alike up to the last checkpoint that both have; what follows in the longer one, or its end, is the difference.
    let common = one.checkpoints.len().min(two.checkpoints.len());
    let next = |trail: &Trail| match trail.checkpoints.get(common) {
        Some((event, _, what)) => (*event, what.clone()),
        None => {
            let how = if trail.failure.is_empty() { "passed" } else { trail.failure.as_str() };
            (trail.events, format!("the end after {} events, chain {}, {how}", trail.events, trail.chain))
        }
    };
    let ((at, first), (other, second)) = (next(one), next(two));
    Some(Difference { seed, same_until, event: at.min(other).max(same_until + 1), first, second })
}

#[cfg(test)]
mod tests {
    use super::{Trail, compare, read};

    fn trail(hashes: &[u64]) -> Trail {
        let at = |(i, hash): (usize, &u64)| ((i as u64 + 1) * 1024, *hash, format!("thing {i}\nwith a line"));
        Trail {
            checkpoints: hashes.iter().enumerate().map(at).collect(),
            events: hashes.len() as u64 * 1024 + 7,
            chain: "00ff".to_string(),
            failure: String::new(),
        }
    }

    #[test]
    fn what_one_process_tells_the_other_reads() {
        let text = trail(&[1, 2]).lines(5)
            + &Trail { failure: "I18/x: no object".to_string(), ..trail(&[]) }.lines(6);
        let trails = read(&text).expect("just written");
        assert_eq!(trails.len(), 2);
        assert_eq!(trails[&5].checkpoints[1], (2048, 2, "thing 1 with a line".to_string()));
        assert_eq!((trails[&6].events, trails[&6].failure.as_str()), (7, "I18/x: no object"));
        for bad in ["hello", "at 1 2 x", "seed x", "seed 5\nat 1024 zz x", "seed 5\n", "end 1 00 "] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_first_checkpoint_that_differs_is_named() {
        assert_eq!(compare(1, &trail(&[1, 2, 3]), &trail(&[1, 2, 3])), None);
        let found = compare(1, &trail(&[1, 2, 3]), &trail(&[1, 9, 8])).expect("they differ");
        assert_eq!((found.same_until, found.event), (1024, 2048));
        assert!(found.first.contains("thing 1"));
    }

    #[test]
    fn a_run_that_ends_earlier_or_otherwise_differs_too() {
        let found = compare(1, &trail(&[1, 2]), &trail(&[1])).expect("they differ");
        assert_eq!((found.same_until, found.event), (1024, 1031));
        let otherwise = Trail { chain: "1234".to_string(), ..trail(&[1]) };
        let found = compare(1, &trail(&[1]), &otherwise).expect("they differ");
        assert_eq!((found.same_until, found.event), (1024, 1031));
        assert!(found.second.contains("1234"));
    }
}
