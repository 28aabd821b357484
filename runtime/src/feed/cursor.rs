//! Owns where one follower of the stream is: a number, a filter and a seat. Reads the shared window, holds nothing of it.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use tidegate_core::id::DeviceId;
use tokio::sync::watch;

use super::{EventId, Feed, Framed, Kind, STREAMS_MAX};

/// Bytes of one chunk, a larger event excepted.
pub const CHUNK: usize = 64 << 10;
/// Events looked at in one go, so that a narrow filter does not hold the window for long.
const SCAN_MAX: usize = 1024;

/// What a follower wants to hear of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Of these devices, and of nothing that is about no device; `None` is everything.
    pub devices: Option<BTreeSet<DeviceId>>,
    /// Events of these kinds; `None` is all.
    pub kinds: Option<BTreeSet<Kind>>,
}

impl Filter {
    /// Whether anything is left out.
    #[must_use]
    pub fn is_narrow(&self) -> bool {
        self.devices.is_some() || self.kinds.is_some()
    }

    /// Whether this device is wanted.
    #[must_use]
    pub fn wants(&self, device: &DeviceId) -> bool {
        self.devices.as_ref().is_none_or(|devices| devices.contains(device))
    }

    fn takes(&self, frame: &Framed) -> bool {
        let whose = self
            .devices
            .as_ref()
            .is_none_or(|devices| frame.device.as_ref().is_some_and(|device| devices.contains(device)));
        whose && self.kinds.as_ref().is_none_or(|kinds| kinds.contains(&frame.kind))
    }
}

/// Why a follower is shown everything as it is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It named no event.
    New,
    /// What it named is no event of this site.
    Unknown,
    /// The event was of another start of the site.
    OtherBoot,
    /// What came after the event it named is not kept any more.
    TooOld,
    /// It was too slow.
    Resync,
}

impl Reason {
    /// A short stable word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Reason::New => "new",
            Reason::Unknown => "unknown_id",
            Reason::OtherBoot => "other_boot",
            Reason::TooOld => "too_old",
            Reason::Resync => "resync",
        }
    }
}

/// How a follower begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// With the event after the one it named.
    Resumed,
    /// With everything as it is now.
    Snapshot(Reason),
}

/// There are [`STREAMS_MAX`] streams already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// What there was for a follower.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taken {
    /// Whole events, in order.
    Events(Bytes),
    /// What comes next for it is not kept any more.
    Behind {
        /// Events that it did not see, whether or not it would have wanted them.
        missed: u64,
        /// The newest of them.
        newest: u64,
    },
    /// Nothing new.
    Nothing,
}

/// One of the seats for followers; dropping it frees it.
#[derive(Debug)]
struct Seat(Feed);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.0.followers.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Where one follower is. Dropping it ends its stream.
#[derive(Debug)]
pub struct Cursor {
    seat: Seat,
    tip: watch::Receiver<u64>,
    filter: Filter,
    /// The next event to look at.
    at: u64,
    /// The last event, or end of a snapshot, whose number the follower was told.
    told: u64,
}

impl Feed {
    /// A follower who saw everything up to `last`, in the words of its request; `None` is one who saw nothing.
    ///
    /// # Errors
    /// [`Full`]
    pub fn follow(&self, filter: Filter, last: Option<&str>) -> Result<(Cursor, Begin), Full> {
        let seats = &self.0.followers;
        let taken = seats.fetch_update(Ordering::AcqRel, Ordering::Acquire, |taken| {
            (taken < STREAMS_MAX).then_some(taken + 1)
        });
        if taken.is_err() {
            self.0.turned_away.fetch_add(1, Ordering::Relaxed);
            return Err(Full);
        }
        let seat = Seat(self.clone());
        let ring = self.ring();
        let (at, begin) = match last.map(str::parse::<EventId>) {
            None => (ring.next, Begin::Snapshot(Reason::New)),
            Some(Err(_)) => (ring.next, Begin::Snapshot(Reason::Unknown)),
            Some(Ok(id)) if id.boot != self.0.boot.0 => (ring.next, Begin::Snapshot(Reason::OtherBoot)),
            Some(Ok(id)) if id.seq >= ring.next => (ring.next, Begin::Snapshot(Reason::Unknown)),
            Some(Ok(id)) if id.seq + 1 < ring.oldest() => (ring.next, Begin::Snapshot(Reason::TooOld)),
            Some(Ok(id)) => (id.seq + 1, Begin::Resumed),
        };
        drop(ring);
        let cursor = Cursor { seat, tip: self.0.tip.subscribe(), filter, at, told: at - 1 };
        Ok((cursor, begin))
    }
}

impl Cursor {
    /// What it wants to hear of.
    #[must_use]
    pub fn filter(&self) -> &Filter {
        &self.filter
    }

    /// The stream it follows.
    #[must_use]
    pub fn feed(&self) -> &Feed {
        &self.seat.0
    }

    /// Goes on after everything there is so far, which whoever looks from now on finds on the board and in the store;
    /// the last event of it.
    pub fn skip(&mut self) -> u64 {
        let next = self.feed().ring().next;
        self.at = next;
        self.told = self.at - 1;
        self.told
    }

    /// The next events, as many as fit a chunk. Never waits. One that was too slow is told so, and told again until it
    /// skips.
    pub fn take(&mut self) -> Taken {
        loop {
            let (text, all) = match self.scan() {
                Ok(scanned) => scanned,
                Err(behind) => return behind,
            };
            if !text.is_empty() {
                return Taken::Events(text.into());
            }
            if all {
                return Taken::Nothing;
            }
        }
    }

    /// Looks at some events; what it wants of them, and whether they were the last.
    fn scan(&mut self) -> Result<(Vec<u8>, bool), Taken> {
        let ring = self.seat.0.ring();
        let oldest = ring.oldest();
        if self.at < oldest {
            return Err(Taken::Behind { missed: oldest - self.at, newest: oldest - 1 });
        }
        let mut text = Vec::new();
        let from = usize::try_from(self.at - oldest).unwrap_or(usize::MAX);
        for frame in ring.frames.range(from.min(ring.frames.len())..).take(SCAN_MAX) {
            if self.filter.takes(frame) {
                if !text.is_empty() && text.len() + frame.text.len() > CHUNK {
                    break;
                }
                if self.filter.is_narrow() {
                    let prev = self.seat.0.id(self.told);
                    text.extend_from_slice(&frame.text[..frame.prev_at]);
                    text.extend_from_slice(format!("\"prev\":\"{prev}\",").as_bytes());
                    text.extend_from_slice(&frame.text[frame.prev_at..]);
                } else {
                    text.extend_from_slice(&frame.text);
                }
                self.told = self.at;
            }
            self.at += 1;
        }
        Ok((text, self.at >= ring.next))
    }

    /// Notes that the follower has to begin again because it was too slow.
    pub fn count_resync(&self) {
        self.seat.0.0.resyncs.fetch_add(1, Ordering::Relaxed);
    }

    /// Waits until there is something it has not looked at.
    pub async fn wait(&mut self) {
        let at = self.at;
        // The sender lives in the feed, which the seat holds.
        let _ = self.tip.wait_for(|tip| *tip > at).await;
    }
}
