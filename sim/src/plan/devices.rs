//! What devices and the people around them do against the records in a plan: one seed in four has devices that are away
//! for about as long as their site waits for them, callbacks that are lost, programs that sulk, second programs at their
//! own address, and people who work at a device itself or settle conflicts. Draws from streams of its own, so that all
//! other seeds stay as they are; in these, what goes wrong here takes the place of as much else.

use std::time::Duration;

use tidegate_core::id::Role;
use tidegate_core::input::Resolve;
use tidegate_core::knobs::Knobs;

use super::workload::{Story, moment};
use super::{MINUTE, Pace, Shape, Stage, draw};
use crate::scenario::{
    Act, Fault, FaultSpec, Keep, Lasts, Lie, LocalDeed, Path, Recording, Step, Sync, Way, When,
};
use crate::stream::Stream;

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A device records for longer than its site waits for it, and is away meanwhile.
    Away,
    /// A device is away in the middle of a recording for about as long as its site waits.
    Grace,
    /// A device is gone for good, and its site dies meanwhile.
    Gone,
    /// Nobody hears of ends of recordings.
    LostCallbacks,
    /// A program is of no use.
    Sulk,
    /// A second program with the id of a device.
    Twin,
    /// Somebody works at the device itself.
    Local,
    /// Somebody settles conflicts, more or less informed.
    Resolve,
    /// A device claims what another one stored, or what it did not.
    Claim,
}

const KINDS: [Kind; 9] = [
    Kind::Away,
    Kind::Grace,
    Kind::Gone,
    Kind::LostCallbacks,
    Kind::Sulk,
    Kind::Twin,
    Kind::Local,
    Kind::Resolve,
    Kind::Claim,
];

/// What the devices of a seed are about.
#[derive(Clone, Debug)]
pub(super) struct Quarrel {
    kinds: Vec<Kind>,
    honest: bool,
}

impl Quarrel {
    /// The quarrel of a seed, if it has one.
    pub(super) fn draw(seed: u64, shape: &Shape) -> Option<Quarrel> {
        let mut chance = Stream::new(seed, "plan/quarrel", 0);
        if shape.pace != Pace::Mixed || !chance.one_in(4) {
            return None;
        }
        let honest = chance.one_in(2);
        let mut kinds = draw::subset(&mut chance, &KINDS);
        kinds.retain(|kind| !honest || !matches!(kind, Kind::Twin | Kind::Claim));
        (!kinds.is_empty()).then_some(Quarrel { kinds, honest })
    }

    /// The site's settings.
    pub(super) fn knobs(seed: u64, site: usize, knobs: &mut Knobs) {
        let mut chance = Stream::new(seed, "plan/quarrel/knobs", site as u64);
        knobs.grace_ms = *chance.pick(&[0, 1_000, 5_000, 30_000, 30_000, 5 * MINUTE]);
        knobs.settle_ms = *chance.pick(&[100, 1_000, 5_000, 5_000, MINUTE]);
        knobs.contest_pause_ms = *chance.pick(&[1_000, 10_000, 10_000, MINUTE]);
    }

    /// What people do, and what goes wrong.
    pub(super) fn happen(&self, stage: &Stage<'_>, stories: &[Story]) -> (Vec<Step>, Vec<FaultSpec>) {
        let mut chance = stage.stream("plan/quarrel/count", 0);
        let count = *chance.pick(&[1, 1, 2, 2, 3, 4]);
        let mut scene = Scene { stage, steps: Vec::new(), faults: Vec::new() };
        for n in 0..count {
            let mut chance = stage.stream("plan/quarrel/one", n);
            let kind = *chance.pick(&self.kinds);
            scene.one(stories, kind, n, self.honest, &mut chance);
        }
        // What is left out moves nothing else.
        let dishonest = |fault: &Fault| matches!(fault, Fault::Twin { .. } | Fault::Lie { .. });
        scene.faults.retain(|spec| stage.shape.faults && (stage.shape.dishonest || !dishonest(&spec.fault)));
        (scene.steps, scene.faults)
    }
}

struct Scene<'a> {
    stage: &'a Stage<'a>,
    steps: Vec<Step>,
    faults: Vec<FaultSpec>,
}

impl Scene<'_> {
    fn one(&mut self, stories: &[Story], kind: Kind, n: usize, honest: bool, chance: &mut Stream) {
        let (at, story) = moment(self.stage, stories, chance, &[0, 1, 1, 2]);
        let len = self.stage.devices.len();
        let device = story.map_or_else(|| draw::index(chance, len), |story| story.device);
        let site = self.stage.devices[device].site;
        let grace = Duration::from_millis(self.stage.sites[site].knobs.grace_ms.min(2 * MINUTE));
        let link = if chance.one_in(3) { Path::Device(device) } else { Path::Link(device, Role::Recorder) };
        let crowded = stories.len() >= 12 || self.steps.iter().any(|step| matches!(step.act, Act::Record(_)));
        match kind {
            Kind::Away if !crowded => {
                let lasts = grace * 2 + draw::scaled_span(chance, 60_000, 240_000);
                let recording = Recording {
                    device,
                    task: format!("q{}", n + 1),
                    bytes: draw::scaled(chance, 1 << 10, 8 << 20),
                    lasts,
                    bare: false,
                    pause: chance.one_in(4),
                    approve: true,
                    sync: Sync::Named,
                };
                self.step(at, Act::Record(recording));
                let from = at + draw::scaled_span(chance, 2_000, 20_000);
                // Long enough to be noticed, and for the grace; not as long as the recording.
                let away = grace + draw::scaled_span(chance, 500, 60_000);
                if chance.one_in(2) {
                    self.once(from, Fault::Reset { path: link.clone() });
                    self.lasting(from, away, Fault::Refuse { path: link });
                } else {
                    let fault = Fault::Cut { path: link, way: Way::Both };
                    self.lasting(from, away + Duration::from_secs(50), fault);
                }
                if chance.one_in(3) {
                    let down = draw::scaled_span(chance, 50, 20_000);
                    self.once(from + away / 2, Fault::Kill { site, keep: Keep::Subset, down });
                }
            }
            Kind::Grace | Kind::Away => {
                let near = [-1_000_i64, -10, 0, 10, 1_000][draw::index(chance, 5)];
                let away = grace + Duration::from_millis(1_000 + near.unsigned_abs());
                let away = if near < 0 { grace.saturating_sub(Duration::from_millis(900)) } else { away };
                self.once(at, Fault::Reset { path: link.clone() });
                self.lasting(at, away.max(Duration::from_millis(1)), Fault::Refuse { path: link });
            }
            Kind::Gone => {
                let down = draw::scaled_span(chance, 50, 20_000);
                let kill = Fault::Kill { site, keep: Keep::Subset, down };
                self.once(at + draw::scaled_span(chance, 1, 10_000), kill);
                let when = When::At(draw::whole(at.min(self.stage.chaos)));
                let fault = Fault::PowerOff { device };
                self.faults.push(FaultSpec { when, lasts: Lasts::Forever, fault });
            }
            Kind::LostCallbacks => {
                let lasts = draw::scaled_span(chance, 10_000, 300_000);
                self.lasting(at.saturating_sub(lasts / 2), lasts, Fault::LoseCallbacks { device });
            }
            Kind::Sulk => {
                let role = if chance.one_in(2) { Role::Recorder } else { Role::Transfer };
                let lasts = draw::scaled_span(chance, 5_000, 120_000);
                self.lasting(at.saturating_sub(lasts / 4), lasts, Fault::Sulk { device, role });
                if chance.one_in(2) {
                    // So that it greets meanwhile.
                    self.once(at, Fault::Reset { path: Path::Link(device, role) });
                }
            }
            Kind::Twin => {
                let role = if chance.one_in(4) { Role::Transfer } else { Role::Recorder };
                let fault = Fault::Twin { device, role, same_address: chance.one_in(2) };
                self.lasting(at, draw::scaled_span(chance, 5_000, 200_000), fault);
            }
            Kind::Local => {
                let deed = *chance.pick(&LocalDeed::ALL);
                self.step(at, Act::Local { device, deed });
                if deed == LocalDeed::Record {
                    let later = at + draw::scaled_span(chance, 1_000, 120_000);
                    let end = if chance.one_in(4) { LocalDeed::Cancel } else { LocalDeed::Finish };
                    self.step(later, Act::Local { device, deed: end });
                    if !honest || chance.one_in(2) {
                        self.resolve(at, device, story, chance);
                    }
                }
            }
            Kind::Claim => {
                for _ in 0..chance.between(1, 3) {
                    let when = at + draw::scaled_span(chance, 100, 120_000);
                    let lie = *chance.pick(&[Lie::ForeignKey, Lie::ForeignKey, Lie::WrongDigest]);
                    self.once(when, Fault::Lie { device, lie });
                }
            }
            Kind::Resolve => {
                for _ in 0..chance.between(1, 4) {
                    let when = at + draw::scaled_span(chance, 100, 60_000);
                    self.resolve(when, device, story, chance);
                }
            }
        }
    }

    fn resolve(&mut self, at: Duration, device: usize, story: Option<&Story>, chance: &mut Stream) {
        let how = *chance.pick(&[Resolve::Release, Resolve::Release, Resolve::Finish, Resolve::Drop]);
        let task = story.filter(|_| chance.one_in(2)).map(|story| story.task.clone());
        let later = at + draw::scaled_span(chance, 100, 20_000);
        self.step(later, Act::Resolve { device, how, task });
    }

    fn step(&mut self, at: Duration, act: Act) {
        self.steps.push(Step { at: draw::whole(at.min(self.stage.chaos)), act });
    }

    fn once(&mut self, at: Duration, fault: Fault) {
        self.lasting(at, Duration::ZERO, fault);
    }

    fn lasting(&mut self, at: Duration, lasts: Duration, fault: Fault) {
        let when = When::At(draw::whole(at.min(self.stage.chaos)));
        self.faults.push(FaultSpec { when, lasts: Lasts::For(draw::whole(lasts)), fault });
    }
}
