//! A relay of bytes in front of a server on loopback: counts what clients send and can stop in the middle of a request.
//! It reads nothing of what it carries and changes nothing.

use std::sync::Arc;

use tidegate_runtime::seam::Listener as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::cloud::{Meter, MeteredListener};

/// A running relay. Dropping it closes its port.
pub struct Relay {
    /// Where clients connect.
    pub port: u16,
    /// What they send.
    pub meter: Arc<Meter>,
    accepting: JoinHandle<()>,
}

impl Relay {
    /// Relays to a port that need not be open yet: a connection that finds it closed ends.
    pub async fn to(server: u16) -> Relay {
        let meter = Arc::new(Meter::new());
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a socket");
        let port = listener.local_addr().expect("its address").port();
        let mut listener = MeteredListener::new(listener, Arc::clone(&meter));
        let accepting = tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let Ok(mut server) = TcpStream::connect(("127.0.0.1", server)).await else { return };
                    // How one side ends is told to the other by closing; there is nobody else to tell.
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                });
            }
        });
        Relay { port, meter, accepting }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}
