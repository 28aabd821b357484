//! Keeps an eye on the room of the disk: measures what is free, and removes what devices began to upload and left. What
//! too little room means is the core's to say; this tells it when the answer may be another.

use std::path::PathBuf;
use std::time::Duration;

use tidegate_core::input::Input;
use tidegate_core::knobs::{Knobs, Room};

use crate::board::{Board, Space};
use crate::inbox::Inbox;
use crate::ingest::Spool;
use crate::seam::{Blocking, Clock, Disk, Seams};

/// How often the free space is measured. A gigabit link brings 250 MB in this time: half of the reserve.
const MEASURE_EVERY: Duration = Duration::from_secs(2);
/// How often abandoned uploads are looked for.
const EXPIRE_EVERY: Duration = Duration::from_secs(86_400);

/// Measures one disk.
pub(crate) struct Measure<S: Seams> {
    pub(crate) seams: S,
    /// A directory on it.
    pub(crate) dir: PathBuf,
    /// What so many free bytes allow.
    pub(crate) knobs: Knobs,
}

impl<S: Seams> Measure<S> {
    /// Shows the free space, and tells the core when it allows something else than before.
    pub(crate) async fn keep_telling(self, board: Board, inbox: Inbox, closed: impl Future<Output = ()>) {
        let mut told = Room::Enough;
        let tell = async {
            loop {
                let (disk, dir) = (self.seams.disk().clone(), self.dir.clone());
                if let Some(free) = self.seams.blocking().run(move || disk.free_bytes(&dir)).await {
                    let room = self.knobs.room(free);
                    board.space(Space { free, room });
                    if room != told {
                        log(told, room, free);
                        told = room;
                        if inbox.input(Input::Space { free }).await.is_err() {
                            // The driver is gone, and the site goes after it.
                            return std::future::pending().await;
                        }
                    }
                }
                self.seams.clock().sleep(MEASURE_EVERY).await;
            }
        };
        tokio::select! {
            biased;
            () = closed => {}
            () = tell => {}
        }
    }
}

fn log(before: Room, room: Room, free: u64) {
    match room {
        Room::Enough => tracing::info!(free, "the disk has room again"),
        Room::Short if before == Room::None => tracing::info!(free, "the disk has a little room again"),
        Room::Short => tracing::warn!(free, "the disk is short of room: no device is asked for a recording"),
        // What follows from it says the gate.
        Room::None => tracing::warn!(free, "the disk has hardly any room left"),
    }
}

/// Removes multipart uploads that stood still for `after`, at once and then daily. Parts are no recording: the device
/// that sent them still has its own.
pub(crate) async fn keep_expiring<S: Seams>(
    seams: S,
    spool: Spool<S>,
    bucket: String,
    after: Duration,
    closed: impl Future<Output = ()>,
) {
    let expire = async {
        loop {
            match spool.expire_uploads(&bucket, after).await {
                Ok(0) => {}
                Ok(count) => tracing::info!(count, "abandoned uploads were removed"),
                Err(refusal) => tracing::warn!(%refusal, "abandoned uploads could not be removed"),
            }
            seams.clock().sleep(EXPIRE_EVERY).await;
        }
    };
    tokio::select! {
        biased;
        () = closed => {}
        () = expire => {}
    }
}
