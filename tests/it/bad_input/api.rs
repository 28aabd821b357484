//! The HTTP API under requests that no client should send.

use serde_json::json;

use super::wire::{Reply, Wire, ask};
use super::{Calm, GOOD};
use crate::rig::{Plan, run};

/// What must come back.
enum Want {
    /// This status, and a JSON error with this code; the field it names, if it must name one.
    Error(u16, &'static str, Option<&'static str>),
    /// One of these statuses, from a layer that knows no route.
    Status(&'static [u16]),
    /// One of these statuses, or the connection is closed without an answer.
    Refused(&'static [u16]),
}

use Want::{Error, Refused, Status};

struct Case {
    name: String,
    bytes: Vec<u8>,
    want: Want,
}

fn raw(name: impl Into<String>, bytes: impl Into<Vec<u8>>, want: Want) -> Case {
    Case { name: name.into(), bytes: bytes.into(), want }
}

fn bare(method: &str, path: &str, want: Want) -> Case {
    raw(
        format!("{method} {}", shown(path)),
        format!("{method} {path} HTTP/1.1\r\nhost: site\r\nconnection: close\r\n\r\n"),
        want,
    )
}

fn get(path: &str, want: Want) -> Case {
    bare("GET", path, want)
}

fn post(path: &str, body: impl AsRef<[u8]>, want: Want) -> Case {
    let body = body.as_ref();
    let name = format!("POST {path} {}", shown(&String::from_utf8_lossy(body)));
    let mut bytes = format!(
        "POST {path} HTTP/1.1\r\nhost: site\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    bytes.extend_from_slice(body);
    raw(name, bytes, want)
}

/// A request for a task with these header lines and this body, both as they are.
fn framed(name: &str, headers: &str, body: &str, want: Want) -> Case {
    raw(name, format!("POST /api/v1/tasks HTTP/1.1\r\nhost: site\r\n{headers}\r\n{body}"), want)
}

fn shown(text: &str) -> String {
    text.chars().take(60).collect()
}

fn bodies() -> Vec<Case> {
    let bad_body = || Error(400, "bad_body", None);
    let bad = |field| Error(400, "bad_field", Some(field));
    let deep = |open: &str, close: &str| format!("{}{}", open.repeat(10_000), close.repeat(10_000));
    let mut cases = Vec::new();
    for path in [
        "/api/v1/tasks".to_owned(),
        "/api/v1/callbacks/start".to_owned(),
        "/api/v1/callbacks/finish".to_owned(),
        format!("/api/v1/recorder/{GOOD}/config"),
        format!("/api/v1/recorder/{GOOD}/begin"),
        "/api/v1/episodes/1/reject".to_owned(),
    ] {
        for body in ["{", "[]", "7", "\"x\"", "nul", "{\"a\":1,}", "{\"a\":1}{", "{\"a\":1e400}", "{'a':1}"] {
            cases.push(post(&path, body, bad_body()));
        }
        cases.push(post(&path, b"{\"task_id\":\"\xff\xfe\"}", bad_body()));
        cases.push(post(&path, deep("[", "]"), bad_body()));
        cases.push(post(&path, format!("{{\"a\":{}}}", deep("{\"a\":", "}")), bad_body()));
        cases.push(post(&path, vec![b' '; (1 << 20) + 1], Error(413, "body_too_large", None)));
    }
    let task = |body: serde_json::Value, want| post("/api/v1/tasks", body.to_string(), want);
    for id in
        ["..", ".", "a/b", "../../etc/passwd", "a b", "r\u{f6}bot", "a\u{0}b", "a\nb", "%2e%2e", "\u{202e}x"]
    {
        cases.push(task(json!({"device_id": id}), bad("device_id")));
        cases.push(task(json!({"device_id": "d", "task_id": id}), bad("task_id")));
        cases.push(post(
            "/api/v1/callbacks/finish",
            json!({"task_id": "waiting", "output_path": "/x.mcap", "device_id": id}).to_string(),
            bad("device_id"),
        ));
    }
    let long = "x".repeat(129);
    cases.push(task(json!({"device_id": long}), bad("device_id")));
    cases.push(task(json!({"device_id": "d", "task_id": long}), bad("task_id")));
    cases.push(task(json!({"device_id": "d", "task_id": ""}), bad("task_id")));
    for wrong in [json!(7), json!(-1.5), json!(true), json!([]), json!({}), json!([["x"]])] {
        cases.push(task(json!({"device_id": wrong}), bad("device_id")));
        cases.push(task(json!({"device_id": "d", "task_id": wrong}), bad("task_id")));
        if !wrong.is_object() {
            cases.push(task(json!({"device_id": "d", "config": wrong}), bad("config")));
        }
        cases.push(post("/api/v1/episodes/1/reject", json!({"reason": wrong}).to_string(), bad("reason")));
        cases.push(post(
            &format!("/api/v1/recorder/{GOOD}/config"),
            json!({"task_config": {"task_id": "waiting", "user_token": wrong}}).to_string(),
            bad("task_config.user_token"),
        ));
        cases.push(post(
            "/api/v1/callbacks/start",
            json!({"task_id": wrong}).to_string(),
            Error(400, "missing_field", Some("task_id")),
        ));
        cases.push(post(
            &format!("/api/v1/recorder/{GOOD}/begin"),
            json!({"task_id": wrong}).to_string(),
            Error(400, "task_id_required", Some("task_id")),
        ));
        cases.push(post(
            &format!("/api/v1/recorder/{GOOD}/config"),
            json!({"task_config": {"task_id": wrong}}).to_string(),
            Error(400, "task_id_required", Some("task_config.task_id")),
        ));
    }
    cases.push(task(json!({"device_id": "d", "config": {"a": "x".repeat(70_000)}}), bad("config")));
    cases.push(task(json!({}), Error(400, "missing_field", Some("device_id"))));
    cases.push(post("/api/v1/tasks", "null", Error(400, "missing_field", Some("device_id"))));
    cases.push(post("/api/v1/tasks", "", Error(400, "missing_field", Some("device_id"))));
    let token = json!({"device_id": "d", "config": {"deep": [{"USER_token": "s"}]}});
    cases.push(task(token, Error(400, "misplaced_secret", Some("user_token"))));
    cases.push(task(json!({"device_id": GOOD, "task_id": "waiting"}), Error(409, "task_exists", None)));
    let much = json!({"task_config": {"task_id": "waiting", "x": "x".repeat(70_000)}}).to_string();
    cases.push(post(&format!("/api/v1/recorder/{GOOD}/config"), much, Error(413, "params_too_large", None)));
    for (action, want) in [
        ("begin", Error(409, "task_not_beginable", None)),
        ("finish", Error(409, "task_not_owned", None)),
        ("pause", Error(404, "recorder_not_connected", None)),
        ("quit", Error(404, "recorder_not_connected", None)),
    ] {
        let body = json!({"task_id": "waiting"}).to_string();
        cases.push(post(&format!("/api/v1/recorder/ghost/{action}"), body, want));
    }
    cases
}

fn addresses() -> Vec<Case> {
    let bad = |field| Error(400, "bad_field", Some(field));
    let missing = || Error(404, "not_found", None);
    let mut cases = Vec::new();
    let long = "x".repeat(129);
    for id in [
        "..",
        ".",
        "%2e%2e",
        "%00",
        "%2e",
        "a%2Fb",
        "%2e%2e%2f%2e%2e",
        "r%C3%B6bot",
        "%20",
        "a%0ab",
        "%zz",
        &long,
    ] {
        cases.push(get(&format!("/api/v1/recorder/{id}/state"), bad("device_id")));
        cases.push(get(&format!("/api/v1/devices/{id}/connection"), bad("device_id")));
        cases.push(bare("POST", &format!("/api/v1/recorder/{id}/pause"), bad("device_id")));
        cases.push(get(&format!("/recorder/{id}"), bad("device_id")));
        cases.push(get(&format!("/transfer/{id}"), bad("device_id")));
    }
    cases.push(get("/api/v1/recorder/%ff%fe/state", bad("path")));
    let longer = "x".repeat(140);
    for id in ["..", "%00", "a%2Fb", "%20", &longer] {
        cases.push(get(&format!("/api/v1/tasks/{id}"), bad("task_id")));
        cases.push(bare("POST", &format!("/api/v1/tasks/{id}/cancel"), Error(404, "task_not_found", None)));
    }
    cases.push(get("/api/v1/tasks/nobodys", Error(404, "task_not_found", None)));
    for id in ["0", "-1", "abc", "1.5", "9223372036854775808", "99999999999999999999", "0x1", "%00", "1e3"] {
        cases.push(get(&format!("/api/v1/episodes/{id}"), bad("id")));
        cases.push(bare("POST", &format!("/api/v1/episodes/{id}/approve"), bad("id")));
        cases.push(bare("POST", &format!("/api/v1/sync/episodes/{id}"), bad("id")));
        cases.push(get(&format!("/api/v1/sync/episodes/{id}/status"), bad("id")));
        cases.push(get(&format!("/api/v1/sync/episodes/{id}/logs"), bad("id")));
    }
    cases.push(get("/api/v1/episodes/999", Error(404, "episode_not_found", None)));
    cases.push(bare("POST", "/api/v1/sync/episodes/999", Error(404, "episode_not_found", None)));
    cases.push(bare("POST", "/api/v1/sync/episodes/1", Error(400, "qa_not_approved", None)));
    for list in ["tasks", "episodes", "sync/episodes"] {
        for word in ["-1", "0", "abc", "1e3", "99999999999999999999", "1.5", "%00"] {
            cases.push(get(&format!("/api/v1/{list}?limit={word}"), bad("limit")));
        }
        for word in ["-1", "abc", "99999999999999999999"] {
            cases.push(get(&format!("/api/v1/{list}?offset={word}"), bad("offset")));
        }
        cases.push(get(&format!("/api/v1/{list}?limit=1000000&offset=9223372036854775807"), Status(&[200])));
        cases.push(get(&format!("/api/v1/{list}?&&=&limit&%ff=%fe&&&x"), Status(&[200, 400])));
    }
    cases.push(get("/api/v1/tasks?status=bogus", bad("status")));
    cases.push(get("/api/v1/tasks?device_id=..%2f", bad("device_id")));
    cases.push(get("/api/v1/episodes?qa_status=bogus", bad("qa_status")));
    cases.push(get("/api/v1/episodes?sync_status=bogus", bad("sync_status")));
    for ids in
        ["", "?ids=", "?ids=1,,2", "?ids=a", "?ids=-1", "?ids=0", "?ids=1;2", "?ids=18446744073709551616"]
    {
        cases.push(get(&format!("/api/v1/sync/episode-statuses{ids}"), bad("ids")));
    }
    let many: Vec<String> = (1..=51).map(|n| n.to_string()).collect();
    cases.push(get(&format!("/api/v1/sync/episode-statuses?ids={}", many.join(",")), bad("ids")));
    for path in [
        "/",
        "/api",
        "/api/v1",
        "/api/v1/",
        "/api/v2/tasks",
        "/api/v1/nope",
        "/api/v1/tasks/",
        "/api/v1/tasks/a/b/c",
        "//",
        "/../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/api/v1/../../etc/passwd",
        "/api/v1/tasks%00",
        "/healthz/",
        "/READYZ",
    ] {
        cases.push(get(path, missing()));
    }
    cases.push(get("/api/v1/recorder//state", bad("device_id")));
    cases.push(get("/recorder/", Status(&[400])));
    cases
}

fn methods() -> Vec<Case> {
    let mut cases = Vec::new();
    let not = || Error(405, "method_not_allowed", None);
    for method in ["DELETE", "PUT", "PATCH", "OPTIONS", "TRACE", "FROB", "get"] {
        for path in
            ["/api/v1/tasks", "/api/v1/tasks/waiting", "/healthz", "/api/v1/callbacks/start", "/metrics"]
        {
            cases.push(bare(method, path, not()));
        }
    }
    cases.push(bare("GET", "/api/v1/callbacks/start", not()));
    cases.push(bare("POST", "/api/v1/episodes/1", not()));
    cases.push(bare("POST", &format!("/recorder/{GOOD}"), not()));
    for path in ["/api/v1/tasks", "/readyz", "/api/v1/episodes/1"] {
        cases.push(bare("HEAD", path, Status(&[200])));
    }
    cases.push(bare("CONNECT", "other:443", Refused(&[400, 404, 405])));
    cases.push(bare("OPTIONS", "*", Refused(&[400, 404, 405])));
    cases
}

fn heads() -> Vec<Case> {
    let mut cases = Vec::new();
    let with = |name: &str, headers: String, want| {
        raw(name, format!("GET /readyz HTTP/1.1\r\nhost: site\r\n{headers}\r\n"), want)
    };
    cases.push(with("a header of 1 MiB", format!("x: {}\r\n", "y".repeat(1 << 20)), Status(&[431])));
    cases.push(with("1,000 headers", "x: y\r\n".repeat(1000), Status(&[431])));
    cases.push(with(
        "a header name of 100 KB",
        format!("{}: y\r\n", "x".repeat(100_000)),
        Status(&[400, 431]),
    ));
    cases.push(get(&format!("/{}", "x".repeat(100_000)), Status(&[414, 431])));
    cases.push(get(&format!("/api/v1/tasks?x={}", "x".repeat(70_000)), Status(&[414, 431])));
    for (name, line) in [
        ("HTTP/9.9", "GET /readyz HTTP/9.9\r\n"),
        ("HTTP/1.1x", "GET /readyz HTTP/1.1x\r\n"),
        ("HTTP/0.9", "GET /readyz\r\n"),
        ("a word", "HELLO\r\n"),
        ("HTTP/2 by prior knowledge", "PRI * HTTP/2.0\r\n\r\nSM\r\n"),
        ("a TLS hello", "\x16\x03\x01\x02\x00\x01\x00\x01\x7c\x03\x03"),
        ("a space too many", "GET  /readyz HTTP/1.1\r\n"),
        ("a method with a bracket", "GE[T /readyz HTTP/1.1\r\n"),
        ("a relative target", "GET readyz HTTP/1.1\r\n"),
        ("a NUL in the target", "GET /ready\0z HTTP/1.1\r\n"),
    ] {
        cases.push(raw(name, format!("{line}host: site\r\n\r\n"), Refused(&[400, 404, 505])));
    }
    cases.push(with("a NUL in a header", "x: a\0b\r\n".to_owned(), Status(&[400])));
    cases.push(with("a space before the colon", "x : y\r\n".to_owned(), Status(&[400])));
    cases.push(with("a folded header", "x: y\r\n  z\r\n".to_owned(), Status(&[400])));
    cases.push(with("a bare CR", "x: y\rz: w\r\n".to_owned(), Status(&[400])));
    cases.push(with("no colon", "x\r\n".to_owned(), Status(&[400])));
    cases.push(with("an empty name", ": y\r\n".to_owned(), Status(&[400])));
    cases
}

fn framing() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, length) in [
        ("a length in words", "five"),
        ("a negative length", "-1"),
        ("a signed length", "+5"),
        ("a length beyond 64 bits", "18446744073709551616"),
        ("a length of all 64 bits", "18446744073709551615"),
        ("two lengths in one", "5, 6"),
        ("a hexadecimal length", "0x5"),
        ("an empty length", ""),
    ] {
        cases.push(framed(name, &format!("content-length: {length}\r\n"), "", Status(&[400, 413, 431])));
    }
    cases.push(framed("two lengths", "content-length: 2\r\ncontent-length: 3\r\n", "{}x", Status(&[400])));
    let body = "2\r\n{}\r\n0\r\n\r\n";
    let chunked = "transfer-encoding: chunked\r\n";
    // A length beside chunks counts for nothing, wherever it stands: the body is `{}`, which names no device.
    let missing = || Error(400, "missing_field", Some("device_id"));
    for headers in [
        format!("content-length: 7\r\n{chunked}"),
        format!("content-length: 0\r\n{chunked}"),
        format!("{chunked}content-length: 7\r\n"),
    ] {
        cases.push(framed(&headers, &headers, body, missing()));
    }
    for coding in ["gzip", "chunked, identity", "identity", "xchunked", "chunked;q=1"] {
        let headers = format!("transfer-encoding: {coding}\r\n");
        cases.push(framed(&format!("coded as {coding}"), &headers, body, Refused(&[400, 501])));
    }
    for (name, body) in [
        ("a chunk of no size", "ZZ\r\n{}\r\n0\r\n\r\n"),
        ("a negative chunk", "-2\r\n{}\r\n0\r\n\r\n"),
        ("a chunk beyond 64 bits", "FFFFFFFFFFFFFFFFF\r\n{}\r\n"),
        ("a chunk longer than it says", "1\r\n{}\r\n0\r\n\r\n"),
        ("a chunk without an end", "2\r\n{}0\r\n\r\n"),
    ] {
        cases.push(framed(name, chunked, body, Error(400, "bad_body", None)));
    }
    let extension = format!("2;{}\r\n{{}}\r\n0\r\n\r\n", "x".repeat(1 << 20));
    cases.push(framed("a chunk extension of 1 MiB", chunked, &extension, Error(400, "bad_body", None)));
    let trailers = format!("2\r\n{{}}\r\n0\r\nx: {}\r\n\r\n", "y".repeat(1 << 20));
    cases.push(framed("a trailer of 1 MiB", chunked, &trailers, Error(400, "bad_body", None)));
    cases
}

fn judge(case: &Case, reply: Option<&Reply>) -> Result<(), String> {
    let Some(reply) = reply else {
        return if let Refused(_) = case.want { Ok(()) } else { Err("closed without an answer".to_owned()) };
    };
    let told = || format!("{} {:?} {}", reply.status, reply.headers, shown(&reply.text()));
    match case.want {
        Status(expected) | Refused(expected) => {
            if expected.contains(&reply.status) {
                Ok(())
            } else {
                Err(told())
            }
        }
        Error(status, code, field) => {
            let body = reply.json();
            let says = body["error"].as_str().is_some_and(|text| !text.is_empty());
            let names = field.is_none_or(|field| body["field"] == field);
            let kind = reply.header("content-type") == Some("application/json");
            let allow = status != 405 || reply.header("allow").is_some_and(|methods| !methods.is_empty());
            if reply.status == status && body["code"] == code && says && names && kind && allow {
                Ok(())
            } else {
                Err(told())
            }
        }
    }
}

#[test]
fn a_bad_request_gets_a_clear_answer_and_changes_nothing() {
    run(async {
        let site = Plan::new().start().await;
        let mut calm = Calm::begin(&site).await;
        for case in [bodies(), addresses(), methods(), heads(), framing()].into_iter().flatten() {
            let reply = ask(site.api, &case.bytes).await;
            if let Err(what) = judge(&case, reply.as_ref()) {
                calm.finding(&case.name, what);
            }
            calm.holds(&case.name).await;
        }
        calm.end().await;
    });
}

#[test]
fn a_body_of_a_hundred_megabytes_is_refused_before_it_is_read() {
    run(async {
        let site = Plan::new().start().await;
        let mut calm = Calm::begin(&site).await;
        let chunk = format!("{:x}\r\n{}\r\n", 1 << 20, "x".repeat(1 << 20));
        for (name, framing, piece) in [
            ("announced", "content-length: 104857600", "x".repeat(1 << 20)),
            ("in chunks", "transfer-encoding: chunked", chunk),
        ] {
            let head = format!("POST /api/v1/tasks HTTP/1.1\r\nhost: site\r\n{framing}\r\n\r\n");
            let mut wire = Wire::dial(site.api).await;
            let pieces = std::iter::once(head.as_bytes()).chain(std::iter::repeat_n(piece.as_bytes(), 100));
            let (reply, sent) = wire.exchange(pieces).await;
            match reply {
                Some(reply) if reply.status == 413 && reply.json()["code"] == "body_too_large" => {}
                other => calm.finding(name, format!("{other:?}")),
            }
            // What lies in the buffers of the two sockets counts as sent.
            if sent > 32 << 20 {
                calm.finding(name, format!("{sent} bytes were taken"));
            }
            calm.holds(name).await;
        }
        calm.end().await;
    });
}

#[test]
fn what_is_not_known_in_a_body_is_tolerated_and_the_type_of_the_content_is_not_asked_for() {
    run(async {
        let site = Plan::new().start().await;
        let body = json!({"device_id": "d", "task_id": "odd", "no_such_field": [1, {"x": null}]}).to_string();
        let request = format!(
            "POST /api/v1/tasks HTTP/1.1\r\nhost: site\r\ncontent-type: text/plain\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let reply = ask(site.api, request.as_bytes()).await.expect("an answer");
        assert_eq!(reply.status, 201, "{}", reply.text());
        assert_eq!(site.task_status("odd").await, "pending");
    });
}
