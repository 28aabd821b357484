//! Faults that come together, as they do outside: a fuse takes the site and its devices, a switch sends everybody back at
//! once, a crash is followed by a crash while recovering from it. Each is a story that single faults would hardly tell.

use std::time::Duration;

use tidegate_core::id::Role;

use super::faults::{Temper, commit, object, step};
use super::workload::{STAGES, Story, moment};
use super::{DAY, Stage, draw};
use crate::scenario::{
    CommitPoint, Fault, FaultSpec, Keep, Lasts, Lie, ObjectPoint, Ops, Path, Store, Way, When,
};
use crate::stream::Stream;

#[derive(Clone, Copy)]
enum Kind {
    /// The site and its devices lose power; they come back in any order.
    Blackout,
    /// Nobody reaches the site for a while, then everybody does.
    Herd,
    /// Devices are cut off one by one and come back in another order.
    Swizzle,
    /// A crash, and another one among the first commits of the next boot.
    DoubleKill,
    /// A crash at an operation on the cloud, and another one at an operation soon after.
    ObjectKills,
    /// Crash upon crash.
    KillStorm,
    /// The answer to `Complete` is lost, and the site dies with it.
    LostComplete,
    /// One way of a link dies; the device comes back while its old link looks alive.
    HalfOpen,
    /// The wall clock is set while uploads, retries or removals are due, and set back later.
    Clock,
    /// The wall clock goes back while the cloud is away and jobs wait for it.
    LateClock,
    /// Credentials expire during uploads and are renewed; the site is killed in between.
    Expiry,
    /// The cloud is away for a while, and the site dies meanwhile.
    OutageKill,
    /// Many ask one recorder while it cannot answer.
    Crowd,
    /// The disk stalls while a recording goes through, then fails.
    Disk,
    /// A program of a device dies in a recording, and the site soon before or after.
    BothDie,
    /// Old messages come again right after a reconnect or a restart.
    Echo,
}

const KINDS: [Kind; 16] = [
    Kind::Blackout,
    Kind::Herd,
    Kind::Swizzle,
    Kind::DoubleKill,
    Kind::ObjectKills,
    Kind::KillStorm,
    Kind::LostComplete,
    Kind::HalfOpen,
    Kind::Clock,
    Kind::LateClock,
    Kind::Expiry,
    Kind::OutageKill,
    Kind::Crowd,
    Kind::Disk,
    Kind::BothDie,
    Kind::Echo,
];

/// The stages of a recording in which it is most likely to matter.
fn stages(kind: Kind) -> &'static [usize] {
    match kind {
        Kind::LostComplete | Kind::LateClock | Kind::Expiry | Kind::OutageKill | Kind::ObjectKills => &[4],
        Kind::HalfOpen | Kind::Crowd | Kind::BothDie | Kind::Echo => &[0, 1, 2],
        Kind::Clock => &[2, 4, 5],
        Kind::Blackout | Kind::Herd | Kind::Swizzle | Kind::DoubleKill | Kind::KillStorm | Kind::Disk => {
            &STAGES
        }
    }
}

/// Adds one of them.
pub(super) fn happen(
    stage: &Stage<'_>,
    stories: &[Story],
    crowds: &[(Duration, usize)],
    temper: &Temper,
    chance: &mut Stream,
    all: &mut Vec<FaultSpec>,
) {
    let kind = *chance.pick(&KINDS);
    let (at, story) = moment(stage, stories, chance, stages(kind));
    let device = story.map_or_else(|| draw::index(chance, stage.devices.len()), |story| story.device);
    let site = stage.devices[device].site;
    let mut scene = Scene { stage, all };
    let span = temper.dwell(stage, chance);
    let down = draw::scaled_span(chance, 50, 20_000);
    match kind {
        Kind::Blackout => {
            scene.once(at, Fault::PowerLoss { site, keep: temper.keep(chance), down });
            for device in stage.devices_of(site) {
                let jitter = draw::scaled_span(chance, 1, 5_000);
                scene.lasting(at + jitter / 8, down + jitter, Fault::PowerOff { device });
            }
        }
        Kind::Herd => {
            let path = Path::Site(site);
            let fault = match chance.below(3) {
                0 => Fault::Refuse { path: path.clone() },
                1 => Fault::Cut { path: path.clone(), way: Way::Both },
                _ => Fault::Hold { path: path.clone() },
            };
            scene.once(at, Fault::Reset { path });
            scene.lasting(at, span, fault);
        }
        Kind::Swizzle => {
            let mut order = stage.devices_of(site);
            chance.shuffle(&mut order);
            let ends = at + span;
            for (n, device) in order.into_iter().enumerate() {
                let from = at + draw::scaled_span(chance, 1, 10_000) * u32::try_from(n).unwrap_or(0);
                let until = ends + draw::scaled_span(chance, 1, 20_000);
                let fault = Fault::Cut { path: Path::Device(device), way: Way::Both };
                scene.lasting(from, until.saturating_sub(from).max(Duration::from_millis(1)), fault);
            }
        }
        Kind::DoubleKill => {
            let first = commit(chance, stories, site);
            scene.add(first, Fault::Kill { site, keep: temper.keep(chance), down });
            let mut last = first;
            for _ in 0..chance.between(1, 2) {
                last = next_commit(chance, last);
                scene.add(last, Fault::Kill { site, keep: temper.keep(chance), down });
            }
        }
        Kind::ObjectKills => {
            let first = object(chance, stories, site);
            scene.add(first, Fault::Kill { site, keep: temper.keep(chance), down });
            let second = next_object(chance, first);
            scene.add(second, Fault::PowerLoss { site, keep: temper.keep(chance), down });
        }
        Kind::KillStorm => {
            let mut when = commit(chance, stories, site);
            for _ in 0..chance.between(3, 6) {
                scene.add(when, Fault::Kill { site, keep: temper.keep(chance), down });
                when = next_commit(chance, when);
            }
        }
        Kind::LostComplete => {
            let store = Store::Cloud(site);
            let fault = Fault::LoseAnswers { store, ops: Ops::Complete, permille: 1_000 };
            scene.lasting(at, span.max(Duration::from_secs(5)), fault);
            if chance.one_in(2) {
                let when = object(chance, stories, site);
                scene.add(when, Fault::Kill { site, keep: temper.keep(chance), down });
            }
        }
        Kind::HalfOpen => {
            let role = if chance.one_in(2) { Role::Recorder } else { Role::Transfer };
            let way = if chance.one_in(2) { Way::Up } else { Way::Down };
            let moment = Duration::from_millis(chance.between(1, 400));
            scene.lasting(at, moment, Fault::Cut { path: Path::Link(device, role), way });
            let back = at + draw::scaled_span(chance, 1, 10_000);
            scene.once(back, Fault::Crash { device, role });
        }
        Kind::Clock => {
            let by_ms = step(chance, 3_600_000);
            scene.once(at, Fault::Step { site, by_ms });
            if chance.one_in(2) {
                scene.once(at + span, Fault::Step { site, by_ms: -by_ms });
            }
        }
        Kind::LateClock => {
            scene.lasting(at, span, Fault::Outage { store: Store::Cloud(site) });
            let back = draw::scaled(chance, 120_000, 2 * DAY);
            let by_ms = i64::try_from(back).map_or(-120_000, |back| -back);
            let when = at + (span * 3 / 4).min(draw::scaled_span(chance, 500, 60_000));
            scene.once(when, Fault::Step { site, by_ms });
            // A restart then reads waits from records that were written by another clock.
            if chance.one_in(2) {
                let after = when + draw::scaled_span(chance, 500, 20_000);
                scene.once(after, Fault::Kill { site, keep: temper.keep(chance), down });
            }
        }
        Kind::Expiry => {
            scene.lasting(at, span, Fault::Expired { store: Store::Cloud(site) });
            scene.once(at + span / 2, Fault::Kill { site, keep: temper.keep(chance), down });
        }
        Kind::OutageKill => {
            scene.lasting(at, span, Fault::Outage { store: Store::Cloud(site) });
            scene.once(at + span / 2, Fault::PowerLoss { site, keep: temper.keep(chance), down });
        }
        Kind::Crowd => {
            let (at, device) = if crowds.is_empty() { (at, device) } else { *chance.pick(crowds) };
            let early = at.saturating_sub(Duration::from_millis(chance.between(0, 500)));
            let path = Path::Link(device, Role::Recorder);
            let fault = match chance.below(3) {
                0 => Fault::Hold { path },
                1 => Fault::Cut { path, way: Way::Up },
                _ => Fault::Slow { path, by: draw::scaled_span(chance, 1_000, 30_000) },
            };
            scene.lasting(early, draw::scaled_span(chance, 2_000, 90_000), fault);
        }
        Kind::Disk => {
            scene.lasting(at, span, Fault::DiskSlow { site, by: draw::scaled_span(chance, 100, 20_000) });
            scene.once(at + span / 2, Fault::DiskFails { site, down });
        }
        Kind::BothDie => {
            let role = if chance.one_in(2) { Role::Recorder } else { Role::Transfer };
            let gap = draw::scaled_span(chance, 1, 5_000);
            let (first, second) = if chance.one_in(2) { (at, at + gap) } else { (at + gap, at) };
            scene.once(first, Fault::Crash { device, role });
            scene.once(second, Fault::Kill { site, keep: temper.keep(chance), down });
        }
        Kind::Echo => {
            let role = if chance.one_in(2) { Role::Recorder } else { Role::Transfer };
            let count = u32::try_from(chance.between(2, 24)).unwrap_or(2);
            let first = if chance.one_in(2) {
                Fault::Reset { path: Path::Device(device) }
            } else {
                Fault::Kill { site, keep: temper.keep(chance), down }
            };
            scene.once(at, first);
            let later = at + down + draw::scaled_span(chance, 1, 8_000);
            scene.once(later, Fault::Replay { device, role, count });
        }
    }
}

/// Somebody or something gets between the site, its edge store and its cloud, in the middle of an upload. Mostly of the
/// first recording, because its operations can be told by their numbers.
pub(super) fn tamper(stage: &Stage<'_>, stories: &[Story], chance: &mut Stream, all: &mut Vec<FaultSpec>) {
    let first = stories.iter().min_by_key(|story| story.begins());
    let Some(story) = first.filter(|_| !chance.one_in(4)).or_else(|| stories.first()) else { return };
    let (site, task) = (story.site, story.task.clone());
    let points = [ObjectPoint::Asked, ObjectPoint::Applied, ObjectPoint::Answered];
    // A look, a list and a beginning come before the parts; the end and a look come after.
    let mut at = |low: u64, high: u64| When::Object {
        site,
        n: u32::try_from(chance.between(low, high)).unwrap_or(1),
        point: *chance.pick(&points),
    };
    let (early, amid) = (at(1, 5), at(3, story.parts + 4));
    let mut scene = Scene { stage, all };
    let edge = Store::Edge(site);
    match chance.below(12) {
        0 => scene.add(amid, Fault::Overwrite { store: edge, task }),
        5..=7 => {
            // Put back at one of the operations that follow: before the recording is read again, or in a later attempt.
            scene.add(amid, Fault::Overwrite { store: edge, task: task.clone() });
            let back = chance.between(4, story.parts + 9);
            let n = u32::try_from(back).unwrap_or(1);
            let when = When::Object { site, n, point: *chance.pick(&points) };
            scene.add(when, Fault::Copy { store: edge, task });
        }
        1 => {
            scene.add(amid, Fault::Overwrite { store: edge, task: task.clone() });
            let back = story.within(chance, 4) + draw::scaled_span(chance, 500, 120_000);
            scene.once(back, Fault::Copy { store: edge, task: task.clone() });
            scene.once(back + draw::scaled_span(chance, 1_000, 300_000), Fault::Copy { store: edge, task });
        }
        2 => scene.add(early, Fault::Overwrite { store: Store::Cloud(site), task }),
        3 => scene.add(amid, Fault::Copy { store: Store::Cloud(site), task }),
        8 | 9 => {
            // Just before the end is asked for; the site dies there, comes back, looks, and finds the object of another
            // writer beside its own parts. A sidecar makes the end one operation later.
            let n = u32::try_from(story.parts + 2 + chance.below(2)).unwrap_or(3);
            let copied = When::Object { site, n, point: ObjectPoint::Answered };
            scene.add(copied, Fault::Copy { store: Store::Cloud(site), task });
            let kill = Fault::Kill { site, keep: Keep::Nothing, down: draw::scaled_span(chance, 50, 20_000) };
            scene.add(When::Object { site, n: n + 1, point: ObjectPoint::Asked }, kill);
        }
        10 | 11 => {
            // While the site reads what came in.
            let early = story.verified().saturating_sub(Duration::from_secs(1));
            let at = early + draw::span(chance, 0, 5_000);
            scene.once(at, Fault::Lie { device: story.device, lie: Lie::OtherContent });
        }
        _ => {
            let permille = *chance.pick(&[300, 700, 1_000]);
            let fault = Fault::Misrouted { store: Store::Cloud(site), permille };
            let lasts = Lasts::For(draw::scaled_span(chance, 5_000, 1_200_000));
            scene.all.push(FaultSpec { when: amid, lasts, fault });
        }
    }
}

struct Scene<'a> {
    stage: &'a Stage<'a>,
    all: &'a mut Vec<FaultSpec>,
}

impl Scene<'_> {
    fn add(&mut self, when: When, fault: Fault) {
        self.all.push(FaultSpec { when, lasts: Lasts::For(Duration::ZERO), fault });
    }

    fn once(&mut self, at: Duration, fault: Fault) {
        self.add(When::At(draw::whole(at.min(self.stage.chaos))), fault);
    }

    fn lasting(&mut self, at: Duration, lasts: Duration, fault: Fault) {
        let when = When::At(draw::whole(at.min(self.stage.chaos)));
        self.all.push(FaultSpec { when, lasts: Lasts::For(draw::whole(lasts)), fault });
    }
}

/// The same site, a few commits later: with luck while the next boot takes up what the last one left.
fn next_commit(chance: &mut Stream, last: When) -> When {
    let points = [CommitPoint::Torn, CommitPoint::Durable, CommitPoint::Released];
    match last {
        When::Commit { site, n, point: _ } => {
            let later = u32::try_from(chance.between(1, 4)).unwrap_or(1);
            When::Commit { site, n: n.saturating_add(later), point: *chance.pick(&points) }
        }
        other => other,
    }
}

fn next_object(chance: &mut Stream, last: When) -> When {
    let points = [ObjectPoint::Asked, ObjectPoint::Applied, ObjectPoint::Answered];
    match last {
        When::Object { site, n, point: _ } => {
            let later = u32::try_from(chance.between(1, 4)).unwrap_or(1);
            When::Object { site, n: n.saturating_add(later), point: *chance.pick(&points) }
        }
        other => other,
    }
}
