//! Which machine hears which fact. The map of the system: every effect across modules is here and nowhere else.

use alloc::collections::BTreeSet;

use crate::cx::Cx;
use crate::fact::Fact;
use crate::input::{Action, Input, Request};
use crate::machine::{Parts, Rows};
use crate::quarantine::Subject;
use crate::row::Key;
use crate::timers::TimerKey;
use crate::wire::TransferMessage;

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
        Fact::LinkDown { device, role } => parts.tasks.on_link_down(cx, &device, role),
        Fact::LinkUp { device, role, conn } => parts.tasks.on_link_up(cx, &device, role, conn),
        Fact::RecorderReported { device, report } => parts.tasks.on_recorder_reported(cx, &device, &report),
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
    }
}

/// Which records an input names. A handler that looks a record up by a name that came from outside finds it only
/// if it stands here; it asserts that it was asked for.
pub(crate) fn wants(parts: &Parts, input: &Input, have: &Rows, keys: &mut BTreeSet<Key>) {
    let tasks = &parts.tasks;
    for task in parts.hub.names(input) {
        tasks.want_task(task, have, keys);
    }
    match input {
        Input::Request { request, .. } => match request {
            Request::Command(command) => {
                if let Some(task) = &command.task {
                    if matches!(command.action, Action::Cancel | Action::Clear) {
                        tasks.want_successor(task, have, keys);
                    } else {
                        tasks.want_task(task, have, keys);
                    }
                }
            }
            Request::CallbackStart { task, .. }
            | Request::CallbackFinish { task, .. }
            | Request::CancelTask { task } => tasks.want_task(task, have, keys),
            Request::CreateTask { task, .. } => {
                if let Some(task) = task {
                    tasks.want_new(task, have, keys);
                }
            }
            Request::Judge { episode, .. } | Request::Sync { episode } => tasks.want_episode(*episode, keys),
            // Records of policies are always in memory.
            Request::RefreshState { .. } | Request::SyncBatch | Request::Policy(_) => {}
        },
        Input::Recorder { message, .. } => {
            if let Some(task) = crate::wire::recorder::names(message) {
                tasks.want_task(task, have, keys);
            }
        }
        Input::Transfer { message, .. } => match message {
            TransferMessage::UploadStarted(a) | TransferMessage::UploadComplete(a) => {
                tasks.want_announced(a, have, keys);
            }
            TransferMessage::UploadFailed { task, .. } => tasks.want_task(task, have, keys),
            TransferMessage::UploadNotFound { task, .. } => tasks.want_known(task, have, keys),
            TransferMessage::Status(status) => {
                for entry in status.uploads.iter().flatten() {
                    tasks.want_announced(&entry.announced, have, keys);
                }
                for task in status.waiting_ack_tasks.iter().flatten() {
                    tasks.want_task(task, have, keys);
                }
            }
            TransferMessage::Other(_) => {}
        },
        Input::Object { ticket, .. } => tasks.want_ticket(*ticket, have, keys),
        Input::Stored { key, .. } => tasks.want_stored(key, have, keys),
        Input::Quarantined { subject: Subject::Object { ticket }, .. } => {
            tasks.want_ticket(*ticket, have, keys)
        }
        Input::Boot { .. }
        | Input::Wake
        | Input::Knock { .. }
        | Input::Lost { .. }
        | Input::Space { .. }
        | Input::Policy { .. }
        | Input::Surroundings(_)
        | Input::Shutdown
        | Input::Quarantined { .. } => {}
    }
}
