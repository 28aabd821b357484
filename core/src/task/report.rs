//! Recorders' reports and callbacks, and operators making and calling off tasks. Must not believe a device about a
//! task that is not its own, nor about an attempt that is over.

use alloc::string::ToString;
use alloc::vec::Vec;

use super::Tasks;
use super::transfer::NO_ROOM;
use crate::bug::planted;
use crate::change::{TaskCause, TaskChange};
use crate::cx::Cx;
use crate::digest::Sha256;
use crate::effect::{Finish, Response};
use crate::fact::{Report, Reported};
use crate::id::{DeviceId, RequestId, TaskId, WireId};
use crate::limits;
use crate::refusal::Refusal;
use crate::row::{RecordingFacts, TaskRow, TaskState, shorten};
use crate::task::memory::Named;
use crate::wire::params;

/// What stands by a task whose uploader was not there to be asked.
pub(super) const OFFLINE: &str = "transfer disconnected; upload_request not sent";

impl Tasks {
    /// `config_applied`
    pub fn on_config_applied(&mut self, cx: &mut Cx<'_>, device: &DeviceId, task: &str) {
        let Some(row) = self.live(device, task).filter(|row| row.state == TaskState::Pending) else { return };
        let (task, cause, at) = (row.id.clone(), TaskCause::ConfigApplied, cx.now.wall);
        self.enact_task(cx, TaskChange::Readied { task, cause, at });
    }

    /// A recorder's state moves the task that it names forward.
    pub(super) fn follow(&mut self, cx: &mut Cx<'_>, device: &DeviceId, report: &Report) {
        if planted!(cx.knobs, X04) && report.state == Reported::Idle {
            let runs = |row: &&TaskRow| row.state == TaskState::InProgress;
            for task in self.tasks_of(device).filter(runs).map(|row| row.id.clone()).collect::<Vec<_>>() {
                self.give_back(cx, &task, TaskCause::Report);
            }
        }
        let Some(row) = report.task.as_ref().and_then(|wire| self.live(device, wire.as_str())) else {
            return;
        };
        let (task, state, at) = (row.id.clone(), row.state, cx.now.wall);
        let cause = TaskCause::Report;
        match (report.state, state) {
            (Reported::Ready, TaskState::Pending) => {
                self.enact_task(cx, TaskChange::Readied { task, cause, at });
            }
            (Reported::Recording | Reported::Paused, TaskState::Pending | TaskState::Ready) => {
                self.enact_task(cx, TaskChange::Started { task, cause, at });
            }
            (
                Reported::Idle | Reported::Ready | Reported::Recording | Reported::Paused | Reported::Other,
                _,
            ) => {}
        }
    }

    /// Whether a callback carries the `user_token` of its task; answers it if not. Where no token is demanded, a wrong
    /// one is refused all the same.
    pub fn may_call_back(
        &self,
        cx: &mut Cx<'_>,
        reply: RequestId,
        device: Option<&DeviceId>,
        task: &str,
        credential: Option<Sha256>,
    ) -> bool {
        let named = device.and_then(|device| self.owned(device, task));
        let own = named.and_then(|named| {
            let row = self.tasks.get(&named.task)?;
            if named.current {
                return row.token_sha256;
            }
            let mut earlier = row.earlier.iter().flatten();
            earlier.find(|entry| WireId::of_attempt(&row.id, entry.attempt) == named.wire)?.token_sha256
        });
        let may = match (own, credential) {
            (Some(own), Some(credential)) => own == credential,
            (None, _) | (_, None) => !cx.knobs.callback_tokens,
        };
        if !may {
            cx.reply(reply, Err(Refusal::Unauthorized));
        }
        may
    }

    /// A recorder says that it began to record. Always acknowledged.
    pub fn on_callback_start(
        &mut self,
        cx: &mut Cx<'_>,
        reply: RequestId,
        task: &str,
        device: Option<&DeviceId>,
    ) {
        let row = device.and_then(|device| self.live(device, task));
        let startable = row.filter(|row| matches!(row.state, TaskState::Pending | TaskState::Ready));
        let moved = startable.map(|row| row.id.clone());
        if let Some(task) = moved.clone() {
            self.reserve(&task);
            let (cause, at) = (TaskCause::Callback, cx.now.wall);
            self.enact_task(cx, TaskChange::Started { task, cause, at });
        }
        cx.reply(reply, Ok(Response::Started { moved: moved.is_some() }));
    }

    /// A recorder says that it ended a recording: the uploader is asked for it, also if something went wrong while
    /// recording, for the data may still be worth keeping.
    pub fn on_callback_finish(
        &mut self,
        cx: &mut Cx<'_>,
        reply: RequestId,
        task: &str,
        device: &DeviceId,
        facts: &RecordingFacts,
    ) {
        let Some(named) = self.owned(device, task) else {
            return cx.reply(reply, Err(Refusal::NotUploadable { owned: false }));
        };
        let state = self.tasks.get(&named.task).expect("what was found is in memory").state;
        if !named.current {
            return self.finish_earlier(cx, reply, device, &named, state);
        }
        match state {
            TaskState::Pending | TaskState::Ready | TaskState::InProgress => {
                let (task, cause, at) = (named.task, TaskCause::Callback, cx.now.wall);
                let finished = TaskChange::Finished {
                    task: task.clone(),
                    cause,
                    facts: Some(bounded(facts)),
                    at,
                    timed: true,
                };
                self.enact_task(cx, finished);
                let handled = if self.request_upload(cx, device, &task) {
                    Finish::Requested
                } else {
                    let why = if self.held.contains(&task) { NO_ROOM } else { OFFLINE };
                    self.enact_task(
                        cx,
                        TaskChange::Noted { task, error: Some(why.to_string()), at, facts: None },
                    );
                    Finish::TransferOffline
                };
                cx.reply(reply, Ok(Response::Finished { state: TaskState::Uploading, handled }));
            }
            TaskState::Uploading | TaskState::Completed => {
                self.hear_late(cx, &named.task, facts);
                cx.reply(reply, Ok(Response::Finished { state, handled: Finish::Repeated }));
            }
            TaskState::Failed | TaskState::Cancelled if planted!(cx.knobs, X03) => {
                let (task, cause, at) = (named.task, TaskCause::Callback, cx.now.wall);
                let facts = Some(bounded(facts));
                self.enact_task(
                    cx,
                    TaskChange::Finished { task: task.clone(), cause, facts, at, timed: true },
                );
                self.request_upload(cx, device, &task);
                let handled = Finish::Requested;
                cx.reply(reply, Ok(Response::Finished { state: TaskState::Uploading, handled }));
            }
            TaskState::Failed | TaskState::Cancelled => {
                self.owe_again(cx, &named.task, &named.wire);
                cx.reply(reply, Err(Refusal::NotUploadable { owned: true }));
            }
        }
    }

    /// What a recorder says of a recording whose end was found without it: nothing moves, and what it says is kept while the
    /// recording is waited for. The first word counts.
    fn hear_late(&mut self, cx: &mut Cx<'_>, task: &TaskId, facts: &RecordingFacts) {
        let row = self.tasks.get(task).filter(|row| row.state == TaskState::Uploading);
        let Some(row) = row.filter(|row| row.recording.is_none()) else { return };
        let facts = bounded(facts);
        // What the site found stays in front of what the recorder says: it may be that the recording is nowhere.
        let error = match (row.error.as_deref(), facts.error.as_deref()) {
            (Some(found), Some(said)) => Some(alloc::format!("{found}; {said}")),
            (one, other) => one.or(other).map(ToString::to_string),
        };
        let (task, at) = (task.clone(), cx.now.wall);
        self.enact_task(cx, TaskChange::Noted { task, error, at, facts: Some(facts) });
    }

    /// A recording of an attempt that is over: it does not move the task, but it is asked for.
    fn finish_earlier(
        &mut self,
        cx: &mut Cx<'_>,
        reply: RequestId,
        device: &DeviceId,
        named: &Named,
        state: TaskState,
    ) {
        let known = self.owe_again(cx, &named.task, &named.wire);
        if !self.uploaders.contains_key(device) {
            let later = Response::Finished { state, handled: Finish::TransferOffline };
            let refused = Err(Refusal::NotUploadable { owned: true });
            return cx.reply(reply, if known { Ok(later) } else { refused });
        }
        self.tell_upload_request(cx, device, named.wire.clone());
        cx.reply(reply, Ok(Response::Finished { state, handled: Finish::Requested }));
    }

    /// Makes a task.
    pub fn on_create(
        &mut self,
        cx: &mut Cx<'_>,
        reply: RequestId,
        task: Option<&TaskId>,
        device: &DeviceId,
        config: Option<&str>,
    ) {
        if config.is_some_and(|text| !params::is_config(text)) {
            let must = "a JSON object of at most 64 KiB";
            return cx.reply(reply, Err(Refusal::BadField { field: "config", must }));
        }
        let task = match task {
            Some(id) if self.is_taken(id) => {
                return cx.reply(reply, Err(Refusal::TaskExists(id.to_string())));
            }
            Some(id) => id.clone(),
            None => self.fresh_id(cx),
        };
        let (device, config, at) = (device.clone(), config.map(ToString::to_string), cx.now.wall);
        self.enact_task(cx, TaskChange::Created { task: task.clone(), device, config, at });
        let row = self.tasks.get(&task).expect("it was just made").clone();
        cx.reply(reply, Ok(Response::Task(row)));
    }

    /// Whether a task or an attempt of one has this name, or is about to get it.
    fn is_taken(&self, id: &TaskId) -> bool {
        let wire = WireId::of_attempt(id, 1);
        let taken = self.tasks.contains_key(id)
            || self.current.contains_key(&wire)
            || self.aliases.contains_key(&wire);
        if !taken {
            self.assert_asked(id.as_str(), &wire);
        }
        let reserved = |(task, side): (&TaskId, &super::Side)| {
            side.successor.is_some_and(|attempt| WireId::of_attempt(task, attempt) == wire)
        };
        taken || self.sides.iter().any(reserved)
    }

    /// A name nobody gave yet: the time to the second and 32 bits of chance.
    fn fresh_id(&self, cx: &mut Cx<'_>) -> TaskId {
        let stamp = super::date::compact(cx.now.wall);
        loop {
            let chance = cx.chance().next_u64() >> 32;
            let id = TaskId::new(&alloc::format!("task_{stamp}_{chance:08x}"))
                .expect("letters, digits and lines, and short");
            if !self.tasks.contains_key(&id) {
                return id;
            }
        }
    }

    /// Calls a task off. The device is not told: what it still records arrives late, and is kept as an episode.
    pub fn on_cancel(&mut self, cx: &mut Cx<'_>, reply: RequestId, task: &str) {
        let Some(row) = self.by_operator(task) else {
            return cx.reply(reply, Err(Refusal::TaskNotFound(shorten(task, limits::ID_BYTES))));
        };
        let id = row.id.clone();
        match row.state {
            TaskState::Pending | TaskState::Ready | TaskState::InProgress => {
                self.enact_task(cx, TaskChange::Cancelled { task: id.clone(), at: cx.now.wall });
                self.owe_current(cx, &id);
            }
            TaskState::Cancelled => {}
            TaskState::Uploading | TaskState::Completed | TaskState::Failed => {
                return cx.reply(reply, Err(Refusal::NotCancellable(row.state)));
            }
        }
        let row = self.tasks.get(&id).expect("it was just found").clone();
        cx.reply(reply, Ok(Response::Task(row)));
    }
}

/// Facts with texts no longer than we store.
fn bounded(facts: &RecordingFacts) -> RecordingFacts {
    let short = |text: &Option<alloc::string::String>| {
        text.as_deref().map(|text| shorten(text, limits::REASON_BYTES))
    };
    RecordingFacts {
        path: short(&facts.path),
        error: short(&facts.error),
        status: short(&facts.status),
        ..facts.clone()
    }
}
