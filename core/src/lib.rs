//! The pure state machines of Tidegate.
#![no_std]
extern crate alloc;

pub mod time;
