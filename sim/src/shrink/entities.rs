//! Takes a device or a site out of a scenario: what refers to it goes with it, what refers to a later one gets the new
//! index. Knows every place in which an index stands; decides nothing.

use std::collections::BTreeSet;

use crate::scenario::{Act, Fault, FaultSpec, Path, Scenario, Step, Store, When};

/// Takes out a device, what refers to it, and what refers to tasks that only its steps made.
pub(super) fn drop_device(scenario: &mut Scenario, device: usize) {
    let made_before = tasks_made(scenario);
    let keep = |i: &mut usize| renumbered(i, device);
    let mut refs = Refs { device: &keep, site: &|_| true };
    scenario.steps.retain_mut(|step| refs.step(step));
    scenario.faults.retain_mut(|fault| refs.fault(fault));
    scenario.devices.remove(device);
    drop_orphans(scenario, &made_before);
}

/// Takes out a site, its devices, and what refers to any of them.
pub(super) fn drop_site(scenario: &mut Scenario, site: usize) {
    for device in (0..scenario.devices.len()).rev() {
        if scenario.devices[device].site == site {
            drop_device(scenario, device);
        }
    }
    let keep = |i: &mut usize| renumbered(i, site);
    let mut refs = Refs { device: &|_| true, site: &keep };
    scenario.steps.retain_mut(|step| refs.step(step));
    scenario.faults.retain_mut(|fault| refs.fault(fault));
    for device in &mut scenario.devices {
        renumbered(&mut device.site, site);
    }
    scenario.sites.remove(site);
}

/// The index after `gone` is taken out; false if it is the one.
fn renumbered(index: &mut usize, gone: usize) -> bool {
    let stays = *index != gone;
    if *index > gone {
        *index -= 1;
    }
    stays
}

/// Tasks that some step makes.
fn tasks_made(scenario: &Scenario) -> BTreeSet<String> {
    let made = |step: &Step| match &step.act {
        Act::Record(recording) => Some(recording.task.clone()),
        Act::Create { task, .. } => Some(task.clone()),
        Act::Command { .. }
        | Act::Cancel { .. }
        | Act::Judge { .. }
        | Act::Sync { .. }
        | Act::Refresh { .. }
        | Act::Restart { .. }
        | Act::StopRecorder { .. }
        | Act::RestartUploader { .. }
        | Act::Local { .. }
        | Act::Resolve { .. }
        | Act::Policy { .. } => None,
    };
    scenario.steps.iter().filter_map(made).collect()
}

/// Takes out what names a task that was made before and is not any more. A task that never was made may stay: somebody
/// asks for it on purpose.
fn drop_orphans(scenario: &mut Scenario, made_before: &BTreeSet<String>) {
    let made = tasks_made(scenario);
    let known = |task: &String| made.contains(task) || !made_before.contains(task);
    scenario.steps.retain(|step| match &step.act {
        Act::Command { task: Some(task), .. }
        | Act::Cancel { task, .. }
        | Act::Judge { task, .. }
        | Act::Sync { task: Some(task), .. }
        | Act::Resolve { task: Some(task), .. } => known(task),
        Act::Record(_)
        | Act::Create { .. }
        | Act::Command { task: None, .. }
        | Act::Sync { task: None, .. }
        | Act::Refresh { .. }
        | Act::Restart { .. }
        | Act::StopRecorder { .. }
        | Act::RestartUploader { .. }
        | Act::Local { .. }
        | Act::Resolve { task: None, .. }
        | Act::Policy { .. } => true,
    });
    scenario.faults.retain(|spec| match &spec.fault {
        Fault::Overwrite { task, .. } | Fault::Copy { task, .. } | Fault::Delete { task, .. } => known(task),
        _ => true,
    });
}

/// Visits every index; a visit says whether what it stands in stays.
struct Refs<'a> {
    device: &'a dyn Fn(&mut usize) -> bool,
    site: &'a dyn Fn(&mut usize) -> bool,
}

impl Refs<'_> {
    fn step(&mut self, step: &mut Step) -> bool {
        match &mut step.act {
            Act::Record(recording) => (self.device)(&mut recording.device),
            Act::Create { device, .. }
            | Act::Command { device, .. }
            | Act::Refresh { device, .. }
            | Act::StopRecorder { device }
            | Act::RestartUploader { device }
            | Act::Local { device, .. }
            | Act::Resolve { device, .. } => (self.device)(device),
            Act::Cancel { site, .. }
            | Act::Judge { site, .. }
            | Act::Sync { site, .. }
            | Act::Restart { site, .. }
            | Act::Policy { site, .. } => (self.site)(site),
        }
    }

    fn fault(&mut self, spec: &mut FaultSpec) -> bool {
        let when = match &mut spec.when {
            When::At(_) => true,
            When::Commit { site, .. } | When::Object { site, .. } | When::Policy { site, .. } => {
                (self.site)(site)
            }
        };
        // Both are visited, whatever the first one says: a spec that goes needs no numbers, one that stays needs all.
        let what = match &mut spec.fault {
            Fault::Slow { path, .. }
            | Fault::Hold { path }
            | Fault::Cut { path, .. }
            | Fault::Reset { path }
            | Fault::Refuse { path } => match path {
                Path::Link(device, _) | Path::Device(device) => (self.device)(device),
                Path::Site(site) | Path::Cloud(site) => (self.site)(site),
            },
            Fault::Replay { device, .. }
            | Fault::PowerOff { device }
            | Fault::Crash { device, .. }
            | Fault::Twin { device, .. }
            | Fault::Sulk { device, .. }
            | Fault::LoseCallbacks { device }
            | Fault::Lie { device, .. } => (self.device)(device),
            Fault::Kill { site, .. }
            | Fault::PowerLoss { site, .. }
            | Fault::Pause { site }
            | Fault::Step { site, .. }
            | Fault::Drift { site, .. }
            | Fault::DiskFails { site, .. }
            | Fault::DiskSlow { site, .. }
            | Fault::Install { site, .. }
            | Fault::SwapStorm { site, .. }
            | Fault::Rot { site, .. }
            | Fault::HostSlow { site, .. }
            | Fault::Surroundings { site, .. } => (self.site)(site),
            Fault::Outage { store }
            | Fault::Throttle { store, .. }
            | Fault::Broken { store, .. }
            | Fault::Misrouted { store, .. }
            | Fault::Expired { store }
            | Fault::Skewed { store }
            | Fault::LoseAnswers { store, .. }
            | Fault::LoseRequests { store, .. }
            | Fault::Lifecycle { store }
            | Fault::Overwrite { store, .. }
            | Fault::Copy { store, .. }
            | Fault::Delete { store, .. } => match store {
                Store::Edge(site) | Store::Cloud(site) => (self.site)(site),
            },
        };
        when && what
    }
}
