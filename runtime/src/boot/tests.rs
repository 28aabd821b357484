//! A whole site on real sockets and a real disk: what it told survives, what it journalled can be run again, and it
//! refuses what it must.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed, which is what it is for")]

mod policies;

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use tidegate_core::digest::Sha256;
use tidegate_core::effect::Response;
use tidegate_core::id::{DeviceId, EpisodeId, TaskId};
use tidegate_core::input::Request;
use tidegate_core::refusal::Refusal;
use tidegate_core::row::{JobState, Key, Kind, ParkWhy, Row, TaskRow};
use tidegate_core::wire::TransferMessage;
use tidegate_core::wire::transfer::Announced;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::inbox::{Admitted, Outbound, Stranger};
use crate::ingest::tests::http::ask;
use crate::real::{RealBlocking, RealClock, RealDisk, RealNet, RealSeams};
use crate::replay;
use crate::store::tests::failing::Failing;

fn config(dir: &Path) -> Config {
    let mut config = Config { data_dir: dir.join("site"), ..Config::default() };
    config.listen.api.set_port(0);
    config.listen.s3.set_port(0);
    config.edge.max_clock_skew = None;
    // Tests of modules say so: compiling one takes a moment.
    config.policies.native = true;
    config
}

async fn site(dir: &Path) -> Site {
    start(RealSeams::new(), config(dir), |_, _| Ok(None)).await.unwrap()
}

fn device() -> DeviceId {
    DeviceId::new("robot-1").unwrap()
}

async fn create(site: &Site, name: &str) -> Result<TaskRow, Refusal> {
    let task = Some(TaskId::new(name).unwrap());
    let request = Request::CreateTask { task, device: device(), config: None };
    match site.inbox.request(request, None).await.unwrap()? {
        Response::Task(row) => Ok(row),
        other => panic!("{other:?}"),
    }
}

async fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: site\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

/// Looks until `seen` says what it saw, for as long as a slow machine may need.
async fn eventually<T>(what: &str, mut seen: impl FnMut() -> Option<T>) -> T {
    let by = tokio::time::Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(seen) = seen() {
            return seen;
        }
        assert!(tokio::time::Instant::now() < by, "it never came to: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn verified(dir: &Path) -> replay::Report {
    let directory = dir.join("site");
    let report =
        replay::verify_dir(&RealDisk, &directory).unwrap_or_else(|divergence| panic!("{divergence}"));
    let store = Store::open_existing(&RealDisk, &directory).unwrap();
    let changes = replay::verify_changes(&store.view()).unwrap_or_else(|divergence| panic!("{divergence}"));
    assert_eq!((changes.entries, &changes.rows), (report.entries, &report.rows));
    report
}

#[tokio::test]
async fn what_a_site_said_is_there_after_a_restart_and_its_journal_can_be_run_again() {
    let dir = tempfile::tempdir().unwrap();
    let first = site(dir.path()).await;
    assert!(first.edge_keys.first_time);
    assert_eq!(first.boot, Boot(1));
    assert!(get(first.api_addr, "/readyz").await.starts_with("HTTP/1.1 200"));
    assert!(get(first.s3_addr, "/").await.starts_with("HTTP/1.1 403"), "nobody uploads without keys");
    create(&first, "T1").await.unwrap();
    assert!(get(first.api_addr, "/api/v1/tasks/T1").await.contains("\"T1\""));
    let repeated = create(&first, "T1").await.unwrap_err();
    assert!(matches!(repeated, Refusal::TaskExists(_)), "{repeated:?}");
    let key = first.edge_keys.secret_key.clone();
    first.shutdown().await.unwrap();
    let report = verified(dir.path());
    assert_eq!((report.base, report.boots, report.stepped), (0, 1, report.entries));
    assert_eq!(report.rows[&Kind::Task], 1);

    let second = site(dir.path()).await;
    assert_eq!(second.boot, Boot(2));
    assert!(!second.edge_keys.first_time);
    assert_eq!(second.edge_keys.secret_key, key);
    assert!(matches!(second.view.get(&Key::Task(TaskId::new("T1").unwrap())).unwrap(), Some(Row::Task(_))));
    assert!(get(second.api_addr, "/metrics").await.contains("tidegate_"));
    second.shutdown().await.unwrap();
    assert_eq!(verified(dir.path()).boots, 2);
}

#[tokio::test]
async fn a_second_site_on_the_same_directory_is_refused_with_exit_code_4() {
    let dir = tempfile::tempdir().unwrap();
    let first = site(dir.path()).await;
    let refused = start(RealSeams::new(), config(dir.path()), |_, _| Ok(None)).await.unwrap_err();
    assert_eq!(refused.exit_code(), 4);
    assert!(refused.to_string().contains("in use by another tidegate (epoch 1)"), "{refused}");
    create(&first, "T1").await.unwrap();
    first.shutdown().await.unwrap();
}

#[tokio::test]
async fn an_address_that_is_taken_is_a_problem_of_the_configuration_and_leaves_nothing_running() {
    let dir = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut wrong = config(dir.path());
    wrong.listen.s3 = taken.local_addr().unwrap();
    let refused = start(RealSeams::new(), wrong, |_, _| Ok(None)).await.unwrap_err();
    assert_eq!(refused.exit_code(), 3);
    assert!(refused.to_string().contains("listen.s3"), "{refused}");
    site(dir.path()).await.shutdown().await.unwrap();
}

#[cfg(unix)]
#[tokio::test]
async fn the_keys_of_the_edge_can_be_read_by_their_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let site = site(dir.path()).await;
    let mode = std::fs::metadata(dir.path().join("site/edge-keys.toml")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(!format!("{site:?}").contains(site.edge_keys.secret_key.reveal()));
    site.shutdown().await.unwrap();
}

async fn uploader(site: &Site) -> Admitted {
    let asked = site.inbox.knock(Stranger::unproven(device(), Role::Transfer, "test")).await;
    asked.unwrap().unwrap()
}

/// Puts a recording where an uploader would have put it, while no site runs.
async fn recording(dir: &Path, key: &str, content: &'static [u8]) {
    let (spool, _) = Spool::open(RealSeams::new(), dir.join("site").join(SPOOL)).await.unwrap();
    spool.create_bucket("edge-site").await.unwrap();
    spool
        .put_bytes("edge-site", key, ingest::Described::default(), Bytes::from_static(content))
        .await
        .unwrap();
}

#[tokio::test]
async fn an_announced_recording_is_verified_acknowledged_and_parked_without_a_cloud_through_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    recording(dir.path(), "robot-1/T1.mcap", b"a recording").await;
    let first = site(dir.path()).await;
    create(&first, "T1").await.unwrap();
    let mut link = uploader(&first).await;
    let announced = Announced {
        task: "T1".to_owned(),
        key: Some("robot-1/T1.mcap".to_owned()),
        len: Some(11),
        sha256: Some(Sha256::of(b"a recording")),
        mcap_only: Some(true),
    };
    let message = TransferMessage::UploadComplete(announced);
    first.inbox.input(Input::Transfer { conn: link.conn, message }).await.unwrap();
    loop {
        let sent =
            tokio::time::timeout(Duration::from_secs(20), link.outbound.recv()).await.unwrap().unwrap();
        let Outbound::Text(text) = sent else { panic!("{sent:?}") };
        if text.contains("upload_ack") {
            break;
        }
    }
    // Whoever hears an acknowledgement finds the episode durable.
    let episode = EpisodeId(1);
    assert!(matches!(first.view.get(&Key::Episode(episode)).unwrap(), Some(Row::Episode(_))));
    let judged = Request::Judge { episode, approve: true, reason: None };
    assert!(matches!(first.inbox.request(judged, None).await.unwrap().unwrap(), Response::Episode(_)));
    let asked = first.inbox.request(Request::Sync { episode }, None).await.unwrap().unwrap();
    assert_eq!(asked, Response::SyncAccepted { episode });
    let view = first.view.clone();
    let parked = || {
        let mut why = None;
        let look = view.walk(Kind::Job, false, |_, row| {
            if let Row::Job(row) = row
                && let JobState::Parked { why: parked, .. } = row.state
            {
                why = Some(parked);
            }
            std::ops::ControlFlow::Continue(())
        });
        look.unwrap();
        why
    };
    let why = eventually("the job is parked", parked).await;
    assert!(matches!(why, ParkWhy::NoDestination), "{why:?}");
    let view = first.view.clone();
    // A kill: nobody says goodbye.
    drop(first);
    eventually("the driver of the dropped site is gone", || view.snapshot().is_err().then_some(())).await;
    let second = eventually_site(dir.path()).await;
    assert!(matches!(second.view.get(&Key::Episode(episode)).unwrap(), Some(Row::Episode(_))));
    let mut link = uploader(&second).await;
    assert_eq!(link.conn.boot, second.boot);
    second.shutdown().await.unwrap();
    let mut last = None;
    while let Some(outbound) = link.outbound.recv().await {
        last = Some(outbound);
    }
    assert_eq!(last, Some(Outbound::Close { code: 1001, reason: "site is stopping" }));
    let report = verified(dir.path());
    assert_eq!((report.boots, report.rows[&Kind::Episode], report.rows[&Kind::Job]), (2, 1, 1));
}

#[tokio::test]
async fn an_acknowledged_recording_cannot_be_removed_through_the_edge_before_or_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    recording(dir.path(), "robot-1/T1.mcap", b"a recording").await;
    let mut config = config(dir.path());
    config.edge.keys = Some(("AK".to_owned(), Secret::new("SK")));
    let delete = async |site: &Site| {
        let asked = ask("DELETE", "/edge-site/robot-1/T1.mcap", "", b"");
        let answer = asked.send_to(site.s3_addr.port()).await;
        assert!(answer.status == 409 && answer.text().contains("<Code>ObjectFrozen</Code>"), "{answer:?}");
    };
    let first = start(RealSeams::new(), config.clone(), |_, _| Ok(None)).await.unwrap();
    create(&first, "T1").await.unwrap();
    let mut link = uploader(&first).await;
    let announced = Announced {
        task: "T1".to_owned(),
        key: Some("robot-1/T1.mcap".to_owned()),
        len: Some(11),
        sha256: Some(Sha256::of(b"a recording")),
        mcap_only: Some(true),
    };
    let message = TransferMessage::UploadComplete(announced);
    first.inbox.input(Input::Transfer { conn: link.conn, message }).await.unwrap();
    loop {
        let sent =
            tokio::time::timeout(Duration::from_secs(20), link.outbound.recv()).await.unwrap().unwrap();
        if matches!(&sent, Outbound::Text(text) if text.contains("upload_ack")) {
            break;
        }
    }
    delete(&first).await;
    drop(link);
    first.shutdown().await.unwrap();
    let second = start(RealSeams::new(), config, |_, _| Ok(None)).await.unwrap();
    delete(&second).await;
    second.shutdown().await.unwrap();
    verified(dir.path());
}

/// The spool of a dropped site goes with its last task, which may take a moment.
async fn eventually_site(dir: &Path) -> Site {
    let by = tokio::time::Instant::now() + Duration::from_secs(20);
    loop {
        match start(RealSeams::new(), config(dir), |_, _| Ok(None)).await {
            Ok(site) => return site,
            Err(
                BootError::Spool(ingest::OpenError::InUse(_)) | BootError::DataDir(OpenError::InUse { .. }),
            ) => {
                assert!(tokio::time::Instant::now() < by, "the directory is never free");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

#[derive(Clone, Default)]
struct FailingSeams {
    disk: Failing,
    clock: RealClock,
}

impl Seams for FailingSeams {
    type Net = RealNet;
    type Disk = Failing;
    type Clock = RealClock;
    type Blocking = RealBlocking;
    fn net(&self) -> &RealNet {
        &RealNet
    }
    fn disk(&self) -> &Failing {
        &self.disk
    }
    fn clock(&self) -> &RealClock {
        &self.clock
    }
    fn blocking(&self) -> &RealBlocking {
        &RealBlocking
    }
}

#[tokio::test]
async fn a_first_start_that_finds_its_port_taken_uses_up_no_showing_of_the_keys() {
    let dir = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut busy = config(dir.path());
    busy.listen.s3 = taken.local_addr().unwrap();
    let refused = start(RealSeams::new(), busy, |_, _| Ok(None)).await.unwrap_err();
    assert!(matches!(refused, BootError::Listen { key: "listen.s3", .. }), "{refused}");
    let site = site(dir.path()).await;
    assert!(site.edge_keys.first_time, "nobody has seen these keys yet");
    site.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_commit_that_fails_ends_the_site_and_its_answer_is_never_given() {
    let dir = tempfile::tempdir().unwrap();
    let seams = FailingSeams::default();
    let mut site = start(seams.clone(), config(dir.path()), |_, _| Ok(None)).await.unwrap();
    create(&site, "T1").await.unwrap();
    seams.disk.break_now();
    let task = Some(TaskId::new("T2").unwrap());
    let request = Request::CreateTask { task, device: device(), config: None };
    assert!(site.inbox.request(request, None).await.is_err(), "nobody hears of a task that is not durable");
    let error = site.wait().await.unwrap_err();
    assert!(matches!(error, SiteError::Driver(DriverError::Store(_))), "{error}");
    assert!(get(site.api_addr, "/readyz").await.starts_with("HTTP/1.1 503"));
    site.shutdown().await.unwrap();
    let again = self::site(dir.path()).await;
    assert!(again.view.get(&Key::Task(TaskId::new("T1").unwrap())).unwrap().is_some());
    assert!(again.view.get(&Key::Task(TaskId::new("T2").unwrap())).unwrap().is_none());
    again.shutdown().await.unwrap();
    verified(dir.path());
}

#[tokio::test]
async fn a_journal_that_outgrew_its_limit_still_gives_the_records() {
    let dir = tempfile::tempdir().unwrap();
    for boot in 0..2 {
        let mut small = config(dir.path());
        small.journal.limit = 4 << 10;
        let site = start(RealSeams::new(), small, |_, _| Ok(None)).await.unwrap();
        for n in 0..60 {
            let name = format!("T{boot}-{n}");
            create(&site, &name).await.unwrap();
            if n % 3 == 0 {
                site.inbox.request(Request::CancelTask { task: name }, None).await.unwrap().unwrap();
            }
        }
        let bytes = site.gauge.read().journal_bytes;
        // A quarter above the limit at most, which the last batch may overstep before the next one shrinks it.
        assert!(bytes <= 6 << 10, "{bytes}");
        site.shutdown().await.unwrap();
        let report = verified(dir.path());
        assert!(report.base > 0 && report.entries > 10, "{report}");
        assert_eq!(report.rows[&Kind::Task], 60 * (boot + 1));
    }
}

#[tokio::test]
async fn a_task_of_the_site_that_ends_by_itself_is_named_and_ends_the_site() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = site(dir.path()).await;
    site.spawn("the planted task", async { panic!("a planted bug") });
    let error = site.wait().await.unwrap_err().to_string();
    assert!(
        error.starts_with("the planted task ended while the site ran: it panicked: a planted bug"),
        "{error}"
    );
    site.spawn("another task", async {});
    let error = site.wait().await.unwrap_err().to_string();
    assert!(error.starts_with("another task ended while the site ran: it returned"), "{error}");
    create(&site, "T1").await.unwrap();
    site.shutdown().await.unwrap();
    assert_eq!(verified(dir.path()).rows[&Kind::Task], 1);
}
