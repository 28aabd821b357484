//! Owns rates: how often one link, or one stranger, may do something. Counts and says how long to wait; what then happens is
//! for the one who asks.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// So often in the long run, and so often at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Time in which one more becomes free.
    every: Duration,
    /// How many are free after a long rest.
    burst: u32,
}

impl Rate {
    /// `n` a second, `burst` at once; neither is less than one.
    #[must_use]
    pub fn per_second(n: u32, burst: u32) -> Rate {
        Rate { every: Duration::from_secs(1) / n.max(1), burst: burst.max(1) }
    }

    /// `n` a minute, `burst` at once; neither is less than one.
    #[must_use]
    pub fn per_minute(n: u32, burst: u32) -> Rate {
        Rate { every: Duration::from_secs(60) / n.max(1), burst: burst.max(1) }
    }
}

/// What one of them has used of its rate. The bucket's content is one moment: the one at which it would be full again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bucket {
    full_at: Instant,
}

impl Bucket {
    /// A full one.
    pub(crate) fn full() -> Bucket {
        Bucket { full_at: Instant::now() }
    }

    /// Takes one, or says how long there is none.
    pub(crate) fn take(&mut self, rate: Rate) -> Result<(), Duration> {
        let now = Instant::now();
        match self.wait(rate, now) {
            Some(wait) => Err(wait),
            None => {
                self.full_at = self.full_at.max(now) + rate.every;
                Ok(())
            }
        }
    }

    fn wait(&self, rate: Rate, now: Instant) -> Option<Duration> {
        let used = self.full_at.saturating_duration_since(now);
        // With this much used, the one that is taken now is the last.
        let most = rate.every * (rate.burst - 1);
        used.checked_sub(most).filter(|wait| !wait.is_zero())
    }
}

/// One rate for each of many. Cheap to clone; clones share what they count.
#[derive(Clone, Debug)]
pub struct Brake<K> {
    rate: Rate,
    used: Arc<Mutex<BTreeMap<K, Bucket>>>,
}

impl<K: Ord + Clone> Brake<K> {
    /// Everybody may do it at this rate.
    #[must_use]
    pub fn new(rate: Rate) -> Brake<K> {
        Brake { rate, used: Arc::default() }
    }

    /// How long somebody has nothing left; `None` if there is something. Takes nothing.
    #[must_use]
    pub fn wait(&self, who: &K) -> Option<Duration> {
        self.with(|used| used.get(who).and_then(|bucket| bucket.wait(self.rate, Instant::now())))
    }

    /// Takes one.
    ///
    /// # Errors
    /// How long there is none; nothing is taken then.
    pub fn take(&self, who: K) -> Result<(), Duration> {
        self.with(|used| {
            if used.len() >= KNOWN_MAX && !used.contains_key(&who) {
                forget(used);
            }
            used.entry(who).or_insert_with(Bucket::full).take(self.rate)
        })
    }

    fn with<T>(&self, work: impl FnOnce(&mut BTreeMap<K, Bucket>) -> T) -> T {
        work(&mut self.used.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Makes room for one more: those who rested long enough go, else the one who has to rest least.
fn forget<K: Ord + Clone>(used: &mut BTreeMap<K, Bucket>) {
    let now = Instant::now();
    used.retain(|_, bucket| bucket.full_at > now);
    if used.len() < KNOWN_MAX {
        return;
    }
    let least = used.iter().min_by_key(|(_, bucket)| bucket.full_at).map(|(who, _)| who.clone());
    if let Some(least) = least {
        used.remove(&least);
    }
}

/// Whom an address stands for. A host may choose freely among the IPv6 addresses of its network, so all of one /64 are one.
#[must_use]
pub fn stranger(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        v4 @ IpAddr::V4(_) => v4,
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

/// Whole seconds to say in `Retry-After`: never zero.
#[must_use]
pub fn seconds(wait: Duration) -> u32 {
    u32::try_from(wait.as_millis().div_ceil(1000)).unwrap_or(u32::MAX).max(1)
}

/// How many are remembered: as many links as a large site has, and a few hundred kilobytes.
const KNOWN_MAX: usize = 4096;

#[cfg(test)]
mod tests;
