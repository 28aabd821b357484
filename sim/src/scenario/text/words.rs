//! The words of scenario files for what the types call by variants. One table per type, each way; a variant without a
//! word does not compile.

use super::super::{
    CommitPoint, Deed, Firmware, Flavour, Keep, Lie, LocalDeed, Manner, ObjectPoint, Ops, Sync, Way,
};
use tidegate_core::id::Role;
use tidegate_core::input::{Action, Resolve};
use tidegate_core::policy::{Known, LinkKind, Slot};

/// Something that a file says in one word.
pub(super) trait Word: Copy + PartialEq + 'static {
    /// Its word.
    fn word(self) -> &'static str;

    /// All of them.
    fn all() -> Vec<Self>;

    /// What a word stands for; or what could have been written.
    fn from_word(word: &str) -> Result<Self, String> {
        Self::all().into_iter().find(|one| one.word() == word).ok_or_else(|| {
            let words: Vec<&str> = Self::all().into_iter().map(Self::word).collect();
            format!("must be one of {}", words.join(", "))
        })
    }
}

macro_rules! words {
    ($type:ident: $($variant:ident $word:literal,)+) => {
        impl Word for $type {
            fn word(self) -> &'static str {
                match self { $($type::$variant => $word,)+ }
            }

            fn all() -> Vec<Self> {
                vec![$($type::$variant,)+]
            }
        }
    };
}

words! { Flavour: Full "full", Composite "composite", Tags "tags", Opaque "opaque", }
words! { Manner: Builtin "builtin", Hesitant "hesitant", Greedy "greedy", }
words! { Firmware: Old "old", Middle "middle", New "new", }
words! { Sync: Named "named", Batch "batch", Left "left", }
words! { CommitPoint: Torn "torn", Durable "durable", Released "released", }
words! { ObjectPoint: Asked "asked", Applied "applied", Answered "answered", }
words! { LocalDeed: Record "record", Finish "finish", Cancel "cancel", Clear "clear", }
words! { Way: Both "both", Up "up", Down "down", }
words! { Keep: Nothing "nothing", Prefix "prefix", Subset "subset", }
words! { Ops: Any "any", Create "create", Put "put", Complete "complete", Look "look", Remove "remove", }
words! { Known: Unknown "unknown", No "no", Yes "yes", }
words! {
    LinkKind:
    Unknown "unknown",
    None "none",
    Ethernet "ethernet",
    Wifi "wifi",
    Cellular "cellular",
    Satellite "satellite",
    Other "other",
}
words! { Role: Recorder "recorder", Transfer "transfer", }
words! {
    Lie:
    EmptyState "empty-state",
    EmptyAnswer "empty-answer",
    FalseIdle "false-idle",
    FalseRecording "false-recording",
    OldUpdate "old-update",
    IdleWithTask "idle-with-task",
    RepeatedAnswer "repeated-answer",
    StrayAnswer "stray-answer",
    Garbage "garbage",
    WrongTypes "wrong-types",
    FalseComplete "false-complete",
    WrongDigest "wrong-digest",
    ForeignKey "foreign-key",
    FalseNotFound "false-not-found",
    FalseFailed "false-failed",
    ForeignCallback "foreign-callback",
    EarlyFinish "early-finish",
    RepeatedFinish "repeated-finish",
    LateStart "late-start",
    OtherContent "other-content",
    ShortStatus "short-status",
    SilentComplete "silent-complete",
}

words! {
    Deed:
    Put "put",
    Activate "activate",
    Reset "reset",
    Shadow "shadow",
    ShadowEnd "shadow-end",
    Rollback "rollback",
    Back "back",
    Quarantine "quarantine",
    Unquarantine "unquarantine",
    Remove "remove",
}

impl Word for Slot {
    fn word(self) -> &'static str {
        self.name()
    }

    fn all() -> Vec<Self> {
        Slot::ALL.to_vec()
    }
}

impl Word for Action {
    fn word(self) -> &'static str {
        self.name()
    }

    fn all() -> Vec<Self> {
        Action::ALL.to_vec()
    }
}

/// A size as people write it: `12MiB`, `700B`. The largest unit that divides it.
pub(super) fn size(bytes: u64) -> String {
    for (unit, shift) in [("GiB", 30), ("MiB", 20), ("KiB", 10)] {
        if bytes > 0 && bytes.trailing_zeros() >= shift {
            return format!("{}{unit}", bytes >> shift);
        }
    }
    format!("{bytes}B")
}

/// Reads what [`size`] writes.
pub(super) fn bytes(text: &str) -> Result<u64, String> {
    let bad = || format!("`{text}` is no size; write for example 12MiB, 700KiB or 10485761B");
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let number: u64 = text[..digits].parse().map_err(|_| bad())?;
    let unit: u64 = match &text[digits..] {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return Err(bad()),
    };
    number.checked_mul(unit).ok_or_else(bad)
}

/// A signed step of a clock: `-1h30m`, `250ms`. Reads what [`signed`] writes.
pub(super) fn signed_ms(text: &str) -> Result<i64, String> {
    let (sign, rest) = text.strip_prefix('-').map_or((1, text), |rest| (-1, rest));
    let d = crate::time::parse(rest)?;
    i64::try_from(d.as_millis()).map(|ms| sign * ms).map_err(|_| format!("`{text}` is too long"))
}

/// Writes milliseconds with their sign as a duration.
pub(super) fn signed(ms: i64) -> String {
    let sign = if ms < 0 { "-" } else { "" };
    format!("{sign}{}", crate::time::text(std::time::Duration::from_millis(ms.unsigned_abs())))
}

impl Word for Resolve {
    fn word(self) -> &'static str {
        self.name()
    }

    fn all() -> Vec<Self> {
        Resolve::ALL.to_vec()
    }
}
