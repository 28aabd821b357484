//! Uploaders' messages, and asking for uploads again. Must not acknowledge: only a verification does.

use alloc::string::{String, ToString};

use super::find::Sought;
use super::memory::Named;
use super::{Side, Tasks};
use crate::bug::planted;
use crate::change::{EpisodeChange, TaskCause, TaskChange};
use crate::cx::Cx;
use crate::effect::Notice;
use crate::fact::{Fact, TransferFrame};
use crate::id::{ConnId, DeviceId, ObjectKey, Role, TaskId, WireId};
use crate::knobs::Room;
use crate::limits;
use crate::row::{Key, TaskState};
use crate::wire::TransferMessage;
use crate::wire::transfer::{Announced, Status, UploadEntry, UploadStatus};

/// What stands by a task whose recording is not asked for.
pub(super) const NO_ROOM: &str =
    "the disk of the site is nearly full; the recording is asked for when there is room";
/// An uploader's word for a recording that it could not queue.
const REJECTED: &str = "upload enqueue rejected";
/// How an uploader begins to say that it does not know what we acknowledged.
const UNKNOWN_ACK: &str = "ACK for unknown task_id";
/// The priority of every request: known uploaders ignore it.
const PRIORITY: u32 = 1;

impl Tasks {
    /// A link came up.
    pub fn on_link_up(&mut self, cx: &mut Cx<'_>, device: &DeviceId, role: Role, conn: ConnId) {
        match role {
            Role::Transfer => {
                self.uploaders.insert(device.clone(), conn);
                self.begin_asking(cx, device);
                self.resume_verifies(cx, device);
                self.hasten_all(cx, device);
            }
            Role::Recorder => self.on_recorder_up(cx, device, conn),
        }
    }

    /// A link is gone. Tasks stay where they are: a recording goes on without us.
    pub fn on_link_down(&mut self, cx: &mut Cx<'_>, device: &DeviceId, role: Role) {
        match role {
            Role::Transfer => {
                self.uploaders.remove(device);
                self.crowded.remove(device);
                self.end_asking(cx, device);
                self.drop_searches(cx, device);
                self.rest_verifies(cx, device);
                if planted!(cx.knobs, X45) {
                    self.put_back_all(cx, device);
                }
            }
            Role::Recorder => self.on_recorder_down(cx, device),
        }
    }

    /// A current uploader link said something.
    pub fn on_transfer(
        &mut self,
        cx: &mut Cx<'_>,
        device: &DeviceId,
        conn: ConnId,
        message: &TransferMessage,
    ) {
        assert!(
            self.uploaders.get(device).is_none_or(|up| *up <= conn) || planted!(cx.knobs, B02),
            "I03: a superseded link spoke"
        );
        match message {
            TransferMessage::Status(status) => self.on_status(cx, device, conn, status),
            TransferMessage::UploadStarted(announced) => self.on_started(cx, device, announced),
            TransferMessage::UploadComplete(announced) => self.on_uploaded(cx, device, announced, true),
            TransferMessage::UploadFailed { task, reason } => {
                self.on_failed(cx, device, task, reason.as_deref());
            }
            TransferMessage::UploadNotFound { task, detail } => {
                self.on_not_found(cx, device, task, detail.as_deref());
            }
            TransferMessage::Other(_) => {}
        }
    }

    fn on_status(&mut self, cx: &mut Cx<'_>, device: &DeviceId, conn: ConnId, status: &Status) {
        for entry in status.uploads.iter().flatten() {
            match entry.status {
                UploadStatus::WaitAck if planted!(cx.knobs, X55) => {}
                UploadStatus::WaitAck => self.on_uploaded(cx, device, &entry.announced, false),
                UploadStatus::Pending | UploadStatus::Active | UploadStatus::RetryWait => {
                    if !planted!(cx.knobs, H20) {
                        self.remember(cx, device, &entry.announced);
                    }
                }
                UploadStatus::Completed | UploadStatus::Failed | UploadStatus::Unknown => {}
            }
        }
        for task in status.waiting_ack_tasks.iter().flatten() {
            let listed =
                |entry: &UploadEntry| entry.status == UploadStatus::WaitAck && entry.announced.task == *task;
            // Its entry said more of it, and one acknowledgement is enough.
            if !status.uploads.iter().flatten().any(listed) {
                self.on_waiting(cx, device, task);
            }
        }
        let full = limits::STATUS_UPLOADS;
        let cut = status.uploads.as_ref().is_some_and(|list| list.len() >= full)
            || status.waiting_ack_tasks.as_ref().is_some_and(|list| list.len() >= full);
        self.hear_list(cx, device, status, cut);
        if status.connected && status.uploads.is_none() {
            // Older uploaders greet without their list, and tell it when asked.
            self.ask_list(cx, device);
        }
        if status.uploads.is_some() && !cut {
            self.compare_missing(cx, device, |wire| is_busy(status, wire));
        }
        if status.connected || status.uploads.is_some() || is_scant(status) {
            self.request_again(cx, device, conn, status, cut);
            self.ask_owed(cx, device, conn, status);
        }
    }

    /// A recording that waits for its acknowledgement, named without anything else. What was said of it before may tell
    /// where it is; otherwise the store is asked for its name.
    fn on_waiting(&mut self, cx: &mut Cx<'_>, device: &DeviceId, task: &str) {
        let Some(named) = self.owned(device, task).filter(|_| !planted!(cx.knobs, X55)) else { return };
        if self.verifies.contains_key(&(device.clone(), named.wire.clone())) {
            return self.look_again(cx, device, &named.wire);
        }
        self.end_named(cx, device, &named);
        let announced = self.sides.get(&named.task).and_then(|side| side.announced.clone());
        match announced.filter(|announced| named.current && announced.key.is_some()) {
            Some(announced) => self.verify(cx, device, &named, &announced, false),
            None => self.search_named(cx, device, &named),
        }
    }

    /// Asks again for recordings that should be on their way and that the uploader does not list as such. A request
    /// may have been lost with the old link, and so may the word that it began.
    fn request_again(
        &mut self,
        cx: &mut Cx<'_>,
        device: &DeviceId,
        conn: ConnId,
        status: &Status,
        cut: bool,
    ) {
        if cut {
            // What is not in the list may be listed all the same. The schedule asks without it.
            return;
        }
        // Where only what waits is listed, an upload that was begun may be under way.
        let begun = |task: &TaskId| self.sides.get(task).is_some_and(|side| side.announced.is_some());
        let in_short = is_scant(status) && !status.connected;
        let lost = |row: &&crate::row::TaskRow| {
            let under_way = in_short && begun(&row.id);
            row.state == TaskState::Uploading
                && !under_way
                && !is_busy(status, &row.wire)
                && !self.was_asked(cx, &row.id, conn)
                && !self.verifies.contains_key(&(device.clone(), row.wire.clone()))
        };
        if planted!(cx.knobs, X18) {
            return;
        }
        let lost: alloc::vec::Vec<TaskId> =
            self.tasks_of(device).filter(lost).map(|row| row.id.clone()).collect();
        for task in lost {
            let nowhere = self.is_nowhere(&task, conn);
            if self.request_upload(cx, device, &task) {
                if !nowhere {
                    self.note(cx, &task, None);
                }
            } else if self.held.contains(&task) {
                self.note(cx, &task, Some(NO_ROOM.to_string()));
            }
        }
    }

    /// Asks for the recording of a task's current attempt, if the uploader is there.
    pub(super) fn request_upload(&mut self, cx: &mut Cx<'_>, device: &DeviceId, task: &TaskId) -> bool {
        let Some(conn) = self.uploaders.get(device).copied() else { return false };
        if self.short {
            self.held.insert(task.clone());
            return false;
        }
        let row = self.tasks.get(task).expect("only tasks in memory are asked for");
        let wire = row.wire.clone();
        self.sides.entry(task.clone()).or_default().asked = Some((conn, cx.now.mono));
        self.tell_upload_request(cx, device, wire);
        true
    }

    /// The free space changed what may begin. With enough again, what was held back is asked for, unless it came
    /// without being asked for.
    pub fn on_room(&mut self, cx: &mut Cx<'_>, room: Room) {
        self.short = room < Room::Enough;
        if self.short {
            return;
        }
        for task in core::mem::take(&mut self.held) {
            let begun = self.sides.get(&task).is_some_and(|side| side.announced.is_some());
            let Some(row) = self.tasks.get(&task) else { continue };
            if begun || row.state != TaskState::Uploading {
                continue;
            }
            let device = row.device.clone();
            if self.request_upload(cx, &device, &task) {
                self.note(cx, &task, None);
            }
        }
    }

    pub(super) fn tell_upload_request(&self, cx: &mut Cx<'_>, device: &DeviceId, task: WireId) {
        let frame = TransferFrame::UploadRequest { task, priority: PRIORITY };
        cx.tell(Fact::TransferFrame { device: device.clone(), frame });
    }

    /// `upload_started`
    fn on_started(&mut self, cx: &mut Cx<'_>, device: &DeviceId, announced: &Announced) {
        let Some(named) = self.own_or_refuse(cx, device, &announced.task) else { return };
        let all = self.with_earlier(&named, announced);
        self.note_upload(cx, &named, &all, true);
        if self.may_bind_early(&named, announced) {
            self.bind(cx, device, &named, announced);
        }
    }

    /// Whether a key may become an attempt's before anything was uploaded under it: that makes a record for ever.
    fn may_bind_early(&mut self, named: &Named, announced: &Announced) -> bool {
        let Some(key) = announced.key.as_deref() else { return false };
        let over = self.tasks.get(&named.task).is_none_or(|row| row.state.is_final());
        if !named.current || over {
            return false;
        }
        let known = ObjectKey::new(key).is_ok_and(|key| self.bindings.contains_key(&key));
        let side = self.sides.entry(named.task.clone()).or_default();
        if !known {
            side.keys = side.keys.saturating_add(1);
        }
        known || side.keys <= limits::KEYS_PER_ATTEMPT
    }

    /// An upload under way, as a list names it. The word that it began may have been heard in an earlier life, or never
    /// been said; its completion may say less.
    fn remember(&mut self, cx: &mut Cx<'_>, device: &DeviceId, announced: &Announced) {
        let Some(named) = self.owned(device, &announced.task).filter(|named| named.current) else { return };
        let row = self.tasks.get(&named.task).expect("what was found is in memory");
        if row.state.is_final() {
            return;
        }
        let all = self.with_earlier(&named, announced);
        self.sides.entry(named.task.clone()).or_default().announced = Some(all);
        self.end_named(cx, device, &named);
    }

    /// `upload_complete`, or the same told again in a status.
    fn on_uploaded(&mut self, cx: &mut Cx<'_>, device: &DeviceId, announced: &Announced, fresh: bool) {
        let Some(named) = self.own_or_refuse(cx, device, &announced.task) else { return };
        if planted!(cx.knobs, X59) {
            let row = self.tasks.get(&named.task).expect("what was found is in memory");
            if matches!(row.state, TaskState::Failed | TaskState::Cancelled) {
                return;
            }
        }
        if planted!(cx.knobs, X58) && fresh {
            self.heralds.put(device, &named.wire, self.uploaders.get(device).copied());
        }
        let mut all = self.with_earlier(&named, announced);
        if planted!(cx.knobs, H10) {
            all = announced.clone();
        }
        if planted!(cx.knobs, H18) {
            all.mcap_only = announced.mcap_only;
        }
        let announced = &all;
        self.note_upload(cx, &named, announced, fresh);
        if planted!(cx.knobs, B20) && fresh {
            self.acknowledge(cx, device, &named.wire);
        }
        if announced.key.is_none() {
            return self.search(cx, device, &named, announced.clone(), Sought::Claimed);
        }
        self.verify(cx, device, &named, announced, fresh);
    }

    /// The recording ended, whatever else we heard of it. If the message is `fresh` the uploader works, and an
    /// earlier trouble is over.
    fn note_upload(&mut self, cx: &mut Cx<'_>, named: &Named, announced: &Announced, fresh: bool) {
        if !named.current {
            return;
        }
        let row = self.tasks.get(&named.task).expect("what was found is in memory");
        let (task, cause, at) = (named.task.clone(), TaskCause::Transfer, cx.now.wall);
        match row.state {
            TaskState::Pending | TaskState::Ready | TaskState::InProgress => {
                self.enact_task(
                    cx,
                    TaskChange::Finished { task: task.clone(), cause, facts: None, at, timed: true },
                );
            }
            TaskState::Uploading if fresh => self.note(cx, &task, None),
            TaskState::Uploading => {}
            TaskState::Completed | TaskState::Failed | TaskState::Cancelled => return,
        }
        let side: &mut Side = self.sides.entry(task).or_default();
        side.announced = Some(announced.clone());
        side.missing = None;
    }

    /// `upload_failed`: the uploader gave up. If only its queue was full, the recording is whole, and it is asked for it
    /// again.
    fn on_failed(&mut self, cx: &mut Cx<'_>, device: &DeviceId, task: &str, reason: Option<&str>) {
        let Some(named) = self.own_or_refuse(cx, device, task) else { return };
        let state = self.tasks.get(&named.task).expect("what was found is in memory").state;
        match state {
            TaskState::InProgress | TaskState::Uploading
                if named.current && reason.is_some_and(|reason| reason.contains(REJECTED)) =>
            {
                self.note(cx, &named.task, Some(alloc::format!("upload_rejected: {REJECTED}")));
                self.ask_soon(cx, device);
            }
            TaskState::InProgress | TaskState::Uploading if named.current => {
                let reason = reason.unwrap_or("upload failed").to_string();
                self.enact_task(cx, TaskChange::Failed { task: named.task, reason, at: cx.now.wall });
            }
            TaskState::Pending
            | TaskState::Ready
            | TaskState::InProgress
            | TaskState::Uploading
            | TaskState::Completed
            | TaskState::Failed
            | TaskState::Cancelled => {}
        }
    }

    /// `upload_not_found`: not believed. Uploaders say it also of what they have uploaded, so we look ourselves.
    fn on_not_found(&mut self, cx: &mut Cx<'_>, device: &DeviceId, task: &str, detail: Option<&str>) {
        let Some(named) = self.own_or_refuse(cx, device, task) else { return };
        let detail = detail.unwrap_or("upload file not found");
        if detail.starts_with(UNKNOWN_ACK) {
            // About our acknowledgement, which came twice or too late: nothing is missing.
            return;
        }
        if self.on_missing(cx, device, &named) {
            return;
        }
        let state = self.tasks.get(&named.task).expect("what was found is in memory").state;
        if !named.current || state != TaskState::Uploading {
            return;
        }
        let conn = self.uploaders.get(device).copied();
        if !conn.is_some_and(|conn| self.is_nowhere(&named.task, conn)) {
            self.note(cx, &named.task, Some(alloc::format!("upload_not_found: {detail}")));
        }
        self.begin_missing(device, &named.task);
        if self.verifies.contains_key(&(device.clone(), named.wire.clone())) {
            self.look_again(cx, device, &named.wire);
        } else {
            let announced = self.sides.get(&named.task).and_then(|side| side.announced.clone());
            match announced {
                Some(announced) if announced.key.is_some() => {
                    self.verify(cx, device, &named, &announced, false);
                }
                Some(announced) => self.search(cx, device, &named, announced, Sought::Missed),
                None => self.search_missed(cx, device, &named),
            }
        }
        if !planted!(cx.knobs, X62) {
            self.ask_list(cx, device);
        }
    }

    /// A claim with what an earlier one of the same key said and this one leaves out: the stored bytes must equal
    /// everything that was ever announced, so saying less later takes nothing back.
    pub(super) fn with_earlier(&self, named: &Named, announced: &Announced) -> Announced {
        let mut all = announced.clone();
        let earlier = self.sides.get(&named.task).and_then(|side| side.announced.as_ref());
        let same = |e: &&Announced| e.task == all.task && (e.key == all.key || all.key.is_none());
        if let Some(earlier) = earlier.filter(same) {
            all.key = all.key.or_else(|| earlier.key.clone());
            all.len = all.len.or(earlier.len);
            all.sha256 = all.sha256.or(earlier.sha256);
            all.mcap_only = all.mcap_only.or(earlier.mcap_only);
        }
        all
    }

    /// The attempt named, if it is this device's; otherwise viewers are told.
    fn own_or_refuse(&mut self, cx: &mut Cx<'_>, device: &DeviceId, task: &str) -> Option<Named> {
        let named = self.owned(device, task);
        if named.is_none() {
            let task = crate::row::shorten(task, limits::ID_BYTES);
            self.refused(cx, device, "not_owned", alloc::format!("task {task} is not this device's"));
        }
        named
    }

    /// Tells viewers why a message came to nothing.
    pub(super) fn refused(&self, cx: &mut Cx<'_>, device: &DeviceId, code: &'static str, detail: String) {
        cx.publish(Notice::Refused { device: device.clone(), code, detail });
    }

    /// Changes the text of a task's trouble, if it is another one.
    pub(super) fn note(&mut self, cx: &mut Cx<'_>, task: &TaskId, error: Option<String>) {
        let row = self.tasks.get(task).expect("only tasks in memory are noted on");
        if row.error != error && !row.state.is_final() {
            let over = error.is_none();
            self.enact_task(
                cx,
                TaskChange::Noted { task: task.clone(), error, at: cx.now.wall, facts: None },
            );
            if over {
                self.hope(cx, task);
            }
        }
    }

    /// The key an uploader announced, bound to the attempt it announced it for; `None` and told to viewers if it
    /// cannot be. A key belongs to one attempt for ever.
    pub(super) fn bind(
        &mut self,
        cx: &mut Cx<'_>,
        device: &DeviceId,
        named: &Named,
        announced: &Announced,
    ) -> Option<ObjectKey> {
        let Some(text) = announced.key.as_deref() else {
            let detail = alloc::format!("{}: no s3_key was named", named.wire);
            self.refused(cx, device, "key_missing", detail);
            return None;
        };
        let key = ObjectKey::new(text).ok().filter(|key| stem(key).is_some());
        let Some(key) = key else {
            let text = crate::row::shorten(text, limits::ID_BYTES);
            let detail = alloc::format!("{}: {text:?} is no key of an .mcap object", named.wire);
            self.refused(cx, device, "bad_key", detail);
            return None;
        };
        let (mut len, mut sha256) = (announced.len, announced.sha256);
        match self.bindings.get(&key) {
            Some(row) if row.is_of(&named.task, &named.wire) => {
                // What was said stays said, also after a restart, until something else is.
                (len, sha256) = (len.or(row.len), sha256.or(row.sha256));
                if row.episode.is_some() || (len, sha256) == (row.len, row.sha256) {
                    return Some(key);
                }
            }
            Some(_) if planted!(cx.knobs, X56) => return Some(key),
            Some(other) => {
                let detail = alloc::format!("{}: {key} belongs to {}", named.wire, other.wire);
                self.refused(cx, device, "key_conflict", detail);
                return None;
            }
            None => {
                assert!(
                    self.asked.contains(&Key::Binding(key.clone())),
                    "the owner of {key} was not asked for"
                );
                if let Some(other) = self.named_by(&key).filter(|other| other.wire != named.wire)
                    && !planted!(cx.knobs, X56)
                {
                    let detail = alloc::format!("{}: {key} is the name of {}", named.wire, other.wire);
                    self.refused(cx, device, "key_conflict", detail);
                    return None;
                }
            }
        }
        if !self.bindings.contains_key(&key) && !self.new_keys.take(device, cx.now.mono) {
            let detail = alloc::format!("{}: {key} is one new key too many without a recording", named.wire);
            self.refused(cx, device, "too_many_keys", detail);
            return None;
        }
        let (task, wire) = (named.task.clone(), named.wire.clone());
        self.enact_episode(cx, EpisodeChange::Bound { key: key.clone(), task, wire, len, sha256 });
        Some(key)
    }
}

/// Whether this is all that an older uploader tells when it is asked: what waits for an acknowledgement, and not what it
/// works on.
pub(super) fn is_scant(status: &Status) -> bool {
    status.uploads.is_none() && status.waiting_ack_tasks.is_some()
}

/// Whether an uploader works on this recording, or is done with it.
fn is_busy(status: &Status, wire: &WireId) -> bool {
    let listed = status.uploads.iter().flatten().any(|entry| {
        entry.announced.task == wire.as_str()
            && match entry.status {
                UploadStatus::Pending
                | UploadStatus::Active
                | UploadStatus::RetryWait
                | UploadStatus::WaitAck
                | UploadStatus::Completed => true,
                UploadStatus::Failed | UploadStatus::Unknown => false,
            }
    });
    listed || status.waiting_ack_tasks.iter().flatten().any(|task| task == wire.as_str())
}

/// The last name of a recording's key, without `.mcap`: the attempt that it is of, by the way that uploaders name it.
pub(super) fn name_of(key: &str) -> Option<&str> {
    key.rsplit('/').next()?.strip_suffix(".mcap")
}

/// The key without `.mcap`.
pub(super) fn stem(key: &ObjectKey) -> Option<&str> {
    key.as_str().strip_suffix(".mcap").filter(|stem| !stem.is_empty() && !stem.ends_with('/'))
}
