//! Tests of the policy host with whole modules: what is admitted, what is asked and answered, and what a bad module can do.
//! Fixtures are core modules as text in policies/fixtures; the library makes components of them.
#![allow(clippy::unwrap_used, reason = "a test fails by it, at the right line")]

mod admission;
mod broken;
mod decisions;
mod rig;
mod shelf;
mod signed;
mod written;
