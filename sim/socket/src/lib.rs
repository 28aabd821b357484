//! The real runtime in a deterministic world. Owns what simulation puts in place of sockets, disk, clock and threads;
//! holds no second copy of production logic.

pub mod socket_world;
