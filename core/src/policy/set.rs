//! What sits in the slots: modules by hash with their settings, and the set of all five.

use alloc::string::String;
use alloc::vec::Vec;
use minicbor::{Decode, Encode};

use crate::digest::Sha256;
use crate::id::PolicySetId;
use crate::policy::{Builtin, Settings, Slot};

/// The value of a setting.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum SettingValue {
    /// On or off.
    #[n(0)]
    Flag(#[n(0)] bool),
    /// A number.
    #[n(1)]
    Int(#[n(0)] i64),
    /// A text.
    #[n(2)]
    Text(#[n(0)] String),
}

/// A module in a slot, with its settings.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Binding {
    /// Hash of the module's bytes.
    #[n(0)]
    pub module: Sha256,
    /// Settings by key, sorted; those not given have the module's defaults.
    #[n(1)]
    pub settings: Vec<(String, SettingValue)>,
}

/// Who sits in a slot.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Seat {
    /// A module.
    #[n(0)]
    Module(#[n(0)] Binding),
    /// The built-in rules, native: where the site has no default module, or that module is quarantined.
    #[n(1)]
    Floor,
}

/// Who sits where, and with which settings the built-in rules stand in.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct PolicySet {
    /// One seat per slot, in the order of [`Slot::ALL`].
    #[n(0)]
    pub seats: [Seat; 5],
    /// Settings of the built-in rules.
    #[n(1)]
    pub floor: Settings,
}

impl PolicySet {
    /// The built-in rules in every slot.
    #[must_use]
    pub fn native(floor: Settings) -> PolicySet {
        PolicySet { seats: [Seat::Floor, Seat::Floor, Seat::Floor, Seat::Floor, Seat::Floor], floor }
    }

    /// Its id: the hash of who sits where.
    #[must_use]
    pub fn id(&self) -> PolicySetId {
        if self.seats.iter().all(|seat| *seat == Seat::Floor) {
            return Builtin::new(self.floor.clone()).id();
        }
        let named =
            minicbor::to_vec(("tidegate-policy-set/1", self)).expect("writing to a vector cannot fail");
        PolicySetId(Sha256::of(&named).0)
    }

    /// Who sits in a slot.
    #[must_use]
    pub fn seat(&self, slot: Slot) -> &Seat {
        &self.seats[slot as usize]
    }

    /// The module in a slot, if it is one.
    #[must_use]
    pub fn module(&self, slot: Slot) -> Option<Sha256> {
        match self.seat(slot) {
            Seat::Module(binding) => Some(binding.module),
            Seat::Floor => None,
        }
    }
}

impl Settings {
    /// The same settings as the default module takes them.
    #[must_use]
    pub fn for_module(&self) -> Vec<(String, SettingValue)> {
        let number = |n: u64| SettingValue::Int(i64::try_from(n).unwrap_or(i64::MAX));
        let mut settings: Vec<(String, SettingValue)> = [
            ("auto-scan", SettingValue::Flag(self.auto_scan)),
            ("retry-base-ms", number(self.retry_base_ms)),
            ("retry-cap-ms", number(self.retry_cap_ms)),
            ("retry-jitter-ms", number(self.retry_jitter_ms)),
            ("attempts", number(self.attempts.into())),
            ("uploads", number(self.uploads.into())),
            ("bytes-per-second", number(self.bytes_per_second.unwrap_or(0))),
        ]
        .map(|(key, value)| (String::from(key), value))
        .into();
        settings.sort_by(|a, b| a.0.cmp(&b.0));
        settings
    }
}

/// What a module says of itself, as admission saw it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ModuleFacts {
    /// Bytes of the module.
    #[n(0)]
    pub size: u64,
    /// Its name.
    #[n(1)]
    pub name: String,
    /// Its version, in its own words.
    #[n(2)]
    pub version: String,
    /// One line about it.
    #[n(3)]
    pub summary: String,
    /// Hooks it serves, in the order of [`Slot::ALL`].
    #[n(4)]
    pub slots: Vec<Slot>,
    /// Milliseconds for which it may let nothing begin on purpose; 0 is the site's default.
    #[n(5)]
    pub patience_ms: u64,
    /// Who signed it: the name of the key, if it is signed by one that the site knows.
    #[n(6)]
    pub signed_by: Option<String>,
}
