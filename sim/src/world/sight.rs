//! What the liveness judge is told of a world: who reaches whom, and what stays broken for good.

use tidegate_core::id::{DeviceId, Role};

use super::World;
use super::link::{State, at};
use super::weather::Route;
use crate::liveness::Linked;
use crate::scenario::Store;

impl World<'_> {
    /// The number of a site's device.
    pub(super) fn device_of(&self, site: usize, id: &DeviceId) -> Option<usize> {
        self.devices.iter().position(|device| device.spec.site == site && device.id == *id)
    }

    /// Why a site cannot finish what its stores are needed for.
    pub(super) fn denied(&self, site: usize) -> Option<&'static str> {
        let route = Route::Cloud { site };
        let path = (self.weather.cut(route, true) || self.weather.cut(route, false)).then_some("cut off");
        let held = (self.weather.held(route) || self.weather.refused(route)).then_some("out of reach");
        let cloud = self.weather.denies(Store::Cloud(site));
        path.or(held).or(cloud).or_else(|| self.weather.denies(Store::Edge(site)))
    }

    /// Why a device cannot reach its site.
    pub(super) fn cut_off(&self, device: usize) -> Option<&'static str> {
        if !self.devices[device].on {
            return Some("switched off");
        }
        let site = self.devices[device].spec.site;
        let routes = [
            Route::Link { device, site, role: Role::Recorder },
            Route::Link { device, site, role: Role::Transfer },
            Route::Http { device, site },
        ];
        let gone = |route: &Route| {
            let weather = &self.weather;
            weather.cut(*route, true)
                || weather.cut(*route, false)
                || weather.held(*route)
                || weather.refused(*route)
        };
        routes.iter().any(gone).then_some("cut off")
    }

    /// A device's links as both sides know them.
    pub(super) fn linked(&self, device: usize) -> Linked {
        let open = |role| {
            let link = self.lines[device].current[at(role)].map(|link| &self.links[link]);
            link.is_some_and(|link| {
                link.state == State::Open && !link.site_gone && !link.device_gone && link.conn.is_some()
            })
        };
        let spec = &self.devices[device].spec;
        let route = Route::Link { device, site: spec.site, role: Role::Recorder };
        // Both ways, with what the jitter of a link adds to nearly every frame.
        let way = spec.latency * 9 / 8 + self.weather.slow(route);
        Linked {
            recorder: open(Role::Recorder),
            uploader: open(Role::Transfer),
            view: self.views.get(&device).cloned(),
            late: way * 2 >= self.nodes[spec.site].knobs.rpc_timeout(),
        }
    }
}
