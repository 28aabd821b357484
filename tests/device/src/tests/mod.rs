//! Tests of the device against servers in memory.
