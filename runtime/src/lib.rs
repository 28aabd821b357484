//! The edges around the core: sockets, disk, object stores, clocks. Decides nothing.

pub mod boot;
pub mod config;
pub mod driver;
pub mod figures;
pub mod inbox;
pub mod ingest;
pub mod object;
pub mod real;
pub mod release;
pub mod replay;
pub mod seam;
pub mod store;
pub mod telemetry;
