//! Size of an object → how it is cut: arithmetic alone.

use crate::id::{ObjectKey, PartNo};
use crate::limits;
use crate::object::Span;
use crate::row::Plan;

const MIB: u64 = 1 << 20;

/// Cuts `len` bytes into parts of `part_size`, or of the next larger size in whole MiB that fits 10,000 parts.
pub(super) fn cut(len: u64, part_size: u64) -> Plan {
    let least = len.div_ceil(limits::PARTS_MAX).div_ceil(MIB).saturating_mul(MIB);
    let part_size = part_size.max(least).max(1);
    let parts = u16::try_from(len.div_ceil(part_size).max(1)).expect("a part holds a 10,000th of the object");
    Plan { part_size, parts }
}

/// Which bytes a part holds.
pub(super) fn span(plan: Plan, len: u64, part: PartNo) -> Span {
    assert!((1..=plan.parts).contains(&part.0), "I21: part {part} is not of a plan of {}", plan.parts);
    let offset = u64::from(part.0 - 1) * plan.part_size;
    Span { offset, len: plan.part_size.min(len - offset) }
}

/// Key of the sidecar beside an object in the cloud.
pub(super) fn sidecar_key(key: &ObjectKey) -> ObjectKey {
    let stem = key.as_str().strip_suffix(".mcap").unwrap_or(key.as_str());
    // Only a key of nearly full length has no room for the suffix; then the stem gives way.
    let room = limits::KEY_BYTES - ".json".len();
    let stem = crate::row::shorten(stem, room);
    ObjectKey::new(&alloc::format!("{stem}.json")).expect("a legal key with a suffix and within the length")
}
