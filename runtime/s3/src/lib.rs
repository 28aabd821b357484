//! Executes the core's object operations against S3. The only crate that knows the AWS SDK. It retries nothing and
//! decides nothing: each operation is one attempt, and what it came to is said in the core's words.
//!
//! ```text
//!   CloudStore (store) ──► aws-sdk-s3 ──► Dial (connect) ──► Silence ──► Net, a seam
//!        ▲                     └── signs with the wall time of Clock, a seam
//!        └── fault: one table from what went wrong to Done, Failed or Unknown
//! ```

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test that cannot go on says where"))]

mod client;
mod config;
mod connect;
mod fault;
mod page;
mod pages;
mod signature;
mod silence;
mod store;

pub use config::{CloudConfig, SetupError};
pub use store::CloudStore;
