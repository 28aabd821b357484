//! Policies at the edge: modules become prepared sets off the thread of decisions, their clock ticks, decisions are
//! recorded and tried out, and a folder may be watched. What a module may do, and whether it counts, is decided elsewhere:
//! in the host's crate and in the core.

#[cfg(test)]
pub(crate) mod fixture;
mod loader;
pub(crate) mod record;
mod recorder;
mod tasks;
pub(crate) mod trial;
mod watched;

use std::sync::OnceLock;

use tidegate_core::digest::Sha256;

pub use loader::{Loader, Ready, Unloaded};
pub use recorder::Clamps;
pub(crate) use recorder::Recorder;
pub(crate) use tasks::{keep_logging, keep_ticking, perform};
pub use tidegate_policies::Shelf;
pub(crate) use watched::Watch;
pub use watched::{Watched, WatchedFile};

/// The module that comes with the program: the built-in rules as a guest.
pub const DEFAULT: &[u8] = tidegate_policies::DEFAULT;

/// Its hash.
#[must_use]
pub fn default_module() -> Sha256 {
    static HASH: OnceLock<Sha256> = OnceLock::new();
    *HASH.get_or_init(|| Sha256::of(DEFAULT))
}
