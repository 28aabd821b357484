//! The accept loop, over streams in memory and a paused clock.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::routing::{get, post};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::{Bounds, serve};
use crate::seam::Listener;

/// A listener that hands out the far ends of pipes.
pub(crate) struct Pipes(mpsc::Receiver<io::Result<DuplexStream>>);

/// Opens pipes to a [`Pipes`].
#[derive(Clone)]
pub(crate) struct Dial(mpsc::Sender<io::Result<DuplexStream>>);

impl Dial {
    /// A connected stream with a buffer as small as a slow network's.
    pub(crate) async fn connect(&self) -> DuplexStream {
        let (near, far) = tokio::io::duplex(16 << 10);
        self.0.send(Ok(far)).await.expect("the listener lives");
        near
    }
}

pub(crate) fn pipes() -> (Dial, Pipes) {
    let (send, receive) = mpsc::channel(1);
    (Dial(send), Pipes(receive))
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
        Ok(SocketAddr::from(([10, 0, 0, 7], 8080)))
    }
}

fn site(router: Router, bounds: Bounds) -> (Dial, watch::Sender<bool>, JoinHandle<()>) {
    let (dial, listener) = pipes();
    let (stop, stopped) = watch::channel(false);
    (dial, stop, tokio::spawn(serve(listener, router, bounds, stopped)))
}

async fn hello() -> &'static str {
    "hello"
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
async fn a_client_that_never_finishes_its_head_is_closed() {
    let (dial, _stop, _task) = site(Router::new().route("/", get(hello)), Bounds::default());
    let mut slow = dial.connect().await;
    slow.write_all(b"GET / HT").await.expect("a pipe does not fail");
    let silent = dial.connect().await;
    assert!(!rest(slow).await.contains("200 OK"));
    assert_eq!(rest(silent).await, "");
}

#[tokio::test(start_paused = true)]
async fn connections_beyond_the_bound_wait_for_a_free_place() {
    let bounds = Bounds { connections: 1, ..Bounds::default() };
    let (dial, _stop, _task) = site(Router::new().route("/", get(hello)), bounds);
    let first = dial.connect().await;
    let mut second = dial.connect().await;
    second.write_all(GET).await.expect("a pipe does not fail");
    let mut byte = [0];
    let early = tokio::time::timeout(Duration::from_secs(1), second.read(&mut byte)).await;
    assert!(early.is_err(), "the only place is taken");
    drop(first);
    assert!(rest(second).await.contains("200 OK"));
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
