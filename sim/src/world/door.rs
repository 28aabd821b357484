//! What devices do over HTTP: callbacks, and uploads to the edge store. One request, one connection; nothing is repeated
//! here.

use std::time::Duration;

use tidegate_core::id::DeviceId;
use tidegate_core::input::{Input, Request};
use tidegate_core::row::RecordingFacts;
use tidegate_core::time::Wall;

use super::site::{Caller, Letter};
use super::weather::Route;
use super::{Event, Who, World};
use crate::device::{Callback, StoreAnswer, StoreCall};
use crate::scenario::{Fault, Ops, Store};
use crate::stream::Stream;
use crate::watch::{Broken, Happened};

/// How long a device's S3 client waits for an answer.
const PATIENCE: Duration = Duration::from_secs(30);

impl World<'_> {
    fn http(&self, device: usize) -> Route {
        Route::Http { device, site: self.devices[device].spec.site }
    }

    /// A device posts a callback.
    pub(super) fn posts(&mut self, device: usize, callback: Callback) {
        let route = self.http(device);
        if self.weather.cut(route, true) || self.weather.refused(route) {
            return;
        }
        if self.weather.callbacks_lost(device) {
            return self.fire(&Fault::LoseCallbacks { device });
        }
        let late = if self.weather.held(route) { Duration::from_secs(5) } else { Duration::ZERO };
        let after = self.devices[device].spec.latency * 3 + self.weather.slow(route) + late;
        self.queue.plan(self.now + after, Event::Posted { device, callback });
    }

    /// A callback reached the site.
    pub(super) fn posted(&mut self, device: usize, callback: &Callback) -> Result<(), Broken> {
        let site = self.devices[device].spec.site;
        if !self.nodes[site].up {
            return Ok(());
        }
        self.say(Who::Device(device), "→", || format!("{callback:?}"));
        self.tell(&Happened::Called { site, callback })?;
        let Ok(named) = DeviceId::new(&callback.device) else { return Ok(()) };
        let request = if callback.finish {
            let facts = RecordingFacts {
                started_at: callback.started_ms.map(Wall),
                len: callback.len,
                ..RecordingFacts::default()
            };
            Request::CallbackFinish { task: callback.task.clone(), device: named, facts, credential: None }
        } else {
            Request::CallbackStart { task: callback.task.clone(), device: Some(named), credential: None }
        };
        self.letter(site, Letter::Request { caller: Caller::Nobody, request })
    }

    /// A device sends a request to the edge store.
    pub(super) fn brings(&mut self, device: usize, call: StoreCall) {
        let life = self.lives[device];
        let spec = &self.devices[device].spec;
        let len = match &call {
            StoreCall::Head(_) => 0,
            StoreCall::Put { content, .. } => content.len,
        };
        let takes = Duration::from_nanos(
            u64::try_from(u128::from(len) * 1_000_000_000 / u128::from(spec.speed.max(1)))
                .unwrap_or(u64::MAX),
        );
        let route = self.http(device);
        let after = spec.latency * 3 + takes + self.weather.slow(route);
        self.queue.plan(self.now + after, Event::Brought { device, life, call });
    }

    /// A request of a device reached the edge store, whole.
    pub(super) fn brought(&mut self, device: usize, life: u64, call: StoreCall) -> Result<(), Broken> {
        let site = self.devices[device].spec.site;
        let latency = self.devices[device].spec.latency;
        let route = self.http(device);
        let node = &self.nodes[site];
        // A device that went away in the middle of a body sent no whole request.
        let lost = self.lives[device] != life || self.weather.cut(route, true) || !node.powered;
        let refused = !node.up || self.weather.refused(route);
        let closed = !node.gate_open;
        let paused = node.paused;
        let unheard = self.weather.cut(route, false) || self.loses(Store::Edge(site), "put");
        if lost || paused || self.weather.held(route) {
            self.queue.plan(
                self.now + PATIENCE,
                Event::Stored { device, life, call, answer: StoreAnswer::Unknown },
            );
            return Ok(());
        }
        let broken = self.weather.of_store(Store::Edge(site)).any(|(_, fault)| {
            matches!(
                fault,
                Fault::Outage { .. }
                    | Fault::Expired { .. }
                    | Fault::Throttle { .. }
                    | Fault::Broken { .. }
                    | Fault::Misrouted { .. }
            )
        });
        if closed && !refused {
            self.coverage.mark("door-closed");
        }
        let answer = if refused || closed || broken {
            StoreAnswer::Refused { again: true }
        } else {
            match &call {
                StoreCall::Head(key) => StoreAnswer::Head(self.edges[site].content(key).cloned()),
                StoreCall::Put { key, content, announced } => {
                    let sha256 = content.sha256();
                    if self.edges[site].offer(key, content.clone(), announced.then_some(sha256)) {
                        let (key, len) = (key.clone(), content.len);
                        self.say(Who::Device(device), "=", || {
                            format!("stored {key} at the edge, {len} bytes")
                        });
                        self.letter(site, Letter::Input(Input::Stored { key, len, sha256 }))?;
                        StoreAnswer::Stored
                    } else {
                        self.coverage.mark("frozen-refused");
                        StoreAnswer::Refused { again: false }
                    }
                }
            }
        };
        let (after, answer) = if unheard { (PATIENCE, StoreAnswer::Unknown) } else { (latency, answer) };
        self.queue.plan(self.now + after, Event::Stored { device, life, call, answer });
        Ok(())
    }

    /// Whether the answer to this request is lost.
    pub(super) fn loses(&mut self, store: Store, verb: &str) -> bool {
        let lost = self.share(
            store,
            |fault| match fault {
                Fault::LoseAnswers { ops, permille, .. } => Some((*ops, *permille)),
                _ => None,
            },
            verb,
        );
        lost.is_some()
    }

    /// Whether one of some faults of a store, each of a share of requests, strikes this one.
    pub(super) fn share(
        &mut self,
        store: Store,
        of: impl Fn(&Fault) -> Option<(Ops, u32)>,
        verb: &str,
    ) -> Option<usize> {
        if self.weather.is_calm() {
            return None;
        }
        let faults: Vec<(usize, u32)> = (self.weather.of_store(store))
            .filter_map(|(n, fault)| of(fault).map(|(ops, permille)| (n, ops, permille)))
            .filter(|(_, ops, _)| super::weather::covers(*ops, verb))
            .map(|(n, _, permille)| (n, permille))
            .collect();
        // Each draws its own lot, also if another one strikes: so that neither shifts the other's.
        let mut strikes = None;
        for (n, permille) in faults {
            if self.luck_of(n).permille(u64::from(permille)) {
                strikes = strikes.or(Some(n));
            }
        }
        if let Some(n) = strikes {
            self.fire(&self.scenario.faults[n].fault);
        }
        strikes
    }

    /// The chances of one fault, named by what it is: they stay the same whatever else the scenario holds.
    pub(super) fn luck_of(&mut self, fault: usize) -> &mut Stream {
        let spec = &self.scenario.faults[fault];
        let seed = self.scenario.seed;
        self.lucks
            .entry(fault)
            .or_insert_with(|| Stream::new(seed, &format!("{:?} {:?}", spec.when, spec.fault), 0))
    }
}
