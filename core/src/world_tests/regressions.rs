//! What the properties found, each in its smallest form.

use std::prelude::v1::*;

use super::violations::{calm, until};
use super::watch;
use crate::effect::{Effect, Output};
use crate::input::{Action, Input, Request};
use crate::object::{Store, Verb};
use crate::outcome::{Fault, Outcome, What};
use crate::refusal::Refusal;
use crate::row::{JobState, RecordingFacts, TaskState};
use crate::wire::RecorderMessage;

/// `begin` was cleared by the tasks and then waited for a fresh state. Meanwhile the recording ended by a callback; the
/// answer to `get_state` still said "ready", and `begin` left for a task that was uploading already: the device would
/// have recorded over what it was uploading.
#[test]
fn begin_is_refused_if_its_task_moved_on_while_it_waited_for_a_fresh_state() {
    let mut world = calm();
    until(&mut world, |world| watch::tasks(&world.rows).any(|row| row.state == TaskState::Ready));
    let row =
        watch::tasks(&world.rows).find(|row| row.state == TaskState::Ready).expect("just looked").clone();
    let d = world.fleet.iter().position(|device| device.id == row.device).expect("its device");
    world.pass(5_000);
    world.order(d, Action::Begin, Some(row.id.as_str())).expect("waits");
    assert_eq!(world.fleet[d].owed.back().map(|rpc| rpc.action), Some(Action::GetState));
    let facts = RecordingFacts::default();
    let finish = Request::CallbackFinish {
        task: row.wire.to_string(),
        device: row.device.clone(),
        facts,
        credential: None,
    };
    world.ask(finish).expect("heard");
    let rpc = world.fleet[d].owed.pop_back().expect("just looked");
    let message = world.fleet[d].obey(&rpc, world.now.wall);
    world.meddle = Some(Box::new(|_, _, out: &mut Output| {
        let refused = |effect: &Effect| {
            matches!(
                effect,
                Effect::Reply { answer: Err(Refusal::NotBeginable(Some(TaskState::Uploading))), .. }
            )
        };
        assert!(out.effects.iter().any(refused), "{:?}", out.effects);
        true
    }));
    world.input(Input::Recorder { conn: rpc.conn, message }).expect("no begin left");
    assert!(world.fleet[d].owed.is_empty(), "{:?}", world.fleet[d].owed);
}

/// Any "not there" in answer to an abort counted as the upload being gone, also one that spoke of something else: the
/// parts stayed in the store for ever. And the same in answer to a listing was asked again at once, without a pause.
#[test]
fn only_an_upload_that_is_gone_ends_the_duty_to_abort_it() {
    let mut world = calm();
    let sending = |world: &super::world::World| {
        world.ops.iter().find_map(|(ticket, op)| matches!(op.verb, Verb::PutPart { .. }).then_some(*ticket))
    };
    let failed = |fault| Outcome::Failed(fault);
    let over = |world: &super::world::World| {
        watch::jobs(&world.rows).any(|row| matches!(row.state, JobState::Failed { .. }))
    };
    // A lost source costs an attempt each time; in the end the job gives up.
    while !over(&world) {
        until(&mut world, |world| sending(world).is_some());
        let ticket = sending(&world).expect("just looked");
        world.data_faults += 1;
        world
            .input(Input::Object { ticket, outcome: failed(Fault::Vanished(What::Source)) })
            .expect("an attempt");
    }
    for _ in 0..6 {
        let tidying = world.ops.iter().find_map(|(ticket, op)| {
            let tidies = matches!(op.verb, Verb::Abort { .. } | Verb::ListUploads);
            (op.store == Store::Cloud && tidies).then_some(*ticket)
        });
        if let Some(ticket) = tidying {
            world
                .input(Input::Object { ticket, outcome: failed(Fault::Vanished(What::Source)) })
                .expect("later");
            let again =
                world.ops.values().any(|op| matches!(op.verb, Verb::Abort { .. } | Verb::ListUploads));
            assert!(!again, "asked again without a pause: {:?}", world.ops);
        }
        assert!(watch::uploads(&world.rows).next().is_some(), "the session ended, the upload is still there");
        world.sleep().expect("nothing is wrong");
    }
    world.settle().expect("in the end it is aborted");
    assert!(world.stores.cloud.open.is_empty());
}

/// A recorder said that it dropped its task, and in the same breath that it still records it. The task went back and was
/// looked up as an attempt that was given up, and nobody had asked for the name of the attempt after the next one.
#[test]
fn an_answer_that_takes_itself_back_moves_no_task_and_harms_nobody() {
    for attempt in [1, 2, 3] {
        let mut world = calm();
        until(&mut world, |world| watch::tasks(&world.rows).any(|row| row.state == TaskState::InProgress));
        let row = watch::tasks(&world.rows).find(|row| row.state == TaskState::InProgress);
        let row = row.expect("just looked").clone();
        let d = world.fleet.iter().position(|device| device.id == row.device).expect("its device");
        world.order(d, Action::Cancel, Some(row.id.as_str())).expect("sent");
        let wire = crate::id::WireId::of_attempt(&row.id, attempt).to_string();
        // What it names besides its own is made up.
        world.fleet[d].lied = attempt != row.attempt;
        answer(&mut world, d, Action::Cancel, "recording", &wire);
        let now = watch::tasks(&world.rows).find(|task| task.id == row.id).expect("it was there").clone();
        let (state, at) = [(TaskState::InProgress, 1), (TaskState::InProgress, 2), (TaskState::Pending, 2)]
            [usize::try_from(attempt).expect("small") - 1];
        assert_eq!((now.state, now.attempt), (state, at), "it says that it records {wire}");
    }
}

/// The same with a configuration: nobody knows whether it was begun, the recorder says that it cleared it, and holds it.
#[test]
fn a_clear_that_takes_itself_back_is_no_answer() {
    let mut world = calm();
    until(&mut world, |world| watch::tasks(&world.rows).any(|row| row.state == TaskState::Ready));
    let row =
        watch::tasks(&world.rows).find(|row| row.state == TaskState::Ready).expect("just looked").clone();
    let d = world.fleet.iter().position(|device| device.id == row.device).expect("its device");
    world.order(d, Action::Begin, Some(row.id.as_str())).expect("sent");
    world.fleet[d].owed.clear();
    world.pass(60_000);
    world.input(Input::Wake).expect("nobody knows");
    world.fleet[d].owed.clear();
    world.order(d, Action::Clear, Some(row.id.as_str())).expect("sent");
    answer(&mut world, d, Action::Clear, "ready", row.wire.as_str());
    let now = watch::tasks(&world.rows).find(|task| task.id == row.id).expect("it was there").clone();
    assert!(now.earlier.is_none_or(|earlier| earlier[0].owed), "it may have recorded");
}

/// The recorder answers the command that it got last, and does nothing.
fn answer(world: &mut super::world::World, d: usize, action: Action, state: &str, task: &str) {
    let rpc = world.fleet[d].owed.pop_back().expect("it was sent");
    assert_eq!(rpc.action, action);
    let message = RecorderMessage::Response {
        request_id: rpc.id,
        success: true,
        message: None,
        state: Some(state.into()),
        task: Some(task.into()),
        data: None,
    };
    world.input(Input::Recorder { conn: rpc.conn, message }).expect("nothing is wrong");
}
