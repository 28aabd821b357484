//! Gathers values from the file, the environment and flags, each with its source; the later wins. Knows which names
//! exist, not what they mean.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::Config;
use super::policies;
use super::read::{KEYS, read};
use crate::seam::{Disk, DiskFile, Open};

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A line of a file.
    File {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
    },
    /// A variable of the environment.
    Environment(String),
    /// A flag of the command line.
    Flag,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::File { path, line } => write!(f, "{}:{line}", path.display()),
            Source::Environment(name) => write!(f, "environment {name}"),
            Source::Flag => f.write_str("command line"),
        }
    }
}

/// Something wrong with the configuration. Never holds a value: it might be a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where; `None` is a default.
    pub source: Option<Source>,
    /// What, naming the key and the fix.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            Some(source) => write!(f, "{source}: {}", self.what),
            None => f.write_str(&self.what),
        }
    }
}

/// Everything wrong with the configuration, one line each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, problem) in self.0.iter().enumerate() {
            if n > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// What a value looks like before its key says what it must be.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Value {
    Text(String),
    Integer(i64),
    Bool(bool),
    /// Texts, truths and whole numbers by name, where an operator chooses the names.
    Pairs(Vec<(String, String)>),
    /// Nothing any key takes.
    Other,
}

/// A value and its source.
pub(super) type Found = BTreeMap<String, (Value, Source)>;

/// Where to look besides the defaults.
#[derive(Clone, Default)]
pub struct Layers {
    /// `--config`: this file must exist. Without it `TIDEGATE_CONFIG` names one, which must exist as well.
    pub file: Option<PathBuf>,
    /// Variables of the environment; only `TIDEGATE_*` are looked at.
    pub environment: Vec<(String, String)>,
    /// What flags say, by the names of the file.
    pub flags: toml::Table,
}

impl fmt::Debug for Layers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Layers").field("file", &self.file).finish_non_exhaustive()
    }
}

impl Config {
    /// Reads the configuration. Without `--config` and `TIDEGATE_CONFIG` the file is `tidegate.toml` here, else the one in the data
    /// directory that environment and flags name, else none.
    ///
    /// # Errors
    /// Every problem found, each with its source.
    pub fn load<D: Disk>(disk: &D, layers: &Layers) -> Result<Config, Problems> {
        let mut problems = Vec::new();
        let mut above = Found::new();
        from_environment(&layers.environment, &mut above, &mut problems);
        from_flags(&layers.flags, "", &mut above, &mut problems);
        let mut found = Found::new();
        if let Some((path, text)) = pick_file(disk, layers, &above, &mut problems) {
            from_file(&path, &text, &mut found, &mut problems);
        }
        found.extend(above);
        let config = read(found, &mut problems);
        if problems.is_empty() { Ok(config) } else { Err(Problems(problems)) }
    }
}

fn pick_file<D: Disk>(
    disk: &D,
    layers: &Layers,
    above: &Found,
    problems: &mut Vec<Problem>,
) -> Option<(PathBuf, String)> {
    let data_dir = match above.get("data_dir") {
        Some((Value::Text(dir), _)) => PathBuf::from(dir),
        _ => Config::default().data_dir,
    };
    let by_variable = || {
        let set = layers.environment.iter().find(|(name, value)| name == FILE_VARIABLE && !value.is_empty());
        set.map(|(_, value)| PathBuf::from(value))
    };
    let named = layers.file.clone().or_else(by_variable);
    let candidates = match &named {
        Some(named) => vec![named.clone()],
        None => vec![PathBuf::from(FILE), data_dir.join(FILE)],
    };
    for path in candidates {
        match read_text(disk, &path) {
            Ok(text) => return Some((path, text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound && named.is_none() => {}
            Err(error) => {
                problems.push(Problem {
                    source: None,
                    what: format!("{} cannot be read: {error}", path.display()),
                });
                return None;
            }
        }
    }
    None
}

/// Reads a small file as text.
pub(crate) fn read_text<D: Disk>(disk: &D, path: &Path) -> io::Result<String> {
    let file = disk.open(path, Open::Read)?;
    let len = file.len()?;
    if len > FILE_BYTES_MAX {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("it is larger than {FILE_BYTES_MAX} bytes"),
        ));
    }
    let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
    file.read_exact_at(&mut bytes, 0)?;
    String::from_utf8(bytes).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8"))
}

fn from_file(path: &Path, text: &str, found: &mut Found, problems: &mut Vec<Problem>) {
    let at = |byte: usize| Source::File {
        path: path.to_owned(),
        line: 1 + text.as_bytes()[..byte.min(text.len())].iter().filter(|b| **b == b'\n').count(),
    };
    match DeTable::parse(text) {
        Ok(table) => walk(table.get_ref(), "", &at, found, problems),
        Err(error) => {
            let byte = error.span().map_or(0, |span| span.start);
            // The message names what was expected, not the text that stands there.
            problems.push(Problem { source: Some(at(byte)), what: error.message().to_owned() });
        }
    }
}

fn walk(
    table: &DeTable<'_>,
    prefix: &str,
    at: &impl Fn(usize) -> Source,
    found: &mut Found,
    problems: &mut Vec<Problem>,
) {
    for (key, value) in table {
        let name = format!("{prefix}{}", key.get_ref());
        let source = at(key.span().start);
        match value.get_ref() {
            DeValue::Table(inner) if is_section(&name) => {
                walk(inner, &format!("{name}."), at, found, problems)
            }
            other => {
                let value = match other {
                    DeValue::String(text) => Value::Text(text.to_string()),
                    DeValue::Boolean(yes) => Value::Bool(*yes),
                    DeValue::Integer(number) => {
                        let digits = number.as_str().replace('_', "");
                        i64::from_str_radix(&digits, number.radix()).map_or(Value::Other, Value::Integer)
                    }
                    DeValue::Table(inner) if is_open(&name) => pairs(inner),
                    DeValue::Float(_) | DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => {
                        Value::Other
                    }
                };
                keep(name, value, source, found, problems);
            }
        }
    }
}

/// A table whose names are chosen by the operator.
fn pairs(table: &DeTable<'_>) -> Value {
    let text = |value: &DeValue<'_>| match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Boolean(yes) => Some(yes.to_string()),
        DeValue::Integer(number) => Some(number.as_str().replace('_', "")),
        DeValue::Float(_) | DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => None,
    };
    let pair = |(key, value): (&toml::Spanned<_>, &toml::Spanned<DeValue<'_>>)| {
        let key: &std::borrow::Cow<'_, str> = key.get_ref();
        Some((key.to_string(), text(value.get_ref())?))
    };
    table.iter().map(pair).collect::<Option<_>>().map_or(Value::Other, Value::Pairs)
}

fn from_flags(table: &toml::Table, prefix: &str, found: &mut Found, problems: &mut Vec<Problem>) {
    for (key, value) in table {
        let name = format!("{prefix}{key}");
        let value = match value {
            toml::Value::Table(inner) if is_section(&name) => {
                from_flags(inner, &format!("{name}."), found, problems);
                continue;
            }
            toml::Value::String(text) => Value::Text(text.clone()),
            toml::Value::Integer(number) => Value::Integer(*number),
            toml::Value::Boolean(yes) => Value::Bool(*yes),
            toml::Value::Float(_)
            | toml::Value::Datetime(_)
            | toml::Value::Array(_)
            | toml::Value::Table(_) => Value::Other,
        };
        keep(name, value, Source::Flag, found, problems);
    }
}

fn from_environment(variables: &[(String, String)], found: &mut Found, problems: &mut Vec<Problem>) {
    for (variable, value) in variables {
        let Some(rest) = variable.strip_prefix(PREFIX) else { continue };
        if NOT_SETTINGS.contains(&variable.as_str()) || variable.starts_with(TEST_PREFIX) {
            continue;
        }
        let name = rest.to_ascii_lowercase().replace("__", ".");
        keep(name, Value::Text(value.clone()), Source::Environment(variable.clone()), found, problems);
    }
}

fn keep(name: String, value: Value, source: Source, found: &mut Found, problems: &mut Vec<Problem>) {
    if KEYS.contains(&name.as_str()) || is_open(&name) {
        found.insert(name, (value, source));
        return;
    }
    let mut what = if is_section(&name) {
        format!("\"{name}\" is a section: write [{name}]")
    } else {
        format!("unknown key \"{name}\"")
    };
    if let (false, Some(near)) = (is_section(&name), nearest(&name)) {
        what.push_str(&match &source {
            Source::Environment(_) => format!(", did you mean {}?", variable_of(near)),
            Source::File { .. } | Source::Flag => format!(", did you mean \"{near}\"?"),
        });
    }
    problems.push(Problem { source: Some(source), what });
}

/// Whether a name lies in a section whose names are the operator's.
fn is_open(name: &str) -> bool {
    [policies::KEYS, policies::LABELS]
        .iter()
        .any(|prefix| name.len() > prefix.len() && name.starts_with(prefix))
}

fn is_section(name: &str) -> bool {
    let open = [policies::KEYS, policies::LABELS].iter().any(|prefix| prefix.strip_suffix('.') == Some(name));
    open || KEYS.iter().any(|key| key.strip_prefix(name).is_some_and(|rest| rest.starts_with('.')))
}

fn nearest(name: &str) -> Option<&'static str> {
    // A right key in the wrong section is as likely as a typing error.
    let last = name.rsplit('.').next().unwrap_or(name);
    let moved = KEYS.iter().find(|key| key.rsplit('.').next() == Some(last));
    let close = KEYS
        .iter()
        .map(|key| (strsim::damerau_levenshtein(key, name), *key))
        .min()
        .filter(|(distance, key)| *distance <= key.len().max(6) / 3);
    close.map(|(_, key)| key).or(moved.copied())
}

/// Name of the variable that sets a key.
pub(super) fn variable_of(key: &str) -> String {
    format!("{PREFIX}{}", key.replace('.', "__").to_ascii_uppercase())
}

const FILE: &str = "tidegate.toml";
const PREFIX: &str = "TIDEGATE_";
/// The environment's form of `--config`.
const FILE_VARIABLE: &str = "TIDEGATE_CONFIG";
/// Variables of ours that are no settings: the path of the file, and how commands reach a site.
const NOT_SETTINGS: [&str; 4] = [FILE_VARIABLE, "TIDEGATE_API", "TIDEGATE_CA", "TIDEGATE_TOKEN"];
/// What the tests of a checkout are told, which may start a site.
const TEST_PREFIX: &str = "TIDEGATE_TEST_";
/// A configuration is a page or two; anything larger is another file.
const FILE_BYTES_MAX: u64 = 1 << 20;
