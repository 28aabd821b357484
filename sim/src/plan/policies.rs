//! What happens to policies in a plan: one seed in four has people who bring modules of all kinds, and hosts that do not
//! answer. Draws from streams of its own, so that all other seeds, and everything else in these, stay as they are.

use std::time::Duration;

use tidegate_core::knobs::Knobs;
use tidegate_core::policy::{Known, LinkKind, Slot};

use super::faults::Temper;
use super::workload::{Story, moment};
use super::{HOUR, MINUTE, Pace, Shape, Stage, draw};
use crate::scenario::{
    Act, Conduct, Deed, Fault, FaultSpec, Lasts, ModuleSpec, ObjectPoint, Step, Store, When,
};
use crate::stream::Stream;

/// What is ejected sooner or later, if it is asked; what is late now and then takes longest.
const FAILING: [Conduct; 8] = [
    Conduct::Trap,
    Conduct::Flaky,
    Conduct::Loop,
    Conduct::Bomb,
    Conduct::Garbled,
    Conduct::Late,
    Conduct::Late,
    Conduct::Idle,
];

/// Ways to the cloud.
const LINKS: [LinkKind; 7] = [
    LinkKind::Unknown,
    LinkKind::None,
    LinkKind::Ethernet,
    LinkKind::Wifi,
    LinkKind::Cellular,
    LinkKind::Satellite,
    LinkKind::Other,
];

/// What the policies of a seed are about.
#[derive(Clone, Debug)]
pub(super) struct Theme {
    conducts: Vec<Conduct>,
    slots: Vec<Slot>,
    /// Modules of a conduct: few of them come again and again.
    numbers: u64,
}

impl Theme {
    /// The theme of a seed, if it has one.
    pub(super) fn draw(seed: u64, shape: &Shape) -> Option<Theme> {
        let mut chance = Stream::new(seed, "plan/policies", 0);
        if shape.pace != Pace::Mixed || !chance.one_in(4) {
            return None;
        }
        let conducts = draw::subset(&mut chance, &Conduct::ALL);
        let slots = match chance.below(3) {
            0 => vec![Slot::Concurrency],
            1 => draw::subset(&mut chance, &Slot::ALL),
            _ => Slot::ALL.to_vec(),
        };
        Some(Theme { conducts, slots, numbers: chance.between(1, 4) })
    }

    fn module(&self, chance: &mut Stream) -> ModuleSpec {
        // What is sound is needed by everything else, something to go back to; and what fails is what it is about.
        let conduct = match chance.below(8) {
            0 | 1 => Conduct::Fair,
            2 | 3 => *chance.pick(&FAILING),
            _ => *chance.pick(&self.conducts),
        };
        ModuleSpec { conduct, n: u32::try_from(chance.between(1, self.numbers)).unwrap_or(1) }
    }

    /// The site's settings under this theme.
    pub(super) fn knobs(&self, seed: u64, site: usize, knobs: &mut Knobs) {
        let mut chance = Stream::new(seed, "plan/policies/knobs", site as u64);
        knobs.default_module = chance.one_in(2).then(|| ModuleSpec::DEFAULT.hash());
        knobs.policy_faults = *chance.pick(&[1, 2, 2, 3, 3, 5]);
        knobs.policy_window_ms = *chance.pick(&[10_000, MINUTE, 10 * MINUTE, HOUR]);
        knobs.probation_ms = *chance.pick(&[1_000, 10_000, MINUTE, 10 * MINUTE]);
        knobs.patience_ms = *chance.pick(&[MINUTE, 5 * MINUTE, 10 * MINUTE, HOUR]);
        if self.has(Conduct::Absurd) {
            // A job may wait for a day, and a day has many seconds.
            knobs.scan_every_ms = knobs.scan_every_ms.max(MINUTE);
            knobs.request_again_ms = knobs.request_again_ms.max(MINUTE);
        }
    }

    fn has(&self, conduct: Conduct) -> bool {
        self.conducts.contains(&conduct)
    }

    /// How much longer everything may take: modules that let nothing begin until their time is up, one after the other,
    /// and waits of a day.
    pub(super) fn slower(&self, knobs: &Knobs) -> Duration {
        let idle = Duration::from_millis(knobs.patience_ms + 2 * HOUR) * 4;
        if self.has(Conduct::Absurd) { idle + Duration::from_millis(26 * HOUR) } else { idle }
    }

    /// What people do with policies.
    pub(super) fn steps(&self, stage: &Stage<'_>, stories: &[Story]) -> Vec<Step> {
        let mut chance = stage.stream("plan/policies/steps", 0);
        let count = *chance.pick(&[0, 1, 2, 3, 5, 8]);
        (0..count)
            .map(|n| {
                let mut chance = stage.stream("plan/policies/step", n);
                let (at, _) = moment(stage, stories, &mut chance, &[3, 4]);
                let site = draw::index(&mut chance, stage.sites.len());
                let deed = match chance.below(6) {
                    0 => Deed::Unquarantine,
                    1 => Deed::Back,
                    _ => *chance.pick(&Deed::ALL),
                };
                let slot = *chance.pick(&self.slots);
                let module = chance.one_in(2).then(|| self.module(&mut chance));
                Step { at, act: Act::Policy { site, deed, slot, module } }
            })
            .collect()
    }

    /// What goes wrong with policies.
    pub(super) fn faults(&self, stage: &Stage<'_>, stories: &[Story], temper: &Temper) -> Vec<FaultSpec> {
        let mut chance = stage.stream("plan/policies/faults", 0);
        let count = *chance.pick(&[1, 2, 2, 3, 4, 6]);
        let mut all = Vec::new();
        for n in 0..count {
            let mut chance = stage.stream("plan/policies/fault", n);
            self.one(stage, stories, temper, &mut chance, &mut all);
        }
        // Retries are asked about where data fail.
        if stage.shape.dishonest && chance.one_in(3) {
            let (at, story) = moment(stage, stories, &mut chance, &[4]);
            let site = story.map_or(0, |story| story.site);
            let fault =
                Fault::Misrouted { store: Store::Cloud(site), permille: temper.permille(&mut chance) };
            let lasts = Lasts::For(temper.dwell(stage, &mut chance).min(Duration::from_secs(600)));
            all.push(FaultSpec { when: When::At(at), lasts, fault });
        }
        self.around(stage, stories, &mut all);
        all
    }

    /// What surrounds sites turns: at any time, and while uploads crawl.
    fn around(&self, stage: &Stage<'_>, stories: &[Story], all: &mut Vec<FaultSpec>) {
        let mut chance = stage.stream("plan/policies/around", 0);
        let once = |at, fault| FaultSpec { when: When::At(at), lasts: Lasts::For(Duration::ZERO), fault };
        let count = *chance.pick(&[0, 0, 1, 2, 4]);
        let crawls = self.slots.contains(&Slot::Bandwidth) && chance.one_in(3);
        for n in 0..count + usize::from(crawls) {
            let (at, story) = moment(stage, stories, &mut chance, &[3, 4]);
            let site = story.map_or_else(|| draw::index(&mut chance, stage.sites.len()), |story| story.site);
            let mut least = 1;
            if n == count {
                let number = u32::try_from(chance.between(1, self.numbers)).unwrap_or(1);
                let module = ModuleSpec { conduct: Conduct::Idle, n: number };
                let begins = at.saturating_sub(draw::scaled_span(&mut chance, 10, 2 * MINUTE));
                all.push(once(begins, Fault::Install { site, slot: Slot::Bandwidth, module }));
                // Longer than any rest after a failure, so that it is the policy that keeps them waiting.
                least = MINUTE;
            }
            let at = (at + draw::scaled_span(&mut chance, least, 20 * MINUTE)).min(stage.chaos);
            let link = *chance.pick(&LINKS);
            let metered = *chance.pick(&[Known::Unknown, Known::No, Known::Yes]);
            all.push(once(at, Fault::Surroundings { site, link, metered }));
        }
    }

    fn one(
        &self,
        stage: &Stage<'_>,
        stories: &[Story],
        temper: &Temper,
        chance: &mut Stream,
        all: &mut Vec<FaultSpec>,
    ) {
        let (at, story) = moment(stage, stories, chance, &[2, 3, 4]);
        let site = story.map_or_else(|| draw::index(chance, stage.sites.len()), |story| story.site);
        let slot = *chance.pick(&self.slots);
        let once = |at, fault| FaultSpec { when: When::At(at), lasts: Lasts::For(Duration::ZERO), fault };
        let module = self.module(chance);
        // Before there is something to decide more often than in the middle of it.
        let begins = at.saturating_sub(draw::scaled_span(chance, 10, 120_000));
        all.push(once(begins, Fault::Install { site, slot, module }));
        let down = draw::scaled_span(chance, 50, 20_000);
        if FAILING.contains(&module.conduct) && chance.one_in(3) {
            // Between one fault and the next.
            let after = (at + draw::scaled_span(chance, 1_000, 60_000)).min(stage.chaos);
            all.push(once(after, Fault::Kill { site, keep: temper.keep(chance), down }));
        }
        match chance.below(8) {
            0 => {
                let every = draw::scaled_span(chance, 20, 400);
                let lasts = Lasts::For(draw::scaled_span(chance, 500, 6_000));
                all.push(FaultSpec {
                    when: When::At(at),
                    lasts,
                    fault: Fault::SwapStorm { site, slot, every },
                });
            }
            1 => {
                // Nobody notices before a process starts.
                all.push(once(at, Fault::Rot { site, slot }));
                let after = (at + draw::scaled_span(chance, 1, 30_000)).min(stage.chaos);
                all.push(once(after, Fault::Kill { site, keep: temper.keep(chance), down }));
            }
            2 => {
                let by = draw::scaled_span(chance, 10, 20_000);
                let permille = *chance.pick(&[0, 100, 500, 1_000]);
                let lasts = Lasts::For(temper.dwell(stage, chance).min(Duration::from_secs(600)));
                let fault = Fault::HostSlow { site, by, permille };
                all.push(FaultSpec { when: When::At(begins), lasts, fault });
            }
            3 | 4 => {
                let n = u32::try_from(draw::scaled(chance, 1, 12)).unwrap_or(1);
                let point = *chance.pick(&[ObjectPoint::Asked, ObjectPoint::Applied, ObjectPoint::Answered]);
                let fault = Fault::Kill { site, keep: temper.keep(chance), down };
                let lasts = Lasts::For(Duration::ZERO);
                all.push(FaultSpec { when: When::Policy { site, n, point }, lasts, fault });
            }
            5 => {
                let after = (at + draw::scaled_span(chance, 1, 60_000)).min(stage.chaos);
                all.push(once(after, Fault::Kill { site, keep: temper.keep(chance), down }));
            }
            _ => {}
        }
    }
}
