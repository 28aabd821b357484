//! A queue and its uploads wired together, with a small model of an object store. For tests alone.
//!
//! After every step the rig checks the invariants, that the changes alone give the same records (replay), and
//! that every upload works under the fence its job holds.
#![allow(clippy::unwrap_used, reason = "a test fails by it, at the right line")]

use std::boxed::Box;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::format;
use std::string::String;
use std::vec;
use std::vec::Vec;

use crate::chance::Chance;
use crate::change::Change;
use crate::cx::{Cx, Owner, Tickets};
use crate::digest::{Sha256, multipart_etag};
use crate::effect::{Effect, Notice, Output, Response};
use crate::fact::{Fact, JobEnd, Wanted};
use crate::id::{Boot, DeviceId, ETag, EpisodeId, JobId, ObjectKey, PartNo, RequestId, Ticket, UploadId};
use crate::knobs::Knobs;
use crate::object::{
    Composite, Got, ListedPart, ObjectFacts, ObjectOp, ObjectReply, PartFacts, Span, Store, Verb, Want,
};
use crate::outcome::{Fault, Outcome, What};
use crate::policy::{
    Active, Author, Bandwidth, Builtin, Candidate, Chosen, Decision, Ordering, Policies, RetryAction,
    RetryQuery, RetryVerdict, Ruling, Settings, Situation, Slot, UploadLimits, Waiting,
};
use crate::queue::Queue;
use crate::refusal::Refusal;
use crate::row::{JobRow, JobState, Key, Row, SidecarSource, Source, UploadRow};
use crate::time::{Mono, Now, Wall};
use crate::timers::{TimerKey, Timers};
use crate::upload::Uploads;

pub(crate) const MIB: u64 = 1 << 20;

/// The built-in policies, with answers that a test may put in their place, and a list of the questions.
pub(crate) struct Scripted {
    builtin: Builtin,
    pub(crate) uploads: Option<u32>,
    pub(crate) scores: Option<Vec<i64>>,
    pub(crate) retry: Option<RetryAction>,
    pub(crate) bandwidth: Option<u64>,
    /// Of concurrency and bandwidth.
    pub(crate) recheck_ms: u64,
    /// Of whatever a test answers.
    pub(crate) memo: u64,
    /// Who answers, if not the set itself.
    pub(crate) by: Option<Author>,
    pub(crate) asked: Vec<Slot>,
    /// The situations of the questions on concurrency, bandwidth and order, in order.
    pub(crate) situations: Vec<(Slot, Situation)>,
    pub(crate) queries: Vec<RetryQuery>,
    pub(crate) waiting: Vec<Vec<Waiting>>,
    /// Answers everything, if it is there.
    pub(crate) instead: Option<Box<dyn Policies>>,
}

impl Scripted {
    pub(crate) fn new(settings: Settings) -> Scripted {
        let builtin = Builtin::new(settings);
        Scripted {
            builtin,
            uploads: None,
            scores: None,
            retry: None,
            bandwidth: None,
            recheck_ms: 0,
            memo: 0,
            by: None,
            asked: vec![],
            situations: vec![],
            queries: vec![],
            waiting: vec![],
            instead: None,
        }
    }

    fn put_in<T>(&self, mut ruling: Ruling<T>, answer: Option<T>) -> Ruling<T> {
        if let Some(answer) = answer {
            ruling.verdict = answer;
        }
        if let Some(by) = &self.by {
            ruling.by = by.clone();
        }
        ruling
    }
}

impl Policies for Scripted {
    fn select(&mut self, situation: &Situation, candidates: &[Candidate]) -> Ruling<Vec<Chosen>> {
        if let Some(set) = &mut self.instead {
            return set.select(situation, candidates);
        }
        self.asked.push(Slot::AutoScan);
        self.builtin.select(situation, candidates)
    }
    fn retry(&mut self, query: &RetryQuery) -> Ruling<RetryVerdict> {
        if let Some(set) = &mut self.instead {
            return set.retry(query);
        }
        self.asked.push(Slot::Retry);
        self.queries.push(query.clone());
        let answer = self.retry.map(|action| RetryVerdict { action, memo: self.memo, reason: 0 });
        let ruling = self.builtin.retry(query);
        self.put_in(ruling, answer)
    }
    fn limits(&mut self, situation: &Situation) -> Ruling<UploadLimits> {
        if let Some(set) = &mut self.instead {
            return set.limits(situation);
        }
        self.asked.push(Slot::Concurrency);
        self.situations.push((Slot::Concurrency, situation.clone()));
        let (recheck_ms, memo) = (self.recheck_ms, self.memo);
        let answer = self.uploads.map(|uploads| UploadLimits { uploads, recheck_ms, memo, reason: 0 });
        let ruling = self.builtin.limits(situation);
        self.put_in(ruling, answer)
    }
    fn budget(&mut self, situation: &Situation) -> Ruling<Bandwidth> {
        if let Some(set) = &mut self.instead {
            return set.budget(situation);
        }
        self.asked.push(Slot::Bandwidth);
        let answer = self.bandwidth.map(|b| Bandwidth {
            bytes_per_second: Some(b),
            recheck_ms: self.recheck_ms,
            memo: self.memo,
            reason: 0,
        });
        self.situations.push((Slot::Bandwidth, situation.clone()));
        let ruling = self.builtin.budget(situation);
        self.put_in(ruling, answer)
    }
    fn score(&mut self, situation: &Situation, waiting: &[Waiting]) -> Ruling<Ordering> {
        if let Some(set) = &mut self.instead {
            return set.score(situation, waiting);
        }
        self.asked.push(Slot::Order);
        self.situations.push((Slot::Order, situation.clone()));
        self.waiting.push(waiting.to_vec());
        let answer = self.scores.clone().map(|scores| Ordering { scores, reason: 0 });
        let ruling = self.builtin.score(situation, waiting);
        self.put_in(ruling, answer)
    }
}

/// What one step gave.
#[derive(Debug, Default)]
pub(crate) struct Step {
    pub(crate) changes: Vec<Change>,
    pub(crate) effects: Vec<Effect>,
    pub(crate) facts: Vec<Fact>,
}

impl Step {
    pub(crate) fn names(&self) -> Vec<&'static str> {
        self.changes.iter().map(Change::name).collect()
    }
    pub(crate) fn ops(&self) -> Vec<(Ticket, ObjectOp)> {
        let op = |effect: &Effect| match effect {
            Effect::Object { ticket, op } => Some((*ticket, op.clone())),
            _ => None,
        };
        self.effects.iter().filter_map(op).collect()
    }
    pub(crate) fn verbs(&self) -> Vec<&'static str> {
        self.ops().iter().map(|(_, op)| op.verb.name()).collect()
    }
    pub(crate) fn replies(&self) -> Vec<Result<Response, Refusal>> {
        let reply = |effect: &Effect| match effect {
            Effect::Reply { answer, .. } => Some(answer.clone()),
            _ => None,
        };
        self.effects.iter().filter_map(reply).collect()
    }
    pub(crate) fn notices(&self) -> Vec<Notice> {
        let notice = |effect: &Effect| match effect {
            Effect::Publish(notice) => Some(notice.clone()),
            _ => None,
        };
        self.effects.iter().filter_map(notice).collect()
    }
    pub(crate) fn claimed(&self) -> Vec<JobId> {
        let claimed = |fact: &Fact| match fact {
            Fact::JobClaimed { fence, .. } => Some(fence.job),
            _ => None,
        };
        self.facts.iter().filter_map(claimed).collect()
    }
}

/// A site that has only jobs and uploads.
pub(crate) struct Rig {
    pub(crate) queue: Queue,
    pub(crate) uploads: Uploads,
    /// What replay makes of the changes.
    shadow: (Queue, Uploads),
    pub(crate) timers: Timers,
    chance: Chance,
    seeds: Chance,
    tickets: Tickets,
    pub(crate) knobs: Knobs,
    pub(crate) now: Now,
    pub(crate) boot: u64,
    pub(crate) stopping: bool,
    pub(crate) policies: Scripted,
    pub(crate) active: Active,
    /// What surrounds the site.
    pub(crate) situation: Situation,
    /// What is durable.
    pub(crate) rows: BTreeMap<Key, Row>,
    /// Operations that wait for an outcome.
    pub(crate) open: BTreeMap<Ticket, ObjectOp>,
    pub(crate) ended: BTreeMap<JobId, JobEnd>,
    /// Progress seen in the attempt that runs, by episode.
    progress: BTreeMap<EpisodeId, u64>,
    /// Verdicts as the journal keeps them.
    pub(crate) ruled: Vec<Slot>,
    /// The same with their questions.
    pub(crate) decisions: Vec<Decision>,
}

pub(crate) fn episode_key(n: u64) -> ObjectKey {
    ObjectKey::new(&format!("site/robot/2026-11-21/task-{n}.mcap")).unwrap()
}

pub(crate) fn source(n: u64, len: u64, sidecar: bool) -> Source {
    let key = ObjectKey::new(&format!("robot/task-{n}.mcap")).unwrap();
    let beside = ObjectKey::new(&format!("robot/task-{n}.json")).unwrap();
    let sidecar = sidecar.then(|| SidecarSource { sha256: whole(&beside), key: beside, len: 99 });
    Source { sha256: whole(&key), key, len, sidecar }
}

/// Digest of a piece of a recording that is not as it was verified, in the model.
fn changed(span: Span) -> Sha256 {
    Sha256::of(format!("changed {} {}", span.offset, span.len).as_bytes())
}

/// Digest of a whole object of the edge, in the model.
pub(crate) fn whole(key: &ObjectKey) -> Sha256 {
    Sha256::of(key.as_str().as_bytes())
}

/// Digest of a piece of it.
pub(crate) fn piece(key: &ObjectKey, span: Span) -> Sha256 {
    Sha256::of(format!("{key} {} {}", span.offset, span.len).as_bytes())
}

/// Checksum over the parts of so many bytes, in the model: of each span the digest that `of` says.
pub(crate) fn composite(len: u64, part_size: u64, of: impl Fn(Span) -> Sha256) -> Composite {
    let offsets = (0..len).step_by(usize::try_from(part_size).unwrap());
    let digests: Vec<Sha256> =
        offsets.map(|offset| of(Span { offset, len: part_size.min(len - offset) })).collect();
    Composite { parts: u16::try_from(digests.len()).unwrap(), sha256: Sha256::composite(digests) }
}

pub(crate) fn wanted(n: u64, len: u64, sidecar: bool) -> Wanted {
    Wanted {
        episode: EpisodeId(n),
        device: DeviceId::new("robot").unwrap(),
        source: source(n, len, sidecar),
        key: episode_key(n),
        approved_at: Wall(n as i64),
        reply: Some(RequestId(n)),
    }
}

impl Rig {
    /// Booted, with a destination.
    pub(crate) fn new() -> Rig {
        Rig::with(|_| {})
    }

    pub(crate) fn with(change: impl FnOnce(&mut Knobs)) -> Rig {
        let mut knobs = Knobs { destination: true, part_size: MIB, ..Knobs::default() };
        change(&mut knobs);
        let mut rig = Rig {
            queue: Queue::default(),
            uploads: Uploads::default(),
            shadow: Default::default(),
            timers: Timers::default(),
            chance: Chance::new(1),
            seeds: Chance::new(2),
            tickets: Tickets::new(Boot(1)),
            policies: Scripted::new(knobs.builtin.clone()),
            active: Active::native(knobs.builtin.clone()),
            situation: Situation::default(),
            knobs,
            now: Now { wall: Wall(1_800_000_000_000), mono: Mono(0) },
            boot: 0,
            stopping: false,
            rows: BTreeMap::new(),
            open: BTreeMap::new(),
            ended: BTreeMap::new(),
            progress: BTreeMap::new(),
            ruled: vec![],
            decisions: vec![],
        };
        rig.reboot();
        rig
    }

    /// A site that finds these records when it starts.
    pub(crate) fn finds(rows: Vec<(Key, Row)>) -> (Rig, Step) {
        let mut rig = Rig::new();
        rig.rows = rows.into_iter().collect();
        let step = rig.reboot();
        (rig, step)
    }

    /// Power fails and comes back: only records remain.
    pub(crate) fn reboot(&mut self) -> Step {
        self.boot += 1;
        let load = |rows: &BTreeMap<Key, Row>| {
            let (mut queue, mut uploads) = (Queue::default(), Uploads::default());
            for (key, row) in rows {
                match row {
                    Row::Job(job) => {
                        queue.load_counter(job.id.0 + 1);
                        if !job.state.is_final() {
                            queue.load(key, row.clone());
                        }
                    }
                    _ => uploads.load(key, row.clone()),
                }
            }
            (queue, uploads)
        };
        (self.queue, self.uploads) = load(&self.rows);
        self.shadow = load(&self.rows);
        self.timers = Timers::default();
        self.chance = Chance::new(self.boot);
        self.tickets = Tickets::new(Boot(self.boot));
        self.open.clear();
        self.progress.clear();
        self.stopping = false;
        self.step(|queue, uploads, cx| {
            uploads.on_boot(cx);
            queue.on_boot(cx);
        })
    }

    /// Everything left to chance follows from this.
    pub(crate) fn seed(&mut self, seed: u64) {
        self.chance = Chance::new(seed);
        self.seeds = Chance::new(!seed);
    }

    /// One step and everything the facts of it lead to.
    pub(crate) fn step(&mut self, act: impl FnOnce(&mut Queue, &mut Uploads, &mut Cx<'_>)) -> Step {
        let (mut out, mut facts, mut touched) = (Output::default(), VecDeque::new(), BTreeSet::new());
        let mut told = Vec::new();
        let mut cx = Cx {
            now: self.now,
            knobs: &self.knobs,
            situation: self.situation.clone(),
            active: &self.active,
            stopping: self.stopping,
            timers: &mut self.timers,
            chance: &mut self.chance,
            seeds: &mut self.seeds,
            tickets: &mut self.tickets,
            facts: &mut facts,
            touched: &mut touched,
            policies: &mut self.policies,
            out: &mut out,
        };
        act(&mut self.queue, &mut self.uploads, &mut cx);
        while let Some(fact) = cx.facts.pop_front() {
            told.push(fact.clone());
            match fact {
                Fact::JobClaimed { fence, row } => self.uploads.on_claimed(&mut cx, fence, &row),
                Fact::JobAbandoned { job } => self.uploads.on_abandoned(&mut cx, job),
                Fact::PartAcknowledged { fence, bytes } => {
                    self.queue.on_part_acknowledged(&mut cx, fence, bytes);
                }
                Fact::UploadRestarted { fence } => self.queue.on_upload_restarted(&mut cx, fence),
                Fact::UploadBlind { fence } => self.queue.on_upload_blind(&mut cx, fence),
                Fact::UploadEnded { fence, end } => self.queue.on_upload_ended(&mut cx, fence, &end),
                Fact::JobEnded { job, end, .. } => {
                    assert!(self.ended.insert(job, end).is_none(), "a job ends once");
                }
                Fact::JobQueued { .. } | Fact::PolicyFaulted { .. } | Fact::PolicyStalled { .. } => {}
                other => panic!("neither queue nor uploads tell {other:?}"),
            }
        }
        self.ruled.extend(out.rulings.iter().map(|ruled| ruled.slot));
        self.decisions.append(&mut out.decisions);
        self.keep(&out, touched);
        self.watch(&out);
        Step { changes: out.changes, effects: out.effects, facts: told }
    }

    /// Commits a step: records, replay, invariants.
    fn keep(&mut self, out: &Output, touched: BTreeSet<Key>) {
        for change in &out.changes {
            match change {
                Change::Job(change) => self.shadow.0.apply(change).map(|_| ()).unwrap(),
                Change::Upload(change) => self.shadow.1.apply(change).map(|_| ()).unwrap(),
                other => panic!("not of this part: {other:?}"),
            }
        }
        for key in touched {
            let (live, replayed) = match &key {
                Key::Meta => continue,
                Key::Job(_) => (self.queue.row(&key), self.shadow.0.row(&key)),
                _ => (self.uploads.row(&key), self.shadow.1.row(&key)),
            };
            assert_eq!(live, replayed, "replay of the changes gives the records");
            match live {
                Some(row) => self.rows.insert(key, row),
                None => self.rows.remove(&key),
            };
        }
        self.queue.evict();
        self.shadow.0.evict();
        self.queue.check().unwrap();
        self.uploads.check().unwrap();
        for (job, fence) in self.uploads.working() {
            assert_eq!(self.queue.fence(job), Some(fence), "I13");
        }
    }

    fn watch(&mut self, out: &Output) {
        for effect in &out.effects {
            match effect {
                Effect::Object { ticket, op } => {
                    let reads = matches!(op.verb, Verb::Get { want: Want::Digest | Want::Parts { .. }, .. });
                    assert!(op.store == Store::Cloud || reads, "the edge is only read: {op:?}");
                    self.open.insert(*ticket, op.clone());
                }
                Effect::Publish(Notice::Progress { episode, uploaded, total, .. }) => {
                    assert!(uploaded <= total, "I22");
                    let restarted = out.changes.iter().any(|c| c.name() == "upload.restarted");
                    let lost = out.changes.iter().any(|c| c.name() == "upload.part_lost");
                    let distrusted = out.changes.iter().any(|c| c.name() == "upload.distrusted");
                    let before = self.progress.insert(*episode, *uploaded).unwrap_or(0);
                    assert!(
                        *uploaded >= before || restarted || lost || distrusted,
                        "I22: {before} to {uploaded}"
                    );
                }
                Effect::Publish(Notice::ProgressEnded { episode }) => {
                    self.progress.remove(episode);
                }
                _ => {}
            }
        }
    }

    pub(crate) fn want(&mut self, n: u64, len: u64, sidecar: bool) -> Step {
        self.step(|queue, _, cx| queue.on_episode_wanted(cx, wanted(n, len, sidecar)))
    }

    pub(crate) fn ask_again(&mut self, job: u64) -> Step {
        let (job, episode) = (JobId(job), EpisodeId(job));
        self.step(|queue, _, cx| queue.on_job_wanted(cx, job, episode, RequestId(1)))
    }

    /// An outcome arrives.
    pub(crate) fn answer(&mut self, ticket: Ticket, outcome: Outcome<ObjectReply>) -> Step {
        self.open.remove(&ticket);
        self.step(|_, uploads, cx| match cx.tickets.take(ticket) {
            Some(Owner::Uploads) => uploads.on_object(cx, ticket, &outcome),
            Some(Owner::Tasks) => panic!("tickets here belong to uploads"),
            None => {}
        })
    }

    /// The only operation that is out.
    pub(crate) fn only(&self) -> (Ticket, ObjectOp) {
        let mut live = self.open.iter().filter(|(ticket, _)| self.waits_for(**ticket));
        let (ticket, op) = live.next().expect("one operation is out");
        assert!(live.next().is_none(), "only one operation is out");
        (*ticket, op.clone())
    }

    pub(crate) fn waits_for(&self, ticket: Ticket) -> bool {
        self.tickets.clone().take(ticket).is_some()
    }

    /// The only operation that is out ends so.
    pub(crate) fn ends(&mut self, outcome: Outcome<ObjectReply>) -> Step {
        let (ticket, _) = self.only();
        self.answer(ticket, outcome)
    }

    pub(crate) fn done(&mut self, reply: ObjectReply) -> Step {
        self.ends(Outcome::Done(reply))
    }

    pub(crate) fn fails(&mut self, fault: Fault) -> Step {
        self.ends(Outcome::Failed(fault))
    }

    /// Time passes until the next deadline, and it fires.
    pub(crate) fn wake(&mut self) -> Option<Step> {
        let (at, _) = self.timers.next()?;
        let passed = self.now.mono.until(at);
        self.now = Now { wall: self.now.wall.after(passed), mono: self.now.mono.after(passed) };
        Some(self.step(|queue, uploads, cx| {
            while let Some(key) = cx.timers.take_due(cx.now.mono) {
                match key {
                    TimerKey::Queue => queue.on_due(cx),
                    TimerKey::Upload(job) => uploads.on_due(cx, job),
                    TimerKey::Janitor(job) => uploads.on_janitor_due(cx, job),
                    other => panic!("not a timer of this part: {other:?}"),
                }
            }
        }))
    }

    pub(crate) fn job(&self, n: u64) -> JobRow {
        match self.rows.get(&Key::Job(JobId(n))) {
            Some(Row::Job(row)) => row.clone(),
            other => panic!("no job {n}: {other:?}"),
        }
    }

    pub(crate) fn session(&self, n: u64) -> Option<UploadRow> {
        match self.rows.get(&Key::Upload(JobId(n))) {
            Some(Row::Upload(row)) => Some(row.clone()),
            _ => None,
        }
    }

    /// Lets the store do everything it is asked, and time pass, until nothing is left to happen.
    pub(crate) fn run(&mut self, store: &mut Model) {
        for _ in 0..20_000 {
            let next = self.open.iter().next().map(|(ticket, op)| (*ticket, op.clone()));
            if let Some((ticket, op)) = next {
                let outcome = store.does(&op);
                self.answer(ticket, outcome);
            } else if self.wake().is_none() {
                return;
            }
        }
        panic!("no end: {:?}", self.timers.next());
    }

    /// Every job that is not over.
    pub(crate) fn unfinished(&self) -> Vec<JobRow> {
        let open = |row: &Row| match row {
            Row::Job(row) if !row.state.is_final() => Some(row.clone()),
            _ => None,
        };
        self.rows.values().filter_map(open).collect()
    }

    pub(crate) fn is_completed(&self, n: u64) -> bool {
        matches!(self.job(n).state, JobState::Completed { .. })
    }
}

/// An object in the model.
#[derive(Clone, Debug)]
pub(crate) struct Object {
    pub(crate) len: u64,
    /// Whose content it is: a key of the edge, if it is whole.
    pub(crate) content: Option<ObjectKey>,
    pub(crate) etag: ETag,
    pub(crate) composite: Option<Composite>,
    pub(crate) sha256: Option<Sha256>,
    pub(crate) announced: Option<Sha256>,
}

#[derive(Clone, Debug)]
struct Pending {
    key: ObjectKey,
    announced: Sha256,
    parts: BTreeMap<PartNo, Taken>,
}

/// A part in the model: what it is, and where it was read from.
#[derive(Clone, Debug)]
struct Taken {
    facts: PartFacts,
    source: ObjectKey,
    span: Span,
    /// Whether the source was the verified recording then.
    true_to: bool,
}

/// A recording at the edge, in the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AtEdge {
    /// As it was verified.
    Whole,
    /// Of the same length, with other bytes.
    Changed,
    /// Not there.
    Gone,
}

/// An object store: other data structures than the code under test, and the judge of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    pub(crate) objects: BTreeMap<ObjectKey, Object>,
    uploads: BTreeMap<UploadId, Pending>,
    made: u64,
    /// Effective completions, by key.
    pub(crate) completed: BTreeMap<ObjectKey, u32>,
    /// Bytes of recordings taken.
    pub(crate) bytes: u64,
    /// Whether it keeps checksums.
    plain: bool,
    /// Whether tags of parts are MD5s of the content, as without encryption.
    sealed_tags: bool,
    /// The edge: recordings that are not as they were verified.
    edge: BTreeMap<ObjectKey, AtEdge>,
    /// The edge: where the furthest piece ended that was ever read of a recording.
    ends: BTreeMap<ObjectKey, u64>,
}

impl Model {
    /// An empty store; whether it keeps checksums, and whether its tags are no digests.
    pub(crate) fn new(plain: bool, sealed_tags: bool) -> Model {
        Model { plain, sealed_tags, ..Model::default() }
    }

    pub(crate) fn open_uploads(&self) -> Vec<UploadId> {
        self.uploads.keys().cloned().collect()
    }

    pub(crate) fn lose_uploads(&mut self) {
        self.uploads.clear();
    }

    /// From now on the recording at the edge is so.
    pub(crate) fn edge_is(&mut self, n: u64, how: AtEdge) {
        self.edge.insert(source(n, 0, false).key, how);
    }

    pub(crate) fn is_spoiled(&self, n: u64) -> bool {
        self.at_edge(&source(n, 0, false).key) != AtEdge::Whole
    }

    fn at_edge(&self, key: &ObjectKey) -> AtEdge {
        self.edge.get(key).copied().unwrap_or(AtEdge::Whole)
    }

    fn does_at_edge(&self, op: &ObjectOp) -> Outcome<ObjectReply> {
        let Verb::Get { span, want } = op.verb else { panic!("the edge is only read: {op:?}") };
        let end = self.ends.get(&op.key).copied().unwrap_or(0);
        let len = span.map_or(end, |span| span.len);
        let how = self.at_edge(&op.key);
        let of = |span: Span| match how {
            AtEdge::Changed => changed(span),
            AtEdge::Whole | AtEdge::Gone => piece(&op.key, span),
        };
        let sha256 = match (how, span) {
            (AtEdge::Gone, _) => return Outcome::Failed(Fault::Vanished(What::Object)),
            (_, Some(span)) => of(span),
            (AtEdge::Whole, None) => whole(&op.key),
            (AtEdge::Changed, None) => Sha256::of(b"changed"),
        };
        Outcome::Done(ObjectReply::Got(match want {
            Want::Digest => Got::Digest { len, sha256 },
            Want::Parts { part_size } => Got::Parts { len, sha256, composite: composite(len, part_size, of) },
            other => panic!("not asked of a source: {other:?}"),
        }))
    }

    fn tag(&mut self, sha256: Sha256) -> ETag {
        self.made += 1;
        let text = format!("{sha256}");
        if self.sealed_tags { ETag::new(&format!("{:032x}-x", self.made)) } else { ETag::new(&text[..32]) }
    }

    /// Does an operation and says how it went.
    pub(crate) fn does(&mut self, op: &ObjectOp) -> Outcome<ObjectReply> {
        if op.store == Store::Edge {
            return self.does_at_edge(op);
        }
        let key = &op.key;
        let gone = || Outcome::Failed(Fault::Vanished(What::Upload));
        Outcome::Done(match &op.verb {
            Verb::Head => ObjectReply::Head(self.objects.get(key).map(|o| ObjectFacts {
                len: o.len,
                etag: o.etag.clone(),
                sha256: o.sha256,
                composite: o.composite,
                announced: o.announced,
            })),
            Verb::Get { span, .. } => {
                let Some(object) = self.objects.get(key) else {
                    return Outcome::Failed(Fault::Vanished(What::Object));
                };
                let len = span.map_or(object.len, |s| s.len);
                let sha256 = match (&object.content, span) {
                    (Some(source), None) => whole(source),
                    (Some(source), Some(span)) => piece(source, *span),
                    (None, _) => Sha256::of(b"junk"),
                };
                ObjectReply::Got(Got::Digest { len, sha256 })
            }
            Verb::Put { source, len, sha256 } => {
                match self.at_edge(source) {
                    AtEdge::Whole => {}
                    AtEdge::Changed => return Outcome::Failed(Fault::Damaged(What::Source)),
                    AtEdge::Gone => return Outcome::Failed(Fault::Vanished(What::Source)),
                }
                let etag = self.tag(*sha256);
                if key.as_str().ends_with(".mcap") {
                    self.bytes += len;
                }
                let object = Object {
                    len: *len,
                    content: Some(source.clone()),
                    etag: etag.clone(),
                    composite: None,
                    sha256: (!self.plain).then_some(*sha256),
                    announced: Some(*sha256),
                };
                self.objects.insert(key.clone(), object);
                ObjectReply::Put(etag)
            }
            Verb::Create { sha256 } => {
                self.made += 1;
                let id = UploadId::new(format!("u{}", self.made));
                let pending = Pending { key: key.clone(), announced: *sha256, parts: BTreeMap::new() };
                self.uploads.insert(id.clone(), pending);
                ObjectReply::Created(id)
            }
            Verb::PutPart { upload, part, source, span } => {
                let true_to = match self.at_edge(source) {
                    AtEdge::Whole => true,
                    // The edge cannot know: it was given no digest of a piece.
                    AtEdge::Changed => false,
                    AtEdge::Gone => return Outcome::Failed(Fault::Vanished(What::Source)),
                };
                let end = self.ends.entry(source.clone()).or_default();
                *end = (*end).max(span.offset + span.len);
                let sha256 = match true_to {
                    true => piece(source, *span),
                    false => changed(*span),
                };
                let facts = PartFacts { etag: self.tag(sha256), sha256, len: span.len };
                let Some(pending) = self.uploads.get_mut(upload) else { return gone() };
                self.bytes += span.len;
                let taken = Taken { facts: facts.clone(), source: source.clone(), span: *span, true_to };
                pending.parts.insert(*part, taken);
                ObjectReply::PartStored(facts)
            }
            Verb::Complete { upload, parts } => {
                let Some(pending) = self.uploads.get(upload) else { return gone() };
                let held = |(part, facts): &(PartNo, PartFacts)| {
                    pending.parts.get(part).is_some_and(|held| held.facts.etag == facts.etag)
                };
                if !parts.iter().all(held) {
                    return Outcome::Failed(Fault::Rejected(String::from("InvalidPart")));
                }
                let pending = self.uploads.remove(upload).unwrap();
                let object = assemble(&pending, parts, self.plain);
                let etag = object.etag.clone();
                self.objects.insert(key.clone(), object);
                *self.completed.entry(key.clone()).or_default() += 1;
                ObjectReply::Completed(etag)
            }
            Verb::Abort { upload } => {
                self.uploads.remove(upload);
                ObjectReply::Aborted
            }
            Verb::ListParts { upload } => ObjectReply::Parts(self.uploads.get(upload).map(|pending| {
                let listed = |(part, taken): (&PartNo, &Taken)| ListedPart {
                    part: *part,
                    etag: taken.facts.etag.clone(),
                    len: taken.facts.len,
                    sha256: (!self.plain).then_some(taken.facts.sha256),
                };
                pending.parts.iter().map(listed).collect()
            })),
            Verb::ListUploads => {
                let of_key = self.uploads.iter().filter(|(_, pending)| pending.key == *key);
                ObjectReply::Uploads(of_key.map(|(id, _)| id.clone()).collect())
            }
            Verb::Delete => {
                self.objects.remove(key);
                ObjectReply::Deleted
            }
            Verb::Find { .. } => unreachable!("uploads look for nothing"),
        })
    }
}

fn assemble(pending: &Pending, named: &[(PartNo, PartFacts)], plain: bool) -> Object {
    let mut offset = 0;
    let mut content = None;
    let mut exact = true;
    let (mut tags, mut digests) = (Vec::new(), Vec::new());
    for (part, _) in named {
        let Taken { facts, source, span, true_to } = &pending.parts[part];
        exact &= *true_to && span.offset == offset && content.as_ref().is_none_or(|c| c == source);
        offset += span.len;
        content = Some(source.clone());
        tags.push(facts.etag.clone());
        digests.push(facts.sha256);
    }
    let parts = u16::try_from(named.len()).unwrap();
    Object {
        len: offset,
        content: content.filter(|_| exact),
        etag: multipart_etag(&tags).unwrap_or(ETag::new("sealed")),
        composite: (!plain).then(|| Composite { sha256: Sha256::composite(digests), parts }),
        sha256: None,
        announced: Some(pending.announced),
    }
}
