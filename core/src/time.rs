//! Two clocks that cannot be mixed up: [`Mono`] is waited on, [`Wall`] is stored and shown.

use core::time::Duration;
use minicbor::{Decode, Encode};

/// Nanoseconds of monotonic time since this process started. For waiting; never stored as a deadline, never shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct Mono(#[n(0)] pub u64);

/// Milliseconds since 1970-01-01T00:00:00Z. For storing and showing; never waited on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct Wall(#[n(0)] pub i64);

/// Both clocks, read at one moment at the edge. The only way time enters the core.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Now {
    /// For storing and showing.
    #[n(0)]
    pub wall: Wall,
    /// For waiting.
    #[n(1)]
    pub mono: Mono,
}

impl Mono {
    /// This moment plus `d`, saturating.
    #[must_use]
    pub fn after(self, d: Duration) -> Mono {
        Mono(self.0.saturating_add(u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// From this moment until `later`; zero if it has passed.
    #[must_use]
    pub fn until(self, later: Mono) -> Duration {
        Duration::from_nanos(later.0.saturating_sub(self.0))
    }
}

impl Wall {
    /// This moment plus `d`, saturating.
    #[must_use]
    pub fn after(self, d: Duration) -> Wall {
        Wall(self.0.saturating_add(i64::try_from(d.as_millis()).unwrap_or(i64::MAX)))
    }

    /// From this moment until `later`; zero if it has passed.
    #[must_use]
    pub fn until(self, later: Wall) -> Duration {
        Duration::from_millis(u64::try_from(later.0.saturating_sub(self.0)).unwrap_or(0))
    }
}

impl Now {
    /// The monotonic deadline of something stored as wall time: clamped to `now ..= now + at_most`, so that a
    /// clock that was stepped can neither fire it early by more than its own wait nor hold it for ever.
    #[must_use]
    pub fn deadline(&self, stored: Wall, at_most: Duration) -> Mono {
        self.mono.after(self.wall.until(stored).min(at_most))
    }
}
