//! Owns a link that does only what a test tells it. It never reconnects; it answers pings unless told not to.

use std::time::Duration;

use serde_json::Value;
use tidegate_runtime::seam::{Net, Stream};

use crate::ws::{Incoming, Opcode, Ws, WsError};

/// A scripted WebSocket client.
#[derive(Debug)]
pub struct RawLink<T> {
    ws: Ws<T>,
    answers_pings: bool,
}

impl<T: Stream> RawLink<T> {
    /// Connects to `host:port` and asks for `path`, with `headers` besides those of the handshake.
    ///
    /// # Errors
    /// [`WsError::Declined`] with status, headers and body if the server refuses; otherwise what broke.
    pub async fn dial<N: Net<Stream = T>>(
        net: &N,
        host: &str,
        port: u16,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Result<Self, WsError> {
        let stream = net.connect(host, port).await?;
        // Masks hide nothing here; a fixed seed keeps a simulation's bytes equal between runs.
        let rng = fastrand::Rng::with_seed(u64::from(port));
        let ws = Ws::dial(stream, &format!("{host}:{port}"), path, headers, rng).await?;
        Ok(Self { ws, answers_pings: true })
    }

    /// Whether pings are answered while waiting; they are unless this says no.
    pub fn answer_pings(&mut self, yes: bool) {
        self.answers_pings = yes;
    }

    /// Sends a text, fragmented as real devices do.
    ///
    /// # Errors
    /// What the stream said.
    pub async fn send_text(&mut self, text: &str) -> Result<(), WsError> {
        self.ws.send_text(text.as_bytes()).await
    }

    /// Sends a value as text.
    ///
    /// # Errors
    /// What the stream said.
    pub async fn send_json(&mut self, value: &Value) -> Result<(), WsError> {
        self.send_text(&value.to_string()).await
    }

    /// Sends a binary message.
    ///
    /// # Errors
    /// What the stream said.
    pub async fn send_binary(&mut self, bytes: &[u8]) -> Result<(), WsError> {
        self.ws.send_frame(true, Opcode::Binary, bytes).await
    }

    /// Sends one text message in these fragments; they need not end at character borders.
    ///
    /// # Errors
    /// What the stream said.
    pub async fn send_fragments(&mut self, fragments: &[&[u8]]) -> Result<(), WsError> {
        for (at, fragment) in fragments.iter().enumerate() {
            let opcode = if at == 0 { Opcode::Text } else { Opcode::Continuation };
            self.ws.send_frame(at + 1 == fragments.len(), opcode, fragment).await?;
        }
        Ok(())
    }

    /// Sends one frame exactly as told.
    ///
    /// # Errors
    /// What the stream said.
    pub async fn send_frame(&mut self, fin: bool, opcode: Opcode, payload: &[u8]) -> Result<(), WsError> {
        self.ws.send_frame(fin, opcode, payload).await
    }

    /// Sends bytes past all framing.
    ///
    /// # Errors
    /// What the stream said.
    pub async fn send_bytes(&mut self, bytes: &[u8]) -> Result<(), WsError> {
        self.ws.send_bytes(bytes).await
    }

    /// Sends a close frame and stays to hear the answer.
    ///
    /// # Errors
    /// What the stream said.
    pub async fn send_close(&mut self, code: u16, reason: &str) -> Result<(), WsError> {
        self.ws.send_close(Some(code), reason).await
    }

    /// The next message or control frame within `deadline`; `Ok(None)` if nothing came.
    ///
    /// # Errors
    /// How the stream ended or what broke the protocol.
    pub async fn next(&mut self, deadline: Duration) -> Result<Option<Incoming>, WsError> {
        let Ok(incoming) = tokio::time::timeout(deadline, self.ws.next()).await else { return Ok(None) };
        let incoming = incoming?;
        if let (Incoming::Ping(payload), true) = (&incoming, self.answers_pings) {
            self.ws.send_frame(true, Opcode::Pong, payload).await?;
        }
        Ok(Some(incoming))
    }

    /// The next text message, as JSON, within `deadline`; pings and pongs are passed over.
    ///
    /// # Errors
    /// In words: nothing came, it was not JSON, or the link ended (with code and reason).
    pub async fn next_json(&mut self, deadline: Duration) -> Result<Value, String> {
        let until = tokio::time::Instant::now() + deadline;
        loop {
            let left = until.saturating_duration_since(tokio::time::Instant::now());
            match self.next(left).await {
                Ok(Some(Incoming::Text(text))) => {
                    return serde_json::from_str(&text).map_err(|error| format!("{error} in {text:?}"));
                }
                Ok(Some(Incoming::Ping(_) | Incoming::Pong(_))) => {}
                Ok(Some(other)) => return Err(format!("expected text, got {other:?}")),
                Ok(None) => return Err(format!("no text within {deadline:?}")),
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    /// Reads until the server closes and gives its code and reason; `None` if the stream ended without a close
    /// frame. Messages on the way are dropped.
    ///
    /// # Errors
    /// In words: the server did not close within `deadline`.
    pub async fn closed(&mut self, deadline: Duration) -> Result<Option<(u16, String)>, String> {
        let until = tokio::time::Instant::now() + deadline;
        loop {
            let left = until.saturating_duration_since(tokio::time::Instant::now());
            match self.next(left).await {
                Ok(Some(Incoming::Close(code, reason))) => return Ok(Some((code.unwrap_or(1005), reason))),
                Ok(Some(_)) => {}
                Ok(None) => return Err(format!("still open after {deadline:?}")),
                Err(WsError::Ended | WsError::Io(_)) => return Ok(None),
                Err(error) => return Err(error.to_string()),
            }
        }
    }
}
