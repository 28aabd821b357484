//! Commands and requests, as seen from outside: I06 to I10, and of I27 what concerns links.
//!
//! A lying device voids only I09: what it did is in its log, but what the site was told of it is not so.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tidegate_core::change::{Change, TaskCause, TaskChange};
use tidegate_core::effect::{Effect, Frame, Notice, Output, Response};
use tidegate_core::fact::Reported;
use tidegate_core::id::{ConnId, DeviceId, RequestId, Role, WireId};
use tidegate_core::input::{Action, Input, Request, Resolve};
use tidegate_core::limits;
use tidegate_core::refusal::Refusal;
use tidegate_core::row::{Key, Row, TaskRow, TaskState};
use tidegate_core::time::Mono;
use tidegate_core::wire::TransferMessage;

use super::deeds::Lives;
use super::lines::{End, Ended, Heard, Holds, Lines, Rpc};
use super::{Broken, Happened, Premises, Seen, Truth, Watch, demand};
use crate::scenario::{Fault, Lasts};
use crate::time::SimTime;

/// How late a deadline may be noticed once the site is running: a site that stood still first catches up.
const TICK: Duration = Duration::from_secs(1);
/// Most bytes of a frame: the largest request body there is, the largest stored configuration, and our own words.
const FRAME_BYTES: usize = (1 << 20) + limits::CONFIG_BYTES + 4096;
/// Most requests that may wait for one device: one per command, and those that wait for its state.
const WAITING: usize = limits::CALLS_PER_LINK + limits::WAITERS_PER_LINK;

/// The watch over commands and requests.
#[derive(Debug, Default)]
pub struct Calls {
    sites: Vec<Site>,
    lives: Lives,
    premises: Premises,
}

/// What a request wants of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Want {
    /// A command.
    Command(DeviceId, Action, Option<String>),
    /// That a conflict is settled by a command: to end what is recorded and keep it, or to drop what is held.
    Settle(DeviceId, Resolve),
    /// Its state.
    Refresh(DeviceId),
    /// Something about policies: who asks may wait for their host.
    Policy,
    /// Nothing.
    Other,
}

impl Want {
    fn of(request: &Request) -> Want {
        match request {
            Request::Command(command) => {
                Want::Command(command.device.clone(), command.action, command.task.clone())
            }
            Request::RefreshState { device, .. } => Want::Refresh(device.clone()),
            Request::Resolve { device, how: how @ (Resolve::Finish | Resolve::Drop), .. } => {
                Want::Settle(device.clone(), *how)
            }
            Request::CallbackStart { .. }
            | Request::CallbackFinish { .. }
            | Request::CreateTask { .. }
            | Request::CancelTask { .. }
            | Request::Transfer { .. }
            | Request::ResolveTask { .. }
            | Request::Judge { .. }
            | Request::Sync { .. }
            | Request::SyncBatch
            | Request::Roster(_)
            | Request::Resolve { .. } => Want::Other,
            Request::Policy(_) => Want::Policy,
        }
    }

    fn device(&self) -> Option<&DeviceId> {
        match self {
            Want::Command(device, ..) | Want::Settle(device, _) | Want::Refresh(device) => Some(device),
            Want::Policy | Want::Other => None,
        }
    }
}

/// A request that waits for its answer.
#[derive(Debug)]
struct Asked {
    want: Want,
    /// The command on the wire that carries it; none carries `get_state`, many share one.
    rpc: Option<String>,
}

/// What is remembered of one site.
#[derive(Debug, Default)]
struct Site {
    lines: Lines,
    asked: BTreeMap<RequestId, Asked>,
    waiting: BTreeMap<DeviceId, BTreeSet<RequestId>>,
    /// Whose request a command carries.
    carries: BTreeMap<String, RequestId>,
    /// Answers that were decided and did not leave yet.
    owed: BTreeSet<RequestId>,
    /// Ids of all commands of this boot.
    ids: BTreeSet<String>,
    /// How the last `begin` of a wire id ended: when, and whether its device refused it.
    begins: BTreeMap<String, (u64, bool)>,
    /// Wire ids for which a `begin` was ever sent, over all boots.
    begun: BTreeSet<String>,
    /// Uploaders that owe a full status.
    status: BTreeMap<ConnId, Mono>,
    /// Since when a deadline is seen to be overdue.
    late: Option<Mono>,
    /// The last step: by the site's clock and in true time.
    last: Option<(Mono, SimTime)>,
    /// Commands that left in this step.
    fresh: Vec<(DeviceId, Rpc)>,
}

impl Watch for Calls {
    fn step(&mut self, seen: &Seen<'_>) -> Result<(), Broken> {
        if self.sites.len() <= seen.site {
            self.sites.resize_with(seen.site + 1, Site::default);
        }
        let (site, premises) = (&mut self.sites[seen.site], &mut self.premises);
        if let Input::Boot { .. } = seen.input {
            site.forget();
        }
        let speaker = match seen.input {
            Input::Recorder { conn, .. } | Input::Lost { conn, .. } => {
                site.lines.get(*conn).map(|line| line.device.clone())
            }
            _ => None,
        };
        let heard = site.lines.input(seen);
        site.hear(seen, heard, premises)?;
        for effect in &seen.out.effects {
            site.effect(seen, effect, premises)?;
        }
        site.bind(seen, &mut self.lives)?;
        site.moved(seen)?;
        site.settled(seen, premises)?;
        site.punctual(seen.now.mono)?;
        site.last = Some((seen.now.mono, seen.stepped));
        match speaker {
            Some(device) => self.lives.of(&seen.truth, &device, premises),
            None => Ok(()),
        }
    }

    fn happened(&mut self, _: &Truth<'_>, what: &Happened<'_>) -> Result<(), Broken> {
        match what {
            Happened::Down { site, .. } => {
                if let Some(site) = self.sites.get_mut(*site) {
                    site.forget();
                }
                Ok(())
            }
            Happened::Released { site, effect: Effect::Reply { to, answer } } => {
                let owed = self.sites.get_mut(*site).is_some_and(|site| site.owed.remove(to));
                demand("I07", owed, || format!("an answer to {to:?} left, and none was due: {answer:?}"))
            }
            Happened::Released { .. }
            | Happened::Up { .. }
            | Happened::Undone { .. }
            | Happened::Called { .. }
            | Happened::Stepped { .. }
            | Happened::Tampered { .. } => Ok(()),
        }
    }

    fn end(&mut self, truth: &Truth<'_>) -> Result<(), Broken> {
        for (n, site) in self.sites.iter().enumerate() {
            // A process that stands still for ever notices no deadline.
            let stands = |spec: &crate::scenario::FaultSpec| {
                spec.lasts == Lasts::Forever && spec.fault == Fault::Pause { site: n }
            };
            if let Some((mono, at)) = site.last
                && !truth.scenario.faults.iter().any(stands)
            {
                let limit = mono.after(truth.now - at);
                let late = site.lines.first_deadline().filter(|first| first.after(TICK) < limit);
                demand("I10", late.is_none(), || {
                    format!("nobody noticed until {limit:?} that {late:?} passed")
                })?;
            }
        }
        for device in truth.devices {
            self.lives.lived(&device.id, device.honest, &device.log, &mut self.premises)?;
        }
        Ok(())
    }

    fn premises(&self) -> &Premises {
        &self.premises
    }

    fn invariants(&self) -> &'static [&'static str] {
        &["I06", "I07", "I08", "I09", "I10", "I27.waiting"]
    }
}

impl Site {
    /// The process is gone and its memory with it. What was ever begun is not.
    fn forget(&mut self) {
        let begun = std::mem::take(&mut self.begun);
        *self = Site { begun, ..Site::default() };
    }

    /// What the input alone asks for.
    fn hear(&mut self, seen: &Seen<'_>, heard: Heard, premises: &mut Premises) -> Result<(), Broken> {
        match seen.input {
            Input::Request { id, request } => {
                let want = Want::of(request);
                if let Some(device) = want.device() {
                    let waiting = self.waiting.entry(device.clone()).or_default();
                    waiting.insert(*id);
                    // This one may yet be turned away in this very step.
                    let many = waiting.len();
                    if many >= limits::WAITERS_PER_LINK {
                        premises.met("I27.waiting");
                    }
                    demand("I27", many <= WAITING + 1, || format!("{many} requests wait for {device}"))?;
                }
                let again = self.asked.insert(*id, Asked { want, rpc: None });
                demand("I07", again.is_none(), || format!("{id:?} is asked twice"))
            }
            Input::Recorder { .. } if heard == Heard::Unmatched => {
                premises.met("I07.late");
                let out = seen.out;
                let silent = out.changes.is_empty() && out.rows.is_empty() && out.effects.is_empty();
                demand("I07", silent, || format!("{:?} answers nothing and did {out:?}", seen.input))
            }
            Input::Transfer { conn, message } => {
                let told = matches!(message, TransferMessage::Status(status)
                    if status.uploads.is_some() || status.waiting_ack_tasks.is_some());
                // It answers in order: what it says so late comes after the answer.
                let late = |since: &Mono| since.until(seen.now.mono) >= limits::STATUS_OWED_MAX;
                if told || self.status.get(conn).is_some_and(late) {
                    self.status.remove(conn);
                }
                Ok(())
            }
            Input::Lost { conn, .. } => {
                self.status.remove(conn);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn effect(&mut self, seen: &Seen<'_>, effect: &Effect, premises: &mut Premises) -> Result<(), Broken> {
        match effect {
            Effect::Admit { conn, .. } => {
                if let Input::Knock { device, role, .. } = seen.input {
                    let old = self.lines.admit(*conn, device, *role);
                    old.map(|old| self.status.remove(&old));
                }
                Ok(())
            }
            Effect::Send { conn, frame } => self.sent(seen, *conn, frame, premises),
            Effect::Reply { to, answer } => self.answered(seen, *to, answer, premises),
            Effect::Publish(Notice::OperationUnknown { device, action, .. }) => {
                let ended = self.lines.ended.iter().any(|ended| {
                    ended.device == *device && ended.rpc.action == *action && ended.end == End::TimedOut
                });
                demand("I08", ended, || format!("{effect:?}, and no such command passed its deadline"))
            }
            _ => Ok(()),
        }
    }

    /// I06, I07, I09, I10, I27: a frame leaves.
    fn sent(
        &mut self,
        seen: &Seen<'_>,
        conn: ConnId,
        frame: &Frame,
        premises: &mut Premises,
    ) -> Result<(), Broken> {
        let bytes = frame.text.len();
        demand("I27", bytes <= FRAME_BYTES, || format!("a frame of {bytes} bytes on {conn:?}"))?;
        // Frames of links that are not current are another invariant's.
        let Some(line) = self.lines.get(conn) else { return Ok(()) };
        if line.role == Role::Transfer {
            return self.told_uploader(seen, conn, frame);
        }
        let rpc = Rpc::read(&frame.text).filter(|_| one_line(&frame.text));
        let Some(rpc) = rpc else { return demand("I06", false, || format!("no command: {frame:?}")) };
        let new = self.ids.insert(rpc.id.clone());
        demand("I07", new && !rpc.id.is_empty(), || format!("{rpc:?} has the id of another"))?;
        let out: Vec<&Rpc> = line.calls().collect();
        let other = |other: &&&Rpc| other.action.mutates() && rpc.action.mutates();
        let mutating = out.iter().find(other);
        demand("I06", mutating.is_none(), || format!("{rpc:?} while {mutating:?} is out"))?;
        let asks = |rpc: &Rpc| rpc.action == Action::GetState;
        let alone = !asks(&rpc) || !out.iter().any(|other| asks(other));
        demand("I10", alone, || format!("a second {rpc:?} on {conn:?}"))?;
        let many = out.len();
        demand("I10", many < limits::CALLS_PER_LINK, || {
            format!("{rpc:?} besides {many} others on {conn:?}")
        })?;
        premises.met("I10");
        self.permitted(seen, conn, &rpc, premises)?;
        if let (Action::Begin, Some(wire)) = (rpc.action, &rpc.task) {
            self.begun.insert(wire.clone());
        }
        let device = line.device.clone();
        self.fresh.push((device, rpc.clone()));
        self.lines.sent(conn, rpc, seen.now.mono.after(seen.knobs.rpc_timeout()));
        Ok(())
    }

    /// I06, I09: `config` and `begin` need a fresh, confirmed and fitting state and a task that permits them; all others
    /// at least ownership.
    fn permitted(
        &self,
        seen: &Seen<'_>,
        conn: ConnId,
        rpc: &Rpc,
        premises: &mut Premises,
    ) -> Result<(), Broken> {
        let Some(line) = self.lines.get(conn) else { return Ok(()) };
        let row = rpc.task.as_deref().and_then(|wire| task(seen.rows, wire));
        let row = row.filter(|row| row.device == line.device);
        let named = rpc.task.is_some() && rpc.action.mutates();
        // A `finish` or `cancel` may name what the recorder itself said that it records.
        let said = line.report().is_some_and(|report| match &report.holds {
            Holds::Task(wire) => Some(wire) == rpc.task.as_ref(),
            Holds::Unsaid | Holds::Nothing => false,
        });
        // A person settles a conflict by naming what the recorder was shown to hold.
        let settled = matches!(seen.input, Input::Request { request: Request::Resolve { device, holds, .. }, .. }
            if *device == line.device && Some(holds) == rpc.task.as_ref());
        let stops = matches!(rpc.action, Action::Cancel | Action::Clear) && (said || settled);
        let own = !named || row.is_some() || rpc.action == Action::Finish || stops;
        demand("I06", own, || format!("{rpc:?}, and the task is none of {}'s", line.device))?;
        if !matches!(rpc.action, Action::Config | Action::Begin) {
            return Ok(());
        }
        let most = Duration::from_millis(seen.knobs.fresh_ms);
        let fresh = line.report().filter(|report| line.counts() && report.at.until(seen.now.mono) <= most);
        let was = row.and_then(|row| match seen.was(&Key::Task(row.id.clone())) {
            Some(Row::Task(was)) => Some(was),
            _ => None,
        });
        let (Some(report), Some(row), Some(was)) = (fresh, row, was) else {
            return demand("I06", false, || format!("{rpc:?} for {row:?} on {line:?}"));
        };
        if rpc.action == Action::Config {
            let uploader = self.lines.current(&line.device, Role::Transfer).is_some();
            // It may have been put back in this very step; and a configuration for an attempt that was given up is
            // replaced by one for the next without loss.
            let back = |change: &Change| matches!(change, Change::Task(TaskChange::Returned { task, .. }) if *task == row.id);
            let free = was.state == TaskState::Pending || seen.out.changes.iter().any(back);
            let left = row.earlier.iter().flatten().any(|entry| match &report.holds {
                Holds::Task(wire) => WireId::of_attempt(&row.id, entry.attempt).as_str() == wire.as_str(),
                Holds::Unsaid | Holds::Nothing => false,
            });
            let open = report.state == Reported::Idle || (report.state == Reported::Ready && left);
            let fits = open && free && uploader;
            demand("I06", fits, || format!("{rpc:?}: {report:?}, uploader {uploader}, {was:?}"))?;
            // A begun attempt may have a recording on the device: another configuration lets it be overwritten.
            let begun = row.begun || self.begun.contains(row.wire.as_str());
            demand("I09", !begun, || format!("{rpc:?} of an attempt that was begun: {was:?}"))?;
            premises.met("I06.config");
        } else {
            let ready = report.state == Reported::Ready;
            let same = match &report.holds {
                Holds::Task(wire) => Some(wire) == rpc.task.as_ref(),
                Holds::Unsaid => true,
                Holds::Nothing => false,
            };
            let state = matches!(was.state, TaskState::Pending | TaskState::Ready);
            demand("I06", ready && same && state, || format!("{rpc:?}: {report:?}, {was:?}"))?;
            // Without a durable note a crash would let the same attempt be begun again by somebody who knows nothing.
            demand("I09", row.begun, || format!("{rpc:?} before its intent is durable: {row:?}"))?;
            // Whatever came of the first: a wire id is begun once.
            let first = rpc.task.as_ref().is_none_or(|wire| !self.begins.contains_key(wire));
            demand("I09", !was.begun && first, || format!("{rpc:?} once more: {report:?}, {was:?}"))?;
            premises.met("I06.begin");
        }
        premises.met("I06");
        Ok(())
    }

    /// I27: an uploader owes at most one status.
    fn told_uploader(&mut self, seen: &Seen<'_>, conn: ConnId, frame: &Frame) -> Result<(), Broken> {
        let kinds = ["upload_request", "upload_ack", "status_query", "upload_all", "cancel"];
        let kind = kinds.into_iter().find(|kind| frame.text.contains(&format!("\"type\":\"{kind}\"")));
        demand("I06", kind.is_some() && one_line(&frame.text), || format!("{frame:?} to an uploader"))?;
        if kind != Some("status_query") {
            return Ok(());
        }
        let before = self.status.insert(conn, seen.now.mono);
        let free = before.is_none_or(|since| since.until(seen.now.mono) >= limits::STATUS_LOST);
        demand("I27", free, || format!("another status_query on {conn:?}, the last was at {before:?}"))
    }

    /// I07, I08: one answer to each request, and what nobody knows is called unknown.
    fn answered(
        &mut self,
        seen: &Seen<'_>,
        to: RequestId,
        answer: &Result<Response, Refusal>,
        premises: &mut Premises,
    ) -> Result<(), Broken> {
        let Some(asked) = self.asked.remove(&to) else {
            return demand("I07", false, || format!("{to:?} waits for no answer: {answer:?}"));
        };
        premises.met("I07");
        self.owed.insert(to);
        if let Some(waiting) = asked.want.device().and_then(|device| self.waiting.get_mut(device)) {
            waiting.remove(&to);
        }
        let now = matches!(seen.input, Input::Request { id, .. } if *id == to);
        let saw = || format!("{:?} got {answer:?}; ended: {:?}", asked.want, self.lines.ended);
        match &asked.want {
            Want::Policy | Want::Other => {
                demand("I07", !says_rpc(answer), saw)?;
                demand("I08", says_unknown(answer).is_none(), saw)
            }
            Want::Refresh(device) => {
                demand("I07", !says_rpc(answer), saw)?;
                demand("I08", says_unknown(answer).is_none() && self.refreshed(device, answer), saw)
            }
            // It never became a command.
            Want::Settle(..) => {
                demand("I07", !says_rpc(answer) && answer.is_err(), saw)?;
                demand("I08", says_unknown(answer).is_none(), saw)
            }
            Want::Command(device, action, _) => {
                let ended = match &asked.rpc {
                    Some(id) => {
                        let ended = self.lines.ended.iter().find(|ended| ended.rpc.id == *id);
                        // Too early: it may still be answered.
                        demand("I08", ended.is_some(), || format!("{} is still out", saw()))?;
                        ended
                    }
                    None if *action == Action::GetState && !now => {
                        let ended = self.question(device);
                        demand("I08", ended.is_some(), || format!("get_state is still out: {}", saw()))?;
                        ended
                    }
                    None => None,
                };
                let Some(ended) = ended else {
                    // It was never sent.
                    demand("I07", !says_rpc(answer) && answer.is_err(), saw)?;
                    demand("I08", says_unknown(answer).is_none() && self.refreshed(device, answer), saw)?;
                    return Ok(());
                };
                match ended.end {
                    End::Answered { success } => {
                        let same = matches!(answer, Ok(Response::Rpc { request_id, success: said, .. })
                            if *request_id == ended.rpc.id && *said == success);
                        demand(if says_rpc(answer) { "I07" } else { "I08" }, same, saw)
                    }
                    End::TimedOut => {
                        premises.met("I08");
                        let same = matches!(answer, Err(Refusal::RpcTimeout(of)) if of == action);
                        demand("I08", same, saw)
                    }
                    End::Lost | End::Stopped => {
                        premises.met("I08");
                        let same = matches!(answer, Err(Refusal::LinkLost { action: of }) if of == action);
                        demand("I08", same, saw)
                    }
                }
            }
        }
    }

    /// How the `get_state` of a device ended in this step.
    fn question(&self, device: &DeviceId) -> Option<&Ended> {
        let of = |ended: &&Ended| ended.device == *device && ended.rpc.action == Action::GetState;
        self.lines.ended.iter().find(of)
    }

    /// Whether a failed refresh says rightly whether there was no answer or a useless one.
    fn refreshed(&self, device: &DeviceId, answer: &Result<Response, Refusal>) -> bool {
        let Err(Refusal::RefreshFailed { timeout, .. }) = answer else { return true };
        self.question(device).is_some_and(|ended| *timeout == (ended.end == End::TimedOut))
    }

    /// I08: a command leaves because somebody waits for it, and for each request once. Finds out whose it is.
    fn bind(&mut self, seen: &Seen<'_>, lives: &mut Lives) -> Result<(), Broken> {
        for (device, rpc) in std::mem::take(&mut self.fresh) {
            if rpc.action == Action::GetState {
                continue;
            }
            let may = |id: &RequestId| match self.asked.get(id) {
                Some(Asked { want: Want::Command(of, action, _), rpc: None }) => {
                    *of == device && *action == rpc.action
                }
                Some(Asked { want: Want::Settle(of, how), rpc: None }) => {
                    let finish = rpc.action == Action::Finish;
                    let drop = matches!(rpc.action, Action::Cancel | Action::Clear);
                    *of == device && if *how == Resolve::Finish { finish } else { drop }
                }
                Some(_) | None => false,
            };
            let this = match seen.input {
                Input::Request { id, .. } => Some(*id).filter(may),
                _ => None,
            };
            // What waited for a fresh state was judged in the same step: whoever is left is on the wire.
            let left = || self.waiting.get(&device).and_then(|ids| ids.iter().copied().find(may));
            let Some(id) = this.or_else(left) else {
                return demand("I08", false, || {
                    format!("{rpc:?} leaves for {device}, and nobody waits for it")
                });
            };
            if let Some(asked) = self.asked.get_mut(&id) {
                asked.want = Want::Command(device.clone(), rpc.action, rpc.task.clone());
                asked.rpc = Some(rpc.id.clone());
            }
            self.carries.insert(rpc.id.clone(), id);
            if let (Action::Config, Some(wire)) = (rpc.action, rpc.task) {
                *lives.asked.entry((device, wire)).or_default() += 1;
            }
        }
        Ok(())
    }

    /// I07, I08: only an answer that came moves a task as an answer does; what is unknown waits for the device's reports.
    fn moved(&self, seen: &Seen<'_>) -> Result<(), Broken> {
        for change in &seen.out.changes {
            let (id, by): (_, &[Action]) = match change {
                Change::Task(TaskChange::Readied { task, cause: TaskCause::Answer, .. }) => {
                    (task, &[Action::Config])
                }
                Change::Task(TaskChange::Started { task, cause: TaskCause::Answer, .. }) => {
                    (task, &[Action::Begin])
                }
                Change::Task(TaskChange::Returned { task, cause: TaskCause::Answer, .. }) => {
                    // What was refused to begin is never begun again under its name.
                    (task, &[Action::Cancel, Action::Clear, Action::Begin])
                }
                _ => continue,
            };
            let was = match seen.was(&Key::Task(id.clone())) {
                Some(Row::Task(row)) => Some(row.wire.as_str()),
                _ => None,
            };
            // `clear` names its task to us and not to the device.
            let of =
                |rpc: &Rpc| by.contains(&rpc.action) && (rpc.task.is_none() || rpc.task.as_deref() == was);
            let refused = matches!(change, Change::Task(TaskChange::Returned { .. }));
            let done = |ended: &Ended| {
                let success = !(refused && ended.rpc.action == Action::Begin);
                ended.end == End::Answered { success } && of(&ended.rpc)
            };
            let unknown = |ended: &Ended| !matches!(ended.end, End::Answered { .. }) && of(&ended.rpc);
            let blame = if self.lines.ended.iter().any(unknown) { "I08" } else { "I07" };
            demand(blame, self.lines.ended.iter().any(done), || {
                format!("{change:?} on {:?}; ended: {:?}", seen.input, self.lines.ended)
            })?;
        }
        Ok(())
    }

    /// I07, I08, I10: at the end of a step whoever waits waits for something that has a deadline.
    fn settled(&mut self, seen: &Seen<'_>, premises: &mut Premises) -> Result<(), Broken> {
        for ended in &self.lines.ended {
            if ended.rpc.action == Action::Begin
                && let Some(wire) = &ended.rpc.task
            {
                let refused = ended.end == End::Answered { success: false };
                self.begins.insert(wire.clone(), (ended.event, refused));
            }
            let (blame, premise) = match ended.end {
                End::Answered { .. } => ("I07", "I07.answered"),
                End::TimedOut => ("I10", "I08.timed_out"),
                End::Lost => ("I10", "I08.lost"),
                End::Stopped => ("I10", "I08.stopped"),
            };
            premises.met(premise);
            let id = self.carries.remove(&ended.rpc.id);
            let told = id.is_none_or(|id| !self.asked.contains_key(&id));
            demand(blame, told, || format!("{ended:?}, and {id:?} still waits"))?;
            if ended.end == End::TimedOut && ended.rpc.action.mutates() {
                let told = tells_unknown(seen.out, ended);
                demand("I08", told, || format!("{ended:?}, and no viewer was told that it is unknown"))?;
            }
        }
        if let Input::Request { id, .. } = seen.input {
            let other = self.asked.get(id).is_some_and(|asked| asked.want == Want::Other);
            demand("I07", !other, || format!("{:?} was not answered", seen.input))?;
            let device = self.asked.get(id).and_then(|asked| asked.want.device());
            device.map_or(Ok(()), |device| self.waits(device))?;
        }
        for device in &self.lines.touched {
            self.waits(device)?;
        }
        Ok(())
    }

    /// I10, I27: those who wait for a device are bounded, and each waits for a command that is out.
    fn waits(&self, device: &DeviceId) -> Result<(), Broken> {
        let Some(waiting) = self.waiting.get(device).filter(|waiting| !waiting.is_empty()) else {
            return Ok(());
        };
        let many = waiting.len();
        demand("I27", many <= WAITING, || format!("{many} requests wait for {device}"))?;
        // Those who waited for a question that ended are told or sent on; the next question is not theirs.
        let asking = self.question(device).is_none()
            && self
                .lines
                .recorder(device)
                .is_some_and(|line| line.calls().any(|rpc| rpc.action == Action::GetState));
        let idle =
            waiting.iter().find(|id| !asking && self.asked.get(id).is_some_and(|asked| asked.rpc.is_none()));
        demand("I10", idle.is_none(), || format!("{idle:?} waits for {device}, and nothing is out"))
    }

    /// I10: no deadline is overdue for longer than a tick in which the site ran.
    fn punctual(&mut self, now: Mono) -> Result<(), Broken> {
        match self.lines.first_deadline().filter(|first| *first <= now) {
            None => self.late = None,
            Some(first) => {
                let since = *self.late.get_or_insert(now);
                demand("I10", since.after(TICK) > now, || {
                    format!("the deadline {first:?} was seen overdue at {since:?} and still is at {now:?}")
                })?;
            }
        }
        Ok(())
    }
}

/// A task by the wire id of its current attempt.
fn task<'a>(rows: &'a BTreeMap<Key, Row>, wire: &str) -> Option<&'a TaskRow> {
    let wire = WireId::new(wire).ok()?;
    let first = tidegate_core::id::TaskId::new(wire.as_str()).ok().and_then(|id| rows.get(&Key::Task(id)));
    let of = |row: Option<&'a Row>| match row {
        Some(Row::Task(row)) if row.wire == wire => Some(row),
        _ => None,
    };
    of(first).or_else(|| match rows.get(&Key::Alias(wire.clone())) {
        Some(Row::Alias(alias)) => of(rows.get(&Key::Task(alias.task.clone()))),
        _ => None,
    })
}

fn one_line(text: &str) -> bool {
    text.ends_with('\n') && text.lines().count() == 1
}

fn says_rpc(answer: &Result<Response, Refusal>) -> bool {
    matches!(answer, Ok(Response::Rpc { .. }))
}

fn says_unknown(answer: &Result<Response, Refusal>) -> Option<Action> {
    match answer {
        Err(Refusal::RpcTimeout(action) | Refusal::LinkLost { action }) => Some(*action),
        _ => None,
    }
}

fn tells_unknown(out: &Output, ended: &Ended) -> bool {
    out.effects.iter().any(|effect| {
        matches!(effect, Effect::Publish(Notice::OperationUnknown { device, action, .. })
            if *device == ended.device && *action == ended.rpc.action)
    })
}

#[cfg(test)]
#[path = "calls_tests.rs"]
mod tests;
