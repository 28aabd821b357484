//! The edges around the core: sockets, disk, object stores, clocks. Decides nothing.

pub mod inbox;
pub mod ingest;
pub mod object;
pub mod real;
pub mod seam;
