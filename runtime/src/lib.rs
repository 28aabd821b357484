//! The edges around the core.

pub mod seam;
