//! Bytes over a socket, exactly as told, and what comes back: a client that may break every rule of HTTP.

use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::rig::STEP;

/// An answer, taken apart without trust.
#[derive(Debug, Default)]
pub struct Reply {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Reply {
    /// A header by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// The body as JSON; `Null` if it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// One connection.
pub struct Wire {
    pub stream: TcpStream,
    inbox: Vec<u8>,
}

impl Wire {
    pub async fn dial(port: u16) -> Wire {
        let stream = TcpStream::connect(("127.0.0.1", port)).await.expect("the site listens");
        Wire { stream, inbox: Vec::new() }
    }

    /// Sends bytes; false if the peer takes no more.
    pub async fn send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).await.is_ok()
    }

    /// Sends pieces until there is an answer or no more pieces, then waits for the answer. Gives it (none: the peer
    /// closed without one) and the number of bytes that left.
    pub async fn exchange<'a>(&mut self, pieces: impl Iterator<Item = &'a [u8]>) -> (Option<Reply>, usize) {
        let mut sent = 0;
        let (mut read, mut write) = self.stream.split();
        let inbox = &mut self.inbox;
        let writing = async {
            for piece in pieces {
                if write.write_all(piece).await.is_err() {
                    break;
                }
                sent += piece.len();
            }
            std::future::pending::<()>().await;
        };
        let reading = tokio::time::timeout(STEP, reply(&mut read, inbox));
        let reply = tokio::select! {
            biased;
            reply = reading => reply.expect("an answer or an end within a step"),
            () = writing => None,
        };
        (reply, sent)
    }

    /// The next answer; none if the peer closes first.
    pub async fn reply(&mut self) -> Option<Reply> {
        let reading = reply(&mut self.stream, &mut self.inbox);
        tokio::time::timeout(STEP, reading).await.expect("an answer or an end within a step")
    }

    /// Reads to the end of the stream and gives what came; fails if there is no end within `deadline`.
    pub async fn end(&mut self, deadline: Duration) -> Vec<u8> {
        let mut all = std::mem::take(&mut self.inbox);
        let reading = async {
            let mut piece = vec![0; 64 << 10];
            while let Ok(len @ 1..) = self.stream.read(&mut piece).await {
                all.extend_from_slice(&piece[..len]);
            }
        };
        let ended = tokio::time::timeout(deadline, reading).await;
        assert!(ended.is_ok(), "the connection is still open after {deadline:?}");
        all
    }
}

/// Sends `bytes` on a connection of their own and waits for the first answer.
pub async fn ask(port: u16, bytes: &[u8]) -> Option<Reply> {
    let mut wire = Wire::dial(port).await;
    wire.exchange(std::iter::once(bytes)).await.0
}

async fn reply(stream: &mut (impl AsyncReadExt + Unpin), inbox: &mut Vec<u8>) -> Option<Reply> {
    let head_len = loop {
        if let Some(at) = inbox.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        if !matches!(stream.read_buf(inbox).await, Ok(1..)) {
            return None;
        }
    };
    let head = String::from_utf8_lossy(&inbox[..head_len]).into_owned();
    inbox.drain(..head_len);
    let mut lines = head.lines();
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let mut reply = Reply { status, headers, body: Vec::new() };
    if status == 101 || status == 204 || status == 304 {
        return Some(reply);
    }
    if status == 100 {
        return Box::pin(self::reply(stream, inbox)).await;
    }
    let chunked = reply.header("transfer-encoding").is_some_and(|value| value.contains("chunked"));
    let len: Option<usize> = reply.header("content-length").and_then(|value| value.parse().ok());
    loop {
        let whole = match len {
            _ if chunked => inbox.ends_with(b"0\r\n\r\n"),
            Some(len) => inbox.len() >= len,
            None => false,
        };
        if whole || !matches!(stream.read_buf(inbox).await, Ok(1..)) {
            break;
        }
    }
    let take = if chunked { inbox.len() } else { len.unwrap_or(inbox.len()).min(inbox.len()) };
    reply.body = inbox.drain(..take).collect();
    Some(reply)
}
