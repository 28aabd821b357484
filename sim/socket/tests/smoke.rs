//! The same boot as the binary's, under turmoil, on a disk that can lose power: boot, a device connects, its network is
//! held, a newer connection takes over; and what was promised before a power loss is there after it.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, UNIX_EPOCH};

use serde_json::{Value, json};
use tidegate_device::{Http, Incoming, RawLink};
use tidegate_runtime::boot;
use tidegate_runtime::config::Config;
use tidegate_sim_socket::socket_world::{Keep, SimDisk, SimNet, SimSeams};

const SECOND: Duration = Duration::from_secs(1);

fn config() -> Config {
    let mut config = Config { site: "smoke".into(), data_dir: PathBuf::from("/data"), ..Config::default() };
    config.listen.api = SocketAddr::from(([0, 0, 0, 0], 8080));
    config.listen.s3 = SocketAddr::from(([0, 0, 0, 0], 9000));
    config.listen.insecure = true;
    config.policies.native = true;
    config.edge.keys = Some(("robots".into(), tidegate_runtime::config::Secret::new("swordfish")));
    config
}

/// A world with one site; virtual time starts at the same moment in each.
fn world(seed: u64, disk: &SimDisk) -> turmoil::Sim<'static> {
    fastrand::seed(seed);
    let mut sim = turmoil::Builder::new()
        .rng_seed(seed)
        .epoch(UNIX_EPOCH + Duration::from_secs(1_800_000_000))
        .simulation_duration(Duration::from_secs(600))
        .tick_duration(Duration::from_millis(1))
        .build();
    let disk = disk.clone();
    sim.host("site", move || {
        let seams = SimSeams::new(disk.clone(), seed);
        async move {
            let mut site =
                boot::start(seams, config(), |_, _| Ok(None)).await.map_err(|error| error.to_string())?;
            site.wait().await.map_err(|error| error.to_string())?;
            Ok(())
        }
    });
    sim
}

type Done = Result<(), Box<dyn std::error::Error>>;

/// What the sockets saw, in order.
type Seen = Rc<RefCell<Vec<String>>>;

async fn dial() -> Result<RawLink<<SimNet as tidegate_runtime::seam::Net>::Stream>, String> {
    for _ in 0..100 {
        match RawLink::dial(&SimNet, "site", 8080, "/recorder/r1", &[]).await {
            Ok(link) => return Ok(link),
            // The site is still booting: nobody listens.
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
    Err("no link within ten seconds".into())
}

async fn state() -> Result<Value, String> {
    let http = Http::new(SimNet, "site", 8080);
    http.get("/api/v1/recorder/r1/state").await.map(|(_, _, body)| body).map_err(|error| error.to_string())
}

fn snapshot(request: &Value, state: &str) -> Value {
    json!({"type": "rpc_response", "request_id": request["request_id"], "success": true, "message": "ok",
           "data": {"state": state}})
}

fn takeover(seed: u64) -> Vec<String> {
    let disk = SimDisk::new();
    let mut sim = world(seed, &disk);
    let seen: Seen = Rc::default();

    let first = Rc::clone(&seen);
    let (confirmed, is_confirmed) = tokio::sync::oneshot::channel();
    sim.client("robot", async move {
        let mut link = dial().await?;
        let asked = link.next_json(5 * SECOND).await?;
        first.borrow_mut().push(format!("old: {} {}", asked["type"], asked["action"]));
        link.send_json(&snapshot(&asked, "idle")).await.map_err(|error| error.to_string())?;
        while state().await?["state_synced"] != true {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        first.borrow_mut().push("old: confirmed idle".into());
        // The network of this robot stops; it goes on talking into the void.
        turmoil::hold("robot", "site");
        let late = json!({"type": "state_update", "timestamp": 1, "data": {"previous": "idle", "current": "recording",
                          "task_id": "ghost"}});
        link.send_json(&late).await.map_err(|error| error.to_string())?;
        let _ = confirmed.send(());
        match link.closed(60 * SECOND).await {
            Ok(closed) => first.borrow_mut().push(format!("old: closed {closed:?}")),
            Err(why) => return Err(why.into()),
        }
        Ok(())
    });

    let second = Rc::clone(&seen);
    sim.client("robot-again", async move {
        is_confirmed.await?;
        let mut link = dial().await?;
        let asked = link.next_json(5 * SECOND).await?;
        second.borrow_mut().push(format!("new: {} {}", asked["type"], asked["action"]));
        let syncing = state().await?;
        second.borrow_mut().push(format!("new: {} {}", syncing["confidence"], syncing["current_state"]));
        link.send_json(&snapshot(&asked, "idle")).await.map_err(|error| error.to_string())?;
        while state().await?["state_synced"] != true {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // What the old one said while it was held arrives now, and changes nothing.
        turmoil::release("robot", "site");
        tokio::time::sleep(SECOND).await;
        let after = state().await?;
        second
            .borrow_mut()
            .push(format!("new: {} {} {}", after["confidence"], after["current_state"], after["task_id"]));
        match link.next(SECOND).await {
            Ok(None | Some(Incoming::Ping(_))) => second.borrow_mut().push("new: left in peace".into()),
            other => second.borrow_mut().push(format!("new: {other:?}")),
        }
        Ok(())
    });

    sim.run().expect("the world ends well");
    drop(sim);
    Rc::try_unwrap(seen).expect("the world is gone").into_inner()
}

#[test]
fn a_newer_connection_takes_over_from_one_behind_a_held_network() {
    let seen = takeover(1);
    assert_eq!(
        seen,
        [
            r#"old: "rpc_request" "get_state""#,
            "old: confirmed idle",
            r#"new: "rpc_request" "get_state""#,
            r#"new: "syncing" "unknown""#,
            r#"old: closed Some((4001, "replaced by a newer connection"))"#,
            r#"new: "confirmed" "idle" """#,
            "new: left in peace",
        ]
    );
}

#[test]
fn the_same_seed_shows_the_sockets_the_same() {
    assert_eq!(takeover(7), takeover(7));
}

fn power_loss(keep: Keep) {
    let disk = SimDisk::new();
    let mut sim = world(3, &disk);
    sim.client("operator", async move {
        let http = Http::new(SimNet, "site", 8080);
        let body = json!({"task_id": "take-1", "device_id": "r1"});
        for _ in 0..100 {
            match http.post("/api/v1/tasks", &body).await {
                Ok((201, _, _)) => return Ok(()),
                Ok((status, _, body)) => return Err(format!("{status} {body}").into()),
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
        Err("nobody took the task within ten seconds".into())
    });
    sim.run().expect("the task is taken");
    disk.lose_power(keep);
    drop(sim);

    let mut sim = world(4, &disk);
    sim.client("operator", async move {
        let http = Http::new(SimNet, "site", 8080);
        for _ in 0..100 {
            match http.get("/api/v1/tasks/take-1").await {
                Ok((200, _, task)) if task["status"] == "pending" => return Done::Ok(()),
                Ok((status, _, body)) => return Err(format!("{status} {body}").into()),
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
        Err("the site did not come back within ten seconds".into())
    });
    sim.run().expect("what was answered before the power loss is there after it");
}

#[test]
fn what_was_answered_survives_a_power_loss_that_keeps_nothing_unsynced() {
    power_loss(Keep::Nothing);
}

#[test]
fn what_was_answered_survives_power_losses_that_keep_some_of_the_unsynced() {
    for seed in 0..8 {
        power_loss(Keep::Prefix { seed });
        power_loss(Keep::Subset { seed });
    }
}
