//! `tidegate policy bench`: what a decision costs, by a fresh instance as sites make it, by one that is kept, and by the
//! built-in rules as native code, all in one run.

use std::hint::black_box;
use std::time::Duration;

use tidegate_core::policy::{Builtin, Policies, Question, Settings, Slot};
use tidegate_policies::Sitting;
use tokio::time::Instant;

use super::args::Bench;
use super::{example, grouped, local};
use crate::show::columns;
use crate::{Done, Failure, say};

/// Native decisions are so short that a clock cannot tell one: so many are timed together.
const NATIVE_BATCH: u32 = 1_000;

pub(super) fn bench(args: &Bench) -> Done {
    let host = local::host()?;
    let admitted = local::admit(&host, &args.module)?;
    let slots = match args.slot {
        Some(slot) => vec![slot],
        None => admitted.module.facts().slots.clone(),
    };
    // An admission warms caches up, and shows what a site pays once per module.
    let began = Instant::now();
    host.admit(&admitted.bytes).map_err(|rejection| Failure::failed(rejection.to_string()))?;
    let admission = began.elapsed();
    let mut rows = Vec::new();
    for slot in slots {
        // Settings of one slot may be none of another's business; the module decides.
        let sitting = admitted.seat(slot, &args.settings.given)?;
        rows.push(row(&sitting, slot, args.decisions)?);
    }
    say(&format!("{}  admitted in {}", admitted.name(), span(admission)));
    say(&format!("{} decisions per slot, each about the example of `tidegate policy run`", args.decisions));
    say("");
    for line in columns(&["SLOT", "FRESH", "P99", "REUSED", "P99", "NATIVE", "FUEL", "MEMORY"], &rows) {
        say(&line);
    }
    say("");
    say(
        "fresh: a new instance, configured and asked, as on a site; reused: asked again, for comparison only;",
    );
    say("native: the built-in rules, compiled into this program");
    Ok(())
}

fn row(sitting: &Sitting, slot: Slot, decisions: u32) -> Result<Vec<String>, Failure> {
    let question = example::question(slot);
    let failed = |trouble: String| Failure::failed(format!("{}: {trouble}", slot.name()));
    let mut fresh = Vec::new();
    let (mut fuel, mut memory) = (0, 0);
    for _ in 0..decisions {
        let began = Instant::now();
        let asked = sitting.ask(&question);
        fresh.push(began.elapsed());
        asked.outcome.map_err(|trouble| failed(trouble.to_string()))?;
        (fuel, memory) = (asked.fuel, asked.memory);
    }
    let mut reused = Vec::new();
    let mut held = sitting.hold().map_err(|trouble| failed(trouble.to_string()))?;
    for _ in 0..decisions {
        let began = Instant::now();
        let asked = held.ask(&question);
        reused.push(began.elapsed());
        // One that leaks traps sooner or later: a fresh one goes on, as it would for a site.
        if asked.outcome.is_err() {
            held = sitting.hold().map_err(|trouble| failed(trouble.to_string()))?;
        }
    }
    let mut native = Vec::new();
    let mut floor = Builtin::new(Settings::default());
    for _ in 0..decisions.div_ceil(NATIVE_BATCH).max(5) {
        let began = Instant::now();
        for _ in 0..NATIVE_BATCH {
            ask_native(&mut floor, &question);
        }
        native.push(began.elapsed() / NATIVE_BATCH);
    }
    Ok(vec![
        slot.name().to_owned(),
        span(share(&mut fresh, 50)),
        span(share(&mut fresh, 99)),
        span(share(&mut reused, 50)),
        span(share(&mut reused, 99)),
        span(share(&mut native, 50)),
        grouped(fuel),
        crate::ask::bytes(u64::try_from(memory).unwrap_or(u64::MAX)),
    ])
}

fn ask_native(floor: &mut Builtin, question: &Question) {
    match black_box(question) {
        Question::AutoScan(now, batch) => drop(black_box(floor.select(now, batch))),
        Question::Retry(query) => drop(black_box(floor.retry(query))),
        Question::Concurrency(now) => drop(black_box(floor.limits(now))),
        Question::Bandwidth(now) => drop(black_box(floor.budget(now))),
        Question::Order(now, batch) => drop(black_box(floor.score(now, batch))),
    }
}

/// The duration below which so many of a hundred lie. Zero if there are none.
fn share(times: &mut [Duration], percent: usize) -> Duration {
    times.sort_unstable();
    let at = (times.len() * percent / 100).min(times.len().saturating_sub(1));
    times.get(at).copied().unwrap_or_default()
}

/// A duration for people, with three digits.
pub(super) fn span(time: Duration) -> String {
    let ns = time.as_nanos();
    let with = |unit: &str, size: u128| match ns / size {
        0..10 => format!("{}.{:02} {unit}", ns / size, ns % size * 100 / size),
        10..100 => format!("{}.{} {unit}", ns / size, ns % size * 10 / size),
        whole => format!("{whole} {unit}"),
    };
    match ns {
        0..1_000 => format!("{ns} ns"),
        1_000..1_000_000 => with("µs", 1_000),
        1_000_000..1_000_000_000 => with("ms", 1_000_000),
        _ => with("s", 1_000_000_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_three_digits_and_a_unit() {
        let cases = [
            (0, "0 ns"),
            (999, "999 ns"),
            (1_000, "1.00 µs"),
            (19_870, "19.8 µs"),
            (250_000, "250 µs"),
            (12_500_000, "12.5 ms"),
            (1_250_000_000, "1.25 s"),
            (75_000_000_000, "75.0 s"),
        ];
        for (ns, text) in cases {
            assert_eq!(span(Duration::from_nanos(ns)), text);
        }
    }

    #[test]
    fn a_share_of_times_is_one_of_them() {
        let mut times: Vec<Duration> = (1..=100).rev().map(Duration::from_millis).collect();
        assert_eq!(share(&mut times, 50), Duration::from_millis(51));
        assert_eq!(share(&mut times, 99), Duration::from_millis(100));
        assert_eq!(share(&mut [], 50), Duration::ZERO);
        assert_eq!(share(&mut [Duration::from_millis(3)], 99), Duration::from_millis(3));
    }
}
