//! The links of devices under handshakes, frames and messages that no device should send.

use serde_json::{Value, json};
use tidegate_device::{Incoming, Opcode, WsError};

use super::wire::{Reply, Wire, ask};
use super::{Calm, GOOD};
use crate::rig::{Plan, Raw, STEP, Site, noise, run, until};

const KEY: &str = "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
const UPGRADE: &str = "connection: Upgrade\r\nupgrade: websocket\r\n";
const VERSION: &str = "sec-websocket-version: 13\r\n";

fn handshake(method: &str, path: &str, headers: &[&str]) -> String {
    format!("{method} {path} HTTP/1.1\r\nhost: site\r\n{}\r\n", headers.concat())
}

/// A frame of a client, with a mask of zeros.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = head(first, payload.len() as u64);
    bytes.extend_from_slice(payload);
    bytes
}

/// The head of a frame that announces so many bytes.
fn head(first: u8, len: u64) -> Vec<u8> {
    let mut bytes = vec![first];
    match len {
        0..126 => bytes.push(0x80 | u8::try_from(len).expect("small")),
        126..0x1_0000 => {
            bytes.push(0x80 | 126);
            bytes.extend_from_slice(&u16::try_from(len).expect("small").to_be_bytes());
        }
        _ => {
            bytes.push(0x80 | 127);
            bytes.extend_from_slice(&len.to_be_bytes());
        }
    }
    bytes.extend_from_slice(&[0; 4]);
    bytes
}

#[test]
fn a_handshake_that_is_none_is_refused_and_opens_no_link() {
    run(async {
        let site = Plan::new().start().await;
        let mut calm = Calm::begin(&site).await;
        let bad = |headers: &[&str]| handshake("GET", "/recorder/half", headers);
        let same = |_: &Reply| true;
        let version = |reply: &Reply| reply.header("sec-websocket-version") == Some("13");
        let allow = |reply: &Reply| reply.header("allow") == Some("GET");
        let upgrade = |reply: &Reply| reply.header("upgrade") == Some("websocket");
        type Also = fn(&Reply) -> bool;
        let cases: [(&str, String, u16, Also); 12] = [
            ("no key", bad(&[UPGRADE, VERSION]), 400, same),
            ("a short key", bad(&[UPGRADE, VERSION, "sec-websocket-key: AAAA\r\n"]), 400, same),
            ("a key that is no base64", bad(&[UPGRADE, VERSION, "sec-websocket-key: ????\r\n"]), 400, same),
            ("no version", bad(&[UPGRADE, KEY]), 400, version),
            ("an old version", bad(&[UPGRADE, KEY, "sec-websocket-version: 8\r\n"]), 400, version),
            ("a future version", bad(&[UPGRADE, KEY, "sec-websocket-version: 99\r\n"]), 400, version),
            ("no upgrade", bad(&[KEY, VERSION]), 426, upgrade),
            (
                "another upgrade",
                bad(&["connection: Upgrade\r\nupgrade: h2c\r\n", KEY, VERSION]),
                426,
                upgrade,
            ),
            ("no connection header", bad(&["upgrade: websocket\r\n", KEY, VERSION]), 426, upgrade),
            ("POST", handshake("POST", "/recorder/half", &[UPGRADE, KEY, VERSION]), 405, allow),
            ("PUT", handshake("PUT", "/transfer/half", &[UPGRADE, KEY, VERSION]), 405, allow),
            ("no device", handshake("GET", "/recorder/", &[UPGRADE, KEY, VERSION]), 400, same),
        ];
        for (name, request, status, also) in cases {
            match ask(site.api, request.as_bytes()).await {
                Some(reply) if reply.status == status && also(&reply) => {}
                other => calm.finding(name, format!("{other:?}")),
            }
            calm.holds(name).await;
        }
        let long = "x".repeat(129);
        for id in [
            "..",
            "%2e%2e",
            "..%2f..%2fetc",
            "a/../b",
            "a/b",
            "%00",
            "%ff",
            "a%20b",
            "r%C3%B6bot",
            "%25",
            &long,
        ] {
            for role in ["recorder", "transfer"] {
                let path = format!("/{role}/{id}");
                let reply = ask(site.api, handshake("GET", &path, &[UPGRADE, KEY, VERSION]).as_bytes()).await;
                match reply {
                    Some(reply) if reply.status == 400 && reply.json()["field"] == "device_id" => {}
                    other => calm.finding(&path, format!("{other:?}")),
                }
            }
            calm.holds(id).await;
        }
        for list in ["recorder", "transfer"] {
            let devices = site.read(&format!("/api/v1/{list}/devices")).await;
            assert_eq!(devices["devices"].as_array().map(Vec::len), Some(1), "only {GOOD}: {devices}");
        }
        calm.end().await;
    });
}

#[test]
fn a_frame_that_breaks_the_protocol_closes_its_own_link_and_no_other() {
    run(async {
        let site = Plan::new().start().await;
        let mut calm = Calm::begin(&site).await;
        let protocol: &[u16] = &[1002];
        let too_big: &[u16] = &[1009];
        let big = vec![b'x'; 1 << 20];
        let mut fragments = frame(0x01, &big);
        for _ in 0..8 {
            fragments.extend(frame(0x00, &big));
        }
        let cases: Vec<(&str, Vec<u8>, &[u16])> = vec![
            ("a frame without a mask", vec![0x81, 2, b'{', b'}'], protocol),
            ("the first reserved bit", frame(0xc1, b"{}"), protocol),
            ("all reserved bits", frame(0xf1, b"{}"), protocol),
            ("opcode 3", frame(0x83, b"{}"), protocol),
            ("opcode 11", frame(0x8b, b""), protocol),
            ("a continuation of nothing", frame(0x80, b"{}"), protocol),
            ("a message inside a message", [frame(0x01, b"{"), frame(0x81, b"{}")].concat(), protocol),
            ("a long ping", frame(0x89, &[0; 126]), protocol),
            ("a ping in fragments", frame(0x09, b"x"), protocol),
            ("a close of one byte", frame(0x88, &[3]), &[1002, 1000]),
            ("a close with code 0", frame(0x88, &[0, 0]), &[1002, 1000]),
            ("a close with code 1005", frame(0x88, &[0x03, 0xed]), &[1002, 1000]),
            ("a close with code 65535", frame(0x88, &[0xff, 0xff]), &[1002, 1000]),
            ("a close whose reason is no text", frame(0x88, &[0x03, 0xe8, 0xff, 0xfe]), &[1002, 1007]),
            ("an announced frame of 9 MiB", head(0x81, 9 << 20), too_big),
            ("an announced frame of 8 EiB", head(0x81, u64::MAX >> 1), too_big),
            ("an announced frame with the highest bit", head(0x81, u64::MAX), &[1002, 1009]),
            ("9 MiB in fragments", fragments, too_big),
            ("HTTP after the handshake", b"GET /readyz HTTP/1.1\r\nhost: site\r\n\r\n".to_vec(), protocol),
        ];
        for (at, (name, bytes, codes)) in cases.iter().enumerate() {
            let role = ["recorder", "transfer"][at % 2];
            let mut link = site.dial(&format!("/{role}/rude")).await.expect("a link");
            // The site may close before it has read everything.
            let _ = link.send_bytes(bytes).await;
            match link.closed(STEP).await {
                Ok(Some((code, _))) if codes.contains(&code) => {}
                other => calm.finding(name, format!("{other:?}")),
            }
            calm.holds(name).await;
        }
        for seed in 0..20 {
            let mut link = site.dial("/recorder/noisy").await.expect("a link");
            let _ = link.send_bytes(&noise(seed, 4096)).await;
            let _ = link.send_close(1000, "").await;
            drop(link);
        }
        gone(&site, &["rude", "noisy"]).await;
        calm.holds("noise").await;
        calm.end().await;
    });
}

/// Waits until no link of these devices is left.
async fn gone(site: &Site, devices: &[&str]) {
    for device in devices {
        until(&format!("the links of {device} to be gone"), STEP, async || {
            let seen = site.read(&format!("/api/v1/devices/{device}/connection")).await;
            let none = seen["recorder_connected"] == false && seen["transfer_connected"] == false;
            none.then_some(())
        })
        .await;
    }
}

/// The link still answers.
async fn alive(link: &mut Raw, mark: &[u8]) -> Result<(), String> {
    link.send_frame(true, Opcode::Ping, mark).await.map_err(|error| error.to_string())?;
    loop {
        match link.next(STEP).await {
            Ok(Some(Incoming::Pong(payload))) if payload == mark => return Ok(()),
            Ok(Some(Incoming::Close(code, reason))) => return Err(format!("closed: {code:?} {reason}")),
            Ok(Some(_)) => {}
            Ok(None) => return Err("no pong".to_owned()),
            Err(WsError::Ended) => return Err("the stream ended".to_owned()),
            Err(error) => return Err(error.to_string()),
        }
    }
}

/// Messages of every kind with every field of every wrong type.
fn nonsense() -> Vec<String> {
    let kinds = [
        ("state_update", &["previous", "current", "task_id"][..]),
        ("config_applied", &["task_id", "topics", "device_id"]),
        ("rpc_response", &["state", "current", "task_id", "task_config"]),
        (
            "connected",
            &["device_id", "uploads", "waiting_ack_task_ids", "pending_count", "progress", "version"],
        ),
        ("status", &["uploads", "waiting_ack_task_ids", "status_counts", "pending_bytes", "destination"]),
        ("upload_started", &["task_id", "total_bytes", "checksum_sha256", "s3_key", "upload_mode", "files"]),
        (
            "upload_complete",
            &["task_id", "s3_key", "object_key", "file_size_bytes", "checksum_sha256", "upload_mode"],
        ),
        ("upload_failed", &["task_id", "reason", "retry_count", "next_retry_at"]),
        ("upload_not_found", &["task_id", "detail"]),
        ("local_cleanup_failed", &["task_id", "file_path"]),
        ("no_such_type", &["task_id"]),
    ];
    let row = json!({"task_id": 5, "status": [], "s3_key": "../../x", "checksum_sha256": "zz", "file_size_bytes": -1});
    let values = [
        json!(null),
        json!(true),
        json!(-1),
        json!(u64::MAX),
        json!(1e308),
        json!(""),
        json!("../../etc/passwd"),
        json!("a\u{0}b\u{202e}"),
        json!("x".repeat(100_000)),
        json!([]),
        json!([null, [], {}, "x", 5, row]),
        json!({"a": {"b": [1]}}),
    ];
    let mut frames = Vec::new();
    for (kind, fields) in kinds {
        for value in &values {
            for field in fields {
                let data = json!({"task_id": "nobodys", *field: value});
                frames.push(
                    json!({"type": kind, "timestamp": value, "request_id": value, "data": data}).to_string(),
                );
            }
            frames.push(json!({"type": kind, "data": value, "success": value, "message": value}).to_string());
        }
        frames.push(json!({"type": kind}).to_string());
    }
    for value in values {
        frames.push(json!({"type": value, "data": {"task_id": "nobodys"}}).to_string());
        frames.push(value.to_string());
    }
    frames.push(format!("{}{}", "{\"data\":".repeat(10_000), "}".repeat(10_000)));
    frames.push("{\"type\":\"status\",\"type\":\"connected\",\"data\":{},\"data\":[]}".to_owned());
    frames.push("{\"type\":\"upload_complete\",\"data\":{\"file_size_bytes\":1e999}}".to_owned());
    frames.push("\u{feff}{}".to_owned());
    frames
}

#[test]
fn messages_that_make_no_sense_are_ignored_and_their_link_stays() {
    run(async {
        // Many of them, and fast: what becomes of too many is another test.
        let site = Plan::new().set("devices.message_rate", 100_000).start().await;
        let mut calm = Calm::begin(&site).await;
        for role in ["recorder", "transfer"] {
            let mut link = site.dial(&format!("/{role}/odd")).await.expect("a link");
            for (at, text) in nonsense().iter().enumerate() {
                link.send_text(text)
                    .await
                    .unwrap_or_else(|error| panic!("{role} {at}: {error}: {text:.200}"));
                if at % 50 == 0 {
                    if let Err(what) = alive(&mut link, b"nonsense").await {
                        calm.finding(text, what);
                        link = site.dial(&format!("/{role}/odd")).await.expect("a link");
                    }
                    calm.holds(&text[..text.len().min(80)]).await;
                }
            }
            for (name, bytes) in [
                (
                    "text that is no UTF-8",
                    frame(0x81, b"{\"type\":\"status\",\"data\":{\"x\":\"\xff\xfe\"}}"),
                ),
                ("bytes", frame(0x82, &noise(7, 4096))),
                ("a NUL", frame(0x81, b"\0")),
                ("an empty message", frame(0x81, b"")),
                ("pings without end", frame(0x89, b"x").repeat(5_000)),
                ("unasked pongs", frame(0x8a, b"y").repeat(5_000)),
                (
                    "100,000 empty fragments",
                    [frame(0x01, b"{"), frame(0x00, b"").repeat(100_000), frame(0x80, b"}")].concat(),
                ),
            ] {
                link.send_bytes(&bytes).await.unwrap_or_else(|error| panic!("{role}: {name}: {error}"));
                if let Err(what) = alive(&mut link, name.as_bytes()).await {
                    calm.finding(name, format!("{role}: {what}"));
                }
                calm.holds(name).await;
            }
            drop(link);
        }
        gone(&site, &["odd"]).await;
        calm.end().await;
    });
}

#[test]
fn five_hundred_links_that_never_say_a_word_leave_the_others_alone() {
    run(async {
        let site = Plan::new().start().await;
        let mut calm = Calm::begin(&site).await;
        let mut links = Vec::new();
        for n in 0..250 {
            for role in ["recorder", "transfer"] {
                links.push(site.dial(&format!("/{role}/mute-{n}")).await.expect("a link"));
            }
        }
        calm.holds("500 silent links").await;
        until("the silent links to be listed", STEP, async || {
            let list: Value = site.read("/api/v1/recorder/devices").await;
            (list["devices"].as_array().map(Vec::len) == Some(251)).then_some(())
        })
        .await;
        links.clear();
        until("the silent links to be gone", STEP, async || {
            let list: Value = site.read("/api/v1/recorder/devices").await;
            (list["devices"].as_array().map(Vec::len) == Some(1)).then_some(())
        })
        .await;
        let mut wire = Wire::dial(site.api).await;
        wire.send(handshake("GET", "/recorder/last", &[UPGRADE, KEY, VERSION]).as_bytes()).await;
        let reply = wire.reply().await.expect("an answer");
        assert_eq!(reply.status, 101);
        drop(wire);
        gone(&site, &["last"]).await;
        calm.end().await;
    });
}
