//! What a whole machine tells policies of its surroundings, and which approved episodes it asks about, whatever they answer.
#![allow(clippy::unwrap_used, reason = "a test fails by it, at the right line")]

use std::boxed::Box;
use std::collections::{BTreeMap, BTreeSet};
use std::format;
use std::slice;
use std::vec;
use std::vec::Vec;

use proptest::prelude::*;

use crate::change::{Change, JobChange};
use crate::digest::Sha256;
use crate::effect::Output;
use crate::id::{Boot, DeviceId, EpisodeId, ObjectKey, RequestId, TaskId, WireId};
use crate::input::{Input, PolicyRequest, Request};
use crate::knobs::Knobs;
use crate::labels::LabelRule;
use crate::limits;
use crate::machine::{Machine, Rows};
use crate::policy::{
    Author, Bandwidth, Binding, Builtin, Candidate, Choice, Chosen, DISK_UNKNOWN, Known, LinkKind,
    ModuleFacts, Ordering, Policies, PolicyFault, PolicySet, Power, RetryQuery, RetryVerdict, Ruling, Seat,
    Situation, Slot, Surroundings, UploadLimits, Verdict, Waiting,
};
use crate::row::{
    EpisodeRow, Inspection, Key, MetaRow, ModuleRow, ModuleState, PolicyRow, Qa, Row, SyncMark, Turn,
    TurnWhat,
};
use crate::time::{Mono, Now, Wall};
use crate::world_tests::Wild;

const DAY_MS: u64 = 24 * 3_600_000;
/// A Monday, midnight in UTC.
const MONDAY: i64 = 1_795_392_000_000;

type Select = Box<dyn FnMut(&[Candidate]) -> Vec<Chosen>>;

/// The built-in rules, with answers of a test in their place, and what they were asked.
struct Asked {
    floor: Builtin,
    select: Option<Select>,
    uploads: Option<u32>,
    instead: Option<Wild>,
    by: Option<Author>,
    situations: Vec<Situation>,
    shown: Vec<Vec<u64>>,
}

impl Policies for Asked {
    fn select(&mut self, situation: &Situation, candidates: &[Candidate]) -> Ruling<Vec<Chosen>> {
        self.situations.push(situation.clone());
        self.shown.push(candidates.iter().map(|candidate| candidate.episode).collect());
        if let Some(wild) = &mut self.instead {
            return wild.select(situation, candidates);
        }
        let mut ruling = self.floor.select(situation, candidates);
        if let Some(select) = &mut self.select {
            ruling.verdict = select(candidates);
        }
        if let Some(by) = &self.by {
            ruling.by = by.clone();
        }
        ruling
    }
    fn retry(&mut self, query: &RetryQuery) -> Ruling<RetryVerdict> {
        self.floor.retry(query)
    }
    fn limits(&mut self, situation: &Situation) -> Ruling<UploadLimits> {
        self.situations.push(situation.clone());
        let mut ruling = self.floor.limits(situation);
        if let Some(uploads) = self.uploads {
            ruling.verdict = UploadLimits { uploads, recheck_ms: u64::MAX, memo: 0, reason: 0 };
        }
        ruling
    }
    fn budget(&mut self, situation: &Situation) -> Ruling<Bandwidth> {
        self.floor.budget(situation)
    }
    fn score(&mut self, situation: &Situation, waiting: &[Waiting]) -> Ruling<Ordering> {
        self.floor.score(situation, waiting)
    }
}

/// A site that holds approved episodes and nothing else.
struct Site {
    machine: Machine,
    policies: Asked,
    knobs: Knobs,
    now: Now,
    out: Output,
    requests: u64,
    queued: BTreeSet<u64>,
}

fn approved(n: u64) -> EpisodeRow {
    EpisodeRow {
        id: EpisodeId(n),
        public_id: format!("e{n}"),
        device: DeviceId::new(if n.is_multiple_of(2) { "arm-1" } else { "leg-1" }).unwrap(),
        task: TaskId::new(&format!("t{n}")).unwrap(),
        wire: WireId::new(&format!("t{n}")).unwrap(),
        key: ObjectKey::new(&format!("d/t{n}.mcap")).unwrap(),
        sidecar: None,
        len: n,
        sha256: Sha256([1; 32]),
        recorded_at: None,
        duration_ms: None,
        messages: None,
        ingested_at: Wall(MONDAY - 1),
        qa: Qa::Approved,
        qa_reason: None,
        // Some at one and the same moment.
        qa_at: Some(Wall(MONDAY - 1_000_000 + i64::try_from(n / 3).unwrap())),
        sync: SyncMark::NotStarted,
        late: false,
        removed_at: None,
        recorder_version: None,
        inspection: Some(Inspection { at: Wall(MONDAY), doubt: None, facts: None }),
        tries: u32::try_from(n % 5).unwrap(),
    }
}

fn all(choice: Choice) -> Option<Select> {
    Some(Box::new(move |shown: &[Candidate]| vec![Chosen { choice, reason: 0 }; shown.len()]))
}

impl Site {
    fn with(episodes: u64, change: impl FnOnce(&mut Knobs)) -> Site {
        let mut knobs = Knobs::default();
        change(&mut knobs);
        let mut machine = Machine::new();
        machine.load(&Key::Meta, Row::Meta(MetaRow { next_episode: episodes + 1, ..MetaRow::default() }));
        for n in 1..=episodes {
            machine.load(&Key::Episode(EpisodeId(n)), Row::Episode(approved(n)));
        }
        let policies = Asked {
            floor: Builtin::new(knobs.builtin.clone()),
            select: None,
            uploads: None,
            instead: None,
            by: None,
            situations: vec![],
            shown: vec![],
        };
        let now = Now { wall: Wall(MONDAY), mono: Mono(5) };
        let (out, queued) = (Output::default(), BTreeSet::new());
        let mut site = Site { machine, policies, knobs, now, out, requests: 0, queued };
        site.boot(1);
        site
    }

    fn boot(&mut self, n: u64) {
        self.input(&Input::Boot { boot: Boot(n), seed: n, knobs: self.knobs.clone() });
    }

    fn input(&mut self, input: &Input) {
        self.out = Output::default();
        self.machine.step(self.now, input, &Rows::new(), &mut self.policies, &mut self.out);
        for change in &self.out.changes {
            if let Change::Job(JobChange::Queued(row)) = change {
                assert!(self.queued.insert(row.episode.0), "episode {} is queued once", row.episode);
            }
        }
    }

    fn ask(&mut self, request: Request) {
        self.requests += 1;
        self.input(&Input::Request { id: RequestId(self.requests), request });
    }

    fn pass(&mut self, ms: u64) {
        self.now.mono = Mono(self.now.mono.0 + ms * 1_000_000);
        self.now.wall = Wall(self.now.wall.0 + i64::try_from(ms).unwrap());
    }

    /// The time of the next scan comes; whom the policy was shown.
    fn scan(&mut self) -> Vec<u64> {
        let before = self.policies.shown.len();
        self.pass(self.knobs.scan_every_ms);
        self.input(&Input::Wake);
        self.policies.shown[before..].iter().flatten().copied().collect()
    }

    fn overruled(&self) -> bool {
        let by = Author::Builtin { instead_of: self.machine.active_policy(), why: PolicyFault::Stalled };
        let overruled = self.out.decisions.iter().filter(|decision| decision.by == by).count();
        let told = self.machine.stats().facts.get("policy_stalled").copied().unwrap_or(0);
        assert!(overruled == 0 || told > 0, "it is said to whoever keeps the policies");
        overruled > 0
    }
}

#[test]
fn what_surrounds_the_site_is_in_every_question_until_the_next_boot() {
    let mut site = Site::with(1, |_| {});
    site.scan();
    let first = site.policies.situations.pop().unwrap();
    assert_eq!((first.link, first.metered, first.power), (LinkKind::Unknown, Known::Unknown, Power::Unknown));
    assert_eq!((first.minute_of_week, first.disk_free), (1, DISK_UNKNOWN));
    let around = Surroundings {
        link: LinkKind::Satellite,
        metered: Known::Yes,
        power: Power::BatteryLow,
        utc_offset_min: -120,
        disk_free: 33,
    };
    site.input(&Input::Surroundings(around));
    site.scan();
    let seen = site.policies.situations.pop().unwrap();
    assert_eq!((seen.link, seen.metered, seen.power), (LinkKind::Satellite, Known::Yes, Power::BatteryLow));
    assert_eq!((seen.minute_of_week, seen.disk_free), (7 * 1440 - 120 + 2, 33), "Sunday night");
    assert_ne!(seen.seed, first.seed);
    site.boot(2);
    site.scan();
    assert_eq!(site.policies.situations.pop().unwrap().link, LinkKind::Unknown);
}

#[test]
fn surroundings_survive_the_journal_and_a_word_that_nobody_knows_is_refused() {
    let links = [
        LinkKind::Unknown,
        LinkKind::None,
        LinkKind::Ethernet,
        LinkKind::Wifi,
        LinkKind::Cellular,
        LinkKind::Satellite,
        LinkKind::Other,
    ];
    for (n, link) in links.into_iter().enumerate() {
        let metered = [Known::Unknown, Known::No, Known::Yes][n % 3];
        let power = [Power::Unknown, Power::Mains, Power::Battery, Power::BatteryLow][n % 4];
        let around = Surroundings { link, metered, power, utc_offset_min: -720, disk_free: 1_001 };
        let input = Input::Surroundings(around);
        let bytes = minicbor::to_vec(&input).unwrap();
        assert_eq!(minicbor::decode::<Input>(&bytes).unwrap(), input);
    }
    let mut bytes = minicbor::to_vec(Surroundings::default()).unwrap();
    assert_eq!(bytes[..4], [0x85, 0, 0, 0]);
    bytes[1] = 7;
    assert!(minicbor::decode::<Surroundings>(&bytes).is_err());
}

#[test]
fn a_policy_is_asked_at_once_when_what_it_judges_by_turned() {
    let mut site = Site::with(1, |knobs| knobs.destination = true);
    site.policies.uploads = Some(0);
    site.ask(Request::Sync { episode: EpisodeId(1) });
    let asked = |site: &Site| site.policies.situations.len();
    assert_eq!(asked(&site), 1);
    let ethernet = Surroundings { link: LinkKind::Ethernet, ..Surroundings::default() };
    site.input(&Input::Surroundings(ethernet));
    assert_eq!((asked(&site), site.policies.situations[1].link), (2, LinkKind::Ethernet));
    site.input(&Input::Surroundings(Surroundings { disk_free: 5, ..ethernet }));
    assert_eq!(asked(&site), 2, "the disk fills by itself: no reason to ask");
    site.policies.uploads = Some(1);
    site.input(&Input::Surroundings(Surroundings { metered: Known::No, ..ethernet }));
    assert_eq!(site.machine.parts().queue.counts(site.now).uploading, 1);
}

#[test]
fn a_part_whose_turn_has_come_waits_for_the_word_of_whoever_rules_now() {
    let mut site = Site::with(2, |knobs| {
        knobs.destination = true;
        knobs.builtin.bytes_per_second = Some(1);
    });
    seated(&mut site, 0);
    for n in [1, 2] {
        site.ask(Request::Sync { episode: EpisodeId(n) });
        while let Some(ticket) = asked_of_cloud(&site) {
            let reply = crate::object::ObjectReply::Head(None);
            site.input(&Input::Object { ticket, outcome: crate::outcome::Outcome::Done(reply) });
        }
    }
    let turn = site.machine.next_wake().expect("one of them waits for its turn").0;
    site.pass(turn.0.saturating_sub(site.now.mono.0).div_ceil(1_000_000));
    let set = site.machine.active_policy();
    site.ask(Request::Policy(PolicyRequest::Quarantine { module: Sha256([2; 32]), reason: "odd".into() }));
    assert_ne!(site.machine.active_policy(), set);
    site.input(&Input::Wake);
    let ruled = |decision: &crate::policy::Decision| matches!(decision.verdict, Verdict::Bandwidth(_));
    assert!(site.out.decisions.iter().any(ruled), "{:?}", site.out.effects);
}

/// What the last step asked of the cloud and is answered with nothing being there.
fn asked_of_cloud(site: &Site) -> Option<crate::id::Ticket> {
    site.out.effects.iter().find_map(|effect| match effect {
        crate::effect::Effect::Object { ticket, op } if op.verb == crate::object::Verb::Head => Some(*ticket),
        _ => None,
    })
}

#[test]
fn a_decision_is_kept_whole_and_a_fault_is_told() {
    let rule = LabelRule { devices: "arm-*".into(), labels: vec![("fleet".into(), "b".into())] };
    let mut site = Site::with(3, |knobs| knobs.labels = vec![rule.clone()]);
    site.policies.select = Some(Box::new(|shown: &[Candidate]| {
        assert_eq!(shown.iter().map(|c| c.tries).collect::<Vec<_>>(), [1, 2, 3]);
        [1, 2, 2].map(|reason| Chosen { choice: Choice::Later, reason }).to_vec()
    }));
    site.scan();
    let decision = site.out.decisions.pop().unwrap();
    assert_eq!((decision.set, decision.module), (site.machine.active_policy(), None));
    assert_eq!((decision.enacted.as_str(), decision.clamped), ("enqueue 0 of 3", false));
    assert_eq!(decision.reason, "auto-scan-on", "of a list, the most frequent");
    assert!(matches!(decision.verdict, Verdict::AutoScan(chosen) if chosen.len() == 3));
    let crate::policy::Question::AutoScan(_, shown) = decision.question else { panic!("not a scan") };
    let labels: Vec<usize> = shown.iter().map(|candidate| candidate.labels.len()).collect();
    assert_eq!((labels, shown[1].labels.clone()), (vec![0, 1, 0], rule.labels));
    assert_eq!(site.machine.stats().facts.get("policy_faulted"), None);
    site.policies.select = None;
    let by = Author::Builtin { instead_of: site.machine.active_policy(), why: PolicyFault::Shape };
    site.policies.by = Some(by.clone());
    site.scan();
    assert_eq!((&site.out.decisions[0].by, &site.out.rulings[0].by), (&by, &by));
    assert_eq!(site.machine.stats().facts.get("policy_faulted"), Some(&1));
}

#[test]
fn an_answer_of_the_wrong_length_and_a_full_batch_are_clamped() {
    let mut site = Site::with(5, |knobs| knobs.batch = 2);
    let enqueue = Chosen { choice: Choice::Enqueue, reason: 0 };
    for (count, queued, enacted) in
        [(0, 0, "enqueue 0 of 5"), (1, 1, "enqueue 1 of 5"), (9, 3, "enqueue 2 of 4")]
    {
        site.policies.select = Some(Box::new(move |_: &[Candidate]| vec![enqueue; count]));
        site.scan();
        let decision = &site.out.decisions[0];
        assert_eq!((decision.enacted.as_str(), decision.clamped), (enacted, true));
        assert_eq!(site.queued.len(), queued, "{count}");
    }
}

#[test]
fn an_episode_that_is_skipped_is_not_shown_for_a_day_or_until_policies_or_its_judgement_change() {
    let mut site = Site::with(2, |_| {});
    site.policies.select = Some(Box::new(|shown: &[Candidate]| {
        let skip = |c: &Candidate| if c.episode == 1 { Choice::Skip } else { Choice::Later };
        shown.iter().map(|c| Chosen { choice: skip(c), reason: 0 }).collect()
    }));
    assert_eq!(site.scan(), [1, 2]);
    assert_eq!((site.scan(), site.scan()), (vec![2], vec![2]));
    site.pass(DAY_MS);
    assert_eq!((site.scan(), site.scan()), (vec![1, 2], vec![2]));
    for approve in [false, true] {
        site.ask(Request::Judge { episode: EpisodeId(1), approve, reason: None });
    }
    assert_eq!((site.scan().len(), site.scan()), (2, vec![2]), "it was judged anew");
    site.boot(2);
    assert_eq!((site.scan().len(), site.scan()), (2, vec![2]));
    // Other settings are another set.
    site.knobs.builtin.attempts = 9;
    site.policies.floor = Builtin::new(site.knobs.builtin.clone());
    site.boot(3);
    assert_eq!(site.scan().len(), 2);
    site.policies.select = all(Choice::Skip);
    site.scan();
    assert_eq!((site.scan(), site.scan()), (vec![], vec![]), "there is nobody to ask about");
}

#[test]
fn more_episodes_than_one_question_holds_take_turns() {
    let episodes = 2 * limits::CANDIDATES as u64 + 88;
    let mut site = Site::with(episodes, |_| {});
    site.policies.select = all(Choice::Later);
    let mut seen: BTreeMap<u64, u32> = BTreeMap::new();
    for _ in 0..6 {
        let shown = site.scan();
        assert_eq!(shown.len(), limits::CANDIDATES);
        for episode in shown {
            *seen.entry(episode).or_default() += 1;
        }
    }
    assert_eq!(seen.len() as u64, episodes, "none is never shown");
    assert!(seen.values().all(|count| (2..=4).contains(count)), "{seen:?}");
}

#[test]
fn what_found_the_batch_full_comes_first_next_time() {
    let mut site = Site::with(600, |knobs| knobs.batch = 50);
    site.policies.select = all(Choice::Enqueue);
    for n in 0..4 {
        let shown = site.scan();
        assert_eq!(shown[..2], [n * 50 + 1, n * 50 + 2], "the oldest approval first");
        assert_eq!(site.queued.len() as u64, (n + 1) * 50);
    }
}

#[test]
fn a_policy_that_puts_episodes_off_for_longer_than_a_week_is_overruled() {
    for choice in [Choice::Later, Choice::Skip] {
        let mut site = Site::with(3, |knobs| {
            knobs.builtin.auto_scan = true;
            knobs.scan_every_ms = 3_600_000;
        });
        site.policies.select = all(choice);
        let mut hours = 0;
        loop {
            site.scan();
            hours += 1;
            if site.overruled() {
                break;
            }
            assert!(site.queued.is_empty());
        }
        // The first scan put them off; a week later, or when they are shown again, it is enough.
        assert!((7 * 24 + 1..=8 * 24 + 1).contains(&hours), "{choice:?}: {hours}");
        assert_eq!(site.queued.len(), 3);
        let facts = &site.machine.stats().facts;
        assert_eq!(facts.get("policy_stalled"), Some(&1));
    }
}

/// Puts two modules into slots, the one that scans `days` ago.
fn seated(site: &mut Site, days: i64) {
    let bind = |n| Binding { module: Sha256([n; 32]), settings: vec![] };
    let (scans, retries) = ((Slot::AutoScan, bind(1)), (Slot::Retry, bind(2)));
    let at = Wall(MONDAY - days * i64::try_from(DAY_MS).unwrap());
    let turn = |generation, at, slots: &[(Slot, Binding)]| {
        let mut set = PolicySet::native(site.knobs.builtin.clone());
        for (slot, binding) in slots {
            set.seats[*slot as usize] = Seat::Module(binding.clone());
        }
        let (set, slots, slot) = (set.id(), slots.to_vec(), slots[slots.len() - 1].0);
        Turn { generation, at, set, what: TurnWhat::Activated { slot }, slots, floored: vec![] }
    };
    let history = vec![
        turn(1, Wall(at.0 - 9), slice::from_ref(&retries)),
        turn(2, at, slice::from_ref(&scans)),
        turn(3, Wall(MONDAY - 5), &[scans.clone(), retries.clone()]),
    ];
    for (slot, binding) in [&scans, &retries] {
        let facts = ModuleFacts {
            size: 9,
            name: "one".into(),
            version: "1".into(),
            summary: "one".into(),
            slots: vec![*slot],
            patience_ms: 0,
            signed_by: None,
        };
        let row = ModuleRow {
            facts: Some(facts),
            size: 9,
            state: ModuleState::Admitted,
            at,
            quarantined: None,
            last_used: at,
        };
        site.machine.load(&Key::Module(binding.module), Row::Module(Box::new(row)));
    }
    let row = PolicyRow {
        generation: 3,
        set: Some(history[2].set),
        slots: vec![scans, retries],
        history,
        ..PolicyRow::default()
    };
    site.machine.load(&Key::Policy, Row::Policy(Box::new(row)));
    site.boot(2);
    site.policies.select = all(Choice::Later);
}

/// Scans until the policy is overruled, at most so often; after how many hours.
fn overruled_in(site: &mut Site, hours: u64) -> Option<u64> {
    let stalled = |site: &Site| {
        let of = |by: &Author| matches!(by, Author::Builtin { why: PolicyFault::Stalled, .. });
        site.out.decisions.iter().any(|decision| of(&decision.by))
    };
    (1..=hours).find(|_| {
        site.scan();
        stalled(site)
    })
}

fn hourly(knobs: &mut Knobs) {
    knobs.builtin.auto_scan = true;
    knobs.scan_every_ms = 3_600_000;
}

#[test]
fn since_when_a_module_was_chosen_and_in_which_sets_follows_from_the_history() {
    let mut site = Site::with(1, hourly);
    seated(&mut site, 3);
    let active = site.machine.parts().policies.active();
    let day = i64::try_from(DAY_MS).unwrap();
    let since = [Some(Wall(MONDAY - 3 * day)), Some(Wall(MONDAY - 5)), None, None, None];
    assert_eq!(active.since, since, "from the last time that it came");
    let row = site.machine.parts().policies.policy_row().clone();
    let sets: BTreeSet<_> = active.retry_sets.iter().copied().collect();
    assert_eq!(sets, BTreeSet::from([row.history[0].set, row.history[2].set]));
    assert_eq!(active.seat(Slot::Order), &Seat::Floor);
}

#[test]
fn a_swap_in_another_slot_gives_a_policy_that_scans_no_new_time() {
    let mut site = Site::with(3, hourly);
    seated(&mut site, 0);
    assert_eq!(overruled_in(&mut site, 6 * 24), None);
    let set = site.machine.active_policy();
    site.ask(Request::Policy(PolicyRequest::Quarantine { module: Sha256([2; 32]), reason: "odd".into() }));
    assert_ne!(site.machine.active_policy(), set);
    assert_eq!(overruled_in(&mut site, 48), Some(24));
    let barred = |site: &Site| match site.machine.row(&Key::Module(Sha256([1; 32]))) {
        Some(Row::Module(row)) => row.quarantined.is_some(),
        other => panic!("{other:?}"),
    };
    assert!(barred(&site));
    assert_eq!(site.queued.len(), 3);
    assert!(site.machine.check().is_ok());
}

#[test]
fn a_restart_gives_a_policy_that_scans_a_day_and_no_new_week() {
    // It runs for so many days, and then is off for so many.
    for (runs, off) in [(6, 0), (3, 2), (0, 30)] {
        let mut site = Site::with(3, hourly);
        seated(&mut site, 0);
        assert_eq!(overruled_in(&mut site, runs * 24), None);
        site.pass(off * DAY_MS);
        site.boot(3);
        let left = (7 - (runs + off).min(6)) * 24;
        let hours = overruled_in(&mut site, 400).unwrap();
        assert!((left..=left + 1).contains(&hours), "{runs} and {off}: {hours}, not {left}");
    }
}

#[test]
fn what_was_approved_or_chosen_later_has_its_own_week_after_a_restart() {
    // The module came the other day.
    let mut site = Site::with(3, hourly);
    seated(&mut site, 0);
    site.pass(2 * DAY_MS);
    site.boot(3);
    let hours = overruled_in(&mut site, 400).unwrap();
    assert!((5 * 24..=5 * 24 + 1).contains(&hours), "{hours}");
    // It is older than the episodes, and they were judged an hour ago.
    let mut site = Site::with(1, hourly);
    seated(&mut site, 300);
    site.pass(20 * DAY_MS);
    for approve in [false, true] {
        site.ask(Request::Judge { episode: EpisodeId(1), approve, reason: None });
    }
    site.boot(3);
    let hours = overruled_in(&mut site, 400).unwrap();
    assert!((7 * 24..=7 * 24 + 1).contains(&hours), "{hours}");
}

#[test]
fn what_a_policy_wanted_and_found_no_room_was_not_put_off() {
    let mut site = Site::with(3, |knobs| {
        hourly(knobs);
        knobs.batch = 1;
    });
    seated(&mut site, 300);
    site.pass(20 * DAY_MS);
    site.boot(3);
    site.policies.select = all(Choice::Enqueue);
    site.scan();
    assert_eq!(site.queued.len(), 1);
    site.policies.select = all(Choice::Later);
    let hours = overruled_in(&mut site, 400).unwrap();
    assert!((7 * 24..=7 * 24 + 1).contains(&hours), "{hours}");
}

#[test]
fn what_the_built_in_rules_would_not_queue_may_be_put_off_for_ever() {
    let mut site = Site::with(3, |knobs| knobs.scan_every_ms = DAY_MS);
    site.policies.select = all(Choice::Later);
    for _ in 0..60 {
        assert_eq!(site.scan().len(), 3);
        assert!(!site.overruled());
    }
    assert_eq!(site.policies.situations.iter().filter(|seen| seen.memo != 0).count(), 0);
    assert!(site.machine.check().is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever a policy answers, each approved episode is queued at most once, and none is forgotten: once the built-in
    /// rules scan, every one that is left is queued.
    #[test]
    fn no_verdict_loses_an_episode(
        episodes in 1..700_u64,
        seed in any::<u64>(),
        batch in 1..300_u32,
        scans in 0..12_u32,
    ) {
        let mut site = Site::with(episodes, |knobs| {
            knobs.builtin.auto_scan = true;
            knobs.batch = batch;
        });
        site.input(&Input::Boot { boot: Boot(2), seed, knobs: site.knobs.clone() });
        site.policies.instead = Some(Wild(Builtin::new(site.knobs.builtin.clone())));
        for _ in 0..scans {
            prop_assert!(site.scan().len() <= limits::CANDIDATES);
        }
        site.policies.instead = None;
        // What was skipped comes back within a day.
        site.pass(DAY_MS);
        for _ in 0..episodes.div_ceil(u64::from(batch)) + 1 {
            site.scan();
        }
        prop_assert_eq!(site.queued.len() as u64, episodes);
    }
}
