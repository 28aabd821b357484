//! The table of legal transitions, and what each does to a row.

use super::*;
use crate::change::TaskCause;
use crate::row::RecordingFacts;

fn changes(attempt: u32) -> Vec<TaskChange> {
    let (task, at) = (task_id("T"), Wall(5));
    let cause = TaskCause::Answer;
    let wire = WireId::of_attempt(&task, attempt);
    std::vec![
        TaskChange::Created { task: task.clone(), device: d1(), config: None, at },
        TaskChange::ConfigSent { task: task.clone(), token_sha256: None, at },
        TaskChange::Readied { task: task.clone(), cause, at },
        TaskChange::BeginSent { task: task.clone(), at },
        TaskChange::Started { task: task.clone(), cause, at },
        TaskChange::Finished { task: task.clone(), cause, facts: None, at, timed: true },
        TaskChange::Completed { task: task.clone(), at, episode: Some(EpisodeId(1)) },
        TaskChange::Failed { task: task.clone(), reason: "r".into(), at },
        TaskChange::Returned { task: task.clone(), attempt, wire: wire.clone(), cause, at, remembered: true },
        TaskChange::Cancelled { task: task.clone(), at },
        TaskChange::Noted { task: task.clone(), error: None, at, facts: None },
        TaskChange::Resumed { task: task.clone(), attempt, wire, cause, at },
        TaskChange::Owed { task, attempt, owed: true, asked: 0, at },
    ]
}

#[test]
fn a_task_that_waits_for_its_recording_goes_back_only_because_a_person_says_so() {
    let returned = |cause| {
        let task = task_id("T");
        let wire = WireId::of_attempt(&task, 2);
        TaskChange::Returned { task, attempt: 2, wire, cause, at: Wall(5), remembered: true }
    };
    let uploading = Some(TaskState::Uploading);
    let next = super::super::state::next;
    assert_eq!(next(uploading, &returned(TaskCause::Resolved)), Some(TaskState::Pending));
    for cause in [TaskCause::Answer, TaskCause::Report, TaskCause::Transfer, TaskCause::Operator] {
        assert_eq!(next(uploading, &returned(cause)), None, "{cause:?}");
    }
    for over in [TaskState::Completed, TaskState::Failed, TaskState::Cancelled] {
        assert_eq!(next(Some(over), &returned(TaskCause::Resolved)), None);
    }
}

#[test]
fn exactly_these_transitions_are_legal() {
    // p r i u c f x: pending, ready, in_progress, uploading, completed, failed, cancelled; `.` is illegal.
    let table = [
        ("created", "p ......."),
        ("config_sent", ". p......"),
        ("readied", ". r......"),
        ("begin_sent", ". pr....."),
        ("started", ". ii....."),
        ("finished", ". uuu...."),
        ("completed", ". cccc..."),
        ("failed", ". ..ff..."),
        ("returned", ". ppp...."),
        ("cancelled", ". xxx...."),
        ("noted", ". priu..."),
        ("resumed", ". ii....."),
        ("owed", ". priucfx"),
    ];
    let letter = |state| match state {
        None => '.',
        Some(TaskState::Pending) => 'p',
        Some(TaskState::Ready) => 'r',
        Some(TaskState::InProgress) => 'i',
        Some(TaskState::Uploading) => 'u',
        Some(TaskState::Completed) => 'c',
        Some(TaskState::Failed) => 'f',
        Some(TaskState::Cancelled) => 'x',
    };
    for (change, (name, expected)) in changes(2).iter().zip(table) {
        let of_nothing = letter(super::super::state::next(None, change));
        let of_states = TaskState::ALL.map(|state| letter(super::super::state::next(Some(state), change)));
        let got = std::format!("{of_nothing} {}", of_states.iter().collect::<String>());
        assert_eq!(got, expected, "{name}");
        assert_eq!(Change::Task(change.clone()).name(), std::format!("task.{name}"));
    }
}

#[test]
fn an_illegal_change_leaves_the_row_as_it_was() {
    let mut tasks = Tasks::default();
    let all = changes(1);
    tasks.apply_task(&all[0]).expect("legal");
    let before = tasks.tasks.clone();
    for change in [&all[0], &all[7], &all[8]] {
        tasks.apply_task(change).expect_err("illegal while pending");
        assert_eq!(tasks.tasks, before);
    }
    let mut nothing = Tasks::default();
    nothing.apply_task(&all[2]).expect_err("there is no task");
    assert!(nothing.tasks.is_empty());
}

#[test]
fn a_task_that_recorded_returns_as_another_attempt_and_one_that_did_not_as_the_same() {
    for (began, legal, illegal) in [(false, 1, 2), (true, 2, 1)] {
        let mut tasks = Tasks::default();
        tasks.apply_task(&changes(1)[0]).expect("created");
        tasks.apply_task(&changes(1)[2]).expect("readied");
        if began {
            tasks.apply_task(&changes(1)[4]).expect("started");
        }
        tasks.apply_task(&changes(illegal)[8]).expect_err("the wrong attempt");
        let touched = tasks.apply_task(&changes(legal)[8]).expect("returned");
        let row = &tasks.tasks[&task_id("T")];
        assert_eq!((row.attempt, row.begun, row.ready_at, row.started_at), (legal, false, None, None));
        let alias = Key::Alias(wire_id("T.2"));
        assert_eq!(touched.contains(&alias), began);
        assert_eq!(tasks.row(&alias).is_some(), began);
    }
}

#[test]
fn the_first_moment_of_ready_and_started_is_kept_and_final_states_have_their_moment() {
    let mut tasks = Tasks::default();
    let at = |n| Wall(n);
    let task = task_id("T");
    let cause = TaskCause::Report;
    let facts = Some(RecordingFacts { error: Some("disk".into()), ..Default::default() });
    for change in [
        TaskChange::Created { task: task.clone(), device: d1(), config: None, at: at(1) },
        TaskChange::Readied { task: task.clone(), cause, at: at(2) },
        TaskChange::Started { task: task.clone(), cause, at: at(3) },
        TaskChange::Finished { task: task.clone(), cause, facts, at: at(4), timed: true },
    ] {
        tasks.apply_task(&change).expect("legal");
    }
    let row = tasks.tasks[&task].clone();
    assert_eq!((row.ready_at, row.started_at, row.completed_at), (Some(at(2)), Some(at(3)), None));
    assert_eq!(row.error.as_deref(), Some("disk"), "trouble while recording is kept");
    tasks.apply_task(&TaskChange::Completed { task: task.clone(), at: at(5), episode: None }).expect("legal");
    let row = &tasks.tasks[&task];
    assert_eq!((row.completed_at, row.updated_at, &row.error), (Some(at(5)), at(5), &None));
}
