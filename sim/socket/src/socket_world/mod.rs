//! The real runtime on turmoil: simulated sockets and time, a disk in memory that can lose power, no threads.

mod blocking;
mod clock;
mod disk;
mod net;

pub use blocking::SimBlocking;
pub use clock::SimClock;
pub use disk::{Keep, SimDisk, SimFile, SimLock};
pub use net::{SimListener, SimNet};

use tidegate_runtime::seam::Seams;

/// The seams of one simulated host. Clones share the disk and the stream of entropy.
#[derive(Clone, Debug)]
pub struct SimSeams {
    net: SimNet,
    disk: SimDisk,
    clock: SimClock,
    blocking: SimBlocking,
}

impl SimSeams {
    /// A host on `disk`; `seed` feeds its entropy.
    #[must_use]
    pub fn new(disk: SimDisk, seed: u64) -> SimSeams {
        SimSeams { net: SimNet, disk, clock: SimClock, blocking: SimBlocking::new(seed) }
    }
}

impl Seams for SimSeams {
    type Net = SimNet;
    type Disk = SimDisk;
    type Clock = SimClock;
    type Blocking = SimBlocking;

    fn net(&self) -> &SimNet {
        &self.net
    }

    fn disk(&self) -> &SimDisk {
        &self.disk
    }

    fn clock(&self) -> &SimClock {
        &self.clock
    }

    fn blocking(&self) -> &SimBlocking {
        &self.blocking
    }
}
