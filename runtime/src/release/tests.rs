//! Effects reach whom they are for, and nobody else.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed, which is what it is for")]

use tidegate_core::digest::Sha256;
use tidegate_core::effect::QueueCounts;
use tidegate_core::id::{Boot, ObjectKey, SecretRef};
use tidegate_core::object::{Store, Verb};

use super::*;
use crate::board::Board;
use crate::feed::Window;

struct Bench {
    release: Release,
    objects: mpsc::UnboundedReceiver<(Ticket, ObjectOp)>,
    gate: watch::Receiver<ingest::Gate>,
    frozen: ingest::Frozen,
    board: Board,
    timeouts: Timeouts,
    gauge: Gauge,
}

fn bench() -> Bench {
    let (objects, operations) = mpsc::unbounded_channel();
    let (gate, watching) = watch::channel(ingest::Gate::Open);
    let (board, gauge) = (Board::new(), Gauge::default());
    let frozen = ingest::Frozen::new("b");
    let release = Release::new(
        objects,
        mpsc::unbounded_channel().0,
        Feed::new(Boot(1), board.clone(), Window::default()),
        gate,
        frozen.clone(),
        gauge.clone(),
    );
    let timeouts = Timeouts::default();
    let release = release.timing(timeouts.clone());
    Bench { release, objects: operations, gate: watching, frozen, board, timeouts, gauge }
}

fn conn(n: u32) -> ConnId {
    ConnId { boot: Boot(1), n }
}

fn admitted(bench: &mut Bench, n: u32) -> Admitted {
    let (admission, mut answer) = oneshot::channel();
    bench.release.expect_admission(SocketId(u64::from(n)), admission);
    bench.release.perform(Wall(0), Effect::Admit { socket: SocketId(u64::from(n)), conn: conn(n) });
    answer.try_recv().unwrap().unwrap()
}

fn text(text: &str) -> Frame {
    Frame { text: text.to_owned(), secret: None }
}

#[test]
fn a_frame_reaches_the_link_it_is_for_and_a_close_ends_it_with_its_code() {
    let mut bench = bench();
    let mut one = admitted(&mut bench, 1);
    let mut two = admitted(&mut bench, 2);
    bench.release.perform(Wall(0), Effect::Send { conn: conn(2), frame: text("hello\n") });
    bench.release.perform(Wall(0), Effect::Close { conn: conn(2), why: CloseWhy::Replaced });
    bench.release.perform(Wall(0), Effect::Send { conn: conn(2), frame: text("late\n") });
    bench.release.perform(Wall(0), Effect::Close { conn: conn(1), why: CloseWhy::GoingAway });
    assert_eq!(two.outbound.try_recv().unwrap(), Outbound::Text("hello\n".to_owned()));
    let reason = "replaced by a newer connection";
    assert_eq!(two.outbound.try_recv().unwrap(), Outbound::Close { code: 4001, reason });
    assert!(two.outbound.try_recv().is_err());
    assert_eq!(one.outbound.try_recv().unwrap(), Outbound::Close { code: 1001, reason: "site is stopping" });
    assert!(!bench.release.has_own_input());
}

#[test]
fn a_socket_that_went_before_its_admission_is_reported_lost() {
    let mut bench = bench();
    let (admission, answer) = oneshot::channel();
    bench.release.expect_admission(SocketId(1), admission);
    drop(answer);
    bench.release.perform(Wall(0), Effect::Admit { socket: SocketId(1), conn: conn(1) });
    assert_eq!(bench.release.own_input(), Some(Input::Lost { conn: conn(1), why: LostWhy::Broken }));
    assert_eq!(bench.release.links(), 0);
}

#[test]
fn a_socket_that_is_turned_away_hears_why() {
    let mut bench = bench();
    let (admission, mut answer) = oneshot::channel();
    bench.release.expect_admission(SocketId(1), admission);
    bench.release.perform(Wall(0), Effect::TurnAway { socket: SocketId(1), refusal: Refusal::TooManyLinks });
    assert_eq!(answer.try_recv().unwrap().unwrap_err(), Refusal::TooManyLinks);
}

#[test]
fn a_link_that_takes_nothing_is_dropped_and_reported_stuck_once() {
    let mut bench = bench();
    let mut link = admitted(&mut bench, 1);
    for _ in 0..OUTBOUND + 2 {
        bench.release.perform(Wall(0), Effect::Send { conn: conn(1), frame: text("x") });
    }
    assert_eq!(bench.release.own_input(), Some(Input::Lost { conn: conn(1), why: LostWhy::Stuck }));
    assert_eq!(bench.release.own_input(), None);
    assert_eq!(bench.gauge.read().links_stuck, 1);
    let mut taken = 0;
    while let Ok(outbound) = link.outbound.try_recv() {
        assert_eq!(outbound, Outbound::Text("x".to_owned()));
        taken += 1;
    }
    assert_eq!(taken, OUTBOUND);
    assert!(link.outbound.is_closed(), "the sender is gone, so the link task ends the link");
}

fn secret(value: &str) -> Secret {
    Secret { name: SecretRef { handle: 7, sha256: Sha256::of(value.as_bytes()) }, value: value.to_owned() }
}

fn with_secret() -> Frame {
    let name = SecretRef { handle: 7, sha256: Sha256::of(b"x") };
    Frame { text: "{\"user_token\":\"tidegate-secret:7\"}\n".to_owned(), secret: Some(name) }
}

#[test]
fn a_secret_is_written_into_its_frame_as_json_and_forgotten_with_the_reply() {
    let mut bench = bench();
    let mut link = admitted(&mut bench, 1);
    let (answer, mut reply) = oneshot::channel();
    bench.release.expect_answer(RequestId(9), answer, Some(secret("a\"b\\c")));
    bench.release.perform(Wall(0), Effect::Send { conn: conn(1), frame: with_secret() });
    let Outbound::Text(sent) = link.outbound.try_recv().unwrap() else { panic!("a text") };
    assert_eq!(sent, "{\"user_token\":\"a\\\"b\\\\c\"}\n");
    bench.release.perform(Wall(0), Effect::Reply { to: RequestId(9), answer: Err(Refusal::RecorderOffline) });
    assert_eq!(reply.try_recv().unwrap().unwrap_err(), Refusal::RecorderOffline);
    bench.release.perform(Wall(0), Effect::Send { conn: conn(1), frame: with_secret() });
    assert!(link.outbound.try_recv().is_err(), "the value is gone, so the frame is not sent");
    assert_eq!(bench.gauge.read().frames_dropped, 1);
    assert!(!format!("{:?}", secret("a-value")).contains("a-value"));
}

#[test]
fn a_frame_that_names_no_secret_never_gets_one() {
    let mut bench = bench();
    let mut link = admitted(&mut bench, 1);
    let (answer, _reply) = oneshot::channel();
    bench.release.expect_answer(RequestId(9), answer, Some(secret("value")));
    let frame = Frame { secret: None, ..with_secret() };
    bench.release.perform(Wall(0), Effect::Send { conn: conn(1), frame: frame.clone() });
    assert_eq!(link.outbound.try_recv().unwrap(), Outbound::Text(frame.text));
}

#[test]
fn operations_notices_and_the_gate_go_where_they_belong() {
    let mut bench = bench();
    let ticket = Ticket { boot: Boot(1), n: 1 };
    let op = ObjectOp { store: Store::Edge, key: ObjectKey::new("a").unwrap(), verb: Verb::Head };
    bench.release.perform(Wall(0), Effect::Object { ticket, op: op.clone() });
    assert_eq!(bench.objects.try_recv().unwrap(), (ticket, op));
    let counts = QueueCounts { due: 1, waiting: 2, uploading: 3, parked: 4 };
    bench.release.perform(Wall(0), Effect::Publish(Notice::Queue(counts)));
    assert_eq!(bench.board.queue(), counts);
    bench.release.perform(Wall(0), Effect::Gate(Gate::Stopping));
    assert!(matches!(&*bench.gate.borrow(), ingest::Gate::Closed(_)));
    bench.release.perform(Wall(0), Effect::Gate(Gate::Full));
    assert_eq!(*bench.gate.borrow(), ingest::Gate::Full);
    bench.release.perform(Wall(0), Effect::Gate(Gate::Open));
    assert_eq!(*bench.gate.borrow(), ingest::Gate::Open);
}

#[test]
fn a_key_is_frozen_in_its_bucket_until_it_is_thawed() {
    let mut bench = bench();
    let key = ObjectKey::new("f/d1/T.mcap").unwrap();
    bench.release.perform(Wall(0), Effect::Freeze { key: key.clone() });
    bench.release.perform(Wall(0), Effect::Freeze { key: key.clone() });
    assert!(bench.frozen.holds("b", key.as_str()));
    assert!(!bench.frozen.holds("c", key.as_str()), "another bucket");
    assert!(!bench.frozen.holds("b", "f/d1/T.json"));
    bench.release.perform(Wall(0), Effect::Thaw { key: key.clone() });
    assert!(!bench.frozen.holds("b", key.as_str()));
}

#[test]
fn a_recorder_that_did_not_answer_in_time_is_counted_with_the_other_timeouts() {
    let mut bench = bench();
    let device = tidegate_core::id::DeviceId::new("r1").unwrap();
    let action = tidegate_core::input::Action::Pause;
    let late = Notice::Timeout { device, action, budget_ms: 15_000, elapsed_ms: 15_002 };
    bench.release.perform(Wall(0), Effect::Publish(late));
    assert_eq!(bench.timeouts.count(Op::Rpc), 1);
    let counts = QueueCounts { due: 1, waiting: 2, uploading: 3, parked: 4 };
    bench.release.perform(Wall(0), Effect::Publish(Notice::Queue(counts)));
    assert!(Op::ALL.into_iter().all(|op| bench.timeouts.count(op) == u64::from(op == Op::Rpc)));
}
