//! The clocks of a simulated host: turmoil's.

use std::time::Duration;

use tidegate_core::time::{Mono, Now, Wall};
use tidegate_runtime::seam::Clock;

/// Virtual time. Monotonic since the host started, wall since the epoch of the world.
#[derive(Clone, Copy, Debug, Default)]
pub struct SimClock;

impl Clock for SimClock {
    fn now(&self) -> Now {
        let wall = turmoil::since_epoch().unwrap_or_default();
        Now {
            wall: Wall(i64::try_from(wall.as_millis()).unwrap_or(i64::MAX)),
            mono: Mono(u64::try_from(turmoil::elapsed().as_nanos()).unwrap_or(u64::MAX)),
        }
    }

    async fn sleep(&self, after: Duration) {
        tokio::time::sleep(after).await;
    }
}
