//! Tests of the built-in policies.
