//! The connection of one program over its whole life: dialling, backoff, and what waits on either side of it. What the
//! frames mean is the business of the program.

use std::collections::VecDeque;
use std::time::Duration;

use tidegate_core::id::Role;

use super::{Ask, LinkEnd, Wake};
use crate::stream::Stream;

/// Chances of one kind, drawn one after the other: each from a stream of its own, so that kinds do not shift each other.
#[derive(Clone, Debug)]
pub(super) struct Dice {
    seed: u64,
    name: String,
    drawn: u64,
}

impl Dice {
    /// The chances of a device for one purpose.
    pub(super) fn new(seed: u64, device: &str, what: &str) -> Dice {
        Dice { seed, name: format!("device/{device}/{what}"), drawn: 0 }
    }

    /// Chances that all devices share.
    pub(super) fn shared(seed: u64, name: &str) -> Dice {
        Dice { seed, name: name.to_string(), drawn: 0 }
    }

    /// The next.
    pub(super) fn roll(&mut self) -> Stream {
        self.drawn += 1;
        Stream::new(self.seed, &self.name, self.drawn)
    }

    /// Begins again, as a generator that nobody seeds does with every start of its program.
    fn rewind(&mut self) {
        self.drawn = 0;
    }
}

/// ```text
///          start                opened              ended
/// Down ------------> Dialing ------------> Up ---------------> Waiting
///                      ^  |                 | ended, busy        |  ^
///                      |  | declined        v                    |  |
///                      |  +-----------+    Cut -- no longer busy-|--+
///                      |              v                          |
///                      +---------- Waiting <---------------------+
/// ```
/// The end of the program leads to `Down` from everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The program does not run.
    Down,
    /// It dials when the wake of this number comes.
    Waiting(u64),
    /// It dialled. Without an answer it stays here for ever: there is no timeout in real programs.
    Dialing,
    /// It talks.
    Up,
    /// The link is gone, and the program is too busy to have noticed. It notices by the frame it fails to write.
    Cut { end: LinkEnd, noticed: bool },
}

/// One program's connection.
#[derive(Clone, Debug)]
pub(super) struct Line {
    role: Role,
    phase: Phase,
    /// Numbers wakes; never starts again, so that a stale wake is known.
    redials: u64,
    /// Attempts since the last one that succeeded.
    failures: u32,
    /// What could not be said yet.
    outbox: VecDeque<String>,
    /// What the program has not read yet, because it is busy.
    inbox: VecDeque<String>,
    jitter: Dice,
}

impl Line {
    pub(super) fn new(role: Role, device: &str, seed: u64) -> Line {
        let jitter = match role {
            Role::Recorder => Dice::new(seed, device, "recorder/redial"),
            // Uploaders do not seed their generator: a fleet of them comes back at the same offsets.
            Role::Transfer => Dice::shared(seed, "uploader/redial"),
        };
        Line {
            role,
            phase: Phase::Down,
            redials: 0,
            failures: 0,
            outbox: VecDeque::new(),
            inbox: VecDeque::new(),
            jitter,
        }
    }

    pub(super) fn is_up(&self) -> bool {
        self.phase == Phase::Up
    }

    /// The program starts, and dials.
    pub(super) fn start(&mut self, asks: &mut Vec<Ask>) {
        self.stop();
        self.phase = Phase::Dialing;
        asks.push(Ask::Dial(self.role));
    }

    /// The program starts, and dials, after so long.
    pub(super) fn start_after(&mut self, delay: Duration, asks: &mut Vec<Ask>) {
        self.stop();
        self.wait(delay, asks);
    }

    /// The program is gone, and its memory with it.
    pub(super) fn stop(&mut self) {
        self.phase = Phase::Down;
        self.failures = 0;
        self.outbox.clear();
        self.inbox.clear();
        if self.role == Role::Transfer {
            self.jitter.rewind();
        }
    }

    /// Whether it was waited for; everything that was left from the connection before has then been said.
    pub(super) fn opened(&mut self, asks: &mut Vec<Ask>) -> bool {
        if self.phase != Phase::Dialing {
            return false;
        }
        self.phase = Phase::Up;
        self.failures = 0;
        let role = self.role;
        asks.extend(self.outbox.drain(..).map(|text| Ask::Say(role, text)));
        true
    }

    pub(super) fn declined(&mut self, asks: &mut Vec<Ask>) {
        if self.phase == Phase::Dialing {
            self.redial(None, asks);
        }
    }

    /// The link ended. A busy program notices later (`settle`).
    pub(super) fn ended(&mut self, end: LinkEnd, busy: bool, asks: &mut Vec<Ask>) {
        if self.phase != Phase::Up {
            return;
        }
        match end {
            // What came before the close frame is in its place before it.
            LinkEnd::Closed(_) => {}
            LinkEnd::Broken | LinkEnd::Silent => self.inbox.clear(),
        }
        if busy {
            self.phase = Phase::Cut { end, noticed: false };
        } else {
            self.redial(Some(end), asks);
        }
    }

    /// The program is no longer busy and has read everything: it notices that the link is gone.
    pub(super) fn settle(&mut self, asks: &mut Vec<Ask>) {
        if let Phase::Cut { end, .. } = self.phase {
            self.redial(Some(end), asks);
        }
    }

    /// Whether it is time to dial, and nothing else happened since this was asked for.
    pub(super) fn woke(&mut self, number: u64, asks: &mut Vec<Ask>) -> bool {
        let due = self.phase == Phase::Waiting(number);
        if due {
            self.phase = Phase::Dialing;
            asks.push(Ask::Dial(self.role));
        }
        due
    }

    /// Says it, now or on the next connection.
    pub(super) fn say(&mut self, text: String, asks: &mut Vec<Ask>) {
        match &mut self.phase {
            Phase::Up => asks.push(Ask::Say(self.role, text)),
            // A frame is taken off the queue before it is written: the one that finds the link gone is lost.
            Phase::Cut { noticed, .. } if !*noticed => *noticed = true,
            Phase::Cut { .. } | Phase::Down | Phase::Waiting(_) | Phase::Dialing => {
                self.outbox.push_back(text);
            }
        }
    }

    /// Keeps a frame for later.
    pub(super) fn keep(&mut self, text: &str) {
        self.inbox.push_back(text.to_string());
    }

    /// The next frame that was kept.
    pub(super) fn next_kept(&mut self) -> Option<String> {
        self.inbox.pop_front()
    }

    /// `min(1 s · 2^n, 60 s)`, a fifth more or less, at least 100 ms; `n` counts failures since the last success.
    fn redial(&mut self, end: Option<LinkEnd>, asks: &mut Vec<Ask>) {
        let base = REDIAL_MIN.saturating_mul(1 << self.failures.min(6)).min(REDIAL_MAX);
        let mut dice = self.jitter.roll();
        let mut delay = dice.duration(base * 4 / 5, base * 6 / 5).max(REDIAL_FLOOR);
        match end {
            None => self.failures += 1,
            // It sits in its closing handshake until its kernel has given the old connection up.
            Some(LinkEnd::Silent) => delay += dice.duration(Duration::ZERO, SILENT_CLOSE_MAX),
            Some(LinkEnd::Closed(_) | LinkEnd::Broken) => {}
        }
        self.wait(delay, asks);
    }

    fn wait(&mut self, delay: Duration, asks: &mut Vec<Ask>) {
        self.redials += 1;
        self.phase = Phase::Waiting(self.redials);
        asks.push(Ask::Wake(Wake::Redial(self.role, self.redials), delay));
    }
}

const REDIAL_MIN: Duration = Duration::from_secs(1);
const REDIAL_MAX: Duration = Duration::from_secs(60);
const REDIAL_FLOOR: Duration = Duration::from_millis(100);
/// Real ones come back up to two minutes after the path has healed; we cannot know when it does.
const SILENT_CLOSE_MAX: Duration = Duration::from_secs(60);
