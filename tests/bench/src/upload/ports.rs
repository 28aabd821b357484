//! Ports of this machine that nobody listens on.

use std::io;
use std::net::TcpListener;

/// A port that was free a moment ago.
pub fn free() -> io::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}
