//! Scenario files: reading and writing.
