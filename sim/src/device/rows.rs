//! What an uploader remembers over restarts: one row per recording it ever took on. Rows are never removed.

use std::collections::BTreeMap;

use tidegate_core::id::ObjectKey;

use super::frame::{push_name, push_number, push_quoted, push_text};
use crate::scenario::Firmware;
use crate::time::SimTime;

/// ```text
/// Pending --> Active --> WaitAck --> Completed
///    ^          | |
///    |          | +--> Failed, for ever
/// RetryWait <---+
/// ```
/// A start of the program takes `Active` and `RetryWait` back to `Pending`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Status {
    Pending,
    Active(Step),
    RetryWait,
    WaitAck,
    Completed,
    Failed,
}

/// What an active upload waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    /// Whether it is there already.
    Look,
    /// The recording is stored.
    Recording,
    /// The sidecar is stored.
    Sidecar,
}

impl Status {
    pub(super) fn name(self) -> &'static str {
        match self {
            Status::Pending => "pending",
            Status::Active(_) => "active",
            // The only name with a hyphen.
            Status::RetryWait => "retry-wait",
            Status::WaitAck => "uploaded_wait_ack",
            Status::Completed => "completed",
            Status::Failed => "failed",
        }
    }

    /// Whether a restart queues it again.
    pub(super) fn is_unfinished(self) -> bool {
        match self {
            Status::Pending | Status::Active(_) | Status::RetryWait => true,
            Status::WaitAck | Status::Completed | Status::Failed => false,
        }
    }

    /// Position in the order in which a status lists uploads.
    fn group(self) -> usize {
        match self {
            Status::Pending => 0,
            Status::Active(_) => 1,
            Status::RetryWait => 2,
            Status::WaitAck => 3,
            Status::Completed => 4,
            Status::Failed => 5,
        }
    }
}

/// One recording's way to the store.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) wire: String,
    pub(super) key: ObjectKey,
    /// Where the sidecar goes; none if there is none.
    pub(super) sidecar: Option<ObjectKey>,
    pub(super) len: u64,
    /// SHA-256 in hex, taken once when the row was made.
    pub(super) sha256: String,
    pub(super) status: Status,
    /// Attempts that failed.
    pub(super) failures: u32,
    pub(super) last_error: &'static str,
    /// The wake that counts: the end of patience of the present step, or the next attempt.
    pub(super) wake: u64,
    /// When the present attempt began.
    pub(super) since: SimTime,
}

impl Row {
    pub(super) fn mode(&self) -> &'static str {
        if self.sidecar.is_some() { "mcap_json" } else { "mcap_only" }
    }

    fn push_shown(&self, out: &mut String) {
        out.push('{');
        push_text(out, "checksum_sha256", &self.sha256);
        push_number(out, "file_size_bytes", self.len);
        push_text(out, "last_error", self.last_error);
        push_text(out, "object_key", self.key.as_str());
        push_number(out, "retry_count", u64::from(self.failures));
        push_text(out, "s3_key", self.key.as_str());
        push_text(out, "status", self.status.name());
        push_text(out, "task_id", &self.wire);
        push_text(out, "upload_mode", self.mode());
        out.push('}');
    }
}

/// All rows, oldest first.
#[derive(Clone, Debug, Default)]
pub(super) struct Rows {
    all: Vec<Row>,
    by_wire: BTreeMap<String, usize>,
}

impl Rows {
    pub(super) fn find(&self, wire: &str) -> Option<usize> {
        self.by_wire.get(wire).copied()
    }

    pub(super) fn at(&self, at: usize) -> &Row {
        &self.all[at]
    }

    pub(super) fn at_mut(&mut self, at: usize) -> &mut Row {
        &mut self.all[at]
    }

    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &Row> + ExactSizeIterator {
        self.all.iter()
    }

    /// Adds one; its position.
    pub(super) fn insert(&mut self, row: Row) -> usize {
        let at = self.all.len();
        self.by_wire.insert(row.wire.clone(), at);
        self.all.push(row);
        at
    }

    /// The full status of a generation, without its closing brace; for `connected` with the device's id.
    pub(super) fn status(
        &self,
        firmware: Firmware,
        recovered: usize,
        speed: Speed,
        device: Option<&str>,
    ) -> String {
        let mut counts = [0_u64; 6];
        let mut bytes = [0_u64; 6];
        for row in &self.all {
            counts[row.status.group()] += 1;
            bytes[row.status.group()] += row.len;
        }
        let [pending, active, retry_wait, wait_ack, completed, failed] = counts;
        let entry_bytes = if firmware == Firmware::Old { 0 } else { 400 };
        let mut out = String::with_capacity(800 + self.all.len() * entry_bytes);
        out.push('{');
        push_number(&mut out, "active_count", active);
        push_number(&mut out, "bytes_per_sec", speed.bytes_per_sec);
        push_number(&mut out, "completed_count", completed);
        if let Some(device) = device {
            push_text(&mut out, "device_id", device);
        }
        push_number(&mut out, "failed_count", failed);
        push_number(&mut out, "pending_bytes", bytes[0]);
        push_number(&mut out, "pending_count", pending);
        if firmware == Firmware::New {
            push_name(&mut out, "progress");
            out.push('{');
            push_number(&mut out, "active_bytes", bytes[1]);
            push_number(&mut out, "bytes_uploaded", speed.bytes_uploaded);
            push_number(&mut out, "completed_bytes", bytes[4]);
            push_number(&mut out, "current_bytes_per_sec", speed.bytes_per_sec);
            push_number(&mut out, "failed_bytes", bytes[5]);
            push_number(&mut out, "pending_bytes", bytes[0]);
            push_number(&mut out, "retry_wait_bytes", bytes[2]);
            push_number(&mut out, "tracked_bytes", bytes.iter().sum());
            push_number(&mut out, "waiting_ack_bytes", bytes[3]);
            out.push('}');
            push_name(&mut out, "recovery");
            out.push('{');
            push_number(&mut out, "incomplete_count", pending + active + retry_wait);
            push_number(&mut out, "recovered_count", recovered as u64);
            out.push('}');
        }
        push_number(&mut out, "retry_wait_count", retry_wait);
        push_number(&mut out, "uploading_count", active);
        if firmware != Firmware::Old {
            push_name(&mut out, "uploads");
            out.push('[');
            for group in 0..6 {
                let listed = |row: &&Row| {
                    let hidden = firmware == Firmware::Middle && row.status == Status::Completed;
                    row.status.group() == group && !hidden
                };
                for row in self.all.iter().filter(listed) {
                    if !out.ends_with('[') {
                        out.push(',');
                    }
                    row.push_shown(&mut out);
                }
            }
            out.push(']');
        }
        if device.is_some() {
            push_text(&mut out, "version", UPLOADER_VERSION);
        }
        push_number(&mut out, "waiting_ack_count", wait_ack);
        push_name(&mut out, "waiting_ack_task_ids");
        out.push('[');
        for row in self.all.iter().filter(|row| row.status == Status::WaitAck) {
            if !out.ends_with('[') {
                out.push(',');
            }
            push_quoted(&mut out, &row.wire);
        }
        out.push(']');
        out
    }

    /// Counts alone, without the closing brace: what older generations say on connect, with the device's id, and what all
    /// answer to `upload_all`, with how many that has just queued.
    pub(super) fn counts(&self, firmware: Firmware, device: Option<&str>, queued_now: Option<u64>) -> String {
        let mut counts = [0_u64; 6];
        for row in &self.all {
            counts[row.status.group()] += 1;
        }
        let [queued, active, retry_wait, _, completed, failed] = counts;
        let mut out = String::with_capacity(160);
        out.push('{');
        if firmware != Firmware::Old {
            push_number(&mut out, "active_count", active);
        }
        push_number(&mut out, "completed_count", completed);
        if let Some(device) = device {
            push_text(&mut out, "device_id", device);
        }
        push_number(&mut out, "failed_count", failed);
        push_number(&mut out, "pending_count", queued_now.unwrap_or(queued));
        if firmware != Firmware::Old {
            push_number(&mut out, "retry_wait_count", retry_wait);
        }
        push_number(&mut out, "uploading_count", active);
        if device.is_some() {
            push_text(&mut out, "version", UPLOADER_VERSION);
        }
        if firmware == Firmware::Old && queued_now.is_none() {
            push_number(&mut out, "waiting_ack_count", counts[3]);
        }
        out
    }

    /// What is said of one upload, without the closing brace; how much depends on the generation.
    pub(super) fn announcement(&self, at: usize, firmware: Firmware, kind: Announcement) -> String {
        let row = &self.all[at];
        let mut out = String::with_capacity(360);
        out.push('{');
        let complete = kind == Announcement::Complete;
        if complete {
            push_number(&mut out, "bytes_uploaded", 0);
        }
        push_text(&mut out, "checksum_sha256", &row.sha256);
        if complete {
            push_number(&mut out, "duration_ms", 0);
        }
        push_number(&mut out, "file_size_bytes", row.len);
        if !complete {
            push_name(&mut out, "files");
            out.push('[');
            push_quoted(&mut out, &format!("{}.mcap", row.wire));
            if row.sidecar.is_some() {
                out.push(',');
                push_quoted(&mut out, &format!("{}.json", row.wire));
            }
            out.push(']');
        }
        if firmware == Firmware::New {
            push_text(&mut out, "object_key", row.key.as_str());
        }
        if firmware != Firmware::Old {
            push_text(&mut out, "s3_key", row.key.as_str());
        }
        push_text(&mut out, "status", row.status.name());
        push_text(&mut out, "task_id", &row.wire);
        if !complete {
            push_number(&mut out, "total_bytes", row.len);
        }
        if firmware == Firmware::New || (firmware == Firmware::Middle && !complete) {
            push_text(&mut out, "upload_mode", row.mode());
        }
        out
    }
}

/// Which of the two messages about one upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Announcement {
    Started,
    Complete,
}

/// What was uploaded since the start of the program.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Speed {
    pub(super) bytes_uploaded: u64,
    /// Of the latest upload.
    pub(super) bytes_per_sec: u64,
}

/// What every generation says of itself.
const UPLOADER_VERSION: &str = "0.1.0";
