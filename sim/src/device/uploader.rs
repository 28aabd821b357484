//! The uploader program of a device, as stock ones behave.

/// An uploader.
#[derive(Clone, Debug, Default)]
pub struct Uploader {}
