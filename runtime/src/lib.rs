//! The edges around the core: sockets, disk, object stores, clocks. Decides nothing.

pub mod api;
pub mod board;
pub mod boot;
pub mod config;
pub mod crash;
pub mod driver;
pub mod figures;
mod folders;
pub mod inbox;
pub mod ingest;
pub mod link;
pub mod metrics;
pub mod object;
pub mod policies;
pub mod real;
pub mod release;
pub mod replay;
pub mod seam;
pub mod server;
mod space;
pub mod store;
mod surroundings;
pub mod telemetry;
