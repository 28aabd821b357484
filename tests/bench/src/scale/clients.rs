//! Devices by the thousand in one process: a task per link that answers `get_state` and pings, tells a state now and then,
//! and comes back as stock programs do. Started by `scale`, told what to do on standard input, one word a line.

use std::io::{self, BufRead};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::json;
use tidegate_runtime::real::RealSeams;
use tidegate_runtime::seam::Seams as _;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::Roles;
use super::wire::{CLOSE, NoLink, PING, PONG, TEXT, Wire, text_of};

/// What a process of devices is told.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Port of the site.
    #[arg(long)]
    api: u16,
    /// Address that its links come from.
    #[arg(long)]
    source: IpAddr,
    /// Number of its first device.
    #[arg(long)]
    first: usize,
    /// How many devices.
    #[arg(long)]
    count: usize,
    /// Which links each has.
    #[arg(long, value_enum)]
    roles: Roles,
    /// Milliseconds between two states that a recorder tells.
    #[arg(long)]
    every_ms: u64,
}

/// What all links are told.
#[derive(Clone, Copy, Debug)]
struct Order {
    /// Whether recorders tell states.
    talk: bool,
    /// How often all links were dropped.
    drops: u32,
    /// Whether it is over.
    stop: bool,
}

#[derive(Debug, Default)]
struct Counts {
    dials: AtomicU64,
    declined: AtomicU64,
    broken: AtomicU64,
    ended: AtomicU64,
    told: AtomicU64,
    asked: AtomicU64,
}

fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

struct Fleet {
    options: Options,
    counts: Counts,
    begun: Instant,
}

/// Runs until it is told to stop, then prints its counts.
pub fn run(options: &Options) -> io::Result<()> {
    let links = options.count as u64 * if options.roles == Roles::Both { 2 } else { 1 };
    if let Some(files) = RealSeams::new().descriptors(None)
        && files.soft < links + SPARE
    {
        let why =
            format!("{links} links need more than the {} descriptors of a process: ulimit -n", files.soft);
        return Err(io::Error::other(why));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (orders, mut order) = watch::channel(Order { talk: false, drops: 0, stop: false });
    std::thread::spawn(move || listen(&orders));
    runtime.block_on(async {
        let fleet =
            Arc::new(Fleet { options: options.clone(), counts: Counts::default(), begun: Instant::now() });
        for n in 0..options.count {
            if options.roles != Roles::Transfer {
                tokio::spawn(live(fleet.clone(), n, "recorder", order.clone()));
            }
            if options.roles != Roles::Recorder {
                tokio::spawn(live(fleet.clone(), n, "transfer", order.clone()));
            }
        }
        // An error is the end of standard input: the parent is gone.
        let _ = order.wait_for(|order| order.stop).await;
        let counts = &fleet.counts;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let told = json!({
            "dials": read(&counts.dials),
            "declined": read(&counts.declined),
            "broken": read(&counts.broken),
            "ended": read(&counts.ended),
            "told": read(&counts.told),
            "asked": read(&counts.asked),
        });
        println!("{told}");
    });
    Ok(())
}

/// Hears the parent's words.
fn listen(orders: &watch::Sender<Order>) {
    for line in io::stdin().lock().lines() {
        let Ok(line) = line else { break };
        orders.send_modify(|order| match line.trim() {
            "talk" => order.talk = true,
            "hush" => order.talk = false,
            "drop" => order.drops += 1,
            _ => order.stop = true,
        });
    }
    orders.send_modify(|order| order.stop = true);
}

/// One program: dials, is there, and dials again.
async fn live(fleet: Arc<Fleet>, n: usize, role: &'static str, mut orders: watch::Receiver<Order>) {
    let number = fleet.options.first + n;
    let path = format!("/{role}/scale-{number:05}");
    // Not all in the same moment: nobody switches on a fleet like that. What comes back together is the storm.
    sleep(FIRST_DIALS * u32::try_from(n).unwrap_or(u32::MAX)).await;
    let mut failures = 0;
    loop {
        add(&fleet.counts.dials);
        match Wire::dial(fleet.options.source, fleet.options.api, &path).await {
            Ok(mut wire) => {
                failures = 0;
                // Any error is the end of the link, and what is counted is how often that happens.
                let _ = serve(&fleet, n, role, &mut wire, &mut orders).await;
                add(&fleet.counts.ended);
            }
            Err(NoLink::Declined) => {
                add(&fleet.counts.declined);
                failures += 1;
            }
            Err(NoLink::Broken) => {
                add(&fleet.counts.broken);
                failures += 1;
            }
        }
        sleep(pause(failures)).await;
    }
}

/// Until the link ends or all are dropped.
async fn serve(
    fleet: &Fleet,
    n: usize,
    role: &'static str,
    wire: &mut Wire,
    orders: &mut watch::Receiver<Order>,
) -> io::Result<()> {
    let Order { mut talk, drops, .. } = *orders.borrow_and_update();
    let every = Duration::from_millis(fleet.options.every_ms);
    // Spread over the interval, each device at the same place of it every time.
    let place = every.mul_f64(n as f64 / fleet.options.count as f64);
    let rounds = fleet.begun.elapsed().as_nanos() / every.as_nanos().max(1) + 1;
    let mut next = fleet.begun + every * u32::try_from(rounds).unwrap_or(u32::MAX) + place;
    if role == "transfer" {
        wire.send(TEXT, GREETING.as_bytes()).await?;
    }
    loop {
        tokio::select! {
            biased;
            changed = orders.changed() => {
                let order = *orders.borrow_and_update();
                if changed.is_err() || order.drops != drops {
                    return Ok(());
                }
                talk = order.talk;
            }
            () = sleep_until(next) => {
                next += every;
                if talk && role == "recorder" {
                    let now = now_us();
                    let text = format!(
                        "{{\"type\":\"state_update\",\"timestamp\":{},\"data\":{{\"previous\":\"idle\",\"current\":\"t{now}\"}}}}",
                        now / 1000
                    );
                    wire.send(TEXT, text.as_bytes()).await?;
                    add(&fleet.counts.told);
                }
            }
            heard = wire.next() => match heard? {
                (TEXT, text) => {
                    let text = String::from_utf8_lossy(&text);
                    if let (Some("get_state"), Some(id)) = (text_of(&text, "\"action\""), text_of(&text, "\"request_id\"")) {
                        let answer = format!(
                            "{{\"type\":\"rpc_response\",\"request_id\":\"{id}\",\"success\":true,\"message\":\"ok\",\
                             \"data\":{{\"version\":\"0.4.0\",\"state\":\"idle\",\"running\":false}}}}"
                        );
                        wire.send(TEXT, answer.as_bytes()).await?;
                        add(&fleet.counts.asked);
                    }
                }
                (PING, payload) => wire.send(PONG, &payload).await?,
                (CLOSE, _) => return Ok(()),
                _ => {}
            },
        }
    }
}

/// The pause before a program dials again, as stock recorders make it: one second, doubled with every failure up to a
/// minute, a fifth more or less.
fn pause(failures: u32) -> Duration {
    let whole = Duration::from_secs(1).saturating_mul(1 << failures.min(6)).min(Duration::from_secs(60));
    whole.mul_f64(0.8 + 0.4 * fastrand::f64())
}

/// Microseconds since 1970.
pub fn now_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// Descriptors of a process besides those of its links.
const SPARE: u64 = 64;
/// Between the first dials of two devices of a process.
const FIRST_DIALS: Duration = Duration::from_millis(2);
const GREETING: &str = "{\"type\":\"connected\",\"timestamp\":\"2026-03-05T00:00:00.000Z\",\"data\":{\"version\":\"0.4.1\",\
    \"pending_count\":0,\"active_count\":0,\"waiting_ack_count\":0,\"waiting_ack_task_ids\":[],\"completed_count\":0,\
    \"failed_count\":0,\"uploads\":[]}}";
