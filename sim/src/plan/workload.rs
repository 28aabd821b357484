//! What people and devices do on purpose in a plan: recordings, and acts that race with them. Knows nothing of faults.

use std::time::Duration;

use tidegate_core::input::Action;

use super::{Pace, Stage, draw};
use crate::scenario::{Act, Recording, Step, Sync};
use crate::stream::Stream;

/// When the stages of a recording would be if nothing went wrong: what acts and faults are aimed at.
#[derive(Clone, Debug)]
pub(super) struct Story {
    /// Index of its device.
    pub(super) device: usize,
    /// Index of its site.
    pub(super) site: usize,
    /// Its task.
    pub(super) task: String,
    /// Created, begun, ended, stored at the edge, judged, in the cloud, over.
    moments: [Duration; 7],
    /// Parts it has in the cloud, about.
    pub(super) parts: u64,
}

impl Story {
    pub(super) fn new(stage: &Stage<'_>, at: Duration, recording: &Recording) -> Story {
        let device = &stage.devices[recording.device];
        let site = &stage.sites[device.site];
        let way =
            site.knobs.builtin.bytes_per_second.map_or(site.cloud_speed, |cap| cap.min(site.cloud_speed));
        let transfer =
            |speed: u64| Duration::from_millis(recording.bytes.saturating_mul(1_000) / speed.max(1));
        let begun = at + Duration::from_secs(1) + device.latency * 6;
        let ended = begun + recording.lasts;
        let stored = ended + Duration::from_millis(500) + device.latency * 6 + transfer(device.speed);
        let judged = stored + Duration::from_secs(2);
        let cloud = judged + Duration::from_secs(1) + site.cloud_latency * 8 + transfer(way);
        let keep = Duration::from_millis(site.knobs.keep_edge_ms.unwrap_or(0).min(60_000));
        let over = cloud + Duration::from_secs(2) + keep;
        Story {
            device: recording.device,
            site: device.site,
            task: recording.task.clone(),
            moments: [at, begun, ended, stored, judged, cloud, over],
            parts: recording.bytes / site.knobs.part_size + 1,
        }
    }

    /// When it begins.
    pub(super) fn begins(&self) -> Duration {
        self.moments[0]
    }

    /// How long it records.
    pub(super) fn recording(&self) -> Duration {
        self.moments[2].saturating_sub(self.moments[1])
    }

    /// How long everything else takes.
    pub(super) fn work(&self) -> Duration {
        self.moments[6].saturating_sub(self.moments[0] + self.recording())
    }

    /// When the site is about to read what was uploaded, before it says that it has it.
    pub(super) fn verified(&self) -> Duration {
        self.moments[3]
    }

    /// A moment within a stage: 0 configuring, 1 recording, 2 uploading to the edge, 3 waiting for a judgement, 4
    /// uploading to the cloud, 5 cleaning up.
    pub(super) fn within(&self, chance: &mut Stream, stage: usize) -> Duration {
        draw::span(chance, draw::millis(self.moments[stage]), draw::millis(self.moments[stage + 1]))
    }
}

/// A moment of the chaos phase and, more often than not, the recording it was aimed at: half of those in one of the
/// stages where it matters most.
pub(super) fn moment<'a>(
    stage: &Stage<'_>,
    stories: &'a [Story],
    chance: &mut Stream,
    fit: &[usize],
) -> (Duration, Option<&'a Story>) {
    if stories.is_empty() || !chance.permille(650) {
        return (draw::span(chance, 0, draw::millis(stage.chaos)), None);
    }
    let story = chance.pick(stories);
    let within = if chance.one_in(2) { *chance.pick(fit) } else { draw::index(chance, STAGES.len()) };
    (story.within(chance, within).min(stage.chaos), Some(story))
}

/// Every stage of a recording.
pub(super) const STAGES: [usize; 6] = [0, 1, 2, 3, 4, 5];

/// The recordings, in no order.
pub(super) fn recordings(stage: &Stage<'_>) -> Vec<(Duration, Recording)> {
    let mut chance = stage.stream("plan/recordings", 0);
    let most = stage.shape.recordings.max(1);
    let count = match stage.shape.pace {
        Pace::Busy => most,
        Pace::Idle => most / 2 + draw::index(&mut chance, most / 2 + 1),
        Pace::Mixed if chance.one_in(8) => draw::index(&mut chance, most) + 1,
        Pace::Mixed => *chance.pick(&[1, 2, 2, 3, 3, 4, 5, 6]),
    };
    let rhythm = Rhythm::draw(stage, &mut chance);
    let hot = draw::index(&mut chance, stage.devices.len());
    let heat = *chance.pick(&[0, 300, 700]);
    let judgement = *chance.pick(&[1_000, 900, 500]);
    let bare = *chance.pick(&[0, 0, 300, 1_000]);
    let pauses = *chance.pick(&[0, 0, 300]);
    let routes = match chance.below(3) {
        0 => vec![Sync::Named],
        1 => vec![Sync::Batch],
        _ => vec![Sync::Named, Sync::Batch, Sync::Left],
    };
    (0..count)
        .map(|n| {
            let mut chance = stage.stream("plan/recording", n);
            let device =
                if chance.permille(heat) { hot } else { draw::index(&mut chance, stage.devices.len()) };
            let at = rhythm.at(stage, &mut chance, n, count);
            let knobs = &stage.sites[stage.devices[device].site].knobs;
            let longest = if stage.chaos >= Duration::from_secs(3600) { 1_800_000 } else { 60_000 };
            let recording = Recording {
                device,
                task: format!("t{}", n + 1),
                // Parts may be so large that no recording has two: its size then is of the usual kind.
                bytes: bytes(&mut chance, knobs.part_size.min(8 << 20)),
                lasts: draw::scaled_span(&mut chance, 200, longest),
                bare: chance.permille(bare),
                pause: chance.permille(pauses),
                approve: chance.permille(judgement),
                sync: *chance.pick(&routes),
            };
            (at, recording)
        })
        .collect()
}

/// Sizes around what matters: nothing, tiny, whole parts and one byte more or less, up to a dozen parts.
fn bytes(chance: &mut Stream, part: u64) -> u64 {
    match chance.below(48) {
        0 => 0,
        1..=5 => draw::scaled(chance, 1, 64 << 10),
        6..=17 => {
            let whole = part * chance.between(1, 6);
            *chance.pick(&[whole - 1, whole, whole + 1])
        }
        18..=40 => chance.between(1 << 20, 24 << 20),
        _ => chance.between(24 << 20, 60 << 20),
    }
}

/// How recordings lie in time.
enum Rhythm {
    /// Anywhere.
    Spread,
    /// Close to a few moments.
    Bursts(Vec<Duration>),
    /// One after another, from this moment on, so far apart.
    Row(Duration, Duration),
}

impl Rhythm {
    fn draw(stage: &Stage<'_>, chance: &mut Stream) -> Rhythm {
        let latest = draw::millis(stage.chaos) * 4 / 5;
        match chance.below(4) {
            _ if stage.shape.pace != Pace::Mixed => Rhythm::Spread,
            0 => Rhythm::Spread,
            1 | 2 => {
                let centres = chance.between(1, 3);
                Rhythm::Bursts((0..centres).map(|_| draw::span(chance, 0, latest)).collect())
            }
            _ => {
                let from = draw::span(chance, 0, latest / 4);
                Rhythm::Row(from, draw::scaled_span(chance, 1_000, 90_000))
            }
        }
    }

    fn at(&self, stage: &Stage<'_>, chance: &mut Stream, n: usize, count: usize) -> Duration {
        let latest = draw::millis(stage.chaos) * 4 / 5;
        let at = match self {
            Rhythm::Spread if stage.shape.pace == Pace::Mixed => draw::span(chance, 0, latest),
            Rhythm::Spread => {
                // Evenly, so that a measurement does not depend on luck.
                let slot = latest / count.max(1) as u64;
                draw::span(chance, slot * n as u64, slot * (n as u64 + 1))
            }
            Rhythm::Bursts(centres) => *chance.pick(centres) + draw::scaled_span(chance, 1, 8_000),
            Rhythm::Row(from, gap) => *from + *gap * u32::try_from(n).unwrap_or(u32::MAX),
        };
        at.min(Duration::from_millis(latest))
    }
}

/// Kinds of acts that a seed may have.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Create,
    Command,
    Cancel,
    Judge,
    Sync,
    Refresh,
    Restart,
    StopRecorder,
    RestartUploader,
    Pair,
    Again,
    ByHand,
    /// A task is called off while its `begin` waits for a fresh state.
    Crossed,
    Crowd,
}

const KINDS: [Kind; 14] = [
    Kind::Create,
    Kind::Command,
    Kind::Cancel,
    Kind::Judge,
    Kind::Sync,
    Kind::Refresh,
    Kind::Restart,
    Kind::StopRecorder,
    Kind::RestartUploader,
    Kind::Pair,
    Kind::Again,
    Kind::ByHand,
    Kind::Crossed,
    Kind::Crowd,
];

/// All steps; and when a crowd asks which device, for faults that make it wait.
pub(super) fn steps(
    stage: &Stage<'_>,
    recordings: Vec<(Duration, Recording)>,
    stories: &[Story],
) -> (Vec<Step>, Vec<(Duration, usize)>) {
    let mut chance = stage.stream("plan/acts", 0);
    let kinds = draw::subset(&mut chance, &KINDS);
    let mut actions = draw::subset(&mut chance, &Action::ALL);
    if !chance.one_in(6) && actions.len() > 1 {
        actions.retain(|action| *action != Action::Quit);
    }
    let count = match stage.shape.pace {
        Pace::Mixed => *chance.pick(&[0, 1, 2, 3, 4, 6, 8, 12]),
        Pace::Idle | Pace::Busy => stage.shape.recordings / 4,
    };
    let mut troupe = Troupe { stage, stories, actions, steps: Vec::new(), crowds: Vec::new() };
    for (at, recording) in recordings {
        troupe.steps.push(Step { at, act: Act::Record(recording) });
    }
    for n in 0..count {
        let mut chance = stage.stream("plan/act", n);
        let kind = *chance.pick(&kinds);
        troupe.act(&mut chance, n, kind);
    }
    (troupe.steps, troupe.crowds)
}

struct Troupe<'a> {
    stage: &'a Stage<'a>,
    stories: &'a [Story],
    actions: Vec<Action>,
    steps: Vec<Step>,
    crowds: Vec<(Duration, usize)>,
}

impl Troupe<'_> {
    fn act(&mut self, chance: &mut Stream, n: usize, kind: Kind) {
        let fit: &[usize] = match kind {
            Kind::StopRecorder | Kind::Again => &[1],
            Kind::RestartUploader => &[2],
            Kind::Command | Kind::Pair | Kind::Crowd | Kind::Refresh => &[0, 1],
            Kind::Judge => &[3],
            Kind::Sync => &[3, 4],
            Kind::Create | Kind::Cancel | Kind::Restart | Kind::ByHand | Kind::Crossed => &STAGES,
        };
        let (at, story) = moment(self.stage, self.stories, chance, fit);
        let device =
            story.map_or_else(|| draw::index(chance, self.stage.devices.len()), |story| story.device);
        let site = self.stage.devices[device].site;
        let task = self.task(chance, story);
        let act = match kind {
            Kind::Create => Act::Create { device, task: format!("c{}", n + 1), config: chance.one_in(2) },
            Kind::Command => self.command(chance, device, story),
            Kind::Cancel => Act::Cancel { task, site },
            Kind::Judge => Act::Judge { task, site, approve: chance.one_in(2) },
            Kind::Sync => Act::Sync { task: (!chance.one_in(3)).then_some(task), site },
            Kind::Refresh => {
                Act::Refresh { device, max_age: Duration::from_millis(*chance.pick(&[0, 100, 5_000])) }
            }
            Kind::Restart => {
                let destination = !chance.one_in(4);
                if !destination && chance.one_in(2) {
                    let later = at + draw::scaled_span(chance, 500, 120_000);
                    self.push(later, Act::Restart { site, destination: true });
                }
                Act::Restart { site, destination }
            }
            Kind::StopRecorder => Act::StopRecorder { device },
            Kind::RestartUploader => Act::RestartUploader { device },
            Kind::Pair => {
                // Two people at once: both may find that their command is allowed.
                let gap = Duration::from_millis(*chance.pick(&[0, 0, 1, 20, 200]));
                let other = self.command(chance, device, story);
                self.push(at + gap, other);
                self.command(chance, device, story)
            }
            Kind::Again => return self.again(chance, at, device, &task),
            Kind::ByHand => {
                let task = format!("h{}", n + 1);
                self.push(at, Act::Create { device, task: task.clone(), config: true });
                return self.commands(chance, at, device, &task);
            }
            Kind::Crossed => {
                let task = format!("x{}", n + 1);
                self.push(at, Act::Create { device, task: task.clone(), config: true });
                let command = |action| Act::Command { device, action, task: Some(task.clone()) };
                let begins = at + draw::scaled_span(chance, 500, 8_000);
                self.push(at + Duration::from_millis(200), command(Action::Config));
                self.push(begins, command(Action::Begin));
                let soon = begins + Duration::from_millis(*chance.pick(&[0, 1, 4, 15, 60]));
                return self.push(soon, Act::Cancel { task, site });
            }
            Kind::Crowd if self.crowds.len() < 2 => return self.crowd(chance, at, device),
            Kind::Crowd => Act::Refresh { device, max_age: Duration::ZERO },
        };
        self.push(at, act);
    }

    fn push(&mut self, at: Duration, act: Act) {
        self.steps.push(Step { at: at.min(self.stage.chaos), act });
    }

    fn command(&self, chance: &mut Stream, device: usize, story: Option<&Story>) -> Act {
        let action = *chance.pick(&self.actions);
        let task = (!chance.one_in(8)).then(|| self.task(chance, story));
        Act::Command { device, action, task }
    }

    /// The task at hand; else some task, a later attempt, or one that nobody knows.
    fn task(&self, chance: &mut Stream, story: Option<&Story>) -> String {
        let some = match story {
            Some(story) if !chance.one_in(6) => story.task.clone(),
            _ if self.stories.is_empty() => "t1".to_string(),
            _ => chance.pick(self.stories).task.clone(),
        };
        match chance.below(16) {
            0 => "nobody".to_string(),
            1 | 2 => format!("{some}.2"),
            _ => some,
        }
    }

    /// A recording is dropped and made anew, mostly as a second attempt: what the first one left may still come.
    fn again(&mut self, chance: &mut Stream, at: Duration, device: usize, task: &str) {
        let site = self.stage.devices[device].site;
        let drop = if chance.one_in(4) {
            Act::Cancel { task: task.to_string(), site }
        } else {
            Act::Command { device, action: Action::Cancel, task: Some(task.to_string()) }
        };
        self.push(at, drop);
        self.commands(chance, at, device, task);
    }

    /// Somebody records step by step, with a gap between that the site may find too short or the device too long.
    fn commands(&mut self, chance: &mut Stream, from: Duration, device: usize, task: &str) {
        let mut at = from;
        for action in [Action::Config, Action::Begin, Action::Finish] {
            at += draw::scaled_span(chance, 20, 8_000);
            self.push(at, Act::Command { device, action, task: Some(task.to_string()) });
        }
        let site = self.stage.devices[device].site;
        at += draw::scaled_span(chance, 1_000, 30_000);
        self.push(at, Act::Judge { task: task.to_string(), site, approve: true });
        self.push(at + Duration::from_secs(1), Act::Sync { task: Some(task.to_string()), site });
    }

    /// Dashboards and scripts that all ask one recorder at once: more than may wait for one link.
    fn crowd(&mut self, chance: &mut Stream, at: Duration, device: usize) {
        self.crowds.push((at, device));
        let stats = chance.one_in(2);
        let crowd = chance.between(20, 90);
        let spread = *chance.pick(&[20, 200, 1_500]);
        for _ in 0..crowd {
            let when = at + draw::span(chance, 0, spread);
            let act = if stats {
                Act::Command { device, action: Action::GetStats, task: None }
            } else {
                Act::Refresh { device, max_age: Duration::ZERO }
            };
            self.push(when, act);
        }
    }
}
