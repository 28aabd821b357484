//! Tests of the device against servers in memory. Time is virtual: nothing here waits.

mod floor;
mod replay;
mod servers;
mod tasks;
mod wire;
