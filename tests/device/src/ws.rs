//! Owns the client side of RFC 6455 over any stream: handshake, masking, fragments. It never reconnects and
//! never answers on its own: callers see every ping and every close.

use std::fmt;
use std::io;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tidegate_runtime::seam::Stream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A `ws://` address taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WsUrl {
    /// Host name or address.
    pub host: String,
    /// TCP port; 80 if the address names none.
    pub port: u16,
    /// Path and query, `/` if the address has none.
    pub path: String,
}

impl WsUrl {
    /// Takes `ws://host[:port][/path]` apart; `http://` is read the same way, for callbacks.
    ///
    /// # Errors
    /// Says which part of the address is wrong.
    pub fn parse(url: &str) -> Result<Self, String> {
        let rest = ["ws://", "http://"].iter().find_map(|scheme| url.strip_prefix(scheme));
        let rest = rest.ok_or_else(|| format!("address {url:?}: expected ws:// or http://"))?;
        let (authority, path) = match rest.find('/') {
            Some(at) => (&rest[..at], &rest[at..]),
            None => (rest, "/"),
        };
        let (host, port) = match authority.split_once(':') {
            Some((host, port)) => {
                (host, port.parse().map_err(|_| format!("address {url:?}: port {port:?} is not a number"))?)
            }
            None => (authority, 80),
        };
        if host.is_empty() {
            return Err(format!("address {url:?}: no host"));
        }
        Ok(Self { host: host.to_owned(), port, path: path.to_owned() })
    }
}

/// What a server sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// A text message, its fragments joined.
    Text(String),
    /// A binary message, its fragments joined.
    Binary(Vec<u8>),
    /// A ping; unanswered.
    Ping(Vec<u8>),
    /// A pong.
    Pong(Vec<u8>),
    /// A close frame; unanswered. Code and reason are absent in an empty one.
    Close(Option<u16>, String),
}

/// Why a link failed.
#[derive(Debug)]
pub enum WsError {
    /// The server answered the handshake with something else than 101.
    Declined {
        /// The HTTP status.
        status: u16,
        /// Header names in lower case, with their values.
        headers: Vec<(String, String)>,
        /// The body as far as it arrived with the head or its announced length.
        body: String,
    },
    /// The stream ended without a close frame.
    Ended,
    /// The stream failed.
    Io(io::Error),
    /// The server broke the protocol.
    Protocol(&'static str),
}

impl fmt::Display for WsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Declined { status, .. } => write!(f, "declined with status {status}"),
            Self::Ended => f.write_str("the stream ended without a close frame"),
            Self::Io(error) => write!(f, "{error}"),
            Self::Protocol(what) => write!(f, "protocol: {what}"),
        }
    }
}

impl std::error::Error for WsError {}

impl From<io::Error> for WsError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Frame kinds as numbered on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Opcode {
    /// A further fragment.
    Continuation = 0,
    /// Text, or its first fragment.
    Text = 1,
    /// Bytes, or their first fragment.
    Binary = 2,
    /// Close.
    Close = 8,
    /// Ping.
    Ping = 9,
    /// Pong.
    Pong = 10,
}

/// An open WebSocket, client side.
pub struct Ws<T> {
    stream: T,
    inbox: Vec<u8>,
    /// The kind and the fragments so far of an unfinished message.
    partial: Option<(bool, Vec<u8>)>,
    rng: fastrand::Rng,
}

impl<T> fmt::Debug for Ws<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ws").field("inbox", &self.inbox.len()).finish_non_exhaustive()
    }
}

impl<T: Stream> Ws<T> {
    /// Performs the handshake on `stream`. `host` is the Host header as it is to be sent.
    ///
    /// # Errors
    /// [`WsError::Declined`] if the answer is not 101; otherwise what broke the stream or the protocol.
    pub async fn dial(
        mut stream: T,
        host: &str,
        path: &str,
        headers: &[(&str, &str)],
        mut rng: fastrand::Rng,
    ) -> Result<Self, WsError> {
        let mut nonce = [0u8; 16];
        rng.fill(&mut nonce);
        let key = STANDARD.encode(nonce);
        let mut request = format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\
             Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n"
        );
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request.push_str("\r\n");
        stream.write_all(request.as_bytes()).await?;
        stream.flush().await?;

        let mut inbox = Vec::with_capacity(1024);
        let head_end = loop {
            if let Some(at) = inbox.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            if inbox.len() > HEAD_MAX {
                return Err(WsError::Protocol("the head of the HTTP answer is too large"));
            }
            if stream.read_buf(&mut inbox).await? == 0 {
                return Err(WsError::Ended);
            }
        };
        let head = String::from_utf8_lossy(&inbox[..head_end]).into_owned();
        inbox.drain(..head_end);
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|word| word.parse().ok());
        let status: u16 = status.ok_or(WsError::Protocol("the answer is not HTTP"))?;
        let headers: Vec<(String, String)> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let header = |wanted: &str| headers.iter().find(|(name, _)| name == wanted).map(|(_, v)| v.as_str());
        if status != 101 {
            let length = header("content-length").and_then(|text| text.parse::<usize>().ok()).unwrap_or(0);
            while inbox.len() < length.min(HEAD_MAX) {
                if stream.read_buf(&mut inbox).await? == 0 {
                    break;
                }
            }
            let body = String::from_utf8_lossy(&inbox).into_owned();
            return Err(WsError::Declined { status, headers, body });
        }
        if header("sec-websocket-accept") != Some(accept(&key).as_str()) {
            return Err(WsError::Protocol("Sec-WebSocket-Accept does not belong to our key"));
        }
        Ok(Self { stream, inbox, partial: None, rng })
    }

    /// Sends one frame exactly as told, masked.
    ///
    /// # Errors
    /// What the stream said.
    pub async fn send_frame(&mut self, fin: bool, opcode: Opcode, payload: &[u8]) -> Result<(), WsError> {
        let mut frame = Vec::with_capacity(payload.len() + 14);
        frame.push(u8::from(fin) << 7 | opcode as u8);
        match payload.len() {
            len @ 0..=125 => frame.push(0x80 | len as u8),
            len @ 126..=0xffff => {
                frame.push(0x80 | 126);
                frame.extend_from_slice(&(len as u16).to_be_bytes());
            }
            len => {
                frame.push(0x80 | 127);
                frame.extend_from_slice(&(len as u64).to_be_bytes());
            }
        }
        let mask = self.rng.u32(..).to_be_bytes();
        frame.extend_from_slice(&mask);
        frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        self.send_bytes(&frame).await
    }

    /// Sends a text as real devices do: in fragments of [`FRAGMENT_BYTES`] if it is longer than that.
    ///
    /// # Errors
    /// What the stream said.
    pub async fn send_text(&mut self, text: &[u8]) -> Result<(), WsError> {
        let mut opcode = Opcode::Text;
        let mut rest = text;
        while rest.len() > FRAGMENT_BYTES {
            let (fragment, tail) = rest.split_at(FRAGMENT_BYTES);
            self.send_frame(false, opcode, fragment).await?;
            (opcode, rest) = (Opcode::Continuation, tail);
        }
        self.send_frame(true, opcode, rest).await
    }

    /// Sends a close frame.
    ///
    /// # Errors
    /// What the stream said.
    pub async fn send_close(&mut self, code: Option<u16>, reason: &str) -> Result<(), WsError> {
        let mut payload = code.map(|code| code.to_be_bytes().to_vec()).unwrap_or_default();
        payload.extend_from_slice(reason.as_bytes());
        self.send_frame(true, Opcode::Close, &payload).await
    }

    /// Sends bytes past all framing.
    ///
    /// # Errors
    /// What the stream said.
    pub async fn send_bytes(&mut self, bytes: &[u8]) -> Result<(), WsError> {
        self.stream.write_all(bytes).await?;
        Ok(self.stream.flush().await?)
    }

    /// The next message or control frame. Dropping the future loses nothing.
    ///
    /// # Errors
    /// [`WsError::Ended`] at the end of the stream; otherwise what broke the stream or the protocol.
    pub async fn next(&mut self) -> Result<Incoming, WsError> {
        loop {
            while let Some((fin, opcode, payload)) = self.take_frame()? {
                match opcode {
                    0 => {
                        let partial = self.partial.as_mut();
                        let (_, so_far) = partial.ok_or(WsError::Protocol("continuation of nothing"))?;
                        so_far.extend_from_slice(&payload);
                        if so_far.len() > MESSAGE_MAX {
                            return Err(WsError::Protocol("message over 16 MiB"));
                        }
                    }
                    1 | 2 if self.partial.is_some() => {
                        return Err(WsError::Protocol("a message begins inside another"));
                    }
                    1 | 2 => self.partial = Some((opcode == 1, payload)),
                    8 if payload.len() < 2 => return Ok(Incoming::Close(None, String::new())),
                    8 => {
                        let reason = String::from_utf8_lossy(&payload[2..]).into_owned();
                        let code = u16::from_be_bytes([payload[0], payload[1]]);
                        return Ok(Incoming::Close(Some(code), reason));
                    }
                    9 => return Ok(Incoming::Ping(payload)),
                    10 => return Ok(Incoming::Pong(payload)),
                    _ => return Err(WsError::Protocol("unknown opcode")),
                }
                if fin && opcode <= 2 {
                    match self.partial.take() {
                        Some((true, bytes)) => {
                            let text = String::from_utf8(bytes);
                            return text
                                .map(Incoming::Text)
                                .map_err(|_| WsError::Protocol("text is not UTF-8"));
                        }
                        Some((false, bytes)) => return Ok(Incoming::Binary(bytes)),
                        None => {}
                    }
                }
            }
            if self.stream.read_buf(&mut self.inbox).await? == 0 {
                return Err(WsError::Ended);
            }
        }
    }

    /// Takes one whole frame off the inbox, if there is one.
    fn take_frame(&mut self) -> Result<Option<(bool, u8, Vec<u8>)>, WsError> {
        let [first, second, rest @ ..] = self.inbox.as_slice() else { return Ok(None) };
        let (first, second) = (*first, *second);
        if first & 0x70 != 0 {
            return Err(WsError::Protocol("a reserved bit is set"));
        }
        if second & 0x80 != 0 {
            return Err(WsError::Protocol("the server masks"));
        }
        let (head, len) = match second {
            126 => match rest {
                [a, b, ..] => (4, u64::from(u16::from_be_bytes([*a, *b]))),
                _ => return Ok(None),
            },
            127 => match rest.first_chunk::<8>() {
                Some(bytes) => (10, u64::from_be_bytes(*bytes)),
                None => return Ok(None),
            },
            len => (2, u64::from(len)),
        };
        let len = usize::try_from(len).ok().filter(|len| *len <= MESSAGE_MAX);
        let len = len.ok_or(WsError::Protocol("frame over 16 MiB"))?;
        if self.inbox.len() < head + len {
            return Ok(None);
        }
        let payload = self.inbox[head..head + len].to_vec();
        self.inbox.drain(..head + len);
        Ok(Some((first & 0x80 != 0, first & 0x0f, payload)))
    }
}

/// The answer that proves a server understood `key`.
pub(crate) fn accept(key: &str) -> String {
    let mut sha = sha1_smol::Sha1::new();
    sha.update(key.as_bytes());
    sha.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    STANDARD.encode(sha.digest().bytes())
}

/// Payload of one fragment of a long text: the write buffer of the library that real devices use.
pub const FRAGMENT_BYTES: usize = 4096;

/// Largest message a device accepts.
const MESSAGE_MAX: usize = 16 << 20;

/// Largest head of a handshake answer.
const HEAD_MAX: usize = 16 << 10;
