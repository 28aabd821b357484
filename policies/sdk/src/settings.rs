//! Settings: how a policy documents them and how it reads them. Formats no text with the machinery of `core::fmt`, which
//! would be larger than most policies.

use alloc::string::String;
use alloc::vec::Vec;
use core::ops::RangeInclusive;

use crate::bindings::exports::tidegate::policy::meta;
use crate::{About, Value};

/// A setting with its default.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    pub(crate) key: &'static str,
    pub(crate) default: Default,
    pub(crate) help: &'static str,
}

/// The default of a setting. Its type is the setting's type.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Default {
    Flag(bool),
    Int(i64),
    Text(&'static str),
}

impl Setting {
    /// A setting that is on or off.
    #[must_use]
    pub const fn flag(key: &'static str, default: bool, help: &'static str) -> Setting {
        Setting { key, default: Default::Flag(default), help }
    }

    /// A number.
    #[must_use]
    pub const fn int(key: &'static str, default: i64, help: &'static str) -> Setting {
        Setting { key, default: Default::Int(default), help }
    }

    /// A text.
    #[must_use]
    pub const fn text(key: &'static str, default: &'static str, help: &'static str) -> Setting {
        Setting { key, default: Default::Text(default), help }
    }

    pub(crate) fn value(&self) -> Value {
        match self.default {
            Default::Flag(on) => Value::Flag(on),
            Default::Int(number) => Value::Int(number),
            Default::Text(text) => Value::Text(crate::rt::owned(text)),
        }
    }

    fn kind(&self) -> &'static str {
        match self.default {
            Default::Flag(_) => "true or false",
            Default::Int(_) => "a number",
            Default::Text(_) => "a text",
        }
    }
}

/// The settings of a policy, those given and the defaults of the others.
#[derive(Debug)]
pub struct Settings {
    known: &'static [Setting],
    given: Vec<meta::Setting>,
}

impl Settings {
    /// Checks what was given against what the policy knows.
    ///
    /// # Errors
    /// Names the first setting that the policy does not have, or that is of another type than its default.
    pub fn new(about: &About, given: Vec<meta::Setting>) -> Result<Settings, String> {
        for setting in &given {
            let Some(known) = about.settings.iter().find(|known| known.key == setting.key) else {
                return Err(text(&[&setting.key, " is no setting of ", about.name]));
            };
            let fits = match setting.value {
                Value::Flag(_) => matches!(known.default, Default::Flag(_)),
                Value::Int(_) => matches!(known.default, Default::Int(_)),
                Value::Text(_) => matches!(known.default, Default::Text(_)),
            };
            if !fits {
                return Err(text(&[&setting.key, " must be ", known.kind()]));
            }
        }
        Ok(Settings { known: about.settings, given })
    }

    /// The settings that were given; the others have their defaults.
    pub fn given(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.given.iter().map(|setting| (setting.key.as_str(), &setting.value))
    }

    /// Whether a setting is on. Off if the policy has no such setting.
    #[must_use]
    pub fn flag(&self, key: &str) -> bool {
        if let Some(Value::Flag(on)) = self.of(key) {
            return *on;
        }
        matches!(self.default_of(key), Some(Default::Flag(true)))
    }

    /// A number. 0 if the policy has no such setting.
    #[must_use]
    pub fn int(&self, key: &str) -> i64 {
        if let Some(Value::Int(number)) = self.of(key) {
            return *number;
        }
        match self.default_of(key) {
            Some(Default::Int(number)) => number,
            _ => 0,
        }
    }

    /// A number of a range.
    ///
    /// # Errors
    /// Names the setting and the range if it is not in it.
    pub fn int_in(&self, key: &str, range: RangeInclusive<i64>) -> Result<u64, String> {
        let number = self.int(key);
        if range.contains(&number) && number >= 0 {
            return Ok(number.unsigned_abs());
        }
        Err(out_of(key, range))
    }

    /// A text. Empty if the policy has no such setting.
    #[must_use]
    pub fn text(&self, key: &str) -> String {
        if let Some(Value::Text(text)) = self.of(key) {
            return text.clone();
        }
        match self.default_of(key) {
            Some(Default::Text(text)) => crate::rt::owned(text),
            _ => String::new(),
        }
    }

    fn of(&self, key: &str) -> Option<&Value> {
        self.given.iter().rfind(|setting| setting.key == key).map(|setting| &setting.value)
    }

    fn default_of(&self, key: &str) -> Option<Default> {
        self.known.iter().find(|known| known.key == key).map(|known| known.default)
    }
}

#[cold]
#[inline(never)]
fn out_of(key: &str, range: RangeInclusive<i64>) -> String {
    let least = digits(*range.start());
    if *range.end() == i64::MAX {
        return text(&[key, " must not be below ", &least]);
    }
    text(&[key, " must be from ", &least, " to ", &digits(*range.end())])
}

/// Pieces of a text, one after the other.
#[must_use]
pub fn text(pieces: &[&str]) -> String {
    let mut whole = String::with_capacity(pieces.iter().map(|piece| piece.len()).sum());
    for piece in pieces {
        whole.push_str(piece);
    }
    whole
}

/// A number in digits.
#[must_use]
pub fn digits(number: i64) -> String {
    let mut whole = String::new();
    if number < 0 {
        whole.push('-');
    }
    let mut rest = number.unsigned_abs();
    let mut unit = 1;
    while rest / unit >= 10 {
        unit *= 10;
    }
    while unit > 0 {
        whole.push(char::from(b'0' + (rest / unit) as u8));
        rest %= unit;
        unit /= 10;
    }
    whole
}
