//! Five hundred devices at once: links, states and what comes of them when all come back together. What it costs is
//! measured by tests/bench, not here.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tidegate_runtime::real::{RealNet, RealSeams};
use tidegate_runtime::seam::Seams as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::limits::metric;
use crate::rig::{Plan, Raw, STEP, Site, run, until};
use crate::script::status;
use crate::skip;
use crate::stream::{Follower, Told};

const DEVICES: usize = 500;
/// Descriptors of this process: two links of each device, and what tests that run beside it use.
const FILES: u64 = 2 * DEVICES as u64 + 500;
/// Recordings that an uploader lists in its greeting; their tasks are those of another site.
const WAITING: usize = 64;
/// Pause before a device that was not let in dials again.
const REDIAL: Duration = Duration::from_millis(50);
/// Longer than any test.
const FOR_EVER: Duration = Duration::from_secs(3600);

#[test]
fn five_hundred_devices_with_both_links_come_back_after_a_storm() {
    let files = RealSeams::new().descriptors(None);
    if files.is_some_and(|files| files.soft < FILES) {
        let why = format!("this process may have {files:?} open, and needs {FILES} descriptors");
        return skip::cannot_be_had("scale::five_hundred_devices_with_both_links", &why);
    }
    run(async {
        // Shown when it fails: how far it came, and what took how long.
        let begun = std::time::Instant::now();
        let came_to = |what: &str| eprintln!("{:>6.1} s  {what}", begun.elapsed().as_secs_f64());
        let mut site = Plan::new().set("stream.bytes", "8MiB").start().await;
        let mut stalled = Stalled::open(&site).await;
        let viewers = [Viewer::open(&site).await, Viewer::open(&site).await];
        let mut fleet = Fleet::dial(&site);
        fleet.are("word-0", &site).await;
        came_to("all links are up");

        fleet.say("word-1");
        fleet.are("word-1", &site).await;
        let confirmed = metric(&site, "tidegate_recorders{confidence=\"confirmed\"}").await;
        assert_eq!(confirmed, Some(DEVICES as u64));
        came_to("all states were pushed");

        for word in ["word-2", "word-3"] {
            fleet.drop_all(word);
            fleet.are(word, &site).await;
            for viewer in &viewers {
                viewer.saw_all(word).await;
            }
            came_to("all came back after a drop, and viewers saw them");
        }
        for viewer in viewers {
            viewer.missed_nothing().await;
        }
        stalled.is_told_or_cut().await;
        came_to("who read nothing was told or cut");

        fleet.forget_all("word-4");
        site.kill();
        site.start().await;
        fleet.are("word-4", &site).await;
        came_to("all came back after a kill");
        assert_eq!(site.get("/readyz").await.0, 200);
        site.stop().await;
    });
}

/// A reader of the stream that keeps up.
struct Viewer {
    seen: Arc<Mutex<Vec<Told>>>,
    reading: JoinHandle<()>,
}

impl Viewer {
    async fn open(site: &Site) -> Viewer {
        let mut follower = Follower::follow(site, "").await;
        let seen: Arc<Mutex<Vec<Told>>> = Arc::default();
        let all = Arc::clone(&seen);
        let reading = tokio::spawn(async move {
            while let Some(told) = follower.maybe_next().await {
                all.lock().expect("nobody panics with it").push(told);
            }
        });
        Viewer { seen, reading }
    }

    /// Waits until it was told of each device that it is in this state.
    async fn saw_all(&self, word: &str) {
        until(&format!("a viewer to see all devices {word}"), STEP, async || {
            let seen = self.seen.lock().expect("nobody panics with it");
            let is = |told: &&Told| told.name == "recorder_state" && told.data["current_state"] == word;
            let devices: BTreeSet<&str> =
                seen.iter().filter(is).filter_map(|told| told.data["device_id"].as_str()).collect();
            (devices.len() == DEVICES).then_some(())
        })
        .await;
    }

    /// Its ids were 1, 2, 3, … from its snapshot on.
    async fn missed_nothing(self) {
        self.reading.abort();
        assert!(self.reading.await.is_err_and(|error| error.is_cancelled()), "it was still reading");
        let seen = self.seen.lock().expect("nobody panics with it");
        for pair in seen.windows(2) {
            assert_eq!(pair[1].seq(), pair[0].seq() + 1, "{pair:?}");
        }
    }
}

/// A reader of the stream that reads nothing after its snapshot.
struct Stalled(TcpStream);

impl Stalled {
    async fn open(site: &Site) -> Stalled {
        // HTTP/1.0: the body comes without chunks. A small buffer, so that little fits on the way.
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(4096).expect("a small buffer");
        let stream = socket.connect(([127, 0, 0, 1], site.api).into()).await.expect("the site listens");
        let mut stalled = Stalled(stream);
        stalled.0.write_all(b"GET /api/v1/device-state/stream HTTP/1.0\r\n\r\n").await.expect("a request");
        assert!(stalled.reads("event: snapshot_end").await, "the stream ended");
        stalled
    }

    /// Reads up to this text; `false` if the stream ends before.
    async fn reads(&mut self, text: &str) -> bool {
        let mut kept = Vec::new();
        let mut piece = vec![0; 64 << 10];
        loop {
            let read = tokio::time::timeout(STEP, self.0.read(&mut piece)).await.expect("bytes in time");
            let Ok(len @ 1..) = read else { return false };
            kept.extend_from_slice(&piece[..len]);
            if String::from_utf8_lossy(&kept).contains(text) {
                return true;
            }
            kept.drain(..kept.len().saturating_sub(text.len()));
        }
    }

    /// It reads on, and is told that it missed something, or it was hung up on. It holds nobody up, and nothing is missing
    /// without a word.
    async fn is_told_or_cut(&mut self) {
        let told = self.reads("event: resync").await;
        assert!(!told || self.reads("event: snapshot_end").await, "a snapshot follows");
    }
}

/// What all devices are told.
#[derive(Clone, Debug)]
struct Order {
    /// How often all links were dropped.
    drops: u32,
    /// The state that each device is in.
    word: String,
    /// Whether a change of the word is pushed, or only told when asked.
    pushed: bool,
}

/// Devices with both links, which dial for as long as they are not dropped.
struct Fleet {
    orders: watch::Sender<Order>,
    _devices: JoinSet<()>,
}

impl Fleet {
    fn dial(site: &Site) -> Fleet {
        let orders = watch::Sender::new(Order { drops: 0, word: "word-0".to_owned(), pushed: true });
        let mut devices = JoinSet::new();
        for n in 0..DEVICES {
            devices.spawn(live(site.api, format!("robot-{n:03}"), orders.subscribe()));
        }
        Fleet { orders, _devices: devices }
    }

    /// Each device pushes a new state.
    fn say(&mut self, word: &str) {
        self.orders.send_modify(|order| (order.word, order.pushed) = (word.to_owned(), true));
    }

    /// All links are dropped at once and dialled anew; the states are other ones by then.
    fn drop_all(&mut self, word: &str) {
        self.orders.send_modify(|order| {
            (order.word, order.pushed) = (word.to_owned(), false);
            order.drops += 1;
        });
    }

    /// The states become other ones, which the devices tell only when they are asked.
    fn forget_all(&mut self, word: &str) {
        self.orders.send_modify(|order| (order.word, order.pushed) = (word.to_owned(), false));
    }

    /// Waits until the site knows, by their own confirmed word, that all devices are in this state, and has all links.
    async fn are(&self, word: &str, site: &Site) {
        until(&format!("all devices to be {word}"), STEP, async || {
            let (status, list) = site.get("/api/v1/recorder/devices").await;
            let known =
                |device: &&Value| device["state"]["current_state"] == word && device["state_synced"] == true;
            let known = list["devices"].as_array()?.iter().filter(known).count();
            let (_, list) = site.get("/api/v1/transfer/devices").await;
            let uploaders = list["devices"].as_array()?.len();
            (status == 200 && (known, uploaders) == (DEVICES, DEVICES)).then_some(())
        })
        .await;
    }
}

async fn live(api: u16, device: String, mut orders: watch::Receiver<Order>) {
    loop {
        let drops = orders.borrow_and_update().drops;
        if let Some((recorder, uploader)) = links(api, &device).await {
            serve(recorder, uploader, drops, &mut orders).await;
        }
        tokio::time::sleep(REDIAL).await;
    }
}

async fn links(api: u16, device: &str) -> Option<(Raw, Raw)> {
    let dial =
        async |role| Raw::dial(&RealNet, "127.0.0.1", api, &format!("/{role}/{device}"), &[]).await.ok();
    let (recorder, mut uploader) = (dial("recorder").await?, dial("transfer").await?);
    // A long list, so that each greeting makes a large event.
    let waits =
        |n| json!({"task_id": format!("{device}-{}-{n}", "x".repeat(100)), "status": "uploaded_wait_ack"});
    let list: Vec<Value> = (0..WAITING).map(waits).collect();
    let greeting =
        json!({"type": "connected", "timestamp": "2026-03-05T00:00:00.000Z", "data": status(device, &list)});
    uploader.send_json(&greeting).await.ok()?;
    Some((recorder, uploader))
}

/// Until a link ends or all are dropped.
async fn serve(mut recorder: Raw, mut uploader: Raw, drops: u32, orders: &mut watch::Receiver<Order>) {
    loop {
        let sent = tokio::select! {
            biased;
            changed = orders.changed() => {
                let order = orders.borrow_and_update().clone();
                if changed.is_err() || order.drops != drops {
                    return;
                }
                if !order.pushed {
                    continue;
                }
                let data = json!({"previous": "idle", "current": order.word});
                let push = json!({"type": "state_update", "timestamp": 1_781_000_000_000_u64, "data": data});
                recorder.send_json(&push).await
            }
            asked = recorder.next_json(FOR_EVER) => {
                let Ok(asked) = asked else { return };
                let data = json!({"version": "0.4.0", "state": orders.borrow().word, "running": false});
                let answer = json!({
                    "type": "rpc_response",
                    "request_id": asked["request_id"],
                    "success": true,
                    "message": "State retrieved successfully",
                    "data": data,
                });
                recorder.send_json(&answer).await
            }
            heard = uploader.next(FOR_EVER) => heard.map(drop),
        };
        if sent.is_err() {
            return;
        }
    }
}
