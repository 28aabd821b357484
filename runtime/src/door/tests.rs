//! Accepting over errors that a listener makes up, under a paused clock.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;

use tokio::io::DuplexStream;
use tokio::time::Instant;

use super::{Complaints, Door, REST};
use crate::figures::Gauge;
use crate::seam::{Listener, Trouble};

/// Fails as it is told, then hands out one connection.
struct Failing(VecDeque<Trouble>);

impl Listener for Failing {
    type Stream = DuplexStream;

    async fn accept(&mut self) -> io::Result<(DuplexStream, SocketAddr)> {
        match self.0.pop_front() {
            Some(trouble) => Err(io::Error::other(trouble.word())),
            None => Ok((tokio::io::duplex(1).0, self.local_addr()?)),
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(SocketAddr::from(([10, 0, 0, 7], 8080)))
    }

    fn trouble(error: &io::Error) -> Trouble {
        let known = [Trouble::ProcessFull, Trouble::SystemFull, Trouble::Aborted];
        known.into_iter().find(|trouble| error.to_string() == trouble.word()).unwrap_or(Trouble::Other)
    }
}

fn door(troubles: impl IntoIterator<Item = Trouble>) -> (Door<Failing>, Gauge) {
    let gauge = Gauge::default();
    (Door::new(Failing(troubles.into_iter().collect()), Complaints::new(gauge.clone())), gauge)
}

#[tokio::test(start_paused = true)]
async fn a_full_table_is_counted_and_keeps_nobody_waiting() {
    let troubles = [Trouble::ProcessFull, Trouble::ProcessFull, Trouble::SystemFull, Trouble::Aborted];
    let (mut door, gauge) = door(troubles);
    let begun = Instant::now();
    door.accept().await.expect("a door never fails");
    assert_eq!(begun.elapsed(), std::time::Duration::ZERO);
    let counted = gauge.read().accept_errors;
    assert_eq!((counted["emfile"], counted["enfile"], counted["aborted"]), (2, 1, 1));
}

#[tokio::test(start_paused = true)]
async fn after_an_error_that_nobody_knows_it_rests_even_if_it_is_asked_anew() {
    let (mut door, gauge) = door([Trouble::Other]);
    let begun = Instant::now();
    while tokio::time::timeout(REST / 10, door.accept()).await.is_err() {}
    assert_eq!(begun.elapsed(), REST);
    assert_eq!(gauge.read().accept_errors["other"], 1);
}

#[tokio::test(start_paused = true)]
async fn it_is_told_once_a_minute_how_many_there_were() {
    let (door, _) = door([]);
    let error = io::Error::other("full");
    let waiting = |complaints: &Complaints| complaints.told.lock().expect("nobody panicked").since;
    for (after_s, untold) in [(0, 0), (1, 1), (58, 2), (1, 0), (59, 1), (1, 0)] {
        tokio::time::advance(std::time::Duration::from_secs(after_s)).await;
        door.complaints.note(Trouble::ProcessFull, &error);
        assert_eq!(waiting(&door.complaints), untold, "{after_s} s later");
    }
}
