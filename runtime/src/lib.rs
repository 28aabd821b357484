//! The edges around the core: sockets, disk, object stores, clocks. Decides nothing.

pub mod api;
pub mod board;
pub mod inbox;
pub mod ingest;
pub mod link;
pub mod metrics;
pub mod object;
pub mod real;
pub mod seam;
pub mod server;
