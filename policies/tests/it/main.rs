//! Tests of the policy host with whole modules: what is admitted, what is asked and answered, and what a bad module can do.
//! Fixtures are core modules as text in policies/fixtures; the library makes components of them.

mod admission;
mod broken;
mod decisions;
mod rig;
mod shelf;
mod signed;
mod soak;
mod written;
