//! The driver in process, over a real store, when an input makes the core panic: counted, at the third time left out, and
//! everything else goes on. With planted bugs in a build that has them; in every build with records made by hand.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed, which is what it is for")]

use std::collections::BTreeMap;
use std::path::Path;

use tidegate_core::bug::{Bug, PLANTED};
use tidegate_core::digest::Sha256;
use tidegate_core::effect::Response;
use tidegate_core::id::{ConnId, DeviceId, ETag, EpisodeId, Role, TaskId, Ticket};
use tidegate_core::input::{Action, Command, Demand, LostWhy, Request};
use tidegate_core::object::{Got, McapFacts, ObjectFacts, ObjectOp, ObjectReply, Store as Where, Verb, Want};
use tidegate_core::outcome::{Fault, Outcome};
use tidegate_core::refusal::Refusal;
use tidegate_core::row::{JobRow, JobState, Key, Kind, ParkWhy, Row};
use tidegate_core::time::Wall;
use tidegate_core::wire::transfer::Announced;
use tidegate_core::wire::{RecorderMessage, TransferMessage};
use tokio::task::JoinHandle;

use super::super::*;
use crate::board::Board;
use crate::crash::LIMIT;
use crate::feed::{Feed, Window};
use crate::inbox::{Admitted, Gone, Inbox, Outbound, Stranger};
use crate::ingest::Gate;
use crate::real::RealBlocking;
use crate::real::RealDisk;
use crate::replay;
use crate::store::{JOURNAL_LIMIT, View};

/// A clock that the test moves.
#[derive(Clone, Debug)]
struct Moved(watch::Sender<u64>);

impl Moved {
    fn on(&self, by: Duration) {
        self.0.send_modify(|ns| *ns += by.as_nanos() as u64);
    }
}

impl Clock for Moved {
    fn now(&self) -> Now {
        let ns = *self.0.borrow();
        Now { wall: Wall(BEGIN.0 + (ns / 1_000_000) as i64), mono: Mono(ns) }
    }

    fn sleep(&self, after: Duration) -> impl Future<Output = ()> + Send {
        let mut moved = self.0.subscribe();
        let until = self.now().mono.after(after);
        async move {
            // An error is a clock that is gone, and its test with it.
            let _ = moved.wait_for(|ns| Mono(*ns) >= until).await;
        }
    }
}

/// One start of a site, until it ends.
struct Life {
    inbox: Inbox,
    view: View,
    board: Board,
    clock: Moved,
    stop: watch::Sender<bool>,
    operations: mpsc::UnboundedReceiver<(Ticket, ObjectOp)>,
    driver: JoinHandle<Result<(), DriverError>>,
    /// Objects in the cloud.
    cloud: BTreeMap<String, ObjectFacts>,
    gauge: Gauge,
}

fn knobs() -> Knobs {
    Knobs { destination: true, keep_edge_ms: None, ..Knobs::default() }
}

/// The settings with a bug planted; `None`, said aloud, in a build that has none.
fn planting(bug: Bug) -> Option<Knobs> {
    if !PLANTED {
        eprintln!("SKIPPED: {} is not compiled in; build with TIDEGATE_BUGS=1", bug.id());
    }
    knobs().planting(bug).ok()
}

impl Life {
    async fn begin(dir: &Path, knobs: &Knobs) -> Life {
        let mut store = Store::open(&RealDisk, dir, JOURNAL_LIMIT).unwrap();
        let boot = store.begin_boot().unwrap();
        let (inbox, letters) = Inbox::new();
        let (stop, stop_watch) = watch::channel(false);
        let (objects, operations) = mpsc::unbounded_channel();
        let (gate, _) = watch::channel(Gate::Open);
        let (ready, is_ready) = oneshot::channel();
        let (board, gauge, view) = (Board::new(), Gauge::default(), store.view());
        let clock = Moved(watch::Sender::new(0));
        let frozen = crate::ingest::Frozen::new("b");
        let driver = Driver {
            clock: clock.clone(),
            blocking: RealBlocking,
            store,
            boot,
            seed: boot.0,
            knobs: knobs.clone(),
            drain: Duration::from_secs(5),
            letters,
            release: Release::new(
                objects,
                mpsc::unbounded_channel().0,
                Feed::new(boot, board.clone(), Window::default()),
                gate,
                frozen,
                gauge.clone(),
            ),
            loader: Loader::native(),
            shelf: Shelf::with_builtin(Knobs::default().builtin),
            gauge: gauge.clone(),
            stop: stop_watch,
            ready,
        };
        let driver = tokio::spawn(driver.run());
        // A driver that does not get that far says so when it is asked how it ended.
        let _ = is_ready.await;
        Life { inbox, view, board, clock, stop, operations, driver, cloud: BTreeMap::new(), gauge }
    }

    async fn link(&self, device: &str, role: Role) -> Admitted {
        let device = DeviceId::new(device).unwrap();
        self.inbox.knock(Stranger::unproven(device, role, "test")).await.unwrap().unwrap()
    }

    async fn recorder_says(&self, conn: ConnId, message: RecorderMessage) {
        // The driver may have ended already; how is asked later.
        let _: Result<(), Gone> = self.inbox.input(Input::Recorder { conn, message }).await;
    }

    async fn ask(&self, request: Request) -> Result<Response, Refusal> {
        self.inbox.request(request, None).await.unwrap()
    }

    /// The next operation but the checks of recordings: those come by themselves at any time, and find nothing.
    async fn operation(&mut self) -> (Ticket, ObjectOp) {
        loop {
            let next = tokio::time::timeout(PATIENCE, self.operations.recv()).await;
            let (ticket, op) = next.expect("an operation in time").expect("the driver lives");
            if !matches!(op.verb, Verb::Get { want: Want::Inspect, .. }) {
                return (ticket, op);
            }
            let (sha256, facts) = (Sha256::of(b"bytes"), McapFacts { messages: 1, ..McapFacts::default() });
            let found = Got::Inspected { len: LEN, sha256, facts };
            self.answer(ticket, Outcome::Done(ObjectReply::Got(found))).await;
        }
    }

    async fn answer(&self, ticket: Ticket, outcome: Outcome<ObjectReply>) {
        // As above.
        let _: Result<(), Gone> = self.inbox.input(Input::Object { ticket, outcome }).await;
    }

    /// Answers operations as stores that work do, until one is `wanted`.
    async fn work_until(&mut self, wanted: impl Fn(&ObjectOp) -> bool) -> (Ticket, ObjectOp) {
        loop {
            let (ticket, op) = self.operation().await;
            if wanted(&op) {
                return (ticket, op);
            }
            let reply = self.reply(&op);
            self.answer(ticket, Outcome::Done(reply)).await;
        }
    }

    fn reply(&mut self, op: &ObjectOp) -> ObjectReply {
        let key = op.key.as_str().to_owned();
        match (&op.verb, op.store) {
            (Verb::Head, Where::Edge) => ObjectReply::Head(Some(facts())),
            (Verb::Head, Where::Cloud) => ObjectReply::Head(self.cloud.get(&key).cloned()),
            (Verb::Get { .. }, _) => ObjectReply::Got(Got::Digest { len: LEN, sha256: Sha256::of(b"bytes") }),
            (Verb::Put { .. }, _) => {
                self.cloud.insert(key, facts());
                ObjectReply::Put(facts().etag)
            }
            (verb, store) => panic!("no such operation is expected: {} in {store:?}", verb.name()),
        }
    }

    /// A task, and its uploader's word that its recording is there.
    async fn announce(&self, device: &str, task: &str) -> Admitted {
        let id = TaskId::new(task).unwrap();
        let device_id = DeviceId::new(device).unwrap();
        self.ask(Request::CreateTask { task: Some(id), device: device_id, config: None }).await.unwrap();
        self.announce_again(device, task).await
    }

    async fn announce_again(&self, device: &str, task: &str) -> Admitted {
        let link = self.link(device, Role::Transfer).await;
        let announced = Announced {
            task: task.to_owned(),
            key: Some(format!("{device}/{task}.mcap")),
            len: Some(LEN),
            sha256: Some(Sha256::of(b"bytes")),
            mcap_only: Some(true),
        };
        let message = TransferMessage::UploadComplete(announced);
        self.inbox.input(Input::Transfer { conn: link.conn, message }).await.unwrap();
        link
    }

    /// An approved episode of this device whose job is about to look what stands at its key in the cloud.
    async fn job(&mut self, device: &str, task: &str, episode: u64) -> (Ticket, ObjectOp) {
        let mut link = self.announce(device, task).await;
        let acknowledged = async {
            while let Some(out) = link.outbound.recv().await {
                if matches!(&out, Outbound::Text(text) if text.contains("upload_ack")) {
                    return;
                }
            }
            panic!("the link ended");
        };
        let working = self.work_until(|_| false);
        tokio::select! {
            biased;
            () = acknowledged => {}
            _ = working => unreachable!("nothing is wanted"),
        }
        let episode = EpisodeId(episode);
        self.ask(Request::Judge { episode, approve: true, reason: None }).await.unwrap();
        self.ask(Request::Sync { episode }).await.unwrap();
        self.operation().await
    }

    fn jobs(&self) -> Vec<JobRow> {
        let mut jobs = Vec::new();
        let visit = |_, row| {
            if let Row::Job(job) = row {
                jobs.push(job);
            }
            std::ops::ControlFlow::Continue(())
        };
        self.view.walk(Kind::Job, false, visit).unwrap();
        jobs
    }

    /// How the driver ended by itself, while time goes on.
    async fn ended(mut self) -> Result<(), DriverError> {
        let by = tokio::time::Instant::now() + PATIENCE;
        while !self.driver.is_finished() {
            assert!(tokio::time::Instant::now() < by, "the driver lives");
            self.clock.on(Duration::from_secs(1));
            pause().await;
        }
        (&mut self.driver).await.unwrap()
    }

    async fn panicked(self) {
        let ended = self.ended().await;
        assert!(matches!(ended, Err(DriverError::Panicked(_))), "{ended:?}");
    }

    async fn stopped(self) {
        self.stop.send_replace(true);
        self.ended().await.unwrap();
    }
}

async fn pause() {
    tokio::time::sleep(Duration::from_millis(2)).await;
}

/// Waits for something to become true.
async fn until(what: &str, mut is: impl FnMut() -> bool) {
    let by = tokio::time::Instant::now() + PATIENCE;
    while !is() {
        assert!(tokio::time::Instant::now() < by, "not in time: {what}");
        pause().await;
    }
}

/// Waits until a link is closed; the code.
async fn closed(link: &mut Admitted) -> u16 {
    let closing = async {
        loop {
            match link.outbound.recv().await {
                Some(Outbound::Close { code, .. }) => return code,
                Some(Outbound::Text(_)) => {}
                None => panic!("the link ended without a word"),
            }
        }
    };
    tokio::time::timeout(PATIENCE, closing).await.expect("the link is closed in time")
}

/// Answers the site's `get_state` on a link: the device is idle, and from then on its state is confirmed.
async fn confirm(life: &Life, device: &str, link: &mut Admitted) {
    let Some(Outbound::Text(asked)) = link.outbound.recv().await else { panic!("nothing was asked") };
    let asked: serde_json::Value = serde_json::from_str(&asked).unwrap();
    let answer = RecorderMessage::Response {
        request_id: asked["request_id"].as_str().unwrap().to_owned(),
        success: true,
        message: None,
        state: Some("idle".to_owned()),
        task: None,
        data: None,
    };
    life.recorder_says(link.conn, answer).await;
    let device = DeviceId::new(device).unwrap();
    let asked = life.ask(Request::RefreshState { device, max_age_ms: 60_000 }).await;
    assert!(matches!(&asked, Ok(Response::State(view)) if view.synced), "{asked:?}");
}

fn facts() -> ObjectFacts {
    ObjectFacts {
        len: LEN,
        etag: ETag::new("tag"),
        sha256: Some(Sha256::of(b"bytes")),
        composite: None,
        announced: Some(Sha256::of(b"bytes")),
    }
}

fn rows(view: &View) -> BTreeMap<Key, Row> {
    let mut rows = BTreeMap::new();
    for kind in Kind::ALL {
        let visit = |key, row| {
            rows.insert(key, row);
            std::ops::ControlFlow::Continue(())
        };
        view.walk(kind, false, visit).unwrap();
    }
    rows
}

fn rows_in(dir: &Path) -> BTreeMap<Key, Row> {
    let store = Store::open_existing(&RealDisk, dir).unwrap();
    rows(&store.view())
}

/// The subjects of what was left out, by the journal, which must repeat as well.
fn left_out_in(dir: &Path) -> Vec<Subject> {
    let report = replay::verify_dir(&RealDisk, dir).unwrap_or_else(|divergence| panic!("{divergence}"));
    assert!(report.stepped > 0, "{report}");
    let store = Store::open_existing(&RealDisk, dir).unwrap();
    let mut subjects = Vec::new();
    let visit = |entry: JournalEntry| {
        if let Input::Quarantined { subject, reason } = entry.input {
            assert!(reason.contains("panic"), "{reason}");
            subjects.push(subject);
        }
        std::ops::ControlFlow::Continue(())
    };
    store.view().snapshot().unwrap().walk_journal(Seq(0), visit).unwrap();
    subjects
}

/// A record as three crashes of this input would have left it.
fn record(input: &Input, about: &str) -> Crash {
    Crash {
        likeness: likeness(input, about),
        input: input.name().to_owned(),
        about: about.to_owned(),
        message: "as made by hand".to_owned(),
        location: "nowhere.rs:1".to_owned(),
        count: LIMIT,
        first: BEGIN,
        last: BEGIN,
        program: crash::PROGRAM.to_owned(),
        avoidable: true,
    }
}

fn write_record(dir: &Path, crash: Crash) {
    let store = Store::open(&RealDisk, dir, JOURNAL_LIMIT).unwrap();
    Crashes::default().count(&store, crash).unwrap();
}

fn crashes_in(dir: &Path) -> Vec<(String, String, u32)> {
    let found = crash::list_dir(&RealDisk, dir).unwrap();
    found.into_iter().map(|crash| (crash.input, crash.about, crash.count)).collect()
}

fn strange() -> RecorderMessage {
    RecorderMessage::Other("strange".to_owned())
}

fn idle(timestamp_ms: i64) -> RecorderMessage {
    RecorderMessage::StateUpdate {
        timestamp_ms: Some(timestamp_ms),
        previous: None,
        current: Some("idle".to_owned()),
        task: None,
    }
}

fn creation(task: &str) -> Request {
    let task = Some(TaskId::new(task).unwrap());
    Request::CreateTask { task, device: DeviceId::new("robot-1").unwrap(), config: None }
}

#[tokio::test]
async fn a_frame_that_crashes_three_lives_closes_its_link_in_the_fourth_and_others_work() {
    let Some(knobs) = planting(Bug::X26) else { return };
    let dir = tempfile::tempdir().unwrap();
    let life = Life::begin(dir.path(), &knobs).await;
    life.ask(creation("T")).await.unwrap();
    life.stopped().await;
    let before = rows_in(dir.path());
    for n in 1..=LIMIT {
        let life = Life::begin(dir.path(), &knobs).await;
        let link = life.link("robot-1", Role::Recorder).await;
        life.recorder_says(link.conn, strange()).await;
        life.panicked().await;
        assert_eq!(crashes_in(dir.path()), [("recorder".to_owned(), "recorder robot-1".to_owned(), n)]);
        assert_eq!(rows_in(dir.path()), before, "a life that panicked changed nothing");
    }
    let life = Life::begin(dir.path(), &knobs).await;
    assert_eq!(life.gauge.read().quarantined, 1);
    let mut other = life.link("robot-2", Role::Recorder).await;
    for _ in 0..2 {
        // Each time it says so.
        let mut link = life.link("robot-1", Role::Recorder).await;
        life.recorder_says(link.conn, strange()).await;
        assert_eq!(closed(&mut link).await, 4002);
    }
    let mut link = life.link("robot-1", Role::Recorder).await;
    confirm(&life, "robot-1", &mut link).await;
    confirm(&life, "robot-2", &mut other).await;
    assert_eq!(life.board.counted().refused.get("quarantined"), Some(&2));
    assert_eq!(rows(&life.view), before);
    life.ask(creation("T2")).await.unwrap();
    life.stopped().await;
    let left_out = left_out_in(dir.path());
    assert!(matches!(left_out[..], [Subject::Frame { .. }, Subject::Frame { .. }]), "{left_out:?}");
    assert_eq!(crashes_in(dir.path()).len(), 1, "it counts no further");
}

#[tokio::test]
async fn a_deadline_that_crashes_three_lives_parks_its_job_in_the_fourth_and_another_job_is_done() {
    let Some(knobs) = planting(Bug::X27) else { return };
    let dir = tempfile::tempdir().unwrap();
    let mut life = Life::begin(dir.path(), &knobs).await;
    let (mut ticket, _) = life.job("robot-1", "T1", 1).await;
    for n in 1..=LIMIT {
        life.answer(ticket, Outcome::Unknown).await;
        life.panicked().await;
        assert_eq!(crashes_in(dir.path()), [("wake".to_owned(), "upload of job 1".to_owned(), n)]);
        life = Life::begin(dir.path(), &knobs).await;
        (ticket, _) = life.operation().await;
    }
    life.answer(ticket, Outcome::Unknown).await;
    parks_the_first_and_does_the_second(life, dir.path()).await;
    assert!(matches!(left_out_in(dir.path())[..], [Subject::Timer(TimerKey::Upload(_))]));
}

/// Lets time go on until the first job is parked, then sees a second one through.
async fn parks_the_first_and_does_the_second(mut life: Life, dir: &Path) {
    let (clock, by) = (life.clock.clone(), tokio::time::Instant::now() + PATIENCE);
    while !matches!(life.jobs()[0].state, JobState::Parked { why: ParkWhy::Quarantined(_), .. }) {
        assert!(tokio::time::Instant::now() < by, "not parked in time: {:?}", life.jobs());
        clock.on(Duration::from_secs(1));
        pause().await;
    }
    let parked = life.jobs().remove(0);
    assert_eq!(parked.spent, 0, "a panic of ours costs no attempt");
    let (ticket, op) = life.job("robot-2", "T2", 2).await;
    let reply = life.reply(&op);
    life.answer(ticket, Outcome::Done(reply)).await;
    let view = life.view.clone();
    let done = until("the second job is completed", move || {
        matches!(view.get(&Key::Job(tidegate_core::id::JobId(2))).unwrap(),
            Some(Row::Job(row)) if matches!(row.state, JobState::Completed { .. }))
    });
    tokio::select! {
        biased;
        () = done => {}
        _ = life.work_until(|_| false) => unreachable!("nothing is wanted"),
    }
    assert_eq!(life.jobs()[0], parked);
    life.stopped().await;
    assert_eq!(crash::list_dir(&RealDisk, dir).unwrap().len(), 1);
}

#[tokio::test]
async fn an_outcome_that_crashes_three_lives_leaves_its_recording_unacknowledged_in_the_fourth() {
    let Some(knobs) = planting(Bug::X28) else { return };
    let dir = tempfile::tempdir().unwrap();
    let mut life = Life::begin(dir.path(), &knobs).await;
    let mut link = life.announce("robot-1", "T1").await;
    let failed = || Outcome::Failed(Fault::Unavailable { status: 503 });
    for n in 1..=LIMIT {
        let (ticket, _) = life.operation().await;
        life.answer(ticket, failed()).await;
        life.panicked().await;
        let about = "head edge/robot-1/T1.mcap".to_owned();
        assert_eq!(crashes_in(dir.path()), [("object".to_owned(), about, n)]);
        life = Life::begin(dir.path(), &knobs).await;
        link = life.announce_again("robot-1", "T1").await;
    }
    let (ticket, _) = life.operation().await;
    life.answer(ticket, failed()).await;
    let board = life.board.clone();
    until("the refusal is told", || board.counted().refused.contains_key("quarantined")).await;
    // Another answer to the same question is another input: the recording is not given up.
    let conn = link.conn;
    let message = TransferMessage::UploadComplete(Announced {
        task: "T1".to_owned(),
        key: Some("robot-1/T1.mcap".to_owned()),
        len: Some(LEN),
        sha256: Some(Sha256::of(b"bytes")),
        mcap_only: Some(true),
    });
    let task = life.view.get(&Key::Task(TaskId::new("T1").unwrap())).unwrap();
    let Some(Row::Task(task)) = task else { panic!("{task:?}") };
    assert!(task.error.is_some_and(|error| error.starts_with("quarantined: made the core panic 3 times")));
    life.inbox.input(Input::Transfer { conn, message }).await.unwrap();
    let acknowledged = async {
        loop {
            match link.outbound.recv().await {
                Some(Outbound::Text(text)) if text.contains("upload_ack") => return,
                Some(Outbound::Text(_)) => {}
                ended => panic!("{ended:?}"),
            }
        }
    };
    tokio::select! {
        biased;
        () = acknowledged => {}
        _ = life.work_until(|_| false) => unreachable!("nothing is wanted"),
    }
    life.stopped().await;
    assert!(matches!(left_out_in(dir.path())[..], [Subject::Object { .. }]));
}

#[tokio::test]
async fn a_frame_with_a_record_closes_its_link_whenever_its_device_stamps_it() {
    let dir = tempfile::tempdir().unwrap();
    let frame = Input::Recorder { conn: ConnId { boot: Boot(9), n: 9 }, message: idle(1) };
    write_record(dir.path(), record(&frame, "recorder robot-1"));
    let life = Life::begin(dir.path(), &knobs()).await;
    let mut other = life.link("robot-2", Role::Recorder).await;
    let mut link = life.link("robot-1", Role::Recorder).await;
    // A caller that waits for its state is answered, as if the link had been lost.
    let device = DeviceId::new("robot-1").unwrap();
    let refresh = life.ask(Request::RefreshState { device, max_age_ms: 0 });
    let saying = life.recorder_says(link.conn, idle(2));
    let (refreshed, ()) = tokio::join!(refresh, saying);
    assert!(matches!(&refreshed, Ok(Response::State(view)) if !view.connected), "{refreshed:?}");
    assert_eq!(closed(&mut link).await, 4002);
    life.recorder_says(other.conn, idle(2)).await;
    confirm(&life, "robot-2", &mut other).await;
    life.stopped().await;
    assert!(matches!(left_out_in(dir.path())[..], [Subject::Frame { .. }]));
}

#[tokio::test]
async fn a_request_with_a_record_is_refused_and_others_are_answered() {
    let dir = tempfile::tempdir().unwrap();
    let asked = Input::Request { id: tidegate_core::id::RequestId(9), request: creation("T") };
    write_record(dir.path(), record(&asked, "create task robot-1"));
    let life = Life::begin(dir.path(), &knobs()).await;
    let refused = life.ask(creation("T")).await.unwrap_err();
    assert_eq!(
        refused,
        Refusal::Quarantined("made the core panic 3 times, at nowhere.rs:1: as made by hand".to_owned())
    );
    assert_eq!(rows(&life.view).keys().filter(|key| matches!(key, Key::Task(_))).count(), 0);
    life.ask(creation("T2")).await.unwrap();
    life.stopped().await;
    assert!(matches!(left_out_in(dir.path())[..], [Subject::Request { .. }]));
}

#[tokio::test]
async fn a_command_is_the_same_whatever_its_secret_is_called() {
    let command = |handle: u64, task: &str| {
        Request::Command(Command {
            device: DeviceId::new("robot-1").unwrap(),
            action: Action::Config,
            task: Some(task.to_owned()),
            params: Some(format!("{{\"user_token\":\"tidegate-secret:{handle}\"}}")),
            token: Some(tidegate_core::id::SecretRef { handle, sha256: Sha256::of(&handle.to_le_bytes()) }),
            reply: None,
            task_state: None,
        })
    };
    let of = |id, request| likeness(&Input::Request { id: tidegate_core::id::RequestId(id), request }, "x");
    assert_eq!(of(1, command(1, "T")), of(2, command(22, "T")));
    assert_ne!(of(1, command(1, "T")), of(1, command(1, "T2")));
}

#[tokio::test]
async fn a_deadline_with_a_record_parks_its_job_until_somebody_asks_and_another_job_is_done() {
    let dir = tempfile::tempdir().unwrap();
    let mut life = Life::begin(dir.path(), &knobs()).await;
    life.job("robot-1", "T1", 1).await;
    life.stopped().await;
    write_record(dir.path(), record(&Input::Wake, "upload of job 1"));
    let mut life = Life::begin(dir.path(), &knobs()).await;
    let (ticket, _) = life.operation().await;
    life.answer(ticket, Outcome::Unknown).await;
    parks_the_first_and_does_the_second(life, dir.path()).await;
    assert!(matches!(left_out_in(dir.path())[..], [Subject::Timer(TimerKey::Upload(_))]));
    // It stays parked through a start; whoever asks for it gets it tried again, and this time it need not wait.
    let mut life = Life::begin(dir.path(), &knobs()).await;
    assert!(matches!(life.jobs()[0].state, JobState::Parked { why: ParkWhy::Quarantined(_), .. }));
    life.ask(Request::Sync { episode: EpisodeId(1) }).await.unwrap();
    let view = life.view.clone();
    let done = until("the first job is completed", move || {
        matches!(view.get(&Key::Job(tidegate_core::id::JobId(1))).unwrap(),
            Some(Row::Job(row)) if matches!(row.state, JobState::Completed { .. }))
    });
    tokio::select! {
        biased;
        () = done => {}
        _ = life.work_until(|_| false) => unreachable!("nothing is wanted"),
    }
    life.stopped().await;
}

#[tokio::test]
async fn an_outcome_with_a_record_parks_its_job() {
    let dir = tempfile::tempdir().unwrap();
    let mut life = Life::begin(dir.path(), &knobs()).await;
    let (ticket, op) = life.job("robot-1", "T1", 1).await;
    life.stopped().await;
    let absent = || Outcome::Done(ObjectReply::Head(None));
    let about = format!("head cloud/{}", op.key);
    write_record(dir.path(), record(&Input::Object { ticket, outcome: absent() }, &about));
    let mut life = Life::begin(dir.path(), &knobs()).await;
    let (ticket, _) = life.operation().await;
    life.answer(ticket, absent()).await;
    parks_the_first_and_does_the_second(life, dir.path()).await;
    assert!(matches!(left_out_in(dir.path())[..], [Subject::Object { .. }]));
}

#[tokio::test]
async fn a_verification_whose_look_has_a_record_rests_and_others_are_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let outcome = Outcome::Done(ObjectReply::Head(Some(facts())));
    let ticket = Ticket { boot: Boot(9), n: 9 };
    let about = "head edge/robot-1/T1.mcap";
    write_record(dir.path(), record(&Input::Object { ticket, outcome }, about));
    let mut life = Life::begin(dir.path(), &knobs()).await;
    let _link = life.announce("robot-1", "T1").await;
    let (ticket, op) = life.operation().await;
    let reply = life.reply(&op);
    life.answer(ticket, Outcome::Done(reply)).await;
    let board = life.board.clone();
    until("the refusal is told", || board.counted().refused.contains_key("quarantined")).await;
    // The recording of another device is acknowledged, and its job is asked for.
    life.job("robot-2", "T2", 1).await;
    life.stopped().await;
    assert!(matches!(left_out_in(dir.path())[..], [Subject::Object { .. }]));
}

#[tokio::test]
async fn a_knock_a_hint_and_a_loss_with_records_are_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let device = DeviceId::new("robot-1").unwrap();
    let knock = Input::Knock {
        socket: tidegate_core::id::SocketId(9),
        device: device.clone(),
        role: Role::Recorder,
        remote: "elsewhere".to_owned(),
        credential: None,
        port: None,
        demand: Demand::Nothing,
    };
    let key = tidegate_core::id::ObjectKey::new("robot-1/T.mcap").unwrap();
    let stored = Input::Stored { key, len: LEN, sha256: Sha256::of(b"bytes") };
    let lost = Input::Lost { conn: ConnId { boot: Boot(9), n: 9 }, why: LostWhy::Broken };
    write_record(dir.path(), record(&knock, "recorder robot-1"));
    write_record(dir.path(), record(&stored, "robot-1/T.mcap"));
    write_record(dir.path(), record(&lost, "transfer robot-1"));
    let life = Life::begin(dir.path(), &knobs()).await;
    let refused = life.inbox.knock(Stranger::unproven(device, Role::Recorder, "test")).await.unwrap();
    assert!(matches!(refused, Err(Refusal::Quarantined(_))), "{refused:?}");
    life.inbox.input(stored).await.unwrap();
    let link = life.link("robot-1", Role::Transfer).await;
    life.inbox.input(Input::Lost { conn: link.conn, why: LostWhy::Broken }).await.unwrap();
    // The next link takes over from the one whose end nobody heard.
    let mut next = life.link("robot-1", Role::Transfer).await;
    assert!(next.conn > link.conn);
    assert!(!matches!(next.outbound.try_recv(), Ok(Outbound::Close { .. })));
    life.stopped().await;
    let left_out = left_out_in(dir.path());
    assert!(
        matches!(left_out[..], [Subject::Knock { .. }, Subject::Stored { .. }, Subject::Lost { .. }]),
        "{left_out:?}"
    );
}

#[tokio::test]
async fn a_site_whose_end_has_a_record_stops_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    write_record(dir.path(), record(&Input::Shutdown, ""));
    let life = Life::begin(dir.path(), &knobs()).await;
    life.ask(creation("T")).await.unwrap();
    life.stopped().await;
    assert!(matches!(left_out_in(dir.path())[..], [Subject::Shutdown]));
}

#[tokio::test]
async fn a_start_with_a_record_is_refused_until_the_records_are_cleared_or_the_settings_are_others() {
    let dir = tempfile::tempdir().unwrap();
    let begin = Input::Boot { boot: Boot(9), seed: 9, knobs: knobs() };
    write_record(dir.path(), Crash { avoidable: false, ..record(&begin, "") });
    let refused = Life::begin(dir.path(), &knobs()).await.ended().await.unwrap_err();
    let DriverError::Hopeless(crash) = &refused else { panic!("{refused:?}") };
    assert_eq!(crash.count, LIMIT, "it was not tried again");
    assert!(refused.to_string().contains("boot made the core panic 3 times, at nowhere.rs:1"), "{refused}");
    Life::begin(dir.path(), &Knobs { batch: 7, ..knobs() }).await.stopped().await;
    assert_eq!(crash::clear_dir(&RealDisk, dir.path()).unwrap(), 1);
    Life::begin(dir.path(), &knobs()).await.stopped().await;
}

#[tokio::test]
async fn two_crashes_keep_nothing_out() {
    let dir = tempfile::tempdir().unwrap();
    let asked = Input::Request { id: tidegate_core::id::RequestId(9), request: creation("T") };
    write_record(dir.path(), Crash { count: LIMIT - 1, ..record(&asked, "create task robot-1") });
    let life = Life::begin(dir.path(), &knobs()).await;
    life.ask(creation("T")).await.unwrap();
    life.stopped().await;
    assert_eq!(left_out_in(dir.path()), []);
}

/// Bytes of every recording here.
const LEN: u64 = 5;
const BEGIN: Wall = Wall(1_700_000_000_000);
/// For anything that happens at all.
const PATIENCE: Duration = Duration::from_secs(30);
