//! Who performs each effect, once what it says is durable. Owns what only the edge may know: mailboxes of links, open
//! admissions and requests, and secrets. Never waits and decides nothing.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tidegate_core::effect::{CloseWhy, Effect, Frame, Gate, Notice, PolicyOp, Response};
use tidegate_core::id::{ConnId, RequestId, SocketId, Ticket};
use tidegate_core::input::{Input, LostWhy};
use tidegate_core::object::ObjectOp;
use tidegate_core::policy::PolicyNews;
use tidegate_core::refusal::Refusal;
use tidegate_core::time::Wall;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot, watch};

use crate::feed::{Feed, REFUSALS_EVERY};
use crate::figures::Gauge;
use crate::grants::Grants;
use crate::inbox::{Admitted, OUTBOUND, Outbound, Secret};
use crate::ingest;
use crate::timeouts::{Op, Timeouts};

/// Where an admission is answered.
pub type Admission = oneshot::Sender<Result<Admitted, Refusal>>;
/// Where a request is answered.
pub type Answer = oneshot::Sender<Result<Response, Refusal>>;

/// Performs effects.
#[derive(Debug)]
pub struct Release {
    mailboxes: BTreeMap<ConnId, mpsc::Sender<Outbound>>,
    admissions: BTreeMap<SocketId, Admission>,
    answers: BTreeMap<RequestId, Answer>,
    /// Values by handle.
    secrets: BTreeMap<u64, Secret>,
    /// The secret that came with a request, until its reply.
    secret_of: BTreeMap<RequestId, u64>,
    // Without a bound of its own: the driver never waits. What lies here is a key and a verb; how many operations run
    // at once is for the executor, which lets the others wait in their order.
    objects: mpsc::UnboundedSender<(Ticket, ObjectOp)>,
    // Neither this one: the core has at most a few of them under way.
    policies: mpsc::UnboundedSender<(Ticket, PolicyOp)>,
    feed: Feed,
    gate: watch::Sender<ingest::Gate>,
    frozen: ingest::Frozen,
    grants: Grants,
    timeouts: Timeouts,
    gauge: Gauge,
    /// What performing effects came to, for the next batch. Not sent through the inbox: that may be full, and the one
    /// who empties it is the one who would wait.
    own: VecDeque<Input>,
}

impl Release {
    /// Performs effects with these.
    #[must_use]
    pub fn new(
        objects: mpsc::UnboundedSender<(Ticket, ObjectOp)>,
        policies: mpsc::UnboundedSender<(Ticket, PolicyOp)>,
        feed: Feed,
        gate: watch::Sender<ingest::Gate>,
        frozen: ingest::Frozen,
        gauge: Gauge,
    ) -> Release {
        Release {
            mailboxes: BTreeMap::new(),
            admissions: BTreeMap::new(),
            answers: BTreeMap::new(),
            secrets: BTreeMap::new(),
            secret_of: BTreeMap::new(),
            objects,
            policies,
            feed,
            gate,
            frozen,
            grants: Grants::default(),
            timeouts: Timeouts::default(),
            gauge,
            own: VecDeque::new(),
        }
    }

    /// Tells these of tokens.
    #[must_use]
    pub fn granting(mut self, grants: Grants) -> Release {
        self.grants = grants;
        self
    }

    /// Tells these of devices that did not answer in time.
    #[must_use]
    pub fn timing(mut self, timeouts: Timeouts) -> Release {
        self.timeouts = timeouts;
        self
    }

    /// Keeps where an admission is answered.
    pub fn expect_admission(&mut self, socket: SocketId, admission: Admission) {
        self.admissions.insert(socket, admission);
    }

    /// Keeps where a request is answered, and the secret that came with it.
    pub fn expect_answer(&mut self, id: RequestId, answer: Answer, secret: Option<Secret>) {
        self.answers.insert(id, answer);
        if let Some(secret) = secret {
            self.secret_of.insert(id, secret.name.handle);
            self.secrets.insert(secret.name.handle, secret);
        }
    }

    /// A link is gone: nothing more is sent on it.
    pub fn forget_link(&mut self, conn: ConnId) {
        self.mailboxes.remove(&conn);
    }

    /// The next input that performing effects came to.
    pub fn own_input(&mut self) -> Option<Input> {
        self.own.pop_front()
    }

    /// Whether such inputs wait.
    #[must_use]
    pub fn has_own_input(&self) -> bool {
        !self.own.is_empty()
    }

    /// Links with a mailbox.
    #[must_use]
    pub fn links(&self) -> usize {
        self.mailboxes.len()
    }

    /// Performs one effect.
    pub fn perform(&mut self, now: Wall, effect: Effect) {
        match effect {
            Effect::Admit { socket, conn } => self.admit(socket, conn),
            Effect::TurnAway { socket, refusal } => {
                if let Some(admission) = self.admissions.remove(&socket) {
                    // The socket may be gone meanwhile; there is nobody to tell then.
                    let _ = admission.send(Err(refusal));
                }
            }
            Effect::Send { conn, frame } => self.send(conn, frame),
            Effect::Close { conn, why } => self.close(conn, why),
            Effect::Object { ticket, op } => {
                self.gauge.update(|figures| figures.object_operations += 1);
                // The executor ends with the site only; nobody waits for outcomes then.
                let _ = self.objects.send((ticket, op));
            }
            Effect::Policy { ticket, op } => {
                // As with objects.
                let _ = self.policies.send((ticket, op));
            }
            Effect::Reply { to, answer } => {
                if let Some(handle) = self.secret_of.remove(&to) {
                    self.secrets.remove(&handle);
                }
                if let Some(waiting) = self.answers.remove(&to) {
                    // Whoever asked may have gone; what was decided stands without them.
                    let _ = waiting.send(answer);
                }
            }
            Effect::Publish(notice) => self.publish(now, &notice),
            Effect::Gate(gate) => {
                let gate = match gate {
                    Gate::Open => ingest::Gate::Open,
                    Gate::Full => ingest::Gate::Full,
                    Gate::Stopping => ingest::Gate::Closed("the site is stopping".to_owned()),
                };
                let before = self.gate.send_replace(gate.clone());
                match (before, &gate) {
                    (ingest::Gate::Open | ingest::Gate::Closed(_), ingest::Gate::Full) => tracing::warn!(
                        "the disk is nearly full: devices may not upload until there is room (edge.reserve)"
                    ),
                    (ingest::Gate::Full, ingest::Gate::Open) => {
                        tracing::warn!("there is room again: devices may upload");
                    }
                    _ => {}
                }
                self.feed.board().gate(gate);
            }
            Effect::Freeze { key } => self.frozen.freeze(key.as_str()),
            Effect::Thaw { key } => self.frozen.thaw(key.as_str()),
            Effect::Grant { token, scope } => self.grants.add(token, scope),
            Effect::Bar { token } => self.grants.remove(token),
        }
    }

    fn publish(&self, now: Wall, notice: &Notice) {
        let told = self.feed.publish(now, notice);
        match (notice, told) {
            (Notice::Timeout { device, action, budget_ms, elapsed_ms }, _) => {
                let target = format!("recorder {device} {}", action.name());
                let (budget, elapsed) =
                    (Duration::from_millis(*budget_ms), Duration::from_millis(*elapsed_ms));
                self.timeouts.out(Op::Rpc, &target, budget, elapsed);
            }
            (notice, Some(suppressed)) => log(notice, suppressed),
            // The log says what the stream says: one status of a device may be refused a thousand times.
            (_, None) => {}
        }
    }

    /// Wakes those who follow what was published. Once per batch: they are many, and what they do then is little.
    pub fn flush(&self, now: Wall) {
        for (notice, suppressed) in self.feed.publish_held(now) {
            log(&notice, suppressed);
        }
        self.feed.flush();
    }

    /// How soon [`Release::flush`] should be called even if nothing is performed; `None` if that may wait for ever.
    #[must_use]
    pub fn flush_within(&self) -> Option<Duration> {
        self.feed.holds_back().then_some(REFUSALS_EVERY)
    }

    fn admit(&mut self, socket: SocketId, conn: ConnId) {
        let (mailbox, outbound) = mpsc::channel(OUTBOUND);
        let answered = match self.admissions.remove(&socket) {
            Some(admission) => admission.send(Ok(Admitted { conn, outbound })).is_ok(),
            None => false,
        };
        if answered {
            self.mailboxes.insert(conn, mailbox);
        } else {
            // The socket went while it was being admitted: the core must hear that its link is gone.
            self.own.push_back(Input::Lost { conn, why: LostWhy::Broken });
        }
    }

    fn send(&mut self, conn: ConnId, frame: Frame) {
        // A link that is gone already: its `Lost` is on the way.
        let Some(mailbox) = self.mailboxes.get(&conn) else { return };
        let text = match frame.secret {
            None => frame.text,
            Some(name) => {
                let placeholder = format!("\"tidegate-secret:{}\"", name.handle);
                let secret = self.secrets.get(&name.handle).filter(|_| frame.text.contains(&placeholder));
                let Some(secret) = secret else {
                    tracing::warn!(
                        connection = conn.generation(),
                        secret = name.handle,
                        "a frame was not sent: its secret is no longer known; the call will time out"
                    );
                    self.gauge.update(|figures| figures.frames_dropped += 1);
                    return;
                };
                let value = serde_json::Value::String(secret.value.clone()).to_string();
                frame.text.replace(&placeholder, &value)
            }
        };
        self.mail(conn, mailbox.clone(), Outbound::Text(text));
    }

    fn close(&mut self, conn: ConnId, why: CloseWhy) {
        let (code, reason) = match why {
            CloseWhy::Replaced => (4001, "replaced by a newer connection"),
            CloseWhy::GoingAway => (1001, "site is stopping"),
            CloseWhy::Revoked => (4003, "token revoked"),
            CloseWhy::Quarantined => (4002, "quarantined: a message of this program crashed the site"),
        };
        // Dropping the mailbox ends the link even if there was no room to say why.
        if let Some(mailbox) = self.mailboxes.remove(&conn) {
            let _ = mailbox.try_send(Outbound::Close { code, reason });
        }
    }

    fn mail(&mut self, conn: ConnId, mailbox: mpsc::Sender<Outbound>, outbound: Outbound) {
        match mailbox.try_send(outbound) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => {
                tracing::warn!(connection = conn.generation(), "a link takes nothing any more and is closed");
                self.mailboxes.remove(&conn);
                self.gauge.update(|figures| figures.links_stuck += 1);
                self.own.push_back(Input::Lost { conn, why: LostWhy::Stuck });
            }
            // The link ended by itself; its task says why.
            Err(TrySendError::Closed(_)) => {
                self.mailboxes.remove(&conn);
            }
        }
    }
}

/// One event per change that people may look for. `suppressed` like it were not told before it.
fn log(notice: &Notice, suppressed: u64) {
    match notice {
        Notice::Recorder(view) => tracing::debug!(
            device = %view.device, state = view.state, task = view.task, confidence = view.confidence,
            version = view.version, "recorder"
        ),
        Notice::Link { device, role, link, why, .. } => tracing::info!(
            device = %device, role = role.name(), generation = link.as_ref().map(|link| link.generation),
            remote = link.as_ref().map(|link| link.remote.as_str()), why,
            "{}", if link.is_some() { "link up" } else { "link down" }
        ),
        Notice::OperationUnknown { device, action, task, .. } => tracing::warn!(
            device = %device, action = action.name(), task = task.as_deref(), "nobody knows how a command ended"
        ),
        Notice::Takeover { device, role, old, new } => tracing::info!(
            device = %device, role = role.name(), old = old.remote, new = new.remote,
            generation = new.generation, "a newer connection took over"
        ),
        Notice::Contest { device, role, contest } => match contest {
            Some(view) => tracing::warn!(
                device = %device, role = role.name(), one = view.owners[0], other = view.owners[1],
                takeovers = view.takeovers, "two programs fight over one device id"
            ),
            None => {
                tracing::info!(device = %device, role = role.name(), "the fight over a device id is over")
            }
        },
        Notice::Conflict { device, conflict } => match conflict {
            Some(view) => tracing::warn!(
                device = %device, kind = view.kind.name(), state = view.device_state, task = view.device_task,
                "a recorder contradicts its records: a person should decide"
            ),
            None => tracing::info!(device = %device, "a recorder agrees with its records again"),
        },
        // Told with all other timeouts, and counted.
        Notice::Timeout { .. } => {}
        Notice::Task { row, from, change } => tracing::info!(
            task = %row.id, device = %row.device, attempt = row.attempt, state = row.state.name(),
            from = from.map(tidegate_core::row::TaskState::name), error = row.error.as_deref(), change, "task"
        ),
        Notice::Recording { row } => tracing::info!(
            episode = row.id.0, task = %row.task, device = %row.device, len = row.len, "recording verified"
        ),
        Notice::Overdue { row } => tracing::warn!(
            task = %row.id, device = %row.device, "a task waits for its recording for too long"
        ),
        Notice::Transfer { device, .. } => tracing::debug!(device = %device, "uploader status"),
        Notice::Progress { episode, job, uploaded, total, .. } => {
            tracing::debug!(episode = episode.0, job = job.0, uploaded, total, "upload progress");
        }
        Notice::ProgressEnded { episode } => tracing::debug!(episode = episode.0, "upload ended"),
        Notice::Destination { streak, fault, next_try } => match fault {
            Some(fault) => tracing::warn!(
                fault,
                streak,
                next_try_ms = next_try.map(|at| at.0),
                "the cloud cannot be reached as it should"
            ),
            None => tracing::info!("the cloud works"),
        },
        Notice::Refused { device, code, detail } => {
            tracing::info!(device = %device, code, detail, suppressed, "a message was refused");
        }
        Notice::StrayUnseen { job, key, fault } => tracing::warn!(
            job = job.0, key = %key, fault,
            "an unfinished upload may be left in the cloud, and the store does not list them: look there, or let the bucket expire unfinished uploads"
        ),
        Notice::Policy { news, view } => {
            let (generation, set) = (view.generation, view.set);
            match news {
                PolicyNews::Booted | PolicyNews::Prepared => {
                    tracing::debug!(generation, ?set, "policies: {news}");
                }
                PolicyNews::Admitted(_)
                | PolicyNews::Turned(_)
                | PolicyNews::Probed
                | PolicyNews::Released(_)
                | PolicyNews::Shadowed { .. }
                | PolicyNews::ShadowEnded
                | PolicyNews::Retired(_) => tracing::info!(generation, ?set, "policies: {news}"),
                PolicyNews::Rejected { .. }
                | PolicyNews::Unprepared(_)
                | PolicyNews::Faulted(_)
                | PolicyNews::Quarantined { .. } => tracing::warn!(generation, ?set, "policies: {news}"),
            }
        }
        Notice::Queue(counts) => tracing::debug!(
            due = counts.due,
            waiting = counts.waiting,
            uploading = counts.uploading,
            parked = counts.parked,
            "queue"
        ),
    }
}

#[cfg(test)]
mod tests;
