//! The stream of changes over the real binary: what is told and in which order, coming back, filters, readers that are
//! slow, many or wrong, and that nothing is told before it is durable.

use std::collections::{BTreeSet, VecDeque};
use std::fs::File;
use std::process::Stdio;

use http::{Request, header::HOST};
use serde_json::{Value, json};
use tidegate_device::{Exchange, StreamReader, full};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use crate::rig::{Plan, STEP, Site, run, until};
use crate::script::{Recorder, Take, Uploader, status};

const DEVICE: &str = "robot-1";

/// An event: its id, its name, its data.
#[derive(Clone, Debug)]
pub struct Told {
    id: Option<String>,
    pub name: String,
    pub data: Value,
}

impl Told {
    /// The number in its id.
    pub fn seq(&self) -> u64 {
        let id = self.id.as_deref().unwrap_or_else(|| panic!("an id: {self:?}"));
        id.split_once('-').expect("boot and number").1.parse().expect("a number")
    }
}

/// A reader of the stream.
pub struct Follower {
    exchange: Exchange<TcpStream>,
    reader: StreamReader,
    waiting: VecDeque<Told>,
}

impl Follower {
    /// Opens a stream and reads nothing yet.
    pub async fn open(site: &Site, query: &str, last: Option<&str>) -> Follower {
        let exchange = asked(site, query, last).await;
        assert_eq!(exchange.status(), 200, "{query}");
        let header = |name: &str| exchange.headers()[name].to_str().expect("a text");
        assert_eq!(header("content-type"), "text/event-stream");
        assert_eq!((header("cache-control"), header("x-accel-buffering")), ("no-cache", "no"));
        Follower { exchange, reader: StreamReader::new(), waiting: VecDeque::new() }
    }

    /// Opens a stream and reads its snapshot.
    pub async fn follow(site: &Site, query: &str) -> Follower {
        let mut follower = Follower::open(site, query, None).await;
        let snapshot = follower.snapshot("new").await;
        assert_eq!(snapshot.last().expect("an end").name, "snapshot_end");
        follower
    }

    /// The next event; `None` at the end of the stream.
    pub async fn maybe_next(&mut self) -> Option<Told> {
        loop {
            if let Some(told) = self.waiting.pop_front() {
                return Some(told);
            }
            let piece = self.exchange.chunk().await.unwrap_or_else(|error| panic!("the stream: {error}"))?;
            for event in self.reader.read(&piece) {
                let data: Value = serde_json::from_str(&event.data).expect("data is JSON");
                assert_eq!(data["type"], event.name, "{data}");
                self.waiting.push_back(Told { id: event.id, name: event.name, data });
            }
        }
    }

    async fn next(&mut self) -> Told {
        let told = tokio::time::timeout(STEP, self.maybe_next()).await.expect("an event in time");
        told.expect("the stream goes on")
    }

    /// All events up to one that `ends` is true of.
    pub async fn upto(&mut self, what: &str, ends: impl Fn(&Told) -> bool) -> Vec<Told> {
        let mut all = Vec::new();
        loop {
            let read = tokio::time::timeout(STEP, self.maybe_next()).await;
            let told = read.ok().flatten().unwrap_or_else(|| panic!("{what} does not come: {all:#?}"));
            let is_last = ends(&told);
            all.push(told);
            if is_last {
                return all;
            }
        }
    }

    /// A snapshot from its begin to its end.
    pub async fn snapshot(&mut self, reason: &str) -> Vec<Told> {
        let all = self.upto("the end of the snapshot", |told| told.name == "snapshot_end").await;
        assert_eq!(all[0].name, "snapshot_begin", "{all:?}");
        assert_eq!(all[0].data["reason"], reason, "{all:?}");
        let (end, inner) = all.split_last().expect("it has an end");
        assert!(inner.iter().all(|told| told.id.is_none()), "only the end has an id: {all:?}");
        assert_eq!(end.seq(), all[0].data["seq"].as_u64().expect("a number"));
        all
    }
}

async fn asked(site: &Site, query: &str, last: Option<&str>) -> Exchange<TcpStream> {
    let mut request = Request::builder()
        .uri(format!("/api/v1/device-state/stream{query}"))
        .header(HOST, format!("127.0.0.1:{}", site.api));
    if let Some(last) = last {
        request = request.header("Last-Event-ID", last);
    }
    let request = request.body(full(Vec::new())).expect("a request");
    site.http().exchange(request).await.unwrap_or_else(|error| panic!("{query}: {error}"))
}

fn is_gapless(events: &[Told]) {
    for pair in events.windows(2) {
        assert_eq!(pair[1].seq(), pair[0].seq() + 1, "{pair:?}");
    }
}

/// An event in short: what the order is about.
fn short(told: &Told) -> Option<String> {
    let of = |field: &str| told.data[field].as_str().unwrap_or("");
    Some(match told.name.as_str() {
        "device_connection" => of("source").to_owned(),
        "recorder_state" => format!("state {} {}", of("source"), of("current_state")),
        "recorder_syncing" => format!("syncing {} {}", of("source"), of("current_state")),
        "recorder_operation_unknown" => format!("unknown {}", of("action")),
        "rpc_timeout" => format!("timeout {}", of("action")),
        "device_takeover" => format!("takeover {}", of("role")),
        "task_state" => format!("task {}>{}", of("from"), of("to")),
        "recording" => "recording".to_owned(),
        "transfer_status" => "transfer".to_owned(),
        _ => return None,
    })
}

fn shorts(events: &[Told]) -> Vec<String> {
    events.iter().filter_map(short).collect()
}

/// Nothing follows that could tell of what was held back, and nobody else says anything.
#[test]
fn refusals_that_are_held_back_are_told_soon_and_the_log_says_no_more_than_the_stream() {
    run(async {
        let site = Plan::new().start().await;
        let mut uploader = Uploader::connect(&site, DEVICE).await;
        let mut follower = Follower::follow(&site, "?types=message_refused").await;
        for n in 0..100 {
            uploader
                .say("upload_failed", &json!({"task_id": format!("nobody-{n}"), "reason": "made up"}))
                .await;
        }
        let (mut told, mut suppressed) = (0, 0);
        while told + suppressed < 100 {
            let refused = follower.next().await;
            assert_eq!(refused.data["code"], "not_owned", "{refused:?}");
            told += 1;
            suppressed += refused.data["suppressed"].as_u64().expect("a number");
        }
        assert_eq!(told + suppressed, 100);
        assert!(told < 20, "{told} events");
        until("as many lines as events", STEP, async || {
            let log = site.log();
            let lines = log.lines().filter(|line| line.contains("a message was refused")).count() as u64;
            (lines == told).then_some(())
        })
        .await;
    });
}

#[test]
fn the_events_of_a_recording_come_in_the_order_of_what_happened() {
    run(async {
        let site = Plan::new().set("devices.rpc_timeout", "5s").start().await;
        let mut follower = Follower::follow(&site, "").await;
        site.create_task(DEVICE, "golden").await;
        let mut recorder = Recorder::connect(&site, DEVICE).await;
        let mut uploader = Uploader::connect(&site, DEVICE).await;
        let events = follower.upto("the uploader's status", |told| told.name == "transfer_status").await;
        is_gapless(&events);
        assert_eq!(
            shorts(&events),
            [
                "task >pending",
                "recorder_connected",
                "syncing  unknown",
                "state get_state idle",
                "transfer_connected",
                "transfer"
            ]
        );
        let versions: Vec<u64> =
            events.iter().filter_map(|told| told.data["state_version"].as_u64()).collect();
        assert_eq!(versions, [1, 2, 3, 4, 5]);

        let config = json!({"task_config": {"task_id": "golden", "device_id": DEVICE}});
        let task = json!({"task_id": "golden"});
        recorder.obey(&site, "config", &config, "ready").await;
        recorder.obey(&site, "begin", &task, "recording").await;
        let started = json!({"task_id": "golden", "device_id": DEVICE});
        site.post("/api/v1/callbacks/start", &started).await;
        recorder.obey(&site, "finish", &json!({}), "idle").await;
        let finished = json!({"task_id": "golden", "device_id": DEVICE, "output_path": "/r/golden.mcap"});
        site.post("/api/v1/callbacks/finish", &finished).await;
        let request = uploader.text().await;
        assert!(request.contains("upload_request"), "{request}");
        let take = Take::new(DEVICE, "golden", 3, 40_000);
        uploader.say("upload_started", &take.started()).await;
        take.upload(&site).await;
        uploader.say("upload_complete", &take.complete()).await;
        uploader.ack("golden").await;
        let events = follower
            .upto("the end of the task", |told| told.name == "task_state" && told.data["to"] == "completed")
            .await;
        is_gapless(&events);
        assert_eq!(
            shorts(&events).join(", "),
            "task pending>ready, state state_update ready, state rpc_response:config ready, \
             state state_update recording, task ready>in_progress, state rpc_response:begin recording, \
             state state_update idle, state rpc_response:finish idle, task in_progress>uploading, recording, \
             task uploading>completed"
        );
        let recording = events.iter().find(|told| told.name == "recording").expect("it was verified");
        assert_eq!(recording.data["checksum_sha256"], take.sha256());
        assert_eq!(recording.data["file_size_bytes"], take.mcap.len());

        // A command that is not answered.
        let path = format!("/api/v1/recorder/{DEVICE}/pause");
        let empty = json!({});
        let ((code, body), _) = tokio::join!(site.post(&path, &empty), recorder.request("pause"));
        assert_eq!(code, 504, "{body}");
        let events = follower.upto("the unknown end", |told| told.name == "recorder_operation_unknown").await;
        assert_eq!(shorts(&events), ["timeout pause", "syncing rpc_timeout:pause idle", "unknown pause"]);
        let unknown = &events.last().expect("one").data;
        assert_eq!((&unknown["timeout"], &unknown["timeout_ms"]), (&json!("5s"), &json!(5000)), "{unknown}");
        assert_eq!(unknown["source"], "rpc_timeout:pause");

        // A takeover.
        let mut newer = Recorder::dial(&site, DEVICE).await;
        let request = newer.request("get_state").await;
        newer.answer_state(&request).await;
        let events = follower
            .upto("the new link's state", |told| {
                told.name == "recorder_state" && told.data["source"] == "get_state"
            })
            .await;
        assert_eq!(
            shorts(&events),
            ["takeover recorder", "recorder_connected", "syncing  unknown", "state get_state idle"]
        );
        let takeover = &events[0].data;
        assert!(
            takeover["old"]["generation"].as_u64() < takeover["new"]["generation"].as_u64(),
            "{takeover}"
        );
        is_gapless(&events);
    });
}

#[test]
fn who_comes_back_goes_on_where_it_was_and_after_a_restart_begins_anew() {
    run(async {
        let mut site = Plan::new().start().await;
        let mut follower = Follower::follow(&site, "").await;
        site.create_task(DEVICE, "first").await;
        let told = follower.upto("the task", |told| told.name == "task_state").await;
        let last = told.last().and_then(|told| told.id.clone()).expect("an id");
        drop(follower);
        for task in ["second", "third"] {
            site.create_task(DEVICE, task).await;
        }
        let mut back = Follower::open(&site, "", Some(&last)).await;
        let told = back.upto("the third task", |told| told.data["task_id"] == "third").await;
        assert_eq!(told[0].seq(), last.split_once('-').expect("two").1.parse::<u64>().expect("a number") + 1);
        is_gapless(&told);
        assert!(told.iter().any(|told| told.data["task_id"] == "second"), "{told:?}");
        // As a query too: browsers cannot set headers at the first try.
        let mut again = Follower::open(&site, &format!("?last_event_id={last}"), None).await;
        assert_eq!(again.next().await.id, told[0].id);

        // A stop ends the streams in order, and the next boot knows none of these numbers.
        site.signal("TERM");
        while again.maybe_next().await.is_some() {}
        assert_eq!(site.exit(STEP).await.code(), Some(0));
        site.start().await;
        let mut recorder = Recorder::connect(&site, DEVICE).await;
        recorder.push_state("maintenance").await;
        until("the state", STEP, async || {
            let state = site.read(&format!("/api/v1/recorder/{DEVICE}/state")).await;
            (state["current_state"] == "maintenance").then_some(())
        })
        .await;
        let mut anew = Follower::open(&site, "", Some(&last)).await;
        let all = anew.snapshot("other_boot").await;
        let tasks: BTreeSet<&str> = all
            .iter()
            .filter(|told| told.name == "task_snapshot")
            .map(|told| told.data["task_id"].as_str().expect("an id"))
            .collect();
        assert_eq!(tasks, BTreeSet::from(["first", "second", "third"]));
        let device = all.iter().find(|told| told.name == "device_snapshot").expect("the device");
        assert_eq!(device.data["device_id"], DEVICE);
        assert_eq!(device.data["recorder"]["current_state"], "maintenance", "{device:?}");
        assert_eq!(
            (&device.data["recorder_connected"], &device.data["transfer_connected"]),
            (&json!(true), &json!(false))
        );
        let end = all.last().expect("an end");
        assert_eq!((&end.data["devices"], &end.data["tasks"]), (&json!(1), &json!(3)), "{end:?}");
        assert_ne!(end.id.as_deref().and_then(|id| id.split('-').next()), last.split('-').next());

        // The first event after it is the next one.
        site.create_task(DEVICE, "fourth").await;
        assert_eq!(anew.next().await.seq(), end.seq() + 1);
    });
}

#[test]
fn a_filtered_reader_hears_of_its_devices_alone_and_can_prove_that_it_missed_nothing() {
    run(async {
        let site = Plan::new().start().await;
        site.create_task("mine", "old-mine").await;
        site.create_task("other", "old-other").await;
        let mut follower = Follower::open(&site, "?device_id=mine&device_ids=third,%20fourth", None).await;
        let snapshot = follower.snapshot("new").await;
        let tasks: Vec<&Value> =
            snapshot.iter().filter(|told| told.name == "task_snapshot").map(|t| &t.data["task_id"]).collect();
        assert_eq!(tasks, ["old-mine"], "{snapshot:?}");
        let mut recordings = Follower::follow(&site, "?types=recording,task_overdue").await;
        for n in 0..20 {
            let device = ["mine", "other", "third", "nobody", "fourth"][n % 5];
            site.create_task(device, &format!("task-{n}")).await;
        }
        let told = follower.upto("the last of mine", |told| told.data["task_id"] == "task-19").await;
        assert_eq!(told.len(), 12, "{told:#?}");
        let mut before = snapshot.last().and_then(|told| told.id.clone()).expect("the end of the snapshot");
        for event in &told {
            assert_eq!(event.data["prev"], before, "{told:#?}");
            before = event.id.clone().expect("an id");
        }
        let mut uploader = Uploader::connect(&site, "mine").await;
        uploader.deliver(&site, &Take::new("mine", "delivered", 4, 20_000).mcap_only()).await;
        assert_eq!(recordings.next().await.name, "recording");

        for (query, field) in [
            ("?device_id=a/b", "device_id"),
            ("?device_ids=ok,..", "device_ids"),
            ("?types=recording,no_such", "types"),
        ] {
            let (status, body) = site.get(&format!("/api/v1/device-state/stream{query}")).await;
            assert_eq!((status, &body["code"]), (400, &json!("bad_field")), "{query}: {body}");
            assert_eq!(body["field"], field, "{query}: {body}");
        }
    });
}

/// A status that makes an event of some 20 KB.
fn long_status(n: usize) -> Value {
    let uploads: Vec<Value> = (0..100)
        .map(|k| json!({"task_id": format!("{}-{n}-{k}", "x".repeat(110)), "status": "uploaded_wait_ack"}))
        .collect();
    status(DEVICE, &uploads)
}

#[test]
fn a_slow_subscriber_is_told_resync_and_holds_nobody_up() {
    run(async {
        let site = Plan::new().set("stream.events", 256).start().await;
        // HTTP/1.0: the body comes without chunks. A small buffer, so that little fits on the way.
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(4096).expect("a small buffer");
        let mut slow = socket.connect(([127, 0, 0, 1], site.api).into()).await.expect("the site listens");
        slow.write_all(b"GET /api/v1/device-state/stream HTTP/1.0\r\n\r\n").await.expect("a request");
        let mut reader = StreamReader::new();
        let mut head = Vec::new();
        while !String::from_utf8_lossy(&head).contains("snapshot_end") {
            let mut piece = [0; 512];
            let len = slow.read(&mut piece).await.expect("the stream");
            assert!(len > 0, "the stream ended: {}", String::from_utf8_lossy(&head));
            head.extend_from_slice(&piece[..len]);
        }
        let body = head.windows(4).position(|four| four == b"\r\n\r\n").expect("a head") + 4;
        let mut events = reader.read(&head[body..]);

        // From here on it reads nothing, while another one reads everything.
        let mut quick = Follower::follow(&site, "").await;
        let mut uploader = Uploader::dial(&site, DEVICE).await;
        let mut seen = Vec::new();
        for n in 0..1500 {
            uploader.say("status", &long_status(n)).await;
            // Never further behind than the window.
            if n % 100 == 99 {
                let mark = format!("-{n}-99");
                let some = quick
                    .upto("the status", |told| {
                        let ids = told.data["waiting_ack_task_ids"].as_array();
                        ids.and_then(|ids| ids.last()?.as_str()).is_some_and(|id| id.ends_with(&mark))
                    })
                    .await;
                seen.extend(some.into_iter().map(|told| told.seq()));
            }
        }
        assert!(seen.windows(2).all(|pair| pair[1] == pair[0] + 1), "the quick one misses nothing");
        let newest = *seen.last().expect("events");

        // It reads on: what was on its way already, then how much it missed, and then everything as it is.
        let mut missed = None;
        let mut piece = vec![0; 64 << 10];
        'reading: loop {
            let read = tokio::time::timeout(STEP, slow.read(&mut piece)).await.expect("bytes in time");
            let len = read.expect("the stream");
            assert!(len > 0, "it was hung up on before it was told");
            events.extend(reader.read(&piece[..len]));
            for event in events.drain(..) {
                let data: Value = serde_json::from_str(&event.data).expect("JSON");
                match event.name.as_str() {
                    "resync" => {
                        assert_eq!(data["reason"], "too_slow");
                        // Who resumed there would have the events after the gap, and never hear what was in it.
                        assert_eq!(event.id, None, "the end of the snapshot is where one may resume");
                        missed = data["missed"].as_u64();
                    }
                    "snapshot_begin" if missed.is_some() => assert_eq!(data["reason"], "resync"),
                    "snapshot_end" if missed.is_some() => {
                        assert!(data["seq"].as_u64() >= Some(newest - 256), "{data}");
                        assert_eq!(data["devices"], 1, "{data}");
                        break 'reading;
                    }
                    _ => {}
                }
            }
        }
        assert!(missed.is_some_and(|missed| missed > 0), "{missed:?}");
        let metrics = site.send(http::Method::GET, "/metrics").await;
        let metrics = String::from_utf8_lossy(&metrics.body).into_owned();
        assert!(metrics.contains("tidegate_stream_resyncs_total 1\n"), "{metrics}");
        assert!(metrics.contains("tidegate_streams 2\n"), "{metrics}");
    });
}

// W29: the stream of the predecessor had no snapshot, ids that counted per device, and an end after 30 s; what did not fit
// was dropped in silence. Here ids have no gap, who comes back goes on, and who missed something is told.
#[test]
fn w29_a_reader_that_was_away_misses_nothing_and_is_told_if_it_did() {
    run(async {
        let site = Plan::new().set("stream.events", 16).start().await;
        let mut reader = Follower::open(&site, "", None).await;
        let snapshot = reader.snapshot("new").await;
        let last = snapshot.last().and_then(|end| end.id.clone()).expect("the end has an id");
        drop(reader);
        site.create_task(DEVICE, "while-away").await;
        let mut back = Follower::open(&site, "", Some(&last)).await;
        // Policies may have become ready meanwhile as well.
        let heard = back.upto("the task", |told| told.name == "task_state").await;
        assert_eq!(heard.last().expect("the task").data["task_id"], "while-away");
        assert_eq!(Some(heard[0].seq() - 1), last.split_once('-').and_then(|(_, n)| n.parse().ok()));
        is_gapless(&heard);
        drop(back);
        for n in 0..32 {
            site.create_task(DEVICE, &format!("many-{n}")).await;
        }
        let mut late = Follower::open(&site, "", Some(&last)).await;
        let snapshot = late.snapshot("too_old").await;
        assert_eq!(snapshot.iter().filter(|told| told.name == "task_snapshot").count(), 33);
    });
}

#[test]
fn an_event_is_never_seen_before_it_is_durable() {
    run(async {
        let mut site = Plan::new().start().await;
        for round in 0..3 {
            let mut follower = Follower::follow(&site, "?types=task_state").await;
            let names: Vec<String> = (0..40).map(|n| format!("r{round}-{n}")).collect();
            let http = site.http();
            let makers: Vec<_> = names
                .iter()
                .map(|name| {
                    let (http, body) = (http.clone(), json!({"task_id": name, "device_id": DEVICE}));
                    // Most of them lose their connection, which is the point.
                    tokio::spawn(async move { http.post("/api/v1/tasks", &body).await.map(|_| ()) })
                })
                .collect();
            let mut seen = Vec::new();
            while seen.len() <= round * 7 {
                let told = follower.next().await;
                seen.push(told.data["task_id"].as_str().expect("an id").to_owned());
            }
            site.kill();
            // What else had arrived when it died was told as well.
            seen.extend(
                follower.waiting.iter().map(|t| t.data["task_id"].as_str().expect("an id").to_owned()),
            );
            for maker in makers {
                let _ = maker.await;
            }
            site.start().await;
            for task in seen {
                assert_eq!(site.task_status(&task).await, "pending", "round {round}: it was told of {task}");
            }
        }
    });
}

#[test]
fn streams_are_bounded_and_each_one_that_ends_makes_room() {
    run(async {
        let site = Plan::new().start().await;
        let mut all = Vec::new();
        for _ in 0..64 {
            all.push(Follower::follow(&site, "").await);
        }
        let refused = asked(&site, "", None).await;
        assert_eq!(refused.status(), 503);
        assert_eq!(refused.headers()["retry-after"], "5");
        let answer = refused.collect().await.expect("an answer");
        assert_eq!(answer.json()["code"], "too_many_streams", "{answer:?}");
        all.truncate(63);
        until("room for another", STEP, async || {
            (asked(&site, "", None).await.status() == 200).then_some(())
        })
        .await;
        // The others never noticed.
        site.create_task(DEVICE, "told-to-all").await;
        for follower in &mut all {
            follower.upto("the task", |told| told.data["task_id"] == "told-to-all").await;
        }
    });
}

#[test]
fn the_command_watch_prints_lines_and_comes_back_after_a_crash() {
    run(async {
        let mut site = Plan::new().start().await;
        let out = site.dir().join("watch.txt");
        let api = format!("http://127.0.0.1:{}", site.api);
        let start = |arguments: &[&str], out: &std::path::Path| {
            let mut command = Site::program();
            command.arg("watch").args(arguments).args(["--api", &api]).stderr(Stdio::null());
            command.stdout(File::create(out).expect("a file")).spawn().expect("the binary under test starts")
        };
        let mut lines = start(&["--device", DEVICE], &out);
        let json_out = site.dir().join("watch.json");
        let mut json = start(&["--types", "task_state", "--json"], &json_out);
        let text = |path: &std::path::Path| std::fs::read_to_string(path).unwrap_or_default();
        let says = async |words: &str| {
            until(words, STEP, async || text(&out).contains(words).then_some(())).await;
        };
        says("what happens from here on").await;
        until("the JSON reader", STEP, async || text(&json_out).contains("snapshot_end").then_some(())).await;
        site.create_task("another", "not-shown").await;
        site.create_task(DEVICE, "shown").await;
        says("robot-1  task shown pending").await;
        site.kill();
        says("coming back").await;
        site.start().await;
        says("the site was restarted").await;
        says("task shown is pending").await;
        site.create_task(DEVICE, "shown-later").await;
        says("task shown-later pending").await;
        until("the task as JSON", STEP, async || text(&json_out).contains("\"shown-later\"").then_some(()))
            .await;
        for line in text(&json_out).lines() {
            let event: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
            assert!(event["type"].is_string(), "{event}");
        }
        for watcher in [&mut lines, &mut json] {
            watcher.kill().expect("SIGKILL");
            watcher.wait().expect("its end");
        }
        assert!(!text(&out).contains("not-shown"), "{}", text(&out));
        let lonely = Site::program()
            .args(["watch", "--api", &format!("http://127.0.0.1:{}", crate::rig::free_port())])
            .output()
            .expect("the binary under test starts");
        assert_eq!(lonely.status.code(), Some(1), "{lonely:?}");
    });
}

#[test]
fn fights_conflicts_and_registered_devices_are_told_as_they_happen_and_in_a_snapshot() {
    run(async {
        let site = Plan::new().start().await;
        let (status, body) = site.post("/api/v1/devices/spare/token", &json!({})).await;
        assert_eq!(status, 201, "{body}");
        let mut follower = Follower::follow(&site, "?types=device_conflict,task_conflict").await;

        // A recorder that comes back with what nobody gave it.
        let mut stray = Recorder::dial(&site, "stray").await;
        (stray.state, stray.task) = ("recording".to_owned(), Some("stranger".to_owned()));
        let request = stray.request("get_state").await;
        stray.answer_state(&request).await;
        let conflict = follower.next().await;
        assert_eq!(conflict.name, "task_conflict", "{conflict:?}");
        assert_eq!(
            (&conflict.data["conflicting"], &conflict.data["conflict"]),
            (&json!(true), &json!("unknown_task"))
        );
        assert_eq!(conflict.data["device_task_id"], "stranger", "{conflict:?}");

        // One address that displaces itself again and again.
        let mut links = Vec::new();
        for _ in 0..=6 {
            links.push(Recorder::dial(&site, "twin").await);
        }
        let fight = follower.next().await;
        assert_eq!(fight.name, "device_conflict", "{fight:?}");
        assert_eq!((&fight.data["contested"], &fight.data["role"]), (&json!(true), &json!("recorder")));
        assert_eq!(fight.data["device_id"], "twin", "{fight:?}");
        let addresses = fight.data["addresses"].as_array().expect("a list");
        assert_eq!(addresses.len(), 2, "{fight:?}");

        // Whoever comes now sees all of it.
        let all = Follower::open(&site, "", None).await.snapshot("new").await;
        let of = |name: &str| {
            let mut told = all.iter().filter(|told| told.name == "device_snapshot");
            let found = told.find(|told| told.data["device_id"] == name);
            found.unwrap_or_else(|| panic!("{name} is missing: {all:#?}")).data.clone()
        };
        assert_eq!(all.iter().filter(|told| told.name == "site_snapshot").count(), 1);
        assert_eq!(of("stray")["conflict"]["device_task_id"], "stranger");
        assert_eq!(&of("twin")["contests"][0]["addresses"], &fight.data["addresses"]);
        let spare = of("spare");
        assert_eq!((&spare["registered"], &spare["connected"]), (&json!(true), &json!(false)), "{spare}");
        assert_eq!(all.last().expect("an end").data["devices"], 3);
        let listed = site.read("/api/v1/devices/conflicts").await;
        assert_eq!(listed["conflicts"][0]["device_id"], "stray", "{listed}");
        assert_eq!(listed["contests"][0]["device_id"], "twin", "{listed}");

        // Both are settled.
        stray.task = None;
        stray.push_state("idle").await;
        let settled = follower.next().await;
        assert_eq!((settled.name.as_str(), &settled.data["conflicting"]), ("task_conflict", &json!(false)));
        drop(links);
        let over = follower.next().await;
        assert_eq!((over.name.as_str(), &over.data["contested"]), ("device_conflict", &json!(false)));
    });
}
