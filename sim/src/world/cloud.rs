//! Object operations of a site: on their way, done at the store, answered or not. Retries nothing.

use std::time::Duration;

use tidegate_core::id::{Boot, Ticket};
use tidegate_core::input::Input;
use tidegate_core::object::{self, ObjectOp, ObjectReply, Verb};
use tidegate_core::outcome::{Fault as OpFault, Outcome, What};

use super::site::Letter;
use super::weather::Route;
use super::{Event, Who, World};
use crate::scenario::{Fault, ObjectPoint, Ops, Store, When};
use crate::watch::Broken;

/// How long one attempt may take before nobody waits for its answer any more, beyond what its bytes take.
const ATTEMPT: Duration = Duration::from_secs(30);
/// Bytes that a site's own disk reads while it flushes once: disks that are slow at one are slow at the other.
const BYTES_PER_FLUSH: u64 = 256 << 10;
/// Bytes per second that no disk falls below, and that none exceeds.
const DISK: (u64, u64) = (4 << 20, 400 << 20);

/// An operation that was asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    site: usize,
    /// In which boot.
    boot: u64,
    ticket: Ticket,
    /// Which of the site's operations at the cloud, from 1; 0 at the edge.
    n: u32,
    /// How long the reading goes on after what is read is settled.
    reading: Duration,
}

impl World<'_> {
    fn store_of(site: usize, op: &ObjectOp) -> Store {
        match op.store {
            object::Store::Edge => Store::Edge(site),
            object::Store::Cloud => Store::Cloud(site),
        }
    }

    fn at_object(site: usize, n: u32, p: ObjectPoint) -> impl Fn(&When) -> bool {
        move |when| matches!(when, When::Object { site: s, n: k, point } if *s == site && *k == n && *point == p)
    }

    /// Whether the process that asked is still there: only a fault that ended it takes the answer away.
    fn lives(&self, site: usize, boot: u64) -> bool {
        self.nodes[site].up && self.nodes[site].boot == boot
    }

    /// A site asks for an operation.
    pub(super) fn asks(&mut self, site: usize, ticket: Ticket, op: ObjectOp) -> Result<(), Broken> {
        let boot = self.nodes[site].boot;
        let cloud = op.store == object::Store::Cloud;
        let stale = self.nodes[site].stale.remove(&ticket.n);
        if let Some((late, outcome)) = stale.filter(|(late, _)| late.boot != ticket.boot) {
            let asked = Asked { site, boot, ticket: late, n: 0, reading: Duration::ZERO };
            self.answer(asked, outcome, Duration::from_micros(100))?;
        }
        self.say(Who::Site(site), "?", || format!("{:?} {} {}", op.store, op.verb.name(), op.key));
        let mut n = 0;
        if cloud {
            self.nodes[site].cloud_ops += 1;
            n = self.nodes[site].cloud_ops;
            if let Some(fault) = self.triggered(Self::at_object(site, n, ObjectPoint::Asked)) {
                self.fault_on(fault)?;
                if !self.lives(site, boot) {
                    return Ok(());
                }
            }
        }
        let carried = match &op.verb {
            Verb::Put { len, .. } => *len,
            Verb::PutPart { span, .. } => span.len,
            Verb::Get { span, .. } => match span {
                Some(span) => span.len,
                None => self.store(site, &op).objects.get(&op.key).map_or(0, crate::store::Object::len),
            },
            _ => 0,
        };
        let spec = &self.scenario.sites[site];
        let (base, speed) = if cloud {
            (spec.cloud_latency, spec.cloud_speed)
        } else {
            (Duration::from_micros(300), disk(spec.flush))
        };
        let bytes = u128::from(carried) * 1_000_000_000 / u128::from(speed.max(1));
        let sending = Duration::from_nanos(u64::try_from(bytes).unwrap_or(u64::MAX / 4));
        // What is read at the edge is what stood there when the reading began.
        let reads = !cloud && matches!(op.verb, Verb::Get { .. });
        let (sending, reading) = if reads { (Duration::ZERO, sending) } else { (sending, Duration::ZERO) };
        let asked = Asked { site, boot, ticket, n, reading };
        let (slow, held, cut, refused) = if cloud && !self.weather.is_calm() {
            let route = Route::Cloud { site };
            let weather = &self.weather;
            (weather.slow(route), weather.held(route), weather.cut(route, true), weather.refused(route))
        } else {
            (Duration::ZERO, false, false, false)
        };
        let jitter = self.nodes[site].luck.tail(base / 2 + Duration::from_micros(20));
        let offline = cloud && !self.nodes[site].knobs.destination;
        if offline || refused {
            let fault = if offline { OpFault::NoDestination } else { OpFault::Offline };
            return self.answer(asked, Outcome::Failed(fault), Duration::from_millis(2));
        }
        if cut || held {
            // Held requests outlast the attempt more often than not; both ways nobody hears of it in time.
            return self.answer(asked, Outcome::Unknown, ATTEMPT + sending);
        }
        self.queue
            .plan(self.now + base + jitter + sending + slow, Event::Arrived { asked, op: Box::new(op) });
        Ok(())
    }

    fn store(&self, site: usize, op: &ObjectOp) -> &crate::store::Bucket {
        match op.store {
            object::Store::Edge => &self.edges[site],
            object::Store::Cloud => &self.clouds[site],
        }
    }

    /// An operation reached its store.
    pub(super) fn arrived(&mut self, asked: Asked, op: &ObjectOp) -> Result<(), Broken> {
        let Asked { site, boot, n, reading, .. } = asked;
        let store = Self::store_of(site, op);
        let verb = op.verb.name();
        let cloud = op.store == object::Store::Cloud;
        let alive = self.lives(site, boot);
        // The process that asked is gone: its request was on the way, or was not. Its own disk it takes with it.
        if !alive && (!cloud || self.nodes[site].luck.below(2) == 0) {
            return Ok(());
        }
        if let Some(fault) = self.refusal(store, verb) {
            return self.answer(asked, Outcome::Failed(fault), self.back(site, cloud));
        }
        let lost = self.share(
            store,
            |fault| match fault {
                Fault::LoseRequests { ops, permille, .. } => Some((*ops, *permille)),
                _ => None,
            },
            verb,
        );
        if lost.is_some() || (cloud && self.weather.cut(Route::Cloud { site }, true)) {
            return self.answer(asked, Outcome::Unknown, ATTEMPT);
        }
        let result = match op.store {
            object::Store::Edge => self.edges[site].run(op, None),
            object::Store::Cloud => self.clouds[site].run(op, Some(&self.edges[site])),
        };
        self.say(Who::Site(site), "!", || format!("{:?} {verb} {}: {}", op.store, op.key, told(&result)));
        if cloud
            && alive
            && let Some(fault) = self.triggered(Self::at_object(site, n, ObjectPoint::Applied))
        {
            self.fault_on(fault)?;
            if !self.lives(site, boot) {
                return Ok(());
            }
        }
        let outcome = match result {
            Ok(reply) => Outcome::Done(reply),
            Err(fault) => Outcome::Failed(fault),
        };
        let unheard = self.loses(store, verb) || (cloud && self.weather.cut(Route::Cloud { site }, false));
        if unheard {
            return self.answer(asked, Outcome::Unknown, ATTEMPT);
        }
        self.answer(asked, outcome, self.back(site, cloud) + reading)
    }

    fn back(&self, site: usize, cloud: bool) -> Duration {
        if cloud {
            self.scenario.sites[site].cloud_latency + self.weather.slow(Route::Cloud { site })
        } else {
            Duration::from_micros(200)
        }
    }

    /// Why a store refuses a request now.
    fn refusal(&mut self, store: Store, verb: &str) -> Option<OpFault> {
        if self.weather.is_calm() {
            return None;
        }
        let fault = self.weather.of_store(store).find_map(|(_, fault)| match fault {
            Fault::Outage { .. } => Some((OpFault::Offline, fault.clone())),
            Fault::Expired { .. } => Some((OpFault::Auth, fault.clone())),
            Fault::Skewed { .. } => Some((OpFault::ClockSkew, fault.clone())),
            _ => None,
        });
        let local = |fault: OpFault| match store {
            Store::Edge(_) => OpFault::Local("EIO".to_string()),
            Store::Cloud(_) => fault,
        };
        if let Some((refusal, fault)) = fault {
            self.fire(&fault);
            return Some(local(refusal));
        }
        let throttled = self.share(
            store,
            |fault| match fault {
                Fault::Throttle { permille, .. } => Some((Ops::Any, *permille)),
                _ => None,
            },
            verb,
        );
        if let Some(n) = throttled {
            let luck = self.luck_of(n);
            let retry_after_ms = luck.one_in(2).then(|| luck.between(100, 20_000));
            return Some(local(OpFault::Throttled { retry_after_ms }));
        }
        let broken = self.share(
            store,
            |fault| match fault {
                Fault::Broken { permille, .. } => Some((Ops::Any, *permille)),
                _ => None,
            },
            verb,
        );
        if broken.is_some() {
            return Some(local(OpFault::Unavailable { status: 500 }));
        }
        let misrouted = self.share(
            store,
            |fault| match fault {
                Fault::Misrouted { permille, .. } => Some((Ops::Any, *permille)),
                _ => None,
            },
            verb,
        );
        misrouted.map(|n| {
            let absent = self.luck_of(n).one_in(2);
            local(if absent { OpFault::Vanished(What::Object) } else { OpFault::Rejected("501".to_string()) })
        })
    }

    fn answer(&mut self, asked: Asked, outcome: Outcome<ObjectReply>, after: Duration) -> Result<(), Broken> {
        self.queue.plan(self.now + after, Event::Outcome { asked, outcome: Box::new(outcome) });
        Ok(())
    }

    /// The outcome of an operation reached the site.
    pub(super) fn outcome(&mut self, asked: Asked, outcome: Outcome<ObjectReply>) -> Result<(), Broken> {
        let Asked { site, boot, ticket, n, .. } = asked;
        let node = &mut self.nodes[site];
        if node.boot != boot {
            // The process that waited for it is gone. A driver that mixed up its processes would still deliver some.
            if node.up && node.luck.below(4) == 0 && ticket.boot != Boot(node.boot) {
                return self.letter(site, Letter::Input(Input::Object { ticket, outcome }));
            }
            // Or just when the next process waits for something of the same number.
            node.stale.insert(ticket.n, (ticket, outcome));
            return Ok(());
        }
        if n > 0
            && let Some(fault) = self.triggered(Self::at_object(site, n, ObjectPoint::Answered))
        {
            self.fault_on(fault)?;
            if !self.lives(site, boot) {
                return Ok(());
            }
        }
        self.letter(site, Letter::Input(Input::Object { ticket, outcome }))
    }
}

fn told(result: &Result<ObjectReply, OpFault>) -> String {
    let text = match result {
        Ok(reply) => format!("{reply:?}"),
        Err(fault) => format!("{fault:?}"),
    };
    if text.len() <= 120 { text } else { text.chars().take(120).collect::<String>() + "…" }
}

/// Bytes per second of the disk of a site whose flushes take so long.
fn disk(flush: Duration) -> u64 {
    let micros = u64::try_from(flush.as_micros()).unwrap_or(u64::MAX).max(1);
    (BYTES_PER_FLUSH.saturating_mul(1_000_000) / micros).clamp(DISK.0, DISK.1)
}
