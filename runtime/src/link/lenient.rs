//! Owns one tolerance: text frames are read as binary ones, so that bytes that are no UTF-8 do not end a link.
//!
//! Stock uploaders send big messages whose tail can be garbage. Their frames are whole, only the text is not; a strict
//! WebSocket reader would close the link with 1007, and the device would come back with the same message for ever.
//! Changes nothing else, and nothing that is written.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

const TEXT: u8 = 1;
const BINARY: u8 = 2;

/// A stream of WebSocket frames whose text frames come out as binary frames.
#[derive(Debug)]
pub(super) struct Lenient<S> {
    stream: S,
    at: At,
}

/// Where in a frame the next byte lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// Flags and opcode.
    First,
    /// Mask flag and short length.
    Second,
    /// A longer length, and how many of its bytes are to come.
    Length { left: u8, value: u64, mask: u64 },
    /// Mask and payload: so many bytes that are none of our business.
    Body { left: u64 },
}

impl At {
    fn body(left: u64) -> At {
        if left == 0 { At::First } else { At::Body { left } }
    }
}

impl<S> Lenient<S> {
    /// Reads `stream` from the start of a frame.
    pub(super) fn new(stream: S) -> Lenient<S> {
        Lenient { stream, at: At::First }
    }

    fn rewrite(&mut self, mut bytes: &mut [u8]) {
        while let Some((first, rest)) = bytes.split_first_mut() {
            let (at, skip) = match self.at {
                At::First => {
                    if *first & 0x0f == TEXT {
                        *first = (*first & 0xf0) | BINARY;
                    }
                    (At::Second, 0)
                }
                At::Second => {
                    let mask = if *first & 0x80 == 0 { 0 } else { 4 };
                    match *first & 0x7f {
                        126 => (At::Length { left: 2, value: 0, mask }, 0),
                        127 => (At::Length { left: 8, value: 0, mask }, 0),
                        short => (At::body(u64::from(short) + mask), 0),
                    }
                }
                At::Length { left, value, mask } => {
                    let value = (value << 8) | u64::from(*first);
                    if left == 1 {
                        (At::body(value.saturating_add(mask)), 0)
                    } else {
                        (At::Length { left: left - 1, value, mask }, 0)
                    }
                }
                At::Body { left } => {
                    let more = rest.len().min(usize::try_from(left - 1).unwrap_or(usize::MAX));
                    (At::body(left - 1 - more as u64), more)
                }
            };
            self.at = at;
            bytes = &mut rest[skip..];
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Lenient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        if let Poll::Ready(Ok(())) = polled {
            self.rewrite(&mut buf.filled_mut()[before..]);
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Lenient<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::Lenient;

    #[test]
    fn text_becomes_binary_wherever_the_stream_is_cut() {
        // Text "hi" masked, a ping, a long text of 126 bytes, a continuation.
        let mut frames = vec![0x81, 0x82, 1, 1, 1, 1, 0x81, 0x81, 0x89, 0x80, 9, 9, 9, 9, 0x01, 0xfe, 0, 126];
        frames.extend([0x81; 4 + 126]);
        frames.extend([0x80, 0x01, 0x81]);
        let mut want = frames.clone();
        want[0] = 0x82;
        want[14] = 0x02;
        for piece in 1..frames.len() {
            let mut lenient = Lenient::new(());
            let mut got = frames.clone();
            for bytes in got.chunks_mut(piece) {
                lenient.rewrite(bytes);
            }
            assert_eq!(got, want, "cut into pieces of {piece}");
        }
    }
}
