//! What a whole run reached. A kind that was never reached fails the run: a property nobody exercised proves nothing.

use std::collections::BTreeMap;
use std::format;
use std::prelude::v1::*;

use crate::effect::{CloseWhy, Effect, Output, PolicyOp};
use crate::input::{Action, Input, LostWhy, Request};
use crate::machine::Machine;
use crate::outcome::Outcome;
use crate::row::{Cause, JobState, Key, ParkWhy, Phase, Qa, Row, SyncMark, TaskState};

/// Counts by kind and name.
#[derive(Clone, Debug, Default)]
pub(super) struct Coverage {
    pub(super) seen: BTreeMap<(&'static str, String), u64>,
}

impl Coverage {
    pub(super) fn reach(&mut self, kind: &'static str, name: &str) {
        *self.seen.entry((kind, name.to_string())).or_default() += 1;
    }

    pub(super) fn add(&mut self, other: &Coverage) {
        for (key, count) in &other.seen {
            *self.seen.entry(key.clone()).or_default() += count;
        }
    }

    pub(super) fn premises(&mut self, premises: &BTreeMap<&'static str, u64>) {
        for (name, count) in premises {
            *self.seen.entry(("premise", (*name).to_string())).or_default() += count;
        }
    }

    /// What a machine counted since its boot.
    pub(super) fn machine(&mut self, machine: &Machine) {
        let stats = machine.stats();
        for (kind, counts) in [("fact", &stats.facts), ("change", &stats.changes)] {
            for (name, count) in counts {
                *self.seen.entry((kind, (*name).to_string())).or_default() += count;
            }
        }
        for (name, count) in [("superseded", stats.superseded), ("stale", stats.stale_outcomes)] {
            *self.seen.entry(("door", name.to_string())).or_default() += count;
        }
    }

    pub(super) fn input(&mut self, input: &Input) {
        self.reach("input", input.name());
        match input {
            Input::Lost { why, .. } => self.reach("lost", lost(*why)),
            Input::Object { outcome: Outcome::Failed(fault), .. } => self.reach("fault", fault.code()),
            Input::Object { outcome: Outcome::Done(_), .. } => self.reach("outcome", "done"),
            Input::Object { outcome: Outcome::Unknown, .. } => self.reach("outcome", "unknown"),
            Input::Boot { .. }
            | Input::Wake
            | Input::Knock { .. }
            | Input::Recorder { .. }
            | Input::Transfer { .. }
            | Input::Request { .. }
            | Input::Stored { .. }
            | Input::Space { .. }
            | Input::Policy { .. }
            | Input::Surroundings(_)
            | Input::Quarantined { .. }
            | Input::Shutdown => {}
        }
    }

    pub(super) fn request(&mut self, request: &Request) {
        self.reach("request", request_name(request));
        if let Request::Command(command) = request {
            self.reach("action", command.action.name());
        }
    }

    pub(super) fn step(
        &mut self,
        out: &Output,
        rows: &BTreeMap<Key, Row>,
        touched: &BTreeMap<Key, Option<Row>>,
    ) {
        for effect in &out.effects {
            self.reach("effect", effect_name(effect));
            if let Effect::Close { why, .. } = effect {
                let word = match why {
                    CloseWhy::Replaced => "replaced",
                    CloseWhy::GoingAway => "going_away",
                    CloseWhy::Quarantined => "quarantined",
                    CloseWhy::Revoked => "revoked",
                };
                self.reach("close", word);
            }
        }
        for key in touched.keys() {
            match rows.get(key) {
                Some(Row::Task(row)) => self.reach("task", row.state.name()),
                Some(Row::Job(row)) => {
                    self.reach("job", job_name(&row.state));
                    if let JobState::Pending { cause, .. } = &row.state {
                        self.reach("cause", cause_name(cause));
                    }
                    if let JobState::Parked { why, .. } = &row.state {
                        let word = match why {
                            ParkWhy::NoDestination => "no_destination",
                            ParkWhy::Fault(_) => "fault",
                            ParkWhy::Policy => "policy",
                            ParkWhy::Quarantined(_) => "quarantined",
                        };
                        self.reach("parked", word);
                    }
                    if let JobState::Failed { why, .. } = &row.state {
                        self.reach("failed", why.code());
                    }
                }
                Some(Row::Upload(row)) => self.reach("phase", phase_name(&row.phase)),
                Some(Row::Episode(row)) => {
                    self.reach("qa", row.qa.name());
                    let mark = match &row.sync {
                        SyncMark::NotStarted => "not_started",
                        SyncMark::Queued(_) => "queued",
                        SyncMark::Synced { .. } => "synced",
                        SyncMark::Failed(_) => "failed",
                    };
                    self.reach("sync", mark);
                }
                Some(Row::Module(row)) => self.reach("module", row.state.name()),
                Some(Row::Policy(row)) => {
                    if let Some(turn) = row.history.last() {
                        self.reach("turn", turn.what.name());
                    }
                }
                Some(
                    Row::Meta(_)
                    | Row::Device(_)
                    | Row::Part(_)
                    | Row::Token(_)
                    | Row::Alias(_)
                    | Row::Binding(_),
                )
                | None => {}
            }
        }
    }

    /// Everything that a run must have reached and did not.
    pub(super) fn missing(&self) -> Vec<String> {
        let tasks = TaskState::ALL.map(TaskState::name);
        let actions = Action::ALL.map(Action::name);
        let expected: [(&'static str, &[&str]); 20] = [
            ("input", &INPUTS),
            ("request", &REQUESTS),
            ("action", &actions),
            ("fact", &FACTS),
            ("change", &CHANGES),
            ("task", &tasks),
            ("job", &["pending", "claimed", "parked", "completed", "failed"]),
            ("phase", &["planned", "open", "sealing", "sealed", "abandoning"]),
            ("sync", &["not_started", "queued", "synced", "failed"]),
            ("qa", &[Qa::Pending.name(), Qa::Rejected.name()]),
            (
                "word",
                &["confidence unknown", "confidence syncing", "confidence confirmed", "confidence stale"],
            ),
            ("effect", &EFFECTS),
            ("close", &["replaced", "going_away", "revoked"]),
            ("verb", &VERBS),
            ("fault", &FAULTS),
            ("outcome", &["done", "unknown"]),
            ("lost", &["closed", "broken", "silent", "stuck", "protocol"]),
            ("door", &["superseded", "stale"]),
            ("premise", &PREMISES),
            ("world", &["crash before commit", "crash after effects", "replayed"]),
        ];
        let mut missing = Vec::new();
        for (kind, names) in expected.into_iter().chain(super::policies::EXPECTED) {
            for name in names {
                if self.seen.get(&(kind, (*name).to_string())).is_none_or(|count| *count == 0) {
                    missing.push(format!("{kind} {name}"));
                }
            }
        }
        missing
    }
}

const INPUTS: [&str; 11] = [
    "surroundings",
    "boot",
    "wake",
    "knock",
    "recorder",
    "transfer",
    "lost",
    "request",
    "object",
    "stored",
    "shutdown",
];
const REQUESTS: [&str; 18] = [
    "issue token",
    "revoke token",
    "revoke tokens of device",
    "command",
    "refresh_state",
    "callback_start",
    "callback_finish",
    "create_task",
    "cancel_task",
    "judge",
    "sync",
    "sync_batch",
    "upload_request",
    "upload_all",
    "status_query",
    "cancel",
    "resolve",
    "resolve_task",
];
const FACTS: [&str; 23] = [
    "knock_cleared",
    "tokens_revoked",
    "policy_faulted",
    "policy_stalled",
    "link_up",
    "link_down",
    "recorder_reported",
    "config_applied",
    "transfer_said",
    "command_gated",
    "command_sent",
    "command_ended",
    "command_cleared",
    "transfer_frame",
    "episode_wanted",
    "job_wanted",
    "job_queued",
    "job_ended",
    "job_claimed",
    "job_abandoned",
    "part_acknowledged",
    "upload_restarted",
    "upload_ended",
];
const CHANGES: [&str; 43] = [
    "roster.registered",
    "roster.token_added",
    "roster.token_used",
    "roster.token_revoked",
    "task.created",
    "task.config_sent",
    "task.readied",
    "task.begin_sent",
    "task.started",
    "task.finished",
    "task.completed",
    "task.failed",
    "task.returned",
    "task.cancelled",
    "task.noted",
    "episode.bound",
    "episode.recorded",
    "episode.judged",
    "episode.queued",
    "episode.synced",
    "episode.sync_failed",
    "episode.removed",
    "job.queued",
    "job.claimed",
    "job.reclaimed",
    "job.returned",
    "job.parked",
    "job.completed",
    "job.failed",
    "job.sent",
    "job.noted",
    "upload.planned",
    "upload.refenced",
    "upload.sidecar_stored",
    "upload.creating",
    "upload.opened",
    "upload.part_stored",
    "upload.part_lost",
    "upload.sealing",
    "upload.sealed",
    "upload.restarted",
    "upload.abandoning",
    "upload.ended",
];
const EFFECTS: [&str; 10] =
    ["admit", "turn_away", "send", "close", "object", "reply", "publish", "gate", "freeze", "thaw"];
const VERBS: [&str; 10] =
    ["head", "get", "put", "create", "put_part", "complete", "abort", "list_parts", "list_uploads", "delete"];
const FAULTS: [&str; 16] = [
    "offline",
    "throttled",
    "unavailable",
    "auth",
    "clock_skew",
    "no_destination",
    "object_vanished",
    "upload_vanished",
    "part_vanished",
    "source_vanished",
    "object_damaged",
    "upload_damaged",
    "part_damaged",
    "source_damaged",
    "rejected",
    "local_disk",
];
const PREMISES: [&str; 21] = [
    "I32",
    "I32.stranger",
    "I01",
    "I03",
    "I04",
    "I06.begin",
    "I06.config",
    "I07",
    "I08",
    "I11",
    "I12.accepted",
    "I13",
    "I15",
    "I17",
    "I18",
    "I19",
    "I20",
    "I20.ack",
    "I20.removed",
    "I21",
    "I22.told",
];

fn request_name(request: &Request) -> &'static str {
    match request {
        Request::Command(_) => "command",
        Request::RefreshState { .. } => "refresh_state",
        Request::CallbackStart { .. } => "callback_start",
        Request::CallbackFinish { .. } => "callback_finish",
        Request::CreateTask { .. } => "create_task",
        Request::CancelTask { .. } => "cancel_task",
        Request::Resolve { .. } => "resolve",
        Request::Judge { .. } => "judge",
        Request::Sync { .. } => "sync",
        Request::SyncBatch => "sync_batch",
        Request::Policy(request) => request.name(),
        Request::Transfer { ask, .. } => ask.name(),
        Request::ResolveTask { .. } => "resolve_task",
        Request::Roster(request) => request.name(),
    }
}

fn lost(why: LostWhy) -> &'static str {
    match why {
        LostWhy::Closed => "closed",
        LostWhy::Broken => "broken",
        LostWhy::Silent => "silent",
        LostWhy::Stuck => "stuck",
        LostWhy::Protocol => "protocol",
    }
}

fn effect_name(effect: &Effect) -> &'static str {
    match effect {
        Effect::Admit { .. } => "admit",
        Effect::TurnAway { .. } => "turn_away",
        Effect::Send { .. } => "send",
        Effect::Close { .. } => "close",
        Effect::Object { .. } => "object",
        Effect::Reply { .. } => "reply",
        Effect::Publish(_) => "publish",
        Effect::Gate(_) => "gate",
        Effect::Freeze { .. } => "freeze",
        Effect::Thaw { .. } => "thaw",
        Effect::Grant { .. } => "grant",
        Effect::Bar { .. } => "bar",
        Effect::Policy { op, .. } => match op {
            PolicyOp::Admit { .. } => "policy admit",
            PolicyOp::Prepare { .. } => "policy prepare",
            PolicyOp::Retire { .. } => "policy retire",
            PolicyOp::Shadow(_) => "policy shadow",
        },
    }
}

fn job_name(state: &JobState) -> &'static str {
    match state {
        JobState::Pending { .. } => "pending",
        JobState::Claimed { .. } => "claimed",
        JobState::Parked { .. } => "parked",
        JobState::Completed { .. } => "completed",
        JobState::Failed { .. } => "failed",
    }
}

fn cause_name(cause: &Cause) -> &'static str {
    match cause {
        Cause::Queued => "queued",
        Cause::Retry(_) => "retry",
        Cause::Destination(_) => "destination",
        Cause::Asked => "asked",
        Cause::Returned => "returned",
        Cause::Policy => "policy",
        Cause::Disk(_) => "disk",
    }
}

fn phase_name(phase: &Phase) -> &'static str {
    match phase {
        Phase::Planned => "planned",
        Phase::Open { .. } => "open",
        Phase::Sealing { .. } => "sealing",
        Phase::Sealed { .. } => "sealed",
        Phase::Abandoning { .. } => "abandoning",
    }
}
