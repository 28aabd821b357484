//! Scenario files: reading and writing. docs/simulation.md is their specification. What is read back is what was
//! written; what a person wrote comes back in the one form that `write` has. Judges no content beyond `Scenario::check`.

mod line;
mod read;
mod words;
mod write;

use std::time::Duration;

use serde::Deserialize;
use tidegate_core::bug::Bug;
use tidegate_core::knobs::Knobs;
use toml::Spanned;

use super::{DeviceSpec, Place, Problem, Scenario, Site};
use line::Line;
use words::Word;
pub use write::write;

/// Reads a scenario file, puts its steps and faults in order and checks it.
///
/// # Errors
/// The first problem, with the line and what to write instead.
pub fn parse(text: &str) -> Result<Scenario, Problem> {
    let line_of = |at: usize| text.as_bytes().iter().take(at).filter(|b| **b == b'\n').count() + 1;
    let raw: Raw = toml::from_str(text).map_err(|error| Problem {
        line: error.span().map(|span| line_of(span.start)),
        place: Place::Whole,
        what: error.message().to_string(),
    })?;
    let mut lines = Lines::default();
    let located = |place: Place, at: usize| move |what: String| Problem { line: Some(at), place, what };

    let mut sites = Vec::new();
    for (n, one) in raw.sites.into_iter().enumerate() {
        let at = line_of(one.span().start);
        lines.sites.push(at);
        sites.push(one.into_inner().read().map_err(located(Place::Site(n), at))?);
    }
    let mut devices: Vec<DeviceSpec> = Vec::new();
    for (n, one) in raw.devices.into_iter().enumerate() {
        let at = line_of(one.span().start);
        let names = Names { sites: &sites, devices: &[] };
        let several = one.into_inner().read(&names).map_err(located(Place::Device(n), at))?;
        lines.devices.resize(lines.devices.len() + several.len(), at);
        devices.extend(several);
    }
    let names = Names { sites: &sites, devices: &devices };
    let mut steps = Vec::new();
    for (n, one) in raw.steps.into_iter().enumerate() {
        let at = line_of(one.span().start);
        let mut line = Line::new(one.into_inner(), &names);
        let step = read::step(&mut line).and_then(|step| line.end().map(|()| step));
        steps.push((at, step.map_err(located(Place::Step(n), at))?));
    }
    let mut faults = Vec::new();
    for (n, one) in raw.faults.into_iter().enumerate() {
        let at = line_of(one.span().start);
        let mut line = Line::new(one.into_inner(), &names);
        let fault = read::fault(&mut line, &names).and_then(|fault| line.end().map(|()| fault));
        faults.push((at, fault.map_err(located(Place::Fault(n), at))?));
    }
    steps.sort_by_key(|(_, step)| step.at);
    faults.sort_by_key(|(_, fault)| fault.when.rank());
    let (step_lines, steps) = steps.into_iter().unzip();
    let (fault_lines, faults) = faults.into_iter().unzip();
    (lines.steps, lines.faults) = (step_lines, fault_lines);

    let scenario = Scenario {
        name: raw.name,
        about: raw.about,
        seed: raw.seed.0,
        bug: raw.bug.map(|bug| bug.0),
        expect: raw.expect,
        chaos: raw.chaos.0,
        settle: raw.settle.0,
        sites,
        devices,
        steps,
        faults,
    };
    scenario.check().map_err(|problem| Problem { line: lines.of(problem.place), ..problem })?;
    Ok(scenario)
}

/// Where parts of a scenario were written.
#[derive(Default)]
struct Lines {
    sites: Vec<usize>,
    devices: Vec<usize>,
    steps: Vec<usize>,
    faults: Vec<usize>,
}

impl Lines {
    fn of(&self, place: Place) -> Option<usize> {
        match place {
            Place::Whole => None,
            Place::Site(n) => self.sites.get(n).copied(),
            Place::Device(n) => self.devices.get(n).copied(),
            Place::Step(n) => self.steps.get(n).copied(),
            Place::Fault(n) => self.faults.get(n).copied(),
        }
    }
}

/// What names in a file stand for.
struct Names<'a> {
    sites: &'a [Site],
    devices: &'a [DeviceSpec],
}

impl Names<'_> {
    fn site(&self, name: &str) -> Result<usize, String> {
        self.sites.iter().position(|site| site.name == name).ok_or_else(|| {
            let known: Vec<&str> = self.sites.iter().map(|site| site.name.as_str()).collect();
            format!("there is no site {name:?}; the sites are {}", known.join(", "))
        })
    }

    fn only_site(&self) -> Result<usize, String> {
        if self.sites.len() == 1 { Ok(0) } else { Err("site is missing: there is more than one".to_string()) }
    }

    fn device(&self, id: &str) -> Result<usize, String> {
        self.devices
            .iter()
            .position(|device| device.id == id)
            .ok_or_else(|| format!("there is no device {id:?}: add it to devices"))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    name: String,
    #[serde(default)]
    about: String,
    seed: Seed,
    bug: Option<Planted>,
    expect: Option<String>,
    chaos: Span,
    settle: Span,
    sites: Vec<Spanned<RawSite>>,
    #[serde(default)]
    devices: Vec<Spanned<RawDevice>>,
    #[serde(default)]
    steps: Vec<Spanned<toml::Table>>,
    #[serde(default)]
    faults: Vec<Spanned<toml::Table>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSite {
    name: String,
    flavour: Option<OneOf<super::Flavour>>,
    flush: Option<Span>,
    cloud_latency: Option<Span>,
    cloud_speed: Option<Size>,
    policy: Option<OneOf<super::Manner>>,
    #[serde(default)]
    knobs: RawKnobs,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawKnobs {
    destination: Option<bool>,
    rpc_timeout: Option<Span>,
    fresh: Option<Span>,
    part_size: Option<Size>,
    parts_in_flight: Option<u16>,
    keep_edge: Option<Keep>,
    scan_every: Option<Span>,
    batch: Option<u32>,
    request_again: Option<Span>,
    auto_scan: Option<bool>,
    auto_approve: Option<bool>,
    retry_base: Option<Span>,
    retry_cap: Option<Span>,
    retry_jitter: Option<Span>,
    attempts: Option<u32>,
    uploads: Option<u32>,
    bytes_per_second: Option<Size>,
    default_module: Option<bool>,
    policy_faults: Option<u32>,
    policy_window: Option<Span>,
    probation: Option<Span>,
    patience: Option<Span>,
    grace: Option<Span>,
    settle: Option<Span>,
    contest_pause: Option<Span>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawDevice {
    id: String,
    count: Option<u32>,
    site: Option<String>,
    firmware: Option<OneOf<super::Firmware>>,
    latency: Option<Span>,
    speed: Option<Size>,
}

impl RawSite {
    fn read(self) -> Result<Site, String> {
        let mut knobs = Knobs { site: self.name.clone(), ..Knobs::default() };
        let raw = self.knobs;
        fn put<T>(to: &mut T, from: Option<T>) {
            if let Some(from) = from {
                *to = from;
            }
        }
        fn ms(from: Option<Span>) -> Result<Option<u64>, String> {
            let whole =
                |span: Span| u64::try_from(span.0.as_millis()).map_err(|_| "a knob is too long".to_string());
            from.map(whole).transpose()
        }
        put(&mut knobs.destination, raw.destination);
        put(&mut knobs.rpc_timeout_ms, ms(raw.rpc_timeout)?);
        put(&mut knobs.fresh_ms, ms(raw.fresh)?);
        put(&mut knobs.part_size, raw.part_size.map(|size| size.0));
        put(&mut knobs.parts_in_flight, raw.parts_in_flight);
        match raw.keep_edge {
            None => {}
            Some(Keep::Forever) => knobs.keep_edge_ms = None,
            Some(Keep::For(span)) => knobs.keep_edge_ms = ms(Some(span))?,
        }
        put(&mut knobs.scan_every_ms, ms(raw.scan_every)?);
        put(&mut knobs.batch, raw.batch);
        put(&mut knobs.request_again_ms, ms(raw.request_again)?);
        put(&mut knobs.builtin.auto_scan, raw.auto_scan);
        put(&mut knobs.auto_approve, raw.auto_approve);
        put(&mut knobs.builtin.retry_base_ms, ms(raw.retry_base)?);
        put(&mut knobs.builtin.retry_cap_ms, ms(raw.retry_cap)?);
        put(&mut knobs.builtin.retry_jitter_ms, ms(raw.retry_jitter)?);
        put(&mut knobs.builtin.attempts, raw.attempts);
        put(&mut knobs.builtin.uploads, raw.uploads);
        knobs.default_module = raw.default_module.unwrap_or(false).then(|| super::ModuleSpec::DEFAULT.hash());
        put(&mut knobs.policy_faults, raw.policy_faults);
        put(&mut knobs.policy_window_ms, ms(raw.policy_window)?);
        put(&mut knobs.probation_ms, ms(raw.probation)?);
        put(&mut knobs.patience_ms, ms(raw.patience)?);
        put(&mut knobs.grace_ms, ms(raw.grace)?);
        put(&mut knobs.settle_ms, ms(raw.settle)?);
        put(&mut knobs.contest_pause_ms, ms(raw.contest_pause)?);
        if let Some(size) = raw.bytes_per_second {
            knobs.builtin.bytes_per_second = Some(size.0);
        }
        Ok(Site {
            name: self.name,
            knobs,
            flavour: self.flavour.map_or(super::Flavour::Full, |one| one.0),
            flush: self.flush.map_or(Duration::from_millis(2), |span| span.0),
            cloud_latency: self.cloud_latency.map_or(Duration::from_millis(20), |span| span.0),
            cloud_speed: self.cloud_speed.map_or(20 << 20, |size| size.0),
            policy: self.policy.map_or(super::Manner::Builtin, |one| one.0),
        })
    }
}

impl RawDevice {
    /// One device, or `count` of them, numbered from 1.
    fn read(self, names: &Names<'_>) -> Result<Vec<DeviceSpec>, String> {
        let one = DeviceSpec {
            id: self.id,
            site: match self.site {
                Some(name) => names.site(&name)?,
                None => names.only_site()?,
            },
            firmware: self.firmware.map_or(super::Firmware::New, |one| one.0),
            latency: self.latency.map_or(Duration::from_millis(5), |span| span.0),
            speed: self.speed.map_or(20 << 20, |size| size.0),
        };
        match self.count {
            None => Ok(vec![one]),
            Some(count) if count > DEVICES_MAX => Err(format!("count must be at most {DEVICES_MAX}")),
            Some(count) => {
                Ok((1..=count).map(|n| DeviceSpec { id: format!("{}{n}", one.id), ..one.clone() }).collect())
            }
        }
    }
}

/// Most devices of one line: what one site can have connected.
const DEVICES_MAX: u32 = 4096;

/// A duration in the file.
#[derive(Deserialize)]
#[serde(try_from = "String")]
struct Span(Duration);

impl TryFrom<String> for Span {
    type Error = String;

    fn try_from(text: String) -> Result<Span, String> {
        crate::time::parse(&text).map(Span)
    }
}

/// A size in the file.
#[derive(Deserialize)]
#[serde(try_from = "String")]
struct Size(u64);

impl TryFrom<String> for Size {
    type Error = String;

    fn try_from(text: String) -> Result<Size, String> {
        words::bytes(&text).map(Size)
    }
}

/// How long the edge copy stays, in the file.
#[derive(Deserialize)]
#[serde(try_from = "String")]
enum Keep {
    Forever,
    For(Span),
}

impl TryFrom<String> for Keep {
    type Error = String;

    fn try_from(text: String) -> Result<Keep, String> {
        if text == "forever" { Ok(Keep::Forever) } else { Span::try_from(text).map(Keep::For) }
    }
}

/// A seed in the file: a number, or a text if it is too large for a number of TOML.
#[derive(Deserialize)]
#[serde(try_from = "toml::Value")]
struct Seed(u64);

impl TryFrom<toml::Value> for Seed {
    type Error = String;

    fn try_from(value: toml::Value) -> Result<Seed, String> {
        let seed = match &value {
            toml::Value::Integer(n) => u64::try_from(*n).ok(),
            toml::Value::String(text) => text.parse().ok(),
            _ => None,
        };
        seed.map(Seed).ok_or_else(|| format!("seed = {value} must be a whole number from 0 on"))
    }
}

/// A planted bug in the file.
#[derive(Deserialize)]
#[serde(try_from = "String")]
struct Planted(Bug);

impl TryFrom<String> for Planted {
    type Error = String;

    fn try_from(id: String) -> Result<Planted, String> {
        Bug::from_id(&id)
            .map(Planted)
            .ok_or_else(|| format!("there is no bug {id:?}; `tidegate-sim list` names all"))
    }
}

/// One of the words of a type in the file.
#[derive(Deserialize)]
#[serde(try_from = "String", bound = "T: Word")]
struct OneOf<T>(T);

impl<T: Word> TryFrom<String> for OneOf<T> {
    type Error = String;

    fn try_from(word: String) -> Result<OneOf<T>, String> {
        T::from_word(&word).map(OneOf).map_err(|why| format!("{word:?} {why}"))
    }
}

#[cfg(test)]
mod tests;
