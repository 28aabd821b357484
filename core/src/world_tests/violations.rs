//! Each check fails when what it forbids is done.
