//! Which machine hears which fact. The map of the system: every effect across modules is here and nowhere else.

use alloc::collections::BTreeSet;

use crate::cx::Cx;
use crate::fact::Fact;
use crate::hub::Knock;
use crate::input::{Action, Input, Request, TransferAsk};
use crate::machine::{Parts, Rows};
use crate::quarantine::Subject;
use crate::row::Key;
use crate::timers::TimerKey;
use crate::wire::{RecorderMessage, TransferMessage};

/// Delivers one fact. Facts are delivered in the order they were told, at most `limits::FACTS_PER_STEP` of them.
pub(crate) fn deliver(parts: &mut Parts, cx: &mut Cx<'_>, fact: Fact) {
    match fact {
        Fact::CommandCleared(command) => parts.hub.on_command_cleared(cx, command),
        Fact::TransferFrame { device, frame } => parts.hub.on_transfer_frame(cx, &device, &frame),
        Fact::EpisodeWanted(wanted) => parts.queue.on_episode_wanted(cx, *wanted),
        Fact::JobWanted { job, episode, reply } => parts.queue.on_job_wanted(cx, job, episode, reply),
        Fact::PartAcknowledged { fence, bytes } => parts.queue.on_part_acknowledged(cx, fence, bytes),
        Fact::UploadEnded { fence, end } => parts.queue.on_upload_ended(cx, fence, &end),
        Fact::UploadRestarted { fence } => parts.queue.on_upload_restarted(cx, fence),
        Fact::UploadBlind { fence } => parts.queue.on_upload_blind(cx, fence),
        Fact::CommandEnded { command, end } => parts.tasks.on_command_ended(cx, &command, end),
        Fact::CommandGated(command) => parts.tasks.on_command_gated(cx, command),
        Fact::CommandSent(command) => parts.tasks.on_command_sent(cx, &command),
        Fact::ConfigApplied { device, task } => parts.tasks.on_config_applied(cx, &device, &task),
        Fact::JobEnded { job, episode, end } => parts.tasks.on_job_ended(cx, job, episode, end),
        Fact::JobQueued { job, episode } => parts.tasks.on_job_queued(cx, job, episode),
        Fact::KnockCleared { socket, device, role, remote, port, proof } => {
            let (device, remote) = (&device, remote.as_str());
            parts.hub.on_knock(cx, Knock { socket, device, role, remote, port, proof });
        }
        Fact::TokensRevoked { device, left, all } => {
            parts.hub.on_tokens_revoked(cx, &device, &left, all);
        }
        Fact::DeviceDisabled { device } => parts.hub.on_device_disabled(cx, &device),
        Fact::LinkDown { device, role } => {
            parts.roster.on_link_down(cx, &device, role);
            parts.tasks.on_link_down(cx, &device, role);
        }
        Fact::LinkUp { device, role, conn, remote, proof } => {
            parts.roster.on_link_up(&device, role, &remote, proof);
            parts.tasks.on_link_up(cx, &device, role, conn);
        }
        Fact::RecorderReported { device, conn, report, calm } => {
            parts.tasks.on_recorder_reported(cx, &device, conn, &report, calm);
        }
        Fact::TransferSaid { device, conn, message } => parts.tasks.on_transfer(cx, &device, conn, &message),
        Fact::PolicyFaulted { slot, why } => parts.policies.on_faulted(cx, slot, why),
        Fact::PolicyStalled { slot } => parts.policies.on_stalled(cx, slot),
        Fact::JobAbandoned { job } => parts.uploads.on_abandoned(cx, job),
        Fact::JobClaimed { fence, row } => parts.uploads.on_claimed(cx, fence, &row),
    }
}

/// Wakes whom a deadline names.
pub(crate) fn wake(parts: &mut Parts, cx: &mut Cx<'_>, key: &TimerKey) {
    match key {
        TimerKey::Sync(conn) => parts.hub.on_sync_due(cx, *conn),
        TimerKey::Call(ticket) => parts.hub.on_call_due(cx, *ticket),
        TimerKey::Verify(device, wire) => parts.tasks.on_verify_due(cx, device, wire),
        TimerKey::Remove => parts.tasks.on_remove_due(cx),
        TimerKey::Inspect => parts.tasks.on_inspect_due(cx),
        TimerKey::Scan => parts.tasks.on_scan_due(cx),
        TimerKey::Queue => parts.queue.on_due(cx),
        TimerKey::Upload(job) => parts.uploads.on_due(cx, *job),
        TimerKey::Janitor(job) => parts.uploads.on_janitor_due(cx, *job),
        TimerKey::Policy => parts.policies.on_due(cx),
        TimerKey::Contest(conn) => parts.hub.on_contest_due(cx, *conn),
        TimerKey::Grace(device) => parts.tasks.on_grace_due(cx, device),
        TimerKey::Settle(task) => parts.tasks.on_settle_due(cx, task),
        TimerKey::Uploader(device) => parts.tasks.on_uploader_due(cx, device),
        TimerKey::Overdue => parts.tasks.on_overdue_due(cx),
    }
}

/// Which records an input names. A handler that looks a record up by a name that came from outside finds it only
/// if it stands here; it asserts that it was asked for. `due` are the deadlines that [`Input::Wake`] would deliver.
pub(crate) fn wants<'k>(
    parts: &Parts,
    due: impl Iterator<Item = &'k TimerKey>,
    input: &Input,
    have: &Rows,
    keys: &mut BTreeSet<Key>,
) {
    let tasks = &parts.tasks;
    for task in parts.hub.names(input, due) {
        tasks.want_successor(task, have, keys);
    }
    if let Some(device) = parts.roster.may_close(input) {
        for task in parts.hub.names_of(device) {
            tasks.want_successor(task, have, keys);
        }
    }
    match input {
        Input::Request { request, .. } => match request {
            Request::Command(command) => {
                if let Some(task) = &command.task {
                    if matches!(command.action, Action::Begin | Action::Cancel | Action::Clear) {
                        tasks.want_successor(task, have, keys);
                    } else {
                        tasks.want_task(task, have, keys);
                    }
                }
            }
            Request::CallbackStart { task, .. } => tasks.want_successor(task, have, keys),
            Request::CallbackFinish { task, .. } | Request::CancelTask { task } => {
                tasks.want_task(task, have, keys)
            }
            Request::CreateTask { task, .. } => {
                if let Some(task) = task {
                    tasks.want_new(task, have, keys);
                }
            }
            Request::Judge { episode, .. } | Request::Sync { episode } => tasks.want_episode(*episode, keys),
            Request::Transfer { ask, .. } => match ask {
                TransferAsk::Upload { task, .. } | TransferAsk::Cancel { task } => {
                    tasks.want_task(task, have, keys);
                }
                TransferAsk::UploadAll | TransferAsk::StatusQuery => {}
            },
            Request::ResolveTask { task, .. } => tasks.want_successor(task, have, keys),
            // What may be put back has the name of its next attempt already.
            Request::Resolve { .. } => {}
            // Records of policies, devices and tokens are always in memory.
            Request::RefreshState { .. } | Request::SyncBatch | Request::Policy(_) | Request::Roster(_) => {}
        },
        Input::Recorder { message, .. } => {
            let named = crate::wire::recorder::names(message);
            if let Some(task) = named {
                tasks.want_successor(task, have, keys);
            }
            if matches!(message, RecorderMessage::Response { .. }) {
                // One answer may put a task back, and say in the same breath that the recorder holds it.
                for task in parts.hub.names(input, core::iter::empty()).into_iter().chain(named) {
                    tasks.want_beyond(task, have, keys);
                }
            }
        }
        Input::Transfer { message, .. } => match message {
            TransferMessage::UploadStarted(a) | TransferMessage::UploadComplete(a) => {
                tasks.want_announced(a, have, keys);
                // What is told without a key may have been told with one before.
                tasks.want_known(&a.task, have, keys);
            }
            TransferMessage::UploadFailed { task, .. } => tasks.want_task(task, have, keys),
            TransferMessage::UploadNotFound { task, .. } => tasks.want_known(task, have, keys),
            TransferMessage::Status(status) => {
                for entry in status.uploads.iter().flatten() {
                    tasks.want_announced(&entry.announced, have, keys);
                    tasks.want_known(&entry.announced.task, have, keys);
                }
                for task in status.waiting_ack_tasks.iter().flatten() {
                    tasks.want_known(task, have, keys);
                }
            }
            TransferMessage::Other(_) => {}
        },
        Input::Object { ticket, outcome } => tasks.want_ticket(*ticket, Some(outcome), have, keys),
        Input::Stored { key, .. } => tasks.want_stored(key, have, keys),
        Input::Quarantined { subject: Subject::Object { ticket }, .. } => {
            tasks.want_ticket(*ticket, None, have, keys)
        }
        Input::Boot { .. } => tasks.want_successors(have, keys),
        Input::Wake
        | Input::Knock { .. }
        | Input::Lost { .. }
        | Input::Space { .. }
        | Input::Policy { .. }
        | Input::Surroundings(_)
        | Input::Shutdown
        | Input::Quarantined { .. } => {}
    }
}
