//! One end of a WebSocket link that costs next to nothing: frames are masked with zeros, nothing is fragmented, answers are
//! found by their keys. For links by the thousand; knows only what a site sends.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

/// A link that is up.
#[derive(Debug)]
pub struct Wire {
    stream: TcpStream,
    inbox: Vec<u8>,
}

/// Why there is no link.
#[derive(Debug)]
pub enum NoLink {
    /// The site answered that it takes no link, which is 503.
    Declined,
    /// It did not answer.
    Broken,
}

impl From<io::Error> for NoLink {
    fn from(_: io::Error) -> NoLink {
        NoLink::Broken
    }
}

/// Opcode of a text.
pub const TEXT: u8 = 1;
/// Opcode of a farewell.
pub const CLOSE: u8 = 8;
/// Opcode of a ping.
pub const PING: u8 = 9;
/// Opcode of a pong.
pub const PONG: u8 = 10;

impl Wire {
    /// Dials from an address of this machine.
    pub async fn dial(source: IpAddr, port: u16, path: &str) -> Result<Wire, NoLink> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::new(source, 0))?;
        let stream = socket.connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await?;
        stream.set_nodelay(true)?;
        let mut wire = Wire { stream, inbox: Vec::new() };
        let head = format!(
            "GET {path} HTTP/1.1\r\nhost: site\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        wire.stream.write_all(head.as_bytes()).await?;
        let end = loop {
            if let Some(at) = find(&wire.inbox, b"\r\n\r\n") {
                break at + 4;
            }
            wire.read().await?;
        };
        let status = wire.inbox.get(9..12).and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
        match status {
            Some(101) => {
                wire.inbox.drain(..end);
                Ok(wire)
            }
            Some(503) => Err(NoLink::Declined),
            Some(_) | None => Err(NoLink::Broken),
        }
    }

    /// Sends one frame.
    pub async fn send(&mut self, opcode: u8, payload: &[u8]) -> io::Result<()> {
        self.stream.write_all(&frame(opcode, payload)).await
    }

    /// The next frame. Dropping the future loses nothing.
    pub async fn next(&mut self) -> io::Result<(u8, Vec<u8>)> {
        loop {
            if let Some((opcode, head, len)) = head(&self.inbox)
                && self.inbox.len() >= head + len
            {
                let payload = self.inbox[head..head + len].to_vec();
                self.inbox.drain(..head + len);
                if self.inbox.is_empty() {
                    // What a burst made it grow to is not kept for a link that waits.
                    self.inbox.shrink_to(512);
                }
                return Ok((opcode, payload));
            }
            self.read().await?;
        }
    }

    async fn read(&mut self) -> io::Result<()> {
        self.inbox.reserve(512);
        match self.stream.read_buf(&mut self.inbox).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

/// A whole frame of a client. Its mask is four zeros, which is one like any other.
fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x80 | opcode];
    match u16::try_from(payload.len()) {
        Ok(len @ 0..=125) => bytes.push(0x80 | len as u8),
        Ok(len) => {
            bytes.push(0x80 | 126);
            bytes.extend(len.to_be_bytes());
        }
        Err(_) => {
            bytes.push(0x80 | 127);
            bytes.extend((payload.len() as u64).to_be_bytes());
        }
    }
    bytes.extend([0; 4]);
    bytes.extend(payload);
    bytes
}

/// Opcode, bytes of the head, bytes of the payload of a frame of a server, once its head is there.
fn head(bytes: &[u8]) -> Option<(u8, usize, usize)> {
    let opcode = bytes.first()? & 0x0f;
    match bytes.get(1)? & 0x7f {
        126 => Some((opcode, 4, u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?).into())),
        127 => {
            let len = u64::from_be_bytes(*bytes.get(2..)?.first_chunk()?);
            Some((opcode, 10, usize::try_from(len).ok()?))
        }
        len => Some((opcode, 2, len.into())),
    }
}

/// Where a sequence of bytes begins.
pub fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

/// The text behind `"key":"` in JSON of one line, up to the next quote. For keys whose values have none in them.
pub fn text_of<'a>(json: &'a str, key: &str) -> Option<&'a str> {
    let at = json.find(key)? + key.len();
    let rest = json[at..].trim_start_matches([':', ' ']).strip_prefix('"')?;
    rest.split_once('"').map(|(text, _)| text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_have_the_length_that_their_head_says() {
        for len in [0, 1, 125, 126, 65_535, 65_536] {
            let bytes = frame(TEXT, &vec![b'x'; len]);
            let (opcode, head, told) = head(&bytes).expect("it is whole");
            // The mask of a client's frame stands between its head and its payload.
            assert_eq!((opcode, head + 4, told), (TEXT, bytes.len() - len, len));
        }
    }

    #[test]
    fn values_are_found_by_their_keys() {
        let json = r#"{"action":"get_state","request_id": "7-1","state":"t12"}"#;
        assert_eq!(text_of(json, "\"request_id\""), Some("7-1"));
        assert_eq!(text_of(json, "\"state\""), Some("t12"));
        assert_eq!(text_of(json, "\"task\""), None);
    }
}
