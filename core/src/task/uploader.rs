//! How often an uploader is asked what became of its recordings, and what operators have said to it. Must not believe an
//! answer: what it lists is claims, and what it does not find may be in the store.
//!
//! Known uploaders say each thing once and nothing unasked. So one schedule runs for each link as long as something is
//! waited for: it asks for the list, and the list says what to ask for again. At most one question is out (the hub sees
//! to it); where no list comes back at all, recordings are asked for without it.

use alloc::vec::Vec;
use core::time::Duration;

use super::Tasks;
use super::reconcile::owes;
use crate::bug::planted;
use crate::cx::Cx;
use crate::effect::Response;
use crate::fact::{Fact, TransferFrame};
use crate::id::{ConnId, DeviceId, RequestId, TaskId, WireId};
use crate::input::TransferAsk;
use crate::limits;
use crate::refusal::Refusal;
use crate::row::{TaskRow, TaskState};
use crate::time::Mono;
use crate::timers::TimerKey;
use crate::wire::transfer::Status;

/// How far an uploader was asked on its current link.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Asking {
    /// Whether it told a list on this link.
    listed: bool,
    /// Whether the last list was cut when it was read: what is not in it may be listed all the same.
    cut: bool,
    /// Since when it owes a list.
    queried: Option<Mono>,
    /// Rounds since something new was waited for.
    rounds: u32,
}

/// What speaks for it that a recording is nowhere, since its uploader said on this link that it is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Missing {
    /// The link.
    conn: ConnId,
    /// It is not in the uploader's list either.
    unlisted: bool,
    /// It is not in the store.
    unstored: bool,
}

impl Missing {
    /// Whether it was said on this link.
    pub(super) fn is_of(&self, conn: ConnId) -> bool {
        self.conn == conn
    }
}

impl Tasks {
    /// A link came up: it should greet.
    pub(super) fn begin_asking(&mut self, cx: &mut Cx<'_>, device: &DeviceId) {
        self.asking.insert(device.clone(), Asking::default());
        cx.arm(TimerKey::Uploader(device.clone()), limits::GREETING_MAX);
    }

    /// The link is down.
    pub(super) fn end_asking(&mut self, cx: &mut Cx<'_>, device: &DeviceId) {
        self.asking.remove(device);
        cx.disarm(&TimerKey::Uploader(device.clone()));
    }

    /// A status was told. The short form has no lists and says nothing.
    pub(super) fn hear_list(&mut self, cx: &mut Cx<'_>, device: &DeviceId, status: &Status, cut: bool) {
        let Some(asking) = self.asking.get_mut(device) else { return };
        if status.uploads.is_none() && status.waiting_ack_tasks.is_none() {
            return;
        }
        let first = !core::mem::replace(&mut asking.listed, true);
        (asking.cut, asking.queried) = (cut, None);
        if first {
            cx.arm(TimerKey::Uploader(device.clone()), again(cx));
        }
    }

    /// Asks an uploader for its list; the hub drops the question while another one is out.
    pub(super) fn ask_list(&mut self, cx: &mut Cx<'_>, device: &DeviceId) {
        if let Some(asking) = self.asking.get_mut(device) {
            asking.queried.get_or_insert(cx.now.mono);
        }
        cx.tell(Fact::TransferFrame { device: device.clone(), frame: TransferFrame::StatusQuery });
    }

    /// Something new is waited for from this device, or something came of what was.
    pub(super) fn ask_soon(&mut self, cx: &mut Cx<'_>, device: &DeviceId) {
        let Some(asking) = self.asking.get_mut(device) else { return };
        asking.rounds = 0;
        let key = TimerKey::Uploader(device.clone());
        let at = cx.now.mono.after(again(cx));
        if cx.armed(&key).is_none_or(|armed| armed > at) {
            cx.arm_at(key, at);
        }
    }

    /// An attempt that was given up is owed from now on: the schedule runs for it too.
    pub(super) fn ask_for_owed(&mut self, cx: &mut Cx<'_>, device: &DeviceId) {
        if cx.armed(&TimerKey::Uploader(device.clone())).is_none() {
            self.ask_soon(cx, device);
        }
    }

    /// It is time to ask an uploader again.
    pub fn on_uploader_due(&mut self, cx: &mut Cx<'_>, device: &DeviceId) {
        let Some(asking) = self.asking.get(device).copied().filter(|_| !cx.stopping) else { return };
        if !asking.listed && planted!(cx.knobs, X60) {
            return;
        }
        let waited: Vec<TaskId> = self.tasks_of(device).filter(is_waited).map(|row| row.id.clone()).collect();
        let idle = waited.is_empty() && !self.tasks_of(device).any(owes);
        if asking.listed && (idle || planted!(cx.knobs, X63)) {
            return;
        }
        let owed = asking.queried.is_some_and(|since| since.until(cx.now.mono) >= limits::STATUS_OWED_MAX);
        self.ask_list(cx, device);
        if owed || asking.cut {
            self.ask_blindly(cx, device, &waited);
        }
        let rounds = asking.rounds.saturating_add(1);
        if let Some(asking) = self.asking.get_mut(device) {
            asking.rounds = rounds;
        }
        let doubled = again(cx).saturating_mul(1 << rounds.min(16));
        cx.arm(TimerKey::Uploader(device.clone()), doubled.min(longest(cx)));
    }

    /// Asks for recordings without knowing whether the uploader works on them: then it says that it does not find them,
    /// and that is not believed.
    fn ask_blindly(&mut self, cx: &mut Cx<'_>, device: &DeviceId, waited: &[TaskId]) {
        if planted!(cx.knobs, X18 | X63) {
            return;
        }
        let Some(conn) = self.uploaders.get(device).copied() else { return };
        for task in waited {
            let row = self.tasks.get(task).expect("the caller has just seen it");
            let looked_at = self.verifies.contains_key(&(device.clone(), row.wire.clone()));
            if !looked_at && !self.was_asked(cx, task, conn) {
                self.request_upload(cx, device, task);
            }
        }
    }

    /// Whether a recording was asked for on this link lately. One that seems to be nowhere is asked for seldom.
    pub(super) fn was_asked(&self, cx: &Cx<'_>, task: &TaskId, conn: ConnId) -> bool {
        let Some(side) = self.sides.get(task) else { return false };
        if planted!(cx.knobs, X62) && side.missing.is_some() {
            return true;
        }
        let pause = if self.is_nowhere(task, conn) { longest(cx) } else { again(cx) };
        side.asked.is_some_and(|(on, at)| on == conn && cx.now.mono < at.after(pause))
    }

    /// The uploader said that it has no such recording. Not the last word: it may list it, or the store have it.
    pub(super) fn begin_missing(&mut self, device: &DeviceId, task: &TaskId) {
        let Some(conn) = self.uploaders.get(device).copied() else { return };
        let side = self.sides.entry(task.clone()).or_default();
        if side.missing.is_none_or(|missing| missing.conn != conn) {
            side.missing = Some(Missing { conn, unlisted: false, unstored: false });
        }
    }

    /// Whether everybody who could have a recording said that he does not, on this link.
    pub(super) fn is_nowhere(&self, task: &TaskId, conn: ConnId) -> bool {
        let missing = self.sides.get(task).and_then(|side| side.missing);
        missing == Some(Missing { conn, unlisted: true, unstored: true })
    }

    /// The store was asked for the recording of a task, and has nothing of it.
    pub(super) fn find_unstored(&mut self, cx: &mut Cx<'_>, task: &TaskId) {
        self.add_to_missing(cx, task, |missing| missing.unstored = true);
    }

    /// An uploader told its whole list: what it did not find is in it, or is not.
    pub(super) fn compare_missing(
        &mut self,
        cx: &mut Cx<'_>,
        device: &DeviceId,
        is_listed: impl Fn(&WireId) -> bool,
    ) {
        let missed = |row: &&TaskRow| {
            (is_waited(row) || self.is_sought(row))
                && self.sides.get(&row.id).is_some_and(|side| side.missing.is_some())
        };
        let missed: Vec<(TaskId, bool)> = (self.tasks_of(device).filter(missed))
            .map(|row| (row.id.clone(), is_listed(&row.wire)))
            .collect();
        for (task, listed) in missed {
            if listed {
                self.sides.entry(task).or_default().missing = None;
            } else {
                self.add_to_missing(cx, &task, |missing| missing.unlisted = true);
            }
        }
    }

    fn add_to_missing(&mut self, cx: &mut Cx<'_>, task: &TaskId, add: impl FnOnce(&mut Missing)) {
        let Some(missing) = self.sides.get_mut(task).and_then(|side| side.missing.as_mut()) else { return };
        let before = *missing;
        add(missing);
        let (now, conn) = (*missing, missing.conn);
        let row = self.tasks.get(task).expect("I27: there are no notes on tasks that are not in memory");
        if now == before || !self.is_nowhere(task, conn) {
            return;
        }
        if !is_waited(&row) {
            return self.hasten(cx, task);
        }
        let (device, wire) = (row.device.clone(), row.wire.clone());
        let detail = alloc::format!("neither the uploader nor the store has a recording of {wire}");
        self.note(cx, task, Some(alloc::format!("{MISSING}: {detail}")));
        self.refused(cx, &device, MISSING, detail);
        self.raise(cx, task);
    }

    /// Something to be said to an uploader.
    pub fn on_transfer_asked(
        &mut self,
        cx: &mut Cx<'_>,
        reply: RequestId,
        device: &DeviceId,
        ask: &TransferAsk,
    ) {
        if !self.uploaders.contains_key(device) {
            return cx.reply(reply, Err(Refusal::NoUploader(device.clone())));
        }
        let frame = match ask {
            TransferAsk::StatusQuery => {
                self.ask_list(cx, device);
                return cx.reply(reply, Ok(Response::Sent));
            }
            TransferAsk::UploadAll => TransferFrame::UploadAll,
            TransferAsk::Cancel { task } => match self.named_by_operator(device, task) {
                Ok((_, task)) => TransferFrame::Cancel { task },
                Err(refusal) => return cx.reply(reply, Err(refusal)),
            },
            TransferAsk::Upload { task, priority } => match self.named_by_operator(device, task) {
                Ok((id, task)) => {
                    self.note_asked(cx, device, id);
                    TransferFrame::UploadRequest { task, priority: *priority }
                }
                Err(refusal) => return cx.reply(reply, Err(refusal)),
            },
        };
        cx.tell(Fact::TransferFrame { device: device.clone(), frame });
        cx.reply(reply, Ok(Response::Sent));
    }

    /// The attempt that an operator names, and its task if that waits for this recording. A name that nobody gave here is
    /// passed on: the device may hold recordings that this site never heard of.
    fn named_by_operator(&self, device: &DeviceId, text: &str) -> Result<(Option<TaskId>, WireId), Refusal> {
        let bad = || Refusal::BadField { field: "task_id", must: "a task id or the wire id of an attempt" };
        let wire = WireId::new(text).map_err(|_| bad())?;
        let found = match self.by_operator(text) {
            Some(row) => Some((row.id.clone(), row.wire.clone())),
            None => self.by_device(text).map(|named| (named.task, named.wire)),
        };
        let Some((id, wire)) = found else { return Ok((None, wire)) };
        let row = self.tasks.get(&id).expect("what was found is in memory");
        if row.device != *device {
            return Err(Refusal::NotOwned);
        }
        Ok((Some(id).filter(|_| row.wire == wire && is_waited(&row)), wire))
    }

    /// An operator asks for the recording of a task: what was wrong before is to be seen anew.
    fn note_asked(&mut self, cx: &mut Cx<'_>, device: &DeviceId, task: Option<TaskId>) {
        let Some(task) = task else { return };
        let conn = self.uploaders.get(device).copied();
        let side = self.sides.entry(task.clone()).or_default();
        side.asked = conn.map(|conn| (conn, cx.now.mono));
        side.missing = None;
        self.note(cx, &task, None);
        self.ask_soon(cx, device);
    }
}

/// The code under which people are told that a recording seems to be nowhere.
pub(super) const MISSING: &str = "recording_missing";

/// Whether the recording of a task's current attempt is waited for.
fn is_waited(row: &&TaskRow) -> bool {
    row.state == TaskState::Uploading
}

/// The shortest pause between two requests for one recording.
fn again(cx: &Cx<'_>) -> Duration {
    Duration::from_millis(cx.knobs.request_again_ms)
}

/// The longest pause between two questions.
fn longest(cx: &Cx<'_>) -> Duration {
    limits::UPLOADER_PAUSE_MAX.max(again(cx))
}
