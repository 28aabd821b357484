//! Whole-process tests of the real binary over real sockets, and the repository's own rules.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod ack;
mod bad_input;
mod cli;
mod clients;
mod cloud;
mod crash;
mod demo;
mod differences;
mod disk;
mod faults;
mod fleet;
mod golden;
mod health;
mod kill_points;
mod links;
mod main_path;
mod peers;
mod policies_doc;
mod policy;
mod policy_cli;
mod proxy;
mod qa;
mod relay;
mod rig;
mod script;
mod secrets;
mod skip;
mod stock;
mod stores;
mod tidy;
mod watch;
