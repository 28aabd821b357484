//! Invariants of tasks and episodes: the task graph and its causes (I11), one episode per key and its judgement (I15),
//! what an acknowledgement promises (I20), and that nothing a device deleted is lost (I15, by the devices' own logs).

mod model;
mod recordings;
mod verdicts;

use std::collections::{BTreeMap, BTreeSet};

use tidegate_core::change::{Change, EpisodeChange, TaskCause, TaskChange};
use tidegate_core::effect::{Effect, Response};
use tidegate_core::id::{ConnId, DeviceId, EpisodeId, ObjectKey, Role, TaskId, WireId};
use tidegate_core::input::{Input, Request};
use tidegate_core::object::is_recording_of;
use tidegate_core::outcome::Outcome;
use tidegate_core::row::{EpisodeRow, Key, Row, TaskRow, TaskState};
use tidegate_core::wire::recorder::names;
use tidegate_core::wire::transfer::{Announced, UploadStatus};
use tidegate_core::wire::{RecorderMessage, TransferMessage};

use super::rows::{self, Image, Sites};
use super::{Broken, Happened, Premises, Seen, Truth, Watch, demand};
use crate::device::Deed;
use crate::store::Content;
use model::{Model, model, next, task_of};

#[derive(Debug, Default)]
struct Tasks {
    tasks: BTreeMap<TaskId, Model>,
    /// Episodes of each recording.
    of_wire: BTreeMap<(DeviceId, WireId), Vec<EpisodeId>>,
    of_key: BTreeMap<ObjectKey, EpisodeId>,
    /// Whose link it is, and whether it was replaced.
    links: BTreeMap<ConnId, (DeviceId, Role)>,
    current: BTreeMap<(DeviceId, Role), ConnId>,
    /// What current uploaders last said of a key.
    said: BTreeMap<(DeviceId, ObjectKey), Announced>,
    /// What was said when the upload to a key began; older programs tell the mode only then.
    started: BTreeMap<(DeviceId, ObjectKey), Announced>,
    /// What was said of a recording without a key: it may be looked for by its name.
    unkeyed: BTreeMap<(DeviceId, WireId), Announced>,
}

/// What a device's log said so far.
#[derive(Clone, Debug, Default)]
struct Diary {
    read: usize,
    files: BTreeMap<String, Content>,
    deleted: BTreeSet<String>,
}

/// Watches tasks and episodes.
#[derive(Debug, Default)]
pub struct TaskWatch {
    premises: Premises,
    sites: Sites<Tasks>,
    diaries: Vec<Diary>,
    /// Which device's log is read next.
    turn: usize,
}

impl Tasks {
    fn load(&mut self, image: &Image) {
        *self = Tasks::default();
        for row in rows::tasks(image) {
            self.tasks.insert(row.id.clone(), model(row));
        }
        for row in rows::episodes(image) {
            self.enter(row);
        }
    }

    fn enter(&mut self, row: &EpisodeRow) {
        self.of_wire.entry((row.device.clone(), row.wire.clone())).or_default().push(row.id);
        self.of_key.insert(row.key.clone(), row.id);
    }

    /// Who is connected, from what was admitted.
    fn links(&mut self, seen: &Seen<'_>) {
        if let Input::Knock { socket, device, role, .. } = seen.input {
            for effect in &seen.out.effects {
                if let Effect::Admit { socket: to, conn } = effect
                    && to == socket
                {
                    self.links.insert(*conn, (device.clone(), *role));
                    self.current.insert((device.clone(), *role), *conn);
                }
            }
        }
        if let Input::Lost { conn, .. } = seen.input
            && let Some(link) = self.links.remove(conn)
            && self.current.get(&link) == Some(conn)
        {
            self.current.remove(&link);
        }
    }

    /// What a current uploader says is whole in the store.
    fn hear(&mut self, input: &Input) {
        let Input::Transfer { conn, message } = input else { return };
        let Some(link) = self.links.get(conn).filter(|link| self.current.get(*link) == Some(conn)).cloned()
        else {
            return;
        };
        let under_way = |entry: &&tidegate_core::wire::transfer::UploadEntry| {
            matches!(entry.status, UploadStatus::Pending | UploadStatus::Active | UploadStatus::RetryWait)
        };
        let began: Vec<&Announced> = match message {
            TransferMessage::UploadStarted(announced) => vec![announced],
            TransferMessage::Status(status) => {
                let entries = status.uploads.iter().flatten().filter(under_way);
                entries.map(|entry| &entry.announced).collect()
            }
            _ => Vec::new(),
        };
        for announced in began {
            if let Some(key) = announced.key.as_deref().and_then(|key| ObjectKey::new(key).ok()) {
                self.started.insert((link.0.clone(), key), announced.clone());
            }
        }
        // Programs say it also of what they are uploading or have uploaded: the site looks by what was said at the start.
        if let TransferMessage::UploadNotFound { task, .. } = message {
            let of_task = |((device, _), said): &(&(DeviceId, ObjectKey), &Announced)| {
                *device == link.0 && said.task.trim() == task.trim()
            };
            let began = self.started.iter().filter(of_task).map(|(at, said)| (at.clone(), said.clone()));
            for (at, said) in began.collect::<Vec<_>>() {
                self.said.entry(at).or_insert(said);
            }
        }
        self.hear_unkeyed(&link.0, message);
        let waiting =
            |entry: &&tidegate_core::wire::transfer::UploadEntry| entry.status == UploadStatus::WaitAck;
        let said: Vec<&Announced> = match message {
            TransferMessage::UploadComplete(announced) => vec![announced],
            TransferMessage::Status(status) => {
                let entries = status.uploads.iter().flatten().filter(waiting);
                entries.map(|entry| &entry.announced).collect()
            }
            _ => return,
        };
        for announced in said {
            // Saying less later takes nothing back, as long as the attempt goes on.
            let open = WireId::new(announced.task.trim()).ok().is_some_and(|wire| {
                let of = |(id, model): (&TaskId, &Model)| {
                    !model.state.is_final() && WireId::of_attempt(id, model.attempt) == wire
                };
                self.attempt_of(&wire).is_some_and(of)
            });
            let Some(key) = announced.key.as_deref().and_then(|key| ObjectKey::new(key).ok()) else {
                // It is about the key that was named before, and what it says counts in the place of what was said then.
                let of = |((device, _), said): &(&(DeviceId, ObjectKey), &mut Announced)| {
                    open && announced.key.is_none() && *device == link.0 && said.task == announced.task
                };
                for (_, said) in self.said.iter_mut().filter(of) {
                    said.len = announced.len.or(said.len);
                    said.sha256 = announced.sha256.or(said.sha256);
                }
                continue;
            };
            let mut all = announced.clone();
            let at = (link.0.clone(), key);
            if let Some(earlier) = self.said.get(&at).filter(|earlier| open && earlier.task == all.task) {
                all.len = all.len.or(earlier.len);
                all.sha256 = all.sha256.or(earlier.sha256);
                all.mcap_only = all.mcap_only.or(earlier.mcap_only);
            }
            all.mcap_only = all.mcap_only.or_else(|| self.started.get(&at)?.mcap_only);
            self.said.insert(at, all);
        }
    }

    /// The task whose attempt a wire id may name: its own name, or with the number of an attempt behind a dot.
    fn attempt_of(&self, wire: &WireId) -> Option<(&TaskId, &Model)> {
        let text = wire.as_str();
        let stem = text.rsplit_once('.').map(|(stem, _)| stem);
        let ids = std::iter::once(text).chain(stem).filter_map(|text| TaskId::new(text).ok());
        let mut known = ids.filter_map(|id| self.tasks.get_key_value(&id));
        known.find(|(id, model)| WireId::of_attempt(id, model.attempt) == *wire)
    }

    /// The device that an input speaks for, if it speaks for one.
    fn speaker<'a>(&'a self, input: &'a Input) -> Option<&'a DeviceId> {
        match input {
            Input::Recorder { conn, .. } | Input::Transfer { conn, .. } => {
                self.links.get(conn).map(|(device, _)| device)
            }
            Input::Request { request: Request::CallbackFinish { device, .. }, .. } => Some(device),
            Input::Request { request: Request::CallbackStart { device, .. }, .. } => device.as_ref(),
            _ => None,
        }
    }

    /// I11: a legal step of the graph, by a cause that is the input that happened.
    fn change(
        &mut self,
        seen: &Seen<'_>,
        change: &TaskChange,
        premises: &mut Premises,
    ) -> Result<(), Broken> {
        premises.met("I11");
        let id = task_of(change);
        let was = self.tasks.get(id).cloned();
        let state = was.as_ref().map(|model| model.state);
        let Some(next) = next(state, change) else {
            return Err(Broken { invariant: "I11", saw: format!("task {id}: {change:?} in {was:?}") });
        };
        self.cause(seen, was.as_ref(), change)?;
        let mut model = match (was, change) {
            (Some(model), _) => model,
            (None, TaskChange::Created { device, .. }) => {
                let (device, earlier) = (device.clone(), Vec::new());
                Model { device, state: next, attempt: 1, begun: false, earlier }
            }
            (None, _) => return Ok(()),
        };
        match change {
            TaskChange::BeginSent { .. } | TaskChange::Started { .. } | TaskChange::Finished { .. } => {
                model.begun = true;
            }
            TaskChange::Returned { attempt, wire, cause, .. } => {
                premises.met("I11.returned");
                // A wire id that was begun may have a file on the device: it is never used again.
                let fits = if model.begun { *attempt > model.attempt } else { *attempt == model.attempt };
                demand("I11", fits && *wire == WireId::of_attempt(id, *attempt), || {
                    format!("task {id}: {change:?} after {model:?}")
                })?;
                let idle = model.state == TaskState::Pending && !model.begun;
                demand("I11", !idle, || format!("task {id}: {change:?} after {model:?}"))?;
                if model.begun {
                    model.leave(*cause != TaskCause::Answer);
                }
                model.begun &= *attempt == model.attempt;
                model.attempt = *attempt;
            }
            TaskChange::Resumed { attempt, wire, .. } => {
                premises.met("I11.resumed");
                // Whatever of the current attempt may be on the device must not be forgotten for an earlier one.
                let known = model.remembered(*attempt).map(|at| model.earlier.remove(at)).is_some();
                let fits = known && !model.begun && *wire == WireId::of_attempt(id, *attempt);
                demand("I11", fits, || format!("task {id}: {change:?} after {model:?}"))?;
                (model.begun, model.attempt) = (true, *attempt);
            }
            TaskChange::Owed { attempt, owed, .. } => {
                let own = *attempt == model.attempt && model.state.is_final();
                if own && model.remembered(*attempt).is_none() {
                    model.leave(*owed);
                }
                let known = model.remembered(*attempt).map(|at| model.earlier[at].1 = *owed);
                demand("I11", known.is_some(), || format!("task {id}: {change:?} after {model:?}"))?;
            }
            _ => {}
        }
        model.state = next;
        self.tasks.insert(id.clone(), model);
        Ok(())
    }

    /// Recordings that are named without a key.
    fn hear_unkeyed(&mut self, device: &DeviceId, message: &TransferMessage) {
        let nothing_more = |task: &String| Announced {
            task: task.clone(),
            key: None,
            len: None,
            sha256: None,
            mcap_only: None,
        };
        let named: Vec<Announced> = match message {
            TransferMessage::UploadComplete(announced) => vec![announced.clone()],
            TransferMessage::UploadNotFound { task, .. } => vec![nothing_more(task)],
            TransferMessage::Status(status) => {
                let entries = status.uploads.iter().flatten();
                let waiting = entries.filter(|entry| entry.status == UploadStatus::WaitAck);
                let ids = status.waiting_ack_tasks.iter().flatten().map(nothing_more);
                waiting.map(|entry| entry.announced.clone()).chain(ids).collect()
            }
            _ => Vec::new(),
        };
        for announced in named.into_iter().filter(|announced| announced.key.is_none()) {
            if let Ok(wire) = WireId::new(announced.task.trim()) {
                self.unkeyed.insert((device.clone(), wire), announced);
            }
        }
    }

    /// What was said of an episode's recording: of its key, or of its name if the key is one that its name has.
    fn said_of(&self, device: &DeviceId, row: &EpisodeRow) -> Option<Announced> {
        let at = (device.clone(), row.key.clone());
        if let Some(said) = self.said.get(&at) {
            return Some(said.clone());
        }
        let began = self.started.get(&at);
        let known = began.is_some() || is_recording_of(row.key.as_str(), device, &row.wire);
        let mut said = self.unkeyed.get(&(device.clone(), row.wire.clone())).filter(|_| known)?.clone();
        said.mcap_only = said.mcap_only.or_else(|| began?.mcap_only);
        Some(said)
    }

    fn cause(&self, seen: &Seen<'_>, was: Option<&Model>, change: &TaskChange) -> Result<(), Broken> {
        let wire = was.map(|model| WireId::of_attempt(task_of(change), model.attempt));
        let own =
            self.speaker(seen.input).is_none_or(|device| was.is_none_or(|model| model.device == *device));
        let named = |text: Option<&str>| text.map(str::trim) == wire.as_ref().map(WireId::as_str);
        let report = match seen.input {
            Input::Recorder { message: RecorderMessage::Other(_), .. } => false,
            // A question that failed: whether an earlier greeting named the task is another invariant's, I05.
            Input::Wake
            | Input::Recorder { message: RecorderMessage::Response { success: false, .. }, .. } => true,
            Input::Recorder { message, .. } => named(names(message)),
            _ => false,
        };
        let answer = matches!(seen.input, Input::Recorder { message: RecorderMessage::Response { .. }, .. });
        let request = |wanted: fn(&Request) -> bool| matches!(seen.input, Input::Request { request, .. } if wanted(request));
        let stored = matches!(seen.input, Input::Object { outcome: Outcome::Done(_), .. });
        let fits = match change {
            TaskChange::Created { .. } => request(|r| matches!(r, Request::CreateTask { .. })),
            TaskChange::Cancelled { .. } => request(|r| matches!(r, Request::CancelTask { .. })),
            TaskChange::Completed { task, .. } => {
                let recorded = |change: &Change| match change {
                    Change::Episode(EpisodeChange::Recorded(row)) => {
                        row.task == *task && Some(&row.wire) == wire.as_ref()
                    }
                    _ => false,
                };
                stored && seen.out.changes.iter().any(recorded)
            }
            TaskChange::Failed { .. } => match seen.input {
                Input::Transfer { message: TransferMessage::UploadFailed { task, .. }, .. } => {
                    named(Some(task))
                }
                Input::Request { request: Request::ResolveTask { .. }, .. } => true,
                _ => false,
            },
            TaskChange::Readied { cause, .. } => match cause {
                TaskCause::Answer => answer,
                TaskCause::Report => report,
                TaskCause::ConfigApplied => {
                    let applied = RecorderMessage::ConfigApplied { task: None };
                    report
                        && matches!(seen.input, Input::Recorder { message, .. }
                            if std::mem::discriminant(message) == std::mem::discriminant(&applied))
                }
                _ => false,
            },
            TaskChange::Started { cause, .. } => match cause {
                TaskCause::Answer => answer,
                TaskCause::Report => report,
                TaskCause::Callback => request(|r| matches!(r, Request::CallbackStart { .. })),
                _ => false,
            },
            TaskChange::Finished { cause, .. } => match cause {
                TaskCause::Callback => request(|r| matches!(r, Request::CallbackFinish { .. })),
                // The uploader named it before, or the store has it.
                TaskCause::Transfer => stored || matches!(seen.input, Input::Transfer { .. } | Input::Wake),
                // It answered `finish`, and its callback never came.
                TaskCause::Answer => answer || matches!(seen.input, Input::Wake),
                _ => false,
            },
            // What a report or its absence proves is looked at where the links are.
            TaskChange::Returned { cause, .. } => match cause {
                TaskCause::Answer => answer,
                TaskCause::Report => matches!(seen.input, Input::Recorder { .. } | Input::Wake),
                TaskCause::Absent => true,
                TaskCause::Resolved => matches!(seen.input, Input::Request { .. }),
                _ => false,
            },
            TaskChange::Resumed { cause, .. } => match cause {
                // By a wake: nobody answered the question, and the greeting stands.
                TaskCause::Report => matches!(seen.input, Input::Recorder { .. } | Input::Wake),
                TaskCause::Resolved => matches!(seen.input, Input::Request { .. }),
                _ => false,
            },
            TaskChange::ConfigSent { .. } | TaskChange::BeginSent { .. } => {
                seen.out.effects.iter().any(|effect| matches!(effect, Effect::Send { .. }))
            }
            TaskChange::Noted { .. } | TaskChange::Owed { .. } => true,
        };
        demand("I11", fits && own, || format!("{change:?} of {was:?} came of {:?}", seen.input))
    }

    /// A record of a task that was touched says what its changes say.
    fn row(&self, seen: &Seen<'_>, id: &TaskId, old: Option<&Row>) -> Result<(), Broken> {
        let Some(row) = rows::task(seen.rows, id) else {
            return Err(Broken { invariant: "I11", saw: format!("task {id} is gone") });
        };
        let known = self.tasks.get(id);
        let same = known == Some(&model(row));
        demand("I11", same, || format!("task {id} is {row:?}, its changes say {known:?}"))?;
        demand("I11", row.wire == WireId::of_attempt(id, row.attempt), || format!("wire of {row:?}"))?;
        let alias = || matches!(seen.rows.get(&Key::Alias(row.wire.clone())), Some(Row::Alias(alias)) if alias.task == *id);
        demand("I11", row.attempt == 1 || alias(), || format!("{} names no task", row.wire))?;
        demand("I11", row.completed_at.is_some() == row.state.is_final(), || {
            format!("completed_at of {row:?}")
        })?;
        let Some(Row::Task(old)) = old else { return Ok(()) };
        let kept = (&old.id, &old.device, old.created_at, &old.config)
            == (&row.id, &row.device, row.created_at, &row.config);
        demand("I11", kept, || format!("task {id} is another: {old:?} {row:?}"))?;
        // What is owed of a task that is over may still arrive.
        let at_rest =
            !old.state.is_final() || TaskRow { earlier: row.earlier.clone(), ..old.clone() } == *row;
        demand("I11", at_rest, || format!("task {id} is over, and changed: {old:?} {row:?}"))
    }
}

impl TaskWatch {
    /// Reads what a device wrote into its log since it was last read; checks what it deleted.
    fn diary(&mut self, truth: &Truth<'_>, n: usize) -> Result<(), Broken> {
        if self.diaries.len() < truth.devices.len() {
            self.diaries.resize(truth.devices.len(), Diary::default());
        }
        let (Some(device), Some(diary)) = (truth.devices.get(n), self.diaries.get_mut(n)) else {
            return Ok(());
        };
        let mut fresh = Vec::new();
        for (_, deed) in device.log.iter().skip(diary.read) {
            match deed {
                Deed::Finished { wire, content, .. } => {
                    diary.files.insert(wire.clone(), content.clone());
                }
                Deed::Deleted { wire } => {
                    diary.deleted.insert(wire.clone());
                    fresh.push(wire.clone());
                }
                _ => {}
            }
        }
        diary.read = device.log.len();
        let site = self.sites.at(device.spec.site);
        for wire in fresh {
            site.kept(truth, device, &self.diaries[n], &wire, &mut self.premises)?;
        }
        Ok(())
    }

    /// Everything that any device of a site ever deleted is still safe.
    fn all_kept(&mut self, truth: &Truth<'_>, site: usize) -> Result<(), Broken> {
        for (n, device) in truth.devices.iter().enumerate().filter(|(_, device)| device.spec.site == site) {
            self.diary(truth, n)?;
            let known = self.sites.at(site);
            for wire in &self.diaries[n].deleted {
                known.kept(truth, device, &self.diaries[n], wire, &mut self.premises)?;
            }
        }
        Ok(())
    }
}

impl Watch for TaskWatch {
    fn step(&mut self, seen: &Seen<'_>) -> Result<(), Broken> {
        let (site, premises) = (self.sites.at(seen.site), &mut self.premises);
        if let Input::Boot { .. } = seen.input {
            site.links.clear();
            site.current.clear();
            site.said.clear();
            site.unkeyed.clear();
        }
        site.hear(seen.input);
        for change in &seen.out.changes {
            match change {
                Change::Task(change) => site.change(seen, change, premises)?,
                Change::Episode(change) => site.episode_change(seen, change, premises)?,
                Change::Job(_) | Change::Upload(_) | Change::Policy(_) | Change::Roster(_) => {}
            }
        }
        for (key, old) in seen.before {
            match (key, old) {
                (Key::Task(id), old) => site.row(seen, id, old.as_ref())?,
                (Key::Episode(id), Some(Row::Episode(old))) => {
                    let Some(new) = rows::episode(seen.rows, *id) else {
                        return Err(Broken { invariant: "I15", saw: format!("episode {id} is gone") });
                    };
                    let same = (&old.key, old.len, old.sha256, &old.sidecar, &old.task, &old.wire)
                        == (&new.key, new.len, new.sha256, &new.sidecar, &new.task, &new.wire);
                    demand("I15", same && old.public_id == new.public_id, || {
                        format!("episode {id} is another: {old:?} {new:?}")
                    })?;
                }
                (Key::Binding(at), Some(Row::Binding(old))) => {
                    let kept = matches!(seen.rows.get(key), Some(Row::Binding(new))
                        if (&new.task, &new.wire) == (&old.task, &old.wire)
                            && (old.episode.is_none() || new.episode == old.episode));
                    demand("I15", kept, || {
                        format!("{at} belonged to {old:?}, now to {:?}", seen.rows.get(key))
                    })?;
                }
                _ => {}
            }
        }
        site.links(seen);
        for effect in &seen.out.effects {
            match effect {
                Effect::Send { conn, frame } => site.acknowledged(seen, *conn, &frame.text, premises)?,
                Effect::Reply { answer: Ok(Response::Task(row)), .. } => {
                    let known = site.tasks.get(&row.id);
                    demand("I11", known == Some(&model(row)), || format!("told {row:?}, is {known:?}"))?;
                }
                _ => {}
            }
        }
        self.turn = self.turn.wrapping_add(1);
        let count = seen.truth.devices.len().max(1);
        self.diary(&seen.truth, self.turn % count)
    }

    fn happened(&mut self, truth: &Truth<'_>, what: &Happened<'_>) -> Result<(), Broken> {
        match what {
            Happened::Up { site } => {
                let image = &truth.images[*site];
                let known = self.sites.at(*site);
                // What survived a crash without being flushed was shown before: a record is what was seen of it last.
                for row in rows::tasks(image) {
                    let old = known.tasks.remove(&row.id);
                    demand("I11", old.as_ref() == Some(&model(row)), || {
                        format!("task {} was {old:?} and is {row:?}", row.id)
                    })?;
                }
                demand("I11", known.tasks.is_empty(), || format!("tasks are gone: {:?}", known.tasks))?;
                known.load(image);
                self.all_kept(truth, *site)
            }
            // Between the acknowledgement and the cloud nobody may change the copy at the edge.
            Happened::Released { site, effect: Effect::Send { conn, frame } } => {
                let Some(wire) = rows::acked(&frame.text) else { return Ok(()) };
                let known = self.sites.at(*site);
                let Some((device, _)) = known.links.get(conn) else { return Ok(()) };
                let own = known.of_wire.get(&(device.clone(), wire.clone())).into_iter().flatten();
                let mut own = own.filter_map(|id| rows::episode(&truth.images[*site], *id));
                self.premises.met("I20.frozen");
                let edge = &truth.edges[*site];
                let held = own.any(|row| row.removed_at.is_some() || edge.frozen.contains(&row.key));
                demand("I20", held, || format!("{wire} is acknowledged, and anybody may change it"))
            }
            // What a third party did is in the store's record; what it means is looked at where it matters.
            Happened::Down { .. }
            | Happened::Undone { .. }
            | Happened::Released { .. }
            | Happened::Called { .. }
            | Happened::Stepped { .. }
            | Happened::Tampered { .. } => Ok(()),
        }
    }

    fn end(&mut self, truth: &Truth<'_>) -> Result<(), Broken> {
        for site in 0..truth.images.len() {
            self.all_kept(truth, site)?;
        }
        Ok(())
    }

    fn premises(&self) -> &Premises {
        &self.premises
    }

    fn invariants(&self) -> &'static [&'static str] {
        &[
            "I11",
            "I11.resumed",
            "I11.returned",
            "I15.alone",
            "I15.checked",
            "I15.deleted",
            "I15.judged",
            "I20",
            "I20.ack",
            "I20.frozen",
            "I20.honest",
        ]
    }
}
