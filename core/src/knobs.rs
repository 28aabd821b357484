//! Validated configuration of the core. Part of the boot input, so that a replay uses what life used.

use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;
use minicbor::{Decode, Encode};

use crate::digest::Sha256;
use crate::labels::{self, LabelRule};
use crate::limits;

/// Configuration of the core. Built by [`Knobs::try_new`]'s checks; durations are milliseconds.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Knobs {
    /// Name of the site: first segment of keys in the cloud. Same alphabet as a device id.
    #[n(0)]
    pub site: String,
    /// Base URL that devices are told for callbacks, without a trailing slash; `None` leaves callbacks alone.
    #[n(1)]
    pub public_url: Option<String>,
    /// Whether a cloud is configured.
    #[n(2)]
    pub destination: bool,
    /// How long a device has to answer a command.
    #[n(3)]
    pub rpc_timeout_ms: u64,
    /// How old a confirmed state may be for `config` and `begin`.
    #[n(4)]
    pub fresh_ms: u64,
    /// Bytes of a part, unless the object needs larger ones to fit 10,000.
    #[n(5)]
    pub part_size: u64,
    /// Parts of one upload in flight at once.
    #[n(6)]
    pub parts_in_flight: u16,
    /// How long the copy at the edge stays after the object was verified in the cloud; `None` is for ever.
    #[n(7)]
    pub keep_edge_ms: Option<u64>,
    /// Period of the auto-scan question.
    #[n(8)]
    pub scan_every_ms: u64,
    /// Most episodes one batch trigger or scan queues.
    #[n(9)]
    pub batch: u32,
    /// Settings of the built-in policies.
    #[n(10)]
    pub builtin: crate::policy::Settings,
    /// Shortest time between two `upload_request`s for one task.
    #[n(11)]
    pub request_again_ms: u64,
    /// The bug planted in this machine. In ordinary builds there is no such field.
    #[cfg(tidegate_bugs)]
    #[n(12)]
    pub bug: Option<crate::bug::Bug>,
    /// Whether the site itself approves recordings whose check finds nothing, and puts the others aside for a person.
    #[n(13)]
    #[cbor(default)]
    pub auto_approve: bool,
    /// Free bytes of the disk below which no device is asked for a recording; below half of it devices may not upload
    /// at all. 0 is never.
    #[n(14)]
    #[cbor(default)]
    pub reserve: u64,
    /// Labels of devices, for policies.
    #[n(15)]
    #[cbor(default)]
    pub labels: Vec<LabelRule>,
    /// The module that sits in every slot in which nobody placed another; `None` are the built-in rules.
    #[n(16)]
    pub default_module: Option<Sha256>,
    /// Faults of a slot's module within [`Knobs::policy_window_ms`] that cost it its place.
    #[n(17)]
    #[cbor(decode_with = "Decode::decode", nil = "faults")]
    pub policy_faults: u32,
    /// For how long a fault of a module counts.
    #[n(18)]
    #[cbor(decode_with = "Decode::decode", nil = "window")]
    pub policy_window_ms: u64,
    /// How long a module is on probation after it was placed.
    #[n(19)]
    #[cbor(decode_with = "Decode::decode", nil = "window")]
    pub probation_ms: u64,
    /// For how long a policy may put off everything on purpose, unless it asked for more.
    #[n(20)]
    #[cbor(decode_with = "Decode::decode", nil = "patience")]
    pub patience_ms: u64,
    /// Whether the built-in rules alone decide, native: no module is run or asked for, and what is recorded of modules
    /// rests.
    #[n(21)]
    #[cbor(default)]
    pub native: bool,
    /// How long a recorder may be away before its tasks are put back.
    #[n(22)]
    #[cbor(decode_with = "Decode::decode", nil = "grace")]
    pub grace_ms: u64,
    /// How long an idle recorder may leave a task unexplained that was begun: a callback may be under way.
    #[n(23)]
    #[cbor(decode_with = "Decode::decode", nil = "settle")]
    pub settle_ms: u64,
    /// For how long nobody may take over a link that two programs fight over, at first.
    #[n(24)]
    #[cbor(decode_with = "Decode::decode", nil = "contest_pause")]
    pub contest_pause_ms: u64,
    /// For how long after its recorder went an uploader may come without a token from the same address.
    #[n(25)]
    #[cbor(decode_with = "Decode::decode", nil = "bound_keep")]
    pub bound_keep_ms: u64,
    /// Whether callbacks must carry the `user_token` of their task.
    #[n(26)]
    #[cbor(default)]
    pub callback_tokens: bool,
    /// How long a task may wait for its recording before a person is told; `None` is for ever.
    #[n(27)]
    pub uploading_deadline_ms: Option<u64>,
    /// Most links at once, of both programs together; what the machine can bear.
    #[n(28)]
    #[cbor(decode_with = "Decode::decode", nil = "most_links")]
    pub links_max: u32,
}

/// What journals of versions mean that did not know the setting: the defaults.
fn grace() -> Option<u64> {
    Some(30_000)
}

fn settle() -> Option<u64> {
    Some(5_000)
}

fn contest_pause() -> Option<u64> {
    Some(10_000)
}

fn bound_keep() -> Option<u64> {
    Some(3_600_000)
}

fn most_links() -> Option<u32> {
    u32::try_from(2 * limits::LINKS_MAX).ok()
}

/// What journals of versions without modules mean: the defaults.
fn faults() -> Option<u32> {
    Some(3)
}

fn window() -> Option<u64> {
    Some(600_000)
}

fn patience() -> Option<u64> {
    Some(3_600_000)
}

/// What the free space of the disk allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Room {
    /// No upload: the rest is kept for the records.
    None,
    /// The end of uploads that began, but nobody is asked for another.
    Short,
    /// Everything.
    Enough,
}

impl Default for Knobs {
    fn default() -> Self {
        Knobs {
            site: String::from("site"),
            public_url: None,
            destination: false,
            rpc_timeout_ms: 15_000,
            fresh_ms: 1_000,
            part_size: 8 << 20,
            parts_in_flight: 3,
            keep_edge_ms: Some(0),
            scan_every_ms: 60_000,
            batch: 100,
            builtin: crate::policy::Settings::default(),
            request_again_ms: 30_000,
            #[cfg(tidegate_bugs)]
            bug: crate::bug::by_default(),
            auto_approve: false,
            reserve: 0,
            labels: Vec::new(),
            default_module: None,
            policy_faults: 3,
            policy_window_ms: 600_000,
            probation_ms: 600_000,
            patience_ms: 3_600_000,
            native: false,
            grace_ms: 30_000,
            settle_ms: 5_000,
            contest_pause_ms: 10_000,
            bound_keep_ms: 3_600_000,
            callback_tokens: false,
            uploading_deadline_ms: Some(86_400_000),
            links_max: most_links().unwrap_or(u32::MAX),
        }
    }
}

/// A setting out of range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadKnob {
    /// Its name in the configuration file.
    pub field: &'static str,
    /// What it must be.
    pub must: &'static str,
}

impl core::fmt::Display for BadKnob {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{} must be {}", self.field, self.must)
    }
}

impl Knobs {
    /// Checks ranges; the first offence is the error.
    pub fn try_new(self) -> Result<Knobs, BadKnob> {
        let bad = |field, must| Err(BadKnob { field, must });
        if crate::id::DeviceId::new(&self.site).is_err() {
            return bad("site", "1 to 128 characters of A-Z a-z 0-9 . _ -");
        }
        if !(100..=120_000).contains(&self.rpc_timeout_ms) {
            return bad("devices.rpc_timeout", "between 100 ms and 120 s");
        }
        if !(limits::PART_BYTES_MIN..=limits::PART_BYTES_MAX).contains(&self.part_size) {
            return bad("sync.part_size", "between 5 MiB and 512 MiB");
        }
        if !(1..=16).contains(&self.parts_in_flight) {
            return bad("sync.parts_in_flight", "between 1 and 16");
        }
        if !(1_000..=86_400_000).contains(&self.scan_every_ms) {
            return bad("sync.scan_every", "between 1 s and 24 h");
        }
        if !(1..=1_000).contains(&self.batch) {
            return bad("sync.batch", "between 1 and 1000");
        }
        if !(1..=100).contains(&self.builtin.attempts) {
            return bad("sync.attempts", "between 1 and 100");
        }
        if !(1..=limits::UPLOADS_MAX).contains(&self.builtin.uploads) {
            return bad("sync.uploads", "between 1 and 64");
        }
        if u64::from(self.builtin.uploads) * self.upload_bytes() > limits::IN_FLIGHT_BYTES_MAX {
            return bad(
                "sync.uploads",
                "lower, or sync.parts_in_flight or sync.part_size: their product is at most 4 GiB",
            );
        }
        if self.builtin.retry_base_ms == 0 || self.builtin.retry_cap_ms < self.builtin.retry_base_ms {
            return bad("sync.retry_base", "above 0 and at most sync.retry_cap");
        }
        labels::check(&self.labels)?;
        if !(1..=100).contains(&self.policy_faults) {
            return bad("policies.faults", "between 1 and 100");
        }
        if !(1_000..=86_400_000).contains(&self.policy_window_ms) {
            return bad("policies.fault_window", "between 1 s and 24 h");
        }
        if !(1_000..=86_400_000).contains(&self.probation_ms) {
            return bad("policies.probation", "between 1 s and 24 h");
        }
        let most = u64::try_from(limits::PATIENCE_MAX.as_millis()).unwrap_or(u64::MAX);
        if !(60_000..=most).contains(&self.patience_ms) {
            return bad("policies.patience", "between 1 min and 8 days");
        }
        if self.grace_ms > 86_400_000 {
            return bad("devices.link_grace", "at most 24 h");
        }
        if !(100..=600_000).contains(&self.settle_ms) {
            return bad("devices.settle", "between 100 ms and 10 min");
        }
        if !(1_000..=60_000).contains(&self.contest_pause_ms) {
            return bad("devices.contest_pause", "between 1 s and 60 s");
        }
        if self.bound_keep_ms > 30 * 86_400_000 {
            return bad("auth.bound_keep", "at most 30 days");
        }
        if self.uploading_deadline_ms.is_some_and(|ms| !(60_000..=366 * 86_400_000).contains(&ms)) {
            return bad("devices.uploading_deadline", "between 1 min and 366 days, or never");
        }
        if self.links_max == 0 {
            return bad("limits.files", "enough for at least one link");
        }
        Ok(self)
    }

    /// Bytes of one upload in flight at once.
    fn upload_bytes(&self) -> u64 {
        u64::from(self.parts_in_flight).saturating_mul(self.part_size).max(1)
    }

    /// Most uploads at once, whatever a policy says: what [`limits::UPLOADS_MAX`] and the bytes in flight allow.
    #[must_use]
    pub fn uploads_max(&self) -> u32 {
        let fit = (limits::IN_FLIGHT_BYTES_MAX / self.upload_bytes()).max(1);
        u32::try_from(fit).unwrap_or(u32::MAX).min(limits::UPLOADS_MAX)
    }

    /// What so many free bytes allow.
    #[must_use]
    pub fn room(&self, free: u64) -> Room {
        if free >= self.reserve {
            Room::Enough
        } else if free >= self.reserve / 2 {
            Room::Short
        } else {
            Room::None
        }
    }

    /// How long a device has to answer.
    #[must_use]
    pub fn rpc_timeout(&self) -> Duration {
        Duration::from_millis(self.rpc_timeout_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::Knobs;
    use std::string::String;
    use std::vec;

    fn knobs(uploads: u32, parts_in_flight: u16, part_size: u64) -> Knobs {
        let mut knobs = Knobs { parts_in_flight, part_size, ..Knobs::default() };
        knobs.builtin.uploads = uploads;
        knobs
    }

    #[test]
    fn settings_that_an_older_version_journalled_approve_nothing_by_themselves() {
        let knobs = Knobs { auto_approve: true, ..Knobs::default() };
        let bytes = minicbor::to_vec(&knobs).expect("writing to a vector cannot fail");
        assert_eq!(minicbor::decode::<Knobs>(&bytes).ok().as_ref(), Some(&knobs));
        assert_eq!(bytes[..2], [0x98, 29], "twenty-nine places");
        // The array is shorter, and its last elements are not there.
        let older = |places: u8, cut: usize| -> Knobs {
            let head = if places < 24 { vec![0x80 | places] } else { vec![0x98, places] };
            let old = [&head[..], &bytes[2..bytes.len() - cut]].concat();
            minicbor::decode(&old).expect("it still opens")
        };
        // Nobody was told of late recordings then.
        let knobs = Knobs { uploading_deadline_ms: None, ..knobs };
        // Three durations of three bytes, one of five, false, one of five, a number of three.
        let of_devices = 3 * 3 + 5 + 1 + 5 + 3;
        // No labels, no module, three faults, three durations of five bytes, and not native.
        let of_modules = 1 + 1 + 1 + 3 * 5 + 1 + of_devices;
        // Fifteen fields, as the last version without modules wrote them.
        assert_eq!(older(15, of_modules), knobs);
        // As they were before a site could be told to rest its modules.
        assert_eq!(older(21, 1 + of_devices), knobs);
        // As they were before grace periods.
        assert_eq!(older(22, of_devices), knobs);
        // Twelve fields, as version 1 wrote them.
        assert_eq!(older(12, of_modules + 3), Knobs { uploading_deadline_ms: None, ..Knobs::default() });
    }

    #[test]
    fn what_is_said_of_policies_and_devices_survives_the_journal_and_is_checked() {
        let rule = crate::labels::LabelRule {
            devices: String::from("arm-*"),
            labels: std::vec![(String::from("deadline-hours"), String::from("24"))],
        };
        let knobs = Knobs {
            labels: std::vec![rule],
            default_module: Some(crate::digest::Sha256([7; 32])),
            policy_faults: 5,
            policy_window_ms: 1_000,
            probation_ms: 86_400_000,
            patience_ms: 60_000,
            native: true,
            ..Knobs::default()
        };
        let bytes = minicbor::to_vec(&knobs).expect("writing to a vector cannot fail");
        assert_eq!(minicbor::decode::<Knobs>(&bytes).ok().as_ref(), Some(&knobs));
        assert_eq!(knobs.clone().try_new().as_ref(), Ok(&knobs));
        let eight_days = 8 * 24 * 3_600_000;
        let bad = [
            ("policies.faults", Knobs { policy_faults: 0, ..knobs.clone() }),
            ("policies.faults", Knobs { policy_faults: 101, ..knobs.clone() }),
            ("policies.fault_window", Knobs { policy_window_ms: 999, ..knobs.clone() }),
            ("policies.probation", Knobs { probation_ms: 0, ..knobs.clone() }),
            ("policies.patience", Knobs { patience_ms: 59_999, ..knobs.clone() }),
            ("policies.patience", Knobs { patience_ms: eight_days + 1, ..knobs.clone() }),
        ];
        for (field, knobs) in bad {
            assert_eq!(knobs.try_new().map_err(|bad| bad.field), Err(field));
        }
    }

    #[test]
    fn room_has_two_marks_and_without_a_reserve_there_is_always_enough() {
        use super::Room;
        let knobs = Knobs { reserve: 1_000, ..Knobs::default() };
        let marks = [
            (0, Room::None),
            (499, Room::None),
            (500, Room::Short),
            (999, Room::Short),
            (1_000, Room::Enough),
        ];
        for (free, room) in marks {
            assert_eq!(knobs.room(free), room, "{free}");
        }
        assert_eq!(Knobs::default().room(0), Room::Enough);
    }

    #[test]
    fn what_is_in_flight_at_once_is_at_most_4_gib_and_the_error_names_what_to_lower() {
        const MIB: u64 = 1 << 20;
        for (uploads, parts, size) in [(64, 8, 8 * MIB), (8, 1, 512 * MIB), (1, 8, 512 * MIB)] {
            assert!(knobs(uploads, parts, size).try_new().is_ok(), "{uploads} × {parts} × {size}");
        }
        for (uploads, parts, size) in [(64, 8, 8 * MIB + 1), (9, 1, 512 * MIB), (1, 9, 512 * MIB)] {
            let bad = knobs(uploads, parts, size).try_new().expect_err("too much memory");
            let text = std::format!("{bad}");
            for name in ["sync.uploads", "sync.parts_in_flight", "sync.part_size", "4 GiB"] {
                assert!(text.contains(name), "{text}");
            }
        }
        assert!(Knobs::default().try_new().is_ok());
    }
}
