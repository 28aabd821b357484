//! The driver on its own, with a real store: batches, prefetch, flushing, stopping.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed, which is what it is for")]

mod quarantine;

use std::path::Path;

use tidegate_core::effect::Response;
use tidegate_core::id::{DeviceId, TaskId};
use tidegate_core::input::Request;
use tidegate_core::object::ObjectOp;
use tidegate_core::refusal::Refusal;
use tidegate_core::wire::TransferMessage;
use tidegate_core::wire::transfer::Announced;
use tidegate_core::{id::Role, id::Ticket};

use super::*;
use crate::board::Board;
use crate::feed::{Feed, Window};
use crate::inbox::{Inbox, Stranger};
use crate::ingest::Gate;
use crate::real::{RealBlocking, RealClock, RealDisk};
use crate::replay;
use crate::store::{JOURNAL_LIMIT, View};

struct Bench {
    inbox: Inbox,
    view: View,
    gauge: Gauge,
    stop: watch::Sender<bool>,
    operations: mpsc::UnboundedReceiver<(Ticket, ObjectOp)>,
    ready: oneshot::Receiver<()>,
}

fn bench(dir: &Path, drain: Duration) -> (Driver<RealClock, RealBlocking>, Bench) {
    bench_on(RealBlocking, dir, drain)
}

fn bench_on<B: Blocking>(blocking: B, dir: &Path, drain: Duration) -> (Driver<RealClock, B>, Bench) {
    let mut store = Store::open(&RealDisk, dir, JOURNAL_LIMIT).unwrap();
    let boot = store.begin_boot().unwrap();
    let (inbox, letters) = Inbox::new();
    let (stop, stop_watch) = watch::channel(false);
    let (objects, operations) = mpsc::unbounded_channel();
    let (gate, _) = watch::channel(Gate::Open);
    let (ready, is_ready) = oneshot::channel();
    let gauge = Gauge::default();
    let view = store.view();
    let driver = Driver {
        clock: RealClock::default(),
        blocking,
        store,
        boot,
        seed: 7,
        knobs: Knobs::default(),
        drain,
        letters,
        release: Release::new(
            objects,
            mpsc::unbounded_channel().0,
            Feed::new(boot, Board::new(), Window::default()),
            gate,
            crate::ingest::Frozen::new("b"),
            gauge.clone(),
        ),
        loader: Loader::native(),
        shelf: Shelf::with_builtin(Knobs::default().builtin),
        gauge: gauge.clone(),
        stop: stop_watch,
        ready,
    };
    (driver, Bench { inbox, view, gauge, stop, operations, ready: is_ready })
}

fn device() -> DeviceId {
    DeviceId::new("robot-1").unwrap()
}

fn creation(name: &str) -> Request {
    Request::CreateTask { task: Some(TaskId::new(name).unwrap()), device: device(), config: None }
}

fn cancellation(name: &str) -> Request {
    Request::CancelTask { task: name.to_owned() }
}

#[tokio::test]
async fn letters_of_one_batch_see_each_other_and_cost_one_commit() {
    let dir = tempfile::tempdir().unwrap();
    let (driver, bench) = bench(dir.path(), Duration::from_secs(5));
    let inbox = &bench.inbox;
    // All letters are there before the driver looks: its first batch holds them all. A cancelled task is cold, so
    // the third and the fourth letter consult a record that is in the batch and nowhere else.
    let asking = async {
        let answers = tokio::join!(
            inbox.request(creation("T"), None),
            inbox.request(cancellation("T"), None),
            inbox.request(cancellation("T"), None),
            inbox.request(creation("T"), None),
        );
        let commits = bench.gauge.read().commits;
        bench.stop.send_replace(true);
        (answers, commits)
    };
    let ((answers, commits), ended) = tokio::join!(asking, driver.run());
    ended.unwrap();
    assert!(matches!(answers.0, Ok(Ok(Response::Task(_)))), "{:?}", answers.0);
    assert!(matches!(answers.1, Ok(Ok(Response::Task(_)))), "{:?}", answers.1);
    assert_eq!(answers.2, answers.1, "the second cancellation finds the first");
    assert!(matches!(answers.3, Ok(Err(Refusal::TaskExists(_)))), "{:?}", answers.3);
    assert_eq!(commits, 1, "the boot of an empty site changes nothing and goes with the batch");
    let report =
        replay::verify_dir(&RealDisk, dir.path()).unwrap_or_else(|divergence| panic!("{divergence}"));
    assert!(report.stepped >= 6, "{report}");
}

#[tokio::test]
async fn an_input_that_changes_nothing_is_journalled_within_a_second() {
    let dir = tempfile::tempdir().unwrap();
    let (driver, bench) = bench(dir.path(), Duration::from_secs(5));
    let asking = async {
        bench.ready.await.unwrap();
        let before = journalled(&bench.view);
        let refused = bench.inbox.request(cancellation("nothing"), None).await.unwrap().unwrap_err();
        assert!(matches!(refused, Refusal::TaskNotFound(_)), "{refused:?}");
        let by = tokio::time::Instant::now() + Duration::from_secs(20);
        while journalled(&bench.view) == before {
            assert!(tokio::time::Instant::now() < by, "it was never written");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        bench.stop.send_replace(true);
    };
    let ((), ended) = tokio::join!(asking, driver.run());
    ended.unwrap();
}

/// A disk under which every write behind waits until it is let go.
#[derive(Clone)]
struct Stuck {
    begun: watch::Sender<usize>,
    go: watch::Sender<bool>,
}

impl Blocking for Stuck {
    async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        self.begun.send_modify(|begun| *begun += 1);
        let mut go = self.go.subscribe();
        let _ = go.wait_for(|go| *go).await;
        RealBlocking.run(work).await
    }

    async fn dedicate<T, F, M>(&self, name: &'static str, make: M) -> T
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
        M: FnOnce() -> F + Send + 'static,
    {
        RealBlocking.dedicate(name, make).await
    }

    fn entropy(&self, buf: &mut [u8]) {
        RealBlocking.entropy(buf);
    }
}

#[tokio::test]
async fn while_a_journal_is_written_what_changes_no_record_goes_on_and_what_changes_one_waits_its_turn() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Stuck { begun: watch::Sender::new(0), go: watch::Sender::new(false) };
    let (driver, bench) = bench_on(disk.clone(), dir.path(), Duration::from_secs(5));
    let inbox = &bench.inbox;
    let asking = async {
        bench.ready.await.unwrap();
        inbox.request(cancellation("nothing"), None).await.unwrap().unwrap_err();
        disk.begun.subscribe().wait_for(|begun| *begun == 1).await.unwrap();
        for _ in 0..2 * FLUSH_ENTRIES {
            let refused = inbox.request(cancellation("nothing"), None).await.unwrap().unwrap_err();
            assert!(matches!(refused, Refusal::TaskNotFound(_)), "{refused:?}");
        }
        assert_eq!((bench.gauge.read().commits, *disk.begun.borrow()), (0, 1), "one write at a time");
        let letters = bench.gauge.read().letters;
        let creating = inbox.request(creation("T"), None);
        let letting_go = async {
            while bench.gauge.read().letters == letters {
                tokio::task::yield_now().await;
            }
            // It was stepped, and would be durable by now if it did not wait for the entries before it.
            let commits = bench.gauge.read().commits;
            disk.go.send_replace(true);
            commits
        };
        let (created, commits) = tokio::join!(creating, letting_go);
        assert_eq!(commits, 0, "the journal keeps its order");
        created.unwrap().unwrap();
        bench.stop.send_replace(true);
    };
    let ((), ended) = tokio::join!(asking, driver.run());
    ended.unwrap();
    let report =
        replay::verify_dir(&RealDisk, dir.path()).unwrap_or_else(|divergence| panic!("{divergence}"));
    assert!(report.stepped > 2 * FLUSH_ENTRIES as u64, "{report}");
}

fn journalled(view: &View) -> usize {
    let mut count = 0;
    let visit = |_| {
        count += 1;
        std::ops::ControlFlow::Continue(())
    };
    view.snapshot().unwrap().walk_journal(Seq(0), visit).unwrap();
    count
}

#[tokio::test]
async fn an_operation_that_never_ends_holds_up_the_stop_for_the_drain_only() {
    let dir = tempfile::tempdir().unwrap();
    let (driver, mut bench) = bench(dir.path(), Duration::from_millis(50));
    let asking = async {
        bench.inbox.request(creation("T"), None).await.unwrap().unwrap();
        let link =
            bench.inbox.knock(Stranger::unproven(device(), Role::Transfer, "test")).await.unwrap().unwrap();
        let announced = Announced {
            task: "T".to_owned(),
            key: Some("robot-1/T.mcap".to_owned()),
            len: None,
            sha256: None,
            mcap_only: Some(true),
        };
        let message = TransferMessage::UploadComplete(announced);
        bench.inbox.input(Input::Transfer { conn: link.conn, message }).await.unwrap();
        let (ticket, _) = bench.operations.recv().await.unwrap();
        bench.stop.send_replace(true);
        ticket
    };
    let (ticket, ended) = tokio::join!(asking, driver.run());
    ended.unwrap();
    assert_eq!(ticket.boot, Boot(1));
    assert!(bench.view.snapshot().is_err(), "the store is closed");
    assert!(!bench.inbox.is_open());
    replay::verify_dir(&RealDisk, dir.path()).unwrap_or_else(|divergence| panic!("{divergence}"));
}

#[tokio::test]
async fn a_site_that_is_dropped_stops_its_driver() {
    let dir = tempfile::tempdir().unwrap();
    let (driver, bench) = bench(dir.path(), Duration::from_secs(5));
    let Bench { stop, ready, .. } = bench;
    let dropping = async {
        ready.await.unwrap();
        drop(stop);
    };
    let ((), ended) = tokio::join!(dropping, driver.run());
    ended.unwrap();
}
