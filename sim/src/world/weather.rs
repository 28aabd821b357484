//! Which faults are on now, and what they mean for a message, a request or a flush. Answers questions; changes nothing
//! but itself.

use std::time::Duration;

use tidegate_core::id::Role;

use crate::scenario::{Fault, Ops, Path, Store, Way};

/// Who a message concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// A link of a device at a site.
    Link { device: usize, site: usize, role: Role },
    /// A callback or an upload of a device.
    Http { device: usize, site: usize },
    /// A site's way to the cloud.
    Cloud { site: usize },
}

impl Route {
    fn on(self, path: &Path) -> bool {
        match (self, path) {
            (Route::Link { device, role, .. }, Path::Link(d, r)) => device == *d && role == *r,
            (Route::Link { device, .. } | Route::Http { device, .. }, Path::Device(d)) => device == *d,
            (Route::Link { site, .. } | Route::Http { site, .. }, Path::Site(s)) => site == *s,
            (Route::Cloud { site }, Path::Cloud(s)) => site == *s,
            _ => false,
        }
    }
}

/// The faults that are on, by their index in the scenario.
#[derive(Clone, Debug, Default)]
pub(super) struct Weather {
    on: Vec<(usize, Fault)>,
}

impl Weather {
    pub(super) fn begin(&mut self, index: usize, fault: &Fault) {
        self.on.push((index, fault.clone()));
    }

    pub(super) fn end(&mut self, index: usize) -> bool {
        let before = self.on.len();
        self.on.retain(|(other, _)| *other != index);
        self.on.len() != before
    }

    /// Names of the faults that are on.
    pub(super) fn names(&self) -> impl Iterator<Item = &'static str> {
        self.on.iter().map(|(_, fault)| fault.name().1)
    }

    pub(super) fn is_calm(&self) -> bool {
        self.on.is_empty()
    }

    /// By how much messages are late.
    pub(super) fn slow(&self, route: Route) -> Duration {
        let slow = |(_, fault): &(usize, Fault)| match fault {
            Fault::Slow { path, by } if route.on(path) => Some(*by),
            _ => None,
        };
        self.on.iter().filter_map(slow).sum()
    }

    /// Whether messages wait.
    pub(super) fn held(&self, route: Route) -> bool {
        self.on.iter().any(|(_, fault)| matches!(fault, Fault::Hold { path } if route.on(path)))
    }

    /// Whether messages in a direction are gone.
    pub(super) fn cut(&self, route: Route, up: bool) -> bool {
        let cuts = |way: &Way| match way {
            Way::Both => true,
            Way::Up => up,
            Way::Down => !up,
        };
        self.on
            .iter()
            .any(|(_, fault)| matches!(fault, Fault::Cut { path, way } if route.on(path) && cuts(way)))
    }

    /// Whether new connections are refused.
    pub(super) fn refused(&self, route: Route) -> bool {
        self.on.iter().any(|(_, fault)| matches!(fault, Fault::Refuse { path } if route.on(path)))
    }

    /// Whether callbacks of a device are lost.
    pub(super) fn callbacks_lost(&self, device: usize) -> bool {
        self.on.iter().any(|(_, fault)| *fault == Fault::LoseCallbacks { device })
    }

    /// By how much flushes of a site are late.
    pub(super) fn disk_slow(&self, site: usize) -> Duration {
        let slow = |(_, fault): &(usize, Fault)| match fault {
            Fault::DiskSlow { site: s, by } if *s == site => Some(*by),
            _ => None,
        };
        self.on.iter().filter_map(slow).sum()
    }

    /// By how much the host of a site's policies is late, and of how many things in a thousand nobody learns what became.
    pub(super) fn host_slow(&self, site: usize) -> (Duration, u32) {
        let slow = |(_, fault): &(usize, Fault)| match fault {
            Fault::HostSlow { site: s, by, permille } if *s == site => Some((*by, *permille)),
            _ => None,
        };
        self.on
            .iter()
            .filter_map(slow)
            .fold((Duration::ZERO, 0), |all, one| (all.0 + one.0, all.1.max(one.1)))
    }

    /// Faults of a store that are on, with their index.
    pub(super) fn of_store(&self, store: Store) -> impl Iterator<Item = (usize, &Fault)> {
        self.on.iter().map(|(index, fault)| (*index, fault)).filter(move |(_, fault)| {
            let of = match fault {
                Fault::Outage { store }
                | Fault::Throttle { store, .. }
                | Fault::Broken { store, .. }
                | Fault::Misrouted { store, .. }
                | Fault::Expired { store }
                | Fault::Skewed { store }
                | Fault::LoseAnswers { store, .. }
                | Fault::LoseRequests { store, .. } => store,
                _ => return false,
            };
            *of == store
        })
    }

    /// Whether a fault that is on makes a store useless for good if it stays: nothing can be finished there.
    pub(super) fn denies(&self, store: Store) -> Option<&'static str> {
        self.of_store(store).find_map(|(_, fault)| match fault {
            Fault::Outage { .. } | Fault::Expired { .. } | Fault::Skewed { .. } => Some(fault.name().1),
            Fault::Throttle { permille, .. }
            | Fault::Broken { permille, .. }
            | Fault::Misrouted { permille, .. }
            | Fault::LoseAnswers { permille, .. }
            | Fault::LoseRequests { permille, .. } => (*permille >= 100).then_some(fault.name().1),
            _ => None,
        })
    }
}

/// Whether an operation is one of those.
pub(super) fn covers(ops: Ops, verb: &str) -> bool {
    match ops {
        Ops::Any => true,
        Ops::Create => verb == "create",
        Ops::Put => matches!(verb, "put" | "put_part"),
        Ops::Complete => verb == "complete",
        Ops::Look => matches!(verb, "head" | "get" | "list_parts" | "list_uploads"),
        Ops::Remove => matches!(verb, "abort" | "delete"),
    }
}
