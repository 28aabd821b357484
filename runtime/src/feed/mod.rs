//! Owns the stream of changes: numbers each notice as it is released, encodes it once, and keeps a window of the newest
//! for whoever follows. Knows no route, has no queue per follower, and decides nothing.
//!
//! Read in this order: [`Feed`] (who writes), [`cursor`] (who reads), [`event`] (what a notice looks like).

pub mod cursor;
pub mod event;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tidegate_core::effect::Notice;
use tidegate_core::id::{Boot, DeviceId};
use tidegate_core::time::Wall;
use tokio::sync::watch;

use crate::board::Board;
pub use cursor::{Begin, Cursor, Filter, Reason, Taken};
pub use event::Kind;

/// Streams at once. Each costs a connection and at most two chunks of memory; dashboards and services of one site are a
/// dozen.
pub const STREAMS_MAX: usize = 64;
/// What an event costs besides its text: its place in the window, the name of its device and the allocator's share.
const OVERHEAD: usize = 128;
/// Between two events about messages of one device that were refused for one reason.
pub const REFUSALS_EVERY: Duration = Duration::from_secs(1);
/// Devices and reasons whose refusals are held back.
const REFUSALS_MAX: usize = 1024;
/// The reason that is never held back: each is the last that anybody hears of a recording, and one status may bring many.
const LAST_WORD: &str = "recording_missing";

/// How much of the past is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Events.
    pub events: usize,
    /// Bytes of them.
    pub bytes: usize,
}

impl Default for Window {
    /// A minute of a thousand events a second, in 32 MiB.
    fn default() -> Window {
        Window { events: 65_536, bytes: 32 << 20 }
    }
}

/// Names an event: the boot and its number in it, which is 1 for the first and has no gaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct EventId {
    /// Of which start of the site.
    pub boot: u64,
    /// Its number.
    pub seq: u64,
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.boot, self.seq)
    }
}

/// A text that names no event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoEventId;

impl FromStr for EventId {
    type Err = NoEventId;

    fn from_str(text: &str) -> Result<EventId, NoEventId> {
        let number = |text: &str| {
            // `parse` would take a sign.
            let digits = text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse().ok().filter(|_| digits).ok_or(NoEventId)
        };
        let (boot, seq) = text.split_once('-').ok_or(NoEventId)?;
        Ok(EventId { boot: number(boot)?, seq: number(seq)? })
    }
}

/// The stream of changes of one boot. Cheap to clone; all clones are one.
#[derive(Clone, Debug)]
pub struct Feed(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    boot: Boot,
    window: Window,
    board: Board,
    ring: Mutex<Ring>,
    /// The number of the next event, as followers were told last.
    tip: watch::Sender<u64>,
    followers: AtomicUsize,
    turned_away: AtomicU64,
    resyncs: AtomicU64,
}

#[derive(Debug)]
struct Ring {
    /// The newest events. The last one has the number before `next`.
    frames: VecDeque<Framed>,
    bytes: usize,
    next: u64,
    refusals: BTreeMap<(DeviceId, &'static str), Refusals>,
    /// How many of them hold something back.
    held: usize,
}

#[derive(Debug)]
struct Refusals {
    told: Wall,
    held: Option<Held>,
}

impl Refusals {
    /// Whether the last one was told just now. A clock that was set back makes nothing young for ever.
    fn is_young(&self, now: Wall) -> bool {
        u128::from(now.0.abs_diff(self.told.0)) < REFUSALS_EVERY.as_millis()
    }
}

/// Refusals since the last one that was told.
#[derive(Debug)]
struct Held {
    /// How many, the last one included.
    count: u64,
    /// The last one's words.
    detail: String,
}

/// An event as it goes out, but for the place where a follower with a filter is told of the one before it.
#[derive(Debug)]
struct Framed {
    device: Option<DeviceId>,
    kind: Kind,
    text: Bytes,
    prev_at: usize,
}

impl Framed {
    fn cost(&self) -> usize {
        self.text.len() + OVERHEAD
    }
}

impl Ring {
    /// The number of the oldest event that is kept, or of the next one if none is.
    fn oldest(&self) -> u64 {
        self.next - self.frames.len() as u64
    }

    /// Whether a refusal is told, and if so how many before it were not.
    fn tells_refusal(
        &mut self,
        now: Wall,
        device: &DeviceId,
        code: &'static str,
        detail: &str,
    ) -> Option<u64> {
        if code == LAST_WORD {
            return Some(0);
        }
        let key = (device.clone(), code);
        if let Some(refusals) = self.refusals.get_mut(&key) {
            if refusals.is_young(now) {
                self.held += usize::from(refusals.held.is_none());
                let count = refusals.held.as_ref().map_or(0, |held| held.count) + 1;
                refusals.held = Some(Held { count, detail: detail.to_owned() });
                return None;
            }
            refusals.told = now;
            let held = refusals.held.take();
            self.held -= usize::from(held.is_some());
            return Some(held.map_or(0, |held| held.count));
        }
        if self.refusals.len() >= REFUSALS_MAX {
            self.refusals.retain(|_, refusals| refusals.is_young(now) || refusals.held.is_some());
        }
        // Without room for it, it is told like any other and the next one too: nothing that is held back gets lost.
        if self.refusals.len() < REFUSALS_MAX {
            self.refusals.insert(key, Refusals { told: now, held: None });
        }
        Some(0)
    }

    /// What was held back for long enough: the last refusal of each device and reason, and how many before it were not told.
    fn take_held(&mut self, now: Wall) -> Vec<(Notice, u64)> {
        let mut due = Vec::new();
        if self.held == 0 {
            return due;
        }
        for ((device, code), refusals) in &mut self.refusals {
            if refusals.is_young(now) {
                continue;
            }
            if let Some(Held { count, detail }) = refusals.held.take() {
                refusals.told = now;
                due.push((Notice::Refused { device: device.clone(), code, detail }, count - 1));
            }
        }
        self.held -= due.len();
        due
    }

    /// Numbers an event, and lets go of what the window has no room for.
    fn push(&mut self, id: EventId, event: event::Event, window: Window) {
        let (text, prev_at) = event::encode(id, event.kind, event.fields);
        let frame = Framed { device: event.device, kind: event.kind, text: text.into(), prev_at };
        self.bytes += frame.cost();
        self.frames.push_back(frame);
        self.next += 1;
        // The newest one stays however large it is.
        while self.frames.len() > 1 && (self.frames.len() > window.events || self.bytes > window.bytes) {
            if let Some(gone) = self.frames.pop_front() {
                self.bytes -= gone.cost();
            }
        }
    }
}

/// Figures of the stream, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Events since the boot.
    pub events: u64,
    /// Events in the window.
    pub window_events: u64,
    /// Bytes that the window takes.
    pub window_bytes: u64,
    /// Streams that are open.
    pub streams: u64,
    /// Streams that were turned away because there were too many.
    pub turned_away: u64,
    /// Times that a follower was too slow and had to begin again.
    pub resyncs: u64,
}

impl Feed {
    /// The stream of a boot. What it publishes goes to `board` as well, and first.
    #[must_use]
    pub fn new(boot: Boot, board: Board, window: Window) -> Feed {
        let ring = Ring { frames: VecDeque::new(), bytes: 0, next: 1, refusals: BTreeMap::new(), held: 0 };
        Feed(Arc::new(Shared {
            boot,
            window,
            board,
            ring: Mutex::new(ring),
            tip: watch::Sender::new(1),
            followers: AtomicUsize::new(0),
            turned_away: AtomicU64::new(0),
            resyncs: AtomicU64::new(0),
        }))
    }

    /// Where the last notice per subject is.
    #[must_use]
    pub fn board(&self) -> &Board {
        &self.0.board
    }

    /// The id of an event of this boot.
    #[must_use]
    pub fn id(&self, seq: u64) -> EventId {
        EventId { boot: self.0.boot.0, seq }
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        // Every write below leaves the ring whole, so a panic elsewhere does not spoil it.
        self.0.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a notice an event: numbered, encoded, kept. Costs the same however many follow, and never waits for one of
    /// them. Call [`Feed::flush`] after the last of a batch. `now` is when it is published. Gives how many like it were held
    /// back before it; `None` if it is held back itself.
    pub fn publish(&self, now: Wall, notice: &Notice) -> Option<u64> {
        // Before it has a number: who knows the number finds it on the board.
        self.0.board.apply(now, notice);
        let mut ring = self.ring();
        let suppressed = match notice {
            Notice::Refused { device, code, detail } => ring.tells_refusal(now, device, code, detail)?,
            _ => 0,
        };
        self.tell(&mut ring, now, notice, suppressed);
        Some(suppressed)
    }

    /// Makes what was held back for [`REFUSALS_EVERY`] events, and gives it with how many before each were not told. The
    /// board knows each of them already.
    pub fn publish_held(&self, now: Wall) -> Vec<(Notice, u64)> {
        let mut ring = self.ring();
        let due = ring.take_held(now);
        for (notice, suppressed) in &due {
            self.tell(&mut ring, now, notice, *suppressed);
        }
        due
    }

    /// Whether something is held back.
    #[must_use]
    pub fn holds_back(&self) -> bool {
        self.ring().held > 0
    }

    fn tell(&self, ring: &mut Ring, now: Wall, notice: &Notice, suppressed: u64) {
        let event = event::of(&self.0.board, now, notice, suppressed);
        ring.push(self.id(ring.next), event, self.0.window);
    }

    /// Wakes those who wait for what was published since the last call.
    pub fn flush(&self) {
        let next = self.ring().next;
        self.0.tip.send_if_modified(|tip| std::mem::replace(tip, next) != next);
    }

    /// Figures for metrics.
    #[must_use]
    pub fn figures(&self) -> Figures {
        let ring = self.ring();
        Figures {
            events: ring.next - 1,
            window_events: ring.frames.len() as u64,
            window_bytes: ring.bytes as u64,
            streams: self.0.followers.load(Ordering::Relaxed) as u64,
            turned_away: self.0.turned_away.load(Ordering::Relaxed),
            resyncs: self.0.resyncs.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests;
