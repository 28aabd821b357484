//! Tests of the life of modules and of the set: what operators may ask, the ladder down, and what survives a crash.
#![allow(clippy::unwrap_used, reason = "a test fails by it, at the right line")]

mod chaos;
mod keeps;
mod ladder;
mod life;
mod machine;
mod rig;
mod wishes;
