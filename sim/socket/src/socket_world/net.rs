//! Sockets of turmoil. A write is cut to a small segment, so that partial transfers exist.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use tidegate_runtime::seam::{Listener, Net};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::power::Power;

/// turmoil sends each write as one segment of any size; real ones are small. The window is 64 segments.
const SEGMENT: usize = 16 << 10;

/// The simulated network, as the current host sees it.
#[derive(Clone, Copy, Debug, Default)]
pub struct SimNet;

/// The same for a host whose power may fail: from then on nothing leaves it and nothing reaches it, until the host is
/// crashed. Its peers hear of the end then, as they do when a process is killed.
#[derive(Clone, Debug, Default)]
pub struct PoweredNet(pub Power);

/// A listening socket.
pub struct SimListener(turmoil::net::TcpListener, Option<Power>);

impl std::fmt::Debug for SimListener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SimListener")
    }
}

/// A connected stream.
#[derive(Debug)]
pub struct SimStream(turmoil::net::TcpStream, Option<Power>);

impl SimStream {
    fn is_dead(&self) -> bool {
        self.1.as_ref().is_some_and(Power::is_out)
    }
}

impl Net for SimNet {
    type Stream = SimStream;
    type Listener = SimListener;

    async fn bind(&self, addr: SocketAddr) -> io::Result<SimListener> {
        Ok(SimListener(turmoil::net::TcpListener::bind(addr).await?, None))
    }

    async fn connect(&self, host: &str, port: u16) -> io::Result<SimStream> {
        Ok(SimStream(turmoil::net::TcpStream::connect((host, port)).await?, None))
    }
}

impl Net for PoweredNet {
    type Stream = SimStream;
    type Listener = SimListener;

    async fn bind(&self, addr: SocketAddr) -> io::Result<SimListener> {
        let SimListener(listener, _) = SimNet.bind(addr).await?;
        Ok(SimListener(listener, Some(self.0.clone())))
    }

    async fn connect(&self, host: &str, port: u16) -> io::Result<SimStream> {
        let SimStream(stream, _) = SimNet.connect(host, port).await?;
        Ok(SimStream(stream, Some(self.0.clone())))
    }
}

impl Listener for SimListener {
    type Stream = SimStream;

    async fn accept(&mut self) -> io::Result<(SimStream, SocketAddr)> {
        let (stream, from) = self.0.accept().await?;
        Ok((SimStream(stream, self.1.clone()), from))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

impl AsyncRead for SimStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // Nobody wakes a task of a host without power; the crash drops it.
        if self.is_dead() {
            return Poll::Pending;
        }
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for SimStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let segment = &buf[..buf.len().min(SEGMENT)];
        if self.1.as_ref().is_some_and(|power| !power.lets_out(segment)) {
            return Poll::Pending;
        }
        Pin::new(&mut self.0).poll_write(cx, segment)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_dead() {
            return Poll::Pending;
        }
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
