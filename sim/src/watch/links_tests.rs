//! Each rule of links breaks when what it forbids is done, and holds in the legal life next to it.

use std::time::Duration;

use tidegate_core::change::{Change, TaskCause, TaskChange};
use tidegate_core::effect::{CloseWhy, Effect, Frame, Notice, Output, QueueCounts};
use tidegate_core::id::{ConnId, Role, TaskId};
use tidegate_core::input::{Action, Input, LostWhy};
use tidegate_core::refusal::Refusal;
use tidegate_core::row::TaskState;
use tidegate_core::time::Wall;
use tidegate_core::wire::RecorderMessage;

use crate::watch::Watch as _;
use crate::watch::rig::{Rig, breaks, command, device, push, response};

fn noise() -> Effect {
    Effect::Publish(Notice::Queue(QueueCounts::default()))
}

/// Changes what viewers are told of the recorder.
fn retell(out: &mut Output, change: impl Fn(&mut tidegate_core::effect::RecorderView)) {
    let mut views = 0;
    for effect in &mut out.effects {
        if let Effect::Publish(Notice::Recorder(view)) = effect {
            views += 1;
            change(view);
        }
    }
    assert!(views > 0, "nothing is told of a recorder: {out:?}");
}

fn confirm(out: &mut Output) {
    retell(out, |view| (view.confidence, view.synced) = ("confirmed", true));
}

fn advanced() -> Change {
    let task = TaskId::new("t").unwrap();
    Change::Task(TaskChange::Readied { task, cause: TaskCause::Report, at: Wall(1) })
}

#[test]
fn a_whole_life_breaks_nothing_and_meets_every_premise() {
    let mut rig = Rig::new();
    let first = rig.ready();
    rig.say(first, push(Some("ready"), Some("t"), 100)).unwrap();
    rig.say(first, push(Some("idle"), None, 99)).unwrap();
    rig.say(first, push(None, None, 101)).unwrap();
    let second = rig.knock(Role::Recorder).unwrap();
    let id = rig.rpc();
    rig.say(first, push(Some("ready"), Some("t"), 102)).unwrap();
    rig.lose(first).unwrap();
    rig.say(second, response(&id, true, Some("recording"), Some("t"))).unwrap();
    assert_eq!(rig.task("t").state, TaskState::InProgress);
    rig.say(second, push(Some("idle"), Some("t"), 103)).unwrap();
    assert_eq!(rig.task("t").state, TaskState::InProgress, "idle is idle, whatever it carries");
    rig.restart().unwrap();
    rig.idle();
    rig.act(&Input::Shutdown).unwrap();
    let knock = rig.knock_input(Role::Recorder);
    rig.act(&knock).unwrap();
    rig.end().unwrap();
    for invariant in rig.links.invariants() {
        assert!(rig.met(invariant) > 0, "{invariant} had nothing to check: {:?}", rig.links.premises());
    }
    for finer in ["I02.late", "I04.dropped", "I05.older", "I05.useless", "I05.idle", "I05.moved"] {
        assert!(rig.met(finer) > 0, "{finer}");
    }
}

#[test]
fn i01_a_takeover_that_leaves_the_old_link_open_is_noticed() {
    let mut rig = Rig::new();
    rig.idle();
    let knock = rig.knock_input(Role::Recorder);
    breaks(
        "I01",
        rig.spoil(&knock, |out| out.effects.retain(|effect| !matches!(effect, Effect::Close { .. }))),
    );
}

#[test]
fn i01_a_takeover_that_closes_the_newer_link_as_well_is_noticed() {
    let mut rig = Rig::new();
    rig.idle();
    let knock = rig.knock_input(Role::Recorder);
    breaks(
        "I01",
        rig.spoil(&knock, |out| {
            let new = out.effects.iter().find_map(|effect| match effect {
                Effect::Admit { conn, .. } => Some(*conn),
                _ => None,
            });
            out.effects.push(Effect::Close { conn: new.unwrap(), why: CloseWhy::Replaced });
        }),
    );
}

#[test]
fn i01_a_frame_on_a_superseded_link_is_noticed() {
    let mut rig = Rig::new();
    let old = rig.idle();
    rig.knock(Role::Recorder).unwrap();
    breaks(
        "I01",
        rig.spoil(&Input::Wake, |out| {
            let frame = Frame { text: "{}\n".into(), secret: None };
            out.effects.push(Effect::Send { conn: old, frame });
        }),
    );
}

#[test]
fn i01_a_socket_that_is_not_decided_upon_is_noticed() {
    let mut rig = Rig::new();
    let knock = rig.knock_input(Role::Transfer);
    breaks("I01", rig.spoil(&knock, |out| out.effects.clear()));
}

#[test]
fn i01_a_frame_that_leaves_after_its_link_was_closed_is_noticed() {
    let mut rig = Rig::new();
    let old = rig.idle();
    rig.knock(Role::Recorder).unwrap();
    let frame = Frame { text: "{}\n".into(), secret: None };
    breaks("I01", rig.released(&Effect::Send { conn: old, frame }));
}

#[test]
fn i02_a_generation_that_does_not_rise_is_noticed() {
    let mut rig = Rig::new();
    rig.knock(Role::Transfer).unwrap();
    rig.knock(Role::Transfer).unwrap();
    let knock = rig.knock_input(Role::Transfer);
    breaks(
        "I02",
        rig.spoil(&knock, |out| {
            for effect in &mut out.effects {
                if let Effect::Admit { conn, .. } = effect {
                    conn.n = 1;
                }
            }
        }),
    );
}

#[test]
fn i02_a_boot_that_does_not_rise_is_noticed() {
    let mut rig = Rig::new();
    rig.set_boot(0);
    breaks("I02", rig.restart());
}

#[test]
fn i02_a_late_loss_that_takes_the_newer_link_with_it_is_noticed() {
    let mut rig = Rig::new();
    let old = rig.idle();
    rig.knock(Role::Recorder).unwrap();
    let lost = Input::Lost { conn: old, why: LostWhy::Broken };
    breaks(
        "I02",
        rig.spoil(&lost, |out| {
            let down =
                Notice::Link { device: device(), role: Role::Recorder, link: None, why: None, version: 1 };
            out.effects.push(Effect::Publish(down));
        }),
    );
}

#[test]
fn i02_a_current_link_that_is_not_heard_any_more_is_noticed() {
    let mut rig = Rig::new();
    let conn = rig.knock(Role::Recorder).unwrap();
    let message = response(&rig.rpc(), true, Some("idle"), None);
    breaks("I02", rig.spoil(&Input::Recorder { conn, message }, |out| out.effects.clear()));
}

#[test]
fn i03_a_superseded_link_that_is_heard_is_noticed() {
    let mut rig = Rig::new();
    let old = rig.idle();
    rig.knock(Role::Recorder).unwrap();
    let message = push(Some("idle"), None, 5);
    breaks("I03", rig.spoil(&Input::Recorder { conn: old, message }, |out| out.effects.push(noise())));
}

#[test]
fn i03_a_link_of_an_earlier_boot_that_is_heard_is_noticed() {
    let mut rig = Rig::new();
    let old = rig.idle();
    rig.restart().unwrap();
    let message = push(Some("idle"), None, 5);
    breaks("I03", rig.spoil(&Input::Recorder { conn: old, message }, |out| out.effects.push(noise())));
}

#[test]
fn i04_a_state_that_is_confirmed_by_a_push_before_the_answer_is_noticed() {
    let mut rig = Rig::new();
    let conn = rig.knock(Role::Recorder).unwrap();
    // The reconnecting recorder's own report, too: what it queued for the old link comes before it.
    let message = push(Some("idle"), None, 5);
    breaks("I04", rig.spoil(&Input::Recorder { conn, message }, confirm));
}

#[test]
fn i04_a_push_after_a_failed_question_confirms() {
    let mut rig = Rig::new();
    let conn = rig.knock(Role::Recorder).unwrap();
    let id = rig.rpc();
    rig.say(conn, response(&id, false, None, None)).unwrap();
    let before = rig.met("I04");
    rig.say(conn, push(Some("idle"), None, 5)).unwrap();
    assert!(rig.met("I04") > before, "it is shown as confirmed");
}

#[test]
fn i04_a_state_that_stays_confirmed_after_a_command_was_not_answered_is_noticed() {
    let mut rig = Rig::new();
    rig.idle();
    rig.request(command(Action::Config, Some("t"))).unwrap();
    rig.pass(rig.knobs.rpc_timeout());
    breaks("I04", rig.spoil(&Input::Wake, confirm));
}

#[test]
fn i04_a_lost_recorder_that_is_still_shown_as_confirmed_is_noticed() {
    let mut rig = Rig::new();
    let conn = rig.idle();
    let lost = Input::Lost { conn, why: LostWhy::Silent };
    breaks(
        "I04",
        rig.spoil(&lost, |out| {
            out.effects.retain(|effect| !matches!(effect, Effect::Publish(Notice::Recorder(_))));
        }),
    );
}

#[test]
fn i05_an_answer_that_names_no_state_and_confirms_is_noticed() {
    let mut rig = Rig::new();
    let conn = rig.knock(Role::Recorder).unwrap();
    let message = response(&rig.rpc(), true, None, None);
    breaks("I05", rig.spoil(&Input::Recorder { conn, message }, confirm));
}

#[test]
fn i05_an_older_push_that_counts_is_noticed() {
    let mut rig = Rig::new();
    let conn = rig.idle();
    rig.say(conn, push(Some("idle"), None, 100)).unwrap();
    let Some(Effect::Publish(Notice::Recorder(view))) =
        rig.out.effects.iter().find(|effect| matches!(effect, Effect::Publish(Notice::Recorder(_)))).cloned()
    else {
        panic!("{:?}", rig.out)
    };
    let message = push(Some("ready"), Some("t"), 50);
    breaks(
        "I05",
        rig.spoil(&Input::Recorder { conn, message }, |out| {
            let mut view = view;
            (view.state, view.task) = ("ready".into(), "t".into());
            out.effects.push(Effect::Publish(Notice::Recorder(view)));
        }),
    );
}

#[test]
fn i05_a_task_that_an_unbelieved_push_moves_is_noticed() {
    for (state, task) in [(Some("ready"), Some("t")), (Some("ready"), None), (None, Some("t"))] {
        let mut rig = Rig::new();
        let conn = rig.knock(Role::Recorder).unwrap();
        let message = push(state, task, 5);
        breaks("I05", rig.spoil(&Input::Recorder { conn, message }, |out| out.changes.push(advanced())));
    }
}

#[test]
fn i05_an_idle_recorder_whose_task_is_taken_for_its_own_is_noticed() {
    let idle = || push(Some("idle"), Some("t"), 5);
    let mut rig = Rig::new();
    let conn = rig.idle();
    let input = Input::Recorder { conn, message: idle() };
    breaks("I05", rig.spoil(&input, |out| out.changes.push(advanced())));
    let mut rig = Rig::new();
    let conn = rig.idle();
    let input = Input::Recorder { conn, message: idle() };
    breaks("I05", rig.spoil(&input, |out| retell(out, |view| view.task = "t".into())));
}

#[test]
fn l4_a_newcomer_that_is_turned_away_for_its_old_link_is_noticed() {
    for refusal in [Refusal::TooManyLinks, Refusal::Stopping, Refusal::RecorderOffline] {
        let mut rig = Rig::new();
        rig.idle();
        let knock = rig.knock_input(Role::Recorder);
        let Input::Knock { socket, .. } = knock else { panic!("{knock:?}") };
        breaks("L4", rig.spoil(&knock, |out| out.effects = vec![Effect::TurnAway { socket, refusal }]));
    }
}

/// A recorder link that its program took from itself until nobody may any more.
fn fought(rig: &mut Rig) -> ConnId {
    let mut last = rig.idle();
    for _ in 0..6 {
        last = rig.knock(Role::Recorder).unwrap();
    }
    last
}

#[test]
fn a_fight_is_paused_goes_on_and_ends_and_breaks_nothing() {
    let mut rig = Rig::new();
    fought(&mut rig);
    let turned_away = |rig: &mut Rig| {
        let knock = rig.knock_input(Role::Recorder);
        rig.act(&knock).unwrap();
        matches!(rig.out.effects.as_slice(), [Effect::TurnAway { refusal: Refusal::Contested { .. }, .. }])
    };
    assert!(turned_away(&mut rig));
    rig.sleep(Duration::from_secs(10)).unwrap();
    rig.knock(Role::Recorder).unwrap();
    rig.sleep(Duration::from_secs(19)).unwrap();
    assert!(turned_away(&mut rig), "the second pause is longer");
    rig.sleep(Duration::from_secs(1)).unwrap();
    let last = rig.knock(Role::Recorder).unwrap();
    rig.lose(last).unwrap();
    rig.knock(Role::Recorder).unwrap();
    rig.knock(Role::Recorder).unwrap();
    rig.end().unwrap();
    assert_eq!(rig.met("L4.contested"), 2);
}

#[test]
fn l4_a_pause_that_nobody_keeps_or_that_never_was_is_noticed() {
    let mut rig = Rig::new();
    let last = fought(&mut rig);
    let knock = rig.knock_input(Role::Recorder);
    let Input::Knock { socket, .. } = knock else { panic!("{knock:?}") };
    let admitted = Effect::Admit { socket, conn: ConnId { boot: last.boot, n: 99 } };
    breaks("L4", rig.spoil(&knock, |out| out.effects = vec![admitted.clone()]));

    let contested = Refusal::Contested { retry_after_ms: 1 };
    let mut rig = Rig::new();
    rig.idle();
    let knock = rig.knock_input(Role::Recorder);
    let Input::Knock { socket, .. } = knock else { panic!("{knock:?}") };
    let away = Effect::TurnAway { socket, refusal: contested.clone() };
    breaks("L4", rig.spoil(&knock, |out| out.effects = vec![away.clone()]));

    // Nobody has the link any more.
    let mut rig = Rig::new();
    let last = fought(&mut rig);
    rig.lose(last).unwrap();
    let knock = rig.knock_input(Role::Recorder);
    let Input::Knock { socket, .. } = knock else { panic!("{knock:?}") };
    let away = Effect::TurnAway { socket, refusal: contested };
    breaks("L4", rig.spoil(&knock, |out| out.effects = vec![away.clone()]));
}

#[test]
fn i04_a_greeting_counts_when_nobody_answers_and_not_before() {
    let greeting = RecorderMessage::StateUpdate {
        timestamp_ms: Some(100),
        previous: Some("recording".into()),
        current: Some("recording".into()),
        task: Some("t".into()),
    };
    let mut rig = Rig::new();
    let conn = rig.knock(Role::Recorder).unwrap();
    rig.say(conn, greeting.clone()).unwrap();
    assert_eq!(rig.task("t").state, TaskState::Pending);
    rig.sleep(rig.knobs.rpc_timeout()).unwrap();
    assert_eq!(rig.task("t").state, TaskState::InProgress);
    rig.end().unwrap();

    let mut rig = Rig::new();
    let conn = rig.knock(Role::Recorder).unwrap();
    breaks("I04", rig.spoil(&Input::Recorder { conn, message: greeting }, confirm));
}

#[test]
fn i05_a_configuration_of_a_link_that_is_not_believed_is_noticed() {
    let mut rig = Rig::new();
    let conn = rig.knock(Role::Recorder).unwrap();
    let message = RecorderMessage::ConfigApplied { task: Some("t".into()) };
    let task = TaskId::new("t").unwrap();
    let change = Change::Task(TaskChange::Readied { task, cause: TaskCause::ConfigApplied, at: Wall(1) });
    breaks("I05", rig.spoil(&Input::Recorder { conn, message }, |out| out.changes.push(change.clone())));
}

#[test]
fn generations_rise_over_restarts_and_effects_may_die_with_the_process() {
    let mut rig = Rig::new();
    let before = rig.knock(Role::Recorder).unwrap();
    rig.restart().unwrap();
    let after = rig.knock(Role::Recorder).unwrap();
    assert!(ConnId::generation(after) > ConnId::generation(before));
    rig.end().unwrap();
}
