//! Whole-process tests of the real binary over real sockets, and the repository's own rules.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod ack;
mod bad_input;
mod cli;
mod cloud;
mod crash;
mod demo;
mod fleet;
mod health;
mod links;
mod main_path;
mod rig;
mod script;
mod secrets;
mod skip;
mod stock;
mod tidy;
