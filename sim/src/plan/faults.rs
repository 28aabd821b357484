//! What goes wrong in a plan: kinds, strengths and rates redrawn per seed, half of it aimed at recordings. A share of
//! seeds has no faults at all, and about half have only what honest machines do to each other, because lies and tampering
//! weaken what can be demanded.

use std::time::Duration;

use tidegate_core::id::Role;

use super::policies::Theme;
use super::workload::{STAGES, Story, moment};
use super::{DAY, HOUR, Stage, draw, incident};
use crate::scenario::{
    CommitPoint, Fault, FaultSpec, Keep, Lasts, Lie, ObjectPoint, Ops, Path, Store, Way, When,
};
use crate::stream::Stream;

/// Kinds of faults that a seed may have, in the order of the catalogue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Slow,
    Hold,
    Cut,
    PowerOff,
    Reset,
    Refuse,
    Replay,
    Kill,
    PowerLoss,
    Pause,
    Step,
    Drift,
    DiskFails,
    DiskSlow,
    Throttle,
    Broken,
    Expired,
    Skewed,
    LoseAnswers,
    LoseRequests,
    Outage,
    Lifecycle,
    Crash,
    Overwrite,
    Copy,
    Misrouted,
    Delete,
    Twin,
    Lie,
}

const HONEST: [Kind; 23] = [
    Kind::Slow,
    Kind::Hold,
    Kind::Cut,
    Kind::PowerOff,
    Kind::Reset,
    Kind::Refuse,
    Kind::Replay,
    Kind::Kill,
    Kind::PowerLoss,
    Kind::Pause,
    Kind::Step,
    Kind::Drift,
    Kind::DiskFails,
    Kind::DiskSlow,
    Kind::Throttle,
    Kind::Broken,
    Kind::Expired,
    Kind::Skewed,
    Kind::LoseAnswers,
    Kind::LoseRequests,
    Kind::Outage,
    Kind::Lifecycle,
    Kind::Crash,
];

/// What a seed has: how strong, how long, of which kinds.
pub(super) struct Temper {
    kinds: Vec<Kind>,
    lies: Vec<Lie>,
    keeps: Vec<Keep>,
    dwell: Duration,
    slow_ms: u64,
    permille: u64,
    step_ms: u64,
    drift_ppm: u64,
    /// Of a thousand faults that could be for ever.
    forever: u64,
    honest: bool,
}

/// The faults of a plan.
pub(super) fn faults(
    stage: &Stage<'_>,
    stories: &[Story],
    crowds: &[(Duration, usize)],
    theme: Option<&Theme>,
) -> Vec<FaultSpec> {
    let mut chance = stage.stream("plan/faults", 0);
    if !stage.shape.faults || chance.one_in(16) {
        return Vec::new();
    }
    let temper = Temper::draw(stage, &mut chance);
    let few = *chance.pick(&[0, 1, 1, 2, 2, 3, 4, 6, 8, 12]);
    // Days have room for more.
    let count = if stage.chaos > Duration::from_millis(6 * HOUR) { few * 3 } else { few };
    let incidents = *chance.pick(&[0, 0, 1, 1, 1, 2]);
    let mut all: Vec<FaultSpec> = (0..count)
        .map(|n| {
            let mut chance = stage.stream("plan/fault", n);
            one(stage, stories, &temper, &mut chance)
        })
        .collect();
    for n in 0..incidents {
        let mut chance = stage.stream("plan/incident", n);
        incident::happen(stage, stories, crowds, &temper, &mut chance, &mut all);
    }
    let mut chance = stage.stream("plan/tampering", 0);
    if !temper.honest && !chance.one_in(3) {
        incident::tamper(stage, stories, &mut chance, &mut all);
    }
    if let Some(theme) = theme {
        all.extend(theme.faults(stage, stories, &temper));
    }
    if all.is_empty() {
        all.push(one(stage, stories, &temper, &mut stage.stream("plan/fault", 0)));
    }
    near(&mut all);
    all
}

/// Keeps wall clocks within thirty years of the truth: nobody's clock says 1960.
fn near(all: &mut Vec<FaultSpec>) {
    const FAR_MS: i64 = 30 * 365 * 24 * 3_600_000;
    all.sort_by_key(|spec| spec.when.rank());
    let mut off = [0_i64; 2];
    all.retain(|spec| match spec.fault {
        Fault::Step { site, by_ms } => {
            let (low, high) = (-FAR_MS, FAR_MS);
            let near = (low..=high).contains(&(off[site] + by_ms));
            off[site] += if near { by_ms } else { 0 };
            near
        }
        _ => true,
    });
}

impl Temper {
    fn draw(stage: &Stage<'_>, chance: &mut Stream) -> Temper {
        let mut kinds = draw::subset(chance, &HONEST);
        let honest = !stage.shape.dishonest || chance.one_in(8);
        if !honest {
            // Each makes the others rarer, so they come in ones and twos.
            let rare = [
                (Kind::Lie, 4),
                (Kind::Twin, 8),
                (Kind::Overwrite, 8),
                (Kind::Delete, 12),
                (Kind::Copy, 12),
                (Kind::Misrouted, 6),
            ];
            for (kind, one_in) in rare {
                if chance.one_in(one_in) {
                    // A kind among many would hardly be drawn.
                    let share = kinds.len() / 2 + 1;
                    kinds.resize(kinds.len() + share, kind);
                }
            }
        }
        // Waits that only a failed attempt begins.
        if stage.shape.dishonest && stage.sites.iter().any(|site| site.knobs.builtin.retry_cap_ms > DAY) {
            let share = kinds.len() + 1;
            kinds.resize(kinds.len() + share, Kind::Misrouted);
        }
        let longest = draw::millis(stage.chaos / 4).max(1_000);
        Temper {
            kinds,
            lies: draw::subset(chance, &Lie::ALL),
            keeps: draw::subset(chance, &[Keep::Nothing, Keep::Prefix, Keep::Subset]),
            dwell: draw::scaled_span(chance, 300, longest),
            slow_ms: draw::scaled(chance, 10, 30_000),
            permille: *chance.pick(&[20, 100, 300, 700, 1_000]),
            step_ms: draw::scaled(chance, 10, 3 * DAY),
            drift_ppm: draw::scaled(chance, 50, 200_000),
            forever: *chance.pick(&[0, 0, 0, 250]),
            honest,
        }
    }

    /// How long one lasts.
    pub(super) fn dwell(&self, stage: &Stage<'_>, chance: &mut Stream) -> Duration {
        draw::tail(chance, self.dwell, stage.chaos)
    }

    /// What survives a crash.
    pub(super) fn keep(&self, chance: &mut Stream) -> Keep {
        *chance.pick(&self.keeps)
    }

    /// How many requests of a thousand.
    pub(super) fn permille(&self, chance: &mut Stream) -> u32 {
        let drawn = chance.between(self.permille / 2, self.permille).max(1);
        u32::try_from(drawn).unwrap_or(1_000)
    }

    fn lasts(&self, stage: &Stage<'_>, chance: &mut Stream, kind: Kind) -> Lasts {
        let ever = !matches!(kind, Kind::Pause | Kind::Twin);
        let span = self.dwell(stage, chance);
        match chance.below(1_000) {
            n if ever && n < self.forever => Lasts::Forever,
            n if ever && n >= 920 => Lasts::Chaos,
            // What keeps everything busy, or still, is over before the rest of a long day.
            _ if ever => Lasts::For(span),
            _ => Lasts::For(span.min(Duration::from_secs(300))),
        }
    }
}

/// One fault.
fn one(stage: &Stage<'_>, stories: &[Story], temper: &Temper, chance: &mut Stream) -> FaultSpec {
    let kind = *chance.pick(&temper.kinds);
    let (at, story) = moment(stage, stories, chance, stages(kind));
    let device = story.map_or_else(|| draw::index(chance, stage.devices.len()), |story| story.device);
    let site = stage.devices[device].site;
    let fault = what(stage, stories, temper, chance, kind, device, story);
    let lasts =
        if fault.is_momentary() { Lasts::For(Duration::ZERO) } else { temper.lasts(stage, chance, kind) };
    let when = match kind {
        Kind::Kill | Kind::PowerLoss | Kind::DiskFails => match chance.below(8) {
            0..=3 => When::At(at),
            4..=6 => commit(chance, stories, site),
            _ => object(chance, stories, site),
        },
        // At the very operation that it is about.
        Kind::Throttle
        | Kind::Broken
        | Kind::Expired
        | Kind::LoseAnswers
        | Kind::LoseRequests
        | Kind::Outage
        | Kind::Lifecycle
        | Kind::Misrouted
        | Kind::Overwrite
        | Kind::Copy
        | Kind::Delete
        | Kind::Cut
        | Kind::Reset
            if chance.one_in(match kind {
                Kind::Overwrite | Kind::Copy => 2,
                _ => 6,
            }) =>
        {
            object(chance, stories, site)
        }
        _ => When::At(at),
    };
    FaultSpec { when, lasts, fault }
}

/// The stages of a recording in which it is most likely to matter.
fn stages(kind: Kind) -> &'static [usize] {
    match kind {
        Kind::Throttle
        | Kind::Broken
        | Kind::Expired
        | Kind::Skewed
        | Kind::LoseAnswers
        | Kind::LoseRequests
        | Kind::Outage
        | Kind::Misrouted
        | Kind::Lifecycle => &[2, 4, 4],
        Kind::Copy => &[4],
        Kind::Overwrite | Kind::Delete => &[3, 4, 5],
        Kind::Replay | Kind::Crash | Kind::PowerOff | Kind::Twin | Kind::Lie => &[0, 1, 2],
        Kind::Slow
        | Kind::Hold
        | Kind::Cut
        | Kind::Reset
        | Kind::Refuse
        | Kind::Kill
        | Kind::PowerLoss
        | Kind::Pause
        | Kind::Step
        | Kind::Drift
        | Kind::DiskFails
        | Kind::DiskSlow => &STAGES,
    }
}

fn what(
    stage: &Stage<'_>,
    stories: &[Story],
    temper: &Temper,
    chance: &mut Stream,
    kind: Kind,
    device: usize,
    story: Option<&Story>,
) -> Fault {
    let site = stage.devices[device].site;
    let store = if chance.one_in(4) { Store::Edge(site) } else { Store::Cloud(site) };
    let role = if chance.one_in(2) { Role::Recorder } else { Role::Transfer };
    let down = draw::scaled_span(chance, 50, 60_000);
    match kind {
        Kind::Slow => Fault::Slow {
            path: path(chance, device, site),
            by: draw::span(chance, temper.slow_ms / 2, temper.slow_ms),
        },
        Kind::Hold => Fault::Hold { path: path(chance, device, site) },
        Kind::Cut => Fault::Cut {
            path: path(chance, device, site),
            way: *chance.pick(&[Way::Both, Way::Both, Way::Up, Way::Down]),
        },
        Kind::PowerOff => Fault::PowerOff { device },
        Kind::Reset => Fault::Reset { path: path(chance, device, site) },
        Kind::Refuse => Fault::Refuse { path: path(chance, device, site) },
        Kind::Replay => {
            Fault::Replay { device, role, count: u32::try_from(chance.between(1, 24)).unwrap_or(1) }
        }
        Kind::Kill => Fault::Kill { site, keep: temper.keep(chance), down },
        Kind::PowerLoss => Fault::PowerLoss { site, keep: temper.keep(chance), down },
        Kind::Pause => Fault::Pause { site },
        Kind::Step => Fault::Step { site, by_ms: step(chance, temper.step_ms) },
        Kind::Drift => Fault::Drift { site, ppm: signed(chance, temper.drift_ppm) },
        Kind::DiskFails => Fault::DiskFails { site, down },
        Kind::DiskSlow => {
            Fault::DiskSlow { site, by: draw::span(chance, temper.slow_ms / 2, temper.slow_ms) }
        }
        Kind::Throttle => Fault::Throttle { store, permille: temper.permille(chance) },
        Kind::Broken => Fault::Broken { store, permille: temper.permille(chance) },
        Kind::Misrouted => Fault::Misrouted { store, permille: temper.permille(chance) },
        Kind::Expired => Fault::Expired { store },
        Kind::Skewed => Fault::Skewed { store },
        Kind::LoseAnswers => {
            Fault::LoseAnswers { store, ops: ops(chance), permille: temper.permille(chance) }
        }
        Kind::LoseRequests => {
            Fault::LoseRequests { store, ops: ops(chance), permille: temper.permille(chance) }
        }
        Kind::Outage => Fault::Outage { store },
        Kind::Lifecycle => Fault::Lifecycle { store: Store::Cloud(site) },
        Kind::Overwrite => Fault::Overwrite {
            store: if chance.one_in(2) { Store::Edge(site) } else { store },
            task: task(chance, stories, story),
        },
        Kind::Copy => Fault::Copy { store: Store::Cloud(site), task: task(chance, stories, story) },
        Kind::Delete => Fault::Delete { store, task: task(chance, stories, story) },
        Kind::Crash => Fault::Crash { device, role },
        Kind::Twin => Fault::Twin { device, role, same_address: false },
        Kind::Lie => Fault::Lie { device, lie: lie(chance, &temper.lies) },
    }
}

fn path(chance: &mut Stream, device: usize, site: usize) -> Path {
    match chance.below(8) {
        0 | 1 => Path::Link(device, Role::Recorder),
        2 => Path::Link(device, Role::Transfer),
        3 | 4 => Path::Device(device),
        5 => Path::Site(site),
        _ => Path::Cloud(site),
    }
}

fn ops(chance: &mut Stream) -> Ops {
    *chance.pick(&[Ops::Any, Ops::Create, Ops::Put, Ops::Complete, Ops::Complete, Ops::Look, Ops::Remove])
}

fn task(chance: &mut Stream, stories: &[Story], story: Option<&Story>) -> String {
    match story {
        Some(story) => story.task.clone(),
        None if stories.is_empty() => "t1".to_string(),
        None => chance.pick(stories).task.clone(),
    }
}

/// A commit that a site is likely to reach: each recording makes a few dozen.
pub(super) fn commit(chance: &mut Stream, stories: &[Story], site: usize) -> When {
    let own = stories.iter().filter(|story| story.site == site).count() as u64;
    let n = draw::scaled(chance, 1, 8 + own * 40);
    let point = *chance.pick(&[CommitPoint::Torn, CommitPoint::Durable, CommitPoint::Released]);
    When::Commit { site, n: number(n), point }
}

/// An operation on the cloud that a site is likely to reach: its recordings' parts, and some before and after.
pub(super) fn object(chance: &mut Stream, stories: &[Story], site: usize) -> When {
    let own: u64 = stories.iter().filter(|story| story.site == site).map(|story| story.parts + 8).sum();
    let n = chance.between(1, own.max(2));
    let point = *chance.pick(&[ObjectPoint::Asked, ObjectPoint::Applied, ObjectPoint::Answered]);
    When::Object { site, n: number(n), point }
}

/// A step of a clock either way; sometimes a machine that woke up without any idea of the year.
pub(super) fn step(chance: &mut Stream, about_ms: u64) -> i64 {
    const YEARS_MS: i64 = 20 * 365 * 24 * 3_600_000;
    match chance.below(24) {
        0 => -YEARS_MS,
        1 => YEARS_MS,
        _ => signed(chance, about_ms),
    }
}

fn signed(chance: &mut Stream, about: u64) -> i64 {
    let size = i64::try_from(chance.between(about / 2, about)).unwrap_or(i64::MAX);
    if chance.one_in(2) { -size } else { size }
}

fn number(n: u64) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// One of these. What is said of a recording without a word of evidence is said three times as often: only there do the
/// site's own questions decide.
fn lie(chance: &mut Stream, lies: &[Lie]) -> Lie {
    let vague = lies.contains(&Lie::SilentComplete) && chance.one_in(6);
    if vague { Lie::SilentComplete } else { *chance.pick(lies) }
}
