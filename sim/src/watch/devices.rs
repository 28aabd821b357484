//! Invariants of records against devices: why a task is put back (I30), and what is shown as a conflict (I31). Believes of
//! a device what its site last showed of it, and asks the rows for the rest.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tidegate_core::change::{Change, TaskCause, TaskChange};
use tidegate_core::effect::{ConflictKind, Effect, Notice};
use tidegate_core::fact::Reported;
use tidegate_core::id::{ConnId, DeviceId, Role, TaskId, WireId};
use tidegate_core::input::{Input, Request};
use tidegate_core::limits;
use tidegate_core::row::{Key, Row, TaskRow, TaskState};
use tidegate_core::time::Mono;

use super::rows::{self, Sites};
use super::{Broken, Happened, Premises, Seen, Truth, Watch, demand};

/// What a recorder does, as its site last showed it confirmed on the link that is up.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Shown {
    state: Reported,
    task: String,
    /// Since when it is shown on this link.
    first: Mono,
    /// What it recorded on this link and does not any more, and since when.
    left: BTreeMap<String, Mono>,
}

impl Shown {
    /// The wire id of what it records.
    fn records(&self) -> Option<&str> {
        matches!(self.state, Reported::Recording | Reported::Paused).then_some(self.task.as_str())
    }

    /// Since when it is shown not to record this.
    fn without(&self, wire: &str) -> Mono {
        self.left.get(wire).copied().unwrap_or(self.first)
    }
}

#[derive(Debug, Default)]
struct Site {
    /// Recorder links that are up, and those of them that are current.
    links: BTreeMap<ConnId, DeviceId>,
    current: BTreeMap<DeviceId, ConnId>,
    /// Since when there is none, or none that said anything that was believed.
    gone: BTreeMap<DeviceId, Mono>,
    booted: Option<Mono>,
    /// Those who were believed once since the site started.
    met: BTreeSet<DeviceId>,
    shown: BTreeMap<DeviceId, Shown>,
    /// Those whose state was shown as confirmed in this step.
    believed: BTreeSet<DeviceId>,
    conflicts: BTreeMap<DeviceId, (ConflictKind, String)>,
    /// What is shown as another attempt's on the link that is up although its task could go on as that one, and since when.
    left: BTreeMap<DeviceId, (ConnId, String, Mono)>,
}

/// Watches what records say of devices.
#[derive(Debug, Default)]
pub struct DeviceWatch {
    premises: Premises,
    sites: Sites<Site>,
}

impl Site {
    /// Who is connected, and what their site shows of them.
    fn hear(&mut self, seen: &Seen<'_>) {
        let now = seen.now.mono;
        self.believed.clear();
        match seen.input {
            Input::Boot { .. } => *self = Site { booted: Some(now), ..Site::default() },
            Input::Lost { conn, .. } => {
                if let Some(device) = self.links.remove(conn)
                    && self.current.get(&device) == Some(conn)
                {
                    self.current.remove(&device);
                    // One that flaps and says nothing is away all the time.
                    if self.shown.remove(&device).is_some() || !self.gone.contains_key(&device) {
                        self.gone.insert(device, now);
                    }
                }
            }
            Input::Knock { socket, device, role: Role::Recorder, .. } => {
                for effect in &seen.out.effects {
                    if let Effect::Admit { socket: to, conn } = effect
                        && to == socket
                    {
                        self.links.insert(*conn, device.clone());
                        self.current.insert(device.clone(), *conn);
                        self.shown.remove(device);
                    }
                }
            }
            _ => {}
        }
        for effect in &seen.out.effects {
            let Effect::Publish(notice) = effect else { continue };
            match notice {
                Notice::Recorder(view) if view.connected && view.synced => {
                    let was = self.shown.remove(&view.device);
                    let first = was.as_ref().map_or(now, |was| was.first);
                    let mut left = was.as_ref().map_or_else(BTreeMap::new, |was| was.left.clone());
                    if let Some(wire) = was.as_ref().and_then(Shown::records) {
                        left.insert(wire.to_owned(), now);
                    }
                    let state = Reported::of(&view.state);
                    let shown = Shown { state, task: view.task.clone(), first, left };
                    self.shown.insert(view.device.clone(), shown);
                    self.believed.insert(view.device.clone());
                    self.met.insert(view.device.clone());
                    self.gone.remove(&view.device);
                }
                Notice::Conflict { device, conflict: Some(view) } => {
                    self.conflicts.insert(device.clone(), (view.kind, view.device_task.clone()));
                }
                Notice::Conflict { device, conflict: None } => {
                    self.conflicts.remove(device);
                }
                _ => {}
            }
        }
    }

    /// I30: why a task is put back.
    fn returned(&self, seen: &Seen<'_>, id: &TaskId, cause: TaskCause) -> Result<(), Broken> {
        let Some(Row::Task(old)) = seen.was(&Key::Task(id.clone())) else { return Ok(()) };
        let (device, wire, now) = (&old.device, old.wire.as_str(), seen.now.mono);
        let shown = self.shown.get(device);
        let held = shown.and_then(Shown::records) == Some(wire);
        let ms = Duration::from_millis;
        let at_once = || {
            shown.is_some_and(|shown| {
                let ready = shown.state == Reported::Ready && shown.task == wire;
                !held && (!old.begun || ready)
            })
        };
        let fits = match (cause, seen.input) {
            // The answer itself is looked at with the calls.
            (TaskCause::Answer, _) => true,
            (TaskCause::Report, Input::Recorder { .. }) => at_once(),
            (TaskCause::Report, input) => {
                // Its greeting stands, because nobody answered the question.
                let greeted = matches!(input, Input::Wake) && self.believed.contains(device) && at_once();
                let due = shown.map(|shown| shown.without(wire).after(ms(seen.knobs.settle_ms)));
                greeted || (!held && due.is_some_and(|due| now >= due))
            }
            (TaskCause::Absent, Input::Wake) => {
                let grace = ms(seen.knobs.grace_ms);
                let late = self.booted.map(|at| at.after(grace).after(limits::RETURN_MAX));
                let due = self.gone.get(device).map(|at| at.after(grace));
                // A device that came and went after a boot without a word is waited for as one that did not come.
                let first = late.filter(|_| !self.met.contains(device));
                let due = due.into_iter().chain(first).min();
                !self.current.contains_key(device) && due.is_some_and(|due| now >= due)
            }
            (
                TaskCause::Resolved,
                Input::Request { request: Request::Resolve { device: whose, holds, .. }, .. },
            ) => whose == device && shown.is_some_and(|shown| shown.task == holds.trim()),
            _ => false,
        };
        demand("I30", fits, || format!("{cause:?} puts {old:?} back; shown {shown:?}; {:?}", seen.input))?;
        let Some(row) = rows::task(seen.rows, id).filter(|_| old.begun && cause != TaskCause::Answer) else {
            return Ok(());
        };
        let owed = row.earlier.iter().flatten().any(|entry| entry.attempt == old.attempt && entry.owed);
        demand("I30", owed, || format!("what {} recorded of {wire} is forgotten: {row:?}", device))
    }

    /// I31: what contradicts the records is shown, and nothing else.
    fn contradiction(&self, seen: &Seen<'_>, device: &DeviceId) -> Result<(), Broken> {
        let Some(shown) = self.shown.get(device) else { return Ok(()) };
        let told = self.conflicts.get(device);
        let named = WireId::new(&shown.task).ok().and_then(|wire| attempt(seen, &wire));
        let own = named.filter(|row| row.device == *device);
        let saw = || format!("{device} is {shown:?}, its task {own:?}, and told was {told:?}");
        if !shown.state.holds_task() {
            return demand("I31", told.is_none() || shown.state == Reported::Other, saw);
        }
        let Some(row) = own else {
            let fits =
                told.is_some_and(|(kind, task)| *kind == ConflictKind::UnknownTask && *task == shown.task);
            return demand("I31", fits || WireId::new(&shown.task).is_err(), saw);
        };
        let unknown = told.is_some_and(|(kind, _)| *kind == ConflictKind::UnknownTask);
        demand("I31", !unknown, saw)?;
        if row.wire.as_str() == shown.task && row.state == TaskState::InProgress {
            let other = told.is_none_or(|(kind, _)| *kind == ConflictKind::OtherTask);
            return demand("I31", other, saw);
        }
        Ok(())
    }

    /// I31: a device that records an earlier attempt of a task whose next one was never begun holds nothing against its
    /// records: they follow it. Not while a command is out that may end the recording, so it gets the time of two.
    fn followed(&mut self, seen: &Seen<'_>, device: &DeviceId) -> Result<(), Broken> {
        let now = seen.now.mono;
        let recorded = self.shown.get(device).and_then(Shown::records).map(str::to_owned);
        let own = recorded.as_deref().and_then(|wire| attempt(seen, &WireId::new(wire).ok()?));
        let goes_on = own.filter(|row| row.device == *device).is_some_and(|row| {
            let named = |attempt| Some(WireId::of_attempt(&row.id, attempt).as_str()) == recorded.as_deref();
            let open = matches!(row.state, TaskState::Pending | TaskState::Ready) && !row.begun;
            open && row.earlier.iter().flatten().any(|entry| named(entry.attempt))
        });
        let (Some(wire), Some(conn), true) = (recorded, self.current.get(device).copied(), goes_on) else {
            self.left.remove(device);
            return Ok(());
        };
        let same = self.left.get(device).filter(|(on, of, _)| (*on, of) == (conn, &wire));
        let since = same.map_or(now, |(.., since)| *since);
        self.left.insert(device.clone(), (conn, wire, since));
        let patience = Duration::from_millis(seen.knobs.rpc_timeout_ms) * 2 + Duration::from_secs(1);
        demand("I31", now < since.after(patience), || {
            format!("{device} records what {own:?} could go on as, and nobody follows it since {since:?}")
        })
    }
}

/// The task whose attempt a wire id names.
fn attempt<'a>(seen: &Seen<'a>, wire: &WireId) -> Option<&'a TaskRow> {
    let first = TaskId::new(wire.as_str()).ok().and_then(|id| rows::task(seen.rows, &id));
    first.or_else(|| match seen.rows.get(&Key::Alias(wire.clone())) {
        Some(Row::Alias(alias)) => rows::task(seen.rows, &alias.task),
        _ => None,
    })
}

impl Watch for DeviceWatch {
    fn step(&mut self, seen: &Seen<'_>) -> Result<(), Broken> {
        let (site, premises) = (self.sites.at(seen.site), &mut self.premises);
        site.hear(seen);
        for change in &seen.out.changes {
            if let Change::Task(TaskChange::Returned { task, cause, .. }) = change {
                premises.met(if *cause == TaskCause::Absent { "I30.absent" } else { "I30" });
                site.returned(seen, task, *cause)?;
            }
        }
        for effect in &seen.out.effects {
            if let Effect::Publish(Notice::Recorder(view)) = effect
                && view.connected
                && view.synced
            {
                premises.met("I31");
                site.contradiction(seen, &view.device)?;
                site.followed(seen, &view.device)?;
            }
        }
        Ok(())
    }

    fn happened(&mut self, _: &Truth<'_>, _: &Happened<'_>) -> Result<(), Broken> {
        Ok(())
    }

    fn end(&mut self, _: &Truth<'_>) -> Result<(), Broken> {
        Ok(())
    }

    fn premises(&self) -> &Premises {
        &self.premises
    }

    fn invariants(&self) -> &'static [&'static str] {
        &["I30", "I30.absent", "I31"]
    }
}
