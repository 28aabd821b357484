//! The accept loop, over streams in memory and a paused clock.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::routing::{get, post};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::{Bounds, Remote, serve};
use crate::seam::Listener;
use crate::timeouts::{Op, Timeouts};

/// A listener that hands out the far ends of pipes, all from one address.
pub(crate) struct Pipes(mpsc::Receiver<io::Result<DuplexStream>>, SocketAddr);

/// Opens pipes to a [`Pipes`].
#[derive(Clone)]
pub(crate) struct Dial(mpsc::Sender<io::Result<DuplexStream>>);

impl Dial {
    /// A connected stream with a buffer as small as a slow network's.
    pub(crate) async fn connect(&self) -> DuplexStream {
        self.connect_over(16 << 10).await
    }

    /// A connected stream with a buffer of so many bytes.
    pub(crate) async fn connect_over(&self, room: usize) -> DuplexStream {
        let (near, far) = tokio::io::duplex(room);
        self.0.send(Ok(far)).await.expect("the listener lives");
        near
    }
}

pub(crate) fn pipes() -> (Dial, Pipes) {
    pipes_from(SocketAddr::from(([10, 0, 0, 7], 8080)))
}

fn pipes_from(peer: SocketAddr) -> (Dial, Pipes) {
    let (send, receive) = mpsc::channel(1);
    (Dial(send), Pipes(receive, peer))
}

impl Listener for Pipes {
    type Stream = DuplexStream;

    async fn accept(&mut self) -> io::Result<(DuplexStream, SocketAddr)> {
        match self.0.recv().await {
            Some(stream) => Ok((stream?, self.local_addr()?)),
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.1)
    }
}

fn site(router: Router, bounds: Bounds) -> (Dial, watch::Sender<bool>, JoinHandle<()>) {
    let (dial, listener) = pipes();
    let (stop, stopped) = watch::channel(false);
    (dial, stop, tokio::spawn(serve(listener, router, bounds, stopped, None, Timeouts::default())))
}

async fn hello() -> &'static str {
    "hello"
}

async fn whence(request: Request) -> String {
    request.extensions().get::<Remote>().map(|remote| remote.addr.to_string()).unwrap_or_default()
}

async fn rest(mut stream: DuplexStream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).await.expect("a pipe does not fail");
    text
}

const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";

#[tokio::test(start_paused = true)]
async fn a_request_is_answered_and_an_idle_connection_is_closed() {
    let (dial, _stop, _task) = site(Router::new().route("/", get(hello)), Bounds::default());
    let mut client = dial.connect().await;
    client.write_all(GET).await.expect("a pipe does not fail");
    let text = rest(client).await;
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n") && text.ends_with("hello"), "{text}");
    assert!(!text.to_lowercase().contains("\r\ndate:"), "the system's clock does not show: {text}");
}

#[tokio::test(start_paused = true)]
async fn an_address_has_one_form_whichever_listener_it_came_to() {
    for (came, shown) in [
        ("10.0.0.7:8080", "10.0.0.7:8080"),
        ("[::ffff:10.0.0.7]:8080", "10.0.0.7:8080"),
        ("[2001:db8::7]:8080", "[2001:db8::7]:8080"),
        ("[fe80::7%3]:8080", "[fe80::7%3]:8080"),
    ] {
        let (dial, listener) = pipes_from(came.parse().expect("an address"));
        let (_stop, stopped) = watch::channel(false);
        let router = Router::new().route("/", get(whence));
        tokio::spawn(serve(listener, router, Bounds::default(), stopped, None, Timeouts::default()));
        let mut client = dial.connect().await;
        client.write_all(GET).await.expect("a pipe does not fail");
        let text = rest(client).await;
        assert!(text.ends_with(&format!("\r\n\r\n{shown}")), "{came}: {text}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_never_finishes_its_head_is_closed() {
    let (dial, _stop, _task) = site(Router::new().route("/", get(hello)), Bounds::default());
    let mut slow = dial.connect().await;
    slow.write_all(b"GET / HT").await.expect("a pipe does not fail");
    let silent = dial.connect().await;
    assert!(!rest(slow).await.contains("200 OK"));
    assert_eq!(rest(silent).await, "");
}

#[tokio::test(start_paused = true)]
async fn connections_beyond_the_bound_wait_while_those_within_it_work() {
    let bounds = Bounds { connections: 1, ..Bounds::default() };
    let router = Router::new().route("/", get(hello)).route("/never", get(std::future::pending::<String>));
    let (dial, _stop, _task) = site(router, bounds);
    let mut first = dial.connect().await;
    first.write_all(b"GET /never HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("a pipe does not fail");
    let mut second = dial.connect().await;
    second.write_all(GET).await.expect("a pipe does not fail");
    let mut byte = [0];
    let early = tokio::time::timeout(Duration::from_secs(3600), second.read(&mut byte)).await;
    assert!(early.is_err(), "the only place is taken");
    drop(first);
    assert!(rest(second).await.contains("200 OK"));
}

#[tokio::test(start_paused = true)]
async fn the_connection_that_waits_longest_for_a_request_goes_for_a_new_one() {
    let bounds = Bounds { connections: 3, ..Bounds::default() };
    let router = Router::new().route("/", get(hello)).route("/never", get(std::future::pending::<String>));
    let (dial, _stop, _task) = site(router, bounds);
    // With so few places.
    let peace = Duration::from_millis(100);
    let mut works = dial.connect().await;
    works.write_all(b"GET /never HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("a pipe does not fail");
    tokio::time::sleep(peace / 2).await;
    // It was answered and says nothing more: it waits since then.
    let mut answered = dial.connect().await;
    answered.write_all(GET).await.expect("a pipe does not fail");
    tokio::time::sleep(peace / 2).await;
    let mut drips = dial.connect().await;
    drips.write_all(b"GET / HT").await.expect("a pipe does not fail");
    let begun = tokio::time::Instant::now();
    let mut newcomer = dial.connect().await;
    newcomer.write_all(GET).await.expect("a pipe does not fail");
    assert!(rest(answered).await.ends_with("hello"));
    assert_eq!(begun.elapsed(), peace / 2, "each may wait for a while in peace");
    let mut another = dial.connect().await;
    another.write_all(GET).await.expect("a pipe does not fail");
    assert!(!rest(drips).await.contains("200 OK"));
    assert_eq!(begun.elapsed(), peace, "the next one is the one that came before the newcomer");
    for client in [newcomer, another] {
        assert!(rest(client).await.contains("200 OK"));
    }
    let mut byte = [0];
    let answer = tokio::time::timeout(Duration::from_secs(3600), works.read(&mut byte)).await;
    assert!(answer.is_err(), "a connection that works stays");
}

#[tokio::test(start_paused = true)]
async fn among_many_places_each_connection_may_wait_for_a_second_in_peace() {
    let bounds = Bounds { connections: 256, ..Bounds::default() };
    let (dial, _stop, _task) = site(Router::new().route("/", get(hello)), bounds);
    let begun = tokio::time::Instant::now();
    let mut silent = Vec::new();
    for _ in 0..256 {
        silent.push(dial.connect().await);
    }
    let mut newcomer = dial.connect().await;
    newcomer.write_all(GET).await.expect("a pipe does not fail");
    let mut byte = [0];
    newcomer.read_exact(&mut byte).await.expect("an answer");
    assert_eq!(begun.elapsed(), Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_request_whose_body_does_not_come_makes_room_and_one_that_is_worked_on_does_not() {
    let (begun, mut beginning) = mpsc::channel(1);
    let works = move |_body: String| {
        let begun = begun.clone();
        async move {
            begun.send(()).await.expect("the test waits");
            tokio::time::sleep(Duration::from_secs(3600)).await;
            "done"
        }
    };
    let router = Router::new()
        .route("/", get(hello).post(|body: String| async { body }))
        .route("/works", post(works))
        .route("/unread", post(std::future::pending::<String>));
    let (dial, _stop, _task) = site(router, Bounds { connections: 4, ..Bounds::default() });
    let half = |path: &str| format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\na");
    let mut whole = dial.connect().await;
    whole.write_all(half("/works").as_bytes()).await.expect("a pipe does not fail");
    whole.write_all(b"b").await.expect("a pipe does not fail");
    beginning.recv().await.expect("it is worked on");
    // Nobody waits for its body.
    let mut unread = dial.connect().await;
    unread.write_all(half("/unread").as_bytes()).await.expect("a pipe does not fail");
    let mut halves = Vec::new();
    for _ in 0..2 {
        let mut client = dial.connect().await;
        client.write_all(half("/").as_bytes()).await.expect("a pipe does not fail");
        halves.push(client);
    }
    let begun = tokio::time::Instant::now();
    for _ in 0..20 {
        let mut client = dial.connect().await;
        client.write_all(half("/").as_bytes()).await.expect("a pipe does not fail");
        halves.push(client);
        let mut newcomer = dial.connect().await;
        let once = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        newcomer.write_all(once).await.expect("a pipe does not fail");
        assert!(rest(newcomer).await.contains("200 OK"));
    }
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
    // Half a body that is made whole in time is answered.
    let mut late = dial.connect().await;
    late.write_all(half("/").as_bytes()).await.expect("a pipe does not fail");
    tokio::time::sleep(Duration::from_secs(5)).await;
    late.write_all(b"b").await.expect("a pipe does not fail");
    assert!(rest(late).await.ends_with("ab"));
    assert!(rest(whole).await.ends_with("done"), "what is worked on stays");
    let mut byte = [0];
    let answer = tokio::time::timeout(Duration::from_secs(3600), unread.read(&mut byte)).await;
    assert!(answer.is_err(), "what is worked on stays, whatever its client still sends");
}

#[tokio::test(start_paused = true)]
async fn half_a_head_is_told_when_it_is_given_up_and_a_connection_that_rests_is_not() {
    let (dial, listener) = pipes();
    let (_stop, stopped) = watch::channel(false);
    let (router, timeouts) = (Router::new().route("/", get(hello)), Timeouts::default());
    tokio::spawn(serve(listener, router, Bounds::default(), stopped, None, timeouts.clone()));
    let silent = dial.connect().await;
    let mut answered = dial.connect().await;
    answered.write_all(GET).await.expect("a pipe does not fail");
    assert!(rest(answered).await.contains("200 OK"));
    assert_eq!(rest(silent).await, "");
    assert_eq!(timeouts.count(Op::Head), 0);
    let mut again = dial.connect().await;
    again.write_all(GET).await.expect("a pipe does not fail");
    tokio::time::sleep(Duration::from_secs(1)).await;
    again.write_all(b"GET / HT").await.expect("a pipe does not fail");
    let mut half = dial.connect().await;
    half.write_all(b"GET / HT").await.expect("a pipe does not fail");
    assert!(!rest(half).await.contains("200 OK"));
    assert!(rest(again).await.contains("200 OK"));
    assert_eq!(timeouts.count(Op::Head), 2);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_goes_on_is_work() {
    let (chunks, said) = mpsc::unbounded_channel::<Result<String, io::Error>>();
    let said = std::sync::Mutex::new(Some(said));
    let stream = move || {
        let mut said = said.lock().expect("nobody panicked").take().expect("asked once");
        async move { axum::body::Body::from_stream(futures_util::stream::poll_fn(move |cx| said.poll_recv(cx))) }
    };
    let stream = std::sync::Arc::new(stream);
    let router = Router::new().route("/", get(hello)).route("/stream", get(move || stream()));
    let (dial, _stop, _task) = site(router, Bounds { connections: 1, ..Bounds::default() });
    let mut reads = dial.connect().await;
    reads.write_all(b"GET /stream HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("a pipe does not fail");
    let mut newcomer = dial.connect().await;
    newcomer.write_all(GET).await.expect("a pipe does not fail");
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_secs(15)).await;
        chunks.send(Ok("more\n".to_owned())).expect("it is read");
    }
    drop(chunks);
    assert_eq!(rest(reads).await.matches("more").count(), 100, "nobody ended it");
    assert!(rest(newcomer).await.contains("200 OK"));
}

#[tokio::test(start_paused = true)]
async fn an_accept_error_does_not_end_the_loop() {
    let (dial, _stop, _task) = site(Router::new().route("/", get(hello)), Bounds::default());
    dial.0.send(Err(io::Error::other("no descriptors"))).await.expect("the listener lives");
    let mut client = dial.connect().await;
    client.write_all(GET).await.expect("a pipe does not fail");
    assert!(rest(client).await.contains("200 OK"));
}

#[tokio::test(start_paused = true)]
async fn a_stop_lets_a_request_under_way_end_and_drops_it_after_the_budget() {
    let (release, held) = watch::channel(false);
    let slow = move || {
        let mut held = held.clone();
        async move {
            let _ = held.wait_for(|released| *released).await;
            "done"
        }
    };
    let router = Router::new().route("/", get(slow)).route("/never", get(std::future::pending::<String>));
    let (dial, stop, task) = site(router, Bounds::default());
    let (mut ends, mut hangs) = (dial.connect().await, dial.connect().await);
    ends.write_all(GET).await.expect("a pipe does not fail");
    hangs.write_all(b"GET /never HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("a pipe does not fail");
    // Both requests are with their routes once the clock has nothing else to do.
    tokio::time::advance(Duration::from_millis(1)).await;
    tokio::time::timeout(Duration::from_millis(1), std::future::pending::<()>()).await.expect_err("it pends");
    stop.send_replace(true);
    release.send_replace(true);
    assert!(rest(ends).await.ends_with("done"));
    assert_eq!(rest(hangs).await, "");
    task.await.expect("the loop ended");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_nothing_of_an_answer_is_hung_up_on_and_a_slow_one_is_not() {
    let large = "x".repeat(1 << 20);
    let router = Router::new().route("/", get(move || async move { large }));
    let (dial, _stop, _task) = site(router, Bounds { connections: 1, ..Bounds::default() });
    let mut slow = dial.connect().await;
    slow.write_all(GET).await.expect("a pipe does not fail");
    let mut piece = vec![0; 16 << 10];
    let mut taken = 0;
    while taken < 1 << 20 {
        tokio::time::sleep(Duration::from_secs(20)).await;
        taken += slow.read(&mut piece).await.expect("a pipe does not fail");
    }
    drop(slow);
    let mut stuck = dial.connect().await;
    stuck.write_all(GET).await.expect("a pipe does not fail");
    // The only place is free again once the site has given the first one up.
    let mut next = dial.connect().await;
    next.write_all(GET).await.expect("a pipe does not fail");
    let mut byte = [0];
    let early = tokio::time::timeout(Duration::from_secs(29), next.read(&mut byte)).await;
    assert!(early.is_err(), "a client has its time");
    next.read_exact(&mut byte).await.expect("an answer");
    assert!(rest(stuck).await.len() < 1 << 20, "what was not taken in time never comes");
}

#[tokio::test(start_paused = true)]
async fn a_length_beside_chunks_counts_for_nothing_and_hides_no_request() {
    let (dial, _stop, _task) =
        site(Router::new().route("/", post(|body: String| async { body })), Bounds::default());
    for lengths in
        ["content-length: 4\r\ntransfer-encoding: chunked", "transfer-encoding: chunked\r\ncontent-length: 4"]
    {
        let mut client = dial.connect().await;
        let request = format!("POST / HTTP/1.1\r\nhost: x\r\n{lengths}\r\n\r\n2\r\nab\r\n0\r\n\r\n");
        client.write_all(request.as_bytes()).await.expect("a pipe does not fail");
        let text = rest(client).await;
        assert!(text.starts_with("HTTP/1.1 200") && text.ends_with("ab"), "{text}");
        assert_eq!(text.matches("HTTP/1.1").count(), 1, "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_never_finishes_its_handshake_is_closed_and_holds_nobody_up() {
    let (acceptor, roots) = crate::tls::tests::acceptor("site.example");
    let (dial, listener) = pipes();
    let (_stop, stopped) = watch::channel(false);
    let (router, timeouts) = (Router::new().route("/", get(hello)), Timeouts::default());
    tokio::spawn(serve(listener, router, Bounds::default(), stopped, Some(acceptor), timeouts.clone()));
    let mut half = dial.connect().await;
    half.write_all(&[22, 3, 1, 2, 0, 1]).await.expect("a pipe does not fail");
    let begun = tokio::time::Instant::now();
    let mut whole = crate::tls::tests::client(dial.connect().await, roots, "site.example").await;
    whole.write_all(GET).await.expect("a pipe does not fail");
    whole.flush().await.expect("a pipe does not fail");
    let mut status = [0; 15];
    whole.read_exact(&mut status).await.expect("an answer");
    assert_eq!(&status, b"HTTP/1.1 200 OK");
    assert_eq!(begun.elapsed(), Duration::ZERO, "it waits for nobody");
    assert_eq!(rest(half).await, "");
    assert_eq!(begun.elapsed(), Bounds::default().header_read);
    assert_eq!(timeouts.count(Op::Tls), 1);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_does_not_end_holds_up_a_stop_for_its_budget_alone_and_is_told() {
    let (dial, listener) = pipes();
    let (stop, stopped) = watch::channel(false);
    let (begun, mut beginning) = mpsc::channel(1);
    let forever = get(move || async move {
        begun.send(()).await.expect("the test waits");
        std::future::pending::<()>().await;
    });
    let (router, timeouts) = (Router::new().route("/", forever), Timeouts::default());
    let bounds = Bounds::default();
    let served = tokio::spawn(serve(listener, router, bounds, stopped, None, timeouts.clone()));
    let mut client = dial.connect().await;
    client.write_all(GET).await.expect("a pipe does not fail");
    beginning.recv().await.expect("it is served");
    let at = tokio::time::Instant::now();
    stop.send_replace(true);
    served.await.expect("it ends");
    assert_eq!(at.elapsed(), bounds.shutdown);
    assert_eq!(timeouts.count(Op::Drain), 1);
    assert_eq!(rest(client).await, "");
}
