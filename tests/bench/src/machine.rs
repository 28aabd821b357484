//! `core`: how many steps per second the core takes on the mixed script, what each kind of input costs, and what an idle
//! device costs in memory. The floor beside it is the least that anybody does with the same inputs: write and read them.

use std::collections::{BTreeMap, BTreeSet};
use std::hint::black_box;
use std::io;
use std::process::Command;
use std::time::Instant;

use tidegate_core::change::JournalEntry;
use tidegate_core::effect::Output;
use tidegate_core::id::{Boot, DeviceId, Role, Seq, SocketId};
use tidegate_core::input::{Demand, Input};
use tidegate_core::knobs::Knobs;
use tidegate_core::machine::{Machine, Rows};
use tidegate_core::policy::Builtin;
use tidegate_core::time::{Mono, Now, Wall};
use tidegate_core::wire::RecorderMessage;

use crate::Bench;
use crate::script::{self, Script};
use crate::table::{Table, median, number, quantile, spread};
use crate::upload::process;

/// What `core` can be told.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Devices of the script.
    #[arg(long, default_value_t = 64)]
    devices: usize,
    /// Recordings that each of them makes.
    #[arg(long, default_value_t = 20)]
    recordings: usize,
    /// Devices that are held idle for the figure of memory; at most 4096 of one role may be connected.
    #[arg(long, default_value_t = 4000, value_parser = clap::value_parser!(u32).range(1..=4096))]
    idle: u32,
}

impl Default for Options {
    fn default() -> Options {
        Options { devices: 64, recordings: 20, idle: 4000 }
    }
}

/// Seconds of every round of one measure.
#[derive(Debug, Default)]
struct Rounds(Vec<f64>);

/// Measures and tells.
pub fn run(bench: &Bench, options: &Options, tell: &mut dyn FnMut(Table)) -> io::Result<()> {
    let script = script::live(options.devices, options.recordings, 7);
    let entries = entries(&script);
    let (mut floor, mut steps, mut journal) = (Rounds::default(), Rounds::default(), Rounds::default());
    let mut kinds: BTreeMap<&'static str, Kind> = BTreeMap::new();
    // One round that nobody counts: caches and branch predictors are warm for all alike.
    for round in 0..=bench.rounds {
        let taken =
            [timed(|| write_and_read(&script)), timed(|| step_all(&script)), timed(|| write(&entries))];
        if round > 0 {
            floor.0.push(taken[0]);
            steps.0.push(taken[1]);
            journal.0.push(taken[2]);
            step_each(&script, &mut kinds);
        }
    }
    tell(totals(&script, &floor, &steps, &journal));
    tell(by_kind(kinds));
    tell(memory(options.idle)?);
    Ok(())
}

/// CPU seconds of some work on this thread: what else runs on the machine is left out as well as can be.
fn timed(work: impl FnOnce()) -> f64 {
    let (begun, before) = (Instant::now(), process::thread_cpu());
    work();
    match (before, process::thread_cpu()) {
        (Some(before), Some(after)) => after - before,
        _ => begun.elapsed().as_secs_f64(),
    }
}

/// The whole script as the driver steps it, without a disk.
fn step_all(script: &Script) {
    let mut machine = Machine::new();
    let mut policies = script.policies.clone();
    let (mut out, mut wanted, nothing) = (Output::default(), BTreeSet::new(), Rows::new());
    for step in &script.steps {
        machine.wants(step.now, &step.input, &nothing, &mut wanted);
        wanted.clear();
        out.clear();
        machine.step(step.now, &step.input, &step.cold, &mut policies, &mut out);
        black_box(&out);
    }
}

fn write_and_read(script: &Script) {
    for step in &script.steps {
        let bytes = minicbor::to_vec(&step.input).expect("writing to a vector cannot fail");
        let input: Input = minicbor::decode(&bytes).expect("what was written can be read");
        black_box(input);
    }
}

fn write(entries: &[JournalEntry]) {
    for entry in entries {
        black_box(minicbor::to_vec(entry).expect("writing to a vector cannot fail"));
    }
}

/// The journal entries of the script, as the driver would make them.
fn entries(script: &Script) -> Vec<JournalEntry> {
    let mut machine = Machine::new();
    let mut policies = script.policies.clone();
    let mut out = Output::default();
    let mut entries = Vec::with_capacity(script.steps.len());
    for step in &script.steps {
        out.clear();
        machine.step(step.now, &step.input, &step.cold, &mut policies, &mut out);
        entries.push(JournalEntry {
            seq: Seq(entries.len() as u64 + 1),
            now: step.now,
            boot: machine.boot(),
            input: step.input.clone(),
            policies: machine.active_policy(),
            rulings: std::mem::take(&mut out.rulings),
            cold: step.cold.iter().map(|(key, row)| (key.clone(), row.clone())).collect(),
            changes: std::mem::take(&mut out.changes),
        });
    }
    entries
}

#[derive(Debug, Default)]
struct Kind {
    ns: Vec<f64>,
    changed: usize,
}

/// As [`step_all`], with a look at the clock around every step.
fn step_each(script: &Script, kinds: &mut BTreeMap<&'static str, Kind>) {
    let look = look_ns();
    let mut machine = Machine::new();
    let mut policies = script.policies.clone();
    let (mut out, mut wanted, nothing) = (Output::default(), BTreeSet::new(), Rows::new());
    for step in &script.steps {
        out.clear();
        let begun = Instant::now();
        machine.wants(step.now, &step.input, &nothing, &mut wanted);
        wanted.clear();
        machine.step(step.now, &step.input, &step.cold, &mut policies, &mut out);
        let ns = begun.elapsed().as_nanos() as f64 - look;
        let kind = kinds.entry(step.input.name()).or_default();
        kind.ns.push(ns.max(0.0));
        kind.changed += usize::from(!out.changes.is_empty());
    }
}

/// What two looks at the clock cost.
fn look_ns() -> f64 {
    median((0..1000).map(|_| {
        let begun = Instant::now();
        black_box(begun.elapsed().as_nanos() as f64)
    }))
}

fn totals(script: &Script, floor: &Rounds, steps: &Rounds, journal: &Rounds) -> Table {
    let count = script.steps.len() as f64;
    let columns = ["what", "inputs per CPU second", "CPU ns per input", "all rounds", "ratio to the floor"];
    let mut table = Table::new("Core: steps of a mixed script, one thread", &columns);
    let ratio = |rounds: &Rounds| median(rounds.0.iter().zip(&floor.0).map(|(ours, floor)| ours / floor));
    for (what, rounds) in [
        ("floor: each input written to CBOR and read back", floor),
        ("steps: wants, step, changes, records, effects", steps),
        ("journal: each entry written to CBOR", journal),
    ] {
        let ns: Vec<f64> = rounds.0.iter().map(|seconds| seconds * 1e9 / count).collect();
        let middle = median(ns.iter().copied());
        table.row([
            what.into(),
            number(1e9 / middle, 0),
            number(middle, 0),
            spread(&ns, 0),
            number(ratio(rounds), 2),
        ]);
    }
    table.note(format!(
        "{} inputs: {} recordings from task to cloud, {} of them in the cloud at the end, {} operations of the store \
         answered with a fault or not at all. Ratios are taken round by round.",
        script.steps.len(),
        script.recordings,
        script.synced,
        script.faults
    ));
    table
}

fn by_kind(kinds: BTreeMap<&'static str, Kind>) -> Table {
    let columns =
        ["input", "share of inputs", "changes records", "p50 ns", "mean ns of the faster 99 %", "p99 ns"];
    let mut table = Table::new("Core: what each kind of input costs", &columns);
    let inputs: usize = kinds.values().map(|kind| kind.ns.len()).sum();
    for (name, kind) in kinds {
        let count = kind.ns.len() as f64;
        let p99 = quantile(kind.ns.iter().copied(), 0.99);
        let faster: Vec<f64> = kind.ns.iter().copied().filter(|ns| *ns <= p99).collect();
        table.row([
            name.into(),
            format!("{:.1} %", 100.0 * count / inputs as f64).into(),
            format!("{:.0} %", 100.0 * kind.changed as f64 / count).into(),
            number(quantile(kind.ns.iter().copied(), 0.5), 0),
            number(faster.iter().sum::<f64>() / faster.len() as f64, 0),
            number(p99, 0),
        ]);
    }
    table.note(
        "All rounds together, by the wall clock; the cost of looking at it is taken off each step. What is above p99 is \
         mostly the machine doing something else.",
    );
    table
}

fn memory(devices: u32) -> io::Result<Table> {
    let ran = Command::new(std::env::current_exe()?).args(["idle", &devices.to_string()]).output()?;
    let bytes: f64 = String::from_utf8_lossy(&ran.stdout).trim().parse().unwrap_or(f64::NAN);
    let mut table = Table::new("Core: memory of an idle device", &["what", "bytes"]);
    table.row(["both links admitted, its state confirmed".into(), number(bytes, 0)]);
    table.note(format!(
        "Growth of a fresh process's resident memory over {devices} devices, divided. In the core alone: sockets, \
         their buffers and their tasks come on top."
    ));
    Ok(table)
}

/// Bytes of resident memory per device that so many idle ones cost this process.
pub fn idle(devices: u32) -> u64 {
    let knobs = Knobs::default();
    let mut policies = Builtin::new(knobs.builtin.clone());
    let (mut machine, mut out) = (Machine::new(), Output::default());
    let mut step = |machine: &mut Machine, input: &Input| {
        let now = Now { wall: Wall(1_790_000_000_000), mono: Mono(1) };
        out.clear();
        machine.step(now, input, &Rows::new(), &mut policies, &mut out);
        out.effects.drain(..).collect::<Vec<_>>()
    };
    step(&mut machine, &Input::Boot { boot: Boot(1), seed: 7, knobs });
    let before = resident();
    for n in 0..devices {
        let device = DeviceId::new(&format!("robot-{n:04}")).expect("a legal id");
        for (at, role) in [Role::Transfer, Role::Recorder].into_iter().enumerate() {
            let socket = SocketId(u64::from(n) * 2 + at as u64);
            let remote = "10.0.0.7".to_owned();
            let knock = Input::Knock { socket, device: device.clone(), role, remote, credential: None, port: None, demand: Demand::Nothing };
            for effect in step(&mut machine, &knock) {
                if let (tidegate_core::effect::Effect::Send { conn, frame }, Role::Recorder) = (effect, role)
                {
                    let asked: serde_json::Value = serde_json::from_str(&frame.text).unwrap_or_default();
                    let message = RecorderMessage::Response {
                        request_id: asked["request_id"].as_str().unwrap_or_default().to_owned(),
                        success: true,
                        message: None,
                        state: Some("idle".to_owned()),
                        task: None,
                        data: None,
                    };
                    step(&mut machine, &Input::Recorder { conn, message });
                }
            }
        }
    }
    let grown = resident().saturating_sub(before);
    black_box(&machine);
    grown / u64::from(devices)
}

fn resident() -> u64 {
    process::memory("self", "VmRSS").unwrap_or(0)
}
