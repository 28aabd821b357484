//! The one form of a scenario file: what is at its default is left out, one line per site, device, step and fault.

use std::fmt::Write;
use std::time::Duration;

use tidegate_core::knobs::Knobs;
use tidegate_core::policy::{Known, Slot};

use super::words::{Word, signed, size};
use crate::scenario::{
    Act, DeviceSpec, Fault, FaultSpec, Lasts, Manner, Path, Recording, Scenario, Site, Step, Store, Sync,
    Way, When,
};
use crate::time;

/// Writes a scenario as [`super::parse`] reads it, in order of time.
#[must_use]
pub fn write(scenario: &Scenario) -> String {
    let mut scenario = scenario.clone();
    scenario.sort();
    let mut out = String::new();
    let mut head = |name: &str, value: String| {
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{name} = {value}");
    };
    head("name", quoted(&scenario.name));
    if !scenario.about.is_empty() {
        head("about", toml::Value::from(scenario.about.clone()).to_string());
    }
    head(
        "seed",
        i64::try_from(scenario.seed).map_or_else(|_| quoted(&scenario.seed.to_string()), |n| n.to_string()),
    );
    if let Some(bug) = scenario.bug {
        head("bug", quoted(bug.id()));
    }
    if let Some(expect) = &scenario.expect {
        head("expect", quoted(expect));
    }
    head("chaos", quoted(&time::text(scenario.chaos)));
    head("settle", quoted(&time::text(scenario.settle)));
    let says = Says { scenario: &scenario };
    list(&mut out, "sites", scenario.sites.iter().map(site));
    list(&mut out, "devices", scenario.devices.iter().map(|one| says.device_line(one)));
    list(&mut out, "steps", scenario.steps.iter().map(|one| says.step(one)));
    list(&mut out, "faults", scenario.faults.iter().map(|one| says.fault(one)));
    out
}

fn list(out: &mut String, name: &str, lines: impl ExactSizeIterator<Item = Fields>) {
    if lines.len() == 0 {
        return;
    }
    let _ = writeln!(out, "\n{name} = [");
    for line in lines {
        let _ = writeln!(out, "    {},", line.inline());
    }
    let _ = writeln!(out, "]");
}

/// A text in quotes. Ours hold letters, digits and marks that need no escape; anything else gets TOML's own form.
fn quoted(text: &str) -> String {
    if text.chars().all(|c| c != '"' && c != '\\' && !c.is_control()) {
        format!("\"{text}\"")
    } else {
        toml::Value::from(text).to_string()
    }
}

/// Fields of an inline table, in order.
#[derive(Default)]
struct Fields(Vec<String>);

impl Fields {
    fn raw(mut self, name: &str, value: impl std::fmt::Display) -> Fields {
        self.0.push(format!("{name} = {value}"));
        self
    }

    fn text(self, name: &str, value: &str) -> Fields {
        self.raw(name, quoted(value))
    }

    fn span(self, name: &str, value: Duration) -> Fields {
        self.text(name, &time::text(value))
    }

    fn word(self, name: &str, value: impl Word) -> Fields {
        self.text(name, value.word())
    }

    fn unless(self, same: bool, add: impl FnOnce(Fields) -> Fields) -> Fields {
        if same { self } else { add(self) }
    }

    fn inline(&self) -> String {
        format!("{{ {} }}", self.0.join(", "))
    }
}

fn site(site: &Site) -> Fields {
    let knobs = knobs(&site.knobs);
    Fields::default()
        .text("name", &site.name)
        .word("flavour", site.flavour)
        .span("flush", site.flush)
        .span("cloud_latency", site.cloud_latency)
        .text("cloud_speed", &size(site.cloud_speed))
        .unless(site.policy == Manner::Builtin, |line| line.word("policy", site.policy))
        .unless(knobs.0.is_empty(), |line| line.raw("knobs", knobs.inline()))
}

/// What differs from the defaults.
fn knobs(knobs: &Knobs) -> Fields {
    let default = Knobs::default();
    let ms = Duration::from_millis;
    let (own, built) = (&knobs.builtin, &default.builtin);
    Fields::default()
        .unless(knobs.destination == default.destination, |f| f.raw("destination", knobs.destination))
        .unless(knobs.rpc_timeout_ms == default.rpc_timeout_ms, |f| {
            f.span("rpc_timeout", ms(knobs.rpc_timeout_ms))
        })
        .unless(knobs.fresh_ms == default.fresh_ms, |f| f.span("fresh", ms(knobs.fresh_ms)))
        .unless(knobs.part_size == default.part_size, |f| f.text("part_size", &size(knobs.part_size)))
        .unless(knobs.parts_in_flight == default.parts_in_flight, |f| {
            f.raw("parts_in_flight", knobs.parts_in_flight)
        })
        .unless(knobs.keep_edge_ms == default.keep_edge_ms, |f| match knobs.keep_edge_ms {
            Some(keep) => f.span("keep_edge", ms(keep)),
            None => f.text("keep_edge", "forever"),
        })
        .unless(knobs.scan_every_ms == default.scan_every_ms, |f| {
            f.span("scan_every", ms(knobs.scan_every_ms))
        })
        .unless(knobs.batch == default.batch, |f| f.raw("batch", knobs.batch))
        .unless(knobs.request_again_ms == default.request_again_ms, |f| {
            f.span("request_again", ms(knobs.request_again_ms))
        })
        .unless(own.auto_scan == built.auto_scan, |f| f.raw("auto_scan", own.auto_scan))
        .unless(knobs.auto_approve == default.auto_approve, |f| f.raw("auto_approve", knobs.auto_approve))
        .unless(own.retry_base_ms == built.retry_base_ms, |f| f.span("retry_base", ms(own.retry_base_ms)))
        .unless(own.retry_cap_ms == built.retry_cap_ms, |f| f.span("retry_cap", ms(own.retry_cap_ms)))
        .unless(own.retry_jitter_ms == built.retry_jitter_ms, |f| {
            f.span("retry_jitter", ms(own.retry_jitter_ms))
        })
        .unless(own.attempts == built.attempts, |f| f.raw("attempts", own.attempts))
        .unless(own.uploads == built.uploads, |f| f.raw("uploads", own.uploads))
        .unless(own.bytes_per_second == built.bytes_per_second, |f| match own.bytes_per_second {
            Some(bytes) => f.text("bytes_per_second", &size(bytes)),
            None => f,
        })
        .unless(knobs.default_module.is_none(), |f| f.raw("default_module", true))
        .unless(knobs.policy_faults == default.policy_faults, |f| f.raw("policy_faults", knobs.policy_faults))
        .unless(knobs.policy_window_ms == default.policy_window_ms, |f| {
            f.span("policy_window", ms(knobs.policy_window_ms))
        })
        .unless(knobs.probation_ms == default.probation_ms, |f| f.span("probation", ms(knobs.probation_ms)))
        .unless(knobs.patience_ms == default.patience_ms, |f| f.span("patience", ms(knobs.patience_ms)))
        .unless(knobs.grace_ms == default.grace_ms, |f| f.span("grace", ms(knobs.grace_ms)))
        .unless(knobs.settle_ms == default.settle_ms, |f| f.span("settle", ms(knobs.settle_ms)))
        .unless(knobs.contest_pause_ms == default.contest_pause_ms, |f| {
            f.span("contest_pause", ms(knobs.contest_pause_ms))
        })
}

/// The hook that a line is about, unless it is the one that nobody has to name.
fn slotted(line: Fields, slot: Slot) -> Fields {
    line.unless(slot == Slot::Concurrency, |f| f.word("slot", slot))
}

/// Says indices as names.
struct Says<'a> {
    scenario: &'a Scenario,
}

impl Says<'_> {
    fn site(&self, n: usize) -> &str {
        self.scenario.sites.get(n).map_or("?", |site| &site.name)
    }

    fn device(&self, n: usize) -> &str {
        self.scenario.devices.get(n).map_or("?", |device| &device.id)
    }

    fn device_line(&self, device: &DeviceSpec) -> Fields {
        Fields::default()
            .text("id", &device.id)
            .text("site", self.site(device.site))
            .word("firmware", device.firmware)
            .span("latency", device.latency)
            .text("speed", &size(device.speed))
    }

    fn step(&self, step: &Step) -> Fields {
        let line = |act: &str| Fields::default().span("at", step.at).text("act", act);
        match &step.act {
            Act::Record(recording) => self.recording(line("record"), recording),
            Act::Create { device, task, config } => line("create")
                .text("device", self.device(*device))
                .text("task", task)
                .unless(!config, |f| f.raw("config", true)),
            Act::Command { device, action, task } => {
                let line = line("command").text("device", self.device(*device)).word("action", *action);
                if let Some(task) = task { line.text("task", task) } else { line }
            }
            Act::Cancel { task, site } => line("cancel").text("task", task).text("site", self.site(*site)),
            Act::Judge { task, site, approve } => line("judge")
                .text("task", task)
                .text("site", self.site(*site))
                .unless(*approve, |f| f.raw("approve", false)),
            Act::Sync { task, site } => {
                let line = line("sync").text("site", self.site(*site));
                if let Some(task) = task { line.text("task", task) } else { line }
            }
            Act::Refresh { device, max_age } => {
                line("refresh").text("device", self.device(*device)).span("max_age", *max_age)
            }
            Act::Restart { site, destination } => {
                line("restart").text("site", self.site(*site)).raw("destination", destination)
            }
            Act::StopRecorder { device } => line("stop-recorder").text("device", self.device(*device)),
            Act::RestartUploader { device } => line("restart-uploader").text("device", self.device(*device)),
            Act::Local { device, deed } => {
                line("local").text("device", self.device(*device)).word("deed", *deed)
            }
            Act::Resolve { device, how, task } => {
                let line = line("resolve").text("device", self.device(*device)).word("how", *how);
                if let Some(task) = task { line.text("task", task) } else { line }
            }
            Act::Policy { site, deed, slot, module } => {
                let line = slotted(line("policy").text("site", self.site(*site)).word("deed", *deed), *slot);
                if let Some(module) = module { line.text("module", &module.name()) } else { line }
            }
        }
    }

    fn recording(&self, line: Fields, recording: &Recording) -> Fields {
        line.text("device", self.device(recording.device))
            .text("task", &recording.task)
            .text("bytes", &size(recording.bytes))
            .span("lasts", recording.lasts)
            .unless(!recording.bare, |f| f.raw("bare", true))
            .unless(!recording.pause, |f| f.raw("pause", true))
            .unless(recording.approve, |f| f.raw("approve", false))
            .unless(recording.sync == Sync::Named, |f| f.word("sync", recording.sync))
    }

    fn fault(&self, spec: &FaultSpec) -> Fields {
        let line = match spec.when {
            When::At(at) => Fields::default().span("at", at),
            When::Commit { site, n, point } => {
                Fields::default().text("at", &format!("{} commit {n} {}", self.site(site), point.word()))
            }
            When::Object { site, n, point } => {
                Fields::default().text("at", &format!("{} object {n} {}", self.site(site), point.word()))
            }
            When::Policy { site, n, point } => {
                Fields::default().text("at", &format!("{} policy {n} {}", self.site(site), point.word()))
            }
        };
        let line = match spec.lasts {
            Lasts::For(Duration::ZERO) if spec.fault.is_momentary() => line,
            Lasts::For(span) => line.span("lasts", span),
            Lasts::Chaos => line.text("lasts", "chaos"),
            Lasts::Forever => line.text("lasts", "forever"),
        };
        self.what(line.text("fault", spec.fault.name().1), &spec.fault)
    }

    fn what(&self, line: Fields, fault: &Fault) -> Fields {
        match fault {
            Fault::Slow { path, by } => self.path(line, path).span("by", *by),
            Fault::Hold { path } | Fault::Reset { path } | Fault::Refuse { path } => self.path(line, path),
            Fault::Cut { path, way } => {
                self.path(line, path).unless(*way == Way::Both, |f| f.word("way", *way))
            }
            Fault::Replay { device, role, count } => {
                line.text("device", self.device(*device)).word("role", *role).raw("count", count)
            }
            Fault::Kill { site, keep, down } | Fault::PowerLoss { site, keep, down } => {
                line.text("site", self.site(*site)).word("keep", *keep).span("down", *down)
            }
            Fault::Pause { site } => line.text("site", self.site(*site)),
            Fault::Step { site, by_ms } => line.text("site", self.site(*site)).text("by", &signed(*by_ms)),
            Fault::Drift { site, ppm } => line.text("site", self.site(*site)).raw("ppm", ppm),
            Fault::DiskFails { site, down } => line.text("site", self.site(*site)).span("down", *down),
            Fault::DiskSlow { site, by } => line.text("site", self.site(*site)).span("by", *by),
            Fault::Outage { store }
            | Fault::Expired { store }
            | Fault::Skewed { store }
            | Fault::Lifecycle { store } => self.store(line, *store),
            Fault::Throttle { store, permille }
            | Fault::Broken { store, permille }
            | Fault::Misrouted { store, permille } => self.store(line, *store).raw("permille", permille),
            Fault::LoseAnswers { store, ops, permille } | Fault::LoseRequests { store, ops, permille } => {
                self.store(line, *store).word("ops", *ops).raw("permille", permille)
            }
            Fault::Overwrite { store, task }
            | Fault::Copy { store, task }
            | Fault::Delete { store, task } => self.store(line, *store).text("task", task),
            Fault::PowerOff { device } => line.text("device", self.device(*device)),
            Fault::Crash { device, role } | Fault::Sulk { device, role } => {
                line.text("device", self.device(*device)).word("role", *role)
            }
            Fault::Twin { device, role, same_address } => line
                .text("device", self.device(*device))
                .word("role", *role)
                .unless(!same_address, |f| f.raw("same_address", true)),
            Fault::LoseCallbacks { device } => line.text("device", self.device(*device)),
            Fault::Lie { device, lie } => line.text("device", self.device(*device)).word("lie", *lie),
            Fault::Install { site, slot, module } => {
                slotted(line.text("site", self.site(*site)), *slot).text("module", &module.name())
            }
            Fault::SwapStorm { site, slot, every } => {
                slotted(line.text("site", self.site(*site)), *slot).span("every", *every)
            }
            Fault::Rot { site, slot } => slotted(line.text("site", self.site(*site)), *slot),
            Fault::HostSlow { site, by, permille } => {
                line.text("site", self.site(*site)).span("by", *by).raw("permille", permille)
            }
            Fault::Surroundings { site, link, metered } => line
                .text("site", self.site(*site))
                .word("link", *link)
                .unless(*metered == Known::Unknown, |line| line.word("metered", *metered)),
        }
    }

    fn path(&self, line: Fields, path: &Path) -> Fields {
        match path {
            Path::Link(device, role) => {
                line.text("link", &format!("{}/{}", self.device(*device), role.word()))
            }
            Path::Device(device) => line.text("device", self.device(*device)),
            Path::Site(site) => line.text("site", self.site(*site)),
            Path::Cloud(site) => line.text("cloud", self.site(*site)),
        }
    }

    fn store(&self, line: Fields, store: Store) -> Fields {
        match store {
            Store::Edge(site) => line.text("edge", self.site(site)),
            Store::Cloud(site) => line.text("cloud", self.site(site)),
        }
    }
}
