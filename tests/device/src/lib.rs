//! A recorder and an uploader that behave on the wire as real device programs do, over the runtime's seams.
//!
//! [`Device`] is the pair of them; demo, tests and simulated worlds run the same one. [`RawLink`] and [`Http`]
//! are for tests that want to send what no device would, [`S3`] for those that look into a store for themselves.
//! Nothing here imports the product's own protocol code: a mistake there cannot cancel itself out here.

mod config;
mod device;
mod events;
mod http;
mod life;
mod link;
mod raw;
mod recorder;
mod recording;
mod rows;
mod s3;
mod s3_error;
mod session;
mod sigv4;
mod sse;
mod task;
mod upload;
mod uploader;
mod ws;
pub mod xml;

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod tests;

pub use crate::config::{
    DeviceConfig, Keepalive, PART_SIZE_MIN, Reconnect, RecordPlan, S3Config, UploadPlan,
};
pub use crate::device::Device;
pub use crate::events::{DeviceEvent, EVENTS_MAX, EventLog, HIDDEN, Link};
pub use crate::http::{Answer, Body, Exchange, Http, HttpError, full};
pub use crate::raw::RawLink;
pub use crate::recording::{IMAGE_TOPIC, SENSOR_TOPIC};
pub use crate::s3::{FileSlice, Object, ObjectHead, Payload, S3};
pub use crate::s3_error::S3Error;
pub use crate::sse::{StreamEvent, StreamReader};
pub use crate::ws::{FRAGMENT_BYTES, Incoming, Opcode, Ws, WsError, WsUrl};
