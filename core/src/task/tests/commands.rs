//! Which commands pass, with which parameters, and what their ends do.

use super::*;
use crate::fact::CallEnd;
use crate::id::SecretRef;

#[test]
fn config_needs_a_task_of_this_device_that_is_pending() {
    let mut rig = Rig::new();
    rig.create("T", &d1());
    rig.create("other", &d2());
    let gated = |rig: &mut Rig, task: Option<&str>| {
        let command = Command { reply: Some(RequestId(9)), ..rig.command(&d1(), Action::Config, task) };
        let input = Input::Request { id: RequestId(9), request: Request::Command(command.clone()) };
        rig.step(
            |parts, have, keys| crate::route::wants(parts, core::iter::empty(), &input, have, keys),
            |tasks, cx| tasks.on_command_gated(cx, command),
        )
    };
    let required = Refusal::TaskIdRequired("task_config.task_id");
    assert_eq!(gated(&mut rig, None).refusal(), &required);
    assert_eq!(gated(&mut rig, Some(" ")).refusal(), &required);
    for unknown in ["nope", "other", "not legal", "T.2"] {
        assert_eq!(gated(&mut rig, Some(unknown)).refusal(), &Refusal::NotConfigurable(None), "{unknown}");
    }
    let cleared = gated(&mut rig, Some("T")).cleared().clone();
    assert_eq!(cleared.task.as_deref(), Some("T"));
    assert_eq!(cleared.task_state, Some(TaskState::Pending));
    assert_eq!(cleared.params.as_deref(), Some(r#"{"task_config":{"device_id":"d1","task_id":"T"}}"#));
    rig.report(&d1(), Reported::Ready, Some("T"));
    let busy = Refusal::RecorderBusy { state: "ready".into(), task: "T".into() };
    for named in [Some("T"), Some(" "), None] {
        assert_eq!(gated(&mut rig, named).refusal(), &busy, "the device comes first");
    }
    rig.restart();
    let busy = Refusal::NotConfigurable(Some(TaskState::Ready));
    assert_eq!(gated(&mut rig, Some("T")).refusal(), &busy);
}

#[test]
fn config_fills_in_the_stored_configuration_and_the_callback_addresses() {
    let mut rig = Rig::new();
    rig.knobs.public_url = Some("http://s:8080".into());
    let config = Some(r#"{"scene":"lab"}"#.to_string());
    rig.ask(Request::CreateTask { task: Some(task_id("T")), device: d1(), config });
    let mut command = rig.command(&d1(), Action::Config, Some("T"));
    command.params = Some(r#"{"task_config":{"task_id":"T","skills":["a"]}}"#.into());
    let params = rig.ask(Request::Command(command)).cleared().params.clone().expect("params");
    assert_eq!(
        params,
        concat!(
            r#"{"task_config":{"device_id":"d1","finish_callback_url":"http://s:8080/api/v1/callbacks/finish","#,
            r#""scene":"lab","skills":["a"],"start_callback_url":"http://s:8080/api/v1/callbacks/start","task_id":"T"}}"#
        )
    );
}

#[test]
fn a_config_that_was_sent_leaves_the_digest_of_its_token_and_its_success_makes_ready() {
    for (end, state) in [
        (CallEnd::Done, TaskState::Ready),
        (CallEnd::Refused, TaskState::Pending),
        (CallEnd::Unknown, TaskState::Pending),
    ] {
        let mut rig = Rig::new();
        rig.create("T", &d1());
        let mut command = rig.command(&d1(), Action::Config, Some("T"));
        command.token = Some(SecretRef { handle: 4, sha256: sha() });
        let cleared = rig.ask(Request::Command(command)).cleared().clone();
        let sent = rig.on(|tasks, cx| tasks.on_command_sent(cx, &cleared));
        assert_eq!(sent.changes, ["task.config_sent"]);
        assert_eq!(rig.task("T").token_sha256, Some(sha()));
        rig.on(|tasks, cx| tasks.on_command_ended(cx, &cleared, end));
        assert_eq!(rig.state("T"), state);
        let again = rig.on(|tasks, cx| tasks.on_command_ended(cx, &cleared, end));
        assert!(again.is_nothing(), "a repeated end moves nothing");
    }
}

#[test]
fn begin_needs_a_task_of_this_device_that_is_pending_or_ready() {
    let mut rig = Rig::new();
    rig.create("T", &d1());
    rig.create("other", &d2());
    let begin = |rig: &mut Rig, task: Option<&str>| {
        let command = rig.command(&d1(), Action::Begin, task);
        rig.ask(Request::Command(command))
    };
    assert_eq!(begin(&mut rig, None).refusal(), &Refusal::TaskIdRequired("task_id"));
    for unknown in ["nope", "other"] {
        assert_eq!(begin(&mut rig, Some(unknown)).refusal(), &Refusal::NotBeginable(None));
    }
    let cleared = begin(&mut rig, Some("T"));
    assert_eq!(cleared.cleared().params.as_deref(), Some(r#"{"task_id":"T"}"#));
    assert_eq!(cleared.cleared().task_state, Some(TaskState::Pending));
    rig.report(&d1(), Reported::Recording, Some("T"));
    let state = Some(TaskState::InProgress);
    assert_eq!(begin(&mut rig, Some("T")).refusal(), &Refusal::NotBeginable(state));
    rig.link_up(&d1(), 1);
    rig.finish("T", &d1(), Default::default());
    let state = Some(TaskState::Uploading);
    assert_eq!(begin(&mut rig, Some("T")).refusal(), &Refusal::NotBeginable(state));
    rig.say(&d1(), TransferMessage::UploadFailed { task: "T".into(), reason: None });
    let state = Some(TaskState::Failed);
    assert_eq!(begin(&mut rig, Some("T")).refusal(), &Refusal::NotBeginable(state), "also when it is cold");
}

#[test]
fn begin_moves_a_task_only_if_the_device_did_it() {
    for (end, state) in [
        (CallEnd::Done, TaskState::InProgress),
        // It is never begun again under this name, so it waits to be configured as the next attempt.
        (CallEnd::Refused, TaskState::Pending),
        (CallEnd::Unknown, TaskState::Ready),
    ] {
        let mut rig = Rig::new();
        rig.create("T", &d1());
        rig.report(&d1(), Reported::Ready, Some("T"));
        rig.run(&d1(), Action::Begin, "T", end);
        assert_eq!(rig.state("T"), state, "{end:?}");
        let row = rig.task("T");
        assert_eq!((row.begun, row.attempt), if end == CallEnd::Refused { (false, 2) } else { (true, 1) });
    }
}

#[test]
fn a_begin_nobody_knows_the_end_of_is_never_repeated_under_its_name() {
    let mut rig = Rig::new();
    rig.create("T", &d1());
    rig.report(&d1(), Reported::Ready, Some("T"));
    rig.run(&d1(), Action::Begin, "T", CallEnd::Unknown);
    let begin = |rig: &mut Rig| {
        let command = rig.command(&d1(), Action::Begin, Some("T"));
        rig.ask(Request::Command(command))
    };
    let refused = Refusal::NotBeginable(Some(TaskState::Ready));
    assert_eq!(begin(&mut rig).refusal(), &refused);
    rig.report(&d1(), Reported::Idle, None);
    assert_eq!(begin(&mut rig).refusal(), &refused, "idle may also mean recorded and finished");
    rig.restart();
    assert_eq!(begin(&mut rig).refusal(), &refused, "also after a restart");
    rig.report(&d1(), Reported::Ready, Some("T"));
    let row = rig.task("T");
    assert_eq!((row.state, row.wire.as_str()), (TaskState::Pending, "T.2"));
    assert!(row.earlier.expect("remembered")[0].owed, "nobody knows whether it recorded");
    assert_eq!(begin(&mut rig).cleared().task.as_deref(), Some("T.2"));
}

#[test]
fn a_begin_the_device_refused_is_sent_again_only_as_another_attempt() {
    let mut rig = Rig::new();
    rig.create("T", &d1());
    rig.report(&d1(), Reported::Ready, Some("T"));
    rig.run(&d1(), Action::Begin, "T", CallEnd::Refused);
    assert!(!rig.task("T").earlier.expect("remembered")[0].owed, "it said that it did not record");
    let begin = rig.command(&d1(), Action::Begin, Some("T"));
    assert_eq!(rig.ask(Request::Command(begin)).cleared().task.as_deref(), Some("T.2"));
    // The device still holds the configuration of the first attempt: another one of the same task may replace it.
    let config = rig.command(&d1(), Action::Config, Some("T"));
    assert_eq!(rig.ask(Request::Command(config)).cleared().task.as_deref(), Some("T.2"));
    rig.create("U", &d1());
    let config = rig.command(&d1(), Action::Config, Some("U"));
    let busy = Refusal::RecorderBusy { state: "ready".into(), task: "T".into() };
    assert_eq!(rig.ask(Request::Command(config)).refusal(), &busy);
    rig.run(&d1(), Action::Begin, "T.2", CallEnd::Done);
    assert_eq!(rig.state("T"), TaskState::InProgress);
}

#[test]
fn a_wire_id_that_may_have_recorded_is_never_configured_again() {
    // The incident: a second config and begin of a task recorded over the file of the first.
    let mut rig = Rig::new();
    rig.create("T", &d1());
    rig.run(&d1(), Action::Begin, "T", CallEnd::Unknown);
    assert_eq!(rig.state("T"), TaskState::Pending);
    let command = rig.command(&d1(), Action::Config, Some("T"));
    let refused = Refusal::NotConfigurable(Some(TaskState::Pending));
    assert_eq!(rig.ask(Request::Command(command)).refusal(), &refused);
}

#[test]
fn cancel_gives_a_task_back_under_a_new_wire_id_once_it_recorded() {
    let mut rig = Rig::new();
    rig.create("T", &d1());
    rig.report(&d1(), Reported::Recording, Some("T"));
    let seen = rig.run(&d1(), Action::Cancel, "T", CallEnd::Done);
    assert_eq!(seen.changes, ["task.returned"]);
    let row = rig.task("T");
    assert_eq!((row.state, row.attempt, row.wire.as_str()), (TaskState::Pending, 2, "T.2"));
    assert_eq!((row.started_at, row.begun), (None, false));
    // Operators say either name; the device hears the wire id.
    for name in ["T", "T.2"] {
        let command = rig.command(&d1(), Action::Begin, Some(name));
        assert_eq!(rig.ask(Request::Command(command)).cleared().task.as_deref(), Some("T.2"));
    }
    assert!(!rig.task("T").earlier.expect("remembered")[0].owed, "the device said that it dropped it");
    rig.report(&d1(), Reported::Recording, Some("T.2"));
    assert_eq!(rig.state("T"), TaskState::InProgress);
    rig.restart();
    rig.run(&d1(), Action::Cancel, "T.2", CallEnd::Done);
    assert_eq!(rig.task("T").wire.as_str(), "T.3");
    let command = rig.command(&d1(), Action::Finish, Some("T.2"));
    assert_eq!(rig.ask(Request::Command(command)).refusal(), &Refusal::NotOwned, "an attempt that is over");
}

#[test]
fn the_own_id_of_a_task_stands_for_the_attempt_of_it_that_the_recorder_holds() {
    let mut rig = Rig::new();
    rig.create("T", &d1());
    rig.report(&d1(), Reported::Recording, Some("T"));
    rig.run(&d1(), Action::Cancel, "T", CallEnd::Done);
    rig.report(&d1(), Reported::Recording, Some("T.2"));
    rig.run(&d1(), Action::Cancel, "T.2", CallEnd::Done);
    assert_eq!(rig.task("T").wire.as_str(), "T.3");
    let cleared = |rig: &mut Rig, action: Action, name: &str| {
        let command = rig.command(&d1(), action, Some(name));
        rig.ask(Request::Command(command)).cleared().task.clone()
    };
    rig.report(&d1(), Reported::Idle, None);
    assert_eq!(cleared(&mut rig, Action::Cancel, "T").as_deref(), Some("T.3"));
    // A push that came late, or a recorder that goes on with what it was told to drop: the second attempt.
    rig.report_while(&d1(), Reported::Recording, Some("T.2"), false);
    for action in [Action::Finish, Action::Cancel, Action::Clear] {
        assert_eq!(cleared(&mut rig, action, "T").as_deref(), Some("T.2"), "{action:?}");
        // The other name of an attempt means that one.
        assert_eq!(cleared(&mut rig, action, "T.3").as_deref(), Some("T.3"), "{action:?}");
    }
}

#[test]
fn a_new_attempt_skips_a_name_that_is_a_task_already() {
    let mut rig = Rig::new();
    rig.create("T", &d1());
    rig.create("T.2", &d1());
    rig.ask(Request::CancelTask { task: "T.2".into() });
    rig.report(&d1(), Reported::Recording, Some("T"));
    let command = rig.command(&d1(), Action::Cancel, Some("T"));
    let cleared = rig.ask(Request::Command(command)).cleared().clone();
    let taken = Request::CreateTask { task: Some(task_id("T.3")), device: d2(), config: None };
    assert_eq!(rig.ask(taken).refusal(), &Refusal::TaskExists("T.3".into()), "it is about to be one");
    rig.on(|tasks, cx| tasks.on_command_ended(cx, &cleared, CallEnd::Done));
    assert_eq!(rig.task("T").wire.as_str(), "T.3");
    let taken = Request::CreateTask { task: Some(task_id("T.3")), device: d2(), config: None };
    assert_eq!(rig.ask(taken).refusal(), &Refusal::TaskExists("T.3".into()));
}

#[test]
fn clear_gives_back_only_a_ready_task_and_nothing_moves_unless_it_was_done() {
    for (action, from, end, to) in [
        (Action::Clear, Reported::Ready, CallEnd::Done, TaskState::Pending),
        (Action::Clear, Reported::Recording, CallEnd::Done, TaskState::InProgress),
        (Action::Clear, Reported::Ready, CallEnd::Refused, TaskState::Ready),
        (Action::Clear, Reported::Ready, CallEnd::Unknown, TaskState::Ready),
        (Action::Cancel, Reported::Ready, CallEnd::Done, TaskState::Pending),
        (Action::Cancel, Reported::Recording, CallEnd::Refused, TaskState::InProgress),
        (Action::Cancel, Reported::Recording, CallEnd::Unknown, TaskState::InProgress),
        (Action::Finish, Reported::Recording, CallEnd::Done, TaskState::InProgress),
        (Action::Pause, Reported::Recording, CallEnd::Done, TaskState::InProgress),
        (Action::Resume, Reported::Paused, CallEnd::Done, TaskState::InProgress),
        (Action::Quit, Reported::Recording, CallEnd::Done, TaskState::InProgress),
    ] {
        let mut rig = Rig::new();
        rig.create("T", &d1());
        rig.report(&d1(), from, Some("T"));
        rig.run(&d1(), action, "T", end);
        assert_eq!(rig.state("T"), to, "{action:?} {end:?}");
    }
    let mut rig = Rig::new();
    rig.create("T", &d1());
    rig.report(&d1(), Reported::Ready, Some("T"));
    rig.run(&d1(), Action::Clear, "T", CallEnd::Done);
    assert_eq!((rig.task("T").attempt, rig.task("T").ready_at), (1, None), "nothing was recorded yet");
}

#[test]
fn other_commands_need_no_task_but_never_name_a_foreign_one() {
    let mut rig = Rig::new();
    rig.create("T", &d1());
    rig.create("other", &d2());
    for action in [Action::Finish, Action::Pause, Action::Resume, Action::Cancel, Action::Clear, Action::Quit]
    {
        let command = rig.command(&d1(), action, None);
        let seen = rig.ask(Request::Command(command));
        assert_eq!((&seen.cleared().task, &seen.cleared().params), (&None, &None), "{action:?}");
        for foreign in ["other", "nope"] {
            let command = rig.command(&d1(), action, Some(foreign));
            assert_eq!(rig.ask(Request::Command(command)).refusal(), &Refusal::NotOwned, "{action:?}");
        }
        let command = rig.command(&d1(), action, Some("T"));
        let seen = rig.ask(Request::Command(command));
        assert_eq!(seen.cleared().params.as_deref(), Some(r#"{"task_id":"T"}"#), "{action:?}");
    }
}

#[test]
fn the_end_of_a_command_for_a_task_that_is_over_moves_nothing() {
    let mut rig = Rig::new();
    rig.create("T", &d1());
    let command = rig.command(&d1(), Action::Begin, Some("T"));
    let cleared = rig.ask(Request::Command(command)).cleared().clone();
    rig.ask(Request::CancelTask { task: "T".into() });
    assert!(rig.on(|tasks, cx| tasks.on_command_sent(cx, &cleared)).is_nothing());
    assert!(rig.on(|tasks, cx| tasks.on_command_ended(cx, &cleared, CallEnd::Done)).is_nothing());
    assert_eq!(rig.state("T"), TaskState::Cancelled);
}
