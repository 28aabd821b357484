//! The real runtime on turmoil: simulated sockets and time, a disk in memory that can lose power, no threads.

mod blocking;
mod clock;
mod disk;
mod failing;
mod image;
mod net;
mod power;

pub use blocking::SimBlocking;
pub use clock::SimClock;
pub use disk::{SimDisk, SimFile, SimLock};
pub use failing::{DiskCall, DiskFault, Errno, FailingDisk, FailingFile, FailingSeams, Faults};
pub use image::{Keep, SECTOR};
pub use net::{PoweredNet, SimListener, SimNet, SimStream};
pub use power::{Cut, DiskOp, DiskVerb, Moment, Power};

use tidegate_runtime::seam::Seams;

/// The seams of one simulated host. Clones share the disk and the stream of entropy. Its sockets end with the power
/// of its disk.
#[derive(Clone, Debug)]
pub struct SimSeams {
    net: PoweredNet,
    disk: SimDisk,
    clock: SimClock,
    blocking: SimBlocking,
}

impl SimSeams {
    /// A host on `disk`; `seed` feeds its entropy.
    #[must_use]
    pub fn new(disk: SimDisk, seed: u64) -> SimSeams {
        let net = PoweredNet(disk.power().clone());
        SimSeams { net, disk, clock: SimClock, blocking: SimBlocking::new(seed) }
    }
}

impl Seams for SimSeams {
    type Net = PoweredNet;
    type Disk = SimDisk;
    type Clock = SimClock;
    type Blocking = SimBlocking;

    fn net(&self) -> &PoweredNet {
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
