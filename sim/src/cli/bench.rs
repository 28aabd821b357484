//! Where runs are made: on how many threads, in which order they are told, silent panics, CPU time, and shrinking with a
//! wall clock. Wall clocks and threads end here: no run sees them.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use tidegate_sim::report::{Case, Origin};
use tidegate_sim::run::Options;
use tidegate_sim::scenario::Scenario;
use tidegate_sim::shrink::{Budget, Shrunk, shrink};

use super::seam::Lab;

thread_local! {
    static RUNNING: Cell<bool> = const { Cell::new(false) };
    static PLACE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Keeps panics inside runs off the terminal, and remembers where they were: a run tells of its panic itself.
pub fn hush() {
    let loud = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if RUNNING.get() {
            let place = panic.location().map(|at| format!("{}:{}", at.file(), at.line()));
            PLACE.with_borrow_mut(|known| *known = place);
        } else {
            loud(panic);
        }
    }));
}

/// Runs one scenario.
pub fn case(lab: Lab, origin: Origin, scenario: Scenario, options: Options) -> Case {
    let begun = Instant::now();
    PLACE.take();
    RUNNING.set(true);
    let report = (lab.run)(&scenario, options);
    RUNNING.set(false);
    Case {
        origin,
        scenario,
        options,
        report,
        panicked_at: PLACE.take(),
        minimal: None,
        took: begun.elapsed(),
    }
}

/// How many threads to use when nobody says.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Works on items on `jobs` threads and tells the results in the order of the items.
///
/// # Errors
/// The first one of `tell`; nothing new is begun after it.
pub fn in_order<T: Send, R: Send>(
    jobs: usize,
    items: impl Iterator<Item = T> + Send,
    work: impl Fn(T) -> R + Sync,
    mut tell: impl FnMut(R) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let items = Mutex::new(items.enumerate());
    let stopped = AtomicBool::new(false);
    let jobs = jobs.max(1);
    // While one is told, which may mean that it is shrunk, the others must not pile up results without end.
    let (results, arrived) = mpsc::sync_channel::<(usize, R)>(jobs * 4);
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            let (items, stopped, work, results) = (&items, &stopped, &work, results.clone());
            scope.spawn(move || {
                while !stopped.load(Ordering::Relaxed) {
                    let next = items.lock().unwrap_or_else(PoisonError::into_inner).next();
                    let Some((at, item)) = next else { return };
                    if results.send((at, work(item))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(results);
        let mut waiting = BTreeMap::new();
        let mut next = 0;
        for (at, result) in arrived.iter() {
            waiting.insert(at, result);
            while let Some(result) = waiting.remove(&next) {
                next += 1;
                if let Err(error) = tell(result) {
                    stopped.store(true, Ordering::Relaxed);
                    // Whoever waits to send a result must not wait for ever.
                    drop(arrived);
                    return Err(error);
                }
            }
        }
        Ok(())
    })
}

/// CPU time of this thread, where the system tells it; wall clock since `begun` elsewhere.
pub struct Meter {
    begun: Instant,
    cpu: Option<Duration>,
}

impl Meter {
    /// From now on.
    pub fn start() -> Meter {
        Meter { begun: Instant::now(), cpu: cpu() }
    }

    /// Since the start, on the same thread.
    pub fn read(&self) -> Duration {
        match (self.cpu, cpu()) {
            (Some(before), Some(now)) => now.saturating_sub(before),
            _ => self.begun.elapsed(),
        }
    }
}

/// Linux tells what a thread has spent, in nanoseconds, as the first number of this file.
fn cpu() -> Option<Duration> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    text.split_whitespace().next()?.parse().ok().map(Duration::from_nanos)
}

/// Shrinks a failing scenario for at most `within`, and writes what is left.
///
/// Candidates go through the file format on the way: what is found is what a reader of the file will run.
pub fn minimise(
    lab: Lab,
    scenario: &Scenario,
    options: Options,
    tries: u64,
    within: Duration,
) -> (Shrunk, String) {
    let begun = Instant::now();
    let mut fails = |candidate: &Scenario| {
        let read = (lab.parse)(&(lab.write)(candidate)).ok()?;
        let case = case(lab, Origin::Seed(read.seed), read, options);
        case.report.failure.map(|failure| failure.signature())
    };
    let shrunk = shrink(scenario, &mut fails, Budget { tries, within, clock: &|| begun.elapsed() });
    let text = (lab.write)(&shrunk.scenario);
    (shrunk, text)
}

#[cfg(test)]
mod tests {
    use super::in_order;

    #[test]
    fn results_are_told_in_the_order_of_the_items_whichever_is_ready_first() {
        for jobs in [1, 3, 8] {
            let mut told = Vec::new();
            let work = |n: u64| (0..(n * 7919) % 1000).fold(n, |sum, _| std::hint::black_box(sum));
            in_order(jobs, 0..200, work, |n| {
                told.push(n);
                Ok(())
            })
            .expect("nothing fails");
            assert!(told.iter().copied().eq(0..200), "{jobs}: {told:?}");
        }
    }

    #[test]
    fn it_stops_at_the_first_error_even_if_there_is_work_without_end() {
        let mut told = 0;
        let stopped = in_order(
            4,
            0..,
            |n: u64| n,
            |n| {
                told += 1;
                if n == 9 { Err(anyhow::anyhow!("no more")) } else { Ok(()) }
            },
        );
        assert_eq!(stopped.expect_err("it was told to").to_string(), "no more");
        assert_eq!(told, 10);
    }
}
