//! What must be finished in the end, and what may stay unfinished because it is provably stuck. Reads the durable image,
//! the stores, the devices' own logs and what the site shows; never asks the core why.

use tidegate_core::effect::RecorderView;
use tidegate_core::outcome::{Budget, Fault};
use tidegate_core::row::{FinalWhy, JobState, ParkWhy, Row, TaskState};

use crate::device::{Deed, Device};
use crate::scenario;
use crate::store::Content;
use crate::watch::{Broken, Truth};

/// A world that is to be judged.
#[derive(Debug)]
pub struct Condition<'a> {
    /// The ground truth.
    pub truth: Truth<'a>,
    /// Why a site's way to its cloud, or one of its stores, is shut for good; `None` is open.
    pub denied: Vec<Option<&'static str>>,
    /// Whether a site's process runs.
    pub up: Vec<bool>,
    /// Whether a site has a cloud.
    pub destination: Vec<bool>,
    /// Why a device cannot reach its site, for good; `None` is that it can.
    pub cut_off: Vec<Option<&'static str>>,
    /// Each device's links as both sides know them, and what its site last showed of its recorder.
    pub links: Vec<Linked>,
}

/// A device's links.
#[derive(Clone, Debug, Default)]
pub struct Linked {
    /// The recorder's link is open at both ends.
    pub recorder: bool,
    /// The uploader's link is open at both ends.
    pub uploader: bool,
    /// What its site last showed of the recorder.
    pub view: Option<RecorderView>,
    /// No answer of the recorder can arrive before its site stops waiting for it.
    pub late: bool,
}

/// Something that is not finished.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfinished {
    /// Which property it is about.
    pub property: &'static str,
    /// What.
    pub what: String,
    /// Why it is stuck, if it provably is.
    pub stuck: Option<String>,
}

/// The verdict.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Judgement {
    /// What was left and is stuck for a reason, in words.
    pub stuck: Vec<String>,
    /// The first thing that was left for no reason.
    pub broken: Option<Broken>,
}

/// What could still be finished: nothing that is stuck.
#[must_use]
pub fn unfinished(condition: &Condition<'_>) -> Vec<Unfinished> {
    let mut all = everything(condition);
    all.retain(|one| one.stuck.is_none());
    all
}

/// Judges a world whose time is up.
#[must_use]
pub fn judge(condition: &Condition<'_>) -> Judgement {
    let mut found = Judgement::default();
    for one in everything(condition) {
        match one.stuck {
            Some(why) => found.stuck.push(format!("{}: {}: {why}", one.property, one.what)),
            None if found.broken.is_none() => {
                found.broken = Some(Broken { invariant: one.property, saw: one.what });
            }
            None => {}
        }
    }
    found
}

fn everything(condition: &Condition<'_>) -> Vec<Unfinished> {
    let mut all = Vec::new();
    for site in 0..condition.up.len() {
        if !condition.up[site] {
            let what = format!("site {} is down", condition.truth.scenario.sites[site].name);
            all.push(Unfinished { property: "L3", what, stuck: paused(condition, site) });
            continue;
        }
        jobs(condition, site, &mut all);
        tasks(condition, site, &mut all);
        claims(condition, site, &mut all);
        checks(condition, site, &mut all);
    }
    for device in 0..condition.links.len() {
        links(condition, device, &mut all);
    }
    all
}

fn paused(condition: &Condition<'_>, site: usize) -> Option<String> {
    let forever = |spec: &&scenario::FaultSpec| {
        spec.lasts == scenario::Lasts::Forever
            && matches!(spec.fault, scenario::Fault::Pause { site: s } if s == site)
    };
    let any = condition.truth.scenario.faults.iter().find(forever);
    any.map(|_| "its process stands still for good".to_string())
}

/// L1: every job ends, well or with a cause that no time heals. L3: none of an earlier life is left lying.
fn jobs(condition: &Condition<'_>, site: usize, all: &mut Vec<Unfinished>) {
    let tampered = weakened(condition, site);
    for row in condition.truth.images[site].values() {
        match row {
            Row::Job(row) => match &row.state {
                JobState::Completed { .. } => {}
                JobState::Failed { why, .. } => {
                    let healed = match why {
                        FinalWhy::Exhausted(fault)
                        | FinalWhy::GivenUp(fault)
                        | FinalWhy::SourceLost(fault) => fault.budget() != Budget::Data,
                        FinalWhy::Foreign | FinalWhy::Cancelled => false,
                    };
                    let what = format!("job {} failed for good: {why:?}", row.id);
                    if healed {
                        all.push(Unfinished { property: "L1", what, stuck: None });
                    } else if !tampered {
                        // Nobody changed any data in this world, so no attempt may end for the data's sake.
                        all.push(Unfinished { property: "L1", what, stuck: None });
                    }
                }
                JobState::Parked { why, .. } => {
                    let what = format!("job {} is parked: {why:?}", row.id);
                    let stuck = match why {
                        ParkWhy::NoDestination if !condition.destination[site] => {
                            Some("no cloud".to_string())
                        }
                        ParkWhy::NoDestination => None,
                        // Credentials wait for a person; the world's people come back for what they asked for.
                        ParkWhy::Fault(Fault::Auth | Fault::NoDestination) => {
                            let left = is_left(condition, site, row.episode);
                            condition.denied[site]
                                .map(String::from)
                                .or_else(|| left.then(|| "nobody comes back for it".to_string()))
                        }
                        // A policy may leave to people what no retry cures, and in this world nobody mends data.
                        ParkWhy::Policy => {
                            let of_data = |fault: &Fault| fault.budget() == Budget::Data;
                            let uncured = tampered && row.last_fault.as_ref().is_some_and(of_data);
                            uncured.then(|| "a policy left damaged data to people".to_string())
                        }
                        ParkWhy::Fault(_) | ParkWhy::Quarantined(_) => None,
                    };
                    all.push(Unfinished { property: "L1", what, stuck });
                }
                JobState::Pending { .. } | JobState::Claimed { .. } => {
                    let what = format!("job {} is {:?} after {} claims", row.id, row.state, row.claims);
                    let stuck = condition.denied[site].map(|why| format!("the cloud is {why}"));
                    let stuck =
                        stuck.or_else(|| (!condition.destination[site]).then(|| "no cloud".to_string()));
                    all.push(Unfinished { property: "L1", what, stuck });
                }
            },
            Row::Upload(row) if condition.denied[site].is_none() && condition.destination[site] => {
                let id = row.fence.job;
                let over = match condition.truth.images[site].get(&tidegate_core::row::Key::Job(id)) {
                    Some(Row::Job(job)) => job.state.is_final(),
                    _ => true,
                };
                if over {
                    let what = format!("the upload of job {id} is {:?} though the job is over", row.phase);
                    all.push(Unfinished { property: "L1", what, stuck: None });
                }
            }
            _ => {}
        }
    }
}

/// Whether data may have been damaged, removed or refused in this site's stores, so that attempts may end for its sake.
fn weakened(condition: &Condition<'_>, site: usize) -> bool {
    let of = |store: &scenario::Store| matches!(store, scenario::Store::Edge(s) | scenario::Store::Cloud(s) if *s == site);
    let liar = condition.truth.devices.iter().any(|device| device.spec.site == site && !device.honest);
    liar || condition.truth.scenario.faults.iter().any(|spec| match &spec.fault {
        scenario::Fault::Lifecycle { store }
        | scenario::Fault::Overwrite { store, .. }
        | scenario::Fault::Copy { store, .. }
        | scenario::Fault::Misrouted { store, .. }
        | scenario::Fault::Delete { store, .. } => of(store),
        scenario::Fault::Outage { store: store @ scenario::Store::Edge(_) }
        | scenario::Fault::Expired { store: store @ scenario::Store::Edge(_) }
        | scenario::Fault::Skewed { store: store @ scenario::Store::Edge(_) }
        | scenario::Fault::Throttle { store: store @ scenario::Store::Edge(_), .. }
        | scenario::Fault::Broken { store: store @ scenario::Store::Edge(_), .. } => of(store),
        _ => false,
    })
}

/// Whether nobody comes back for an episode: its recording was left to auto-scan, or belongs to nobody's errand.
fn is_left(condition: &Condition<'_>, site: usize, episode: tidegate_core::id::EpisodeId) -> bool {
    let key = tidegate_core::row::Key::Episode(episode);
    let Some(Row::Episode(row)) = condition.truth.images[site].get(&key) else { return true };
    !condition.truth.scenario.steps.iter().any(|step| match &step.act {
        scenario::Act::Record(recording) => {
            recording.task == row.task.as_str() && recording.sync != scenario::Sync::Left
        }
        _ => false,
    })
}

/// L1 for what comes in: a recording that the site waits for and the device holds arrives and is acknowledged.
fn tasks(condition: &Condition<'_>, site: usize, all: &mut Vec<Unfinished>) {
    for row in condition.truth.images[site].values() {
        let Row::Task(row) = row else { continue };
        if row.state.is_final() {
            continue;
        }
        let Some(n) = condition.truth.devices.iter().position(|device| device.id == row.device) else {
            continue;
        };
        let device = &condition.truth.devices[n];
        let what = format!("task {} waits for its recording from {}", row.id, row.device);
        let wire = row.wire.as_str();
        let holds = device.held().any(|(held, _)| held == wire);
        if row.state != TaskState::Uploading {
            // The word of its end was lost, and nobody says it twice: the site finds it out from the device.
            if holds {
                let linked = &condition.links[n];
                let idle = linked.view.as_ref().is_some_and(|view| view.synced && view.state == "idle");
                let stuck = if let Some(why) = condition.cut_off[n] {
                    Some(format!("the device is {why}"))
                } else if !device.honest {
                    Some("the device does not tell the truth".to_string())
                } else if !linked.recorder || !linked.uploader || !idle {
                    Some(format!("its device is not there, or not idle; it counts as {}", row.state.name()))
                } else if condition.denied[site].is_some() {
                    Some("a store is denied".to_string())
                } else {
                    None
                };
                all.push(Unfinished { property: "L7", what, stuck });
            }
            continue;
        }
        let gave_up =
            device.log.iter().any(|(_, deed)| matches!(deed, Deed::GaveUp { wire: w } if w == wire));
        let stuck = if let Some(why) = condition.cut_off[n] {
            Some(format!("the device is {why}"))
        } else if !device.honest {
            Some("the device does not tell the truth".to_string())
        } else if gave_up {
            Some("the device gave up".to_string())
        } else if !holds {
            Some("the device has no such recording".to_string())
        } else if condition.denied[site].is_some() {
            Some("a store is denied".to_string())
        } else if tampered(condition, site, device, wire) {
            Some("somebody changed what the device stored, and it stores nothing twice".to_string())
        } else {
            None
        };
        all.push(Unfinished { property: "L1", what, stuck });
    }
}

/// L7: no record claims of a device what it does not do, and what it holds of any task arrives.
fn claims(condition: &Condition<'_>, site: usize, all: &mut Vec<Unfinished>) {
    let rows = || {
        condition.truth.images[site]
            .values()
            .filter_map(|row| if let Row::Task(row) = row { Some(row) } else { None })
    };
    for (n, device) in condition.truth.devices.iter().enumerate().filter(|(_, it)| it.spec.site == site) {
        let linked = &condition.links[n];
        let untrue = (!device.honest).then(|| "the device does not tell the truth".to_string());
        let shown = linked.view.as_ref().filter(|view| linked.recorder && view.synced);
        for row in rows().filter(|row| row.device == device.id) {
            let claimed = match row.state {
                TaskState::Ready | TaskState::InProgress => true,
                TaskState::Pending => row.begun,
                _ => false,
            };
            let what = format!("task {} is {} as {}", row.id, row.state.name(), row.wire);
            if claimed && !linked.recorder {
                let what = format!("{what}, and {} is away", device.id);
                // A second program with its id may hold its place for ever: to the site it is there.
                let held = linked.view.as_ref().is_some_and(|view| view.connected);
                all.push(Unfinished { property: "L7", what, stuck: untrue.clone().filter(|_| held) });
            } else if claimed && shown.is_some_and(|view| view.state == "idle") {
                let what = format!("{what}, and {} is idle", device.id);
                all.push(Unfinished { property: "L7", what, stuck: untrue.clone() });
            }
            let earlier = |wire: &str| {
                let mut all = row.earlier.iter().flatten();
                all.any(|entry| {
                    tidegate_core::id::WireId::of_attempt(&row.id, entry.attempt).as_str() == wire
                })
            };
            let records = shown.filter(|view| view.state == "recording" || view.state == "paused");
            let open = matches!(row.state, TaskState::Pending | TaskState::Ready) && !row.begun;
            if open && records.is_some_and(|view| earlier(&view.task)) {
                let what = format!("{what}, and {} records an attempt before it", device.id);
                all.push(Unfinished { property: "L7", what, stuck: untrue.clone() });
            }
            for (wire, _) in device.held() {
                let over = row.state.is_final() && row.wire.as_str() == wire;
                if !over && !earlier(wire) {
                    continue;
                }
                let gave_up =
                    device.log.iter().any(|(_, deed)| matches!(deed, Deed::GaveUp { wire: w } if w == wire));
                let stuck = if let Some(why) = condition.cut_off[n] {
                    Some(format!("the device is {why}"))
                } else if untrue.is_some() {
                    untrue.clone()
                } else if gave_up {
                    Some("the device gave up".to_string())
                } else if device.sulks(tidegate_core::id::Role::Transfer) {
                    Some("its uploader is of no use".to_string())
                } else if condition.denied[site].is_some() {
                    Some("a store is denied".to_string())
                } else if tampered(condition, site, device, wire) {
                    Some("somebody changed what the device stored, and it stores nothing twice".to_string())
                } else if device.spec.firmware == scenario::Firmware::Old
                    && is_carried(condition, site, device, wire)
                {
                    // Told as `no_evidence`: nobody may delete what he says nothing of (I20).
                    Some(
                        "its uploader says nothing of what it holds, and the copy at the edge is gone"
                            .to_string(),
                    )
                } else {
                    None
                };
                let what = format!("{} holds {wire} of a task that is {}", device.id, row.state.name());
                all.push(Unfinished { property: "L7", what, stuck });
            }
        }
    }
}

/// L1 for the check of what came in: every recording that is at the edge was checked.
fn checks(condition: &Condition<'_>, site: usize, all: &mut Vec<Unfinished>) {
    for row in condition.truth.images[site].values() {
        let Row::Episode(row) = row else { continue };
        if row.removed_at.is_some() || row.inspection.is_some() {
            continue;
        }
        let what = format!("the content of episode {} was not checked", row.id);
        let stuck = condition.denied[site].map(|why| format!("a store is {why}"));
        all.push(Unfinished { property: "L1", what, stuck });
    }
}

/// Whether a recording went to the cloud, and its copy from the edge.
fn is_carried(condition: &Condition<'_>, site: usize, device: &Device, wire: &str) -> bool {
    condition.truth.images[site].values().any(|row| match row {
        Row::Episode(row) => row.device == device.id && row.wire.as_str() == wire && row.removed_at.is_some(),
        _ => false,
    })
}

/// Whether a third party changed or removed a recording at the edge, and it is not there as the device holds it.
fn tampered(condition: &Condition<'_>, site: usize, device: &Device, wire: &str) -> bool {
    let meant = |store: &scenario::Store, task: &str| {
        let of = wire.strip_prefix(task).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        *store == scenario::Store::Edge(site) && of
    };
    let aimed = condition.truth.scenario.faults.iter().any(|spec| match &spec.fault {
        scenario::Fault::Overwrite { store, task } | scenario::Fault::Delete { store, task } => {
            meant(store, task)
        }
        _ => false,
    });
    let Some((_, file)) = device.held().find(|(held, _)| *held == wire) else { return false };
    let there = |suffix: &str, content: &Content| {
        condition.truth.edges[site].objects.iter().any(|(key, object)| {
            key.as_str().ends_with(&format!("/{wire}.{suffix}")) && object.content() == Some(content)
        })
    };
    let whole = there("mcap", &file.content) && file.sidecar.as_ref().is_none_or(|json| there("json", json));
    aimed && !whole
}

/// L2: a healthy device is connected, and its site shows what it really does.
fn links(condition: &Condition<'_>, n: usize, all: &mut Vec<Unfinished>) {
    let device = &condition.truth.devices[n];
    let linked = &condition.links[n];
    if !device.on || !condition.up[device.spec.site] {
        return;
    }
    let stuck = condition.cut_off[n].map(|why| format!("it is {why}"));
    let stuck = stuck.or_else(|| (!device.honest).then(|| "it does not tell the truth".to_string()));
    if !linked.recorder || !linked.uploader {
        let what = format!(
            "{}: recorder {}, uploader {}",
            device.id,
            if linked.recorder { "up" } else { "down" },
            if linked.uploader { "up" } else { "down" }
        );
        all.push(Unfinished { property: "L2", what, stuck });
        return;
    }
    let (state, task) = device.recorder.shows();
    let agrees = linked.view.as_ref().is_some_and(|view| {
        view.confidence == "confirmed" && view.state == state && (state == "idle" || view.task == task)
    });
    if !agrees {
        let shown = linked.view.as_ref().map(|view| (view.confidence, view.state.clone(), view.task.clone()));
        let what = format!("{} is {state} {task}, and the site shows {shown:?}", device.id);
        // A late answer is no answer, so nothing may be believed of it; and then nothing is.
        let doubted = linked.view.as_ref().is_some_and(|view| view.confidence != "confirmed");
        let stuck = stuck.or_else(|| {
            let sulks = device.sulks(tidegate_core::id::Role::Recorder);
            (sulks && doubted).then(|| "it refuses to say what it does".to_string())
        });
        let stuck = stuck.or_else(|| {
            (linked.late && doubted).then(|| "its answers take longer than its site waits".to_string())
        });
        all.push(Unfinished { property: "L2", what, stuck });
    }
}
