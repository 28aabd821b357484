//! The scenarios of `sim/scenarios`, built in so that they are found from any working directory. Runs nothing.

macro_rules! named {
    ($($name:literal),* $(,)?) => {
        /// Names and files, by name.
        pub const ALL: &[(&str, &str)] =
            &[$(($name, include_str!(concat!("../scenarios/", $name, ".toml")))),*];
    };
}

named![
    "clock-step",
    "conflict",
    "contest",
    "credentials-expire",
    "grace",
    "half-open",
    "lost-callback",
    "null",
    "policies",
    "power-loss",
    "reconnect",
    "restart-absent",
    "rpc-timeout",
    "s3-outage",
    "takeover",
    "thundering-herd",
    "weeks-offline",
];

/// The file of a named scenario.
#[must_use]
pub fn find(name: &str) -> Option<&'static str> {
    ALL.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
}
