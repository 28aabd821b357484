//! Modules of policies on the real binary, from outside: their life, what bad ones can do, kills at every step of it,
//! swaps under load, and what the configuration says of them. Here are the modules and the requests that these share.

mod configured;
mod crash;
mod evil;
mod life;
mod swap;

use std::path::PathBuf;

use http::header::{CONTENT_LENGTH, HOST};
use http::{Method, Request};
use serde_json::{Value, json};
use tidegate_device::{Answer, full};
use tidegate_policies::author;

use crate::cloud::Cloud;
use crate::rig::{STEP, Site, until};
use crate::script::{Take, Uploader};

/// The device of tests that need one.
const DEVICE: &str = "robot-1";
/// The name that the metrics have for a module.
const SHORT: usize = 12;

/// Function heads of the hooks, as a core module exports them.
const CONCURRENCY: &str = r#"(func (export "tidegate:policy/concurrency@0.1.0#decide")
    (param $link i32) (param $metered i32) (param $power i32) (param $minute i32) (param $due i32) (param $waiting i32)
    (param $uploading i32) (param $parked i32) (param $recording i32) (param $streak i32) (param $goodput i64)
    (param $disk i32) (param $memo i64) (param $seed i64) (result i32)"#;
const SELECT: &str = r#"(func (export "tidegate:policy/auto-scan@0.1.0#select")
    (param $link i32) (param $metered i32) (param $power i32) (param $minute i32) (param $due i32) (param $waiting i32)
    (param $uploading i32) (param $parked i32) (param $recording i32) (param $streak i32) (param $goodput i64)
    (param $disk i32) (param $memo i64) (param $seed i64) (param $batch i32) (param $count i32) (result i32)"#;
const RETRY: &str = r#"(func (export "tidegate:policy/retry@0.1.0#next")
    (param $job i64) (param $spent i32) (param $class i32) (param $subject i32) (param $code i32) (param $code_len i32)
    (param $elapsed i64) (param $last i64) (param $size i64) (param $sent i64) (param $link i32) (param $metered i32)
    (param $memo i64) (param $seed i64) (result i32)"#;

/// An ordinary answer of [`CONCURRENCY`]: as many uploads as the settings say, for the second of two reasons.
const TWO_AT_ONCE: &str = "(i32.store16 (i32.const 2112) (i32.wrap_i64 (global.get $uploads)))
    (i64.store (i32.const 2120) (i64.const 0))
    (i64.store (i32.const 2128) (i64.const 0))
    (i32.store16 (i32.const 2136) (i32.const 2))
    (i32.const 2112)";

/// A text of policies/fixtures.
fn text(name: &str) -> String {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../policies/fixtures");
    std::fs::read_to_string(folder.join(format!("{name}.wat"))).expect(name)
}

/// A core module of a text, with the memory and the description that every fixture needs unless it has its own.
fn core(body: &str) -> Vec<u8> {
    let memory = if body.contains("(memory (export") { String::new() } else { text("memory") };
    let meta = if body.contains("#describe") { String::new() } else { text("meta") };
    let whole = format!("(module\n{memory}\n{meta}\n{body}\n)");
    wat::parse_str(&whole).unwrap_or_else(|error| panic!("{error}\n{whole}"))
}

/// A component of a text.
fn component(body: &str) -> Vec<u8> {
    author::component(&core(body)).expect("it fits the contract")
}

/// A good module for every slot. Each tag makes another one that behaves the same: as many uploads at once as its
/// setting `uploads` says, two by default.
fn suite(tag: &str) -> Vec<u8> {
    component(&format!("{}\n(data (i32.const 3000) \"{tag}\")", text("suite")))
}

/// Functions for bodies that do as they should in all questions of admission and not in life: those questions are known
/// by their seeds.
const SLEEPING: &str = "(func $known (param $seed i64) (result i32)
    (i32.or (i64.eqz (local.get $seed))
    (i32.or (i64.eq (local.get $seed) (i64.const 7))
    (i32.or (i64.eq (local.get $seed) (i64.const 42))
    (i32.or (i64.eq (local.get $seed) (i64.const 0x123456789abcdef0))
      (i64.eq (local.get $seed) (i64.const -1)))))))
  (func $deep (param $n i64) (result i64)
    (i64.add (i64.const 1) (call $deep (i64.add (local.get $n) (i64.const 1)))))
  (global $stack (mut i32) (i32.const 16384))
  (func $shadow (param $n i32) (result i32)
    (local $frame i32)
    (local.set $frame (i32.sub (global.get $stack) (i32.const 64)))
    (global.set $stack (local.get $frame))
    (i32.store (local.get $frame) (local.get $n))
    (i32.add (call $shadow (i32.add (local.get $n) (i32.const 1))) (i32.load (local.get $frame))))";

/// A module for concurrency alone that does as [`TWO_AT_ONCE`] in all questions of admission, and `evil` in life.
fn sleeper(tag: &str, evil: &str) -> Vec<u8> {
    component(&format!(
        "{SLEEPING} (data (i32.const 3000) \"{tag}\")
        {CONCURRENCY} (if (i32.eqz (call $known (local.get $seed))) (then {evil})) {TWO_AT_ONCE})"
    ))
}

/// Any request with a body of bytes.
async fn send(
    site: &Site,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Result<Answer, String> {
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header(HOST, format!("127.0.0.1:{}", site.api))
        .header(CONTENT_LENGTH, body.len());
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(full(body.to_vec())).expect("a request");
    let exchange = site.http().exchange(request).await.map_err(|error| error.to_string())?;
    exchange.collect().await.map_err(|error| error.to_string())
}

/// PUT of a module: status and JSON.
async fn put(site: &Site, slot: &str, bytes: &[u8], headers: &[(&str, &str)]) -> (u16, Value) {
    let answer = send(site, Method::PUT, &format!("/api/v1/policies/{slot}"), headers, bytes).await;
    let answer = answer.unwrap_or_else(|error| panic!("PUT of {} bytes for {slot}: {error}", bytes.len()));
    (answer.status.as_u16(), answer.json())
}

/// PUT of a module that must be taken; its hash.
async fn load(site: &Site, slot: &str, bytes: &[u8]) -> String {
    let (status, body) = put(site, slot, bytes, &[]).await;
    assert_eq!(status, 201, "{body}");
    assert_eq!(body["state"], "admitted", "{body}");
    body["module"].as_str().expect("a hash").to_owned()
}

/// POST below `/api/v1/policies`: status and JSON.
async fn ask(site: &Site, path: &str, body: &Value) -> (u16, Value) {
    site.post(&format!("/api/v1/policies/{path}"), body).await
}

/// POST that must succeed.
async fn told(site: &Site, path: &str, body: &Value) -> Value {
    let (status, answer) = ask(site, path, body).await;
    assert_eq!(status, 200, "{path} {body}: {answer}");
    answer
}

/// Puts a loaded module into a slot.
async fn activate(site: &Site, slot: &str, module: &str, settings: &Value) -> Value {
    told(site, &format!("{slot}/activate"), &json!({"module": module, "settings": settings})).await
}

/// What the site says of its policies.
async fn policies(site: &Site) -> Value {
    site.read("/api/v1/policies").await
}

/// The site's policies once the set is ready and every module was looked at.
async fn prepared(site: &Site) -> Value {
    until("the set to be prepared", STEP, async || {
        let view = policies(site).await;
        let modules = view["modules"].as_array().expect("a list of modules");
        let looked_at = modules.iter().all(|row| row["state"] != "staged");
        (view["prepared"] == true && looked_at).then_some(view)
    })
    .await
}

/// The changes of the set, the newest first.
async fn history(site: &Site) -> Vec<Value> {
    let body = site.read("/api/v1/policies/history").await;
    body["items"].as_array().expect("a list of changes").clone()
}

/// A slot in what the site says of its policies.
fn seat<'a>(view: &'a Value, slot: &str) -> &'a Value {
    let slots = view["slots"].as_array().unwrap_or_else(|| panic!("slots in {view}"));
    slots.iter().find(|seat| seat["slot"] == slot).unwrap_or_else(|| panic!("{slot} in {view}"))
}

/// A module in what the site says of its policies.
fn known<'a>(view: &'a Value, module: &str) -> Option<&'a Value> {
    let modules = view["modules"].as_array().unwrap_or_else(|| panic!("modules in {view}"));
    modules.iter().find(|row| row["module"] == module)
}

/// Why a module is quarantined; null if it is not.
fn quarantine<'a>(view: &'a Value, module: &str) -> &'a Value {
    known(view, module).map_or(&Value::Null, |row| &row["quarantined"])
}

/// The newest recorded decisions of a slot, the newest last.
async fn decisions(site: &Site, slot: &str) -> Vec<Value> {
    let path = format!("/api/v1/policies/{slot}/decisions");
    let answer = site.send(Method::GET, &path).await;
    assert_eq!(answer.status.as_u16(), 200, "{path}");
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line:?}")))
        .collect()
}

/// The value of a metric whose line has all of these words; the sum, if there are several.
async fn metric(site: &Site, name: &str, words: &[&str]) -> u64 {
    let answer = site.send(Method::GET, "/metrics").await;
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    let lines = text.lines().filter(|line| line.starts_with(name) && words.iter().all(|w| line.contains(w)));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

/// A recording's whole way through the site into the cloud.
async fn carried(site: &Site, cloud: &Cloud, task: &str) {
    let take = Take::new(DEVICE, task, 1, 1_000);
    let mut uploader = Uploader::connect(site, DEVICE).await;
    let episode = uploader.deliver(site, &take).await;
    site.approve_and_sync(episode).await;
    site.synced(episode).await;
    assert_eq!(cloud.digest(&take.cloud_key()).await, (take.sha256(), 1_000), "{task}");
}

/// Whether a recorded decision was made by this module itself.
fn is_by(decision: &Value, module: &str) -> bool {
    decision["by"] == "set" && decision["module"] == module
}
