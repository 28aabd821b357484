//! The real runtime in a deterministic world. Owns what simulation puts in place of sockets, disk, clock and threads, and
//! one whole life of a recording in it; holds no second copy of production logic.

pub mod socket_world;
pub mod whole_life;
