//! How faults begin and end. What they mean while they last stands in `weather` and with whom they concern.

use std::time::Duration;

use tidegate_core::id::{ObjectKey, Role};
use tidegate_core::policy::Surroundings;
use tidegate_core::row::Row;

use super::weather::Route;
use super::{Event, Who, World};
use crate::device::Known;
use crate::scenario::{Fault, Lasts, Path, Store, Way, When};
use crate::store::{Bucket, Content};
use crate::watch::{Broken, Happened};

fn on(path: &Path) -> impl Fn(Route) -> bool + '_ {
    move |route| match (route, path) {
        (Route::Link { device, role, .. }, Path::Link(d, r)) => device == *d && role == *r,
        (Route::Link { device, .. }, Path::Device(d)) => device == *d,
        (Route::Link { site, .. }, Path::Site(s)) => site == *s,
        _ => false,
    }
}

impl World<'_> {
    /// Whether a fault is on now.
    pub(super) fn fault_is_on(&self, n: usize) -> bool {
        self.on.contains(&n)
    }

    /// A fault begins.
    pub(super) fn fault_on(&mut self, n: usize) -> Result<(), Broken> {
        if self.healed || !self.begun.insert(n) {
            return Ok(());
        }
        let spec = &self.scenario.faults[n];
        let fault = &spec.fault;
        self.say(Who::Word("fault"), "#", || format!("{fault:?}"));
        self.trace.note(self.now, fault.name().1);
        self.coverage.fault(fault.name().1, self.images.iter());
        if !fault.is_momentary() {
            self.on.insert(n);
            self.weather.begin(n, fault);
            if let Lasts::For(lasts) = spec.lasts {
                self.queue.plan(self.now + lasts, Event::FaultOff(n));
            }
        }
        let mut fired = true;
        match fault {
            Fault::Hold { path } => self.hush_all(on(path), None),
            Fault::Cut { path, way } => {
                let (up, down) = (*way != Way::Down, *way != Way::Up);
                self.hush_all(on(path), Some((up, down)));
            }
            Fault::Reset { path } => fired = self.reset_all(on(path))?,
            Fault::Replay { device, role, count } => fired = self.replay(*device, *role, *count)?,
            Fault::Kill { site, keep, down } => {
                fired = self.nodes[*site].up;
                self.die(*site, *keep, false, *down)?;
            }
            Fault::PowerLoss { site, keep, down } => {
                fired = self.nodes[*site].powered;
                self.die(*site, *keep, true, *down)?;
            }
            Fault::Pause { site } => {
                let site = *site;
                self.nodes[site].paused = true;
                self.hush_all(|route| matches!(route, Route::Link { site: s, .. } if s == site), None);
            }
            Fault::Step { site, by_ms } => {
                self.nodes[*site].step_wall(*by_ms);
                self.tell(&Happened::Stepped { site: *site, by_ms: *by_ms })?;
            }
            Fault::Drift { site, ppm } => {
                let now = self.now;
                self.nodes[*site].set_drift(now, *ppm);
                self.tell(&Happened::Stepped { site: *site, by_ms: 0 })?;
            }
            Fault::DiskFails { site, down } => self.nodes[*site].disk_fails = Some(*down),
            Fault::Lifecycle { store } => {
                let (site, cloud) = self.named(*store);
                let bucket = self.bucket(*store);
                fired = !bucket.open.is_empty();
                bucket.drop_uploads();
                self.tell(&Happened::Tampered { site, cloud })?;
            }
            Fault::Overwrite { store, task } | Fault::Delete { store, task } => {
                let mut keys = Self::keys_of(self.bucket(*store), task);
                if let (Store::Cloud(site), Fault::Overwrite { .. }) = (*store, fault) {
                    keys.extend(self.jobs_of(site, task).map(|(key, _)| key));
                }
                fired = !keys.is_empty();
                let delete = matches!(fault, Fault::Delete { .. });
                self.tamper(n, *store, keys, delete)?;
            }
            Fault::Copy { store, task } => {
                let (site, cloud) = self.named(*store);
                let places: Vec<(ObjectKey, ObjectKey)> = self.jobs_of(site, task).collect();
                fired = false;
                for (key, source) in places {
                    let (key, content) = if cloud {
                        (key, self.edges[site].content(&source).cloned())
                    } else {
                        let backup = self.backups.get(&(site, source.clone())).cloned();
                        (source, backup)
                    };
                    let Some(content) = content else { continue };
                    self.bucket(*store).overwrite(&key, content);
                    fired = true;
                }
                self.tell(&Happened::Tampered { site, cloud })?;
            }
            Fault::PowerOff { device } => {
                self.drop_links(*device, None, true);
                self.lives[*device] += 1;
                let now = self.now;
                self.devices[*device].power_off(now);
            }
            Fault::Crash { device, role } => self.crash(*device, *role)?,
            Fault::Twin { device, role, .. } => {
                self.queue.plan(self.now, Event::Twin { fault: n, device: *device, role: *role });
                fired = false;
            }
            Fault::Sulk { device, role } => self.devices[*device].sulk(*role, true),
            Fault::Lie { device, lie } => {
                let (lie, me) = (*lie, *device);
                let others: Vec<Known> = (self.devices.iter().enumerate())
                    .filter(|(n, other)| *n != me && other.spec.site == self.devices[me].spec.site)
                    .flat_map(|(_, other)| other.known())
                    .collect();
                self.device(me, |device, now, asks| device.lie(now, lie, &others, asks))?;
            }
            Fault::Install { .. } => {
                self.queue.plan(self.now, Event::Installs { fault: n, stamp: 0 });
                fired = false;
            }
            Fault::SwapStorm { .. } => {
                self.queue.plan(self.now, Event::Swaps { fault: n, n: 0 });
                fired = false;
            }
            Fault::Rot { site, slot } => fired = self.rot(*site, *slot),
            Fault::Surroundings { site, link, metered } => {
                let (link, metered) = (*link, *metered);
                fired = self.surround(*site, Surroundings { link, metered, ..Surroundings::default() })?;
            }
            Fault::Slow { .. }
            | Fault::HostSlow { .. }
            | Fault::LoseCallbacks { .. }
            | Fault::Refuse { .. }
            | Fault::DiskSlow { .. }
            | Fault::Outage { .. }
            | Fault::Throttle { .. }
            | Fault::Broken { .. }
            | Fault::Misrouted { .. }
            | Fault::Expired { .. }
            | Fault::Skewed { .. }
            | Fault::LoseAnswers { .. }
            | Fault::LoseRequests { .. } => {
                fired = matches!(fault, Fault::Slow { .. } | Fault::DiskSlow { .. })
            }
        }
        if fired {
            self.fire(fault);
        }
        Ok(())
    }

    /// A fault ends.
    pub(super) fn fault_off(&mut self, n: usize) -> Result<(), Broken> {
        if !self.on.remove(&n) {
            return Ok(());
        }
        self.weather.end(n);
        let fault = &self.scenario.faults[n].fault;
        self.say(Who::Word("fault"), "#", || format!("over: {fault:?}"));
        match fault {
            Fault::Hold { .. } => self.release_all(),
            Fault::Pause { site } => {
                self.nodes[*site].paused = false;
                self.release_all()?;
                self.pump(*site)
            }
            Fault::Drift { site, .. } => {
                let now = self.now;
                self.nodes[*site].set_drift(now, 0);
                Ok(())
            }
            Fault::Sulk { device, role } => {
                self.devices[*device].sulk(*role, false);
                Ok(())
            }
            Fault::PowerOff { device } => {
                self.device(*device, |device, now, asks| device.power_on(now, asks))
            }
            _ => Ok(()),
        }
    }

    /// The chaos phase ends: faults that heal are over, the others stay for ever.
    pub(super) fn heal(&mut self) -> Result<(), Broken> {
        self.say(Who::Word("world"), "#", || "chaos is over".to_string());
        for n in 0..self.scenario.faults.len() {
            if self.scenario.faults[n].lasts != Lasts::Forever {
                self.fault_off(n)?;
            }
        }
        self.healed = true;
        for node in &mut self.nodes {
            node.disk_fails = None;
        }
        Ok(())
    }

    /// Kills a program of a device and starts it again.
    pub(super) fn crash(&mut self, device: usize, role: Role) -> Result<(), Broken> {
        self.drop_links(device, Some(role), false);
        self.device(device, |device, now, asks| device.crash(now, role, asks))
    }

    fn named(&self, store: Store) -> (usize, bool) {
        match store {
            Store::Edge(site) => (site, false),
            Store::Cloud(site) => (site, true),
        }
    }

    fn bucket(&mut self, store: Store) -> &mut Bucket {
        match store {
            Store::Edge(site) => &mut self.edges[site],
            Store::Cloud(site) => &mut self.clouds[site],
        }
    }

    /// Where the jobs of a task put its recordings, and where they take them from.
    fn jobs_of<'a>(
        &'a self,
        site: usize,
        task: &'a str,
    ) -> impl Iterator<Item = (ObjectKey, ObjectKey)> + 'a {
        let episodes: std::collections::BTreeSet<_> = self.episodes(site, task).collect();
        self.images[site].values().filter_map(move |row| match row {
            Row::Job(row) if episodes.contains(&row.episode) => {
                Some((row.key.clone(), row.source.key.clone()))
            }
            _ => None,
        })
    }

    fn tamper(
        &mut self,
        fault: usize,
        store: Store,
        keys: Vec<ObjectKey>,
        delete: bool,
    ) -> Result<(), Broken> {
        let (site, cloud) = self.named(store);
        for key in keys {
            if let (false, Some(content)) = (cloud, self.edges[site].content(&key)) {
                let content = content.clone();
                self.backups.entry((site, key.clone())).or_insert(content);
            }
            // Far from the numbers of what devices record.
            let id = (1 << 60) | self.luck_of(fault).below(1 << 40);
            let bucket = self.bucket(store);
            // Half of the time only its bytes tell it from what was there.
            let len = bucket.objects.get(&key).map(crate::store::Object::len);
            let len = len.filter(|_| id.is_multiple_of(2)).unwrap_or(4096);
            let other = Content { id, len, facts: None };
            if delete {
                bucket.remove(&key);
            } else {
                bucket.overwrite(&key, other);
            }
        }
        self.tell(&Happened::Tampered { site, cloud })
    }

    /// Plans everything that has a time.
    pub(super) fn plan_all(&mut self) {
        for (n, step) in self.scenario.steps.iter().enumerate() {
            self.queue.plan(crate::time::SimTime::ZERO + step.at, Event::Step(n));
        }
        for (n, spec) in self.scenario.faults.iter().enumerate() {
            if let When::At(at) = spec.when {
                self.queue.plan(crate::time::SimTime::ZERO + at, Event::FaultOn(n));
            }
        }
        self.queue.plan(crate::time::SimTime::ZERO + self.scenario.chaos, Event::Heal);
        for site in 0..self.nodes.len() {
            self.queue.plan(self.now, Event::Start { site, stamp: 0 });
        }
        for device in 0..self.devices.len() {
            // Programs start a little after their site, one after the other.
            let after = Duration::from_millis(20 + 7 * u64::try_from(device % 400).unwrap_or(0));
            self.queue.plan(self.now + after, Event::PowerOn(device));
        }
    }
}
