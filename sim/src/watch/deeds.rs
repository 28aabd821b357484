//! What devices really did, against what people asked for: the ground truth of I09. Reads nothing but devices' logs.

use std::collections::BTreeMap;

use tidegate_core::id::DeviceId;

use super::{Broken, Premises, Truth, demand};
use crate::device::{Deed, Device};
use crate::time::SimTime;

/// What devices really did, read from their logs as they grow.
#[derive(Debug, Default)]
pub(super) struct Lives {
    index: BTreeMap<DeviceId, usize>,
    read: BTreeMap<DeviceId, usize>,
    begun: BTreeMap<(DeviceId, String), u32>,
    configured: BTreeMap<(DeviceId, String), u32>,
    /// How often people asked for an attempt to be configured, and it was sent.
    pub asked: BTreeMap<(DeviceId, String), u32>,
}

impl Lives {
    /// Reads on in the log of a device.
    pub(super) fn of(
        &mut self,
        truth: &Truth<'_>,
        device: &DeviceId,
        premises: &mut Premises,
    ) -> Result<(), Broken> {
        if self.index.len() != truth.devices.len() {
            self.index = truth.devices.iter().enumerate().map(|(n, device)| (device.id.clone(), n)).collect();
        }
        match self.index.get(device).and_then(|n| truth.devices.get(*n)) {
            Some(Device { id, honest, log, .. }) => self.lived(id, *honest, log, premises),
            None => Ok(()),
        }
    }

    /// I09: a device begins an attempt once, and takes its configuration no more often than people asked for.
    pub(super) fn lived(
        &mut self,
        device: &DeviceId,
        honest: bool,
        log: &[(SimTime, Deed)],
        premises: &mut Premises,
    ) -> Result<(), Broken> {
        let read = match self.read.get_mut(device) {
            Some(read) => read,
            None => self.read.entry(device.clone()).or_default(),
        };
        let new = log.get(*read..).unwrap_or_default();
        *read = log.len();
        for (at, deed) in new {
            let (counts, wire, most) = match deed {
                Deed::Began { wire } => (&mut self.begun, wire, 1),
                Deed::Configured { wire } => {
                    let asked = self.asked.get(&(device.clone(), wire.clone()));
                    (&mut self.configured, wire, asked.copied().unwrap_or(0))
                }
                _ => continue,
            };
            let count = counts.entry((device.clone(), wire.clone())).or_default();
            *count += 1;
            // Who lies that it is idle or ready is told again by people who believe it.
            if !honest {
                continue;
            }
            premises.met("I09");
            let count = *count;
            demand("I09", count <= most, || {
                format!("{deed:?} by {device} at {at} for the {count}. time, and {most} may be")
            })?;
        }
        Ok(())
    }
}
