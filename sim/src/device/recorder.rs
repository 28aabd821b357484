//! The recorder program of a device, as stock ones behave.

/// A recorder.
#[derive(Clone, Debug, Default)]
pub struct Recorder {}
