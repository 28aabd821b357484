//! The hub from outside: what a device, an operator and the tasks see. Every step is followed by all its invariants.

mod contests;
mod greetings;

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::chance::Chance;
use crate::cx::Tickets;
use crate::effect::Output;
use crate::fact::{CallEnd, Reported};
use crate::id::{Boot, SecretRef, WireId};
use crate::knobs::Knobs;
use crate::policy::{Active, Builtin, Settings, Situation};
use crate::row::TaskState;
use crate::time::{Mono, Now, Wall};
use crate::timers::Timers;
use crate::wire::transfer::Status;

fn knock(socket: SocketId, device: &DeviceId, role: Role) -> Knock<'_> {
    Knock { socket, device, role, remote: "10.0.0.7", port: None, proof: Proof::Nothing }
}

/// A hub, its clock, and tasks that never object.
struct Rig {
    hub: Hub,
    timers: Timers,
    chance: Chance,
    seeds: Chance,
    tickets: Tickets,
    knobs: Knobs,
    policies: Builtin,
    active: Active,
    now: Now,
    stopping: bool,
    sockets: u64,
    superseded: u32,
}

/// What came of one step.
#[derive(Debug, Default)]
struct Seen {
    effects: Vec<Effect>,
    facts: Vec<Fact>,
}

impl Rig {
    fn new() -> Rig {
        Rig {
            hub: Hub::default(),
            timers: Timers::default(),
            chance: Chance::new(7),
            seeds: Chance::new(8),
            tickets: Tickets::new(Boot(3)),
            knobs: Knobs::default(),
            policies: Builtin::new(Settings::default()),
            active: Active::native(Settings::default()),
            now: Now { wall: Wall(1_795_000_000_000), mono: Mono(5_000_000_000) },
            stopping: false,
            sockets: 0,
            superseded: 0,
        }
    }

    fn step(&mut self, act: impl FnOnce(&mut Hub, &mut Cx<'_>)) -> Seen {
        let mut out = Output::default();
        let (mut facts, mut touched) = (VecDeque::new(), BTreeSet::new());
        let mut seen = Seen::default();
        let mut cx = Cx {
            now: self.now,
            knobs: &self.knobs,
            situation: Situation::default(),
            active: &self.active,
            stopping: self.stopping,
            timers: &mut self.timers,
            chance: &mut self.chance,
            seeds: &mut self.seeds,
            tickets: &mut self.tickets,
            facts: &mut facts,
            touched: &mut touched,
            policies: &mut self.policies,
            out: &mut out,
        };
        act(&mut self.hub, &mut cx);
        while let Some(fact) = cx.facts.pop_front() {
            if let Fact::CommandGated(command) = &fact {
                self.hub.on_command_cleared(&mut cx, command.clone());
            }
            seen.facts.push(fact);
        }
        assert!(out.changes.is_empty() && touched.is_empty(), "the hub has nothing durable");
        seen.effects = out.effects;
        self.check();
        seen
    }

    fn names(&self, input: &Input) -> Vec<&str> {
        self.hub.names(input, self.timers.due(self.now.mono))
    }

    fn check(&self) {
        self.hub.check().expect("invariants hold after every step");
        let keys: BTreeSet<TimerKey> = self.timers.keys().cloned().collect();
        for ticket in self.hub.calls() {
            assert!(keys.contains(&TimerKey::Call(ticket)), "I10: {ticket:?} has no deadline");
        }
        let armed_calls = keys.iter().filter(|key| matches!(key, TimerKey::Call(_))).count();
        assert_eq!(armed_calls, self.hub.calls().len(), "no deadline outlives its call");
        for (device, recorder) in &self.hub.recorders {
            let asking = recorder.calls.iter().any(|call| matches!(call.asks, Asks::State(_)));
            let again = keys.contains(&TimerKey::Sync(recorder.link.conn));
            let settled = recorder.confidence.is_confirmed() || self.stopping;
            assert!(settled || asking || again, "{device} will never be confirmed");
        }
        for key in &keys {
            if let TimerKey::Sync(conn) = key {
                assert!(self.hub.is_current(*conn, Role::Recorder), "{conn:?} is gone, its timer is not");
            }
            if let TimerKey::Contest(conn) = key {
                assert!(self.hub.contests().any(|fought| fought == *conn), "{conn:?} is not fought over");
            }
        }
        for conn in self.hub.contests() {
            assert!(keys.contains(&TimerKey::Contest(conn)), "I27: the contest over {conn:?} has no end");
        }
    }

    fn knock(&mut self, device: &str, role: Role) -> (Option<ConnId>, Seen) {
        self.sockets += 1;
        let (socket, device) = (SocketId(self.sockets), id(device));
        let seen = self.step(|hub, cx| hub.on_knock(cx, knock(socket, &device, role)));
        let conn = seen.effects.iter().find_map(|effect| match effect {
            Effect::Admit { conn, .. } => Some(*conn),
            _ => None,
        });
        (conn, seen)
    }

    fn recorder(&mut self, device: &str) -> (ConnId, Seen) {
        let (conn, seen) = self.knock(device, Role::Recorder);
        (conn.expect("admitted"), seen)
    }

    fn transfer(&mut self, device: &str) -> ConnId {
        self.knock(device, Role::Transfer).0.expect("admitted")
    }

    /// What a device says goes through the same door as in life.
    fn say(&mut self, conn: ConnId, message: &RecorderMessage) -> Seen {
        if !self.hub.is_current(conn, Role::Recorder) {
            self.superseded += 1;
            return Seen::default();
        }
        self.step(|hub, cx| hub.on_recorder(cx, conn, message))
    }

    fn push(&mut self, conn: ConnId, at: i64, state: &str, task: &str) -> Seen {
        self.say(
            conn,
            &RecorderMessage::StateUpdate {
                timestamp_ms: Some(at),
                previous: Some("idle".to_string()),
                current: text(state),
                task: text(task),
            },
        )
    }

    fn answer(&mut self, conn: ConnId, request: &str, success: bool, state: &str, task: &str) -> Seen {
        let mut data = serde_json::Map::new();
        if !state.is_empty() {
            data.insert("state".to_string(), Value::from(state));
        }
        self.say(
            conn,
            &RecorderMessage::Response {
                request_id: request.to_string(),
                success,
                message: Some(if success { "ok" } else { "no" }.to_string()),
                state: text(state),
                task: text(task),
                data: (!data.is_empty()).then(|| Value::Object(data).to_string()),
            },
        )
    }

    /// A recorder that answered its first `get_state`.
    fn confirmed(&mut self, device: &str, state: &str, task: &str) -> ConnId {
        let (conn, seen) = self.recorder(device);
        let request = seen.request("get_state");
        self.answer(conn, &request, true, state, task);
        conn
    }

    fn lost(&mut self, conn: ConnId) -> (bool, Seen) {
        let mut known = false;
        let seen = self.step(|hub, cx| known = hub.on_lost(cx, conn, LostWhy::Broken));
        (known, seen)
    }

    fn ask(&mut self, command: Command) -> Seen {
        self.step(|hub, cx| hub.on_command(cx, command))
    }

    fn clear(&mut self, command: Command) -> Seen {
        self.step(|hub, cx| hub.on_command_cleared(cx, command))
    }

    fn refresh(&mut self, reply: u64, device: &str, max_age_ms: u64) -> Seen {
        let device = id(device);
        self.step(|hub, cx| hub.on_refresh(cx, RequestId(reply), &device, max_age_ms))
    }

    fn pass(&mut self, ms: u64) {
        self.now.mono = Mono(self.now.mono.0 + ms * 1_000_000);
        self.now.wall = Wall(self.now.wall.0 + i64::try_from(ms).expect("small"));
    }

    /// Lets time pass up to the next deadline and fires what is due then.
    fn next_deadline(&mut self) -> Seen {
        let (at, _) = self.timers.next().expect("something is armed");
        self.pass(u64::try_from(self.now.mono.until(at).as_millis()).expect("small"));
        self.wake()
    }

    fn wake(&mut self) -> Seen {
        let mut all = Seen::default();
        while let Some(key) = self.timers.take_due(self.now.mono) {
            let seen = self.fire(&key);
            all.effects.extend(seen.effects);
            all.facts.extend(seen.facts);
        }
        all
    }

    fn fire(&mut self, key: &TimerKey) -> Seen {
        match key {
            TimerKey::Sync(conn) => self.step(|hub, cx| hub.on_sync_due(cx, *conn)),
            TimerKey::Call(ticket) => self.step(|hub, cx| hub.on_call_due(cx, *ticket)),
            TimerKey::Contest(conn) => self.step(|hub, cx| hub.on_contest_due(cx, *conn)),
            other => panic!("the hub armed {other:?}"),
        }
    }

    fn view(&mut self, device: &str) -> RecorderView {
        let device = id(device);
        let mut view = None;
        self.step(|hub, cx| view = Some(hub.view(cx, &device, false)));
        view.expect("the step ran")
    }
}

impl Seen {
    fn frames(&self) -> Vec<(ConnId, Value)> {
        let frame = |effect: &Effect| match effect {
            Effect::Send { conn, frame } => {
                Some((*conn, serde_json::from_str(&frame.text).expect("frames are JSON")))
            }
            _ => None,
        };
        self.effects.iter().filter_map(frame).collect()
    }

    fn actions(&self) -> Vec<String> {
        let action = |(_, frame): (ConnId, Value)| frame["action"].as_str().unwrap_or("?").to_string();
        self.frames().into_iter().map(action).collect()
    }

    /// The id of the one frame of this action.
    fn request(&self, action: &str) -> String {
        let ids: Vec<String> = self
            .frames()
            .into_iter()
            .filter(|(_, frame)| frame["action"] == action)
            .map(|(_, frame)| frame["request_id"].as_str().expect("a text").to_string())
            .collect();
        assert_eq!(ids.len(), 1, "{action} among {:?}", self.actions());
        ids[0].clone()
    }

    fn replies(&self) -> Vec<(u64, &Result<Response, Refusal>)> {
        let reply = |effect| match effect {
            &Effect::Reply { to, ref answer } => Some((to.0, answer)),
            _ => None,
        };
        self.effects.iter().filter_map(reply).collect()
    }

    fn refusal(&self) -> &Refusal {
        match self.replies().as_slice() {
            [(_, Err(refusal))] => refusal,
            other => panic!("not one refusal: {other:?}"),
        }
    }

    fn reply(&self) -> &Response {
        match self.replies().as_slice() {
            [(_, Ok(response))] => response,
            other => panic!("not one answer: {other:?}"),
        }
    }

    fn views(&self) -> Vec<&RecorderView> {
        let view = |effect| match effect {
            &Effect::Publish(Notice::Recorder(ref view)) => Some(view),
            _ => None,
        };
        self.effects.iter().filter_map(view).collect()
    }

    fn reports(&self) -> Vec<(Reported, Option<String>)> {
        let report = |fact: &Fact| match fact {
            Fact::RecorderReported { report, .. } => {
                Some((report.state, report.task.as_ref().map(ToString::to_string)))
            }
            _ => None,
        };
        self.facts.iter().filter_map(report).collect()
    }

    fn ends(&self) -> Vec<(Action, CallEnd)> {
        let end = |fact: &Fact| match fact {
            Fact::CommandEnded { command, end } => Some((command.action, *end)),
            _ => None,
        };
        self.facts.iter().filter_map(end).collect()
    }

    fn sent(&self) -> Vec<&Command> {
        let sent: fn(&Fact) -> Option<&Command> = |fact| match fact {
            Fact::CommandSent(command) => Some(command),
            _ => None,
        };
        self.facts.iter().filter_map(sent).collect()
    }

    fn is_silent(&self) -> bool {
        self.effects.is_empty() && self.facts.is_empty()
    }
}

fn id(device: &str) -> DeviceId {
    DeviceId::new(device).expect("legal")
}

fn text(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_string())
}

fn command(reply: u64, action: Action, task: &str) -> Command {
    let params = match action {
        Action::Config => json!({"task_config": {"task_id": task, "user_token": "tidegate-secret:9"}}),
        _ if task.is_empty() => json!({}),
        _ => json!({"task_id": task}),
    };
    Command {
        device: id("r1"),
        action,
        task: text(task),
        params: Some(params.to_string()),
        token: None,
        reply: Some(RequestId(reply)),
        task_state: (action == Action::Begin).then_some(TaskState::Ready),
    }
}

fn state_of(response: &Response) -> &RecorderView {
    match response {
        Response::State(view) => view,
        other => panic!("{other:?}"),
    }
}

// Links

#[test]
fn a_recorder_is_asked_for_its_state_first_and_its_answer_confirms_it() {
    let mut rig = Rig::new();
    let (conn, seen) = rig.recorder("r1");
    assert_eq!(conn, ConnId { boot: Boot(3), n: 1 });
    assert!(matches!(seen.facts.as_slice(), [Fact::LinkUp { role: Role::Recorder, .. }]));
    let (to, frame) = &seen.frames()[0];
    assert_eq!((*to, frame["type"].as_str()), (conn, Some("rpc_request")));
    assert_eq!(frame["timestamp_ms"], 1_795_000_000_000_i64, "recorders compare it with their clock");
    assert_eq!(frame.get("params"), None);
    let view = seen.views()[0];
    assert_eq!((view.state.as_str(), view.confidence, view.connected), ("unknown", "syncing", true));

    let seen = rig.answer(conn, &seen.request("get_state"), true, "idle", "");
    assert_eq!(seen.reports(), [(Reported::Idle, None)]);
    let view = seen.views()[0];
    assert_eq!(
        (view.state.as_str(), view.source.as_str(), view.confidence),
        ("idle", "get_state", "confirmed")
    );
    assert!(view.synced && view.fresh);
    assert_eq!(rig.timers.len(), 0, "nothing waits any more");
}

#[test]
fn the_newest_link_wins_at_once_and_the_old_ones_calls_end_unknown() {
    let mut rig = Rig::new();
    let old = rig.confirmed("r1", "recording", "T");
    rig.clear(command(1, Action::Finish, "T"));
    rig.ask(command(2, Action::GetStats, ""));
    assert_eq!(rig.hub.recording(), 1);

    let (new, seen) = rig.recorder("r1");
    assert!(old < new && old.generation() < new.generation());
    match seen.effects.as_slice() {
        [
            Effect::Admit { conn, .. },
            Effect::Close { conn: closed, why: CloseWhy::Replaced },
            Effect::Publish(Notice::Takeover { old: replaced, new: newer, .. }),
            Effect::Reply { to: RequestId(1), answer: Err(Refusal::LinkLost { action: Action::Finish }) },
            Effect::Reply { to: RequestId(2), answer: Err(Refusal::LinkLost { action: Action::GetStats }) },
            Effect::Publish(Notice::Link { link: Some(link), .. }),
            Effect::Send { conn: asked, .. },
            Effect::Publish(Notice::Recorder(view)),
        ] => {
            assert_eq!((*conn, *closed, *asked), (new, old, new));
            assert_eq!((replaced.generation, newer.generation), (old.generation(), new.generation()));
            assert_eq!(link.generation, new.generation());
            assert_eq!(
                (view.state.as_str(), view.confidence),
                ("unknown", "syncing"),
                "nothing is carried over"
            );
        }
        other => panic!("{other:#?}"),
    }
    assert_eq!(seen.ends(), [(Action::Finish, CallEnd::Unknown), (Action::GetStats, CallEnd::Unknown)]);
    assert!(matches!(seen.facts.last(), Some(Fact::LinkUp { .. })), "after the calls ended");
    assert_eq!(rig.hub.recording(), 0);
}

#[test]
fn an_uploaders_newest_link_wins_too_and_leaves_the_recorder_alone() {
    let mut rig = Rig::new();
    let recorder = rig.confirmed("r1", "idle", "");
    let old = rig.transfer("r1");
    let (new, seen) = rig.knock("r1", Role::Transfer);
    assert!(matches!(
        seen.effects.as_slice(),
        [
            Effect::Admit { .. },
            Effect::Close { why: CloseWhy::Replaced, .. },
            Effect::Publish(Notice::Takeover { role: Role::Transfer, .. }),
            Effect::Publish(Notice::Link { .. })
        ]
    ));
    assert!(!rig.hub.is_current(old, Role::Transfer));
    assert!(rig.hub.is_current(new.expect("admitted"), Role::Transfer));
    assert!(rig.hub.is_current(recorder, Role::Recorder) && !rig.hub.is_current(recorder, Role::Transfer));
}

#[test]
fn nothing_a_replaced_link_says_or_does_changes_anything() {
    let mut rig = Rig::new();
    let (old, first) = rig.recorder("r1");
    let old_request = first.request("get_state");
    let (new, seen) = rig.recorder("r1");
    let request = seen.request("get_state");
    let before = rig.view("r1");

    assert!(rig.push(old, 1, "recording", "T").is_silent());
    assert!(rig.say(old, &RecorderMessage::ConfigApplied { task: text("T") }).is_silent());
    assert!(rig.answer(old, &request, true, "idle", "").is_silent(), "the right id on the wrong link");
    assert!(rig.answer(new, &old_request, true, "idle", "").is_silent(), "the wrong id on the right link");
    let (known, seen) = rig.lost(old);
    assert!(!known && seen.is_silent());
    assert_eq!(rig.view("r1"), before);
    assert_eq!((rig.superseded, rig.hub.unmatched()), (3, 1));

    rig.answer(new, &request, true, "idle", "");
    assert!(rig.view("r1").synced, "the real answer still counts");
}

#[test]
fn a_lost_link_ends_its_calls_and_shows_the_recorder_disconnected() {
    let mut rig = Rig::new();
    let conn = rig.confirmed("r1", "recording", "T");
    rig.clear(command(1, Action::Pause, "T"));
    let (known, seen) = rig.lost(conn);
    assert!(known);
    assert_eq!(*seen.refusal(), Refusal::LinkLost { action: Action::Pause });
    assert_eq!(seen.ends(), [(Action::Pause, CallEnd::Unknown)]);
    assert!(matches!(seen.facts.last(), Some(Fact::LinkDown { role: Role::Recorder, .. })));
    assert!(seen.effects.iter().any(|e| matches!(e, Effect::Publish(Notice::Link { link: None, .. }))));
    let view = seen.views()[0];
    assert_eq!((view.state.as_str(), view.source.as_str(), view.generation), ("unknown", "disconnected", 0));
    assert!(!view.connected && !view.synced);
    assert_eq!((rig.hub.recording(), rig.timers.len()), (0, 0));
    assert!(!rig.lost(conn).0, "lost once");
}

#[test]
fn links_beyond_the_limit_are_turned_away_but_a_known_device_may_always_come_back() {
    let mut rig = Rig::new();
    rig.step(|hub, cx| {
        for n in 0..limits::LINKS_MAX {
            let device = id(&alloc::format!("d{n}"));
            hub.on_knock(cx, knock(SocketId(0), &device, Role::Transfer));
        }
    });
    let (conn, seen) = rig.knock("one-more", Role::Transfer);
    assert_eq!(conn, None);
    assert!(matches!(seen.effects.as_slice(), [Effect::TurnAway { refusal: Refusal::TooManyLinks, .. }]));
    assert!(rig.knock("d7", Role::Transfer).0.is_some());
    assert!(rig.knock("one-more", Role::Recorder).0.is_some(), "each role has its own limit");
}

#[test]
fn links_beyond_what_the_machine_bears_are_turned_away_whatever_their_role() {
    let mut rig = Rig::new();
    rig.knobs.links_max = 2;
    rig.recorder("r1");
    rig.transfer("r1");
    for role in [Role::Recorder, Role::Transfer] {
        let (conn, seen) = rig.knock("r2", role);
        assert_eq!(conn, None);
        assert!(matches!(seen.effects.as_slice(), [Effect::TurnAway { refusal: Refusal::TooManyLinks, .. }]));
        assert!(rig.knock("r1", role).0.is_some(), "it takes the place of its own older link");
    }
}

#[test]
fn versions_rise_by_one_per_notice_and_outlive_the_link() {
    let mut rig = Rig::new();
    let (conn, seen) = rig.recorder("r1");
    assert_eq!(seen.views()[0].version, 2, "after the notice of the link");
    let seen = rig.answer(conn, &seen.request("get_state"), true, "idle", "");
    assert_eq!(seen.views()[0].version, 3);
    assert_eq!(rig.lost(conn).1.views()[0].version, 5);
    assert_eq!(rig.recorder("r1").1.views()[0].version, 7);
}

#[test]
fn versions_of_devices_without_links_are_forgotten_first_and_never_fall() {
    let mut versions = Versions::default();
    let kept = id("a-kept");
    for _ in 0..5 {
        versions.next(&kept, |_| true);
    }
    versions.next(&id("b-idle"), |_| true);
    versions.next(&id("b-idle"), |_| true);
    for n in 0..limits::VERSIONS_MAX {
        versions.next(&id(&alloc::format!("x{n}")), |known| *known == kept);
    }
    assert_eq!(versions.len(), limits::VERSIONS_MAX);
    assert_eq!(versions.of(&kept), 5);
    assert_eq!(versions.of(&id("b-idle")), 0, "forgotten");
    assert!(versions.next(&id("b-idle"), |known| *known == kept) > 2);
}

// Confidence

#[test]
fn pushes_before_the_answer_are_shown_but_confirm_nothing() {
    // A recorder that reconnects sends what it queued for the old link first, then where it stands.
    let mut rig = Rig::new();
    let (conn, first) = rig.recorder("r1");
    for (at, state, task) in [(10, "recording", "T"), (20, "idle", "")] {
        let seen = rig.push(conn, at, state, task);
        assert_eq!(seen.reports(), []);
        let view = seen.views()[0];
        assert_eq!((view.state.as_str(), view.source.as_str(), view.synced), (state, "state_update", false));
    }
    let same = RecorderMessage::StateUpdate {
        timestamp_ms: Some(30),
        previous: text("idle"),
        current: text("idle"),
        task: None,
    };
    assert_eq!(rig.say(conn, &same).reports(), []);
    assert_eq!(*rig.ask(command(1, Action::Config, "T")).refusal(), Refusal::TransferOffline);
    rig.transfer("r1");
    assert_eq!(*rig.ask(command(2, Action::Config, "T")).refusal(), Refusal::StateSyncing);
    let seen = rig.answer(conn, &first.request("get_state"), true, "idle", "");
    assert_eq!(seen.reports(), [(Reported::Idle, None)]);
}

#[test]
fn a_push_after_the_answer_is_the_recorders_state() {
    let mut rig = Rig::new();
    let conn = rig.confirmed("r1", "idle", "");
    let seen = rig.push(conn, 10, " Ready ", "T");
    assert_eq!(seen.reports(), [(Reported::Ready, text("T"))], "in any case, with blanks around it");
    assert_eq!(seen.views()[0].previous, "idle");
    let seen = rig.push(conn, 10, "recording", "T");
    assert_eq!(seen.reports(), [(Reported::Recording, text("T"))], "the same millisecond is not older");
    assert_eq!(rig.hub.recording(), 1);
    rig.push(conn, 11, "paused", "T");
    assert_eq!(rig.hub.recording(), 1);
    rig.push(conn, 12, "idle", "T");
    assert_eq!(rig.hub.recording(), 0);
}

#[test]
fn an_idle_recorder_has_no_task_whatever_it_says() {
    let mut rig = Rig::new();
    for state in ["idle", "maintenance"] {
        let conn = rig.confirmed("r1", "recording", "T");
        let seen = rig.push(conn, 10, state, "T");
        assert_eq!(seen.reports(), [(Reported::of(state), None)]);
        assert_eq!(seen.views()[0].task, "");
    }
}

#[test]
fn a_state_that_needs_a_task_is_rejected_without_one_and_the_last_is_kept() {
    for state in ["ready", "recording", "paused"] {
        let mut rig = Rig::new();
        let conn = rig.confirmed("r1", "recording", "T");
        let seen = rig.push(conn, 10, state, "");
        assert_eq!(seen.reports(), []);
        let view = seen.views()[0];
        assert_eq!((view.state.as_str(), view.task.as_str(), view.confidence), ("recording", "T", "stale"));
        let error = alloc::format!("recorder state_update snapshot missing task_id for state={state}");
        assert_eq!(view.error, Some(error));

        let seen = rig.answer(conn, &seen.request("get_state"), true, state, "");
        let error = alloc::format!("recorder get_state snapshot missing task_id for state={state}");
        assert_eq!(seen.views()[0].error, Some(error));
        assert_eq!((seen.reports(), rig.view("r1").state.as_str()), (Vec::new(), "recording"));
    }
}

#[test]
fn a_blank_state_never_confirms_and_shakes_what_was_confirmed() {
    let mut rig = Rig::new();
    let (conn, first) = rig.recorder("r1");
    assert_eq!(rig.push(conn, 10, "", "T").views()[0].confidence, "syncing");
    let seen = rig.answer(conn, &first.request("get_state"), true, "", "");
    assert_eq!((seen.views()[0].confidence, seen.views()[0].source.as_str()), ("stale", "get_state"));
    assert_eq!(rig.push(conn, 11, "", "").views()[0].confidence, "stale");
    rig.push(conn, 12, "idle", "");
    assert!(rig.view("r1").synced, "asking failed, so a push settles it");

    let seen = rig.push(conn, 13, "", "");
    assert_eq!((seen.views()[0].confidence, seen.reports()), ("stale", Vec::new()));
    rig.push(conn, 14, "idle", "");
    assert!(!rig.view("r1").synced, "now it is asked, and only the answer settles it");
    rig.answer(conn, &seen.request("get_state"), true, "idle", "");
    assert!(rig.view("r1").synced);
}

#[test]
fn a_push_older_than_an_accepted_one_is_dropped_and_the_recorder_is_asked() {
    let mut rig = Rig::new();
    let conn = rig.confirmed("r1", "idle", "");
    rig.push(conn, 100, "ready", "T");
    let seen = rig.push(conn, 99, "idle", "");
    assert_eq!((seen.reports(), seen.views().len()), (Vec::new(), 0));
    assert_eq!(rig.view("r1").state, "ready");
    rig.answer(conn, &seen.request("get_state"), true, "idle", "");
    assert_eq!(rig.view("r1").state, "idle", "a clock that was set back does not freeze the state");

    let (conn, first) = rig.recorder("r1");
    rig.answer(conn, &first.request("get_state"), true, "idle", "");
    rig.push(conn, 5, "ready", "T");
    assert_eq!(rig.view("r1").state, "ready", "timestamps of another link do not count");
}

#[test]
fn asking_that_fails_is_repeated_with_growing_pauses_until_it_is_answered() {
    let mut rig = Rig::new();
    let (conn, first) = rig.recorder("r1");
    let seen = rig.answer(conn, &first.request("get_state"), false, "idle", "");
    assert_eq!((seen.views()[0].confidence, seen.views()[0].error.as_deref()), ("stale", Some("no")));
    let mut pauses = Vec::new();
    for _ in 0..7 {
        let before = rig.now.mono;
        let asked = rig.next_deadline();
        pauses.push(before.until(rig.now.mono).as_secs());
        assert_eq!(asked.actions(), ["get_state"]);
        let silent = rig.next_deadline();
        assert_eq!(silent.views()[0].error.as_deref(), Some("recorder rpc timeout"));
        assert_eq!(silent.views()[0].source, "get_state");
        assert!(silent.frames().is_empty());
    }
    assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30]);
    let asked = rig.next_deadline();
    let seen = rig.answer(conn, &asked.request("get_state"), true, "ready", "T");
    assert_eq!(seen.reports(), [(Reported::Ready, text("T"))]);
    assert_eq!((rig.timers.len(), rig.view("r1").error), (0, None));
}

#[test]
fn a_push_after_unanswered_asking_unblocks_exactly_one_config() {
    let mut rig = Rig::new();
    rig.transfer("r1");
    let (conn, _) = rig.recorder("r1");
    rig.next_deadline();
    assert_eq!(*rig.ask(command(1, Action::Config, "T")).refusal(), Refusal::StateSyncing);
    let seen = rig.push(conn, 10, "idle", "");
    assert_eq!(seen.reports(), [(Reported::Idle, None)]);
    assert_eq!(rig.ask(command(2, Action::Config, "T")).actions(), ["config"]);
    assert_eq!(*rig.ask(command(3, Action::Config, "T")).refusal(), Refusal::CommandInFlight(Action::Config));
}

#[test]
fn config_applied_is_passed_on_and_moves_no_state() {
    let mut rig = Rig::new();
    let conn = rig.confirmed("r1", "idle", "");
    let seen = rig.say(conn, &RecorderMessage::ConfigApplied { task: text("T") });
    assert!(matches!(seen.facts.as_slice(), [Fact::ConfigApplied { task, .. }] if task == "T"));
    assert!(seen.effects.is_empty());
    assert!(rig.say(conn, &RecorderMessage::ConfigApplied { task: None }).is_silent());
    assert!(rig.say(conn, &RecorderMessage::Other("connected".to_string())).is_silent());
}

// Gates

#[test]
fn config_is_refused_in_the_documented_order() {
    let mut rig = Rig::new();
    let config = |n| command(n, Action::Config, "T");
    assert_eq!(*rig.ask(config(1)).refusal(), Refusal::TransferOffline);
    let transfer = rig.transfer("r1");
    assert_eq!(*rig.ask(config(2)).refusal(), Refusal::RecorderOffline);
    let (conn, first) = rig.recorder("r1");
    assert_eq!(*rig.ask(config(3)).refusal(), Refusal::StateSyncing);
    rig.answer(conn, &first.request("get_state"), true, "recording", "U");
    rig.pass(1_001);
    let waits = rig.ask(config(4));
    assert_eq!((waits.actions(), waits.replies().len()), (alloc::vec!["get_state".to_string()], 0));
    let busy = rig.answer(conn, &waits.request("get_state"), true, "recording", "U");
    let expected = Refusal::RecorderBusy { state: "recording".to_string(), task: "U".to_string() };
    assert_eq!(*busy.refusal(), expected);
    rig.push(conn, 10, "idle", "");
    let sent = rig.ask(config(5));
    assert!(
        matches!(sent.facts.as_slice(), [Fact::CommandGated(_), Fact::CommandSent(_)]),
        "the tasks decide last"
    );
    rig.lost(transfer);
    assert_eq!(*rig.ask(config(6)).refusal(), Refusal::TransferOffline);
}

#[test]
fn config_reaches_only_an_idle_recorder_or_one_that_is_ready_for_what_the_tasks_may_replace() {
    for state in ["recording", "paused", "unknown", "maintenance"] {
        let mut rig = Rig::new();
        rig.transfer("r1");
        rig.confirmed("r1", state, "U");
        let seen = rig.ask(command(1, Action::Config, "T"));
        assert!(matches!(seen.refusal(), Refusal::RecorderBusy { state: s, .. } if s == state), "{state}");
        assert!(seen.frames().is_empty() && seen.facts.is_empty());
    }
    let mut rig = Rig::new();
    rig.transfer("r1");
    rig.confirmed("r1", "ready", "U");
    let seen = rig.ask(command(1, Action::Config, "T"));
    assert!(matches!(&seen.facts[..], [Fact::CommandGated(_), ..]), "the tasks are asked: {seen:?}");
}

#[test]
fn a_config_that_waits_for_a_fresh_state_goes_on_by_itself() {
    let mut rig = Rig::new();
    rig.transfer("r1");
    rig.confirmed("r1", "idle", "");
    rig.pass(1_000);
    assert_eq!(rig.ask(command(1, Action::Config, "T")).actions(), ["config"], "a second old is fresh");

    let mut rig = Rig::new();
    rig.transfer("r1");
    let conn = rig.confirmed("r1", "idle", "");
    rig.pass(1_001);
    let waits = rig.ask(command(1, Action::Config, "T"));
    let also = rig.ask(command(2, Action::Config, "U"));
    assert!(also.is_silent(), "it joins the question that is out");
    let seen = rig.answer(conn, &waits.request("get_state"), true, "idle", "");
    assert_eq!(seen.actions(), ["config"], "two passed the gates, one leaves");
    assert_eq!(*seen.refusal(), Refusal::CommandInFlight(Action::Config));
    assert_eq!(seen.sent()[0].task, text("T"));
    let report = seen.facts.iter().position(|f| matches!(f, Fact::RecorderReported { .. }));
    let gated = seen.facts.iter().position(|f| matches!(f, Fact::CommandGated(_)));
    assert!(report < gated, "the tasks learn the state before they are asked");
}

#[test]
fn a_state_that_cannot_be_refreshed_refuses_the_command_that_waits() {
    let check = |act: &dyn Fn(&mut Rig, ConnId, &str) -> Seen, expect_timeout: bool, connected: bool| {
        let mut rig = Rig::new();
        rig.transfer("r1");
        let conn = rig.confirmed("r1", "idle", "");
        rig.pass(5_000);
        let waits = rig.ask(command(1, Action::Config, "T"));
        let seen = act(&mut rig, conn, &waits.request("get_state"));
        match seen.refusal() {
            Refusal::RefreshFailed { timeout, view, command: true } => {
                assert_eq!((*timeout, view.connected), (expect_timeout, connected));
                assert!(view.error.is_some() && !view.synced);
            }
            other => panic!("{other:?}"),
        }
        assert!(!seen.actions().contains(&"config".to_string()) && seen.sent().is_empty());
    };
    check(&|rig, _, _| rig.next_deadline(), true, true);
    check(&|rig, conn, request| rig.answer(conn, request, false, "idle", ""), false, true);
    check(&|rig, conn, request| rig.answer(conn, request, true, "", ""), false, true);
    check(&|rig, conn, request| rig.answer(conn, request, true, "ready", ""), false, true);
    check(&|rig, conn, _| rig.lost(conn).1, false, false);
    check(&|rig, _, _| rig.recorder("r1").1, false, false);
}

#[test]
fn begin_needs_a_recorder_that_is_ready_for_this_very_task() {
    let mut rig = Rig::new();
    let begin = |n| command(n, Action::Begin, "T");
    assert_eq!(*rig.clear(begin(1)).refusal(), Refusal::RecorderOffline, "the uploader does not matter");
    let (conn, first) = rig.recorder("r1");
    assert_eq!(*rig.clear(begin(2)).refusal(), Refusal::StateSyncing);
    rig.answer(conn, &first.request("get_state"), true, "idle", "");
    for (at, state, task) in [(1, "idle", ""), (2, "ready", "U"), (3, "recording", "T")] {
        rig.push(conn, at, state, task);
        let expected = Refusal::NotReadyForTask {
            state: TaskState::Ready,
            recorder_state: state.to_string(),
            recorder_task: task.to_string(),
        };
        assert_eq!(*rig.clear(begin(3)).refusal(), expected);
    }
    rig.push(conn, 4, "ready", "T");
    rig.pass(1_001);
    let waits = rig.clear(begin(4));
    let seen = rig.answer(conn, &waits.request("get_state"), true, "ready", "T");
    assert_eq!(seen.actions(), ["begin"]);
    assert_eq!(seen.sent().len(), 1);
}

#[test]
fn other_commands_need_only_a_link_and_no_other_one_in_flight() {
    for action in [Action::Finish, Action::Pause, Action::Resume, Action::Cancel, Action::Clear, Action::Quit]
    {
        let mut rig = Rig::new();
        assert_eq!(*rig.clear(command(1, action, "T")).refusal(), Refusal::RecorderOffline);
        let (conn, _) = rig.recorder("r1");
        let seen = rig.clear(command(2, action, "T"));
        assert_eq!(seen.actions(), [action.name()], "also while syncing");
        let request = seen.request(action.name());
        for other in Action::ALL.into_iter().filter(|other| other.mutates()) {
            let refused = rig.clear(command(3, other, "T"));
            let expected = match other {
                Action::Config => Refusal::TransferOffline,
                Action::Begin => Refusal::StateSyncing,
                _ => Refusal::CommandInFlight(action),
            };
            assert_eq!(*refused.refusal(), expected, "{other:?} after {action:?}");
        }
        assert_eq!(rig.ask(command(4, Action::GetStats, "")).actions(), ["get_stats"]);
        rig.answer(conn, &request, false, "", "");
        assert_eq!(rig.clear(command(5, action, "T")).actions(), [action.name()], "the way is free again");
    }
}

// Commands

#[test]
fn each_action_carries_the_parameters_devices_expect() {
    let check = |action: Action, task: &str, params: Value, expected: Option<Value>| {
        let mut rig = Rig::new();
        rig.transfer("r1");
        let (state, own) = match action {
            Action::Begin => ("ready", "T.2"),
            Action::Config => ("idle", ""),
            _ => ("recording", "T.2"),
        };
        rig.confirmed("r1", state, own);
        let command = Command { params: Some(params.to_string()), ..command(1, action, task) };
        let seen =
            if action == Action::Config || !action.mutates() { rig.ask(command) } else { rig.clear(command) };
        let (_, frame) = seen.frames().pop().expect("a frame");
        assert_eq!((frame["action"].as_str(), frame.get("params")), (Some(action.name()), expected.as_ref()));
    };
    let config = json!({"task_config": {"task_id": "T.2", "extra": [1]}});
    check(Action::Config, "T.2", config.clone(), Some(config));
    check(Action::Begin, "T.2", json!({"task_id": "T"}), Some(json!({"task_id": "T.2"})));
    check(Action::Cancel, "T.2", json!({"task_id": "T", "x": 1}), Some(json!({"task_id": "T.2", "x": 1})));
    check(Action::Cancel, "", json!({}), None);
    check(Action::Finish, "T.2", json!({"task_id": "T.2"}), Some(json!({"task_id": "T.2"})));
    check(Action::Finish, "", json!({}), Some(json!({"task_id": "T.2"})));
    for action in [Action::Clear, Action::Pause, Action::Resume, Action::Quit, Action::GetStats] {
        check(action, "T.2", json!({"task_id": "T.2"}), None);
    }
}

#[test]
fn a_finish_without_a_task_is_told_on_with_the_recorders_own() {
    let mut rig = Rig::new();
    let conn = rig.confirmed("r1", "recording", "T");
    let seen = rig.clear(Command { params: None, ..command(1, Action::Finish, "") });
    assert_eq!(seen.sent()[0].task, text("T"));
    let seen = rig.answer(conn, &seen.request("finish"), true, "idle", "T");
    assert_eq!(seen.reports(), [(Reported::Idle, None)]);
    assert_eq!(rig.view("r1").task, "", "an idle answer drops the task");
    let seen = rig.clear(Command { params: None, ..command(2, Action::Finish, "") });
    assert_eq!(seen.frames()[0].1.get("params"), None, "there is none to fill in");
}

#[test]
fn the_secret_of_a_config_goes_with_its_frame() {
    let mut rig = Rig::new();
    rig.transfer("r1");
    rig.confirmed("r1", "idle", "");
    let token = Some(SecretRef { handle: 9, sha256: crate::digest::Sha256::of(b"jwt") });
    let seen = rig.ask(Command { token, ..command(1, Action::Config, "T") });
    let frame = seen.effects.iter().find_map(|effect| match effect {
        Effect::Send { frame, .. } => Some(frame),
        _ => None,
    });
    let frame = frame.expect("a frame");
    assert_eq!(frame.secret, token);
    assert!(frame.text.contains("\"tidegate-secret:9\"") && frame.text.ends_with("}\n"));
}

#[test]
fn an_answer_ends_the_command_before_it_is_passed_on_whatever_it_says() {
    let mut rig = Rig::new();
    rig.transfer("r1");
    let conn = rig.confirmed("r1", "idle", "");
    let seen = rig.ask(command(1, Action::Config, "T"));
    let request = seen.request("config");
    let no = rig.answer(conn, &request, false, "recording", "X");
    assert_eq!(no.ends(), [(Action::Config, CallEnd::Refused)]);
    let expected = Response::Rpc {
        request_id: request.clone(),
        success: false,
        message: text("no"),
        data: text(r#"{"state":"recording"}"#),
    };
    assert_eq!(*no.reply(), expected);
    assert_eq!((no.reports(), rig.view("r1").state.as_str()), (Vec::new(), "idle"), "a refusal is no report");

    let seen = rig.ask(command(2, Action::Config, "T"));
    let yes = rig.answer(conn, &seen.request("config"), true, "ready", "");
    assert_eq!(yes.ends(), [(Action::Config, CallEnd::Done)]);
    assert_eq!(yes.reports(), [(Reported::Ready, text("T"))], "the task comes from the request");
    assert!(matches!(yes.facts[0], Fact::CommandEnded { .. }));
    let view = rig.view("r1");
    assert_eq!((view.state.as_str(), view.source.as_str()), ("ready", "rpc_response:config"));
    assert!(rig.answer(conn, &request, true, "idle", "").is_silent(), "a repeated answer finds nothing");
    assert_eq!(rig.hub.unmatched(), 1);
}

#[test]
fn pause_and_resume_keep_the_task_they_do_not_name() {
    let mut rig = Rig::new();
    let conn = rig.confirmed("r1", "recording", "T");
    for (action, state) in [(Action::Pause, "paused"), (Action::Resume, "recording")] {
        let seen = rig.clear(Command { task: None, ..command(1, action, "") });
        let seen = rig.answer(conn, &seen.request(action.name()), true, state, "");
        assert_eq!(seen.reports(), [(Reported::of(state), text("T"))]);
    }
    let seen = rig.clear(command(2, Action::Pause, ""));
    rig.answer(conn, &seen.request("pause"), true, "idle", "");
    assert_eq!(rig.view("r1").task, "");
}

#[test]
fn the_task_a_caller_had_in_mind_is_not_what_the_device_records() {
    // Recorders answer `quit` at once, while they still record; they never hear which task the caller meant.
    for (action, held, state) in [
        (Action::Quit, "recording", "recording"),
        (Action::Pause, "recording", "paused"),
        // What is known to hold another task is not told to drop it.
        (Action::Cancel, "idle", "recording"),
    ] {
        let mut rig = Rig::new();
        let conn = rig.confirmed("r1", held, "T");
        let seen = rig.clear(command(1, action, "another"));
        let seen = rig.answer(conn, &seen.request(action.name()), true, state, "");
        for (_, task) in seen.reports() {
            assert_ne!(task.as_deref(), Some("another"), "{action:?}");
        }
    }
}

#[test]
fn an_answer_without_a_state_leaves_the_state_alone() {
    let mut rig = Rig::new();
    let conn = rig.confirmed("r1", "recording", "T");
    let seen = rig.clear(command(1, Action::Pause, ""));
    let seen = rig.answer(conn, &seen.request("pause"), true, "", "");
    assert_eq!((seen.views().len(), seen.reports()), (0, Vec::new()));
    assert!(rig.view("r1").synced);
}

#[test]
fn a_command_without_an_answer_is_unknown_and_the_recorder_is_asked() {
    let mut rig = Rig::new();
    let conn = rig.confirmed("r1", "recording", "T");
    let sent = rig.clear(command(1, Action::Pause, "T"));
    let seen = rig.next_deadline();
    assert_eq!(seen.ends(), [(Action::Pause, CallEnd::Unknown)]);
    match seen.effects.as_slice() {
        [
            Effect::Publish(Notice::Timeout {
                action: Action::Pause,
                budget_ms: 15_000,
                elapsed_ms: 15_000,
                ..
            }),
            Effect::Reply { to: RequestId(1), answer: Err(Refusal::RpcTimeout(Action::Pause)) },
            Effect::Publish(Notice::Recorder(view)),
            Effect::Publish(Notice::OperationUnknown { action: Action::Pause, task, .. }),
            Effect::Send { .. },
        ] => {
            assert_eq!((view.source.as_str(), view.confidence), ("rpc_timeout:pause", "stale"));
            assert_eq!((view.state.as_str(), task.as_deref()), ("recording", Some("T")));
        }
        other => panic!("{other:#?}"),
    }
    let late = rig.answer(conn, &sent.request("pause"), true, "paused", "");
    assert!(late.is_silent(), "a late answer has no effect");
    rig.push(conn, 10, "recording", "T");
    assert!(!rig.view("r1").synced, "a push may be from before the command");
    let told = rig.answer(conn, &seen.request("get_state"), true, "paused", "T");
    assert_eq!(told.reports(), [(Reported::Paused, text("T"))]);
    assert_eq!(rig.timers.len(), 0);
}

#[test]
fn counters_that_are_not_answered_shake_nothing() {
    let mut rig = Rig::new();
    assert_eq!(*rig.ask(command(1, Action::GetStats, "")).refusal(), Refusal::RecorderOffline);
    let conn = rig.confirmed("r1", "recording", "T");
    rig.ask(command(2, Action::GetStats, ""));
    let seen = rig.next_deadline();
    assert_eq!(*seen.refusal(), Refusal::RpcTimeout(Action::GetStats));
    assert!(seen.views().is_empty() && seen.frames().is_empty());
    assert!(rig.view("r1").synced);
    let sent = rig.ask(command(3, Action::GetStats, ""));
    let seen = rig.answer(conn, &sent.request("get_stats"), true, "idle", "");
    assert_eq!(seen.ends(), [(Action::GetStats, CallEnd::Done)]);
    assert_eq!(rig.view("r1").state, "recording", "counters are no report of the state");
}

#[test]
fn calls_are_bounded_and_slots_are_kept_for_get_state_and_for_what_changes_the_device() {
    for action in [Action::Finish, Action::Pause, Action::Resume, Action::Cancel, Action::Quit] {
        let mut rig = Rig::new();
        rig.confirmed("r1", "recording", "T");
        for n in 2..limits::CALLS_PER_LINK {
            rig.ask(command(n as u64, Action::GetStats, ""));
        }
        assert_eq!(rig.clear(command(99, action, "")).actions(), [action.name()], "always");
        assert_eq!(*rig.ask(command(99, Action::GetStats, "")).refusal(), Refusal::TooManyCalls);
    }
    let mut rig = Rig::new();
    let conn = rig.confirmed("r1", "idle", "");
    for n in 2..limits::CALLS_PER_LINK {
        assert_eq!(rig.ask(command(n as u64, Action::GetStats, "")).actions(), ["get_stats"]);
    }
    assert_eq!(*rig.ask(command(99, Action::GetStats, "")).refusal(), Refusal::TooManyCalls);
    assert_eq!(rig.clear(command(97, Action::Pause, "")).actions(), ["pause"]);
    rig.pass(2_000);
    let asked = rig.refresh(100, "r1", 1_000);
    for n in 101..100 + limits::WAITERS_PER_LINK as u64 {
        assert!(rig.refresh(n, "r1", 1_000).is_silent());
    }
    assert_eq!(*rig.refresh(999, "r1", 1_000).refusal(), Refusal::TooManyCalls);
    assert_eq!(*rig.ask(command(998, Action::GetState, "")).refusal(), Refusal::TooManyCalls);
    let seen = rig.answer(conn, &asked.request("get_state"), true, "idle", "");
    assert_eq!(seen.replies().len(), limits::WAITERS_PER_LINK);
    assert_eq!(rig.next_deadline().replies().len(), limits::CALLS_PER_LINK - 1);
}

#[test]
fn get_state_as_a_command_joins_the_question_and_is_answered_like_any_command() {
    let mut rig = Rig::new();
    let (conn, first) = rig.recorder("r1");
    let request = first.request("get_state");
    let seen = rig.ask(command(1, Action::GetState, ""));
    assert_eq!((seen.frames().len(), seen.sent().len()), (0, 1));
    let seen = rig.answer(conn, &request, true, "idle", "");
    assert!(
        matches!(seen.reply(), Response::Rpc { request_id, success: true, .. } if *request_id == request)
    );
    assert_eq!(seen.ends(), [(Action::GetState, CallEnd::Done)]);
    rig.ask(command(2, Action::GetState, ""));
    assert_eq!(*rig.next_deadline().refusal(), Refusal::RpcTimeout(Action::GetState));
}

#[test]
fn parameters_that_are_no_object_are_refused_before_anything_is_sent() {
    let mut rig = Rig::new();
    rig.confirmed("r1", "recording", "T");
    let seen = rig.clear(Command { params: text("[1]"), ..command(1, Action::Finish, "T") });
    assert!(matches!(seen.refusal(), Refusal::BadField { field: "params", .. }));
    assert!(seen.frames().is_empty() && seen.facts.is_empty());
}

#[test]
fn a_command_nobody_waits_for_is_sent_and_told_to_the_tasks_alone() {
    let mut rig = Rig::new();
    let conn = rig.confirmed("r1", "recording", "T");
    let sent = rig.clear(Command { reply: None, ..command(1, Action::Cancel, "T") });
    assert_eq!(sent.sent().len(), 1);
    let seen = rig.answer(conn, &sent.request("cancel"), true, "idle", "");
    assert_eq!((seen.replies().len(), seen.ends()), (0, alloc::vec![(Action::Cancel, CallEnd::Done)]));
}

#[test]
fn what_drops_the_recording_of_one_task_is_not_sent_for_another() {
    // Recorders ignore which task `cancel` and `clear` name: they drop what they hold.
    let refused = |state: &str| Refusal::HoldsAnother { state: state.to_string(), task: "B".to_string() };
    for state in ["recording", "paused", "ready"] {
        for action in [Action::Cancel, Action::Clear] {
            let mut rig = Rig::new();
            let (conn, first) = rig.recorder("r1");
            rig.push(conn, 10, state, "B");
            let seen = rig.clear(command(1, action, "A"));
            assert_eq!(*seen.refusal(), refused(state), "unconfirmed: {action:?}");
            rig.answer(conn, &first.request("get_state"), true, state, "B");
            let seen = rig.clear(command(2, action, "A"));
            assert_eq!(*seen.refusal(), refused(state), "{action:?}");
            assert!(seen.frames().is_empty() && seen.facts.is_empty());
            // Whoever names it, or nothing, is obeyed.
            for named in ["B", ""] {
                let sent = rig.clear(command(3, action, named));
                assert_eq!(sent.actions(), [action.name()], "{named:?}");
                rig.answer(conn, &sent.request(action.name()), false, state, "B");
            }
        }
    }
    // Also what is recorded under a name that none of our tasks can have is somebody's.
    let mut rig = Rig::new();
    let (conn, first) = rig.recorder("r1");
    let seen = rig.answer(conn, &first.request("get_state"), true, "recording", "take 1");
    let said = |fact: &Fact| match fact {
        Fact::RecorderReported { report, .. } => Some((report.task.clone(), report.said.clone())),
        _ => None,
    };
    assert_eq!(seen.facts.iter().find_map(said), Some((None, "take 1".to_string())));
    assert!(matches!(rig.clear(command(1, Action::Cancel, "A")).refusal(), Refusal::HoldsAnother { .. }));
    assert_eq!(rig.clear(command(2, Action::Cancel, "take 1")).actions(), ["cancel"]);
    // One that holds nothing, or does not say what, is told.
    for state in ["idle", "maintenance"] {
        let mut rig = Rig::new();
        rig.confirmed("r1", state, "B");
        assert_eq!(rig.clear(command(1, Action::Cancel, "A")).actions(), ["cancel"], "{state}");
    }
    // What a command may have begun counts as held, though nobody knows: here `begin` was not answered.
    let mut rig = Rig::new();
    rig.confirmed("r1", "ready", "B");
    rig.clear(command(1, Action::Begin, "B"));
    rig.next_deadline();
    assert_eq!(*rig.clear(command(2, Action::Cancel, "A")).refusal(), refused("ready"));
    assert_eq!(rig.clear(command(3, Action::Cancel, "")).actions(), ["cancel"]);
}

#[test]
fn a_cancel_that_names_no_task_is_about_the_one_that_the_recorder_holds() {
    let mut rig = Rig::new();
    let conn = rig.confirmed("r1", "recording", "T");
    let sent = rig.clear(command(1, Action::Cancel, ""));
    assert_eq!(sent.sent()[0].task, text("T"), "the tasks hear which");
    assert!(sent.frames()[0].1["params"]["task_id"].is_null(), "the recorder knows: {:?}", sent.frames());
    let seen = rig.answer(conn, &sent.request("cancel"), true, "idle", "");
    assert_eq!(seen.ends(), [(Action::Cancel, CallEnd::Done)]);
    // What was told before the link was confirmed may be old news.
    let mut rig = Rig::new();
    let (conn, _) = rig.recorder("r1");
    rig.push(conn, 10, "recording", "T");
    assert_eq!(rig.clear(command(1, Action::Cancel, "")).sent()[0].task, None);
}

#[test]
fn the_records_of_tasks_that_commands_name_are_asked_for_before_they_end() {
    let mut rig = Rig::new();
    let conn = rig.confirmed("r1", "recording", "T");
    let lost = Input::Lost { conn, why: LostWhy::Closed };
    assert_eq!(rig.names(&lost), ["T"]);
    assert!(rig.names(&Input::Wake).is_empty(), "nothing can time out");
    rig.clear(command(1, Action::Finish, "U"));
    rig.pass(2_000);
    rig.push(conn, 10, "ready", "T");
    rig.pass(2_000);
    rig.clear(command(2, Action::Begin, "V"));
    for input in [lost, Input::Shutdown] {
        let named: BTreeSet<&str> = rig.names(&input).into_iter().collect();
        assert_eq!(named, BTreeSet::from(["T", "U", "V"]), "{}", input.name());
    }
    assert!(rig.names(&Input::Wake).is_empty(), "nothing has timed out yet");
    rig.pass(15_000);
    let named: BTreeSet<&str> = rig.names(&Input::Wake).into_iter().collect();
    assert_eq!(named, BTreeSet::from(["T", "U", "V"]), "what may end now, and what the recorder names");
    let due: Vec<TimerKey> = rig.timers.due(rig.now.mono).cloned().collect();
    for key in due {
        let input = Input::Quarantined { subject: Subject::Timer(key), reason: String::new() };
        assert!(rig.names(&input).contains(&"U"), "{input:?}");
    }
    let gone = Input::Lost { conn: ConnId { boot: Boot(3), n: 99 }, why: LostWhy::Closed };
    assert!(rig.names(&gone).is_empty());
}

// Refreshing

#[test]
fn the_state_of_an_absent_recorder_is_answered_at_once() {
    let mut rig = Rig::new();
    let seen = rig.refresh(1, "r1", 1_000);
    let view = state_of(seen.reply());
    assert_eq!((view.state.as_str(), view.source.as_str(), view.version), ("unknown", "disconnected", 0));
    assert!(!view.connected && !view.synced && !view.fresh);
    assert_eq!(view.updated_at, rig.now.wall);
}

#[test]
fn a_young_confirmed_state_is_answered_without_asking_and_an_old_one_is_asked_for_once() {
    let mut rig = Rig::new();
    let conn = rig.confirmed("r1", "recording", "T");
    rig.pass(900);
    let seen = rig.refresh(1, "r1", 1_000);
    let view = state_of(seen.reply());
    assert_eq!((view.fresh, view.age_ms, view.task.as_str()), (true, 900, "T"));
    assert!(seen.frames().is_empty());

    let asked = rig.refresh(2, "r1", 500);
    assert!(rig.refresh(3, "r1", 500).is_silent());
    let seen = rig.answer(conn, &asked.request("get_state"), true, "paused", "T");
    assert_eq!(seen.replies().len(), 2);
    for (_, answer) in seen.replies() {
        let view = state_of(answer.as_ref().expect("told"));
        assert_eq!((view.state.as_str(), view.fresh, view.age_ms), ("paused", true, 0));
    }
}

#[test]
fn a_refresh_that_fails_says_how() {
    let check = |act: &dyn Fn(&mut Rig, ConnId, &str) -> Seen, expected: bool| {
        let mut rig = Rig::new();
        let conn = rig.confirmed("r1", "idle", "");
        rig.pass(2_000);
        let asked = rig.refresh(1, "r1", 1_000);
        let seen = act(&mut rig, conn, &asked.request("get_state"));
        match seen.refusal() {
            Refusal::RefreshFailed { timeout, view, command: false } => {
                assert_eq!((*timeout, view.state.as_str(), view.fresh), (expected, "idle", false));
            }
            other => panic!("{other:?}"),
        }
    };
    check(&|rig, _, _| rig.next_deadline(), true);
    check(&|rig, conn, request| rig.answer(conn, request, false, "", ""), false);
    check(&|rig, conn, request| rig.answer(conn, request, true, "", ""), false);

    let mut rig = Rig::new();
    let (conn, _) = rig.recorder("r1");
    rig.refresh(1, "r1", 1_000);
    let (_, seen) = rig.lost(conn);
    assert!(!state_of(seen.reply()).connected, "a lost link is an answer, not an error");
}

// Uploaders

#[test]
fn uploaders_get_their_frames_as_they_always_did() {
    let mut rig = Rig::new();
    let request = TransferFrame::UploadRequest { task: WireId::new("T").expect("legal"), priority: 1 };
    let ack = TransferFrame::UploadAck { task: WireId::new("T").expect("legal") };
    let send = |rig: &mut Rig, frame: &TransferFrame| {
        let device = id("r1");
        let seen = rig.step(|hub, cx| hub.on_transfer_frame(cx, &device, frame));
        seen.effects
            .into_iter()
            .map(|effect| match effect {
                Effect::Send { frame, .. } => frame.text,
                other => panic!("{other:?}"),
            })
            .collect::<Vec<_>>()
    };
    assert!(send(&mut rig, &request).is_empty(), "nobody is there");
    let conn = rig.transfer("r1");
    assert_eq!(
        send(&mut rig, &request),
        ["{\"priority\":1,\"task_id\":\"T\",\"type\":\"upload_request\"}\n"]
    );
    assert_eq!(send(&mut rig, &ack), ["{\"task_id\":\"T\",\"type\":\"upload_ack\"}\n"]);

    let query = ["{\"type\":\"status_query\"}\n"];
    assert_eq!(send(&mut rig, &TransferFrame::StatusQuery), query);
    assert!(send(&mut rig, &TransferFrame::StatusQuery).is_empty(), "one is out");
    let tell = |rig: &mut Rig, status: Status| {
        let message = TransferMessage::Status(status);
        rig.step(|hub, cx| hub.on_transfer(cx, conn, &message))
    };
    tell(&mut rig, Status::default());
    assert!(send(&mut rig, &TransferFrame::StatusQuery).is_empty(), "the short form is no answer");
    let seen = tell(&mut rig, Status { uploads: Some(Vec::new()), ..Status::default() });
    assert!(matches!(seen.facts.as_slice(), [Fact::TransferSaid { .. }]));
    assert!(matches!(seen.effects.as_slice(), [Effect::Publish(Notice::Transfer { .. })]));
    assert_eq!(send(&mut rig, &TransferFrame::StatusQuery), query);
    rig.pass(599_999);
    assert!(send(&mut rig, &TransferFrame::StatusQuery).is_empty(), "it may read a file all the time");
    tell(&mut rig, Status::default());
    assert_eq!(send(&mut rig, &TransferFrame::StatusQuery), query, "the answer was garbage");
    rig.pass(59_999);
    tell(&mut rig, Status::default());
    assert!(send(&mut rig, &TransferFrame::StatusQuery).is_empty(), "that may be from before the question");
    rig.pass(540_001);
    assert_eq!(send(&mut rig, &TransferFrame::StatusQuery), query, "nobody reads for so long");
}

// Stopping

#[test]
fn a_stop_answers_everybody_closes_every_link_and_lets_nobody_in() {
    let mut rig = Rig::new();
    rig.transfer("r1");
    rig.confirmed("r1", "idle", "");
    rig.ask(command(1, Action::GetStats, ""));
    rig.pass(2_000);
    rig.ask(command(2, Action::Config, "T"));
    rig.refresh(3, "r1", 1_000);
    rig.stopping = true;
    let seen = rig.step(|hub, cx| hub.on_shutdown(cx));
    let refusals: BTreeMap<u64, Refusal> =
        seen.replies().into_iter().map(|(to, answer)| (to, answer.clone().expect_err("refused"))).collect();
    let expected =
        [(1, Refusal::LinkLost { action: Action::GetStats }), (2, Refusal::Stopping), (3, Refusal::Stopping)];
    assert_eq!(refusals, BTreeMap::from(expected));
    assert_eq!(seen.ends(), [(Action::GetStats, CallEnd::Unknown)]);
    let closed = |e: &&Effect| matches!(e, Effect::Close { why: CloseWhy::GoingAway, .. });
    assert_eq!(seen.effects.iter().filter(closed).count(), 2);
    assert_eq!(rig.timers.len(), 0);
    let (conn, seen) = rig.knock("r2", Role::Recorder);
    assert_eq!(conn, None);
    assert!(matches!(seen.effects.as_slice(), [Effect::TurnAway { refusal: Refusal::Stopping, .. }]));
    assert_eq!(*rig.clear(command(4, Action::Pause, "")).refusal(), Refusal::Stopping);
}

// Anything in any order

#[derive(Clone, Debug)]
enum Act {
    Knock(usize, bool),
    Lose(usize),
    Push(usize, i64, usize, bool),
    Answer(usize, bool, usize, bool),
    Command(usize, usize),
    Refresh(usize),
    Pass(u64),
}

const STATES: [&str; 6] = ["idle", "ready", "recording", "paused", "maintenance", ""];

fn acts() -> impl Strategy<Value = Act> {
    prop_oneof![
        2 => (0..2_usize, any::<bool>()).prop_map(|(d, r)| Act::Knock(d, r)),
        1 => (0..12_usize).prop_map(Act::Lose),
        5 => (0..4_usize, 0..50_i64, 0..STATES.len(), any::<bool>()).prop_map(|(c, t, s, k)| Act::Push(c, t, s, k)),
        8 => (0..4_usize, any::<bool>(), 0..STATES.len(), any::<bool>()).prop_map(|(f, o, s, k)| Act::Answer(f, o, s, k)),
        6 => (0..2_usize, 0..Action::ALL.len()).prop_map(|(d, a)| Act::Command(d, a)),
        2 => (0..2_usize).prop_map(Act::Refresh),
        4 => (0..20_000_u64).prop_map(Act::Pass),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Every request is answered once, every command sent ends once, `config` and `begin` leave only by the rules of
    /// a model that sees frames alone, and a link is never used after it was replaced, lost or closed.
    #[test]
    fn every_request_is_answered_once_and_every_call_ends_once(acts in proptest::collection::vec(acts(), 1..120)) {
        let mut rig = Rig::new();
        let devices = ["r1", "r2"];
        let (mut asked, mut answered) = (0_u64, BTreeMap::<u64, u32>::new());
        let (mut sent, mut ended) = (0_u32, 0_u32);
        let mut conns: Vec<ConnId> = Vec::new();
        let mut frames: Vec<(ConnId, String)> = Vec::new();
        // What the model knows of a link: the devices' requests of `get_state`, and whether one was answered.
        let mut told: BTreeMap<ConnId, bool> = BTreeMap::new();
        let mut failed: BTreeSet<ConnId> = BTreeSet::new();
        // Links whose recorder said idle, having been idle.
        let mut greeted: BTreeSet<ConnId> = BTreeSet::new();
        for act in acts {
            let mut answers_state = None;
            let may_fail = matches!(act, Act::Answer(_, false, ..) | Act::Pass(_));
            let seen = match act {
                Act::Knock(d, recorder) => {
                    let (conn, seen) = rig.knock(devices[d], if recorder { Role::Recorder } else { Role::Transfer });
                    let Some(conn) = conn else {
                        let fought = matches!(
                            seen.effects.as_slice(),
                            [Effect::TurnAway { refusal: Refusal::Contested { .. }, .. }]
                        );
                        prop_assert!(fought, "far from the limit");
                        continue;
                    };
                    prop_assert!(conns.last().is_none_or(|last| *last < conn), "I02");
                    conns.push(conn);
                    seen
                }
                Act::Lose(n) => match conns.get(n) {
                    Some(conn) => rig.lost(*conn).1,
                    None => Seen::default(),
                },
                Act::Push(back, at, state, task) => {
                    let Some(conn) = conns.iter().rev().nth(back).copied() else { continue };
                    if STATES[state] == "idle" {
                        greeted.insert(conn);
                    }
                    rig.push(conn, at, STATES[state], if task { "T" } else { "" })
                }
                Act::Answer(back, ok, state, task) => {
                    let Some((conn, request)) = frames.iter().rev().nth(back).cloned() else { continue };
                    answers_state = Some(conn);
                    rig.answer(conn, &request, ok, STATES[state], if task { "T" } else { "" })
                }
                Act::Command(d, a) => {
                    asked += 1;
                    let command = Command { device: id(devices[d]), ..command(asked, Action::ALL[a], "T") };
                    match command.action {
                        Action::Config | Action::GetState | Action::GetStats => rig.ask(command),
                        _ => rig.clear(command),
                    }
                }
                Act::Refresh(d) => {
                    asked += 1;
                    rig.refresh(asked, devices[d], 1_000)
                }
                Act::Pass(ms) => {
                    rig.pass(ms);
                    rig.wake()
                }
            };
            for view in seen.views() {
                let conn = conns.iter().find(|conn| conn.generation() == view.generation);
                if let (Some(conn), true) = (conn, view.synced) {
                    let first = !told.get(conn).copied().unwrap_or(false);
                    let by_answer = answers_state == Some(*conn) && view.source == "get_state";
                    let by_greeting = may_fail && greeted.contains(conn);
                    prop_assert!(!first || by_answer || by_greeting || failed.contains(conn), "I04: {view:?}");
                    prop_assert!(!view.state.is_empty(), "I05: {view:?}");
                    told.insert(*conn, true);
                }
                if let (Some(conn), "stale") = (conn, view.confidence) {
                    failed.insert(*conn);
                }
            }
            for (conn, frame) in seen.frames() {
                prop_assert!(rig.hub.lines.contains_key(&conn), "a frame for a dead link: {frame}");
                let action = frame["action"].as_str().unwrap_or("").to_string();
                if action == "config" || action == "begin" {
                    prop_assert!(told.get(&conn) == Some(&true), "I06: {action} to an unconfirmed recorder");
                }
                frames.push((conn, frame["request_id"].as_str().unwrap_or("").to_string()));
            }
            for (to, _) in seen.replies() {
                *answered.entry(to).or_default() += 1;
            }
            sent += seen.sent().len() as u32;
            ended += seen.ends().len() as u32;
        }
        rig.stopping = true;
        let seen = rig.step(|hub, cx| hub.on_shutdown(cx));
        for (to, _) in seen.replies() {
            *answered.entry(to).or_default() += 1;
        }
        ended += seen.ends().len() as u32;
        let expected: BTreeMap<u64, u32> = (1..=asked).map(|to| (to, 1)).collect();
        prop_assert_eq!(answered, expected, "each request is answered exactly once");
        prop_assert_eq!(sent, ended, "I07: each command that was sent ended exactly once");
    }
}
