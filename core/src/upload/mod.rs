//! Upload sessions: the next object operation, and nothing else. Never decides whether or when a job is tried.
//!
//! The row and its parts are durable; everything else belongs to one claim. `advance` alone asks for operations:
//! it looks at the row and at what the claim is about to do ([`live::Aim`]). `answer.rs` says what an outcome
//! means for both.

mod answer;
mod bandwidth;
mod live;
mod pace;
mod parts;
mod plan;
mod planted;
mod progress;
mod resume;
mod session;
mod sift;
mod tidy;

#[cfg(test)]
pub(crate) mod rig;
#[cfg(test)]
mod tests;

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::vec::Vec;

use crate::bug::planted;
use crate::change::{Change, UploadChange, UploadEnd};
use crate::cx::{Cx, Owner};
use crate::effect::Notice;
use crate::fact::Fact;
use crate::id::{Fence, JobId, Ticket};
use crate::object::{ObjectOp, ObjectReply};
use crate::outcome::{Fault, Outcome, What};
use crate::policy::Memo;
use crate::refusal::{Broken, Illegal};
use crate::row::{JobRow, Key, Phase, Row, UploadRow};
use crate::timers::TimerKey;

use live::{Aim, Asked, Live};
use pace::Pace;
use session::Sessions;
pub(crate) use session::of as job_of;
use tidy::Tidy;

/// The upload sessions of a site: at most one per job.
#[derive(Debug, Default)]
pub struct Uploads {
    // Durable.
    sessions: Sessions,
    // Volatile.
    live: BTreeMap<JobId, Live>,
    tidies: BTreeMap<JobId, Tidy>,
    tickets: BTreeMap<Ticket, JobId>,
    pace: Pace,
    /// What the bandwidth policy noted.
    memo: Option<Memo>,
    stopping: bool,
}

impl Uploads {
    /// Takes a record into memory.
    pub fn load(&mut self, key: &Key, row: Row) {
        self.sessions.load(key, row);
    }

    /// A record.
    #[must_use]
    pub fn row(&self, key: &Key) -> Option<Row> {
        match key {
            Key::Upload(job) => self.sessions.get(*job).cloned().map(Row::Upload),
            Key::Part(job, part) => self.sessions.part(*job, *part).cloned().map(Row::Part),
            Key::Meta
            | Key::Task(_)
            | Key::Episode(_)
            | Key::Job(_)
            | Key::Policy
            | Key::Device(_)
            | Key::Token(_)
            | Key::Module(_)
            | Key::Alias(_)
            | Key::Binding(_) => None,
        }
    }

    /// Forgets everything that is not in a record.
    pub fn forget_volatile(&mut self) {
        self.live.clear();
        self.tidies.clear();
        self.tickets.clear();
        self.pace = Pace::default();
        self.memo = None;
        self.stopping = false;
    }

    /// Alters durable state: the only way. Returns the records touched.
    pub fn apply(&mut self, change: &UploadChange) -> Result<Vec<Key>, Illegal> {
        self.sessions.apply(change)
    }

    /// Applies a change in life: it must be legal, because the caller looked.
    fn enact(&mut self, cx: &mut Cx<'_>, change: UploadChange) {
        let job = session::of(&change);
        match self.apply(&change) {
            Ok(touched) => cx.record(Change::Upload(change), touched),
            Err(illegal) => panic!("I21: {} is not legal for job {job}: {}", illegal.change, illegal.state),
        }
    }

    /// Checks the invariants that concern uploads alone.
    pub fn check(&self) -> Result<(), Broken> {
        self.sessions.check()?;
        let broken = |invariant, saw| Err(Broken { invariant, saw });
        for (job, live) in &self.live {
            let Some(row) = self.sessions.get(*job) else {
                return broken("I21", format!("job {job} uploads without a session"));
            };
            if row.fence != live.fence {
                return broken("I13", format!("job {job} uploads as {:?}, not {:?}", live.fence, row.fence));
            }
            let moving = !live.open.is_empty() || live.rest.is_some() || live.booked.is_some();
            if !moving && !self.stopping {
                return broken("I15", format!("the upload of job {job} stands still at {:?}", live.aim));
            }
            for (ticket, asked) in &live.open {
                if self.tickets.get(ticket) != Some(job) {
                    return broken("I13", format!("job {job} waits for a ticket that is not its own"));
                }
                if let Asked::Part(part) = asked
                    && self.sessions.part(*job, *part).is_some()
                {
                    return broken("I21", format!("part {part} of job {job} is sent and is stored"));
                }
            }
        }
        let owned = self.live.values().map(|live| live.open.len()).sum::<usize>()
            + self.tidies.values().filter(|tidy| tidy.open.is_some()).count();
        if owned != self.tickets.len() {
            return broken(
                "I13",
                format!("{} tickets, of which {owned} belong to uploads", self.tickets.len()),
            );
        }
        Ok(())
    }

    /// Uploads at work and the fence they work under.
    #[must_use]
    pub fn working(&self) -> Vec<(JobId, Fence)> {
        self.live.iter().map(|(job, live)| (*job, live.fence)).collect()
    }

    /// Takes up what the rows leave open: abandoned uploads. The others wait for their claim.
    pub fn on_boot(&mut self, cx: &mut Cx<'_>) {
        let abandoned = |(job, row): (JobId, &UploadRow)| match row.phase {
            Phase::Abandoning { .. } => Some(job),
            Phase::Planned | Phase::Open { .. } | Phase::Sealing { .. } | Phase::Sealed { .. } => None,
        };
        let jobs: Vec<JobId> = self.sessions.iter().filter_map(abandoned).collect();
        for job in jobs {
            self.begin_tidy(cx, job);
        }
    }

    /// A job was claimed: upload it under this fence, from wherever its session stands.
    pub fn on_claimed(&mut self, cx: &mut Cx<'_>, fence: Fence, job: &JobRow) {
        let id = fence.job;
        let mut still = BTreeMap::new();
        if planted!(cx.knobs, B09) {
            still = self.live.get_mut(&id).map(|live| core::mem::take(&mut live.open)).unwrap_or_default();
        }
        self.let_go(cx, id);
        if self.live.is_empty() {
            self.pace.begin(cx.now.mono);
        }
        match self.sessions.get(id) {
            None => {
                let row = UploadRow {
                    fence,
                    key: job.key.clone(),
                    source: job.source.clone(),
                    plan: plan::cut(job.source.len, cx.knobs.part_size),
                    phase: Phase::Planned,
                    sidecar_stored: job.source.sidecar.is_none(),
                    restarts: 0,
                    look_first: false,
                };
                self.enact(cx, UploadChange::Planned(Box::new(row)));
            }
            Some(UploadRow { phase: Phase::Abandoning { .. }, .. }) => {
                // A job that gave up is over and never claimed again; should it be, nothing is sent.
                let end = UploadEnd::Failed(Fault::Vanished(What::Upload));
                return cx.tell(Fact::UploadEnded { fence, end });
            }
            Some(row) if row.fence != fence => self.enact(cx, UploadChange::Refenced { fence }),
            Some(_) => {}
        }
        if let Some(row) = self.sessions.get(id) {
            let mut live = Live::new(fence, job.episode, &row.phase);
            live.open.append(&mut still);
            self.live.insert(id, live);
            self.advance(cx, id);
        }
    }

    /// A job gave up or was called off: leave nothing behind.
    pub fn on_abandoned(&mut self, cx: &mut Cx<'_>, job: JobId) {
        self.let_go(cx, job);
        let Some(row) = self.sessions.get(job) else { return };
        match row.phase {
            Phase::Planned | Phase::Sealed { .. } if !row.look_first => {
                self.enact(cx, UploadChange::Ended { job });
            }
            Phase::Planned | Phase::Sealed { .. } | Phase::Open { .. } | Phase::Sealing { .. } => {
                self.enact(cx, UploadChange::Abandoning { job });
                if planted!(cx.knobs, B17) {
                    return self.enact(cx, UploadChange::Ended { job });
                }
                self.begin_tidy(cx, job);
            }
            Phase::Abandoning { .. } => {}
        }
    }

    /// An operation ended. Those of claims that are over never get here: their tickets are forgotten.
    pub fn on_object(&mut self, cx: &mut Cx<'_>, ticket: Ticket, outcome: &Outcome<ObjectReply>) {
        let Some(job) = self.tickets.remove(&ticket) else { return };
        match self.live.get_mut(&job).and_then(|live| live.open.remove(&ticket)) {
            Some(Asked::Part(part)) => self.on_part(cx, job, part, outcome),
            Some(Asked::Question) => self.on_answer(cx, job, outcome),
            None => return self.on_tidied(cx, job, outcome),
        }
        self.advance(cx, job);
    }

    /// What an operation came to made the core panic too often: its job is parked. The janitor stands still.
    pub fn on_quarantined(&mut self, cx: &mut Cx<'_>, ticket: Ticket, reason: &str) {
        let Some(job) = self.tickets.remove(&ticket) else { return };
        if self.live.get_mut(&job).and_then(|live| live.open.remove(&ticket)).is_some() {
            self.on_quarantined_job(cx, job, reason);
        } else if let Some(tidy) = self.tidies.get_mut(&job) {
            tidy.open = None;
        }
    }

    /// Going on with an upload made the core panic too often: its job is parked.
    pub fn on_quarantined_job(&mut self, cx: &mut Cx<'_>, job: JobId, reason: &str) {
        self.end(cx, job, UploadEnd::Quarantined(reason.into()));
    }

    /// An upload may go on.
    pub fn on_due(&mut self, cx: &mut Cx<'_>, job: JobId) {
        if let Some(live) = self.live.get(&job)
            && planted!(cx.knobs, X27)
        {
            assert!(!live.todo.is_empty(), "an upload that is woken has a part to send");
        }
        self.advance(cx, job);
    }

    /// An abandoned upload may be tried to be given up again.
    pub fn on_janitor_due(&mut self, cx: &mut Cx<'_>, job: JobId) {
        self.advance_tidy(cx, job);
    }

    /// The site stops: what is in flight is still heard, nothing new is asked. `advance` looks at `cx.stopping`.
    pub fn on_shutdown(&mut self, cx: &mut Cx<'_>) {
        self.stopping = true;
        for job in self.live.keys() {
            cx.disarm(&TimerKey::Upload(*job));
        }
        for job in self.tidies.keys() {
            cx.disarm(&TimerKey::Janitor(*job));
        }
    }

    /// Asks for what is next, if anything may be asked now. The only place where an upload acts.
    fn advance(&mut self, cx: &mut Cx<'_>, job: JobId) {
        let (Some(live), Some(row)) = (self.live.get_mut(&job), self.sessions.get(job)) else { return };
        if cx.stopping {
            return;
        }
        if let Some(rest) = live.rest {
            if rest > cx.now.mono {
                return cx.arm_at(TimerKey::Upload(job), rest);
            }
            live.rest = None;
        }
        match live.aim {
            Aim::Send => return self.send(cx, job),
            Aim::Look { .. }
            | Aim::Read { .. }
            | Aim::Sidecar { .. }
            | Aim::Put
            | Aim::Find
            | Aim::Sift { .. }
            | Aim::Clear { .. }
            | Aim::Create
            | Aim::Probe { .. }
            | Aim::Match { .. }
            | Aim::Recheck
            | Aim::Seal
            | Aim::Verify => {}
        }
        if !live.open.is_empty() {
            return;
        }
        let (first, len) = (row.look_first, row.source.len);
        if live.aim == Aim::Create {
            live.stray = first;
            self.enact(cx, UploadChange::Creating { job });
        } else if live.aim == Aim::Put && !self.may_send(cx, job, len) {
            return;
        }
        let (Some(live), Some(row)) = (self.live.get(&job), self.sessions.get(job)) else { return };
        if let Some(op) = live::question(row, self.sessions.parts(job), &live.aim) {
            self.ask(cx, job, Asked::Question, op);
        }
    }

    /// Sends parts, lowest number first, as many at once as configured; checks the source and the parts once more when
    /// nothing is left.
    fn send(&mut self, cx: &mut Cx<'_>, job: JobId) {
        loop {
            let (Some(live), Some(row)) = (self.live.get_mut(&job), self.sessions.get(job)) else { return };
            let Some(part) = live.todo.first().copied() else {
                if live.open.is_empty() {
                    live.aim = if planted!(cx.knobs, H04) { Aim::Seal } else { Aim::Recheck };
                    if planted!(cx.knobs, H04) {
                        self.enact(cx, UploadChange::Sealing { job });
                    }
                    self.advance(cx, job);
                }
                return;
            };
            if live.open.len() >= usize::from(cx.knobs.parts_in_flight.max(1)) && !planted!(cx.knobs, X14) {
                return;
            }
            let span = plan::span(row.plan, row.source.len, part);
            let op = live::put_part(row, part, span).expect("parts are sent to an open upload");
            if !self.may_send(cx, job, span.len) {
                return;
            }
            if let Some(live) = self.live.get_mut(&job) {
                live.todo.remove(&part);
            }
            self.ask(cx, job, Asked::Part(part), op);
            if planted!(cx.knobs, B18) {
                self.publish_progress(cx, job);
            }
        }
    }

    fn ask(&mut self, cx: &mut Cx<'_>, job: JobId, asked: Asked, op: ObjectOp) {
        let ticket = cx.ask(Owner::Uploads, op);
        self.tickets.insert(ticket, job);
        if let Some(live) = self.live.get_mut(&job) {
            live.open.insert(ticket, asked);
        }
    }

    /// Waits for none of a claim's operations any more.
    fn forget_open(&mut self, cx: &mut Cx<'_>, job: JobId) {
        let Some(live) = self.live.get_mut(&job) else { return };
        for (ticket, _) in core::mem::take(&mut live.open) {
            cx.forget(ticket);
            self.tickets.remove(&ticket);
        }
    }

    /// Ends a claim's work; what was sent stays.
    fn let_go(&mut self, cx: &mut Cx<'_>, job: JobId) -> Option<Live> {
        self.forget_open(cx, job);
        let live = self.live.remove(&job)?;
        if self.live.is_empty() {
            self.pace.rest(cx.now.mono);
        }
        cx.disarm(&TimerKey::Upload(job));
        cx.publish(Notice::ProgressEnded { episode: live.episode });
        Some(live)
    }

    /// Ends an attempt, and says how.
    fn end(&mut self, cx: &mut Cx<'_>, job: JobId, end: UploadEnd) {
        if let Some(live) = self.let_go(cx, job) {
            cx.tell(Fact::UploadEnded { fence: live.fence, end });
        }
    }

    fn publish_progress(&self, cx: &mut Cx<'_>, job: JobId) {
        let (Some(live), Some(row)) = (self.live.get(&job), self.sessions.get(job)) else { return };
        let total = row.source.len;
        let mut uploaded = match row.phase {
            Phase::Sealed { .. } => total,
            Phase::Planned | Phase::Open { .. } | Phase::Sealing { .. } | Phase::Abandoning { .. } => {
                progress::acknowledged(row, self.sessions.parts(job))
            }
        };
        if planted!(cx.knobs, B18) {
            for asked in live.open.values() {
                if let Asked::Part(part) = asked {
                    uploaded += plan::span(row.plan, total, *part).len;
                }
            }
        }
        let episode = live.episode;
        cx.publish(Notice::Progress { episode, job, uploaded, total, at: cx.now.wall });
    }
}
