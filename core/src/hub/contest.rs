//! Programs that fight over one id: notices that they displace each other, says for how long nobody may take over, and
//! tells viewers. Admits nobody and turns nobody away itself.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;

use crate::bug::planted;
use crate::cx::Cx;
use crate::effect::{ContestView, Notice};
use crate::hub::Hub;
use crate::hub::link::Link;
use crate::id::{ConnId, DeviceId, Role};
use crate::limits;
use crate::refusal::Broken;
use crate::time::{Mono, Now, Wall};
use crate::timers::TimerKey;

/// Where a program comes from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Owner<'a> {
    /// Its address: what tells two programs apart. The port is another one with every connection.
    pub remote: &'a str,
    /// Its port, for people: it finds the program on a machine that runs both.
    pub port: Option<u16>,
}

impl Owner<'_> {
    fn text(self) -> String {
        match self.port {
            None => self.remote.to_string(),
            Some(port) if self.remote.contains(':') => alloc::format!("[{}]:{port}", self.remote),
            Some(port) => alloc::format!("{}:{port}", self.remote),
        }
    }
}

/// Who displaced whom lately on the link of one program. Goes from the loser to the winner, and is forgotten when a link
/// ends without a successor.
///
/// ```text
/// Calm ──displaced each other too often──► Paused ──its time──► Watched ──takeover──► Paused, twice as long
///   ▲────────────────── no takeover for `CONTEST_QUIET`, or the link ended ──────────────┘
/// ```
#[derive(Debug, Default)]
pub(super) struct Contest {
    /// The newest takeovers, oldest first.
    turns: Vec<Turn>,
    fight: Option<Fight>,
}

#[derive(Debug)]
struct Turn {
    at: Now,
    from: String,
    to: String,
}

#[derive(Debug)]
struct Fight {
    owners: [String; 2],
    takeovers: u32,
    since: Wall,
    pauses: u32,
    closed_until: Mono,
    /// The same for people.
    closed_until_wall: Wall,
}

impl Contest {
    /// For how many milliseconds more nobody may take over; `None` if somebody may.
    pub(super) fn closed_for(&self, now: Mono) -> Option<u64> {
        let left = now.until(self.fight.as_ref()?.closed_until);
        if left.is_zero() {
            return None;
        }
        Some(u64::try_from(left.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX))
    }

    /// One took over from the other. True if that begins a pause: viewers should know.
    pub(super) fn took_over(&mut self, now: Now, pause_ms: u64, from: Owner<'_>, to: Owner<'_>) -> bool {
        if self.turns.len() >= limits::CONTEST_TURNS_KEPT {
            self.turns.remove(0);
        }
        self.turns.push(Turn { at: now, from: from.remote.to_string(), to: to.remote.to_string() });
        let (takeovers, since, pauses) = match &self.fight {
            Some(fight) => (fight.takeovers.saturating_add(1), fight.since, fight.pauses),
            None => {
                let Some((takeovers, since)) = self.fought(now.mono) else { return false };
                (takeovers, since, 0)
            }
        };
        let pause = Duration::from_millis(pause_ms).saturating_mul(1 << pauses.min(16));
        let pause = pause.min(limits::CONTEST_PAUSE_MAX);
        self.fight = Some(Fight {
            owners: [from.text(), to.text()],
            takeovers,
            since,
            pauses: pauses.saturating_add(1),
            closed_until: now.mono.after(pause),
            closed_until_wall: now.wall.after(pause),
        });
        true
    }

    /// Whether there is a fight, over or paused.
    pub(super) fn is_fight(&self) -> bool {
        self.fight.is_some()
    }

    /// As viewers see it; `None` if there is no fight.
    pub(super) fn view(&self, now: Mono) -> Option<ContestView> {
        let fight = self.fight.as_ref()?;
        let closed = self.closed_for(now).is_some();
        Some(ContestView {
            owners: fight.owners.clone(),
            takeovers: fight.takeovers,
            since: fight.since,
            closed_until: closed.then_some(fight.closed_until_wall),
        })
    }

    /// Checks its bounds.
    pub(super) fn check(&self) -> Result<(), Broken> {
        if self.turns.len() > limits::CONTEST_TURNS_KEPT {
            let saw = alloc::format!("{} takeovers of one link are remembered", self.turns.len());
            return Err(Broken { invariant: "I10", saw });
        }
        Ok(())
    }

    /// How many takeovers the fight has and since when, if the newest takeovers are one.
    ///
    /// A device that moves to another address takes over once, and does not come back from the old one. Two programs at
    /// one address cannot be told from one program whose link breaks again and again: it is given more time.
    fn fought(&self, now: Mono) -> Option<(u32, Wall)> {
        let lately = || self.turns.iter().filter(|turn| turn.at.mono.until(now) <= limits::CONTEST_WINDOW);
        let (mut came_back, mut same) = (0, 0);
        for (n, turn) in lately().enumerate() {
            if turn.from == turn.to {
                same += 1;
            } else if lately().take(n).any(|earlier| earlier.from == turn.to && earlier.to != turn.to) {
                came_back += 1;
            }
        }
        if came_back < limits::CONTEST_TURNS && same < limits::CONTEST_TURNS_ONE_ADDRESS {
            return None;
        }
        let takeovers = u32::try_from(lately().count()).unwrap_or(u32::MAX);
        Some((takeovers, lately().next()?.at.wall))
    }
}

impl Hub {
    /// For how many milliseconds nobody may take over this program's link, because others fight over it.
    pub(super) fn closed_for(&self, cx: &Cx<'_>, device: &DeviceId, role: Role) -> Option<u64> {
        let Some(link) = self.link(device, role) else {
            let until = self.haunted.until(device, role).filter(|_| planted!(cx.knobs, X41));
            return until.filter(|until| cx.now.mono < *until).map(|_| cx.knobs.contest_pause_ms);
        };
        if planted!(cx.knobs, X40) && link.contest.is_fight() {
            return Some(cx.knobs.contest_pause_ms);
        }
        link.contest.closed_for(cx.now.mono)
    }

    /// One link takes the place of another, and what is known of a fight goes over to it. True if a pause begins.
    pub(super) fn succeed(
        &mut self,
        cx: &mut Cx<'_>,
        device: &DeviceId,
        role: Role,
        old: &mut Link,
        new: &mut Link,
    ) -> bool {
        self.supersede(cx, old.conn, new.conn);
        cx.publish(Notice::Takeover { device: device.clone(), role, old: old.view(), new: new.view() });
        cx.disarm(&TimerKey::Contest(old.conn));
        if planted!(cx.knobs, X39) {
            return false;
        }
        let mut contest = core::mem::take(&mut old.contest);
        let fought = contest.took_over(cx.now, cx.knobs.contest_pause_ms, old.owner(), new.owner());
        new.contest = contest;
        if fought {
            cx.arm(TimerKey::Contest(new.conn), limits::CONTEST_QUIET);
        }
        fought
    }

    /// Nobody took over a link for so long that the fight over it counts as over.
    pub fn on_contest_due(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        let Some((device, role)) = self.lines.get(&conn).cloned() else { return };
        let link = match role {
            Role::Recorder => self.recorders.get_mut(&device).map(|recorder| &mut recorder.link),
            Role::Transfer => self.transfers.get_mut(&device).map(|transfer| &mut transfer.link),
        };
        link.expect("I01: its link is current").contest = Contest::default();
        self.publish_contest(cx, &device, role);
    }

    /// Tells viewers how a fight stands.
    pub(super) fn publish_contest(&self, cx: &mut Cx<'_>, device: &DeviceId, role: Role) {
        let contest = self.link(device, role).and_then(|link| link.contest.view(cx.now.mono));
        cx.publish(Notice::Contest { device: device.clone(), role, contest });
    }

    /// Links that are fought over.
    pub(crate) fn contests(&self) -> impl Iterator<Item = ConnId> {
        self.links().filter(|link| link.contest.is_fight()).map(|link| link.conn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;

    fn at(ms: u64) -> Now {
        Now { wall: Wall(1_000_000 + i64::try_from(ms).unwrap()), mono: Mono(ms * 1_000_000) }
    }

    fn owner(remote: &str) -> Owner<'_> {
        Owner { remote, port: Some(4000) }
    }

    /// Takeovers by these, one every so many milliseconds; says which of them began a pause.
    fn turns(contest: &mut Contest, every_ms: u64, owners: &[&str]) -> Vec<usize> {
        let mut paused = Vec::new();
        for (n, pair) in owners.windows(2).enumerate() {
            let now = at(every_ms * n as u64);
            if contest.took_over(now, 10_000, owner(pair[0]), owner(pair[1])) {
                paused.push(n);
            }
        }
        paused
    }

    #[test]
    fn the_third_time_that_a_displaced_address_comes_back_begins_a_pause() {
        assert_eq!(turns(&mut Contest::default(), 1_000, &["a", "b", "a", "b", "a"]), [3]);
        // Three programs are no better than two.
        assert_eq!(turns(&mut Contest::default(), 1_000, &["a", "b", "c", "a", "b", "c"]), [4]);
    }

    #[test]
    fn a_device_that_moves_or_comes_back_now_and_then_fights_with_nobody() {
        let moves = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];
        assert!(turns(&mut Contest::default(), 1, &moves).is_empty());
        let back_and_forth = ["a", "b", "a", "b", "a", "b", "a", "b"];
        assert!(turns(&mut Contest::default(), 11_000, &back_and_forth).is_empty());
        assert!(turns(&mut Contest::default(), 6_001, &["a"; 20]).is_empty());
    }

    #[test]
    fn one_address_is_given_six_takeovers() {
        assert_eq!(turns(&mut Contest::default(), 1_000, &["a"; 7]), [5]);
        assert!(turns(&mut Contest::default(), 1_000, &["a"; 6]).is_empty());
    }

    #[test]
    fn each_pause_is_twice_as_long_as_the_last_up_to_a_minute() {
        let mut contest = Contest::default();
        turns(&mut contest, 1_000, &["a", "b", "a", "b", "a"]);
        let mut now = 3_000;
        let mut pauses = vec![contest.closed_for(at(now).mono)];
        for _ in 0..4 {
            now += contest.closed_for(at(now).mono).expect("a pause");
            assert_eq!(contest.closed_for(at(now).mono), None, "it is over");
            assert!(contest.took_over(at(now), 10_000, owner("a"), owner("b")));
            pauses.push(contest.closed_for(at(now).mono));
        }
        assert_eq!(pauses, [10_000, 20_000, 40_000, 60_000, 60_000].map(Some));
    }

    #[test]
    fn viewers_see_both_addresses_with_their_ports_and_until_when_nobody_may() {
        let mut contest = Contest::default();
        assert_eq!(contest.view(Mono(0)), None);
        turns(&mut contest, 1_000, &["a", "fe80::1", "a", "fe80::1", "a"]);
        let view = contest.view(at(3_000).mono).expect("a fight");
        assert_eq!(view.owners, ["[fe80::1]:4000", "a:4000"]);
        assert_eq!((view.takeovers, view.since), (4, at(0).wall));
        assert_eq!(view.closed_until, Some(at(13_000).wall));
        assert_eq!(contest.view(at(13_000).mono).expect("still watched").closed_until, None);
    }
}
