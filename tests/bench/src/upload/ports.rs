//! Ports of this machine that nobody listens on.

use std::io;
use std::net::TcpListener;

/// A port that was free a moment ago.
pub fn free() -> io::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// The first of four ports in a row that are free, and free again 10,000 above, where SeaweedFS listens for its own
/// protocol. All below the range that the system hands out by itself.
pub fn free_row() -> io::Result<u16> {
    let is_free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    // Two runs at once begin to look at different places.
    let first = u16::try_from(std::process::id() % 100).unwrap_or(0);
    (0..100)
        .map(|step| 12_000 + (first + step) % 100 * 100)
        .find(|base| (0..4).all(|at| is_free(base + at) && is_free(base + 10_000 + at)))
        .ok_or_else(|| io::Error::other("no four free ports in a row between 12000 and 22000"))
}
