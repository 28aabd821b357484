//! Cases of the contract's enums and their words. Only tables.

use tidegate_core::policy::{Choice, ErrorClass, GiveUp, Known, LinkKind, Power, Slot, Subject};

/// An enum with a word per case.
pub(super) trait Words: Copy + PartialEq + 'static {
    /// Every case.
    const WORDS: &'static [(Self, &'static str)];
}

/// The word of a case.
pub(super) fn word<T: Words>(case: T) -> &'static str {
    T::WORDS.iter().find(|(other, _)| *other == case).map_or("", |(_, word)| word)
}

impl Words for LinkKind {
    const WORDS: &'static [(LinkKind, &'static str)] = &[
        (LinkKind::Unknown, "unknown"),
        (LinkKind::None, "none"),
        (LinkKind::Ethernet, "ethernet"),
        (LinkKind::Wifi, "wifi"),
        (LinkKind::Cellular, "cellular"),
        (LinkKind::Satellite, "satellite"),
        (LinkKind::Other, "other"),
    ];
}

impl Words for Known {
    const WORDS: &'static [(Known, &'static str)] =
        &[(Known::Unknown, "unknown"), (Known::No, "no"), (Known::Yes, "yes")];
}

impl Words for Power {
    const WORDS: &'static [(Power, &'static str)] = &[
        (Power::Unknown, "unknown"),
        (Power::Mains, "mains"),
        (Power::Battery, "battery"),
        (Power::BatteryLow, "battery-low"),
    ];
}

impl Words for ErrorClass {
    const WORDS: &'static [(ErrorClass, &'static str)] = &[
        (ErrorClass::Vanished, "vanished"),
        (ErrorClass::Damaged, "damaged"),
        (ErrorClass::Rejected, "rejected"),
        (ErrorClass::Other, "other"),
    ];
}

impl Words for Subject {
    const WORDS: &'static [(Subject, &'static str)] = &[
        (Subject::Object, "object"),
        (Subject::Upload, "upload"),
        (Subject::Part, "part"),
        (Subject::Source, "source"),
    ];
}

impl Words for Choice {
    const WORDS: &'static [(Choice, &'static str)] =
        &[(Choice::Enqueue, "enqueue"), (Choice::Later, "later"), (Choice::Skip, "skip")];
}

impl Words for GiveUp {
    const WORDS: &'static [(GiveUp, &'static str)] =
        &[(GiveUp::Exhausted, "exhausted"), (GiveUp::Hopeless, "hopeless")];
}

impl Words for Slot {
    const WORDS: &'static [(Slot, &'static str)] = &[
        (Slot::AutoScan, "auto-scan"),
        (Slot::Retry, "retry"),
        (Slot::Concurrency, "concurrency"),
        (Slot::Bandwidth, "bandwidth"),
        (Slot::Order, "order"),
    ];
}
