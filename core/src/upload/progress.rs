//! How far an upload is: bytes of acknowledged parts, never more.

use crate::row::UploadRow;
use crate::upload::parts::Parts;

/// Acknowledged bytes of the recording.
pub(super) fn acknowledged(row: &UploadRow, parts: &Parts) -> u64 {
    let sum = parts.values().map(|facts| facts.len).sum();
    assert!(sum <= row.source.len, "I22: {sum} of {} bytes acknowledged", row.source.len);
    sum
}
