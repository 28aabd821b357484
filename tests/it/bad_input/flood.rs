//! Too much of what is allowed: pings without end, refusals without end, connections that say nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use std::time::Duration;

use serde_json::{Value, json};
use tidegate_device::WsError;
use tidegate_runtime::real::RealNet;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::Calm;
use crate::rig::{Plan, Raw, STEP, Site, run, until};
use crate::script::Recorder;

/// Far above what making room takes, and below the shortest time that a connection has if nobody needs its place.
const ROOM: Duration = Duration::from_secs(8);

/// A recorder link whose ends are free for two tasks.
async fn upgraded(site: &Site, device: &str) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", site.api)).await.expect("a connection");
    let head = format!(
        "GET /recorder/{device} HTTP/1.1\r\nhost: site\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.expect("sent");
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(stream.read_u8().await.expect("an answer"));
    }
    assert!(answer.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&answer));
    stream
}

async fn throttled(site: &Site) -> Option<f64> {
    let answer = site.send(http::Method::GET, "/metrics").await;
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    let line =
        text.lines().find(|l| l.starts_with("tidegate_throttled_seconds_total{role=\"recorder\"} "))?;
    line.split(' ').nth(1)?.parse().ok()
}

#[test]
fn a_ping_flood_is_slowed_down_and_others_are_answered_at_once() {
    run(async {
        let site = Plan::new().start().await;
        let mut calm = Calm::begin(&site).await;
        let (mut read, mut write) = upgraded(&site, "flood").await.into_split();
        let (sent, answered) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let ended = Arc::new(AtomicBool::new(false));
        // Masked with zeros, without a payload: the cheapest frame there is.
        let flood = vec![[0x89, 0x80, 0, 0, 0, 0]; 1000].concat();
        let count = Arc::clone(&sent);
        let floods = tokio::spawn(async move {
            while write.write_all(&flood).await.is_ok() {
                count.fetch_add(1000, Ordering::Relaxed);
            }
        });
        let (count, end) = (Arc::clone(&answered), Arc::clone(&ended));
        let reads = tokio::spawn(async move {
            let mut bytes = vec![0; 64 << 10];
            loop {
                match read.read(&mut bytes).await {
                    Ok(0) | Err(_) => break,
                    // A pong has two bytes; what else comes is short.
                    Ok(n) => count.fetch_add(n as u64 / 2, Ordering::Relaxed),
                };
            }
            end.store(true, Ordering::Relaxed);
        });
        until("the flood to be slowed down", STEP, async || throttled(&site).await.filter(|s| *s > 2.0))
            .await;
        let before = throttled(&site).await.expect("a figure");
        // Others are served meanwhile: a device that comes, and records as always.
        let mut recorder = Recorder::connect(&site, "calm").await;
        let (status, body, _) = recorder.obey(&site, "clear", &json!({}), "idle").await;
        assert_eq!(status, 200, "{body}");
        calm.holds("a ping flood").await;
        until("the flood to wait again", STEP, async || throttled(&site).await.filter(|s| *s > before)).await;
        assert!(!ended.load(Ordering::Relaxed), "the link that floods is slowed down, not closed");
        let (sent, answered) = (sent.load(Ordering::Relaxed), answered.load(Ordering::Relaxed));
        assert!(answered >= 1000, "what is allowed at once is answered: {answered} of {sent}");
        assert!(answered < sent / 2, "most of it waits in the sender's own memory: {answered} of {sent}");
        floods.abort();
        reads.abort();
        until("the link to be gone", STEP, async || {
            let devices = site.read("/api/v1/recorder/devices").await;
            let here =
                devices["devices"].as_array().expect("a list").iter().any(|d| d["device_id"] == "flood");
            (!here).then_some(())
        })
        .await;
        drop(recorder);
        calm.end().await;
    });
}

#[test]
fn callbacks_that_are_refused_again_and_again_are_turned_away_and_links_are_not() {
    run(async {
        let site = Plan::new().start().await;
        let body = json!({"device_id": "robot-1"});
        let turned_away = until("callbacks to be turned away", STEP, async || {
            let answer =
                site.http().send(http::Method::POST, "/api/v1/callbacks/start", &[], Some(&body)).await;
            let answer = answer.expect("an answer");
            match answer.status.as_u16() {
                400 => None,
                429 => Some(answer),
                other => panic!("{other}"),
            }
        })
        .await;
        let told = turned_away.json();
        assert_eq!(told["code"], "too_many_refusals", "{told}");
        assert_eq!(told["error_msg"], told["error"], "{told}");
        assert!(turned_away.headers.contains_key("retry-after"));
        Recorder::connect(&site, "robot-1").await;
    });
}

#[test]
fn connections_that_say_nothing_make_room_for_those_that_do() {
    run(async {
        // Nobody is hung up on for being slow before the places are taken.
        let site = Plan::new().start().await;
        let mut silent = Vec::new();
        for _ in 0..1_100 {
            let taken = TcpStream::connect(("127.0.0.1", site.api)).await;
            silent.push(taken.expect("the kernel takes it"));
            if silent.len() % 100 == 0 {
                assert_eq!(site.get("/healthz").await.0, 200, "after {} of them", silent.len());
            }
        }
        Recorder::connect(&site, "robot-1").await;
        assert_eq!(silent.len(), 1_100);
    });
}

/// Opens so many connections that say this and no more.
async fn fill(port: u16, many: usize, said: &[u8]) -> Vec<TcpStream> {
    let mut all = Vec::new();
    for _ in 0..many {
        let mut taken = TcpStream::connect(("127.0.0.1", port)).await.expect("the kernel takes it");
        // One that had to make room already may not take it.
        let _ = taken.write_all(said).await;
        all.push(taken);
    }
    all
}

#[test]
fn requests_whose_bodies_do_not_come_make_room_for_devices() {
    run(async {
        let site = Plan::new().start().await;
        for path in ["/api/v1/callbacks/finish", "/api/v1/devices/register"] {
            let half = format!("POST {path} HTTP/1.1\r\nhost: site\r\ncontent-length: 100\r\n\r\n{{");
            let halves = fill(site.api, 1_100, half.as_bytes()).await;
            let served = tokio::time::timeout(ROOM, async {
                assert_eq!(site.get("/readyz").await.0, 200);
                Recorder::connect(&site, "robot-1").await
            });
            served.await.unwrap_or_else(|_| panic!("half bodies for {path} keep others out"));
            assert_eq!(halves.len(), 1_100);
        }
    });
}

#[test]
fn connections_to_the_store_that_say_nothing_make_room_for_uploaders() {
    run(async {
        let site = Plan::new().start().await;
        for said in [&b""[..], b"PUT /edge-it/x HTTP/1.1\r\nhost: si"] {
            let silent = fill(site.s3, 700, said).await;
            let answer = tokio::time::timeout(ROOM, async { site.edge().head("it/none").await });
            answer.await.expect("room is made").expect("an answer");
            assert_eq!(silent.len(), 700);
        }
    });
}

#[test]
fn a_site_with_few_places_makes_room_as_well() {
    run(async {
        let site = Plan::new().set("limits.files", 80).start().await;
        let silent = fill(site.api, 150, b"").await;
        let ready = tokio::time::timeout(2 * ROOM, site.get("/readyz")).await.expect("room is made");
        assert_eq!(ready.0, 200);
        assert_eq!(silent.len(), 150);
    });
}

/// Asks for a link; the status of what it is told instead, if it is not let in.
async fn knock(site: &Site, path: &str, token: Option<&str>) -> Result<Raw, u16> {
    let bearer = token.map(|token| format!("Bearer {token}"));
    let headers: Vec<(&str, &str)> = bearer.iter().map(|value| ("Authorization", value.as_str())).collect();
    match Raw::dial(&RealNet, "127.0.0.1", site.api, path, &headers).await {
        Ok(link) => Ok(link),
        Err(WsError::Declined { status, .. }) => Err(status),
        Err(error) => panic!("{path}: {error}"),
    }
}

#[test]
fn who_shows_the_token_of_its_device_is_heard_whatever_others_at_its_address_do() {
    run(async {
        let site = Plan::new().set("auth.devices", "tokens").start().await;
        let token = async |device: &str| {
            let (status, made) = site.post(&format!("/api/v1/devices/{device}/token"), &json!({})).await;
            assert_eq!(status, 201, "{made}");
            made["token"].as_str().expect("shown once").to_owned()
        };
        let (own, other) = (token("robot-9").await, token("robot-8").await);
        for n in 0..200 {
            let device = if n % 8 == 0 { "robot-9".to_owned() } else { format!("robot-{}", 100 + n) };
            let refused = knock(&site, &format!("/recorder/{device}"), Some("kws_v1_made-up")).await;
            assert!(matches!(refused, Err(401 | 429)), "{n}: {:?}", refused.err());
        }
        // What becomes free again while others are told is used up by the next one.
        let turned_away = async |path: &str, shown: Option<&str>| {
            until(&format!("{path} to be turned away"), STEP, async || {
                let status = knock(&site, path, shown).await.expect_err("not let in");
                (status == 429).then_some(())
            })
            .await;
        };
        for (path, shown) in [
            ("/recorder/robot-9", None),
            ("/recorder/robot-9", Some("kws_v1_made-up")),
            ("/recorder/robot-9", Some(other.as_str())),
            ("/transfer/robot-9", None),
        ] {
            turned_away(path, shown).await;
        }
        let recorder = knock(&site, "/recorder/robot-9", Some(&own)).await.expect("it is heard");
        let uploader = knock(&site, "/transfer/robot-9", None).await.expect("it is near its recorder");
        drop(knock(&site, "/recorder/robot-8", Some(&other)).await.expect("another one is heard as well"));
        drop((recorder, uploader));
        // Who is disabled is a stranger again.
        let (status, _) = site.post("/api/v1/devices/robot-9/disable", &json!({})).await;
        assert_eq!(status, 200);
        turned_away("/recorder/robot-9", Some(&own)).await;
    });
}

#[test]
fn where_no_token_is_asked_for_a_sound_handshake_is_heard_whatever_others_at_its_address_do() {
    run(async {
        let site = Plan::new().start().await;
        until("strangers to be turned away", STEP, async || {
            let status = knock(&site, "/recorder/a%20b", None).await.expect_err("no device");
            (status == 429).then_some(())
        })
        .await;
        Recorder::connect(&site, "robot-9").await;
    });
}

#[test]
fn callbacks_about_tasks_of_the_site_are_heard_whatever_others_at_their_address_do() {
    run(async {
        let site = Plan::new().start().await;
        site.create_task("robot-1", "known").await;
        let send = async |path: &str, body: &Value| {
            let answer = site.http().send(http::Method::POST, path, &[], Some(body)).await;
            answer.expect("an answer").status.as_u16()
        };
        let (start, finish) = ("/api/v1/callbacks/start", "/api/v1/callbacks/finish");
        // What becomes free again is used up by the first of the two.
        let turned_away = async |path: &str, body: &Value| {
            until(&format!("{body} to be turned away"), STEP, async || {
                send(start, &json!({"device_id": "robot-1"})).await;
                (send(path, body).await == 429).then_some(())
            })
            .await;
        };
        turned_away("/api/v1/devices/register", &json!({"factory": "f"})).await;
        for body in [
            json!({"device_id": "robot-1", "task_id": "made-up"}),
            json!({"device_id": "robot-2", "task_id": "known"}),
            json!({"task_id": "known"}),
        ] {
            turned_away(start, &body).await;
        }
        assert_eq!(send(start, &json!({"device_id": "robot-1", "task_id": "known"})).await, 200);
        site.task_reaches("known", "in_progress").await;
        assert_eq!(send(finish, &crate::main_path::finish_callback("robot-1", "known")).await, 200);
        site.task_reaches("known", "uploading").await;
        let forged = [("authorization", "Bearer made-up")];
        let body = json!({"device_id": "robot-1", "task_id": "known"});
        let answer = site.http().send(http::Method::POST, start, &forged, Some(&body)).await;
        // The task came without a token, so none can be wrong.
        assert_eq!(answer.expect("an answer").status.as_u16(), 200);
    });
}
