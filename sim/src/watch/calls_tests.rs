//! Each rule of commands and requests breaks when what it forbids is done, and holds in the legal life next to it.

use std::time::Duration;

use tidegate_core::change::{Change, TaskCause, TaskChange};
use tidegate_core::effect::{Effect, Frame, Notice, Output, Response};
use tidegate_core::id::{ConnId, DeviceId, RequestId, Role, TaskId};
use tidegate_core::input::{Action, Input, LostWhy, Request};
use tidegate_core::limits;
use tidegate_core::refusal::Refusal;
use tidegate_core::row::{Key, Row, TaskRow, TaskState};
use tidegate_core::time::Wall;

use super::{Calls, FRAME_BYTES};
use crate::device::Deed;
use crate::time::SimTime;
use crate::watch::rig::{Rig, breaks, command, device, push, response};
use crate::watch::{Broken, Watch as _};

fn rpc(id: &str, action: Action, task: Option<&str>) -> Frame {
    let params = task.map_or(String::new(), |task| format!(",\"params\":{{\"task_id\":\"{task}\"}}"));
    let text = format!(
        "{{\"type\":\"rpc_request\",\"request_id\":\"{id}\",\"action\":\"{}\"{params}}}\n",
        action.name()
    );
    Frame { text, secret: None }
}

fn send(out: &mut Output, conn: ConnId, frame: Frame) {
    out.effects.push(Effect::Send { conn, frame });
}

/// Changes the answer to the one request that is answered.
fn answer(out: &mut Output, with: Result<Response, Refusal>) {
    let mut with = Some(with);
    for effect in &mut out.effects {
        if let Effect::Reply { answer, .. } = effect {
            *answer = with.take().expect("one answer");
        }
    }
    assert!(with.is_none(), "nothing is answered: {out:?}");
}

fn unanswered(out: &mut Output) {
    out.effects.retain(|effect| !matches!(effect, Effect::Reply { .. }));
}

/// A recorder that records `t`, and a `pause` that is out.
fn pausing() -> (Rig, ConnId, String) {
    let mut rig = Rig::new();
    let conn = rig.ready();
    rig.request(command(Action::Begin, Some("t"))).unwrap();
    let id = rig.rpc();
    rig.say(conn, response(&id, true, Some("recording"), Some("t"))).unwrap();
    rig.request(command(Action::Pause, None)).unwrap();
    let id = rig.rpc();
    (rig, conn, id)
}

#[test]
fn a_whole_life_breaks_nothing_and_meets_every_premise() {
    let (mut rig, conn, id) = pausing();
    rig.say(conn, response(&id, true, Some("paused"), None)).unwrap();
    rig.say(conn, response(&id, false, None, None)).unwrap();
    rig.request(command(Action::Resume, None)).unwrap();
    rig.until_wake().unwrap();
    rig.request(Request::RefreshState { device: device(), max_age_ms: 0 }).unwrap();
    rig.until_wake().unwrap();
    rig.until_wake().unwrap();
    rig.request(command(Action::GetState, None)).unwrap();
    rig.request(command(Action::GetStats, None)).unwrap();
    let second = rig.knock(Role::Recorder).unwrap();
    let id = rig.rpc();
    rig.request(Request::RefreshState { device: device(), max_age_ms: 0 }).unwrap();
    rig.request(command(Action::GetState, None)).unwrap();
    // A crowd: the last of it is turned away.
    for _ in 0..tidegate_core::limits::WAITERS_PER_LINK {
        rig.request(Request::RefreshState { device: device(), max_age_ms: 0 }).unwrap();
    }
    rig.say(second, response(&id, true, Some("recording"), Some("t"))).unwrap();
    rig.request(command(Action::Finish, None)).unwrap();
    rig.act(&Input::Shutdown).unwrap();
    rig.end().unwrap();
    let told = lived(&mut rig.calls, true, &[began("t"), configured("t")]);
    told.unwrap();
    for invariant in rig.calls.invariants() {
        assert!(rig.met(invariant) > 0, "{invariant} had nothing to check: {:?}", rig.calls.premises());
    }
    for finer in ["I06.config", "I06.begin", "I07.late", "I08.timed_out", "I08.lost", "I08.stopped"] {
        assert!(rig.met(finer) > 0, "{finer}");
    }
}

#[test]
fn commands_that_wait_for_a_fresh_state_are_sent_or_refused_when_it_comes() {
    let mut rig = Rig::new();
    let conn = rig.idle();
    rig.pass(Duration::from_secs(5));
    rig.request(command(Action::Config, Some("t"))).unwrap();
    let question = rig.rpc();
    rig.request(command(Action::Config, Some("nothing"))).unwrap();
    rig.request(command(Action::Config, Some("t"))).unwrap();
    rig.say(conn, response(&question, true, Some("idle"), None)).unwrap();
    let id = rig.rpc();
    rig.say(conn, response(&id, true, Some("ready"), Some("t"))).unwrap();
    assert_eq!(rig.task("t").state, TaskState::Ready);
    rig.end().unwrap();
}

#[test]
fn i06_a_configuration_before_the_state_is_confirmed_is_noticed() {
    let mut rig = Rig::new();
    rig.knock(Role::Transfer).unwrap();
    let conn = rig.knock(Role::Recorder).unwrap();
    let (_, input) = rig.request_input(command(Action::Config, Some("t")));
    let frame = rpc("r", Action::Config, Some("t"));
    breaks(
        "I06",
        rig.spoil(&input, |out| {
            unanswered(out);
            send(out, conn, frame);
        }),
    );
}

#[test]
fn i06_a_begin_on_an_old_state_is_noticed() {
    let mut rig = Rig::new();
    let conn = rig.ready();
    rig.pass(Duration::from_millis(rig.knobs.fresh_ms + 1));
    let (_, input) = rig.request_input(command(Action::Begin, Some("t")));
    let frame = rpc("r", Action::Begin, Some("t"));
    breaks(
        "I06",
        rig.spoil(&input, |out| {
            out.effects.clear();
            send(out, conn, frame);
        }),
    );
}

#[test]
fn i06_a_begin_of_another_task_than_the_recorder_is_ready_for_is_noticed() {
    let mut rig = Rig::new();
    rig.create("u");
    let conn = rig.ready();
    let (_, input) = rig.request_input(command(Action::Begin, Some("u")));
    let frame = rpc("r", Action::Begin, Some("u"));
    breaks(
        "I06",
        rig.spoil(&input, |out| {
            unanswered(out);
            send(out, conn, frame);
        }),
    );
}

#[test]
fn i06_a_second_command_that_changes_the_device_is_noticed() {
    let (mut rig, conn, _) = pausing();
    let (_, input) = rig.request_input(command(Action::Resume, None));
    let frame = rpc("r", Action::Resume, None);
    breaks(
        "I06",
        rig.spoil(&input, |out| {
            unanswered(out);
            send(out, conn, frame);
        }),
    );
}

#[test]
fn i06_a_command_about_a_task_of_nobody_is_noticed() {
    let mut rig = Rig::new();
    let conn = rig.ready();
    let (_, input) = rig.request_input(command(Action::Cancel, Some("of-somebody-else")));
    let frame = rpc("r", Action::Cancel, Some("of-somebody-else"));
    breaks(
        "I06",
        rig.spoil(&input, |out| {
            unanswered(out);
            send(out, conn, frame);
        }),
    );
}

#[test]
fn i07_a_second_answer_to_a_request_is_noticed() {
    let (mut rig, conn, id) = pausing();
    let message = response(&id, true, Some("paused"), None);
    breaks(
        "I07",
        rig.spoil(&Input::Recorder { conn, message }, |out| {
            let reply = out.effects.iter().find(|effect| matches!(effect, Effect::Reply { .. })).cloned();
            out.effects.push(reply.unwrap());
        }),
    );
}

#[test]
fn i07_an_answer_to_another_command_is_noticed() {
    let (mut rig, conn, id) = pausing();
    let message = response(&id, true, Some("paused"), None);
    let other = Response::Rpc { request_id: "another".into(), success: true, message: None, data: None };
    breaks("I07", rig.spoil(&Input::Recorder { conn, message }, |out| answer(out, Ok(other))));
}

#[test]
fn i07_an_answered_command_whose_caller_is_left_waiting_is_noticed() {
    let (mut rig, conn, id) = pausing();
    let message = response(&id, true, Some("paused"), None);
    breaks("I07", rig.spoil(&Input::Recorder { conn, message }, unanswered));
}

#[test]
fn i07_a_request_that_needs_no_device_and_is_not_answered_is_noticed() {
    let mut rig = Rig::new();
    let (_, input) = rig.request_input(Request::SyncBatch);
    breaks("I07", rig.spoil(&input, unanswered));
}

#[test]
fn i07_an_answer_after_the_end_that_counts_is_noticed() {
    let (mut rig, conn, id) = pausing();
    rig.until_wake().unwrap();
    let message = response(&id, true, Some("paused"), None);
    breaks(
        "I07",
        rig.spoil(&Input::Recorder { conn, message }, |out| {
            let task = TaskId::new("t").unwrap();
            let change = TaskChange::Returned {
                task: task.clone(),
                attempt: 1,
                wire: tidegate_core::id::WireId::of_attempt(&task, 1),
                cause: TaskCause::Answer,
                at: Wall(1),
                remembered: true,
            };
            out.changes.push(Change::Task(change));
        }),
    );
}

#[test]
fn i07_a_command_under_the_id_of_another_is_noticed() {
    let (mut rig, conn, id) = pausing();
    rig.say(conn, response(&id, true, Some("paused"), None)).unwrap();
    let (_, input) = rig.request_input(command(Action::GetStats, None));
    breaks(
        "I07",
        rig.spoil(&input, |out| {
            out.effects.clear();
            send(out, conn, rpc(&id, Action::GetStats, None));
        }),
    );
}

#[test]
fn i07_an_answer_that_leaves_twice_is_noticed() {
    let mut rig = Rig::new();
    let to = rig.request(Request::SyncBatch).unwrap();
    let answer = Ok(Response::BatchAccepted { count: 0 });
    breaks("I07", rig.released(&Effect::Reply { to, answer }));
}

#[test]
fn i08_a_command_that_is_called_failed_at_its_deadline_is_noticed() {
    let (mut rig, ..) = pausing();
    rig.pass(rig.knobs.rpc_timeout());
    breaks("I08", rig.spoil(&Input::Wake, |out| answer(out, Err(Refusal::RecorderOffline))));
}

#[test]
fn i08_a_command_that_is_called_failed_when_its_link_is_lost_is_noticed() {
    let (mut rig, conn, _) = pausing();
    let lost = Input::Lost { conn, why: LostWhy::Broken };
    breaks("I08", rig.spoil(&lost, |out| answer(out, Err(Refusal::RecorderOffline))));
}

#[test]
fn i08_an_answered_command_that_is_called_unknown_is_noticed() {
    let (mut rig, conn, id) = pausing();
    let message = response(&id, true, Some("paused"), None);
    let unknown = Err(Refusal::RpcTimeout(Action::Pause));
    breaks("I08", rig.spoil(&Input::Recorder { conn, message }, |out| answer(out, unknown)));
}

#[test]
fn i08_a_deadline_that_fires_early_is_noticed() {
    let (mut rig, ..) = pausing();
    let to = rig.last_request();
    rig.pass(rig.knobs.rpc_timeout() - Duration::from_nanos(1));
    breaks(
        "I08",
        rig.spoil(&Input::Wake, |out| {
            out.effects.push(Effect::Reply { to, answer: Err(Refusal::RpcTimeout(Action::Pause)) });
        }),
    );
}

#[test]
fn i08_an_unknown_end_that_no_viewer_is_told_of_is_noticed() {
    let (mut rig, ..) = pausing();
    rig.pass(rig.knobs.rpc_timeout());
    breaks(
        "I08",
        rig.spoil(&Input::Wake, |out| {
            out.effects.retain(|effect| !matches!(effect, Effect::Publish(Notice::OperationUnknown { .. })));
        }),
    );
}

#[test]
fn i08_a_command_that_is_sent_again_by_itself_is_noticed() {
    let (mut rig, conn, _) = pausing();
    rig.pass(rig.knobs.rpc_timeout());
    breaks("I08", rig.spoil(&Input::Wake, |out| send(out, conn, rpc("again", Action::Pause, None))));
}

#[test]
fn i08_an_unknown_end_that_moves_a_task_is_noticed() {
    let mut rig = Rig::new();
    rig.idle();
    rig.request(command(Action::Config, Some("t"))).unwrap();
    rig.pass(rig.knobs.rpc_timeout());
    breaks(
        "I08",
        rig.spoil(&Input::Wake, |out| {
            let task = TaskId::new("t").unwrap();
            let change = TaskChange::Readied { task, cause: TaskCause::Answer, at: Wall(1) };
            out.changes.push(Change::Task(change));
        }),
    );
}

#[test]
fn i09_a_begin_whose_intent_is_not_durable_is_noticed() {
    let mut rig = Rig::new();
    rig.ready();
    let (_, input) = rig.request_input(command(Action::Begin, Some("t")));
    breaks("I09", rig.spoil(&input, |out| out.rows.retain(|(key, _)| !matches!(key, Key::Task(_)))));
}

#[test]
fn i09_an_attempt_that_was_begun_and_is_begun_again_without_its_devices_word_is_noticed() {
    let mut rig = Rig::new();
    let conn = rig.ready();
    rig.request(command(Action::Begin, Some("t"))).unwrap();
    let id = rig.rpc();
    // The push was said before the command was heard.
    rig.say(conn, push(Some("ready"), Some("t"), 5)).unwrap();
    rig.say(conn, response(&id, true, None, None)).unwrap();
    let (_, input) = rig.request_input(command(Action::Begin, Some("t")));
    let key = Key::Task(TaskId::new("t").unwrap());
    let mut row = rig.task("t");
    row.state = TaskState::Ready;
    rig.rows.insert(key, Row::Task(row));
    breaks(
        "I09",
        rig.spoil(&input, |out| {
            unanswered(out);
            send(out, conn, rpc("again", Action::Begin, Some("t")));
        }),
    );
}

#[test]
fn i09_an_attempt_that_its_device_refused_to_begin_comes_back_as_another_one() {
    let mut rig = Rig::new();
    let conn = rig.ready();
    rig.request(command(Action::Begin, Some("t"))).unwrap();
    let id = rig.rpc();
    rig.say(conn, response(&id, false, None, None)).unwrap();
    let row = rig.task("t");
    assert_eq!((row.state, row.attempt, row.begun), (TaskState::Pending, 2, false));
    rig.lose(conn).unwrap();
    let conn = rig.knock(Role::Recorder).unwrap();
    let id = rig.rpc();
    rig.say(conn, response(&id, true, Some("ready"), Some("t"))).unwrap();
    // The device still offers the old name, and nobody takes it up again.
    let (_, input) = rig.request_input(command(Action::Begin, Some("t")));
    rig.act(&input).unwrap();
    assert_eq!(rig.sent().len(), 0, "{:?}", rig.sent());
}

#[test]
fn i09_an_attempt_that_was_begun_before_a_restart_and_is_configured_again_is_noticed() {
    let mut rig = Rig::new();
    rig.ready();
    rig.request(command(Action::Begin, Some("t"))).unwrap();
    // Its record forgot what was done; who watched did not.
    let row = TaskRow { state: TaskState::Pending, begun: false, ..rig.task("t") };
    rig.rows.insert(Key::Task(TaskId::new("t").unwrap()), Row::Task(row));
    rig.restart().unwrap();
    rig.idle();
    let (_, input) = rig.request_input(command(Action::Config, Some("t")));
    breaks("I09", rig.act(&input));
}

fn began(wire: &str) -> (SimTime, Deed) {
    (SimTime(1), Deed::Began { wire: wire.into() })
}

fn configured(wire: &str) -> (SimTime, Deed) {
    (SimTime(1), Deed::Configured { wire: wire.into() })
}

fn lived(calls: &mut Calls, honest: bool, log: &[(SimTime, Deed)]) -> Result<(), Broken> {
    calls.lives.lived(&device(), honest, log, &mut calls.premises)
}

#[test]
fn i09_a_device_that_begins_one_attempt_twice_is_noticed() {
    let mut calls = Calls::default();
    lived(&mut calls, true, &[began("t")]).unwrap();
    lived(&mut calls, true, &[began("t"), began("t.2")]).unwrap();
    breaks("I09", lived(&mut calls, true, &[began("t"), began("t.2"), began("t")]));
    // Somebody spoke in its name: what the site was told is not what the device did.
    let mut calls = Calls::default();
    lived(&mut calls, false, &[began("t"), began("t")]).unwrap();
    assert_eq!(calls.premises().0.get("I09"), None);
}

#[test]
fn i09_a_device_that_is_configured_more_often_than_anybody_asked_is_noticed() {
    let mut rig = Rig::new();
    let conn = rig.ready();
    rig.say(conn, push(Some("idle"), None, 5)).unwrap();
    lived(&mut rig.calls, true, &[configured("t")]).unwrap();
    breaks("I09", lived(&mut rig.calls, true, &[configured("t"), configured("t")]));
    let other = DeviceId::new("d2").unwrap();
    let log = [configured("t")];
    breaks("I09", rig.calls.lives.lived(&other, true, &log, &mut rig.calls.premises));
}

#[test]
fn i10_a_command_of_a_dead_link_that_nobody_is_told_of_is_noticed() {
    let (mut rig, conn, _) = pausing();
    breaks("I10", rig.spoil(&Input::Lost { conn, why: LostWhy::Broken }, unanswered));
    let (mut rig, ..) = pausing();
    let knock = rig.knock_input(Role::Recorder);
    breaks("I10", rig.spoil(&knock, unanswered));
}

#[test]
fn i10_somebody_who_waited_for_the_state_of_a_dead_link_and_is_forgotten_is_noticed() {
    let mut rig = Rig::new();
    rig.knock(Role::Recorder).unwrap();
    rig.request(Request::RefreshState { device: device(), max_age_ms: 0 }).unwrap();
    let knock = rig.knock_input(Role::Recorder);
    breaks("I10", rig.spoil(&knock, unanswered));
}

#[test]
fn i10_a_request_that_waits_for_nothing_is_noticed() {
    let mut rig = Rig::new();
    rig.idle();
    let (_, input) = rig.request_input(command(Action::GetStats, None));
    breaks("I10", rig.spoil(&input, |out| out.effects.clear()));
}

#[test]
fn i10_a_deadline_that_nobody_notices_is_noticed() {
    let (mut rig, ..) = pausing();
    rig.pass(rig.knobs.rpc_timeout());
    rig.request(Request::SyncBatch).unwrap();
    rig.pass(Duration::from_millis(1_000));
    let (_, input) = rig.request_input(Request::SyncBatch);
    breaks("I10", rig.act(&input));
    let (mut rig, ..) = pausing();
    rig.end().unwrap();
    rig.pass(rig.knobs.rpc_timeout() + Duration::from_millis(1_001));
    breaks("I10", rig.end());
}

#[test]
fn i10_a_site_that_stood_still_catches_up() {
    let (mut rig, ..) = pausing();
    rig.pass(Duration::from_secs(300));
    rig.request(Request::SyncBatch).unwrap();
    rig.act(&Input::Wake).unwrap();
    rig.end().unwrap();
}

#[test]
fn i10_more_commands_on_a_link_than_may_be_are_noticed() {
    let mut rig = Rig::new();
    let conn = rig.knock(Role::Recorder).unwrap();
    // One place is that of the question for its state, which is open, and one is kept for what changes the device.
    for _ in 2..limits::CALLS_PER_LINK {
        rig.request(command(Action::GetStats, None)).unwrap();
        rig.rpc();
    }
    rig.request(command(Action::Pause, None)).unwrap();
    rig.rpc();
    rig.request(command(Action::GetStats, None)).unwrap();
    assert!(rig.sent().is_empty(), "it was refused");
    let (_, input) = rig.request_input(command(Action::GetStats, None));
    breaks(
        "I10",
        rig.spoil(&input, |out| {
            unanswered(out);
            send(out, conn, rpc("r", Action::GetStats, None));
        }),
    );
}

#[test]
fn i27_more_requests_than_may_wait_are_noticed() {
    let mut rig = Rig::new();
    rig.knock(Role::Recorder).unwrap();
    let refresh = || Request::RefreshState { device: device(), max_age_ms: 0 };
    let mut broken = Ok(());
    for _ in 0..100 {
        let (_, input) = rig.request_input(refresh());
        rig.act(&input).unwrap();
    }
    for _ in 0..100 {
        let (_, input) = rig.request_input(refresh());
        broken = broken.and_then(|()| rig.spoil(&input, |out| out.effects.clear()));
    }
    breaks("I27", broken);
}

#[test]
fn i27_a_frame_without_bound_is_noticed() {
    let mut rig = Rig::new();
    let conn = rig.idle();
    let text = format!("\"{}\"\n", "x".repeat(FRAME_BYTES));
    breaks("I27", rig.spoil(&Input::Wake, |out| send(out, conn, Frame { text, secret: None })));
}

#[test]
fn i27_a_status_that_is_asked_for_again_before_the_first_one_came_is_noticed() {
    let mut rig = Rig::new();
    let conn = rig.knock(Role::Transfer).unwrap();
    let query = || Frame { text: "{\"type\":\"status_query\"}\n".into(), secret: None };
    let twice = |out: &mut Output| {
        send(out, conn, query());
        send(out, conn, query());
    };
    breaks("I27", rig.spoil(&Input::Wake, twice));
}

#[test]
fn requests_of_an_earlier_boot_are_nobodys() {
    let (mut rig, ..) = pausing();
    let to = rig.last_request();
    rig.restart().unwrap();
    breaks(
        "I07",
        rig.spoil(&Input::Wake, |out| {
            out.effects.push(Effect::Reply { to, answer: Err(Refusal::LinkLost { action: Action::Pause }) });
        }),
    );
    assert_ne!(to, RequestId(0));
}
