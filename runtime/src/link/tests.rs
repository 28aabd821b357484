//! Links over streams in memory: handshakes, frames, pings, closes. The driver is played by the test.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use tidegate_core::effect::{LinkView, Notice};
use tidegate_core::id::{Boot, ConnId, Role};
use tidegate_core::input::{Demand, Input, LostWhy};
use tidegate_core::refusal::Refusal;
use tidegate_core::time::{Mono, Now, Wall};
use tidegate_core::wire::RecorderMessage;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_websockets::{ClientBuilder, Config, Message, WebSocketStream};

use super::{Bounds, Links};
use crate::board::Board;
use crate::inbox::{Admitted, Inbox, Letter, OUTBOUND, Outbound};
use crate::metrics::{DriverStats, Metrics};
use crate::server::tests::{Dial, pipes};
use crate::server::{self, Clocks};
use crate::timeouts::{Op, Timeouts};

const CONN: ConnId = ConnId { boot: Boot(1), n: 7 };
const NOW: Wall = Wall(100 * 60_000);
const UPDATE: &str = r#"{"type":"state_update","data":{"current":"idle"}}"#;

/// How the played driver answers a knock.
#[derive(Clone)]
enum Verdict {
    Admit,
    Refuse(Refusal),
    /// Not before the site is told to.
    Late(watch::Receiver<bool>),
}

/// A site that knows no token.
struct NoRows;

impl crate::api::Reads for NoRows {
    fn snapshot(&self) -> Result<Box<dyn crate::api::Snapshot>, crate::api::Unreadable> {
        Err(crate::api::Unreadable::Closed)
    }
}

struct Site {
    dial: Dial,
    inputs: mpsc::UnboundedReceiver<Input>,
    mailboxes: mpsc::UnboundedReceiver<mpsc::Sender<Outbound>>,
    metrics: Metrics,
    links: Links,
    _stop: watch::Sender<bool>,
}

/// A site without a driver: its listener, what comes to its inbox, its figures, its links, and its end.
type Parts = (Dial, mpsc::Receiver<Letter>, Metrics, Links, watch::Sender<bool>);

fn parts(bounds: Bounds) -> Parts {
    let runner: crate::api::Runner = Arc::new(|job| Box::pin(async move { job() }));
    parts_with(bounds, Demand::Nothing, Board::new(), runner)
}

fn parts_with(bounds: Bounds, demand: Demand, board: Board, runner: crate::api::Runner) -> Parts {
    let (inbox, letters) = Inbox::new();
    let metrics = Metrics::new(board.clone(), Arc::new(DriverStats::default));
    let clock: Clocks = Arc::new(|| Now { wall: NOW, mono: Mono(0) });
    let rows = super::Rows { reads: Arc::new(NoRows), runner };
    let links = Links::new(inbox, board, metrics.clone(), clock, bounds, rows);
    let (dial, listener) = pipes();
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(server::serve(
        listener,
        links.router(|_| demand),
        server::Bounds::default(),
        stopped,
        None,
        Timeouts::default(),
    ));
    (dial, letters, metrics, links, stop)
}

fn site(bounds: Bounds, verdict: Verdict) -> Site {
    played(parts(bounds), verdict)
}

fn played((dial, mut letters, metrics, links, stop): Parts, verdict: Verdict) -> Site {
    let (heard, inputs) = mpsc::unbounded_channel();
    let (mailed, mailboxes) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(letter) = letters.recv().await {
            let (input, admission) = match letter {
                Letter::Input(input) => (input, None),
                Letter::Knock { input, admission, .. } => (input, Some(admission)),
                Letter::Request { .. } | Letter::Policy { .. } => panic!("links ask nothing"),
            };
            let _ = heard.send(input);
            if let Some(admission) = admission {
                tokio::spawn(answer(verdict.clone(), admission, mailed.clone()));
            }
        }
    });
    Site { dial, inputs, mailboxes, metrics, links, _stop: stop }
}

async fn answer(
    verdict: Verdict,
    admission: oneshot::Sender<Result<Admitted, Refusal>>,
    mailed: mpsc::UnboundedSender<mpsc::Sender<Outbound>>,
) {
    if let Verdict::Refuse(refusal) = verdict {
        let _ = admission.send(Err(refusal));
        return;
    }
    if let Verdict::Late(mut go) = verdict {
        let _ = go.wait_for(|go| *go).await;
    }
    let (mailbox, outbound) = mpsc::channel(OUTBOUND);
    let _ = mailed.send(mailbox);
    let _ = admission.send(Ok(Admitted { conn: CONN, outbound }));
}

type Client = WebSocketStream<DuplexStream>;

async fn dialled(dial: &Dial, path: &str, frame_size: usize) -> Client {
    let uri: http::Uri = format!("ws://site{path}").parse().expect("a legal address");
    let config = Config::default().frame_size(frame_size);
    let builder = ClientBuilder::from_uri(uri).config(config);
    builder.connect_on(dial.connect().await).await.expect("it is admitted").0
}

impl Site {
    async fn open(&mut self, path: &str) -> (Client, mpsc::Sender<Outbound>) {
        let client = dialled(&self.dial, path, 4096).await;
        assert!(matches!(self.inputs.recv().await, Some(Input::Knock { .. })));
        (client, self.mailboxes.recv().await.expect("a mailbox"))
    }

    async fn next(&mut self) -> Input {
        self.inputs.recv().await.expect("the driver lives")
    }

    async fn lost(&mut self) -> LostWhy {
        match self.next().await {
            Input::Lost { conn: CONN, why } => why,
            other => panic!("not lost but {other:?}"),
        }
    }
}

/// The whole answer to a request, up to the close of the idle connection.
async fn declined(dial: &Dial, request: &str) -> String {
    let mut stream = dial.connect().await;
    stream.write_all(format!("{request}host: x\r\n\r\n").as_bytes()).await.expect("a pipe does not fail");
    let mut text = String::new();
    stream.read_to_string(&mut text).await.expect("a pipe does not fail");
    text.to_lowercase()
}

const UPGRADE: &str = "connection: keep-alive, Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
                       sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\norigin: http://elsewhere\r\n";

fn text(bytes: &Message) -> &str {
    bytes.as_text().expect("a text frame")
}

#[tokio::test(start_paused = true)]
async fn a_handshake_that_is_none_is_declined_with_the_reason() {
    let site = site(Bounds::default(), Verdict::Admit);
    let no_version = UPGRADE.replace("version: 13", "version: 8");
    let no_key = UPGRADE.replace("dGhlIHNhbXBsZSBub25jZQ==", "c2hvcnQ=");
    let cases = [
        (
            "GET /recorder/r1 HTTP/1.1\r\n",
            "",
            "http/1.1 426 ",
            "connection: upgrade\r\nupgrade: websocket\r\n",
        ),
        ("POST /recorder/r1 HTTP/1.1\r\n", UPGRADE, "http/1.1 405 ", "allow: get\r\n"),
        ("GET /recorder/r1 HTTP/1.1\r\n", &no_version, "http/1.1 400 ", "sec-websocket-version: 13\r\n"),
        ("GET /transfer/r1 HTTP/1.1\r\n", &no_key, "http/1.1 400 ", "sec-websocket-key must be 16 bytes"),
        ("GET /recorder/ HTTP/1.1\r\n", UPGRADE, "http/1.1 400 ", "content-length: 0\r\n"),
        ("GET /recorder/a%20b HTTP/1.1\r\n", UPGRADE, "http/1.1 400 ", "use 1 to 128 characters"),
        ("GET /recorder/a/b HTTP/1.1\r\n", UPGRADE, "http/1.1 400 ", "\"field\":\"device_id\""),
        ("GET /recorder HTTP/1.1\r\n", UPGRADE, "http/1.1 404 ", ""),
    ];
    for (line, headers, status, part) in cases {
        let got = declined(&site.dial, &format!("{line}{headers}")).await;
        assert!(got.starts_with(status) && got.contains(part), "{line}{headers} got {got}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_handshake_is_accepted_without_extension_or_subprotocol_and_its_token_is_hashed() {
    let mut site = site(Bounds::default(), Verdict::Admit);
    let mut stream = site.dial.connect().await;
    let extras = "sec-websocket-extensions: permessage-deflate\r\nsec-websocket-protocol: x\r\n";
    let head = format!(
        "GET /recorder/r%31 HTTP/1.1\r\nhost: x\r\nauthorization: Bearer kws_v1_secret\r\n{UPGRADE}{extras}\r\n"
    );
    stream.write_all(head.as_bytes()).await.expect("a pipe does not fail");
    let mut got = Vec::new();
    while !got.ends_with(b"\r\n\r\n") {
        got.push(stream.read_u8().await.expect("an answer"));
    }
    let got = String::from_utf8(got).expect("ASCII").to_lowercase();
    assert!(got.starts_with("http/1.1 101 ") && got.contains("s3pplmbitxaq9kygzzhzrbk+xoo="), "{got}");
    assert!(!got.contains("extensions") && !got.contains("protocol:"), "{got}");
    let Input::Knock { device, remote, credential, .. } = site.next().await else { panic!("a knock") };
    assert_eq!((device.as_str(), remote.as_str()), ("r1", "10.0.0.7"));
    assert_eq!(credential, Some(tidegate_core::digest::Sha256::of(b"kws_v1_secret")));
}

#[tokio::test(start_paused = true)]
async fn a_token_in_the_path_of_an_uploader_is_hashed_and_goes_before_the_header() {
    let mut site = site(Bounds::default(), Verdict::Admit);
    let head = format!(
        "GET /transfer/kws_v1_path/r1 HTTP/1.1\r\nhost: x\r\nauthorization: Bearer other\r\n{UPGRADE}\r\n"
    );
    let mut stream = site.dial.connect().await;
    stream.write_all(head.as_bytes()).await.expect("a pipe does not fail");
    let Input::Knock { device, credential, .. } = site.next().await else { panic!("a knock") };
    assert_eq!(device.as_str(), "r1");
    assert_eq!(credential, Some(tidegate_core::digest::Sha256::of(b"kws_v1_path")));
    let alone = format!("kws_v1_{}", "x".repeat(43));
    for path in [format!("/transfer/{alone}"), format!("/recorder/{alone}"), format!("/transfer/{alone}/")] {
        let got = declined(&site.dial, &format!("GET {path} HTTP/1.1\r\n{UPGRADE}")).await;
        assert!(got.starts_with("http/1.1 400 ") && !got.contains(&alone), "{path}: {got}");
    }
    let device = "kws_v1_short";
    let _link = dialled(&site.dial, &format!("/recorder/{device}"), 4096).await;
    assert!(matches!(site.next().await, Input::Knock { device: named, .. } if named.as_str() == device));
}

#[tokio::test(start_paused = true)]
async fn refused_handshakes_are_slowed_down_by_device_and_by_address_and_good_ones_are_not() {
    // What the core refuses for the device's own fault.
    let unlike = Refusal::BadField { field: "credential", must: "another" };
    let mut refusing = self::site(Bounds::default(), Verdict::Refuse(unlike));
    let knock = |device: &str| format!("GET /recorder/{device} HTTP/1.1\r\nconnection: close\r\n{UPGRADE}");
    for n in 0..10 {
        assert!(declined(&refusing.dial, &knock("r1")).await.starts_with("http/1.1 400 "), "{n}");
        assert!(matches!(refusing.next().await, Input::Knock { .. }));
    }
    let got = declined(&refusing.dial, &knock("r1")).await;
    assert!(got.starts_with("http/1.1 429 ") && got.contains("\r\nretry-after: 6\r\n"), "{got}");
    assert!(got.contains("\"code\":\"too_many_refusals\""), "{got}");
    assert!(
        declined(&refusing.dial, &knock("r2")).await.starts_with("http/1.1 400 "),
        "another one is heard"
    );
    let Input::Knock { device, .. } = refusing.next().await else { panic!("a knock") };
    assert_eq!(device.as_str(), "r2", "the core was not asked for the one that was turned away");

    // What is no handshake counts for the address alone.
    let mut site = site(Bounds::default(), Verdict::Admit);
    let bad = |device: &str| format!("POST /recorder/{device} HTTP/1.1\r\nconnection: close\r\n{UPGRADE}");
    // Links that are admitted cost nothing.
    for _ in 0..300 {
        drop(dialled(&site.dial, "/recorder/r2", 4096).await);
        assert!(matches!(site.next().await, Input::Knock { .. }));
        assert_eq!(site.lost().await, LostWhy::Broken);
    }
    for n in 0..120 {
        assert!(
            declined(&site.dial, &bad(&format!("made-up-{n}"))).await.starts_with("http/1.1 405 "),
            "{n}"
        );
    }
    let got = declined(&site.dial, &bad("r3")).await;
    assert!(got.starts_with("http/1.1 429 ") && got.contains("\r\nretry-after: 1\r\n"), "{got}");
    tokio::time::advance(Duration::from_secs(60)).await;
    let _link = dialled(&site.dial, "/recorder/r1", 4096).await;
}

// Strangers behind the address of an uploader could keep it out while its recorder was off, although its address was its
// proof: only where a recorder was linked was known at the door.
#[tokio::test(start_paused = true)]
async fn an_uploader_is_heard_where_its_recorder_was_a_while_ago_whatever_others_there_do() {
    let board = Board::new();
    let minutes = |n: i64| Wall(NOW.0 - n * 60_000);
    for (name, remote, left) in [
        ("linked", "10.0.0.7", None),
        ("recent", "10.0.0.7", Some(minutes(59))),
        ("old", "10.0.0.7", Some(minutes(61))),
        ("elsewhere", "10.0.0.8", Some(minutes(1))),
    ] {
        let device = tidegate_core::id::DeviceId::new(name).expect("a legal id");
        let at =
            |link| Notice::Link { device: device.clone(), role: Role::Recorder, link, why: None, version: 1 };
        let view = LinkView { generation: 1, remote: remote.to_owned(), connected_at: minutes(90) };
        board.apply(minutes(90), &at(Some(view)));
        if let Some(left) = left {
            board.apply(left, &at(None));
        }
    }
    let runner: crate::api::Runner = Arc::new(|job| Box::pin(async move { job() }));
    let parts = parts_with(Bounds::default(), Demand::TokenOrAddress, board, runner);
    let mut site = played(parts, Verdict::Admit);
    for n in 0..120 {
        let bad = format!("POST /recorder/made-up-{n} HTTP/1.1\r\nconnection: close\r\n{UPGRADE}");
        assert!(declined(&site.dial, &bad).await.starts_with("http/1.1 405 "), "{n}");
    }
    for name in ["old", "elsewhere", "never-seen"] {
        let knock = format!("GET /transfer/{name} HTTP/1.1\r\nconnection: close\r\n{UPGRADE}");
        assert!(declined(&site.dial, &knock).await.starts_with("http/1.1 429 "), "{name}");
    }
    for name in ["linked", "recent"] {
        let _link = dialled(&site.dial, &format!("/transfer/{name}"), 4096).await;
        let device = loop {
            match site.next().await {
                Input::Knock { device, .. } => break device,
                // Of the one before.
                Input::Lost { .. } => {}
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(device.as_str(), name);
    }
}

#[tokio::test(start_paused = true)]
async fn a_link_that_says_too_much_is_read_more_slowly_and_is_not_silent_meanwhile() {
    let bounds = Bounds { messages: super::message_rate(2), ..Bounds::default() };
    let mut site = site(bounds, Verdict::Admit);
    let (client, _mailbox) = site.open("/recorder/r1").await;
    let (mut sink, mut stream) = client.split();
    let begun = tokio::time::Instant::now();
    let flood = async {
        for _ in 0..400 {
            sink.send(Message::ping(Bytes::from_static(&[0; 100]))).await.expect("the link lives");
        }
        sink.send(Message::text(UPDATE)).await.expect("the link lives");
    };
    let pongs = async {
        let mut pongs = 0;
        while pongs < 400 {
            pongs += usize::from(stream.next().await.expect("a frame").expect("whole").is_pong());
        }
    };
    tokio::join!(flood, pongs);
    // 40 at once, and two a second from then on.
    assert!((180..=182).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
    assert!(matches!(site.next().await, Input::Recorder { .. }), "it was never lost");
    let text = site.metrics.text();
    let line =
        text.lines().find(|line| line.starts_with("tidegate_throttled_seconds_total{role=\"recorder\"} "));
    let seconds: f64 =
        line.and_then(|line| line.split(' ').nth(1)).expect("a figure").parse().expect("a number");
    assert!((180.0..=182.0).contains(&seconds), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_link_that_is_turned_away_is_told_when_to_come_back() {
    for (refusal, code) in [(Refusal::TooManyLinks, "too_many_links"), (Refusal::Stopping, "stopping")] {
        let site = site(Bounds::default(), Verdict::Refuse(refusal));
        let got = declined(&site.dial, &format!("GET /recorder/r1 HTTP/1.1\r\n{UPGRADE}")).await;
        assert!(got.starts_with("http/1.1 503 ") && got.contains("\r\nretry-after: 5\r\n"), "{got}");
        assert!(got.contains(&format!("\"code\":\"{code}\"")), "{got}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_device_that_takes_nothing_of_the_answer_to_its_handshake_is_given_up() {
    let mut site = site(Bounds::default(), Verdict::Admit);
    let mut stream = site.dial.connect_over(64).await;
    let head = format!("GET /recorder/r1 HTTP/1.1\r\nhost: x\r\n{UPGRADE}\r\n");
    stream.write_all(head.as_bytes()).await.expect("a pipe does not fail");
    assert!(matches!(site.next().await, Input::Knock { .. }));
    assert_eq!(site.lost().await, LostWhy::Broken);
    assert_eq!(site.metrics.timeouts().count(Op::Upgrade), 1);
}

// W32: the predecessor answered 404 when its database was away, as if nobody knew the device. Here a site that cannot look
// says so: 503, to be tried again.
#[tokio::test(start_paused = true)]
async fn w32_a_knock_without_an_answer_is_declined_and_its_late_link_reported_lost() {
    let (go, late) = watch::channel(false);
    let mut site = site(Bounds::default(), Verdict::Late(late));
    let mut stream = site.dial.connect().await;
    let head = format!("GET /recorder/r1 HTTP/1.1\r\nhost: x\r\n{UPGRADE}\r\n");
    stream.write_all(head.as_bytes()).await.expect("a pipe does not fail");
    let mut status = [0; 12];
    stream.read_exact(&mut status).await.expect("an answer");
    assert_eq!(&status, b"HTTP/1.1 503");
    assert_eq!(site.metrics.timeouts().count(Op::Knock), 1);
    assert!(matches!(site.next().await, Input::Knock { .. }));
    go.send_replace(true);
    assert_eq!(site.lost().await, LostWhy::Broken);
}

#[tokio::test(start_paused = true)]
async fn a_handshake_is_answered_in_time_also_where_the_store_does_not_say_whose_token_it_is() {
    let refusal = Refusal::Unauthorized;
    let stuck: crate::api::Runner = Arc::new(|_| Box::pin(std::future::pending()));
    let parts = parts_with(Bounds::default(), Demand::Token, Board::new(), stuck);
    let mut site = played(parts, Verdict::Refuse(refusal));
    let knock = format!(
        "GET /recorder/r1 HTTP/1.1\r\nauthorization: Bearer kws_v1_x\r\nconnection: close\r\n{UPGRADE}"
    );
    for n in 0..10 {
        assert!(declined(&site.dial, &knock).await.starts_with("http/1.1 401 "), "{n}");
        assert!(matches!(site.next().await, Input::Knock { .. }));
    }
    // From now on its token is looked up first.
    let begun = tokio::time::Instant::now();
    let got = declined(&site.dial, &knock).await;
    assert!(got.starts_with("http/1.1 503 ") && got.contains("\r\nretry-after: 5\r\n"), "{got}");
    assert!(got.contains("\"code\":\"busy\""), "{got}");
    assert_eq!(begun.elapsed().as_secs(), Bounds::default().knock.as_secs());
    assert_eq!(site.metrics.timeouts().count(Op::Knock), 1);
    assert!(site.inputs.try_recv().is_err(), "the core was not asked");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_while_it_waits_is_reported_lost_once() {
    let (go, late) = watch::channel(false);
    let mut site = site(Bounds::default(), Verdict::Late(late));
    let mut stream = site.dial.connect().await;
    let head = format!("GET /recorder/r1 HTTP/1.1\r\nhost: x\r\n{UPGRADE}\r\n");
    stream.write_all(head.as_bytes()).await.expect("a pipe does not fail");
    assert!(matches!(site.next().await, Input::Knock { .. }));
    drop(stream);
    go.send_replace(true);
    assert_eq!(site.lost().await, LostWhy::Broken);
    let more = tokio::time::timeout(Duration::from_secs(60), site.inputs.recv()).await;
    assert!(more.is_err(), "lost is said once, not {more:?}");
}

#[tokio::test(start_paused = true)]
async fn messages_arrive_in_order_as_text_or_binary_and_in_fragments() {
    let mut site = site(Bounds::default(), Verdict::Admit);
    let mut client = dialled(&site.dial, "/recorder/r1", 10).await;
    assert!(matches!(site.next().await, Input::Knock { .. }));
    client.send(Message::text(UPDATE)).await.expect("sent");
    client.send(Message::binary(Bytes::from_static(b"{\"type\":\"hello\"}"))).await.expect("sent");
    let Input::Recorder { conn: CONN, message } = site.next().await else { panic!("a message") };
    assert!(matches!(message, RecorderMessage::StateUpdate { current: Some(state), .. } if state == "idle"));
    let Input::Recorder { message, .. } = site.next().await else { panic!("a message") };
    assert_eq!(message, RecorderMessage::Other("hello".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn garbage_is_counted_and_the_link_stays() {
    let mut site = site(Bounds::default(), Verdict::Admit);
    let (mut client, _mailbox) = site.open("/transfer/r1").await;
    for garbage in [&b"{\"type\":\"sta"[..], b"[1]", b"", b"{\"type\":\"\xff\xfe\"}", b"\xc3"] {
        client.send(Message::text(Bytes::from_static(garbage))).await.expect("sent");
    }
    client.send(Message::text(r#"{"type":"odd"}"#)).await.expect("sent");
    assert!(matches!(site.next().await, Input::Transfer { conn: CONN, .. }));
    let text = site.metrics.text();
    assert!(text.contains("tidegate_dropped_frames_total{role=\"transfer\"} 5"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_message_beyond_the_bound_closes_with_1009_in_one_frame_or_many() {
    for frame_size in [usize::MAX, 64] {
        let bounds = Bounds { max_message: 100, ..Bounds::default() };
        let mut site = site(bounds, Verdict::Admit);
        let mut client = dialled(&site.dial, "/recorder/r1", frame_size).await;
        assert!(matches!(site.next().await, Input::Knock { .. }));
        client.send(Message::text("x".repeat(101))).await.expect("sent");
        let close = client.next().await.expect("a frame").expect("a close");
        let (code, reason) = close.as_close().expect("a close");
        assert_eq!(u16::from(code), 1009);
        assert!(reason.contains("100"), "{reason}");
        assert_eq!(site.lost().await, LostWhy::Protocol);
        let text = site.metrics.text();
        assert!(text.contains("tidegate_oversize_messages_total{role=\"recorder\"} 1"), "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn frames_leave_whole_and_a_close_carries_its_code_and_reason() {
    let mut site = site(Bounds::default(), Verdict::Admit);
    let (mut client, mailbox) = site.open("/recorder/r1").await;
    let long = format!("{{\"type\":\"rpc_request\",\"pad\":\"{}\"}}\n", "x".repeat(100_000));
    mailbox.send(Outbound::Text(long.clone())).await.expect("the link lives");
    mailbox.send(Outbound::Close { code: 4001, reason: "replaced" }).await.expect("the link lives");
    let frame = client.next().await.expect("a frame").expect("whole");
    assert_eq!(text(&frame), long);
    let close = client.next().await.expect("a frame").expect("a close");
    assert_eq!(close.as_close().map(|(code, reason)| (u16::from(code), reason)), Some((4001, "replaced")));
    assert_eq!(site.lost().await, LostWhy::Closed);
    assert!(client.next().await.is_none(), "the stream ends after the close");
}

#[tokio::test(start_paused = true)]
async fn what_a_device_says_before_it_closes_arrives_before_its_loss() {
    let mut site = site(Bounds::default(), Verdict::Admit);
    let (mut client, _mailbox) = site.open("/recorder/r1").await;
    client.send(Message::text(UPDATE)).await.expect("sent");
    client.close().await.expect("the close is echoed");
    assert!(matches!(site.next().await, Input::Recorder { .. }));
    assert_eq!(site.lost().await, LostWhy::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_broken_stream_is_reported_as_broken() {
    let mut site = site(Bounds::default(), Verdict::Admit);
    let (client, _mailbox) = site.open("/recorder/r1").await;
    drop(client);
    assert_eq!(site.lost().await, LostWhy::Broken);
}

#[tokio::test(start_paused = true)]
async fn pings_count_from_one_and_a_link_that_answers_them_stays() {
    let mut site = site(Bounds::default(), Verdict::Admit);
    let (mut client, _mailbox) = site.open("/transfer/r1").await;
    let opened = tokio::time::Instant::now();
    for n in 1..=20_u32 {
        let ping = client.next().await.expect("a frame").expect("a ping");
        assert!(ping.is_ping());
        assert_eq!(&ping.as_payload()[..], n.to_string().as_bytes());
    }
    // The first one may come after half an interval.
    assert!(
        (Duration::from_millis(19_500 * 25)..Duration::from_secs(20 * 25 + 1)).contains(&opened.elapsed())
    );
    client.send(Message::text(UPDATE)).await.expect("sent");
    assert!(matches!(site.next().await, Input::Transfer { .. }), "it was never lost");
}

#[tokio::test(start_paused = true)]
async fn a_silent_link_is_lost_after_an_interval_and_two_timeouts() {
    let mut site = site(Bounds::default(), Verdict::Admit);
    let (_client, _mailbox) = site.open("/recorder/r1").await;
    let opened = tokio::time::Instant::now();
    assert_eq!(site.lost().await, LostWhy::Silent);
    let waited = opened.elapsed();
    assert!((Duration::from_secs(50)..Duration::from_secs(51)).contains(&waited), "{waited:?}");
    assert_eq!(site.metrics.timeouts().count(Op::Ping), 1);
    let text = site.metrics.text();
    assert!(text.contains("tidegate_timeouts_total{operation=\"ping\"} 1"), "{text}");
    assert!(text.contains("tidegate_timeouts_total{operation=\"rpc\"} 0"), "{text}");
}

const REQUEST: &str = "{\"type\":\"rpc_request\"}\n";
const RESPONSE: &str = r#"{"type":"rpc_response","request_id":"1","success":true}"#;

#[tokio::test(start_paused = true)]
async fn a_link_that_owes_an_answer_may_be_silent_for_longer() {
    let upload = "{\"priority\":0,\"task_id\":\"t\",\"type\":\"upload_request\"}\n";
    let query = "{\"type\":\"status_query\"}\n";
    let ack = "{\"task_id\":\"t\",\"type\":\"upload_ack\"}\n";
    let cancel = "{\"task_id\":\"t\",\"type\":\"cancel\"}\n";
    for (path, frame, patience) in [
        ("/recorder/r1", REQUEST, 110),
        ("/transfer/r1", upload, 105),
        ("/transfer/r1", query, 105),
        ("/transfer/r1", ack, 45),
        ("/transfer/r1", cancel, 45),
    ] {
        let mut site = site(Bounds::default(), Verdict::Admit);
        let (_client, mailbox) = site.open(path).await;
        let opened = tokio::time::Instant::now();
        tokio::time::sleep(Duration::from_secs(20)).await;
        mailbox.send(Outbound::Text(frame.to_owned())).await.expect("the link lives");
        assert_eq!(site.lost().await, LostWhy::Silent);
        assert_eq!(opened.elapsed().as_secs(), patience, "{path} {frame}");
    }
}

/// Programs work and answer on the thread that also answers pings: while a command is outstanding, a missed pong is no death.
#[tokio::test(start_paused = true)]
async fn what_a_link_owes_is_settled_by_its_answer_and_by_nothing_else() {
    let unsettled = [Message::text(UPDATE), Message::ping("mine"), Message::pong("1")];
    let cases = unsettled.map(|heard| (heard, 110)).into_iter().chain([(Message::text(RESPONSE), 50)]);
    for (heard, patience) in cases {
        let mut site = site(Bounds::default(), Verdict::Admit);
        let (mut client, mailbox) = site.open("/recorder/r1").await;
        mailbox.send(Outbound::Text(REQUEST.to_owned())).await.expect("the link lives");
        client.next().await.expect("a frame").expect("whole");
        client.send(heard.clone()).await.expect("sent");
        let last = tokio::time::Instant::now();
        let mut next = site.next().await;
        if let Input::Recorder { .. } = next {
            next = site.next().await;
        }
        assert!(matches!(next, Input::Lost { why: LostWhy::Silent, .. }), "{next:?}");
        assert_eq!(last.elapsed().as_secs(), patience, "{heard:?}");
    }
}

// An uploader hashes a recording before it says `upload_started`, one after the other, and hears and says nothing
// meanwhile. The first answer once settled everything, and the link was given up in the middle of the next hash.
#[tokio::test(start_paused = true)]
async fn an_uploader_that_is_asked_for_three_recordings_may_hash_each_of_them_in_silence() {
    let mut site = site(Bounds::default(), Verdict::Admit);
    let (mut client, mailbox) = site.open("/transfer/r1").await;
    for n in 1..=3 {
        let request = format!("{{\"priority\":0,\"task_id\":\"t{n}\",\"type\":\"upload_request\"}}\n");
        mailbox.send(Outbound::Text(request)).await.expect("the link lives");
        assert!(client.next().await.expect("a frame").expect("whole").is_text());
    }
    for n in 1..=3 {
        tokio::time::sleep(Duration::from_secs(80)).await;
        // What is uploaded between two hashes is told too, and answers nothing.
        for kind in ["upload_started", "upload_complete"] {
            let told = format!(r#"{{"type":"{kind}","data":{{"task_id":"t{n}"}}}}"#);
            client.send(Message::text(told)).await.expect("the link lives");
            assert!(matches!(site.next().await, Input::Transfer { .. }), "{kind} of {n}");
        }
    }
    let last = tokio::time::Instant::now();
    assert_eq!(site.lost().await, LostWhy::Silent);
    assert_eq!(last.elapsed().as_secs(), 45, "it owes nothing any more");
}

// An answer that never comes makes the link wait longer, but not for ever.
#[tokio::test(start_paused = true)]
async fn a_link_that_owes_much_is_given_up_as_soon_as_one_that_owes_one_answer() {
    let mut site = site(Bounds::default(), Verdict::Admit);
    let (mut client, mailbox) = site.open("/recorder/r1").await;
    for _ in 0..20 {
        mailbox.send(Outbound::Text(REQUEST.to_owned())).await.expect("the link lives");
        client.next().await.expect("a frame").expect("whole");
    }
    let opened = tokio::time::Instant::now();
    assert_eq!(site.lost().await, LostWhy::Silent);
    assert_eq!(opened.elapsed().as_secs(), 110);
}

#[tokio::test(start_paused = true)]
async fn a_link_that_does_not_read_is_lost_as_stuck() {
    let mut site = site(Bounds::default(), Verdict::Admit);
    let (_client, mailbox) = site.open("/recorder/r1").await;
    mailbox.send(Outbound::Text("x".repeat(64 << 10))).await.expect("the link lives");
    assert_eq!(site.lost().await, LostWhy::Stuck);
    assert_eq!(site.metrics.timeouts().count(Op::Write), 1);
}

#[tokio::test(start_paused = true)]
async fn a_link_whose_mailbox_is_gone_is_closed_and_reported_once() {
    let mut site = site(Bounds::default(), Verdict::Admit);
    let (mut client, mailbox) = site.open("/recorder/r1").await;
    drop(mailbox);
    let close = client.next().await.expect("a frame").expect("a close");
    assert_eq!(close.as_close().map(|(code, _)| u16::from(code)), Some(1013));
    assert_eq!(site.lost().await, LostWhy::Stuck);
}

#[tokio::test(start_paused = true)]
async fn a_full_inbox_stops_neither_pongs_nor_frames_nor_the_link() {
    let (dial, mut letters, _metrics, _links, _stop) = parts(Bounds::default());
    let knock = tokio::spawn(async move {
        let Some(Letter::Knock { admission, .. }) = letters.recv().await else { panic!("a knock") };
        let (mailbox, outbound) = mpsc::channel(OUTBOUND);
        admission.send(Ok(Admitted { conn: CONN, outbound })).expect("the handshake waits");
        (letters, mailbox)
    });
    let client = dialled(&dial, "/recorder/r1", 4096).await;
    let (mut letters, mailbox) = knock.await.expect("it knocked");
    let (mut sink, mut stream) = client.split();
    for _ in 0..crate::inbox::LETTERS + 8 {
        sink.send(Message::text(UPDATE)).await.expect("sent");
    }
    sink.send(Message::ping("still there?")).await.expect("sent");
    let pong = stream.next().await.expect("a frame").expect("a pong");
    assert!(pong.is_pong());
    mailbox.send(Outbound::Text("{}\n".to_owned())).await.expect("the link lives");
    assert_eq!(text(&stream.next().await.expect("a frame").expect("whole")), "{}\n");
    // More than can be read ahead: the link waits for us, and does not take the wait for silence.
    let flood = tokio::spawn(async move {
        for _ in 0..4096 {
            sink.send(Message::text(UPDATE)).await.expect("sent");
        }
        sink
    });
    let pass = tokio::time::timeout(Duration::from_secs(600), std::future::pending::<()>());
    pass.await.expect_err("it pends");
    let mut taken = 0;
    while taken < crate::inbox::LETTERS + 8 + 4096 {
        match letters.recv().await {
            Some(Letter::Input(Input::Recorder { .. })) => taken += 1,
            other => panic!("after {taken} messages: {other:?}"),
        }
    }
    drop(flood.await.expect("all was sent"));
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_can_wait_until_every_close_has_left() {
    let mut site = site(Bounds::default(), Verdict::Admit);
    let (mut client, mailbox) = site.open("/recorder/r1").await;
    let long = Duration::from_secs(3600);
    let begun = tokio::time::Instant::now();
    site.links.drained(Duration::from_secs(1)).await;
    assert_eq!(begun.elapsed(), Duration::from_secs(1), "an open link holds it as long as it may");
    mailbox.send(Outbound::Close { code: 1001, reason: "site is stopping" }).await.expect("the link lives");
    let ((), close) = tokio::join!(site.links.drained(long), client.next());
    let close = close.expect("a frame").expect("a close");
    assert_eq!(close.as_close().map(|(code, _)| u16::from(code)), Some(1001));
    assert!(begun.elapsed() < long);
}

/// Ten thousand of them wait most of the time. The library keeps 8 KiB for what it reads, the channels 2 KiB.
#[tokio::test]
async fn the_task_of_a_link_and_what_waits_in_its_channels_are_small() {
    let site = parts(Bounds::default());
    let (_mailbox, outbound) = mpsc::channel(OUTBOUND);
    let device = tidegate_core::id::DeviceId::new("r1").expect("a legal id");
    let guard = super::Guard::new(Inbox::new().0, CONN);
    let link = super::Link { device, role: tidegate_core::id::Role::Recorder, guard, outbound };
    let (stream, _far) = tokio::io::duplex(1);
    let task = super::socket::run(stream, link, &site.3.0);
    assert!(size_of_val(&task) <= 4 << 10, "{} bytes", size_of_val(&task));
    assert!(size_of::<Outbound>() <= 32, "a channel has room for 32 of them from the start");
}

#[tokio::test(start_paused = true)]
async fn links_take_no_place_among_the_connections_of_their_listener() {
    let mut site = site(Bounds::default(), Verdict::Admit);
    let (dial, listener) = pipes();
    let (_stop, stopped) = watch::channel(false);
    let narrow = server::Bounds { connections: 1, ..server::Bounds::default() };
    tokio::spawn(server::serve(
        listener,
        site.links.router(|_| Demand::Nothing),
        narrow,
        stopped,
        None,
        Timeouts::default(),
    ));
    let mut open = Vec::new();
    for n in 0..3 {
        let client = dialled(&dial, &format!("/recorder/r{n}"), 4096).await;
        open.push((client, site.mailboxes.recv().await.expect("a mailbox")));
        let next = site.next().await;
        assert!(matches!(next, Input::Knock { .. }), "no link had to go for it: {next:?}");
    }
}
