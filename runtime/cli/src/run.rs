//! `tidegate run`: a site until it is told to stop.
