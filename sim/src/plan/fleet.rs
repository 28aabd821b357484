//! Sites and devices of a plan: topology, speeds and settings, many of them at the edge of what is legal, because small
//! values are the cheapest way into rare states.

use std::time::Duration;

use tidegate_core::knobs::Knobs;

use super::policies::Theme;
use super::{DAY, HOUR, MINUTE, Pace, Shape, draw};
use crate::scenario::{DeviceSpec, Firmware, Flavour, Manner, Site};
use crate::stream::Stream;

/// The sites.
pub(super) fn sites(seed: u64, shape: &Shape, chaos: Duration) -> Vec<Site> {
    let mut chance = Stream::new(seed, "plan/sites", 0);
    let count = if shape.sites > 1 && chance.one_in(10) { 2 } else { 1 };
    // Retries that wait longer than any delay the core grants; at all sites, because the longest wait is everybody's.
    let days = shape.pace == Pace::Mixed && chance.one_in(48);
    let around = Around { shape: *shape, chaos, days };
    ["north", "south"].iter().take(count).enumerate().map(|(n, name)| site(seed, n, name, &around)).collect()
}

/// What all sites of a plan have in common.
#[derive(Clone, Copy)]
struct Around {
    shape: Shape,
    chaos: Duration,
    days: bool,
}

fn site(seed: u64, n: usize, name: &str, around: &Around) -> Site {
    let mut chance = Stream::new(seed, "plan/site", n as u64);
    let flavour = *chance.pick(&[Flavour::Full, Flavour::Composite, Flavour::Tags, Flavour::Opaque]);
    let flush = if chance.one_in(8) { (50, 400) } else { (1, 20) };
    let latency = if chance.one_in(6) { (200, 1_500) } else { (2, 80) };
    let speed = if chance.one_in(3) { (128 << 10, 2 << 20) } else { (2 << 20, 128 << 20) };
    let theme = Theme::draw(seed, &around.shape);
    let policy = match chance.below(16) {
        _ if around.shape.pace != Pace::Mixed || theme.is_some() => Manner::Builtin,
        0 => Manner::Hesitant,
        1 => Manner::Greedy,
        _ => Manner::Builtin,
    };
    let mut knobs = knobs(seed, n, name, around);
    if policy == Manner::Greedy && chance.one_in(2) {
        // Parts so large that one upload takes all the memory there may be.
        (knobs.part_size, knobs.parts_in_flight, knobs.builtin.uploads) = (512 << 20, 8, 1);
    }
    if let Some(theme) = theme {
        theme.knobs(seed, n, &mut knobs);
    }
    if super::devices::Quarrel::draw(seed, &around.shape).is_some() {
        super::devices::Quarrel::knobs(seed, n, &mut knobs);
    }
    Site {
        name: name.to_string(),
        knobs,
        flavour,
        flush: draw::span(&mut chance, flush.0, flush.1),
        cloud_latency: draw::scaled_span(&mut chance, latency.0, latency.1),
        cloud_speed: draw::scaled(&mut chance, speed.0, speed.1) & !0xfff,
        policy,
    }
}

fn knobs(seed: u64, n: usize, name: &str, around: &Around) -> Knobs {
    let Around { shape, chaos, days } = *around;
    let mut chance = Stream::new(seed, "plan/knobs", n as u64);
    let mut knobs = Knobs { site: name.to_string(), destination: !chance.one_in(20), ..Knobs::default() };
    knobs.rpc_timeout_ms = *chance.pick(&[200, 500, 1_000, 2_000, 5_000, 15_000, 15_000, 60_000]);
    knobs.fresh_ms = *chance.pick(&[0, 50, 300, 1_000, 1_000, 1_000, 10_000]);
    knobs.part_size = *chance.pick(&[5 << 20, 5 << 20, 5 << 20, (5 << 20) + 1, 6 << 20, 8 << 20]);
    knobs.parts_in_flight = *chance.pick(&[1, 2, 3, 3, 4, 8]);
    knobs.keep_edge_ms = match chance.below(8) {
        0 => None,
        1..=3 => Some(chance.between(1, 120) * 1_000),
        4 => Some(chance.between(1, 12) * HOUR / 4),
        _ => Some(0),
    };
    knobs.scan_every_ms = scan_every(&mut chance, chaos);
    knobs.batch = *chance.pick(&[1, 1, 2, 3, 100, 1_000]);
    knobs.request_again_ms = *chance.pick(&[5_000, 10_000, 30_000, 30_000, 120_000]);
    let built = &mut knobs.builtin;
    built.auto_scan = chance.one_in(2);
    built.attempts = *chance.pick(&[1, 2, 2, 3, 3, 4, 5, 5]);
    built.uploads = *chance.pick(&[1, 1, 2, 3]);
    (built.retry_base_ms, built.retry_cap_ms) = match chance.below(6) {
        _ if days => (30 * HOUR, 48 * HOUR),
        // What is delivered.
        0 => (built.retry_base_ms, built.retry_cap_ms),
        _ => {
            let base = draw::scaled(&mut chance, 100, 30_000);
            (base, base.max(draw::scaled(&mut chance, 1_000, 10 * MINUTE)))
        }
    };
    built.retry_jitter_ms = *chance.pick(&[0, 0, 100, built.retry_base_ms, built.retry_cap_ms]);
    built.bytes_per_second =
        if chance.one_in(4) { Some(draw::scaled(&mut chance, 256 << 10, 8 << 20) & !0xfff) } else { None };
    // Where there are days to wait, what is asked again and again is asked more rarely, or a run would be made of it.
    if days || chaos > Duration::from_millis(HOUR) {
        knobs.request_again_ms = knobs.request_again_ms.max(MINUTE);
    }
    if days {
        knobs.request_again_ms = 10 * MINUTE;
        knobs.scan_every_ms = knobs.scan_every_ms.max(10 * MINUTE);
    }
    knobs.auto_approve = chance.one_in(2);
    if shape.pace != Pace::Mixed {
        // A measurement says how fast the world is, not how slow a setting makes the site.
        knobs.destination = true;
        knobs.builtin.bytes_per_second = None;
    }
    knobs
}

/// As short as a run can bear: at most a few thousand questions, however long the world takes to come to rest.
fn scan_every(chance: &mut Stream, chaos: Duration) -> u64 {
    let whole = u64::try_from(chaos.as_millis()).unwrap_or(DAY) + 4 * HOUR;
    let least = (whole / 3_000).clamp(1_000, DAY);
    (least * *chance.pick(&[1, 1, 3, 10, 40])).min(DAY)
}

/// The devices.
pub(super) fn devices(seed: u64, shape: &Shape, sites: usize) -> Vec<DeviceSpec> {
    let mut chance = Stream::new(seed, "plan/devices", 0);
    let drawn = match shape.pace {
        Pace::Busy => shape.devices,
        Pace::Idle => draw::index(&mut chance, shape.devices) + 1,
        Pace::Mixed => *chance.pick(&[1, 1, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 5, 6]),
    };
    let count = drawn.clamp(1, shape.devices.max(1)).max(sites);
    let odd_names = chance.one_in(12);
    let mixed = chance.one_in(2);
    (0..count)
        .map(|n| {
            let mut chance = Stream::new(seed, "plan/device", n as u64);
            let latency = if chance.one_in(5) { (60, 600) } else { (1, 20) };
            let speed = if chance.one_in(3) { (256 << 10, 4 << 20) } else { (4 << 20, 100 << 20) };
            let firmware = [Firmware::Old, Firmware::Middle, Firmware::Middle, Firmware::New];
            DeviceSpec {
                id: if odd_names { odd_name(n) } else { format!("d{}", n + 1) },
                site: n % sites,
                firmware: if mixed { *chance.pick(&firmware) } else { Firmware::New },
                latency: draw::scaled_span(&mut chance, latency.0, latency.1),
                speed: draw::scaled(&mut chance, speed.0, speed.1) & !0xfff,
            }
        })
        .collect()
}

/// Legal names that somebody could take for something else: a prefix of another, a path, an attempt, a number; the
/// longest there is.
fn odd_name(n: usize) -> String {
    match n {
        0 => "-".to_string(),
        1 => "--".to_string(),
        2 => "d.2".to_string(),
        3 => "d".to_string(),
        4 => "x".repeat(tidegate_core::limits::ID_BYTES),
        _ => format!("{n}"),
    }
}
