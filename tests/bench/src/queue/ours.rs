//! Tidegate's side of `queue`: the real driver on its own thread, the real store in a real file, letters through the real
//! inbox, and the real executor over object stores that answer at once.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tidegate_core::effect::Response;
use tidegate_core::id::{DeviceId, EpisodeId, ObjectKey, Role, TaskId};
use tidegate_core::input::{Input, Request};
use tidegate_core::knobs::Knobs;
use tidegate_core::refusal::Refusal;
use tidegate_core::wire::TransferMessage;
use tidegate_core::wire::transfer::Announced;
use tidegate_runtime::board::Board;
use tidegate_runtime::feed::{Feed, Window};
use tidegate_runtime::driver::{Driver, DriverError};
use tidegate_runtime::figures::{Figures, Gauge};
use tidegate_runtime::inbox::{Gone, Inbox, Outbound};
use tidegate_runtime::ingest::{Frozen, Gate};
use tidegate_runtime::object::executor::{Stores, execute};
use tidegate_runtime::policies::{Loader, Shelf};
use tidegate_runtime::real::{RealBlocking, RealClock};
use tidegate_runtime::release::Release;
use tidegate_runtime::seam::Blocking;
use tidegate_runtime::store::Store;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use super::counted::CountedDisk;
use super::{CLAIMED_MAX, Sample, Spent};
use crate::instant::{Holds, InstantStore};

/// Bytes of every recording: one request, not parts.
const LEN: u64 = 1 << 20;
/// Devices that the recordings come from, and how many each has under way while they are made: fewer than the frames that
/// may wait for one link.
const DEVICES: u64 = 6;
const UNDER_WAY: u64 = 32;

/// A driver, its store and its executor.
struct Site {
    inbox: Inbox,
    gauge: Gauge,
    disk: CountedDisk,
    stop: watch::Sender<bool>,
    driver: JoinHandle<Result<(), DriverError>>,
    objects: JoinHandle<()>,
}

impl Site {
    async fn start(dir: &Path, journal: u64) -> io::Result<Site> {
        let disk = CountedDisk::default();
        let mut store = Store::open(&disk, dir, journal).map_err(io::Error::other)?;
        let boot = store.begin_boot().map_err(io::Error::other)?;
        let (inbox, letters) = Inbox::new();
        let (stop, stop_watch) = watch::channel(false);
        let (operations, operations_out) = mpsc::unbounded_channel();
        let (gate, _) = watch::channel(Gate::Open);
        let (ready, is_ready) = oneshot::channel();
        let gauge = Gauge::default();
        let mut knobs = Knobs { destination: true, keep_edge_ms: None, ..Knobs::default() };
        knobs.builtin.uploads = CLAIMED_MAX;
        let knobs = knobs.try_new().map_err(|bad| io::Error::other(bad.to_string()))?;
        let driver = Driver {
            clock: RealClock::default(),
            blocking: RealBlocking,
            store,
            boot,
            seed: 7,
            knobs,
            drain: Duration::from_secs(10),
            letters,
            release: Release::new(
                operations,
                mpsc::unbounded_channel().0,
                Feed::new(boot, Board::new(), Window::default()),
                gate,
                Frozen::new("edge-site"),
                gauge.clone(),
            ),
            loader: Loader::native(),
            shelf: Shelf::with_builtin(Knobs::default().builtin),
            gauge: gauge.clone(),
            stop: stop_watch,
            ready,
        };
        let driver =
            tokio::spawn(async move { RealBlocking.dedicate("tidegate-driver", move || driver.run()).await });
        let stores = Stores {
            edge: Arc::new(InstantStore::new(Holds::Everything, LEN)),
            cloud: Some(Arc::new(InstantStore::new(Holds::Nothing, LEN))),
        };
        let objects = tokio::spawn(execute(stores, operations_out, inbox.clone()));
        is_ready.await.map_err(io::Error::other)?;
        Ok(Site { inbox, gauge, disk, stop, driver, objects })
    }

    async fn stop(self) -> io::Result<()> {
        self.stop.send_replace(true);
        self.driver.await.map_err(io::Error::other)?.map_err(io::Error::other)?;
        self.objects.await.map_err(io::Error::other)
    }

    /// Waits until so many changes of a name were made durable.
    async fn until(&self, change: &str, count: u64) {
        while self.gauge.read().machine.changes.get(change).is_none_or(|n| *n < count) {
            tokio::time::sleep(Duration::from_micros(500)).await;
        }
    }
}

/// Makes a site with so many approved episodes, numbered from 1, the way devices and operators do.
pub async fn seed(dir: &Path, episodes: u64, journal: u64) -> io::Result<()> {
    let site = Site::start(dir, journal).await?;
    let mut devices = Vec::new();
    for device in 0..DEVICES {
        let inbox = site.inbox.clone();
        let share = (episodes * (device + 1) / DEVICES) - (episodes * device / DEVICES);
        devices.push(tokio::spawn(async move { deliver(&inbox, device, share).await }));
    }
    for device in devices {
        device.await.map_err(io::Error::other)??;
    }
    each(&site.inbox, 256, episodes, |episode| Request::Judge { episode, approve: true, reason: None })
        .await?;
    site.stop().await
}

/// One device makes so many recordings known and waits for their acknowledgements.
async fn deliver(inbox: &Inbox, device: u64, count: u64) -> io::Result<()> {
    let id = DeviceId::new(&format!("robot-{device}")).expect("a legal id");
    let link = inbox.knock(tidegate_runtime::inbox::Stranger::unproven(id.clone(), Role::Transfer, "bench")).await;
    let mut link = link.map_err(io::Error::other)?.map_err(refused)?;
    let (mut sent, mut heard) = (0, 0);
    while heard < count {
        if sent < count && sent < heard + UNDER_WAY {
            sent += 1;
            let task = format!("task-{device}-{sent:06}");
            let key = ObjectKey::new(&format!("{id}/{task}.mcap")).expect("a legal key");
            let named = TaskId::new(&task).expect("a legal id");
            let made = Request::CreateTask { task: Some(named), device: id.clone(), config: None };
            inbox.request(made, None).await.map_err(io::Error::other)?.map_err(refused)?;
            let announced = Announced {
                task,
                len: Some(LEN),
                sha256: Some(InstantStore::content(&key)),
                key: Some(key.to_string()),
                mcap_only: Some(true),
            };
            let message = TransferMessage::UploadComplete(announced);
            inbox.input(Input::Transfer { conn: link.conn, message }).await.map_err(io::Error::other)?;
            continue;
        }
        match link.outbound.recv().await {
            Some(Outbound::Text(text)) if text.contains("upload_ack") => heard += 1,
            Some(Outbound::Text(_)) => {}
            Some(Outbound::Close { .. }) | None => return Err(io::Error::other("the link was closed")),
        }
    }
    Ok(())
}

/// Makes one request for each episode, so many at once. Gives how long each took.
async fn each(
    inbox: &Inbox,
    callers: usize,
    episodes: u64,
    request: impl Fn(EpisodeId) -> Request + Clone + Send + 'static,
) -> io::Result<Vec<Duration>> {
    let next = Arc::new(AtomicU64::new(1));
    let callers: Vec<JoinHandle<io::Result<Vec<Duration>>>> = (0..callers)
        .map(|_| {
            let (inbox, next, request) = (inbox.clone(), Arc::clone(&next), request.clone());
            tokio::spawn(async move {
                let mut took = Vec::new();
                loop {
                    let episode = next.fetch_add(1, Ordering::Relaxed);
                    if episode > episodes {
                        return Ok(took);
                    }
                    let begun = Instant::now();
                    let answer: Result<Result<Response, Refusal>, Gone> =
                        inbox.request(request(EpisodeId(episode)), None).await;
                    answer.map_err(io::Error::other)?.map_err(refused)?;
                    took.push(begun.elapsed());
                }
            })
        })
        .collect();
    let mut took = Vec::new();
    for caller in callers {
        took.extend(caller.await.map_err(io::Error::other)??);
    }
    Ok(took)
}

/// One round on a copy of the seeded site.
pub async fn round(dir: &Path, callers: usize, jobs: u64, journal: u64) -> io::Result<Sample> {
    let site = Site::start(dir, journal).await?;
    let (before, spent, syncs) = (site.gauge.read(), Spent::now(), site.disk.syncs());
    let begun = Instant::now();
    let acks = each(&site.inbox, callers, jobs, |episode| Request::Sync { episode }).await?;
    site.until("job.completed", jobs).await;
    let took = begun.elapsed();
    let (after, spent) = (site.gauge.read(), Spent::now().since(spent));
    let steps = |figures: &Figures| figures.machine.inputs.values().sum::<u64>();
    let sample = Sample {
        took,
        jobs,
        acks,
        commits: after.commits - before.commits,
        syncs: site.disk.syncs() - syncs,
        written: spent.written,
        cpu: spent.cpu,
        steps: steps(&after) - steps(&before),
    };
    site.stop().await?;
    Ok(sample)
}

fn refused(refusal: Refusal) -> io::Error {
    io::Error::other(format!("refused: {refusal:?}"))
}
