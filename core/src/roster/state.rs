//! What is durable of devices and tokens. Changes only by applying changes; asks for nothing.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use crate::change::RosterChange;
use crate::digest::Sha256;
use crate::id::DeviceId;
use crate::limits;
use crate::refusal::{Illegal, Refusal};
use crate::row::{DeviceRow, Key, Named, Row, TokenRow};
use crate::time::Wall;

/// Devices and tokens.
#[derive(Debug)]
pub(super) struct State {
    devices: BTreeMap<DeviceId, DeviceRow>,
    tokens: BTreeMap<Sha256, TokenRow>,
    next_device: u64,
    next_token: u64,
}

impl Default for State {
    fn default() -> Self {
        State { devices: BTreeMap::new(), tokens: BTreeMap::new(), next_device: 1, next_token: 1 }
    }
}

impl State {
    pub(super) fn load(&mut self, key: &Key, row: Row) {
        match (key, row) {
            (Key::Device(id), Row::Device(row)) => {
                self.devices.insert(id.clone(), *row);
            }
            (Key::Token(token), Row::Token(row)) => {
                self.tokens.insert(*token, *row);
            }
            (_, row) => panic!("a {:?} record lies under the key of a device or token", row.kind()),
        }
    }

    pub(super) fn load_counters(&mut self, next_device: u64, next_token: u64) {
        (self.next_device, self.next_token) = (next_device, next_token);
    }

    pub(super) fn counters(&self) -> (u64, u64) {
        (self.next_device, self.next_token)
    }

    pub(super) fn sizes(&self) -> (usize, usize) {
        (self.devices.len(), self.tokens.len())
    }

    pub(super) fn row(&self, key: &Key) -> Option<Row> {
        match key {
            Key::Device(id) => self.devices.get(id).map(|row| Row::Device(Box::new(row.clone()))),
            Key::Token(token) => self.tokens.get(token).map(|row| Row::Token(Box::new(row.clone()))),
            Key::Meta
            | Key::Task(_)
            | Key::Episode(_)
            | Key::Job(_)
            | Key::Upload(_)
            | Key::Part(..)
            | Key::Policy
            | Key::Alias(_)
            | Key::Binding(_)
            | Key::Module(_) => None,
        }
    }

    pub(super) fn device(&self, id: &DeviceId) -> Option<&DeviceRow> {
        self.devices.get(id)
    }

    pub(super) fn token(&self, token: &Sha256) -> Option<&TokenRow> {
        self.tokens.get(token)
    }

    pub(super) fn tokens(&self) -> impl Iterator<Item = (&Sha256, &TokenRow)> {
        self.tokens.iter()
    }

    /// Tokens of a device. Rarely asked for: all tokens are looked at.
    pub(super) fn tokens_of(&self, device: &DeviceId) -> Vec<Sha256> {
        let own = self.tokens.iter().filter(|(_, row)| row.device.as_ref() == Some(device));
        own.map(|(token, _)| *token).collect()
    }

    /// The token of a number.
    pub(super) fn numbered(&self, id: u64) -> Option<(Sha256, &TokenRow)> {
        self.tokens.iter().find(|(_, row)| row.id == id).map(|(token, row)| (*token, row))
    }

    /// The record of a device that registers itself: `AB-F<factory>-T<type>-<sequence>`.
    pub(super) fn newcomer(&self, factory: &str, robot_type: &str, at: Wall) -> Result<DeviceRow, Refusal> {
        let factory = self.named(factory, |row| row.factory.as_ref());
        let robot_type = self.named(robot_type, |row| row.robot_type.as_ref());
        if factory.number > limits::FACTORIES_MAX || robot_type.number > limits::ROBOT_TYPES_MAX {
            return Err(Refusal::RosterFull);
        }
        let same = self.devices.values().filter(|row| {
            row.factory.as_ref() == Some(&factory) && row.robot_type.as_ref() == Some(&robot_type)
        });
        let mut seq = same.filter_map(|row| row.seq).max().unwrap_or(0);
        loop {
            seq = seq.checked_add(1).ok_or(Refusal::RosterFull)?;
            let id = name(factory.number, robot_type.number, seq);
            let id = DeviceId::new(&id).expect("letters, digits and lines, and short");
            // Somebody may have given a token to a device of this name.
            if !self.devices.contains_key(&id) {
                return Ok(DeviceRow {
                    id,
                    number: self.next_device,
                    factory: Some(factory),
                    robot_type: Some(robot_type),
                    seq: Some(seq),
                    registered_at: at,
                    disabled_at: None,
                });
            }
        }
    }

    /// The number of this name, or the next one.
    fn named(&self, name: &str, of: impl Fn(&DeviceRow) -> Option<&Named>) -> Named {
        let known = || self.devices.values().filter_map(&of);
        match known().find(|known| known.name == name) {
            Some(known) => known.clone(),
            None => {
                let last = known().map(|known| known.number).max().unwrap_or(0);
                Named { number: last.saturating_add(1), name: name.to_string() }
            }
        }
    }

    /// The record of a device that an operator gives a token to.
    pub(super) fn stranger(&self, id: &DeviceId, at: Wall) -> DeviceRow {
        DeviceRow {
            id: id.clone(),
            number: self.next_device,
            factory: None,
            robot_type: None,
            seq: None,
            registered_at: at,
            disabled_at: None,
        }
    }

    /// Applies a change; the records it touched.
    pub(super) fn apply(&mut self, change: &RosterChange) -> Result<Vec<Key>, Illegal> {
        let illegal = |state: &str| Illegal { state: state.to_string(), change: change.name() };
        match change {
            RosterChange::Registered(row) => {
                if self.devices.contains_key(&row.id) {
                    return Err(illegal("the device is registered"));
                }
                self.next_device = self.next_device.max(row.number.saturating_add(1));
                self.devices.insert(row.id.clone(), (**row).clone());
                Ok(vec![Key::Meta, Key::Device(row.id.clone())])
            }
            RosterChange::TokenAdded { token, row } => {
                if self.tokens.contains_key(token) {
                    return Err(illegal("the token is known"));
                }
                self.next_token = self.next_token.max(row.id.saturating_add(1));
                self.tokens.insert(*token, (**row).clone());
                Ok(vec![Key::Meta, Key::Token(*token)])
            }
            RosterChange::TokenUsed { token, at } => {
                let row = self.tokens.get_mut(token).ok_or_else(|| illegal("there is no such token"))?;
                row.used_at = Some(*at);
                Ok(change.touches())
            }
            RosterChange::TokenRevoked { token } => {
                self.tokens.remove(token).ok_or_else(|| illegal("there is no such token"))?;
                Ok(change.touches())
            }
            RosterChange::Disabled { device, at } => {
                let row = self.devices.get_mut(device).ok_or_else(|| illegal("there is no such device"))?;
                row.disabled_at = Some(*at);
                Ok(change.touches())
            }
            RosterChange::Enabled { device } => {
                let row = self.devices.get_mut(device).ok_or_else(|| illegal("there is no such device"))?;
                row.disabled_at = None;
                Ok(change.touches())
            }
        }
    }
}

/// The name of a device that registers itself: numbers have at least so many digits, and as many as they need.
fn name(factory: u32, robot_type: u32, seq: u32) -> String {
    alloc::format!("AB-F{factory:04}-T{robot_type:04}-{seq:06}")
}

#[cfg(test)]
mod tests {
    #[test]
    fn k99_numbers_in_names_of_devices_are_filled_up_and_never_cut() {
        assert_eq!(super::name(1, 2, 3), "AB-F0001-T0002-000003");
        assert_eq!(super::name(12_345, 67_890, 1_234_567), "AB-F12345-T67890-1234567");
    }
}
