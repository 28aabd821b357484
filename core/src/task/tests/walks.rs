//! Random walks: whatever is said, in whatever order, no change is illegal, replay and eviction agree, and nothing is
//! acknowledged whose bytes were not read and equal.

use super::*;
use crate::fact::CallEnd;
use crate::input::TransferAsk;
use crate::outcome::Fault;
use proptest::prelude::*;

const NAMES: [&str; 6] = ["T", "U", "T.2", "T.3", "U.2", "nope"];
const ACTIONS: [Action; 5] = [Action::Config, Action::Begin, Action::Cancel, Action::Clear, Action::Finish];
const REPORTS: [Reported; 5] =
    [Reported::Idle, Reported::Ready, Reported::Recording, Reported::Paused, Reported::Other];
const ENDS: [CallEnd; 3] = [CallEnd::Done, CallEnd::Refused, CallEnd::Unknown];

/// A walk's world: what is out, and which bytes are good.
struct World {
    rig: Rig,
    commands: Vec<Command>,
    ops: Vec<(Ticket, String)>,
    acked: usize,
}

impl World {
    fn note(&mut self, seen: Seen) {
        let recorded = seen.changes.contains(&"episode.recorded");
        let acks = seen.frames().iter().filter(|frame| frame.starts_with("ack")).count();
        assert!(acks == 0 || recorded || self.rig.parts.tasks.counter() > 1, "an episode stands behind it");
        self.acked += acks;
        self.ops.extend(seen.ops());
        for fact in seen.facts {
            match fact {
                Fact::CommandCleared(command) => self.commands.push(command),
                Fact::EpisodeWanted(wanted) => {
                    let queued = self.rig.on(|tasks, cx| {
                        tasks.on_job_queued(cx, crate::id::JobId(wanted.episode.0), wanted.episode)
                    });
                    assert_eq!(queued.changes, ["episode.queued"]);
                }
                _ => {}
            }
        }
    }

    fn step(&mut self, [kind, a, b, c]: [usize; 4]) {
        let name = NAMES[a % NAMES.len()];
        let device = if b % 5 == 0 { d2() } else { d1() };
        let rig = &mut self.rig;
        let seen = match kind {
            0 => rig.ask(Request::CreateTask { task: Some(task_id(name)), device, config: None }),
            1 => {
                let command = rig.command(&device, ACTIONS[c % 5], Some(name));
                rig.ask(Request::Command(command))
            }
            2 | 3 => {
                let Some(command) = (!self.commands.is_empty()).then(|| self.commands.remove(0)) else {
                    return;
                };
                let sent = rig.on(|tasks, cx| tasks.on_command_sent(cx, &command));
                let end = rig.end(&command, ENDS[c % 3]);
                assert!(sent.facts.is_empty());
                end
            }
            4 | 5 => rig.report(&device, REPORTS[c % 5], Some(name)),
            6 => rig.finish(name, &device, Default::default()),
            7 => {
                rig.ask(Request::CallbackStart { task: name.into(), device: Some(device), credential: None })
            }
            8 => rig.ask(Request::CancelTask { task: name.into() }),
            9..=11 => {
                // Sometimes a wrong digest, sometimes the key of another attempt.
                let key = claim(NAMES[if c % 7 == 0 { b % 6 } else { a % 6 }]).key;
                let sha256 = Some(if c % 3 == 0 { other_sha() } else { sha() });
                let claim = Announced { key, sha256, mcap_only: Some(c % 4 == 0), ..claim(name) };
                match kind {
                    9 => rig.say(&device, TransferMessage::UploadComplete(claim)),
                    10 => rig.say(&device, TransferMessage::UploadStarted(claim)),
                    _ => rig.say(&device, status(c % 2 == 0, std::vec![waiting(claim)])),
                }
            }
            12 => rig.say(&device, TransferMessage::UploadFailed { task: name.into(), reason: None }),
            13 => rig.say(&device, TransferMessage::UploadNotFound { task: name.into(), detail: None }),
            14 => rig.link_up(&device, u32::try_from(c).unwrap_or(1) + 1),
            15 => rig.link_down(&device),
            16..=20 => return self.answer(a, c),
            21 => {
                let key = object_key(claim(name).key.as_deref().expect("it has one"));
                rig.on(|tasks, cx| tasks.on_stored(cx, &key))
            }
            22 => {
                rig.pass(Duration::from_secs(70));
                rig.wake()
            }
            23 => {
                self.commands.clear();
                self.ops.clear();
                rig.restart()
            }
            24 => {
                rig.ask(Request::Judge { episode: EpisodeId(1 + a as u64), approve: c % 3 > 0, reason: None })
            }
            25 => rig.ask(Request::SyncBatch),
            26 => {
                let to = if c % 2 == 0 { TaskState::Failed } else { TaskState::Pending };
                rig.ask(Request::ResolveTask { task: name.into(), to, reason: None })
            }
            27 => {
                let waiting = Some(std::vec![name.to_string(), NAMES[b % 6].to_string()]);
                let status =
                    Status { connected: c % 2 == 0, waiting_ack_tasks: waiting, ..Status::default() };
                rig.say(&device, TransferMessage::Status(status))
            }
            28 => rig.say(&device, status(false, Vec::new())),
            29 => {
                let ask = TransferAsk::Upload { task: name.into(), priority: 1 };
                rig.ask(Request::Transfer { device, ask })
            }
            _ => {
                let (id, job) = (EpisodeId(1 + a as u64), crate::id::JobId(1 + a as u64));
                let mark = rig.disk.get(&Key::Episode(id)).cloned().flatten();
                let queued = matches!(mark, Some(Row::Episode(row)) if row.sync == SyncMark::Queued(job));
                if !queued {
                    return;
                }
                let end = crate::fact::JobEnd::Completed { key: object_key("c") };
                rig.on(|tasks, cx| tasks.on_job_ended(cx, job, id, end))
            }
        };
        self.note(seen);
    }

    /// Something outstanding is answered, not always with what is good.
    fn answer(&mut self, a: usize, c: usize) {
        if self.ops.is_empty() {
            return;
        }
        let (ticket, op) = self.ops.remove(a % self.ops.len());
        if self.rig.tickets.clone().take(ticket).is_none() {
            return;
        }
        let good = match op.split(' ').next() {
            Some("head") => head_reply(),
            Some("sidecar") => sidecar_reply(),
            Some("digest") => digest_reply(),
            Some("find") => {
                let name = op.rsplit('/').next().expect("a name");
                let here = object_key(&std::format!("f/d1/{name}"));
                let other = object_key(&std::format!("g/d1/{name}"));
                ObjectReply::Found([here, other].into_iter().take((c / 8 + a) % 3).collect())
            }
            _ => ObjectReply::Deleted,
        };
        let outcome = match c % 8 {
            0 => Outcome::Unknown,
            1 => Outcome::Failed(Fault::Offline),
            2 if op.starts_with("digest") => {
                Outcome::Done(ObjectReply::Got(Got::Digest { len: LEN, sha256: other_sha() }))
            }
            _ => Outcome::Done(good),
        };
        let wrong = c % 8 == 2;
        let seen = self.rig.object(ticket, outcome);
        assert!(!wrong || !op.starts_with("digest") || seen.frames().iter().all(|f| !f.starts_with("ack")));
        self.note(seen);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_order_of_inputs_breaks_the_tasks(
        steps in proptest::collection::vec([0..31_usize, 0..12_usize, 0..12_usize, 0..24_usize], 1..160)
    ) {
        let mut world = World { rig: Rig::new(), commands: Vec::new(), ops: Vec::new(), acked: 0 };
        for task in ["T", "U"] {
            world.rig.create(task, &d1());
        }
        world.rig.link_up(&d1(), 1);
        for step in steps {
            world.step(step);
        }
    }
}

#[test]
fn a_walk_gets_as_far_as_acknowledgements() {
    let mut world = World { rig: Rig::new(), commands: Vec::new(), ops: Vec::new(), acked: 0 };
    world.rig.create("T", &d1());
    world.rig.link_up(&d1(), 1);
    for step in [[9, 0, 1, 1], [16, 0, 0, 3], [16, 0, 0, 3], [16, 0, 0, 3], [16, 0, 0, 3]] {
        world.step(step);
    }
    assert_eq!((world.acked, world.rig.state("T")), (1, TaskState::Completed));
}
