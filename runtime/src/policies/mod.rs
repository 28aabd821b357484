//! Policies at the edge: modules become prepared sets off the thread of decisions, their clock ticks, decisions are
//! recorded and tried out, and a folder may be watched. What a module may do, and whether it counts, is decided elsewhere:
//! in the host's crate and in the core.

pub(crate) mod intake;
mod loader;
pub(crate) mod record;
mod recorder;
#[cfg(test)]
pub(crate) mod rig;
mod tasks;
pub(crate) mod trial;
mod watched;

pub use loader::{Loader, Ready, Unloaded};
pub use recorder::Clamps;
pub(crate) use recorder::Recorder;
pub(crate) use tasks::{keep_logging, keep_ticking, perform};
/// The module that comes with the program, the built-in rules as a guest, its hash, and the shelf of sets.
pub use tidegate_policies::{DEFAULT, Shelf, default_hash as default_module};
pub(crate) use watched::Watch;
pub use watched::{Watched, WatchedFile};
