//! The core's own world: sites, devices, stores, networks, disks and clocks as data around the real state machine, in
//! simulated time. Depends on the core alone and decides nothing that the core decides.
//!
//! Reading order: [`scenario`] (what will happen), [`plan`] (how a seed becomes one), `world` (how it happens: [`device`] and
//! [`store`] are in it), [`watch`] (what must hold), [`liveness`] (what must be finished in the end), [`run`] (one run and its
//! report), [`shrink`] (the smallest scenario that fails in the same way), [`bank`] (planted bugs that must be found). What no
//! run can show is listed in docs/simulation.md.

pub mod bank;
pub mod coverage;
pub mod device;
pub mod liveness;
pub mod meta;
pub mod named;
pub mod nightly;
pub mod plan;
pub mod report;
pub mod run;
pub mod scenario;
pub mod shrink;
pub mod store;
pub mod stream;
pub mod time;
pub mod trace;
pub mod watch;
mod world;
