//! Tests of the life of modules and of the set.
