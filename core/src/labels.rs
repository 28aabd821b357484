//! Labels of devices, from the configuration: what policies may know of a device besides its name.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;
use minicbor::{Decode, Encode};

use crate::id::DeviceId;
use crate::knobs::BadKnob;
use crate::limits;

/// Labels for the devices that a pattern names.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct LabelRule {
    /// A device, or the beginning of many with one `*` at the end.
    #[n(0)]
    pub devices: String,
    /// Labels: key and value.
    #[n(1)]
    pub labels: Vec<(String, String)>,
}

impl LabelRule {
    /// Whether the pattern names this device.
    #[must_use]
    pub fn names(&self, device: &str) -> bool {
        match self.devices.strip_suffix('*') {
            Some(beginning) => device.starts_with(beginning),
            None => device == self.devices,
        }
    }
}

/// The labels of a device by key: of rules that say different things of it, the last one counts.
#[must_use]
pub fn labels_of(rules: &[LabelRule], device: &DeviceId) -> Vec<(String, String)> {
    let matching = rules.iter().filter(|rule| rule.names(device.as_str()));
    let labels: BTreeMap<&String, &String> =
        matching.flat_map(|rule| &rule.labels).map(|(key, value)| (key, value)).collect();
    labels.into_iter().map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// Checks patterns and bounds. Keys are counted over all rules, so that no device can have more.
pub(crate) fn check(rules: &[LabelRule]) -> Result<(), BadKnob> {
    let bad = |must| Err(BadKnob { field: "policies.labels", must });
    if rules.len() > limits::LABEL_RULES_MAX {
        return bad("at most 256 rules");
    }
    let mut keys = BTreeSet::new();
    for rule in rules {
        let beginning = rule.devices.strip_suffix('*').unwrap_or(&rule.devices);
        let every = beginning.is_empty() && !rule.devices.is_empty();
        if !every && DeviceId::new(beginning).is_err() {
            return bad("for a device id, or the beginning of one and a single * at the end");
        }
        for (key, value) in &rule.labels {
            if key.is_empty() || key.len() > limits::LABEL_BYTES || value.len() > limits::LABEL_BYTES {
                return bad("keys of 1 to 64 bytes and values of at most 64");
            }
            keys.insert(key);
        }
    }
    if keys.len() > limits::LABELS_MAX { bad("at most 16 different keys") } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::format;
    use std::string::ToString;
    use std::vec;

    fn rule(devices: &str, labels: &[(&str, &str)]) -> LabelRule {
        let labels = labels.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        LabelRule { devices: devices.to_string(), labels }
    }

    #[test]
    fn a_pattern_names_one_device_or_those_that_begin_so_and_the_last_word_counts() {
        let rules = [
            rule("*", &[("fleet", "test"), ("deadline-hours", "48")]),
            rule("arm-*", &[("deadline-hours", "24")]),
            rule("arm-7", &[("deadline-hours", "2"), ("lab", "b")]),
        ];
        let cases: [(&str, &[(&str, &str)]); 4] = [
            ("leg-1", &[("deadline-hours", "48"), ("fleet", "test")]),
            ("arm-", &[("deadline-hours", "24"), ("fleet", "test")]),
            ("arm-70", &[("deadline-hours", "24"), ("fleet", "test")]),
            ("arm-7", &[("deadline-hours", "2"), ("fleet", "test"), ("lab", "b")]),
        ];
        for (device, labels) in cases {
            let device = DeviceId::new(device).expect("legal");
            assert_eq!(labels_of(&rules, &device), rule("", labels).labels, "{device}");
        }
        assert_eq!(labels_of(&[], &DeviceId::new("arm-7").expect("legal")), vec![]);
    }

    #[test]
    fn rules_that_name_nobody_or_say_too_much_are_refused() {
        assert_eq!(check(&[rule("*", &[("a", "")]), rule("arm-*", &[]), rule("arm", &[])]), Ok(()));
        let long = "x".repeat(65);
        for bad in ["", "a*b", "**", "a/b", "arm *"] {
            assert!(check(&[rule(bad, &[])]).is_err(), "{bad:?}");
        }
        for (key, value) in [("", "v"), (long.as_str(), "v"), ("k", long.as_str())] {
            assert!(check(&[rule("a", &[(key, value)])]).is_err());
        }
        let one = |n: usize| rule("a", &[(&format!("k{n}"), "v")]);
        assert_eq!(check(&(0..16).map(one).collect::<Vec<_>>()), Ok(()));
        assert!(check(&(0..17).map(one).collect::<Vec<_>>()).is_err(), "of one device");
        assert!(check(&vec![rule("a", &[]); 257]).is_err());
    }
}
