//! Judges the records of a device against what its recorder says, in both directions, and what its staying away means.
//! Must not believe an unconfirmed report: only those that the hub accepted come here.
//!
//! ```text
//!  link lost ──grace──► its end looked for         idle ──settle──► its end looked for
//!      │                  (absent)                   └─ never begun ──► put back
//!      └──accepted report──► judged at once
//!
//!  looked for: its finish was answered, or its uploader named it ──► uploading
//!              else the uploader is asked, its list and the store  ──► uploading
//!              nobody knows it, or the time is over                ──► put back, its recording owed
//! ```

use alloc::string::ToString;
use alloc::vec::Vec;
use core::time::Duration;

use super::memory::Named;
use super::transfer::{self, NO_ROOM};
use super::uploader::MISSING;
use super::{Tasks, report};
use crate::bug::planted;
use crate::change::{TaskCause, TaskChange};
use crate::cx::Cx;
use crate::effect::ConflictView;
use crate::fact::{Report, Reported};
use crate::id::{ConnId, DeviceId, TaskId, WireId};
use crate::limits;
use crate::row::{EarlierAttempt, TaskRow, TaskState};
use crate::time::Mono;
use crate::timers::TimerKey;
use crate::wire::transfer::{Status, UploadStatus};

/// A recorder that is connected.
#[derive(Debug)]
pub(super) struct Seat {
    /// Its link.
    conn: ConnId,
    /// The last report that was accepted on this link.
    pub(super) last: Option<Report>,
    /// The task of its own that this report names.
    pub(super) named: Option<TaskId>,
    /// What it holds against the records, as viewers were told.
    pub(super) conflict: Option<ConflictView>,
    /// It holds a task whose recording ended, and from when on that is a conflict: the end of a recording is told on
    /// several ways, and the others may be on their way.
    pub(super) over: Option<(TaskId, Mono)>,
}

impl Seat {
    fn new(conn: ConnId) -> Seat {
        Seat { conn, last: None, named: None, conflict: None, over: None }
    }

    /// Whether it is ready for this very attempt, and so is the record.
    fn is_ready_for(&self, row: &TaskRow) -> bool {
        self.last.as_ref().is_some_and(|report| {
            report.state == Reported::Ready
                && row.state == TaskState::Ready
                && self.named.as_ref() == Some(&row.id)
                && report.task.as_ref() == Some(&row.wire)
        })
    }

    /// Whether it holds this very attempt.
    pub(super) fn holds(&self, row: &TaskRow) -> bool {
        self.records(row) || self.is_ready_for(row)
    }

    /// Whether it records this very attempt.
    pub(super) fn records(&self, row: &TaskRow) -> bool {
        self.last.as_ref().is_some_and(|report| {
            matches!(report.state, Reported::Recording | Reported::Paused)
                && self.named.as_ref() == Some(&row.id)
                && report.task.as_ref() == Some(&row.wire)
        })
    }
}

/// What was done in this boot about a recording that is owed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Asked {
    /// On which link it was asked for last, and when.
    last: Option<(ConnId, Mono)>,
    /// On which link it was last said not to be there.
    missed: Option<ConnId>,
}

/// The search for the end of a recording that nobody told of, before its task is put back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Quest {
    /// The link on which the uploader was asked for the recording.
    asked: Option<ConnId>,
    /// When the task is put back if nothing was heard by then.
    until: Mono,
    /// Whether it is the recorder's absence that asks for it, and its timer that goes on with it.
    absent: bool,
}

/// What comes next of a search.
enum Look {
    /// The recording ended, and its task waits for it.
    Ended,
    /// It is looked at again then.
    At(Mono),
    /// Nobody knows anything of it.
    Nothing,
}

/// Whether the records say that the device holds this task, or may record it.
pub(super) fn at_stake(row: &TaskRow) -> bool {
    match row.state {
        TaskState::Ready | TaskState::InProgress => true,
        TaskState::Pending => row.begun,
        TaskState::Uploading | TaskState::Completed | TaskState::Failed | TaskState::Cancelled => false,
    }
}

/// Whether any recording of an attempt that was given up is still to be asked for.
pub(super) fn owes(row: &TaskRow) -> bool {
    row.earlier.iter().flatten().any(|entry| entry.owed)
}

/// Links of recorders, and how long they may be away.
impl Tasks {
    /// A recorder's link is up. It proves nothing before it says something.
    pub(super) fn on_recorder_up(&mut self, cx: &mut Cx<'_>, device: &DeviceId, conn: ConnId) {
        self.forget_word(cx, device);
        self.recorders.insert(device.clone(), Seat::new(conn));
    }

    /// What the last link said counts no more.
    fn forget_word(&mut self, cx: &mut Cx<'_>, device: &DeviceId) {
        self.drop_conflict(cx, device);
        for row in self.at_stake_of(device) {
            cx.disarm(&TimerKey::Settle(row.id.clone()));
        }
    }

    /// A recorder is gone. Its recording may go on without us, so its tasks wait for it to come back.
    pub(super) fn on_recorder_down(&mut self, cx: &mut Cx<'_>, device: &DeviceId) {
        self.forget_word(cx, device);
        self.recorders.remove(device);
        if planted!(cx.knobs, X44) {
            return self.put_back_all(cx, device);
        }
        self.begin_grace(cx, device);
    }

    /// A new boot knows nothing of any recorder, and each needs time to notice that its link is gone.
    pub(super) fn wait_for_recorders(&mut self, cx: &mut Cx<'_>) {
        if planted!(cx.knobs, X46) {
            return;
        }
        let grace = Duration::from_millis(cx.knobs.grace_ms).saturating_add(limits::RETURN_MAX);
        self.back_by = Some(cx.now.mono.after(grace));
        for device in self.of_device.keys() {
            if self.at_stake_of(device).next().is_some() {
                cx.arm(TimerKey::Grace(device.clone()), grace);
            }
        }
        let begun = |row: &&TaskRow| at_stake(row) && row.begun;
        for id in self.tasks.values().filter(begun).map(|row| row.id.clone()).collect::<Vec<_>>() {
            self.reserve(&id);
        }
    }

    /// Waits for nobody any more: a stopping site draws no conclusions.
    pub(super) fn wait_for_nobody(&mut self, cx: &mut Cx<'_>) {
        let ours = |key: &&TimerKey| matches!(key, TimerKey::Grace(_) | TimerKey::Settle(_));
        for key in cx.timers.keys().filter(ours).cloned().collect::<Vec<_>>() {
            cx.disarm(&key);
        }
    }

    fn begin_grace(&mut self, cx: &mut Cx<'_>, device: &DeviceId) {
        let key = TimerKey::Grace(device.clone());
        if cx.stopping || cx.armed(&key).is_some() || self.at_stake_of(device).next().is_none() {
            return;
        }
        cx.arm(key, Duration::from_millis(cx.knobs.grace_ms));
        // What is looked for already is not put back by this absence before its own time.
        for task in self.at_stake_of(device).map(|row| row.id.clone()).collect::<Vec<_>>() {
            if let Some(quest) = self.sides.get_mut(&task).and_then(|side| side.quest.as_mut()) {
                quest.absent = false;
            }
        }
    }

    /// A recorder was away for the whole grace, or did not say anything in it that can be believed.
    pub fn on_grace_due(&mut self, cx: &mut Cx<'_>, device: &DeviceId) {
        if cx.stopping {
            return;
        }
        if self.recorders.contains_key(device) {
            // It is there, and being asked.
            return cx.arm(TimerKey::Grace(device.clone()), again(cx));
        }
        let mut next: Option<Mono> = None;
        for task in self.at_stake_of(device).map(|row| row.id.clone()).collect::<Vec<_>>() {
            match self.look_for_end(cx, device, &task, true) {
                Look::Ended => {}
                Look::At(at) => next = Some(next.map_or(at, |next| next.min(at))),
                Look::Nothing => self.give_back(cx, &task, TaskCause::Absent),
            }
        }
        if let Some(at) = next {
            cx.arm_at(TimerKey::Grace(device.clone()), at);
        }
    }

    /// Puts back everything that the records say this device holds. Only planted bugs do so.
    pub(super) fn put_back_all(&mut self, cx: &mut Cx<'_>, device: &DeviceId) {
        for task in self.at_stake_of(device).map(|row| row.id.clone()).collect::<Vec<_>>() {
            self.give_back(cx, &task, TaskCause::Absent);
        }
    }

    /// The tasks that the records say this device holds, or may record.
    pub(super) fn at_stake_of<'a>(&'a self, device: &DeviceId) -> impl Iterator<Item = &'a TaskRow> {
        let ids = self.of_device.get(device).into_iter().flatten();
        ids.filter_map(|id| self.tasks.get(id)).filter(|row| at_stake(row))
    }

    /// Chooses the name of a task's next attempt while cold records can be looked at: it may have to be put back in a
    /// step that names nothing.
    pub(super) fn reserve(&mut self, task: &TaskId) {
        let Some(row) = self.tasks.get(task) else { return };
        if row.state.is_final() || self.sides.get(task).is_some_and(|side| side.successor.is_some()) {
            return;
        }
        let attempt = self.successor(row);
        self.sides.entry(task.clone()).or_default().successor = Some(attempt);
    }

    /// A task changed: nobody waits for what is explained, and a device that is away is waited for.
    pub(super) fn after_task(&mut self, cx: &mut Cx<'_>, task: &TaskId) {
        let Some(row) = self.tasks.get(task) else { return };
        let (device, staked, begun, owing) = (row.device.clone(), at_stake(row), row.begun, owes(row));
        if owing {
            self.ask_for_owed(cx, &device);
        }
        if !(staked && begun) {
            cx.disarm(&TimerKey::Settle(task.clone()));
        }
        if staked && !self.recorders.contains_key(&device) {
            self.begin_grace(cx, &device);
        }
        self.refresh_conflict(cx, &device);
    }
}

/// Reports.
impl Tasks {
    /// A recorder's state was accepted. `calm` is that no command of ours is about to change it.
    pub fn on_recorder_reported(
        &mut self,
        cx: &mut Cx<'_>,
        device: &DeviceId,
        conn: ConnId,
        report: &Report,
        calm: bool,
    ) {
        let named = report.task.as_ref().and_then(|wire| self.owned(device, wire.as_str()));
        let named = named.map(|named| named.task);
        if let Some(task) = &named {
            self.reserve(task);
        }
        let holds = |report: &Report| matches!(report.state, Reported::Recording | Reported::Paused);
        let held = self.recorders.get(device).and_then(|seat| seat.last.as_ref()).is_none_or(holds);
        if held && !holds(report) && self.tasks_of(device).any(owes) {
            // What was given up while it was recorded may be closed now.
            self.ask_soon(cx, device);
        }
        let seat = self.recorders.entry(device.clone()).or_insert_with(|| Seat::new(conn));
        (seat.conn, seat.last, seat.named) = (conn, Some(report.clone()), named);
        self.drop_quest(device);
        cx.disarm(&TimerKey::Grace(device.clone()));
        self.follow(cx, device, report);
        if calm {
            self.judge(cx, device);
        }
        self.refresh_conflict(cx, device);
    }

    /// What the device does not hold any more goes back, or is looked for.
    fn judge(&mut self, cx: &mut Cx<'_>, device: &DeviceId) {
        let Some(seat) = self.recorders.get(device) else { return };
        let (Some(report), named) = (seat.last.clone(), seat.named.clone()) else { return };
        if report.state == Reported::Other || (report.state.holds_task() && report.task.is_none()) {
            return;
        }
        if matches!(report.state, Reported::Recording | Reported::Paused)
            && let (Some(task), Some(wire)) = (&named, &report.task)
        {
            self.resume(cx, task, wire, TaskCause::Report);
        }
        for task in self.at_stake_of(device).map(|row| row.id.clone()).collect::<Vec<_>>() {
            let row = self.tasks.get(&task).expect("it was just listed, and only itself is changed here");
            let current = named.as_ref() == Some(&task) && report.task.as_ref() == Some(&row.wire);
            match report.state {
                Reported::Recording | Reported::Paused if current => {
                    cx.disarm(&TimerKey::Settle(task.clone()));
                }
                Reported::Ready if current && !row.begun => {}
                // Our `begin` did not arrive, or nobody knows: it is not sent twice under one name.
                Reported::Ready if current && row.state != TaskState::InProgress => {
                    if !planted!(cx.knobs, X51) {
                        self.give_back(cx, &task, TaskCause::Report);
                    }
                }
                Reported::Idle | Reported::Ready | Reported::Recording | Reported::Paused if !row.begun => {
                    if !planted!(cx.knobs, X47) {
                        self.give_back(cx, &task, TaskCause::Report);
                    }
                }
                Reported::Idle => self.wait_for_word(cx, &task),
                // It went on without us.
                Reported::Ready if current => self.wait_for_word(cx, &task),
                // A conflict: a person decides, or the device when it is idle again.
                Reported::Ready | Reported::Recording | Reported::Paused | Reported::Other => {}
            }
        }
    }

    /// A device that ended a recording also says so on another way: it gets time for it.
    fn wait_for_word(&mut self, cx: &mut Cx<'_>, task: &TaskId) {
        let key = TimerKey::Settle(task.clone());
        if cx.armed(&key).is_none() && !cx.stopping && !planted!(cx.knobs, X47 | X52) {
            cx.arm(key, Duration::from_millis(cx.knobs.settle_ms));
        }
    }

    /// The device still records an attempt that was given up, and the one after it was never begun: it goes on.
    pub(super) fn resume(&mut self, cx: &mut Cx<'_>, task: &TaskId, wire: &WireId, cause: TaskCause) {
        let Some(row) = self.tasks.get(task) else { return };
        let entry = row.earlier.iter().flatten().find(|e| WireId::of_attempt(task, e.attempt) == *wire);
        let open = matches!(row.state, TaskState::Pending | TaskState::Ready)
            && (!row.begun || planted!(cx.knobs, X50));
        let Some(attempt) = entry.filter(|_| open).map(|entry| entry.attempt) else { return };
        if planted!(cx.knobs, X49) {
            return;
        }
        // The attempt that is left was never begun: its name is free for the next one.
        let left = row.attempt;
        let side = self.sides.entry(task.clone()).or_default();
        *side = super::Side { successor: Some(left), ..super::Side::default() };
        let (task, wire, at) = (task.clone(), wire.clone(), cx.now.wall);
        self.enact_task(cx, TaskChange::Resumed { task, attempt, wire, cause, at });
    }

    /// Nobody said in time why a device does not record any more what it was told to.
    pub fn on_settle_due(&mut self, cx: &mut Cx<'_>, task: &TaskId) {
        if cx.stopping {
            return;
        }
        let waiting = |(_, seat): &(&DeviceId, &Seat)| seat.over.as_ref().is_some_and(|(id, _)| id == task);
        if let Some(device) = self.recorders.iter().find(waiting).map(|(device, _)| device.clone()) {
            self.refresh_conflict(cx, &device);
        }
        let Some(row) = self.tasks.get(task).filter(|row| at_stake(row) && row.begun) else { return };
        let device = row.device.clone();
        let Some(seat) = self.recorders.get(&device) else { return };
        let known = seat.last.as_ref().is_some_and(|report| report.state != Reported::Other);
        if !known || seat.records(row) {
            return;
        }
        match self.look_for_end(cx, &device, task, false) {
            Look::Ended => {}
            Look::At(at) => cx.arm_at(TimerKey::Settle(task.clone()), at),
            Look::Nothing => self.give_back(cx, task, TaskCause::Report),
        }
    }
}

/// The end of a recording that nobody told of.
impl Tasks {
    /// Looks for the end of what a device does not record any more, as far as anybody knows. Each search has its end.
    fn look_for_end(&mut self, cx: &mut Cx<'_>, device: &DeviceId, task: &TaskId, absent: bool) -> Look {
        let row = self.tasks.get(task).expect("the caller has just seen the task");
        if !row.begun {
            return Look::Nothing;
        }
        let wire = row.wire.clone();
        let side = self.sides.get(task).cloned().unwrap_or_default();
        if side.finish_done {
            self.end_unheard(cx, task, TaskCause::Answer);
            if !self.request_upload(cx, device, task) {
                let why = if self.held.contains(task) { NO_ROOM } else { report::OFFLINE };
                self.note(cx, task, Some(why.to_string()));
            }
            return Look::Ended;
        }
        if side.announced.is_some() {
            self.end_unheard(cx, task, TaskCause::Transfer);
            return Look::Ended;
        }
        let now = cx.now.mono;
        let uploader = self.uploaders.get(device).copied().filter(|_| !self.short);
        let Some(conn) = uploader else {
            // An absent device had its time.
            let patience = match self.back_by {
                Some(back_by) => now.after(again(cx)).max(back_by),
                None => now.after(again(cx)),
            };
            let quest = match side.quest {
                Some(quest) => quest,
                None if absent => return Look::Nothing,
                None => Quest { asked: None, until: patience, absent },
            };
            self.sides.entry(task.clone()).or_default().quest = Some(Quest { absent, ..quest });
            return if now >= quest.until { Look::Nothing } else { Look::At(quest.until) };
        };
        let longest = now.after(limits::PROBE_MAX);
        let begun = side.quest.filter(|quest| quest.asked.is_some());
        let quest = Quest { asked: Some(conn), until: begun.map_or(longest, |quest| quest.until), absent };
        let asked = begun.is_some_and(|quest| quest.asked == Some(conn));
        self.sides.entry(task.clone()).or_default().quest = Some(quest);
        if self.is_nowhere(task, conn) || now >= quest.until {
            return Look::Nothing;
        }
        if !asked {
            // Harmless if there is no recording: it says so.
            self.tell_upload_request(cx, device, wire);
        } else if side.missing.is_none_or(|missing| !missing.is_of(conn)) {
            // It may be reading the recording and say nothing meanwhile, or its word was lost.
            self.ask_list(cx, device);
        }
        Look::At(now.after(again(cx)).min(quest.until))
    }

    /// A recording of a begun attempt ended, as somebody but its recorder shows.
    pub(super) fn end_unheard(&mut self, cx: &mut Cx<'_>, task: &TaskId, cause: TaskCause) {
        if let Some(side) = self.sides.get_mut(task) {
            (side.quest, side.missing) = (None, None);
        }
        let (task, at) = (task.clone(), cx.now.wall);
        self.enact_task(cx, TaskChange::Finished { task, cause, facts: None, at, timed: true });
    }

    /// An uploader names a recording as its own, or the store has it: it ended, unless its recorder says that it goes
    /// on.
    pub(super) fn end_named(&mut self, cx: &mut Cx<'_>, device: &DeviceId, named: &Named) {
        let Some(row) = self.tasks.get(&named.task).filter(|row| at_stake(row) && row.begun) else { return };
        let records = self.recorders.get(device).is_some_and(|seat| seat.records(row));
        if named.current && !records {
            self.end_unheard(cx, &named.task, TaskCause::Transfer);
        }
    }

    /// The recorder says that it records: nothing is looked for.
    fn drop_quest(&mut self, device: &DeviceId) {
        let Some(seat) = self.recorders.get(device) else { return };
        let Some(task) = seat.named.as_ref() else { return };
        if self.tasks.get(task).is_some_and(|row| at_stake(row) && seat.records(row))
            && let Some(side) = self.sides.get_mut(task)
        {
            (side.quest, side.missing) = (None, None);
        }
    }

    /// The uploader is there, or everybody said what he knows: a search that waits for that goes on soon.
    pub(super) fn hasten(&self, cx: &mut Cx<'_>, task: &TaskId) {
        let Some(row) = self.tasks.get(task) else { return };
        let Some(quest) = self.sides.get(task).and_then(|side| side.quest) else { return };
        let key = match self.recorders.contains_key(&row.device) {
            true => TimerKey::Settle(task.clone()),
            false if quest.absent => TimerKey::Grace(row.device.clone()),
            false => return,
        };
        let at = cx.now.mono.after(Duration::from_millis(cx.knobs.settle_ms));
        if cx.armed(&key).is_some_and(|armed| armed > at) {
            cx.arm_at(key, at);
        }
    }

    /// The uploader came: what waited for it is asked for.
    pub(super) fn hasten_all(&self, cx: &mut Cx<'_>, device: &DeviceId) {
        for row in self.at_stake_of(device) {
            self.hasten(cx, &row.id);
        }
    }

    /// Whether the end of a task's recording is looked for.
    pub(super) fn is_sought(&self, row: &TaskRow) -> bool {
        at_stake(row) && self.sides.get(&row.id).is_some_and(|side| side.quest.is_some())
    }
}

/// Recordings that are owed.
impl Tasks {
    /// An uploader does not find a recording. Returns whether that settles it: for a recording that we only looked for,
    /// and for one of an attempt that was given up.
    pub(super) fn on_missing(&mut self, cx: &mut Cx<'_>, device: &DeviceId, named: &Named) -> bool {
        let Some(row) = self.tasks.get(&named.task) else { return false };
        let conn = self.uploaders.get(device).copied();
        if named.current && at_stake(row) && row.begun {
            return !self.miss_current(cx, device, &named.task);
        }
        let Some(entry) = owed_entry(row, &named.wire).cloned() else { return false };
        if self.verifies.contains_key(&(device.clone(), named.wire.clone())) {
            return false;
        }
        let side = self.sides.get(&named.task);
        let missed = side.and_then(|side| side.owed.get(&entry.attempt)).and_then(|asked| asked.missed);
        if conn.is_none() || missed == conn || self.may_record(device, &named.wire) {
            return true;
        }
        let side = self.sides.entry(named.task.clone()).or_default();
        side.owed.entry(entry.attempt).or_default().missed = conn;
        let asked = entry.asked.saturating_add(1);
        self.owe(cx, &named.task, &entry, asked < limits::OWED_ASKS, asked);
        if asked >= limits::OWED_ASKS {
            self.tell_given_up(cx, device, &named.wire, "its uploader does not find it");
        }
        // It says so also of what it has uploaded.
        self.search_missed(cx, device, named);
        true
    }

    /// The uploader does not find what it was asked for: it says so also of what it works on, and of what it has
    /// uploaded. So its list is asked for, and the store. Returns whether the recording ended: the uploader named it.
    fn miss_current(&mut self, cx: &mut Cx<'_>, device: &DeviceId, task: &TaskId) -> bool {
        let row = self.tasks.get(task).expect("the caller has just seen the task");
        let named = Named { task: task.clone(), wire: row.wire.clone(), current: true };
        let Some(conn) = self.uploaders.get(device).copied() else { return false };
        let until = cx.now.mono.after(again(cx));
        let Some(side) = self.sides.get_mut(task) else { return false };
        let announced = side.announced.is_some();
        let Some(quest) = side.quest.as_mut().filter(|quest| quest.asked == Some(conn)) else { return false };
        // It reads nothing now, so that nothing is to be waited for but the answers to this.
        quest.until = quest.until.min(until);
        if announced {
            self.end_named(cx, device, &named);
            return self.tasks.get(task).is_some_and(|row| row.state == TaskState::Uploading);
        }
        self.begin_missing(device, task);
        self.search_missed(cx, device, &named);
        self.ask_list(cx, device);
        false
    }

    /// Tells people that a recording that was owed is not asked for any more.
    pub(super) fn tell_given_up(&self, cx: &mut Cx<'_>, device: &DeviceId, wire: &WireId, why: &str) {
        self.refused(cx, device, MISSING, alloc::format!("the recording of {wire} is given up: {why}"));
    }

    /// Tells people of recordings that are not asked for any more because their task has too many attempts.
    pub(super) fn tell_forgotten(&self, cx: &mut Cx<'_>, old: &[EarlierAttempt], task: &TaskId) {
        let Some(row) = self.tasks.get(task) else { return };
        let known = |attempt| row.earlier.iter().flatten().any(|entry| entry.attempt == attempt);
        for entry in old.iter().filter(|entry| entry.owed && entry.attempt != row.attempt) {
            if !known(entry.attempt) {
                let wire = WireId::of_attempt(task, entry.attempt);
                self.tell_given_up(cx, &row.device, &wire, "too many later attempts are waited for");
            }
        }
    }

    /// Whether the device may be recording this attempt now: an uploader finds only what was closed, so that its not
    /// finding it proves nothing then.
    fn may_record(&self, device: &DeviceId, wire: &WireId) -> bool {
        let last = self.recorders.get(device).and_then(|seat| seat.last.as_ref());
        last.is_none_or(|report| match report.state {
            Reported::Recording | Reported::Paused => report.task.as_ref().is_none_or(|task| task == wire),
            Reported::Other => true,
            Reported::Idle | Reported::Ready => false,
        })
    }

    /// Asks for the recordings of attempts that were given up and that the uploader does not list.
    pub(super) fn ask_owed(&mut self, cx: &mut Cx<'_>, device: &DeviceId, conn: ConnId, status: &Status) {
        let full = limits::STATUS_UPLOADS;
        let cut = status.uploads.as_ref().is_some_and(|list| list.len() >= full)
            || status.waiting_ack_tasks.as_ref().is_some_and(|list| list.len() >= full);
        let all = status.connected || status.uploads.is_some() || transfer::is_scant(status);
        if cut || !all || self.short {
            return;
        }
        let pause = Duration::from_millis(cx.knobs.request_again_ms);
        let ids = self.of_device.get(device).into_iter().flatten();
        let owing = ids.filter_map(|id| self.tasks.get(id)).filter(|row| owes(row));
        let owed: Vec<(TaskId, EarlierAttempt)> = owing
            .flat_map(|row| {
                let entries = row.earlier.iter().flatten().filter(|entry| entry.owed);
                entries.map(|entry| (row.id.clone(), entry.clone()))
            })
            .collect();
        let mut room = limits::OWED_AT_ONCE;
        for (task, entry) in owed {
            let wire = WireId::of_attempt(&task, entry.attempt);
            let mut listed = status.uploads.iter().flatten().filter(|it| it.announced.task == wire.as_str());
            let waits = status.waiting_ack_tasks.iter().flatten().any(|task| task == wire.as_str());
            match listed.next().map(|it| it.status) {
                Some(listed @ (UploadStatus::Completed | UploadStatus::Failed)) => {
                    self.owe(cx, &task, &entry, false, entry.asked);
                    if listed == UploadStatus::Failed {
                        self.tell_given_up(cx, device, &wire, "its uploader gave it up");
                    }
                    continue;
                }
                Some(
                    UploadStatus::Pending
                    | UploadStatus::Active
                    | UploadStatus::RetryWait
                    | UploadStatus::WaitAck,
                ) => continue,
                Some(UploadStatus::Unknown) | None if waits => continue,
                Some(UploadStatus::Unknown) | None => {}
            }
            if self.verifies.contains_key(&(device.clone(), wire.clone())) || room == 0 {
                continue;
            }
            let asked = self.sides.entry(task).or_default().owed.entry(entry.attempt).or_default();
            if asked.last.is_some_and(|(on, at)| on == conn && cx.now.mono < at.after(pause)) {
                continue;
            }
            asked.last = Some((conn, cx.now.mono));
            room -= 1;
            self.tell_upload_request(cx, device, wire);
        }
    }

    /// A recording arrived: it is not owed any more.
    pub(super) fn settle_owed(&mut self, cx: &mut Cx<'_>, task: &TaskId, wire: &WireId) {
        let entry = self.tasks.get(task).and_then(|row| owed_entry(row, wire)).cloned();
        if let Some(entry) = entry {
            self.owe(cx, task, &entry, false, entry.asked);
        }
    }

    /// A recording of an attempt that is over may be on the device after all: it is asked for from now on. Returns
    /// whether the attempt is remembered.
    pub(super) fn owe_again(&mut self, cx: &mut Cx<'_>, task: &TaskId, wire: &WireId) -> bool {
        let Some(row) = self.tasks.get(task) else { return false };
        let known = row.earlier.iter().flatten().find(|e| WireId::of_attempt(task, e.attempt) == *wire);
        let Some(entry) = known.cloned() else { return false };
        if !entry.owed || entry.asked > 0 {
            self.owe(cx, task, &entry, true, 0);
        }
        true
    }

    /// A begun task was called off: what its device still records is owed.
    pub(super) fn owe_current(&mut self, cx: &mut Cx<'_>, task: &TaskId) {
        let Some(row) = self.tasks.get(task).filter(|row| row.begun && row.state.is_final()) else { return };
        let (task, attempt, at) = (task.clone(), row.attempt, cx.now.wall);
        self.enact_task(cx, TaskChange::Owed { task, attempt, owed: true, asked: 0, at });
    }

    /// The device said that it dropped what it held of an attempt.
    pub(super) fn dropped(&mut self, cx: &mut Cx<'_>, device: &DeviceId, wire: &str) {
        if let Some(named) = self.owned(device, wire).filter(|named| !named.current) {
            self.settle_owed(cx, &named.task, &named.wire);
        }
    }

    fn owe(&mut self, cx: &mut Cx<'_>, task: &TaskId, entry: &EarlierAttempt, owed: bool, asked: u8) {
        let (task, attempt, at) = (task.clone(), entry.attempt, cx.now.wall);
        self.enact_task(cx, TaskChange::Owed { task, attempt, owed, asked, at });
    }
}

fn owed_entry<'a>(row: &'a TaskRow, wire: &WireId) -> Option<&'a EarlierAttempt> {
    let entries = row.earlier.iter().flatten();
    entries.filter(|entry| entry.owed).find(|entry| WireId::of_attempt(&row.id, entry.attempt) == *wire)
}

/// How long until somebody who did not answer is looked at again. A grace of nothing must not be asked in a circle.
fn again(cx: &Cx<'_>) -> Duration {
    Duration::from_millis(cx.knobs.grace_ms.max(1_000))
}
