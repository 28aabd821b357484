//! The committed modules: that they are what their sources say, and answer as they should. Needs no compiler for
//! WebAssembly.

#[allow(dead_code, reason = "shared with the program that builds them again, which needs more of it")]
mod book;
mod committed;
mod differential;
mod recorded;
mod written;
