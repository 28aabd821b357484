//! Owns the limit on how long a connection may be silent. A dead network says nothing: without this, an upload over
//! it would end only with the time that its whole body may take.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// A stream that fails with `TimedOut` once somebody waits for it and no byte has moved in either direction for
/// `limit`. A pooled connection that nobody uses ends like this as well.
pub(crate) struct Silence<T> {
    io: T,
    limit: Duration,
    until: Pin<Box<Sleep>>,
}

impl<T> Silence<T> {
    pub(crate) fn new(io: T, limit: Duration) -> Silence<T> {
        Silence { io, limit, until: Box::pin(tokio::time::sleep(limit)) }
    }

    fn watch<R>(&mut self, cx: &mut Context<'_>, moved: Poll<io::Result<R>>) -> Poll<io::Result<R>> {
        if moved.is_ready() {
            self.until.as_mut().reset(Instant::now() + self.limit);
            return moved;
        }
        self.until.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Silence<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let moved = Pin::new(&mut self.io).poll_read(cx, buf);
        self.watch(cx, moved)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Silence<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let moved = Pin::new(&mut self.io).poll_write(cx, buf);
        self.watch(cx, moved)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let moved = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.watch(cx, moved)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    // Flushing a socket is always ready and moves nothing: it must not count as a sign of life.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    const LIMIT: Duration = Duration::from_millis(50);

    #[tokio::test]
    async fn a_stream_that_says_nothing_any_more_ends_and_what_was_said_before_is_read() {
        let (near, mut far) = tokio::io::duplex(64);
        let mut near = Silence::new(near, LIMIT);
        let mut buf = [0; 1];
        // Longer silent than the limit, but nobody waited: what is there now counts.
        far.write_all(b"x").await.unwrap();
        near.until.as_mut().reset(Instant::now());
        near.until.as_mut().await;
        near.read_exact(&mut buf).await.unwrap();
        assert_eq!(&buf, b"x");
        assert_eq!(near.read_exact(&mut buf).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn a_peer_that_takes_nothing_ends_a_write() {
        let (near, _far) = tokio::io::duplex(4);
        let mut near = Silence::new(near, LIMIT);
        assert_eq!(near.write_all(b"too long").await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
