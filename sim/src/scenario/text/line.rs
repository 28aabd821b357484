//! One step or one fault of a file: its fields are taken by name, and what nobody took is an error. Knows no meaning of
//! any field.

use std::time::Duration;

use super::words::Word;
use super::{Names, words};
use crate::scenario::{ModuleSpec, Path, Store};

/// The fields of one line.
pub(super) struct Line<'a> {
    fields: toml::Table,
    asked: Vec<&'static str>,
    names: &'a Names<'a>,
}

type Taken<T> = Result<T, String>;

impl<'a> Line<'a> {
    pub(super) fn new(fields: toml::Table, names: &'a Names<'a>) -> Line<'a> {
        Line { fields, asked: Vec::new(), names }
    }

    fn value(&mut self, name: &'static str) -> Option<toml::Value> {
        self.asked.push(name);
        self.fields.remove(name)
    }

    /// A text, if it is there.
    pub(super) fn text(&mut self, name: &'static str) -> Taken<Option<String>> {
        match self.value(name) {
            None => Ok(None),
            Some(toml::Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(format!("{name} = {other} must be a text in quotes")),
        }
    }

    /// A text that must be there.
    pub(super) fn word(&mut self, name: &'static str) -> Taken<String> {
        self.text(name)?.ok_or_else(|| format!("{name} is missing"))
    }

    fn read<T>(&mut self, name: &'static str, read: impl Fn(&str) -> Taken<T>) -> Taken<Option<T>> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        read(&text).map(Some).map_err(|why| format!("{name} = {text:?}: {why}"))
    }

    /// One of the words of a type, if it is there.
    pub(super) fn maybe<T: Word>(&mut self, name: &'static str) -> Taken<Option<T>> {
        self.read(name, T::from_word)
    }

    /// One of the words of a type.
    pub(super) fn one<T: Word>(&mut self, name: &'static str) -> Taken<T> {
        let missing = || {
            let words: Vec<&str> = T::all().into_iter().map(T::word).collect();
            format!("{name} is missing: one of {}", words.join(", "))
        };
        self.maybe(name)?.ok_or_else(missing)
    }

    /// A duration, if it is there.
    pub(super) fn time(&mut self, name: &'static str) -> Taken<Option<Duration>> {
        self.read(name, crate::time::parse)
    }

    /// A duration.
    pub(super) fn span(&mut self, name: &'static str) -> Taken<Duration> {
        self.time(name)?.ok_or_else(|| format!("{name} is missing: a duration, for instance \"30s\""))
    }

    /// A duration with a sign, in milliseconds.
    pub(super) fn step(&mut self, name: &'static str) -> Taken<i64> {
        self.read(name, words::signed_ms)?
            .ok_or_else(|| format!("{name} is missing: a duration, for instance \"-1h\""))
    }

    /// A size.
    pub(super) fn size(&mut self, name: &'static str) -> Taken<u64> {
        self.read(name, words::bytes)?
            .ok_or_else(|| format!("{name} is missing: a size, for instance \"12MiB\""))
    }

    /// Yes or no, with what it is if nothing is said.
    pub(super) fn flag(&mut self, name: &'static str, default: bool) -> Taken<bool> {
        match self.value(name) {
            None => Ok(default),
            Some(toml::Value::Boolean(flag)) => Ok(flag),
            Some(other) => Err(format!("{name} = {other} must be true or false")),
        }
    }

    /// A whole number.
    pub(super) fn number<T: TryFrom<i64>>(&mut self, name: &'static str) -> Taken<T> {
        match self.value(name) {
            None => Err(format!("{name} is missing: a whole number")),
            Some(toml::Value::Integer(n)) => {
                T::try_from(n).map_err(|_| format!("{name} = {n} is out of range"))
            }
            Some(other) => Err(format!("{name} = {other} must be a whole number")),
        }
    }

    /// The site that the line names; the only one if it names none.
    pub(super) fn site(&mut self) -> Taken<usize> {
        match self.text("site")? {
            Some(name) => self.names.site(&name),
            None => self.names.only_site(),
        }
    }

    /// The device that the line names.
    pub(super) fn device(&mut self) -> Taken<usize> {
        let id = self.word("device")?;
        self.names.device(&id)
    }

    /// The part of the network that the line names: exactly one of `link`, `device`, `site`, `cloud`.
    pub(super) fn path(&mut self) -> Taken<Path> {
        let link = match self.text("link")? {
            None => None,
            Some(text) => {
                let (device, role) = text
                    .split_once('/')
                    .ok_or_else(|| format!("link = {text:?} must be like \"d1/recorder\""))?;
                Some(Path::Link(self.names.device(device)?, Word::from_word(role)?))
            }
        };
        let device = self.text("device")?.map(|id| self.names.device(&id)).transpose()?.map(Path::Device);
        let site = self.text("site")?.map(|name| self.names.site(&name)).transpose()?.map(Path::Site);
        let cloud = self.text("cloud")?.map(|name| self.names.site(&name)).transpose()?.map(Path::Cloud);
        let mut all = [link, device, site, cloud].into_iter().flatten();
        match (all.next(), all.next()) {
            (Some(path), None) => Ok(path),
            _ => Err("say where: exactly one of link = \"d1/recorder\", device, site, cloud".to_string()),
        }
    }

    /// The store that the line names: exactly one of `edge` and `cloud`.
    pub(super) fn store(&mut self) -> Taken<Store> {
        match (self.text("edge")?, self.text("cloud")?) {
            (Some(site), None) => Ok(Store::Edge(self.names.site(&site)?)),
            (None, Some(site)) => Ok(Store::Cloud(self.names.site(&site)?)),
            _ => Err("say which store: edge or cloud, with the name of its site".to_string()),
        }
    }

    /// A module, if one is named.
    pub(super) fn module(&mut self) -> Taken<Option<ModuleSpec>> {
        let what =
            "write a conduct and a number, for instance trap-3; `tidegate-sim list` names the conducts";
        self.read("module", |name| ModuleSpec::of(name).ok_or_else(|| what.to_string()))
    }

    /// Nothing may be left.
    pub(super) fn end(self) -> Taken<()> {
        match self.fields.keys().next() {
            None => Ok(()),
            Some(name) => Err(format!("unknown field {name}; known here: {}", self.asked.join(", "))),
        }
    }
}
