//! The only owner of the machine and the store, on a thread of its own. Decides nothing: it gathers, steps, commits
//! and releases, in this order and no other.
//!
//! ```text
//! 1. wait for a letter or the next deadline    4. commit records and journal in one transaction
//! 2. take at most BATCH_MAX letters            5. release effects in order
//! 3. for each: wants → prefetch → step         6. a commit failed? drop everything and end: the next start loads
//! ```
//!
//! A panic of the core ends it in the same way, after the input was counted ([`crate::crash`]); one that was counted too
//! often is not stepped, and [`Input::Quarantined`] is in its place.
//!
//! A batch that changes no record says nothing that a crash could take back. Its effects leave at once, and its
//! journal entries wait for the next commit, [`FLUSH_AFTER`] at most; if none comes, they are written behind the steps
//! ([`behind`]).

mod behind;

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use tidegate_core::change::JournalEntry;
use tidegate_core::effect::{Effect, Output};
use tidegate_core::id::{Boot, PolicySetId, Seq};
use tidegate_core::input::Input;
use tidegate_core::knobs::Knobs;
use tidegate_core::machine::{Machine, Rows};
use tidegate_core::policy::PolicySet;
use tidegate_core::quarantine::{Subject, likeness};
use tidegate_core::time::{Mono, Now};
use tidegate_core::timers::TimerKey;
use tidegate_policies::Shelf;
use tokio::sync::{mpsc, oneshot, watch};

use self::behind::Behind;
use crate::crash::{self, Crash, Crashes, Panicked};
use crate::figures::Gauge;
use crate::inbox::Letter;
use crate::policies::{Loader, Ready, Recorder};
use crate::release::Release;
use crate::seam::{Blocking, Clock};
use crate::store::{Batch, Store, StoreError};

/// Letters of one batch. 256 small steps take about as long as one flush of a good disk: a larger batch would not
/// raise the throughput, it would only make the first of them wait longer.
pub const BATCH_MAX: usize = 256;
/// How long a journal entry that changed no record may wait for a commit.
pub const FLUSH_AFTER: Duration = Duration::from_secs(1);
/// Prepared sets that stay on the shelf, so that going back to one of the last costs nothing.
const SETS_MAX: usize = 16;
/// Journal entries that may wait: four batches.
const FLUSH_ENTRIES: usize = 4 * BATCH_MAX;

/// Why a driver ended before it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// The store refused. Nothing that was not durable was told to anybody.
    #[error("{0}; the site stopped, and takes up where its records stand when it is started again")]
    Store(#[from] StoreError),
    /// A rule of the core was broken, or the driver itself has a bug.
    #[error("the driver panicked: {0}")]
    Panicked(String),
    /// An input without which there is no site made the core panic too often. It was not tried again.
    #[error("{0}; there is no site without it, so it is not started again")]
    Hopeless(Box<Crash>),
}

/// Everything a driver needs.
#[derive(Debug)]
pub struct Driver<C: Clock, B: Blocking> {
    /// The clocks.
    pub clock: C,
    /// Where the journal is written while steps go on.
    pub blocking: B,
    /// The store. It is closed when the driver ends.
    pub store: Store,
    /// Number of this boot.
    pub boot: Boot,
    /// Seed of the core's chances.
    pub seed: u64,
    /// Configuration of the core.
    pub knobs: Knobs,
    /// How long what is in flight may take to end, once asked to stop.
    pub drain: Duration,
    /// What comes in.
    pub letters: mpsc::Receiver<Letter>,
    /// Who performs what goes out.
    pub release: Release,
    /// Who has the modules that policies are.
    pub loader: Loader,
    /// The sets of policies that can be asked, with the built-in one among them. The loader adds to it.
    pub shelf: Shelf,
    /// Where figures are shown.
    pub gauge: Gauge,
    /// Turns true when the site is to stop. A sender that is gone counts as true.
    pub stop: watch::Receiver<bool>,
    /// Told once the boot is durable and its effects are released.
    pub ready: oneshot::Sender<()>,
}

impl<C: Clock, B: Blocking> Driver<C, B> {
    /// Loads the records, boots the core and drives it until it is asked to stop and drained, or the store fails.
    ///
    /// # Errors
    /// [`DriverError`]; the site cannot go on.
    pub async fn run(self) -> Result<(), DriverError> {
        let Driver {
            clock,
            blocking,
            store,
            boot,
            seed,
            knobs,
            drain,
            letters,
            release,
            loader,
            shelf,
            gauge,
            stop,
            ready,
        } = self;
        let crashes = Crashes::load(&store, clock.now().wall)?;
        let begin = Input::Boot { boot, seed, knobs };
        if let Some(crash) = crashes.hopeless(likeness(&begin, "")) {
            return Err(DriverError::Hopeless(Box::new(crash.clone())));
        }
        let mut machine = Machine::new();
        store.load(&mut machine)?;
        let Input::Boot { knobs, .. } = &begin else { unreachable!("it was made a boot above") };
        let set = machine.parts().policies.set_under(knobs);
        let mut engine = Engine {
            clock,
            blocking,
            store,
            behind: None,
            machine,
            crashes,
            shelf,
            sets: VecDeque::new(),
            recorder: Recorder::default(),
            release,
            gauge,
            out: Output::default(),
            batch: Batch::default(),
            durable: false,
            waiting_since: None,
            effects: Vec::new(),
        };
        engine.prepare_first(&loader, &set);
        let quarantined = engine.crashes.quarantined().count() as u64;
        engine.gauge.update(|figures| {
            figures.boot = boot.0;
            figures.quarantined = quarantined;
        });
        engine.step(engine.clock.now(), begin)?;
        engine.settle().await?;
        // Nobody may be waiting for it.
        let _ = ready.send(());
        let ended = engine.drive(letters, stop, drain).await;
        if let Some(behind) = engine.behind.as_mut() {
            // Only after an error, which is what counts. The store is closed when nobody writes to it any more.
            let _ = behind.ended().await;
        }
        ended
    }
}

struct Engine<C: Clock, B: Blocking> {
    clock: C,
    blocking: B,
    store: Store,
    /// What is being written. The store knows nothing of it yet.
    behind: Option<Behind>,
    machine: Machine,
    crashes: Crashes,
    shelf: Shelf,
    /// Prepared sets on the shelf, oldest first.
    sets: VecDeque<PolicySetId>,
    recorder: Recorder,
    release: Release,
    gauge: Gauge,
    out: Output,
    /// What was stepped and is not durable yet. Its rows are newer than the store's.
    batch: Batch,
    /// Whether the batch holds anything that must not be told before it is durable.
    durable: bool,
    /// Since when the oldest entry waits for a commit.
    waiting_since: Option<Mono>,
    effects: Vec<Effect>,
}

impl<C: Clock, B: Blocking> Engine<C, B> {
    /// Has the set that the boot is decided with ready before it is stepped. Where that fails the site starts all the
    /// same: the built-in rules stand in, and the core hears why when it asks for the set itself.
    fn prepare_first(&mut self, loader: &Loader, set: &PolicySet) {
        match loader.prepare(set) {
            Ok(seated) => self.shelve(Ready::Set(Box::new(seated))),
            Err((slot, why)) => tracing::warn!(
                slot = slot.name(), %why,
                "the policies of this site could not be made ready; the built-in rules stand in for them"
            ),
        }
    }

    /// Puts on the shelf what is ready.
    fn shelve(&mut self, ready: Ready) {
        match ready {
            Ready::Nothing => {}
            Ready::Set(set) => {
                let id = set.id();
                self.shelf.put_seated(*set);
                self.sets.retain(|other| *other != id);
                self.sets.push_back(id);
                if self.sets.len() > SETS_MAX {
                    let active = self.machine.active_policy();
                    let oldest = self.sets.iter().position(|other| *other != active);
                    if let Some(oldest) = oldest.and_then(|at| self.sets.remove(at)) {
                        self.shelf.drop_set(oldest);
                    }
                }
            }
            Ready::Shadow(sitting) => self.shelf.shadow(sitting.map(|sitting| *sitting)),
        }
    }

    async fn drive(
        &mut self,
        mut letters: mpsc::Receiver<Letter>,
        mut stop: watch::Receiver<bool>,
        drain: Duration,
    ) -> Result<(), DriverError> {
        let mut drained_by: Option<Mono> = None;
        loop {
            let first = self.next_letter(&mut letters, &mut stop, drained_by).await?;
            let now = self.clock.now();
            let mut room = BATCH_MAX;
            if drained_by.is_none() && is_stopped(&stop) {
                tracing::info!("stopping: what is in flight may end, nothing begins");
                drained_by = Some(now.mono.after(drain));
                self.step(now, Input::Shutdown)?;
            }
            while let Some(input) = self.release.own_input() {
                self.step(now, input)?;
                room = room.saturating_sub(1);
            }
            if self.machine.next_wake().is_some_and(|(at, _)| at <= now.mono) {
                self.wake(now)?;
            }
            let mut next = first;
            while let Some(letter) = next {
                self.take(now, letter)?;
                room = room.saturating_sub(1);
                next = if room > 0 { letters.try_recv().ok() } else { None };
            }
            self.settle().await?;
            if let Some(by) = drained_by {
                let in_time = self.machine.is_drained() && !self.release.has_own_input();
                if in_time || self.clock.now().mono >= by {
                    self.commit().await?;
                    tracing::info!(in_time, "stopped");
                    return Ok(());
                }
            }
        }
    }

    /// Waits until there is something to do; a letter if that is what there is.
    async fn next_letter(
        &mut self,
        letters: &mut mpsc::Receiver<Letter>,
        stop: &mut watch::Receiver<bool>,
        drained_by: Option<Mono>,
    ) -> Result<Option<Letter>, StoreError> {
        if self.release.has_own_input() {
            return Ok(None);
        }
        let now = self.clock.now().mono;
        let wake = self.machine.next_wake().map(|(at, _)| at);
        // While something is being written, nothing more is: its end is waited for instead.
        let flush =
            self.waiting_since.filter(|_| self.behind.is_none()).map(|since| since.after(FLUSH_AFTER));
        let tell = self.release.flush_within().map(|within| now.after(within));
        let until = [wake, flush, tell, drained_by].into_iter().flatten().min();
        let (clock, behind) = (&self.clock, self.behind.as_mut());
        let pause = async {
            match until {
                Some(at) => clock.sleep(now.until(at)).await,
                None => std::future::pending().await,
            }
        };
        let written = async {
            match behind {
                Some(behind) => behind.ended().await,
                None => std::future::pending().await,
            }
        };
        let written = tokio::select! {
            biased;
            // An error is a sender that is gone: the site is being dropped.
            _ = stop.wait_for(|stop| *stop), if drained_by.is_none() => return Ok(None),
            written = written => written,
            Some(letter) = letters.recv() => return Ok(Some(letter)),
            () = pause => return Ok(None),
        };
        self.take_written(written)?;
        Ok(None)
    }

    fn take(&mut self, now: Now, letter: Letter) -> Result<(), DriverError> {
        self.gauge.update(|figures| figures.letters += 1);
        let input = match letter {
            Letter::Input(input) => input,
            Letter::Policy { input, ready } => {
                self.shelve(ready);
                input
            }
            Letter::Knock { input, socket, admission } => {
                self.release.expect_admission(socket, admission);
                input
            }
            Letter::Request { id, request, secret, answer } => {
                self.release.expect_answer(id, answer, secret);
                Input::Request { id, request }
            }
        };
        let lost = if let Input::Lost { conn, .. } = &input { Some(*conn) } else { None };
        self.step(now, input)?;
        if let Some(conn) = lost {
            self.release.forget_link(conn);
        }
        Ok(())
    }

    /// Delivers the deadlines that are due, those that are quarantined excepted.
    fn wake(&mut self, now: Now) -> Result<(), DriverError> {
        if self.crashes.any() {
            let due: Vec<TimerKey> = self.machine.due(now.mono).cloned().collect();
            for key in due {
                let about = self.machine.about_timer(&key);
                if let Some(crash) = self.crashes.keeps_out(likeness(&Input::Wake, &about)) {
                    let input = left_out(Subject::Timer(key), crash);
                    self.step(now, input)?;
                }
            }
        }
        self.step(now, Input::Wake)
    }

    /// The input itself, or what is stepped in its place.
    fn admitted(&self, input: Input) -> Input {
        if !self.crashes.any() {
            return input;
        }
        let Some(subject) = Subject::of(&input) else { return input };
        let about = self.machine.about(&input);
        match self.crashes.keeps_out(likeness(&input, &about)) {
            Some(crash) => left_out(subject, crash),
            None => input,
        }
    }

    fn step(&mut self, now: Now, input: Input) -> Result<(), DriverError> {
        let input = self.admitted(input);
        let cold = self.prefetch(now, &input)?;
        let policies = match &input {
            // The machine learns of its configuration in this very step.
            Input::Boot { knobs, .. } => self.machine.parts().policies.set_under(knobs).id(),
            _ => self.machine.active_policy(),
        };
        self.out.clear();
        let (machine, policy, out) = (&mut self.machine, self.shelf.get(policies), &mut self.out);
        let stepped = crash::guarded(|| {
            machine.step(now, &input, &cold, policy, out);
            if cfg!(debug_assertions)
                && let Err(broken) = machine.check()
            {
                panic!("{} does not hold after {}: {}", broken.invariant, input.name(), broken.saw);
            }
        });
        if let Err(panicked) = stepped {
            let about = self.machine.stepping().to_owned();
            return Err(self.crashed(now, &input, about, panicked));
        }
        self.durable |= !self.out.rows.is_empty() || !self.out.changes.is_empty();
        self.batch.rows.extend(self.out.rows.drain(..));
        self.batch.entries.push(JournalEntry {
            seq: Seq(self.store.next_seq().0 + self.entries_behind() + self.batch.entries.len() as u64),
            now,
            boot: self.machine.boot(),
            input,
            policies,
            rulings: std::mem::take(&mut self.out.rulings),
            cold: cold.into_iter().collect(),
            changes: std::mem::take(&mut self.out.changes),
        });
        self.recorder.take(now.wall, &mut self.out.decisions, &self.gauge);
        self.waiting_since.get_or_insert(now.mono);
        self.effects.append(&mut self.out.effects);
        Ok(())
    }

    /// Reads what the input will consult: from the batch, which is newer, else from the store.
    fn prefetch(&mut self, now: Now, input: &Input) -> Result<Rows, DriverError> {
        let mut have = Rows::new();
        let mut wanted = BTreeSet::new();
        loop {
            let (machine, keys) = (&self.machine, &mut wanted);
            if let Err(panicked) = crash::guarded(|| machine.wants(now, input, &have, keys)) {
                let about = self.machine.about(input);
                return Err(self.crashed(now, input, about, panicked));
            }
            if wanted.is_empty() {
                return Ok(have);
            }
            for key in std::mem::take(&mut wanted) {
                let row = match self.batch.rows.get(&key) {
                    Some(row) => row.clone(),
                    None => self.store.fetch(&key)?,
                };
                have.insert(key, row);
            }
        }
    }

    /// The core panicked: counts it, durably and apart from the batch, of which nothing is kept.
    fn crashed(&mut self, now: Now, input: &Input, about: String, panicked: Panicked) -> DriverError {
        let is_timer = matches!(input, Input::Wake) && !about.is_empty();
        let crash = Crash {
            likeness: likeness(input, &about),
            input: input.name().to_owned(),
            about,
            message: panicked.message,
            location: panicked.location,
            count: 1,
            first: now.wall,
            last: now.wall,
            program: crash::PROGRAM.to_owned(),
            avoidable: is_timer || Subject::of(input).is_some(),
        };
        let error = DriverError::Panicked(format!(
            "{} at {} ({} {})",
            crash.message, crash.location, crash.input, crash.about
        ));
        let lost: Vec<&str> =
            self.batch.entries.iter().rev().map(|entry| entry.input.name()).take(16).collect();
        match self.crashes.count(&self.store, crash) {
            Ok(crash) => tracing::error!(
                input = crash.input, about = crash.about, panic = crash.message, location = crash.location,
                lost = ?lost, "the core panicked: crash {} of {}, then this input is quarantined",
                crash.count, crash::LIMIT
            ),
            Err(failed) => tracing::error!(
                %failed, %error, lost = ?lost, "the core panicked, and that could not be recorded"
            ),
        }
        error
    }

    /// Ends a batch: commits if it must, has it written behind if entries have waited long enough, then releases.
    async fn settle(&mut self) -> Result<(), StoreError> {
        let now = self.clock.now();
        let waited = self.waiting_since.is_some_and(|since| since.after(FLUSH_AFTER) <= now.mono);
        if self.durable {
            self.commit().await?;
        } else if waited || self.batch.entries.len() >= FLUSH_ENTRIES {
            self.write_behind().await?;
        }
        for effect in self.effects.drain(..) {
            self.release.perform(now.wall, effect);
        }
        self.release.flush(now.wall);
        let (machine, store, links) = (&self.machine, &self.store, self.release.links());
        self.gauge.update(|figures| {
            figures.batches += 1;
            figures.machine.clone_from(machine.stats());
            figures.journal_bytes = store.journal_bytes();
            figures.journal_next = store.next_seq().0;
            figures.links = links as u64;
            figures.overdue = machine.parts().tasks.overdue() as u64;
        });
        Ok(())
    }

    /// Commits what was stepped, after what is being written.
    async fn commit(&mut self) -> Result<(), StoreError> {
        self.catch_up().await?;
        if self.batch.entries.is_empty() {
            return Ok(());
        }
        let batch = self.take_batch();
        let begun = self.clock.now().mono;
        self.store.commit(&batch)?;
        self.count_commit(batch.entries.len() as u64, begun.until(self.clock.now().mono));
        Ok(())
    }

    /// What was stepped, on its way to the disk.
    fn take_batch(&mut self) -> Batch {
        self.durable = false;
        self.waiting_since = None;
        Batch { decisions: self.recorder.lines(&self.gauge), ..std::mem::take(&mut self.batch) }
    }

    fn count_commit(&self, steps: u64, took: Duration) {
        self.gauge.update(|figures| {
            figures.count_commit(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
            figures.batch_largest = figures.batch_largest.max(steps);
        });
    }
}

fn left_out(subject: Subject, crash: &Crash) -> Input {
    tracing::warn!(
        input = crash.input,
        about = crash.about,
        panic = crash.message,
        location = crash.location,
        "an input is quarantined and was not stepped"
    );
    Input::Quarantined { subject, reason: crash.reason() }
}

fn is_stopped(stop: &watch::Receiver<bool>) -> bool {
    *stop.borrow() || stop.has_changed().is_err()
}

#[cfg(test)]
mod tests;
