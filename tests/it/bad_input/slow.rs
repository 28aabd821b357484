//! Clients that are slow on purpose: heads and bodies that drip, connections that say nothing, answers nobody reads.

use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::net::TcpSocket;

use super::Calm;
use super::wire::Wire;
use crate::rig::{EDGE_KEY, Plan, SITE, Site, run, until};

/// Far above every bound that docs/protocol.md names.
const PATIENCE: Duration = Duration::from_secs(120);
/// Between two bytes of a client that drips.
const DRIP: Duration = Duration::from_millis(200);

/// Sends `head`, then a byte now and then until the site closes. What it said is given back.
async fn drip(port: u16, head: &str) -> String {
    let mut wire = Wire::dial(port).await;
    wire.send(head.as_bytes()).await;
    let (mut read, mut write) = wire.stream.split();
    let mut said = Vec::new();
    let reading = async {
        let mut piece = [0; 4096];
        while let Ok(len @ 1..) = read.read(&mut piece).await {
            said.extend_from_slice(&piece[..len]);
        }
    };
    let dripping = async {
        use tokio::io::AsyncWriteExt as _;
        while write.write_all(b"x").await.is_ok() {
            tokio::time::sleep(DRIP).await;
        }
        std::future::pending::<()>().await;
    };
    let both = async {
        tokio::select! {
            biased;
            () = reading => {}
            () = dripping => {}
        }
    };
    tokio::time::timeout(PATIENCE, both).await.expect("the site closes a connection that drips");
    String::from_utf8_lossy(&said).into_owned()
}

/// Asks again and again for a large list and never reads a byte of it; ends when the site hangs up.
async fn never_read(port: u16, request: &[u8]) {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a small buffer");
    let mut stream = socket.connect(([127, 0, 0, 1], port).into()).await.expect("the site listens");
    let asking = async {
        use tokio::io::AsyncWriteExt as _;
        // The site stops reading requests once its own answers do not leave; then this waits for the hang-up.
        while stream.write_all(request).await.is_ok() {}
    };
    tokio::time::timeout(PATIENCE, asking).await.expect("the site hangs up on a client that reads nothing");
}

/// The site serves, whatever the others do.
async fn served(site: &Site, round: &str) {
    let answer = site.read("/api/v1/tasks?limit=1").await;
    assert_eq!(answer["limit"], 1, "{round}: {answer}");
    let edge = site.edge();
    let key = format!("{SITE}/probe/{round}");
    edge.head(&key).await.unwrap_or_else(|error| panic!("{round}: {error}"));
}

#[test]
fn slow_clients_are_hung_up_on_and_hold_nobody_up() {
    run(async {
        // The device that behaves must not look silent meanwhile: nobody answers its pings in this test.
        let site = Plan::new().set("devices.ping_interval", "2m").start().await;
        let mut calm = Calm::begin(&site).await;
        let mut silent = Vec::new();
        for port in [site.api, site.s3] {
            for n in 0..200 {
                let mut wire = Wire::dial(port).await;
                let begun: &[u8] = match n % 3 {
                    0 => b"",
                    1 => b"GET /readyz HT",
                    _ => b"GET /recorder/x HTTP/1.1\r\nhost: site\r\nupgrade: websocket\r\n",
                };
                assert!(wire.send(begun).await, "a connection is taken");
                silent.push(wire);
            }
        }
        served(&site, "400 half-open connections").await;
        calm.holds("400 half-open connections").await;
        let body = "POST /api/v1/tasks HTTP/1.1\r\nhost: site\r\ncontent-length: 100000\r\n\r\n{";
        let unsigned =
            format!("PUT /edge-{SITE}/x HTTP/1.1\r\nhost: site\r\ncontent-length: 100000\r\n\r\nx");
        let foreign = format!(
            "PUT /edge-{SITE}/x HTTP/1.1\r\nhost: site\r\nauthorization: AWS4-HMAC-SHA256 Credential={EDGE_KEY}/\
             20260101/us-east-1/s3/aws4_request,SignedHeaders=host,Signature={}\r\nx-amz-date: 20260101T000000Z\r\n\
             x-amz-content-sha256: UNSIGNED-PAYLOAD\r\ncontent-length: 100000\r\n\r\nx",
            "0".repeat(64)
        );
        let head = "GET /readyz HTTP/1.1\r\nx: ";
        let reads_nothing = "GET /metrics HTTP/1.1\r\nhost: site\r\n\r\n".repeat(100);
        let unsigned_lists = "GET / HTTP/1.1\r\nhost: site\r\n\r\n".repeat(1000);
        let slow = async {
            let closed = async {
                for wire in &mut silent {
                    let said = wire.end(PATIENCE).await;
                    assert!(!said.starts_with(b"HTTP/1.1 200"), "half a request is none");
                }
            };
            let (_, _, api, unsigned, foreign, (), (), ()) = tokio::join!(
                drip(site.api, head),
                drip(site.s3, head),
                drip(site.api, body),
                drip(site.s3, &unsigned),
                drip(site.s3, &foreign),
                never_read(site.api, reads_nothing.as_bytes()),
                never_read(site.s3, unsigned_lists.as_bytes()),
                closed,
            );
            assert!(api.starts_with("HTTP/1.1 408") && api.contains("body_too_slow"), "{api}");
            assert!(unsigned.contains("AccessDenied"), "{unsigned}");
            assert!(foreign.starts_with("HTTP/1.1 403") || foreign.starts_with("HTTP/1.1 400"), "{foreign}");
        };
        let others = async {
            loop {
                served(&site, "while others are slow").await;
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        };
        tokio::select! {
            biased;
            () = slow => {}
            () = others => {}
        }
        until("the slow clients to be forgotten", PATIENCE, async || {
            (super::descriptors(&site)? < 100).then_some(())
        })
        .await;
        calm.holds("slow clients").await;
        let metrics = site.send(http::Method::GET, "/metrics").await;
        let metrics = String::from_utf8_lossy(&metrics.body).into_owned();
        for operation in ["head", "body", "write"] {
            let named = format!("tidegate_timeouts_total{{operation=\"{operation}\"}} ");
            let line = metrics.lines().find(|line| line.starts_with(&named)).unwrap_or_default();
            assert!(!line.is_empty() && !line.ends_with(" 0"), "{operation} is not counted: {metrics}");
        }
        calm.end().await;
    });
}
