//! Who gets in by what, what goes when a token does, and what survives a restart: on a whole machine, without tasks.

use super::*;
use crate::change::TaskChange;
use crate::effect::{CloseWhy, Notice, Output};
use crate::id::{Boot, ConnId, TaskId};
use crate::input::{Action, Command, Input, LostWhy, Request};
use crate::knobs::Knobs;
use crate::machine::{Machine, Rows};
use crate::policy::{Builtin, Settings};
use crate::row::{RecordingFacts, TaskState};
use crate::time::{Now, Wall};
use std::collections::{BTreeMap, BTreeSet};
use std::vec;

struct Site {
    machine: Machine,
    rows: BTreeMap<Key, Row>,
    now: Now,
    boot: u64,
    knobs: Knobs,
    number: u64,
}

fn hash(text: &str) -> Sha256 {
    Sha256::of(text.as_bytes())
}

fn id(text: &str) -> DeviceId {
    DeviceId::new(text).expect("legal")
}

impl Site {
    fn new() -> Site {
        let mut site = Site {
            machine: Machine::new(),
            rows: BTreeMap::new(),
            now: Now { wall: Wall(1_795_000_000_000), mono: Mono(0) },
            boot: 0,
            knobs: Knobs::default(),
            number: 0,
        };
        site.restart();
        site
    }

    fn restart(&mut self) -> Vec<Effect> {
        self.machine = Machine::new();
        for (key, row) in self.rows.iter().filter(|(_, row)| Machine::is_hot(row)) {
            self.machine.load(key, row.clone());
        }
        self.boot += 1;
        let input = Input::Boot { boot: Boot(self.boot), seed: 7, knobs: self.knobs.clone() };
        self.step(&input)
    }

    fn pass(&mut self, ms: u64) {
        self.now.mono = self.now.mono.after(Duration::from_millis(ms));
        self.now.wall = self.now.wall.after(Duration::from_millis(ms));
    }

    fn step(&mut self, input: &Input) -> Vec<Effect> {
        let mut cold = Rows::new();
        let mut keys = BTreeSet::new();
        self.machine.wants(self.now, input, &cold, &mut keys);
        for key in keys {
            let row = self.rows.get(&key).cloned();
            cold.insert(key, row);
        }
        let mut out = Output::default();
        let mut policies = Builtin::new(Settings::default());
        self.machine.step(self.now, input, &cold, &mut policies, &mut out);
        self.machine.check().expect("invariants hold after every step");
        // The changes alone lead to the same records.
        let mut replay = Machine::new();
        for (key, row) in self.rows.iter().filter(|(_, row)| Machine::is_hot(row)) {
            replay.load(key, row.clone());
        }
        for change in &out.changes {
            replay.apply(change).expect("what was decided is legal");
        }
        for (key, row) in out.rows {
            assert_eq!(replay.row(&key), row, "{key:?}");
            match row {
                Some(row) => self.rows.insert(key, row),
                None => self.rows.remove(&key),
            };
        }
        out.effects
    }

    fn ask(&mut self, request: Request) -> (Result<Response, Refusal>, Vec<Effect>) {
        self.number += 1;
        let id = RequestId(self.number);
        let mut effects = self.step(&Input::Request { id, request });
        let at = effects.iter().position(|effect| matches!(effect, Effect::Reply { to, .. } if *to == id));
        let Effect::Reply { answer, .. } = effects.remove(at.expect("an answer")) else { unreachable!() };
        (answer, effects)
    }

    fn roster(&mut self, request: RosterRequest) -> (Result<Response, Refusal>, Vec<Effect>) {
        self.ask(Request::Roster(request))
    }

    fn issue(&mut self, scope: Scope, device: Option<&str>, token: &str) -> u64 {
        let request = RosterRequest::Issue { scope, device: device.map(id), name: None, token: hash(token) };
        match self.roster(request).0 {
            Ok(Response::Token(row)) => row.id,
            other => panic!("{other:?}"),
        }
    }

    fn register(
        &mut self,
        factory: &str,
        robot_type: &str,
        number: u8,
        open: bool,
    ) -> Result<DeviceRow, Refusal> {
        let request = RosterRequest::Register {
            factory: factory.into(),
            robot_type: robot_type.into(),
            recorder: Sha256([number; 32]),
            transfer: Sha256([number + 100; 32]),
            open,
        };
        match self.roster(request).0 {
            Ok(Response::Device(row)) => Ok(*row),
            Ok(other) => panic!("{other:?}"),
            Err(refusal) => Err(refusal),
        }
    }

    fn knock(
        &mut self,
        device: &str,
        role: Role,
        from: &str,
        token: Option<&str>,
        demand: Demand,
    ) -> Result<ConnId, Refusal> {
        self.number += 1;
        let socket = SocketId(self.number);
        let effects = self.step(&Input::Knock {
            socket,
            device: id(device),
            role,
            remote: from.into(),
            credential: token.map(hash),
            port: Some(40_000),
            demand,
        });
        let decided = effects.into_iter().find_map(|effect| match effect {
            Effect::Admit { conn, .. } => Some(Ok(conn)),
            Effect::TurnAway { refusal, .. } => Some(Err(refusal)),
            _ => None,
        });
        decided.expect("every knock is decided")
    }
}

fn closed(effects: &[Effect]) -> Vec<(ConnId, CloseWhy)> {
    let closed = effects.iter().filter_map(|effect| match effect {
        Effect::Close { conn, why } => Some((*conn, *why)),
        _ => None,
    });
    closed.collect()
}

const HERE: &str = "10.0.0.7";
const NO: Refusal = Refusal::Unauthorized;

#[test]
fn a_link_is_had_by_a_token_of_the_device_for_the_program_and_by_no_other() {
    let mut site = Site::new();
    site.issue(Scope::Recorder, Some("d1"), "rec");
    site.issue(Scope::Transfer, Some("d1"), "up");
    site.issue(Scope::Admin, None, "boss");
    let mut knock = |device, role, token| site.knock(device, role, HERE, token, Demand::Token);
    for (device, role, token) in [
        ("d1", Role::Recorder, None),
        ("d1", Role::Recorder, Some("made up")),
        ("d1", Role::Recorder, Some("up")),
        ("d1", Role::Recorder, Some("boss")),
        ("d2", Role::Recorder, Some("rec")),
        ("d1", Role::Transfer, None),
        ("d2", Role::Transfer, Some("up")),
    ] {
        assert_eq!(knock(device, role, token), Err(NO), "{device} {role:?} {token:?}");
    }
    assert!(knock("d1", Role::Recorder, Some("rec")).is_ok());
    assert!(knock("d1", Role::Transfer, Some("up")).is_ok());
    assert!(knock("d1", Role::Transfer, Some("rec")).is_ok(), "who may record may upload");
}

#[test]
fn where_nothing_is_demanded_everybody_gets_in_and_a_token_still_ties_its_link() {
    let mut site = Site::new();
    let token = site.issue(Scope::Recorder, Some("d1"), "rec");
    let mut knock = |token| site.knock("d1", Role::Recorder, HERE, token, Demand::Nothing);
    assert!(knock(None).is_ok());
    assert!(knock(Some("made up")).is_ok());
    let conn = knock(Some("rec")).expect("it fits");
    let (_, effects) = site.roster(RosterRequest::Revoke { id: token });
    assert_eq!(closed(&effects), [(conn, CloseWhy::Revoked)]);
}

#[test]
fn an_uploader_may_come_from_where_its_recorder_proved_itself_and_for_a_while_after() {
    let mut site = Site::new();
    site.knobs.bound_keep_ms = 5_000;
    site.restart();
    site.issue(Scope::Recorder, Some("d1"), "rec");
    let demand = Demand::TokenOrAddress;
    let up = |site: &mut Site, from, token| site.knock("d1", Role::Transfer, from, token, demand);
    assert_eq!(up(&mut site, HERE, None), Err(NO), "nobody proved anything yet");
    let recorder = site.knock("d1", Role::Recorder, HERE, Some("rec"), Demand::Token).expect("it fits");
    assert!(up(&mut site, HERE, None).is_ok());
    assert_eq!(up(&mut site, "10.0.0.8", None), Err(NO), "another place");
    assert_eq!(up(&mut site, HERE, Some("made up")), Err(NO), "who sends a token is judged by it");
    assert_eq!(site.knock("d2", Role::Transfer, HERE, None, demand), Err(NO), "another device");
    assert_eq!(site.knock("d1", Role::Recorder, HERE, None, demand), Err(NO), "recorders can send a token");
    assert_eq!(site.knock("d1", Role::Transfer, HERE, None, Demand::Token), Err(NO));
    site.pass(60_000);
    assert!(up(&mut site, HERE, None).is_ok(), "the recorder is still there");
    site.step(&Input::Lost { conn: recorder, why: LostWhy::Broken });
    site.pass(4_999);
    assert!(up(&mut site, HERE, None).is_ok());
    site.pass(1);
    assert_eq!(up(&mut site, HERE, None), Err(NO));
    site.restart();
    assert_eq!(up(&mut site, HERE, None), Err(NO), "no address outlives the process");
}

#[test]
fn revoking_a_recorders_token_closes_its_links_answers_who_waits_and_forgets_its_address() {
    let mut site = Site::new();
    let token = site.issue(Scope::Recorder, Some("d1"), "rec");
    let own = site.issue(Scope::Transfer, Some("d1"), "up");
    let recorder = site.knock("d1", Role::Recorder, HERE, Some("rec"), Demand::Token).expect("it fits");
    let uploader = site.knock("d1", Role::Transfer, HERE, None, Demand::TokenOrAddress).expect("it is near");
    let other = site.issue(Scope::Recorder, Some("d2"), "other");
    let bystander = site.knock("d2", Role::Recorder, HERE, Some("other"), Demand::Token).expect("it fits");
    let command = Command {
        device: id("d1"),
        action: Action::GetStats,
        task: None,
        params: None,
        token: None,
        reply: None,
        task_state: None,
    };
    site.number += 1;
    let waiting = RequestId(site.number);
    site.step(&Input::Request { id: waiting, request: Request::Command(command) });
    let (answer, effects) = site.roster(RosterRequest::Revoke { id: token });
    assert!(matches!(answer, Ok(Response::Token(row)) if row.id == token));
    let both = [(recorder, CloseWhy::Revoked), (uploader, CloseWhy::Revoked)];
    assert_eq!(closed(&effects), both);
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Reply { to, answer: Err(Refusal::LinkLost { .. }) } if *to == waiting)));
    let why = effects.iter().filter_map(|effect| match effect {
        Effect::Publish(Notice::Link { link: None, why, .. }) => *why,
        _ => None,
    });
    assert_eq!(why.collect::<Vec<_>>(), ["revoked", "revoked"]);
    assert!(site.step(&Input::Lost { conn: recorder, why: LostWhy::Closed }).is_empty(), "it was gone");
    assert_eq!(site.knock("d1", Role::Transfer, HERE, None, Demand::TokenOrAddress), Err(NO));
    assert!(site.knock("d1", Role::Transfer, HERE, Some("up"), Demand::TokenOrAddress).is_ok());
    assert_eq!(site.roster(RosterRequest::Revoke { id: token }).0, Err(Refusal::TokenNotFound(token)));
    // A token of the uploader alone ties the uploader alone.
    let (_, effects) = site.roster(RosterRequest::Revoke { id: own });
    assert_eq!(closed(&effects).len(), 1);
    let (_, effects) = site.roster(RosterRequest::Revoke { id: other });
    assert_eq!(closed(&effects), [(bystander, CloseWhy::Revoked)]);
}

#[test]
fn rotating_leaves_links_up_and_only_the_new_tokens_count() {
    let mut site = Site::new();
    site.issue(Scope::Recorder, Some("d1"), "old");
    let up = site.knock("d1", Role::Recorder, HERE, Some("old"), Demand::Token).expect("it fits");
    let (device, recorder, transfer) = (id("d1"), hash("new"), hash("new up"));
    let (answer, effects) = site.roster(RosterRequest::Rotate { device: device.clone(), recorder, transfer });
    assert!(answer.is_ok());
    assert_eq!(closed(&effects), []);
    assert_eq!(site.knock("d1", Role::Recorder, HERE, Some("old"), Demand::Token), Err(NO));
    let (_, effects) = site.roster(RosterRequest::RevokeDevice { device: device.clone() });
    assert_eq!(closed(&effects), [(up, CloseWhy::Revoked)], "an old token's link goes as well");
    assert_eq!(site.knock("d1", Role::Recorder, HERE, Some("new"), Demand::Token), Err(NO));
    // With no token left there still are new ones to be had.
    let (recorder, transfer) = (hash("newer"), hash("newer up"));
    assert!(site.roster(RosterRequest::Rotate { device, recorder, transfer }).0.is_ok());
    assert!(site.knock("d1", Role::Recorder, HERE, Some("newer"), Demand::Token).is_ok());
    let stranger = RosterRequest::Rotate { device: id("d9"), recorder: hash("a"), transfer: hash("b") };
    assert_eq!(site.roster(stranger).0, Err(Refusal::DeviceNotFound(id("d9"))));
}

#[test]
fn revoking_a_token_also_closes_what_was_proven_by_one_that_was_rotated_away() {
    let leaked = || {
        let mut site = Site::new();
        site.issue(Scope::Recorder, Some("d1"), "leaked");
        site.issue(Scope::Transfer, Some("d1"), "leaked up");
        let recorder =
            site.knock("d1", Role::Recorder, HERE, Some("leaked"), Demand::Token).expect("it fits");
        let (recorder_token, transfer) = (hash("new"), hash("new up"));
        let rotate = RosterRequest::Rotate { device: id("d1"), recorder: recorder_token, transfer };
        assert_eq!(closed(&site.roster(rotate).1), []);
        let number = |token: &str| match site.rows.get(&Key::Token(hash(token))) {
            Some(Row::Token(row)) => row.id,
            other => panic!("{other:?}"),
        };
        let numbers = (number("new"), number("new up"));
        (site, recorder, numbers)
    };
    // Whoever has it by the leaked token is thrown out with the recorder's token, and its address proves nothing.
    let (mut site, recorder, (token, _)) = leaked();
    let near = site.knock("d1", Role::Transfer, HERE, None, Demand::TokenOrAddress).expect("it is near");
    let (_, effects) = site.roster(RosterRequest::Revoke { id: token });
    assert_eq!(closed(&effects), [(recorder, CloseWhy::Revoked), (near, CloseWhy::Revoked)]);
    assert_eq!(site.knock("d1", Role::Transfer, HERE, None, Demand::TokenOrAddress), Err(NO));
    // One that came with a token that is still good stays.
    let (mut site, recorder, (token, _)) = leaked();
    let good = site.knock("d1", Role::Transfer, HERE, Some("new up"), Demand::Token).expect("it fits");
    let (_, effects) = site.roster(RosterRequest::Revoke { id: token });
    assert_eq!(closed(&effects), [(recorder, CloseWhy::Revoked)]);
    let left = site.roster(RosterRequest::Disable { device: id("d1") }).1;
    assert_eq!(closed(&left), [(good, CloseWhy::Revoked)]);
    // The uploader's token is about the uploader alone.
    let (mut site, recorder, (_, token)) = leaked();
    let (_, effects) = site.roster(RosterRequest::Revoke { id: token });
    assert_eq!(closed(&effects), []);
    let left = site.roster(RosterRequest::Disable { device: id("d1") }).1;
    assert_eq!(closed(&left), [(recorder, CloseWhy::Revoked)]);
}

#[test]
fn a_disabled_device_has_no_link_whatever_is_demanded_until_it_is_enabled() {
    let mut site = Site::new();
    site.issue(Scope::Recorder, Some("d1"), "rec");
    let conn = site.knock("d1", Role::Recorder, HERE, None, Demand::Nothing).expect("nothing is demanded");
    let device = id("d1");
    let (_, effects) = site.roster(RosterRequest::Disable { device: device.clone() });
    assert_eq!(closed(&effects), [(conn, CloseWhy::Revoked)]);
    site.restart();
    assert_eq!(site.knock("d1", Role::Recorder, HERE, Some("rec"), Demand::Nothing), Err(NO));
    let rotate = RosterRequest::Rotate { device: device.clone(), recorder: hash("a"), transfer: hash("b") };
    assert_eq!(site.roster(rotate).0, Err(Refusal::DeviceDisabled(device.clone())));
    assert!(site.roster(RosterRequest::Enable { device }).0.is_ok());
    assert!(site.knock("d1", Role::Recorder, HERE, Some("rec"), Demand::Token).is_ok());
}

#[test]
fn registration_counts_devices_of_a_factory_and_type_and_is_closed_unless_somebody_opened_it() {
    let mut site = Site::new();
    assert_eq!(site.register("f", "t", 1, false), Err(Refusal::RegistrationClosed));
    let first = site.register("f", "t", 1, true).expect("it is open");
    assert_eq!((first.id.as_str(), first.number, first.seq), ("AB-F0001-T0001-000001", 1, Some(1)));
    // Somebody took the next name by hand.
    site.issue(Scope::Recorder, Some("AB-F0001-T0001-000002"), "taken");
    site.restart();
    assert_eq!(site.register("f", "t", 2, false), Err(Refusal::RegistrationClosed));
    assert_eq!(site.roster(RosterRequest::Window { ms: 1_000 }).0, Ok(Response::Window));
    site.pass(999);
    let next = site.register("f", "t", 2, false).expect("it is open");
    assert_eq!((next.id.as_str(), next.number), ("AB-F0001-T0001-000003", 3));
    let other = site.register("f", "u", 3, false).expect("it is open");
    assert_eq!(other.id.as_str(), "AB-F0001-T0002-000001");
    let far = site.register("g", "t", 4, false).expect("it is open");
    assert_eq!(far.id.as_str(), "AB-F0002-T0001-000001");
    site.pass(1);
    assert_eq!(site.register("f", "t", 5, false), Err(Refusal::RegistrationClosed));
    let empty = site.register("", "t", 5, true);
    assert_eq!(empty, Err(Refusal::BadField { field: "factory", must: "1 to 128 bytes" }));
    let twice = site.register("f", "t", 4, true);
    assert_eq!(twice, Err(Refusal::Internal("a token was drawn twice")));
}

#[test]
fn the_edge_knows_the_tokens_of_the_api_from_the_boot_on_and_only_those() {
    let mut site = Site::new();
    site.issue(Scope::Recorder, Some("d1"), "rec");
    let request = RosterRequest::Issue {
        scope: Scope::Viewer,
        device: None,
        name: Some("wall".into()),
        token: hash("v"),
    };
    let (answer, effects) = site.roster(request);
    let Ok(Response::Token(row)) = answer else { panic!("{answer:?}") };
    let grant = Effect::Grant { token: hash("v"), scope: Scope::Viewer };
    assert!(effects.contains(&grant));
    let grants = |effects: &[Effect]| -> Vec<Effect> {
        effects
            .iter()
            .filter(|effect| matches!(effect, Effect::Grant { .. } | Effect::Bar { .. }))
            .cloned()
            .collect()
    };
    assert_eq!(grants(&site.restart()), [grant]);
    let (_, effects) = site.roster(RosterRequest::Revoke { id: row.id });
    assert_eq!(grants(&effects), [Effect::Bar { token: hash("v") }]);
    assert_eq!(grants(&site.restart()), []);
    for (scope, device) in [(Scope::Viewer, Some("d1")), (Scope::Transfer, None)] {
        let request = RosterRequest::Issue { scope, device: device.map(id), name: None, token: hash("x") };
        assert!(matches!(site.roster(request).0, Err(Refusal::BadField { field: "device_id", .. })));
    }
}

#[test]
fn the_use_of_a_token_is_noted_once_a_minute() {
    let mut site = Site::new();
    site.issue(Scope::Recorder, Some("d1"), "rec");
    let used = |site: &Site| match site.rows.get(&Key::Token(hash("rec"))) {
        Some(Row::Token(row)) => row.used_at,
        other => panic!("{other:?}"),
    };
    assert_eq!(used(&site), None);
    let mut seen = vec![];
    for _ in 0..3 {
        site.knock("d1", Role::Recorder, HERE, Some("rec"), Demand::Token).expect("it fits");
        seen.push(used(&site).expect("noted"));
        site.pass(30_000);
    }
    assert_eq!((seen[1], seen[2]), (seen[0], Wall(seen[0].0 + 60_000)));
}

#[test]
fn a_callback_needs_the_token_of_its_task_where_one_is_demanded_and_is_never_believed_with_a_wrong_one() {
    for demanded in [false, true] {
        let mut site = Site::new();
        site.knobs.callback_tokens = demanded;
        site.restart();
        let task = TaskId::new("t1").expect("legal");
        let create = Request::CreateTask { task: Some(task.clone()), device: id("d1"), config: None };
        site.ask(create).0.expect("made");
        let finish = |credential: Option<&str>| Request::CallbackFinish {
            task: "t1".into(),
            device: id("d1"),
            facts: RecordingFacts::default(),
            credential: credential.map(hash),
        };
        if demanded {
            assert_eq!(site.ask(finish(Some("tok"))).0, Err(NO), "it was never configured with one");
        }
        let sent =
            TaskChange::ConfigSent { task: task.clone(), token_sha256: Some(hash("tok")), at: site.now.wall };
        site.machine.apply(&Change::Task(sent)).expect("legal");
        let start = |credential: Option<&str>| Request::CallbackStart {
            task: "t1".into(),
            device: Some(id("d1")),
            credential: credential.map(hash),
        };
        assert_eq!(site.machine_ask(start(Some("wrong"))), Err(NO));
        assert_eq!(site.machine_ask(finish(Some("wrong"))), Err(NO));
        assert_eq!(site.machine_ask(start(None)).is_err(), demanded);
        assert!(site.machine_ask(start(Some("tok"))).is_ok());
        match site.machine_ask(finish(Some("tok"))) {
            Ok(Response::Finished { state, .. }) => assert_eq!(state, TaskState::Uploading),
            other => panic!("{other:?}"),
        }
    }
}

impl Site {
    /// As [`Site::ask`], on a machine whose memory is ahead of the records here.
    fn machine_ask(&mut self, request: Request) -> Result<Response, Refusal> {
        self.number += 1;
        let id = RequestId(self.number);
        let input = Input::Request { id, request };
        let (mut cold, mut keys) = (Rows::new(), BTreeSet::new());
        self.machine.wants(self.now, &input, &cold, &mut keys);
        cold.extend(keys.into_iter().map(|key| (key.clone(), self.rows.get(&key).cloned())));
        let mut out = Output::default();
        let mut policies = Builtin::new(Settings::default());
        self.machine.step(self.now, &input, &cold, &mut policies, &mut out);
        let answer = out.effects.into_iter().find_map(|effect| match effect {
            Effect::Reply { to, answer } if to == id => Some(answer),
            _ => None,
        });
        answer.expect("an answer")
    }
}
