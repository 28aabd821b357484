//! The host of a site's policies, and the people who bring it modules: what is asked of it takes its time and is done in
//! order, answered, answered in doubt, or lost with the process. Bytes lie on the site's disk under their hash, durable
//! before anybody asks for them. Decides nothing; runs no wasm.

use std::collections::BTreeMap;
use std::time::Duration;

use tidegate_core::digest::Sha256;
use tidegate_core::effect::{PolicyOp, Response};
use tidegate_core::id::Ticket;
use tidegate_core::input::{Input, PolicyReply, PolicyRequest, Request};
use tidegate_core::outcome::{Fault as OpFault, Outcome};
use tidegate_core::policy::{Binding, Slot};
use tidegate_core::refusal::{PolicyRefusal, Refusal};
use tidegate_core::row::{Key, PolicyRow, Row};

use super::policy::Known;
use super::site::{Caller, Letter};
use super::{Event, Who, World};
use crate::scenario::{Act, Conduct, Deed, Fault, ModuleSpec, ObjectPoint, Scenario, When};
use crate::stream::Stream;
use crate::time::SimTime;
use crate::watch::{Broken, seats};

/// How long an admission takes that takes its time.
const SLOW: Duration = Duration::from_secs(30);
/// How long a site waits for its host before it counts the answer as unknown.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often somebody who installs a module asks again.
const TRIES: u32 = 8;
/// The two modules that a storm swaps.
const STORM: [ModuleSpec; 2] =
    [ModuleSpec { conduct: Conduct::Fair, n: 9_001 }, ModuleSpec { conduct: Conduct::Fair, n: 9_002 }];

/// A site's host and disk, as far as policies go. Outlives processes, but for what runs.
#[derive(Debug)]
pub(super) struct Host {
    /// Bytes that lie on the disk, and whether they are what they were.
    pub(super) blobs: BTreeMap<Sha256, bool>,
    /// The module that was brought last.
    last: Option<Sha256>,
    /// Until when the host has something to do.
    busy: SimTime,
    /// Things asked of it over all boots.
    pub(super) ops: u32,
    luck: Stream,
}

impl Host {
    pub(super) fn new(scenario: &Scenario, site: usize) -> Host {
        let name = &scenario.sites[site].name;
        Host {
            blobs: BTreeMap::new(),
            last: None,
            busy: SimTime::ZERO,
            ops: 0,
            luck: Stream::new(scenario.seed, &format!("host/{name}"), 0),
        }
    }

    /// The process ends, and with it what the host was about to do.
    pub(super) fn stop(&mut self, now: SimTime) {
        self.busy = now;
    }

    /// Whether the bytes of a module can be read. Those of the default module come with the program.
    pub(super) fn is_whole(&self, module: Sha256) -> bool {
        module == ModuleSpec::DEFAULT.hash() || self.blobs.get(&module) == Some(&true)
    }
}

/// Something that a site asked of its host.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hosted {
    site: usize,
    boot: u64,
    ticket: Ticket,
    n: u32,
}

/// Somebody who installs a module.
#[derive(Debug)]
pub(super) struct Installer {
    /// Whether it is admitted.
    admitted: bool,
    tries: u32,
    stamp: u64,
}

impl Scenario {
    /// Every module that may come up, by its hash.
    pub(crate) fn modules(&self) -> Known {
        let steps = self.steps.iter().filter_map(|step| match &step.act {
            Act::Policy { module, .. } => *module,
            _ => None,
        });
        let faults = self.faults.iter().filter_map(|spec| match &spec.fault {
            Fault::Install { module, .. } => Some(*module),
            _ => None,
        });
        let all = [ModuleSpec::DEFAULT].into_iter().chain(STORM).chain(steps).chain(faults);
        std::sync::Arc::new(all.map(|module| (module.hash(), module)).collect())
    }
}

impl World<'_> {
    fn at_policy(site: usize, n: u32, p: ObjectPoint) -> impl Fn(&When) -> bool {
        move |when| matches!(when, When::Policy { site: s, n: k, point } if *s == site && *k == n && *point == p)
    }

    fn runs(&self, site: usize, boot: u64) -> bool {
        self.nodes[site].up && self.nodes[site].boot == boot
    }

    /// The record of who sits where, if there is one.
    pub(super) fn policy_row(&self, site: usize) -> Option<&PolicyRow> {
        match self.images[site].get(&Key::Policy) {
            Some(Row::Policy(row)) => Some(row),
            _ => None,
        }
    }

    /// A process makes ready what it boots with, before it decides anything. What cannot be read, or a host that is not
    /// itself, leaves that to the core, and the built-in rules stand in meanwhile.
    pub(super) fn ready_first(&mut self, site: usize) {
        let node = &self.nodes[site];
        let set = seats::set(self.policy_row(site), &node.knobs);
        if self.doubt(site).is_some() {
            return;
        }
        let node = &mut self.nodes[site];
        let host = &node.host;
        if let Err((slot, code, _)) = node.policies.prepare(&set, |module| host.is_whole(module)) {
            self.say(Who::Site(site), "!", || format!("host: {} is not ready: {code}", slot.name()));
        }
    }

    /// A site asks something of its host.
    pub(super) fn hosts(&mut self, site: usize, ticket: Ticket, op: PolicyOp) -> Result<(), Broken> {
        let boot = self.nodes[site].boot;
        self.nodes[site].host.ops += 1;
        let n = self.nodes[site].host.ops;
        self.say(Who::Site(site), "?", || format!("host: {op:?}"));
        if let Some(fault) = self.triggered(Self::at_policy(site, n, ObjectPoint::Asked)) {
            self.fault_on(fault)?;
            if !self.runs(site, boot) {
                return Ok(());
            }
        }
        let slow = self.weather.host_slow(site);
        if slow != (Duration::ZERO, 0) {
            *self.fired.entry("host-slow").or_default() += 1;
        }
        let host = &mut self.nodes[site].host;
        let takes = match &op {
            PolicyOp::Admit { module } => match self.known.get(module).map(|spec| spec.conduct) {
                Some(Conduct::Slow) => SLOW,
                Some(Conduct::Huge) | None => Duration::from_millis(1),
                Some(_) => host.luck.duration(Duration::from_millis(20), Duration::from_millis(200)),
            },
            PolicyOp::Prepare { .. } | PolicyOp::Shadow(_) => {
                host.luck.duration(Duration::from_millis(1), Duration::from_millis(30))
            }
            PolicyOp::Retire { .. } => Duration::from_millis(1),
        };
        host.busy = host.busy.max(self.now) + takes + slow.0;
        let (at, asked) = (host.busy, Hosted { site, boot, ticket, n });
        self.queue.plan(at, Event::Hosted { asked, op: Box::new(op) });
        Ok(())
    }

    /// The host has done it.
    pub(super) fn hosted(&mut self, asked: Hosted, op: &PolicyOp) -> Result<(), Broken> {
        let Hosted { site, boot, n, .. } = asked;
        if !self.runs(site, boot) {
            // Only bytes outlive a process, and half of the time it still came to removing them.
            let host = &mut self.nodes[site].host;
            if let PolicyOp::Retire { module } = op
                && host.luck.one_in(2)
            {
                host.blobs.remove(module);
            }
            return Ok(());
        }
        let doubt = self.doubt(site);
        let done = doubt != Some(false);
        let outcome = if done { self.does(site, op) } else { Outcome::Unknown };
        if let Some(fault) = self.triggered(Self::at_policy(site, n, ObjectPoint::Applied)) {
            self.fault_on(fault)?;
            if !self.runs(site, boot) {
                return Ok(());
            }
        }
        let (outcome, after) = match doubt {
            Some(_) if self.nodes[site].host.luck.one_in(3) && !done => {
                (Outcome::Failed(OpFault::Local("EIO".to_string())), Duration::from_millis(5))
            }
            Some(_) => (Outcome::Unknown, PATIENCE),
            None => (outcome, Duration::from_micros(100)),
        };
        self.queue.plan(self.now + after, Event::HostAnswers { asked, outcome: Box::new(outcome) });
        Ok(())
    }

    /// Whether nobody learns what became of it, and if so, whether it is done.
    fn doubt(&mut self, site: usize) -> Option<bool> {
        let (_, permille) = self.weather.host_slow(site);
        let luck = &mut self.nodes[site].host.luck;
        (permille > 0 && luck.permille(u64::from(permille))).then(|| luck.one_in(2))
    }

    fn does(&mut self, site: usize, op: &PolicyOp) -> Outcome<PolicyReply> {
        let known = std::sync::Arc::clone(&self.known);
        let node = &mut self.nodes[site];
        let (shelf, host) = (&mut node.policies, &mut node.host);
        let rejected = |slot, code: &str, why| {
            let code = code.to_string();
            Outcome::Done(PolicyReply::Rejected { slot, code, why })
        };
        let outcome = match op {
            PolicyOp::Admit { module } => match known.get(module) {
                Some(spec) if host.is_whole(*module) => match spec.admitted() {
                    Ok(facts) => Outcome::Done(PolicyReply::Admitted(facts)),
                    Err((code, why)) => {
                        *self.fired.entry(spec.conduct.word()).or_default() += 1;
                        rejected(None, code, why)
                    }
                },
                _ => rejected(None, "unreadable", "its bytes are not what they were".to_string()),
            },
            PolicyOp::Prepare { set } => match shelf.prepare(set, |module| host.is_whole(module)) {
                Ok(id) => Outcome::Done(PolicyReply::Prepared(id)),
                Err((slot, code, why)) => rejected(Some(slot), code, why),
            },
            PolicyOp::Retire { module } => {
                host.blobs.remove(module);
                Outcome::Done(PolicyReply::Done)
            }
            PolicyOp::Shadow(what) => match shelf.shadow(what.as_ref(), |module| host.is_whole(module)) {
                Ok(()) => Outcome::Done(PolicyReply::Done),
                Err((code, why)) => rejected(None, code, why),
            },
        };
        self.say(Who::Site(site), "!", || format!("host: {} {outcome:?}", op.name()));
        outcome
    }

    /// What became of it reaches the site.
    pub(super) fn host_answers(
        &mut self,
        asked: Hosted,
        outcome: Outcome<PolicyReply>,
    ) -> Result<(), Broken> {
        let Hosted { site, boot, ticket, n } = asked;
        if !self.runs(site, boot) {
            return Ok(());
        }
        if let Some(fault) = self.triggered(Self::at_policy(site, n, ObjectPoint::Answered)) {
            self.fault_on(fault)?;
            if !self.runs(site, boot) {
                return Ok(());
            }
        }
        self.letter(site, Letter::Input(Input::Policy { ticket, outcome }))
    }

    /// Somebody brings the bytes of a module: they lie on the disk before anybody asks for them.
    fn put(&mut self, site: usize, module: ModuleSpec) -> PolicyRequest {
        let host = &mut self.nodes[site].host;
        host.blobs.insert(module.hash(), true);
        host.last = Some(module.hash());
        PolicyRequest::Admit { module: module.hash(), size: module.size() }
    }

    fn wish(&mut self, site: usize, caller: Caller, wish: PolicyRequest) -> Result<(), Broken> {
        self.letter(site, Letter::Request { caller, request: Request::Policy(wish) })
    }

    /// One thing that an operator does with policies.
    pub(super) fn deed(
        &mut self,
        site: usize,
        deed: Deed,
        slot: Slot,
        module: Option<ModuleSpec>,
    ) -> Result<(), Broken> {
        if !self.nodes[site].up {
            return Ok(());
        }
        let sits = match deed {
            // Whoever lifts a bar means one that is barred.
            Deed::Unquarantine => self.images[site].iter().find_map(|(key, row)| match (key, row) {
                (Key::Module(hash), Row::Module(row)) if row.quarantined.is_some() => Some(*hash),
                _ => None,
            }),
            _ => self.nodes[site].machine.active_set().module(slot),
        };
        let Some(hash) = module.map(ModuleSpec::hash).or(sits).or(self.nodes[site].host.last) else {
            return Ok(());
        };
        let binding = || Binding { module: hash, settings: Vec::new() };
        let generation = self.policy_row(site).map_or(0, |row| row.generation);
        let wish = match deed {
            Deed::Put => match self.known.get(&hash).copied() {
                Some(module) => self.put(site, module),
                None => return Ok(()),
            },
            Deed::Activate => PolicyRequest::Activate { slot, binding: binding() },
            Deed::Reset => PolicyRequest::Reset { slot },
            Deed::Shadow => PolicyRequest::Shadow { slot, binding: binding() },
            Deed::ShadowEnd => PolicyRequest::ShadowEnd,
            Deed::Rollback => PolicyRequest::Rollback { to: None },
            Deed::Back => PolicyRequest::Rollback { to: Some(generation.saturating_sub(1)) },
            Deed::Quarantine => {
                PolicyRequest::Quarantine { module: hash, reason: "somebody dislikes it".to_string() }
            }
            Deed::Unquarantine => PolicyRequest::Unquarantine { module: hash },
            Deed::Remove => PolicyRequest::Remove { module: hash },
        };
        self.wish(site, Caller::Nobody, wish)
    }

    /// Bytes of a module rot; false if there are none.
    pub(super) fn rot(&mut self, site: usize, slot: Slot) -> bool {
        let sits = self.policy_row(site).and_then(|row| {
            let bound = row.slots.iter().find(|(at, _)| *at == slot);
            bound.map(|(_, binding)| binding.module)
        });
        let host = &mut self.nodes[site].host;
        match sits.or(host.last).and_then(|module| host.blobs.get_mut(&module)) {
            Some(whole) => std::mem::replace(whole, false),
            None => false,
        }
    }

    /// Somebody who installs a module does the next thing.
    pub(super) fn installs(&mut self, fault: usize, stamp: u64) -> Result<(), Broken> {
        let Fault::Install { site, slot, module } = self.scenario.faults[fault].fault else { return Ok(()) };
        let now = self.now;
        let installer =
            self.installers.entry(fault).or_insert(Installer { admitted: false, tries: 0, stamp: 0 });
        if installer.stamp != stamp || installer.tries >= TRIES {
            return Ok(());
        }
        (installer.tries, installer.stamp) = (installer.tries + 1, stamp + 1);
        let admitted = installer.admitted;
        // Whoever gets no answer asks again.
        self.queue.plan(now + PATIENCE * 2, Event::Installs { fault, stamp: stamp + 1 });
        if !self.nodes[site].up {
            return Ok(());
        }
        let wish = if admitted {
            let binding = Binding { module: module.hash(), settings: Vec::new() };
            PolicyRequest::Activate { slot, binding }
        } else {
            self.put(site, module)
        };
        self.wish(site, Caller::Installer(fault), wish)
    }

    /// What they are told.
    pub(super) fn installer_hears(&mut self, fault: usize, answer: &Result<Response, Refusal>) {
        let Some(installer) = self.installers.get_mut(&fault) else { return };
        installer.stamp += 1;
        let after = match answer {
            Ok(_) if installer.admitted => {
                installer.tries = TRIES;
                return self.fire(&self.scenario.faults[fault].fault);
            }
            Ok(_) => {
                installer.admitted = true;
                Duration::from_millis(10)
            }
            Err(Refusal::Policy(
                PolicyRefusal::Busy
                | PolicyRefusal::Overtaken
                | PolicyRefusal::Unanswered(_)
                | PolicyRefusal::NotAdmitted(_),
            )) => Duration::from_secs(2) * installer.tries,
            Err(_) => {
                installer.tries = TRIES;
                return;
            }
        };
        let stamp = installer.stamp;
        self.queue.plan(self.now + after, Event::Installs { fault, stamp });
    }

    /// A storm swaps once more.
    pub(super) fn swaps(&mut self, fault: usize, n: u64) -> Result<(), Broken> {
        let Fault::SwapStorm { site, slot, every } = self.scenario.faults[fault].fault else { return Ok(()) };
        if !self.fault_is_on(fault) {
            return Ok(());
        }
        self.queue.plan(self.now + every, Event::Swaps { fault, n: n + 1 });
        if !self.nodes[site].up {
            return Ok(());
        }
        let [even, odd] = STORM;
        let module = if n.is_multiple_of(2) { even } else { odd };
        // They are brought first, and once more now and then: somebody may have removed them.
        if n.is_multiple_of(64) {
            for module in STORM {
                let put = self.put(site, module);
                self.wish(site, Caller::Nobody, put)?;
            }
        }
        let binding = Binding { module: module.hash(), settings: Vec::new() };
        self.wish(site, Caller::Storm(fault), PolicyRequest::Activate { slot, binding })
    }
}
