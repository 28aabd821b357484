//! Invariants of links, commands, requests and acknowledgements: I01 to I10, I20 for `upload_ack`.

use std::collections::{BTreeMap, BTreeSet};
use std::format;
use std::prelude::v1::*;

use serde_json::Value;

use super::watch::{Seen, broken, demand, episodes, tasks};
use crate::change::{Change, TaskChange};
use crate::digest::Sha256;
use crate::effect::{CloseWhy, Effect, Frame, Notice, RecorderView, Response};
use crate::fact::Reported;
use crate::id::{Boot, ConnId, DeviceId, RequestId, Role};
use crate::input::{Action, Demand, Input, Request, Resolve};
use crate::limits;
use crate::refusal::{Broken, Refusal};
use crate::row::{Key, Row, TaskState};
use crate::time::{Mono, Now};
use crate::wire::transfer::{Announced, UploadStatus};
use crate::wire::{RecorderMessage, TransferMessage};

/// A command that is out.
#[derive(Clone, Debug)]
struct Rpc {
    action: Action,
    task: Option<String>,
    /// Which request it carries, if its parameters tell.
    mark: Option<RequestId>,
    sent: Mono,
    /// How it ended: nothing yet, answered, or unknown.
    end: Option<End>,
    /// In which step it ended.
    ended: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Answered,
    TimedOut,
    LinkLost,
}

/// The last report of a recorder that counts.
#[derive(Clone, Debug)]
struct Snap {
    state: Reported,
    task: Option<String>,
    at: Mono,
}

/// A link, as a patient observer remembers it.
#[derive(Clone, Debug)]
struct Link {
    device: DeviceId,
    role: Role,
    rpcs: BTreeMap<String, Rpc>,
    snap: Option<Snap>,
    pushed: Option<i64>,
    /// Whether what it reported may be believed: necessary for `confirmed`, not sufficient.
    trusted: bool,
    asking_failed: bool,
    /// It said that nothing changed, as a recorder does when it connects, and no question was answered or failed since.
    greeted: bool,
}

impl Link {
    /// `get_state` was refused, or not answered: all that may still be believed is a greeting.
    fn fail(&mut self) {
        self.trusted = core::mem::take(&mut self.greeted);
        self.asking_failed = !self.trusted;
    }
}

/// What a device's uploader said since the site started, over all its links.
#[derive(Clone, Debug, Default)]
struct Said {
    /// By wire id: lengths and digests.
    claims: BTreeMap<String, Vec<Announced>>,
    /// Recordings that wait for an acknowledgement.
    waits: BTreeSet<String>,
}

/// What the watch remembers between steps.
#[derive(Debug, Default)]
pub(super) struct LinkWatch {
    links: BTreeMap<ConnId, Link>,
    current: BTreeMap<(DeviceId, Role), ConnId>,
    newest: Option<ConnId>,
    requests: BTreeMap<RequestId, Request>,
    rpc_ids: BTreeSet<String>,
    steps: u64,
    shut: bool,
    said: BTreeMap<DeviceId, Said>,
    /// The tokens that proved links.
    tokens: BTreeMap<ConnId, Sha256>,
    /// From where recorders last proved themselves, and by which token.
    near: BTreeMap<DeviceId, (String, Sha256)>,
    /// Which current links could be believed before this step.
    trusted_before: BTreeMap<ConnId, bool>,
    /// How often the premises held.
    pub(super) premises: BTreeMap<&'static str, u64>,
    /// Confidence words and refusals that were seen, for coverage.
    pub(super) words: BTreeSet<String>,
}

impl LinkWatch {
    fn met(&mut self, invariant: &'static str) {
        *self.premises.entry(invariant).or_default() += 1;
    }

    /// Requests without an answer.
    pub(super) fn unanswered(&self) -> impl Iterator<Item = (&RequestId, &Request)> {
        self.requests.iter()
    }

    /// Commands that are out on links that are current.
    pub(super) fn outstanding(&self) -> usize {
        self.links.values().flat_map(|link| link.rpcs.values()).filter(|rpc| rpc.end.is_none()).count()
    }

    /// Whether a link is its device's current one.
    pub(super) fn is_current(&self, conn: ConnId) -> bool {
        self.current.values().any(|current| *current == conn)
    }

    pub(super) fn step(&mut self, seen: &Seen<'_>) -> Result<(), Broken> {
        self.steps += 1;
        self.trusted_before = self.current.values().map(|conn| (*conn, self.links[conn].trusted)).collect();
        self.hear(seen)?;
        let mut admitted = None;
        for effect in &seen.out.effects {
            match effect {
                Effect::Admit { socket, conn } => {
                    demand("I01", admitted.is_none(), || format!("two links of one knock: {effect:?}"))?;
                    admitted = Some(*conn);
                    let Input::Knock { socket: knocked, device, role, .. } = seen.input else {
                        return broken("I01", format!("{effect:?} without a knock"));
                    };
                    demand("I01", socket == knocked, || format!("{effect:?} of another socket"))?;
                    self.admit(seen, *conn, device, *role)?;
                }
                Effect::TurnAway { socket, .. } => {
                    let knocked = matches!(seen.input, Input::Knock { socket: s, .. } if s == socket);
                    demand("I01", knocked && admitted.is_none(), || format!("{effect:?}"))?;
                }
                Effect::Send { conn, frame } => self.sent(seen, *conn, frame)?,
                Effect::Close { conn, why } => {
                    let known = self.links.contains_key(conn);
                    let fits = match why {
                        CloseWhy::Replaced => {
                            matches!(seen.input, Input::Knock { .. })
                                && (admitted.is_none() || !self.is_current(*conn))
                        }
                        CloseWhy::GoingAway => self.shut,
                        // Nothing panics in this world.
                        CloseWhy::Quarantined => false,
                        CloseWhy::Revoked => {
                            !self.is_current(*conn)
                                && matches!(seen.input, Input::Request { request: Request::Roster(_), .. })
                        }
                    };
                    demand("I02", known && fits, || format!("{effect:?} on {:?}", seen.input))?;
                }
                Effect::Reply { to, answer } => self.answered(seen, *to, answer)?,
                Effect::Publish(Notice::Recorder(view)) => self.shown(seen, view)?,
                Effect::Publish(_)
                | Effect::Object { .. }
                | Effect::Policy { .. }
                | Effect::Gate(_)
                | Effect::Freeze { .. }
                | Effect::Thaw { .. }
                | Effect::Grant { .. }
                | Effect::Bar { .. } => {}
            }
        }
        if let Input::Knock { socket, device, role, .. } = seen.input {
            let decided = seen.out.effects.iter().filter(|effect| match effect {
                Effect::Admit { socket: s, .. } | Effect::TurnAway { socket: s, .. } => s == socket,
                _ => false,
            });
            demand("I01", decided.count() == 1, || {
                format!("{socket:?} of {device} {role:?} was not decided")
            })?;
        }
        self.proven(seen)?;
        self.bounded(seen)
    }

    /// What the input alone tells an observer.
    fn hear(&mut self, seen: &Seen<'_>) -> Result<(), Broken> {
        match seen.input {
            Input::Boot { .. } => {
                self.links.clear();
                self.tokens.clear();
                self.near.clear();
                self.current.clear();
                self.requests.clear();
                self.said.clear();
                self.shut = false;
                Ok(())
            }
            Input::Wake => {
                let timeout = seen.knobs.rpc_timeout();
                let step = self.steps;
                for link in self.links.values_mut() {
                    let mut failed = Vec::new();
                    for rpc in link.rpcs.values_mut() {
                        if rpc.end.is_none() && rpc.sent.after(timeout) <= seen.now.mono {
                            rpc.end = Some(End::TimedOut);
                            rpc.ended = step;
                            failed.push(rpc.action);
                        }
                    }
                    for action in failed {
                        match action {
                            Action::GetStats => {}
                            Action::GetState => link.fail(),
                            _ => (link.trusted, link.greeted) = (false, false),
                        }
                    }
                }
                Ok(())
            }
            Input::Recorder { conn, message } => {
                if self.is_current(*conn) && self.links[conn].role == Role::Recorder {
                    self.reported(*conn, message, seen.now);
                    Ok(())
                } else {
                    self.met("I03");
                    silent(seen)
                }
            }
            Input::Transfer { conn, message } => {
                if self.is_current(*conn) && self.links[conn].role == Role::Transfer {
                    self.claimed(*conn, message);
                    Ok(())
                } else {
                    self.met("I03");
                    silent(seen)
                }
            }
            Input::Lost { conn, .. } => {
                if self.is_current(*conn) {
                    let link = &self.links[conn];
                    self.current.remove(&(link.device.clone(), link.role));
                    self.end(*conn);
                    Ok(())
                } else {
                    self.met("I03");
                    silent(seen)
                }
            }
            Input::Request { id, request } => {
                self.requests.insert(*id, request.clone());
                for effect in &seen.out.effects {
                    if let Effect::Close { conn, why: CloseWhy::Revoked } = effect
                        && self.is_current(*conn)
                    {
                        let link = &self.links[conn];
                        self.current.remove(&(link.device.clone(), link.role));
                        self.end(*conn);
                    }
                }
                Ok(())
            }
            Input::Shutdown => {
                self.shut = true;
                // Links are closed, and stay what they are until they are lost.
                for conn in self.current.values().copied().collect::<Vec<_>>() {
                    let trusted = self.links[&conn].trusted;
                    self.end(conn);
                    self.links.get_mut(&conn).expect("current").trusted = trusted;
                }
                Ok(())
            }
            Input::Knock { .. }
            | Input::Object { .. }
            | Input::Stored { .. }
            | Input::Space { .. }
            | Input::Policy { .. }
            | Input::Surroundings(_)
            | Input::Quarantined { .. } => Ok(()),
        }
    }

    /// I32: nobody is let in without the proof that is demanded, and what a revoked token proved is closed.
    fn proven(&mut self, seen: &Seen<'_>) -> Result<(), Broken> {
        let good = |token: &Sha256, device: &DeviceId, role: Role| {
            matches!(seen.rows.get(&Key::Token(*token)), Some(Row::Token(row))
                if row.device.as_ref() == Some(device) && row.scope.fits(role))
        };
        if let Input::Knock { socket, device, role, credential, demand: wanted, remote, .. } = seen.input {
            let token = credential.filter(|token| good(token, device, *role));
            let near = self.near.get(device).is_some_and(|(from, by)| {
                from == remote && good(by, device, Role::Recorder) && credential.is_none()
            });
            let may = match wanted {
                Demand::Nothing => true,
                Demand::Token => token.is_some(),
                Demand::TokenOrAddress => token.is_some() || (near && *role == Role::Transfer),
            };
            for effect in &seen.out.effects {
                match effect {
                    Effect::Admit { conn, .. } => {
                        demand("I32", may, || format!("{conn:?} is admitted: {:?}", seen.input))?;
                        if let Some(token) = token {
                            self.tokens.insert(*conn, token);
                            if *role == Role::Recorder {
                                self.near.insert(device.clone(), (remote.clone(), token));
                            }
                            self.met("I32");
                        }
                    }
                    Effect::TurnAway { socket: s, refusal: Refusal::Unauthorized } if s == socket => {
                        demand("I32", token.is_none(), || format!("turned away: {:?}", seen.input))?;
                        self.met("I32.stranger");
                    }
                    _ => {}
                }
            }
        }
        for ((device, role), conn) in &self.current {
            if let Some(token) = self.tokens.get(conn) {
                demand("I32", good(token, device, *role), || format!("{conn:?} of {device} stays"))?;
            }
        }
        Ok(())
    }

    fn end(&mut self, conn: ConnId) {
        let step = self.steps;
        let link = self.links.get_mut(&conn).expect("known");
        link.trusted = false;
        for rpc in link.rpcs.values_mut().filter(|rpc| rpc.end.is_none()) {
            rpc.end = Some(End::LinkLost);
            rpc.ended = step;
        }
    }

    fn reported(&mut self, conn: ConnId, message: &RecorderMessage, now: Now) {
        let step = self.steps;
        let link = self.links.get_mut(&conn).expect("current");
        match message {
            RecorderMessage::StateUpdate { timestamp_ms, previous, current, task } => {
                if let (Some(at), Some(last)) = (timestamp_ms, link.pushed)
                    && *at < last
                {
                    return;
                }
                let Some(word) = current else {
                    (link.trusted, link.greeted) = (false, false);
                    return;
                };
                let state = Reported::of(word);
                if state.holds_task() && task.is_none() {
                    (link.trusted, link.greeted) = (false, false);
                    return;
                }
                link.pushed = timestamp_ms.or(link.pushed);
                link.greeted |= !link.trusted && !link.asking_failed && previous == current;
                link.trusted |= link.asking_failed;
                let task = task.clone().filter(|_| state.holds_task());
                link.snap = Some(Snap { state, task, at: now.mono });
            }
            RecorderMessage::Response { request_id, success, state, task, .. } => {
                let Some(rpc) = link.rpcs.get_mut(request_id).filter(|rpc| rpc.end.is_none()) else { return };
                rpc.end = Some(End::Answered);
                rpc.ended = step;
                let rpc = rpc.clone();
                let get_state = rpc.action == Action::GetState;
                // Counters are no report (device protocol, actions: `get_stats` has no side effect).
                if rpc.action == Action::GetStats {
                    return;
                }
                let kind = state.as_deref().map(Reported::of).filter(|_| *success);
                let named = task.clone().or_else(|| if get_state { None } else { rpc.task.clone() });
                let inherited = named.or_else(|| {
                    let last = link.snap.as_ref().and_then(|snap| snap.task.clone());
                    if matches!(rpc.action, Action::Pause | Action::Resume) { last } else { None }
                });
                let usable = kind.filter(|kind| !kind.holds_task() || inherited.is_some());
                match usable {
                    Some(state) => {
                        link.trusted |= get_state || link.asking_failed;
                        link.asking_failed &= !get_state;
                        link.greeted &= !get_state;
                        let task = inherited.filter(|_| state.holds_task());
                        link.snap = Some(Snap { state, task, at: now.mono });
                    }
                    None if get_state => {
                        // Who answers nonsense contradicts its own greeting; who refuses does not.
                        link.greeted &= !*success;
                        link.fail();
                    }
                    None => {}
                }
            }
            RecorderMessage::ConfigApplied { .. } | RecorderMessage::Other(_) => {}
        }
    }

    fn claimed(&mut self, conn: ConnId, message: &TransferMessage) {
        let said = self.said.entry(self.links[&conn].device.clone()).or_default();
        let mut claim = |announced: &Announced| {
            said.claims.entry(announced.task.clone()).or_default().push(announced.clone());
        };
        match message {
            TransferMessage::UploadComplete(announced) => {
                claim(announced);
                said.waits.insert(announced.task.clone());
            }
            TransferMessage::UploadStarted(announced) => claim(announced),
            TransferMessage::Status(status) => {
                for entry in status.uploads.iter().flatten() {
                    claim(&entry.announced);
                    if entry.status == UploadStatus::WaitAck {
                        said.waits.insert(entry.announced.task.clone());
                    }
                }
                said.waits.extend(status.waiting_ack_tasks.iter().flatten().cloned());
            }
            // It has no copy any more: it may have been uploaded and deleted, and the site looks.
            TransferMessage::UploadNotFound { task, .. } => {
                said.waits.insert(task.clone());
            }
            TransferMessage::UploadFailed { .. } | TransferMessage::Other(_) => {}
        }
    }

    /// I01 and I02: the newest wins, generations only rise, and the old link is told.
    fn admit(&mut self, seen: &Seen<'_>, conn: ConnId, device: &DeviceId, role: Role) -> Result<(), Broken> {
        let newer = self.newest.is_none_or(|newest| conn > newest) && conn.boot == seen.boot;
        demand("I02", newer, || format!("{conn:?} after {:?}", self.newest))?;
        self.newest = Some(conn);
        if let Some(old) = self.current.get(&(device.clone(), role)).copied() {
            let close = Effect::Close { conn: old, why: CloseWhy::Replaced };
            demand("I01", seen.out.effects.contains(&close), || format!("{old:?} of {device} stays open"))?;
            self.met("I01");
            self.end(old);
        }
        self.current.insert((device.clone(), role), conn);
        let link = Link {
            device: device.clone(),
            role,
            rpcs: BTreeMap::new(),
            snap: None,
            pushed: None,
            trusted: false,
            asking_failed: false,
            greeted: false,
        };
        self.links.insert(conn, link);
        Ok(())
    }

    fn sent(&mut self, seen: &Seen<'_>, conn: ConnId, frame: &Frame) -> Result<(), Broken> {
        demand("I01", self.is_current(conn), || format!("{frame:?} on {conn:?}, which is not current"))?;
        let one = frame.text.ends_with('\n') && frame.text.trim_end().lines().count() == 1;
        demand("I06", one, || format!("{frame:?} is no line"))?;
        let Ok(Value::Object(map)) = serde_json::from_str::<Value>(&frame.text) else {
            return broken("I06", format!("{frame:?} is no JSON object"));
        };
        let text = |field: &str| map.get(field).and_then(Value::as_str).map(String::from);
        let kind = text("type").unwrap_or_default();
        match (self.links[&conn].role, kind.as_str()) {
            (Role::Recorder, "rpc_request") => {
                let params = map.get("params").and_then(Value::as_object);
                let nested = params.and_then(|p| p.get("task_config")).and_then(Value::as_object);
                let named = params.and_then(|p| p.get("task_id")).or(nested.and_then(|c| c.get("task_id")));
                let mark = params.and_then(|p| p.get("mark")).or(nested.and_then(|c| c.get("mark")));
                let word = text("action").unwrap_or_default();
                let action = Action::ALL.into_iter().find(|action| action.name() == word);
                let Some(action) = action else { return broken("I06", format!("{frame:?}")) };
                let rpc = Rpc {
                    action,
                    task: named.and_then(Value::as_str).map(String::from),
                    mark: mark.and_then(Value::as_u64).map(RequestId),
                    sent: seen.now.mono,
                    end: None,
                    ended: 0,
                };
                self.commanded(seen, conn, text("request_id").unwrap_or_default(), rpc)
            }
            (Role::Transfer, "upload_ack") => {
                self.acknowledged(seen, conn, &text("task_id").unwrap_or_default())
            }
            (Role::Transfer, "upload_request" | "status_query" | "upload_all" | "cancel") => Ok(()),
            (role, _) => broken("I06", format!("{frame:?} to a {}", role.name())),
        }
    }

    /// I06, I07 and I10 when a command leaves.
    fn commanded(&mut self, seen: &Seen<'_>, conn: ConnId, id: String, rpc: Rpc) -> Result<(), Broken> {
        demand("I07", !id.is_empty() && self.rpc_ids.insert(id.clone()), || format!("RPC id {id} again"))?;
        let link = &self.links[&conn];
        let out = |action: &&Rpc| action.end.is_none();
        let mutating = link.rpcs.values().filter(out).find(|other| other.action.mutates());
        let alone = !rpc.action.mutates() || mutating.is_none();
        demand("I06", alone, || format!("{rpc:?} while {mutating:?} is out"))?;
        let row = rpc.task.as_ref().and_then(|wire| {
            tasks(seen.rows).find(|row| row.wire.as_str() == wire && row.device == link.device).cloned()
        });
        if let Some(task) = &rpc.task
            && rpc.action != Action::GetState
        {
            // A finish or cancel may name what the recorder itself said; anything else must be this device's.
            let own = row.is_some() || matches!(rpc.action, Action::Finish | Action::Cancel);
            demand("I06", own, || format!("{:?} of {task}, which is not of {}", rpc.action, link.device))?;
        }
        let was = |state: TaskState| {
            let key = row.as_ref().map(|row| crate::row::Key::Task(row.id.clone()));
            let before = key.and_then(|key| seen.was(&key).cloned());
            matches!(before, Some(crate::row::Row::Task(row)) if row.state == state)
        };
        let fresh = |snap: &Snap| snap.at.until(seen.now.mono).as_millis() <= u128::from(seen.knobs.fresh_ms);
        let snap = link.snap.as_ref().filter(|snap| link.trusted && fresh(snap));
        match rpc.action {
            Action::Config => {
                // A configuration for an attempt that was given up may be replaced by one for the next.
                let left = |wire: &str| {
                    row.iter().any(|row| {
                        let mut earlier = row.earlier.iter().flatten();
                        earlier.any(|e| crate::id::WireId::of_attempt(&row.id, e.attempt).as_str() == wire)
                    })
                };
                let open = snap.is_some_and(|snap| {
                    let stale = snap.task.as_deref().is_some_and(left);
                    snap.state == Reported::Idle || (snap.state == Reported::Ready && stale)
                });
                demand("I06", open, || format!("config on {link:?}"))?;
                let uploader = self.current.contains_key(&(link.device.clone(), Role::Transfer));
                demand("I06", uploader, || format!("config of {} without its uploader", link.device))?;
                // It may have been put back in this very step.
                let back = |change: &Change| match change {
                    Change::Task(TaskChange::Returned { task, .. }) => {
                        row.as_ref().is_some_and(|row| row.id == *task)
                    }
                    _ => false,
                };
                let free = was(TaskState::Pending) || seen.out.changes.iter().any(back);
                demand("I06", free, || format!("config of {row:?}"))?;
                self.met("I06.config");
            }
            Action::Begin => {
                let ready = snap.is_some_and(|snap| snap.state == Reported::Ready && snap.task == rpc.task);
                demand("I06", ready, || format!("begin on {link:?}"))?;
                let may = was(TaskState::Pending) || was(TaskState::Ready);
                demand("I06", may, || format!("begin of {row:?}"))?;
                let noted = row.as_ref().is_some_and(|row| row.begun);
                demand("I09", noted, || format!("begin before its intent: {row:?}"))?;
                self.met("I06.begin");
            }
            Action::GetState
            | Action::GetStats
            | Action::Finish
            | Action::Pause
            | Action::Resume
            | Action::Cancel
            | Action::Clear
            | Action::Quit => {}
        }
        self.links.get_mut(&conn).expect("current").rpcs.insert(id, rpc);
        Ok(())
    }

    /// I20: the device may delete its copy only if the very bytes it announced are here, verified and committed.
    fn acknowledged(&mut self, seen: &Seen<'_>, conn: ConnId, wire: &str) -> Result<(), Broken> {
        let link = &self.links[&conn];
        let mut of_wire =
            episodes(seen.rows).filter(|row| row.wire.as_str() == wire && row.device == link.device);
        let Some(row) = of_wire.next() else {
            return broken("I20", format!("{wire} of {} is acknowledged and is no episode", link.device));
        };
        let several = of_wire.count() > 0;
        let said = self.said.get(&link.device).cloned().unwrap_or_default();
        demand("I20", said.waits.contains(wire), || format!("{wire} is acknowledged, and nobody asked"))?;
        let claims = said.claims.get(wire).map(Vec::as_slice).unwrap_or_default();
        let fits = |claim: &Announced| {
            claim.len.is_none_or(|len| len == row.len) && claim.sha256.is_none_or(|sha| sha == row.sha256)
        };
        let claimed = several || claims.is_empty() || claims.iter().any(fits);
        demand("I20", claimed, || format!("{wire} is acknowledged against {claims:?}: {row:?}"))?;
        let there = seen.stores.edge.objects.get(&row.key);
        let kept = there.is_some_and(|object| object.len() == row.len && object.sha256() == row.sha256);
        let carried = matches!(row.sync, crate::row::SyncMark::Synced { .. });
        demand("I20", kept || carried || several, || {
            format!("{wire} is acknowledged, edge {there:?}: {row:?}")
        })?;
        self.met("I20.ack");
        Ok(())
    }

    /// I07 and I08: one answer per request, and an unknown end is called unknown.
    fn answered(
        &mut self,
        seen: &Seen<'_>,
        to: RequestId,
        answer: &Result<Response, Refusal>,
    ) -> Result<(), Broken> {
        let Some(request) = self.requests.remove(&to) else {
            return broken("I07", format!("{to:?} is answered again, or was never asked: {answer:?}"));
        };
        self.met("I07");
        if let Err(refusal) = answer {
            let word: String =
                format!("{refusal:?}").chars().take_while(char::is_ascii_alphanumeric).collect();
            self.words.insert(format!("refusal {word}"));
        }
        if let Ok(Response::State(view)) = answer {
            self.shown(seen, view)?;
        }
        // A person who settles a conflict may do so by a command.
        let (device, actions): (&DeviceId, &[Action]) = match &request {
            Request::Command(command) => (&command.device, core::slice::from_ref(&command.action)),
            Request::Resolve { device, how: Resolve::Finish, .. } => (device, &[Action::Finish]),
            Request::Resolve { device, how: Resolve::Drop, .. } => (device, &[Action::Cancel, Action::Clear]),
            _ => {
                let rpc = matches!(answer, Ok(Response::Rpc { .. }));
                return demand("I07", !rpc, || format!("{request:?} got {answer:?}"));
            }
        };
        let carried =
            self.links.values().flat_map(|link| link.rpcs.values()).find(|rpc| rpc.mark == Some(to));
        let step = self.steps;
        if let Some(rpc) = carried {
            let now = rpc.ended == step;
            let fits = match (answer, rpc.end) {
                (Ok(Response::Rpc { .. }), Some(End::Answered)) => now,
                (Err(Refusal::RpcTimeout(action)), Some(End::TimedOut)) => now && actions.contains(action),
                (Err(Refusal::LinkLost { action }), Some(End::LinkLost)) => now && actions.contains(action),
                _ => false,
            };
            let rpc = format!("{rpc:?}");
            self.met("I08");
            demand("I08", fits, || format!("{request:?} got {answer:?}; {rpc}"))?;
        }
        if let Ok(Response::Rpc { request_id, success, .. }) = answer {
            let said = matches!(seen.input, Input::Recorder {
                message: RecorderMessage::Response { request_id: id, success: s, .. }, ..
            } if id == request_id && s == success);
            demand("I07", said, || format!("{answer:?} on {:?}", seen.input))?;
            let Input::Recorder { conn, .. } = seen.input else { return Ok(()) };
            let link = &self.links[conn];
            let rpc = link.rpcs.get(request_id);
            let own = link.device == *device && rpc.is_some_and(|rpc| actions.contains(&rpc.action));
            let first = rpc.is_some_and(|rpc| rpc.ended == step);
            demand("I07", own && first, || format!("{request:?} got the answer to {rpc:?}"))?;
        }
        Ok(())
    }

    /// I04: what viewers are told of a recorder never claims more than an observer could know.
    fn shown(&mut self, seen: &Seen<'_>, view: &RecorderView) -> Result<(), Broken> {
        self.words.insert(format!("confidence {}", view.confidence));
        let confirmed = view.confidence == "confirmed";
        demand("I04", confirmed == view.synced, || format!("{view:?}"))?;
        if !confirmed {
            return Ok(());
        }
        let conn = self.current.get(&(view.device.clone(), Role::Recorder));
        let Some(conn) = conn else { return broken("I04", format!("confirmed without a link: {view:?}")) };
        let link = &self.links[conn];
        // Several deadlines may pass in one step; a view between two of them is of before.
        let trusted = link.trusted
            || self.trusted_before.get(conn).is_some_and(|was| *was && *seen.input == Input::Wake);
        demand("I04", trusted && view.connected, || format!("confirmed on {link:?}: {view:?}"))?;
        demand("I02", view.generation == conn.generation(), || format!("{view:?} of {conn:?}"))?;
        let idle = Reported::of(&view.state).holds_task() || view.task.is_empty();
        demand("I05", idle, || format!("carries a task: {view:?}"))?;
        let kind = link.snap.as_ref().map(|snap| snap.state);
        let same = kind == Some(Reported::of(&view.state)) || *seen.input == Input::Wake;
        demand("I04", same, || format!("shows {view:?} of {link:?}"))?;
        self.met("I04");
        Ok(())
    }

    /// I10: commands out are bounded.
    fn bounded(&mut self, seen: &Seen<'_>) -> Result<(), Broken> {
        let boot: Boot = seen.boot;
        for (conn, link) in &self.links {
            let out = link.rpcs.values().filter(|rpc| rpc.end.is_none()).count();
            demand("I10", out <= limits::CALLS_PER_LINK, || format!("{out} commands on {conn:?}"))?;
            demand("I10", out == 0 || (self.is_current(*conn) && conn.boot == boot), || {
                format!("{conn:?} is dead and has commands out")
            })?;
        }
        Ok(())
    }
}

/// I03: nothing comes of it.
fn silent(seen: &Seen<'_>) -> Result<(), Broken> {
    let out = seen.out;
    let nothing = out.changes.is_empty() && out.rows.is_empty() && out.effects.is_empty();
    demand("I03", nothing, || format!("{:?} did something: {out:?}", seen.input))
}
