//! Fights over links as an observer counts them, for L4: who displaced whom, and until when nobody may take over. Written
//! from docs/protocol.md with tables of its own; judges nothing.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tidegate_core::id::{DeviceId, Role};
use tidegate_core::time::Mono;

/// Takeovers that are looked at, and how old they may be.
const LATELY: (usize, Duration) = (8, Duration::from_secs(30));
/// How often an address may come back, and how often one may displace itself.
const PATIENCE: (usize, usize) = (3, 6);
/// Longest pause.
const LONGEST: Duration = Duration::from_secs(60);
/// After how long without a takeover a fight is over.
const QUIET: Duration = Duration::from_secs(600);

/// The links of one site that have changed hands, since its boot.
#[derive(Debug, Default)]
pub(super) struct Fights {
    of: BTreeMap<(DeviceId, Role), Fight>,
}

#[derive(Debug, Default)]
struct Fight {
    /// Whose the link is.
    owner: Option<String>,
    /// When it changed hands: from whom to whom.
    turns: VecDeque<(Mono, String, String)>,
    /// The last pause, and when it ends.
    pause: Option<(Duration, Mono)>,
}

impl Fights {
    /// Whether nobody may take over this link now.
    pub(super) fn paused(&self, device: &DeviceId, role: Role, now: Mono) -> bool {
        let fight = self.of.get(&(device.clone(), role));
        fight.and_then(|fight| fight.pause).is_some_and(|(_, until)| now < until)
    }

    /// A program at this address has the link now.
    pub(super) fn admitted(&mut self, device: &DeviceId, role: Role, who: &str, now: Mono, first: Duration) {
        let fight = self.of.entry((device.clone(), role)).or_default();
        let Some(from) = fight.owner.replace(who.to_string()) else { return };
        fight.turns.push_back((now, from, who.to_string()));
        if fight.turns.len() > LATELY.0 {
            fight.turns.pop_front();
        }
        let pause = match fight.pause {
            Some((last, _)) => (last * 2).min(LONGEST),
            None if fight.is_one(now) => first.min(LONGEST),
            None => return,
        };
        fight.pause = Some((pause, now.after(pause)));
    }

    /// Its link ended and nobody took it over.
    pub(super) fn ended(&mut self, device: &DeviceId, role: Role) {
        self.of.remove(&(device.clone(), role));
    }

    /// Viewers are told that a fight is over. Whether it may be: nobody has the link, or nobody took over for long.
    pub(super) fn calmed(&mut self, device: &DeviceId, role: Role, now: Mono) -> bool {
        let Some(fight) = self.of.get_mut(&(device.clone(), role)) else { return true };
        let last = fight.turns.back().map_or(Mono(0), |(at, ..)| *at);
        fight.turns.clear();
        fight.pause.take().is_some() && last.until(now) >= QUIET
    }
}

impl Fight {
    fn is_one(&self, now: Mono) -> bool {
        let (mut displaced, mut back, mut itself) = (Vec::new(), 0, 0);
        for (_, from, to) in self.turns.iter().filter(|(at, ..)| at.until(now) <= LATELY.1) {
            if from == to {
                itself += 1;
                continue;
            }
            back += usize::from(displaced.contains(&to));
            displaced.push(from);
        }
        back >= PATIENCE.0 || itself >= PATIENCE.1
    }
}
