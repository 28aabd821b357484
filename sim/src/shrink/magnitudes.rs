//! The numbers of a scenario and what each may become when it gets plainer. Knows where they stand and how low they may
//! go; tries nothing.

use std::time::Duration;

use tidegate_core::knobs::Knobs;

use crate::scenario::{Act, Fault, Firmware, Flavour, Keep, Lasts, Recording, Scenario, When};

/// A recording of nothing much.
const BYTES_PLAIN: u64 = 1 << 10;
/// Long enough that a begin and a finish are two moments.
const LASTS_PLAIN: Duration = Duration::from_secs(1);
/// What a switch in the same room takes.
const LATENCY_PLAIN: Duration = Duration::from_millis(1);
/// Fast enough that no transfer is long.
const SPEED_PLAIN: u64 = 100 << 20;

/// Without a pause.
pub(super) fn unpaused(recording: &mut Recording) {
    recording.pause = false;
}

/// With the sidecar that recorders write.
pub(super) fn with_sidecar(recording: &mut Recording) {
    recording.bare = false;
}

/// Short, and of few bytes.
pub(super) fn small(recording: &mut Recording) {
    recording.bytes = recording.bytes.min(BYTES_PLAIN);
    recording.lasts = recording.lasts.min(LASTS_PLAIN);
}

/// Makes one property of the site, device or fault with an index what it is when nobody chose it; nothing if there is none.
type Plain = fn(&mut Scenario, usize);

/// Properties that get plain at once instead of lower bit by bit.
pub(super) const PLAIN: &[Plain] = &[
    |s, i| site(s, i, |site| site.knobs = plain_knobs(&site.knobs)),
    |s, i| knobs(s, i, |k, plain| k.rpc_timeout_ms = plain.rpc_timeout_ms),
    |s, i| knobs(s, i, |k, plain| k.fresh_ms = plain.fresh_ms),
    |s, i| knobs(s, i, |k, plain| k.part_size = plain.part_size),
    |s, i| knobs(s, i, |k, plain| k.parts_in_flight = plain.parts_in_flight),
    |s, i| knobs(s, i, |k, plain| k.keep_edge_ms = plain.keep_edge_ms),
    |s, i| knobs(s, i, |k, plain| k.scan_every_ms = plain.scan_every_ms),
    |s, i| knobs(s, i, |k, plain| k.batch = plain.batch),
    |s, i| knobs(s, i, |k, plain| k.builtin = plain.builtin),
    |s, i| knobs(s, i, |k, plain| k.auto_approve = plain.auto_approve),
    |s, i| knobs(s, i, |k, plain| k.request_again_ms = plain.request_again_ms),
    |s, i| knobs(s, i, |k, plain| k.default_module = plain.default_module),
    |s, i| knobs(s, i, |k, plain| k.policy_faults = plain.policy_faults),
    |s, i| knobs(s, i, |k, plain| k.policy_window_ms = plain.policy_window_ms),
    |s, i| knobs(s, i, |k, plain| k.probation_ms = plain.probation_ms),
    |s, i| knobs(s, i, |k, plain| k.patience_ms = plain.patience_ms),
    |s, i| site(s, i, |site| site.flavour = Flavour::Full),
    |s, i| site(s, i, |site| site.policy = crate::scenario::Manner::Builtin),
    |s, i| site(s, i, |site| site.flush = LATENCY_PLAIN),
    |s, i| site(s, i, |site| site.cloud_latency = LATENCY_PLAIN),
    |s, i| site(s, i, |site| site.cloud_speed = SPEED_PLAIN),
    |s, i| device(s, i, |device| device.firmware = Firmware::New),
    |s, i| device(s, i, |device| device.latency = LATENCY_PLAIN),
    |s, i| device(s, i, |device| device.speed = SPEED_PLAIN),
    |s, i| fault(s, i, keep_nothing),
];

fn site(scenario: &mut Scenario, index: usize, change: fn(&mut crate::scenario::Site)) {
    if let Some(site) = scenario.sites.get_mut(index) {
        change(site);
    }
}

fn device(scenario: &mut Scenario, index: usize, change: fn(&mut crate::scenario::DeviceSpec)) {
    if let Some(device) = scenario.devices.get_mut(index) {
        change(device);
    }
}

fn fault(scenario: &mut Scenario, index: usize, change: fn(&mut Fault)) {
    if let Some(spec) = scenario.faults.get_mut(index) {
        change(&mut spec.fault);
    }
}

fn knobs(scenario: &mut Scenario, index: usize, change: fn(&mut Knobs, Knobs)) {
    if let Some(site) = scenario.sites.get_mut(index) {
        let plain = plain_knobs(&site.knobs);
        change(&mut site.knobs, plain);
    }
}

/// The defaults, at the same site with the same cloud: without a cloud it would be another scenario.
fn plain_knobs(knobs: &Knobs) -> Knobs {
    Knobs {
        site: knobs.site.clone(),
        public_url: knobs.public_url.clone(),
        destination: knobs.destination,
        ..Knobs::default()
    }
}

fn keep_nothing(fault: &mut Fault) {
    if let Fault::Kill { keep, .. } | Fault::PowerLoss { keep, .. } = fault {
        *keep = Keep::Nothing;
    }
}

/// One number: durations in milliseconds, and the least it may become.
enum Number<'a> {
    Time(&'a mut Duration, u64),
    Long(&'a mut u64, u64),
    Short(&'a mut u32, u64),
    /// How far from zero; the sign stays.
    Signed(&'a mut i64, u64),
}

impl Number<'_> {
    fn read(&self) -> (u64, u64) {
        match self {
            Number::Time(d, least) => (u64::try_from(d.as_millis()).unwrap_or(u64::MAX), *least),
            Number::Long(n, least) => (**n, *least),
            Number::Short(n, least) => (u64::from(**n), *least),
            Number::Signed(n, least) => (n.unsigned_abs(), *least),
        }
    }

    fn write(self, value: u64) {
        match self {
            Number::Time(d, _) => *d = Duration::from_millis(value),
            Number::Long(n, _) => *n = value,
            Number::Short(n, _) => *n = u32::try_from(value).unwrap_or(u32::MAX),
            Number::Signed(n, _) => {
                *n = i64::try_from(value).unwrap_or(i64::MAX) * n.signum();
            }
        }
    }
}

/// How many numbers there are. Stays the same when one is written.
pub(super) fn count(scenario: &mut Scenario) -> usize {
    let mut count = 0;
    visit(scenario, &mut |_| count += 1);
    count
}

/// A number and the least it may become. A number that is at or below its least reads as the least.
pub(super) fn read(scenario: &mut Scenario, index: usize) -> (u64, u64) {
    let (mut at, mut found) = (0, (0, 0));
    visit(scenario, &mut |number| {
        if at == index {
            found = number.read();
        }
        at += 1;
    });
    (found.0.max(found.1), found.1)
}

/// Writes a number; one that is lower already stays.
pub(super) fn write(scenario: &mut Scenario, index: usize, value: u64) {
    let mut at = 0;
    visit(scenario, &mut |number| {
        if at == index && number.read().0 > value {
            number.write(value);
        }
        at += 1;
    });
}

/// Down to something a person would have written: large ones keep their three leading digits.
pub(super) fn round(value: u64) -> u64 {
    let mut unit = 1;
    while value / unit >= 1000 {
        unit *= 10;
    }
    value / unit * unit
}

/// Every number of a scenario, in an order that does not depend on their values.
fn visit(scenario: &mut Scenario, see: &mut dyn FnMut(Number<'_>)) {
    for spec in &mut scenario.faults {
        match &mut spec.when {
            When::At(at) => see(Number::Time(at, 0)),
            When::Commit { n, .. } | When::Object { n, .. } | When::Policy { n, .. } => {
                see(Number::Short(n, 1));
            }
        }
        if let (Lasts::For(d), false) = (&mut spec.lasts, spec.fault.is_momentary()) {
            see(Number::Time(d, 1));
        }
        visit_fault(&mut spec.fault, see);
    }
    for step in &mut scenario.steps {
        see(Number::Time(&mut step.at, 0));
        match &mut step.act {
            Act::Record(recording) => {
                see(Number::Long(&mut recording.bytes, 1));
                see(Number::Time(&mut recording.lasts, 1));
            }
            Act::Refresh { max_age, .. } => see(Number::Time(max_age, 0)),
            Act::Create { .. }
            | Act::Command { .. }
            | Act::Cancel { .. }
            | Act::Judge { .. }
            | Act::Sync { .. }
            | Act::Restart { .. }
            | Act::StopRecorder { .. }
            | Act::RestartUploader { .. }
            | Act::Local { .. }
            | Act::Resolve { .. }
            | Act::Policy { .. } => {}
        }
    }
    for device in &mut scenario.devices {
        see(Number::Time(&mut device.latency, 1));
    }
    for site in &mut scenario.sites {
        see(Number::Time(&mut site.flush, 1));
        see(Number::Time(&mut site.cloud_latency, 1));
    }
    // Last, since nothing may begin after the chaos is over: what was moved forward makes room.
    let last = last_beginning(scenario);
    see(Number::Time(&mut scenario.chaos, last));
    see(Number::Time(&mut scenario.settle, 0));
}

fn visit_fault(fault: &mut Fault, see: &mut dyn FnMut(Number<'_>)) {
    match fault {
        Fault::Slow { by, .. } | Fault::DiskSlow { by, .. } => see(Number::Time(by, 1)),
        Fault::Replay { count, .. } => see(Number::Short(count, 1)),
        Fault::Kill { down, .. } | Fault::PowerLoss { down, .. } | Fault::DiskFails { down, .. } => {
            see(Number::Time(down, 0));
        }
        Fault::SwapStorm { every, .. } => see(Number::Time(every, 10)),
        Fault::HostSlow { by, permille, .. } => {
            see(Number::Time(by, 0));
            see(Number::Short(permille, 0));
        }
        Fault::Step { by_ms, .. } => see(Number::Signed(by_ms, 1)),
        Fault::Drift { ppm, .. } => see(Number::Signed(ppm, 1)),
        Fault::Throttle { permille, .. }
        | Fault::Broken { permille, .. }
        | Fault::Misrouted { permille, .. }
        | Fault::LoseAnswers { permille, .. }
        | Fault::LoseRequests { permille, .. } => see(Number::Short(permille, 1)),
        Fault::Hold { .. }
        | Fault::Cut { .. }
        | Fault::Reset { .. }
        | Fault::Refuse { .. }
        | Fault::Pause { .. }
        | Fault::Outage { .. }
        | Fault::Expired { .. }
        | Fault::Skewed { .. }
        | Fault::Lifecycle { .. }
        | Fault::Overwrite { .. }
        | Fault::Copy { .. }
        | Fault::Delete { .. }
        | Fault::PowerOff { .. }
        | Fault::Crash { .. }
        | Fault::Twin { .. }
        | Fault::Sulk { .. }
        | Fault::LoseCallbacks { .. }
        | Fault::Lie { .. }
        | Fault::Install { .. }
        | Fault::Rot { .. }
        | Fault::Surroundings { .. } => {}
    }
}

/// When the last step or fault begins, in whole milliseconds, rounded up.
fn last_beginning(scenario: &Scenario) -> u64 {
    let faults = scenario.faults.iter().filter_map(|spec| match spec.when {
        When::At(at) => Some(at),
        When::Commit { .. } | When::Object { .. } | When::Policy { .. } => None,
    });
    let last = scenario.steps.iter().map(|step| step.at).chain(faults).max().unwrap_or_default();
    u64::try_from(last.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}
