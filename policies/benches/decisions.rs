//! Measures what a decision costs: the native rules, an instance that is kept, a fresh instance as the site uses it; and what
//! it costs to admit a module and to hold it. One run, one machine, one table. Checks nothing.
//!
//!     cargo bench -p tidegate-policies --bench decisions [-- module.wasm]

#![allow(clippy::print_stdout, reason = "its output is its purpose")]
#![allow(clippy::unwrap_used, reason = "a benchmark that cannot measure ends there")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use tidegate_core::policy::{
    Builtin, Candidate, ErrorClass, Known, LinkKind, Policies, Question, RetryQuery, Settings, Situation,
    Slot, Subject, Waiting,
};
use tidegate_policies::{Ceilings, DEFAULT, Host};

fn main() {
    // `cargo bench` adds an argument of its own.
    let path = std::env::args().skip(1).find(|argument| !argument.starts_with("--"));
    let bytes = path.map_or_else(|| DEFAULT.to_vec(), |path| std::fs::read(&path).unwrap());

    let empty = resident_kib();
    let began = Instant::now();
    let host = Host::new(Ceilings::default()).unwrap();
    let engine_took = began.elapsed();
    let engine = resident_kib();
    let module = host.admit(&bytes).unwrap();
    let held = resident_kib();
    println!("module {} {}, {} bytes", module.facts().name, module.facts().version, bytes.len());

    println!("\n{:<26}{:>12}{:>14}{:>14}{:>10}", "ns per decision", "native", "kept", "fresh", "fuel");
    let mut rules = Builtin::new(Settings::default());
    for (name, question) in questions() {
        let slot = question.slot();
        if !module.facts().slots.contains(&slot) {
            continue;
        }
        let sitting = module.seat(slot, &[]).unwrap();
        let native = least(|| ask_native(&mut rules, &question));
        let fuel = sitting.ask(&question).fuel;
        let mut kept = sitting.hold().unwrap();
        // A guest whose allocator only goes forward ends some time: it is started anew outside the measurement.
        let kept = least(|| {
            if black_box(kept.ask(&question)).outcome.is_err() {
                kept = sitting.hold().unwrap();
            }
        });
        let fresh = least(|| drop(black_box(sitting.ask(&question))));
        println!("{name:<26}{native:>12}{kept:>14}{fresh:>14}{fuel:>10}");
    }

    println!("\n{:<40}{:>14}", "once", "microseconds");
    println!("{:<40}{:>14}", "engine", engine_took.as_micros());
    println!(
        "{:<40}{:>14}",
        "admission, all of it",
        best(5, || drop(black_box(host.admit(&bytes).unwrap())))
    );
    let slot = module.facts().slots[0];
    let seat = best(20, || drop(black_box(module.seat(slot, &[]).unwrap())));
    println!("{:<40}{seat:>14}", "a seat with its questions");
    println!("\n{:<40}{:>14}", "resident memory", "KiB");
    println!("{:<40}{empty:>14}", "before");
    println!("{:<40}{engine:>14}", "with the engine");
    println!("{:<40}{held:>14}", "with the module, its compiler's included");
    let more: Vec<_> = (0..10).map(|_| host.admit(&bytes).unwrap()).collect();
    println!("{:<40}{:>14}", "with ten more of it", resident_kib());
    drop(more);
}

/// Nanoseconds of one call: the least of many batches, for what disturbs only adds.
fn least(mut call: impl FnMut()) -> u128 {
    let began = Instant::now();
    let mut batches = Vec::new();
    while batches.len() < 20 || began.elapsed() < Duration::from_millis(300) {
        let start = Instant::now();
        for _ in 0..20 {
            call();
        }
        batches.push(start.elapsed().as_nanos() / 20);
    }
    batches.into_iter().min().unwrap_or(0)
}

/// Microseconds of one call: the least of some.
fn best(times: u32, mut call: impl FnMut()) -> u128 {
    let one = |_| {
        let start = Instant::now();
        call();
        start.elapsed().as_micros()
    };
    (0..times).map(one).min().unwrap_or(0)
}

fn ask_native(rules: &mut Builtin, question: &Question) {
    match black_box(question) {
        Question::AutoScan(now, batch) => drop(black_box(rules.select(now, batch))),
        Question::Retry(query) => drop(black_box(rules.retry(query))),
        Question::Concurrency(now) => drop(black_box(rules.limits(now))),
        Question::Bandwidth(now) => drop(black_box(rules.budget(now))),
        Question::Order(now, batch) => drop(black_box(rules.score(now, batch))),
    }
}

fn questions() -> Vec<(String, Question)> {
    let now = Situation { due: 12, seed: 3, ..Situation::default() };
    let attempt = RetryQuery {
        job: 1,
        spent: 2,
        class: ErrorClass::Damaged,
        subject: Subject::Part,
        code: String::from("part_damaged"),
        elapsed_ms: 60_000,
        last_delay_ms: 30_000,
        size: 50_000_000,
        sent: 8_000_000,
        link: LinkKind::Ethernet,
        metered: Known::No,
        memo: 0,
        seed: 5,
    };
    let mut all = vec![
        (String::from(Slot::Retry.name()), Question::Retry(attempt)),
        (String::from(Slot::Concurrency.name()), Question::Concurrency(now.clone())),
        (String::from(Slot::Bandwidth.name()), Question::Bandwidth(now.clone())),
    ];
    for count in [1, 16, 256] {
        let labels = |n: u64| vec![(String::from("deadline-hours"), n.to_string())];
        let device = |n: u64| format!("robot-{}", n % 9);
        let waiting = |n| Waiting {
            job: n,
            device: device(n),
            size: n,
            spent: 0,
            queued_ms: n,
            age_ms: n,
            labels: labels(n),
        };
        let batch = (0..count).map(waiting).collect();
        all.push((format!("order of {count}"), Question::Order(now.clone(), batch)));
        let candidate =
            |n| Candidate { episode: n, device: device(n), size: n, age_ms: n, tries: 0, labels: labels(n) };
        let batch = (0..count).map(candidate).collect();
        all.push((format!("auto-scan of {count}"), Question::AutoScan(now.clone(), batch)));
    }
    all
}

/// Resident memory by the kernel; 0 where it does not tell.
fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok()).unwrap_or(0)
}
