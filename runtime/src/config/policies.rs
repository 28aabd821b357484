//! What `[policies]` and `[surroundings]` mean: types, ranges, and the two sections whose names an operator chooses.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tidegate_core::digest::Sha256;
use tidegate_core::policy::{Known, LinkKind, Power};

use super::layers::Value;
use super::read::Reader;

/// Scheduling policies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policies {
    /// `policies.native`: whether the built-in rules alone decide, native; no module is ever run.
    pub native: bool,
    /// `[policies.keys]`: public ed25519 keys by name. Once there is one, modules without a signature by one of them are
    /// refused.
    pub keys: BTreeMap<String, [u8; 32]>,
    /// `policies.probation`: how long a set must work before it is one to go back to.
    pub probation: Duration,
    /// `policies.patience`: how long a module may let nothing begin, unless it asks for longer.
    pub patience: Duration,
    /// `policies.faults`: faults of a module within `fault_window` that end its turn.
    pub faults: u32,
    /// `policies.fault_window`
    pub fault_window: Duration,
    /// `policies.watch`: a folder whose modules are activated as they appear; `None` watches nothing.
    pub watch: Option<PathBuf>,
    /// `policies.max_bytes`: of a module.
    pub max_bytes: u64,
    /// `[policies.labels]`: a pattern of device ids and the labels of those that match, those that say more of an id later.
    pub labels: Vec<(String, Vec<(String, String)>)>,
}

impl Default for Policies {
    fn default() -> Policies {
        Policies {
            native: false,
            keys: BTreeMap::new(),
            probation: Duration::from_secs(600),
            patience: Duration::from_secs(3_600),
            faults: 3,
            fault_window: Duration::from_secs(600),
            watch: None,
            max_bytes: 256 << 10,
            labels: Vec::new(),
        }
    }
}

/// What the operator says of the site's surroundings; what is not said is asked of the platform.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// `surroundings.link`: how the site reaches the cloud.
    pub link: Option<LinkKind>,
    /// `surroundings.metered`: whether bytes cost money.
    pub metered: Option<Known>,
    /// `surroundings.power`: what the site runs on.
    pub power: Option<Power>,
    /// `surroundings.time_zone`: a name such as `Europe/Berlin`, or an offset such as `+02:00`.
    pub time_zone: Option<String>,
}

/// Words of `surroundings.link`.
const LINKS: [(&str, LinkKind); 7] = [
    ("unknown", LinkKind::Unknown),
    ("none", LinkKind::None),
    ("ethernet", LinkKind::Ethernet),
    ("wifi", LinkKind::Wifi),
    ("cellular", LinkKind::Cellular),
    ("satellite", LinkKind::Satellite),
    ("other", LinkKind::Other),
];
/// Words of `surroundings.power`.
const POWERS: [(&str, Power); 4] = [
    ("unknown", Power::Unknown),
    ("mains", Power::Mains),
    ("battery", Power::Battery),
    ("battery-low", Power::BatteryLow),
];

pub(super) const KEYS: &str = "policies.keys.";
pub(super) const LABELS: &str = "policies.labels.";
/// Signers, rules and labels that a page of configuration may hold; a policy is told all labels of a device at once.
const KEYS_MAX: usize = 64;
const RULES_MAX: usize = 256;
const LABELS_MAX: usize = 16;

pub(super) fn read_policies(r: &mut Reader<'_>, policies: &mut Policies) {
    r.flag("policies.native", &mut policies.native);
    r.duration("policies.probation", &mut policies.probation, 1_000, 86_400_000, "between 1s and 1d");
    r.duration("policies.patience", &mut policies.patience, 60_000, 8 * 86_400_000, "between 1m and 8d");
    r.number("policies.faults", &mut policies.faults);
    if !(1..=100).contains(&policies.faults) {
        r.problem("policies.faults", "must be between 1 and 100");
    }
    let window = &mut policies.fault_window;
    r.duration("policies.fault_window", window, 10_000, 86_400_000, "between 10s and 1d");
    policies.watch = r.opt_text("policies.watch").filter(|dir| !dir.is_empty()).map(PathBuf::from);
    r.size("policies.max_bytes", &mut policies.max_bytes, 4 << 10, 8 << 20, "between 4KiB and 8MiB");
    read_keys(r, &mut policies.keys);
    read_labels(r, &mut policies.labels);
    if policies.native && policies.watch.is_some() {
        r.problem("policies.watch", "must not be set with policies.native: no module is ever run then");
    }
}

fn read_keys(r: &mut Reader<'_>, keys: &mut BTreeMap<String, [u8; 32]>) {
    for key in r.below(KEYS) {
        let name = key[KEYS.len()..].to_owned();
        if !is_word(&name) {
            r.problem(&key, "must have a name of 1 to 64 lower-case letters, digits and hyphens");
            continue;
        }
        let Some(text) = r.opt_text(&key) else { continue };
        let hex = || Sha256::from_hex(text.trim()).map(|bytes| bytes.0);
        let base64 = || STANDARD.decode(text.trim()).ok().and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
        match hex().or_else(base64) {
            Some(public) => {
                keys.insert(name, public);
            }
            None => {
                r.problem(&key, "must be a public ed25519 key: 64 hexadecimal digits, or 32 bytes in base64")
            }
        }
    }
    if keys.len() > KEYS_MAX {
        r.problem("policies.keys", &format!("must be at most {KEYS_MAX}"));
    }
}

fn read_labels(r: &mut Reader<'_>, rules: &mut Vec<(String, Vec<(String, String)>)>) {
    for key in r.below(LABELS) {
        let pattern = key[LABELS.len()..].to_owned();
        let id = pattern.strip_suffix('*').unwrap_or(&pattern);
        // A beginning of an id is written like an id; only `*` alone has none.
        if (id.is_empty() && pattern != "*")
            || (!id.is_empty() && tidegate_core::id::DeviceId::new(id).is_err())
        {
            r.problem(&key, "must be named after a device id, or the beginning of some and a *");
            continue;
        }
        let said = match r.value(&key) {
            Some(Value::Pairs(pairs)) => Some(pairs.clone()),
            Some(Value::Text(text)) => pairs(text),
            Some(Value::Integer(_) | Value::Bool(_) | Value::Other) | None => None,
        };
        let legal = |said: &Vec<(String, String)>| {
            !said.is_empty()
                && said.len() <= LABELS_MAX
                && said.iter().all(|(name, value)| is_word(name) && is_label(value))
        };
        match said.filter(legal) {
            Some(mut labels) => {
                labels.sort();
                rules.push((pattern, labels));
            }
            None => r.problem(
                &key,
                &format!(
                    "must be 1 to {LABELS_MAX} labels such as {{ team = \"a\", deadline-hours = 4 }} or \"team=a, \
                     deadline-hours=4\": names of lower-case letters, digits and hyphens, values of at most 64 bytes"
                ),
            ),
        }
    }
    // Of rules that say different things the last one counts: the one that says more of the device's id.
    rules.sort_by_key(|(pattern, _)| match pattern.strip_suffix('*') {
        Some(beginning) => (beginning.to_owned(), false),
        None => (pattern.clone(), true),
    });
    if rules.len() > RULES_MAX {
        r.problem("policies.labels", &format!("must be at most {RULES_MAX} rules"));
    }
}

/// `team=a, deadline-hours=4`
fn pairs(text: &str) -> Option<Vec<(String, String)>> {
    let pair = |part: &str| {
        let (name, value) = part.split_once('=')?;
        Some((name.trim().to_owned(), value.trim().to_owned()))
    };
    text.split(',').map(pair).collect()
}

fn is_word(text: &str) -> bool {
    let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=64).contains(&text.len()) && text.bytes().all(legal)
}

fn is_label(text: &str) -> bool {
    text.len() <= 64 && !text.chars().any(char::is_control)
}

pub(super) fn read_surroundings(r: &mut Reader<'_>, said: &mut Surroundings) {
    said.link = word(r, "surroundings.link", &LINKS);
    said.power = word(r, "surroundings.power", &POWERS);
    said.metered = match r.opt_word("surroundings.metered").as_deref() {
        None => None,
        Some("true" | "1") => Some(Known::Yes),
        Some("false" | "0") => Some(Known::No),
        Some("unknown") => Some(Known::Unknown),
        Some(_) => {
            r.problem("surroundings.metered", "must be true, false or \"unknown\"");
            None
        }
    };
    if let Some(zone) = r.opt_text("surroundings.time_zone") {
        if crate::surroundings::zone(&zone).is_some() {
            said.time_zone = Some(zone);
        } else {
            r.problem(
                "surroundings.time_zone",
                "must be a time zone that this machine knows, such as \"Europe/Berlin\", or an offset such as \
                 \"+02:00\"",
            );
        }
    }
}

fn word<T: Copy>(r: &mut Reader<'_>, key: &'static str, words: &[(&str, T)]) -> Option<T> {
    let said = r.opt_text(key)?;
    let found = words.iter().find(|(word, _)| *word == said).map(|(_, value)| *value);
    if found.is_none() {
        let all: Vec<String> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
        r.problem(key, &format!("must be one of {}", all.join(", ")));
    }
    found
}
