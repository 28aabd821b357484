//! Each check fails when what it forbids is done: a life without faults is spoiled in one place, and the observer must
//! name the invariant.

use std::format;
use std::prelude::v1::{Box, Err, None, Ok, Option, Some};

use super::chaos::{Kind, Op};
use super::watch;
use super::world::{Meddle, World};
use crate::change::{Change, EpisodeChange, JobChange, TaskCause, TaskChange};
use crate::effect::{Effect, Frame, Notice, Output, Response};
use crate::id::{Boot, ConnId, JobId, Role, UploadId};
use crate::input::{Action, Input};
use crate::object::{ObjectOp, Store, Verb};
use crate::outcome::Outcome;
use crate::refusal::{Broken, Refusal};
use crate::row::{Cause, JobState, Key, Phase, Row, SyncMark};
use crate::time::Wall;
use crate::wire::TransferMessage;

/// A site where nothing goes wrong by itself.
pub(super) fn calm() -> World {
    let mut world = World::new(4);
    world.wild = false;
    world.knobs.destination = true;
    world.knobs.parts_in_flight = 2;
    world.knobs.keep_edge_ms = Some(90_000);
    world.knobs.builtin.bytes_per_second = None;
    world.knobs.builtin.auto_scan = false;
    world.knobs.builtin.attempts = 5;
    world.restart().expect("boots");
    world
}

fn next(n: u16) -> Op {
    let kind = if n % 3 == 2 { Kind::Answer } else { Kind::Forward };
    Op { what: kind, a: (n % 251).to_le_bytes()[0], b: 1 }
}

/// Lets a calm site live until it is as wanted.
pub(super) fn until(world: &mut World, wanted: impl Fn(&World) -> bool) {
    for n in 0..2_000 {
        if wanted(world) {
            return;
        }
        world.act(next(n)).expect("nothing is wrong");
    }
    panic!("it never came to that");
}

/// Lives with one step spoiled; what did the observer say?
fn spoiled(meddle: impl FnMut(&World, &Input, &mut Output) -> bool + 'static) -> Broken {
    let mut world = calm();
    world.meddle = Some(Box::new(meddle) as Meddle);
    for n in 0..2_000_u16 {
        let op = match n % 40 {
            // A takeover, and words of the link that was taken over.
            20 => Op { what: Kind::Knock, a: 0, b: 0 },
            21 => Op { what: Kind::Recorder, a: 0, b: (n / 40 * 4 % 200 + 3).to_le_bytes()[0] },
            // An attempt that the store refuses, and one that fails because of our own disk.
            30 => Op { what: Kind::Misanswer, a: 8 * 14 + 1, b: 1 },
            35 => Op { what: Kind::Misanswer, a: 8 * 15 + 1, b: 1 },
            31 => Op { what: Kind::LateOutcome, a: 0, b: 1 },
            _ => next(n),
        };
        if let Err(broken) = world.act(op) {
            assert!(world.meddle.is_none(), "broke before it was spoiled: {broken:?}");
            return broken;
        }
    }
    panic!("nobody noticed (spoiled: {})", world.meddle.is_none());
}

fn check(invariant: &str, broken: &Broken) {
    assert_eq!(broken.invariant, invariant, "{}", broken.saw);
}

fn effect(out: &Output, is: impl Fn(&Effect) -> bool) -> Option<usize> {
    out.effects.iter().position(is)
}

fn ack(conn: ConnId, wire: &str) -> Effect {
    let text = format!("{{\"task_id\":\"{wire}\",\"type\":\"upload_ack\"}}\n");
    Effect::Send { conn, frame: Frame { text, secret: None } }
}

#[test]
fn i01_a_takeover_that_leaves_the_old_link_open_is_noticed() {
    check(
        "I01",
        &spoiled(|_, _, out| {
            let at = effect(out, |effect| matches!(effect, Effect::Close { .. }));
            at.map(|at| out.effects.remove(at)).is_some()
        }),
    );
}

#[test]
fn i01_a_frame_on_a_superseded_link_is_noticed() {
    check(
        "I01",
        &spoiled(|world, input, out| {
            if !matches!(input, Input::Request { .. }) {
                return false;
            }
            let old = world
                .links
                .iter()
                .find(|(conn, (_, role))| *role == Role::Recorder && !world.link_watch.is_current(**conn));
            let Some((conn, _)) = old else { return false };
            out.effects
                .push(Effect::Send { conn: *conn, frame: Frame { text: "{}\n".into(), secret: None } });
            true
        }),
    );
}

#[test]
fn i02_a_generation_that_does_not_rise_is_noticed() {
    check(
        "I02",
        &spoiled(|world, _, out| {
            let found = out.effects.iter_mut().find_map(|effect| match effect {
                Effect::Admit { conn, .. } => Some(conn),
                _ => None,
            });
            match found {
                Some(conn) if !world.links.is_empty() => {
                    conn.n = 1;
                    true
                }
                _ => false,
            }
        }),
    );
}

#[test]
fn i03_a_superseded_link_that_is_heard_is_noticed() {
    check(
        "I03",
        &spoiled(|world, input, out| match input {
            Input::Recorder { conn, .. } if !world.link_watch.is_current(*conn) => {
                out.effects.push(Effect::Publish(Notice::Queue(crate::effect::QueueCounts::default())));
                true
            }
            _ => false,
        }),
    );
}

#[test]
fn i04_a_state_that_is_shown_as_confirmed_before_it_was_asked_for_is_noticed() {
    check(
        "I04",
        &spoiled(|_, _, out| {
            out.effects.iter_mut().any(|effect| match effect {
                Effect::Publish(Notice::Recorder(view)) if view.confidence == "syncing" => {
                    (view.confidence, view.synced) = ("confirmed", true);
                    true
                }
                _ => false,
            })
        }),
    );
}

#[test]
fn i05_an_idle_recorder_that_carries_a_task_is_noticed() {
    check(
        "I05",
        &spoiled(|_, _, out| {
            out.effects.iter_mut().any(|effect| match effect {
                Effect::Publish(Notice::Recorder(view)) if view.synced && view.state == "idle" => {
                    view.task = "t00".into();
                    true
                }
                _ => false,
            })
        }),
    );
}

#[test]
fn i06_a_configuration_before_the_state_is_known_is_noticed() {
    check(
        "I06",
        &spoiled(|world, _, out| {
            if watch::tasks(&world.rows).next().is_none() {
                return false;
            }
            out.effects.iter_mut().any(|effect| match effect {
                Effect::Send { frame, .. } if frame.text.contains("\"get_state\"") => {
                    frame.text = frame.text.replace("\"get_state\"", "\"config\"");
                    true
                }
                _ => false,
            })
        }),
    );
}

#[test]
fn i07_a_second_answer_to_a_request_is_noticed() {
    check(
        "I07",
        &spoiled(|_, _, out| {
            let at = effect(out, |effect| matches!(effect, Effect::Reply { .. }));
            at.map(|at| out.effects.push(out.effects[at].clone())).is_some()
        }),
    );
}

#[test]
fn i07_an_answer_to_another_command_is_noticed() {
    check(
        "I07",
        &spoiled(|_, _, out| {
            out.effects.iter_mut().any(|effect| match effect {
                Effect::Reply { answer: Ok(Response::Rpc { request_id, .. }), .. } => {
                    *request_id = "another".into();
                    true
                }
                _ => false,
            })
        }),
    );
}

#[test]
fn i08_an_answered_command_that_is_called_unknown_is_noticed() {
    check(
        "I08",
        &spoiled(|_, _, out| {
            out.effects.iter_mut().any(|effect| match effect {
                Effect::Reply { answer: answer @ Ok(Response::Rpc { .. }), .. } => {
                    *answer = Err(Refusal::RpcTimeout(Action::Config));
                    true
                }
                _ => false,
            })
        }),
    );
}

#[test]
fn i09_a_recording_that_was_begun_twice_is_noticed() {
    let mut world = calm();
    until(&mut world, |world| world.fleet[0].begun.contains_key("t00"));
    world.fleet[0].begun.insert("t00".into(), 2);
    check("I09", &world.settle().expect_err("it was begun twice"));
}

#[test]
fn i11_a_task_that_leaves_a_final_state_is_noticed() {
    check(
        "I11",
        &spoiled(|_, _, out| {
            let done = out.changes.iter().find_map(|change| match change {
                Change::Task(TaskChange::Completed { task, at, .. }) => Some((task.clone(), *at)),
                _ => None,
            });
            let Some((task, at)) = done else { return false };
            out.changes.push(Change::Task(TaskChange::Readied { task, cause: TaskCause::Report, at }));
            true
        }),
    );
}

#[test]
fn i11_a_transition_without_its_cause_is_noticed() {
    check(
        "I11",
        &spoiled(|_, _, out| {
            out.changes.iter_mut().any(|change| match change {
                Change::Task(TaskChange::Readied { cause, .. }) => {
                    *cause = TaskCause::Callback;
                    true
                }
                _ => false,
            })
        }),
    );
}

#[test]
fn i12_a_record_that_is_not_committed_is_noticed() {
    check(
        "I12",
        &spoiled(|_, _, out| {
            let at = out.rows.iter().position(|(key, _)| matches!(key, Key::Task(_)));
            at.map(|at| out.rows.remove(at)).is_some()
        }),
    );
}

#[test]
fn i12_a_record_that_differs_from_memory_is_noticed() {
    check(
        "I12",
        &spoiled(|_, _, out| {
            out.rows.iter_mut().any(|(_, row)| match row {
                Some(Row::Task(row)) => {
                    row.created_at = Wall(1);
                    true
                }
                _ => false,
            })
        }),
    );
}

#[test]
fn i12_a_record_that_changed_while_the_process_was_down_is_noticed() {
    let mut world = calm();
    until(&mut world, |world| watch::tasks(&world.rows).any(|row| !row.state.is_final()));
    world.restart().expect("as it was");
    let row = world.rows.values_mut().find_map(|row| match row {
        Row::Task(row) if !row.state.is_final() => Some(row),
        _ => None,
    });
    row.expect("looked").updated_at = Wall(1);
    check("I12", &world.intact().expect_err("memory says otherwise"));
}

#[test]
fn i13_a_second_open_job_of_an_episode_is_noticed() {
    check(
        "I13",
        &spoiled(|_, _, out| {
            let queued = out.changes.iter().find_map(|change| match change {
                Change::Job(JobChange::Queued(row)) => Some(row.clone()),
                _ => None,
            });
            let Some(mut row) = queued else { return false };
            row.id = JobId(row.id.0 + 100);
            out.rows.push((Key::Job(row.id), Some(Row::Job((*row).clone()))));
            out.rows.sort_by(|a, b| a.0.cmp(&b.0));
            out.changes.push(Change::Job(JobChange::Queued(row)));
            true
        }),
    );
}

#[test]
fn i14_a_claim_of_another_boot_is_noticed() {
    check(
        "I14",
        &spoiled(|_, _, out| {
            out.changes.iter_mut().any(|change| match change {
                Change::Job(JobChange::Claimed { fence, .. }) => {
                    fence.boot = Boot(99);
                    true
                }
                _ => false,
            })
        }),
    );
}

#[test]
fn i14_a_late_outcome_that_counts_is_noticed() {
    check(
        "I14",
        &spoiled(|world, input, out| match input {
            Input::Object { ticket, .. } if !world.ops.contains_key(ticket) => {
                out.effects.push(Effect::Publish(Notice::Queue(crate::effect::QueueCounts::default())));
                true
            }
            _ => false,
        }),
    );
}

#[test]
fn i15_an_episode_that_forgets_its_job_is_noticed() {
    check(
        "I15",
        &spoiled(|_, _, out| {
            out.rows.iter_mut().any(|(_, row)| match row {
                Some(Row::Episode(row)) if matches!(row.sync, SyncMark::Queued(_)) => {
                    row.sync = SyncMark::NotStarted;
                    true
                }
                _ => false,
            })
        }),
    );
}

#[test]
fn i16_a_retry_that_costs_too_much_is_noticed() {
    check(
        "I16",
        &spoiled(|_, _, out| {
            out.changes.iter_mut().any(|change| match change {
                Change::Job(JobChange::Returned { cause: Cause::Retry(_), spent, .. }) => {
                    *spent += 1;
                    true
                }
                _ => false,
            })
        }),
    );
}

#[test]
fn i16_a_fault_of_the_disk_that_costs_an_attempt_is_noticed() {
    check(
        "I16",
        &spoiled(|_, _, out| {
            out.changes.iter_mut().any(|change| match change {
                Change::Job(JobChange::Returned { cause: Cause::Disk(_), spent, .. }) => {
                    *spent += 1;
                    true
                }
                _ => false,
            })
        }),
    );
}

#[test]
fn i16_a_retry_outside_its_envelope_is_noticed() {
    check(
        "I16",
        &spoiled(|_, _, out| {
            out.changes.iter_mut().any(|change| match change {
                Change::Job(JobChange::Returned { cause: Cause::Retry(_), due, at, .. }) => {
                    due.0 = at.0 + 100;
                    true
                }
                _ => false,
            })
        }),
    );
}

#[test]
fn i17_a_change_of_a_job_that_is_over_is_noticed() {
    check(
        "I17",
        &spoiled(|_, _, out| {
            let done = out.changes.iter().find_map(|change| match change {
                Change::Job(JobChange::Completed { fence, .. }) => Some(fence.job),
                _ => None,
            });
            let Some(job) = done else { return false };
            out.changes.push(Change::Job(JobChange::Noted { job, note: "again".into() }));
            true
        }),
    );
}

/// Lets the answer that will complete a job come, after something happened to the object.
fn completed_after(mischief: impl Fn(&mut World, &ObjectOp)) -> Broken {
    let mut world = calm();
    let verifying = |world: &World| {
        world.ops.iter().find_map(|(ticket, op)| {
            let sealed = watch::uploads(&world.rows)
                .any(|(_, row)| row.key == op.key && matches!(row.phase, Phase::Sealed { .. }));
            (sealed && op.store == Store::Cloud && op.verb == Verb::Head).then(|| (*ticket, op.clone()))
        })
    };
    until(&mut world, |world| verifying(world).is_some());
    let (ticket, op) = verifying(&world).expect("just looked");
    let outcome = world.perform(&op);
    mischief(&mut world, &op);
    world.input(Input::Object { ticket, outcome }).expect_err("the object is not as it must be")
}

#[test]
fn i18_a_completed_job_without_its_object_is_noticed() {
    check(
        "I18",
        &completed_after(|world, op| {
            world.stores.cloud.objects.remove(&op.key);
        }),
    );
}

#[test]
fn i18_a_completed_job_with_another_object_is_noticed() {
    check(
        "I18",
        &completed_after(|world, op| {
            let other = super::stores::Content { id: 1, len: 12 << 20, facts: None };
            world.stores.cloud.put(&op.key, other, None);
        }),
    );
}

#[test]
fn i19_a_complete_that_was_not_announced_is_noticed() {
    check(
        "I19",
        &spoiled(|_, _, out| {
            out.effects.iter_mut().any(|effect| match effect {
                Effect::Object { op: ObjectOp { verb: Verb::Complete { upload, .. }, .. }, .. } => {
                    *upload = UploadId::new("another");
                    true
                }
                _ => false,
            })
        }),
    );
}

#[test]
fn i20_an_acknowledgement_before_the_episode_is_noticed() {
    check(
        "I20",
        &spoiled(|_, input, out| match input {
            Input::Transfer { conn, message: TransferMessage::UploadStarted(announced) } => {
                out.effects.push(ack(*conn, &announced.task));
                true
            }
            _ => false,
        }),
    );
}

#[test]
fn i20_an_acknowledgement_of_bytes_that_are_gone_is_noticed() {
    let mut world = calm();
    until(&mut world, |world| watch::episodes(&world.rows).next().is_some());
    let row = watch::episodes(&world.rows).next().expect("just looked").clone();
    world.stores.edge.objects.remove(&row.key);
    let conn = world.fleet.iter().find(|d| d.id == row.device).and_then(|d| d.uploader).expect("connected");
    world.meddle = Some(Box::new(move |_, _, out| {
        out.effects.push(ack(conn, row.wire.as_str()));
        true
    }));
    check("I20", &world.input(Input::Wake).expect_err("the device would lose the only copy"));
}

#[test]
fn i20_a_recording_that_is_removed_before_it_is_in_the_cloud_is_noticed() {
    check(
        "I20",
        &spoiled(|world, _, out| {
            let claimed =
                out.changes.iter().any(|change| matches!(change, Change::Job(JobChange::Claimed { .. })));
            let Some(row) = watch::episodes(&world.rows).next().filter(|_| claimed) else { return false };
            let ticket = crate::id::Ticket { boot: world.boot, n: 1 << 40 };
            let op = ObjectOp { store: Store::Edge, key: row.key.clone(), verb: Verb::Delete };
            out.effects.push(Effect::Object { ticket, op });
            true
        }),
    );
}

#[test]
fn i20_an_episode_that_does_not_survive_its_acknowledgement_is_noticed() {
    let broken = spoiled(|_, _, out| {
        let recorded = |change: &Change| matches!(change, Change::Episode(EpisodeChange::Recorded(_)));
        if !out.changes.iter().any(recorded) {
            return false;
        }
        out.rows.retain(|(key, _)| !matches!(key, Key::Episode(_)));
        out.changes.retain(|change| !recorded(change));
        true
    });
    check("I20", &broken);
}

#[test]
fn i21_an_orphaned_upload_is_noticed() {
    let mut world = calm();
    until(&mut world, |world| {
        watch::jobs(&world.rows).any(|row| matches!(row.state, JobState::Completed { .. }))
    });
    let key = watch::jobs(&world.rows).next().expect("just looked").key.clone();
    let sha256 = crate::digest::Sha256::of(b"x");
    let create = ObjectOp { store: Store::Cloud, key, verb: Verb::Create { sha256 } };
    assert!(matches!(world.perform(&create), Outcome::Done(_)));
    check("I21", &world.settle().expect_err("nobody will abort it"));
}

#[test]
fn i21_a_part_of_the_wrong_bytes_is_noticed() {
    check(
        "I21",
        &spoiled(|_, _, out| {
            out.effects.iter_mut().any(|effect| match effect {
                Effect::Object { op: ObjectOp { verb: Verb::PutPart { span, .. }, .. }, .. } => {
                    span.offset += 1;
                    true
                }
                _ => false,
            })
        }),
    );
}

#[test]
fn i22_progress_that_falls_is_noticed() {
    check(
        "I22",
        &spoiled(|_, _, out| {
            let told = out.effects.iter().find_map(|effect| match effect {
                Effect::Publish(Notice::Progress { episode, job, uploaded, total, at }) if *uploaded > 0 => {
                    Some(Notice::Progress {
                        episode: *episode,
                        job: *job,
                        uploaded: 0,
                        total: *total,
                        at: *at,
                    })
                }
                _ => None,
            });
            told.map(|told| out.effects.push(Effect::Publish(told))).is_some()
        }),
    );
}

#[test]
fn i22_progress_of_bytes_that_nobody_acknowledged_is_noticed() {
    check(
        "I22",
        &spoiled(|_, _, out| {
            out.effects.iter_mut().any(|effect| match effect {
                Effect::Publish(Notice::Progress { uploaded, total, .. }) if *uploaded < *total => {
                    *uploaded += 1;
                    true
                }
                _ => false,
            })
        }),
    );
}

#[test]
fn i24_a_journal_that_forgot_a_change_is_noticed() {
    let mut world = calm();
    until(&mut world, |world| watch::jobs(&world.rows).next().is_some());
    world.replay().expect("nothing was forgotten yet");
    let entry = world.journal.iter_mut().rfind(|entry| !entry.changes.is_empty());
    entry.expect("something happened").changes.pop();
    check("I24", &world.replay().expect_err("a change is missing"));
}

#[test]
fn i24_a_journal_that_forgot_an_input_is_noticed() {
    let mut world = calm();
    until(&mut world, |world| watch::jobs(&world.rows).next().is_some());
    let at = world.journal.iter().position(|entry| matches!(entry.input, Input::Object { .. }));
    let at = at.expect("recordings were verified");
    world.journal.remove(at);
    world.wilds.remove(at);
    check("I24", &world.replay().expect_err("an input is missing"));
}

#[test]
fn i25_a_verdict_of_another_set_is_noticed() {
    check(
        "I25",
        &spoiled(|_, _, out| {
            let Some(ruled) = out.rulings.first_mut() else { return false };
            ruled.by = crate::policy::Author::Set(crate::id::PolicySetId([9; 32]));
            true
        }),
    );
}

#[test]
fn i25_a_journal_that_names_another_set_is_noticed() {
    let mut world = calm();
    until(&mut world, |world| watch::jobs(&world.rows).next().is_some());
    world.journal.last_mut().expect("something happened").policies = crate::id::PolicySetId([9; 32]);
    check("I25", &world.replay().expect_err("it was asked of another set"));
}

#[test]
fn i26_a_quarantine_that_ends_by_itself_is_noticed() {
    use crate::input::{PolicyRequest, Request};
    let mut world = calm();
    let module = crate::digest::Sha256([1; 32]);
    for request in
        [PolicyRequest::Admit { module, size: 9 }, PolicyRequest::Quarantine { module, reason: "odd".into() }]
    {
        world.ask(Request::Policy(request)).expect("nothing is wrong");
        while let Some(ticket) = world.policy_ops.keys().next().copied() {
            world.serve_policy(ticket).expect("nothing is wrong");
        }
    }
    let key = Key::Module(module);
    let held = world.rows.get(&key).cloned();
    let Some(Row::Module(mut row)) = held.clone() else { panic!("it is known") };
    assert!(row.quarantined.take().is_some());
    world.rows.insert(key.clone(), Row::Module(row));
    let before = [(key, held)].into();
    let given = world.machine.active_policy();
    let seen = world.watch_policies(given, &Input::Wake, &Output::default(), &before);
    check("I26", &seen.expect_err("nobody took it back"));
}

#[test]
fn i29_a_copy_that_is_removed_before_its_time_is_noticed() {
    check(
        "I29",
        &spoiled(|world, _, out| {
            let synced = out.changes.iter().find_map(|change| match change {
                Change::Episode(EpisodeChange::Synced { episode, .. }) => Some(*episode),
                _ => None,
            });
            let row = synced.and_then(|episode| watch::episode(&world.rows, episode));
            let Some(row) = row else { return false };
            let ticket = crate::id::Ticket { boot: world.boot, n: 1 << 40 };
            let op = ObjectOp { store: Store::Edge, key: row.key.clone(), verb: Verb::Delete };
            out.effects.push(Effect::Object { ticket, op });
            true
        }),
    );
}

#[test]
fn l1_a_job_that_nobody_carries_on_is_noticed() {
    let mut world = calm();
    until(&mut world, |world| {
        watch::jobs(&world.rows).any(|row| matches!(row.state, JobState::Claimed { .. }))
    });
    let claimed = world.rows.values_mut().find_map(|row| match row {
        Row::Job(row) if matches!(row.state, JobState::Claimed { .. }) => Some(row),
        _ => None,
    });
    let row = claimed.expect("just looked");
    row.state = JobState::Failed { why: crate::row::FinalWhy::Cancelled, at: Wall(1) };
    assert!(world.settle().is_err());
}
