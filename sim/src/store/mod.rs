//! Object stores as they really behave, without bytes: the truth that invariants read. Never lies and loses nothing;
//! what goes wrong on the way to it is the world's business. Knows nothing of the core's records.

mod bucket;
mod content;
mod past;
pub mod recording;
#[cfg(test)]
mod tests;

pub use bucket::{Bucket, Object, Open};
pub use content::Content;
pub use past::{KeyPast, PartPast, Past, UploadFate, UploadPast};
