//! The pure state machines of Tidegate.
//!
//! One thread owns one [`machine::Machine`]. Everything that happens is an [`input::Input`]; the machine answers with
//! an [`effect::Output`]: changes that become durable, the records they touched, and effects to release after that.
//! Nothing here reads a clock, draws entropy, does I/O, blocks, or iterates over a hash map; time, seeds and cold
//! records arrive inside the input. The same inputs give the same outputs on every machine.
//!
//! Read in this order: [`input`], [`effect`], [`machine`], `route`, then the small machines [`hub`], [`task`],
//! [`queue`], [`upload`].
#![no_std]
extern crate alloc;
#[cfg(test)]
mod space_tests;
#[cfg(test)]
extern crate std;

pub mod bug;
pub mod chance;
pub mod change;
mod check;
pub mod cx;
pub mod digest;
pub mod effect;
pub mod fact;
pub mod hub;
pub mod id;
pub mod input;
pub mod knobs;
pub mod labels;
pub mod limits;
pub mod machine;
pub mod object;
pub mod outcome;
pub mod policy;
pub mod quarantine;
pub mod queue;
pub mod refusal;
pub mod roster;
mod route;
pub mod row;
pub mod task;
pub mod time;
pub mod timers;
pub mod upload;
pub mod wire;
#[cfg(test)]
mod world_tests;
