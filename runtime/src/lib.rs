//! The edges around the core.

pub mod ingest;
pub mod real;
pub mod seam;
