//! How many new keys each device named: a key that belongs to an attempt is a record for ever, so one that names ever new
//! ones must not fill the disk. Knows no key.

use alloc::collections::BTreeMap;

use crate::id::DeviceId;
use crate::limits;
use crate::time::Mono;

/// New keys of devices, in this boot.
#[derive(Debug, Default)]
pub(super) struct NewKeys {
    /// Since when, and how many of them led to no recording yet.
    of: BTreeMap<DeviceId, (Mono, u32)>,
}

impl NewKeys {
    /// Whether a device may name one more; it counts then.
    pub(super) fn take(&mut self, device: &DeviceId, now: Mono) -> bool {
        let (since, count) = self.of.entry(device.clone()).or_insert((now, 0));
        if since.until(now) >= limits::KEYS_WINDOW {
            (*since, *count) = (now, 0);
        }
        let may = *count < limits::KEYS_UNPROVEN_MAX;
        *count += u32::from(may);
        may
    }

    /// A recording was found under one of them.
    pub(super) fn proven(&mut self, device: &DeviceId) {
        if let Some((_, count)) = self.of.get_mut(device) {
            *count = count.saturating_sub(1);
        }
    }
}
