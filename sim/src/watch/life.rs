//! Lives by chance: devices that come, go, lie and fall silent, people who ask for anything, a site that stops and starts.
//! Nothing of it may break an invariant of links and calls, and all of them must have something to check.

use std::collections::BTreeMap;
use std::time::Duration;

use tidegate_core::effect::Effect;
use tidegate_core::id::{ConnId, DeviceId, Role, SocketId, TaskId};
use tidegate_core::input::{Action, Command, Demand, Input, LostWhy, Request};
use tidegate_core::row::{Key, Row, TaskState};
use tidegate_core::wire::recorder::names;
use tidegate_core::wire::transfer::Status;
use tidegate_core::wire::{RecorderMessage, TransferMessage};

use super::rig::{Rig, push, response};
use crate::stream::Stream;
use crate::watch::{Broken, Watch as _};

const DEVICES: u64 = 3;
const TASKS: u64 = 30;

struct Life {
    rig: Rig,
    chance: Stream,
    /// Every link there ever was.
    links: Vec<(ConnId, u64, Role)>,
    /// Commands that devices have heard of: link, id, action, task.
    calls: Vec<(ConnId, String, Action, Option<String>)>,
    /// What a recorder really does.
    states: BTreeMap<u64, (&'static str, Option<String>)>,
    sockets: u64,
    stopping: bool,
}

fn name(n: u64) -> DeviceId {
    DeviceId::new(&format!("d{n}")).unwrap()
}

impl Life {
    fn new(seed: u64) -> Life {
        Life {
            rig: Rig::new(),
            chance: Stream::new(seed, "life", 0),
            links: Vec::new(),
            calls: Vec::new(),
            states: BTreeMap::new(),
            sockets: 1_000,
            stopping: false,
        }
    }

    fn below(&mut self, n: u64) -> u64 {
        self.chance.below(n)
    }

    /// Mostly a recent one.
    fn link(&mut self, role: Role) -> Option<(ConnId, u64)> {
        let of: Vec<_> = self.links.iter().filter(|link| link.2 == role).map(|l| (l.0, l.1)).collect();
        let back = if self.below(8) == 0 { self.below(12) } else { self.below(DEVICES) };
        of.iter().rev().nth(usize::try_from(back).unwrap()).copied()
    }

    fn wire(&mut self) -> String {
        let task = format!("t{}", self.below(TASKS + 1));
        let current = self.below(8) > 0;
        match self.rig.rows.get(&Key::Task(TaskId::new(&task).unwrap())) {
            Some(Row::Task(row)) if current => row.wire.to_string(),
            _ => task,
        }
    }

    fn owns(&self, n: u64, wire: &str) -> bool {
        self.rig
            .rows
            .values()
            .any(|row| matches!(row, Row::Task(row) if row.device == name(n) && row.wire.as_str() == wire))
    }

    fn input(&mut self) -> Option<Input> {
        Some(match self.below(20) {
            0 | 1 if self.below(4) == 0 => {
                self.sockets += 1;
                let role = if self.below(2) == 0 { Role::Recorder } else { Role::Transfer };
                let device = name(self.below(DEVICES));
                let socket = SocketId(self.sockets);
                Input::Knock {
                    socket,
                    device,
                    role,
                    remote: String::new(),
                    credential: None,
                    port: None,
                    demand: Demand::Nothing,
                }
            }
            2 if self.below(3) == 0 => {
                let role = if self.below(2) == 0 { Role::Recorder } else { Role::Transfer };
                Input::Lost { conn: self.link(role)?.0, why: LostWhy::Silent }
            }
            2..=4 => {
                let (conn, device) = self.link(Role::Recorder)?;
                let (state, task) = self.states.get(&device).cloned().unwrap_or(("idle", None));
                let ms = if self.below(6) == 0 { 1 } else { i64::try_from(self.rig.millis()).unwrap() };
                let message = match self.below(9) {
                    0 => push(None, task.as_deref(), ms),
                    1 => push(Some("recording"), None, ms),
                    2 => push(Some(" IDLE "), Some(&self.wire()), ms),
                    3 => push(Some("ready"), Some(&self.wire()), ms),
                    4 => RecorderMessage::ConfigApplied { task: Some(self.wire()) },
                    5 => RecorderMessage::Other("strange".into()),
                    _ => push(Some(state), task.as_deref(), ms),
                };
                Input::Recorder { conn, message }
            }
            0 | 1 | 5..=10 => self.answer()?,
            11 => {
                let conn = self.link(Role::Transfer)?.0;
                let full = self.below(2) == 0;
                let status = Status { connected: full, uploads: full.then(Vec::new), ..Status::default() };
                Input::Transfer { conn, message: TransferMessage::Status(status) }
            }
            12..=18 => {
                let request = self.request();
                self.rig.request_input(request).1
            }
            _ if self.below(120) == 0 => {
                self.stopping = true;
                Input::Shutdown
            }
            _ => Input::Wake,
        })
    }

    fn answer(&mut self) -> Option<Input> {
        let n = u64::try_from(self.calls.len()).unwrap();
        let at = usize::try_from(if self.below(3) == 0 { self.below(n.max(1)) } else { n.checked_sub(1)? });
        let (conn, id, action, task) = self.calls.get(at.unwrap())?.clone();
        if self.below(10) > 0 {
            self.calls.remove(at.unwrap());
        }
        let device = self.links.iter().find(|link| link.0 == conn)?.1;
        let state = self.states.entry(device).or_insert(("idle", None));
        let could = match (action, state.0) {
            (Action::Config, "idle" | "ready") => Some(("ready", task)),
            (Action::Begin, "ready") => Some(("recording", task)),
            (Action::Pause, "recording") => Some(("paused", state.1.clone())),
            (Action::Resume, "paused") => Some(("recording", state.1.clone())),
            (Action::Finish | Action::Cancel | Action::Clear, _) => Some(("idle", None)),
            (Action::GetState, _) => Some(state.clone()),
            _ => None,
        };
        if let Some(next) = &could {
            *state = next.clone();
        }
        let (word, held) = state.clone();
        let silent = self.below(12) == 0;
        let held = held.filter(|_| !matches!(action, Action::Pause | Action::Resume));
        let message = match could {
            _ if silent => response(&id, true, None, None),
            Some(_) => response(&id, true, Some(word), held.as_deref()),
            None => response(&id, action == Action::GetStats, None, None),
        };
        let other = self.below(30) == 0;
        let conn = if other { self.link(Role::Recorder)?.0 } else { conn };
        Some(Input::Recorder { conn, message })
    }

    fn request(&mut self) -> Request {
        let (n, mut task) = (self.below(DEVICES), self.wire());
        // Mostly its own.
        while self.below(30) > 0 && !self.owns(n, &task) {
            task = self.wire();
        }
        let device = name(n);
        match self.below(8) {
            0 => {
                let n = self.below(TASKS);
                let task = TaskId::new(&format!("t{n}")).unwrap();
                Request::CreateTask { task: Some(task), device: name(n % DEVICES), config: None }
            }
            1 => Request::RefreshState { device, max_age_ms: self.below(2) * 1_000 },
            2 if self.below(200) == 0 => Request::CancelTask { task },
            2 => Request::CallbackStart { task, device: Some(device), credential: None },
            _ => {
                let at = usize::try_from(self.below(14)).unwrap();
                let action = *Action::ALL.get(at).unwrap_or(&[Action::Config, Action::Begin][at % 2]);
                let (action, task) = match self.states.get(&n) {
                    Some(("ready", Some(held))) if self.chance.one_in(2) => (Action::Begin, held.clone()),
                    _ => (action, task),
                };
                let task = Some(task).filter(|_| self.below(6) > 0);
                let params = None;
                let (token, reply, task_state) = (None, None, None);
                Request::Command(Command { device, action, task, params, token, reply, task_state })
            }
        }
    }

    fn go(&mut self) -> Result<(), Broken> {
        let Some(input) = self.input() else { return Ok(()) };
        if let Input::Recorder { message, .. } = &input {
            assert!(names(message).is_none_or(|name| !name.is_empty()));
        }
        let (input, restart) = match input {
            Input::Wake if self.below(60) == 0 || (self.stopping && self.below(4) == 0) => {
                (Input::Wake, true)
            }
            input => (input, false),
        };
        if restart {
            self.stopping = false;
            self.calls.clear();
            return self.rig.restart();
        }
        self.rig.act(&input)?;
        if let Input::Knock { device, role, .. } = &input {
            let n = (0..DEVICES).find(|n| name(*n) == *device).unwrap();
            let conn = self.rig.out.effects.iter().find_map(|effect| match effect {
                Effect::Admit { conn, .. } => Some(*conn),
                _ => None,
            });
            self.links.extend(conn.map(|conn| (conn, n, *role)));
        }
        for (conn, rpc) in self.rig.sent() {
            self.calls.push((conn, rpc.id, rpc.action, rpc.task));
        }
        let pause = match self.below(20) {
            0 => Duration::from_secs(self.below(20)),
            1..=4 => Duration::from_millis(self.below(2_000)),
            _ => Duration::from_millis(self.below(20)),
        };
        self.rig.sleep(pause)
    }
}

#[test]
fn lives_by_chance_break_nothing_and_meet_every_premise() {
    let mut met = super::Premises::default();
    let mut states = std::collections::BTreeSet::new();
    for seed in 0..60 {
        let mut life = Life::new(seed);
        for _ in 0..2_000 {
            life.go().unwrap();
            states.extend(life.rig.rows.values().filter_map(|row| match row {
                Row::Task(row) => Some(row.state),
                _ => None,
            }));
        }
        life.rig.end().unwrap();
        met.add(life.rig.links.premises());
        met.add(life.rig.calls.premises());
    }
    let wanted = [
        "I01",
        "I02",
        "I02.late",
        "I03",
        "I04",
        "I04.dropped",
        "I05",
        "I05.idle",
        "I05.moved",
        "I05.older",
        "I05.useless",
        "I06",
        "I06.begin",
        "I06.config",
        "I07",
        "I07.late",
        "I08",
        "I08.lost",
        "I08.stopped",
        "I08.timed_out",
        "I10",
        "L4",
    ];
    for premise in wanted {
        assert!(met.0.contains_key(premise), "{premise}: {met:?}");
    }
    assert!(states.contains(&TaskState::InProgress), "{states:?}");
}
